//! Runs a program of the server's packages to its end, with a deadline.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};

/// How often a child is looked at.
const POLL: Duration = Duration::from_millis(20);

/// Bytes of a log that an error message quotes: some twenty lines.
const TAIL_BYTES: u64 = 2400;

/// Runs `command` to its end, its output appended to `log`. `what` names it in messages.
/// A program that has not ended when `limit` passes is killed.
pub fn run(command: Command, what: &str, log: &Path, limit: Duration) -> Result<()> {
    run_while(command, what, log, limit, &|| true)
}

/// The same, for as long as `go_on` says so: a program that is called off is killed.
pub fn run_while(
    mut command: Command,
    what: &str,
    log: &Path,
    limit: Duration,
    go_on: &dyn Fn() -> bool,
) -> Result<()> {
    let mut child = spawn(&mut command, log)?;
    match wait_while(&mut child, limit, go_on).map_err(|source| Error::file("wait for", log, source))? {
        Some(status) if status.success() => Ok(()),
        None if !go_on() => {
            kill_and_reap(&mut child);
            Err(Error::Cancelled { program: what.to_owned() })
        }
        Some(status) => {
            Err(Error::Failed { program: what.to_owned(), status: status.to_string(), tail: quote_tail(log) })
        }
        None => {
            kill_and_reap(&mut child);
            Err(Error::Deadline { program: what.to_owned(), limit, tail: quote_tail(log) })
        }
    }
}

/// Starts `command` with no input and its output appended to `log`.
pub fn spawn(command: &mut Command, log: &Path) -> Result<Child> {
    let open = || File::options().append(true).create(true).open(log);
    let out = open().map_err(|source| Error::file("open", log, source))?;
    let err = open().map_err(|source| Error::file("open", log, source))?;
    command
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err)
        .spawn()
        .map_err(|source| Error::Run { program: command.get_program().into(), source })
}

/// Waits for `child` until `limit` passes; `None` if it is still alive then.
pub fn wait(child: &mut Child, limit: Duration) -> std::io::Result<Option<ExitStatus>> {
    wait_while(child, limit, &|| true)
}

fn wait_while(
    child: &mut Child,
    limit: Duration,
    go_on: &dyn Fn() -> bool,
) -> std::io::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= deadline || !go_on() {
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// Kills `child` and takes its exit status off the system's hands.
pub fn kill_and_reap(child: &mut Child) {
    // Both fail only if the child is gone and reaped already, which is what is wanted.
    let _ = child.kill();
    let _ = child.wait();
}

/// The end of a log for an error message: `:` and the lines, each indented; empty for an empty log.
#[must_use]
pub fn quote_tail(log: &Path) -> String {
    quote_tail_from(log, 0)
}

/// The same for what was written after byte `from`.
#[must_use]
pub fn quote_tail_from(log: &Path, from: u64) -> String {
    let text = read_from(log, from, TAIL_BYTES);
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    if lines.is_empty() {
        return String::new();
    }
    let start = lines.len().saturating_sub(12);
    format!(". Its log ends:\n  {}", lines.get(start..).unwrap_or_default().join("\n  "))
}

/// Text of `log` after byte `from`, at most its last `max` bytes; empty if it cannot be read.
#[must_use]
pub fn read_from(log: &Path, from: u64, max: u64) -> String {
    let read = || -> std::io::Result<Vec<u8>> {
        let mut file = File::open(log)?;
        let len = file.metadata()?.len();
        file.seek(SeekFrom::Start(from.max(len.saturating_sub(max))))?;
        let mut bytes = Vec::new();
        file.take(max).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    String::from_utf8_lossy(&read().unwrap_or_default()).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_program_is_reported_with_the_end_of_its_log() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sh");
        command.args(["-c", "echo one; echo two >&2; exit 3"]);
        let error =
            run(command, "the program", &dir.path().join("log"), Duration::from_secs(120)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("the program failed") && text.contains("two"), "{text}");
    }

    #[test]
    fn a_program_that_is_called_off_is_killed() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let began = Instant::now();
        let go_on = || began.elapsed() < Duration::from_millis(100);
        let error =
            run_while(command, "the sleeper", &dir.path().join("log"), Duration::from_secs(600), &go_on)
                .unwrap_err();
        assert!(matches!(error, Error::Cancelled { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(120));
    }

    #[test]
    fn a_program_that_hangs_is_killed_at_its_deadline() {
        let dir = tempfile::tempdir().unwrap();
        let mut command = Command::new("sleep");
        command.arg("600");
        let began = Instant::now();
        let error =
            run(command, "the sleeper", &dir.path().join("log"), Duration::from_millis(100)).unwrap_err();
        assert!(matches!(error, Error::Deadline { .. }), "{error}");
        assert!(began.elapsed() < Duration::from_secs(120));
    }
}
