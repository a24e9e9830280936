//! The server freed of a program that was killed while it waited for a lock.
//!
//! A server notices that a client is gone when it reads from it or writes to it. A session that waits for a backup lock
//! does neither: it goes on waiting, and whatever comes behind it in the queue for the lock waits with it (observed on
//! MariaDB 10.11: DDL stood still for as long as the statement before it ran). So the session has to be killed as well.

use std::time::Duration;

use holdfast_mysql::{Conn, ConnectOptions};

/// Longest wait for an answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// Kills the session that waits for a stage of a backup, if it is the only one of our account that does and is younger
/// than the session `after`: another backup's is left alone. An account may kill its own sessions without any grant.
///
/// Best effort: the session ends by itself when its wait does.
pub(super) fn release(connect: &ConnectOptions, after: u32) {
    let Ok(mut conn) = Conn::connect(connect) else { return };
    conn.set_read_timeout(ANSWER_MAX);
    let waiting = format!(
        "SELECT id FROM information_schema.processlist WHERE id > {after} AND info LIKE 'BACKUP STAGE %' \
         AND state LIKE 'Waiting%' AND user = SUBSTRING_INDEX(USER(), '@', 1)"
    );
    let Ok(sessions) = conn.query(waiting) else { return };
    if let (1, Some(session)) = (sessions.rows.len(), sessions.text(0, 0)) {
        // It may have ended at this very moment, which is what was wanted.
        let _ = conn.execute(format!("KILL {session}"));
    }
}
