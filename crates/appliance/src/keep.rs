//! `forget`, `expire`, `lock`: which backups are wanted. Blocks go with the next prune.

use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::list::view;
use crate::own;
use crate::policy::{Keep, Policy, Reason, Span, points_of, retain};
use crate::server_lock::{forbidden, refuse_locked};
use crate::time::{Micros, now, show_time};
use crate::views::{BackupView, maybe_time};
use holdfast_format::ids::BackupId;
use holdfast_format::record::{BackupRecord, Stamped};
use serde::Serialize;

/// What `expire` keeps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Numbers of backups by calendar.
    pub keep: Keep,
    /// Every moment of so long before the last one that can be restored.
    pub within: Option<Span>,
}

/// One backup and what becomes of it.
#[derive(Clone, Debug, Serialize)]
pub struct Expired {
    /// The backup.
    pub backup: BackupView,
    /// Why it is kept; empty: it is forgotten.
    pub reasons: Vec<Reason>,
    /// Until when a lock keeps it.
    #[serde(serialize_with = "maybe_time", skip_serializing_if = "Option::is_none")]
    pub locked_until: Option<Micros>,
}

/// The backup that `text` names: its id, the beginning of it, its own name, or `SERVER/NAME` where servers share one.
///
/// # Errors
/// `Usage` when there is none, or more than one.
pub fn find(catalogue: &Catalogue, text: &str) -> Result<BackupRecord> {
    let mut backups = catalogue.repository.backups();
    let named = named(catalogue, &backups, text)?;
    backups.retain(|b| !text.is_empty() && b.id.to_string().starts_with(text));
    if let Some(named) = named {
        if backups.iter().any(|other| other.id != named.id) {
            let (server, id) = (catalogue.server_name(named.server), named.id);
            return Err(Error::usage(format!(
                "'{text}' is the name of the backup {id}, and the beginning of another one's id."
            ))
            .with_next(format!("write {server}/{text}, or more letters of the id")));
        }
        return Ok(named);
    }
    if backups.len() > 1 {
        return Err(Error::usage(format!("'{text}' is the beginning of {} backups.", backups.len()))
            .with_next("write more letters of the id"));
    }
    backups.pop().ok_or_else(|| {
        Error::usage(format!("There is no backup '{text}' in {}.", catalogue.place.display()))
            .with_next("see the ids: holdfast list")
    })
}

/// The backup with this name.
fn named(catalogue: &Catalogue, backups: &[BackupRecord], text: &str) -> Result<Option<BackupRecord>> {
    let (server, name) = match text.split_once('/') {
        Some((server, name)) => (Some(server), name),
        None => (None, text),
    };
    let of_server = |b: &&BackupRecord| server.is_none_or(|server| catalogue.server_name(b.server) == server);
    let mut named = backups.iter().filter(|b| own::name_of(b) == Some(name)).filter(of_server);
    let first = named.next();
    if let (Some(first), Some(second)) = (first, named.next()) {
        let (one, other) = (catalogue.server_name(first.server), catalogue.server_name(second.server));
        if one == other {
            // One that was removed and another that has its name: no name tells them apart.
            let (first, second) = (first.id, second.id);
            return Err(Error::usage(format!(
                "The backups {first} and {second}, of two servers called '{one}', are both called '{name}'."
            ))
            .with_next("write the id of the one that is meant"));
        }
        return Err(Error::usage(format!("'{one}' and '{other}' both have a backup called '{name}'."))
            .with_next(format!("name the server with it: {one}/{name}")));
    }
    Ok(first.cloned())
}

/// Forgets one backup.
///
/// # Errors
/// `PolicyForbids` while it is held, or it or its server is locked, and before the date that it was taken with.
pub fn forget(catalogue: &Catalogue, text: &str, reason: &str, dry_run: bool) -> Result<BackupView> {
    let backup = find(catalogue, text)?;
    let shown = view(catalogue, &backup);
    refuse_kept(catalogue, &backup)?;
    if dry_run {
        refuse_locked(catalogue, backup.server)?;
        return Ok(shown);
    }
    forget_one(catalogue, backup.id, reason)?;
    Ok(shown)
}

/// Tells what of a backup's own keeps it, and the longest of it first: a hold stands until somebody releases it. Hold and
/// lock are looked at again behind the manifest's lock; the date that a backup was taken with never changes.
fn refuse_kept(catalogue: &Catalogue, backup: &BackupRecord) -> Result<()> {
    if catalogue.repository.is_held(backup.id) {
        return Err(own::held(backup.id));
    }
    let to_come = |until: Option<Micros>| until.filter(|until| *until > now());
    let (lock, date) =
        (to_come(catalogue.repository.locked_until(backup.id)), to_come(own::keep_until(backup)));
    match (lock, date) {
        (Some(until), date) if date.is_none_or(|date| date <= until) => Err(locked(backup.id, until)),
        (_, Some(until)) => Err(Error::new(
            Code::PolicyForbids,
            format!(
                "The backup {} is kept until {}, as it was asked for with it.",
                backup.id,
                show_time(until)
            ),
        )
        .with_next("wait until then; what was asked for with --keep-for is never shortened")),
        _ => Ok(()),
    }
}

fn forget_one(catalogue: &Catalogue, id: BackupId, reason: &str) -> Result<()> {
    told(catalogue, catalogue.repository.forget(id, reason))
}

/// Forgets what retention needs no more, of a locked server by the terms of its lock, too.
pub(crate) fn forget_expired(catalogue: &Catalogue, id: BackupId, reason: &str) -> Result<()> {
    told(catalogue, catalogue.repository.forget_expired(id, reason))
}

fn told(catalogue: &Catalogue, outcome: holdfast_store::Result<Stamped>) -> Result<()> {
    match outcome {
        Ok(_) => Ok(()),
        Err(holdfast_store::Error::Locked { id, until_us }) => Err(locked(id, until_us)),
        Err(holdfast_store::Error::Held { id }) => Err(own::held(id)),
        Err(holdfast_store::Error::ServerLocked { server }) => Err(forbidden(&catalogue.server_name(server))),
        Err(e) => Err(catalogue.store_error(e)),
    }
}

fn locked(id: BackupId, until: Micros) -> Error {
    Error::new(
        Code::PolicyForbids,
        format!("The backup {id} is locked until {} and can't be forgotten before.", show_time(until)),
    )
    .with_next("wait until then; a lock is never shortened")
}

/// Locks a backup until a time: it can't be forgotten before.
///
/// # Errors
/// `Usage` when the time is over.
pub fn lock(catalogue: &Catalogue, text: &str, until: Micros) -> Result<Expired> {
    let backup = find(catalogue, text)?;
    if until <= now() {
        return Err(Error::usage(format!("The time {} is over.", show_time(until)))
            .with_next("name a time that is still to come"));
    }
    catalogue.repository.lock_backup(backup.id, until).map_err(|e| catalogue.store_error(e))?;
    let locked_until = catalogue.repository.locked_until(backup.id);
    Ok(Expired { backup: view(catalogue, &backup), reasons: vec![Reason::OwnDate], locked_until })
}

/// Forgets the backups of a server that nothing of `wanted` keeps. The newest good one always stays, and so does the
/// newest one that was proved.
///
/// # Errors
/// `Usage` when nothing says what to keep, `PolicyForbids` while the server is locked.
pub fn expire(catalogue: &Catalogue, name: &str, wanted: Wanted, dry_run: bool) -> Result<Vec<Expired>> {
    if wanted == Wanted::default() {
        return Err(Error::usage("Nothing says what to keep.")
            .with_next("use --keep-last N, --keep-daily N, --keep-weekly N, --keep-monthly N, --keep-yearly N, or --keep-within AGE"));
    }
    let server = catalogue.server(name)?;
    refuse_locked(catalogue, server.id)?;
    let (points, intervals) = points_of(catalogue, &server)?;
    // Without a window only the calendar counts; the shortest window would keep a whole day.
    let window = wanted.within.unwrap_or(Span(1));
    let policy = Policy { window, keep: wanted.keep, ..Policy::default() };
    let retained = retain(&policy, &points, &intervals, now());
    let of_window = |r: &Reason| matches!(r, Reason::Window | Reason::Anchor);
    let mut rows = Vec::new();
    for backup in catalogue.backups_of(&server) {
        let kept = retained.kept.iter().find(|k| k.id == backup.id);
        let reasons = kept.into_iter().flat_map(|k| k.reasons.iter().copied());
        let reasons = reasons.filter(|r| wanted.within.is_some() || !of_window(r)).collect();
        let locked_until = catalogue.repository.locked_until(backup.id).filter(|until| *until > now());
        rows.push(Expired { backup: view(catalogue, &backup), reasons, locked_until });
    }
    if !dry_run {
        let forget = rows.iter().zip(catalogue.backups_of(&server)).filter(|(row, _)| row.reasons.is_empty());
        for (_, backup) in forget {
            forget_one(catalogue, backup.id, "expired")?;
        }
    }
    Ok(rows)
}
