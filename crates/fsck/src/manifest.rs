//! The manifest: two heads, a chain of records in two copies.
//!
//! Heads are read before the records are listed, so that a process that appends meanwhile
//! never makes a head look as if it were beyond the chain.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_format::ids::RecordHash;
use holdfast_format::keys;
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope, Head};
use holdfast_format::names::{HEADS, MANIFESTS, manifest, manifest_number};
use holdfast_format::record::{Record, Stamped};
use holdfast_io::{ObjectName, Objects};

use crate::crypt::Opener;
use crate::error::Result;
use crate::findings::{Findings, Mend};
use crate::packs;
use crate::unlock::Keys;

/// What the manifest says.
#[derive(Debug, Default)]
pub(crate) struct Manifest {
    pub records: Vec<Stamped>,
    pub heads: u64,
    pub bytes: u64,
    /// The newest record of a whole chain; none if the chain is broken.
    pub last: Option<(u64, RecordHash)>,
    /// A record is under a key that the keyring does not have.
    pub key_lacking: bool,
}

/// Longest object of a head that is read: a right one has 104 bytes, and a longer one must not fill the memory.
const HEAD_BYTES_MAX: u64 = 4096;
/// Missing records in a row after which the rest of a hole is one flaw: a forged name must not make us count to 2^64.
const HOLE_STEPS_MAX: u64 = 64;

/// Reads and checks heads and chain.
pub(crate) fn read(objects: &dyn Objects, keys: &Keys, found: &Findings) -> Result<Manifest> {
    let packs = packs::list(objects, found)?;
    let (heads, hidden) = read_heads(objects, keys, found)?;
    let mut numbers: BTreeSet<u64> = BTreeSet::new();
    for folder in MANIFESTS {
        for name in objects.list(folder)? {
            match manifest_number(name.as_str()) {
                Some(number) => {
                    numbers.insert(number);
                }
                None => found.note(&name, "no record has such a name".to_owned()),
            }
        }
    }
    let named = heads.iter().flatten().map(|h| h.number).max();
    let last = numbers.last().copied().max(named);
    let mut read = Manifest { heads: heads.iter().flatten().count() as u64, ..Manifest::default() };
    let mut chain = Chain {
        objects,
        keys,
        found,
        previous: RecordHash([0; 32]),
        known: true,
        whole: true,
        hashes: BTreeMap::new(),
    };
    let mut number = 0;
    while number <= last.unwrap_or(0) {
        // No head names it, and nothing follows: a writer died here before it acknowledged anything. But its own head, if that
        // is damaged or not given by the disk, may have named it. The other one names what comes after it.
        let unnamed = Some(number) == last && named.is_none_or(|named| named < number);
        let own = HEADS.iter().zip(hidden).nth(usize::from(number % 2 == 1));
        let own = own.filter(|(_, hidden)| *hidden).map(|(head, _)| *head);
        let end = match own {
            Some(head) if unnamed => Unnamed::Hidden { head },
            None if unnamed => Unnamed::Torn,
            _ => Unnamed::No,
        };
        chain.step(number, end, &mut read)?;
        let next = number.saturating_add(1);
        let there = numbers.range(next..).next().copied().or(last).unwrap_or(0).max(next);
        if there.saturating_sub(next) > HOLE_STEPS_MAX {
            found.flaw(
                "manifest",
                None,
                format!("records {next} to {} are missing", there.saturating_sub(1)),
            );
            chain.known = false;
            chain.whole = false;
            number = there;
        } else {
            number = next;
        }
    }
    for (name, head) in HEADS.iter().zip(&heads) {
        let Some(head) = head else { continue };
        match chain.hashes.get(&head.number) {
            Some(hash) if *hash == head.hash => {}
            Some(_) => {
                found.flaw(
                    name,
                    None,
                    format!("it names another record {} than the manifest has", head.number),
                );
            }
            None => {
                found.flaw(name, None, format!("it names record {}, which cannot be read", head.number));
            }
        }
    }
    check_head_numbers(&heads, last, found);
    if chain.whole {
        read.last = chain.hashes.last_key_value().map(|(number, hash)| (*number, *hash));
    }
    mend_heads(&heads, &chain, found)?;
    let bytes = packs::check(objects, keys, &packs, (&read.records, &chain.hashes), found)?;
    read.bytes = read.bytes.saturating_add(bytes);
    Ok(read)
}

/// The two heads; a missing one is `None`, and so is one that is reported as damaged. True for one that is there, and what it
/// said is not to be had.
fn read_heads(
    objects: &dyn Objects,
    keys: &Keys,
    found: &Findings,
) -> Result<([Option<Head>; 2], [bool; 2])> {
    let (mut heads, mut hidden) = ([None, None], [false, false]);
    for (at, ((name, place), hidden)) in HEADS.iter().zip(&mut heads).zip(&mut hidden).enumerate() {
        let object = ObjectName::new(*name)?;
        let bytes = match objects.len(&object) {
            Ok(len) => objects.read(&object, 0, len.min(HEAD_BYTES_MAX)),
            Err(e) if e.is_not_found() => continue,
            Err(e) => Err(e),
        };
        let head = bytes.map_err(|e| e.to_string());
        let head = head.and_then(|bytes| Head::decode(&bytes, &keys.head_key).map_err(|e| e.to_string()));
        match head {
            Ok(head) if head.repo != keys.repo => {
                found.flaw(name, None, format!("it belongs to the repository {}", head.repo));
            }
            Ok(head) if head.number % 2 != at as u64 => {
                found.flaw(name, None, format!("record {} is named by the other head", head.number));
            }
            Ok(head) => {
                *place = Some(head);
                continue;
            }
            Err(flaw) => {
                found.flaw(name, None, flaw);
            }
        }
        // Heads are replaced whole: whatever else stands there once was one, and nobody knows what it named.
        *hidden = true;
    }
    Ok((heads, hidden))
}

/// Each head names the newest record of its turn, or one before it if a writer died in between.
fn check_head_numbers(heads: &[Option<Head>; 2], last: Option<u64>, found: &Findings) {
    let Some(last) = last else { return };
    for (at, (name, head)) in HEADS.iter().zip(heads).enumerate() {
        let due = if last % 2 == at as u64 { Some(last) } else { last.checked_sub(1) };
        match (head, due) {
            (None, Some(due)) if due == last && due < 2 => {
                found
                    .note(name, format!("it does not name record {due} yet: its writer is at work, or died"));
            }
            (None, Some(due)) => {
                found.flaw(name, None, format!("it is missing or unreadable, and should name record {due}"));
            }
            (Some(head), Some(due)) if head.number < due => {
                let named = head.number;
                found.note(name, format!("it names record {named}, not {due}: a writer is at work, or died"));
            }
            _ => {}
        }
    }
}

/// A head that is missing, damaged or behind can be written anew, as long as the chain is whole and no head knows of
/// records that are not there.
fn mend_heads(heads: &[Option<Head>; 2], chain: &Chain<'_>, found: &Findings) -> Result<()> {
    let Some((last, _)) = chain.hashes.last_key_value().filter(|_| chain.whole) else { return Ok(()) };
    if heads.iter().flatten().any(|h| h.number > *last || chain.hashes.get(&h.number) != Some(&h.hash)) {
        return Ok(());
    }
    for (at, (name, head)) in HEADS.iter().zip(heads).enumerate() {
        let due = if last % 2 == at as u64 { Some(*last) } else { last.checked_sub(1) };
        if let Some((number, hash)) = due.and_then(|due| chain.hashes.get_key_value(&due))
            && head.is_none_or(|head| head.number != *number)
        {
            found.mend(Mend::Head { name: ObjectName::new(*name)?, number: *number, hash: *hash });
        }
    }
    Ok(())
}

/// What a record may be that no head names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unnamed {
    /// A head names it, or a later one is there.
    No,
    /// The last one, which a writer that died left.
    Torn,
    /// The last one, and its own head is there and can't be read: nobody knows whether it was acknowledged.
    Hidden {
        /// That head.
        head: &'static str,
    },
}

type Opened = std::result::Result<(Envelope, Stamped), Flaw>;

/// What is wrong with a copy of a record.
struct Flaw {
    what: String,
    /// It is whole and in its place, but sealed under this generation of the keys, which the keyring does not have; and what
    /// the chain calls it.
    key_lacking: Option<(u32, RecordHash)>,
}

impl From<String> for Flaw {
    fn from(what: String) -> Self {
        Self { what, key_lacking: None }
    }
}

struct Chain<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    found: &'a Findings,
    previous: RecordHash,
    /// Whether `previous` is known: not after a record that cannot be read.
    known: bool,
    /// Whether every record so far was good.
    whole: bool,
    hashes: BTreeMap<u64, RecordHash>,
}

impl Chain<'_> {
    /// Reads both copies of a record, keeps what the first good one says, and compares.
    fn step(&mut self, number: u64, unnamed: Unnamed, read: &mut Manifest) -> Result<()> {
        let mut good: Option<(Envelope, Stamped)> = None;
        let mut bad: Vec<(String, Flaw)> = Vec::new();
        let mut good_name = None;
        let mut rivals = false;
        for copy in 0..MANIFESTS.len() {
            let name = manifest(copy, number);
            match (self.copy(&name, number, read)?, &good) {
                // One of them may have been sealed again; then they differ, and say the same.
                (Ok(this), Some((first, told))) if first.hash != this.0.hash || *told != this.1 => {
                    rivals = true;
                    bad.push((name, "its two copies hold different records".to_owned().into()));
                }
                (Ok(_), Some(_)) => {}
                (Ok(this), None) => {
                    good = Some(this);
                    good_name = Some(name);
                }
                (Err(flaw), _) => bad.push((name, flaw)),
            }
        }
        // Nobody died over a record that is whole, whether we can open it or not; and no other copy is put over it.
        let lacking = bad.iter().find_map(|(_, flaw)| flaw.key_lacking);
        let may_be_torn = unnamed == Unnamed::Torn && lacking.is_none();
        if let Some((generation, _)) = lacking {
            self.found.key_lacking(generation, []);
        }
        bad.retain(|(_, flaw)| flaw.key_lacking.is_none());
        for (name, Flaw { what: flaw, .. }) in bad {
            // Which one of two rivals is right is for a person to say.
            if let Some(good) = good_name.as_ref().filter(|_| !rivals) {
                let good = ObjectName::new(good.as_str())?;
                self.found.mend(Mend::Copy { bad: ObjectName::new(name.as_str())?, good });
            }
            if may_be_torn {
                let what = format!("{flaw}; no head names this record, so its writer died before it counted");
                self.found.note(name, what);
            } else {
                let serves = if good.is_some() { "; the other copy serves" } else { "" };
                self.found.flaw(name, None, format!("{flaw}{serves}"));
            }
        }
        match good {
            Some((envelope, stamped)) => {
                self.previous = envelope.hash;
                self.known = true;
                self.hashes.insert(number, envelope.hash);
                read.records.push(stamped);
            }
            None if may_be_torn => {}
            None if lacking.is_some() => {
                read.key_lacking = true;
                if let Some((_, hash)) = lacking {
                    (self.previous, self.known) = (hash, true);
                    self.hashes.insert(number, hash);
                }
                self.whole = false;
            }
            None => {
                if let Unnamed::Hidden { head } = unnamed
                    && self.whole
                {
                    self.last_is_lost(number, head)?;
                }
                let what = format!("record {number} is lost, and with it whatever it says");
                let no = self.found.flaw("manifest", None, what);
                self.found
                    .affects(no, "every backup and stretch of log that this record made known".to_owned());
                self.known = false;
                self.whole = false;
            }
        }
        Ok(())
    }

    /// Neither the last record nor the head that would name it can be read, and the chain before it is whole: what is left of
    /// the record can be taken away, so that others can follow.
    fn last_is_lost(&self, number: u64, head: &'static str) -> Result<()> {
        for copy in 0..MANIFESTS.len() {
            let name = ObjectName::new(manifest(copy, number))?;
            if !matches!(self.objects.exists(&name), Ok(false)) {
                self.found.mend(Mend::LastRecord { name, number, head });
            }
        }
        Ok(())
    }

    fn copy(&self, name: &str, number: u64, read: &mut Manifest) -> Result<Opened> {
        let object = ObjectName::new(name)?;
        let bytes = match self.objects.len(&object) {
            Ok(len) if len > ENVELOPE_BYTES_MAX => {
                return Ok(Err(format!("it has {len} bytes, the limit is {ENVELOPE_BYTES_MAX}").into()));
            }
            Ok(len) => self.objects.read(&object, 0, len),
            Err(e) if e.is_not_found() => return Ok(Err("it is missing".to_owned().into())),
            Err(e) => Err(e),
        };
        Ok(bytes.map_err(|e| e.to_string().into()).and_then(|bytes| {
            read.bytes = read.bytes.saturating_add(bytes.len() as u64);
            self.opened(&bytes, number)
        }))
    }

    /// Checks and opens the bytes of one copy.
    fn opened(&self, bytes: &[u8], number: u64) -> Opened {
        let envelope = Envelope::decode(bytes).map_err(|e| e.to_string())?;
        let prefix = &envelope.prefix;
        if prefix.repo != self.keys.repo {
            return Err(format!("it belongs to the repository {}", prefix.repo).into());
        }
        if prefix.number != number {
            return Err(format!("it holds record {}", prefix.number).into());
        }
        if self.known && prefix.previous != self.previous {
            return Err("it does not name the record before it: the chain is broken".to_owned().into());
        }
        let generation = prefix.kek_generation;
        let kek = self.keys.keks.get(&generation);
        let kek = kek.ok_or_else(|| Flaw {
            what: format!(
                "it is under generation {generation} of the keys, which this keyring does not have"
            ),
            key_lacking: Some((generation, envelope.hash)),
        })?;
        let opener = Opener::new(&keys::manifest_key(kek, self.keys.repo));
        let plain = opener.open(prefix.nonce, &prefix.encode(), &envelope.sealed);
        let plain = plain.ok_or_else(|| "it does not open: its bytes are not what was sealed".to_owned())?;
        let (at_us, record) = Record::decode(&plain).map_err(|e| e.to_string())?;
        Ok((envelope, Stamped { number, at_us, record }))
    }
}
