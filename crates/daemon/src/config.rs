//! `/etc/holdfast/holdfast.toml`: what a person writes. The daemon never writes it.

mod alerts;
mod servers;

pub(crate) use alerts::address as mail_address;
pub use alerts::{Alerts, Mail, MailTls, Webhook};
pub use servers::Server;

use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::policy::{Bandwidth, Bytes, Policy, Span, is_timezone};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// Name of the policy of a server that names none.
pub const DEFAULT_POLICY: &str = "default";

/// The configuration.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that it was read from.
    #[serde(skip)]
    pub file: PathBuf,
    /// The repository's folder.
    pub repository: PathBuf,
    /// File whose first line is its passphrase.
    pub passphrase_file: PathBuf,
    /// Folder for the daemon's own state.
    #[serde(default = "default_state")]
    pub state: PathBuf,
    /// File with the way in to each server, which `holdfast server add` writes (its `HOLDFAST_CONFIG`).
    #[serde(default)]
    pub logins: Option<PathBuf>,
    /// The API's Unix socket. Whoever may write to it may do everything.
    #[serde(default = "default_socket")]
    pub socket: PathBuf,
    /// Permissions of the socket.
    #[serde(default = "default_mode")]
    pub socket_mode: String,
    /// Jobs that run at the same time.
    #[serde(default = "default_jobs")]
    pub jobs: u8,
    /// Connections that copy one server in parallel.
    #[serde(default = "default_copies")]
    pub connections: u8,
    /// Folder for what has to wait on disk during a copy.
    #[serde(default)]
    pub spool: Option<PathBuf>,
    /// Folders that a restore may be made below. None: the API restores nothing.
    #[serde(default)]
    pub restore_into: Vec<PathBuf>,
    /// Folders with the programs of private servers; else the `PATH`.
    #[serde(default)]
    pub engines: Engines,
    /// The log.
    #[serde(default)]
    pub log: Log,
    /// The API over the network.
    #[serde(default)]
    pub listen: Option<Listen>,
    /// What is checked by itself.
    #[serde(default)]
    pub checks: Checks,
    /// What may not be used up.
    #[serde(default)]
    pub limits: Limits,
    /// What gives space back by itself.
    #[serde(default)]
    pub prune: Prune,
    /// Where drills are made.
    #[serde(default)]
    pub drills: Drills,
    /// Who is told what.
    #[serde(default)]
    pub alerts: Alerts,
    /// Whether a second person has to agree before something is taken away.
    #[serde(default)]
    pub approval: Approvals,
    /// Policies by name; `default` is there even when it is not written.
    #[serde(default, rename = "policy")]
    pub policies: BTreeMap<String, Policy>,
    /// What differs for single servers.
    #[serde(default, rename = "server")]
    pub servers: Vec<Server>,
}

/// Where the server programs are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engines {
    /// Of MySQL.
    pub mysql: Option<PathBuf>,
    /// Of MariaDB.
    pub mariadb: Option<PathBuf>,
}

/// How much is logged, in which form.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// `text` or `json`.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug`.
    pub level: String,
}

impl Default for Log {
    fn default() -> Self {
        Self { format: LogFormat::Text, level: "info".to_owned() }
    }
}

/// The form of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The API over the network: TLS and tokens only.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen {
    /// Address and port.
    pub address: SocketAddr,
    /// PEM file: the certificate, then its chain.
    pub certificate: PathBuf,
    /// PEM file: the private key.
    pub key: PathBuf,
    /// File with tokens, as `holdfastd token` prints them.
    pub tokens: PathBuf,
    /// Networks that may connect, such as `10.0.0.0/8`; empty: all.
    #[serde(default)]
    pub allow: Vec<Network>,
}

/// What is checked by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Checks {
    /// The whole repository is read by the second reader so often; 0: never.
    pub fsck: Span,
    /// Its structure and one block of 32, those of the day, so often; 0: never.
    pub canary: Span,
    /// Some of it is read again so often, and healed from parity; 0: never.
    pub scrub: Span,
    /// For so long each time.
    pub scrub_time: Span,
    /// At most so many bytes a second; 0: as fast as it goes.
    pub scrub_rate: Bytes,
}

impl Default for Checks {
    fn default() -> Self {
        Self {
            fsck: Span::hours(30 * 24),
            canary: Span::hours(24),
            scrub: Span::hours(24),
            scrub_time: Span::hours(1),
            scrub_rate: Bytes(50 << 20),
        }
    }
}

/// What may not be used up.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Backups together read no faster than the smallest of these that holds now.
    pub bandwidth: Vec<Bandwidth>,
    /// Zone of their hours: an IANA name.
    pub timezone: String,
}

impl Default for Limits {
    fn default() -> Self {
        Self { bandwidth: Vec::new(), timezone: "UTC".to_owned() }
    }
}

/// What gives space back by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Prune {
    /// What nobody needs goes so often at least; 0: only when a person asks.
    pub every: Span,
    /// It goes on any day on which it is this share of what is stored, percent.
    pub share: u8,
    /// Segments are compacted until at most this share of what stays is dead, percent.
    pub max_dead: u8,
    /// A backup that was forgotten keeps its blocks for so long.
    pub grace: Span,
}

impl Default for Prune {
    fn default() -> Self {
        Self { every: Span::hours(7 * 24), share: 20, max_dead: 10, grace: Span::hours(24) }
    }
}

/// Where drills are made, and how much they prove.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Drills {
    /// The folder below which each drill has one of its own while it runs. None: no drills.
    pub into: Option<PathBuf>,
    /// `quick`, `standard`, `full`.
    pub prove: String,
    /// A drill that needs more than this is refused; 0: what is free there.
    pub space: Bytes,
    /// Longest time of each check query of a server.
    pub query_time: Span,
}

impl Default for Drills {
    fn default() -> Self {
        Self { into: None, prove: "standard".to_owned(), space: Bytes(0), query_time: Span::minutes(1) }
    }
}

/// Whether a second person has to agree before something is taken away.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Approvals {
    /// One has to.
    pub required: bool,
    /// So long he may; then it has to be asked for again.
    pub within: Span,
}

impl Default for Approvals {
    fn default() -> Self {
        Self { required: false, within: Span::hours(3 * 24) }
    }
}

/// A network: address and length of its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    prefix: u8,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> std::result::Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

impl std::str::FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let wrong = || format!("'{text}' is not a network; write for example 10.0.0.0/8 or 192.0.2.7");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix.parse::<u8>().map_err(|_| wrong())?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = prefix.unwrap_or(longest);
        if prefix > longest {
            return Err(wrong());
        }
        Ok(Self { address, prefix })
    }
}

impl Network {
    /// Whether the address lies in it. An IPv4 address that came over IPv6 is the IPv4 address.
    #[must_use]
    pub fn holds(&self, address: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (32_u8, u128::from(u32::from(v4))),
            IpAddr::V6(v6) => (128, u128::from(v6)),
        };
        let (ours, network) = bits(self.address);
        let (theirs, address) = bits(address.to_canonical());
        let rest = ours - self.prefix;
        ours == theirs && (rest >= 128 || network >> rest == address >> rest)
    }
}

fn default_state() -> PathBuf {
    PathBuf::from("/var/lib/holdfast")
}
fn default_socket() -> PathBuf {
    PathBuf::from("/run/holdfast/holdfast.sock")
}
fn default_mode() -> String {
    "0600".to_owned()
}
fn default_jobs() -> u8 {
    2
}
fn default_copies() -> u8 {
    4
}
fn default_policy() -> String {
    DEFAULT_POLICY.to_owned()
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// `Usage` with the file and what is wrong in it.
    pub fn load(file: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(file).map_err(|error| {
            Error::usage(format!("The configuration {} can't be read: {error}.", file.display()))
                .with_next("write it as docs/daemon.md shows, or name another one with --config")
        })?;
        let mut config: Self = toml::from_str(&text).map_err(|error| {
            Error::usage(format!("The configuration {} is not valid: {error}", file.display()))
        })?;
        config.file = file.to_path_buf();
        config.policies.entry(default_policy()).or_default();
        config.check()?;
        Ok(config)
    }

    /// Refuses what can't work.
    fn check(&self) -> Result<()> {
        for (name, policy) in &self.policies {
            policy.check(name)?;
        }
        for server in &self.servers {
            if !self.policies.contains_key(&server.policy) {
                return Err(Error::usage(format!(
                    "The server '{}' names the policy '{}', and there is none of that name.",
                    server.name, server.policy
                ))
                .with_next(format!("write a section [policy.{}], or name another one", server.policy)));
            }
        }
        let own = [&self.repository, &self.state, &self.socket].into_iter();
        let files = self.servers.iter().filter_map(|server| server.check_file.as_ref());
        for path in own.chain(&self.restore_into).chain(&self.drills.into).chain(files) {
            if !path.is_absolute() {
                return Err(Error::usage(format!("The path {} is not absolute.", path.display()))
                    .with_next("a daemon has no folder of its own to count from; write the whole path"));
            }
        }
        if self.jobs == 0 || self.connections == 0 || self.connections > 32 {
            return Err(Error::usage("jobs must be 1 or more, and connections 1 to 32."));
        }
        self.alerts.check()?;
        if self.approval.required && self.listen.is_none() {
            return Err(Error::usage("approval.required needs tokens, and there is no section [listen].")
                .with_next("two persons are told apart by their tokens: name a file with them in [listen]"));
        }
        if self.approval.within < Span::minutes(1) {
            return Err(Error::usage("approval.within must be 1m or more."));
        }
        if !is_timezone(&self.limits.timezone) {
            return Err(Error::usage(format!(
                "The time zone '{}' of limits is not known on this host.",
                self.limits.timezone
            ))
            .with_next("use an IANA name such as Europe/Berlin, or UTC"));
        }
        if self.prune.share > 100 || self.prune.max_dead > 100 {
            return Err(Error::usage("prune.share and prune.max_dead are percent: at most 100."));
        }
        if !["quick", "standard", "full"].contains(&self.drills.prove.as_str()) {
            return Err(Error::usage(format!("drills.prove is '{}'.", self.drills.prove))
                .with_next("use quick, standard or full"));
        }
        if self.drills.query_time < Span::seconds(1) {
            return Err(Error::usage("drills.query_time must be 1s or more."));
        }
        for server in &self.servers {
            self.queries_of(&server.name)?;
            self.copy_from(&server.name)?;
        }
        self.socket_mode()?;
        if !["error", "warn", "info", "debug"].contains(&self.log.level.as_str()) {
            return Err(Error::usage(format!("'{}' is not a level of the log.", self.log.level))
                .with_next("use error, warn, info or debug"));
        }
        Ok(())
    }

    /// Permissions of the socket.
    ///
    /// # Errors
    /// `Usage` when the text is not octal, or lets everybody in.
    pub fn socket_mode(&self) -> Result<u32> {
        match u32::from_str_radix(&self.socket_mode, 8) {
            Ok(mode) if mode & !0o770 == 0 => Ok(mode),
            _ => Err(Error::usage(format!("socket_mode is '{}'.", self.socket_mode))
                .with_next("use 0600 for the daemon's user, or 0660 for its group as well")),
        }
    }

    /// The policy of a server, with its name.
    #[must_use]
    pub fn policy_of(&self, server: &str) -> (&str, Policy) {
        let name =
            self.servers.iter().find(|s| s.name == server).map_or(DEFAULT_POLICY, |s| s.policy.as_str());
        (name, self.policies.get(name).cloned().unwrap_or_default())
    }

    /// Where the ways in to servers are.
    #[must_use]
    pub fn logins(&self) -> PathBuf {
        self.logins.clone().unwrap_or_else(|| self.state.join("servers.toml"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("holdfast.toml");
        std::fs::write(&file, text).unwrap();
        Config::load(&file)
    }

    const LEAST: &str = "repository = '/srv/holdfast'\npassphrase_file = '/etc/holdfast/passphrase'\n";

    #[test]
    fn two_lines_are_enough_and_protect_with_the_defaults() {
        let config = load(LEAST).unwrap();
        let (name, policy) = config.policy_of("shop");
        assert_eq!((name, policy), ("default", Policy::default()));
        assert_eq!(config.socket_mode().unwrap(), 0o600);
        assert!(config.listen.is_none());
    }

    #[test]
    fn a_server_has_the_policy_that_it_names() {
        let config = load(&format!(
            "{LEAST}[policy.prod]\nmax_age = '6h'\n[[server]]\nname = 'shop'\npolicy = 'prod'\nsemi_sync = true\n"
        ))
        .unwrap();
        assert_eq!(config.policy_of("shop").1.max_age, Span::hours(6));
        assert_eq!(config.policy_of("crm").0, "default");
        assert!(config.is_semi_sync("shop") && !config.is_semi_sync("crm"));
    }

    #[test]
    fn what_cant_work_is_refused_with_its_name() {
        for (more, named) in [
            ("windov = 1\n", "windov"),
            ("socket_mode = '0666'\n", "0666"),
            ("state = 'here'\n", "here"),
            ("jobs = 0\n", "jobs"),
            ("[[server]]\nname = 'shop'\npolicy = 'prod'\n", "prod"),
            ("[policy.prod]\nmax_age = '1s'\n", "prod"),
            ("[log]\nlevel = 'loud'\n", "loud"),
            ("[prune]\nshare = 101\n", "prune.share"),
            ("[alerts]\nping = 'http://example.org/x'\n", "example.org"),
            ("[alerts]\nping = 'hc-ping'\n", "hc-ping"),
            ("[alerts]\nping = '/ping'\n", "no host"),
            ("[[alerts.webhook]]\nurl = 'https://example.org/'\nsecret_file = '/no/secret'\n", "/no/secret"),
            ("[alerts.mail]\nhost = 'mail.example.org'\nfrom = 'nobody'\nto = ['a@b.org']\n", "'nobody'"),
            ("[limits]\nbandwidth = ['fast']\n", "'fast'"),
            ("[approval]\nrequired = true\n", "[listen]"),
            ("[approval]\nwithin = 0\n", "approval.within"),
            ("[limits]\ntimezone = 'Mars'\n", "Mars"),
            ("[drills]\nprove = 'much'\n", "much"),
            ("[drills]\ninto = 'here'\n", "here"),
            ("[drills]\nquery_time = 0\n", "query_time"),
            ("[[server]]\nname = 'shop'\ncheck_queries = ['SELECT 1 -- expects: 2']\n", "'expects:'"),
            ("[[server]]\nname = 'shop'\ncheck_file = '/no/checks.sql'\n", "/no/checks.sql"),
        ] {
            let error = load(&format!("{LEAST}{more}")).unwrap_err();
            assert!(error.message.contains(named), "{more}: {}", error.message);
        }
    }

    /// Every line of the file that is shipped shows a key that is read.
    #[test]
    fn the_file_that_is_shipped_can_be_used_with_every_line_of_it() {
        let shipped = include_str!("../../../tools/packaging/holdfast.toml");
        load(shipped).unwrap();
        let shows_a_key = |line: &&str| line.strip_prefix('#').is_some_and(|l| !l.starts_with(' '));
        assert!(shipped.lines().filter(shows_a_key).count() > 40);
        let all: Vec<&str> = shipped.lines().map(|l| if shows_a_key(&l) { &l[1..] } else { l }).collect();
        let dir = tempfile::tempdir().unwrap();
        let secret = dir.path().join("secret");
        std::fs::write(&secret, "s\n").unwrap();
        let secret = secret.to_str().unwrap();
        let text = all.join("\n").replace("/etc/holdfast/webhook-secret", secret);
        let text = text.replace("/etc/holdfast/mail-password", secret);
        let checks = dir.path().join("checks.sql");
        std::fs::write(&checks, "SELECT 1; -- expect: 1\n").unwrap();
        let text = text.replace("/etc/holdfast/shop-checks.sql", checks.to_str().unwrap());
        let config = load(&text).unwrap();
        assert_eq!(config.policies["default"], Policy::default());
        assert_eq!(config.queries_of("shop").unwrap().all.len(), 2);
        assert_eq!((config.prune, config.checks), (Prune::default(), Checks::default()));
    }

    #[test]
    fn a_network_holds_its_addresses_and_no_others() {
        let network: Network = "10.1.0.0/16".parse().unwrap();
        let holds = |text: &str| network.holds(text.parse().unwrap());
        assert!(holds("10.1.255.3") && holds("::ffff:10.1.2.3"));
        assert!(!holds("10.2.0.1") && !holds("::1"));
        assert!("0.0.0.0/0".parse::<Network>().unwrap().holds("203.0.113.9".parse().unwrap()));
        assert!(!"0.0.0.0/0".parse::<Network>().unwrap().holds("::1".parse().unwrap()));
        assert!("::/0".parse::<Network>().unwrap().holds("2001:db8::1".parse().unwrap()));
        assert!("10.0.0.0/33".parse::<Network>().is_err());
    }
}
