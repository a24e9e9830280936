//! The note that `finish` leaves in a restored data directory: what it was restored from. A server that is started on it
//! may be protected itself one day, and not every server can say by an identity of its own that it is that one.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::marker::{Marker, write_whole};

/// Its name in the data directory.
pub const ORIGIN: &str = "holdfast-restored.json";

/// What it says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    /// Name of the server that was restored.
    pub server: String,
    /// The backup that the restore began with.
    pub backup: String,
    /// The target, as the user gave it.
    pub target: String,
}

impl Origin {
    /// Leaves it in the folder, in place of an older one.
    pub(crate) fn leave(marker: &Marker, folder: &Path) -> Result<()> {
        let origin = Self {
            server: marker.server.clone(),
            backup: marker.base.clone(),
            target: marker.target.clone(),
        };
        let mut bytes = serde_json::to_vec_pretty(&origin)
            .map_err(|error| Error::file("write", folder.join(ORIGIN), std::io::Error::other(error)))?;
        bytes.push(b'\n');
        write_whole(folder, ORIGIN, &bytes)
    }

    /// Reads it; nothing where there is none, or none that can be read: it is somebody's note, and no more.
    #[must_use]
    pub fn read(folder: &Path) -> Option<Self> {
        serde_json::from_slice(&fs::read(folder.join(ORIGIN)).ok()?).ok()
    }
}
