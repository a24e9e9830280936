//! Many generations under retention: seven daily and four weekly backups stay, a prune follows each backup. What is
//! stored, dead, held in memory and read by a restore stays within bounds, and every kept backup is whole.
//!
//! `HOLDFAST_TEST_GENERATIONS=400` is the campaign; the seed is printed, and `HOLDFAST_TEST_SEED` repeats one.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use common::history::{Files, backup, files, fsck, read, rewrite, touch};
use common::{BLOCK, create, objects, open};
use holdfast_format::ids::BackupId;
use holdfast_io::SimDisk;
use holdfast_store::PruneOptions;

const BLOCKS: usize = 48;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

fn next(state: &mut u64, below: usize) -> usize {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    (*state >> 33) as usize % below
}

/// Bytes and number of the objects of segments.
fn stored(disk: &SimDisk) -> (u64, usize) {
    let objects = objects(disk);
    let names = objects.list("segments/").unwrap();
    (names.iter().map(|name| objects.len(name).unwrap()).sum(), names.len())
}

#[test]
fn over_many_generations_nothing_grows_but_what_is_kept() {
    let generations = number("HOLDFAST_TEST_GENERATIONS", 30);
    let seed = number("HOLDFAST_TEST_SEED", 20_261_121);
    eprintln!("HOLDFAST_TEST_GENERATIONS={generations} HOLDFAST_TEST_SEED={seed}");
    let mut state = seed | 1;
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut now = files(1, BLOCKS);
    let mut kept: Vec<(u64, BackupId, Files)> = vec![(0, backup(&repo, None, &now).unwrap(), now.clone())];
    let (first_bytes, _) = stored(&disk);
    let (mut dead_most, mut bytes_most, mut segments_most) = (0.0_f64, 0, 0);
    for generation in 1..=generations {
        // Mostly a few rows of a hot block, now and then a block that is new.
        for _ in 0..2 {
            let hot = next(&mut state, 5) < 4;
            let block = next(&mut state, if hot { BLOCKS / 5 } else { BLOCKS });
            let seed = next(&mut state, 1 << 30) as u64;
            match next(&mut state, 8) {
                0 => rewrite(&mut now, block, seed),
                _ => touch(&mut now, block, seed),
            }
        }
        let parent = kept.last().map(|(_, id, _)| *id);
        kept.push((generation, backup(&repo, parent, &now).unwrap(), now.clone()));
        let wanted = |made: u64| generation - made < 7 || (made.is_multiple_of(7) && generation - made < 35);
        for (_, id, _) in kept.iter().filter(|(made, ..)| !wanted(*made)) {
            repo.forget(*id, "expired").unwrap();
        }
        kept.retain(|(made, ..)| wanted(*made));
        let report = repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap();
        assert!(report.damaged.is_empty(), "generation {generation}: {:?}", report.damaged);
        dead_most = dead_most.max(report.after.dead_percent());
        let (bytes, segments) = stored(&disk);
        (bytes_most, segments_most) = (bytes_most.max(bytes), segments_most.max(segments));
        assert!(report.after.dead_percent() <= 15.0, "generation {generation}: {:?}", report.after);
        if generation.is_multiple_of(20) || generation == generations {
            let repo = open(&disk).unwrap();
            assert_eq!(repo.backups().len(), kept.len());
            for (made, id, files) in &kept {
                assert!(read(&repo, *id).unwrap() == *files, "generation {made} at {generation}");
            }
            fsck(&objects(&disk), "a long haul");
        }
    }
    eprintln!(
        "{generations} generations: at most {dead_most:.1} % dead, {bytes_most} bytes ({first_bytes} by the first backup), \
         {segments_most} segments"
    );
    // At most 12 backups: a whole set of blocks, and what differs between them; a few objects for each.
    let whole = (BLOCKS * BLOCK) as u64;
    assert!(bytes_most < first_bytes + whole, "{bytes_most} bytes");
    assert!(segments_most < 60, "{segments_most} segments");
}
