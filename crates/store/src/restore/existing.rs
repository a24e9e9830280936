//! What stands in the folder already: what the backup does not have goes, what is as it should be stays.
//!
//! So a restore that was interrupted goes on where it ended, and one over an older copy moves only what differs. Nothing
//! about the files is believed: each block is read and its id compared.

use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use holdfast_format::keys::block_id;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{FileKind, RunKind};
use holdfast_io::{Disk, EntryKind, File};

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

/// Blocks that need not be written, by file.
#[derive(Debug, Default)]
pub(super) struct Same {
    bits: HashMap<u32, Vec<u64>>,
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
    let mut wanted = Wanted::default();
    for entry in reader.files().filter(|e| options.only.is_none_or(|only| only(&e.path))) {
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
    wanted.clear(disk, dir, b"", keep, 0)
}

#[derive(Debug, Default)]
struct Wanted<'b> {
    files: HashSet<&'b [u8]>,
    folders: HashSet<&'b [u8]>,
}

impl Wanted<'_> {
    fn clear(
        &self,
        disk: &dyn Disk,
        dir: &Path,
        below: &[u8],
        keep: &[OsString],
        depth: usize,
    ) -> Result<()> {
        use std::os::unix::ffi::OsStrExt;
        if depth > DEPTH_MAX {
            let why = format!("{} lies more than {DEPTH_MAX} folders deep", dir.display());
            return Err(Error::Refused { op: "clear the folder", why });
        }
        let mut changed = false;
        for entry in disk.list(dir)? {
            if keep.contains(&entry.name) {
                continue;
            }
            let mut path = below.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.name.as_bytes());
            let there = dir.join(&entry.name);
            let (file, folder) =
                (self.files.contains(path.as_slice()), self.folders.contains(path.as_slice()));
            match entry.kind {
                EntryKind::File if file => continue,
                EntryKind::Dir => {
                    self.clear(disk, &there, &path, &[], depth + 1)?;
                    if folder {
                        continue;
                    }
                    disk.remove_dir(&there)?;
                }
                EntryKind::File | EntryKind::Other => disk.remove_file(&there)?,
            }
            changed = true;
        }
        // Durable before anything is written, so that no crash brings an old file back among the new ones.
        if changed { Ok(disk.sync_dir(dir)?) } else { Ok(()) }
    }
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
                if compare_block(work, open.as_ref(), (*file, number), *len, &mut buffer)? {
                    same.lock().unwrap_or_else(PoisonError::into_inner).insert(*file, number);
                }
            }
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads.clamp(1, 64)).map(|_| scope.spawn(compare_some)).collect();
        let died = || Err(Error::SelfCheck { what: "a thread of the restore" });
        threads.into_iter().map(|t| t.join().unwrap_or_else(|_| died())).fold(Ok(()), Result::and)
    })?;
    Ok(same.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Whether a block of a file is as the backup has it; a block that must be zeros is made so.
fn compare_block(
    work: &Work<'_>,
    open: &dyn File,
    (file, block): (u32, u32),
    len_before: u64,
    buffer: &mut [u8],
) -> Result<bool> {
    let Some(mapped) = work.reader.map.files.get(file as usize) else { return Ok(false) };
    let start = u64::from(block) * u64::from(BLOCK_BYTES);
    let end = (start + u64::from(BLOCK_BYTES)).min(mapped.entry.len).min(len_before);
    if start >= end {
        return Ok(false);
    }
    let RunKind::Data { first, .. } = mapped.block(block) else {
        if open.next_data(start)?.is_some_and(|data| data.start < end) {
            open.punch_hole(start, end - start)?;
        }
        return Ok(true);
    };
    // What is behind the file's old end was never written.
    if end < (start + u64::from(BLOCK_BYTES)).min(mapped.entry.len) {
        return Ok(false);
    }
    let found = work.reader.map.address(first).and_then(|a| work.reader.inner.cache.locate(a).ok());
    // A segment that can't be read is told of when its block is.
    let Some(found) = found else { return Ok(false) };
    let len = usize::try_from(end - start).unwrap_or(0);
    let Some(bytes) = buffer.get_mut(..len) else { return Ok(false) };
    open.read_exact_at(start, bytes)?;
    let plain = found.entry.plain_len as usize;
    let Some((plain, rest)) = bytes.split_at_checked(plain) else { return Ok(false) };
    let same =
        rest.iter().all(|b| *b == 0) && block_id(&work.reader.inner.keys.block_id, plain) == found.entry.id;
    Ok(same)
}

/// The folders above a file, below the restore's own, must be folders and no links: else it would be written elsewhere.
pub(super) fn refuse_links_above(disk: &dyn Disk, dir: &Path, path: &[u8]) -> Result<()> {
    for (at, _) in path.iter().enumerate().filter(|(_, byte)| **byte == b'/') {
        let above = dir.join(path_of(path.get(..at).unwrap_or_default()));
        match disk.metadata(&above) {
            Ok(there) if there.kind != EntryKind::Dir => {
                let why = format!("{} is no folder", above.display());
                return Err(Error::Refused { op: "restore", why });
            }
            Ok(_) => {}
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
