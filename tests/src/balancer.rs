//! An address that leads to more than one server.

use std::io;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// One port that leads to two servers, as a balancer or a name with two addresses does: to the second one from the
/// `turn`th connection on.
#[derive(Debug)]
pub struct Balancer {
    /// The port.
    pub port: u16,
}

impl Balancer {
    /// Leads to the first of `ports`, and from the `turn`th connection on to the second one, until `stop`.
    #[must_use]
    pub fn start<'scope>(
        scope: &'scope std::thread::Scope<'scope, '_>,
        stop: &'scope AtomicBool,
        ports: [u16; 2],
        turn: usize,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        scope.spawn(move || {
            let mut count = 0;
            while !stop.load(Ordering::Relaxed) {
                let Ok((client, _)) = listener.accept() else {
                    std::thread::sleep(Duration::from_millis(1));
                    continue;
                };
                count += 1;
                client.set_nonblocking(false).unwrap();
                let server = TcpStream::connect(("127.0.0.1", ports[usize::from(count >= turn)])).unwrap();
                let ends = [(&client, &server), (&server, &client)];
                for (from, to) in ends.map(|(from, to)| (from.try_clone().unwrap(), to.try_clone().unwrap()))
                {
                    scope.spawn(move || {
                        let _ = io::copy(&mut &from, &mut &to);
                        let _ = to.shutdown(Shutdown::Both);
                        let _ = from.shutdown(Shutdown::Both);
                    });
                }
            }
        });
        Self { port }
    }
}
