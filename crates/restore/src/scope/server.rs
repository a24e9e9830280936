//! The private server of a restore of some tables: what its dictionary says of them, and how it forgets everything else.

use std::collections::BTreeSet;

use holdfast_binlog::tables::TableKey;
use holdfast_mysql::{Conn, Flavor};

use crate::catalog::{OWN_SCHEMAS, quoted_name, quoted_table};
use crate::error::{Error, Result};
use crate::scope::{Scope, Wanted};

/// Takes the parents of the tables in, and theirs. True if there are any that were not in.
pub(crate) fn add_parents(conn: &mut Conn, scope: &mut Scope) -> Result<bool> {
    let keys = foreign_keys(conn)?;
    let (mut added, mut again) = (false, true);
    while std::mem::take(&mut again) {
        for (child, parent) in &keys {
            again |= scope.contains(child) && scope.add_parent(parent);
        }
        added |= again;
    }
    Ok(added)
}

/// Foreign keys: child and parent. Known to the dictionary whether the files are there or not.
fn foreign_keys(conn: &mut Conn) -> Result<Vec<(TableKey, TableKey)>> {
    if conn.server().flavor == Flavor::MySql {
        let rows = conn.query(
            "SELECT CONSTRAINT_SCHEMA, TABLE_NAME, UNIQUE_CONSTRAINT_SCHEMA, REFERENCED_TABLE_NAME \
             FROM information_schema.REFERENTIAL_CONSTRAINTS",
        )?;
        let text = |row, column| rows.text(row, column).unwrap_or_default();
        let key = |row, column| TableKey { database: text(row, column), table: text(row, column + 1) };
        return Ok((0..rows.rows.len()).map(|row| (key(row, 0), key(row, 2))).collect());
    }
    // Names as InnoDB has them; its own list opens no table.
    let rows = conn.query("SELECT FOR_NAME, REF_NAME FROM information_schema.INNODB_SYS_FOREIGN")?;
    let key = |row, column| {
        let text = rows.text(row, column).unwrap_or_default();
        let (database, table) = text.split_once('/').unwrap_or(("", &text));
        TableKey { database: decoded(database), table: decoded(table) }
    };
    Ok((0..rows.rows.len()).map(|row| (key(row, 0), key(row, 1))).collect())
}

/// A name as people write it, of one as files have it. Letters outside of ASCII stay as they are: no table with such a
/// name is restored alone.
fn decoded(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while let Some((before, after)) = rest.split_once('@') {
        out.push_str(before);
        let letter =
            after.get(..4).and_then(|digits| u32::from_str_radix(digits, 16).ok()).and_then(char::from_u32);
        match letter {
            Some(letter) => {
                out.push(letter);
                rest = after.get(4..).unwrap_or_default();
            }
            None => {
                out.push('@');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

/// Triggers, views and functions of the source: what changes rows of tables that no statement names.
pub(crate) fn programs(conn: &mut Conn) -> Result<u64> {
    let count = conn.query_text(format!(
        "SELECT (SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA NOT IN ({OWN_SCHEMAS})) + \
         (SELECT COUNT(*) FROM information_schema.VIEWS WHERE TABLE_SCHEMA NOT IN ({OWN_SCHEMAS})) + \
         (SELECT COUNT(*) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA NOT IN ({OWN_SCHEMAS}))"
    ))?;
    Ok(count.and_then(|text| text.parse().ok()).unwrap_or(u64::MAX))
}

/// An error if a default of MariaDB's tables takes its values from a sequence that is not restored.
pub(crate) fn refuse_sequences(conn: &mut Conn, scope: &Scope, there: &BTreeSet<TableKey>) -> Result<()> {
    if conn.server().flavor == Flavor::MySql {
        return Ok(());
    }
    for table in there.iter().filter(|table| scope.contains(table)) {
        let defaults = format!(
            "SELECT COLUMN_DEFAULT FROM information_schema.COLUMNS WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
            as_text(&table.database),
            as_text(&table.table)
        );
        for text in column(conn, defaults)? {
            if let Some(sequence) =
                sequences(&text, &table.database).into_iter().find(|key| !scope.contains(key))
            {
                return Err(Error::Tables(format!(
                    "a default of the table {table} takes its values from the sequence {sequence}, which is not restored. \
                     Add --table {sequence}, or restore the whole server"
                )));
            }
        }
    }
    Ok(())
}

/// The sequences that a default names, as MariaDB writes it: ``nextval(`shop`.`s`)``. One that can't be read is `?`.
fn sequences(default: &str, database: &str) -> Vec<TableKey> {
    let mut found = Vec::new();
    let lower = default.to_ascii_lowercase();
    for call in ["nextval(", "lastval(", "setval("] {
        for (at, _) in lower.match_indices(call) {
            let mut rest = default.get(at + call.len()..).unwrap_or_default().trim_start();
            let mut names = Vec::new();
            while let Some((name, behind)) = rest.strip_prefix('`').and_then(|name| name.split_once('`')) {
                names.push(name.to_owned());
                rest = behind.strip_prefix('.').unwrap_or_default();
            }
            let mut names = names.into_iter();
            let (database, table) = match (names.next(), names.next()) {
                (Some(database), Some(table)) => (database, table),
                (Some(table), None) => (database.to_owned(), table),
                _ => (database.to_owned(), "?".to_owned()),
            };
            found.push(TableKey { database, table });
        }
    }
    found
}

/// The databases of a server.
pub(crate) fn databases(conn: &mut Conn) -> Result<Vec<String>> {
    column(conn, "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA".to_owned())
}

/// Has a table triggers?
pub(crate) fn has_triggers(conn: &mut Conn, table: &TableKey) -> Result<bool> {
    let count = conn.query_text(format!(
        "SELECT COUNT(*) FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND EVENT_OBJECT_TABLE = {}",
        as_text(&table.database),
        as_text(&table.table)
    ))?;
    Ok(count.as_deref() != Some("0"))
}

/// Drops everything that is no table of the restore: other databases, other tables, and views, routines and events.
/// Files that were not laid out are not missed.
pub(crate) fn forget_others(conn: &mut Conn, scope: &Scope) -> Result<()> {
    conn.execute("SET SESSION sql_log_bin = 0")?;
    conn.execute("SET SESSION foreign_key_checks = 0")?;
    let all = format!(
        "SELECT SCHEMA_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME NOT IN ({OWN_SCHEMAS}) \
         AND SCHEMA_NAME NOT LIKE '\\_\\_holdfast%'"
    );
    for database in column(conn, all)? {
        if !scope.hosts(&database) {
            conn.execute(format!("DROP DATABASE {}", quoted_name(&database)))?;
            continue;
        }
        let within = as_text(&database);
        let tables = format!(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {within} AND TABLE_TYPE "
        );
        for view in column(conn, format!("{tables} = 'VIEW'"))? {
            conn.execute(format!("DROP VIEW {}.{}", quoted_name(&database), quoted_name(&view)))?;
        }
        for table in column(conn, format!("{tables} <> 'VIEW'"))? {
            let key = TableKey { database: database.clone(), table };
            if !scope.contains(&key) {
                conn.execute(format!("DROP TABLE {}", quoted_table(&key)))?;
            }
        }
        for kind in ["PROCEDURE", "FUNCTION"] {
            let named = format!(
                "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {within} AND \
                 ROUTINE_TYPE = '{kind}'"
            );
            for routine in column(conn, named)? {
                conn.execute(format!("DROP {kind} {}.{}", quoted_name(&database), quoted_name(&routine)))?;
            }
        }
        let events =
            format!("SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {within}");
        for event in column(conn, events)? {
            conn.execute(format!("DROP EVENT {}.{}", quoted_name(&database), quoted_name(&event)))?;
        }
    }
    conn.execute("SET SESSION foreign_key_checks = 1")?;
    Ok(())
}

/// A text as SQL has it, whatever the session's mode.
fn as_text(text: &str) -> String {
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("CONVERT(x'{hex}' USING utf8mb4)")
}

fn column(conn: &mut Conn, query: String) -> Result<Vec<String>> {
    let rows = conn.query(query)?;
    Ok((0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect())
}

/// The tables of a server, its own ones left out.
pub(crate) fn tables(conn: &mut Conn) -> Result<BTreeSet<TableKey>> {
    let rows = conn.query(format!(
        "SELECT TABLE_SCHEMA, TABLE_NAME FROM information_schema.TABLES WHERE TABLE_TYPE <> 'VIEW' AND \
         TABLE_SCHEMA NOT IN ({OWN_SCHEMAS})"
    ))?;
    let text = |row, column| rows.text(row, column).unwrap_or_default();
    Ok((0..rows.rows.len()).map(|row| TableKey { database: text(row, 0), table: text(row, 1) }).collect())
}

/// Does the server take names in any case for the same?
fn folds(conn: &mut Conn) -> Result<bool> {
    Ok(conn.query_text("SELECT @@GLOBAL.lower_case_table_names")?.is_some_and(|value| value != "0"))
}

fn has(there: &BTreeSet<TableKey>, table: &TableKey, fold: bool) -> bool {
    let same = |one: &str, other: &str| one == other || fold && one.to_lowercase() == other.to_lowercase();
    there.iter().any(|found| same(&found.database, &table.database) && same(&found.table, &table.table))
}

/// Gives tables their new names. Where one has it already, an earlier run gave it.
pub(crate) fn rename(conn: &mut Conn, wanted: &Wanted) -> Result<()> {
    let (there, fold) = (tables(conn)?, folds(conn)?);
    for (from, to) in &wanted.renamed {
        let (has_from, has_to) = (has(&there, from, fold), has(&there, to, fold));
        if has_to && !has_from {
            continue;
        }
        if has_to {
            return Err(Error::Tables(format!(
                "the table {from} can't be called {to}: there is such a table already"
            )));
        }
        conn.execute("SET SESSION sql_log_bin = 0")?;
        conn.execute(format!("CREATE DATABASE IF NOT EXISTS {}", quoted_name(&to.database)))?;
        conn.execute(format!("RENAME TABLE {} TO {}", quoted_table(from), quoted_table(to)))?;
    }
    Ok(())
}

/// Gives tables the names back that the log has for them, so that a restore can go on.
pub(crate) fn unrename(conn: &mut Conn, wanted: &Wanted) -> Result<()> {
    let (there, fold) = (tables(conn)?, folds(conn)?);
    for (from, to) in &wanted.renamed {
        if has(&there, to, fold) && !has(&there, from, fold) {
            conn.execute("SET SESSION sql_log_bin = 0")?;
            conn.execute(format!("RENAME TABLE {} TO {}", quoted_table(to), quoted_table(from)))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_are_read_out_of_defaults() {
        let of = |text: &str| sequences(text, "shop").iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(of("nextval(`other`.`s`)"), ["other.s"]);
        assert_eq!(of("concat('x',nextval(`s`) + NEXTVAL(`shop`.`t`))"), ["shop.s", "shop.t"]);
        assert_eq!(of("nextval(odd)"), ["shop.?"]);
        assert_eq!(of("current_timestamp()"), Vec::<String>::new());
    }

    #[test]
    fn names_are_found_in_any_case_where_the_server_takes_them_for_the_same() {
        let key = |table: &str| TableKey { database: "shop".to_owned(), table: table.to_owned() };
        let there = BTreeSet::from([key("orders")]);
        assert!(has(&there, &key("Orders"), true) && !has(&there, &key("Orders"), false));
        assert!(!has(&there, &key("items"), true));
    }

    #[test]
    fn names_of_files_are_read_as_people_write_them() {
        assert_eq!(decoded("a@002db@0020c@0024"), "a-b c$");
        assert_eq!(decoded("k@1ase"), "k@1ase");
    }
}
