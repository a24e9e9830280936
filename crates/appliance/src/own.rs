//! What a backup may have of its own: a name, a date until which it is kept, a hold.
//!
//! Name and date are facts of the backup, written with its commit. A hold begins with the backup or later and ends when a
//! person releases it, so it is a fact at first and a record from then on. Retention reads both; nothing else may take a
//! held backup away.

use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::keep::find;
use crate::list::view;
use crate::policy::Span;
use crate::server_lock::refuse_locked;
use crate::time::{Micros, now};
use crate::views::BackupView;
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::{BackupRecord, HELD_FACT, HoldRecord, KEEP_FACT};
use serde::{Deserialize, Serialize};

/// The fact that a backup's name is kept under.
pub const NAME_FACT: &str = "holdfast.name";
/// Longest name, bytes.
const NAME_MAX: usize = 64;
/// Letters of an id.
const ID_LETTERS: usize = 26;

/// What is asked for with a backup.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Own {
    /// What it is called: no other backup of the server that is there has this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// It is kept for so long at least, whatever the policy says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_for: Option<Span>,
    /// It is kept until a person releases it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hold: bool,
}

impl Own {
    /// Refuses what no backup can have.
    ///
    /// # Errors
    /// `Usage` for a name that can't be one, and for a time of nothing.
    pub fn check(&self) -> Result<()> {
        if let Some(name) = &self.name {
            check_name(name)?;
        }
        if self.keep_for.is_some_and(|span| span.0 <= 0) {
            return Err(Error::usage("A backup can't be kept for no time at all.")
                .with_next("name a time such as 30d, or leave it to the policy"));
        }
        Ok(())
    }

    /// The facts that say so, of a backup that is committed now.
    pub(crate) fn facts(&self, note: &str) -> Vec<(String, String)> {
        let name = self.name.iter().map(|name| (NAME_FACT.to_owned(), name.clone()));
        let until = |span: Span| (KEEP_FACT.to_owned(), now().saturating_add(span.0).to_string());
        let held = self.hold.then(|| (HELD_FACT.to_owned(), note.to_owned()));
        name.chain(self.keep_for.map(until)).chain(held).collect()
    }
}

fn check_name(name: &str) -> Result<()> {
    let refuse = |why: &str, next: &str| {
        Err(Error::usage(format!("'{name}' can't be the name of a backup: {why}.")).with_next(next))
    };
    let plain = |c: char| c.is_alphanumeric() || "-_.".contains(c);
    if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(plain) || name.starts_with(['-', '.']) {
        return refuse(
            "it has to be short and plain",
            "use up to 64 letters, digits, '-', '_' and '.', not beginning with '-' or '.'",
        );
    }
    // Whoever writes a whole id means that backup.
    if name.len() == ID_LETTERS && name.chars().all(|c| c.is_ascii_alphanumeric()) {
        return refuse("it could be an id", "put a '-' into it");
    }
    Ok(())
}

/// The name of a backup.
#[must_use]
pub(crate) fn name_of(backup: &BackupRecord) -> Option<&str> {
    backup.fact(NAME_FACT)
}

/// Until when a backup is kept by what was asked for with it.
#[must_use]
pub(crate) fn keep_until(backup: &BackupRecord) -> Option<Micros> {
    backup.fact(KEEP_FACT).and_then(|until| until.parse().ok())
}

/// Refuses a name that a backup of this server has.
///
/// # Errors
/// `Usage` with the backup's id.
pub fn refuse_taken(catalogue: &Catalogue, server: ServerId, own: &Own) -> Result<()> {
    let Some(name) = own.name.as_deref() else { return Ok(()) };
    let backups = catalogue.repository.backups_of(server);
    match backups.iter().find(|b| name_of(b) == Some(name)) {
        Some(other) => Err(taken(name, other.id)),
        None => Ok(()),
    }
}

pub(crate) fn taken(name: &str, id: BackupId) -> Error {
    Error::usage(format!("The backup {id} of this server is called '{name}' already."))
        .with_next(format!("use another name; or forget that one first: holdfast forget {id}"))
}

/// Holds a backup: it is kept until it is released, whatever the policy says. One that is held already stays so.
///
/// # Errors
/// `Usage` when there is no such backup.
pub fn hold(catalogue: &Catalogue, text: &str, reason: &str) -> Result<BackupView> {
    put(catalogue, text, true, reason)
}

/// Releases a backup: the policy, its own date and its lock say from here on how long it stays. One that is not held stays
/// as it is.
///
/// # Errors
/// `Usage` when there is no such backup, `PolicyForbids` while its server is locked.
pub fn release(catalogue: &Catalogue, text: &str, reason: &str, dry_run: bool) -> Result<BackupView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let backup = find_held(catalogue, text)?;
    refuse_locked(catalogue, backup.server)?;
    if dry_run {
        return Ok(view(catalogue, &backup));
    }
    put(catalogue, text, false, reason)
}

/// Releases a backup from one hold, the one that [`hold_number`] told of when it was asked for: a later one stays.
///
/// # Errors
/// As [`release`], and `PolicyForbids` when the backup is held by another hold.
pub fn release_from(catalogue: &Catalogue, text: &str, by: Option<u64>, reason: &str) -> Result<BackupView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let backup = find_held(catalogue, text)?;
    let released = catalogue.repository.release_from(backup.id, by, reason);
    released.map_err(|e| put_error(catalogue, e))?;
    Ok(view(catalogue, &backup))
}

/// Number of the record that holds a backup, if it is held.
///
/// # Errors
/// `Usage` when there is no such backup.
pub fn hold_number(catalogue: &Catalogue, text: &str) -> Result<Option<u64>> {
    Ok(catalogue.repository.held_by(find_held(catalogue, text)?.id))
}

/// The backup that `text` names. By its whole id also one that a program forgot which knew of no holds, and that is held
/// still: who releases it lets the next prune have it.
fn find_held(catalogue: &Catalogue, text: &str) -> Result<BackupRecord> {
    let forgotten = text.parse().ok().and_then(|id| catalogue.repository.held_though_forgotten(id));
    forgotten.map_or_else(|| find(catalogue, text), Ok)
}

fn put(catalogue: &Catalogue, text: &str, held: bool, reason: &str) -> Result<BackupView> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let backup = if held { find(catalogue, text)? } else { find_held(catalogue, text)? };
    let hold = HoldRecord { backup: backup.id, held, reason: reason.to_owned() };
    catalogue.repository.hold_backup(hold).map_err(|e| put_error(catalogue, e))?;
    Ok(view(catalogue, &backup))
}

fn put_error(catalogue: &Catalogue, error: holdfast_store::Error) -> Error {
    match error {
        holdfast_store::Error::ServerLocked { server } => {
            crate::server_lock::forbidden(&catalogue.server_name(server))
        }
        holdfast_store::Error::HeldAnew { id } => Error::new(
            Code::PolicyForbids,
            format!(
                "The backup {id} was held anew since this was asked for, or nobody knows for which hold."
            ),
        )
        .with_next("look why it is held, and ask for it again"),
        other => catalogue.store_error(other),
    }
}

/// What a hold says to whoever would take the backup away.
pub(crate) fn held(id: BackupId) -> Error {
    Error::new(Code::PolicyForbids, format!("The backup {id} is held and can't be forgotten."))
        .with_next(format!("release it first: holdfast unhold {id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_never_a_whole_id() {
        let own = |name: &str| Own { name: Some(name.to_owned()), ..Own::default() }.check();
        for fine in ["before-upgrade", "v2.1", "20261122", "größe", "g", &"a-".repeat(32)] {
            assert!(own(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "-x", ".x", "a b", "a/b", "'", &"x".repeat(26), &"x".repeat(65)] {
            assert!(own(wrong).is_err(), "{wrong}");
        }
        assert!(Own { keep_for: Some(Span(0)), ..Own::default() }.check().is_err());
    }
}
