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

/// What is to be sent now: to webhooks first, the oldest first. Mail waits until `mail_rests`: a mail server that answers
/// nothing costs a round all its time, and no webhook may wait behind it.
fn due(content: &Content, people: &[String], at: Micros, mail_rests: Micros) -> Vec<Message> {
    let is_mail = |m: &Message| people.contains(&m.to);
    let now = content.outbox.iter().filter(|m| m.next <= at && !(is_mail(m) && at < mail_rests));
    let mut due: Vec<Message> = now.cloned().collect();
    due.sort_by_key(is_mail);
    due
}

/// Notes that these were not taken: each is tried again later, and given up when it is too old. Returns how many went.
fn put_off(content: &mut Content, failed: &[Message], at: Micros) -> u64 {
    let is_one = |m: &Message| failed.iter().any(|f| f.id == m.id && f.to == m.to);
    let before = content.outbox.len();
    content.outbox.retain(|m| !is_one(m) || at < m.at.saturating_add(GIVEN_UP_AFTER));
    for m in content.outbox.iter_mut().filter(|m| is_one(m)) {
        m.next = at.saturating_add(pause(m.tries));
        m.tries += 1;
    }
    (before - content.outbox.len()) as u64
}

/// Sends what is due. One server takes all mail: when it is not reached, all mail is put off together, and no other is
/// tried before `mail_rests`, which this sets.
///
/// # Errors
/// When the state can't be written.
pub(super) fn deliver(
    daemon: &Daemon,
    sender: &Sender,
    alerts: &Alerts,
    mail_rests: &mut Micros,
) -> Result<()> {
    let people: Vec<String> = alerts.mail.iter().flat_map(|mail| &mail.to).map(|to| Mail::mark(to)).collect();
    let due = daemon.state.read(|content| due(content, &people, now(), *mail_rests));
    let counts = &daemon.counters.alerts;
    let receivers = receivers(alerts);
    let begun = Instant::now();
    for (n, message) in due.iter().enumerate() {
        if daemon.is_stopping() || begun.elapsed() >= ROUND_MAX {
            return Ok(());
        }
        let stop = || daemon.is_stopping();
        let mut unreached = false;
        let receiver = receivers.iter().find(|r| r.mark() == message.to);
        let sent = receiver.map(|receiver| match receiver {
            Receiver::Webhook(webhook) => sender.post(webhook, message, &stop),
            Receiver::Person(to) => sender.mail(to, message, &stop).map_err(|refused| {
                unreached = refused.unreached;
                refused.why
            }),
        });
        let at = now();
        match sent {
            Some(Err(_)) if daemon.is_stopping() => return Ok(()),
            Some(Err(error)) => {
                counts.failed.fetch_add(1, Ordering::Relaxed);
                tracing::warn!(id = %message.id, tries = message.tries + 1, "an alert was not taken: {error}");
                // Mail is last, so the rest of what is due is mail.
                let failed = due.get(n..).unwrap_or_default();
                let failed = if unreached { failed } else { std::slice::from_ref(message) };
                let gone = daemon.state.change(|content| put_off(content, failed, at))?;
                counts.dropped.fetch_add(gone, Ordering::Relaxed);
                if unreached {
                    *mail_rests = at.saturating_add(pause(message.tries));
                    return Ok(());
                }
            }
            other => {
                match other {
                    Some(Ok(())) => counts.delivered.fetch_add(1, Ordering::Relaxed),
                    // The receiver is in the configuration no more.
                    _ => counts.dropped.fetch_add(1, Ordering::Relaxed),
                };
                let is_this = |m: &Message| m.id == message.id && m.to == message.to;
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
    fn no_webhook_waits_behind_mail_that_nobody_takes_and_all_mail_is_put_off_together() {
        let message = |id: &str, to: &str, at| Message {
            id: id.into(),
            to: to.into(),
            body: String::new(),
            at,
            tries: 0,
            next: at,
        };
        let ids = |due: &[Message]| due.iter().map(|m| m.id.clone()).collect::<Vec<_>>();
        let (late, people) = (GIVEN_UP_AFTER + 1, vec!["person".to_owned()]);
        let mut content = Content::default();
        for (id, to, at) in
            [("1", "person", 0), ("2", "person", late), ("3", "hook", late), ("4", "hook", late)]
        {
            content.outbox.push(message(id, to, at));
        }
        let all = due(&content, &people, late, 0);
        assert_eq!(ids(&all), ["3", "4", "1", "2"]);
        assert_eq!(ids(&due(&content, &people, late, late + 1)), ["3", "4"], "mail rests");
        assert_eq!(put_off(&mut content, &all[2..], late), 1, "the oldest is given up");
        assert_eq!(ids(&due(&content, &people, late, 0)), ["3", "4"]);
        assert_eq!(ids(&due(&content, &people, late + pause(0), 0)), ["3", "4", "2"]);
    }

    #[test]
    fn pauses_grow_to_a_quarter_of_an_hour() {
        assert_eq!((pause(0), pause(1), pause(3)), (2_000_000, 4_000_000, 16_000_000));
        assert_eq!((pause(12), pause(u32::MAX)), (900_000_000, 900_000_000));
    }
}
