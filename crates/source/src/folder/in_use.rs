//! Is a server running on this folder?

use std::fs::{self, File};
use std::path::Path;

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

use crate::error::Error;

/// Longest pid file read.
const PID_FILE_BYTES_MAX: u64 = 64;

/// Errors if a pid file in `dir` names a living process that works in `dir`, or a file that servers lock is locked.
pub(super) fn refuse_running(dir: &Path) -> Result<(), Error> {
    for entry in fs::read_dir(dir).map_err(Error::io("list", dir))? {
        let entry = entry.map_err(Error::io("list", dir))?;
        let path = entry.path();
        let kind = entry.file_type().map_err(Error::io("look at", &path))?;
        if path.extension().is_some_and(|e| e == "pid")
            && kind.is_file()
            && let Some(pid) = living_server(&path, dir)
        {
            let evidence = format!("{} names process {pid}, which works there", path.display());
            return Err(Error::InUse { dir: dir.to_path_buf(), evidence });
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if kind.is_file() && (name.starts_with("ibdata") || name == "aria_log_control" || name == "mysql.ibd")
        {
            // Not to be opened for us means not to be copied by us: the walk will say so with its own words.
            if let Ok(file) = File::open(&path) {
                refuse_locked(&file, &path, dir)?;
            }
        }
    }
    Ok(())
}

/// Errors if another process holds a write lock on any part of `file`.
pub(super) fn refuse_locked(file: &File, path: &Path, dir: &Path) -> Result<(), Error> {
    let mut ask = Flock::from(FlockType::ReadLock);
    ask.offset_type = FlockOffsetType::Set;
    // File systems without locks can't tell; the check for changes remains.
    if let Ok(Some(held)) = fcntl_getlk(file, &ask) {
        let by = held
            .pid
            .map_or_else(|| "a process".to_owned(), |pid| format!("process {}", pid.as_raw_nonzero()));
        let evidence = format!("{by} holds a lock on {}", path.display());
        return Err(Error::InUse { dir: dir.to_path_buf(), evidence });
    }
    Ok(())
}

fn living_server(pid_file: &Path, dir: &Path) -> Option<u32> {
    if fs::metadata(pid_file).ok()?.len() > PID_FILE_BYTES_MAX {
        return None;
    }
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    // Servers change into their datadir. Without this check a pid that was given anew would block a backup.
    let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
    (cwd == dir).then_some(pid)
}
