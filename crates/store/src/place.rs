//! The folder of a new repository: made, or taken if it holds nothing but what a `create` that died left in it.

use std::path::Path;
use std::sync::Arc;

use holdfast_format::names::{KEYRINGS, MANIFEST_LOCK, REKEY_LOCK};
use holdfast_io::{Directory, Disk, EntryKind, ObjectName, Objects};

use crate::error::{Error, Result};
use crate::repository::FOLDERS;

/// Folders that are made before the first keyring is there.
const EARLY_FOLDERS: [&str; 2] = ["locks", "keyring"];

/// Gives the folder in which [`Repository::create`](crate::Repository::create) may make a repository, durable by its name.
/// One that has a keyring is given, too: `create` says whether a repository is there, or only what is left of making one.
/// [`Error::NotEmpty`] if it holds anything that no `create` leaves.
pub fn place_for_new(disk: Arc<dyn Disk>, root: &Path) -> Result<Directory> {
    let directory = Directory::create(disk, root)?;
    if !has_keyring(&directory)?
        && let Some(found) = directory.stranger(&is_left_by_create)?
    {
        return Err(Error::NotEmpty {
            folder: root.display().to_string(),
            holds: found.display().to_string(),
        });
    }
    directory.settle()?;
    Ok(directory)
}

fn has_keyring(directory: &Directory) -> Result<bool> {
    for name in KEYRINGS {
        if directory.exists(&ObjectName::new(name)?)? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Without a keyring nothing was sealed here, so all folders are empty, and so is what is locked.
fn is_left_by_create(path: &str, kind: EntryKind, len: u64) -> bool {
    match kind {
        EntryKind::Dir => {
            EARLY_FOLDERS.contains(&path) || FOLDERS.iter().any(|folder| folder.trim_end_matches('/') == path)
        }
        EntryKind::File => [MANIFEST_LOCK, REKEY_LOCK].contains(&path) && len == 0,
        EntryKind::Other => false,
    }
}
