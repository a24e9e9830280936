//! Packs of records: each must say what its records say.

use std::collections::BTreeMap;

use holdfast_format::ids::RecordHash;
use holdfast_format::keys;
use holdfast_format::names::{PACKS, pack_number};
use holdfast_format::pack::{PACK_BYTES_MAX, Pack, decode_bodies};
use holdfast_format::record::{Record, Stamped};
use holdfast_io::{ObjectName, Objects};

use crate::crypt::Opener;
use crate::error::Result;
use crate::findings::{Findings, Mend};
use crate::unlock::Keys;

/// The packs that are there. To be listed before the records are: a pack never holds younger ones then.
pub(crate) fn list(objects: &dyn Objects, found: &Findings) -> Result<Vec<(u64, ObjectName)>> {
    let mut packs = Vec::new();
    for name in objects.list(PACKS)? {
        match pack_number(name.as_str()) {
            Some(first) => packs.push((first, name)),
            None => found.note(&name, "no pack of records has such a name".to_owned()),
        }
    }
    packs.sort();
    Ok(packs)
}

/// Compares the packs with the chain that was read. Gives the bytes read.
pub(crate) fn check(
    objects: &dyn Objects,
    keys: &Keys,
    packs: &[(u64, ObjectName)],
    (records, hashes): (&[Stamped], &BTreeMap<u64, RecordHash>),
    found: &Findings,
) -> Result<u64> {
    let by_number: BTreeMap<u64, &Stamped> = records.iter().map(|s| (s.number, s)).collect();
    let (mut bytes_read, mut end_before) = (0_u64, 0);
    for (first, name) in packs {
        let bytes = match objects.len(name) {
            Ok(len) if len > PACK_BYTES_MAX => {
                Err(format!("it has {len} bytes, the limit is {PACK_BYTES_MAX}"))
            }
            Ok(len) => objects.read(name, 0, len).map_err(|e| e.to_string()),
            Err(e) => Err(e.to_string()),
        };
        let lacking = bytes.as_ref().ok().and_then(|bytes| Pack::decode(bytes).ok());
        let lacking = lacking.map(|pack| pack.prefix.kek_generation).filter(|g| !keys.keks.contains_key(g));
        if let Some(generation) = lacking {
            found.key_lacking(generation, []);
            continue;
        }
        let opened = bytes.and_then(|bytes| {
            bytes_read = bytes_read.saturating_add(bytes.len() as u64);
            open(&bytes, *first, keys)
        });
        let flaw = match opened {
            Ok((pack, _)) if *first < end_before => {
                end_before = end_before.max(pack.prefix.end());
                Some(format!("its first record, {first}, is in another pack already"))
            }
            Ok((pack, packed)) => {
                end_before = pack.prefix.end();
                difference(&pack, &packed, &by_number, hashes)
            }
            Err(flaw) => Some(flaw),
        };
        if let Some(flaw) = flaw {
            found.flaw(name, None, format!("{flaw}; the records themselves serve"));
            found.mend(Mend::Pack { name: name.clone() });
        }
    }
    Ok(bytes_read)
}

fn open(bytes: &[u8], first: u64, keys: &Keys) -> std::result::Result<(Pack, Vec<Stamped>), String> {
    let pack = Pack::decode(bytes).map_err(|e| e.to_string())?;
    let prefix = &pack.prefix;
    if prefix.repo != keys.repo {
        return Err(format!("it belongs to the repository {}", prefix.repo));
    }
    if prefix.first != first {
        return Err(format!("it begins with record {}", prefix.first));
    }
    let generation = prefix.kek_generation;
    let kek = keys.keks.get(&generation);
    let kek = kek.ok_or_else(|| format!("the keyring has no key of its generation {generation}"))?;
    let opener = Opener::new(&keys::manifest_key(kek, keys.repo));
    let plain = opener.open(prefix.nonce, &prefix.encode(), &pack.sealed);
    let plain = plain.ok_or_else(|| "it does not open: its bytes are not what was sealed".to_owned())?;
    let bodies = decode_bodies(&plain, prefix.count).map_err(|e| e.to_string())?;
    let stamped = |(number, body): (u64, &[u8])| {
        let (at_us, record) = Record::decode(body).map_err(|e| e.to_string())?;
        Ok(Stamped { number, at_us, record })
    };
    let records = (first..).zip(bodies).map(stamped).collect::<std::result::Result<_, String>>()?;
    Ok((pack, records))
}

/// What a pack says otherwise than the chain, as far as that could be read.
fn difference(
    pack: &Pack,
    packed: &[Stamped],
    records: &BTreeMap<u64, &Stamped>,
    hashes: &BTreeMap<u64, RecordHash>,
) -> Option<String> {
    let prefix = &pack.prefix;
    if let Some(other) = packed.iter().find(|p| records.get(&p.number).is_some_and(|r| r != p)) {
        return Some(format!("it tells record {} otherwise than the record does", other.number));
    }
    let before = match prefix.first.checked_sub(1) {
        Some(before) => hashes.get(&before).copied(),
        None => Some(RecordHash::default()),
    };
    let last = hashes.get(&prefix.end().saturating_sub(1));
    if before.is_some_and(|hash| hash != prefix.previous) || last.is_some_and(|hash| *hash != prefix.last) {
        return Some("it is of another chain of records".to_owned());
    }
    let newest = hashes.last_key_value().map_or(0, |(number, _)| *number);
    (prefix.end() > newest.saturating_add(1))
        .then(|| format!("it goes up to record {}, the manifest to {newest}", prefix.end().saturating_sub(1)))
}
