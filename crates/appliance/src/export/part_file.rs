//! A file under way that the same command may take over after it was killed.
//!
//! `FILE.part` is locked for as long as it is written. Whoever gets the lock, on the file that the name leads to, is the
//! only one who writes it, and what is in it is nobody's any more.

use super::whole_file::UNFINISHED;
use crate::catalogue::sentence;
use crate::error::{Code, Error, Result};
use holdfast_io::{FileLock, RealDisk};
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The file under way. Dropped before its end, it is removed.
pub(super) struct PartFile {
    lock: FileLock,
    part: PathBuf,
    path: PathBuf,
    finished: bool,
}

impl PartFile {
    /// Begins the file that will be `path`, which is not there.
    pub(super) fn take(path: &Path) -> Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(UNFINISHED);
        let part = PathBuf::from(part);
        let cant = |e: io::Error| Error::failed(format!("Can't make {}: {e}.", part.display()));
        // Whoever held the lock before may have given the file its name since; nobody does while we have it.
        let there = || -> Result<()> {
            if path.exists() {
                return Err(Error::usage(format!("{} is there already.", path.display()))
                    .with_next("name a file that does not exist yet"));
            }
            Ok(())
        };
        there()?;
        let Some(lock) = FileLock::take(&part).map_err(cant)? else {
            return Err(Error::new(Code::Locked, format!("Another export writes {}.", part.display()))
                .with_next("wait until it is done, or name another file"));
        };
        let taken = Self { lock, part: part.clone(), path: path.to_path_buf(), finished: false };
        there()?;
        taken.lock.file().set_len(0).map_err(cant)?;
        Ok(taken)
    }

    /// Returns when the file is there, whole, and survives a crash.
    pub(super) fn finish(mut self) -> Result<()> {
        let disk = RealDisk::shared();
        self.lock
            .file()
            .sync_all()
            .map_err(|e| Error::failed(format!("Can't sync {}: {e}.", self.part.display())))?;
        disk.rename_noreplace(&self.part, &self.path)
            .and_then(|()| disk.sync_dir(&holdfast_io::durable::folder_of(&self.path)))
            .map_err(|e| Error::failed(sentence(&e.to_string())))?;
        self.finished = true;
        Ok(())
    }
}

impl Write for PartFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.lock.file().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.lock.file().flush()
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        if !self.finished {
            // Its name says that it is not whole; that it lies there harms nobody.
            let _ = fs::remove_file(&self.part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_killed_export_left_is_taken_over_and_one_at_work_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (path, part) = (dir.path().join("a.sql"), dir.path().join("a.sql.part"));
        fs::write(&part, b"half").unwrap();
        let mut file = PartFile::take(&path).unwrap();
        assert_eq!(PartFile::take(&path).err().unwrap().code, Code::Locked);
        file.write_all(b"whole").unwrap();
        file.finish().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert!(!part.exists());
        assert_eq!(PartFile::take(&path).err().unwrap().code, Code::Usage);
        drop(PartFile::take(&dir.path().join("b.sql")).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_was_given_up_can_be_begun_again_at_once_while_children_are_started() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sql");
        // It stays, as that of a killed export does: who removes it makes way for the next one by that alone.
        let part = dir.path().join("a.sql.part");
        let again = || match PartFile::take(&path) {
            Ok(mut file) => {
                file.finished = true;
                part.exists()
            }
            Err(_) => false,
        };
        assert_eq!(crate::forks::busy_beside_children(10_000, again), 0);
    }
}
