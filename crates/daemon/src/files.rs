//! Small files of the daemon's own, written so that a crash leaves the old one or the new one.

use holdfast_appliance::error::{Error, Result};
use std::fs::{File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Writes the file whole; durable when it returns, and readable by its owner only.
///
/// # Errors
/// `Failed` with the file's name.
pub fn replace(file: &Path, content: &[u8]) -> Result<()> {
    let dir = file.parent().unwrap_or(Path::new("/"));
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    let neighbour = dir.join(format!(".{name}.new"));
    let write = || -> std::io::Result<()> {
        let mut out =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&neighbour)?;
        out.write_all(content)?;
        out.sync_all()?;
        std::fs::rename(&neighbour, file)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| Error::failed(format!("The file {} can't be written: {error}.", file.display())))
}

/// Makes the folder, for its owner only; one that is there stays as it is.
///
/// # Errors
/// `Failed` with the folder's name.
pub fn private_folder(dir: &Path) -> Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    std::fs::create_dir_all(dir)
        .and_then(|()| std::fs::set_permissions(dir, Permissions::from_mode(0o700)))
        .map_err(|error| Error::failed(format!("The folder {} can't be made: {error}.", dir.display())))
}
