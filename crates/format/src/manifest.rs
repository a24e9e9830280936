//! The envelope of a record and the two heads. See `format-spec/manifest.md`.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{RecordHash, RepoId};
use crate::keys::{NONCE_BYTES, TAG_BYTES};
use crate::limits::RECORD_BODY_MAX;

/// Version of envelope and head.
pub const VERSION: u32 = crate::VERSION;

/// Bytes before the sealed record: they are its associated data. In a record that was sealed again the hash that it
/// had at first follows, as a part of them.
pub const PREFIX_BYTES: usize = 96;

/// Bytes of that hash.
const FIRST_HASH_BYTES: usize = 32;

/// Bytes of a head.
pub const HEAD_BYTES: u64 = 104;

/// Longest object of a record, bytes.
pub const ENVELOPE_BYTES_MAX: u64 =
    PREFIX_BYTES as u64 + FIRST_HASH_BYTES as u64 + RECORD_BODY_MAX as u64 + TAG_BYTES as u64 + 32;

const MAGIC: &[u8; 8] = b"HFMANIF\0";
const HEAD_MAGIC: &[u8; 8] = b"HFHEAD\0\0";
const WHAT: &str = "manifest record";
const HEAD: &str = "manifest head";

/// The plain part of a record's object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The repository.
    pub repo: RepoId,
    /// Number of the record, from 0.
    pub number: u64,
    /// Hash of the record before; zeros for number 0.
    pub previous: RecordHash,
    /// Generation of the key-encrypting key that the record's key comes from.
    pub kek_generation: u32,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// Bytes of ciphertext and tag.
    pub sealed_len: u32,
    /// Of a record that was sealed again under another key: its hash as it was first written, by which the chain knows
    /// it for good.
    pub first_hash: Option<RecordHash>,
}

impl Prefix {
    /// The bytes before the sealed record: 96, or 128 of a record that was sealed again.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(0);
        w.raw(&self.repo.0);
        w.u64(self.number);
        w.raw(&self.previous.0);
        w.u32(self.kek_generation);
        w.raw(&self.nonce);
        w.u32(self.sealed_len);
        w.u32(u32::from(self.first_hash.is_some()));
        if let Some(hash) = &self.first_hash {
            w.raw(&hash.0);
        }
        w.into_bytes()
    }
}

/// A record's object, checked but still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// The plain part.
    pub prefix: Prefix,
    /// Ciphertext and tag.
    pub sealed: Vec<u8>,
    /// What the next record and a head name: BLAKE3 of the object's bytes before its last 32, as it was first written.
    pub hash: RecordHash,
}

impl Envelope {
    /// The bytes of the object.
    #[must_use]
    pub fn encode(prefix: &Prefix, sealed: &[u8]) -> Vec<u8> {
        let mut bytes = prefix.encode();
        bytes.extend_from_slice(sealed);
        append_hash(&mut bytes);
        bytes
    }

    /// Reads and checks an object.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.within("the length", bytes.len() as u64, ENVELOPE_BYTES_MAX)?;
        r.magic(MAGIC)?;
        r.version(VERSION)?;
        let (body, hash) = split_hash(WHAT, bytes)?;
        let mut r = Reader::new(WHAT, body.get(12..).unwrap_or(&[]));
        r.zeros("a reserved field", 4)?;
        let mut prefix = Prefix {
            repo: RepoId(r.array()?),
            number: r.u64()?,
            previous: RecordHash(r.array()?),
            kek_generation: r.u32()?,
            nonce: r.array()?,
            sealed_len: r.u32()?,
            first_hash: None,
        };
        match r.u32()? {
            0 => {}
            1 => prefix.first_hash = Some(RecordHash(r.array()?)),
            other => return Err(Error::bad(WHAT, "the form", "0 or 1", other)),
        }
        let sealed = r.raw(prefix.sealed_len as usize)?.to_vec();
        r.end()?;
        if sealed.len() < TAG_BYTES {
            return Err(Error::bad(WHAT, "the sealed length", "16 or more", sealed.len()));
        }
        let hash = prefix.first_hash.unwrap_or(RecordHash(hash));
        Ok(Self { prefix, sealed, hash })
    }
}

/// The newest record, as of one of two objects that are written in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head {
    /// The repository.
    pub repo: RepoId,
    /// Number of the newest record.
    pub number: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl Head {
    /// The 104 bytes; the last 32 are BLAKE3 of the others, keyed with [`crate::keys::head_key`].
    #[must_use]
    pub fn encode(&self, key: &[u8; 32]) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(HEAD_MAGIC);
        w.u32(VERSION);
        w.u32(0);
        w.raw(&self.repo.0);
        w.u64(self.number);
        w.raw(&self.hash.0);
        let mac = blake3::keyed_hash(key, w.as_bytes());
        w.raw(mac.as_bytes());
        w.into_bytes()
    }

    /// Reads and checks a head.
    pub fn decode(bytes: &[u8], key: &[u8; 32]) -> Result<Self> {
        let mut r = Reader::new(HEAD, bytes);
        r.magic(HEAD_MAGIC)?;
        r.version(VERSION)?;
        let Some((body, mac)) = bytes.split_last_chunk::<32>() else {
            return Err(Error::Truncated { what: HEAD, at: 0, needed: 32, got: bytes.len() as u64 });
        };
        if blake3::keyed_hash(key, body) != blake3::Hash::from_bytes(*mac) {
            return Err(Error::Checksum { what: HEAD });
        }
        let mut r = Reader::new(HEAD, body.get(12..).unwrap_or(&[]));
        r.zeros("a reserved field", 4)?;
        let head = Self { repo: RepoId(r.array()?), number: r.u64()?, hash: RecordHash(r.array()?) };
        r.end()?;
        Ok(head)
    }
}
