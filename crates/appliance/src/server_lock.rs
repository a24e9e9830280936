//! `server lock`, `unlock`, `remove`, `undelete`: what a person may take away of a whole server.
//!
//! A lock is a record of the repository, so it holds for whoever opens it: command line, daemon, another host. While it
//! lasts, the server can't be removed, none of its backups be forgotten by anybody, and retention forgets only what the
//! terms of the lock need no more: a policy that was made shorter meanwhile takes nothing away. The log goes with the
//! backups before it (`prune`), so it is kept with them.

use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::policy::{Policy, Span};
use crate::server::{show, view};
use crate::time::{Micros, show_time};
use crate::views::{ServerView, maybe_time};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{Record, ServerLockRecord, ServerRecord};
use serde::Serialize;
use serde_json::Value;

/// How a server's lock stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct LockView {
    /// The server's name.
    pub server: String,
    /// Whether it is locked.
    pub locked: bool,
    /// Since when.
    #[serde(serialize_with = "maybe_time")]
    pub since: Option<Micros>,
    /// Number of the record that locked it: another lock has another one.
    #[serde(skip)]
    pub record: Option<u64>,
    /// Why.
    pub reason: String,
    /// What retention may go by meanwhile, as a policy says it; `null`: nothing of it is forgotten at all.
    pub terms: Option<Value>,
}

/// The lock of a server.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn lock_of(catalogue: &Catalogue, name: &str) -> Result<LockView> {
    let server = catalogue.server(name)?;
    Ok(shown(catalogue, &server))
}

fn shown(catalogue: &Catalogue, server: &ServerRecord) -> LockView {
    let records = catalogue.repository.records();
    let newest = records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::ServerLocked(lock) if lock.server == server.id => Some((stamped, lock)),
        _ => None,
    });
    let locked = newest.and_then(|(stamped, lock)| Some((stamped, lock.terms.as_deref()?)));
    LockView {
        server: server.name.clone(),
        locked: locked.is_some(),
        since: locked.map(|(stamped, _)| stamped.at_us),
        record: locked.map(|(stamped, _)| stamped.number),
        reason: newest.map(|(_, lock)| lock.reason.clone()).unwrap_or_default(),
        terms: locked.and_then(|(_, terms)| serde_json::from_str(terms).ok()),
    }
}

/// The policies that retention has to keep besides the one that holds; empty: the server is not locked.
pub(crate) fn floor(catalogue: &Catalogue, server: ServerId) -> Vec<Policy> {
    let locks = catalogue.repository.server_locks();
    let Some(terms) = locks.get(&server).and_then(|lock| lock.terms.as_deref()) else { return Vec::new() };
    // Terms that can't be understood allow nothing.
    let everything = Policy { window: Span(0), ..Policy::default() };
    match serde_json::from_str::<Vec<Policy>>(terms) {
        Ok(policies) if !policies.is_empty() => policies,
        _ => vec![everything],
    }
}

/// Locks a server. With `terms`, retention goes on by no less than all of these; without, nothing is forgotten.
///
/// # Errors
/// `Usage` when there is none of that name, or when it is locked already: a lock is not replaced by a weaker one.
pub fn lock_server(catalogue: &Catalogue, name: &str, terms: &[Policy], reason: &str) -> Result<LockView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let server = catalogue.server(name)?;
    let retention = terms.iter().map(|policy| {
        serde_json::json!({ "window": policy.window, "keep": policy.keep, "timezone": policy.timezone })
    });
    let retention: Vec<Value> = retention.collect();
    let text = if retention.is_empty() { String::new() } else { Value::Array(retention).to_string() };
    put(catalogue, &server, Some(text), reason)?.ok_or_else(|| {
        let since = shown(catalogue, &server).since.map(show_time).unwrap_or_default();
        Error::usage(format!("The server '{name}' is locked since {since}."))
            .with_next("a lock stays as it is; to replace it, end it first: holdfast server unlock")
    })
}

/// Ends the lock of a server. What holds it back is the caller's to ask: who may, and whether a second person agrees.
///
/// # Errors
/// `Usage` when there is no such server, or it is not locked.
pub fn unlock_server(catalogue: &Catalogue, name: &str, reason: &str) -> Result<LockView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let server = catalogue.server(name)?;
    put(catalogue, &server, None, reason)?
        .ok_or_else(|| Error::usage(format!("The server '{name}' is not locked.")))
}

fn put(
    catalogue: &Catalogue,
    server: &ServerRecord,
    terms: Option<String>,
    reason: &str,
) -> Result<Option<LockView>> {
    let lock = ServerLockRecord { server: server.id, terms, reason: reason.to_owned() };
    let put = catalogue.repository.lock_server(lock).map_err(|e| catalogue.store_error(e))?;
    Ok(put.map(|_| shown(catalogue, server)))
}

/// Protects a server no more. Its backups and its log stay, whatever its policy says, until they are forgotten one by one;
/// [`undelete`] brings it back.
///
/// # Errors
/// `Usage` when there is none of that name, `PolicyForbids` while it is locked.
pub fn remove(catalogue: &Catalogue, name: &str, dry_run: bool) -> Result<ServerView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let server = catalogue.server(name)?;
    let seen = show(catalogue, name)?;
    if dry_run {
        if shown(catalogue, &server).locked {
            return Err(forbidden(name));
        }
        return Ok(seen);
    }
    match catalogue.repository.remove_server(server.id) {
        Ok(_) => Ok(seen),
        Err(holdfast_store::Error::ServerLocked { .. }) => Err(forbidden(name)),
        Err(e) => Err(catalogue.store_error(e)),
    }
}

/// Brings a removed server back, with its backups and its log. There is no time limit.
///
/// # Errors
/// `Usage` when no server of that name was removed, or another one has the name now.
pub fn undelete(catalogue: &Catalogue, name: &str) -> Result<ServerView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    if catalogue.server(name).is_ok() {
        return Err(Error::usage(format!("There is a server called '{name}'; nothing was removed."))
            .with_next("a name that is taken again can't come back: give the new server another name"));
    }
    let gone = catalogue.repository.removed_servers();
    // The one that was added last, if the name was used more than once.
    let server = gone.into_iter().rev().find(|server| server.name == name).ok_or_else(|| {
        Error::usage(format!("No server called '{name}' was removed."))
            .with_next("see which there are: holdfast server list --removed")
    })?;
    let back = catalogue.repository.undelete_server(server.id).map_err(|e| catalogue.store_error(e))?;
    if back.is_none() {
        return Err(Error::usage(format!(
            "The server '{name}' was brought back, or its name taken, just now."
        ))
        .with_next("see which there are: holdfast server list --removed"));
    }
    view(catalogue, &server)
}

/// Servers that were removed and can be brought back.
///
/// # Errors
/// `Usage` when the configuration can't be read.
pub fn removed(catalogue: &Catalogue) -> Result<Vec<ServerView>> {
    catalogue.repository.removed_servers().iter().map(|server| view(catalogue, server)).collect()
}

/// What a lock says to whoever would take something away.
pub(crate) fn forbidden(name: &str) -> Error {
    Error::new(
        Code::PolicyForbids,
        format!("The server '{name}' is locked: neither it nor any of its backups may be taken away."),
    )
    .with_next(format!(
        "see why: holdfast server show {name}; a lock is ended by: holdfast server unlock {name}"
    ))
}

/// Refuses to take something away of a server that is locked.
///
/// # Errors
/// `PolicyForbids`.
pub(crate) fn refuse_locked(catalogue: &Catalogue, server: ServerId) -> Result<()> {
    if !catalogue.repository.server_locks().contains_key(&server) {
        return Ok(());
    }
    Err(forbidden(&catalogue.server_name(server)))
}
