//! Fail-over: the other hosts of a server's replication set, and going over to the one that was promoted.
//!
//! Nothing is followed that would leave a hole: the other server must have every transaction that is archived, and its log
//! must go on right behind them (`holdfast_archive::join`). It must be writable, too: while nobody was promoted nothing
//! new is written anywhere, and a replica that is followed too early may be passed over by the promotion.

use crate::archive::{Role, archive_error, server_id};
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::login::{connect_options, endpoint};
use crate::progress::Watcher;
use crate::server::identify;
use crate::settings::Login;
use crate::time::now;
use holdfast_archive::join::{self, Standing};
use holdfast_archive::{Join, ServerLog, tail};
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::record::{LogGap, Record, ServerKind, ServerRecord, StreamKey};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint};
use std::time::{Duration, Instant};

/// For how long a server is gone before another host is asked, unless the user says otherwise.
pub const AFTER: Duration = Duration::from_secs(30);

/// Between two rounds of questions.
const ROUND: Duration = Duration::from_secs(1);

/// Longest time between two looks at the other hosts.
const LOOK_MAX: Duration = Duration::from_secs(60);

/// How often the watcher is asked whether to stop.
const STOP_TICK: Duration = Duration::from_millis(50);

/// The hosts of a server, as its user named them.
#[derive(Debug, Clone)]
pub(crate) struct Members {
    hosts: Vec<(String, u16)>,
    /// How long the present one may be gone.
    pub(crate) after: Duration,
}

impl Members {
    /// Of a login; none if it names one host only.
    pub(crate) fn of(login: Option<&Login>) -> Option<Self> {
        let login = login.filter(|login| login.hosts.len() > 1)?;
        let hosts = login.hosts.iter().filter_map(|host| host_and_port(host, DEFAULT_PORT).ok()).collect();
        Some(Self { hosts, after: login.fail_over_after_s.map_or(AFTER, Duration::from_secs) })
    }

    fn others(&self, server: &ServerRecord) -> impl Iterator<Item = &(String, u16)> {
        let present = match &server.kind {
            ServerKind::Network { host, port, socket: None } => Some((host.clone(), *port)),
            _ => None,
        };
        self.hosts.iter().filter(move |host| Some(*host) != present.as_ref())
    }
}

pub(crate) const DEFAULT_PORT: u16 = 3306;

/// Host and port out of `HOST`, `HOST:PORT` or `[ADDRESS]:PORT`.
///
/// # Errors
/// `Usage` for anything else.
pub fn host_and_port(text: &str, port: u16) -> Result<(String, u16)> {
    let bad = || {
        Error::usage(format!("'{text}' names no host.")).with_next("use HOST, HOST:PORT or [ADDRESS]:PORT")
    };
    let parsed = |digits: &str| digits.parse::<u16>().map_err(|_| bad());
    let (host, port) = match (text.strip_prefix('['), text.split_once(':')) {
        (Some(rest), _) => match rest.split_once(']') {
            Some((host, "")) => (host, port),
            Some((host, more)) => (host, parsed(more.strip_prefix(':').ok_or_else(bad)?)?),
            None => return Err(bad()),
        },
        (None, Some((host, digits))) if !digits.contains(':') => (host, parsed(digits)?),
        // An address of version 6 has many colons.
        (None, _) => (text, port),
    };
    if host.is_empty() || host.contains([' ', ',', '/']) {
        return Err(bad());
    }
    Ok((host.to_owned(), port))
}

/// What became of looking for another host.
pub(crate) enum Ended {
    /// The present host is back, or the name stands for another one now: then with the place where its log goes on, if that
    /// was looked for.
    Again(Option<Box<Join>>),
    /// The watcher wants to stop.
    Cancelled,
}

/// Waits until the server's own host is there again, or goes over to another one of its hosts.
///
/// # Errors
/// `Failed` where another host was promoted whose log does not go on behind what is archived: a fork, recorded as a hole.
pub(crate) fn fail_over(
    catalogue: &Catalogue,
    server: &ServerRecord,
    members: &Members,
    since: Instant,
    watcher: &dyn Watcher,
) -> Result<Ended> {
    let mut said = String::new();
    let mut say = |text: String| {
        if said != text {
            watcher.note(&text);
            said = text;
        }
    };
    let mut next = since;
    loop {
        let own = options_of(catalogue, server)?;
        if !is_gone(&own) {
            return Ok(Ended::Again(None));
        }
        let asked = Instant::now();
        if since.elapsed() >= members.after && asked >= next {
            let mut forks = Vec::new();
            for (host, port) in members.others(server) {
                let kind = ServerKind::Network { host: host.clone(), port: *port, socket: None };
                let other = ServerRecord { kind, ..server.clone() };
                match consider(catalogue, server, other)? {
                    Found::Promoted(record, join) => {
                        catalogue
                            .repository
                            .put_known_server((*record).clone())
                            .map_err(|e| catalogue.store_error(e))?;
                        watcher.note(&format!(
                            "fail-over: {} is gone, the log goes on without a hole at {}",
                            own.endpoint,
                            endpoint(&record)?
                        ));
                        return Ok(Ended::Again(join));
                    }
                    // Another one may have been promoted.
                    Found::Apart(why) => forks.push((host, *port, why)),
                    Found::NotYet(why) => {
                        say(format!("connection lost: {} is gone, and {why}", own.endpoint))
                    }
                }
            }
            // A log that was read to be compared is read again after a while only.
            next = Instant::now() + (asked.elapsed() * 10).min(LOOK_MAX);
            if let Some((host, port, why)) = forks.first() {
                return Err(forked(catalogue, server, &own.endpoint, host, *port, why)?);
            }
        }
        let wake = Instant::now() + ROUND;
        while Instant::now() < wake {
            if watcher.cancelled() {
                return Ok(Ended::Cancelled);
            }
            std::thread::sleep(STOP_TICK);
        }
    }
}

fn options_of(catalogue: &Catalogue, server: &ServerRecord) -> Result<ConnectOptions> {
    connect_options(&catalogue.environment, server, catalogue.login(server)?.as_ref())
}

/// Whether nobody answers there, or who answers is going.
pub(crate) fn is_gone(options: &ConnectOptions) -> bool {
    Conn::connect(options).is_err_and(|error| error.is_network())
}

enum Found {
    Promoted(Box<ServerRecord>, Option<Box<Join>>),
    NotYet(String),
    Apart(String),
}

/// Looks at another host.
fn consider(catalogue: &Catalogue, server: &ServerRecord, mut other: ServerRecord) -> Result<Found> {
    let told = |e| archive_error(catalogue, server, e);
    let options = options_of(catalogue, &other)?;
    let at = options.endpoint.clone();
    let not_yet = |why: String| Ok(Found::NotYet(format!("{at} {why}")));
    let mut conn = match Conn::connect(&options) {
        Ok(conn) => conn,
        Err(error) => return not_yet(format!("can't be used: {error}")),
    };
    if conn.server().is_mariadb() != (server.flavor == Some(Flavor::MariaDb)) {
        return not_yet("is of another family".to_owned());
    }
    if let Err(error) = identify(&mut conn, &mut other) {
        return not_yet(format!("can't be used: {}", error.message));
    }
    if conn.server().is_mariadb() {
        other.source_uuid = Some(member_identity(&mut conn, server)?);
    } else if other.source_uuid == server.source_uuid {
        // The same server under another address.
        return Ok(Found::Promoted(Box::new(other), None));
    }
    match conn.query_text("SELECT @@GLOBAL.read_only") {
        Ok(Some(off)) if off == "0" || off.eq_ignore_ascii_case("OFF") => {}
        Ok(_) => return not_yet("is read-only: it was not promoted yet".to_owned()),
        Err(error) => return not_yet(format!("can't be used: {error}")),
    }
    let replicates = replicates(&mut conn);
    drop(conn);
    let Some((_, executed)) = archived(catalogue, server)?.filter(|(_, set)| !set.is_empty()) else {
        return not_yet("can't be compared with the archive, in which there are no GTIDs".to_owned());
    };
    let role = server_id(catalogue, server, Role::Mark);
    match join::look(&options, role, &catalogue.repository, server.id, &executed) {
        Ok(Standing::GoesOn(join)) => Ok(Found::Promoted(Box::new(other), Some(join))),
        Ok(Standing::Behind { lacks }) => not_yet(format!("lacks {lacks}, which is archived")),
        Ok(Standing::Apart { why }) if replicates => {
            not_yet(format!("is a replica still, with a history of its own: {why}"))
        }
        Ok(Standing::Apart { why }) => Ok(Found::Apart(why)),
        Err(error) if error.is_network() => not_yet(format!("can't be used: {error}")),
        Err(error) => Err(told(error)),
    }
}

/// Whether the server has another one that it replicates from, running or not. An account that may not ask is told no:
/// a fork is better told than waited for.
fn replicates(conn: &mut Conn) -> bool {
    let questions: &[&str] = if conn.server().is_mariadb() {
        &["SHOW ALL SLAVES STATUS"]
    } else {
        &["SHOW REPLICA STATUS", "SHOW SLAVE STATUS"]
    };
    let mut answers = questions.iter().filter_map(|question| conn.query(question).ok());
    answers.next().is_some_and(|sources| !sources.rows.is_empty())
}

/// The newest stream of a server, and what is executed at its end.
fn archived(catalogue: &Catalogue, server: &ServerRecord) -> Result<Option<(StreamKey, GtidSet)>> {
    let told = |e| archive_error(catalogue, server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let Some(stream) = log.streams().into_iter().max_by_key(|key| key.incarnation) else { return Ok(None) };
    Ok(join::executed(&catalogue.repository, &stream).map_err(told)?.map(|set| (stream, set)))
}

/// The identity of a MariaDB among the hosts of a server: it shows none of its own, but each has another number.
pub(crate) fn member_identity(conn: &mut Conn, server: &ServerRecord) -> Result<Uuid> {
    let text = conn.query_text("SELECT @@GLOBAL.server_id").map_err(|e| {
        Error::failed(format!("The server '{}' did not tell its server_id: {e}", server.name))
    })?;
    let number: u32 = text.as_deref().unwrap_or_default().parse().map_err(|_| {
        Error::failed(format!("The server '{}' has no server_id that is a number.", server.name))
    })?;
    let mut id = server.id.0;
    for (byte, more) in id.iter_mut().rev().zip(number.to_le_bytes()) {
        *byte ^= more;
    }
    Ok(Uuid(id))
}

/// Records the fork, once, and gives the error that tells of it.
fn forked(
    catalogue: &Catalogue,
    server: &ServerRecord,
    own: &Endpoint,
    host: &str,
    port: u16,
    why: &str,
) -> Result<Error> {
    let told = |e| archive_error(catalogue, server, e);
    let name = &server.name;
    let reason = format!("fork: {own} is gone, and {host}:{port} was promoted with another history: {why}");
    if let Some((stream, _)) = archived(catalogue, server)? {
        let end = tail::find(&catalogue.repository, &stream).map_err(told)?;
        if let (Some(after), None) = (end.at, end.gap) {
            let gap = LogGap { stream, after, reason: reason.clone(), at_us: now() };
            catalogue.repository.append(Record::LogGap(gap)).map_err(|e| catalogue.store_error(e))?;
        }
    }
    Ok(Error::failed(format!("The log of '{name}' has a {reason}.")).with_next(format!(
        "if {host}:{port} is '{name}' now: holdfast server add {name} --rebuilt --host {host}:{port} with its other \
         options, then holdfast backup {name}; what only {own} had stays restorable"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port_of_its_own() {
        for (text, host, port) in [
            ("db1", "db1", 3306),
            ("db1:3307", "db1", 3307),
            ("10.0.0.1:1", "10.0.0.1", 1),
            ("fe80::1", "fe80::1", 3306),
            ("[fe80::1]:3310", "fe80::1", 3310),
            ("[::1]", "::1", 3306),
        ] {
            assert_eq!(host_and_port(text, 3306).unwrap(), (host.to_owned(), port), "{text}");
        }
        for text in ["", ":1", "db1:", "db1:x", "db1:70000", "[::1", "[::1]x", "[::1]:", "a b"] {
            assert!(host_and_port(text, 3306).is_err(), "{text}");
        }
    }
}
