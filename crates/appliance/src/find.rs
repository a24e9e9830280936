//! `find`: statements and transactions in the archive's index.

use crate::archive::archive_error;
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::views::{FoundView, TableView};
use holdfast_archive::find::{Query, shown_statement};
use holdfast_archive::{Indexed, ServerLog};
use holdfast_format::txn_index::TxnKind;

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
}

/// What was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// In the order of the log.
    pub found: Vec<FoundView>,
    /// There is more than the limit.
    pub more: bool,
}

/// Looks through the index of the server called `name`.
///
/// # Errors
/// `Usage` when nothing is archived of it.
pub fn find(catalogue: &Catalogue, name: &str, wanted: &Wanted) -> Result<Found> {
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
    let more = holdfast_archive::find::find(&log, &query, wanted.limit as usize, &mut |indexed| {
        found.push(view(&indexed));
        Ok(())
    })
    .map_err(told)?;
    Ok(Found { found, more })
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
