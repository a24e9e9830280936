//! Backups that are copied from a replica: they stand in the log of the server by their GTIDs, and restore to any moment of
//! it; what can't be known to be the server's own data is refused, with the reason.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::balancer::Balancer;
use holdfast_tests::ledger::check;
use holdfast_tests::replica::{Followed, come_up, follow};
use holdfast_tests::server::scratch;
use holdfast_tests::{Engine, Holdfast, Ledger, LedgerOptions, StopOnDrop, TestServer};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

const SEED: u64 = 11;

/// A server that is protected, and a replica of it that nobody promotes.
struct Pair {
    user: Holdfast,
    source: TestServer,
    replica: TestServer,
    dir: tempfile::TempDir,
}

impl Pair {
    fn new(engine: Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("copy-from-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let Followed { source, replica } = Followed::start(engine);
        // Its files have other names and offsets than the source's, so that no position of one is one of the other.
        replica.run(&["FLUSH BINARY LOGS", "FLUSH BINARY LOGS", "FLUSH BINARY LOGS"]);
        Ledger::create_schema(&source);
        user.protect(&source);
        Self { user, source, replica, dir }
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    fn start_work(&self) -> Ledger {
        let options = LedgerOptions { seed: SEED, threads: 2, pause: Duration::from_millis(1) };
        Ledger::start(&self.source, options)
    }

    fn replicated(&self) {
        come_up(&self.source, &self.replica);
    }

    fn at(&self, server: &TestServer) -> String {
        format!("127.0.0.1:{}", server.port())
    }

    /// A backup from the replica that is refused, with what was said.
    fn refused(&self, more: &[&str]) -> String {
        let replica = self.at(&self.replica);
        let outcome = self.user.run(&[&["backup", "shop", "--from", &replica], more].concat()).expect_code(1);
        outcome.stderr
    }

    fn log(&self) -> Vec<Value> {
        let found = self.user.done(&["find", "shop", "--limit", "1000000", "--json"]);
        found["found"].as_array().unwrap().clone()
    }

    /// Restores to a transaction, and gives those of the ledger that are there once all of it was found to be right.
    fn restored(&self, target: &[&str]) -> u64 {
        let (into, engine_dir) = (self.folder(), self.source.engine().dir());
        let mut arguments = vec!["restore", "shop"];
        arguments.extend(target);
        arguments.extend(["--start", "--into", into.to_str().unwrap()]);
        arguments.extend(["--engine-dir", engine_dir.to_str().unwrap()]);
        let said = self.user.run(&arguments).accepted();
        assert!(said.stdout.contains("shop.sweep"), "an event that a replica does not run: {}", said.stdout);
        let mut conn = connect(&into);
        let held = check(&mut conn, SEED).unwrap_or_else(|why| panic!("{target:?}: {why}"));
        held.transactions
    }

    fn thrown_away(&self) {
        stop_server_on(&self.folder(), Duration::from_secs(60)).unwrap();
        std::fs::remove_dir_all(self.folder()).unwrap();
    }
}

fn connect(into: &Path) -> Conn {
    let endpoint = Endpoint::Unix(into.join(SOCKET));
    Conn::connect(&ConnectOptions::new(endpoint, "root").tls_mode(TlsMode::Disabled)).unwrap()
}

/// Transactions of the ledger among entries of the log.
fn ledger_rows(log: &[Value]) -> u64 {
    let tables = log.iter().flat_map(|entry| entry["tables"].as_array().unwrap());
    tables.filter(|t| t["table"] == "shop.ledger").map(|t| t["inserted"].as_u64().unwrap()).sum()
}

#[test]
fn a_copy_of_a_replica_restores_to_any_transaction_of_the_server_behind_it() {
    let pair = Pair::new(Engine::MySql);
    pair.source
        .run(&["CREATE EVENT shop.sweep ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.ledger WHERE no < 0"]);
    let work = pair.start_work();
    work.wait_for(100);
    let backup = pair.user.done(&["backup", "shop", "--from", &pair.at(&pair.replica), "--json"]);
    assert_eq!(backup["copied_from"], pair.at(&pair.replica), "{backup}");
    assert!(!backup["position"].as_str().unwrap().contains("binlog."), "no file of the replica's: {backup}");
    work.wait_for(60);
    // The server's log goes on in another file.
    pair.source.run(&["FLUSH BINARY LOGS"]);
    work.wait_for(60);
    work.stop();
    // It copies nothing, but brings the archive up to the server's end, and can't be a base here: it stands at the end.
    pair.replicated();
    let again = pair.user.done(&["backup", "shop", "--from", &pair.at(&pair.replica), "--json"]);
    let log = pair.log();
    let rows = pair.source.value("SELECT COUNT(*) FROM shop.ledger").unwrap().parse::<u64>().unwrap();
    assert_eq!(ledger_rows(&log), rows, "all of the server's log is archived");

    let first = backup["id"].as_str().unwrap();
    let plan = |target: &str| {
        let into = pair.folder();
        let arguments =
            ["restore", "shop", "--to", target, "--into", into.to_str().unwrap(), "--dry-run", "--json"];
        let dir = pair.source.engine().dir();
        pair.user.run(&[&arguments[..], &["--engine-dir", dir.to_str().unwrap()]].concat())
    };
    let id = |at: usize| log.get(at).unwrap()["id"].as_str().unwrap();
    // The first transaction that this copy leads to, and that the plan has it as its base.
    let reaches = |at: &usize| plan(id(*at)).code == Some(0);
    let oldest = (0..log.len()).collect::<Vec<_>>().partition_point(|at| !reaches(at));
    assert!(oldest > 0 && oldest < log.len() - 100, "{oldest} of {}", log.len());
    assert!(plan(id(oldest)).stdout.contains(first));
    for (turn, at) in [oldest, oldest + 50, log.len() - 30].into_iter().enumerate() {
        let go_on: &[&str] = if turn > 0 { &["--continue"] } else { &[] };
        assert_eq!(
            pair.restored(&[&["--to", id(at)], go_on].concat()),
            ledger_rows(&log[..=at]),
            "to {}",
            id(at)
        );
    }
    // It replicates from nobody, though the copy is of a server that did.
    assert_eq!(connect(&pair.folder()).query("SHOW REPLICA STATUS").unwrap().rows.len(), 0);
    pair.thrown_away();
    // Each restore finds the same place as the first one learned, and the second copy stands at the end.
    assert_eq!(pair.restored(&["--to", id(oldest + 20)]), ledger_rows(&log[..=oldest + 20]));
    pair.thrown_away();
    assert!(plan("latest").stdout.contains(again["id"].as_str().unwrap()), "the second copy: {again}");
    assert_eq!(pair.restored(&["--to", "latest"]), rows);
    pair.thrown_away();
    let fsck = pair.user.fsck().ok();
    assert!(fsck.stdout.contains("window") && !fsck.stdout.contains("HOLE"), "{}", fsck.stdout);
    let timeline = pair.user.run(&["timeline", "shop", "--json"]).ok().json();
    assert_eq!(timeline["spans"].as_array().unwrap().len(), 1, "{timeline}");
}

#[test]
fn a_replica_that_may_hold_something_else_than_the_server_is_refused_by_name() {
    let pair = Pair::new(Engine::MySql);
    let work = pair.start_work();
    work.wait_for(20);
    work.stop();
    pair.replicated();

    let own = pair.at(&pair.source);
    let itself = pair.user.run(&["backup", "shop", "--from", &own]).expect_code(1).stderr;
    assert!(itself.contains("It is the server itself"), "{itself}");

    pair.replica.run(&["SET GLOBAL read_only = OFF"]);
    assert!(pair.refused(&[]).contains("takes writes of its own"));
    pair.replica.run(&["SET GLOBAL read_only = ON"]);

    // Behind: what the server has does not come.
    pair.replica.run(&["STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 600", "START REPLICA"]);
    pair.source.run(&["CREATE DATABASE late"]);
    let behind = pair.refused(&["--max-lag", "2s"]);
    assert!(
        behind.contains("did not come up to what the server had") || behind.contains("s behind"),
        "{behind}"
    );
    // The wish to stop is heeded while it is waited for.
    let place = pair.at(&pair.replica);
    let mut waits =
        Beside::start(&pair, "stopped.log", &["backup", "shop", "--from", &place, "--max-lag", "900s"]);
    waits.until("it waits for the replica", |_| {
        let all = pair.replica.root().query("SHOW PROCESSLIST").unwrap();
        (0..all.rows.len())
            .any(|row| all.text_by_name(row, "Info").unwrap_or_default().contains("WAIT_FOR_EXECUTED"))
    });
    waits.signal(Signal::INT);
    assert_eq!(waits.ended(), Some(130), "{}", waits.said());
    // In its place the server itself is copied where that is allowed, and the reason is kept.
    let taken =
        pair.user.done(&["backup", "shop", "--from", &place, "--max-lag", "1s", "--or-source", "--json"]);
    assert_eq!(taken["copied_from"], Value::Null, "{taken}");
    assert!(taken["not_from_replica"].as_str().unwrap().contains(&pair.at(&pair.replica)), "{taken}");
    pair.replica.run(&["STOP REPLICA", "CHANGE REPLICATION SOURCE TO SOURCE_DELAY = 0", "START REPLICA"]);
    pair.replicated();

    pair.replica.run(&["STOP REPLICA SQL_THREAD"]);
    assert!(pair.refused(&[]).contains("applies nothing"));
    pair.replica.run(&["CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = (scrap)", "START REPLICA"]);
    assert!(pair.refused(&[]).contains("does not replicate everything"));
    pair.replica.run(&["STOP REPLICA", "CHANGE REPLICATION FILTER REPLICATE_IGNORE_DB = ()"]);
    pair.replica.run(&["SET GLOBAL replica_preserve_commit_order = OFF", "START REPLICA"]);
    assert!(pair.refused(&[]).contains("in another order"));
    pair.replica.run(&["STOP REPLICA", "SET GLOBAL replica_preserve_commit_order = ON", "START REPLICA"]);

    pair.replica.run(&[
        "STOP REPLICA",
        "CHANGE REPLICATION SOURCE TO REQUIRE_TABLE_PRIMARY_KEY_CHECK = GENERATE",
        "START REPLICA",
    ]);
    assert!(pair.refused(&[]).contains("'GENERATE'"));
    pair.replica.run(&[
        "STOP REPLICA",
        "CHANGE REPLICATION SOURCE TO REQUIRE_TABLE_PRIMARY_KEY_CHECK = STREAM",
        "START REPLICA",
    ]);

    // A transaction of its own; the server's user with all rights writes in spite of read_only.
    pair.replica.run(&["CREATE DATABASE its_own"]);
    assert!(pair.refused(&[]).contains("transactions that the server does not have"));
    pair.replica.run(&["STOP REPLICA", "RESET REPLICA ALL"]);
    assert!(pair.refused(&[]).contains("It is no replica"));
    assert_eq!(pair.user.done(&["list", "shop", "--json"])["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn a_replica_of_mariadb_is_refused_by_name() {
    let pair = Pair::new(Engine::MariaDb);
    assert!(pair.refused(&[]).contains("only MySQL with GTIDs is copied from a replica"));
}

/// Both are fit, so that nothing but what they are called tells them apart.
#[test]
fn a_name_that_leads_to_another_replica_than_the_one_that_was_looked_at_is_refused() {
    let pair = Pair::new(Engine::MySql);
    let second = follow(&pair.source);
    pair.replicated();
    come_up(&pair.source, &second);
    let uuids = [&pair.replica, &second].map(|server| server.value("SELECT @@server_uuid").unwrap());
    // The first connection asks whether it is fit. The second one leads the copy, and the third one is of it; the last one
    // asks again after it, behind those that carry the data, of which there is one here.
    for turn in 2..=6 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            let ports = [pair.replica.port(), second.port()];
            let balancer = Balancer::start(scope, &stop, ports, turn);
            let place = format!("127.0.0.1:{}", balancer.port);
            let arguments = ["backup", "shop", "--from", &place, "--jobs", "1"];
            let said = pair.user.run(&arguments).expect_code(1).stderr;
            assert!(uuids.iter().all(|uuid| said.contains(uuid)), "connection {turn}: {said}");
        });
    }
    let listed = pair.user.done(&["list", "shop", "--json"]);
    assert_eq!(listed["backups"].as_array().unwrap().len(), 0, "{listed}");
    // An address that stays is copied.
    let _ = pair.user.done(&["backup", "shop", "--from", &pair.at(&second), "--json"]);
    let _ = pair.user.fsck().ok();
}

/// A process of the user's that runs beside the test.
struct Beside {
    child: Child,
    log: PathBuf,
}

impl Drop for Beside {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Beside {
    fn start(pair: &Pair, name: &str, arguments: &[&str]) -> Self {
        let log = pair.dir.path().join(name);
        Self { child: pair.user.spawn(arguments, &log), log }
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until something holds; the process must not end meanwhile.
    fn until(&mut self, what: &str, mut holds: impl FnMut(&Self) -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !holds(self) {
            let ended = self.child.try_wait().unwrap();
            assert!(Instant::now() < deadline && ended.is_none(), "{what} ({ended:?}): {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn ended(&mut self) -> Option<i32> {
        let deadline = Instant::now() + Duration::from_secs(120);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < deadline, "still running: {}", self.said());
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What is said when a running archive is waited for.
const WAITING: &str = "waiting until the running archive of 'shop' comes up to the copy";

#[test]
fn a_copy_waits_for_a_running_archive_and_outlives_the_purge_of_the_file_that_it_began_in() {
    let pair = Pair::new(Engine::MySql);
    pair.source
        .run(&["CREATE EVENT shop.sweep ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.ledger WHERE no < 0"]);
    let work = pair.start_work();
    work.wait_for(40);
    work.stop();
    pair.replicated();
    let mut archive = Beside::start(&pair, "archive.log", &["archive", "shop"]);
    let rows = pair.source.value("SELECT COUNT(*) FROM shop.ledger").unwrap().parse::<u64>().unwrap();
    archive.until("the archive comes up", |_| {
        let found = pair.user.run(&["find", "shop", "--limit", "1000000", "--json"]);
        found.code == Some(0) && ledger_rows(found.json()["found"].as_array().unwrap()) == rows
    });

    let file = || pair.source.root().query("SHOW BINARY LOG STATUS").unwrap().text(0, 0).unwrap();
    let begun_in = file();
    let replica = pair.at(&pair.replica);
    let from = ["backup", "shop", "--from", &replica];
    let mut backup = Beside::start(&pair, "backup.log", &from);
    backup.until("the copy begins", |_| !pair.replica.sessions("backup", "clone").is_empty());
    // The archive stands still, so that it does not have what the copy holds, for longer than a copy once waited.
    archive.signal(Signal::STOP);
    pair.source.run(&["CREATE DATABASE meanwhile", "FLUSH BINARY LOGS"]);
    pair.source.purge_before(&file());
    backup.until("it waits", |backup| backup.said().contains(WAITING));
    let since = Instant::now();
    backup.until("it goes on waiting", |_| since.elapsed() > Duration::from_secs(16));
    archive.signal(Signal::CONT);
    // It is taken, with a warning.
    assert!(matches!(backup.ended(), Some(0 | 3)), "{}", backup.said());
    let listed = pair.user.done(&["list", "shop", "--json"]);
    assert_eq!(listed["backups"].as_array().unwrap().len(), 1, "{listed}");
    let files = pair.source.root().query("SHOW BINARY LOGS").unwrap();
    assert!((0..files.rows.len()).all(|row| files.text(row, 0).unwrap() != begun_in), "{begun_in} is purged");
    assert_eq!(pair.restored(&["--to", "latest"]), rows);
    pair.thrown_away();

    // The wish to stop is heeded while an archive is waited for, here before anything is copied.
    archive.signal(Signal::STOP);
    pair.source.run(&["CREATE DATABASE later"]);
    pair.replicated();
    let mut backup = Beside::start(&pair, "stopped.log", &from);
    backup.until("it waits", |backup| backup.said().contains(WAITING));
    backup.signal(Signal::INT);
    assert_eq!(backup.ended(), Some(130), "{}", backup.said());
    archive.signal(Signal::CONT);
    assert_eq!(pair.user.done(&["list", "shop", "--json"])["backups"].as_array().unwrap().len(), 1);
}

#[test]
fn nothing_is_copied_where_the_log_has_a_hole_already() {
    let pair = Pair::new(Engine::MySql);
    let _ = pair.user.done(&["backup", "shop", "--json"]);
    pair.source.run(&["CREATE DATABASE unseen", "FLUSH BINARY LOGS"]);
    let newest = pair.source.root().query("SHOW BINARY LOG STATUS").unwrap().text(0, 0).unwrap();
    pair.source.purge_before(&newest);
    pair.replicated();
    let connections = || {
        let of = "SELECT TOTAL_CONNECTIONS FROM performance_schema.users WHERE USER = 'backup'";
        pair.replica.value(of).map_or(0, |count| count.parse::<u64>().unwrap())
    };
    let before = connections();
    let refused = pair.refused(&[]);
    assert!(refused.contains("can't be continued after"), "{refused}");
    // It was asked on one connection, and a copy takes some of its own.
    assert_eq!(connections() - before, 1, "{refused}");
    // A copy of the server itself begins the log anew, and then a replica will do.
    let replica = pair.at(&pair.replica);
    let taken = pair.user.done(&["backup", "shop", "--from", &replica, "--or-source", "--json"]);
    assert!(taken["not_from_replica"].as_str().unwrap().contains("can't be continued after"), "{taken}");
    let taken = pair.user.done(&["backup", "shop", "--from", &replica, "--json"]);
    assert_eq!(taken["copied_from"], replica, "{taken}");
}
