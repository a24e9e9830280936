//! The byte stream when someone else owns the reading: a task reads into the buffer that it is lent, and sends what TLS
//! has to say. No waits here; the blocking side is in `transport.rs`.

use std::io;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use super::{Socket, Transport, is_retry};
use crate::error::{Error, Result};

/// A descriptor of a connection's socket, for a runtime of the caller's. Blocking, with no time limits on it.
#[derive(Debug)]
pub enum StreamSocket {
    /// Over TCP.
    Tcp(TcpStream),
    /// A socket file.
    Unix(UnixStream),
}

impl Transport {
    /// Another descriptor of the socket.
    pub(crate) fn duplicate(&self, doing: &'static str) -> Result<StreamSocket> {
        const NO_LIMIT: Option<Duration> = None;
        let duplicate = || -> io::Result<StreamSocket> {
            match &*self.socket {
                Socket::Tcp(stream) => {
                    stream.set_read_timeout(NO_LIMIT)?;
                    stream.set_write_timeout(NO_LIMIT)?;
                    stream.try_clone().map(StreamSocket::Tcp)
                }
                Socket::Unix(stream) => {
                    stream.set_read_timeout(NO_LIMIT)?;
                    stream.set_write_timeout(NO_LIMIT)?;
                    stream.try_clone().map(StreamSocket::Unix)
                }
            }
        };
        duplicate().map_err(|source| Error::Io { endpoint: self.endpoint.clone(), doing, source })
    }

    /// Are there bytes in `buffered`? If not, all that came is used up, and more must be read.
    pub(crate) fn advance(&mut self, doing: &'static str) -> Result<bool> {
        loop {
            if !self.buffered().is_empty() {
                return Ok(true);
            }
            if self.tls.is_none() {
                return Ok(false);
            }
            if self.drain_plaintext(doing)? {
                return Ok(true);
            }
            if self.raw.filled().is_empty() {
                return Ok(false);
            }
            self.decrypt()?;
        }
    }

    /// The buffer to read into, as long as it may be filled; only after `advance` said that nothing is left in it.
    pub(crate) fn lend(&mut self) -> Vec<u8> {
        (self.raw.start, self.raw.end) = (0, 0);
        std::mem::take(&mut self.raw.bytes).into_vec()
    }

    /// Takes the lent buffer back with what a read of it ended with. Returns the bytes that came; 0 if it was woken for
    /// nothing.
    pub(crate) fn give_back(
        &mut self,
        buffer: Vec<u8>,
        read: io::Result<usize>,
        doing: &'static str,
    ) -> Result<usize> {
        self.raw.bytes = buffer.into_boxed_slice();
        match read {
            Ok(0) => Err(Error::Closed { endpoint: self.endpoint.clone(), doing }),
            Ok(len) => {
                self.raw.end = len.min(self.raw.bytes.len());
                Ok(self.raw.end)
            }
            Err(error) if is_retry(&error) => Ok(0),
            Err(source) => Err(Error::Io { endpoint: self.endpoint.clone(), doing, source }),
        }
    }

    /// The bytes that carry `plain` over the socket, and what TLS has to say besides. Short messages only: TLS holds 64 KiB.
    pub(crate) fn carry(&mut self, plain: Vec<u8>, doing: &'static str) -> Result<Vec<u8>> {
        use std::io::Write as _;
        let Some(tls) = self.tls.as_mut() else { return Ok(plain) };
        let fail = |source| Error::Io { endpoint: self.endpoint.clone(), doing, source };
        tls.writer().write_all(&plain).map_err(fail)?;
        self.outgoing(doing)
    }

    /// What TLS wants to have sent; empty most of the time.
    pub(crate) fn outgoing(&mut self, doing: &'static str) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let Some(tls) = self.tls.as_mut() else { return Ok(bytes) };
        while tls.wants_write() {
            tls.write_tls(&mut bytes).map_err(|source| Error::Io {
                endpoint: self.endpoint.clone(),
                doing,
                source,
            })?;
        }
        Ok(bytes)
    }
}
