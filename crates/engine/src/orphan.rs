//! A private server that outlived the process that had started it.
//!
//! A killed restore leaves its server running on the target folder. The next command on that
//! folder finds it by the pid file in the folder, or by its command line while it has not written
//! that file yet, and makes sure by the command line that it is one of ours on this very folder
//! before it is killed.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal};

use crate::error::{Error, Result};
use crate::temporary;

/// The pid file of a private server, within its datadir.
pub const PID_FILE: &str = "holdfast-server.pid";

/// How long a killed server may take to disappear: it has to give its memory back.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// The process of a private server of ours that runs on `datadir`.
#[must_use]
pub fn server_on(datadir: &Path) -> Option<i32> {
    let written = || std::fs::read_to_string(datadir.join(PID_FILE)).ok()?.trim().parse::<i32>().ok();
    // The file is written after the recovery: without it, the server may have begun and hold the folder's locks.
    written().filter(|pid| runs_on(*pid, datadir)).or_else(|| processes().find(|pid| runs_on(*pid, datadir)))
}

/// The processes that can be seen.
fn processes() -> impl Iterator<Item = i32> {
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Kills a private server of ours that still runs on `datadir`, and waits until it is gone.
/// True if there was one.
pub fn kill_server_on(datadir: &Path) -> Result<bool> {
    end_server_on(datadir, Signal::KILL, GONE_WITHIN)
}

/// Shuts a private server of ours that runs on `datadir` down cleanly, and waits until it is gone.
/// True if there was one.
pub fn stop_server_on(datadir: &Path, limit: Duration) -> Result<bool> {
    end_server_on(datadir, Signal::TERM, limit)
}

fn end_server_on(datadir: &Path, signal: Signal, limit: Duration) -> Result<bool> {
    let Some(raw) = server_on(datadir) else { return Ok(false) };
    let Some(pid) = Pid::from_raw(raw) else { return Ok(false) };
    // A handle on the process, then the check again: the number cannot change hands in between.
    let Ok(handle) = rustix::process::pidfd_open(pid, PidfdFlags::empty()) else { return Ok(false) };
    if !runs_on(raw, datadir) {
        return Ok(false);
    }
    rustix::process::pidfd_send_signal(&handle, signal)
        .map_err(|source| Error::file("end the server that runs on", datadir, source.into()))?;
    if !ended_within(&handle, limit) {
        return Err(Error::InUse { datadir: datadir.to_path_buf(), pid: raw });
    }
    temporary::remove(datadir);
    Ok(true)
}

/// Waits until a process has ended. Its command line is gone before that, while it still holds its files' locks.
fn ended_within(handle: &impl AsFd, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(handle, PollFlags::IN)], wait.as_ref()) {
            Ok(0) | Err(_) if left.is_zero() => return false,
            Ok(0) | Err(_) => {}
            Ok(_) => return true,
        }
    }
}

/// True if process `pid` was given `--datadir=` this folder and our pid file in it.
fn runs_on(pid: i32, datadir: &Path) -> bool {
    let Ok(line) = std::fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let datadir = datadir.canonicalize().unwrap_or_else(|_| datadir.to_path_buf());
    let has = |option: String| line.split(|byte| *byte == 0).any(|word| word == option.as_bytes());
    has(format!("--datadir={}", datadir.display()))
        && has(format!("--pid-file={}", datadir.join(PID_FILE).display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn a_process_that_is_no_server_on_the_folder_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut other = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        std::fs::write(dir.path().join(PID_FILE), other.id().to_string()).unwrap();
        assert!(!kill_server_on(dir.path()).unwrap());
        assert!(other.try_wait().unwrap().is_none(), "it must be alive");
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_server_left_on_the_folder_is_killed() {
        a_server_left_is_killed(true);
    }

    /// Killed in the middle of its recovery, a restore left such a server, and the next one could not lock the files.
    #[test]
    fn a_server_that_has_not_written_its_pid_file_is_killed_as_well() {
        a_server_left_is_killed(false);
    }

    fn a_server_left_is_killed(writes_its_file: bool) {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().canonicalize().unwrap();
        let pid_file = folder.join(PID_FILE);
        let mut left = Command::new("sh")
            .args(["-c", "sleep 100 & wait", "sh"])
            .arg(format!("--datadir={}", folder.display()))
            .arg(format!("--pid-file={}", pid_file.display()))
            .spawn()
            .unwrap();
        if writes_its_file {
            std::fs::write(&pid_file, left.id().to_string()).unwrap();
        }
        // Until it has become `sh`, the child is a copy of this test, with this test's arguments.
        let deadline = Instant::now() + Duration::from_secs(60);
        while server_on(&folder).is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
        // It is this test's child, so it stays a zombie until waited for; a zombie has no command line.
        assert!(kill_server_on(dir.path()).unwrap());
        assert!(!left.wait().unwrap().success());
    }
}
