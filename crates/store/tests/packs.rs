//! Packs of records: a long manifest opens from them, and without them where they are missing, damaged or false.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::sync::Arc;

use common::{objects, options, secret};
use holdfast_format::ids::ServerId;
use holdfast_format::names;
use holdfast_format::record::{Record, Stamped};
use holdfast_io::sim::Crash;
use holdfast_io::{Directory, ObjectName, Objects, RealDisk, SimDisk};
use holdfast_store::{CreateOptions, Error, OpenOptions, Repository};

/// Records of a pack here.
const PACKED: u64 = 4;

fn packing() -> OpenOptions {
    OpenOptions { pack_records: PACKED as u32, ..options() }
}

fn open(disk: &SimDisk) -> Result<Repository, Error> {
    Repository::open(objects(disk), &secret(), packing())
}

fn create(disk: &SimDisk) -> Repository {
    let create = CreateOptions { open: packing(), ..common::create_options() };
    Repository::create(objects(disk), create, &secret()).unwrap().0
}

fn append(repo: &Repository, n: u8) -> Result<(), Error> {
    repo.append(Record::ServerRemoved { server: ServerId([n; 16]) }).map(drop)
}

/// A repository of 15 records: the first one and 14 more, so three packs and three records in none.
fn filled(disk: &SimDisk) -> Vec<Stamped> {
    let repo = create(disk);
    (1..15).for_each(|n| append(&repo, n).unwrap());
    records(&repo)
}

fn records(repo: &Repository) -> Vec<Stamped> {
    repo.records().iter().map(|stamped| stamped.as_ref().clone()).collect()
}

fn packs(objects: &dyn Objects) -> Vec<String> {
    let mut names: Vec<String> = objects.list("packs/").unwrap().iter().map(ToString::to_string).collect();
    names.sort();
    names
}

fn name(name: impl Into<String>) -> ObjectName {
    ObjectName::new(name).unwrap()
}

fn flip(objects: &dyn Objects, object: &ObjectName, at: usize) {
    let mut bytes = objects.read(object, 0, objects.len(object).unwrap()).unwrap();
    let at = at % bytes.len();
    bytes[at] ^= 0x10;
    objects.replace(object, &bytes).unwrap();
}

#[test]
fn a_long_manifest_is_packed_as_it_grows_by_whoever_appends() {
    let disk = SimDisk::new();
    let before = filled(&disk);
    let objects = objects(&disk);
    assert_eq!(packs(objects.as_ref()), [names::pack(0), names::pack(4), names::pack(8)]);
    let (one, other) = (open(&disk).unwrap(), open(&disk).unwrap());
    assert_eq!(records(&one), before);
    // Each packs what it and the other appended, whoever comes to it.
    for n in 20..30 {
        append(if n % 2 == 0 { &one } else { &other }, n).unwrap();
    }
    let firsts: Vec<String> = (0..6).map(|n| names::pack(n * PACKED)).collect();
    assert_eq!(packs(objects.as_ref()), firsts);
    let again = open(&disk).unwrap();
    one.refresh().unwrap();
    assert_eq!(records(&again), records(&one));
    assert_eq!(again.records().len(), 25);
    assert!(again.damage().is_none());
}

#[test]
fn what_is_packed_is_not_read_again_and_what_is_missing_is_missed() {
    let disk = SimDisk::new();
    let before = filled(&disk);
    let objects = objects(&disk);
    // Rot in both copies of a packed record: a check finds it, an open has no need of it.
    (0..2).for_each(|copy| flip(objects.as_ref(), &name(names::manifest(copy, 5)), 100));
    let repo = open(&disk).unwrap();
    assert_eq!(records(&repo), before);
    append(&repo, 40).unwrap();
    // Without its pack, the same is damage.
    objects.delete(&name(names::pack(4))).unwrap();
    let repo = open(&disk).unwrap();
    assert!(repo.damage().unwrap().contains("record 5"), "{:?}", repo.damage());
    assert_eq!(repo.records().len(), 15);
    // A record that is gone is damage, packed or not.
    let disk = SimDisk::new();
    filled(&disk);
    let objects = common::objects(&disk);
    (0..2).for_each(|copy| objects.delete(&name(names::manifest(copy, 9))).unwrap());
    let repo = open(&disk).unwrap();
    assert!(repo.damage().unwrap().contains("record 9 is missing"));
    assert!(matches!(append(&repo, 41), Err(Error::ReadOnly { .. })));
}

#[test]
fn a_pack_that_is_damaged_or_false_is_ignored() {
    let disk = SimDisk::new();
    let before = filled(&disk);
    let len = objects(&disk).len(&name(names::pack(4))).unwrap() as usize;
    for at in 0..len {
        let image = disk.crash(Crash::Everything);
        flip(objects(&image).as_ref(), &name(names::pack(4)), at);
        let repo = open(&image).unwrap();
        assert_eq!(records(&repo), before, "byte {at}");
        assert!(repo.damage().is_none());
        append(&repo, 50).unwrap();
    }
    // Another pack in its place, and the one of another repository.
    let stranger = SimDisk::new();
    filled(&stranger);
    for (from, pack) in [(&disk, 0), (&disk, 8), (&stranger, 4)] {
        let image = disk.crash(Crash::Everything);
        let (from, to) = (objects(from), objects(&image));
        let bytes = {
            let name = name(names::pack(pack));
            from.read(&name, 0, from.len(&name).unwrap()).unwrap()
        };
        to.replace(&name(names::pack(4)), &bytes).unwrap();
        let repo = open(&image).unwrap();
        assert_eq!(records(&repo), before);
        assert!(repo.damage().is_none());
    }
}

#[test]
fn after_a_crash_at_any_operation_every_acknowledged_record_is_there_and_the_next_ones_are_packed() {
    let disk = SimDisk::new();
    let repo = create(&disk);
    let mut acked = vec![(disk.trace_len(), 1)];
    for n in 1..11_u8 {
        append(&repo, n).unwrap();
        acked.push((disk.trace_len(), usize::from(n) + 1));
    }
    let all = records(&repo);
    let from = acked[0].0;
    for ops in from..=disk.trace_len() {
        let due = acked.iter().rev().find(|(at, _)| *at <= ops).unwrap().1;
        for crash in disk.crashes_at(ops, 1) {
            let image = disk.crash_at(ops, crash);
            let repo = open(&image).unwrap_or_else(|e| panic!("{ops} operations, {crash:?}: {e}"));
            assert!(repo.damage().is_none(), "{ops} operations, {crash:?}: {:?}", repo.damage());
            let found = records(&repo);
            assert!(
                found.len() >= due && found.len() <= due + 1,
                "{ops} operations: {} of {due}",
                found.len()
            );
            assert_eq!(found, all[..found.len()]);
            (0..4).for_each(|n| append(&repo, 100 + n).unwrap());
            let packed = packs(objects(&image).as_ref()).len() as u64;
            assert_eq!(packed, (found.len() as u64 + 4) / PACKED, "{ops} operations, {crash:?}");
        }
    }
}

/// By hand: HOLDFAST_MANIFEST_RECORDS=20000 prints how long such a manifest takes to open with packs and without.
#[test]
fn a_manifest_of_many_records_opens_alike_with_packs_and_without() {
    let count: u32 =
        std::env::var("HOLDFAST_MANIFEST_RECORDS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    let folder = tempfile::tempdir().unwrap();
    let objects: Arc<dyn Objects> =
        Arc::new(Directory::create(RealDisk::shared(), folder.path().join("repo")).unwrap());
    let repo = Repository::create(Arc::clone(&objects), common::create_options(), &secret()).unwrap().0;
    for n in 1..count {
        // About as long as the record of a backup with its facts.
        let body = common::content(u64::from(n), 1500);
        repo.append(Record::Unknown { kind: 900, version: 1, body }).unwrap();
    }
    let time = |what: &str| {
        let began = std::time::Instant::now();
        let repo = Repository::open(Arc::clone(&objects), &secret(), options()).unwrap();
        println!("{count} records open {what} in {:?}", began.elapsed());
        assert!(repo.damage().is_none());
        records(&repo)
    };
    let with = time("with packs");
    assert_eq!(packs(objects.as_ref()).len(), count as usize / 256);
    packs(objects.as_ref()).into_iter().for_each(|pack| objects.delete(&name(pack)).unwrap());
    assert!(with == time("without"));
}
