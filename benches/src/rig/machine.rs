//! Facts about the machine that a reader needs beside the figures; no names, no paths.

use std::fs::read_to_string;
use std::path::Path;

/// What the figures were measured on.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Processors that this process may use.
    pub cores: usize,
    /// The processor's model, as the kernel reports it.
    pub processor: String,
    /// Main memory in bytes.
    pub memory_bytes: u64,
    /// The kernel's version, numbers only.
    pub kernel: String,
    /// The file system of the data, such as `ext4`.
    pub file_system: String,
    /// The load of the last minute when the run began.
    pub load: String,
}

impl Machine {
    /// Reads the facts; `data` is a folder on the file system that is measured.
    pub fn look(data: &Path) -> Self {
        let of = |path: &str| read_to_string(path).unwrap_or_default();
        let cpuinfo = of("/proc/cpuinfo");
        let memory = value_of(&of("/proc/meminfo"), "MemTotal").and_then(kibibytes).unwrap_or(0);
        Self {
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            processor: value_of(&cpuinfo, "model name").unwrap_or("unknown").to_owned(),
            memory_bytes: memory,
            kernel: of("/proc/sys/kernel/osrelease")
                .trim()
                .chars()
                .take_while(|c| c.is_ascii_digit() || *c == '.')
                .collect(),
            file_system: file_system(&of("/proc/self/mounts"), data),
            load: of("/proc/loadavg").split(' ').next().unwrap_or("unknown").to_owned(),
        }
    }
}

/// Touches memory and gives it back. The host of a virtual machine may take memory back that nobody uses, and each first
/// touch of a page then costs a multiple of what it costs a machine of its own: whoever is measured next would pay for it.
pub fn warm_memory() {
    const PAGE: usize = 4096;
    const BYTES: u64 = 5 << 30;
    let meminfo = read_to_string("/proc/meminfo").unwrap_or_default();
    let free = value_of(&meminfo, "MemAvailable").and_then(kibibytes).unwrap_or(0);
    let mut held: Vec<u8> = Vec::new();
    if held.try_reserve_exact(BYTES.min(free / 2) as usize).is_ok() {
        for page in held.spare_capacity_mut().iter_mut().step_by(PAGE) {
            page.write(1);
        }
        std::hint::black_box(&mut held);
    }
}

/// The value of `key` in a text of `key : value` lines.
pub(crate) fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (k, v) = line.split_once(':')?;
        (k.trim() == key).then(|| v.trim())
    })
}

/// The bytes of a `123 kB` figure.
pub(crate) fn kibibytes(text: &str) -> Option<u64> {
    text.strip_suffix(" kB")?.trim().parse::<u64>().ok().map(|k| k * 1024)
}

/// The type of the mount that holds `path`: the longest mount point that is a prefix of it.
fn file_system(mounts: &str, path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let mut best = (0, "unknown");
    for line in mounts.lines() {
        let mut fields = line.split(' ').skip(1);
        if let (Some(point), Some(kind)) = (fields.next(), fields.next())
            && path.starts_with(point)
            && point.len() >= best.0
        {
            best = (point.len(), kind);
        }
    }
    best.1.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_mount_point_names_the_file_system() {
        let mounts = "a / ext4 rw 0 0\nb /tmp tmpfs rw 0 0\nc /tm xfs rw 0 0\n";
        assert_eq!(file_system(mounts, Path::new("/tmp")), "tmpfs");
        assert_eq!(file_system(mounts, Path::new("/no/such")), "ext4");
    }

    #[test]
    fn a_figure_in_kb_is_read_as_bytes() {
        let text = "VmPeak:\t 10 kB\nVmHWM:\t   12 kB\n";
        assert_eq!(value_of(text, "VmHWM").and_then(kibibytes), Some(12 * 1024));
    }
}
