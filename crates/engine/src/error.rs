//! Everything that can go wrong with a private server.

use std::path::PathBuf;
use std::time::Duration;

/// Result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of a private server. Texts name the object and, when known, the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No server program was found.
    #[error(
        "no {wanted} found in {looked_in}. Install the server's package, or name a folder that holds its programs with --engine-dir."
    )]
    NoPrograms {
        /// What was looked for, such as `MySQL 9.7.4-2`.
        wanted: String,
        /// The folders.
        looked_in: String,
    },
    /// Server programs were found, and none of them may open this data.
    #[error(
        "this needs {wanted}, but there is only {found}. {why}. Name a folder that holds a fitting server's programs with --engine-dir."
    )]
    WrongVersion {
        /// The version that the data came from.
        wanted: String,
        /// The versions found, with their paths.
        found: String,
        /// The rule that they break.
        why: String,
    },
    /// A helper program of the server is missing.
    #[error("{program} is missing beside {server}. It comes with the package {package}.")]
    NoHelper {
        /// Its name.
        program: String,
        /// The server program.
        server: PathBuf,
        /// Debian's package.
        package: &'static str,
    },
    /// A program could not be run at all.
    #[error("{program} can't be run: {source}")]
    Run {
        /// The program.
        program: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A program ended with an error.
    #[error("{program} failed ({status}){tail}")]
    Failed {
        /// The program and what it was doing.
        program: String,
        /// How it ended.
        status: String,
        /// The end of its log, on lines of its own; empty if it wrote none.
        tail: String,
    },
    /// A program did not come to its end in time.
    #[error("{program} did not finish within {limit:?}{tail}")]
    Deadline {
        /// The program and what we waited for.
        program: String,
        /// The limit.
        limit: Duration,
        /// The end of its log, on lines of its own; empty if it wrote none.
        tail: String,
    },
    /// The caller called it off; the program was killed.
    #[error("{program} was called off")]
    Cancelled {
        /// The program and what it was doing.
        program: String,
    },
    /// A folder that another server uses.
    #[error("{datadir} is in use by the server process {pid}. Stop it first.")]
    InUse {
        /// The folder.
        datadir: PathBuf,
        /// The process.
        pid: i32,
    },
    /// A path that cannot be given to a server.
    #[error("the path {path} can't be used for a server's {purpose}: {reason}")]
    Path {
        /// The path.
        path: PathBuf,
        /// What for.
        purpose: &'static str,
        /// Why not.
        reason: String,
    },
    /// A file or folder around the server could not be read or written.
    #[error("can't {doing} {path}: {source}")]
    File {
        /// What we were doing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// Something that a server reported and that we cannot read.
    #[error("{place} is not understood: expected {expected}, got {got}")]
    Unreadable {
        /// Which file or answer.
        place: String,
        /// What it should be.
        expected: &'static str,
        /// What it is.
        got: String,
    },
    /// No randomness from the system, hence no one-time password.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The connection to the private server.
    #[error("private server: {0}")]
    Sql(#[from] holdfast_mysql::Error),
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { doing, path: path.into(), source }
    }
}
