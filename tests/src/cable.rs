//! A wire between a client and a server of a test: it can be cut, and be silent in one direction or both.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

/// Bytes pass.
pub const PASS: u8 = 0;
/// Nothing reaches the archive.
pub const NOTHING_DOWN: u8 = 1;
/// Nothing reaches the source.
pub const NOTHING_UP: u8 = 2;
/// Nothing reaches anybody.
pub const NOTHING: u8 = 3;

/// The wire between a server and an archive of it, on loopback.
#[derive(Debug)]
pub struct Wire {
    /// Where the client finds it.
    pub port: u16,
    /// The server's port on this machine.
    pub upstream: Arc<AtomicU16>,
    /// What it does: [`PASS`] or another one of these.
    pub mode: Arc<AtomicU8>,
    /// Connections of earlier generations are cut.
    generation: Arc<AtomicU64>,
    ended: Arc<AtomicBool>,
}

impl Wire {
    /// One that leads nowhere yet.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "it opens a port")]
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wire = Self {
            port: listener.local_addr().unwrap().port(),
            upstream: Arc::default(),
            mode: Arc::default(),
            generation: Arc::default(),
            ended: Arc::default(),
        };
        listener.set_nonblocking(true).unwrap();
        let (upstream, mode) = (Arc::clone(&wire.upstream), Arc::clone(&wire.mode));
        let (generation, ended) = (Arc::clone(&wire.generation), Arc::clone(&wire.ended));
        std::thread::spawn(move || {
            while !ended.load(Ordering::Relaxed) {
                let Ok((down, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(10));
                    continue;
                };
                let Ok(up) = TcpStream::connect(("127.0.0.1", upstream.load(Ordering::SeqCst))) else {
                    continue;
                };
                let own = generation.load(Ordering::SeqCst);
                for (from, to, silent) in [
                    (down.try_clone().unwrap(), up.try_clone().unwrap(), NOTHING_UP),
                    (up, down, NOTHING_DOWN),
                ] {
                    let (mode, generation, ended) =
                        (Arc::clone(&mode), Arc::clone(&generation), Arc::clone(&ended));
                    let goes_on =
                        move || generation.load(Ordering::SeqCst) == own && !ended.load(Ordering::Relaxed);
                    std::thread::spawn(move || pump(from, to, silent, &mode, &goes_on));
                }
            }
        });
        wire
    }

    /// Ends every connection on it.
    pub fn cut(&self) {
        self.generation.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// Passes bytes on. While its direction is silent they stay where they are, as on a wire that leads nowhere.
fn pump(mut from: TcpStream, mut to: TcpStream, silent: u8, mode: &AtomicU8, goes_on: &dyn Fn() -> bool) {
    from.set_nonblocking(false).unwrap();
    from.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
    let mut buffer = vec![0; 64 << 10];
    while goes_on() {
        if mode.load(Ordering::SeqCst) & silent != 0 {
            std::thread::sleep(Duration::from_millis(10));
            continue;
        }
        match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(got) => {
                if to.write_all(&buffer[..got]).is_err() {
                    break;
                }
            }
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}
