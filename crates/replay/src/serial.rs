//! The serial applier: the source's transactions one by one, in the source's order, on one
//! connection to a private server.
//!
//! Rows go as `BINLOG '..'`, their flags bit for bit, so no trigger fires, no type is
//! converted, and cascades happen where the source's did. Definitions and accounts go as text
//! in the session that they ran in.
//!
//! Nobody reads the server meanwhile, so small transactions of the source that follow each
//! other share one of ours, in the same order, with one checkpoint for all of them: a kill
//! loses the whole group or none of it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use holdfast_binlog::tables::TableKey;
use holdfast_format::gtid::{Flavor, GtidSet, MariaDbBinlogState};
use holdfast_mysql::Conn;

use crate::error::Error;
use crate::log::Log;
use crate::net::Class;
use crate::scan::Summary;

mod cascades;
mod change;
mod counters;
mod definition;
mod kinds;
mod lead;
mod load;
mod sender;
mod temporary;
mod window;
mod xa;

pub(crate) use lead::Lead;

/// Longest silence of the server within one statement: an ALTER of a table of many
/// terabytes takes days, a server that died is seen by its closed socket at once.
const STATEMENT_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

/// What a replay is to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// Names base, log and cut; a half-done replay goes on only under the same name.
    pub plan: String,
    /// The host's boot id (`/proc/sys/kernel/random/boot_id`): a replay doesn't sync, so it
    /// can't go on behind a crash of the host.
    pub boot_id: String,
    /// What the base holds; transactions in it are not applied.
    pub base: GtidSet,
    /// Transactions of the log that a finished replay on this copy applied (or found in the base): this one goes on
    /// behind them. A checkpoint in the copy says better.
    pub done: u64,
}

/// Options for a private server on which a replay runs: nothing is synced, a crash of the
/// process is survived, one of the host is not (see [`Options::boot_id`]).
#[must_use]
pub fn server_args(flavor: Flavor) -> Vec<String> {
    let mut args = vec![
        // Not 0: what a killed server forgets of InnoDB it must also forget of accounts and
        // definitions, which MariaDB keeps in files of their own.
        "--innodb-flush-log-at-trx-commit=2".to_owned(),
        "--max-allowed-packet=1G".to_owned(),
        "--transaction-isolation=READ-COMMITTED".to_owned(),
        "--performance-schema=OFF".to_owned(),
    ];
    if flavor == Flavor::MariaDb {
        args.push("--loose-slave-run-triggers-for-rbr=NO".to_owned());
    }
    args
}

/// What a replay waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Limit {
    /// The log is read, and its net change worked out.
    #[default]
    Log,
    /// The server applies net change.
    NetChange,
    /// The server applies rows of tables for which net change is not exact, in order; nothing else is left in the window.
    InOrder,
    /// The server applies transactions one by one.
    OneByOne,
    /// The server runs a definition, or a statement about accounts.
    Definition,
}

impl Limit {
    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Log => "reading the log",
            Self::NetChange => "the server applies net change",
            Self::InOrder => "the server applies rows in order",
            Self::OneByOne => "the server applies transactions one by one",
            Self::Definition => "the server runs a definition",
        }
    }
}

/// How far a replay is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// Transactions of the log that are behind us; the last few hundred may not be committed yet.
    pub transactions: u64,
    /// Their row changes.
    pub rows: u64,
    /// Bytes of log read.
    pub bytes: u64,
    /// The copy is as the source was at this commit time, microseconds of Unix time.
    pub consistent_through_micros: u64,
    /// Rows handed to the server so far: fewer than `rows` where net change is applied.
    pub written: u64,
    /// What is waited for now.
    pub limit: Limit,
    /// What was found out since the last call: tables that are replayed in order and why, and what it goes on without.
    pub notes: Vec<String>,
}

/// What a replay did.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Transactions applied by this call.
    pub applied: u64,
    /// Transactions that were applied before, by an earlier call.
    pub resumed_after: u64,
    /// Transactions that the base held already.
    pub in_base: u64,
    /// Everything that the copy now holds: base and log.
    pub gtids: GtidSet,
    /// MariaDB: the same by domain and server.
    pub binlog_state: MariaDbBinlogState,
    /// Rows that this call handed to the server: fewer than there are in the log where net change was applied.
    pub written: u64,
    /// What was in the range.
    pub summary: Summary,
    /// How each table was replayed; empty after a serial replay.
    pub classes: BTreeMap<TableKey, Class>,
    /// XA transactions that were prepared and neither committed nor rolled back where the log
    /// ends: they are prepared on the copy, too, for `XA COMMIT` or `XA ROLLBACK`.
    pub prepared: Vec<String>,
}

/// Applies the log to the server behind `conn`. May be killed at any moment; the same call
/// on a new connection goes on. Scan the range first ([`crate::scan::scan`]).
///
/// # Errors
/// Fails when the log can't be read, when something in it can't be replayed, and when the
/// server refuses what succeeded on the source.
pub fn replay(
    conn: &mut Conn,
    log: &dyn Log,
    options: &Options,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    Lead::open(conn, options, progress)?.run(log)
}

/// Makes a session one that applies rows. Tells whether the server is MariaDB.
pub(crate) fn prepare(conn: &mut Conn) -> Result<bool, Error> {
    let mariadb = conn.server().is_mariadb();
    conn.set_read_timeout(STATEMENT_MAX);
    let setup = || Error::server("preparing the session");
    conn.execute("SET SESSION sql_log_bin=0").map_err(setup())?;
    conn.execute("SET SESSION wait_timeout=31536000").map_err(setup())?;
    // An earlier call on this connection may have left it another's number.
    conn.execute(format!("SET SESSION pseudo_thread_id={}", conn.thread_id())).map_err(setup())?;
    if mariadb {
        conn.execute("SET SESSION pseudo_slave_mode=1").map_err(setup())?;
    } else if conn.server().numbers() >= (8, 0, 26) {
        conn.execute("SET SESSION pseudo_replica_mode=1").map_err(setup())?;
    } else {
        conn.execute("SET SESSION pseudo_slave_mode=1").map_err(setup())?;
    }
    Ok(mariadb)
}

/// Gives a session the log's format, as a BINLOG statement.
pub(crate) fn give_format(conn: &mut Conn, statement: &str) -> Result<(), Error> {
    conn.execute(statement).map_err(Error::server("giving it the format of the log"))?;
    if !conn.server().is_mariadb() {
        // MySQL takes a format description for the start of a replica's work and leaves the
        // session without a GTID to commit under: the next BEGIN would fail with 1782.
        conn.execute("SET SESSION gtid_next='AUTOMATIC'").map_err(Error::server("preparing the session"))?;
    }
    Ok(())
}
