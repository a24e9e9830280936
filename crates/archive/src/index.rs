//! From transactions to entries of the index, and from the repository back to entries.

use std::collections::HashMap;
use std::ops::ControlFlow;

use holdfast_binlog::tables::TableKey;
use holdfast_binlog::transaction::{Kind, Transaction};
use holdfast_format::record::StreamKey;
use holdfast_format::txn_index::{
    FrameView, IndexFrame, NAME_BYTES_MAX, STATEMENT_BYTES_MAX, StatementText, TABLES_MAX, TableChange,
    TxnEntry, TxnKind,
};

use crate::error::Result;
use crate::lanes::Lanes;
use crate::log::LogReader;
use crate::storage::{LogStore, Stretch};

/// Entries made from events that are held at once.
const REBUILT_AT_ONCE: usize = 1024;

/// Segments whose indexes are held at once, for each core. That of a segment is a twentieth of its size at most.
const SEGMENTS_A_CORE: usize = 2;

/// The entry of a transaction.
#[must_use]
pub fn entry_of(transaction: &Transaction) -> TxnEntry {
    let mut tables: Vec<TableChange> = Vec::new();
    let mut tables_cut = false;
    let fits = |key: &TableKey| key.database.len().max(key.table.len()) <= NAME_BYTES_MAX as usize;
    for (key, counts) in &transaction.tables {
        if tables.len() >= TABLES_MAX as usize || !fits(key) {
            tables_cut = true;
            continue;
        }
        tables.push(TableChange {
            database: key.database.clone().into_bytes(),
            table: key.table.clone().into_bytes(),
            inserted: counts.inserts,
            updated: counts.updates,
            deleted: counts.deletes,
        });
    }
    for key in transaction.statements.iter().flat_map(|statement| &statement.tables) {
        let known =
            tables.iter().any(|t| t.database == key.database.as_bytes() && t.table == key.table.as_bytes());
        if known {
            continue;
        }
        if tables.len() >= TABLES_MAX as usize || !fits(key) {
            tables_cut = true;
            continue;
        }
        tables.push(TableChange {
            database: key.database.clone().into_bytes(),
            table: key.table.clone().into_bytes(),
            inserted: 0,
            updated: 0,
            deleted: 0,
        });
    }
    TxnEntry {
        gtid: transaction.gtid.clone(),
        start: transaction.start,
        end: transaction.end,
        commit_us: i64::try_from(transaction.commit_micros).unwrap_or(i64::MAX),
        kind: kind_of(transaction.kind),
        tables,
        tables_cut,
        rolled_back: transaction.rolled_back,
        statement: statement_of(transaction),
    }
}

fn kind_of(kind: Kind) -> TxnKind {
    match kind {
        Kind::Rows => TxnKind::Rows,
        Kind::Ddl | Kind::Ctas => TxnKind::Ddl,
        Kind::Acl => TxnKind::Acl,
        Kind::Statement => TxnKind::Statement,
        Kind::Xa => TxnKind::Xa,
        Kind::Maintenance | Kind::Empty => TxnKind::Other,
    }
}

fn statement_of(transaction: &Transaction) -> Option<StatementText> {
    let note = transaction.statements.first()?;
    let (text, database) = (note.text.as_bytes(), note.database.as_bytes());
    let limit = STATEMENT_BYTES_MAX as usize;
    Some(StatementText {
        database: database.get(..database.len().min(NAME_BYTES_MAX as usize)).unwrap_or_default().to_vec(),
        text: text.get(..text.len().min(limit)).unwrap_or_default().to_vec(),
        cut: text.len() > limit,
    })
}

/// An entry with the file that its offsets are of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Indexed {
    /// The source's file.
    pub file: String,
    /// The segment that the transaction ends in, by number.
    pub number: u64,
    /// The life of the log that it is of; `None` if there is one only, and no need to say so.
    pub life: Option<u32>,
    /// The entry.
    pub entry: TxnEntry,
}

impl Indexed {
    /// What `restore --before` and `--after` take: the GTID, or else `pos:FILE:OFFSET` of the first event. Where the log
    /// has several lives, `@` and the life's number follow: names come again after a reset.
    #[must_use]
    pub fn id(&self) -> String {
        let id = match &self.entry.gtid {
            Some(gtid) => format!("gtid:{gtid}"),
            None => format!("pos:{}:{}", self.file, self.entry.start),
        };
        match self.life {
            Some(life) => format!("{id}@{life}"),
            None => id,
        }
    }
}

/// The whole index of a stream, in the order of the log, frame by frame, so that it can be looked through in place.
///
/// Reads the index frames; only segments without a complete index (being written, or just left behind by a crash) are
/// read event by event. No frame follows a `Break`.
pub fn each_frame(
    store: &dyn LogStore,
    stream: &StreamKey,
    each: &mut dyn FnMut(&FrameView<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    each_frame_behind(store, stream, 0, each)
}

/// The same without the stream's first `skipped` segments.
pub fn each_frame_behind(
    store: &dyn LogStore,
    stream: &StreamKey,
    skipped: usize,
    each: &mut dyn FnMut(&FrameView<'_>) -> Result<ControlFlow<()>>,
) -> Result<()> {
    each_mapped(store, stream, skipped, &|frame| Ok(frame), &mut |frame| each(&FrameView::decode(&frame)?))
        .map(|_| ())
}

/// What `map` makes of each encoded frame, in the order of the log. Segments are read and mapped on all cores, some at
/// once; `each` is called on this thread. Gives back what `each` said last.
pub(crate) fn each_mapped<T: Send>(
    store: &dyn LogStore,
    stream: &StreamKey,
    skipped: usize,
    map: &(dyn Fn(Vec<u8>) -> Result<T> + Sync),
    each: &mut dyn FnMut(T) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let stretches = store.stretches(stream)?;
    // The index of a segment that a crash left behind lies in the one that was begun next, so it must be known first.
    let mut indexes: HashMap<u64, Vec<T>> = HashMap::new();
    let mut ahead = skipped;
    let lanes = Lanes::get();
    for (place, stretch) in stretches.iter().enumerate().skip(skipped) {
        // A few segments are looked at ahead, more only behind one that was left behind.
        while ahead < stretches.len() && !indexes.contains_key(&stretch.number) {
            let until = stretches.len().min(ahead + SEGMENTS_A_CORE * lanes.count());
            let next = stretches.get(ahead..until).unwrap_or_default();
            for found in lanes.map(next, |next| whole_indexes(store, next, map)) {
                for (number, frames) in found? {
                    indexes.entry(number).or_insert(frames);
                }
            }
            ahead = until;
        }
        let told = match indexes.remove(&stretch.number) {
            Some(frames) => {
                frames.into_iter().try_fold(ControlFlow::Continue(()), |told, frame| match told {
                    ControlFlow::Continue(()) => each(frame),
                    told => Ok(told),
                })?
            }
            None => rebuilt_frames(store, stream, &stretches, place, &mut |frame| each(map(frame)?))?,
        };
        if told.is_break() {
            return Ok(told);
        }
    }
    Ok(ControlFlow::Continue(()))
}

/// The frames of the index of a segment that has none, made from its events.
fn rebuilt_frames(
    store: &dyn LogStore,
    stream: &StreamKey,
    stretches: &[Stretch],
    place: usize,
    each: &mut dyn FnMut(Vec<u8>) -> Result<ControlFlow<()>>,
) -> Result<ControlFlow<()>> {
    let mut told = ControlFlow::Continue(());
    let mut hand_over = |number, file: &str, entries| {
        for frame in IndexFrame::split(number, file, entries, false) {
            if told.is_continue() {
                told = each(frame.encode())?;
            }
        }
        Ok(told)
    };
    // The segment's number, the file, and entries of it.
    let mut held: Option<(u64, String, Vec<TxnEntry>)> = None;
    rebuild(store, stream, stretches, place, &mut |indexed| {
        let Indexed { file, number, entry, .. } = indexed;
        let full = |(_, of, entries): &mut (u64, String, Vec<TxnEntry>)| {
            *of != file || entries.len() >= REBUILT_AT_ONCE
        };
        let told = match held.take_if(full) {
            Some((number, of, entries)) => hand_over(number, &of, entries)?,
            None => ControlFlow::Continue(()),
        };
        held.get_or_insert_with(|| (number, file, Vec::new())).2.push(entry);
        Ok(told)
    })?;
    match held {
        Some((number, file, entries)) => hand_over(number, &file, entries),
        None => Ok(told),
    }
}

/// The indexes in a segment, by the number of the segment they are of, each frame mapped; one that a crash cut short is
/// left out.
fn whole_indexes<T>(
    store: &dyn LogStore,
    stretch: &Stretch,
    map: &(dyn Fn(Vec<u8>) -> Result<T> + Sync),
) -> Result<HashMap<u64, Vec<T>>> {
    let mut found: HashMap<u64, (Vec<T>, bool)> = HashMap::new();
    for bytes in store.index_frames(stretch)? {
        let frame = FrameView::decode(&bytes)?;
        let (number, complete) = (frame.number, frame.complete);
        let (frames, whole) = found.entry(number).or_insert_with(|| (Vec::new(), false));
        frames.push(map(bytes)?);
        *whole = complete;
    }
    Ok(found
        .into_iter()
        .filter(|(_, (_, whole))| *whole)
        .map(|(number, (frames, _))| (number, frames))
        .collect())
}

/// Makes the entries of one segment from its events, up to a `Break`.
fn rebuild(
    store: &dyn LogStore,
    stream: &StreamKey,
    stretches: &[Stretch],
    place: usize,
    each: &mut dyn FnMut(Indexed) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let mut reader = LogReader::over(store, stream, stretches, place, place + 1)?;
    while let Some(event) = reader.next_event()? {
        if let Some(transaction) = &event.transaction {
            let indexed = Indexed {
                file: event.file.to_owned(),
                number: event.number,
                life: None,
                entry: entry_of(transaction),
            };
            if each(indexed)?.is_break() {
                break;
            }
        }
    }
    Ok(())
}
