//! Every limit of the format, each with the sketch that justifies it.

/// Bytes of a block: 64 KiB. Smaller ones pay more map and frame headers, larger ones store more around each changed
/// page: with 1 % of the 16 KiB pages changed at random, 64 KiB stores 3.9 % again, 1 MiB 47 %.
pub const BLOCK_BYTES: u32 = 64 * 1024;

/// Bytes that a segment aims at: 16,384 segments a TiB, and a loss of one segment's key or head stays small.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;

/// Longest segment, bytes: a full one, its last frame, footer and parity. Offsets in a footer are `u32`.
pub const SEGMENT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// Alignment of header, footer, parity and trailer, bytes: a page of memory and a sector of any disk.
pub const ALIGN_BYTES: u64 = 4096;

/// Most frames of a segment: 64 MiB of the smallest useful frames (256 bytes); the footer is then 16 MiB.
pub const SLOTS_MAX: u32 = 1 << 18;

/// Longest plaintext of a frame, bytes: a map leaf or a stretch of log; blocks are [`BLOCK_BYTES`] at most.
pub const FRAME_PLAIN_MAX: u32 = 4 * 1024 * 1024;

/// Most segments whose frames one segment carries, itself included: what fits the 4 KiB header.
pub const BIRTHS_MAX: usize = 32;

/// Longest chain of deltas below a block; 0 is a block stored whole.
pub const DEPTH_MAX: u8 = 4;

/// Longest body of a manifest record, bytes: the report of a restore is the largest kind.
pub const RECORD_BODY_MAX: u32 = 4 * 1024 * 1024;

/// Most records of a pack.
pub const PACK_RECORDS_MAX: u32 = 4096;

/// Longest plaintext of a pack, bytes: writers close one with the record that reaches half of it.
pub const PACK_BODY_MAX: u32 = 32 * 1024 * 1024;

/// Longest path in a map, bytes: the kernel's own limit is 4,096.
pub const PATH_BYTES_MAX: u32 = 4096;

/// Longest name of a server, bytes.
pub const NAME_BYTES_MAX: u32 = 255;

/// Longest short text in a record (host, version, note, reason), bytes.
pub const TEXT_BYTES_MAX: u32 = 64 * 1024;

/// Longest value of one fact of a backup, bytes: the grants of a server with some thousand accounts.
pub const FACT_BYTES_MAX: u32 = 1024 * 1024;

/// Most facts or warnings of a backup.
pub const LIST_ITEMS_MAX: u32 = 16 * 1024;

/// Longest GTID set in a record, bytes.
pub const GTID_BYTES_MAX: u32 = 1024 * 1024;

/// Longest file, bytes: block numbers are `u32` (256 TiB).
pub const FILE_BYTES_MAX: u64 = BLOCK_BYTES as u64 * u32::MAX as u64;

/// Most files of a backup: a million tables with a few files each.
pub const FILES_MAX: u32 = 4 * 1024 * 1024;

/// Plain bytes at which a map leaf or segment table is closed: big enough to compress well, small enough to hold many.
pub const MAP_FRAME_BYTES: u32 = 1024 * 1024;

/// Most segments that one backup's map may refer to: 64 MiB each, so 128 TiB.
pub const MAP_SEGMENTS_MAX: u32 = 2 * 1024 * 1024;

/// Most leaves or segment tables of a map.
pub const MAP_FRAMES_MAX: u32 = 128 * 1024;

/// Most key slots of a keyring.
pub const KEY_SLOTS_MAX: u32 = 32;

/// Most key-encrypting keys of a keyring: one a rotation.
pub const KEKS_MAX: u32 = 4096;

/// Longest keyring, bytes.
pub const KEYRING_BYTES_MAX: u64 = 1024 * 1024;

/// Most roots a session may name.
pub const SESSION_ROOTS_MAX: u32 = 1024;

/// Most memory that a passphrase slot may ask Argon2id to use, KiB: 4 GiB, so that a forged keyring can't exhaust us.
pub const ARGON2_MEMORY_KIB_MAX: u32 = 4 * 1024 * 1024;

/// Most passes that a passphrase slot may ask Argon2id for.
pub const ARGON2_PASSES_MAX: u32 = 64;

/// Most lanes that a passphrase slot may ask Argon2id for.
pub const ARGON2_LANES_MAX: u32 = 64;
