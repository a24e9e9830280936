//! A file under way that the same command may take over after it was killed.
//!
//! `FILE.part` is locked for as long as it is written. Whoever gets the lock, on the file that the name leads to, is the
//! only one who writes it, and what is in it is nobody's any more.

use super::whole_file::UNFINISHED;
use crate::catalogue::sentence;
use crate::error::{Code, Error, Result};
use holdfast_io::RealDisk;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// The file under way. Dropped before its end, it is removed.
pub(super) struct PartFile {
    file: File,
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
        loop {
            if path.exists() {
                return Err(Error::usage(format!("{} is there already.", path.display()))
                    .with_next("name a file that does not exist yet"));
            }
            let mut options = File::options();
            let file = options.create(true).append(true).mode(0o600).open(&part).map_err(cant)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    return Err(Error::new(
                        Code::Locked,
                        format!("Another export writes {}.", part.display()),
                    )
                    .with_next("wait until it is done, or name another file"));
                }
                Err(TryLockError::Error(e)) => return Err(cant(e)),
            }
            // Whoever held the lock before may have given the file its name since, or removed it.
            let ours = file.metadata().map_err(cant)?.ino();
            if fs::metadata(&part).is_ok_and(|found| found.ino() == ours) {
                file.set_len(0).map_err(cant)?;
                return Ok(Self { file, part, path: path.to_path_buf(), finished: false });
            }
        }
    }

    /// Returns when the file is there, whole, and survives a crash.
    pub(super) fn finish(mut self) -> Result<()> {
        let disk = RealDisk::shared();
        self.file
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
        self.file.write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
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
}
