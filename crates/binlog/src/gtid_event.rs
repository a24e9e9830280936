//! The events that start a transaction, and those that sum up what came before.

use holdfast_format::gtid::{Gtid, MariaDbBinlogState, MariaDbGtid, MySqlGtidSet, Tag, Tsid, Uuid};

use crate::bytes::Cursor;
use crate::error::Flaw;
use crate::misc::{XaId, xa_id};

/// MariaDB GTID flag: one statement, no COMMIT follows (DDL, non-transactional).
pub const FL_STANDALONE: u8 = 1;
/// MariaDB GTID flag: a group commit number follows.
pub const FL_GROUP_COMMIT_ID: u8 = 2;
/// MariaDB GTID flag: only transactional engines.
pub const FL_TRANSACTIONAL: u8 = 4;
/// MariaDB GTID flag: DDL.
pub const FL_DDL: u8 = 32;
/// MariaDB GTID flag: XA PREPARE.
pub const FL_PREPARED_XA: u8 = 64;
/// MariaDB GTID flag: XA COMMIT or XA ROLLBACK.
pub const FL_COMPLETED_XA: u8 = 128;

/// MariaDB's two-phase ALTER TABLE (`binlog_alter_two_phase`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AlterPhase {
    /// The statement begins; nothing is changed yet.
    Start,
    /// It took effect.
    Commit {
        /// Sequence number of the transaction that started it.
        start: u64,
    },
    /// It failed; nothing is changed.
    Rollback {
        /// Sequence number of the transaction that started it.
        start: u64,
    },
}

/// What the two families say differently about a transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GtidDetail {
    /// MySQL.
    MySql {
        /// Bit 0: may hold statements besides rows.
        flags: u8,
        /// Logical clock: last transaction that must be committed before.
        last_committed: i64,
        /// Logical clock: this transaction.
        sequence_number: i64,
        /// Commit on the server that wrote this log, in microseconds of Unix time; 0: unknown.
        immediate_commit_micros: u64,
        /// Commit on the first server; 0: unknown.
        original_commit_micros: u64,
        /// Length of the transaction in the log, this event included; 0: unknown.
        transaction_length: u64,
        /// `version_id` of the server that wrote this log; 0: unknown.
        immediate_server_version: u32,
        /// `version_id` of the first server; 0: unknown.
        original_server_version: u32,
    },
    /// MariaDB.
    MariaDb {
        /// `FL_*`.
        flags: u8,
        /// Two-phase ALTER, if it is one.
        alter: Option<AlterPhase>,
        /// The XA transaction that is prepared or decided, if it is one. No XA START follows.
        xa: Option<XaId>,
    },
}

/// A transaction starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GtidEvent {
    /// Its name; `None` with `gtid_mode=OFF`.
    pub gtid: Option<Gtid>,
    /// The rest.
    pub detail: GtidDetail,
}

impl GtidEvent {
    /// The commit's time on the server that wrote the log, in microseconds of Unix time,
    /// where the event says it (MySQL 8.0.1 and later).
    #[must_use]
    pub fn commit_micros(&self) -> Option<u64> {
        match self.detail {
            GtidDetail::MySql { immediate_commit_micros, .. } if immediate_commit_micros > 0 => {
                Some(immediate_commit_micros)
            }
            _ => None,
        }
    }

    /// Length of the whole transaction in the log, where the event says it.
    #[must_use]
    pub fn transaction_length(&self) -> Option<u64> {
        match self.detail {
            GtidDetail::MySql { transaction_length, .. } if transaction_length > 0 => {
                Some(transaction_length)
            }
            _ => None,
        }
    }
}

/// GTID (33) and ANONYMOUS_GTID (34): flags, UUID, number, then with type code 2 the
/// logical clock, then (8.0.1) commit times, length and versions.
pub(crate) fn parse_gtid(body: &[u8], anonymous: bool) -> Result<GtidEvent, Flaw> {
    let mut c = Cursor::new(body);
    let flags = c.u8("flags")?;
    let mut sid = [0u8; 16];
    sid.copy_from_slice(c.take(16, "a UUID")?);
    let gno = c.u64("a transaction number")?;
    if !anonymous && (gno == 0 || gno > holdfast_format::gtid::GNO_MAX) {
        return Err(c.flaw("a transaction number from 1 to 2^63-2", gno));
    }
    let (mut last_committed, mut sequence_number) = (0, 0);
    let (mut immediate, mut original, mut length, mut version, mut first_version) = (0, 0, 0, 0u32, 0u32);
    if !c.is_empty() {
        let code = c.u8("the kind of logical clock")?;
        if code != 2 {
            return Err(c.flaw("logical clock type 2", code));
        }
        last_committed = c.u64("last_committed")? as i64;
        sequence_number = c.u64("sequence_number")? as i64;
    }
    if !c.is_empty() {
        // Bit 55 of the first time says that a second one follows.
        let first = c.uint(7, "a commit time")?;
        immediate = first & !(1 << 55);
        original = if first >> 55 == 1 { c.uint(7, "the original commit time")? } else { immediate };
    }
    if !c.is_empty() {
        length = c.lenenc("the length of the transaction")?;
    }
    if !c.is_empty() {
        // Bit 31 of the first version says that a second one follows.
        let first = c.u32("a server version")?;
        version = first & 0x7fff_ffff;
        first_version = if first >> 31 == 1 { c.u32("the original server version")? } else { version };
    }
    // What may follow (8.2: the commit group's ticket) says nothing about the data.
    let gtid = Gtid::MySql { tsid: Tsid { sid: Uuid(sid), tag: Tag::default() }, gno };
    Ok(GtidEvent {
        gtid: (!anonymous).then_some(gtid),
        detail: GtidDetail::MySql {
            flags,
            last_committed,
            sequence_number,
            immediate_commit_micros: immediate,
            original_commit_micros: original,
            transaction_length: length,
            immediate_server_version: version,
            original_server_version: first_version,
        },
    })
}

/// A number of MySQL's serialization library: the run of ones at the low end of the first
/// byte counts the further bytes (eight ones: eight bytes follow, none of the first counts).
fn varlen(c: &mut Cursor<'_>) -> Result<u64, Flaw> {
    let first = c.u8("a number of variable length")?;
    let more = first.trailing_ones() as usize;
    let rest = c.uint(more, "a number of variable length")?;
    if more >= 7 {
        return Ok(rest);
    }
    let low_bits = 7 - more as u32;
    Ok((rest << low_bits) | u64::from(first >> (more + 1)))
}

fn varlen_signed(c: &mut Cursor<'_>) -> Result<i64, Flaw> {
    let raw = varlen(c)?;
    Ok(((raw >> 1) as i64) ^ -((raw & 1) as i64))
}

/// GTID_TAGGED (42): a message of MySQL's serialization library, version 1: version, size
/// of the whole, last field that must be understood, then (field, value) pairs in rising order.
/// Fields: 0 flags, 1 UUID (16 numbers), 2 number, 3 tag, 4 last_committed, 5 sequence_number,
/// 6 commit time, 7 original commit time, 8 length, 9 server version, 10 original server
/// version, 11 commit group ticket. Observed on 9.7.4.
pub(crate) fn parse_tagged(body: &[u8]) -> Result<GtidEvent, Flaw> {
    let mut c = Cursor::new(body);
    let version = varlen(&mut c)?;
    if version != 1 {
        return Err(c.flaw("serialization version 1", version));
    }
    let size = varlen(&mut c)?;
    if size != body.len() as u64 {
        return Err(c.flaw("the size of the event's body", size));
    }
    let must_know = varlen(&mut c)?;
    let (mut flags, mut sid, mut gno, mut tag) = (0, None, 0i64, Tag::default());
    let (mut last_committed, mut sequence_number) = (0, 0);
    let (mut immediate, mut original, mut length, mut server, mut first_server) = (0, None, 0, 0, None);
    while !c.is_empty() {
        let field = varlen(&mut c)?;
        match field {
            0 => flags = varlen(&mut c)? as u8,
            1 => {
                let mut raw = [0u8; 16];
                for byte in &mut raw {
                    let value = varlen(&mut c)?;
                    *byte = u8::try_from(value).map_err(|_| c.flaw("a byte of a UUID", value))?;
                }
                sid = Some(Uuid(raw));
            }
            2 => gno = varlen_signed(&mut c)?,
            3 => {
                let len = varlen(&mut c)?;
                if len > 32 {
                    return Err(c.flaw("a tag of at most 32 bytes", len));
                }
                let text = std::str::from_utf8(c.take(len as usize, "a tag")?).unwrap_or("?");
                tag = text.parse().map_err(|_| c.flaw("a tag", text))?;
            }
            4 => last_committed = varlen_signed(&mut c)?,
            5 => sequence_number = varlen_signed(&mut c)?,
            6 => immediate = varlen(&mut c)?,
            7 => original = Some(varlen(&mut c)?),
            8 => length = varlen(&mut c)?,
            9 => server = varlen(&mut c)? as u32,
            10 => first_server = Some(varlen(&mut c)? as u32),
            11 => {
                varlen(&mut c)?;
            }
            // Values carry no length: nothing behind an unknown field can be found.
            other if other <= must_know => return Err(c.flaw("a field from 0 to 11", other)),
            _ => break,
        }
    }
    let gno = u64::try_from(gno).ok().filter(|gno| (1..=holdfast_format::gtid::GNO_MAX).contains(gno));
    let (Some(sid), Some(gno)) = (sid, gno) else {
        return Err(c.flaw("a UUID and a number", "one without the other"));
    };
    Ok(GtidEvent {
        gtid: Some(Gtid::MySql { tsid: Tsid { sid, tag }, gno }),
        detail: GtidDetail::MySql {
            flags,
            last_committed,
            sequence_number,
            immediate_commit_micros: immediate,
            original_commit_micros: original.unwrap_or(immediate),
            transaction_length: length,
            immediate_server_version: server,
            original_server_version: first_server.unwrap_or(server),
        },
    })
}

/// MariaDB's GTID (162): sequence, domain, flags, then a group commit number, an XA name
/// and extra flags as the flags say, else zeros. The server is the header's.
pub(crate) fn parse_mariadb(body: &[u8], server: u32) -> Result<GtidEvent, Flaw> {
    const EXTRA_MULTI_ENGINE: u8 = 1;
    const EXTRA_START_ALTER: u8 = 2;
    const EXTRA_COMMIT_ALTER: u8 = 4;
    const EXTRA_ROLLBACK_ALTER: u8 = 8;
    let mut c = Cursor::new(body);
    let sequence = c.u64("a sequence number")?;
    let domain = c.u32("a domain")?;
    let flags = c.u8("flags")?;
    if flags & FL_GROUP_COMMIT_ID != 0 {
        c.u64("a group commit number")?;
    }
    let named = flags & (FL_PREPARED_XA | FL_COMPLETED_XA) != 0;
    let xa = if named { Some(xa_id(&mut c, 1)?) } else { None };
    let mut alter = None;
    if !c.is_empty() {
        let extra = c.u8("extra flags")?;
        if extra & EXTRA_MULTI_ENGINE != 0 {
            c.u8("the number of engines")?;
        }
        if extra & EXTRA_START_ALTER != 0 {
            alter = Some(AlterPhase::Start);
        }
        if extra & (EXTRA_COMMIT_ALTER | EXTRA_ROLLBACK_ALTER) != 0 {
            let start = c.u64("the sequence number of START ALTER")?;
            let commit = extra & EXTRA_COMMIT_ALTER != 0;
            alter = Some(if commit { AlterPhase::Commit { start } } else { AlterPhase::Rollback { start } });
        }
    }
    let gtid = Gtid::MariaDb(MariaDbGtid { domain, server, sequence });
    Ok(GtidEvent { gtid: Some(gtid), detail: GtidDetail::MariaDb { flags, alter, xa } })
}

pub(crate) fn parse_previous(body: &[u8]) -> Result<MySqlGtidSet, Flaw> {
    MySqlGtidSet::from_server_bytes(body).map_err(|e| Cursor::new(body).flaw("a GTID set", e))
}

/// MariaDB's GTID_LIST (163): a count whose four high bits are flags, then domain, server,
/// sequence of each.
pub(crate) fn parse_list(body: &[u8]) -> Result<MariaDbBinlogState, Flaw> {
    let mut c = Cursor::new(body);
    let count = c.u32("a count")? & 0x0fff_ffff;
    if u64::from(count) * 16 > c.left() as u64 {
        return Err(c.flaw("16 bytes for each GTID", format!("{} bytes for {count}", c.left())));
    }
    let mut state = MariaDbBinlogState::default();
    for _ in 0..count {
        let (domain, server) = (c.u32("a domain")?, c.u32("a server id")?);
        state.update(MariaDbGtid { domain, server, sequence: c.u64("a sequence number")? });
    }
    Ok(state)
}
