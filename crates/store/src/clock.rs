//! Where time comes from.

use std::sync::atomic::{AtomicI64, Ordering};

/// Gives the time that records are stamped with.
pub trait Clock: Send + Sync + std::fmt::Debug {
    /// Microseconds since the Unix epoch.
    fn now_us(&self) -> i64;
}

/// A clock that stands until it is set, for tests and for callers that pass times in.
#[derive(Debug, Default)]
pub struct FixedClock(AtomicI64);

impl FixedClock {
    /// A clock that stands at this time, microseconds since the Unix epoch.
    #[must_use]
    pub fn new(now_us: i64) -> Self {
        Self(AtomicI64::new(now_us))
    }

    /// Sets it.
    pub fn set(&self, now_us: i64) {
        self.0.store(now_us, Ordering::Release);
    }
}

impl Clock for FixedClock {
    fn now_us(&self) -> i64 {
        self.0.load(Ordering::Acquire)
    }
}
