//! How many bytes a second a backup goes in and comes out again: a repository on the real
//! disk, through the store's own calls, each restore laid out in an empty folder and synced.
//! `cargo bench -p holdfast-benches --bench restore_throughput -- --quick`
//!
//! The repository is read from the page cache here, so this measures Holdfast's own work;
//! `tools/bench` measures with cold caches and beside other tools.

#![allow(missing_docs, reason = "criterion's macros make the only public items")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a bench that cannot go on has to stop")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use holdfast_benches::rows::{Churn, PAGE, Random, change_folder, make_folder};
use holdfast_io::{Directory, Disk, RealDisk};
use holdfast_store::format::ids::{BackupId, ServerId};
use holdfast_store::format::limits::BLOCK_BYTES;
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{Coordinates, SourceKind};
use holdfast_store::{
    Argon2Cost, BackupDraft, CreateOptions, FileSpec, FixedClock, OpenOptions, Repository, RestoreOptions,
    Secret,
};

const FILES: u32 = 4;
/// 256 MiB in all.
const PAGES: u32 = 4096;
const LOGICAL_BYTES: u64 = FILES as u64 * PAGES as u64 * PAGE as u64;

/// Generations of changes behind the last backup, 1 % of the pages each.
const GENERATIONS: u64 = 10;

struct Rig {
    top: tempfile::TempDir,
    disk: Arc<dyn Disk>,
    repository: Repository,
}

impl Rig {
    /// Below the build's own folder, so that it lies on a disk and not in memory.
    fn new() -> Self {
        let top = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let disk = RealDisk::shared();
        let repo = top.path().join("repo");
        std::fs::create_dir(&repo).unwrap();
        let objects = Arc::new(Directory::create(Arc::clone(&disk), repo).unwrap());
        let options = CreateOptions {
            open: OpenOptions::new(Arc::new(FixedClock::new(1_700_000_000_000_000))),
            // Nobody guesses this passphrase: the key's derivation is not what is measured.
            argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
            program: "restore_throughput".to_owned(),
        };
        let (repository, _kit) = Repository::create(objects, options, &Secret::passphrase("bench")).unwrap();
        Self { top, disk, repository }
    }

    fn data(&self) -> PathBuf {
        self.top.path().join("data")
    }

    fn backup(&self, parent: Option<BackupId>) -> BackupId {
        let writer = self.repository.begin_backup(parent).unwrap();
        for number in 1..=FILES {
            let name = format!("sbtest{number}.ibd");
            let bytes = std::fs::read(self.data().join(&name)).unwrap();
            let spec = FileSpec {
                path: name.into_bytes(),
                kind: FileKind::Regular,
                len: bytes.len() as u64,
                mode: 0o600,
                mtime_us: 0,
            };
            let file = writer.add_file(spec).unwrap();
            for (block, data) in bytes.chunks(BLOCK_BYTES as usize).enumerate() {
                writer.put_block(file, block as u32, data).unwrap();
            }
        }
        let draft = BackupDraft {
            server: ServerId([1; 16]),
            source: SourceKind::Folder,
            coordinates: Coordinates::None,
            facts: Vec::new(),
            note: String::new(),
            warnings: Vec::new(),
        };
        writer.commit(draft).unwrap().id
    }

    /// Lays a backup out in a fresh folder; the folder's removal is not timed.
    fn restore(&self, backup: BackupId) -> Duration {
        let into = self.top.path().join("restored");
        std::fs::create_dir(&into).unwrap();
        let begun = Instant::now();
        let reader = self.repository.open_backup(backup).unwrap();
        let summary =
            reader.restore_into(self.disk.as_ref(), &into, &|_| (), &RestoreOptions::default()).unwrap();
        let took = begun.elapsed();
        assert_eq!(summary.logical_bytes, LOGICAL_BYTES);
        std::fs::remove_dir_all(&into).unwrap();
        took
    }
}

fn first_and_last(c: &mut Criterion) {
    let rig = Rig::new();
    make_folder(&rig.data(), FILES, PAGES, 42).unwrap();
    let first = rig.backup(None);
    let mut last = first;
    for generation in 1..=GENERATIONS {
        let changes = u64::from(FILES) * u64::from(PAGES) / 100;
        change_folder(&rig.data(), (FILES, PAGES), changes, Churn::Uniform, generation + 1).unwrap();
        last = rig.backup(Some(last));
    }
    must_be_equal(&rig, last);

    let mut group = c.benchmark_group("restore_throughput");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(LOGICAL_BYTES));
    for (name, backup) in [("first_backup", first), ("after_10_generations", last)] {
        group.bench_with_input(BenchmarkId::from_parameter(name), &backup, |b, backup| {
            b.iter_custom(|times| (0..times).map(|_| rig.restore(*backup)).sum());
        });
    }
    group.finish();
    random_blocks(c, &rig, last);
}

/// One block by its place: read, opened, decoded, its id checked.
fn random_blocks(c: &mut Criterion, rig: &Rig, backup: BackupId) {
    let reader = rig.repository.open_backup(backup).unwrap();
    let blocks = u64::from(PAGES) * PAGE as u64 / u64::from(BLOCK_BYTES);
    let mut random = Random::new(11);
    let mut group = c.benchmark_group("read_block");
    group.throughput(Throughput::Bytes(u64::from(BLOCK_BYTES)));
    group.bench_function("random", |b| {
        b.iter(|| {
            let (file, block) = (random.below(u64::from(FILES)), random.below(blocks));
            reader.read_block(file as u32, block as u32).unwrap()
        });
    });
    group.finish();
}

/// A fast restore of something else would be worth nothing.
fn must_be_equal(rig: &Rig, backup: BackupId) {
    let into = rig.top.path().join("checked");
    std::fs::create_dir(&into).unwrap();
    let reader = rig.repository.open_backup(backup).unwrap();
    reader.restore_into(rig.disk.as_ref(), &into, &|_| (), &RestoreOptions::default()).unwrap();
    let extra = holdfast_benches::rig::folder::must_equal("holdfast", Path::new(&rig.data()), &into).unwrap();
    assert!(extra.is_empty());
    std::fs::remove_dir_all(&into).unwrap();
}

/// The way in: every frame decoded back before the acknowledgement, as by default.
fn backup(c: &mut Criterion) {
    let mut group = c.benchmark_group("backup_throughput");
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Bytes(LOGICAL_BYTES));
    let data = Rig::new();
    make_folder(&data.data(), FILES, PAGES, 42).unwrap();
    group.bench_function("full", |b| {
        b.iter_custom(|times| {
            let once = |_| {
                let rig = Rig::new();
                std::os::unix::fs::symlink(data.data(), rig.data()).unwrap();
                let begun = Instant::now();
                rig.backup(None);
                begun.elapsed()
            };
            (0..times).map(once).sum()
        });
    });
    let rig = Rig::new();
    std::os::unix::fs::symlink(data.data(), rig.data()).unwrap();
    let parent = rig.backup(None);
    group.bench_function("nothing_changed", |b| {
        b.iter_custom(|times| {
            let begun = Instant::now();
            for _ in 0..times {
                rig.backup(Some(parent));
            }
            begun.elapsed()
        });
    });
    group.finish();
}

criterion_group!(benches, first_and_last, backup);
criterion_main!(benches);
