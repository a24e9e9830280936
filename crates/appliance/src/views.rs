//! Answers as people and scripts read them: plain values with stable JSON names.
//!
//! Times are microseconds since 1970 UTC in Rust and RFC 3339 text in JSON; sizes are bytes.

use crate::time::{Micros, show_time};
use serde::{Serialize, Serializer};

/// Writes a time as RFC 3339.
///
/// # Errors
/// The serializer's.
pub fn time<S: Serializer>(at: &Micros, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&show_time(*at))
}

/// Writes a time that may be unknown.
///
/// # Errors
/// The serializer's.
pub fn maybe_time<S: Serializer>(at: &Option<Micros>, out: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => time(at, out),
        None => out.serialize_none(),
    }
}

/// A protected server.
#[derive(Clone, Debug, Serialize)]
pub struct ServerView {
    /// Its name in this repository.
    pub name: String,
    /// Family and version, for example `MySQL 9.7.4`; `folder` for a folder.
    pub engine: String,
    /// Where it is: `host:port`, a socket, or a folder.
    pub place: String,
    /// The server's own UUID, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uuid: Option<String>,
    /// When it was added.
    #[serde(serialize_with = "time")]
    pub added: Micros,
    /// Whether this user's configuration knows how to log in to it.
    pub login_known: bool,
    /// How many backups there are.
    pub backups: u64,
    /// Where it came from, if it was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginView>,
}

/// Where a server came from that was restored and is protected itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct OriginView {
    /// Name of the server that was restored.
    pub server: String,
    /// Id of the backup that the restore began with; none when it was made from another repository.
    pub backup: Option<String>,
    /// The moment that it led to.
    #[serde(serialize_with = "maybe_time")]
    pub moment: Option<Micros>,
    /// When it was restored.
    #[serde(serialize_with = "maybe_time")]
    pub restored: Option<Micros>,
}

impl OriginView {
    /// `restored from 'shop' as it was at …, on …, from the backup …`.
    #[must_use]
    pub fn words(&self) -> String {
        let of =
            |word: &str, what: Option<String>| what.map(|what| format!("{word} {what}")).unwrap_or_default();
        let moment = of(" as it was at", self.moment.map(show_time));
        let (at, backup) =
            (of(", at", self.restored.map(show_time)), of(", from the backup", self.backup.clone()));
        format!("restored from '{}'{moment}{at}{backup}", self.server)
    }
}

/// One backup.
#[derive(Clone, Debug, Serialize)]
pub struct BackupView {
    /// Its id.
    pub id: String,
    /// The server's name.
    pub server: String,
    /// How the copy was made: `clone`, `mariadb-backup`, `folder`.
    pub source: String,
    /// When it began.
    #[serde(serialize_with = "time")]
    pub started: Micros,
    /// When it was acknowledged.
    #[serde(serialize_with = "time")]
    pub completed: Micros,
    /// Bytes of the files it holds.
    pub data_bytes: u64,
    /// Bytes that it added to the repository.
    pub stored_bytes: u64,
    /// Where in the log the copy stands; a bracket until its first restore when `exact` is false.
    pub position: Option<String>,
    /// Whether `position` is exact.
    pub exact: bool,
    /// What it is called, if it has a name.
    pub name: Option<String>,
    /// Until when it is kept at least, by what was asked for with it or by a lock.
    #[serde(serialize_with = "maybe_time")]
    pub keep_until: Option<Micros>,
    /// Whether it is held: kept until a person releases it.
    pub held: bool,
    /// The user's note.
    pub note: String,
    /// What the copy could not carry or found wrong.
    pub warnings: Vec<String>,
    /// The newest proof of a restore of it: `proved`, `failed`, or nothing yet.
    pub proof: Option<String>,
    /// The replica that was copied, where it was one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub copied_from: Option<String>,
    /// Why the server itself was copied though replicas were named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_from_replica: Option<String>,
}

/// A stretch of time in which every moment, and with it every transaction, can be restored to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SpanView {
    /// First restorable moment.
    #[serde(serialize_with = "time")]
    pub from: Micros,
    /// Last restorable moment.
    #[serde(serialize_with = "time")]
    pub until: Micros,
    /// First and last position.
    pub from_position: String,
    /// The position behind the last transaction.
    pub until_position: String,
    /// Transactions in it.
    pub transactions: u64,
}

/// A hole in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct GapView {
    /// The last position before the hole.
    pub after: String,
    /// When it was noticed; unknown where another server took the name over.
    #[serde(serialize_with = "maybe_time")]
    pub noticed: Option<Micros>,
    /// Why.
    pub reason: String,
}

/// A stretch of time in which nothing that a client was told is committed can have been lost, whatever became of the server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ZeroLossView {
    /// From when, by the server's clock.
    #[serde(serialize_with = "time")]
    pub from: Micros,
    /// Until when.
    #[serde(serialize_with = "time")]
    pub until: Micros,
}

/// What can be restored of one server, now.
#[derive(Clone, Debug, Serialize)]
pub struct StatusView {
    /// Its name.
    pub server: String,
    /// Family and version.
    pub engine: String,
    /// `yes`, `no`, `backups only` or `gap`.
    pub protected: &'static str,
    /// One sentence for a person.
    pub sentence: String,
    /// Restorable stretches, oldest first.
    pub spans: Vec<SpanView>,
    /// Holes between them.
    pub gaps: Vec<GapView>,
    /// The newest stretch in which every commit waited for the archive, if there is one.
    pub zero_loss: Option<ZeroLossView>,
    /// The newest backup, if any.
    pub last_backup: Option<BackupView>,
    /// The last moment that a restore takes as a time.
    #[serde(serialize_with = "maybe_time")]
    pub log_until: Option<Micros>,
    /// Bytes of log between the last backup and the last moment that it leads to.
    pub replay_bytes: u64,
    /// Whether an `archive` of this server runs now.
    pub archive_running: bool,
    /// Where it came from, if it was restored.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginView>,
}

impl StatusView {
    /// Of a server that can't be looked at, and why.
    #[must_use]
    pub fn unknown(server: &str, why: &str) -> Self {
        Self {
            server: server.to_owned(),
            engine: String::new(),
            protected: "no",
            sentence: why.to_owned(),
            spans: Vec::new(),
            gaps: Vec::new(),
            zero_loss: None,
            last_backup: None,
            log_until: None,
            replay_bytes: 0,
            archive_running: false,
            origin: None,
        }
    }
}

/// `timeline`.
#[derive(Clone, Debug, Serialize)]
pub struct TimelineView {
    /// The server's name.
    pub server: String,
    /// Its backups, oldest first.
    pub backups: Vec<BackupView>,
    /// Restorable stretches.
    pub spans: Vec<SpanView>,
    /// Holes.
    pub gaps: Vec<GapView>,
    /// Where the log goes on at another server, without a hole.
    pub fail_overs: Vec<FailOverView>,
    /// Stretches in which every commit waited until it was durable in the archive, as far as that was proved.
    pub zero_loss: Vec<ZeroLossView>,
}

/// A place where the log of a server goes on in that of another one of its replication set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FailOverView {
    /// The last position in the log of the one.
    pub after: String,
    /// The first one in that of the other.
    pub at: String,
    /// The identity of the other: its `server_uuid`, or what stands for it (MariaDB).
    pub uuid: String,
    /// The life of the log that began there.
    pub life: u32,
    /// When the first transaction behind it was committed.
    #[serde(serialize_with = "maybe_time")]
    pub first: Option<Micros>,
}

/// Rows of one table that a transaction changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableView {
    /// `schema.table`.
    pub table: String,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// A transaction or statement that `find` found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct FoundView {
    /// What `restore --before` and `--after` take.
    pub id: String,
    /// Commit time.
    #[serde(serialize_with = "time")]
    pub at: Micros,
    /// `rows`, `ddl`, `acl`, …
    pub kind: String,
    /// Where it begins in the source's binlog: `file:offset`.
    pub position: String,
    /// Tables it changed.
    pub tables: Vec<TableView>,
    /// The statement, where the log has its text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub statement: Option<String>,
    /// `user@host` of who ran it, where the log was read and says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
}

/// A value for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Shown {
    /// NULL.
    Null,
    /// A text.
    Text(String),
    /// Anything else: a number, a time, bytes as `0x..`.
    Other(String),
}

/// A column of a changed row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct CellView {
    /// Its name, or `@1` for the first column where the log has no names.
    pub column: String,
    /// The value before; missing for an insert, and where the log does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<Shown>,
    /// The value after; missing for a delete, and where the log does not have it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<Shown>,
}

/// A row that a transaction changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RowView {
    /// `schema.table`.
    pub table: String,
    /// `insert`, `update` or `delete`.
    pub change: &'static str,
    /// Its columns, as far as the log has them.
    pub cells: Vec<CellView>,
}
