//! A small object written anew in its place from another copy of it, and read back.

use holdfast_io::{Error as Io, ObjectName, Objects};

use crate::error::{Error, Result};

/// Replaces an object whose bytes are known. Gives why not where something stands in its place that is no object, such as a
/// folder: nobody can write it anew before that is gone.
pub(crate) fn renew(objects: &dyn Objects, name: &ObjectName, bytes: &[u8]) -> Result<Option<String>> {
    if let Err(Io::Refused { why, .. }) = objects.len(name) {
        return Ok(Some(format!("{why}; move it out of the repository, and scrub again")));
    }
    objects.replace(name, bytes)?;
    if objects.read(name, 0, bytes.len() as u64)? == bytes {
        Ok(None)
    } else {
        Err(Error::SelfCheck { what: "an object that was written anew" })
    }
}
