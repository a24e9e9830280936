//! What a repository promises after any crash, and when any operation fails.
//!
//! A trace of the simulated disk is cut at each operation, the unsynced tail lost, torn or shuffled, and what is found
//! then must open, hold everything that was acknowledged before the cut, whole, and list nothing that isn't whole.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use common::{BLOCK, content, create, draft, log_record, objects, open, position, put_file, stream};
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::Record;
use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{Directory, Objects, SimDisk};
use holdfast_store::{Error, LogKind, LogState, Repository};

/// What was acknowledged, each with the length of the trace when it was.
#[derive(Default)]
struct Acked {
    created: Option<usize>,
    backups: Vec<(usize, BackupId, BTreeMap<String, Vec<u8>>)>,
    logs: Vec<(usize, Vec<u8>)>,
    sealed_logs: Vec<usize>,
}

fn backup(
    repo: &Repository,
    parent: Option<BackupId>,
    files: &BTreeMap<String, Vec<u8>>,
) -> Result<BackupId, Error> {
    let writer = repo.begin_backup(parent)?;
    for (path, bytes) in files {
        let file = writer.add_file(common::spec(path, bytes.len() as u64))?;
        for (block, data) in bytes.chunks(BLOCK).enumerate() {
            writer.put_block(file, block as u32, data)?;
        }
    }
    Ok(writer.commit(draft())?.id)
}

/// The workload: two backups, a sealed log segment, an unsealed one whose writer dies.
fn workload(disk: &SimDisk, acked: &mut Acked) -> Result<(), Error> {
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo")?);
    let (repo, _) = Repository::create(objects, common::create_options(), &common::secret())?;
    acked.created = Some(disk.trace_len());
    let mut files = BTreeMap::new();
    files.insert("a".to_owned(), content(1, 2 * BLOCK + 5));
    files.insert("b/c".to_owned(), content(2, 700));
    let first = backup(&repo, None, &files)?;
    acked.backups.push((disk.trace_len(), first, files.clone()));
    let mut log = repo.begin_log(stream(), position(4))?;
    for n in 0..3_u8 {
        let bytes = vec![n; 100 + usize::from(n)];
        log.append(LogKind::Events, &bytes)?;
        log.sync()?;
        acked.logs.push((disk.trace_len(), bytes));
    }
    let (_, mut log) = log.roll(log_record(), position(400))?;
    acked.sealed_logs.push(disk.trace_len());
    files.insert("a".to_owned(), content(3, 2 * BLOCK + 5));
    let second = backup(&repo, Some(first), &files)?;
    acked.backups.push((disk.trace_len(), second, files));
    for n in 10..13_u8 {
        let bytes = vec![n; 100];
        log.append(LogKind::Events, &bytes)?;
        log.sync()?;
        acked.logs.push((disk.trace_len(), bytes));
    }
    log.append(LogKind::Events, b"never synced")?;
    Ok(())
}

fn read_backup(repo: &Repository, id: BackupId) -> BTreeMap<String, Vec<u8>> {
    let reader = repo.open_backup(id).unwrap();
    let mut files = BTreeMap::new();
    for (number, entry) in reader.files().enumerate() {
        let mut bytes = vec![0; entry.len as usize];
        assert_eq!(reader.read_at(number as u32, 0, &mut bytes).unwrap(), bytes.len());
        files.insert(String::from_utf8(entry.path.clone()).unwrap(), bytes);
    }
    files
}

fn read_logs(repo: &Repository) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for segment in repo.logs(stream()).unwrap() {
        frames.extend(repo.read_log(&segment, 0).unwrap().map(|f| f.unwrap().plain));
    }
    frames
}

/// Checks an image against what was acknowledged when the trace had `ops` operations.
fn check(image: &SimDisk, acked: &Acked, ops: usize, what: &str) {
    let due = |at: usize| at <= ops;
    let repo = match open(image) {
        Ok(repo) => repo,
        Err(e) if acked.created.is_some_and(due) => panic!("{what}: does not open: {e}"),
        Err(_) => {
            // Nothing was promised yet, but whoever tries again must not be stuck.
            let image = image.crash(holdfast_io::sim::Crash::Everything);
            if objects(&image).list("manifest").unwrap().is_empty() {
                Repository::create(objects(&image), common::create_options(), &common::secret())
                    .unwrap_or_else(|e| panic!("{what}: can't be made again: {e}"));
            }
            return;
        }
    };
    assert_eq!(repo.damage(), None, "{what}: damaged");
    let listed: Vec<BackupId> = repo.backups().iter().map(|b| b.id).collect();
    for (at, id, files) in &acked.backups {
        assert!(listed.contains(id) || !due(*at), "{what}: backup {id} is lost");
        if listed.contains(id) {
            assert_eq!(&read_backup(&repo, *id), files, "{what}: backup {id}");
        }
    }
    // Nothing is listed that the workload did not make, nor anything that is not whole.
    for id in listed {
        if !acked.backups.iter().any(|(_, known, _)| *known == id) {
            read_backup(&repo, id);
        }
    }
    let frames = read_logs(&repo);
    let due_frames: Vec<&Vec<u8>> = acked.logs.iter().filter(|(at, _)| due(*at)).map(|(_, b)| b).collect();
    assert!(frames.len() >= due_frames.len(), "{what}: {} of {} frames", frames.len(), due_frames.len());
    assert!(frames.iter().zip(&due_frames).all(|(a, b)| a == *b), "{what}: other frames");
    let sealed =
        repo.logs(stream()).unwrap().iter().filter(|s| matches!(s.state, LogState::Sealed(_))).count();
    assert!(
        sealed >= acked.sealed_logs.iter().filter(|at| due(**at)).count(),
        "{what}: a sealed log is lost"
    );
}

/// After any crash the next process can go on, and nothing of before is lost by it.
fn check_going_on(image: &SimDisk, acked: &Acked, ops: usize, what: &str) {
    if acked.created.is_none_or(|at| at > ops) {
        return;
    }
    let repo = open(image).unwrap();
    let before = read_logs(&repo);
    let files = BTreeMap::from([("new".to_owned(), content(9, BLOCK + 1))]);
    let id = backup(&repo, repo.backups().last().map(|b| b.id), &files).unwrap();
    let mut log = repo.begin_log(stream(), position(800)).unwrap();
    log.append(LogKind::Events, b"after").unwrap();
    log.sync().unwrap();
    // The machine dies now, with all that was not synced.
    let again = image.crash(holdfast_io::sim::Crash::Nothing);
    let repo = open(&again).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(read_backup(&repo, id), files, "{what}");
    let mut expected = before;
    expected.push(b"after".to_vec());
    assert_eq!(read_logs(&repo), expected, "{what}");
    check(&again, acked, ops, what);
}

#[test]
fn every_crash_leaves_what_was_acknowledged_and_nothing_half() {
    let disk = SimDisk::new();
    let mut acked = Acked::default();
    workload(&disk, &mut acked).unwrap();
    let end = disk.trace_len();
    let mut images = 0_u64;
    for ops in 0..=end {
        for (at, how) in disk.crashes_at(ops, 2).into_iter().enumerate() {
            let image = disk.crash_at(ops, how);
            let what = format!("after {ops} of {end} operations, {how:?}");
            check(&image, &acked, ops, &what);
            if at < 2 && ops % 4 == 0 {
                check_going_on(&image, &acked, ops, &what);
            }
            images += 1;
        }
    }
    println!("{images} images of {end} operations");
    assert!(images > 500, "only {images} images: the trace is too short to mean anything");
}

#[test]
fn when_any_operation_fails_nothing_acknowledged_is_lost() {
    let probe = SimDisk::new();
    workload(&probe, &mut Acked::default()).unwrap();
    let operations = probe.operations();
    for fault in [Fault::Eio, Fault::Enospc] {
        for nth in 0..operations {
            let disk = SimDisk::new();
            disk.inject(None, nth, fault);
            let mut acked = Acked::default();
            let outcome = workload(&disk, &mut acked);
            disk.clear_faults();
            let what = format!("{fault:?} at operation {nth} of {operations}: {outcome:?}");
            let image = disk.crash(holdfast_io::sim::Crash::Nothing);
            check(&image, &acked, usize::MAX, &what);
            check(&disk, &acked, usize::MAX, &what);
        }
    }
}

#[test]
fn a_failed_sync_is_never_trusted_afterwards() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    log.append(LogKind::Events, b"kept").unwrap();
    log.sync().unwrap();
    log.append(LogKind::Events, b"lost").unwrap();
    disk.inject(Some(OpKind::Sync), 0, Fault::Eio);
    assert!(log.sync().is_err());
    assert!(log.sync().is_err());
    assert!(log.append(LogKind::Events, b"more").is_err());
    assert!(log.seal(log_record()).is_err());
    let repo = open(&disk.crash(holdfast_io::sim::Crash::Nothing)).unwrap();
    assert_eq!(read_logs(&repo), vec![b"kept".to_vec()]);

    // Who reads before the machine goes down still finds the frame, and gets no error by syncing it: seed 50223 of fsck's
    // simulation had a footer list such a frame, and the power cut took it.
    drop(repo);
    drop(open(&disk).unwrap().begin_log(stream(), position(400)).unwrap());
    let repo = open(&disk.crash(holdfast_io::sim::Crash::Nothing)).unwrap();
    assert_eq!(read_logs(&repo), vec![b"kept".to_vec(), b"lost".to_vec()]);

    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", &content(1, BLOCK));
    disk.inject(Some(OpKind::Sync), 0, Fault::Eio);
    assert!(writer.commit(draft()).is_err());
    assert!(repo.backups().is_empty());
}

#[test]
fn a_torn_last_record_is_dropped_and_its_number_used_again() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let objects = objects(&disk);
    let name = holdfast_io::ObjectName::new("manifest/0000000000000001").unwrap();
    objects.put_if_absent(&name, b"HFMANIF\0 torn").unwrap();
    drop(repo);
    let repo = open(&disk).unwrap();
    assert_eq!(repo.damage(), None);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", b"hello");
    let id = writer.commit(draft()).unwrap().id;
    assert_eq!(open(&disk).unwrap().backups().len(), 1);
    assert_eq!(read_backup(&open(&disk).unwrap(), id)["a"], b"hello");
}

#[test]
fn any_other_flaw_of_the_manifest_opens_read_only_and_hides_no_backup() {
    let records = |n: u64| [format!("/repo/manifest/{n:016x}"), format!("/repo/manifest2/{n:016x}")];
    let made = || {
        let disk = SimDisk::new();
        let (repo, _) = create(&disk);
        let ids: Vec<BackupId> = (0..3)
            .map(|n| backup(&repo, None, &BTreeMap::from([("a".to_owned(), content(n, 900))])).unwrap())
            .collect();
        (disk, ids)
    };
    // One copy bad: nobody notices.
    let (disk, ids) = made();
    assert!(disk.flip_bit(Path::new(&records(2)[0]), 100, 3));
    let repo = open(&disk).unwrap();
    assert_eq!((repo.damage(), repo.backups().len()), (None, 3));
    // Both bad: read-only, the others are there.
    assert!(disk.flip_bit(Path::new(&records(2)[1]), 100, 3));
    let repo = open(&disk).unwrap();
    assert!(repo.damage().is_some());
    assert_eq!(repo.backups().iter().map(|b| b.id).collect::<Vec<_>>(), [ids[0], ids[2]]);
    read_backup(&repo, ids[2]);
    assert!(matches!(repo.begin_backup(None), Err(Error::ReadOnly { .. })));
    // The last one gone, which a head names.
    let (disk, ids) = made();
    for name in records(3) {
        holdfast_io::Disk::remove_file(&disk, Path::new(&name)).unwrap();
    }
    let repo = open(&disk).unwrap();
    assert!(repo.damage().is_some_and(|why| why.contains("record 3")));
    assert_eq!(repo.backups().iter().map(|b| b.id).collect::<Vec<_>>(), ids[..2]);
}

#[test]
fn two_processes_append_at_once_and_lose_nothing() {
    let disk = SimDisk::new();
    create(&disk);
    let threads: Vec<_> = (0..2_u64)
        .map(|t| {
            let disk = disk.clone();
            std::thread::spawn(move || {
                let repo = open(&disk).unwrap();
                (0..8)
                    .map(|n| {
                        let files = BTreeMap::from([("a".to_owned(), content(t * 100 + n, 900))]);
                        backup(&repo, repo.backups().last().map(|b| b.id), &files).unwrap()
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let ids: Vec<BackupId> = threads.into_iter().flat_map(|t| t.join().unwrap()).collect();
    let repo = open(&disk).unwrap();
    assert_eq!(repo.damage(), None);
    assert_eq!(repo.records().len(), 17);
    assert!(repo.records().iter().enumerate().all(|(n, s)| s.number == n as u64));
    for id in ids {
        read_backup(&repo, id);
    }
}

#[test]
fn a_flipped_byte_is_named_with_object_file_and_block() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "db/a.ibd", &content(1, 3 * BLOCK));
    let id = writer.commit(draft()).unwrap().id;
    let kept = objects(&disk);
    for name in kept.list("segments/").unwrap() {
        let len = kept.len(&name).unwrap();
        for at in (0..len).step_by(97) {
            let disk = disk.crash(holdfast_io::sim::Crash::Nothing);
            assert!(disk.flip_bit(&Path::new("/repo").join(name.as_str()), at, (at % 8) as u8));
            let repo = open(&disk).unwrap();
            let read = repo.open_backup(id).and_then(|reader| {
                (0..3).map(|block| reader.read_block(0, block)).collect::<Result<Vec<_>, _>>()
            });
            match read {
                Ok(blocks) => assert_eq!(blocks.concat(), content(1, 3 * BLOCK), "byte {at} of {name}"),
                Err(e) => {
                    assert!(e.is_damage(), "byte {at} of {name}: {e}");
                    if let Error::Block { file, .. } = &e {
                        assert_eq!(file, "db/a.ibd");
                        assert!(e.to_string().contains(name.as_str()), "{e}");
                    }
                }
            }
        }
    }
}

#[test]
fn no_folder_whose_sync_failed_takes_a_backup_with_it() {
    let files = BTreeMap::from([("a".to_owned(), content(1, 700))]);
    let made =
        |disk: &SimDisk| Repository::create(objects(disk), common::create_options(), &common::secret());
    let mut failed = [0, 0];
    for nth in 0..40 {
        // The sync fails while the repository is made, or beneath the first backup.
        for (which, failed) in failed.iter_mut().enumerate() {
            let disk = SimDisk::new();
            disk.shared().create_dir(Path::new("/repo")).unwrap();
            disk.shared().sync_dir(Path::new("/")).unwrap();
            if which == 1 {
                made(&disk).unwrap();
            }
            disk.inject(Some(OpKind::SyncDir), nth, Fault::Eio);
            let first = match which {
                0 => made(&disk).map(drop),
                _ => open(&disk).and_then(|repo| backup(&repo, None, &files)).map(drop),
            };
            disk.clear_faults();
            *failed += u32::from(first.is_err());
            if which == 0 && first.is_err() {
                match made(&disk) {
                    Ok(_) | Err(Error::AlreadyARepository) => {}
                    Err(e) => panic!("{nth}: {e}"),
                }
            }
            let id = backup(&open(&disk).unwrap(), None, &files).unwrap();
            let image = disk.crash(Crash::Nothing);
            let repo = open(&image).unwrap_or_else(|e| panic!("{which}, {nth}: {e}"));
            assert_eq!(repo.damage(), None, "{which}, {nth}");
            let reader = repo.open_backup(id).unwrap_or_else(|e| panic!("{which}, {nth}: {e}"));
            let mut bytes = vec![0; 700];
            reader.read_at(0, 0, &mut bytes).unwrap_or_else(|e| panic!("{which}, {nth}: {e}"));
            assert!(bytes == files["a"], "{which}, {nth}");
        }
    }
    assert!(failed.iter().all(|failed| *failed > 5), "{failed:?}");
}

#[test]
fn a_copy_of_a_record_whose_name_was_not_synced_is_written_anew_before_anything_follows() {
    let record = |n: u8| Record::ServerRemoved { server: ServerId([n; 16]) };
    let mut broken = 0;
    for first in 0..5 {
        for second in 0..5 {
            let disk = SimDisk::new();
            create(&disk);
            // Two processes fail, each at a sync of a folder: they may leave a record that everybody reads.
            for (n, nth) in [(1, first), (2, second)] {
                let repo = open(&disk).unwrap();
                disk.inject(Some(OpKind::SyncDir), nth, Fault::Eio);
                broken += u32::from(repo.append(record(n)).is_err());
                disk.clear_faults();
            }
            let last = open(&disk).unwrap().append(record(3)).unwrap();
            let image = disk.crash(Crash::Nothing);
            let found = open(&image).unwrap();
            assert_eq!(found.damage(), None, "{first}, {second}");
            assert_eq!(found.records().last().map(|s| s.number), Some(last.number), "{first}, {second}");
            let (kept, due) = (objects(&image), last.number as usize + 1);
            for folder in ["manifest/", "manifest2/"] {
                assert_eq!(kept.list(folder).unwrap().len(), due, "{folder} after {first}, {second}");
            }
        }
    }
    assert!(broken > 20, "{broken}");
}

#[test]
fn a_footer_of_a_log_whose_name_was_not_synced_is_written_anew_before_the_log_is_listed() {
    let mut broken = 0;
    for nth in 0..6 {
        let disk = SimDisk::new();
        let (repo, _) = create(&disk);
        let mut log = repo.begin_log(stream(), position(4)).unwrap();
        log.append(LogKind::Events, b"kept").unwrap();
        log.sync().unwrap();
        drop((log, repo));
        let repo = open(&disk).unwrap();
        disk.inject(Some(OpKind::SyncDir), nth, Fault::Eio);
        broken += u32::from(repo.begin_log(stream(), position(400)).is_err());
        disk.clear_faults();
        let mut log = open(&disk).unwrap().begin_log(stream(), position(400)).unwrap();
        for left in log.left_behind().to_vec() {
            log.adopt(&left, log_record()).unwrap();
        }
        let image = disk.crash(Crash::Nothing);
        let found = open(&image).unwrap();
        assert_eq!(read_logs(&found), [b"kept".to_vec()], "{nth}");
        for segment in found.logs(stream()).unwrap() {
            if let LogState::Sealed(_) = segment.state {
                let foot = holdfast_format::names::log_foot(segment.segment);
                assert!(objects(&image).list(&foot).unwrap().len() == 1, "{nth}: {foot} is gone");
            }
        }
    }
    assert!(broken > 2, "{broken}");
}
