//! Reads a stream's events back in order, over sealed segments, those that a crash left behind, and the open one.

use std::collections::VecDeque;

use holdfast_binlog::event::Event;
use holdfast_binlog::kind::EventType;
use holdfast_binlog::transaction::{Assembler, Pushed, Transaction};
use holdfast_binlog::{FormatDescription, Walker};
use holdfast_format::log_meta::LogMeta;
use holdfast_format::record::{LogGap, Position, Record, StreamKey};
use holdfast_format::segment::FrameKind;

use crate::error::{Error, Result};
use crate::intake::FIRST_OFFSET;
use crate::storage::{Frames, LogStore, Stretch};

/// One event as it is archived.
#[derive(Debug)]
pub struct LogEvent<'a> {
    /// The source's file.
    pub file: &'a str,
    /// Number of the segment.
    pub number: u64,
    /// The event; `event.position` is its offset in the file.
    pub event: Event<'a>,
    /// The format in force behind it.
    pub format: &'a FormatDescription,
    /// No transaction is open behind it.
    pub boundary: bool,
    /// The transaction that it ends.
    pub transaction: Option<Box<Transaction>>,
}

impl LogEvent<'_> {
    /// Offset behind the event.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.event.position + self.event.raw.len() as u64
    }
}

/// Reads events in order. Memory: one event and one frame.
pub struct LogReader<'s> {
    store: &'s dyn LogStore,
    stream: StreamKey,
    ahead: VecDeque<(Stretch, Option<u64>)>,
    current: Option<Current<'s>>,
    walker: Walker,
    assembler: Assembler,
    /// Events before this one, of the first segment's file, are read for what they define and not given.
    skip_to: Option<(String, u64)>,
    /// Events that end in segments before this one are not given.
    skip_number: u64,
    /// The last format description as it was sent; empty before the first one.
    format_event: Vec<u8>,
    buffer: Vec<u8>,
    start: usize,
    /// The buffer holds the head of an event, from this offset on, that goes on in the next stretch.
    carried: Option<u64>,
    peeked: Option<Step>,
}

/// What `advance` found.
struct Step {
    begin: usize,
    position: u64,
    boundary: bool,
    transaction: Option<Box<Transaction>>,
}

struct Current<'s> {
    stretch: Stretch,
    frames: Frames<'s>,
    /// Offset at which the stretch stops to count, if that is known.
    end: Option<u64>,
    offset: u64,
}

impl std::fmt::Debug for LogReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LogReader").field("stream", &self.stream).field("ahead", &self.ahead.len()).finish()
    }
}

impl<'s> LogReader<'s> {
    /// Everything of a stream.
    pub fn open(store: &'s dyn LogStore, stream: &StreamKey) -> Result<Self> {
        let stretches = store.stretches(stream)?;
        Self::over(store, stream, &stretches, 0, stretches.len())
    }

    /// Everything of a stream from a position between two transactions on. Fails if it is not archived.
    pub fn open_at(store: &'s dyn LogStore, stream: &StreamKey, from: &Position) -> Result<Self> {
        let stretches = store.stretches(stream)?;
        let place = stretches
            .iter()
            .rposition(|s| s.start.file == from.file && s.start.offset <= from.offset.max(FIRST_OFFSET));
        let Some(place) = place else {
            return Err(Error::Unreachable {
                target: format!("{}:{}", from.file, from.offset),
                reason: "the log there is not archived.".to_owned(),
                before: None,
                after: None,
            });
        };
        let mut reader = Self::over(store, stream, &stretches, place, stretches.len())?;
        reader.skip_to = Some((from.file.clone(), from.offset));
        Ok(reader)
    }

    /// The segments `first..last` out of `stretches`. If the first one begins inside a transaction, earlier ones are
    /// read, too, but not given.
    pub fn over(
        store: &'s dyn LogStore,
        stream: &StreamKey,
        stretches: &[Stretch],
        first: usize,
        last: usize,
    ) -> Result<Self> {
        let mut begin = first;
        while begin > 0 {
            let before = stretches.get(begin - 1).map(|before| &before.start.file);
            match stretches.get(begin) {
                Some(stretch) if before == Some(&stretch.start.file) && begins_inside(store, stretch)? => {
                    begin -= 1;
                }
                _ => break,
            }
        }
        let mut ahead = VecDeque::new();
        for (place, stretch) in stretches.iter().enumerate().take(last).skip(begin) {
            let end = end_of(stretch, stretches.get(place + 1..).unwrap_or_default());
            // Nothing counts of a stretch that a later one took the place of as a whole.
            if end.is_none_or(|end| end > stretch.start.offset) {
                ahead.push_back((stretch.clone(), end));
            }
        }
        Ok(Self {
            store,
            stream: *stream,
            ahead,
            current: None,
            walker: Walker::new(FIRST_OFFSET),
            assembler: Assembler::new(),
            skip_to: None,
            format_event: Vec::new(),
            skip_number: stretches.get(first).map_or(0, |stretch| stretch.number),
            buffer: Vec::new(),
            start: 0,
            carried: None,
            peeked: None,
        })
    }

    /// The event that describes the format in force, as the source sent it.
    #[must_use]
    pub fn format_event(&self) -> &[u8] {
        &self.format_event
    }

    /// Where it reads from.
    pub(crate) fn store(&self) -> &'s dyn LogStore {
        self.store
    }

    /// Gives the events of earlier segments, too, that are read only because a transaction began there.
    pub(crate) fn give_all(&mut self) {
        self.skip_number = 0;
    }

    /// Offset of the first event that will be read.
    pub(crate) fn begins_at(&self) -> Option<u64> {
        self.ahead.front().map(|(stretch, _)| stretch.start.offset)
    }

    /// Offset of the next event, which is kept for `next_event`. `None` at the end.
    pub(crate) fn peek(&mut self) -> Result<Option<u64>> {
        if self.peeked.is_none() {
            self.peeked = self.advance()?;
        }
        Ok(self.peeked.as_ref().map(|step| step.position))
    }

    /// The file of the event that was given or peeked at last.
    pub(crate) fn file(&self) -> Option<&str> {
        self.current.as_ref().map(|current| current.stretch.start.file.as_str())
    }

    /// The next event, or `None` at the end of what is archived.
    pub fn next_event(&mut self) -> Result<Option<LogEvent<'_>>> {
        let step = match self.peeked.take() {
            Some(step) => step,
            None => match self.advance()? {
                Some(step) => step,
                None => return Ok(None),
            },
        };
        let raw = self.buffer.get(step.begin..self.start).unwrap_or_default();
        let header = raw.first_chunk().map(holdfast_binlog::Header::read);
        let (Some(current), Some(format), Some(header)) = (&self.current, self.walker.format(), header)
        else {
            return Ok(None);
        };
        Ok(Some(LogEvent {
            file: &current.stretch.start.file,
            number: current.stretch.number,
            event: Event { header, position: step.position, raw, checksum: format.checksum },
            format,
            boundary: step.boundary,
            transaction: step.transaction,
        }))
    }

    /// Goes behind the next event that is wanted.
    fn advance(&mut self) -> Result<Option<Step>> {
        loop {
            if !self.fill()? {
                return Ok(None);
            }
            let Some(current) = self.current.as_mut() else { return Ok(None) };
            let bytes = self.buffer.get(self.start..).unwrap_or_default();
            let fail = |source| Error::Event { file: current.stretch.start.file.clone(), source };
            let event = self.walker.whole(bytes).map_err(fail)?;
            let (position, len) = (event.position, event.raw.len());
            let Some(format) = self.walker.format() else { return Ok(None) };
            let pushed = self.assembler.push(&event, format).map_err(fail)?;
            let boundary = !self.assembler.is_open();
            let transaction = match pushed {
                Pushed::End(transaction) => Some(transaction),
                Pushed::Inside | Pushed::Outside => None,
            };
            if event.kind() == EventType::FORMAT_DESCRIPTION {
                event.raw.clone_into(&mut self.format_event);
            }
            let begin = self.start;
            self.start += len;
            current.offset = position + len as u64;
            let too_early = self
                .skip_to
                .as_ref()
                .is_some_and(|(file, from)| *file == current.stretch.start.file && position < *from);
            if !too_early && current.stretch.number >= self.skip_number {
                return Ok(Some(Step { begin, position, boundary, transaction }));
            }
        }
    }

    /// Makes sure that a whole event lies at the front of the buffer. False at the end.
    fn fill(&mut self) -> Result<bool> {
        loop {
            if self.current.is_none() && !self.next_stretch()? {
                return Ok(false);
            }
            let Some(current) = self.current.as_mut() else { return Ok(false) };
            if current.end.is_some_and(|end| current.offset >= end) {
                self.current = None;
                continue;
            }
            let bytes = self.buffer.get(self.start..).unwrap_or_default();
            if whole_event(bytes) {
                return Ok(true);
            }
            let frame = match current.frames.next().transpose() {
                Err(error) if error.is_damage() && self.gap_begins_here()? => None,
                other => other?,
            };
            match frame {
                Some((FrameKind::LogEvents, bytes)) => {
                    self.buffer.drain(..self.start);
                    self.start = 0;
                    self.buffer.extend_from_slice(&bytes);
                }
                Some((FrameKind::LogMeta, bytes)) => self.meta(&bytes)?,
                Some(_) => {}
                None => self.end_stretch()?,
            }
        }
    }

    /// Whether a record tells that the stream ended in this stretch, without a record of its own: the source could not
    /// serve again what came behind.
    fn gap_begins_here(&self) -> Result<bool> {
        let Some(current) = &self.current else { return Ok(false) };
        let stretch = &current.stretch;
        let begins = |gap: &LogGap| {
            gap.stream == self.stream
                && gap.after.file == stretch.start.file
                && (stretch.start.offset..=current.offset).contains(&gap.after.offset)
        };
        let records = self.store.records()?;
        let told = records.iter().any(|s| matches!(&s.record, Record::LogGap(gap) if begins(gap)));
        Ok(told && stretch.sealed.is_none())
    }

    fn meta(&mut self, bytes: &[u8]) -> Result<()> {
        let Some(current) = &self.current else { return Ok(()) };
        if let LogMeta::Format { event } = LogMeta::decode(bytes)? {
            let mut walker = Walker::new(current.offset);
            walker
                .whole(&event)
                .map_err(|source| Error::Event { file: current.stretch.start.file.clone(), source })?;
            walker.set_position(current.offset);
            self.walker = walker;
            self.format_event = event;
        }
        Ok(())
    }

    /// The frames of a stretch ended. An event may go on in the next one; else bytes that are left are the part of an
    /// event that a crash cut off.
    fn end_stretch(&mut self) -> Result<()> {
        let Some(current) = self.current.take() else { return Ok(()) };
        let have = current.offset + self.buffer.len().saturating_sub(self.start) as u64;
        if let Some(end) = current.end.filter(|end| have < *end) {
            let reason = format!("the segment ends here, but {end} is said to be in it");
            return Err(self.damaged(&current.stretch.start.file, have, reason));
        }
        let goes_on = |next: &Stretch| {
            next.start.file == current.stretch.start.file && Some(next.start.offset) == current.end
        };
        match (current.end, self.ahead.front()) {
            (Some(end), Some((next, _))) if goes_on(next) => {
                let left = usize::try_from(end - current.offset).unwrap_or(usize::MAX);
                self.buffer.truncate(self.start.saturating_add(left));
                self.carried = Some(current.offset);
            }
            _ => self.carried = None,
        }
        Ok(())
    }

    fn next_stretch(&mut self) -> Result<bool> {
        let Some((stretch, end)) = self.ahead.pop_front() else { return Ok(false) };
        let offset = self.carried.take().unwrap_or_else(|| {
            self.buffer.clear();
            self.start = 0;
            stretch.start.offset
        });
        if offset == FIRST_OFFSET {
            self.walker = Walker::new(FIRST_OFFSET);
        }
        let frames = self.store.frames(&stretch)?;
        self.current = Some(Current { stretch, frames, end, offset });
        Ok(true)
    }

    fn damaged(&self, file: &str, offset: u64, reason: String) -> Error {
        Error::Damaged { stream: stream_name(&self.stream), at: format!("{file}:{offset}"), reason }
    }
}

/// A stream for people.
#[must_use]
pub fn stream_name(stream: &StreamKey) -> String {
    match stream.incarnation {
        0 => format!("server {}", stream.source_uuid),
        n => format!("server {} (life {n})", stream.source_uuid),
    }
}

/// Where a stretch stops to count: at the end in its record, or where a later stretch of the same file begins.
fn end_of(stretch: &Stretch, later: &[Stretch]) -> Option<u64> {
    let superseded =
        later.iter().filter(|s| s.start.file == stretch.start.file).map(|s| s.start.offset).min();
    let recorded = stretch.sealed.as_ref().map(|record| record.last.offset);
    [superseded, recorded].into_iter().flatten().min()
}

fn begins_inside(store: &dyn LogStore, stretch: &Stretch) -> Result<bool> {
    if stretch.start.offset == FIRST_OFFSET {
        return Ok(false);
    }
    for frame in store.frames(stretch)? {
        // Damage hides whether it does: then it is read as if it did, which only reads more.
        let frame = match frame {
            Err(error) if error.is_damage() && stretch.sealed.is_none() => return Ok(true),
            other => other?,
        };
        match frame {
            (FrameKind::LogMeta, bytes) => {
                if matches!(LogMeta::decode(&bytes)?, LogMeta::Inside { .. }) {
                    return Ok(true);
                }
            }
            (FrameKind::LogEvents, _) => return Ok(false),
            _ => {}
        }
    }
    Ok(false)
}

fn whole_event(bytes: &[u8]) -> bool {
    bytes
        .first_chunk()
        .map(holdfast_binlog::Header::read)
        // A length that is too short for a header is for the walker to refuse.
        .is_some_and(|header| bytes.len() as u64 >= u64::from(header.length))
}
