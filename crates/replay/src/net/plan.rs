//! What is done with a window: chunks, each one transaction of ours, and their order.
//!
//! The plan is a pure function of the window, so that a call after a kill makes the same
//! chunks again and leaves out those that were committed.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_binlog::event::Header;
use holdfast_binlog::kind::{EventType, RowChange, RowsKind};
use holdfast_binlog::rows::{FLAG_NO_FOREIGN_KEY_CHECKS, FLAG_STMT_END, FLAG_USE_SQL_FOREIGN_KEY, Rows};
use holdfast_binlog::tables::TableKey;
use holdfast_binlog::{Flaw, encode};

use super::image::SetId;
use super::key::Key;
use super::lane::{Lane, Run};
use super::merge::{Frame, Merge};
use super::window::Window;

/// Rows in a chunk: beyond that a commit costs nothing beside them, and a retry after a
/// deadlock would cost much.
const CHUNK_ROWS: usize = 20_000;

/// Tables with less than this share chunks with others: a transaction each would cost more
/// than their rows.
const SMALL_BYTES: usize = 256 << 10;

/// A row that must be as `after` at the end.
#[derive(Debug)]
struct Put {
    key: Key,
    /// It is there already.
    update: bool,
    /// The columns of `after`.
    set: SetId,
    after: Vec<u8>,
}

/// A table's net change in the order of its key.
#[derive(Debug)]
pub(crate) struct TablePlan {
    pub(crate) table: Arc<TableKey>,
    frame: Frame,
    /// Columns that images carry: one bit each.
    sets: Vec<Vec<u8>>,
    deletes: Vec<Key>,
    puts: Vec<Put>,
    /// Each chunk of deletes is a look through the whole table, which two appliers must not take at once.
    deletes_in_order: bool,
}

/// A piece of a chunk.
#[derive(Debug, Clone)]
enum Part {
    Deletes { table: usize, rows: Range<usize> },
    Puts { table: usize, rows: Range<usize> },
    Run { lane: usize, run: usize },
}

/// One transaction of ours.
#[derive(Debug)]
pub(crate) struct Chunk {
    parts: Vec<Part>,
    bytes: usize,
    pub(crate) rows: usize,
}

/// Chunks of one table or lane.
#[derive(Debug, Default)]
pub(crate) struct Stream {
    /// Chunks that come first, by number: the deletes of a table, or the runs of a lane.
    pub(crate) first: Vec<usize>,
    /// Chunks that come when the first are committed.
    pub(crate) then: Vec<usize>,
    /// Those that come first one at a time, in order.
    pub(crate) in_order: bool,
    /// The source's events, not net change.
    pub(crate) lane: bool,
}

/// The plan.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) tables: Vec<TablePlan>,
    lanes: Vec<(BTreeSet<Arc<TableKey>>, Vec<Run>)>,
    pub(crate) chunks: Vec<Chunk>,
    pub(crate) streams: Vec<Stream>,
    /// Tables whose counter stands at least behind this number at the end.
    pub(crate) counters: Vec<(Arc<TableKey>, u64)>,
    pub(crate) session: Option<String>,
    /// Bytes in a chunk.
    pub(crate) chunk_bytes: usize,
}

/// How large the chunks of a plan are.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ChunkSize {
    /// At most so large (twice, where that is all of a table), and no larger than leaves each of so many connections
    /// something to do up to the end.
    AtMost {
        /// Bytes.
        bytes: usize,
        /// Connections.
        connections: usize,
    },
    /// As on record: a part of the plan is applied already.
    Noted(usize),
}

/// Chunks for each connection: the last of them to end waits for no more than a fourth of its work.
const CHUNKS_EACH: usize = 4;

/// Chunks are not made smaller than this for the sake of that: a few hundred rows cost what their commit costs.
const CHUNK_LEAST: usize = 256 << 10;

/// Row data of all chunks that connections hold at once. Each is there as events and as a statement, and a connection
/// has one chunk; that may be twice as large as was chosen, where a table is left whole.
const CHUNKS_BYTES_MAX: usize = 64 << 20;

impl ChunkSize {
    /// For so many bytes in all.
    fn of(self, total: usize) -> usize {
        match self {
            Self::Noted(bytes) => bytes,
            Self::AtMost { bytes, connections } => {
                let each = total / connections.max(1) / CHUNKS_EACH;
                each.max(CHUNK_LEAST).min(CHUNKS_BYTES_MAX / 2 / connections.max(1)).min(bytes)
            }
        }
    }
}

/// `make` of each, in their order, on all processors. On this thread alone where the system gives no other.
fn side_by_side<T: Send, U: Send>(all: Vec<T>, make: impl Fn(T) -> U + Sync) -> Vec<U> {
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(all.len());
    let (left, made) = (Mutex::new(all.into_iter().enumerate()), Mutex::new(Vec::new()));
    let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
    let work = || {
        while let Some((at, one)) = next() {
            let one = make(one);
            made.lock().unwrap_or_else(PoisonError::into_inner).push((at, one));
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads {
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut made = made.into_inner().unwrap_or_else(PoisonError::into_inner);
    made.sort_unstable_by_key(|(at, _)| *at);
    made.into_iter().map(|(_, one)| one).collect()
}

impl Plan {
    /// Takes a finished window apart.
    pub(crate) fn new(window: Window, size: ChunkSize) -> Self {
        let counters = window
            .merged
            .iter()
            .filter_map(|merge| merge.counter().map(|highest| (Arc::clone(&merge.table), highest)))
            .collect();
        let session = window.session;
        // Tables come in the order in which the log names them first, which is the same each time.
        let tables = side_by_side(window.merged, TablePlan::new);
        let lanes = window.lanes.into_iter().map(|Lane { tables, runs, .. }| (tables, runs)).collect();
        let chunk_bytes = size.of(tables.iter().map(TablePlan::bytes).sum());
        let (chunks, streams) = (Vec::new(), Vec::new());
        let mut plan = Self { tables, lanes, chunks, streams, counters, session, chunk_bytes };
        plan.cut(chunk_bytes);
        plan
    }

    fn cut(&mut self, chunk_bytes: usize) {
        let mut pack = Chunk { parts: Vec::new(), bytes: 0, rows: 0 };
        for at in 0..self.tables.len() {
            let Some(table) = self.tables.get(at) else { continue };
            // One that is small beside the others is left whole: two appliers in one table wait for each other.
            let bytes = if table.bytes() <= 2 * chunk_bytes { 2 * chunk_bytes } else { chunk_bytes };
            let deletes = table.cut_deletes(at, bytes);
            let puts = table.cut_puts(at, bytes);
            let bytes: usize = deletes.iter().chain(&puts).map(|chunk| chunk.bytes).sum();
            if bytes == 0 {
                continue;
            }
            if bytes < SMALL_BYTES.min(chunk_bytes) {
                for chunk in deletes.into_iter().chain(puts) {
                    pack.parts.extend(chunk.parts);
                    pack.rows += chunk.rows;
                }
                pack.bytes += bytes;
                if pack.bytes >= chunk_bytes {
                    self.pack(&mut pack);
                }
                continue;
            }
            let in_order = table.deletes_in_order;
            let (first, then) = (self.number(deletes), self.number(puts));
            self.streams.push(Stream { first, then, in_order, lane: false });
        }
        self.pack(&mut pack);
        for lane in 0..self.lanes.len() {
            let runs = self.lanes.get(lane).map_or(0, |(_, runs)| runs.len());
            let chunk = |run| {
                let bytes = self.run(lane, run).map_or(0, |run| run.events.len());
                Chunk { parts: vec![Part::Run { lane, run }], bytes, rows: 0 }
            };
            let chunks = (0..runs).map(chunk).collect();
            let first = self.number(chunks);
            self.streams.push(Stream { first, then: Vec::new(), in_order: true, lane: true });
        }
    }

    fn pack(&mut self, pack: &mut Chunk) {
        if pack.parts.is_empty() {
            return;
        }
        let chunk = std::mem::replace(pack, Chunk { parts: Vec::new(), bytes: 0, rows: 0 });
        let first = self.number(vec![chunk]);
        self.streams.push(Stream { first, ..Stream::default() });
    }

    fn number(&mut self, chunks: Vec<Chunk>) -> Vec<usize> {
        let from = self.chunks.len();
        self.chunks.extend(chunks);
        (from..self.chunks.len()).collect()
    }

    fn run(&self, lane: usize, run: usize) -> Option<&Run> {
        self.lanes.get(lane)?.1.get(run)
    }

    /// A number that tells this plan from another one, to be kept with its window.
    pub(crate) fn print(&self) -> u64 {
        let mut hasher = crc32fast::Hasher::new();
        for chunk in &self.chunks {
            hasher.update(&(chunk.bytes as u64).to_le_bytes());
            hasher.update(&(chunk.rows as u64).to_le_bytes());
            hasher.update(&(chunk.parts.len() as u64).to_le_bytes());
        }
        u64::from(hasher.finalize()) << 24 | (self.chunks.len() as u64 & 0xff_ffff)
    }

    /// Bytes of a chunk, for the choice of what comes next.
    pub(crate) fn bytes(&self, chunk: usize) -> usize {
        self.chunks.get(chunk).map_or(0, |chunk| chunk.bytes)
    }

    /// Are there rows in it that go in the order of the log?
    pub(crate) fn has_lanes(&self) -> bool {
        self.streams.iter().any(|stream| stream.lane)
    }

    /// Bytes of rows in all chunks.
    pub(crate) fn all_bytes(&self) -> u64 {
        self.chunks.iter().map(|chunk| chunk.bytes as u64).sum()
    }

    /// Rows of net change in chunks that are not committed yet; those of lanes are not counted.
    pub(crate) fn rows_left(&self, committed: &HashSet<u32>) -> u64 {
        let left = self.chunks.iter().enumerate().filter(|(at, _)| !committed.contains(&(*at as u32)));
        left.map(|(_, chunk)| chunk.rows as u64).sum()
    }

    /// The tables of a chunk.
    pub(crate) fn tables_of(&self, chunk: usize) -> Vec<Arc<TableKey>> {
        let mut out = Vec::new();
        for part in self.chunks.get(chunk).map(|chunk| chunk.parts.as_slice()).unwrap_or_default() {
            match part {
                Part::Deletes { table, .. } | Part::Puts { table, .. } => {
                    out.extend(self.tables.get(*table).map(|table| Arc::clone(&table.table)));
                }
                Part::Run { lane, .. } => {
                    out.extend(
                        self.lanes.get(*lane).into_iter().flat_map(|(tables, _)| tables.iter().cloned()),
                    );
                }
            }
        }
        out.dedup();
        out
    }

    /// What a chunk is about, for messages.
    pub(crate) fn describe(&self, chunk: usize) -> String {
        let tables = self.tables_of(chunk);
        let names: Vec<String> = tables.iter().take(3).map(ToString::to_string).collect();
        let more = if tables.len() > 3 { format!(" and {} more", tables.len() - 3) } else { String::new() };
        let run = self.chunks.get(chunk).and_then(|chunk| match chunk.parts.first() {
            Some(Part::Run { lane, run }) => self.run(*lane, *run),
            _ => None,
        });
        match run {
            Some(run) => format!("rows of {}{more} between {} and {}", names.join(", "), run.from, run.to),
            None => format!("the net change of {}{more}", names.join(", ")),
        }
    }

    /// Replaces `out` by the events of a chunk.
    pub(crate) fn encode(&self, chunk: usize, out: &mut Vec<u8>) -> Result<(), Flaw> {
        out.clear();
        for part in self.chunks.get(chunk).map(|chunk| chunk.parts.as_slice()).unwrap_or_default() {
            match part {
                Part::Deletes { table, rows } => {
                    if let Some(plan) = self.tables.get(*table) {
                        plan.encode_deletes(*table, rows.clone(), out)?;
                    }
                }
                Part::Puts { table, rows } => {
                    if let Some(plan) = self.tables.get(*table) {
                        plan.encode_puts(*table, rows.clone(), out)?;
                    }
                }
                Part::Run { lane, run } => {
                    out.extend_from_slice(
                        self.run(*lane, *run).map(|run| run.events.as_slice()).unwrap_or_default(),
                    );
                }
            }
        }
        Ok(())
    }

    /// Is a chunk a run of events in the source's order?
    pub(crate) fn is_run(&self, chunk: usize) -> bool {
        let parts = self.chunks.get(chunk).map(|chunk| chunk.parts.as_slice()).unwrap_or_default();
        parts.iter().any(|part| matches!(part, Part::Run { .. }))
    }
}

impl TablePlan {
    fn new(merge: Merge) -> Self {
        if let Some(bag) = merge.bag {
            let (going, coming) = bag.into_rows();
            let put = |after| Put { key: Key::new(&[]), update: false, set: 0, after };
            return Self {
                table: merge.table,
                // A row's key is all of it.
                sets: vec![merge.frame.key.clone()],
                frame: merge.frame,
                deletes: going.iter().map(|image| Key::new(image)).collect(),
                puts: coming.into_iter().map(put).collect(),
                deletes_in_order: true,
            };
        }
        let mut rows: Vec<(u128, Key, super::merge::Change)> = merge
            .changes
            .into_iter()
            .map(|(key, change)| (merge.order.prefix(key.bytes()), key, change))
            .collect();
        rows.sort_unstable_by(|a, b| a.0.cmp(&b.0).then_with(|| a.1.bytes().cmp(b.1.bytes())));
        let (mut deletes, mut puts) = (Vec::new(), Vec::new());
        for (_, key, change) in rows {
            // An update would leave as they were the columns that have their defaults now.
            let defaults = change.fresh && !merge.sets.is_whole(change.set);
            let goes_first = change.replaced && merge.has_unique || defaults;
            match change.after {
                None if change.existed => deletes.push(key),
                None => {}
                Some(after) => {
                    if change.existed && goes_first {
                        deletes.push(key.clone());
                    }
                    let update = change.existed && !goes_first;
                    puts.push(Put { key, update, set: change.set, after });
                }
            }
        }
        let sets = merge.sets.into_list();
        Self { table: merge.table, frame: merge.frame, sets, deletes, puts, deletes_in_order: false }
    }

    /// Bytes of its rows in chunks.
    fn bytes(&self) -> usize {
        let deletes = self.deletes.iter().map(|key| self.delete_len(key));
        deletes.chain(self.puts.iter().map(|put| self.put_len(put))).sum()
    }

    fn delete_len(&self, key: &Key) -> usize {
        key.bytes().len() + self.frame.key_cells.div_ceil(8)
    }

    fn put_len(&self, put: &Put) -> usize {
        put.after.len() + if put.update { self.delete_len(&put.key) } else { 0 }
    }

    fn cut_deletes(&self, table: usize, chunk_bytes: usize) -> Vec<Chunk> {
        let lens = self.deletes.iter().map(|key| self.delete_len(key));
        cut(lens, chunk_bytes, |rows| Part::Deletes { table, rows })
    }

    fn cut_puts(&self, table: usize, chunk_bytes: usize) -> Vec<Chunk> {
        cut(self.puts.iter().map(|put| self.put_len(put)), chunk_bytes, |rows| Part::Puts { table, rows })
    }

    fn encode_deletes(&self, table: usize, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let mut data = Vec::new();
        for key in self.deletes.get(rows).unwrap_or_default() {
            self.key_image(key, &mut data);
        }
        self.table_map(table, out)?;
        self.event(table, RowChange::Delete, &[], true, &data, out)
    }

    fn encode_puts(&self, table: usize, rows: Range<usize>, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let puts = self.puts.get(rows).unwrap_or_default();
        // An event for each kind of change and set of columns.
        let mut events: Vec<(bool, SetId, Vec<u8>)> = Vec::new();
        let mut at = 0;
        for put in puts {
            let same = |(update, set, _): &(bool, SetId, Vec<u8>)| (*update, *set) == (put.update, put.set);
            if !events.get(at).is_some_and(same) {
                at = events.iter().position(same).unwrap_or(events.len());
            }
            if at == events.len() {
                events.push((put.update, put.set, Vec::new()));
            }
            let Some((_, _, data)) = events.get_mut(at) else { continue };
            if put.update {
                self.key_image(&put.key, data);
            }
            data.extend_from_slice(&put.after);
        }
        self.table_map(table, out)?;
        let count = events.len();
        for (number, (update, set, data)) in events.iter().enumerate() {
            let change = if *update { RowChange::Update } else { RowChange::Insert };
            let present = self.sets.get(usize::from(*set)).map(Vec::as_slice).unwrap_or_default();
            self.event(table, change, present, number + 1 == count, data, out)?;
        }
        Ok(())
    }

    /// An image of the primary key alone: the server finds the row by it and needs no more. A key that is the whole
    /// image has its own NULL bits.
    fn key_image(&self, key: &Key, out: &mut Vec<u8>) {
        out.resize(out.len() + self.frame.key_cells.div_ceil(8), 0);
        out.extend_from_slice(key.bytes());
    }

    fn table_map(&self, table: usize, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let id = (FIRST_TABLE_ID + table as u64).to_le_bytes();
        let id = id.get(..6).unwrap_or_default();
        encode::event(&self.frame.header, EventType::TABLE_MAP, &[id, &self.frame.definition], out)
    }

    fn event(
        &self,
        table: usize,
        change: RowChange,
        columns: &[u8],
        ends: bool,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(), Flaw> {
        let (present, present_after) = match change {
            RowChange::Insert => (columns, None),
            RowChange::Update => (self.frame.key.as_slice(), Some(columns)),
            RowChange::Delete => (self.frame.key.as_slice(), None),
        };
        let rows = Rows {
            kind: RowsKind { change, version: self.frame.version, compressed: false, partial: false },
            table_id: FIRST_TABLE_ID + table as u64,
            flags: flags(self.frame.sql_foreign_keys, ends),
            extra: &[],
            width: self.frame.width,
            present,
            present_after,
            data: &[],
        };
        let header = Header { flags: 0, ..self.frame.header };
        encode::rows(&header, &rows, rows.flags, data, out)
    }
}

/// Table ids in our events; below it are those that servers give.
const FIRST_TABLE_ID: u64 = 0x0100_0000;

/// The flags of a net row event. Foreign keys are always off: every effect of them is in the
/// log already, and a parent that is deleted and inserted to give its unique value free
/// must not take its children along.
fn flags(sql_foreign_keys: bool, ends: bool) -> u16 {
    let mut flags = FLAG_NO_FOREIGN_KEY_CHECKS;
    if sql_foreign_keys {
        flags |= FLAG_USE_SQL_FOREIGN_KEY;
    }
    if ends {
        flags |= FLAG_STMT_END;
    }
    flags
}

fn cut(
    lens: impl Iterator<Item = usize>,
    chunk_bytes: usize,
    part: impl Fn(Range<usize>) -> Part,
) -> Vec<Chunk> {
    let mut out = Vec::new();
    let (mut from, mut bytes, mut end) = (0, 0, 0);
    let mut push = |rows: Range<usize>, bytes| {
        if !rows.is_empty() {
            out.push(Chunk { rows: rows.len(), parts: vec![part(rows)], bytes });
        }
    };
    for len in lens {
        if bytes + len > chunk_bytes && end > from || end - from >= CHUNK_ROWS {
            push(from..end, bytes);
            (from, bytes) = (end, 0);
        }
        bytes += len;
        end += 1;
    }
    push(from..end, bytes);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checkpoint::APPLIERS_MAX;

    #[test]
    fn chunks_of_all_connections_fit_into_their_bound_although_one_may_be_twice_as_large() {
        for connections in [1, 2, 3, 16, APPLIERS_MAX] {
            for bytes in [1 << 20, 4 << 20, 1 << 30] {
                for total in [0, 1 << 20, 160 << 20, 1 << 40] {
                    let chunk = ChunkSize::AtMost { bytes, connections }.of(total);
                    assert!(chunk <= bytes && 2 * chunk * connections <= CHUNKS_BYTES_MAX);
                    assert!(chunk >= CHUNK_LEAST, "{connections} {bytes} {total}");
                }
            }
        }
        assert_eq!(ChunkSize::AtMost { bytes: 4 << 20, connections: 4 }.of(32 << 20), 2 << 20);
        // What is on record is not measured again: a part of it may be applied.
        assert_eq!(ChunkSize::Noted(1 << 30).of(1), 1 << 30);
    }
}
