//! Up to which moment a log is complete: the source is asked for its clock, then for the end of its log.
//!
//! A server takes a transaction's commit time while it holds the lock of its log, and tells the end of the log under the
//! same lock. So whatever is committed before the clock was read lies before the end that it tells afterwards. Once
//! everything up to there is archived, the archive is complete up to that time: no later transaction has an earlier one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use holdfast_mysql::{Conn, ConnectOptions};

use crate::error::Result;
use crate::intake::file_number;

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(10);

/// Longest wait for an answer; a source that takes longer is asked again later.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How often the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// The end of a source's log, and the time up to which it is complete there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// Every transaction with this commit time or an earlier one (microseconds since the Unix epoch, by the source's
    /// clock) lies before the end.
    pub complete_us: i64,
    /// The file that is being written.
    pub file: String,
    /// Its end.
    pub offset: u64,
}

impl Probe {
    /// Asks. `None` if the source does not tell: the account lacks the right, or the log is off.
    pub fn ask(conn: &mut Conn) -> Result<Option<Self>> {
        let clock = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
        let now = conn.query_text(clock)?.and_then(|text| text.parse::<i64>().ok());
        let end = end_of_log(conn)?;
        let (Some(now), Some((file, offset))) = (now, end) else { return Ok(None) };
        // MariaDB's log has whole seconds, so this one may go on.
        let complete_us = if conn.server().is_mariadb() { now - now.rem_euclid(1_000_000) } else { now } - 1;
        Ok(Some(Self { complete_us, file, offset }))
    }

    /// Does a place between two transactions lie at the end that was told, or behind it?
    #[must_use]
    pub fn is_reached(&self, file: &str, offset: u64) -> bool {
        match (file_number(file), file_number(&self.file)) {
            (Some(here), Some(end)) => (here, offset) >= (end, self.offset),
            _ => false,
        }
    }
}

/// File and offset at which a source's log ends now; `None` if it does not tell.
pub fn end_of_log(conn: &mut Conn) -> Result<Option<(String, u64)>> {
    let new_words = !conn.server().is_mariadb() && conn.server().numbers() >= (8, 2, 0);
    let statement = if new_words { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let rows = match conn.query(statement) {
        Ok(rows) => rows,
        Err(error) if error.code().is_some() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let offset = rows.text(0, 1).and_then(|text| text.parse().ok());
    Ok(rows.text(0, 0).zip(offset))
}

/// Asks again and again on a connection of its own, until told to stop or nobody listens. It gives up in silence: what is
/// archived is no worse without.
pub(crate) fn ask_again(connect: ConnectOptions, probes: Sender<Probe>, halt: Arc<AtomicBool>) {
    let mut options = connect;
    options.read_timeout = ANSWER_MAX;
    let mut conn: Option<Conn> = None;
    loop {
        let wake = Instant::now() + INTERVAL;
        while Instant::now() < wake {
            if halt.load(Ordering::Relaxed) {
                return;
            }
            std::thread::sleep(TICK);
        }
        let mut open = match conn.take().map_or_else(|| Conn::connect(&options), Ok) {
            Ok(open) => open,
            Err(error) if error.is_network() => continue,
            Err(_) => return,
        };
        match Probe::ask(&mut open) {
            Ok(Some(probe)) => {
                conn = Some(open);
                // The one before was not looked at yet: it says as much.
                if matches!(probes.try_send(probe), Err(crossbeam_channel::TrySendError::Disconnected(_))) {
                    return;
                }
            }
            Ok(None) => return,
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_reached_in_its_file_or_a_later_one() {
        let probe = Probe { complete_us: 0, file: "b.000009".into(), offset: 100 };
        for (file, offset, yes) in [
            ("b.000009", 99, false),
            ("b.000009", 100, true),
            ("b.000010", 4, true),
            ("b.000008", 500, false),
        ] {
            assert_eq!(probe.is_reached(file, offset), yes, "{file}:{offset}");
        }
    }
}
