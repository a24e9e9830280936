//! A restore through the bulk engines: the same promises with io_uring and with the pool of threads, on real files and
//! on the simulated disk. The probe finds io_uring wherever the host allows it; the tests of `io` say when it does not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use common::{BLOCK, content, create_options, draft, options, put_file, secret, spec};
use holdfast_format::ids::BackupId;
use holdfast_io::sim::{Fault, OpKind};
use holdfast_io::{Directory, Disk, EngineChoice, Objects, RealDisk, SimDisk};
use holdfast_store::{Error, Repository, RestoreOptions, RestoreSummary};

const ENGINES: [EngineChoice; 2] = [EngineChoice::Probe, EngineChoice::Pool];

/// A repository with one backup of a few files, each generation of it a few blocks further.
struct Rig {
    disk: Arc<dyn Disk>,
    top: PathBuf,
    files: Vec<(String, Vec<u8>)>,
    backup: BackupId,
}

impl Rig {
    fn new(disk: Arc<dyn Disk>, top: &Path) -> Self {
        disk.create_dir_all(&top.join("repo")).unwrap();
        let objects: Arc<dyn Objects> =
            Arc::new(Directory::create(Arc::clone(&disk), top.join("repo")).unwrap());
        let (repository, _) = Repository::create(objects, create_options(), &secret()).unwrap();
        let mut files: Vec<(String, Vec<u8>)> =
            (0..6).map(|n| (format!("db/t{n}.ibd"), content(n, (n as usize * 9 + 3) * BLOCK + 77))).collect();
        let mut parent = None;
        for generation in 0..3_usize {
            let writer = repository.begin_backup(parent).unwrap();
            for (name, bytes) in &files {
                put_file(&writer, name, bytes);
            }
            let sparse = writer.add_file(spec("sparse", 400 * BLOCK as u64)).unwrap();
            writer.put_block(sparse, 7, &vec![0; BLOCK]).unwrap();
            writer.put_block(sparse, 399, &content(99, BLOCK)).unwrap();
            parent = Some(writer.commit(draft()).unwrap().id);
            if generation < 2 {
                // Deltas of deltas, and blocks that lie in other segments than their neighbours.
                for (_, bytes) in &mut files {
                    for at in (generation * 700..bytes.len()).step_by(3 * BLOCK) {
                        bytes[at] ^= 0x5a;
                    }
                }
            }
        }
        let mut sparse = vec![0; 400 * BLOCK];
        sparse[399 * BLOCK..].copy_from_slice(&content(99, BLOCK));
        files.push(("sparse".to_owned(), sparse));
        Self { disk, top: top.to_path_buf(), files, backup: parent.unwrap() }
    }

    fn restore(
        &self,
        io: EngineChoice,
        into: &str,
        options: &RestoreOptions,
        each: &(dyn Fn(u64) + Sync),
    ) -> Result<RestoreSummary, Error> {
        let objects: Arc<dyn Objects> =
            Arc::new(Directory::open(Arc::clone(&self.disk), self.top.join("repo")).unwrap());
        let mut open = common::options();
        open.io = io;
        let repository = Repository::open(objects, &secret(), open)?;
        let into = self.top.join(into);
        self.disk.create_dir_all(&into).unwrap();
        let reader = repository.open_backup(self.backup)?;
        reader.restore_into(self.disk.as_ref(), &into, &|p| each(p.bytes_done), options)
    }

    fn must_be_equal(&self, into: &str) {
        for (name, bytes) in &self.files {
            let path = self.top.join(into).join(name);
            assert!(common::read_file(self.disk.as_ref(), &path) == *bytes, "{name} differs");
        }
    }

    /// The largest segment: the one of the first generation.
    fn segment(&self) -> PathBuf {
        let mut found: Vec<(u64, PathBuf)> = Vec::new();
        let mut folders = vec![self.top.join("repo/segments")];
        while let Some(folder) = folders.pop() {
            for entry in self.disk.list(&folder).unwrap() {
                let path = folder.join(&entry.name);
                match entry.kind {
                    holdfast_io::EntryKind::Dir => folders.push(path),
                    _ => found.push((self.disk.metadata(&path).unwrap().len, path)),
                }
            }
        }
        found.into_iter().max().unwrap().1
    }
}

fn real() -> (tempfile::TempDir, Rig) {
    let top = tempfile::tempdir().unwrap();
    let rig = Rig::new(RealDisk::shared(), top.path());
    (top, rig)
}

#[test]
fn both_engines_lay_out_the_same_bytes_and_leave_the_holes() {
    let (_top, rig) = real();
    let mut summaries = Vec::new();
    for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
        let told = AtomicU64::new(0);
        let each = |bytes| {
            told.fetch_max(bytes, Ordering::Relaxed);
        };
        let summary = rig.restore(io, into, &RestoreOptions::default(), &each).unwrap();
        assert_eq!(told.load(Ordering::Relaxed), summary.bytes_written);
        rig.must_be_equal(into);
        let sparse = std::fs::metadata(rig.top.join(into).join("sparse")).unwrap();
        assert!(sparse.blocks() * 512 <= 4 * BLOCK as u64, "{} blocks allocated", sparse.blocks());
        summaries.push(summary);
    }
    assert_eq!(summaries[0], summaries[1]);
    let blocks: usize = rig.files.iter().take(6).map(|(_, bytes)| bytes.len().div_ceil(BLOCK)).sum();
    assert_eq!(summaries[0].blocks, blocks as u64 + 1);
}

#[test]
fn both_engines_restore_from_and_to_a_simulated_disk() {
    let disk = SimDisk::new();
    let rig = Rig::new(disk.shared(), Path::new("/top"));
    for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
        rig.restore(io, into, &RestoreOptions::default(), &|_| {}).unwrap();
        rig.must_be_equal(into);
    }
}

#[test]
fn a_corrupted_block_stops_both_and_names_backup_file_and_block() {
    let (_top, rig) = real();
    let path = rig.segment();
    let mut bytes = std::fs::read(&path).unwrap();
    // In the payload of a frame near the front: the header of the segment takes the first page.
    bytes[4096 + 2 * BLOCK / 3] ^= 0x10;
    std::fs::write(&path, bytes).unwrap();
    for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
        let e = rig.restore(io, into, &RestoreOptions::default(), &|_| {}).unwrap_err();
        assert!(e.is_damage(), "{e}");
        let Error::Block { backup, file, block, .. } = e else { panic!("{e}") };
        assert_eq!(backup, rig.backup);
        let (_, content) = rig.files.iter().find(|(name, _)| *name == file).unwrap();
        assert!((block as usize) < content.len().div_ceil(BLOCK));
    }
}

#[test]
fn a_segment_that_lost_its_middle_stops_both() {
    let (_top, rig) = real();
    let path = rig.segment();
    let len = std::fs::metadata(&path).unwrap().len();
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; 100_000], len / 2).unwrap();
    for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
        let e = rig.restore(io, into, &RestoreOptions::default(), &|_| {}).unwrap_err();
        assert!(matches!(e, Error::Block { .. }) && e.is_damage(), "{e}");
    }
}

#[test]
fn a_cancelled_restore_ends_soon_with_either_engine() {
    let (_top, rig) = real();
    for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
        let cancel = Arc::new(AtomicBool::new(false));
        let options = RestoreOptions { cancel: Some(Arc::clone(&cancel)), ..RestoreOptions::default() };
        let e = rig.restore(io, into, &options, &|_| cancel.store(true, Ordering::Relaxed)).unwrap_err();
        assert!(matches!(e, Error::Cancelled), "{e}");
    }
}

#[test]
fn one_worker_and_many_finish_alike() {
    let (_top, rig) = real();
    for workers in [1, 16] {
        for io in ENGINES {
            let objects: Arc<dyn Objects> =
                Arc::new(Directory::open(RealDisk::shared(), rig.top.join("repo")).unwrap());
            let open = holdfast_store::OpenOptions { io, workers, ..options() };
            let repository = Repository::open(objects, &secret(), open).unwrap();
            let into = format!("{workers}-{io:?}");
            std::fs::create_dir(rig.top.join(&into)).unwrap();
            let reader = repository.open_backup(rig.backup).unwrap();
            let done =
                reader.restore_into(&RealDisk, &rig.top.join(&into), &|_| {}, &RestoreOptions::default());
            done.unwrap();
            rig.must_be_equal(&into);
        }
    }
}

#[test]
fn a_disk_that_fails_or_fills_up_ends_the_restore_with_its_own_error() {
    for io in ENGINES {
        for (at, fault) in [(0, Fault::Eio), (3, Fault::Enospc), (9, Fault::Eio)] {
            let disk = SimDisk::new();
            let rig = Rig::new(disk.shared(), Path::new("/top"));
            let armed = AtomicBool::new(false);
            // Armed at the first progress, when the session's file is long written: the next writes are the restore's.
            let each = |_| {
                if !armed.swap(true, Ordering::Relaxed) {
                    disk.inject(Some(OpKind::Write), at, fault);
                }
            };
            let e = rig.restore(io, "out", &RestoreOptions::default(), &each).unwrap_err();
            assert_eq!(e.is_no_space(), fault == Fault::Enospc, "{e}");
        }
        for (at, fault) in [(0, Fault::Short), (2, Fault::Eintr)] {
            let disk = SimDisk::new();
            let rig = Rig::new(disk.shared(), Path::new("/top"));
            let armed = AtomicBool::new(false);
            let each = |_| {
                if !armed.swap(true, Ordering::Relaxed) {
                    disk.inject(Some(OpKind::Write), at, fault);
                }
            };
            rig.restore(io, "out", &RestoreOptions::default(), &each).unwrap();
            rig.must_be_equal("out");
        }
    }
}
