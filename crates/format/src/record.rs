//! Records of the manifest: everything that ever happened to a repository. See `format-spec/record.md`.
//!
//! Types here; their bytes in `record/codec.rs`.

mod codec;

use crate::gtid::{Flavor, GtidSet, Uuid};
use crate::ids::{Address, BackupId, RepoId, SegmentId, ServerId};

/// The fact of a backup that was copied from a replica of its server: the replica's place, for people. Its positions have
/// GTIDs alone.
pub const COPIED_FROM: &str = "holdfast.copied_from";

/// The fact of a backup by mariadb-backup: where the server's log ended when the copy was made, as `FILE:OFFSET`. What the
/// copy's recovery reports behind it is of a log from before RESET MASTER.
pub const LOG_END: &str = "log_end";

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The first one.
    RepoCreated(RepoCreated),
    /// A server was added, or what is known of it changed. The newest one of an id holds.
    ServerPut(ServerRecord),
    /// A server is protected no more; its backups stay.
    ServerRemoved {
        /// The server.
        server: ServerId,
    },
    /// A backup is complete: the only thing that makes it exist.
    BackupCommitted(BackupRecord),
    /// A backup is not wanted any more; its blocks may go.
    BackupForgotten {
        /// The backup.
        backup: BackupId,
        /// Why.
        reason: String,
    },
    /// The exact coordinates of a backup, read from the first start of a copy.
    CoordinatesLearned {
        /// The backup.
        backup: BackupId,
        /// Where it stands.
        position: Position,
    },
    /// A stretch of log is complete.
    LogSealed(LogRecord),
    /// The log of a stream is interrupted.
    LogGap(LogGap),
    /// A report on a backup: of a restore, a drill, a check.
    Report(ReportRecord),
    /// Segments that garbage collection means to remove: nothing may be deduplicated against them from here on.
    SegmentsCondemned {
        /// The segments.
        segments: Vec<SegmentId>,
    },
    /// Condemned segments that turned out to be needed after all.
    SegmentsSpared {
        /// The segments.
        segments: Vec<SegmentId>,
    },
    /// Segments whose objects are being removed; written before the first of them goes.
    SegmentsDeleted {
        /// The segments.
        segments: Vec<SegmentId>,
    },
    /// Frames were copied into another segment: those births are found in that carrier now.
    SegmentsCarried {
        /// The segment that holds them now.
        carrier: SegmentId,
        /// The segments they were born in.
        births: Vec<SegmentId>,
    },
    /// Segments got bytes back that had rotted.
    Healed(HealedRecord),
    /// How far a scrub is.
    Scrubbed(ScrubRecord),
    /// A backup may not be forgotten before a time. The latest time of a backup holds: a lock is only ever extended.
    BackupLocked {
        /// The backup.
        backup: BackupId,
        /// Until when, microseconds since the Unix epoch.
        until_us: i64,
    },
    /// The keyring was changed.
    KeysChanged {
        /// How, for people.
        what: String,
    },
    /// Small objects that have copies were put in order: keyring, heads, records, packs.
    Mended(MendedRecord),
    /// A server was locked, or is no more. The newest one of a server holds.
    ServerLocked(ServerLockRecord),
    /// A backup is held, or is no more. The newest one of a backup holds; without one, its fact [`HELD_FACT`] does.
    BackupHeld(HoldRecord),
    /// Where a server came from that was restored. The newest one of a server holds.
    ServerOrigin(OriginRecord),
    /// A record of a later version, kept as it is.
    Unknown {
        /// Its kind.
        kind: u16,
        /// Its version.
        version: u16,
        /// Its bytes.
        body: Vec<u8>,
    },
}

impl Record {
    /// Whether it keeps something in a way that needs the feature for writers [`crate::keyring::KEPT`].
    #[must_use]
    pub fn keeps(&self) -> bool {
        match self {
            Self::BackupHeld(_) | Self::ServerLocked(_) => true,
            Self::BackupCommitted(backup) => backup.is_kept(),
            _ => false,
        }
    }
}

/// A record with what the manifest says about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamped {
    /// Its number, from 0.
    pub number: u64,
    /// When it was written, microseconds since the Unix epoch, by the writer's clock.
    pub at_us: i64,
    /// The record.
    pub record: Record,
}

/// The first record of a repository.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RepoCreated {
    /// Its id.
    pub repo: RepoId,
    /// The program that made it, as `holdfast 0.1.0`.
    pub program: String,
}

/// How a server is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerKind {
    /// Over its own protocol.
    Network {
        /// Name or address; empty when only the socket is used.
        host: String,
        /// TCP port.
        port: u16,
        /// Path of a Unix socket.
        socket: Option<String>,
    },
    /// As files: a stopped server's data directory or any folder.
    Folder {
        /// The folder.
        path: String,
    },
}

/// A protected server. Credentials are never here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerRecord {
    /// Its id, given when it was added.
    pub id: ServerId,
    /// What the user calls it.
    pub name: String,
    /// Its family; none when unknown (a folder).
    pub flavor: Option<Flavor>,
    /// How it is reached.
    pub kind: ServerKind,
    /// Its `server_uuid` (MySQL), or one made from what identifies it (MariaDB).
    pub source_uuid: Option<Uuid>,
    /// Its version as it says it; empty when unknown.
    pub version: String,
    /// When it was added, microseconds since the Unix epoch.
    pub added_us: i64,
}

/// A place in a server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// Name of the binlog file; empty when unknown.
    pub file: String,
    /// Offset in it, bytes.
    pub offset: u64,
    /// What was executed up to there.
    pub gtid: GtidSet,
}

/// Where a backup stands in its server's history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Coordinates {
    /// Nowhere: a folder.
    None,
    /// Exactly there.
    Exact(Position),
    /// After the first and not after the second.
    Between {
        /// Everything up to here is in the backup.
        lo: Position,
        /// Nothing after this is.
        hi: Position,
    },
}

/// How a copy was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SourceKind {
    /// MySQL's CLONE protocol.
    Clone,
    /// A stream of mariadb-backup or xtrabackup.
    Xbstream,
    /// A folder.
    Folder,
    /// A snapshot of the file system.
    Snapshot,
}

/// What a backup holds and cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BackupStats {
    /// Files, folders and links.
    pub files: u64,
    /// Sum of the files' lengths, bytes.
    pub logical_bytes: u64,
    /// Blocks with an address, at the end.
    pub blocks: u64,
    /// Blocks that had to be stored, the superseded ones included.
    pub new_blocks: u64,
    /// Those of them that were stored as deltas.
    pub delta_blocks: u64,
    /// Blocks of zeros.
    pub zero_blocks: u64,
    /// Blocks never written.
    pub hole_blocks: u64,
    /// Blocks that the parent had at the same place.
    pub parent_blocks: u64,
    /// Blocks that lay somewhere else in the repository.
    pub known_blocks: u64,
    /// Blocks that were stored and then written again before the commit.
    pub superseded_blocks: u64,
    /// Bytes that the backup added to the repository, everything included.
    pub stored_bytes: u64,
    /// The part of them that is parity.
    pub parity_bytes: u64,
}

/// A complete backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupRecord {
    /// Its id.
    pub id: BackupId,
    /// The server.
    pub server: ServerId,
    /// How the copy was taken.
    pub source: SourceKind,
    /// Begin, microseconds since the Unix epoch.
    pub started_us: i64,
    /// End, microseconds since the Unix epoch.
    pub finished_us: i64,
    /// The backup that it was compared with.
    pub parent: Option<BackupId>,
    /// Root of its map.
    pub map: Address,
    /// Where it stands.
    pub coordinates: Coordinates,
    /// What a restore will ask for (`version`, `variable.NAME`, `grants`, ...), sorted by key.
    pub facts: Vec<(String, String)>,
    /// The user's note.
    pub note: String,
    /// What it holds and cost.
    pub stats: BackupStats,
    /// What went wrong without spoiling it.
    pub warnings: Vec<String>,
}

impl BackupRecord {
    /// Whether it is held, kept until a date, or kept because nobody takes it again, by its own facts.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        [HELD_FACT, KEEP_FACT, IMPORTED_FACT].iter().any(|name| self.fact(name).is_some())
    }

    /// The value of a fact.
    #[must_use]
    pub fn fact(&self, key: &str) -> Option<&str> {
        self.facts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

/// A stream of log: one server, one identity, one life of its binlog.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamKey {
    /// The protected server.
    pub server: ServerId,
    /// The identity that the source showed.
    pub source_uuid: Uuid,
    /// Rises with each reset, restore or fork of the source.
    pub incarnation: u32,
}

/// A complete stretch of log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogRecord {
    /// The stream.
    pub stream: StreamKey,
    /// Number of the segment in its stream.
    pub number: u64,
    /// The segment.
    pub segment: SegmentId,
    /// Start of the first event.
    pub first: Position,
    /// End of the last event.
    pub last: Position,
    /// What was executed before the first event.
    pub gtid_before: GtidSet,
    /// What was executed after the last event.
    pub gtid_after: GtidSet,
    /// Commit time of the first transaction, microseconds since the Unix epoch.
    pub first_us: i64,
    /// Commit time of the last transaction, microseconds since the Unix epoch.
    pub last_us: i64,
    /// Transactions that end in it.
    pub transactions: u64,
    /// Events.
    pub events: u64,
    /// Bytes of events.
    pub bytes: u64,
}

/// Why a stream is interrupted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogGap {
    /// The stream.
    pub stream: StreamKey,
    /// The last place that is covered.
    pub after: Position,
    /// Why, for people.
    pub reason: String,
    /// When it was noticed, microseconds since the Unix epoch.
    pub at_us: i64,
}

/// A report on a backup.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportRecord {
    /// The backup.
    pub backup: BackupId,
    /// What it reports on: `restore`, `drill`, `check`.
    pub kind: String,
    /// When, microseconds since the Unix epoch.
    pub at_us: i64,
    /// The report as JSON.
    pub json: Vec<u8>,
}

/// Segments that were healed from their parity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealedRecord {
    /// What noticed it: `scrub`, `read`, `fsck`.
    pub by: String,
    /// The segments.
    pub segments: Vec<Healing>,
}

/// Small objects that were missing, damaged or not alike, and are in order now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MendedRecord {
    /// What noticed it: `scrub`, `fsck`.
    pub by: String,
    /// What was done, for people: an object's name and what became of it in each.
    pub what: Vec<String>,
}

/// A lock on a whole server, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerLockRecord {
    /// The server.
    pub server: ServerId,
    /// `None`: the lock is over. Else what retention may go by while it lasts, as JSON; empty: nothing of the server may
    /// be forgotten.
    pub terms: Option<String>,
    /// Why, for people.
    pub reason: String,
}

/// The fact of a backup that is held from its commit on; its value says why, for people.
pub const HELD_FACT: &str = "holdfast.held";

/// The fact that says until when a backup is kept at least, microseconds since the Unix epoch.
pub const KEEP_FACT: &str = "holdfast.keep_until";

/// Fact of a backup that was imported: its value says from which file. It is none of those that retention counts.
pub const IMPORTED_FACT: &str = "holdfast.imported";

/// A hold on a backup, or its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HoldRecord {
    /// The backup.
    pub backup: BackupId,
    /// Whether it is held from here on: it may not be forgotten until it is released.
    pub held: bool,
    /// Why, for people.
    pub reason: String,
}

/// Where a protected server came from: it was restored, and added as a server of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OriginRecord {
    /// The server.
    pub server: ServerId,
    /// Its identity when it was added: another one is another server.
    pub source_uuid: Option<Uuid>,
    /// Name of the server that was restored.
    pub name: String,
    /// The backup that the restore began with; none when it is of another repository.
    pub backup: Option<BackupId>,
    /// The moment that it led to, microseconds since the Unix epoch.
    pub moment_us: Option<i64>,
    /// When it was restored, microseconds since the Unix epoch.
    pub restored_us: Option<i64>,
}

/// What was brought back in one segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healing {
    /// The segment.
    pub segment: SegmentId,
    /// Pages of 4 KiB that were not as they were written.
    pub pages: u32,
}

/// What a scrub has looked at since the record of a scrub before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScrubRecord {
    /// When this round through all segments began, microseconds since the Unix epoch.
    pub round_us: i64,
    /// The last segment that was looked at: the next scrub goes on behind it, in the order of ids. None: the round is
    /// over.
    pub after: Option<SegmentId>,
    /// Segments looked at in this round so far.
    pub segments: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Segments found in this round with more damage than their parity brings back.
    pub lost: Vec<SegmentId>,
}
