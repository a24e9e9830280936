//! Where every frame of the repository lies: built from headers and footers before any frame is opened.
//!
//! Four bytes a frame, 64 MiB for a TiB of blocks that do not compress; frames that are
//! not a full block cost some more.

use std::collections::{BTreeMap, HashMap};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::{BLOCK_BYTES, FRAME_PLAIN_MAX, SLOTS_MAX};
use holdfast_format::segment::{Codec, FRAME_HEADER_BYTES, FooterEntry, FrameHeader, FrameKind};
use holdfast_io::{ObjectName, Objects};

use crate::segment::{BirthKeys, Segment, Source, Wrong};
use crate::unlock::Keys;

const NO_FRAME: u32 = u32::MAX;

/// The frames that were born in one segment, and where they lie now.
struct Births {
    /// Place of the carrier in [`Index::segments`].
    carrier: usize,
    /// Offset by slot; [`NO_FRAME`] where there is none.
    offsets: Vec<u32>,
    /// Slots that hold something else than a block of full length.
    odd: HashMap<u32, (FrameKind, u32)>,
}

/// Every segment that could be read, and every frame's place.
#[derive(Default)]
pub(crate) struct Index {
    pub segments: Vec<Segment>,
    births: BTreeMap<SegmentId, Births>,
}

impl Index {
    /// Adds a segment.
    pub(crate) fn add(&mut self, segment: Segment, entries: &[FooterEntry]) {
        let carrier = self.segments.len();
        for (at, birth) in segment.births.iter().enumerate() {
            let mine = || entries.iter().filter(|e| usize::from(e.birth) == at && e.slot < SLOTS_MAX);
            let slots = mine().map(|e| e.slot.saturating_add(1)).max().unwrap_or(0);
            let mut births = Births { carrier, offsets: vec![NO_FRAME; slots as usize], odd: HashMap::new() };
            for entry in mine() {
                if let Some(place) = births.offsets.get_mut(entry.slot as usize) {
                    *place = entry.offset;
                }
                if entry.kind != FrameKind::Block || entry.plain_len != BLOCK_BYTES {
                    births.odd.insert(entry.slot, (entry.kind, entry.plain_len));
                }
            }
            // While compaction is under way a birth has two carriers with the same bytes; either serves.
            self.births.entry(birth.segment).or_insert(births);
        }
        self.segments.push(segment);
    }

    /// Whether the frames of a birth are anywhere.
    pub(crate) fn has_segment(&self, birth: SegmentId) -> bool {
        self.births.contains_key(&birth)
    }

    /// The segment in which the frames of a birth lie now.
    pub(crate) fn carrier(&self, birth: SegmentId) -> Option<&Segment> {
        self.births.get(&birth).and_then(|b| self.segments.get(b.carrier))
    }

    /// Kind and plain length of the frame at an address.
    pub(crate) fn frame(&self, at: Address) -> Option<(FrameKind, u32)> {
        let births = self.births.get(&at.segment)?;
        births.offsets.get(at.slot as usize).filter(|o| **o != NO_FRAME)?;
        Some(births.odd.get(&at.slot).copied().unwrap_or((FrameKind::Block, BLOCK_BYTES)))
    }

    /// Reads, opens and decodes one frame.
    pub(crate) fn fetch(&self, objects: &dyn Objects, keys: &Keys, at: Address) -> Result<Vec<u8>, Wrong> {
        let missing = || Wrong::whole(format!("the frame {at} is nowhere"));
        let births = self.births.get(&at.segment).ok_or_else(missing)?;
        let offset = births.offsets.get(at.slot as usize).copied().filter(|o| *o != NO_FRAME);
        let offset = u64::from(offset.ok_or_else(missing)?);
        let segment = self.segments.get(births.carrier).ok_or_else(missing)?;
        let name = ObjectName::new(segment.name.as_str()).map_err(Wrong::whole)?;
        let source = Source::open(objects, name).map_err(Wrong::whole)?;
        let head = source.read(offset, FRAME_HEADER_BYTES as u64)?;
        let header = FrameHeader::decode(&head).map_err(|e| Wrong::at(offset, e))?;
        let payload =
            source.read(offset.saturating_add(FRAME_HEADER_BYTES as u64), u64::from(header.stored_len))?;
        let birth = segment.births.get(usize::from(header.birth)).filter(|b| b.segment == at.segment);
        let birth = birth.filter(|_| header.slot == at.slot).ok_or_else(missing)?;
        open_frame(self, objects, keys, birth, &header, &payload).map_err(|what| Wrong::at(offset, what))
    }
}

/// Opens and decodes a frame's payload, fetching the bases of a delta.
pub(crate) fn open_frame(
    index: &Index,
    objects: &dyn Objects,
    keys: &Keys,
    birth: &BirthKeys,
    header: &FrameHeader,
    payload: &[u8],
) -> Result<Vec<u8>, String> {
    let aad = header.aad(keys.repo, birth.segment);
    let nonce = holdfast_format::keys::frame_nonce(header.slot);
    let opened = birth.frames.open(nonce, &aad, payload);
    let opened = opened
        .ok_or_else(|| format!("frame {} does not open: its bytes are not what was sealed", header.slot))?;
    let wanted = header.plain_len.min(FRAME_PLAIN_MAX) as usize;
    let plain = match header.codec {
        Codec::Raw => opened,
        Codec::Zstd => {
            zstd::bulk::decompress(&opened, wanted).map_err(|e| format!("frame {}: {e}", header.slot))?
        }
        Codec::Delta => {
            let base = base_of(&opened).ok_or_else(|| format!("frame {} names no base", header.slot))?;
            let (_, depth) = index.depth_of(objects, base).map_err(|w| w.what)?;
            if depth.saturating_add(1) != header.depth {
                return Err(format!(
                    "frame {} has depth {}, its base {base} has {depth}",
                    header.slot, header.depth
                ));
            }
            let prefix = index.fetch(objects, keys, base);
            let prefix =
                prefix.map_err(|w| format!("the base {base} of frame {}: {}", header.slot, w.what))?;
            undelta(opened.get(20..).unwrap_or_default(), &prefix, wanted)
                .map_err(|e| format!("frame {}: {e}", header.slot))?
        }
    };
    if plain.len() != header.plain_len as usize {
        let (slot, wanted) = (header.slot, header.plain_len);
        return Err(format!("frame {slot} decodes to {} bytes, its header says {wanted}", plain.len()));
    }
    Ok(plain)
}

/// The address before a delta.
pub(crate) fn base_of(opened: &[u8]) -> Option<Address> {
    let (segment, rest) = opened.split_first_chunk::<16>()?;
    let (slot, _) = rest.split_first_chunk::<4>()?;
    Some(Address { segment: SegmentId(*segment), slot: u32::from_le_bytes(*slot) })
}

/// Decodes a zstd frame that was made with `base` as its prefix.
fn undelta(delta: &[u8], base: &[u8], wanted: usize) -> std::io::Result<Vec<u8>> {
    use std::io::Read as _;
    let mut decoder = zstd::stream::read::Decoder::with_ref_prefix(delta, base)?;
    let mut plain = Vec::with_capacity(wanted);
    // One byte more than promised tells that there is more.
    decoder.by_ref().take(wanted as u64 + 1).read_to_end(&mut plain)?;
    Ok(plain)
}

impl Index {
    /// Kind and depth of a frame by its plain header. Depths fall strictly along a chain, so chains end.
    fn depth_of(&self, objects: &dyn Objects, at: Address) -> Result<(FrameKind, u8), Wrong> {
        let missing = || Wrong::whole(format!("the base {at} is nowhere"));
        let births = self.births.get(&at.segment).ok_or_else(missing)?;
        let offset =
            births.offsets.get(at.slot as usize).copied().filter(|o| *o != NO_FRAME).ok_or_else(missing)?;
        let segment = self.segments.get(births.carrier).ok_or_else(missing)?;
        let name = ObjectName::new(segment.name.as_str()).map_err(Wrong::whole)?;
        let source = Source::open(objects, name).map_err(Wrong::whole)?;
        let head = source.read(u64::from(offset), FRAME_HEADER_BYTES as u64)?;
        let header = FrameHeader::decode(&head).map_err(|e| Wrong::at(u64::from(offset), e))?;
        Ok((header.kind, header.depth))
    }
}
