//! What is known of each file while its backup is being taken.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_format::ids::SegmentId;
use holdfast_format::map::{FileEntry, FileKind, Place, Run, RunKind, push_block};

/// The number of a file within one backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FileNo(pub u32);

/// A file to back up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileSpec {
    /// Path below what is backed up, parts divided by `/`.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Length, bytes; grows by itself when blocks are put behind it. 0 unless regular.
    pub len: u64,
    /// Permission bits.
    pub mode: u32,
    /// Time of last change, microseconds since the Unix epoch.
    pub mtime_us: i64,
}

/// A block's state in 8 bytes: a TiB of files takes 128 MiB. 0 is a hole, 1 zeros; with the top bit set, bits 0-31 are
/// the segment's place, 32-49 the slot, 50-52 the depth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Packed(u64);

impl Packed {
    pub(super) const ZERO: Self = Self(1);
    const DATA: u64 = 1 << 63;

    pub(super) fn data(place: Place, depth: u8) -> Self {
        Self(
            Self::DATA
                | (u64::from(depth & 7) << 50)
                | (u64::from(place.slot & 0x3_ffff) << 32)
                | u64::from(place.segment),
        )
    }

    /// The place of a stored block.
    pub(super) fn place(self) -> Option<Place> {
        if self.0 & Self::DATA == 0 {
            return None;
        }
        let segment = u32::try_from(self.0 & 0xffff_ffff).unwrap_or(0);
        let slot = u32::try_from((self.0 >> 32) & 0x3_ffff).unwrap_or(0);
        Some(Place { segment, slot })
    }

    fn kind(self, base: Option<Place>) -> RunKind {
        match self.place() {
            None if self == Self::ZERO => RunKind::Zero,
            None => RunKind::Hole,
            Some(first) => {
                RunKind::Data { first, depth: u8::try_from((self.0 >> 50) & 7).unwrap_or(0), base }
            }
        }
    }
}

/// Where a block is stored, and what it is a delta of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stored {
    pub(super) place: Place,
    pub(super) depth: u8,
    pub(super) base: Option<Place>,
}

impl Stored {
    pub(super) fn packed(&self) -> Packed {
        Packed::data(self.place, self.depth)
    }
}

/// A file's content so far.
#[derive(Debug)]
pub(super) struct Content {
    pub(super) entry: FileEntry,
    pub(super) removed: bool,
    blocks: Vec<Packed>,
    /// Bases of the blocks that are deltas.
    bases: BTreeMap<u32, Place>,
    /// One bit for each block that was put.
    issued: Vec<u64>,
}

impl Content {
    pub(super) fn block(&self, block: u32) -> Packed {
        self.blocks.get(block as usize).copied().unwrap_or_default()
    }

    /// Notes that a block is on its way; true if it was put before.
    pub(super) fn issue(&mut self, block: u32) -> bool {
        let (word, bit) = ((block / 64) as usize, 1_u64 << (block % 64));
        if self.issued.len() <= word {
            self.issued.resize(word + 1, 0);
        }
        let Some(word) = self.issued.get_mut(word) else { return false };
        let before = *word & bit != 0;
        *word |= bit;
        before
    }

    /// Takes a run from the parent's map.
    pub(super) fn take_run(&mut self, start: u32, count: u32, kind: &RunKind) {
        let further = |p: Place, k| Place { segment: p.segment, slot: p.slot.saturating_add(k) };
        for k in 0..count {
            let (packed, base) = match kind {
                RunKind::Hole => return,
                RunKind::Zero => (Packed::ZERO, None),
                RunKind::Data { first, depth, base } => {
                    (Packed::data(further(*first, k), *depth), base.map(|b| further(b, k)))
                }
            };
            self.set(start.saturating_add(k), packed, base);
        }
    }

    fn set(&mut self, block: u32, packed: Packed, base: Option<Place>) {
        // A block behind the end was cut off while it was on its way.
        if u64::from(block) >= self.entry.blocks() {
            return;
        }
        if self.blocks.len() <= block as usize {
            self.blocks.resize(block as usize + 1, Packed::default());
        }
        if let Some(slot) = self.blocks.get_mut(block as usize) {
            *slot = packed;
        }
        match base {
            Some(base) => {
                self.bases.insert(block, base);
            }
            None => {
                self.bases.remove(&block);
            }
        }
    }

    /// Cuts or extends; what is new is a hole.
    pub(super) fn set_len(&mut self, len: u64) {
        self.entry.len = len;
        let blocks = self.entry.blocks();
        self.blocks.truncate(usize::try_from(blocks).unwrap_or(usize::MAX));
        if let Ok(first_gone) = u32::try_from(blocks) {
            self.bases.split_off(&first_gone);
        }
    }

    /// The runs of the map.
    pub(super) fn runs(&self) -> Vec<Run> {
        let mut runs = Vec::new();
        for (block, packed) in self.blocks.iter().enumerate() {
            let base = u32::try_from(block).ok().and_then(|b| self.bases.get(&b)).copied();
            push_block(&mut runs, packed.kind(base));
        }
        runs
    }
}

/// A file of the backup that is being taken.
#[derive(Debug)]
pub(super) struct FileState {
    /// The file of the same path in the parent.
    pub(super) parent: Option<u32>,
    content: Mutex<Content>,
}

impl FileState {
    pub(super) fn new(spec: FileSpec, parent: Option<u32>) -> Self {
        let FileSpec { path, kind, len, mode, mtime_us } = spec;
        let entry = FileEntry { path, kind, len, mode, mtime_us, state: None };
        let content =
            Content { entry, removed: false, blocks: Vec::new(), bases: BTreeMap::new(), issued: Vec::new() };
        Self { parent, content: Mutex::new(content) }
    }

    pub(super) fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn set(&self, block: u32, packed: Packed, base: Option<Place>) {
        self.content().set(block, packed, base);
    }
}

/// The segments that the backup's map will refer to.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) segments: Vec<(SegmentId, bool)>,
    by_id: HashMap<SegmentId, u32>,
    /// Own segments that are not sealed yet.
    pub(super) unsealed: HashSet<u32>,
}

impl Table {
    /// The place of a segment; given when first asked for.
    pub(super) fn place(&mut self, segment: SegmentId, own: bool) -> u32 {
        if let Some(place) = self.by_id.get(&segment) {
            return *place;
        }
        let place = u32::try_from(self.segments.len()).unwrap_or(u32::MAX);
        self.segments.push((segment, own));
        self.by_id.insert(segment, place);
        place
    }

    pub(super) fn segment(&self, place: u32) -> Option<SegmentId> {
        self.segments.get(place as usize).map(|(segment, _)| *segment)
    }
}
