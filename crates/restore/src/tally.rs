//! What the log alone says must have happened: rows by table, and a sample of them.
//!
//! This is a reading of the raw events of its own, beside that of replay: the proof must not use
//! what replay believes. Where the log does not hold every change (cascades of foreign keys that
//! the source's InnoDB did on its own), counts are given up and samples start anew, and the proof
//! says so.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use holdfast_binlog::Walker;
use holdfast_binlog::columns::Column;
use holdfast_binlog::event::{Body, Event};
use holdfast_binlog::format::FormatDescription;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::query::Query;
use holdfast_binlog::rows::{
    FLAG_NO_FOREIGN_KEY_CHECKS, FLAG_STMT_END, FLAG_USE_SQL_FOREIGN_KEY, RowPlan, Rows,
};
use holdfast_binlog::statement::{Action, Object, Statement, TableName, Verb};
use holdfast_binlog::tables::{TableCache, TableKey};
use holdfast_format::gtid::GtidSet;

use crate::catalog::{Cascade, Catalog};
use crate::error::{Error, Result};
use crate::sample::{IMAGE_MAX, Last, Sample};

/// Deleted rows of one statement that are remembered, in tables to which cascades lead back.
const DELETED_MAX: usize = 100_000;

const BY_STATEMENT: &str = "a statement changed rows that the log does not hold one by one";

/// Where a table's count starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// What the server had under this name when it was recovered.
    Recovered(TableKey),
    /// Nothing: it was made or emptied.
    Empty,
    /// It can't be said, for this reason.
    Unknown(String),
}

/// One table.
#[derive(Debug)]
pub struct TableTally {
    /// Where the count starts.
    pub start: Start,
    /// Inserts less deletes since.
    pub delta: i64,
    /// Number of the first transaction that names it, from 1.
    pub first: u64,
    /// The table is there at the end.
    pub exists: bool,
    /// A statement changed its definition.
    pub redefined: bool,
    /// Rows that must be there or not.
    pub sample: Sample,
}

impl TableTally {
    fn of(key: &TableKey, first: u64) -> Self {
        Self {
            first,
            start: Start::Recovered(key.clone()),
            delta: 0,
            exists: true,
            redefined: false,
            sample: Sample::default(),
        }
    }

    fn set(&mut self, start: Start) {
        (self.start, self.delta, self.redefined) = (start, 0, true);
        self.sample.clear();
    }
}

/// The sums over a range of log.
#[derive(Debug)]
pub struct Tally<'c> {
    /// Tables that the range names.
    pub tables: BTreeMap<TableKey, TableTally>,
    /// Transactions counted, those that the base holds left out.
    pub transactions: u64,
    /// Transactions skipped because the base holds them.
    pub skipped: u64,
    /// Statements about accounts.
    pub account_statements: u64,
    /// Statements that define anything.
    pub definitions: u64,
    recovered: &'c Catalog,
    end: &'c Catalog,
    executed: Option<&'c GtidSet>,
    skipping: bool,
    walker: Walker,
    cache: TableCache,
    shapes: BTreeMap<TableKey, Arc<Vec<Column>>>,
    touched: BTreeSet<TableKey>,
    /// A statement changed rows that the log does not hold: of any table.
    by_statement: bool,
    /// Rows that the statement under way deleted, in tables to which cascades lead back.
    deleted: HashSet<(TableKey, Vec<u8>)>,
    /// Tables by whether cascades lead back to them.
    circles: BTreeMap<TableKey, bool>,
    scratch: Vec<u8>,
}

impl<'c> Tally<'c> {
    /// An empty tally. `recovered` and `end` describe the server before and after; `executed` is
    /// what the recovered server holds already, if it knows GTIDs.
    #[must_use]
    pub fn new(recovered: &'c Catalog, end: &'c Catalog, executed: Option<&'c GtidSet>) -> Self {
        Self {
            tables: BTreeMap::new(),
            transactions: 0,
            skipped: 0,
            account_statements: 0,
            definitions: 0,
            recovered,
            end,
            executed,
            skipping: false,
            walker: Walker::new(0),
            cache: TableCache::default(),
            shapes: BTreeMap::new(),
            touched: BTreeSet::new(),
            by_statement: false,
            deleted: HashSet::new(),
            circles: BTreeMap::new(),
            scratch: Vec::new(),
        }
    }

    /// Reads a whole range.
    pub fn read(&mut self, log: &dyn holdfast_replay::Log) -> Result<()> {
        let mut reader = log.read().map_err(Error::Log)?;
        let mut bytes = Vec::new();
        while let Some(place) = reader.next(&mut bytes).map_err(Error::Log)? {
            self.walker.set_position(place.position);
            let event = self.walker.whole(&bytes)?;
            let Some(format) = self.walker.format().cloned() else { continue };
            self.event(&event, &format)?;
        }
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>, format: &FormatDescription) -> Result<()> {
        let body = event.parse(format)?;
        let malformed = |flaw| Error::from(event.malformed(flaw));
        if let Body::Gtid(gtid) = &body {
            self.skipping = match (&gtid.gtid, self.executed) {
                (Some(gtid), Some(executed)) => executed.contains(gtid),
                _ => false,
            };
            *(if self.skipping { &mut self.skipped } else { &mut self.transactions }) += 1;
            self.touched.clear();
        }
        if self.skipping {
            return Ok(());
        }
        match &body {
            Body::FormatDescription(_) => self.cache.clear(),
            Body::TableMap(map) => self.cache.insert(map).map_err(malformed)?,
            Body::Rows(rows) if !rows.is_dummy() => self.rows(rows).map_err(malformed)?,
            Body::Query(query) => {
                let mut scratch = std::mem::take(&mut self.scratch);
                let text = query.text(&mut scratch).map_err(malformed)?.to_vec();
                self.scratch = scratch;
                self.query(query, &text);
            }
            Body::ExecuteLoad { .. } => self.by_statement(),
            Body::XaPrepare { one_phase: false, .. } => {
                for key in std::mem::take(&mut self.touched) {
                    let reason = "an XA transaction with its rows was prepared, not committed";
                    self.table(&key).set(Start::Unknown(reason.to_owned()));
                }
            }
            Body::Payload(payload) => {
                let mut events = payload.events(event, format)?;
                while let Some(inner) = events.next_event()? {
                    self.event(&inner, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, key: &TableKey) -> &mut TableTally {
        let (number, by_statement) = (self.transactions + self.skipped, self.by_statement);
        self.tables.entry(key.clone()).or_insert_with(|| {
            let mut table = TableTally::of(key, number);
            if by_statement {
                table.start = Start::Unknown(BY_STATEMENT.to_owned());
            }
            table
        })
    }

    fn rows(&mut self, rows: &Rows<'_>) -> std::result::Result<(), holdfast_binlog::Flaw> {
        let (key, plan) = self.cache.plan(rows)?;
        let shape = self.shape(&key, rows);
        let mut scratch = std::mem::take(&mut self.scratch);
        let plain = rows.inflated(&mut scratch)?;
        let end = self.end.tables.get(&*key);
        let ordinals =
            end.filter(|facts| facts.columns.len() == shape.len()).map(|facts| facts.key.as_slice());
        let referenced = self.referenced(&key);
        let mut reaches_children = plain.kind.change == RowChange::Delete;
        // MySQL logs the delete of a row twice that a cascade of its own delete came back to.
        let circle = reaches_children && plain.flags & FLAG_USE_SQL_FOREIGN_KEY != 0 && self.leads_back(&key);
        let mut twice = false;
        let mut partial = false;
        let mut notes = Vec::new();
        let mut count = 0_i64;
        for row in plan.rows(plain.data) {
            let row = row?;
            count += 1;
            partial |= row.partial;
            if circle && !twice {
                twice = self.deleted.len() >= DELETED_MAX
                    || !self.deleted.insert(((*key).clone(), row.bytes.to_vec()));
            }
            if plain.kind.change == RowChange::Update && !reaches_children {
                reaches_children = referenced.iter().any(|columns| {
                    columns.is_none()
                        || key_of(&plan, columns, row.before, false)
                            != key_of(&plan, columns, row.after, true)
                });
            }
            if let Some(ordinals) = ordinals.filter(|ordinals| !ordinals.is_empty()) {
                note(&plan, ordinals, row.before, row.after, &mut notes);
            }
        }
        let change = plain.kind.change;
        let flags = plain.flags;
        self.scratch = scratch;
        self.touched.insert((*key).clone());
        if flags & FLAG_STMT_END != 0 {
            self.deleted.clear();
        }
        let table = self.table(&key);
        if twice {
            let reason = "rows went in a circle of foreign keys, where this source may log one of them twice";
            table.start = Start::Unknown(reason.to_owned());
        }
        match change {
            RowChange::Insert => table.delta += count,
            RowChange::Delete => table.delta -= count,
            RowChange::Update => {}
        }
        if partial {
            // Differences of JSON columns are no whole image.
            table.sample.clear();
        } else {
            for (key, last) in notes {
                table.sample.note(&shape, key, last);
            }
        }
        let unlogged = flags & (FLAG_NO_FOREIGN_KEY_CHECKS | FLAG_USE_SQL_FOREIGN_KEY) == 0;
        if unlogged && reaches_children {
            self.cascade(&key, change == RowChange::Delete);
        }
        Ok(())
    }

    /// The columns of a table id; one shared copy a table.
    fn shape(&mut self, key: &TableKey, rows: &Rows<'_>) -> Arc<Vec<Column>> {
        let columns = self.cache.get(rows.table_id).map(|table| table.columns.list()).unwrap_or_default();
        match self.shapes.get(key) {
            Some(shape) if shape.as_slice() == columns => Arc::clone(shape),
            _ => {
                let shape = Arc::new(columns.to_vec());
                self.shapes.insert(key.clone(), Arc::clone(&shape));
                shape
            }
        }
    }

    fn cascades(&self) -> impl Iterator<Item = &'c Cascade> + use<'c> {
        self.recovered.cascades.iter().chain(self.end.cascades.iter())
    }

    /// Do cascades lead from a table back to it?
    fn leads_back(&mut self, table: &TableKey) -> bool {
        if let Some(known) = self.circles.get(table) {
            return *known;
        }
        let (mut reached, mut open, mut back) = (BTreeSet::new(), vec![table], false);
        while let Some(parent) = open.pop().filter(|_| !back) {
            for cascade in self.cascades().filter(|cascade| cascade.parent == *parent) {
                back |= cascade.child == *table;
                if reached.insert(&cascade.child) {
                    open.push(&cascade.child);
                }
            }
        }
        self.circles.insert(table.clone(), back);
        back
    }

    /// Sets of columns of `parent` that children refer to and follow when they change. A column
    /// that can't be found makes a set that always differs.
    fn referenced(&self, parent: &TableKey) -> Vec<Option<Vec<u16>>> {
        let following = self.cascades().filter(|c| c.on_update && c.parent == *parent);
        let position = |name: &String| {
            let columns = &self.end.tables.get(parent)?.columns;
            u16::try_from(columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))?).ok()
        };
        following.map(|cascade| cascade.parent_columns.iter().map(position).collect()).collect()
    }

    /// Rows of `parent` went or changed their keys, and what that did to its children is not in the log.
    fn cascade(&mut self, parent: &TableKey, deleted: bool) {
        let mut open = vec![(parent.clone(), deleted)];
        let mut seen = BTreeSet::new();
        while let Some((parent, deleted)) = open.pop() {
            if !seen.insert((parent.clone(), deleted)) {
                continue;
            }
            let reached: Vec<&Cascade> = self.cascades().filter(|c| c.parent == parent).collect();
            for cascade in reached {
                let rows_go = deleted && cascade.deletes;
                let rows_change = if deleted { cascade.clears_on_delete } else { cascade.on_update };
                if !rows_go && !rows_change {
                    continue;
                }
                let child = self.table(&cascade.child);
                child.sample.clear();
                if rows_go {
                    child.start = Start::Unknown(format!(
                        "rows went with those of {parent} by a foreign key, which this source does not log"
                    ));
                }
                open.push((cascade.child.clone(), rows_go));
            }
        }
    }

    fn query(&mut self, query: &Query<'_>, text: &[u8]) {
        let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or(0));
        match statement.verb {
            Verb::Acl => self.account_statements += 1,
            Verb::Ddl | Verb::CtasStart => {
                self.definitions += 1;
                self.definition(query, text, &statement);
            }
            Verb::Rollback => {
                // Only tables without transactions keep what a rolled-back transaction did.
                for key in std::mem::take(&mut self.touched) {
                    self.table(&key)
                        .set(Start::Unknown("a transaction with its rows was rolled back".to_owned()));
                }
            }
            Verb::Dml | Verb::Load => self.by_statement(),
            _ => {}
        }
    }

    /// A statement changed rows of which the log says nothing.
    fn by_statement(&mut self) {
        self.by_statement = true;
        for table in self.tables.values_mut() {
            table.set(Start::Unknown(BY_STATEMENT.to_owned()));
        }
    }

    fn definition(&mut self, query: &Query<'_>, text: &[u8], statement: &Statement) {
        // A view has no rows of its own, and the catalog lists tables only.
        if statement.temporary || statement.object == Object::View {
            return;
        }
        let default = String::from_utf8_lossy(query.database).into_owned();
        let key = |name: &TableName| TableKey {
            database: name
                .database
                .as_ref()
                .map_or_else(|| default.clone(), |d| String::from_utf8_lossy(d).into_owned()),
            table: String::from_utf8_lossy(&name.table).into_owned(),
        };
        let keys: Vec<TableKey> = statement.tables.iter().map(key).collect();
        match (statement.action, statement.object) {
            (Action::Create, Object::Table) => {
                for key in keys {
                    let there =
                        self.tables.get(&key).map_or(self.recovered.tables.contains_key(&key), |t| t.exists);
                    if statement.conditional && there {
                        continue;
                    }
                    let table = self.table(&key);
                    table.set(Start::Empty);
                    table.exists = true;
                }
            }
            (Action::Drop, Object::Table) => {
                for key in keys {
                    let table = self.table(&key);
                    table.set(Start::Empty);
                    table.exists = false;
                }
            }
            (Action::Truncate, _) => keys.iter().for_each(|key| self.table(key).set(Start::Empty)),
            (Action::Rename, _) => self.rename(&keys),
            (Action::Drop, Object::Database) => self.drop_database(text),
            (Action::Alter, Object::Table) => {
                let text = String::from_utf8_lossy(text).to_ascii_uppercase();
                for key in keys {
                    let table = self.table(&key);
                    table.sample.clear();
                    table.redefined = true;
                    if ["PARTITION", "RENAME TO", "RENAME AS", "RENAME `", "TABLESPACE"]
                        .iter()
                        .any(|w| text.contains(w))
                    {
                        let reason = "ALTER TABLE of a kind that may take rows away or give it another name";
                        table.start = Start::Unknown(reason.to_owned());
                    }
                }
            }
            _ => {
                for key in keys {
                    let table = self.table(&key);
                    table.redefined = true;
                }
            }
        }
    }

    fn rename(&mut self, keys: &[TableKey]) {
        for pair in keys.chunks_exact(2) {
            let [from, to] = pair else { continue };
            // RENAME TABLE takes views, too.
            if !self.tables.contains_key(from) && !self.recovered.tables.contains_key(from) {
                continue;
            }
            let mut moved = self
                .tables
                .remove(from)
                .unwrap_or_else(|| TableTally::of(from, self.transactions + self.skipped));
            moved.redefined = true;
            moved.sample.clear();
            self.tables.insert(to.clone(), moved);
            let old = self.table(from);
            old.set(Start::Empty);
            old.exists = false;
        }
    }

    fn drop_database(&mut self, text: &[u8]) {
        // DROP {DATABASE | SCHEMA} [IF EXISTS] name
        let text = String::from_utf8_lossy(text);
        let name =
            text.split_whitespace().last().unwrap_or_default().trim_matches(['`', '"', ';']).to_owned();
        let there: Vec<TableKey> = self.recovered.tables.keys().chain(self.tables.keys()).cloned().collect();
        for key in there.iter().filter(|key| key.database == name) {
            let table = self.table(key);
            table.set(Start::Empty);
            table.exists = false;
        }
    }

    /// How many rows the table must have at the end; or why the log can't say.
    pub fn expected_rows(&self, key: &TableKey) -> std::result::Result<u64, String> {
        let recovered = |key: &TableKey| {
            let facts = self.recovered.tables.get(key);
            facts
                .and_then(|facts| facts.rows)
                .ok_or_else(|| "its rows were not counted after recovery".to_owned())
        };
        if self.end.tables.get(key).is_some_and(|facts| facts.definition.contains("WITH SYSTEM VERSIONING")) {
            return Err("it keeps old versions of its rows".to_owned());
        }
        let Some(table) = self.tables.get(key) else {
            return if self.by_statement { Err(BY_STATEMENT.to_owned()) } else { recovered(key) };
        };
        let start = match &table.start {
            Start::Recovered(name) => recovered(name)?,
            Start::Empty => 0,
            Start::Unknown(reason) => return Err(reason.clone()),
        };
        start.checked_add_signed(table.delta).ok_or_else(|| {
            format!("the log deletes {} rows more than there were", table.delta.unsigned_abs() - start)
        })
    }
}

/// Notes what a row's change says of its key or keys.
fn note(
    plan: &Arc<RowPlan>,
    ordinals: &[u16],
    before: Option<&[u8]>,
    after: Option<&[u8]>,
    out: &mut Vec<(Vec<u8>, Last)>,
) {
    let ordinals = Some(ordinals.to_vec());
    let old = key_of(plan, &ordinals, before, false);
    // With MINIMAL images an update's after image has no key unless it changed.
    let new = key_of(plan, &ordinals, after, true).or_else(|| after.and(old.clone()));
    if let Some(old) = old.filter(|old| new.as_ref() != Some(old)) {
        out.push((old, Last::Gone));
    }
    if let (Some(new), Some(image)) = (new, after) {
        let last = if image.len() > IMAGE_MAX {
            Last::Large
        } else {
            Last::Row { image: image.to_vec(), plan: Arc::clone(plan) }
        };
        out.push((new, last));
    }
}

/// The cells of `columns` in an image; `None` if the image lacks one of them.
fn key_of(plan: &RowPlan, columns: &Option<Vec<u16>>, image: Option<&[u8]>, after: bool) -> Option<Vec<u8>> {
    let image_plan = if after { plan.after_plan()? } else { &plan.first };
    let key = image_plan.key(columns.as_ref()?)?;
    let mut out = Vec::new();
    key.extract(image_plan, image?, &mut out).then_some(out)
}
