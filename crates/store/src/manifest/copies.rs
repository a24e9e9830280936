//! What is there more than once in the manifest, looked at copy by copy: records twice, heads, packs beside their records.
//!
//! Opening a repository reads of each record the first copy that serves, and of those in packs none, so damage of a copy may
//! wait unseen until the other one goes, too. Here every copy is read, and one that is missing, unreadable or damaged is
//! written anew from the other. Records never change once they are written, so they are looked at beside everything else;
//! what is to be written anew is looked at again under the manifest's lock.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use holdfast_format::ids::RecordHash;
use holdfast_format::limits::{PACK_BODY_MAX, PACK_RECORDS_MAX};
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope, Head};
use holdfast_format::names::{self, HEADS, MANIFEST_LOCK};
use holdfast_format::pack::PACK_BYTES_MAX;
use holdfast_format::record::Stamped;
use holdfast_io::{Lock, ObjectName};

use super::{Found, Manifest};
use crate::error::{Error, Result};
use crate::renew::{refusal, renew};

/// Records that are looked at between two questions whether to go on.
const LOOKS_BETWEEN: u64 = 64;

/// What was found and done.
#[derive(Debug, Default)]
pub(crate) struct Tended {
    /// Bytes read that `watch` was not told of.
    pub(crate) bytes: u64,
    /// The objects that were written anew.
    pub(crate) renewed: Vec<String>,
    /// What stays as it is, and why.
    pub(crate) left: Vec<(String, String)>,
}

/// A copy of a record that is whole and in its place.
struct Whole {
    bytes: Vec<u8>,
    hash: RecordHash,
    stamped: Stamped,
}

/// What is to be written anew, as far as looking has shown.
#[derive(Debug, Default)]
struct Suspects {
    /// Numbers of records, and the hash of the record before each.
    records: BTreeMap<u64, Option<RecordHash>>,
    /// First numbers of packs.
    packs: Vec<u64>,
    /// Numbers of records between two packs, or before the first one, that are in none.
    gaps: Vec<Range<u64>>,
}

impl Suspects {
    fn is_empty(&self) -> bool {
        self.records.is_empty() && self.packs.is_empty() && self.gaps.is_empty()
    }
}

impl Manifest {
    /// Looks at every copy of every record, at the heads and at all packs, and writes anew what has another to be taken
    /// from; `tended` is right even if an error ends it. `watch` is told the bytes of some records at a time; false if it says to stop. The manifest must be open without damage.
    pub(crate) fn tend(&self, tended: &mut Tended, watch: &mut dyn FnMut(u64) -> bool) -> Result<bool> {
        self.refresh()?;
        let Some((suspects, hashes)) = self.look(tended, watch)? else { return Ok(false) };
        if !suspects.is_empty() || !self.ailing_heads()?.is_empty() {
            self.renew_suspects(suspects, &hashes, tended)?;
        }
        let mut state = self.state();
        tended.renewed.iter().for_each(|name| drop(state.bad_copies.remove(name)));
        state.unmended = state.bad_copies.keys().cloned().collect();
        // What stood where the next pack belongs may be one now.
        state.loose.blocked = false;
        Ok(true)
    }

    fn renew_suspects(&self, suspects: Suspects, hashes: &[RecordHash], tended: &mut Tended) -> Result<()> {
        let lock = match self.lock() {
            Ok(lock) => lock,
            Err(Error::Io(e)) => {
                tended.left.push((MANIFEST_LOCK.to_owned(), refusal(e)?));
                return Ok(());
            }
            Err(e) => return Err(e),
        };
        for (number, previous) in suspects.records {
            self.renew_record(number, previous, &lock, tended)?;
        }
        self.renew_heads(&lock, tended)?;
        suspects.packs.into_iter().try_for_each(|first| self.renew_pack(first, hashes, &lock, tended))?;
        suspects.gaps.into_iter().try_for_each(|gap| self.fill_gap(gap, hashes, &lock, tended))
    }

    /// Whether a copy is known to be bad that [`Manifest::tend`] has not seen yet.
    pub(crate) fn has_new_bad_copies(&self) -> bool {
        let bad = self.bad_copies();
        let state = self.state();
        bad.iter().any(|(name, _)| !state.unmended.contains(name))
    }

    /// Every copy of every record, and every pack, without a lock. Gives what looks damaged, and the hashes of the chain;
    /// packs are compared, and hashes complete, only if every record can be read.
    fn look(
        &self,
        tended: &mut Tended,
        watch: &mut dyn FnMut(u64) -> bool,
    ) -> Result<Option<(Suspects, Vec<RecordHash>)>> {
        let known = self.records();
        let (mut suspects, mut hashes) = (Suspects::default(), Vec::new());
        let mut previous = Some(RecordHash::default());
        let mut read = 0;
        for number in 0..self.next_number() {
            let mut good: Vec<(RecordHash, Stamped)> = Vec::new();
            let (mut bad, mut bytes) = (false, 0);
            for copy in 0..names::MANIFESTS.len() {
                match self.copy(copy, number, previous)? {
                    Some(whole) => {
                        bytes += whole.bytes.len() as u64;
                        good.push((whole.hash, whole.stamped));
                    }
                    None => bad = true,
                }
            }
            read += bytes;
            if (number + 1).is_multiple_of(LOOKS_BETWEEN) && !watch(std::mem::take(&mut read)) {
                return Ok(None);
            }
            let told = usize::try_from(number).ok().and_then(|at| known.get(at));
            let alike = good.windows(2).all(|pair| pair.first() == pair.last());
            let as_told = told.is_none_or(|told| good.iter().all(|(_, stamped)| stamped == &**told));
            let Some((hash, _)) = good.first().filter(|_| alike && as_told) else {
                let why = if good.is_empty() {
                    "neither copy can be read; holdfast-fsck says what that costs"
                } else {
                    "its copies hold different records; holdfast-fsck says more, and which one is right is for a person to say"
                };
                tended.left.push((format!("record {number} of the manifest"), why.to_owned()));
                previous = None;
                continue;
            };
            if bad {
                suspects.records.insert(number, previous);
            }
            previous = Some(*hash);
            hashes.push(*hash);
        }
        tended.bytes = read;
        if hashes.len() as u64 == self.next_number() {
            self.look_at_packs(&hashes, &known, &mut suspects)?;
        }
        Ok(Some((suspects, hashes)))
    }

    /// Every pack, and where one is missing. Behind the last one an append makes them, but for those that this process
    /// takes for made.
    fn look_at_packs(
        &self,
        hashes: &[RecordHash],
        known: &[Arc<Stamped>],
        suspects: &mut Suspects,
    ) -> Result<()> {
        let made_up_to = self.state().loose.first;
        // A pack that is no good is renewed up to where the next one begins.
        let mut end = Some(0);
        for first in self.listed_packs()? {
            suspects.gaps.extend(end.filter(|end| *end < first).map(|end| end..first));
            end = self.end_of_right_pack(first, hashes, known)?;
            if end.is_none() {
                suspects.packs.push(first);
            }
        }
        suspects.gaps.extend(end.filter(|end| *end < made_up_to).map(|end| end..made_up_to));
        Ok(())
    }

    /// One copy of a record; none if it is missing, or no good.
    fn copy(&self, copy: usize, number: u64, previous: Option<RecordHash>) -> Result<Option<Whole>> {
        let name = ObjectName::new(names::manifest(copy, number))?;
        let Some(bytes) = self.bytes_of(&name, ENVELOPE_BYTES_MAX)? else { return Ok(None) };
        let opened = self.open(&bytes, number, previous)?;
        Ok(opened.ok().map(|(stamped, hash)| Whole { bytes, hash, stamped }))
    }

    /// Writes the bad copy of a record anew from the good one, as both are under the lock.
    fn renew_record(
        &self,
        number: u64,
        previous: Option<RecordHash>,
        _lock: &Lock,
        tended: &mut Tended,
    ) -> Result<()> {
        let (mut good, mut bad) = (None, Vec::new());
        for copy in 0..names::MANIFESTS.len() {
            match self.copy(copy, number, previous)? {
                Some(whole) => good = good.or(Some(whole.bytes)),
                None => bad.push(names::manifest(copy, number)),
            }
        }
        match good {
            Some(bytes) => bad.into_iter().try_for_each(|name| self.write_anew(name, &bytes, tended)),
            None => {
                let why =
                    "the other copy can't be read any more; holdfast-fsck says what that costs".to_owned();
                tended.left.extend(bad.into_iter().map(|name| (name, why.clone())));
                Ok(())
            }
        }
    }

    /// The heads that are missing or can't be read, and what each should name, as far as this process has read the chain.
    /// One that is only behind is what a writer that died left: the next append moves it on.
    fn ailing_heads(&self) -> Result<Vec<(&'static str, u64)>> {
        let heads = self.heads()?;
        let last = self.state().last.map(|(number, _)| number);
        let Some(last) = last else { return Ok(Vec::new()) };
        let mut ailing = Vec::new();
        for (turn, name) in (0..).zip(HEADS) {
            let due = if last % 2 == turn { Some(last) } else { last.checked_sub(1) };
            let there = self.objects.exists(&ObjectName::new(name)?).unwrap_or(true);
            // The first record of a turn has no head before it is acknowledged.
            let young = due == Some(last) && last < 2;
            if let Some(due) = due
                && (heads.unread.iter().any(|(unread, _)| *unread == name) || !there && !young)
            {
                ailing.push((name, due));
            }
        }
        Ok(ailing)
    }

    fn renew_heads(&self, _lock: &Lock, tended: &mut Tended) -> Result<()> {
        let heads = self.heads()?;
        {
            let mut state = self.state();
            self.refresh_state(&mut state, &heads)?;
            if let Some(why) = &state.damage {
                return Err(Error::ReadOnly { why: why.clone() });
            }
        }
        let last = self.state().last;
        for (name, due) in self.ailing_heads()? {
            // The newest record's own head comes only when both of its copies are there.
            let hash = match last {
                Some((number, hash)) if number == due => match self.both_copies(number, hash) {
                    Ok(()) => Some(hash),
                    Err(Error::Io(e)) => {
                        tended.left.push((name.to_owned(), refusal(e)?));
                        None
                    }
                    Err(e) => return Err(e),
                },
                Some((number, hash)) => self.before(number, hash)?,
                None => None,
            };
            let Some(hash) = hash else { continue };
            let head = Head { repo: self.keys.repo, number: due, hash };
            self.write_anew(name.to_owned(), &head.encode(&self.keys.head), tended)?;
        }
        Ok(())
    }

    /// The hash of the record before this one.
    fn before(&self, number: u64, hash: RecordHash) -> Result<Option<RecordHash>> {
        for copy in 0..names::MANIFESTS.len() {
            let whole = self.copy(copy, number, None)?;
            if let Some(whole) = whole.filter(|whole| whole.hash == hash) {
                return Ok(Envelope::decode(&whole.bytes).ok().map(|envelope| envelope.prefix.previous));
            }
        }
        Ok(None)
    }

    /// The number behind the last record of a pack that says what its records say; none if it does not.
    fn end_of_right_pack(
        &self,
        first: u64,
        hashes: &[RecordHash],
        known: &[Arc<Stamped>],
    ) -> Result<Option<u64>> {
        let Some((prefix, records)) = self.read_pack(first)? else { return Ok(None) };
        let hash = |number: u64| usize::try_from(number).ok().and_then(|at| hashes.get(at)).copied();
        let before = first.checked_sub(1).map_or(Some(RecordHash::default()), hash);
        let at = usize::try_from(first).unwrap_or(usize::MAX);
        let told = known.get(at..).unwrap_or_default();
        let right = before == Some(prefix.previous)
            && hash(prefix.end().saturating_sub(1)) == Some(prefix.last)
            && told.len() >= records.len()
            && told.iter().zip(&records).all(|(told, packed)| **told == *packed);
        Ok(right.then(|| prefix.end()))
    }

    /// Makes a pack anew from its records, up to where the next one begins.
    fn renew_pack(&self, first: u64, hashes: &[RecordHash], _lock: &Lock, tended: &mut Tended) -> Result<()> {
        let known = self.records();
        let listed = self.listed_packs()?;
        if !listed.contains(&first) || self.end_of_right_pack(first, hashes, &known)?.is_some() {
            return Ok(());
        }
        let next = listed.range(first.saturating_add(1)..).next().copied();
        let end = next
            .unwrap_or_else(|| (hashes.len() as u64).min(first.saturating_add(self.pack_wanted() as u64)));
        match self.pack_of(first..end, hashes, &known)? {
            Some(bytes) => self.write_anew(names::pack(first), &bytes, tended),
            None => {
                let why =
                    "it does not hold what its records say; holdfast-fsck --repair takes it away".to_owned();
                tended.left.push((names::pack(first), why));
                Ok(())
            }
        }
    }

    /// Makes the packs of records that are in none, as many as it takes.
    fn fill_gap(
        &self,
        gap: Range<u64>,
        hashes: &[RecordHash],
        _lock: &Lock,
        tended: &mut Tended,
    ) -> Result<()> {
        // Somebody else was first.
        if self.listed_packs()?.range(gap.clone()).next().is_some() {
            return Ok(());
        }
        let known = self.records();
        let mut first = gap.start;
        while first < gap.end {
            let (mut end, mut bytes) = (first, 0);
            let most = gap.end.min(first.saturating_add(self.pack_wanted() as u64));
            while end < most && bytes <= PACK_BODY_MAX as usize / 2 {
                let stamped = usize::try_from(end).ok().and_then(|at| known.get(at));
                bytes += stamped.map_or(0, |s| s.record.encode(s.at_us).len() + 4);
                end += 1;
            }
            let name = names::pack(first);
            match self.pack_of(first..end, hashes, &known)? {
                Some(bytes) => self.write_anew(name, &bytes, tended)?,
                None => {
                    let why = "it is missing, and can't be made; its records themselves serve".to_owned();
                    tended.left.push((name, why));
                    return Ok(());
                }
            }
            first = end;
        }
        Ok(())
    }

    /// The object of a pack of these records; none if one of them is not known, or they are too many.
    fn pack_of(
        &self,
        numbers: Range<u64>,
        hashes: &[RecordHash],
        known: &[Arc<Stamped>],
    ) -> Result<Option<Vec<u8>>> {
        let at = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let hash = |at: usize| hashes.get(at).copied();
        let range = at(numbers.start)..at(numbers.end);
        let before = range.start.checked_sub(1).map_or(Some(RecordHash::default()), hash);
        let last = range.end.checked_sub(1).and_then(hash);
        let (Some(records), Some(before), Some(last)) = (known.get(range), before, last) else {
            return Ok(None);
        };
        let bodies: Vec<Vec<u8>> = records.iter().map(|s| s.record.encode(s.at_us)).collect();
        let fits = bodies.iter().map(|body| body.len() + 4).sum::<usize>() <= PACK_BODY_MAX as usize;
        if !fits || !(1..=PACK_RECORDS_MAX as usize).contains(&records.len()) {
            return Ok(None);
        }
        let (_, bytes) = self.made_pack(numbers.start, before, last, &bodies)?;
        Ok((bytes.len() as u64 <= PACK_BYTES_MAX).then_some(bytes))
    }

    fn write_anew(&self, name: String, bytes: &[u8], tended: &mut Tended) -> Result<()> {
        match renew(self.objects.as_ref(), &ObjectName::new(name.as_str())?, bytes)? {
            None => tended.renewed.push(name),
            Some(why) => tended.left.push((name, why)),
        }
        Ok(())
    }

    /// Heads and copies of records that can't be read, and why, while the other one of each serves; looked at again.
    pub(crate) fn bad_copies(&self) -> Vec<(String, String)> {
        let noted = self.state().bad_copies.clone();
        if noted.is_empty() {
            return Vec::new();
        }
        let ailing = self.ailing_heads().unwrap_or_default();
        let hash = |name: String, number: u64| {
            let found = self.read_copy(&ObjectName::new(name)?, number, None)?;
            Ok::<_, Error>(if let Found::Good(_, hash) = found { Some(hash) } else { None })
        };
        let still = |name: &str| match names::manifest_number(name) {
            // One that is whole by itself, but another record than its other copy, is of no use either.
            Some(number) => {
                let hashes = [0, 1]
                    .map(|copy| names::manifest(copy, number))
                    .map(|copy| (copy == name, hash(copy, number)));
                let mine = hashes
                    .iter()
                    .find_map(|(own, hash)| if *own { hash.as_ref().ok().copied().flatten() } else { None });
                let other = hashes
                    .iter()
                    .find_map(|(own, hash)| if *own { None } else { hash.as_ref().ok().copied().flatten() });
                mine.is_none() || other.is_some_and(|other| mine != Some(other))
            }
            None => ailing.iter().any(|(head, _)| *head == name),
        };
        let bad: BTreeMap<String, String> = noted.into_iter().filter(|(name, _)| still(name)).collect();
        self.state().bad_copies = bad.clone();
        bad.into_iter().collect()
    }
}
