//! Reads the events between two places, over the logs of several servers where one goes on behind the other.

use std::collections::VecDeque;

use holdfast_format::record::{Position, StreamKey};

use super::{Place, ServerLog, place, split};
use crate::error::{Error, Result};
use crate::log::LogReader;

impl<'s> ServerLog<'s> {
    /// Reads the events between two places.
    pub fn read(&self, from: Place, until: Place) -> Result<Cursor<'s>> {
        let (file_no, offset) = split(from);
        let mut base = 0;
        let mut parts: VecDeque<Part> = VecDeque::new();
        for (order, stream) in self.streams.iter().enumerate() {
            let next = base + stream.files.len();
            // The stream that `from` lies in, and those that go on behind it.
            let begin = match file_no.checked_sub(base).and_then(|at| stream.files.get(at)) {
                Some(span) if parts.is_empty() => Some((file_no, span, offset.max(span.start))),
                _ if parts.is_empty() => None,
                _ if !stream.joined => break,
                _ => stream.files.first().map(|span| (base, span, span.start)),
            };
            if let Some((file_no, span, offset)) = begin
                && (parts.is_empty() || place(file_no, offset) < until)
            {
                let gtid = span.gtid_before.clone();
                parts.push_back(Part {
                    stream: stream.key,
                    from: Position { file: span.name.clone(), offset, gtid },
                    files: stream.files.iter().map(|span| span.name.clone()).collect(),
                    base,
                    until: self.end_of(order).map_or(until, |end| end.min(until)),
                });
            }
            base = next;
        }
        if let Some(mut part) = parts.pop_front() {
            let reader = LogReader::open_at(self.store, &part.stream, &part.from)?;
            if parts.is_empty() {
                part.until = until;
            }
            return Ok(Cursor { reader, part, later: parts, opened: false });
        }
        Err(Error::Unreachable {
            target: format!("place {}", from.0),
            reason: "the log there is not archived.".to_owned(),
            before: None,
            after: None,
        })
    }
}

/// Events between two places, in order.
#[derive(Debug)]
pub struct Cursor<'s> {
    reader: LogReader<'s>,
    part: Part,
    /// What goes on behind it, in the logs of other servers.
    later: VecDeque<Part>,
    opened: bool,
}

/// What is read of one stream.
#[derive(Debug)]
struct Part {
    stream: StreamKey,
    from: Position,
    files: Vec<String>,
    /// Files of the streams before it.
    base: usize,
    until: Place,
}

/// One event as the source wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawEvent {
    /// The source's file.
    pub file: String,
    /// Offset of the event in it.
    pub offset: u64,
}

impl Cursor<'_> {
    /// Replaces `bytes` by the next event's, checksum included. `None` at the end. The first event is a
    /// FORMAT_DESCRIPTION, even if the range begins behind it.
    pub fn next(&mut self, bytes: &mut Vec<u8>) -> Result<Option<RawEvent>> {
        if !self.opened {
            self.opened = true;
            return self.first(bytes);
        }
        let part = &self.part;
        if let Some(event) = self.reader.next_event()? {
            let file_no = part.files.iter().position(|name| name == event.file).unwrap_or_default();
            if place(part.base + file_no, event.end()) <= part.until {
                bytes.clear();
                bytes.extend_from_slice(event.event.raw);
                return Ok(Some(RawEvent { file: event.file.to_owned(), offset: event.event.position }));
            }
        }
        let Some(next) = self.later.pop_front() else { return Ok(None) };
        self.reader = LogReader::open_at(self.reader.store(), &next.stream, &next.from)?;
        self.part = next;
        self.first(bytes)
    }

    /// The format in force at the start: the first event itself, or the one before it.
    fn first(&mut self, bytes: &mut Vec<u8>) -> Result<Option<RawEvent>> {
        let Some(offset) = self.reader.peek()? else { return Ok(None) };
        if offset == crate::intake::FIRST_OFFSET {
            return self.next(bytes);
        }
        bytes.clear();
        bytes.extend_from_slice(self.reader.format_event());
        let file = self.reader.file().unwrap_or_default().to_owned();
        Ok(Some(RawEvent { file, offset: crate::intake::FIRST_OFFSET }))
    }
}
