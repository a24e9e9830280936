//! What the manifest says of segments: condemned, carried, deleted.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::record::{Record, Stamped};

/// The state of all segments that garbage collection ever touched, each with the number of the record that said so.
#[derive(Debug, Default)]
pub(crate) struct SegmentTable {
    /// Births that nothing new may refer to.
    pub(crate) condemned: HashMap<SegmentId, u64>,
    /// Births that compaction moved, and the object that holds them now.
    pub(crate) carriers: HashMap<SegmentId, (SegmentId, u64)>,
    /// Objects that are gone, or going.
    pub(crate) deleted: HashSet<SegmentId>,
}

impl SegmentTable {
    /// Reads the records in order.
    pub(crate) fn of(records: &[Arc<Stamped>]) -> Self {
        let mut table = Self::default();
        for stamped in records {
            match &stamped.record {
                Record::SegmentsCondemned { segments } => {
                    for segment in segments {
                        table.condemned.entry(*segment).or_insert(stamped.number);
                    }
                }
                Record::SegmentsSpared { segments } => {
                    for segment in segments {
                        table.condemned.remove(segment);
                    }
                }
                Record::SegmentsCarried { carrier, births } => {
                    for birth in births {
                        // Only its live frames moved, so what is found there may be referred to again.
                        table.condemned.remove(birth);
                        table.carriers.insert(*birth, (*carrier, stamped.number));
                    }
                }
                Record::SegmentsDeleted { segments } => table.deleted.extend(segments.iter().copied()),
                _ => {}
            }
        }
        table
    }

    /// The object that holds a birth's frames.
    pub(crate) fn holder(&self, birth: SegmentId) -> SegmentId {
        self.carriers.get(&birth).map_or(birth, |(carrier, _)| *carrier)
    }

    /// Whether a birth's frames are gone: its object was removed, and nothing carries them.
    pub(crate) fn is_gone(&self, birth: SegmentId) -> bool {
        self.deleted.contains(&birth) && !self.carriers.contains_key(&birth)
    }

    /// Births that nothing new may refer to: condemned ones, and those that went without being carried.
    pub(crate) fn forbidden(&self) -> HashSet<SegmentId> {
        let gone = self.deleted.iter().filter(|id| self.is_gone(**id));
        self.condemned.keys().chain(gone).copied().collect()
    }
}
