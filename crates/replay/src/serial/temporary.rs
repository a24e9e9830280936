//! Temporary tables of the statement format.
//!
//! They belong to a connection of the source, which each statement names; our one session has
//! those of all of them at once, told apart by `pseudo_thread_id`. They are in no checkpoint: a
//! call after a kill can't go on behind one that is still used.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_binlog::event::Event;
use holdfast_binlog::query::Query;
use holdfast_binlog::statement::{Action, Statement};

use super::lead::Lead;
use crate::error::Error;
use crate::sql;

/// Temporary tables by connection of the source; names as SQL has them.
type Tables = BTreeMap<u32, BTreeSet<String>>;

/// Connections with temporary tables.
#[derive(Debug, Default)]
pub(super) struct Temporaries {
    /// Those that our session has.
    live: Tables,
    /// Those that were made by transactions which this call left out.
    lost: Tables,
}

/// Brings the list behind a statement.
fn note(tables: &mut Tables, thread: u32, action: Action, names: Vec<String>) {
    match action {
        Action::Create => tables.entry(thread).or_default().extend(names),
        Action::Drop => {
            if let Some(there) = tables.get_mut(&thread) {
                there.retain(|name| !names.contains(name));
                if there.is_empty() {
                    tables.remove(&thread);
                }
            }
        }
        _ => {}
    }
}

fn names(statement: &Statement, database: &[u8]) -> Vec<String> {
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let name = |name: &holdfast_binlog::statement::TableName| {
        sql::table(&lossy(name.database.as_deref().unwrap_or(database)), &lossy(&name.table))
    };
    statement.tables.iter().map(name).collect()
}

impl Temporaries {
    /// A statement that is behind the checkpoint, or in the base.
    pub(super) fn skipped(&mut self, query: &Query<'_>, statement: &Statement) {
        if statement.temporary {
            note(&mut self.lost, query.thread_id, statement.action, names(statement, query.database));
        }
    }

    /// Did temporary tables of this connection go with an earlier run?
    pub(super) fn are_lost(&self, thread: u32) -> bool {
        self.lost.contains_key(&thread)
    }
}

impl Lead<'_> {
    /// Runs CREATE TEMPORARY or DROP TEMPORARY, which commit nothing.
    pub(super) fn temporary(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        text: &[u8],
        statement: &Statement,
    ) -> Result<(), Error> {
        let thread = query.thread_id;
        let names = names(statement, query.database);
        match statement.action {
            Action::Create => self.change(event, query, text)?,
            Action::Drop => {
                // The servers log it for tables that they did not log, too: those are not there.
                note(&mut self.temporaries.lost, thread, Action::Drop, names.clone());
                let live = self.temporaries.live.get(&thread);
                let there: Vec<String> = names
                    .iter()
                    .filter(|name| live.is_some_and(|live| live.contains(*name)))
                    .cloned()
                    .collect();
                self.drop_temporaries(thread, &there)?;
            }
            _ => return Ok(()),
        }
        note(&mut self.temporaries.live, thread, statement.action, names);
        Ok(())
    }

    /// The source was started anew: no connection outlived that.
    pub(super) fn end_temporaries(&mut self) -> Result<(), Error> {
        self.temporaries.lost.clear();
        for (thread, names) in std::mem::take(&mut self.temporaries.live) {
            self.drop_temporaries(thread, &names.into_iter().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Our session is the one of a connection of the source, if any has temporary tables: a
    /// name may be that of another one's.
    pub(super) fn as_thread(&mut self, thread: u32) -> Result<(), Error> {
        if self.temporaries.live.is_empty() { Ok(()) } else { self.session.number(self.conn, thread) }
    }

    fn drop_temporaries(&mut self, thread: u32, names: &[String]) -> Result<(), Error> {
        if names.is_empty() {
            return Ok(());
        }
        self.flush()?;
        self.session.number(self.conn, thread)?;
        self.session.in_utf8(self.conn)?;
        for name in names {
            // It may be gone: another statement renamed it.
            self.conn
                .execute(format!("DROP TEMPORARY TABLE IF EXISTS {name}"))
                .map_err(Error::server("dropping a temporary table"))?;
        }
        Ok(())
    }
}
