//! What the program says on its standard error.

use std::collections::VecDeque;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Last lines kept for an error's text.
const TAIL_LINES: usize = 20;
/// Longest line kept.
const LINE_BYTES_MAX: usize = 2000;

/// The program's words, and what follows from them.
#[derive(Debug)]
pub(super) struct Log {
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    tail: VecDeque<String>,
    completed: bool,
    holds_locks: bool,
    waits_for_locks: bool,
    commits_held_since: Option<Instant>,
    commit_stall: Duration,
    last_sign: Instant,
}

impl Log {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                tail: VecDeque::new(),
                completed: false,
                holds_locks: false,
                waits_for_locks: false,
                commits_held_since: None,
                commit_stall: Duration::ZERO,
                last_sign: Instant::now(),
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads to the end.
    pub(super) fn follow(&self, mut stderr: impl Read) {
        let mut line = Vec::new();
        let mut buffer = [0; 4096];
        // An error of this pipe is its end: the exit status will tell.
        while let Ok(count @ 1..) = stderr.read(&mut buffer) {
            self.alive();
            for &byte in buffer.get(..count).unwrap_or_default() {
                if byte == b'\n' {
                    self.line(&String::from_utf8_lossy(&line));
                    line.clear();
                } else if line.len() < LINE_BYTES_MAX {
                    line.push(byte);
                }
            }
        }
        if !line.is_empty() {
            self.line(&String::from_utf8_lossy(&line));
        }
    }

    /// Takes one line in.
    pub(super) fn line(&self, line: &str) {
        let line = line.trim_end();
        let mut state = self.lock();
        // The very last line counts: anything said after it is a change of mind.
        state.completed = line.ends_with("completed OK!");
        if line.contains("Starting BACKUP STAGE") || line.contains("Started BACKUP STAGE") {
            state.waits_for_locks = true;
        } else if line.contains("Acquired locks for BACKUP STAGE") {
            state.waits_for_locks = false;
        }
        if line.contains("BACKUP STAGE FLUSH") || line.contains("BACKUP STAGE BLOCK_DDL") {
            state.holds_locks = true;
        } else if line.ends_with("Starting BACKUP STAGE BLOCK_COMMIT")
            || line.contains("FLUSH TABLES WITH READ LOCK")
        {
            // Counted from the request on: a lock that is waited for holds up those behind it.
            state.holds_locks = true;
            state.commits_held_since.get_or_insert_with(Instant::now);
        } else if line.ends_with("Executing BACKUP STAGE END") || line.contains("Executing UNLOCK TABLES") {
            state.holds_locks = false;
            if let Some(since) = state.commits_held_since.take() {
                state.commit_stall += since.elapsed();
            }
        }
        // One line a file would push everything else out.
        if !line.contains("Streaming ") && !line.ends_with("...done") {
            if state.tail.len() == TAIL_LINES {
                state.tail.pop_front();
            }
            state.tail.push_back(line.to_owned());
        }
    }

    /// A byte came on either output.
    pub(super) fn alive(&self) {
        self.lock().last_sign = Instant::now();
    }

    pub(super) fn silent_for(&self) -> Duration {
        self.lock().last_sign.elapsed()
    }

    /// True if the server waits for the program in one way or another.
    pub(super) fn holds_locks(&self) -> bool {
        self.lock().holds_locks
    }

    /// True from a request for a lock to the word that it was granted.
    pub(super) fn waits_for_locks(&self) -> bool {
        self.lock().waits_for_locks
    }

    /// For how long commits have been waiting now.
    pub(super) fn commits_held_for(&self) -> Duration {
        self.lock().commits_held_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// For how long commits waited in all.
    pub(super) fn commit_stall(&self) -> Duration {
        self.lock().commit_stall
    }

    pub(super) fn completed(&self) -> bool {
        self.lock().completed
    }

    /// Its last words, each on a line of its own, to be put behind a sentence.
    pub(super) fn tail(&self) -> String {
        self.lock().tail.iter().map(|line| format!("\n  {line}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stages_are_read_from_the_words_of_a_real_run() {
        let log = Log::new();
        log.line("[00] 2026-11-21 06:58:14 Finished BACKUP STAGE START");
        assert!(!log.holds_locks());
        log.line("[00] 2026-11-21 06:58:14 Starting BACKUP STAGE FLUSH");
        assert!(log.holds_locks());
        assert_eq!(log.commits_held_for(), Duration::ZERO);
        log.line("[00] 2026-11-21 06:58:15 Starting BACKUP STAGE BLOCK_COMMIT");
        std::thread::sleep(Duration::from_millis(3));
        assert!(log.commits_held_for() >= Duration::from_millis(3));
        assert!(log.waits_for_locks());
        log.line("[00] 2026-11-21 06:58:15 Acquired locks for BACKUP STAGE BLOCK_COMMIT");
        assert!(!log.waits_for_locks());
        log.line("[00] 2026-11-21 06:58:15 Executing BACKUP STAGE END");
        assert_eq!(log.commits_held_for(), Duration::ZERO);
        assert!(log.commit_stall() >= Duration::from_millis(3) && !log.holds_locks());
    }

    #[test]
    fn only_the_last_line_can_say_that_all_went_well() {
        let log = Log::new();
        log.follow(&b"[00] completed OK!\n[00] FATAL: no\n"[..]);
        assert!(!log.completed() && log.tail().contains("FATAL"));
        log.follow(&b"[00] 2026-11-21 06:58:15 completed OK!"[..]);
        assert!(log.completed());
    }
}
