//! Everything that can spoil a copy.

use std::path::PathBuf;
use std::time::Duration;

use crate::path::PathError;
use crate::sink::SinkError;

/// An error of a copy. Texts name the object and, when known, the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The sink refused.
    #[error("the copy could not be stored: {0}")]
    Sink(#[from] SinkError),
    /// [`crate::Watch::cancelled`] said so.
    #[error("the copy was called off")]
    Cancelled,
    /// A file or folder of this machine.
    #[error("can't {doing} {path}: {source}", path = path.display())]
    Io {
        /// What we were doing, as a verb.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// A file whose name can't be in a copy.
    #[error("{place} names a file {name:?}: {source}")]
    Name {
        /// Who named it.
        place: &'static str,
        /// The name, with anything unprintable escaped.
        name: String,
        /// What is wrong.
        source: PathError,
    },
    /// A datadir that a server is using.
    #[error("{dir} is in use by a running server ({evidence}); stop the server, or protect it by its port instead of its folder", dir = dir.display())]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// How we know.
        evidence: String,
    },
    /// A file that changed while it was read.
    #[error("{path} changed while it was read ({what}); a folder must be at rest to be copied", path = path.display())]
    Changed {
        /// The file.
        path: PathBuf,
        /// What changed.
        what: String,
    },
    /// Bytes that a format or protocol does not allow at this place.
    #[error("{place}: expected {expected}, got {got}")]
    Malformed {
        /// Which structure, and where.
        place: String,
        /// What there should be.
        expected: String,
        /// What there was.
        got: String,
    },
    /// More of something than we take.
    #[error("{what}: {got}, more than the limit of {limit}")]
    TooMany {
        /// Which thing.
        what: &'static str,
        /// How much or many came.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// The server is not fit to be copied as it stands.
    #[error("{server} can't be copied: {problem}. {remedy}")]
    Unfit {
        /// Which server.
        server: String,
        /// What is missing.
        problem: String,
        /// The exact statement or setting that helps.
        remedy: String,
    },
    /// A tablespace that is encrypted at rest.
    #[error(
        "{file} is encrypted at rest, which can't be copied yet: decrypt it with ALTER TABLE .. ENCRYPTION='N'{more}"
    )]
    Encrypted {
        /// The first such file.
        file: String,
        /// How many more, as a phrase; empty if none.
        more: String,
    },
    /// A file of the server that lies outside of its datadir.
    #[error(
        "{file}{more} lies outside of the datadir, and a server restored from a copy would work on that very file: bring \
         its tables into the datadir (make them anew without DATA DIRECTORY, or ALTER TABLE .. TABLESPACE \
         innodb_file_per_table)"
    )]
    Outside {
        /// The first such file.
        file: String,
        /// How many more, as a phrase; empty if none.
        more: String,
    },
    /// A file that the program that makes the copy left out.
    #[error(
        "mariadb-backup left {file}{more} out of the copy, as it does with files of Aria tables that lie outside of the \
         datadir: make the table anew without DATA DIRECTORY and INDEX DIRECTORY, or repair it"
    )]
    LeftOut {
        /// The first such file.
        file: String,
        /// How many more, as a phrase; empty if none.
        more: String,
    },
    /// The program that makes the copy failed.
    #[error("{program} failed: {reason}{tail}")]
    Tool {
        /// The program as it was called.
        program: String,
        /// How it ended.
        reason: String,
        /// Its last words, from a line break on; may be empty.
        tail: String,
    },
    /// The server refused, or the connection to it broke.
    #[error(transparent)]
    Server(#[from] holdfast_mysql::Error),
    /// Commits on the server waited for the copy for too long, so it was given up.
    #[error(
        "the copy held commits on the server for {held:.1?}, more than {limit:?}, and was given up to free them; repeat it when the server is less busy, or allow longer"
    )]
    Stalled {
        /// For how long, when we stopped.
        held: Duration,
        /// How long is allowed.
        limit: Duration,
    },
    /// Nothing happened for too long.
    #[error("nothing came from {from} for {waited:?} while we waited for {what}")]
    Silent {
        /// Who should have spoken.
        from: String,
        /// What should have come.
        what: &'static str,
        /// How long we waited.
        waited: Duration,
    },
    /// The system refuses a thread.
    #[error(
        "the system grants no thread to {doing}: {source}; raise the limit of threads (`ulimit -u`; `TasksMax` of a service), and run the same command again"
    )]
    NoThread {
        /// What it was to do, as a verb.
        doing: &'static str,
        /// The system's word.
        source: std::io::Error,
    },
    /// A thread of ours broke down.
    #[error("a thread that {doing} broke down; this is a bug in Holdfast")]
    Thread {
        /// What it was doing.
        doing: &'static str,
    },
}

impl Error {
    /// For `map_err` on a call of the system.
    pub(crate) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { doing, path, source }
    }
}
