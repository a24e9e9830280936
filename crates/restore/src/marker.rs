//! The marker in the target folder: `holdfast-restore.json`.
//!
//! It is the first file that a restore makes there and says what the folder is: a restore under
//! way, which the same command goes on with after a crash, or a restored server that waits for
//! `restore finish`. It is replaced as a whole, so that it is never half written, and locked for
//! as long as a restore is at work.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use holdfast_io::FileLock;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::progress::PROGRESS;

/// Its name in the target folder.
pub const MARKER: &str = "holdfast-restore.json";

/// Name of the lock file, removed with the marker by `finish`.
pub const LOCK: &str = "holdfast-restore.lock";

/// How far a restore is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Files are being written, replayed into, or looked at.
    UnderWay,
    /// Proved; read-only and without events until `finish`.
    Fenced,
}

/// What the marker says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marker {
    /// How far.
    pub state: State,
    /// The backup.
    pub base: String,
    /// The target, as the user gave it.
    pub target: String,
    /// Name of the protected server.
    pub server: String,
    /// The engine's family and version, such as `MySQL 9.7.4-2`; empty before the first start.
    pub engine: String,
    /// Port of the running server, if it was started to stay.
    pub port: Option<u16>,
    /// Of a restore of some tables: which, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tables: Option<String>,
    /// What the server was last started with beside what every one is, so that `finish` starts it the same way.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub settings: Vec<String>,
    /// The server that it is set up to replicate from, as `HOST:PORT`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replica_of: Option<String>,
}

impl Marker {
    /// Reads the marker of a folder; none if there is none.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(MARKER);
        match fs::read(&path) {
            Ok(bytes) => match serde_json::from_slice(&bytes) {
                Ok(marker) => Ok(Some(marker)),
                Err(error) => Err(Error::NoRestore {
                    folder: folder.to_path_buf(),
                    why: format!("{MARKER} is not readable: {error}"),
                }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file("read", path, source)),
        }
    }

    /// True if the folder is on its way to what `wanted` describes: the same command goes on with it.
    #[must_use]
    pub fn goes_on_to(&self, wanted: &Self) -> bool {
        self.state == State::UnderWay
            && (&self.base, &self.target, &self.server) == (&wanted.base, &wanted.target, &wanted.server)
            && self.tables == wanted.tables
    }

    /// Writes the marker durably, in place of an older one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let mut bytes = serde_json::to_vec_pretty(self)
            .map_err(|error| Error::file("write", folder.join(MARKER), std::io::Error::other(error)))?;
        bytes.push(b'\n');
        write_whole(folder, MARKER, &bytes)
    }

    /// Removes the marker and what belongs to it: the folder is an ordinary datadir from here on.
    pub fn remove(folder: &Path) -> Result<()> {
        for name in [MARKER, PROGRESS, LOCK] {
            let path = folder.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", path, error));
                }
                _ => {}
            }
        }
        File::open(folder)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| Error::file("sync", folder, source))
    }
}

/// Writes a file of the target folder durably and as a whole, in place of an older one.
pub(crate) fn write_whole(folder: &Path, name: &str, bytes: &[u8]) -> Result<()> {
    let path = folder.join(name);
    let fresh = folder.join(format!("{name}.new"));
    let write = || -> std::io::Result<()> {
        let mut file = File::create(&fresh)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&fresh, &path)?;
        File::open(folder)?.sync_all()
    };
    write().map_err(|source| Error::file("write", &path, source))
}

/// Held while a restore or a finish is at work in a folder; the system lets go of it when the process ends.
#[derive(Debug)]
pub struct FolderLock {
    _lock: FileLock,
}

impl FolderLock {
    /// Takes the lock of `folder`, which exists.
    pub fn take(folder: &Path) -> Result<Self> {
        let path: PathBuf = folder.join(LOCK);
        match FileLock::take(&path) {
            Ok(Some(lock)) => Ok(Self { _lock: lock }),
            Ok(None) => Err(Error::Busy { folder: folder.to_path_buf() }),
            Err(source) => Err(Error::file("lock", path, source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_marker_is_read_as_it_was_written_and_replaced_as_a_whole() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
        let mut marker = Marker {
            state: State::UnderWay,
            base: "k3f9a2".to_owned(),
            target: "the latest point".to_owned(),
            server: "shop".to_owned(),
            engine: String::new(),
            port: None,
            tables: None,
            settings: Vec::new(),
            replica_of: None,
        };
        marker.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker.clone()));
        marker.state = State::Fenced;
        marker.write(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), Some(marker));
        Marker::remove(dir.path()).unwrap();
        assert_eq!(Marker::read(dir.path()).unwrap(), None);
    }

    #[test]
    fn two_restores_cannot_work_in_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let first = FolderLock::take(dir.path()).unwrap();
        assert!(matches!(FolderLock::take(dir.path()), Err(Error::Busy { .. })));
        drop(first);
        FolderLock::take(dir.path()).unwrap();
    }
}
