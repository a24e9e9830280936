//! The FORMAT_DESCRIPTION event: how everything behind it is laid out.

use crate::bytes::Cursor;
use crate::error::Flaw;
use crate::kind::EventType;

/// How events end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Checksum {
    /// Nothing behind the body.
    Off,
    /// Four bytes of CRC-32 behind the body.
    Crc32,
}

impl Checksum {
    /// Bytes that the checksum takes at the end of each event.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Crc32 => 4,
        }
    }

    /// Is there no checksum?
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::Off
    }
}

/// The contents of a FORMAT_DESCRIPTION event (binlog version 4).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FormatDescription {
    /// Text as the server wrote it, like `9.7.4-2` or `10.11.19-MariaDB-log`.
    pub server_version: String,
    /// Unix time at which the log was made; 0 in one that a server resends.
    pub created: u32,
    /// Length of the fixed part behind the header, by type of event less one.
    pub post_header_lengths: Vec<u8>,
    /// How the events behind this one end.
    pub checksum: Checksum,
}

/// Length of the version text in the event, NUL-padded.
const VERSION_LEN: usize = 50;

impl FormatDescription {
    /// Reads the body, the checksum included: this event always carries four bytes of
    /// checksum, whatever its algorithm byte says of the others.
    pub(crate) fn parse(body: &[u8]) -> Result<Self, Flaw> {
        let mut c = Cursor::new(body);
        let version = c.u16("the binlog version")?;
        if version != 4 {
            return Err(c.flaw("binlog version 4", version));
        }
        let raw = c.take(VERSION_LEN, "the server version")?;
        let raw = raw.split(|b| *b == 0).next().unwrap_or_default();
        let server_version = match std::str::from_utf8(raw) {
            Ok(text) => text.to_owned(),
            Err(_) => return Err(c.flaw("a server version in ASCII", "other bytes")),
        };
        let created = c.u32("the time of creation")?;
        let header = c.u8("the length of headers")?;
        if header != 19 {
            return Err(c.flaw("headers of 19 bytes", header));
        }
        // What is left: the lengths, one byte of algorithm, four of checksum.
        let Some(count) = c.left().checked_sub(5) else {
            return Err(c.flaw("a checksum algorithm (MySQL 5.6, MariaDB 5.3 and later)", "the end"));
        };
        let post_header_lengths = c.take(count, "the post-header lengths")?.to_vec();
        let checksum = match c.u8("the checksum algorithm")? {
            0 => Checksum::Off,
            1 => Checksum::Crc32,
            other => return Err(c.flaw("checksum algorithm 0 (off) or 1 (CRC-32)", other)),
        };
        let fde = Self { server_version, created, post_header_lengths, checksum };
        fde.check_lengths().map_err(|(kind, want)| {
            c.flaw(
                "the post-header lengths of binlog version 4",
                format!("{} for {kind}, not {want}", fde.post_header_length(kind).unwrap_or(0)),
            )
        })?;
        Ok(fde)
    }

    /// Length of the fixed part of a type of event, if the writer knew the type.
    #[must_use]
    pub fn post_header_length(&self, kind: EventType) -> Option<u8> {
        usize::from(kind.0).checked_sub(1).and_then(|i| self.post_header_lengths.get(i)).copied()
    }

    /// Was the log written by MariaDB? Its version texts say so.
    #[must_use]
    pub fn is_mariadb(&self) -> bool {
        self.server_version.contains("MariaDB")
    }

    /// The parsers here rely on these lengths, which no server of this binlog version has
    /// ever changed; a log that says otherwise must not be read as if it didn't.
    fn check_lengths(&self) -> Result<(), (EventType, u8)> {
        const FIXED: [(EventType, u8); 12] = [
            (EventType::QUERY, 13),
            (EventType::ROTATE, 8),
            (EventType::APPEND_BLOCK, 4),
            (EventType::TABLE_MAP, 8),
            (EventType::WRITE_ROWS_V1, 8),
            (EventType::UPDATE_ROWS_V1, 8),
            (EventType::DELETE_ROWS_V1, 8),
            (EventType::WRITE_ROWS, 10),
            (EventType::UPDATE_ROWS, 10),
            (EventType::DELETE_ROWS, 10),
            (EventType::PARTIAL_UPDATE_ROWS, 10),
            (EventType::MARIADB_GTID, 19),
        ];
        for (kind, want) in FIXED {
            // MariaDB leaves types that it does not know at 0.
            match self.post_header_length(kind) {
                None | Some(0) => {}
                Some(got) if got == want => {}
                Some(_) => return Err((kind, want)),
            }
        }
        Ok(())
    }
}
