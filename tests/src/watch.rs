//! What ends a test that would hang.

use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sets its flag when it goes, so that a panic in a scope ends the scope's other threads instead of waiting for them.
#[derive(Debug)]
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Ends this test program when it has run for `HOLDFAST_TEST_MINUTES` (25 unless set; long campaigns set more): a test
/// that hangs is a failed one with a name, not a run without an end. Called by each start of a server.
pub fn end_a_hanging_program() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        let minutes = std::env::var("HOLDFAST_TEST_MINUTES")
            .map_or(25, |text| text.parse().expect("HOLDFAST_TEST_MINUTES is a number"));
        std::thread::spawn(move || {
            std::thread::sleep(Duration::from_secs(minutes * 60));
            eprintln!(
                "this test program did not end within {minutes} minutes: the tests without a result hang"
            );
            kill_children();
            std::process::exit(101);
        });
    });
}

fn kill_children() {
    for task in std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let children = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        for child in
            children.split_whitespace().filter_map(|pid| rustix::process::Pid::from_raw(pid.parse().ok()?))
        {
            let _ = rustix::process::kill_process(child, rustix::process::Signal::KILL);
        }
    }
}
