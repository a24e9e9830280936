//! Alerts: what the board worries about, told to webhooks and by mail when it begins and when it is over; and the ping of a
//! dead-man switch, which is heard from for as long as everything is well.
//!
//! An alert and its messages are durable before the first is sent, in one change of the state: a daemon that is killed in
//! between sends it after its start, with the same id. So a receiver may hear a message twice, and never misses one that
//! can be delivered within three days.

mod conditions;
mod mail;
mod outbox;
mod sender;

pub use conditions::{Condition, OpenAlert};
pub use outbox::Message;
pub use sender::signature;

use crate::daemon::Daemon;
use conditions::{Told, now_open};
use holdfast_appliance::error::Result;
use holdfast_appliance::time::{Micros, now, show_time};
use outbox::Receiver;
use sender::Sender;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often conditions are compared and messages looked for.
const EVERY: Duration = Duration::from_secs(1);
/// A board older than this says nothing any more.
const BOARD_AGE_MAX: Micros = 15 * 60 * 1_000_000;

/// What is counted of alerts.
#[derive(Debug, Default)]
pub struct Counts {
    /// Messages that a webhook or a mail server took.
    pub delivered: AtomicU64,
    /// Tries that failed.
    pub failed: AtomicU64,
    /// Messages that were given up.
    pub dropped: AtomicU64,
    /// When the last ping was answered well; 0: never.
    pub pinged: AtomicI64,
}

/// Tells alerts until the daemon ends.
pub(crate) fn run(daemon: &Arc<Daemon>) {
    let mut told = Told::default();
    let mut pinged: Option<Micros> = None;
    let mut said = String::new();
    let mut sender: Option<Sender> = None;
    // No mail is tried before then: its server was not reached.
    let mut mail_rests = 0;
    while daemon.sleep(EVERY) {
        let config = daemon.config();
        let alerts = &config.alerts;
        if sender.as_ref().is_none_or(|s| !s.is_of(alerts)) {
            mail_rests = 0;
            sender = match Sender::new(alerts) {
                Ok(made) => Some(made),
                Err(error) => {
                    once(&mut said, &error.message);
                    None
                }
            };
        }
        let Some(sender) = &sender else { continue };
        let at = now();
        let board = daemon.look();
        if board.at > 0 {
            let outcome = daemon.state.read(|c| c.alerts.clone());
            let change = told.change(&now_open(&board), &outcome, alerts.after.0, at);
            if !change.is_empty()
                && let Err(error) = daemon.state.change(|content| outbox::put(content, &change, alerts, at))
            {
                once(&mut said, &error.message);
                continue;
            }
        }
        if let Err(error) = outbox::deliver(daemon, sender, alerts, &mut mail_rests) {
            once(&mut said, &error.message);
        }
        let Some(ping) = &alerts.ping else { continue };
        if pinged.is_some_and(|last| at < last.saturating_add(alerts.ping_every.0)) {
            continue;
        }
        let fresh = board.at > 0 && at.saturating_sub(board.at) < BOARD_AGE_MAX && daemon.is_alive();
        let well = fresh && board.servers.iter().all(|s| s.level != crate::board::Level::Red);
        // Nothing is known yet: silence is the truth for a moment.
        if board.at == 0 {
            continue;
        }
        let url = if well { Some(ping) } else { alerts.ping_fail.as_ref() };
        pinged = Some(at);
        let Some(url) = url else { continue };
        match sender.get(url, &|| daemon.is_stopping()) {
            Ok(()) if well => daemon.counters.alerts.pinged.store(at, Ordering::Relaxed),
            Ok(()) => {}
            Err(error) => once(&mut said, &format!("the ping was not taken: {error}")),
        }
    }
}

/// So long a test goes on before receivers are left out: whoever asked still waits.
const TEST_MAX: Duration = Duration::from_secs(40);

/// How a test message fared with one receiver.
#[derive(Clone, Debug, Serialize)]
pub struct Tested {
    /// `webhook` or `mail`.
    pub kind: &'static str,
    /// The webhook's host, or the person's address.
    pub receiver: String,
    /// Whether it was taken.
    pub taken: bool,
    /// Why it was not.
    pub trouble: Option<String>,
}

/// Tests that were begun lately. One sends to everybody who is told of alerts, and takes up to [`TEST_MAX`]: whoever may
/// ask for it must not be able to flood them.
#[derive(Debug, Default)]
pub(crate) struct Tests {
    begun: Mutex<Vec<Instant>>,
    running: AtomicBool,
}

/// So many tests may be begun in [`TESTS_TIME`].
const TESTS_MAX: usize = 5;
/// See [`TESTS_MAX`].
const TESTS_TIME: Duration = Duration::from_secs(300);

/// The place of a test that runs.
#[derive(Debug)]
pub(crate) struct TestTurn<'t>(&'t AtomicBool);

impl Drop for TestTurn<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Tests {
    /// Begins a test at `now`, or says after how long one may be begun.
    pub(crate) fn begin(&self, now: Instant) -> std::result::Result<TestTurn<'_>, Duration> {
        let mut begun = self.begun.lock().unwrap_or_else(PoisonError::into_inner);
        begun.retain(|at| now.saturating_duration_since(*at) < TESTS_TIME);
        if let (true, Some(first)) = (begun.len() >= TESTS_MAX, begun.first()) {
            return Err(TESTS_TIME.saturating_sub(now.saturating_duration_since(*first)));
        }
        if self.running.swap(true, Ordering::Relaxed) {
            return Err(TEST_MAX);
        }
        begun.push(now);
        Ok(TestTurn(&self.running))
    }
}

/// Sends a test message to every receiver, once: what is not taken is told, and not tried again.
///
/// # Errors
/// When nothing can be sent at all.
pub(crate) fn test(daemon: &Daemon) -> Result<Vec<Tested>> {
    let config = daemon.config();
    let sender = Sender::new(&config.alerts)?;
    let at = now();
    let id = format!("{}-test-{at}", daemon.state.read(|content| content.id.clone()));
    let body = serde_json::json!({
        "id": id,
        "event": "test",
        "at": show_time(at),
        "since": show_time(at),
        "server": null,
        "code": "test",
        "level": "green",
        "text": "This is a test: alerts of holdfastd reach you this way.",
    })
    .to_string();
    let begun = Instant::now();
    let stop = || daemon.is_stopping() || begun.elapsed() >= TEST_MAX;
    let tested = |receiver: &Receiver<'_>| {
        let message =
            Message { id: id.clone(), to: receiver.mark(), body: body.clone(), at, tries: 0, next: at };
        let (kind, name, sent) = match receiver {
            Receiver::Webhook(webhook) => ("webhook", webhook.host(), sender.post(webhook, &message, &stop)),
            Receiver::Person(to) => {
                let sent = sender.mail(to, &message, &stop).map_err(|refused| refused.why);
                ("mail", (*to).to_owned(), sent)
            }
        };
        Tested { kind, receiver: name, taken: sent.is_ok(), trouble: sent.err() }
    };
    Ok(outbox::receivers(&config.alerts).iter().map(tested).collect())
}

/// Says a sentence unless it was the last one said.
fn once(said: &mut String, text: &str) {
    if said != text {
        tracing::warn!("alerts: {text}");
        text.clone_into(said);
    }
}

/// Open alerts by level, for the metrics.
pub(crate) fn by_level(daemon: &Daemon) -> BTreeMap<&'static str, usize> {
    let mut counts = BTreeMap::from([("amber", 0), ("red", 0)]);
    daemon.state.read(|content| {
        for alert in content.alerts.values() {
            *counts.entry(alert.condition.level_word()).or_default() += 1;
        }
    });
    counts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_of_alerts_run_one_at_a_time_and_few_in_a_while() {
        let tests = Tests::default();
        let begun = Instant::now();
        let after = |seconds: u64| begun + Duration::from_secs(seconds);
        let running = tests.begin(after(0)).unwrap();
        assert_eq!(tests.begin(after(1)).unwrap_err(), TEST_MAX, "one runs");
        drop(running);
        for second in 2..=5 {
            drop(tests.begin(after(second)).unwrap());
        }
        assert_eq!(tests.begin(after(10)).unwrap_err(), Duration::from_secs(290));
        drop(tests.begin(after(300)).unwrap());
        assert_eq!(tests.begin(after(300)).unwrap_err(), Duration::from_secs(2));
    }
}
