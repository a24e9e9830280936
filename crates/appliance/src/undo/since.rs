//! What the archive tells of a table since a transaction: whether its rows can still mean the same.
//!
//! A definition that moves columns, gives an ENUM other words or a text another character set keeps the types, so that
//! no look at the table finds it. The index names it.

use crate::error::{Error, Result};
use holdfast_archive::find::shown_statement;
use holdfast_archive::{Indexed, Place, SeenFrame, ServerLog};
use holdfast_binlog::statement::{Action, Object, Statement};
use holdfast_binlog::tables::TableKey;
use holdfast_format::txn_index::{TxnEntry, TxnKind};
use holdfast_mysql::Conn;
use std::ops::ControlFlow;

/// Does a text have this word, case ignored?
pub(crate) fn has_word(text: &str, word: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
    let simple = word.chars().all(part);
    // A name that is no word is looked for as it is.
    if !simple {
        return text.to_lowercase().contains(&word.to_lowercase());
    }
    text.split(|c| !part(c)).any(|found| found.to_lowercase() == word.to_lowercase())
}

/// May a definition with this text, which names these tables, concern the table? One of a whole database may.
pub(crate) fn concerns(text: &str, tables: &[(String, String)], key: &TableKey) -> bool {
    let same = |(database, table): &(String, String)| {
        database.to_lowercase() == key.database.to_lowercase()
            && table.to_lowercase() == key.table.to_lowercase()
    };
    let database = |word| has_word(text, word) && has_word(text, &key.database);
    tables.iter().any(same) || (tables.is_empty() && (database("database") || database("schema")))
}

/// May this transaction have given the table another definition?
fn redefines(entry: &TxnEntry, key: &TableKey) -> bool {
    if entry.kind != TxnKind::Ddl {
        return false;
    }
    let Some(statement) = &entry.statement else { return true };
    let text = String::from_utf8_lossy(&statement.text);
    let told = Statement::classify(&statement.text, 0);
    match told.object {
        // They say nothing of the columns; what a trigger does is looked at on the server.
        Object::Index | Object::View | Object::Trigger | Object::Routine | Object::Event => return false,
        Object::Table if told.action == Action::Truncate => return false,
        Object::Database if told.action == Action::Create && !told.or_replace => return false,
        _ => {}
    }
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let tables: Vec<(String, String)> =
        entry.tables.iter().map(|named| (lossy(&named.database), lossy(&named.table))).collect();
    let unreadable =
        tables.iter().any(|(database, table)| database.contains('\u{fffd}') || table.contains('\u{fffd}'));
    let own_database = told.object == Object::Database && lossy(&statement.database) == key.database;
    entry.tables_cut || unreadable || own_database || concerns(&text, &tables, key)
}

/// Refuses if the archive has another definition of one of the tables, from `from` on.
pub(super) fn refuse_definitions(
    log: &ServerLog<'_>,
    name: &str,
    from: Place,
    tables: &[TableKey],
    told: &dyn Fn(holdfast_archive::Error) -> Error,
) -> Result<()> {
    let look = |frame: &SeenFrame<'_>| {
        let mut found: Option<(Indexed, TableKey)> = None;
        frame.each(&mut |seen| {
            if found.is_none() && seen.from >= from && seen.entry.kind == TxnKind::Ddl {
                let indexed = seen.indexed();
                let key = tables.iter().find(|key| redefines(&indexed.entry, key)).cloned();
                found = key.map(|key| (indexed, key));
            }
            Ok(())
        })?;
        Ok(found)
    };
    let mut first = None;
    log.each_mapped(&look, &mut |found| {
        first = found;
        Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
    })
    .map_err(told)?;
    let Some((indexed, key)) = first else { return Ok(()) };
    let text: String = shown_statement(&indexed.entry).unwrap_or_default().chars().take(120).collect();
    Err(Error::failed(format!(
        "{key} may have another definition since {}, after what is to be undone: {text}. The log's rows may mean \
         something else in it.",
        indexed.id()
    ))
    .with_next(format!("holdfast restore {name} --before ID --into DIR, and copy the rows from there")))
}

/// What to say where the archive ends before the log of the protected server does, or that is not known.
pub(super) fn not_archived(
    log: &ServerLog<'_>,
    conn: &mut Conn,
    told: &dyn Fn(holdfast_archive::Error) -> Error,
) -> Result<Option<String>> {
    let files = log.files().map_err(told)?;
    let Some(last) = files.last() else { return Ok(None) };
    let at = ["SHOW BINARY LOG STATUS", "SHOW MASTER STATUS"].iter().find_map(|ask| {
        let rows = conn.query(*ask).ok()?;
        Some((rows.text(0, 0)?, rows.text(0, 1)?.parse::<u64>().ok()?))
    });
    Ok(match at {
        Some((file, end)) if (file.as_str(), end) == (last.name.as_str(), last.end) => None,
        _ => Some(format!(
            "The archive ends at {}:{}: a definition that changed after that is not seen.",
            last.name, last.end
        )),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::txn_index::{StatementText, TableChange};

    fn key() -> TableKey {
        TableKey { database: "shop".into(), table: "t".into() }
    }

    fn entry(kind: TxnKind, text: &str, tables: &[(&str, &str)]) -> TxnEntry {
        let change = |(database, table): &(&str, &str)| TableChange {
            database: database.as_bytes().to_vec(),
            table: table.as_bytes().to_vec(),
            inserted: 0,
            updated: 0,
            deleted: 0,
        };
        TxnEntry {
            gtid: None,
            start: 4,
            end: 5,
            commit_us: 0,
            kind,
            tables: tables.iter().map(change).collect(),
            tables_cut: false,
            rolled_back: false,
            statement: Some(StatementText { database: b"shop".to_vec(), text: text.into(), cut: false }),
        }
    }

    #[test]
    fn definitions_of_the_table_and_of_its_database_are_seen() {
        for (text, tables) in [
            ("ALTER TABLE t MODIFY cost INT AFTER id", &[("shop", "t")][..]),
            ("ALTER TABLE T CONVERT TO CHARACTER SET utf8mb4", &[("Shop", "T")]),
            (
                "RENAME TABLE t TO old, new TO t",
                &[("shop", "t"), ("shop", "old"), ("shop", "new"), ("shop", "t")],
            ),
            ("DROP DATABASE `shop`", &[]),
            ("ALTER SCHEMA shop DEFAULT CHARACTER SET latin1", &[]),
            ("ALTER DATABASE CHARACTER SET latin1", &[]),
            ("ALTER TABLE \u{fffd} ADD v INT", &[("shop", "\u{fffd}")]),
        ] {
            assert!(redefines(&entry(TxnKind::Ddl, text, tables), &key()), "{text}");
        }
        let mut many = entry(TxnKind::Ddl, "DROP TABLE a, b", &[("shop", "a")]);
        assert!(!redefines(&many, &key()));
        many.tables_cut = true;
        assert!(redefines(&many, &key()), "it names not all of its tables");
    }

    #[test]
    fn what_leaves_the_columns_alone_is_let_through() {
        for (text, tables) in [
            ("ALTER TABLE other ADD COLUMN t INT", &[("shop", "other")][..]),
            ("CREATE INDEX v ON t (v)", &[("shop", "t")]),
            ("TRUNCATE TABLE t", &[("shop", "t")]),
            ("CREATE DATABASE IF NOT EXISTS shop", &[]),
            ("CREATE PROCEDURE shop.p() ALTER TABLE t ADD v INT", &[]),
            ("DROP DATABASE shop2", &[]),
        ] {
            let mut of = entry(TxnKind::Ddl, text, tables);
            if text.starts_with("DROP DATABASE")
                && let Some(statement) = &mut of.statement
            {
                statement.database.clear();
            }
            assert!(!redefines(&of, &key()), "{text}");
        }
        assert!(!redefines(&entry(TxnKind::Rows, "", &[("shop", "t")]), &key()));
    }
}
