//! What a repository promises, on a disk that works.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::failing::Failing;
use common::history::{Files, backup, files, fsck, read};
use common::{
    BLOCK, content, create, create_options, draft, log_record, objects, open, options, position, put_file,
    read_file, secret, spec, stream,
};
use holdfast_format::ids::BackupId;
use holdfast_format::map::SourceState;
use holdfast_format::record::{BackupStats, Record};
use holdfast_io::sim::Crash;
use holdfast_io::{Directory, Disk, ObjectName, Objects, SimDisk};
use holdfast_store::{
    BackupDraft, BackupWriter, BlockKind, Engine, Error, LogKind, LogState, OpenOptions, RecoveryKit,
    Repository, RestoreOptions, Secret,
};

#[test]
fn a_backup_comes_back_as_it_went_in() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let a = content(1, 5 * BLOCK + 100);
    let b = content(2, 300);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "db/a.ibd", &a);
    put_file(&writer, "b", &b);
    let sparse = writer.add_file(spec("db/sparse", 10 * BLOCK as u64)).unwrap();
    writer.put_block(sparse, 3, &vec![0; BLOCK]).unwrap();
    writer.put_block(sparse, 4, &content(3, BLOCK)).unwrap();
    writer.add_file(spec("empty", 0)).unwrap();
    let record = writer.commit(draft()).unwrap();
    assert_eq!(record.stats.files, 4);
    assert_eq!(record.stats.new_blocks, 8);
    assert_eq!(record.fact("version"), Some("9.7.4"));

    let repo = open(&disk).unwrap();
    assert_eq!(repo.backups(), vec![record.clone()]);
    let reader = repo.open_backup(record.id).unwrap();
    let sparse = reader.find(b"db/sparse").unwrap();
    assert_eq!(reader.block_kind(sparse, 2).unwrap(), BlockKind::Hole);
    assert_eq!(reader.block_kind(sparse, 3).unwrap(), BlockKind::Zero);
    let target = SimDisk::new();
    target.create_dir_all(Path::new("/out")).unwrap();
    let summary =
        reader.restore_into(&target, Path::new("/out"), &|_| {}, &RestoreOptions::default()).unwrap();
    assert_eq!(summary.blocks, 8);
    assert_eq!(read_file(&target, Path::new("/out/db/a.ibd")), a);
    assert_eq!(read_file(&target, Path::new("/out/b")), b);
    assert_eq!(read_file(&target, Path::new("/out/empty")), b"");
    let mut expected = vec![0; 10 * BLOCK];
    expected[4 * BLOCK..5 * BLOCK].copy_from_slice(&content(3, BLOCK));
    assert_eq!(read_file(&target, Path::new("/out/db/sparse")), expected);
    let meta = target.metadata(Path::new("/out/db/sparse")).unwrap();
    assert!(meta.allocated <= 2 * BLOCK as u64, "{} bytes allocated", meta.allocated);
}

#[test]
fn unchanged_blocks_are_found_at_the_parent_and_moved_ones_in_the_index() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut bytes = content(1, 20 * BLOCK);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", &bytes);
    let first = writer.commit(draft()).unwrap();
    bytes[5 * BLOCK + 7] ^= 1;
    let writer = repo.begin_backup(Some(first.id)).unwrap();
    put_file(&writer, "a", &bytes);
    put_file(&writer, "copy", &bytes[10 * BLOCK..]);
    let second = writer.commit(draft()).unwrap();
    assert_eq!(second.parent, Some(first.id));
    assert_eq!((second.stats.new_blocks, second.stats.parent_blocks, second.stats.known_blocks), (1, 19, 10));
    let reader = repo.open_backup(second.id).unwrap();
    let mut read = vec![0; bytes.len()];
    assert_eq!(reader.read_at(0, 0, &mut read).unwrap(), bytes.len());
    assert_eq!(read, bytes);
}

#[test]
fn without_room_for_the_index_moved_blocks_are_stored_again_and_nothing_else_changes() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let bytes = content(1, 20 * BLOCK);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", &bytes);
    let first = writer.commit(draft()).unwrap();
    let options = OpenOptions { index_bytes_max: 0, ..common::options() };
    let repo =
        Repository::open(Arc::new(Directory::open(disk.shared(), "/repo").unwrap()), &secret(), options)
            .unwrap();
    let writer = repo.begin_backup(Some(first.id)).unwrap();
    put_file(&writer, "a", &bytes);
    put_file(&writer, "copy", &bytes[10 * BLOCK..]);
    let second = writer.commit(draft()).unwrap();
    assert_eq!((second.stats.new_blocks, second.stats.parent_blocks, second.stats.known_blocks), (10, 20, 0));
    let reader = repo.open_backup(second.id).unwrap();
    let copy = reader.find(b"copy").unwrap();
    let mut read = vec![0; 10 * BLOCK];
    assert_eq!(reader.read_at(copy, 0, &mut read).unwrap(), read.len());
    assert_eq!(read, &bytes[10 * BLOCK..]);
}

#[test]
fn a_file_in_the_same_state_is_taken_from_the_parent_and_any_doubt_has_it_put_again() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let bytes = content(1, 20 * BLOCK + 9);
    let len = bytes.len() as u64;
    let state = |inode| SourceState { inode, modified_ns: 5, changed_ns: 6 };
    let with_states = |parent, how: &dyn Fn(&BackupWriter)| {
        let writer = repo.begin_backup(parent).unwrap();
        how(&writer);
        writer.commit(draft()).unwrap()
    };
    let mut earlier = bytes.clone();
    earlier[3 * BLOCK] ^= 1;
    let zeroth = with_states(None, &|writer| {
        put_file(writer, "a", &earlier);
    });
    // One block of it is a delta.
    let first = with_states(Some(zeroth.id), &|writer| {
        let file = writer.add_file(spec("a", 0)).unwrap();
        assert!(!writer.reuse_file(file, len, state(1)).unwrap(), "the parent knows no state");
        for (block, data) in bytes.chunks(BLOCK).enumerate() {
            writer.put_block(file, block as u32, data).unwrap();
        }
        writer.set_state(file, state(1)).unwrap();
        let sparse = writer.add_file(spec("sparse", 9 * BLOCK as u64)).unwrap();
        writer.put_block(sparse, 4, &vec![0; BLOCK]).unwrap();
        writer.set_state(sparse, state(2)).unwrap();
    });
    assert_eq!(first.stats.delta_blocks, 1);
    let second = with_states(Some(first.id), &|writer| {
        let other = writer.add_file(spec("b", 0)).unwrap();
        assert!(!writer.reuse_file(other, len, state(1)).unwrap(), "another name");
        let file = writer.add_file(spec("a", 0)).unwrap();
        assert!(!writer.reuse_file(file, len - 1, state(1)).unwrap(), "another length");
        assert!(!writer.reuse_file(file, len, state(2)).unwrap(), "another inode");
        assert!(writer.reuse_file(file, len, state(1)).unwrap());
        writer.set_len(file, len).unwrap();
        writer.set_state(file, state(1)).unwrap();
        let sparse = writer.add_file(spec("sparse", 0)).unwrap();
        assert!(writer.reuse_file(sparse, 9 * BLOCK as u64, state(2)).unwrap());
    });
    assert_eq!((second.stats.new_blocks, second.stats.parent_blocks), (0, 21));
    let repo = open(&disk).unwrap();
    let reader = repo.open_backup(second.id).unwrap();
    let mut read = vec![0; bytes.len()];
    let file = reader.find(b"a").unwrap();
    assert_eq!(reader.read_at(file, 0, &mut read).unwrap(), bytes.len());
    assert_eq!(read, bytes);
    let sparse = reader.find(b"sparse").unwrap();
    assert_eq!(reader.block_kind(sparse, 4).unwrap(), BlockKind::Zero);
    assert_eq!(reader.block_kind(sparse, 5).unwrap(), BlockKind::Hole);
    drop(reader);

    // A segment of the parent is lost: what it held is put again, and this backup is whole.
    let places = objects(&disk);
    for name in places.list("segments/").unwrap() {
        if places.len(&name).unwrap() > 2 * BLOCK as u64 {
            places.delete(&name).unwrap();
        }
    }
    let repo = open(&disk).unwrap();
    let writer = repo.begin_backup(Some(second.id)).unwrap();
    let file = writer.add_file(spec("a", 0)).unwrap();
    assert!(!writer.reuse_file(file, len, state(1)).unwrap(), "its blocks are gone");
    for (block, data) in bytes.chunks(BLOCK).enumerate() {
        writer.put_block(file, block as u32, data).unwrap();
    }
    let third = writer.commit(draft()).unwrap();
    let reader = repo.open_backup(third.id).unwrap();
    assert_eq!(reader.read_at(0, 0, &mut read).unwrap(), bytes.len());
    assert_eq!(read, bytes);
}

#[test]
fn a_backup_without_commit_is_nowhere_and_its_segments_are_gone() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", &content(1, 9 * BLOCK));
    writer.barrier().unwrap();
    drop(writer);
    assert!(repo.backups().is_empty());
    assert!(objects(&disk).list("segments/").unwrap().is_empty());
    assert!(objects(&disk).list("sessions/").unwrap().is_empty());
}

#[test]
fn a_wrong_passphrase_is_refused_and_the_kit_opens_without_keyrings() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", b"hello");
    let record = writer.commit(draft()).unwrap();
    let wrong = Repository::open(objects(&disk), &Secret::passphrase("wrong"), common::options());
    assert!(matches!(wrong, Err(Error::WrongSecret)));
    let again = Repository::create(objects(&disk), create_options(), &secret());
    assert!(matches!(again, Err(Error::AlreadyARepository)));

    let text = kit.to_text();
    let kit = RecoveryKit::from_text(&text).unwrap();
    let spoilt = text.replacen('a', "b", 40);
    assert!(RecoveryKit::from_text(&spoilt).is_err());
    let objects = objects(&disk);
    for name in objects.list("keyring/").unwrap() {
        objects.delete(&name).unwrap();
    }
    let repo = Repository::open(objects, &Secret::Kit(kit), common::options()).unwrap();
    let reader = repo.open_backup(record.id).unwrap();
    assert_eq!(reader.read_block(0, 0).unwrap(), b"hello");
}

#[test]
fn both_engines_read_each_others_repositories() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", &content(1, 3 * BLOCK));
    let first = writer.commit(draft()).unwrap();
    let mut options = common::options();
    options.engine = Engine::Portable;
    let portable = Repository::open(objects(&disk), &secret(), options).unwrap();
    assert_eq!(
        portable.open_backup(first.id).unwrap().read_block(0, 2).unwrap(),
        &content(1, 3 * BLOCK)[2 * BLOCK..]
    );
    let writer = portable.begin_backup(Some(first.id)).unwrap();
    put_file(&writer, "a", &content(2, 3 * BLOCK));
    let second = writer.commit(draft()).unwrap();
    assert_eq!(
        open(&disk).unwrap().open_backup(second.id).unwrap().read_block(0, 0).unwrap(),
        &content(2, 3 * BLOCK)[..BLOCK]
    );
}

#[test]
fn a_log_is_readable_while_it_grows_and_after_its_writer_died() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    assert!(matches!(repo.begin_log(stream(), position(4)), Err(Error::StreamBusy)));
    log.append(LogKind::Events, b"one").unwrap();
    log.append(LogKind::Index, b"two").unwrap();
    log.sync().unwrap();
    let other = open(&disk).unwrap();
    let segments = other.logs(stream()).unwrap();
    assert_eq!(segments.len(), 1);
    assert_eq!(segments[0].state, LogState::Open);
    let read = |segment, from| -> Vec<(u32, LogKind, Vec<u8>)> {
        other
            .read_log(segment, from)
            .unwrap()
            .map(|f| f.unwrap())
            .map(|f| (f.slot, f.kind, f.plain))
            .collect()
    };
    let expected = vec![(1, LogKind::Events, b"one".to_vec()), (2, LogKind::Index, b"two".to_vec())];
    assert_eq!(read(&segments[0], 0), expected);
    let (_, mut log) = log.roll(log_record(), position(400)).unwrap();
    log.append(LogKind::Events, b"three").unwrap();
    log.sync().unwrap();
    drop(log);

    let mut log = other.begin_log(stream(), position(800)).unwrap();
    assert_eq!(log.number(), 2);
    let left = log.left_behind().to_vec();
    assert_eq!(left.len(), 1);
    assert_eq!(read(&left[0], 0), vec![(1, LogKind::Events, b"three".to_vec())]);
    log.adopt(&left[0], log_record()).unwrap();
    drop(log);
    let segments = other.logs(stream()).unwrap();
    assert_eq!(segments.iter().map(|s| s.opening.number).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(matches!(segments[0].state, LogState::Sealed(_)));
    assert!(matches!(segments[1].state, LogState::Sealed(_)));
    assert_eq!(read(&segments[0], 2), expected[1..]);
    assert_eq!(other.streams().unwrap(), vec![stream()]);
}

#[test]
fn a_changed_block_is_a_delta_of_the_one_it_replaces_and_the_fifth_of_the_whole_one_below() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut bytes = content(1, 4 * BLOCK + 900);
    let mut made: Vec<(BackupId, Vec<u8>, BackupStats)> = Vec::new();
    for generation in 0..12_usize {
        let writer = repo.begin_backup(made.last().map(|(id, ..)| *id)).unwrap();
        put_file(&writer, "a", &bytes);
        let record = writer.commit(draft()).unwrap();
        made.push((record.id, bytes.clone(), record.stats));
        for at in 0..40 {
            bytes[2 * BLOCK + (at * 977 + generation * 131) % BLOCK] ^= 0x55;
        }
        bytes[4 * BLOCK + generation] ^= 1;
    }
    let deltas: Vec<u64> = made.iter().map(|(.., stats)| stats.delta_blocks).collect();
    assert_eq!(deltas, [0, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2]);
    // What goes back to the bottom is larger than its neighbours, and far from a whole block.
    let stored: Vec<u64> = made.iter().map(|(.., stats)| stats.stored_bytes - stats.parity_bytes).collect();
    assert!(stored.iter().skip(1).all(|bytes| *bytes < stored[0] / 4), "{stored:?}");
    assert!(made.iter().skip(1).all(|(.., stats)| stats.new_blocks == 2 && stats.parent_blocks == 3));
    let repo = open(&disk).unwrap();
    for (id, expected, _) in &made {
        let reader = repo.open_backup(*id).unwrap();
        let target = SimDisk::new();
        target.create_dir_all(Path::new("/out")).unwrap();
        reader.restore_into(&target, Path::new("/out"), &|_| {}, &RestoreOptions::default()).unwrap();
        assert!(read_file(&target, Path::new("/out/a")) == *expected);
        let mut read = vec![0; expected.len()];
        reader.read_at(0, 0, &mut read).unwrap();
        assert!(read == *expected);
    }
    // Nothing to gain: another content at the same place is stored whole.
    let writer = repo.begin_backup(Some(made[11].0)).unwrap();
    put_file(&writer, "a", &content(99, 4 * BLOCK));
    assert_eq!(writer.commit(draft()).unwrap().stats.delta_blocks, 0);
}

/// A repository of some records, whose newest is named by `head/1`; the disk, and what its one backup holds.
fn with_history() -> (SimDisk, BackupId, Files) {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = files(3, 2);
    let id = backup(&repo, None, &made).unwrap();
    while repo.records().len() < 6 {
        repo.lock_backup(id, repo.records().len() as i64).unwrap();
    }
    (disk, id, made)
}

fn repair(objects: &dyn Objects) -> holdfast_fsck::Repaired {
    let secret = holdfast_fsck::Secret::Passphrase(b"correct horse".to_vec());
    let options = holdfast_fsck::RepairOptions { dry_run: false, index_only: false, now_us: 1 };
    holdfast_fsck::repair(objects, &secret, options, &holdfast_fsck::Progress::default()).unwrap()
}

#[test]
fn a_copy_that_the_disk_does_not_give_stops_nothing_and_is_written_anew() {
    let (disk, id, made) = with_history();
    let newest = "0000000000000005";
    let names = ["keyring/0", "keyring/1", "keyring/2", "head/0", "head/1", "manifest/0000000000000000"]
        .map(str::to_owned)
        .into_iter()
        .chain(["manifest", "manifest2"].map(|folder| format!("{folder}/{newest}")));
    for name in names {
        let failing = |disk: &SimDisk| {
            let failing = Failing::new(objects(disk));
            failing.fail(&name, 0..u64::MAX);
            failing
        };
        let image = disk.crash(Crash::Everything);
        let repo = Repository::open(failing(&image), &secret(), options()).unwrap();
        assert_eq!(repo.damage(), None, "{name}");
        assert!(read(&repo, id).unwrap() == made, "{name}");
        let told = repo.bad_copies();
        // A second copy is read only where the first is no good.
        let asked = !name.starts_with("manifest2");
        assert_eq!(told.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), [&*name][usize::from(!asked)..]);
        assert!(told.iter().all(|(_, why)| why.contains("os error 5")), "{told:?}");
        backup(&repo, Some(id), &made).unwrap();
        drop(repo);
        fsck_if(&image, !name.starts_with("keyring") && !name.starts_with("manifest"));

        let image = disk.crash(Crash::Everything);
        let place = failing(&image);
        let repaired = repair(place.as_ref());
        assert!(!repaired.before.clean && repaired.clean(), "{name}\n{}", repaired.text());
        assert_eq!(Repository::open(place, &secret(), options()).unwrap().bad_copies(), [], "{name}");

        // A folder in its place can't be written over, and everything else goes on.
        let image = disk.crash(Crash::Everything);
        let path = Path::new("/repo").join(&name);
        image.shared().remove_file(&path).unwrap();
        image.shared().create_dir(&path).unwrap();
        let repo = open(&image).unwrap();
        assert_eq!((repo.damage(), repo.bad_copies().len()), (None, usize::from(asked)), "{name}");
        assert!(read(&repo, id).unwrap() == made, "{name}");
        let repaired = repair(objects(&image).as_ref()).text();
        assert!(repaired.contains(&format!("{name} stays: it is not a file; move it")), "{repaired}");
    }
}

fn fsck_if(disk: &SimDisk, clean: bool) {
    if clean {
        fsck(&objects(disk), "after an append over it");
    }
}

#[test]
fn a_head_that_the_disk_does_not_give_may_name_the_record_that_no_other_names() {
    let (disk, id, made) = with_history();
    for copy in ["manifest", "manifest2"] {
        assert!(disk.flip_bit(Path::new(&format!("/repo/{copy}/0000000000000005")), 120, 1));
    }
    // Its head names it: damage. Without that head it would be taken for torn; with one that can't be read it is not.
    let place = Failing::new(objects(&disk));
    place.fail("head/1", 0..1);
    let repo = Repository::open(place, &secret(), options()).unwrap();
    assert!(repo.damage().unwrap().contains("record 5"), "{:?}", repo.damage());
    assert!(read(&repo, id).unwrap() == made);
    assert!(matches!(repo.lock_backup(id, 99), Err(Error::ReadOnly { .. })));

    let (disk, id, made) = with_history();
    let place = Failing::new(objects(&disk));
    place.fail("head/0", 0..1);
    place.fail("head/1", 0..1);
    let repo = Repository::open(place, &secret(), options()).unwrap();
    assert!(repo.damage().unwrap().contains("no other head serves"), "{:?}", repo.damage());
    assert!(read(&repo, id).unwrap() == made);
}

#[test]
fn a_damaged_head_may_name_the_record_that_no_other_names() {
    let name = |text: &str| ObjectName::new(text).unwrap();
    let harm = |disk: &SimDisk, head: &str, how: &str| {
        let objects = objects(disk);
        let mut bytes = objects.read(&name(head), 0, 104).unwrap();
        match how {
            "a flip" => bytes[50] ^= 1,
            "cut short" => bytes.truncate(50),
            "empty" => bytes.clear(),
            _ => {
                let other = if head == "head/0" { "head/1" } else { "head/0" };
                bytes = objects.read(&name(other), 0, 104).unwrap();
            }
        }
        objects.replace(&name(head), &bytes).unwrap();
    };
    let (whole, id, made) = with_history();
    for how in ["a flip", "cut short", "empty", "the other's"] {
        // The newest record, which was acknowledged, is bad in both copies, and so is the head that names it.
        let disk = whole.crash(Crash::Everything);
        let copies = ["manifest/0000000000000005", "manifest2/0000000000000005"];
        for copy in copies {
            assert!(disk.flip_bit(&Path::new("/repo").join(copy), 120, 1));
        }
        let kept = |copy: &str| objects(&disk).read(&name(copy), 0, 130).unwrap();
        let kept_before = copies.map(kept);
        harm(&disk, "head/1", how);
        let repo = open(&disk).unwrap();
        assert!(repo.damage().is_some_and(|why| why.contains("record 5")), "{how}: {:?}", repo.damage());
        assert!(read(&repo, id).unwrap() == made, "{how}");
        assert!(matches!(repo.lock_backup(id, 99), Err(Error::ReadOnly { .. })), "{how}");
        drop(repo);
        // A repair takes what is left of it away, says so in the manifest, and others can follow.
        let whole_orphans = objects(&disk).list("segments/").unwrap();
        let repaired = repair(objects(&disk).as_ref());
        let text = repaired.text();
        assert!(
            repaired.clean() && text.contains("record 5 is lost") && text.contains("what it told is lost"),
            "{text}"
        );
        let folder = repaired.quarantine.unwrap();
        for (copy, bytes) in copies.iter().zip(&kept_before) {
            assert!(
                kept(&format!("{folder}{copy}")) == *bytes,
                "{how}: what may be brought back by hand is there"
            );
        }
        assert_eq!(objects(&disk).list("segments/").unwrap(), whole_orphans, "{how}");
        let repo = open(&disk).unwrap();
        let told = repo.records().last().cloned().unwrap();
        assert!(
            matches!(&told.record, Record::Mended(m) if m.what.iter().any(|w| w.contains("neither record 5")))
        );
        assert!((told.number, repo.damage()) == (5, None) && read(&repo, id).unwrap() == made, "{how}");
        repo.lock_backup(id, 99).unwrap();
        drop(repo);
        fsck(&objects(&disk), how);

        // A torn one that was not acknowledged is none the less dropped because the other head is bad: its own names none
        // but the one before.
        let disk = whole.crash(Crash::Everything);
        for copy in ["manifest/0000000000000006", "manifest2/0000000000000006"] {
            assert!(objects(&disk).put_if_absent(&name(copy), &[7; 300]).is_ok());
        }
        harm(&disk, "head/1", how);
        let repo = open(&disk).unwrap();
        assert_eq!((repo.damage(), repo.records().len()), (None, 6), "{how}");
        repo.lock_backup(id, 99).unwrap();
        drop(repo);
        fsck(&objects(&disk), how);

        // By itself it stops nothing: the next append writes it anew, and so does a repair.
        for head in ["head/0", "head/1"] {
            let disk = whole.crash(Crash::Everything);
            harm(&disk, head, how);
            let again = disk.crash(Crash::Everything);
            let repo = open(&disk).unwrap();
            assert_eq!(repo.damage(), None, "{how} {head}");
            assert_eq!(repo.bad_copies().into_iter().map(|(n, _)| n).collect::<Vec<_>>(), [head], "{how}");
            repo.lock_backup(id, 99).unwrap();
            fsck(&objects(&disk), how);
            assert!(open(&disk).unwrap().bad_copies().is_empty(), "{how} {head}");
            let repaired = repair(objects(&again).as_ref());
            assert!(!repaired.before.clean && repaired.clean(), "{how} {head}\n{}", repaired.text());
        }
    }
    // Both: nobody knows how far the records went, until a repair finds their chain whole.
    harm(&whole, "head/0", "a flip");
    harm(&whole, "head/1", "empty");
    let repo = open(&whole).unwrap();
    assert!(repo.damage().is_some_and(|why| why.contains("no other head serves")), "{:?}", repo.damage());
    assert!(read(&repo, id).unwrap() == made);
    drop(repo);
    assert!(repair(objects(&whole).as_ref()).clean());
    open(&whole).unwrap().lock_backup(id, 99).unwrap();
    fsck(&objects(&whole), "after the repair");
}

#[test]
fn who_read_a_record_that_a_repair_took_away_writes_nothing_behind_it() {
    let (disk, id, made) = with_history();
    let before = open(&disk).unwrap();
    for copy in ["manifest/0000000000000005", "manifest2/0000000000000005", "head/1"] {
        assert!(disk.flip_bit(&Path::new("/repo").join(copy), 90, 1));
    }
    assert!(repair(objects(&disk).as_ref()).clean());
    let after = small_records(&disk);
    // Its last record has the number of the repair's own.
    assert_eq!(before.damage(), None);
    let refused = before.lock_backup(id, 99);
    assert!(matches!(&refused, Err(Error::ReadOnly { why }) if why.contains("open it again")), "{refused:?}");
    assert_eq!(small_records(&disk), after);
    assert!(read(&before, id).unwrap() == made);
    drop(before);
    let again = open(&disk).unwrap();
    again.lock_backup(id, 99).unwrap();
    assert_eq!((again.damage(), again.records().len()), (None, 7));
    fsck(&objects(&disk), "in the end");
}

#[test]
fn a_last_record_that_a_head_names_is_missed_when_both_copies_are_gone_and_no_other_takes_its_place() {
    let name = |text: &str| ObjectName::new(text).unwrap();
    let (whole, id, made) = with_history();
    let copies = ["manifest/0000000000000005", "manifest2/0000000000000005"];
    for gone in [true, false] {
        let disk = whole.crash(Crash::Everything);
        for copy in copies {
            if gone {
                objects(&disk).delete(&name(copy)).unwrap();
            } else {
                assert!(disk.flip_bit(&Path::new("/repo").join(copy), 120, 1));
            }
        }
        let repo = open(&disk).unwrap();
        assert!(repo.damage().is_some_and(|why| why.contains("record 5")), "{:?}", repo.damage());
        assert!(matches!(repo.lock_backup(id, 99), Err(Error::ReadOnly { .. })));
        assert!(read(&repo, id).unwrap() == made);
    }
    // Whole, of this repository, behind the same record as the one that was acknowledged: but another one.
    let (disk, other) = (whole.crash(Crash::Everything), whole.crash(Crash::Everything));
    open(&disk).unwrap().lock_backup(id, 99).unwrap();
    open(&other).unwrap().lock_backup(id, 98).unwrap();
    for folder in ["manifest", "manifest2"] {
        let record = name(&format!("{folder}/0000000000000006"));
        let length = objects(&other).len(&record).unwrap();
        let bytes = objects(&other).read(&record, 0, length).unwrap();
        objects(&disk).replace(&record, &bytes).unwrap();
    }
    let repo = open(&disk).unwrap();
    assert_eq!(repo.damage().as_deref(), Some("the head names another record 6 than there is"));
    assert!(matches!(repo.lock_backup(id, 100), Err(Error::ReadOnly { .. })));
}

#[test]
fn facts_of_a_backup_are_in_the_order_of_their_names_and_the_last_of_a_name_counts() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "b", &content(2, 300));
    let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
    let facts = vec![pair("z", "1"), pair("b", "first"), pair("a", "2"), pair("b", "last")];
    let record = writer.commit(BackupDraft { facts, ..draft() }).unwrap();
    assert_eq!(record.facts, [pair("a", "2"), pair("b", "last"), pair("z", "1")]);
    assert_eq!(open(&disk).unwrap().backups(), [record]);
}

/// Names of the copies of records.
fn small_records(disk: &SimDisk) -> Vec<ObjectName> {
    ["manifest/", "manifest2/"].iter().flat_map(|folder| objects(disk).list(folder).unwrap()).collect()
}
