//! Reed-Solomon parity of a segment: made when it is sealed, used to heal it.

use holdfast_format::ids::{RepoId, SegmentId};
use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::parity::{CHECKSUM_BYTES, Geometry, ParityTable, checksum};
use holdfast_format::segment::{PAGE_BYTES, Trailer};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use reed_solomon_simd::{ReedSolomonDecoder, ReedSolomonEncoder};

use crate::error::{Error, Result};

/// Bytes of a piece of an image: the whole is never copied to grow.
const PIECE_BYTES: usize = 1024 * 1024;

/// Images from this length on are encoded in two halves side by side.
const HALVES_BYTES_MIN: u64 = 4 << 20;

/// The encoder works on columns of this many bytes: each comes out the same, whatever lies beside it.
const COLUMN_BYTES: usize = 64;

/// Memory of images and of the encoders, kept from one segment to the next: a backup's segments follow each other, and
/// fresh memory costs a page fault for every 4 KiB.
#[derive(Default)]
pub(crate) struct Workshop {
    pieces: Mutex<Vec<Vec<u8>>>,
    encoders: Mutex<Vec<ReedSolomonEncoder>>,
}

impl std::fmt::Debug for Workshop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Workshop")
    }
}

impl Workshop {
    fn piece(&self) -> Vec<u8> {
        let kept = self.pieces.lock().unwrap_or_else(PoisonError::into_inner).pop();
        kept.unwrap_or_else(|| Vec::with_capacity(PIECE_BYTES))
    }

    /// An encoder for this many shards; used ones come back by [`Workshop::give`].
    fn encoder(&self, data: usize, parity: usize, shard_bytes: usize) -> Result<ReedSolomonEncoder> {
        let kept = self.encoders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        match kept {
            Some(mut encoder) => {
                encoder.reset(data, parity, shard_bytes).map_err(failed)?;
                Ok(encoder)
            }
            None => ReedSolomonEncoder::new(data, parity, shard_bytes).map_err(failed),
        }
    }

    fn give(&self, encoder: ReedSolomonEncoder) {
        self.encoders.lock().unwrap_or_else(PoisonError::into_inner).push(encoder);
    }
}

/// The bytes of a segment that is being written, kept for its parity: some more than 64 MiB at most.
#[derive(Debug, Default)]
pub(crate) struct Image {
    pieces: Vec<Vec<u8>>,
    len: u64,
    workshop: Arc<Workshop>,
}

impl Drop for Image {
    fn drop(&mut self) {
        let mut kept = self.workshop.pieces.lock().unwrap_or_else(PoisonError::into_inner);
        kept.extend(self.pieces.drain(..).map(|mut piece| {
            piece.clear();
            piece
        }));
    }
}

impl Image {
    pub(crate) fn new(workshop: &Arc<Workshop>) -> Self {
        Self { pieces: Vec::new(), len: 0, workshop: Arc::clone(workshop) }
    }

    pub(crate) fn push(&mut self, mut bytes: &[u8]) {
        self.len += bytes.len() as u64;
        while !bytes.is_empty() {
            if self.pieces.last().is_none_or(|p| p.len() >= PIECE_BYTES) {
                self.pieces.push(self.workshop.piece());
            }
            let Some(piece) = self.pieces.last_mut() else { return };
            let room = PIECE_BYTES.saturating_sub(piece.len()).min(bytes.len());
            let (now, later) = bytes.split_at_checked(room).unwrap_or((bytes, &[]));
            piece.extend_from_slice(now);
            bytes = later;
        }
    }

    /// Copies a range; what lies behind the end is zeros.
    fn copy(&self, offset: u64, to: &mut [u8]) {
        to.fill(0);
        let mut at = usize::try_from(offset).unwrap_or(usize::MAX);
        let mut rest = to;
        while !rest.is_empty() {
            let Some(from) = self.pieces.get(at / PIECE_BYTES).and_then(|p| p.get(at % PIECE_BYTES..)) else {
                return;
            };
            let n = from.len().min(rest.len());
            if n == 0 {
                return;
            }
            let (now, later) = std::mem::take(&mut rest).split_at_mut(n);
            for (to, from) in now.iter_mut().zip(from) {
                *to = *from;
            }
            rest = later;
            at += n;
        }
    }
}

fn failed(e: reed_solomon_simd::Error) -> Error {
    Error::Refused {
        op: "compute the parity",
        why: format!("{e}; check this machine's memory, and run it again"),
    }
}

/// Checksums of shards, in their order.
type Checksums = Vec<[u8; CHECKSUM_BYTES]>;

/// A range of columns of the parity, shard by shard, and the checksums of a range of the data shards.
fn encode(
    image: &Image,
    geometry: &Geometry,
    columns: Range<usize>,
    summed: Range<u32>,
) -> Result<(Vec<u8>, Checksums)> {
    let shard_bytes = u64::from(geometry.shard_bytes);
    let (data, parity) = (geometry.data_shards as usize, geometry.parity_shards as usize);
    let mut encoder = image.workshop.encoder(data, parity, columns.len())?;
    let mut checksums = Vec::with_capacity(summed.len());
    let mut shard = vec![0; geometry.shard_bytes as usize];
    for number in 0..geometry.data_shards {
        let start = u64::from(number) * shard_bytes;
        if summed.contains(&number) {
            image.copy(start, &mut shard);
            checksums.push(checksum(&shard));
        } else if let Some(part) = shard.get_mut(columns.clone()) {
            image.copy(start + columns.start as u64, part);
        }
        encoder.add_original_shard(shard.get(columns.clone()).unwrap_or_default()).map_err(failed)?;
    }
    let made = encoder.encode().map_err(failed)?;
    let mut shards = Vec::with_capacity(parity * columns.len());
    made.recovery_iter().for_each(|shard| shards.extend_from_slice(shard));
    drop(made);
    image.workshop.give(encoder);
    Ok((shards, checksums))
}

/// The parity shards of an image, and the checksums of its data shards. Whoever commits a backup waits for its last
/// segment, with nothing else to do: so a second thread of `builder` helps where there is much, unless the system
/// refuses it.
fn encode_all(image: &Image, geometry: &Geometry, builder: thread::Builder) -> Result<(Vec<u8>, Checksums)> {
    let (shard_bytes, shards) = (geometry.shard_bytes as usize, geometry.data_shards);
    if image.len < HALVES_BYTES_MIN {
        return encode(image, geometry, 0..shard_bytes, 0..shards);
    }
    let (column, shard) = ((shard_bytes / 2).next_multiple_of(COLUMN_BYTES), shards / 2);
    let ((left, mut checksums), (right, more)) = thread::scope(|scope| {
        let right = || encode(image, geometry, column..shard_bytes, shard..shards);
        let helper = builder.spawn_scoped(scope, right);
        let left = encode(image, geometry, 0..column, 0..shard);
        let died = Error::SelfCheck { what: "a thread that computes parity" };
        let right = match helper {
            Ok(helper) => helper.join().unwrap_or(Err(died)),
            Err(_refused) => right(),
        };
        Ok::<_, Error>((left?, right?))
    })?;
    checksums.extend(more);
    let rows = left.chunks(column).zip(right.chunks(shard_bytes - column));
    Ok((rows.flat_map(|(left, right)| [left, right]).collect::<Vec<_>>().concat(), checksums))
}

/// The parity of everything written so far: copy of the trailer, table, shards, table.
pub(crate) fn make(image: &Image, repo: RepoId, segment: SegmentId, trailer: &Trailer) -> Result<Vec<u8>> {
    let geometry = Geometry::of(image.len);
    let (shards, mut checksums) = encode_all(image, &geometry, thread::Builder::new())?;
    checksums.extend(shards.chunks(geometry.shard_bytes as usize).map(checksum));
    let table = ParityTable { repo, segment, geometry, checksums }.encode();
    Ok([trailer.encode(), table.clone(), shards, table].concat())
}

/// What [`heal`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healed {
    /// Every byte is as it was written.
    Intact,
    /// These bytes are.
    Repaired {
        /// The whole segment.
        bytes: Vec<u8>,
        /// How many pages of 4 KiB were not.
        bad_pages: u32,
    },
    /// More shards are bad than parity can bring back.
    Lost {
        /// Bad data shards.
        bad_data: u32,
        /// Good parity shards.
        good_parity: u32,
    },
    /// The segment has no parity, or nothing of it can be read.
    NoParity,
}

/// Checks a sealed segment against its parity, and repairs it. `bytes` is the whole object.
pub fn heal(repo: RepoId, segment: SegmentId, bytes: &[u8]) -> Result<Healed> {
    if bytes.len() as u64 > SEGMENT_BYTES_MAX * 2 {
        return Ok(Healed::NoParity);
    }
    let Some(table) = find_table(repo, segment, bytes) else { return Ok(Healed::NoParity) };
    let geometry = table.geometry;
    let shard_bytes = geometry.shard_bytes as usize;
    let good = |shard: &[u8], number: u32| table.checksums.get(number as usize) == Some(&checksum(shard));
    let data: Vec<Option<Vec<u8>>> = (0..geometry.data_shards)
        .map(|n| {
            let start = u64::from(n) * u64::from(geometry.shard_bytes);
            let end = (start + u64::from(geometry.shard_bytes)).min(geometry.protected);
            let mut shard = slice(bytes, start, end)?.to_vec();
            shard.resize(shard_bytes, 0);
            Some(shard).filter(|s| good(s, n))
        })
        .collect();
    let parity: Vec<Option<&[u8]>> = (0..geometry.parity_shards)
        .map(|n| {
            let start = geometry.parity_shard(n);
            let shard = slice(bytes, start, start + u64::from(geometry.shard_bytes))?;
            let sum = table.checksums.get((geometry.data_shards + n) as usize)?;
            (checksum(shard) == *sum).then_some(shard)
        })
        .collect();
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    let bad_data = count(data.iter().filter(|s| s.is_none()).count());
    let good_parity = count(parity.iter().flatten().count());
    if bad_data > good_parity {
        return Ok(Healed::Lost { bad_data, good_parity });
    }
    let data =
        if bad_data == 0 { data.into_iter().flatten().collect() } else { decode(&geometry, data, &parity)? };
    rebuild(repo, segment, bytes, &table, &data)
}

/// Brings the missing data shards back.
fn decode(geometry: &Geometry, data: Vec<Option<Vec<u8>>>, parity: &[Option<&[u8]>]) -> Result<Vec<Vec<u8>>> {
    let (d, p) = (geometry.data_shards as usize, geometry.parity_shards as usize);
    let mut decoder = ReedSolomonDecoder::new(d, p, geometry.shard_bytes as usize).map_err(failed)?;
    for (number, shard) in data.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_original_shard(number, shard).map_err(failed)?;
        }
    }
    for (number, shard) in parity.iter().enumerate() {
        if let Some(shard) = shard {
            decoder.add_recovery_shard(number, shard).map_err(failed)?;
        }
    }
    let restored = decoder.decode().map_err(failed)?;
    let mut out = Vec::with_capacity(d);
    for (number, shard) in data.into_iter().enumerate() {
        let found = shard.or_else(|| restored.restored_original(number).map(<[u8]>::to_vec));
        out.push(found.ok_or(Error::SelfCheck { what: "Reed-Solomon decoding" })?);
    }
    Ok(out)
}

/// Makes the whole segment again from its data shards, and compares.
fn rebuild(
    repo: RepoId,
    segment: SegmentId,
    bytes: &[u8],
    table: &ParityTable,
    data: &[Vec<u8>],
) -> Result<Healed> {
    let mut image = Image::default();
    let mut left = usize::try_from(table.geometry.protected).unwrap_or(0);
    for shard in data {
        let part = shard.get(..left.min(shard.len())).unwrap_or(shard);
        image.push(part);
        left -= part.len();
    }
    let Some(trailer) = find_trailer(repo, segment, bytes, table) else { return Ok(Healed::NoParity) };
    let mut whole = vec![0; usize::try_from(table.geometry.protected).unwrap_or(0)];
    image.copy(0, &mut whole);
    let parity = make(&image, repo, segment, &trailer)?;
    if ParityTable::decode(parity.get(PAGE_BYTES..).unwrap_or(&[])).ok().as_ref() != Some(table) {
        return Err(Error::SelfCheck { what: "the parity of a repaired segment" });
    }
    whole.extend_from_slice(&parity);
    whole.extend_from_slice(&trailer.encode());
    if whole == bytes {
        return Ok(Healed::Intact);
    }
    let pages = whole.chunks(PAGE_BYTES).zip(bytes.chunks(PAGE_BYTES));
    let bad = pages.filter(|(a, b)| a != b).count() + whole.len().abs_diff(bytes.len()) / PAGE_BYTES;
    Ok(Healed::Repaired { bytes: whole, bad_pages: u32::try_from(bad).unwrap_or(u32::MAX) })
}

fn slice(bytes: &[u8], start: u64, end: u64) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// Either copy of the table, found by its place or, without a trailer, by its magic at a page's start.
fn find_table(repo: RepoId, segment: SegmentId, bytes: &[u8]) -> Option<ParityTable> {
    let pages = bytes.len() / PAGE_BYTES;
    (0..pages).rev().find_map(|page| {
        let at = bytes.get(page * PAGE_BYTES..)?;
        if !at.starts_with(b"HFPARITY") {
            return None;
        }
        let table = ParityTable::decode(at).ok()?;
        let at = (page * PAGE_BYTES) as u64;
        let here = at == table.geometry.first_table() || at == table.geometry.second_table();
        (table.repo == repo && table.segment == segment && here).then_some(table)
    })
}

/// Either copy of the trailer.
fn find_trailer(repo: RepoId, segment: SegmentId, bytes: &[u8], table: &ParityTable) -> Option<Trailer> {
    let end = table.geometry.protected + table.geometry.parity_bytes();
    [table.geometry.protected, end].into_iter().find_map(|at| {
        let trailer = Trailer::decode(slice(bytes, at, at + PAGE_BYTES as u64)?).ok()?;
        (trailer.repo == repo && trailer.segment == segment).then_some(trailer)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(pages: usize) -> (RepoId, SegmentId, Vec<u8>) {
        let (repo, id) = (RepoId([3; 16]), SegmentId([4; 16]));
        let mut bytes = vec![0; pages * PAGE_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let mut image = Image::default();
        for piece in bytes.chunks(70_001) {
            image.push(piece);
        }
        let trailer = Trailer {
            repo,
            segment: id,
            detached: false,
            frames_end: 5000,
            footer_offset: 8192,
            footer_len: 100,
            frames: 1,
            frames_root: [5; 32],
            parity: Some(Geometry::of(image.len).place()),
        };
        bytes.extend(make(&image, repo, id, &trailer).unwrap());
        bytes.extend(trailer.encode());
        (repo, id, bytes)
    }

    #[test]
    fn parity_is_the_same_where_the_system_refuses_a_thread() {
        let mut bytes = vec![0; usize::try_from(HALVES_BYTES_MIN).unwrap() + 5 * PAGE_BYTES];
        blake3::Hasher::new().finalize_xof().fill(&mut bytes);
        let mut image = Image::default();
        image.push(&bytes);
        let geometry = Geometry::of(image.len);
        // No address space is left for such a stack.
        let refused = || thread::Builder::new().stack_size(1 << 60);
        assert!(refused().spawn(|| ()).is_err());
        let alone = encode_all(&image, &geometry, refused()).unwrap();
        assert_eq!(alone, encode_all(&image, &geometry, thread::Builder::new()).unwrap());
    }

    #[test]
    fn any_single_page_that_rots_comes_back() {
        for pages in [3, 40] {
            let (repo, id, bytes) = segment(pages);
            assert_eq!(heal(repo, id, &bytes).unwrap(), Healed::Intact);
            for page in 0..bytes.len() / PAGE_BYTES {
                let mut bad = bytes.clone();
                bad[page * PAGE_BYTES + 77] ^= 0x10;
                bad[page * PAGE_BYTES] ^= 1;
                match heal(repo, id, &bad).unwrap() {
                    Healed::Repaired { bytes: healed, .. } => {
                        assert!(healed == bytes, "page {page} of {pages}")
                    }
                    other => panic!("page {page} of {pages}: {other:?}"),
                }
            }
        }
    }

    #[test]
    fn parity_made_in_halves_is_that_of_the_whole() {
        // Below and above the length from which it is made in halves, and with a last shard that is filled up.
        for bytes in [3_000_000_usize, 5_000_001, 9_437_184] {
            let mut image = Image::default();
            let mut content = vec![0; bytes];
            blake3::Hasher::new().update(&bytes.to_le_bytes()).finalize_xof().fill(&mut content);
            image.push(&content);
            let geometry = Geometry::of(image.len);
            let whole = 0..geometry.shard_bytes as usize;
            let wanted = encode(&image, &geometry, whole, 0..geometry.data_shards).unwrap();
            assert!(
                encode_all(&image, &geometry, thread::Builder::new()).unwrap() == wanted,
                "{bytes} bytes"
            );
        }
    }

    #[test]
    fn as_many_shards_as_there_is_parity_come_back_and_one_more_is_named_lost() {
        let (repo, id, bytes) = segment(3000);
        let geometry = Geometry::of(3000 * PAGE_BYTES as u64);
        let mut bad = bytes.clone();
        for shard in 0..geometry.parity_shards as usize {
            bad[shard * 3 * geometry.shard_bytes as usize + 5] ^= 1;
        }
        assert!(
            matches!(heal(repo, id, &bad).unwrap(), Healed::Repaired { bytes: healed, .. } if healed == bytes)
        );
        bad[bytes.len() / 2] ^= 1;
        assert!(matches!(heal(repo, id, &bad).unwrap(), Healed::Lost { .. }));
        // The end torn off.
        let mut cut = bytes.clone();
        cut.truncate(bytes.len() - PAGE_BYTES);
        assert!(
            matches!(heal(repo, id, &cut).unwrap(), Healed::Repaired { bytes: healed, .. } if healed == bytes)
        );
    }
}
