//! The socket on plain tokio: readiness by epoll, then a system call.

use std::io;

use holdfast_mysql::StreamSocket;
use tokio::net::{TcpStream, UnixStream};

use super::task::Socket;

/// A socket that is registered with the runtime. Blocking again when dropped: its description is shared.
pub(super) enum PlainSocket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl PlainSocket {
    /// Registers the socket. To be called inside the runtime.
    pub(super) fn new(socket: StreamSocket) -> io::Result<Self> {
        match socket {
            StreamSocket::Tcp(stream) => {
                stream.set_nonblocking(true)?;
                TcpStream::from_std(stream).map(Self::Tcp)
            }
            StreamSocket::Unix(stream) => {
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream).map(Self::Unix)
            }
        }
    }

    async fn readable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.readable().await,
            Self::Unix(stream) => stream.readable().await,
        }
    }

    async fn writable(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.writable().await,
            Self::Unix(stream) => stream.writable().await,
        }
    }
}

impl Socket for PlainSocket {
    async fn read(&self, mut buffer: Vec<u8>) -> (io::Result<usize>, Vec<u8>) {
        loop {
            if let Err(error) = self.readable().await {
                return (Err(error), buffer);
            }
            let read = match self {
                Self::Tcp(stream) => stream.try_read(&mut buffer),
                Self::Unix(stream) => stream.try_read(&mut buffer),
            };
            match read {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                read => return (read, buffer),
            }
        }
    }

    async fn write_all(&self, bytes: Vec<u8>) -> io::Result<()> {
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            self.writable().await?;
            let written = match self {
                Self::Tcp(stream) => stream.try_write(rest),
                Self::Unix(stream) => stream.try_write(rest),
            };
            match written {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(len) => rest = rest.get(len..).unwrap_or_default(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

impl Drop for PlainSocket {
    fn drop(&mut self) {
        use rustix::io::ioctl_fionbio;
        // The connection may be said goodbye to, which waits for nobody: a failure changes nothing.
        let _ = match self {
            Self::Tcp(stream) => ioctl_fionbio(stream, false),
            Self::Unix(stream) => ioctl_fionbio(stream, false),
        };
    }
}
