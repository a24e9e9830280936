//! One daemon, a MySQL and a MariaDB, writers on both, and kill -9 again and again.
//!
//! Nothing that a server acknowledged more than a second before a kill is missing afterwards, no job is lost, none is
//! done twice. `HOLDFAST_TEST_DAEMON_KILLS` sets the kills (3 unless set).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::ledger::check;
use holdfast_tests::server::scratch;
use holdfast_tests::{Ack, Engine, Holdfast, Ledger, LedgerOptions, Random, Stalls, TestServer};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

/// What a stream may lose of acknowledged transactions when the daemon is killed: its promise is one second, on a machine
/// that gives it any time at all (`Stalls`).
const LOSS_MAX: Duration = Duration::from_secs(1);
/// Longest wait for anything.
const WAIT: Duration = Duration::from_secs(180);

struct Bed {
    user: Holdfast,
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    starts: u32,
}

impl Bed {
    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    fn configure(&self) {
        let at = |name: &str| self.dir.path().join(name);
        std::fs::create_dir_all(at("restored")).unwrap();
        let text = format!(
            "repository = {:?}\npassphrase_file = {:?}\nlogins = {:?}\nstate = {:?}\nsocket = {:?}\nspool = {:?}\n\
             restore_into = [{:?}]\n[engines]\nmysql = {:?}\nmariadb = {:?}\n[log]\nformat = 'json'\n\
             [policy.default]\nretry = {{ interval = '5s' }}\ndrill = 0\n[prune]\nevery = '5s'\n\
             [drills]\ninto = {:?}\nprove = 'quick'\n",
            self.user.repository(),
            at("passphrase"),
            at("home/.config/holdfast/holdfast.toml"),
            at("state"),
            self.socket(),
            at(""),
            at("restored"),
            Engine::MySql.dir(),
            Engine::MariaDb.dir(),
            at("drills"),
        );
        std::fs::write(at("holdfastd.toml"), text).unwrap();
    }

    fn start(&mut self) {
        let config = self.dir.path().join("holdfastd.toml");
        self.starts += 1;
        let log = std::fs::File::create(self.dir.path().join(format!("log-{}", self.starts))).unwrap();
        let mut command = self.user.command("holdfastd", &["--config", config.to_str().unwrap()]);
        self.daemon = Some(command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap());
    }

    fn kill(&mut self) {
        let mut daemon = self.daemon.take().unwrap();
        daemon.kill().unwrap();
        daemon.wait().unwrap();
    }

    /// One request; `None` while nobody answers.
    fn ask(&self, method: &str, path: &str, body: Option<Value>) -> Option<(u16, Value)> {
        let mut stream = UnixStream::connect(self.socket()).ok()?;
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let body = body.map(|b| b.to_string()).unwrap_or_default();
        let request = format!(
            "{method} /api/v1{path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).ok()?;
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).ok()?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let (head, body) = text.split_once("\r\n\r\n")?;
        Some((head.split(' ').nth(1)?.parse().ok()?, serde_json::from_str(body).ok()?))
    }

    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + WAIT;
        while !holds(self) {
            let ended = self.daemon.as_mut().and_then(|d| d.try_wait().unwrap());
            assert!(
                Instant::now() < deadline && ended.is_none(),
                "not within {WAIT:?} ({ended:?}): {what}\n{}",
                std::fs::read_to_string(self.dir.path().join(format!("log-{}", self.starts)))
                    .unwrap_or_default()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits until the log of every server is followed to its end.
    fn until_following(&mut self) {
        self.until("every stream follows", |bed| {
            let Some((200, status)) = bed.ask("GET", "/status", None) else { return false };
            let servers = status["servers"].as_array().unwrap();
            servers.len() == 2 && servers.iter().all(|s| s["stream"]["state"] == "following")
        });
    }

    fn until_ended(&mut self, id: &Value) -> Value {
        let path = format!("/jobs/{id}");
        self.until("a job's end", |bed| {
            bed.ask("GET", &path, None).is_some_and(|(_, job)| {
                ["done", "failed", "cancelled"].contains(&job["standing"].as_str().unwrap_or_default())
            })
        });
        self.ask("GET", &path, None).unwrap().1
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
    }
}

#[test]
fn a_daemon_that_is_killed_again_and_again_loses_nothing_and_does_nothing_twice() {
    let (mut random, seed) = Random::from_environment("a_daemon_that_is_killed");
    let kills = std::env::var("HOLDFAST_TEST_DAEMON_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3);
    let dir = tempfile::Builder::new().prefix("daemon-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let sources = [("shop", TestServer::start(Engine::MySql)), ("crm", TestServer::start(Engine::MariaDb))];
    let seed = seed % 1_000_000;
    let ledger = |source: &TestServer| {
        Ledger::start(source, LedgerOptions { seed, threads: 2, pause: Duration::from_millis(25) })
    };
    user.protect(&sources[0].1);
    user.add("crm", &sources[1].1);
    let writers: Vec<Ledger> = sources
        .iter()
        .map(|(_, source)| {
            Ledger::create_schema(source);
            ledger(source)
        })
        .collect();
    let mut bed = Bed { user, dir, daemon: None, starts: 0 };
    bed.configure();
    bed.start();
    // The first bases come by themselves, and then the streams.
    bed.until_following();
    a_reload_leaves_the_streams_alone(&mut bed);

    let mut asked: Vec<(Value, String)> = Vec::new();
    for kill in 0..kills {
        let name = sources[(kill % 2) as usize].0;
        let note = format!("kill {kill}");
        // The one that was asked for two kills ago may still be under way: then another one is refused.
        let (path, mut taken) = (format!("/servers/{name}/backups"), None);
        bed.until("a backup is accepted", |bed| {
            let Some((status, job)) = bed.ask("POST", &path, Some(json!({ "note": note }))) else {
                return false;
            };
            assert!(status == 202 || status == 409, "{job}");
            taken = (status == 202).then_some(job);
            taken.is_some()
        });
        let job = taken.unwrap();
        asked.push((job["id"].clone(), note));
        std::thread::sleep(Duration::from_millis(random.below(2500)));
        bed.kill();
        let fsck = bed.user.fsck();
        assert_eq!(fsck.code, Some(0), "{}\n{}", fsck.stdout, fsck.stderr);
        bed.start();
        bed.until_following();
    }
    // Every job that was accepted is done, once.
    for (id, note) in &asked {
        let job = bed.until_ended(id);
        assert_eq!(job["standing"], "done", "{job}");
        let (_, backups) = bed.ask("GET", "/backups", None).unwrap();
        let taken =
            backups["backups"].as_array().unwrap().iter().filter(|b| b["note"] == json!(note)).count();
        assert_eq!(taken, 1, "{note}: {backups}");
    }

    // Once more, and this time what was durable is counted.
    bed.until("every stream has caught up", |bed| {
        let Some((200, status)) = bed.ask("GET", "/status", None) else { return false };
        let mut servers = status["servers"].as_array().unwrap().iter();
        servers.all(|s| s["stream"]["lag_seconds"].as_f64().is_some_and(|lag| lag < 2.0))
    });
    let stalls = Stalls::watch(bed.dir.path());
    std::thread::sleep(Duration::from_millis(1500 + random.below(1000)));
    let killed = SystemTime::now();
    bed.kill();
    let loss_max = stalls.stretched(LOSS_MAX);
    drop(stalls);
    let must_hold: Vec<Vec<Ack>> = writers
        .iter()
        .map(|w| w.acks().into_iter().filter(|ack| ack.acked + loss_max < killed).collect())
        .collect();
    for writer in writers {
        writer.stop();
    }
    for ((name, source), must_hold) in sources.iter().zip(&must_hold) {
        let held = restored(&bed, name, source, seed);
        let lost: Vec<&Ack> = must_hold.iter().filter(|ack| !held.holds(ack)).collect();
        assert!(
            lost.is_empty(),
            "{name}: {} acknowledged transactions are lost: {:?}",
            lost.len(),
            lost.first()
        );
    }

    // The daemon goes on, restores by itself, and ends in order.
    bed.start();
    bed.until_following();
    let into = bed.dir.path().join("restored/by-job");
    let wanted = json!({ "server": "crm", "to": "latest", "into": into, "prove": "quick" });
    let (status, job) = bed.ask("POST", "/restores", Some(wanted)).unwrap();
    assert_eq!(status, 202, "{job}");
    let job = bed.until_ended(&job["id"]);
    assert_eq!((&job["standing"], &job["result"]["proved"]), (&json!("done"), &json!(true)), "{job}");
    let (status, job) = bed.ask("POST", "/servers/crm/drills", None).unwrap();
    assert_eq!(status, 202, "{job}");
    let job = bed.until_ended(&job["id"]);
    assert_eq!((&job["standing"], &job["result"]["proved"]), (&json!("done"), &json!(true)), "{job}");
    assert_eq!(std::fs::read_dir(bed.dir.path().join("drills")).unwrap().count(), 0, "{job}");
    let (_, job) = bed.ask("POST", "/checks", None).unwrap();
    let job = bed.until_ended(&job["id"]);
    assert_eq!((&job["standing"], &job["result"]["clean"]), (&json!("done"), &json!(true)), "{job}");
    the_command_line_asks_the_daemon(&bed);
    let pid = rustix::process::Pid::from_child(bed.daemon.as_ref().unwrap());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = bed.daemon.as_mut().unwrap().try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "SIGTERM does not end the daemon");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(0));
    assert!(!bed.socket().exists(), "the socket is left behind");
    let _ = bed.user.fsck().ok();
    nothing_secret_is_written(bed.dir.path());
}

/// SIGHUP: another configuration holds, and each stream is the one that it was.
fn a_reload_leaves_the_streams_alone(bed: &mut Bed) {
    let config = bed.dir.path().join("holdfastd.toml");
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("[policy.default]", "[policy.default]\nwindow = '9d'")).unwrap();
    let begun = |bed: &Bed| {
        let log = std::fs::read_to_string(bed.dir.path().join(format!("log-{}", bed.starts))).unwrap();
        log.matches("stream: following").count()
    };
    let before = begun(bed);
    let pid = rustix::process::Pid::from_child(bed.daemon.as_ref().unwrap());
    rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    bed.until("the new window", |bed| {
        bed.ask("GET", "/status", None).is_some_and(|(_, status)| {
            status["servers"].as_array().is_some_and(|all| all.iter().all(|s| s["window"] == "9d"))
        })
    });
    bed.until_following();
    assert_eq!((before, begun(bed)), (2, 2), "a stream was begun anew");
}

fn the_command_line_asks_the_daemon(bed: &Bed) {
    let socket = bed.socket();
    let daemon = ["--daemon", socket.to_str().unwrap()];
    let run = |args: &[&str]| bed.user.run(&[args, &daemon].concat());
    let status = run(&["status"]).accepted();
    assert!(status.stdout.contains("restorable to any second since"), "{}", status.stdout);
    let taken = run(&["backup", "crm", "--note", "by hand", "--json"]).accepted().json();
    assert_eq!(taken["note"], "by hand");
    let jobs = run(&["jobs"]).ok();
    assert!(jobs.stdout.contains("restore"), "{}", jobs.stdout);
    assert_eq!(run(&["backup", "nobody"]).code, Some(2));
    let nagios = run(&["check", "--nagios"]);
    assert!(nagios.stdout.starts_with("HOLDFAST "), "{}", nagios.stdout);
    assert!(nagios.stdout.contains("'crm lag'="), "{}", nagios.stdout);
}

/// What `restore --to` the archive's end gives, without fetching anything from the source.
fn restored(bed: &Bed, name: &str, source: &TestServer, seed: u64) -> holdfast_tests::ledger::Held {
    let found = bed.user.done(&["find", name, "--table", "shop.ledger", "--limit", "1000000", "--json"]);
    let last = found["found"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    let into = bed.dir.path().join("restored").join(name);
    let (into_text, engine) = (into.to_str().unwrap(), source.engine().dir());
    let arguments = [
        "restore",
        name,
        "--after",
        &last,
        "--into",
        into_text,
        "--engine-dir",
        engine.to_str().unwrap(),
        "--start",
    ];
    let _ = bed.user.run(&arguments).accepted();
    let options = ConnectOptions::new(Endpoint::Unix(into.join(SOCKET)), "root").tls_mode(TlsMode::Disabled);
    let held = check(&mut Conn::connect(&options).unwrap(), seed).unwrap_or_else(|why| panic!("{why}"));
    stop_server_on(&into, Duration::from_secs(60)).unwrap();
    held
}

/// Neither the logs nor the state hold the servers' password or the passphrase.
fn nothing_secret_is_written(dir: &Path) {
    let (mut files, mut folders) = (Vec::new(), vec![dir.join("state")]);
    while let Some(folder) = folders.pop() {
        let found = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        let (more, plain): (Vec<PathBuf>, Vec<PathBuf>) = found.partition(|path| path.is_dir());
        folders.extend(more);
        files.extend(plain);
    }
    let logs = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    files.extend(logs.filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("log-")));
    assert!(files.len() > 4);
    for file in files {
        let text = String::from_utf8_lossy(&std::fs::read(&file).unwrap()).into_owned();
        for secret in [holdfast_tests::server::BACKUP_PASSWORD, "a passphrase for tests"] {
            assert!(!text.contains(secret), "{}", file.display());
        }
    }
}
