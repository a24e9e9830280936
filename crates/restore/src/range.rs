//! The stretch of log that is replayed, read as everybody behind it must see it.
//!
//! What a base holds already is left out: by GTIDs where transactions have them, by position
//! where they have none. A clone knows two bounds when it is taken, and its first start tells the
//! point between them (`recovered.rs`). While a server's `gtid_mode` is one of the permissive ones,
//! both kinds of transactions lie within the bounds, so both rules are needed at once: whoever asks
//! GTIDs alone replays the anonymous ones before that point a second time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use holdfast_binlog::kind::EventType;
use holdfast_format::gtid::GtidSet;
use holdfast_format::record::{Coordinates, Position};
use holdfast_replay::{EventPlace, LogReader};

use crate::error::{Error, Foreign, Result};
use crate::plan::{coordinates_words, words};
use crate::recovered::{Held, order};
use crate::scope::Scope;
use crate::scope::filter::{self, Seen};
use crate::seam::{Base, Log, Place};

/// Offset of the type within an event's header.
const TYPE_OFFSET: usize = 4;

/// A range of an archived log, as replay and proof want it.
pub struct RangeLog<'l> {
    log: &'l dyn Log,
    from: Place,
    until: Place,
    held: Option<Bracket>,
    /// Anonymous transactions that the last complete reading left out.
    left_out: AtomicU64,
    /// Tables that alone are replayed; all where none are named.
    scope: Option<Arc<Scope>>,
    /// What the base holds.
    base_gtids: Option<GtidSet>,
    /// GTIDs of base and log, as the last complete reading for some tables saw them.
    seen: Mutex<Option<Seen>>,
}

/// Where anonymous transactions are told by their position.
#[derive(Debug, Clone)]
struct Bracket {
    /// Before this one they are in the base.
    exact: Option<Position>,
    /// From here on nothing is left out any more.
    hi: Position,
    /// Engine commits came in the order of the log, so that one position tells.
    ordered: bool,
}

impl<'l> RangeLog<'l> {
    /// The log behind `base`, whose record had these `coordinates` and which was found to stand at `held`, up to
    /// `until`. It begins at the same place however often it is made: what counts from there stays right.
    pub fn new(
        log: &'l dyn Log,
        until: Place,
        coordinates: &Coordinates,
        held: &Held,
        base: &dyn Base,
    ) -> Result<Self> {
        let ordered = Self::position_tells(base);
        let told = held.executed.is_some() && gtids_tell(coordinates);
        let lower = match coordinates {
            Coordinates::Exact(at) => Some(at),
            Coordinates::Between { lo, .. } => Some(lo),
            Coordinates::None => None,
        };
        // Where no GTIDs tell, the exact position is the only way to leave out what the base holds.
        let exact = held.exact.as_ref().filter(|_| !told && ordered);
        let place = match exact.or(lower) {
            Some(from) => log.place_of_base(from, base).map_err(Error::Log)?,
            None => None,
        };
        let from = place.ok_or_else(|| Error::WrongCoordinates {
            recovered: held.exact.as_ref().map_or_else(String::new, words),
            expected: coordinates_words(coordinates),
        })?;
        let base_gtids = held.executed.clone();
        let held = match coordinates {
            Coordinates::Between { lo, hi } if lo != hi && (told || !ordered) => {
                let exact = held.exact.clone().filter(|exact| !exact.file.is_empty());
                Some(Bracket { exact, hi: hi.clone(), ordered })
            }
            _ => None,
        };
        let (left_out, seen) = (AtomicU64::new(0), Mutex::new(None));
        Ok(Self { log, from, until, held, left_out, scope: None, base_gtids, seen })
    }

    /// The same, with what these tables need and nothing else.
    #[must_use]
    pub(crate) fn for_tables(self, scope: Option<Arc<Scope>>) -> Self {
        Self { scope, ..self }
    }

    /// GTIDs of base and log where only some tables are replayed, once the log was read to its end.
    pub(crate) fn seen(&self) -> Option<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Every event behind the base.
    fn all(&self) -> std::result::Result<Box<dyn LogReader + '_>, Foreign> {
        let inner = self.log.read(self.from, self.until)?;
        let Some(bracket) = &self.held else { return Ok(inner) };
        Ok(Box::new(Reader { inner, range: self, bracket, inside: true, skipping: false, skipped: 0 }))
    }

    /// May the recovered position stand for the base from now on? Not where commits overtake each other.
    pub fn position_tells(base: &dyn Base) -> bool {
        base.fact("binlog_order_commits") != Some("OFF")
    }

    /// Anonymous transactions that the base holds, as the last complete reading counted them.
    pub fn left_out(&self) -> u64 {
        self.left_out.load(Ordering::Relaxed)
    }
}

impl holdfast_replay::Log for RangeLog<'_> {
    fn read(&self) -> std::result::Result<Box<dyn LogReader + '_>, Foreign> {
        let inner = self.all()?;
        let Some(scope) = &self.scope else { return Ok(inner) };
        let base = self.base_gtids.clone().map(Seen::of_base);
        Ok(Box::new(filter::Reader::new(inner, scope, &self.seen, base)))
    }
}

struct Reader<'r> {
    inner: Box<dyn LogReader + 'r>,
    range: &'r RangeLog<'r>,
    bracket: &'r Bracket,
    /// Still before the upper bound. Once behind it always behind it: another life of the server
    /// counts its files from 1 again.
    inside: bool,
    /// Within a transaction that is left out.
    skipping: bool,
    skipped: u64,
}

impl LogReader for Reader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> std::result::Result<Option<EventPlace>, Foreign> {
        loop {
            let Some(place) = self.inner.next(event)? else {
                self.range.left_out.store(self.skipped, Ordering::Relaxed);
                return Ok(None);
            };
            let kind = event.get(TYPE_OFFSET).map(|byte| EventType(*byte));
            match kind {
                Some(EventType::ANONYMOUS_GTID) => self.skipping = self.inside && self.held(&place)?,
                Some(EventType::GTID | EventType::GTID_TAGGED) => self.skipping = false,
                // Between transactions, and needed whatever is left out.
                Some(EventType::FORMAT_DESCRIPTION | EventType::ROTATE | EventType::STOP) => {
                    self.skipping = false;
                }
                _ => {}
            }
            if !self.skipping {
                return Ok(Some(place));
            }
            if kind == Some(EventType::ANONYMOUS_GTID) {
                self.skipped += 1;
            }
        }
    }
}

impl Reader<'_> {
    /// Does the base hold the anonymous transaction that begins at `place`?
    fn held(&mut self, place: &EventPlace) -> std::result::Result<bool, Foreign> {
        let at = Position {
            file: place.file.to_string(),
            offset: place.position,
            gtid: holdfast_format::gtid::GtidSet::empty(holdfast_format::gtid::Flavor::MySql),
        };
        if order(&at) >= order(&self.bracket.hi) {
            self.inside = false;
            return Ok(false);
        }
        match &self.bracket.exact {
            Some(exact) if self.bracket.ordered => Ok(order(&at) < order(exact)),
            _ => Err(Box::new(Unplaced { place: place.to_string(), ordered: self.bracket.ordered })),
        }
    }
}

/// A transaction of which nothing tells whether the base holds it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "the transaction at {place} has no GTID and was committed while the backup was taken, and nothing tells whether \
     the backup holds it: {}. Restore from another backup, and let the source step gtid_mode to ON before the next one",
    if *ordered {
        "its recovery reports no position"
    } else {
        "binlog_order_commits is OFF on the source, so that a position does not"
    }
)]
pub struct Unplaced {
    /// Where it begins.
    pub place: String,
    /// Engine commits came in the order of the log.
    pub ordered: bool,
}

/// Do GTIDs tell what of the log a base holds? Not if none came while it was copied: what was committed meanwhile has
/// none then, as on a server that had GTIDs once and has them no more.
fn gtids_tell(coordinates: &Coordinates) -> bool {
    match coordinates {
        Coordinates::Between { lo, hi } => lo.gtid != hi.gtid,
        Coordinates::Exact(_) | Coordinates::None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::gtid::{Flavor, GtidSet};

    #[test]
    fn transactions_without_gtids_are_left_out_by_position_though_the_server_had_gtids_once() {
        let at = |offset, gtids: &str| {
            let gtid = GtidSet::parse(Flavor::MySql, gtids).unwrap();
            Position { file: "binlog.000005".to_owned(), offset, gtid }
        };
        let old = "c2a24e2b-e585-11f1-92a0-02fc00000001:1-2";
        let new = "c2a24e2b-e585-11f1-92a0-02fc00000001:1-9";
        assert!(!gtids_tell(&Coordinates::Between { lo: at(34886, old), hi: at(42745, old) }));
        assert!(gtids_tell(&Coordinates::Between { lo: at(34886, old), hi: at(42745, new) }));
    }
}
