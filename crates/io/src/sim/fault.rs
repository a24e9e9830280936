//! Which operation of a simulated disk fails, and how.

use std::io;
use std::path::Path;

use crate::error::{Error, Result};

/// The kinds of operation that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpKind {
    /// Opening a file that exists.
    Open,
    /// Making a file or folder.
    Create,
    /// Reading.
    Read,
    /// Writing.
    Write,
    /// Changing the length, punching or zeroing a range, reserving space.
    Shape,
    /// Syncing a file.
    Sync,
    /// Syncing a folder.
    SyncDir,
    /// Renaming.
    Rename,
    /// Removing.
    Remove,
    /// Listing a folder.
    List,
    /// Asking for facts.
    Metadata,
    /// Locking.
    Lock,
}

/// How an operation fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The device reports an error. On a sync, what it should have covered is lost for good.
    Eio,
    /// The file system is full.
    Enospc,
    /// A signal came first; nothing was done.
    Eintr,
    /// The kernel has no memory for it. On a sync, what it should have covered is lost for good.
    Enomem,
    /// A read or write does only half of what was asked, at least one byte. Other operations ignore it.
    Short,
}

impl Fault {
    fn error(self) -> Option<io::Error> {
        match self {
            Self::Eio => Some(io::Error::from_raw_os_error(libc::EIO)),
            Self::Enospc => Some(io::Error::from_raw_os_error(libc::ENOSPC)),
            Self::Eintr => Some(io::Error::from_raw_os_error(libc::EINTR)),
            Self::Enomem => Some(io::Error::from_raw_os_error(libc::ENOMEM)),
            Self::Short => None,
        }
    }
}

#[derive(Debug)]
struct Armed {
    kind: Option<OpKind>,
    left: u64,
    fault: Fault,
}

/// The armed faults and the count of operations.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    seen: u64,
}

impl Faults {
    pub(super) fn arm(&mut self, kind: Option<OpKind>, nth: u64, fault: Fault) {
        self.armed.push(Armed { kind, left: nth, fault });
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    pub(super) fn seen(&self) -> u64 {
        self.seen
    }

    /// Counts an operation; gives the fault that fires on it.
    fn fire(&mut self, kind: OpKind) -> Option<Fault> {
        self.seen = self.seen.saturating_add(1);
        let mut fired = None;
        self.armed.retain_mut(|armed| {
            if armed.kind.is_some_and(|k| k != kind) {
                return true;
            }
            if armed.left == 0 && fired.is_none() {
                fired = Some(armed.fault);
                return false;
            }
            armed.left = armed.left.saturating_sub(1);
            true
        });
        fired
    }

    /// Counts an operation and fails it if its turn has come.
    pub(super) fn check(&mut self, kind: OpKind, op: &'static str, path: &Path) -> Result<()> {
        match self.fire(kind).and_then(Fault::error) {
            Some(e) => Err(Error::from_io(op, path, e)),
            None => Ok(()),
        }
    }

    /// As [`Faults::check`] for a read or write of `len` bytes; gives how many of them may be done.
    pub(super) fn check_len(
        &mut self,
        kind: OpKind,
        op: &'static str,
        path: &Path,
        len: usize,
    ) -> Result<usize> {
        match self.fire(kind) {
            None => Ok(len),
            Some(Fault::Short) => Ok(if len > 1 { len / 2 } else { len }),
            Some(fault) => match fault.error() {
                Some(e) => Err(Error::from_io(op, path, e)),
                None => Ok(len),
            },
        }
    }
}
