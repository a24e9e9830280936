//! A bounded reader and the small pieces that both families' binary forms are made of.

use super::{GNO_MAX, GtidError, Tag, Tsid, Uuid};

/// Appends an unsigned number as LEB128: seven bits a byte, low ones first.
pub(super) fn put_leb(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Appends UUID, tag length and tag.
pub(super) fn put_tsid(out: &mut Vec<u8>, tsid: &Tsid) {
    out.extend_from_slice(&tsid.sid.0);
    // A tag has at most 32 bytes.
    out.push(tsid.tag.as_str().len() as u8);
    out.extend_from_slice(tsid.tag.as_str().as_bytes());
}

/// Reads from the front of a slice and knows where it is.
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(super) fn position(&self) -> usize {
        self.at
    }

    pub(super) fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    pub(super) fn bad(&self, expected: &'static str, got: impl ToString) -> GtidError {
        GtidError::Bytes { at: self.at as u64, expected, got: got.to_string() }
    }

    pub(super) fn take(&mut self, len: usize, expected: &'static str) -> Result<&'a [u8], GtidError> {
        let end = self.at.checked_add(len);
        match end.and_then(|end| self.bytes.get(self.at..end)) {
            Some(slice) => {
                self.at += len;
                Ok(slice)
            }
            None => Err(self.bad(expected, format!("the end after {} bytes", self.left()))),
        }
    }

    pub(super) fn u8(&mut self, expected: &'static str) -> Result<u8, GtidError> {
        Ok(self.take(1, expected)?.first().copied().unwrap_or_default())
    }

    pub(super) fn u64_le(&mut self, expected: &'static str) -> Result<u64, GtidError> {
        let mut raw = [0u8; 8];
        raw.copy_from_slice(self.take(8, expected)?);
        Ok(u64::from_le_bytes(raw))
    }

    pub(super) fn leb(&mut self, expected: &'static str) -> Result<u64, GtidError> {
        let (mut value, mut shift) = (0u64, 0u32);
        loop {
            let byte = self.u8(expected)?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                return Err(self.bad("a number of at most 64 bits", "more"));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                // One value has one encoding, so that records can be compared as bytes.
                if byte == 0 && shift > 0 {
                    return Err(self.bad("the shortest form of a number", "padding"));
                }
                return Ok(value);
            }
            shift += 7;
            if shift > 63 {
                return Err(self.bad("a number of at most ten bytes", "more"));
            }
        }
    }

    pub(super) fn uuid(&mut self) -> Result<Uuid, GtidError> {
        let mut raw = [0u8; 16];
        raw.copy_from_slice(self.take(16, "16 bytes of UUID")?);
        Ok(Uuid(raw))
    }

    pub(super) fn tag(&mut self, len: usize) -> Result<Tag, GtidError> {
        let raw = self.take(len, "a tag")?;
        let text = std::str::from_utf8(raw).map_err(|_| self.bad("a tag in ASCII", "other bytes"))?;
        let tag = Tag::exact(text).ok_or_else(|| self.bad("a tag of [a-z_][a-z0-9_]{0,31}", text))?;
        Ok(tag)
    }

    pub(super) fn tsid(&mut self) -> Result<Tsid, GtidError> {
        let sid = self.uuid()?;
        let len = self.u8("the length of a tag")?;
        Ok(Tsid { sid, tag: self.tag(usize::from(len))? })
    }

    pub(super) fn gno(&mut self) -> Result<u64, GtidError> {
        let gno = self.leb("a transaction number")?;
        if gno == 0 || gno > GNO_MAX {
            return Err(self.bad("a transaction number from 1 to 2^63-2", gno));
        }
        Ok(gno)
    }

    /// A count of things of at least `bytes_each` bytes: one that can't fit is refused
    /// before anything is allocated.
    pub(super) fn count(
        &mut self,
        value: u64,
        limit: usize,
        what: &'static str,
        bytes_each: usize,
    ) -> Result<usize, GtidError> {
        let count = usize::try_from(value).unwrap_or(usize::MAX);
        if count > limit {
            return Err(GtidError::TooLarge { what, got: value, limit: limit as u64 });
        }
        if count.saturating_mul(bytes_each) > self.left() {
            return Err(self.bad("as many bytes as the count says", self.left()));
        }
        Ok(count)
    }
}
