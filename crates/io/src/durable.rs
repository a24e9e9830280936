//! Durable creation and replacement of small files, as named functions.
//!
//! Both write a temporary file beside the target, sync it, rename it, and sync the folder:
//! a reader sees nothing or everything, and so does the next boot. Temporary names begin
//! with [`TEMPORARY_PREFIX`]; a crash may leave one behind, and nobody reads it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::disk::{Disk, Open};
use crate::error::{Error, Result};

/// How names of unfinished files begin.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Makes a file with this content, durable when the call returns. [`Error::Exists`] if the name is taken;
/// then the file that has the name is durable too.
pub fn durable_create(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let (dir, tmp) = written_beside(disk, path, bytes)?;
    match disk.rename_noreplace(&tmp, path) {
        Ok(()) => disk.sync_dir(&dir),
        Err(e) => {
            // The leftover is harmless, so its removal is not what the caller must hear about.
            let _ = disk.remove_file(&tmp);
            if matches!(e, Error::Exists { .. }) {
                disk.sync_dir(&dir)?;
            }
            Err(e)
        }
    }
}

/// Gives a file new content, or makes it; durable when the call returns.
pub fn durable_replace(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<()> {
    let (dir, tmp) = written_beside(disk, path, bytes)?;
    match disk.rename(&tmp, path) {
        Ok(()) => disk.sync_dir(&dir),
        Err(e) => {
            let _ = disk.remove_file(&tmp);
            Err(e)
        }
    }
}

/// Writes and syncs a temporary file in the folder of `path`; gives that folder and the file.
fn written_beside(disk: &dyn Disk, path: &Path, bytes: &[u8]) -> Result<(PathBuf, PathBuf)> {
    let dir = folder_of(path);
    let tmp = dir.join(temporary_name());
    let written = disk.open(&tmp, Open::CreateNew).and_then(|file| {
        file.write_all_at(0, bytes)?;
        file.sync_all()
    });
    if let Err(e) = written {
        let _ = disk.remove_file(&tmp);
        return Err(e);
    }
    Ok((dir, tmp))
}

/// The folder in which a path lies.
#[must_use]
pub fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_path_buf(),
        _ => PathBuf::from("."),
    }
}

/// A name that no other live process or thread uses: process id, time and a counter. `CreateNew` catches the rest.
pub(crate) fn temporary_name() -> String {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let n = COUNTER.fetch_add(1, Ordering::Relaxed);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_nanos());
    format!("{TEMPORARY_PREFIX}{:x}-{now:x}-{n:x}", std::process::id())
}

/// Whether a file has a name as [`temporary_name`] gives them.
pub(crate) fn is_temporary_name(name: &str) -> bool {
    let Some(parts) = name.strip_prefix(TEMPORARY_PREFIX) else { return false };
    let hex = |part: &str| {
        !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    parts.split('-').count() == 3 && parts.split('-').all(hex)
}
