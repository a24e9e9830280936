//! The three copies of the keyring: read, compared, made alike.
//!
//! A change replaces them one after the other. Whatever breaks it off leaves the newest keys in some of them only, so
//! nothing may be sealed under those keys before all have them: who opens the repository makes them alike first.

use std::time::Duration;

use holdfast_format::Error as Format;
use holdfast_format::keyring::Keyring;
use holdfast_format::limits::KEYRING_BYTES_MAX;
use holdfast_format::names::{KEYRING_LOCK, KEYRINGS};
use holdfast_io::{LockKind, ObjectName, Objects};

use super::{Keys, open_secrets};
use crate::error::{Error, Result};
use crate::renew::renew;

/// How long to wait for a change of the keyring by another process: some small files are written.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// What one copy is.
#[derive(Debug)]
enum Copy {
    /// Like the newest.
    Same,
    /// Whole, and of a change before the newest.
    Older,
    /// Not there.
    Missing,
    /// There, and no keyring: why.
    Bad(String),
    /// Whole, but not for this program to write over: why.
    Strange(String),
}

/// The three copies beside the newest valid one of them.
#[derive(Debug)]
pub(crate) struct Copies {
    newest: Option<Keyring>,
    /// Of the copies that are no keyring, the first one's.
    error: Option<Error>,
    /// What any of those that can be read says that a writer must know.
    write_features: u32,
    each: Vec<(&'static str, Copy)>,
}

/// What came of making the copies alike.
#[derive(Debug, Default)]
pub(crate) struct Agreed {
    /// The copies that were written anew.
    pub(crate) renewed: Vec<&'static str>,
    /// Those that could not be, and why.
    pub(crate) left: Vec<(&'static str, String)>,
}

impl Copies {
    /// Reads all three.
    pub(crate) fn read(objects: &dyn Objects) -> Self {
        let (mut newest, mut error, mut write_features): (Option<Keyring>, _, _) = (None, None, 0);
        let mut read = Vec::new();
        for name in KEYRINGS {
            let copy = match read_copy(objects, name) {
                Ok(keyring) => {
                    write_features |= keyring.write_features;
                    if newest.as_ref().is_none_or(|newest| newest.generation < keyring.generation) {
                        newest = Some(keyring.clone());
                    }
                    Ok(keyring)
                }
                Err(Error::Io(e)) if e.is_not_found() => Err(Copy::Missing),
                Err(e) => {
                    let other = matches!(e, Error::OtherFormat { .. });
                    let why = e.to_string();
                    error = error.or(Some(e));
                    Err(if other { Copy::Strange(why) } else { Copy::Bad(why) })
                }
            };
            read.push((name, copy));
        }
        let compared = |copy: std::result::Result<Keyring, Copy>| match (copy, &newest) {
            (Ok(copy), Some(newest)) if copy == *newest => Copy::Same,
            (Ok(copy), Some(newest)) if copy.generation < newest.generation => Copy::Older,
            // A riddle that a person has to solve.
            (Ok(_), _) => Copy::Strange("it has the generation of another copy, but other keys".to_owned()),
            (Err(copy), _) => copy,
        };
        let each = read.into_iter().map(|(name, copy)| (name, compared(copy))).collect();
        Self { newest, error, write_features, each }
    }

    /// What a writer must know, by any copy: a change that is at work, or was broken off, may be in some of them only.
    pub(crate) fn write_features(&self) -> u32 {
        self.write_features
    }

    /// Takes the newest valid one out. The first error if there is none, [`Error::NotARepository`] if nothing is there.
    pub(crate) fn newest(mut self) -> Result<Keyring> {
        self.take_newest()
    }

    /// The same, of copies that are still to be looked at.
    pub(crate) fn take_newest(&mut self) -> Result<Keyring> {
        self.newest.take().ok_or_else(|| self.error.take().unwrap_or(Error::NotARepository))
    }

    /// The copies that are there and can't be read, and why.
    pub(crate) fn bad(&self) -> Vec<(String, String)> {
        let told = |(name, copy): &(&'static str, Copy)| match copy {
            Copy::Bad(why) => Some(((*name).to_owned(), why.clone())),
            Copy::Strange(why) => Some(((*name).to_owned(), why.clone())),
            Copy::Same | Copy::Older | Copy::Missing => None,
        };
        self.each.iter().filter_map(told).collect()
    }

    /// Whether a change was broken off between two copies, or is at work.
    pub(crate) fn broken_off(&self) -> bool {
        self.each.iter().any(|(_, copy)| matches!(copy, Copy::Older))
    }

    /// A copy that is not for this program to write over, and why.
    pub(crate) fn strange(&self) -> Option<(&str, &str)> {
        self.each.iter().find_map(|(name, copy)| match copy {
            Copy::Strange(why) => Some((*name, why.as_str())),
            _ => None,
        })
    }

    /// Whether all three are there and the same.
    pub(crate) fn alike(&self) -> bool {
        self.each.iter().all(|(_, copy)| matches!(copy, Copy::Same))
    }
}

/// Writes the newest keyring over copies that are missing, damaged or older. Nothing is written if its secrets don't open
/// with the unlock key of this process, or are others than its own: then nobody here can say that they are right.
pub(crate) fn agree(objects: &dyn Objects, keys: &Keys) -> Result<Agreed> {
    if !keys.unsettled() && Copies::read(objects).alike() {
        return Ok(Agreed::default());
    }
    let _lock = objects.lock(&ObjectName::new(KEYRING_LOCK)?, LockKind::Exclusive, LOCK_WAIT)?;
    let Copies { newest, error, each, .. } = Copies::read(objects);
    let newest = newest.ok_or(error.unwrap_or(Error::NotARepository))?;
    let secrets = open_secrets(&newest, keys.engine, keys.unlock()).map_err(|_| Error::KeysRotated)?;
    // The only copy with our newest key may be gone: what is sealed under that key nobody could open.
    if secrets.keks.last() != keys.secrets.keks.last() {
        return Err(Error::KeysRotated);
    }
    let bytes = newest.encode();
    let (mut agreed, mut lacking) = (Agreed::default(), false);
    for (name, copy) in each {
        match copy {
            Copy::Same => {}
            Copy::Strange(why) => agreed.left.push((name, why)),
            Copy::Older | Copy::Missing | Copy::Bad(_) => {
                match renew(objects, &ObjectName::new(name)?, &bytes)? {
                    None => agreed.renewed.push(name),
                    Some(why) => {
                        lacking = true;
                        agreed.left.push((name, why));
                    }
                }
            }
        }
    }
    if !lacking {
        keys.settle();
    }
    Ok(agreed)
}

/// The newest valid one of the three copies.
pub(crate) fn read_keyring(objects: &dyn Objects) -> Result<Keyring> {
    Copies::read(objects).newest()
}

fn read_copy(objects: &dyn Objects, name: &str) -> Result<Keyring> {
    let object = ObjectName::new(name)?;
    let len = objects.len(&object)?;
    if len > KEYRING_BYTES_MAX {
        return Err(Error::damaged(name, "its length", format!("{len} bytes")));
    }
    let bytes = objects.read(&object, 0, len)?;
    Keyring::decode(&bytes).map_err(|e| match e {
        // Rot in the number of the version makes no newer keyring of it.
        Format::Version { .. } if !ends_with_its_hash(&bytes) => Error::format(name)(e),
        Format::Version { .. } | Format::Features { .. } => Error::OtherFormat { source: e },
        e => Error::format(name)(e),
    })
}

/// In every version of a keyring.
fn ends_with_its_hash(bytes: &[u8]) -> bool {
    bytes.split_last_chunk::<32>().is_some_and(|(body, hash)| blake3::hash(body).as_bytes() == hash)
}
