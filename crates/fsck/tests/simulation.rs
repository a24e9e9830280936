//! Two processes, a log, a scrub, rot within what parity and copies bring back, faults, crashes, a clock that jumps,
//! garbage collection: in seeded order, and in every order that is short. Whatever was acknowledged is there afterwards, to the byte; what
//! the store can read and what the second reader says of it never disagree; a repair leaves nothing to repair.
//!
//! `HOLDFAST_TEST_SEEDS=N` runs N seeds, from `HOLDFAST_TEST_SEED` on; `HOLDFAST_TEST_DEPTH=4` every sequence of up to
//! four, `HOLDFAST_TEST_SYNCS=1` with a crash at each sync, `HOLDFAST_TEST_PART=3/17` the third of seventeen parts of that.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests, where a panic is the report"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use holdfast_fsck::Scope;
use world::{World, number};

fn step(world: &mut World, label: &str) {
    let done = match world.chance.below(16) {
        0..=3 => world.back_up(true),
        4 => world.back_up(false),
        5..=7 => world.append(),
        8 => world.seal(),
        9 => world.scrub(),
        10 => {
            world.rot();
            Ok(())
        }
        11 => {
            world.crash();
            world.verify(label);
            Ok(())
        }
        12 => {
            world.fault();
            Ok(())
        }
        13 => {
            world.jump();
            world.open();
            Ok(())
        }
        14 => {
            let scope = if world.chance.below(2) == 0 { Scope::Full } else { Scope::Sample };
            agree(world, scope, label);
            Ok(())
        }
        _ => {
            let done = world.repair();
            assert!(done.clean(), "{label}: {}", done.text());
            world.verify(label);
            Ok(())
        }
    };
    outlived(world, done, label);
}

/// If it failed, it did so for a reason, and nothing is lost by it.
fn outlived(world: &mut World, done: Result<(), holdfast_store::Error>, label: &str) {
    if let Err(e) = done {
        // What was injected fails, and a backup that compares with what has rotted. The process ends, and the machine
        // may go with it.
        let injected = matches!(e, holdfast_store::Error::Io(_) | holdfast_store::Error::Stopped { .. });
        let rotten = e.is_damage() && !world.rotten.is_empty();
        assert!(injected || rotten, "{label}: {e}");
        world.disk.clear_faults();
        if world.chance.below(2) == 0 {
            world.crash()
        } else {
            world.open()
        }
        world.verify(label);
    }
}

/// The second reader finds rot if there is any, and nothing else.
fn agree(world: &mut World, scope: Scope, label: &str) {
    world.disk.clear_faults();
    world.forget_what_is_whole();
    let report = world.check(scope);
    if world.rotten.is_empty() {
        assert!(report.clean, "{label}: {}", report.text());
    }
    if scope == Scope::Full {
        for name in &world.rotten {
            assert!(
                report.flaws.iter().any(|f| f.object == *name)
                    || report.notes.iter().any(|n| n.object == *name),
                "{label}: rot in {name} is not named:\n{}",
                report.text()
            );
        }
        // A process that is new: an old one may have a segment open that was healed meanwhile.
        let repo = world.fresh();
        for backup in report.backups.iter().filter(|b| b.whole) {
            let read = world::read_backup(&repo, backup.id.parse().unwrap());
            assert!(read.is_ok(), "{label}: whole, they say: {:?}", read.err());
        }
    }
}

#[test]
fn whatever_happens_in_whatever_order_nothing_acknowledged_is_lost() {
    let (first, count) = (number("HOLDFAST_TEST_SEED", 20_261_121), number("HOLDFAST_TEST_SEEDS", 12));
    for seed in first..first + count {
        let label = format!(
            "repeat with HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_SEEDS=1 cargo test -p holdfast-fsck --test simulation whatever"
        );
        let mut world = World::new(seed);
        for nth in 0..30 {
            step(&mut world, &format!("step {nth}; {label}"));
        }
        world.disk.clear_faults();
        world.open();
        world.verify(&label);
        let done = world.repair();
        assert!(done.clean(), "{label}: {}", done.text());
        world.verify(&label);
        agree(&mut world, Scope::Full, &label);
        if seed % 1000 == 999 {
            eprintln!("seed {seed}");
        }
    }
    eprintln!("{count} seeds from {first} on");
}

#[test]
fn re_encryptions_between_other_steps_lose_nothing_and_heal_what_they_read() {
    let (first, count) = (number("HOLDFAST_TEST_SEED", 20_261_122), number("HOLDFAST_TEST_SEEDS", 5));
    for seed in first..first + count {
        let label = format!(
            "repeat with HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_SEEDS=1 cargo test -p holdfast-fsck --test simulation re_enc"
        );
        let mut world = World::new(seed);
        for nth in 0..20 {
            let label = format!("step {nth}; {label}");
            step(&mut world, &label);
            if nth % 4 == 3 {
                world.rekey(&label);
                world.verify(&label);
                agree(&mut world, Scope::Full, &label);
            }
        }
        world.open();
        let done = world.repair();
        assert!(done.clean(), "{label}: {}", done.text());
        world.rekey(&label);
        world.verify(&label);
        agree(&mut world, Scope::Full, &label);
    }
    eprintln!("{count} seeds from {first} on");
}

/// A repair leaves rot in what no backup needs. A prune may still read that, for a backup that was forgotten when the clock
/// stood later than now; then it refuses, and takes nothing away.
fn pruned(world: &mut World) -> Result<(), holdfast_store::Error> {
    match world.prune() {
        Err(e) if e.is_damage() => {
            world.open();
            Ok(())
        }
        done => done,
    }
}

#[test]
fn what_is_forgotten_and_pruned_between_other_steps_costs_nothing_that_is_wanted() {
    let (first, count) = (number("HOLDFAST_TEST_SEED", 20_261_123), number("HOLDFAST_TEST_SEEDS", 6));
    for seed in first..first + count {
        let label = format!(
            "repeat with HOLDFAST_TEST_SEED={seed} HOLDFAST_TEST_SEEDS=1 cargo test -p holdfast-fsck --test simulation forgotten"
        );
        let mut world = World::new(seed);
        for nth in 0..30 {
            let label = format!("step {nth}; {label}");
            step(&mut world, &label);
            let done = match world.chance.below(6) {
                0 | 1 => world.forget(),
                2 => pruned(&mut world),
                _ => continue,
            };
            outlived(&mut world, done, &label);
            world.verify(&label);
        }
        world.open();
        let done = world.repair();
        assert!(done.clean(), "{label}: {}", done.text());
        // A process that is new, as above.
        world.open();
        pruned(&mut world).unwrap_or_else(|e| panic!("{label}: {e}"));
        world.verify(&label);
        agree(&mut world, Scope::Full, &label);
    }
    eprintln!("{count} seeds from {first} on");
}

/// The steps of the bounded exhaustive run; each is followed by a look at everything.
const STEPS: [&str; 10] =
    ["backup", "half a backup", "append", "seal", "scrub", "rot", "forget", "prune", "rotate keys", "crash"];

fn named(world: &mut World, name: &str) {
    match name {
        "backup" => world.back_up(true).unwrap(),
        "half a backup" => world.back_up(false).unwrap(),
        "append" => world.append().unwrap(),
        "seal" => world.seal().unwrap(),
        "scrub" => world.scrub().unwrap(),
        "rot" => world.rot(),
        "forget" => world.forget().unwrap(),
        "prune" => world.prune().unwrap(),
        "rotate keys" => world.rotate().unwrap(),
        _ => world.crash(),
    }
}

/// Of one step, two, and so on: the machine also dies at syncs of the last one, so that over all of them it does at those
/// of each step.
#[test]
fn every_short_sequence_of_steps_keeps_what_it_acknowledged() {
    let depth_max = u32::try_from(number("HOLDFAST_TEST_DEPTH", 2)).unwrap();
    let every = number("HOLDFAST_TEST_SYNCS", 29);
    let (mut syncs, mut images, mut sequences) = (0_u64, 0, 0);
    let mut chosen = || {
        syncs += 1;
        syncs % every == 0
    };
    let (part, parts) = common::part();
    for depth in 1..=depth_max {
        for sequence in (part..STEPS.len().pow(depth)).step_by(parts) {
            let mut world = World::new(sequence as u64 + 1);
            let (mut rest, mut names) = (sequence, Vec::new());
            for nth in 1..=depth {
                let name = STEPS[rest % STEPS.len()];
                rest /= STEPS.len();
                names.push(name);
                let label = names.join(", ");
                let owed = world.owed();
                named(&mut world, name);
                if nth == depth && name != "crash" {
                    images += world.crashes_since(&owed, &mut chosen, &label);
                }
                world.verify(&label);
                agree(&mut world, Scope::Full, &label);
            }
            let label = names.join(", ");
            world.open();
            let done = world.repair();
            assert!(done.clean(), "{label}: {}", done.text());
            world.verify(&label);
            sequences += 1;
            if sequences % 1000 == 0 {
                eprintln!("{sequences} sequences, {images} images");
            }
        }
    }
    assert!(images > 0);
    eprintln!(
        "{sequences} sequences of up to {depth_max} steps, {images} images of crashes at syncs of the last one"
    );
}
