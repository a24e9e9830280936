//! `--as-replica-of`: the source, asked before anything is laid out whether it lets the account in, and how it tells
//! transactions.

use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::fail_over::{DEFAULT_PORT, host_and_port};
use crate::login::{connect, connect_options};
use crate::server::is_mariadb;
use crate::settings::Login;
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_mysql::{PublicKey, TlsMode};
use holdfast_restore::replica::Replica;
use std::path::PathBuf;

/// Whom the restored server replicates from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaOf {
    /// The source's host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The account; the protected server's without it.
    pub user: Option<String>,
    /// File whose first line is its password.
    pub password_file: Option<PathBuf>,
}

impl ReplicaOf {
    /// One of the protected server's own hosts, as `HOST` or `HOST:PORT`, with the account that it is known by: what somebody
    /// may name who is not trusted with that account. Another host would be shown its password.
    ///
    /// # Errors
    /// `Usage` for every other host.
    pub fn own_host(catalogue: &Catalogue, name: &str, text: &str) -> Result<Self> {
        let server = catalogue.server(name)?;
        let mut own = Vec::new();
        if let ServerKind::Network { host, port, .. } = &server.kind
            && !host.is_empty()
        {
            own.push((host.clone(), *port));
        }
        let members = catalogue.login(&server)?.map(|login| login.hosts).unwrap_or_default();
        own.extend(members.iter().filter_map(|host| host_and_port(host, DEFAULT_PORT).ok()));
        // Without a port it is the one that the host is known by.
        let (host, port) = host_and_port(text, 0)?;
        let found = own.iter().find(|known| known.0 == host && (port == 0 || known.1 == port));
        let Some((host, port)) = found.cloned() else {
            let mut known: Vec<String> = own.iter().map(|(host, port)| format!("{host}:{port}")).collect();
            known.sort();
            known.dedup();
            let next = match known.is_empty() {
                true => "its server has no host that is known; restore with the command line".to_owned(),
                false => format!("name {}, or restore with the command line", known.join(" or ")),
            };
            return Err(Error::usage(format!("{text} is no host of '{name}'.")).with_next(next));
        };
        Ok(Self { host, port, user: None, password_file: None })
    }
}

/// Logs in as the replica will, and asks what it needs to know.
pub(super) fn look(catalogue: &Catalogue, server: &ServerRecord, wanted: &ReplicaOf) -> Result<Replica> {
    let known = catalogue.login(server)?.unwrap_or_default();
    let login = match &wanted.user {
        Some(user) => Login {
            user: Some(user.clone()),
            password_file: wanted.password_file.clone(),
            defaults_file: None,
            ..known
        },
        None => known,
    };
    let kind = ServerKind::Network { host: wanted.host.clone(), port: wanted.port, socket: None };
    let at = ServerRecord { kind, ..server.clone() };
    let options = connect_options(&catalogue.environment, &at, Some(&login))?;
    let source = format!("{}:{}", wanted.host, wanted.port);
    let mut conn = connect(&options, &source).map_err(|error| {
        error.with_next(
            "check the address, and --replica-user and --replica-password-file; nothing was changed",
        )
    })?;
    if conn.server().is_mariadb() != is_mariadb(server) {
        return Err(Error::usage(format!(
            "{source} is {}, and '{}' is of the other family.",
            conn.server(),
            server.name
        )));
    }
    let mut ask = |sql: &str| {
        let told =
            conn.query_text(sql).map_err(|e| Error::failed(format!("{source} did not tell {sql}: {e}")))?;
        Ok::<_, Error>(told.unwrap_or_default())
    };
    if ask("SELECT @@GLOBAL.log_bin")? != "1" {
        return Err(Error::usage(format!("{source} writes no binary log: nothing can replicate from it.")));
    }
    let gtids = is_mariadb(server) || ask("SELECT @@GLOBAL.gtid_mode")? == "ON";
    if !gtids {
        // A file and an offset mean something in the log that they were taken from alone.
        let uuid = ask("SELECT @@GLOBAL.server_uuid")?;
        if server.source_uuid.is_none_or(|known| known.to_string() != uuid) {
            return Err(Error::usage(format!(
                "{source} has the server_uuid {uuid} and no GTIDs: where '{}' stood means nothing in its log.",
                server.name
            ))
            .with_next("name the protected server itself, or a host with gtid_mode = ON"));
        }
    }
    let tls = conn.is_tls();
    // The connection served its purpose; a failure to say goodbye changes nothing.
    let _ = conn.close();
    Ok(Replica {
        host: wanted.host.clone(),
        port: wanted.port,
        user: options.user.clone(),
        password: options.password.clone(),
        tls,
        ca: options.tls.ca.as_ref().map(|ca| ca.display().to_string()),
        verify: options.tls.mode == TlsMode::VerifyIdentity,
        public_key: options.public_key != PublicKey::None,
        gtids,
    })
}
