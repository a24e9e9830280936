//! Global transaction identifiers of both families: one transaction, sets and positions.
//!
//! MySQL names a transaction `uuid[:tag]:number` and its history is a set of intervals
//! ([`MySqlGtidSet`]). MariaDB names it `domain-server-sequence` and its history is a
//! position, the last one of each domain ([`MariaDbGtidPos`]), or the fuller binlog state
//! ([`MariaDbBinlogState`]). All text forms are the servers' own; white space and line
//! breaks between the parts are taken, as the servers print them.
//!
//! Three binary forms exist: the server's form of MySQL sets (`PREVIOUS_GTIDS_LOG_EVENT`,
//! `COM_BINLOG_DUMP_GTID`), and ours for records, see [`GtidSet::encode`].

mod mariadb;
mod mysql;
mod wire;

use std::fmt;
use std::str::FromStr;

pub use mariadb::{MariaDbBinlogState, MariaDbGtid, MariaDbGtidPos};
pub use mysql::{Interval, MySqlGtidSet, Tag, Tsid};

/// Most (source, tag) pairs or MariaDB domains in one set. A fleet that changed its server
/// once a day for 100 years has 36,500; the limit stops a hostile length, nothing real.
pub const TSIDS_MAX: usize = 1 << 17;

/// Most intervals in one set. Gaps come from multi-threaded appliers without commit order
/// and number in the thousands; 16 bytes each bounds a set at 64 MiB of memory.
pub const INTERVALS_MAX: usize = 1 << 22;

/// Largest transaction number of MySQL: `GNO_END - 1`, `INT64_MAX - 1`.
pub const GNO_MAX: u64 = i64::MAX as u64 - 1;

/// What is wrong with a text or with bytes that should be a GTID or a set of them.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GtidError {
    /// A text that does not parse.
    #[error("`{text}` is not {expected}")]
    Text {
        /// What the text should have been.
        expected: &'static str,
        /// The offending part, cut to 80 characters.
        text: String,
    },
    /// Bytes that do not parse.
    #[error("GTID bytes at offset {at}: expected {expected}, got {got}")]
    Bytes {
        /// Offset of the first bad byte.
        at: u64,
        /// What was expected there.
        expected: &'static str,
        /// What was found.
        got: String,
    },
    /// A set beyond [`TSIDS_MAX`] or [`INTERVALS_MAX`].
    #[error("a GTID set with {got} {what} is beyond the limit of {limit}")]
    TooLarge {
        /// What is counted: "sources" or "intervals".
        what: &'static str,
        /// The number found.
        got: u64,
        /// The limit.
        limit: u64,
    },
    /// A set of one family met one of the other.
    #[error("a {left} GTID set can't be combined with a {right} one")]
    Mixed {
        /// Family of the first operand.
        left: Flavor,
        /// Family of the second operand.
        right: Flavor,
    },
}

impl GtidError {
    fn text(expected: &'static str, text: &str) -> Self {
        Self::Text { expected, text: text.chars().take(80).collect() }
    }
}

/// The two families of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavor {
    /// MySQL and what follows its binlog: Percona Server.
    MySql,
    /// MariaDB.
    MariaDb,
}

impl fmt::Display for Flavor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::MySql => "MySQL",
            Self::MariaDb => "MariaDB",
        })
    }
}

/// A server's UUID: 16 bytes, printed as 8-4-4-4-12 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, byte) in self.0.iter().enumerate() {
            if matches!(i, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = GtidError;

    /// Takes 8-4-4-4-12, 32 digits without dashes, and either in braces, as MySQL does.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        let bad = || GtidError::text("a UUID", text);
        let inner = match text.strip_prefix('{') {
            Some(rest) => rest.strip_suffix('}').ok_or_else(bad)?,
            None => text,
        };
        let bytes = inner.as_bytes();
        let dashed = bytes.len() == 36;
        if !dashed && bytes.len() != 32 {
            return Err(bad());
        }
        let (mut out, mut digits) = ([0u8; 16], 0usize);
        for (i, &b) in bytes.iter().enumerate() {
            if dashed && matches!(i, 8 | 13 | 18 | 23) {
                if b != b'-' {
                    return Err(bad());
                }
                continue;
            }
            let digit = char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok()).ok_or_else(bad)?;
            let slot = out.get_mut(digits / 2).ok_or_else(bad)?;
            *slot = (*slot << 4) | digit;
            digits += 1;
        }
        Ok(Self(out))
    }
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Gtid {
    /// `uuid[:tag]:gno`.
    MySql {
        /// The server that committed it first, and the tag (empty: none).
        tsid: Tsid,
        /// The number, 1 ..= [`GNO_MAX`].
        gno: u64,
    },
    /// `domain-server-sequence`.
    MariaDb(MariaDbGtid),
}

impl Gtid {
    /// The family that the identifier belongs to.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        match self {
            Self::MySql { .. } => Flavor::MySql,
            Self::MariaDb(_) => Flavor::MariaDb,
        }
    }

    /// Appends the record form: one byte of family (0 MySQL, 1 MariaDB); MySQL: 16 bytes
    /// UUID, one byte tag length, tag, gno as LEB128; MariaDB: three LEB128 numbers.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::MySql { tsid, gno } => {
                out.push(0);
                wire::put_tsid(out, tsid);
                wire::put_leb(out, *gno);
            }
            Self::MariaDb(gtid) => {
                out.push(1);
                gtid.put(out);
            }
        }
    }

    /// Reads what [`Gtid::encode`] wrote from the front of `bytes`; gives the length read.
    ///
    /// # Errors
    /// Fails on cut or foreign bytes.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), GtidError> {
        let mut r = wire::Reader::new(bytes);
        let gtid = match r.u8("a family of GTID")? {
            0 => {
                let tsid = r.tsid()?;
                Self::MySql { tsid, gno: r.gno()? }
            }
            1 => Self::MariaDb(MariaDbGtid::take(&mut r)?),
            other => return Err(r.bad("family 0 or 1", other)),
        };
        Ok((gtid, r.position()))
    }
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql { tsid, gno } => write!(f, "{tsid}:{gno}"),
            Self::MariaDb(gtid) => write!(f, "{gtid}"),
        }
    }
}

impl FromStr for Gtid {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        let text = text.trim();
        if !text.contains(':') {
            return Ok(Self::MariaDb(text.parse()?));
        }
        let bad = || GtidError::text("a GTID like uuid:5, uuid:tag:5 or 0-1-5", text);
        let (head, gno) = text.rsplit_once(':').ok_or_else(bad)?;
        let gno = mysql::parse_gno(gno.trim()).ok_or_else(bad)?;
        let tsid = match head.split_once(':') {
            None => Tsid { sid: head.trim().parse()?, tag: Tag::default() },
            Some((sid, tag)) => Tsid { sid: sid.trim().parse()?, tag: tag.parse()? },
        };
        Ok(Self::MySql { tsid, gno })
    }
}

/// What a server has executed, whichever family it is of.
///
/// For MariaDB this is a position: it stands for every transaction of a domain up to the
/// sequence number named, which is true of a server whose sequence numbers rise within a
/// domain (`gtid_strict_mode`, or one writer a domain).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum GtidSet {
    /// Intervals per source and tag.
    MySql(MySqlGtidSet),
    /// The last transaction of each domain.
    MariaDb(MariaDbGtidPos),
}

impl GtidSet {
    /// The empty set of a family.
    #[must_use]
    pub fn empty(flavor: Flavor) -> Self {
        match flavor {
            Flavor::MySql => Self::MySql(MySqlGtidSet::default()),
            Flavor::MariaDb => Self::MariaDb(MariaDbGtidPos::default()),
        }
    }

    /// Reads the server's text form (`gtid_executed`, `gtid_current_pos`); empty text is
    /// the empty set, which is why the family must be said.
    ///
    /// # Errors
    /// Fails when the text is not of that family.
    pub fn parse(flavor: Flavor, text: &str) -> Result<Self, GtidError> {
        match flavor {
            Flavor::MySql => text.parse().map(Self::MySql),
            Flavor::MariaDb => text.parse().map(Self::MariaDb),
        }
    }

    /// The family.
    #[must_use]
    pub fn flavor(&self) -> Flavor {
        match self {
            Self::MySql(_) => Flavor::MySql,
            Self::MariaDb(_) => Flavor::MariaDb,
        }
    }

    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match self {
            Self::MySql(set) => set.is_empty(),
            Self::MariaDb(pos) => pos.is_empty(),
        }
    }

    /// Is the transaction in the set? Never true for a transaction of the other family.
    #[must_use]
    pub fn contains(&self, gtid: &Gtid) -> bool {
        match (self, gtid) {
            (Self::MySql(set), Gtid::MySql { tsid, gno }) => set.contains(tsid, *gno),
            (Self::MariaDb(pos), Gtid::MariaDb(gtid)) => pos.contains(gtid),
            _ => false,
        }
    }

    /// Adds one transaction. For MariaDB the position of its domain moves forward, never back.
    ///
    /// # Errors
    /// Fails when the families differ.
    pub fn add(&mut self, gtid: &Gtid) -> Result<(), GtidError> {
        match (&mut *self, gtid) {
            (Self::MySql(set), Gtid::MySql { tsid, gno }) => set.add(tsid, *gno),
            (Self::MariaDb(pos), Gtid::MariaDb(gtid)) => pos.advance(*gtid),
            _ => return Err(GtidError::Mixed { left: self.flavor(), right: gtid.flavor() }),
        }
        Ok(())
    }

    /// Adds everything that `other` has.
    ///
    /// # Errors
    /// Fails when the families differ.
    pub fn union(&mut self, other: &Self) -> Result<(), GtidError> {
        match (&mut *self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.union(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.union(b),
            _ => return Err(GtidError::Mixed { left: self.flavor(), right: other.flavor() }),
        }
        Ok(())
    }

    /// Takes away everything that `other` has. For MariaDB: drops the domains in which
    /// `other` is as far or farther, what is left names the domains that are ahead.
    ///
    /// # Errors
    /// Fails when the families differ.
    pub fn subtract(&mut self, other: &Self) -> Result<(), GtidError> {
        match (&mut *self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.subtract(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.subtract(b),
            _ => return Err(GtidError::Mixed { left: self.flavor(), right: other.flavor() }),
        }
        Ok(())
    }

    /// Do both have a transaction in common? False for different families.
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.intersects(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.intersects(b),
            _ => false,
        }
    }

    /// Is all of this in `other`? False for different families, unless this is empty.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::MySql(a), Self::MySql(b)) => a.is_subset(b),
            (Self::MariaDb(a), Self::MariaDb(b)) => a.is_subset(b),
            _ => self.is_empty(),
        }
    }

    /// Appends the record form. Byte 0: family (0 MySQL, 1 MariaDB). MySQL: number of
    /// sources as LEB128, then each in order: 16 bytes UUID, tag length, tag, number of
    /// intervals, then for each interval the distance of its start from the end of the one
    /// before and its length, all LEB128. MariaDB: number of domains, then each in order:
    /// domain, server, sequence as LEB128.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::MySql(set) => {
                out.push(0);
                set.put(out);
            }
            Self::MariaDb(pos) => {
                out.push(1);
                pos.put(out);
            }
        }
    }

    /// Reads what [`GtidSet::encode`] wrote from the front of `bytes`; gives the length read.
    ///
    /// # Errors
    /// Fails on cut or foreign bytes, on a set that is not in canonical order, and beyond
    /// the limits.
    pub fn decode(bytes: &[u8]) -> Result<(Self, usize), GtidError> {
        let mut r = wire::Reader::new(bytes);
        let set = match r.u8("a family of GTID set")? {
            0 => Self::MySql(MySqlGtidSet::take(&mut r)?),
            1 => Self::MariaDb(MariaDbGtidPos::take(&mut r)?),
            other => return Err(r.bad("family 0 or 1", other)),
        };
        Ok((set, r.position()))
    }
}

impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MySql(set) => write!(f, "{set}"),
            Self::MariaDb(pos) => write!(f, "{pos}"),
        }
    }
}

#[cfg(test)]
mod tests;
