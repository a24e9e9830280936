//! `diff`: what became of the rows of one table between two moments, out of the archived log alone.
//!
//! Of each row the value before its first change and the one after its last are kept, so what changed back is no
//! difference.

use crate::archive::archive_error;
use crate::catalogue::{Catalogue, sentence};
use crate::changes::{self, Bytes, Change, Image, LoggedTable, Step};
use crate::error::{Code, Error, Result};
use crate::restore::gtid_set;
use crate::settings::Login;
use crate::show::shown;
use crate::time::{now, parse_time_or_age};
use crate::undo::definition::Definition;
use crate::undo::since::{concerns, has_word};
use crate::undo::{connection, said};
use crate::views::{CellView, RowView, Shown};
use holdfast_archive::{Place, SeenFrame, ServerLog, Target};
use holdfast_binlog::columns::{Column, ColumnType};
use holdfast_binlog::tables::TableKey;
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_format::txn_index::{TableChange, TxnEntry, TxnKind};
use serde::Serialize;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// Bytes of rows that are held at once.
const ROWS_BYTES_MAX: u64 = 512 << 20;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// `DB.TABLE`.
    pub table: String,
    /// From after this: a time, an age, or a transaction.
    pub from: String,
    /// Up to and with this; `latest` for all that is archived.
    pub to: String,
    /// At most so many rows are given; all are counted.
    pub limit: usize,
    /// The server whose table it is; the protected one without it. Asked only where the log has no names and keys.
    pub on: Option<(ServerKind, Login)>,
}

/// The differences.
#[derive(Clone, Debug, Serialize)]
pub struct DiffView {
    /// `schema.table`.
    pub table: String,
    /// Rows that are new.
    pub inserted: u64,
    /// Rows that have other values.
    pub updated: u64,
    /// Rows that are gone.
    pub deleted: u64,
    /// The rows in the order of their first change: of an update the key and what changed.
    pub rows: Vec<RowView>,
    /// Rows that are not among them.
    pub more: u64,
}

/// What a row was and is; `None`: it is not there.
struct Net {
    was: Option<Image>,
    is: Option<Image>,
}

/// The table's columns and key.
struct Known {
    logged: Arc<LoggedTable>,
    columns: Vec<Column>,
    names: Vec<String>,
    key: Vec<usize>,
}

/// Compares a table of the server called `name` at two moments.
///
/// # Errors
/// `TargetUnreachable` when a moment or what lies between is not archived; `Failed` when the log does not have every change
/// row by row, the table has no key, or there are too many rows.
pub fn diff(catalogue: &Catalogue, name: &str, wanted: &Wanted) -> Result<DiffView> {
    let server = catalogue.server(name)?;
    let told = |e| archive_error(catalogue, &server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let unreachable = |what: &str, reason: &str| {
        let message = format!("{what} is not in the archive of '{name}': {reason}");
        Error::new(Code::TargetUnreachable, sentence(&message))
            .with_next(format!("`holdfast timeline {name}` shows what is"))
    };
    let place = |text: &str| match log.resolve(&moment(text)?).map_err(told)? {
        Ok(cut) => Ok(cut.place),
        Err(hole) => Err(unreachable(text, &hole.reason)),
    };
    let (from, until) = (place(&wanted.from)?, place(&wanted.to)?);
    if until < from {
        return Err(Error::usage(format!("{} lies before {}.", wanted.to, wanted.from))
            .with_next("give the earlier moment to --from"));
    }
    if let Some(hole) = log.gap(from, until).map_err(told)? {
        return Err(unreachable("What lies between", &hole.reason));
    }
    let mut net = Differences::new(catalogue, &server, wanted)?;
    if let Some(id) = in_xa(&log, from, until, &net.table).map_err(told)? {
        return Err(Error::failed(format!(
            "Rows of {} were changed by {id}, a part of an XA transaction: whether it was committed is told elsewhere in the log.",
            wanted.table
        ))
        .with_next(format!("choose both moments before it or both after it; `holdfast show {name} {id}` prints what it did")));
    }
    let mut cursor = log.read(from, until).map_err(told)?;
    changes::read(&mut cursor, &told, &mut |step| match step {
        Step::Row(change) => net.row(change),
        Step::Statement { text, tables, rows_logged } => net.statement(&text, &tables, rows_logged),
    })?;
    Ok(net.view(wanted.limit))
}

/// The first part of an XA transaction between two places that has rows of the table.
fn in_xa(
    log: &ServerLog<'_>,
    from: Place,
    until: Place,
    table: &TableKey,
) -> holdfast_archive::Result<Option<String>> {
    let look = |frame: &SeenFrame<'_>| {
        let mut found = None;
        frame.each(&mut |seen| {
            let inside = seen.from >= from && seen.to <= until && seen.entry.kind == TxnKind::Xa;
            if found.is_none() && inside {
                let indexed = seen.indexed();
                found = has_rows(&indexed.entry, table).then(|| indexed.id());
            }
            Ok(())
        })?;
        Ok(found)
    };
    let mut first = None;
    log.each_mapped(&look, &mut |found| {
        first = found;
        Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })?;
    Ok(first)
}

/// Did a transaction change rows of the table, as far as its entry tells?
fn has_rows(entry: &TxnEntry, table: &TableKey) -> bool {
    let same = |named: &TableChange| {
        named.database == table.database.as_bytes() && named.table == table.table.as_bytes()
    };
    entry.tables_cut || entry.tables.iter().any(same)
}

fn moment(text: &str) -> Result<Target> {
    if text == "latest" {
        return Ok(Target::Latest);
    }
    if let Some(set) = text.strip_prefix("gtid-set:") {
        let (set, life) = gtid_set(set)?;
        return Ok(Target::Set { set, life });
    }
    if text.starts_with("gtid:") || text.starts_with("pos:") {
        return Ok(Target::After(text.to_owned()));
    }
    parse_time_or_age(text, now()).map(Target::Time)
}

struct Differences<'c> {
    catalogue: &'c Catalogue,
    server: &'c ServerRecord,
    wanted: &'c Wanted,
    table: TableKey,
    known: Option<Known>,
    order: Vec<Vec<Bytes>>,
    rows: HashMap<Vec<Bytes>, Net>,
    held: u64,
}

impl<'c> Differences<'c> {
    fn new(catalogue: &'c Catalogue, server: &'c ServerRecord, wanted: &'c Wanted) -> Result<Self> {
        let Some((database, table)) = wanted.table.split_once('.') else {
            return Err(Error::usage(format!("'{}' names no table.", wanted.table))
                .with_next("use --table DATABASE.TABLE"));
        };
        Ok(Self {
            catalogue,
            server,
            wanted,
            table: TableKey { database: database.to_owned(), table: table.to_owned() },
            known: None,
            order: Vec::new(),
            rows: HashMap::new(),
            held: 0,
        })
    }

    /// Columns and key: from the log where it has both, else from a server that has the table.
    fn known(&self, logged: &Arc<LoggedTable>) -> Result<Known> {
        let logged = Arc::clone(logged);
        let mut columns = logged.columns.clone();
        if let (Some(names), Some(key)) = (&logged.names, &logged.primary_key) {
            let (names, key) = (names.clone(), key.iter().map(|at| usize::from(*at)).collect());
            return Ok(Known { logged, columns, names, key });
        }
        let mut conn = connection(self.catalogue, self.server, self.wanted.on.as_ref())?;
        let is = Definition::read(&mut conn, &logged.key).map_err(|e| said(&conn, &e))?.ok_or_else(|| {
            Error::failed(format!(
                "The log does not name the columns of {}, and the server at {} has no such table.",
                logged.key,
                conn.endpoint()
            ))
            .with_next("name a server that has it: --host or --socket, with --user")
        })?;
        is.fits(&logged)?;
        if is.key.is_empty() {
            return Err(Error::failed(format!(
                "{} has no key: its rows can't be told from each other.",
                logged.key
            ))
            .with_next("`holdfast show` prints what each transaction did"));
        }
        for (column, server) in columns.iter_mut().zip(&is.columns) {
            column.unsigned = Some(server.unsigned);
        }
        let names = is.columns.into_iter().map(|column| column.name).collect();
        Ok(Known { logged, columns, names, key: is.key })
    }

    fn statement(&self, text: &str, tables: &[(String, String)], rows_logged: bool) -> Result<()> {
        // A definition names its tables; what else is no row may have changed this one if it names it anywhere.
        let touches =
            concerns(text, tables, &self.table) || (!rows_logged && has_word(text, &self.table.table));
        if !touches {
            return Ok(());
        }
        let text: String = text.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(120).collect();
        Err(Error::failed(format!(
            "Between the two moments {} was changed by a statement: {text}",
            self.table
        ))
        .with_next("choose both moments before it or both after it; `holdfast find --ddl` tells when it was"))
    }

    fn row(&mut self, change: Change) -> Result<()> {
        if change.table.key != self.table {
            return Ok(());
        }
        let known = match self.known.take() {
            Some(known) if known.logged.definition == change.table.definition => known,
            Some(_) => {
                return Err(Error::failed(format!(
                    "{} changed its columns between the two moments.",
                    self.table
                ))
                .with_next("choose both moments before that or both after it; `holdfast find --ddl` tells when it was"));
            }
            None => self.known(&change.table)?,
        };
        let done = self.take(&known, change);
        self.known = Some(known);
        done
    }

    fn take(&mut self, known: &Known, change: Change) -> Result<()> {
        let Change { before, after, partial, .. } = change;
        let is = match (&before, after) {
            (Some(before), Some(after)) => {
                let mut is = before.overlaid(&after);
                for (at, column) in known.columns.iter().enumerate() {
                    let differences = partial && matches!(column.kind, ColumnType::Json { .. });
                    if differences
                        && after.get(at).is_some()
                        && let Some(slot) = is.0.get_mut(at)
                    {
                        *slot = None;
                    }
                }
                Some(is)
            }
            (_, after) => after,
        };
        let key = |image: &Image| {
            let value = |at: &usize| {
                image.get(*at).cloned().ok_or_else(|| {
                    Error::failed(format!("The log does not have the key of a row of {}.", self.table))
                        .with_next("`holdfast show` prints what each transaction did")
                })
            };
            known.key.iter().map(value).collect::<Result<Vec<Bytes>>>()
        };
        let (old, new) = (before.as_ref().map(key).transpose()?, is.as_ref().map(key).transpose()?);
        match (old, new) {
            (Some(old), Some(new)) if old == new => self.note(new, before, is)?,
            (old, new) => {
                if let Some(old) = old {
                    self.note(old, before, None)?;
                }
                if let Some(new) = new {
                    self.note(new, None, is)?;
                }
            }
        }
        Ok(())
    }

    /// A row went from one image to another.
    fn note(&mut self, key: Vec<Bytes>, was: Option<Image>, is: Option<Image>) -> Result<()> {
        let cost = |image: &Option<Image>| image.as_ref().map_or(0, Image::cost);
        self.held += cost(&is);
        match self.rows.get_mut(&key) {
            Some(net) => {
                self.held = self.held.saturating_sub(cost(&net.is));
                // What the log does not have of it now is what it was.
                net.is = match (net.is.take(), is) {
                    (Some(old), Some(new)) if new.0.iter().any(Option::is_none) && was.is_some() => {
                        let partly =
                            |(was, new): (&Option<Bytes>, &Option<Bytes>)| was.is_some() && new.is_none();
                        let unknown = was.iter().flat_map(|was| was.0.iter().zip(&new.0).map(partly));
                        let mut whole = old.overlaid(&new);
                        for (slot, unknown) in whole.0.iter_mut().zip(unknown) {
                            if unknown {
                                *slot = None;
                            }
                        }
                        Some(whole)
                    }
                    (_, new) => new,
                };
            }
            None => {
                self.held += cost(&was) + 2 * (64 + 32 * key.len() as u64);
                self.order.push(key.clone());
                self.rows.insert(key, Net { was, is });
            }
        }
        if self.held > ROWS_BYTES_MAX {
            return Err(Error::failed(format!(
                "More than {} MiB of rows of {} changed between the two moments, more than a diff holds.",
                ROWS_BYTES_MAX >> 20,
                self.table
            ))
            .with_next("choose moments that lie closer together"));
        }
        Ok(())
    }

    fn view(mut self, limit: usize) -> DiffView {
        let mut view = DiffView {
            table: self.table.to_string(),
            inserted: 0,
            updated: 0,
            deleted: 0,
            rows: Vec::new(),
            more: 0,
        };
        let Some(known) = self.known.take() else { return view };
        for key in std::mem::take(&mut self.order) {
            let Some(Net { was, is }) = self.rows.remove(&key) else { continue };
            let change = match (&was, &is) {
                (None, None) => continue,
                (None, Some(_)) => "insert",
                (Some(_), None) => "delete",
                (Some(was), Some(is)) if was == is => continue,
                (Some(_), Some(_)) => "update",
            };
            match change {
                "insert" => view.inserted += 1,
                "delete" => view.deleted += 1,
                _ => view.updated += 1,
            }
            if view.rows.len() >= limit {
                view.more += 1;
                continue;
            }
            view.rows.push(RowView { table: view.table.clone(), change, cells: cells(&known, was, is) });
        }
        view
    }
}

/// All columns of a row that came or went; of one that changed, its key and what changed.
fn cells(known: &Known, was: Option<Image>, is: Option<Image>) -> Vec<CellView> {
    let both = was.is_some() && is.is_some();
    let mut cells = Vec::new();
    for (at, (column, name)) in known.columns.iter().zip(&known.names).enumerate() {
        let value = |image: &Option<Image>| image.as_ref().and_then(|image| image.get(at)).cloned();
        let (before, after) = (value(&was), value(&is));
        if (both && before == after && !known.key.contains(&at)) || (before.is_none() && after.is_none()) {
            continue;
        }
        let say = |value: Option<Bytes>| value.map(|value| shown(column, value.as_deref(), false));
        let unknown = || Some(Shown::Other("(not in the log)".to_owned()));
        let (mut before, mut after) = (say(before), say(after));
        if both {
            (before, after) = (before.or_else(unknown), after.or_else(unknown));
        }
        cells.push(CellView { column: name.clone(), before, after });
    }
    cells
}
