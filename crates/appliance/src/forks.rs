//! Locks under test while children are started: a child shares every open file of its parent from the fork until it runs
//! its own program, and with it a lock that closing alone would end.

use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};

/// How often `free` said no in so many tries.
pub(crate) fn busy_beside_children(tries: usize, mut free: impl FnMut() -> bool) -> usize {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    Command::new("true").status().unwrap();
                }
            });
        }
        let busy = (0..tries).filter(|_| !free()).count();
        done.store(true, Ordering::Relaxed);
        busy
    })
}
