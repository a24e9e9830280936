//! The whole log of one server: its streams one after the other, the holes between them, and the way from what a user
//! names (a time, a GTID, a position) to an exact cut between two transactions.

use std::collections::{BTreeSet, HashMap};
use std::ops::ControlFlow;

use holdfast_format::gtid::{GtidSet, Uuid};
use holdfast_format::ids::{SegmentId, ServerId};
use holdfast_format::record::{BackupRecord, COPIED_FROM, LogGap, Position, Record, StreamKey};
use holdfast_format::txn_index::{EntryView, FrameView};

use crate::error::Result;
use crate::find::Query;
use crate::index::{Indexed, each_frame, each_mapped};
use crate::intake::FIRST_OFFSET;
use crate::join;
use crate::log::LogReader;
use crate::mark::{self, FileMark};
use crate::storage::{LogStore, Stretch};

mod coverage;
mod cursor;
mod exactly;
mod files;
mod resolve;

pub use coverage::{Break, Interval, Joint};
pub use cursor::{Cursor, RawEvent};
pub use files::{ArchivedFile, between};
pub use resolve::{Cut, Hole, Target};

/// Bits of a place that hold the offset: files of 1 TiB.
const OFFSET_BITS: u32 = 40;

/// A place in a server's log: numbers that rise in its order. Good for one `ServerLog` and every later one of the same
/// server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place(pub u64);

/// A frame of the index, in place.
#[derive(Debug, Clone, Copy)]
pub struct SeenFrame<'v> {
    frame: &'v FrameView<'v>,
    life: Option<u32>,
    file_no: usize,
}

impl<'v> SeenFrame<'v> {
    /// Database and name of the tables that its transactions touch; [`Touched`](holdfast_format::txn_index::Touched)
    /// names them by their place here.
    #[must_use]
    pub fn tables(&self) -> &'v [(&'v [u8], &'v [u8])] {
        self.frame.tables()
    }

    /// Hands its transactions in order to `each`.
    pub fn each(&self, each: &mut dyn FnMut(&Seen<'_>) -> Result<()>) -> Result<()> {
        self.frame.each(|entry| {
            let place = |offset| place(self.file_no, offset);
            each(&Seen { from: place(entry.start), to: place(entry.end), entry, frame: self })
        })
    }
}

/// A transaction of the index, as long as it is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'v> {
    /// Its place.
    pub from: Place,
    /// The place behind it.
    pub to: Place,
    /// Its entry.
    pub entry: &'v EntryView<'v>,
    frame: &'v SeenFrame<'v>,
}

impl Seen<'_> {
    /// The source's file that it is in.
    #[must_use]
    pub fn file(&self) -> &str {
        self.frame.frame.file
    }

    /// The life of the log that it is of; `None` if there is one only.
    #[must_use]
    pub fn life(&self) -> Option<u32> {
        self.frame.life
    }

    /// The transaction with memory of its own.
    #[must_use]
    pub fn indexed(&self) -> Indexed {
        Indexed {
            file: self.file().to_owned(),
            number: self.frame.frame.number,
            life: self.life(),
            entry: self.entry.to_entry(),
        }
    }
}

/// A file of the source, as far as it is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
struct FileSpan {
    name: String,
    start: u64,
    end: u64,
    gtid_before: GtidSet,
}

/// A stream: no hole in it.
#[derive(Debug)]
struct StreamLog {
    key: StreamKey,
    files: Vec<FileSpan>,
    gap: Option<LogGap>,
    /// It goes on where the one before it ends, in the log of another server that had executed the same by then.
    joined: bool,
}

impl StreamLog {
    /// Whether a copy at this position, in the file in the middle of which the stream joins another one, stands in it: it
    /// is of that server, and had executed what was executed at the joint, which no other log of that name has.
    fn begins_before(&self, position: &Position, copy: &CopyFacts) -> bool {
        copy.source.is_none_or(|source| source == self.key.source_uuid)
            && self.files.first().is_some_and(|span| {
                span.name == position.file
                    && span.start > FIRST_OFFSET
                    && !span.gtid_before.is_empty()
                    && span.gtid_before.is_subset(&position.gtid)
            })
    }

    /// The files' numbers in a log in which `base` files come before.
    fn numbers(&self, base: usize) -> HashMap<&str, usize> {
        // Should a name be there twice, the first counts.
        self.files.iter().enumerate().rev().map(|(at, span)| (span.name.as_str(), base + at)).collect()
    }

    /// A frame of the index at its place; `None` if its file is not archived.
    fn seen<'v>(
        &self,
        frame: &'v FrameView<'v>,
        several: bool,
        numbers: &HashMap<&str, usize>,
    ) -> Option<SeenFrame<'v>> {
        let life = several.then_some(self.key.incarnation);
        numbers.get(frame.file).map(|&file_no| SeenFrame { frame, life, file_no })
    }
}

/// What tells in which lives of a server's log a copy can stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFacts {
    /// When it was begun, microseconds since the Unix epoch.
    pub taken_us: i64,
    /// The server that it was taken from (MySQL), if that is known.
    pub source: Option<Uuid>,
    /// The mark of the file in which it stands, or in which its bracket begins. Of a replica's copy: of the file that the
    /// source wrote when it was taken.
    pub mark: Option<FileMark>,
    /// It is a replica's: it stands where its GTIDs say exactly.
    pub of_replica: bool,
}

impl CopyFacts {
    /// Out of what a backup keeps; `fact` looks one up.
    #[must_use]
    pub fn new<'f>(taken_us: i64, fact: impl Fn(&str) -> Option<&'f str>) -> Self {
        Self {
            taken_us,
            source: fact("server_uuid").and_then(|uuid| uuid.parse().ok()),
            mark: fact(mark::FACT).and_then(|mark| mark.parse().ok()),
            of_replica: fact(COPIED_FROM).is_some(),
        }
    }

    /// Out of a backup's record.
    #[must_use]
    pub fn of(backup: &BackupRecord) -> Self {
        Self::new(backup.started_us, |key| backup.fact(key))
    }
}

/// How much lies between two places.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Size {
    /// Transactions.
    pub transactions: u64,
    /// Bytes of events.
    pub bytes: u64,
}

/// The log of a server as it is now.
pub struct ServerLog<'s> {
    store: &'s dyn LogStore,
    streams: Vec<StreamLog>,
}

impl std::fmt::Debug for ServerLog<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerLog").field("streams", &self.streams).finish()
    }
}

impl<'s> ServerLog<'s> {
    /// Looks at what there is.
    pub fn open(store: &'s dyn LogStore, server: ServerId) -> Result<Self> {
        let mut keys: Vec<_> = store.streams()?.into_iter().filter(|key| key.server == server).collect();
        // Lives of one server follow each other by number; another identity is another history.
        keys.sort_by_key(|key| (key.incarnation, key.source_uuid));
        keys.dedup();
        let mut streams = Vec::new();
        for key in keys {
            let stretches = store.stretches(&key)?;
            let joined = match (streams.last(), stretches.first()) {
                (Some(before), Some(first)) => joins(store, before, &key, &first.start)?,
                _ => false,
            };
            let files = files_of(store, &key, &stretches)?;
            streams.push(StreamLog { key, files, gap: gap_of(store, &key)?, joined });
        }
        // A gap that the log went on behind (the source could serve it after all) is none.
        if let Some(newest) = streams.last_mut()
            && let (Some(gap), Some(end)) = (&newest.gap, newest.files.last())
            && (end.name != gap.after.file || end.end != gap.after.offset)
        {
            newest.gap = None;
        }
        Ok(Self { store, streams })
    }

    /// True if nothing is archived.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.streams.iter().all(|stream| stream.files.is_empty())
    }

    /// The streams in order.
    #[must_use]
    pub fn streams(&self) -> Vec<StreamKey> {
        self.streams.iter().map(|stream| stream.key).collect()
    }

    /// Where it is read from.
    pub(crate) fn store(&self) -> &'s dyn LogStore {
        self.store
    }

    /// The life that a stream is of; `None` if there is one only.
    pub(crate) fn life_of(&self, key: &StreamKey) -> Option<u32> {
        (self.streams.len() > 1).then_some(key.incarnation)
    }

    /// The segments of a stream, by number, in which the index has a transaction that fits.
    pub(crate) fn segments_with(&self, key: &StreamKey, query: &Query) -> Result<BTreeSet<u64>> {
        let mut numbers = BTreeSet::new();
        each_frame(self.store, key, &mut |frame| {
            if !numbers.contains(&frame.number) {
                let wanted = query.wanted_of(frame.tables());
                frame.each(|entry| {
                    if query.matches(entry, &wanted) {
                        numbers.insert(frame.number);
                    }
                    Ok::<_, crate::error::Error>(())
                })?;
            }
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(numbers)
    }

    /// The streams of the newest part of the log, in which there is no hole.
    pub(crate) fn newest_part(&self) -> Vec<StreamKey> {
        let head = self.streams.iter().rposition(|stream| !stream.joined).unwrap_or(0);
        self.streams.iter().skip(head).map(|stream| stream.key).collect()
    }

    /// Hands every transaction in order to `each`, with its place and the place behind it, to be looked at in place.
    pub fn each(&self, each: &mut dyn FnMut(&Seen<'_>) -> Result<()>) -> Result<()> {
        self.each_frame(&mut |frame| {
            frame.each(each)?;
            Ok(ControlFlow::Continue(()))
        })
    }

    /// Hands the frames of the index in order to `each`, up to a `Break`.
    pub fn each_frame(&self, each: &mut dyn FnMut(&SeenFrame<'_>) -> Result<ControlFlow<()>>) -> Result<()> {
        let mut base = 0;
        for (stream, several) in self.lives() {
            let numbers = stream.numbers(base);
            let mut told = ControlFlow::Continue(());
            each_frame(self.store, &stream.key, &mut |frame| {
                if let Some(seen) = stream.seen(frame, several, &numbers) {
                    told = each(&seen)?;
                }
                Ok(told)
            })?;
            if told.is_break() {
                break;
            }
            base += stream.files.len();
        }
        Ok(())
    }

    /// What `map` makes of each frame of the index, in order, up to a `Break`. `map` runs on all cores, `each` here.
    pub fn each_mapped<T: Send>(
        &self,
        map: &(dyn Fn(&SeenFrame<'_>) -> Result<T> + Sync),
        each: &mut dyn FnMut(T) -> Result<ControlFlow<()>>,
    ) -> Result<()> {
        let mut base = 0;
        for (stream, several) in self.lives() {
            let numbers = stream.numbers(base);
            let look = |frame: Vec<u8>| {
                let frame = FrameView::decode(&frame)?;
                stream.seen(&frame, several, &numbers).map(|seen| map(&seen)).transpose()
            };
            let told = each_mapped(self.store, &stream.key, 0, &look, &mut |found| {
                found.map_or(Ok(ControlFlow::Continue(())), &mut *each)
            })?;
            if told.is_break() {
                break;
            }
            base += stream.files.len();
        }
        Ok(())
    }

    /// The streams, each with whether others are there: the same names come again then, so it is said of which they are.
    fn lives(&self) -> impl Iterator<Item = (&StreamLog, bool)> {
        self.streams.iter().map(|stream| (stream, self.streams.len() > 1))
    }

    /// The transactions that begin at these places, each with memory of its own.
    pub(super) fn at<const N: usize>(&self, places: [Option<Place>; N]) -> Result<[Option<Indexed>; N]> {
        let mut found = [const { None }; N];
        let wanted = places.iter().flatten();
        let mut left = wanted.clone().count();
        self.each_frame(&mut |frame| {
            if wanted.clone().any(|place| split(*place).0 == frame.file_no) {
                frame.each(&mut |seen| {
                    for (found, wanted) in found.iter_mut().zip(places) {
                        if wanted == Some(seen.from) {
                            *found = Some(seen.indexed());
                            left = left.saturating_sub(1);
                        }
                    }
                    Ok(())
                })?;
            }
            Ok(if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// Sealed stretches of the files before the one that `place` lies in: nothing that begins at `place` or behind it
    /// needs them.
    pub fn stretches_before(&self, place: Place) -> Result<Vec<SegmentId>> {
        let (limit, _) = split(place);
        let (mut first, mut found) = (0, Vec::new());
        for stream in &self.streams {
            let before = stream.files.get(..limit.saturating_sub(first).min(stream.files.len()));
            let before = before.unwrap_or(&[]);
            first += stream.files.len();
            if before.is_empty() {
                continue;
            }
            let stretches = self.store.stretches(&stream.key)?.into_iter();
            let inside = |s: &Stretch| s.sealed.is_some() && before.iter().any(|f| f.name == s.start.file);
            found.extend(stretches.filter(inside).map(|s| s.segment));
        }
        Ok(found)
    }

    /// Where a position of the source lies; `None` if it is not archived.
    pub fn place_of(&self, position: &Position) -> Result<Option<Place>> {
        self.place_in(position, &|_| true)
    }

    /// Where a position of a copy lies; `None` if it is not archived.
    ///
    /// After a reset, files, offsets and GTIDs come again: the same words name another place in each life. So a copy
    /// is looked for only in the lives that have its file, as its mark tells. A copy without a mark is looked for in the
    /// log of the server that it was taken from, and never in a life that began after it.
    pub fn place_of_copy(&self, position: &Position, copy: &CopyFacts) -> Result<Option<Place>> {
        let Some(mark) = &copy.mark else {
            let over = |gap: &LogGap| copy.taken_us <= gap.at_us;
            let end = self.streams.iter().position(|stream| stream.gap.as_ref().is_some_and(over));
            let last =
                end.and_then(|at| self.streams.get(at)).map_or(u32::MAX, |stream| stream.key.incarnation);
            return self.place_as(position, copy, &|key| {
                key.incarnation <= last && copy.source.is_none_or(|source| source == key.source_uuid)
            });
        };
        let (mut lives, mut heads) = (Vec::new(), Vec::new());
        for stream in self.streams.iter().filter(|s| s.files.iter().any(|span| span.name == mark.file)) {
            let archived = FileMark::of_archive(self.store, &stream.key, &mark.file)?;
            match archived {
                Some(archived) => lives.extend((archived == *mark).then_some(stream.key)),
                None => heads.extend(stream.begins_before(position, copy).then_some(stream.key)),
            }
        }
        // A mark proves it. What had executed enough may as well be the end of the log before, in a file of that name.
        if lives.is_empty() {
            lives = heads;
        }
        self.place_as(position, copy, &|key| lives.contains(key))
    }

    fn place_as(
        &self,
        position: &Position,
        copy: &CopyFacts,
        may_be: &dyn Fn(&StreamKey) -> bool,
    ) -> Result<Option<Place>> {
        if copy.of_replica {
            // Its own file, should anybody have noted one, is no file of this log.
            return self.place_up_to(&position.gtid, may_be);
        }
        self.place_in(position, may_be)
    }

    fn place_in(&self, position: &Position, may_be: &dyn Fn(&StreamKey) -> bool) -> Result<Option<Place>> {
        if position.file.is_empty() {
            return self.place_of_set(&position.gtid);
        }
        let mut base: usize = self.streams.iter().map(|stream| stream.files.len()).sum();
        // The newest life first: file names come again after a reset.
        for stream in self.streams.iter().rev() {
            base -= stream.files.len();
            if !may_be(&stream.key) {
                continue;
            }
            for (at, span) in stream.files.iter().enumerate() {
                let inside = span.name == position.file && (span.start..=span.end).contains(&position.offset);
                let same_history = position.gtid.is_empty() || span.gtid_before.is_subset(&position.gtid);
                if inside && same_history {
                    return Ok(Some(place(base + at, position.offset)));
                }
            }
        }
        Ok(None)
    }

    /// The place before the first transaction that is not in the set.
    fn place_of_set(&self, set: &GtidSet) -> Result<Option<Place>> {
        let (mut found, mut end, mut any) = (None, None, false);
        self.each(&mut |seen| {
            let in_set = seen.entry.gtid().is_none_or(|gtid| set.contains(&gtid));
            any |= in_set;
            if !in_set && found.is_none() {
                found = Some(seen.from);
            }
            end = Some(seen.to);
            Ok(())
        })?;
        let known =
            any || self.streams.iter().flat_map(|s| s.files.first()).any(|f| f.gtid_before.is_subset(set));
        Ok(found.or(end).filter(|_| known))
    }

    fn last_before(&self, end: Place) -> Result<Option<Indexed>> {
        let in_frame = |frame: &SeenFrame<'_>| {
            let mut last = None;
            if frame.file_no <= split(end).0 {
                frame.each(&mut |seen| {
                    last = if seen.to <= end { Some(seen.from) } else { last };
                    Ok(())
                })?;
            }
            Ok(last)
        };
        let mut last = None;
        self.each_mapped(&in_frame, &mut |found| {
            last = found.or(last);
            Ok(ControlFlow::Continue(()))
        })?;
        let [last] = self.at([last])?;
        Ok(last)
    }

    /// The source's file and offset at a place.
    #[must_use]
    pub fn position_at(&self, place: Place) -> Option<(String, u64)> {
        let (number, offset) = split(place);
        let span = self.streams.iter().flat_map(|stream| &stream.files).nth(number)?;
        Some((span.name.clone(), offset))
    }

    /// The end of the log.
    #[must_use]
    pub fn end(&self) -> Option<Place> {
        let files: usize = self.streams.iter().map(|stream| stream.files.len()).sum();
        let last = self.streams.iter().rev().find_map(|stream| stream.files.last())?;
        Some(place(files.checked_sub(1)?, last.end))
    }

    /// The first hole between two places.
    pub fn gap(&self, from: Place, until: Place) -> Result<Option<Hole>> {
        let (mut base, mut next) = (0, 0);
        for (at, stream) in self.streams.iter().enumerate() {
            next += stream.files.len();
            if self.streams.get(at + 1).is_some_and(|after| after.joined) {
                continue;
            }
            let (first, last) = (place(base, 0), place(next, 0));
            base = next;
            if from < first || from >= last || until <= last {
                continue;
            }
            let reason = self.break_reason(at);
            let end = stream.files.last().map(|span| place(next - 1, span.end)).unwrap_or(last);
            let before = self.last_before(end)?;
            let mut after = None;
            let begin = place(next, 0);
            if at + 1 < self.streams.len() {
                self.each(&mut |seen| {
                    if seen.from >= begin && after.is_none() {
                        after = Some(seen.indexed());
                    }
                    Ok(())
                })?;
            }
            return Ok(Some(Hole { before, after, ..Hole::new(reason) }));
        }
        Ok(None)
    }

    /// How much lies between two places.
    pub fn size(&self, from: Place, until: Place) -> Result<Size> {
        let files = split(from).0..=split(until).0;
        let inside = |frame: &SeenFrame<'_>| {
            let mut size = Size::default();
            if files.contains(&frame.file_no) {
                frame.each(&mut |seen| {
                    if seen.from >= from && seen.to <= until {
                        size.transactions += 1;
                        size.bytes += seen.entry.end - seen.entry.start;
                    }
                    Ok(())
                })?;
            }
            Ok(size)
        };
        let mut sum = Size::default();
        self.each_mapped(&inside, &mut |size| {
            sum.transactions += size.transactions;
            sum.bytes += size.bytes;
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(sum)
    }
}

fn place(file_no: usize, offset: u64) -> Place {
    Place((file_no as u64) << OFFSET_BITS | offset.min((1 << OFFSET_BITS) - 1))
}

fn split(place: Place) -> (usize, u64) {
    let file_no = usize::try_from(place.0 >> OFFSET_BITS).unwrap_or(usize::MAX);
    (file_no, place.0 & ((1 << OFFSET_BITS) - 1))
}

/// The files of a stream and how far each is archived: up to the last transaction's end, or the last event between.
fn files_of(store: &dyn LogStore, key: &StreamKey, stretches: &[Stretch]) -> Result<Vec<FileSpan>> {
    let mut files: Vec<FileSpan> = Vec::new();
    for (place, stretch) in stretches.iter().enumerate() {
        let end = match &stretch.sealed {
            Some(record) => record.last.offset,
            None => boundary_of(store, key, stretches, place)?.max(stretch.start.offset),
        };
        match files.last_mut().filter(|span| span.name == stretch.start.file) {
            // A stretch that begins before the end of the one before takes its place.
            Some(span) => span.end = end,
            None => files.push(FileSpan {
                name: stretch.start.file.clone(),
                start: stretch.start.offset,
                end,
                gtid_before: stretch.start.gtid.clone(),
            }),
        }
    }
    Ok(files)
}

/// The last boundary in a stretch without a record.
fn boundary_of(store: &dyn LogStore, key: &StreamKey, stretches: &[Stretch], place: usize) -> Result<u64> {
    let mut end = 0;
    let mut reader = LogReader::over(store, key, stretches, place, place + 1)?;
    while let Some(event) = reader.next_event()? {
        if event.boundary {
            end = event.end();
        }
    }
    Ok(end)
}

/// Whether a stream goes on where the one before it ends: it is of another server, which had executed by then exactly what
/// was executed there. Transactions are told by their GTIDs, so nothing lies between.
fn joins(store: &dyn LogStore, before: &StreamLog, key: &StreamKey, start: &Position) -> Result<bool> {
    if before.key.source_uuid == key.source_uuid || start.gtid.is_empty() {
        return Ok(false);
    }
    Ok(join::executed(store, &before.key)?.is_some_and(|executed| executed == start.gtid))
}

fn gap_of(store: &dyn LogStore, key: &StreamKey) -> Result<Option<LogGap>> {
    let mut found = None;
    for stamped in store.records()? {
        if let Record::LogGap(gap) = &stamped.record
            && gap.stream == *key
        {
            found = Some(gap.clone());
        }
    }
    Ok(found)
}
