//! Backups that are copied from a replica of the server, so that the server itself is read no more than its log is.
//!
//! Only what is surely the same data is copied: the replica has this server as its only source, without filters, takes no
//! writes of its own, holds no transaction that the server does not have, and commits in the server's order. The copy stands
//! in the server's log by its GTIDs (`archive/src/server_log/exactly.rs`), and it is committed only once the archive holds
//! that place. What can't be known is refused, with the reason.

mod fit;
mod join;

pub(crate) use join::Joint;
use join::stopped;

use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::fail_over::host_and_port;
use crate::login::{connect_options, endpoint};
use crate::progress::Watcher;
use fit::{alike, connected, executed, nothing_of_its_own, reach, replicates};
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::record::{COPIED_FROM, Coordinates, Position, ServerKind, ServerRecord};
use holdfast_mysql::ConnectOptions;
use holdfast_source::{Facts, server_variables};
use std::time::Duration;

/// How far a replica may be behind, unless the user says otherwise.
pub const MAX_LAG: Duration = Duration::from_secs(30);

/// The fact that says why a replica that was named was not taken.
pub(crate) const PASSED_FACT: &str = "holdfast.not_from_replica";

/// Longest text of that fact, characters.
const PASSED_MAX: usize = 600;

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
        copy: &mut dyn FnMut(Origin) -> std::result::Result<T, NoCopy>,
    ) -> Result<T> {
        let mut passed: Vec<String> = CopyFrom::refusal(server).map(str::to_owned).into_iter().collect();
        let hosts = if passed.is_empty() { self.hosts.as_slice() } else { &[] };
        for host in hosts {
            let chosen = Replica::choose(catalogue, server, host, self.max_lag, watcher);
            let taken = chosen.map_err(NoCopy::of_this_one).and_then(|replica| {
                watcher.note(&format!("copying from the replica {}", replica.place));
                copy(Origin::Replica(Box::new(replica)))
            });
            match taken {
                // Whatever it ended with then.
                Err(NoCopy::OfThisOne(_)) if watcher.cancelled() => return Err(stopped(server)),
                Err(NoCopy::OfThisOne(error)) => {
                    let why = format!("the replica {}:{}: {}", host.0, host.1, error.message);
                    watcher.note(&format!("not copied from {why}"));
                    passed.push(why);
                }
                taken => return taken.map_err(NoCopy::into_error),
            }
        }
        let why = passed.join(" ");
        if !self.or_source {
            return Err(Error::failed(format!("'{}' was not copied from a replica: {why}", server.name))
                .with_next(format!("copy the server itself: holdfast backup {}", server.name)));
        }
        watcher.note(&format!("copying '{}' itself: {why}", server.name));
        let passed = Some(why.chars().take(PASSED_MAX).collect());
        copy(Origin::Server { passed }).map_err(NoCopy::into_error)
    }
}

/// Why there is no copy.
pub(crate) enum NoCopy {
    /// Something about this replica, or its copy: the next one may do, or the server itself.
    OfThisOne(Error),
    /// Something that another host would change nothing about: the repository is full, say, or a name is taken.
    OfAny(Error),
}

impl NoCopy {
    /// Of this one, unless the error has a code of its own: those are about the repository, its keys and locks, and the wish
    /// to stop.
    pub(crate) fn of_this_one(error: Error) -> Self {
        match error.code {
            Code::Failed | Code::TargetUnreachable => Self::OfThisOne(error),
            _ => Self::OfAny(error),
        }
    }

    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::OfThisOne(error) | Self::OfAny(error) => error,
        }
    }
}

/// What is not known to be about the replica is not.
impl From<Error> for NoCopy {
    fn from(error: Error) -> Self {
        Self::OfAny(error)
    }
}

/// What is copied.
pub(crate) enum Origin {
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

    /// Before the copy: what it had executed, as the lower bound of where the copy stands.
    pub(crate) fn began(&self) -> Position {
        at(&self.lo)
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

/// No file of the replica's means anything in the server's log.
fn at(gtid: &GtidSet) -> Position {
    Position { file: String::new(), offset: 0, gtid: gtid.clone() }
}

/// Facts that describe the files which were copied, not the server that wrote them.
fn is_of_the_files(name: &str) -> bool {
    const NAMES: [&str; 5] =
        ["source", "lower_case_table_names", "binlog_order_commits", "ddl_during_copy", "copy_seconds"];
    const BEGINS: [&str; 5] = ["innodb_", "aria_", "version", "account", "clone_"];
    NAMES.contains(&name) || BEGINS.iter().any(|begin| name.starts_with(begin))
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
    fn what_is_wrong_with_the_repository_is_not_held_against_a_replica() {
        for (code, of_any) in [
            (Code::Failed, false),
            (Code::TargetUnreachable, false),
            (Code::Usage, true),
            (Code::Locked, true),
            (Code::WrongKey, true),
            (Code::Corruption, true),
            (Code::Interrupted, true),
        ] {
            let told = NoCopy::of_this_one(Error::new(code, "why").with_next("do this"));
            assert_eq!(matches!(told, NoCopy::OfAny(_)), of_any, "{code:?}");
            assert_eq!(told.into_error().next.as_deref(), Some("do this"));
        }
        // A full file system has no code of its own: what the store says is never a replica's.
        assert!(matches!(NoCopy::from(Error::failed("full")), NoCopy::OfAny(_)));
    }
}
