//! `key`: the ways into a repository.

use crate::catalogue::{Catalogue, Key, secret};
use crate::error::{Error, Result};
use crate::time::Micros;
use crate::views::time;
use holdfast_store::{Argon2Cost, KeySlotInfo, KeySlotKind};
use serde::Serialize;

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
    Ok(RotatedView {
        generation: rotated.generation,
        kept: rotated.kept.iter().map(view).collect(),
        removed: rotated.removed.iter().map(view).collect(),
    })
}
