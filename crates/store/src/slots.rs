//! Key slots: who may come in. Changes of the keyring are made under its lock, written three times, and read back.

use std::time::Duration;

use holdfast_format::ids::{KeySlotId, RepoId};
use holdfast_format::keyring::{Kek, KeySlot, Keyring, RESEALED, Secrets, SlotKind, WRITE_FEATURES};
use holdfast_format::limits::{KEKS_MAX, KEY_SLOTS_MAX, NAME_BYTES_MAX};
use holdfast_format::names::{KEYRING_LOCK, KEYRINGS};
use holdfast_io::{Lock, LockKind, ObjectName, Objects};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::Cipher;
use crate::error::{Error, Result};
use crate::keys::{Argon2Cost, Copies, Keys, Secret, open_secrets, open_slot, read_keyring, slot_key};
use crate::random;

/// How long a change waits for another one: some small files are written.
const LOCK_WAIT: Duration = Duration::from_secs(30);

/// What opens a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeySlotKind {
    /// A passphrase.
    Passphrase,
    /// A key file.
    KeyFile,
}

/// A way in, as far as it may be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlotInfo {
    /// Its id.
    pub id: KeySlotId,
    /// What opens it.
    pub kind: KeySlotKind,
    /// What its owner calls it.
    pub label: String,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
    /// This process came in by it.
    pub current: bool,
}

/// What came of a rotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Generation of the key that wraps the keys of new segments now.
    pub generation: u32,
    /// The ways in that are left.
    pub kept: Vec<KeySlotInfo>,
    /// The ways in that are no more: nobody gave what opens them.
    pub removed: Vec<KeySlotInfo>,
}

fn info(slot: &KeySlot, current: Option<KeySlotId>) -> KeySlotInfo {
    KeySlotInfo {
        id: slot.id,
        kind: match slot.kind {
            SlotKind::Passphrase { .. } => KeySlotKind::Passphrase,
            SlotKind::KeyFile => KeySlotKind::KeyFile,
        },
        label: slot.label.clone(),
        created_us: slot.created_us,
        current: current == Some(slot.id),
    }
}

/// The ways in.
pub(crate) fn list(objects: &dyn Objects, keys: &Keys) -> Result<Vec<KeySlotInfo>> {
    Ok(read_keyring(objects)?.slots.iter().map(|slot| info(slot, keys.opened_by)).collect())
}

/// A keyring that is being changed.
struct Change<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    keyring: Keyring,
    /// All three copies are there and the same.
    alike: bool,
    secrets: Secrets,
    _lock: Lock,
}

impl Drop for Change<'_> {
    fn drop(&mut self) {
        self.secrets.root.zeroize();
        self.secrets.keks.iter_mut().for_each(|kek| kek.key.zeroize());
    }
}

impl<'a> Change<'a> {
    fn begin(objects: &'a dyn Objects, keys: &'a Keys) -> Result<Self> {
        let lock = objects.lock(&ObjectName::new(KEYRING_LOCK)?, LockKind::Exclusive, LOCK_WAIT)?;
        let mut copies = Copies::read(objects);
        let unknown = copies.write_features() & !WRITE_FEATURES;
        let keyring = copies.take_newest()?;
        if unknown != 0 {
            return Err(Error::OtherFormat { source: holdfast_format::Error::Features { unknown } });
        }
        if let Some((name, why)) = copies.strange() {
            let why =
                format!("{name} is not for this program to write over ({why}); holdfast-fsck tells more");
            return Err(Error::Refused { op: "change the keyring", why });
        }
        // Whoever came in before a rotation may not undo it.
        let secrets = open_secrets(&keyring, keys.engine, keys.unlock()).map_err(|_| Error::KeysRotated)?;
        Ok(Self { objects, keys, keyring, alike: copies.alike(), secrets, _lock: lock })
    }

    /// Seals the secrets anew and stores the keyring; durable three times when this returns.
    fn store(&mut self, unlock: &[u8; 32]) -> Result<()> {
        self.keyring.generation = self.keyring.generation.saturating_add(1);
        self.keyring.nonce = random::bytes()?;
        let aad = self.keyring.aad();
        let mut sealed = self.secrets.encode();
        Cipher::new(self.keys.engine, unlock)?.seal(self.keyring.nonce, &aad, &mut sealed)?;
        self.keyring.sealed = sealed;
        let bytes = self.keyring.encode();
        // Before anything is replaced: what was encoded is what a reader will find.
        let again = Keyring::decode(&bytes).map_err(Error::format("keyring"))?;
        let opened = open_secrets(&again, self.keys.engine, unlock)?;
        if again != self.keyring || opened != self.secrets {
            return Err(Error::SelfCheck { what: "a keyring" });
        }
        for name in KEYRINGS {
            self.objects.replace(&ObjectName::new(name)?, &bytes)?;
        }
        self.keys.settle();
        Ok(())
    }
}

/// A new slot around an unlock key.
pub(crate) fn new_slot(
    keys: (crate::cipher::Engine, RepoId),
    secret: &Secret,
    label: &str,
    cost: Argon2Cost,
    now_us: i64,
    unlock: &[u8; 32],
) -> Result<KeySlot> {
    let (engine, repo) = keys;
    let kind = match secret {
        Secret::Passphrase(_) => SlotKind::Passphrase {
            salt: random::bytes()?,
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: cost.lanes,
        },
        Secret::KeyFile(_) => SlotKind::KeyFile,
        Secret::Kit(_) => {
            let why = "a recovery kit is a way in already; name a passphrase or a key file for the new one"
                .to_owned();
            return Err(Error::Refused { op: "make a key slot", why });
        }
    };
    if label.len() > NAME_BYTES_MAX as usize {
        let why = format!("its label has more than {NAME_BYTES_MAX} bytes; give a shorter one");
        return Err(Error::Refused { op: "make a key slot", why });
    }
    let mut slot = KeySlot {
        id: KeySlotId(random::bytes()?),
        kind,
        label: label.to_owned(),
        created_us: now_us,
        nonce: random::bytes()?,
        wrapped: [0; 48],
    };
    wrap(engine, repo, &mut slot, secret, unlock)?;
    Ok(slot)
}

/// Seals an unlock key into a slot.
fn wrap(
    engine: crate::cipher::Engine,
    repo: RepoId,
    slot: &mut KeySlot,
    secret: &Secret,
    unlock: &[u8; 32],
) -> Result<()> {
    let slot_key = slot_key(&slot.kind, secret)?.ok_or(Error::WrongSecret)?;
    let cipher = Cipher::new(engine, &slot_key)?;
    slot.nonce = random::bytes()?;
    let mut wrapped = unlock.to_vec();
    cipher.seal(slot.nonce, &slot.aad(repo), &mut wrapped)?;
    slot.wrapped = *wrapped.first_chunk().ok_or(Error::SelfCheck { what: "a wrapped key" })?;
    if open_slot(engine, repo, slot, secret)?.as_deref() != Some(unlock) {
        return Err(Error::SelfCheck { what: "a key slot" });
    }
    Ok(())
}

/// Sets features of the repository that a writer must know, if they are not set: durable in every copy of the keyring when
/// this returns, so that what needs them may be written.
pub(crate) fn need(objects: &dyn Objects, keys: &Keys, features: u32) -> Result<()> {
    if keys.has_features(features) {
        return Ok(());
    }
    let mut change = Change::begin(objects, keys)?;
    // A change that was broken off may have left them in some copies only.
    if change.keyring.write_features & features != features || !change.alike {
        change.keyring.write_features |= features;
        change.store(keys.unlock())?;
    }
    keys.note_features(change.keyring.write_features);
    Ok(())
}

/// Refuses where a writer must know a feature that this program does not, by any copy of the keyring as they are now:
/// another program may have set one since this one opened the repository.
///
/// # Errors
/// [`Error::OtherFormat`] for such a feature, or where no copy can be read by this program at all; [`Error::Refused`] where
/// one of them is not of this program's making; the keyring's, if it could be read once and can't be now.
pub(crate) fn refuse_unknown_features(objects: &dyn Objects, keys: &Keys) -> Result<()> {
    let mut copies = Copies::read(objects);
    let unknown = (copies.write_features() & !WRITE_FEATURES) | keys.unknown_features;
    if unknown != 0 {
        return Err(Error::OtherFormat { source: holdfast_format::Error::Features { unknown } });
    }
    match copies.take_newest() {
        Ok(_) => {}
        // A kit stood in for a keyring that is lost.
        Err(e) if keys.read_from.is_none() && !matches!(e, Error::OtherFormat { .. }) => {}
        Err(e) => return Err(e),
    }
    if let Some((name, why)) = copies.strange() {
        let why =
            format!("{name} may say that a newer Holdfast keeps something ({why}); holdfast-fsck tells more");
        return Err(Error::Refused { op: "take anything away", why });
    }
    Ok(())
}

/// Adds a way in.
pub(crate) fn add(
    objects: &dyn Objects,
    keys: &Keys,
    secret: &Secret,
    label: &str,
    cost: Argon2Cost,
    now_us: i64,
) -> Result<KeySlotInfo> {
    let mut change = Change::begin(objects, keys)?;
    if change.keyring.slots.len() >= KEY_SLOTS_MAX as usize {
        let why = format!("there are {KEY_SLOTS_MAX} already; remove one first (holdfast key remove)");
        return Err(Error::Refused { op: "add a key slot", why });
    }
    let slot = new_slot((keys.engine, keys.repo), secret, label, cost, now_us, keys.unlock())?;
    let shown = info(&slot, None);
    change.keyring.slots.push(slot);
    change.store(keys.unlock())?;
    Ok(shown)
}

/// Removes a way in; the last one stays.
pub(crate) fn remove(objects: &dyn Objects, keys: &Keys, id: KeySlotId) -> Result<KeySlotInfo> {
    let mut change = Change::begin(objects, keys)?;
    let refused = |why: String| Err(Error::Refused { op: "remove the key slot", why });
    let Some(at) = change.keyring.slots.iter().position(|slot| slot.id == id) else {
        return refused(format!("there is no slot {id}; holdfast key list shows those that there are"));
    };
    if change.keyring.slots.len() == 1 {
        return refused(format!("{id} is the only one; add another first (holdfast key add)"));
    }
    let gone = change.keyring.slots.remove(at);
    change.store(keys.unlock())?;
    Ok(info(&gone, keys.opened_by))
}

/// Makes a new unlock key and a new key-encrypting key. The slots that one of `secrets` opens stay, the others are
/// removed; an old copy of the keyring, and a kit of before, open what was written before and nothing newer.
pub(crate) fn rotate(objects: &dyn Objects, keys: &Keys, secrets: &[Secret]) -> Result<Rotated> {
    rotate_in(Change::begin(objects, keys)?, keys, secrets)
}

/// Makes new keys and notes in the same step that a re-encryption to them has begun; if one has already, its keys stay,
/// and all slots, and all copies of the keyring are written once more. Tells which of the two with true for the second.
pub(crate) fn begin_rekey(objects: &dyn Objects, keys: &Keys, secrets: &[Secret]) -> Result<(Rotated, bool)> {
    let mut change = Change::begin(objects, keys)?;
    if change.keyring.rekeying {
        // Whatever broke the first run off may have come before its second copy; all that follows is sealed under
        // these keys.
        change.store(keys.unlock())?;
        let kept = change.keyring.slots.iter().map(|slot| info(slot, keys.opened_by)).collect();
        return Ok((Rotated { generation: keys.generation(), kept, removed: Vec::new() }, true));
    }
    change.keyring.rekeying = true;
    change.keyring.read_features |= RESEALED;
    Ok((rotate_in(change, keys, secrets)?, false))
}

/// Drops all keys but the newest: nothing names them any more.
pub(crate) fn end_rekey(objects: &dyn Objects, keys: &Keys) -> Result<()> {
    let mut change = Change::begin(objects, keys)?;
    let newest = keys.generation();
    if change.secrets.keks.last().map(|kek| kek.generation) != Some(newest) {
        return Err(Error::KeysRotated);
    }
    change.secrets.keks.iter_mut().filter(|kek| kek.generation != newest).for_each(|kek| kek.key.zeroize());
    change.secrets.keks.retain(|kek| kek.generation == newest);
    change.keyring.rekeying = false;
    change.store(keys.unlock())
}

/// Whether the keyring holds no key but the newest, and no re-encryption has begun: so the last step of one leaves it.
/// Stores it once more, so that all copies say so, and gives the slots.
pub(crate) fn settle(objects: &dyn Objects, keys: &Keys) -> Result<Option<Rotated>> {
    let mut change = Change::begin(objects, keys)?;
    if change.keyring.rekeying || change.secrets.keks.len() != 1 {
        return Ok(None);
    }
    change.store(keys.unlock())?;
    let kept = change.keyring.slots.iter().map(|slot| info(slot, keys.opened_by)).collect();
    Ok(Some(Rotated { generation: keys.generation(), kept, removed: Vec::new() }))
}

/// Whether the keyring was changed since these keys were read from it.
pub(crate) fn changed(objects: &dyn Objects, keys: &Keys) -> Result<bool> {
    match keys.read_from {
        Some(generation) => Ok(read_keyring(objects)?.generation != generation),
        None => Ok(false),
    }
}

/// What [`begin_rekey`] would make of the slots; nothing is changed.
pub(crate) fn plan_rekey(objects: &dyn Objects, keys: &Keys, secrets: &[Secret]) -> Result<(Rotated, bool)> {
    let keyring = read_keyring(objects)?;
    if keyring.rekeying {
        let kept = keyring.slots.iter().map(|slot| info(slot, keys.opened_by)).collect();
        return Ok((Rotated { generation: keys.generation(), kept, removed: Vec::new() }, true));
    }
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for slot in &keyring.slots {
        let list = if fitting(keys, slot, secrets)?.is_some() { &mut kept } else { &mut removed };
        list.push(info(slot, keys.opened_by));
    }
    if kept.is_empty() {
        return Err(Error::WrongSecret);
    }
    Ok((Rotated { generation: keys.generation().saturating_add(1), kept, removed }, false))
}

/// The secret that opens a slot, if any of them does.
fn fitting<'a>(keys: &Keys, slot: &KeySlot, secrets: &'a [Secret]) -> Result<Option<&'a Secret>> {
    for secret in secrets {
        if open_slot(keys.engine, keys.repo, slot, secret)?.is_some() {
            return Ok(Some(secret));
        }
    }
    Ok(None)
}

fn rotate_in(mut change: Change<'_>, keys: &Keys, secrets: &[Secret]) -> Result<Rotated> {
    let unlock = Zeroizing::new(random::bytes::<32>()?);
    let (mut kept, mut removed) = (Vec::new(), Vec::new());
    for mut slot in std::mem::take(&mut change.keyring.slots) {
        match fitting(keys, &slot, secrets)? {
            Some(secret) => {
                wrap(keys.engine, keys.repo, &mut slot, secret, &unlock)?;
                kept.push(info(&slot, keys.opened_by));
                change.keyring.slots.push(slot);
            }
            None => removed.push(info(&slot, keys.opened_by)),
        }
    }
    if kept.is_empty() {
        return Err(Error::WrongSecret);
    }
    let last = change.secrets.keks.last().ok_or(Error::SelfCheck { what: "a keyring without keys" })?;
    let generation = last.generation.saturating_add(1);
    // The last place is for a re-encryption, which leaves one key of them all.
    let most = if change.keyring.rekeying { KEKS_MAX } else { KEKS_MAX - 1 };
    if change.secrets.keks.len() >= most as usize {
        let why = format!(
            "the keyring holds {} keys already; re-encrypt the repository (holdfast key rotate --rekey), which leaves one",
            change.secrets.keks.len()
        );
        return Err(Error::Refused { op: "rotate the keys", why });
    }
    change.secrets.keks.push(Kek { generation, key: random::bytes()? });
    change.store(&unlock)?;
    Ok(Rotated { generation, kept, removed })
}
