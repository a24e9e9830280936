//! What a server says about itself: tables, keys, row counts, accounts.
//!
//! Read twice, after recovery and after replay; the proof compares the two with what the log says
//! must lie between them. Schemas of the server itself are left out, but for the accounts.

use std::collections::BTreeMap;

use holdfast_binlog::tables::TableKey;
use holdfast_mysql::{Conn, Flavor};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// Schemas that belong to the server.
pub(crate) const OWN_SCHEMAS: &str = "'mysql', 'sys', 'information_schema', 'performance_schema'";

/// A column, in the table's order.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnFacts {
    /// Its name.
    pub name: String,
    /// Numbers without a sign.
    pub unsigned: bool,
    /// Character set of texts; none for everything else.
    pub charset: Option<String>,
    /// Its values are computed.
    pub generated: bool,
    /// Of a type of its own, such as MariaDB's UUID and INET6: the log has other bytes than a query gives or takes.
    #[serde(default)]
    pub opaque: bool,
}

/// A table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableFacts {
    /// Storage engine.
    pub engine: String,
    /// Columns in order.
    pub columns: Vec<ColumnFacts>,
    /// Positions of the primary key's columns, in the key's order; empty without one, or if it
    /// covers only the front of a column.
    pub key: Vec<u16>,
    /// `SHOW CREATE TABLE` without the counter.
    pub definition: String,
    /// `COUNT(*)`, if it was asked for.
    pub rows: Option<u64>,
}

/// A foreign key that changes rows of its own table when the other one's change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cascade {
    /// The table whose rows change.
    pub child: TableKey,
    /// The table that it refers to.
    pub parent: TableKey,
    /// The columns that it refers to.
    pub parent_columns: Vec<String>,
    /// ON DELETE CASCADE.
    pub deletes: bool,
    /// ON DELETE SET NULL or SET DEFAULT.
    pub clears_on_delete: bool,
    /// ON UPDATE CASCADE, SET NULL or SET DEFAULT.
    pub on_update: bool,
}

/// A server.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    /// Base tables.
    pub tables: BTreeMap<TableKey, TableFacts>,
    /// Foreign keys with an action.
    pub cascades: Vec<Cascade>,
    /// Accounts: `'user'@'host'`, and how it is made with its grants.
    pub accounts: BTreeMap<String, Vec<String>>,
}

/// Types that both the log and queries give as `cell.rs` expects.
fn is_known(column_type: &str) -> bool {
    const KNOWN: [&str; 40] = [
        "tinyint",
        "smallint",
        "mediumint",
        "int",
        "bigint",
        "decimal",
        "float",
        "double",
        "bit",
        "date",
        "datetime",
        "timestamp",
        "time",
        "year",
        "char",
        "varchar",
        "binary",
        "varbinary",
        "tinyblob",
        "blob",
        "mediumblob",
        "longblob",
        "tinytext",
        "text",
        "mediumtext",
        "longtext",
        "enum",
        "set",
        "json",
        "geometry",
        "point",
        "linestring",
        "polygon",
        "multipoint",
        "multilinestring",
        "multipolygon",
        "geometrycollection",
        "geomcollection",
        "vector",
        "real",
    ];
    let name = column_type.split(|c: char| !c.is_ascii_alphanumeric()).next().unwrap_or_default();
    KNOWN.iter().any(|known| known.eq_ignore_ascii_case(name))
}

impl Catalog {
    /// Reads the catalog, with row counts if `count`.
    pub fn read(conn: &mut Conn, count: bool) -> Result<Self> {
        let mut catalog = Self::default();
        if conn.server().flavor == Flavor::MySql {
            // Otherwise the dictionary answers from statistics of yesterday, and hashes are no text.
            conn.execute("SET SESSION information_schema_stats_expiry = 0")?;
            conn.execute("SET SESSION print_identified_with_as_hex = ON")?;
        }
        catalog.read_tables(conn)?;
        catalog.read_cascades(conn)?;
        catalog.read_accounts(conn)?;
        for (table, facts) in &mut catalog.tables {
            let name = quoted_table(table);
            let definition = conn.query(format!("SHOW CREATE TABLE {name}"))?.text(0, 1).unwrap_or_default();
            facts.definition = without_counter(&definition);
            if count {
                facts.rows = Some(count_rows(conn, table)?);
            }
        }
        Ok(catalog)
    }

    fn read_tables(&mut self, conn: &mut Conn) -> Result<()> {
        let tables = conn.query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, ENGINE FROM information_schema.TABLES \
             WHERE TABLE_TYPE IN ('BASE TABLE', 'SYSTEM VERSIONED') AND TABLE_SCHEMA NOT IN ({OWN_SCHEMAS})"
        ))?;
        for row in 0..tables.rows.len() {
            let text = |column| tables.text(row, column).unwrap_or_default();
            let facts = TableFacts { engine: text(2), ..TableFacts::default() };
            self.tables.insert(TableKey { database: text(0), table: text(1) }, facts);
        }
        let columns = format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, COLUMN_TYPE, CHARACTER_SET_NAME, \
             GENERATION_EXPRESSION FROM information_schema.COLUMNS WHERE TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, ORDINAL_POSITION"
        );
        conn.query_each::<holdfast_mysql::Error>(columns, |row| {
            let text = |column| row.text(column).unwrap_or_default();
            let key = TableKey { database: text(0), table: text(1) };
            if let Some(table) = self.tables.get_mut(&key) {
                table.columns.push(ColumnFacts {
                    name: text(2),
                    unsigned: text(3).contains("unsigned"),
                    charset: row.text(4),
                    generated: !text(5).is_empty(),
                    opaque: !is_known(&text(3)),
                });
            }
            Ok(())
        })?;
        let keys = conn.query(format!(
            "SELECT TABLE_SCHEMA, TABLE_NAME, COLUMN_NAME, SUB_PART FROM information_schema.STATISTICS \
             WHERE INDEX_NAME = 'PRIMARY' AND TABLE_SCHEMA NOT IN ({OWN_SCHEMAS}) \
             ORDER BY TABLE_SCHEMA, TABLE_NAME, SEQ_IN_INDEX"
        ))?;
        let mut partial = Vec::new();
        for row in 0..keys.rows.len() {
            let text = |column| keys.text(row, column).unwrap_or_default();
            let key = TableKey { database: text(0), table: text(1) };
            let Some(table) = self.tables.get_mut(&key) else { continue };
            let at = table.columns.iter().position(|column| column.name == text(2));
            match at.and_then(|at| u16::try_from(at).ok()) {
                Some(at) if keys.value(row, 3).is_none() => table.key.push(at),
                _ => partial.push(key),
            }
        }
        for key in partial {
            if let Some(table) = self.tables.get_mut(&key) {
                table.key.clear();
            }
        }
        Ok(())
    }

    fn read_cascades(&mut self, conn: &mut Conn) -> Result<()> {
        let rows = conn.query(format!(
            "SELECT r.CONSTRAINT_SCHEMA, r.CONSTRAINT_NAME, r.TABLE_NAME, k.REFERENCED_TABLE_SCHEMA, \
             k.REFERENCED_TABLE_NAME, k.REFERENCED_COLUMN_NAME, r.DELETE_RULE, r.UPDATE_RULE \
             FROM information_schema.REFERENTIAL_CONSTRAINTS r JOIN information_schema.KEY_COLUMN_USAGE k \
             ON k.CONSTRAINT_SCHEMA = r.CONSTRAINT_SCHEMA AND k.CONSTRAINT_NAME = r.CONSTRAINT_NAME \
             AND k.TABLE_NAME = r.TABLE_NAME WHERE r.CONSTRAINT_SCHEMA NOT IN ({OWN_SCHEMAS}) \
             AND k.REFERENCED_TABLE_NAME IS NOT NULL \
             ORDER BY r.CONSTRAINT_SCHEMA, r.TABLE_NAME, r.CONSTRAINT_NAME, k.ORDINAL_POSITION"
        ))?;
        let mut last = None;
        for row in 0..rows.rows.len() {
            let text = |column| rows.text(row, column).unwrap_or_default();
            let id = (text(0), text(2), text(1));
            let acts = |rule: &str| matches!(rule, "CASCADE" | "SET NULL" | "SET DEFAULT");
            let (on_delete, on_update) = (text(6), text(7));
            if !acts(&on_delete) && !acts(&on_update) {
                continue;
            }
            match self.cascades.last_mut() {
                Some(cascade) if last.as_ref() == Some(&id) => cascade.parent_columns.push(text(5)),
                _ => self.cascades.push(Cascade {
                    child: TableKey { database: text(0), table: text(2) },
                    parent: TableKey { database: text(3), table: text(4) },
                    parent_columns: vec![text(5)],
                    deletes: on_delete == "CASCADE",
                    clears_on_delete: acts(&on_delete) && on_delete != "CASCADE",
                    on_update: acts(&on_update),
                }),
            }
            last = Some(id);
        }
        Ok(())
    }

    fn read_accounts(&mut self, conn: &mut Conn) -> Result<()> {
        let accounts = conn.query("SELECT User, Host FROM mysql.user")?;
        for row in 0..accounts.rows.len() {
            let (user, host) =
                (accounts.text(row, 0).unwrap_or_default(), accounts.text(row, 1).unwrap_or_default());
            // Ours come and go; the server's own are made anew by each version.
            if user.starts_with(holdfast_engine::account::PREFIX)
                || user.starts_with("mysql.")
                || user == "mariadb.sys"
            {
                continue;
            }
            let role = host.is_empty();
            let name = if role { quoted(&user) } else { format!("{}@{}", quoted(&user), quoted(&host)) };
            let mut lines = Vec::new();
            if !role {
                lines.push(conn.query_text(format!("SHOW CREATE USER {name}"))?.unwrap_or_default());
            }
            let grants = conn.query(format!("SHOW GRANTS FOR {name}"))?;
            let mut grants: Vec<String> =
                (0..grants.rows.len()).filter_map(|row| grants.text(row, 0)).collect();
            grants.sort();
            lines.extend(grants);
            self.accounts.insert(name, lines);
        }
        Ok(())
    }
}

/// `COUNT(*)` of a table.
pub fn count_rows(conn: &mut Conn, table: &TableKey) -> Result<u64> {
    let count = conn.query_text(format!("SELECT COUNT(*) FROM {}", quoted_table(table)))?;
    Ok(count.and_then(|text| text.parse().ok()).unwrap_or_default())
}

/// An identifier between backticks.
#[must_use]
pub fn quoted_name(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// Schema and table between backticks.
#[must_use]
pub fn quoted_table(table: &TableKey) -> String {
    format!("{}.{}", quoted_name(&table.database), quoted_name(&table.table))
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A definition without its ` AUTO_INCREMENT=n`, which transactions that were rolled back move too.
fn without_counter(definition: &str) -> String {
    const WORD: &str = " AUTO_INCREMENT=";
    let Some(close) = definition.rfind("\n)") else { return definition.to_owned() };
    let (body, options) = definition.split_at(close);
    let Some((before, after)) = options.split_once(WORD) else { return definition.to_owned() };
    format!("{body}{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_texts_are_quoted_so_that_they_cannot_end_early() {
        let table = TableKey { database: "a`b".to_owned(), table: "t".to_owned() };
        assert_eq!(quoted_table(&table), "`a``b`.`t`");
        assert_eq!(quoted("o'n\\e"), "'o''n\\\\e'");
    }

    #[test]
    fn the_counter_is_no_part_of_a_definition() {
        let with = "CREATE TABLE `t` (\n  `a` int DEFAULT 1 COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB AUTO_INCREMENT=42 COMMENT='c'";
        let without = "CREATE TABLE `t` (\n  `a` int DEFAULT 1 COMMENT ' AUTO_INCREMENT=5'\n) ENGINE=InnoDB COMMENT='c'";
        assert_eq!(without_counter(with), without);
        assert_eq!(without_counter(without), without);
    }
}
