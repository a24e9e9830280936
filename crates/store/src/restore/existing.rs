//! What stands in the folder already: what the backup does not have goes, what is as it should be stays.
//!
//! So a restore that was interrupted goes on where it ended, and one over an older copy moves only what differs. Nothing
//! about the files is believed: each block is read and its id compared.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_format::keys::block_id;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{FileKind, RunKind};
use holdfast_io::{Disk, EntryKind, File, Open};

use super::{RestoreOptions, Work, path_of};
use crate::error::{Error, Result};
use crate::reader::BackupReader;

/// Blocks that one thread compares at a time: 64 MiB, so that one large file keeps all of them busy.
const RANGE_BLOCKS: u64 = 1024;

/// Folders inside folders that are followed to clear them.
const DEPTH_MAX: usize = 64;

/// What may stand in the folder of a restore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Existing {
    /// None of the backup's files.
    #[default]
    Refused,
    /// Anything. Blocks that are as the backup has them stay, others are rewritten in place, and what the backup does
    /// not have is removed, but for these names of the folder itself.
    Rewritten {
        /// What is left alone.
        keep: Vec<OsString>,
    },
}

/// What a restore would do to a folder, file by file. Paths are below the folder, in no order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Difference {
    /// Files that are as the backup has them.
    pub files_kept: u64,
    /// Files that are there and differ, with the bytes of blocks that would be written to each.
    pub rewritten: Vec<(PathBuf, u64)>,
    /// Files of the backup that are not there.
    pub files_made: u64,
    /// Bytes of blocks that would stay.
    pub bytes_kept: u64,
    /// Bytes of blocks that would be written, to files that are there and to others.
    pub bytes_written: u64,
    /// Files and folders that would be removed; what lies in a folder comes before it.
    pub removed: Vec<PathBuf>,
}

/// Blocks that need not be written, by file.
#[derive(Debug, Default)]
pub(super) struct Same {
    bits: HashMap<u32, Vec<u64>>,
    /// Files of which a block has to be written or made zeros.
    changed: HashSet<u32>,
}

impl Same {
    pub(super) fn has(&self, file: u32, block: u32) -> bool {
        let word = self.bits.get(&file).and_then(|bits| bits.get((block / 64) as usize));
        word.is_some_and(|word| word & (1 << (block % 64)) != 0)
    }

    fn insert(&mut self, file: u32, block: u32) {
        let bits = self.bits.entry(file).or_default();
        let at = (block / 64) as usize;
        if bits.len() <= at {
            bits.resize(at + 1, 0);
        }
        if let Some(word) = bits.get_mut(at) {
            *word |= 1 << (block % 64);
        }
    }
}

/// Removes from `dir` what the backup does not have, and what is of another kind than the backup has it.
pub(super) fn clear(
    reader: &BackupReader,
    disk: &dyn Disk,
    dir: &Path,
    options: &RestoreOptions,
    keep: &[OsString],
) -> Result<()> {
    wanted(reader, options).clear(disk, dir, b"", keep, 0)
}

impl BackupReader {
    /// What [`Self::restore_into`] would do to `dir` with [`Existing::Rewritten`]; reads every file there, as the restore
    /// itself would, and changes nothing.
    pub fn difference(&self, disk: &dyn Disk, dir: &Path, options: &RestoreOptions) -> Result<Difference> {
        let mut found = Difference::default();
        if let Existing::Rewritten { keep } = &options.existing {
            wanted(self, options).surplus(disk, dir, b"", keep, 0, &mut found.removed)?;
        }
        let (mut paths, mut there) = (HashMap::new(), Vec::new());
        for (number, file) in self.map.files.iter().enumerate() {
            let entry = &file.entry;
            if entry.kind != FileKind::Regular || !options.takes(&entry.path) {
                continue;
            }
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let path = dir.join(path_of(&entry.path));
            // Below a link nothing is there: the link goes first.
            let reached = refuse_links_above(disk, dir, &entry.path).is_ok();
            let len = match disk.metadata(&path) {
                Ok(facts) if reached && facts.kind == EntryKind::File => Some(facts.len),
                Err(e) if !e.is_not_found() && reached => return Err(e.into()),
                _ => None,
            };
            if let Some(len) = len {
                there.push((number, len));
            } else {
                found.files_made += 1;
                found.bytes_written += self.tasks(number).map(|t| self.len_of(&t) as u64).sum::<u64>();
            }
            paths.insert(number, path);
        }
        let mut work = Work::new(self, disk, paths, options);
        work.open_as = Open::Read;
        let same = compare(&work, &there, self.inner.options.workers)?;
        for (number, len) in there {
            let Some(entry) = self.map.files.get(number as usize).map(|file| &file.entry) else { continue };
            let mut to_write = 0;
            for task in self.tasks(number) {
                let bytes = self.len_of(&task) as u64;
                let part = if same.has(number, task.block) { &mut found.bytes_kept } else { &mut to_write };
                *part += bytes;
            }
            found.bytes_written += to_write;
            if len == entry.len && !same.changed.contains(&number) {
                found.files_kept += 1;
            } else {
                found.rewritten.push((path_of(&entry.path), to_write));
            }
        }
        Ok(found)
    }
}

fn wanted<'b>(reader: &'b BackupReader, options: &RestoreOptions) -> Wanted<'b> {
    let mut wanted = Wanted::default();
    for entry in reader.files().filter(|e| options.takes(&e.path)) {
        for (at, _) in entry.path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
            wanted.folders.extend(entry.path.get(..at));
        }
        match entry.kind {
            FileKind::Regular => wanted.files.insert(&entry.path),
            FileKind::Directory => wanted.folders.insert(&entry.path),
            // Links are made anew.
            FileKind::Symlink { .. } => false,
        };
    }
    wanted
}

#[derive(Debug, Default)]
struct Wanted<'b> {
    files: HashSet<&'b [u8]>,
    folders: HashSet<&'b [u8]>,
}

impl Wanted<'_> {
    /// Names what [`Self::clear`] would remove.
    fn surplus(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        below: &[u8],
        keep: &[OsString],
        depth: usize,
        surplus: &mut Vec<PathBuf>,
    ) -> Result<()> {
        refuse_depth(dir, depth)?;
        for entry in disk.list(dir)? {
            if keep.contains(&entry.name) {
                continue;
            }
            let path = joined(below, &entry.name);
            if entry.kind == EntryKind::Dir {
                self.surplus(disk, &dir.join(&entry.name), &path, &[], depth + 1, surplus)?;
            }
            if !self.stays(entry.kind, &path) {
                surplus.push(path_of(&path));
            }
        }
        Ok(())
    }

    /// Whether what is of this kind stays at this path.
    fn stays(&self, kind: EntryKind, path: &[u8]) -> bool {
        match kind {
            EntryKind::File => self.files.contains(path),
            EntryKind::Dir => self.folders.contains(path),
            EntryKind::Other => false,
        }
    }

    fn clear(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        below: &[u8],
        keep: &[OsString],
        depth: usize,
    ) -> Result<()> {
        refuse_depth(dir, depth)?;
        let mut changed = false;
        for entry in disk.list(dir)? {
            if keep.contains(&entry.name) {
                continue;
            }
            let path = joined(below, &entry.name);
            let there = dir.join(&entry.name);
            if entry.kind == EntryKind::Dir {
                self.clear(disk, &there, &path, &[], depth + 1)?;
            }
            if self.stays(entry.kind, &path) {
                continue;
            }
            match entry.kind {
                EntryKind::Dir => disk.remove_dir(&there)?,
                EntryKind::File | EntryKind::Other => disk.remove_file(&there)?,
            }
            changed = true;
        }
        // Durable before anything is written, so that no crash brings an old file back among the new ones.
        if changed { Ok(disk.sync_dir(dir)?) } else { Ok(()) }
    }
}

fn refuse_depth(dir: &Path, depth: usize) -> Result<()> {
    if depth > DEPTH_MAX {
        let why = format!(
            "{} lies more than {DEPTH_MAX} folders deep; remove it by hand, or name another folder",
            dir.display()
        );
        return Err(Error::Refused { op: "clear the folder", why });
    }
    Ok(())
}

/// The path of a name in a folder of the restore.
fn joined(below: &[u8], name: &OsString) -> Vec<u8> {
    use std::os::unix::ffi::OsStrExt;
    let mut path = below.to_vec();
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name.as_bytes());
    path
}

/// Compares files that were there, given with their lengths of before; zeros where the backup has holes or zeros.
pub(super) fn compare(work: &Work<'_>, there: &[(u32, u64)], threads: usize) -> Result<Same> {
    let ranges = |&(file, len): &(u32, u64)| {
        let blocks = len.div_ceil(u64::from(BLOCK_BYTES));
        (0..blocks.div_ceil(RANGE_BLOCKS)).map(move |n| (file, len, n * RANGE_BLOCKS))
    };
    let ranges: Vec<(u32, u64, u64)> = there.iter().flat_map(ranges).collect();
    let (same, next) = (Mutex::new(Same::default()), AtomicUsize::new(0));
    let compare_some = || -> Result<()> {
        let mut buffer = vec![0; BLOCK_BYTES as usize];
        while let Some((file, len, first)) = ranges.get(next.fetch_add(1, Ordering::Relaxed)) {
            let open = work.file(*file)?;
            for block in *first..*first + RANGE_BLOCKS {
                work.go_on()?;
                let Ok(number) = u32::try_from(block) else { break };
                let is_same = compare_block(work, open.as_ref(), (*file, number), *len, &mut buffer)?;
                let mut same = same.lock().unwrap_or_else(PoisonError::into_inner);
                match is_same {
                    Some(true) => same.insert(*file, number),
                    Some(false) => _ = same.changed.insert(*file),
                    None => {}
                }
            }
        }
        Ok(())
    };
    super::on_threads(threads.clamp(1, 64), &compare_some)?;
    Ok(same.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a block of a file is as the backup has it; a block that must be zeros is made so, unless the file is only
/// looked at. None behind the end of the file, before or after.
fn compare_block(
    work: &Work<'_>,
    open: &dyn File,
    (file, block): (u32, u32),
    len_before: u64,
    buffer: &mut [u8],
) -> Result<Option<bool>> {
    let Some(mapped) = work.reader.map.files.get(file as usize) else { return Ok(None) };
    let start = u64::from(block) * u64::from(BLOCK_BYTES);
    let end = (start + u64::from(BLOCK_BYTES)).min(mapped.entry.len).min(len_before);
    if start >= end {
        return Ok(None);
    }
    let RunKind::Data { first, .. } = mapped.block(block) else {
        let has_data = open.next_data(start)?.is_some_and(|data| data.start < end);
        if has_data && work.open_as == Open::Read {
            return Ok(Some(false));
        }
        if has_data {
            open.punch_hole(start, end - start)?;
        }
        return Ok(Some(true));
    };
    // What is behind the file's old end was never written.
    if end < (start + u64::from(BLOCK_BYTES)).min(mapped.entry.len) {
        return Ok(Some(false));
    }
    let found = work.reader.map.address(first).and_then(|a| work.reader.inner.cache.locate(a).ok());
    // A segment that can't be read is told of when its block is.
    let Some(found) = found else { return Ok(Some(false)) };
    let len = usize::try_from(end - start).unwrap_or(0);
    let Some(bytes) = buffer.get_mut(..len) else { return Ok(Some(false)) };
    open.read_exact_at(start, bytes)?;
    let plain = found.entry.plain_len as usize;
    let Some((plain, rest)) = bytes.split_at_checked(plain) else { return Ok(Some(false)) };
    let same =
        rest.iter().all(|b| *b == 0) && block_id(&work.reader.inner.keys.block_id, plain) == found.entry.id;
    Ok(Some(same))
}

/// The folders above a file, below the restore's own, must be folders and no links: else it would be written elsewhere.
pub(super) fn refuse_links_above(disk: &dyn Disk, dir: &Path, path: &[u8]) -> Result<()> {
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let above = dir.join(path_of(path.get(..at).unwrap_or_default()));
        match disk.metadata(&above) {
            Ok(there) if there.kind != EntryKind::Dir => {
                let why = format!(
                    "{} is no folder; remove it, or name another folder to restore into",
                    above.display()
                );
                return Err(Error::Refused { op: "restore", why });
            }
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
