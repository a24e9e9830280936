//! Laying a backup out in a folder.
//!
//! Blocks are read in the order they lie in segments, several neighbours at once (`spans.rs`),
//! through a bulk engine with many requests in flight (`bulk.rs`); each is checked, and written
//! where it belongs; deltas are applied to the whole block that was read. Holes and zeros stay holes. Every file is synced, then every folder: when
//! [`BackupReader::restore_into`] returns, it is there.

mod bulk;
mod existing;
mod spans;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bulk::Bulk;
use existing::Same;
pub use existing::{Difference, Existing};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{FileEntry, FileKind, Run, RunKind};
use holdfast_io::{Disk, File, Open};
use spans::Roots;

use crate::error::{Error, Result};
use crate::reader::{BackupReader, block_len};

/// Blocks planned at once: 16 bytes each, so 16 MiB, and 64 GiB of files within reach of one sort.
const WINDOW_BLOCKS: usize = 1 << 20;

/// Files held open for writing, with two descriptors each: a process has 1,024 by default, and segments need some.
const OPEN_FILES_MAX: usize = 128;

/// Files that are synced at the same time: a sync waits for the disk and for little else.
const SYNCS: usize = 8;

/// Data without a hole of this length gets its place on the disk before it is written, because it is written out of
/// order: so it lies in one piece.
const ALLOCATE_BYTES_MIN: u64 = 1 << 20;

/// How a backup is laid out.
#[derive(Debug, Clone, Default)]
pub struct RestoreOptions {
    /// Only files with these paths; all if absent.
    pub only: Option<Arc<BTreeSet<Vec<u8>>>>,
    /// What may stand there already.
    pub existing: Existing,
    /// Files, folders and links get the modes and times that the backup has of them, and links are made. Without, modes
    /// are those of new files, and links are left out: a copy that a server streamed has no modes of its own.
    pub facts: bool,
    /// Ends the restore early with [`Error::Cancelled`] once it is true.
    pub cancel: Option<Arc<AtomicBool>>,
}

impl RestoreOptions {
    /// Is the entry with this path laid out?
    fn takes(&self, path: &[u8]) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(path))
    }
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
    /// Blocks that were there already, as the backup has them.
    pub blocks_kept: u64,
    /// Damaged segments of the repository that were read all the same, by their parity.
    pub healed_segments: u64,
    /// Links that were left out, because the place takes none.
    pub links_skipped: u64,
}

/// A block to lay out, and the frame that is read for it in bulk: its own, or, of a delta, the whole block at the end
/// of its chain. `segment` is a number of [`spans::Roots`].
#[derive(Debug, Clone, Copy)]
struct Task {
    segment: u32,
    slot: u32,
    file: u32,
    block: u32,
}

/// The regular files of a restore, by their numbers in the map.
#[derive(Debug, Default)]
struct MadeFiles {
    paths: HashMap<u32, PathBuf>,
    /// The ones that were there already, with their lengths of before.
    there: Vec<(u32, u64)>,
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
    facts: bool,
    same: Same,
    /// How its files are opened: to be written, or only to be looked at.
    open_as: Open,
}

impl BackupReader {
    /// Lays the backup out below `dir`, which must be there.
    pub fn restore_into(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        progress: &(dyn Fn(RestoreProgress) + Sync),
        options: &RestoreOptions,
    ) -> Result<RestoreSummary> {
        if let Existing::Rewritten { keep } = &options.existing {
            existing::clear(self, disk, dir, options, keep)?;
        }
        // Buffers are made ready for the kernel while files are made: neither needs the other.
        let make = || self.make_files(disk, dir, options);
        let (made, bulk) = std::thread::scope(|scope| {
            let making = std::thread::Builder::new().spawn_scoped(scope, make);
            let bulk = Bulk::open(self.inner.options.io, self.inner.options.workers);
            let died = |_| Err(Error::SelfCheck { what: "a thread of the restore" });
            let made = match making {
                Ok(making) => making.join().unwrap_or_else(died),
                Err(_refused) => make(),
            };
            (made, bulk)
        });
        let ((MadeFiles { paths, there }, mut summary), mut bulk) = (made?, bulk?);
        let mut work = Work::new(self, disk, paths, options);
        work.same = existing::compare(&work, &there, self.inner.options.workers)?;
        work.bytes_total = self.stored_bytes(&work);
        let mut window: Vec<Task> = Vec::new();
        let mut roots = Roots::new(self);
        let mut files: Vec<u32> = work.paths.keys().copied().collect();
        files.sort_unstable();
        for file in &files {
            for task in self.tasks(*file) {
                if work.same.has(task.file, task.block) {
                    summary.blocks_kept += 1;
                    continue;
                }
                window.push(roots.find(self, task));
                if window.len() >= WINDOW_BLOCKS {
                    bulk.run(&work, &roots, sorted(&mut window), progress)?;
                    window.clear();
                }
            }
        }
        bulk.run(&work, &roots, sorted(&mut window), progress)?;
        work.sync(&files)?;
        if options.facts {
            summary.links_skipped = self.make_links(disk, dir, options)?;
        }
        sync_folders(disk, dir, work.paths.values())?;
        if options.facts {
            self.finish_folders(disk, dir, options)?;
        }
        summary.healed_segments = self.healings().len() as u64;
        summary.blocks = work.blocks.load(Ordering::Relaxed);
        summary.bytes_written = work.bytes.load(Ordering::Relaxed);
        Ok(summary)
    }

    /// Makes folders and files of the right lengths, empty unless they were there; and begins the summary with them.
    fn make_files(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        options: &RestoreOptions,
    ) -> Result<(MadeFiles, RestoreSummary)> {
        let mut summary = RestoreSummary::default();
        let how = if options.existing == Existing::Refused { Open::CreateNew } else { Open::CreateOrOpen };
        let mut made_files = MadeFiles::default();
        for (number, file) in self.map.files.iter().enumerate() {
            let entry = &file.entry;
            if !options.takes(&entry.path) {
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
                    let number = u32::try_from(number).unwrap_or(u32::MAX);
                    if how == Open::CreateOrOpen {
                        existing::refuse_links_above(disk, dir, &entry.path)?;
                    }
                    let made = disk.open(&path, how)?;
                    let len_before = made.len()?;
                    made.set_len(entry.len)?;
                    match len_before {
                        0 => allocate(made.as_ref(), file.runs())?,
                        _ => made_files.there.push((number, len_before)),
                    }
                    summary.logical_bytes += entry.len;
                    made_files.paths.insert(number, path);
                }
            }
        }
        Ok((made_files, summary))
    }

    /// Makes the links, after every file: nothing is written through them. Gives how many the disk could not take.
    fn make_links(&self, disk: &dyn Disk, dir: &Path, options: &RestoreOptions) -> Result<u64> {
        let mut skipped = 0;
        let is_link = |e: &&FileEntry| matches!(e.kind, FileKind::Symlink { .. });
        let links: HashSet<&[u8]> = self.files().filter(is_link).map(|e| e.path.as_slice()).collect();
        for entry in self.files().filter(|e| options.takes(&e.path)) {
            let FileKind::Symlink { target } = &entry.kind else { continue };
            // A link below a link would be made wherever that one leads.
            let slashes = entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
            if slashes.into_iter().any(|(at, _)| entry.path.get(..at).is_some_and(|p| links.contains(p))) {
                let what = String::from_utf8_lossy(&entry.path).into_owned();
                return Err(Error::damaged("map", what, "it lies below a link"));
            }
            let path = dir.join(path_of(&entry.path));
            let folder = path.parent().unwrap_or(dir);
            disk.create_dir_all(folder)?;
            if disk.symlink(target, &path, entry.mtime_us)? {
                disk.sync_dir(folder)?;
            } else {
                skipped += 1;
            }
        }
        Ok(skipped)
    }

    /// Gives the folders their modes and times, the deepest first.
    fn finish_folders(&self, disk: &dyn Disk, dir: &Path, options: &RestoreOptions) -> Result<()> {
        let wanted = |e: &&FileEntry| e.kind == FileKind::Directory && options.takes(&e.path);
        let mut folders: Vec<&FileEntry> = self.files().filter(wanted).collect();
        folders.sort_by(|a, b| b.path.cmp(&a.path));
        folders.into_iter().try_for_each(|entry| {
            Ok(disk.finish_dir(&dir.join(path_of(&entry.path)), entry.mode, entry.mtime_us)?)
        })
    }

    fn stored_bytes(&self, work: &Work<'_>) -> u64 {
        let all = work.paths.keys().flat_map(|file| self.tasks(*file));
        all.filter(|t| !work.same.has(t.file, t.block)).map(|t| self.len_of(&t) as u64).sum()
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

/// Gives long stretches of data their place.
fn allocate(file: &dyn File, runs: &[(u32, Run)]) -> Result<()> {
    let bytes = |blocks: u32| u64::from(blocks) * u64::from(BLOCK_BYTES);
    let mut stretch: Option<(u64, u64)> = None;
    let data = runs.iter().filter(|(_, run)| matches!(run.kind, RunKind::Data { .. }));
    let ends = data.map(|(start, run)| Some((bytes(*start), bytes(start.saturating_add(run.count)))));
    for next in ends.chain([None]) {
        match (stretch, next) {
            (Some((from, to)), Some((start, end))) if start == to => stretch = Some((from, end)),
            _ => {
                if let Some((from, to)) = stretch.filter(|(from, to)| to - from >= ALLOCATE_BYTES_MIN) {
                    file.allocate(from, to.min(file.len()?).saturating_sub(from))?;
                }
                stretch = next;
            }
        }
    }
    Ok(())
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

impl<'a> Work<'a> {
    fn new(
        reader: &'a BackupReader,
        disk: &'a dyn Disk,
        paths: HashMap<u32, PathBuf>,
        options: &'a RestoreOptions,
    ) -> Self {
        Self {
            reader,
            disk,
            paths,
            open: Mutex::default(),
            bytes: AtomicU64::new(0),
            blocks: AtomicU64::new(0),
            bytes_total: 0,
            cancel: options.cancel.as_deref(),
            facts: options.facts,
            same: Same::default(),
            open_as: Open::Write,
        }
    }

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
        let file = self.disk.open_bulk(path, self.open_as)?;
        open.insert(number, Arc::clone(&file));
        Ok(file)
    }

    /// Makes every file durable, several at a time: the first sync of a file system's journal serves the others too.
    fn sync(&self, files: &[u32]) -> Result<()> {
        let next = AtomicUsize::new(0);
        let sync_some = || -> Result<()> {
            while let Some(number) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                self.go_on()?;
                let file = self.file(*number)?;
                if let Some(mapped) = self.reader.map.files.get(*number as usize).filter(|_| self.facts) {
                    file.set_mode_and_time(mapped.entry.mode, mapped.entry.mtime_us)?;
                }
                file.sync_all()?;
            }
            Ok(())
        };
        on_threads(SYNCS.min(files.len()), &sync_some)
    }
}

/// Runs `work`, which takes its share until nothing is left, on so many threads, this one among them; on fewer if the
/// system refuses some.
fn on_threads(threads: usize, work: &(dyn Fn() -> Result<()> + Sync)) -> Result<()> {
    std::thread::scope(|scope| {
        let helper = |_| std::thread::Builder::new().spawn_scoped(scope, work).ok();
        let helpers: Vec<_> = (1..threads).map_while(helper).collect();
        let here = work();
        let died = |_| Err(Error::SelfCheck { what: "a thread of the restore" });
        helpers.into_iter().map(|helper| helper.join().unwrap_or_else(died)).fold(here, Result::and)
    })
}
