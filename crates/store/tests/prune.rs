//! What a prune takes, what it leaves, and who may be at work meanwhile.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::collections::BTreeMap;

use common::history::{Files, backup, files, fsck, read, rewrite, thorough, touch};
use common::{BLOCK, content, create, objects, open, options, secret};
use holdfast_format::ids::BackupId;
use holdfast_format::record::Record;
use holdfast_io::SimDisk;
use holdfast_store::{DiscardReason, Error, PruneOptions, Repository};

fn segments(disk: &SimDisk) -> usize {
    objects(disk).list("segments/").unwrap().len()
}

fn all_restore(repo: &Repository, kept: &[(BackupId, Files)], what: &str) {
    for (id, files) in kept {
        assert!(read(repo, *id).unwrap_or_else(|e| panic!("{what}: {e}")) == *files, "{what}: {id} differs");
    }
}

/// Ten backups, each changing two of forty blocks.
fn history(repo: &Repository) -> Vec<(BackupId, Files)> {
    let mut now = files(1, 40);
    let mut made: Vec<(BackupId, Files)> = Vec::new();
    for n in 0..10_u64 {
        if n > 0 {
            touch(&mut now, (n as usize * 7) % 40, n);
            rewrite(&mut now, (n as usize * 11) % 40, 100 + n);
        }
        let parent = made.last().map(|(id, _)| *id);
        made.push((backup(repo, parent, &now).unwrap(), now.clone()));
    }
    made
}

#[test]
fn what_no_kept_backup_needs_goes_and_what_one_needs_stays() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut made = history(&repo);
    // Nothing was forgotten, so nothing goes.
    let report = repo.prune(&PruneOptions { dead_percent_max: 10, ..PruneOptions::default() }, &|_, _| {});
    assert_eq!(report.unwrap().plan.before.dead_bytes, 0);
    for (id, _) in made.drain(..7) {
        repo.forget(id, "test").unwrap();
    }
    let plan = repo.plan_prune(&thorough()).unwrap();
    assert!(plan.before.dead_percent() > 5.0, "{plan:?}");
    assert!(!plan.carry.is_empty() && !plan.discard.is_empty(), "{plan:?}");
    assert_eq!(repo.plan_prune(&thorough()).unwrap(), plan, "a plan changes nothing");
    let before: u64 = sizes(&disk);
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert_eq!(report.plan, plan);
    assert_eq!((report.waiting, report.damaged.len()), (0, 0));
    assert_eq!(report.after.dead_bytes, 0, "{report:?}");
    assert_eq!(before - sizes(&disk), report.bytes_freed());
    all_restore(&repo, &made, "in this process");
    all_restore(&open(&disk).unwrap(), &made, "in another one");
    fsck(&objects(&disk), "after the prune");
    // A second one finds nothing left to do.
    let again = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert!(again.plan.is_empty(), "{:?}", again.plan);
    assert_eq!(again.plan.before, report.after);

    // Life goes on over carried segments: deltas against carried bases, blocks found in them.
    let mut now = made.last().unwrap().1.clone();
    for n in 20..24 {
        touch(&mut now, n % 40, n as u64);
        let id = backup(&repo, made.last().map(|(id, _)| *id), &now).unwrap();
        made.push((id, now.clone()));
        repo.forget(made.remove(0).0, "test").unwrap();
        repo.prune(&thorough(), &|_, _| {}).unwrap();
        all_restore(&open(&disk).unwrap(), &made, "later");
    }
    fsck(&objects(&disk), "at the end");
    for (id, _) in made {
        repo.forget(id, "test").unwrap();
    }
    repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap();
    assert_eq!(segments(&disk), 0);
    fsck(&objects(&disk), "when empty");
}

fn sizes(disk: &SimDisk) -> u64 {
    let objects = objects(disk);
    objects.list("segments/").unwrap().iter().map(|name| objects.len(name).unwrap()).sum()
}

#[test]
fn with_the_defaults_little_dead_space_is_left() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut now = files(1, 60);
    let mut last = backup(&repo, None, &now).unwrap();
    for generation in 0..24_u64 {
        for n in 0..6 {
            rewrite(&mut now, ((generation * 6 + n) * 13 % 60) as usize, 1000 + generation * 10 + n);
        }
        let next = backup(&repo, Some(last), &now).unwrap();
        repo.forget(last, "test").unwrap();
        last = next;
        let report = repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap();
        assert!(report.after.dead_percent() <= 10.0, "generation {generation}: {:?}", report.after);
    }
    assert!(read(&repo, last).unwrap() == now);
    // Small segments do not pile up either.
    assert!(segments(&disk) < 40, "{} segments", segments(&disk));
    fsck(&objects(&disk), "at the end");
}

#[test]
fn a_backup_that_runs_keeps_its_parent_alive_though_it_is_forgotten() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let old = files(1, 8);
    let parent = backup(&repo, None, &old).unwrap();
    let running = open(&disk).unwrap();
    let writer = running.begin_backup(Some(parent)).unwrap();
    repo.forget(parent, "test").unwrap();
    for _ in 0..2 {
        repo.prune(&thorough(), &|_, _| {}).unwrap();
    }
    let mut new = old;
    touch(&mut new, 3, 5);
    for (path, bytes) in &new {
        common::put_file(&writer, path, bytes);
    }
    let record = writer.commit(common::draft()).unwrap();
    assert!(record.stats.parent_blocks > 8, "{:?}", record.stats);
    repo.prune(&thorough(), &|_, _| {}).unwrap();
    all_restore(&repo, &[(record.id, new)], "after the backup");
    fsck(&objects(&disk), "after the backup");
}

#[test]
fn a_backup_that_began_before_may_still_find_blocks_in_condemned_segments() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let one = BTreeMap::from([("x".to_owned(), content(1, 4 * BLOCK))]);
    let first = backup(&repo, None, &one).unwrap();
    let other = backup(&repo, None, &BTreeMap::from([("y".to_owned(), content(2, 4 * BLOCK))])).unwrap();
    // It began while `first` was wanted, and has looked at the repository's blocks.
    let running = open(&disk).unwrap();
    let writer = running.begin_backup(None).unwrap();
    common::put_file(&writer, "y", &content(2, 4 * BLOCK));
    writer.barrier().unwrap();
    repo.forget(first, "test").unwrap();
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert!(report.deleted.is_empty() && report.waiting == 2, "{report:?}");
    // Now it needs what is condemned.
    common::put_file(&writer, "x", &content(1, 4 * BLOCK));
    let record = writer.commit(common::draft()).unwrap();
    assert_eq!(record.stats.known_blocks, 8);
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert!(report.plan.spare.len() == 1, "{report:?}");
    let mut both = one.clone();
    both.insert("y".to_owned(), content(2, 4 * BLOCK));
    all_restore(&repo, &[(record.id, both)], "after all");
    read(&repo, other).unwrap();
    // What was spared is found again by the next one.
    let record = repo.begin_backup(None).map(|writer| {
        common::put_file(&writer, "z", &content(1, 4 * BLOCK));
        writer.commit(common::draft()).unwrap()
    });
    assert_eq!(record.unwrap().stats.known_blocks, 4);
    fsck(&objects(&disk), "after all");
}

#[test]
fn a_reader_that_does_not_know_the_carrier_is_waited_for() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = history(&repo);
    let reading = open(&disk).unwrap();
    let reader = reading.open_backup(made[9].0).unwrap();
    for (id, _) in &made[..9] {
        repo.forget(*id, "test").unwrap();
    }
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert!(report.carried > 0 && report.waiting >= report.carried, "{report:?}");
    assert!(report.deleted.iter().all(|d| d.reason == DiscardReason::Dead), "{report:?}");
    for (number, entry) in reader.files().enumerate() {
        let mut bytes = vec![0; entry.len as usize];
        reader.read_at(number as u32, 0, &mut bytes).unwrap();
        assert!(bytes == made[9].1[std::str::from_utf8(&entry.path).unwrap()]);
    }
    drop(reader);
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert!(report.deleted.iter().all(|d| d.reason == DiscardReason::Carried), "{report:?}");
    assert_eq!((report.waiting, report.after.dead_bytes), (0, 0));
    all_restore(&open(&disk).unwrap(), &made[9..], "at the end");
    fsck(&objects(&disk), "at the end");
}

#[test]
fn a_block_is_never_found_in_a_delta_whose_base_is_gone() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    // A base, a delta of it in a segment that lives on by another block, and then neither is wanted.
    let base = BTreeMap::from([("a".to_owned(), content(1, BLOCK))]);
    let first = backup(&repo, None, &base).unwrap();
    let mut changed = base.clone();
    touch(&mut changed, 0, 9);
    changed.insert("b".to_owned(), content(2, BLOCK));
    let second = backup(&repo, Some(first), &changed).unwrap();
    assert_eq!(repo.backup(second).unwrap().stats.delta_blocks, 1);
    let third = BTreeMap::from([("b".to_owned(), content(2, BLOCK))]);
    let third_id = backup(&repo, Some(second), &third).unwrap();
    repo.forget(first, "test").unwrap();
    repo.forget(second, "test").unwrap();
    // Nothing is compacted, so the delta stays where it is, dead, and its base goes.
    let report =
        repo.prune(&PruneOptions { dead_percent_max: 100, ..PruneOptions::default() }, &|_, _| {}).unwrap();
    assert!(report.carriers == 0 && report.deleted.len() >= 2, "{report:?}");
    fsck(&objects(&disk), "with a dead delta without its base");
    let again = backup(&repo, Some(third_id), &changed).unwrap();
    assert_eq!(repo.backup(again).unwrap().stats.new_blocks, 1);
    all_restore(&repo, &[(again, changed), (third_id, third)], "again");
    fsck(&objects(&disk), "again");
}

#[test]
fn what_dead_processes_left_goes_and_what_live_ones_write_stays() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let kept = backup(&repo, None, &files(1, 3)).unwrap();
    let writer = repo.begin_backup(None).unwrap();
    common::put_file(&writer, "a", &content(5, 2 * BLOCK));
    writer.barrier().unwrap();
    // The machine dies: the session's object and its segment stay.
    let disk = disk.crash(holdfast_io::sim::Crash::Everything);
    drop(writer);
    let repo = open(&disk).unwrap();
    let before = segments(&disk);
    let live = repo.begin_backup(None).unwrap();
    common::put_file(&live, "b", &content(6, 2 * BLOCK));
    live.barrier().unwrap();
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert_eq!(report.plan.dead_sessions, 1);
    assert_eq!(report.waiting, 1, "{report:?}");
    assert_eq!(objects(&disk).list("sessions/").unwrap().len(), 1);
    live.commit(common::draft()).unwrap();
    let report = repo.prune(&thorough(), &|_, _| {}).unwrap();
    assert_eq!(report.deleted.len(), 1, "{report:?}");
    assert_eq!(segments(&disk), before - 1 + 2);
    assert!(objects(&disk).list("sessions/").unwrap().is_empty());
    read(&repo, kept).unwrap();
    fsck(&objects(&disk), "afterwards");
}

#[test]
fn a_locked_backup_is_not_forgotten_and_grace_keeps_what_was() {
    use holdfast_store::{Clock, FixedClock};
    use std::sync::Arc;
    let disk = SimDisk::new();
    create(&disk);
    let clock = Arc::new(FixedClock::new(1_000_000));
    let mut options = common::options();
    options.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    let repo = Repository::open(objects(&disk), &secret(), options).unwrap();
    let id = backup(&repo, None, &files(1, 3)).unwrap();
    repo.lock_backup(id, 5_000_000).unwrap();
    repo.lock_backup(id, 2_000_000).unwrap();
    assert_eq!(repo.locked_until(id), Some(5_000_000));
    assert!(matches!(repo.forget(id, "x"), Err(Error::Locked { until_us: 5_000_000, .. })));
    // Somebody with another program forgets it all the same: its blocks stay.
    repo.append(holdfast_format::record::Record::BackupForgotten { backup: id, reason: "theft".to_owned() })
        .unwrap();
    assert!(repo.prune(&thorough(), &|_, _| {}).unwrap().deleted.is_empty());
    clock.set(5_000_001);
    let mut options = PruneOptions { grace_us: 10_000_000, ..thorough() };
    assert!(repo.prune(&options, &|_, _| {}).unwrap().deleted.is_empty());
    options.grace_us = 1_000_000;
    assert_eq!(repo.prune(&options, &|_, _| {}).unwrap().deleted.len(), 2);
    // What is gone is not asked for by a longer grace, nor by a clock that goes back behind the lock's end.
    options.grace_us = 10_000_000;
    assert!(repo.prune(&options, &|_, _| {}).unwrap().deleted.is_empty());
    clock.set(3_000_000);
    assert!(repo.prune(&options, &|_, _| {}).unwrap().deleted.is_empty());
}

#[test]
fn a_second_prune_at_once_is_refused_and_a_damaged_map_stops_it() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let id = backup(&repo, None, &files(1, 3)).unwrap();
    let name = holdfast_io::ObjectName::new("locks/prune").unwrap();
    let held = objects(&disk).lock(&name, holdfast_io::LockKind::Shared, std::time::Duration::ZERO).unwrap();
    assert!(matches!(repo.prune(&thorough(), &|_, _| {}), Err(Error::PruneBusy)));
    drop(held);
    let map = repo.backup(id).unwrap().map.segment;
    // So much of it that no parity brings it back.
    let map = format!("segments/{map}");
    let len = objects(&disk).len(&holdfast_io::ObjectName::new(map.as_str()).unwrap()).unwrap();
    for at in (4096..len).step_by(512) {
        assert!(disk.flip_bit(std::path::Path::new(&format!("/repo/{map}")), at, 1));
    }
    let before = segments(&disk);
    let error = open(&disk).unwrap().prune(&thorough(), &|_, _| {}).unwrap_err();
    assert!(error.is_damage(), "{error}");
    assert_eq!(segments(&disk), before);
}

#[test]
fn a_re_encryption_condemns_no_segment_that_is_needed_however_small() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut made = Vec::new();
    for n in 0..20 {
        let files = BTreeMap::from([("a".to_owned(), content(n, 900))]);
        made.push((backup(&repo, made.last().map(|(id, _)| *id), &files).unwrap(), files));
    }
    // A prune puts them together; where nothing is to be compacted, it leaves them.
    assert!(!repo.plan_prune(&PruneOptions::default()).unwrap().carry.is_empty());
    let nothing = PruneOptions { dead_percent_max: 100, ..PruneOptions::default() };
    assert!(repo.plan_prune(&nothing).unwrap().carry.is_empty());
    let before = segments(&disk);
    drop(repo);
    let report = Repository::rekey(objects(&disk), &[secret()], options(), &|_| true).unwrap();
    assert!(report.finished && segments(&disk) == before, "{report:?}");
    let repo = open(&disk).unwrap();
    let condemned = repo.records().iter().any(|s| matches!(s.record, Record::SegmentsCondemned { .. }));
    assert!(!condemned, "{:?}", repo.records());
    all_restore(&repo, &made, "after it");
    fsck(&objects(&disk), "after it");
}
