//! One archive stream a server, for as long as the daemon lives: the same call as `holdfast archive`, begun again
//! whenever it ends.
//!
//! A stream begins once there is a base: nothing can be restored from log alone. One that a hole ended goes on behind
//! the base that the schedule takes because of it.

use crate::daemon::Daemon;
use holdfast_appliance::ServerRecord;
use holdfast_appliance::archive::archive;
use holdfast_appliance::progress::{Reading, Watcher};
use holdfast_appliance::server::has_log;
use holdfast_appliance::time::{Micros, now};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How soon a stream that ended is begun again, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// How often the streams are compared with the servers.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How a stream is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StreamView {
    /// `none` (a folder), `waiting` (for a first base), `paused`, `following`, `broken`.
    pub state: &'static str,
    /// Transactions since it was begun.
    pub transactions: u64,
    /// How far it is behind the source, seconds; `null`: never caught up since the daemon was started.
    pub lag_seconds: Option<f64>,
    /// Why it does not follow.
    pub trouble: Option<String>,
}

/// How one stream stands, as its thread says.
#[derive(Clone, Debug, Default)]
struct Standing {
    following: bool,
    caught_up: bool,
    /// When the source last had nothing that is not durable here.
    complete_at: Option<Micros>,
    last_us: Micros,
    transactions: u64,
    trouble: Option<String>,
    /// Rises with each transaction that became durable.
    changes: u64,
}

impl Standing {
    /// Seconds of the source's history that would be missing if it died now.
    fn lag(&self, now: Micros) -> Option<f64> {
        if self.following && self.caught_up {
            return Some(0.0);
        }
        let known = self.complete_at.into_iter().chain((self.last_us > 0).then_some(self.last_us)).max()?;
        Some(now.saturating_sub(known).max(0) as f64 / 1e6)
    }
}

/// All streams.
#[derive(Debug, Default)]
pub struct Streams {
    standing: Mutex<BTreeMap<String, Standing>>,
    pokes: AtomicU64,
}

impl Streams {
    /// How the stream of a server is.
    #[must_use]
    pub fn view(&self, server: &str, has_log: bool, paused: bool) -> StreamView {
        let standing = self.lock().get(server).cloned();
        let state = match &standing {
            _ if !has_log => "none",
            _ if paused => "paused",
            None => "waiting",
            Some(s) if s.following => "following",
            Some(_) => "broken",
        };
        let standing = standing.unwrap_or_default();
        StreamView {
            state,
            transactions: standing.transactions,
            lag_seconds: standing.lag(now()),
            trouble: standing.trouble,
        }
    }

    /// A number that is another one after transactions of this server became durable here.
    pub(crate) fn changes(&self, server: &str) -> u64 {
        self.lock().get(server).map_or(0, |standing| standing.changes)
    }

    /// Whether the log of this server is followed by us.
    pub(crate) fn is_following(&self, server: &str) -> bool {
        self.lock().get(server).is_some_and(|standing| standing.following)
    }

    /// Something changed that may let a broken stream go on: it is tried at once.
    pub fn poke(&self) {
        self.pokes.fetch_add(1, Ordering::Relaxed);
    }

    fn change(&self, server: &str, change: impl FnOnce(&mut Standing)) {
        change(self.lock().entry(server.to_owned()).or_default());
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Standing>> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a stream says, as it says it.
struct Ear<'a> {
    daemon: &'a Daemon,
    server: &'a str,
    stop: &'a AtomicBool,
}

impl Watcher for Ear<'_> {
    fn reading(&self, reading: Reading) {
        self.daemon.streams.change(self.server, |s| {
            s.changes += u64::from(s.transactions != reading.done);
            s.transactions = reading.done;
            (s.following, s.trouble) = (true, None);
        });
    }

    fn note(&self, text: &str) {
        tracing::info!(server = %self.server, "stream: {text}");
        let following = text.starts_with("following");
        let lost = text.starts_with("connection lost");
        if following || lost {
            self.daemon.streams.change(self.server, |s| {
                (s.following, s.caught_up) = (following, s.caught_up && following);
                s.trouble = lost.then(|| text.to_owned());
            });
        }
    }

    fn synced(&self, last_us: i64, caught_up: bool) {
        self.daemon.streams.change(self.server, |s| {
            s.caught_up = caught_up;
            s.last_us = s.last_us.max(last_us);
            if caught_up {
                s.complete_at = Some(now());
            }
        });
    }

    fn cancelled(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.daemon.is_stopping()
    }
}

struct Runner {
    stop: Arc<AtomicBool>,
    semi_sync: bool,
    thread: JoinHandle<()>,
}

/// Keeps one stream a server until the daemon ends.
pub(crate) fn keep_streams(daemon: &Arc<Daemon>) {
    let mut running: BTreeMap<String, Runner> = BTreeMap::new();
    while daemon.sleep(LOOK_EVERY) {
        let wanted = wanted(daemon);
        let config = daemon.config();
        for (name, runner) in &running {
            // One that is to wait for commits now, or no longer, is begun anew; no other one is touched.
            if !wanted.contains(name) || runner.semi_sync != config.is_semi_sync(name) {
                runner.stop.store(true, Ordering::Relaxed);
                daemon.wake();
            }
        }
        running.retain(|name, runner| {
            let goes = runner.thread.is_finished();
            if goes && !wanted.contains(name) {
                daemon.streams.lock().remove(name);
            }
            !goes
        });
        for name in wanted {
            if running.contains_key(&name) {
                continue;
            }
            let stop = Arc::new(AtomicBool::new(false));
            let semi_sync = config.is_semi_sync(&name);
            let (shared, flag, server) = (Arc::clone(daemon), Arc::clone(&stop), name.clone());
            let thread = std::thread::Builder::new()
                .name(format!("stream {name}"))
                .spawn(move || follow(&shared, &server, semi_sync, &flag));
            match thread {
                Ok(thread) => {
                    running.insert(name, Runner { stop, semi_sync, thread });
                }
                Err(error) => tracing::error!(server = %name, %error, "no thread for the stream"),
            }
        }
    }
    for (name, runner) in running {
        if runner.thread.join().is_err() {
            tracing::error!(server = %name, "the stream's thread died");
        }
    }
}

/// The servers whose log is to be followed now.
fn wanted(daemon: &Daemon) -> Vec<String> {
    let paused = daemon.state.read(|content| {
        let paused = content.servers.iter().filter(|(_, s)| s.paused);
        paused.map(|(name, _)| name.clone()).collect::<Vec<_>>()
    });
    daemon.catalogue.known(|known| {
        let based = |s: &&ServerRecord| known.of(s.id).is_some_and(|of| !of.bases.is_empty());
        let servers = known.servers().iter().filter(|s| has_log(s) && !paused.contains(&s.name));
        servers.filter(based).map(|s| s.name.clone()).collect()
    })
}

fn follow(daemon: &Daemon, server: &str, semi_sync: bool, stop: &AtomicBool) {
    let mut backoff = BACKOFF.0;
    let ear = Ear { daemon, server, stop };
    while !ear.cancelled() {
        let begun = Instant::now();
        let ended = archive(&daemon.catalogue, server, semi_sync, &ear);
        if ear.cancelled() {
            return;
        }
        let why = match ended {
            Ok(_) => "it ended".to_owned(),
            Err(error) => error.message,
        };
        let known = daemon.streams.lock().get(server).and_then(|s| s.trouble.clone());
        if known.as_ref() != Some(&why) {
            tracing::warn!(server = %server, "stream: {why}");
        }
        daemon.streams.change(server, |s| {
            (s.following, s.caught_up) = (false, false);
            s.trouble = Some(why);
        });
        backoff = if begun.elapsed() > BACKOFF.1 { BACKOFF.0 } else { (backoff * 2).min(BACKOFF.1) };
        let until = Instant::now() + backoff;
        let pokes = || daemon.streams.pokes.load(Ordering::Relaxed);
        let before = pokes();
        let _ = daemon.sleep_unless(until, || pokes() != before || ear.cancelled());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lag_is_what_would_be_missing_if_the_source_died_now() {
        let mut standing = Standing::default();
        assert_eq!(standing.lag(10), None, "nothing is known");
        standing = Standing { following: true, caught_up: true, complete_at: Some(1_000_000), ..standing };
        assert_eq!(standing.lag(9_000_000), Some(0.0), "an idle source has nothing more");
        standing.caught_up = false;
        standing.last_us = 7_000_000;
        assert_eq!(standing.lag(9_000_000), Some(2.0));
        standing.following = false;
        standing.last_us = 0;
        assert_eq!(standing.lag(9_000_000), Some(8.0));
    }
}
