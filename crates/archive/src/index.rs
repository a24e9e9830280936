//! From transactions to entries of the index, and from the repository back to entries.

use std::collections::HashMap;

use holdfast_binlog::tables::TableKey;
use holdfast_binlog::transaction::{Kind, Transaction};
use holdfast_format::record::StreamKey;
use holdfast_format::txn_index::{
    FrameView, IndexFrame, NAME_BYTES_MAX, STATEMENT_BYTES_MAX, StatementText, TABLES_MAX, TableChange,
    TxnEntry, TxnKind,
};

use crate::error::Result;
use crate::log::LogReader;
use crate::storage::{LogStore, Stretch};

/// Entries made from events that are held at once.
const REBUILT_AT_ONCE: usize = 1024;

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
/// read event by event.
pub fn each_frame(
    store: &dyn LogStore,
    stream: &StreamKey,
    each: &mut dyn FnMut(&FrameView<'_>) -> Result<()>,
) -> Result<()> {
    each_frame_behind(store, stream, 0, each)
}

/// The same without the stream's first `skipped` segments.
pub fn each_frame_behind(
    store: &dyn LogStore,
    stream: &StreamKey,
    skipped: usize,
    each: &mut dyn FnMut(&FrameView<'_>) -> Result<()>,
) -> Result<()> {
    let stretches = store.stretches(stream)?;
    // The index of a segment that a crash left behind lies in the one that was begun next, so it must be known first.
    let mut indexes: HashMap<u64, Vec<Vec<u8>>> = HashMap::new();
    let mut ahead = skipped;
    for (place, stretch) in stretches.iter().enumerate().skip(skipped) {
        // One segment is looked at ahead, more only behind one that was left behind.
        while ahead < stretches.len() && !indexes.contains_key(&stretch.number) {
            if let Some(next) = stretches.get(ahead) {
                for (number, frames) in whole_indexes(store, next)? {
                    indexes.entry(number).or_insert(frames);
                }
            }
            ahead += 1;
        }
        let Some(frames) = indexes.remove(&stretch.number) else {
            rebuilt_frames(store, stream, &stretches, place, each)?;
            continue;
        };
        for frame in frames {
            each(&FrameView::decode(&frame)?)?;
        }
    }
    Ok(())
}

/// The frames of the index of a segment that has none, made from its events.
fn rebuilt_frames(
    store: &dyn LogStore,
    stream: &StreamKey,
    stretches: &[Stretch],
    place: usize,
    each: &mut dyn FnMut(&FrameView<'_>) -> Result<()>,
) -> Result<()> {
    let mut hand_over = |number, file: &str, entries| {
        for frame in IndexFrame::split(number, file, entries, false) {
            each(&FrameView::decode(&frame.encode())?)?;
        }
        Ok(())
    };
    // The segment's number, the file, and entries of it.
    let mut held: Option<(u64, String, Vec<TxnEntry>)> = None;
    rebuild(store, stream, stretches, place, &mut |indexed| {
        let Indexed { file, number, entry, .. } = indexed;
        let full = |(_, of, entries): &mut (u64, String, Vec<TxnEntry>)| {
            *of != file || entries.len() >= REBUILT_AT_ONCE
        };
        if let Some((number, of, entries)) = held.take_if(full) {
            hand_over(number, &of, entries)?;
        }
        held.get_or_insert_with(|| (number, file, Vec::new())).2.push(entry);
        Ok(())
    })?;
    held.map_or(Ok(()), |(number, file, entries)| hand_over(number, &file, entries))
}

/// The indexes in a segment, by the number of the segment they are of; one that a crash cut short is left out.
fn whole_indexes(store: &dyn LogStore, stretch: &Stretch) -> Result<HashMap<u64, Vec<Vec<u8>>>> {
    let mut found: HashMap<u64, (Vec<Vec<u8>>, bool)> = HashMap::new();
    for bytes in store.index_frames(stretch)? {
        let frame = FrameView::decode(&bytes)?;
        let (number, complete) = (frame.number, frame.complete);
        let (frames, whole) = found.entry(number).or_default();
        frames.push(bytes);
        *whole = complete;
    }
    Ok(found
        .into_iter()
        .filter(|(_, (_, whole))| *whole)
        .map(|(number, (frames, _))| (number, frames))
        .collect())
}

/// Makes the entries of one segment from its events.
pub fn rebuild(
    store: &dyn LogStore,
    stream: &StreamKey,
    stretches: &[Stretch],
    place: usize,
    each: &mut dyn FnMut(Indexed) -> Result<()>,
) -> Result<()> {
    let mut reader = LogReader::over(store, stream, stretches, place, place + 1)?;
    while let Some(event) = reader.next_event()? {
        if let Some(transaction) = &event.transaction {
            each(Indexed {
                file: event.file.to_owned(),
                number: event.number,
                life: None,
                entry: entry_of(transaction),
            })?;
        }
    }
    Ok(())
}
