//! What a repair takes away or writes anew is kept as it was, under its old name in a folder of this repair's own.

use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::names::QUARANTINE;
use holdfast_io::{Error, ObjectName, Objects, Put};

use crate::error::Result;
use crate::hold::random;

/// The folder of one repair.
pub(crate) struct Quarantine<'a> {
    objects: &'a dyn Objects,
    /// `quarantine/20261121t135500z-1a2b3c/`.
    folder: String,
}

impl<'a> Quarantine<'a> {
    /// A folder named by the time, microseconds since the Unix epoch.
    pub(crate) fn new(objects: &'a dyn Objects, now_us: i64) -> Result<Self> {
        let time = crate::text::time(now_us).replace(['-', ':'], "").to_lowercase();
        let time: String = time.chars().filter(char::is_ascii_alphanumeric).collect();
        let [a, b, c] = random::<3>()?;
        Ok(Self { objects, folder: format!("{QUARANTINE}{time}-{a:02x}{b:02x}{c:02x}/") })
    }

    pub(crate) fn folder(&self) -> &str {
        &self.folder
    }

    /// Keeps an object as it is now, durable when this returns; nothing if there is no such object. What cannot be read
    /// is kept as far as it can be: each stretch that the disk refuses becomes zeros.
    pub(crate) fn keep(&self, name: &ObjectName) -> Result<()> {
        let len = match self.objects.len(name) {
            Ok(len) => len.min(SEGMENT_BYTES_MAX.saturating_mul(2)),
            Err(e) if e.is_not_found() => return Ok(()),
            Err(e) => return Err(e.into()),
        };
        let bytes = read_what_can_be(self.objects, name, len)?;
        for nth in 0..100_u32 {
            let again = if nth == 0 { String::new() } else { format!(".{nth}") };
            let kept = ObjectName::new(format!("{}{name}{again}", self.folder))?;
            if self.objects.put_if_absent(&kept, &bytes)? == Put::Created {
                return Ok(());
            }
        }
        Err(Error::Exists { what: format!("{}{name}", self.folder) }.into())
    }
}

/// What stands where an object belongs and is none, such as a folder: nobody can write the object anew before it is gone.
pub(crate) fn in_the_way(objects: &dyn Objects, name: &ObjectName) -> Option<String> {
    match objects.len(name) {
        Err(Error::Refused { why, .. }) => {
            Some(format!("{name} stays: {why}; move it out of the repository, and repair again"))
        }
        _ => None,
    }
}

/// An object's bytes; sectors that give an error are zeros.
pub(crate) fn read_what_can_be(objects: &dyn Objects, name: &ObjectName, len: u64) -> Result<Vec<u8>> {
    const STEP: u64 = 4096;
    match objects.read(name, 0, len) {
        Ok(bytes) => Ok(bytes),
        Err(Error::Io { .. }) => {
            let mut bytes = Vec::new();
            let mut at = 0;
            while at < len {
                let part = STEP.min(len.saturating_sub(at));
                match objects.read(name, at, part) {
                    Ok(read) => bytes.extend(read),
                    Err(_) => bytes.resize(bytes.len().saturating_add(usize::try_from(part).unwrap_or(0)), 0),
                }
                at = at.saturating_add(part);
            }
            Ok(bytes)
        }
        Err(e) => Err(e.into()),
    }
}
