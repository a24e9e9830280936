//! The index of known blocks: 8 bytes an entry, in memory, bounded, derived from footers.
//!
//! An entry is a fingerprint and a place; a hit is a guess until the footer confirms the id.
//! Open addressing with linear probing. Ids are not kept, so a full table is not grown: a new
//! one of twice its size is begun beside it, and a look-up asks all of them (at most some
//! dozen). Past the cap nothing is added, which costs space and never safety.

use holdfast_format::ids::BlockId;
use holdfast_format::map::Place;

/// Bits of an entry: 22 of fingerprint, 24 of the segment's place plus one, 18 of the slot.
const SEGMENT_BITS: u32 = 24;
const SLOT_BITS: u32 = 18;

/// Entries of the first table: 64 KiB, enough for 512 MiB of blocks.
const FIRST_TABLE: usize = 8 * 1024;

/// One table: entries, and how many are used. At most seven eighths are.
#[derive(Debug)]
struct Table {
    entries: Vec<u64>,
    used: usize,
}

impl Table {
    fn new(entries: usize) -> Self {
        Self { entries: vec![0; entries], used: 0 }
    }

    fn has_room(&self) -> bool {
        (self.used + 1) * 8 <= self.entries.len() * 7
    }

    fn start(&self, id: &BlockId) -> usize {
        let low = id.0.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        usize::try_from(low).unwrap_or(0) & (self.entries.len() - 1)
    }

    fn put(&mut self, id: &BlockId, entry: u64) {
        let mask = self.entries.len() - 1;
        let mut at = self.start(id);
        while let Some(slot) = self.entries.get_mut(at) {
            if *slot == 0 {
                *slot = entry;
                self.used += 1;
                return;
            }
            at = (at + 1) & mask;
        }
    }
}

/// A bounded set of (id, place).
#[derive(Debug)]
pub(crate) struct Index {
    tables: Vec<Table>,
    bytes_max: u64,
}

impl Index {
    /// An index that takes at most `bytes_max`.
    pub(crate) fn new(bytes_max: u64) -> Self {
        Self { tables: Vec::new(), bytes_max }
    }

    fn fingerprint(id: &BlockId) -> u64 {
        let high = id.0.last_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b));
        high << (SEGMENT_BITS + SLOT_BITS)
    }

    fn bytes(&self) -> u64 {
        self.tables.iter().map(|t| t.entries.len() as u64 * 8).sum()
    }

    /// Adds a block; false when the cap is reached or the place is beyond what an entry holds.
    pub(crate) fn insert(&mut self, id: &BlockId, place: Place) -> bool {
        if place.segment >= (1 << SEGMENT_BITS) - 1 || place.slot >= 1 << SLOT_BITS {
            return false;
        }
        if !self.tables.last().is_some_and(Table::has_room) {
            let entries = self.tables.last().map_or(FIRST_TABLE, |t| t.entries.len() * 2);
            if self.bytes().saturating_add(entries as u64 * 8) > self.bytes_max {
                return false;
            }
            self.tables.push(Table::new(entries));
        }
        let entry =
            Self::fingerprint(id) | (u64::from(place.segment + 1) << SLOT_BITS) | u64::from(place.slot);
        let Some(table) = self.tables.last_mut() else { return false };
        table.put(id, entry);
        true
    }

    /// Places that may hold this block, the newest first.
    pub(crate) fn candidates(&self, id: &BlockId) -> Vec<Place> {
        let wanted = Self::fingerprint(id) >> (SEGMENT_BITS + SLOT_BITS);
        let mut found = Vec::new();
        for table in self.tables.iter().rev() {
            let mask = table.entries.len() - 1;
            let mut at = table.start(id);
            while let Some(entry) = table.entries.get(at).copied().filter(|e| *e != 0) {
                if entry >> (SEGMENT_BITS + SLOT_BITS) == wanted {
                    let segment =
                        u32::try_from((entry >> SLOT_BITS) & ((1 << SEGMENT_BITS) - 1)).unwrap_or(0);
                    let slot = u32::try_from(entry & ((1 << SLOT_BITS) - 1)).unwrap_or(0);
                    found.push(Place { segment: segment.saturating_sub(1), slot });
                }
                at = (at + 1) & mask;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(n: u64) -> BlockId {
        BlockId(*blake3::hash(&n.to_le_bytes()).as_bytes())
    }

    #[test]
    fn every_block_is_found_until_the_cap_and_memory_stays_below_it() {
        let mut index = Index::new(1 << 20);
        let mut taken = 0;
        for n in 0..200_000_u32 {
            if !index.insert(&id(u64::from(n)), Place { segment: n / 100, slot: n % 100 }) {
                break;
            }
            taken = n + 1;
        }
        assert!(taken > 50_000 && taken < 200_000, "{taken}");
        assert!(index.bytes() <= 1 << 20);
        for n in 0..taken {
            let place = Place { segment: n / 100, slot: n % 100 };
            assert!(index.candidates(&id(u64::from(n))).contains(&place), "{n}");
        }
        let strangers = (1_000_000..1_010_000).filter(|n| !index.candidates(&id(*n)).is_empty()).count();
        assert!(strangers < 20, "{strangers} false hits of 10,000");
    }
}
