//! Pruning through crashes and faults, and with others at work.
//!
//! The trace of backups, forgets, prunes and compactions is cut at each operation, the unsynced tail lost, torn or
//! shuffled; each operation fails once with each error; and another process comes between any two operations. Each
//! time the repository opens, the second reader finds nothing wrong, and every backup that was acknowledged and not
//! forgotten is whole. `HOLDFAST_CRASH_IMAGES=64` tries every image instead of a sample, so many
//! of them shuffled by chance at each moment.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::history::{Files, backup, files, fsck, read, rewrite, thorough, touch};
use common::hooked::Hooked;
use common::{BLOCK, content, create, objects, open, options, secret};
use holdfast_format::ids::BackupId;
use holdfast_io::sim::{Crash, Fault};
use holdfast_io::{Directory, Objects, SimDisk};
use holdfast_store::{Error, Repository};

/// A backup, when it was acknowledged, and when somebody began to forget it.
struct Made {
    acked: usize,
    id: BackupId,
    files: Files,
    forgotten: Option<usize>,
}

#[derive(Default)]
struct History {
    created: Option<usize>,
    made: Vec<Made>,
}

impl History {
    fn back_up(&mut self, disk: &SimDisk, repo: &Repository, files: &Files) -> Result<(), Error> {
        let parent = self.made.last().map(|m| m.id);
        let id = backup(repo, parent, files)?;
        self.made.push(Made { acked: disk.trace_len(), id, files: files.clone(), forgotten: None });
        Ok(())
    }

    fn forget(&mut self, disk: &SimDisk, repo: &Repository, at: usize) -> Result<(), Error> {
        self.made[at].forgotten = Some(disk.trace_len());
        repo.forget(self.made[at].id, "test").map(|_| ())
    }
}

/// Five backups with deltas, three of them forgotten, a prune that deletes, two that compact, one over a carrier.
fn workload(disk: &SimDisk, history: &mut History) -> Result<(), Error> {
    let place: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo")?);
    let (repo, _) = Repository::create(place, common::create_options(), &secret())?;
    history.created = Some(disk.trace_len());
    let mut now = files(1, 4);
    history.back_up(disk, &repo, &now)?;
    touch(&mut now, 1, 5);
    history.back_up(disk, &repo, &now)?;
    touch(&mut now, 1, 6);
    rewrite(&mut now, 2, 7);
    history.back_up(disk, &repo, &now)?;
    history.forget(disk, &repo, 0)?;
    repo.prune(&thorough(), &|_, _| {})?;
    touch(&mut now, 3, 8);
    history.back_up(disk, &repo, &now)?;
    history.forget(disk, &repo, 1)?;
    history.forget(disk, &repo, 2)?;
    repo.prune(&thorough(), &|_, _| {})?;
    rewrite(&mut now, 0, 9);
    history.back_up(disk, &repo, &now)?;
    history.forget(disk, &repo, 3)?;
    repo.prune(&thorough(), &|_, _| {})?;
    Ok(())
}

fn check(image: &SimDisk, history: &History, ops: usize, what: &str) {
    let repo = match open(image) {
        Ok(repo) => repo,
        Err(e) if history.created.is_some_and(|at| at <= ops) => panic!("{what}: does not open: {e}"),
        Err(_) => return,
    };
    assert_eq!(repo.damage(), None, "{what}");
    let listed: Vec<BackupId> = repo.backups().iter().map(|b| b.id).collect();
    for made in &history.made {
        let due = made.acked <= ops && made.forgotten.is_none_or(|at| at >= ops);
        assert!(listed.contains(&made.id) || !due, "{what}: backup {} is lost", made.id);
        if listed.contains(&made.id) {
            let found = read(&repo, made.id).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(found == made.files, "{what}: backup {} differs", made.id);
        }
    }
    fsck(&objects(image), what);
}

/// Whoever comes next prunes on from any state, and nothing is lost by it.
fn go_on(image: &SimDisk, history: &History, ops: usize, what: &str) {
    if history.created.is_none_or(|at| at > ops) {
        return;
    }
    let repo = open(image).unwrap();
    let parent = repo.backups().last().map(|b| b.id);
    let mut files = files(1, 4);
    rewrite(&mut files, 2, 7);
    let id = backup(&repo, parent, &files).unwrap_or_else(|e| panic!("{what}: {e}"));
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!((report.waiting, report.after.dead_bytes), (0, 0), "{what}: {report:?}");
    let again = image.crash(Crash::Nothing);
    assert!(read(&open(&again).unwrap(), id).unwrap() == files, "{what}");
    check(&again, history, ops, what);
}

/// How many images by chance at each moment of a whole run.
fn images_by_chance() -> Option<u64> {
    std::env::var("HOLDFAST_CRASH_IMAGES").ok().map(|text| text.parse().unwrap())
}

#[test]
fn every_crash_of_a_prune_leaves_each_wanted_backup_whole() {
    let all = images_by_chance();
    let disk = SimDisk::new();
    let mut history = History::default();
    workload(&disk, &mut history).unwrap();
    let (mut images, mut walk) = (0_u64, disk.walk());
    while walk.step() {
        let ops = walk.ops();
        for (at, how) in walk.crashes(all.unwrap_or(2)).into_iter().enumerate() {
            // Nothing and everything at each moment; of the others a different one each time.
            if all.is_none() && at > 1 && (at + ops) % 23 != 0 {
                continue;
            }
            let image = walk.image(how);
            let what = format!("after {ops} of {} operations, {how:?}", disk.trace_len());
            check(&image, &history, ops, &what);
            if at < 2 && (all.is_some() || ops % 12 == at) {
                go_on(&image, &history, ops, &what);
            }
            images += 1;
        }
    }
    println!("{images} images of {} operations", disk.trace_len());
    assert!(images > 500, "only {images} images: the trace is too short to mean anything");
}

#[test]
fn when_any_operation_of_a_prune_fails_nothing_wanted_is_lost() {
    let all = images_by_chance().is_some();
    let probe = SimDisk::new();
    workload(&probe, &mut History::default()).unwrap();
    for fault in [Fault::Eio, Fault::Enospc, Fault::Eintr, Fault::Enomem, Fault::Short] {
        for nth in (0..probe.operations()).step_by(if all { 1 } else { 17 }) {
            let disk = SimDisk::new();
            disk.inject(None, nth, fault);
            let mut history = History::default();
            let outcome = workload(&disk, &mut history);
            disk.clear_faults();
            let what = format!("{fault:?} at operation {nth} of {}: {outcome:?}", probe.operations());
            // Forgotten or not: who was told of an error can't know.
            check(&disk.crash(Crash::Nothing), &history, usize::MAX, &what);
            check(&disk, &history, usize::MAX, &what);
            if all || nth % 3 == 0 {
                go_on(&disk.crash(Crash::Everything), &history, usize::MAX, &what);
            }
        }
    }
}

/// A repository with a forgotten backup, and what the next backup holds: a block that only the forgotten one has.
fn contested() -> (SimDisk, Vec<(BackupId, Files)>, Files) {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut now = files(1, 4);
    let first = backup(&repo, None, &now).unwrap();
    let old = now["a"][..BLOCK].to_vec();
    rewrite(&mut now, 0, 50);
    touch(&mut now, 2, 51);
    let second = backup(&repo, Some(first), &now).unwrap();
    let kept = vec![(second, now.clone())];
    repo.forget(first, "test").unwrap();
    // It comes back, in another file: found by its content alone.
    now.insert("back".to_owned(), old);
    now.insert("new".to_owned(), content(99, BLOCK));
    (disk, kept, now)
}

fn open_hooked(hooked: &Arc<Hooked>) -> Repository {
    let place: Arc<dyn Objects> = Arc::clone(hooked) as Arc<dyn Objects>;
    Repository::open(place, &secret(), options()).unwrap()
}

/// The manifest's lock is free: a guest on the same thread would wait for its host for ever.
fn nobody_appends(disk: &SimDisk) -> bool {
    let name = holdfast_io::ObjectName::new("locks/manifest").unwrap();
    objects(disk).try_lock(&name, holdfast_io::LockKind::Exclusive).is_ok_and(|lock| lock.is_some())
}

/// Afterwards everything is whole, and a last prune finds nothing to wait for.
fn settle(disk: &SimDisk, kept: &[(BackupId, Files)], what: &str) {
    for round in 0..2 {
        let repo = open(disk).unwrap();
        for (id, files) in kept {
            let found = read(&repo, *id).unwrap_or_else(|e| panic!("{what}, round {round}: {e}"));
            assert!(found == *files, "{what}, round {round}: {id} differs");
        }
        fsck(&objects(disk), what);
        let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
        assert_eq!((report.waiting, report.after.dead_bytes), (0, 0), "{what}: {report:?}");
    }
}

#[test]
fn a_prune_between_any_two_operations_of_a_backup_takes_nothing_from_it() {
    let mut at = 0;
    loop {
        let (disk, mut kept, now) = contested();
        let parent = kept[0].0;
        let guest = disk.clone();
        let hooked = Hooked::new(objects(&disk), at, move || {
            nobody_appends(&guest) && {
                open(&guest).unwrap().prune(&thorough(), &|_, _| {}).unwrap();
                true
            }
        });
        let repo = open_hooked(&hooked);
        let id = backup(&repo, Some(parent), &now).unwrap();
        if !hooked.came() {
            assert!(at > 40, "only {at} operations");
            break;
        }
        drop(repo);
        kept.push((id, now));
        settle(&disk, &kept, &format!("prune before operation {at} of a backup"));
        at += 1;
    }
}

#[test]
fn a_backup_between_any_two_operations_of_a_prune_loses_nothing() {
    let mut at = 0;
    loop {
        let (disk, mut kept, now) = contested();
        let parent = kept[0].0;
        let (guest, files) = (disk.clone(), now.clone());
        let made = Arc::new(std::sync::Mutex::new(None));
        let answer = Arc::clone(&made);
        let hooked = Hooked::new(objects(&disk), at, move || {
            nobody_appends(&guest) && {
                let repo = open(&guest).unwrap();
                *answer.lock().unwrap() = Some(backup(&repo, Some(parent), &files).unwrap());
                true
            }
        });
        let repo = open_hooked(&hooked);
        repo.prune(&thorough(), &|_, _| {}).unwrap();
        drop(repo);
        if !hooked.came() {
            assert!(at > 60, "only {at} operations");
            break;
        }
        kept.push((made.lock().unwrap().unwrap(), now));
        settle(&disk, &kept, &format!("backup before operation {at} of a prune"));
        at += 1;
    }
}

#[test]
fn a_backup_that_began_before_a_prune_ends_after_it_between_any_two_operations() {
    let mut at = 0;
    loop {
        let (disk, mut kept, now) = contested();
        // It has begun, and has seen the forgotten backup's blocks while they were wanted or condemned.
        let begun = open(&disk).unwrap();
        let writer = begun.begin_backup(Some(kept[0].0)).unwrap();
        common::put_file(&writer, "new", &now["new"]);
        writer.barrier().unwrap();
        let (writer, files) = (std::sync::Mutex::new(Some(writer)), now.clone());
        let made = Arc::new(std::sync::Mutex::new(None));
        let (answer, guest) = (Arc::clone(&made), disk.clone());
        let hooked = Hooked::new(objects(&disk), at, move || {
            nobody_appends(&guest) && {
                let writer = writer.lock().unwrap().take().unwrap();
                for (path, bytes) in files.iter().filter(|(path, _)| *path != "new") {
                    common::put_file(&writer, path, bytes);
                }
                *answer.lock().unwrap() = Some(writer.commit(common::draft()).unwrap().id);
                true
            }
        });
        let repo = open_hooked(&hooked);
        repo.prune(&thorough(), &|_, _| {}).unwrap();
        drop(repo);
        if !hooked.came() {
            assert!(at > 40, "only {at} operations");
            break;
        }
        drop(hooked);
        kept.push((made.lock().unwrap().unwrap(), now));
        settle(&disk, &kept, &format!("end of a backup before operation {at} of a prune"));
        at += 1;
    }
}

/// One writer less when it goes, by a panic too: else the prunes beside it would go on for ever.
struct Leaves<'a>(&'a AtomicU64);

impl Drop for Leaves<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[test]
fn backups_and_prunes_at_once_in_threads_lose_nothing() {
    let seed: u64 = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| {
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos().into()
    });
    println!("SEED={seed} cargo test -p holdfast-store --test prune_crash threads");
    let disk = SimDisk::new();
    create(&disk);
    let (left, prunes) = (AtomicU64::new(2), AtomicU64::new(0));
    let kept: Vec<(BackupId, Files)> = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..2_u64)
            .map(|t| {
                let (disk, left) = (&disk, &left);
                scope.spawn(move || {
                    let _leaves = Leaves(left);
                    let repo = open(disk).unwrap();
                    let mut now = files(seed + 1, 6);
                    let mut kept: Vec<(BackupId, Files)> = Vec::new();
                    for n in 0..12 {
                        // Both threads write the same blocks now and then, and old ones come back.
                        rewrite(&mut now, (n % 6) as usize, seed + (n * 7 + t) % 5);
                        touch(&mut now, ((n + 3) % 6) as usize, seed % 1000 + n);
                        let parent = kept.last().map(|(id, _)| *id);
                        kept.push((backup(&repo, parent, &now).unwrap(), now.clone()));
                        if kept.len() > 2 {
                            repo.forget(kept.remove(0).0, "test").unwrap();
                        }
                        for (id, files) in &kept {
                            assert!(read(&repo, *id).unwrap() == *files, "backup {id} differs");
                        }
                    }
                    kept
                })
            })
            .collect();
        let (disk, left, prunes) = (&disk, &left, &prunes);
        scope.spawn(move || {
            let repo = open(disk).unwrap();
            while left.load(Ordering::SeqCst) > 0 {
                let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
                assert!(report.damaged.is_empty(), "{report:?}");
                prunes.fetch_add(1, Ordering::SeqCst);
            }
        });
        writers.into_iter().flat_map(|w| w.join().unwrap()).collect()
    });
    println!("{} prunes", prunes.load(Ordering::SeqCst));
    settle(&disk, &kept, "at the end");
}
