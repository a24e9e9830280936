//! The schema that the copy goes into: made by us, marked until the copy is whole, and cleared only where the mark says
//! that all of it is ours.
//!
//! The mark is a table whose comment says of which command it is, and whose rows name each table before it is made. So
//! whatever a cut leaves is one of these: an empty schema, a marked one with tables that the mark names, or a whole copy
//! without a mark.

use super::{Refused, refused};
use crate::error::{Code, Error, Result};
use crate::undo::definition::quoted;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::quoted_name;

/// The table that marks a schema as unfinished.
pub(super) const MARK: &str = "holdfast_unfinished";

/// How long the end of an earlier command's last statement is waited for.
const LOCK_WAIT_S: u32 = 60;

/// The command that a mark is of, as the comment of a table holds it: it names the command for people, and tells it from
/// all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Purpose(String);

impl Purpose {
    /// Bytes of words that are kept; a comment has 2048 letters at most.
    const WORDS_MAX: usize = 1000;

    /// `of`: the identity of whatever the words name, since two servers may have one name in two repositories.
    pub(super) fn new(words: &str, of: &str) -> Self {
        let hash = blake3::hash(format!("{of}\0{words}").as_bytes()).to_hex();
        let plain = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let words: String = words.chars().take(Self::WORDS_MAX).map(plain).collect();
        Self(format!("an unfinished copy of {words} [{}]", hash.get(..32).unwrap_or_default()))
    }

    /// What tells it from all others.
    pub(super) fn id(&self) -> &str {
        self.0.rsplit_once('[').map_or("", |(_, hash)| hash.trim_end_matches(']'))
    }

    /// A name for a folder that is this command's alone.
    pub(super) fn folder(&self) -> String {
        format!("holdfast-tables-{}", self.id())
    }
}

/// Takes the lock of a schema for as long as the connection lives, so that nobody writes into it beside us: not even the
/// server itself, that is still at the last statement of a command that was killed.
fn lock(conn: &mut Conn, schema: &str, wait_s: u32) -> Refused<bool> {
    let hash = blake3::hash(schema.as_bytes()).to_hex();
    let name = format!("holdfast-{}", hash.get(..32).unwrap_or_default());
    Ok(conn.query_text(format!("SELECT GET_LOCK('{name}', {wait_s})"))?.as_deref() == Some("1"))
}

fn list(conn: &mut Conn, sql: String) -> Refused<Vec<String>> {
    let rows = conn.query(sql)?;
    Ok((0..rows.rows.len()).filter_map(|row| rows.text(row, 0)).collect())
}

fn tables(conn: &mut Conn, schema: &str) -> Refused<Vec<String>> {
    let of = quoted(schema);
    list(conn, format!("SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = {of}"))
}

/// What a schema holds beside tables.
fn others(conn: &mut Conn, schema: &str) -> Refused<Vec<String>> {
    let of = quoted(schema);
    list(
        conn,
        format!(
            "SELECT CONCAT('the routine ', ROUTINE_NAME) FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {of} \
             UNION ALL SELECT CONCAT('the event ', EVENT_NAME) FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {of}"
        ),
    )
}

/// A schema as it was found.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Not there.
    Nothing,
    /// There, and empty.
    Empty,
    /// Marked by the same command; with the tables that the mark names.
    Ours(Vec<String>),
    /// Anything else, in words.
    Other(String),
}

fn look(conn: &mut Conn, schema: &str, purpose: &Purpose) -> Refused<Found> {
    let there = conn.query_text(format!(
        "SELECT COUNT(*) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME = {}",
        quoted(schema)
    ))?;
    if there.as_deref() == Some("0") {
        return Ok(Found::Nothing);
    }
    let tables = tables(conn, schema)?;
    let others = others(conn, schema)?;
    let Some(mark) = tables.iter().find(|table| *table == MARK) else {
        return Ok(match others.first().or(tables.first()) {
            None => Found::Empty,
            Some(_) => Found::Other(format!("it is there already, with {} tables", tables.len())),
        });
    };
    let comment = conn.query_text(format!(
        "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {}",
        quoted(schema),
        quoted(mark)
    ))?;
    let comment = comment.unwrap_or_default();
    if comment != purpose.0 {
        return Ok(Found::Other(format!("it holds {comment}")));
    }
    let named = list(conn, format!("SELECT name FROM {}.{}", quoted_name(schema), quoted_name(MARK)))?;
    // A server that folds names gives them back folded.
    let ours = |table: &String| table == mark || named.iter().any(|name| name.eq_ignore_ascii_case(table));
    match others.into_iter().next().or_else(|| tables.iter().find(|table| !ours(table)).cloned()) {
        Some(foreign) => Ok(Found::Other(format!("it holds {comment}, and beside it {foreign}"))),
        None => Ok(Found::Ours(tables.into_iter().filter(|table| table != MARK).collect())),
    }
}

/// Refuses a schema that could not be taken, before anything is restored for it.
pub(super) fn refuse_taken(conn: &mut Conn, schema: &str, purpose: &Purpose) -> Result<()> {
    match look(conn, schema, purpose).map_err(|e| refused(conn, &e))? {
        Found::Other(why) => Err(taken(schema, &why)),
        _ => Ok(()),
    }
}

fn taken(schema: &str, why: &str) -> Error {
    Error::usage(format!("The schema {schema} is not used: {why}.")).with_next(
        "name another one with --schema, or drop this one yourself if nobody needs it; an unfinished copy goes away when the \
         command that made it is given again",
    )
}

/// Makes the schema, with our mark in it; clears it first where it is one that the same command left.
///
/// # Errors
/// `Usage` where it exists and is not ours, `Locked` where another command fills it.
pub(super) fn take(conn: &mut Conn, schema: &str, defaults: &str, purpose: &Purpose) -> Result<()> {
    let said = |conn: &Conn, e: holdfast_mysql::Error| refused(conn, &e);
    if !lock(conn, schema, LOCK_WAIT_S).map_err(|e| said(conn, e))? {
        return Err(Error::new(Code::Locked, format!("Another command copies into the schema {schema}."))
            .with_next("wait until it is done, or name another schema with --schema"));
    }
    let name = quoted_name(schema);
    let mark = format!("{name}.{}", quoted_name(MARK));
    match look(conn, schema, purpose).map_err(|e| said(conn, e))? {
        Found::Other(why) => return Err(taken(schema, &why)),
        Found::Ours(tables) => {
            clear(conn, schema, &tables).map_err(|e| said(conn, e))?;
            return conn.execute(format!("DELETE FROM {mark}")).map(drop).map_err(|e| said(conn, e));
        }
        // An empty one is what a cut behind this statement leaves.
        Found::Nothing => {
            conn.execute(format!("CREATE DATABASE {name} {defaults}")).map_err(|e| said(conn, e))?;
        }
        Found::Empty => {}
    }
    conn.execute(format!(
        "CREATE TABLE {mark} (name VARCHAR(64) NOT NULL PRIMARY KEY) ENGINE = InnoDB DEFAULT CHARSET = utf8mb4 \
         COLLATE = utf8mb4_bin COMMENT = {}",
        quoted(&purpose.0)
    ))
    .map(drop)
    .map_err(|e| said(conn, e))
}

fn clear(conn: &mut Conn, schema: &str, tables: &[String]) -> Refused<()> {
    for table in tables {
        conn.execute(format!("DROP TABLE IF EXISTS {}.{}", quoted_name(schema), quoted_name(table)))?;
    }
    Ok(())
}

/// Notes a table that is going to be made.
pub(super) fn note(conn: &mut Conn, schema: &str, table: &str) -> Refused<()> {
    let mark = format!("{}.{}", quoted_name(schema), quoted_name(MARK));
    conn.execute(format!("INSERT INTO {mark} VALUES ({})", quoted(table))).map(drop)
}

/// Takes the marks away: everything is there. One statement, so that no cut of ours leaves one of them. (MySQL drops all
/// or none also when the server itself dies in it; MariaDB does so for each table.)
pub(super) fn finish(conn: &mut Conn, schemas: &[String]) -> Refused<()> {
    let marks: Vec<String> =
        schemas.iter().map(|schema| format!("{}.{}", quoted_name(schema), quoted_name(MARK))).collect();
    if marks.is_empty() {
        return Ok(());
    }
    conn.execute(format!("DROP TABLE {}", marks.join(", "))).map(drop)
}

/// Drops schemas of other names that the same command left: with `--to latest` the name goes with the moment. One that
/// holds anything else, or that somebody works in, stays.
pub(super) fn drop_left(conn: &mut Conn, but: &[String], purpose: &Purpose) -> Refused<Vec<String>> {
    let marked = list(
        conn,
        format!(
            "SELECT TABLE_SCHEMA FROM information_schema.TABLES WHERE TABLE_NAME = '{MARK}' AND TABLE_COMMENT = {}",
            quoted(&purpose.0)
        ),
    )?;
    let mut dropped = Vec::new();
    for schema in marked {
        if but.contains(&schema) || !lock(conn, &schema, 0)? {
            continue;
        }
        if let Found::Ours(tables) = look(conn, &schema, purpose)? {
            clear(conn, &schema, &tables)?;
            finish(conn, std::slice::from_ref(&schema))?;
            // Somebody may have put something there meanwhile.
            if self::tables(conn, &schema)?.is_empty() && others(conn, &schema)?.is_empty() {
                conn.execute(format!("DROP DATABASE {}", quoted_name(&schema)))?;
            }
            dropped.push(schema);
        }
    }
    Ok(dropped)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_purpose_names_its_command_and_no_other() {
        let long = "x".repeat(5000);
        let (a, b) = (Purpose::new(&format!("{long}a"), "1"), Purpose::new(&format!("{long}b"), "1"));
        assert!(a != b && a.0.len() < 2048);
        assert_eq!(a, Purpose::new(&format!("{long}a"), "1"));
        assert_ne!(a, Purpose::new(&format!("{long}a"), "2"));
        assert!(
            Purpose::new("shop at\nnoon \u{1f980}", "")
                .0
                .starts_with("an unfinished copy of shop at?noon ? [")
        );
        assert_eq!(a.folder().len(), "holdfast-tables-".len() + 32);
    }
}
