//! What the command line and the daemon both call.
//!
//! Owns the user's configuration, the catalogue of servers, and jobs: backup, archive,
//! doctor, list, status, timeline, find, show, undo, diff, restore (also beside a running server's tables), drill, export, import. Refuses to know terminals and HTTP.
//! Start reading at `lib.rs`'s modules, one per verb.

pub mod archive;
pub mod backup;
pub mod catalogue;
mod changes;
pub mod check_queries;
pub mod copy_from;
pub mod diff;
pub mod digest;
pub mod doctor;
pub mod drill;
pub mod error;
pub mod export;
pub mod fail_over;
pub mod find;
#[cfg(test)]
mod forks;
pub mod import;
pub mod in_place;
pub mod init;
mod intake;
pub mod keep;
pub mod key;
pub mod list;
pub mod login;
pub mod measured;
mod moment;
mod origin;
pub mod own;
pub mod policy;
pub mod progress;
pub mod prune;
pub mod rate;
pub mod reports;
pub mod restore;
mod scratch;
pub mod scrub;
pub mod server;
pub mod server_lock;
pub mod settings;
pub mod show;
pub mod side;
pub mod status;
pub mod time;
pub mod trust;
pub mod undo;
pub mod views;

pub use holdfast_format::record::{ServerKind, ServerRecord};
