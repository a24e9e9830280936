//! Parity of a segment: geometry and the table of checksums. See `format-spec/parity.md`.
//!
//! The code itself is Reed-Solomon as Leopard-RS does it (crate `reed-solomon-simd`); it needs
//! to know which shards are bad, which the table says.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{RepoId, SegmentId};
use crate::limits::ALIGN_BYTES;
use crate::segment::{PAGE_BYTES, ParityPlace, align_up};

/// Version of the table.
pub const VERSION: u32 = crate::VERSION;

/// Data shards that a segment is cut into at most.
pub const DATA_SHARDS_MAX: u64 = 1024;

/// One parity shard for this many data shards: 2.5 %, with tables below 3 % of a full segment.
pub const DATA_PER_PARITY: u64 = 40;

/// Fewest parity shards: a small segment survives two bad sectors.
pub const PARITY_SHARDS_MIN: u64 = 2;

/// Bytes of a shard's checksum.
pub const CHECKSUM_BYTES: usize = 16;

const MAGIC: &[u8; 8] = b"HFPARITY";
const WHAT: &str = "parity table";

/// How the first bytes of a segment are cut into shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Bytes that are protected: everything before the parity. A multiple of 4,096.
    pub protected: u64,
    /// Bytes of a shard, a multiple of 4,096.
    pub shard_bytes: u32,
    /// Shards that are protected.
    pub data_shards: u32,
    /// Shards that protect.
    pub parity_shards: u32,
}

impl Geometry {
    /// The geometry for so many bytes: shards of a thousandth, at least 4 KiB.
    #[must_use]
    pub fn of(protected: u64) -> Self {
        let shard = align_up(protected.div_ceil(DATA_SHARDS_MAX)).max(ALIGN_BYTES);
        let data = protected.div_ceil(shard).max(1);
        let parity = data.div_ceil(DATA_PER_PARITY).max(PARITY_SHARDS_MIN);
        let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { protected, shard_bytes: small(shard), data_shards: small(data), parity_shards: small(parity) }
    }

    /// Bytes of one copy of the table, padded.
    #[must_use]
    pub fn table_bytes(&self) -> u64 {
        let shards = u64::from(self.data_shards) + u64::from(self.parity_shards);
        align_up(TABLE_FIXED as u64 + shards * CHECKSUM_BYTES as u64)
    }

    /// Bytes of the parity: copy of the trailer, table, shards, table.
    #[must_use]
    pub fn parity_bytes(&self) -> u64 {
        let shards = u64::from(self.parity_shards) * u64::from(self.shard_bytes);
        PAGE_BYTES as u64 + 2 * self.table_bytes() + shards
    }

    /// Where the trailer says that the parity lies.
    #[must_use]
    pub fn place(&self) -> ParityPlace {
        ParityPlace {
            offset: self.protected,
            len: self.parity_bytes(),
            shard_bytes: self.shard_bytes,
            parity_shards: self.parity_shards,
            data_shards: self.data_shards,
        }
    }

    /// The geometry that a trailer names.
    #[must_use]
    pub fn from_place(place: &ParityPlace) -> Self {
        Self {
            protected: place.offset,
            shard_bytes: place.shard_bytes,
            data_shards: place.data_shards,
            parity_shards: place.parity_shards,
        }
    }

    /// Offset of the first table in the object.
    #[must_use]
    pub fn first_table(&self) -> u64 {
        self.protected + PAGE_BYTES as u64
    }

    /// Offset of a parity shard in the object.
    #[must_use]
    pub fn parity_shard(&self, shard: u32) -> u64 {
        self.first_table() + self.table_bytes() + u64::from(shard) * u64::from(self.shard_bytes)
    }

    /// Offset of the second table in the object.
    #[must_use]
    pub fn second_table(&self) -> u64 {
        self.parity_shard(self.parity_shards)
    }
}

/// Bytes of a table without its checksums.
const TABLE_FIXED: usize = 8 + 4 + 4 + 16 + 16 + 8 + 4 + 4 + 32;

/// The checksum of a shard: the first 16 bytes of its BLAKE3.
#[must_use]
pub fn checksum(shard: &[u8]) -> [u8; CHECKSUM_BYTES] {
    blake3::hash(shard).as_bytes().first_chunk().copied().unwrap_or_default()
}

/// Which bytes are right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParityTable {
    /// The repository.
    pub repo: RepoId,
    /// The segment.
    pub segment: SegmentId,
    /// How it is cut.
    pub geometry: Geometry,
    /// Checksums of the data shards, then of the parity shards.
    pub checksums: Vec<[u8; CHECKSUM_BYTES]>,
}

impl ParityTable {
    /// One copy, padded to whole pages of 4 KiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(self.geometry.shard_bytes);
        w.raw(&self.repo.0);
        w.raw(&self.segment.0);
        w.u64(self.geometry.protected);
        w.u32(self.geometry.data_shards);
        w.u32(self.geometry.parity_shards);
        for sum in &self.checksums {
            w.raw(sum);
        }
        let mut bytes = w.into_bytes();
        append_hash(&mut bytes);
        let padded = usize::try_from(self.geometry.table_bytes()).unwrap_or(bytes.len());
        bytes.resize(padded, 0);
        bytes
    }

    /// Reads one copy; `bytes` may be longer.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.magic(MAGIC)?;
        r.version(VERSION)?;
        let shard_bytes = r.u32()?;
        let repo = RepoId(r.array()?);
        let segment = SegmentId(r.array()?);
        let protected = r.u64()?;
        let (data_shards, parity_shards) = (r.u32()?, r.u32()?);
        let geometry = Geometry { protected, shard_bytes, data_shards, parity_shards };
        if protected > crate::limits::SEGMENT_BYTES_MAX || Geometry::of(protected) != geometry {
            return Err(Error::bad(WHAT, "the shards", "those of its length", "others"));
        }
        let count = data_shards as usize + parity_shards as usize;
        let mut checksums = Vec::with_capacity(count.min(r.left() / CHECKSUM_BYTES));
        for _ in 0..count {
            checksums.push(r.array()?);
        }
        let end = r.at().saturating_add(32);
        let whole = bytes.get(..end).ok_or(Error::Checksum { what: WHAT })?;
        split_hash(WHAT, whole)?;
        Ok(Self { repo, segment, geometry, checksums })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn parity_costs_about_a_twenty_fourth_at_most_or_64_kib(pages in 3..20_000_u64) {
            let geometry = Geometry::of(pages * 4096);
            prop_assert!(geometry.data_shards <= 1024);
            prop_assert!(u64::from(geometry.data_shards) * u64::from(geometry.shard_bytes) >= pages * 4096);
            prop_assert!(geometry.parity_bytes() <= (pages * 4096 / 24).max(65_536), "{geometry:?}");
            prop_assert_eq!(Geometry::from_place(&geometry.place()), geometry);
        }

        #[test]
        fn a_table_reads_back_and_notices_every_change(
            pages in 3..2000_u64, seed: u64, at: proptest::sample::Index, bit in 0..8_u8
        ) {
            let geometry = Geometry::of(pages * 4096);
            let shards = geometry.data_shards + geometry.parity_shards;
            let checksums = (0..shards).map(|n| checksum(&(seed ^ u64::from(n)).to_le_bytes())).collect();
            let table = ParityTable { repo: RepoId([1; 16]), segment: SegmentId([2; 16]), geometry, checksums };
            let bytes = table.encode();
            prop_assert_eq!(bytes.len() as u64, geometry.table_bytes());
            prop_assert_eq!(&ParityTable::decode(&bytes).unwrap(), &table);
            let mut flipped = bytes.clone();
            let at = at.index(TABLE_FIXED + shards as usize * CHECKSUM_BYTES);
            flipped[at] ^= 1 << bit;
            prop_assert!(ParityTable::decode(&flipped).is_err());
            prop_assert!(ParityTable::decode(&bytes[..at]).is_err());
        }
    }
}
