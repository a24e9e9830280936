//! `key`: the ways into a repository.

use crate::catalogue::{Catalogue, Key, objects, open_options, secret, store_error};
use crate::error::{Code, Error, Result};
use crate::progress::{Reading, Watcher};
use crate::settings::Environment;
use crate::time::Micros;
use crate::views::time;
use holdfast_store::{Argon2Cost, KeySlotInfo, KeySlotKind, RekeyPlan, Repository};
use serde::Serialize;
use std::path::Path;

/// A way in.
#[derive(Clone, Debug, Serialize)]
pub struct KeyView {
    /// Its id.
    pub id: String,
    /// `passphrase` or `key file`.
    pub kind: &'static str,
    /// What its owner calls it.
    pub label: String,
    /// When it was added.
    #[serde(serialize_with = "time")]
    pub added: Micros,
    /// This command came in by it.
    pub current: bool,
}

/// What came of a rotation.
#[derive(Clone, Debug, Serialize)]
pub struct RotatedView {
    /// Number of the key that wraps what is new.
    pub generation: u32,
    /// The ways in that are left.
    pub kept: Vec<KeyView>,
    /// The ways in that are no more.
    pub removed: Vec<KeyView>,
}

/// What a re-encryption would do, or did.
#[derive(Clone, Debug, Serialize)]
pub struct RekeyView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// It goes on, or went on, with one that was broken off.
    pub resumed: bool,
    /// The new keys, or what they would be: which ways in stay, and which go.
    pub rotated: RotatedView,
    /// Data and meta segments that were sealed anew, or are to be.
    pub segments: u64,
    /// Log segments.
    pub logs: u64,
    /// Copies of records, and packs of them.
    pub records: u64,
    /// Bytes of all these.
    pub bytes: u64,
    /// Bytes that must be free for it.
    pub free_bytes: u64,
    /// Objects in `quarantine/`, which have to go before it.
    pub quarantined: u64,
    /// What could not be sealed anew, so that the old keys stay.
    pub left: Vec<String>,
    /// Backups that need what could not be sealed anew.
    pub needed_by: Vec<String>,
}

fn rekey_view(plan: &RekeyPlan, rotated: RotatedView, dry_run: bool) -> RekeyView {
    RekeyView {
        dry_run,
        resumed: plan.resumes,
        rotated,
        segments: plan.segments,
        logs: plan.logs,
        records: plan.records,
        bytes: plan.bytes,
        free_bytes: plan.free_bytes,
        quarantined: plan.quarantined,
        left: Vec::new(),
        needed_by: Vec::new(),
    }
}

fn rotated_view(rotated: &holdfast_store::Rotated) -> RotatedView {
    RotatedView {
        generation: rotated.generation,
        kept: rotated.kept.iter().map(view).collect(),
        removed: rotated.removed.iter().map(view).collect(),
    }
}

fn view(slot: &KeySlotInfo) -> KeyView {
    KeyView {
        id: slot.id.to_string(),
        kind: match slot.kind {
            KeySlotKind::Passphrase => "passphrase",
            KeySlotKind::KeyFile => "key file",
        },
        label: slot.label.clone(),
        added: slot.created_us,
        current: slot.current,
    }
}

/// The ways in.
///
/// # Errors
/// When the keyring can't be read.
pub fn list(catalogue: &Catalogue) -> Result<Vec<KeyView>> {
    let slots = catalogue.repository.key_slots().map_err(|e| catalogue.store_error(e))?;
    Ok(slots.iter().map(view).collect())
}

/// Adds a way in.
///
/// # Errors
/// `Usage` when the new key can't be read.
pub fn add(catalogue: &Catalogue, key: &Key, label: &str) -> Result<KeyView> {
    let secret = secret(key)?;
    let slot = catalogue.repository.add_key(&secret, label, Argon2Cost::default());
    slot.map(|slot| view(&slot)).map_err(|e| catalogue.store_error(e))
}

/// Removes the way in that `text` names: its id, the beginning of it, or its label.
///
/// # Errors
/// `Usage` when none or several are named so.
pub fn remove(catalogue: &Catalogue, text: &str) -> Result<KeyView> {
    let told = |e| catalogue.store_error(e);
    let slots = catalogue.repository.key_slots().map_err(told)?;
    let named =
        |s: &&KeySlotInfo| !text.is_empty() && (s.id.to_string().starts_with(text) || s.label == text);
    let mut found = slots.iter().filter(named);
    match (found.next(), found.next()) {
        (Some(slot), None) => catalogue.repository.remove_key(slot.id).map(|s| view(&s)).map_err(told),
        (Some(_), Some(_)) => Err(Error::usage(format!("'{text}' names several key slots."))
            .with_next("write more letters of the id: holdfast key list")),
        (None, _) => Err(Error::usage(format!("There is no key slot '{text}'."))
            .with_next("see what there is: holdfast key list")),
    }
}

/// Makes new keys. The slots that one of `keys` opens stay, the others go.
///
/// # Errors
/// `WrongKey` when no key opens any slot.
pub fn rotate(catalogue: &Catalogue, keys: &[Key]) -> Result<RotatedView> {
    let secrets = keys.iter().map(secret).collect::<Result<Vec<_>>>()?;
    let rotated = catalogue.repository.rotate_keys(&secrets).map_err(|e| catalogue.store_error(e))?;
    Ok(rotated_view(&rotated))
}

/// What [`rekey`] would do with these keys.
///
/// # Errors
/// When the repository can't be read; `WrongKey` when no key opens any slot.
pub fn plan_rekey(catalogue: &Catalogue, keys: &[Key]) -> Result<RekeyView> {
    let secrets = keys.iter().map(secret).collect::<Result<Vec<_>>>()?;
    let (plan, rotated) = catalogue.repository.plan_rekey(&secrets).map_err(|e| catalogue.store_error(e))?;
    Ok(rekey_view(&plan, rotated_view(&rotated), true))
}

/// Makes new keys, seals everything in the repository at `place` anew under them, and drops the old ones; one that was
/// broken off goes on. The first of `keys` that fits opens the repository; slots that none of them opens go.
///
/// # Errors
/// `Locked` while anybody has the repository open, `WrongKey`, `Interrupted` when the watcher wanted it to stop.
pub fn rekey(
    environment: &Environment,
    place: &Path,
    keys: &[Key],
    watcher: &dyn Watcher,
) -> Result<RekeyView> {
    let secrets = keys.iter().map(secret).collect::<Result<Vec<_>>>()?;
    let report = Repository::rekey(objects(place)?, &secrets, open_options(environment), &|at| {
        let (done, total) = (at.bytes, Some(at.total));
        watcher.reading(Reading { phase: "re-encrypt", done, total, bytes: true, ..Reading::default() });
        !watcher.cancelled()
    });
    let report = report.map_err(|e| store_error(place, e))?;
    if !report.finished && report.left.is_empty() {
        let why =
            "The re-encryption was stopped; the repository can be used as it is, and the old keys stay.";
        return Err(Error::new(Code::Interrupted, why).with_next("the same command goes on"));
    }
    let mut view = rekey_view(&report.done, rotated_view(&report.rotated), false);
    view.resumed = report.resumed;
    view.left = report.left;
    view.needed_by = report.needed_by.iter().map(ToString::to_string).collect();
    Ok(view)
}
