//! One daemon, a MySQL and a MariaDB, writers on both, and kill -9 again and again.
//!
//! Nothing that a server acknowledged more than a second before a kill is missing afterwards, no job is lost, none is
//! done twice. `HOLDFAST_TEST_DAEMON_KILLS` sets the kills (3 unless set), and of the
//! test with twenty streams, most of them recorded ones, `HOLDFAST_TEST_STREAM_KILLS` (2 unless set).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use holdfast_archive::{Place, ServerLog};
use holdfast_engine::stop_server_on;
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::{Coordinates, Position, Record, SourceKind};
use holdfast_io::{Directory, RealDisk};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_store::{FixedClock, OpenOptions, Repository, Secret};
use holdfast_tests::daemon_bed::DaemonBed as Bed;
use holdfast_tests::ledger::check;
use holdfast_tests::recorded::{RecordedSource, Recording};
use holdfast_tests::server::scratch;
use holdfast_tests::{Ack, Engine, Holdfast, Ledger, LedgerOptions, Random, Stalls, TestServer};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

/// What a stream may lose of acknowledged transactions when the daemon is killed: its promise is one second, on a machine
/// that gives it any time at all (`Stalls`).
const LOSS_MAX: Duration = Duration::from_secs(1);
/// Besides the places: prunes all the time, and no drill but one that is asked for.
const CONFIGURATION: &str =
    "[policy.default]\nretry = { interval = '5s' }\ndrill = 0\n[prune]\nevery = '5s'\n";
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
    let mut bed = Bed::new(user, dir, 2);
    bed.configure(CONFIGURATION);
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
    bed.until_caught_up();
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
    let pid = rustix::process::Pid::from_child(bed.child());
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    let status = loop {
        if let Some(status) = bed.ended() {
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

/// A binlog with so many transactions of a ledger.
fn recording(source: &TestServer, seed: u64, transactions: usize) -> Recording {
    Ledger::create_schema(source);
    source.run(&["FLUSH BINARY LOGS"]);
    let file = source.value("SHOW BINARY LOG STATUS").unwrap();
    let writer = Ledger::start(source, LedgerOptions { seed, threads: 2, pause: Duration::from_millis(1) });
    writer.wait_for(transactions);
    writer.stop();
    source.run(&["FLUSH BINARY LOGS"]);
    Recording::of(&source.datadir().join(file))
}

/// The repository of this user, without a daemon.
fn opened(bed: &Bed) -> Repository {
    let objects = Directory::open(RealDisk::shared(), bed.user.repository()).unwrap();
    let clock = Arc::new(FixedClock::new(1_800_000_000_000_000));
    let secret = Secret::passphrase("a passphrase for tests");
    Repository::open(Arc::new(objects), &secret, OpenOptions::new(clock)).unwrap()
}

/// Adds a source that plays a recording. Its base is a record as any other one: it holds what the backup of a folder holds,
/// and stands at the beginning of the recorded file.
fn add_recorded(bed: &Bed, name: &str, source: &RecordedSource, file: &str) -> ServerId {
    let (password, port) = (bed.dir.path().join("shop-password"), source.port().to_string());
    let password = password.to_str().unwrap();
    let at = ["--host", "127.0.0.1", "--port", &port, "--user", "backup", "--password-file", password];
    let _ = bed.user.run(&[&["server", "add", name][..], &at].concat()).ok();
    let repository = opened(bed);
    let server = repository.servers().into_iter().find(|s| s.name == name).unwrap().id;
    let mut base = repository.backups().into_iter().find(|b| b.source == SourceKind::Folder).unwrap();
    (base.id, base.server) = (BackupId(server.0), server);
    let gtid = GtidSet::empty(Flavor::MySql);
    base.coordinates = Coordinates::Exact(Position { file: file.to_owned(), offset: 4, gtid });
    repository.append(Record::BackupCommitted(base)).unwrap();
    server
}

/// All that is archived of a server: one file, from its first byte on.
fn archived(repository: &Repository, server: ServerId) -> Vec<u8> {
    let log = ServerLog::open(repository, server).unwrap();
    let mut cursor = log.read(Place(0), log.end().unwrap()).unwrap();
    let (mut file, mut event) = (vec![0xfe, b'b', b'i', b'n'], Vec::new());
    while let Some(place) = cursor.next(&mut event).unwrap() {
        assert_eq!(file.len() as u64, place.offset, "an event is missing, or there twice");
        file.extend_from_slice(&event);
    }
    file
}

/// Twenty streams, two of them of real servers at work. After each kill everything is there that was to be had a second
/// before it, and in the end every file is what its server has, byte for byte: nothing lost, nothing doubled.
#[test]
fn twenty_streams_lose_nothing_and_double_nothing_however_often_the_daemon_is_killed() {
    let (mut random, seed) = Random::from_environment("twenty_streams");
    let seed = seed % 1_000_000;
    let kills =
        std::env::var("HOLDFAST_TEST_STREAM_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(2_u32);
    let dir = tempfile::Builder::new().prefix("streams-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let sources = [("shop", TestServer::start(Engine::MySql)), ("crm", TestServer::start(Engine::MariaDb))];
    let recorder = TestServer::start(Engine::MySql);
    // Enough that each stream has something to say to the end, though each kill may take a minute.
    let recording = Arc::new(recording(&recorder, seed, 1000 + 100 * kills as usize));
    drop(recorder);
    user.protect(&sources[0].1);
    user.add("crm", &sources[1].1);
    let folder = dir.path().join("folder");
    std::fs::create_dir(&folder).unwrap();
    std::fs::write(folder.join("file"), "a base for those that have none").unwrap();
    let _ = user.run(&["server", "add", "files", "--folder", folder.to_str().unwrap()]).ok();
    let _ = user.run(&["backup", "files"]).ok();
    let mut bed = Bed::new(user, dir, 20);
    let played: Vec<(RecordedSource, ServerId)> = (0..18)
        .map(|number| {
            let source = RecordedSource::start(&recording, number);
            let server = add_recorded(&bed, &format!("recorded-{number}"), &source, &recording.file);
            (source, server)
        })
        .collect();
    let writers: Vec<Ledger> = sources
        .iter()
        .map(|(_, source)| {
            Ledger::create_schema(source);
            let options = LedgerOptions { seed, threads: 2, pause: Duration::from_millis(25) };
            Ledger::start(source, options)
        })
        .collect();
    let transactions = recording.ends.len() - 1;
    let rate = transactions as f64 * 0.9 / (f64::from(kills) * 60.0 + 120.0);
    for (source, _) in &played {
        source.play(transactions / 20, rate);
    }
    bed.configure(CONFIGURATION);
    bed.start();
    let mut must_hold: Vec<Vec<Ack>> = Vec::new();
    let (mut checked, mut bytes) = (0_u64, 0_u64);
    for kill in 0..kills {
        bed.until_caught_up();
        let stalls = Stalls::watch(bed.dir.path());
        std::thread::sleep(Duration::from_millis(1500 + random.below(1500)));
        let (killed, moment) = (SystemTime::now(), Instant::now());
        bed.kill();
        let loss_max = stalls.stretched(LOSS_MAX);
        drop(stalls);
        let acked = |ack: &Ack| ack.acked + loss_max < killed;
        must_hold = writers.iter().map(|w| w.acks().into_iter().filter(acked).collect()).collect();
        let repository = opened(&bed);
        for (number, (source, server)) in played.iter().enumerate() {
            let must = moment.checked_sub(loss_max).map_or(0, |then| source.end_at(then));
            let there = archived(&repository, *server);
            assert!(
                there.len() >= must && recording.bytes.starts_with(&there),
                "kill {kill}, recorded-{number}: {} bytes are there, {must} must be",
                there.len()
            );
            (checked, bytes) = (checked + 1, bytes + there.len() as u64);
        }
        drop(repository);
        if kill % 10 == 0 {
            let fsck = bed.user.fsck();
            assert_eq!(fsck.code, Some(0), "{}\n{}", fsck.stdout, fsck.stderr);
        }
        bed.start();
    }
    // All of it, and the daemon goes on to the end.
    for (source, _) in &played {
        source.play(transactions, 0.0);
    }
    bed.until("every recording is archived whole", |bed| {
        let repository = opened(bed);
        std::thread::sleep(Duration::from_secs(1));
        played.iter().all(|(_, server)| archived(&repository, *server).len() == recording.bytes.len())
    });
    bed.kill();
    for writer in writers {
        writer.stop();
    }
    let repository = opened(&bed);
    for (_, server) in &played {
        assert!(archived(&repository, *server) == recording.bytes, "not what the source has");
    }
    drop(repository);
    for ((name, source), must_hold) in sources.iter().zip(&must_hold) {
        let held = restored(&bed, name, source, seed);
        let lost = must_hold.iter().filter(|ack| !held.holds(ack)).count();
        assert_eq!(lost, 0, "{name}: of {} acknowledged transactions", must_hold.len());
    }
    let _ = bed.user.fsck().ok();
    let dumps: u32 = played.iter().map(|(source, _)| source.dumps()).sum();
    println!(
        "seed {seed}: {kills} kills, {checked} looks at a recorded stream ({bytes} bytes), {dumps} dumps, {} acknowledged \
         transactions of real servers",
        must_hold.iter().map(Vec::len).sum::<usize>()
    );
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
    let pid = rustix::process::Pid::from_child(bed.child());
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
