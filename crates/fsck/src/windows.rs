//! The moments that restore: for each server, the stretches of log without a hole that a whole backup leads into; and
//! the holes between them.
//!
//! All of it follows from records and segments: where each backup that is wanted stands, where each segment of log
//! begins and ends, and what the check found wrong with either. Two lives of a server's log may have files of one name;
//! a backup is taken to stand in the newest life that has its place, holds what it had executed, and comes from its
//! server. A life that begins with exactly what another server's had executed at its end goes on there: no hole. Policies are no part of a repository: what should still be there is what no record took away.

use std::collections::HashMap;

use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::{BackupRecord, Coordinates, LogRecord, Position, Record, Stamped, StreamKey};

use crate::logs::place;
use crate::report::{BackupVerdict, Hole, Window};
use crate::text::time;

/// One segment of a stretch.
#[derive(Debug)]
pub(crate) struct Span<'a> {
    /// Where it begins.
    pub(crate) start: &'a Position,
    /// Its record; none while it is open.
    pub(crate) sealed: Option<&'a LogRecord>,
}

/// Segments of a stream that are right and follow each other.
#[derive(Debug)]
pub(crate) struct Stretch<'a> {
    pub(crate) stream: StreamKey,
    pub(crate) spans: Vec<Span<'a>>,
    /// Why it does not go on, if something is wrong.
    pub(crate) ends: Option<String>,
}

impl Stretch<'_> {
    /// Whether this place lies in it.
    fn holds(&self, at: &Position) -> bool {
        if at.file.is_empty() {
            let begins = self.spans.first().is_some_and(|s| s.start.gtid.is_subset(&at.gtid));
            let open = self.spans.last().is_some_and(|s| s.sealed.is_none());
            let ends = self.spans.last().and_then(|s| s.sealed);
            return begins && (open || ends.is_some_and(|r| at.gtid.is_subset(&r.gtid_after)));
        }
        self.spans.iter().any(|span| {
            let behind = span.start.file == at.file && span.start.offset <= at.offset;
            let before = span.sealed.is_none_or(|r| r.last.file != at.file || at.offset <= r.last.offset);
            behind && before && (at.gtid.is_empty() || span.start.gtid.is_subset(&at.gtid))
        })
    }

    /// Whether it goes on where `before` ends, in the log of another server that had executed the same by then.
    fn joins(&self, before: &Self) -> bool {
        let executed = before.spans.last().and_then(|s| s.sealed).map(|r| &r.gtid_after);
        let begins = self.spans.first().map(|s| &s.start.gtid).filter(|gtid| !gtid.is_empty());
        self.stream.source_uuid != before.stream.source_uuid && begins.is_some() && begins == executed
    }

    fn begin(&self) -> String {
        self.spans.first().map_or_else(|| "an unknown place".to_owned(), |s| place(s.start))
    }

    fn end(&self) -> String {
        match self.spans.last().map(|s| s.sealed) {
            Some(Some(record)) => place(&record.last),
            Some(None) => "now".to_owned(),
            None => "an unknown place".to_owned(),
        }
    }

    /// Commit time of the last transaction in a sealed segment.
    fn last_us(&self) -> Option<i64> {
        let sealed = self.spans.iter().rev().filter_map(|s| s.sealed);
        sealed.filter(|r| r.transactions > 0).map(|r| r.last_us).next()
    }
}

/// A backup that is wanted, and where it stands.
struct Base<'a> {
    record: &'a BackupRecord,
    lo: &'a Position,
    hi: &'a Position,
    whole: bool,
}

impl Base<'_> {
    /// Whether a restore from it can go on into this stretch.
    fn leads_into(&self, stretch: &Stretch<'_>) -> bool {
        let taken_from = self.record.fact("server_uuid").filter(|uuid| !uuid.is_empty());
        let other = taken_from
            .is_some_and(|uuid| !uuid.eq_ignore_ascii_case(&stretch.stream.source_uuid.to_string()));
        !other && stretch.holds(self.lo) && stretch.holds(self.hi)
    }

    fn name(&self) -> String {
        format!("backup {} ({})", self.record.id, time(self.record.started_us))
    }
}

/// What the check knows.
pub(crate) struct Windows<'a> {
    backups: Vec<&'a BackupRecord>,
    /// Where a restore has found that one stands.
    learned: HashMap<BackupId, &'a Position>,
    verdicts: &'a [BackupVerdict],
    stretches: Vec<Stretch<'a>>,
}

impl<'a> Windows<'a> {
    /// From the backups that are wanted, oldest first, what was found of them, and the stretches of all streams in
    /// their order.
    pub(crate) fn new(
        records: &'a [Stamped],
        backups: Vec<&'a BackupRecord>,
        verdicts: &'a [BackupVerdict],
        stretches: Vec<Stretch<'a>>,
    ) -> Self {
        let learned = records.iter().filter_map(|stamped| match &stamped.record {
            Record::CoordinatesLearned { backup, position } => Some((*backup, position)),
            _ => None,
        });
        Self { backups, learned: learned.collect(), verdicts, stretches }
    }

    /// Windows and holes of each server; `name` gives its name.
    pub(crate) fn find(&self, name: impl Fn(ServerId) -> String) -> (Vec<Window>, Vec<Hole>) {
        let mut servers: Vec<ServerId> = self.backups.iter().map(|b| b.server).collect();
        servers.extend(self.stretches.iter().map(|s| s.stream.server));
        servers.sort_unstable();
        servers.dedup();
        let (mut windows, mut holes) = (Vec::new(), Vec::new());
        for server in servers {
            let (some, more) = self.of_server(server, &name(server));
            windows.extend(some);
            holes.extend(more);
        }
        (windows, holes)
    }

    /// Where a backup stands, if anywhere.
    fn base<'s>(&'s self, record: &'s BackupRecord) -> Option<Base<'s>> {
        let (lo, hi) = match (self.learned.get(&record.id), &record.coordinates) {
            (Some(at), _) => (*at, *at),
            (None, Coordinates::None) => return None,
            (None, Coordinates::Exact(at)) => (at, at),
            (None, Coordinates::Between { lo, hi }) => (lo, hi),
        };
        let id = record.id.to_string();
        Some(Base { record, lo, hi, whole: self.verdicts.iter().any(|v| v.id == id && v.whole) })
    }

    fn of_server(&self, server: ServerId, name: &str) -> (Vec<Window>, Vec<Hole>) {
        let own = self.backups.iter().filter(|b| b.server == server);
        let bases: Vec<Base<'_>> = own.filter_map(|record| self.base(record)).collect();
        let mut stretches: Vec<&Stretch<'_>> =
            self.stretches.iter().filter(|s| s.stream.server == server).collect();
        // One life after the other, whichever server each is of.
        stretches.sort_by_key(|s| s.stream.incarnation);
        let hole = |from: String, to: String, why: String| Hole { server: name.to_owned(), from, to, why };
        let (mut windows, mut holes) = (Vec::<Window>::new(), Vec::new());
        // The newest stretch that holds its place: names of files come again in another life.
        let home = |base: &Base<'_>| stretches.iter().rposition(|stretch| base.leads_into(stretch));
        let homes: Vec<Option<usize>> = bases.iter().map(home).collect();
        let mut reached: Option<(String, String)> = None;
        // A window is open at the end of the stretch before.
        let mut open = false;
        for (at, stretch) in stretches.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|before| stretches.get(before));
            let joined = before.is_some_and(|before| stretch.joins(before));
            // In the order in which they were committed.
            let inside: Vec<&Base<'_>> = bases
                .iter()
                .zip(&homes)
                .filter(|(_, home)| **home == Some(at))
                .map(|(base, _)| base)
                .collect();
            let whole = inside.iter().filter(|base| base.whole).count();
            if joined {
                reached = None;
            }
            if joined
                && open
                && let Some(window) = windows.last_mut()
            {
                window.backups += whole as u64;
                window.to = stretch.end();
                window.to_time = stretch.last_us().map(time).or(window.to_time.take());
                reached = stretch.ends.clone().map(|why| (stretch.end(), why));
                continue;
            }
            let damaged: Vec<&Base<'_>> = inside.iter().copied().take_while(|base| !base.whole).collect();
            let first = inside.get(damaged.len());
            for base in &damaged {
                let to = first.map_or_else(|| stretch.end(), |f| place(f.hi));
                holes.push(hole(place(base.hi), to, format!("{} is damaged", base.name())));
            }
            let begin = first.map_or_else(|| stretch.begin(), |f| place(f.hi));
            if let Some((from, why)) = reached.take() {
                holes.push(hole(from, begin.clone(), why));
            }
            open = first.is_some();
            match first {
                Some(first) => windows.push(Window {
                    server: name.to_owned(),
                    life: stretch.stream.incarnation,
                    backup: first.record.id.to_string(),
                    backups: whole as u64,
                    from: begin,
                    from_time: time(first.record.finished_us),
                    to: stretch.end(),
                    to_time: stretch.last_us().map(time),
                }),
                None if damaged.is_empty() => {
                    holes.push(hole(
                        stretch.begin(),
                        stretch.end(),
                        "no whole backup leads into this log".to_owned(),
                    ));
                }
                None => {}
            }
            reached = stretch.ends.clone().map(|why| (stretch.end(), why));
        }
        if let Some((from, why)) = reached {
            holes.push(hole(from, "the end of the log".to_owned(), why));
        }
        if !stretches.is_empty() {
            for (base, _) in bases.iter().zip(&homes).filter(|(_, home)| home.is_none()) {
                let why = format!("the log that {} stands in is not here, or not whole", base.name());
                holes.push(hole(place(base.lo), place(base.hi), why));
            }
        }
        (windows, holes)
    }
}
