//! Laying a backup out in a folder.
//!
//! Blocks are read in the order they lie in segments, several neighbours at once (`spans.rs`),
//! through a bulk engine with many requests in flight (`bulk.rs`); each is checked, and written
//! where it belongs. Holes and zeros stay holes. Every file is synced, then every folder: when
//! [`BackupReader::restore_into`] returns, it is there.

mod bulk;
mod spans;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bulk::Bulk;
use holdfast_format::map::{FileKind, RunKind};
use holdfast_io::{Disk, File, Open};

use crate::error::{Error, Result};
use crate::reader::{BackupReader, block_len};

/// Blocks planned at once: 24 bytes each, so 24 MiB, and 64 GiB of files within reach of one sort.
const WINDOW_BLOCKS: usize = 1 << 20;

/// Files held open for writing.
const OPEN_FILES_MAX: usize = 256;

/// How a backup is laid out.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only files whose path this accepts; all if absent.
    pub only: Option<fn(&[u8]) -> bool>,
    /// Ends the restore early with [`Error::Cancelled`] once it is true.
    pub cancel: Option<Arc<AtomicBool>>,
}

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreProgress {
    /// Bytes of blocks written so far.
    pub bytes_done: u64,
    /// Bytes of blocks to write in all.
    pub bytes_total: u64,
}

/// What a restore did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RestoreSummary {
    /// Files, folders and links laid out.
    pub files: u64,
    /// Sum of the files' lengths, bytes.
    pub logical_bytes: u64,
    /// Blocks read and checked.
    pub blocks: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Links that were left out, because the place takes none.
    pub links_skipped: u64,
}

/// A block to lay out.
#[derive(Debug, Clone, Copy)]
struct Task {
    segment: u32,
    slot: u32,
    file: u32,
    block: u32,
}

/// What the threads of a restore share.
#[derive(Debug)]
struct Work<'a> {
    reader: &'a BackupReader,
    disk: &'a dyn Disk,
    paths: HashMap<u32, PathBuf>,
    open: Mutex<HashMap<u32, Arc<dyn File>>>,
    bytes: AtomicU64,
    blocks: AtomicU64,
    bytes_total: u64,
    cancel: Option<&'a AtomicBool>,
}

impl BackupReader {
    /// Lays the backup out below `dir`, which must be there. Files must not exist yet.
    pub fn restore_into(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        progress: &(dyn Fn(RestoreProgress) + Sync),
        options: &RestoreOptions,
    ) -> Result<RestoreSummary> {
        let mut summary = RestoreSummary::default();
        let paths = self.make_files(disk, dir, options, &mut summary)?;
        let mut work = Work {
            reader: self,
            disk,
            paths,
            open: Mutex::default(),
            bytes: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            bytes_total: 0,
            cancel: options.cancel.as_deref(),
        };
        work.bytes_total = self.stored_bytes(&work);
        let mut bulk = Bulk::open(self.inner.options.io, self.inner.options.workers)?;
        let mut window: Vec<Task> = Vec::new();
        let mut files: Vec<u32> = work.paths.keys().copied().collect();
        files.sort_unstable();
        for file in &files {
            for task in self.tasks(*file) {
                window.push(task);
                if window.len() >= WINDOW_BLOCKS {
                    bulk.run(&work, sorted(&mut window), progress)?;
                    window.clear();
                }
            }
        }
        bulk.run(&work, sorted(&mut window), progress)?;
        work.sync(&files)?;
        sync_folders(disk, dir, work.paths.values())?;
        summary.blocks = work.blocks.load(Ordering::Relaxed);
        summary.bytes_written = work.bytes.load(Ordering::Relaxed);
        Ok(summary)
    }

    /// Makes folders and empty files of the right lengths; gives the paths of the regular ones.
    fn make_files(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        options: &RestoreOptions,
        summary: &mut RestoreSummary,
    ) -> Result<HashMap<u32, PathBuf>> {
        let mut paths = HashMap::new();
        for (number, file) in self.map.files.iter().enumerate() {
            let entry = &file.entry;
            if options.only.is_some_and(|only| !only(&entry.path)) {
                continue;
            }
            let path = dir.join(path_of(&entry.path));
            summary.files += 1;
            match &entry.kind {
                FileKind::Directory => disk.create_dir_all(&path)?,
                FileKind::Symlink { .. } => summary.links_skipped += 1,
                FileKind::Regular => {
                    if let Some(parent) = path.parent() {
                        disk.create_dir_all(parent)?;
                    }
                    let made = disk.open(&path, Open::CreateNew)?;
                    made.set_len(entry.len)?;
                    summary.logical_bytes += entry.len;
                    paths.insert(u32::try_from(number).unwrap_or(u32::MAX), path);
                }
            }
        }
        Ok(paths)
    }

    fn stored_bytes(&self, work: &Work<'_>) -> u64 {
        work.paths.keys().flat_map(|file| self.tasks(*file).map(|t| self.len_of(&t) as u64)).sum()
    }

    fn len_of(&self, task: &Task) -> usize {
        self.map.files.get(task.file as usize).map_or(0, |f| block_len(f.entry.len, task.block))
    }

    fn tasks(&self, file: u32) -> impl Iterator<Item = Task> + '_ {
        let runs = self.map.files.get(file as usize).map(|f| f.runs()).unwrap_or_default();
        runs.iter().flat_map(move |(start, run)| {
            let data = if let RunKind::Data { first, .. } = run.kind { Some(first) } else { None };
            let count = data.map_or(0, |_| run.count);
            (0..count).filter_map(move |k| {
                data.map(|first| Task {
                    segment: first.segment,
                    slot: first.slot + k,
                    file,
                    block: start + k,
                })
            })
        })
    }
}

/// The blocks of a window as their segments hold them.
fn sorted(window: &mut [Task]) -> &[Task] {
    window.sort_unstable_by_key(|t| (t.segment, t.slot, t.file, t.block));
    window
}

/// A path of a backup below a folder: bytes as they are.
fn path_of(path: &[u8]) -> PathBuf {
    use std::os::unix::ffi::OsStrExt;
    PathBuf::from(std::ffi::OsStr::from_bytes(path))
}

fn sync_folders<'p>(disk: &dyn Disk, dir: &Path, paths: impl Iterator<Item = &'p PathBuf>) -> Result<()> {
    let mut folders: Vec<&Path> = paths.filter_map(|p| p.parent()).collect();
    folders.push(dir);
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        disk.sync_dir(folder)?;
    }
    Ok(())
}

impl Work<'_> {
    /// An error once the work is not wanted any more.
    fn go_on(&self) -> Result<()> {
        let cancelled = self.cancel.is_some_and(|c| c.load(Ordering::Relaxed));
        if cancelled { Err(Error::Cancelled) } else { Ok(()) }
    }

    /// An open file; when too many are open, one of them is let go (what was written stays, the sync comes at the end).
    fn file(&self, number: u32) -> Result<Arc<dyn File>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = open.get(&number) {
            return Ok(Arc::clone(file));
        }
        if open.len() >= OPEN_FILES_MAX
            && let Some(other) = open.keys().next().copied()
        {
            open.remove(&other);
        }
        let path = self.paths.get(&number).ok_or(Error::damaged("map", "a run", "it names no file"))?;
        let file = self.disk.open(path, Open::Write)?;
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Makes every file durable.
    fn sync(&self, files: &[u32]) -> Result<()> {
        for file in files {
            self.file(*file)?.sync_all()?;
        }
        Ok(())
    }
}
