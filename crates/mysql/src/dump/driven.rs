//! A stream of events whose socket a task of the caller's reads: bytes in, events out, no waits.
//!
//! ```text
//! loop { ready() until Wanting;  send outgoing();  read the socket into lend();  received() }
//! ```
//!
//! What came with the login's last bytes, and TLS's state, stay here, so nothing is lost where the blocking side ends
//! and the task begins.

use std::io;
use std::time::{Duration, Instant};

use super::{BinlogStream, DOING, EventBytes, Found, find_event};
use crate::conn::PacketHere;
use crate::error::{Error, Result};
use crate::transport::StreamSocket;

/// What a stream has without reading its socket.
#[derive(Debug)]
pub enum Ready<'a> {
    /// An event, as [`EventBytes`] has it, where it lies until the next call: most are short, and came whole. Heartbeats and
    /// the artificial rotate events come too.
    Here {
        /// The event.
        event: &'a [u8],
        /// Does a commit of the source wait until we have it?
        awaits_word: bool,
    },
    /// An event that came in pieces, in memory of its own ([`BinlogStream::recycle`]).
    Event(EventBytes),
    /// Nothing whole: read on.
    Wanting,
    /// As `Next::End`.
    End,
}

impl BinlogStream {
    /// Another descriptor of the socket, to read and write in place of this stream, which does neither from now on but
    /// for the goodbye after its end.
    pub fn socket(&self) -> Result<StreamSocket> {
        self.conn.transport.duplicate(DOING)
    }

    /// The next event of those that are here. After any error the stream is of no use.
    pub fn ready(&mut self) -> Result<Ready<'_>> {
        if self.ended {
            return Ok(Ready::End);
        }
        match self.conn.packet_here(DOING)? {
            None => Ok(Ready::Wanting),
            Some(PacketHere::InPlace(len)) => {
                let found = find_event(self.conn.transport.consumed(len), &mut self.marks)?;
                self.settle(found);
                let Some(Found { start, awaits_word }) = found else { return Ok(Ready::End) };
                let event = self.conn.transport.consumed(len - start);
                Ok(Ready::Here { event, awaits_word })
            }
            Some(PacketHere::Own(payload)) => Ok(self.take_packet(payload)?.map_or(Ready::End, Ready::Event)),
        }
    }

    /// The buffer for the next read of the socket: it may be filled up to its length. Only after `ready` said `Wanting`.
    pub fn lend(&mut self) -> Vec<u8> {
        self.conn.transport.lend()
    }

    /// Takes the lent buffer back with the read's outcome: bytes at its front, 0 at the end of the connection.
    pub fn received(&mut self, buffer: Vec<u8>, read: io::Result<usize>) -> Result<()> {
        if self.conn.transport.give_back(buffer, read, DOING)? > 0 {
            self.heard = Instant::now();
        }
        Ok(())
    }

    /// Bytes that must be sent before the next read; mostly none.
    pub fn outgoing(&mut self) -> Result<Vec<u8>> {
        self.conn.transport.outgoing(DOING)
    }

    /// How long the source may take to accept what is sent.
    #[must_use]
    pub fn write_timeout(&self) -> Duration {
        self.conn.write_timeout()
    }

    /// When the source is given up if nothing more comes. Every byte is a sign of life: an event of 1 GiB takes its time.
    #[must_use]
    pub fn given_up_at(&self) -> Instant {
        self.heard + self.silence_max
    }

    /// The error of a source that is given up.
    #[must_use]
    pub fn gave_up(&self) -> Error {
        self.failed_after(self.silence_max)
    }

    /// The error of a source that did not take for `waited` what was sent.
    #[must_use]
    pub fn failed_after(&self, waited: Duration) -> Error {
        Error::Timeout { endpoint: self.endpoint().to_owned(), doing: DOING, waited }
    }

    /// The error of a write to the socket.
    #[must_use]
    pub fn broke(&self, source: io::Error) -> Error {
        Error::Io { endpoint: self.endpoint().to_owned(), doing: DOING, source }
    }

    /// Did the stream end in order?
    #[must_use]
    pub fn is_ended(&self) -> bool {
        self.ended
    }
}
