//! What is covered: intervals without a hole, the breaks between them, and the moments that a restore accepts.

use std::ops::ControlFlow;

use holdfast_binlog::Header;
use holdfast_format::log_meta::LogMeta;
use holdfast_format::record::{Position, StreamKey};

use super::{Place, ServerLog, place, split};
use crate::error::{Error, Result};
use crate::index::{each_frame, each_frame_behind};
use crate::intake::FIRST_OFFSET;
use crate::log::LogReader;

/// A stretch of time and log without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interval {
    /// The stream.
    pub stream: StreamKey,
    /// Where it begins.
    pub from: Position,
    /// Where it ends: behind the last whole transaction.
    pub to: Position,
    /// `from` as a place.
    pub begin: Place,
    /// `to` as a place.
    pub end: Place,
    /// Commit time of its first transaction, microseconds since the Unix epoch; `None` if it has none.
    pub from_us: Option<i64>,
    /// Commit time of its last transaction.
    pub to_us: Option<i64>,
    /// Transactions in it.
    pub transactions: u64,
    /// Why it ends, if the log could not be continued.
    pub broken: Option<String>,
}

/// Where the log could not be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The last position before it.
    pub after: Position,
    /// When it was noticed, microseconds since the Unix epoch; unknown where another server took the name over.
    pub noticed_us: Option<i64>,
    /// Why.
    pub reason: String,
}

impl ServerLog<'_> {
    /// What is covered, in order; between two intervals there is a hole.
    pub fn coverage(&self) -> Result<Vec<Interval>> {
        let mut intervals = Vec::new();
        let mut files = 0;
        for stream in &self.streams {
            let base = files;
            files += stream.files.len();
            let (Some(first), Some(last)) = (stream.files.first(), stream.files.last()) else { continue };
            let mut interval = Interval {
                stream: stream.key,
                from: Position {
                    file: first.name.clone(),
                    offset: first.start,
                    gtid: first.gtid_before.clone(),
                },
                to: Position { file: last.name.clone(), offset: last.end, gtid: first.gtid_before.clone() },
                begin: place(base, first.start),
                end: place(files - 1, last.end),
                from_us: None,
                to_us: None,
                transactions: 0,
                broken: stream.gap.as_ref().map(|gap| gap.reason.clone()),
            };
            let stretches = self.store.stretches(&stream.key)?;
            // The record of a sealed stretch says all that is asked here; only what is behind them is looked through.
            let sealed: Vec<_> = stretches.iter().map_while(|stretch| stretch.sealed.as_ref()).collect();
            for record in &sealed {
                if record.transactions > 0 {
                    interval.from_us.get_or_insert(record.first_us);
                    interval.to_us = Some(record.last_us);
                }
                interval.transactions += record.transactions;
            }
            if let Some(record) = sealed.last() {
                interval.to.gtid = record.gtid_after.clone();
            }
            each_frame_behind(self.store, &stream.key, sealed.len(), &mut |frame| {
                frame.each(|entry| {
                    interval.from_us.get_or_insert(entry.commit_us);
                    interval.to_us = Some(entry.commit_us);
                    interval.transactions += 1;
                    if let Some(gtid) = entry.gtid() {
                        // One stream has GTIDs of one family.
                        let _ = interval.to.gtid.add(&gtid);
                    }
                    Ok::<_, Error>(())
                })?;
                Ok(ControlFlow::Continue(()))
            })?;
            intervals.push(interval);
        }
        Ok(intervals)
    }

    /// The times in which nothing that a client was told is committed can have been lost, as far as that was proved: from
    /// and until, microseconds since the Unix epoch by the source's clock, in order.
    pub fn zero_loss(&self) -> Result<Vec<(i64, i64)>> {
        let mut intervals: Vec<(i64, i64)> = Vec::new();
        for stream in &self.streams {
            for stretch in self.store.stretches(&stream.key)? {
                for frame in self.store.note_frames(&stretch)? {
                    let Ok(LogMeta::ZeroLoss { from_us, until_us }) = LogMeta::decode(&frame) else {
                        continue;
                    };
                    match intervals.last_mut() {
                        // One that grew.
                        Some(last) if last.0 == from_us => last.1 = last.1.max(until_us),
                        _ => intervals.push((from_us, until_us)),
                    }
                }
            }
        }
        Ok(intervals)
    }

    /// The breaks in the log, oldest first: those between two lives, and one at its end if it could not go on.
    pub fn breaks(&self) -> Vec<Break> {
        let newest = self.streams.len().saturating_sub(1);
        let broken = self.streams.iter().enumerate().filter(|(at, s)| *at < newest || s.gap.is_some());
        broken
            .filter_map(|(at, stream)| {
                let after = match (&stream.gap, stream.files.last()) {
                    (Some(gap), _) => gap.after.clone(),
                    (None, Some(last)) => {
                        Position { file: last.name.clone(), offset: last.end, gtid: last.gtid_before.clone() }
                    }
                    (None, None) => return None,
                };
                let noticed_us = stream.gap.as_ref().map(|gap| gap.at_us);
                Some(Break { after, noticed_us, reason: self.break_reason(at) })
            })
            .collect()
    }

    /// Why a life of the log ends.
    pub(super) fn break_reason(&self, at: usize) -> String {
        match self.streams.get(at).and_then(|stream| stream.gap.as_ref()) {
            Some(gap) => format!("the log has a hole: {}", gap.reason),
            None => "the log has a hole where the server began another life".to_owned(),
        }
    }

    /// The first and the last moment that [`ServerLog::resolve`] takes as a time and that a copy at `base` can be
    /// brought to by the log behind it: the cut lies at `base` or behind it, and before the next hole. Microseconds
    /// since the Unix epoch. `None` if there is no such moment.
    pub fn moments(&self, base: Place) -> Result<Option<(i64, i64)>> {
        let at = self.stream_at(base);
        // Times need not rise in the log: it is the latest one so far that counts.
        let (mut before, mut inside): (Option<i64>, Option<i64>) = (None, None);
        self.each(&mut |seen| {
            let commit_us = Some(seen.entry.commit_us);
            if seen.from < base {
                before = before.max(commit_us);
            } else if self.stream_at(seen.from) == at {
                inside = inside.max(commit_us);
            }
            Ok(())
        })?;
        let Some(begin) = self.begins_us(at)? else { return Ok(None) };
        let mut first = begin.max(before.unwrap_or(i64::MIN));
        for earlier in 0..at {
            // What an older life is known to be complete up to is that one's.
            first = first.max(self.complete_us(earlier)?.map_or(i64::MIN, |complete| complete + 1));
        }
        let last_left_out = inside.filter(|inside| Some(*inside) > before).map(|inside| inside - 1);
        let mut complete = self.complete_us(at)?;
        for later in at + 1..self.streams.len() {
            // A clock that was set back: what a later life says of the same time is about other transactions.
            complete = complete.min(self.begins_us(later)?.map(|begin| begin - 1).or(complete));
        }
        let Some(last) = last_left_out.max(complete) else { return Ok(None) };
        Ok((first <= last).then_some((first, last)))
    }

    /// The stream that a place lies in, by its order.
    pub(super) fn stream_at(&self, at: Place) -> usize {
        let (file_no, _) = split(at);
        let mut base = 0;
        for (order, stream) in self.streams.iter().enumerate() {
            base += stream.files.len();
            if file_no < base {
                return order;
            }
        }
        self.streams.len().saturating_sub(1)
    }

    /// The end of a stream; `None` if nothing of it is archived.
    pub(super) fn end_of(&self, at: usize) -> Option<Place> {
        let files: usize = self.streams.iter().take(at + 1).map(|stream| stream.files.len()).sum();
        let last = self.streams.get(at)?.files.last()?;
        Some(place(files.checked_sub(1)?, last.end))
    }

    /// From when on a stream is known to be complete: for the first one, from the second after its first file was begun.
    /// A later one is known to have begun at its first transaction, or at its first note.
    pub(super) fn begins_us(&self, at: usize) -> Result<Option<i64>> {
        let Some(stream) = self.streams.get(at) else { return Ok(None) };
        let stretches = self.store.stretches(&stream.key)?;
        if self.streams.iter().take(at).all(|earlier| earlier.files.is_empty()) {
            let mut reader = LogReader::over(self.store, &stream.key, &stretches, 0, stretches.len())?;
            let first = reader.next_event()?.filter(|event| event.event.position == FIRST_OFFSET);
            let header = first.and_then(|event| event.event.raw.first_chunk().map(Header::read));
            return Ok(header.map(|header| (i64::from(header.timestamp) + 1) * 1_000_000));
        }
        let noted = match stretches.first() {
            Some(first) => complete_notes(&self.store.note_frames(first)?)?.into_iter().min(),
            None => None,
        };
        let mut first = None;
        each_frame(self.store, &stream.key, &mut |frame| {
            frame.each(|entry| {
                first.get_or_insert(entry.commit_us);
                Ok::<_, Error>(())
            })?;
            Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(match (noted, first) {
            (Some(noted), Some(first)) => Some(noted.min(first)),
            (noted, first) => noted.or(first),
        })
    }

    /// Up to when a stream is known to be complete beyond its last transaction, as its last note says.
    pub(super) fn complete_us(&self, at: usize) -> Result<Option<i64>> {
        let Some(stream) = self.streams.get(at) else { return Ok(None) };
        for stretch in self.store.stretches(&stream.key)?.iter().rev() {
            let noted = complete_notes(&self.store.note_frames(stretch)?)?.into_iter().max();
            // Notes before a transaction say less than it does.
            if noted.is_some() || stretch.sealed.as_ref().is_some_and(|record| record.transactions > 0) {
                return Ok(noted);
            }
        }
        Ok(None)
    }
}

fn complete_notes(frames: &[Vec<u8>]) -> Result<Vec<i64>> {
    let mut noted = Vec::new();
    for frame in frames {
        if let LogMeta::Complete { at_us } = LogMeta::decode(frame)? {
            noted.push(at_us);
        }
    }
    Ok(noted)
}
