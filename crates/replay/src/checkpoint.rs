//! What is applied, kept in the restored server itself, in the same transactions as the rows.
//!
//! Schema `__holdfast`, table `replay`, one row: the plan, the boot of the host, how many
//! transactions of the log are applied (and how many row events of the next one), the statement
//! that is under way, the window of net change that is under way and the tables that are
//! replayed in order although net change was tried. Table `chunk`: the chunks of that
//! window which are committed.

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
    /// Row events of the transaction behind them that are applied too: a window of net change
    /// may end inside a transaction that does not fit into memory.
    pub inside: u64,
    /// A statement that was begun, and what it was about before it.
    pub intent: Option<Intent>,
    /// A window of net change that was begun.
    pub window: Option<WindowNote>,
    /// Tables that are not replayed as net change although it was tried: what `net` wrote.
    pub ordered: Vec<u8>,
}

/// A window of net change under way: from the checkpoint to here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WindowNote {
    /// Transactions before its end.
    pub until: u64,
    /// Row events of the next one that belong to it.
    pub inside: u64,
    /// A number that another plan for the same stretch would not have.
    pub print: u64,
    /// Bytes in a chunk.
    pub chunk_bytes: u64,
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
    take_lock(conn, LOCK)?;
    // Its appliers too. Whoever comes later starts none before it has the lock above.
    for number in 0..APPLIERS_MAX {
        let lock = applier_lock(number);
        let used = format!("SELECT IS_USED_LOCK('{lock}')");
        if conn.query_text(used).map_err(Error::server("looking for an earlier replay"))?.is_some() {
            take_lock(conn, &lock)?;
            conn.execute(format!("DO RELEASE_LOCK('{lock}')"))
                .map_err(Error::server("looking for an earlier replay"))?;
        }
    }
    Ok(())
}

/// Most appliers of one replay.
pub(crate) const APPLIERS_MAX: usize = 64;

/// Name of the lock that an applier's session holds for as long as it lives.
pub(crate) fn applier_lock(number: usize) -> String {
    format!("{LOCK}.{number}")
}

/// Takes a lock; kills the session that has it.
pub(crate) fn take_lock(conn: &mut Conn, lock: &str) -> Result<(), Error> {
    let doing = || Error::server("looking for an earlier replay");
    let held = conn
        .query_text(format!(
            "SELECT IF(IS_USED_LOCK('{lock}') = CONNECTION_ID(), NULL, IS_USED_LOCK('{lock}'))"
        ))
        .map_err(doing())?;
    if let Some(id) = &held {
        match conn.execute(format!("KILL {id}")) {
            // It ended by itself.
            Ok(_) | Err(holdfast_mysql::Error::Server(_)) => {}
            Err(source) => return Err(doing()(source)),
        }
    }
    let got = conn.query_text(format!("SELECT GET_LOCK('{lock}', {END_MAX_SECONDS})")).map_err(doing())?;
    if got.as_deref() == Some("1") { Ok(()) } else { Err(Error::StillRunning(held.unwrap_or_default())) }
}

/// Reads the checkpoint, or makes it on a copy that has none, to which `done` transactions of the log are applied.
///
/// # Errors
/// Fails when the copy was half replayed for another plan or before the host was started anew.
pub fn open(conn: &mut Conn, plan: &str, boot: &str, done: u64) -> Result<Checkpoint, Error> {
    let doing = || Error::server("reading the checkpoint");
    let found = conn
        .query(format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{SCHEMA}' AND table_name IN ('replay', 'chunk')"
        ))
        .map_err(doing())?;
    if found.text(0, 0).as_deref() != Some("2") {
        create(conn)?;
    }
    let row = conn
        .query(format!(
            "SELECT plan, boot, done, intent, intent_before, inside, window_until, window_inside, window_print, \
             window_chunk, ordered FROM {SCHEMA}.replay WHERE id = 1"
        ))
        .map_err(doing())?;
    let text = |column| row.value(0, column).map(|v| String::from_utf8_lossy(v).into_owned());
    let Some(found) = text(0) else {
        conn.execute(format!(
            "INSERT INTO {SCHEMA}.replay (id, plan, boot, done, ordered) VALUES (1, {}, {}, {done}, '')",
            sql::hex(plan.as_bytes()),
            sql::hex(boot.as_bytes())
        ))
        .map_err(doing())?;
        return Ok(Checkpoint { done, ..Checkpoint::default() });
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
    let window = number(6).map(|until| WindowNote {
        until,
        inside: number(7).unwrap_or(0),
        print: number(8).unwrap_or(0),
        chunk_bytes: number(9).unwrap_or(0),
    });
    Ok(Checkpoint {
        done: number(2).unwrap_or(0),
        inside: number(5).unwrap_or(0),
        intent,
        window,
        ordered: row.value(0, 10).unwrap_or_default().to_vec(),
    })
}

/// How far a replay under way came on this copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Applied {
    /// Transactions of the log that are applied (or found in the base).
    pub done: u64,
    /// Transactions of which something may be applied: a window of net change is not done in the log's order.
    pub touched: u64,
}

/// What a replay under way has applied to this copy; none where none is under way.
///
/// # Errors
/// Fails when the server does.
pub fn applied(conn: &mut Conn) -> Result<Option<Applied>, Error> {
    let doing = || Error::server("reading the checkpoint");
    let found = conn
        .query_text(format!(
            "SELECT COUNT(*) FROM information_schema.tables WHERE table_schema = '{SCHEMA}' AND table_name = 'replay'"
        ))
        .map_err(doing())?;
    if found.as_deref() == Some("0") {
        return Ok(None);
    }
    let row = conn
        .query(format!(
            "SELECT done, GREATEST(done + (inside > 0), COALESCE(window_until + (window_inside > 0), 0)) \
             FROM {SCHEMA}.replay WHERE id = 1"
        ))
        .map_err(doing())?;
    let number = |column| row.text(0, column).and_then(|text| text.parse().ok());
    Ok(number(0).zip(number(1)).map(|(done, touched)| Applied { done, touched }))
}

fn create(conn: &mut Conn) -> Result<(), Error> {
    let doing = || Error::server("making the checkpoint");
    conn.execute(format!("CREATE SCHEMA IF NOT EXISTS {SCHEMA}")).map_err(doing())?;
    conn.execute(format!(
        "CREATE TABLE IF NOT EXISTS {SCHEMA}.replay (\
         id TINYINT NOT NULL PRIMARY KEY, plan VARBINARY(4096) NOT NULL, boot VARBINARY(64) NOT NULL, \
         done BIGINT UNSIGNED NOT NULL, intent BIGINT UNSIGNED NULL, intent_before LONGBLOB NULL, \
         inside BIGINT UNSIGNED NOT NULL DEFAULT 0, window_until BIGINT UNSIGNED NULL, \
         window_inside BIGINT UNSIGNED NULL, window_print BIGINT UNSIGNED NULL, window_chunk BIGINT UNSIGNED NULL, \
         ordered LONGBLOB NULL) ENGINE=InnoDB"
    ))
    .map_err(doing())?;
    conn.execute(format!(
        "CREATE TABLE IF NOT EXISTS {SCHEMA}.chunk (id INT UNSIGNED NOT NULL PRIMARY KEY) ENGINE=InnoDB"
    ))
    .map_err(doing())?;
    Ok(())
}

/// The statement that notes that everything up to a place is applied, and no window is under way.
pub(crate) fn advance_inside(done: u64, inside: u64) -> String {
    format!(
        "UPDATE {SCHEMA}.replay SET done={done}, inside={inside}, intent=NULL, intent_before=NULL, \
         window_until=NULL, window_inside=NULL, window_print=NULL, window_chunk=NULL WHERE id=1"
    )
}

/// Notes that a window is about to be applied.
pub(crate) fn note_window(conn: &mut Conn, note: &WindowNote) -> Result<(), Error> {
    conn.execute(format!(
        "UPDATE {SCHEMA}.replay SET window_until={}, window_inside={}, window_print={}, window_chunk={} WHERE id=1",
        note.until, note.inside, note.print, note.chunk_bytes
    ))
    .map_err(Error::server("noting a window"))?;
    Ok(())
}

/// Forgets a window of which nothing is committed, and notes the tables that are to be replayed in order.
pub(crate) fn step_down(conn: &mut Conn, ordered: &[u8]) -> Result<(), Error> {
    conn.execute(format!(
        "UPDATE {SCHEMA}.replay SET window_until=NULL, window_inside=NULL, window_print=NULL, window_chunk=NULL, \
         ordered={} WHERE id=1",
        sql::hex(ordered)
    ))
    .map_err(Error::server("noting a table"))?;
    Ok(())
}

/// The statement that notes a chunk; for the chunk's own transaction.
pub(crate) fn mark_chunk(chunk: u32) -> String {
    format!("INSERT INTO {SCHEMA}.chunk VALUES ({chunk})")
}

/// The chunks of the window under way that are committed.
pub(crate) fn chunks(conn: &mut Conn) -> Result<std::collections::HashSet<u32>, Error> {
    let mut out = std::collections::HashSet::new();
    conn.query_each::<holdfast_mysql::Error>(format!("SELECT id FROM {SCHEMA}.chunk"), |row| {
        out.extend(row.text(0).and_then(|text| text.parse::<u32>().ok()));
        Ok(())
    })
    .map_err(Error::server("reading the checkpoint"))?;
    Ok(out)
}

/// The statement that forgets the chunks of a window that is done.
pub(crate) fn forget_chunks() -> String {
    format!("DELETE FROM {SCHEMA}.chunk")
}

/// The statement that notes `done` transactions; for the transaction of the last one.
pub(crate) fn advance(done: u64) -> String {
    format!("UPDATE {SCHEMA}.replay SET done={done}, inside=0, intent=NULL, intent_before=NULL WHERE id=1")
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
