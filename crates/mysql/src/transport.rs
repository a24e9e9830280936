//! The socket under a connection: TCP or a socket file, TLS or not, with a deadline on every wait.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::ClientConnection;

use crate::error::{Error, Result};
use crate::options::Endpoint;

mod driven;

pub use driven::StreamSocket;

/// Bytes taken from the socket at once: four TLS records, and enough that a clone's blocks of 1 MiB cost few calls.
const READ_BUFFER: usize = 128 * 1024;

/// A peer that vanished without a word is noticed after idle + 4 * interval = 70 s.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(30);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_COUNT: u32 = 4;

/// Until when to wait, and the limit to name when it passes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) limit: Duration,
}

impl Deadline {
    pub(crate) fn after(limit: Duration) -> Self {
        Self { at: Instant::now() + limit, limit }
    }

    fn left(&self) -> Option<Duration> {
        let left = self.at.saturating_duration_since(Instant::now());
        // The system rounds to microseconds, and zero would mean "for ever".
        (left > Duration::from_micros(1)).then_some(left)
    }
}

#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    fn open(endpoint: &Endpoint, timeout: Duration) -> io::Result<Self> {
        match endpoint {
            Endpoint::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Endpoint::Tcp { host, port } => {
                let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, timeout) {
                        Ok(stream) => return keep_alive(stream).map(Self::Tcp),
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_read_timeout(Some(timeout)),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }

    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }
}

fn keep_alive(stream: TcpStream) -> io::Result<TcpStream> {
    use rustix::net::sockopt;
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_COUNT)?;
    Ok(stream)
}

impl Read for &Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).read(buffer),
            Socket::Unix(stream) => (&*stream).read(buffer),
        }
    }
}

impl Write for &Socket {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => (&*stream).write(buffer),
            Socket::Unix(stream) => (&*stream).write(buffer),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A buffer that is filled at its end and drained at its front.
#[derive(Debug)]
struct Window {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Window {
    fn new() -> Self {
        Self { bytes: vec![0; READ_BUFFER].into_boxed_slice(), start: 0, end: 0 }
    }

    fn filled(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, len: usize) {
        self.start = (self.start + len).min(self.end);
    }

    /// The last `len` bytes that were consumed; they are here until the buffer is filled again.
    fn consumed(&self, len: usize) -> &[u8] {
        self.start.checked_sub(len).and_then(|from| self.bytes.get(from..self.start)).unwrap_or_default()
    }

    /// The whole buffer to be filled; only when it is empty.
    fn space(&mut self) -> &mut [u8] {
        (self.start, self.end) = (0, 0);
        &mut self.bytes
    }
}

/// A byte stream to a server.
#[derive(Debug)]
pub(crate) struct Transport {
    socket: Arc<Socket>,
    tls: Option<Box<ClientConnection>>,
    raw: Window,
    plain: Option<Window>,
    endpoint: String,
}

impl Transport {
    pub(crate) fn connect(endpoint: &Endpoint, timeout: Duration) -> Result<Self> {
        let name = endpoint.to_string();
        match Socket::open(endpoint, timeout) {
            Ok(socket) => Ok(Self {
                socket: Arc::new(socket),
                tls: None,
                raw: Window::new(),
                plain: None,
                endpoint: name,
            }),
            Err(source) => Err(Error::Connect { endpoint: name, source }),
        }
    }

    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub(crate) fn is_tls(&self) -> bool {
        self.tls.is_some()
    }

    pub(crate) fn socket(&self) -> Arc<Socket> {
        self.socket.clone()
    }

    /// Starts TLS on a stream that has sent its request for it.
    pub(crate) fn start_tls(&mut self, session: ClientConnection, deadline: Deadline) -> Result<()> {
        self.tls = Some(Box::new(session));
        self.plain = Some(Window::new());
        let doing = "starting TLS";
        loop {
            self.flush_tls(deadline, doing)?;
            if !self.tls.as_ref().is_some_and(|tls| tls.is_handshaking()) {
                return Ok(());
            }
            if self.raw.filled().is_empty() {
                self.fill_raw(deadline, doing)?;
            }
            self.decrypt()?;
        }
    }

    /// Bytes that are here already.
    pub(crate) fn buffered(&self) -> &[u8] {
        self.plain.as_ref().unwrap_or(&self.raw).filled()
    }

    pub(crate) fn consume(&mut self, len: usize) {
        self.plain.as_mut().unwrap_or(&mut self.raw).consume(len);
    }

    /// The last `len` bytes that were consumed; they are here until more are taken from the socket.
    pub(crate) fn consumed(&self, len: usize) -> &[u8] {
        self.plain.as_ref().unwrap_or(&self.raw).consumed(len)
    }

    /// Waits until `buffered` is not empty.
    pub(crate) fn fill(&mut self, deadline: Deadline, doing: &'static str) -> Result<()> {
        while self.buffered().is_empty() {
            if self.tls.is_none() {
                return self.fill_raw(deadline, doing);
            }
            if self.drain_plaintext(doing)? {
                return Ok(());
            }
            if self.raw.filled().is_empty() {
                self.fill_raw(deadline, doing)?;
            }
            self.decrypt()?;
            self.flush_tls(deadline, doing)?;
        }
        Ok(())
    }

    fn drain_plaintext(&mut self, doing: &'static str) -> Result<bool> {
        let (Some(tls), Some(plain)) = (self.tls.as_mut(), self.plain.as_mut()) else { return Ok(false) };
        match tls.reader().read(plain.space()) {
            Ok(0) => Err(Error::Closed { endpoint: self.endpoint.clone(), doing }),
            Ok(len) => {
                plain.end = len;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
            Err(source) => Err(Error::Io { endpoint: self.endpoint.clone(), doing, source }),
        }
    }

    fn decrypt(&mut self) -> Result<()> {
        let Some(tls) = self.tls.as_mut() else { return Ok(()) };
        let fail = |reason: String| Error::Tls { endpoint: self.endpoint.clone(), reason };
        let mut rest = self.raw.filled();
        let before = rest.len();
        tls.read_tls(&mut rest).map_err(|error| fail(error.to_string()))?;
        let taken = before - rest.len();
        self.raw.consume(taken);
        if let Err(error) = tls.process_new_packets() {
            // The alert that explains it to the peer; it may be gone already.
            let _ = tls.write_tls(&mut &*self.socket);
            return Err(fail(error.to_string()));
        }
        Ok(())
    }

    fn fill_raw(&mut self, deadline: Deadline, doing: &'static str) -> Result<()> {
        let timeout = || Error::Timeout { endpoint: self.endpoint.clone(), doing, waited: deadline.limit };
        let fail = |source| Error::Io { endpoint: self.endpoint.clone(), doing, source };
        loop {
            self.socket.set_read_timeout(deadline.left().ok_or_else(timeout)?).map_err(fail)?;
            match (&*self.socket).read(self.raw.space()) {
                Ok(0) => return Err(Error::Closed { endpoint: self.endpoint.clone(), doing }),
                Ok(len) => {
                    self.raw.end = len;
                    return Ok(());
                }
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }

    pub(crate) fn write_all(&mut self, bytes: &[u8], timeout: Duration, doing: &'static str) -> Result<()> {
        let deadline = Deadline::after(timeout);
        if self.tls.is_none() {
            return self.write_raw(bytes, deadline, doing);
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let Some(tls) = self.tls.as_mut() else { return Ok(()) };
            // rustls buffers 64 KiB and then takes 0 bytes until they are gone.
            let taken = tls.writer().write(rest).map_err(|source| Error::Io {
                endpoint: self.endpoint.clone(),
                doing,
                source,
            })?;
            rest = rest.get(taken..).unwrap_or_default();
            self.flush_tls(Deadline::after(timeout), doing)?;
        }
        Ok(())
    }

    fn write_raw(&self, mut bytes: &[u8], mut deadline: Deadline, doing: &'static str) -> Result<()> {
        while !bytes.is_empty() {
            let taken = self.write_some(deadline, doing, |socket| socket.write(bytes))?;
            bytes = bytes.get(taken..).unwrap_or_default();
            // The limit is on the peer's silence, not on the length of what we say.
            deadline = Deadline::after(deadline.limit);
        }
        Ok(())
    }

    fn flush_tls(&mut self, deadline: Deadline, doing: &'static str) -> Result<()> {
        while let Some(mut tls) = self.tls.take() {
            if !tls.wants_write() {
                self.tls = Some(tls);
                break;
            }
            let written = self.write_some(deadline, doing, |mut socket| tls.write_tls(&mut socket));
            self.tls = Some(tls);
            written?;
        }
        Ok(())
    }

    fn write_some(
        &self,
        deadline: Deadline,
        doing: &'static str,
        mut write: impl FnMut(&mut &Socket) -> io::Result<usize>,
    ) -> Result<usize> {
        let fail = |source| Error::Io { endpoint: self.endpoint.clone(), doing, source };
        loop {
            let Some(left) = deadline.left() else {
                return Err(Error::Timeout {
                    endpoint: self.endpoint.clone(),
                    doing,
                    waited: deadline.limit,
                });
            };
            self.socket.set_write_timeout(left).map_err(fail)?;
            match write(&mut &*self.socket) {
                Ok(0) => return Err(Error::Closed { endpoint: self.endpoint.clone(), doing }),
                Ok(len) => return Ok(len),
                Err(error) if is_retry(&error) => {}
                Err(error) => return Err(fail(error)),
            }
        }
    }
}

/// A signal, or the socket's own timeout: the deadline decides.
fn is_retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
