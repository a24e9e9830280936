//! Names of the objects of a repository.

use crate::ids::{SegmentId, SessionId, hex};

/// The three copies of the keyring.
pub const KEYRINGS: [&str; 3] = ["keyring/0", "keyring/1", "keyring/2"];

/// The two heads; record `n` is named by head `n % 2`.
pub const HEADS: [&str; 2] = ["head/0", "head/1"];

/// Folders of the two copies of each manifest record.
pub const MANIFESTS: [&str; 2] = ["manifest/", "manifest2/"];

/// Folder of packs of records.
pub const PACKS: &str = "packs/";

/// Folder of data and meta segments.
pub const SEGMENTS: &str = "segments/";

/// Folder of log segments, apart so that an open one is found without a look at every segment.
pub const LOGS: &str = "logs/";

/// Folder of sessions.
pub const SESSIONS: &str = "sessions/";

/// Locked while a record is appended.
pub const MANIFEST_LOCK: &str = "locks/manifest";

/// Locked while the keyring is changed.
pub const KEYRING_LOCK: &str = "locks/keyring";

/// Locked exclusively while garbage collection works, and while a repair does.
pub const PRUNE_LOCK: &str = "locks/prune";

/// Locked, shared, by whoever has the repository open, and exclusively by a re-encryption.
pub const REKEY_LOCK: &str = "locks/rekey";

/// Folder of what a repair took away or replaced, as it was.
pub const QUARANTINE: &str = "quarantine/";

/// What the name of a detached footer ends with.
pub const FOOT_SUFFIX: &str = ".foot";

/// One copy of a manifest record.
#[must_use]
pub fn manifest(copy: usize, number: u64) -> String {
    format!("{}{number:016x}", MANIFESTS.get(copy).copied().unwrap_or("manifest/"))
}

/// The number in the name of a manifest record.
#[must_use]
pub fn manifest_number(name: &str) -> Option<u64> {
    number(MANIFESTS.iter().find_map(|folder| name.strip_prefix(folder))?)
}

/// The pack that begins with a record.
#[must_use]
pub fn pack(first: u64) -> String {
    format!("{PACKS}{first:016x}")
}

/// The number of its first record in the name of a pack.
#[must_use]
pub fn pack_number(name: &str) -> Option<u64> {
    number(name.strip_prefix(PACKS)?)
}

fn number(digits: &str) -> Option<u64> {
    let good = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    if good { u64::from_str_radix(digits, 16).ok() } else { None }
}

/// A data or meta segment.
#[must_use]
pub fn segment(id: SegmentId) -> String {
    format!("{SEGMENTS}{id}")
}

/// A log segment.
#[must_use]
pub fn log(id: SegmentId) -> String {
    format!("{LOGS}{id}")
}

/// The footer of a log segment whose writer died.
#[must_use]
pub fn log_foot(id: SegmentId) -> String {
    format!("{LOGS}{id}{FOOT_SUFFIX}")
}

/// A session.
#[must_use]
pub fn session(id: SessionId) -> String {
    format!("{SESSIONS}{id}")
}

/// The lock of a stream's writer; `tag` is [`crate::keys::stream_tag`].
#[must_use]
pub fn stream_lock(tag: [u8; 16]) -> String {
    format!("locks/log-{}", hex(&tag))
}
