//! MariaDB's `client_ed25519`: an Ed25519 signature of the challenge whose secret key is the password itself.
//!
//! It differs from RFC 8032 in one point: the 32-byte seed is replaced by the password, of any length. So the
//! signature is made here from curve arithmetic instead of a library's keys.

use aws_lc_rs::digest::{Context, SHA512, digest};
use curve25519_dalek::edwards::EdwardsPoint;
use curve25519_dalek::scalar::{Scalar, clamp_integer};

/// The signature (R || S, 64 bytes) of the challenge.
pub(super) fn sign(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    let expanded = digest(&SHA512, password);
    let (scalar_bytes, prefix) = halves(expanded.as_ref());
    let secret = Scalar::from_bytes_mod_order(clamp_integer(scalar_bytes));
    let public = EdwardsPoint::mul_base(&secret).compress();
    let r = hash_to_scalar(&[&prefix, nonce]);
    let commitment = EdwardsPoint::mul_base(&r).compress();
    let challenge = hash_to_scalar(&[commitment.as_bytes(), public.as_bytes(), nonce]);
    let response = challenge * secret + r;
    let mut out = commitment.as_bytes().to_vec();
    out.extend_from_slice(response.as_bytes());
    out
}

fn halves(expanded: &[u8]) -> ([u8; 32], [u8; 32]) {
    let (mut low, mut high) = ([0; 32], [0; 32]);
    for (slot, byte) in low.iter_mut().chain(high.iter_mut()).zip(expanded) {
        *slot = *byte;
    }
    (low, high)
}

fn hash_to_scalar(parts: &[&[u8]]) -> Scalar {
    let mut context = Context::new(&SHA512);
    for part in parts {
        context.update(part);
    }
    let mut wide = [0; 64];
    for (slot, byte) in wide.iter_mut().zip(context.finish().as_ref()) {
        *slot = *byte;
    }
    Scalar::from_bytes_mod_order_wide(&wide)
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

    #[test]
    fn with_a_password_of_32_bytes_it_is_plain_ed25519() {
        let seed = *b"0123456789abcdef0123456789abcdef";
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).unwrap();
        let nonce = [42u8; 32];
        let signature = sign(&seed, &nonce);
        assert_eq!(signature, pair.sign(&nonce).as_ref());
        UnparsedPublicKey::new(&ED25519, pair.public_key().as_ref()).verify(&nonce, &signature).unwrap();
    }
}
