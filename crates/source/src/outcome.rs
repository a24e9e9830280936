//! What a copy turned out to be.

use std::fmt;

/// A place in a server's binary log.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The log file's name; empty where the server writes no log.
    pub file: String,
    /// Offset of the next event in it.
    pub offset: u64,
    /// The GTIDs executed up to here as the server writes them (MySQL: set, MariaDB: position); may be empty.
    pub gtid: String,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.offset)?;
        if !self.gtid.is_empty() {
            write!(f, " ({})", self.gtid)?;
        }
        Ok(())
    }
}

/// Where in the source's log the copy stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coordinates {
    /// Unknown, or the server writes no log.
    None,
    /// The copy holds everything before this place and nothing from it on.
    Exact(Position),
    /// The copy holds everything before `lo`, nothing from `hi` on, and some prefix of what lies between.
    /// The first start of the copy tells which.
    Between {
        /// Everything before is in the copy.
        lo: Position,
        /// Nothing from here on is in the copy.
        hi: Position,
    },
}

/// A table whose rows the source could not carry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotCarried {
    /// `schema.table`.
    pub table: String,
    /// Its engine.
    pub engine: String,
    /// Why, in words.
    pub reason: String,
}

/// Something the owner of the server should read. The copy is complete in spite of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// A page whose checksum does not fit; it is in the copy as it was read, its file's state is suspect.
    BadPage {
        /// The file.
        file: String,
        /// Number of the page in the file.
        page: u64,
        /// The page type that its header claims.
        page_type: u16,
        /// The LSN that its header claims.
        lsn: u64,
        /// What does not fit.
        reason: String,
    },
    /// More bad pages of `file` than are listed one by one.
    MoreBadPages {
        /// The file.
        file: String,
        /// How many more.
        count: u64,
    },
    /// A link, whose target was copied in its place.
    Symlink {
        /// The link's name.
        file: String,
        /// Where it led.
        target: String,
    },
    /// A file that was left out on purpose but might be missed.
    LeftOut {
        /// The file.
        file: String,
        /// Why.
        reason: String,
    },
    /// Anything else worth a sentence.
    Note(String),
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::BadPage { file, page, page_type, lsn, reason } => {
                write!(f, "{file}: page {page} (type {page_type}, LSN {lsn}) is damaged: {reason}")
            }
            Self::MoreBadPages { file, count } => write!(f, "{file}: {count} more damaged pages"),
            Self::Symlink { file, target } => {
                write!(f, "{file} is a link to {target}; what it leads to is in the copy in its place")
            }
            Self::LeftOut { file, reason } => write!(f, "{file} is not in the copy: {reason}"),
            Self::Note(text) => f.write_str(text),
        }
    }
}

/// How many pages were looked at on the way in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PageCounts {
    /// Checksum fits.
    pub verified: u64,
    /// Never written: all zeros.
    pub empty: u64,
    /// Can't be checked without a key or by its place (doublewrite area).
    pub unchecked: u64,
    /// Checksum does not fit.
    pub bad: u64,
}

impl std::ops::AddAssign for PageCounts {
    fn add_assign(&mut self, other: Self) {
        self.verified += other.verified;
        self.empty += other.empty;
        self.unchecked += other.unchecked;
        self.bad += other.bad;
    }
}

/// Facts by name.
pub type Facts = Vec<(String, String)>;

/// What a source says at the end of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Where the copy stands in the log.
    pub coordinates: Coordinates,
    /// What a restore will ask for, by name: the server's version and variables, how the copy was made,
    /// accounts. Names of server variables are the server's own.
    pub facts: Facts,
    /// Tables whose rows are not in the copy.
    pub not_carried: Vec<NotCarried>,
    /// What the owner should read.
    pub warnings: Vec<Warning>,
    /// Pages looked at.
    pub pages: PageCounts,
    /// Bytes received, before any deduplication; holes not counted.
    pub bytes: u64,
    /// Files in the copy, directories not counted.
    pub files: u64,
}

impl Outcome {
    /// A copy of which nothing is known yet.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            coordinates: Coordinates::None,
            facts: Vec::new(),
            not_carried: Vec::new(),
            warnings: Vec::new(),
            pages: PageCounts::default(),
            bytes: 0,
            files: 0,
        }
    }

    /// The fact of this name.
    #[must_use]
    pub fn fact(&self, name: &str) -> Option<&str> {
        self.facts.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}
