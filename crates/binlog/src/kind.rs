//! The types of events of both families.

use std::fmt;

/// The type byte of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventType(pub u8);

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $value:literal;)*) => {
        impl EventType {
            $($(#[$doc])* pub const $name: EventType = EventType($value);)*

            /// The name in the servers' documentation; `None` for a type that is not known here.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

kinds! {
    /// A statement, or the start or end of a transaction.
    QUERY = 2;
    /// The server stopped.
    STOP = 3;
    /// The name of the next log.
    ROTATE = 4;
    /// AUTO_INCREMENT or LAST_INSERT_ID of the statement that follows.
    INTVAR = 5;
    /// LOAD DATA of MySQL 3.23.
    LOAD = 6;
    /// Part of LOAD DATA of MySQL 4.
    CREATE_FILE = 8;
    /// A further block of a file for LOAD DATA.
    APPEND_BLOCK = 9;
    /// Part of LOAD DATA of MySQL 4.
    EXEC_LOAD = 10;
    /// LOAD DATA failed, drop the file.
    DELETE_FILE = 11;
    /// LOAD DATA of MySQL 4.
    NEW_LOAD = 12;
    /// Seeds of RAND() in the statement that follows.
    RAND = 13;
    /// A user variable of the statement that follows.
    USER_VAR = 14;
    /// How the events behind it are laid out.
    FORMAT_DESCRIPTION = 15;
    /// The end of a transaction.
    XID = 16;
    /// The first block of a file for LOAD DATA.
    BEGIN_LOAD_QUERY = 17;
    /// LOAD DATA itself.
    EXECUTE_LOAD_QUERY = 18;
    /// A table: its name and the types of its columns.
    TABLE_MAP = 19;
    /// Inserted rows, version 1.
    WRITE_ROWS_V1 = 23;
    /// Updated rows, version 1.
    UPDATE_ROWS_V1 = 24;
    /// Deleted rows, version 1.
    DELETE_ROWS_V1 = 25;
    /// Something is missing in the log.
    INCIDENT = 26;
    /// Sign of life on a replication connection.
    HEARTBEAT = 27;
    /// To be ignored.
    IGNORABLE = 28;
    /// The text of the statement behind row events.
    ROWS_QUERY = 29;
    /// Inserted rows, version 2.
    WRITE_ROWS = 30;
    /// Updated rows, version 2.
    UPDATE_ROWS = 31;
    /// Deleted rows, version 2.
    DELETE_ROWS = 32;
    /// MySQL: start of a transaction with its GTID.
    GTID = 33;
    /// MySQL: start of a transaction without a GTID.
    ANONYMOUS_GTID = 34;
    /// MySQL: the GTIDs of all logs before this one.
    PREVIOUS_GTIDS = 35;
    /// Group replication: what a transaction depends on.
    TRANSACTION_CONTEXT = 36;
    /// Group replication: membership.
    VIEW_CHANGE = 37;
    /// XA PREPARE, or XA COMMIT ONE PHASE.
    XA_PREPARE = 38;
    /// Updated rows whose JSON columns hold differences.
    PARTIAL_UPDATE_ROWS = 39;
    /// A compressed transaction.
    TRANSACTION_PAYLOAD = 40;
    /// Sign of life with a 64-bit position.
    HEARTBEAT_V2 = 41;
    /// MySQL: start of a transaction whose GTID has a tag.
    GTID_TAGGED = 42;
    /// MariaDB: the text of the statement behind row events.
    ANNOTATE_ROWS = 160;
    /// MariaDB: the oldest log that recovery needs.
    BINLOG_CHECKPOINT = 161;
    /// MariaDB: start of a transaction.
    MARIADB_GTID = 162;
    /// MariaDB: the GTIDs of all logs before this one.
    GTID_LIST = 163;
    /// MariaDB: the rest of the file is encrypted.
    START_ENCRYPTION = 164;
    /// MariaDB: a compressed QUERY.
    QUERY_COMPRESSED = 165;
    /// MariaDB: compressed inserted rows, version 1.
    WRITE_ROWS_COMPRESSED_V1 = 166;
    /// MariaDB: compressed updated rows, version 1.
    UPDATE_ROWS_COMPRESSED_V1 = 167;
    /// MariaDB: compressed deleted rows, version 1.
    DELETE_ROWS_COMPRESSED_V1 = 168;
    /// MariaDB: compressed inserted rows, version 2.
    WRITE_ROWS_COMPRESSED = 169;
    /// MariaDB: compressed updated rows, version 2.
    UPDATE_ROWS_COMPRESSED = 170;
    /// MariaDB: compressed deleted rows, version 2.
    DELETE_ROWS_COMPRESSED = 171;
}

/// What row events do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RowChange {
    /// Rows appear.
    Insert,
    /// Rows change.
    Update,
    /// Rows vanish.
    Delete,
}

/// The properties of a type of row events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowsKind {
    /// What happens to the rows.
    pub change: RowChange,
    /// 1 or 2; version 2 has extra data.
    pub version: u8,
    /// Compressed by MariaDB.
    pub compressed: bool,
    /// JSON columns of after images may hold differences.
    pub partial: bool,
}

impl EventType {
    /// What kind of row events this is, if it is one.
    #[must_use]
    pub fn rows(self) -> Option<RowsKind> {
        let (version, first, compressed) = match self.0 {
            23..=25 => (1, 23, false),
            30..=32 => (2, 30, false),
            39 => {
                return Some(RowsKind {
                    change: RowChange::Update,
                    version: 2,
                    compressed: false,
                    partial: true,
                });
            }
            166..=168 => (1, 166, true),
            169..=171 => (2, 169, true),
            _ => return None,
        };
        let change = match self.0 - first {
            0 => RowChange::Insert,
            1 => RowChange::Update,
            _ => RowChange::Delete,
        };
        Some(RowsKind { change, version, compressed, partial: false })
    }

    /// The type of the same event without MariaDB's compression.
    #[must_use]
    pub fn uncompressed(self) -> Self {
        match self.0 {
            165 => Self::QUERY,
            166..=168 => Self(self.0 - 166 + 23),
            169..=171 => Self(self.0 - 169 + 30),
            _ => self,
        }
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => write!(f, "{name} event"),
            None => write!(f, "event of type {}", self.0),
        }
    }
}
