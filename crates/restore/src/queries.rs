//! The user's own check queries: asked of the restored server as the last part of the proof.
//!
//! Each runs on a connection of its own, as an account that may read and nothing else, in a session whose transactions
//! are read only, on a server that is read only meanwhile, for a limited time. The server listens on no network, and is in none
//! where the kernel grants that (`engine/src/server.rs`). What is left: a stored routine runs with its definer's
//! privileges, and one whose definer may administer the server can switch all of this off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_engine::PrivateServer;
use holdfast_engine::account::{self, OneTimeAccount};
use holdfast_mysql::{Conn, Flavor};
use serde::Serialize;

use crate::error::Result;
use crate::report::{Check, Verdict};

/// Name of the check in the report.
pub const CHECK: &str = "check-queries";

/// Columns of the first row that the report keeps.
const COLUMNS_KEPT: usize = 16;
/// Characters of each value that it keeps.
const CHARACTERS_KEPT: usize = 200;
/// How often it is looked whether a query's time is over.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The server is told to end a query by itself at its limit; so much later nobody waits for that any more.
const GRACE: Duration = Duration::from_secs(2);

/// How a figure is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Equal,
    /// `!=`
    Other,
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `>`
    More,
    /// `>=`
    AtLeast,
}

impl Compare {
    /// As it is written.
    #[must_use]
    pub fn sign(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::Other => "!=",
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::More => ">",
            Self::AtLeast => ">=",
        }
    }

    fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::Other => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::AtMost => order.is_le(),
            Self::More => order.is_gt(),
            Self::AtLeast => order.is_ge(),
        }
    }
}

/// What a query is to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expect {
    /// Anything, without an error.
    Runs,
    /// So many rows.
    Rows(Compare, u64),
    /// One row, whose first value compares so. `None` is NULL.
    Value(Compare, Option<String>),
}

impl std::fmt::Display for Expect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Runs => f.write_str("it runs"),
            Self::Rows(how, count) => write!(f, "rows {} {count}", how.sign()),
            Self::Value(how, value) => write!(f, "{} {}", how.sign(), value.as_deref().unwrap_or("NULL")),
        }
    }
}

impl Expect {
    /// What is wrong with what came, if anything.
    fn complaint(&self, came: &Came) -> Option<String> {
        match self {
            Self::Runs => None,
            Self::Rows(how, count) if how.holds(came.rows.cmp(count)) => None,
            Self::Rows(..) => Some(format!("gave {} rows, and {self} is expected", came.rows)),
            Self::Value(..) if came.rows != 1 => {
                Some(format!("gave {} rows, and one with a value {self} is expected", came.rows))
            }
            Self::Value(how, wanted) => {
                let got = came.first.first().and_then(Option::as_deref);
                let right = compared(got, wanted.as_deref(), *how);
                (!right).then(|| format!("gave {}, and {self} is expected", shown(got)))
            }
        }
    }
}

/// Whether a value is so to another one. Two numbers are compared as numbers; texts are equal or not, and neither is more
/// than the other; NULL equals NULL only.
fn compared(got: Option<&str>, wanted: Option<&str>, how: Compare) -> bool {
    let order = match (got, wanted) {
        (Some(got), Some(wanted)) if got == wanted => Some(std::cmp::Ordering::Equal),
        (Some(got), Some(wanted)) => match (Decimal::of(got), Decimal::of(wanted)) {
            (Some(got), Some(wanted)) => Some(got.order(&wanted)),
            _ => match (got.parse::<f64>(), wanted.parse::<f64>()) {
                (Ok(got), Ok(wanted)) => got.partial_cmp(&wanted),
                _ => None,
            },
        },
        (None, None) => Some(std::cmp::Ordering::Equal),
        _ => None,
    };
    match (order, how) {
        (Some(order), how) => how.holds(order),
        (None, how) => how == Compare::Other,
    }
}

/// A number as it is written, without an exponent: a sum of money has more digits than a double tells apart.
#[derive(Debug)]
struct Decimal<'a> {
    negative: bool,
    /// Digits before the point, without zeros in front.
    whole: &'a str,
    /// Digits behind it, without zeros at the end.
    parts: &'a str,
}

impl<'a> Decimal<'a> {
    fn of(text: &'a str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let (whole, parts) = digits.split_once('.').unwrap_or((digits, ""));
        let is_number = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && parts.is_empty()) || !is_number(whole) || !is_number(parts) {
            return None;
        }
        let (whole, parts) = (whole.trim_start_matches('0'), parts.trim_end_matches('0'));
        Some(Self { negative: negative && !(whole.is_empty() && parts.is_empty()), whole, parts })
    }

    fn order(&self, other: &Self) -> std::cmp::Ordering {
        let size = |of: &Self| (of.whole.len(), of.whole.to_owned(), of.parts.to_owned());
        match (self.negative, other.negative) {
            (false, false) => size(self).cmp(&size(other)),
            (true, true) => size(other).cmp(&size(self)),
            (negative, _) => {
                if negative {
                    std::cmp::Ordering::Less
                } else {
                    std::cmp::Ordering::Greater
                }
            }
        }
    }
}

fn shown(value: Option<&str>) -> String {
    value.map_or_else(
        || "NULL".to_owned(),
        |text| {
            // A row may hold what a terminal takes for orders.
            let plain = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
            format!("'{}'", text.chars().take(CHARACTERS_KEPT).map(plain).collect::<String>())
        },
    )
}

/// A query, and what it is to give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckQuery {
    /// What it is called in the report.
    pub name: String,
    /// One statement.
    pub sql: String,
    /// What it is to give.
    pub expect: Expect,
}

/// The queries of a restore.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queries {
    /// In the order in which they are asked.
    pub all: Vec<CheckQuery>,
    /// Longest time of each.
    pub limit: Duration,
    /// Whether what came stands in the words of a failure, too, and not in the report alone: those words go into jobs,
    /// alerts and mails.
    pub told: bool,
}

impl Default for Queries {
    fn default() -> Self {
        Self { all: Vec::new(), limit: Duration::from_secs(60), told: true }
    }
}

/// What came of a query.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Answer {
    /// What it is called.
    pub name: String,
    /// The statement.
    pub sql: String,
    /// What was expected, in words.
    pub expected: String,
    /// `ok` or `failed`.
    pub verdict: Verdict,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
    /// Rows that came.
    pub rows: u64,
    /// The first row: its first values, each cut where it is long; NULL is `null`.
    pub first_row: Vec<Option<String>>,
    /// How long it took.
    pub seconds: f64,
}

/// Rows of a query, as far as they are kept.
#[derive(Debug, Default)]
struct Came {
    rows: u64,
    first: Vec<Option<String>>,
}

/// Asks all of them. `moment_us` is when the server was as it is now (microseconds since 1970): NOW() says so.
pub(crate) fn ask(
    server: &PrivateServer,
    conn: &mut Conn,
    queries: &Queries,
    moment_us: Option<i64>,
    go_on: &(dyn Fn() -> bool + Sync),
) -> Result<(Check, Vec<Answer>)> {
    let reader = Reader { server, account: OneTimeAccount::generate()?, limit: queries.limit, moment_us };
    reader.make(conn)?;
    let locked = ReadOnly::set(conn);
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    for query in &queries.all {
        if !go_on() {
            break;
        }
        let began = Instant::now();
        let mut came = Came::default();
        let failure = match reader.ask(conn, &query.sql, &mut came, go_on) {
            Ok(()) => query.expect.complaint(&came).map(|why| (why, "did not give what is expected")),
            Err(Trouble::Server(why)) => Some((why, "failed")),
            Err(Trouble::Own(why)) => Some((why, "")),
        };
        if let Some((why, short)) = &failure {
            let why = if queries.told || short.is_empty() { why.as_str() } else { short };
            failures.push(format!("the query '{}' {why}", query.name));
        }
        answers.push(Answer {
            name: query.name.clone(),
            sql: query.sql.clone(),
            expected: query.expect.to_string(),
            verdict: if failure.is_some() { Verdict::Failed } else { Verdict::Ok },
            failure: failure.map(|(why, _)| why),
            rows: came.rows,
            first_row: came.first,
            seconds: began.elapsed().as_secs_f64(),
        });
    }
    let more = match locked {
        Ok(locked) => {
            locked.put_back(conn)?;
            String::new()
        }
        Err(error) => format!("; the server could not be made read only meanwhile: {error}"),
    };
    account::drop_accounts(conn, std::slice::from_ref(&reader.account.user))?;
    let detail = format!("{} queries of the user's own were asked{more}", answers.len());
    Ok((Check::new(CHECK, detail, failures, Vec::new()), answers))
}

/// The server's own read-only switch, for as long as queries are asked: a stored routine whose definer may write can leave
/// the session's.
struct ReadOnly {
    /// What to set at the end, in order.
    before: Vec<(&'static str, bool)>,
}

impl ReadOnly {
    /// Sets it; what is prepared and not committed is waited for, but not for long.
    fn set(conn: &mut Conn) -> holdfast_mysql::Result<Self> {
        let names: &[&'static str] = match conn.server().flavor {
            Flavor::MySql => &["super_read_only", "read_only"],
            Flavor::MariaDb => &["read_only"],
        };
        let mut before = Vec::new();
        for name in names {
            let was = conn.query_text(format!("SELECT @@GLOBAL.{name}"))?;
            before.push((*name, was.is_some_and(|was| !matches!(was.as_str(), "0" | "OFF"))));
        }
        let strongest = names.first().copied().unwrap_or("read_only");
        conn.execute("SET SESSION lock_wait_timeout = 10")?;
        let set = conn.execute(format!("SET GLOBAL {strongest} = 1"));
        conn.execute("SET SESSION lock_wait_timeout = DEFAULT")?;
        set.map(|_| Self { before })
    }

    /// As it was.
    fn put_back(self, conn: &mut Conn) -> holdfast_mysql::Result<()> {
        for (name, was) in self.before {
            conn.execute(format!("SET GLOBAL {name} = {}", u8::from(was)))?;
        }
        Ok(())
    }
}

/// Why nothing came of a query: a sentence's end.
enum Trouble {
    /// In the server's words, which may have values of rows in them.
    Server(String),
    /// In ours.
    Own(String),
}

/// An account that may read.
struct Reader<'a> {
    server: &'a PrivateServer,
    account: OneTimeAccount,
    limit: Duration,
    moment_us: Option<i64>,
}

impl Reader<'_> {
    /// Makes it. Should we die, the next start of a private server on the folder drops it.
    fn make(&self, conn: &mut Conn) -> Result<()> {
        let user = &self.account.user;
        let password = String::from_utf8_lossy(self.account.password.expose()).into_owned();
        conn.execute("SET SESSION sql_log_bin = 0")?;
        conn.execute(format!("CREATE USER '{user}'@'localhost' IDENTIFIED BY '{password}'"))?;
        conn.execute(format!(
            "GRANT SELECT, SHOW DATABASES, SHOW VIEW, EXECUTE, PROCESS ON *.* TO '{user}'@'localhost'"
        ))?;
        Ok(())
    }

    /// Asks one query on a connection of its own.
    fn ask(
        &self,
        root: &mut Conn,
        sql: &str,
        came: &mut Came,
        go_on: &(dyn Fn() -> bool + Sync),
    ) -> std::result::Result<(), Trouble> {
        let told = |error: holdfast_mysql::Error| match error {
            holdfast_mysql::Error::Server(said) => Trouble::Server(format!("failed: {said}")),
            other => Trouble::Own(format!("failed: {other}")),
        };
        let mut conn =
            self.session().map_err(|error| Trouble::Own(format!("could not be asked: {error}")))?;
        let began = Instant::now();
        let (interrupter, thread) = (conn.interrupter(), conn.thread_id());
        let (ended, cut_off) = (AtomicBool::new(false), AtomicBool::new(false));
        let outcome = std::thread::scope(|scope| {
            let watch = scope.spawn(|| {
                while !ended.load(Ordering::Acquire) {
                    if began.elapsed() > self.limit + GRACE || !go_on() {
                        cut_off.store(true, Ordering::Release);
                        interrupter.interrupt();
                        return;
                    }
                    std::thread::park_timeout(LOOK_EVERY);
                }
            });
            let outcome = conn.query_each(sql, |row| {
                came.rows += 1;
                if came.rows == 1 {
                    let cut = |text: String| text.chars().take(CHARACTERS_KEPT).collect();
                    came.first =
                        (0..row.values().len().min(COLUMNS_KEPT)).map(|at| row.text(at).map(cut)).collect();
                }
                Ok::<(), holdfast_mysql::Error>(())
            });
            ended.store(true, Ordering::Release);
            watch.thread().unpark();
            outcome
        });
        let too_long = || Trouble::Own(format!("did not end within {} s", self.limit.as_secs_f64()));
        if cut_off.load(Ordering::Acquire) {
            // It may have ended meanwhile, which is what was wanted.
            let _ = root.execute(format!("KILL CONNECTION {thread}"));
            return Err(if go_on() { too_long() } else { Trouble::Own("was called off".to_owned()) });
        }
        match outcome {
            Ok(_) if began.elapsed() > self.limit => Err(too_long()),
            Ok(_) => Ok(()),
            Err(_) if began.elapsed() >= self.limit => Err(too_long()),
            Err(error) => Err(told(error)),
        }
    }

    /// A session that reads, for so long, with the time of the copy.
    fn session(&self) -> holdfast_engine::Result<Conn> {
        let mut conn = self.server.connect_as(&self.account.user, Some(self.account.password.clone()))?;
        conn.set_read_timeout(self.limit + 2 * GRACE);
        conn.execute("SET NAMES utf8mb4")?;
        conn.execute("SET SESSION TRANSACTION READ ONLY")?;
        conn.execute(match conn.server().flavor {
            Flavor::MySql => format!("SET SESSION max_execution_time = {}", self.limit.as_millis().max(1)),
            Flavor::MariaDb => {
                format!("SET SESSION max_statement_time = {}", self.limit.as_secs_f64().max(0.001))
            }
        })?;
        if let Some(us) = self.moment_us.filter(|us| *us > 0) {
            conn.execute(format!("SET SESSION timestamp = {}.{:06}", us / 1_000_000, us % 1_000_000))?;
        }
        Ok(conn)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn came(rows: u64, first: &[Option<&str>]) -> Came {
        Came { rows, first: first.iter().map(|value| value.map(str::to_owned)).collect() }
    }

    #[test]
    fn what_is_expected_holds_or_the_complaint_has_both_sides() {
        use Compare::{AtLeast, AtMost, Equal, Less, More, Other};
        let value = |how, text: &str| Expect::Value(how, Some(text.to_owned()));
        for (expect, rows, first, right) in [
            (Expect::Runs, 0, None, true),
            (Expect::Rows(AtLeast, 3), 3, Some("x"), true),
            (Expect::Rows(AtLeast, 3), 2, Some("x"), false),
            (Expect::Rows(Equal, 0), 0, None, true),
            (value(AtLeast, "10"), 1, Some("9"), false),
            (value(AtLeast, "10"), 1, Some("10"), true),
            (value(More, "9"), 1, Some("10"), true),
            (value(Less, "9.5"), 1, Some("9.25"), true),
            (value(AtMost, "9"), 1, Some("9.25"), false),
            (value(Equal, "1.50"), 1, Some("1.5"), true),
            (value(Equal, "open"), 1, Some("open"), true),
            (value(Equal, "open"), 1, Some("Open"), false),
            (value(Other, "open"), 1, Some("shut"), true),
            // No text is more than another one, and NULL is nothing but NULL.
            (value(More, "a"), 1, Some("b"), false),
            (value(AtLeast, "0"), 1, None, false),
            (value(Equal, "NULL"), 1, None, false),
            (Expect::Value(Equal, None), 1, None, true),
            (Expect::Value(Other, None), 1, Some("0"), true),
            // More than one row is no value.
            (value(Equal, "1"), 2, Some("1"), false),
            (value(Equal, "1"), 0, None, false),
            // Beyond what a double tells apart.
            (value(Equal, "9007199254740993"), 1, Some("9007199254740992"), false),
            (value(Equal, "9007199254740993.01"), 1, Some("9007199254740992.99"), false),
            (value(More, "9007199254740993.01"), 1, Some("9007199254740993.1"), true),
            (value(Less, "-9007199254740993.01"), 1, Some("-9007199254740993.1"), true),
            (value(Equal, "0"), 1, Some("-0.00"), true),
            (value(Less, "0"), 1, Some("-.5"), true),
            (value(More, "-3"), 1, Some("2"), true),
            (value(Equal, "1e3"), 1, Some("1000"), true),
            (value(Equal, "nan"), 1, Some("nan"), true),
            (value(Equal, "."), 1, Some("0"), false),
        ] {
            let complaint = expect.complaint(&came(rows, &[first]));
            assert_eq!(complaint.is_none(), right, "{expect} of {rows} rows, {first:?}: {complaint:?}");
        }
        let told = value(AtLeast, "10").complaint(&came(1, &[Some("9")])).unwrap();
        assert_eq!(told, "gave '9', and >= 10 is expected");
    }
}
