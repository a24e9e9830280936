//! `Objects`: all that a repository needs of the place where it lies.
//!
//! The calls are chosen so that a folder and an object store can both keep the promises.
//! [`Directory`](crate::Directory) keeps them over any [`Disk`](crate::Disk).

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::disk::{File, FreeSpace, Lock, LockKind};
use crate::error::{Error, Result};

/// Longest name of an object, in bytes: far below every store's limit (S3: 1,024; a path: 4,096).
pub const OBJECT_NAME_LEN_MAX: usize = 200;

/// The name of an object: parts of `a-z 0-9 . _ -`, divided by `/`, none empty or beginning with a dot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectName(String);

impl ObjectName {
    /// Checks a name.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        match Self::flaw(&name) {
            None => Ok(Self(name)),
            Some(why) => Err(Error::BadName { name, why }),
        }
    }

    /// What is wrong with a name, if anything.
    fn flaw(name: &str) -> Option<&'static str> {
        if name.len() > OBJECT_NAME_LEN_MAX {
            return Some("it is longer than 200 bytes");
        }
        for part in name.split('/') {
            if part.is_empty() {
                return Some("it has an empty part");
            }
            if part.starts_with('.') {
                return Some("a part of it begins with a dot");
            }
            if !part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
                return Some("only a-z, 0-9, dot, underscore and dash may be in it");
            }
        }
        None
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::str::FromStr for ObjectName {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        Self::new(name)
    }
}

/// What [`Objects::put_if_absent`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is ours.
    Created,
    /// Somebody was first; their bytes stand.
    Exists,
}

/// A new object, written front to back. Dropped without `finish`, it stays as far as it was written, as after a crash.
pub trait ObjectWriter: Send + fmt::Debug {
    /// Appends bytes.
    fn write(&mut self, bytes: &[u8]) -> Result<()>;

    /// Bytes appended so far.
    fn written(&self) -> u64;

    /// Makes everything appended so far durable, the name included. After a failure every later call fails.
    fn sync(&mut self) -> Result<()>;

    /// Syncs, ends the object, and gives its length.
    fn finish(self: Box<Self>) -> Result<u64>;
}

/// The place where a repository lies.
pub trait Objects: Send + Sync + fmt::Debug {
    /// A new object, written front to back; readers may see it while it grows. [`Error::Exists`] if the name is taken.
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>>;

    /// Makes whatever the place needs before objects can lie below these names (such as `segments`), and makes that durable:
    /// a folder each in a [`Directory`](crate::Directory), nothing where names need none.
    fn prepare(&self, folders: &[&str]) -> Result<()>;

    /// Makes an object whole; atomic, and durable when it returns, whoever made it.
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put>;

    /// Makes an object that is locked from the moment others can see it, as [`Objects::put_if_absent`] otherwise.
    /// [`Error::Exists`] if the name is taken. For session files: an unlocked one is dead.
    fn put_locked(&self, name: &ObjectName, bytes: &[u8], kind: LockKind) -> Result<Lock>;

    /// Replaces an object or makes it; atomic and durable. For heads and keyrings, and whole objects by a repair, a scrub or
    /// a re-encryption; never for a locked object.
    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()>;

    /// Fills `buf` from `offset`; [`Error::ShortRead`] if the object ends before.
    fn read_into(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<()>;

    /// Reads `len` bytes at `offset`; [`Error::ShortRead`] if the object ends before, found out before anything is
    /// allocated.
    fn read(&self, name: &ObjectName, offset: u64, len: u64) -> Result<Vec<u8>> {
        let whole = self.len(name)?;
        let wanted =
            usize::try_from(len).ok().filter(|_| offset.checked_add(len).is_some_and(|end| end <= whole));
        let Some(wanted) = wanted else {
            return Err(Error::ShortRead {
                what: name.to_string(),
                offset,
                expected: len,
                got: whole.saturating_sub(offset).min(len),
            });
        };
        let mut bytes = vec![0; wanted];
        self.read_into(name, offset, &mut bytes)?;
        Ok(bytes)
    }

    /// Makes an object durable as far as it can be read now, whoever wrote it: for what a writer that died left behind.
    /// It is written anew, and a copy takes its place at once. A sync alone would not do: if one of that writer failed, the
    /// system may hold its bytes as written, give them to every reader, and never write them.
    fn renew(&self, name: &ObjectName) -> Result<()>;

    /// Length of an object in bytes; [`Error::NotFound`] if there is none.
    fn len(&self, name: &ObjectName) -> Result<u64>;

    /// Whether the object is there.
    fn exists(&self, name: &ObjectName) -> Result<bool> {
        match self.len(name) {
            Ok(_) => Ok(true),
            Err(e) if e.is_not_found() => Ok(false),
            Err(e) => Err(e),
        }
    }

    /// The names that begin with `prefix` (a folder such as `segments/`, or `""` for all), sorted. Whatever the
    /// implementation keeps beside objects (temporary files, folders) is not among them.
    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>>;

    /// Removes an object; durable when it returns. [`Error::NotFound`] if there is none.
    fn delete(&self, name: &ObjectName) -> Result<()>;

    /// Locks an object, which is made (empty) when missing, waiting at most `wait` ([`Error::LockBusy`]).
    fn lock(&self, name: &ObjectName, kind: LockKind, wait: Duration) -> Result<Lock>;

    /// Locks an object that exists ([`Error::NotFound`] otherwise) without waiting; `None` if another holder has it.
    fn try_lock(&self, name: &ObjectName, kind: LockKind) -> Result<Option<Lock>>;

    /// Removes what writers that died left beside objects, and gives how many; nothing where nothing is left.
    fn sweep(&self) -> Result<u64> {
        Ok(0)
    }

    /// Bytes left where the repository lies; `None` where nobody can know (object stores).
    fn free_space(&self) -> Result<Option<FreeSpace>>;

    /// The object as an open file for reading, for the bulk engines; `None` where objects are not files.
    fn file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>>;

    /// As [`Objects::file`], for much of it that is read once: see [`Disk::open_bulk`](crate::Disk::open_bulk).
    fn bulk_file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        self.file(name)
    }
}
