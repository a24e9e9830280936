//! Backups that are copied from a replica of the server, so that the server itself is read no more than its log is.
//!
//! Only what is surely the same data is copied: the replica has this server as its only source, without filters, takes no
//! writes of its own, holds no transaction that the server does not have, and commits in the server's order. The copy stands
//! in the server's log by its GTIDs (`archive/src/server_log/exactly.rs`), and it is committed only once the archive holds
//! that place. What can't be known is refused, with the reason.

use crate::archive::{archive_error, drain, wait_for_archive};
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::fail_over::host_and_port;
use crate::login::{connect_options, endpoint};
use crate::progress::Watcher;
use holdfast_archive::{CopyFacts, ServerLog};
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::record::{COPIED_FROM, Coordinates, ServerKind, ServerRecord};
use holdfast_mysql::{Conn, ConnectOptions, ResultSet};
use holdfast_source::{Facts, server_variables};
use std::collections::BTreeMap;
use std::time::Duration;

/// How far a replica may be behind, unless the user says otherwise.
pub const MAX_LAG: Duration = Duration::from_secs(30);

/// The fact that says why a replica that was named was not taken.
pub(crate) const PASSED_FACT: &str = "holdfast.not_from_replica";

/// Longest text of that fact, characters.
const PASSED_MAX: usize = 600;

/// Longest wait for an answer.
const ANSWER_MAX: Duration = Duration::from_secs(60);

/// Port of a host that names none.
const DEFAULT_PORT: u16 = 3306;

/// Replicas to copy from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CopyFrom {
    hosts: Vec<(String, u16)>,
    /// Until when a replica must have executed what the server had when it was asked.
    max_lag: Duration,
    /// Whether the server itself is copied where no replica can be.
    or_source: bool,
}

impl CopyFrom {
    /// Replicas as `HOST` or `HOST:PORT`, the first fit one is taken; else the server itself, `or_source`.
    ///
    /// # Errors
    /// `Usage` for what names no host.
    pub fn new(hosts: &[String], max_lag: Duration, or_source: bool) -> Result<Self> {
        let hosts = hosts.iter().map(|host| host_and_port(host, DEFAULT_PORT)).collect::<Result<_>>()?;
        Ok(Self { hosts, max_lag, or_source })
    }

    /// Why the copies of this server are never a replica's, if that is so.
    fn refusal(server: &ServerRecord) -> Option<&'static str> {
        match (&server.kind, server.flavor) {
            (ServerKind::Folder { .. }, _) => Some("it is a folder, which has no replicas"),
            (_, Some(Flavor::MariaDb)) => Some(
                "it is a MariaDB, where the number of a transaction does not tell whether a replica has all that came \
                 before it; only MySQL with GTIDs is copied from a replica",
            ),
            _ => None,
        }
    }

    /// Takes the backup by `copy`: of the first replica that is fit and whose copy succeeds, else of the server.
    pub(crate) fn first<T>(
        &self,
        catalogue: &Catalogue,
        server: &ServerRecord,
        watcher: &dyn Watcher,
        copy: &mut dyn FnMut(From) -> Result<T>,
    ) -> Result<T> {
        let mut passed: Vec<String> = CopyFrom::refusal(server).map(str::to_owned).into_iter().collect();
        let hosts = if passed.is_empty() { self.hosts.as_slice() } else { &[] };
        for host in hosts {
            let taken = Replica::choose(catalogue, server, host, self.max_lag, watcher).and_then(|replica| {
                watcher.note(&format!("copying from the replica {}", replica.place));
                copy(From::Replica(Box::new(replica)))
            });
            match taken {
                // A name that is taken, say: another host changes nothing about it.
                Err(error) if watcher.cancelled() || error.code == Code::Usage => return Err(error),
                Err(error) => {
                    let why = format!("the replica {}:{}: {}", host.0, host.1, error.message);
                    watcher.note(&format!("not copied from {why}"));
                    passed.push(why);
                }
                taken => return taken,
            }
        }
        let why = passed.join(" ");
        if !self.or_source {
            return Err(Error::failed(format!("'{}' was not copied from a replica: {why}", server.name))
                .with_next(format!("copy the server itself: holdfast backup {}", server.name)));
        }
        watcher.note(&format!("copying '{}' itself: {why}", server.name));
        copy(From::Server { passed: Some(why.chars().take(PASSED_MAX).collect()) })
    }
}

/// What is copied.
pub(crate) enum From {
    /// The server itself. `passed`: why it is not a replica, where some were named.
    Server { passed: Option<String> },
    /// A replica of it.
    Replica(Box<Replica>),
}

/// A replica that was found fit.
pub(crate) struct Replica {
    /// Where it is, for people.
    place: String,
    pub(crate) connect: ConnectOptions,
    source: ConnectOptions,
    source_uuid: Uuid,
    /// Its own: behind a name there may be another server each time.
    uuid: Uuid,
    /// What it had executed then.
    lo: GtidSet,
    /// The server's own settings, for whoever restores.
    facts: Facts,
}

impl Replica {
    /// Asks a host whether it is a replica of the server, and fit to be copied.
    fn choose(
        catalogue: &Catalogue,
        server: &ServerRecord,
        (host, port): &(String, u16),
        max_lag: Duration,
        watcher: &dyn Watcher,
    ) -> Result<Self> {
        let login = catalogue.login(server)?;
        let source = connect_options(&catalogue.environment, server, login.as_ref())?;
        let kind = ServerKind::Network { host: host.clone(), port: *port, socket: None };
        let there = ServerRecord { kind, ..server.clone() };
        let connect = connect_options(&catalogue.environment, &there, login.as_ref())?;
        let place = endpoint(&there)?.to_string();
        let Some(source_uuid) = server.source_uuid else {
            return Err(Error::failed("Its source is not known."));
        };
        let mut ours = connected(&source, "the server itself")?;
        let mut theirs = connected(&connect, "it")?;
        let uuid = alike(&mut ours, &mut theirs, source_uuid)?;
        replicates(&mut theirs, source_uuid, max_lag)?;
        // What the server has now is what the replica must have within the limit: no clock has to be trusted for that.
        let wanted = executed(&mut ours)?;
        reach(&mut theirs, &wanted, max_lag, watcher)?;
        let lo = executed(&mut theirs)?;
        nothing_of_its_own(&lo, &executed(&mut ours)?)?;
        let facts =
            server_variables(&mut ours).map_err(|error| Error::failed(sentence(&error.to_string())))?;
        Ok(Self { place, connect, source, source_uuid, uuid, lo, facts })
    }

    /// After the copy: whether it is of the server that was looked at. `copied` has what was asked on the copy's connection.
    pub(crate) fn is_copied(&self, copied: &Facts) -> Result<()> {
        let uuid = copied.iter().find(|(name, _)| name == "server_uuid").map(|(_, value)| value.as_str());
        self.is_it(uuid.and_then(|uuid| uuid.parse().ok()))
    }

    fn is_it(&self, uuid: Option<Uuid>) -> Result<()> {
        if uuid == Some(self.uuid) {
            return Ok(());
        }
        let found = uuid.map_or_else(|| "one that does not say which".to_owned(), |uuid| uuid.to_string());
        Err(Error::failed(format!("Another server answered there than before: {found}, not {}.", self.uuid)))
    }

    /// After the copy: the bounds in the server's log between which it stands.
    pub(crate) fn coordinates(&self) -> Result<Coordinates> {
        let mut theirs = connected(&self.connect, "it")?;
        let mut ours = connected(&self.source, "the server itself")?;
        self.is_it(Some(alike(&mut ours, &mut theirs, self.source_uuid)?))?;
        // However far behind it is by now.
        replicates(&mut theirs, self.source_uuid, Duration::MAX)?;
        let hi = executed(&mut theirs)?;
        nothing_of_its_own(&hi, &executed(&mut ours)?)?;
        if !self.lo.is_subset(&hi) {
            return Err(Error::failed("It was reset while it was copied."));
        }
        let at = |gtid: &GtidSet| holdfast_format::record::Position {
            file: String::new(),
            offset: 0,
            gtid: gtid.clone(),
        };
        Ok(Coordinates::Between { lo: at(&self.lo), hi: at(&hi) })
    }

    /// Facts of the copy's files, with those of the server in place of what is the replica's alone.
    pub(crate) fn facts(&self, copied: Facts) -> Facts {
        let mut facts: Facts = copied.into_iter().filter(|(name, _)| is_of_the_files(name)).collect();
        facts.extend(self.facts.iter().filter(|(name, _)| !is_of_the_files(name)).cloned());
        facts.push((COPIED_FROM.to_owned(), self.place.clone()));
        facts
    }
}

/// Facts that describe the files which were copied, not the server that wrote them.
fn is_of_the_files(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["source", "lower_case_table_names", "binlog_order_commits", "ddl_during_copy", "copy_seconds"];
    const BEGINS: [&str; 5] = ["innodb_", "aria_", "version", "account", "clone_"];
    NAMES.contains(&name) || BEGINS.iter().any(|begin| name.starts_with(begin))
}

/// Brings the archive up to the server's present end, and makes sure that the copy stands in it: both bounds have a place,
/// there is no hole behind the first one, and every transaction there has a GTID, by which the copy tells what it holds.
pub(crate) fn joins(
    catalogue: &Catalogue,
    server: &ServerRecord,
    (coordinates, facts): (&Coordinates, &Facts),
    watcher: &dyn Watcher,
) -> Result<()> {
    match drain(catalogue, server, watcher) {
        Err(error) if error.code == Code::Locked => wait_for_archive(catalogue, server)?,
        other => other.map(drop)?,
    }
    let told = |e| archive_error(catalogue, server, e);
    let Coordinates::Between { lo, hi } = coordinates else {
        return Err(Error::failed("Where the copy stands is not known."));
    };
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let value = |key: &str| facts.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let copy = CopyFacts::new(crate::time::now(), value);
    let place = |at| log.place_of_copy(at, &copy).map_err(told);
    let (Some(from), Some(_), Some(end)) = (place(lo)?, place(hi)?, log.end()) else {
        return Err(Error::failed(format!(
            "The archived log of '{}' holds no place up to which exactly those transactions came that the replica had \
             executed: it begins later, or has them in another order.",
            server.name
        )));
    };
    if let Some(hole) = log.gap(from, end).map_err(told)? {
        return Err(Error::failed(format!("The log has a hole behind the copy: {}", sentence(&hole.reason))));
    }
    match log.anonymous_behind(from).map_err(told)? {
        Some(at) => Err(Error::failed(format!(
            "The transaction at {at} has no GTID, so nothing tells whether the copy holds it."
        ))),
        None => Ok(()),
    }
}

fn connected(options: &ConnectOptions, who: &str) -> Result<Conn> {
    let mut conn = Conn::connect(options)
        .map_err(|error| Error::failed(sentence(&format!("{who} can't be used: {error}"))))?;
    conn.set_read_timeout(ANSWER_MAX);
    Ok(conn)
}

fn asked(conn: &mut Conn, question: &str) -> Result<ResultSet> {
    conn.query(question)
        .map_err(|error| Error::failed(format!("{question}: {}", sentence(&error.to_string()))))
}

fn variables(conn: &mut Conn) -> Result<BTreeMap<String, String>> {
    let rows = asked(
        conn,
        "SHOW GLOBAL VARIABLES WHERE Variable_name IN ('gtid_mode', 'innodb_data_file_path', 'innodb_page_size', \
         'log_bin', 'lower_case_table_names', 'read_only', 'replica_parallel_workers', \
         'replica_preserve_commit_order', 'replica_exec_mode', 'replica_skip_errors', 'server_uuid', 'slave_exec_mode', \
         'slave_parallel_workers', 'slave_preserve_commit_order', 'slave_skip_errors')",
    )?;
    let row = |row| Some((rows.text(row, 0)?.to_ascii_lowercase(), rows.text(row, 1)?));
    Ok((0..rows.rows.len()).filter_map(row).collect())
}

/// Whether what is copied there could be the server's: one series, files of one kind, GTIDs on both. Gives its own UUID.
fn alike(ours: &mut Conn, theirs: &mut Conn, source_uuid: Uuid) -> Result<Uuid> {
    let refused = |why: String| Err(Error::failed(why));
    let (own, its) = (ours.server().clone(), theirs.server().clone());
    let series = |(major, minor, _): (u16, u16, u16)| (major, minor);
    if its.is_mariadb() || series(own.numbers()) != series(its.numbers()) {
        return refused(format!("It is a {its}, and the server a {own}."));
    }
    let (own, its) = (variables(ours)?, variables(theirs)?);
    let of = |all: &BTreeMap<String, String>, name: &str| all.get(name).cloned().unwrap_or_default();
    let uuid = |all| of(all, "server_uuid").parse::<Uuid>().ok();
    if uuid(&own) != Some(source_uuid) {
        return refused("Another server than the known one answers as the server itself.".to_owned());
    }
    let Some(its_uuid) = uuid(&its) else { return refused("It does not say which server it is.".to_owned()) };
    if its_uuid == source_uuid {
        return refused("It is the server itself, and no replica of it.".to_owned());
    }
    if let Some(why) = drifts(&its) {
        return refused(why);
    }
    for name in ["innodb_data_file_path", "innodb_page_size", "lower_case_table_names"] {
        if of(&own, name) != of(&its, name) {
            return refused(format!(
                "Its {name} is '{}', and the server's is '{}'.",
                of(&its, name),
                of(&own, name)
            ));
        }
    }
    for (whose, all) in [("Its", &its), ("The server's", &own)] {
        if of(all, "gtid_mode") != "ON" {
            return refused(format!(
                "{whose} gtid_mode is '{}': only GTIDs tell where a replica's copy stands in the server's log.",
                of(all, "gtid_mode")
            ));
        }
    }
    if of(&its, "log_bin") != "ON" {
        return refused("Its binary log is off.".to_owned());
    }
    if of(&its, "read_only") != "ON" {
        return refused("It takes writes of its own (read_only is off).".to_owned());
    }
    let either = |new: &str, old: &str| its.get(new).or_else(|| its.get(old)).cloned().unwrap_or_default();
    let workers = either("replica_parallel_workers", "slave_parallel_workers");
    let ordered = either("replica_preserve_commit_order", "slave_preserve_commit_order");
    if workers.parse().unwrap_or(2_u32) > 1 && ordered != "ON" {
        return refused(format!(
            "Its {workers} workers may commit in another order than the server did (replica_preserve_commit_order is off)."
        ));
    }
    let renamed = ours.server().numbers() >= (8, 2, 0);
    let status = asked(ours, if renamed { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" })?;
    for name in ["Binlog_Do_DB", "Binlog_Ignore_DB"] {
        if let Some(names) = status.text_by_name(0, name).filter(|names| !names.is_empty()) {
            return refused(format!(
                "The server does not log all databases ({name} is '{names}'), so no replica has them."
            ));
        }
    }
    Ok(its_uuid)
}

/// Why a replica with these settings may go on although rows of it are not the server's, if so: its GTIDs say nothing of that.
fn drifts(its: &BTreeMap<String, String>) -> Option<String> {
    let settings = [
        ("replica_skip_errors", ["OFF", ""]),
        ("slave_skip_errors", ["OFF", ""]),
        ("replica_exec_mode", ["STRICT", "STRICT"]),
        ("slave_exec_mode", ["STRICT", "STRICT"]),
    ];
    settings.into_iter().find_map(|(name, right)| {
        let value =
            its.get(name).filter(|value| !right.iter().any(|right| value.eq_ignore_ascii_case(right)))?;
        Some(format!("It passes over errors ({name} is '{value}'), so rows of it may not be the server's."))
    })
}

/// Whether it replicates from this server and no other one, everything, and without much delay.
fn replicates(conn: &mut Conn, source_uuid: Uuid, max_lag: Duration) -> Result<()> {
    let refused = |why: String| Err(Error::failed(why));
    let renamed = conn.server().numbers() >= (8, 0, 22);
    let status = asked(conn, if renamed { "SHOW REPLICA STATUS" } else { "SHOW SLAVE STATUS" })?;
    let of = |new: &str, old: &str| {
        let text = status.text_by_name(0, new).or_else(|| status.text_by_name(0, old));
        text.unwrap_or_default()
    };
    match status.rows.len() {
        0 => return refused("It is no replica.".to_owned()),
        1 => {}
        more => return refused(format!("It replicates from {more} servers.")),
    }
    let uuid = of("Source_UUID", "Master_UUID");
    if uuid.parse::<Uuid>().ok() != Some(source_uuid) {
        return refused(format!("It is a replica of another server ({uuid}), not of {source_uuid}."));
    }
    for (what, running, error) in [
        ("receives nothing", of("Replica_IO_Running", "Slave_IO_Running"), "Last_IO_Error"),
        ("applies nothing", of("Replica_SQL_Running", "Slave_SQL_Running"), "Last_SQL_Error"),
    ] {
        if running != "Yes" {
            return refused(sentence(&format!("It {what}: {running} {}", of(error, error))));
        }
    }
    for filter in ["Do_DB", "Ignore_DB", "Do_Table", "Ignore_Table", "Wild_Do_Table", "Wild_Ignore_Table"] {
        let name = format!("Replicate_{filter}");
        let names = of(&name, &name);
        if !names.is_empty() {
            return refused(format!("It does not replicate everything ({name} is '{names}')."));
        }
    }
    let rewritten = of("Replicate_Rewrite_DB", "Replicate_Rewrite_DB");
    if !rewritten.is_empty() {
        return refused(format!("It gives databases other names (Replicate_Rewrite_DB is '{rewritten}')."));
    }
    match of("Seconds_Behind_Source", "Seconds_Behind_Master").parse::<u64>() {
        Ok(seconds) if seconds > max_lag.as_secs() => {
            refused(format!("It is {seconds} s behind, more than {} s.", max_lag.as_secs()))
        }
        _ => Ok(()),
    }
}

/// Waits until it has executed `wanted`, a second at a time, so that the wish to stop is heeded.
fn reach(conn: &mut Conn, wanted: &GtidSet, max_lag: Duration, watcher: &dyn Watcher) -> Result<()> {
    for _ in 0..max_lag.as_secs().max(1) {
        let answer = asked(conn, &format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{wanted}', 1)"))?;
        if answer.text(0, 0).as_deref() == Some("0") {
            return Ok(());
        }
        if watcher.cancelled() {
            break;
        }
    }
    Err(Error::failed(format!(
        "It did not come up to what the server had executed within {} s.",
        max_lag.as_secs().max(1)
    )))
}

fn executed(conn: &mut Conn) -> Result<GtidSet> {
    let text = asked(conn, "SELECT @@GLOBAL.gtid_executed")?.text(0, 0).unwrap_or_default();
    let text: String = text.split_whitespace().collect();
    GtidSet::parse(Flavor::MySql, &text)
        .map_err(|error| Error::failed(format!("The GTIDs '{text}' can't be read: {error}.")))
}

fn nothing_of_its_own(its: &GtidSet, ours: &GtidSet) -> Result<()> {
    let mut own = its.clone();
    // Of one family, as was asked.
    let _ = own.subtract(ours);
    if own.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!("It has transactions that the server does not have: {own}.")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_of_the_files_are_the_replicas_and_settings_are_the_servers() {
        let replica = ["innodb_page_size", "version", "server_uuid", "settings", "hostname", "accounts"];
        let copied: Facts = replica.map(|name| (name.to_owned(), "replica".to_owned())).to_vec();
        let ours = ["innodb_page_size", "version", "server_uuid", "time_zone"];
        let chosen = Replica {
            place: "db2:3306".to_owned(),
            connect: ConnectOptions::new(holdfast_mysql::Endpoint::Unix("a".into()), ""),
            source: ConnectOptions::new(holdfast_mysql::Endpoint::Unix("b".into()), ""),
            source_uuid: Uuid([7; 16]),
            uuid: Uuid([8; 16]),
            lo: GtidSet::empty(Flavor::MySql),
            facts: ours.map(|name| (name.to_owned(), "server".to_owned())).to_vec(),
        };
        let mut facts = chosen.facts(copied);
        facts.sort();
        let whose = |name: &str| facts.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
        assert_eq!(whose("innodb_page_size"), Some("replica"));
        assert_eq!(whose("version"), Some("replica"));
        assert_eq!(whose("accounts"), Some("replica"));
        assert_eq!(whose("server_uuid"), Some("server"));
        assert_eq!(whose("time_zone"), Some("server"));
        // What the replica alone was set to is nothing that a restored server should be.
        assert_eq!((whose("settings"), whose("hostname")), (None, None));
        assert_eq!(whose(COPIED_FROM), Some("db2:3306"));
        assert_eq!(facts.len(), 6);
        let copied_of = |uuid: Uuid| vec![("server_uuid".to_owned(), uuid.to_string())];
        chosen.is_copied(&copied_of(Uuid([8; 16]))).unwrap();
        for other in [copied_of(Uuid([9; 16])), Facts::new()] {
            let refused = chosen.is_copied(&other).unwrap_err();
            assert!(refused.message.contains("Another server answered"), "{}", refused.message);
        }
    }

    #[test]
    fn a_replica_that_passes_over_errors_is_not_the_servers_data() {
        let of = |name: &str, value: &str| BTreeMap::from([(name.to_owned(), value.to_owned())]);
        for (name, value, drifting) in [
            ("replica_skip_errors", "OFF", false),
            ("replica_skip_errors", "", false),
            ("replica_skip_errors", "1032,1062", true),
            ("slave_skip_errors", "ddl_exist_errors", true),
            ("replica_exec_mode", "STRICT", false),
            ("slave_exec_mode", "IDEMPOTENT", true),
        ] {
            assert_eq!(drifts(&of(name, value)).is_some(), drifting, "{name} {value}");
        }
        assert_eq!(drifts(&BTreeMap::new()), None);
    }
}
