//! What a repository without damage looks like to the second reader, and what each kind of damage affects.
#![expect(clippy::unwrap_used, reason = "tests, where a panic is the report")]

mod common;

use common::{fsck, repository};
use holdfast_fsck::Error;
use holdfast_io::{Directory, LockKind, ObjectName, Objects, SimDisk};

#[test]
fn a_repository_as_the_store_leaves_it_is_clean() {
    let (_disk, objects) = repository();
    let report = fsck(objects.as_ref()).unwrap();
    assert!(report.clean, "{}", report.text());
    assert_eq!(report.counts.keyrings, 3);
    assert_eq!(report.counts.heads, 2);
    assert_eq!(report.counts.orphans, 0, "{}", report.text());
    assert_eq!(report.backups.len(), 2);
    assert!(report.backups.iter().all(|b| b.whole && b.server == "shop"));
    assert_eq!(report.streams.len(), 1);
    assert_eq!(report.streams[0].segments, 2);
    assert!(report.streams[0].breaks.is_empty());
    let text = report.text();
    assert!(text.contains("clean "), "{text}");
    assert!(text.contains("contiguous"), "{text}");
}

#[test]
fn nothing_a_wrong_passphrase_and_a_dead_keyring_are_told_apart() {
    let disk = SimDisk::new();
    let empty = Directory::create(disk.shared(), "/repo").unwrap();
    assert!(matches!(fsck(&empty), Err(Error::NoRepository { .. })));
    let (disk, objects) = repository();
    let wrong = holdfast_fsck::Secret::Passphrase(b"wrong".to_vec());
    let refused = holdfast_fsck::check(
        objects.as_ref(),
        &wrong,
        holdfast_fsck::Options::default(),
        &holdfast_fsck::Progress::default(),
    );
    let refused = refused.err().unwrap();
    assert_eq!(refused.exit_code(), 12, "{refused}");
    for n in 0..3 {
        assert!(disk.flip_bit(format!("/repo/keyring/{n}").as_ref(), 30, 1));
    }
    let dead = fsck(objects.as_ref()).err().unwrap();
    assert_eq!(dead.exit_code(), 21, "{dead}");
}

#[test]
fn a_damaged_block_names_every_backup_and_file_that_needs_it_and_no_other() {
    let (disk, objects) = repository();
    // The first data segment: its first frame is the first block of shop/orders.ibd, which both backups share.
    let first = first_data_segment(objects.as_ref());
    assert!(disk.flip_bit(format!("/repo/{first}").as_ref(), 4096 + 40, 0));
    let report = fsck(objects.as_ref()).unwrap();
    assert!(!report.clean);
    // A delta in another segment can't be decoded either, and is a flaw of its own. Which of the two names the second
    // backup depends on their random ids.
    let here = report.flaws.iter().any(|f| f.object == first.to_string() && f.offset == Some(4096));
    assert!(here, "{}", report.text());
    let affected = report.flaws.iter().flat_map(|f| f.affects.iter().map(String::as_str));
    let affected: std::collections::BTreeSet<&str> = affected.collect();
    let affected = affected.into_iter().collect::<Vec<_>>().join("\n");
    assert_eq!(affected.matches("shop/orders.ibd").count(), 2, "{affected}");
    assert!(!affected.contains("noise"), "{affected}");
    assert!(report.backups.iter().all(|b| !b.whole && b.damaged == ["shop/orders.ibd"]), "{}", report.text());
}

/// The data segment whose first frame decodes to the first block of the first backup: the one with the most bytes.
fn first_data_segment(objects: &dyn Objects) -> ObjectName {
    objects.list("segments/").unwrap().into_iter().max_by_key(|n| objects.len(n).unwrap()).unwrap()
}

#[test]
fn a_missing_segment_names_what_is_lost() {
    let (_disk, objects) = repository();
    objects.delete(&first_data_segment(objects.as_ref())).unwrap();
    let report = fsck(objects.as_ref()).unwrap();
    assert!(!report.clean);
    assert!(report.backups.iter().all(|b| !b.whole), "{}", report.text());
    assert!(report.text().contains("missing"), "{}", report.text());
}

#[test]
fn a_damaged_sealed_log_names_its_stretch() {
    let (disk, objects) = repository();
    let logs = objects.list("logs/").unwrap();
    for log in logs {
        assert!(disk.flip_bit(format!("/repo/{log}").as_ref(), 4096 + 45, 3));
        let report = fsck(objects.as_ref()).unwrap();
        assert!(!report.clean, "{}", report.text());
        assert!(report.flaws.iter().any(|f| f.object == log.to_string()), "{}", report.text());
        assert!(disk.flip_bit(format!("/repo/{log}").as_ref(), 4096 + 45, 3));
    }
    assert!(fsck(objects.as_ref()).unwrap().clean);
}

#[test]
fn a_record_lost_in_both_copies_is_a_flaw_and_in_one_copy_too() {
    let (_disk, objects) = repository();
    let name = |folder: &str| ObjectName::new(format!("{folder}/{:016x}", 2)).unwrap();
    objects.delete(&name("manifest")).unwrap();
    let report = fsck(objects.as_ref()).unwrap();
    assert!(!report.clean && report.backups.iter().all(|b| b.whole), "{}", report.text());
    objects.delete(&name("manifest2")).unwrap();
    let report = fsck(objects.as_ref()).unwrap();
    assert!(!report.clean && report.text().contains("record 2 is lost"), "{}", report.text());
}

#[test]
fn the_work_of_a_live_session_and_the_leftovers_of_a_dead_one_are_no_damage() {
    let (_disk, objects) = repository();
    let repo =
        holdfast_store::Repository::open(objects.clone(), &common::secret(), common::options()).unwrap();
    let writer = repo.begin_backup(None).unwrap();
    let spec = holdfast_store::FileSpec {
        path: b"x".to_vec(),
        kind: holdfast_store::format::map::FileKind::Regular,
        len: 0,
        mode: 0o600,
        mtime_us: 0,
    };
    let file = writer.add_file(spec).unwrap();
    writer.put_block(file, 0, &common::noise(77, common::BLOCK)).unwrap();
    writer.barrier().unwrap();
    let alive = fsck(objects.as_ref()).unwrap();
    assert!(alive.clean && alive.counts.sessions_alive == 1, "{}", alive.text());
    assert_eq!(alive.counts.orphans, 0);
    // The process dies: the lock goes, everything else stays.
    std::mem::forget(writer);
    assert!(objects.list("sessions/").unwrap().iter().all(|s| objects.try_lock(s, LockKind::Shared).is_ok()));
}
