//! AES-256-GCM with the `aes-gcm` crate: opening what the store sealed with another implementation, and sealing the
//! little that a repair writes anew.

use aes_gcm::aead::AeadInOut;
use aes_gcm::{Aes256Gcm, KeyInit, Nonce, Tag};

/// A key made ready for opening.
pub struct Opener {
    cipher: Aes256Gcm,
}

impl Opener {
    /// Expands a key.
    #[must_use]
    pub fn new(key: &[u8; 32]) -> Self {
        Self { cipher: Aes256Gcm::new(&(*key).into()) }
    }

    /// Opens `sealed`, ciphertext and then a tag of 16 bytes. `None` if key, nonce, associated data or bytes are wrong.
    #[must_use]
    pub fn open(&self, nonce: [u8; 12], associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (cipher_text, tag) = sealed.split_last_chunk::<16>()?;
        let mut plain = cipher_text.to_vec();
        self.open_in_place(nonce, associated, &mut plain, *tag)?;
        Some(plain)
    }

    /// Seals `plain`: ciphertext, then a tag of 16 bytes. The nonce must be new for this key.
    #[must_use]
    pub fn seal(&self, nonce: [u8; 12], associated: &[u8], plain: &[u8]) -> Vec<u8> {
        let mut text = plain.to_vec();
        let tag =
            self.cipher.encrypt_inout_detached(&Nonce::from(nonce), associated, text.as_mut_slice().into());
        // It fails for texts of 64 GiB and more only, and what is sealed here has 16 MiB at most.
        if let Ok(tag) = tag {
            text.extend_from_slice(&tag);
        }
        text
    }

    /// Opens a ciphertext in place. `None` leaves the bytes undefined.
    #[must_use]
    pub fn open_in_place(
        &self,
        nonce: [u8; 12],
        associated: &[u8],
        text: &mut [u8],
        tag: [u8; 16],
    ) -> Option<()> {
        let (nonce, tag) = (Nonce::from(nonce), Tag::from(tag));
        self.cipher.decrypt_inout_detached(&nonce, associated, text.into(), &tag).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation" (2005), appendix B.
    #[test]
    fn the_published_vector_of_aes_256_gcm_opens() {
        let bytes = |hex: &str| -> Vec<u8> {
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
        };
        let key: [u8; 32] =
            bytes("feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308").try_into().unwrap();
        let nonce: [u8; 12] = bytes("cafebabefacedbaddecaf888").try_into().unwrap();
        let associated = bytes("feedfacedeadbeeffeedfacedeadbeefabaddad2");
        let sealed = bytes(
            "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662\
             76fc6ece0f4e1768cddf8853bb2d551b",
        );
        let plain = Opener::new(&key).open(nonce, &associated, &sealed).unwrap();
        assert_eq!(plain[..4], [0xd9, 0x31, 0x32, 0x25]);
        assert_eq!(plain.len(), 60);
        assert_eq!(Opener::new(&key).seal(nonce, &associated, &plain), sealed);
        for at in 0..sealed.len() {
            let mut bad = sealed.clone();
            bad[at] ^= 1;
            assert!(Opener::new(&key).open(nonce, &associated, &bad).is_none(), "byte {at}");
        }
        assert!(Opener::new(&key).open(nonce, b"", &sealed).is_none());
        assert!(Opener::new(&key).open(nonce, b"", b"short").is_none());
    }
}
