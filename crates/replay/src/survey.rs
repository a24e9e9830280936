//! What the rows of a range are like, table by table: what decides, before anything is
//! written, which tables can be replayed as net change.
//!
//! Reads the heads of row events only; [`crate::scan`] feeds it on its one pass over the range.

use std::collections::BTreeMap;
use std::sync::Arc;

use foldhash::HashMap;
use holdfast_binlog::event::{Body, Event, HEADER_LEN};
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::rows::{FLAG_NO_FOREIGN_KEY_CHECKS, FLAG_USE_SQL_FOREIGN_KEY, Rows};
use holdfast_binlog::statement::{Statement, Verb};
use holdfast_binlog::table_map::TableMap;
use holdfast_binlog::tables::{TableCache, TableKey};
use holdfast_binlog::{Error as BinlogError, Flaw, FormatDescription};

/// What the row events of one table are like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RowShape {
    /// Some image leaves columns out (`binlog_row_image` other than FULL).
    pub partial_images: bool,
    /// Some after image holds differences of JSON columns.
    pub partial_json: bool,
    /// Rows were deleted while the source left foreign keys to its engine: what a cascade did
    /// to other tables is not in the log.
    pub unlogged_deletes: bool,
    /// The same for updates.
    pub unlogged_updates: bool,
    /// Whether it has a primary key, if the log says it (`binlog_row_metadata=FULL`).
    pub primary_key: Option<bool>,
}

/// Bytes of the shortest packet that can carry a row: a command, and the event's header and the row in the text of a BINLOG
/// statement, four letters for each three bytes. `row`: its bytes in the log.
fn packet_len(row: u64) -> u64 {
    const TEXT: u64 = 1 + "BINLOG ''".len() as u64;
    row.saturating_add(HEADER_LEN as u64).div_ceil(3).saturating_mul(4).saturating_add(TEXT)
}

/// A row that no packet can carry.
#[derive(Debug)]
pub(crate) struct LongRow {
    /// Its table.
    pub(crate) table: Arc<TableKey>,
    /// Bytes of the packet that it needs, at least.
    pub(crate) needed: u64,
}

/// Does an event leave its cascades out of the log? They are in it if the source's SQL layer
/// did them; there were none if it had foreign keys off.
pub(crate) fn cascades_are_unlogged(flags: u16) -> bool {
    flags & (FLAG_NO_FOREIGN_KEY_CHECKS | FLAG_USE_SQL_FOREIGN_KEY) == 0
}

/// Gathers the shapes of all tables.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    shapes: HashMap<Arc<TableKey>, RowShape>,
    tables: TableCache,
    rolled_back: bool,
    file_bytes: u64,
    /// Bytes of the longest packet that the server takes.
    packet_max: u64,
    long_row: Option<LongRow>,
    scratch: Vec<u8>,
}

impl Survey {
    /// For a server that takes packets of at most so many bytes.
    pub(crate) fn new(packet_max: u64) -> Self {
        Self { packet_max, ..Self::default() }
    }

    /// Takes the next event of the log.
    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        body: &Body<'_>,
        format: &FormatDescription,
    ) -> Result<(), BinlogError> {
        let malformed = |flaw| event.malformed(flaw);
        match body {
            Body::FormatDescription(_) => self.tables.clear(),
            Body::TableMap(map) => {
                self.tables.insert(map).map_err(malformed)?;
                self.primary_key(map).map_err(malformed)?;
            }
            Body::Rows(rows) if !rows.is_dummy() => {
                self.rows(rows);
                self.lengths(rows).map_err(malformed)?;
            }
            Body::BeginLoad(block) | Body::AppendBlock(block) => self.file_bytes += block.data.len() as u64,
            Body::Query(query) => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let text = query.text(&mut scratch).map_err(malformed)?;
                let verb = match text {
                    b"BEGIN" | b"COMMIT" => Verb::Begin,
                    _ => Statement::classify(text, query.vars.sql_mode.unwrap_or(0)).verb,
                };
                self.rolled_back |= verb == Verb::RollbackTo;
                self.scratch = scratch;
            }
            Body::Payload(payload) => {
                let mut events = payload.events(event, format)?;
                while let Some(inner) = events.next_event()? {
                    let body = inner.parse(format)?;
                    self.event(&inner, &body, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// What the row events of each table are like.
    pub(crate) fn shapes(&self) -> BTreeMap<TableKey, RowShape> {
        self.shapes.iter().map(|(table, shape)| (TableKey::clone(table), *shape)).collect()
    }

    /// A transaction is complete. Was a part of it rolled back?
    pub(crate) fn end(&mut self) -> bool {
        std::mem::take(&mut self.rolled_back)
    }

    /// Bytes of files for LOAD DATA since the last call.
    pub(crate) fn file_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.file_bytes)
    }

    /// The first row since the last call that no packet can carry.
    pub(crate) fn long_row(&mut self) -> Option<LongRow> {
        self.long_row.take()
    }

    /// Looks for a row that is too long. Rows are cut only where the event is too long as a whole, which few are.
    fn lengths(&mut self, rows: &Rows<'_>) -> Result<(), Flaw> {
        if self.long_row.is_some() || packet_len(rows.inflated_len()? as u64) <= self.packet_max {
            return Ok(());
        }
        // Not kept for the next event: it may be a large part of all memory.
        let mut scratch = Vec::new();
        let rows = rows.inflated(&mut scratch)?;
        let (table, plan) = self.tables.plan(&rows)?;
        for row in plan.rows(rows.data) {
            let needed = packet_len(row?.bytes.len() as u64);
            if needed > self.packet_max {
                self.long_row = Some(LongRow { table, needed });
                break;
            }
        }
        Ok(())
    }

    /// Column names come with the keys of a table, or neither does.
    fn primary_key(&mut self, map: &TableMap<'_>) -> Result<(), Flaw> {
        if map.column_names()?.is_none() {
            return Ok(());
        }
        let keyed = map.primary_key()?.is_some();
        if let Some(table) = self.tables.get(map.table_id) {
            self.shapes.entry(Arc::clone(&table.key)).or_default().primary_key = Some(keyed);
        }
        Ok(())
    }

    fn rows(&mut self, rows: &Rows<'_>) {
        let Some(table) = self.tables.get(rows.table_id) else { return };
        let shape = self.shapes.entry(Arc::clone(&table.key)).or_default();
        let whole = |present| rows.is_whole(present);
        shape.partial_images |= !whole(rows.present) || !rows.present_after.is_none_or(whole);
        shape.partial_json |= rows.kind.partial;
        if cascades_are_unlogged(rows.flags) {
            shape.unlogged_deletes |= rows.kind.change == RowChange::Delete;
            shape.unlogged_updates |= rows.kind.change == RowChange::Update;
        }
    }
}
