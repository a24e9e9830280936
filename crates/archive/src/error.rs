//! Everything that can go wrong with an archive.

/// Result of every call of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A transaction as messages name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Near {
    /// Its GTID, or its place as `pos:FILE:OFFSET`.
    pub id: String,
    /// Commit time, microseconds since the Unix epoch.
    pub commit_us: i64,
}

/// Why an archive stopped, could not be read, or cannot reach a target.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection to the source.
    #[error(transparent)]
    Mysql(#[from] holdfast_mysql::Error),
    /// An event that cannot be read.
    #[error("{file}: {source}")]
    Event {
        /// The source's file.
        file: String,
        /// What is wrong.
        source: holdfast_binlog::Error,
    },
    /// A structure of the archive that cannot be read.
    #[error(transparent)]
    Format(#[from] holdfast_format::Error),
    /// The repository.
    #[error("the repository: {0}")]
    Store(Box<dyn std::error::Error + Send + Sync>),
    /// The log has a hole, or isn't the one that was archived. Recorded in the repository before it is returned.
    #[error("the log of {stream} can't be continued after {after}: {reason}. {next}")]
    Gap {
        /// The stream.
        stream: String,
        /// The last place that is covered.
        after: String,
        /// What was met.
        reason: String,
        /// What to do.
        next: String,
    },
    /// A new life of a log was to begin at a backup behind a hole, and the source has the log of none.
    #[error(
        "the log of {stream} was to begin at a backup behind a hole, and the source has the log of none of them any \
         more; take a new backup, the archive goes on from there"
    )]
    NoOrigin {
        /// The stream.
        stream: String,
    },
    /// A file of the source that does not begin as files of a log do.
    #[error("{file} does not begin as a binlog does, or the source did not show its first events in time")]
    NoHead {
        /// The file.
        file: String,
    },
    /// A server that stopped sending in the middle of its log.
    #[error("the server stopped in the middle of {file}, and sent nothing more for half a minute")]
    Silent {
        /// The file.
        file: String,
    },
    /// The source is another server than the one that was archived.
    #[error(
        "{endpoint} is {got}, the archive follows {expected}; if the server was rebuilt, take a new backup first"
    )]
    Identity {
        /// Where we connected.
        endpoint: String,
        /// Who should be there.
        expected: String,
        /// Who is there.
        got: String,
    },
    /// What is stored of a stream contradicts itself.
    #[error("the archive of {stream} is damaged at {at}: {reason}; run holdfast-fsck")]
    Damaged {
        /// The stream.
        stream: String,
        /// File and offset.
        at: String,
        /// What does not fit.
        reason: String,
    },
    /// A target that no restore can reach.
    #[error("{target} can't be reached: {reason}{}{}", near(" The nearest point before it is", .before), near(" The nearest point after it is", .after))]
    Unreachable {
        /// The target as the user gave it.
        target: String,
        /// Why.
        reason: String,
        /// The nearest transaction before it.
        before: Option<Box<Near>>,
        /// The nearest transaction after it.
        after: Option<Box<Near>>,
    },
    /// Nothing is archived.
    #[error("nothing is archived of {stream}; run `holdfast archive`")]
    Empty {
        /// The stream.
        stream: String,
    },
    /// The repository's disk is too slow for a source whose commits wait for it.
    #[error(
        "the repository's disk takes too long, so the source's commits are not made to wait for it for a while"
    )]
    TooSlow,
    /// The system refuses a thread.
    #[error(
        "the system grants no thread that {doing}: {source}; raise the limit of threads (`ulimit -u`; `TasksMax` of a service)"
    )]
    NoThread {
        /// What it was to do.
        doing: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Binlog files that can't become part of the archive. Nothing was written of what this is about.
    #[error("the file {file} can't be imported: {reason}")]
    Import {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// A binlog file that can't be read.
    #[error("the file {file} can't be read: {source}")]
    Read {
        /// The file.
        file: String,
        /// Why.
        source: std::io::Error,
    },
    /// The caller wanted to stop.
    #[error("it was interrupted")]
    Interrupted,
    /// A thread of ours died.
    #[error("the thread that {doing} ended without a word")]
    Thread {
        /// What it did.
        doing: &'static str,
    },
}

fn near(lead: &str, point: &Option<Box<Near>>) -> String {
    point.as_ref().map(|near| format!("{lead} {}.", near.id)).unwrap_or_default()
}

impl Error {
    /// True for what a reconnect may cure.
    #[must_use]
    pub fn is_network(&self) -> bool {
        match self {
            Self::Mysql(error) => error.is_network(),
            Self::TooSlow => true,
            _ => false,
        }
    }

    /// True if bytes of the repository are not what was written.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        let damaged = |error: &holdfast_store::Error| matches!(error, holdfast_store::Error::Damaged { .. });
        matches!(self, Self::Store(error) if error.downcast_ref().is_some_and(damaged))
    }
}
