//! Which frames are alive: one bit a slot of each segment that anything reaches.
//!
//! 8 KiB for a full segment of blocks that don't compress, so 128 MiB would be 1 TiB of segments; leaves are read one
//! by one, footers through the cache.

use std::collections::{BTreeSet, HashMap, HashSet};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::SLOTS_MAX;

use super::table::SegmentTable;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::map::each_address;
use crate::repository::Inner;

/// The bits of one birth.
#[derive(Debug, Default)]
struct Bits {
    words: Vec<u64>,
    /// When it was first reached: segments of one backup follow each other.
    order: u32,
}

/// Every frame that is needed, by its address.
#[derive(Debug, Default)]
pub(super) struct Live {
    births: HashMap<SegmentId, Bits>,
}

/// The objects that hold what these maps reach: their frames, blocks, and the bases of those, however deep; as far as
/// damage lets that be seen.
pub(crate) fn holders(inner: &Inner, maps: impl IntoIterator<Item = Address>) -> Result<HashSet<SegmentId>> {
    let (mut live, mut coder) = (Live::default(), Coder::new()?);
    for root in maps {
        live.set(root, 1);
        // What a map named before it broke off counts.
        let _ = each_address(&inner.cache, &mut coder, root, &mut |first, count| {
            live.set(first, count.min(SLOTS_MAX.saturating_sub(first.slot)));
        });
    }
    let _ = live.close(inner, &mut |_| Ok(()));
    Ok(live.holders(&SegmentTable::of(&inner.manifest.records())))
}

impl Live {
    /// Marks what these maps reach, oldest first, and the bases of the deltas among it, however deep.
    ///
    /// A map or a footer that can't be read is an error: nothing may be deleted while anybody's needs are unknown.
    pub(super) fn mark(inner: &Inner, roots: &BTreeSet<Address>) -> Result<Self> {
        let mut live = Self::default();
        let mut coder = Coder::new()?;
        for root in roots {
            let mut bad = None;
            each_address(&inner.cache, &mut coder, *root, &mut |first, count| {
                if first.slot.checked_add(count).is_none_or(|end| end > SLOTS_MAX) {
                    bad.get_or_insert(first);
                    return;
                }
                live.set(first, count);
            })?;
            if let Some(address) = bad {
                return Err(Error::damaged(
                    format!("the map {root}"),
                    "a run",
                    format!("{address} is no slot"),
                ));
            }
        }
        live.close(inner, &mut Err)?;
        Ok(live)
    }

    /// Sets bits; true if any was new.
    fn set(&mut self, first: Address, count: u32) -> bool {
        let order = u32::try_from(self.births.len()).unwrap_or(u32::MAX);
        let bits = self.births.entry(first.segment).or_insert_with(|| Bits { words: Vec::new(), order });
        let end = first.slot.saturating_add(count);
        let words = (end as usize).div_ceil(64);
        if bits.words.len() < words {
            bits.words.resize(words, 0);
        }
        let mut new = false;
        for slot in first.slot..end {
            if let Some(word) = bits.words.get_mut((slot / 64) as usize) {
                new |= *word & (1 << (slot % 64)) == 0;
                *word |= 1 << (slot % 64);
            }
        }
        new
    }

    /// Whether a frame is needed.
    pub(super) fn has(&self, address: Address) -> bool {
        let word = self.births.get(&address.segment).and_then(|b| b.words.get((address.slot / 64) as usize));
        word.is_some_and(|word| word & (1 << (address.slot % 64)) != 0)
    }

    /// The objects that hold what is needed.
    pub(super) fn holders(&self, table: &SegmentTable) -> HashSet<SegmentId> {
        self.births.keys().map(|birth| table.holder(*birth)).collect()
    }

    /// Frames of a birth that are needed.
    pub(super) fn count(&self, birth: SegmentId) -> u32 {
        self.births.get(&birth).map_or(0, |b| b.words.iter().map(|w| w.count_ones()).sum())
    }

    /// When a birth was first reached; the last for one that nothing reaches.
    pub(super) fn order(&self, birth: SegmentId) -> u32 {
        self.births.get(&birth).map_or(u32::MAX, |b| b.order)
    }

    /// Follows the bases of live deltas until nothing new is found. A map names the base of its block, a footer that of
    /// the base itself.
    /// What can't be read goes to `wrong`, which says whether to go on without it.
    fn close(&mut self, inner: &Inner, wrong: &mut dyn FnMut(Error) -> Result<()>) -> Result<()> {
        let mut todo: Vec<SegmentId> = self.births.keys().copied().collect();
        // Neighbours in the cache of footers; any order is right.
        todo.sort_unstable_by_key(|birth| std::cmp::Reverse((inner.cache.carrier(*birth), *birth)));
        while let Some(birth) = todo.pop() {
            let view = match inner.cache.view(birth) {
                Ok(view) => view,
                Err(e) => {
                    wrong(e)?;
                    continue;
                }
            };
            let mut found = 0_u32;
            for entry in &view.footer().entries {
                let Some(address) = view.address(entry).filter(|a| a.segment == birth && self.has(*a)) else {
                    continue;
                };
                found = found.saturating_add(1);
                if let Some(base) = entry.base
                    && base != address
                    && self.set(base, 1)
                {
                    todo.push(base.segment);
                }
            }
            if found != self.count(birth) {
                let why = format!(
                    "{} frames of segment {birth} are needed and its footer lists {found} of them",
                    self.count(birth)
                );
                wrong(Error::damaged(view.name(), "its footer", why))?;
            }
        }
        Ok(())
    }
}
