//! The folder that every replay starts from, and the log of each load behind it.
//!
//! Made once and kept: a server is initialised and filled, stopped, and its folder copied without
//! the redo log, as a physical backup carries it. Then it writes a log: one load after the other, each in files of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{PrivateServer, Programs, StartOptions, initialize};
use holdfast_mysql::Conn;

use super::work::Work;
use super::{LOADS, Load, Size};
use crate::rig::dataset::leave_out_what_no_backup_carries;
use crate::rig::error::{Error, Result, at, sql};
use crate::rig::folder::remove;
use crate::rig::measure::to_its_end;

/// The account of the client and of sysbench.
pub const CLIENT: &str = "client";
/// The account of a replica.
pub const REPLICA: &str = "replica";
/// Its password.
pub const PASSWORD: &str = "only-for-Benches-1";

/// Longest shutdown, and longest statement of the making.
const LIMIT: Duration = Duration::from_secs(1200);

/// The data.
#[derive(Debug)]
pub struct Data {
    home: PathBuf,
}

impl Data {
    /// The data of a size below `top`, made now unless an earlier run has. `sysbench`: its folder, with `bin/sysbench`.
    ///
    /// # Errors
    /// A server or sysbench fails; those of the file system.
    pub fn get(top: &Path, size: Size, programs: &Programs, sysbench: &Path) -> Result<Self> {
        let data = Self { home: top.join(format!("replay-{}", size.0)) };
        let done = data.home.join("done");
        if !done.exists() {
            remove(&data.home)?;
            at("make", &data.home, fs::create_dir_all(&data.home))?;
            Maker { data: &data, size, programs, sysbench }.make()?;
            at("write", &done, fs::write(&done, ""))?;
            rustix::fs::sync();
        }
        Ok(data)
    }

    /// The stopped server's folder before the loads.
    #[must_use]
    pub fn base(&self) -> PathBuf {
        self.home.join("base")
    }

    /// The folder of a load's binlog files.
    #[must_use]
    pub fn log(&self, name: &str) -> PathBuf {
        self.home.join(format!("log-{name}"))
    }

    /// Bytes of a load's tables in the base, indexes included.
    #[must_use]
    pub fn table_bytes(&self, name: &str) -> u64 {
        let folder = self.base().join(schema(name));
        let files = fs::read_dir(folder).into_iter().flatten().flatten();
        files.filter_map(|file| file.metadata().ok()).map(|data| data.len()).sum()
    }

    /// What CHECKSUM TABLE must say of each of a load's tables at its end.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn checksums(&self, name: &str) -> Result<Vec<String>> {
        let path = self.sums(name);
        let text = at("read", &path, fs::read_to_string(&path))?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    fn sums(&self, name: &str) -> PathBuf {
        self.home.join(format!("sums-{name}"))
    }
}

/// The schema of a load.
#[must_use]
pub fn schema(name: &str) -> String {
    format!("bench_{name}")
}

/// `table checksum` of each of a load's tables.
///
/// # Errors
/// The server fails, or has no table there.
pub fn checksums(conn: &mut Conn, name: &str) -> Result<Vec<String>> {
    conn.set_read_timeout(LIMIT);
    let schema = schema(name);
    let found = sql(conn.query(format!(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{schema}' ORDER BY 1"
    )))?;
    let mut out = Vec::new();
    for row in 0..found.rows.len() {
        let table = found.text(row, 0).unwrap_or_default();
        let sum = sql(conn.query(format!("CHECKSUM TABLE {schema}.{table}")))?;
        match sum.text(0, 1) {
            Some(sum) => out.push(format!("{table} {sum}")),
            None => return Err(Error::Server(format!("it gives no checksum of {schema}.{table}"))),
        }
    }
    if out.is_empty() {
        return Err(Error::Server(format!("it has no tables in {schema}")));
    }
    Ok(out)
}

struct Maker<'a> {
    data: &'a Data,
    size: Size,
    programs: &'a Programs,
    sysbench: &'a Path,
}

impl Maker<'_> {
    fn make(&self) -> Result<()> {
        let live = self.data.home.join("live");
        sql(initialize(self.programs, &live, &self.data.home.join("initialize.log")))?;
        let server = self.start(&live, false)?;
        let mut conn = sql(server.connect())?;
        for statement in [
            format!("CREATE USER '{CLIENT}'@'localhost'"),
            format!("GRANT ALL ON *.* TO '{CLIENT}'@'localhost'"),
            format!("CREATE USER '{REPLICA}'@'%' IDENTIFIED BY '{PASSWORD}'"),
            format!("GRANT REPLICATION SLAVE ON *.* TO '{REPLICA}'@'%'"),
        ] {
            sql(conn.execute(statement))?;
        }
        for load in self.logs() {
            let name = load.name;
            eprintln!("filling the tables of {name}");
            sql(conn.execute(format!("CREATE DATABASE {}", schema(name))))?;
            match sysbench_distribution(name) {
                Some(distribution) => self.sysbench(&server, load, distribution, "prepare")?,
                None => Work::of(name, load.size(self.size))?.fill(&server)?,
            }
        }
        drop(conn);
        sql(server.stop(LIMIT))?;
        let base = self.data.base();
        let log = self.data.home.join("cp.log");
        to_its_end(Command::new("cp").arg("-a").arg(&live).arg(&base), &log)?;
        leave_out_what_no_backup_carries(&base)?;
        self.write(&live)?;
        remove(&live)
    }

    /// Loads whose log is their own.
    fn logs(&self) -> impl Iterator<Item = &'static Load> {
        LOADS.iter().filter(|load| load.name == load.log)
    }

    fn write(&self, live: &Path) -> Result<()> {
        let server = self.start(live, true)?;
        let mut conn = sql(server.connect())?;
        conn.set_read_timeout(LIMIT);
        for load in self.logs() {
            let name = load.name;
            eprintln!("writing the log of {name}");
            sql(conn.execute("FLUSH BINARY LOGS"))?;
            let first = newest(&mut conn)?;
            match sysbench_distribution(name) {
                Some(distribution) => self.sysbench(&server, load, distribution, "run")?,
                None => Work::of(name, load.size(self.size))?.burst(&server)?,
            }
            sql(conn.execute("FLUSH BINARY LOGS"))?;
            let behind = newest(&mut conn)?;
            let to = self.data.log(name);
            at("make", &to, fs::create_dir_all(&to))?;
            for entry in at("read", &self.data.home, fs::read_dir(&self.data.home))? {
                let path = at("read", &self.data.home, entry)?.path();
                let file = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                if file >= first && file < behind {
                    at("copy", &path, fs::copy(&path, to.join(&file)))?;
                }
            }
            let sums = self.data.sums(name);
            at("write", &sums, fs::write(&sums, checksums(&mut conn, name)?.join("\n")))?;
        }
        drop(conn);
        sql(server.stop(LIMIT))
    }

    fn start(&self, live: &Path, binlog: bool) -> Result<PrivateServer> {
        let mut options = StartOptions::new(self.programs.clone(), live);
        options.purpose = "the server that makes the data".to_owned();
        options.timeout = Duration::from_secs(120);
        options.binlog = binlog;
        options.extra_args = [
            "--innodb-buffer-pool-size=2G",
            "--innodb-redo-log-capacity=1G",
            "--innodb-flush-log-at-trx-commit=2",
            "--transaction-isolation=READ-COMMITTED",
        ]
        .map(str::to_owned)
        .to_vec();
        if binlog {
            options.extra_args.push(format!("--log-bin={}", self.data.home.join("binlog").display()));
            options.extra_args.push("--sync-binlog=0".to_owned());
        }
        sql(PrivateServer::start(options))
    }

    fn sysbench(&self, server: &PrivateServer, load: &Load, distribution: &str, step: &str) -> Result<()> {
        let (name, size) = (load.name, load.size(self.size));
        let scripts = self.sysbench.join("root/usr/share/sysbench");
        let mut command = Command::new(self.sysbench.join("bin/sysbench"));
        command.env("LUA_PATH", format!("{}/?.lua", scripts.display()));
        command.arg(scripts.join("oltp_write_only.lua"));
        command.arg(format!("--mysql-socket={}", server.socket().display()));
        command.arg(format!("--mysql-user={CLIENT}")).arg(format!("--mysql-db={}", schema(name)));
        command.arg("--tables=8").arg(format!("--table-size={}", size.of(500_000)));
        command.args(["--threads=8", "--time=0"]).arg(format!("--rand-type={distribution}"));
        command.arg(format!("--events={}", size.of(196_250)));
        let log = self.data.home.join(format!("sysbench-{name}-{step}.log"));
        to_its_end(command.arg(step), &log).map(|_| ())
    }
}

/// How sysbench draws its ids; none for loads of our own.
fn sysbench_distribution(name: &str) -> Option<&'static str> {
    match name {
        "skewed" => Some("special"),
        "uniform" => Some("uniform"),
        _ => None,
    }
}

/// The binlog file that is written now.
fn newest(conn: &mut Conn) -> Result<String> {
    let logs = sql(conn.query("SHOW BINARY LOGS"))?;
    let last = logs.rows.len().checked_sub(1).and_then(|row| logs.text(row, 0));
    last.ok_or_else(|| Error::Server("it writes no binlog".to_owned()))
}
