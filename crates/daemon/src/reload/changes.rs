//! What a reload changes, for the audit log: each key with its old and its new value, and no secret.

use crate::config::Config;
use crate::http::told;
use crate::tokens::Tokens;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// Longest text of all changes but those of tokens and approvals, bytes: more of them are counted.
const TEXT_MAX: usize = 2000;
/// Longest text of a value.
const VALUE_MAX: usize = 200;
/// Letters of a mark that stands for a text.
const MARK_LETTERS: usize = 8;

/// The changes in one line; `waiting` are the keys that hold from the next start on.
///
/// Who may do what, and whether a second person is asked, comes first and is never cut: nothing else may push it out.
pub(super) fn words(old: (&Config, &Tokens), new: (&Config, &Tokens), waiting: &[&str]) -> String {
    let mut changes = Vec::new();
    differ("", &view(old.0), &view(new.0), &mut changes);
    for change in &mut changes {
        if waiting
            .iter()
            .any(|key| change.starts_with(&format!("{key} ")) || change.starts_with(&format!("{key}.")))
        {
            change.push_str(" (from the next start on)");
        }
    }
    let (approval, rest): (Vec<_>, Vec<_>) =
        changes.into_iter().partition(|change| change.starts_with("approval"));
    let mut told = tokens(old.1, new.1);
    told.extend(approval);
    if told.is_empty() && rest.is_empty() {
        let something = old.0 != new.0;
        return if something { "keys that are not told here changed" } else { "nothing changed" }.to_owned();
    }
    let mut room = TEXT_MAX;
    let count = rest.len();
    for (at, change) in rest.into_iter().enumerate() {
        if change.len() > room {
            told.push(format!("and {} more", count - at));
            break;
        }
        room -= change.len();
        told.push(change);
    }
    told.join("; ")
}

/// Stands for what may hold a secret, or is too long: equal for equal texts, and says nothing of them to who can't guess
/// them whole.
fn mark(what: &impl std::fmt::Debug) -> String {
    blake3::hash(format!("{what:?}").as_bytes()).to_hex().chars().take(MARK_LETTERS).collect()
}

/// All that may be told of a configuration. Statements of check queries and addresses of alerts may hold anything: a mark
/// is told, which is another one when they are.
fn view(config: &Config) -> Value {
    let mut view = told(config);
    let policies = view.as_object_mut().and_then(|all| all.remove("policies")).unwrap_or_default();
    let mail = config.alerts.mail.as_ref();
    let servers = config.servers.iter().map(|server| {
        let of = json!({
            "policy": server.policy,
            "semi_sync": server.semi_sync,
            "check_queries": server.check_queries.len(),
            "check_queries_mark": (!server.check_queries.is_empty()).then(|| mark(&server.check_queries)),
            "check_file": server.check_file,
            "copy_from": server.copy_from,
            "max_replica_lag": server.max_replica_lag,
        });
        (server.name.clone(), of)
    });
    let servers: serde_json::Map<String, Value> = servers.collect();
    let alerts: Vec<(&str, Value)> = ["webhooks", "mail", "ping", "alert_after"]
        .into_iter()
        .map(|key| (key, view.as_object_mut().and_then(|all| all.remove(key)).unwrap_or_default()))
        .collect();
    let fields = [
        ("policy", policies),
        ("server", Value::Object(servers)),
        ("approval", json!({ "required": config.approval.required, "within": config.approval.within })),
        ("repository", json!(config.repository)),
        ("passphrase_file", json!(config.passphrase_file)),
        ("state", json!(config.state)),
        ("logins", json!(config.logins)),
        ("socket", json!(config.socket)),
        ("socket_mode", json!(config.socket_mode)),
        ("spool", json!(config.spool)),
        ("engines", json!({ "mysql": config.engines.mysql, "mariadb": config.engines.mariadb })),
        (
            "log",
            json!({ "format": format!("{:?}", config.log.format).to_lowercase(), "level": config.log.level }),
        ),
        ("listen", listen(config)),
        ("alerts", json!({ "to": mail.map(|mail| mail.to.len()), "mark": mark(&config.alerts) })),
    ];
    if let Some(all) = view.as_object_mut() {
        all.remove("file");
        all.remove("network");
        all.extend(fields.into_iter().map(|(key, value)| (key.to_owned(), value)));
        if let Some(told) = all.get_mut("alerts").and_then(Value::as_object_mut) {
            told.extend(alerts.into_iter().map(|(key, value)| (key.to_owned(), value)));
        }
    }
    view
}

fn listen(config: &Config) -> Value {
    config.listen.as_ref().map_or(Value::Null, |listen| {
        json!({
            "address": listen.address.to_string(),
            "certificate": listen.certificate,
            "key": listen.key,
            "tokens": listen.tokens,
            "allow": listen.allow.iter().map(ToString::to_string).collect::<Vec<_>>(),
        })
    })
}

/// Each place in which two documents differ, as `a.b old -> new`.
fn differ(path: &str, old: &Value, new: &Value, changes: &mut Vec<String>) {
    if old == new {
        return;
    }
    if let (Value::Object(before), Value::Object(after)) = (old, new) {
        let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
        for key in keys {
            let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
            let of = |all: &serde_json::Map<String, Value>| all.get(key).cloned().unwrap_or_default();
            differ(&path, &of(before), &of(after), changes);
        }
        return;
    }
    changes.push(format!("{path} {} -> {}", short(old), short(new)));
}

fn short(value: &Value) -> String {
    let text = match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    if text.len() <= VALUE_MAX {
        return text;
    }
    text.chars().take(VALUE_MAX).chain("...".chars()).collect()
}

/// Who came, who went, whose role or token is another one.
fn tokens(old: &Tokens, new: &Tokens) -> Vec<String> {
    let role = |role: &crate::tokens::Role| short(&json!(role));
    let mut changes = Vec::new();
    for (name, is, hash) in new.all() {
        match old.all().find(|(known, ..)| *known == name) {
            None => changes.push(format!("token {name} added as {}", role(is))),
            Some((_, was, _)) if was != is => {
                changes.push(format!("token {name} {} -> {}", role(was), role(is)));
            }
            Some((.., known)) if known != hash => changes.push(format!("token {name} replaced")),
            Some(_) => {}
        }
    }
    let gone = old.all().filter(|(known, ..)| !new.all().any(|(name, ..)| name == *known));
    changes.extend(gone.map(|(name, ..)| format!("token {name} removed")));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        toml::from_str(&format!("repository = '/r'\npassphrase_file = '/p'\n{text}")).unwrap()
    }

    fn entry(name: &str, role: &str, hash: char) -> String {
        let hash: String = std::iter::repeat_n(hash, 64).collect();
        format!("[[token]]\nname = '{name}'\nrole = '{role}'\nhash = '{hash}'\n")
    }

    #[test]
    fn each_change_is_told_with_both_values_and_what_may_be_a_secret_without() {
        let before = "jobs = 2\n[approval]\nrequired = true\n[policy.default]\nwindow = '35d'\n\
            [[alerts.webhook]]\nurl = 'https://hooks.example/secret-one'\nsecret_file = '/etc/secret-file'\n";
        let after = "jobs = 5\n[policy.default]\nwindow = '7d'\n[policy.short]\nmax_age = '6h'\n\
            [[server]]\nname = 'shop'\npolicy = 'short'\n\
            [[alerts.webhook]]\nurl = 'https://hooks.example/secret-two'\nsecret_file = '/etc/secret-file'\n";
        let (old, new) = (config(before), config(after));
        let tokens = |text: String| toml::from_str::<Tokens>(&text).unwrap();
        let had = tokens(
            entry("anna", "admin", 'a') + &entry("bert", "viewer", 'b') + &entry("carl", "viewer", 'c'),
        );
        let has = tokens(
            entry("anna", "admin", 'd') + &entry("bert", "admin", 'b') + &entry("dora", "operator", 'e'),
        );
        let told = words((&old, &had), (&new, &has), &["jobs"]);
        for part in [
            "jobs 2 -> 5 (from the next start on)",
            "approval.required true -> false",
            "policy.default.window 35d -> 7d",
            "policy.short none -> {",
            "server.shop none -> {",
            "alerts.mark ",
            "token anna replaced",
            "token bert viewer -> admin",
            "token dora added as operator",
            "token carl removed",
        ] {
            assert!(told.contains(part), "{part}: {told}");
        }
        assert!(!told.contains("secret") && !told.contains("aaaa"), "{told}");
        assert!(!told.contains("connections"), "{told}");
        assert_eq!(words((&old, &had), (&old, &had), &[]), "nothing changed");
        // More than a line may hold is counted.
        let many: String = (0..200).map(|n| format!("[[server]]\nname = 's{n}'\n")).collect();
        let told = words((&old, &had), (&config(&many), &had), &[]);
        assert!(told.len() < 2 * TEXT_MAX && told.ends_with(" more"), "{told}");
        // However much there is, who may do what is told.
        let told = words((&old, &had), (&config(&many), &has), &[]);
        for part in ["approval.required true -> false", "token bert viewer -> admin", "token dora added"] {
            assert!(told.contains(part), "{part}: {told}");
        }
    }

    #[test]
    fn another_check_query_or_address_is_told_beside_other_changes() {
        let text = |query: &str, hook: &str, jobs: u8, after: &str| {
            config(&format!(
                "jobs = {jobs}\n[[server]]\nname = 'shop'\ncheck_queries = ['{query}']\n[alerts]\nafter = '{after}'\n\
                 [[alerts.webhook]]\nurl = 'https://hooks.example/{hook}'\nsecret_file = '/etc/s'\n"
            ))
        };
        let none = Tokens::default();
        let told = |new: &Config| words((&text("SELECT 1", "one", 2, "5m"), &none), (new, &none), &[]);
        assert_eq!(told(&text("SELECT 1", "one", 2, "5m")), "nothing changed");
        let of_query = told(&text("SELECT 2", "one", 5, "5m"));
        assert!(
            of_query.contains("jobs 2 -> 5") && of_query.contains("server.shop.check_queries_mark "),
            "{of_query}"
        );
        let of_hook = told(&text("SELECT 1", "two", 2, "9m"));
        assert!(of_hook.contains("alerts.alert_after ") && of_hook.contains("alerts.mark "), "{of_hook}");
        assert!(!of_query.contains("SELECT") && !of_hook.contains("/two"), "{of_query} {of_hook}");
    }
}
