//! A bounded cursor over an event's body, little-endian like everything in a binlog.

use crate::error::Flaw;

/// Reads from the front of a body and knows the offset for errors.
#[derive(Debug, Clone)]
pub(crate) struct Cursor<'a> {
    data: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(crate) fn left(&self) -> usize {
        self.data.len().saturating_sub(self.at)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.left() == 0
    }

    pub(crate) fn position(&self) -> usize {
        self.at
    }

    /// A flaw at the present offset.
    pub(crate) fn flaw(&self, expected: &'static str, got: impl ToString) -> Flaw {
        Flaw { offset: u32::try_from(self.at).unwrap_or(u32::MAX), expected, got: got.to_string() }
    }

    #[inline]
    pub(crate) fn take(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8], Flaw> {
        let end = self.at.checked_add(len);
        match end.and_then(|end| self.data.get(self.at..end)) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(self.flaw(expected, format!("the end after {} bytes", self.left()))),
        }
    }

    /// Everything that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        let rest = self.data.get(self.at..).unwrap_or_default();
        self.at = self.data.len();
        rest
    }

    pub(crate) fn uint(&mut self, bytes: usize, expected: &'static str) -> Result<u64, Flaw> {
        Ok(le(self.take(bytes, expected)?))
    }

    /// The next bytes, whose number is known when this is compiled: most of a log is made of such.
    #[inline]
    fn array<const N: usize>(&mut self, expected: &'static str) -> Result<[u8; N], Flaw> {
        match self.data.get(self.at..).and_then(<[u8]>::first_chunk) {
            Some(bytes) => {
                self.at += N;
                Ok(*bytes)
            }
            None => Err(self.flaw(expected, format!("the end after {} bytes", self.left()))),
        }
    }

    #[inline]
    pub(crate) fn u8(&mut self, expected: &'static str) -> Result<u8, Flaw> {
        Ok(u8::from_le_bytes(self.array(expected)?))
    }

    #[inline]
    pub(crate) fn u16(&mut self, expected: &'static str) -> Result<u16, Flaw> {
        Ok(u16::from_le_bytes(self.array(expected)?))
    }

    #[inline]
    pub(crate) fn u32(&mut self, expected: &'static str) -> Result<u32, Flaw> {
        Ok(u32::from_le_bytes(self.array(expected)?))
    }

    #[inline]
    pub(crate) fn u64(&mut self, expected: &'static str) -> Result<u64, Flaw> {
        Ok(u64::from_le_bytes(self.array(expected)?))
    }

    /// A length-encoded integer of the client protocol.
    pub(crate) fn lenenc(&mut self, expected: &'static str) -> Result<u64, Flaw> {
        match self.u8(expected)? {
            value @ 0..=250 => Ok(u64::from(value)),
            0xfc => self.uint(2, expected),
            0xfd => self.uint(3, expected),
            0xfe => self.uint(8, expected),
            other => Err(self.flaw("a length-encoded number", other)),
        }
    }

    /// Bytes behind a length of one byte.
    pub(crate) fn short_bytes(&mut self, expected: &'static str) -> Result<&'a [u8], Flaw> {
        let len = self.u8(expected)?;
        self.take(usize::from(len), expected)
    }

    /// Bytes behind a length of one byte, with a NUL behind them that the length doesn't count.
    pub(crate) fn name(&mut self, expected: &'static str) -> Result<&'a [u8], Flaw> {
        let name = self.short_bytes(expected)?;
        match self.u8(expected)? {
            0 => Ok(name),
            other => Err(self.flaw("a NUL behind a name", other)),
        }
    }

    /// Bytes up to a NUL, which is taken too.
    pub(crate) fn c_string(&mut self, expected: &'static str) -> Result<&'a [u8], Flaw> {
        let rest = self.data.get(self.at..).unwrap_or_default();
        match rest.iter().position(|b| *b == 0) {
            Some(len) => {
                let out = self.take(len, expected)?;
                self.at += 1;
                Ok(out)
            }
            None => Err(self.flaw(expected, "no NUL")),
        }
    }

    pub(crate) fn end(&self, expected: &'static str) -> Result<(), Flaw> {
        if self.is_empty() { Ok(()) } else { Err(self.flaw(expected, format!("{} more bytes", self.left()))) }
    }
}

/// An unsigned little-endian number of up to eight bytes.
pub(crate) fn le(bytes: &[u8]) -> u64 {
    bytes.iter().take(8).rev().fold(0, |value, b| (value << 8) | u64::from(*b))
}

/// An unsigned big-endian number of up to eight bytes.
pub(crate) fn be(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, b| (value << 8) | u64::from(*b))
}
