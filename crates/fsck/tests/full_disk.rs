//! A disk that is full at each point, and each operation failing once in each way: nothing acknowledged is lost, the
//! second reader finds nothing wrong, and when there is space again the work goes on.
//!
//! `HOLDFAST_TEST_STEP=1` tries every point; without it every seventh.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "tests, where a panic is the report"
)]

mod common;
#[path = "common/world.rs"]
mod world;

use holdfast_io::sim::Fault;
use holdfast_store::Error;
use world::{World, number};

/// Backups, a sealed log and an open one, a scrub.
fn work(world: &mut World) -> Result<(), Error> {
    world.back_up(true)?;
    for _ in 0..3 {
        world.append()?;
    }
    world.seal()?;
    world.back_up(true)?;
    world.append()?;
    world.scrub()
}

fn clean_and_whole(world: &mut World, label: &str) {
    world.verify(label);
    let report = world.check(holdfast_fsck::Scope::Full);
    assert!(report.clean, "{label}:\n{}", report.text());
}

#[test]
fn a_disk_that_is_full_at_any_point_loses_nothing_and_the_work_goes_on_afterwards() {
    let mut world = World::new(5);
    let least = world.disk.used();
    work(&mut world).unwrap();
    let most = world.disk.used();
    let step = number("HOLDFAST_TEST_STEP", 7) * 512;
    let (mut points, mut refused) = (0, 0);
    let mut capacity = least;
    while capacity < most + 8192 {
        let label = format!("{capacity} bytes fit");
        let mut world = World::new(5);
        world.disk.set_capacity(Some(capacity));
        let done = work(&mut world);
        if let Err(e) = &done {
            assert!(e.is_no_space(), "{label}: {e}");
            assert!(e.to_string().contains("no space is left"), "{label}: {e}");
            refused += 1;
        }
        // While it is full everything can be read; then somebody frees space, and the same processes go on.
        world.disk.set_capacity(None);
        world.log = None;
        clean_and_whole(&mut world, &label);
        world.open();
        work(&mut world).unwrap_or_else(|e| panic!("{label}: {e}"));
        clean_and_whole(&mut world, &label);
        points += 1;
        capacity += step;
    }
    assert!(refused > 10, "{refused} of {points}");
    eprintln!("{points} points, {refused} refused");
}

#[test]
fn each_operation_failing_once_in_each_way_leaves_a_clean_repository() {
    let mut world = World::new(6);
    let before = world.disk.operations();
    work(&mut world).unwrap();
    let operations = world.disk.operations() - before;
    let step = usize::try_from(number("HOLDFAST_TEST_STEP", 7)).unwrap();
    let (mut runs, mut failed) = (0, 0);
    for fault in [Fault::Eio, Fault::Enospc, Fault::Eintr, Fault::Enomem, Fault::Short] {
        for nth in (0..operations).step_by(step) {
            let label = format!("{fault:?} at operation {nth} of {operations}");
            let mut world = World::new(6);
            world.disk.inject(None, nth, fault);
            let done = work(&mut world);
            failed += u64::from(done.is_err());
            if fault == Fault::Short {
                // Half a read or write is no failure: the rest is asked for.
                assert!(done.is_ok(), "{label}: {done:?}");
            }
            world.disk.clear_faults();
            world.log = None;
            clean_and_whole(&mut world, &label);
            // The machine dies as well, and forgets whatever a failed sync had not made durable.
            world.repos.clear();
            world.disk = world.disk.crash(holdfast_io::sim::Crash::Nothing);
            world.open();
            clean_and_whole(&mut world, &label);
            runs += 1;
        }
    }
    eprintln!("{runs} runs, {failed} refused, {operations} operations");
}
