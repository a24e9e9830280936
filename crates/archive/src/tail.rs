//! Where the archive of a stream ends, and from where it goes on: after a stop, a crash, or a gap.

use holdfast_binlog::Body;
use holdfast_binlog::event::FLAG_ARTIFICIAL;
use holdfast_binlog::kind::EventType;
use holdfast_format::gtid::GtidSet;
use holdfast_format::record::{LogGap, LogRecord, Position, Record, StreamKey};
use holdfast_format::txn_index::TxnEntry;

use crate::error::Result;
use crate::index::entry_of;
use crate::intake::{Anchor, FIRST_OFFSET};
use crate::join::Join;
use crate::log::LogReader;
use crate::storage::{LogStore, Stretch};
use crate::stretch::{Counts, StretchRecorder};

/// A stretch that a crash left behind, with the record that completes it.
#[derive(Debug)]
pub struct Orphan {
    /// The record: it ends behind the last whole transaction.
    pub record: LogRecord,
    /// The index of what counts of it.
    pub entries: Vec<TxnEntry>,
}

/// The end of a stream.
#[derive(Debug)]
pub struct Tail {
    /// Behind the last whole transaction (or event outside of one). `None`: nothing is archived.
    pub at: Option<Position>,
    /// What the source must serve again to prove that it is still the same log.
    pub anchor: Option<Anchor>,
    /// The file ended with a rotation to this one.
    pub rotated_to: Option<String>,
    /// Commit time of the last transaction, microseconds since the Unix epoch.
    pub last_us: Option<i64>,
    /// The gap that the stream ended with, unless the log went on behind it.
    pub gap: Option<LogGap>,
    /// Damage in stretches without a record. What lies behind it must come from the source again.
    pub damage: Vec<String>,
    /// Stretches without a record. If the stream is being written by another process now, its last one is among them.
    pub orphans: Vec<Orphan>,
}

/// Finds the end of a stream.
pub fn find(store: &dyn LogStore, stream: &StreamKey) -> Result<Tail> {
    let stretches = store.stretches(stream)?;
    let mut tail = Tail {
        at: None,
        anchor: None,
        rotated_to: None,
        last_us: None,
        gap: None,
        damage: Vec::new(),
        orphans: Vec::new(),
    };
    for (place, stretch) in stretches.iter().enumerate() {
        let last = place + 1 == stretches.len();
        if last || stretch.sealed.is_none() {
            let Some(walked) = walk(store, stream, &stretches, place)? else { continue };
            if stretch.sealed.is_none() {
                let mut last = walked.end.clone();
                last.offset = last.offset.max(stretch.start.offset);
                let (number, segment) = (stretch.number, stretch.segment);
                let record = walked.counts.record(stream, number, segment, &stretch.start, &last);
                tail.orphans.push(Orphan { record, entries: walked.entries });
            }
            tail.damage.extend(walked.damage);
            tail.at = Some(walked.end);
            tail.anchor = walked.anchor;
            tail.rotated_to = walked.rotated_to;
            tail.last_us = (walked.counts.transactions > 0).then_some(walked.counts.last_us).or(tail.last_us);
        } else if let Some(record) = stretch.sealed.as_ref().filter(|record| record.transactions > 0) {
            tail.last_us = Some(record.last_us);
        }
    }
    // The last stretch may hold no whole transaction; then one before it, of the same file, has the proof.
    for place in (0..stretches.len().saturating_sub(1)).rev() {
        let same_file = |at: &Position| stretches.get(place).is_some_and(|s| s.start.file == at.file);
        if tail.anchor.is_some() || !tail.at.as_ref().is_some_and(same_file) {
            break;
        }
        tail.anchor = walk(store, stream, &stretches, place)?.and_then(|walked| walked.anchor);
    }
    // A gap that the log went on behind (the source could serve it after all) is none.
    tail.gap = last_gap(store, stream)?.filter(|gap| {
        tail.at.as_ref().is_none_or(|at| at.file == gap.after.file && at.offset == gap.after.offset)
    });
    Ok(tail)
}

impl Tail {
    /// Of a stream of which nothing is archived: it begins there, behind the log of another server.
    pub fn begin_at(&mut self, join: Option<&Join>) {
        if let (None, Some(join)) = (&self.at, join) {
            self.at = Some(join.at.clone());
            self.anchor = Some(join.anchor.clone());
        }
    }
}

/// Completes what a crash left behind of a stream that is not gone on with: its index and its records would be made from
/// its events again and again, and other readers know its end by its last record.
pub fn close(store: &dyn LogStore, stream: &StreamKey) -> Result<()> {
    let tail = find(store, stream)?;
    let (Some(at), false) = (tail.at, tail.orphans.is_empty()) else { return Ok(()) };
    let stretches = store.stretches(stream)?;
    let mut reader =
        LogReader::over(store, stream, &stretches, stretches.len().saturating_sub(1), stretches.len())?;
    // For the format in force; damage ends it, as it ended the walk.
    while let Ok(Some(_)) = reader.next_event() {}
    let mut recorder = StretchRecorder::begin(store, stream, at.clone(), reader.format_event(), None)?;
    for orphan in tail.orphans {
        recorder.adopt(orphan)?;
    }
    recorder.seal(&at)?;
    Ok(())
}

struct Walked {
    /// Behind the last boundary; in an earlier stretch if this one lies inside a long transaction as a whole.
    end: Position,
    /// What counts of this stretch.
    counts: Counts,
    entries: Vec<TxnEntry>,
    anchor: Option<Anchor>,
    rotated_to: Option<String>,
    /// What ended it, if that is damage.
    damage: Option<String>,
}

/// Reads one stretch up to its last boundary: an unfinished transaction comes again. So does what lies behind damage in
/// a stretch without a record: no footer said that it ends there.
fn walk(
    store: &dyn LogStore,
    stream: &StreamKey,
    stretches: &[Stretch],
    place: usize,
) -> Result<Option<Walked>> {
    let Some(stretch) = stretches.get(place) else { return Ok(None) };
    let mut walked = Walked {
        end: stretch.start.clone(),
        counts: Counts::default(),
        entries: Vec::new(),
        anchor: None,
        rotated_to: None,
        damage: None,
    };
    let mut reader = LogReader::over(store, stream, stretches, place, place + 1)?;
    reader.give_all();
    walked.end.offset = reader.begins_at().unwrap_or(walked.end.offset);
    let (mut pending, mut first_of_open, mut open) = (Counts::default(), None::<Anchor>, false);
    loop {
        let event = match reader.next_event() {
            Ok(Some(event)) => event,
            Ok(None) => break,
            Err(error) if error.is_damage() && stretch.sealed.is_none() => {
                walked.damage = Some(error.to_string());
                break;
            }
            Err(error) => return Err(error),
        };
        let (at, raw) = (event.event.position, event.event.raw);
        match first_of_open.as_mut().filter(|_| open) {
            Some(anchor) => anchor.extend(at, raw),
            None => first_of_open = Some(Anchor::new(at, raw)),
        }
        open = !event.boundary;
        pending.add(event.event.raw.len(), event.transaction.as_deref());
        if open {
            continue;
        }
        walked.end.offset = event.end();
        if event.number < stretch.number {
            pending = Counts::default();
            walked.anchor = first_of_open.take();
            continue;
        }
        walked.counts = pending;
        match &event.transaction {
            Some(transaction) => {
                if let Some(gtid) = &transaction.gtid {
                    // A set of the wrong family can't come out of a stream of one family.
                    let _ = walked.end.gtid.add(gtid);
                }
                walked.entries.push(entry_of(transaction));
                walked.anchor = first_of_open.take();
            }
            None => outside(&event, &mut walked, first_of_open.take()),
        }
    }
    // Of a transaction that began earlier and ended here, only the bytes in this stretch are counted.
    walked.counts.bytes = walked.end.offset.saturating_sub(stretch.start.offset);
    Ok(Some(walked))
}

/// An event between transactions.
fn outside(event: &crate::log::LogEvent<'_>, walked: &mut Walked, anchor: Option<Anchor>) {
    let kind = event.event.kind();
    match event.event.parse(event.format) {
        Ok(Body::Rotate { file, .. }) if event.event.header.flags & FLAG_ARTIFICIAL == 0 => {
            walked.rotated_to = Some(String::from_utf8_lossy(file).into_owned());
        }
        // A file's list may know more than we do only at the very start of the archive.
        Ok(Body::PreviousGtids(set)) if walked.counts.transactions == 0 => {
            let _ = walked.end.gtid.union(&GtidSet::MySql(set));
        }
        Ok(Body::GtidList(state)) if walked.counts.transactions == 0 => {
            let _ = walked.end.gtid.union(&GtidSet::MariaDb(state.position()));
        }
        _ => {}
    }
    // The format description changes (its in-use flag), all other events can prove that the log is the same one.
    if kind != EventType::FORMAT_DESCRIPTION && walked.counts.transactions == 0 {
        walked.anchor = anchor.filter(|anchor| anchor.offset > FIRST_OFFSET);
    } else if let Some(anchor) = walked.anchor.as_mut() {
        anchor.extend(event.event.position, event.event.raw);
    }
}

/// The newest gap of a stream.
fn last_gap(store: &dyn LogStore, stream: &StreamKey) -> Result<Option<LogGap>> {
    let mut found = None;
    for stamped in store.records()? {
        if let Record::LogGap(gap) = &stamped.record
            && gap.stream == *stream
        {
            found = Some(gap.clone());
        }
    }
    Ok(found)
}
