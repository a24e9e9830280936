//! The promises of `Objects`, kept by a directory on the real disk and on the simulated one.
#![expect(clippy::unwrap_used, reason = "helpers of tests, where a panic is the report")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{
    Directory, Disk, Entry, Error, File, FreeSpace, Lock, LockKind, Metadata, ObjectName, Objects, Open, Put,
    RealDisk, Result, SimDisk, Wait,
};

fn name(text: &str) -> ObjectName {
    ObjectName::new(text).unwrap()
}

/// Runs a test over both disks.
fn on_both(test: impl Fn(&Directory)) {
    let folder = tempfile::tempdir().unwrap();
    test(&Directory::create(RealDisk::shared(), folder.path().join("repo")).unwrap());
    test(&Directory::create(SimDisk::new().shared(), "/repo").unwrap());
}

#[test]
fn an_object_written_front_to_back_reads_back_and_cannot_be_made_twice() {
    on_both(|objects| {
        let segment = name("segments/00/00000001.seg");
        let mut writer = objects.create(&segment).unwrap();
        let big = vec![7_u8; 700_000];
        writer.write(b"head").unwrap();
        writer.write(&big).unwrap();
        writer.write(b"tail").unwrap();
        writer.sync().unwrap();
        assert_eq!(objects.len(&segment).unwrap(), 700_008);
        writer.write(b"more").unwrap();
        assert_eq!(writer.finish().unwrap(), 700_012);
        assert_eq!(objects.read(&segment, 0, 4).unwrap(), b"head");
        assert_eq!(objects.read(&segment, 700_004, 8).unwrap(), b"tailmore");
        assert_eq!(objects.read(&segment, 4, 700_000).unwrap(), big);
        assert!(matches!(objects.create(&segment), Err(Error::Exists { .. })));
        assert!(matches!(objects.read(&segment, 700_010, 3), Err(Error::ShortRead { got: 2, .. })));
        assert!(matches!(objects.read(&segment, u64::MAX, u64::MAX), Err(Error::ShortRead { .. })));
    });
}

#[test]
fn the_first_put_wins_and_a_replaced_object_has_the_new_bytes() {
    on_both(|objects| {
        let record = name("manifest/0000000001");
        assert_eq!(objects.put_if_absent(&record, b"one").unwrap(), Put::Created);
        assert_eq!(objects.put_if_absent(&record, b"two").unwrap(), Put::Exists);
        assert_eq!(objects.read(&record, 0, 3).unwrap(), b"one");
        objects.replace(&name("head.a"), b"1").unwrap();
        objects.replace(&name("head.a"), b"22").unwrap();
        assert_eq!(objects.read(&name("head.a"), 0, 2).unwrap(), b"22");
        assert_eq!(objects.list("").unwrap(), vec![name("head.a"), record.clone()]);
        assert_eq!(objects.list("manifest/").unwrap(), vec![record.clone()]);
        assert_eq!(objects.list("nothing/here/").unwrap(), vec![]);
        objects.delete(&record).unwrap();
        assert!(matches!(objects.len(&record), Err(Error::NotFound { .. })));
        assert!(matches!(objects.delete(&record), Err(Error::NotFound { .. })));
    });
}

#[test]
fn an_exclusive_lock_keeps_others_out_until_it_is_dropped() {
    on_both(|objects| {
        objects.probe_locks().unwrap();
        let lock = name("locks/manifest");
        assert!(matches!(objects.try_lock(&lock, LockKind::Shared), Err(Error::NotFound { .. })));
        let held = objects.lock(&lock, LockKind::Exclusive, Duration::ZERO).unwrap();
        assert!(objects.try_lock(&lock, LockKind::Shared).unwrap().is_none());
        let busy = objects.lock(&lock, LockKind::Exclusive, Duration::from_millis(20));
        assert!(matches!(busy, Err(Error::LockBusy { .. })));
        drop(held);
        let one = objects.try_lock(&lock, LockKind::Shared).unwrap().unwrap();
        let two = objects.try_lock(&lock, LockKind::Shared).unwrap().unwrap();
        assert!(objects.try_lock(&lock, LockKind::Exclusive).unwrap().is_none());
        drop((one, two));
        assert!(objects.try_lock(&lock, LockKind::Exclusive).unwrap().is_some());
    });
}

#[test]
fn a_session_file_is_locked_from_the_moment_it_can_be_seen() {
    on_both(|objects| {
        let session = name("sessions/01j");
        let alive = objects.put_locked(&session, b"roots", LockKind::Exclusive).unwrap();
        assert!(objects.try_lock(&session, LockKind::Exclusive).unwrap().is_none());
        assert_eq!(objects.read(&session, 0, 5).unwrap(), b"roots");
        assert!(matches!(objects.put_locked(&session, b"x", LockKind::Exclusive), Err(Error::Exists { .. })));
        assert!(objects.try_lock(&session, LockKind::Exclusive).unwrap().is_none());
        drop(alive);
        assert!(objects.try_lock(&session, LockKind::Exclusive).unwrap().is_some());
    });
}

#[test]
fn a_lock_waited_for_is_given_when_the_holder_lets_go() {
    on_both(|objects| {
        let lock = name("lock");
        let held = objects.lock(&lock, LockKind::Exclusive, Duration::ZERO).unwrap();
        std::thread::scope(|scope| {
            let waiter =
                scope.spawn(|| objects.lock(&lock, LockKind::Exclusive, Duration::from_secs(60)).is_ok());
            std::thread::sleep(Duration::from_millis(30));
            drop(held);
            assert!(waiter.join().unwrap());
        });
    });
}

#[test]
fn of_many_racing_puts_exactly_one_creates() {
    on_both(|objects| {
        let wins: usize = std::thread::scope(|scope| {
            let racers: Vec<_> = (0..8_u8)
                .map(|n| scope.spawn(move || objects.put_if_absent(&name("manifest/7"), &[n; 100]).unwrap()))
                .collect();
            racers.into_iter().filter(|_| true).map(|r| usize::from(r.join().unwrap() == Put::Created)).sum()
        });
        assert_eq!(wins, 1);
        let bytes = objects.read(&name("manifest/7"), 0, 100).unwrap();
        assert!(bytes.iter().all(|b| *b == bytes[0]));
    });
}

#[test]
fn names_that_leave_the_folder_or_hide_are_refused() {
    for bad in ["", "/a", "a/", "a//b", "..", "a/../b", ".tmp-1", "A", "a b", "a\0", &"x".repeat(201)] {
        assert!(matches!(ObjectName::new(bad), Err(Error::BadName { .. })), "{bad:?}");
    }
    for good in ["a", "segments/00/0001.seg", "head.a", "x-y_z.0"] {
        assert!(ObjectName::new(good).is_ok(), "{good:?}");
    }
}

#[test]
fn leftovers_of_a_crash_are_no_objects_and_are_swept_unless_alive() {
    let disk = SimDisk::new();
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    objects.put_if_absent(&name("a"), b"a").unwrap();
    disk.inject(Some(OpKind::Rename), 0, Fault::Eio);
    disk.inject(Some(OpKind::Remove), 0, Fault::Eio);
    assert!(objects.put_if_absent(&name("b"), b"b").is_err());
    assert_eq!(objects.disk().list("/repo".as_ref()).unwrap().len(), 2, "the leftover is there");
    assert_eq!(objects.list("").unwrap(), vec![name("a")]);
    assert_eq!(objects.sweep().unwrap(), 1);
    assert_eq!(objects.disk().list("/repo".as_ref()).unwrap().len(), 1);
}

/// A disk on which one folder can't be synced: the system answers with this number.
#[derive(Debug)]
struct NoSync(Arc<dyn Disk>, &'static str, i32);

impl Disk for NoSync {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        self.0.open(path, how)
    }
    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename(from, to)
    }
    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<()> {
        self.0.rename_noreplace(from, to)
    }
    fn remove_file(&self, path: &Path) -> Result<()> {
        self.0.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> Result<()> {
        self.0.remove_dir(path)
    }
    fn create_dir(&self, path: &Path) -> Result<()> {
        self.0.create_dir(path)
    }
    fn list(&self, dir: &Path) -> Result<Vec<Entry>> {
        self.0.list(dir)
    }
    fn sync_dir(&self, dir: &Path) -> Result<()> {
        if dir == Path::new(self.1) {
            return Err(Error::from_io("sync the folder", dir, std::io::Error::from_raw_os_error(self.2)));
        }
        self.0.sync_dir(dir)
    }
    fn metadata(&self, path: &Path) -> Result<Metadata> {
        self.0.metadata(path)
    }
    fn lock(&self, path: &Path, kind: LockKind, wait: Wait) -> Result<Option<Lock>> {
        self.0.lock(path, kind, wait)
    }
    fn free_space(&self, path: &Path) -> Result<FreeSpace> {
        self.0.free_space(path)
    }
}

#[test]
fn a_name_that_cannot_be_made_durable_is_not_settled_and_what_is_further_up_is_no_obstacle() {
    let sim = SimDisk::new();
    Directory::create(sim.shared(), "/a/b/repo").unwrap();
    let settle = |folder, errno| {
        Directory::open(Arc::new(NoSync(sim.shared(), folder, errno)), "/a/b/repo").unwrap().settle()
    };
    let unread = settle("/a/b", libc::EACCES).unwrap_err().to_string();
    assert!(unread.contains("/a/b/repo") && unread.contains("allow this user to read"), "{unread}");
    assert!(settle("/a/b", libc::EIO).is_err());
    let further_up = [libc::EACCES, libc::EINVAL, libc::ENOSYS, libc::EOPNOTSUPP, libc::EROFS];
    for errno in further_up {
        for folder in ["/a", "/"] {
            settle(folder, errno).unwrap_or_else(|e| panic!("{folder}: {e}"));
        }
    }
    assert!(settle("/a", libc::EIO).is_err());
    // Somebody's folder on the way hides nothing: the names above it are synced all the same.
    let above = SimDisk::new();
    for dir in ["/a", "/a/b", "/a/b/repo"] {
        above.shared().create_dir(Path::new(dir)).unwrap();
    }
    above.shared().sync_dir(Path::new("/a")).unwrap();
    let disk = Arc::new(NoSync(above.shared(), "/a", libc::EACCES));
    Directory::open(disk, "/a/b/repo").unwrap().settle().unwrap();
    assert!(above.crash(Crash::Nothing).shared().exists(Path::new("/a/b/repo")).unwrap());
}

#[test]
fn a_sweep_leaves_what_no_writer_names_so() {
    let disk = SimDisk::new();
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    for left in ["/repo/.tmp-mine", "/repo/.tmp-1-2-f"] {
        disk.shared().open(Path::new(left), Open::CreateNew).unwrap();
    }
    assert_eq!(objects.sweep().unwrap(), 1);
    assert!(disk.shared().exists(Path::new("/repo/.tmp-mine")).unwrap());
}

/// What the store will do a thousand times: each acknowledged put survives each crash, and nothing else is ever half there.
#[test]
fn every_acknowledged_put_survives_every_crash_and_no_object_is_ever_half_there() {
    let disk = SimDisk::new();
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    let mut acknowledged = vec![(disk.trace_len(), None)];
    for n in 0..6_u8 {
        objects.put_if_absent(&name(&format!("manifest/{n}")), &vec![n; 5000]).unwrap();
        acknowledged.push((disk.trace_len(), Some(n)));
    }
    let mut images = 0;
    let mut walk = disk.walk();
    while walk.step() {
        let ops = walk.ops();
        if ops < acknowledged[0].0 {
            continue;
        }
        for crash in walk.crashes(20) {
            let found = Directory::open(walk.image(crash).shared(), "/repo").unwrap();
            let seen = found.list("manifest/").unwrap();
            for (at, n) in &acknowledged {
                if let Some(n) = n.filter(|_| *at <= ops) {
                    assert!(
                        seen.contains(&name(&format!("manifest/{n}"))),
                        "lost {n} at {ops} after {crash:?}"
                    );
                }
            }
            for object in seen {
                let n: u8 = object.as_str().trim_start_matches("manifest/").parse().unwrap();
                assert_eq!(found.read(&object, 0, 5000).unwrap(), vec![n; 5000], "at {ops} after {crash:?}");
            }
            images += 1;
        }
    }
    assert!(images > 300, "only {images} images were made");
}

#[test]
fn a_failed_sync_is_never_trusted_again() {
    let disk = SimDisk::new();
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    let mut writer = objects.create(&name("segment")).unwrap();
    writer.write(b"one").unwrap();
    writer.sync().unwrap();
    writer.write(b"two").unwrap();
    disk.inject(Some(OpKind::Sync), 0, Fault::Eio);
    assert!(matches!(writer.sync(), Err(Error::Io { .. })));
    assert!(
        matches!(writer.sync(), Err(Error::Poisoned { .. })),
        "the second sync would succeed and prove nothing"
    );
    assert!(matches!(writer.write(b"x"), Err(Error::Poisoned { .. })));
    // Somebody who does not know better: a sync by another handle succeeds, and the bytes are lost all the same.
    let other = objects.disk().open("/repo/segment".as_ref(), holdfast_io::Open::Write).unwrap();
    other.sync_all().unwrap();
    let found = disk.crash(Crash::Nothing);
    let found = Directory::open(found.shared(), "/repo").unwrap();
    assert_eq!(found.read(&name("segment"), 0, 3).unwrap(), b"one");
    assert_eq!(found.len(&name("segment")).unwrap(), 3);
}

#[test]
fn a_failed_sync_of_a_folder_poisons_the_directory_for_writing() {
    let disk = SimDisk::new();
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    objects.put_if_absent(&name("a"), b"a").unwrap();
    disk.inject(Some(OpKind::SyncDir), 0, Fault::Eio);
    assert!(matches!(objects.put_if_absent(&name("b"), b"b"), Err(Error::Io { .. })));
    assert!(matches!(objects.put_if_absent(&name("c"), b"c"), Err(Error::Poisoned { .. })));
    assert!(matches!(objects.clone().replace(&name("a"), b"c"), Err(Error::Poisoned { .. })));
    assert_eq!(objects.read(&name("a"), 0, 1).unwrap(), b"a");
}

/// C2 of the campaigns: whatever fails, an acknowledged object is there and whole.
#[test]
fn whichever_operation_fails_what_was_acknowledged_stays_and_nothing_is_half_there() {
    let work = |disk: &SimDisk| -> Vec<ObjectName> {
        let mut done = Vec::new();
        let Ok(objects) = Directory::create(disk.shared(), "/repo") else { return done };
        for n in 0..3 {
            let put = name(&format!("manifest/{n}"));
            if objects.put_if_absent(&put, &[5; 9000]).is_ok() {
                done.push(put);
            }
            let made = name(&format!("segments/{n}"));
            let wrote = objects.create(&made).and_then(|mut w| {
                w.write(&[5; 9000])?;
                w.finish()
            });
            if wrote.is_ok() {
                done.push(made);
            }
        }
        done
    };
    let clean = SimDisk::new();
    assert_eq!(work(&clean).len(), 6);
    for nth in 0..clean.operations() {
        for fault in [Fault::Eio, Fault::Enospc, Fault::Eintr, Fault::Short] {
            let disk = SimDisk::new();
            disk.inject(None, nth, fault);
            let done = work(&disk);
            for crash in [Crash::Nothing, Crash::Everything, Crash::Random { seed: nth }] {
                let image = disk.crash(crash);
                image.clear_faults();
                let Ok(found) = Directory::open(image.shared(), "/repo") else {
                    assert!(done.is_empty(), "operation {nth} {fault:?} {crash:?}");
                    continue;
                };
                for object in &done {
                    let got = found.read(object, 0, 9000);
                    assert_eq!(got.unwrap(), [5; 9000], "operation {nth} {fault:?} {crash:?} {object}");
                }
                for object in found.list("manifest/").unwrap() {
                    assert_eq!(
                        found.read(&object, 0, 9000).unwrap(),
                        [5; 9000],
                        "operation {nth} {fault:?} {crash:?}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_full_disk_is_said_as_such() {
    let disk = SimDisk::with_capacity(64 * 1024);
    let objects = Directory::create(disk.shared(), "/repo").unwrap();
    let error = objects.put_if_absent(&name("big"), &vec![1; 100_000]).unwrap_err();
    assert!(error.is_no_space(), "{error}");
    assert!(error.to_string().contains("free some space"));
    assert_eq!(objects.list("").unwrap(), vec![]);
    objects.put_if_absent(&name("small"), &[1; 1000]).unwrap();
}

#[test]
fn a_file_in_place_of_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"x").unwrap();
    let disk: Arc<dyn Disk> = RealDisk::shared();
    assert!(matches!(Directory::open(disk.clone(), &file), Err(Error::Refused { .. })));
    assert!(matches!(Directory::open(disk, folder.path().join("none")), Err(Error::NotFound { .. })));
}

#[test]
fn a_file_made_or_replaced_durably_is_whole_after_every_crash() {
    use holdfast_io::durable::{durable_create, durable_replace};
    let disk = SimDisk::new();
    let path = std::path::Path::new("/config");
    durable_create(&disk, path, &[1; 9000]).unwrap();
    let created = disk.trace_len();
    assert!(matches!(durable_create(&disk, path, b"again"), Err(Error::Exists { .. })));
    durable_replace(&disk, path, &[2; 9000]).unwrap();
    let replaced = disk.trace_len();
    for ops in 0..=replaced {
        for crash in disk.crashes_at(ops, 10) {
            let image = disk.crash_at(ops, crash);
            let found = image.open(path, holdfast_io::Open::Read).ok().map(|file| {
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_exact_at(0, &mut bytes).unwrap();
                bytes
            });
            assert!(found.is_some() || ops < created, "lost at {ops} after {crash:?}");
            assert!(
                found.is_none_or(|b| b == [1; 9000] && ops < replaced || b == [2; 9000]),
                "{ops} {crash:?}"
            );
        }
    }
}

#[test]
fn a_small_file_is_read_whole_and_a_long_one_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("secret");
    std::fs::write(&path, "1234567890").unwrap();
    assert_eq!(RealDisk::read_whole(&path, 10).unwrap(), b"1234567890");
    assert!(matches!(RealDisk::read_whole(&path, 9), Err(Error::Refused { .. })));
    assert!(RealDisk::read_whole(&folder.path().join("none"), 9).unwrap_err().is_not_found());
}

/// A child shares every open file of its parent from the fork until it runs its own program.
#[test]
fn a_lock_that_was_let_go_is_free_at_once_while_children_are_started() {
    let folder = tempfile::tempdir().unwrap();
    let objects = Directory::create(RealDisk::shared(), folder.path().join("repo")).unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let lock = name("locks/one");
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(std::sync::atomic::Ordering::Relaxed) {
                    std::process::Command::new("true").status().unwrap();
                }
            });
        }
        let busy = (0..20_000).filter(|_| objects.lock(&lock, LockKind::Exclusive, Duration::ZERO).is_err());
        let busy = busy.count();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(busy, 0);
    });
}
