//! From the task that reads the socket to the thread that writes: batches of events, bounded.
//!
//! The task waits for room without blocking its runtime (a semaphore), the thread waits for a batch with a deadline (a
//! crossbeam channel, which the semaphore keeps as short as it should be). Room is counted by bytes: an event that is larger
//! than all of it takes all of it, and gives it back when the thread is through with it. So of events of a gigabyte two
//! are in memory at most: one on its way or with the thread, one that waits.

use std::cell::Cell;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded, unbounded};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::batch::Events;
use crate::error::Error;

/// Bytes of events that are gathered before they are handed over.
pub(super) const BATCH_BYTES: usize = 1 << 20;

/// Batches whose memory waits to be used again.
const SPARES: usize = 2;

/// What the task hands over.
pub(super) enum Batch {
    /// The task runs, on this engine.
    Begun(&'static str),
    /// Whether the source took our offer of semi-synchronous replication, known with its first event.
    SemiSync(bool),
    Events(Events),
    End,
    Failed(Error),
}

/// The task's end.
pub(super) struct Outbox {
    sender: Sender<(Batch, u32)>,
    room: Arc<Semaphore>,
    spares: Receiver<Events>,
    batches: u32,
}

/// Room for one batch.
pub(super) struct Room<'a> {
    sender: &'a Sender<(Batch, u32)>,
    permit: SemaphorePermit<'a>,
}

/// The thread's end. Dropped, it lets the task go.
pub(super) struct Inbox {
    receiver: Receiver<(Batch, u32)>,
    room: Arc<Semaphore>,
    /// What the batch takes that the thread works on.
    held: Cell<u32>,
    used: Sender<Events>,
    spares: Receiver<Events>,
}

/// Nobody takes batches any more.
#[derive(Debug)]
pub(super) struct Closed;

/// A channel that holds `batches` of [`BATCH_BYTES`].
pub(super) fn channel(batches: u32) -> (Outbox, Inbox) {
    let (sender, receiver) = unbounded();
    let room = Arc::new(Semaphore::new(batches as usize));
    let (used, spares) = bounded(SPARES);
    let outbox = Outbox { sender, room: Arc::clone(&room), spares: spares.clone(), batches };
    (outbox, Inbox { receiver, room, held: Cell::new(0), used, spares })
}

impl Outbox {
    /// Sends, after waiting for room.
    pub(super) async fn send(&self, batch: Batch) -> Result<(), Closed> {
        self.room(0).await?.send(batch)
    }

    /// An empty batch, in memory of one that the thread is through with if there is one.
    pub(super) fn spare(&self) -> Events {
        self.spares.try_recv().unwrap_or_default()
    }

    /// Waits for room for so many bytes. May be dropped at any time.
    pub(super) async fn room(&self, bytes: usize) -> Result<Room<'_>, Closed> {
        let wanted = u32::try_from(bytes.div_ceil(BATCH_BYTES)).unwrap_or(u32::MAX);
        // A batch ends with the event that fills it: a little more than a batch counts as one.
        let wanted = if bytes < 2 * BATCH_BYTES { 1 } else { wanted.clamp(1, self.batches) };
        let permit = self.room.acquire_many(wanted).await.map_err(|_| Closed)?;
        Ok(Room { sender: &self.sender, permit })
    }
}

impl Room<'_> {
    /// Fills it.
    pub(super) fn send(self, batch: Batch) -> Result<(), Closed> {
        // The room comes back when the thread takes the next one.
        let taken = u32::try_from(self.permit.num_permits()).unwrap_or(u32::MAX);
        self.permit.forget();
        self.sender.send((batch, taken)).map_err(|_| Closed)
    }
}

impl Inbox {
    /// The next batch, if it comes within `wait`. The one before must not be in memory any more.
    pub(super) fn take(&self, wait: Duration) -> Result<Batch, RecvTimeoutError> {
        self.room.add_permits(self.held.replace(0) as usize);
        let (batch, taken) = self.receiver.recv_timeout(wait).inspect_err(|_| {
            // An idle stream holds no memory for a busy one.
            while self.spares.try_recv().is_ok() {}
        })?;
        self.held.set(taken);
        Ok(batch)
    }

    /// Gives a batch back of which nothing is needed any more.
    pub(super) fn give_back(&self, mut events: Events) {
        events.clear();
        // Where enough wait already its memory is let go.
        let _ = self.used.try_send(events);
    }

    /// Is no batch waiting?
    pub(super) fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.room.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }

    #[test]
    fn no_more_than_the_room_is_ever_on_its_way_and_all_of_it_arrives_in_order() {
        let (outbox, inbox) = channel(3);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                runtime().block_on(async {
                    for _ in 0..200 {
                        outbox.send(Batch::Events(Events::default())).await.unwrap();
                    }
                    outbox.send(Batch::End).await.unwrap();
                });
            });
            let mut batches = 0;
            loop {
                assert!(inbox.receiver.len() <= 3);
                match inbox.take(Duration::from_secs(60)).unwrap() {
                    Batch::End => break,
                    _ => batches += 1,
                }
            }
            assert_eq!(batches, 200);
        });
    }

    #[test]
    fn an_event_that_is_larger_than_all_room_waits_until_nothing_else_is_on_its_way() {
        let (outbox, inbox) = channel(4);
        let runtime = runtime();
        let huge = 300 * BATCH_BYTES;
        let soon = Duration::from_millis(20);
        let fits =
            |bytes| runtime.block_on(async { tokio::time::timeout(soon, outbox.room(bytes)).await.is_ok() });
        runtime.block_on(outbox.send(Batch::End)).unwrap();
        assert!(fits(3 * BATCH_BYTES) && !fits(huge));
        inbox.take(soon).unwrap();
        assert!(!fits(huge), "the thread still works on what it took");
        assert!(inbox.take(soon).is_err());
        assert!(fits(huge));
        runtime.block_on(async { outbox.room(huge).await.unwrap().send(Batch::End) }).unwrap();
        assert!(!fits(1));
        inbox.take(soon).unwrap();
        assert!(!fits(1));
        assert!(inbox.take(soon).is_err());
        assert!(fits(1));
    }

    #[test]
    fn a_task_that_waits_for_room_is_let_go_when_nobody_takes_any_more() {
        let (outbox, inbox) = channel(1);
        std::thread::scope(|scope| {
            let task = scope.spawn(move || {
                runtime().block_on(async { while outbox.send(Batch::End).await.is_ok() {} });
            });
            inbox.take(Duration::from_secs(60)).unwrap();
            drop(inbox);
            task.join().unwrap();
        });
    }
}
