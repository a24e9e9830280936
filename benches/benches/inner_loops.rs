//! The loops that a block or an event goes through, each alone: how many bytes a second one
//! core can do. `cargo bench -p holdfast-benches --bench inner_loops -- --quick`

#![allow(missing_docs, reason = "criterion's macros make the only public items")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on has to stop")]

use std::hint::black_box;
use std::sync::Arc;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main, measurement::WallTime,
};
use holdfast_benches::rows::{PAGE, Random, fill_page};
use holdfast_binlog::transaction::Assembler;
use holdfast_binlog::{Event, FormatDescription, Walker};
use holdfast_io::{Directory, RealDisk};
use holdfast_store::format::ids::{BackupId, BlockId, SegmentId, ServerId};
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{Coordinates, SourceKind};
use holdfast_store::index::Index;
use holdfast_store::{
    Argon2Cost, BackupDraft, CreateOptions, FileSpec, FixedClock, OpenOptions, Repository, Secret,
};
use zstd::zstd_safe::{CCtx, CParameter, DCtx, compress_bound};

/// The repository's block.
const BLOCK: usize = 64 * 1024;
/// So many different blocks that they do not all sit in the nearest caches.
const BLOCKS: usize = 256;

/// Table pages, and the same pages after a change of one row in each.
fn blocks(changed: bool) -> Vec<Vec<u8>> {
    let mut random = Random::new(7);
    let pages = BLOCK / PAGE;
    let mut page = vec![0; PAGE];
    let mut block = |number: usize| {
        let mut bytes = Vec::with_capacity(BLOCK);
        for inner in 0..pages {
            fill_page(&mut page, (number * pages + inner) as u32, 1, 42);
            if changed {
                let row = 120 + random.below(70) as usize * 190;
                let digits = format!("{:011}", random.below(100_000_000_000));
                for (to, from) in page.iter_mut().skip(row).zip(digits.bytes()) {
                    *to = from;
                }
            }
            bytes.extend_from_slice(&page);
        }
        bytes
    };
    (0..BLOCKS).map(&mut block).collect()
}

/// Runs `work` on one block after the other.
fn over_blocks(
    group: &mut BenchmarkGroup<'_, WallTime>,
    name: &str,
    blocks: &[Vec<u8>],
    mut work: impl FnMut(usize, &[u8]),
) {
    group.throughput(Throughput::Bytes(BLOCK as u64));
    let mut turn = (0..blocks.len()).cycle();
    group.bench_function(name, |b| {
        b.iter(|| {
            let number = turn.next().unwrap();
            work(number, blocks.get(number).unwrap());
        });
    });
}

fn hash(c: &mut Criterion) {
    let blocks = blocks(false);
    let mut group = c.benchmark_group("hash");
    over_blocks(&mut group, "blake3_keyed_id", &blocks, |_, block| {
        black_box(blake3::keyed_hash(&[7; 32], black_box(block)));
    });
    over_blocks(&mut group, "crc32c", &blocks, |_, block| {
        black_box(crc32c::crc32c(black_box(block)));
    });
}

fn delta<'a>(context: &mut CCtx<'a>, old: &'a [u8], new: &[u8], out: &mut Vec<u8>) -> usize {
    out.clear();
    context.ref_prefix(old).unwrap();
    context.compress2(out, new).unwrap()
}

fn compress(c: &mut Criterion) {
    let (old, new) = (blocks(false), blocks(true));
    let mut group = c.benchmark_group("zstd_1");
    let mut out = Vec::with_capacity(compress_bound(BLOCK));

    let mut compressor = zstd::bulk::Compressor::new(1).unwrap();
    over_blocks(&mut group, "encode", &old, |_, block| {
        out.clear();
        black_box(compressor.compress_to_buffer(black_box(block), &mut out).unwrap());
    });
    let stored: Vec<_> = old.iter().map(|block| compressor.compress(block).unwrap()).collect();
    let mut decompressor = zstd::bulk::Decompressor::new().unwrap();
    let mut plain = Vec::with_capacity(BLOCK);
    over_blocks(&mut group, "decode", &old, |number, block| {
        plain.clear();
        decompressor.decompress_to_buffer(black_box(stored.get(number).unwrap()), &mut plain).unwrap();
        debug_assert_eq!(plain, block);
    });

    // A changed block against the block it replaces, given as prefix.
    let mut context = CCtx::create();
    context.set_parameter(CParameter::CompressionLevel(1)).unwrap();
    over_blocks(&mut group, "encode_delta", &new, |number, block| {
        black_box(delta(&mut context, old.get(number).unwrap(), black_box(block), &mut out));
    });
    let mut deltas = Vec::new();
    for (old, new) in old.iter().zip(&new) {
        delta(&mut context, old, new, &mut out);
        deltas.push(out.clone());
    }
    let mut context = DCtx::create();
    over_blocks(&mut group, "decode_delta", &new, |number, block| {
        plain.clear();
        context.ref_prefix(old.get(number).unwrap()).unwrap();
        context.decompress(&mut plain, black_box(deltas.get(number).unwrap())).unwrap();
        debug_assert_eq!(plain, block);
    });
}

fn seal(c: &mut Criterion) {
    let blocks = blocks(false);
    let mut group = c.benchmark_group("aes_256_gcm");
    let (key, nonce, aad) = ([3; 32], [0; 12], [5; 32]);

    let fast = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
    let nonce_of = || Nonce::assume_unique_for_key(nonce);
    let mut buffer = Vec::with_capacity(BLOCK + 16);
    over_blocks(&mut group, "aws_lc_seal", &blocks, |_, block| {
        buffer.clear();
        buffer.extend_from_slice(block);
        fast.seal_in_place_append_tag(nonce_of(), Aad::from(&aad), &mut buffer).unwrap();
    });
    let sealed: Vec<_> = blocks
        .iter()
        .map(|block| {
            let mut out = block.clone();
            fast.seal_in_place_append_tag(nonce_of(), Aad::from(&aad), &mut out).unwrap();
            out
        })
        .collect();
    over_blocks(&mut group, "aws_lc_open", &sealed, |_, block| {
        buffer.clear();
        buffer.extend_from_slice(block);
        fast.open_in_place(nonce_of(), Aad::from(&aad), &mut buffer).unwrap();
    });

    let portable = aes_gcm::Aes256Gcm::new(&key.into());
    over_blocks(&mut group, "aes_gcm_seal", &blocks, |_, block| {
        buffer.clear();
        buffer.extend_from_slice(block);
        let tag = portable.encrypt_inout_detached(&nonce.into(), &aad, buffer.as_mut_slice().into());
        black_box(tag.unwrap());
    });
    over_blocks(&mut group, "aes_gcm_open", &sealed, |_, block| {
        let (body, tag) = block.split_last_chunk::<16>().unwrap();
        buffer.clear();
        buffer.extend_from_slice(body);
        let body = buffer.as_mut_slice().into();
        portable.decrypt_inout_detached(&nonce.into(), &aad, body, &(*tag).into()).unwrap();
    });
}

/// A log that a MySQL 9.7 wrote, from the binlog crate's tests.
const LOG: &[u8] = include_bytes!("../../crates/binlog/tests/data/mysql-rows.binlog");

/// The format description of [`LOG`] and the bytes behind it.
fn log() -> (FormatDescription, &'static [u8]) {
    let mut walker = Walker::new(0);
    let rest = walker.file(LOG).unwrap();
    let first = walker.whole(rest).unwrap();
    let rest = rest.get(first.raw.len()..).unwrap();
    (walker.format().unwrap().clone(), rest)
}

fn walk<'a>(format: &FormatDescription, mut rest: &'a [u8], mut each: impl FnMut(&Event<'a>)) {
    let mut walker = Walker::resume(format.clone(), 4);
    while !rest.is_empty() {
        let event = walker.whole(rest).unwrap();
        rest = rest.get(event.raw.len()..).unwrap();
        each(&event);
    }
}

fn binlog(c: &mut Criterion) {
    let (format, real) = log();
    let mut group = c.benchmark_group("binlog");

    let busy = holdfast_benches::log::transactions(16 << 20, 42);
    group.throughput(Throughput::Bytes(busy.len() as u64));
    group.bench_function("walk_with_crc", |b| {
        b.iter(|| {
            let mut events = 0_u64;
            walk(&format, black_box(&busy), |_| events += 1);
            events
        });
    });
    group.throughput(Throughput::Bytes(real.len() as u64));
    group.bench_function("group_transactions", |b| {
        b.iter(|| {
            let mut assembler = Assembler::new();
            walk(&format, black_box(real), |event| {
                black_box(assembler.push(event, &format).unwrap());
            });
        });
    });
}

/// Blocks in the index: those of 64 GiB.
const INDEXED: u64 = 1 << 20;

/// As even as a hash of a block.
fn id(number: u64) -> BlockId {
    BlockId(*blake3::hash(&number.to_le_bytes()).as_bytes())
}

/// One look-up in a table that is larger than the processor's caches, as for each block of a backup.
fn index(c: &mut Criterion) {
    let mut index = Index::new(u64::MAX);
    index.reserve(INDEXED);
    for first in (0..INDEXED).step_by(1024) {
        let ids: Vec<_> = (first..first + 1024).map(id).collect();
        let mut segment = [0; 16];
        segment.iter_mut().zip(first.to_le_bytes()).for_each(|(to, from)| *to = from);
        assert!(index.insert(SegmentId(segment), &ids));
    }
    let mut random = Random::new(11);
    let (known, unknown): (Vec<_>, Vec<_>) =
        (0..1 << 16).map(|_| random.below(INDEXED)).map(|number| (id(number), id(INDEXED + number))).unzip();
    let mut group = c.benchmark_group("index");
    group.throughput(Throughput::Elements(1));
    for (name, ids) in [("look_up_known", known), ("look_up_unknown", unknown)] {
        let mut turn = ids.iter().cycle();
        group.bench_function(name, |b| b.iter(|| index.candidates(black_box(turn.next().unwrap()))));
    }
}

fn repository(dir: &std::path::Path) -> Repository {
    let objects = Arc::new(Directory::create(RealDisk::shared(), dir).unwrap());
    let options = CreateOptions {
        open: OpenOptions::new(Arc::new(FixedClock::new(1_700_000_000_000_000))),
        // Nobody guesses this passphrase: the key's derivation is not what is measured.
        argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
        program: "inner_loops".to_owned(),
    };
    Repository::create(objects, options, &Secret::passphrase("bench")).unwrap().0
}

/// A backup of these blocks as one file, none of them seen before: each begins with the backup's number.
fn back_up(repository: &Repository, blocks: &mut [Vec<u8>], number: u64) -> BackupId {
    let writer = repository.begin_backup(None).unwrap();
    let len = (blocks.len() * BLOCK) as u64;
    let spec = FileSpec { path: b"file".to_vec(), kind: FileKind::Regular, len, mode: 0o640, mtime_us: 7 };
    let file = writer.add_file(spec).unwrap();
    for (at, block) in blocks.iter_mut().enumerate() {
        block.iter_mut().zip(number.to_le_bytes()).for_each(|(to, from)| *to = from);
        writer.put_block(file, at as u32, block).unwrap();
    }
    let draft = BackupDraft {
        server: ServerId([7; 16]),
        source: SourceKind::Folder,
        coordinates: Coordinates::None,
        facts: Vec::new(),
        note: String::new(),
        warnings: Vec::new(),
    };
    writer.commit(draft).unwrap().id
}

/// A segment's way to the disk, parity and syncs included, and a block's way back, out of the page cache.
fn segment(c: &mut Criterion) {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let repository = repository(dir.path());
    let mut blocks = blocks(false);
    let mut group = c.benchmark_group("segment");
    group.sample_size(10);
    let mut number = 0;
    group.throughput(Throughput::Bytes((BLOCKS * BLOCK) as u64));
    group.bench_function("write_16_mib", |b| {
        b.iter(|| {
            number += 1;
            back_up(&repository, &mut blocks, number)
        });
    });
    let backup = back_up(&repository, &mut blocks, number + 1);
    let reader = repository.open_backup(backup).unwrap();
    over_blocks(&mut group, "read_block", &blocks, |number, block| {
        let read = reader.read_block(0, number as u32).unwrap();
        debug_assert_eq!(read, block);
        black_box(read);
    });
}

criterion_group!(loops, hash, compress, seal, index, segment, binlog);
criterion_main!(loops);
