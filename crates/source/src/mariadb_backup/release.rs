//! The server freed of a program that was killed while it waited for a lock.
//!
//! A server notices that a client is gone when it reads from it or writes to it. A session that waits for a backup lock
//! does neither: it goes on waiting, and whatever comes behind it in the queue for the lock waits with it (observed on
//! MariaDB 10.11: DDL stood still for as long as the statement before it ran). So the session has to be killed as well.

use std::thread;
use std::time::{Duration, Instant};

use holdfast_mysql::{Conn, ConnectOptions};

/// Longest wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How long the server is looked at: what the program sent last may only be on its way.
const LOOK_MAX: Duration = Duration::from_secs(5);

/// How often.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Kills the session that waits for a stage of a backup, if it is the only one of our account that does and is younger
/// than the session `after`: another backup's is left alone. An account may kill its own sessions without any grant.
/// Returns when no such session is left.
///
/// Best effort: the session ends by itself when its wait does.
pub(super) fn release(connect: &ConnectOptions, after: u32) {
    let Ok(mut conn) = Conn::connect(connect) else { return };
    conn.set_read_timeout(ANSWER_MAX);
    let deadline = Instant::now() + LOOK_MAX;
    let mut killed = false;
    while Instant::now() < deadline {
        // Not from information_schema, whose answer depends on the characters in other sessions' statements.
        let Ok(sessions) = conn.query("SHOW PROCESSLIST") else { return };
        let text = |row, column| sessions.text_by_name(row, column).unwrap_or_default();
        let id = |row| text(row, "Id").parse::<u32>().unwrap_or_default();
        let rows = 0..sessions.rows.len();
        let Some(us) = rows.clone().find(|row| id(*row) == conn.thread_id()) else { return };
        let younger: Vec<usize> = rows
            .filter(|row| *row != us && id(*row) > after && text(*row, "User") == text(us, "User"))
            .collect();
        if younger.is_empty() {
            return;
        }
        let waits = |row: usize| {
            text(row, "State").starts_with("Waiting") && text(row, "Info").starts_with("BACKUP STAGE ")
        };
        let mut waiting = younger.into_iter().filter(|row| waits(*row)).map(id);
        if let (false, Some(session), None) = (killed, waiting.next(), waiting.next()) {
            killed = true;
            // It may have ended at this very moment, which is what was wanted.
            let _ = conn.execute(format!("KILL {session}"));
        }
        thread::sleep(LOOK_EVERY);
    }
}
