//! A server's databases, tables and rows as a script.
//!
//! Everything is asked for as it is stored (`character_set_results` is none), so that nothing is lost on the way through
//! a character set of ours.

use super::script::{STATEMENT_BYTES_MAX, Script};
use super::values::{Column, quote};
use super::{Part, Wanted, accounts, stored};
use crate::error::Error;
use crate::progress::{Reading, Watcher};
use holdfast_mysql::{Conn, ResultSet};
use holdfast_restore::catalog::quoted_name;

/// Why a script ended before its end.
pub(super) enum Trouble {
    /// The server said no.
    Sql(holdfast_mysql::Error),
    /// The script can't be written.
    Out(std::io::Error),
    /// It was called off.
    Cancelled,
    /// What to tell the user.
    Said(Error),
}

impl From<holdfast_mysql::Error> for Trouble {
    fn from(error: holdfast_mysql::Error) -> Self {
        Self::Sql(error)
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Out(error)
    }
}

pub(super) type Done<T> = std::result::Result<T, Trouble>;

/// Schemas that belong to the server.
const OWN_SCHEMAS: &str = "'mysql', 'sys', 'information_schema', 'performance_schema'";

/// A dump that is being written.
pub(super) struct Dump<'a, 'w> {
    pub conn: &'a mut Conn,
    pub script: &'a mut Script<'w>,
    pub wanted: &'a Wanted,
    pub watcher: &'a dyn Watcher,
    /// What the script does not have, or will not do, a sentence each.
    pub warnings: Vec<String>,
    /// Tables, views and sequences that were written.
    pub tables: u64,
    /// Rows that were written.
    pub rows: u64,
    progress: Progress,
}

/// Bytes as the server estimates them: all tables, the finished ones, and the rows of the one that is read.
#[derive(Default)]
struct Progress {
    total: u64,
    finished: u64,
}

/// What a database has, by the server's kinds of tables.
struct Table {
    name: String,
    kind: String,
    bytes: u64,
}

/// A view with the server's words for it.
struct View {
    database: String,
    name: String,
    made: ResultSet,
}

impl<'a, 'w> Dump<'a, 'w> {
    pub(super) fn new(
        conn: &'a mut Conn,
        script: &'a mut Script<'w>,
        wanted: &'a Wanted,
        watcher: &'a dyn Watcher,
    ) -> Self {
        let (warnings, progress) = (Vec::new(), Progress::default());
        Self { conn, script, wanted, watcher, warnings, tables: 0, rows: 0, progress }
    }

    pub(super) fn mariadb(&self) -> bool {
        self.conn.server().is_mariadb()
    }

    /// Writes everything between the head and the end.
    pub(super) fn run(&mut self) -> Done<()> {
        session(self.conn)?;
        let databases = self.databases()?;
        let mut all = Vec::new();
        for database in databases {
            let tables = self.tables_of(&database)?;
            self.progress.total += tables.iter().map(|table| table.bytes).sum::<u64>();
            all.push((database, tables));
        }
        if self.wanted.users && self.wanted.part != Part::Data {
            accounts::accounts(self)?;
        }
        for (database, tables) in &all {
            self.database(database, tables)?;
        }
        // Views last: they may need anything else, functions and each other.
        if self.wanted.part != Part::Data {
            let mut current = None;
            for View { database, name, made } in self.views(&all)? {
                if current.as_ref() != Some(&database) {
                    self.enter(&database)?;
                }
                self.view(&database, &name, &made)?;
                current = Some(database);
            }
        }
        if self.wanted.users && self.wanted.part != Part::Data {
            accounts::grants(self)?;
        }
        Ok(())
    }

    /// The databases that are wanted, by name; all of them must be there.
    fn databases(&mut self) -> Done<Vec<String>> {
        let found = self.conn.query(format!(
            "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ({OWN_SCHEMAS}) \
             ORDER BY SCHEMA_NAME"
        ))?;
        let mut found: Vec<String> = texts(&found, 0).collect();
        if self.wanted.databases.is_empty() && self.wanted.tables.is_empty() {
            return Ok(found);
        }
        let tables = self.wanted.tables.iter().map(|(database, _)| database);
        for wanted in self.wanted.databases.iter().chain(tables) {
            if !found.contains(wanted) {
                return Err(missing(format!("There is no database '{wanted}' at that moment.")));
            }
        }
        found.retain(|name| {
            self.whole(name) || self.wanted.tables.iter().any(|(database, _)| database == name)
        });
        Ok(found)
    }

    /// Is all of the database wanted?
    fn whole(&self, database: &str) -> bool {
        (self.wanted.databases.is_empty() && self.wanted.tables.is_empty())
            || self.wanted.databases.iter().any(|name| name == database)
    }

    fn tables_of(&mut self, database: &str) -> Done<Vec<Table>> {
        let found = self.conn.query(format!(
            "SELECT TABLE_NAME, TABLE_TYPE, COALESCE(DATA_LENGTH, 0) FROM information_schema.TABLES \
             WHERE TABLE_SCHEMA = {} ORDER BY TABLE_NAME",
            text(database)
        ))?;
        let table = |row| Table {
            name: found.text(row, 0).unwrap_or_default(),
            kind: found.text(row, 1).unwrap_or_default(),
            bytes: found.text(row, 2).and_then(|text| text.parse().ok()).unwrap_or_default(),
        };
        let mut tables: Vec<Table> = (0..found.rows.len()).map(table).collect();
        if !self.whole(database) {
            let named =
                |name: &str| self.wanted.tables.iter().any(|(db, table)| db == database && table == name);
            for (_, name) in self.wanted.tables.iter().filter(|(db, _)| db == database) {
                if !tables.iter().any(|table| table.name == *name) {
                    return Err(missing(format!("There is no table '{database}.{name}' at that moment.")));
                }
            }
            tables.retain(|table| named(&table.name));
        }
        Ok(tables)
    }

    /// Makes a database the current one, of our session and of whoever reads the script.
    fn enter(&mut self, database: &str) -> Done<()> {
        self.script.remark(&format!("Current Database: {}", quoted_name(database)))?;
        let enter = format!("USE {}", quoted_name(database));
        self.conn.execute(&enter)?;
        Ok(self.script.statement(enter)?)
    }

    fn database(&mut self, database: &str, tables: &[Table]) -> Done<()> {
        if self.wanted.part != Part::Data {
            let made =
                self.conn.query(format!("SHOW CREATE DATABASE IF NOT EXISTS {}", quoted_name(database)))?;
            self.script.put("\n")?;
            self.script.statement(value(&made, 1)?)?;
        }
        self.enter(database)?;
        // Sequences first: the defaults of tables may take from them.
        for sequence in tables.iter().filter(|table| table.kind == "SEQUENCE") {
            self.sequence(&sequence.name)?;
        }
        for table in tables.iter().filter(|table| table.kind != "SEQUENCE") {
            if table.kind == "VIEW" {
                self.placeholder(&table.name)?;
            } else {
                self.table(database, table)?;
            }
        }
        if self.wanted.part != Part::Data && self.whole(database) {
            stored::events(self, database)?;
            stored::routines(self, database)?;
        }
        Ok(())
    }

    fn sequence(&mut self, name: &str) -> Done<()> {
        let quoted = quoted_name(name);
        self.script.remark(&format!("Sequence structure for {quoted}"))?;
        if self.wanted.part != Part::Data {
            let made = self.conn.query(format!("SHOW CREATE SEQUENCE {quoted}"))?;
            self.script.statement(format!("DROP SEQUENCE IF EXISTS {quoted}"))?;
            self.script.statement(value(&made, 1)?)?;
        }
        if self.wanted.part != Part::Schema {
            let state =
                self.conn.query(format!("SELECT next_not_cached_value, cycle_count FROM {quoted}"))?;
            let text = |column| state.text(0, column).unwrap_or_default();
            self.script.statement(format!("DO SETVAL({quoted}, {}, 0, {})", text(0), text(1)))?;
        }
        self.tables += 1;
        Ok(())
    }

    /// A table of the view's columns, so that other views and the bodies of routines find it.
    fn placeholder(&mut self, name: &str) -> Done<()> {
        if self.wanted.part == Part::Data {
            return Ok(());
        }
        let quoted = quoted_name(name);
        // A view that can't be opened has no columns: it is made at the end, or named there.
        let Some(columns) = answer(self.conn.query(format!("SELECT * FROM {quoted} LIMIT 0")))?.ok() else {
            return Ok(());
        };
        self.script.remark(&format!("Temporary view structure for view {quoted}"))?;
        let columns: Vec<String> =
            columns.columns.iter().map(|column| format!("1 AS {}", quoted_name(&column.name))).collect();
        self.script.statement(format!("DROP TABLE IF EXISTS {quoted}"))?;
        self.script.statement(format!("DROP VIEW IF EXISTS {quoted}"))?;
        Ok(self.script.statement(format!("CREATE VIEW {quoted} AS SELECT {}", columns.join(", ")))?)
    }

    /// All views, each behind those that its text names: a server refuses a CHECK OPTION over a placeholder.
    fn views(&mut self, all: &[(String, Vec<Table>)]) -> Done<Vec<View>> {
        let mut views = Vec::new();
        for (database, tables) in all {
            for table in tables.iter().filter(|table| table.kind == "VIEW") {
                let name = table.name.clone();
                self.conn.execute(format!("USE {}", quoted_name(database)))?;
                let made = self.conn.query(format!("SHOW CREATE VIEW {}", quoted_name(&name)))?;
                views.push(View { database: database.clone(), name, made });
            }
        }
        let texts: Vec<&[u8]> = views.iter().map(|view| view.made.value(0, 1).unwrap_or_default()).collect();
        let names: Vec<String> = views.iter().map(|view| quoted_name(&view.name)).collect();
        let order = behind_what_they_name(&names, &texts);
        let mut views: Vec<Option<View>> = views.into_iter().map(Some).collect();
        Ok(order.into_iter().filter_map(|at| views.get_mut(at).and_then(Option::take)).collect())
    }

    fn view(&mut self, database: &str, name: &str, made: &ResultSet) -> Done<()> {
        let quoted = quoted_name(name);
        self.script.remark(&format!("Final view structure for view {quoted}"))?;
        let opened = answer(self.conn.query(format!("SELECT * FROM {quoted} LIMIT 0")))?;
        if let Err(error) = &opened
            && error.code() == Some(INVALID_VIEW)
        {
            self.warnings.push(format!(
                "the view {database}.{name} is broken on the source, and is not in the script"
            ));
            let text: String = String::from_utf8_lossy(value(made, 1)?).lines().collect::<Vec<_>>().join(" ");
            return Ok(self.script.put(format!("-- broken, so not made: {text}\n"))?);
        }
        self.script.statement(format!("DROP VIEW IF EXISTS {quoted}"))?;
        let session = stored::Session {
            client: made.text(0, 2).unwrap_or_default(),
            connection: made.text(0, 3).unwrap_or_default(),
            ..stored::Session::default()
        };
        session.set(self.script)?;
        self.script.statement(value(made, 1)?)?;
        session.back(self.script)?;
        self.tables += 1;
        Ok(())
    }

    fn table(&mut self, database: &str, table: &Table) -> Done<()> {
        let quoted = quoted_name(&table.name);
        if self.wanted.part != Part::Data {
            let made = self.conn.query(format!("SHOW CREATE TABLE {quoted}"))?;
            self.script.remark(&format!("Table structure for table {quoted}"))?;
            self.script.statement(format!("DROP TABLE IF EXISTS {quoted}"))?;
            self.script.statement(value(&made, 1)?)?;
        }
        if self.wanted.part != Part::Schema {
            self.rows_of(database, table)?;
        }
        if self.wanted.part != Part::Data {
            stored::triggers(self, database, &table.name)?;
        }
        self.tables += 1;
        Ok(())
    }

    fn rows_of(&mut self, database: &str, table: &Table) -> Done<()> {
        let quoted = quoted_name(&table.name);
        let (mut columns, mut named) = Column::of(self.conn, database, &table.name)?;
        let mut history = false;
        if table.kind == "SYSTEM VERSIONED" {
            history = self.history_of(database, &table.name, &mut columns)?;
            named |= history;
        }
        self.script.remark(&format!("Dumping data for table {quoted}"))?;
        if columns.is_empty() {
            return Ok(());
        }
        let selected: Vec<String> = columns.iter().map(Column::selected).collect();
        let names: Vec<String> = columns.iter().map(|column| quoted_name(&column.name)).collect();
        let list = if named { format!(" ({})", names.join(", ")) } else { String::new() };
        let of_all_times = if history { " FOR SYSTEM_TIME ALL" } else { "" };
        let query = format!("SELECT {} FROM {quoted}{of_all_times}", selected.join(", "));
        if history {
            self.script.statement("SET @@SESSION.system_versioning_insert_history = 1")?;
        }
        self.script.put(format!("/*!40000 ALTER TABLE {quoted} DISABLE KEYS */;\n"))?;
        self.script.begin_rows(format!("INSERT INTO {quoted}{list} VALUES "));
        let (script, watcher, progress) = (&mut *self.script, self.watcher, &self.progress);
        let (mut row, mut rows, mut bytes) = (Vec::new(), 0_u64, 0_u64);
        self.conn.query_each::<Trouble>(query, |found| {
            row.clear();
            row.push(b'(');
            for (at, (column, value)) in columns.iter().zip(found.values()).enumerate() {
                if at > 0 {
                    row.push(b',');
                }
                column.write(*value, &mut row);
                bytes += value.map_or(1, <[u8]>::len) as u64;
            }
            row.push(b')');
            if !script.row(&row)? {
                return Err(Trouble::Said(
                    Error::failed(format!(
                        "A row of {database}.{} has {} bytes as SQL, more than the {} that a server takes.",
                        table.name,
                        row.len(),
                        STATEMENT_BYTES_MAX
                    ))
                    .with_next("export a data directory (--datadir or --tar), which holds it as it is"),
                ));
            }
            row.shrink_to(1 << 20);
            rows += 1;
            watcher.reading(Reading {
                phase: "export",
                done: progress.finished + bytes.min(table.bytes),
                total: Some(progress.total).filter(|total| *total > 0),
                bytes: true,
                limit: None,
            });
            if watcher.cancelled() { Err(Trouble::Cancelled) } else { Ok(()) }
        })?;
        self.script.end_rows()?;
        self.script.put(format!("/*!40000 ALTER TABLE {quoted} ENABLE KEYS */;\n"))?;
        if history {
            self.script.statement("SET @@SESSION.system_versioning_insert_history = 0")?;
        }
        self.progress.finished += table.bytes;
        self.rows += rows;
        Ok(())
    }

    /// Adds the two columns that tell since when and until when a row of a system-versioned table was there. False: the
    /// server can't be given rows of the past, and the script has those of the moment only.
    fn history_of(&mut self, database: &str, table: &str, columns: &mut Vec<Column>) -> Done<bool> {
        let found = self.conn.query(format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, GENERATION_EXPRESSION FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} AND GENERATION_EXPRESSION IN ('ROW START', 'ROW END') \
             ORDER BY ORDINAL_POSITION",
            text(database),
            text(table)
        ))?;
        let by_transaction = texts(&found, 1).any(|kind| kind.eq_ignore_ascii_case("bigint"));
        if by_transaction || self.conn.server().numbers() < (10, 11, 0) {
            self.warnings.push(format!(
                "the rows that {database}.{table} had in the past are not in the script: {}",
                if by_transaction {
                    "its history is kept by transactions, which no script can bring back"
                } else {
                    "a server takes them from version 10.11 on"
                }
            ));
            return Ok(false);
        }
        let named = found.rows.len() == 2;
        for (at, hidden) in ["row_start", "row_end"].into_iter().enumerate() {
            let name = found.text(at, 0).filter(|_| named).unwrap_or_else(|| hidden.to_owned());
            columns.push(Column::new(&name, "timestamp", "timestamp(6)", None));
        }
        Ok(true)
    }
}

/// Sets a session in which values come as they are stored, and begins the one snapshot in which everything is read.
pub(crate) fn session(conn: &mut Conn) -> holdfast_mysql::Result<()> {
    let mut statements = vec![
        "SET NAMES utf8mb4",
        "SET SESSION sql_mode = '', time_zone = '+00:00', sql_quote_show_create = 1, net_write_timeout = 86400",
    ];
    if !conn.server().is_mariadb() {
        statements.push("SET SESSION print_identified_with_as_hex = ON, information_schema_stats_expiry = 0");
        if conn.server().numbers() >= (8, 0, 30) {
            statements.push("SET SESSION show_gipk_in_create_table_and_information_schema = ON");
        }
    }
    statements.extend([
        "SET SESSION character_set_results = NULL",
        "SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ",
        "START TRANSACTION WITH CONSISTENT SNAPSHOT",
    ]);
    for statement in statements {
        conn.execute(statement)?;
    }
    Ok(())
}

/// The order in which each text comes behind those whose names it holds. Where a name stands for something else, or they
/// name each other, any order is as good.
fn behind_what_they_name(names: &[String], texts: &[&[u8]]) -> Vec<usize> {
    let holds = |text: &[u8], name: &str| text.windows(name.len()).any(|part| part == name.as_bytes());
    let (mut order, mut seen) = (Vec::new(), vec![false; names.len()]);
    for root in 0..names.len() {
        // Each with the next name that is to be looked for in it.
        let mut path = vec![(root, 0)];
        while let Some((at, next)) = path.last_mut() {
            let at = *at;
            if *next == 0 && seen.get(at).copied().unwrap_or(true) {
                path.pop();
                continue;
            }
            if let Some(seen) = seen.get_mut(at) {
                *seen = true;
            }
            let other = *next;
            *next += 1;
            match names.get(other) {
                None => {
                    order.push(at);
                    path.pop();
                }
                Some(name) => {
                    let named = other != at && texts.get(at).is_some_and(|text| holds(text, name));
                    if named && !seen.get(other).copied().unwrap_or(true) {
                        path.push((other, 0));
                    }
                }
            }
        }
    }
    order
}

/// `ER_VIEW_INVALID`.
const INVALID_VIEW: u16 = 1356;

/// What a server said to a statement that it may refuse; a broken connection is an error.
fn answer<T>(result: holdfast_mysql::Result<T>) -> Done<holdfast_mysql::Result<T>> {
    match result {
        Err(error @ holdfast_mysql::Error::Server(_)) => Ok(Err(error)),
        other => Ok(Ok(other?)),
    }
}

fn missing(message: String) -> Trouble {
    Trouble::Said(
        Error::usage(message).with_next("check the name, with upper and lower case as the server has it"),
    )
}

/// A text as SQL in our own session.
pub(super) fn text(text: &str) -> String {
    let mut out = Vec::new();
    quote(text.as_bytes(), &mut out);
    String::from_utf8_lossy(&out).into_owned()
}

/// The texts of a column.
pub(super) fn texts(found: &ResultSet, column: usize) -> impl Iterator<Item = String> {
    (0..found.rows.len()).map(move |row| found.text(row, column).unwrap_or_default())
}

/// A definition that the server was asked for.
pub(super) fn value(found: &ResultSet, column: usize) -> Done<&[u8]> {
    found.value(0, column).ok_or_else(|| {
        let of = found.text(0, 0).unwrap_or_default();
        Trouble::Said(Error::failed(format!("The server does not tell how '{of}' is defined.")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn views_come_behind_those_that_they_name() {
        let names = ["`a`", "`b`", "`c`", "`d`"].map(str::to_owned);
        let order = |texts: [&str; 4]| behind_what_they_name(&names, &texts.map(str::as_bytes));
        assert_eq!(order(["`c`", "", "`d` `b`", "`x`"]), [1, 3, 2, 0]);
        // Each once, though they name each other and themselves.
        assert_eq!(order(["`b` `a`", "`c`", "`a`", ""]), [2, 1, 0, 3]);
    }
}
