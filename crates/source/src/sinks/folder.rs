//! A copy as a folder.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::path::FilePath;
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, Sink, SinkError};

/// Lays a copy out as plain files below an empty folder. Zero blocks become holes.
///
/// Files lie under numbers in `.parts` until [`FolderSink::finish`] moves them to their names, because
/// names may swap during a clone.
#[derive(Debug)]
pub struct FolderSink {
    dir: PathBuf,
    files: Mutex<Vec<Option<Entry>>>,
    past_barrier: AtomicBool,
}

#[derive(Debug)]
struct Entry {
    spec: FileSpec,
    file: Option<std::sync::Arc<File>>,
}

impl FolderSink {
    /// Makes `dir`, or takes it if it is there and empty.
    pub fn create(dir: impl Into<PathBuf>) -> Result<Self, Error> {
        let dir = dir.into();
        fs::create_dir_all(&dir).map_err(Error::io("create", &dir))?;
        if fs::read_dir(&dir).map_err(Error::io("list", &dir))?.next().is_some() {
            let source = std::io::Error::from(std::io::ErrorKind::DirectoryNotEmpty);
            return Err(Error::Io { doing: "lay a copy out in", path: dir, source });
        }
        let parts = dir.join(".parts");
        fs::DirBuilder::new().mode(0o700).create(&parts).map_err(Error::io("create", &parts))?;
        Ok(Self { dir, files: Mutex::new(Vec::new()), past_barrier: AtomicBool::new(false) })
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Option<Entry>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn part(&self, no: FileNo) -> PathBuf {
        self.dir.join(".parts").join(no.0.to_string())
    }

    fn file(&self, no: FileNo) -> Result<std::sync::Arc<File>, SinkError> {
        let files = self.lock();
        let entry = files.get(no.0 as usize).and_then(Option::as_ref);
        let file = entry.and_then(|e| e.file.clone());
        file.ok_or_else(|| SinkError::new(format!("no file {}", no.0)))
    }

    /// Moves every file to its name. A name that two files have is an error.
    pub fn finish(self) -> Result<(), Error> {
        let files = std::mem::take(&mut *self.lock());
        for (no, entry) in files.into_iter().enumerate() {
            let Some(Entry { spec, .. }) = entry else { continue };
            let target = self.dir.join(spec.path.as_path());
            if spec.kind == FileKind::Directory {
                fs::create_dir_all(&target).map_err(Error::io("create", &target))?;
                let mode = fs::Permissions::from_mode(spec.mode);
                fs::set_permissions(&target, mode).map_err(Error::io("set the mode of", &target))?;
                continue;
            }
            if let Some(parent) = target.parent() {
                fs::create_dir_all(parent).map_err(Error::io("create", parent))?;
            }
            let part = self.dir.join(".parts").join(no.to_string());
            fs::hard_link(&part, &target).map_err(Error::io("give its name to", &target))?;
            fs::remove_file(&part).map_err(Error::io("remove", &part))?;
        }
        let parts = self.dir.join(".parts");
        fs::remove_dir(&parts).map_err(Error::io("remove", &parts))
    }
}

impl Sink for FolderSink {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        let mut files = self.lock();
        let no = FileNo(u32::try_from(files.len()).map_err(SinkError::new)?);
        let file = if spec.kind == FileKind::Directory {
            None
        } else {
            let mut options = OpenOptions::new();
            options.read(true).write(true).create_new(true).mode(spec.mode);
            Some(std::sync::Arc::new(options.open(self.part(no)).map_err(SinkError::new)?))
        };
        files.push(Some(Entry { spec, file }));
        Ok(no)
    }

    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if bytes.is_empty() || bytes.len() > BLOCK_BYTES {
            return Err(SinkError::new(format!("a block of {} bytes", bytes.len())));
        }
        let file = self.file(file)?;
        if bytes.iter().all(|&b| b == 0) {
            return Ok(());
        }
        let offset = block_no
            .checked_mul(BLOCK_BYTES_U64)
            .ok_or_else(|| SinkError::new("a block number too large"))?;
        file.write_all_at(bytes, offset).map_err(SinkError::new)
    }

    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if !self.past_barrier.load(Ordering::SeqCst) {
            return Err(SinkError::new("a patch before the barrier"));
        }
        self.file(file)?.write_all_at(bytes, offset).map_err(SinkError::new)
    }

    fn barrier(&self) -> Result<(), SinkError> {
        self.past_barrier.store(true, Ordering::SeqCst);
        Ok(())
    }

    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        let file = self.file(file)?;
        if file.metadata().map_err(SinkError::new)?.len() > len {
            return Err(SinkError::new(format!("a length of {len}, shorter than the file")));
        }
        file.set_len(len).map_err(SinkError::new)
    }

    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        let mut files = self.lock();
        let entry = files.get_mut(file.0 as usize).and_then(Option::as_mut);
        let entry = entry.ok_or_else(|| SinkError::new(format!("no file {}", file.0)))?;
        entry.spec.path = path;
        Ok(())
    }

    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        let mut files = self.lock();
        let slot =
            files.get_mut(file.0 as usize).ok_or_else(|| SinkError::new(format!("no file {}", file.0)))?;
        if slot.take().is_some_and(|entry| entry.file.is_some()) {
            fs::remove_file(self.part(file)).map_err(SinkError::new)?;
        }
        Ok(())
    }
}
