//! Streams of log, from binlogs that real servers wrote, in every state that a crash can leave them in.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use holdfast_archive::storage::{Frames, LogStore, Stretch, StretchWriter};
use holdfast_archive::stretch::StretchRecorder;
use holdfast_archive::tail;
use holdfast_binlog::Body;
use holdfast_binlog::transaction::{Assembler, Pushed, Transaction};
use holdfast_binlog::walker::Walker;
use holdfast_store::Repository;
use holdfast_store::format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_store::format::ids::{SegmentId, hex};
use holdfast_store::format::names;
use holdfast_store::format::record::{LogGap, LogRecord, Position, Record, Stamped, StreamKey};
use holdfast_store::format::segment::FrameKind;
use serde_json::{Value, json};

use crate::backups::MARIA;
use crate::common::SERVER;
use crate::expected::hash;

/// What a reader must find.
pub struct Archived {
    pub segments: Vec<Value>,
    pub files: Vec<Value>,
    pub records: usize,
}

/// A binlog file of a server, event by event.
pub(crate) struct Binlog {
    pub(crate) name: String,
    pub(crate) bytes: Vec<u8>,
    /// Where each event begins, and the transaction that it ends.
    pub(crate) events: Vec<(usize, Option<Box<Transaction>>)>,
    /// What was executed before it.
    pub(crate) before: GtidSet,
}

impl Binlog {
    pub(crate) fn read(from: &str, name: &str) -> Self {
        let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(from);
        let bytes = std::fs::read(path).unwrap();
        let (mut walker, mut assembler) = (Walker::new(0), Assembler::new());
        let mut rest = walker.file(&bytes).unwrap();
        let mut events = Vec::new();
        let mut before = GtidSet::empty(Flavor::MySql);
        while !rest.is_empty() {
            let at = bytes.len() - rest.len();
            let event = walker.whole(rest).unwrap();
            rest = &rest[event.raw.len()..];
            let format = walker.format().unwrap();
            match event.parse(format).unwrap() {
                Body::PreviousGtids(set) => before = GtidSet::MySql(set),
                Body::GtidList(state) => before = GtidSet::MariaDb(state.position()),
                _ => {}
            }
            let transaction = match assembler.push(&event, format).unwrap() {
                Pushed::End(transaction) => Some(transaction),
                Pushed::Inside | Pushed::Outside => None,
            };
            events.push((at, transaction));
        }
        let mut bytes = bytes;
        // As a source sends it: the flag "in use" of the first event is clear.
        bytes[4 + 17] &= !1;
        Self { name: name.to_owned(), bytes, events, before }
    }

    pub(crate) fn event(&self, number: usize) -> (&[u8], Option<&Transaction>) {
        let (at, transaction) = &self.events[number];
        let end = self.events.get(number + 1).map_or(self.bytes.len(), |(at, _)| *at);
        (&self.bytes[*at..end], transaction.as_deref())
    }

    fn offset(&self, number: usize) -> u64 {
        self.events.get(number).map_or(self.bytes.len(), |(at, _)| *at) as u64
    }

    /// The second event of the last transaction, and where that transaction begins.
    fn inside(&self) -> (usize, u64) {
        let transactions: Vec<_> = self.events.iter().filter_map(|(_, t)| t.as_deref()).collect();
        let last = transactions.iter().rev().find(|t| t.events > 2).unwrap();
        let first = self.events.iter().position(|(at, _)| *at as u64 == last.start).unwrap();
        (first + 1, last.start)
    }

    pub(crate) fn all(&self) -> usize {
        self.events.len()
    }

    /// The numbers of the events behind each transaction.
    pub(crate) fn ends(&self) -> Vec<usize> {
        (0..self.all()).filter(|n| self.events[*n].1.is_some()).map(|n| n + 1).collect()
    }

    /// What a reader must find of its first `events`.
    fn expected(&self, stream: &StreamKey, events: usize) -> Value {
        let end = self.offset(events);
        let bytes = &self.bytes[..end as usize];
        json!({"stream": hex(&stream.to_bytes()), "file": self.name, "len": end, "blake3": hash(bytes)})
    }
}

/// What was put into each segment of a log, in order.
pub(crate) type NotedFrames = Arc<Mutex<BTreeMap<(StreamKey, u64), Vec<Value>>>>;

/// Notes the frames on their way into the repository.
pub(crate) struct Noted<'a> {
    pub(crate) repo: &'a Repository,
    pub(crate) frames: NotedFrames,
}

struct NotedWriter {
    inner: Box<dyn StretchWriter>,
    stream: StreamKey,
    frames: NotedFrames,
}

type Result<T> = holdfast_archive::Result<T>;

impl LogStore for Noted<'_> {
    fn streams(&self) -> Result<Vec<StreamKey>> {
        LogStore::streams(self.repo)
    }

    fn stretches(&self, stream: &StreamKey) -> Result<Vec<Stretch>> {
        self.repo.stretches(stream)
    }

    fn frames(&self, stretch: &Stretch) -> Result<Frames<'_>> {
        self.repo.frames(stretch)
    }

    fn index_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        self.repo.index_frames(stretch)
    }

    fn note_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        self.repo.note_frames(stretch)
    }

    fn begin(&self, stream: &StreamKey, start: &Position) -> Result<Box<dyn StretchWriter>> {
        let inner = self.repo.begin(stream, start)?;
        self.frames.lock().unwrap().insert((*stream, inner.number()), Vec::new());
        Ok(Box::new(NotedWriter { inner, stream: *stream, frames: Arc::clone(&self.frames) }))
    }

    fn records(&self) -> Result<Vec<Arc<Stamped>>> {
        LogStore::records(self.repo)
    }

    fn append(&self, record: Record) -> Result<()> {
        LogStore::append(self.repo, record)
    }
}

impl StretchWriter for NotedWriter {
    fn segment(&self) -> SegmentId {
        self.inner.segment()
    }

    fn number(&self) -> u64 {
        self.inner.number()
    }

    fn stored_bytes(&self) -> u64 {
        self.inner.stored_bytes()
    }

    fn adopt(&mut self, record: LogRecord) -> Result<()> {
        self.inner.adopt(record)
    }

    fn append(&mut self, kind: FrameKind, bytes: &[u8]) -> Result<()> {
        let name = match kind {
            FrameKind::LogIndex => "log index",
            FrameKind::LogMeta => "log meta",
            _ => "log events",
        };
        let frame = json!({"kind": name, "len": bytes.len(), "blake3": hash(bytes)});
        self.frames.lock().unwrap().get_mut(&(self.stream, self.inner.number())).unwrap().push(frame);
        self.inner.append(kind, bytes)
    }

    fn sync(&mut self) -> Result<()> {
        self.inner.sync()
    }

    fn seal(self: Box<Self>, record: LogRecord) -> Result<()> {
        self.inner.seal(record)
    }
}

/// One stream that is being made.
pub(crate) struct Following<'a> {
    pub(crate) store: &'a Noted<'a>,
    pub(crate) root: &'a Path,
    pub(crate) stream: StreamKey,
    pub(crate) executed: GtidSet,
}

impl Following<'_> {
    pub(crate) fn at(&self, log: &Binlog, event: usize) -> Position {
        Position { file: log.name.clone(), offset: log.offset(event), gtid: self.executed.clone() }
    }

    /// Begins a stretch at an event, and puts the events up to another one.
    pub(crate) fn begin(
        &mut self,
        log: &Binlog,
        from: usize,
        to: usize,
        inside: Option<u64>,
    ) -> StretchRecorder {
        let (format, _) = log.event(0);
        let first = self.at(log, from);
        let mut recorder = StretchRecorder::begin(self.store, &self.stream, first, format, inside).unwrap();
        self.put(&mut recorder, log, from, to);
        recorder
    }

    pub(crate) fn put(&mut self, recorder: &mut StretchRecorder, log: &Binlog, from: usize, to: usize) {
        for number in from..to {
            let (raw, transaction) = log.event(number);
            assert_eq!(recorder.put(raw).unwrap(), raw.len());
            recorder.count(transaction);
            if let Some(gtid) = transaction.and_then(|t| t.gtid.as_ref()) {
                self.executed.add(gtid).unwrap();
            }
            // Several frames a segment.
            if number % 3 == 2 {
                recorder.sync().unwrap();
            }
        }
        recorder.sync().unwrap();
    }

    /// The process dies while it writes: what follows the last synced frame was never acknowledged.
    fn dies(&self, recorder: StretchRecorder) {
        let number = recorder.number();
        drop(recorder);
        let stretches = self.store.stretches(&self.stream).unwrap();
        let segment = stretches.iter().find(|s| s.number == number).unwrap().segment;
        let name = self.root.join(names::log(segment));
        let mut bytes = std::fs::read(&name).unwrap();
        // The next frame's header, and the begin of a payload that was meant to be longer.
        bytes.extend_from_within(4096..4096 + 50);
        std::fs::write(&name, bytes).unwrap();
    }
}

pub fn archive_all(repo: &Repository, root: &Path) -> Archived {
    let frames = Arc::new(Mutex::new(BTreeMap::new()));
    let store = Noted { repo, frames: Arc::clone(&frames) };
    let mut files = Vec::new();
    of_mysql(&store, root, &mut files);
    let (records, unrecorded) = of_mariadb(&store, root, &mut files);
    let mut recorded = Vec::new();
    for stamped in repo.records() {
        if let Record::LogSealed(log) = &stamped.record {
            recorded.push((log.stream, log.number));
        }
    }
    recorded.retain(|sealed| *sealed != unrecorded);
    let frames = frames.lock().unwrap();
    let segments = frames.iter().map(|(of, frames)| {
        let (stream, number) = (hex(&of.0.to_bytes()), of.1);
        json!({"stream": stream, "number": number, "sealed": recorded.contains(of), "frames": frames})
    });
    Archived { segments: segments.collect(), files, records }
}

/// Two lives of a MySQL server, with a gap between them.
fn of_mysql(store: &Noted<'_>, root: &Path, files: &mut Vec<Value>) {
    let four = Binlog::read("archive/tests/data/mysql.000004", "binlog.000004");
    let five = Binlog::read("archive/tests/data/mysql.000005", "binlog.000005");
    let six = Binlog::read("binlog/tests/data/mysql-tagged.binlog", "binlog.000006");
    let stream = StreamKey { server: SERVER, source_uuid: Uuid([9; 16]), incarnation: 0 };
    let mut following = Following { store, root, stream, executed: four.before.clone() };
    // Number 0: a whole file.
    let recorder = following.begin(&four, 0, four.all(), None);
    recorder.seal(&following.at(&four, four.all())).unwrap();
    // Number 1: its writer dies inside a transaction.
    let (inside, since) = five.inside();
    let recorder = following.begin(&five, 0, inside + 1, None);
    following.dies(recorder);
    // Number 2 begins before that transaction, completes number 1, and ends inside the transaction again.
    let tail = tail::find(store, &stream).unwrap();
    let at = tail.at.unwrap();
    let again = (0..five.all()).find(|n| five.offset(*n) == at.offset).unwrap();
    following.executed = at.gtid;
    let mut recorder = following.begin(&five, again, again, None);
    for orphan in tail.orphans {
        recorder.adopt(orphan).unwrap();
    }
    following.put(&mut recorder, &five, again, inside);
    recorder.seal(&following.at(&five, inside)).unwrap();
    // Number 3 begins inside it.
    let recorder = following.begin(&five, inside, five.all(), Some(since));
    recorder.seal(&following.at(&five, five.all())).unwrap();
    // Number 4: the last one of this life, left behind.
    let last = six.all() - 1;
    let recorder = following.begin(&six, 0, last, None);
    following.dies(recorder);
    let after = following.at(&six, last);
    let reason = "the source has purged binlog.000007".to_owned();
    store.append(Record::LogGap(LogGap { stream, after, reason, at_us: 1_700_000_200_000_000 })).unwrap();
    files.extend([four.expected(&stream, four.all()), five.expected(&stream, five.all())]);
    files.push(six.expected(&stream, last));

    // The second life, which is being written still.
    let nine = Binlog { name: "binlog.000009".to_owned(), ..four };
    let next = StreamKey { incarnation: 1, ..stream };
    let mut following = Following { store, root, stream: next, executed: following.executed };
    std::mem::forget(following.begin(&nine, 0, nine.all(), None));
    files.push(nine.expected(&next, nine.all()));
}

/// A MariaDB server. The process dies between the trailer of the last segment and its record: gives how many records
/// there are then, and which segment that is.
fn of_mariadb(store: &Noted<'_>, root: &Path, files: &mut Vec<Value>) -> (usize, (StreamKey, u64)) {
    let six = Binlog::read("archive/tests/data/mariadb.000006", "mariadb.000006");
    let seven = Binlog::read("archive/tests/data/mariadb.000007", "mariadb.000007");
    let stream = StreamKey { server: MARIA, source_uuid: Uuid([8; 16]), incarnation: 0 };
    let mut following = Following { store, root, stream, executed: six.before.clone() };
    let recorder = following.begin(&six, 0, six.all(), None);
    recorder.seal(&following.at(&six, six.all())).unwrap();
    let recorder = following.begin(&seven, 0, seven.all(), None);
    let last = (stream, recorder.number());
    let heads: Vec<(PathBuf, Vec<u8>)> = names::HEADS
        .iter()
        .map(|n| root.join(n))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    let records = store.repo.records().len();
    recorder.seal(&following.at(&seven, seven.all())).unwrap();
    for copy in 0..names::MANIFESTS.len() {
        std::fs::remove_file(root.join(names::manifest(copy, records as u64))).unwrap();
    }
    for (path, bytes) in heads {
        std::fs::write(path, bytes).unwrap();
    }
    files.extend([six.expected(&stream, six.all()), seven.expected(&stream, seven.all())]);
    (records, last)
}
