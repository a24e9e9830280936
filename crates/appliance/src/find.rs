//! `find`: statements and transactions in the archive's index, or in the log itself.

use crate::archive::archive_error;
use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::progress::{Reading, Watcher};
use crate::time::Micros;
use crate::views::{FoundView, TableView};
use holdfast_archive::find::{Query, shown_statement};
use holdfast_archive::{Indexed, ServerLog, scan};
use holdfast_format::txn_index::TxnKind;
use serde::Serialize;

/// What is looked for; everything that is set must hold.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only definitions and accounts.
    pub ddl: bool,
    /// Only what touched this table.
    pub table: Option<String>,
    /// Only statements like this.
    pub like: Option<String>,
    /// Only transactions that changed more rows than this.
    pub rows_over: Option<u64>,
    /// Not before.
    pub since: Option<Micros>,
    /// Not after.
    pub until: Option<Micros>,
    /// At most so many.
    pub limit: u32,
    /// Read the log, too, for the original statements of row changes.
    pub scan: bool,
    /// Only what this user ran, where the log says so: the log is read for it.
    pub user: Option<String>,
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// In the order of the log.
    pub found: Vec<FoundView>,
    /// There is more than the limit.
    pub more: bool,
    /// What was read, if the log was.
    pub scanned: Option<ScannedView>,
}

/// What was read of the log.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct ScannedView {
    /// Transactions.
    pub transactions: u64,
    /// Those of them for which the log has the original statement of row changes.
    pub with_statement: u64,
    /// Those of them for which it has a user.
    pub with_user: u64,
}

/// Looks through the index of the server called `name`, or through the log where that is asked for.
///
/// # Errors
/// `Usage` when nothing is archived of it.
pub fn find(catalogue: &Catalogue, name: &str, wanted: &Wanted, watcher: &dyn Watcher) -> Result<Found> {
    let server = catalogue.server(name)?;
    let told = |e| archive_error(catalogue, &server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    if log.is_empty() {
        return Err(Error::usage(format!("Nothing is archived of '{name}'."))
            .with_next(format!("run `holdfast archive {name}`")));
    }
    let query = Query {
        ddl: wanted.ddl,
        table: wanted.table.clone(),
        like: wanted.like.clone(),
        rows_over: wanted.rows_over,
        since_us: wanted.since,
        until_us: wanted.until,
    };
    let mut found = Vec::new();
    if wanted.scan || wanted.user.is_some() {
        let in_log = scan::Wanted { like: wanted.like.clone(), user: wanted.user.clone() };
        let mut progress = |done: u64, total: u64| {
            watcher.reading(Reading {
                phase: "read the log",
                done,
                total: Some(total),
                bytes: true,
                limit: None,
            });
            !watcher.cancelled()
        };
        let scanned = scan::scan(&log, &query, &in_log, wanted.limit as usize, &mut progress, &mut |hit| {
            let shown = hit.text.map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "));
            let seen = view(&hit.indexed);
            // Passwords are left out of statements about accounts, which the index has.
            let statement = if seen.kind == "acl" { seen.statement.clone() } else { shown };
            found.push(FoundView { statement, user: hit.user, ..seen });
            Ok(())
        });
        let scanned = match scanned {
            Err(holdfast_archive::Error::Interrupted) => {
                return Err(Error::new(Code::Interrupted, "The search was interrupted."));
            }
            scanned => scanned.map_err(told)?,
        };
        let view = ScannedView {
            transactions: scanned.transactions,
            with_statement: scanned.with_text,
            with_user: scanned.with_user,
        };
        return Ok(Found { found, more: scanned.more, scanned: Some(view) });
    }
    let more = holdfast_archive::find::find(&log, &query, wanted.limit as usize, &mut |indexed| {
        found.push(view(&indexed));
        Ok(())
    })
    .map_err(told)?;
    Ok(Found { found, more, scanned: None })
}

/// A transaction for people.
pub(crate) fn view(indexed: &Indexed) -> FoundView {
    let entry = &indexed.entry;
    FoundView {
        id: indexed.id(),
        at: entry.commit_us,
        kind: kind_word(entry.kind).to_owned(),
        position: format!("{}:{}", indexed.file, entry.start),
        tables: entry
            .tables
            .iter()
            .map(|t| TableView {
                table: format!(
                    "{}.{}",
                    String::from_utf8_lossy(&t.database),
                    String::from_utf8_lossy(&t.table)
                ),
                inserted: t.inserted,
                updated: t.updated,
                deleted: t.deleted,
            })
            .collect(),
        statement: shown_statement(entry),
        user: None,
    }
}

fn kind_word(kind: TxnKind) -> &'static str {
    match kind {
        TxnKind::Other => "other",
        TxnKind::Rows => "rows",
        TxnKind::Ddl => "ddl",
        TxnKind::Acl => "acl",
        TxnKind::Statement => "statement",
        TxnKind::Xa => "xa",
    }
}
