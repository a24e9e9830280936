//! What a statement that commits by itself is about, as it was before it ran: noted ahead of it, so
//! that a call after a kill can tell whether it took effect. See `ddl` for the statements that are
//! told in another way.

use holdfast_binlog::statement::{Action, Object, Statement, TableName, Verb};
use holdfast_mysql::Conn;

use crate::error::Error;

/// Tables of accounts and of what they may do, of both families.
const ACCOUNTS: [&str; 6] = ["user", "db", "tables_priv", "columns_priv", "procs_priv", "proxies_priv"];

/// Does comparing tell whether the statement took effect?
pub(crate) fn tells(statement: &Statement, text: &[u8]) -> bool {
    let table = matches!(statement.object, Object::Table | Object::Index | Object::Sequence);
    let changes = matches!(statement.action, Action::Alter | Action::Rename);
    let index = statement.object == Object::Index;
    !statement.tables.is_empty() && table && (changes || index)
        || statement.verb == Verb::CtasStart
        || accounts_told(statement, text).is_some()
}

/// The names of accounts may go round, and a second password be the one before: run again, such a
/// statement does something else. The tables that it changes.
fn accounts_told(statement: &Statement, text: &[u8]) -> Option<&'static [&'static str]> {
    match (statement.object, statement.action) {
        (Object::Account, Action::Rename) => Some(&ACCOUNTS),
        (Object::Account, Action::Alter | Action::Other) if has(text, b"RETAIN") => ACCOUNTS.get(..1),
        _ => None,
    }
}

/// Do tables, or partitions and tables, take each other's places? Their definitions may be the same
/// before and after.
fn swaps(statement: &Statement, text: &[u8]) -> bool {
    let twice = |(at, name): (usize, &TableName)| {
        let before = statement.tables.get(..at).unwrap_or_default();
        before.iter().any(|other| other.table.eq_ignore_ascii_case(&name.table))
    };
    statement.object == Object::Table
        && match statement.action {
            Action::Rename => statement.tables.iter().enumerate().any(twice),
            Action::Alter => has(text, b"EXCHANGE"),
            _ => false,
        }
}

fn has(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|found| found.eq_ignore_ascii_case(word))
}

/// What the statement is about, as it is now. To be asked in the session of the statement, in whose
/// character set its names are, with its default database.
pub(crate) fn state(conn: &mut Conn, statement: &Statement, text: &[u8]) -> Result<Vec<u8>, Error> {
    let mut out = Vec::new();
    for name in &statement.tables {
        let mut show = b"SHOW CREATE TABLE ".to_vec();
        show.extend(written(name));
        match conn.query(show) {
            Ok(shown) => out.extend_from_slice(shown.value(0, 1).unwrap_or_default()),
            Err(holdfast_mysql::Error::Server(_)) => out.push(b'-'),
            Err(source) => return Err(Error::server("reading a definition")(source)),
        }
        out.push(0);
    }
    if swaps(statement, text) {
        numbers(conn, &mut out)?;
    }
    if let Some(tables) = accounts_told(statement, text) {
        accounts(conn, tables, &mut out)?;
    }
    Ok(out)
}

/// What `state` notes of a table that is not there.
pub(crate) fn was_absent(before: &[u8]) -> bool {
    before == b"-\0"
}

/// A name as the statement wrote it, in backticks.
pub(crate) fn written(name: &TableName) -> Vec<u8> {
    let mut out = Vec::new();
    for (number, part) in name.database.iter().chain([&name.table]).enumerate() {
        if number > 0 {
            out.push(b'.');
        }
        out.push(b'`');
        for &byte in part {
            out.extend(std::iter::repeat_n(byte, if byte == b'`' { 2 } else { 1 }));
        }
        out.push(b'`');
    }
    out
}

/// A digest of which number InnoDB's tables and partitions have, which they take with them to a new name.
/// Of all tables: names are spelt here as those of files, which is the server's secret.
fn numbers(conn: &mut Conn, out: &mut Vec<u8>) -> Result<(), Error> {
    let list = if conn.server().is_mariadb() { "innodb_sys_tables" } else { "innodb_tables" };
    // What an unfinished ALTER made goes away by itself.
    let query = format!(
        "SELECT name, table_id, space FROM information_schema.{list} \
         WHERE INSTR(name, '/#') = 0 AND LEFT(name, 6) <> 'mysql/' AND LEFT(name, 11) <> '__holdfast/'"
    );
    digest(conn, &query, out).map_err(Error::server("reading the numbers of tables"))
}

/// A digest of all accounts but ours, which another start of the server has under another name.
fn accounts(conn: &mut Conn, tables: &[&str], out: &mut Vec<u8>) -> Result<(), Error> {
    for table in tables {
        // No LIKE: what a backslash means is the session's business.
        let query = format!("SELECT * FROM mysql.{table} WHERE LEFT(user, 17) <> 'holdfast_private_'");
        digest(conn, &query, out).map_err(Error::server("reading the accounts"))?;
    }
    Ok(())
}

/// How many rows a query gives, and what is in them, in whatever order they come.
fn digest(conn: &mut Conn, query: &str, out: &mut Vec<u8>) -> Result<(), holdfast_mysql::Error> {
    let (mut rows, mut sum) = (0_u64, 0_u64);
    conn.query_each::<holdfast_mysql::Error>(query, |row| {
        let mut digest = crc32fast::Hasher::new();
        for value in row.values() {
            digest.update(&value.map_or(u32::MAX, |value| value.len() as u32).to_le_bytes());
            digest.update(value.unwrap_or_default());
        }
        rows += 1;
        sum = sum.wrapping_add(u64::from(digest.finalize()));
        Ok(())
    })?;
    out.extend_from_slice(&rows.to_le_bytes());
    out.extend_from_slice(&sum.to_le_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Statement {
        Statement::classify(text.as_bytes(), 0)
    }

    #[test]
    fn what_a_second_time_would_change_again_is_told_by_what_was_noted() {
        let told = |text: &str| tells(&of(text), text.as_bytes());
        for text in [
            "ALTER TABLE t ADD a INT",
            "CREATE INDEX i ON t (a)",
            "RENAME TABLE a TO b",
            "CREATE TABLE t (a INT) START TRANSACTION",
            "RENAME USER a TO b",
            "ALTER USER a IDENTIFIED BY 'x' RETAIN CURRENT PASSWORD",
            "SET PASSWORD FOR a = 'x' RETAIN CURRENT PASSWORD",
        ] {
            assert!(told(text), "{text}");
        }
        for text in ["CREATE TABLE t (a INT)", "ALTER EVENT e DISABLE", "ALTER USER a IDENTIFIED BY 'x'"] {
            assert!(!told(text), "{text}");
        }
    }

    #[test]
    fn tables_that_take_places_are_known_by_their_numbers() {
        let by_number = |text: &str| swaps(&of(text), text.as_bytes());
        assert!(by_number("RENAME TABLE a TO c, b TO a, c TO b"));
        assert!(by_number("RENAME TABLE t TO old, new TO t"));
        assert!(by_number("ALTER TABLE t EXCHANGE PARTITION p WITH TABLE u"));
        assert!(!by_number("RENAME TABLE a TO b"));
        assert!(!by_number("ALTER TABLE t ADD a INT"));
    }

    #[test]
    fn names_are_written_back_as_they_came() {
        let name = TableName { database: Some(b"d\xfc".to_vec()), table: b"a`b".to_vec() };
        assert_eq!(written(&name), b"`d\xfc`.`a``b`");
    }
}
