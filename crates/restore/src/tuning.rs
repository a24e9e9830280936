//! Settings of a private server for as long as a log is replayed on it, and the proof that none of them stays.
//!
//! They are options of the first start alone. The second start, whose server is proved, has none of them, nor has the
//! last, whose server is handed over. [`put_back`] asks both where the value of each comes from: only from the program
//! itself. The report holds the answer of the one that is handed over.
//!
//! What a setting may cost after a crash decides whether it is here. A server that is killed must be found as its redo log
//! says, since the same command goes on from its checkpoint:
//!
//! | setting | killed server | crashed host |
//! |---|---|---|
//! | `innodb_flush_log_at_trx_commit=2` | nothing: the log is in the kernel | the restore begins with the base (boot id) |
//! | a larger redo log | a longer recovery | the same |
//! | more I/O capacity, no flushing of neighbours, no adaptive hash index | nothing | nothing |
//! | the buffer pool's list of pages neither read nor written: the source's stays for the restored server | nothing | nothing |
//! | doublewrite off: **not here** | a page torn in the middle of its write, which nothing mends | the same |
//! | redo log off: **not here** | all of it is lost | all of it is lost |
//!
//! The last two would have to begin with the base after every kill. Without a redo log a replay was no faster (it waits for
//! the processor), without doublewrite a quarter of the server's processor time was saved where tables do not fit into
//! the buffer pool, and nothing elsewhere.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_format::gtid::Flavor as GtidFlavor;
use holdfast_mysql::{Conn, Flavor, ServerVersion};
use holdfast_replay::serial;

use crate::error::Result;
use crate::plan::Plan;
use crate::report::Check;

/// What the choice depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts {
    /// Bytes of log to be replayed.
    pub log_bytes: u64,
    /// Bytes of the base.
    pub base_bytes: u64,
    /// Bytes of the folder's file system that are left beside all that the plan needs.
    pub disk_left: u64,
    /// Bytes of memory that are free.
    pub memory_free: u64,
}

impl Facts {
    /// Those of this host, for a plan and a folder that need not be there yet. What lies in the folder counts as free,
    /// since the plan has it: so they are the same before and behind the laying out.
    #[must_use]
    pub fn here(plan: &Plan, folder: &Path) -> Self {
        let whole = plan.log.map_or(0, |range| range.size.bytes);
        let log_bytes = plan.part.as_ref().map_or(whole, |part| part.log_bytes);
        let stat = folder.ancestors().find_map(|folder| rustix::fs::statvfs(folder).ok());
        let disk_free = stat.map_or(0, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
        let disk_left = disk_free.saturating_add(disk_used(folder)).saturating_sub(plan.space_needed);
        Self { log_bytes, base_bytes: plan.bytes, disk_left, memory_free: memory_free() }
    }
}

/// Bytes that the files of a folder take on the disk; what can't be read is left out.
fn disk_used(folder: &Path) -> u64 {
    let of = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => disk_used(&entry.path()),
        Ok(found) => found.blocks().saturating_mul(512),
        Err(_) => 0,
    };
    std::fs::read_dir(folder).into_iter().flatten().flatten().map(of).fold(0, u64::saturating_add)
}

/// The settings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tuning {
    /// Options of the server, behind all others.
    pub args: Vec<String>,
    /// What was chosen and why, a sentence each.
    pub why: Vec<String>,
}

/// Redo that a server has by default. Below twice as much log there is nothing to be won.
const REDO_DEFAULT: u64 = 100 << 20;

/// More redo than this makes the recovery after a kill long, and nothing faster.
const REDO_MAX: u64 = 8 << 30;

/// A buffer pool of less is no buffer pool.
const POOL_LEAST: u64 = 64 << 20;

/// Settings for the replay of so much log on a server of this version. Without a log there are none but those
/// that every first start has.
#[must_use]
pub fn choose(version: &ServerVersion, facts: &Facts) -> Tuning {
    let mariadb = version.is_mariadb();
    let mut args = serial::server_args(if mariadb { GtidFlavor::MariaDb } else { GtidFlavor::MySql });
    let mut why = Vec::new();
    if facts.log_bytes == 0 {
        return Tuning { args, why };
    }
    why.push(
        "commits are not synced one by one: after a crash of this host the restore begins with the base"
            .to_owned(),
    );
    // What the log changes comes on top of the base; the rest of the memory is for the replay and for the files' cache.
    let wanted = facts.base_bytes.saturating_add(facts.base_bytes / 4).saturating_add(facts.log_bytes);
    let pool = wanted.min(facts.memory_free / 2).max(POOL_LEAST);
    args.push(format!("--innodb-buffer-pool-size={pool}"));
    why.push(format!(
        "a buffer pool of {} MiB: tables and log, and at most half of the free memory",
        pool >> 20
    ));
    // A page is written once for many changes as long as the redo of all of them is kept.
    let redo = facts.log_bytes.saturating_mul(2).min(REDO_MAX).min(facts.disk_left / 8);
    if redo > REDO_DEFAULT {
        let mib = redo.next_multiple_of(1 << 20) >> 20;
        if mariadb || version.numbers() >= (8, 0, 30) {
            let name = if mariadb { "innodb-log-file-size" } else { "innodb-redo-log-capacity" };
            args.push(format!("--{name}={mib}M"));
            why.push(format!(
                "a redo log of {mib} MiB for {} MiB of log, at most an eighth of the disk that the plan leaves: pages are \
                 written less often",
                facts.log_bytes >> 20
            ));
        }
    }
    args.extend(
        [
            "--loose-innodb-io-capacity-max=20000",
            "--loose-innodb-io-capacity=4000",
            "--loose-innodb-flush-neighbors=0",
            "--loose-innodb-adaptive-hash-index=OFF",
            "--innodb-buffer-pool-load-at-startup=OFF",
            "--innodb-buffer-pool-dump-at-shutdown=OFF",
        ]
        .map(str::to_owned),
    );
    why.push(
        "all the disk gives for changed pages, and no adaptive hash index: nobody reads meanwhile".to_owned(),
    );
    why.push(
        "the pages that the source had in its buffer pool are read by the restored server, not by this one"
            .to_owned(),
    );
    why.push(
        "doublewrite stays on and so does the redo log: a killed server must be found as it was".to_owned(),
    );
    Tuning { args, why }
}

/// Memory that is free, in bytes: of this host, and of each control group that this process and its servers are in; 0
/// where the system does not say it.
#[must_use]
pub fn memory_free() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let host = field(&read("/proc/meminfo"), "MemAvailable:").unwrap_or(0).saturating_mul(1024);
    let group = group_free(Path::new("/sys/fs/cgroup"), &read("/proc/self/cgroup"));
    group.map_or(host, |group| group.min(host))
}

/// The number behind a name, in a text of a name and a number a line.
fn field(text: &str, name: &str) -> Option<u64> {
    let mut lines = text.lines().map(str::split_whitespace);
    lines.find_map(|mut words| (words.next()? == name).then(|| words.next()?.parse().ok()).flatten())
}

/// How a version of the control groups tells what memory a group may take.
struct Groups {
    /// Where its groups lie below `/sys/fs/cgroup`.
    place: &'static str,
    /// What a line of `/proc/PID/cgroup` about it has between its number and the group's path.
    controller: fn(&str) -> bool,
    /// Files of a limit, of which the least counts. At `memory.high` a process is not killed, but slowed down until it hardly goes on.
    limits: &'static [&'static str],
    taken: &'static str,
    /// The cache of files that nobody asked for again, in `memory.stat`.
    cache: &'static str,
}

const GROUPS: [Groups; 2] = [
    Groups {
        place: "",
        controller: str::is_empty,
        limits: &["memory.max", "memory.high"],
        taken: "memory.current",
        cache: "inactive_file",
    },
    Groups {
        place: "memory",
        controller: |list| list.split(',').any(|name| name == "memory"),
        limits: &["memory.limit_in_bytes"],
        taken: "memory.usage_in_bytes",
        cache: "total_inactive_file",
    },
];

/// Memory that the control groups of a process (mounted at `root`) leave it, of both versions, by what its `/proc/PID/cgroup`
/// says; none where no group has a limit. A group's cache of files that nobody asked for again is free memory: a copy
/// that was just laid out has filled it.
fn group_free(root: &Path, own: &str) -> Option<u64> {
    let least = |kind: &Groups| {
        let path = own.lines().find_map(|line| {
            let (list, path) = line.split_once(':')?.1.split_once(':')?;
            (kind.controller)(list).then_some(path.trim_start_matches('/'))
        })?;
        let root = root.join(kind.place);
        let own = root.join(path);
        let groups = own.ancestors().take_while(|group| group.starts_with(&root));
        let free = |group: &Path| {
            let read = |file: &str| std::fs::read_to_string(group.join(file)).ok();
            let number = |file: &str| read(file)?.trim().parse::<u64>().ok();
            let limit = kind.limits.iter().filter_map(|file| number(file)).min()?;
            let taken = number(kind.taken)?;
            let cache = read("memory.stat").and_then(|text| field(&text, kind.cache)).unwrap_or(0);
            Some(limit.saturating_sub(taken.saturating_sub(cache)))
        };
        groups.filter_map(free).min()
    };
    GROUPS.iter().filter_map(least).min()
}

/// Variables of the replay that a server may have by other means than the replay: its restored one gets a buffer pool
/// for its tables.
const OTHERWISE_GIVEN: [&str; 1] = ["innodb_buffer_pool_size"];

/// Where a value comes from that nobody set.
const OF_THE_PROGRAM: [&str; 3] = ["COMPILED", "COMPILE-TIME", "AUTO"];

/// Asks a server whether it has any setting of a replay (`args`): for each, the value must come from the program itself.
///
/// # Errors
/// The server fails.
pub fn put_back(conn: &mut Conn, flavor: Flavor, args: &[String]) -> Result<Check> {
    if flavor == Flavor::MySql && conn.server().numbers() < (8, 0, 0) {
        let why = "a server before MySQL 8.0 does not say where the values of its settings come from";
        return Ok(Check::left_out("settings", why));
    }
    let mut names: BTreeMap<String, bool> = BTreeMap::new();
    for name in args.iter().filter_map(|arg| arg.strip_prefix("--")?.split('=').next()) {
        let (name, loose) = name.strip_prefix("loose-").map_or((name, false), |name| (name, true));
        let name = name.replace('-', "_");
        if !OTHERWISE_GIVEN.contains(&name.as_str()) {
            names.insert(name, loose);
        }
    }
    // MariaDB before 11.1 has the variable under another name than the option.
    let isolation = [("transaction_isolation", "tx_isolation")];
    let also = isolation.iter().filter(|(name, _)| names.contains_key(*name)).map(|(_, also)| *also);
    let asked = names.keys().map(String::as_str).chain(also);
    let list = asked.map(|name| format!("'{name}'")).collect::<Vec<_>>().join(", ");
    let found = conn.query(match flavor {
        Flavor::MySql => format!(
            "SELECT LOWER(variable_name), variable_source FROM performance_schema.variables_info \
             WHERE variable_name IN ({list})"
        ),
        Flavor::MariaDb => format!(
            "SELECT LOWER(variable_name), global_value_origin FROM information_schema.system_variables \
             WHERE variable_name IN ({list})"
        ),
    })?;
    let mut failures = Vec::new();
    for (name, loose) in &names {
        let also = isolation.iter().find(|(option, _)| option == name).map(|(_, also)| *also);
        let is = |found: &str| found == name || Some(found) == also;
        let row = (0..found.rows.len()).find(|row| found.text(*row, 0).as_deref().is_some_and(is));
        match row.and_then(|row| found.text(row, 1)) {
            Some(origin) if OF_THE_PROGRAM.contains(&origin.as_str()) => {}
            Some(origin) => failures.push(format!("{name} is set by {}", origin.to_lowercase())),
            None if *loose => {}
            None => failures.push(format!("the server does not say where {name} comes from")),
        }
    }
    let detail = format!(
        "{} settings of the replay were looked for on the restored server; each must be the program's own",
        names.len()
    );
    Ok(Check::new("settings", detail, failures, Vec::new()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn facts(log_mib: u64) -> Facts {
        let (base_bytes, disk_left) = (1000 * MIB, 64_000 * MIB);
        Facts { log_bytes: log_mib * MIB, base_bytes, disk_left, memory_free: 16_000 * MIB }
    }

    fn value(tuning: &Tuning, name: &str) -> Option<String> {
        let front = format!("--{name}=");
        tuning.args.iter().find_map(|arg| arg.strip_prefix(&front).map(str::to_owned))
    }

    #[test]
    fn more_log_gets_more_redo_up_to_what_disk_and_recovery_bear() {
        let mysql = ServerVersion::parse("9.7.4");
        let redo = |facts: &Facts| value(&choose(&mysql, facts), "innodb-redo-log-capacity");
        assert_eq!(redo(&facts(0)), None);
        assert_eq!(redo(&facts(40)), None, "what a server has by default is enough");
        assert_eq!(redo(&facts(400)).as_deref(), Some("800M"));
        assert_eq!(redo(&facts(400_000)).as_deref(), Some("8000M"), "an eighth of the disk");
        assert_eq!(redo(&Facts { disk_left: 100 * MIB, ..facts(400) }), None);
        let mariadb = ServerVersion::parse("10.11.19-MariaDB");
        assert_eq!(value(&choose(&mariadb, &facts(400)), "innodb-log-file-size").as_deref(), Some("800M"));
        let old = ServerVersion::parse("8.0.28");
        assert!(
            choose(&old, &facts(400)).args.iter().all(|arg| !arg.contains("redo")),
            "it knows no such option"
        );
    }

    #[test]
    fn the_buffer_pool_leaves_half_of_the_memory() {
        let mysql = ServerVersion::parse("9.7.4");
        let pool = |facts: &Facts| {
            value(&choose(&mysql, facts), "innodb-buffer-pool-size")
                .map(|bytes| bytes.parse::<u64>().unwrap())
        };
        assert_eq!(pool(&facts(100)), Some(1350 * MIB));
        assert_eq!(pool(&Facts { memory_free: 1000 * MIB, ..facts(100) }), Some(500 * MIB));
        assert_eq!(pool(&Facts { memory_free: 0, ..facts(100) }), Some(64 * MIB));
    }

    #[test]
    fn memory_is_what_the_narrowest_control_group_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        let own = "12:cpu:/other\n0::/system.slice/backup.service\n";
        assert_eq!(group_free(root, own), None, "there is no such group");
        let group = |at: &str, files: &[(&str, &str)]| {
            std::fs::create_dir_all(root.join(at)).unwrap();
            for (file, text) in files {
                std::fs::write(root.join(at).join(file), text).unwrap();
            }
        };
        let service = "system.slice/backup.service";
        group(service, &[("memory.max", "max\n"), ("memory.current", "700\n")]);
        assert_eq!(group_free(root, own), None, "it has no limit");
        group("system.slice", &[("memory.max", "1000\n"), ("memory.current", "800\n")]);
        assert_eq!(group_free(root, own), Some(200));
        group("system.slice", &[("memory.stat", "anon 100\ninactive_file 500\nactive_file 9\n")]);
        assert_eq!(group_free(root, own), Some(700), "what is only cached is free");
        group(service, &[("memory.max", "750\n")]);
        assert_eq!(group_free(root, own), Some(50));
        group(service, &[("memory.max", "600\n")]);
        assert_eq!(group_free(root, own), Some(0), "a limit that was lowered since");
        // In a container its own group is the root.
        group("", &[("memory.max", "90\n"), ("memory.current", "10\n")]);
        assert_eq!(group_free(root, "0::/\n"), Some(80));
        group(service, &[("memory.max", "max\n"), ("memory.high", "780\n")]);
        group("", &[("memory.max", "max\n")]);
        group("system.slice", &[("memory.max", "max\n")]);
        assert_eq!(group_free(root, own), Some(80), "above this it would be slowed down");
        assert_eq!(group_free(root, "5:memory:/\n"), None, "version 1 says nothing here");
        let files = [
            ("memory.limit_in_bytes", "500\n"),
            ("memory.usage_in_bytes", "450\n"),
            ("memory.stat", "total_inactive_file 30\n"),
        ];
        group("memory/docker", &files);
        assert_eq!(group_free(root, "5:cpu,memory:/docker/none\n"), Some(80), "version 1");
        assert_eq!(group_free(root, &format!("5:memory:/docker\n{own}")), Some(80), "both");
        group("memory", &[("memory.limit_in_bytes", "60\n"), ("memory.usage_in_bytes", "10\n")]);
        assert_eq!(group_free(root, "5:memory:/of/the/host\n"), Some(50), "seen from inside of a container");
        assert_eq!(field("MemTotal: 9 kB\nMemAvailable:   7 kB\n", "MemAvailable:"), Some(7));
    }

    #[test]
    fn the_files_of_a_folder_count_with_those_below_it() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(disk_used(&dir.path().join("none")), 0);
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/file"), vec![1; 100_000]).unwrap();
        let file = std::fs::File::open(dir.path().join("sub/file")).unwrap();
        file.sync_all().unwrap();
        let taken = file.metadata().unwrap().blocks() * 512;
        assert!(taken > 0);
        assert_eq!(disk_used(dir.path()), taken);
    }

    #[test]
    fn nothing_that_a_killed_server_would_not_survive_is_chosen() {
        for version in ["9.7.4", "8.4.0", "10.11.19-MariaDB", "11.8.3-MariaDB"] {
            let tuning = choose(&ServerVersion::parse(version), &facts(400));
            assert!(tuning.args.iter().all(|arg| !arg.contains("doublewrite")), "{version}");
            assert_eq!(value(&tuning, "innodb-flush-log-at-trx-commit").as_deref(), Some("2"), "{version}");
        }
    }
}
