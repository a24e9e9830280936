//! Packs: many records in one object, so that a long manifest is opened with few reads. See `format-spec/manifest.md`.
//!
//! Derived data: whoever has no use for one, or finds it damaged, reads the records themselves.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{RecordHash, RepoId};
use crate::keys::{NONCE_BYTES, TAG_BYTES};
use crate::limits::{PACK_BODY_MAX, PACK_RECORDS_MAX, RECORD_BODY_MAX};

/// Bytes before the sealed records: they are their associated data.
pub const PREFIX_BYTES: usize = 128;

/// Longest object of a pack, bytes.
pub const PACK_BYTES_MAX: u64 = PREFIX_BYTES as u64 + PACK_BODY_MAX as u64 + TAG_BYTES as u64 + 32;

const MAGIC: &[u8; 8] = b"HFPACK\0\0";
const WHAT: &str = "pack of records";

/// The plain part of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prefix {
    /// The repository.
    pub repo: RepoId,
    /// Number of its first record.
    pub first: u64,
    /// Records in it, at least one.
    pub count: u32,
    /// Hash of the record before the first; zeros for number 0.
    pub previous: RecordHash,
    /// Hash of its last record.
    pub last: RecordHash,
    /// Generation of the key-encrypting key that its key comes from.
    pub kek_generation: u32,
    /// Random.
    pub nonce: [u8; NONCE_BYTES],
    /// Bytes of ciphertext and tag.
    pub sealed_len: u32,
}

impl Prefix {
    /// The 128 bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u32(crate::VERSION);
        w.u32(self.count);
        w.raw(&self.repo.0);
        w.u64(self.first);
        w.raw(&self.previous.0);
        w.u32(self.kek_generation);
        w.raw(&self.nonce);
        w.u32(self.sealed_len);
        w.u32(0);
        w.raw(&self.last.0);
        w.into_bytes()
    }

    /// Number of the record behind the last one.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.first.saturating_add(u64::from(self.count))
    }
}

/// A pack's object, checked but still sealed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pack {
    /// The plain part.
    pub prefix: Prefix,
    /// Ciphertext and tag.
    pub sealed: Vec<u8>,
}

impl Pack {
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
        r.within("the length", bytes.len() as u64, PACK_BYTES_MAX)?;
        r.magic(MAGIC)?;
        r.version(crate::VERSION)?;
        let (body, _) = split_hash(WHAT, bytes)?;
        let mut r = Reader::new(WHAT, body.get(12..).unwrap_or(&[]));
        let count = r.u32()?;
        r.within("the number of records", u64::from(count), u64::from(PACK_RECORDS_MAX))?;
        if count == 0 {
            return Err(Error::bad(WHAT, "the number of records", "1 or more", 0));
        }
        let (repo, first) = (RepoId(r.array()?), r.u64()?);
        let (previous, kek_generation) = (RecordHash(r.array()?), r.u32()?);
        let (nonce, sealed_len) = (r.array()?, r.u32()?);
        r.zeros("the padding", 4)?;
        let last = RecordHash(r.array()?);
        let sealed = r.raw(sealed_len as usize)?.to_vec();
        r.end()?;
        if sealed.len() < TAG_BYTES {
            return Err(Error::bad(WHAT, "the sealed length", "16 or more", sealed.len()));
        }
        let prefix = Prefix { repo, first, count, previous, last, kek_generation, nonce, sealed_len };
        Ok(Self { prefix, sealed })
    }
}

/// The plaintext: the records' plaintexts, one after the other.
#[must_use]
pub fn encode_bodies(bodies: &[Vec<u8>]) -> Vec<u8> {
    let mut w = Writer::new();
    bodies.iter().for_each(|body| w.blob(body));
    w.into_bytes()
}

/// Takes the plaintext apart again; `count` is what the prefix says.
pub fn decode_bodies(plain: &[u8], count: u32) -> Result<Vec<&[u8]>> {
    let mut r = Reader::new(WHAT, plain);
    let bodies = (0..count).map(|_| r.blob("a record", RECORD_BODY_MAX)).collect::<Result<_>>()?;
    r.end()?;
    Ok(bodies)
}
