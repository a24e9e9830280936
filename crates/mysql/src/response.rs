//! OK, ERR and EOF packets.

use crate::error::{Error, Result, ServerError};
use crate::wire::Reader;

/// What an OK packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct OkPacket {
    /// Rows changed.
    pub affected: u64,
    /// First `AUTO_INCREMENT` value given, or 0.
    pub last_insert_id: u64,
    /// Status flags.
    pub status: u16,
    /// Number of warnings.
    pub warnings: u16,
}

/// Reads an OK packet (its first byte, 0x00, included).
pub fn parse_ok(payload: &[u8]) -> Result<OkPacket> {
    let mut reader = Reader::new("an OK packet", payload);
    let head = reader.u8()?;
    if head != 0x00 {
        return Err(Error::protocol("an OK packet", "byte 0x00", format!("{head:#04x}")));
    }
    let affected = reader.lenenc()?;
    let last_insert_id = reader.lenenc()?;
    let status = reader.u16()?;
    let warnings = reader.u16()?;
    Ok(OkPacket { affected, last_insert_id, status, warnings })
}

/// True for an EOF packet: 0xfe and shorter than any row that begins with an 8-byte length.
#[must_use]
pub fn is_eof(payload: &[u8]) -> bool {
    payload.first() == Some(&0xfe) && payload.len() < 9
}

/// Status flags of an EOF packet.
pub fn parse_eof(payload: &[u8]) -> Result<OkPacket> {
    let mut reader = Reader::new("an EOF packet", payload);
    reader.u8()?;
    let warnings = reader.u16()?;
    let status = reader.u16()?;
    Ok(OkPacket { warnings, status, ..OkPacket::default() })
}

/// Reads an ERR packet (its first byte, 0xff, included).
pub fn parse_err(payload: &[u8]) -> Result<ServerError> {
    let mut reader = Reader::new("an ERR packet", payload);
    let head = reader.u8()?;
    if head != 0xff {
        return Err(Error::protocol("an ERR packet", "byte 0xff", format!("{head:#04x}")));
    }
    let code = reader.u16()?;
    // Errors before the handshake have no SQLSTATE.
    let sqlstate = if reader.peek() == Some(b'#') {
        reader.u8()?;
        String::from_utf8_lossy(reader.take(5)?).into_owned()
    } else {
        "HY000".to_owned()
    };
    let message = String::from_utf8_lossy(reader.rest()).into_owned();
    Ok(ServerError { code, sqlstate, message })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn an_error_keeps_code_sqlstate_and_message() {
        let error = parse_err(b"\xff\x15\x04#28000Access denied for user 'a'@'b'").unwrap();
        assert_eq!((error.code, error.sqlstate.as_str()), (1045, "28000"));
        assert_eq!(error.message, "Access denied for user 'a'@'b'");
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_response_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..40)) {
            let _ = parse_ok(&bytes);
            let _ = parse_err(&bytes);
            let _ = parse_eof(&bytes);
        }
    }
}
