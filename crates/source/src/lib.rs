//! One physical copy of a server as a stream of (file, offset, block).
//!
//! Owns the ways to get a copy (the CLONE protocol, mariadb-backup, a folder) and the
//! check of InnoDB pages on the way in. Refuses to know how blocks are stored: it hands
//! them to a [`Sink`]. Start reading at `sink.rs`.

pub mod assemble;
pub mod clone;
pub mod error;
pub mod folder;
pub mod mariadb_backup;
pub mod outcome;
pub mod page;
pub mod path;
mod server_facts;
pub mod sink;
pub mod sinks;
pub mod source;
mod spool;
mod threads;
pub mod verify;
pub mod xbstream;

pub use assemble::BlockAssembler;
pub use clone::CloneSource;
pub use error::Error;
pub use folder::FolderSource;
pub use mariadb_backup::{MariadbBackup, Program};
pub use outcome::{Coordinates, Facts, NotCarried, Outcome, PageCounts, Position, Warning};
pub use path::{FilePath, PathError};
pub use server_facts::variables as server_variables;
pub use sink::{BLOCK_BYTES, FileKind, FileNo, FileSpec, FileState, Sink, SinkError};
pub use source::{Progress, Source, Stage, Unwatched, Watch};
pub use verify::VerifyingSink;
