//! One record at the end of the manifest, and the small objects around it put in order: the rules of
//! `format-spec/manifest.md`, kept a second time.

use std::time::Duration;

use holdfast_format::ids::RecordHash;
use holdfast_format::keys::manifest_key;
use holdfast_format::limits::KEYRING_BYTES_MAX;
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope, Head, Prefix};
use holdfast_format::names::{HEADS, MANIFEST_LOCK, MANIFESTS, manifest};
use holdfast_format::record::Record;
use holdfast_io::{Lock, LockKind, ObjectName, Objects, Put};

use crate::crypt::Opener;
use crate::error::{Error, Result};
use crate::findings::{Findings, Mend};
use crate::hold::random;
use crate::manifest::{self, Manifest};
use crate::repair::quarantine::{Quarantine, in_the_way};
use crate::unlock::Keys;

/// How long to wait for whoever appends: each append takes some syncs of small files.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// The manifest's lock.
pub(crate) fn lock(objects: &dyn Objects) -> Result<Lock> {
    Ok(objects.lock(&ObjectName::new(MANIFEST_LOCK)?, LockKind::Exclusive, LOCK_WAIT)?)
}

/// What came of putting small objects in order.
#[derive(Debug, Default)]
pub(crate) struct Mended {
    /// What was done, a sentence for each object.
    pub done: Vec<String>,
    /// What could not be.
    pub left: Vec<String>,
    /// The last record was taken away: heads are to be looked at again.
    pub dropped: bool,
}

/// Puts copies and heads in order. Under the manifest's lock.
pub(crate) fn mend(
    objects: &dyn Objects,
    keys: &Keys,
    menders: &[Mend],
    quarantine: &Quarantine<'_>,
    _lock: &Lock,
) -> Result<Mended> {
    let mut mended = Mended::default();
    for mend in menders {
        let (name, bytes, what) = match mend {
            Mend::Copy { bad, good } => {
                let most = KEYRING_BYTES_MAX.max(ENVELOPE_BYTES_MAX);
                let len = objects.len(good)?.min(most);
                (bad, Some(objects.read(good, 0, len)?), format!("written anew from {good}"))
            }
            Mend::Head { name, number, hash } => {
                (name, Some(head(keys, *number, *hash)), format!("written anew, to name record {number}"))
            }
            Mend::LastRecord { name, number, head } => (
                name,
                None,
                format!("taken away: neither record {number} nor {head}, which would name it, can be read"),
            ),
            _ => continue,
        };
        if let Some(why) = in_the_way(objects, name) {
            mended.left.push(why);
            continue;
        }
        quarantine.keep(name)?;
        match bytes {
            Some(bytes) => objects.replace(name, &bytes)?,
            None => {
                objects.delete(name)?;
                mended.dropped = true;
            }
        }
        mended.done.push(format!("{name}: {what}"));
    }
    Ok(mended)
}

fn head(keys: &Keys, number: u64, hash: RecordHash) -> Vec<u8> {
    Head { repo: keys.repo, number, hash }.encode(&keys.head_key)
}

/// Appends a record; it is durable and named by a head when this returns. `Err` with a sentence if the manifest is not
/// whole, and then nothing may be appended.
pub(crate) fn append(
    objects: &dyn Objects,
    keys: &Keys,
    record: &Record,
    now_us: i64,
    quarantine: &Quarantine<'_>,
) -> Result<u64> {
    let lock = lock(objects)?;
    let found = Findings::default();
    let read = manifest::read(objects, keys, &found)?;
    let (.., menders) = found.finish();
    let Manifest { last: Some((last, previous)), .. } = read else { return Err(Error::ManifestDamaged) };
    // What a writer that died between record and head left comes first.
    mend(objects, keys, &menders, quarantine, &lock)?;
    let number = last.saturating_add(1);
    let kek = keys.keks.iter().max_by_key(|(generation, _)| **generation);
    let (generation, kek) = kek.ok_or(Error::ManifestDamaged)?;
    let plain = record.encode(now_us);
    let prefix = Prefix {
        repo: keys.repo,
        number,
        previous,
        kek_generation: *generation,
        nonce: random()?,
        sealed_len: u32::try_from(plain.len().saturating_add(16)).unwrap_or(u32::MAX),
        first_hash: None,
    };
    let sealed = Opener::new(&manifest_key(kek, keys.repo)).seal(prefix.nonce, &prefix.encode(), &plain);
    let bytes = Envelope::encode(&prefix, &sealed);
    let envelope = Envelope::decode(&bytes).map_err(|e| Error::Usage(e.to_string()))?;
    for copy in 0..MANIFESTS.len() {
        let name = ObjectName::new(manifest(copy, number))?;
        if objects.put_if_absent(&name, &bytes)? == Put::Exists {
            // The torn record of a writer that died: no head names it, and it was not good.
            quarantine.keep(&name)?;
            objects.replace(&name, &bytes)?;
        }
    }
    let place = HEADS.get(usize::from(number % 2 == 1)).copied().unwrap_or("head/0");
    objects.replace(&ObjectName::new(place)?, &head(keys, number, envelope.hash))?;
    Ok(number)
}
