//! A server's own data directory, restored over: the mark in it says how far that is, and which backup holds what was
//! there before.
//!
//! Order of the writes, and what the same command does when it finds them:
//!
//! | mark | beside it | it means | `restore --in-place` | `--undo` |
//! |---|---|---|---|---|
//! | `saving` | | what is there is being saved; nothing was changed since | saves it anew | removes the mark, or undoes the restore before |
//! | `restoring` | no marker of a restore | saved, and nothing was changed yet | saves it anew, the server may have run since | removes the mark |
//! | `restoring` | a restore under way | the folder is neither one nor the other | goes on | lays back what was saved |
//! | `restoring`, `restored` | a fenced restore, or none | done | saves what is there now | saves what is there now, then lays back |
//! | `undoing` | | the folder is neither one nor the other | refuses | goes on |
//!
//! What is there is saved behind a fence, too: a fence keeps nobody from writing who means to.
//! The marker of the restore itself (`marker.rs`) says the rest.

use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use holdfast_io::FileLock;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::layout::{Over, Space, Taking, Target};
use crate::marker::{Marker, State, write_whole};
use crate::seam::{Base, LaidOut, LayingOut};

/// The mark's name in the folder. A copy of a folder leaves out what begins so.
pub const MARK: &str = "holdfast-in-place.json";

/// Name of its lock.
pub const MARK_LOCK: &str = "holdfast-in-place.lock";

/// What was to be reached, where a backup is laid back.
const BACK: &str = "what was there before";

/// How far it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// What is there is being saved.
    Saving,
    /// It is saved, and restored over.
    Restoring,
    /// The restore is proved.
    Restored,
    /// What was saved is being laid back.
    Undoing,
}

/// What the mark says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// How far.
    pub stage: Stage,
    /// Name of the protected server.
    pub server: String,
    /// The target, in words.
    pub target: String,
    /// The backup that holds what was there before; none while it is being saved.
    pub saved: Option<String>,
    /// While it is laid back: the backup that holds what was there before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved_now: Option<String>,
    /// Permission bits of the folder before.
    pub mode: u32,
}

impl Mark {
    /// Reads the mark of a folder; none if there is none.
    ///
    /// # Errors
    /// Where it can't be read, or is none of ours.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MARK);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|error| Error::file("read", path, std::io::Error::other(error))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file("read", path, source)),
        }
    }

    /// Writes the mark durably, in place of an older one.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::file("write", folder.join(MARK), std::io::Error::other(error)))?;
        bytes.push(b'\n');
        write_whole(folder, MARK, &bytes)
    }

    /// Removes the mark durably, and its lock with it.
    ///
    /// # Errors
    /// Where it can't be removed.
    pub fn remove(folder: &Path) -> Result<()> {
        for name in [MARK, MARK_LOCK] {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path, error));
                }
                _ => {}
            }
        }
        let synced = File::open(folder).and_then(|dir| dir.sync_all());
        synced.map_err(|source| Error::file("sync", folder, source))
    }
}

/// Held from the first look at the folder until the command ends, however it ends.
#[derive(Debug)]
pub struct MarkLock {
    _lock: FileLock,
}

impl MarkLock {
    /// Takes it.
    ///
    /// # Errors
    /// `Busy` while another command holds it.
    pub fn take(folder: &Path) -> Result<Self> {
        let path = folder.join(MARK_LOCK);
        match FileLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { _lock: lock }),
            Ok(None) => Err(Error::Busy { folder: folder.to_path_buf() }),
            Err(source) => Err(Error::file("lock", path, source)),
        }
    }

    /// Lets go, and leaves nothing where no mark came of it.
    pub fn let_go(self, folder: &Path) {
        if !folder.join(MARK).exists() {
            // The next command takes an old one as well as a new one.
            let _ = fs::remove_file(folder.join(MARK_LOCK));
        }
    }
}

/// Makes the folder what `base`, a copy of it, says: its files and nothing else, every block verified. A server of ours
/// that a killed restore left there is ended. May be called again after a crash.
///
/// # Errors
/// Where a server uses the folder, there is too little space, or a file can't be written.
pub fn lay_back(
    base: &dyn Base,
    folder: &Path,
    server: &str,
    progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
) -> Result<LaidOut> {
    let marker = Marker {
        state: State::UnderWay,
        base: base.id(),
        target: BACK.to_owned(),
        server: server.to_owned(),
        engine: String::new(),
        port: None,
        tables: None,
        settings: Vec::new(),
        replica_of: None,
    };
    let space = Space { base: base.bytes(), needed: base.bytes() };
    let how = Taking { going_on: false, over: Some(Over::Anything) };
    let (target, _) = Target::take(folder, &marker, space, how)?;
    let done = base.restore_into(target.folder(), progress).map_err(Error::Base)?;
    Marker::remove(target.folder())?;
    Ok(done)
}

/// Gives the folder its permission bits back, and everything in it to the folder's owner: a restore by root makes files
/// that a server of another account could not open.
///
/// # Errors
/// Where the system refuses.
pub fn give_back(folder: &Path, mode: u32) -> Result<()> {
    let failed = |source| Error::file("set owner and permissions of", folder, source);
    fs::set_permissions(folder, fs::Permissions::from_mode(mode & 0o7777)).map_err(failed)?;
    let owner = fs::metadata(folder).map_err(failed)?;
    if rustix::process::geteuid().is_root() && owner.uid() != 0 {
        give(folder, owner.uid(), owner.gid())?;
    }
    Ok(())
}

fn give(folder: &Path, uid: u32, gid: u32) -> Result<()> {
    for entry in fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))? {
        let path = entry.map_err(|source| Error::file("list", folder, source))?.path();
        let facts = fs::symlink_metadata(&path).map_err(|source| Error::file("look at", &path, source))?;
        if (facts.uid(), facts.gid()) != (uid, gid) {
            std::os::unix::fs::lchown(&path, Some(uid), Some(gid))
                .map_err(|source| Error::file("give its owner", &path, source))?;
        }
        if facts.is_dir() {
            give(&path, uid, gid)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_goes_with_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), None);
        let lock = MarkLock::take(dir.path()).unwrap();
        assert!(matches!(MarkLock::take(dir.path()), Err(Error::Busy { .. })));
        let mark = Mark {
            stage: Stage::Undoing,
            server: "shop".to_owned(),
            target: "the latest point".to_owned(),
            saved: Some("k3f9a2".to_owned()),
            saved_now: None,
            mode: 0o750,
        };
        mark.write(dir.path()).unwrap();
        assert_eq!(Mark::read(dir.path()).unwrap(), Some(mark));
        lock.let_go(dir.path());
        assert!(dir.path().join(MARK_LOCK).exists(), "it belongs to the mark");
        Mark::remove(dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        MarkLock::take(dir.path()).unwrap().let_go(dir.path());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn what_root_made_is_given_to_the_owner_of_the_folder() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        fs::create_dir_all(folder.join("shop")).unwrap();
        fs::write(folder.join("shop/orders.ibd"), "x").unwrap();
        std::os::unix::fs::chown(&folder, Some(4711), Some(4712)).unwrap();
        give_back(&folder, 0o750).unwrap();
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o7777, 0o750);
        for name in ["shop", "shop/orders.ibd"] {
            let facts = fs::metadata(folder.join(name)).unwrap();
            assert_eq!((facts.uid(), facts.gid()), (4711, 4712), "{name}");
        }
    }
}
