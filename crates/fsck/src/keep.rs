//! What a repair leaves alone, though no wanted backup's map names it. The rule is one of `format-spec/gc.md`, written a
//! second time and compared with the store's in `tests/keep.rs`.

use std::collections::HashSet;

use holdfast_format::ids::{Address, SegmentId};

use crate::index::Index;
use crate::maps::Maps;

/// The births that stay: those that are `reached`; those that a `forgotten` backup reaches; and the bases of what is in
/// any of them, however deep.
///
/// How long a forgotten backup is kept (a grace time, a lock) is for a prune to say, which has a clock and a
/// configuration; a repair takes away only what never belonged to a backup. Of a delta's base the map names the segment;
/// the base of that one is found by footers only.
pub(crate) fn kept(
    maps: &Maps<'_, '_>,
    index: &Index,
    reached: &HashSet<SegmentId>,
    forgotten: impl IntoIterator<Item = Address>,
) -> HashSet<SegmentId> {
    let mut kept = reached.clone();
    for map in forgotten {
        maps.reaches(map, &mut kept);
    }
    let mut todo: Vec<SegmentId> = kept.iter().copied().collect();
    while let Some(birth) = todo.pop() {
        todo.extend(index.bases(birth).iter().copied().filter(|base| kept.insert(*base)));
    }
    kept
}
