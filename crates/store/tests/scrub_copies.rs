//! The scrub and the small objects that are there more than once: keyring, heads, records, packs. Each copy that is missing,
//! unreadable or damaged is written anew from another one, online, and the manifest tells; nothing else is touched.
//!
//! `HOLDFAST_TEST_EVERY=1` crashes and fails at each operation, not at every fifth.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::failing::Failing;
use common::history::{Files, backup, files, fsck, read};
use common::{objects, options, secret};
use holdfast_format::ids::BackupId;
use holdfast_format::record::Record;
use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{ObjectName, Objects, SimDisk};
use holdfast_store::{CreateOptions, Error, OpenOptions, Repository, ScrubOptions, ScrubSummary};

/// Every so many operations one is broken.
fn every() -> u64 {
    std::env::var("HOLDFAST_TEST_EVERY").ok().and_then(|n| n.parse().ok()).unwrap_or(5)
}

/// Packs of three records, so that there are some.
fn packing() -> OpenOptions {
    OpenOptions { pack_records: 3, ..options() }
}

fn open(place: Arc<dyn Objects>) -> Repository {
    Repository::open(place, &secret(), packing()).unwrap()
}

/// A repository of eight records, two packs among them, and its one backup.
fn made() -> (SimDisk, BackupId, Files) {
    let disk = SimDisk::new();
    let create = CreateOptions { open: packing(), ..common::create_options() };
    let (repo, _) = Repository::create(objects(&disk), create, &secret()).unwrap();
    let made = files(3, 1);
    let id = backup(&repo, None, &made).unwrap();
    while repo.records().len() < 8 {
        repo.lock_backup(id, repo.records().len() as i64).unwrap();
    }
    (disk, id, made)
}

fn scrub(repo: &Repository) -> ScrubSummary {
    repo.scrub(ScrubOptions::default(), &|_| true).unwrap()
}

fn small(place: &dyn Objects) -> BTreeMap<String, Vec<u8>> {
    let folders = ["keyring/", "head/", "manifest/", "manifest2/", "packs/"];
    let names = folders.iter().flat_map(|folder| place.list(folder).unwrap());
    names.map(|name| (name.to_string(), place.read(&name, 0, place.len(&name).unwrap()).unwrap())).collect()
}

/// What the manifest says that scrubs wrote anew.
fn told(repo: &Repository) -> Vec<String> {
    let records = repo.records();
    let mended = records.iter().filter_map(|stamped| match &stamped.record {
        Record::Mended(mended) if mended.by == "scrub" => Some(mended.what.clone()),
        _ => None,
    });
    mended.flatten().map(|what| what.split(':').next().unwrap().to_owned()).collect()
}

#[test]
fn a_copy_that_is_missing_unreadable_or_damaged_is_written_anew_from_the_other() {
    let (whole, id, made) = made();
    let right = small(objects(&whole).as_ref());
    for name in right.keys() {
        for how in ["a flip", "a flip in its version", "cut short", "missing", "unreadable"] {
            let what = format!("{name}, {how}");
            let disk = whole.crash(Crash::Everything);
            let (plain, object) = (objects(&disk), ObjectName::new(name.as_str()).unwrap());
            let place = Failing::new(Arc::clone(&plain));
            let before = open(place.clone());
            match how {
                "a flip" => assert!(disk.flip_bit(&Path::new("/repo").join(name), 90, 1)),
                "a flip in its version" => {
                    assert!(disk.flip_bit(&Path::new("/repo").join(name), 8, 2));
                }
                "cut short" => plain.replace(&object, &right[name][..50]).unwrap(),
                "missing" => plain.delete(&object).unwrap(),
                _ => place.fail(name, 0..u64::MAX),
            }
            // A process that had it open before, and one that was opened over the damage.
            let opened = open(place.clone());
            // Who opens without the last pack knows of none, and makes it by an append.
            let unknown =
                how == "missing" && name == right.keys().rfind(|n| n.starts_with("packs/")).unwrap();
            let repo = if how == "a flip" || unknown { &before } else { &opened };
            let done = scrub(repo);
            assert_eq!((&done.renewed, &done.left), (&vec![name.clone()], &vec![]), "{what}: {done:?}");
            for repo in [&before, &opened] {
                repo.refresh().unwrap();
                assert_eq!((repo.damage(), repo.bad_copies()), (None, vec![]), "{what}");
            }
            let after = small(place.as_ref());
            for (n, bytes) in &right {
                // Heads go on; a pack is sealed anew.
                let same =
                    after[n] == *bytes || n.starts_with("head/") || n == name && n.starts_with("packs/");
                assert!(same, "{what}: {n} is not as it was");
            }
            fsck(&plain, &what);
            let again = open(plain);
            assert_eq!(told(&again), std::slice::from_ref(name), "{what}");
            assert!(read(&again, id).unwrap() == made, "{what}");
            assert_eq!(scrub(&again).renewed, Vec::<String>::new(), "{what}");
        }
    }
}

#[test]
fn packs_that_are_missing_between_others_are_made_again_however_many() {
    let (disk, id, made) = made();
    let repo = open(objects(&disk));
    while repo.records().len() < 18 {
        repo.lock_backup(id, repo.records().len() as i64).unwrap();
    }
    let place = objects(&disk);
    let packs = |place: &Arc<dyn Objects>| -> Vec<String> {
        place.list("packs/").unwrap().iter().map(ToString::to_string).collect()
    };
    let all = packs(&place);
    assert_eq!(all.len(), 6);
    for gone in [vec![0], vec![1, 2], vec![0, 2, 3], vec![0, 1, 2, 3, 4]] {
        let gone: Vec<&String> = gone.into_iter().map(|at: usize| &all[at]).collect();
        for name in &gone {
            place.delete(&ObjectName::new(name.as_str()).unwrap()).unwrap();
        }
        let repo = open(Arc::clone(&place));
        let done = scrub(&repo);
        assert!(done.renewed.iter().eq(gone.iter().copied()) && done.left.is_empty(), "{gone:?}: {done:?}");
        assert!(packs(&place).starts_with(&all), "{gone:?}");
        fsck(&place, &format!("{gone:?}"));
        let again = open(Arc::clone(&place));
        assert_eq!(again.records(), repo.records());
        assert_eq!(scrub(&again).renewed, Vec::<String>::new(), "{gone:?}");
        assert!(read(&again, id).unwrap() == made);
    }
}

/// Damages of one object of each kind at once.
fn damage(disk: &SimDisk) {
    let place = objects(disk);
    let name = |text: &str| ObjectName::new(text).unwrap();
    for flipped in ["keyring/1", "head/0", "manifest/0000000000000002", "manifest2/0000000000000007"] {
        assert!(disk.flip_bit(&Path::new("/repo").join(flipped), 90, 1));
    }
    assert!(disk.flip_bit(Path::new("/repo/packs/0000000000000000"), 140, 1));
    place.delete(&name("keyring/2")).unwrap();
    place.delete(&name("manifest2/0000000000000004")).unwrap();
}

#[test]
fn a_crash_at_any_operation_of_it_leaves_a_repository_that_the_next_one_finishes() {
    let (disk, id, made) = made();
    damage(&disk);
    let from = disk.trace_len();
    assert_eq!(scrub(&open(objects(&disk))).renewed.len(), 7);
    let (mut walk, mut images) = (disk.walk(), 0);
    while walk.step() {
        if walk.ops() < from || !(walk.ops() as u64).is_multiple_of(every()) {
            continue;
        }
        for how in [Crash::Nothing, Crash::Everything, Crash::Random { seed: walk.ops() as u64 }] {
            let image = walk.image(how);
            let what = format!("after {} operations, {how:?}", walk.ops());
            let repo = open(objects(&image));
            assert_eq!(repo.damage(), None, "{what}");
            assert!(read(&repo, id).unwrap() == made, "{what}");
            let done = scrub(&repo);
            assert_eq!(done.left, vec![], "{what}");
            fsck(&objects(&image), &what);
            images += 1;
        }
    }
    assert!(images > 20, "{images}");
    eprintln!("{images} images");
}

#[test]
fn when_any_operation_of_it_fails_the_next_one_finishes() {
    let (disk, id, made) = made();
    damage(&disk);
    let base = disk.crash(Crash::Everything);
    let (place, from) = (objects(&base), base.operations());
    scrub(&open(place));
    let end = base.operations() - from;
    let mut failed = 0;
    for nth in (0..end).step_by(every() as usize) {
        // Each kind of fault by turns.
        let fault = if nth % 2 == 0 { Fault::Eio } else { Fault::Enospc };
        let image = disk.crash(Crash::Everything);
        let place = objects(&image);
        image.inject(None, nth, fault);
        let first = Repository::open(place, &secret(), packing())
            .and_then(|repo| repo.scrub(ScrubOptions::default(), &|_| true));
        image.clear_faults();
        failed += u32::from(first.is_err());
        let what = format!("operation {nth} fails: {fault:?}, {first:?}");
        let repo = open(objects(&image));
        assert_eq!(repo.damage(), None, "{what}");
        assert_eq!(scrub(&repo).left, vec![], "{what}");
        assert!(read(&repo, id).unwrap() == made, "{what}");
        fsck(&objects(&image), &what);
    }
    assert!(failed > 5, "{failed} of {end}");
    eprintln!("{end} operations, every {}; {failed} ended the scrub", every());
}

#[test]
fn what_has_no_good_copy_is_named_and_nothing_of_it_is_touched() {
    let (disk, id, made) = made();
    // Record 1 lies in a pack, so the repository opens as if nothing were.
    for copy in ["manifest", "manifest2"] {
        assert!(disk.flip_bit(&Path::new("/repo").join(copy).join("0000000000000001"), 90, 1));
    }
    let folder = Path::new("/repo/keyring/2");
    disk.shared().remove_file(folder).unwrap();
    disk.shared().create_dir(folder).unwrap();
    let before = small(objects(&disk).as_ref());
    let repo = open(objects(&disk));
    assert_eq!(repo.damage(), None);
    let done = scrub(&repo);
    assert_eq!(done.renewed, Vec::<String>::new(), "{done:?}");
    let names: Vec<&str> = done.left.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["keyring/2", "record 1 of the manifest"]);
    let why: Vec<&str> = done.left.iter().map(|(_, why)| why.as_str()).collect();
    assert!(why[0].contains("move it out") && why[1].contains("holdfast-fsck"), "{why:?}");
    let after = small(objects(&disk).as_ref());
    assert!(before.iter().all(|(name, bytes)| name.starts_with("head/") || after[name] == *bytes));
    assert!(read(&repo, id).unwrap() == made);
}

#[test]
fn two_heads_that_cant_be_read_are_left_to_a_repair() {
    let (disk, ..) = made();
    for head in ["head/0", "head/1"] {
        assert!(disk.flip_bit(&Path::new("/repo").join(head), 50, 1));
    }
    let repo = open(objects(&disk));
    let refused = repo.scrub(ScrubOptions::default(), &|_| true);
    assert!(matches!(&refused, Err(Error::ReadOnly { why }) if why.contains("no other head")), "{refused:?}");
}

#[test]
fn a_look_that_is_stopped_writes_nothing_and_is_made_again() {
    let (disk, ..) = made();
    let repo = open(objects(&disk));
    let id = repo.backups()[0].id;
    for n in 0..70 {
        repo.lock_backup(id, 1000 + n).unwrap();
    }
    damage(&disk);
    let stopped = repo.scrub(ScrubOptions::default(), &|_| false).unwrap();
    // The keyring is three objects, and done by then.
    assert_eq!(
        (stopped.renewed, stopped.segments),
        (vec!["keyring/1".to_owned(), "keyring/2".to_owned()], 0)
    );
    // The record that told of it was appended, which renewed its head.
    assert_eq!(scrub(&repo).renewed.len(), 4);
    fsck(&objects(&disk), "in the end");
}

#[test]
fn one_copy_that_cant_be_written_keeps_it_from_nothing_else() {
    let (disk, id, made) = made();
    damage(&disk);
    // The first rename puts its session; the next seven what it writes anew.
    for nth in 1..=7 {
        let image = disk.crash(Crash::Everything);
        let repo = open(objects(&image));
        image.inject(Some(OpKind::Rename), nth, Fault::Eio);
        let done = scrub(&repo);
        let what = format!("rename {nth}: {done:?}");
        assert_eq!((done.left.len(), done.renewed.len(), done.round_over), (1, 6, true), "{what}");
        assert_eq!(told(&repo), done.renewed, "{what}");
        assert!(done.segments > 0 && !done.renewed.contains(&done.left[0].0), "{what}");
        drop(repo);
        let repo = open(objects(&image));
        assert_eq!(scrub(&repo).left, vec![], "{what}");
        assert!(read(&repo, id).unwrap() == made, "{what}");
        fsck(&objects(&image), &what);
    }
}

#[test]
fn a_copy_that_follows_another_record_or_is_gone_is_bad_still() {
    let disk = SimDisk::new();
    let (repo, _) = common::create(&disk);
    let id = backup(&repo, None, &files(3, 1)).unwrap();
    while repo.records().len() < 6 {
        repo.lock_backup(id, repo.records().len() as i64).unwrap();
    }
    drop(repo);
    let other = disk.crash(Crash::Everything);
    for disk in [&disk, &other] {
        let repo = open(objects(disk));
        repo.lock_backup(id, 100).unwrap();
        repo.lock_backup(id, 101).unwrap();
    }
    // Whole, under the same keys, and of another history.
    let name = ObjectName::new("manifest/0000000000000007").unwrap();
    let len = objects(&other).len(&name).unwrap();
    objects(&disk).replace(&name, &objects(&other).read(&name, 0, len).unwrap()).unwrap();
    let repo = open(objects(&disk));
    let bad = || repo.bad_copies().into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!((repo.damage(), bad()), (None, vec![name.to_string()]));
    objects(&disk).delete(&name).unwrap();
    assert_eq!(bad(), [name.to_string()]);
    assert_eq!(scrub(&repo).renewed, [name.to_string()]);
    assert_eq!(bad(), Vec::<String>::new());
    fsck(&objects(&disk), "in the end");
}

#[test]
fn what_cant_be_mended_is_looked_at_once_a_round() {
    let (disk, ..) = made();
    let copy = Path::new("/repo/manifest/0000000000000007");
    disk.shared().remove_file(copy).unwrap();
    disk.shared().create_dir(copy).unwrap();
    let repo = open(objects(&disk));
    let names = |done: &ScrubSummary| done.left.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let asked = Cell::new(0);
    // To the end of the first segment.
    let first = repo.scrub(ScrubOptions::default(), &|progress| {
        asked.set(asked.get() + u32::from(progress.total > 0));
        asked.get() < 3
    });
    let first = first.unwrap();
    assert_eq!((first.segments, first.round_over), (1, false), "{first:?}");
    assert_eq!(names(&first), ["manifest/0000000000000007"]);
    let rest = scrub(&repo);
    assert!(rest.round_over && rest.left.is_empty(), "{rest:?}");
    assert_eq!(names(&scrub(&repo)), ["manifest/0000000000000007"]);
}

#[test]
fn the_look_at_small_copies_keeps_the_rate() {
    let (disk, ..) = made();
    let repo = open(objects(&disk));
    let id = repo.backups()[0].id;
    for n in 0..70 {
        repo.lock_backup(id, 1000 + n).unwrap();
    }
    let (last, naps) = (Cell::new(0), Cell::new(0));
    let options = ScrubOptions { bytes_per_second: Some(1), time_max: None };
    // Who waits asks again before anything more is read.
    let done = repo.scrub(options, &|progress| {
        naps.set(naps.get() + u32::from(progress.total == 0 && progress.bytes == last.get()));
        last.set(progress.bytes);
        progress.total == 0 && naps.get() == 0
    });
    assert_eq!((done.unwrap().segments, naps.get()), (0, 1));
}

/// A disk that gives an error for one copy now may give it the next time: with the other copy rotten, too, an open
/// repository called the record lost, went on without it and wrote nothing more.
#[test]
fn an_error_of_the_disk_beside_a_rotten_copy_is_an_error_and_no_loss() {
    let (whole, id, _) = made();
    let mut refused = 0;
    for rotten in ["manifest", "manifest2"] {
        for nth in 0..12 {
            let disk = whole.crash(Crash::Everything);
            let (before, other) = (open(objects(&disk)), open(objects(&disk)));
            other.lock_backup(id, 1_000).unwrap();
            let number = other.records().len() - 1;
            assert!(disk.flip_bit(Path::new(&format!("/repo/{rotten}/{number:016x}")), 100, 0));
            disk.inject(None, nth, Fault::Eio);
            refused += u32::from(before.refresh().is_err());
            disk.clear_faults();
            before.refresh().unwrap();
            assert_eq!(
                (before.damage(), before.records().len()),
                (None, other.records().len()),
                "{rotten} {nth}"
            );
        }
    }
    assert!(refused > 0, "no error came where it counts");
}
