//! Changes of rows that the log has as statements, with what the source gave to each: its session,
//! time, connection, counters, seeds and user variables.
//!
//! As on a replica, triggers fire and routines run here, since the log has no rows of theirs.

use std::fmt::Write as _;

use holdfast_binlog::event::{Event, FLAG_SUPPRESS_USE, FLAG_THREAD_SPECIFIC};
use holdfast_binlog::misc::UserValue;
use holdfast_binlog::query::Query;

use super::lead::Lead;
use crate::error::Error;
use crate::sql;

/// What INTVAR, RAND and USER_VAR events gave to the next statement.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// Assignments for a SET.
    values: String,
    /// The same, with names in UTF-8.
    variables: String,
}

impl Given {
    /// INSERT_ID or LAST_INSERT_ID.
    pub(super) fn number(&mut self, insert_id: bool, value: u64) {
        let name = if insert_id { "INSERT_ID" } else { "LAST_INSERT_ID" };
        let _ = write!(self.values, ", @@session.{name}={value}");
    }

    /// Seeds of RAND().
    pub(super) fn seeds(&mut self, first: u64, second: u64) {
        let _ = write!(self.values, ", @@session.rand_seed1={first}, @@session.rand_seed2={second}");
    }
}

impl Lead<'_> {
    /// A user variable for the next statement.
    pub(super) fn given_variable(&mut self, name: &[u8], value: &UserValue<'_>) -> Result<(), Error> {
        if self.current_ref().skip {
            return Ok(());
        }
        let value = match value {
            UserValue::Null => "NULL".to_owned(),
            UserValue::Signed(number) => number.to_string(),
            UserValue::Unsigned(number) => format!("CAST({number} AS UNSIGNED)"),
            // The exponent makes it a DOUBLE; as many digits as it takes to mean this one.
            UserValue::Real(number) => format!("{number:e}"),
            UserValue::Decimal { text, precision, scale } => {
                format!("CAST('{text}' AS DECIMAL({precision}, {scale}))")
            }
            UserValue::Text { collation, bytes } => {
                let (charset, name) = self.collation(*collation)?;
                format!("_{charset} {} COLLATE {}", sql::hex(bytes), sql::identifier(&name))
            }
        };
        let name = sql::identifier(&String::from_utf8_lossy(name));
        let given = &mut self.current_ref().given;
        let comma = if given.variables.is_empty() { "" } else { ", " };
        let _ = write!(given.variables, "{comma}@{name}={value}");
        Ok(())
    }

    /// The names of a character set and a collation.
    fn collation(&mut self, number: u32) -> Result<(String, String), Error> {
        let (name, table) = if self.mariadb {
            ("full_collation_name", "collation_character_set_applicability")
        } else {
            ("collation_name", "collations")
        };
        let found = self
            .conn
            .query(format!(
                "SELECT character_set_name, {name} FROM information_schema.{table} WHERE id = {number}"
            ))
            .map_err(Error::server("looking up a collation"))?;
        match (found.text(0, 0), found.text(0, 1)) {
            (Some(charset), Some(name)) => Ok((charset, name)),
            _ => Err(Error::Refused(format!(
                "the server has no collation number {number}, which a user variable at {} has",
                self.place
            ))),
        }
    }

    /// Runs a statement that changes rows and commits nothing.
    pub(super) fn change(&mut self, event: &Event<'_>, query: &Query<'_>, text: &[u8]) -> Result<(), Error> {
        self.prepare_change(event, query, text)?;
        match self.conn.execute(text) {
            Ok(done) => {
                self.current_ref().has_effect |= done.affected > 0;
                Ok(())
            }
            Err(source) => Err(self.change_failed(text, source)),
        }
    }

    /// Why a statement of the log failed.
    pub(super) fn change_failed(&self, text: &[u8], source: holdfast_mysql::Error) -> Error {
        match source {
            source @ holdfast_mysql::Error::Server(_) => Error::Diverged {
                what: format!("`{}`", String::from_utf8_lossy(text.get(..200).unwrap_or(text))),
                place: self.place.clone(),
                source: Box::new(source),
            },
            source => Error::server("running a statement of the log")(source),
        }
    }

    /// Gives our session all that the source gave to a statement which changes rows.
    pub(super) fn prepare_change(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        text: &[u8],
    ) -> Result<(), Error> {
        let shown = || String::from_utf8_lossy(text.get(..200).unwrap_or(text)).into_owned();
        let thread_specific = event.header.flags & FLAG_THREAD_SPECIFIC != 0;
        if thread_specific && self.temporaries.are_lost(query.thread_id) {
            return Err(Error::TemporaryLost { statement: shown(), place: self.place.clone() });
        }
        self.flush()?;
        // Whether a statement reaches a table without transactions is not in its text. Those of an
        // XA transaction that do stand before it in the log.
        let xa = self.current_ref().xa.is_some();
        if !xa && self.kinds.any_without_transactions(self.conn, query.database, text)? {
            self.stand_alone(&format!("the rows that `{}` changes", shown()))?;
        }
        self.note_counters()?;
        self.open_transaction()?;
        self.current_ref().rows = true;
        self.group.1 += text.len() as u64;
        let given = std::mem::take(&mut self.current_ref().given);
        if !given.variables.is_empty() {
            self.session.in_utf8(self.conn)?;
            self.conn
                .execute(format!("SET {}", given.variables))
                .map_err(Error::server("setting the variables of a statement"))?;
        }
        self.session.apply(self.conn, &query.vars)?;
        if event.header.flags & FLAG_SUPPRESS_USE == 0 {
            self.session.use_database(self.conn, query.database)?;
            self.session.apply(self.conn, &query.vars)?;
        }
        self.session.number(self.conn, query.thread_id)?;
        let (seconds, micros) = (event.header.timestamp, query.vars.microseconds.unwrap_or(0));
        self.conn
            .execute(format!("SET @@session.timestamp={seconds}.{micros:06}{}", given.values))
            .map_err(Error::server("setting the time of a statement"))?;
        Ok(())
    }
}
