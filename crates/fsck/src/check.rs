//! The check of a whole repository, from the keyring to the last block.
//!
//! ```text
//! keyring -> heads, records -> sessions -> headers and footers -> every frame -> maps -> logs -> what is left over
//! ```
//!
//! Everything reached is read; everything read is compared with something that was
//! written apart from it. Segments are checked by as many workers as there are cores,
//! each with one frame in memory.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Instant;

use holdfast_format::ids::{BackupId, SegmentId, ServerId};
use holdfast_format::log::LogOpening;
use holdfast_format::names::{FOOT_SUFFIX, LOGS, SEGMENTS, SESSIONS};
use holdfast_format::record::{BackupRecord, Record, StreamKey};
use holdfast_format::segment::{FooterEntry, PAGE_BYTES};
use holdfast_format::session::Session;
use holdfast_io::{LockKind, ObjectName, Objects};
use rayon::prelude::*;

use crate::error::Result;
use crate::findings::Findings;
use crate::frames::{Checker, Outcome};
use crate::index::Index;
use crate::logs::Logs;
use crate::manifest::{self, Manifest};
use crate::maps::Maps;
use crate::progress::Progress;
use crate::report::Report;
use crate::segment::{End, SECTOR_BYTES, Segment, Wrong, id_of};
use crate::unlock::{Keys, Secret, unlock};

/// Version of the report's shape.
const SCHEMA: u32 = 1;
/// Longest object of a session that is read: 1,024 roots of 20 bytes and a little.
const SESSION_BYTES_MAX: u64 = 64 * 1024;
/// Footers held at once while the index is built: 64 KiB each as a rule, 21 MiB at most, so hundreds of thousands of
/// segments are not in memory together.
const FOOTERS_AT_ONCE: usize = 16;

/// Checks everything. An error means that nothing could be checked; what is wrong inside is in the report.
pub fn check(objects: &dyn Objects, secret: &Secret, progress: &Progress) -> Result<Report> {
    let start = Instant::now();
    let found = Findings::default();
    progress.begin("keyring", 0);
    let (keys, keyrings) = unlock(objects, secret, &found)?;
    progress.begin("manifest", 0);
    // Sessions are listed first: what a session that ends meanwhile committed is then in the manifest.
    let sessions = sessions(objects, &keys, &found)?;
    let manifest = manifest::read(objects, &keys, &found)?;
    let mut report = Report { schema: SCHEMA, repository: keys.repo.to_string(), ..Report::default() };
    report.counts.keyrings = keyrings;
    report.counts.heads = manifest.heads;
    report.counts.records = manifest.records.len() as u64;
    report.counts.bytes = manifest.bytes;
    report.counts.sessions = sessions.len() as u64;
    report.counts.sessions_alive = sessions.iter().filter(|s| s.alive).count() as u64;

    let known = Known::of(&manifest);
    Run { objects, keys: &keys, found: &found, progress, known: &known, sessions: &sessions }
        .all(&mut report)?;

    let (flaws, more, notes) = found.finish();
    (report.flaws_more, report.notes) = (more, notes);
    flaws.into_iter().for_each(|flaw| report.flaw(flaw));
    report.clean = report.flaw_count() == 0;
    report.took_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Ok(report)
}

/// What the records say is there.
struct Known<'a> {
    servers: HashMap<ServerId, &'a str>,
    backups: BTreeMap<u64, &'a BackupRecord>,
    manifest: &'a Manifest,
    deleted: HashSet<SegmentId>,
    sealed_logs: HashSet<SegmentId>,
}

impl<'a> Known<'a> {
    fn of(manifest: &'a Manifest) -> Self {
        let mut known = Self {
            servers: HashMap::new(),
            backups: BTreeMap::new(),
            manifest,
            deleted: HashSet::new(),
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
                        known.backups.remove(number);
                    }
                }
                Record::LogSealed(log) => {
                    known.sealed_logs.insert(log.segment);
                }
                Record::SegmentsDeleted { segments } => known.deleted.extend(segments),
                _ => {}
            }
        }
        known
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
                all.push(Seen { session: None, alive });
            }
        }
    }
    Ok(all)
}

/// The part of a check that needs keys and records.
struct Run<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    found: &'a Findings,
    progress: &'a Progress,
    known: &'a Known<'a>,
    sessions: &'a [Seen],
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

        let maps = Maps { objects: self.objects, keys: self.keys, index: &index, found: self.found };
        let reached = self.reached(&maps);
        for bad in &unreadable {
            if reached.contains(&bad.id) || bad.log_with_frames {
                self.progress.flaw();
                self.found.bad_segment(bad.id, &bad.name, bad.wrong.offset, bad.wrong.what.clone());
            } else {
                self.found.note(&bad.name, format!("{} (nothing needs this segment)", bad.wrong.what));
            }
        }
        let openings = self.frames(&index, &reached, report);
        self.missing(&index, &unreadable, &reached);

        self.progress.begin("maps", 0);
        for backup in self.known.backups.values() {
            report.backups.push(maps.check(backup, &self.known.server(backup.server)));
        }
        self.logs(&index, &openings, report);
        self.orphans(&index, &unreadable, &reached, report);
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
        let (mut index, mut unreadable) = (Index::default(), Vec::new());
        for some in names.chunks(FOOTERS_AT_ONCE) {
            let opened: Vec<_> = some.par_iter().map(|name| (name, self.open(name))).collect();
            for (name, result) in opened {
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
        let unwritten = |offset| sector(offset).is_ok_and(|bytes| bytes.iter().all(|b| *b == 0));
        !unwritten(0) && !unwritten(page.saturating_sub(SECTOR_BYTES))
    }

    /// The segments that a record or a live session needs.
    fn reached(&self, maps: &Maps<'_>) -> HashSet<SegmentId> {
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
        segment.name.as_str().starts_with(LOGS) || segment.births.iter().any(|b| reached.contains(&b.segment))
    }

    /// Opens every frame of every segment.
    fn frames(
        &self,
        index: &Index,
        reached: &HashSet<SegmentId>,
        report: &mut Report,
    ) -> BTreeMap<SegmentId, LogOpening> {
        self.progress.begin("segments", index.segments.iter().map(|s| s.len).sum());
        let openings = Mutex::new(BTreeMap::new());
        let checker = Checker {
            objects: self.objects,
            keys: self.keys,
            index,
            found: self.found,
            progress: self.progress,
        };
        let outcomes: Vec<Outcome> = index
            .segments
            .par_iter()
            .map(|segment| {
                let needed = self.needed(segment, reached);
                let mut outcome = self.one(&checker, segment, needed);
                if let Some(opening) = outcome.opening.take() {
                    openings.lock().unwrap_or_else(PoisonError::into_inner).insert(segment.id, opening);
                }
                outcome
            })
            .collect();
        for outcome in outcomes {
            report.counts.frames = report.counts.frames.saturating_add(outcome.frames);
            report.counts.bytes = report.counts.bytes.saturating_add(outcome.bytes);
        }
        openings.into_inner().unwrap_or_else(PoisonError::into_inner)
    }

    /// One segment. Its footer is read again rather than kept: all footers at once would not fit in memory.
    fn one(&self, checker: &Checker<'_>, segment: &Segment, needed: bool) -> Outcome {
        let entries: Vec<FooterEntry> = match self.open(&segment.name) {
            Ok((_, entries)) => entries,
            Err(wrong) => {
                self.found.bad_segment(segment.id, &segment.name, wrong.offset, wrong.what);
                return Outcome::default();
            }
        };
        let outcome = checker.check(segment, &entries, needed);
        self.open_end(segment, needed);
        outcome
    }

    /// What follows the last frame of an open segment.
    fn open_end(&self, segment: &Segment, needed: bool) {
        let End::Open { left, later } = &segment.end else { return };
        match later {
            Some(later) if needed => {
                let what = format!(
                    "a frame of acknowledged log is damaged here: right frames follow it from byte {later} on"
                );
                self.progress.flaw();
                self.found.bad_segment(segment.id, &segment.name, Some(segment.frames_end), what);
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
        let mut missing: Vec<_> = reached.iter().filter(|id| !index.has_segment(**id)).collect();
        missing.retain(|id| !unreadable.iter().any(|bad| bad.id == **id));
        missing.sort_unstable();
        for id in missing {
            let deleted = if self.known.deleted.contains(id) { ", by a record that deleted it" } else { "" };
            self.progress.flaw();
            self.found.bad_segment(
                *id,
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
                Record::LogSealed(log) => sealed.push(log),
                Record::LogGap(gap) => gaps.push(gap),
                _ => {}
            }
        }
        let logs = Logs { sealed, gaps, openings, index, found: self.found };
        report.streams = logs.check(|key| self.known.stream(key));
    }

    /// What nothing reaches: harmless, counted.
    fn orphans(
        &self,
        index: &Index,
        unreadable: &[Unreadable],
        reached: &HashSet<SegmentId>,
        report: &mut Report,
    ) {
        let alive: HashSet<_> = self
            .sessions
            .iter()
            .filter(|s| s.alive)
            .filter_map(|s| s.session.as_ref().map(|s| s.id))
            .collect();
        for segment in &index.segments {
            if !self.needed(segment, reached) && !alive.contains(&segment.header.session) {
                report.counts.orphans = report.counts.orphans.saturating_add(1);
                report.counts.orphan_bytes = report.counts.orphan_bytes.saturating_add(segment.len);
            }
        }
        let lost = unreadable.iter().filter(|b| !reached.contains(&b.id) && !b.log_with_frames);
        report.counts.orphans = report.counts.orphans.saturating_add(lost.count() as u64);
    }
}
