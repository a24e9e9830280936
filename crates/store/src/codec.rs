//! Compression of payloads: zstd at level 1, a delta against the block it replaces, raw when neither gains enough.

use holdfast_format::segment::Codec;
use zstd::bulk::{Compressor, Decompressor};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, ParamSwitch};

use crate::error::{Error, Result};

/// Level of zstd: level 1 is 2 to 3 times as fast as level 3 and pays 3 to 6 % more bytes on InnoDB pages.
const LEVEL: i32 = 1;

/// Shortest match that the encoder looks for. Rows of InnoDB repeat in long pieces (headers, padding) or hardly at all:
/// 7 finds more of them than the level's 6, which fills the table with chance.
const MATCH_BYTES_MIN: u32 = 7;

/// How far the encoder skips ahead where it finds nothing, in place of the level's 1: 1.6 times as fast for 2 % more
/// bytes. Most of what zstd gains on rows is entropy coding, which is kept on (zstd would turn it off by itself
/// with this setting, as its negative levels do, and lose a third).
const STEP: u32 = 3;

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
    /// What was decoded back, to compare.
    check: Vec<u8>,
    /// A delta, before it is known to be worth something.
    delta: Vec<u8>,
    /// A frame as it was read.
    pub(crate) frame: Vec<u8>,
    /// The payload of a frame on its way through `reader.rs`.
    pub(crate) payload: Vec<u8>,
    /// The block that a delta is made against.
    pub(crate) base: Vec<u8>,
}

impl Coder {
    pub(crate) fn new() -> Result<Self> {
        let failed = |_| Error::SelfCheck { what: "a zstd context" };
        let mut compressor = Compressor::new(LEVEL).map_err(failed)?;
        for parameter in [
            CParameter::MinMatch(MATCH_BYTES_MIN),
            CParameter::TargetLength(STEP),
            CParameter::LiteralCompressionMode(ParamSwitch::Enable),
        ] {
            compressor.set_parameter(parameter).map_err(failed)?;
        }
        Ok(Self {
            compressor,
            decompressor: Decompressor::new().map_err(failed)?,
            deltas: None,
            check: Vec::new(),
            delta: Vec::new(),
            frame: Vec::new(),
            payload: Vec::new(),
            base: Vec::new(),
        })
    }

    /// Encodes a payload; with `verify`, decodes it again and compares before it is believed.
    pub(crate) fn encode(&mut self, plain: &[u8], verify: bool) -> Result<(Codec, Vec<u8>)> {
        self.encode_into(plain, verify, Vec::with_capacity(plain.len().saturating_add(16)))
    }

    /// As [`Coder::encode`], into the memory of `out`, an empty vector with room for the plaintext.
    pub(crate) fn encode_into(
        &mut self,
        plain: &[u8],
        verify: bool,
        mut out: Vec<u8>,
    ) -> Result<(Codec, Vec<u8>)> {
        let limit = plain.len().saturating_sub(plain.len() / GAIN_DIVISOR);
        match self.compressor.compress_to_buffer(plain, &mut out) {
            Ok(n) if n < limit => {
                if verify {
                    let mut check = std::mem::take(&mut self.check);
                    check.resize(check.len().max(plain.len()), 0);
                    let same = self.decompress(&out, &mut check) == Some(plain.len())
                        && check.get(..plain.len()) == Some(plain);
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

    /// Decodes a payload that is no delta into `plain`, which it must fill. False: it is not what its header says.
    pub(crate) fn decode(&mut self, codec: Codec, stored: &[u8], plain: &mut [u8]) -> bool {
        match codec {
            Codec::Raw if stored.len() == plain.len() => {
                plain.copy_from_slice(stored);
                true
            }
            Codec::Zstd => self.decompress(stored, plain) == Some(plain.len()),
            Codec::Raw | Codec::Delta => false,
        }
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
    ) -> Result<Option<&[u8]>> {
        if base.len() < BASE_BYTES_MIN || base.starts_with(&DICTIONARY_MAGIC) {
            return Ok(None);
        }
        let mut delta = std::mem::take(&mut self.delta);
        delta.resize(delta.len().max(limit), 0);
        let room = delta.get_mut(..limit).unwrap_or_default();
        let (compress, _) = self.delta_contexts()?;
        let made = compress.compress_using_dict(room, plain, base, LEVEL);
        self.delta = delta;
        // It does not fit the limit.
        let Ok(len) = made else { return Ok(None) };
        if verify {
            let mut check = std::mem::take(&mut self.check);
            let delta = std::mem::take(&mut self.delta);
            check.resize(check.len().max(plain.len()), 0);
            let room = check.get_mut(..plain.len()).unwrap_or_default();
            let same = self.decode_delta(delta.get(..len).unwrap_or_default(), base, room) && room == plain;
            (self.check, self.delta) = (check, delta);
            if !same {
                return Err(Error::SelfCheck { what: "a delta" });
            }
        }
        Ok(self.delta.get(..len))
    }

    /// Decodes a delta into `plain`, which it must fill. False: it is not one against this base.
    pub(crate) fn decode_delta(&mut self, delta: &[u8], base: &[u8], plain: &mut [u8]) -> bool {
        let Ok((_, decompress)) = self.delta_contexts() else { return false };
        decompress.decompress_using_dict(plain, delta, base).ok() == Some(plain.len())
    }

    fn decompress(&mut self, stored: &[u8], plain: &mut [u8]) -> Option<usize> {
        self.decompressor.decompress_to_buffer(stored, plain).ok()
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
            let delta = coder.encode_delta(&plain, &base, 300, true).unwrap().map(<[u8]>::to_vec);
            prop_assert_eq!(delta.is_some(), base.len() >= 8 && !base.starts_with(&DICTIONARY_MAGIC));
            if let Some(delta) = delta {
                let mut again = vec![0; plain.len()];
                prop_assert!(coder.decode_delta(&delta, &base, &mut again));
                prop_assert_eq!(again, plain);
            }
            let _ = coder.decode_delta(&junk, &base, &mut [0; 100]);
        }
    }
}
