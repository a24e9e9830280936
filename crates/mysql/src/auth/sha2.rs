//! `caching_sha2_password`, fast path: SHA256(pw) XOR SHA256(SHA256(SHA256(pw)) || nonce).

use aws_lc_rs::digest::{Context, SHA256, digest};

/// The answer to a challenge; one NUL for an empty password.
pub(super) fn scramble(password: &[u8], nonce: &[u8]) -> Vec<u8> {
    if password.is_empty() {
        return vec![0];
    }
    let once = digest(&SHA256, password);
    let twice = digest(&SHA256, once.as_ref());
    let mut context = Context::new(&SHA256);
    context.update(twice.as_ref());
    context.update(nonce);
    let mask = context.finish();
    once.as_ref().iter().zip(mask.as_ref()).map(|(a, b)| a ^ b).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_can_check_the_answer_with_its_cached_hash() {
        // The server caches SHA256(SHA256(pw)), unmasks the answer with it and hashes the result once.
        let nonce = [3u8; 20];
        let cached = digest(&SHA256, digest(&SHA256, b"secret").as_ref());
        let mut context = Context::new(&SHA256);
        context.update(cached.as_ref());
        context.update(&nonce);
        let once: Vec<u8> =
            scramble(b"secret", &nonce).iter().zip(context.finish().as_ref()).map(|(a, b)| a ^ b).collect();
        assert_eq!(digest(&SHA256, &once).as_ref(), cached.as_ref());
    }
}
