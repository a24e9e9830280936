//! Everything that can go wrong with a restore.

use std::path::PathBuf;

/// Result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What whoever implements a seam may return: an error of a crate that this one does not know.
pub type Foreign = Box<dyn std::error::Error + Send + Sync>;

/// An error of a restore. Texts name the object and, when known, the next step.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No transaction border fits the target (exit status 20).
    #[error("{target} can't be reached: {why}. The nearest points that can: {}", nearest_text(nearest))]
    Unreachable {
        /// The target as the user gave it.
        target: String,
        /// Why.
        why: String,
        /// At most one point before and one after, in words that `--to` takes.
        nearest: Vec<String>,
    },
    /// The folder holds something.
    #[error("{folder} is not empty ({found}). Name a folder that is empty or does not exist.")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// The folder holds what no restore made, or what was handed over since.
    #[error(
        "{folder} holds {found}, and no restore of ours that waits to be handed over. To have it made equal to the backup, and everything else in it removed, add --confirm with the folder's own name."
    )]
    NotOurs {
        /// The folder.
        folder: PathBuf,
        /// One of the things in it.
        found: String,
    },
    /// A server runs on the folder.
    #[error("{folder} is in use by a running server ({evidence}). Stop it, or name another folder.")]
    InUse {
        /// The folder.
        folder: PathBuf,
        /// How we know.
        evidence: String,
    },
    /// Nothing says where in the source's log the restored server stands.
    #[error(
        "nothing says where in the log of {source_server} the restored server stands: restore to a moment of its log"
    )]
    NoPlace {
        /// The source as `HOST:PORT`.
        source_server: String,
    },
    /// Another file system below the folder.
    #[error(
        "{path} is another file system. Unmount it, or name another folder: a restore removes nothing there."
    )]
    Mounted {
        /// The mount point.
        path: PathBuf,
    },
    /// Another restore is at work in the folder.
    #[error("another restore is at work in {folder}. Wait for it, or name another folder.")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// The folder holds an unfinished restore of something else.
    #[error(
        "{folder} holds an unfinished restore of {there}, not of {wanted}. Remove the folder, or name another one."
    )]
    OtherRestore {
        /// The folder.
        folder: PathBuf,
        /// What is there.
        there: String,
        /// What was asked for.
        wanted: String,
    },
    /// The folder holds no restore of ours.
    #[error("{folder} holds no restored server: {why}.")]
    NoRestore {
        /// The folder.
        folder: PathBuf,
        /// What is missing.
        why: String,
    },
    /// Not enough space.
    #[error("{folder} has {free} bytes free, and the restore needs {needed}. Nothing was written.")]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Bytes free.
        free: u64,
        /// Bytes needed.
        needed: u64,
    },
    /// The recovered server stands elsewhere than the backup says (exit status 22).
    #[error(
        "the recovered server stands at {recovered}, but the backup says {expected}. It is not handed over."
    )]
    WrongCoordinates {
        /// What the server's own recovery reports.
        recovered: String,
        /// What the backup's record says.
        expected: String,
    },
    /// The proof found something wrong (exit status 22).
    #[error("{}", not_proved(failures))]
    NotProved {
        /// What was found.
        failures: Vec<String>,
        /// The whole report.
        report: Box<crate::report::Report>,
    },
    /// The restored server's dictionary names files that are not its own (exit status 22).
    #[error(
        "the restored server in {folder} would work on files outside of it: {files}. They are the source's where it runs on \
         this host. Don't start it: remove the folder, bring those tables into the source's datadir and take a new backup"
    )]
    Elsewhere {
        /// The target folder.
        folder: PathBuf,
        /// The files.
        files: String,
    },
    /// The caller called it off.
    #[error("the restore into {folder} was called off; {next}")]
    Cancelled {
        /// The target folder.
        folder: PathBuf,
        /// What the same command does now.
        next: &'static str,
    },
    /// The file system of the target is full.
    #[error(
        "the file system of {folder} is full ({free} bytes are free): {source}. Nothing is lost: free some space and \
         give the same command again"
    )]
    TargetFull {
        /// The target folder.
        folder: PathBuf,
        /// Bytes free now.
        free: u64,
        /// What failed.
        source: Box<Self>,
    },
    /// The folder's server holds more than the target asks for.
    #[error(
        "{folder} is restored to {reached} already, and replay goes forward only: {wanted} lies before it. Name \
         another folder to restore into, without --continue."
    )]
    Backwards {
        /// The folder.
        folder: PathBuf,
        /// The target that it was restored to.
        reached: String,
        /// The one asked for now.
        wanted: String,
    },
    /// Somebody wrote to the restored server.
    #[error(
        "the server in {folder} was left at {left}, and stands at {found} now: somebody wrote to it, so the log can't be \
         replayed onto it. Name another folder to restore into, without --continue."
    )]
    Touched {
        /// The folder.
        folder: PathBuf,
        /// Its GTIDs when the restore left it.
        left: String,
        /// Its GTIDs now.
        found: String,
    },
    /// A file or folder of the target.
    #[error("can't {doing} {path}: {source}")]
    File {
        /// What we were doing.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's word.
        source: std::io::Error,
    },
    /// The base could not be read.
    #[error("the backup can't be read: {0}")]
    Base(#[source] Foreign),
    /// The log could not be read.
    #[error("the archived log can't be read: {0}")]
    Log(#[source] Foreign),
    /// A transaction of which nothing tells whether the base holds it.
    #[error(transparent)]
    Unplaced(crate::range::Unplaced),
    /// Some tables can't be restored alone.
    #[error("{0}")]
    Tables(String),
    /// Replay failed, or refused what is in the log.
    #[error(transparent)]
    Replay(#[from] holdfast_replay::Error),
    /// What the server says of its GTIDs.
    #[error("the restored server's GTIDs: {0}")]
    Gtid(#[from] holdfast_format::gtid::GtidError),
    /// The private server.
    #[error(transparent)]
    Engine(#[from] holdfast_engine::Error),
    /// A query on the private server.
    #[error("the restored server: {0}")]
    Sql(#[from] holdfast_mysql::Error),
    /// An event of the log.
    #[error("the archived log: {0}")]
    Event(#[from] holdfast_binlog::Error),
}

impl Error {
    pub(crate) fn file(doing: &'static str, path: impl Into<PathBuf>, source: std::io::Error) -> Self {
        Self::File { doing, path: path.into(), source }
    }

    /// What the look through the log failed with: a transaction that can't be placed is a refusal, not a flaw of the log.
    pub(crate) fn of_scan(error: holdfast_replay::Error) -> Self {
        match error {
            holdfast_replay::Error::Log(inner) => Self::of_log(inner),
            other => Self::Replay(other),
        }
    }

    /// The same of an error of the log itself.
    pub(crate) fn of_log(error: Foreign) -> Self {
        let error = match error.downcast::<crate::range::Unplaced>() {
            Ok(unplaced) => return Self::Unplaced(*unplaced),
            Err(other) => other,
        };
        match error.downcast::<crate::scope::filter::Refused>() {
            Ok(refused) => Self::Tables(refused.to_string()),
            Err(other) => Self::Log(other),
        }
    }

    /// The exit status of a command that ends with this error, where it has one of its own.
    #[must_use]
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Unreachable { .. } | Self::Backwards { .. } => Some(20),
            Self::WrongCoordinates { .. }
            | Self::NotProved { .. }
            | Self::Elsewhere { .. }
            | Self::Replay(holdfast_replay::Error::Diverged { .. }) => Some(22),
            _ => None,
        }
    }
}

/// A query that fails says something of the source's data, and nothing of the copy.
fn not_proved(failures: &[String]) -> String {
    let own = format!("{}: ", crate::queries::CHECK);
    let queries: Vec<&str> = failures.iter().filter_map(|failure| failure.strip_prefix(&own)).collect();
    if queries.len() == failures.len() {
        return format!("the restored server was proved, and {}", queries.join("; "));
    }
    format!("the restored server is not what the backup and the log make of it: {}", failures.join("; "))
}

fn nearest_text(nearest: &[String]) -> String {
    if nearest.is_empty() { "none".to_owned() } else { nearest.join(", ") }
}
