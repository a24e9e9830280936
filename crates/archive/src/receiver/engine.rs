//! Which runtime the task runs on: tokio-uring, or plain tokio where the host refuses io_uring.
//!
//! Either is of one thread and lives as long as one connection.

use std::io;
use std::sync::atomic::AtomicBool;

use holdfast_mysql::{BinlogStream, StreamSocket};

use super::channel::{Batch, Outbox};
use super::plain::PlainSocket;
use super::task::{Socket, receive};
use super::uring::{self, UringSocket};
use super::words::Words;
use crate::error::Error;

/// How the socket is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ReceiverEngine {
    /// By io_uring where the kernel lets us, by epoll elsewhere.
    #[default]
    Probe,
    /// By epoll.
    Plain,
}

/// Reads `stream` to its end, on this thread; what becomes of it is told by `outbox`.
pub(super) fn run(
    engine: ReceiverEngine,
    mut stream: BinlogStream,
    outbox: &Outbox,
    words: Option<Words>,
    halt: &AtomicBool,
) {
    let ring = match engine {
        ReceiverEngine::Probe => uring::runtime().ok(),
        ReceiverEngine::Plain => None,
    };
    let interrupter = stream.interrupter();
    if let Some(ring) = ring {
        ring.block_on(drive(&mut stream, UringSocket::new, "tokio-uring", outbox, words, halt));
        // A read that is still under way ends now: the runtime waits for it.
        if !stream.is_ended() {
            interrupter.interrupt();
        }
    } else if let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() {
        runtime.block_on(drive(&mut stream, PlainSocket::new, "tokio", outbox, words, halt));
    }
    // Without any runtime the other side sees that nobody reads, and says so.
}

async fn drive<S: Socket>(
    stream: &mut BinlogStream,
    open: impl FnOnce(StreamSocket) -> io::Result<S>,
    name: &'static str,
    outbox: &Outbox,
    words: Option<Words>,
    halt: &AtomicBool,
) {
    let socket = match stream.socket() {
        Ok(socket) => open(socket).map_err(|error| Error::from(stream.broke(error))),
        Err(error) => Err(error.into()),
    };
    // Nobody listens any more only if the other side has ended.
    let _ = match socket {
        Ok(socket) => match outbox.send(Batch::Begun(name)).await {
            Ok(()) => receive(stream, &socket, outbox, words, halt).await,
            Err(closed) => Err(closed),
        },
        Err(error) => outbox.send(Batch::Failed(error)).await,
    };
}
