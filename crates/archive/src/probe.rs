//! Up to which moment a log is complete: the source is asked for its clock, then for the end of its log.
//!
//! A server takes a transaction's commit time while it holds the lock of its log, and tells the end of the log under the
//! same lock. So whatever is committed before the clock was read lies before the end that it tells afterwards. Once
//! everything up to there is archived, the archive is complete up to that time: no later transaction has an earlier one.
//!
//! A source whose commits wait for us is asked more often, and asked whether they do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use holdfast_mysql::{Conn, ConnectOptions};

use crate::error::Result;
use crate::intake::file_number;

/// Between two questions.
const INTERVAL: Duration = Duration::from_secs(10);

/// Between two questions to a source whose commits wait for us.
const INTERVAL_SEMI_SYNC: Duration = Duration::from_secs(1);

/// Longest wait for an answer; a source that takes longer is asked again later.
const ANSWER_MAX: Duration = Duration::from_secs(5);

/// How often the wish to stop is looked at.
const TICK: Duration = Duration::from_millis(200);

/// What a source's clock said, between two moments here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Clock {
    /// Microseconds since the Unix epoch.
    pub us: i64,
    /// When it was asked.
    pub before: Instant,
    /// When the answer was here.
    pub after: Instant,
}

/// A clock may go so much faster or slower than time while somebody brings it in line, one part of so many.
const SLEW: u32 = 10;

/// That goes on for so long at most; of two answers that are further apart nobody knows what was done between them.
const SLEW_MAX: Duration = Duration::from_secs(60);

/// One part of so many is what a clock that nobody brings in line is off.
const DRIFT: u32 = 2000;

/// And so much besides.
const SLACK: Duration = Duration::from_millis(20);

/// How far a clock may be off after so long.
fn slack(passed: Duration) -> Duration {
    let near = passed.min(SLEW_MAX);
    SLACK + near / SLEW + (passed - near) / DRIFT
}

impl Clock {
    /// Asks a source.
    fn ask(conn: &mut Conn) -> Result<Option<Self>> {
        let clock = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
        let before = Instant::now();
        let now = conn.query_text(clock)?.and_then(|text| text.parse::<i64>().ok());
        Ok(now.map(|us| Self { us, before, after: Instant::now() }))
    }

    /// Did it go on from an earlier answer as time did? Otherwise somebody has set it, or may have: it is long ago.
    #[must_use]
    pub fn follows(&self, earlier: &Self) -> bool {
        let least = self.before.saturating_duration_since(earlier.after);
        let went = self.us.saturating_sub(earlier.us);
        let least = micros(least).saturating_sub(micros(slack(least)));
        let near = self.after.saturating_duration_since(earlier.before) <= SLEW_MAX;
        near && (least..=self.most_passed(earlier)).contains(&went)
    }

    /// The least that it can have said since an earlier answer, if it was set meanwhile and went on from there.
    #[must_use]
    pub fn least_since(&self, earlier: &Self) -> i64 {
        self.us.saturating_sub(self.most_passed(earlier))
    }

    /// The most that it can have said before it was set, at some time since an earlier answer.
    #[must_use]
    pub fn most_before(&self, earlier: &Self) -> i64 {
        earlier.us.saturating_add(self.most_passed(earlier))
    }

    fn most_passed(&self, earlier: &Self) -> i64 {
        let most = self.after.saturating_duration_since(earlier.before);
        micros(most + slack(most))
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

/// The end of a source's log, and the time up to which it is complete there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probe {
    /// The source's clock before all the rest was asked.
    pub asked: Clock,
    /// Every transaction with this commit time or an earlier one (microseconds since the Unix epoch, by the source's
    /// clock) lies before the end.
    pub complete_us: i64,
    /// The file that is being written.
    pub file: String,
    /// Its end.
    pub offset: u64,
    /// Whether its commits wait for a replica; `None`: not asked, or it can't say.
    pub waits: Option<Waits>,
}

/// How a source's commits wait for replicas (semi-synchronous replication).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waits {
    /// It waits now.
    pub on: bool,
    /// It waits before others can see the commit (`AFTER_SYNC`): what nobody has was never seen.
    pub before_commit: bool,
    /// Semi-synchronous replicas that are connected.
    pub replicas: u64,
    /// Replicas whose word it waits for.
    pub wanted: u64,
    /// Commits that went through without a replica's word, and times that it gave up waiting, since its start.
    pub gave_up: u64,
}

impl Waits {
    /// Does no commit get through without our word?
    #[must_use]
    pub fn is_for_us(&self) -> bool {
        self.on && self.before_commit && self.replicas > 0 && self.wanted >= self.replicas
    }

    /// Asks. `None` if the server knows nothing of it.
    pub fn ask(conn: &mut Conn) -> Result<Option<Self>> {
        let mut told = HashMap::new();
        for statement in
            ["SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_%'", "SHOW GLOBAL VARIABLES LIKE 'rpl_semi_sync_%'"]
        {
            let rows = match conn.query(statement) {
                Ok(rows) => rows,
                Err(error) if error.code().is_some() => return Ok(None),
                Err(error) => return Err(error.into()),
            };
            for row in 0..rows.rows.len() {
                if let (Some(name), Some(value)) = (rows.text(row, 0), rows.text(row, 1)) {
                    // The names before MySQL 8.0.26, and those of MariaDB, say "master".
                    told.insert(name.to_lowercase().replace("_master_", "_source_"), value);
                }
            }
        }
        let told = |name: &str| told.get(&format!("rpl_semi_sync_source_{name}"));
        let number = |name: &str| told(name).and_then(|text| text.parse::<u64>().ok());
        let (Some(status), Some(point)) = (told("status"), told("wait_point")) else { return Ok(None) };
        let (Some(replicas), Some(no_tx), Some(no_times)) =
            (number("clients"), number("no_tx"), number("no_times"))
        else {
            return Ok(None);
        };
        Ok(Some(Self {
            on: status == "ON",
            before_commit: point.eq_ignore_ascii_case("AFTER_SYNC"),
            replicas,
            // MariaDB waits for one.
            wanted: number("wait_for_replica_count").or(number("wait_for_slave_count")).unwrap_or(1),
            gave_up: no_tx + no_times,
        }))
    }
}

impl Probe {
    /// Asks; `semi_sync`: also whether its commits wait. `None` if the source does not tell: the account lacks the right,
    /// or the log is off.
    pub fn ask(conn: &mut Conn, semi_sync: bool) -> Result<Option<Self>> {
        let asked = Clock::ask(conn)?;
        let waits = if semi_sync { Waits::ask(conn)? } else { None };
        let end = end_of_log(conn)?;
        let (Some(asked), Some((file, offset))) = (asked, end) else { return Ok(None) };
        let now = asked.us;
        // MariaDB's log has whole seconds, so this one may go on.
        let complete_us = if conn.server().is_mariadb() { now - now.rem_euclid(1_000_000) } else { now } - 1;
        Ok(Some(Self { asked, complete_us, file, offset, waits }))
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
pub(crate) fn ask_again(
    connect: ConnectOptions,
    semi_sync: bool,
    probes: Sender<Probe>,
    halt: Arc<AtomicBool>,
) {
    let mut options = connect;
    options.read_timeout = ANSWER_MAX;
    let mut conn: Option<Conn> = None;
    loop {
        let wake = Instant::now() + if semi_sync { INTERVAL_SEMI_SYNC } else { INTERVAL };
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
        match Probe::ask(&mut open, semi_sync) {
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
        let now = Instant::now();
        let asked = Clock { us: 0, before: now, after: now };
        let probe = Probe { asked, complete_us: 0, file: "b.000009".into(), offset: 100, waits: None };
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
