//! Compression of payloads: zstd at level 1, a delta against the block it replaces, raw when neither gains enough.

use holdfast_format::segment::Codec;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CCtx, DCtx};

use crate::error::{Error, Result};

/// Level of zstd: level 1 is 2 to 3 times as fast as level 3 and pays 3 to 6 % more bytes on InnoDB pages.
const LEVEL: i32 = 1;

/// A payload must lose a twentieth of its length, else it is stored raw: decoding it would cost more than it saves.
const GAIN_DIVISOR: usize = 20;

/// A base that begins so would be taken for a dictionary of zstd's own format, not for raw content.
const DICTIONARY_MAGIC: [u8; 4] = [0x37, 0xa4, 0x30, 0xec];

/// zstd ignores a prefix that is shorter.
const BASE_BYTES_MIN: usize = 8;

/// Compresses and decompresses; one for each thread, its buffers are used again.
pub(crate) struct Coder {
    compressor: Compressor<'static>,
    decompressor: Decompressor<'static>,
    deltas: Option<(CCtx<'static>, DCtx<'static>)>,
    check: Vec<u8>,
}

impl Coder {
    pub(crate) fn new() -> Result<Self> {
        let failed = |_| Error::SelfCheck { what: "a zstd context" };
        Ok(Self {
            compressor: Compressor::new(LEVEL).map_err(failed)?,
            decompressor: Decompressor::new().map_err(failed)?,
            deltas: None,
            check: Vec::new(),
        })
    }

    /// Encodes a payload; with `verify`, decodes it again and compares before it is believed.
    pub(crate) fn encode(&mut self, plain: &[u8], verify: bool) -> Result<(Codec, Vec<u8>)> {
        let limit = plain.len().saturating_sub(plain.len() / GAIN_DIVISOR);
        let mut out = Vec::with_capacity(plain.len().saturating_add(16));
        match self.compressor.compress_to_buffer(plain, &mut out) {
            Ok(n) if n < limit => {
                if verify {
                    let mut check = std::mem::take(&mut self.check);
                    self.decompress_into(&out, plain.len(), &mut check)?;
                    let same = check == plain;
                    self.check = check;
                    if !same {
                        return Err(Error::SelfCheck { what: "compression" });
                    }
                }
                Ok((Codec::Zstd, out))
            }
            // The compressed form is longer than the buffer, or hardly shorter than the plain one.
            _ => {
                out.clear();
                out.extend_from_slice(plain);
                Ok((Codec::Raw, out))
            }
        }
    }

    /// Decodes a payload that is no delta. `None`: it is not what its header says.
    pub(crate) fn decode(&mut self, codec: Codec, stored: Vec<u8>, plain_len: u32) -> Option<Vec<u8>> {
        let plain_len = usize::try_from(plain_len).ok()?;
        let plain = match codec {
            Codec::Raw => stored,
            Codec::Zstd => {
                let mut plain = Vec::new();
                self.decompress_into(&stored, plain_len, &mut plain).ok()?;
                plain
            }
            Codec::Delta => return None,
        };
        (plain.len() == plain_len).then_some(plain)
    }

    fn delta_contexts(&mut self) -> Result<&mut (CCtx<'static>, DCtx<'static>)> {
        if self.deltas.is_none() {
            let made = CCtx::try_create().zip(DCtx::try_create());
            self.deltas = Some(made.ok_or(Error::SelfCheck { what: "a zstd context" })?);
        }
        self.deltas.as_mut().ok_or(Error::SelfCheck { what: "a zstd context" })
    }

    /// Encodes a block as a delta of at most `limit` bytes against its base; `None` if that can't be had.
    pub(crate) fn encode_delta(
        &mut self,
        plain: &[u8],
        base: &[u8],
        limit: usize,
        verify: bool,
    ) -> Result<Option<Vec<u8>>> {
        if base.len() < BASE_BYTES_MIN || base.starts_with(&DICTIONARY_MAGIC) {
            return Ok(None);
        }
        let mut out = Vec::with_capacity(limit);
        let (compress, _) = self.delta_contexts()?;
        if compress.compress_using_dict(&mut out, plain, base, LEVEL).is_err() {
            // It does not fit the limit.
            return Ok(None);
        }
        if verify && self.decode_delta(&out, base, plain.len()).as_deref() != Some(plain) {
            return Err(Error::SelfCheck { what: "a delta" });
        }
        Ok(Some(out))
    }

    /// Decodes a delta. `None`: it is not one against this base.
    pub(crate) fn decode_delta(&mut self, delta: &[u8], base: &[u8], plain_len: usize) -> Option<Vec<u8>> {
        let mut plain = Vec::with_capacity(plain_len);
        let (_, decompress) = self.delta_contexts().ok()?;
        decompress.decompress_using_dict(&mut plain, delta, base).ok()?;
        (plain.len() == plain_len).then_some(plain)
    }

    fn decompress_into(&mut self, stored: &[u8], plain_len: usize, out: &mut Vec<u8>) -> Result<()> {
        out.clear();
        out.reserve(plain_len);
        let done = self.decompressor.decompress_to_buffer(stored, out);
        done.map(|_| ()).map_err(|_| Error::SelfCheck { what: "decompression" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_delta_gives_the_block_back_and_nothing_else_is_taken_for_it(
            base in proptest::collection::vec(any::<u8>(), 0..4000),
            edits in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 0..9),
            dictionary: bool,
            junk: Vec<u8>,
        ) {
            let mut coder = Coder::new().unwrap();
            let mut base = base;
            if dictionary && base.len() > 8 {
                base[..4].copy_from_slice(&DICTIONARY_MAGIC);
            }
            let mut plain = base.clone();
            for (at, byte) in edits.iter().filter(|_| !base.is_empty()) {
                plain[at.index(base.len())] = *byte;
            }
            let delta = coder.encode_delta(&plain, &base, 300, true).unwrap();
            prop_assert_eq!(delta.is_some(), base.len() >= 8 && !base.starts_with(&DICTIONARY_MAGIC));
            if let Some(delta) = delta {
                prop_assert_eq!(coder.decode_delta(&delta, &base, plain.len()).unwrap(), plain);
            }
            let _ = coder.decode_delta(&junk, &base, 100);
        }
    }
}
