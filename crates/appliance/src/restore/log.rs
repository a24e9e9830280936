//! A server's archived log as the log of a restore.

use crate::find;
use holdfast_archive::{CopyFacts, Cursor, Hole, Indexed, ServerLog};
use holdfast_format::record::Position;
use holdfast_replay::{EventPlace, LogReader};
use holdfast_restore::error::Foreign;
use holdfast_restore::{Base, Border, Gap, Log, LogSize, Place, Side, Target, TransactionFacts};
use std::sync::Arc;

/// The archive of one server.
#[derive(Debug)]
pub(super) struct ArchivedLog<'s>(pub(super) ServerLog<'s>);

impl Log for ArchivedLog<'_> {
    fn place(&self, position: &Position) -> Result<Option<Place>, Foreign> {
        Ok(self.0.place_of(position)?.map(|place| Place(place.0)))
    }

    fn place_of_base(&self, position: &Position, base: &dyn Base) -> Result<Option<Place>, Foreign> {
        let facts = CopyFacts::new(base.started_us(), |key| base.fact(key));
        Ok(self.0.place_of_copy(position, &facts)?.map(|place| Place(place.0)))
    }

    fn resolve(&self, target: &Target) -> Result<Result<Border, Gap>, Foreign> {
        let wanted = match target {
            Target::Latest | Target::Fastest | Target::Backup(_) => holdfast_archive::Target::Latest,
            Target::Time(us) => holdfast_archive::Target::Time(*us),
            Target::Transaction { id, side: Side::Before } => holdfast_archive::Target::Before(id.clone()),
            Target::Transaction { id, side: Side::After } => holdfast_archive::Target::After(id.clone()),
            Target::GtidSet { set, life } => holdfast_archive::Target::Set { set: set.clone(), life: *life },
            Target::Position { file, offset, life } => {
                holdfast_archive::Target::Position { file: file.clone(), offset: *offset, life: *life }
            }
        };
        Ok(self.0.resolve(&wanted)?.map_err(gap).map(|cut| Border {
            place: Place(cut.place.0),
            last_kept: cut.kept.as_ref().map(facts),
            first_left_out: cut.left_out.as_ref().map(facts),
        }))
    }

    fn gap(&self, from: Place, until: Place) -> Result<Option<Gap>, Foreign> {
        Ok(self.0.gap(archived(from), archived(until))?.map(gap))
    }

    fn size(&self, from: Place, until: Place) -> Result<LogSize, Foreign> {
        let size = self.0.size(archived(from), archived(until))?;
        Ok(LogSize { transactions: size.transactions, bytes: size.bytes })
    }

    fn position_at(&self, place: Place) -> Result<Option<(String, u64)>, Foreign> {
        Ok(self.0.position_at(archived(place)))
    }

    fn read(&self, from: Place, until: Place) -> Result<Box<dyn LogReader + '_>, Foreign> {
        Ok(Box::new(Events { cursor: self.0.read(archived(from), archived(until))?, file: "".into() }))
    }
}

fn archived(place: Place) -> holdfast_archive::Place {
    holdfast_archive::Place(place.0)
}

/// The archive's cursor as replay reads it.
struct Events<'s> {
    cursor: Cursor<'s>,
    file: Arc<str>,
}

impl LogReader for Events<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, Foreign> {
        let Some(at) = self.cursor.next(event)? else { return Ok(None) };
        if *self.file != *at.file {
            self.file = at.file.into();
        }
        Ok(Some(EventPlace { file: Arc::clone(&self.file), position: at.offset }))
    }
}

fn facts(indexed: &Indexed) -> TransactionFacts {
    let view = find::view(indexed);
    TransactionFacts {
        gtid: indexed.entry.gtid.as_ref().map(ToString::to_string),
        position: view.position,
        committed_us: Some(view.at),
        summary: summary(view.statement, &view.tables),
    }
}

/// The statement, or the rows by table, in one line.
fn summary(statement: Option<String>, tables: &[crate::views::TableView]) -> String {
    const WORDS_MAX: usize = 100;
    if let Some(text) = statement {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        return match line.char_indices().nth(WORDS_MAX) {
            Some((end, _)) => format!("{} ...", line.get(..end).unwrap_or_default()),
            None => line,
        };
    }
    let changes: Vec<String> =
        tables.iter().map(|t| format!("{} +{} ~{} -{}", t.table, t.inserted, t.updated, t.deleted)).collect();
    changes.join(", ")
}

fn gap(hole: Hole) -> Gap {
    let behind = if hole.behind { Side::After } else { Side::Before };
    Gap {
        reason: hole.reason,
        before: hole.before.map(|t| Target::Transaction { id: t.id(), side: Side::After }),
        after: hole.after.map(|t| Target::Transaction { id: t.id(), side: behind }),
    }
}
