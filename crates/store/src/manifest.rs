//! The manifest: the log of everything that ever happened, and the only commit point.
//!
//! Append, under a short lock: read the tail again, put the record twice, sync a head, answer.
//! Recovery: a record that no head names and that can't be read is the torn last one and is
//! dropped; any other flaw makes the repository read-only, with every readable record listed.
//! What makes a long manifest quick to open: `packs.rs`; under other keys: `reseal.rs`; each copy looked
//! at, and written anew: `copies.rs`.

mod copies;
mod packs;
mod reseal;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use holdfast_format::ids::RecordHash;
use holdfast_format::limits::RECORD_BODY_MAX;
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope, HEAD_BYTES, Head, Prefix};
use holdfast_format::names::{self, HEADS, MANIFEST_LOCK, MANIFESTS};
use holdfast_format::record::{Record, Stamped};
use holdfast_io::{Error as Io, Lock, LockKind, ObjectName, Objects, Put};

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::random;
pub(crate) use copies::Tended;
use packs::Loose;

/// How long an append waits for another process's: each takes some syncs of small files.
const LOCK_WAIT: Duration = Duration::from_secs(60);

/// What is known of the manifest.
#[derive(Debug, Default)]
struct State {
    records: Vec<Arc<Stamped>>,
    /// Number and hash of the newest record of the chain.
    last: Option<(u64, RecordHash)>,
    /// The first flaw found, if any.
    damage: Option<String>,
    /// A record needs a generation of the keys that we lack.
    key_lacking: bool,
    /// Heads and copies of records that can't be read, and why, where another one serves.
    bad_copies: BTreeMap<String, String>,
    /// Those of them that could not be written anew when all were looked at last.
    unmended: BTreeSet<String>,
    loose: Loose,
}

/// What the two heads say.
#[derive(Debug, Default)]
struct Heads {
    /// The newer valid one.
    newest: Option<Head>,
    /// Those that are there and can't be read, or are not what a writer left, and why: nobody knows what they name. A head
    /// is replaced whole, so none of them is torn.
    unread: Vec<(&'static str, String)>,
}

impl Heads {
    /// Whether a head that can be read names this record or a later one.
    fn name(&self, number: u64) -> bool {
        self.newest.is_some_and(|head| head.number >= number)
    }

    /// Whether the head that a record would be named by is there, and nobody knows what it names. The other head says
    /// nothing of that record: what it names next comes after this one was acknowledged.
    fn hide(&self, number: u64) -> bool {
        let own = if number.is_multiple_of(2) { HEADS[0] } else { HEADS[1] };
        self.unread.iter().any(|(name, _)| *name == own)
    }
}

impl State {
    fn next(&self) -> u64 {
        self.last.map_or(0, |(number, _)| number.saturating_add(1))
    }
}

/// The manifest of an open repository.
#[derive(Debug)]
pub(crate) struct Manifest {
    objects: Arc<dyn Objects>,
    keys: Arc<Keys>,
    state: Mutex<State>,
    /// The first reading is over.
    loaded: AtomicBool,
    /// So many records are put into a pack.
    pack_records: u32,
}

impl Manifest {
    /// A manifest without records.
    pub(crate) fn empty(objects: Arc<dyn Objects>, keys: Arc<Keys>, pack_records: u32) -> Self {
        Self { objects, keys, state: Mutex::default(), loaded: AtomicBool::new(true), pack_records }
    }

    /// Reads the manifest.
    pub(crate) fn load(objects: Arc<dyn Objects>, keys: Arc<Keys>, pack_records: u32) -> Result<Self> {
        let loaded = AtomicBool::new(false);
        let manifest = Self { objects, keys, state: Mutex::default(), loaded, pack_records };
        // The head first, and packs before records: all of them only ever get more.
        let heads = manifest.heads()?;
        let head = heads.newest;
        let packs = manifest.listed_packs()?;
        let numbers = manifest.listed()?;
        {
            let mut state = manifest.state();
            state.note_unread(&heads);
            let unknown = manifest.keys.unknown_features;
            if unknown != 0 {
                let why = format!("it uses features (0x{unknown:x}) that this program does not know");
                state.damage =
                    Some(format!("{why}: read it with this one, write to it with a newer Holdfast"));
            }
            let newest = numbers.last().copied();
            let end = newest.max(head.map(|h| h.number)).map_or(0, |n| n.saturating_add(1));
            let mut number = 0;
            while number < end {
                if packs.contains(&number)
                    && let Some(next) = manifest.take_pack(&mut state, number, &numbers, head)?
                {
                    number = next;
                    continue;
                }
                let torn_may_be = Some(number) == newest && !heads.name(number);
                manifest.take(&mut state, number, &heads, torn_may_be)?;
                number = number.saturating_add(1);
            }
            // Its chain may go on behind what is listed, and nobody could say.
            if heads.newest.is_none()
                && let Some((name, why)) = heads.unread.first()
            {
                state.damage.get_or_insert(format!("{name} can't be read ({why}), and no other head serves"));
            }
        }
        manifest.loaded.store(true, Ordering::Release);
        Ok(manifest)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes record `number` into the state, or notes what is wrong with it.
    fn take(&self, state: &mut State, number: u64, heads: &Heads, torn_may_be: bool) -> Result<()> {
        let expected =
            state.last.filter(|(last, _)| last.checked_add(1) == Some(number)).map(|(_, hash)| hash);
        let expected = if number == 0 { Some(RecordHash::default()) } else { expected };
        match self.read(state, number, expected)? {
            Found::Good(stamped, hash) => {
                if heads.newest.is_some_and(|h| h.number == number && h.hash != hash) {
                    state
                        .damage
                        .get_or_insert(format!("the head names another record {number} than there is"));
                }
                state.last = Some((number, hash));
                state.loose.hashes.push(hash);
                state.records.push(Arc::new(*stamped));
            }
            Found::Missing if torn_may_be => {}
            // What is sealed under a key that we lack is whole: no writer died over it.
            Found::Bad(Flaw { key_lacking: Some(generation), .. }) if number == 0 => {
                return Err(Error::KeyLacking { generation });
            }
            Found::Bad(Flaw { key_lacking: None, .. }) if torn_may_be && !heads.hide(number) => {}
            // It may be read the next time; who has the repository open need not take it for lost.
            Found::Bad(Flaw { unread: Some(e), .. }) if self.loaded.load(Ordering::Acquire) => {
                return Err(e.into());
            }
            Found::Missing => {
                state.damage.get_or_insert(format!("record {number} is missing"));
            }
            Found::Bad(Flaw { why, key_lacking, .. }) => {
                state.key_lacking |= key_lacking.is_some();
                state.damage.get_or_insert(format!("record {number} can't be read in either copy ({why})"));
            }
        }
        Ok(())
    }

    /// Numbers of which any copy is there.
    fn listed(&self) -> Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        for folder in MANIFESTS {
            for name in self.objects.list(folder)? {
                numbers.extend(names::manifest_number(name.as_str()));
            }
        }
        Ok(numbers)
    }

    /// The two heads. One that can't be read stops nothing: the other one serves.
    fn heads(&self) -> Result<Heads> {
        let mut heads = Heads::default();
        for (turn, name) in (0..).zip(HEADS) {
            let head = match self.objects.read(&ObjectName::new(name)?, 0, HEAD_BYTES) {
                Ok(bytes) => Head::decode(&bytes, &self.keys.head).map_err(|e| e.to_string()),
                Err(e) if e.is_not_found() => continue,
                Err(e) => Err(e.to_string()),
            };
            match head {
                Ok(head) if head.repo != self.keys.repo || head.number % 2 != turn => {
                    heads.unread.push((name, "it belongs to another place".to_owned()));
                }
                Ok(head) if heads.newest.is_none_or(|n| n.number < head.number) => heads.newest = Some(head),
                Ok(_) => {}
                Err(why) => heads.unread.push((name, why)),
            }
        }
        Ok(heads)
    }

    /// Reads a record from whichever copy is good; notes in the state which one had to serve for the other.
    fn read(&self, state: &mut State, number: u64, previous: Option<RecordHash>) -> Result<Found> {
        let (mut found, mut bad) = (Found::Missing, Vec::new());
        for copy in 0..MANIFESTS.len() {
            let name = ObjectName::new(names::manifest(copy, number))?;
            match self.read_copy(&name, number, previous)? {
                Found::Good(record, hash) => {
                    state.bad_copies.extend(bad);
                    return Ok(Found::Good(record, hash));
                }
                Found::Bad(flaw) => {
                    bad.push((name.to_string(), flaw.why.clone()));
                    // That a key is lacking says more than that the other copy is damaged; so does that the disk may
                    // give it the next time.
                    let says_more = |told: &Flaw| {
                        told.key_lacking.is_some() || told.unread.is_some() && flaw.key_lacking.is_none()
                    };
                    if !matches!(&found, Found::Bad(told) if says_more(told)) {
                        found = Found::Bad(flaw);
                    }
                }
                Found::Missing => {}
            }
        }
        Ok(found)
    }

    fn read_copy(&self, name: &ObjectName, number: u64, previous: Option<RecordHash>) -> Result<Found> {
        let bytes = match self.objects.len(name) {
            Ok(len) if len > ENVELOPE_BYTES_MAX => {
                return Ok(Found::Bad(format!("it has {len} bytes").into()));
            }
            Ok(len) => self.objects.read(name, 0, len),
            Err(e) => Err(e),
        };
        let bytes = match bytes {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => return Ok(Found::Missing),
            Err(e) => {
                return Ok(Found::Bad(Flaw { why: e.to_string(), key_lacking: None, unread: Some(e) }));
            }
        };
        Ok(match self.open(&bytes, number, previous)? {
            Ok((stamped, hash)) => Found::Good(Box::new(stamped), hash),
            Err(flaw) => Found::Bad(flaw),
        })
    }

    fn open(
        &self,
        bytes: &[u8],
        number: u64,
        previous: Option<RecordHash>,
    ) -> Result<std::result::Result<(Stamped, RecordHash), Flaw>> {
        let envelope = match Envelope::decode(bytes) {
            Ok(envelope) => envelope,
            Err(e) => return Ok(Err(e.to_string().into())),
        };
        let prefix = &envelope.prefix;
        if prefix.repo != self.keys.repo || prefix.number != number {
            return Ok(Err("it belongs to another place".to_owned().into()));
        }
        if previous.is_some_and(|hash| hash != prefix.previous) {
            return Ok(Err("it does not follow the record before it".to_owned().into()));
        }
        let Some(cipher) = self.keys.manifest_reader(prefix.kek_generation)? else {
            // Good to the last byte, and newer than our keys: no damage, but nothing that we may write after.
            if self.loaded.load(Ordering::Acquire) && prefix.kek_generation > self.keys.generation() {
                return Err(Error::KeysRotated);
            }
            let generation = prefix.kek_generation;
            let why = format!("it needs key generation {generation}, which the keyring lacks");
            return Ok(Err(Flaw { why, key_lacking: Some(generation), unread: None }));
        };
        let mut body = envelope.sealed;
        if cipher.open(prefix.nonce, &prefix.encode(), &mut body).is_err() {
            return Ok(Err("its tag is wrong".to_owned().into()));
        }
        Ok(match Record::decode(&body) {
            Ok((at_us, record)) => Ok((Stamped { number, at_us, record }, envelope.hash)),
            Err(e) => Err(e.to_string().into()),
        })
    }

    /// Takes in what other processes appended since.
    pub(crate) fn refresh(&self) -> Result<()> {
        let heads = self.heads()?;
        let mut state = self.state();
        self.refresh_state(&mut state, &heads)
    }

    fn refresh_state(&self, state: &mut State, heads: &Heads) -> Result<()> {
        state.note_unread(heads);
        // Opened by an old kit: what came since can't be opened now either.
        if state.key_lacking {
            return Ok(());
        }
        // A repair took our last record away, and wrote another one under its number: what follows ours would be lost.
        if let (Some(head), Some((number, hash))) = (heads.newest, state.last)
            && head.number == number
            && head.hash != hash
        {
            state.damage.get_or_insert(format!(
                "record {number} is not the one that was read before: the manifest was repaired meanwhile; open it again"
            ));
        }
        loop {
            let number = state.next();
            let before = state.last;
            self.take(state, number, heads, !heads.name(number))?;
            if state.last == before {
                return Ok(());
            }
        }
    }

    /// Keeps everybody from appending for as long as the lock lives: some syncs of small files at most.
    pub(crate) fn lock(&self) -> Result<Lock> {
        Ok(self.objects.lock(&ObjectName::new(MANIFEST_LOCK)?, LockKind::Exclusive, LOCK_WAIT)?)
    }

    /// Appends a record; it is durable and named by a head when this returns.
    pub(crate) fn append(&self, record: Record, at_us: i64) -> Result<Stamped> {
        let lock = self.lock()?;
        self.append_locked(record, at_us, &lock)
    }

    /// As [`Manifest::append`], under the manifest's lock that the caller holds.
    pub(crate) fn append_locked(&self, record: Record, at_us: i64, _lock: &Lock) -> Result<Stamped> {
        let body = record.encode(at_us);
        if body.len() as u64 > u64::from(RECORD_BODY_MAX) {
            let why = format!(
                "it has {} bytes, the limit is {RECORD_BODY_MAX}; shorten what it tells (notes, labels)",
                body.len()
            );
            return Err(Error::Refused { op: "append the record", why });
        }
        // Whatever the encoder lets pass, the decoder must too: a record that can't be read back is damage.
        match Record::decode(&body) {
            Ok((_, read)) if read == record => {}
            Ok(_) => return Err(Error::SelfCheck { what: "a manifest record" }),
            Err(e) => return Err(Error::Refused { op: "append the record", why: e.to_string() }),
        }
        let heads = self.heads()?;
        let head = heads.newest;
        let mut state = self.state();
        self.refresh_state(&mut state, &heads)?;
        if let Some(why) = &state.damage {
            return Err(Error::ReadOnly { why: why.clone() });
        }
        if head.map(|h| h.number) != state.last.map(|(n, _)| n)
            && let Some((number, hash)) = state.last
        {
            self.complete(number, hash)?;
        }
        let number = state.next();
        let hash = self.put(number, state.last.map(|(_, hash)| hash).unwrap_or_default(), body)?;
        self.put_head(number, hash)?;
        let stamped = Stamped { number, at_us, record };
        state.last = Some((number, hash));
        state.loose.hashes.push(hash);
        state.records.push(Arc::new(stamped.clone()));
        // The record is durable, whatever becomes of the pack: who opens without it reads the records.
        let _ = self.pack(&mut state);
        Ok(stamped)
    }

    /// Finishes what a process that died between record and head left: both copies, then the head.
    fn complete(&self, number: u64, hash: RecordHash) -> Result<()> {
        self.both_copies(number, hash)?;
        self.put_head(number, hash)
    }

    /// Makes sure that both copies of a good record are there, and durable.
    fn both_copies(&self, number: u64, hash: RecordHash) -> Result<()> {
        let names =
            [ObjectName::new(names::manifest(0, number))?, ObjectName::new(names::manifest(1, number))?];
        let (mut good, mut unread) = (None, None);
        for name in &names {
            let read = self
                .objects
                .len(name)
                .and_then(|len| self.objects.read(name, 0, len.min(ENVELOPE_BYTES_MAX)));
            match read {
                Ok(bytes) if Envelope::decode(&bytes).is_ok_and(|e| e.hash == hash) => {
                    good = Some(bytes);
                    break;
                }
                Err(e) if !e.is_not_found() => unread = Some(e),
                _ => {}
            }
        }
        let Some(bytes) = good else {
            // The disk may give it the next time, and that is no damage.
            return Err(unread.map_or_else(
                || {
                    Error::damaged(
                        "the manifest",
                        format!("record {number}"),
                        "it vanished while it was read",
                    )
                },
                Error::from,
            ));
        };
        // One that is there may be there for readers only: if the sync of its folder failed, no later sync need ever write
        // its name. So both are written anew.
        names.iter().try_for_each(|name| Ok(self.objects.replace(name, &bytes)?))
    }

    /// Seals a record and stores both copies.
    fn put(&self, number: u64, previous: RecordHash, mut body: Vec<u8>) -> Result<RecordHash> {
        let (kek_generation, cipher) = self.keys.manifest_writer()?;
        let sealed_len = u32::try_from(body.len().saturating_add(16)).unwrap_or(u32::MAX);
        let prefix = Prefix {
            repo: self.keys.repo,
            number,
            previous,
            kek_generation,
            nonce: random::bytes()?,
            sealed_len,
            first_hash: None,
        };
        cipher.seal(prefix.nonce, &prefix.encode(), &mut body)?;
        let bytes = Envelope::encode(&prefix, &body);
        let hash = Envelope::decode(&bytes).map_err(Error::format("manifest record"))?.hash;
        for copy in 0..MANIFESTS.len() {
            self.put_over_torn(&ObjectName::new(names::manifest(copy, number))?, &bytes)?;
        }
        Ok(hash)
    }

    /// Puts a record where nothing readable is: what stands there was found to be torn, and no head names it.
    fn put_over_torn(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        if self.objects.put_if_absent(name, bytes)? == Put::Created {
            return Ok(());
        }
        self.objects.delete(name)?;
        match self.objects.put_if_absent(name, bytes)? {
            Put::Created => Ok(()),
            Put::Exists => {
                Err(Error::ReadOnly { why: format!("another writer put {name} despite the lock") })
            }
        }
    }

    fn put_head(&self, number: u64, hash: RecordHash) -> Result<()> {
        let head = Head { repo: self.keys.repo, number, hash };
        let name = if number.is_multiple_of(2) { "head/0" } else { "head/1" };
        Ok(self.objects.replace(&ObjectName::new(name)?, &head.encode(&self.keys.head))?)
    }

    /// All readable records, in order.
    pub(crate) fn records(&self) -> Vec<Arc<Stamped>> {
        self.state().records.clone()
    }

    /// All readable records but the first `known` ones: what there is is only ever added to.
    pub(crate) fn records_from(&self, known: usize) -> Vec<Arc<Stamped>> {
        self.state().records.get(known..).unwrap_or_default().to_vec()
    }

    /// Number of the next record: rises with every append of any process, as far as this one has read.
    pub(crate) fn next_number(&self) -> u64 {
        self.state().next()
    }

    /// What is wrong with the manifest, if anything.
    pub(crate) fn damage(&self) -> Option<String> {
        self.state().damage.clone()
    }

    /// Whether a record needs a generation of the keys that we lack.
    pub(crate) fn is_key_lacking(&self) -> bool {
        self.state().key_lacking
    }

    /// What is there; nothing if the disk does not give it, as if it were missing: it is made good by what can be read.
    fn bytes_of(&self, name: &ObjectName, most: u64) -> Result<Option<Vec<u8>>> {
        let read = self.objects.len(name).and_then(|len| self.objects.read(name, 0, len.min(most)));
        match read {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.is_not_found() => Ok(None),
            Err(Io::Io { .. } | Io::Refused { .. } | Io::ShortRead { .. }) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }
}

impl State {
    fn note_unread(&mut self, heads: &Heads) {
        let unread = heads.unread.iter().map(|(name, why)| ((*name).to_owned(), why.clone()));
        self.bad_copies.extend(unread);
    }
}

/// What stands under a number.
enum Found {
    Good(Box<Stamped>, RecordHash),
    Bad(Flaw),
    Missing,
}

/// Why a copy of a record can't be used.
#[derive(Debug)]
struct Flaw {
    why: String,
    /// It is whole and in its place, but sealed under this generation of the keys, which we lack.
    key_lacking: Option<u32>,
    /// The place where it lies gave this error instead of its bytes.
    unread: Option<holdfast_io::Error>,
}

impl From<String> for Flaw {
    fn from(why: String) -> Self {
        Self { why, key_lacking: None, unread: None }
    }
}
