//! Identifiers: what each names, how it is shown, how it is read.

use std::fmt;
use std::str::FromStr;

/// Letters of the identifiers that people type: no vowels that make words, nothing that looks alike.
const BASE32: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {expected}")]
pub struct BadId {
    /// What was expected.
    pub expected: &'static str,
    /// The text, cut to 80 characters.
    pub text: String,
}

fn bad(expected: &'static str, text: &str) -> BadId {
    BadId { expected, text: text.chars().take(80).collect() }
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len().saturating_mul(2));
    for byte in bytes {
        for digit in [byte >> 4, byte & 15] {
            out.push(char::from_digit(u32::from(digit), 16).unwrap_or('0'));
        }
    }
    out
}

/// Reads lower-case hexadecimal of exactly `N` bytes.
#[must_use]
pub fn unhex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let bytes = text.as_bytes();
    if bytes.len() != N.checked_mul(2)? || bytes.iter().any(u8::is_ascii_uppercase) {
        return None;
    }
    let mut out = [0_u8; N];
    for (slot, pair) in out.iter_mut().zip(bytes.chunks_exact(2)) {
        let [high, low] = pair else { return None };
        let value = char::from(*high).to_digit(16)? * 16 + char::from(*low).to_digit(16)?;
        *slot = u8::try_from(value).ok()?;
    }
    Some(out)
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $len:literal, $expected:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;

            fn from_str(text: &str) -> Result<Self, BadId> {
                unhex(text).map(Self).ok_or_else(|| bad($expected, text))
            }
        }
    };
}

hex_id!(
    /// A repository: 16 random bytes, shown as 32 hexadecimal digits. Mirrors share it.
    RepoId, 16, "the id of a repository (32 hexadecimal digits)"
);
hex_id!(
    /// A segment: 16 random bytes; its object is named after it.
    SegmentId, 16, "the id of a segment (32 hexadecimal digits)"
);
hex_id!(
    /// A session: 16 random bytes.
    SessionId, 16, "the id of a session (32 hexadecimal digits)"
);
hex_id!(
    /// A protected server: 16 random bytes, given when it is added.
    ServerId, 16, "the id of a server (32 hexadecimal digits)"
);
hex_id!(
    /// A key slot: 8 random bytes.
    KeySlotId, 8, "the id of a key slot (16 hexadecimal digits)"
);
hex_id!(
    /// Keyed BLAKE3 of a block's plaintext.
    BlockId, 32, "the id of a block (64 hexadecimal digits)"
);
hex_id!(
    /// BLAKE3 of a manifest record as it is stored.
    RecordHash, 32, "a hash (64 hexadecimal digits)"
);

/// A backup: 16 random bytes, shown as 26 letters of lower-case base32, or the first 8 of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BackupId(pub [u8; 16]);

impl BackupId {
    /// The first eight letters: enough for people, 40 bits.
    #[must_use]
    pub fn short(&self) -> String {
        self.to_string().chars().take(8).collect()
    }

    /// Whether the full form begins with `prefix` (what a person typed, any case).
    #[must_use]
    pub fn has_prefix(&self, prefix: &str) -> bool {
        self.to_string().starts_with(&prefix.to_ascii_lowercase())
    }
}

impl fmt::Display for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // 128 bits, highest first, two zero bits appended: 26 letters of five bits.
        let value = u128::from_be_bytes(self.0);
        for at in 0..26_u32 {
            let shift = 123_u32.checked_sub(at * 5);
            let five = match shift {
                Some(shift) => (value >> shift) & 31,
                None => (value << 2) & 31,
            };
            let letter = usize::try_from(five).ok().and_then(|i| BASE32.get(i)).copied().unwrap_or(b'0');
            write!(f, "{}", char::from(letter))?;
        }
        Ok(())
    }
}

impl fmt::Debug for BackupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for BackupId {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let wrong = || bad("the id of a backup (26 letters and digits)", text);
        let bytes = text.as_bytes();
        let (Some((last, first)), 26) = (bytes.split_last(), bytes.len()) else { return Err(wrong()) };
        let five = |b: &u8| {
            let at = BASE32.iter().position(|l| *l == b.to_ascii_lowercase()).ok_or_else(wrong)?;
            u128::try_from(at).map_err(|_| wrong())
        };
        let mut value = 0_u128;
        for letter in first {
            value = (value << 5) | five(letter)?;
        }
        let tail = five(last)?;
        if tail & 3 != 0 {
            return Err(wrong());
        }
        Ok(Self(((value << 3) | (tail >> 2)).to_be_bytes()))
    }
}

/// Where a frame was born: given once, never changed, wherever compaction carries the frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The segment it was first written to.
    pub segment: SegmentId,
    /// Its number there, from 0.
    pub slot: u32,
}

impl Address {
    /// The 20 bytes: segment, then slot.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; 20] {
        let mut out = [0; 20];
        for (to, from) in out.iter_mut().zip(self.segment.0.iter().chain(&self.slot.to_le_bytes())) {
            *to = *from;
        }
        out
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.segment, self.slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_backup_id_reads_back_what_it_shows(bytes: [u8; 16]) {
            let id = BackupId(bytes);
            prop_assert_eq!(id.to_string().parse(), Ok(id));
            prop_assert!(id.has_prefix(&id.short()));
        }

        #[test]
        fn any_text_is_an_id_or_an_error(text in ".{0,40}") {
            let _ = text.parse::<BackupId>();
            let _ = text.parse::<SegmentId>();
        }
    }
}
