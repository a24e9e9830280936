//! What the configuration says now: what a person may want to look up, and nothing that may be a secret. It is written in
//! its file, by a person.

use super::answer::{Outcome, json};
use super::api::Request;
use crate::config::Config;
use crate::daemon::Daemon;
use holdfast_appliance::time::show_time;
use hyper::StatusCode;
use serde_json::{Value, json as document};

pub(super) fn settings(daemon: &Daemon, _: &Request) -> Outcome {
    let config = daemon.config();
    let (ok, read) = daemon.reloads.last();
    let mut view = told(&config);
    if let Some(fields) = view.as_object_mut() {
        fields.insert("read".to_owned(), Value::String(show_time(read)));
        fields.insert("last_reload_ok".to_owned(), Value::Bool(ok));
        let servers = daemon.catalogue.servers();
        let of = |name: &str| document!({ "server": name, "policy": config.policy_of(name).0, "semi_sync": config.is_semi_sync(name) });
        fields.insert("servers".to_owned(), servers.iter().map(|server| of(&server.name)).collect());
    }
    json(StatusCode::OK, &view)
}

/// The configuration without what may be a secret.
pub(crate) fn told(config: &Config) -> Value {
    let alerts = &config.alerts;
    document!({
        "file": config.file,
        "jobs": config.jobs,
        "connections": config.connections,
        "restore_into": config.restore_into,
        "policies": config.policies,
        "checks": config.checks,
        "prune": config.prune,
        "drills": config.drills,
        "bandwidth": config.limits.bandwidth.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "bandwidth_timezone": config.limits.timezone,
        "network": config.listen.as_ref().map(|listen| listen.address.to_string()),
        // Addresses may be secrets: the host is said, and no more.
        "webhooks": alerts.webhooks.iter().map(crate::config::Webhook::host).collect::<Vec<_>>(),
        "mail": alerts.mail.as_ref().map(|mail| mail.host.clone()),
        "ping": alerts.ping.is_some(),
        "alert_after": alerts.after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_a_secret_is_not_told() {
        let text = "repository = '/srv/r'\npassphrase_file = '/etc/p'\n[alerts]\nping = 'https://hc.example/secret-ping'\n\
             [[alerts.webhook]]\nurl = 'https://hooks.example/secret-hook'\nsecret_file = '/etc/secret-file'\n";
        let config: Config = toml::from_str(text).unwrap();
        let told = told(&config).to_string();
        assert!(told.contains("hooks.example") && !told.contains("secret"), "{told}");
    }
}
