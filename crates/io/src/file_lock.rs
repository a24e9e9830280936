//! A lock on a file of this machine, for as long as its value lives.
//!
//! It belongs to the very `open` that it was asked of (an open-file-description lock): two in one process exclude each
//! other too, closing another handle of the file keeps it, and the system lets go of it when the process ends, however
//! that ends. It is let go by word: a child that another thread forks shares the `open` until it runs its own program,
//! so that closing the file alone would leave the lock held for that moment.
//!
//! Older programs lock some of these files by flock(2), which on a local file system sees no lock of the other kind. One of
//! them may still run while the package is upgraded, so both locks are taken, of the same `open`.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use rustix::fs::{FlockOperation, flock};
use rustix::io::{Errno, retry_on_intr};

use crate::disk::LockKind;

/// A locked file.
#[derive(Debug)]
pub struct FileLock {
    file: File,
}

impl FileLock {
    /// Locks the file of that name exclusively; it is made, readable by its owner only, where there is none. `None`:
    /// another one holds it.
    ///
    /// What is locked is what the name leads to then: whoever held the lock may have removed the file or given it another
    /// name meanwhile.
    ///
    /// # Errors
    /// Where the file can't be opened, or its file system grants no locks.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        loop {
            let mut options = File::options();
            let file = options.create(true).append(true).mode(0o600).open(path)?;
            let Some(lock) = Self::of(file, LockKind::Exclusive)? else { return Ok(None) };
            if lock.is_at(path)? {
                return Ok(Some(lock));
            }
        }
    }

    /// Locks a file that is open: for reading if the lock is to be shared, for writing if it is to be exclusive. `None`:
    /// another one holds it.
    ///
    /// # Errors
    /// Where its file system grants no locks.
    pub fn of(file: File, kind: LockKind) -> io::Result<Option<Self>> {
        let exclusive = kind == LockKind::Exclusive;
        let l_type = if exclusive { libc::F_WRLCK } else { libc::F_RDLCK };
        if !set(&file, l_type)? {
            return Ok(None);
        }
        // From here on dropping it lets go of what it has.
        let lock = Self { file };
        let kind = if exclusive {
            FlockOperation::NonBlockingLockExclusive
        } else {
            FlockOperation::NonBlockingLockShared
        };
        match retry_on_intr(|| flock(&lock.file, kind)) {
            Ok(()) => Ok(Some(lock)),
            Err(Errno::WOULDBLOCK) => Ok(None),
            // Nobody else has one there either.
            Err(Errno::NOSYS | Errno::OPNOTSUPP) => Ok(Some(lock)),
            Err(e) => Err(e.into()),
        }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Whether the path still names the file that is locked.
    ///
    /// # Errors
    /// Where it can't be looked at.
    pub fn is_at(&self, path: &Path) -> io::Result<bool> {
        let ours = self.file.metadata()?;
        match fs::metadata(path) {
            Ok(theirs) => Ok(ours.dev() == theirs.dev() && ours.ino() == theirs.ino()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(e) => Err(e),
        }
    }
}

impl Drop for FileLock {
    fn drop(&mut self) {
        // Where that fails, closing the file does it. In this order whoever finds the first one free finds both so.
        let _ = flock(&self.file, FlockOperation::Unlock);
        let _ = set(&self.file, libc::F_UNLCK);
    }
}

/// Tries to set the lock on the whole file; false if another holder has it.
fn set(file: &File, l_type: libc::c_int) -> io::Result<bool> {
    let request = libc::flock {
        l_type: l_type as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    };
    loop {
        // SAFETY: F_OFD_SETLK reads one `struct flock` through the pointer and keeps nothing. `request` lives to the
        // end of the call, every field is set (l_pid must be 0), and the descriptor is open because `file` is borrowed.
        #[expect(unsafe_code, reason = "open-file-description locks have no safe wrapper")]
        let rc = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLK, &raw const request) };
        if rc == 0 {
            return Ok(true);
        }
        let e = io::Error::last_os_error();
        match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => return Ok(false),
            Some(libc::EINTR) => {}
            _ => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn a_lock_is_of_what_the_name_leads_to_and_excludes_others_in_this_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let first = FileLock::take(&path).unwrap().unwrap();
        assert!(FileLock::take(&path).unwrap().is_none());
        // Closing another handle of the file takes nothing away.
        drop(File::open(&path).unwrap());
        assert!(FileLock::take(&path).unwrap().is_none());
        fs::rename(&path, dir.path().join("other")).unwrap();
        assert!(!first.is_at(&path).unwrap());
        let second = FileLock::take(&path).unwrap().unwrap();
        assert!(second.is_at(&path).unwrap());
        fs::remove_file(&path).unwrap();
        assert!(!second.is_at(&path).unwrap());
    }

    #[test]
    fn shared_locks_go_together_and_an_exclusive_one_stands_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(FileLock::take(&path).unwrap());
        let shared = || FileLock::of(File::open(&path).unwrap(), LockKind::Shared).unwrap();
        let (one, two) = (shared(), shared());
        assert!(one.is_some() && two.is_some());
        assert!(FileLock::take(&path).unwrap().is_none());
        drop((one, two));
        let _alone = FileLock::take(&path).unwrap().unwrap();
        assert!(shared().is_none());
    }

    #[test]
    fn who_locked_the_file_as_older_programs_do_excludes_us_and_is_excluded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        drop(FileLock::take(&path).unwrap());
        let shared = || FileLock::of(File::open(&path).unwrap(), LockKind::Shared).unwrap();
        let older = File::open(&path).unwrap();
        older.try_lock().unwrap();
        assert!(FileLock::take(&path).unwrap().is_none());
        assert!(shared().is_none());
        older.unlock().unwrap();
        // What was refused holds nothing back.
        let ours = FileLock::take(&path).unwrap().unwrap();
        assert!(older.try_lock().is_err() && older.try_lock_shared().is_err());
        drop(ours);
        older.try_lock_shared().unwrap();
        assert!(FileLock::take(&path).unwrap().is_none());
        let ours = shared().unwrap();
        assert!(older.try_lock().is_err());
        drop(ours);
        older.try_lock().unwrap();
    }

    /// A child shares every open file of its parent from the fork until it runs its own program: where closing alone
    /// ended the lock, it was found held in every second of these.
    #[test]
    fn a_lock_that_was_let_go_is_free_at_once_while_children_are_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("lock");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        std::process::Command::new("true").status().unwrap();
                    }
                });
            }
            let busy = (0..20_000).filter(|_| FileLock::take(&path).unwrap().is_none()).count();
            done.store(true, Ordering::Relaxed);
            assert_eq!(busy, 0);
        });
    }
}
