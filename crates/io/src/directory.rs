//! `Directory`: objects as files of a folder, over any `Disk`.
//!
//! An object is a file of the same name below the root. Whole objects are written to a
//! temporary file and renamed without replacing; names with a leading dot are never
//! objects, so a leftover of a crash is not seen. A failed sync of a folder poisons the
//! whole directory: nobody knows any more which names are durable.

use std::collections::HashSet;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::disk::{Disk, EntryKind, File, FreeSpace, Lock, LockKind, Open, Wait};
use crate::durable::{folder_of, is_temporary_name, temporary_name};
use crate::error::{Error, Result};
use crate::objects::{ObjectName, ObjectWriter, Objects, Put};

/// Bytes a writer gathers before it writes them: big enough that a frame costs no system call of its own.
const WRITE_BUFFER_BYTES: usize = 256 * 1024;

/// Bytes after which the system is asked to begin writing an object out: so the sync at its end, which somebody waits
/// for, finds little left.
const BEGIN_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes of an object that are copied at a time when it is written anew.
const RENEW_BYTES: usize = 1024 * 1024;

/// Depth of folders that `list` follows: names have at most a handful of parts.
const LIST_DEPTH_MAX: usize = 16;

/// Objects as files below a folder.
#[derive(Debug, Clone)]
pub struct Directory {
    disk: Arc<dyn Disk>,
    root: PathBuf,
    poisoned: Arc<AtomicBool>,
    /// Folders below the root whose names are durable.
    known: Arc<Mutex<HashSet<PathBuf>>>,
}

impl Directory {
    /// Objects below `root`, a folder that exists.
    pub fn open(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        match disk.metadata(&root) {
            // A link is followed by looking at what it holds.
            Ok(m) if m.kind == EntryKind::Dir || disk.list(&root).is_ok() => {
                Ok(Self { disk, root, poisoned: Arc::default(), known: Arc::default() })
            }
            Ok(_) => {
                Err(Error::Refused { op: "use", what: root.display().to_string(), why: "it is not a folder" })
            }
            Err(e) => Err(e),
        }
    }

    /// Objects below `root`, which is made when missing.
    pub fn create(disk: Arc<dyn Disk>, root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        disk.create_dir_all(&root)?;
        Self::open(disk, root)
    }

    /// Makes the folder's own name durable, and those of the folders it lies in: who made them may have died before that.
    /// A folder further up that can't be synced is passed over: whoever made it is not known to be us.
    pub fn settle(&self) -> Result<()> {
        let mut at = self.root.as_path();
        while let Some(above) = at.parent() {
            match self.disk.sync_dir(if above.as_os_str().is_empty() { Path::new(".") } else { above }) {
                Err(Error::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {
                    if at == self.root {
                        return Err(Error::Refused {
                            op: "use",
                            what: self.root.display().to_string(),
                            why: "the folder it lies in may not be read, so its name can't be made durable; allow this \
                                  user to read that folder",
                        });
                    }
                }
                // Where no folder can be synced, a repository can't be either; if it can, it is on another file system,
                // and its name is that of a mount.
                Err(Error::Io { source, .. }) if knows_no_sync(&source) => {}
                other => other?,
            }
            at = above;
        }
        Ok(())
    }

    /// The first thing below the folder that is neither a temporary file of a writer nor among what `known` says yes to: it
    /// is asked for each path from the folder on, its kind, and a file's length in bytes.
    pub fn stranger(&self, known: &dyn Fn(&str, EntryKind, u64) -> bool) -> Result<Option<PathBuf>> {
        self.stranger_below(Path::new(""), 0, known)
    }

    fn stranger_below(
        &self,
        below: &Path,
        depth: usize,
        known: &dyn Fn(&str, EntryKind, u64) -> bool,
    ) -> Result<Option<PathBuf>> {
        for entry in self.disk.list(&self.root.join(below))? {
            let path = below.join(&entry.name);
            let (is_file, is_dir) = (entry.kind == EntryKind::File, entry.kind == EntryKind::Dir);
            if is_file && entry.name.to_str().is_some_and(is_temporary_name) {
                continue;
            }
            let len = if is_file { self.disk.metadata(&self.root.join(&path))?.len } else { 0 };
            if depth > LIST_DEPTH_MAX || !path.to_str().is_some_and(|path| known(path, entry.kind, len)) {
                return Ok(Some(path));
            }
            if is_dir && let Some(found) = self.stranger_below(&path, depth.saturating_add(1), known)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The disk below.
    #[must_use]
    pub fn disk(&self) -> &Arc<dyn Disk> {
        &self.disk
    }

    /// Takes an exclusive lock twice on a file of its own: a file system that grants both, or neither, is
    /// refused with [`Error::LocksDontWork`].
    pub fn probe_locks(&self) -> Result<()> {
        let probe = self.root.join(temporary_name());
        let file = self.disk.open(&probe, Open::CreateNew)?;
        let broken = || Error::LocksDontWork { what: self.root.display().to_string() };
        let verdict = match self.disk.lock(&probe, LockKind::Exclusive, Wait::Try) {
            Ok(Some(_first)) => match self.disk.lock(&probe, LockKind::Exclusive, Wait::Try) {
                Ok(None) => Ok(()),
                Ok(Some(_)) | Err(_) => Err(broken()),
            },
            Ok(None) | Err(_) => Err(broken()),
        };
        drop(file);
        self.disk.remove_file(&probe)?;
        verdict
    }

    /// Removes temporary files that no live process holds: each is locked while it is written. Only what has a name that
    /// writers give is one.
    pub fn sweep(&self) -> Result<u64> {
        let mut removed = 0_u64;
        self.walk(&self.root, 0, &mut |path, name| {
            if is_temporary_name(name) {
                match self.disk.lock(path, LockKind::Exclusive, Wait::Try) {
                    Ok(Some(_dead)) => {
                        self.disk.remove_file(path)?;
                        removed = removed.saturating_add(1);
                    }
                    Ok(None) | Err(Error::NotFound { .. }) => {}
                    Err(e) => return Err(e),
                }
            }
            Ok(())
        })?;
        Ok(removed)
    }

    fn path(&self, name: &ObjectName) -> PathBuf {
        self.root.join(name.as_str())
    }

    fn writable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { what: self.root.display().to_string() });
        }
        Ok(())
    }

    /// Syncs a folder; a failure poisons the directory.
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        self.disk.sync_dir(dir).inspect_err(|_| self.poisoned.store(true, Ordering::Release))
    }

    /// The path of a new object, its folders made.
    fn path_for_new(&self, name: &ObjectName) -> Result<PathBuf> {
        self.writable()?;
        let path = self.path(name);
        self.folder_for_new(&folder_of(&path))?;
        Ok(path)
    }

    /// Makes a folder when missing. The first time this handle uses one, the folder's own name is synced even if it
    /// was there: who made it may not have come to that yet.
    fn folder_for_new(&self, dir: &Path) -> Result<()> {
        if dir == self.root || self.known.lock().unwrap_or_else(PoisonError::into_inner).contains(dir) {
            return Ok(());
        }
        let above = folder_of(dir);
        self.folder_for_new(&above)?;
        let made = match self.disk.create_dir(dir) {
            Ok(()) => true,
            Err(Error::Exists { .. }) => false,
            Err(e) => return Err(e),
        };
        if let Err(e) = self.sync_dir(&above) {
            // A later sync may succeed and write nothing of this name. So nobody shall find the folder and take it for
            // durable; who comes next makes it anew. It stays if something is in it already.
            if made {
                let _ = self.disk.remove_dir(dir);
            }
            return Err(e);
        }
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(dir.to_path_buf());
        Ok(())
    }

    /// Writes and syncs a temporary file beside `path`, locked for as long as the returned value lives.
    fn temporary(
        &self,
        path: &Path,
        kind: LockKind,
        fill: impl FnOnce(&dyn File) -> Result<()>,
    ) -> Result<(PathBuf, Option<Lock>)> {
        let tmp = folder_of(path).join(temporary_name());
        let file = self.disk.open(&tmp, Open::CreateNew)?;
        let done = self.disk.lock(&tmp, kind, Wait::Try).and_then(|lock| {
            fill(file.as_ref())?;
            file.sync_all()?;
            Ok(lock)
        });
        match done {
            Ok(lock) => Ok((tmp, lock)),
            Err(e) => {
                // What the caller must hear is why the write failed.
                let _ = self.disk.remove_file(&tmp);
                Err(e)
            }
        }
    }

    /// Puts what `fill` writes in the place of a file, or anew.
    fn replace_by(&self, path: &Path, fill: impl FnOnce(&dyn File) -> Result<()>) -> Result<()> {
        let (tmp, _lock) = self.temporary(path, LockKind::Exclusive, fill)?;
        if let Err(e) = self.disk.rename(&tmp, path) {
            let _ = self.disk.remove_file(&tmp);
            return Err(e);
        }
        self.sync_dir(&folder_of(path))
    }

    /// Puts a whole new object in place; the lock of its temporary file goes with the file to its name.
    fn put_new(&self, name: &ObjectName, bytes: &[u8], kind: LockKind) -> Result<(Put, Option<Lock>)> {
        let path = self.path_for_new(name)?;
        let dir = folder_of(&path);
        let (tmp, lock) = self.temporary(&path, kind, |file| file.write_all_at(0, bytes))?;
        match self.disk.rename_noreplace(&tmp, &path) {
            Ok(()) => {
                self.sync_dir(&dir)?;
                Ok((Put::Created, lock))
            }
            Err(e) => {
                let _ = self.disk.remove_file(&tmp);
                if matches!(e, Error::Exists { .. }) {
                    // The other writer may not have come to its own sync yet.
                    self.sync_dir(&dir)?;
                    return Ok((Put::Exists, None));
                }
                Err(e)
            }
        }
    }

    fn walk(&self, dir: &Path, depth: usize, visit: &mut dyn FnMut(&Path, &str) -> Result<()>) -> Result<()> {
        if depth > LIST_DEPTH_MAX {
            return Ok(());
        }
        for entry in self.disk.list(dir)? {
            let path = dir.join(&entry.name);
            let Some(name) = entry.name.to_str() else { continue };
            match entry.kind {
                EntryKind::Dir => self.walk(&path, depth.saturating_add(1), visit)?,
                EntryKind::File => visit(&path, name)?,
                EntryKind::Other => {}
            }
        }
        Ok(())
    }
}

/// Whether a file system says that its folders are not synced, or that nothing is ever written to it.
fn knows_no_sync(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported | ErrorKind::ReadOnlyFilesystem)
        || error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

impl Objects for Directory {
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        let path = self.path_for_new(name)?;
        let file = self.disk.open(&path, Open::CreateNew)?;
        Ok(Box::new(DirectoryWriter {
            directory: self.clone(),
            dir: folder_of(&path),
            file,
            flushed: 0,
            begun: 0,
            buffer: Vec::new(),
            named: false,
            failed: false,
        }))
    }

    fn prepare(&self, folders: &[&str]) -> Result<()> {
        self.writable()?;
        folders.iter().try_for_each(|folder| {
            let name = ObjectName::new(folder.trim_end_matches('/'))?;
            self.folder_for_new(&self.path(&name))
        })
    }

    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.put_new(name, bytes, LockKind::Exclusive).map(|(put, _lock)| put)
    }

    fn put_locked(&self, name: &ObjectName, bytes: &[u8], kind: LockKind) -> Result<Lock> {
        match self.put_new(name, bytes, kind)? {
            (Put::Created, Some(lock)) => Ok(lock),
            (Put::Created, None) => Err(Error::LocksDontWork { what: self.root.display().to_string() }),
            (Put::Exists, _) => Err(Error::Exists { what: name.to_string() }),
        }
    }

    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.replace_by(&self.path_for_new(name)?, |file| file.write_all_at(0, bytes))
    }

    fn read_into(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.disk.open(&self.path(name), Open::Read)?.read_exact_at(offset, buf)
    }

    fn renew(&self, name: &ObjectName) -> Result<()> {
        self.writable()?;
        let path = self.path(name);
        let old = self.disk.open(&path, Open::Read)?;
        self.replace_by(&path, |new| {
            let (mut at, mut len) = (0, old.len()?);
            let mut part = vec![0; RENEW_BYTES];
            while len > 0 {
                let take = usize::try_from(len).map_or(RENEW_BYTES, |len| len.min(RENEW_BYTES));
                let part = part.get_mut(..take).unwrap_or_default();
                old.read_exact_at(at, part)?;
                new.write_all_at(at, part)?;
                (at, len) = (at + take as u64, len - take as u64);
            }
            Ok(())
        })
    }

    fn len(&self, name: &ObjectName) -> Result<u64> {
        let path = self.path(name);
        let meta = self.disk.metadata(&path)?;
        if meta.kind == EntryKind::File {
            Ok(meta.len)
        } else {
            Err(Error::Refused { op: "read", what: path.display().to_string(), why: "it is not a file" })
        }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>> {
        // Only the folder part of the prefix narrows the walk; the rest is compared.
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        if !folder.is_empty() {
            ObjectName::new(folder)?;
        }
        let start = self.root.join(folder);
        let mut names = Vec::new();
        let walked = self.walk(&start, 0, &mut |path, _| {
            let relative = path.strip_prefix(&self.root).ok().and_then(Path::to_str);
            if let Some(name) =
                relative.filter(|r| r.starts_with(prefix)).and_then(|r| ObjectName::new(r).ok())
            {
                names.push(name);
            }
            Ok(())
        });
        match walked {
            Err(e) if e.is_not_found() && !folder.is_empty() => {}
            other => other?,
        }
        names.sort();
        Ok(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.writable()?;
        let path = self.path(name);
        self.disk.remove_file(&path)?;
        self.sync_dir(&folder_of(&path))
    }

    fn lock(&self, name: &ObjectName, kind: LockKind, wait: Duration) -> Result<Lock> {
        let path = self.path(name);
        if !self.disk.exists(&path)? {
            // No content, so no sync: after a crash it is made again.
            drop(self.disk.open(&self.path_for_new(name)?, Open::CreateOrOpen)?);
        }
        match self.disk.lock(&path, kind, Wait::AtMost(wait))? {
            Some(lock) => Ok(lock),
            None => Err(Error::LockBusy { what: name.to_string(), waited: wait }),
        }
    }

    fn try_lock(&self, name: &ObjectName, kind: LockKind) -> Result<Option<Lock>> {
        self.disk.lock(&self.path(name), kind, Wait::Try)
    }

    fn sweep(&self) -> Result<u64> {
        Self::sweep(self)
    }

    fn free_space(&self) -> Result<Option<FreeSpace>> {
        self.disk.free_space(&self.root).map(Some)
    }

    fn file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        self.disk.open(&self.path(name), Open::Read).map(Some)
    }

    fn bulk_file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        self.disk.open_bulk(&self.path(name), Open::Read).map(Some)
    }
}

/// An object being written in place.
#[derive(Debug)]
struct DirectoryWriter {
    directory: Directory,
    dir: PathBuf,
    file: Arc<dyn File>,
    flushed: u64,
    /// Up to where the system was asked to write out.
    begun: u64,
    buffer: Vec<u8>,
    /// The name is durable.
    named: bool,
    /// A write or sync failed: what the file holds behind `flushed` is unknown.
    failed: bool,
}

impl DirectoryWriter {
    fn usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::Poisoned { what: self.file.path().display().to_string() });
        }
        self.directory.writable()
    }

    fn guarded<T>(&mut self, result: Result<T>) -> Result<T> {
        result.inspect_err(|_| self.failed = true)
    }

    fn flush(&mut self) -> Result<()> {
        let wrote = self.file.write_all_at(self.flushed, &self.buffer);
        self.guarded(wrote)?;
        self.has_written(self.buffer.len());
        self.buffer.clear();
        Ok(())
    }

    fn has_written(&mut self, bytes: usize) {
        self.flushed = self.flushed.saturating_add(bytes as u64);
        let waiting = self.flushed.saturating_sub(self.begun);
        if waiting >= BEGIN_BYTES {
            self.file.begin_writing(self.begun, waiting);
            self.begun = self.flushed;
        }
    }
}

impl ObjectWriter for DirectoryWriter {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.usable()?;
        if self.buffer.len().saturating_add(bytes.len()) > WRITE_BUFFER_BYTES {
            self.flush()?;
        }
        if bytes.len() >= WRITE_BUFFER_BYTES {
            let wrote = self.file.write_all_at(self.flushed, bytes);
            self.guarded(wrote)?;
            self.has_written(bytes.len());
        } else {
            self.buffer.extend_from_slice(bytes);
        }
        Ok(())
    }

    fn written(&self) -> u64 {
        self.flushed.saturating_add(self.buffer.len() as u64)
    }

    fn sync(&mut self) -> Result<()> {
        self.usable()?;
        self.flush()?;
        let synced = self.file.sync_data();
        self.guarded(synced)?;
        if !self.named {
            let synced = self.directory.sync_dir(&self.dir);
            self.guarded(synced)?;
            self.named = true;
        }
        Ok(())
    }

    fn finish(mut self: Box<Self>) -> Result<u64> {
        self.sync()?;
        Ok(self.flushed)
    }
}
