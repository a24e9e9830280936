//! What the restored server says about its tables: keys, columns, engines, foreign keys.
//!
//! Read once for all tables, then anew for the tables that a definition names. The log alone
//! does not tell any of it (`binlog_row_metadata=MINIMAL`, the default).

use std::collections::{BTreeSet, HashMap};

use holdfast_binlog::tables::TableKey;
use holdfast_mysql::{Conn, Flavor};

use crate::error::Error;
use crate::sql;

/// Schemas that no user's rows go to; those of `mysql` itself are applied in order.
const OWN_SCHEMAS: &str = "'mysql', 'sys', 'information_schema', 'performance_schema', '__holdfast'";

/// A column, as far as replay must know.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ColumnFacts {
    pub(crate) name: String,
    pub(crate) unsigned: bool,
    /// Floating point: unequal bytes may be equal values.
    pub(crate) floating: bool,
    pub(crate) generated: bool,
    pub(crate) counter: bool,
    /// Its default is, or may be, computed when a row is inserted without it.
    pub(crate) computed_default: bool,
}

/// A unique key other than the primary: its columns; `None` where one can't be told.
pub(crate) type UniqueKey = Option<Vec<u16>>;

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct TableFacts {
    /// `BASE TABLE`, `SYSTEM VERSIONED`, `SEQUENCE`.
    pub(crate) kind: String,
    pub(crate) columns: Vec<ColumnFacts>,
    /// Columns of the primary key in its own order.
    pub(crate) primary: Vec<u16>,
    pub(crate) uniques: Vec<UniqueKey>,
    /// Something in it is computed or checked, so that the session of a change may count.
    pub(crate) computed: bool,
    /// It has no primary key, and what can be known of a row is what its image says: the server finds all rows
    /// of an event in one look through the table (MySQL), and images of equal rows are equal byte by byte.
    pub(crate) by_image: bool,
}

/// A foreign key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ForeignKey {
    pub(crate) child: TableKey,
    pub(crate) parent: TableKey,
    pub(crate) parent_columns: Vec<String>,
    /// Rows of the child change or go when the parent's go.
    pub(crate) on_delete: bool,
    /// Rows of the child change when the parent's keys do.
    pub(crate) on_update: bool,
}

/// The server's tables.
#[derive(Debug, Default)]
pub(crate) struct Catalogue {
    tables: HashMap<TableKey, TableFacts>,
    keys: Vec<ForeignKey>,
    all_read: bool,
    keys_read: bool,
    /// To be read again.
    stale: BTreeSet<TableKey>,
}

impl Catalogue {
    /// Forgets tables that a definition named; everything, if it is not known which.
    pub(crate) fn forget(&mut self, tables: &[TableKey]) {
        self.keys_read = false;
        if tables.is_empty() {
            self.all_read = false;
        }
        for key in tables {
            self.tables.remove(key);
            self.stale.insert(key.clone());
        }
    }

    /// A table, read if it has to be; `None` for one that the server does not show.
    pub(crate) fn table(&mut self, conn: &mut Conn, key: &TableKey) -> Result<Option<&TableFacts>, Error> {
        if !self.all_read {
            self.tables.clear();
            self.stale.clear();
            read(conn, "", &mut self.tables)?;
            self.all_read = true;
        } else if self.stale.remove(key) {
            let name = |text: &str| format!("CONVERT({} USING utf8mb4)", sql::hex(text.as_bytes()));
            let filter =
                format!(" AND TABLE_SCHEMA = {} AND TABLE_NAME = {}", name(&key.database), name(&key.table));
            read(conn, &filter, &mut self.tables)?;
        }
        Ok(self.tables.get(key))
    }

    /// All foreign keys.
    pub(crate) fn foreign_keys(&mut self, conn: &mut Conn) -> Result<&[ForeignKey], Error> {
        if !self.keys_read {
            self.keys = foreign_keys(conn)?;
            self.keys_read = true;
        }
        Ok(&self.keys)
    }
}

fn doing() -> impl FnOnce(holdfast_mysql::Error) -> Error {
    Error::server("reading the definitions of tables")
}

fn read(conn: &mut Conn, filter: &str, into: &mut HashMap<TableKey, TableFacts>) -> Result<(), Error> {
    let own = format!("TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}){filter}");
    let mysql = conn.server().flavor == Flavor::MySql;
    let mut fresh: HashMap<TableKey, TableFacts> = HashMap::new();
    let tables =
        format!("SELECT TABLE_SCHEMA, TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE {own}");
    each(conn, &tables, |row| {
        if text(row, 2) != "VIEW" {
            let facts = TableFacts { kind: text(row, 2), by_image: mysql, ..TableFacts::default() };
            fresh.insert(key(row), facts);
        }
    })?;
    let columns = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, EXTRA, GENERATION_EXPRESSION, COLUMN_DEFAULT \
         FROM information_schema.COLUMNS WHERE {own} ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
    );
    each(conn, &columns, |row| {
        let Some(table) = fresh.get_mut(&key(row)) else { return };
        table.by_image &= text(row, 5).is_empty() && !text(row, 3).eq_ignore_ascii_case("json");
        let (kind, extra) = (text(row, 3).to_ascii_lowercase(), text(row, 4).to_ascii_lowercase());
        let generated = !text(row, 5).is_empty();
        table.computed |= generated;
        table.columns.push(ColumnFacts {
            name: text(row, 2),
            unsigned: kind.contains("unsigned"),
            floating: kind.starts_with("float") || kind.starts_with("double"),
            generated,
            counter: extra.contains("auto_increment"),
            computed_default: if mysql {
                extra.contains("default_generated")
            } else {
                !is_literal(&text(row, 6))
            },
        });
    })?;
    let keys = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, COLUMN_NAME FROM information_schema.STATISTICS \
         WHERE NON_UNIQUE = 0 AND {own} ORDER BY TABLE_SCHEMA, TABLE_NAME, INDEX_NAME, SEQ_IN_INDEX"
    );
    let mut last = None;
    each(conn, &keys, |row| {
        let Some(table) = fresh.get_mut(&key(row)) else { return };
        let index = (key(row), text(row, 2));
        let column = row.get(3).map(String::from_utf8_lossy).and_then(|name| {
            let at = table.columns.iter().position(|column| column.name.eq_ignore_ascii_case(&name))?;
            // A computed value changes when what it is computed from does.
            let plain = table.columns.get(at).is_some_and(|column| !column.generated);
            plain.then_some(at as u16)
        });
        if text(row, 2).eq_ignore_ascii_case("PRIMARY") {
            table.by_image = false;
            match column {
                Some(column) => table.primary.push(column),
                // A computed primary key is none to us: see `class.rs`.
                None => table.primary.push(u16::MAX),
            }
            return;
        }
        if last.as_ref() != Some(&index) {
            table.uniques.push(Some(Vec::new()));
        }
        if let Some(unique) = table.uniques.last_mut() {
            match (unique.as_mut(), column) {
                (Some(columns), Some(column)) => columns.push(column),
                _ => *unique = None,
            }
        }
        table.computed |= column.is_none();
        last = Some(index);
    })?;
    let checks = format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS \
         WHERE CONSTRAINT_TYPE = 'CHECK' AND {own}"
    );
    each(conn, &checks, |row| {
        if let Some(table) = fresh.get_mut(&key(row)) {
            table.computed = true;
        }
    })?;
    into.extend(fresh);
    Ok(())
}

/// Is a default of MariaDB a value? It gives strings in quotes, and expressions as they stand.
fn is_literal(default: &str) -> bool {
    let inside = default.strip_prefix('\'').and_then(|rest| rest.strip_suffix('\''));
    let quoted = inside.is_some_and(|text| !text.replace("''", "").replace("\\'", "").contains('\''));
    default.is_empty() || default == "NULL" || quoted || default.parse::<f64>().is_ok()
}

fn foreign_keys(conn: &mut Conn) -> Result<Vec<ForeignKey>, Error> {
    let mut out: Vec<ForeignKey> = Vec::new();
    let mut last = None;
    let query = format!(
        "SELECT r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME, k.REFERENCED_TABLE_SCHEMA, \
         k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
         FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k \
         ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME \
         AND k.TABLE_NAME = r.TABLE_NAME WHERE r.CONSTRAINT_SCHEMA NOT IN ({OWN_SCHEMAS}) \
         AND k.REFERENCED_TABLE_NAME IS NOT NULL \
         ORDER BY r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME, k.ORDINAL_POSITION"
    );
    each(conn, &query, |row| {
        let id = (text(row, 0), text(row, 1), text(row, 2));
        let acts = |rule: &str| matches!(rule, "CASCADE" | "SET NULL" | "SET DEFAULT");
        match out.last_mut() {
            Some(found) if last.as_ref() == Some(&id) => found.parent_columns.push(text(row, 5)),
            _ => out.push(ForeignKey {
                child: TableKey { database: text(row, 0), table: text(row, 1) },
                parent: TableKey { database: text(row, 3), table: text(row, 4) },
                parent_columns: vec![text(row, 5)],
                on_delete: acts(&text(row, 6)),
                on_update: acts(&text(row, 7)),
            }),
        }
        last = Some(id);
    })?;
    Ok(out)
}

/// The counter of a table: the next value that it would give.
pub(crate) fn counter(conn: &mut Conn, table: &TableKey) -> Result<u64, Error> {
    if conn.server().flavor == Flavor::MySql {
        // Otherwise the answer is from statistics of yesterday.
        conn.execute("SET SESSION information_schema_stats_expiry = 0").map_err(doing())?;
    }
    let found = conn
        .query_text(format!(
            "SELECT MAX(AUTO_INCREMENT) FROM information_schema.TABLES WHERE \
             TABLE_SCHEMA = CONVERT({} USING utf8mb4) AND TABLE_NAME = CONVERT({} USING utf8mb4)",
            sql::hex(table.database.as_bytes()),
            sql::hex(table.table.as_bytes())
        ))
        .map_err(doing())?;
    Ok(found.and_then(|text| text.parse().ok()).unwrap_or(0))
}

fn each(
    conn: &mut Conn,
    query: &str,
    mut take: impl FnMut(&holdfast_mysql::RowRef<'_>),
) -> Result<(), Error> {
    conn.query_each::<holdfast_mysql::Error>(query, |row| {
        take(row);
        Ok(())
    })
    .map_err(doing())?;
    Ok(())
}

fn text(row: &holdfast_mysql::RowRef<'_>, column: usize) -> String {
    row.text(column).unwrap_or_default()
}

fn key(row: &holdfast_mysql::RowRef<'_>) -> TableKey {
    TableKey { database: text(row, 0), table: text(row, 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_default_of_mariadb_is_a_value_or_computed() {
        for value in ["", "NULL", "7", "-1.50", "'text'", "'it''s'", "'a\\'b'", "''"] {
            assert!(is_literal(value), "{value}");
        }
        for computed in ["current_timestamp()", "(`a` + 1)", "'a' + 'b'", "uuid()", "'a'<>'b'"] {
            assert!(!is_literal(computed), "{computed}");
        }
    }
}
