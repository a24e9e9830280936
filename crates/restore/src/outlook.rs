//! What `--dry-run` says of the replay: the way of each table, and what can't be replayed. It reads the whole range
//! of log, as the restore itself does before its first write.

use std::sync::Mutex;

use holdfast_mysql::ServerVersion;
use holdfast_replay::outlook::Way;
use holdfast_replay::{LogReader, Mode, scan};
use serde::Serialize;

use crate::error::{Error, Foreign, Result};
use crate::plan::LogRange;
use crate::scope::{Scope, filter};
use crate::seam::Log;
use crate::tuning::{self, Facts};

/// The replay of a plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Outlook {
    /// Row changes of the range, those that the base holds included.
    pub rows: u64,
    /// Of a restore of some tables: row changes of the whole range.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub of_rows: Option<u64>,
    /// Bytes of its events.
    pub bytes: u64,
    /// Definitions, and statements about accounts.
    pub definitions: u64,
    /// Transactions that are replayed statement by statement.
    pub one_by_one: u64,
    /// Its tables.
    pub tables: Vec<TableOutlook>,
    /// What can't be replayed, a sentence each: a restore is refused before it writes anything.
    pub refused: Vec<String>,
    /// Statements that may do something else than they did on the source.
    pub unsafe_statements: Vec<String>,
    /// What the server is started with for the replay alone, and why: a sentence each.
    pub replay_settings: Vec<String>,
}

/// A table of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableOutlook {
    /// `database.table`.
    pub table: String,
    /// `net`, `ordered`, or `together`: in order with all that foreign keys join it with.
    pub class: &'static str,
    /// Why, or under which condition.
    pub why: String,
    /// Row changes.
    pub rows: u64,
    /// Definitions that name it: each is a fence, in front of which everything of it is applied.
    pub fences: u64,
}

struct Range<'l> {
    log: &'l dyn Log,
    range: LogRange,
    scope: Option<&'l Scope>,
    seen: Mutex<Option<filter::Seen>>,
}

impl holdfast_replay::Log for Range<'_> {
    fn read(&self) -> std::result::Result<Box<dyn LogReader + '_>, Foreign> {
        let inner = self.log.read(self.range.from, self.range.until)?;
        let Some(scope) = self.scope else { return Ok(inner) };
        Ok(Box::new(filter::Reader::new(inner, scope, &self.seen, None)))
    }
}

/// Looks through the range of a plan, or what of it the tables of `scope` need. `version`: the server's; `facts`: what
/// its settings depend on.
///
/// # Errors
/// The log can't be read.
pub fn outlook(
    log: &dyn Log,
    range: LogRange,
    scope: Option<&Scope>,
    mode: Mode,
    version: &ServerVersion,
    facts: &Facts,
) -> Result<Outlook> {
    let summary = scan::scan(&Range { log, range, scope, seen: Mutex::default() }).map_err(Error::of_scan)?;
    let of_rows = match scope {
        Some(_) => {
            let whole = Range { log, range, scope: None, seen: Mutex::default() };
            Some(scan::scan(&whole).map_err(Error::of_scan)?.rows)
        }
        None => None,
    };
    let tables = holdfast_replay::outlook::outlook(&summary, mode, version.is_mariadb());
    let table = |found: holdfast_replay::outlook::TableOutlook| TableOutlook {
        table: found.table.to_string(),
        class: match found.way {
            Way::Net => "net",
            Way::Ordered => "ordered",
            Way::Together => "together",
        },
        why: found.why,
        rows: found.rows,
        fences: found.fences,
    };
    Ok(Outlook {
        rows: summary.rows,
        of_rows,
        bytes: summary.bytes,
        definitions: summary.ddl + summary.acl,
        one_by_one: summary.one_by_one.len(),
        tables: tables.into_iter().map(table).collect(),
        refused: summary.refused,
        unsafe_statements: summary.unsafe_statements,
        replay_settings: tuning::choose(version, facts).why,
    })
}
