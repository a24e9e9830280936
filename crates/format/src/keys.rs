//! Derivation of keys, ids, nonces and associated data.
//!
//! Every derived key is `BLAKE3.derive_key(context, material)` with a context used nowhere else.
//! Nothing here encrypts: that is done by the two engines of `store` and the one of `fsck`.

use crate::ids::{BlockId, RepoId, SegmentId};

/// Bytes of every symmetric key.
pub const KEY_BYTES: usize = 32;

/// Bytes of a tag of AES-256-GCM.
pub const TAG_BYTES: usize = 16;

/// Bytes of a nonce of AES-256-GCM.
pub const NONCE_BYTES: usize = 12;

/// Context: key of block ids, from the root key.
pub const CONTEXT_BLOCK_ID: &str = "holdfast format 1: block ids";
/// Context: key of the heads' checksum, from the root key.
pub const CONTEXT_HEAD: &str = "holdfast format 1: heads";
/// Context: key of the tags that name stream locks, from the root key.
pub const CONTEXT_STREAM: &str = "holdfast format 1: stream tags";
/// Context: key that wraps one segment's data key, from key-encrypting key, repository and segment.
pub const CONTEXT_SEGMENT_WRAP: &str = "holdfast format 1: wrap of a segment's data key";
/// Context: key of the manifest's records, from key-encrypting key and repository.
pub const CONTEXT_MANIFEST: &str = "holdfast format 1: manifest records";
/// Context: key of a segment's frames, from its data key.
pub const CONTEXT_FRAMES: &str = "holdfast format 1: frames";
/// Context: key of a segment's footers, from its data key.
pub const CONTEXT_FOOTER: &str = "holdfast format 1: footers";
/// Context: data key that a re-encryption gives a segment, from key-encrypting key, repository and segment.
pub const CONTEXT_REKEYED: &str = "holdfast format 1: data key of a re-encrypted segment";
/// Context: seed of the Ed25519 key that signs reports, from key-encrypting key and repository.
pub const CONTEXT_SIGNING: &str = "holdfast format 1: signing key of reports";
/// Context: commitment to a segment's data key.
pub const CONTEXT_COMMITMENT: &str = "holdfast format 1: commitment to a data key";
/// Context: key that a key file's bytes give.
pub const CONTEXT_KEY_FILE: &str = "holdfast format 1: key file";

/// Key of block ids.
#[must_use]
pub fn block_id_key(root: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_BLOCK_ID, root)
}

/// The id of a block: keyed BLAKE3 of its plaintext.
#[must_use]
pub fn block_id(block_id_key: &[u8; 32], plain: &[u8]) -> BlockId {
    BlockId(*blake3::keyed_hash(block_id_key, plain).as_bytes())
}

/// Key of the heads' checksum.
#[must_use]
pub fn head_key(root: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_HEAD, root)
}

/// The first 16 bytes of keyed BLAKE3 of an encoded stream key: names the lock of a stream's writer without showing it.
#[must_use]
pub fn stream_tag(root: &[u8; 32], stream: &[u8]) -> [u8; 16] {
    let key = blake3::derive_key(CONTEXT_STREAM, root);
    let mut tag = [0; 16];
    for (slot, byte) in tag.iter_mut().zip(blake3::keyed_hash(&key, stream).as_bytes()) {
        *slot = *byte;
    }
    tag
}

/// Key that wraps the data key of one segment, and nothing else, so that the nonce may be zero.
#[must_use]
pub fn segment_wrap_key(kek: &[u8; 32], repo: RepoId, segment: SegmentId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_SEGMENT_WRAP);
    hasher.update(kek).update(&repo.0).update(&segment.0);
    *hasher.finalize().as_bytes()
}

/// Data key that a re-encryption gives to what was born in a segment. It comes from the key-encrypting key and is not
/// random, so that it is the same however often the work is broken off and begun again, and in each object that holds
/// frames of that segment: nothing else is ever sealed with it under a nonce that it was used with.
#[must_use]
pub fn rekeyed_data_key(kek: &[u8; 32], repo: RepoId, segment: SegmentId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_REKEYED);
    hasher.update(kek).update(&repo.0).update(&segment.0);
    *hasher.finalize().as_bytes()
}

/// Key of the manifest's records under one key-encrypting key.
#[must_use]
pub fn manifest_key(kek: &[u8; 32], repo: RepoId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_MANIFEST);
    hasher.update(kek).update(&repo.0);
    *hasher.finalize().as_bytes()
}

/// Seed of the Ed25519 key (RFC 8032) that signs reports under one key-encrypting key.
#[must_use]
pub fn signing_seed(kek: &[u8; 32], repo: RepoId) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new_derive_key(CONTEXT_SIGNING);
    hasher.update(kek).update(&repo.0);
    *hasher.finalize().as_bytes()
}

/// Key of a segment's frames.
#[must_use]
pub fn frame_key(data_key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_FRAMES, data_key)
}

/// Key of a segment's footers.
#[must_use]
pub fn footer_key(data_key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_FOOTER, data_key)
}

/// What a segment's header says about its data key, so that no second key opens it.
#[must_use]
pub fn commitment(data_key: &[u8; 32]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_COMMITMENT, data_key)
}

/// The slot key that a key file's content gives.
#[must_use]
pub fn key_file_key(content: &[u8]) -> [u8; 32] {
    blake3::derive_key(CONTEXT_KEY_FILE, content)
}

/// Nonce of a frame: its birth slot as `u32`, then eight zeros. Each frame key belongs to one segment.
#[must_use]
pub fn frame_nonce(slot: u32) -> [u8; NONCE_BYTES] {
    let mut nonce = [0; NONCE_BYTES];
    for (to, from) in nonce.iter_mut().zip(slot.to_le_bytes()) {
        *to = from;
    }
    nonce
}

/// Nonce of a wrapped data key.
pub const WRAP_NONCE: [u8; NONCE_BYTES] = [0; NONCE_BYTES];

/// Associated data of a wrapped data key: repository, segment, generation of the key-encrypting key.
#[must_use]
pub fn wrap_aad(repo: RepoId, segment: SegmentId, generation: u32) -> Vec<u8> {
    [&repo.0[..], &segment.0[..], &generation.to_le_bytes()[..]].concat()
}
