//! No command leaves a core: keys, passphrases and rows are in its memory.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use holdfast_tests::Holdfast;
use holdfast_tests::server::scratch;
use rustix::process::{Pid, Resource, Rlimit, Signal, getrlimit, kill_process, setrlimit};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// The soft and the hard limit on cores of a process.
fn limits(process: u32) -> Option<(String, String)> {
    let text = std::fs::read_to_string(format!("/proc/{process}/limits")).ok()?;
    let line = text.lines().find(|line| line.starts_with("Max core file size"))?;
    let mut words = line.split_whitespace().skip(4);
    Some((words.next()?.to_owned(), words.next()?.to_owned()))
}

fn ends_without_a_core(mut child: Child, what: &str) {
    let none = Some(("0".to_owned(), "0".to_owned()));
    let deadline = Instant::now() + Duration::from_secs(60);
    // Until it runs its program it has the limits of this one.
    while limits(child.id()) != none {
        assert_eq!(child.try_wait().unwrap(), None, "{what} ended by itself");
        assert!(Instant::now() < deadline, "{what} may leave a core: {:?}", limits(child.id()));
        std::thread::sleep(Duration::from_millis(5));
    }
    kill_process(Pid::from_raw(child.id() as i32).unwrap(), Signal::ABORT).unwrap();
    let status = child.wait().unwrap();
    assert!(status.signal().is_some() && !status.core_dumped(), "{what}: {status}");
}

#[test]
fn no_command_leaves_a_core_though_the_system_would_take_one() {
    // As much as this test itself is granted; its children begin with that.
    let granted = getrlimit(Resource::Core);
    let _ = setrlimit(Resource::Core, Rlimit { current: granted.maximum, ..granted });
    let dir = tempfile::tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    user.run(&["init", "--kit", dir.path().join("kit").to_str().unwrap()]).ok();
    let repository = user.repository();
    let waits = |program: &str, args: &[&str]| {
        // A passphrase that never comes: a command that waits with its secrets in hand.
        let mut command = user.command(program, args);
        command.env_remove("HOLDFAST_PASSPHRASE_FILE").stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    };
    let never = ["--passphrase-command", "sleep 600"];
    ends_without_a_core(waits("holdfast", &[&["list"][..], &never].concat()), "holdfast");
    let place = repository.to_str().unwrap();
    let fifo = dir.path().join("never");
    let made = std::process::Command::new("mkfifo").arg(&fifo).status().unwrap();
    assert!(made.success());
    let fifo = fifo.to_str().unwrap();
    ends_without_a_core(waits("holdfast-fsck", &[place, "--passphrase-file", fifo]), "holdfast-fsck");
    let config = dir.path().join("holdfast.toml");
    let text = format!(
        "repository = {place:?}\npassphrase_file = {fifo:?}\nstate = {:?}\n",
        dir.path().join("state")
    );
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    ends_without_a_core(waits("holdfastd", &["--config", config]), "holdfastd");
}
