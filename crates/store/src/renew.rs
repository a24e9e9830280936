//! A small object written anew in its place from another copy of it, and read back.

use holdfast_io::{Error as Io, ObjectName, Objects};

use crate::error::{Error, Result};

/// Replaces an object whose bytes are known. Gives why not where that can't be done here now: something stands in its place
/// that is no object, such as a folder, or the disk refuses it. What else is to be done need not wait for that.
pub(crate) fn renew(objects: &dyn Objects, name: &ObjectName, bytes: &[u8]) -> Result<Option<String>> {
    if let Err(Io::Refused { why, .. }) = objects.len(name) {
        return Ok(Some(format!("{why}; move it out of the repository, and scrub again")));
    }
    match objects.replace(name, bytes).and_then(|()| objects.read(name, 0, bytes.len() as u64)) {
        Ok(read) if read == bytes => Ok(None),
        Ok(_) => Err(Error::SelfCheck { what: "an object that was written anew" }),
        Err(e) => refusal(e).map(Some),
    }
}

/// Why this one object can't be written; the error itself if it says more than that.
pub(crate) fn refusal(error: Io) -> Result<String> {
    match error {
        Io::Io { .. } | Io::Refused { .. } | Io::LockBusy { .. } => Ok(error.to_string()),
        error => Err(error.into()),
    }
}
