//! A rate that all copies of a process keep together, and that may change while they run.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is asked which rate holds.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// Longest nap: a rate that was lifted is felt so soon.
const NAP: Duration = Duration::from_millis(200);

/// Lets bytes through no faster than a rate that is asked for again and again.
pub struct Rate {
    /// Bytes a second now; `None`: as fast as it goes.
    asked: Box<dyn Fn() -> Option<u64> + Send + Sync>,
    state: Mutex<State>,
}

struct State {
    rate: Option<u64>,
    asked_at: Option<Instant>,
    /// When the next bytes may pass.
    next: Instant,
}

impl fmt::Debug for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rate").finish_non_exhaustive()
    }
}

impl Rate {
    /// A rate that `asked` tells, in bytes a second.
    #[must_use]
    pub fn new(asked: impl Fn() -> Option<u64> + Send + Sync + 'static) -> Self {
        let state = State { rate: None, asked_at: None, next: Instant::now() };
        Self { asked: Box::new(asked), state: Mutex::new(state) }
    }

    /// Returns when so many bytes may pass, or when whoever passes them wants to stop. Whoever comes first goes first; nobody
    /// saves up for later.
    pub fn pass(&self, bytes: usize, cancelled: &dyn Fn() -> bool) {
        let Some(until) = self.turn(bytes, Instant::now()) else { return };
        loop {
            let now = Instant::now();
            if now >= until || cancelled() || self.rate(&mut self.lock(), now).is_none() {
                return;
            }
            std::thread::sleep((until - now).min(NAP));
        }
    }

    /// When it is the turn of these bytes.
    fn turn(&self, bytes: usize, now: Instant) -> Option<Instant> {
        let mut state = self.lock();
        let rate = self.rate(&mut state, now)?;
        let turn = state.next.max(now);
        state.next = turn + Duration::from_secs_f64(bytes as f64 / rate.max(1) as f64);
        Some(turn)
    }

    fn rate(&self, state: &mut State, now: Instant) -> Option<u64> {
        if state.asked_at.is_none_or(|at| now.saturating_duration_since(at) >= ASK_EVERY) {
            (state.rate, state.asked_at) = ((self.asked)(), Some(now));
            if state.rate.is_none() {
                state.next = now;
            }
        }
        state.rate
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// On a clock of its own: nothing here waits.
    #[test]
    fn bytes_pass_at_the_rate_that_holds_and_a_lifted_one_lets_all_through() {
        let told = Arc::new(AtomicU64::new(1000));
        let asked = Arc::clone(&told);
        let rate = Rate::new(move || Some(asked.load(Ordering::Relaxed)).filter(|rate| *rate > 0));
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        assert_eq!(rate.turn(100, at(0)), Some(at(0)));
        assert_eq!(rate.turn(100, at(0)), Some(at(100)));
        assert_eq!(rate.turn(300, at(50)), Some(at(200)));
        // Nothing is saved up while nobody reads.
        assert_eq!(rate.turn(100, at(900)), Some(at(900)));
        told.store(100, Ordering::Relaxed);
        assert_eq!(rate.turn(100, at(999)), Some(at(1000)), "asked once a second");
        assert_eq!(rate.turn(100, at(1000)), Some(at(1100)));
        assert_eq!(rate.turn(1, at(1000)), Some(at(2100)));
        told.store(0, Ordering::Relaxed);
        assert_eq!(rate.turn(100, at(2000)), None);
        told.store(1000, Ordering::Relaxed);
        assert_eq!(rate.turn(100, at(3000)), Some(at(3000)), "what was waited for before is forgotten");
    }

    #[test]
    fn who_wants_to_stop_waits_for_no_turn() {
        let rate = Rate::new(|| Some(1));
        rate.pass(1 << 20, &|| false);
        // A turn that comes in twelve days.
        rate.pass(1, &|| true);
    }

    #[test]
    fn several_readers_share_it() {
        let rate = Rate::new(|| Some(10 << 20));
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..4).for_each(|_| rate.pass(64 << 10, &|| false)));
            }
        });
        // 16 pieces, the first at once: 15/160 s at least, however busy the machine is.
        assert!(begun.elapsed() >= Duration::from_millis(93), "{:?}", begun.elapsed());
    }
}
