//! How far a check is: counted by the workers, shown by whoever wants to.

use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Counters of a running check. Workers add, a display reads; both as often as they like.
#[derive(Debug)]
pub struct Progress {
    phase: Mutex<Phase>,
    done: AtomicU64,
    total: AtomicU64,
    bad: AtomicU64,
}

#[derive(Debug, Clone, Copy)]
struct Phase {
    name: &'static str,
    since: Instant,
}

/// What a display shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// What is being checked.
    pub phase: &'static str,
    /// Bytes read in this phase.
    pub done: u64,
    /// Bytes to read in this phase; 0 if nobody knows yet.
    pub total: u64,
    /// Flaws found so far, in all phases.
    pub bad: u64,
    /// How long the phase runs.
    pub running: Duration,
}

impl Default for Progress {
    fn default() -> Self {
        Self {
            phase: Mutex::new(Phase { name: "opening", since: Instant::now() }),
            done: AtomicU64::new(0),
            total: AtomicU64::new(0),
            bad: AtomicU64::new(0),
        }
    }
}

impl Progress {
    /// A phase begins, with so many bytes to read.
    pub fn begin(&self, name: &'static str, total_bytes: u64) {
        *self.phase.lock().unwrap_or_else(PoisonError::into_inner) = Phase { name, since: Instant::now() };
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total_bytes, Ordering::Relaxed);
    }

    /// Bytes were read and checked.
    pub fn add(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// A flaw was found.
    pub fn flaw(&self) {
        self.bad.fetch_add(1, Ordering::Relaxed);
    }

    /// Where the check stands.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let phase = *self.phase.lock().unwrap_or_else(PoisonError::into_inner);
        Reading {
            phase: phase.name,
            done: self.done.load(Ordering::Relaxed),
            total: self.total.load(Ordering::Relaxed),
            bad: self.bad.load(Ordering::Relaxed),
            running: phase.since.elapsed(),
        }
    }
}

impl Reading {
    /// Bytes a second since the phase began.
    #[must_use]
    pub fn rate(&self) -> u64 {
        let ms = u64::try_from(self.running.as_millis()).unwrap_or(u64::MAX).max(1);
        u64::try_from(u128::from(self.done).saturating_mul(1000) / u128::from(ms)).unwrap_or(u64::MAX)
    }

    /// How long the rest takes at this rate; `None` before anything is known.
    #[must_use]
    pub fn eta(&self) -> Option<Duration> {
        let left = self.total.saturating_sub(self.done);
        match self.rate() {
            0 => None,
            rate if self.total > 0 => Some(Duration::from_secs(left.div_ceil(rate))),
            _ => None,
        }
    }

    /// One line: `segments  61%  1.2/1.9 GiB  2.3 GiB/s  eta 5m03s  1 BAD`.
    #[must_use]
    pub fn line(&self) -> String {
        let mut line = format!("{:<9}", self.phase);
        if self.total > 0 {
            let percent = u128::from(self.done).saturating_mul(100) / u128::from(self.total);
            line += &format!(" {:>3}%  {} of {}", percent.min(100), size(self.done), size(self.total));
        } else {
            line += &format!(" {}", size(self.done));
        }
        line += &format!("  {}/s", size(self.rate()));
        if let Some(eta) = self.eta() {
            line += &format!("  eta {}", duration(eta));
        }
        if self.bad > 0 {
            line += &format!("  {} BAD", self.bad);
        }
        line
    }
}

/// Bytes in IEC units: `812 B`, `1.5 MiB`.
#[must_use]
pub fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths, rounded down, so that what is shown as done is done.
    let mut tenths = u128::from(bytes).saturating_mul(10) / 1024;
    let mut unit = units.first().copied().unwrap_or("KiB");
    for next in units.iter().skip(1) {
        if tenths < 10_240 {
            break;
        }
        tenths /= 1024;
        unit = next;
    }
    format!("{}.{} {unit}", tenths / 10, tenths % 10)
}

/// `42s`, `5m03s`, `2h07m`.
#[must_use]
pub fn duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s:02}s"),
        (h, m, _) => format!("{h}h{m:02}m"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_times_read_as_people_write_them() {
        assert_eq!(size(0), "0 B");
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(64 << 20), "64.0 MiB");
        assert_eq!(size(u64::MAX), "16383.9 PiB");
        assert_eq!(duration(Duration::from_secs(59)), "59s");
        assert_eq!(duration(Duration::from_secs(303)), "5m03s");
        assert_eq!(duration(Duration::from_secs(7620)), "2h07m");
    }

    #[test]
    fn a_reading_tells_rate_and_time_left() {
        let reading = Reading {
            phase: "segments",
            done: 50 << 20,
            total: 100 << 20,
            bad: 1,
            running: Duration::from_secs(5),
        };
        assert_eq!(reading.rate(), 10 << 20);
        assert_eq!(reading.eta(), Some(Duration::from_secs(5)));
        assert_eq!(reading.line(), "segments   50%  50.0 MiB of 100.0 MiB  10.0 MiB/s  eta 5s  1 BAD");
        assert_eq!(Reading { done: 0, ..reading }.eta(), None);
    }
}
