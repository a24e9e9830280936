//! A segment's bytes brought back from its parity: the second implementation, apart from the store's.
//!
//! The table of checksums says which shards are bad; Reed-Solomon needs no more. What comes out
//! is the whole object, made again from its data shards, and its parity must be the one that the
//! table knows: nothing is handed on that was not compared.

use holdfast_format::ids::{RepoId, SegmentId};
use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::parity::{Geometry, ParityTable, checksum};
use holdfast_format::segment::{PAGE_BYTES, Trailer};
use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

/// What became of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Healing {
    /// It is as it was written.
    Intact,
    /// So is this, and so many pages of 4 KiB of what lies there are not.
    Healed { bytes: Vec<u8>, pages: u32 },
    /// More shards are bad than parity brings back, or the parity is gone.
    Lost { why: String },
}

fn lost(why: impl Into<String>) -> Healing {
    Healing::Lost { why: why.into() }
}

/// Tries to heal the object of a segment.
pub(crate) fn heal(repo: RepoId, segment: SegmentId, object: &[u8]) -> Healing {
    if object.len() as u64 > SEGMENT_BYTES_MAX.saturating_mul(2) {
        return lost("it is longer than any segment");
    }
    let Some(table) = table(repo, segment, object) else {
        return lost("no table of its parity can be read");
    };
    let Some(trailer) = trailer(repo, segment, object, &table.geometry) else {
        return lost("no copy of its trailer can be read");
    };
    let data = match data_shards(object, &table) {
        Ok(data) => data,
        Err(why) => return lost(why),
    };
    match whole(&table, &trailer, &data) {
        Ok(bytes) if bytes == object => Healing::Intact,
        Ok(bytes) => {
            let pairs = bytes.chunks(PAGE_BYTES).zip(object.chunks(PAGE_BYTES));
            let changed = pairs.filter(|(a, b)| a != b).count();
            let pages = changed.saturating_add(bytes.len().abs_diff(object.len()).div_ceil(PAGE_BYTES));
            Healing::Healed { bytes, pages: u32::try_from(pages).unwrap_or(u32::MAX) }
        }
        Err(why) => lost(why),
    }
}

fn part(object: &[u8], start: u64, len: u64) -> Option<&[u8]> {
    let start = usize::try_from(start).ok()?;
    object.get(start..start.checked_add(usize::try_from(len).ok()?)?)
}

/// A copy of the table that is whole and lies where its geometry says, looked for at the start of each page.
fn table(repo: RepoId, segment: SegmentId, object: &[u8]) -> Option<ParityTable> {
    for page in (0..object.len() / PAGE_BYTES).rev() {
        let at = page.checked_mul(PAGE_BYTES)?;
        let bytes = object.get(at..)?;
        if !bytes.starts_with(b"HFPARITY") {
            continue;
        }
        let Ok(table) = ParityTable::decode(bytes) else { continue };
        let places = [table.geometry.first_table(), table.geometry.second_table()];
        if table.repo == repo && table.segment == segment && places.contains(&(at as u64)) {
            return Some(table);
        }
    }
    None
}

/// The trailer at the end, or its copy before the tables.
pub(crate) fn trailer(
    repo: RepoId,
    segment: SegmentId,
    object: &[u8],
    geometry: &Geometry,
) -> Option<Trailer> {
    let end = geometry.protected.saturating_add(geometry.parity_bytes());
    [end, geometry.protected].into_iter().find_map(|at| {
        let trailer = Trailer::decode(part(object, at, PAGE_BYTES as u64)?).ok()?;
        let right =
            trailer.repo == repo && trailer.segment == segment && trailer.parity == Some(geometry.place());
        right.then_some(trailer)
    })
}

/// All data shards, those that are bad computed from the others.
fn data_shards(object: &[u8], table: &ParityTable) -> Result<Vec<Vec<u8>>, String> {
    let geometry = &table.geometry;
    let (shard, size) = (u64::from(geometry.shard_bytes), geometry.shard_bytes as usize);
    let (data, parity) = (geometry.data_shards as usize, geometry.parity_shards as usize);
    let sum = |number: usize| table.checksums.get(number).copied().unwrap_or_default();
    let mut found: Vec<Option<Vec<u8>>> = Vec::with_capacity(data);
    for number in 0..data {
        let start = (number as u64).saturating_mul(shard);
        let len = shard.min(geometry.protected.saturating_sub(start));
        let bytes = part(object, start, len).map(|bytes| {
            let mut bytes = bytes.to_vec();
            bytes.resize(size, 0);
            bytes
        });
        found.push(bytes.filter(|bytes| checksum(bytes) == sum(number)));
    }
    let bad = found.iter().filter(|shard| shard.is_none()).count();
    if bad == 0 {
        return Ok(found.into_iter().flatten().collect());
    }
    let spare: Vec<(usize, &[u8])> = (0..geometry.parity_shards)
        .filter_map(|n| Some((n as usize, part(object, geometry.parity_shard(n), shard)?)))
        .filter(|(n, bytes)| checksum(bytes) == sum(data.saturating_add(*n)))
        .collect();
    if bad > spare.len() {
        let (spare, size) = (spare.len(), crate::progress::size(shard));
        return Err(format!("{bad} of its shards of {size} are damaged, and parity for {spare} is left"));
    }
    let failed = |e: reed_solomon_simd::Error| format!("its parity cannot be decoded: {e}");
    let mut decoder = ReedSolomonDecoder::new(data, parity, size).map_err(failed)?;
    for (number, bytes) in found.iter().enumerate() {
        if let Some(bytes) = bytes {
            decoder.add_original_shard(number, bytes).map_err(failed)?;
        }
    }
    for (number, bytes) in spare.iter().take(bad) {
        decoder.add_recovery_shard(*number, bytes).map_err(failed)?;
    }
    let decoded = decoder.decode().map_err(failed)?;
    let mut shards = Vec::with_capacity(data);
    for (number, bytes) in found.into_iter().enumerate() {
        let bytes = bytes.or_else(|| decoded.restored_original(number).map(<[u8]>::to_vec));
        let bytes = bytes.filter(|bytes| checksum(bytes) == sum(number));
        shards.push(bytes.ok_or_else(|| format!("shard {number} came back with other bytes"))?);
    }
    Ok(shards)
}

/// The object made from its data shards; its parity must be what the table says.
fn whole(table: &ParityTable, trailer: &Trailer, data: &[Vec<u8>]) -> Result<Vec<u8>, String> {
    let mut bytes = data.concat();
    bytes.truncate(usize::try_from(table.geometry.protected).unwrap_or(0));
    let (parity, made) = make_parity(table.repo, table.segment, trailer, bytes.as_slice())?;
    if made != *table {
        return Err("its parity does not fit its bytes".to_owned());
    }
    bytes.extend_from_slice(&parity);
    bytes.extend_from_slice(&trailer.encode());
    Ok(bytes)
}

/// The parity of these protected bytes: copy of the trailer, table, shards, table.
pub(crate) fn make_parity(
    repo: RepoId,
    segment: SegmentId,
    trailer: &Trailer,
    protected: &[u8],
) -> Result<(Vec<u8>, ParityTable), String> {
    let geometry = Geometry::of(protected.len() as u64);
    let size = geometry.shard_bytes as usize;
    let failed = |e: reed_solomon_simd::Error| format!("its parity cannot be computed: {e}");
    let mut encoder =
        ReedSolomonEncoder::new(geometry.data_shards as usize, geometry.parity_shards as usize, size)
            .map_err(failed)?;
    let mut checksums = Vec::new();
    for bytes in protected.chunks(size) {
        let mut shard = bytes.to_vec();
        shard.resize(size, 0);
        checksums.push(checksum(&shard));
        encoder.add_original_shard(&shard).map_err(failed)?;
    }
    let made = encoder.encode().map_err(failed)?;
    let shards: Vec<&[u8]> = made.recovery_iter().collect();
    checksums.extend(shards.iter().map(|shard| checksum(shard)));
    let table = ParityTable { repo, segment, geometry, checksums };
    let copy = table.encode();
    let mut parity = trailer.encode();
    parity.extend_from_slice(&copy);
    shards.iter().for_each(|shard| parity.extend_from_slice(shard));
    parity.extend_from_slice(&copy);
    Ok((parity, table))
}
