//! The keyring: key slots around one unlock key around the secrets. See `format-spec/keyring.md`.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{KeySlotId, RepoId};
use crate::keys::NONCE_BYTES;
use crate::limits::{
    ARGON2_LANES_MAX, ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX, KEKS_MAX, KEY_SLOTS_MAX, KEYRING_BYTES_MAX,
    NAME_BYTES_MAX,
};

/// Version of the keyring.
pub const VERSION: u32 = crate::VERSION;

const MAGIC: &[u8; 8] = b"HFKEYS\0\0";
const WHAT: &str = "keyring";
const SECRETS: &str = "keyring's secrets";

/// Feature of a repository that was re-encrypted, or is being: records of the manifest may have been sealed again.
pub const RESEALED: u32 = 1;

/// Features that a reader must know, as far as this version knows them.
pub const READ_FEATURES: u32 = RESEALED;

/// Feature of a repository in which something may be held, kept until a date, or be of a locked server: who does not know
/// that would forget it, and prune its blocks.
pub const KEPT: u32 = 1;

/// Features that a writer must know, and a reader need not, as far as this version knows them.
pub const WRITE_FEATURES: u32 = KEPT;

/// How a slot's key comes about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SlotKind {
    /// Argon2id (version 0x13, 32 bytes) of a passphrase.
    Passphrase {
        /// Salt.
        salt: [u8; 32],
        /// Memory, KiB.
        memory_kib: u32,
        /// Passes.
        passes: u32,
        /// Lanes.
        lanes: u32,
    },
    /// [`crate::keys::key_file_key`] of a file's content.
    KeyFile,
}

/// A way in: the unlock key, sealed with a slot key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySlot {
    /// Its id.
    pub id: KeySlotId,
    /// How its key comes about.
    pub kind: SlotKind,
    /// What the user calls it.
    pub label: String,
    /// When it was made, microseconds since the Unix epoch.
    pub created_us: i64,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// The unlock key, sealed: 32 bytes and the tag.
    pub wrapped: [u8; 48],
}

impl KeySlot {
    /// Associated data of the wrapped unlock key: repository and everything of the slot before the nonce.
    #[must_use]
    pub fn aad(&self, repo: RepoId) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(&repo.0);
        self.put_public(&mut w);
        w.into_bytes()
    }

    fn put_public(&self, w: &mut Writer) {
        w.raw(&self.id.0);
        match &self.kind {
            SlotKind::Passphrase { salt, memory_kib, passes, lanes } => {
                w.u8(1);
                w.raw(salt);
                w.u32(*memory_kib);
                w.u32(*passes);
                w.u32(*lanes);
            }
            SlotKind::KeyFile => w.u8(2),
        }
        w.blob(self.label.as_bytes());
        w.i64(self.created_us);
    }

    fn take(r: &mut Reader<'_>) -> Result<Self> {
        let id = KeySlotId(r.array()?);
        let kind = match r.u8()? {
            1 => SlotKind::Passphrase {
                salt: r.array()?,
                memory_kib: bounded(r, "the memory of a slot", ARGON2_MEMORY_KIB_MAX)?,
                passes: bounded(r, "the passes of a slot", ARGON2_PASSES_MAX)?,
                lanes: bounded(r, "the lanes of a slot", ARGON2_LANES_MAX)?,
            },
            2 => SlotKind::KeyFile,
            other => return Err(Error::bad(WHAT, "the kind of a slot", "1 or 2", other)),
        };
        Ok(Self {
            id,
            kind,
            label: r.string("the label of a slot", NAME_BYTES_MAX)?,
            created_us: r.i64()?,
            nonce: r.array()?,
            wrapped: r.array()?,
        })
    }
}

fn bounded(r: &mut Reader<'_>, field: &'static str, limit: u32) -> Result<u32> {
    let got = r.u32()?;
    r.within(field, u64::from(got), u64::from(limit))?;
    if got == 0 { Err(Error::bad(WHAT, field, "1 or more", 0)) } else { Ok(got) }
}

/// The keyring as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Keyring {
    /// The repository.
    pub repo: RepoId,
    /// Features that whoever reads must know; all of them are known here.
    pub read_features: u32,
    /// Features that whoever writes must know; it may be read without them. Those for readers have been checked.
    pub write_features: u32,
    /// A re-encryption to the newest key-encrypting key was begun and has not ended. Needs [`RESEALED`].
    pub rekeying: bool,
    /// Rises with every change; of three copies the highest valid one holds.
    pub generation: u64,
    /// The ways in.
    pub slots: Vec<KeySlot>,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// [`Secrets`], sealed with the unlock key.
    pub sealed: Vec<u8>,
}

impl Keyring {
    /// Associated data of the sealed secrets: magic, version, features, state of a re-encryption, repository, generation.
    #[must_use]
    pub fn aad(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.put_head(&mut w);
        w.into_bytes()
    }

    fn put_head(&self, w: &mut Writer) {
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(self.read_features);
        w.u32(self.write_features);
        w.u32(u32::from(self.rekeying));
        w.raw(&self.repo.0);
        w.u64(self.generation);
    }

    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.put_head(&mut w);
        w.count(self.slots.len());
        for slot in &self.slots {
            slot.put_public(&mut w);
            w.raw(&slot.nonce);
            w.raw(&slot.wrapped);
        }
        w.raw(&self.nonce);
        w.blob(&self.sealed);
        let mut bytes = w.into_bytes();
        append_hash(&mut bytes);
        bytes
    }

    /// Reads and checks an object.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.within("the length", bytes.len() as u64, KEYRING_BYTES_MAX)?;
        r.magic(MAGIC)?;
        r.version(VERSION)?;
        let (body, _) = split_hash(WHAT, bytes)?;
        let mut r = Reader::new(WHAT, body.get(12..).unwrap_or(&[]));
        let read_features = r.u32()?;
        let unknown = read_features & !READ_FEATURES;
        if unknown != 0 {
            return Err(Error::Features { unknown });
        }
        let write_features = r.u32()?;
        let rekeying = match (r.u32()?, read_features & RESEALED) {
            (0, _) => false,
            (1, RESEALED) => true,
            (other, _) => return Err(Error::bad(WHAT, "the state of a re-encryption", "0 or 1", other)),
        };
        let repo = RepoId(r.array()?);
        let generation = r.u64()?;
        let count = r.count("the number of slots", KEY_SLOTS_MAX, 81)?;
        let slots = (0..count).map(|_| KeySlot::take(&mut r)).collect::<Result<_>>()?;
        let nonce = r.array()?;
        let sealed = r.blob("the secrets", u32::MAX)?.to_vec();
        r.end()?;
        Ok(Self { repo, read_features, write_features, rekeying, generation, slots, nonce, sealed })
    }
}

/// A key-encrypting key.
#[derive(Clone, PartialEq, Eq)]
pub struct Kek {
    /// Its generation; the highest one wraps the keys of new segments.
    pub generation: u32,
    /// The key.
    pub key: [u8; 32],
}

/// What the keyring protects.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets {
    /// Made once: block ids, heads and stream tags come from it.
    pub root: [u8; 32],
    /// The key-encrypting keys, by rising generation.
    pub keks: Vec<Kek>,
}

impl std::fmt::Debug for Kek {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Kek({}, ..)", self.generation)
    }
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets(..)")
    }
}

impl Secrets {
    /// The plaintext.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        w.raw(&self.root);
        w.count(self.keks.len());
        for kek in &self.keks {
            w.u32(kek.generation);
            w.raw(&kek.key);
        }
        w.into_bytes()
    }

    /// Reads the plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(SECRETS, bytes);
        r.version(VERSION)?;
        let root = r.array()?;
        let count = r.count("the number of keys", KEKS_MAX, 36)?;
        let mut keks: Vec<Kek> = Vec::new();
        for _ in 0..count {
            let kek = Kek { generation: r.u32()?, key: r.array()? };
            if keks.last().is_some_and(|k| k.generation >= kek.generation) {
                return Err(Error::bad(SECRETS, "the generations", "rising", kek.generation));
            }
            keks.push(kek);
        }
        if keks.is_empty() {
            return Err(Error::bad(SECRETS, "the number of keys", "1 or more", 0));
        }
        r.end()?;
        Ok(Self { root, keks })
    }
}
