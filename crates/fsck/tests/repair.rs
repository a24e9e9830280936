//! Repair: what parity and copies can bring back comes back to the byte, what they cannot is named and left alone, and
//! nothing is replaced that is not kept.
#![expect(clippy::unwrap_used, reason = "tests, where a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{PASSPHRASE, fsck, noise, repository};
use holdfast_fsck::{Error, Progress, RepairOptions, Repaired, Secret, repair};
use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::Repository;
use holdfast_store::format::record::Record;

const NOW_US: i64 = 1_800_000_000_000_000;

fn run(objects: &dyn Objects, dry_run: bool, index_only: bool) -> Result<Repaired, Error> {
    let options = RepairOptions { dry_run, index_only, now_us: NOW_US };
    repair(objects, &Secret::Passphrase(PASSPHRASE.into()), options, &Progress::default())
}

/// Every object that a reader reads, with its bytes.
fn content(objects: &dyn Objects) -> BTreeMap<String, Vec<u8>> {
    let names = objects.list("").unwrap().into_iter();
    let read = |n: ObjectName| {
        let bytes = objects.read(&n, 0, objects.len(&n).unwrap()).unwrap();
        (n.to_string(), bytes)
    };
    names.map(read).filter(|(n, _)| !n.starts_with("quarantine/") && !n.starts_with("locks/")).collect()
}

fn copy(disk: &SimDisk) -> (SimDisk, Directory) {
    let image = disk.crash(Crash::Everything);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    (image, objects)
}

fn flip(disk: &SimDisk, object: &str, offset: u64) {
    assert!(disk.flip_bit(format!("/repo/{object}").as_ref(), offset, (offset % 8) as u8));
}

/// The object that holds the blocks.
fn data_segment(objects: &dyn Objects) -> ObjectName {
    objects.list("segments/").unwrap().into_iter().max_by_key(|n| objects.len(n).unwrap()).unwrap()
}

#[test]
fn a_repository_without_damage_is_left_as_it_is() {
    let (disk, _) = repository();
    let (_disk, objects) = copy(&disk);
    let before = content(&objects);
    let done = run(&objects, false, false).unwrap();
    assert!(done.clean() && done.plan.steps.is_empty() && done.quarantine.is_none(), "{}", done.text());
    assert!(content(&objects) == before, "{}", done.text());
}

#[test]
fn whatever_has_a_copy_or_parity_comes_back_to_the_byte() {
    let (disk, objects) = repository();
    let whole = content(objects.as_ref());
    for (name, bytes) in &whole {
        let parity = name.starts_with("segments/");
        if !parity
            && !name.starts_with("keyring/")
            && !name.starts_with("manifest")
            && !name.starts_with("head/")
        {
            continue;
        }
        // Header, middle, end; for segments footer, tables and trailer are among every 4,096th byte.
        let step = if parity { 4096 } else { 97 };
        for offset in (0..bytes.len() as u64).step_by(step) {
            let (image, objects) = copy(&disk);
            flip(&image, name, offset + offset / 7 % step.min(bytes.len() - offset as usize) as u64);
            let damaged = content(&objects);
            let planned = run(&objects, true, false).unwrap();
            assert!(
                !planned.clean() && !planned.plan.steps.is_empty(),
                "{name} at {offset}:\n{}",
                planned.text()
            );
            assert!(content(&objects) == damaged, "a dry run changed something");
            let done = run(&objects, false, false).unwrap();
            assert!(done.clean(), "{name} at {offset}:\n{}", done.text());
            let after = content(&objects);
            for (n, bytes) in &whole {
                // Heads move on: the heal itself is a record.
                assert!(
                    n.starts_with("head/") || after[n] == *bytes,
                    "{name} at {offset}: {n} is not as it was"
                );
            }
            let folder = done.quarantine.clone().unwrap();
            let kept = ObjectName::new(format!("{folder}{name}")).unwrap();
            assert!(objects.read(&kept, 0, bytes.len() as u64).unwrap() == damaged[name]);
            if parity {
                let repo = open(&image);
                let healed =
                    repo.records().iter().any(|s| matches!(&s.record, Record::Healed(h) if h.by == "fsck"));
                assert!(healed && repo.damage().is_none(), "{}", done.text());
            }
        }
    }
}

fn open(disk: &SimDisk) -> Repository {
    let objects: Arc<dyn Objects> = Arc::new(Directory::open(disk.shared(), "/repo").unwrap());
    Repository::open(objects, &common::secret(), common::options()).unwrap()
}

#[test]
fn damage_past_parity_stays_named_and_untouched() {
    let (disk, _) = repository();
    let (image, objects) = copy(&disk);
    let name = data_segment(&objects);
    for page in 1..4 {
        flip(&image, name.as_str(), page * 4096 + 9);
    }
    let damaged = content(&objects)[name.as_str()].clone();
    let done = run(&objects, false, false).unwrap();
    let text = done.text();
    assert!(!done.clean() && text.contains("stays") && text.contains("parity for 2 is left"), "{text}");
    assert!(content(&objects)[name.as_str()] == damaged, "{text}");
    let after = done.after.unwrap();
    assert!(after.backups.iter().any(|b| !b.whole && !b.damaged.is_empty()), "{text}");
}

#[test]
fn a_segment_whose_end_is_cut_off_gets_a_new_footer_for_the_frames_that_are_left() {
    let (disk, objects) = repository();
    let name = data_segment(objects.as_ref());
    let whole = fsck(objects.as_ref()).unwrap().counts.frames;
    let bytes = content(objects.as_ref())[name.as_str()].clone();
    // Everything behind the second last frame is gone: footer, parity, trailer.
    let frames =
        bytes.windows(4).enumerate().filter(|(_, w)| w == b"HFfr").map(|(at, _)| at).collect::<Vec<_>>();
    let (_image, objects) = copy(&disk);
    objects.replace(&name, &bytes[..*frames.last().unwrap()]).unwrap();
    assert!(!fsck(&objects).unwrap().clean);
    let done = run(&objects, false, true).unwrap();
    assert!(done.done.iter().any(|d| d.contains("anew")), "{}", done.text());
    let after = done.after.clone().unwrap();
    assert_eq!(after.counts.frames, whole - 1, "{}", done.text());
    // One block is lost, no more, and it is named.
    let lost: Vec<_> = after.backups.iter().filter(|b| !b.whole).flat_map(|b| b.damaged.clone()).collect();
    assert!(!lost.is_empty() && lost.iter().all(|f| *f == lost[0]), "{}", done.text());
    // And what was made is healed by parity from now on.
    let again = run(&objects, true, false).unwrap();
    assert!(again.before.flaws.iter().all(|f| f.object != name.as_str()), "{}", again.text());
}

#[test]
fn a_sealed_log_without_a_trailer_gets_a_detached_footer_and_one_with_a_hole_does_not() {
    let (disk, objects) = repository();
    let log = objects.list("logs/").unwrap().into_iter().find(|n| {
        let len = objects.len(n).unwrap();
        len % 4096 == 0 && objects.read(n, len - 4096, 8).unwrap() == b"HFTRAIL\0"
    });
    let log = log.unwrap();
    let len = objects.len(&log).unwrap();
    let (image, objects) = copy(&disk);
    flip(&image, log.as_str(), len - 4000);
    let done = run(&objects, false, false).unwrap();
    assert!(
        done.clean() && objects.exists(&ObjectName::new(format!("{log}.foot")).unwrap()).unwrap(),
        "{}",
        done.text()
    );
    let frames: usize = {
        let repo = open(&image);
        repo.logs(common::stream()).unwrap().iter().map(|s| repo.read_log(s, 0).unwrap().count()).sum()
    };
    assert_eq!(frames, common::log_frames().iter().map(Vec::len).sum::<usize>());
    let (image, objects) = copy(&disk);
    flip(&image, log.as_str(), len - 4000);
    flip(&image, log.as_str(), 4096 + 200);
    let done = run(&objects, false, false).unwrap();
    assert!(!done.clean() && done.text().contains("no new footer"), "{}", done.text());
}

#[test]
fn orphans_go_to_the_quarantine_unless_somebody_works_or_anything_is_lost() {
    let (disk, _) = repository();
    let orphaned = |image: &SimDisk| {
        // A process that dies in the middle of a backup leaves its segment and its session.
        let repo = open(image);
        let writer = repo.begin_backup(None).unwrap();
        let spec = holdfast_store::FileSpec {
            path: b"x".to_vec(),
            kind: holdfast_store::format::map::FileKind::Regular,
            len: 65_536,
            mode: 0o600,
            mtime_us: 0,
        };
        let file = writer.add_file(spec).unwrap();
        writer.put_block(file, 0, &noise(77, common::BLOCK)).unwrap();
        writer.barrier().unwrap();
        image.crash(Crash::Everything)
    };
    let (image, _) = copy(&disk);
    let image = orphaned(&image);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    assert_eq!(fsck(&objects).unwrap().counts.orphans, 1);
    let before = objects.list("segments/").unwrap();
    // Somebody works: it is condemned and stays.
    let repo = open(&image);
    let busy = repo.begin_backup(None).unwrap();
    let done = run(&objects, false, false).unwrap();
    assert!(done.text().contains("stay for now"), "{}", done.text());
    assert_eq!(objects.list("segments/").unwrap(), before);
    drop(busy);
    let done = run(&objects, false, false).unwrap();
    assert!(done.clean(), "{}", done.text());
    assert_eq!(objects.list("segments/").unwrap().len(), before.len() - 1);
    assert_eq!(fsck(&objects).unwrap().counts.orphans, 0);
    assert!(open(&image).damage().is_none());

    // A record lost in both copies: what it named looks like an orphan, and stays.
    let (image, _) = copy(&disk);
    let image = orphaned(&image);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    for folder in ["manifest", "manifest2"] {
        objects.delete(&ObjectName::new(format!("{folder}/{:016x}", 2)).unwrap()).unwrap();
    }
    let before = content(&objects);
    let done = run(&objects, false, false).unwrap();
    assert!(!done.clean() && done.text().contains("lost a record"), "{}", done.text());
    assert!(content(&objects) == before, "{}", done.text());
}

#[test]
fn a_repair_that_fails_or_dies_at_any_point_loses_nothing() {
    let (disk, objects) = repository();
    let name = data_segment(objects.as_ref());
    let (image, objects) = copy(&disk);
    flip(&image, name.as_str(), 5000);
    flip(&image, "keyring/1", 50);
    flip(&image, "manifest/0000000000000002", 60);
    let base = image.crash(Crash::Everything);
    let start = image.trace_len();
    assert!(run(&objects, false, false).unwrap().clean());
    let mut images = 0;
    let mut walk = image.walk();
    while walk.step() {
        if walk.ops() < start || walk.ops() % 3 > 0 {
            continue;
        }
        for crash in [Crash::Nothing, Crash::Everything, Crash::Random { seed: walk.ops() as u64 }] {
            let found = walk.image(crash);
            let objects = Directory::open(found.shared(), "/repo").unwrap();
            let done = run(&objects, false, false).unwrap();
            assert!(done.clean(), "after {} operations, {crash:?}:\n{}", walk.ops(), done.text());
            images += 1;
        }
    }
    assert!(images > 30, "{images}");
    let mut failures = 0;
    for nth in (0..60).step_by(4) {
        for (kind, fault) in [
            (OpKind::Write, Fault::Enospc),
            (OpKind::Sync, Fault::Eio),
            (OpKind::SyncDir, Fault::Eio),
            (OpKind::Rename, Fault::Eio),
            (OpKind::Remove, Fault::Eio),
        ] {
            let image = base.crash(Crash::Everything);
            image.inject(Some(kind), nth, fault);
            let objects = Directory::open(image.shared(), "/repo").unwrap();
            let first = run(&objects, false, false);
            image.clear_faults();
            failures += u32::from(first.is_err());
            let objects = Directory::open(image.shared(), "/repo").unwrap();
            let done = run(&objects, false, false).unwrap_or_else(|e| panic!("{kind:?} {nth}: {e}"));
            assert!(done.clean(), "{kind:?} {nth}:\n{}", done.text());
        }
    }
    assert!(failures > 5, "{failures}");
}
