//! A repository: made, opened, asked. The doors to backups and logs.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use holdfast_format::ids::{BackupId, KeySlotId, RepoId, SegmentId, ServerId};
use holdfast_format::keyring::KEPT;
use holdfast_format::limits::DEPTH_MAX;
use holdfast_format::log::LogOpening;
use holdfast_format::names::{LOGS, MANIFEST_LOCK, MANIFESTS, PACKS, SEGMENTS, SESSIONS};
use holdfast_format::record::{BackupRecord, Record, RepoCreated, Stamped, StreamKey};
use holdfast_format::session::SessionKind;
use holdfast_io::{EngineChoice, Lock, LockKind, ObjectName, Objects};

use crate::backup::BackupWriter;
use crate::bases::Bases;
use crate::cipher::Engine;
use crate::clock::Clock;
use crate::error::{Error, Result};
use crate::gc::{Prune, PruneOptions, PrunePlan, PruneReport, SegmentTable, retained};
use crate::keys::{Argon2Cost, Copies, Keys, RecoveryKit, Secret, agree};
use crate::logs::{self, LogFrames, LogSegment, LogWriter};
use crate::manifest::Manifest;
use crate::reader::BackupReader;
use crate::rekey::hold_off;
use crate::segment::FooterCache;
use crate::session::LiveSession;
use crate::slots::{self, KeySlotInfo, Rotated};
use holdfast_format::record::Position;

mod holds;
mod servers;

/// What the reason of a backup begins with that retention forgot.
pub const EXPIRED: &str = "retention: ";

/// Where the heads are.
const HEAD_FOLDER: &str = "head/";

/// Folders of what is acknowledged after the keyring.
pub(crate) const FOLDERS: [&str; 7] =
    [HEAD_FOLDER, MANIFESTS[0], MANIFESTS[1], PACKS, SEGMENTS, LOGS, SESSIONS];

/// How long making a repository waits for another process that makes one.
const CREATE_WAIT: Duration = Duration::from_secs(10);

/// How much of what is written is read back before it is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum VerifyWrite {
    /// Every frame is decrypted and decoded again.
    #[default]
    Full,
    /// One frame of sixteen is.
    Sample,
}

/// How a repository is opened.
#[derive(Debug, Clone)]
pub struct OpenOptions {
    /// Where time comes from.
    pub clock: Arc<dyn Clock>,
    /// Which AES-256-GCM works.
    pub engine: Engine,
    /// How much is read back.
    pub verify_write: VerifyWrite,
    /// Threads that hash and compress for one backup, and that read for one restore.
    pub workers: usize,
    /// Memory that the index of one backup may take, bytes: 100 MiB for a TiB of blocks. Past it, a block that is neither
    /// at its place in the parent nor among those that found room is stored again.
    pub index_bytes_max: u64,
    /// Longest chain of deltas below a block, 0 to 4; 0 stores every block whole.
    pub delta_depth_max: u8,
    /// What reads and writes in bulk.
    pub io: EngineChoice,
    /// Records that are put into one pack, so that a long manifest opens with few reads.
    pub pack_records: u32,
}

impl OpenOptions {
    /// The defaults: AWS-LC, everything read back, two workers, 128 MiB of index, deltas of up to four, and the engine
    /// that a probe finds.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let engine = Engine::default();
        Self {
            clock,
            engine,
            verify_write: VerifyWrite::default(),
            workers: 2,
            index_bytes_max: 128 << 20,
            delta_depth_max: DEPTH_MAX,
            io: EngineChoice::Probe,
            pack_records: 256,
        }
    }
}

/// How a repository is made.
#[derive(Debug, Clone)]
pub struct CreateOptions {
    /// How it is open afterwards.
    pub open: OpenOptions,
    /// What a passphrase costs whoever guesses it.
    pub argon2: Argon2Cost,
    /// The program, as `holdfast 0.1.0`.
    pub program: String,
}

/// What all parts of an open repository share.
#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) objects: Arc<dyn Objects>,
    pub(crate) keys: Arc<Keys>,
    pub(crate) manifest: Manifest,
    pub(crate) options: OpenOptions,
    pub(crate) cache: FooterCache,
    pub(crate) bases: Bases,
    /// Records that were looked through for what compaction moved.
    learned: Mutex<usize>,
    /// First frames of log segments that were read: no writer ever changes one.
    pub(crate) openings: Mutex<HashMap<SegmentId, LogOpening>>,
    /// Keeps re-encryptions away, or is one's own.
    _alone: Option<Lock>,
}

impl Inner {
    /// Sets features that writers must know, before what needs them is written.
    pub(crate) fn need(&self, features: u32) -> Result<()> {
        slots::need(self.objects.as_ref(), &self.keys, features)
    }

    /// Whether something is kept by a record that needs [`KEPT`], though no keyring says so: a Holdfast from before the feature
    /// wrote it.
    pub(crate) fn keeps_unsaid(&self) -> bool {
        !self.keys.has_features(KEPT) && self.manifest.records().iter().any(|stamped| stamped.record.keeps())
    }

    /// An error where something is kept that this program does not know to keep: a newer one may have come since this one
    /// opened the repository. Asked before anything is taken away.
    pub(crate) fn refuse_unknown_features(&self) -> Result<()> {
        slots::refuse_unknown_features(self.objects.as_ref(), &self.keys)
    }

    /// Reads what other processes appended, and learns what compaction moved.
    pub(crate) fn refresh(&self) -> Result<()> {
        self.manifest.refresh()?;
        self.learn_carriers();
        Ok(())
    }

    /// Looks at the records that came since the last time; most of them move nothing.
    pub(crate) fn learn_carriers(&self) {
        // Held to the end: what another thread learned later is not to be replaced by less.
        let mut known = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let news = self.manifest.records_from(*known);
        if !news.iter().any(|s| matches!(s.record, Record::SegmentsCarried { .. })) {
            *known = known.saturating_add(news.len());
            return;
        }
        let records = self.manifest.records();
        let table = SegmentTable::of(&records);
        let carriers = table.carriers.iter().map(|(birth, (carrier, _))| (*birth, *carrier));
        self.cache.set_carriers(carriers.collect());
        *known = records.len();
    }

    pub(crate) fn begin_session(
        &self,
        kind: SessionKind,
        roots: Vec<holdfast_format::ids::Address>,
    ) -> Result<LiveSession> {
        self.refresh()?;
        let epoch = self.manifest.next_number();
        let session = LiveSession::begin(&self.objects, &self.keys, kind, epoch, roots)?;
        // What was condemned before anybody could see this session is known now.
        self.refresh()?;
        Ok(session)
    }

    /// Backups that were committed and not forgotten, oldest first.
    pub(crate) fn backups(&self) -> Vec<BackupRecord> {
        self.backups_that(|_| true)
    }

    /// Those of them that are wanted: one backup's record may be long.
    fn backups_that(&self, wanted: impl Fn(&BackupRecord) -> bool) -> Vec<BackupRecord> {
        let records = self.manifest.records();
        let forgotten: HashSet<BackupId> = records
            .iter()
            .filter_map(|s| {
                if let Record::BackupForgotten { backup, .. } = &s.record { Some(*backup) } else { None }
            })
            .collect();
        let committed = records
            .iter()
            .filter_map(|s| if let Record::BackupCommitted(b) = &s.record { Some(b) } else { None });
        committed.filter(|b| wanted(b) && !forgotten.contains(&b.id)).cloned().collect()
    }

    /// A backup that was committed, forgotten since or not.
    pub(crate) fn committed(&self, id: BackupId) -> Result<BackupRecord> {
        let records = self.manifest.records();
        let found = records.iter().find_map(|stamped| match &stamped.record {
            Record::BackupCommitted(backup) if backup.id == id => Some(backup.clone()),
            _ => None,
        });
        found.ok_or(Error::NoBackup { id })
    }

    pub(crate) fn backup(&self, id: BackupId) -> Result<BackupRecord> {
        self.backups_that(|b| b.id == id).pop().ok_or(Error::NoBackup { id })
    }

    /// Segments that nothing new may refer to: condemned or gone.
    pub(crate) fn condemned(&self) -> HashSet<SegmentId> {
        SegmentTable::of(&self.manifest.records()).forbidden()
    }
}

/// An open repository. Clones share everything; all calls may come from any thread.
#[derive(Debug, Clone)]
pub struct Repository {
    pub(crate) inner: Arc<Inner>,
}

impl Repository {
    /// Makes a repository in a place that has none, and gives the kit that recovers it. The place is as
    /// [`place_for_new`](crate::place_for_new) gives it, where it is a folder.
    pub fn create(
        objects: Arc<dyn Objects>,
        options: CreateOptions,
        secret: &Secret,
    ) -> Result<(Self, RecoveryKit)> {
        // Two processes may not make one at once.
        let lock_name = ObjectName::new(MANIFEST_LOCK)?;
        let lock = objects.lock(&lock_name, LockKind::Exclusive, CREATE_WAIT)?;
        let open = hold_off(objects.as_ref())?;
        // Keyrings alone are what a `create` that died left: nothing was ever sealed with those keys.
        for folder in MANIFESTS.into_iter().chain([HEAD_FOLDER, SEGMENTS, LOGS]) {
            if !objects.list(folder)?.is_empty() {
                return Err(Error::AlreadyARepository);
            }
        }
        let now_us = options.open.clock.now_us();
        let keys = Keys::create(objects.as_ref(), options.open.engine, secret, options.argon2, now_us)?;
        // Their names are durable before anything is acknowledged: a folder that is made later may be found by others after its
        // sync failed, and then no sync need ever write its name.
        objects.prepare(&FOLDERS)?;
        let keys = Arc::new(keys);
        let manifest = Manifest::empty(Arc::clone(&objects), Arc::clone(&keys), options.open.pack_records);
        let created = RepoCreated { repo: keys.repo, program: options.program };
        manifest.append_locked(Record::RepoCreated(created), now_us, &lock)?;
        drop(lock);
        let kit = keys.kit();
        Ok((Self::assemble(objects, keys, manifest, options.open, open), kit))
    }

    /// Opens a repository. A damaged manifest opens it for reading only: see [`Repository::damage`].
    pub fn open(objects: Arc<dyn Objects>, secret: &Secret, options: OpenOptions) -> Result<Self> {
        let keys = Keys::open(objects.as_ref(), options.engine, secret)?;
        let open = hold_off(objects.as_ref())?;
        // A re-encryption that ended in between took the keys away that were read first.
        let keys = if slots::changed(objects.as_ref(), &keys)? {
            Keys::open(objects.as_ref(), options.engine, secret)?
        } else {
            keys
        };
        if keys.unsettled() {
            // Where this can't be done, as in a place that nobody may write to, everything can be read, and nothing sealed.
            let _ = agree(objects.as_ref(), &keys);
        }
        let keys = Arc::new(keys);
        let manifest = Manifest::load(Arc::clone(&objects), Arc::clone(&keys), options.pack_records)?;
        if manifest.next_number() == 0 && manifest.damage().is_none() {
            // `create` died between the keys and the first record: nothing was ever acknowledged here.
            return Err(Error::NotARepository);
        }
        Ok(Self::assemble(objects, keys, manifest, options, open))
    }

    pub(crate) fn assemble(
        objects: Arc<dyn Objects>,
        keys: Arc<Keys>,
        manifest: Manifest,
        options: OpenOptions,
        alone: Option<Lock>,
    ) -> Self {
        let cache = FooterCache::new(Arc::clone(&objects), Arc::clone(&keys));
        let inner = Inner {
            objects,
            keys,
            manifest,
            options,
            cache,
            bases: Bases::default(),
            learned: Mutex::default(),
            openings: Mutex::default(),
            _alone: alone,
        };
        inner.learn_carriers();
        Self { inner: Arc::new(inner) }
    }

    /// Its id.
    #[must_use]
    pub fn id(&self) -> RepoId {
        self.inner.keys.repo
    }

    /// The text that opens it without a passphrase, with the keys as they are now. [`Error::OldKeys`] if this process came in
    /// by keys that were replaced since: a kit of them would open nothing that is newer.
    pub fn recovery_kit(&self) -> Result<RecoveryKit> {
        if self.inner.manifest.is_key_lacking() {
            return Err(Error::OldKeys);
        }
        self.inner.keys.kit_now(self.inner.objects.as_ref())
    }

    /// The ways in, as the keyring lists them now.
    pub fn key_slots(&self) -> Result<Vec<KeySlotInfo>> {
        slots::list(self.inner.objects.as_ref(), &self.inner.keys)
    }

    /// Adds a way in by a passphrase or a key file.
    pub fn add_key(&self, secret: &Secret, label: &str, cost: Argon2Cost) -> Result<KeySlotInfo> {
        let now_us = self.inner.options.clock.now_us();
        let slot = slots::add(self.inner.objects.as_ref(), &self.inner.keys, secret, label, cost, now_us)?;
        self.note_keys(format!("added slot {} '{}'", slot.id, slot.label))?;
        Ok(slot)
    }

    /// Removes a way in. Whoever has an old copy of the keyring and what opened that slot comes in as before, until
    /// [`Repository::rotate_keys`].
    pub fn remove_key(&self, id: KeySlotId) -> Result<KeySlotInfo> {
        let slot = slots::remove(self.inner.objects.as_ref(), &self.inner.keys, id)?;
        self.note_keys(format!("removed slot {} '{}'", slot.id, slot.label))?;
        Ok(slot)
    }

    /// Makes new keys for everything that is written from here on. Slots that one of `secrets` opens stay; the others,
    /// and kits of before, open nothing that is newer. This value has the old keys: open the repository again.
    pub fn rotate_keys(&self, secrets: &[Secret]) -> Result<Rotated> {
        let rotated = slots::rotate(self.inner.objects.as_ref(), &self.inner.keys, secrets)?;
        self.note_keys(format!("rotated to generation {}", rotated.generation))?;
        Ok(rotated)
    }

    fn note_keys(&self, what: String) -> Result<()> {
        self.append(Record::KeysChanged { what }).map(|_| ())
    }

    /// What is wrong with the manifest, if anything; nothing can be written then.
    #[must_use]
    pub fn damage(&self) -> Option<String> {
        self.inner.manifest.damage()
    }

    /// Copies of keyring, heads and records that could not be read, and why: another copy of each served. They are looked at
    /// again here, and what was written anew since is none of them any more. [`Repository::scrub`] writes them anew, and so
    /// does `holdfast-fsck --repair`.
    #[must_use]
    pub fn bad_copies(&self) -> Vec<(String, String)> {
        let mut keyrings = Vec::new();
        if !self.inner.keys.bad_copies.is_empty() {
            keyrings = Copies::read(self.inner.objects.as_ref()).bad();
        }
        keyrings.extend(self.inner.manifest.bad_copies());
        keyrings
    }

    /// Takes in what other processes appended since.
    pub fn refresh(&self) -> Result<()> {
        self.inner.refresh()
    }

    /// All records, oldest first, as of the last append, [`Repository::refresh`] or opening.
    #[must_use]
    pub fn records(&self) -> Vec<Arc<Stamped>> {
        self.inner.manifest.records()
    }

    /// All records but the first `known` ones. Records are only ever added, so whoever keeps what he has learned of them
    /// need not read them again.
    #[must_use]
    pub fn records_from(&self, known: usize) -> Vec<Arc<Stamped>> {
        self.inner.manifest.records_from(known)
    }

    /// Appends a record; durable when this returns.
    pub fn append(&self, record: Record) -> Result<Stamped> {
        let stamped = self.inner.manifest.append(record, self.inner.options.clock.now_us())?;
        self.inner.learn_carriers();
        Ok(stamped)
    }

    /// Backups that were committed and not forgotten, oldest first.
    #[must_use]
    pub fn backups(&self) -> Vec<BackupRecord> {
        self.inner.backups()
    }

    /// Those of one server.
    #[must_use]
    pub fn backups_of(&self, server: ServerId) -> Vec<BackupRecord> {
        self.inner.backups_that(|backup| backup.server == server)
    }

    /// One backup.
    pub fn backup(&self, id: BackupId) -> Result<BackupRecord> {
        self.inner.backup(id)
    }

    /// Says that a backup is not wanted any more; its blocks stay until a prune. [`Error::Locked`] while a retention lock
    /// holds, [`Error::Held`] while it is held, [`Error::ServerLocked`] while its server is locked.
    pub fn forget(&self, id: BackupId, reason: &str) -> Result<Stamped> {
        self.forget_if(id, reason, |_| false)
    }

    /// The same of a backup that retention needs no more, by the terms of its server's lock, too, if it has one. The
    /// reason is kept behind [`EXPIRED`].
    pub fn forget_expired(&self, id: BackupId, reason: &str) -> Result<Stamped> {
        self.forget_if(id, &format!("{EXPIRED}{reason}"), |terms| !terms.is_empty())
    }

    fn forget_if(&self, id: BackupId, reason: &str, allowed: impl FnOnce(&str) -> bool) -> Result<Stamped> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        // Behind the lock: who keeps something in a new way says so in the keyring before he writes the record.
        self.inner.refuse_unknown_features()?;
        let backup = self.inner.backup(id)?;
        let now_us = self.inner.options.clock.now_us();
        // What stands longest is told first: a hold has no end of its own.
        if self.is_held(id) {
            return Err(Error::Held { id });
        }
        if let Some(until_us) = self.locked_until(id).filter(|until| *until > now_us) {
            return Err(Error::Locked { id, until_us });
        }
        if let Some(terms) = self.server_locks().get(&backup.server).and_then(|l| l.terms.as_deref())
            && !allowed(terms)
        {
            return Err(Error::ServerLocked { server: backup.server });
        }
        let record = Record::BackupForgotten { backup: backup.id, reason: reason.to_owned() };
        self.inner.manifest.append_locked(record, now_us, &lock)
    }

    /// Keeps a backup from being forgotten before a time, microseconds since the Unix epoch. A lock can be extended,
    /// never shortened.
    pub fn lock_backup(&self, id: BackupId, until_us: i64) -> Result<()> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        let backup = self.inner.backup(id)?;
        if self.locked_until(id).is_some_and(|until| until >= until_us) {
            return Ok(());
        }
        let record = Record::BackupLocked { backup: backup.id, until_us };
        self.inner.manifest.append_locked(record, self.inner.options.clock.now_us(), &lock)?;
        Ok(())
    }

    /// Until when a backup is locked, microseconds since the Unix epoch, as of the last append, refresh or opening.
    #[must_use]
    pub fn locked_until(&self, id: BackupId) -> Option<i64> {
        let records = self.inner.manifest.records();
        let locks = records.iter().filter_map(|s| match &s.record {
            Record::BackupLocked { backup, until_us } if *backup == id => Some(*until_us),
            _ => None,
        });
        locks.max()
    }

    /// Backups whose blocks a prune with this grace (microseconds) keeps: those that are wanted, were forgotten lately,
    /// are locked, or are being read.
    pub fn retained(&self, grace_us: i64) -> Result<Vec<BackupRecord>> {
        retained(&self.inner, grace_us)
    }

    /// What a prune would do; nothing is changed. [`Error::PruneBusy`] while another one works.
    pub fn plan_prune(&self, options: &PruneOptions) -> Result<PrunePlan> {
        Prune::begin(&self.inner, options)?.plan()
    }

    /// Removes what nobody needs and compacts what is half empty. Backups, restores and archives may run meanwhile.
    /// `progress` is told bytes copied, and bytes to copy. [`Error::PruneBusy`] while another prune works.
    pub fn prune(&self, options: &PruneOptions, progress: &dyn Fn(u64, u64)) -> Result<PruneReport> {
        self.prune_while(options, &|done, total| {
            progress(done, total);
            true
        })
    }

    /// As [`Repository::prune`], but no further segment is compacted once `go_on` says false: what is condemned by then waits
    /// for the next prune.
    pub fn prune_while(
        &self,
        options: &PruneOptions,
        go_on: &dyn Fn(u64, u64) -> bool,
    ) -> Result<PruneReport> {
        Prune::begin(&self.inner, options)?.run(go_on)
    }

    /// Begins a backup; blocks are first compared with those of `parent` at the same place.
    pub fn begin_backup(&self, parent: Option<BackupId>) -> Result<BackupWriter> {
        self.begin_backup_verified(parent, self.inner.options.verify_write)
    }

    /// As [`Repository::begin_backup`], with another amount of reading back than the repository was opened with.
    pub fn begin_backup_verified(
        &self,
        parent: Option<BackupId>,
        verify: VerifyWrite,
    ) -> Result<BackupWriter> {
        BackupWriter::begin(&self.inner, parent, verify)
    }

    /// Opens a backup for reading.
    pub fn open_backup(&self, id: BackupId) -> Result<BackupReader> {
        BackupReader::open(&self.inner, id)
    }

    /// Begins the next segment of a stream of log. Only one writer of a stream lives at a time
    /// ([`Error::StreamBusy`]). Segments that died writers left behind get their footers first.
    pub fn begin_log(&self, stream: StreamKey, start: Position) -> Result<LogWriter> {
        LogWriter::begin(&self.inner, stream, start)
    }

    /// The segments of a stream in order: sealed ones, then those that are being written or were left behind.
    pub fn logs(&self, stream: StreamKey) -> Result<Vec<LogSegment>> {
        self.inner.refresh()?;
        logs::list(&self.inner, Some(stream))
    }

    /// The streams that have segments.
    pub fn streams(&self) -> Result<Vec<StreamKey>> {
        self.inner.refresh()?;
        let mut streams: Vec<StreamKey> =
            logs::list(&self.inner, None)?.into_iter().map(|s| s.opening.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        Ok(streams)
    }

    /// Takes the place of the one process that follows a server's log, for as long as the lock lives.
    /// [`Error::StreamBusy`] while another process has it.
    pub fn follow_log(&self, server: ServerId) -> Result<Lock> {
        // Somebody who only looks holds it for a moment, too.
        const LOOK_MAX: Duration = Duration::from_secs(2);
        logs::lock_follower(&self.inner, server, LOOK_MAX)
    }

    /// Whether a live process follows a server's log now.
    pub fn log_is_followed(&self, server: ServerId) -> Result<bool> {
        match logs::lock_follower(&self.inner, server, Duration::ZERO) {
            Ok(_free) => Ok(false),
            Err(Error::StreamBusy) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Reads the frames of a log segment from a slot on. Another process may be appending: the end is then where the
    /// durable or visible frames end at the moment.
    pub fn read_log(&self, segment: &LogSegment, from_slot: u32) -> Result<LogFrames> {
        LogFrames::open(&self.inner, segment, from_slot)
    }
}
