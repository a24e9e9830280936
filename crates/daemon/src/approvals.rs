//! The second person: what takes something away waits until another one than who asked agrees.
//!
//! Requests are part of the daemon's state, so they wait over restarts, for as long as the configuration says. Who asks and
//! who agrees are told apart by their tokens. One that was agreed to is durable before it is carried out: after a crash in
//! between it is carried out then, and each of them may be tried twice.

use crate::config::Approvals;
use crate::daemon::Daemon;
use crate::jobs::{Failure, Work, time};
use crate::state::Content;
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::policy::Policy;
use holdfast_appliance::time::{Micros, now, show_time};
use holdfast_appliance::views::maybe_time;
use holdfast_appliance::{keep, own, server_lock};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// Requests that were decided and are remembered.
const DECIDED_MAX: usize = 200;
/// Requests that may wait.
const WAITING_MAX: usize = 100;
/// So long after its time something that was agreed to in time may still be carried out: a daemon may have been down.
const LATE_MAX: Micros = 86_400_000_000;
/// Who asks when a person has changed the configuration.
pub(crate) const CONFIGURATION: &str = "configuration";

/// What is to be taken away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Deletion {
    /// A backup is not wanted any more.
    Forget {
        /// Its id.
        backup: String,
        /// The server's name.
        server: String,
        /// Why.
        reason: String,
        /// What it is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
    },
    /// A server is protected no more.
    RemoveServer {
        /// Its name.
        server: String,
        /// Its id: another server may have the name when somebody agrees.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
    },
    /// A server's lock ends.
    UnlockServer {
        /// Its name.
        server: String,
        /// Why.
        reason: String,
        /// Its id.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        id: Option<String>,
        /// Number of the record that locked it: it may be locked anew when somebody agrees.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lock: Option<u64>,
    },
    /// A backup is held no more.
    Release {
        /// Its id.
        backup: String,
        /// The server's name.
        server: String,
        /// Why.
        reason: String,
        /// What it is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<String>,
        /// Number of the record that holds it: it may be held anew, for another reason, when somebody agrees.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<u64>,
    },
    /// What nobody needs any more goes, now.
    Prune {},
    /// A policy keeps less than before.
    ShortenRetention {
        /// The server's name.
        server: String,
        /// The policy that is to hold.
        terms: Box<Policy>,
    },
}

/// How a request stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Nobody has decided.
    Waiting,
    /// Somebody agreed.
    Approved,
    /// Somebody did not, or who asked took it back.
    Rejected,
    /// Nobody decided in time.
    Expired,
    /// The configuration asks for it no more.
    Withdrawn,
}

/// A request as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Request {
    /// Its number.
    pub id: u64,
    /// What is to be taken away.
    pub what: Deletion,
    /// Who asked.
    pub by: String,
    /// When.
    pub asked: Micros,
    /// Until when somebody may agree.
    pub until: Micros,
    /// How it stands.
    pub decision: Decision,
    /// Who decided.
    pub decided_by: Option<String>,
    /// When.
    pub decided: Option<Micros>,
    /// What came of it, once it was carried out.
    pub result: Option<Value>,
    /// Why it could not be.
    pub failure: Option<Failure>,
}

/// The same for people and programs.
#[derive(Clone, Debug, Serialize)]
pub struct RequestView {
    id: u64,
    what: Deletion,
    /// The same as a person says it.
    text: String,
    by: String,
    #[serde(serialize_with = "time")]
    asked: Micros,
    #[serde(serialize_with = "time")]
    until: Micros,
    decision: Decision,
    decided_by: Option<String>,
    #[serde(serialize_with = "maybe_time")]
    decided: Option<Micros>,
    result: Option<Value>,
    failure: Option<Failure>,
}

impl From<Request> for RequestView {
    fn from(r: Request) -> Self {
        let Request { id, what, by, asked, until, decision, decided_by, decided, result, failure } = r;
        let text = words(&what);
        Self { id, what, text, by, asked, until, decision, decided_by, decided, result, failure }
    }
}

/// All requests that are remembered, the newest first.
pub(crate) fn list(daemon: &Daemon) -> Vec<RequestView> {
    let all = daemon.state.read(|content| content.approvals.clone());
    all.into_iter().rev().map(RequestView::from).collect()
}

/// Keeps a request until somebody decides.
///
/// # Errors
/// `Locked` when the same waits already, or too many do.
pub(crate) fn put(daemon: &Daemon, what: Deletion, by: &str, now: Micros) -> Result<RequestView> {
    let terms = daemon.config().approval.clone();
    let asked = daemon.state.change(|content| add(content, &terms, what, by, now))??;
    tracing::info!(request = asked.id, by, "waits for a second person: {}", words(&asked.what));
    daemon.events.send("approval", &json!({ "id": asked.id }));
    Ok(asked.into())
}

fn add(content: &mut Content, terms: &Approvals, what: Deletion, by: &str, now: Micros) -> Result<Request> {
    let waiting = || content.approvals.iter().filter(|r| r.decision == Decision::Waiting && r.until > now);
    if let Some(same) = waiting().find(|r| r.what == what) {
        return Err(Error::new(Code::Locked, format!("The request {} asks for that already.", same.id))
            .with_next(format!("let another administrator decide: holdfast approvals approve {}", same.id)));
    }
    // One shortened policy may ask for every server at once: what people ask for has its own room.
    if by != CONFIGURATION && waiting().filter(|r| r.by != CONFIGURATION).count() >= WAITING_MAX {
        return Err(Error::new(Code::Locked, format!("{WAITING_MAX} requests wait already."))
            .with_next("decide about some of them first: holdfast approvals list"));
    }
    content.approvals_asked += 1;
    let request = Request {
        id: content.approvals_asked,
        what,
        by: by.to_owned(),
        asked: now,
        until: now.saturating_add(terms.within.0),
        decision: Decision::Waiting,
        decided_by: None,
        decided: None,
        result: None,
        failure: None,
    };
    content.approvals.push(request.clone());
    let decided = content.approvals.iter().filter(|r| is_over(r)).count();
    let mut surplus = decided.saturating_sub(DECIDED_MAX);
    content.approvals.retain(|request| {
        let goes = surplus > 0 && is_over(request);
        surplus -= usize::from(goes);
        !goes
    });
    Ok(request)
}

/// Whether nothing more becomes of it.
fn is_over(request: &Request) -> bool {
    match request.decision {
        Decision::Waiting => false,
        Decision::Approved => request.result.is_some() || request.failure.is_some(),
        Decision::Rejected | Decision::Expired | Decision::Withdrawn => true,
    }
}

/// Decides about a request, in the name of `who`, at the time `now`.
///
/// # Errors
/// `Usage` when there is none of that number, `PolicyForbids` when it waits no more, or when who asked would agree himself.
pub(crate) fn decide(daemon: &Daemon, id: u64, who: &str, agreed: bool, now: Micros) -> Result<RequestView> {
    daemon.state.change(|content| note(content, id, who, agreed, now))??;
    tracing::info!(request = id, who, agreed, "a second person has decided");
    carry_out_approved(daemon)?;
    daemon.events.send("approval", &json!({ "id": id }));
    let request = daemon.state.read(|content| content.approvals.iter().find(|r| r.id == id).cloned());
    request.map(RequestView::from).ok_or_else(|| unknown(id))
}

fn unknown(id: u64) -> Error {
    Error::usage(format!("There is no request {id}."))
        .with_next("see which there are: holdfast approvals list")
}

fn note(content: &mut Content, id: u64, who: &str, agreed: bool, now: Micros) -> Result<()> {
    let request = content.approvals.iter_mut().find(|r| r.id == id).ok_or_else(|| unknown(id))?;
    let over = match request.decision {
        Decision::Waiting if request.until <= now => Some(format!("ran out at {}", show_time(request.until))),
        Decision::Waiting => None,
        Decision::Approved => Some("was approved already".to_owned()),
        Decision::Rejected => Some("was rejected already".to_owned()),
        Decision::Expired => Some(format!("ran out at {}", show_time(request.until))),
        Decision::Withdrawn => Some("was taken back: the configuration asks for it no more".to_owned()),
    };
    if let Some(over) = over {
        return Err(Error::new(Code::PolicyForbids, format!("The request {id} {over}."))
            .with_next("ask for it again"));
    }
    if agreed && request.by == who {
        return Err(Error::new(
            Code::PolicyForbids,
            format!("The request {id} was asked for by '{who}', and needs another one to agree."),
        )
        .with_next("let another administrator approve it, with a token of his own"));
    }
    request.decision = if agreed { Decision::Approved } else { Decision::Rejected };
    (request.decided_by, request.decided) = (Some(who.to_owned()), Some(now));
    Ok(())
}

/// Carries out what was agreed to and not done yet, and lets requests run out.
///
/// # Errors
/// When the state can't be written.
pub(crate) fn carry_out_approved(daemon: &Daemon) -> Result<()> {
    // One at a time: the scheduler's turn and a person's.
    let _turn = daemon.approving.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let at = now();
    let old = |r: &Request| r.decision == Decision::Waiting && r.until <= at;
    let (agreed, late) = daemon.state.read(|content| {
        let agreed = content.approvals.iter().filter(|r| r.decision == Decision::Approved && !is_over(r));
        (agreed.cloned().collect::<Vec<_>>(), content.approvals.iter().filter(|r| old(r)).count())
    });
    if late > 0 {
        daemon.state.change(|content| {
            for request in content.approvals.iter_mut().filter(|r| old(r)) {
                (request.decision, request.decided) = (Decision::Expired, Some(at));
            }
        })?;
    }
    for request in agreed {
        // What was agreed to long ago, by a state that was brought back from a copy, say, is not what is wanted now.
        let outcome = if at > request.until.saturating_add(LATE_MAX) {
            Err(Error::new(
                Code::PolicyForbids,
                format!("It could be done until {}.", show_time(request.until)),
            )
            .with_next("ask for it again"))
        } else {
            carried_out(daemon, &request.what, &request.by)
        };
        let word = match &outcome {
            Ok(_) => "done".to_owned(),
            Err(error) => crate::jobs::code_word(error.code),
        };
        // First that it is done, so that it is not done again at the next turn.
        daemon.state.change(|content| {
            for kept in content.approvals.iter_mut().filter(|r| r.id == request.id) {
                match &outcome {
                    Ok(value) => kept.result = Some(value.clone()),
                    Err(error) => kept.failure = Some(Failure::from(error)),
                }
            }
        })?;
        let who = format!("{} and {}", request.by, request.decided_by.as_deref().unwrap_or("?"));
        let noted =
            daemon.audit.note(&who, &format!("request {}: {}", request.id, words(&request.what)), &word);
        if let Err(error) = noted {
            // That both asked and agreed is in the log already.
            tracing::error!(request = request.id, outcome = %word, "{}", error.message);
        }
    }
    Ok(())
}

/// What would refuse it now: said at once, and not when a second person has agreed.
///
/// # Errors
/// As carrying it out.
pub(crate) fn tried(daemon: &Daemon, what: &Deletion) -> Result<()> {
    let catalogue = &daemon.catalogue;
    match what {
        Deletion::Forget { backup, reason, .. } => keep::forget(catalogue, backup, reason, true).map(drop),
        Deletion::Release { backup, reason, .. } => own::release(catalogue, backup, reason, true).map(drop),
        Deletion::RemoveServer { server, .. } => server_lock::remove(catalogue, server, true).map(drop),
        Deletion::UnlockServer { server, .. } => {
            if server_lock::lock_of(catalogue, server)?.locked {
                return Ok(());
            }
            Err(Error::usage(format!("The server '{server}' is not locked.")))
        }
        Deletion::Prune {} | Deletion::ShortenRetention { .. } => Ok(()),
    }
}

/// Takes it away.
///
/// # Errors
/// What forbids it.
pub(crate) fn carried_out(daemon: &Daemon, what: &Deletion, by: &str) -> Result<Value> {
    let catalogue = &daemon.catalogue;
    let failed = |error: serde_json::Error| Error::failed(format!("The answer can't be kept: {error}."));
    refuse_other(daemon, what)?;
    let done = match what {
        Deletion::Forget { backup, reason, .. } => {
            serde_json::to_value(keep::forget(catalogue, backup, reason, false)?).map_err(failed)?
        }
        Deletion::Release { backup, reason, hold, .. } => {
            let released = own::release_from(catalogue, backup, *hold, reason)?;
            serde_json::to_value(released).map_err(failed)?
        }
        Deletion::RemoveServer { server, .. } => {
            serde_json::to_value(server_lock::remove(catalogue, server, false)?).map_err(failed)?
        }
        Deletion::UnlockServer { server, reason, .. } => {
            serde_json::to_value(server_lock::unlock_server(catalogue, server, reason)?).map_err(failed)?
        }
        Deletion::Prune {} => {
            let job = daemon.queue.submit(Work::Prune { now: true }, by, None)?;
            json!({ "job": job.id })
        }
        Deletion::ShortenRetention { server, terms } => {
            let (_, policy) = daemon.config().policy_of(server);
            if !crate::expiry::keeps_the_same(&policy, terms) {
                return Err(Error::new(
                    Code::PolicyForbids,
                    format!("The policy of '{server}' has changed again since it was asked for."),
                )
                .with_next("decide about the newer request"));
            }
            daemon.state.change(|content| {
                if let Some(state) = content.servers.get_mut(server) {
                    state.before = None;
                }
            })?;
            json!({ "server": server, "window": terms.window })
        }
    };
    daemon.look_soon();
    Ok(done)
}

/// What it is, for people: on the page, at the terminal, in the audit log.
pub(crate) fn words(what: &Deletion) -> String {
    let called = |name: &Option<String>| name.as_ref().map(|name| format!(" ('{name}')")).unwrap_or_default();
    let why = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
    match what {
        Deletion::Forget { backup, server, reason, name } => {
            format!("forget the backup {backup}{} of '{server}'{}", called(name), why(reason))
        }
        Deletion::RemoveServer { server, .. } => format!("protect the server '{server}' no more"),
        Deletion::UnlockServer { server, reason, .. } => {
            format!("end the lock of the server '{server}'{}", why(reason))
        }
        Deletion::Release { backup, server, reason, name, .. } => {
            format!("release the held backup {backup}{} of '{server}'{}", called(name), why(reason))
        }
        Deletion::Prune {} => "prune what nobody needs".to_owned(),
        Deletion::ShortenRetention { server, terms } => {
            let keep = serde_json::to_string(&terms.keep).unwrap_or_default();
            format!("keep less of the server '{server}': window {}, keep {keep}", terms.window)
        }
    }
}

/// Refuses what was asked for of another server, or of another lock, than those that have the name now.
fn refuse_other(daemon: &Daemon, what: &Deletion) -> Result<()> {
    let (server, id, lock) = match what {
        Deletion::RemoveServer { server, id } => (server, id, None),
        Deletion::UnlockServer { server, id, lock, .. } => (server, id, *lock),
        _ => return Ok(()),
    };
    let forbids = |message: String| {
        Err(Error::new(Code::PolicyForbids, message).with_next("look at the server, and ask for it again"))
    };
    if id.is_none() {
        return forbids(format!(
            "This was asked of an older daemon, which did not note which server '{server}' it was for."
        ));
    }
    let now = daemon.catalogue.server(server)?;
    if id.as_ref().is_some_and(|id| *id != now.id.to_string()) {
        return forbids(format!(
            "The server '{server}' that this was asked for was removed, and another one has its name."
        ));
    }
    let locked = server_lock::lock_of(&daemon.catalogue, server)?.record;
    if lock.is_some() && locked.is_some() && lock != locked {
        return forbids(format!("The server '{server}' was locked anew since this was asked for."));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_appliance::policy::Span;

    const TERMS: Approvals = Approvals { required: true, within: Span::hours(1) };
    const HOUR: Micros = 3_600_000_000;

    #[test]
    fn who_asked_may_take_it_back_and_only_another_one_may_agree_and_only_in_time() {
        let mut content = Content::default();
        let ask = |content: &mut Content, now| add(content, &TERMS, Deletion::Prune {}, "anna", now);
        assert_eq!(ask(&mut content, 0).unwrap().id, 1);
        assert_eq!(ask(&mut content, 1).unwrap_err().code, Code::Locked, "it waits already");
        let refused = |content: &mut Content, who, now| note(content, 1, who, true, now).unwrap_err().message;
        assert!(refused(&mut content, "anna", 5).contains("another one"));
        assert!(refused(&mut content, "berta", HOUR).contains("ran out"));
        note(&mut content, 1, "anna", false, 5).unwrap();
        assert!(refused(&mut content, "berta", 6).contains("rejected already"));
        assert_eq!(ask(&mut content, 7).unwrap().id, 2);
        note(&mut content, 2, "berta", true, 8).unwrap();
        assert_eq!(content.approvals[1].decided_by.as_deref(), Some("berta"));
        assert!(note(&mut content, 2, "berta", true, 9).is_err());
        assert!(note(&mut content, 3, "berta", true, 9).unwrap_err().message.contains("no request 3"));
    }

    #[test]
    fn a_policy_of_many_servers_leaves_people_room_to_ask() {
        let mut content = Content::default();
        let shorten = |n: usize| Deletion::ShortenRetention {
            server: format!("s{n}"),
            terms: Box::new(Policy::default()),
        };
        for n in 0..WAITING_MAX + 20 {
            add(&mut content, &TERMS, shorten(n), CONFIGURATION, 0).unwrap();
        }
        add(&mut content, &TERMS, Deletion::Prune {}, "anna", 0).unwrap();
        assert_eq!(add(&mut content, &TERMS, shorten(0), CONFIGURATION, 1).unwrap_err().code, Code::Locked);
    }

    #[test]
    fn decided_requests_are_forgotten_in_the_end_and_those_to_be_done_never() {
        let mut content = Content::default();
        for n in 0..300 {
            let what = Deletion::RemoveServer { server: format!("s{n}"), id: None };
            let id = add(&mut content, &TERMS, what, "anna", 0).unwrap().id;
            note(&mut content, id, "berta", n == 0, 1).unwrap();
        }
        assert_eq!(content.approvals.len(), DECIDED_MAX + 2);
        assert_eq!(content.approvals[0].id, 1, "agreed to, and not done yet");
    }
}
