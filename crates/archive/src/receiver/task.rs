//! The task that reads a source's socket, the same on every engine: bytes into an owned buffer, out of it events, and
//! these in batches to the thread that writes.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_mysql::{BinlogStream, Ready};

use super::TICK;
use super::batch::Events;
use super::channel::{BATCH_BYTES, Batch, Closed, Outbox};
use super::words::Words;
use crate::error::Error;

/// How long events wait for others when the source pauses.
const LINGER: Duration = Duration::from_millis(5);

/// A socket of an asynchronous runtime. Reads and writes take their buffer for as long as the kernel works on it.
pub(super) trait Socket {
    /// Fills the buffer's front, up to its length; 0 bytes at the end of the connection. Gives the buffer back.
    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>);

    /// Sends all of it.
    async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()>;
}

/// Reads `stream` by `socket` until its end, its failure, `halt`, or until nobody takes what comes. With `words` it tells
/// the source what is durable.
pub(super) async fn receive<S: Socket>(
    stream: &mut BinlogStream,
    socket: &S,
    outbox: &Outbox,
    words: Option<Words>,
    halt: &AtomicBool,
) -> Result<(), Closed> {
    let gathered = Gathered::default();
    let mut task = Task { stream, socket, outbox, words, gathered, halt, told: false };
    let last = match task.run().await {
        Ok(()) if halt.load(Ordering::Relaxed) => return Ok(()),
        Ok(()) => Batch::End,
        Err(Stop::Closed) => return Err(Closed),
        Err(Stop::Failed(error)) => {
            if matches!(error, Error::TooSlow) {
                // Commits of the source wait for us: they are let go before what came is brought home.
                task.stream.interrupter().interrupt();
            }
            Batch::Failed(error)
        }
    };
    let events = std::mem::take(&mut task.gathered.events);
    if !events.is_empty() {
        outbox.send(Batch::Events(events)).await?;
    }
    outbox.send(last).await
}

/// Why a task ends before the stream does.
enum Stop {
    Closed,
    Failed(Error),
}

impl From<Closed> for Stop {
    fn from(_: Closed) -> Self {
        Self::Closed
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<holdfast_mysql::Error> for Stop {
    fn from(error: holdfast_mysql::Error) -> Self {
        Self::Failed(error.into())
    }
}

#[derive(Default)]
struct Gathered {
    events: Events,
    /// The source waits for one of them.
    is_awaited: bool,
}

struct Task<'a, S> {
    stream: &'a mut BinlogStream,
    socket: &'a S,
    outbox: &'a Outbox,
    words: Option<Words>,
    gathered: Gathered,
    halt: &'a AtomicBool,
    /// It was said whether the source takes our words.
    told: bool,
}

impl<S: Socket> Task<'_, S> {
    async fn run(&mut self) -> Result<(), Stop> {
        while !self.pass_on().await? {
            self.step().await?;
            if self.halt.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Gathers the events that are here, and sends what is enough for a batch. True at the end of the stream.
    async fn pass_on(&mut self) -> Result<bool, Stop> {
        loop {
            let awaits_word = match self.stream.ready()? {
                Ready::Here { event, awaits_word } => {
                    if let Some(words) = self.words.as_mut() {
                        words.see(event, awaits_word, Instant::now());
                    }
                    self.gathered.events.push(event);
                    awaits_word
                }
                Ready::Event(event) => {
                    let awaits_word = event.awaits_word();
                    if let Some(words) = self.words.as_mut() {
                        words.see(&event, awaits_word, Instant::now());
                    }
                    if let Some(event) = self.gathered.events.push_whole(event) {
                        self.stream.recycle(event);
                    }
                    awaits_word
                }
                // Nothing is waited for longer than it must be.
                Ready::Wanting if self.gathered.is_awaited => {
                    self.flush().await?;
                    return Ok(false);
                }
                Ready::Wanting => return Ok(false),
                Ready::End => return Ok(true),
            };
            self.gathered.is_awaited |= awaits_word;
            if self.words.is_some() && !self.told {
                self.told = true;
                let semi_sync = self.stream.is_semi_sync();
                self.outbox.send(Batch::SemiSync(semi_sync)).await?;
            }
            if self.gathered.events.bytes() >= BATCH_BYTES {
                self.flush().await?;
            }
        }
    }

    /// Sends what is gathered. The source does not wait for its words while there is no room.
    async fn flush(&mut self) -> Result<(), Stop> {
        if self.gathered.events.is_empty() {
            return Ok(());
        }
        loop {
            tokio::select! {
                biased;
                room = self.outbox.room(self.gathered.events.bytes()) => {
                    self.gathered.is_awaited = false;
                    let events = std::mem::replace(&mut self.gathered.events, self.outbox.spare());
                    return Ok(room?.send(Batch::Events(events))?);
                }
                () = changed(&mut self.words) => self.speak().await?,
            }
            if self.words.as_ref().is_some_and(Words::is_late) {
                return Err(Error::TooSlow.into());
            }
        }
    }

    /// One read, after what must be sent before it. Meanwhile, what is gathered is sent when the source pauses, and words
    /// when they are due.
    async fn step(&mut self) -> Result<(), Stop> {
        let outgoing = self.stream.outgoing()?;
        self.send(outgoing).await?;
        let given_up_at = self.stream.given_up_at();
        // Never dropped before it is done while the stream goes on: the kernel may have put bytes into the buffer already.
        let mut read = pin!(self.socket.read(self.stream.lend()));
        loop {
            let pause = if self.gathered.events.is_empty() { TICK } else { LINGER };
            let wait = pause.min(given_up_at.saturating_duration_since(Instant::now()));
            tokio::select! {
                biased;
                (outcome, buffer) = read.as_mut() => return Ok(self.stream.received(buffer, outcome)?),
                () = changed(&mut self.words) => self.speak().await?,
                () = tokio::time::sleep(wait) => {
                    if self.halt.load(Ordering::Relaxed) {
                        return Ok(());
                    }
                    self.flush().await?;
                }
            }
            if Instant::now() >= given_up_at {
                return Err(self.stream.gave_up().into());
            }
        }
    }

    /// Gives the word that is due.
    async fn speak(&mut self) -> Result<(), Stop> {
        let Some(words) = self.words.as_mut() else { return Ok(()) };
        let now = Instant::now();
        if let Some(place) = words.due(now) {
            let word = self.stream.word(&place.file, place.offset)?;
            self.send(word).await?;
        } else if words.is_hopeless(now) {
            return Err(Error::TooSlow.into());
        }
        Ok(())
    }

    async fn send(&mut self, bytes: Vec<u8>) -> Result<(), Stop> {
        if bytes.is_empty() {
            return Ok(());
        }
        let limit = self.stream.write_timeout();
        match tokio::time::timeout(limit, self.socket.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(self.stream.broke(error).into()),
            Err(_) => Err(self.stream.failed_after(limit).into()),
        }
    }
}

/// Returns when a word may be due; never if nobody waits for words. May be dropped at any time.
async fn changed(words: &mut Option<Words>) {
    match words {
        Some(words) => words.changed().await,
        None => std::future::pending().await,
    }
}
