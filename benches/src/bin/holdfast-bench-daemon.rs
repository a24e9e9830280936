//! `holdfast-bench-daemon`: what an idle `holdfastd` takes, how soon it is ready, and how fast it answers with 30 days of
//! history. The history is made up, and written by the daemon's own writer.

use std::error::Error;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use clap::Parser;
use hdrhistogram::Histogram;
use holdfast_appliance::ServerKind;
use holdfast_appliance::backup::{Options, backup};
use holdfast_appliance::catalogue::{Catalogue, Key};
use holdfast_appliance::init::init;
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::server::{Added, add};
use holdfast_appliance::settings::{Environment, Login};
use holdfast_appliance::time::now;
use holdfast_daemon::history::ring::MINUTES;
use holdfast_daemon::history::{OF_REPOSITORY, OF_SERVER, Of, Writer};
use holdfast_format::record::{BackupRecord, Record};

/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(600);

/// An idle daemon, its start, and its answers.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The daemon
    #[arg(long, value_name = "FILE", default_value = "target/release/holdfastd")]
    holdfastd: PathBuf,
    /// A folder; everything made there is removed
    #[arg(long, value_name = "DIR", default_value = "target")]
    work: PathBuf,
    /// Folders that are protected
    #[arg(long, default_value_t = 50)]
    servers: u32,
    /// Backups in the repository
    #[arg(long, default_value_t = 10_000)]
    backups: u32,
    /// For how long the idle daemon is watched, seconds
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Requests of each kind
    #[arg(long, default_value_t = 1000)]
    requests: u32,
}

fn main() -> ExitCode {
    match measure(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("holdfast-bench-daemon: {error}");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let program = arguments.holdfastd.canonicalize()?;
    let work = tempfile::Builder::new().prefix("daemon-").tempdir_in(arguments.work.canonicalize()?)?;
    let path = |name: &str| work.path().join(name);
    prepare(work.path(), arguments)?;
    let text = format!(
        "repository = {:?}\npassphrase_file = {:?}\nstate = {:?}\nsocket = {:?}\n[policy.default]\nkeep = {{ last = 0 }}\n\
         window = 0\n",
        path("repository"),
        path("passphrase"),
        path("state"),
        path("socket"),
    );
    std::fs::write(path("holdfast.toml"), text)?;

    let mut ready = Vec::new();
    for _ in 0..3 {
        let begun = Instant::now();
        let mut daemon = Daemon::start(&program, work.path())?;
        daemon.until("/readyz", |status, _| status == 200)?;
        ready.push(begun.elapsed().as_secs_f64());
    }
    println!("ready after {ready:.2?} s with {} backups", arguments.backups);

    let mut daemon = Daemon::start(&program, work.path())?;
    daemon.until("/api/v1/status", |status, body| status == 200 && body.contains("\"jobs\":[]"))?;
    let (cpu, begun) = (daemon.cpu_seconds()?, Instant::now());
    std::thread::sleep(Duration::from_secs(arguments.seconds));
    let share = (daemon.cpu_seconds()? - cpu) / begun.elapsed().as_secs_f64() * 100.0;
    println!(
        "idle with {} servers: {:.1} MiB resident ({:.1} MiB at most), {share:.2} % of a core",
        arguments.servers,
        daemon.memory_mib("VmRSS")?,
        daemon.memory_mib("VmHWM")?,
    );

    for asked in [
        "/api/v1/status",
        "/api/v1/servers",
        "/api/v1/servers/server-N",
        "/api/v1/servers/server-N/timeline",
        "/api/v1/servers/server-N/retention",
        "/api/v1/servers/server-N/drills",
        "/api/v1/backups?server=server-N",
        "/api/v1/jobs",
        "/api/v1/servers/server-N/history?metric=rpo_seconds&from=-1d",
        "/api/v1/servers/server-N/history?from=-30d&points=300",
        "/api/v1/history?from=-30d&points=2000",
        "/metrics",
    ] {
        let mut times: Histogram<u64> = Histogram::new(3)?;
        for turn in 0..arguments.requests {
            let asked = asked.replace("server-N", &format!("server-{}", turn % arguments.servers));
            let begun = Instant::now();
            let (status, body) = daemon.ask(&asked)?;
            times.record(u64::try_from(begun.elapsed().as_micros())?)?;
            if status != 200 {
                return Err(format!("{asked}: {status} {body}").into());
            }
        }
        let ms = |quantile: f64| times.value_at_quantile(quantile) as f64 / 1000.0;
        println!(
            "{asked}: {:.2} ms at the median, {:.2} ms at p99, {:.2} ms at most",
            ms(0.5),
            ms(0.99),
            ms(1.0)
        );
    }
    println!("after that: {:.1} MiB resident at most", daemon.memory_mib("VmHWM")?);
    Ok(())
}

/// The repository with its folders and backups, and 30 days of history of each.
fn prepare(work: &Path, arguments: &Arguments) -> Result<(), Box<dyn Error>> {
    let at = |name: &str| work.join(name);
    let shown = |error: holdfast_appliance::error::Error| error.message;
    std::fs::write(at("passphrase"), "only for a bench\n")?;
    std::fs::create_dir(at("state"))?;
    let environment = Environment::of_daemon(at("state/servers.toml"), Some(at("spool"))).map_err(shown)?;
    let key = Key::PassphraseFile(at("passphrase"));
    init(&environment, &at("repository"), &key, "bench").map_err(shown)?;
    let catalogue = Catalogue::open(environment, &at("repository"), &key).map_err(shown)?;
    let begun = Instant::now();
    let name = |server: u32| format!("server-{server}");
    for server in 0..arguments.servers {
        let folder = at(&format!("data-{server}"));
        std::fs::create_dir(&folder)?;
        std::fs::write(folder.join("file"), vec![server as u8; 20_000])?;
        let kind = ServerKind::Folder { path: folder.display().to_string() };
        add(&catalogue, Added { name: name(server), kind, login: Login::default(), rebuilt: false })
            .map_err(shown)?;
    }
    let take = |server: u32| -> Result<(), Box<dyn Error>> {
        let options = Options { jobs: 1, ..Options::default() };
        backup(&catalogue, &name(server), &options, &Unwatched).map_err(shown)?;
        Ok(())
    };
    (0..arguments.servers).try_for_each(take)?;
    // Those in between hold what the first one of their server holds: to the daemon they are records as any other.
    let first = catalogue.repository.backups();
    let between = arguments.backups.saturating_sub(2 * arguments.servers);
    for (turn, base) in (0..between).zip(first.iter().cycle()) {
        let age = i64::from((between - turn) / arguments.servers.max(1) + 1) * 3_600_000_000;
        let mut id = base.id;
        id.0 = (u128::from_be_bytes(id.0) ^ (u128::from(turn) + 1)).to_be_bytes();
        let (started_us, finished_us) = (base.started_us - age, base.finished_us - age);
        let record = BackupRecord { id, started_us, finished_us, ..base.clone() };
        catalogue.repository.append(Record::BackupCommitted(record))?;
    }
    // The last one of each server is young: nothing is due when the daemon begins.
    (0..arguments.servers).try_for_each(take)?;
    println!(
        "{} backups, {} of them taken, in {:.0} s",
        catalogue.repository.backups().len(),
        2 * arguments.servers,
        begun.elapsed().as_secs_f64()
    );
    let begun = Instant::now();
    let mut writer = Writer::open(&at("state")).map_err(shown)?;
    let minute = 60_000_000;
    let from = now() - i64::from(MINUTES) * minute;
    for ago in 0..MINUTES {
        let at = from + i64::from(ago) * minute;
        let value = |metric: usize| Some(f64::from(ago % 997) * (metric + 1) as f64);
        let of = |metrics: &[&str]| (0..metrics.len()).map(value).collect::<Vec<_>>();
        for server in 0..arguments.servers {
            writer.put(Of::Server(&name(server)), at, &of(OF_SERVER)).map_err(shown)?;
        }
        writer.put(Of::Repository, at, &of(OF_REPOSITORY)).map_err(shown)?;
    }
    println!(
        "30 days of history of {} servers written in {:.0} s",
        arguments.servers,
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

/// A running daemon; it is ended with this value.
struct Daemon {
    child: Child,
    socket: PathBuf,
}

impl Daemon {
    fn start(program: &Path, work: &Path) -> Result<Self, Box<dyn Error>> {
        let log = std::fs::File::create(work.join("log"))?;
        let child = Command::new(program)
            .arg("--config")
            .arg(work.join("holdfast.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self { child, socket: work.join("socket") })
    }

    fn ask(&self, path: &str) -> Result<(u16, String), Box<dyn Error>> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(WAIT))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("the answer is cut short")?;
        let status = head.split(' ').nth(1).ok_or("the answer is not HTTP")?.parse()?;
        Ok((status, body.to_owned()))
    }

    fn until(&mut self, path: &str, holds: impl Fn(u16, &str) -> bool) -> Result<(), Box<dyn Error>> {
        let begun = Instant::now();
        loop {
            if self.ask(path).is_ok_and(|(status, body)| holds(status, &body)) {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("the daemon ended: {status}").into());
            }
            if begun.elapsed() > WAIT {
                return Err(format!("{path} is not as it should be after {WAIT:?}").into());
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Processor time since its start.
    fn cpu_seconds(&self) -> Result<f64, Box<dyn Error>> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()))?;
        // Behind the name, which may hold anything: the 12th and 13th field are ticks.
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let ticks = |at: usize| fields.get(at).and_then(|field| field.parse::<f64>().ok());
        let (user, system) = (ticks(11).ok_or("no user time")?, ticks(12).ok_or("no system time")?);
        Ok((user + system) / rustix::param::clock_ticks_per_second() as f64)
    }

    fn memory_mib(&self, name: &str) -> Result<f64, Box<dyn Error>> {
        let text = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = text.lines().find(|line| line.starts_with(name)).ok_or("no such figure")?;
        let kib: f64 = line.split_whitespace().nth(1).ok_or("no figure")?.parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.child.wait();
    }
}
