//! The binlog archive.
//!
//! Owns the receiver, the archived stretches of log, their index by GTID, time, table and statement, what they cover,
//! and the search. Refuses to know how events are applied. Start reading at `receiver.rs`: `intake.rs` decides what
//! becomes of each event, `keeper.rs` keeps it by `stretch.rs`, which writes; `import.rs` takes events out of files instead; `tail.rs` finds the place to go on from, `join.rs` the one in another
//! server's log after a fail-over; `log.rs` reads back.

pub mod error;
pub mod find;
pub mod import;
pub mod index;
pub mod intake;
pub mod join;
mod keeper;
mod lanes;
pub mod log;
pub mod mark;
pub mod options;
pub mod probe;
pub mod receiver;
mod repository;
pub mod scan;
pub mod server_log;
pub mod start;
pub mod storage;
pub mod stretch;
pub mod tail;
mod written;

pub use error::{Error, Result};
pub use index::Indexed;
pub use join::Join;
pub use mark::{FileMark, Origin};
pub use options::{FollowOptions, Followed, Note, Until};
pub use receiver::{ReceiverEngine, follow};
pub use server_log::{
    ArchivedFile, Break, CopyFacts, Cursor, Cut, Hole, Interval, Joint, Place, RawEvent, Seen, SeenFrame,
    ServerLog, Size, Target, between,
};
pub use start::{Start, plan};
