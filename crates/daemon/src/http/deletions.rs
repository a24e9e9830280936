//! What takes something away, and what keeps it from being taken: locks, requests that wait for a second person.

use super::answer::{Outcome, Refusal, json};
use super::api::{Request, known};
use super::once::{begun, once};
use crate::approvals::{self, Deletion};
use crate::daemon::Daemon;
use crate::jobs::code_word;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::{now, parse_time, show_time};
use holdfast_appliance::{keep, own, server_lock};
use hyper::StatusCode;
use serde::Deserialize;
use serde_json::json;

/// Longest reason.
const REASON_MAX: usize = 1000;

/// Why something is done.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Reasoned {
    #[serde(default)]
    reason: String,
}

fn reason(asked: &Request) -> Result<String> {
    let Reasoned { reason } = asked.read()?;
    checked(reason)
}

fn checked(reason: String) -> Result<String> {
    if reason.len() > REASON_MAX {
        return Err(Error::usage(format!("A reason has {REASON_MAX} bytes at most.")));
    }
    Ok(reason)
}

/// Takes it away, or keeps the request until a second person agrees.
fn take_away(daemon: &Daemon, asked: &Request, what: Deletion) -> Outcome {
    once(daemon, asked, || take_away_now(daemon, asked, what))
}

fn take_away_now(daemon: &Daemon, asked: &Request, what: Deletion) -> Outcome {
    let who = &asked.caller.name;
    daemon.audit.note(who, &format!("{} {}", asked.what, approvals::words(&what)), "asked")?;
    let noted = |outcome: &str| daemon.audit.note(who, &asked.what, outcome);
    if !daemon.config().approval.required {
        let done = approvals::carried_out(daemon, &what, who);
        match &done {
            Ok(_) => noted("done")?,
            Err(error) => noted(&code_word(error.code))?,
        }
        return json(StatusCode::OK, &done?);
    }
    by_token(daemon, asked)?;
    let put = approvals::tried(daemon, &what).and_then(|()| approvals::put(daemon, what, who, now()));
    match &put {
        Ok(_) => noted("waits for a second person")?,
        Err(error) => noted(&code_word(error.code))?,
    }
    json(StatusCode::ACCEPTED, &put?)
}

/// Two persons are told apart by their tokens: behind the socket, anybody could be two.
fn by_token(daemon: &Daemon, asked: &Request) -> std::result::Result<(), Refusal> {
    if asked.caller.by_token {
        return Ok(());
    }
    daemon.audit.note(&asked.caller.name, &asked.what, "forbidden")?;
    Err(Refusal::Forbidden(
        "This needs a token, and two persons: name yours with --token-file, or send it as 'Authorization: Bearer TOKEN'."
            .to_owned(),
    ))
}

pub(super) fn forget(daemon: &Daemon, asked: &Request) -> Outcome {
    let reason = reason(asked)?;
    // Looked up behind the key: asked again, it is gone.
    once(daemon, asked, || {
        let (backup, server) = found(daemon, asked)?;
        let name = backup_name(daemon, &backup);
        take_away_now(daemon, asked, Deletion::Forget { backup, server, reason, name })
    })
}

/// The id of the backup that is meant, and the name of its server.
fn found(daemon: &Daemon, asked: &Request) -> std::result::Result<(String, String), Refusal> {
    let backup =
        keep::find(&daemon.catalogue, asked.part()).map_err(|error| Refusal::NotFound(error.message))?;
    Ok((backup.id.to_string(), daemon.catalogue.server_name(backup.server)))
}

/// What a person calls the backup.
fn backup_name(daemon: &Daemon, id: &str) -> Option<String> {
    let backup = keep::find(&daemon.catalogue, id).ok()?;
    backup.fact(own::NAME_FACT).map(str::to_owned)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Until {
    until: String,
}

/// Locks a backup until a time, which nothing ends before.
pub(super) fn lock_backup(daemon: &Daemon, asked: &Request) -> Outcome {
    let Until { until } = asked.read()?;
    let until = parse_time(&until)?;
    once(daemon, asked, || {
        let (backup, server) = found(daemon, asked)?;
        let until_words = show_time(until);
        let what = format!("{} lock the backup {backup} of '{server}' until {until_words}", asked.what);
        daemon.audit.note(&asked.caller.name, &what, "asked")?;
        json(StatusCode::OK, &keep::lock(&daemon.catalogue, &backup, until)?)
    })
}

/// Keeps a backup until it is released.
pub(super) fn hold(daemon: &Daemon, asked: &Request) -> Outcome {
    let reason = reason(asked)?;
    once(daemon, asked, || {
        let (backup, server) = found(daemon, asked)?;
        let why = if reason.is_empty() { String::new() } else { format!(": {reason}") };
        let what = format!("{} hold the backup {backup} of '{server}'{why}", asked.what);
        daemon.audit.note(&asked.caller.name, &what, "asked")?;
        json(StatusCode::OK, &own::hold(&daemon.catalogue, &backup, &reason)?)
    })
}

/// Releases a backup that is held: what keeps it from being forgotten goes, so a second person may have to agree.
pub(super) fn release(daemon: &Daemon, asked: &Request) -> Outcome {
    let reason = reason(asked)?;
    once(daemon, asked, || {
        let (backup, server) = found(daemon, asked)?;
        let name = backup_name(daemon, &backup);
        let hold = own::hold_number(&daemon.catalogue, &backup)?;
        take_away_now(daemon, asked, Deletion::Release { backup, server, reason, name, hold })
    })
}

pub(super) fn remove_server(daemon: &Daemon, asked: &Request) -> Outcome {
    once(daemon, asked, || {
        known(daemon, asked.part())?;
        let server = asked.part().to_owned();
        let id = Some(daemon.catalogue.server(&server)?.id.to_string());
        take_away_now(daemon, asked, Deletion::RemoveServer { server, id })
    })
}

pub(super) fn begin_prune(daemon: &Daemon, asked: &Request) -> Outcome {
    // One that was begun before a second person had to agree is answered as before.
    if daemon.config().approval.required && begun(daemon, asked).is_none() {
        return take_away(daemon, asked, Deletion::Prune {});
    }
    super::api::begin_prune(daemon, asked)
}

pub(super) fn undelete(daemon: &Daemon, asked: &Request) -> Outcome {
    once(daemon, asked, || {
        daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
        json(StatusCode::OK, &server_lock::undelete(&daemon.catalogue, asked.part())?)
    })
}

pub(super) fn lock(daemon: &Daemon, asked: &Request) -> Outcome {
    known(daemon, asked.part())?;
    json(StatusCode::OK, &server_lock::lock_of(&daemon.catalogue, asked.part())?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LockAsked {
    #[serde(default)]
    reason: String,
    #[serde(default)]
    everything: bool,
}

/// Locks a server by the policies that hold for it now; with `everything`, nothing of it is forgotten at all.
pub(super) fn lock_server(daemon: &Daemon, asked: &Request) -> Outcome {
    let LockAsked { reason, everything } = asked.read()?;
    let reason = checked(reason)?;
    once(daemon, asked, || {
        known(daemon, asked.part())?;
        daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
        let terms = if everything { Vec::new() } else { crate::expiry::in_force(daemon, asked.part()) };
        let locked = server_lock::lock_server(&daemon.catalogue, asked.part(), &terms, &reason)?;
        daemon.look_soon();
        json(StatusCode::OK, &locked)
    })
}

pub(super) fn unlock_server(daemon: &Daemon, asked: &Request) -> Outcome {
    let reason = reason(asked)?;
    once(daemon, asked, || {
        known(daemon, asked.part())?;
        let server = asked.part().to_owned();
        let id = Some(daemon.catalogue.server(&server)?.id.to_string());
        let lock = server_lock::lock_of(&daemon.catalogue, &server)?.record;
        take_away_now(daemon, asked, Deletion::UnlockServer { server, reason, id, lock })
    })
}

pub(super) fn requests(daemon: &Daemon, _: &Request) -> Outcome {
    let required = daemon.config().approval.required;
    json(StatusCode::OK, &json!({ "required": required, "requests": approvals::list(daemon) }))
}

pub(super) fn approve(daemon: &Daemon, asked: &Request) -> Outcome {
    decide(daemon, asked, true)
}

pub(super) fn reject(daemon: &Daemon, asked: &Request) -> Outcome {
    decide(daemon, asked, false)
}

fn decide(daemon: &Daemon, asked: &Request, agreed: bool) -> Outcome {
    let id = asked.part().parse().ok();
    let known =
        daemon.state.read(|content| id.is_some_and(|id| content.approvals.iter().any(|r| r.id == id)));
    let (Some(id), true) = (id, known) else {
        return Err(Refusal::NotFound(format!("There is no request '{}'.", asked.part())));
    };
    once(daemon, asked, || {
        daemon.audit.note(&asked.caller.name, &asked.what, "asked")?;
        by_token(daemon, asked)?;
        let decided = approvals::decide(daemon, id, &asked.caller.name, agreed, now());
        match &decided {
            Ok(_) => daemon.audit.note(&asked.caller.name, &asked.what, "done")?,
            Err(error) => daemon.audit.note(&asked.caller.name, &asked.what, &code_word(error.code))?,
        }
        json(StatusCode::OK, &decided?)
    })
}
