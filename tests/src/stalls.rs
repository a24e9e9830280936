//! How slow this machine is, for promises in seconds. A loaded host gives a program a part of a core, and now and then no
//! time at all, or its disk none: "durable within a second" is checked with that much room, and not with a guess that is
//! too much or too little.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long the witness sleeps between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// Threads and disks that a commit passes on its way to an archive: the source's sender, the receiver, the writer, its
/// sync. Each may be held up for as long as the witness was.
const HOPS: u32 = 4;

/// A witness that sleeps and syncs a page, again and again, and keeps how much later than due it came through, and how
/// many wanted to run meanwhile.
#[derive(Debug)]
pub struct Stalls {
    stop: Arc<AtomicBool>,
    seen: Arc<Mutex<Seen>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Seen {
    longest: Duration,
    /// When the present look began.
    since: Instant,
    /// Looks, and the sum of what wanted to run at each, for one core.
    looks: u32,
    runnable: f64,
}

impl Seen {
    fn with_the_present(&self) -> Duration {
        self.longest.max(self.since.elapsed().saturating_sub(EVERY))
    }
}

impl Stalls {
    /// Watches this machine and the disk of a folder.
    #[must_use]
    pub fn watch(dir: &Path) -> Self {
        let file = tempfile::tempfile_in(dir).unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::new(Mutex::new(Seen {
            longest: Duration::ZERO,
            since: Instant::now(),
            looks: 0,
            runnable: 0.0,
        }));
        let (ended, sees) = (Arc::clone(&stop), Arc::clone(&seen));
        let thread = std::thread::spawn(move || look(&file, &ended, &sees));
        Self { stop, seen, thread: Some(thread) }
    }

    /// Forgets what was before.
    pub fn forget(&self) {
        let mut seen = self.seen.lock().unwrap();
        seen.longest = seen.since.elapsed().saturating_sub(EVERY);
        (seen.looks, seen.runnable) = (0, 0.0);
    }

    /// The longest time without a sign of life of thread and disk, the present one included.
    #[must_use]
    pub fn longest(&self) -> Duration {
        self.seen.lock().unwrap().with_the_present()
    }

    /// How many there were for each core that wanted to run, on the average; 1 if the machine had time for all.
    #[must_use]
    pub fn overload(&self) -> f64 {
        let seen = self.seen.lock().unwrap();
        (seen.runnable / f64::from(seen.looks.max(1))).max(1.0)
    }

    /// How long something may take on such a machine that is promised `within` a time.
    #[must_use]
    pub fn stretched(&self, within: Duration) -> Duration {
        within.mul_f64(self.overload()) + self.longest() * HOPS
    }
}

/// Threads that want to run now, for each core.
fn runnable() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap();
    let running: f64 = text.split(' ').nth(3).unwrap().split('/').next().unwrap().parse().unwrap();
    running / std::thread::available_parallelism().map_or(1.0, |cores| cores.get() as f64)
}

fn look(file: &File, stop: &AtomicBool, seen: &Mutex<Seen>) {
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(EVERY);
        file.write_all_at(&[0; 4096], 0).unwrap();
        file.sync_data().unwrap();
        let runnable = runnable();
        let mut seen = seen.lock().unwrap();
        seen.longest = seen.with_the_present();
        seen.since = Instant::now();
        seen.looks += 1;
        seen.runnable += runnable;
    }
}

impl Drop for Stalls {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_time_is_kept_until_it_is_forgotten() {
        let dir = tempfile::tempdir().unwrap();
        let stalls = Stalls::watch(dir.path());
        // Whoever holds the lock holds the witness up.
        let held = stalls.seen.lock().unwrap();
        std::thread::sleep(Duration::from_millis(400));
        drop(held);
        let longest = stalls.longest();
        assert!(longest >= Duration::from_millis(300), "{longest:?}");
        assert!(stalls.longest() >= longest && stalls.overload() >= 1.0);
        assert!(stalls.stretched(Duration::from_secs(1)) >= Duration::from_secs(1) + longest * HOPS);
        while stalls.seen.lock().unwrap().since.elapsed() > EVERY {
            std::thread::sleep(Duration::from_millis(5));
        }
        stalls.forget();
        assert!(stalls.seen.lock().unwrap().longest < longest);
    }
}
