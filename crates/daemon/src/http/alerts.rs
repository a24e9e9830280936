//! Alerts: what is open, and whether messages about it reach anybody.

use super::answer::{Outcome, Refusal, json};
use super::api::Request;
use super::once::once;
use crate::alerts;
use crate::daemon::Daemon;
use holdfast_appliance::error::Error;
use holdfast_appliance::time::show_time;
use hyper::StatusCode;
use serde_json::json;
use std::time::Instant;

/// Alerts that were told and are not over.
pub(super) fn open(daemon: &Daemon, _: &Request) -> Outcome {
    let config = daemon.config();
    let people = config.alerts.mail.as_ref().map_or(0, |mail| mail.to.len());
    let answer = daemon.state.read(|content| {
        let open = content.alerts.values().map(|alert| {
            json!({
                "server": alert.condition.server,
                "code": alert.condition.code,
                "level": alert.condition.level,
                "text": alert.condition.text,
                "since": show_time(alert.since),
            })
        });
        json!({
            "alerts": open.collect::<Vec<_>>(),
            "waiting": content.outbox.len(),
            "webhooks": config.alerts.webhooks.len(),
            "people": people,
        })
    });
    json(StatusCode::OK, &answer)
}

/// Sends a test message to everybody who is told of alerts.
pub(super) fn test(daemon: &Daemon, asked: &Request) -> Outcome {
    let told = daemon.config().alerts.clone();
    if told.webhooks.is_empty() && told.mail.is_none() {
        return Err(Error::usage("Nobody is told of alerts.")
            .with_next("name somebody in the configuration: [alerts.mail] or [[alerts.webhook]]")
            .into());
    }
    once(daemon, asked, || {
        let _turn = daemon.tested.begin(Instant::now()).map_err(|wait| {
            let why = "Alerts are being tested, or were tested several times just now.".to_owned();
            Refusal::TooOften(why, wait.as_secs().max(1))
        })?;
        daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
        json(StatusCode::OK, &json!({ "receivers": alerts::test(daemon)? }))
    })
}
