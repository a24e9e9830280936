//! Backups by a process that may have few threads: the copy is whole with those that there are, or the command ends soon
//! with what could not be begun.
//!
//! The limit is that of a control group, which takes root and the controller `pids`; where there is none the test says so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a panic is how a test fails")]

use holdfast_tests::bed::Bed;
use holdfast_tests::command::finish;
use holdfast_tests::{Engine, Outcome};
use std::path::{Path, PathBuf};
use std::process::Command;

/// With so many at most every backup here is through.
const THREADS_MAX: usize = 60;

/// A control group that a command can be put into.
struct Group(PathBuf);

impl Group {
    fn make() -> Option<Self> {
        let name = format!("holdfast-test-{}", std::process::id());
        // The second is where all controllers are in one tree.
        ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"].iter().find_map(|top| {
            let group = Path::new(top).join(&name);
            std::fs::create_dir(&group).ok()?;
            let group = Self(group);
            group.0.join("pids.max").exists().then_some(group)
        })
    }

    fn run(&self, most: usize, command: &Command) -> Outcome {
        std::fs::write(self.0.join("pids.max"), most.to_string()).unwrap();
        let mut inside = Command::new("sh");
        inside.args(["-c", "echo $$ >\"$0/cgroup.procs\" && exec \"$@\""]).arg(&self.0);
        inside.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => inside.env(name, value),
                None => inside.env_remove(name),
            };
        }
        finish(inside)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir(&self.0);
    }
}

fn backups(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    let Some(group) = Group::make() else {
        eprintln!("not tried: this takes root and the controller of processes");
        return;
    };
    let command = bed.user.command("holdfast", &["backup", "shop", "--json"]);
    let (mut refused, mut whole) = (0, 0);
    for most in 1..=THREADS_MAX {
        let outcome = group.run(most, &command);
        let words = format!("{most} threads: {}\n{}", outcome.stdout, outcome.stderr);
        assert!(!outcome.stderr.contains("panicked"), "{words}");
        match outcome.code {
            Some(0) => {
                whole += 1;
                break;
            }
            Some(3) => whole += 1,
            Some(1) => refused += 1,
            other => panic!("it ended with {other:?} and {words}"),
        }
    }
    assert!(refused > 0 && whole > 0, "{refused} refused, {whole} whole");
    assert_eq!(bed.backups(), whole);
    let _ = bed.user.fsck().ok();
    println!("{engine:?}: {refused} refused, {whole} whole");
}

#[test]
fn a_clone_with_few_threads_is_whole_or_says_what_could_not_be_begun() {
    backups(Engine::MySql);
}

#[test]
fn a_mariadb_backup_with_few_threads_is_whole_or_says_what_could_not_be_begun() {
    backups(Engine::MariaDb);
}
