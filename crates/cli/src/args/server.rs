//! Which servers are protected.

use clap::{Args, Subcommand, ValueEnum};
use std::path::PathBuf;

/// `holdfast server …`.
#[derive(Debug, Subcommand)]
pub enum ServerVerb {
    /// Protect a server, or a stopped server's folder
    Add(Box<ServerAdd>),
    /// List the protected servers
    List {
        /// Those that were removed and can be brought back
        #[arg(long)]
        removed: bool,
    },
    /// Show what is known about one server
    Show {
        /// The server's name
        name: String,
    },
    /// Lock a server: neither it nor any of its backups can be taken away, by whatever command
    ///
    /// With --daemon, retention goes on by the policy of the moment, and no shorter one takes anything away. Without, and
    /// with --everything, nothing of the server is forgotten at all.
    Lock {
        /// The server's name
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
        /// Retention forgets nothing either
        #[arg(long)]
        everything: bool,
    },
    /// End a server's lock
    Unlock {
        /// The server's name
        name: String,
        /// Why, for the record
        #[arg(long, value_name = "TEXT", default_value = "")]
        reason: String,
    },
    /// Protect a server no more; its backups and its log stay, and `undelete` brings it back
    Remove {
        /// The server's name
        name: String,
        /// The server's name again
        #[arg(long, value_name = "NAME")]
        confirm: String,
    },
    /// Bring a removed server back, with its backups and its log
    Undelete {
        /// The server's name
        name: String,
    },
}

/// How `server add` is told to reach the server.
#[derive(Args, Debug)]
pub struct ServerAdd {
    /// The name to give it
    pub name: String,
    /// Host name or address, with a port of its own as HOST:PORT; several, with commas between them, where the server is a
    /// replication set with GTIDs: the first one is the server now, and the archive goes over to the one that is promoted
    #[arg(long, value_name = "HOST[,HOST]", conflicts_with_all = ["socket", "folder"])]
    pub host: Option<String>,
    /// With several hosts: after how many seconds without an answer another one is asked
    #[arg(long, value_name = "SECONDS", requires = "host", default_value_t = 30)]
    pub fail_over_after: u64,
    /// TCP port
    #[arg(long, default_value_t = 3306)]
    pub port: u16,
    /// Unix socket, in place of host and port
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    pub socket: Option<PathBuf>,
    /// A stopped server's datadir or any folder: backups without a log
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Account to log in with
    #[arg(long, conflicts_with = "folder")]
    pub user: Option<String>,
    /// File whose first line is the account's password
    #[arg(long, value_name = "FILE", conflicts_with_all = ["folder", "defaults_file"])]
    pub password_file: Option<PathBuf>,
    /// MySQL option file with a client group
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    pub defaults_file: Option<PathBuf>,
    /// Encryption of the connection
    #[arg(long, value_enum, default_value_t = TlsArg::Preferred)]
    pub tls: TlsArg,
    /// PEM file of the certificate authority
    #[arg(long, value_name = "FILE")]
    pub tls_ca: Option<PathBuf>,
    /// Without TLS: PEM file of the server's public key, to send the password under
    #[arg(long, value_name = "FILE", conflicts_with = "folder")]
    pub server_public_key_path: Option<PathBuf>,
    /// Without TLS: send the password under whatever key the server sends; whoever sits between can read it
    #[arg(long, conflicts_with_all = ["folder", "server_public_key_path"])]
    pub get_server_public_key: bool,
    /// The server of this name was rebuilt or replaced, and has another server_uuid: its log begins anew
    #[arg(long, conflicts_with = "folder")]
    pub rebuilt: bool,
    /// MariaDB: where mariadb-backup is, or a whole command that writes a full backup as xbstream, for example
    /// "ssh db1 mariadb-backup --backup --stream=xbstream"
    #[arg(long, value_name = "COMMAND")]
    pub backup_command: Option<String>,
}

/// `--tls`.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum TlsArg {
    /// Plain text
    Disabled,
    /// TLS when the server offers it
    Preferred,
    /// TLS or nothing
    Required,
    /// TLS, certificate signed by the CA
    VerifyCa,
    /// TLS, certificate for this host
    VerifyIdentity,
}
