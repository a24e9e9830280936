//! From the task that reads the socket to the thread that writes: batches of events, bounded.
//!
//! The task waits for room without blocking its runtime (a semaphore), the thread waits for a batch with a deadline (a
//! crossbeam channel, which the semaphore keeps as short as it should be).

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use holdfast_mysql::EventBytes;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::error::Error;

/// What the task hands over.
pub(super) enum Batch {
    /// The task runs, on this engine.
    Begun(&'static str),
    /// Whether the source took our offer of semi-synchronous replication, known with its first event.
    SemiSync(bool),
    Events(Vec<EventBytes>),
    End,
    Failed(Error),
}

/// The task's end.
pub(super) struct Outbox {
    sender: Sender<Batch>,
    room: Arc<Semaphore>,
}

/// Room for one batch.
pub(super) struct Room<'a> {
    sender: &'a Sender<Batch>,
    permit: SemaphorePermit<'a>,
}

/// The thread's end. Dropped, it lets the task go.
pub(super) struct Inbox {
    receiver: Receiver<Batch>,
    room: Arc<Semaphore>,
}

/// Nobody takes batches any more.
#[derive(Debug)]
pub(super) struct Closed;

/// A channel that holds `batches`.
pub(super) fn channel(batches: usize) -> (Outbox, Inbox) {
    let (sender, receiver) = unbounded();
    let room = Arc::new(Semaphore::new(batches));
    (Outbox { sender, room: Arc::clone(&room) }, Inbox { receiver, room })
}

impl Outbox {
    /// Sends, after waiting for room.
    pub(super) async fn send(&self, batch: Batch) -> Result<(), Closed> {
        self.room().await?.send(batch)
    }

    /// Waits for room. May be dropped at any time.
    pub(super) async fn room(&self) -> Result<Room<'_>, Closed> {
        let permit = self.room.acquire().await.map_err(|_| Closed)?;
        Ok(Room { sender: &self.sender, permit })
    }
}

impl Room<'_> {
    /// Fills it.
    pub(super) fn send(self, batch: Batch) -> Result<(), Closed> {
        // The room comes back when the batch is taken.
        self.permit.forget();
        self.sender.send(batch).map_err(|_| Closed)
    }
}

impl Inbox {
    /// The next batch, if it comes within `wait`.
    pub(super) fn take(&self, wait: Duration) -> Result<Batch, RecvTimeoutError> {
        let batch = self.receiver.recv_timeout(wait)?;
        self.room.add_permits(1);
        Ok(batch)
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
                        outbox.send(Batch::Events(Vec::new())).await.unwrap();
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
