//! What happens, told to whoever listens: the page and the command line, over server-sent events.

use serde::Serialize;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::broadcast;

/// Events that a slow listener may fall behind; then it is told to look anew.
const BEHIND_MAX: usize = 256;

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// Rises from 1.
    pub number: u64,
    /// `job`, `progress` (each second, of the running jobs), `board`.
    pub kind: &'static str,
    /// JSON on one line.
    pub data: String,
}

/// The hub.
#[derive(Debug)]
pub struct Events {
    number: AtomicU64,
    sender: broadcast::Sender<Event>,
}

impl Default for Events {
    fn default() -> Self {
        Self { number: AtomicU64::new(0), sender: broadcast::channel(BEHIND_MAX).0 }
    }
}

impl Events {
    /// Tells everybody.
    pub fn send<T: Serialize>(&self, kind: &'static str, what: &T) {
        let Ok(data) = serde_json::to_string(what) else { return };
        let number = self.number.fetch_add(1, Ordering::Relaxed) + 1;
        // Nobody listens: nobody is to be told.
        let _ = self.sender.send(Event { number, kind, data });
    }

    /// Whether anybody listens.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    /// Listens from here on.
    #[must_use]
    pub fn listen(&self) -> broadcast::Receiver<Event> {
        self.sender.subscribe()
    }
}
