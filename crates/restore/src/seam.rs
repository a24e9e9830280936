//! What a restore asks of a base and of a log: the traits that `appliance` fulfils with the
//! repository and the archive, and that a mirror, a vault or a test fulfils its own way.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

use holdfast_format::gtid::GtidSet;
use holdfast_format::record::{Coordinates, Position, SourceKind};
use holdfast_replay::LogReader;
use serde::{Deserialize, Serialize};

use crate::error::Foreign;

/// Where a restore is to lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The last transaction that the log holds.
    Latest,
    /// The newest base as it is, without replay.
    Fastest,
    /// This base as it is, without replay: its id.
    Backup(String),
    /// The last transaction committed at this time or before, microseconds since the Unix epoch.
    Time(i64),
    /// One side of a transaction: a GTID, or an id that `find` printed.
    Transaction {
        /// The GTID or the id.
        id: String,
        /// Which side of it.
        side: Side,
    },
    /// Everything before this place of the source's own log.
    Position {
        /// The file's name.
        file: String,
        /// The offset in it.
        offset: u64,
        /// In this life of the log; needed where several have such a place, as after a reset.
        life: Option<u32>,
    },
    /// Where the source had executed exactly these transactions.
    GtidSet {
        /// They, with all that was executed before the log begins.
        set: GtidSet,
        /// In this life of the log; needed where several had just these.
        life: Option<u32>,
    },
}

/// One side of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Without it.
    Before,
    /// With it.
    After,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the latest point"),
            Self::Fastest => f.write_str("the newest backup as it is"),
            Self::Backup(id) => write!(f, "the backup {id} as it is"),
            Self::Time(us) => f.write_str(&time(*us)),
            Self::Transaction { id, side: Side::Before } => write!(f, "the point before {id}"),
            Self::Transaction { id, side: Side::After } => write!(f, "the point after {id}"),
            Self::Position { file, offset, life: None } => write!(f, "position {file}:{offset}"),
            Self::Position { file, offset, life: Some(life) } => write!(f, "position {file}:{offset}@{life}"),
            Self::GtidSet { set, life: None } => write!(f, "the point with exactly {set}"),
            Self::GtidSet { set, life: Some(life) } => write!(f, "the point with exactly {set}@{life}"),
        }
    }
}

/// A time for people and `--to`: RFC 3339 in UTC.
#[must_use]
pub fn time(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| format!("{us} us"), |time| time.to_string())
}

/// A place in an archived log, in the order of the log. What the number is, is the log's affair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Place(pub u64);

/// What is known of a transaction from the index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TransactionFacts {
    /// Its GTID, where the source has them.
    pub gtid: Option<String>,
    /// Where it starts in the source's log: `file:offset`.
    pub position: String,
    /// When it was committed, microseconds since the Unix epoch.
    pub committed_us: Option<i64>,
    /// What it does, in a few words: the text of a DDL statement, or rows by table.
    pub summary: String,
}

impl fmt::Display for TransactionFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.gtid.as_deref().unwrap_or(&self.position))?;
        if let Some(us) = self.committed_us {
            write!(f, "  {}", time(us))?;
        }
        write!(f, "  {}", self.summary)
    }
}

/// A border between two transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Border {
    /// The first byte that is left out.
    pub place: Place,
    /// The last transaction kept; none at the start of the log.
    pub last_kept: Option<TransactionFacts>,
    /// The first transaction left out; none at the end of the log.
    pub first_left_out: Option<TransactionFacts>,
}

/// A stretch that the log does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// Why, in words.
    pub reason: String,
    /// The last point before it.
    pub before: Option<Target>,
    /// The first point after it.
    pub after: Option<Target>,
}

/// How much there is to replay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct LogSize {
    /// Transactions.
    pub transactions: u64,
    /// Bytes of events.
    pub bytes: u64,
}

/// How far a base is laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LayingOut {
    /// Bytes written.
    pub bytes: u64,
    /// Bytes to write in all.
    pub bytes_total: u64,
}

/// What was laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaidOut {
    /// Files.
    pub files: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Blocks that were read and verified against their ids.
    pub blocks: u64,
    /// Blocks that stood in the folder already, verified against their ids as well.
    #[serde(default)]
    pub blocks_kept: u64,
    /// Damaged segments of the repository that were read all the same, by their parity.
    pub healed_segments: u64,
}

/// One physical copy of a server.
pub trait Base {
    /// Its id, as `list` prints it.
    fn id(&self) -> String;
    /// When it was begun, microseconds since the Unix epoch. For who does not know: when it was finished.
    fn started_us(&self) -> i64 {
        self.finished_us()
    }
    /// When it was finished, microseconds since the Unix epoch.
    fn finished_us(&self) -> i64;
    /// How it was made.
    fn kind(&self) -> SourceKind;
    /// Where it stands in the log.
    fn coordinates(&self) -> &Coordinates;
    /// A fact that the source noted, such as `version`.
    fn fact(&self, name: &str) -> Option<&str>;
    /// Tables whose rows it does not hold, and other warnings.
    fn warnings(&self) -> Vec<String>;
    /// Those of the warnings that name tables whose rows it does not hold.
    fn lacking(&self) -> Vec<String> {
        Vec::new()
    }
    /// Bytes that its files take when laid out, holes not counted.
    fn bytes(&self) -> u64;
    /// Files.
    fn files(&self) -> u64;
    /// Writes all files into `dir`, every block verified against its id, and syncs them. `dir` holds the marker and the
    /// lock of this restore and, for a clone, the folder `#clone`, which all stay; whatever else an unfinished restore
    /// left is kept where it is right, and rewritten or removed where it is not. `progress` may be called from any
    /// thread; when it breaks, the work ends soon, with an error.
    fn restore_into(
        &self,
        dir: &Path,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign>;
    /// Its files: path below the folder, and bytes that it takes. Asked for where some tables are restored.
    fn paths(&self) -> Result<Vec<(Vec<u8>, u64)>, Foreign> {
        Err("files of this backup can't be restored alone".into())
    }
    /// As [`Base::restore_into`], for these paths alone: other files of the base are removed where they stand.
    fn restore_some_into(
        &self,
        dir: &Path,
        only: &BTreeSet<Vec<u8>>,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        let _ = (dir, only, progress);
        Err("files of this backup can't be restored alone".into())
    }
}

/// The archived log of one server.
pub trait Log: Sync {
    /// Where this position of the source lies in the log; none if the log does not reach it.
    /// A position's GTIDs are used where its file is not known.
    fn place(&self, position: &Position) -> Result<Option<Place>, Foreign>;
    /// The same for a position at which a base stands. A log of several lives, in which the same files and GTIDs come
    /// again, must not look for it in a life that the base is not of.
    fn place_of_base(&self, position: &Position, base: &dyn Base) -> Result<Option<Place>, Foreign> {
        let _ = base;
        self.place(position)
    }
    /// The border that the target means, or why there is none and the nearest points that could be
    /// given instead. Not asked for `Fastest` and `Backup`.
    fn resolve(&self, target: &Target) -> Result<Result<Border, Gap>, Foreign>;
    /// The first hole between two places.
    fn gap(&self, from: Place, until: Place) -> Result<Option<Gap>, Foreign>;
    /// How much lies between two places.
    fn size(&self, from: Place, until: Place) -> Result<LogSize, Foreign>;
    /// The source's file and offset at a place; none where the log does not tell.
    fn position_at(&self, place: Place) -> Result<Option<(String, u64)>, Foreign> {
        let _ = place;
        Ok(None)
    }
    /// A reader of the events between two places, both borders of transactions.
    fn read(&self, from: Place, until: Place) -> Result<Box<dyn LogReader + '_>, Foreign>;
}
