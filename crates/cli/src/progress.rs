//! Progress on the terminal: a line with rate and ETA, or one line per 10 s elsewhere.

use crate::output::size;
use holdfast_appliance::progress::{Reading, Watcher};
use std::io::{IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How often a terminal's line is drawn anew.
const DRAW_EVERY: Duration = Duration::from_millis(100);
/// How often a line is written when standard error is no terminal.
const LOG_EVERY: Duration = Duration::from_secs(10);

/// Draws progress on standard error, and carries the stop signal to the job.
pub struct Meter {
    stop: Arc<AtomicBool>,
    quiet: bool,
    terminal: bool,
    state: Mutex<State>,
}

struct State {
    phase: &'static str,
    phase_began: Instant,
    drawn: Instant,
    line_open: bool,
}

impl Meter {
    /// A meter that reports `stop` as the wish to stop; `quiet` draws nothing but notes.
    pub fn new(stop: Arc<AtomicBool>, quiet: bool) -> Self {
        let now = Instant::now();
        Self {
            stop,
            quiet,
            terminal: std::io::stderr().is_terminal(),
            state: Mutex::new(State { phase: "", phase_began: now, drawn: now, line_open: false }),
        }
    }

    /// Ends an open line, so that what follows starts on its own.
    pub fn finish(&self) {
        let Ok(mut state) = self.state.lock() else { return };
        if state.line_open {
            let _ = writeln!(std::io::stderr());
            state.line_open = false;
        }
    }
}

impl Watcher for Meter {
    fn reading(&self, reading: Reading) {
        if self.quiet {
            return;
        }
        let Ok(mut state) = self.state.lock() else { return };
        let now = Instant::now();
        let new_phase = state.phase != reading.phase;
        if new_phase {
            state.phase = reading.phase;
            state.phase_began = now;
        }
        let every = if self.terminal { DRAW_EVERY } else { LOG_EVERY };
        if now.duration_since(state.drawn) < every && !(new_phase && self.terminal) {
            return;
        }
        state.drawn = now;
        let text = line(reading, now.duration_since(state.phase_began));
        let mut err = std::io::stderr().lock();
        // A terminal that went away must not end the job.
        if self.terminal {
            let _ = write!(err, "\r\x1b[K{text}");
            let _ = err.flush();
            state.line_open = true;
        } else {
            let _ = writeln!(err, "{text}");
        }
    }

    fn note(&self, text: &str) {
        self.finish();
        let _ = writeln!(std::io::stderr(), "{text}");
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}

fn line(reading: Reading, elapsed: Duration) -> String {
    let show = |n: u64| if reading.bytes { size(n) } else { n.to_string() };
    let mut text = format!("{:<9}", reading.phase);
    match reading.total.filter(|&total| total > 0) {
        Some(total) => {
            let percent = reading.done as f64 * 100.0 / total as f64;
            text.push_str(&format!(" {percent:3.0}%  {} of {}", show(reading.done), show(total)));
        }
        None => text.push_str(&format!(" {}", show(reading.done))),
    }
    let seconds = elapsed.as_secs_f64();
    if seconds >= 0.5 && reading.done > 0 {
        let rate = reading.done as f64 / seconds;
        text.push_str(&format!("  {}/s", show(rate as u64)));
        if let Some(left) = reading.total.and_then(|t| t.checked_sub(reading.done)).filter(|&l| l > 0) {
            let eta_us = (left as f64 / rate * 1e6).min(i64::MAX as f64) as i64;
            text.push_str(&format!("  eta {}", crate::output::duration(eta_us)));
        }
    }
    if let Some(limit) = reading.limit {
        text.push_str(&format!("  ({limit})"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_phase_percentage_rate_and_eta() {
        let reading =
            Reading { phase: "copy", done: 50 << 20, total: Some(100 << 20), bytes: true, limit: None };
        let text = line(reading, Duration::from_secs(5));
        assert_eq!(text, "copy       50%  50.0 MiB of 100 MiB  10.0 MiB/s  eta 5.0 s");
    }

    #[test]
    fn a_replay_says_what_it_waits_for() {
        let limit = Some("the server applies rows in order");
        let reading = Reading { phase: "replay", done: 10, total: Some(40), bytes: false, limit };
        let text = line(reading, Duration::ZERO);
        assert_eq!(text, "replay     25%  10 of 40  (the server applies rows in order)");
    }

    #[test]
    fn a_phase_of_unknown_length_shows_no_percentage() {
        let reading = Reading { phase: "archive", done: 10, total: None, bytes: false, limit: None };
        assert_eq!(line(reading, Duration::ZERO), "archive   10");
    }
}
