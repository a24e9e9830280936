//! A binlog as sysbench's `oltp_write_only` leaves it, framed event by event.
//!
//! The frames, lengths and checksums are those of real events; their bodies are filler, since
//! the walker that reads them looks no deeper.

use crate::rows::Random;

/// Bytes before an event's body.
const HEADER_LEN: usize = 19;
/// Bytes of a checksum.
const CRC_LEN: usize = 4;

/// Type and length of each event of one transaction, as observed on MySQL 9.7: GTID, BEGIN,
/// two updates, a delete and an insert with their table maps, XID.
const TRANSACTION: [(u8, usize); 11] = [
    (33, 79),
    (2, 77),
    (19, 61),
    (31, 424),
    (19, 61),
    (31, 424),
    (19, 61),
    (32, 228),
    (19, 61),
    (30, 228),
    (16, 31),
];

/// Transactions behind each other until `len` bytes are passed.
pub fn transactions(len: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut out = Vec::with_capacity(len + 2048);
    while out.len() < len {
        for (kind, event_len) in TRANSACTION {
            event(kind, event_len, &mut random, &mut out);
        }
    }
    out
}

fn event(kind: u8, len: usize, random: &mut Random, out: &mut Vec<u8>) {
    let start = out.len();
    // Time, type, server id, length, end position (not read by the walker), flags.
    out.extend_from_slice(&1_700_000_000_u32.to_le_bytes());
    out.push(kind);
    out.extend_from_slice(&1_u32.to_le_bytes());
    out.extend_from_slice(&(len as u32).to_le_bytes());
    out.extend_from_slice(&[0; 6]);
    let body = len - HEADER_LEN - CRC_LEN;
    while out.len() < start + HEADER_LEN + body {
        out.extend_from_slice(&random.word().to_le_bytes());
    }
    out.truncate(start + HEADER_LEN + body);
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
}
