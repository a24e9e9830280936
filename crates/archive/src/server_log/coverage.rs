//! What is covered: intervals without a hole, the breaks between them, and the moments that a restore accepts.

use std::ops::ControlFlow;

use holdfast_binlog::Header;
use holdfast_format::log_meta::LogMeta;
use holdfast_format::record::{Position, StreamKey};

use super::{Place, ServerLog, StreamLog, place, split};
use crate::error::{Error, Result};
use crate::index::{each_frame, each_frame_behind};
use crate::intake::FIRST_OFFSET;
use crate::log::LogReader;

/// Intervals of zero loss as they are written, made into those that may be claimed: a clock that went back says some times
/// twice, and those are claimed of neither turn.
#[derive(Debug, Default)]
struct Claims {
    intervals: Vec<(i64, i64)>,
    /// Begin of the last one, as it is written: it may grow.
    begun: Option<i64>,
    /// The latest time that was named, and the one that the last interval may not begin before.
    latest: Option<i64>,
    floor: i64,
}

impl Claims {
    fn add(&mut self, from: i64, until: i64) {
        if self.begun == Some(from) {
            if let Some(last) = self.intervals.last_mut().filter(|last| last.0 == from.max(self.floor)) {
                last.1 = last.1.max(until);
            } else if until > self.floor {
                self.intervals.push((from.max(self.floor), until));
            }
        } else {
            self.floor = i64::MIN;
            if let Some(latest) = self.latest.filter(|latest| from < *latest) {
                self.intervals.iter_mut().for_each(|earlier| earlier.1 = earlier.1.min(from));
                self.intervals.retain(|(from, until)| from < until);
                self.floor = latest;
            }
            if until > from.max(self.floor) {
                self.intervals.push((from.max(self.floor), until));
            }
        }
        self.begun = Some(from);
        self.latest = self.latest.max(Some(until));
    }
}

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

/// Where the log of one server goes on in that of another one, without a hole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joint {
    /// The end of the log of the one.
    pub after: Position,
    /// Where that of the other begins.
    pub at: Position,
    /// The other one.
    pub stream: StreamKey,
    /// Commit time of the first transaction behind it, microseconds since the Unix epoch; `None` if there is none yet.
    pub us: Option<i64>,
}

impl ServerLog<'_> {
    /// What is covered, in order; between two intervals there is a hole.
    pub fn coverage(&self) -> Result<Vec<Interval>> {
        let mut intervals: Vec<Interval> = Vec::new();
        for (stream, interval) in self.streams.iter().zip(self.of_streams()?) {
            let Some(interval) = interval else { continue };
            match intervals.last_mut().filter(|_| stream.joined) {
                Some(last) => {
                    (last.to, last.end) = (interval.to, interval.end);
                    last.from_us = last.from_us.or(interval.from_us);
                    last.to_us = interval.to_us.or(last.to_us);
                    last.transactions += interval.transactions;
                    last.broken = interval.broken;
                }
                None => intervals.push(interval),
            }
        }
        Ok(intervals)
    }

    /// Where the log of one server goes on in that of another one, in order.
    pub fn joints(&self) -> Result<Vec<Joint>> {
        let intervals = self.of_streams()?;
        let pairs = intervals.iter().zip(intervals.iter().skip(1)).zip(self.streams.iter().skip(1));
        let joint = |((before, behind), stream): ((&Option<Interval>, &Option<Interval>), &StreamLog)| {
            let (before, behind) = before.as_ref().zip(behind.as_ref())?;
            stream.joined.then(|| Joint {
                after: before.to.clone(),
                at: behind.from.clone(),
                stream: stream.key,
                us: behind.from_us,
            })
        };
        Ok(pairs.filter_map(joint).collect())
    }

    /// What each stream covers; `None` for one of which nothing is archived.
    fn of_streams(&self) -> Result<Vec<Option<Interval>>> {
        let mut intervals = Vec::new();
        let mut files = 0;
        for stream in &self.streams {
            let base = files;
            files += stream.files.len();
            let (Some(first), Some(last)) = (stream.files.first(), stream.files.last()) else {
                intervals.push(None);
                continue;
            };
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
            intervals.push(Some(interval));
        }
        Ok(intervals)
    }

    /// The times in which nothing that a client was told is committed can have been lost, as far as that was proved: from
    /// and until, microseconds since the Unix epoch by the source's clock, in order.
    pub fn zero_loss(&self) -> Result<Vec<(i64, i64)>> {
        let mut claims = Claims::default();
        for stream in &self.streams {
            for stretch in self.store.stretches(&stream.key)? {
                for frame in self.store.note_frames(&stretch)? {
                    if let Ok(LogMeta::ZeroLoss { from_us, until_us }) = LogMeta::decode(&frame) {
                        claims.add(from_us, until_us);
                    }
                }
            }
        }
        Ok(claims.intervals)
    }

    /// The breaks in the log, oldest first: those between two lives, and one at its end if it could not go on.
    pub fn breaks(&self) -> Vec<Break> {
        let newest = self.streams.len().saturating_sub(1);
        let joined = |at: usize| self.streams.get(at + 1).is_some_and(|next| next.joined);
        let streams = self.streams.iter().enumerate();
        let broken = streams.filter(|(at, s)| if *at < newest { !joined(*at) } else { s.gap.is_some() });
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
        let at = self.life_at(base);
        // Times need not rise in the log: it is the latest one so far that counts.
        let (mut before, mut inside): (Option<i64>, Option<i64>) = (None, None);
        self.each(&mut |seen| {
            let commit_us = Some(seen.entry.commit_us);
            if seen.from < base {
                before = before.max(commit_us);
            } else if self.life_at(seen.from) == at {
                inside = inside.max(commit_us);
            }
            Ok(())
        })?;
        let Some(begin) = self.begins_us(at)? else { return Ok(None) };
        let mut first = begin.max(before.unwrap_or(i64::MIN));
        for earlier in (0..at).filter(|earlier| self.is_head(*earlier)) {
            // What an older life is known to be complete up to is that one's.
            first = first.max(self.complete_us(earlier)?.map_or(i64::MIN, |complete| complete + 1));
        }
        let last_left_out = inside.filter(|inside| Some(*inside) > before).map(|inside| inside - 1);
        let mut complete = self.complete_us(at)?;
        for later in (at + 1..self.streams.len()).filter(|later| self.is_head(*later)) {
            // A clock that was set back: what a later life says of the same time is about other transactions.
            complete = complete.min(self.begins_us(later)?.map(|begin| begin - 1).or(complete));
        }
        let Some(last) = last_left_out.max(complete) else { return Ok(None) };
        Ok((first <= last).then_some((first, last)))
    }

    /// The life that a place lies in: a stream and those that go on behind it without a hole, by the order of the first.
    pub(super) fn life_at(&self, at: Place) -> usize {
        let (file_no, _) = split(at);
        let (mut base, mut head) = (0, 0);
        for (order, stream) in self.streams.iter().enumerate() {
            head = if stream.joined { head } else { order };
            base += stream.files.len();
            if file_no < base {
                break;
            }
        }
        head
    }

    /// Does a life begin with this stream?
    pub(super) fn is_head(&self, at: usize) -> bool {
        self.streams.get(at).is_some_and(|stream| !stream.joined)
    }

    /// The last stream of the life that begins with this one.
    pub(super) fn last_of(&self, head: usize) -> usize {
        let joined = self.streams.iter().skip(head + 1).take_while(|stream| stream.joined);
        head + joined.count()
    }

    /// The end of a stream; `None` if nothing of it is archived.
    pub(super) fn end_of(&self, at: usize) -> Option<Place> {
        let files: usize = self.streams.iter().take(at + 1).map(|stream| stream.files.len()).sum();
        let last = self.streams.get(at)?.files.last()?;
        Some(place(files.checked_sub(1)?, last.end))
    }

    /// From when on the life that begins with this stream is known to be complete: the first one from the second after its
    /// first file was begun. A later one is known to have begun at its first transaction, or at its first note.
    pub(super) fn begins_us(&self, head: usize) -> Result<Option<i64>> {
        let Some(stream) = self.streams.get(head) else { return Ok(None) };
        if self.streams.iter().take(head).all(|earlier| earlier.files.is_empty()) {
            let stretches = self.store.stretches(&stream.key)?;
            let mut reader = LogReader::over(self.store, &stream.key, &stretches, 0, stretches.len())?;
            let first = reader.next_event()?.filter(|event| event.event.position == FIRST_OFFSET);
            let header = first.and_then(|event| event.event.raw.first_chunk().map(Header::read));
            return Ok(header.map(|header| (i64::from(header.timestamp) + 1) * 1_000_000));
        }
        let noted = match self.store.stretches(&stream.key)?.first() {
            Some(first) => complete_notes(&self.store.note_frames(first)?)?.into_iter().min(),
            None => None,
        };
        let mut first = None;
        for stream in self.streams.get(head..=self.last_of(head)).unwrap_or_default() {
            each_frame(self.store, &stream.key, &mut |frame| {
                frame.each(|entry| {
                    first.get_or_insert(entry.commit_us);
                    Ok::<_, Error>(())
                })?;
                Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            if first.is_some() {
                break;
            }
        }
        Ok(match (noted, first) {
            (Some(noted), Some(first)) => Some(noted.min(first)),
            (noted, first) => noted.or(first),
        })
    }

    /// Up to when the life that begins with this stream is known to be complete beyond its last transaction, as its last
    /// note says.
    pub(super) fn complete_us(&self, head: usize) -> Result<Option<i64>> {
        let streams = self.streams.get(head..=self.last_of(head)).unwrap_or_default();
        let mut stretches = Vec::new();
        for stream in streams {
            stretches.extend(self.store.stretches(&stream.key)?);
        }
        for stretch in stretches.iter().rev() {
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

#[cfg(test)]
mod tests {
    use super::Claims;

    fn claimed(written: &[(i64, i64)]) -> Vec<(i64, i64)> {
        let mut claims = Claims::default();
        written.iter().for_each(|(from, until)| claims.add(*from, *until));
        claims.intervals
    }

    #[test]
    fn an_interval_that_grew_is_one() {
        assert_eq!(claimed(&[(1, 5), (1, 8), (9, 10), (9, 20)]), [(1, 8), (9, 20)]);
    }

    #[test]
    fn of_times_that_come_twice_nothing_is_claimed() {
        // Set back from 20 to 12, and told so; then it went on.
        assert_eq!(claimed(&[(1, 20), (12, 12), (21, 30)]), [(1, 12), (21, 30)]);
        // Not told: whoever wrote it was begun anew.
        assert_eq!(claimed(&[(1, 20), (14, 30), (14, 40)]), [(1, 14), (20, 40)]);
        // What lies in them altogether is gone, whether it grew out of them or not.
        assert_eq!(claimed(&[(1, 5), (10, 20), (3, 8)]), [(1, 3)]);
        assert_eq!(claimed(&[(1, 5), (10, 20), (3, 8), (3, 25)]), [(1, 3), (20, 25)]);
        // Forth by an hour and back again.
        assert_eq!(claimed(&[(0, 10), (110, 120), (19, 19), (121, 130)]), [(0, 10), (121, 130)]);
    }
}
