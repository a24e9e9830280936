//! The only two doors of Holdfast to storage.
//!
//! Owns [`Disk`], the only way to files (engines: io_uring, thread pool, and a
//! simulated one with faults), and [`Objects`], all that a repository needs of
//! the place where it lies; and [`FileLock`], by which commands keep each other off a
//! folder that is no repository. Refuses to know what any of the bytes mean. All `unsafe`
//! code of the workspace is here. Start reading at `disk.rs`, then `objects.rs`.
//!
//! Four sentences hold everywhere in this crate:
//!
//! 1. A failed sync poisons the handle it was asked of; nothing is retried, and nothing
//!    more is written through that handle. (Linux marks the pages clean after a failed
//!    `fsync`, so a second one that succeeds proves nothing.)
//! 2. A short read or write and an interrupted call are carried on by the `_exact_` and
//!    `_all_` calls; every other failure is returned with the name of the object.
//! 3. A new name is durable only after its directory was synced.
//! 4. Every wait has a deadline.

pub mod apart;
pub mod cores;
pub mod directory;
pub mod disk;
pub mod durable;
pub mod engine;
pub mod error;
pub mod file_lock;
pub mod objects;
pub mod real;
pub mod sim;

pub use directory::Directory;
pub use disk::{
    DIRECT_ALIGNMENT, Disk, Entry, EntryKind, File, FreeSpace, Lock, LockKind, Metadata, Open, Wait,
};
pub use engine::{Buffer, Completion, Engine, EngineChoice, EngineOptions, Request, Slab};
pub use error::{Error, Result};
pub use file_lock::FileLock;
pub use objects::{ObjectName, ObjectWriter, Objects, Put};
pub use real::RealDisk;
pub use sim::SimDisk;
