//! The password under the server's public key: for `caching_sha2_password` and `sha256_password` without TLS.
//!
//! The plaintext is the NUL-terminated password XORed with the challenge, repeated; the padding is OAEP with SHA-1.

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use zeroize::Zeroizing;

/// The packet to send for the key that came as PEM; errors say what to do.
pub(super) fn encrypt_password(password: &[u8], nonce: &[u8], pem: &[u8]) -> Result<Vec<u8>, String> {
    if nonce.is_empty() {
        return Err("the server sent an empty challenge".to_owned());
    }
    let masked: Zeroizing<Vec<u8>> = Zeroizing::new(
        password.iter().chain(std::iter::once(&0)).zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect(),
    );
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem)
        .map_err(|error| format!("the server's public key isn't PEM ({error}); use TLS instead"))?;
    let key = PublicEncryptingKey::from_der(der.as_ref())
        .and_then(|key| OaepPublicEncryptingKey::new(key).map_err(Into::into))
        .map_err(|error| format!("the server's public key can't be used ({error}); use TLS instead"))?;
    let mut out = vec![0; key.ciphertext_size()];
    let len = key
        .encrypt(&OAEP_SHA1_MGF1SHA1, &masked, &mut out, None)
        .map_err(|_| "the password is too long for the server's public key; use TLS instead".to_owned())?
        .len();
    out.truncate(len);
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
    use aws_lc_rs::rsa::{KeySize, OaepPrivateDecryptingKey, PrivateDecryptingKey};

    #[test]
    fn the_server_finds_the_password_under_its_key() {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
        let der: PublicKeyX509Der<'_> = private.public_key().as_der().unwrap();
        let pem = pem_of(der.as_ref());
        let nonce: Vec<u8> = (1..=20).collect();
        let sealed =
            encrypt_password(b"a longer password than the nonce is", &nonce, pem.as_bytes()).unwrap();
        let key = OaepPrivateDecryptingKey::new(private).unwrap();
        let mut out = vec![0; key.min_output_size()];
        let masked = key.decrypt(&OAEP_SHA1_MGF1SHA1, &sealed, &mut out, None).unwrap();
        let plain: Vec<u8> = masked.iter().zip(nonce.iter().cycle()).map(|(a, b)| a ^ b).collect();
        assert_eq!(plain, b"a longer password than the nonce is\0");
    }

    #[test]
    fn a_key_that_is_none_is_an_error_that_names_tls() {
        assert!(encrypt_password(b"x", &[1; 20], b"not a key").unwrap_err().contains("TLS"));
    }

    fn pem_of(der: &[u8]) -> String {
        const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::from("-----BEGIN PUBLIC KEY-----\n");
        for (i, chunk) in der.chunks(3).enumerate() {
            let word = chunk.iter().fold(0u32, |w, &b| (w << 8) | u32::from(b)) << (8 * (3 - chunk.len()));
            for n in 0..4 {
                let symbol = ALPHABET[(word >> (18 - 6 * n)) as usize & 63] as char;
                text.push(if n <= chunk.len() { symbol } else { '=' });
            }
            if i % 16 == 15 {
                text.push('\n');
            }
        }
        text.push_str("\n-----END PUBLIC KEY-----\n");
        text
    }
}
