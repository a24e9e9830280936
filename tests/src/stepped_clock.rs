//! A wall clock that can be set for one program of a test, while the machine's own stays as it is: a small library, built by
//! the C compiler that links Rust programs, stands before the C library's in servers and in `holdfast`.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicI64, Ordering};

/// What leads the library to the clocks' files.
const CLOCK: &str = "HOLDFAST_TEST_CLOCK";

/// Whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Servers'.
    Source,
    /// That of `holdfast`.
    Archive,
}

impl Whose {
    fn programs(self) -> &'static [&'static str] {
        match self {
            Self::Source => &["mysqld", "mariadbd"],
            Self::Archive => &["holdfast"],
        }
    }
}

/// The clocks of a test's programs.
#[derive(Debug)]
pub struct SteppedClocks {
    base: PathBuf,
    source_us: AtomicI64,
}

impl SteppedClocks {
    /// The clocks that this process was given, if it runs in [`SteppedClocks::run_again`].
    #[must_use]
    pub fn given() -> Option<Self> {
        let base = PathBuf::from(std::env::var_os(CLOCK)?);
        Some(Self { base, source_us: AtomicI64::new(0) })
    }

    /// Runs the test `name` of this program once more, in a process whose programs have clocks that can be set.
    pub fn run_again(dir: &Path, name: &str) {
        let library = dir.join("clock.so");
        let text = concat!(env!("CARGO_MANIFEST_DIR"), "/src/stepped_clock.c");
        let mut build = Command::new("cc");
        build.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library).args([text, "-ldl"]);
        assert!(build.status().unwrap().success(), "{build:?}");
        let base = dir.join("clock");
        for whose in [Whose::Source, Whose::Archive] {
            for program in whose.programs() {
                std::fs::write(file(&base, program), 0i64.to_ne_bytes()).unwrap();
            }
        }
        let mut again = Command::new(std::env::current_exe().unwrap());
        again.args([name, "--exact", "--nocapture", "--test-threads=1"]);
        let status = again.env("LD_PRELOAD", &library).env(CLOCK, &base).status().unwrap();
        assert!(status.success(), "{name} with clocks that are set: {status}");
    }

    /// Sets a clock to so many seconds before or behind the machine's.
    pub fn set(&self, whose: Whose, seconds: i64) {
        for program in whose.programs() {
            let file = std::fs::OpenOptions::new().write(true).open(file(&self.base, program)).unwrap();
            file.write_all_at(&(seconds * 1_000_000_000).to_ne_bytes(), 0).unwrap();
        }
        if whose == Whose::Source {
            self.source_us.store(seconds * 1_000_000, Ordering::SeqCst);
        }
    }

    /// Microseconds by which the servers' clock is before (above zero) or behind the machine's.
    #[must_use]
    pub fn source_us(&self) -> i64 {
        self.source_us.load(Ordering::SeqCst)
    }
}

fn file(base: &Path, program: &str) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".");
    name.push(program);
    PathBuf::from(name)
}
