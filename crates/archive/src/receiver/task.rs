//! The task that reads a source's socket, the same on every engine: bytes into an owned buffer, out of it events, and
//! these in batches to the thread that writes.

use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use holdfast_mysql::{BinlogStream, EventBytes, Ready};

use super::TICK;
use super::channel::{Batch, Closed, Outbox};
use crate::error::Error;

/// Bytes gathered before they are handed over.
const BATCH_BYTES: usize = 1 << 20;

/// How long events wait for others when the source pauses.
const LINGER: Duration = Duration::from_millis(5);

/// A socket of an asynchronous runtime. Reads and writes take their buffer for as long as the kernel works on it.
pub(super) trait Socket {
    /// Fills the buffer's front, up to its length; 0 bytes at the end of the connection. Gives the buffer back.
    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>);

    /// Sends all of it.
    async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()>;
}

/// Reads `stream` by `socket` until its end, its failure, `halt`, or until nobody takes what comes.
pub(super) async fn receive<S: Socket>(
    stream: &mut BinlogStream,
    socket: &S,
    outbox: &Outbox,
    halt: &AtomicBool,
) -> Result<(), Closed> {
    let mut gathered = Gathered::default();
    let last = loop {
        match pass_on(stream, &mut gathered, outbox).await? {
            Ok(false) => {}
            Ok(true) => break Batch::End,
            Err(error) => break Batch::Failed(error),
        }
        if let Err(error) = step(stream, socket, &mut gathered, outbox, halt).await? {
            break Batch::Failed(error);
        }
        if halt.load(Ordering::Relaxed) {
            return Ok(());
        }
    };
    gathered.flush(outbox).await?;
    outbox.send(last).await
}

#[derive(Default)]
struct Gathered {
    events: Vec<EventBytes>,
    bytes: usize,
}

impl Gathered {
    async fn flush(&mut self, outbox: &Outbox) -> Result<(), Closed> {
        self.bytes = 0;
        let events = std::mem::take(&mut self.events);
        if events.is_empty() { Ok(()) } else { outbox.send(Batch::Events(events)).await }
    }
}

/// Gathers the events that are here, and sends what is enough for a batch. True at the end of the stream.
async fn pass_on(
    stream: &mut BinlogStream,
    gathered: &mut Gathered,
    outbox: &Outbox,
) -> Result<Result<bool, Error>, Closed> {
    loop {
        match stream.ready() {
            Ok(Ready::Event(event)) => {
                gathered.bytes += event.len();
                gathered.events.push(event);
                if gathered.bytes >= BATCH_BYTES {
                    gathered.flush(outbox).await?;
                }
            }
            Ok(Ready::Wanting) => return Ok(Ok(false)),
            Ok(Ready::End) => return Ok(Ok(true)),
            Err(error) => return Ok(Err(error.into())),
        }
    }
}

/// One read, after what must be sent before it. Meanwhile, what is gathered is sent when the source pauses.
async fn step<S: Socket>(
    stream: &mut BinlogStream,
    socket: &S,
    gathered: &mut Gathered,
    outbox: &Outbox,
    halt: &AtomicBool,
) -> Result<Result<(), Error>, Closed> {
    if let Err(error) = send_outgoing(stream, socket).await {
        return Ok(Err(error));
    }
    let given_up_at = stream.given_up_at();
    // Never dropped before it is done while the stream goes on: the kernel may have put bytes into the buffer already.
    let mut read = pin!(socket.read(stream.lend()));
    loop {
        let pause = if gathered.events.is_empty() { TICK } else { LINGER };
        let wait = pause.min(given_up_at.saturating_duration_since(Instant::now()));
        match tokio::time::timeout(wait, read.as_mut()).await {
            Ok((outcome, buffer)) => {
                return Ok(stream.received(buffer, outcome).map_err(Error::from));
            }
            Err(_) if halt.load(Ordering::Relaxed) => return Ok(Ok(())),
            Err(_) => gathered.flush(outbox).await?,
        }
        if Instant::now() >= given_up_at {
            return Ok(Err(stream.gave_up().into()));
        }
    }
}

async fn send_outgoing<S: Socket>(stream: &mut BinlogStream, socket: &S) -> Result<(), Error> {
    let bytes = stream.outgoing()?;
    if bytes.is_empty() {
        return Ok(());
    }
    let limit = stream.write_timeout();
    match tokio::time::timeout(limit, socket.write_all(bytes)).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(stream.broke(error).into()),
        Err(_) => Err(stream.failed_after(limit).into()),
    }
}
