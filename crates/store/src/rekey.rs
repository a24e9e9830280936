//! Re-encryption: everything of a repository sealed anew under keys that no old copy of the keyring has.
//!
//! ```text
//! lock -> new keys -> segments, logs, records, packs, each replaced whole -> look again -> old keys dropped
//! ```
//!
//! Every object is replaced by one that says the same at the same places, and every object names the generation of its
//! own key. So each state in between is a repository like any other, whoever was killed where; the same command again
//! goes on with what still names an older generation. Only when nothing does, the older keys leave the keyring.
//!
//! It works alone: whoever has the repository open holds `locks/rekey` shared, and this holds it exclusively. A reader
//! could else see the header of one object and the frames of the other.

mod log;
mod segment;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use holdfast_format::ids::{BackupId, SegmentId};
use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::manifest::{ENVELOPE_BYTES_MAX, Envelope};
use holdfast_format::names::{
    FOOT_SUFFIX, LOGS, MANIFESTS, PACKS, QUARANTINE, REKEY_LOCK, SEGMENTS, SESSIONS,
};
use holdfast_format::pack::{PACK_BYTES_MAX, Pack};
use holdfast_format::record::{BackupRecord, HealedRecord, Healing, Record};
use holdfast_format::segment::{PAGE_BYTES, SegmentHeader};
use holdfast_format::session::{Session, SessionKind};
use holdfast_io::{Lock, LockKind, ObjectName, Objects};

use crate::error::{Error, Result};
use crate::gc::{Prune, PruneOptions, holders};
use crate::keys::{Keys, Secret};
use crate::manifest::Manifest;
use crate::parity::Workshop;
use crate::repository::{Inner, OpenOptions, Repository};
use crate::slots::{self, Rotated};

/// How long a re-encryption waits for commands that only look: they are done in a moment.
const LOCK_WAIT: Duration = Duration::from_secs(1);

/// Longest object of a session that is read.
const SESSION_BYTES_MAX: u64 = 64 * 1024;

/// What a re-encryption would do.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RekeyPlan {
    /// One was begun and has not ended: it would go on.
    pub resumes: bool,
    /// Data and meta segments to seal anew.
    pub segments: u64,
    /// Log segments to seal anew.
    pub logs: u64,
    /// Copies of records, and packs of them, to seal anew.
    pub records: u64,
    /// Bytes of all these objects.
    pub bytes: u64,
    /// Bytes that must be free: the largest object is there twice for a moment.
    pub free_bytes: u64,
    /// Objects of `quarantine/`: they hold old bytes, so they have to go first.
    pub quarantined: u64,
}

/// How far a re-encryption is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RekeyProgress {
    /// Bytes of the objects that were done in this run.
    pub bytes: u64,
    /// Bytes of all that there were to do as it began.
    pub total: u64,
}

/// What came of a re-encryption.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RekeyReport {
    /// The new keys; of a re-encryption that went on, those that its first run made.
    pub rotated: Rotated,
    /// It went on with one that was broken off.
    pub resumed: bool,
    /// What this run sealed anew.
    pub done: RekeyPlan,
    /// Everything is sealed anew and the old keys are gone. Otherwise the same command goes on.
    pub finished: bool,
    /// What could not be sealed anew, and why: the old keys stay because of it.
    pub left: Vec<String>,
    /// Backups that need a segment of that: once they are forgotten, a prune removes it.
    pub needed_by: Vec<BackupId>,
}

/// How the records call the beginning of a re-encryption, and its going on. One that ended says so in another record.
const BEGUN: &str = "re-encryption to generation ";

/// Keeps a re-encryption away for as long as the lock lives. `None` where no lock can be had, as in a place that
/// nobody may write to; [`Error::Rekeying`] while one works.
pub(crate) fn hold_off(objects: &dyn Objects) -> Result<Option<Lock>> {
    match objects.lock(&ObjectName::new(REKEY_LOCK)?, LockKind::Shared, Duration::ZERO) {
        Ok(lock) => Ok(Some(lock)),
        Err(holdfast_io::Error::LockBusy { .. }) => Err(Error::Rekeying),
        // Whoever only reads must not need room for a file, or leave to make one.
        Err(_) => Ok(None),
    }
}

impl Repository {
    /// What [`Repository::rekey`] would do now with these secrets, and what would become of keys and slots; nothing is
    /// changed. [`Error::WrongSecret`] if none of them opens a slot.
    pub fn plan_rekey(&self, secrets: &[Secret]) -> Result<(RekeyPlan, Rotated)> {
        let (rotated, resumes) = slots::plan_rekey(self.inner.objects.as_ref(), &self.inner.keys, secrets)?;
        let (work, _) = Work::of(self.inner.objects.as_ref(), rotated.generation)?;
        Ok((RekeyPlan { resumes, ..work.plan }, rotated))
    }

    /// Makes new keys, seals everything in the repository anew under them, and forgets the old ones: an old copy of the
    /// keyring opens nothing of the repository as it is afterwards, whatever passphrase goes with it. One that was broken
    /// off goes on. `secrets`: the first that fits opens the repository; slots that none of them opens go, as in
    /// [`Repository::rotate_keys`]. `watch` is told how far it is; false stops after the object at hand.
    ///
    /// [`Error::InUse`] while anybody has the repository open.
    pub fn rekey(
        objects: Arc<dyn Objects>,
        secrets: &[Secret],
        options: OpenOptions,
        watch: &dyn Fn(RekeyProgress) -> bool,
    ) -> Result<RekeyReport> {
        let keys = open_keys(objects.as_ref(), secrets, &options)?;
        let lock = alone(objects.as_ref(), &keys)?;
        // What waits in quarantine was sealed under old keys, and belongs to nobody who could seal it anew.
        let quarantined = objects.list(QUARANTINE)?.len();
        if quarantined > 0 {
            let why = format!(
                "quarantine/ holds {quarantined} objects that a repair took away, sealed under the old keys; no backup needs them: \
                 move that folder out of the repository, or remove it, and run the same command again"
            );
            return Err(Error::Refused { op: "re-encrypt the repository", why });
        }
        let loaded = |keys: &Arc<Keys>| {
            let manifest = Manifest::load(Arc::clone(&objects), Arc::clone(keys), options.pack_records)?;
            match manifest.damage() {
                Some(why) => Err(Error::ReadOnly { why }),
                None => Ok(manifest),
            }
        };
        // Temporary files of writers that died are no objects, may hold what was sealed under old keys, and take space.
        objects.sweep()?;
        let keys = Arc::new(keys);
        let manifest = loaded(&keys)?;
        if let Some(rotated) = broken_off_at_its_end(objects.as_ref(), &keys, &manifest)? {
            let inner = Self::assemble(Arc::clone(&objects), keys, manifest, options, Some(lock));
            let mut run = Run::new(&inner.inner, watch, rotated, true);
            run.ended()?;
            return Ok(run.report);
        }
        drop(manifest);
        has_room(objects.as_ref())?;

        let keys = open_keys(objects.as_ref(), secrets, &options)?;
        let (rotated, resumed) = slots::begin_rekey(objects.as_ref(), &keys, secrets)?;
        let keys = Arc::new(open_keys(objects.as_ref(), secrets, &options)?);
        let inner = Repository::assemble(
            Arc::clone(&objects),
            Arc::clone(&keys),
            loaded(&keys)?,
            options,
            Some(lock),
        );
        let mut run = Run::new(&inner.inner, watch, rotated, resumed);
        run.all()?;
        Ok(run.report)
    }
}

/// The keys behind the first secret that opens the keyring.
fn open_keys(objects: &dyn Objects, secrets: &[Secret], options: &OpenOptions) -> Result<Keys> {
    let mut refused = Error::WrongSecret;
    for secret in secrets {
        match Keys::open(objects, options.engine, secret) {
            Err(e @ Error::WrongSecret) => refused = e,
            other => return other,
        }
    }
    Err(refused)
}

/// Whether a re-encryption dropped the old keys and ended before it had written all copies of the keyring, or the record
/// that says so: then all copies are written, and it was the last step.
fn broken_off_at_its_end(objects: &dyn Objects, keys: &Keys, manifest: &Manifest) -> Result<Option<Rotated>> {
    let records = manifest.records();
    let told = records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::KeysChanged { what } => Some(what),
        _ => None,
    });
    let ours = format!("{BEGUN}{} ", keys.generation());
    if !told.is_some_and(|what| what.starts_with(&ours)) {
        return Ok(None);
    }
    let (work, unreadable) = Work::of(objects, keys.generation())?;
    let nothing = work.segments.is_empty() && work.logs.is_empty() && work.plan.records == 0;
    if nothing && unreadable.is_empty() { slots::settle(objects, keys) } else { Ok(None) }
}

/// Takes the repository for this process alone, or says who has it.
fn alone(objects: &dyn Objects, keys: &Keys) -> Result<Lock> {
    match objects.lock(&ObjectName::new(REKEY_LOCK)?, LockKind::Exclusive, LOCK_WAIT) {
        Ok(lock) => Ok(lock),
        Err(holdfast_io::Error::LockBusy { .. }) => Err(Error::InUse { by: users(objects, keys)? }),
        Err(e) => Err(e.into()),
    }
}

/// Who is at work, as far as sessions say.
fn users(objects: &dyn Objects, keys: &Keys) -> Result<String> {
    let mut kinds = Vec::new();
    for name in objects.list(SESSIONS)? {
        let alive = objects.try_lock(&name, LockKind::Shared).is_ok_and(|lock| lock.is_none());
        let Ok(len) = objects.len(&name) else { continue };
        let bytes = objects.read(&name, 0, len.min(SESSION_BYTES_MAX)).unwrap_or_default();
        let Some(session) = Session::decode(&bytes).ok().filter(|s| alive && s.repo == keys.repo) else {
            continue;
        };
        kinds.push(match session.kind {
            SessionKind::Backup => "a backup",
            SessionKind::Log => "an archive of a server's log",
            SessionKind::Read => "a restore, a check or a scrub",
            SessionKind::Prune => "a prune",
        });
    }
    kinds.sort_unstable();
    kinds.dedup();
    Ok(if kinds.is_empty() { "another command, or holdfastd".to_owned() } else { kinds.join(", ") })
}

/// Whether the largest object fits once more.
fn has_room(objects: &dyn Objects) -> Result<()> {
    let (work, _) = Work::of(objects, u32::MAX)?;
    let Some(free) = objects.free_space()? else { return Ok(()) };
    if free.available < work.plan.free_bytes {
        let why = format!(
            "the largest object has {} bytes and is there twice for a moment, but only {} are free; free some space where the \
             repository lies, and run the same command again",
            work.plan.free_bytes, free.available
        );
        return Err(Error::Refused { op: "re-encrypt the repository", why });
    }
    Ok(())
}

/// What is to be done: everything that names an older generation, in the order in which it is done.
#[derive(Debug, Default)]
struct Work {
    segments: Vec<(ObjectName, u64)>,
    logs: Vec<(ObjectName, u64)>,
    plan: RekeyPlan,
}

impl Work {
    /// What names a generation before this one; and the objects that don't say what they name.
    fn of(objects: &dyn Objects, generation: u32) -> Result<(Self, Vec<ObjectName>)> {
        let (mut work, mut unreadable) = (Self::default(), Vec::new());
        for folder in [SEGMENTS, LOGS] {
            for name in objects.list(folder)?.into_iter().filter(|n| !n.as_str().ends_with(FOOT_SUFFIX)) {
                let len = objects.len(&name)?;
                let header = objects.read(&name, 0, PAGE_BYTES as u64).ok();
                let header = header.and_then(|page| SegmentHeader::decode(&page).ok());
                match header {
                    Some(header) if header.births.iter().all(|b| b.kek_generation >= generation) => continue,
                    Some(_) => {}
                    None => unreadable.push(name.clone()),
                }
                let (list, count) = if folder == LOGS {
                    (&mut work.logs, &mut work.plan.logs)
                } else {
                    (&mut work.segments, &mut work.plan.segments)
                };
                *count += 1;
                work.plan.bytes += len;
                work.plan.free_bytes = work.plan.free_bytes.max(len);
                list.push((name, len));
            }
        }
        for folder in MANIFESTS.into_iter().chain([PACKS]) {
            for name in objects.list(folder)? {
                let len = objects.len(&name)?;
                let bytes = objects.read(&name, 0, len.min(ENVELOPE_BYTES_MAX.max(PACK_BYTES_MAX)));
                // What the disk does not give is no more than damaged: the other copy serves.
                let bytes = bytes.unwrap_or_default();
                let named = if folder == PACKS {
                    Pack::decode(&bytes).map(|pack| pack.prefix.kek_generation).ok()
                } else {
                    Envelope::decode(&bytes).map(|envelope| envelope.prefix.kek_generation).ok()
                };
                match named {
                    Some(named) if named >= generation => continue,
                    Some(_) => {}
                    None => unreadable.push(name),
                }
                work.plan.records += 1;
                work.plan.bytes += len;
                work.plan.free_bytes = work.plan.free_bytes.max(len);
            }
        }
        work.plan.quarantined = objects.list(QUARANTINE)?.len() as u64;
        Ok((work, unreadable))
    }
}

struct Run<'a> {
    inner: &'a Arc<Inner>,
    /// The newest one: what everything is to name.
    generation: u32,
    workshop: Arc<Workshop>,
    watch: &'a dyn Fn(RekeyProgress) -> bool,
    total: u64,
    /// What had rotted, and was made good by its parity.
    healed: Vec<Healing>,
    report: RekeyReport,
}

impl<'a> Run<'a> {
    fn new(
        inner: &'a Arc<Inner>,
        watch: &'a dyn Fn(RekeyProgress) -> bool,
        rotated: Rotated,
        resumed: bool,
    ) -> Self {
        let report = RekeyReport {
            rotated,
            resumed,
            done: RekeyPlan::default(),
            finished: false,
            left: Vec::new(),
            needed_by: Vec::new(),
        };
        let generation = inner.keys.generation();
        Self { inner, generation, workshop: Arc::default(), watch, total: 0, healed: Vec::new(), report }
    }

    fn all(&mut self) -> Result<()> {
        let objects = self.inner.objects.as_ref();
        let words = if self.report.resumed { "goes on" } else { "begins" };
        // What a writer that died left at the end of the manifest is in order after this.
        self.note(format!("{BEGUN}{} {words}", self.generation))?;
        self.leftovers()?;
        let (work, _) = Work::of(objects, self.generation)?;
        self.total = work.plan.bytes;
        for (name, len) in &work.segments {
            if !self.goes_on() {
                return Ok(());
            }
            let done = id_of(name, SEGMENTS).map_or(Ok(false), |id| self.segment(id, name));
            self.took(name, *len, done, |plan| &mut plan.segments)?;
        }
        for (name, len) in &work.logs {
            if !self.goes_on() {
                return Ok(());
            }
            let done = id_of(name, LOGS).map_or(Ok(false), |id| self.log(id, name));
            self.took(name, *len, done, |plan| &mut plan.logs)?;
        }
        if !self.goes_on() {
            return Ok(());
        }
        if !self.healed.is_empty() {
            let segments = std::mem::take(&mut self.healed);
            let record = HealedRecord { by: "re-encryption".to_owned(), segments };
            self.append(Record::Healed(record))?;
        }
        let (records, bytes) = self.inner.manifest.reseal()?;
        self.report.done.records += records;
        self.report.done.bytes += bytes;
        self.finish()
    }

    /// The repository as it is now, with nothing in its caches: what is sealed anew opens under other keys.
    fn fresh(&self) -> Result<Repository> {
        let (objects, keys) = (Arc::clone(&self.inner.objects), Arc::clone(&self.inner.keys));
        let options = self.inner.options.clone();
        let manifest = Manifest::load(Arc::clone(&objects), Arc::clone(&keys), options.pack_records)?;
        Ok(Repository::assemble(objects, keys, manifest, options, None))
    }

    /// Removes what a prune removes at any grace: a segment whose writer died before its end can't be sealed anew.
    fn leftovers(&self) -> Result<()> {
        let fresh = self.fresh()?;
        let options = PruneOptions { dead_percent_max: 100, grace_us: i64::MAX, logs: Vec::new() };
        match Prune::begin(&fresh.inner, &options).and_then(|prune| prune.run(&|_, _| false)) {
            // What is damaged, or what the disk does not give, may be brought back by parity below, and is named else.
            Err(e) if !e.is_damage() && !matches!(e, Error::Io(holdfast_io::Error::Io { .. })) => Err(e),
            _ => Ok(()),
        }
    }

    /// Drops the old keys if nothing names them any more.
    fn finish(&mut self) -> Result<()> {
        let objects = self.inner.objects.as_ref();
        let (work, unreadable) = Work::of(objects, self.generation)?;
        let (segments, logs) = (work.segments.iter(), work.logs.iter());
        for (name, _) in segments.chain(logs) {
            if !self.report.left.iter().any(|left| left.contains(name.as_str())) {
                self.report.left.push(format!("{name}: it names an older key"));
            }
        }
        for name in unreadable {
            if !self.report.left.iter().any(|left| left.contains(name.as_str())) {
                self.report.left.push(format!("{name}: it can't be read"));
            }
        }
        if work.plan.records > 0 && self.report.left.is_empty() {
            self.report.left.push("the manifest: a record names an older key".to_owned());
        }
        if !self.report.left.is_empty() {
            let left = work.segments.iter().filter_map(|(name, _)| id_of(name, SEGMENTS)).collect();
            self.report.needed_by = needed_by(&self.fresh()?.inner, &left);
            return Ok(());
        }
        objects.sweep()?;
        slots::end_rekey(objects, &self.inner.keys)?;
        self.ended()
    }

    fn ended(&mut self) -> Result<()> {
        self.report.finished = true;
        let generation = self.generation;
        self.note(format!(
            "re-encrypted: everything is of generation {generation}, and the older keys are gone"
        ))
    }

    fn note(&self, what: String) -> Result<()> {
        self.append(Record::KeysChanged { what })
    }

    fn append(&self, record: Record) -> Result<()> {
        self.inner.manifest.append(record, self.inner.options.clock.now_us()).map(|_| ())
    }

    fn goes_on(&self) -> bool {
        (self.watch)(RekeyProgress { bytes: self.report.done.bytes, total: self.total })
    }

    /// Counts what was done; damage of one object stops none of the others.
    fn took(
        &mut self,
        name: &ObjectName,
        len: u64,
        done: Result<bool>,
        count: impl Fn(&mut RekeyPlan) -> &mut u64,
    ) -> Result<()> {
        match done {
            Ok(true) => {
                *count(&mut self.report.done) += 1;
                self.report.done.bytes += len;
            }
            Ok(false) => self.report.left.push(format!("{name}: no segment has such a name")),
            Err(e) if e.is_damage() => {
                let why = e.to_string();
                let named = why.contains(name.as_str());
                self.report.left.push(if named { why } else { format!("{name}: {why}") });
            }
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The whole object; pages that the disk does not give are zeros, for parity to fill, and the first error is told.
    fn read(&self, name: &ObjectName) -> Result<(Vec<u8>, Option<holdfast_io::Error>)> {
        let objects = &self.inner.objects;
        let len = objects.len(name)?;
        if len > 2 * SEGMENT_BYTES_MAX {
            return Err(Error::damaged(name, "its length", format!("{len} bytes")));
        }
        let refused = match objects.read(name, 0, len) {
            Ok(bytes) => return Ok((bytes, None)),
            Err(e @ holdfast_io::Error::Io { .. }) => e,
            Err(e) => return Err(e.into()),
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for (nth, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
            if objects.read_into(name, (nth * PAGE_BYTES) as u64, page).is_err() {
                page.fill(0);
            }
        }
        Ok((bytes, Some(refused)))
    }
}

/// The backups that need one of these segments, for a block, a base of one, or a part of their map.
fn needed_by(inner: &Arc<Inner>, left: &HashSet<SegmentId>) -> Vec<BackupId> {
    let needs = |backup: &BackupRecord| match holders(inner, [backup.map]) {
        Ok(holders) => !holders.is_disjoint(left),
        Err(_) => false,
    };
    inner.backups().iter().filter(|backup| needs(backup)).map(|backup| backup.id).collect()
}

/// The segment that an object's name tells.
fn id_of(name: &ObjectName, folder: &str) -> Option<SegmentId> {
    name.as_str().strip_prefix(folder)?.parse().ok()
}
