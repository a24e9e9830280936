//! Packs of records: a long manifest is opened with one read for many records.
//!
//! A pack is derived data. It is written behind an append, when that is durable and acknowledged by a head, and is
//! believed only where it follows the chain; a repository whose packs are missing or damaged opens record by record.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_format::ids::RecordHash;
use holdfast_format::limits::{PACK_BODY_MAX, PACK_RECORDS_MAX};
use holdfast_format::manifest::Head;
use holdfast_format::names::{self, PACKS};
use holdfast_format::pack::{PACK_BYTES_MAX, Pack, Prefix, decode_bodies, encode_bodies};
use holdfast_format::record::{Record, Stamped};
use holdfast_io::{ObjectName, Put};

use super::{Manifest, State};
use crate::error::{Error, Result};
use crate::random;

/// The records that are in no pack yet.
#[derive(Debug, Default)]
pub(super) struct Loose {
    /// Number of the first of them.
    pub(super) first: u64,
    /// Hash of the record before it; zeros for number 0.
    before: RecordHash,
    /// Their hashes, in order.
    pub(super) hashes: Vec<RecordHash>,
    /// Something stands where the next pack belongs: it is for a check to say what.
    pub(super) blocked: bool,
}

impl Manifest {
    /// Numbers of the first records of all packs.
    pub(super) fn listed_packs(&self) -> Result<BTreeSet<u64>> {
        let names = self.objects.list(PACKS)?;
        Ok(names.iter().filter_map(|name| names::pack_number(name.as_str())).collect())
    }

    /// Takes the records of the pack that begins with `first` into the state; none if it is of no use. `listed` are the
    /// numbers of which a record is there.
    pub(super) fn take_pack(
        &self,
        state: &mut State,
        first: u64,
        listed: &BTreeSet<u64>,
        head: Option<Head>,
    ) -> Result<Option<u64>> {
        let Some((prefix, records)) = self.read_pack(first)? else { return Ok(None) };
        let follows = match state.last {
            None => first == 0,
            Some((number, hash)) => number.checked_add(1) == Some(first) && hash == prefix.previous,
        };
        let last = prefix.end().saturating_sub(1);
        // The pack's own end is the only one whose hash it tells.
        let named = head.is_none_or(|h| h.number != last || h.hash == prefix.last);
        if !follows || !named {
            return Ok(None);
        }
        for stamped in records {
            let number = stamped.number;
            if !listed.contains(&number) {
                state.damage.get_or_insert(format!("record {number} is missing"));
            }
            state.records.push(Arc::new(stamped));
        }
        state.last = Some((last, prefix.last));
        state.loose = Loose { first: prefix.end(), before: prefix.last, ..Loose::default() };
        Ok(Some(prefix.end()))
    }

    pub(super) fn read_pack(&self, first: u64) -> Result<Option<(Prefix, Vec<Stamped>)>> {
        let name = ObjectName::new(names::pack(first))?;
        let bytes = match self.objects.len(&name) {
            Ok(len) if len > PACK_BYTES_MAX => return Ok(None),
            Ok(len) => self.objects.read(&name, 0, len),
            Err(e) => Err(e),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // Gone, torn, or not given by the disk: the records themselves serve.
            Err(_) => return Ok(None),
        };
        let Ok(Pack { prefix, sealed: mut plain }) = Pack::decode(&bytes) else { return Ok(None) };
        if prefix.repo != self.keys.repo || prefix.first != first {
            return Ok(None);
        }
        let Some(cipher) = self.keys.manifest_reader(prefix.kek_generation)? else { return Ok(None) };
        if cipher.open(prefix.nonce, &prefix.encode(), &mut plain).is_err() {
            return Ok(None);
        }
        let Ok(bodies) = decode_bodies(&plain, prefix.count) else { return Ok(None) };
        let stamped = |(number, body): (u64, &[u8])| {
            let (at_us, record) = Record::decode(body).ok()?;
            Some(Stamped { number, at_us, record })
        };
        Ok((first..).zip(bodies).map(stamped).collect::<Option<Vec<_>>>().map(|records| (prefix, records)))
    }

    /// How many records a pack is made of.
    pub(super) fn pack_wanted(&self) -> usize {
        self.pack_records.clamp(1, PACK_RECORDS_MAX) as usize
    }

    /// Writes a pack if enough records are in none. The caller holds the manifest's lock, and the chain is whole.
    pub(super) fn pack(&self, state: &mut State) -> Result<()> {
        let wanted = self.pack_wanted();
        if state.loose.blocked || state.loose.hashes.len() < wanted {
            return Ok(());
        }
        let first = state.loose.first;
        let start = usize::try_from(first).unwrap_or(usize::MAX);
        let (mut bodies, mut bytes) = (Vec::new(), 0_usize);
        for stamped in state.records.iter().skip(start).take(wanted) {
            if bytes > PACK_BODY_MAX as usize / 2 {
                break;
            }
            let body = stamped.record.encode(stamped.at_us);
            bytes = bytes.saturating_add(body.len()).saturating_add(4);
            bodies.push(body);
        }
        let count = bodies.len();
        let previous = state.loose.before;
        let Some(last) = count.checked_sub(1).and_then(|at| state.loose.hashes.get(at)).copied() else {
            return Err(Error::SelfCheck { what: "a pack of records" });
        };
        let (prefix, bytes) = self.made_pack(first, previous, last, &bodies)?;
        let name = ObjectName::new(names::pack(first))?;
        match self.objects.put_if_absent(&name, &bytes)? {
            Put::Created => state.packed(prefix.end(), last),
            // Another process was first.
            Put::Exists => match self.read_pack(first)? {
                Some((there, _)) if there.end() <= state.next() && there.previous == previous => {
                    state.packed(there.end(), there.last);
                }
                _ => state.loose.blocked = true,
            },
        }
        Ok(())
    }

    /// The object of a pack of these plaintexts, which follow the record with the hash `previous`.
    pub(super) fn made_pack(
        &self,
        first: u64,
        previous: RecordHash,
        last: RecordHash,
        bodies: &[Vec<u8>],
    ) -> Result<(Prefix, Vec<u8>)> {
        let (kek_generation, cipher) = self.keys.manifest_writer()?;
        let mut plain = encode_bodies(bodies);
        let prefix = Prefix {
            repo: self.keys.repo,
            first,
            count: u32::try_from(bodies.len()).unwrap_or(u32::MAX),
            previous,
            last,
            kek_generation,
            nonce: random::bytes()?,
            sealed_len: u32::try_from(plain.len().saturating_add(16)).unwrap_or(u32::MAX),
        };
        cipher.seal(prefix.nonce, &prefix.encode(), &mut plain)?;
        Ok((prefix, Pack::encode(&prefix, &plain)))
    }
}

impl State {
    /// The records before `end`, the last of which has the hash `last`, are in packs.
    fn packed(&mut self, end: u64, last: RecordHash) {
        let count = usize::try_from(end.saturating_sub(self.loose.first)).unwrap_or(usize::MAX);
        self.loose.hashes.drain(..count.min(self.loose.hashes.len()));
        self.loose.first = end;
        self.loose.before = last;
    }
}
