//! The scrub: every byte of every sealed segment read again at a bounded rate, and healed from parity where it rotted;
//! before that, every copy of keyring, heads and records, and what is damaged written anew from another copy.
//!
//! It runs beside everything else, a stretch at a time: each run goes on where the one before it
//! stopped, in the order of ids, and each heal and each stop is a record of the manifest. What parity
//! cannot bring back is named, and left for `holdfast-fsck`, which knows what depends on it. Logs have
//! no parity; their frames are opened.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use holdfast_format::ids::SegmentId;
use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::names::{LOGS, PRUNE_LOCK, SEGMENTS};
use holdfast_format::record::{HealedRecord, Healing, MendedRecord, Record, ScrubRecord};
use holdfast_format::segment::{PAGE_BYTES, Trailer};
use holdfast_format::session::SessionKind;
use holdfast_io::{LockKind, ObjectName};

use crate::error::{Error, Result};
use crate::gc::holders;
use crate::keys::agree;
use crate::logs::{LogFrames, LogSegment, LogState};
use crate::manifest::Tended;
use crate::parity::{self, Healed};
use crate::renew::refusal;
use crate::repository::{Inner, Repository};

/// Bytes read between two looks at rate and stop: a disk is never busy for longer with what can wait.
const PIECE_BYTES: u64 = 1024 * 1024;
/// How often a long run says in the manifest how far it is: what a killed one reads again at most.
const RECORD_EVERY: Duration = Duration::from_secs(15 * 60);
/// How long a heal waits for garbage collection or a repair to end.
const PRUNE_WAIT: Duration = Duration::from_secs(60);
/// Deeds in one record: it stays far below its limit.
const DEEDS_A_RECORD: usize = 1000;
/// Longest nap, so that a wish to stop is heard.
const NAP: Duration = Duration::from_millis(100);

/// How a scrub runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ScrubOptions {
    /// Bytes read a second at most.
    pub bytes_per_second: Option<u64>,
    /// Stop after this time, or at the end of the round.
    pub time_max: Option<Duration>,
}

/// How far a scrub is, for whoever watches; its answer says whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScrubProgress {
    /// Bytes read in this run.
    pub bytes: u64,
    /// Bytes of all segments that are left in this round, as of its beginning in this run.
    pub total: u64,
}

/// What one run of a scrub did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScrubSummary {
    /// Segments looked at in this run.
    pub segments: u64,
    /// Bytes read in this run.
    pub bytes: u64,
    /// What was healed in this run.
    pub healed: Vec<Healing>,
    /// Copies of keyring, heads, records and packs that were missing or damaged, and that were written anew in this run.
    pub renewed: Vec<String>,
    /// Small objects that are damaged and could not be written anew, and why.
    pub left: Vec<(String, String)>,
    /// Segments found in this round, this run included, with more damage than parity brings back.
    pub lost: Vec<SegmentId>,
    /// True if the round is over: every segment was looked at since [`ScrubSummary::round_us`].
    pub round_over: bool,
    /// When the round began, microseconds since the Unix epoch.
    pub round_us: i64,
}

/// A segment's object.
struct Target {
    id: SegmentId,
    name: ObjectName,
    log: bool,
}

impl Repository {
    /// Scrubs from where the last run stopped. `watch` is called often; false ends the run.
    pub fn scrub(
        &self,
        options: ScrubOptions,
        watch: &dyn Fn(ScrubProgress) -> bool,
    ) -> Result<ScrubSummary> {
        let inner = &*self.inner;
        // Garbage collection does not delete what a session may be reading.
        let _session = inner.begin_session(SessionKind::Read, Vec::new())?;
        if let Some(why) = inner.manifest.damage() {
            return Err(Error::ReadOnly { why });
        }
        let mut run = Run::begin(inner, options, watch)?;
        run.all()?;
        Ok(run.summary)
    }
}

struct Run<'a> {
    inner: &'a Inner,
    options: ScrubOptions,
    watch: &'a dyn Fn(ScrubProgress) -> bool,
    round: ScrubRecord,
    summary: ScrubSummary,
    total: u64,
    began: Instant,
    recorded: Instant,
    /// What maps reach; asked for only when something cannot be read.
    reached: Option<Option<HashSet<SegmentId>>>,
}

impl<'a> Run<'a> {
    fn begin(
        inner: &'a Inner,
        options: ScrubOptions,
        watch: &'a dyn Fn(ScrubProgress) -> bool,
    ) -> Result<Self> {
        let now_us = inner.options.clock.now_us();
        let records = inner.manifest.records();
        let last = records.iter().rev().find_map(|s| match &s.record {
            Record::Scrubbed(record) => Some(record.clone()),
            _ => None,
        });
        let fresh = ScrubRecord { round_us: now_us, after: None, segments: 0, bytes: 0, lost: Vec::new() };
        let round = last.filter(|last| last.after.is_some()).unwrap_or(fresh);
        let (began, recorded) = (Instant::now(), Instant::now());
        let summary = ScrubSummary { round_us: round.round_us, ..ScrubSummary::default() };
        Ok(Self { inner, options, watch, round, summary, total: 0, began, recorded, reached: None })
    }

    fn all(&mut self) -> Result<()> {
        if !self.copies()? {
            return Ok(());
        }
        let targets = self.targets()?;
        let mut finished = true;
        for target in &targets {
            if !self.goes_on() || !self.one(target)? {
                finished = false;
                break;
            }
            self.round.after = Some(target.id);
            self.round.segments += 1;
            self.summary.segments += 1;
            if self.recorded.elapsed() >= RECORD_EVERY {
                self.record()?;
            }
        }
        if finished {
            self.round.after = None;
            self.summary.round_over = true;
        }
        self.summary.lost = self.round.lost.clone();
        // A run that looked at nothing has nothing to tell.
        if self.summary.segments > 0 || finished { self.record() } else { Ok(()) }
    }

    /// The small objects, of which there are copies; what was written anew is told, even if an error ended it. False if the
    /// run ends meanwhile.
    fn copies(&mut self) -> Result<bool> {
        let looked = self.look_at_copies();
        let renewed = self.summary.renewed.iter();
        let what: Vec<String> =
            renewed.map(|name| format!("{name}: written anew from another copy")).collect();
        let mut told = Ok(());
        for what in what.chunks(DEEDS_A_RECORD) {
            let record = MendedRecord { by: "scrub".to_owned(), what: what.to_vec() };
            let appended =
                self.inner.manifest.append(Record::Mended(record), self.inner.options.clock.now_us());
            told = told.and(appended.map(drop));
        }
        looked.and_then(|whole| told.map(|()| whole))
    }

    /// At the begin of each round, and whenever one is known to be damaged that was not seen so before. They are looked at
    /// whole or not at all.
    fn look_at_copies(&mut self) -> Result<bool> {
        let inner = self.inner;
        match agree(inner.objects.as_ref(), &inner.keys) {
            Ok(agreed) => {
                self.summary.renewed.extend(agreed.renewed.into_iter().map(str::to_owned));
                self.summary.left.extend(agreed.left.into_iter().map(|(name, why)| (name.to_owned(), why)));
            }
            // What nobody here can open nobody here can judge.
            Err(e @ (Error::KeysRotated | Error::NotARepository)) => {
                self.summary.left.push(("keyring".to_owned(), e.to_string()));
            }
            Err(e) if e.is_damage() => self.summary.left.push(("keyring".to_owned(), e.to_string())),
            Err(Error::Io(e)) => self.summary.left.push(("keyring".to_owned(), refusal(e)?)),
            Err(e) => return Err(e),
        }
        if self.round.after.is_some() && !inner.manifest.has_new_bad_copies() {
            return Ok(true);
        }
        let mut tended = Tended::default();
        // They are small, and a run that is too short for all of them must get to the segments all the same: it ends only if
        // it is told to.
        let looked = inner.manifest.tend(&mut tended, &mut |bytes| {
            self.summary.bytes += bytes;
            self.keep_rate_while(&|| self.is_wanted())
        });
        self.summary.bytes += tended.bytes;
        self.summary.renewed.extend(tended.renewed);
        self.summary.left.extend(tended.left);
        looked
    }

    fn record(&mut self) -> Result<()> {
        self.recorded = Instant::now();
        let record = Record::Scrubbed(self.round.clone());
        self.inner.manifest.append(record, self.inner.options.clock.now_us())?;
        Ok(())
    }

    /// The segments that this round has not looked at yet, in the order of ids.
    fn targets(&mut self) -> Result<Vec<Target>> {
        let mut targets = Vec::new();
        for (folder, log) in [(SEGMENTS, false), (LOGS, true)] {
            for name in self.inner.objects.list(folder)? {
                let id = name.as_str().strip_prefix(folder).and_then(|id| id.parse::<SegmentId>().ok());
                let Some(id) = id.filter(|id| self.round.after.is_none_or(|after| *id > after)) else {
                    continue;
                };
                self.total += self.inner.objects.len(&name).unwrap_or(0);
                targets.push(Target { id, name, log });
            }
        }
        targets.sort_by_key(|t| t.id);
        Ok(targets)
    }

    fn in_time(&self) -> bool {
        self.options.time_max.is_none_or(|most| self.began.elapsed() < most)
    }

    fn is_wanted(&self) -> bool {
        (self.watch)(ScrubProgress { bytes: self.summary.bytes, total: self.total })
    }

    fn goes_on(&self) -> bool {
        self.in_time() && self.is_wanted()
    }

    /// Waits until what was read fits the rate. False if the run ends meanwhile.
    fn keep_rate(&self) -> bool {
        self.keep_rate_while(&|| self.goes_on())
    }

    fn keep_rate_while(&self, goes_on: &dyn Fn() -> bool) -> bool {
        let Some(rate) = self.options.bytes_per_second.filter(|rate| *rate > 0) else {
            return goes_on();
        };
        let due_ms = self.summary.bytes.saturating_mul(1000) / rate;
        let due = Duration::from_millis(due_ms);
        loop {
            if !goes_on() {
                return false;
            }
            match due.checked_sub(self.began.elapsed()).filter(|left| !left.is_zero()) {
                Some(left) => std::thread::sleep(left.min(NAP)),
                None => return true,
            }
        }
    }

    /// Looks at one segment. False if the run ends before it was seen whole.
    fn one(&mut self, target: &Target) -> Result<bool> {
        if target.log {
            return self.log(target);
        }
        let Some(bytes) = self.read(target)? else { return Ok(false) };
        match parity::heal(self.inner.keys.repo, target.id, &bytes)? {
            Healed::Intact => {}
            Healed::Repaired { bytes, bad_pages } => self.heal(target, &bytes, bad_pages)?,
            Healed::Lost { .. } => self.lost(target.id),
            Healed::NoParity => {
                // It is being written, or its writer died, unless a backup needs it.
                let needed = self.reached().as_ref().is_some_and(|reached| reached.contains(&target.id));
                let trailer = bytes.last_chunk::<PAGE_BYTES>().and_then(|page| Trailer::decode(page).ok());
                let without = trailer.is_some_and(|trailer| trailer.parity.is_none());
                if needed && !without {
                    self.lost(target.id);
                }
            }
        }
        Ok(true)
    }

    fn lost(&mut self, id: SegmentId) {
        if !self.round.lost.contains(&id) {
            self.round.lost.push(id);
        }
    }

    /// All bytes, a piece at a time; pages that the disk refuses are zeros, for parity to fill. `None` if the run ends
    /// meanwhile; nothing if the segment was removed.
    fn read(&mut self, target: &Target) -> Result<Option<Vec<u8>>> {
        let objects = &self.inner.objects;
        let len = match objects.len(&target.name) {
            Ok(len) => len.min(2 * SEGMENT_BYTES_MAX),
            Err(e) if e.is_not_found() => return Ok(Some(Vec::new())),
            Err(e) => return Err(e.into()),
        };
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        for (at, piece) in bytes.chunks_mut(usize::try_from(PIECE_BYTES).unwrap_or(1)).enumerate() {
            match objects.read_into(&target.name, at as u64 * PIECE_BYTES, piece) {
                Ok(()) => {}
                Err(e) if e.is_not_found() => return Ok(Some(Vec::new())),
                // One bad sector must not take the piece with it: parity brings a few pages back, not a MiB.
                Err(holdfast_io::Error::Io { .. }) => {
                    for (nth, page) in piece.chunks_mut(PAGE_BYTES).enumerate() {
                        let offset = at as u64 * PIECE_BYTES + (nth * PAGE_BYTES) as u64;
                        if objects.read_into(&target.name, offset, page).is_err() {
                            page.fill(0);
                        }
                    }
                }
                Err(e) => return Err(e.into()),
            }
            self.summary.bytes += piece.len() as u64;
            self.round.bytes += piece.len() as u64;
            if !self.keep_rate() {
                return Ok(None);
            }
        }
        Ok(Some(bytes))
    }

    /// Puts the healed bytes in place of the rotten ones. Garbage collection must not delete the segment in between: it
    /// would come back to life.
    fn heal(&mut self, target: &Target, bytes: &[u8], pages: u32) -> Result<()> {
        let objects = &self.inner.objects;
        let _no_prune = objects.lock(&ObjectName::new(PRUNE_LOCK)?, LockKind::Exclusive, PRUNE_WAIT)?;
        if !objects.exists(&target.name)? {
            return Ok(());
        }
        objects.replace(&target.name, bytes)?;
        let healing = Healing { segment: target.id, pages };
        let record = HealedRecord { by: "scrub".to_owned(), segments: vec![healing] };
        self.inner.manifest.append(Record::Healed(record), self.inner.options.clock.now_us())?;
        self.summary.healed.push(healing);
        Ok(())
    }

    /// A log has no parity: each frame is opened and compared with its checksums. What is not sealed belongs to its
    /// writer.
    fn log(&mut self, target: &Target) -> Result<bool> {
        let records = self.inner.manifest.records();
        let sealed = records.iter().find_map(|s| match &s.record {
            Record::LogSealed(record) if record.segment == target.id => Some(record.clone()),
            _ => None,
        });
        let Some(record) = sealed else { return Ok(true) };
        let opening = crate::logs::opening_of(&record);
        let state = LogState::Sealed(Box::new(record));
        let segment = LogSegment { segment: target.id, opening, state };
        let frames = LogFrames::open(self.inner, &segment, 0);
        let mut frames = match frames {
            Ok(frames) => frames,
            Err(e) if e.is_damage() => {
                self.lost(target.id);
                return Ok(true);
            }
            Err(e) => return Err(e),
        };
        for frame in &mut frames {
            match frame {
                Ok(frame) => {
                    let bytes = frame.plain.len() as u64;
                    self.summary.bytes += bytes;
                    self.round.bytes += bytes;
                }
                Err(e) if e.is_damage() => {
                    self.lost(target.id);
                    return Ok(true);
                }
                Err(e) => return Err(e),
            }
            if !self.keep_rate() {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// The objects that hold what the backups need; nothing if that cannot be said.
    fn reached(&mut self) -> &Option<HashSet<SegmentId>> {
        let inner = self.inner;
        self.reached.get_or_insert_with(|| holders(inner, inner.backups().iter().map(|b| b.map)).ok())
    }
}
