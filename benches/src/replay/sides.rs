//! The three sides of a replay.
//!
//! Each starts from a fresh copy of the same folder, on a server with the same settings. Its time begins when
//! that server is up and the log is local, and ends when the last change is committed. Each end is compared with the
//! source's by CHECKSUM TABLE of every table of the load.

use std::fs;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_mysql::Conn;
use holdfast_replay::log::BoxError;
use holdfast_replay::net::Options;
use holdfast_replay::scan::scan;
use holdfast_replay::serial::{self, server_args};
use holdfast_restore::tuning::{self, Facts};

use super::Load;
use super::data::{CLIENT, Data, PASSWORD, REPLICA, checksums};
use super::files::Files;
use crate::rig::dataset::copy_for_a_server;
use crate::rig::error::{Error, Result, at, sql};
use crate::rig::folder::remove;
use crate::rig::machine::{kibibytes, value_of, warm_memory};
use crate::rig::measure::{own_seconds, to_its_end};

/// Longest run of any side: the client needs seven minutes for sysbench's whole load on an idle machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// Whoever replays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Holdfast, net change.
    Holdfast,
    /// The same, on a server with the settings of a restore (`holdfast_restore::tuning`).
    Tuned,
    /// The server's own applier with four workers.
    Applier,
    /// `mysqlbinlog | mysql`.
    Client,
}

impl Side {
    /// In words.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Holdfast => "holdfast",
            Self::Tuned => "holdfast, with the settings of a restore",
            Self::Applier => "the server's applier, 4 workers",
            Self::Client => "mysqlbinlog \\| mysql",
        }
    }
}

/// What one side took, once.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who.
    pub side: Side,
    /// Seconds.
    pub seconds: f64,
    /// The server's processor time in seconds.
    pub server_cpu: f64,
    /// Our own processor time in seconds; 0 for the others.
    pub own_cpu: f64,
    /// Rows that Holdfast handed to the server; 0 for the others.
    pub written: u64,
    /// The largest resident memory of Holdfast's engine (this program) in bytes; 0 for the others.
    pub memory_bytes: u64,
    /// Tables that Holdfast replayed in order, and why.
    pub in_order: Vec<String>,
}

/// The rig.
#[derive(Debug)]
pub struct Rig<'a> {
    /// The data.
    pub data: &'a Data,
    /// A folder for copies.
    pub work: PathBuf,
    /// The server.
    pub programs: &'a Programs,
    /// The folder of `mysqlbinlog` and `mysql`.
    pub client: PathBuf,
}

impl Rig<'_> {
    fn copy(&self, name: &str) -> Result<PathBuf> {
        at("make", &self.work, fs::create_dir_all(&self.work))?;
        let to = self.work.join(name);
        copy_for_a_server(&self.data.base(), &to, &self.work.join("cp.log"))?;
        // What was copied just now is not to be written out while the clock runs.
        rustix::fs::sync();
        Ok(to)
    }

    fn options(&self, folder: &Path, load: &Load, more: &[String]) -> StartOptions {
        let mut options = StartOptions::new(self.programs.clone(), folder);
        options.timeout = Duration::from_secs(300);
        options.extra_args = server_args(Flavor::MySql);
        let pool = load.pool(self.data.table_bytes(load.log));
        options.extra_args.push(format!("--innodb-buffer-pool-size={pool}M"));
        // The folder has the pages that its server had read last; reading them again would go on behind the start.
        options.extra_args.push("--innodb-buffer-pool-load-at-startup=OFF".to_owned());
        options.extra_args.extend(more.iter().cloned());
        options
    }

    fn start(&self, folder: &Path, load: &Load, more: &[String]) -> Result<PrivateServer> {
        warm_memory();
        sql(PrivateServer::start(self.options(folder, load, more)))
    }

    fn end(&self, side: Side, load: &Load, server: PrivateServer) -> Result<()> {
        let found = checksums(&mut sql(server.connect())?, load.log)?;
        let folder = server.datadir().to_path_buf();
        sql(server.stop(LIMIT))?;
        remove(&folder)?;
        let wanted = self.data.checksums(load.log)?;
        if found == wanted {
            return Ok(());
        }
        Err(Error::Differs {
            tool: format!("the replay of {} by {}", load.name, side.words()),
            path: folder,
            got: format!("{found:?} and not {wanted:?}"),
        })
    }

    /// One side, once.
    ///
    /// # Errors
    /// A server or a replay fails, or its end is not the source's.
    pub fn take(&self, side: Side, load: &Load, options: &Options) -> Result<Sample> {
        let files = Files::of(&self.data.log(load.log))?;
        match side {
            Side::Holdfast => self.holdfast(side, load, &files, options, &[]),
            Side::Tuned => self.holdfast(side, load, &files, options, &self.tuning(load, &files)),
            Side::Applier => self.applier(load, &files),
            Side::Client => self.client(load, &files),
        }
    }

    /// The time includes the look through the log before the first write.
    fn holdfast(
        &self,
        side: Side,
        load: &Load,
        files: &Files,
        options: &Options,
        more: &[String],
    ) -> Result<Sample> {
        let folder = self.copy("holdfast")?;
        let server = self.start(&folder, load, more)?;
        let mut conn = sql(server.connect())?;
        let plan = serial::Options {
            plan: "bench".to_owned(),
            boot_id: "bench".to_owned(),
            base: GtidSet::empty(Flavor::MySql),
            done: 0,
        };
        // The largest resident memory counts from here.
        at("write", Path::new("/proc/self/clear_refs"), fs::write("/proc/self/clear_refs", "5"))?;
        let (cpu, own) = (cpu_of(&server), own_seconds()?);
        let begun = Instant::now();
        let summary = sql(scan(files))?;
        let connect = || server.connect().map_err(|error| Box::new(error) as BoxError);
        let go_on = &mut |_: &serial::Progress| ControlFlow::Continue(());
        let outcome = sql(holdfast_replay::run(&mut conn, &connect, files, &plan, options, &summary, go_on))?;
        let seconds = begun.elapsed().as_secs_f64();
        let (server_cpu, own_cpu) = (cpu_of(&server) - cpu, own_seconds()? - own);
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let memory_bytes = value_of(&status, "VmHWM").and_then(kibibytes).unwrap_or(0);
        let in_order =
            outcome.classes.iter().filter(|(_, class)| **class != holdfast_replay::net::Class::Net);
        let in_order = in_order.map(|(table, class)| format!("{table}: {class}")).collect();
        let written = outcome.written;
        drop(conn);
        self.end(side, load, server)?;
        Ok(Sample { side, seconds, server_cpu, own_cpu, written, memory_bytes, in_order })
    }

    /// What a restore would give its server for this log, but for the buffer pool, which is the load's.
    fn tuning(&self, load: &Load, files: &Files) -> Vec<String> {
        let disk_left = rustix::fs::statvfs(&self.work).map_or(0, |stat| stat.f_bavail * stat.f_frsize);
        let (log_bytes, base_bytes) = (files.bytes(), self.data.table_bytes(load.log));
        let facts = Facts { log_bytes, base_bytes, disk_left, memory_free: 0 };
        let mut args = tuning::choose(&self.programs.version, &facts).args;
        args.retain(|arg| !arg.contains("buffer-pool-size"));
        args
    }

    /// From relay logs that are on the disk already; the server that handed them over is stopped by then.
    fn applier(&self, load: &Load, files: &Files) -> Result<Sample> {
        let (source, port) = self.source(files)?;
        let folder = self.copy("replica")?;
        let more = [
            "--server-id=2",
            "--replica-parallel-workers=4",
            "--replica-preserve-commit-order=OFF",
            // How often it says how far it is: what it takes must not be rounded up to 300 ms.
            "--replica-checkpoint-period=10",
            "--relay-log=relay",
        ];
        let server = self.start(&folder, load, &more.map(str::to_owned))?;
        let mut conn = sql(server.connect())?;
        let name = |path: Option<&PathBuf>| {
            path.and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy().into_owned()
        };
        let (first, last) = (name(files.paths().first()), name(files.paths().last()));
        sql(conn.execute(format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='{REPLICA}', \
             SOURCE_PASSWORD='{PASSWORD}', GET_SOURCE_PUBLIC_KEY=1, SOURCE_LOG_FILE='{first}', SOURCE_LOG_POS=4"
        )))?;
        sql(conn.execute("START REPLICA IO_THREAD"))?;
        wait(&mut conn, "Source_Log_File", &last)?;
        sql(conn.execute("STOP REPLICA IO_THREAD"))?;
        let served = source.datadir().to_path_buf();
        sql(source.stop(LIMIT))?;
        remove(&served)?;
        let cpu = cpu_of(&server);
        let begun = Instant::now();
        sql(conn.execute("START REPLICA SQL_THREAD"))?;
        wait(&mut conn, "Relay_Source_Log_File", &last)?;
        let seconds = begun.elapsed().as_secs_f64();
        let server_cpu = cpu_of(&server) - cpu;
        sql(conn.execute("STOP REPLICA"))?;
        drop(conn);
        self.end(Side::Applier, load, server)?;
        Ok(plain(Side::Applier, seconds, server_cpu))
    }

    /// A server that hands the files of a load out, and nothing else. It begins a file behind them, whose name
    /// tells a replica that it has them all.
    fn source(&self, files: &Files) -> Result<(PrivateServer, u16)> {
        let folder = self.copy("source")?;
        let served = self.work.join("served");
        remove(&served)?;
        at("make", &served, fs::create_dir_all(&served))?;
        let mut index = String::new();
        for file in files.paths() {
            let to = served.join(file.file_name().unwrap_or_default());
            at("copy", file, fs::copy(file, &to))?;
            index.push_str(&format!("{}\n", to.display()));
        }
        let list = served.join("binlog.index");
        at("write", &list, fs::write(&list, index))?;
        let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = at("take a port on", &served, listener)?.port();
        let mut options = StartOptions::new(self.programs.clone(), folder);
        options.binlog = true;
        options.listen = Listen::Loopback(port);
        options.extra_args =
            vec!["--server-id=1".to_owned(), format!("--log-bin={}", served.join("binlog").display())];
        Ok((sql(PrivateServer::start(options))?, port))
    }

    fn client(&self, load: &Load, files: &Files) -> Result<Sample> {
        let folder = self.copy("client")?;
        let server = self.start(&folder, load, &[])?;
        let mut line = format!("set -o pipefail; {}/mysqlbinlog", self.client.display());
        for file in files.paths() {
            line.push_str(&format!(" {}", file.display()));
        }
        line.push_str(&format!(
            " | {}/mysql --no-defaults --user={CLIENT} --socket={}",
            self.client.display(),
            server.socket().display()
        ));
        let cpu = cpu_of(&server);
        let begun = Instant::now();
        to_its_end(Command::new("bash").arg("-c").arg(line), &self.work.join("client.log"))?;
        let seconds = begun.elapsed().as_secs_f64();
        let server_cpu = cpu_of(&server) - cpu;
        self.end(Side::Client, load, server)?;
        Ok(plain(Side::Client, seconds, server_cpu))
    }
}

fn plain(side: Side, seconds: f64, server_cpu: f64) -> Sample {
    Sample { side, seconds, server_cpu, own_cpu: 0.0, written: 0, memory_bytes: 0, in_order: Vec::new() }
}

/// Waits until a replica's status names a file behind `last`.
fn wait(conn: &mut Conn, column: &str, last: &str) -> Result<()> {
    let begun = Instant::now();
    loop {
        let status = sql(conn.query("SHOW REPLICA STATUS"))?;
        let text = |column: &str| status.text_by_name(0, column).unwrap_or_default();
        for error in ["Last_IO_Error", "Last_SQL_Error"] {
            if !text(error).is_empty() {
                return Err(Error::Server(text(error)));
            }
        }
        if text(column).as_str() > last {
            return Ok(());
        }
        if begun.elapsed() > LIMIT {
            return Err(Error::Server(format!("{column} stays at {}", text(column))));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Processor time of a server, in seconds.
fn cpu_of(server: &PrivateServer) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}
