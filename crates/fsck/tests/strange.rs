//! Objects that are somebody else's, somewhere else's, from another time or of another version: each is refused or
//! reported by its name, by the store and by the second reader, and no backup ever comes back with other bytes.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests, where a panic is the report"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use std::sync::Arc;

use common::fsck;
use holdfast_io::sim::Crash;
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::{Error, Repository};
use world::{World, read_backup};

/// A world with three backups and two stretches of log.
fn made(seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..3 {
        world.back_up(true).unwrap();
        world.append().unwrap();
        world.seal().unwrap();
    }
    world
}

fn bytes(objects: &dyn Objects, name: &ObjectName) -> Vec<u8> {
    objects.read(name, 0, objects.len(name).unwrap()).unwrap()
}

fn names(objects: &dyn Objects) -> Vec<ObjectName> {
    let mut all = objects.list("").unwrap();
    all.retain(|n| objects.len(n).unwrap() > 0 && !n.as_str().starts_with("locks/"));
    all
}

/// Right bytes or an error; gives whether everything is right.
fn never_wrong(world: &World, image: &SimDisk, label: &str) -> bool {
    let objects: Arc<dyn Objects> = Arc::new(Directory::open(image.shared(), "/repo").unwrap());
    let repo = match Repository::open(objects, &common::secret(), common::options()) {
        Ok(repo) => repo,
        Err(e) => {
            assert!(e.is_damage() || matches!(e, Error::WrongSecret), "{label}: {e}");
            return false;
        }
    };
    let mut right = repo.damage().is_none();
    for (id, files) in &world.backups {
        match read_backup(&repo, *id) {
            Ok(read) => assert!(read == *files, "{label}: backup {id} has other bytes"),
            Err(e) => {
                assert!(e.is_damage() || matches!(e, Error::NoBackup { .. }), "{label}: {e}");
                right = false;
            }
        }
    }
    right
}

/// With this object in place of that one: the second reader names it, and nothing wrong is handed out.
fn with(world: &World, name: &ObjectName, content: &[u8], what: &str) {
    let image = world.disk.crash(Crash::Everything);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    if bytes(&objects, name) == content {
        return;
    }
    objects.replace(name, content).unwrap();
    let label = format!("{what} in place of {name}");
    never_wrong(world, &image, &label);
    match fsck(&objects) {
        Err(e) => panic!("{label}: {e}"),
        Ok(report) => {
            let last = name.as_str().rsplit('/').next().unwrap();
            assert!(!report.clean && report.text().contains(last), "{label}:\n{}", report.text());
        }
    }
}

#[test]
fn an_object_in_the_place_of_another_is_named() {
    let world = made(3);
    let objects = world.objects();
    let all = names(objects.as_ref());
    for pair in all.windows(2) {
        let folder = |n: &ObjectName| n.as_str().split('/').next().unwrap().to_owned();
        // The three keyrings and the two copies of a record are equal on purpose.
        if folder(&pair[0]) == folder(&pair[1]) {
            with(&world, &pair[0], &bytes(objects.as_ref(), &pair[1]), "its neighbour");
            with(&world, &pair[1], &bytes(objects.as_ref(), &pair[0]), "its neighbour");
        }
    }
}

#[test]
fn an_object_of_another_repository_is_named() {
    let (world, other) = (made(3), made(4));
    let (mine, theirs) = (world.objects(), other.objects());
    let (mine, strangers) = (names(mine.as_ref()), names(theirs.as_ref()));
    for name in &mine {
        let folder = name.as_str().split('/').next().unwrap();
        // Where names are the same in each repository, the object of that name; else any of that folder.
        let stranger = strangers.iter().find(|n| *n == name);
        let stranger = stranger.or_else(|| strangers.iter().find(|n| n.as_str().starts_with(folder)));
        with(&world, name, &bytes(theirs.as_ref(), stranger.unwrap()), "a stranger");
    }
}

#[test]
fn an_object_of_a_newer_version_is_refused_by_its_version() {
    let world = made(5);
    let objects = world.objects();
    for name in names(objects.as_ref()) {
        let mut newer = bytes(objects.as_ref(), &name);
        // Magic, then the version; the hash at the end of the structure is made right again where it is no secret.
        newer[8] = 2;
        let end = if name.as_str().starts_with("segments/") || name.as_str().starts_with("logs/") {
            4096
        } else {
            newer.len()
        };
        let hash = blake3::hash(&newer[..end - 32]);
        newer[end - 32..end].copy_from_slice(hash.as_bytes());
        with(&world, &name, &newer, "a newer version");
        let image = world.disk.crash(Crash::Everything);
        let copy = Directory::open(image.shared(), "/repo").unwrap();
        copy.replace(&name, &newer).unwrap();
        let text = fsck(&copy).unwrap().text();
        assert!(text.contains("version 2"), "{name}:\n{text}");
    }
}

#[test]
fn objects_of_an_earlier_time_put_back_are_noticed_or_harmless() {
    let mut world = made(6);
    let before = world.disk.crash(Crash::Everything);
    let old = Directory::open(before.shared(), "/repo").unwrap();
    world.back_up(true).unwrap();
    world.back_up(true).unwrap();
    // Both heads of before: the records behind them count, they were complete.
    let image = world.disk.crash(Crash::Everything);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    for head in ["head/0", "head/1"] {
        let head = ObjectName::new(head).unwrap();
        objects.replace(&head, &bytes(&old, &head)).unwrap();
    }
    assert!(never_wrong(&world, &image, "old heads"));
    assert!(fsck(&objects).unwrap().clean);
    // The newest record is gone in both copies, its head is not: that is no torn end.
    let image = world.disk.crash(Crash::Everything);
    let objects = Directory::open(image.shared(), "/repo").unwrap();
    let newest = objects.list("manifest/").unwrap().pop().unwrap();
    let number = newest.as_str().rsplit('/').next().unwrap().to_owned();
    for folder in ["manifest", "manifest2"] {
        objects.delete(&ObjectName::new(format!("{folder}/{number}")).unwrap()).unwrap();
    }
    assert!(!never_wrong(&world, &image, "the newest record is gone"));
    let report = fsck(&objects).unwrap();
    assert!(!report.clean && report.text().contains("head/"), "{}", report.text());
}

#[test]
fn a_clock_that_goes_back_years_between_runs_changes_nothing() {
    let mut world = made(7);
    for _ in 0..6 {
        world.jump();
        world.open();
        world.back_up(true).unwrap();
        world.append().unwrap();
        world.seal().unwrap();
        world.scrub().unwrap();
        world.verify("after a jump of the clock");
        let report = world.check(holdfast_fsck::Scope::Full);
        assert!(report.clean, "{}", report.text());
    }
}

#[test]
fn a_file_system_that_grants_every_lock_is_refused_before_anything_is_made() {
    let disk = SimDisk::new();
    let directory = Directory::create(disk.shared(), "/repo").unwrap();
    directory.probe_locks().unwrap();
    disk.break_locks();
    let refused = directory.probe_locks().err().unwrap();
    assert!(matches!(refused, holdfast_io::Error::LocksDontWork { .. }), "{refused}");
}

#[test]
fn an_old_keyring_put_back_is_one_flaw_and_a_repair_writes_over_nothing_newer() {
    let disk = SimDisk::new();
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let repo = common::create(&objects, 64);
    let first = common::back_up(&repo, None, &common::first_backup(), "");
    let whole = |folder: &str| -> Vec<(ObjectName, Vec<u8>)> {
        let names = objects.list(folder).unwrap().into_iter();
        names.map(|name| (name.clone(), bytes(objects.as_ref(), &name))).collect()
    };
    let put_back = |kept: &[(ObjectName, Vec<u8>)]| {
        kept.iter().for_each(|(name, bytes)| objects.replace(name, bytes).unwrap());
    };
    let old = whole("keyring/");
    repo.rotate_keys(&[common::secret()]).unwrap();
    drop(repo);
    let repo = Repository::open(Arc::clone(&objects), &common::secret(), common::options()).unwrap();
    common::back_up(&repo, Some(first), &common::second_backup(), "");
    let heads = whole("head/");
    repo.lock_backup(first, 5).unwrap();
    drop(repo);
    // The writer of the last record died before its head, and somebody puts the old keyring back.
    put_back(&heads);
    let (new, before) = (whole("keyring/"), (whole("manifest"), whole("segments/")));
    put_back(&old);
    let report = fsck(objects.as_ref()).unwrap();
    assert_eq!(report.flaws.len(), 1, "{}", report.text());
    let flaw = &report.flaws[0];
    assert!(flaw.object == "keyring" && flaw.what.contains("of 2)"), "{}", report.text());
    assert!(flaw.what.contains("Put back the newest copy of keyring/"), "{}", report.text());
    let secret = holdfast_fsck::Secret::Passphrase(common::PASSPHRASE.as_bytes().to_vec());
    let options = holdfast_fsck::RepairOptions { dry_run: false, index_only: false, now_us: 1 };
    let done = holdfast_fsck::repair(objects.as_ref(), &secret, options, &holdfast_fsck::Progress::default())
        .unwrap();
    assert!(!done.clean() && done.plan.text().contains("put back its newest copy"), "{}", done.text());
    assert!((whole("manifest"), whole("segments/")) == before, "{}", done.text());
    put_back(&new);
    let report = fsck(objects.as_ref()).unwrap();
    assert!(report.clean && report.backups.len() == 2, "{}", report.text());
    assert_eq!(report.counts.records, before.0.len() as u64 / 2);
}
