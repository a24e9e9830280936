//! `Disk`: the only way to files.
//!
//! Two of them exist: [`RealDisk`](crate::RealDisk) and [`SimDisk`](crate::SimDisk), which
//! records every operation and can show what any crash would have left. Everything above
//! is written against the trait, so everything above runs on both.

use std::ffi::OsString;
use std::fmt::Debug;
use std::ops::Range;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::durable::folder_of;
use crate::error::{Error, Result};

/// What offset, length and memory of a request past the page cache are multiples of: a page, and the largest logical
/// block that disks have.
pub const DIRECT_ALIGNMENT: u64 = 4096;

/// How a file is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Open {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    Write,
    /// For reading and writing; the file must not exist.
    CreateNew,
    /// For reading and writing; made when missing, its content kept otherwise.
    CreateOrOpen,
}

/// What a name in a folder stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A folder.
    Dir,
    /// A link, socket, pipe or device.
    Other,
}

/// One name of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name, without the folder.
    pub name: OsString,
    /// What it stands for (a symbolic link is `Other`, wherever it points).
    pub kind: EntryKind,
}

/// Facts about a file or folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: EntryKind,
    /// Length in bytes.
    pub len: u64,
    /// Bytes the file system has allocated to it; less than `len` for a file with holes.
    pub allocated: u64,
    /// Time of the last change of its content, in nanoseconds since the Unix epoch (0 on the simulated disk).
    pub modified_unix_ns: i64,
}

/// The space of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FreeSpace {
    /// Bytes that this process may still use.
    pub available: u64,
    /// Bytes of the whole file system.
    pub total: u64,
}

/// Which other locks a lock lets live.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// No other lock.
    Exclusive,
    /// Other shared locks.
    Shared,
}

/// How long a lock is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Try,
    /// At most this long.
    AtMost(Duration),
}

/// A lock, held while this value lives. The kernel frees it when the process dies.
pub struct Lock {
    _held: Box<dyn Send + Sync>,
}

impl Lock {
    /// Wraps whatever lets the lock go when it is dropped.
    pub fn new(held: Box<dyn Send + Sync>) -> Self {
        Self { _held: held }
    }
}

impl Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Lock")
    }
}

/// An open file. Positions are explicit, so one handle serves many threads.
pub trait File: Send + Sync + Debug {
    /// The path it was opened by, for messages.
    fn path(&self) -> &Path;

    /// Reads up to `buf.len()` bytes at `offset`; fewer at the end of the file (0 there) or whenever the
    /// system feels like it. Prefer [`File::read_exact_at`].
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize>;

    /// Writes up to `bytes.len()` bytes at `offset` and says how many. Prefer [`File::write_all_at`].
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize>;

    /// Length in bytes.
    fn len(&self) -> Result<u64>;

    /// True when the file has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts the file, or extends it with a hole.
    fn set_len(&self, len: u64) -> Result<()>;

    /// Makes content and length durable. A failure poisons the handle: every later write or sync through it
    /// is refused with [`Error::Poisoned`].
    fn sync_data(&self) -> Result<()>;

    /// Asks the system to begin writing the range out, so that a later sync has less left to do. Promises nothing; what
    /// goes wrong shows in that sync.
    fn begin_writing(&self, _offset: u64, _len: u64) {}

    /// Tells the system that the range will be read soon, so that it is there by then. Promises nothing.
    fn read_ahead(&self, _offset: u64, _len: u64) {}

    /// Makes content and all metadata durable; poisons as [`File::sync_data`] does. The name is durable
    /// only after [`Disk::sync_dir`].
    fn sync_all(&self) -> Result<()>;

    /// Gives the file its permission bits and the time of its last change (microseconds since the Unix epoch), whatever
    /// was written before. The simulated disk keeps neither.
    fn set_mode_and_time(&self, _mode: u32, _modified_unix_us: i64) -> Result<()> {
        Ok(())
    }

    /// Gives the range back to the file system; it reads as zeros afterwards. The length stays.
    fn punch_hole(&self, offset: u64, len: u64) -> Result<()>;

    /// Makes the range read as zeros but keeps its space where the file system can. Extends the file.
    fn zero_range(&self, offset: u64, len: u64) -> Result<()>;

    /// Reserves space for the range, without changing the length. A file system that cannot is no error.
    fn allocate(&self, offset: u64, len: u64) -> Result<()>;

    /// The first stretch of data at or after `offset`, `None` if only a hole follows. A file system that knows
    /// no holes calls everything data.
    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>>;

    /// Whether a sync of this handle failed, so that nothing more may be written through it.
    fn is_poisoned(&self) -> bool;

    /// The descriptor, for the bulk engines; `None` on the simulated disk.
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// A second descriptor of the same file that goes past the page cache (O_DIRECT), for requests whose offset, length
    /// and memory are multiples of [`DIRECT_ALIGNMENT`]; `None` unless opened by [`Disk::open_bulk`] on a file system
    /// that has such a thing.
    fn direct_descriptor(&self) -> Option<BorrowedFd<'_>> {
        None
    }

    /// Says that the file system refused a request past the page cache: there is no direct descriptor from now on.
    fn refuse_direct(&self) {}

    /// Fills `buf` from `offset`, carrying short and interrupted reads on.
    fn read_exact_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let expected = buf.len();
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.read_at(offset.saturating_add(done as u64), rest) {
                Ok(0) => {
                    return Err(Error::ShortRead {
                        what: self.path().display().to_string(),
                        offset,
                        expected: expected as u64,
                        got: done as u64,
                    });
                }
                Ok(n) => done = done.saturating_add(n),
                Err(e) if e.is_interrupted() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Writes all of `bytes` at `offset`, carrying short and interrupted writes on.
    fn write_all_at(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut done = 0_usize;
        while let Some(rest) = bytes.get(done..).filter(|rest| !rest.is_empty()) {
            match self.write_at(offset.saturating_add(done as u64), rest) {
                Ok(0) => {
                    return Err(Error::Refused {
                        op: "write",
                        what: self.path().display().to_string(),
                        why: "the system wrote nothing and gave no reason",
                    });
                }
                Ok(n) => done = done.saturating_add(n),
                Err(e) if e.is_interrupted() => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

/// A file system: the only way to files and folders.
pub trait Disk: Send + Sync + Debug {
    /// Opens or makes a file. The name of a new file is durable only after [`Disk::sync_dir`].
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>>;

    /// As [`Disk::open`], for much data that is moved once: the bulk engines go past the page cache where they can, which
    /// saves a copy and leaves what others have in the cache there.
    fn open_bulk(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        self.open(path, how)
    }

    /// Renames, replacing what stands at `to`; atomic.
    fn rename(&self, from: &Path, to: &Path) -> Result<()>;

    /// Renames a file unless something stands at `to` ([`Error::Exists`]); atomic.
    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<()>;

    /// Removes a file.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> Result<()>;

    /// Makes one folder in a folder that exists.
    fn create_dir(&self, path: &Path) -> Result<()>;

    /// The names of a folder, sorted, without `.` and `..`.
    fn list(&self, dir: &Path) -> Result<Vec<Entry>>;

    /// Makes the names of a folder durable: what was made, renamed or removed in it.
    fn sync_dir(&self, dir: &Path) -> Result<()>;

    /// Gives a folder its permission bits and the time of its last change, and makes both and its names durable. Last of
    /// all that is done in it: a new name changes the time again, and the bits may lock us out.
    fn finish_dir(&self, dir: &Path, _mode: u32, _modified_unix_us: i64) -> Result<()> {
        self.sync_dir(dir)
    }

    /// Makes a symbolic link; false on a disk that has none. The name is durable only after [`Disk::sync_dir`].
    fn symlink(&self, _target: &[u8], _path: &Path, _modified_unix_us: i64) -> Result<bool> {
        Ok(false)
    }

    /// Facts about a path; links are not followed.
    fn metadata(&self, path: &Path) -> Result<Metadata>;

    /// Locks a file that exists. `None` with [`Wait::Try`] if another holder has it; [`Error::LockBusy`] when
    /// the wait was too short. The lock is on the file that the path names when the call returns: if the file
    /// was replaced or removed meanwhile, the call starts over.
    fn lock(&self, path: &Path, kind: LockKind, wait: Wait) -> Result<Option<Lock>>;

    /// The space of the file system that holds `path`.
    fn free_space(&self, path: &Path) -> Result<FreeSpace>;

    /// Whether something stands at `path`.
    fn exists(&self, path: &Path) -> Result<bool> {
        match self.metadata(path) {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// Makes a folder and those above it that are missing, and makes each new name durable.
    fn create_dir_all(&self, path: &Path) -> Result<()> {
        let mut missing: Vec<PathBuf> = Vec::new();
        let mut at = Some(path);
        while let Some(dir) = at {
            if dir.as_os_str().is_empty() || self.exists(dir)? {
                break;
            }
            missing.push(dir.to_path_buf());
            at = dir.parent();
        }
        for dir in missing.into_iter().rev() {
            let made = match self.create_dir(&dir) {
                Ok(()) => true,
                Err(Error::Exists { .. }) => false,
                Err(e) => return Err(e),
            };
            if let Err(e) = self.sync_dir(&folder_of(&dir)) {
                // A later sync may succeed and write nothing of this name: who comes next makes the folder anew.
                if made {
                    let _ = self.remove_dir(&dir);
                }
                return Err(e);
            }
        }
        Ok(())
    }
}
