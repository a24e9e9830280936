//! How a stream is followed, how long, and what is told meanwhile.

use std::time::Duration;

use holdfast_format::gtid::Uuid;
use holdfast_format::record::{LogRecord, Position};
use holdfast_mysql::{ConnectOptions, DumpOptions};

use crate::error::Error;
use crate::join::Join;
use crate::receiver::ReceiverEngine;

/// Raw bytes at which a stretch is sealed at the next boundary: what an index is rebuilt from after a crash.
pub const STRETCH_BYTES: u64 = 64 << 20;

/// How a stream is followed.
#[derive(Debug, Clone)]
pub struct FollowOptions {
    /// The source.
    pub connect: ConnectOptions,
    /// How to ask it.
    pub dump: DumpOptions,
    /// How its socket is read.
    pub engine: ReceiverEngine,
    /// Be a semi-synchronous replica: the source's commits wait until they are durable here, if it is set to.
    pub semi_sync: bool,
    /// What its `server_uuid` must be (MySQL).
    pub expect_uuid: Option<Uuid>,
    /// In semi-synchronous mode: how long the source's commits are not made to wait for a disk that was too slow.
    pub rest: Duration,
    /// Oldest age of an event that is not durable.
    pub sync_after: Duration,
    /// Shortest time between two syncs when the source is quiet.
    pub sync_idle: Duration,
    /// Raw bytes at which a stretch is sealed.
    pub stretch_bytes: u64,
    /// First and longest wait before connecting again.
    pub backoff: (Duration, Duration),
    /// Gives up when no connection came about for that long. `None`: never.
    pub give_up_after: Option<Duration>,
    /// Where a stream of which nothing is archived yet goes on behind that of another server.
    pub join: Option<Join>,
}

impl FollowOptions {
    /// The usual: durable within a second, 64 MiB a stretch, 0.5 s to 30 s between attempts, for ever.
    #[must_use]
    pub fn new(connect: ConnectOptions, server_id: u32) -> Self {
        Self {
            connect,
            dump: DumpOptions::new(server_id),
            engine: ReceiverEngine::Probe,
            semi_sync: false,
            expect_uuid: None,
            rest: Duration::from_secs(60),
            sync_after: Duration::from_millis(800),
            sync_idle: Duration::from_millis(50),
            stretch_bytes: STRETCH_BYTES,
            backoff: (Duration::from_millis(500), Duration::from_secs(30)),
            give_up_after: None,
            join: None,
        }
    }
}

/// How long to follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Until {
    /// Until the stop flag is set.
    Stopped,
    /// Up to the source's end of log as it is when we get there.
    EndOfLog,
    /// Up to a position of the source, by file and offset.
    Position(Position),
}

/// What happens, for whoever shows it.
#[derive(Debug)]
pub enum Note<'a> {
    /// Connected; the stream begins here.
    Connected {
        /// The source's version.
        version: String,
        /// File and offset.
        at: String,
    },
    /// The stream is being read.
    Receiving {
        /// By what: `tokio-uring` or `tokio`.
        engine: &'static str,
    },
    /// Whether the source's commits wait for us from now on. Told in semi-synchronous mode only.
    SemiSync {
        /// They do, unless the source has been told not to wait.
        on: bool,
    },
    /// In this time nothing that a client was told is committed can have been lost: it was durable here first. Told again
    /// as it grows.
    ZeroLoss {
        /// From when, microseconds since the Unix epoch by the source's clock.
        from_us: i64,
        /// Until when.
        until_us: i64,
    },
    /// The connection is lost or did not come about.
    Retrying {
        /// Why.
        error: &'a Error,
        /// When the next attempt is made.
        after: Duration,
    },
    /// Everything up to here is durable.
    Synced {
        /// Up to where.
        at: &'a Position,
        /// Commit time of the last transaction, microseconds since the Unix epoch; 0 before the first one.
        last_us: i64,
        /// Transactions since the start of this call.
        transactions: u64,
        /// The source has nothing more at the moment.
        caught_up: bool,
    },
    /// A stretch is complete.
    Sealed(&'a LogRecord),
    /// Something to know that stops nothing.
    Warning(String),
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Followed {
    /// The end of what is durable now; `None` if nothing ever came.
    pub at: Option<Position>,
    /// Transactions received.
    pub transactions: u64,
    /// Bytes of events received.
    pub bytes: u64,
}
