//! What has changed since: a table beside its copy, row by row, by the running server itself.
//!
//! Rows are the same where all columns that both have are, byte for byte: texts that a collation takes for equal are not.
//! JSON values are compared as the server compares them, since a copy by SQL keeps the values of numbers, not their types.

use super::Refused;
use super::then::{ForeignKey, Then};
use crate::undo::definition::{ColumnDefinition, Definition, quoted};
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::{quoted_name, quoted_table};

/// Keys of rows that are named in a message.
const EXAMPLES: usize = 3;

/// A column that both tables have.
#[derive(Clone, Debug)]
pub(super) struct Common {
    /// Its name then.
    pub then: String,
    /// Its name now: another one in letters' case only.
    pub now: String,
    how: How,
    /// Character set and collation now, where they are not those of then.
    other: Option<(String, String)>,
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    /// As the server does it.
    Plain,
    /// By bytes.
    Bytes,
    /// As texts, by bytes.
    Text,
    /// By bytes, of types that are cast to nothing else.
    Hex,
    /// As the server compares JSON, or as its text: what is a date in JSON came back as a string.
    Json,
}

impl Common {
    fn new(then: &ColumnDefinition, now: &ColumnDefinition) -> Self {
        let shape = |kind: &str| {
            ["geo", "point", "line", "poly", "multi", "vector"].iter().any(|front| kind.starts_with(front))
        };
        let how = match (&then.charset, &now.charset) {
            _ if shape(&then.data_type) && shape(&now.data_type) => How::Hex,
            _ if then.data_type == "json" && now.data_type == "json" && now.charset.is_none() => How::Json,
            (Some(a), Some(b)) if a == b => How::Bytes,
            (None, None) => How::Plain,
            _ => How::Text,
        };
        let other = now.charset.clone().zip(now.collation.clone());
        let other = other.filter(|_| then.collation != now.collation);
        Self { then: then.name.clone(), now: now.name.clone(), how, other }
    }

    /// The value of `alias` (then) as the server can compare it with one of now.
    fn beside(&self, alias: &str) -> String {
        let value = format!("{alias}.{}", quoted_name(&self.then));
        match &self.other {
            Some((charset, collation)) => format!("CONVERT({value} USING {charset}) COLLATE {collation}"),
            None => value,
        }
    }

    /// A short text that stands for a value.
    fn digest(&self, value: &str) -> String {
        let bytes = match self.how {
            How::Hex => format!("HEX({value})"),
            _ => format!("CAST({value} AS BINARY)"),
        };
        format!("IFNULL(SHA2({bytes}, 256), '-')")
    }

    /// Is the value of `a` (then) that of `b` (now)?
    fn same(&self, a: &str, b: &str) -> String {
        let a = format!("{a}.{}", quoted_name(&self.then));
        let b = format!("{b}.{}", quoted_name(&self.now));
        let wrap = |value: &str| match self.how {
            How::Plain => value.to_owned(),
            How::Bytes => format!("CAST({value} AS BINARY)"),
            How::Text => format!("CAST(CONVERT({value} USING utf8mb4) AS BINARY)"),
            How::Hex => format!("HEX({value})"),
            // Not as texts, which a collation would take for equal.
            How::Json => format!("CAST(CAST({value} AS CHAR) AS BINARY)"),
        };
        let same = format!("{} <=> {}", wrap(&a), wrap(&b));
        if self.how == How::Json { format!("({a} <=> {b} OR {same})") } else { same }
    }
}

/// How many rows differ.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Rows that are gone.
    pub only_then: u64,
    /// Rows that are new.
    pub only_now: u64,
    /// Rows that are there with other values.
    pub changed: u64,
}

/// Number and digest of rows, as the server tells them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Seen(String);

impl Seen {
    fn rows(&self) -> u64 {
        self.0.split('-').next().and_then(|count| count.parse().ok()).unwrap_or_default()
    }
}

/// A table and its copy.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// The copy.
    pub then: TableKey,
    /// The table.
    pub now: TableKey,
    /// Columns that both have, and whose values are not computed.
    pub columns: Vec<Common>,
    /// Those of them that find a row.
    key: Vec<Common>,
    /// New columns that change by themselves when a row is updated.
    pub by_itself: Vec<String>,
    /// The table as it is now.
    pub is: Definition,
    /// Its foreign keys now.
    pub foreign: Vec<ForeignKey>,
    /// How many rows differ.
    pub counts: Counts,
    /// Which these are: gone, new and changed ones.
    seen: [Seen; 3],
}

/// Engines whose tables are doors to rows that are kept elsewhere.
const ELSEWHERE: [&str; 4] = ["MRG_MYISAM", "FEDERATED", "CONNECT", "SPIDER"];

/// Does this engine keep its rows elsewhere: in other tables, in files of the host, on other servers?
pub(super) fn elsewhere(engine: &str) -> bool {
    ELSEWHERE.iter().any(|name| engine.eq_ignore_ascii_case(name))
}

/// What a server says of a name that it does not know.
const NO_SUCH_TABLE: u16 = 1146;
const NO_SUCH_DATABASE: u16 = 1049;

/// What came of looking at a table.
pub(super) enum Looked {
    /// It can be compared.
    Pair(Box<Pair>),
    /// It is not there any more.
    Gone,
    /// It can't be compared, for this reason.
    Not(String),
}

/// Looks at a table that is called `now`, beside its copy `then`. What differs in their columns is said in `notes`.
pub(super) fn look(
    conn: &mut Conn,
    table: &Then,
    then: &TableKey,
    now: &TableKey,
    notes: &mut Vec<String>,
) -> Refused<Looked> {
    let (Some(was), is) = (Definition::read(conn, then)?, Definition::read(conn, now)?) else {
        return Ok(Looked::Not("the copy can't be seen".to_owned()));
    };
    // The dictionary shows an account what it may see: only who reads the table knows that it is not there.
    match conn.query(format!("SELECT * FROM {} LIMIT 0", quoted_table(now))) {
        Err(error @ holdfast_mysql::Error::Server(_)) => {
            return Ok(match error.code() {
                Some(NO_SUCH_TABLE | NO_SUCH_DATABASE) => Looked::Gone,
                _ => Looked::Not(format!("it can't be read: {error}")),
            });
        }
        other => drop(other?),
    }
    let Some(is) = is else {
        return Ok(Looked::Not("this account does not see its columns".to_owned()));
    };
    let of = format!(
        "FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quoted(&now.database),
        quoted(&now.table)
    );
    let kind = conn.query_text(format!("SELECT TABLE_TYPE {of}"))?;
    let engine = conn.query_text(format!("SELECT ENGINE {of}"))?.unwrap_or_default();
    if elsewhere(&engine) {
        return Ok(Looked::Not(format!("it is of the engine {engine} now, which keeps its rows elsewhere")));
    }
    if kind.is_some_and(|kind| kind.contains("VIEW")) {
        return Ok(Looked::Not("what has this name now is a view".to_owned()));
    }
    let find = |columns: &'_ [ColumnDefinition], name: &str| {
        columns.iter().position(|column| column.name.eq_ignore_ascii_case(name))
    };
    let copied = |name: &str| table.columns.iter().any(|column| column.name == name);
    let (mut columns, mut by_itself) = (Vec::new(), Vec::new());
    for column in &was.columns {
        match find(&is.columns, &column.name).and_then(|at| is.columns.get(at)) {
            None => {
                notes.push(format!("the column {} is gone: it is not compared, nor put back", column.name))
            }
            Some(now) if copied(&column.name) && !now.generated => {
                if now.data_type != column.data_type || now.charset != column.charset {
                    notes.push(format!(
                        "the column {} was of type {}, and is of type {}",
                        column.name,
                        kind_of(column),
                        kind_of(now)
                    ));
                }
                columns.push(Common::new(column, now));
            }
            Some(now) if now.generated != column.generated => {
                notes.push(format!(
                    "the column {} is computed at one of the moments: it is left out",
                    column.name
                ));
            }
            Some(_) => {}
        }
    }
    for column in &is.columns {
        if find(&was.columns, &column.name).is_none() {
            notes.push(format!("the column {} is new: rows that come back get its default", column.name));
            if column.on_update {
                by_itself.push(column.name.clone());
            }
        }
    }
    let names = |of: &Definition| -> Vec<String> {
        let names = of.key.iter().filter_map(|at| of.columns.get(*at));
        names.map(|column| column.name.to_lowercase()).collect()
    };
    if is.key.is_empty() || was.key.is_empty() {
        let when = if was.key.is_empty() { "had" } else { "has" };
        return Ok(Looked::Not(format!(
            "the table {when} no primary key, and no unique key without NULL: its rows can't be told from each other"
        )));
    }
    if names(&is) != names(&was) {
        return Ok(Looked::Not(format!(
            "its key was ({}), and is ({})",
            names(&was).join(", "),
            names(&is).join(", ")
        )));
    }
    let mut key = Vec::new();
    for (a, b) in was.key.iter().zip(&is.key) {
        let (Some(a), Some(b)) = (was.columns.get(*a), is.columns.get(*b)) else { continue };
        if a.data_type != b.data_type || a.charset != b.charset || a.collation != b.collation {
            return Ok(Looked::Not(format!("the column {} of its key is of another type now", b.name)));
        }
        key.push(Common::new(a, b));
    }
    let foreign = ForeignKey::of(conn, now)?;
    Ok(Looked::Pair(Box::new(Pair {
        then: then.clone(),
        now: now.clone(),
        columns,
        key,
        by_itself,
        is,
        foreign,
        counts: Counts::default(),
        seen: Default::default(),
    })))
}

fn kind_of(column: &ColumnDefinition) -> String {
    match &column.charset {
        Some(charset) => format!("{} ({charset})", column.data_type),
        None => column.data_type.clone(),
    }
}

impl Pair {
    /// `ON` of a join of the copy (`a`) and the table (`b`).
    pub(super) fn on(&self, a: &str, b: &str) -> String {
        let part =
            |column: &Common| format!("{a}.{} = {b}.{}", quoted_name(&column.then), quoted_name(&column.now));
        self.key.iter().map(part).collect::<Vec<_>>().join(" AND ")
    }

    /// Has the row other values? `s` is the copy, `l` the table.
    pub(super) fn changed(&self) -> String {
        let parts: Vec<String> = self.columns.iter().map(|column| column.same("s", "l")).collect();
        format!("NOT ({})", parts.join(" AND "))
    }

    /// Is there no row beside the one of the other table? `a` is the alias of the table that is the copy or not.
    pub(super) fn absent(&self, alias: &str, of_copy: bool) -> String {
        let name = self.key.first().map(|key| if of_copy { &key.then } else { &key.now });
        // IS NULL is true of '0000-00-00' as well.
        format!("{alias}.{} <=> NULL", quoted_name(name.map_or("", String::as_str)))
    }

    /// The copy `s` with the table's rows `l` beside it, where there are any.
    pub(super) fn then_beside_now(&self) -> String {
        format!(
            "{} s LEFT JOIN {} l ON {}",
            quoted_table(&self.then),
            quoted_table(&self.now),
            self.on("s", "l")
        )
    }

    /// The same as a join: rows that both have.
    pub(super) fn both(&self) -> String {
        format!("{} l JOIN {} s ON {}", quoted_table(&self.now), quoted_table(&self.then), self.on("s", "l"))
    }

    /// The table `l` with the copy's rows `s` beside it.
    pub(super) fn now_beside_then(&self) -> String {
        format!(
            "{} l LEFT JOIN {} s ON {}",
            quoted_table(&self.now),
            quoted_table(&self.then),
            self.on("s", "l")
        )
    }

    /// Rows of the copy that a copy-back would write: gone or changed ones.
    fn coming(&self) -> String {
        format!("({} OR {})", self.absent("l", false), self.changed())
    }

    /// Counts what differs.
    pub(super) fn count(&mut self, conn: &mut Conn) -> Refused<()> {
        let mut seen: [Seen; 3] = Default::default();
        for (seen, query) in seen.iter_mut().zip(self.differences()) {
            *seen = Seen(conn.query_text(query)?.unwrap_or_default());
        }
        let [only_then, only_now, changed] = seen.each_ref().map(Seen::rows);
        self.counts = Counts { only_then, only_now, changed };
        self.seen = seen;
        Ok(())
    }

    /// Queries for rows that are gone, new and changed: how many, and a digest of their values.
    fn differences(&self) -> [String; 3] {
        let query = |of_copy: bool, from: String, filter: String| {
            let value = |column: &Common| match of_copy {
                true => column.digest(&format!("s.{}", quoted_name(&column.then))),
                false => column.digest(&format!("l.{}", quoted_name(&column.now))),
            };
            let values: Vec<String> = self.columns.iter().map(value).collect();
            format!(
                "SELECT CONCAT(COUNT(*), '-', COALESCE(BIT_XOR(CAST(CONV(LEFT(SHA2(CONCAT_WS(',', {}), 256), 16), 16, 10) \
                 AS UNSIGNED)), 0)) FROM {from} WHERE {filter}",
                values.join(", ")
            )
        };
        [
            query(true, self.then_beside_now(), self.absent("l", false)),
            query(false, self.now_beside_then(), self.absent("s", true)),
            query(false, self.both(), self.changed()),
        ]
    }

    /// Statements that fail where the rows that differ are not those that were counted; none where nothing is to be
    /// done. Rows that are new matter where they are deleted: else every order that comes in would stop the script.
    pub(super) fn guards(&self, deletes: bool) -> Vec<String> {
        let Counts { only_then, only_now, changed } = self.counts;
        if only_then + changed == 0 && !(deletes && only_now > 0) {
            return Vec::new();
        }
        let guard = |(query, seen): (String, &Seen)| {
            format!(
                "SELECT IF(({query}) = {}, {}, (SELECT 1 UNION SELECT 2)) AS preview",
                quoted(&seen.0),
                quoted(&format!("{} is as it was", self.now))
            )
        };
        let [gone, new, changed] = self.differences();
        let [seen_gone, seen_new, seen_changed] = &self.seen;
        let mut all = vec![guard((gone, seen_gone)), guard((changed, seen_changed))];
        if deletes {
            all.push(guard((new, seen_new)));
        }
        all
    }

    /// The name of a column then, by its name now.
    fn was(&self, now: &str) -> Option<&Common> {
        self.columns.iter().find(|column| column.now == now)
    }

    /// Rows that a copy-back would write although another row has the value of a unique key now, a sentence for each key.
    /// `deletes`: rows that are new go.
    pub(super) fn doubles(&self, conn: &mut Conn, deletes: bool) -> Refused<Vec<String>> {
        let mut said = Vec::new();
        for (name, columns) in unique_keys(conn, &self.now)? {
            let columns: Option<Vec<&Common>> =
                columns.iter().map(|column| self.was(column.as_deref()?)).collect();
            let Some(columns) = columns else {
                said.push(format!(
                    "{}: whether rows that come back fit the unique key {name} was not looked at: its columns were not \
                     the same then",
                    self.now
                ));
                continue;
            };
            if columns.len() == self.key.len()
                && columns.iter().all(|c| self.key.iter().any(|k| k.now == c.now))
            {
                continue;
            }
            let equal = |a: &str, b: &str| -> String {
                let part =
                    |column: &&Common| format!("{} = {b}.{}", column.beside(a), quoted_name(&column.now));
                columns.iter().map(part).collect::<Vec<_>>().join(" AND ")
            };
            // A row that is in the way and is set back itself, or goes, is not.
            let stays = if deletes { "FALSE".to_owned() } else { self.absent("t", true) };
            let in_the_way = format!(
                "EXISTS (SELECT 1 FROM {} u LEFT JOIN {} t ON {} WHERE {} AND NOT ({}) AND ({stays} OR ({})))",
                quoted_table(&self.now),
                quoted_table(&self.then),
                self.on("t", "u"),
                equal("s", "u"),
                self.on("s", "u"),
                equal("t", "u")
            );
            let filter = format!("{} AND {in_the_way}", self.coming());
            if let Some(rows) = self.examples(conn, &filter)? {
                said.push(format!(
                    "{}: {rows} would come back with a value of the unique key {name} that another row has now",
                    self.now
                ));
            }
        }
        Ok(said)
    }

    /// Rows that a copy-back would write although their parents are neither there nor come back.
    pub(super) fn orphans(&self, conn: &mut Conn, copies: &[(TableKey, TableKey)]) -> Refused<Vec<String>> {
        let mut said = Vec::new();
        for foreign in &self.foreign {
            let columns: Option<Vec<&Common>> = foreign.columns.iter().map(|name| self.was(name)).collect();
            let Some(columns) = columns else { continue };
            let filter = format!("{} AND {}", self.coming(), parentless(&columns, foreign, copies));
            if let Some(rows) = self.examples(conn, &filter)? {
                said.push(format!(
                    "{}: {rows} would come back without the parents in {} that the foreign key {} asks for",
                    self.now, foreign.parent, foreign.name
                ));
            }
        }
        Ok(said)
    }

    /// How many rows of the copy these are, and which the first ones; none for none.
    fn examples(&self, conn: &mut Conn, filter: &str) -> Refused<Option<String>> {
        let from = self.then_beside_now();
        let count = conn.query_text(format!("SELECT COUNT(*) FROM {from} WHERE {filter}"))?;
        let count = count.unwrap_or_default();
        if count == "0" {
            return Ok(None);
        }
        let keys: Vec<String> = self.key.iter().map(|key| format!("s.{}", quoted_name(&key.then))).collect();
        let found = conn.query(format!(
            "SELECT {} FROM {from} WHERE {filter} ORDER BY {} LIMIT {EXAMPLES}",
            keys.join(", "),
            keys.join(", ")
        ))?;
        let names: Vec<&str> = self.key.iter().map(|key| key.then.as_str()).collect();
        let row = |row: usize| {
            let values: Vec<String> =
                (0..names.len()).map(|at| found.text(row, at).unwrap_or_default()).collect();
            values.join("-")
        };
        let rows: Vec<String> = (0..found.rows.len()).map(row).collect();
        let more = if count.parse::<usize>().is_ok_and(|all| all > rows.len()) { ", ..." } else { "" };
        Ok(Some(format!("{count} rows ({} {}{more})", names.join("-"), rows.join(", "))))
    }
}

/// Has a row `s` of a copy, with these columns, no parent: neither in the table, nor in its copy if that is there?
fn parentless(columns: &[&Common], foreign: &ForeignKey, copies: &[(TableKey, TableKey)]) -> String {
    let mut parts: Vec<String> =
        columns.iter().map(|column| format!("NOT (s.{} <=> NULL)", quoted_name(&column.then))).collect();
    let copy = copies.iter().find(|(now, _)| *now == foreign.parent).map(|(_, copy)| copy);
    // A key's columns have the collation of those that it refers to: those of now the one of now, those of then the old.
    let own = |column: &Common| format!("s.{}", quoted_name(&column.then));
    let now = Some((&foreign.parent, true));
    for (parent, is_now) in [now, copy.map(|copy| (copy, false))].into_iter().flatten() {
        let equal: Vec<String> = columns
            .iter()
            .zip(&foreign.parent_columns)
            .map(|(child, parent)| {
                let value = if is_now { child.beside("s") } else { own(child) };
                format!("{value} = p.{}", quoted_name(parent))
            })
            .collect();
        parts.push(format!(
            "NOT EXISTS (SELECT 1 FROM {} p WHERE {})",
            quoted_table(parent),
            equal.join(" AND ")
        ));
    }
    parts.join(" AND ")
}

/// What keeps a table that is gone from being made again: its parents that are not there and do not come back.
pub(super) fn lost_parents(
    conn: &mut Conn,
    table: &Then,
    now: &TableKey,
    copies: &[(TableKey, TableKey)],
) -> Refused<Vec<String>> {
    let mut said = Vec::new();
    for foreign in &table.foreign {
        let comes = copies.iter().any(|(now, _)| *now == foreign.parent);
        if !comes && Definition::read(conn, &foreign.parent)?.is_none() {
            said.push(format!(
                "{now}: it can't be made again as it was: its foreign key {} refers to {}, which is not there, or not to be seen",
                foreign.name, foreign.parent
            ));
        }
    }
    Ok(said)
}

/// Unique keys with their columns; none for an expression, or for the front of a column.
fn unique_keys(conn: &mut Conn, table: &TableKey) -> Refused<Vec<(String, Vec<Option<String>>)>> {
    let rows = conn.query(format!(
        "SELECT INDEX_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS WHERE TABLE_SCHEMA = {} \
         AND TABLE_NAME = {} AND NON_UNIQUE = 0 ORDER BY INDEX_NAME, SEQ_IN_INDEX",
        quoted(&table.database),
        quoted(&table.table)
    ))?;
    let mut keys: Vec<(String, Vec<Option<String>>)> = Vec::new();
    for row in 0..rows.rows.len() {
        let name = rows.text(row, 0).unwrap_or_default();
        if keys.last().is_none_or(|(last, _)| *last != name) {
            keys.push((name, Vec::new()));
        }
        let column = rows.text(row, 1).filter(|_| rows.value(row, 2).is_none());
        if let Some((_, columns)) = keys.last_mut() {
            columns.push(column);
        }
    }
    Ok(keys)
}
