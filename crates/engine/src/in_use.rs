//! Is a server running on this folder, whoever started it?
//!
//! Known by the write lock that InnoDB and Aria hold on their files (`fcntl` locks, asked of the kernel with F_GETLK, so
//! this works for servers of this host), by a pid file whose process lives and works in the folder, and by the command
//! line or the working folder of a server's process. Each alone is enough: locks may be off, pid files elsewhere.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::{Flock, FlockOffsetType, FlockType, fcntl_getlk};

/// Longest pid file read.
const PID_FILE_BYTES_MAX: u64 = 64;

/// How long a process that is ending may keep its locks: it has to give its memory back.
const ENDED_WITHIN: Duration = Duration::from_secs(30);

/// What servers are called where the kernel keeps names: 15 bytes of them.
const NAMES: [&str; 3] = ["mysqld", "mariadbd", "mysqld-debug"];

/// What says that a server runs on the folder `dir`, in words; none if nothing does.
pub fn server_at(dir: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let path = entry.path();
        let is_file = entry.file_type()?.is_file();
        if is_file
            && path.extension().is_some_and(|e| e == "pid")
            && let Some(pid) = living_server(&path, dir)
        {
            return Ok(Some(format!("{} names process {pid}, which works there", path.display())));
        }
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let locked = name.starts_with("ibdata") || name == "aria_log_control" || name == "mysql.ibd";
        // What can't be opened can't be asked: whoever goes on meets that file with an error of its own.
        if is_file
            && locked
            && let Ok(file) = File::open(&path)
            && let Some(evidence) = lock_on(&file, &path)
        {
            return Ok(Some(evidence));
        }
    }
    Ok(process_at(dir))
}

/// Who holds a write lock on any part of `file`, in words; none where nobody does or the file system can't tell.
#[must_use]
pub fn lock_on(file: &File, path: &Path) -> Option<String> {
    let mut ask = Flock::from(FlockType::ReadLock);
    ask.offset_type = FlockOffsetType::Set;
    let deadline = Instant::now() + ENDED_WITHIN;
    loop {
        let held = fcntl_getlk(file, &ask).ok()??;
        let by = match held.pid.map(|pid| pid.as_raw_nonzero()) {
            Some(pid) if is_ending(pid.get()) && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            Some(pid) if is_ending(pid.get()) => format!("process {pid}, which does not come to its end,"),
            Some(pid) => format!("process {pid}"),
            None => "a process".to_owned(),
        };
        return Some(format!("{by} holds a lock on {}", path.display()));
    }
}

/// A process that ends gives its memory back first, and with it its command line; its locks go later.
fn is_ending(pid: i32) -> bool {
    fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
}

fn living_server(pid_file: &Path, dir: &Path) -> Option<u32> {
    if fs::metadata(pid_file).ok()?.len() > PID_FILE_BYTES_MAX {
        return None;
    }
    let pid: u32 = fs::read_to_string(pid_file).ok()?.trim().parse().ok()?;
    // Servers change into their datadir. Without this check a pid that was given anew would block a backup.
    works_in(&pid.to_string(), dir).then_some(pid)
}

fn works_in(pid: &str, dir: &Path) -> bool {
    fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == dir)
}

/// A process with a server's name that works in the folder, or was given it as its data directory.
fn process_at(dir: &Path) -> Option<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let option = [b"--datadir=".as_slice(), dir.as_os_str().as_bytes()].concat();
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().filter(|n| n.bytes().all(|b| b.is_ascii_digit())) else { continue };
        let Ok(comm) = fs::read_to_string(format!("/proc/{pid}/comm")) else { continue };
        if !NAMES.contains(&comm.trim_end()) {
            continue;
        }
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let given = line
            .split(|byte| *byte == 0)
            .any(|word| word.strip_suffix(b"/").unwrap_or(word) == option.as_slice());
        if given || works_in(pid, dir) {
            return Some(format!("the server process {pid} works there"));
        }
    }
    None
}
