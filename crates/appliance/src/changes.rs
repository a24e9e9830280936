//! The rows that a piece of the log changed, with the tables as the log knew them: what `undo` and `diff` work on.

use crate::catalogue::sentence;
use crate::error::{Code, Error, Result};
use holdfast_archive::Cursor;
use holdfast_binlog::columns::Column;
use holdfast_binlog::rows::{FLAG_USE_SQL_FOREIGN_KEY, ImagePlan, Row, RowPlan, Rows};
use holdfast_binlog::statement::{Statement, Verb};
use holdfast_binlog::table_map::TableMap;
use holdfast_binlog::tables::{TableCache, TableKey};
use holdfast_binlog::{Body, Event, Flaw, FormatDescription, Walker};
use std::collections::HashMap;
use std::sync::Arc;

/// A table as the log knew it at one time.
#[derive(Debug)]
pub(crate) struct LoggedTable {
    /// Its name.
    pub key: TableKey,
    /// Its columns.
    pub columns: Vec<Column>,
    /// Their names, where the source logs them.
    pub names: Option<Vec<String>>,
    /// The columns of the primary key, where the source logs them and there is one.
    pub primary_key: Option<Vec<u16>>,
    /// Equal bytes mean an equal definition, as far as the log tells.
    pub definition: Vec<u8>,
}

/// A value, its length prefix included; `None` for NULL.
pub(crate) type Bytes = Option<Box<[u8]>>;

/// A row by column; `None` where the log does not have the column.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Image(pub Vec<Option<Bytes>>);

impl Image {
    /// The value of a column, if the log has it.
    pub fn get(&self, column: usize) -> Option<&Bytes> {
        self.0.get(column).and_then(Option::as_ref)
    }

    /// This row with the values that another image has taken from there.
    pub fn overlaid(&self, over: &Self) -> Self {
        Self(self.0.iter().zip(&over.0).map(|(old, new)| new.clone().or_else(|| old.clone())).collect())
    }

    /// What it costs to keep.
    pub fn cost(&self) -> u64 {
        let cell = |cell: &Option<Bytes>| 24 + cell.iter().flatten().map(|bytes| bytes.len()).sum::<usize>();
        64 + self.0.iter().map(cell).sum::<usize>() as u64
    }
}

/// A row that changed.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// Its table.
    pub table: Arc<LoggedTable>,
    /// The row before; `None` for an insert.
    pub before: Option<Image>,
    /// The row after; `None` for a delete.
    pub after: Option<Image>,
    /// JSON columns of the image after hold differences.
    pub partial: bool,
    /// What foreign keys did to other rows is in the log, too.
    pub cascades_logged: bool,
}

/// What is read.
pub(crate) enum Step {
    /// A row.
    Row(Change),
    /// Something that is no row and may change some.
    Statement {
        /// Its text.
        text: String,
        /// The tables that it names where its kind of statement does, with their databases.
        tables: Vec<(String, String)>,
        /// It changes definitions or accounts: what rows there are comes as rows.
        rows_logged: bool,
    },
}

impl Step {
    fn other(text: &str, rows_logged: bool) -> Self {
        Self::Statement { text: text.to_owned(), tables: Vec::new(), rows_logged }
    }
}

/// Hands every change that the cursor passes to `each`.
///
/// # Errors
/// `Corruption` when events don't parse, and whatever `told` and `each` say.
pub(crate) fn read(
    cursor: &mut Cursor<'_>,
    told: &dyn Fn(holdfast_archive::Error) -> Error,
    each: &mut dyn FnMut(Step) -> Result<()>,
) -> Result<()> {
    let mut reading = Reading::default();
    let mut bytes = Vec::new();
    while let Some(at) = cursor.next(&mut bytes).map_err(told)? {
        let broken =
            |e: holdfast_binlog::Error| Error::new(Code::Corruption, sentence(&format!("{}: {e}", at.file)));
        reading.walker.set_position(at.offset);
        let event = reading.walker.whole(&bytes).map_err(broken)?;
        let Some(format) = reading.walker.format().cloned() else { continue };
        let mut steps = Vec::new();
        reading.state.event(&event, &format, &mut steps).map_err(broken)?;
        steps.into_iter().try_for_each(&mut *each)?;
    }
    Ok(())
}

#[derive(Default)]
struct Reading {
    walker: Walker,
    state: State,
}

#[derive(Default)]
struct State {
    cache: TableCache,
    tables: HashMap<u64, Arc<LoggedTable>>,
    scratch: Vec<u8>,
}

type Parsed<T> = std::result::Result<T, holdfast_binlog::Error>;

impl State {
    fn event(&mut self, event: &Event<'_>, format: &FormatDescription, out: &mut Vec<Step>) -> Parsed<()> {
        let malformed = |flaw| event.malformed(flaw);
        match event.parse(format)? {
            Body::FormatDescription(_) => {
                self.cache.clear();
                self.tables.clear();
            }
            Body::TableMap(map) => self.table(&map).map_err(malformed)?,
            Body::Rows(rows) if !rows.is_dummy() => self.rows(&rows, out).map_err(malformed)?,
            Body::Query(query) => {
                let mut scratch = Vec::new();
                let text = query.text(&mut scratch).map_err(malformed)?;
                let statement = Statement::classify(text, query.vars.sql_mode.unwrap_or_default());
                use Verb as V;
                match statement.verb {
                    V::Begin | V::Commit | V::Savepoint | V::Release | V::Set | V::Maintenance => {}
                    // A rollback in the log says that rows before it, of tables without transactions, stay.
                    V::Rollback
                    | V::RollbackTo
                    | V::Xa
                    | V::Ddl
                    | V::Acl
                    | V::CtasStart
                    | V::Dml
                    | V::Load
                    | V::Other => {
                        let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
                        let database =
                            |named: &Option<Vec<u8>>| lossy(named.as_deref().unwrap_or(query.database));
                        out.push(Step::Statement {
                            text: lossy(text),
                            tables: statement
                                .tables
                                .iter()
                                .map(|name| (database(&name.database), lossy(&name.table)))
                                .collect(),
                            rows_logged: matches!(statement.verb, V::Ddl | V::Acl | V::Xa),
                        });
                    }
                }
            }
            Body::XaPrepare { .. } => out.push(Step::other("XA PREPARE", true)),
            Body::Incident { .. } => out.push(Step::other("(an incident: events are lost)", false)),
            Body::ExecuteLoad { query, .. } => {
                let mut scratch = Vec::new();
                let text = query.text(&mut scratch).map_err(malformed)?;
                out.push(Step::other(&String::from_utf8_lossy(text), false));
            }
            Body::OldLoad => out.push(Step::other("LOAD DATA", false)),
            Body::Payload(payload) => {
                let mut events = payload.events(event, format)?;
                while let Some(inner) = events.next_event()? {
                    self.event(&inner, format, out)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, map: &TableMap<'_>) -> std::result::Result<(), Flaw> {
        self.cache.insert(map)?;
        if self.tables.get(&map.table_id).is_some_and(|known| known.definition == map.definition) {
            return Ok(());
        }
        let Some(table) = self.cache.get(map.table_id) else { return Ok(()) };
        let names = map.column_names()?.map(|names| {
            names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect::<Vec<_>>()
        });
        let logged = LoggedTable {
            key: (*table.key).clone(),
            columns: table.columns.list().to_vec(),
            primary_key: table.primary_key.clone(),
            names: names.filter(|names| names.len() == table.columns.len()),
            definition: map.definition.to_vec(),
        };
        self.tables.insert(map.table_id, Arc::new(logged));
        Ok(())
    }

    fn rows(&mut self, rows: &Rows<'_>, out: &mut Vec<Step>) -> std::result::Result<(), Flaw> {
        let (_, plan) = self.cache.plan(rows)?;
        let Some(table) = self.tables.get(&rows.table_id).cloned() else { return Ok(()) };
        let cascades_logged = rows.flags & FLAG_USE_SQL_FOREIGN_KEY != 0;
        let mut scratch = std::mem::take(&mut self.scratch);
        let plain = rows.inflated(&mut scratch)?;
        for row in plan.rows(plain.data) {
            let row = row?;
            let (before, after) = images(&plan, &row, table.columns.len());
            let table = Arc::clone(&table);
            out.push(Step::Row(Change { table, before, after, partial: row.partial, cascades_logged }));
        }
        self.scratch = scratch;
        Ok(())
    }
}

fn images(plan: &RowPlan, row: &Row<'_>, columns: usize) -> (Option<Image>, Option<Image>) {
    let cut = |plan: &ImagePlan, bytes: &[u8]| {
        let mut image = vec![None; columns];
        plan.visit(bytes, |at, cell| {
            if let Some(slot) = image.get_mut(usize::from(at)) {
                *slot = Some(cell.map(Box::from));
            }
            true
        });
        Image(image)
    };
    let before = row.before.map(|bytes| cut(plan.first_plan(), bytes));
    let after = row.after.zip(plan.after_plan()).map(|(bytes, plan)| cut(plan, bytes));
    (before, after)
}
