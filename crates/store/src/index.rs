//! The index of known blocks: 5 bytes an entry, in memory, bounded, derived from footers.
//!
//! An entry is 16 bits of the block's id and the number of a segment; a hit is a guess until the segment's footer
//! confirms the id. At most four fifths of a table are used, so a TiB of blocks takes 100 MiB. Open addressing with
//! linear probing. Ids are not kept, so a full table is not grown: another one of a quarter of them all is begun beside
//! them, and a look-up asks all. Past the cap nothing is added, which costs space and never safety.

use std::collections::HashSet;

use holdfast_format::ids::{BlockId, SegmentId};

/// Bytes of an entry: 3 of the segment's number plus one (0: nothing there), 2 of the id.
const ENTRY_BYTES: usize = 5;

/// Segments that an entry can tell apart: a PiB of full ones.
const SEGMENTS_MAX: usize = (1 << 24) - 1;

/// Entries of the smallest table: 5 KiB.
const TABLE_MIN: usize = 1024;

/// One table: entries, and how many are used.
#[derive(Debug)]
struct Table {
    entries: Vec<[u8; ENTRY_BYTES]>,
    used: usize,
}

impl Table {
    fn new(entries: usize) -> Self {
        Self { entries: vec![[0; ENTRY_BYTES]; entries], used: 0 }
    }

    fn has_room(&self) -> bool {
        (self.used + 1) * 5 <= self.entries.len() * 4
    }

    /// Where a block's entry is looked for first: the id's beginning, which is even, scaled to the table.
    fn start(&self, id: &BlockId) -> usize {
        let low = id.0.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        usize::try_from((u128::from(low) * self.entries.len() as u128) >> 64).unwrap_or(0)
    }

    fn next(&self, at: usize) -> usize {
        if at + 1 == self.entries.len() { 0 } else { at + 1 }
    }

    fn put(&mut self, id: &BlockId, entry: [u8; ENTRY_BYTES]) {
        let mut at = self.start(id);
        while let Some(slot) = self.entries.get_mut(at) {
            if *slot == [0; ENTRY_BYTES] {
                *slot = entry;
                self.used += 1;
                return;
            }
            at = self.next(at);
        }
    }
}

/// A bounded set of (id, segment).
#[derive(Debug)]
pub struct Index {
    tables: Vec<Table>,
    /// The segments by number.
    segments: Vec<SegmentId>,
    bytes_max: u64,
}

impl Index {
    /// An index that takes at most `bytes_max`.
    pub fn new(bytes_max: u64) -> Self {
        Self { tables: Vec::new(), segments: Vec::new(), bytes_max }
    }

    /// Makes room for that many entries at once, as far as the cap allows.
    pub fn reserve(&mut self, entries: u64) {
        let room = self.bytes_max.saturating_sub(self.bytes()) / ENTRY_BYTES as u64;
        let entries = usize::try_from((entries.saturating_mul(5) / 4).min(room)).unwrap_or(0);
        if entries >= TABLE_MIN {
            self.tables.push(Table::new(entries));
        }
    }

    /// Bytes of all tables.
    fn bytes(&self) -> u64 {
        self.tables.iter().map(|t| (t.entries.len() * ENTRY_BYTES) as u64).sum()
    }

    /// Adds a segment with the ids of its blocks; false when the cap is reached.
    pub fn insert<'a>(&mut self, segment: SegmentId, ids: impl IntoIterator<Item = &'a BlockId>) -> bool {
        if self.segments.len() >= SEGMENTS_MAX {
            return false;
        }
        self.segments.push(segment);
        let number = u32::try_from(self.segments.len()).unwrap_or(0).to_le_bytes();
        ids.into_iter().all(|id| self.put(id, number))
    }

    fn put(&mut self, id: &BlockId, number: [u8; 4]) -> bool {
        if !self.tables.last().is_some_and(Table::has_room) {
            let all: usize = self.tables.iter().map(|t| t.entries.len()).sum();
            let entries = (all / 4).max(TABLE_MIN);
            if self.bytes().saturating_add((entries * ENTRY_BYTES) as u64) > self.bytes_max {
                return false;
            }
            self.tables.push(Table::new(entries));
        }
        let ([a, b, c, _], [d, e]) = (number, fingerprint(id));
        let Some(table) = self.tables.last_mut() else { return false };
        table.put(id, [a, b, c, d, e]);
        true
    }

    /// Segments that may hold this block, the newest first.
    pub fn candidates(&self, id: &BlockId) -> Vec<SegmentId> {
        let wanted = fingerprint(id);
        let mut found = Vec::new();
        let mut seen = HashSet::new();
        for table in self.tables.iter().rev() {
            let mut at = table.start(id);
            while let Some([a, b, c, d, e]) = table.entries.get(at).filter(|e| **e != [0; ENTRY_BYTES]) {
                if [*d, *e] == wanted {
                    let number = u32::from_le_bytes([*a, *b, *c, 0]);
                    let segment = self.segments.get((number as usize).wrapping_sub(1));
                    found.extend(segment.copied().filter(|segment| seen.insert(*segment)));
                }
                at = table.next(at);
            }
        }
        found
    }
}

/// The end of an id, of which the beginning says where to look.
fn fingerprint(id: &BlockId) -> [u8; 2] {
    id.0.last_chunk::<2>().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As even as a hash, and quicker in a test's build.
    fn id(n: u64) -> BlockId {
        let mut id = [0; 32];
        let mut z = n;
        for piece in id.chunks_mut(8) {
            z = z.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            piece.copy_from_slice(&(mixed ^ (mixed >> 31)).to_le_bytes());
        }
        BlockId(id)
    }

    fn segment(n: u64) -> SegmentId {
        let mut id = [1; 16];
        id[..8].copy_from_slice(&n.to_le_bytes());
        SegmentId(id)
    }

    /// Adds `0..count` in segments of 1,000; how many found room.
    fn fill(index: &mut Index, count: u64) -> u64 {
        let mut taken = 0;
        for first in (0..count).step_by(1000) {
            let ids: Vec<_> = (first..first + 1000).map(id).collect();
            let all = index.insert(segment(first / 1000), ids.iter().inspect(|_| taken += 1));
            if !all {
                return taken - 1;
            }
        }
        taken
    }

    #[test]
    fn every_block_is_found_until_the_cap_and_memory_stays_below_it() {
        let mut index = Index::new(1 << 20);
        let taken = fill(&mut index, 400_000);
        assert!(taken > 130_000 && taken < 200_000, "{taken}");
        assert!(index.bytes() <= 1 << 20);
        for n in 0..taken {
            assert!(index.candidates(&id(n)).contains(&segment(n / 1000)), "{n}");
        }
        let strangers = (1_000_000..1_010_000).filter(|n| !index.candidates(&id(*n)).is_empty()).count();
        assert!(strangers < 200, "{strangers} false hits of 10,000");
    }

    #[test]
    fn a_tib_of_blocks_takes_a_hundred_mib_when_their_number_is_known() {
        // A thousandth of it: 16,777 blocks of 64 KiB, and 102.4 KiB.
        let mut index = Index::new(u64::MAX);
        index.reserve(16_777);
        assert_eq!(fill(&mut index, 16_000), 16_000);
        assert!(index.tables.len() == 1 && index.bytes() <= 104_858, "{}", index.bytes());
    }

    #[test]
    fn what_was_not_foreseen_costs_a_quarter_more_at_most() {
        let mut index = Index::new(u64::MAX);
        assert_eq!(fill(&mut index, 200_000), 200_000);
        assert!(index.bytes() < 200_000 * 8, "{}", index.bytes());
        assert!(index.candidates(&id(0)).contains(&segment(0)));
    }

    #[test]
    fn an_index_without_room_takes_nothing_and_finds_nothing() {
        let mut index = Index::new(100);
        index.reserve(1 << 40);
        assert!(!index.insert(segment(1), &[id(1)]) && index.candidates(&id(1)).is_empty());
    }
}
