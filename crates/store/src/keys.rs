//! The keyring at work: slots, secrets, the recovery kit. Its three copies: `copies.rs`.

mod copies;

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use holdfast_format::VERSION;
use holdfast_format::ids::{KeySlotId, RepoId, SegmentId, hex};
use holdfast_format::keyring::{Kek, KeySlot, Keyring, Secrets, SlotKind, WRITE_FEATURES};
use holdfast_format::keys;
use holdfast_format::names::KEYRINGS;
use holdfast_format::segment::Birth;
use holdfast_io::{ObjectName, Objects};
use zeroize::{Zeroize, Zeroizing};

use crate::cipher::{Cipher, Engine};
use crate::error::{Error, Result};
use crate::lanes;
use crate::random;
pub(crate) use copies::{Copies, agree, read_keyring};

/// What a user opens a repository with.
pub enum Secret {
    /// A passphrase.
    Passphrase(Zeroizing<String>),
    /// The content of a key file.
    KeyFile(Zeroizing<Vec<u8>>),
    /// A recovery kit.
    Kit(RecoveryKit),
}

impl Secret {
    /// A passphrase.
    pub fn passphrase(text: impl Into<String>) -> Self {
        Self::Passphrase(Zeroizing::new(text.into()))
    }

    /// The content of a key file.
    pub fn key_file(content: impl Into<Vec<u8>>) -> Self {
        Self::KeyFile(Zeroizing::new(content.into()))
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What Argon2id is asked to spend on a new passphrase slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Argon2Cost {
    /// Memory, KiB.
    pub memory_kib: u32,
    /// Passes.
    pub passes: u32,
    /// Parts of the memory that are filled side by side, on as many cores as there are: whoever guesses gains nothing by it.
    pub lanes: u32,
}

impl Default for Argon2Cost {
    /// RFC 9106's second recommendation: 64 MiB, three passes, four lanes. On two cores less than a tenth of a second.
    fn default() -> Self {
        Self { memory_kib: 64 * 1024, passes: 3, lanes: 4 }
    }
}

/// Everything that opens a repository, as a text to print and lock away.
#[derive(Clone)]
pub struct RecoveryKit {
    repo: RepoId,
    unlock: Zeroizing<[u8; 32]>,
    secrets: Secrets,
}

impl std::fmt::Debug for RecoveryKit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryKit(..)")
    }
}

const KIT_BEGIN: &str = "-----BEGIN HOLDFAST RECOVERY KIT-----";
const KIT_END: &str = "-----END HOLDFAST RECOVERY KIT-----";

impl RecoveryKit {
    /// The repository it opens.
    #[must_use]
    pub fn repo(&self) -> RepoId {
        self.repo
    }

    /// The text: lines for people, then hexadecimal digits of version (`u32`), repository, unlock key, secrets, and the
    /// first eight bytes of BLAKE3 of all that.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(VERSION.to_le_bytes().to_vec());
        bytes.extend_from_slice(&self.repo.0);
        bytes.extend_from_slice(self.unlock.as_slice());
        bytes.extend_from_slice(&Zeroizing::new(self.secrets.encode()));
        let check = blake3::hash(&bytes);
        bytes.extend_from_slice(check.as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]));
        let digits = Zeroizing::new(hex(&bytes));
        let mut text = Zeroizing::new(format!(
            "Holdfast recovery kit of repository {}\n\
             Whoever has this text can read everything in that repository. Print it, lock it away,\n\
             and keep no copy on the machines that it is meant to bring back.\n{KIT_BEGIN}\n",
            self.repo
        ));
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && at % 4 == 0 {
                text.push(if at % 48 == 0 { '\n' } else { ' ' });
            }
            text.push(digit);
        }
        text.push('\n');
        text.push_str(KIT_END);
        text.push('\n');
        text
    }

    /// Reads the text; spaces, line breaks and the case of digits don't matter.
    pub fn from_text(text: &str) -> Result<Self> {
        let bad = |why| Error::BadKit { why };
        let (_, rest) = text.split_once(KIT_BEGIN).ok_or(bad("its first line is missing"))?;
        let (digits, _) = rest.split_once(KIT_END).ok_or(bad("its last line is missing"))?;
        let mut bytes = Zeroizing::new(Vec::new());
        let mut high = None;
        for c in digits.chars().filter(|c| !c.is_whitespace()) {
            let digit = c.to_digit(16).and_then(|d| u8::try_from(d).ok());
            let digit = digit.ok_or(bad("it has a character that is no hexadecimal digit"))?;
            match high.take() {
                None => high = Some(digit),
                Some(h) => bytes.push(h << 4 | digit),
            }
        }
        let Some((body, check)) = bytes.split_last_chunk::<8>().filter(|_| high.is_none()) else {
            return Err(bad("digits are missing"));
        };
        if blake3::hash(body).as_bytes().first_chunk::<8>() != Some(check) {
            return Err(bad("a digit is wrong"));
        }
        let mut r = holdfast_format::codec::Reader::new("recovery kit", body);
        let read = |r: &mut holdfast_format::codec::Reader<'_>| {
            r.version(VERSION)?;
            Ok((RepoId(r.array()?), Zeroizing::new(r.array()?), Secrets::decode(r.rest())?))
        };
        let (repo, unlock, secrets) = read(&mut r).map_err(Error::format("the recovery kit"))?;
        Ok(Self { repo, unlock, secrets })
    }
}

/// The keys of an open repository.
pub(crate) struct Keys {
    pub(crate) repo: RepoId,
    pub(crate) engine: Engine,
    pub(crate) block_id: [u8; 32],
    pub(crate) head: [u8; 32],
    /// The slot that let this process in; none with a kit.
    pub(crate) opened_by: Option<KeySlotId>,
    /// Features of the repository without which nothing may be written to it.
    pub(crate) unknown_features: u32,
    /// Generation of the keyring that they were read from; none with a kit that stood in for it.
    pub(crate) read_from: Option<u64>,
    /// Copies of the keyring that could not be read, and why; the others served.
    pub(crate) bad_copies: Vec<(String, String)>,
    /// They are those of the newest copy of the keyring.
    of_newest: bool,
    /// Features of the repository that all copies of the keyring are known to have.
    features: AtomicU32,
    /// Not all copies of the keyring have the newest of these keys: nothing may be sealed with it.
    unsettled: AtomicBool,
    secrets: Secrets,
    unlock: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys(..)")
    }
}

impl Drop for Keys {
    fn drop(&mut self) {
        self.block_id.zeroize();
        self.head.zeroize();
        self.secrets.root.zeroize();
        for kek in &mut self.secrets.keks {
            kek.key.zeroize();
        }
    }
}

impl Keys {
    fn new(repo: RepoId, engine: Engine, unlock: Zeroizing<[u8; 32]>, secrets: Secrets) -> Self {
        let (block_id, head) = (keys::block_id_key(&secrets.root), keys::head_key(&secrets.root));
        Self {
            repo,
            engine,
            block_id,
            head,
            opened_by: None,
            unknown_features: 0,
            read_from: None,
            bad_copies: Vec::new(),
            of_newest: false,
            features: AtomicU32::new(0),
            unsettled: AtomicBool::new(false),
            secrets,
            unlock,
        }
    }

    /// Makes the keys of a new repository and stores the keyring.
    pub(crate) fn create(
        objects: &dyn Objects,
        engine: Engine,
        secret: &Secret,
        cost: Argon2Cost,
        now_us: i64,
    ) -> Result<Self> {
        let repo = RepoId(random::bytes()?);
        let unlock = Zeroizing::new(random::bytes()?);
        let secrets =
            Secrets { root: random::bytes()?, keks: vec![Kek { generation: 1, key: random::bytes()? }] };
        let slot = crate::slots::new_slot((engine, repo), secret, "first", cost, now_us, &unlock)?;
        let opened_by = Some(slot.id);
        let mut keyring = Keyring {
            repo,
            read_features: 0,
            write_features: WRITE_FEATURES,
            rekeying: false,
            generation: 1,
            slots: vec![slot],
            nonce: random::bytes()?,
            sealed: secrets.encode(),
        };
        let aad = keyring.aad();
        Cipher::new(engine, &unlock)?.seal(keyring.nonce, &aad, &mut keyring.sealed)?;
        let bytes = keyring.encode();
        for name in KEYRINGS {
            objects.replace(&ObjectName::new(name)?, &bytes)?;
        }
        let mut keys = Self::new(repo, engine, unlock, secrets);
        keys.opened_by = opened_by;
        Ok(keys)
    }

    /// Reads the keyring and opens it.
    pub(crate) fn open(objects: &dyn Objects, engine: Engine, secret: &Secret) -> Result<Self> {
        let copies = Copies::read(objects);
        let (bad_copies, broken_off) = (copies.bad(), copies.broken_off());
        let keyring = copies.newest();
        let mut keys = match secret {
            Secret::Kit(kit) => Self::open_with_kit(keyring, engine, kit)?,
            _ => Self::open_with_slot(&keyring?, engine, secret)?,
        };
        keys.bad_copies = bad_copies;
        // Who came in by a kit that the newest keyring does not know has older keys, which all copies hold.
        keys.unsettled = AtomicBool::new(broken_off && keys.of_newest);
        Ok(keys)
    }

    fn open_with_slot(keyring: &Keyring, engine: Engine, secret: &Secret) -> Result<Self> {
        for slot in &keyring.slots {
            let Some(unlock) = open_slot(engine, keyring.repo, slot, secret)? else { continue };
            let secrets = open_secrets(keyring, engine, &unlock)?;
            let mut keys = Self::new(keyring.repo, engine, unlock, secrets);
            keys.opened_by = Some(slot.id);
            keys.read_from = Some(keyring.generation);
            keys.of_newest = true;
            keys.unknown_features = keyring.write_features & !WRITE_FEATURES;
            return Ok(keys);
        }
        Err(Error::WrongSecret)
    }

    /// A kit opens the keyring, which may hold newer keys; without any that can be read it stands in for it.
    fn open_with_kit(keyring: Result<Keyring>, engine: Engine, kit: &RecoveryKit) -> Result<Self> {
        let features = keyring.as_ref().map_or(0, |keyring| keyring.write_features);
        let mut of_newest = false;
        let secrets = match keyring {
            Ok(keyring) if keyring.repo != kit.repo => {
                return Err(Error::BadKit { why: "it belongs to another repository" });
            }
            Ok(keyring) => match open_secrets(&keyring, engine, &kit.unlock) {
                Ok(secrets) => {
                    of_newest = true;
                    secrets
                }
                Err(_) => kit.secrets.clone(),
            },
            // Bytes that the disk does not give are lost like any others; what else may fail may be tried again.
            Err(Error::Io(e)) if !e.is_not_found() && !matches!(e, holdfast_io::Error::Io { .. }) => {
                return Err(Error::Io(e));
            }
            Err(e @ Error::OtherFormat { .. }) => return Err(e),
            Err(_) => kit.secrets.clone(),
        };
        let mut keys = Self::new(kit.repo, engine, kit.unlock.clone(), secrets);
        keys.unknown_features = features & !WRITE_FEATURES;
        keys.of_newest = of_newest;
        Ok(keys)
    }

    /// The kit of this repository.
    pub(crate) fn kit(&self) -> RecoveryKit {
        RecoveryKit { repo: self.repo, unlock: self.unlock.clone(), secrets: self.secrets.clone() }
    }

    /// The kit with the keys that the keyring holds now; with our own where no copy of the keyring is left.
    pub(crate) fn kit_now(&self, objects: &dyn Objects) -> Result<RecoveryKit> {
        match read_keyring(objects) {
            Ok(keyring) => {
                let secrets =
                    open_secrets(&keyring, self.engine, &self.unlock).map_err(|_| Error::OldKeys)?;
                Ok(RecoveryKit { repo: self.repo, unlock: self.unlock.clone(), secrets })
            }
            Err(Error::Io(e)) => Err(e.into()),
            Err(_) => Ok(self.kit()),
        }
    }

    /// Whether all copies of the keyring are known to have these features for writers.
    pub(crate) fn has_features(&self, features: u32) -> bool {
        self.features.load(Ordering::Acquire) & features == features
    }

    /// All copies of the keyring have these.
    pub(crate) fn note_features(&self, features: u32) {
        self.features.fetch_or(features, Ordering::AcqRel);
    }

    /// What seals the keyring's secrets.
    pub(crate) fn unlock(&self) -> &[u8; 32] {
        &self.unlock
    }

    /// The newest generation.
    pub(crate) fn generation(&self) -> u32 {
        self.secrets.keks.last().map_or(0, |kek| kek.generation)
    }

    fn kek(&self, generation: u32) -> Option<&Kek> {
        self.secrets.keks.iter().find(|k| k.generation == generation)
    }

    /// All copies of the keyring have the newest of these keys now.
    pub(crate) fn settle(&self) {
        self.unsettled.store(false, Ordering::Release);
    }

    /// Whether some copies of the keyring lack the newest of these keys.
    pub(crate) fn unsettled(&self) -> bool {
        self.unsettled.load(Ordering::Acquire)
    }

    /// All key-encrypting keys, by rising generation.
    pub(crate) fn keks(&self) -> &[Kek] {
        &self.secrets.keks
    }

    /// The key that seals what is new. Refused while it is not in all copies of the keyring: with the one that has it,
    /// everything sealed under it would be lost.
    pub(crate) fn newest_kek(&self) -> Result<&Kek> {
        if self.unsettled() {
            let why = "a change of the keys was broken off or is at work, and not all copies of the keyring have the newest \
                       key; make sure that the folder keyring can be written to, and run the command again";
            return Err(Error::Refused { op: "seal anything new", why: why.to_owned() });
        }
        self.secrets.keks.last().ok_or(Error::SelfCheck { what: "a keyring without keys" })
    }

    /// A cipher from a key.
    pub(crate) fn cipher(&self, key: &[u8; 32]) -> Result<Cipher> {
        Cipher::new(self.engine, key)
    }

    /// The newest generation and its cipher for records.
    pub(crate) fn manifest_writer(&self) -> Result<(u32, Cipher)> {
        let kek = self.newest_kek()?;
        Ok((kek.generation, self.cipher(&keys::manifest_key(&kek.key, self.repo))?))
    }

    /// The cipher for records of one generation, if that one is known.
    pub(crate) fn manifest_reader(&self, generation: u32) -> Result<Option<Cipher>> {
        self.kek(generation).map(|k| self.cipher(&keys::manifest_key(&k.key, self.repo))).transpose()
    }

    /// Wraps the data key of a new segment.
    pub(crate) fn wrap(&self, segment: SegmentId, data_key: &[u8; 32]) -> Result<Birth> {
        let kek = self.newest_kek()?;
        let cipher = self.cipher(&keys::segment_wrap_key(&kek.key, self.repo, segment))?;
        let mut wrapped = data_key.to_vec();
        cipher.seal(keys::WRAP_NONCE, &keys::wrap_aad(self.repo, segment, kek.generation), &mut wrapped)?;
        Ok(Birth {
            segment,
            kek_generation: kek.generation,
            wrapped_key: *wrapped.first_chunk().ok_or(Error::SelfCheck { what: "a wrapped key" })?,
            commitment: keys::commitment(data_key),
        })
    }

    /// The key of a birth under the newest key-encrypting key, and the data key: the birth as it is if it is wrapped so
    /// already, else with the data key that a re-encryption gives it.
    pub(crate) fn rewrap(&self, birth: &Birth, object: &str) -> Result<(Birth, Zeroizing<[u8; 32]>)> {
        let kek = self.newest_kek()?;
        if birth.kek_generation == kek.generation {
            return Ok((*birth, self.unwrap(birth, object)?));
        }
        let data_key = Zeroizing::new(keys::rekeyed_data_key(&kek.key, self.repo, birth.segment));
        Ok((self.wrap(birth.segment, &data_key)?, data_key))
    }

    /// Unwraps the data key of a segment; `object` is where the wrap was found.
    pub(crate) fn unwrap(&self, birth: &Birth, object: &str) -> Result<Zeroizing<[u8; 32]>> {
        let place = "the wrapped data key";
        let Some(kek) = self.kek(birth.kek_generation) else {
            let why = format!("it needs key generation {}, which the keyring lacks", birth.kek_generation);
            return Err(Error::damaged(object, place, why));
        };
        let cipher = self.cipher(&keys::segment_wrap_key(&kek.key, self.repo, birth.segment))?;
        let mut key = Zeroizing::new(birth.wrapped_key.to_vec());
        let aad = keys::wrap_aad(self.repo, birth.segment, birth.kek_generation);
        cipher
            .open(keys::WRAP_NONCE, &aad, &mut key)
            .map_err(|_| Error::damaged(object, place, "its tag is wrong"))?;
        let key =
            Zeroizing::new(*key.first_chunk().ok_or(Error::damaged(object, place, "it is too short"))?);
        if keys::commitment(&key) != birth.commitment {
            return Err(Error::damaged(object, place, "the header commits to another key"));
        }
        Ok(key)
    }

    /// Names the lock of a stream's writer.
    pub(crate) fn stream_tag(&self, stream: &[u8]) -> [u8; 16] {
        keys::stream_tag(&self.secrets.root, stream)
    }
}

/// The unlock key in a slot, if the secret opens it.
pub(crate) fn open_slot(
    engine: Engine,
    repo: RepoId,
    slot: &KeySlot,
    secret: &Secret,
) -> Result<Option<Zeroizing<[u8; 32]>>> {
    let Some(key) = slot_key(&slot.kind, secret)? else { return Ok(None) };
    let mut unlock = Zeroizing::new(slot.wrapped.to_vec());
    if Cipher::new(engine, &key)?.open(slot.nonce, &slot.aad(repo), &mut unlock).is_err() {
        return Ok(None);
    }
    Ok(unlock.first_chunk().map(|key| Zeroizing::new(*key)))
}

/// The key of a slot, if the secret is of its kind.
pub(crate) fn slot_key(kind: &SlotKind, secret: &Secret) -> Result<Option<Zeroizing<[u8; 32]>>> {
    match (kind, secret) {
        (SlotKind::Passphrase { salt, memory_kib, passes, lanes }, Secret::Passphrase(text)) => {
            let refused = |e: argon2::Error| Error::Refused {
                op: "derive a key from the passphrase",
                why: format!(
                    "its slot of the keyring asks for what Argon2 refuses: {e}; come in another way (--key-file, --recovery-kit), \
                     and add a new passphrase"
                ),
            };
            let params = argon2::Params::new(*memory_kib, *passes, *lanes, Some(32)).map_err(refused)?;
            let argon = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
            let mut key = Zeroizing::new([0; 32]);
            lanes::side_by_side(*lanes, || {
                argon.hash_password_into(text.as_bytes(), salt, key.as_mut_slice())
            })
            .map_err(refused)?;
            Ok(Some(key))
        }
        (SlotKind::KeyFile, Secret::KeyFile(content)) => {
            Ok(Some(Zeroizing::new(keys::key_file_key(content))))
        }
        _ => Ok(None),
    }
}

pub(crate) fn open_secrets(keyring: &Keyring, engine: Engine, unlock: &[u8; 32]) -> Result<Secrets> {
    let mut plain = Zeroizing::new(keyring.sealed.clone());
    let opened = Cipher::new(engine, unlock)?.open(keyring.nonce, &keyring.aad(), &mut plain);
    opened.map_err(|_| Error::damaged("keyring", "its secrets", "the tag is wrong"))?;
    Secrets::decode(&plain).map_err(Error::format("keyring"))
}
