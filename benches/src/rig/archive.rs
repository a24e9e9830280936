//! The archive: how fast a log is received beside `mysqlbinlog --raw`, and what a commit costs that waits for the archive
//! beside one that waits for a stock replica.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;
use holdfast_archive::{FollowOptions, Note, Origin, Until, follow};
use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions};
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::ids::ServerId;
use holdfast_format::record::{Position, StreamKey};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint};
use holdfast_store::{Argon2Cost, Clock, CreateOptions, FixedClock, OpenOptions, Repository, Secret};

use super::dataset::{DataSet, Servers, copy_for_a_server};
use super::error::{Error, Result, at, sql};
use super::folder::{bytes_below, remove};
use super::measure::{own_seconds, to_its_end};
use super::stored::{Stored, stored};

const USER: &str = "replica";
const PASSWORD: &str = "only-for-Benches-1";

/// Longest wait for a server or a replica.
const LIMIT: Duration = Duration::from_secs(600);

/// Longest commit that the histogram holds, microseconds.
const COMMIT_MAX_US: u64 = 60_000_000;

/// What one side took to receive the log.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who.
    pub side: &'static str,
    /// Seconds.
    pub seconds: f64,
    /// Seconds of processor time of the receiver alone.
    pub cpu_seconds: f64,
    /// Bytes of log that came.
    pub bytes: u64,
    /// What they take in the repository, where it is one.
    pub stored: Option<Stored>,
}

/// What commits wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Nobody.
    Nobody,
    /// The archive: until the transaction is durable in the repository.
    Archive,
    /// A stock replica: until the transaction is in its relay log, which is not synced each time by default.
    Replica,
}

impl Waiting {
    /// All, in the order in which they take turns.
    pub const ALL: [Self; 3] = [Self::Nobody, Self::Archive, Self::Replica];

    /// For people.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Nobody => "nobody waits",
            Self::Archive => "holdfast archive --semi-sync",
            Self::Replica => "a stock semi-sync replica",
        }
    }
}

/// The rig.
#[derive(Debug)]
pub struct Rig {
    data: DataSet,
    home: PathBuf,
    work: PathBuf,
    mysql: PathBuf,
    programs: Programs,
}

impl Rig {
    /// Makes ready.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(data: DataSet, home: PathBuf, work: PathBuf, servers: &Servers) -> Result<Self> {
        let programs = sql(Programs::find(Some(&servers.mysql), holdfast_mysql::Flavor::MySql, None))?;
        at("make", &work, fs::create_dir_all(&work))?;
        Ok(Self { data, home, work, mysql: servers.mysql.clone(), programs })
    }

    fn start(&self, from: &Path, name: &str, binlog: &Path, more: &[&str]) -> Result<PrivateServer> {
        let folder = self.work.join(name);
        copy_for_a_server(from, &folder, &self.work.join("cp.log"))?;
        let port =
            at("take a port", &folder, TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()))?.port();
        let mut options = StartOptions::new(self.programs.clone(), &folder);
        options.timeout = LIMIT;
        options.binlog = true;
        options.listen = Listen::Loopback(port);
        options.extra_args = vec![
            format!("--log-bin={}", binlog.display()),
            "--innodb-buffer-pool-size=1G".to_owned(),
            "--sync-binlog=1".to_owned(),
            "--innodb-flush-log-at-trx-commit=1".to_owned(),
        ];
        options.extra_args.extend(more.iter().map(|&arg| arg.to_owned()));
        let server = sql(PrivateServer::start(options))?;
        let mut conn = sql(server.connect())?;
        sql(conn.execute("SET sql_log_bin = 0"))?;
        sql(conn.execute(format!("CREATE USER IF NOT EXISTS '{USER}'@'%' IDENTIFIED BY '{PASSWORD}'")))?;
        sql(conn.execute(format!("GRANT REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO '{USER}'@'%'")))?;
        Ok(server)
    }

    fn repository(&self) -> Result<(PathBuf, Repository)> {
        let dir = self.work.join("repository");
        remove(&dir)?;
        let repository = new_repository(&dir)?;
        Ok((dir, repository))
    }

    /// Receives the whole log of the burst, once by the archive and once by `mysqlbinlog --raw`, from the same server.
    ///
    /// # Errors
    /// A server or a program fails.
    pub fn receive(&self, rounds: u32) -> Result<Vec<Received>> {
        let source = self.start(&self.data.gen1, "source", &self.home.join("binlog"), &["--server-id=1"])?;
        let logs = sql(sql(source.connect())?.query("SHOW BINARY LOGS"))?;
        let name = |row: usize| logs.text(row, 0).unwrap_or_default();
        let (first, last) = (name(0), name(logs.rows.len().saturating_sub(1)));
        let mut all = Vec::new();
        for _ in 0..rounds {
            all.push(self.receive_by_archive(&source, &first)?);
            all.push(self.receive_by_client(&source, &first, &last)?);
        }
        sql(source.stop(LIMIT))?;
        remove(&self.work)?;
        Ok(all)
    }

    fn receive_by_archive(&self, source: &PrivateServer, first: &str) -> Result<Received> {
        let (dir, repository) = self.repository()?;
        let begin = Position { file: first.to_owned(), offset: 4, gtid: GtidSet::empty(Flavor::MySql) };
        let mut options = FollowOptions::new(account(source), 4_000_000_001);
        options.dump.until_end = true;
        let (began, cpu) = (Instant::now(), own_seconds()?);
        let followed = sql(follow(
            &repository,
            &stream(),
            &[Origin { at: begin, mark: None }],
            &options,
            &Until::EndOfLog,
            &AtomicBool::new(false),
            &mut |_: Note<'_>| {},
        ))?;
        let (seconds, cpu_seconds) = (began.elapsed().as_secs_f64(), own_seconds()? - cpu);
        let stored = Some(stored(&dir)?);
        Ok(Received { side: "holdfast archive", seconds, cpu_seconds, bytes: followed.bytes, stored })
    }

    fn receive_by_client(&self, source: &PrivateServer, first: &str, last: &str) -> Result<Received> {
        let raw = self.work.join("raw");
        remove(&raw)?;
        at("make", &raw, fs::create_dir_all(&raw))?;
        let mut command = Command::new("bash");
        let port = source.port().unwrap_or_default().to_string();
        // The shell's `times` has the processor time of what it ran.
        command.arg("-c").arg(format!(
            "{}/mysqlbinlog --no-defaults --read-from-remote-server --raw --to-last-log --host=127.0.0.1 --port={port} \
             --user={USER} --password={PASSWORD} --get-server-public-key --result-file={}/ {first} && sync -f {} && times",
            self.mysql.join("bin").display(),
            raw.display(),
            raw.display()
        ));
        let log = self.work.join("mysqlbinlog.log");
        let began = Instant::now();
        to_its_end(&mut command, &log)?;
        let seconds = began.elapsed().as_secs_f64();
        let text = at("read", &log, fs::read_to_string(&log))?;
        let bytes = bytes_below(&raw)?;
        if !raw.join(last).exists() {
            return Err(Error::Server(format!("mysqlbinlog did not fetch {last}")));
        }
        Ok(Received { side: "mysqlbinlog --raw", seconds, cpu_seconds: times_of(&text), bytes, stored: None })
    }

    /// The time of commits with `clients` clients, for `span` each, in turns; a histogram of microseconds for each of
    /// [`Waiting::ALL`].
    ///
    /// # Errors
    /// A server fails, or commits do not wait for whom they should.
    pub fn commits(
        &self,
        clients: usize,
        span: Duration,
        rounds: u32,
    ) -> Result<Vec<(Waiting, Histogram<u64>)>> {
        let source_args = ["--server-id=1", "--plugin-load-add=semisync_source.so", "--gtid-mode=ON"];
        let more = ["--enforce-gtid-consistency=ON"];
        let source = self.start(
            &self.data.gen0,
            "source",
            &self.work.join("source-binlog"),
            &[source_args.as_slice(), more.as_slice()].concat(),
        )?;
        let replica_args = ["--server-id=2", "--plugin-load-add=semisync_replica.so", "--gtid-mode=ON"];
        let replica = self.start(
            &self.data.gen0,
            "replica",
            &self.work.join("replica-binlog"),
            &[replica_args.as_slice(), more.as_slice()].concat(),
        )?;
        let mut conn = sql(source.connect())?;
        sql(conn.execute("CREATE DATABASE bench"))?;
        sql(conn
            .execute("CREATE TABLE bench.t (id BIGINT AUTO_INCREMENT PRIMARY KEY, pad CHAR(120) NOT NULL)"))?;
        sql(conn.execute("SET GLOBAL rpl_semi_sync_source_timeout = 60000"))?;
        let mut results = Vec::new();
        for waiting in Waiting::ALL {
            results.push((waiting, sql(Histogram::<u64>::new_with_bounds(1, COMMIT_MAX_US, 3))?));
        }
        for _ in 0..rounds {
            for (waiting, histogram) in &mut results {
                let stop = AtomicBool::new(false);
                let measured = std::thread::scope(|scope| {
                    let archive = (*waiting == Waiting::Archive).then(|| {
                        let (source, stop) = (&source, &stop);
                        scope.spawn(move || self.follow_semi_sync(source, stop))
                    });
                    let measured = attach(*waiting, &source, &replica, &mut conn)
                        .and_then(|gave_up| load(&source, clients, span, histogram).map(|()| gave_up))
                        .and_then(|gave_up| detach(*waiting, &replica, &mut conn, &gave_up));
                    stop.store(true, Ordering::Relaxed);
                    match archive.map(std::thread::ScopedJoinHandle::join) {
                        Some(Ok(followed)) => measured.and(followed),
                        Some(Err(_)) => Err(Error::Server("the archive's thread died".to_owned())),
                        None => measured,
                    }
                });
                measured?;
            }
        }
        drop(conn);
        sql(source.stop(LIMIT))?;
        sql(replica.stop(LIMIT))?;
        remove(&self.work)?;
        Ok(results)
    }

    fn follow_semi_sync(&self, source: &PrivateServer, stop: &AtomicBool) -> Result<()> {
        let (_, repository) = self.repository()?;
        let mut options = FollowOptions::new(account(source), 4_000_000_001);
        options.semi_sync = true;
        let told = &mut |_: Note<'_>| {};
        sql(follow(&repository, &stream(), &[], &options, &Until::Stopped, stop, told)).map(drop)
    }
}

/// A new repository in a folder, whose passphrase costs nothing to try.
pub(super) fn new_repository(dir: &Path) -> Result<Repository> {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(1_700_000_000_000_000));
    let objects: Arc<dyn Objects> = Arc::new(sql(Directory::create(RealDisk::shared(), dir))?);
    let options = CreateOptions {
        open: OpenOptions::new(clock),
        argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
        program: "bench".to_owned(),
    };
    let (repository, ..) =
        sql(Repository::create(objects, options, &Secret::passphrase("only for benches")))?;
    Ok(repository)
}

fn stream() -> StreamKey {
    StreamKey { server: ServerId([1; 16]), source_uuid: Uuid([2; 16]), incarnation: 0 }
}

fn account(source: &PrivateServer) -> ConnectOptions {
    let host = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: source.port().unwrap_or_default() };
    let password = holdfast_mysql::Secret::new(PASSWORD.as_bytes().to_vec());
    ConnectOptions::new(host, USER).password(password).trust_key_as_sent()
}

/// Lets commits wait for whom they should, and sees that they do. Gives how often the source gave up waiting before.
fn attach(
    waiting: Waiting,
    source: &PrivateServer,
    replica: &PrivateServer,
    conn: &mut Conn,
) -> Result<String> {
    if waiting == Waiting::Nobody {
        return Ok(String::new());
    }
    if waiting == Waiting::Replica {
        let mut conn = sql(replica.connect())?;
        sql(conn.execute("SET GLOBAL rpl_semi_sync_replica_enabled = ON"))?;
        sql(conn.execute(format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {}, SOURCE_USER = '{USER}', \
             SOURCE_PASSWORD = '{PASSWORD}', GET_SOURCE_PUBLIC_KEY = 1, SOURCE_AUTO_POSITION = 1",
            source.port().unwrap_or_default()
        )))?;
        sql(conn.execute("START REPLICA"))?;
        wait_until("the replica has caught up", || {
            let status = sql(conn.query("SHOW REPLICA STATUS"))?;
            let state = status.text_by_name(0, "Replica_SQL_Running_State").unwrap_or_default();
            Ok(state.starts_with("Replica has read all relay log"))
        })?;
    }
    wait_until("the source has one semi-sync replica", || Ok(status(conn, "clients")? == "1"))?;
    sql(conn.execute("SET GLOBAL rpl_semi_sync_source_enabled = ON"))?;
    wait_until("commits wait", || Ok(status(conn, "status")? == "ON"))?;
    status(conn, "no_times")
}

fn detach(waiting: Waiting, replica: &PrivateServer, conn: &mut Conn, gave_up: &str) -> Result<()> {
    if waiting == Waiting::Nobody {
        return Ok(());
    }
    let (on, times) = (status(conn, "status")?, status(conn, "no_times")?);
    if on != "ON" || times != gave_up {
        let why = format!(
            "commits did not wait all the time: status {on}, given up {times} times, {gave_up} before"
        );
        return Err(Error::Server(why));
    }
    sql(conn.execute("SET GLOBAL rpl_semi_sync_source_enabled = OFF"))?;
    if waiting == Waiting::Replica {
        sql(sql(replica.connect())?.execute("STOP REPLICA"))?;
    }
    Ok(())
}

fn status(conn: &mut Conn, what: &str) -> Result<String> {
    let rows = sql(conn.query(format!("SHOW GLOBAL STATUS LIKE 'Rpl_semi_sync_source_{what}'")))?;
    Ok(rows.text(0, 1).unwrap_or_default())
}

fn wait_until(what: &str, mut is_so: impl FnMut() -> Result<bool>) -> Result<()> {
    let began = Instant::now();
    while !is_so()? {
        if began.elapsed() > LIMIT {
            return Err(Error::Server(format!("waited {} s until {what}", LIMIT.as_secs())));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Clients that insert one row at a time, each a transaction.
fn load(
    source: &PrivateServer,
    clients: usize,
    span: Duration,
    histogram: &mut Histogram<u64>,
) -> Result<()> {
    let end = Instant::now() + span;
    let client = || -> Result<Histogram<u64>> {
        let mut conn = sql(source.connect())?;
        let mut own = sql(Histogram::<u64>::new_with_bounds(1, COMMIT_MAX_US, 3))?;
        while Instant::now() < end {
            let began = Instant::now();
            sql(conn.execute("INSERT INTO bench.t (pad) VALUES (REPEAT('x', 120))"))?;
            let took = u64::try_from(began.elapsed().as_micros()).unwrap_or(COMMIT_MAX_US);
            own.saturating_record(took.clamp(1, COMMIT_MAX_US));
        }
        Ok(own)
    };
    let all: Vec<_> = std::thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(std::thread::ScopedJoinHandle::join).collect()
    });
    for own in all {
        let own = own.map_err(|_| Error::Server("a client's thread died".to_owned()))??;
        sql(histogram.add(own))?;
    }
    Ok(())
}

/// Seconds of the children in what the shell's `times` prints: `0m1.20s 0m0.30s` in its second line.
fn times_of(text: &str) -> f64 {
    let line = text.lines().last().unwrap_or_default();
    line.split_whitespace()
        .filter_map(|time| {
            let (minutes, seconds) = time.trim_end_matches('s').split_once('m')?;
            Some(minutes.parse::<f64>().ok()? * 60.0 + seconds.parse::<f64>().ok()?)
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::times_of;

    #[test]
    fn the_shells_times_are_those_of_its_children() {
        assert!((times_of("0m0.001s 0m0.002s\n1m2.500s 0m0.250s\n") - 62.75).abs() < 1e-9);
    }
}
