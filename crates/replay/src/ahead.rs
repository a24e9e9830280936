//! The log, read ahead on a thread of its own: decrypting, unpacking and copying go on beside what is done with
//! the events.
//!
//! What was read and not taken, with what whoever takes it holds, stays below [`AHEAD_BYTES`] and one event: an event
//! of a gigabyte is not read before all in front of it are done with.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::error::Error;
use crate::log::{BoxError, EventPlace, Log, LogReader};

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
    ended: Option<Result<(), BoxError>>,
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

/// Gives `take` a reader at the start of the log. Where the system gives no thread, nothing is read ahead.
///
/// # Errors
/// Those of `take`, which gets those of the log from its reader.
pub(crate) fn read<T>(
    log: &dyn Log,
    take: impl FnOnce(&mut dyn LogReader) -> Result<T, Error>,
) -> Result<T, Error> {
    let shared = Shared::default();
    std::thread::scope(|scope| {
        let reading = || {
            let mut end = End { shared: &shared, how: Ok(()) };
            end.how = fill(log, &shared);
        };
        if std::thread::Builder::new().spawn_scoped(scope, reading).is_err() {
            return take(&mut *log.read().map_err(Error::Log)?);
        }
        take(&mut Ahead { shared: &shared, batch: Batch::default(), next: 0, from: 0 })
    })
}

/// Says how the log ended, whatever happens to whoever reads it.
struct End<'s> {
    shared: &'s Shared,
    how: Result<(), BoxError>,
}

impl Drop for End<'_> {
    fn drop(&mut self) {
        let mut how = std::mem::replace(&mut self.how, Ok(()));
        if std::thread::panicking() {
            how = Err("reading the log broke off".into());
        }
        self.shared.lock().ended = Some(how);
        self.shared.wake.notify_all();
    }
}

fn fill(log: &dyn Log, shared: &Shared) -> Result<(), BoxError> {
    let mut reader = log.read()?;
    let mut event = Vec::new();
    while let Some(mut batch) = shared.room() {
        let mut read = || {
            while batch.bytes.len() < BATCH_BYTES {
                let Some(place) = reader.next(&mut event)? else { return Ok(false) };
                if event.len() >= BATCH_BYTES {
                    // Not copied: it may be a large part of all memory.
                    if !batch.events.is_empty() {
                        shared.give(std::mem::take(&mut batch));
                    }
                    batch.bytes = std::mem::take(&mut event);
                } else {
                    batch.bytes.extend_from_slice(&event);
                }
                batch.events.push((place, batch.bytes.len()));
            }
            Ok(true)
        };
        // What was read in front of a damaged place is given, too.
        let more: Result<bool, BoxError> = read();
        shared.give(batch);
        if !more? {
            return Ok(());
        }
    }
    Ok(())
}

/// The reader.
struct Ahead<'s> {
    shared: &'s Shared,
    batch: Batch,
    /// The event that comes next in `batch`, and where it begins.
    next: usize,
    from: usize,
}

impl Ahead<'_> {
    /// The next batch in place of this one; `false`: there is none.
    fn turn(&mut self) -> Result<bool, BoxError> {
        let mut done = std::mem::take(&mut self.batch);
        done.bytes.clear();
        done.events.clear();
        let mut queue = self.shared.lock();
        queue.bytes = queue.bytes.saturating_sub(done.given);
        if done.bytes.capacity() <= 2 * BATCH_BYTES {
            queue.spare.push(done);
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
}

impl LogReader for Ahead<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, BoxError> {
        if event.capacity() > AHEAD_BYTES {
            *event = Vec::new();
        }
        while self.next >= self.batch.events.len() {
            if !self.turn()? {
                return Ok(None);
            }
        }
        let Some((place, end)) = self.batch.events.get(self.next) else { return Ok(None) };
        let place = place.clone();
        if self.batch.events.len() == 1 {
            std::mem::swap(event, &mut self.batch.bytes);
        } else {
            event.clear();
            event.extend_from_slice(self.batch.bytes.get(self.from..*end).unwrap_or_default());
        }
        (self.from, self.next) = (*end, self.next + 1);
        Ok(Some(place))
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
    use super::*;

    /// Events of these lengths, then an end or an error.
    struct Lengths(Vec<usize>, bool);

    struct At<'l>(&'l Lengths, usize);

    impl Log for Lengths {
        fn read(&self) -> Result<Box<dyn LogReader + '_>, BoxError> {
            Ok(Box::new(At(self, 0)))
        }
    }

    impl LogReader for At<'_> {
        fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, BoxError> {
            let Some(length) = self.0.0.get(self.1) else {
                return if self.0.1 { Err("damaged".into()) } else { Ok(None) };
            };
            event.clear();
            event.resize(*length, self.1 as u8);
            self.1 += 1;
            Ok(Some(EventPlace { file: "f".into(), position: self.1 as u64 }))
        }
    }

    #[test]
    fn events_come_whole_and_in_their_order_up_to_the_end_or_the_error() {
        let small = (1..5000usize).map(|n| n % 700);
        let large =
            [0, AHEAD_BYTES + 3, 5, BATCH_BYTES, BATCH_BYTES - 1, 2 * AHEAD_BYTES, 2 * AHEAD_BYTES, 1];
        for damaged in [false, true] {
            let log = Lengths(small.clone().chain(large).collect(), damaged);
            let mut met = Vec::new();
            let ended = read(&log, |reader| {
                let mut event = Vec::new();
                while let Some(place) = reader.next(&mut event).map_err(Error::Log)? {
                    assert!(event.iter().all(|byte| *byte == met.len() as u8));
                    assert_eq!(place.position, met.len() as u64 + 1);
                    met.push(event.len());
                }
                Ok(())
            });
            assert_eq!(met, log.0);
            assert_eq!(ended.is_err(), damaged);
        }
    }

    #[test]
    fn who_takes_no_more_does_not_wait_for_the_rest() {
        let log = Lengths(vec![BATCH_BYTES; 1 << 20], false);
        let ended = read(&log, |reader| {
            reader.next(&mut Vec::new()).map_err(Error::Log)?;
            Err::<(), _>(Error::Stopped(0))
        });
        assert!(matches!(ended, Err(Error::Stopped(0))));
    }
}
