//! systemd's notifications: ready, stopping, the watchdog. Nothing where there is no systemd.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// Says something to the service manager, for example `READY=1`. Nobody listening is no failure.
pub fn notify(text: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|v| !v.is_empty()) else { return };
    let name = name.to_string_lossy().into_owned();
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&name),
    };
    let sent = address.and_then(|address| {
        let socket = UnixDatagram::unbound()?;
        socket.send_to_addr(text.as_bytes(), &address)
    });
    if let Err(error) = sent {
        tracing::debug!(%error, "the service manager was not told '{text}'");
    }
}

/// Says that the configuration is being read again; `READY=1` follows.
pub fn reloading() {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    notify(&format!("RELOADING=1\nMONOTONIC_USEC={}", at.tv_sec * 1_000_000 + at.tv_nsec / 1000));
}

/// How often the watchdog wants to hear of us: half of what systemd allows. `None`: it does not watch.
#[must_use]
pub fn watchdog_interval() -> Option<Duration> {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|&us| us > 0).map(|us| Duration::from_micros(us / 2))
}
