//! Writes one stretch of log: gathers events into frames, counts, keeps the index, seals.

use holdfast_binlog::transaction::Transaction;
use holdfast_format::limits::SEGMENT_BYTES;
use holdfast_format::log_meta::LogMeta;
use holdfast_format::record::{LogRecord, Position, StreamKey};
use holdfast_format::segment::FrameKind;
use holdfast_format::txn_index::{IndexFrame, TxnEntry};

use crate::error::Result;
use crate::index::entry_of;
use crate::intake::FIRST_OFFSET;
use crate::storage::{LogStore, StretchWriter};
use crate::tail::Orphan;

/// Bytes of events in one frame at most. Frames compress well at this size, and a reader holds one.
pub const FRAME_BYTES: usize = 1 << 20;

/// Stored bytes at which a stretch takes no more events. A segment is full at 64 MiB; 64 MiB of the smallest
/// transactions have an index of 3 MiB.
const STORED_BYTES_MAX: u64 = SEGMENT_BYTES - (8 << 20);

/// Notes in one stretch at most: a day of an idle source, and a small part of the frames that a segment can hold.
const NOTES_MAX: u32 = 8192;

/// Frames of events in one stretch at most: half of what a segment can hold. Reached only where each commit of the source
/// waits for a frame of its own.
const FRAMES_MAX: u32 = 1 << 17;

/// What is counted while a stretch grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Transactions that ended.
    pub transactions: u64,
    /// Events.
    pub events: u64,
    /// Bytes of events.
    pub bytes: u64,
    /// Commit time of the first transaction, microseconds since the Unix epoch; 0 without one.
    pub first_us: i64,
    /// Commit time of the last transaction.
    pub last_us: i64,
}

impl Counts {
    /// Counts an event and the transaction that it ends.
    pub fn add(&mut self, bytes: usize, transaction: Option<&Transaction>) {
        self.events += 1;
        self.bytes += bytes as u64;
        if let Some(transaction) = transaction {
            let commit_us = i64::try_from(transaction.commit_micros).unwrap_or(i64::MAX);
            if self.transactions == 0 {
                self.first_us = commit_us;
            }
            self.last_us = commit_us;
            self.transactions += 1;
        }
    }

    /// The record of a stretch with these counts.
    #[must_use]
    pub fn record(
        &self,
        stream: &StreamKey,
        number: u64,
        segment: holdfast_format::ids::SegmentId,
        first: &Position,
        last: &Position,
    ) -> LogRecord {
        LogRecord {
            stream: *stream,
            number,
            segment,
            gtid_before: first.gtid.clone(),
            gtid_after: last.gtid.clone(),
            first: first.clone(),
            last: last.clone(),
            first_us: self.first_us,
            last_us: self.last_us,
            transactions: self.transactions,
            events: self.events,
            bytes: self.bytes,
        }
    }
}

/// A stretch that is being written.
pub struct StretchRecorder {
    writer: Box<dyn StretchWriter>,
    stream: StreamKey,
    first: Position,
    counts: Counts,
    buffer: Vec<u8>,
    entries: Vec<TxnEntry>,
    notes: u32,
    frames: u32,
    unsynced: bool,
}

impl std::fmt::Debug for StretchRecorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StretchRecorder").field("first", &self.first).field("counts", &self.counts).finish()
    }
}

impl StretchRecorder {
    /// Begins a stretch. `format_event` is written if it starts inside a file; `inside` is the start of the
    /// transaction that it begins in.
    pub fn begin(
        store: &dyn LogStore,
        stream: &StreamKey,
        first: Position,
        format_event: &[u8],
        inside: Option<u64>,
    ) -> Result<Self> {
        let mut writer = store.begin(stream, &first)?;
        if first.offset > FIRST_OFFSET {
            let meta = LogMeta::Format { event: format_event.to_vec() };
            writer.append(FrameKind::LogMeta, &meta.encode())?;
        }
        if let Some(start) = inside {
            writer.append(FrameKind::LogMeta, &LogMeta::Inside { start }.encode())?;
        }
        Ok(Self {
            writer,
            stream: *stream,
            first,
            counts: Counts::default(),
            buffer: Vec::new(),
            entries: Vec::new(),
            notes: 0,
            frames: 0,
            unsynced: true,
        })
    }

    /// Its number in the stream.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.writer.number()
    }

    /// Where it begins.
    #[must_use]
    pub fn first(&self) -> &Position {
        &self.first
    }

    /// What is in it so far.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// True if something was added since the last sync.
    #[must_use]
    pub fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    /// True if it takes no more events: what is left belongs to its index.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.notes >= NOTES_MAX
            || self.frames >= FRAMES_MAX
            || self.writer.stored_bytes() + self.buffer.len() as u64 >= STORED_BYTES_MAX
    }

    /// Notes that the source had nothing more at this time of its clock. No transaction may be open.
    pub fn complete(&mut self, at_us: i64) -> Result<()> {
        self.flush()?;
        self.writer.append(FrameKind::LogMeta, &LogMeta::Complete { at_us }.encode())?;
        self.notes += 1;
        self.unsynced = true;
        Ok(())
    }

    /// Notes that nothing was lost in this time.
    pub fn zero_loss(&mut self, from_us: i64, until_us: i64) -> Result<()> {
        self.flush()?;
        self.writer.append(FrameKind::LogMeta, &LogMeta::ZeroLoss { from_us, until_us }.encode())?;
        self.notes += 1;
        self.unsynced = true;
        Ok(())
    }

    /// True if an event of this length finds room for sure.
    #[must_use]
    pub fn has_room(&self, len: usize) -> bool {
        // Sealed frames are a little longer than their bytes if these don't compress.
        let more = self.buffer.len() as u64 + len as u64;
        self.notes < NOTES_MAX
            && self.frames + (more / FRAME_BYTES as u64) as u32 + 1 < FRAMES_MAX
            && self.writer.stored_bytes() + more + more / 64 + 4096 < STORED_BYTES_MAX
    }

    /// Offset behind the last byte.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.offset + self.counts.bytes
    }

    /// Adds bytes of an event; gives how many of them found room.
    pub fn put(&mut self, raw: &[u8]) -> Result<usize> {
        self.unsynced = true;
        let mut taken = 0;
        while taken < raw.len() && !self.is_full() {
            let rest = raw.get(taken..).unwrap_or_default();
            let piece = rest.get(..rest.len().min(FRAME_BYTES - self.buffer.len())).unwrap_or_default();
            self.buffer.extend_from_slice(piece);
            taken += piece.len();
            if self.buffer.len() >= FRAME_BYTES {
                self.flush()?;
            }
        }
        self.counts.bytes += taken as u64;
        Ok(taken)
    }

    /// Counts an event whose last bytes were put, and the transaction that it ends.
    pub fn count(&mut self, transaction: Option<&Transaction>) {
        self.counts.add(0, transaction);
        self.entries.extend(transaction.map(entry_of));
    }

    /// Makes a frame of what was gathered.
    pub fn flush(&mut self) -> Result<()> {
        if !self.buffer.is_empty() {
            self.writer.append(FrameKind::LogEvents, &self.buffer)?;
            self.frames += 1;
            self.buffer.clear();
        }
        Ok(())
    }

    /// Returns when everything that was added is durable.
    pub fn sync(&mut self) -> Result<()> {
        self.flush()?;
        if self.unsynced {
            self.writer.sync()?;
            self.unsynced = false;
        }
        Ok(())
    }

    /// Completes a stretch that a crash left behind, and keeps its index here.
    pub fn adopt(&mut self, orphan: Orphan) -> Result<()> {
        self.add_index_of(orphan.record.number, &orphan.record.first.file.clone(), orphan.entries)?;
        self.writer.adopt(orphan.record)
    }

    fn add_index_of(&mut self, number: u64, file: &str, entries: Vec<TxnEntry>) -> Result<()> {
        for frame in IndexFrame::split(number, file, entries, true) {
            self.writer.append(FrameKind::LogIndex, &frame.encode())?;
        }
        self.unsynced = true;
        Ok(())
    }

    /// Completes the stretch, which ends at `last`.
    pub fn seal(mut self, last: &Position) -> Result<LogRecord> {
        self.flush()?;
        let number = self.number();
        let entries = std::mem::take(&mut self.entries);
        self.add_index_of(number, &self.first.file.clone(), entries)?;
        self.writer.sync()?;
        let record = self.counts.record(&self.stream, number, self.writer.segment(), &self.first, last);
        self.writer.seal(record.clone())?;
        Ok(record)
    }
}
