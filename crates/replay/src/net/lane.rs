//! Events that are applied in the source's order, on one connection at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use holdfast_binlog::Flaw;
use holdfast_binlog::event::Header;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::rows::{FLAG_NO_FOREIGN_KEY_CHECKS, Rows};
use holdfast_binlog::tables::{TableCache, TableKey};

use crate::batch::Batch;
use crate::log::EventPlace;

/// Raw bytes after which a run of events is one transaction of ours, at the end of a
/// statement of the source.
const RUN_BYTES: usize = 1 << 20;

/// Events of one transaction of ours, and where they came from.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) events: Vec<u8>,
    pub(crate) from: EventPlace,
    pub(crate) to: EventPlace,
}

/// A lane: one table, or all that foreign keys join.
#[derive(Debug)]
pub(crate) struct Lane {
    /// Its tables, by which it is named.
    pub(crate) tables: BTreeSet<Arc<TableKey>>,
    pub(crate) runs: Vec<Run>,
    /// The flags of events stay as they are: cascades happen again.
    keep_flags: bool,
    batch: Batch,
    since: EventPlace,
}

impl Lane {
    pub(crate) fn new(keep_flags: bool) -> Self {
        Self {
            tables: BTreeSet::new(),
            runs: Vec::new(),
            keep_flags,
            batch: Batch::default(),
            since: EventPlace::default(),
        }
    }

    /// Must the TABLE_MAP events of the statement under way still be given?
    pub(crate) fn wants_maps(&self) -> bool {
        !self.batch.has_maps()
    }

    /// Takes a TABLE_MAP event, without its checksum.
    pub(crate) fn table_map(&mut self, event: &[u8]) {
        self.batch.raw_map(event);
    }

    /// Takes a row event. Gives the bytes by which memory grew.
    pub(crate) fn rows(
        &mut self,
        header: &Header,
        rows: &Rows<'_>,
        tables: &mut TableCache,
        place: &EventPlace,
        apart: bool,
    ) -> Result<usize, Flaw> {
        // Rows of other tables may come later or may have come before: only a lane that holds
        // all tables that keys join can have the server look at them.
        let flags = if self.keep_flags { rows.flags } else { rows.flags | FLAG_NO_FOREIGN_KEY_CHECKS };
        let rows = Rows { flags, ..*rows };
        if self.batch.is_empty() || self.since.file.is_empty() {
            self.since = place.clone();
        }
        let before = self.held();
        let (runs, since) = (&mut self.runs, &mut self.since);
        let mut push = |events: &[u8]| {
            let run = Run { events: events.to_vec(), from: since.clone(), to: place.clone() };
            *since = place.clone();
            runs.push(run);
            Ok(())
        };
        if apart && rows.kind.change == RowChange::Update {
            self.batch.rows_apart::<Flaw>(header, &rows, tables, &mut push)?;
        } else {
            self.batch.rows::<Flaw>(header, &rows, tables, &mut push)?;
        }
        Ok(self.held().saturating_sub(before))
    }

    /// A statement of the source ended.
    pub(crate) fn end_statement(&mut self, place: &EventPlace) -> Result<(), Flaw> {
        self.batch.end_statement();
        if self.batch.len() >= RUN_BYTES { self.finish(place) } else { Ok(()) }
    }

    /// Nothing more comes.
    pub(crate) fn finish(&mut self, place: &EventPlace) -> Result<(), Flaw> {
        let (runs, since) = (&mut self.runs, &mut self.since);
        self.batch.flush::<Flaw>(&mut |events| {
            let run = Run { events: events.to_vec(), from: since.clone(), to: place.clone() };
            *since = EventPlace::default();
            runs.push(run);
            Ok(())
        })
    }

    fn held(&self) -> usize {
        self.batch.len() + self.runs.iter().map(|run| run.events.len()).sum::<usize>()
    }
}
