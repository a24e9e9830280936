//! Binlog events and rows as bytes.
//!
//! Owns the walker over events, the types of each event that matters to a backup, the row
//! splitter and the encoder. Refuses to know where events come from or go: no I/O, no
//! clock. Start reading at `event.rs`; `walker.rs` gives events, `transaction.rs` groups
//! them, `rows.rs` cuts rows, `encode.rs` frames them anew.
//!
//! Layouts are those of MySQL 9.7.4 and MariaDB 10.11, observed on logs of these servers
//! (tests/data), and of their documentation for the older and rarer events.

mod bytes;
pub mod columns;
mod compressed;
pub mod encode;
mod error;
pub mod event;
pub mod format;
pub mod gtid_event;
pub mod json;
pub mod kind;
pub mod misc;
pub mod payload;
pub mod query;
pub mod rows;
pub mod statement;
pub mod table_map;
pub mod tables;
pub mod transaction;
pub mod walker;

pub use error::{Error, Flaw};
pub use event::{Body, Event, Header};
pub use format::{Checksum, FormatDescription};
pub use kind::EventType;
pub use walker::Walker;
