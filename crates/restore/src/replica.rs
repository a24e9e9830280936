//! `--as-replica-of`: the restored server carries on replicating, from where the restore led to.
//!
//! The channel is set up on the private server of the last start, before the fence, which keeps it still; the next start
//! after `restore finish` begins to replicate. The servers keep the account's password where they always do (MySQL in
//! `mysql.slave_master_info`, MariaDB in the folder's `master.info`); it is in no command line, no log and no file of ours.
//!
//! A server finds the applier's side of a channel by the name of its relay log, and that follows the host's name (MySQL) or
//! the pid file's (MariaDB). MariaDB makes that side anew where it is gone, so it is removed. MySQL does not (observed on
//! 9.7.4: errors 13124 and 1872); where the server is to have another `relay_log` than the private one had, `RESET REPLICA`
//! makes it anew and keeps the connection, but for a position.

use std::fs;
use std::path::Path;

use holdfast_mysql::{Conn, Flavor, Secret, ServerVersion};

use crate::error::{Error, Result};
use crate::report::Check;

/// Whom the restored server replicates from.
#[derive(Debug, Clone)]
pub struct Replica {
    /// The source's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The account.
    pub user: String,
    /// Its password.
    pub password: Option<Secret>,
    /// Whether the connection is encrypted.
    pub tls: bool,
    /// PEM file with the authorities that the source's certificate must come from.
    pub ca: Option<String>,
    /// And it must be for the host.
    pub verify: bool,
    /// Without TLS: the password may go under the key that the source sends.
    pub public_key: bool,
    /// The source tells transactions by GTIDs. MariaDB's always does.
    pub gtids: bool,
}

impl Replica {
    /// The source as `HOST:PORT`.
    #[must_use]
    pub fn source(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

/// Where the restored server stands.
#[derive(Debug, Clone, Default)]
pub struct Reached {
    /// In the source's log: file and offset, where that is known.
    pub position: Option<(String, u64)>,
    /// By GTIDs.
    pub gtids: String,
}

/// Sets the channel up, and reads back what the server made of it.
///
/// # Errors
/// Where the server refuses, or nothing says where the restore stands.
pub fn set_up(conn: &mut Conn, flavor: Flavor, replica: &Replica, reached: &Reached) -> Result<Check> {
    // Quotes are doubled, and nothing else means anything in a text.
    conn.execute("SET SESSION sql_mode = 'NO_BACKSLASH_ESCAPES'")?;
    // A channel that came with the copy must leave nothing behind: delays, filters, certificates.
    forget(conn, flavor)?;
    let (place, words) = match flavor {
        // From nowhere it would fetch everything that the source ever logged.
        Flavor::MariaDb if reached.gtids.is_empty() => {
            return Err(Error::NoPlace { source_server: replica.source() });
        }
        Flavor::MariaDb => {
            conn.execute(
                [b"SET GLOBAL gtid_slave_pos = ".as_slice(), &text(reached.gtids.as_bytes())].concat(),
            )?;
            (vec![option("MASTER_USE_GTID", b"slave_pos")], format!("GTID position '{}'", reached.gtids))
        }
        Flavor::MySql if replica.gtids => {
            (vec![option("AUTO_POSITION", b"1")], format!("GTID set '{}'", reached.gtids))
        }
        Flavor::MySql => {
            let (file, offset) = reached
                .position
                .as_ref()
                .ok_or_else(|| Error::NoPlace { source_server: replica.source() })?;
            let at = vec![
                option("LOG_FILE", &text(file.as_bytes())),
                option("LOG_POS", offset.to_string().as_bytes()),
            ];
            (at, format!("{file}:{offset}"))
        }
    };
    conn.execute(change(conn.server(), flavor, replica, place))?;
    let status = match (flavor, renamed(conn.server())) {
        (Flavor::MySql, true) => "SHOW REPLICA STATUS",
        _ => "SHOW SLAVE STATUS",
    };
    let status = conn.query(status)?;
    let of =
        |names: [&str; 2]| names.iter().find_map(|name| status.text_by_name(0, name)).unwrap_or_default();
    let mut failures = Vec::new();
    if status.rows.len() != 1 {
        failures.push(format!("the server has {} channels, not one", status.rows.len()));
    }
    let mut must_be = |what: &str, found: String, wanted: &str| {
        if found != wanted {
            failures.push(format!("the channel's {what} is '{found}', not '{wanted}'"));
        }
    };
    must_be("host", of(["Source_Host", "Master_Host"]), &replica.host);
    must_be("port", of(["Source_Port", "Master_Port"]), &replica.port.to_string());
    must_be("account", of(["Source_User", "Master_User"]), &replica.user);
    match (flavor, &reached.position) {
        (Flavor::MariaDb, _) => must_be("GTID mode", of(["Using_Gtid", "Using_Gtid"]), "Slave_Pos"),
        (Flavor::MySql, _) if replica.gtids => {
            must_be("auto position", of(["Auto_Position", "Auto_Position"]), "1");
        }
        (Flavor::MySql, Some((file, offset))) => {
            must_be("file", of(["Source_Log_File", "Master_Log_File"]), file);
            must_be("position", of(["Read_Source_Log_Pos", "Read_Master_Log_Pos"]), &offset.to_string());
        }
        (Flavor::MySql, None) => {}
    }
    let detail = format!(
        "it is set up to replicate from {} as '{}', behind {words}; it begins with its first start after `restore finish`",
        replica.source(),
        replica.user
    );
    Ok(Check::new("replica", detail, failures, Vec::new()))
}

/// Removes every channel.
///
/// # Errors
/// Where the server refuses.
pub fn forget(conn: &mut Conn, flavor: Flavor) -> Result<()> {
    conn.execute(match (flavor, renamed(conn.server())) {
        (Flavor::MySql, true) => "RESET REPLICA ALL",
        _ => "RESET SLAVE ALL",
    })?;
    Ok(())
}

/// What a person is to know of the scheduled events that came with a replica's copy: a replica runs none of its source's.
///
/// # Errors
/// Where the server does not answer.
pub fn events_that_sleep(conn: &mut Conn) -> Result<Option<String>> {
    let found = conn.query(
        "SELECT CONCAT(EVENT_SCHEMA, '.', EVENT_NAME) FROM information_schema.EVENTS WHERE STATUS LIKE '%SIDE_DISABLED' \
         ORDER BY 1",
    )?;
    let names: Vec<String> = (0..found.rows.len()).filter_map(|row| found.text(row, 0)).collect();
    if names.is_empty() {
        return Ok(None);
    }
    Ok(Some(format!(
        "The copy is a replica's, on which these scheduled events are disabled: {}; where the source runs them: ALTER \
         EVENT … ENABLE, after `holdfast restore finish`.",
        names.join(", ")
    )))
}

/// Begins to replicate, on a server that runs on after `restore finish`.
///
/// # Errors
/// Where the server refuses.
pub fn start(conn: &mut Conn, flavor: Flavor) -> Result<()> {
    conn.execute(match (flavor, renamed(conn.server())) {
        (Flavor::MySql, true) => "START REPLICA",
        _ => "START SLAVE",
    })?;
    Ok(())
}

/// After a shutdown: removes what ties MariaDB's channel to the name of the private server's relay log. Nothing was
/// fetched into it yet.
///
/// # Errors
/// Where a file can't be removed.
pub fn untie(folder: &Path, flavor: Flavor) -> Result<()> {
    if flavor == Flavor::MySql {
        return Ok(());
    }
    for entry in fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))? {
        let entry = entry.map_err(|source| Error::file("list", folder, source))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let relay = name == "relay-log.info" || name.contains("-relay-bin.");
        if relay && entry.file_type().is_ok_and(|kind| kind.is_file()) {
            fs::remove_file(entry.path()).map_err(|source| Error::file("remove", entry.path(), source))?;
        }
    }
    fs::File::open(folder)
        .and_then(|dir| dir.sync_all())
        .map_err(|source| Error::file("sync", folder, source))
}

/// MySQL says SOURCE and REPLICA since 8.0.23, and nothing else since 8.4.
fn renamed(version: &ServerVersion) -> bool {
    !version.is_mariadb() && version.numbers() >= (8, 0, 23)
}

fn option(name: &str, value: &[u8]) -> (String, Vec<u8>) {
    (name.to_owned(), value.to_vec())
}

fn change(
    version: &ServerVersion,
    flavor: Flavor,
    replica: &Replica,
    place: Vec<(String, Vec<u8>)>,
) -> Vec<u8> {
    let flag = |on: bool| if on { b"1".as_slice() } else { b"0" };
    let password = replica.password.as_ref().map_or(b"".as_slice(), |password| password.expose());
    let mut options = vec![
        option("HOST", &text(replica.host.as_bytes())),
        option("PORT", replica.port.to_string().as_bytes()),
        option("USER", &text(replica.user.as_bytes())),
        option("PASSWORD", &text(password)),
        option("SSL", flag(replica.tls)),
        option("SSL_VERIFY_SERVER_CERT", flag(replica.verify)),
    ];
    options.extend(replica.ca.as_ref().map(|ca| option("SSL_CA", &text(ca.as_bytes()))));
    if flavor == Flavor::MySql {
        options.push(("GET_PUBLIC_KEY".to_owned(), flag(replica.public_key).to_vec()));
    }
    options.extend(place);
    let (verb, prefix) =
        if renamed(version) { ("REPLICATION SOURCE", "SOURCE_") } else { ("MASTER", "MASTER_") };
    let mut sql = format!("CHANGE {verb} TO ").into_bytes();
    for (at, (name, value)) in options.iter().enumerate() {
        if at > 0 {
            sql.extend(b", ");
        }
        match name.as_str() {
            "GET_PUBLIC_KEY" => sql.extend(format!("GET_{prefix}PUBLIC_KEY").as_bytes()),
            name if name.starts_with("MASTER_") => sql.extend(name.as_bytes()),
            name => sql.extend(format!("{prefix}{name}").as_bytes()),
        }
        sql.extend(b" = ");
        sql.extend(value);
    }
    sql
}

/// A text in quotes, in a session without escapes.
fn text(bytes: &[u8]) -> Vec<u8> {
    let mut quoted = vec![b'\''];
    for byte in bytes {
        if *byte == b'\'' {
            quoted.push(b'\'');
        }
        quoted.push(*byte);
    }
    quoted.push(b'\'');
    quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn replica() -> Replica {
        Replica {
            host: "db1".to_owned(),
            port: 3307,
            user: "repl".to_owned(),
            password: Some(Secret::from("it's \\ secret")),
            tls: true,
            ca: None,
            verify: false,
            public_key: false,
            gtids: true,
        }
    }

    #[test]
    fn each_version_gets_its_own_words_and_quotes_are_doubled() {
        let of = |version: &str, flavor, place| {
            let sql = change(&ServerVersion::parse(version), flavor, &replica(), place);
            String::from_utf8(sql).unwrap()
        };
        let new = of("9.7.4", Flavor::MySql, vec![option("AUTO_POSITION", b"1")]);
        assert_eq!(
            new,
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = 'db1', SOURCE_PORT = 3307, SOURCE_USER = 'repl', \
             SOURCE_PASSWORD = 'it''s \\ secret', SOURCE_SSL = 1, SOURCE_SSL_VERIFY_SERVER_CERT = 0, \
             GET_SOURCE_PUBLIC_KEY = 0, SOURCE_AUTO_POSITION = 1"
        );
        let old = of("8.0.20", Flavor::MySql, vec![option("LOG_POS", b"4")]);
        assert!(
            old.starts_with("CHANGE MASTER TO MASTER_HOST") && old.ends_with("MASTER_LOG_POS = 4"),
            "{old}"
        );
        assert!(old.contains("GET_MASTER_PUBLIC_KEY"), "{old}");
        let maria = of("11.8.2-MariaDB", Flavor::MariaDb, vec![option("MASTER_USE_GTID", b"slave_pos")]);
        assert!(maria.ends_with(", MASTER_USE_GTID = slave_pos") && !maria.contains("PUBLIC_KEY"), "{maria}");
    }

    #[test]
    fn a_password_is_not_shown() {
        assert!(!format!("{:?}", replica()).contains("secret"));
    }
}
