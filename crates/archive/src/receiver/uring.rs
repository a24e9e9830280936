//! The socket on tokio-uring: the kernel reads into the buffer by itself and says when it has.
//!
//! tokio-uring knows no TLS, so what goes through here are the bytes as they travel; `BinlogStream` opens them.

use std::io::{self, Write};
use std::os::unix::net::UnixStream as StdUnixStream;

use holdfast_mysql::StreamSocket;
use tokio_uring::net::{TcpStream, UnixStream};

use super::task::Socket;

/// Entries of the ring: a read, a write, and their cancellations. A small ring stays below the limits on locked memory.
const ENTRIES: u32 = 8;

/// A runtime, tried out: an error if this host forbids io_uring or its kernel can't read a socket by it.
pub(super) fn runtime() -> io::Result<tokio_uring::Runtime> {
    let mut builder = tokio_uring::builder();
    builder.entries(ENTRIES);
    let runtime = tokio_uring::Runtime::new(&builder)?;
    let (near, mut far) = StdUnixStream::pair()?;
    far.write_all(b"?")?;
    let near = UnixStream::from_std(near);
    let (read, _) = runtime.block_on(near.read(vec![0; 1]));
    match read? {
        1 => Ok(runtime),
        _ => Err(io::ErrorKind::Unsupported.into()),
    }
}

/// A socket that is read by the ring.
pub(super) enum UringSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl UringSocket {
    /// Takes the socket as it is.
    #[expect(clippy::unnecessary_wraps, reason = "the other engine's can fail")]
    pub(super) fn new(socket: StreamSocket) -> io::Result<Self> {
        Ok(match socket {
            StreamSocket::Tcp(stream) => Self::Tcp(TcpStream::from_std(stream)),
            StreamSocket::Unix(stream) => Self::Unix(UnixStream::from_std(stream)),
        })
    }
}

impl Socket for UringSocket {
    async fn read(&self, buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        match self {
            Self::Tcp(stream) => stream.read(buffer).await,
            Self::Unix(stream) => stream.read(buffer).await,
        }
    }

    async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.write_all(bytes).await.0,
            Self::Unix(stream) => stream.write_all(bytes).await.0,
        }
    }
}
