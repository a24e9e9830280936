//! The small events.

use crate::bytes::Cursor;
use crate::error::Flaw;
use crate::event::Body;
use crate::format::FormatDescription;
use crate::query::Query;

/// The name of an XA transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct XaId<'a> {
    /// `formatID`; -1 for none.
    pub format: i32,
    /// `gtrid`.
    pub global: &'a [u8],
    /// `bqual`.
    pub branch: &'a [u8],
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

pub(crate) fn xa_id<'a>(c: &mut Cursor<'a>, length_bytes: usize) -> Result<XaId<'a>, Flaw> {
    let format = c.u32("the format of an XA name")? as i32;
    let global = c.uint(length_bytes, "the length of gtrid")?;
    let branch = c.uint(length_bytes, "the length of bqual")?;
    // XIDDATASIZE: both halves have at most 64 bytes.
    if global > 64 || branch > 64 {
        return Err(c.flaw("an XA name of at most 64 + 64 bytes", format!("{global} + {branch}")));
    }
    let global = c.take(global as usize, "gtrid")?;
    let branch = c.take(branch as usize, "bqual")?;
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
    Ok(Body::UserVar { name })
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
    let file_id = Cursor::new(extra).u32("the number of a file")?;
    Ok(Body::ExecuteLoad { file_id, query })
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
