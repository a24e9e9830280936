//! Where a copy goes.
//!
//! A source knows files, offsets and bytes; a sink knows how they are kept. This trait is all that they
//! say to each other, and the order of its calls is the whole contract:
//!
//! ```text
//! add_file  ->  block ... block  ->  set_len          one file, start to end; blocks in any order
//! add_file  ->  unchanged: true  ->  set_len          one that the sink has from the copy before
//! barrier   ->  patch ... patch                       the overlay of a clone: never before the barrier
//! rename, remove                                      any time after add_file
//! ```

use std::error::Error as StdError;
use std::fmt;

use crate::path::FilePath;

/// Bytes of a block. The unit in which files are handed over, hashed, compared and stored.
pub const BLOCK_BYTES: usize = 64 * 1024;

/// [`BLOCK_BYTES`] for arithmetic on offsets.
pub const BLOCK_BYTES_U64: u64 = BLOCK_BYTES as u64;

/// A file of this copy; given by the sink, meaningful for this sink only.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(pub u32);

/// What a file is to the server. A hint for what to verify and where to lay it out, never for how to store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// An InnoDB tablespace: pages with checksums (`.ibd`, `ibdata*`, undo).
    Tablespace,
    /// The redo log that recovery of this copy will read.
    Redo,
    /// A folder that must exist after a restore. Has no bytes; its `expected_len` is 0.
    Directory,
    /// Anything else.
    Plain,
}

/// A file as the source announces it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Its name inside the copy.
    pub path: FilePath,
    /// What it is.
    pub kind: FileKind,
    /// Bytes it will have as far as the source knows; 0 if it does not. Its true length comes with
    /// [`Sink::set_len`].
    pub expected_len: u64,
    /// Permission bits, such as 0o640.
    pub mode: u32,
    /// Time of the last change of its content, microseconds since the Unix epoch; none where the source doesn't know.
    pub mtime_us: Option<i64>,
}

/// What the file system of a source says of a file. While none of it changes, nor the length, the file has not been
/// written: the source vouches for that by handing one over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileState {
    /// Number of the inode.
    pub inode: u64,
    /// Time of the last change of its content, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Time of the last change of its content, name, owner or mode, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

/// A sink's own error, kept as it is for whoever handed the sink in.
#[derive(Debug)]
pub struct SinkError(Box<dyn StdError + Send + Sync + 'static>);

impl SinkError {
    /// Wraps the sink's error, or a sentence.
    pub fn new(error: impl Into<Box<dyn StdError + Send + Sync + 'static>>) -> Self {
        Self(error.into())
    }

    /// The error that was wrapped.
    #[must_use]
    pub fn into_inner(self) -> Box<dyn StdError + Send + Sync + 'static> {
        self.0
    }
}

impl fmt::Display for SinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl StdError for SinkError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source()
    }
}

/// The receiver of one copy. Shared by the threads of a source, so every call takes `&self`.
///
/// Nothing here is an acknowledgement: durability is the sink's affair when it commits, after
/// [`crate::Source::copy`] returned.
pub trait Sink: Sync {
    /// Announces a file. Paths may repeat while renames are on their way; they are unique at the end.
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError>;

    /// Block `block_no` of `file`, that is the bytes from `block_no * 64 KiB` on. All blocks have
    /// [`BLOCK_BYTES`] bytes but the last of a file, which may be shorter (and never empty).
    /// A block that is never handed over reads as zeros. Each block comes at most once.
    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError>;

    /// Replaces bytes of `file` at `offset`, whether or not a block was there; at most 64 KiB, which may
    /// lie across a block's border and behind the end of the file. Only after [`Sink::barrier`].
    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError>;

    /// Returns when every block handed over before lies where a later patch will win over it.
    fn barrier(&self) -> Result<(), SinkError>;

    /// The length of `file`: longer than its blocks means zeros behind them; never shorter.
    /// Called for every file that is not a directory; the last call counts.
    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError>;

    /// Asks whether the sink has `file` already, from the copy before: under the same name, with this length and state.
    /// If so, no block of it comes. A sink that keeps no copies says no.
    fn unchanged(&self, _file: FileNo, _len: u64, _state: FileState) -> Result<bool, SinkError> {
        Ok(false)
    }

    /// The state of `file` while all of it was read, for [`Sink::unchanged`] of the next copy.
    fn state(&self, _file: FileNo, _state: FileState) -> Result<(), SinkError> {
        Ok(())
    }

    /// Gives `file` another name.
    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError>;

    /// Drops `file` from the copy. No call names it afterwards.
    fn remove(&self, file: FileNo) -> Result<(), SinkError>;
}
