//! What is applied, kept in the restored server itself, in the same transactions as the rows.
//!
//! Schema `__holdfast`, table `replay`, one row: the plan, the boot of the host, how many
//! transactions of the log are applied, and the statement that is under way.

use holdfast_mysql::Conn;

use crate::error::Error;
use crate::sql;

/// Our schema on the restored server; dropped at the end.
pub const SCHEMA: &str = "__holdfast";

/// What the restored server says about a replay on it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// Transactions of the log that are applied (or found in the base already).
    pub done: u64,
    /// A statement that was begun, and what it was about before it.
    pub intent: Option<Intent>,
}

/// A DDL statement under way. It commits by itself, so it can't be in one transaction with
/// the checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its number: transactions before it.
    pub number: u64,
    /// The definitions of the tables that it names, before it ran.
    pub before: Vec<u8>,
}

/// Name of the lock that a replay's session holds for as long as it lives.
const LOCK: &str = "holdfast_replay";

/// How long an earlier replay's session may take to end after it is killed: rolling back a
/// transaction takes about as long as it took to apply.
const END_MAX_SECONDS: u32 = 600;

/// Makes sure that no session of an earlier replay is left on the server. One whose client
/// was killed may still run its last statement and commit it, behind our back.
///
/// # Errors
/// Fails when such a session does not end.
pub(crate) fn alone(conn: &mut Conn) -> Result<(), Error> {
    let doing = || Error::server("looking for an earlier replay");
    let held = conn
        .query_text(format!(
            "SELECT IF(IS_USED_LOCK('{LOCK}') = CONNECTION_ID(), NULL, IS_USED_LOCK('{LOCK}'))"
        ))
        .map_err(doing())?;
    if let Some(id) = &held {
        match conn.execute(format!("KILL {id}")) {
            // It ended by itself.
            Ok(_) | Err(holdfast_mysql::Error::Server(_)) => {}
            Err(source) => return Err(doing()(source)),
        }
    }
    let got = conn.query_text(format!("SELECT GET_LOCK('{LOCK}', {END_MAX_SECONDS})")).map_err(doing())?;
    if got.as_deref() == Some("1") { Ok(()) } else { Err(Error::StillRunning(held.unwrap_or_default())) }
}

/// Reads the checkpoint, or makes it on a fresh copy.
///
/// # Errors
/// Fails when the copy was half replayed for another plan or before the host was started anew.
pub fn open(conn: &mut Conn, plan: &str, boot: &str) -> Result<Checkpoint, Error> {
    let doing = || Error::server("reading the checkpoint");
    let found = conn
        .query(format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{SCHEMA}' AND table_name = 'replay'"
        ))
        .map_err(doing())?;
    if found.text(0, 0).as_deref() == Some("0") {
        create(conn)?;
    }
    let row = conn
        .query(format!("SELECT plan, boot, done, intent, intent_before FROM {SCHEMA}.replay WHERE id = 1"))
        .map_err(doing())?;
    let text = |column| row.value(0, column).map(|v| String::from_utf8_lossy(v).into_owned());
    let Some(found) = text(0) else {
        conn.execute(format!(
            "INSERT INTO {SCHEMA}.replay (id, plan, boot, done) VALUES (1, {}, {}, 0)",
            sql::hex(plan.as_bytes()),
            sql::hex(boot.as_bytes())
        ))
        .map_err(doing())?;
        return Ok(Checkpoint::default());
    };
    if found != plan {
        return Err(Error::OtherPlan { found, wanted: plan.to_owned() });
    }
    if text(1).as_deref() != Some(boot) {
        return Err(Error::HostRestarted);
    }
    let number = |column| text(column).and_then(|n| n.parse::<u64>().ok());
    let intent =
        number(3).map(|number| Intent { number, before: row.value(0, 4).unwrap_or_default().to_vec() });
    Ok(Checkpoint { done: number(2).unwrap_or(0), intent })
}

fn create(conn: &mut Conn) -> Result<(), Error> {
    let doing = || Error::server("making the checkpoint");
    conn.execute(format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}")).map_err(doing())?;
    conn.execute(format!(
        "CREATE TABLE IF NOT EXISTS {SCHEMA}.replay (\
         id TINYINT NOT NULL PRIMARY KEY, plan VARBINARY(4096) NOT NULL, boot VARBINARY(64) NOT NULL, \
         done BIGINT UNSIGNED NOT NULL, intent BIGINT UNSIGNED NULL, intent_before LONGBLOB NULL) ENGINE=InnoDB"
    ))
    .map_err(doing())?;
    Ok(())
}

/// The statement that notes `done` transactions; for the transaction of the last one.
pub(crate) fn advance(done: u64) -> String {
    format!("UPDATE {SCHEMA}.replay SET done={done}, intent=NULL, intent_before=NULL WHERE id=1")
}

/// Notes that the statement behind `number` transactions is about to run.
pub(crate) fn intend(conn: &mut Conn, intent: &Intent) -> Result<(), Error> {
    conn.execute(format!(
        "UPDATE {SCHEMA}.replay SET intent={}, intent_before={} WHERE id=1",
        intent.number,
        sql::hex(&intent.before)
    ))
    .map_err(Error::server("noting a statement"))?;
    Ok(())
}

/// Removes every trace of the replay.
pub(crate) fn remove(conn: &mut Conn) -> Result<(), Error> {
    conn.execute(format!("DROP SCHEMA IF EXISTS {SCHEMA}"))
        .map_err(Error::server("removing the checkpoint"))?;
    Ok(())
}
