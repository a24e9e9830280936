//! Triggers, routines and events: each with the session that it was made in.
//!
//! A body is in the character set of the session that made it, so it is written as it is stored, and read in that
//! character set again.

use super::dump::{Done, Dump, text, texts};
use super::script::Script;
use holdfast_mysql::ResultSet;
use holdfast_restore::catalog::quoted_name;
use std::io;

/// What a definition was made under.
#[derive(Debug, Default)]
pub(super) struct Session {
    /// `character_set_client`.
    pub client: String,
    /// `collation_connection`.
    pub connection: String,
    /// `sql_mode`; none for a view, whose text does not depend on it.
    pub sql_mode: Option<String>,
    /// `time_zone` of an event.
    pub time_zone: Option<String>,
    /// The database and the collation that it had then, where it has another one now.
    pub database: Option<(String, String, String)>,
}

impl Session {
    /// Out of `SHOW CREATE`: its columns have the variables' names.
    fn of(found: &ResultSet) -> Self {
        Self {
            client: found.text_by_name(0, "character_set_client").unwrap_or_default(),
            connection: found.text_by_name(0, "collation_connection").unwrap_or_default(),
            sql_mode: found.text_by_name(0, "sql_mode"),
            time_zone: found.text_by_name(0, "time_zone"),
            database: None,
        }
    }

    pub(super) fn set(&self, script: &mut Script<'_>) -> io::Result<()> {
        if let Some((database, then, _)) = &self.database {
            script.statement(format!("ALTER DATABASE {} COLLATE {then}", quoted_name(database)))?;
        }
        script.statement("SET @saved_cs_client = @@character_set_client")?;
        script.statement("SET @saved_cs_results = @@character_set_results")?;
        script.statement("SET @saved_col_connection = @@collation_connection")?;
        script.statement(format!("SET character_set_client = {}", self.client))?;
        script.statement(format!("SET character_set_results = {}", self.client))?;
        script.statement(format!("SET collation_connection = {}", self.connection))?;
        if let Some(mode) = &self.sql_mode {
            script.statement("SET @saved_sql_mode = @@sql_mode")?;
            script.statement(format!("SET sql_mode = '{mode}'"))?;
        }
        if let Some(zone) = &self.time_zone {
            script.statement("SET @saved_time_zone = @@time_zone")?;
            script.statement(format!("SET time_zone = '{zone}'"))?;
        }
        Ok(())
    }

    pub(super) fn back(&self, script: &mut Script<'_>) -> io::Result<()> {
        if self.time_zone.is_some() {
            script.statement("SET time_zone = @saved_time_zone")?;
        }
        if self.sql_mode.is_some() {
            script.statement("SET sql_mode = @saved_sql_mode")?;
        }
        script.statement("SET character_set_client = @saved_cs_client")?;
        script.statement("SET character_set_results = @saved_cs_results")?;
        script.statement("SET collation_connection = @saved_col_connection")?;
        if let Some((database, _, now)) = &self.database {
            script.statement(format!("ALTER DATABASE {} COLLATE {now}", quoted_name(database)))?;
        }
        Ok(())
    }
}

/// Writes what `SHOW CREATE` tells of one of them; `column` holds the statement.
fn definition(dump: &mut Dump<'_, '_>, database: &str, what: &str, name: &str, column: &str) -> Done<()> {
    let found = dump.conn.query(format!("SHOW CREATE {what} {}", quoted_name(name)))?;
    let at = found.column(column);
    let Some(body) = at.and_then(|at| found.value(0, at)) else {
        dump.warnings.push(format!(
            "the {} {database}.{name} is not in the script: the server does not tell its text",
            what.to_ascii_lowercase()
        ));
        return Ok(());
    };
    let mut session = Session::of(&found);
    let then = found.text_by_name(0, "Database Collation").unwrap_or_default();
    let now = dump.conn.query_text("SELECT @@collation_database")?.unwrap_or_default();
    if !then.is_empty() && then != now {
        session.database = Some((database.to_owned(), then, now));
    }
    session.set(dump.script)?;
    if what != "TRIGGER" {
        // Here, because a package can be named in its own sql_mode only. Triggers went with their table.
        dump.script.statement(format!("DROP {what} IF EXISTS {}", quoted_name(name)))?;
    }
    dump.script.compound(body)?;
    session.back(dump.script)?;
    Ok(())
}

/// The triggers of a table, in the order in which they run.
pub(super) fn triggers(dump: &mut Dump<'_, '_>, database: &str, table: &str) -> Done<()> {
    let found = dump.conn.query(format!(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE EVENT_OBJECT_SCHEMA = {} AND \
         EVENT_OBJECT_TABLE = {} ORDER BY ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, TRIGGER_NAME",
        text(database),
        text(table)
    ))?;
    let mut names: Vec<String> = Vec::new();
    for name in texts(&found, 0) {
        // A trigger of several events is told once for each of them.
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        definition(dump, database, "TRIGGER", &name, "SQL Original Statement")?;
    }
    Ok(())
}

/// The events of a database.
pub(super) fn events(dump: &mut Dump<'_, '_>, database: &str) -> Done<()> {
    let found = dump.conn.query(format!(
        "SELECT EVENT_NAME FROM information_schema.EVENTS WHERE EVENT_SCHEMA = {} ORDER BY EVENT_NAME",
        text(database)
    ))?;
    if !found.rows.is_empty() {
        dump.script.remark(&format!("Dumping events for database {}", quoted_name(database)))?;
    }
    for name in texts(&found, 0) {
        definition(dump, database, "EVENT", &name, "Create Event")?;
    }
    Ok(())
}

/// Functions, procedures and packages of a database; a package before its body.
pub(super) fn routines(dump: &mut Dump<'_, '_>, database: &str) -> Done<()> {
    const KINDS: [(&str, &str); 4] = [
        ("FUNCTION", "Create Function"),
        ("PROCEDURE", "Create Procedure"),
        ("PACKAGE", "Create Package"),
        ("PACKAGE BODY", "Create Package Body"),
    ];
    for (kind, column) in KINDS {
        // Those of a package come with it.
        let found = dump.conn.query(format!(
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = {} AND ROUTINE_TYPE = '{kind}' \
             ORDER BY ROUTINE_NAME",
            text(database)
        ))?;
        if !found.rows.is_empty() {
            let what = kind.to_ascii_lowercase();
            dump.script.remark(&format!("Dumping each {what} of database {}", quoted_name(database)))?;
        }
        for name in texts(&found, 0) {
            definition(dump, database, kind, &name, column)?;
        }
    }
    Ok(())
}
