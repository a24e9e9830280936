//! Integers and strings of the classic protocol: little endian, length-encoded or NUL-terminated.
//!
//! `Reader` never reads past its end and never allocates; every failure names the packet.

use crate::error::{Error, Result};

/// A cursor over one packet's payload.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    place: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A cursor at the start of `bytes`; `place` names the packet in errors.
    #[must_use]
    pub fn new(place: &'static str, bytes: &'a [u8]) -> Self {
        Self { place, rest: bytes }
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// True at the end.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next byte without taking it.
    #[must_use]
    pub fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    /// The next `len` bytes.
    pub fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((head, tail)) => {
                self.rest = tail;
                Ok(head)
            }
            None => {
                Err(Error::protocol(self.place, format!("{len} more bytes"), format!("{}", self.rest.len())))
            }
        }
    }

    /// The next `N` bytes as an array.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0u8; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    /// Two bytes, little endian.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Three bytes, little endian.
    pub fn u24(&mut self) -> Result<u32> {
        self.array::<3>().map(|[a, b, c]| u32::from_le_bytes([a, b, c, 0]))
    }

    /// Four bytes, little endian.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes, little endian.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// A length-encoded integer. 0xfb (NULL) and 0xff (ERR) are errors here.
    pub fn lenenc(&mut self) -> Result<u64> {
        match self.u8()? {
            0xfc => self.u16().map(u64::from),
            0xfd => self.u24().map(u64::from),
            0xfe => self.u64(),
            byte @ (0xfb | 0xff) => {
                Err(Error::protocol(self.place, "a length-encoded integer", format!("byte {byte:#04x}")))
            }
            byte => Ok(u64::from(byte)),
        }
    }

    /// A length-encoded string.
    pub fn lenenc_bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.lenenc()?;
        // A length beyond the packet fails in `take`; the conversion can only fail beyond 2^64.
        self.take(usize::try_from(len).unwrap_or(usize::MAX))
    }

    /// A length-encoded string or NULL (0xfb), as in rows of the text protocol.
    pub fn lenenc_or_null(&mut self) -> Result<Option<&'a [u8]>> {
        if self.peek() == Some(0xfb) {
            self.take(1)?;
            return Ok(None);
        }
        self.lenenc_bytes().map(Some)
    }

    /// A string that ends with NUL, without it. Without a NUL: all that is left.
    pub fn nul_bytes(&mut self) -> &'a [u8] {
        match self.rest.iter().position(|&b| b == 0) {
            Some(end) => {
                let (head, tail) = self.rest.split_at(end);
                self.rest = tail.get(1..).unwrap_or_default();
                head
            }
            None => self.rest(),
        }
    }
}

/// Appends a length-encoded integer.
pub fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfa => out.push(value as u8),
        0xfb..=0xffff => {
            out.push(0xfc);
            out.extend_from_slice(&(value as u16).to_le_bytes());
        }
        0x1_0000..=0xff_ffff => {
            out.push(0xfd);
            let [a, b, c, _] = (value as u32).to_le_bytes();
            out.extend_from_slice(&[a, b, c]);
        }
        _ => {
            out.push(0xfe);
            out.extend_from_slice(&value.to_le_bytes());
        }
    }
}

/// Appends a length-encoded string.
pub fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Appends a string and the NUL that ends it.
pub fn put_nul_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(bytes);
    out.push(0);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn length_encoded_integers_come_back(value in any::<u64>()) {
            let mut out = Vec::new();
            put_lenenc(&mut out, value);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.lenenc().unwrap(), value);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn length_encoded_strings_come_back(bytes in proptest::collection::vec(any::<u8>(), 0..70_000)) {
            let mut out = Vec::new();
            put_lenenc_bytes(&mut out, &bytes);
            let mut reader = Reader::new("test", &out);
            prop_assert_eq!(reader.lenenc_or_null().unwrap(), Some(bytes.as_slice()));
        }

        #[test]
        fn any_bytes_end_in_a_value_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let mut reader = Reader::new("test", &bytes);
            while !reader.is_empty() {
                let before = reader.remaining();
                let _ = reader.lenenc_or_null();
                prop_assert!(reader.remaining() < before);
            }
        }
    }

    #[test]
    fn a_length_beyond_the_packet_is_an_error_not_an_allocation() {
        let bytes = [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3];
        assert!(Reader::new("test", &bytes).lenenc_bytes().is_err());
    }
}
