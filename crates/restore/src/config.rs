//! `--with-config` and `--set`: the source's settings as an option file of the restored folder.
//!
//! A backup keeps the settings that were not the server's defaults (fact `settings`; `source/src/server_facts.rs`). Each is
//! written here in one of two ways: as a setting, or, where it names a place, an identity or code of the source's host, as a
//! comment with the reason. What comes from the source is `loose_`: a server that lacks a plugin warns and starts. The server
//! of the last start has them too, so that a file that no server starts with is not handed over; what it then says of itself
//! is compared.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use holdfast_mysql::{Conn, Flavor};

use crate::error::{Error, Result};
use crate::report::Check;
use crate::run::source_settings;

/// Its name in the restored folder.
pub const CONFIG_FILE: &str = "holdfast-source.cnf";

/// The fact: a line `name=value` each.
pub const FACT: &str = "settings";

/// What the restored server is started with beside what the copy needs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Config {
    /// As options of the command line.
    pub args: Vec<String>,
    /// The option file's text.
    pub text: String,
    /// What the server must say of itself then.
    expected: BTreeMap<String, String>,
}

/// Settings that say where or who the source was, or in which state: a sentence each.
const LEFT: [(&str, &[&str]); 5] = [
    (
        "a place of the source's host",
        &[
            "basedir",
            "bind_address",
            "character_sets_dir",
            "datadir",
            "general_log_file",
            "innodb_directories",
            "lc_messages_dir",
            "log_error",
            "pid_file",
            "plugin_dir",
            "port",
            "secure_file_priv",
            "skip_networking",
            "slow_query_log_file",
            "socket",
            "tmpdir",
            "slave_load_tmpdir",
            "replica_load_tmpdir",
            "extra_port",
        ],
    ),
    (
        "which server it was",
        &["hostname", "report_host", "report_port", "report_user", "server_id", "server_uuid", "server_uid"],
    ),
    (
        "code or statements that the restored server would run",
        &[
            "early_plugin_load",
            "init_connect",
            "init_file",
            "init_replica",
            "init_slave",
            "log_error_services",
            "plugin_load",
            "plugin_load_add",
            "plugin_maturity",
            "authentication_policy",
            "default_authentication_plugin",
        ],
    ),
    (
        "a state, and no setting of a server that stands alone",
        &[
            "gtid_binlog_pos",
            "gtid_binlog_state",
            "gtid_current_pos",
            "gtid_executed",
            "gtid_purged",
            "gtid_slave_pos",
            "innodb_force_recovery",
            "innodb_read_only",
            "offline_mode",
            "read_only",
            "skip_replica_start",
            "skip_slave_start",
            "super_read_only",
            "innodb_fast_shutdown",
        ],
    ),
    (
        "what sessions are given, and no option",
        &[
            "character_set_client",
            "character_set_connection",
            "character_set_database",
            "character_set_results",
            "collation_connection",
            "collation_database",
        ],
    ),
];

/// Settings of the file that the private servers are not given: behind the fence no event fires, and what is said to a
/// server there goes into no log.
const FILE_ALONE: [&str; 3] = ["event_scheduler", "general_log", "slow_query_log"];

/// Beginnings of names of clusters and protocols that a restored server has no part in.
const LEFT_GROUPS: [&str; 6] =
    ["wsrep_", "group_replication_", "mysqlx_", "rpl_semi_sync_", "admin_", "replicate_"];

/// Endings of names of places.
const PLACES: [&str; 9] =
    ["_dir", "_directory", "_path", "_file", "_basename", "_index", "_ca", "_cert", "_key"];

/// What no user may set this way: the restore itself gives it.
const OURS: [&str; 12] = [
    "datadir",
    "socket",
    "port",
    "pid_file",
    "log_error",
    "init_file",
    "tmpdir",
    "secure_file_priv",
    "user",
    "defaults_file",
    "bind_address",
    "skip_networking",
];

/// Reads `NAME=VALUE`.
///
/// # Errors
/// What is wrong with it, as a sentence without its end.
pub fn parse_set(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or_else(|| format!("'{text}' is not NAME=VALUE"))?;
    let name = name.trim().to_ascii_lowercase().replace('-', "_");
    let fine = !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'.');
    if !fine || value.contains(['\n', '\r', '\0']) {
        return Err(format!("'{text}' is no setting"));
    }
    // Servers take beginnings of names, and words before them.
    let mut bare = name.as_str();
    while let Some(rest) =
        ["loose_", "skip_", "enable_", "disable_", "maximum_"].iter().find_map(|word| bare.strip_prefix(word))
    {
        bare = rest;
    }
    if let Some(ours) =
        OURS.iter().find(|ours| ours.starts_with(bare) || ours.trim_start_matches("skip_") == bare)
    {
        return Err(format!("{ours} is given by the restore itself"));
    }
    Ok((name, value.trim().to_owned()))
}

impl Config {
    /// Of the facts of a base. `with`: the source's settings; `set`: what somebody wants, which counts more. `memory` is
    /// what this host has for a buffer pool.
    pub fn new<'f>(
        fact: &dyn Fn(&str) -> Option<&'f str>,
        flavor: Flavor,
        with: bool,
        set: &[(String, String)],
        memory: u64,
    ) -> Self {
        let mut config = Self::default();
        let mut out = String::from("# Written by a restore. What the copy needs to be opened:\n[mysqld]\n");
        for arg in source_settings(fact, flavor) {
            let line = arg.trim_start_matches("--");
            let (name, value) = line.split_once('=').unwrap_or((line, ""));
            put(&mut out, &name.replace('-', "_"), value);
        }
        let wanted = |name: &str| set.iter().any(|(known, _)| known == name);
        if with {
            config.of_source(fact, &wanted, memory, &mut out);
        }
        if !set.is_empty() {
            out.push_str("\n# Given to the restore by --set:\n");
        }
        for (name, value) in set {
            put(&mut out, name, value);
            let state = LEFT.iter().any(|(_, names)| names.contains(&name.as_str()));
            if state || FILE_ALONE.contains(&name.as_str()) || name.starts_with("log_bin") {
                continue;
            }
            config.args.push(format!("--{name}={value}"));
            config.expected.insert(variable(name).to_owned(), value.clone());
        }
        config.text = out;
        config
    }

    fn of_source<'f>(
        &mut self,
        fact: &dyn Fn(&str) -> Option<&'f str>,
        wanted: &dyn Fn(&str) -> bool,
        memory: u64,
        out: &mut String,
    ) {
        let Some(settings) = fact(FACT) else {
            out.push_str(
                "\n# The backup does not have the source's settings: its account may not read them (MySQL: GRANT SELECT ON\n\
                 # performance_schema.*), or it was taken by an older version. Known are its time zone and binary log.\n",
            );
            self.zone(fact, wanted, out);
            self.binary_log(fact, wanted, out);
            return;
        };
        out.push_str("\n# The source's settings that were not its server's defaults:\n");
        let mut left = String::new();
        for (name, value) in settings.lines().filter_map(|line| line.split_once('=')) {
            if wanted(name) || matches!(name, "log_bin" | "time_zone" | "default_time_zone") {
                continue;
            }
            match reason_to_leave(name, value, memory) {
                // Writing to a string can't fail.
                Some(why) => drop(writeln!(left, "# {name} = {value}    ({why})")),
                None => self.put(out, name, value),
            }
        }
        self.zone(fact, wanted, out);
        self.binary_log(fact, wanted, out);
        if !left.is_empty() {
            out.push_str("\n# Left out, and why:\n");
            out.push_str(&left);
        }
    }

    fn put(&mut self, out: &mut String, name: &str, value: &str) {
        put(out, &format!("loose_{name}"), value);
        if FILE_ALONE.contains(&name) {
            return;
        }
        self.args.push(format!("--loose-{name}={value}"));
        self.expected.insert(variable(name).to_owned(), value.to_owned());
    }

    /// A zone by its offset or its name is a setting; the host's own is one where it is UTC.
    fn zone<'f>(
        &mut self,
        fact: &dyn Fn(&str) -> Option<&'f str>,
        wanted: &dyn Fn(&str) -> bool,
        out: &mut String,
    ) {
        if wanted("default_time_zone") {
            return;
        }
        let system = fact("system_time_zone").unwrap_or_default();
        match (fact("time_zone"), system) {
            (None, _) => {}
            (Some("SYSTEM"), "UTC" | "GMT") => self.put_zone(out, "+00:00"),
            (Some("SYSTEM"), system) => drop(writeln!(
                out,
                "# The source used its host's time zone, {system}. If this host has another one, set default_time_zone."
            )),
            (Some(zone), _) => self.put_zone(out, zone),
        }
    }

    fn put_zone(&mut self, out: &mut String, zone: &str) {
        put(out, "default_time_zone", zone);
        self.args.push(format!("--default-time-zone={zone}"));
        self.expected.insert("time_zone".to_owned(), zone.to_owned());
    }

    /// The private servers have none, so it stands in the file alone.
    fn binary_log<'f>(
        &self,
        fact: &dyn Fn(&str) -> Option<&'f str>,
        wanted: &dyn Fn(&str) -> bool,
        out: &mut String,
    ) {
        if wanted("log_bin") || fact("log_bin") != Some("ON") {
            return;
        }
        let base = fact("log_bin_basename").and_then(|base| Path::new(base).file_name()?.to_str());
        put(out, "log_bin", base.unwrap_or("binlog"));
    }

    /// Writes the file durably.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path = folder.join(CONFIG_FILE);
        let write = || {
            use std::io::Write as _;
            use std::os::unix::fs::OpenOptionsExt as _;
            let mut options = fs::OpenOptions::new();
            // Settings may hold what is nobody's business.
            let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&path)?;
            file.write_all(self.text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(|source| Error::file("write", path, source))
    }

    /// Compares what the started server says of itself with what it was given. What differs is told, and fails nothing: a
    /// server rounds sizes, and knows no setting of a plugin that it lacks.
    ///
    /// # Errors
    /// Where it does not answer.
    pub fn check(&self, conn: &mut Conn) -> Result<Check> {
        let rows = conn.query("SHOW GLOBAL VARIABLES")?;
        let mut found = BTreeMap::new();
        for row in 0..rows.rows.len() {
            if let (Some(name), Some(value)) = (rows.text(row, 0), rows.text(row, 1)) {
                found.insert(name.to_ascii_lowercase(), value);
            }
        }
        let mut differs = Vec::new();
        for (name, value) in &self.expected {
            match found.get(name) {
                None => differs.push(format!("{name} = {value}: this server does not know it")),
                Some(is) if plain(is) != plain(value) => {
                    differs.push(format!("{name} is {is} here, not {value}"))
                }
                Some(_) => {}
            }
        }
        let detail = format!(
            "the server was started with {} settings of {CONFIG_FILE} and says {} of them of itself",
            self.expected.len(),
            self.expected.len() - differs.len()
        );
        Ok(Check::new("source-settings", detail, Vec::new(), differs))
    }
}

/// Why a setting stands in a comment.
fn reason_to_leave(name: &str, value: &str, memory: u64) -> Option<String> {
    let known = LEFT.iter().find(|(_, names)| names.contains(&name)).map(|(why, _)| (*why).to_owned());
    if known.is_some() {
        return known;
    }
    if LEFT_GROUPS.iter().any(|group| name.starts_with(group)) {
        return Some("of a cluster, a replica or another protocol".to_owned());
    }
    if value.starts_with(['/', '~'])
        || value.starts_with("./")
        || PLACES.iter().any(|end| name.ends_with(end))
    {
        return Some("a place of the source's host".to_owned());
    }
    if name == "innodb_buffer_pool_size" && value.parse().is_ok_and(|bytes: u64| bytes > memory) {
        return Some("more than this host has free".to_owned());
    }
    None
}

/// The variable that an option sets.
fn variable(option: &str) -> &str {
    match option {
        "default_time_zone" => "time_zone",
        other => other,
    }
}

/// A line of an option file. In quotes, a value may hold `#` and blanks.
fn put(out: &mut String, name: &str, value: &str) {
    let bare =
        !value.is_empty() && value.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-+.,:/@%=".contains(&b));
    // Writing to a string can't fail.
    let _ = if bare {
        writeln!(out, "{name} = {value}")
    } else {
        writeln!(out, "{name} = \"{}\"", value.replace('\\', "\\\\").replace('"', "\\\""))
    };
}

/// A value as it is compared: sizes as bytes, switches as 0 and 1, lists in any case and order.
fn plain(value: &str) -> String {
    let value = value.trim().to_ascii_lowercase();
    match value.as_str() {
        "on" | "true" | "yes" => return "1".to_owned(),
        "off" | "false" | "no" => return "0".to_owned(),
        _ => {}
    }
    let shift = match value.bytes().last() {
        Some(b'k') => 10,
        Some(b'm') => 20,
        Some(b'g') => 30,
        Some(b't') => 40,
        _ => 0,
    };
    let digits = value.trim_end_matches(['k', 'm', 'g', 't']);
    if shift > 0
        && value.len() == digits.len() + 1
        && let Ok(number) = digits.parse::<u64>()
    {
        return (number << shift).to_string();
    }
    if let Ok(number) = value.parse::<f64>() {
        return number.to_string();
    }
    let mut parts: Vec<&str> = value.split(',').collect();
    parts.sort_unstable();
    parts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: &str = "innodb_buffer_pool_size=137438953472\nmax_connections=321\nserver_id=7\nsocket=/run/s\n\
                            sql_mode=\nlog_bin=ON\ntime_zone=Europe/Berlin\nplugin_load_add=auth_socket\nssl_ca=ca.pem\n\
                            innodb_ft_server_stopword_table=a b#c\nwsrep_on=OFF\nevent_scheduler=ON";

    fn fact(name: &str) -> Option<&'static str> {
        match name {
            FACT => Some(SETTINGS),
            "time_zone" => Some("Europe/Berlin"),
            "log_bin" => Some("ON"),
            "log_bin_basename" => Some("/var/log/mysql/bin"),
            "lower_case_table_names" => Some("1"),
            _ => None,
        }
    }

    #[test]
    fn settings_are_brought_back_and_places_and_identities_are_told() {
        let set = [parse_set("max-connections = 99").unwrap()];
        let config = Config::new(&fact, Flavor::MySql, true, &set, 1 << 30);
        for line in [
            "lower_case_table_names = 1",
            "loose_sql_mode = \"\"",
            "loose_innodb_ft_server_stopword_table = \"a b#c\"",
            "default_time_zone = Europe/Berlin",
            "log_bin = bin",
            "max_connections = 99",
            "# innodb_buffer_pool_size = 137438953472    (more than this host has free)",
            "# server_id = 7    (which server it was)",
            "# socket = /run/s    (a place of the source's host)",
            "# ssl_ca = ca.pem    (a place of the source's host)",
            "# plugin_load_add = auth_socket    (code or statements that the restored server would run)",
        ] {
            assert!(config.text.lines().any(|found| found == line), "{line} in\n{}", config.text);
        }
        assert!(config.text.contains("loose_event_scheduler = ON"), "{}", config.text);
        assert!(
            !config.args.iter().any(|arg| arg.contains("event_scheduler")),
            "no event fires behind the fence"
        );
        assert!(!config.text.contains("321"), "what is set counts");
        assert!(config.args.contains(&"--max_connections=99".to_owned()), "{:?}", config.args);
        assert!(config.args.contains(&"--default-time-zone=Europe/Berlin".to_owned()), "{:?}", config.args);
        assert!(!config.args.iter().any(|arg| arg.contains("log_bin") || arg.contains("socket")));
        let alone = Config::new(&fact, Flavor::MySql, false, &set, 1 << 30);
        assert_eq!(alone.args, ["--max_connections=99"]);
    }

    #[test]
    fn the_hosts_own_zone_is_a_setting_where_it_is_utc() {
        let of = |system: &'static str| {
            let fact = move |name: &str| match name {
                "time_zone" => Some("SYSTEM"),
                "system_time_zone" => Some(system),
                _ => None,
            };
            Config::new(&fact, Flavor::MariaDb, true, &[], 1 << 30).text
        };
        assert!(of("UTC").contains("default_time_zone = +00:00\n"));
        assert!(of("CET").contains("# The source used its host's time zone, CET."));
    }

    #[test]
    fn values_are_compared_as_servers_write_them() {
        for (one, other) in [("64M", "67108864"), ("ON", "1"), ("B,a", "A,b"), ("0.50", "0.500000")] {
            assert_eq!(plain(one), plain(other));
        }
        assert_ne!(plain("1"), plain("2"));
        assert_ne!(plain("m"), plain("0"));
        for wrong in [
            "max_connections",
            "=1",
            "a b=1",
            "port=3",
            "x=\n[client]",
            "loose-datadir=/x",
            "datadi=/x",
            "skip-networking=0",
            "loose_skip_networking=0",
        ] {
            assert!(parse_set(wrong).is_err(), "{wrong}");
        }
    }
}
