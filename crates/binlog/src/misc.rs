//! The small events.

use crate::bytes::Cursor;
use crate::error::Flaw;
use crate::event::Body;
use crate::format::FormatDescription;
use crate::query::Query;

/// The name of an XA transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct XaId {
    /// `formatID`; -1 for none.
    pub format: i32,
    /// `gtrid`.
    pub global: Vec<u8>,
    /// `bqual`.
    pub branch: Vec<u8>,
}

/// The value of a user variable.
#[derive(Debug, Clone, PartialEq)]
pub enum UserValue<'a> {
    /// NULL.
    Null,
    /// A string with the number of its collation.
    Text {
        /// Number of the collation.
        collation: u32,
        /// In the collation's character set.
        bytes: &'a [u8],
    },
    /// A DOUBLE.
    Real(f64),
    /// A BIGINT.
    Signed(i64),
    /// A BIGINT UNSIGNED.
    Unsigned(u64),
    /// A DECIMAL.
    Decimal {
        /// Its digits.
        text: String,
        /// All digits.
        precision: u8,
        /// Digits behind the point.
        scale: u8,
    },
}

/// What LOAD DATA does with rows whose keys are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Duplicates {
    /// An error.
    Error,
    /// They are left out.
    Ignore,
    /// They replace the old ones.
    Replace,
}

/// A block of a file for LOAD DATA.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block<'a> {
    /// Number of the file.
    pub file_id: u32,
    /// Its bytes.
    pub data: &'a [u8],
}

pub(crate) fn rotate(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let position = c.u64("a position")?;
    let file = c.rest();
    if file.is_empty() {
        return Err(c.flaw("the name of the next file", "nothing"));
    }
    Ok(Body::Rotate { position, file })
}

pub(crate) fn xid(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let xid = c.u64("a transaction number")?;
    c.end("the end of the event")?;
    Ok(Body::Xid { xid })
}

/// MySQL puts a length byte in front that is only right up to 255; the text is the rest.
pub(crate) fn rows_query(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    c.u8("a length")?;
    Ok(Body::RowsQuery(c.rest()))
}

pub(crate) fn xa_id(c: &mut Cursor<'_>, length_bytes: usize) -> Result<XaId, Flaw> {
    let format = c.u32("the format of an XA name")? as i32;
    let global = c.uint(length_bytes, "the length of gtrid")?;
    let branch = c.uint(length_bytes, "the length of bqual")?;
    // XIDDATASIZE: both halves have at most 64 bytes.
    if global > 64 || branch > 64 {
        return Err(c.flaw("an XA name of at most 64 + 64 bytes", format!("{global} + {branch}")));
    }
    let global = c.take(global as usize, "gtrid")?.to_vec();
    let branch = c.take(branch as usize, "bqual")?.to_vec();
    Ok(XaId { format, global, branch })
}

pub(crate) fn xa_prepare(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let one_phase = c.u8("one phase or two")? != 0;
    let xid = xa_id(&mut c, 4)?;
    c.end("the end of the event")?;
    Ok(Body::XaPrepare { one_phase, xid })
}

pub(crate) fn int_var(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let insert_id = match c.u8("the kind of variable")? {
        1 => false,
        2 => true,
        other => return Err(c.flaw("1 (LAST_INSERT_ID) or 2 (INSERT_ID)", other)),
    };
    Ok(Body::IntVar { insert_id, value: c.u64("a value")? })
}

pub(crate) fn rand(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    Ok(Body::Rand { seed1: c.u64("a seed")?, seed2: c.u64("a seed")? })
}

pub(crate) fn user_var(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let len = c.u32("the length of a name")?;
    let name = c.take(len as usize, "a name")?;
    if c.u8("whether the value is NULL")? != 0 {
        return Ok(Body::UserVar { name, value: UserValue::Null });
    }
    let (kind, collation) = (c.u8("the type of a value")?, c.u32("a collation")?);
    let len = c.u32("the length of a value")?;
    let bytes = c.take(len as usize, "a value")?;
    // MariaDB before 5.5 wrote no flags.
    let unsigned = !c.is_empty() && c.u8("flags")? & 1 != 0;
    let eight = |c: &Cursor<'_>| {
        <[u8; 8]>::try_from(bytes).map_err(|_| c.flaw("a number of eight bytes", bytes.len()))
    };
    let value = match kind {
        0 => UserValue::Text { collation, bytes },
        1 => UserValue::Real(f64::from_le_bytes(eight(&c)?)),
        2 if unsigned => UserValue::Unsigned(u64::from_le_bytes(eight(&c)?)),
        2 => UserValue::Signed(i64::from_le_bytes(eight(&c)?)),
        4 => decimal(bytes)?,
        other => return Err(c.flaw("a type of value (0, 1, 2 or 4)", other)),
    };
    Ok(Body::UserVar { name, value })
}

/// Precision, scale, then groups of nine digits in four bytes, rarer ones at both ends; the
/// first bit is turned over, all are for a number below zero.
fn decimal(bytes: &[u8]) -> Result<UserValue<'static>, Flaw> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let mut c = Cursor::new(bytes);
    let (precision, scale) = (c.u8("a precision")?, c.u8("a scale")?);
    let Some(whole) = precision.checked_sub(scale).filter(|_| precision <= 81) else {
        return Err(c.flaw("a scale no greater than the precision", scale));
    };
    let ends = |digits: usize| BYTES.get(digits).copied().unwrap_or(0);
    let (whole, scale) = (usize::from(whole), usize::from(scale));
    let mut groups = vec![(whole % 9, ends(whole % 9))];
    groups.extend((0..whole / 9 + scale / 9).map(|_| (9, 4)));
    groups.push((scale % 9, ends(scale % 9)));
    let negative = bytes.get(2).is_some_and(|first| first & 0x80 == 0);
    let mut digits = String::new();
    for (at, (width, len)) in groups.into_iter().filter(|(width, _)| *width > 0).enumerate() {
        let mut value = 0u32;
        for (byte_at, byte) in c.take(len, "digits")?.iter().enumerate() {
            let byte = if negative { !byte } else { *byte };
            let byte = if at + byte_at == 0 { byte ^ 0x80 } else { byte };
            value = value << 8 | u32::from(byte);
        }
        digits.push_str(&format!("{value:0width$}"));
    }
    if digits.len() != whole + scale {
        return Err(c.flaw("as many digits as the precision says", digits.len()));
    }
    let point = if scale > 0 { "." } else { "" };
    let (before, after) = digits.split_at_checked(whole).unwrap_or_default();
    let sign = if negative { "-" } else { "" };
    let text = format!("{sign}{}{before}{point}{after}", if whole == 0 { "0" } else { "" });
    Ok(UserValue::Decimal { text, precision: precision.max(1), scale: scale as u8 })
}

pub(crate) fn block(body: &[u8]) -> Result<Block<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let file_id = c.u32("the number of a file")?;
    Ok(Block { file_id, data: c.rest() })
}

pub(crate) fn delete_file(body: &[u8]) -> Result<Body<'_>, Flaw> {
    Ok(Body::DeleteFile { file_id: Cursor::new(body).u32("the number of a file")? })
}

pub(crate) fn execute_load<'a>(body: &'a [u8], format: &FormatDescription) -> Result<Body<'a>, Flaw> {
    // Between the fixed part of a QUERY (13 bytes) and its status variables stand 13 more:
    // file number, start and end of the file name in the text, handling of duplicates.
    let (query, extra) = Query::parse_with_extra(body, format, 13)?;
    let mut c = Cursor::new(extra);
    let file_id = c.u32("the number of a file")?;
    let name = c.u32("the start of a file name")?..c.u32("the end of a file name")?;
    let duplicates = match c.u8("the handling of duplicates")? {
        0 => Duplicates::Error,
        1 => Duplicates::Ignore,
        2 => Duplicates::Replace,
        other => return Err(c.flaw("a handling of duplicates from 0 to 2", other)),
    };
    Ok(Body::ExecuteLoad { file_id, query, name, duplicates })
}

pub(crate) fn incident(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let number = c.u16("the kind of incident")?;
    // Some writers leave the message out.
    let message = if c.is_empty() { &[][..] } else { c.short_bytes("a message")? };
    Ok(Body::Incident { number, message })
}

/// A list of (type, length, value): 1 is the file's name, 2 the position, both up to the
/// end mark 0. Layout as MySQL 8.0.26 and later send it.
pub(crate) fn heartbeat_v2(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let (mut file, mut position): (&[u8], u64) = (&[], 0);
    while !c.is_empty() {
        let kind = c.lenenc("a type of field")?;
        if kind == 0 {
            break;
        }
        let len = c.lenenc("the length of a field")?;
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        let mut value = Cursor::new(c.take(len, "a field")?);
        match kind {
            1 => file = value.rest(),
            2 => position = value.lenenc("a position")?,
            _ => {}
        }
    }
    Ok(Body::Heartbeat { file, position })
}

pub(crate) fn start_encryption(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    Ok(Body::StartEncryption { scheme: c.u8("a scheme")?, key_version: c.u32("a key version")? })
}

pub(crate) fn checkpoint(body: &[u8]) -> Result<Body<'_>, Flaw> {
    let mut c = Cursor::new(body);
    let len = c.u32("the length of a file name")?;
    Ok(Body::Checkpoint { file: c.take(len as usize, "a file name")? })
}
