//! The check of a whole repository, from the keyring to the last block.
//!
//! ```text
//! keyring -> heads, records -> sessions -> headers and footers -> every frame -> maps -> logs -> what is left over
//! ```
//!
//! Everything reached is read, or in a check of the structure a sample of it; everything read is
//! compared with something that was written apart from it. Segments are checked by as many workers
//! as there are cores (fewer where the system refuses threads), each with a MiB of its segment in memory. While it works, a session holds
//! garbage collection off what the manifest names.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use holdfast_format::ids::{BackupId, SegmentId, ServerId};
use holdfast_format::keyring::KEPT;
use holdfast_format::log::LogOpening;
use holdfast_format::names::{self, FOOT_SUFFIX, LOGS, MANIFESTS, SEGMENTS, SESSIONS};
use holdfast_format::record::{BackupRecord, Record, StreamKey};
use holdfast_format::segment::{FooterEntry, PAGE_BYTES, SegmentKind};
use holdfast_format::session::Session;
use holdfast_io::{Lock, LockKind, ObjectName, Objects};

use crate::error::{Error, Result};
use crate::findings::{Findings, Mend};
use crate::frames::{Checker, Outcome};
use crate::hold::Hold;
use crate::index::Index;
use crate::keep::kept;
use crate::lanes::Lanes;
use crate::logs::Logs;
use crate::manifest::{self, Manifest};
use crate::maps::Maps;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::report::Report;
use crate::segment::{End, SECTOR_BYTES, Segment, Source, Wrong, damaged_end, header_was_durable, id_of};
use crate::unlock::{Keys, Secret, hold_off_rekey, unlock};
use crate::windows::Windows;

/// Version of the report's shape.
const SCHEMA: u32 = 1;
/// Longest object of a session that is read: 1,024 roots of 20 bytes and a little.
const SESSION_BYTES_MAX: u64 = 64 * 1024;
/// Footers held at once while the index is built: 64 KiB each as a rule, 21 MiB at most, so hundreds of thousands of
/// segments are not in memory together.
const FOOTERS_AT_ONCE: usize = 16;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Keyring, manifest, every header and footer, every map and that each of its blocks is there; of the blocks and
    /// of the logs one frame in 32.
    #[default]
    Sample,
    /// Every byte.
    Full,
}

/// What a check is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// How much is read.
    pub scope: Scope,
    /// Chooses the sample; another one each time, so that in the end everything was read.
    pub seed: u64,
}

/// Checks a repository. An error means that nothing could be checked; what is wrong inside is in the report.
pub fn check(
    objects: &dyn Objects,
    secret: &Secret,
    options: Options,
    progress: &Progress,
) -> Result<Report> {
    checked(objects, secret, options, progress).map(|checked| checked.report)
}

/// A check's report, and what else a repair needs.
pub(crate) struct Checked<'a> {
    pub report: Report,
    pub keys: Keys,
    pub manifest: Manifest,
    pub menders: Vec<Mend>,
    /// Garbage collection is held off as long as this lives.
    pub hold: Option<Hold<'a>>,
    /// So is a re-encryption.
    _rekey: Option<Lock>,
}

pub(crate) fn checked<'a>(
    objects: &'a dyn Objects,
    secret: &Secret,
    options: Options,
    progress: &Progress,
) -> Result<Checked<'a>> {
    let start = Instant::now();
    let found = Findings::default();
    progress.begin("keyring", 0);
    let (keys, keyrings) = unlock(objects, secret, &found)?;
    let rekey = hold_off_rekey(objects, &keys)?;
    progress.begin("manifest", 0);
    // Sessions are listed first: what a session that ends meanwhile committed is then in the manifest.
    let sessions = sessions(objects, &keys, &found)?;
    let (hold, manifest) = hold(objects, &keys, &found)?;
    let mut report = Report {
        schema: SCHEMA,
        repository: keys.repo.to_string(),
        scope: options.scope,
        ..Report::default()
    };
    report.counts.keyrings = keyrings;
    report.counts.heads = manifest.heads;
    report.counts.records = manifest.records.len() as u64;
    report.counts.bytes = manifest.bytes;
    report.counts.sessions = sessions.len() as u64;
    report.counts.sessions_alive = sessions.iter().filter(|s| s.alive).count() as u64;

    if keys.write_features.is_some_and(|features| features & KEPT == 0)
        && manifest.records.iter().any(|stamped| stamped.record.keeps())
    {
        let what = "backups or servers are kept by records that a Holdfast from before does not know, and the keyring does \
                    not keep it from writing: it would forget them; the next backup, hold, release or server lock sees to that";
        found.note("keyring", what.to_owned());
    }
    let known = Known::of(&manifest);
    Run { objects, keys: &keys, found: &found, progress, known: &known, sessions: &sessions, options }
        .all(&mut report)?;
    drop(known);

    let (flaws, more, notes, menders) = found.finish();
    (report.flaws_more, report.notes) = (more, notes);
    flaws.into_iter().for_each(|flaw| report.flaw(flaw));
    report.clean = report.flaw_count() == 0;
    report.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(Checked { report, keys, manifest, menders, hold, _rekey: rekey })
}

/// Reads the manifest and begins a session that names every backup's map. If the manifest grew before anybody could
/// see the session, it is read again: what was condemned in between is known then.
fn hold<'a>(objects: &'a dyn Objects, keys: &Keys, found: &Findings) -> Result<(Option<Hold<'a>>, Manifest)> {
    let first = Findings::default();
    let manifest = manifest::read(objects, keys, &first)?;
    let roots: Vec<_> = Known::of(&manifest).backups.values().map(|b| b.map).collect();
    let next = manifest.records.last().map_or(0, |last| last.number.saturating_add(1));
    let hold = match Hold::begin(objects, keys, next, &roots) {
        Ok(hold) => Some(hold),
        Err(Error::Io(e)) => {
            let what = format!("no session could be begun, so garbage collection is not held off: {e}");
            found.note("sessions", what);
            None
        }
        Err(e) => return Err(e),
    };
    let grew = (0..MANIFESTS.len()).try_fold(false, |grew, copy| {
        Ok::<_, Error>(grew || objects.exists(&ObjectName::new(names::manifest(copy, next))?)?)
    })?;
    if grew {
        return Ok((hold, manifest::read(objects, keys, found)?));
    }
    found.absorb(&first);
    Ok((hold, manifest))
}

/// What the records say is there.
struct Known<'a> {
    servers: HashMap<ServerId, &'a str>,
    backups: BTreeMap<u64, &'a BackupRecord>,
    forgotten: Vec<&'a BackupRecord>,
    manifest: &'a Manifest,
    deleted: HashSet<SegmentId>,
    /// Where the frames of a birth were moved; the last record holds.
    carriers: HashMap<SegmentId, SegmentId>,
    sealed_logs: HashSet<SegmentId>,
}

impl<'a> Known<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let mut known = Self {
            servers: HashMap::new(),
            backups: BTreeMap::new(),
            forgotten: Vec::new(),
            manifest,
            deleted: HashSet::new(),
            carriers: HashMap::new(),
            sealed_logs: HashSet::new(),
        };
        let mut numbers: HashMap<BackupId, u64> = HashMap::new();
        for stamped in &manifest.records {
            match &stamped.record {
                Record::ServerPut(server) => {
                    known.servers.insert(server.id, &server.name);
                }
                Record::BackupCommitted(backup) => {
                    numbers.insert(backup.id, stamped.number);
                    known.backups.insert(stamped.number, backup);
                }
                Record::BackupForgotten { backup, .. } => {
                    if let Some(number) = numbers.get(backup) {
                        known.forgotten.extend(known.backups.remove(number));
                    }
                }
                Record::LogSealed(log) => {
                    known.sealed_logs.insert(log.segment);
                }
                Record::SegmentsDeleted { segments } => known.deleted.extend(segments),
                Record::SegmentsCarried { carrier, births } => {
                    known.carriers.extend(births.iter().map(|birth| (*birth, *carrier)));
                }
                _ => {}
            }
        }
        let Self { sealed_logs, deleted, .. } = &mut known;
        sealed_logs.retain(|log| !deleted.contains(log));
        known
    }

    /// The births whose frames should lie in a segment: itself, and what was moved there.
    fn births_in(&self, segment: SegmentId) -> impl Iterator<Item = SegmentId> {
        let moved = self.carriers.iter().filter(move |(_, to)| **to == segment).map(|(birth, _)| *birth);
        std::iter::once(segment).chain(moved)
    }

    fn server(&self, id: ServerId) -> String {
        self.servers.get(&id).map_or_else(|| format!("server {id}"), |name| (*name).to_owned())
    }

    fn stream(&self, key: &StreamKey) -> String {
        let incarnation =
            if key.incarnation > 0 { format!(", life {}", key.incarnation) } else { String::new() };
        format!("{} ({}{incarnation})", self.server(key.server), key.source_uuid)
    }
}

/// A session's object, and whether its process lives.
struct Seen {
    session: Option<Session>,
    alive: bool,
}

fn sessions(objects: &dyn Objects, keys: &Keys, found: &Findings) -> Result<Vec<Seen>> {
    let mut all = Vec::new();
    for name in objects.list(SESSIONS)? {
        let read = objects.len(&name).and_then(|len| objects.read(&name, 0, len.min(SESSION_BYTES_MAX)));
        // Alive until proved dead: a file system that cannot tell must not make us call live work a leftover.
        let alive = objects.try_lock(&name, LockKind::Shared).map_or(true, |lock| lock.is_none());
        let bytes = match read {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => continue,
            Err(e) => {
                found.flaw(&name, None, e.to_string());
                continue;
            }
        };
        let session = Session::decode(&bytes).map_err(|e| e.to_string()).and_then(|s| {
            let named = name.as_str().strip_prefix(SESSIONS) == Some(s.id.to_string().as_str());
            if s.repo == keys.repo && named { Ok(s) } else { Err("it is another session's".to_owned()) }
        });
        match session {
            Ok(session) => all.push(Seen { session: Some(session), alive }),
            Err(what) => {
                found.flaw(&name, None, what);
                if !alive {
                    found.mend(Mend::Session { name: name.clone() });
                }
                all.push(Seen { session: None, alive });
            }
        }
    }
    Ok(all)
}

/// Where every frame lies, as far as headers and footers can be read: what a repair reads bases by.
pub(crate) fn index_of(objects: &dyn Objects, keys: &Keys, manifest: &Manifest) -> Result<Index> {
    let (found, progress, known) = (Findings::default(), Progress::default(), Known::of(manifest));
    let options = Options::default();
    let run =
        Run { objects, keys, found: &found, progress: &progress, known: &known, sessions: &[], options };
    Ok(run.index(&run.segment_names()?).0)
}

/// Whether a segment, read through these objects, is right in every byte; else the first thing that is wrong.
pub(crate) fn proven(
    objects: &dyn Objects,
    keys: &Keys,
    index: &Index,
    name: &ObjectName,
) -> std::result::Result<(), String> {
    let (segment, entries) = Segment::open(objects, keys, name.clone(), true).map_err(|w| w.what)?;
    let (found, progress) = (Findings::default(), Progress::default());
    let reader = Reader::new(objects, keys, index);
    Checker { objects, reader: &reader, found: &found, progress: &progress, scope: Scope::Full, seed: 0 }
        .check(&segment, &entries, true);
    // A delta whose base has rotted, too, opened with its own key: its bytes are right, and its base is healed by itself.
    let elsewhere = |flaw: &crate::report::Flaw| flaw.what.starts_with("the base ");
    match found.finish().0.into_iter().find(|flaw| !elsewhere(flaw)) {
        None => Ok(()),
        Some(flaw) => Err(flaw.what),
    }
}

/// The part of a check that needs keys and records.
struct Run<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    found: &'a Findings,
    progress: &'a Progress,
    known: &'a Known<'a>,
    sessions: &'a [Seen],
    options: Options,
}

/// An object that should be a segment and cannot be read as one.
struct Unreadable {
    id: SegmentId,
    name: ObjectName,
    wrong: Wrong,
    /// A log's frames may have been acknowledged before any record named it. Without frames, or with a header that
    /// never reached the disk whole, it is what a crash left, and nothing in it was acknowledged.
    log_with_frames: bool,
}

impl Run<'_> {
    fn all(&self, report: &mut Report) -> Result<()> {
        let names = self.segment_names()?;
        report.counts.segments = names.len() as u64;
        self.progress.begin("footers", 0);
        let (index, unreadable) = self.index(&names);

        let reader = Reader::new(self.objects, self.keys, &index);
        let maps = Maps { reader: &reader, found: self.found };
        let reached = self.reached(&maps);
        // Segments of bases of bases, too, which no map names.
        let needed = kept(&maps, &index, &reached, []);
        for bad in &unreadable {
            if let Some(generation) = bad.wrong.key_lacking {
                self.progress.flaw();
                self.found.key_lacking(generation, self.known.births_in(bad.id));
            } else if bad.log_with_frames || self.known.births_in(bad.id).any(|id| needed.contains(&id)) {
                self.progress.flaw();
                let births = self.known.births_in(bad.id);
                self.found.bad_segment(births, &bad.name, bad.wrong.offset, bad.wrong.what.clone());
            } else {
                self.found.note(&bad.name, format!("{} (nothing needs this segment)", bad.wrong.what));
            }
        }
        let openings = self.frames(&reader, &needed, report);
        self.missing(&index, &unreadable, &reached);

        self.progress.begin("maps", 0);
        for backup in self.known.backups.values() {
            report.backups.push(maps.check(backup, &self.known.server(backup.server)));
        }
        self.logs(&index, &openings, report);
        let forgotten = self.known.forgotten.iter().map(|b| b.map);
        let kept = kept(&maps, &index, &needed, forgotten);
        self.orphans(&index, &unreadable, &needed, &kept, report);
        Ok(())
    }

    /// The objects of both folders of segments. Detached footers are read with their segments.
    fn segment_names(&self) -> Result<Vec<ObjectName>> {
        let mut names = self.objects.list(SEGMENTS)?;
        let logs = self.objects.list(LOGS)?;
        let ids: HashSet<SegmentId> = logs.iter().filter_map(|n| id_of(n).map(|(id, _)| id)).collect();
        for name in logs {
            match name
                .as_str()
                .strip_suffix(FOOT_SUFFIX)
                .map(|n| n.trim_start_matches(LOGS).parse::<SegmentId>())
            {
                None => names.push(name),
                Some(Ok(id)) if ids.contains(&id) => {}
                Some(Ok(id)) => {
                    self.found.flaw(
                        &name,
                        None,
                        format!("the segment {id}, whose footer this is, is missing"),
                    );
                }
                Some(Err(_)) => self.found.note(&name, "no footer has such a name".to_owned()),
            }
        }
        names.retain(|name| {
            let good = id_of(name).is_some();
            if !good {
                self.found.note(name, "no segment has such a name".to_owned());
            }
            good
        });
        Ok(names)
    }

    fn open(&self, name: &ObjectName) -> std::result::Result<(Segment, Vec<FooterEntry>), Wrong> {
        let recorded = id_of(name).is_some_and(|(id, _)| self.known.sealed_logs.contains(&id));
        Segment::open(self.objects, self.keys, name.clone(), recorded)
    }

    /// Reads header and footer of every segment.
    fn index(&self, names: &[ObjectName]) -> (Index, Vec<Unreadable>) {
        let (mut index, mut unreadable) = (Index::new(self.known.carriers.clone()), Vec::new());
        let lanes = Lanes::get();
        for some in names.chunks(FOOTERS_AT_ONCE) {
            for (name, result) in lanes.map(some, |name| (name, self.open(name))) {
                match result {
                    Ok((segment, entries)) => index.add(segment, &entries),
                    Err(wrong) => unreadable.extend(self.unreadable(name, wrong)),
                }
            }
        }
        (index, unreadable)
    }

    /// What is left of a segment that cannot be opened; nothing if it was removed while we looked, as a session that
    /// ends does.
    fn unreadable(&self, name: &ObjectName, wrong: Wrong) -> Option<Unreadable> {
        let gone = self.objects.exists(name).is_ok_and(|there| !there);
        let (id, log) = id_of(name).filter(|_| !gone)?;
        Some(Unreadable {
            id,
            name: name.clone(),
            wrong,
            log_with_frames: log && self.has_written_header(name),
        })
    }

    /// Whether a log has frames and a header that was once whole. First and last sector of a header are never all
    /// zeros; where a crash kept a sector from being written they are, and rot does not make 512 zeros.
    fn has_written_header(&self, name: &ObjectName) -> bool {
        let page = PAGE_BYTES as u64;
        if self.known.sealed_logs.iter().any(|id| name.as_str().ends_with(&id.to_string())) {
            return true;
        }
        if !self.objects.len(name).is_ok_and(|len| len > page) {
            return false;
        }
        let sector = |offset| self.objects.read(name, offset, SECTOR_BYTES);
        let source = ObjectName::new(name.as_str()).and_then(|name| Source::open(self.objects, name));
        if source.is_ok_and(|source| header_was_durable(&source)) {
            return true;
        }
        let unwritten = |offset| sector(offset).is_ok_and(|bytes| bytes.iter().all(|b| *b == 0));
        !unwritten(0) && !unwritten(page.saturating_sub(SECTOR_BYTES))
    }

    /// The segments that a record or a live session needs.
    fn reached(&self, maps: &Maps<'_, '_>) -> HashSet<SegmentId> {
        let mut reached = HashSet::new();
        for backup in self.known.backups.values() {
            maps.reaches(backup.map, &mut reached);
        }
        for session in self.sessions.iter().filter(|s| s.alive).filter_map(|s| s.session.as_ref()) {
            for root in &session.roots {
                maps.reaches(*root, &mut reached);
            }
        }
        reached.extend(&self.known.sealed_logs);
        reached
    }

    /// Whether damage in a segment is damage of the repository. Each log segment is: its frames were acknowledged
    /// before any record named it.
    fn needed(&self, segment: &Segment, reached: &HashSet<SegmentId>) -> bool {
        // What a prune that died left has births that are needed, too; the records say who holds them.
        let holds = |birth: SegmentId| self.known.carriers.get(&birth).unwrap_or(&birth) == &segment.id;
        segment.name.as_str().starts_with(LOGS)
            || segment.births.iter().any(|b| reached.contains(&b.segment) && holds(b.segment))
    }

    /// Opens every frame of every segment.
    fn frames(
        &self,
        reader: &Reader<'_>,
        reached: &HashSet<SegmentId>,
        report: &mut Report,
    ) -> BTreeMap<SegmentId, LogOpening> {
        self.progress.begin("segments", reader.index.segments.iter().map(|s| s.len).sum());
        let openings = Mutex::new(BTreeMap::new());
        let checker = Checker {
            objects: self.objects,
            reader,
            found: self.found,
            progress: self.progress,
            scope: self.options.scope,
            seed: self.options.seed,
        };
        let outcomes: Vec<Outcome> = Lanes::get().map(&reader.index.segments, |segment| {
            let needed = self.needed(segment, reached);
            let mut outcome = self.one(&checker, segment, needed);
            if let Some(opening) = outcome.opening.take() {
                openings.lock().unwrap_or_else(PoisonError::into_inner).insert(segment.id, opening);
            }
            outcome
        });
        for outcome in outcomes {
            report.counts.frames = report.counts.frames.saturating_add(outcome.frames);
            report.counts.bytes = report.counts.bytes.saturating_add(outcome.bytes);
            report.counts.plain_bytes = report.counts.plain_bytes.saturating_add(outcome.plain);
        }
        openings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// One segment. Its footer is read again rather than kept: all footers at once would not fit in memory.
    fn one(&self, checker: &Checker<'_, '_>, segment: &Segment, needed: bool) -> Outcome {
        let entries: Vec<FooterEntry> = match self.open(&segment.name) {
            Ok((_, entries)) => entries,
            // It was removed while we worked: what needs it says so.
            Err(_) if self.objects.exists(&segment.name).is_ok_and(|there| !there) => {
                self.found.vanished(segment.id);
                return Outcome::default();
            }
            Err(wrong) => {
                self.found.bad_segment(segment.ids(), &segment.name, wrong.offset, wrong.what);
                return Outcome::default();
            }
        };
        let outcome = checker.check(segment, &entries, needed);
        self.open_end(segment, needed, outcome.opening.is_some());
        outcome
    }

    /// What follows the last frame of an open segment; `opened` says whether its first frame tells its stream.
    fn open_end(&self, segment: &Segment, needed: bool, opened: bool) {
        let End::Open { left, later, .. } = &segment.end else { return };
        if needed && segment.header.kind != SegmentKind::Log {
            // Its frames can be found by walking over them; a restore goes by the footer.
            let what = "it has no trailer any more, so a restore finds none of its frames; --rebuild-index mends that";
            self.progress.flaw();
            self.found.bad_segment(segment.ids(), &segment.name, Some(segment.frames_end), what.to_owned());
            return;
        }
        match later {
            // What it means depends on the rest of its stream, unless nobody knows which one that is.
            Some(_) if needed && opened => {}
            Some(later) if needed => {
                self.progress.flaw();
                let what = damaged_end(*later);
                self.found.bad_segment(segment.ids(), &segment.name, Some(segment.frames_end), what);
            }
            _ if *left > 0 => {
                let what = format!(
                    "{left} bytes follow its last whole frame: its writer is at work, or died before it acknowledged \
                     them"
                );
                self.found.note(&segment.name, what);
            }
            _ => {}
        }
    }

    /// Segments that are needed and nowhere.
    fn missing(&self, index: &Index, unreadable: &[Unreadable], reached: &HashSet<SegmentId>) {
        let vanished: HashSet<_> = self.found.all_vanished().into_iter().collect();
        let here = |id: &SegmentId| index.carrier(*id).is_some_and(|s| !vanished.contains(&s.id));
        let mut missing: Vec<_> = reached.iter().filter(|id| !here(id)).collect();
        let place = |id: &SegmentId| self.known.carriers.get(id).copied().unwrap_or(*id);
        missing.retain(|id| !unreadable.iter().any(|bad| bad.id == **id || bad.id == place(id)));
        missing.sort_unstable();
        for id in missing {
            let deleted = if self.known.deleted.contains(id) { ", by a record that deleted it" } else { "" };
            self.progress.flaw();
            self.found.bad_segment(
                [*id],
                format!("segment {id}"),
                None,
                format!("it is needed and missing{deleted}"),
            );
        }
    }

    fn logs(&self, index: &Index, openings: &BTreeMap<SegmentId, LogOpening>, report: &mut Report) {
        let (mut sealed, mut gaps) = (Vec::new(), Vec::new());
        for stamped in &self.known.manifest.records {
            match &stamped.record {
                Record::LogSealed(log) if !self.known.deleted.contains(&log.segment) => sealed.push(log),
                Record::LogGap(gap) => gaps.push(gap),
                _ => {}
            }
        }
        let mut openings = openings.clone();
        openings.retain(|segment, _| !self.known.deleted.contains(segment));
        let logs = Logs { sealed, gaps, openings: &openings, index, found: self.found };
        let (streams, stretches) = logs.check(|key| self.known.stream(key));
        report.streams = streams;
        let backups = self.known.backups.values().copied().collect();
        let windows = Windows::new(&self.known.manifest.records, backups, &report.backups, stretches);
        (report.windows, report.holes) = windows.find(|server| self.known.server(server));
    }

    /// What nothing keeps: harmless, counted.
    fn orphans(
        &self,
        index: &Index,
        unreadable: &[Unreadable],
        reached: &HashSet<SegmentId>,
        kept: &HashSet<SegmentId>,
        report: &mut Report,
    ) {
        let alive: HashSet<_> = self
            .sessions
            .iter()
            .filter(|s| s.alive)
            .filter_map(|s| s.session.as_ref().map(|s| s.id))
            .collect();
        for segment in &index.segments {
            if self.needed(segment, reached) || alive.contains(&segment.header.session) {
                continue;
            }
            if self.needed(segment, kept) {
                report.counts.forgotten = report.counts.forgotten.saturating_add(1);
                report.counts.forgotten_bytes = report.counts.forgotten_bytes.saturating_add(segment.len);
            } else {
                report.counts.orphans = report.counts.orphans.saturating_add(1);
                report.counts.orphan_bytes = report.counts.orphan_bytes.saturating_add(segment.len);
                let births = segment.births.iter().map(|b| b.segment).collect();
                self.found.mend(Mend::Orphan { name: segment.name.clone(), births, bytes: segment.len });
            }
        }
        let lost =
            |b: &&Unreadable| !b.log_with_frames && !self.known.births_in(b.id).any(|id| kept.contains(&id));
        for lost in unreadable.iter().filter(lost) {
            report.counts.orphans = report.counts.orphans.saturating_add(1);
            // Who wrote it cannot be read, so it is nobody's only if nobody is at work.
            if alive.is_empty() {
                let bytes = self.objects.len(&lost.name).unwrap_or(0);
                self.found.mend(Mend::Orphan { name: lost.name.clone(), births: vec![lost.id], bytes });
            }
        }
    }
}
