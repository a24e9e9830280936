//! The data sets: a real MySQL filled by sysbench, before and after a burst of writes.
//!
//! `gen0` is the stopped server's folder after `prepare`, `gen1` the same folder after
//! `oltp_write_only`, both without the redo log and temporary tablespaces: that is what a
//! physical backup carries. The binlog of the burst stays beside them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::error::{Error, Result, at};
use super::folder::{bring_home, remove};
use super::machine::value_of;
use super::measure::to_its_end;

/// A server that has not started or stopped by then never will.
const SERVER_DEADLINE: Duration = Duration::from_secs(120);

/// What no backup carries: the redo log and temporary tablespaces.
const LEFT_OUT: [&str; 3] = ["#innodb_redo", "#innodb_temp", "ibtmp1"];

/// How large a data set is.
#[derive(Clone, Copy, Debug)]
pub struct Scale {
    /// The name of its folder.
    pub name: &'static str,
    /// Rows in each of the eight tables.
    pub rows: u32,
    /// Transactions of `oltp_write_only` between the generations, four row changes each. A count
    /// and no time: the same work on each machine, however busy.
    pub transactions: u32,
    /// How sysbench draws ids: `special` (its default, with hot ones) or `uniform`.
    pub distribution: &'static str,
}

/// The data set of the published figures: 785,000 row changes, what two cores do in a minute.
pub const FULL: Scale = Scale { name: "full", rows: 500_000, transactions: 196_250, distribution: "special" };

/// A tenth of it, to check the rig itself.
pub const SMALL: Scale = Scale { name: "small", rows: 50_000, transactions: 19_625, ..FULL };

const TABLES: u32 = 8;
const THREADS: u32 = 8;

/// A data set on disk.
#[derive(Clone, Debug)]
pub struct DataSet {
    /// The folder before the burst of writes.
    pub gen0: PathBuf,
    /// The folder after it.
    pub gen1: PathBuf,
    /// The folder that is backed up. It holds the data one level deeper: a folder that looks like
    /// a server's would have Holdfast start that server after a restore and prove it, which is
    /// more work than the other tools are asked for.
    pub source: PathBuf,
    /// Where in it the tools see one generation or the other.
    pub place: PathBuf,
    /// What the burst did, in sysbench's words, and which server did it.
    pub story: String,
}

/// Where the unpacked programs are (`tools/get-server` put them there).
#[derive(Clone, Debug)]
pub struct Servers {
    /// MySQL's folder, with `bin/mysqld`.
    pub mysql: PathBuf,
    /// sysbench's folder, with `bin/sysbench` and its scripts.
    pub sysbench: PathBuf,
}

/// Where data sets are made, of which size, and with which programs: what each program of this package asks for.
#[derive(Clone, Debug, clap::Args)]
pub struct Place {
    /// Folder for data sets, kept between runs, and for repositories and copies, removed after each
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Folder of an unpacked MySQL
    #[arg(long, value_name = "DIR")]
    pub mysql: PathBuf,
    /// Folder of an unpacked sysbench
    #[arg(long, value_name = "DIR")]
    pub sysbench: PathBuf,
    /// A tenth of the data, to check the rig
    #[arg(long)]
    pub small: bool,
}

impl Place {
    /// The data folder, made if it is not there.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn top(&self) -> Result<PathBuf> {
        at("make", &self.data, fs::create_dir_all(&self.data))?;
        at("look at", &self.data, self.data.canonicalize())
    }

    /// The programs.
    ///
    /// # Errors
    /// They are not there.
    pub fn servers(&self) -> Result<Servers> {
        let there = |path: &Path| at("look at", path, path.canonicalize());
        Ok(Servers { mysql: there(&self.mysql)?, sysbench: there(&self.sysbench)? })
    }

    /// The size that was asked for.
    #[must_use]
    pub fn scale(&self) -> Scale {
        if self.small { SMALL } else { FULL }
    }
}

/// A copy of a generation at `to` on which a server of its own can start: without the source's identity, and with room for
/// the new redo log that the server then makes.
///
/// # Errors
/// Those of the file system.
pub fn copy_for_a_server(generation: &Path, to: &Path, log: &Path) -> Result<()> {
    remove(to)?;
    to_its_end(Command::new("cp").arg("-a").arg(generation).arg(to), log)?;
    leave_out(&to.join("auto.cnf"))?;
    let redo = to.join("#innodb_redo");
    at("make", &redo, fs::create_dir_all(&redo))
}

/// Removes the redo log and temporary tablespaces from the folder of a stopped server.
///
/// # Errors
/// Those of the file system.
pub fn leave_out_what_no_backup_carries(folder: &Path) -> Result<()> {
    LEFT_OUT.iter().try_for_each(|name| leave_out(&folder.join(name)))
}

/// The data set of `scale` below `top`, made now unless an earlier run has.
///
/// # Errors
/// The server or sysbench fails; those of the file system.
pub fn get(top: &Path, scale: Scale, servers: &Servers) -> Result<DataSet> {
    let home = top.join(scale.name);
    let set = DataSet {
        gen0: home.join("gen0"),
        gen1: home.join("gen1"),
        source: home.join("source"),
        place: home.join("source/data"),
        story: String::new(),
    };
    let done = home.join("story.txt");
    if !done.exists() {
        remove(&home)?;
        at("make", &home, fs::create_dir_all(&home))?;
        let story = Maker { home: &home, scale, servers }.make(&set)?;
        at("write", &done, fs::write(&done, story))?;
        rustix::fs::sync();
    }
    at("make", &set.source, fs::create_dir_all(&set.source))?;
    bring_home(&set.place, &[set.gen0.clone(), set.gen1.clone()])?;
    let story = at("read", &done, fs::read_to_string(&done))?;
    Ok(DataSet { story, ..set })
}

struct Maker<'a> {
    home: &'a Path,
    scale: Scale,
    servers: &'a Servers,
}

impl Maker<'_> {
    fn make(&self, set: &DataSet) -> Result<String> {
        let live = self.home.join("live");
        let mut first = self.mysqld(&live);
        to_its_end(first.arg("--initialize-insecure"), &self.home.join("initialize.log"))?;
        self.on_server(&live, |socket| self.sysbench(socket, "prepare"))?;
        let log = self.home.join("copy.log");
        to_its_end(Command::new("cp").arg("-a").arg(&live).arg(&set.gen0), &log)?;
        self.on_server(&live, |socket| self.sysbench(socket, "run"))?;
        at("move", &live, fs::rename(&live, &set.gen1))?;
        for generation in [&set.gen0, &set.gen1] {
            leave_out_what_no_backup_carries(generation)?;
        }
        self.story()
    }

    fn mysqld(&self, live: &Path) -> Command {
        let mut command = Command::new(self.servers.mysql.join("bin/mysqld"));
        command.args(["--no-defaults", "--user=root", "--skip-networking", "--mysqlx=OFF"]);
        command.args(["--secure-file-priv=", "--innodb-redo-log-capacity=1G"]);
        command.arg("--innodb-buffer-pool-size=2G");
        command.arg(format!("--datadir={}", live.display()));
        command.arg(format!("--log-bin={}", self.home.join("binlog").display()));
        command
    }

    /// Starts the server, waits for its socket, does the work, and stops it cleanly.
    fn on_server(&self, live: &Path, work: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        // Short, and outside the data: a socket's path has room for about 100 bytes.
        let short = at("make a folder in", &std::env::temp_dir(), tempfile::tempdir())?;
        let (socket, init) = (short.path().join("s"), short.path().join("init.sql"));
        at("write", &init, fs::write(&init, "CREATE DATABASE IF NOT EXISTS sbtest;\n"))?;
        let log = self.home.join("mysqld.log");
        let out = at("create", &log, File::create(&log))?;
        let err = at("use", &log, out.try_clone())?;
        let mut command = self.mysqld(live);
        command.arg(format!("--socket={}", socket.display()));
        command.arg(format!("--pid-file={}", short.path().join("pid").display()));
        command.arg(format!("--init-file={}", init.display()));
        command.stdin(Stdio::null()).stdout(out).stderr(err);
        let child = at("start", &self.servers.mysql, command.spawn())?;
        let server = Server { child: Some(child), log };
        server.wait_for_socket(&socket)?;
        let worked = work(&socket);
        server.stop()?;
        worked
    }

    fn sysbench(&self, socket: &Path, step: &str) -> Result<()> {
        let scripts = self.servers.sysbench.join("root/usr/share/sysbench");
        let mut command = Command::new(self.servers.sysbench.join("bin/sysbench"));
        command.env("LUA_PATH", format!("{}/?.lua", scripts.display()));
        command.arg(scripts.join("oltp_write_only.lua"));
        command.arg(format!("--mysql-socket={}", socket.display()));
        command.arg("--mysql-user=root");
        command.arg(format!("--tables={TABLES}")).arg(format!("--table-size={}", self.scale.rows));
        command
            .arg(format!("--threads={THREADS}"))
            .arg("--time=0")
            .arg(format!("--rand-type={}", self.scale.distribution))
            .arg(format!("--events={}", self.scale.transactions));
        to_its_end(command.arg(step), &self.home.join(format!("sysbench-{step}.log"))).map(|_| ())
    }

    /// One line on what was made, from sysbench's own report.
    fn story(&self) -> Result<String> {
        let log = self.home.join("sysbench-run.log");
        let said = at("read", &log, fs::read_to_string(&log))?;
        let first = |key| value_of(&said, key).and_then(|v| v.split_whitespace().next()).unwrap_or("?");
        let mut version = Command::new(self.servers.mysql.join("bin/mysqld"));
        let log = self.home.join("version.log");
        to_its_end(version.args(["--no-defaults", "--version"]), &log)?;
        let version = at("read", &log, fs::read_to_string(&log))?;
        let version = version.split_whitespace().skip_while(|w| *w != "Ver").nth(1).unwrap_or("?");
        // Of the six statements of a transaction four change a row; BEGIN and COMMIT do not.
        let changes = first("write");
        Ok(format!(
            "MySQL {version}, sysbench, {TABLES} tables x {} rows; then `oltp_write_only` with {THREADS} \
             threads: {} transactions, {changes} row changes",
            self.scale.rows,
            first("transactions")
        ))
    }
}

fn leave_out(path: &Path) -> Result<()> {
    if path.is_dir() {
        remove(path)
    } else if path.exists() {
        at("remove", path, fs::remove_file(path))
    } else {
        Ok(())
    }
}

/// A started server; it is stopped, if need be hard, when this value is dropped.
struct Server {
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    fn wait_for_socket(&self, socket: &Path) -> Result<()> {
        let begun = Instant::now();
        while std::os::unix::net::UnixStream::connect(socket).is_err() {
            if begun.elapsed() > SERVER_DEADLINE {
                return Err(self.failure("it did not start within two minutes"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Asks the server to end and waits until it has, so that the folder is at rest.
    fn stop(mut self) -> Result<()> {
        let Some(mut child) = self.child.take() else { return Ok(()) };
        terminate(&child);
        let begun = Instant::now();
        loop {
            match at("wait for", &self.log, child.try_wait())? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(self.failure(&format!("it ended with {status}"))),
                None if begun.elapsed() > SERVER_DEADLINE => {
                    self.child = Some(child);
                    return Err(self.failure("it did not stop within two minutes"));
                }
                None => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn failure(&self, what: &str) -> Error {
        let said = fs::read_to_string(&self.log).unwrap_or_default();
        Error::Server(format!("{what}; its log ends: {}", said.lines().last().unwrap_or("(empty)")))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

fn terminate(child: &Child) {
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw);
    if let Some(pid) = pid {
        // It can only fail if the server has ended already, which `stop` sees next.
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
    }
}
