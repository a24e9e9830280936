//! Where every frame of the repository lies: built from headers and footers before any frame is opened.
//!
//! Four bytes a frame, 64 MiB for a TiB of blocks that do not compress; frames that are
//! not a full block cost some more.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::{BLOCK_BYTES, SLOTS_MAX};
use holdfast_format::segment::{FooterEntry, FrameKind};

use crate::segment::Segment;

const NO_FRAME: u32 = u32::MAX;

/// How the text of a frame that is missing ends. A delta that no backup needs may lie on in a segment while its base is
/// gone, so a missing base is damage only if a backup needs the delta.
pub(crate) const NOWHERE: &str = "is nowhere";

/// The frames that were born in one segment, and where they lie now.
struct Births {
    /// Place of the carrier in [`Index::segments`].
    carrier: usize,
    /// Offset by slot; [`NO_FRAME`] where there is none.
    offsets: Vec<u32>,
    /// Slots that hold something else than a block of full length.
    odd: HashMap<u32, (FrameKind, u32)>,
    /// The births in which bases of its deltas lie, rising.
    bases: Vec<SegmentId>,
}

/// Every segment that could be read, and every frame's place.
#[derive(Default)]
pub(crate) struct Index {
    pub segments: Vec<Segment>,
    births: BTreeMap<SegmentId, Births>,
    /// Births that compaction moved, and the segment that the records name for them.
    carriers: HashMap<SegmentId, SegmentId>,
}

impl Index {
    /// An empty index that knows what the records say of carriers.
    pub(crate) fn new(carriers: HashMap<SegmentId, SegmentId>) -> Self {
        Self { carriers, ..Self::default() }
    }

    /// Adds a segment.
    pub(crate) fn add(&mut self, segment: Segment, entries: &[FooterEntry]) {
        let carrier = self.segments.len();
        for (at, birth) in segment.births.iter().enumerate() {
            let mine = || entries.iter().filter(|e| usize::from(e.birth) == at && e.slot < SLOTS_MAX);
            let slots = mine().map(|e| e.slot.saturating_add(1)).max().unwrap_or(0);
            let bases: BTreeSet<SegmentId> = mine().filter_map(|e| e.base.map(|b| b.segment)).collect();
            let mut births = Births {
                carrier,
                offsets: vec![NO_FRAME; slots as usize],
                odd: HashMap::new(),
                bases: bases.into_iter().collect(),
            };
            for entry in mine() {
                if let Some(place) = births.offsets.get_mut(entry.slot as usize) {
                    *place = entry.offset;
                }
                if entry.kind != FrameKind::Block || entry.plain_len != BLOCK_BYTES {
                    births.odd.insert(entry.slot, (entry.kind, entry.plain_len));
                }
            }
            // While compaction is under way a birth has two carriers. The one that the records name has every frame
            // that is needed; the other serves where that one can't be read.
            if self.carriers.get(&birth.segment).unwrap_or(&birth.segment) == &segment.id {
                self.births.insert(birth.segment, births);
            } else {
                self.births.entry(birth.segment).or_insert(births);
            }
        }
        self.segments.push(segment);
    }

    /// The segment in which the frames of a birth lie now.
    pub(crate) fn carrier(&self, birth: SegmentId) -> Option<&Segment> {
        self.births.get(&birth).and_then(|b| self.segments.get(b.carrier))
    }

    /// The births in which bases of the deltas of a birth lie.
    pub(crate) fn bases(&self, birth: SegmentId) -> &[SegmentId] {
        self.births.get(&birth).map_or(&[], |b| &b.bases)
    }

    /// Kind and plain length of the frame at an address.
    pub(crate) fn frame(&self, at: Address) -> Option<(FrameKind, u32)> {
        let births = self.births.get(&at.segment)?;
        births.offsets.get(at.slot as usize).filter(|o| **o != NO_FRAME)?;
        Some(births.odd.get(&at.slot).copied().unwrap_or((FrameKind::Block, BLOCK_BYTES)))
    }

    /// The segment that holds a frame, and its offset there.
    pub(crate) fn place(&self, at: Address) -> Option<(&Segment, u64)> {
        let births = self.births.get(&at.segment)?;
        let offset = births.offsets.get(at.slot as usize).copied().filter(|o| *o != NO_FRAME)?;
        Some((self.segments.get(births.carrier)?, u64::from(offset)))
    }
}
