//! `mysql_native_password`: SHA1(pw) XOR SHA1(nonce || SHA1(SHA1(pw))).

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The answer to a challenge; empty for an empty password.
pub(super) fn scramble(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return Vec::new();
    }
    let once = digest(&SHA1_FOR_LEGACY_USE_ONLY, password);
    let twice = digest(&SHA1_FOR_LEGACY_USE_ONLY, once.as_ref());
    let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    context.update(nonce);
    context.update(twice.as_ref());
    let mask = context.finish();
    once.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_can_check_the_answer_with_the_stored_hash() {
        // What a server does: it stores SHA1(SHA1(pw)), recovers SHA1(pw) from the answer and hashes it.
        let nonce = [5u8; 20];
        let stored = digest(&SHA1_FOR_LEGACY_USE_ONLY, digest(&SHA1_FOR_LEGACY_USE_ONLY, b"secret").as_ref());
        let mut context = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
        context.update(&nonce);
        context.update(stored.as_ref());
        let once: Vec<u8> =
            scramble(b"secret", &nonce).iter().zip(context.finish().as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA1_FOR_LEGACY_USE_ONLY, &once).as_ref(), stored.as_ref());
    }

    #[test]
    fn an_empty_password_answers_nothing() {
        assert!(scramble(b"", &[1; 20]).is_empty());
    }
}
