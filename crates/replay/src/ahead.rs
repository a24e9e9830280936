//! The log, read ahead on a thread of its own: decrypting, unpacking and comparing checksums go on beside what is done
//! with the events.
//!
//! What was read and not taken, with what whoever takes it holds, stays below [`AHEAD_BYTES`] and one event: an event
//! of a gigabyte is not read before all in front of it are done with.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use holdfast_binlog::Walker;

use crate::error::Error;
use crate::log::{EventPlace, Log, LogReader};

/// Bytes that are read ahead.
const AHEAD_BYTES: usize = 4 << 20;

/// Bytes that are handed over at once.
const BATCH_BYTES: usize = 256 << 10;

/// Events that follow each other.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    /// Where each lies, and where it ends in `bytes`.
    events: Vec<(EventPlace, usize)>,
    /// Bytes that it was given with.
    given: usize,
}

#[derive(Default)]
struct Queue {
    batches: VecDeque<Batch>,
    /// Emptied ones.
    spare: Vec<Batch>,
    /// Bytes in `batches`, and in the one that was taken last.
    bytes: usize,
    /// How the log ended, if it was read to its end.
    ended: Option<Result<(), Error>>,
    /// Nobody takes any more.
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'q>(&self, queue: MutexGuard<'q, Queue>) -> MutexGuard<'q, Queue> {
        self.wake.wait(queue).unwrap_or_else(PoisonError::into_inner)
    }

    /// A batch to fill; `None`: nobody takes any more.
    fn room(&self) -> Option<Batch> {
        let mut queue = self.lock();
        while queue.bytes >= AHEAD_BYTES && !queue.closed {
            queue = self.wait(queue);
        }
        (!queue.closed).then(|| queue.spare.pop().unwrap_or_default())
    }

    fn give(&self, mut batch: Batch) {
        batch.given = batch.bytes.len();
        let mut queue = self.lock();
        queue.bytes += batch.given;
        queue.batches.push_back(batch);
        drop(queue);
        self.wake.notify_all();
    }
}

/// Gives `take` the events from the start of the log. Where the system gives no thread, nothing is read ahead.
///
/// # Errors
/// Those of `take`, which gets those of the log from its reader.
pub(crate) fn read<T>(
    log: &dyn Log,
    take: impl FnOnce(&mut Events<'_>) -> Result<T, Error>,
) -> Result<T, Error> {
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let reading = || {
            let mut end = End { shared: &shared, how: Ok(()) };
            end.how = fill(log, &shared);
        };
        if std::thread::Builder::new().spawn_scoped(scope, reading).is_err() {
            return take(&mut Events::Read(Checked::new(log)?));
        }
        take(&mut Events::Ahead(Ahead { shared: &shared, batch: Batch::default(), next: 0, from: 0 }))
    })
}

/// The events of a log in their order, with checksums that were compared.
pub(crate) enum Events<'l> {
    Ahead(Ahead<'l>),
    Read(Checked<'l>),
}

impl Events<'_> {
    /// The next event and its place; `None` at the end.
    ///
    /// # Errors
    /// The log can't be read, or the event is damaged.
    pub(crate) fn next(&mut self) -> Result<Option<(&EventPlace, &[u8])>, Error> {
        match self {
            Self::Ahead(ahead) => ahead.next(),
            Self::Read(checked) => {
                let found = checked.next()?;
                Ok(found.then_some((&checked.place, checked.event.as_slice())))
            }
        }
    }
}

/// The log's own reader, with the checksums compared.
pub(crate) struct Checked<'l> {
    reader: Box<dyn LogReader + 'l>,
    walker: Walker,
    event: Vec<u8>,
    place: EventPlace,
}

impl<'l> Checked<'l> {
    fn new(log: &'l dyn Log) -> Result<Self, Error> {
        let reader = log.read().map_err(Error::Log)?;
        Ok(Self { reader, walker: Walker::default(), event: Vec::new(), place: EventPlace::default() })
    }

    /// Goes on to the next event; `false`: there is none.
    fn next(&mut self) -> Result<bool, Error> {
        if self.event.capacity() > AHEAD_BYTES {
            self.event = Vec::new();
        }
        let Some(place) = self.reader.next(&mut self.event).map_err(Error::Log)? else { return Ok(false) };
        self.walker.set_position(place.position);
        self.walker.whole(&self.event).map_err(Error::binlog(&place))?;
        self.place = place;
        Ok(true)
    }
}

/// Says how the log ended, whatever happens to whoever reads it.
struct End<'s> {
    shared: &'s Shared,
    how: Result<(), Error>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut how = std::mem::replace(&mut self.how, Ok(()));
        if std::thread::panicking() {
            how = Err(Error::Log("reading the log broke off".into()));
        }
        self.shared.lock().ended = Some(how);
        self.shared.wake.notify_all();
    }
}

fn fill(log: &dyn Log, shared: &Shared) -> Result<(), Error> {
    let mut checked = Checked::new(log)?;
    while let Some(mut batch) = shared.room() {
        let mut read = || {
            while batch.bytes.len() < BATCH_BYTES {
                if !checked.next()? {
                    return Ok(false);
                }
                if checked.event.len() >= BATCH_BYTES {
                    // Not copied: it may be a large part of all memory.
                    if !batch.events.is_empty() {
                        shared.give(std::mem::take(&mut batch));
                    }
                    batch.bytes = std::mem::take(&mut checked.event);
                } else {
                    batch.bytes.extend_from_slice(&checked.event);
                }
                batch.events.push((std::mem::take(&mut checked.place), batch.bytes.len()));
            }
            Ok(true)
        };
        // What was read in front of a damaged place is given, too.
        let more: Result<bool, Error> = read();
        shared.give(batch);
        if !more? {
            return Ok(());
        }
    }
    Ok(())
}

/// What was read ahead.
pub(crate) struct Ahead<'s> {
    shared: &'s Shared,
    batch: Batch,
    /// The event that comes next in `batch`, and where it begins.
    next: usize,
    from: usize,
}

impl Ahead<'_> {
    /// The next batch in place of this one; `false`: there is none.
    fn turn(&mut self) -> Result<bool, Error> {
        let mut done = std::mem::take(&mut self.batch);
        done.bytes.clear();
        done.events.clear();
        let mut queue = self.shared.lock();
        queue.bytes = queue.bytes.saturating_sub(done.given);
        if done.bytes.capacity() <= 2 * BATCH_BYTES {
            queue.spare.push(done);
        } else {
            // Before the next one is waited for.
            drop(done);
        }
        self.shared.wake.notify_all();
        loop {
            if let Some(batch) = queue.batches.pop_front() {
                (self.batch, self.next, self.from) = (batch, 0, 0);
                return Ok(true);
            }
            match &mut queue.ended {
                Some(how) => return std::mem::replace(how, Ok(())).map(|()| false),
                None => queue = self.shared.wait(queue),
            }
        }
    }

    fn next(&mut self) -> Result<Option<(&EventPlace, &[u8])>, Error> {
        while self.next >= self.batch.events.len() {
            if !self.turn()? {
                return Ok(None);
            }
        }
        let Some((place, end)) = self.batch.events.get(self.next) else { return Ok(None) };
        let event = self.batch.bytes.get(self.from..*end).unwrap_or_default();
        (self.from, self.next) = (*end, self.next + 1);
        Ok(Some((place, event)))
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use holdfast_binlog::encode;
    use holdfast_binlog::event::{HEADER_LEN, Header};
    use holdfast_binlog::kind::EventType;

    use super::*;
    use crate::log::BoxError;

    /// Events with bodies of these lengths behind a format's, then an end, an error, or an event with a wrong checksum.
    struct Lengths {
        format: Vec<u8>,
        bodies: Vec<usize>,
        end: Ending,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Ending {
        Whole,
        Unreadable,
        Damaged,
    }

    impl Lengths {
        fn new(bodies: Vec<usize>, end: Ending) -> Self {
            let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../binlog/tests/data/mysql-statement.binlog");
            let bytes = std::fs::read(path).unwrap();
            let mut walker = Walker::new(0);
            let rest = walker.file(&bytes).unwrap();
            let described = walker.whole(rest).unwrap();
            assert_eq!(described.kind(), EventType::FORMAT_DESCRIPTION);
            let mut format = described.raw.to_vec();
            if end != Ending::Damaged {
                format.clear();
                encode::format_description_off(&described, &mut format).unwrap();
            }
            Self { format, bodies, end }
        }
    }

    struct At<'l>(&'l Lengths, usize);

    impl Log for Lengths {
        fn read(&self) -> Result<Box<dyn LogReader + '_>, BoxError> {
            Ok(Box::new(At(self, 0)))
        }
    }

    impl LogReader for At<'_> {
        fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, BoxError> {
            event.clear();
            self.1 += 1;
            let place = EventPlace { file: Arc::from("f"), position: self.1 as u64 };
            if self.1 == 1 {
                event.extend_from_slice(&self.0.format);
                return Ok(Some(place));
            }
            let Some(length) = self.0.bodies.get(self.1 - 2) else {
                return if self.0.end == Ending::Unreadable { Err("unreadable".into()) } else { Ok(None) };
            };
            let kind = EventType::IGNORABLE;
            let header = Header { timestamp: 1, kind, server_id: 1, length: 0, log_pos: 0, flags: 0 };
            let mut body = vec![self.1 as u8; *length];
            if self.0.end == Ending::Damaged {
                let mut whole = Vec::new();
                encode::event(&header, kind, &[&body, &[0; 4]], &mut whole)?;
                let crc = crc32fast::hash(&whole[..whole.len() - 4]);
                // The last one has a wrong checksum.
                let wrong = u32::from(self.1 == self.0.bodies.len() + 1);
                body.extend_from_slice(&(crc ^ wrong).to_le_bytes());
            }
            encode::event(&header, kind, &[&body], event)?;
            Ok(Some(place))
        }
    }

    #[test]
    fn events_come_whole_and_in_their_order_up_to_the_end_or_the_error() {
        let small = (1..5000usize).map(|n| n % 700);
        let large =
            [0, AHEAD_BYTES + 3, 5, BATCH_BYTES, BATCH_BYTES - 1, 2 * AHEAD_BYTES, 2 * AHEAD_BYTES, 1];
        for end in [Ending::Whole, Ending::Unreadable, Ending::Damaged] {
            let log = Lengths::new(small.clone().chain(large).collect(), end);
            let crc = if end == Ending::Damaged { 4 } else { 0 };
            for ahead in [true, false] {
                let mut met = Vec::new();
                let mut take = |events: &mut Events<'_>| {
                    while let Some((place, event)) = events.next()? {
                        if place.position > 1 {
                            let body = &event[HEADER_LEN..event.len() - crc];
                            assert!(body.iter().all(|byte| *byte == place.position as u8));
                            assert_eq!(place.position, met.len() as u64 + 2);
                            met.push(body.len());
                        }
                    }
                    Ok(())
                };
                let ended = if ahead {
                    read(&log, take)
                } else {
                    take(&mut Events::Read(Checked::new(&log).unwrap()))
                };
                let told = ended.as_ref().map_err(ToString::to_string);
                match end {
                    Ending::Whole => assert!(ended.is_ok(), "{told:?}"),
                    Ending::Unreadable => assert!(matches!(ended, Err(Error::Log(_))), "{told:?}"),
                    Ending::Damaged => assert!(matches!(ended, Err(Error::Binlog { .. })), "{told:?}"),
                }
                assert_eq!(met[..], log.bodies[..log.bodies.len() - usize::from(end == Ending::Damaged)]);
            }
        }
    }

    #[test]
    fn who_takes_no_more_does_not_wait_for_the_rest() {
        let log = Lengths::new(vec![BATCH_BYTES; 1 << 20], Ending::Whole);
        let ended = read(&log, |events| {
            events.next()?;
            Err::<(), _>(Error::Stopped(0))
        });
        assert!(matches!(ended, Err(Error::Stopped(0))));
    }
}
