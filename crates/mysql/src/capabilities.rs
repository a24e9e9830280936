//! Capability flags that both sides exchange in the handshake, and the server's status flags.

/// `CLIENT_LONG_PASSWORD`; a MariaDB server leaves it out to announce its own extended flags.
pub const LONG_PASSWORD: u32 = 1;
/// Affected rows count found rows, not changed ones. Not asked for.
pub const FOUND_ROWS: u32 = 1 << 1;
/// All column flags.
pub const LONG_FLAG: u32 = 1 << 2;
/// The handshake response names a database.
pub const CONNECT_WITH_DB: u32 = 1 << 3;
/// The server may ask for the file of LOAD DATA LOCAL. Nothing but a file's bytes given with the statement is ever sent.
pub const LOCAL_FILES: u32 = 1 << 7;
/// The 4.1 protocol; required.
pub const PROTOCOL_41: u32 = 1 << 9;
/// TLS follows the short form of the handshake response.
pub const SSL: u32 = 1 << 11;
/// Status flags tell about transactions.
pub const TRANSACTIONS: u32 = 1 << 13;
/// 20-byte challenges; required.
pub const SECURE_CONNECTION: u32 = 1 << 15;
/// Several statements in one query packet.
pub const MULTI_STATEMENTS: u32 = 1 << 16;
/// Several results to one query packet.
pub const MULTI_RESULTS: u32 = 1 << 17;
/// Authentication plugins are named.
pub const PLUGIN_AUTH: u32 = 1 << 19;
/// Key-value pairs about the client follow.
pub const CONNECT_ATTRS: u32 = 1 << 20;
/// The answer to the challenge has a length-encoded length.
pub const PLUGIN_AUTH_LENENC_DATA: u32 = 1 << 21;

/// Status flag: another result follows.
pub const STATUS_MORE_RESULTS: u16 = 0x0008;
/// `sql_mode` holds NO_BACKSLASH_ESCAPES.
pub const STATUS_NO_BACKSLASH_ESCAPES: u16 = 0x0200;
/// Status flag: a transaction is open.
pub const STATUS_IN_TRANSACTION: u16 = 0x0001;
