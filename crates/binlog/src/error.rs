//! What can be wrong with a binlog.

use crate::kind::EventType;

/// A flaw inside one event, at an offset in its body.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at byte {offset} of its body: expected {expected}, got {got}")]
pub struct Flaw {
    /// Offset in the event's body (behind the 19-byte header).
    pub offset: u32,
    /// What should have been there.
    pub expected: &'static str,
    /// What was there.
    pub got: String,
}

/// What can be wrong with a binlog. Positions are offsets in the stream or file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The log ends in the middle of an event.
    #[error("the binlog ends at {end}, in the middle of the event at {position} which needs {needed} bytes")]
    Cut {
        /// Start of the event.
        position: u64,
        /// Where the bytes end.
        end: u64,
        /// Length of the event, or of its header when that is cut.
        needed: u64,
    },
    /// The first four bytes are not a binlog's.
    #[error("not a binlog: expected it to start with fe 62 69 6e, got {got}{hint}")]
    Magic {
        /// The bytes found, as hexadecimal digits.
        got: String,
        /// What the bytes rather look like.
        hint: &'static str,
    },
    /// A length in an event's header can't be right.
    #[error("the event at {position} says it is {length} bytes long, expected from {min} to {max}")]
    Length {
        /// Start of the event.
        position: u64,
        /// The length in its header.
        length: u64,
        /// Smallest possible length.
        min: u64,
        /// Largest allowed length.
        max: u64,
    },
    /// The CRC-32 of an event does not match.
    #[error("{kind} at {position} is damaged: its checksum is {stored:08x}, its bytes give {computed:08x}")]
    Crc {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// The checksum in the event.
        stored: u32,
        /// The checksum of the bytes.
        computed: u32,
    },
    /// An event before the first FORMAT_DESCRIPTION event.
    #[error("{kind} at {position} comes before any format description, the log can't be read from there")]
    NoFormat {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
    },
    /// An event's body does not parse.
    #[error("{kind} at {position} does not parse {flaw}")]
    Malformed {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// Where in it and why.
        flaw: Flaw,
    },
    /// An event of a type that this version does not know and that may not be ignored.
    #[error(
        "{kind} at {position}, written by server version {server}, is not known to this version and may not be \
         ignored"
    )]
    Unknown {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// Version of the server that wrote it.
        server: String,
    },
    /// The `end_log_pos` of an event does not continue the one before.
    #[error(
        "{kind} at {position} says that it ends at {stated}, expected {expected}: bytes are missing before it"
    )]
    Position {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// The position in its header (its low 32 bits).
        stated: u32,
        /// The position that follows from the one before.
        expected: u64,
    },
    /// Events in an order that no server writes.
    #[error("{kind} at {position} can't stand there: {why}")]
    Order {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// What is wrong with it there.
        why: &'static str,
    },
    /// A limit of this program.
    #[error("{kind} at {position}: {what} is {got}, the limit is {limit}")]
    Limit {
        /// Start of the event.
        position: u64,
        /// Its type.
        kind: EventType,
        /// What is counted.
        what: &'static str,
        /// The value found.
        got: u64,
        /// The limit.
        limit: u64,
    },
}
