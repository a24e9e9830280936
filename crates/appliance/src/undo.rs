//! `undo`: the inverse of whole transactions, printed as SQL or applied to a server.
//!
//! The log has every row before and after its change. The changes are turned round, the last one first, and written as
//! SQL with the names that the server knows. Before anything is applied each row is compared with what the transaction
//! left: `apply.rs`.

mod apply;
pub(crate) mod definition;
pub(crate) mod literal;
pub(crate) mod plan;
mod sight;
pub(crate) mod since;

pub use apply::{Applied, Conflict};

use crate::archive::archive_error;
use crate::catalogue::{Catalogue, sentence};
use crate::changes::{self, Change, LoggedTable, Step as Logged};
use crate::error::{Code, Error, Result};
use crate::find::view;
use crate::login::{connect, connect_options};
use crate::settings::Login;
use crate::views::FoundView;
use definition::Definition;
use holdfast_archive::{Hole, Place, ServerLog, Target};
use holdfast_binlog::tables::TableKey;
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_format::txn_index::TxnKind;
use holdfast_mysql::Conn;
use plan::{Step, Table};
use serde::Serialize;
use std::sync::Arc;
use std::time::Duration;

/// Bytes of rows that are held at once; a transaction beyond this is a case for a restore.
const ROWS_BYTES_MAX: u64 = 256 << 20;

/// Longest wait for one statement: a row of a table without a key is looked for in all of it.
const STATEMENT_TIME_MAX: Duration = Duration::from_secs(600);

/// What is to be undone.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Transactions, as `find` prints them.
    pub ids: Vec<String>,
    /// Only rows of this table, `DB.TABLE`.
    pub table: Option<String>,
    /// The server whose tables they are; the protected one without it.
    pub on: Option<(ServerKind, Login)>,
}

/// How it is applied.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    /// Only look whether it could be applied.
    pub dry_run: bool,
    /// Leave rows that changed since as they are, and undo the others.
    pub skip_conflicts: bool,
    /// Whatever triggers and foreign keys do is wanted.
    pub force: bool,
}

/// The inverse of transactions.
#[derive(Clone, Debug, Serialize)]
pub struct UndoView {
    /// The transactions, oldest first.
    pub transactions: Vec<FoundView>,
    /// Rows that are written.
    pub rows: u64,
    /// What whoever runs this should know.
    pub warnings: Vec<String>,
    /// The statements, without their ends.
    pub statements: Vec<String>,
}

/// What undoes the transactions, the session that knows the tables, and what to say of them.
struct Ready {
    conn: Conn,
    steps: Vec<Step>,
    transactions: Vec<FoundView>,
    warnings: Vec<String>,
    /// Reasons why it is not applied unless that is wanted.
    dangers: Vec<String>,
}

/// Gives the SQL that undoes transactions of the server called `name`.
///
/// # Errors
/// `TargetUnreachable` when one is not in the archive; `Failed` when it can't be undone, with what to do instead.
pub fn sql(catalogue: &Catalogue, name: &str, wanted: &Wanted) -> Result<UndoView> {
    let ready = ready(catalogue, name, wanted)?;
    let mut statements: Vec<String> = literal::SESSION.map(str::to_owned).into();
    statements.push("START TRANSACTION".to_owned());
    for step in &ready.steps {
        statements.push(step.sql()?);
    }
    statements.push("COMMIT".to_owned());
    let mut warnings = ready.warnings;
    warnings.extend(ready.dangers);
    Ok(UndoView { transactions: ready.transactions, rows: ready.steps.len() as u64, warnings, statements })
}

/// Undoes transactions on the server, if every row is still as they left it.
///
/// # Errors
/// As [`sql`]; and `Failed` when the server refuses, with nothing changed.
pub fn apply(catalogue: &Catalogue, name: &str, wanted: &Wanted, how: How) -> Result<Applied> {
    let mut ready = ready(catalogue, name, wanted)?;
    if let Some(danger) = ready.dangers.first()
        && !how.force
    {
        return Err(Error::failed(danger.clone()).with_next(
            "print the SQL without --apply and judge, or restore to the moment before; --force applies it as it is",
        ));
    }
    for table in tables(&ready.steps) {
        if !table.is.transactional {
            return Err(Error::failed(format!(
                "{} is of an engine without transactions: an undo that breaks off would stay half done.",
                table.logged.key
            ))
            .with_next("print the SQL without --apply, and run it while nobody uses the table"));
        }
    }
    apply::run(&mut ready.conn, &ready.steps, how, ready.warnings)
}

/// The tables of the steps, each once.
fn tables(steps: &[Step]) -> Vec<&Arc<Table>> {
    let mut tables: Vec<&Arc<Table>> = Vec::new();
    for step in steps {
        if !tables.iter().any(|known| Arc::ptr_eq(known, &step.table)) {
            tables.push(&step.table);
        }
    }
    tables
}

/// Reads the transactions and the tables.
fn ready(catalogue: &Catalogue, name: &str, wanted: &Wanted) -> Result<Ready> {
    let server = catalogue.server(name)?;
    let told = |e| archive_error(catalogue, &server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let (transactions, changes, from) = changes_of(catalogue, &server, &log, wanted)?;
    if changes.is_empty() {
        let of = wanted.table.as_ref().map_or_else(String::new, |table| format!(" of {table}"));
        return Err(Error::failed(format!("There is nothing to undo: no row{of} was changed."))
            .with_next(format!("`holdfast find {name}` prints what each transaction changed")));
    }
    let mut keys: Vec<TableKey> = Vec::new();
    for change in &changes {
        if !keys.contains(&change.table.key) {
            keys.push(change.table.key.clone());
        }
    }
    since::refuse_definitions(&log, name, from, &keys, &told)?;
    let mut conn = connection(catalogue, &server, wanted.on.as_ref())?;
    conn.set_read_timeout(STATEMENT_TIME_MAX);
    let mut known: Vec<Arc<Table>> = Vec::new();
    let (mut steps, mut dangers, mut warnings) = (Vec::new(), Vec::new(), Vec::new());
    warnings.extend(since::not_archived(&log, &mut conn, &told)?);
    for change in changes.into_iter().rev() {
        let table = table(&mut conn, &mut known, &change.table)?;
        let partial = change.partial;
        let Some(step) = Step::undoing(&table, change)? else { continue };
        let say = |list: &mut Vec<String>, text: String| {
            if !list.contains(&text) {
                list.push(text);
            }
        };
        let key = &table.logged.key;
        if let Some(foreign) = &step.cascade {
            say(
                &mut dangers,
                format!(
                    "The foreign key of {foreign} changes rows when rows of {key} change: what it did is not undone, and what it \
                 will do is not known."
                ),
            );
        }
        if partial {
            say(
                &mut warnings,
                format!(
                    "The log has only differences of JSON values of {key}: whether they changed since is not looked at."
                ),
            );
        }
        if !table.has_key() && step.now.is_none() {
            say(
                &mut warnings,
                format!("{key} has no key: its rows are inserted again each time that this is run."),
            );
        }
        steps.push(step);
    }
    for table in known.iter().filter(|table| !table.is.triggers.is_empty()) {
        dangers.push(format!(
            "{} has triggers ({}), which would run for each row, while what they did the first time is undone as well.",
            table.logged.key,
            table.is.triggers.join(", ")
        ));
    }
    dangers.extend(sight::unseen(&mut conn, &keys).map_err(|e| said(&conn, &e))?);
    dangers.sort();
    dangers.dedup();
    Ok(Ready { conn, steps, transactions, warnings, dangers })
}

/// The server that has the tables: another one, or the protected one.
pub(crate) fn connection(
    catalogue: &Catalogue,
    server: &ServerRecord,
    on: Option<&(ServerKind, Login)>,
) -> Result<Conn> {
    let options = match on {
        Some((kind, login)) => {
            let other = ServerRecord { kind: kind.clone(), ..server.clone() };
            connect_options(&catalogue.environment, &other, Some(login))?
        }
        None => connect_options(&catalogue.environment, server, catalogue.login(server)?.as_ref())?,
    };
    connect(&options, &server.name)
}

/// Something that the server said, as a sentence.
pub(crate) fn said(conn: &Conn, error: &holdfast_mysql::Error) -> Error {
    Error::failed(format!("The server at {} refused: {}", conn.endpoint(), sentence(&error.to_string())))
}

/// The table of a change, read from the server once; one for each definition that the log has of it.
fn table(conn: &mut Conn, known: &mut Vec<Arc<Table>>, logged: &Arc<LoggedTable>) -> Result<Arc<Table>> {
    let same = |of: &LoggedTable| of.key == logged.key && of.definition == logged.definition;
    if let Some(table) = known.iter().find(|table| Arc::ptr_eq(&table.logged, logged) || same(&table.logged))
    {
        return Ok(Arc::clone(table));
    }
    if let Some(other) = known.iter().find(|table| table.logged.key == logged.key) {
        // Each must fit what the table is now.
        other.is.fits(logged)?;
        let table = Arc::new(Table { logged: Arc::clone(logged), is: other.is.clone() });
        known.push(Arc::clone(&table));
        return Ok(table);
    }
    let is = Definition::read(conn, &logged.key).map_err(|e| said(conn, &e))?.ok_or_else(|| {
        Error::failed(format!(
            "The server at {} has no table {}, or the account may not see it.",
            conn.endpoint(),
            logged.key
        ))
        .with_next(
            "name a server that has it (--host or --socket, with --user), and an account that may read it",
        )
    })?;
    is.fits(logged)?;
    let table = Arc::new(Table { logged: Arc::clone(logged), is });
    known.push(Arc::clone(&table));
    Ok(table)
}

/// The transactions in the order of the log, the rows that they changed, and where the first one begins.
fn changes_of(
    catalogue: &Catalogue,
    server: &ServerRecord,
    log: &ServerLog<'_>,
    wanted: &Wanted,
) -> Result<(Vec<FoundView>, Vec<Change>, Place)> {
    let told = |e| archive_error(catalogue, server, e);
    let mut places: Vec<(Place, Place, FoundView)> = Vec::new();
    for id in &wanted.ids {
        let cut = |target| match log.resolve(&target).map_err(told)? {
            Ok(cut) => Ok(cut),
            Err(hole) => Err(not_there(&server.name, id, &hole)),
        };
        let (before, after) = (cut(Target::Before(id.clone()))?, cut(Target::After(id.clone()))?);
        let Some(found) = after.kept else {
            return Err(Error::failed(format!(
                "The index of '{}' does not tell where {id} is.",
                server.name
            )));
        };
        let found_view = view(&found);
        if !matches!(found.entry.kind, TxnKind::Rows | TxnKind::Other) {
            return Err(cannot(&server.name, &found_view.id, found_view.statement.as_deref()));
        }
        if !places.iter().any(|(place, ..)| *place == before.place) {
            places.push((before.place, after.place, found_view));
        }
    }
    places.sort_by_key(|(place, ..)| *place);
    let (mut changes, mut held) = (Vec::new(), 0u64);
    for (from, until, found) in &places {
        let mut cursor = log.read(*from, *until).map_err(told)?;
        changes::read(&mut cursor, &told, &mut |step| match step {
            Logged::Statement { text, .. } => Err(cannot(&server.name, &found.id, Some(&text))),
            Logged::Row(change) => {
                let other = wanted.table.as_ref().is_some_and(|table| *table != change.table.key.to_string());
                if other {
                    return Ok(());
                }
                held += change.before.iter().chain(&change.after).map(changes::Image::cost).sum::<u64>();
                if held > ROWS_BYTES_MAX {
                    return Err(Error::failed(format!(
                        "These transactions changed more than {} MiB of rows, more than an undo holds.",
                        ROWS_BYTES_MAX >> 20
                    ))
                    .with_next(
                        "undo fewer at a time, the newest first, or one table with --table; or restore",
                    ));
                }
                changes.push(change);
                Ok(())
            }
        })?;
    }
    let from = places.first().map_or(Place(0), |(from, ..)| *from);
    Ok((places.into_iter().map(|(_, _, found)| found).collect(), changes, from))
}

fn cannot(name: &str, id: &str, statement: Option<&str>) -> Error {
    let what: String = statement.unwrap_or("a statement").split_whitespace().collect::<Vec<_>>().join(" ");
    let what: String = what.chars().take(120).collect();
    Error::failed(format!("{id} can't be undone: the log does not have what it changed row by row: {what}"))
        .with_next(format!("holdfast restore {name} --before {id} --into DIR, and copy from there"))
}

fn not_there(name: &str, id: &str, hole: &Hole) -> Error {
    let message = format!("{id} is not in the archive of '{name}': {}", hole.reason);
    Error::new(Code::TargetUnreachable, sentence(&message))
        .with_next(format!("`holdfast find {name}` prints the ids of transactions"))
}
