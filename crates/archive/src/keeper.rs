//! Writes what the intake keeps into a stream: stretches begun and sealed where they must, heads of files held back until it
//! is known what was executed before them, and at the end a clean one.
//!
//! Where the events come from is not known here: `receiver.rs` has them from a source's socket, `import.rs` out of files.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{LogGap, Position, Record, StreamKey};

use crate::error::{Error, Result};
use crate::intake::{FIRST_OFFSET, Flaw, Intake, Kept, Taken, flaw_to_error};
use crate::join::Join;
use crate::log::stream_name;
use crate::options::{Followed, Note};
use crate::storage::LogStore;
use crate::stretch::StretchRecorder;
use crate::tail::{self, Orphan, Tail};

/// Events in a file before its list of GTIDs: the format description only.
const HEAD_EVENTS_MAX: usize = 4;

/// A stream that is being written.
pub(crate) struct Keeper<'a> {
    pub(crate) store: &'a dyn LogStore,
    pub(crate) stream: StreamKey,
    pub(crate) note: &'a mut dyn FnMut(Note<'_>),
    pub(crate) flavor: Flavor,
    /// Raw bytes at which a stretch is sealed.
    stretch_bytes: u64,
    pub(crate) intake: Option<Intake>,
    pub(crate) tail: Option<Tail>,
    pub(crate) orphans: Vec<Orphan>,
    pub(crate) recorder: Option<StretchRecorder>,
    /// Events of a file's head, until it is known what was executed before it, and that it is the one that follows.
    pub(crate) head: Vec<Vec<u8>>,
    /// The end of the file before, while nothing of the present one is archived.
    pub(crate) file_end: Option<Position>,
    pub(crate) transactions: u64,
    pub(crate) bytes: u64,
    pub(crate) last_us: i64,
    pub(crate) caught_up: bool,
    pub(crate) oldest_unsynced: Option<Instant>,
    pub(crate) last_sync: Instant,
}

impl<'a> Keeper<'a> {
    /// At the end of `stream`, or where it joins another one if nothing of it is archived.
    pub(crate) fn start(
        store: &'a dyn LogStore,
        stream: &StreamKey,
        join: Option<&Join>,
        stretch_bytes: u64,
        note: &'a mut dyn FnMut(Note<'_>),
    ) -> Result<Self> {
        let mut tail = tail::find(store, stream)?;
        for damage in &tail.damage {
            note(Note::Warning(format!("{damage}; what came behind it is asked from the server again")));
        }
        let last_us = tail.last_us.unwrap_or_default();
        tail.begin_at(join);
        Ok(Self {
            store,
            stream: *stream,
            note,
            flavor: Flavor::MySql,
            stretch_bytes,
            intake: None,
            orphans: std::mem::take(&mut tail.orphans),
            tail: Some(tail),
            recorder: None,
            head: Vec::new(),
            file_end: None,
            transactions: 0,
            bytes: 0,
            last_us,
            caught_up: false,
            oldest_unsynced: None,
            last_sync: Instant::now(),
        })
    }

    pub(crate) fn flaw(&self, flaw: Flaw) -> Error {
        let after = self.end();
        flaw_to_error(flaw, &stream_name(&self.stream), &after)
    }

    /// The end of what came and has a place in the archive.
    pub(crate) fn end(&self) -> Position {
        self.file_end.clone().unwrap_or_else(|| self.here())
    }

    /// The end of what came: a file's head included that still waits for what follows it.
    pub(crate) fn here(&self) -> Position {
        self.intake.as_ref().map_or_else(
            || Position { file: String::new(), offset: 0, gtid: GtidSet::empty(self.flavor) },
            Intake::position,
        )
    }

    /// Takes an event as it came.
    pub(crate) fn take(&mut self, raw: &[u8]) -> Result<()> {
        let Some(intake) = self.intake.as_mut() else { return Ok(()) };
        // Copied only where it may be needed: a set of GTIDs can be long.
        let room = self.recorder.as_ref().is_some_and(|recorder| recorder.has_room(raw.len()));
        let before = (!room || is_rotation(raw)).then(|| intake.position());
        match intake.take(raw) {
            Err(flaw) => Err(self.flaw(flaw)),
            Ok(Taken::Nothing) => Ok(()),
            Ok(Taken::CaughtUp) => {
                self.caught_up = true;
                Ok(())
            }
            Ok(Taken::File) => self.file(before),
            Ok(Taken::Keep(kept)) => self.keep(raw, &kept, before),
        }
    }

    /// Takes that the events which follow are those of this file from this offset on.
    pub(crate) fn rotate(&mut self, file: &str, offset: u64) -> Result<()> {
        let Some(intake) = self.intake.as_mut() else { return Ok(()) };
        let before = intake.position();
        match intake.rotated(file.to_owned(), offset) {
            Err(flaw) => Err(self.flaw(flaw)),
            Ok(Taken::File) => self.file(Some(before)),
            Ok(_) => Ok(()),
        }
    }

    /// A file begins behind this end of the one before.
    fn file(&mut self, end: Option<Position>) -> Result<()> {
        let Some(end) = end else { return Ok(()) };
        self.seal_at(&end)?;
        self.head.clear();
        // Of a file of which only the head came, nothing is archived.
        self.file_end.get_or_insert(end);
        Ok(())
    }

    /// `before` is the position before the event, if it may not find room in the segment.
    fn keep(&mut self, raw: &[u8], kept: &Kept, before: Option<Position>) -> Result<()> {
        self.caught_up = false;
        self.oldest_unsynced.get_or_insert_with(Instant::now);
        self.bytes += raw.len() as u64;
        let transaction = kept.transaction.as_deref();
        if let Some(transaction) = transaction {
            self.transactions += 1;
            self.last_us = i64::try_from(transaction.commit_micros).unwrap_or(i64::MAX);
        }
        let start = self.intake.as_ref().map_or(0, Intake::offset) - raw.len() as u64;
        // Made where it is needed: for most events it is not, and a set of GTIDs can be long.
        let at = |keeper: &Self, offset: u64| {
            let position = before.clone().unwrap_or_else(|| keeper.here());
            Position { offset, ..position }
        };
        if self.recorder.is_none() && !self.begin(&at(self, start), kept.since, raw)? {
            return Ok(());
        }
        let mut taken = 0;
        while let Some(recorder) = self.recorder.as_mut() {
            taken += recorder.put(raw.get(taken..).unwrap_or_default())?;
            if taken >= raw.len() {
                break;
            }
            // The segment is full in the middle of an event: the next one goes on there.
            let at = at(self, start + taken as u64);
            self.seal_at(&at)?;
            self.begin(&at, kept.since, raw)?;
        }
        let Some(recorder) = self.recorder.as_mut() else { return Ok(()) };
        recorder.count(transaction);
        let enough = recorder.is_full() || recorder.counts().bytes >= self.stretch_bytes;
        if kept.boundary && enough {
            let at = self.end();
            self.seal_at(&at)?;
        }
        Ok(())
    }

    /// Begins a stretch at `at`, the start of the event `raw` or a place inside it, which belongs to the transaction that
    /// begins at `since`. False: the event waits in `head`, because what came before the file is known only behind its
    /// list of GTIDs, and a format description alone proves nothing to a later connection.
    fn begin(&mut self, at: &Position, since: Option<u64>, raw: &[u8]) -> Result<bool> {
        let Some(intake) = self.intake.as_ref() else { return Ok(false) };
        let first_of_all = intake.executed().is_none() && !intake.is_open();
        if (first_of_all || at.offset == FIRST_OFFSET) && self.head.len() < HEAD_EVENTS_MAX {
            self.head.push(raw.to_vec());
            return Ok(false);
        }
        let head = std::mem::take(&mut self.head);
        let mut first = at.clone();
        if !head.is_empty() {
            // Of a file's head nothing is executed but what its list says.
            first.gtid = intake.position().gtid;
            first.offset -= head.iter().map(|event| event.len() as u64).sum::<u64>();
        }
        let inside = since.filter(|since| *since < first.offset);
        self.begin_stretch(first, inside)?;
        for event in &head {
            if let Some(recorder) = self.recorder.as_mut() {
                recorder.put(event)?;
                recorder.count(None);
            }
        }
        self.file_end = None;
        Ok(true)
    }

    pub(crate) fn begin_stretch(&mut self, first: Position, inside: Option<u64>) -> Result<()> {
        let format_event =
            self.intake.as_ref().map_or_else(Vec::new, |intake| intake.format_event().to_vec());
        let mut recorder = StretchRecorder::begin(self.store, &self.stream, first, &format_event, inside)?;
        // Only now that this stream is ours: until then another process might have been writing it.
        for orphan in std::mem::take(&mut self.orphans) {
            recorder.adopt(orphan)?;
        }
        self.recorder = Some(recorder);
        Ok(())
    }

    pub(crate) fn seal_at(&mut self, at: &Position) -> Result<()> {
        if let Some(recorder) = self.recorder.take() {
            let record = recorder.seal(at)?;
            self.oldest_unsynced = None;
            self.last_sync = Instant::now();
            (self.note)(Note::Sealed(&record));
            self.note_synced();
        }
        Ok(())
    }

    pub(crate) fn sync(&mut self) -> Result<()> {
        if let Some(recorder) = self.recorder.as_mut()
            && recorder.is_unsynced()
        {
            recorder.sync()?;
            self.last_sync = Instant::now();
            self.oldest_unsynced = None;
            self.note_synced();
        }
        Ok(())
    }

    pub(crate) fn note_synced(&mut self) {
        let at = self.end();
        (self.note)(Note::Synced {
            at: &at,
            last_us: self.last_us,
            transactions: self.transactions,
            caught_up: self.caught_up,
        });
    }

    /// Leaves a clean end: everything whole that came is durable and indexed.
    pub(crate) fn finish(mut self) -> Result<Followed> {
        let open = self.intake.as_ref().is_some_and(Intake::is_open);
        if open {
            // An unfinished transaction comes again; without a record its stretch ends at the last boundary.
            self.sync()?;
        } else {
            let at = self.end();
            self.seal_at(&at)?;
        }
        let at = match (&self.intake, self.tail.take().and_then(|tail| tail.at)) {
            (Some(intake), _) if intake.offset() > FIRST_OFFSET || self.file_end.is_some() => {
                Some(self.end())
            }
            (_, tail) => tail,
        };
        Ok(Followed { at, transactions: self.transactions, bytes: self.bytes })
    }

    /// Ends the stream: what is good is sealed, then the gap is recorded, unless it is known already.
    pub(crate) fn record_gap(&mut self, reason: &str) -> Result<()> {
        if self.intake.as_ref().is_some_and(Intake::is_open) {
            self.sync()?;
        } else {
            let at = self.end();
            self.seal_at(&at)?;
        }
        let after = self.end();
        let known = self.tail.as_ref().and_then(|tail| tail.gap.as_ref());
        if known.is_some_and(|gap| gap.after.file == after.file && gap.after.offset == after.offset) {
            return Ok(());
        }
        let gap = LogGap { stream: self.stream, after, reason: reason.to_owned(), at_us: now_us() };
        self.store.append(Record::LogGap(gap))
    }
}

/// An artificial rotation or a real one: the next event may be of another file.
pub(crate) fn is_rotation(raw: &[u8]) -> bool {
    raw.get(4) == Some(&holdfast_binlog::EventType::ROTATE.0)
}

/// Microseconds since the Unix epoch.
fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
