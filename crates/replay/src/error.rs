//! Why a replay can't go on.

use holdfast_binlog::tables::TableKey;
use holdfast_format::gtid::GtidError;

use crate::log::EventPlace;

/// Why a replay can't go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log could not be read.
    #[error("the archived log can't be read: {0}")]
    Log(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The log does not parse.
    #[error("the archived log at {place} is not readable: {source}")]
    Binlog {
        /// Where.
        place: EventPlace,
        /// What is wrong.
        source: Box<holdfast_binlog::Error>,
    },
    /// Bytes that were read could not be made into an event for the server.
    #[error("the event at {place} can't be handed to the server: {flaw}")]
    Encode {
        /// Where.
        place: EventPlace,
        /// What is wrong.
        flaw: holdfast_binlog::Flaw,
    },
    /// The private server refused something that is part of the machinery.
    #[error("the private server failed while {doing}: {source}")]
    Server {
        /// What was being done.
        doing: &'static str,
        /// What it said.
        source: Box<holdfast_mysql::Error>,
    },
    /// The private server refused a part of the log: the copy and the log don't fit together.
    #[error(
        "{what} at {place} failed on the restored copy although it succeeded on the source: {source}. The copy and \
         the log do not fit together; nothing behind this point was applied"
    )]
    Diverged {
        /// The statement, or the tables of the rows.
        what: String,
        /// Where in the log.
        place: EventPlace,
        /// What the server said.
        source: Box<holdfast_mysql::Error>,
    },
    /// Something in the range can't be replayed.
    #[error("{0}")]
    Refused(String),
    /// A row can't be sent.
    #[error("a row at {place} needs a packet of {needed} bytes, the server takes {limit}")]
    RowTooLong {
        /// Where.
        place: EventPlace,
        /// Bytes needed.
        needed: u64,
        /// The server's `max_allowed_packet`.
        limit: u64,
    },
    /// The copy was half replayed for another plan.
    #[error(
        "the copy was half replayed for another plan (`{found}`, now `{wanted}`): lay the base out anew and start again"
    )]
    OtherPlan {
        /// The plan that is recorded in the copy.
        found: String,
        /// The plan of this call.
        wanted: String,
    },
    /// The host was started anew in the middle of a replay, which runs without syncing.
    #[error(
        "this host was started anew after the replay began, and a replay does not sync its writes: lay the base out \
         anew and start again"
    )]
    HostRestarted,
    /// The log ends before what is already applied.
    #[error("the log ends after {available} transactions, but {applied} are applied to the copy already")]
    LogShrank {
        /// Transactions in the log.
        available: u64,
        /// Transactions applied.
        applied: u64,
    },
    /// A DDL statement was under way at a crash and it can't be told whether it took effect.
    #[error(
        "`{statement}` at {place} was under way when the last replay was killed, and running it again failed: \
         {source}. Lay the base out anew and start again"
    )]
    HalfDone {
        /// The statement.
        statement: String,
        /// Where.
        place: EventPlace,
        /// What the server said.
        source: Box<holdfast_mysql::Error>,
    },
    /// Rows of a table without transactions were under way at a crash.
    #[error(
        "{what} were under way at {place} when the last replay was killed. An engine without transactions keeps a part of \
         them, and nothing tells which: lay the base out anew and start again"
    )]
    NonTransactional {
        /// What was under way.
        what: String,
        /// Where.
        place: EventPlace,
    },
    /// A temporary table went with the replay that made it.
    #[error(
        "`{statement}` at {place} needs a temporary table that an earlier run made, or that the base was taken \
         without: lay the base out anew and start again, from a base in which no such table was in use"
    )]
    TemporaryLost {
        /// The statement.
        statement: String,
        /// Where.
        place: EventPlace,
    },
    /// No further connection.
    #[error("a further connection to the private server can't be opened: {0}")]
    Connect(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Net change does not fit a table after all. Tables step down by themselves while nothing of
    /// a window is committed; here something was. A copy of the base that is laid out anew can be replayed
    /// with these tables in order from the start ([`crate::net::step_down`]).
    #[error(
        "the net change of {} does not fit the copy: {why}. A part of it is applied already: lay the base out anew, \
         and replay these tables in order",
        named(tables)
    )]
    Surprise {
        /// The table, or those of which one it is.
        tables: Vec<TableKey>,
        /// Why.
        why: String,
        /// The tables that they are joined with by foreign keys must be replayed with them.
        together: bool,
    },
    /// A window of net change is under way, which only a replay of net change can finish.
    #[error(
        "the last replay was killed in the middle of a window of net change, which a serial replay can't finish: use \
         another mode"
    )]
    WindowUnderWay,
    /// A window of net change was under way at a crash, and the log does not give it again.
    #[error(
        "the stretch of log that was under way when the last replay was killed is not what it was: lay the base out \
         anew and start again"
    )]
    OtherWindow,
    /// GTIDs that don't go together.
    #[error("the GTIDs of base and log don't go together: {0}")]
    Gtid(#[from] GtidError),
    /// An earlier replay's session on the same server does not end.
    #[error(
        "the session of an earlier replay (connection {0}) still works on this server and does not end when killed"
    )]
    StillRunning(String),
    /// The caller asked to stop.
    #[error("stopped after {0} transactions; the same call again goes on from there")]
    Stopped(u64),
}

impl Error {
    pub(crate) fn binlog(place: &EventPlace) -> impl FnOnce(holdfast_binlog::Error) -> Self {
        let place = place.clone();
        move |source| Self::Binlog { place, source: Box::new(source) }
    }

    pub(crate) fn server(doing: &'static str) -> impl FnOnce(holdfast_mysql::Error) -> Self {
        move |source| Self::Server { doing, source: Box::new(source) }
    }
}

/// Some names for a message.
fn named(tables: &[TableKey]) -> String {
    let names: Vec<String> = tables.iter().take(3).map(ToString::to_string).collect();
    let more = tables.len().saturating_sub(names.len());
    if more > 0 { format!("{} and {more} more", names.join(", ")) } else { names.join(", ") }
}
