//! The keyring: three copies, a way in, and the keys behind it.

use std::collections::HashMap;
use std::time::Duration;

use holdfast_format::Error as Format;
use holdfast_format::ids::RepoId;
use holdfast_format::keyring::{Keyring, Secrets, SlotKind, WRITE_FEATURES};
use holdfast_format::keys;
use holdfast_format::limits::KEYRING_BYTES_MAX;
use holdfast_format::names::{KEYRINGS, REKEY_LOCK};
use holdfast_io::{Lock, LockKind, ObjectName, Objects};
use rayon::ThreadPoolBuilder;

use crate::crypt::Opener;
use crate::error::{Error, Result};
use crate::findings::{Findings, Mend};
use crate::kit::Kit;

/// What the user gives to get in.
pub enum Secret {
    /// A passphrase, without the line's end.
    Passphrase(Vec<u8>),
    /// The content of a key file.
    KeyFile(Vec<u8>),
    /// A recovery kit.
    Kit(Box<Kit>),
}

impl Secret {
    fn name(&self) -> &'static str {
        match self {
            Self::Passphrase(_) => "passphrase",
            Self::KeyFile(_) => "key file",
            Self::Kit(_) => "recovery kit",
        }
    }
}

/// Everything that opens something, once the keyring is open.
pub(crate) struct Keys {
    pub repo: RepoId,
    pub block_id_key: [u8; 32],
    pub head_key: [u8; 32],
    pub keks: HashMap<u32, [u8; 32]>,
    /// Features of the repository without which nothing may be written to it.
    pub unknown_features: u32,
    /// All features that a writer must know; none told by a kit that stands in for the keyring.
    pub write_features: Option<u32>,
    /// Generation of the keyring; none with a kit that stands in for it.
    pub keyring: Option<u64>,
}

/// Reads the copies, opens the newest one, and reports the others that are not like it. Gives the keys and how many
/// copies are right.
pub(crate) fn unlock(objects: &dyn Objects, secret: &Secret, found: &Findings) -> Result<(Keys, u64)> {
    let copies = copies(objects)?;
    let newest = copies.iter().filter_map(|(_, copy)| copy.as_ref().ok()).max_by_key(|k| k.generation);
    let Some(newest) = newest else {
        let all_missing = copies.iter().all(|(_, copy)| copy.as_ref().is_err_and(|flaw| flaw == MISSING));
        if all_missing && objects.list("manifest/")?.is_empty() {
            return Err(Error::NoRepository { place: "this folder".into() });
        }
        for (name, flaw) in
            copies.iter().filter_map(|(name, copy)| copy.as_ref().err().map(|flaw| (name, flaw)))
        {
            found.flaw(name, None, flaw.clone());
        }
        if let Secret::Kit(kit) = secret {
            return Ok((keys_of(kit.repo, &kit.secrets, 0), 0));
        }
        let flaw =
            copies.into_iter().find_map(|(name, copy)| copy.err().map(|flaw| format!("{name}: {flaw}")));
        return Err(Error::NoKeyring { flaw: flaw.unwrap_or_default() });
    };
    let unlock_key = match secret {
        Secret::Kit(kit) if kit.repo == newest.repo => kit.unlock,
        _ => open_slot(newest, secret)?,
    };
    let opener = Opener::new(&unlock_key);
    let secrets = opener.open(newest.nonce, &newest.aad(), &newest.sealed);
    let secrets = secrets.ok_or_else(|| "its secrets do not open".to_owned());
    let secrets = secrets.and_then(|plain| Secrets::decode(&plain).map_err(|e| e.to_string()));
    let secrets = secrets.map_err(|flaw| match secret {
        Secret::Kit(_) => Error::OldKit,
        _ => Error::NoKeyring { flaw },
    })?;
    let right = compare_copies(&copies, newest, found)?;
    if newest.rekeying {
        let what = "a re-encryption was begun and has not ended, so the keys from before it stay: the same command goes on (holdfast key rotate --rekey)";
        found.note("keyring", what.to_owned());
    }
    let keys = keys_of(newest.repo, &secrets, newest.write_features & !WRITE_FEATURES);
    let write_features = Some(newest.write_features);
    Ok((Keys { keyring: Some(newest.generation), write_features, ..keys }, right))
}

fn keys_of(repo: RepoId, secrets: &Secrets, unknown_features: u32) -> Keys {
    Keys {
        repo,
        block_id_key: keys::block_id_key(&secrets.root),
        head_key: keys::head_key(&secrets.root),
        keks: secrets.keks.iter().map(|kek| (kek.generation, kek.key)).collect(),
        unknown_features,
        write_features: None,
        keyring: None,
    }
}

/// Keeps a re-encryption away for as long as the lock lives; none where no lock can be had, as in a place that nobody
/// may write to. An error while one works, or if one ended since these keys were read.
pub(crate) fn hold_off_rekey(objects: &dyn Objects, keys: &Keys) -> Result<Option<Lock>> {
    let lock = match objects.lock(&ObjectName::new(REKEY_LOCK)?, LockKind::Shared, Duration::ZERO) {
        Ok(lock) => Some(lock),
        Err(holdfast_io::Error::LockBusy { .. }) => return Err(Error::Rekeying),
        Err(_) => None,
    };
    let now =
        copies(objects)?.into_iter().filter_map(|(_, copy)| copy.ok()).map(|copy| copy.generation).max();
    if keys.keyring.is_some() && now != keys.keyring { Err(Error::Rekeying) } else { Ok(lock) }
}

const MISSING: &str = "it is missing";

type Copy = (&'static str, std::result::Result<Keyring, String>);

/// The three copies; an error if they are whole and of a version that this program does not read.
fn copies(objects: &dyn Objects) -> Result<Vec<Copy>> {
    let mut copies = Vec::new();
    let mut other = None;
    for name in KEYRINGS {
        let object = ObjectName::new(name)?;
        let copy = match objects.len(&object) {
            Ok(len) if len > KEYRING_BYTES_MAX => {
                Err(format!("it has {len} bytes, the limit is {KEYRING_BYTES_MAX}"))
            }
            // The hash in it covers all bytes, so equal structures mean equal objects.
            Ok(len) => objects.read(&object, 0, len).map_err(|e| e.to_string()).and_then(|bytes| {
                Keyring::decode(&bytes).map_err(|e| {
                    let told = e.to_string();
                    if matches!(e, Format::Version { .. } | Format::Features { .. }) {
                        other = Some(e);
                    }
                    told
                })
            }),
            Err(e) if e.is_not_found() => Err(MISSING.to_owned()),
            Err(e) => Err(e.to_string()),
        };
        copies.push((name, copy));
    }
    match other {
        // A copy that this program reads was written by it, or by one like it: the other is damaged.
        Some(other) if copies.iter().all(|(_, copy)| copy.is_err()) => Err(Error::OtherFormat(other)),
        _ => Ok(copies),
    }
}

/// Reports copies that are damaged; an older generation is what a crash between two copies leaves.
fn compare_copies(copies: &[Copy], newest: &Keyring, found: &Findings) -> Result<u64> {
    let mut right = 0_u64;
    let good = copies.iter().find(|(_, copy)| copy.as_ref().is_ok_and(|copy| copy == newest));
    for (name, copy) in copies {
        // Two keyrings of one generation are a riddle that a person has to solve.
        let mendable = copy.as_ref().map_or(true, |copy| copy.generation < newest.generation);
        if let Some((good, _)) = good.filter(|_| mendable) {
            found.mend(Mend::Copy { bad: ObjectName::new(*name)?, good: ObjectName::new(*good)? });
        }
        match copy {
            Ok(copy) if copy == newest => right = right.saturating_add(1),
            Ok(copy) if copy.generation < newest.generation => {
                let (old, new) = (copy.generation, newest.generation);
                let what =
                    format!("it is of generation {old}, the newest copy of {new}: a change was broken off");
                found.note(name, what);
            }
            Ok(_) => {
                found.flaw(name, None, "it has the generation of another copy, but other keys".to_owned());
            }
            Err(flaw) => {
                found.flaw(name, None, format!("{flaw}; another copy serves"));
            }
        }
    }
    Ok(right)
}

/// Tries the secret on every slot it fits.
fn open_slot(keyring: &Keyring, secret: &Secret) -> Result<[u8; 32]> {
    for slot in &keyring.slots {
        let key = match (&slot.kind, secret) {
            (SlotKind::Passphrase { salt, memory_kib, passes, lanes }, Secret::Passphrase(text)) => {
                argon2id(text, salt, *memory_kib, *passes, *lanes)
            }
            (SlotKind::KeyFile, Secret::KeyFile(content)) => Some(keys::key_file_key(content)),
            _ => None,
        };
        let plain =
            key.and_then(|key| Opener::new(&key).open(slot.nonce, &slot.aad(keyring.repo), &slot.wrapped));
        if let Some(Ok(key)) = plain.map(<[u8; 32]>::try_from) {
            return Ok(key);
        }
    }
    Err(Error::WrongKey { secret: secret.name(), slots: keyring.slots.len() })
}

/// Argon2id, version 0x13, 32 bytes (RFC 9106). `None` for parameters that the algorithm refuses.
fn argon2id(passphrase: &[u8], salt: &[u8], memory_kib: u32, passes: u32, lanes: u32) -> Option<[u8; 32]> {
    let params = argon2::Params::new(memory_kib, passes, lanes, Some(32)).ok()?;
    let mut key = [0; 32];
    let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = ThreadPoolBuilder::new().num_threads(cores.min(lanes.max(1) as usize));
    in_pool(threads, || argon.hash_password_into(passphrase, salt, &mut key)).ok()?;
    Some(key)
}

/// Runs `work` in this pool. Where the system refuses its threads, this one does it alone; without a pool, the hash
/// would ask for the one of the whole process, which panics then.
fn in_pool<T: Send>(pool: ThreadPoolBuilder, work: impl FnOnce() -> T + Send) -> T {
    if let Ok(pool) = pool.build() {
        return pool.install(work);
    }
    // This thread stays in this pool: so what is checked later is checked here, too.
    let _alone = ThreadPoolBuilder::new().num_threads(1).use_current_thread().build();
    work()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_the_same_where_the_system_refuses_threads() {
        let right = argon2id(b"words", &[7; 16], 64, 1, 4);
        assert!(right.is_some());
        // No address space is left for such a stack.
        let refused = || ThreadPoolBuilder::new().num_threads(2).stack_size(1 << 60);
        assert!(refused().build().is_err());
        let alone = || (argon2id(b"words", &[7; 16], 64, 1, 4), rayon::current_num_threads());
        // The second time, this thread is in a pool of its own already.
        for _ in 0..2 {
            assert_eq!(in_pool(refused(), alone), (right, 1));
        }
    }
}
