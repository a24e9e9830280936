//! XA transactions, as such: prepared where the log prepares them, decided where it decides them.
//!
//! The server keeps what is prepared over any kill and lists it, so no more needs to be on
//! record: one that begins in the log while the copy has it was prepared by an earlier call, and
//! one that is decided while the copy doesn't have it was decided by an earlier call.

use std::collections::BTreeSet;

use holdfast_binlog::misc::XaId;
use holdfast_binlog::query::Query;
use holdfast_mysql::Conn;

use super::lead::Lead;
use crate::checkpoint::{self, Intent};
use crate::error::Error;
use crate::sql;

/// What MariaDB answers that is asked to decide a transaction in which its statements changed no row: the source logs it as
/// one that does something, to a server without a log it is one that only reads, and is taken for rolled back.
const ROLLED_BACK: u16 = 1402;

/// No such transaction: one without an effect is gone with the session that prepared it, or with the server.
const UNKNOWN: u16 = 1397;

/// The name of an XA transaction as SQL has it.
pub(super) fn name(id: &XaId) -> String {
    format!("{},{},{}", sql::hex(&id.global), sql::hex(&id.branch), id.format).to_lowercase()
}

/// The XA transactions that are prepared on a server.
pub(super) fn prepared(conn: &mut Conn) -> Result<BTreeSet<String>, Error> {
    let found = conn.query("XA RECOVER").map_err(Error::server("listing prepared XA transactions"))?;
    let mut out = BTreeSet::new();
    for row in 0..found.rows.len() {
        let number = |column| found.text(row, column).and_then(|text| text.parse::<usize>().ok());
        let format = found.text(row, 0).and_then(|text| text.parse::<i32>().ok()).unwrap_or(1);
        let (global, branch) = (number(1).unwrap_or(0), number(2).unwrap_or(0));
        let data = found.value(row, 3).unwrap_or_default();
        let (global, rest) = data.split_at_checked(global).unwrap_or((data, &[]));
        let (global, branch) = (global.to_vec(), rest.get(..branch).unwrap_or(rest).to_vec());
        out.insert(name(&XaId { format, global, branch }));
    }
    Ok(out)
}

/// The name behind `XA START` and the like.
fn named(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text).to_lowercase();
    let name: Vec<&str> = text.split_whitespace().skip(2).collect();
    name.concat()
}

/// Does this error say that an XA transaction of which no change is known had none? `listed`: the server had it when this
/// call began, so it was there to be decided, whatever its statements did. MariaDB marks what only read as rolled back when
/// the session ends that prepared it.
fn without_effect(listed: bool, code: u16) -> bool {
    code == ROLLED_BACK || code == UNKNOWN && !listed
}

impl Lead<'_> {
    /// Takes a statement of an XA transaction.
    pub(super) fn xa(&mut self, query: &Query<'_>, text: &[u8]) -> Result<(), Error> {
        let verb =
            text.split(|byte| byte.is_ascii_whitespace()).nth(1).unwrap_or_default().to_ascii_uppercase();
        let name = named(text);
        match verb.as_slice() {
            b"START" | b"BEGIN" => {
                if self.begin_xa(text.to_vec(), &name)? {
                    self.session.apply(self.conn, &query.vars)?;
                }
                Ok(())
            }
            // Comes with XA PREPARE or XA COMMIT.
            b"END" => Ok(()),
            _ if self.prepared_empty.remove(&name) => Ok(()),
            _ if self.current_ref().skip => Ok(()),
            _ => self.decide(text, &name),
        }
    }

    /// An XA transaction begins. Is it to be applied? The server hears of it with its first change.
    pub(super) fn begin_xa(&mut self, start: Vec<u8>, name: &str) -> Result<bool, Error> {
        let already = self.prepared.contains(name);
        let current = self.current_ref();
        current.begun = true;
        current.xa = Some(start);
        current.skip |= already;
        if current.skip {
            return Ok(false);
        }
        self.commit_group()?;
        Ok(true)
    }

    /// Takes XA PREPARE, or XA COMMIT .. ONE PHASE.
    pub(super) fn xa_prepare(&mut self, one_phase: bool, id: &XaId) -> Result<(), Error> {
        let name = name(id);
        let done = self.seen + 1;
        let current = self.current_ref();
        if !current.changes && !one_phase {
            self.prepared_empty.insert(name);
            return Ok(());
        }
        let skip = current.skip;
        let kept = current.has_rows || current.has_effect;
        // Of one that an earlier call prepared, nobody knows what its statements did.
        if !one_phase && !kept {
            self.prepared_by_text.insert(name.clone(), self.prepared.contains(&name));
        }
        if skip || !self.open {
            return Ok(());
        }
        self.flush()?;
        let doing = || Error::server("ending an XA transaction");
        if one_phase {
            self.conn.execute(checkpoint::advance(done)).map_err(doing())?;
        }
        self.conn.execute(format!("XA END {name}")).map_err(doing())?;
        if one_phase {
            self.conn.execute(format!("XA COMMIT {name} ONE PHASE")).map_err(doing())?;
        } else {
            self.conn.execute(format!("XA PREPARE {name}")).map_err(doing())?;
            // Its own locks would be in the way of a checkpoint in it.
            self.conn.execute(checkpoint::advance(done)).map_err(doing())?;
            self.prepared.insert(name);
        }
        self.open = false;
        self.current_ref().noted = true;
        Ok(())
    }

    /// Takes XA COMMIT or XA ROLLBACK of what is prepared.
    fn decide(&mut self, text: &[u8], name: &str) -> Result<(), Error> {
        self.commit_group()?;
        let resumed = self.checkpoint.intent.take_if(|intent| intent.number == self.seen).is_some();
        let by_text = self.prepared_by_text.remove(name);
        if !resumed || self.prepared.contains(name) {
            checkpoint::intend(self.conn, &Intent { number: self.seen, before: Vec::new() })?;
            match self.conn.execute(text) {
                Ok(_) => {}
                Err(holdfast_mysql::Error::Server(error))
                    if by_text.is_some_and(|listed| without_effect(listed, error.code)) => {}
                Err(source @ holdfast_mysql::Error::Server(_)) => {
                    return Err(Error::Diverged {
                        what: format!("`{}`", String::from_utf8_lossy(text)),
                        place: self.place.clone(),
                        source: Box::new(source),
                    });
                }
                Err(source) => return Err(Error::server("deciding an XA transaction")(source)),
            }
            self.prepared.remove(name);
        }
        self.note_done()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed_nothing_and_is_not_kept_by_the_server_may_be_gone() {
        assert!(without_effect(false, UNKNOWN) && without_effect(false, ROLLED_BACK));
        assert!(without_effect(true, ROLLED_BACK), "it only read, says the server");
        assert!(!without_effect(true, UNKNOWN), "an earlier call prepared it, and the server had it");
        assert!(!without_effect(false, 1399));
    }

    #[test]
    fn names_of_statement_event_and_server_are_the_same() {
        let id = XaId { format: 7, global: b"a\xff".to_vec(), branch: Vec::new() };
        assert_eq!(name(&id), "x'61ff',x'',7");
        assert_eq!(named(b"XA COMMIT X'61FF',X'',7"), name(&id));
    }
}
