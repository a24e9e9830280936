//! The receiver against a source of recorded logs and a store in memory that loses what was not synced.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};

use holdfast_binlog::Header;
use holdfast_binlog::event::{FLAG_ARTIFICIAL, HEADER_LEN};
use holdfast_binlog::kind::EventType;
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::ids::{SegmentId, ServerId};
use holdfast_format::record::{LogGap, LogRecord, Record, Stamped};
use holdfast_format::segment::FrameKind;
use holdfast_mysql::{ConnectOptions, Endpoint};
use proptest::prelude::*;

use super::*;
use crate::index::{Indexed, each_frame};
use crate::intake::FIRST_OFFSET;
use crate::log::LogReader;
use crate::server_log::{CopyFacts, Place, ServerLog, Target};
use crate::storage::{Frames, Stretch, StretchWriter};

#[derive(Debug, Clone)]
struct Segment {
    stretch: Stretch,
    frames: Vec<(FrameKind, Vec<u8>)>,
    synced: usize,
    /// The frame from which on it can't be read any more.
    rotten: Option<usize>,
}

impl Segment {
    fn damage(&self) -> Option<Error> {
        let place = format!("frame {}", self.rotten?);
        let object = format!("logs/{}", self.stretch.segment);
        Some(holdfast_store::Error::Damaged { object, place, why: "it rotted".to_owned() }.into())
    }
}

#[derive(Debug, Default)]
struct State {
    segments: Vec<Segment>,
    records: Vec<Arc<Stamped>>,
}

/// A repository in memory.
#[derive(Debug, Clone, Default)]
struct Memory(Arc<Mutex<State>>);

impl Memory {
    /// Everything that was not synced is gone, but for the first `lucky` frames of it.
    fn crash(&self, lucky: usize) {
        for segment in &mut self.0.lock().unwrap().segments {
            if segment.stretch.sealed.is_none() {
                let keep = segment.synced.saturating_add(lucky).min(segment.frames.len());
                segment.frames.truncate(keep);
                segment.synced = keep;
            }
        }
    }
}

impl LogStore for Memory {
    fn streams(&self) -> Result<Vec<StreamKey>> {
        let mut keys: Vec<_> = self.0.lock().unwrap().segments.iter().map(|s| s.stretch.stream).collect();
        keys.sort();
        keys.dedup();
        Ok(keys)
    }

    fn stretches(&self, stream: &StreamKey) -> Result<Vec<Stretch>> {
        let state = self.0.lock().unwrap();
        Ok(state.segments.iter().map(|s| s.stretch.clone()).filter(|s| s.stream == *stream).collect())
    }

    fn frames(&self, stretch: &Stretch) -> Result<Frames<'_>> {
        let state = self.0.lock().unwrap();
        let segment = state.segments.iter().find(|s| s.stretch.segment == stretch.segment).unwrap();
        let good = segment.frames.iter().take(segment.rotten.unwrap_or(usize::MAX)).cloned();
        Ok(Box::new(good.map(Ok).chain(segment.damage().map(Err)).collect::<Vec<_>>().into_iter()))
    }

    fn index_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        let frames = self.frames(stretch)?;
        Ok(frames.map_while(Result::ok).filter(|(k, _)| *k == FrameKind::LogIndex).map(|(_, b)| b).collect())
    }

    fn note_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        let frames = self.frames(stretch)?;
        Ok(frames.map_while(Result::ok).filter(|(k, _)| *k == FrameKind::LogMeta).map(|(_, b)| b).collect())
    }

    fn begin(&self, stream: &StreamKey, start: &Position) -> Result<Box<dyn StretchWriter>> {
        let mut state = self.0.lock().unwrap();
        let number = state.segments.iter().filter(|s| s.stretch.stream == *stream).count() as u64;
        let place = state.segments.len();
        state.segments.push(Segment {
            stretch: Stretch {
                segment: SegmentId((place as u128).to_be_bytes()),
                stream: *stream,
                number,
                start: start.clone(),
                opened_us: 0,
                sealed: None,
            },
            frames: Vec::new(),
            synced: 0,
            rotten: None,
        });
        Ok(Box::new(MemoryWriter { memory: self.clone(), place }))
    }

    fn records(&self) -> Result<Vec<Arc<Stamped>>> {
        Ok(self.0.lock().unwrap().records.clone())
    }

    fn append(&self, record: Record) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        let number = state.records.len() as u64;
        state.records.push(Arc::new(Stamped { number, at_us: 0, record }));
        Ok(())
    }
}

struct MemoryWriter {
    memory: Memory,
    place: usize,
}

impl MemoryWriter {
    fn with<T>(&self, f: impl FnOnce(&mut Segment) -> T) -> T {
        f(&mut self.memory.0.lock().unwrap().segments[self.place])
    }
}

impl StretchWriter for MemoryWriter {
    fn segment(&self) -> SegmentId {
        self.with(|s| s.stretch.segment)
    }

    fn number(&self) -> u64 {
        self.with(|s| s.stretch.number)
    }

    fn stored_bytes(&self) -> u64 {
        self.with(|s| s.frames.iter().map(|(_, bytes)| bytes.len() as u64).sum())
    }

    fn adopt(&mut self, record: LogRecord) -> Result<()> {
        let mut state = self.memory.0.lock().unwrap();
        let left = state.segments.iter_mut().find(|s| s.stretch.segment == record.segment).unwrap();
        assert!(left.stretch.sealed.is_none());
        // As a repository does: what is damaged gets no record that says where it ends.
        left.stretch.sealed = left.rotten.is_none().then_some(record);
        Ok(())
    }

    fn append(&mut self, kind: FrameKind, bytes: &[u8]) -> Result<()> {
        self.with(|s| s.frames.push((kind, bytes.to_vec())));
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        self.with(|s| s.synced = s.frames.len());
        Ok(())
    }

    fn seal(self: Box<Self>, record: LogRecord) -> Result<()> {
        self.with(|s| {
            s.synced = s.frames.len();
            s.stretch.sealed = Some(record);
        });
        Ok(())
    }
}

/// A source of whole files.
#[derive(Debug, Clone)]
struct Source {
    flavor: Flavor,
    files: Vec<(String, Vec<u8>)>,
}

impl Source {
    fn mysql() -> Self {
        let files = [
            ("mysql.000004", include_bytes!("../../tests/data/mysql.000004").as_slice()),
            ("mysql.000005", include_bytes!("../../tests/data/mysql.000005").as_slice()),
        ];
        Self::new(Flavor::MySql, &files)
    }

    fn mariadb() -> Self {
        let files = [
            ("mariadb.000006", include_bytes!("../../tests/data/mariadb.000006").as_slice()),
            ("mariadb.000007", include_bytes!("../../tests/data/mariadb.000007").as_slice()),
        ];
        Self::new(Flavor::MariaDb, &files)
    }

    /// The recorded names are in the logs themselves (ROTATE), so the base is theirs.
    fn new(flavor: Flavor, files: &[(&str, &[u8])]) -> Self {
        let files = files
            .iter()
            .map(|(name, bytes)| {
                let mut bytes = bytes.to_vec();
                // A source sends the first event without its in-use flag.
                bytes[4 + 17] &= !1;
                (format!("binlog.{}", name.rsplit_once('.').unwrap().1), bytes)
            })
            .collect();
        Self { flavor, files }
    }

    /// The same log with another time in its events, as a server that was reset would write it.
    fn reset(&self) -> Self {
        self.altered(|_| true)
    }

    /// A log that differs in what its transactions do, and not in how they begin: one that was written anew within the
    /// same second.
    fn reset_at_once(&self) -> Self {
        let begins = [
            EventType::FORMAT_DESCRIPTION,
            EventType::PREVIOUS_GTIDS,
            EventType::GTID_LIST,
            EventType::GTID,
            EventType::MARIADB_GTID,
        ];
        self.altered(|kind| !begins.contains(&kind))
    }

    /// The same log with another time in the events of some kinds.
    fn altered(&self, these: impl Fn(EventType) -> bool) -> Self {
        let mut other = self.clone();
        for (_, bytes) in &mut other.files {
            for (at, mut event) in split(bytes) {
                if !these(EventType(event[4])) {
                    continue;
                }
                event[0] ^= 1;
                let body = event.len() - 4;
                let crc = crc32fast::hash(&event[..body]).to_le_bytes();
                event[body..].copy_from_slice(&crc);
                bytes[at as usize..][..event.len()].copy_from_slice(&event);
            }
        }
        other
    }

    /// The mark of its last file.
    fn mark(&self) -> FileMark {
        let (name, bytes) = self.files.last().unwrap();
        let head: Vec<_> = split(bytes).into_iter().take(2).map(|(_, event)| event).collect();
        FileMark::of_events(name, head.iter().map(Vec::as_slice))
    }

    /// What a source sends from (file, offset) on.
    fn serve(&self, file: &str, offset: u64) -> Vec<Vec<u8>> {
        let first = self.files.iter().position(|(name, _)| name == file).unwrap();
        let mut events = Vec::new();
        for (place, (name, bytes)) in self.files.iter().enumerate().skip(first) {
            let from = if place == first { offset } else { FIRST_OFFSET };
            events.push(artificial_rotate(name, from));
            let all = split(bytes);
            if from > FIRST_OFFSET {
                events.push(all[0].1.clone());
            }
            events.extend(all.into_iter().filter(|(at, _)| *at >= from).map(|(_, event)| event));
        }
        events
    }
}

fn split(bytes: &[u8]) -> Vec<(u64, Vec<u8>)> {
    let (mut at, mut events) = (4, Vec::new());
    while at < bytes.len() {
        let len = Header::read(bytes[at..].first_chunk::<HEADER_LEN>().unwrap()).length as usize;
        events.push((at as u64, bytes[at..at + len].to_vec()));
        at += len;
    }
    events
}

fn artificial_rotate(name: &str, offset: u64) -> Vec<u8> {
    let mut event = Vec::new();
    let header = Header {
        timestamp: 0,
        kind: EventType::ROTATE,
        server_id: 1,
        length: (HEADER_LEN + 8 + name.len()) as u32,
        log_pos: 0,
        flags: FLAG_ARTIFICIAL,
    };
    header.write(&mut event);
    event.extend_from_slice(&offset.to_le_bytes());
    event.extend_from_slice(name.as_bytes());
    event
}

const STREAM: StreamKey = StreamKey { server: ServerId([1; 16]), source_uuid: Uuid([2; 16]), incarnation: 0 };

fn options() -> FollowOptions {
    let mut options = FollowOptions::new(ConnectOptions::new(Endpoint::Unix("/none".into()), "u"), 1);
    options.stretch_bytes = 300;
    options
}

/// Follows until `events` events came; what a connection would do without one.
fn follow_some(
    memory: &Memory,
    source: &Source,
    events: usize,
    sync_every: usize,
    finish: bool,
) -> Result<usize> {
    let options = options();
    let mut note = |_: Note<'_>| {};
    let mut keeper = Keeper::start(memory, &STREAM, None, options.stretch_bytes, &mut note)?;
    keeper.flavor = source.flavor;
    let at = keeper.tail.as_ref().and_then(|tail| tail.at.clone());
    keeper.intake = Some(match at {
        Some(at) => Intake::resume(source.flavor, &at, keeper.tail.as_mut().unwrap()),
        None => Intake::new(source.flavor, &source.files[0].0, None),
    });
    let intake = keeper.intake.as_mut().unwrap();
    let offset = intake.reconnect();
    let stream = source.serve(intake.file(), offset);
    let count = stream.len().min(events);
    for (n, event) in stream.iter().take(events).enumerate() {
        if let Err(error) = keeper.take(event) {
            if let Error::Gap { reason, .. } = &error {
                keeper.record_gap(reason)?;
            }
            return Err(error);
        }
        if n % sync_every == sync_every - 1 {
            keeper.sync()?;
        }
    }
    if finish {
        keeper.finish()?;
    }
    Ok(count)
}

/// The archived files, put together again.
fn exported(memory: &Memory) -> BTreeMap<String, Vec<u8>> {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let mut reader = LogReader::open(memory, &STREAM).unwrap();
    while let Some(event) = reader.next_event().unwrap() {
        let file = files.entry(event.file.to_owned()).or_insert_with(|| vec![0xfe, b'b', b'i', b'n']);
        assert_eq!(file.len() as u64, event.event.position, "in {}", event.file);
        file.extend_from_slice(event.event.raw);
    }
    files
}

fn entries(memory: &Memory) -> Vec<Indexed> {
    let mut entries = Vec::new();
    each_frame(memory, &STREAM, &mut |frame| {
        frame.each(|entry| {
            let (file, number) = (frame.file.to_owned(), frame.number);
            entries.push(Indexed { file, number, life: None, entry: entry.to_entry() });
            Ok::<_, Error>(())
        })?;
        Ok(ControlFlow::Continue(()))
    })
    .unwrap();
    entries
}

fn check_whole(memory: &Memory, source: &Source) {
    let expected: BTreeMap<_, _> = source.files.iter().cloned().collect();
    assert_eq!(exported(memory), expected);
    let whole = Memory::default();
    follow_some(&whole, source, usize::MAX, 1, true).unwrap();
    let strip = |list: Vec<Indexed>| list.into_iter().map(|i| (i.file, i.entry)).collect::<Vec<_>>();
    assert_eq!(strip(entries(memory)), strip(entries(&whole)));
    check_coverage(memory);
}

/// What is said to be covered, which the records of sealed segments say, is what the entries say.
fn check_coverage(memory: &Memory) {
    let coverage = ServerLog::open(memory, STREAM.server).unwrap().coverage().unwrap();
    let entries = entries(memory);
    assert_eq!(coverage.len(), 1);
    let times = |times: &mut dyn Iterator<Item = &Indexed>| times.next().map(|i| i.entry.commit_us);
    assert_eq!(coverage[0].from_us, times(&mut entries.iter()));
    assert_eq!(coverage[0].to_us, times(&mut entries.iter().rev()));
    assert_eq!(coverage[0].transactions, entries.len() as u64);
    let mut gtids = coverage[0].from.gtid.clone();
    for entry in &entries {
        gtids.add(entry.entry.gtid.as_ref().unwrap()).unwrap();
    }
    assert_eq!(coverage[0].to.gtid, gtids);
}

#[test]
fn a_log_comes_back_byte_for_byte_with_its_transactions() {
    for source in [Source::mysql(), Source::mariadb()] {
        let memory = Memory::default();
        follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
        check_whole(&memory, &source);
        let found = entries(&memory);
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(
            found.iter().any(|i| i.entry.statement.as_ref().is_some_and(|s| s.text.starts_with(b"DROP"))
                || i.entry.statement.as_ref().is_some_and(|s| s.text.starts_with(b"drop")))
        );
        let rows = found.iter().map(|i| i.entry.tables.iter().map(|t| t.inserted).sum::<u64>()).sum::<u64>();
        assert_eq!(rows, 2);
    }
}

#[test]
fn a_source_that_serves_another_last_transaction_is_a_fork() {
    let source = Source::mysql();
    let memory = Memory::default();
    follow_some(&memory, &source, 8, 1, true).unwrap();
    let other = source.reset();
    let before = exported(&memory);
    let error = follow_some(&memory, &other, usize::MAX, 1, true).unwrap_err();
    assert!(error.to_string().contains("another transaction"), "{error}");
    assert_eq!(exported(&memory), before);
    assert!(memory.records().unwrap().iter().any(|s| matches!(s.record, Record::LogGap(_))));
}

#[test]
fn a_source_whose_last_transaction_only_begins_like_ours_is_a_fork() {
    let mut refused = 0;
    for source in [Source::mysql(), Source::mariadb()] {
        for events in 4..14 {
            let memory = Memory::default();
            follow_some(&memory, &source, events, 1, true).unwrap();
            let before = exported(&memory);
            if tail::find(&memory, &STREAM).unwrap().last_us.is_none() {
                continue;
            }
            let error = follow_some(&memory, &source.reset_at_once(), usize::MAX, 1, true).unwrap_err();
            assert!(error.to_string().contains("another transaction"), "after {events} events: {error}");
            assert_eq!(exported(&memory), before);
            refused += 1;
        }
    }
    assert!(refused > 8, "{refused}");
}

#[test]
fn garbage_where_our_last_transaction_was_is_another_log_and_ends_the_stream() {
    let source = Source::mysql();
    let memory = Memory::default();
    follow_some(&memory, &source, 8, 1, true).unwrap();
    let options = options();
    let mut note = |_: Note<'_>| {};
    let refused = || {
        // As MySQL 9.7.4 answers after RESET BINARY LOGS AND GTIDS, asked for a place in the middle of an event.
        Error::Mysql(holdfast_mysql::Error::Server(holdfast_mysql::ServerError {
            code: 1236,
            sqlstate: "HY000".to_owned(),
            message: "log event entry exceeded max_allowed_packet; Increase max_allowed_packet on source"
                .to_owned(),
        }))
    };
    let mut follower = Follower::start(&memory, &STREAM, &[], &options, &mut note).unwrap();
    let mut tail = tail::find(&memory, &STREAM).unwrap();
    let at = tail.at.clone().unwrap();
    follower.keeper.intake = Some(Intake::resume(Flavor::MySql, &at, &mut tail));
    let from = follower.keeper.intake.as_mut().unwrap().reconnect();
    let error = follower.source_failed(refused()).err().unwrap();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert!(error.to_string().contains("another log there"), "{error}");
    // Once our transaction was shown, the same words are about an event that is too large, which no attempt will bring.
    for event in source.serve(&at.file, from) {
        follower.keeper.take(&event).unwrap();
    }
    let error = follower.source_failed(refused()).err().unwrap();
    assert!(matches!(error, Error::Gap { .. }) && error.to_string().contains("--binlogs"), "{error}");
}

#[test]
fn a_copy_is_never_looked_for_in_a_life_that_began_after_it_nor_in_another_servers_log() {
    let source = Source::mysql();
    let memory = Memory::default();
    // Two lives with the same files and GTIDs, as a reset makes them.
    follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
    let after = tail::find(&memory, &STREAM).unwrap().at.unwrap();
    let gap = LogGap { stream: STREAM, after, reason: "it was reset".to_owned(), at_us: 100 };
    memory.append(Record::LogGap(gap)).unwrap();
    let second = StreamKey { incarnation: 1, ..STREAM };
    let options = options();
    let mut note = |_: Note<'_>| {};
    let mut keeper = Keeper::start(&memory, &second, None, options.stretch_bytes, &mut note).unwrap();
    let first_file = &source.files[0].0;
    keeper.intake = Some(Intake::new(Flavor::MySql, first_file, None));
    keeper.intake.as_mut().unwrap().reconnect();
    for event in source.serve(first_file, FIRST_OFFSET) {
        keeper.take(&event).unwrap();
    }
    keeper.finish().unwrap();

    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let at = log.resolve(&Target::Latest).unwrap().unwrap().kept.unwrap();
    let gtid = holdfast_format::gtid::GtidSet::empty(Flavor::MySql);
    let at = Position { file: at.file, offset: at.entry.end, gtid };
    let place = |taken_us, source| {
        log.place_of_copy(&at, &CopyFacts { taken_us, source, mark: None, of_replica: false }).unwrap()
    };
    let (before, since) = (place(99, None).unwrap(), place(101, None).unwrap());
    assert!(log.gap(before, since).unwrap().is_some(), "the two lie in two lives");
    assert_eq!(place(99, Some(STREAM.source_uuid)), Some(before));
    assert_eq!(place(101, Some(holdfast_format::gtid::Uuid([9; 16]))), None);

    // Nor is a target guessed that both lives have; with the life behind it, it is exact.
    let last = log.resolve(&Target::Latest).unwrap().unwrap().kept.unwrap();
    let (file, offset) = (last.file.clone(), last.entry.end);
    let id = last.id();
    let plain = id.strip_suffix("@1").unwrap().to_owned();
    let by_name = |life: &str, number| {
        [
            Target::Before(format!("{plain}{life}")),
            Target::After(format!("pos:{file}:{}{life}", last.entry.start)),
            Target::Position { file: file.clone(), offset, life: number },
        ]
    };
    for target in by_name("", None) {
        let hole = log.resolve(&target).unwrap().unwrap_err();
        let both =
            hole.reason.contains("several") && hole.reason.contains("@0 or ") && hole.reason.contains("@1");
        assert!(both, "{target:?}: {}", hole.reason);
    }
    for (zero, one) in by_name("@0", Some(0)).iter().zip(by_name("@1", Some(1))) {
        let (zero, one) = (log.resolve(zero).unwrap().unwrap(), log.resolve(&one).unwrap().unwrap());
        assert!(zero.place < one.place && log.gap(zero.place, one.place).unwrap().is_some());
        assert_eq!((zero.kept.unwrap().life, one.kept.unwrap().life), (Some(0), Some(1)));
    }
    assert!(log.resolve(&Target::After(format!("{plain}@7"))).unwrap().is_err());
}

#[test]
fn a_target_in_a_hole_is_refused_with_the_nearest_points() {
    let memory = Memory::default();
    let source = Source::mysql();
    let life = |incarnation| StreamKey { incarnation, ..STREAM };
    // One life with the first file, the next one with the second: the hole lies between.
    for (incarnation, file) in [(0, 0), (1, 1)] {
        let options = options();
        let mut note = |_: Note<'_>| {};
        let mut keeper =
            Keeper::start(&memory, &life(incarnation), None, options.stretch_bytes, &mut note).unwrap();
        let one = Source { flavor: source.flavor, files: vec![source.files[file].clone()] };
        keeper.intake = Some(Intake::new(Flavor::MySql, &one.files[0].0, None));
        keeper.intake.as_mut().unwrap().reconnect();
        for event in one.serve(&one.files[0].0, FIRST_OFFSET) {
            keeper.take(&event).unwrap();
        }
        keeper.finish().unwrap();
    }
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let mut all = Vec::new();
    log.each(&mut |seen| {
        all.push((seen.from, seen.to, seen.indexed()));
        Ok(())
    })
    .unwrap();
    let border = all.iter().position(|(.., i)| i.file.ends_with('5')).unwrap();
    let (before, after) = (&all[border - 1], &all[border]);
    let hole = log.resolve(&Target::Time(after.2.entry.commit_us - 1)).unwrap().unwrap_err();
    assert_eq!((hole.before.as_ref(), hole.after.as_ref()), (Some(&before.2), Some(&after.2)));
    assert!(log.gap(before.0, after.1).unwrap().is_some());
    assert!(log.gap(all[0].0, before.1).unwrap().is_none());
    assert!(log.gap(after.0, log.end().unwrap()).unwrap().is_none());
    assert_eq!(log.coverage().unwrap().len(), 2);
}

#[test]
fn a_missing_event_is_a_gap_and_nothing_behind_it_is_kept() {
    let source = Source::mariadb();
    let memory = Memory::default();
    let options = options();
    let mut note = |_: Note<'_>| {};
    let mut keeper = Keeper::start(&memory, &STREAM, None, options.stretch_bytes, &mut note).unwrap();
    keeper.flavor = Flavor::MariaDb;
    keeper.intake = Some(Intake::new(Flavor::MariaDb, &source.files[0].0, None));
    let mut events = source.serve(&source.files[0].0, FIRST_OFFSET);
    events.remove(6);
    let error = events.iter().find_map(|event| keeper.take(event).err()).unwrap();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert!(error.to_string().contains("bytes are missing"), "{error}");
}

#[test]
fn a_time_and_a_transaction_lead_to_the_same_exact_cut() {
    for source in [Source::mysql(), Source::mariadb()] {
        let memory = Memory::default();
        follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
        let log = ServerLog::open(&memory, STREAM.server).unwrap();
        let all = entries(&memory);
        for (n, indexed) in all.iter().enumerate() {
            let cut = log.resolve(&Target::Before(indexed.id())).unwrap().unwrap();
            assert_eq!(cut.left_out.as_ref(), Some(indexed));
            assert_eq!(cut.kept.as_ref(), n.checked_sub(1).map(|n| &all[n]));
            let position =
                Target::Position { file: indexed.file.clone(), offset: indexed.entry.end, life: None };
            assert_eq!(log.resolve(&position).unwrap().unwrap().kept.as_ref(), Some(indexed));
            let after = log.resolve(&Target::After(indexed.id())).unwrap().unwrap();
            assert_eq!(log.size(Place(0), after.place).unwrap().transactions, n as u64 + 1);
        }
        let last = all.last().unwrap();
        let hole = log.resolve(&Target::Time(last.entry.commit_us + 1)).unwrap().unwrap_err();
        assert_eq!(hole.before.as_ref(), Some(last));
        let first = log.resolve(&Target::Time(all[0].entry.commit_us - 2_000_000)).unwrap().unwrap_err();
        assert_eq!(first.after.as_ref(), Some(&all[0]), "nothing is known of the time before the log begins");
        let latest = log.resolve(&Target::Latest).unwrap().unwrap();
        assert_eq!(latest.kept.as_ref(), Some(last));
        assert_eq!(Some(latest.place), log.end());
    }
}

#[test]
fn find_gives_the_first_of_the_log_over_all_segments_and_says_that_there_are_more() {
    let source = Source::mysql();
    let memory = Memory::default();
    for events in [8, 12, usize::MAX] {
        follow_some(&memory, &source, events, 1, true).unwrap();
    }
    assert!(memory.stretches(&STREAM).unwrap().len() > 1);
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let all = entries(&memory);
    for limit in 0..=all.len() + 1 {
        let mut found = Vec::new();
        let more = crate::find::find(&log, &crate::find::Query::default(), limit, &mut |indexed| {
            found.push(indexed);
            Ok(())
        })
        .unwrap();
        assert_eq!(found.as_slice(), &all[..limit.min(all.len())]);
        assert_eq!(more, limit < all.len(), "at most {limit} of {}", all.len());
    }
}

#[test]
fn a_range_is_read_with_its_format_first() {
    let source = Source::mysql();
    let memory = Memory::default();
    follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let all = entries(&memory);
    let from = log.resolve(&Target::Before(all[1].id())).unwrap().unwrap().place;
    let until = log.resolve(&Target::After(all[3].id())).unwrap().unwrap().place;
    let mut cursor = log.read(from, until).unwrap();
    let (mut bytes, mut kinds, mut transactions) = (Vec::new(), Vec::new(), 0);
    let mut assembler = holdfast_binlog::transaction::Assembler::new();
    let mut walker = holdfast_binlog::Walker::new(0);
    while let Some(event) = cursor.next(&mut bytes).unwrap() {
        walker.set_position(event.offset);
        let parsed = walker.whole(&bytes).unwrap();
        kinds.push(parsed.kind());
        let format = walker.format().unwrap();
        if let holdfast_binlog::transaction::Pushed::End(_) = assembler.push(&parsed, format).unwrap() {
            transactions += 1;
        }
    }
    assert_eq!(kinds[0], EventType::FORMAT_DESCRIPTION);
    assert_eq!(transactions, 3);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, ..ProptestConfig::default() })]

    #[test]
    fn crashes_and_stops_lose_nothing_and_repeat_nothing(
        mysql: bool,
        runs in proptest::collection::vec((0usize..14, 1usize..6, any::<bool>(), 0usize..3), 1..7),
    ) {
        let source = if mysql { Source::mysql() } else { Source::mariadb() };
        let memory = Memory::default();
        for (events, sync_every, finish, lucky) in runs {
            follow_some(&memory, &source, events, sync_every, finish).unwrap();
            memory.crash(lucky);
        }
        follow_some(&memory, &source, usize::MAX, 4, true).unwrap();
        check_whole(&memory, &source);
    }
}

mod imports;
mod lives;
mod moments;
mod rot;
mod sets;
