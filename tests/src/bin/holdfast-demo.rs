//! The main job from end to end, as a person would do it: what `tools/demo` runs.
//!
//! A shop on a real server is protected, keeps writing, loses its orders to a DROP TABLE, and
//! is restored to just before it. The ledger, written outside of everything that Holdfast
//! knows, decides whether the restored shop is right.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a demonstration that fails should stop where it fails"
)]

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::ledger::{Held, check};
use holdfast_tests::server::{BACKUP_PASSWORD, BACKUP_USER, scratch};
use holdfast_tests::{Ack, Engine, Holdfast, Ledger, LedgerOptions, Outcome, TestServer};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

/// Transactions before the backup, while it runs nothing is counted, and after it.
const BEFORE: usize = 1500;
const AFTER: usize = 3000;

fn main() {
    let options = Options::from_arguments();
    let began = Instant::now();
    let ok = Demo::new(&options).run(&options);
    if ok {
        println!("\nProved, in {:.0} s.", began.elapsed().as_secs_f64());
    } else {
        println!("\nNOT proved.");
        std::process::exit(1);
    }
}

struct Options {
    engine: Engine,
    keep: bool,
}

impl Options {
    fn from_arguments() -> Self {
        let mut options = Self { engine: Engine::MySql, keep: false };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            match (argument.as_str(), argument.strip_prefix("--engine=")) {
                ("--keep", _) => options.keep = true,
                ("--engine", _) => options.engine = engine(&arguments.next().unwrap_or_default()),
                (_, Some(name)) => options.engine = engine(name),
                _ => usage(),
            }
        }
        options
    }
}

fn engine(name: &str) -> Engine {
    match name {
        "mysql" => Engine::MySql,
        "mariadb" => Engine::MariaDb,
        _ => usage(),
    }
}

fn usage() -> ! {
    eprintln!("usage: tools/demo [--engine mysql|mariadb] [--keep]");
    std::process::exit(2);
}

/// Kills the process that it holds when it goes out of scope; no other process is ever touched.
struct Running(Child);

impl Running {
    /// SIGTERM, as a service manager would stop it, and waits for its end.
    fn stop(mut self) -> bool {
        rustix_kill(self.0.id());
        let deadline = Instant::now() + Duration::from_secs(30);
        while Instant::now() < deadline {
            if let Ok(Some(status)) = self.0.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn rustix_kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("our own process");
}

struct Demo {
    dir: PathBuf,
    user: Holdfast,
    times: Vec<(&'static str, Duration)>,
}

impl Demo {
    fn new(options: &Options) -> Self {
        let dir = scratch().join(format!("demo-{}-{}", options.engine.flavor(), std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let user = Holdfast::new(&dir);
        Self { dir, user, times: Vec::new() }
    }

    fn run(mut self, options: &Options) -> bool {
        let engine = options.engine;
        println!("A shop on a private {}, in {}.", engine.flavor(), self.dir.display());
        let source = self.timed("start the shop", |_| TestServer::start(engine));
        Ledger::create_schema(&source);
        let ledger = Ledger::start(&source, LedgerOptions { seed: 7, threads: 3, pause: Duration::ZERO });
        ledger.wait_for(BEFORE);

        let archive = self.protect(&source);
        self.timed("backup, under load", |demo| {
            demo.shown(&["backup", "shop", "--note", "before the accident"])
        });
        ledger.wait_for(AFTER);

        println!("\nThe accident: DROP TABLE shop.orders");
        let before_drop = ledger.acks();
        drop_orders(&source);
        std::thread::sleep(Duration::from_millis(1500));
        let (_, _) = ledger.stop_anyhow();

        let id = self.timed("find the statement", |demo| demo.find_the_drop());
        self.shown(&["status"]);
        assert!(archive.stop(), "the archive did not end cleanly");
        let into = self.dir.join("restored");
        let into_text = into.to_str().unwrap().to_owned();
        let engine_dir = engine.dir().to_str().unwrap().to_owned();
        let target = ["restore", "shop", "--before", &id, "--into", &into_text, "--engine-dir", &engine_dir];
        self.shown(&[&target[..], &["--dry-run"]].concat());
        let restored = self.timed("restore to just before it", |demo| {
            demo.shown(&[&target[..], &["--start"]].concat());
            into.join(SOCKET)
        });
        let proved = self.timed("prove it against the ledger", |_| prove(&restored, &before_drop, engine));
        self.timed("fsck", |demo| {
            let outcome = demo.user.fsck();
            print!("\n$ holdfast-fsck --full {}\n{}", demo.user.repository().display(), outcome.stdout);
            outcome.ok()
        });
        println!();
        for (what, took) in &self.times {
            println!("{:>8.1} s  {what}", took.as_secs_f64());
        }
        if options.keep {
            println!(
                "\nThe restored server listens on {}; the folder is {}.",
                restored.display(),
                self.dir.display()
            );
            println!(
                "To end it: kill {}",
                std::fs::read_to_string(into.join("holdfast.pid")).unwrap_or_default()
            );
        } else {
            stop_server_on(&into, Duration::from_secs(60)).unwrap();
            drop(source);
            std::fs::remove_dir_all(&self.dir).unwrap();
        }
        proved
    }

    fn protect(&mut self, source: &TestServer) -> Running {
        let port = source.port().to_string();
        let password_file = self.dir.join("shop-password");
        std::fs::write(&password_file, format!("{BACKUP_PASSWORD}\n")).unwrap();
        let password_file = password_file.to_str().unwrap().to_owned();
        let kit = self.dir.join("kit.txt").to_str().unwrap().to_owned();
        self.shown(&["init", "--kit", &kit]);
        let socket = source.socket().to_str().unwrap().to_owned();
        let backup_command = source.engine().dir().join("bin/mariadb-backup");
        let backup_command = backup_command.to_str().unwrap().to_owned();
        let mut add = vec!["server", "add", "shop", "--user", BACKUP_USER, "--password-file", &password_file];
        match source.engine() {
            Engine::MySql => add.extend(["--host", "127.0.0.1", "--port", &port]),
            Engine::MariaDb => add.extend(["--socket", &socket, "--backup-command", &backup_command]),
        }
        self.shown(&add);
        self.shown(&["doctor", "shop"]);
        println!("\n$ holdfast archive shop &");
        Running(self.user.spawn(&["archive", "shop"], &self.dir.join("archive.log")))
    }

    fn find_the_drop(&mut self) -> String {
        self.shown(&["find", "shop", "--like", "DROP TABLE%"]);
        // The archive is durable within a second of the commit; the accident was 1.5 s ago.
        let found = self.user.run(&["find", "shop", "--like", "DROP TABLE%", "--json"]).ok().json();
        let found = found["found"].as_array().unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        found[0]["id"].as_str().unwrap().to_owned()
    }

    fn shown(&mut self, arguments: &[&str]) -> Outcome {
        println!("\n$ holdfast {}", arguments.join(" "));
        let outcome = self.user.run(arguments);
        print!("{}{}", outcome.stdout, outcome.stderr);
        outcome.accepted()
    }

    fn timed<T>(&mut self, what: &'static str, work: impl FnOnce(&mut Self) -> T) -> T {
        let began = Instant::now();
        let result = work(self);
        self.times.push((what, began.elapsed()));
        result
    }
}

fn drop_orders(source: &TestServer) {
    let mut conn = source.root();
    conn.execute("SET SESSION foreign_key_checks = 0").unwrap();
    conn.execute("DROP TABLE shop.orders").unwrap();
}

fn prove(socket: &Path, before_drop: &[Ack], engine: Engine) -> bool {
    let options =
        ConnectOptions::new(Endpoint::Unix(socket.to_path_buf()), "root").tls_mode(TlsMode::Disabled);
    let mut conn = Conn::connect(&options).unwrap();
    let held: Held = match check(&mut conn, 7) {
        Ok(held) => held,
        Err(why) => {
            println!("The restored shop is wrong: {why}");
            return false;
        }
    };
    let lost = before_drop.iter().filter(|ack| !held.holds(ack)).count();
    println!(
        "\nThe restored {} holds {} transactions; {} were acknowledged before the accident, {lost} of them are missing.",
        engine.flavor(),
        held.transactions,
        before_drop.len(),
    );
    lost == 0
}
