//! How this user reaches a server: endpoint from the repository, account from his configuration.

use crate::error::{Error, Result};
use crate::settings::{Environment, Login, Tls};
use holdfast_format::record::{ServerKind, ServerRecord};
use holdfast_mysql::credentials::{GROUPS, read_defaults_file, read_option_files, read_password_file};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, PublicKey, TlsMode};
use std::path::PathBuf;

/// Options to connect to `server` as its login says.
///
/// Later ones win: the option files that MySQL's own client reads, the login's defaults
/// file, the login's account and password file. The endpoint is always the repository's.
///
/// # Errors
/// `Usage` when the server is a folder, no account is known, or a file can't be read.
pub fn connect_options(
    environment: &Environment,
    server: &ServerRecord,
    login: Option<&Login>,
) -> Result<ConnectOptions> {
    let endpoint = endpoint(server)?;
    let mut options = ConnectOptions::new(endpoint.clone(), "");
    let unreadable = |e: holdfast_mysql::Error| Error::usage(e.to_string());
    read_option_files(&environment.option_files, &GROUPS).map_err(unreadable)?.apply(&mut options);
    if let Some(login) = login {
        if let Some(file) = &login.defaults_file {
            read_defaults_file(file, &GROUPS).map_err(unreadable)?.apply(&mut options);
        }
        if let Some(user) = &login.user {
            options.user.clone_from(user);
        }
        if let Some(file) = &login.password_file {
            options.password = Some(read_password_file(file).map_err(unreadable)?);
        }
        if login.tls != Tls::Preferred {
            options.tls.mode = tls_mode(login.tls);
        }
        if login.get_server_public_key {
            options.public_key = PublicKey::AsSent;
        }
        if let Some(file) = &login.server_public_key {
            options.public_key = PublicKey::File(file.clone());
        }
        if login.tls_ca.is_some() {
            options.tls.ca.clone_from(&login.tls_ca);
        }
    }
    options.endpoint = endpoint;
    options.database = None;
    if options.user.is_empty() {
        return Err(Error::usage(format!("No account is known for the server '{}'.", server.name))
            .with_next(format!(
                "run `holdfast server add {} …` again on this host with --user and --password-file, or put user and \
                 password into the [client] group of ~/.my.cnf",
                server.name
            )));
    }
    Ok(options)
}

/// Connects, and turns a refusal into a sentence with the next step.
///
/// # Errors
/// `Failed` with what the server or the network said.
pub fn connect(options: &ConnectOptions, name: &str) -> Result<Conn> {
    Conn::connect(options).map_err(|error| unreachable_server(name, options, &error))
}

/// The sentence for a server that did not let us in.
pub(crate) fn unreachable_server(
    name: &str,
    options: &ConnectOptions,
    error: &holdfast_mysql::Error,
) -> Error {
    const ER_ACCESS_DENIED: u16 = 1045;
    let message = format!("The server '{name}' at {} can't be used: {error}", options.endpoint);
    match error.code() {
        Some(ER_ACCESS_DENIED) => Error::failed(message).with_next(format!(
            "check the account '{}' and its password file; `holdfast server add {name}` with other values replaces them",
            options.user
        )),
        _ if error.is_network() => {
            Error::failed(message).with_next("check that the server runs, and its address and port")
        }
        _ => Error::failed(message),
    }
}

/// Where the server listens.
///
/// # Errors
/// `Usage` for a folder.
pub fn endpoint(server: &ServerRecord) -> Result<Endpoint> {
    match &server.kind {
        ServerKind::Network { socket: Some(path), .. } => Ok(Endpoint::Unix(PathBuf::from(path))),
        ServerKind::Network { host, port, socket: None } => {
            Ok(Endpoint::Tcp { host: host.clone(), port: *port })
        }
        ServerKind::Folder { path } => Err(Error::usage(format!(
            "'{}' is the folder {path}: it has no log and no connection.",
            server.name
        ))
        .with_next("add the server itself with --host or --socket to protect it between backups")),
    }
}

fn tls_mode(tls: Tls) -> TlsMode {
    match tls {
        Tls::Disabled => TlsMode::Disabled,
        Tls::Preferred => TlsMode::Preferred,
        Tls::Required => TlsMode::Required,
        Tls::VerifyCa => TlsMode::VerifyCa,
        Tls::VerifyIdentity => TlsMode::VerifyIdentity,
    }
}
