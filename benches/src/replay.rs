//! Replay of several loads: Holdfast beside the server's own parallel applier and `mysqlbinlog | mysql`.
//!
//! One server is filled, copied, and then written to by one load after the other, each in a schema of its own
//! and in binlog files of its own (`data`, `work`). So every load is replayed from the same folder, by every side with
//! the same settings (`sides`), and its end is compared with what the source's tables were. `files` reads
//! a binlog for Holdfast, `page` makes the section of RESULTS.md. The program `holdfast-bench-replay` runs it all.

pub mod data;
pub mod files;
pub mod page;
pub mod sides;
pub mod work;

/// What writes, and what is asked of a replay of it.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    /// Its name, for `--only`.
    pub name: &'static str,
    /// In words.
    pub title: &'static str,
    /// Whose log is replayed: its own name, or that of a load whose log it shares.
    pub log: &'static str,
    /// The buffer pool of the server that is replayed onto, in MiB.
    pub pool_mib: u32,
    /// How many times larger than the others at the same size: short replays are measured over more.
    pub weight: u64,
    /// At least so many times as fast as the applier with four workers.
    pub asked_of_applier: f64,
    /// At least so many times as fast as `mysqlbinlog | mysql`.
    pub asked_of_client: f64,
}

/// A buffer pool that all of a load's tables fit into.
const AMPLE_MIB: u32 = 3072;

/// All of them, in the order in which they are measured.
pub const LOADS: [Load; 6] = [
    Load {
        name: "skewed",
        title: "sysbench oltp_write_only, default distribution",
        log: "skewed",
        pool_mib: AMPLE_MIB,
        weight: 2,
        asked_of_applier: 12.0,
        asked_of_client: 130.0,
    },
    Load {
        name: "uniform",
        title: "sysbench oltp_write_only, uniform keys",
        log: "uniform",
        pool_mib: AMPLE_MIB,
        weight: 1,
        asked_of_applier: 4.0,
        asked_of_client: 1.0,
    },
    Load {
        name: "orders",
        title: "TPC-C-like, hot rows",
        log: "orders",
        pool_mib: AMPLE_MIB,
        weight: 1,
        asked_of_applier: 3.0,
        asked_of_client: 1.0,
    },
    Load {
        name: "wide",
        title: "wide rows, six secondary indexes",
        log: "wide",
        pool_mib: AMPLE_MIB,
        weight: 1,
        asked_of_applier: 1.0,
        asked_of_client: 1.0,
    },
    Load {
        name: "keyless",
        title: "a table without a primary key",
        log: "keyless",
        pool_mib: AMPLE_MIB,
        weight: 1,
        asked_of_applier: 1.0,
        asked_of_client: 1.0,
    },
    Load {
        name: "larger",
        title: "uniform keys, data larger than the buffer pool",
        log: "uniform",
        // Set to a fraction of the data when the run begins: see `Load::pool`.
        pool_mib: 0,
        weight: 1,
        asked_of_applier: 1.0,
        asked_of_client: 1.0,
    },
];

impl Load {
    /// The size of its data, if this is the size of the run. Not more than all of it.
    #[must_use]
    pub fn size(&self, run: Size) -> Size {
        Size((u64::from(run.0) * self.weight).min(100) as u32)
    }

    /// The buffer pool in MiB for tables of `table_bytes`: a fifth of them where the load is about that.
    #[must_use]
    pub fn pool(&self, table_bytes: u64) -> u32 {
        if self.pool_mib > 0 { self.pool_mib } else { ((table_bytes / 5) >> 20).clamp(8, 4096) as u32 }
    }
}

/// How large everything is: percent of the loads that research has figures of (4,000,000 rows and 196,250
/// transactions of sysbench).
#[derive(Clone, Copy, Debug)]
pub struct Size(pub u32);

impl Size {
    /// So many percent of a number, at least 1.
    #[must_use]
    pub fn of(self, full: u64) -> u64 {
        (full * u64::from(self.0) / 100).max(1)
    }
}
