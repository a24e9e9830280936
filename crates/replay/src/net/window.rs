//! A stretch of the log that is applied as one: the net change of its tables, and lanes.

use std::collections::BTreeSet;
use std::sync::Arc;

use foldhash::HashMap;
use holdfast_binlog::event::{Event, Header};
use holdfast_binlog::rows::{FLAG_STMT_END, Rows};
use holdfast_binlog::tables::{TableCache, TableKey};
use holdfast_binlog::{Flaw, encode};

use super::beside::{Beside, Halt};
use super::lane::Lane;
use super::merge::{Merge, Stop};
use crate::log::EventPlace;

/// What a table's rows go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Merge(usize),
    /// The lane's number; the rows of an update are given one by one.
    Lane(usize, bool),
}

/// The stretch.
#[derive(Debug, Default)]
pub(crate) struct Window {
    pub(super) merges: Beside,
    /// Those of a finished window.
    pub(super) merged: Vec<Merge>,
    pub(crate) lanes: Vec<Lane>,
    /// The session that computed columns were written in.
    pub(crate) session: Option<String>,
    ways: HashMap<Arc<TableKey>, Way>,
    /// Lanes by the first of their tables.
    lane_names: HashMap<TableKey, usize>,
    /// TABLE_MAP events of the statement under way.
    maps: Vec<(Arc<TableKey>, Vec<u8>)>,
    /// Lanes with rows of the statement under way.
    open: BTreeSet<usize>,
    /// Memory that lanes take.
    lane_bytes: usize,
    /// Rows in the lanes.
    lane_rows: u64,
    /// Emptied buffers of `maps`.
    spare: Vec<Vec<u8>>,
    scratch: Vec<u8>,
}

impl Window {
    /// Has nothing been taken?
    pub(crate) fn is_empty(&self) -> bool {
        self.merges.is_empty() && self.lanes.is_empty()
    }

    /// Memory that it takes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.merges.bytes() + self.lane_bytes
    }

    /// Rows that its lanes hold: all of the log's.
    pub(crate) fn lane_rows(&self) -> u64 {
        self.lane_rows
    }

    /// Does what it takes in make it grow, by two rows for three of the log at least? Then little is lost where it ends:
    /// what comes behind seldom changes its rows again.
    pub(crate) fn grows(&self) -> bool {
        let (merged, net) = self.merges.rows();
        (net + self.lane_rows) * 3 >= (merged + self.lane_rows) * 2
    }

    /// A new window behind this one: the statement under way goes on.
    pub(crate) fn next(&mut self) -> Self {
        Self { maps: self.maps.clone(), ..Self::default() }
    }

    /// Takes note of a TABLE_MAP event.
    pub(crate) fn table_map(&mut self, event: &Event<'_>, key: &Arc<TableKey>) -> Result<(), Flaw> {
        let mut bytes = self.spare.pop().unwrap_or_default();
        encode::stripped(event, &mut bytes)?;
        self.maps.push((Arc::clone(key), bytes));
        Ok(())
    }

    /// The tables of the statement under way of which nobody decided where their rows go.
    pub(crate) fn undecided(&self) -> Vec<Arc<TableKey>> {
        let undecided = self.maps.iter().filter(|(key, _)| !self.ways.contains_key(key));
        undecided.map(|(key, _)| Arc::clone(key)).collect()
    }

    /// Where the rows of a table go, if that was decided.
    pub(crate) fn way(&self, key: &TableKey) -> Option<Way> {
        self.ways.get(key).copied()
    }

    /// Lets a table's rows be merged.
    pub(crate) fn add_merge(&mut self, merge: Merge) -> Way {
        let table = Arc::clone(&merge.table);
        let way = Way::Merge(self.merges.add(merge));
        self.ways.insert(table, way);
        way
    }

    /// Lets a table's rows go to the lane named `lane`.
    pub(crate) fn add_to_lane(
        &mut self,
        key: &Arc<TableKey>,
        lane: &TableKey,
        keep_flags: bool,
        apart: bool,
    ) -> Way {
        let at = *self.lane_names.entry(lane.clone()).or_insert_with(|| {
            self.lanes.push(Lane::new(keep_flags));
            self.lanes.len() - 1
        });
        if let Some(lane) = self.lanes.get_mut(at) {
            lane.tables.insert(Arc::clone(key));
        }
        let way = Way::Lane(at, apart);
        self.ways.insert(Arc::clone(key), way);
        way
    }

    /// Takes a row event.
    ///
    /// # Errors
    /// It could not be taken, or one before it.
    pub(crate) fn rows(
        &mut self,
        (table, way): (&Arc<TableKey>, Way),
        header: &Header,
        rows: &Rows<'_>,
        tables: &mut TableCache,
        place: &EventPlace,
    ) -> Result<(), Halt> {
        let halt =
            |flaw| Halt { stop: Stop::Flaw(flaw), tables: vec![Arc::clone(table)], place: place.clone() };
        let (_, plan) = tables.plan(rows).map_err(halt)?;
        match way {
            Way::Merge(at) => self.merges.take(at, rows, &plan, place)?,
            Way::Lane(at, apart) => {
                let inflated = rows.inflated(&mut self.scratch).map_err(halt)?;
                self.lane_rows += plan.rows(inflated.data).count() as u64;
                let ways = &self.ways;
                let Some(lane) = self.lanes.get_mut(at) else { return Ok(()) };
                if lane.wants_maps() {
                    for (key, map) in &self.maps {
                        if matches!(ways.get(key), Some(Way::Lane(lane, _)) if *lane == at) {
                            lane.table_map(map);
                        }
                    }
                }
                self.lane_bytes += lane.rows(header, rows, tables, place, apart).map_err(halt)?;
                self.open.insert(at);
            }
        }
        Ok(())
    }

    /// A row event that ends its statement was taken (or has no rows).
    pub(crate) fn end_of(&mut self, flags: u16, place: &EventPlace) -> Result<(), Flaw> {
        if flags & FLAG_STMT_END == 0 {
            return Ok(());
        }
        for (_, mut bytes) in self.maps.drain(..) {
            bytes.clear();
            self.spare.push(bytes);
        }
        for at in std::mem::take(&mut self.open) {
            if let Some(lane) = self.lanes.get_mut(at) {
                lane.end_statement(place)?;
            }
        }
        Ok(())
    }

    /// Nothing more comes.
    ///
    /// # Errors
    /// Rows could not be taken.
    pub(crate) fn finish(&mut self, place: &EventPlace) -> Result<(), Halt> {
        for lane in &mut self.lanes {
            lane.finish(place).map_err(|flaw| Halt {
                stop: Stop::Flaw(flaw),
                tables: lane.tables.iter().cloned().collect(),
                place: place.clone(),
            })?;
        }
        self.merged = self.merges.finish()?;
        Ok(())
    }
}
