//! kill -9 of `backup`, `archive` and `restore` at random moments, under load.
//!
//! After each kill the repository opens, fsck finds nothing wrong, and what was acknowledged is
//! there: a backup that was printed is listed, and a transaction that the server acknowledged more
//! than a second before the archive died is restored. `HOLDFAST_TEST_KILLS` sets the kills of each
//! kind (3 unless set).
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
use holdfast_tests::ledger::{Held, check};
use holdfast_tests::server::{scratch, transaction_number};
use holdfast_tests::{Ack, Engine, Holdfast, Ledger, LedgerOptions, Random, Stalls, TestServer};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant, SystemTime};

/// What the archive may lose of acknowledged transactions: its promise is one second, on a machine that gives it any time
/// at all (`Stalls`).
const LOSS_MAX: Duration = Duration::from_secs(1);

#[test]
fn killed_commands_lose_nothing_that_was_acknowledged_on_mysql() {
    campaign(Engine::MySql, "killed_commands_lose_nothing_that_was_acknowledged_on_mysql");
}

#[test]
fn killed_commands_lose_nothing_that_was_acknowledged_on_mariadb() {
    campaign(Engine::MariaDb, "killed_commands_lose_nothing_that_was_acknowledged_on_mariadb");
}

#[test]
fn a_second_archive_is_refused_while_the_first_is_idle() {
    for engine in Engine::ALL {
        let dir = tempfile::Builder::new().prefix("second-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let source = TestServer::start(engine);
        user.protect(&source);
        let _ = user.done(&["backup", "shop", "--json"]);
        let log = dir.path().join("first");
        let mut first = user.spawn(&["archive", "shop"], &log);
        wait_for_text(&log, "following");
        let second = user.run(&["archive", "shop"]).expect_code(11);
        assert!(second.stderr.contains("archiv"), "{}", second.stderr);
        assert!(first.try_wait().unwrap().is_none(), "the first archive must live on");
        let status = user.done(&["status", "--json"]);
        assert_eq!(status["servers"][0]["archive_running"], true, "{status}");
        first.kill().unwrap();
        first.wait().unwrap();
    }
}

fn kills_of_each_kind() -> u64 {
    std::env::var("HOLDFAST_TEST_KILLS").ok().and_then(|n| n.parse().ok()).unwrap_or(3)
}

struct Campaign {
    user: Holdfast,
    source: TestServer,
    random: Random,
    seed: u64,
    dir: tempfile::TempDir,
}

fn campaign(engine: Engine, name: &str) {
    let (random, seed) = Random::from_environment(name);
    let dir = tempfile::Builder::new().prefix("kills-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let source = TestServer::start(engine);
    Ledger::create_schema(&source);
    user.protect(&source);
    let mut campaign = Campaign { user, source, random, seed: seed % 1_000_000, dir };
    let ledger = campaign.ledger();
    ledger.wait_for(100);
    campaign.backups();
    let acks = campaign.archives(&ledger);
    let mut all = ledger.stop();
    all.retain(|ack| acks.iter().all(|a| a.no != ack.no));
    campaign.restores(&acks);
    let fsck = campaign.user.fsck().ok();
    assert!(fsck.stdout.contains("clean"), "{}", fsck.stdout);
}

impl Campaign {
    fn ledger(&self) -> Ledger {
        // Each archive that is killed is restored from the start: what is written adds up, and in a table without a
        // key each change costs as much as there are rows. So a longer campaign writes more slowly.
        let pause = Duration::from_millis((25 * kills_of_each_kind() / 4).max(25));
        Ledger::start(&self.source, LedgerOptions { seed: self.seed, threads: 3, pause })
    }

    /// Kills backups; one whole backup stands at the end.
    fn backups(&mut self) {
        let mut acknowledged = Vec::new();
        for kill in 0..kills_of_each_kind() {
            let log = self.dir.path().join(format!("backup-{kill}"));
            let child = self.user.spawn(&["backup", "shop", "--json"], &log);
            let _ = self.kill_within(child, 1500);
            let printed = std::fs::read_to_string(&log).unwrap();
            // All of the answer, or nothing: half a JSON document is no acknowledgement.
            let json = printed
                .find('{')
                .and_then(|at| serde_json::from_str::<serde_json::Value>(&printed[at..]).ok());
            acknowledged.extend(json.and_then(|j| j["id"].as_str().map(str::to_owned)));
            self.opens_clean();
        }
        acknowledged.push(self.user.done(&["backup", "shop", "--json"])["id"].as_str().unwrap().to_owned());
        let listed = self.user.done(&["list", "--json"]);
        let ids: Vec<&str> =
            listed["backups"].as_array().unwrap().iter().filter_map(|b| b["id"].as_str()).collect();
        for id in &acknowledged {
            assert!(
                ids.contains(&id.as_str()),
                "the backup {id} was acknowledged and is not listed: {ids:?}"
            );
        }
    }

    /// Kills archives; gives what the last one must hold.
    fn archives(&mut self, ledger: &Ledger) -> Vec<Ack> {
        let mut must_hold = Vec::new();
        let stalls = Stalls::watch(self.dir.path());
        for kill in 0..kills_of_each_kind() {
            let log = self.dir.path().join(format!("archive-{kill}"));
            let child = self.user.spawn(&["archive", "shop"], &log);
            // It has to catch up before its second counts.
            wait_for_text(&log, "following");
            self.wait_until_caught_up();
            stalls.forget();
            std::thread::sleep(Duration::from_millis(300));
            let killed = self.kill_within(child, 1000);
            let loss_max = stalls.stretched(LOSS_MAX);
            self.opens_clean();
            must_hold = ledger.acks();
            must_hold.retain(|ack| ack.acked + loss_max < killed);
            let held = self.restored(&["--after", &self.last_archived()]);
            let lost: Vec<_> = must_hold.iter().filter(|ack| !held.holds(ack)).collect();
            assert!(
                lost.is_empty(),
                "kill {kill}, {loss_max:?}: {} acknowledged transactions are lost: {:?}",
                lost.len(),
                lost.first()
            );
        }
        must_hold
    }

    /// Kills restores of one target into one folder, then lets the same command finish.
    fn restores(&mut self, must_hold: &[Ack]) {
        let into = self.dir.path().join("killed-restore");
        let id = self.last_archived();
        let arguments = self.restore_arguments(&into, &["--after", &id]);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        for kill in 0..kills_of_each_kind() {
            let log = self.dir.path().join(format!("restore-{kill}"));
            let child = self.user.spawn(&arguments, &log);
            let _ = self.kill_within(child, 4000);
            self.opens_clean();
        }
        // A kill may have come after the end; the folder is finished then, and said to be taken.
        let outcome = self.user.run(&arguments);
        if outcome.code == Some(2) {
            assert!(outcome.stderr.contains("not empty"), "{}", outcome.stderr);
        } else {
            let _ = outcome.accepted();
        }
        let held = held_by(&into, self.seed);
        assert!(must_hold.iter().all(|ack| held.holds(ack)));
        stop_server_on(&into, Duration::from_secs(60)).unwrap();
    }

    /// Kills it at a random moment, and tells a time at which it still lived.
    fn kill_within(&mut self, mut child: Child, ms_max: u64) -> SystemTime {
        std::thread::sleep(Duration::from_millis(self.random.below(ms_max)));
        let alive = SystemTime::now();
        child.kill().unwrap();
        child.wait().unwrap();
        alive
    }

    fn opens_clean(&self) {
        let _ = self.user.run(&["list", "--json"]).ok();
        let fsck = self.user.fsck();
        assert_eq!(fsck.code, Some(0), "{}\n{}", fsck.stdout, fsck.stderr);
    }

    fn newest_archived(&self) -> Option<String> {
        let found =
            self.user.done(&["find", "shop", "--table", "shop.ledger", "--limit", "1000000", "--json"]);
        Some(found["found"].as_array().unwrap().last()?["id"].as_str().unwrap().to_owned())
    }

    fn last_archived(&self) -> String {
        self.newest_archived().unwrap()
    }

    /// Waits until the archive holds all that was committed a moment ago.
    fn wait_until_caught_up(&self) {
        let deadline = Instant::now() + Duration::from_secs(180);
        loop {
            let committed = self.source.last_transaction();
            std::thread::sleep(Duration::from_millis(900));
            if self.newest_archived().is_some_and(|id| transaction_number(&id) >= committed) {
                return;
            }
            assert!(Instant::now() < deadline, "the archive does not catch up with the writers");
        }
    }

    fn restore_arguments(&self, into: &Path, target: &[&str]) -> Vec<String> {
        let engine_dir = self.source.engine().dir();
        let mut arguments: Vec<String> = ["restore", "shop"].map(str::to_owned).to_vec();
        arguments.extend(target.iter().map(|&t| t.to_owned()));
        arguments.extend(["--into".to_owned(), into.to_str().unwrap().to_owned()]);
        arguments.extend([
            "--engine-dir".to_owned(),
            engine_dir.to_str().unwrap().to_owned(),
            "--start".to_owned(),
        ]);
        arguments
    }

    fn restored(&self, target: &[&str]) -> Held {
        let into = self.dir.path().join("restored");
        let arguments = self.restore_arguments(&into, target);
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let _ = self.user.run(&arguments).accepted();
        let held = held_by(&into, self.seed);
        stop_server_on(&into, Duration::from_secs(60)).unwrap();
        std::fs::remove_dir_all(&into).unwrap();
        held
    }
}

fn wait_for_text(log: &Path, text: &str) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while Instant::now() < deadline {
        if std::fs::read_to_string(log).unwrap_or_default().contains(text) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("{} never said '{text}': {}", log.display(), std::fs::read_to_string(log).unwrap_or_default());
}

fn held_by(into: &Path, seed: u64) -> Held {
    let socket: PathBuf = into.join(SOCKET);
    let options = ConnectOptions::new(Endpoint::Unix(socket), "root").tls_mode(TlsMode::Disabled);
    let mut conn = Conn::connect(&options).unwrap();
    check(&mut conn, seed).unwrap_or_else(|why| panic!("{why}"))
}
