//! MariaDB's compression of single events (`log_bin_compress`).

use std::io::Read;

use crate::bytes::{Cursor, be};
use crate::error::Flaw;

/// Largest inflated size: an event holds at most 1 GiB (`max_allowed_packet`), and row
/// events are cut at 8 KiB plus one row.
pub const INFLATED_MAX: u64 = 1 << 30;

/// The length that compressed data announce.
pub(crate) fn inflated_len(c: &mut Cursor<'_>) -> Result<u64, Flaw> {
    let head = c.u8("the head of compressed data")?;
    let length_bytes = usize::from(head & 0x07);
    if head & 0xf0 != 0x80 || !(1..=4).contains(&length_bytes) {
        return Err(c.flaw("zlib data with a length of 1 to 4 bytes", format!("{head:#04x}")));
    }
    let length = be(c.take(length_bytes, "the inflated length")?);
    if length > INFLATED_MAX {
        return Err(c.flaw("at most 1 GiB of inflated data", length));
    }
    Ok(length)
}

/// Appends nothing to, but replaces `out` by the inflated bytes. Layout: one byte with
/// 0x80 set, algorithm in bits 4..6 (0: zlib) and in bits 0..2 the number of bytes of the
/// length that follows (big-endian), then the stream.
pub(crate) fn inflate(bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
    let mut c = Cursor::new(bytes);
    let length = inflated_len(&mut c)?;
    out.clear();
    // No trust in the length: memory grows as data really comes out.
    let mut stream = flate2::read::ZlibDecoder::new(c.rest()).take(length + 1);
    match stream.read_to_end(out) {
        Ok(_) if out.len() as u64 == length => Ok(()),
        Ok(_) => Err(c.flaw("as much inflated data as announced", format!("{} of {length}", out.len()))),
        Err(e) => Err(c.flaw("zlib data", e)),
    }
}
