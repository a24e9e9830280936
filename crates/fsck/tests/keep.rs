//! What a repair leaves alone is what a prune keeps: forgotten backups, locked ones, and bases of bases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{BLOCK, create, draft, fsck, page_like};
use holdfast_fsck::{Progress, RepairOptions, Secret, repair};
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::format::ids::BackupId;
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::Record;
use holdfast_store::{FileSpec, PruneOptions, Repository};

/// The clock of the store and of the repairs in these tests stands still here.
const NOW_US: i64 = 1_700_000_000_000_000;

/// One file of one block, that changes a little in each generation, so that each is a delta of the one before: and a
/// file of its own, so that each has a segment.
fn generation(repo: &Repository, parent: Option<BackupId>, n: u64) -> BackupId {
    let mut page = page_like(1, BLOCK);
    for at in 0..n as usize {
        page[at * 700] ^= 0x55;
    }
    let writer = repo.begin_backup(parent).unwrap();
    for (path, bytes) in [("page".to_owned(), page), (format!("own{n}"), page_like(100 + n, BLOCK))] {
        let spec = FileSpec {
            path: path.into_bytes(),
            kind: FileKind::Regular,
            len: BLOCK as u64,
            mode: 0o600,
            mtime_us: n as i64,
        };
        let file = writer.add_file(spec).unwrap();
        writer.put_block(file, 0, &bytes).unwrap();
    }
    writer.commit(draft("a generation")).unwrap().id
}

fn history() -> (Arc<dyn Objects>, Repository, Vec<BackupId>) {
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(SimDisk::new().shared(), "/repo").unwrap());
    let repo = create(&objects, 64);
    let mut made = Vec::new();
    for n in 0..5 {
        made.push(generation(&repo, made.last().copied(), n));
    }
    (objects, repo, made)
}

fn segments(objects: &dyn Objects) -> BTreeMap<String, Vec<u8>> {
    let read = |name: &ObjectName| objects.read(name, 0, objects.len(name).unwrap()).unwrap();
    objects.list("segments/").unwrap().iter().map(|name| (name.to_string(), read(name))).collect()
}

fn mend(objects: &dyn Objects) -> String {
    let options = RepairOptions { dry_run: false, index_only: false, now_us: NOW_US };
    let secret = Secret::Passphrase(common::PASSPHRASE.into());
    let done = repair(objects, &secret, options, &Progress::default()).unwrap();
    assert!(done.clean(), "{}", done.text());
    done.text()
}

fn restores(repo: &Repository, id: BackupId, n: u64) {
    let mut page = page_like(1, BLOCK);
    for at in 0..n as usize {
        page[at * 700] ^= 0x55;
    }
    let reader = repo.open_backup(id).unwrap();
    let file = reader.files().position(|f| f.path == b"page").unwrap() as u32;
    assert!(reader.read_block(file, 0).unwrap() == page, "generation {n}");
}

#[test]
fn a_repair_leaves_what_forgotten_backups_and_bases_of_bases_need() {
    let (objects, repo, made) = history();
    assert!(repo.open_backup(made[4]).is_ok());
    // All but the last are forgotten. It is a delta of depth 4, whose map names the segments of its last base only.
    for id in &made[..4] {
        repo.forget(*id, "a test").unwrap();
    }
    let before = segments(objects.as_ref());
    let report = fsck(objects.as_ref()).unwrap();
    assert!(report.clean && report.counts.orphans == 0, "{}", report.text());
    assert!(report.counts.forgotten > 0, "{}", report.text());
    let told = mend(objects.as_ref());
    assert!(segments(objects.as_ref()) == before, "{told}");
    restores(&repo, made[4], 4);
    // So does a prune with a grace time; without one, it frees what only they needed, and the last one stays whole.
    let graceful = PruneOptions { grace_us: 1_000_000, ..PruneOptions::default() };
    repo.prune(&graceful, &|_, _| {}).unwrap();
    assert_eq!(segments(objects.as_ref()).len(), before.len());
    assert_eq!(repo.retained(1_000_000).unwrap().len(), 5);
    let mut count = before.len();
    for dead_percent_max in [100, 0] {
        // First the maps of the forgotten ones go, then the bases move to a carrier.
        repo.prune(&PruneOptions { grace_us: -1, dead_percent_max, ..PruneOptions::default() }, &|_, _| {})
            .unwrap();
        let kept = segments(objects.as_ref());
        assert!(kept.len() < count, "{} of {count}", kept.len());
        count = kept.len();
        let told = mend(objects.as_ref());
        assert!(segments(objects.as_ref()) == kept, "{told}");
        restores(&repo, made[4], 4);
    }
}

#[test]
fn damage_in_a_base_of_a_base_is_found_and_healed() {
    let (objects, repo, made) = history();
    let first = objects.list("segments/").unwrap();
    for id in &made[..4] {
        repo.forget(*id, "a test").unwrap();
    }
    let options = PruneOptions { grace_us: -1, dead_percent_max: 100, ..PruneOptions::default() };
    repo.prune(&options, &|_, _| {}).unwrap();
    let mut healed = 0;
    for name in first.iter().filter(|name| objects.exists(name).unwrap()) {
        let right = objects.read(name, 0, objects.len(name).unwrap()).unwrap();
        let mut rotten = right.clone();
        rotten[4096 + 40] ^= 1;
        objects.replace(name, &rotten).unwrap();
        let report = fsck(objects.as_ref()).unwrap();
        assert!(report.flaws.iter().any(|f| f.object == name.as_str()), "{}", report.text());
        let told = mend(objects.as_ref());
        assert!(objects.read(name, 0, right.len() as u64).unwrap() == right, "{told}");
        healed += 1;
    }
    assert!(healed > 3, "{healed} segments");
    restores(&repo, made[4], 4);
}

#[test]
fn a_repair_leaves_a_locked_backup_that_another_program_forgot() {
    let (objects, repo, made) = history();
    repo.lock_backup(made[0], NOW_US + 1_000).unwrap();
    // This program would refuse.
    assert!(repo.forget(made[0], "a test").is_err());
    let reason = "another program".to_owned();
    repo.append(Record::BackupForgotten { backup: made[0], reason }).unwrap();
    let before = segments(objects.as_ref());
    repo.prune(&PruneOptions { grace_us: -1, ..PruneOptions::default() }, &|_, _| {}).unwrap();
    assert!(segments(objects.as_ref()) == before, "a prune takes what is locked");
    let told = mend(objects.as_ref());
    assert!(segments(objects.as_ref()) == before, "{told}");
    assert!(repo.retained(0).unwrap().iter().any(|backup| backup.id == made[0]));
}
