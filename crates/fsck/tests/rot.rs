//! Rot anywhere in payload, parity and everything around it: found, healed within parity, named as lost past it, and
//! never handed out as data. And what the second reader says can be restored, the store restores.
//!
//! `HOLDFAST_TEST_PLACES=10000` flips that many seeded places one at a time; `HOLDFAST_TEST_ROUNDS` is for many at once.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests, where a panic is the report"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{BLOCK, PASSPHRASE, fsck, noise, page_like};
use holdfast_fsck::{Progress, RepairOptions, Secret, repair};
use holdfast_io::sim::Crash;
use holdfast_io::{Directory, Objects, SimDisk};
use holdfast_store::format::ids::{BackupId, SegmentId};
use holdfast_store::parity::{Healed, heal};
use holdfast_store::{Error, Repository};
use world::{Chance, Files, back_up, number};

/// Four generations with deltas upon deltas, and logs.
fn made() -> (SimDisk, BTreeMap<BackupId, Files>) {
    let disk = SimDisk::new();
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let repo = common::create(&objects, 64);
    let mut files = Files::new();
    files.insert("shop/a.ibd".into(), page_like(1, 9 * BLOCK + 100));
    files.insert("shop/b.ibd".into(), noise(2, 2 * BLOCK));
    let mut backups = BTreeMap::new();
    let mut parent = None;
    for generation in 0..4_usize {
        let id = back_up(&repo, parent, &files, true).unwrap().unwrap();
        backups.insert(id, files.clone());
        parent = Some(id);
        let file = files.get_mut("shop/a.ibd").unwrap();
        for block in [generation, generation + 3, 7] {
            let with = noise(100 + generation as u64, 700);
            file[block * BLOCK + 500..block * BLOCK + 1200].copy_from_slice(&with);
        }
        files.insert(format!("shop/c{generation}"), page_like(50 + generation as u64, 3000));
    }
    common::write_logs(&repo);
    (disk, backups)
}

fn open(image: &SimDisk) -> Result<Repository, Error> {
    let objects: Arc<dyn Objects> = Arc::new(Directory::open(image.shared(), "/repo").unwrap());
    Repository::open(objects, &common::secret(), common::options())
}

/// Reads each file of each backup: right bytes or an error that says damage. Gives which files cannot be read.
fn never_wrong(
    image: &SimDisk,
    backups: &BTreeMap<BackupId, Files>,
    label: &str,
) -> BTreeMap<BackupId, Vec<String>> {
    let mut lost: BTreeMap<BackupId, Vec<String>> = BTreeMap::new();
    let repo = match open(image) {
        Ok(repo) => repo,
        Err(e) => panic!("{label}: it does not open: {e}"),
    };
    for (id, files) in backups {
        let missing = lost.entry(*id).or_default();
        let reader = match repo.open_backup(*id) {
            Ok(reader) => reader,
            Err(e) => {
                assert!(e.is_damage(), "{label}: {e}");
                missing.extend(files.keys().cloned());
                continue;
            }
        };
        let entries: Vec<_> = reader.files().cloned().collect();
        for (no, entry) in entries.iter().enumerate() {
            let path = String::from_utf8(entry.path.clone()).unwrap();
            let mut bytes = vec![0; entry.len as usize];
            match reader.read_at(no as u32, 0, &mut bytes) {
                Ok(_) => assert!(bytes == files[&path], "{label}: {path} of {id} has other bytes"),
                Err(e) => {
                    assert!(e.is_damage(), "{label}: {e}");
                    missing.push(path);
                }
            }
        }
    }
    lost
}

fn run_repair(objects: &dyn Objects) -> holdfast_fsck::Repaired {
    let options = RepairOptions { dry_run: false, index_only: false, now_us: 1_800_000_000_000_000 };
    repair(objects, &Secret::Passphrase(PASSPHRASE.into()), options, &Progress::default()).unwrap()
}

#[test]
fn one_flipped_byte_anywhere_in_a_segment_is_found_healed_and_never_handed_out() {
    let (disk, backups) = made();
    let seed = number("HOLDFAST_TEST_SEED", 7);
    let count = number("HOLDFAST_TEST_PLACES", 40);
    let again = format!(
        "HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_PLACES={count} cargo test -p holdfast-fsck --test rot one"
    );
    let whole = Directory::open(disk.shared(), "/repo").unwrap();
    let segments: Vec<_> = whole.list("segments/").unwrap();
    let lens: Vec<u64> = segments.iter().map(|n| whole.len(n).unwrap()).collect();
    let total: u64 = lens.iter().sum();
    let mut chance = Chance(seed);
    let mut compared = 0;
    for nth in 0..count {
        let mut at = chance.below(total);
        let which = lens.iter().position(|len| at.checked_sub(*len).map(|rest| at = rest).is_none()).unwrap();
        let (name, len) = (&segments[which], lens[which]);
        let label = format!("place {nth}: byte {at} of {name}; {again}");
        let image = disk.crash(Crash::Everything);
        assert!(image.flip_bit(format!("/repo/{name}").as_ref(), at, chance.below(8) as u8));
        let objects = Directory::open(image.shared(), "/repo").unwrap();
        let right = whole.read(name, 0, len).unwrap();
        let rotten = objects.read(name, 0, len).unwrap();
        // The store's own decoder.
        let id: SegmentId = name.as_str().strip_prefix("segments/").unwrap().parse().unwrap();
        let repo = open(&image).unwrap();
        match heal(repo.id(), id, &rotten).unwrap() {
            Healed::Repaired { bytes, .. } => assert!(bytes == right, "{label}"),
            other => panic!("{label}: {other:?}"),
        }
        never_wrong(&image, &backups, &label);
        // The second reader finds it, names it, and heals it with its own.
        let report = fsck(&objects).unwrap();
        assert!(report.flaws.iter().any(|f| f.object == name.as_str()), "{label}:\n{}", report.text());
        let done = run_repair(&objects);
        assert!(done.clean(), "{label}:\n{}", done.text());
        assert!(objects.read(name, 0, len).unwrap() == right, "{label}");
        compared += len;
    }
    eprintln!("{count} places, {compared} bytes compared");
}

#[test]
fn as_much_rot_as_there_is_never_gives_wrong_bytes_and_the_verdicts_agree() {
    let (disk, backups) = made();
    let seed = number("HOLDFAST_TEST_SEED", 11);
    let rounds = number("HOLDFAST_TEST_ROUNDS", 15);
    let again = format!(
        "HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_ROUNDS={rounds} cargo test -p holdfast-fsck --test rot verdicts"
    );
    let mut chance = Chance(seed);
    let (mut harsher, mut lost_files, mut healed) = (0, 0, 0);
    for round in 0..rounds {
        let label = format!("round {round}; {again}");
        let image = disk.crash(Crash::Everything);
        let objects = Directory::open(image.shared(), "/repo").unwrap();
        let names: Vec<_> = objects.list("segments/").unwrap();
        for _ in 0..1 + chance.below(16) {
            let name = &names[chance.below(names.len() as u64) as usize];
            let at = chance.below(objects.len(name).unwrap());
            let burst = 1 + chance.below(3) * chance.below(6000);
            for at in (at..at + burst).step_by(97) {
                image.flip_bit(format!("/repo/{name}").as_ref(), at, chance.below(8) as u8);
            }
        }
        for repaired in [false, true] {
            if repaired {
                healed += u64::from(run_repair(&objects).clean());
            }
            let lost = never_wrong(&image, &backups, &label);
            let report = fsck(&objects).unwrap();
            for verdict in &report.backups {
                let missing = &lost[&verdict.id.parse().unwrap()];
                assert!(
                    !verdict.whole || missing.is_empty(),
                    "{label}: fsck says that {} is whole, and {missing:?} cannot be read:\n{}",
                    verdict.id,
                    report.text()
                );
                // Without its map, nothing of a backup can be named but all of it.
                let mapless =
                    report.flaws.iter().any(|f| f.affects.iter().any(|a| a.contains("its map, so all")));
                for path in missing {
                    assert!(
                        mapless || verdict.damaged.contains(path),
                        "{label}: {path} is not named:\n{}",
                        report.text()
                    );
                }
                lost_files += missing.len();
                harsher += u64::from(!verdict.whole && missing.is_empty());
            }
        }
    }
    eprintln!(
        "{rounds} rounds, {healed} healed whole, {lost_files} lost files named, {harsher} verdicts harsher than the store"
    );
}
