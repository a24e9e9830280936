//! Replay of a burst of writes: Holdfast beside the server's own parallel applier and the client.
//!
//! Each side starts from a fresh copy of the same folder, on a server with the same settings, and its time
//! ends when the last change is committed. Each end is compared with the source by CHECKSUM TABLE.

use std::fs::{self, File};
use std::io::{BufReader, Read as _};
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_mysql::Conn;
use holdfast_replay::net::{Mode, Options};
use holdfast_replay::serial::{self, server_args};
use holdfast_replay::{EventPlace, Log, LogReader, log::BoxError, scan::scan};

use super::dataset::{DataSet, Servers, copy_for_a_server};
use super::error::{Error, Result, at, sql};
use super::folder::remove;
use super::measure::to_its_end;

/// Longest run of any side: the client needs seven minutes on an idle machine.
const LIMIT: Duration = Duration::from_secs(3600);

/// Binlog files of a burst.
#[derive(Clone, Debug)]
pub struct Files(Vec<PathBuf>);

impl Files {
    /// The files that the burst wrote: made after the filling ended and before its own end.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn of(home: &Path) -> Result<Self> {
        let time = |name: &str| {
            let path = home.join(name);
            at("look at", &path, fs::metadata(&path).and_then(|data| data.modified()))
        };
        let (from, to) = (time("sysbench-prepare.log")?, time("sysbench-run.log")?);
        let mut files = Vec::new();
        for entry in at("read", home, fs::read_dir(home))? {
            let path = at("read", home, entry)?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let numbered =
                name.strip_prefix("binlog.").is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
            let made = at("look at", &path, fs::metadata(&path).and_then(|data| data.created()))?;
            if numbered && made > from && made <= to {
                files.push(path);
            }
        }
        files.sort();
        Ok(Self(files))
    }

    /// Their bytes.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.0.iter().filter_map(|path| fs::metadata(path).ok()).map(|data| data.len()).sum()
    }
}

impl Log for Files {
    fn read(&self) -> std::result::Result<Box<dyn LogReader + '_>, BoxError> {
        Ok(Box::new(Reader { files: &self.0, open: None, position: 0, name: "".into() }))
    }
}

struct Reader<'f> {
    files: &'f [PathBuf],
    open: Option<BufReader<File>>,
    position: u64,
    name: Arc<str>,
}

impl LogReader for Reader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> std::result::Result<Option<EventPlace>, BoxError> {
        loop {
            let Some(open) = &mut self.open else {
                let Some((first, rest)) = self.files.split_first() else { return Ok(None) };
                let mut file = BufReader::with_capacity(1 << 20, File::open(first)?);
                file.read_exact(&mut [0; 4])?;
                self.name = first.file_name().unwrap_or_default().to_string_lossy().into();
                (self.files, self.open, self.position) = (rest, Some(file), 4);
                continue;
            };
            event.resize(19, 0);
            let got = open.read(event.get_mut(..1).unwrap_or_default())?;
            if got == 0 {
                self.open = None;
                continue;
            }
            open.read_exact(event.get_mut(1..).unwrap_or_default())?;
            let length = event.get(9..13).and_then(|len| len.try_into().ok()).map_or(0, u32::from_le_bytes);
            event.resize(length as usize, 0);
            open.read_exact(event.get_mut(19..).unwrap_or_default())?;
            let place = EventPlace { file: Arc::clone(&self.name), position: self.position };
            self.position += u64::from(length);
            return Ok(Some(place));
        }
    }
}

/// What one side took.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Who.
    pub side: String,
    /// Seconds.
    pub seconds: f64,
    /// The server's processor time in seconds.
    pub server_cpu: f64,
}

/// The rig.
#[derive(Debug)]
pub struct Rig {
    /// The data.
    pub data: DataSet,
    /// The folder of the data set, for the binlog.
    pub home: PathBuf,
    /// A folder for copies.
    pub work: PathBuf,
    /// The log.
    pub files: Files,
    /// Programs.
    pub programs: Programs,
    /// What each table must be at the end.
    pub wanted: Vec<String>,
}

impl Rig {
    /// Makes ready: reads the checksums of the source's end.
    ///
    /// # Errors
    /// The server fails; those of the file system.
    pub fn new(data: DataSet, home: PathBuf, work: PathBuf, servers: &Servers) -> Result<Self> {
        let programs = sql(Programs::find(Some(&servers.mysql), holdfast_mysql::Flavor::MySql, None))?;
        at("make", &work, fs::create_dir_all(&work))?;
        let files = Files::of(&home)?;
        let mut rig = Self { data, home, work, files, programs, wanted: Vec::new() };
        let end = rig.copy(&rig.data.gen1.clone(), "end")?;
        let server = rig.start(&end, &[])?;
        rig.wanted = checksums(&mut sql(server.connect())?)?;
        sql(server.stop(LIMIT))?;
        remove(&end)?;
        Ok(rig)
    }

    fn copy(&self, from: &Path, name: &str) -> Result<PathBuf> {
        let to = self.work.join(name);
        copy_for_a_server(from, &to, &self.work.join("cp.log"))?;
        Ok(to)
    }

    fn options(&self, folder: &Path, more: &[String]) -> StartOptions {
        let mut options = StartOptions::new(self.programs.clone(), folder);
        options.timeout = Duration::from_secs(300);
        options.extra_args = server_args(Flavor::MySql);
        options.extra_args.push("--innodb-buffer-pool-size=3G".to_owned());
        options.extra_args.extend(more.iter().cloned());
        options
    }

    fn start(&self, folder: &Path, more: &[String]) -> Result<PrivateServer> {
        sql(PrivateServer::start(self.options(folder, more)))
    }

    fn end(&self, side: &str, server: PrivateServer, folder: &Path) -> Result<()> {
        let found = checksums(&mut sql(server.connect())?)?;
        sql(server.stop(LIMIT))?;
        remove(folder)?;
        if found == self.wanted {
            return Ok(());
        }
        Err(Error::Differs {
            tool: side.to_owned(),
            path: folder.to_path_buf(),
            got: format!("{found:?} and not {:?}", self.wanted),
        })
    }

    /// Holdfast. The time includes the look through the log before the first write.
    ///
    /// # Errors
    /// The replay fails, or its end is not the source's.
    pub fn holdfast(&self, options: &Options) -> Result<Sample> {
        let side = format!(
            "holdfast {:?}, {} connections, {} KiB",
            options.mode,
            options.connections,
            options.chunk_bytes >> 10
        );
        let folder = self.copy(&self.data.gen0, "holdfast")?;
        let server = self.start(&folder, &[])?;
        let mut conn = sql(server.connect())?;
        let plan = serial::Options {
            plan: "bench".to_owned(),
            boot_id: "bench".to_owned(),
            base: GtidSet::empty(Flavor::MySql),
            done: 0,
        };
        let cpu = cpu_of(&folder);
        let begun = Instant::now();
        let summary = sql(scan(&self.files))?;
        let scanned = begun.elapsed().as_secs_f64();
        let connect = || server.connect().map_err(|error| Box::new(error) as BoxError);
        sql(holdfast_replay::run(&mut conn, &connect, &self.files, &plan, options, &summary, &mut |_| {
            ControlFlow::Continue(())
        }))?;
        let seconds = begun.elapsed().as_secs_f64();
        let side = format!("{side} (scan {scanned:.2})");
        let server_cpu = cpu_of(&folder) - cpu;
        drop(conn);
        self.end(&side, server, &folder)?;
        Ok(Sample { side, seconds, server_cpu })
    }

    /// The server's own applier, from relay logs that are on the disk already.
    ///
    /// # Errors
    /// A server fails, or its end is not the source's.
    pub fn applier(&self, workers: u32) -> Result<Sample> {
        let side = format!("the server's applier, {workers} workers");
        let end = self.copy(&self.data.gen1, "source")?;
        let port =
            at("take a port", &end, TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()))?.port();
        let mut options = self.options(&end, &["--server-id=1".to_owned()]);
        options.binlog = true;
        options.listen = Listen::Loopback(port);
        options.extra_args.push(format!("--log-bin={}", self.home.join("binlog").display()));
        let source = sql(PrivateServer::start(options))?;
        let mut conn = sql(source.connect())?;
        sql(conn.execute("CREATE USER IF NOT EXISTS 'replica'@'%' IDENTIFIED BY 'only-for-Benches-1'"))?;
        sql(conn.execute("GRANT REPLICATION SLAVE ON *.* TO 'replica'@'%'"))?;
        let folder = self.copy(&self.data.gen0, "replica")?;
        let more = [
            "--server-id=2".to_owned(),
            format!("--replica-parallel-workers={workers}"),
            "--replica-preserve-commit-order=OFF".to_owned(),
            "--relay-log=relay".to_owned(),
        ];
        let server = self.start(&folder, &more)?;
        let mut conn = sql(server.connect())?;
        let name = |path: Option<&PathBuf>| {
            path.and_then(|p| p.file_name()).unwrap_or_default().to_string_lossy().into_owned()
        };
        let (first, last) = (name(self.files.0.first()), name(self.files.0.last()));
        sql(conn.execute(format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='replica', \
             SOURCE_PASSWORD='only-for-Benches-1', GET_SOURCE_PUBLIC_KEY=1, SOURCE_LOG_FILE='{first}', SOURCE_LOG_POS=4"
        )))?;
        sql(conn.execute("START REPLICA IO_THREAD"))?;
        wait(&mut conn, "Source_Log_File", &last)?;
        sql(conn.execute("STOP REPLICA IO_THREAD"))?;
        let cpu = cpu_of(&folder);
        let begun = Instant::now();
        sql(conn.execute("START REPLICA SQL_THREAD"))?;
        wait(&mut conn, "Relay_Source_Log_File", &last)?;
        let seconds = begun.elapsed().as_secs_f64();
        let server_cpu = cpu_of(&folder) - cpu;
        sql(conn.execute("STOP REPLICA"))?;
        drop(conn);
        sql(source.stop(LIMIT))?;
        remove(&end)?;
        self.end(&side, server, &folder)?;
        Ok(Sample { side, seconds, server_cpu })
    }

    /// `mysqlbinlog | mysql`.
    ///
    /// # Errors
    /// A program fails, or its end is not the source's.
    pub fn client(&self, servers: &Servers) -> Result<Sample> {
        let side = "mysqlbinlog | mysql".to_owned();
        let folder = self.copy(&self.data.gen0, "client")?;
        let server = self.start(&folder, &[])?;
        let mut conn = sql(server.connect())?;
        sql(conn.execute("CREATE USER 'client'@'localhost'"))?;
        sql(conn.execute("GRANT ALL ON *.* TO 'client'@'localhost'"))?;
        let programs = servers.mysql.join("bin");
        let mut line = format!("set -o pipefail; {}/mysqlbinlog", programs.display());
        for file in &self.files.0 {
            line.push_str(&format!(" {}", file.display()));
        }
        line.push_str(&format!(
            " | {}/mysql --no-defaults --user=client --socket={}",
            programs.display(),
            server.socket().display()
        ));
        let cpu = cpu_of(&folder);
        let begun = Instant::now();
        to_its_end(Command::new("bash").arg("-c").arg(line), &self.work.join("client.log"))?;
        let seconds = begun.elapsed().as_secs_f64();
        let server_cpu = cpu_of(&folder) - cpu;
        drop(conn);
        self.end(&side, server, &folder)?;
        Ok(Sample { side, seconds, server_cpu })
    }
}

/// Waits until a replica's status names a file behind `last`, or the applier has nothing more to do.
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

fn checksums(conn: &mut Conn) -> Result<Vec<String>> {
    conn.set_read_timeout(LIMIT);
    let mut out = Vec::new();
    for number in 1..=8 {
        let found = sql(conn.query(format!("CHECKSUM TABLE sbtest.sbtest{number}")))?;
        out.push(found.text(0, 1).unwrap_or_default());
    }
    Ok(out)
}

/// Processor time of the server on a folder, in seconds.
fn cpu_of(folder: &Path) -> f64 {
    let pid = fs::read_dir(folder).into_iter().flatten().flatten().find_map(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.ends_with(".pid").then(|| fs::read_to_string(entry.path()).ok()).flatten()
    });
    let Some(pid) = pid else { return 0.0 };
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    fields.skip(11).take(2).filter_map(|ticks| ticks.parse::<f64>().ok()).sum::<f64>() / 100.0
}

/// Net change with so many connections and chunks of so many bytes.
#[must_use]
pub fn net(connections: usize, chunk_bytes: usize) -> Options {
    Options { mode: Mode::Net, connections, chunk_bytes, ..Options::default() }
}
