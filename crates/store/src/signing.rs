//! Ed25519 signatures of what leaves the repository: reports that somebody without its keys is to believe.
//!
//! Each key-encrypting key gives one signing key, which is stored nowhere: whoever can open the repository has it, and a
//! rotation of keys makes a new one.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use holdfast_format::keys;
use zeroize::Zeroizing;

use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::repository::Repository;

/// A public key, as RFC 8032 writes it.
pub type PublicKey = [u8; 32];

/// What was signed, by whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Signed {
    /// Whoever has this can check it.
    pub key: PublicKey,
    /// The signature, as RFC 8032 writes it.
    pub signature: [u8; 64],
}

/// Whether this key's owner signed these bytes.
#[must_use]
pub fn is_signed(message: &[u8], by: &Signed) -> bool {
    UnparsedPublicKey::new(&ED25519, by.key).verify(message, &by.signature).is_ok()
}

fn pair(keys: &Keys, kek: &[u8; 32]) -> Result<(Ed25519KeyPair, PublicKey)> {
    let refused = Error::SelfCheck { what: "a key for Ed25519" };
    let seed = Zeroizing::new(keys::signing_seed(kek, keys.repo));
    let Ok(pair) = Ed25519KeyPair::from_seed_unchecked(seed.as_slice()) else { return Err(refused) };
    let Ok(key) = PublicKey::try_from(pair.public_key().as_ref()) else { return Err(refused) };
    Ok((pair, key))
}

impl Repository {
    /// Signs these bytes with the newest key. Refused where nothing may be sealed with it either.
    pub fn sign(&self, message: &[u8]) -> Result<Signed> {
        let keys = &self.inner.keys;
        let (pair, key) = pair(keys, &keys.newest_kek()?.key)?;
        let signature = <[u8; 64]>::try_from(pair.sign(message).as_ref());
        let signed = Signed { key, signature: signature.map_err(|_| Error::SelfCheck { what: "Ed25519" })? };
        if is_signed(message, &signed) { Ok(signed) } else { Err(Error::SelfCheck { what: "Ed25519" }) }
    }

    /// The public keys of what was signed here, each with the generation of its key-encrypting key, the newest last. Those of
    /// before a re-encryption are gone with their keys.
    pub fn public_keys(&self) -> Result<Vec<(u32, PublicKey)>> {
        let keys = &self.inner.keys;
        keys.keks().iter().map(|kek| Ok((kek.generation, pair(keys, &kek.key)?.1))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::ids::RepoId;

    fn bytes<const N: usize>(hex: &str) -> [u8; N] {
        let digit = |at: usize| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap();
        std::array::from_fn(digit)
    }

    /// RFC 8032, 7.1, test 3.
    #[test]
    fn a_signature_of_the_standard_is_taken_and_nothing_next_to_it() {
        let mut signed = Signed {
            key: bytes("fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025"),
            signature: bytes(
                "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac\
                 18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
            ),
        };
        assert!(is_signed(&[0xaf, 0x82], &signed));
        assert!(!is_signed(&[0xaf, 0x83], &signed) && !is_signed(&[0xaf], &signed));
        signed.signature[5] ^= 1;
        assert!(!is_signed(&[0xaf, 0x82], &signed));
    }

    #[test]
    fn each_repository_and_each_generation_has_a_key_of_its_own() {
        let seeds =
            [(1, 1), (1, 2), (2, 1)].map(|(kek, repo)| keys::signing_seed(&[kek; 32], RepoId([repo; 16])));
        assert!(seeds[0] != seeds[1] && seeds[0] != seeds[2] && seeds[1] != seeds[2]);
    }
}
