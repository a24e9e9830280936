//! Fail-over on two real servers of a replication set: the archive goes over to the one that was promoted, the log has no
//! hole, and restores cross from the one to the other; a fork is told and never merged.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::ledger::check;
use holdfast_tests::replica::Followed;
use holdfast_tests::server::{BACKUP_PASSWORD, BACKUP_USER, scratch};
use holdfast_tests::{Engine, Holdfast, Ledger, LedgerOptions, TestServer};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::time::{Duration, Instant};

const SEED: u64 = 7;

/// A replication set of two, protected under one name, with a backup of the first one.
struct Set {
    user: Holdfast,
    first: TestServer,
    second: TestServer,
    archive: Option<Child>,
    dir: tempfile::TempDir,
}

impl Drop for Set {
    fn drop(&mut self) {
        if let Some(mut archive) = self.archive.take() {
            let _ = archive.kill();
            let _ = archive.wait();
        }
    }
}

impl Set {
    fn new(engine: Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("fail-over-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let Followed { source: first, replica: second } = Followed::start(engine);
        Ledger::create_schema(&first);
        let set = Self { user, first, second, archive: None, dir };
        let _ = set.user.run(&["init", "--kit", &set.text("kit")]).ok();
        std::fs::write(set.dir.path().join("password"), BACKUP_PASSWORD).unwrap();
        let hosts = format!("127.0.0.1:{},127.0.0.1:{}", set.first.port(), set.second.port());
        let _ = set.add(&hosts, &["--fail-over-after", "1"]).ok();
        let _ = set.user.done(&["backup", "shop", "--json"]);
        set
    }

    fn add(&self, hosts: &str, more: &[&str]) -> holdfast_tests::Outcome {
        let password = self.text("password");
        let mut add = vec!["server", "add", "shop", "--user", BACKUP_USER, "--password-file", &password];
        add.extend(["--host", hosts]);
        let programs = self.first.engine().programs();
        if self.first.engine() == Engine::MariaDb {
            add.extend(["--backup-command", programs.backup_program().unwrap().to_str().unwrap()]);
        }
        add.extend(more);
        self.user.run(&add)
    }

    fn text(&self, name: &str) -> String {
        self.dir.path().join(name).to_str().unwrap().to_owned()
    }

    fn start_archive(&mut self) {
        self.archive = Some(self.user.spawn(&["archive", "shop"], &self.dir.path().join("archive.log")));
    }

    /// Kills the archive, as a power cut of the process would.
    fn kill_archive(&mut self) {
        let mut archive = self.archive.take().unwrap();
        archive.kill().unwrap();
        archive.wait().unwrap();
    }

    /// Waits until the archive ends by itself.
    fn refused(&mut self) -> ExitStatus {
        let mut archive = self.archive.take().unwrap();
        let mut status = None;
        self.wait_for("the archive to refuse", || {
            status = archive.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("archive.log")).unwrap()
    }

    fn log(&self) -> Vec<Value> {
        let found = self.user.done(&["find", "shop", "--limit", "1000000", "--json"]);
        found["found"].as_array().unwrap().clone()
    }

    /// Waits until all of the ledger that this server has is archived.
    fn wait_for_archive(&self, server: &TestServer) {
        let end = rows_of(server);
        self.wait_for("the archive to come to the end of the log", || ledger_rows(&self.log()) >= end);
    }

    fn wait_for(&self, what: &str, mut is_there: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(120);
        while !is_there() {
            assert!(
                Instant::now() < deadline,
                "waited two minutes for {what}; the archive said\n{}",
                self.said()
            );
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn replicated(&self) {
        self.wait_for("the replica", || self.first.gtids() == self.second.gtids());
    }

    fn stop_replication(&self) {
        match self.first.engine() {
            Engine::MySql => self.second.run(&["STOP REPLICA", "RESET REPLICA ALL"]),
            Engine::MariaDb => self.second.run(&["STOP SLAVE", "RESET SLAVE ALL"]),
        }
    }

    fn promote(&self) {
        self.stop_replication();
        self.second.run(&["SET GLOBAL read_only = OFF"]);
    }

    /// Ledger's work on a server, all of it acknowledged.
    fn work(server: &TestServer, transactions: usize) {
        let options = LedgerOptions { seed: SEED, threads: 2, pause: Duration::from_millis(1) };
        let ledger = Ledger::start(server, options);
        ledger.wait_for(transactions);
        ledger.stop();
    }

    fn folder(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    fn arguments(&self, target: &[&str]) -> Vec<String> {
        let (into, engine_dir) = (self.folder(), self.first.engine().dir());
        let mut arguments = vec!["restore", "shop"];
        arguments.extend(target);
        arguments.extend(["--into", into.to_str().unwrap()]);
        arguments.extend(["--engine-dir", engine_dir.to_str().unwrap()]);
        arguments.into_iter().map(str::to_owned).collect()
    }

    /// Restores, and gives the transactions of the ledger that are there once all of it was found to be right.
    fn restored(&self, target: &[&str]) -> u64 {
        let arguments = self.arguments(&[target, &["--start"]].concat());
        let _ = self.user.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).accepted();
        let held =
            check(&mut connect(&self.folder()), SEED).unwrap_or_else(|why| panic!("{target:?}: {why}"));
        held.transactions
    }

    /// The plan of a restore.
    fn plan(&self, target: &[&str]) -> Value {
        let arguments = self.arguments(&[target, &["--dry-run", "--json"]].concat());
        self.user.done(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }
}

fn connect(into: &Path) -> Conn {
    let endpoint = Endpoint::Unix(into.join(SOCKET));
    Conn::connect(&ConnectOptions::new(endpoint, "root").tls_mode(TlsMode::Disabled)).unwrap()
}

/// Transactions of the ledger that a server has.
fn rows_of(server: &TestServer) -> u64 {
    server.value("SELECT COUNT(*) FROM shop.ledger").unwrap().parse().unwrap()
}

/// Transactions of the ledger among entries of the log.
fn ledger_rows(log: &[Value]) -> u64 {
    let tables = log.iter().flat_map(|entry| entry["tables"].as_array().unwrap());
    tables.filter(|t| t["table"] == "shop.ledger").map(|t| t["inserted"].as_u64().unwrap()).sum()
}

fn the_log_goes_on_without_a_hole_at_the_server_that_was_promoted(engine: Engine) {
    let mut set = Set::new(engine);
    set.start_archive();
    Set::work(&set.first, 60);
    set.wait_for_archive(&set.first);
    set.replicated();
    // Both hosts die together: what the archive leaves behind of the first server's log must do.
    set.kill_archive();
    set.first.kill();
    set.start_archive();
    set.wait_for("word that nobody was promoted", || set.said().contains("not promoted yet"));
    set.promote();
    Set::work(&set.second, 40);
    set.wait_for_archive(&set.second);
    assert!(set.said().contains("fail-over: "), "{}", set.said());
    set.kill_archive();
    Set::work(&set.second, 20);
    set.start_archive();
    set.wait_for_archive(&set.second);

    let log = set.log();
    let id = |at: usize| log[at]["id"].as_str().unwrap();
    let seam = (0..log.len()).find(|at| id(*at).ends_with("@1")).unwrap();
    assert!(log[seam..].iter().all(|entry| entry["id"].as_str().unwrap().ends_with("@1")));
    // Each number of the ledger once: nothing came twice, nothing is missing.
    assert_eq!(ledger_rows(&log), rows_of(&set.second));
    let timeline = set.user.run(&["timeline", "shop", "--json"]).ok().json();
    assert_eq!(timeline["gaps"].as_array().unwrap().len(), 0, "{timeline}");
    assert_eq!(timeline["spans"].as_array().unwrap().len(), 1, "{timeline}");
    assert_eq!(timeline["fail_overs"].as_array().unwrap().len(), 1, "{timeline}");
    let fsck = set.user.fsck().ok();
    assert!(fsck.stdout.contains("window") && !fsck.stdout.contains("HOLE"), "{}", fsck.stdout);

    // Before the fail-over, over it, and to the end; all from the backup of the first server.
    let _ = set.plan(&["--to", log[seam - 1]["at"].as_str().unwrap()]);
    for at in [seam - 20, seam + 10] {
        let go_on: &[&str] = if at > seam { &["--continue"] } else { &[] };
        let held = set.restored(&[&["--to", id(at)], go_on].concat());
        assert_eq!(held, ledger_rows(&log[..=at]), "to {}", id(at));
    }
    assert_eq!(set.restored(&["--to", "latest", "--continue"]), rows_of(&set.second));
    stop_server_on(&set.folder(), Duration::from_secs(60)).unwrap();
    std::fs::remove_dir_all(set.folder()).unwrap();

    // A backup of the second server stands in its log, in the file in the middle of which that begins here.
    let backup = set.user.done(&["backup", "shop", "--json"]);
    let plan = set.plan(&["--to", "latest"]);
    assert!(plan.to_string().contains(backup["id"].as_str().unwrap()), "{plan}\n{backup}");
}

#[test]
fn the_log_goes_on_without_a_hole_at_the_server_that_was_promoted_mysql() {
    the_log_goes_on_without_a_hole_at_the_server_that_was_promoted(Engine::MySql);
}

#[test]
fn the_log_goes_on_without_a_hole_at_the_server_that_was_promoted_mariadb() {
    the_log_goes_on_without_a_hole_at_the_server_that_was_promoted(Engine::MariaDb);
}

/// Without `gtid_strict_mode` a replica that wrote goes on to replicate, under the same numbers.
#[test]
fn a_promoted_server_that_wrote_under_the_same_numbers_is_a_fork_mariadb() {
    let mut set = Set::new(Engine::MariaDb);
    set.start_archive();
    Set::work(&set.first, 10);
    set.replicated();
    set.second.run(&["SET GLOBAL gtid_strict_mode = OFF", "CREATE DATABASE its_own"]);
    Set::work(&set.first, 20);
    set.wait_for_archive(&set.first);
    set.replicated();
    set.first.kill();
    set.promote();
    assert_eq!(set.refused().code(), Some(1), "{}", set.said());
    assert!(
        set.said().contains("fork") && set.said().contains("which is not archived, before what is"),
        "{}",
        set.said()
    );
}

/// What it lacks never comes where a server was set back: a backup of it leads on, behind a hole.
#[test]
fn a_server_that_was_set_back_goes_on_behind_a_backup_of_its_own() {
    let mut set = Set::new(Engine::MySql);
    set.start_archive();
    Set::work(&set.first, 10);
    set.replicated();
    set.stop_replication();
    Set::work(&set.first, 10);
    set.wait_for_archive(&set.first);
    set.kill_archive();
    let _ = set.add(&format!("127.0.0.1:{}", set.second.port()), &["--rebuilt"]).ok();
    let archive = set.user.run(&["archive", "shop"]).expect_code(1);
    assert!(archive.stderr.contains("lacks"), "{}", archive.stderr);
    let _ = set.user.done(&["backup", "shop", "--json"]);
    std::fs::remove_file(set.dir.path().join("archive.log")).unwrap();
    set.start_archive();
    // It has nothing of its own yet.
    set.wait_for("the archive to follow", || set.said().contains("following"));
    set.second.run(&["SET GLOBAL read_only = OFF"]);
    Set::work(&set.second, 5);
    set.wait_for("the log of the server", || {
        set.log().iter().any(|entry| entry["id"].as_str().unwrap().ends_with("@1"))
    });
}

fn a_promoted_server_without_the_last_transactions_is_a_fork(engine: Engine) {
    let mut set = Set::new(engine);
    set.start_archive();
    Set::work(&set.first, 20);
    set.replicated();
    set.stop_replication();
    Set::work(&set.first, 10);
    set.wait_for_archive(&set.first);
    let had = rows_of(&set.first);
    set.first.kill();
    set.second.run(&["SET GLOBAL read_only = OFF"]);
    // More than it lacks: MariaDB counts the transactions of both from one number on.
    let lacking = usize::try_from(had - rows_of(&set.second)).unwrap();
    Set::work(&set.second, lacking + 20);
    assert_eq!(set.refused().code(), Some(1), "{}", set.said());
    assert!(set.said().contains("fork") && set.said().contains("--rebuilt"), "{}", set.said());
    let timeline = set.user.run(&["timeline", "shop", "--json"]).expect_code(3).json();
    assert_eq!(timeline["gaps"].as_array().unwrap().len(), 1, "{timeline}");
    assert!(timeline["gaps"][0]["reason"].as_str().unwrap().contains("fork"), "{timeline}");
    // What only the first server had is there.
    let log = set.log();
    assert_eq!(ledger_rows(&log), had);
    let _ = set.plan(&["--to", log.last().unwrap()["id"].as_str().unwrap()]);

    // The user decides: a life of its own, behind a backup of its own.
    let _ = set.add(&format!("127.0.0.1:{}", set.second.port()), &["--rebuilt"]).ok();
    let _ = set.user.done(&["backup", "shop", "--json"]);
    set.start_archive();
    Set::work(&set.second, 5);
    set.wait_for("the second server's log", || {
        set.log().iter().any(|entry| entry["id"].as_str().unwrap().ends_with("@1"))
    });
    let timeline = set.user.run(&["timeline", "shop", "--json"]).expect_code(3).json();
    assert_eq!(timeline["fail_overs"].as_array().unwrap().len(), 0, "never merged: {timeline}");
    assert_eq!(timeline["gaps"].as_array().unwrap().len(), 1, "{timeline}");
}

#[test]
fn a_promoted_server_without_the_last_transactions_is_a_fork_mysql() {
    a_promoted_server_without_the_last_transactions_is_a_fork(Engine::MySql);
}

#[test]
fn a_promoted_server_without_the_last_transactions_is_a_fork_mariadb() {
    a_promoted_server_without_the_last_transactions_is_a_fork(Engine::MariaDb);
}
