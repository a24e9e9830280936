//! The tables as they were: what the private server says of them, and the rows that it gives.
//!
//! The private server is thrown away at the end, so it is asked in the simplest way: foreign keys are read, then
//! dropped, and what it says of a table then is a definition that stands by itself.

use super::Refused;
use crate::export::sql::values::Column;
use crate::undo::definition::quoted;
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::{quoted_name, quoted_table};

/// A foreign key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ForeignKey {
    /// Its name.
    pub name: String,
    /// Columns of the table.
    pub columns: Vec<String>,
    /// The table that it refers to.
    pub parent: TableKey,
    /// Columns of that.
    pub parent_columns: Vec<String>,
    /// What happens when the parent's row goes.
    pub on_delete: String,
    /// What happens when the parent's key changes.
    pub on_update: String,
}

impl ForeignKey {
    /// The foreign keys of a table, by name.
    pub(super) fn of(conn: &mut Conn, table: &TableKey) -> Refused<Vec<Self>> {
        let rows = conn.query(format!(
            "SELECT k.CONSTRAINT_NAME, k.COLUMN_NAME, k.REFERENCED_TABLE_SCHEMA, k.REFERENCED_TABLE_NAME, \
             k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE FROM information_schema.KEY_COLUMN_USAGE k \
             JOIN information_schema.REFERENTIAL_CONSTRAINTS r ON r.CONSTRAINT_SCHEMA = k.CONSTRAINT_SCHEMA \
             AND r.CONSTRAINT_NAME = k.CONSTRAINT_NAME AND r.TABLE_NAME = k.TABLE_NAME \
             WHERE k.TABLE_SCHEMA = {} AND k.TABLE_NAME = {} AND k.REFERENCED_TABLE_NAME IS NOT NULL \
             ORDER BY k.CONSTRAINT_NAME, k.ORDINAL_POSITION",
            quoted(&table.database),
            quoted(&table.table)
        ))?;
        let mut keys: Vec<Self> = Vec::new();
        for row in 0..rows.rows.len() {
            let text = |column| rows.text(row, column).unwrap_or_default();
            if keys.last().is_none_or(|key| key.name != text(0)) {
                keys.push(Self {
                    name: text(0),
                    columns: Vec::new(),
                    parent: TableKey { database: text(2), table: text(3) },
                    parent_columns: Vec::new(),
                    on_delete: text(5),
                    on_update: text(6),
                });
            }
            if let Some(key) = keys.last_mut() {
                key.columns.push(text(1));
                key.parent_columns.push(text(4));
            }
        }
        Ok(keys)
    }

    /// The statement that adds it to `table`, referring to `parent`.
    pub(super) fn added(&self, table: &TableKey, parent: &TableKey, mariadb: bool) -> String {
        let names =
            |names: &[String]| names.iter().map(|name| quoted_name(name)).collect::<Vec<_>>().join(", ");
        // What a key without words means stays without: MariaDB makes another word of it where a key is added.
        let unsaid = if mariadb { "RESTRICT" } else { "NO ACTION" };
        let rule = |on: &str, rule: &str| match rule {
            rule if rule == unsaid => String::new(),
            other => format!(" ON {on} {other}"),
        };
        format!(
            "ALTER TABLE {} ADD CONSTRAINT {} FOREIGN KEY ({}) REFERENCES {} ({}){}{}",
            quoted_table(table),
            quoted_name(&self.name),
            names(&self.columns),
            quoted_table(parent),
            names(&self.parent_columns),
            rule("DELETE", &self.on_delete),
            rule("UPDATE", &self.on_update)
        )
    }
}

/// A table of the private server.
#[derive(Clone, Debug)]
pub(super) struct Then {
    /// Its name there.
    pub key: TableKey,
    /// Its definition as it was, behind `CREATE TABLE` and the name.
    pub whole: Vec<u8>,
    /// The same without foreign keys.
    pub alone: Vec<u8>,
    /// Its foreign keys.
    pub foreign: Vec<ForeignKey>,
    /// The columns whose values are copied.
    pub columns: Vec<Column>,
    /// Must they be named?
    pub named: bool,
    /// Bytes, as the server estimates them.
    pub bytes: u64,
    /// It had triggers.
    pub triggers: bool,
    /// It has rows of the past too, which are not copied.
    pub versioned: bool,
}

/// What was asked for, as the private server has it.
pub(super) struct Wanted<'a> {
    /// Tables.
    pub tables: &'a [TableKey],
    /// Whole databases.
    pub databases: &'a [String],
}

/// Reads the tables. What is left out is said in `notes`.
pub(super) fn read(conn: &mut Conn, wanted: &Wanted<'_>, notes: &mut Vec<String>) -> Refused<Vec<Then>> {
    conn.execute("SET GLOBAL read_only = OFF")?;
    conn.execute("SET SESSION sql_mode = '', sql_quote_show_create = 1, foreign_key_checks = 0")?;
    if !conn.server().is_mariadb() {
        conn.execute("SET SESSION information_schema_stats_expiry = 0")?;
        if conn.server().numbers() >= (8, 0, 30) {
            conn.execute("SET SESSION show_gipk_in_create_table_and_information_schema = ON")?;
        }
    }
    let mut list: Vec<String> =
        wanted.databases.iter().map(|name| format!("TABLE_SCHEMA = {}", quoted(name))).collect();
    list.extend(wanted.tables.iter().map(|key| {
        format!("(TABLE_SCHEMA = {} AND TABLE_NAME = {})", quoted(&key.database), quoted(&key.table))
    }));
    let found = conn.query(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE, COALESCE(DATA_LENGTH, 0), ENGINE FROM information_schema.TABLES \
         WHERE {} ORDER BY TABLE_SCHEMA, TABLE_NAME",
        list.join(" OR ")
    ))?;
    let mut tables = Vec::new();
    for row in 0..found.rows.len() {
        let text = |column| found.text(row, column).unwrap_or_default();
        let key = TableKey { database: text(0), table: text(1) };
        match text(2).as_str() {
            "BASE TABLE" | "SYSTEM VERSIONED" => {}
            other => {
                notes.push(format!("{key} is not copied: it is no table ({})", other.to_lowercase()));
                continue;
            }
        }
        if super::compare::elsewhere(&text(4)) {
            notes.push(format!("{key} is not copied: its engine, {}, keeps its rows elsewhere", text(4)));
            continue;
        }
        let triggers = conn.query_text(format!(
            "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
            quoted(&key.database),
            quoted(&key.table)
        ))?;
        let foreign = ForeignKey::of(conn, &key)?;
        let whole = definition(conn, &key)?;
        for foreign in &foreign {
            conn.execute(format!(
                "ALTER TABLE {} DROP FOREIGN KEY {}",
                quoted_table(&key),
                quoted_name(&foreign.name)
            ))?;
        }
        let alone = if foreign.is_empty() { whole.clone() } else { definition(conn, &key)? };
        let (columns, named) = Column::of(conn, &key.database, &key.table)?;
        tables.push(Then {
            whole,
            alone,
            foreign,
            columns,
            named,
            bytes: text(3).parse().unwrap_or_default(),
            triggers: triggers.is_some_and(|count| count != "0"),
            versioned: text(2) == "SYSTEM VERSIONED",
            key,
        });
    }
    Ok(tables)
}

/// What `SHOW CREATE TABLE` says behind the name.
fn definition(conn: &mut Conn, key: &TableKey) -> Refused<Vec<u8>> {
    let made = conn.query(format!("SHOW CREATE TABLE {}", quoted_table(key)))?;
    let text = made.value(0, 1).unwrap_or_default();
    let head = format!("CREATE TABLE {}", quoted_name(&key.table));
    text.strip_prefix(head.as_bytes()).map(<[u8]>::to_vec).ok_or_else(|| holdfast_mysql::Error::Protocol {
        place: "SHOW CREATE TABLE",
        expected: head,
        got: String::from_utf8_lossy(text).chars().take(80).collect(),
    })
}

/// The words that make a database with the same defaults.
pub(super) fn defaults(conn: &mut Conn, database: &str) -> Refused<String> {
    let rows = conn.query(format!(
        "SELECT DEFAULT_CHARACTER_SET_NAME, DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
        quoted(database)
    ))?;
    let text = |column| rows.text(0, column).unwrap_or_default();
    Ok(format!("CHARACTER SET {} COLLATE {}", text(0), text(1)))
}
