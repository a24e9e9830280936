//! From what a user names to an exact cut between two transactions, or to the hole in which it lies.

use std::ops::ControlFlow;

use holdfast_format::gtid::{Gtid, GtidSet};

use super::{FileSpan, Place, Seen, SeenFrame, ServerLog, place};
use crate::error::Result;
use crate::index::Indexed;

mod set;

/// What a restore can be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// The last transaction.
    Latest,
    /// Every transaction before the first one that was committed after this time, microseconds since the Unix epoch.
    Time(i64),
    /// Up to a transaction, without it. Its GTID, or an id that `find` gave.
    Before(String),
    /// Up to a transaction, with it.
    After(String),
    /// Every transaction that ends at this offset of the source's file or before.
    Position {
        /// The file.
        file: String,
        /// The offset.
        offset: u64,
        /// In this life of the log; needed where several have such a place.
        life: Option<u32>,
    },
    /// Where exactly these transactions were executed, those before the log begins included.
    Set {
        /// They.
        set: GtidSet,
        /// In this life of the log; needed where several had just these.
        life: Option<u32>,
    },
}

/// A cut between two transactions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// The first byte left out.
    pub place: Place,
    /// The last transaction kept.
    pub kept: Option<Indexed>,
    /// The first transaction left out.
    pub left_out: Option<Indexed>,
}

/// There is no such cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hole {
    /// Why, as a sentence.
    pub reason: String,
    /// The last transaction before it.
    pub before: Option<Indexed>,
    /// The first transaction after it.
    pub after: Option<Indexed>,
    /// The nearest point is behind that transaction, not before it.
    pub behind: bool,
}

impl Hole {
    /// One without points near it.
    pub(crate) fn new(reason: String) -> Self {
        Self { reason, before: None, after: None, behind: false }
    }
}

impl ServerLog<'_> {
    /// The cut that a target means, or why there is none.
    pub fn resolve(&self, target: &Target) -> Result<Result<Cut, Hole>> {
        match target {
            Target::Latest => self.latest(),
            Target::Time(us) => self.at_time(*us),
            Target::Before(id) => self.at_transaction(id, false),
            Target::After(id) => self.at_transaction(id, true),
            Target::Position { file, offset, life } => self.at_position(file, *offset, *life),
            Target::Set { set, life } => self.at_set(set, *life),
        }
    }

    fn latest(&self) -> Result<Result<Cut, Hole>> {
        let Some(end) = self.end() else { return Ok(Err(nothing())) };
        let kept = self.last_before(end)?;
        Ok(Ok(Cut { place: end, kept, left_out: None }))
    }

    /// The transactions up to the first one with a later commit time. Behind the last one of a life, the archive's
    /// notes say up to when that is all there was.
    fn at_time(&self, us: i64) -> Result<Result<Cut, Hole>> {
        // The last one kept, from and to, and the first one left out.
        let mut last: Option<(Place, Place)> = None;
        let mut first: Option<Place> = None;
        let in_frame = |frame: &SeenFrame<'_>| {
            let (mut last, mut first) = (None, None);
            frame.each(&mut |seen| {
                if first.is_none() {
                    if seen.entry.commit_us > us {
                        first = Some(seen.from);
                    } else {
                        last = Some((seen.from, seen.to));
                    }
                }
                Ok(())
            })?;
            Ok((last, first))
        };
        self.each_mapped(&in_frame, &mut |(kept, left_out)| {
            last = kept.or(last);
            first = left_out;
            Ok(if first.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let [kept, left_out] = self.at([last.map(|(from, _)| from), first])?;
        let kept_in = last.map(|(_, to)| self.life_at(to));
        let left_in = first.map(|from| self.life_at(from));
        let end = left_in.unwrap_or(self.streams.len().saturating_sub(1));
        let mut place = None;
        for at in (kept_in.unwrap_or(0)..=end).rev().filter(|at| self.is_head(*at)) {
            let begun = kept_in == Some(at) || self.begins_us(at)?.is_some_and(|begin| us >= begin);
            let goes_on = left_in == Some(at) || self.complete_us(at)?.is_some_and(|complete| us <= complete);
            if begun && goes_on {
                place = match first {
                    Some(from) if left_in == Some(at) => Some(from),
                    _ => self.end_of(self.last_of(at)),
                };
                break;
            }
        }
        let between = kept_in.zip(left_in).filter(|(kept, left)| kept != left);
        if let Some(place) = place {
            return Ok(Ok(Cut { place, kept, left_out }));
        }
        let reason = match (between, &kept, &left_out) {
            (Some((at, _)), ..) => self.break_reason(self.last_of(at)),
            (None, Some(_), _) => {
                "nothing is known of the time after the last transaction; `--to latest` takes that one"
                    .to_owned()
            }
            (None, None, Some(_)) => "the log begins later".to_owned(),
            (None, None, None) => "no transaction is archived".to_owned(),
        };
        Ok(Err(Hole { before: kept, after: left_out, ..Hole::new(reason) }))
    }

    fn at_transaction(&self, id: &str, with: bool) -> Result<Result<Cut, Hole>> {
        let (wanted, life) = match parse_id(id) {
            Some(parsed) => parsed,
            None => {
                let reason = format!("{id} is neither a GTID nor an id that `holdfast find` gives");
                return Ok(Err(Hole::new(reason)));
            }
        };
        let (mut before, mut after) = (None, None);
        let mut found: Option<(Place, Place, Indexed)> = None;
        let mut lives = Vec::new();
        self.each(&mut |seen| {
            let here = life.is_none_or(|life| seen.life().unwrap_or_default() == life) && wanted.is(seen);
            lives.extend(seen.life().filter(|_| here));
            if found.is_some() {
                after.get_or_insert(seen.from);
            } else if here {
                found = Some((seen.from, seen.to, seen.indexed()));
            } else {
                before = Some(seen.from);
            }
            Ok(())
        })?;
        let Some((from, to, indexed)) = found else {
            let reason = format!("the transaction {id} is not archived");
            return Ok(Err(Hole::new(reason)));
        };
        if lives.len() > 1 {
            return Ok(Err(Hole::new(several(id, "transactions", &lives))));
        }
        let [before, after] = self.at([before, after])?;
        Ok(Ok(if with {
            Cut { place: to, kept: Some(indexed), left_out: after }
        } else {
            Cut { place: from, kept: before, left_out: Some(indexed) }
        }))
    }

    fn at_position(&self, file: &str, offset: u64, life: Option<u32>) -> Result<Result<Cut, Hole>> {
        let mut lives: Vec<(u32, Place)> = Vec::new();
        let mut base = 0;
        for stream in &self.streams {
            let inside = |span: &FileSpan| span.name == file && (span.start..=span.end).contains(&offset);
            let wanted = life.is_none_or(|life| stream.key.incarnation == life);
            if let (true, Some(at)) = (wanted, stream.files.iter().position(inside)) {
                lives.push((stream.key.incarnation, place(base + at, offset)));
            }
            base += stream.files.len();
        }
        let name = format!("pos:{file}:{offset}");
        let limit = match lives.as_slice() {
            [] => {
                let reason = format!("{file}:{offset} is not archived");
                return Ok(Err(Hole { before: self.last_before(Place(u64::MAX))?, ..Hole::new(reason) }));
            }
            [(_, limit)] => *limit,
            _ => {
                let lives: Vec<u32> = lives.iter().map(|(life, _)| *life).collect();
                return Ok(Err(Hole::new(several(&name, "places", &lives))));
            }
        };
        let (mut last, mut first) = (None, None);
        self.each(&mut |seen| {
            if seen.to <= limit {
                last = Some(seen.from);
            } else {
                first.get_or_insert(seen.from);
            }
            Ok(())
        })?;
        // Between two transactions the position itself is the cut; inside one, its start.
        let place = first.map_or(limit, |from: Place| from.min(limit));
        let [kept, left_out] = self.at([last, first])?;
        Ok(Ok(Cut { place, kept, left_out }))
    }
}

fn nothing() -> Hole {
    Hole::new("nothing is archived; run `holdfast archive`".to_owned())
}

enum Wanted {
    Gtid(Gtid),
    At(String, u64),
}

impl Wanted {
    fn is(&self, seen: &Seen<'_>) -> bool {
        match self {
            Self::Gtid(gtid) => seen.entry.gtid_is(gtid),
            Self::At(file, offset) => seen.file() == file && seen.entry.start == *offset,
        }
    }
}

/// Behind an id, `@` and a number say in which life of the log it is meant.
fn parse_id(id: &str) -> Option<(Wanted, Option<u32>)> {
    let (id, life) = match id.rsplit_once('@') {
        Some((id, life)) if !life.is_empty() && life.bytes().all(|b| b.is_ascii_digit()) => {
            (id, Some(life.parse().ok()?))
        }
        _ => (id, None),
    };
    Some((parse_plain(id)?, life))
}

fn parse_plain(id: &str) -> Option<Wanted> {
    if let Some(place) = id.strip_prefix("pos:") {
        let (file, offset) = place.rsplit_once(':')?;
        return Some(Wanted::At(file.to_owned(), offset.parse().ok()?));
    }
    id.strip_prefix("gtid:").unwrap_or(id).parse().ok().map(Wanted::Gtid)
}

fn several(id: &str, what: &str, lives: &[u32]) -> String {
    let ids: Vec<String> = lives.iter().map(|life| format!("{id}@{life}")).collect();
    format!(
        "{id} names several {what}, since the server was reset between them; say which: {}",
        ids.join(" or ")
    )
}
