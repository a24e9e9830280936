//! Whether a replica's copy stands in the archived log of the server, so that restores go on from it.

use super::NoCopy;
use crate::archive::{archive_error, drain};
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::progress::Watcher;
use holdfast_archive::{CopyFacts, ServerLog};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{Coordinates, Position, ServerRecord};
use std::time::{Duration, Instant};

/// How long a running archive is waited for before a copy. What it does not tell by then is found out after the copy.
const BEFORE_MAX: Duration = Duration::from_secs(15);

/// How long an archive that brings nothing more is waited for after a copy, which may have taken hours.
const STILL_MAX: Duration = Duration::from_secs(5 * 60);

/// First and longest time between two looks at a running archive.
const LOOK: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// The log that a replica's copy has to stand in.
pub(crate) struct Joint<'a> {
    pub(crate) catalogue: &'a Catalogue,
    pub(crate) server: &'a ServerRecord,
    /// The life of the log, as it was before the copy.
    pub(crate) facts: CopyFacts,
    /// File and offset at which the server's log ended before the copy, and after the replica was asked what it holds.
    pub(crate) end: (String, u64),
}

impl Joint<'_> {
    /// Before the copy: whether the archive leads on from what the replica had executed, as far as that can be told without
    /// a long wait. A hole, or a log that begins later, would throw the copy away at its end.
    pub(crate) fn is_possible(
        &self,
        lo: &Position,
        watcher: &dyn Watcher,
    ) -> std::result::Result<(), NoCopy> {
        let told = self.come_up(lo, &self.end, (BEFORE_MAX, Wait::InAll), watcher)?;
        if told { self.stands(lo, lo) } else { Ok(()) }
    }

    /// After the copy: brings the archive up to it, and makes sure that it stands there. Both bounds have a place, there is no
    /// hole behind the first one, and every transaction there has a GTID, by which the copy tells what it holds.
    pub(crate) fn holds(
        &self,
        coordinates: &Coordinates,
        end: &(String, u64),
        watcher: &dyn Watcher,
    ) -> std::result::Result<(), NoCopy> {
        let Coordinates::Between { lo, hi } = coordinates else {
            return Err(NoCopy::OfThisOne(Error::failed("Where the copy stands is not known.")));
        };
        if self.come_up(hi, end, (STILL_MAX, Wait::WhileStill), watcher)? {
            return self.stands(lo, hi);
        }
        Err(NoCopy::OfThisOne(Error::failed(format!(
            "The running archive of '{}' did not come up to the copy: it brought nothing for {} s.",
            self.server.name,
            STILL_MAX.as_secs()
        ))))
    }

    /// Brings the archive up to the place of a copy, or to where the log ended when it was asked, whatever comes first. A log
    /// that another process follows is waited for. False if it did not come up in time.
    fn come_up(
        &self,
        wanted: &Position,
        (file, offset): &(String, u64),
        (max, wait): (Duration, Wait),
        watcher: &dyn Watcher,
    ) -> std::result::Result<bool, NoCopy> {
        let gtid = GtidSet::empty(self.server.flavor.unwrap_or(Flavor::MySql));
        let end = Position { file: file.clone(), offset: *offset, gtid };
        let (mut since, mut before, mut pause, mut told) = (Instant::now(), None, LOOK.0, false);
        loop {
            match drain(self.catalogue, self.server, watcher) {
                Ok(_) => return Ok(true),
                Err(error) if error.code == Code::Locked => {}
                // What the server's log does not give now, it gives to no other copy of a replica either.
                Err(error) => return Err(NoCopy::of_this_one(error)),
            }
            let log = self.log()?;
            let place = |at| log.place_of_copy(at, &self.facts).map_err(|e| self.told(e));
            if place(wanted)?.is_some() || log.place_of(&end).map_err(|e| self.told(e))?.is_some() {
                return Ok(true);
            }
            let now = log.end();
            if wait == Wait::WhileStill && now != before {
                (since, before) = (Instant::now(), now);
            }
            if since.elapsed() > max {
                return Ok(false);
            }
            if watcher.cancelled() {
                return Err(NoCopy::OfAny(stopped(self.server)));
            }
            if pause == LOOK.1 && !std::mem::replace(&mut told, true) {
                watcher.note(&format!(
                    "waiting until the running archive of '{}' comes up to the copy",
                    self.server.name
                ));
            }
            std::thread::sleep(pause);
            pause = (pause * 2).min(LOOK.1);
        }
    }

    fn stands(&self, lo: &Position, hi: &Position) -> std::result::Result<(), NoCopy> {
        let log = self.log()?;
        let place = |at| log.place_of_copy(at, &self.facts).map_err(|e| self.told(e));
        let refused = |why: String| Err(NoCopy::OfThisOne(Error::failed(why)));
        let (Some(from), Some(_), Some(end)) = (place(lo)?, place(hi)?, log.end()) else {
            return refused(format!(
                "The archived log of '{}' holds no place up to which exactly those transactions came that the replica had \
                 executed: it begins later, or has them in another order.",
                self.server.name
            ));
        };
        if let Some(hole) = log.gap(from, end).map_err(|e| self.told(e))? {
            return refused(format!("The log has a hole behind the copy: {}", sentence(&hole.reason)));
        }
        match log.anonymous_behind(from).map_err(|e| self.told(e))? {
            Some(at) => refused(format!(
                "The transaction at {at} has no GTID, so nothing tells whether the copy holds it."
            )),
            None => Ok(()),
        }
    }

    fn log(&self) -> Result<ServerLog<'_>> {
        ServerLog::open(&self.catalogue.repository, self.server.id).map_err(|e| self.told(e))
    }

    fn told(&self, error: holdfast_archive::Error) -> Error {
        archive_error(self.catalogue, self.server, error)
    }
}

/// How a running archive is waited for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wait {
    /// This long.
    InAll,
    /// This long since it last came on.
    WhileStill,
}

/// The user wished it to stop.
pub(super) fn stopped(server: &ServerRecord) -> Error {
    Error::new(Code::Interrupted, format!("The backup of '{}' was stopped.", server.name))
        .with_next("nothing is listed of it; run it again")
}
