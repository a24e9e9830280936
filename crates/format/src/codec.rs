//! Reading and writing of plain little-endian fields, with every length checked before it is believed.

use crate::error::{Error, Result};

/// Appends fields to a buffer.
#[derive(Debug, Default, Clone)]
pub struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The bytes written.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The bytes written so far.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// How many bytes were written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True before the first byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, v: u8) {
        self.bytes.push(v);
    }

    /// Two bytes.
    pub fn u16(&mut self, v: u16) {
        self.raw(&v.to_le_bytes());
    }

    /// Four bytes.
    pub fn u32(&mut self, v: u32) {
        self.raw(&v.to_le_bytes());
    }

    /// Eight bytes.
    pub fn u64(&mut self, v: u64) {
        self.raw(&v.to_le_bytes());
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self, v: i64) {
        self.raw(&v.to_le_bytes());
    }

    /// Bytes as they are.
    pub fn raw(&mut self, v: &[u8]) {
        self.bytes.extend_from_slice(v);
    }

    /// A count or length as `u32`; saturates, so that a reader refuses it rather than misreads it.
    pub fn count(&mut self, n: usize) {
        self.u32(u32::try_from(n).unwrap_or(u32::MAX));
    }

    /// A length as `u32`, then the bytes.
    pub fn blob(&mut self, v: &[u8]) {
        self.count(v.len());
        self.raw(v);
    }

    /// LEB128: seven bits a byte, low ones first.
    pub fn varint(&mut self, mut v: u64) {
        loop {
            let low = u8::try_from(v & 0x7f).unwrap_or(0);
            v >>= 7;
            if v == 0 {
                self.u8(low);
                return;
            }
            self.u8(low | 0x80);
        }
    }

    /// Zeros up to a length; nothing if it is reached already.
    pub fn pad_to(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }
}

/// Takes fields from the front of a slice.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    what: &'static str,
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    /// Reads `bytes`, which claim to be a `what` (the word used in errors).
    #[must_use]
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { what, bytes, at: 0 }
    }

    /// Name of the structure.
    #[must_use]
    pub fn what(&self) -> &'static str {
        self.what
    }

    /// Offset of the next field.
    #[must_use]
    pub fn at(&self) -> usize {
        self.at
    }

    /// Bytes left.
    #[must_use]
    pub fn left(&self) -> usize {
        self.bytes.len().saturating_sub(self.at)
    }

    /// The bytes left, without taking them.
    #[must_use]
    pub fn rest(&self) -> &'a [u8] {
        self.bytes.get(self.at..).unwrap_or(&[])
    }

    /// Bytes as they are.
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8]> {
        let slice = self.at.checked_add(len).and_then(|end| self.bytes.get(self.at..end));
        let slice = slice.ok_or(Error::Truncated {
            what: self.what,
            at: self.at as u64,
            needed: len as u64,
            got: self.left() as u64,
        })?;
        self.at += len;
        Ok(slice)
    }

    /// A fixed number of bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.raw(N)?);
        Ok(out)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8> {
        self.array::<1>().map(|[b]| b)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_le_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_le_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_le_bytes)
    }

    /// Eight bytes, two's complement.
    pub fn i64(&mut self) -> Result<i64> {
        self.array().map(i64::from_le_bytes)
    }

    /// LEB128 of at most 64 bits in its shortest form.
    pub fn varint(&mut self, field: &'static str) -> Result<u64> {
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if (shift == 63 && bits > 1) || (byte == 0 && shift > 0) {
                return Err(Error::bad(self.what, field, "a number of 64 bits in its shortest form", byte));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(Error::bad(self.what, field, "a number of at most ten bytes", "a longer one"))
    }

    /// A varint no larger than `limit`.
    pub fn varint_max(&mut self, field: &'static str, limit: u64) -> Result<u64> {
        let got = self.varint(field)?;
        self.within(field, got, limit)
    }

    /// A varint that fits 32 bits and the limit.
    pub fn varint_u32(&mut self, field: &'static str, limit: u32) -> Result<u32> {
        let got = self.varint_max(field, u64::from(limit))?;
        Ok(u32::try_from(got).unwrap_or(limit))
    }

    /// A `u32` no larger than `limit`, and no larger than the bytes left could hold at `item_bytes` each.
    pub fn count(&mut self, field: &'static str, limit: u32, item_bytes: usize) -> Result<u32> {
        let got = self.u32()?;
        self.within(field, u64::from(got), u64::from(limit))?;
        let needed = u64::from(got).saturating_mul(item_bytes as u64);
        if needed > self.left() as u64 {
            return Err(Error::Truncated {
                what: self.what,
                at: self.at as u64,
                needed,
                got: self.left() as u64,
            });
        }
        Ok(got)
    }

    /// A length as `u32`, then that many bytes.
    pub fn blob(&mut self, field: &'static str, limit: u32) -> Result<&'a [u8]> {
        let len = self.count(field, limit, 1)?;
        self.raw(len as usize)
    }

    /// A [`Reader::blob`] of UTF-8, in place.
    pub fn text(&mut self, field: &'static str, limit: u32) -> Result<&'a str> {
        let bytes = self.blob(field, limit)?;
        std::str::from_utf8(bytes).map_err(|_| Error::bad(self.what, field, "UTF-8", "something else"))
    }

    /// A [`Reader::blob`] of UTF-8.
    pub fn string(&mut self, field: &'static str, limit: u32) -> Result<String> {
        self.text(field, limit).map(str::to_owned)
    }

    /// Fails when a value is beyond its limit.
    pub fn within(&self, field: &'static str, got: u64, limit: u64) -> Result<u64> {
        if got > limit {
            return Err(Error::TooLarge { what: self.what, field, got, limit });
        }
        Ok(got)
    }

    /// Fails unless the next bytes are these.
    pub fn magic(&mut self, magic: &[u8]) -> Result<()> {
        let got = self.raw(magic.len())?;
        if got != magic {
            return Err(Error::bad(
                self.what,
                "the magic",
                format!("{:?}", String::from_utf8_lossy(magic)),
                format!("{:?}", String::from_utf8_lossy(got)),
            ));
        }
        Ok(())
    }

    /// Fails unless the next `u32` is a version that this code reads.
    pub fn version(&mut self, expected: u32) -> Result<()> {
        let got = self.u32()?;
        if got != expected {
            return Err(Error::Version { what: self.what, expected, got });
        }
        Ok(())
    }

    /// Fails unless the next bytes are zero.
    pub fn zeros(&mut self, field: &'static str, len: usize) -> Result<()> {
        if self.raw(len)?.iter().any(|&b| b != 0) {
            return Err(Error::bad(self.what, field, "zero", "something else"));
        }
        Ok(())
    }

    /// Fails unless everything was taken.
    pub fn end(&self) -> Result<()> {
        match self.left() {
            0 => Ok(()),
            extra => Err(Error::Trailing { what: self.what, extra: extra as u64 }),
        }
    }
}

/// Appends BLAKE3 of everything so far.
pub(crate) fn append_hash(bytes: &mut Vec<u8>) {
    let hash = blake3::hash(bytes);
    bytes.extend_from_slice(hash.as_bytes());
}

/// Splits off and checks a trailing BLAKE3 of everything before it.
pub(crate) fn split_hash<'a>(what: &'static str, bytes: &'a [u8]) -> Result<(&'a [u8], [u8; 32])> {
    let Some((body, hash)) = bytes.split_last_chunk::<32>() else {
        return Err(Error::Truncated { what, at: 0, needed: 32, got: bytes.len() as u64 });
    };
    if blake3::hash(body).as_bytes() != hash {
        return Err(Error::Checksum { what });
    }
    Ok((body, *hash))
}
