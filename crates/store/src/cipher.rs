//! AES-256-GCM, by either of two engines that check each other.

use aes_gcm::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use holdfast_format::keys::{NONCE_BYTES, TAG_BYTES};

use crate::error::{Error, Result};

/// Which implementation of AES-256-GCM does the work; the bytes are the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Engine {
    /// AWS-LC: the fastest on every machine with AES instructions.
    #[default]
    AwsLc,
    /// RustCrypto's `aes-gcm`, pure Rust.
    Portable,
}

/// A key, ready to seal and open.
pub(crate) enum Cipher {
    AwsLc(Box<LessSafeKey>),
    Portable(Box<aes_gcm::Aes256Gcm>),
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher(..)")
    }
}

/// The tag does not fit: other key, other place, or other bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Mismatch;

impl Cipher {
    pub(crate) fn new(engine: Engine, key: &[u8; 32]) -> Result<Self> {
        Ok(match engine {
            Engine::AwsLc => {
                let key = UnboundKey::new(&AES_256_GCM, key);
                let key = key.map_err(|_| Error::SelfCheck { what: "a key for AES-256-GCM" })?;
                Self::AwsLc(Box::new(LessSafeKey::new(key)))
            }
            Engine::Portable => Self::Portable(Box::new(aes_gcm::Aes256Gcm::new(&(*key).into()))),
        })
    }

    /// Encrypts in place and appends the tag.
    pub(crate) fn seal(&self, nonce: [u8; NONCE_BYTES], aad: &[u8], buf: &mut Vec<u8>) -> Result<()> {
        let failed = Error::SelfCheck { what: "AES-256-GCM" };
        match self {
            Self::AwsLc(key) => key
                .seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buf)
                .map_err(|_| failed),
            Self::Portable(key) => {
                let tag = key.encrypt_inout_detached(&nonce.into(), aad, buf.as_mut_slice().into());
                buf.extend_from_slice(&tag.map_err(|_| failed)?);
                Ok(())
            }
        }
    }

    /// Checks and decrypts in place, and cuts the tag off.
    pub(crate) fn open(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        buf: &mut Vec<u8>,
    ) -> std::result::Result<(), Mismatch> {
        let plain = self.open_slice(nonce, aad, buf)?;
        buf.truncate(plain);
        Ok(())
    }

    /// Checks and decrypts `sealed` into `plain`, whose memory is used again; empty if it does not fit.
    pub(crate) fn open_into(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        sealed: &[u8],
        plain: &mut Vec<u8>,
    ) -> std::result::Result<(), Mismatch> {
        let opened = match self {
            Self::AwsLc(key) => {
                let cut = sealed.len().checked_sub(TAG_BYTES).and_then(|len| sealed.split_at_checked(len));
                let (body, tag) = cut.ok_or(Mismatch)?;
                plain.resize(body.len(), 0);
                let nonce = Nonce::assume_unique_for_key(nonce);
                let opened = key.open_separate_gather(nonce, Aad::from(aad), body, tag, plain);
                opened.map_err(|_| Mismatch)
            }
            Self::Portable(_) => {
                plain.clear();
                plain.extend_from_slice(sealed);
                self.open(nonce, aad, plain)
            }
        };
        // What an engine leaves behind where the tag is wrong is nobody's business.
        opened.inspect_err(|_| plain.clear())
    }

    /// Checks and decrypts in place; the plaintext is the first bytes of `buf`, as many as this gives.
    pub(crate) fn open_slice(
        &self,
        nonce: [u8; NONCE_BYTES],
        aad: &[u8],
        buf: &mut [u8],
    ) -> std::result::Result<usize, Mismatch> {
        let plain = buf.len().checked_sub(TAG_BYTES).ok_or(Mismatch)?;
        match self {
            Self::AwsLc(key) => {
                key.open_in_place(Nonce::assume_unique_for_key(nonce), Aad::from(aad), buf)
                    .map_err(|_| Mismatch)?;
            }
            Self::Portable(key) => {
                let (body, tag) = buf.split_at_mut_checked(plain).ok_or(Mismatch)?;
                let tag: [u8; TAG_BYTES] = (&*tag).try_into().map_err(|_| Mismatch)?;
                key.decrypt_inout_detached(&nonce.into(), aad, body.into(), &tag.into())
                    .map_err(|_| Mismatch)?;
            }
        }
        Ok(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn each_engine_opens_what_the_other_sealed(
            key: [u8; 32], nonce: [u8; 12], aad: Vec<u8>, plain: Vec<u8>, flip: proptest::sample::Index
        ) {
            let a = Cipher::new(Engine::AwsLc, &key).unwrap();
            let b = Cipher::new(Engine::Portable, &key).unwrap();
            let (mut x, mut y) = (plain.clone(), plain.clone());
            a.seal(nonce, &aad, &mut x).unwrap();
            b.seal(nonce, &aad, &mut y).unwrap();
            prop_assert_eq!(&x, &y);
            let mut bad = x.clone();
            let at = flip.index(bad.len());
            bad[at] ^= 1;
            prop_assert!(a.open(nonce, &aad, &mut bad.clone()).is_err());
            prop_assert!(b.open(nonce, &aad, &mut bad).is_err());
            let mut into = vec![7; flip.index(99)];
            for cipher in [&a, &b] {
                cipher.open_into(nonce, &aad, &x, &mut into).unwrap();
                prop_assert_eq!(&into, &plain);
                let mut bad = x.clone();
                bad[at] ^= 1;
                prop_assert!(cipher.open_into(nonce, &aad, &bad, &mut into).is_err());
                prop_assert!(into.is_empty());
            }
            b.open(nonce, &aad, &mut x).unwrap();
            a.open(nonce, &aad, &mut y).unwrap();
            prop_assert_eq!(&x, &plain);
            prop_assert_eq!(&y, &plain);
        }
    }
}
