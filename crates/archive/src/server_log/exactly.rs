//! Where the copy of a replica stands in its source's log.
//!
//! A replica numbers its own files, so a position in them is none in the log of its source. What both tell alike are
//! GTIDs: the copy stands where exactly those transactions come before that it holds. A set that is the beginning of no
//! life of the log, because the replica had some of its own, lacked some, or committed them in another order, stands nowhere.

use std::ops::ControlFlow;

use holdfast_format::gtid::GtidSet;
use holdfast_format::record::StreamKey;

use super::{Place, ServerLog, StreamLog, place};
use crate::error::Result;
use crate::index::each_frame_behind;

impl ServerLog<'_> {
    /// The place before which the lives that `may_be` names hold exactly `set`; the newest life counts. `None` where the
    /// log does not reach it, or another transaction comes in between.
    pub(super) fn place_up_to(
        &self,
        set: &GtidSet,
        may_be: &dyn Fn(&StreamKey) -> bool,
    ) -> Result<Option<Place>> {
        let mut base: usize = self.streams.iter().map(|stream| stream.files.len()).sum();
        for stream in self.streams.iter().rev() {
            base -= stream.files.len();
            if may_be(&stream.key)
                && let Some(place) = self.up_to_in(stream, base, set)?
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }

    fn up_to_in(&self, stream: &StreamLog, base: usize, set: &GtidSet) -> Result<Option<Place>> {
        let stretches = self.store.stretches(&stream.key)?;
        // Each stretch knows what was executed before it, so one of them is read, and not the whole index.
        let Some(at) = stretches.iter().rposition(|stretch| stretch.start.gtid.is_subset(set)) else {
            return Ok(None);
        };
        let Some(start) = stretches.get(at).map(|stretch| &stretch.start) else { return Ok(None) };
        let numbers = stream.numbers(base);
        let mut found = numbers.get(start.file.as_str()).map(|number| place(*number, start.offset));
        let mut before = start.gtid.clone();
        let mut behind = false;
        each_frame_behind(self.store, &stream.key, at, &mut |frame| {
            if let Some(seen) = stream.seen(frame, false, &numbers) {
                seen.each(&mut |seen| {
                    let gtid = seen.entry.gtid().filter(|gtid| !behind && set.contains(gtid));
                    match gtid.is_some_and(|gtid| before.add(&gtid).is_ok()) {
                        true => found = Some(seen.to),
                        false => behind = true,
                    }
                    Ok(())
                })?;
            }
            Ok(if behind { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found.filter(|_| before == *set))
    }

    /// The first transaction without a GTID behind a place, as its file and offset.
    pub fn anonymous_behind(&self, place: Place) -> Result<Option<String>> {
        let mut found = None;
        self.each_frame(&mut |frame| {
            frame.each(&mut |seen| {
                if seen.from >= place && found.is_none() && seen.entry.gtid().is_none() {
                    found = Some(format!("{}:{}", seen.file(), seen.entry.start));
                }
                Ok(())
            })?;
            Ok(if found.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        Ok(found)
    }
}
