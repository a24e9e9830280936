//! How to reach a server and as whom.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use zeroize::Zeroizing;

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Endpoint {
    /// A host name or address, and a port.
    Tcp {
        /// Name or address.
        host: String,
        /// Port, 3306 as a rule.
        port: u16,
    },
    /// A socket file on this machine.
    Unix(PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A password: wiped when dropped, never shown.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes the bytes over.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes themselves.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// How far TLS must go; the names are those of MySQL's `--ssl-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsMode {
    /// No TLS.
    Disabled,
    /// TLS if the server offers it; nobody's certificate is checked.
    #[default]
    Preferred,
    /// TLS or no connection; nobody's certificate is checked.
    Required,
    /// As `Required`, and the chain must end at a trusted authority.
    VerifyCa,
    /// As `VerifyCa`, and the certificate must be for this host.
    VerifyIdentity,
}

/// TLS: how far, and with which files.
#[derive(Debug, Clone, Default)]
pub struct TlsOptions {
    /// How far.
    pub mode: TlsMode,
    /// Trusted authorities in PEM; none: the system's.
    pub ca: Option<PathBuf>,
    /// Our own certificate chain in PEM.
    pub cert: Option<PathBuf>,
    /// Our own key in PEM.
    pub key: Option<PathBuf>,
}

/// Under which key a password may go to a server that wants the password itself, over a connection without TLS that
/// leaves this machine. Whoever can change what travels there can also put in a key of his own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PublicKey {
    /// Under none: the login fails, and says what to do.
    #[default]
    None,
    /// Under the one in this PEM file: MySQL's `server-public-key-path`.
    File(PathBuf),
    /// Under the one that the server, or whoever answers for it, sends: MySQL's `get-server-public-key`.
    AsSent,
}

/// Everything `Conn::connect` needs.
#[derive(Debug, Clone)]
pub struct ConnectOptions {
    /// Where.
    pub endpoint: Endpoint,
    /// As whom.
    pub user: String,
    /// With which password; none is the same as an empty one.
    pub password: Option<Secret>,
    /// Default schema.
    pub database: Option<String>,
    /// TLS.
    pub tls: TlsOptions,
    /// Where there is no TLS: under which key the password may be sent.
    pub public_key: PublicKey,
    /// Longest wait for the connection to open, per address, and for the greeting.
    pub connect_timeout: Duration,
    /// Longest silence of the server that is borne while we wait for an answer.
    pub read_timeout: Duration,
    /// Longest time for which the server may refuse to take bytes.
    pub write_timeout: Duration,
    /// Asks for several statements in one query packet. Off unless the caller writes all of the SQL himself.
    pub multi_statements: bool,
    /// What the server's lists of sessions show about us.
    pub program_name: String,
}

impl ConnectOptions {
    /// Options with the defaults: TLS preferred, 10 s to connect, 60 s of silence, no password.
    #[must_use]
    pub fn new(endpoint: Endpoint, user: impl Into<String>) -> Self {
        Self {
            endpoint,
            user: user.into(),
            password: None,
            database: None,
            tls: TlsOptions::default(),
            public_key: PublicKey::None,
            connect_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(60),
            write_timeout: Duration::from_secs(60),
            multi_statements: false,
            program_name: "holdfast".to_owned(),
        }
    }

    /// The same with a password.
    #[must_use]
    pub fn password(mut self, password: Secret) -> Self {
        self.password = Some(password);
        self
    }

    /// The same, and the password may go under the key that the server sends.
    #[must_use]
    pub fn trust_key_as_sent(mut self) -> Self {
        self.public_key = PublicKey::AsSent;
        self
    }

    /// The same with another way of TLS.
    #[must_use]
    pub fn tls_mode(mut self, mode: TlsMode) -> Self {
        self.tls.mode = mode;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let options = ConnectOptions::new(Endpoint::Unix("/tmp/s".into()), "root").password("geheim".into());
        assert!(!format!("{options:?}").contains("geheim"));
    }
}
