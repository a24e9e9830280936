//! One program, measured: wall time to the end of the sync, peak memory, processor time, and
//! how busy everybody else kept the machine meanwhile.

use std::fs::{File, OpenOptions, read_to_string};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::error::{Error, Result, at};
use super::machine::{kibibytes, value_of};

/// How often the peak memory of a running program is looked at. The kernel keeps the peak
/// itself, so only what a program adds in its last instants can be missed.
const WATCH_EVERY: Duration = Duration::from_millis(3);

/// The kernel counts processor time for user space in hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// What one run of a program took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Run {
    /// Wall time in seconds, the sync included.
    pub seconds: f64,
    /// The largest resident memory in bytes.
    pub memory_peak_bytes: u64,
    /// Processor time of the program, in seconds.
    pub cpu_seconds: f64,
    /// Processor time of everybody else meanwhile, the kernel's own threads included.
    pub foreign_cpu_seconds: f64,
}

impl Run {
    /// The run of two commands, one after the other.
    pub fn then(self, next: Self) -> Self {
        Self {
            seconds: self.seconds + next.seconds,
            memory_peak_bytes: self.memory_peak_bytes.max(next.memory_peak_bytes),
            cpu_seconds: self.cpu_seconds + next.cpu_seconds,
            foreign_cpu_seconds: self.foreign_cpu_seconds + next.foreign_cpu_seconds,
        }
    }

    /// Whether others used more than a third of a core meanwhile.
    pub fn is_noisy(&self) -> bool {
        self.foreign_cpu_seconds > 0.1 + self.seconds / 3.0
    }
}

/// Runs `command` to its end, then syncs the file system that holds `target`; both are timed.
/// What it prints goes to `log`.
///
/// # Errors
/// The program cannot start, fails, or the sync fails.
pub fn run(command: &mut Command, target: &Path, log: &Path) -> Result<Run> {
    let (busy_before, own_before, children_before) = processor_times()?;
    let begun = Instant::now();
    let memory_peak_bytes = to_its_end(command, log)?;
    let folder = at("open", target, File::open(target))?;
    at("sync", target, rustix::fs::syncfs(folder.as_fd()).map_err(Into::into))?;
    let seconds = begun.elapsed().as_secs_f64();
    let (busy, own, children) = processor_times()?;
    let cpu_seconds = children - children_before;
    let foreign = (busy - busy_before) - (own - own_before) - cpu_seconds;
    Ok(Run { seconds, memory_peak_bytes, cpu_seconds, foreign_cpu_seconds: foreign.max(0.0) })
}

/// Runs `command` without measuring, as set-up needs it.
///
/// # Errors
/// The program cannot start or fails.
pub fn to_its_end(command: &mut Command, log: &Path) -> Result<u64> {
    let program = name_of(command);
    let path = PathBuf::from(command.get_program());
    let out = at("create", log, File::create(log))?;
    let err = at("use", log, out.try_clone())?;
    command.stdin(Stdio::null()).stdout(out).stderr(err);
    let mut child = at("start", &path, command.spawn())?;
    let watch = Watch::on(child.id());
    let status = at("wait for", &path, child.wait())?;
    let peak = watch.end();
    if status.success() {
        return Ok(peak);
    }
    let said = read_to_string(log).unwrap_or_default();
    let lines: Vec<_> = said.lines().collect();
    let tail = lines.iter().skip(lines.len().saturating_sub(15)).copied();
    Err(Error::Program { program, status: status.to_string(), said: tail.collect::<Vec<_>>().join("\n") })
}

fn name_of(command: &Command) -> String {
    let program = Path::new(command.get_program());
    program.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned())
}

/// Makes the page cache forget everything that is on disk.
///
/// # Errors
/// The kernel refuses: only root may ask for it.
pub fn drop_caches() -> std::io::Result<()> {
    rustix::fs::sync();
    let mut switch = OpenOptions::new().write(true).open("/proc/sys/vm/drop_caches")?;
    std::io::Write::write_all(&mut switch, b"3")
}

/// A thread that reads a process's peak memory until it is told to stop.
struct Watch {
    stop: Arc<AtomicBool>,
    peak: Arc<AtomicU64>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Watch {
    fn on(pid: u32) -> Self {
        let (stop, peak) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (stop_seen, peak_kept) = (Arc::clone(&stop), Arc::clone(&peak));
        let thread = std::thread::spawn(move || {
            let status = format!("/proc/{pid}/status");
            while !stop_seen.load(Ordering::Relaxed) {
                // Gone or a zombie: the line is missing, the last figure stands.
                let text = read_to_string(&status).unwrap_or_default();
                if let Some(bytes) = value_of(&text, "VmHWM").and_then(kibibytes) {
                    peak_kept.fetch_max(bytes, Ordering::Relaxed);
                }
                std::thread::sleep(WATCH_EVERY);
            }
        });
        Self { stop, peak, thread: Some(thread) }
    }

    fn end(mut self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // It only reads a file; it cannot have failed in a way that matters.
            drop(thread.join());
        }
        self.peak.load(Ordering::Relaxed)
    }
}

/// Seconds of processor time that this process has used.
///
/// # Errors
/// The system does not tell.
pub fn own_seconds() -> Result<f64> {
    Ok(processor_times()?.1)
}

/// Seconds of processor time: of the whole machine, of this process, of its ended children.
fn processor_times() -> Result<(f64, f64, f64)> {
    let stat = at("read", Path::new("/proc/stat"), read_to_string("/proc/stat"))?;
    let line = stat.lines().next().unwrap_or_default();
    let mut busy = 0.0;
    // user nice system idle iowait irq softirq steal: all but the two idle ones.
    for (column, field) in line.split_whitespace().skip(1).take(8).enumerate() {
        if column != 3 && column != 4 {
            busy += ticks("processor time", "/proc/stat", field)?;
        }
    }
    let own = at("read", Path::new("/proc/self/stat"), read_to_string("/proc/self/stat"))?;
    // The name in parentheses may hold spaces; utime is the 12th field after it.
    let after = own.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let mut times = [0.0; 4];
    for (time, field) in times.iter_mut().zip(after.split(' ').skip(11)) {
        *time = ticks("processor time", "/proc/self/stat", field)?;
    }
    let [user, system, children_user, children_system] = times;
    Ok((busy, user + system, children_user + children_system))
}

fn ticks(what: &'static str, place: &'static str, field: &str) -> Result<f64> {
    let number = field.parse::<f64>().map_err(|_| Error::Figure { what, place, got: field.to_owned() })?;
    Ok(number / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_timed_and_its_memory_seen() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "x=$(head -c 20000000 /dev/zero | tr '\\0' a); sleep 0.2; echo ${#x}"]);
        let run = run(&mut command, place.path(), &log).unwrap();
        assert!(run.seconds > 0.2, "{run:?}");
        assert!(run.memory_peak_bytes > 20_000_000, "{run:?}");
        assert!(run.cpu_seconds > 0.0, "{run:?}");
        assert_eq!(read_to_string(&log).unwrap().trim(), "20000000");
    }

    #[test]
    fn a_program_that_fails_is_quoted() {
        let place = tempfile::tempdir().unwrap();
        let log = place.path().join("log");
        let mut command = Command::new("sh");
        command.args(["-c", "echo no such thing >&2; exit 3"]);
        let error = run(&mut command, place.path(), &log).unwrap_err().to_string();
        assert!(error.contains("no such thing") && error.contains('3'), "{error}");
    }
}
