//! What can go wrong at the doors to storage.

use std::io;
use std::path::Path;
use std::time::Duration;

/// The result of every call of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// Why a call to a file, a directory or an object failed. `what` names the file or object.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such file or object.
    #[error("{what} does not exist")]
    NotFound {
        /// The file or object.
        what: String,
    },
    /// The name is taken.
    #[error("{what} exists already")]
    Exists {
        /// The file or object.
        what: String,
    },
    /// The file system is full, or a quota is used up.
    #[error("no space is left to {op} {what}; free some space there, then run the command again")]
    NoSpace {
        /// What was being done.
        op: &'static str,
        /// The file or object.
        what: String,
    },
    /// A sync failed earlier, so nobody knows what of this file or folder is on the disk.
    #[error(
        "an earlier sync of {what} failed, so what the disk holds of it is unknown and nothing more is written \
         through this handle; look at the disk, then open the repository again"
    )]
    Poisoned {
        /// The file, object or folder.
        what: String,
    },
    /// The file or object ended before the bytes that were asked for.
    #[error(
        "{what} ends too early: {expected} bytes were asked for at offset {offset}, it has {got} of them"
    )]
    ShortRead {
        /// The file or object.
        what: String,
        /// Where the read began, bytes.
        offset: u64,
        /// How many bytes were wanted.
        expected: u64,
        /// How many there were.
        got: u64,
    },
    /// Another holder kept the lock for longer than the caller wanted to wait.
    #[error("waited {waited:?} for the lock on {what}, which another process still holds")]
    LockBusy {
        /// The locked file or object.
        what: String,
        /// How long the call waited.
        waited: Duration,
    },
    /// The file system grants two exclusive locks at once, or none at all.
    #[error(
        "the file system of {what} does not keep file locks, without which several processes would damage a \
         repository; put it on a local file system, or on NFS 4 with locking"
    )]
    LocksDontWork {
        /// The folder that was probed.
        what: String,
    },
    /// A name that no object can have.
    #[error("{name:?} cannot name an object: {why}")]
    BadName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A request that lies outside of what a file can be.
    #[error("cannot {op} {what}: {why}")]
    Refused {
        /// What was asked for.
        op: &'static str,
        /// The file or object.
        what: String,
        /// What is wrong with the request.
        why: &'static str,
    },
    /// The device did not answer.
    #[error("the disk did not answer for {waited:?}: {what}; look at the kernel's log for its state")]
    Stalled {
        /// What was waited for.
        what: String,
        /// How long.
        waited: Duration,
    },
    /// Anything else the operating system says.
    #[error("cannot {op} {what}: {source}{}", next_step(source))]
    Io {
        /// What was being done: a verb.
        op: &'static str,
        /// The file or object.
        what: String,
        /// What the system said.
        source: io::Error,
    },
}

/// What a person can do about what the system said, where that is known.
fn next_step(source: &io::Error) -> &'static str {
    const EIO: i32 = 5;
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match (source.kind(), source.raw_os_error()) {
        (io::ErrorKind::PermissionDenied, _) => "; check whose it is, and who may use it",
        (io::ErrorKind::ReadOnlyFilesystem, _) => "; mount its file system for writing",
        (_, Some(EIO)) => "; the disk gave up: look at the kernel's log",
        (_, Some(ENFILE | EMFILE)) => "; raise the limit of open files (ulimit -n)",
        _ => "",
    }
}

impl Error {
    /// Names the file and the operation, and sorts the system's error into our variants.
    #[must_use]
    pub fn from_io(op: &'static str, path: &Path, source: io::Error) -> Self {
        let what = path.display().to_string();
        match source.kind() {
            io::ErrorKind::NotFound => Self::NotFound { what },
            io::ErrorKind::AlreadyExists => Self::Exists { what },
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace { op, what },
            _ => Self::Io { op, what, source },
        }
    }

    /// True for a call that a signal broke off before it did anything.
    #[must_use]
    pub fn is_interrupted(&self) -> bool {
        matches!(self, Self::Io { source, .. } if source.kind() == io::ErrorKind::Interrupted)
    }

    /// True when the file or object is not there.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NotFound { .. })
    }

    /// True when the file system is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        matches!(self, Self::NoSpace { .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_system_says_comes_with_what_to_do_where_that_is_known() {
        let told = |code| {
            let source = io::Error::from_raw_os_error(code);
            Error::from_io("read", Path::new("/repo/head/0"), source).to_string()
        };
        for (code, step) in
            [(13, "who may use it"), (30, "for writing"), (5, "kernel's log"), (24, "ulimit -n")]
        {
            let told = told(code);
            assert!(told.starts_with("cannot read /repo/head/0: ") && told.contains(step), "{told}");
        }
        assert!(told(4).ends_with("(os error 4)"));
    }
}
