//! From a set of GTIDs to the cut before which the log has exactly its transactions.
//!
//! What a server had executed at a place is what it had when its archived log begins, and every transaction up to there. A
//! set that the log never had just like that is no moment of this server: it is refused, never rounded.

use std::ops::{ControlFlow, Range};

use holdfast_format::gtid::{Gtid, GtidSet};

use super::{Cut, Hole, several};
use crate::error::Result;
use crate::server_log::{Place, SeenFrame, ServerLog, place};

/// Longest text of a set in a refusal, in characters.
const WORDS_MAX: usize = 400;

/// A set, as one life of the log knows it.
struct Wanted<'a> {
    /// The set.
    set: &'a GtidSet,
    /// What of it must come in the log: what was not executed before. Of MariaDB the last one of each domain.
    needed: GtidSet,
    /// What was executed before the log begins and is not in the set.
    lacking: GtidSet,
}

impl<'a> Wanted<'a> {
    fn new(set: &'a GtidSet, executed: &GtidSet) -> Self {
        let (mut needed, mut lacking) = (set.clone(), executed.clone());
        match (&mut needed, executed) {
            (GtidSet::MariaDb(needed), GtidSet::MariaDb(executed)) => {
                let open = needed.iter().filter(|gtid| executed.get(gtid.domain) != Some(*gtid));
                *needed = open.fold(Default::default(), |mut open, gtid| {
                    open.set(gtid);
                    open
                });
            }
            // One log has GTIDs of one family, which was asked for before.
            (needed, executed) => {
                let _ = needed.subtract(executed);
            }
        }
        let _ = lacking.subtract(set);
        Self { set, needed, lacking }
    }

    fn is_needed(&self, gtid: &Gtid) -> bool {
        match (&self.needed, gtid) {
            (GtidSet::MariaDb(needed), Gtid::MariaDb(gtid)) => needed.get(gtid.domain) == Some(*gtid),
            (needed, gtid) => needed.contains(gtid),
        }
    }
}

/// How many transactions are named; of MariaDB, how many domains.
fn count(set: &GtidSet) -> u64 {
    match set {
        GtidSet::MySql(set) => set.count(),
        GtidSet::MariaDb(position) => position.iter().count() as u64,
    }
}

/// What a frame, and then a life, has of a set.
struct Found {
    /// What of that which is needed.
    hits: GtidSet,
    /// The place behind the last of it.
    behind: Option<Place>,
    /// The first transaction that is not in the set.
    strange: Option<Place>,
    /// Whether any transaction has a GTID.
    named: bool,
}

/// Why a life of the log never had exactly a set.
enum Not {
    /// All of it is there up to here, and more, from `strange` on.
    Alone { until: Place, strange: Place },
    /// Not all of it is there.
    Whole { missing: GtidSet, strange: Option<Place> },
    /// It is older than the log, of the other family, or not to be told by GTIDs.
    Of(String),
}

impl ServerLog<'_> {
    /// The cut behind exactly these transactions.
    pub(super) fn at_set(&self, set: &GtidSet, life: Option<u32>) -> Result<Result<Cut, Hole>> {
        let (mut exact, mut not) = (Vec::new(), None);
        for head in (0..self.streams.len()).filter(|at| self.is_head(*at)) {
            let mut of_life = self.streams.get(head..=self.last_of(head)).unwrap_or_default().iter();
            let asked = life.is_none_or(|life| of_life.any(|stream| stream.key.incarnation == life));
            if !asked || self.files_of_life(head).is_empty() {
                continue;
            }
            match self.had(head, set)? {
                Ok(place) => exact.push((head, place)),
                // The newest life that has all of it tells most; else the newest one.
                Err(why) => {
                    if matches!(why, Not::Alone { .. }) || !matches!(not, Some((_, Not::Alone { .. }))) {
                        not = Some((head, why));
                    }
                }
            }
        }
        match (exact.as_slice(), not) {
            ([(head, place)], _) => {
                let (kept, left_out) = self.around(*place, &self.files_of_life(*head))?;
                let [kept, left_out] = self.at([kept, left_out])?;
                Ok(Ok(Cut { place: *place, kept, left_out }))
            }
            ([], Some((head, why))) => self.refused(set, head, why).map(Err),
            ([], None) => Ok(Err(Hole::new("nothing is archived of what is asked for".to_owned()))),
            (exact, _) => {
                let lives: Vec<u32> =
                    exact.iter().map(|(head, place)| self.incarnation_at(*head, *place)).collect();
                Ok(Err(Hole::new(several(&format!("gtid-set:{set}"), "moments", &lives))))
            }
        }
    }

    /// The place at which the life that begins with this stream had exactly a set.
    fn had(&self, head: usize, set: &GtidSet) -> Result<Result<Place, Not>> {
        let files = self.files_of_life(head);
        let first = self.streams.iter().flat_map(|stream| &stream.files).nth(files.start);
        let Some(first) = first else { return Ok(Err(Not::Of("nothing is archived".to_owned()))) };
        let (before, begin) = (&first.gtid_before, place(files.start, first.start));
        let (ours, theirs) = (set.flavor(), before.flavor());
        if ours != theirs {
            return Ok(Err(Not::Of(format!("it is a set of {ours}, and the log is one of {theirs}"))));
        }
        let wanted = Wanted::new(set, before);
        let goal = count(&wanted.needed);
        let mut life = Found { hits: GtidSet::empty(ours), behind: None, strange: None, named: false };
        self.each_mapped(&|frame| look(frame, &files, &wanted), &mut |found: Option<Found>| {
            let Some(found) = found else { return Ok(ControlFlow::Continue(())) };
            // Of one family.
            let _ = life.hits.union(&found.hits);
            life.behind = found.behind.or(life.behind);
            life.strange = life.strange.or(found.strange);
            life.named |= found.named;
            let enough = goal > 0 && count(&life.hits) == goal;
            Ok(if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        let mut missing = wanted.needed.clone();
        let _ = missing.subtract(&life.hits);
        if !life.named && before.is_empty() {
            return Ok(Err(Not::Of("the log's transactions have no GTIDs".to_owned())));
        }
        if !wanted.lacking.is_empty() {
            let mut reason = format!(
                "it lacks {}, which was executed before the archived log begins",
                words(&wanted.lacking)
            );
            if matches!(set, GtidSet::MySql(_)) && !missing.is_empty() {
                reason.push_str(&format!(", and {} of it is not in the archive", words(&missing)));
            }
            return Ok(Err(Not::Of(reason)));
        }
        if count(&life.hits) < goal {
            return Ok(Err(Not::Whole { missing, strange: life.strange }));
        }
        let until = life.behind.unwrap_or(begin);
        if let Some(strange) = life.strange.filter(|strange| *strange < until) {
            return Ok(Err(Not::Alone { until, strange }));
        }
        Ok(match self.goes_back(set, &files, until)? {
            Some(why) => Err(Not::Of(why)),
            None => Ok(until),
        })
    }

    /// A position of MariaDB stands for all that came before only where sequence numbers rise. Whether the last one of each
    /// domain is the one that it names says so.
    fn goes_back(&self, set: &GtidSet, files: &Range<usize>, until: Place) -> Result<Option<String>> {
        let GtidSet::MariaDb(wanted) = set else { return Ok(None) };
        let last = |frame: &SeenFrame<'_>| {
            let mut last = Vec::new();
            if files.contains(&frame.file_no) {
                frame.each(&mut |seen| {
                    if let (Some(Gtid::MariaDb(gtid)), true) = (seen.entry.gtid(), seen.to <= until) {
                        last.retain(|(domain, _)| *domain != gtid.domain);
                        last.push((gtid.domain, gtid));
                    }
                    Ok(())
                })?;
            }
            Ok(last)
        };
        let mut position = wanted.clone();
        self.each_mapped(&last, &mut |frame| {
            frame.into_iter().for_each(|(_, gtid)| position.set(gtid));
            Ok(ControlFlow::Continue(()))
        })?;
        let other = position.iter().find(|gtid| wanted.get(gtid.domain) != Some(*gtid));
        Ok(other.map(|gtid| {
            format!(
                "sequence numbers go back in domain {}: {gtid} came behind what the set names",
                gtid.domain
            )
        }))
    }

    fn refused(&self, set: &GtidSet, head: usize, why: Not) -> Result<Hole> {
        let files = self.files_of_life(head);
        let last_before = |place| -> Result<_> {
            let (last, _) = self.around(place, &files)?;
            let [last] = self.at([last])?;
            Ok(last)
        };
        Ok(match why {
            Not::Of(reason) => Hole::new(reason),
            Not::Whole { missing, strange } => {
                let place = strange.or_else(|| self.end_of(self.last_of(head))).unwrap_or(Place(u64::MAX));
                let reason = format!("{} of it is not in the archive", words(&missing));
                Hole { before: last_before(place)?, ..Hole::new(reason) }
            }
            Not::Alone { until, strange } => {
                let others = self.others(set, &files, until)?;
                let reason = format!(
                    "it is no beginning of the log: where all of it is there, {} is, too, which it lacks",
                    words(&others)
                );
                // Up to the first one that it lacks the log has nothing else; behind the last one that it has, all of it.
                let (before, after) = (last_before(strange)?, last_before(until)?);
                Hole { before, after, behind: true, ..Hole::new(reason) }
            }
        })
    }

    /// What the log has up to a place and the set does not.
    fn others(&self, set: &GtidSet, files: &Range<usize>, until: Place) -> Result<GtidSet> {
        let empty = GtidSet::empty(set.flavor());
        let of_frame = |frame: &SeenFrame<'_>| {
            let mut others = empty.clone();
            if files.contains(&frame.file_no) {
                frame.each(&mut |seen| {
                    if let Some(gtid) = seen.entry.gtid().filter(|_| seen.to <= until)
                        && !set.contains(&gtid)
                    {
                        let _ = others.add(&gtid);
                    }
                    Ok(())
                })?;
            }
            Ok(others)
        };
        let mut all = empty.clone();
        self.each_mapped(&of_frame, &mut |others| {
            let _ = all.union(&others);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(all)
    }

    /// The last transaction that ends at a place of a life or before it, and the first one that does not: where they begin.
    fn around(&self, at: Place, files: &Range<usize>) -> Result<(Option<Place>, Option<Place>)> {
        let sides = |frame: &SeenFrame<'_>| {
            let (mut last, mut first) = (None, None);
            if files.contains(&frame.file_no) {
                frame.each(&mut |seen| {
                    match seen.to <= at {
                        true => last = Some(seen.from),
                        false => first = first.or(Some(seen.from)),
                    }
                    Ok(())
                })?;
            }
            Ok((last, first))
        };
        let mut found = (None, None);
        self.each_mapped(&sides, &mut |(last, first)| {
            found = (last.or(found.0), found.1.or(first));
            Ok(if found.1.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }

    /// The numbers of the files of the life that begins with this stream.
    fn files_of_life(&self, head: usize) -> Range<usize> {
        let files = |streams: usize| self.streams.iter().take(streams).map(|s| s.files.len()).sum::<usize>();
        files(head)..files(self.last_of(head) + 1)
    }

    /// The number of the stream in which a place of a life lies.
    fn incarnation_at(&self, head: usize, at: Place) -> u32 {
        let mut base = self.streams.iter().take(head).map(|stream| stream.files.len()).sum::<usize>();
        let mut number = 0;
        for stream in self.streams.get(head..=self.last_of(head)).unwrap_or_default() {
            if at >= place(base, 0) {
                number = stream.key.incarnation;
            }
            base += stream.files.len();
        }
        number
    }
}

fn look(frame: &SeenFrame<'_>, files: &Range<usize>, wanted: &Wanted<'_>) -> Result<Option<Found>> {
    if !files.contains(&frame.file_no) {
        return Ok(None);
    }
    let empty = GtidSet::empty(wanted.set.flavor());
    let mut found = Found { hits: empty, behind: None, strange: None, named: false };
    frame.each(&mut |seen| {
        let Some(gtid) = seen.entry.gtid() else { return Ok(()) };
        found.named = true;
        if wanted.is_needed(&gtid) {
            let _ = found.hits.add(&gtid);
            found.behind = Some(seen.to);
        } else if !wanted.set.contains(&gtid) {
            found.strange = found.strange.or(Some(seen.from));
        }
        Ok(())
    })?;
    Ok(Some(found))
}

/// A set in a sentence.
fn words(set: &GtidSet) -> String {
    let all = set.to_string();
    match all.char_indices().nth(WORDS_MAX) {
        Some((end, _)) => format!("{} ...", all.get(..end).unwrap_or_default()),
        None => all,
    }
}
