//! A folder that a running server uses is not copied.

use std::fs::File;
use std::path::Path;

use holdfast_engine::in_use::{lock_on, server_at};

use crate::error::Error;

/// Errors if a server runs on the folder `dir`.
pub(super) fn refuse_running(dir: &Path) -> Result<(), Error> {
    match server_at(dir).map_err(Error::io("list", dir))? {
        Some(evidence) => Err(Error::InUse { dir: dir.to_path_buf(), evidence }),
        None => Ok(()),
    }
}

/// Errors if another process holds a write lock on any part of `file`.
pub(super) fn refuse_locked(file: &File, path: &Path, dir: &Path) -> Result<(), Error> {
    // File systems without locks can't tell; the check for changes remains.
    match lock_on(file, path) {
        Some(evidence) => Err(Error::InUse { dir: dir.to_path_buf(), evidence }),
        None => Ok(()),
    }
}
