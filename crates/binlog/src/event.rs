//! One event: header, body, and the body's meaning.

use holdfast_format::gtid::{MariaDbBinlogState, MySqlGtidSet};

use crate::bytes::le;
use crate::error::{Error, Flaw};
use crate::format::{Checksum, FormatDescription};
use crate::gtid_event::{self, GtidEvent};
use crate::kind::EventType;
use crate::misc;
use crate::payload::Payload;
use crate::query::Query;
use crate::rows::Rows;
use crate::table_map::TableMap;

/// Length of every event's header.
pub const HEADER_LEN: usize = 19;

/// Header flag: the log is (or was, after a crash) open. Left out of the checksum.
pub const FLAG_IN_USE: u16 = 0x0001;
/// Header flag: the statement depends on its thread (temporary tables).
pub const FLAG_THREAD_SPECIFIC: u16 = 0x0004;
/// Header flag: the default database is of no meaning to the statement.
pub const FLAG_SUPPRESS_USE: u16 = 0x0008;
/// Header flag: made up by the server for a replica, not in the file.
pub const FLAG_ARTIFICIAL: u16 = 0x0020;
/// Header flag: a reader that doesn't know the type may ignore the event.
pub const FLAG_IGNORABLE: u16 = 0x0080;

/// The header of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Unix time in seconds at which the statement started.
    pub timestamp: u32,
    /// Type.
    pub kind: EventType,
    /// `server_id` of the first writer.
    pub server_id: u32,
    /// Length of the event, header and checksum included.
    pub length: u32,
    /// Position behind the event in the first writer's log (low 32 bits); 0 when it never was in one.
    pub log_pos: u32,
    /// `FLAG_*`.
    pub flags: u16,
}

impl Header {
    /// Reads the 19 bytes.
    #[must_use]
    pub fn read(raw: &[u8; HEADER_LEN]) -> Self {
        let part = |from: usize, to: usize| le(raw.get(from..to).unwrap_or_default());
        Self {
            timestamp: part(0, 4) as u32,
            kind: EventType(part(4, 5) as u8),
            server_id: part(5, 9) as u32,
            length: part(9, 13) as u32,
            log_pos: part(13, 17) as u32,
            flags: part(17, 19) as u16,
        }
    }

    /// Appends the 19 bytes.
    pub fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.timestamp.to_le_bytes());
        out.push(self.kind.0);
        out.extend_from_slice(&self.server_id.to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out.extend_from_slice(&self.log_pos.to_le_bytes());
        out.extend_from_slice(&self.flags.to_le_bytes());
    }
}

/// One event as bytes, its checksum already verified by the walker that gave it.
#[derive(Debug, Clone, Copy)]
pub struct Event<'a> {
    /// The header.
    pub header: Header,
    /// Offset of the event in its stream or file.
    pub position: u64,
    /// All bytes: header, body, checksum.
    pub raw: &'a [u8],
    /// How it ends.
    pub checksum: Checksum,
}

impl<'a> Event<'a> {
    /// The bytes between header and checksum. A format description's body holds its
    /// algorithm byte and checksum.
    #[must_use]
    pub fn body(&self) -> &'a [u8] {
        let end = self.raw.len().saturating_sub(match self.header.kind {
            EventType::FORMAT_DESCRIPTION => 0,
            _ => self.checksum.len(),
        });
        self.raw.get(HEADER_LEN..end).unwrap_or_default()
    }

    /// Type.
    #[must_use]
    pub fn kind(&self) -> EventType {
        self.header.kind
    }

    /// Was it made up for a replica, so that it is in no file?
    #[must_use]
    pub fn is_artificial(&self) -> bool {
        self.header.flags & FLAG_ARTIFICIAL != 0
    }

    /// Turns a flaw in this event's body into an error that names the event.
    #[must_use]
    pub fn malformed(&self, flaw: Flaw) -> Error {
        Error::Malformed { position: self.position, kind: self.header.kind, flaw }
    }

    /// Reads the body.
    ///
    /// # Errors
    /// Fails on a body that does not parse and on an unknown type without the IGNORABLE flag.
    pub fn parse(&self, format: &FormatDescription) -> Result<Body<'a>, Error> {
        let body = self.body();
        let parsed = match self.header.kind {
            EventType::FORMAT_DESCRIPTION => FormatDescription::parse(body).map(Body::FormatDescription),
            EventType::ROTATE => misc::rotate(body),
            EventType::STOP => Ok(Body::Stop),
            EventType::GTID => gtid_event::parse_gtid(body, false).map(Body::Gtid),
            EventType::ANONYMOUS_GTID => gtid_event::parse_gtid(body, true).map(Body::Gtid),
            EventType::GTID_TAGGED => gtid_event::parse_tagged(body).map(Body::Gtid),
            EventType::MARIADB_GTID => gtid_event::parse_mariadb(body, self.header.server_id).map(Body::Gtid),
            EventType::PREVIOUS_GTIDS => gtid_event::parse_previous(body).map(Body::PreviousGtids),
            EventType::GTID_LIST => gtid_event::parse_list(body).map(Body::GtidList),
            EventType::QUERY | EventType::QUERY_COMPRESSED => {
                Query::parse(body, format, self.header.kind == EventType::QUERY_COMPRESSED).map(Body::Query)
            }
            EventType::XID => misc::xid(body),
            EventType::TABLE_MAP => TableMap::parse(body).map(Body::TableMap),
            EventType::TRANSACTION_PAYLOAD => Payload::parse(body).map(Body::Payload),
            EventType::ROWS_QUERY => misc::rows_query(body),
            EventType::ANNOTATE_ROWS => Ok(Body::RowsQuery(body)),
            EventType::XA_PREPARE => misc::xa_prepare(body),
            EventType::INTVAR => misc::int_var(body),
            EventType::RAND => misc::rand(body),
            EventType::USER_VAR => misc::user_var(body),
            EventType::BEGIN_LOAD_QUERY => misc::block(body).map(Body::BeginLoad),
            EventType::APPEND_BLOCK => misc::block(body).map(Body::AppendBlock),
            EventType::DELETE_FILE => misc::delete_file(body),
            EventType::EXECUTE_LOAD_QUERY => misc::execute_load(body, format),
            EventType::LOAD | EventType::NEW_LOAD | EventType::CREATE_FILE | EventType::EXEC_LOAD => {
                Ok(Body::OldLoad)
            }
            EventType::INCIDENT => misc::incident(body),
            EventType::HEARTBEAT => {
                Ok(Body::Heartbeat { file: body, position: u64::from(self.header.log_pos) })
            }
            EventType::HEARTBEAT_V2 => misc::heartbeat_v2(body),
            EventType::START_ENCRYPTION => misc::start_encryption(body),
            EventType::BINLOG_CHECKPOINT => misc::checkpoint(body),
            EventType::IGNORABLE | EventType::VIEW_CHANGE | EventType::TRANSACTION_CONTEXT => {
                Ok(Body::Ignorable)
            }
            kind if kind.rows().is_some() => Rows::parse(kind, body).map(Body::Rows),
            _ if self.header.flags & FLAG_IGNORABLE != 0 => Ok(Body::Ignorable),
            kind => {
                let server = format.server_version.clone();
                return Err(Error::Unknown { position: self.position, kind, server });
            }
        };
        parsed.map_err(|flaw| self.malformed(flaw))
    }
}

/// What an event says.
#[derive(Debug, Clone)]
pub enum Body<'a> {
    /// How everything behind it is laid out.
    FormatDescription(FormatDescription),
    /// The log goes on in `file` at `position`.
    Rotate {
        /// Position in the next file.
        position: u64,
        /// Name of the next file.
        file: &'a [u8],
    },
    /// The server stopped.
    Stop,
    /// A transaction starts: GTID, tagged GTID, anonymous, or MariaDB's GTID.
    Gtid(GtidEvent),
    /// MySQL: everything in the logs before this one.
    PreviousGtids(MySqlGtidSet),
    /// MariaDB: everything in the logs before this one.
    GtidList(MariaDbBinlogState),
    /// A statement.
    Query(Query<'a>),
    /// The transaction is committed.
    Xid {
        /// The engine's number of the transaction.
        xid: u64,
    },
    /// A table that row events behind it speak of.
    TableMap(TableMap<'a>),
    /// Rows.
    Rows(Rows<'a>),
    /// A compressed transaction.
    Payload(Payload<'a>),
    /// The text of the statement behind row events (ROWS_QUERY, ANNOTATE_ROWS).
    RowsQuery(&'a [u8]),
    /// XA PREPARE, or with `one_phase` the commit of an XA transaction.
    XaPrepare {
        /// Written by XA COMMIT .. ONE PHASE.
        one_phase: bool,
        /// Format id, global part, branch part.
        xid: misc::XaId,
    },
    /// AUTO_INCREMENT (`insert_id`) or LAST_INSERT_ID of the next statement.
    IntVar {
        /// True: value of AUTO_INCREMENT; false: LAST_INSERT_ID().
        insert_id: bool,
        /// The value.
        value: u64,
    },
    /// Seeds of RAND() in the next statement.
    Rand {
        /// First seed.
        seed1: u64,
        /// Second seed.
        seed2: u64,
    },
    /// A user variable of the next statement.
    UserVar {
        /// Its name, in UTF-8.
        name: &'a [u8],
        /// Its value.
        value: misc::UserValue<'a>,
    },
    /// First block of a file for LOAD DATA.
    BeginLoad(misc::Block<'a>),
    /// Further block of a file for LOAD DATA.
    AppendBlock(misc::Block<'a>),
    /// LOAD DATA failed, its file is dropped.
    DeleteFile {
        /// Number of the file.
        file_id: u32,
    },
    /// LOAD DATA of a file.
    ExecuteLoad {
        /// Number of the file.
        file_id: u32,
        /// The statement.
        query: Query<'a>,
        /// The part of the statement from INFILE to INTO, both included.
        name: std::ops::Range<u32>,
        /// What happens to rows whose keys are there already.
        duplicates: misc::Duplicates,
    },
    /// LOAD DATA as MySQL 4 and before wrote it.
    OldLoad,
    /// Something is missing in the log.
    Incident {
        /// 1: lost events.
        number: u16,
        /// What the server says.
        message: &'a [u8],
    },
    /// Sign of life.
    Heartbeat {
        /// The source's present file.
        file: &'a [u8],
        /// The source's present position.
        position: u64,
    },
    /// MariaDB: the rest of the file is encrypted.
    StartEncryption {
        /// Scheme.
        scheme: u8,
        /// Version of the key.
        key_version: u32,
    },
    /// MariaDB: the oldest file that the source's recovery needs.
    Checkpoint {
        /// Its name.
        file: &'a [u8],
    },
    /// May be ignored.
    Ignorable,
}
