//! A running MariaDB through mariadb-backup, and folders of both servers at rest.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use holdfast_engine::{PrivateServer, StartOptions, prepare_mariadb};
use holdfast_source::sinks::{FolderSink, MemorySink};
use holdfast_source::{
    Coordinates, Error, FolderSource, MariadbBackup, Outcome, Program, Progress, Source, Unwatched, Warning,
    Watch,
};
use holdfast_tests::server::BACKUP_PASSWORD;
use holdfast_tests::{Engine, Ledger, LedgerOptions, Random, TestServer, ledger};

fn source_of(server: &TestServer, spool: &Path) -> MariadbBackup {
    let programs = server.server().programs().clone();
    let folder = programs.backup_program().unwrap().parent().unwrap().to_path_buf();
    MariadbBackup::new(server.backup_options(), Program::Local(Some(folder)), spool)
}

#[test]
fn a_mariadb_under_load_is_copied_at_exactly_the_position_that_the_stream_tells() {
    let (_, seed) = Random::from_environment("a_mariadb_under_load");
    let server = TestServer::start(Engine::MariaDb);
    Ledger::create_schema(&server);
    server.run(&[
        "CREATE TABLE shop.aria (id INT PRIMARY KEY) ENGINE=Aria",
        "INSERT INTO shop.aria SELECT seq FROM shop.seq_1_to_500",
        "CREATE TABLE shop.squeezed (id INT PRIMARY KEY, t TEXT) PAGE_COMPRESSED=1",
        "INSERT INTO shop.squeezed SELECT seq, REPEAT(MD5(seq), 50) FROM shop.seq_1_to_900",
        "CREATE TABLE shop.zipped (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED",
        "INSERT INTO shop.zipped SELECT * FROM shop.squeezed",
    ]);
    let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
    writers.wait_for(100);
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let spool = dir.path().join("spool");
    std::fs::create_dir(&spool).unwrap();
    let data = dir.path().join("data");
    let sink = FolderSink::create(&data).unwrap();
    let began = SystemTime::now();
    let watch = Nosy { spool: spool.clone(), seen: Mutex::default() };
    let outcome = source_of(&server, &spool).copy(&sink, &watch).unwrap();
    let ended = SystemTime::now();
    sink.finish().unwrap();
    writers.wait_for(50);
    let acks = writers.stop();
    // The password was in no file that has a name, in no command line and in no environment.
    assert_eq!(std::fs::read_dir(&spool).unwrap().count(), 0);
    let seen = *watch.seen.lock().unwrap();
    assert!(seen.0 > 0 && !seen.1, "{seen:?}");

    let programs = server.server().programs().clone();
    let log = dir.path().join("prepare.log");
    prepare_mariadb(&programs, &data, &log, Duration::from_secs(120)).unwrap();
    let copy = PrivateServer::start(StartOptions::new(programs, &data)).unwrap();
    let mut conn = copy.connect().unwrap();
    let held = ledger::check(&mut conn, seed).unwrap();
    let Coordinates::Exact(position) = &outcome.coordinates else { panic!("{:?}", outcome.coordinates) };
    for ack in &acks {
        assert!(held.holds(ack) || ack.acked >= began, "lost {ack:?}");
        assert!(!held.holds(ack) || ack.sent <= ended, "from the future {ack:?}");
        // The domain's numbers are in the order of the log: the copy holds a transaction if and only if it is not
        // after the position.
        let number = |gtid: &str| gtid.rsplit('-').next().unwrap().parse::<u64>().unwrap();
        let gtid = ack.gtid.as_deref().unwrap();
        assert_eq!(held.holds(ack), number(gtid) <= number(&position.gtid), "{position} {ack:?}");
    }
    for table in ["shop.aria", "shop.squeezed", "shop.zipped"] {
        let sum = conn.query(format!("CHECKSUM TABLE {table}")).unwrap().text(0, 1);
        assert_eq!(
            server.root().query(format!("CHECKSUM TABLE {table}")).unwrap().text(0, 1),
            sum,
            "{table}"
        );
    }
    assert_eq!(outcome.pages.bad, 0, "{:?}", outcome.warnings);
    assert!(outcome.pages.verified > 100);
    assert!(outcome.fact("version").unwrap().contains("MariaDB"));
    assert!(outcome.fact("accounts").unwrap().contains("'backup'@'%'"));
    assert!(outcome.fact("backup_tool_version").is_some());
}

/// Looks for the password where others could find it while the program runs.
struct Nosy {
    spool: std::path::PathBuf,
    /// How often it looked, and whether it found the password.
    seen: Mutex<(u32, bool)>,
}

impl Watch for Nosy {
    fn cancelled(&self) -> bool {
        false
    }
    fn progress(&self, _now: Progress) {
        let mut seen = self.seen.lock().unwrap();
        if seen.0 >= 10 {
            return;
        }
        seen.0 += 1;
        let holds = |path: &Path| {
            let bytes = std::fs::read(path).unwrap_or_default();
            bytes.windows(BACKUP_PASSWORD.len()).any(|word| word == BACKUP_PASSWORD.as_bytes())
        };
        let mut paths: Vec<_> =
            std::fs::read_dir(&self.spool).unwrap().map(|entry| entry.unwrap().path()).collect();
        for entry in std::fs::read_dir("/proc").unwrap() {
            let process = entry.unwrap().path();
            let line = std::fs::read(process.join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains("--stream=xbstream") {
                paths.extend([process.join("cmdline"), process.join("environ")]);
            }
        }
        seen.1 |= paths.iter().any(|path| holds(path));
    }
}

struct Impatient(Mutex<Option<Instant>>);

impl Watch for Impatient {
    fn cancelled(&self) -> bool {
        self.0.lock().unwrap().is_some()
    }
    fn progress(&self, now: Progress) {
        if now.bytes > 1 << 20 {
            self.0.lock().unwrap().get_or_insert_with(Instant::now);
        }
    }
}

#[test]
fn a_copy_of_mariadb_that_is_called_off_leaves_no_process_no_file_and_no_lock() {
    let server = TestServer::start(Engine::MariaDb);
    Ledger::create_schema(&server);
    let dir = tempfile::tempdir().unwrap();
    let watch = Impatient(Mutex::default());
    let error = source_of(&server, dir.path()).copy(&MemorySink::new(), &watch).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
    let waited = watch.0.lock().unwrap().unwrap().elapsed();
    assert!(waited < Duration::from_secs(30), "{waited:?}");
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    server.run_once(&[
        "SET lock_wait_timeout = 30",
        "CREATE TABLE shop.free (i INT)",
        "INSERT INTO shop.free VALUES (1)",
    ]);
    source_of(&server, dir.path()).copy(&MemorySink::new(), &Unwatched).unwrap();
}

#[test]
fn an_account_that_may_not_copy_mariadb_is_told_the_grant() {
    let server = TestServer::start(Engine::MariaDb);
    server.run(&["REVOKE RELOAD ON *.* FROM 'backup'@'%'", "REVOKE RELOAD ON *.* FROM 'backup'@'localhost'"]);
    let error = source_of(&server, &std::env::temp_dir()).copy(&MemorySink::new(), &Unwatched).unwrap_err();
    assert!(error.to_string().contains("GRANT RELOAD ON *.* TO 'backup'@"), "{error}");
}

fn copied(from: &Path, to: &Path) -> Outcome {
    let sink = FolderSink::create(to).unwrap();
    let outcome = FolderSource::new(from).copy(&sink, &Unwatched).unwrap();
    sink.finish().unwrap();
    outcome
}

#[test]
fn a_server_starts_on_the_copy_of_a_stopped_servers_folder_and_a_running_one_is_refused() {
    for engine in [Engine::MySql, Engine::MariaDb] {
        let (_, seed) = Random::from_environment("a_stopped_servers_folder");
        let mut server = TestServer::start(engine);
        Ledger::create_schema(&server);
        let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
        writers.wait_for(100);
        let acks = writers.stop();
        let error = FolderSource::new(server.datadir()).copy(&MemorySink::new(), &Unwatched).unwrap_err();
        assert!(matches!(error, Error::InUse { .. }), "{error}");
        let programs = server.server().programs().clone();
        server.stop();
        let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
        let outcome = copied(server.datadir(), &dir.path().join("data"));
        assert_eq!(outcome.pages.bad, 0, "{:?}", outcome.warnings);
        assert!(outcome.pages.verified > 100);
        assert_eq!(outcome.fact("version").unwrap().get(..3), programs.version.text.get(..3));
        let copy = PrivateServer::start(StartOptions::new(programs, dir.path().join("data"))).unwrap();
        let held = ledger::check(&mut copy.connect().unwrap(), seed).unwrap();
        assert_eq!(held.transactions, acks.len() as u64);
    }
}

/// Every page format of both servers, damaged here and there: we and the server's own innochecksum name the same files.
#[test]
fn damaged_pages_are_found_in_the_files_in_which_innochecksum_finds_them() {
    for engine in [Engine::MySql, Engine::MariaDb] {
        let (mut random, _) = Random::from_environment("damaged_pages");
        let mut server = TestServer::start(engine);
        let compressed = match engine {
            Engine::MySql => "COMPRESSION='zlib'",
            Engine::MariaDb => "PAGE_COMPRESSED=1",
        };
        server.run(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.plain (id INT PRIMARY KEY AUTO_INCREMENT, t TEXT)",
            "INSERT INTO shop.plain (t) VALUES (REPEAT('holdfast', 100))",
        ]);
        for _ in 0..11 {
            server.run(&["INSERT INTO shop.plain (t) SELECT CONCAT(REPEAT(RAND(), 40), id) FROM shop.plain"]);
        }
        for (name, options) in [
            ("zip8", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8"),
            ("zip2", "ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=2"),
            ("redundant", "ROW_FORMAT=REDUNDANT"),
            ("squeezed", compressed),
        ] {
            server.run(&[
                &format!("CREATE TABLE shop.{name} (id INT PRIMARY KEY, t TEXT) {options}"),
                &format!("INSERT INTO shop.{name} SELECT * FROM shop.plain"),
            ]);
        }
        server.run(&[
            "CREATE TABLE shop.places (id INT PRIMARY KEY, p GEOMETRY NOT NULL, SPATIAL INDEX (p))",
            "INSERT INTO shop.places SELECT id, POINT(id, id * 7 % 1000) FROM shop.plain",
        ]);
        let innochecksum = server.server().programs().server.with_file_name("innochecksum");
        server.stop();
        let tables = ["plain", "zip8", "zip2", "redundant", "squeezed", "places"];
        for round in 0..4 {
            let path = server.datadir().join("shop").join(format!("{}.ibd", random.pick(&tables)));
            let mut bytes = std::fs::read(&path).unwrap();
            let at =
                (0..).map(|_| random.below(bytes.len() as u64) as usize).find(|&at| bytes[at] != 0).unwrap();
            if round > 0 {
                bytes[at] ^= 1 << random.below(8);
                std::fs::write(&path, bytes).unwrap();
            }
            let outcome = FolderSource::new(server.datadir()).copy(&MemorySink::new(), &Unwatched).unwrap();
            for table in tables {
                let name = format!("shop/{table}.ibd");
                let status = std::process::Command::new(&innochecksum)
                    .arg(server.datadir().join(&name))
                    .stdout(std::process::Stdio::null())
                    .stderr(std::process::Stdio::null())
                    .status()
                    .unwrap();
                let bad = outcome
                    .warnings
                    .iter()
                    .any(|w| matches!(w, Warning::BadPage { file, .. } if *file == name));
                // Pages that are compressed page by page: we check their lengths only in MySQL's layout.
                if !(engine == Engine::MySql && table == "squeezed") {
                    assert_eq!(
                        bad,
                        !status.success(),
                        "{name} in round {round}, last byte at {at}: {:?}",
                        outcome.warnings
                    );
                }
            }
        }
    }
}
