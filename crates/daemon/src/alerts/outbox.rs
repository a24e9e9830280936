//! Messages on their way to webhooks and people: kept until they are taken, tried again with growing pauses, given up after three days.

use super::conditions::{Change, OpenAlert};
use super::sender::Sender;
use crate::config::{Alerts, Mail, Webhook};
use crate::daemon::Daemon;
use crate::state::Content;
use holdfast_appliance::error::Result;
use holdfast_appliance::time::{Micros, now, show_time};
use serde::{Deserialize, Serialize};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Messages that are kept at most; the oldest go.
const MESSAGES_MAX: usize = 1000;
/// The first pause after a failed try, and the longest.
const PAUSE: (Micros, Micros) = (2_000_000, 15 * 60 * 1_000_000);
/// After so long it is given up.
const GIVEN_UP_AFTER: Micros = 3 * 86_400 * 1_000_000;

/// So long it goes on sending before other things are looked at again: the ping must not wait for slow receivers.
const ROUND_MAX: Duration = Duration::from_secs(30);

/// Somebody who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Receiver<'a> {
    /// A program.
    Webhook(&'a Webhook),
    /// A person's address.
    Person(&'a str),
}

impl Receiver<'_> {
    /// What messages to him are marked with.
    pub(super) fn mark(&self) -> String {
        match self {
            Self::Webhook(webhook) => webhook.mark(),
            Self::Person(to) => Mail::mark(to),
        }
    }
}

/// All who are told.
pub(super) fn receivers(alerts: &Alerts) -> Vec<Receiver<'_>> {
    let people = alerts.mail.iter().flat_map(|mail| mail.to.iter().map(|to| Receiver::Person(to)));
    alerts.webhooks.iter().map(Receiver::Webhook).chain(people).collect()
}

/// A message to one receiver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// The same for every receiver and every try.
    pub id: String,
    /// Which receiver: [`Webhook::mark`], [`Mail::mark`]. Addresses may be secrets, and are in the configuration only.
    pub to: String,
    /// JSON, as it is signed and sent to a webhook; a mail is made of it.
    pub body: String,
    /// When it was put here.
    pub at: Micros,
    /// Tries that failed.
    pub tries: u32,
    /// When it is tried next.
    pub next: Micros,
}

/// Notes what is news, with a message for each receiver.
pub(super) fn put(content: &mut Content, change: &Change, alerts: &Alerts, now: Micros) {
    for (key, alert) in &change.raised {
        message(content, "raised", alert, alerts, now);
        content.alerts.insert(key.clone(), alert.clone());
    }
    for key in &change.resolved {
        if let Some(alert) = content.alerts.remove(key) {
            message(content, "resolved", &alert, alerts, now);
        }
    }
    let surplus = content.outbox.len().saturating_sub(MESSAGES_MAX);
    content.outbox.drain(..surplus);
}

fn message(content: &mut Content, event: &str, alert: &OpenAlert, alerts: &Alerts, now: Micros) {
    content.alerts_told += 1;
    let id = format!("{}-{}", content.id, content.alerts_told);
    let body = serde_json::json!({
        "id": id,
        "event": event,
        "at": show_time(now),
        "since": show_time(alert.since),
        "server": alert.condition.server,
        "code": alert.condition.code,
        "level": alert.condition.level,
        "text": alert.condition.text,
    })
    .to_string();
    content.outbox.extend(receivers(alerts).iter().map(|receiver| Message {
        id: id.clone(),
        to: receiver.mark(),
        body: body.clone(),
        at: now,
        tries: 0,
        next: now,
    }));
}

/// The pause after so many failed tries.
fn pause(tries: u32) -> Micros {
    PAUSE.0.saturating_mul(1 << tries.min(20)).min(PAUSE.1)
}

/// Sends what is due, the oldest first.
///
/// # Errors
/// When the state can't be written.
pub(super) fn deliver(daemon: &Daemon, sender: &Sender, alerts: &Alerts) -> Result<()> {
    let due: Vec<Message> =
        daemon.state.read(|content| content.outbox.iter().filter(|m| m.next <= now()).cloned().collect());
    let counts = &daemon.counters.alerts;
    let receivers = receivers(alerts);
    let begun = Instant::now();
    // One server takes all mail: when it can't be reached, the others' messages wait with the first.
    let mut unreached: Option<String> = None;
    for message in due {
        if daemon.is_stopping() || begun.elapsed() >= ROUND_MAX {
            return Ok(());
        }
        let stop = || daemon.is_stopping();
        let receiver = receivers.iter().find(|r| r.mark() == message.to);
        let sent = receiver.map(|receiver| match (receiver, &unreached) {
            (Receiver::Webhook(webhook), _) => sender.post(webhook, &message, &stop),
            (Receiver::Person(_), Some(why)) => Err(why.clone()),
            (Receiver::Person(to), None) => sender.mail(to, &message, &stop).map_err(|refused| {
                if refused.unreached {
                    unreached = Some(refused.why.clone());
                }
                refused.why
            }),
        });
        let at = now();
        let is_this = |m: &Message| m.id == message.id && m.to == message.to;
        match sent {
            Some(Err(_)) if daemon.is_stopping() => return Ok(()),
            Some(Err(error)) if at < message.at.saturating_add(GIVEN_UP_AFTER) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(id = %message.id, tries = message.tries + 1, "an alert was not taken: {error}");
                daemon.state.change(|content| {
                    for m in content.outbox.iter_mut().filter(|m| is_this(m)) {
                        m.next = at.saturating_add(pause(m.tries));
                        m.tries += 1;
                    }
                })?;
            }
            other => {
                match other {
                    Some(Ok(())) => counts.delivered.fetch_add(1, Ordering::Relaxed),
                    // Given up, or the receiver is in the configuration no more.
                    _ => counts.dropped.fetch_add(1, Ordering::Relaxed),
                };
                daemon.state.change(|content| content.outbox.retain(|m| !is_this(m)))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::alerts::Condition;
    use crate::board::Level;
    use crate::config::Webhook;
    use crate::state::State;

    #[test]
    fn an_alert_and_its_messages_are_durable_together_and_keep_their_id() {
        let dir = tempfile::tempdir().unwrap();
        let webhook = |url: &str| Webhook { url: url.into(), secret_file: "/secret".into() };
        let alerts = Alerts {
            webhooks: vec![webhook("https://a/token-1"), webhook("https://b/")],
            mail: Some(
                toml::from_str("host = 'mail.example.org'\nfrom = 'h@example.org'\nto = ['ops@example.org']")
                    .unwrap(),
            ),
            ..Alerts::default()
        };
        let condition = Condition {
            server: Some("shop".into()),
            code: "hole".into(),
            level: Level::Red,
            text: "x".into(),
        };
        let mut change = Change::default();
        change.raised.insert("shop/hole".into(), OpenAlert { condition, since: 5 });
        let state = State::open(dir.path(), 0).unwrap();
        state.change(|content| put(content, &change, &alerts, 7)).unwrap();
        drop(state);
        let state = State::open(dir.path(), 0).unwrap();
        state.read(|content| {
            assert_eq!((content.alerts.len(), content.outbox.len()), (1, 3));
            assert_eq!(content.outbox[0].id, content.outbox[1].id);
            assert!(content.outbox[0].body.contains("\"event\":\"raised\""), "{:?}", content.outbox);
        });
        let text = std::fs::read_to_string(dir.path().join("state.json")).unwrap();
        assert!(!text.contains("token-1") && !text.contains("ops@"), "an address may be a secret");
        let resolved = Change { resolved: vec!["shop/hole".into()], ..Change::default() };
        state.change(|content| put(content, &resolved, &alerts, 9)).unwrap();
        state.read(|content| {
            assert_eq!((content.alerts.len(), content.outbox.len()), (0, 6));
            assert_ne!(content.outbox[0].id, content.outbox[3].id);
            assert_eq!(content.outbox[2].to, Mail::mark("ops@example.org"));
        });
        let mut content = Content::default();
        for _ in 0..MESSAGES_MAX {
            put(&mut content, &change, &alerts, 9);
        }
        assert_eq!(content.outbox.len(), MESSAGES_MAX);
        assert_eq!(content.outbox.last().unwrap().id, format!("-{MESSAGES_MAX}"), "the oldest went");
    }

    #[test]
    fn pauses_grow_to_a_quarter_of_an_hour() {
        assert_eq!((pause(0), pause(1), pause(3)), (2_000_000, 4_000_000, 16_000_000));
        assert_eq!((pause(12), pause(u32::MAX)), (900_000_000, 900_000_000));
    }
}
