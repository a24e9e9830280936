//! Everything that can go wrong between us and a server.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What the server itself said: an ERR packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerError {
    /// The server's error number, such as 1045 (access denied) or 1236 (binlog not there).
    pub code: u16,
    /// Five characters of SQLSTATE; `HY000` where the server sent none.
    pub sqlstate: String,
    /// The message in the server's words.
    pub message: String,
}

impl fmt::Display for ServerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ERROR {} ({}): {}", self.code, self.sqlstate, self.message)
    }
}

/// An error of a connection. Texts name the object and, when known, the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection could be made.
    #[error("can't connect to {endpoint}: {source}. Is the server running and reachable from here?")]
    Connect {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// The system's word.
        source: std::io::Error,
    },
    /// The connection broke while it was in use.
    #[error("the connection to {endpoint} broke while {doing}: {source}")]
    Io {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// What we were doing.
        doing: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// The server closed the connection.
    #[error("{endpoint} closed the connection while we were {doing}")]
    Closed {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// What we were doing.
        doing: &'static str,
    },
    /// Nothing came within the time allowed.
    #[error("{endpoint} sent nothing for {waited:?} while we were {doing}")]
    Timeout {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// What we were doing.
        doing: &'static str,
        /// The limit that passed.
        waited: Duration,
    },
    /// The server answered with an error.
    #[error("the server answered: {0}")]
    Server(ServerError),
    /// Bytes that the protocol does not allow at this place.
    #[error("the server broke the protocol in {place}: expected {expected}, got {got}")]
    Protocol {
        /// Which packet or field.
        place: &'static str,
        /// What the protocol says.
        expected: String,
        /// What came.
        got: String,
    },
    /// Something larger than our limit.
    #[error("{what} is {got} bytes, more than the limit of {limit}")]
    TooLarge {
        /// Which thing.
        what: &'static str,
        /// Its size or what had come when we stopped.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// An authentication that cannot go on.
    #[error("can't log in to {endpoint} as {user}: {reason}")]
    Auth {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// The account.
        user: String,
        /// Why, and what to do.
        reason: String,
    },
    /// TLS was asked for and cannot be had, or failed.
    #[error("no TLS connection to {endpoint}: {reason}")]
    Tls {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// Why, and what to do.
        reason: String,
    },
    /// The server cannot do what was asked of it.
    #[error("{endpoint} ({version}) can't do this: {reason}")]
    Unsupported {
        /// Host and port, or the socket's path.
        endpoint: String,
        /// The server's version text.
        version: String,
        /// What is missing.
        reason: String,
    },
    /// A connection left in an unknown state by an earlier error.
    #[error("the connection to {endpoint} can't be used any more after an earlier error; connect again")]
    Poisoned {
        /// Host and port, or the socket's path.
        endpoint: String,
    },
    /// A file of the user's (options, password, certificate) that cannot be used.
    #[error("{path}: {reason}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

impl Error {
    /// The server's error number if the server itself answered with an error.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Server(error) => Some(error.code),
            _ => None,
        }
    }

    /// True for a failure of the network or the peer's life, after which connecting again may help.
    #[must_use]
    pub fn is_network(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Io { .. } | Self::Closed { .. } | Self::Timeout { .. } => true,
            // 1053 shutdown in progress, 1927 connection was killed (MariaDB), 3169 session was killed,
            // 4031 disconnected for inactivity: the peer went away in words instead of by a FIN.
            Self::Server(error) => matches!(error.code, 1053 | 1077 | 1927 | 3169 | 4031),
            _ => false,
        }
    }

    /// True if only the time allowed passed; the connection itself is still in step.
    #[must_use]
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    pub(crate) fn protocol(place: &'static str, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Self::Protocol { place, expected: expected.into(), got: got.into() }
    }
}
