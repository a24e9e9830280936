//! The note that `finish` leaves in a restored data directory: what it was restored from. A server that is started on it
//! may be protected itself one day, and not every server can say by an identity of its own that it is that one.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use rustix::fs::{Mode, OFlags, open};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::marker::{Marker, write_whole};

/// Its name in the data directory.
pub const ORIGIN: &str = "holdfast-restored.json";

/// Largest note that is read, bytes: whoever runs the server can write whatever he likes there.
const NOTE_MAX: u64 = 64 << 10;

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the server that was restored.
    pub server: String,
    /// The backup that the restore began with.
    pub backup: String,
    /// The target, as the user gave it.
    pub target: String,
    /// The folder that it was restored into, as it was called at `finish`: several may have been restored from the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
}

impl Origin {
    /// Leaves it in the folder, in place of an older one.
    pub(crate) fn leave(marker: &Marker, folder: &Path) -> Result<()> {
        let origin = Self {
            server: marker.server.clone(),
            backup: marker.base.clone(),
            target: marker.target.clone(),
            folder: folder.to_str().map(str::to_owned),
        };
        let mut bytes = serde_json::to_vec_pretty(&origin)
            .map_err(|error| Error::file("write", folder.join(ORIGIN), std::io::Error::other(error)))?;
        bytes.push(b'\n');
        write_whole(folder, ORIGIN, &bytes)
    }

    /// Reads it; nothing where there is none, or none that can be read, or that is no file, or larger than a note is: it is
    /// somebody's note, and no more.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        // A pipe would be waited for, and a link leads where the server's owner wants.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(open(folder.join(ORIGIN), flags, Mode::empty()).ok()?);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        let mut bytes = Vec::new();
        file.take(NOTE_MAX + 1).read_to_end(&mut bytes).ok()?;
        if bytes.len() as u64 > NOTE_MAX {
            return None;
        }
        serde_json::from_slice(&bytes).ok()
    }

    /// Whether a report of a restore into `folder` is about the same one. A note of an older program does not say.
    #[must_use]
    pub fn is_of(&self, folder: &str) -> bool {
        let Some(own) = self.folder.as_deref().map(Path::new) else { return true };
        // A report has it as it was typed: from another folder, or through a link.
        own.ends_with(folder) || Path::new(folder).canonicalize().is_ok_and(|folder| folder == own)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a panic is how a test fails")]
mod tests {
    use super::*;
    use std::fs;

    const TEXT: &str = r#"{"server": "shop", "backup": "b", "target": "latest""#;

    #[test]
    fn a_note_is_a_small_regular_file_and_nothing_else_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(ORIGIN);
        assert_eq!(Origin::read(dir.path()), None);
        fs::write(&path, format!("{TEXT}}}")).unwrap();
        assert_eq!(Origin::read(dir.path()).unwrap().server, "shop");
        fs::write(&path, format!("{TEXT}{}}}", " ".repeat(NOTE_MAX as usize))).unwrap();
        assert_eq!(Origin::read(dir.path()), None, "too large");
        fs::remove_file(&path).unwrap();
        std::os::unix::fs::symlink("/dev/zero", &path).unwrap();
        assert_eq!(Origin::read(dir.path()), None, "a link");
        fs::remove_file(&path).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)
            .unwrap();
        assert_eq!(Origin::read(dir.path()), None, "a pipe");
    }

    #[test]
    fn a_report_of_another_folder_is_another_restores() {
        let mut note: Origin = serde_json::from_str(&format!("{TEXT}}}")).unwrap();
        assert!(note.is_of("/srv/a") && note.is_of("/srv/c"), "an older note");
        note.folder = Some("/srv/a".to_owned());
        assert!(note.is_of("/srv/a") && note.is_of("a"));
        assert!(!note.is_of("/srv/c") && !note.is_of("c"));
    }
}
