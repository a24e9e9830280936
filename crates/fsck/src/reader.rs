//! Reading frames by their address: the bases of deltas, and the frames of maps.
//!
//! A delta's base lies in another segment as a rule, and the bases of one segment's deltas lie
//! there in nearly the same order. So files stay open, and what was decoded as a base is kept for
//! a while: the next link of the same chain asks for it again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::keys::frame_nonce;
use holdfast_format::limits::FRAME_PLAIN_MAX;
use holdfast_format::segment::{Codec, FRAME_HEADER_BYTES, FrameHeader};
use holdfast_io::{ObjectName, Objects};
use zstd::zstd_safe::DCtx;

use crate::index::{Index, NOWHERE};
use crate::segment::{BirthKeys, Source, Wrong};
use crate::unlock::Keys;

/// Segments whose files are open at once: far below the limit of a process, 1,024 as a rule.
const OPEN_MAX: usize = 256;
/// Bytes of decoded bases that are kept: 1,024 blocks, some seconds of chains.
const BASES_BYTES_MAX: usize = 64 << 20;

/// Reads frames wherever they lie now.
pub(crate) struct Reader<'a> {
    pub objects: &'a dyn Objects,
    pub keys: &'a Keys,
    pub index: &'a Index,
    open: Mutex<HashMap<String, Arc<Source<'a>>>>,
    bases: Mutex<Bases>,
    contexts: Mutex<Vec<DCtx<'static>>>,
}

/// A decoded base and its depth.
type Base = (Arc<Vec<u8>>, u8);

/// Decoded bases in two generations: when the young one is half of the room, it becomes the old one, and that goes.
#[derive(Default)]
struct Bases {
    young: HashMap<Address, Base>,
    old: HashMap<Address, Base>,
    young_bytes: usize,
}

impl Bases {
    fn get(&mut self, at: Address) -> Option<Base> {
        if let Some(found) = self.young.get(&at) {
            return Some(found.clone());
        }
        let found = self.old.remove(&at)?;
        self.put(at, found.clone());
        Some(found)
    }

    fn put(&mut self, at: Address, base: Base) {
        if self.young_bytes >= BASES_BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes = self.young_bytes.saturating_add(base.0.len());
        self.young.insert(at, base);
    }
}

impl<'a> Reader<'a> {
    pub(crate) fn new(objects: &'a dyn Objects, keys: &'a Keys, index: &'a Index) -> Self {
        Self {
            objects,
            keys,
            index,
            open: Mutex::default(),
            bases: Mutex::default(),
            contexts: Mutex::default(),
        }
    }

    /// An object, open for reading.
    pub(crate) fn source(&self, name: &ObjectName) -> holdfast_io::Result<Arc<Source<'a>>> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = open.get(name.as_str()) {
            return Ok(Arc::clone(source));
        }
        let source = Arc::new(Source::open(self.objects, name.clone())?);
        if open.len() >= OPEN_MAX {
            open.clear();
        }
        open.insert(name.as_str().to_owned(), Arc::clone(&source));
        Ok(source)
    }

    /// Reads, opens and decodes one frame.
    pub(crate) fn fetch(&self, at: Address) -> Result<Vec<u8>, Wrong> {
        let (birth, header, payload, offset) = self.sealed(at)?;
        self.decode(birth, &header, payload).map_err(|what| Wrong::at(offset, what))
    }

    /// Keys, header, sealed payload and offset of the frame at an address.
    fn sealed(&self, at: Address) -> Result<(&'a BirthKeys, FrameHeader, Vec<u8>, u64), Wrong> {
        let missing = || Wrong::whole(format!("the frame {at} {NOWHERE}"));
        let (segment, offset) = self.index.place(at).ok_or_else(missing)?;
        let source = self.source(&segment.name).map_err(Wrong::whole)?;
        let head = source.read(offset, FRAME_HEADER_BYTES as u64)?;
        let header = FrameHeader::decode(&head).map_err(|e| Wrong::at(offset, e))?;
        let from = offset.saturating_add(FRAME_HEADER_BYTES as u64);
        let payload = source.read(from, u64::from(header.stored_len))?;
        let birth = segment.births.get(usize::from(header.birth)).filter(|b| b.segment == at.segment);
        let birth = birth.filter(|_| header.slot == at.slot).ok_or_else(missing)?;
        Ok((birth, header, payload, offset))
    }

    /// The plaintext of a base, which must have this depth: depths fall strictly along a chain, so chains end.
    fn base(&self, at: Address, depth: u8) -> Result<Arc<Vec<u8>>, String> {
        let wrong_depth = |found: u8| format!("it has depth {found}, not {depth}");
        if let Some((plain, found)) = self.bases.lock().unwrap_or_else(PoisonError::into_inner).get(at) {
            return if found == depth { Ok(plain) } else { Err(wrong_depth(found)) };
        }
        let (birth, header, payload, _) = self.sealed(at).map_err(|w| w.what)?;
        if header.depth != depth {
            return Err(wrong_depth(header.depth));
        }
        let plain = Arc::new(self.decode(birth, &header, payload)?);
        self.bases.lock().unwrap_or_else(PoisonError::into_inner).put(at, (Arc::clone(&plain), depth));
        Ok(plain)
    }

    /// Opens and decodes a frame's sealed payload, fetching the base of a delta.
    pub(crate) fn decode(
        &self,
        birth: &BirthKeys,
        header: &FrameHeader,
        sealed: Vec<u8>,
    ) -> Result<Vec<u8>, String> {
        let opened = open(self.keys, birth, header, sealed)?;
        let wanted = header.plain_len.min(FRAME_PLAIN_MAX) as usize;
        let slot = header.slot;
        let plain = match header.codec {
            Codec::Raw => opened,
            Codec::Zstd => self.inflate(&opened, &[], wanted).map_err(|e| format!("frame {slot}: {e}"))?,
            Codec::Delta => {
                let base = base_of(&opened).ok_or_else(|| format!("frame {slot} names no base"))?;
                let depth = header.depth.checked_sub(1).ok_or_else(|| format!("frame {slot} has depth 0"))?;
                let prefix = self
                    .base(base, depth)
                    .map_err(|what| format!("the base {base} of frame {slot}: {what}"))?;
                self.inflate(opened.get(20..).unwrap_or_default(), &prefix, wanted)
                    .map_err(|e| format!("frame {slot}: {e}"))?
            }
        };
        if plain.len() != header.plain_len as usize {
            let wanted = header.plain_len;
            return Err(format!("frame {slot} decodes to {} bytes, its header says {wanted}", plain.len()));
        }
        Ok(plain)
    }

    /// Decodes a zstd frame of at most `wanted` bytes that was made with `base` as its prefix. Contexts are lent: to make
    /// one costs more than a block does.
    fn inflate(&self, from: &[u8], base: &[u8], wanted: usize) -> Result<Vec<u8>, &'static str> {
        let kept = self.contexts.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut context = kept.or_else(DCtx::try_create).ok_or("zstd gives no context")?;
        let mut plain = Vec::with_capacity(wanted);
        let decoded = context.decompress_using_dict(&mut plain, from, base);
        self.contexts.lock().unwrap_or_else(PoisonError::into_inner).push(context);
        decoded.map(|_| plain).map_err(zstd::zstd_safe::get_error_name)
    }
}

/// Opens a frame's sealed payload in place; what comes out is still encoded.
pub(crate) fn open(
    keys: &Keys,
    birth: &BirthKeys,
    header: &FrameHeader,
    mut sealed: Vec<u8>,
) -> Result<Vec<u8>, String> {
    let failed = || format!("frame {} does not open: its bytes are not what was sealed", header.slot);
    let tag = *sealed.last_chunk::<16>().ok_or_else(failed)?;
    sealed.truncate(sealed.len().saturating_sub(16));
    let aad = header.aad(keys.repo, birth.segment);
    birth.frames.open_in_place(frame_nonce(header.slot), &aad, &mut sealed, tag).ok_or_else(failed)?;
    Ok(sealed)
}

/// The address before a delta.
pub(crate) fn base_of(opened: &[u8]) -> Option<Address> {
    let (segment, rest) = opened.split_first_chunk::<16>()?;
    let (slot, _) = rest.split_first_chunk::<4>()?;
    Some(Address { segment: SegmentId(*segment), slot: u32::from_le_bytes(*slot) })
}
