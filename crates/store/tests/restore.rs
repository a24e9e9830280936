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
use holdfast_format::map::FileKind;
use holdfast_io::sim::{Fault, OpKind};
use holdfast_io::{Directory, Disk, EngineChoice, Objects, Open, RealDisk, SimDisk};
use holdfast_store::{Error, Existing, FileSpec, OpenOptions, Repository, RestoreOptions, RestoreSummary};

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
        self.restore_with(OpenOptions { io, ..common::options() }, into, options, each)
    }

    fn restore_with(
        &self,
        open: OpenOptions,
        into: &str,
        options: &RestoreOptions,
        each: &(dyn Fn(u64) + Sync),
    ) -> Result<RestoreSummary, Error> {
        let objects: Arc<dyn Objects> =
            Arc::new(Directory::open(Arc::clone(&self.disk), self.top.join("repo")).unwrap());
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
        self.segments().pop().unwrap()
    }

    /// All segments, the largest last.
    fn segments(&self) -> Vec<PathBuf> {
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
        found.sort();
        found.into_iter().map(|(_, path)| path).collect()
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

/// Overwrites `len` bytes at `at` with zeros.
fn wipe(path: &Path, at: u64, len: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, &vec![0; len as usize], at).unwrap();
}

#[test]
fn a_damaged_segment_is_read_by_its_parity_and_left_as_it_is() {
    let page = 4096;
    for damage in ["a frame", "the header", "the trailer", "the end", "a stretch", "all of these but the end"]
    {
        let (_top, rig) = real();
        let path = rig.segment();
        let len = std::fs::metadata(&path).unwrap().len();
        let all = damage.starts_with("all");
        if all || damage == "a frame" {
            wipe(&path, page + 2 * BLOCK as u64 / 3, 1);
            wipe(&path, page + 2 * BLOCK as u64 / 3 + 1, 4);
        }
        if all || damage == "the header" {
            wipe(&path, 0, page);
        }
        if all || damage == "the trailer" {
            wipe(&path, len - page, page);
        }
        if damage == "the end" {
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(len - page).unwrap();
        }
        if damage == "a stretch" {
            wipe(&path, len / 2, 20_000);
        }
        let before = std::fs::read(&path).unwrap();
        for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
            let done = rig.restore(io, into, &RestoreOptions::default(), &|_| {});
            let done = done.unwrap_or_else(|e| panic!("{damage}: {e}"));
            assert_eq!(done.healed_segments, 1, "{damage}");
            rig.must_be_equal(into);
        }
        assert!(
            std::fs::read(&path).unwrap() == before,
            "{damage}: a restore writes nothing to the repository"
        );
    }
}

#[test]
fn damage_in_a_delta_is_healed_as_that_in_any_base_of_it() {
    let (_top, rig) = real();
    let mut healed = 0;
    for (n, path) in rig.segments().iter().enumerate() {
        let whole = std::fs::read(path).unwrap();
        let mut bad = whole.clone();
        bad[4096 + 100] ^= 1;
        std::fs::write(path, &bad).unwrap();
        for io in ENGINES {
            let into = format!("{n}-{io:?}");
            let done = rig.restore(io, &into, &RestoreOptions::default(), &|_| {});
            healed += done.unwrap_or_else(|e| panic!("{}: {e}", path.display())).healed_segments;
            rig.must_be_equal(&into);
        }
        std::fs::write(path, &whole).unwrap();
    }
    // The last backup needs three segments of data, one below the other, and one of its map.
    assert_eq!(healed, 4 * ENGINES.len() as u64);
}

#[test]
fn what_is_past_its_parity_stops_both_and_names_backup_file_and_block() {
    let (_top, rig) = real();
    let path = rig.segment();
    let len = std::fs::metadata(&path).unwrap().len();
    wipe(&path, len / 4, len / 4);
    // With one worker, nobody is left to take what is read after its error: once it was told instead of the error.
    for (n, (io, workers)) in ENGINES.into_iter().flat_map(|io| [(io, 1), (io, 2), (io, 1)]).enumerate() {
        let open = OpenOptions { io, workers, ..options() };
        let e = rig.restore_with(open, &n.to_string(), &RestoreOptions::default(), &|_| {}).unwrap_err();
        assert!(e.is_damage(), "{e}");
        let Error::Block { backup, file, block, .. } = e else { panic!("{e}") };
        assert_eq!(backup, rig.backup);
        let (_, content) = rig.files.iter().find(|(name, _)| *name == file).unwrap();
        assert!((block as usize) < content.len().div_ceil(BLOCK));
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
            let open = OpenOptions { io, workers, ..options() };
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

/// What a restore comes to whose disk does this to one of its writes: the one after `at` others from the first progress on,
/// when the session's file is long written. It gives the rig, to look at what was laid out in `out`.
fn restored_in_spite_of(io: EngineChoice, at: u64, fault: Fault) -> Result<Rig, Error> {
    let disk = SimDisk::new();
    let rig = Rig::new(disk.shared(), Path::new("/top"));
    let armed = AtomicBool::new(false);
    let each = |_| {
        if !armed.swap(true, Ordering::Relaxed) {
            disk.inject(Some(OpKind::Write), at, fault);
        }
    };
    rig.restore(io, "out", &RestoreOptions::default(), &each)?;
    Ok(rig)
}

#[test]
fn a_disk_that_fails_or_fills_up_ends_the_restore_with_its_own_error() {
    for io in ENGINES {
        for (at, fault) in [(0, Fault::Eio), (3, Fault::Enospc), (9, Fault::Eio)] {
            // On a busy machine the first progress may be told when hardly a write is left: that says nothing.
            let e = (0..20).find_map(|_| restored_in_spite_of(io, at, fault).err()).unwrap();
            assert_eq!(e.is_no_space(), fault == Fault::Enospc, "{e}");
        }
    }
}

#[test]
fn a_write_that_is_cut_short_or_interrupted_goes_on() {
    for io in ENGINES {
        for (at, fault) in [(0, Fault::Short), (2, Fault::Eintr)] {
            restored_in_spite_of(io, at, fault).unwrap().must_be_equal("out");
        }
    }
}

#[test]
fn modes_times_and_links_come_back_when_asked_for() {
    use std::os::unix::fs::PermissionsExt;
    let top = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> =
        Arc::new(Directory::create(RealDisk::shared(), top.path().join("repo")).unwrap());
    let (repository, _) = Repository::create(objects, create_options(), &secret()).unwrap();
    let writer = repository.begin_backup(None).unwrap();
    let us = 1_600_000_000_123_456;
    let add = |path: &str, kind, mode, len| {
        let path = path.as_bytes().to_vec();
        writer.add_file(FileSpec { path, kind, len, mode, mtime_us: us }).unwrap()
    };
    add("d", FileKind::Directory, 0o500, 0);
    add("d/empty", FileKind::Directory, 0o750, 0);
    let file = add("d/file", FileKind::Regular, 0o444, 3 * BLOCK as u64);
    writer.put_block(file, 1, &content(1, BLOCK)).unwrap();
    add("d/link", FileKind::Symlink { target: b"file".to_vec() }, 0o777, 0);
    add("dangling", FileKind::Symlink { target: b"/no/such/place".to_vec() }, 0o777, 0);
    let record = writer.commit(draft()).unwrap();
    let reader = repository.open_backup(record.id).unwrap();
    for facts in [true, false] {
        let into = top.path().join(format!("{facts}"));
        std::fs::create_dir(&into).unwrap();
        let options = RestoreOptions { facts, ..RestoreOptions::default() };
        let done = reader.restore_into(&RealDisk, &into, &|_| {}, &options).unwrap();
        assert_eq!(done.links_skipped, if facts { 0 } else { 2 });
        for (name, mode) in
            [("d", 0o500), ("d/empty", 0o750), ("d/file", 0o444), ("d/link", 0), ("dangling", 0)]
        {
            let Ok(found) = std::fs::symlink_metadata(into.join(name)) else {
                assert!(!facts && mode == 0, "{name}");
                continue;
            };
            let same_time = (found.mtime(), found.mtime_nsec()) == (1_600_000_000, 123_456_000);
            assert_eq!(same_time, facts, "{name}");
            if mode > 0 {
                assert_eq!(found.permissions().mode() & 0o7777 == mode, facts, "{name}");
            } else {
                let target = std::fs::read_link(into.join(name)).unwrap();
                assert_eq!(
                    target.to_str().unwrap(),
                    if name == "d/link" { "file" } else { "/no/such/place" }
                );
            }
        }
        // So that the folder can be removed by whoever is not root.
        std::fs::set_permissions(into.join("d"), std::fs::Permissions::from_mode(0o700)).unwrap();
    }
    // A link below a link would be made wherever that one leads, so there is no such backup.
    let writer = repository.begin_backup(None).unwrap();
    for (path, target) in [("a", top.path().as_os_str().as_encoded_bytes()), ("a/b", b"x")] {
        let (path, kind) = (path.as_bytes().to_vec(), FileKind::Symlink { target: target.to_vec() });
        writer.add_file(FileSpec { path, kind, len: 0, mode: 0o777, mtime_us: us }).unwrap();
    }
    let refused = writer.commit(draft()).unwrap_err();
    assert!(refused.to_string().contains("lies below what is no folder"), "{refused}");
}

/// A restore that is killed after any number of bytes goes on where it was, and one over an older copy, with files that
/// grew, shrank, came, went or became something else, moves only what differs.
#[test]
fn what_stands_in_the_folder_is_kept_where_it_is_right_and_rewritten_where_it_is_not() {
    let rewritten = || RestoreOptions {
        existing: Existing::Rewritten { keep: vec!["kept".into()] },
        ..RestoreOptions::default()
    };
    let (_top, real) = real();
    let simulated = SimDisk::new();
    let simulated = Rig::new(simulated.shared(), Path::new("/top"));
    for (rig, on) in [(&real, "the real disk"), (&simulated, "the simulated one")] {
        for (into, io) in ["a", "b"].into_iter().zip(ENGINES) {
            let stop_at = 30 * BLOCK as u64;
            let cancel = Arc::new(AtomicBool::new(false));
            let options = RestoreOptions { cancel: Some(Arc::clone(&cancel)), ..rewritten() };
            let stop = |bytes| cancel.store(bytes >= stop_at, Ordering::Relaxed);
            assert!(matches!(rig.restore(io, into, &options, &stop), Err(Error::Cancelled)), "{on}");
            let done = rig.restore(io, into, &rewritten(), &|_| {}).unwrap();
            assert!(done.blocks_kept >= 30, "{on}: {} blocks kept", done.blocks_kept);
            rig.must_be_equal(into);
            let again = rig.restore(io, into, &rewritten(), &|_| {}).unwrap();
            assert_eq!((again.blocks, again.bytes_written), (0, 0), "{on}");
            assert_eq!(again.blocks_kept, done.blocks + done.blocks_kept, "{on}");

            let (disk, into_path) = (rig.disk.as_ref(), rig.top.join(into));
            let at = |name: &str| into_path.join(name);
            let open = |name: &str| disk.open(&at(name), Open::CreateOrOpen).unwrap();
            open("db/t0.ibd").set_len(BLOCK as u64 + 5).unwrap();
            open("db/t1.ibd").write_all_at(900 * BLOCK as u64, b"too long").unwrap();
            open("db/t2.ibd").write_all_at(4 * BLOCK as u64 + 9, b"another byte").unwrap();
            disk.remove_file(&at("db/t3.ibd")).unwrap();
            open("sparse").write_all_at(50 * BLOCK as u64, b"no hole").unwrap();
            open("sparse").write_all_at(7 * BLOCK as u64, b"no zeros").unwrap();
            disk.create_dir_all(&at("db/old/older")).unwrap();
            open("db/old/older/file").write_all_at(0, b"stays not").unwrap();
            open("kept").write_all_at(0, b"stays").unwrap();
            disk.remove_file(&at("db/t4.ibd")).unwrap();
            disk.create_dir_all(&at("db/t4.ibd/is/a")).unwrap();
            let done = rig.restore(io, into, &rewritten(), &|_| {}).unwrap();
            rig.must_be_equal(into);
            let missing = |n: usize| rig.files[n].1.len().div_ceil(BLOCK) as u64;
            // All but the first block of t0, one of t2, all of t3 and t4.
            assert_eq!(done.blocks, missing(0) - 1 + 1 + missing(3) + missing(4), "{on}");
            assert_eq!(common::read_file(disk, &at("kept")), b"stays");
            assert!(!disk.exists(&at("db/old")).unwrap(), "{on}");
        }
    }
    // A link in place of a folder or file is removed, never followed.
    let elsewhere = tempfile::tempdir().unwrap();
    let path = real.top.join("a");
    std::fs::rename(path.join("db"), elsewhere.path().join("db")).unwrap();
    std::os::unix::fs::symlink(elsewhere.path().join("db"), path.join("db")).unwrap();
    std::fs::write(elsewhere.path().join("db/t0.ibd"), b"not ours").unwrap();
    real.restore(EngineChoice::Probe, "a", &rewritten(), &|_| {}).unwrap();
    real.must_be_equal("a");
    assert_eq!(std::fs::read(elsewhere.path().join("db/t0.ibd")).unwrap(), b"not ours");
}
