//! A second reader of the Holdfast format.
//!
//! Owns the independent check of a repository: it shares `format` and `io` with the
//! store, and none of its code, so that one's mistakes are not the other's. Refuses to
//! know servers, the daemon and the configuration. Start reading at `check.rs`; a repair begins
//! in `repair.rs`.
//!
//! `command.rs` is the whole of the program `holdfast-fsck`, so that `holdfast fsck` can
//! be the same one.

mod append;
pub mod check;
pub mod command;
mod crypt;
pub mod error;
mod findings;
mod frames;
mod heal;
mod hold;
mod index;
pub mod keep;
mod kit;
mod lanes;
mod logs;
mod manifest;
mod maps;
mod overlay;
mod packs;
mod parity;
pub mod progress;
mod reader;
mod refoot;
pub mod repair;
pub mod report;
mod segment;
mod text;
mod unlock;
mod way_in;
mod windows;

pub use check::{Options, Scope, check};
pub use error::{Error, Result};
pub use progress::Progress;
pub use repair::{RepairOptions, Repaired, repair};
pub use report::Report;
pub use unlock::Secret;
