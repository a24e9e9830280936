//! The main job on real servers, with random targets: times, GTIDs, ids, positions.
//!
//! Backup under load, other work beside the ledger (definitions, accounts, counters, cascades),
//! then restores. Each restored shop must be what the ledger's model says, hold exactly the
//! transactions that the log has before its cut, and agree with the outside record of when each
//! was acknowledged. A quarter of the targets, and at least four, are restored afresh; one restore is
//! rolled forward through the others. Some are compared table by table with a replica that the
//! server's own applier stopped at the same GTID, and the latest state with the source itself. `HOLDFAST_TEST_TARGETS` sets the number (7 unless set;
//! the campaign of issue 2 is 20).
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
use holdfast_tests::replica::replica_until;
use holdfast_tests::server::{scratch, transaction_number};
use holdfast_tests::side_work;
use holdfast_tests::{
    Ack, Engine, Holdfast, Ledger, LedgerOptions, Random, ServerState, TestServer, differences,
};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How many fresh restores are compared with a replica; the last one that is rolled forward is, too.
const REPLICAS: u64 = 1;

#[test]
fn random_targets_are_restored_as_the_ledger_was_on_mysql() {
    run(Engine::MySql, "random_targets_are_restored_as_the_ledger_was_on_mysql");
}

#[test]
fn random_targets_are_restored_as_the_ledger_was_on_mariadb() {
    run(Engine::MariaDb, "random_targets_are_restored_as_the_ledger_was_on_mariadb");
}

fn targets() -> u64 {
    std::env::var("HOLDFAST_TEST_TARGETS").ok().and_then(|n| n.parse().ok()).unwrap_or(7)
}

struct Job {
    user: Holdfast,
    source: TestServer,
    seed: u64,
    acks: Vec<Ack>,
    dir: tempfile::TempDir,
}

fn run(engine: Engine, name: &str) {
    let (mut random, seed) = Random::from_environment(name);
    let job = Job::prepare(engine, seed % 1_000_000);
    let log = job.log();
    let first = job.first_after_backup(&log);
    let fresh = (targets() / 4).max(4);
    for number in 0..fresh {
        let at = first + random.below((log.len() - first) as u64) as usize;
        let target = &log[at];
        let id = target["id"].as_str().unwrap();
        let place = target["position"].as_str().unwrap();
        let (arguments, kept): (Vec<String>, usize) = match number % 4 {
            0 => (vec!["--to".into(), id.to_owned()], at + 1),
            1 => (vec!["--before".into(), id.to_owned()], at),
            2 => (vec!["--to".into(), format!("pos:{place}")], at),
            _ => {
                job.time_target(&log, at);
                continue;
            }
        };
        let what = format!("target {number} ({arguments:?})");
        let (held, into) = job.restored(&arguments);
        assert_eq!(held.transactions, ledger_rows(&log[..kept]), "{what}");
        if number < REPLICAS {
            job.compare_with_replica(&into, &log[kept - 1], &what);
        }
        job.discard(&into);
    }
    job.rolled_forward(&mut random, &log, first, targets().saturating_sub(fresh));
    job.latest_is_latest();
    job.fastest_and_finish();
    let _ = job.user.fsck().ok();
}

/// Transactions of the ledger among entries of the log.
fn ledger_rows(log: &[Value]) -> u64 {
    let tables = log.iter().flat_map(|entry| entry["tables"].as_array().unwrap());
    tables.filter(|t| t["table"] == "shop.ledger").map(|t| t["inserted"].as_u64().unwrap()).sum()
}

impl Job {
    /// The shop, protected, written to before, during and after one backup.
    fn prepare(engine: Engine, seed: u64) -> Self {
        let dir = tempfile::Builder::new().prefix("targets-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let source = TestServer::start(engine);
        Ledger::create_schema(&source);
        user.protect(&source);
        let mut archive = user.spawn(&["archive", "shop"], &dir.path().join("archive.log"));
        let options = LedgerOptions { seed, threads: 3, pause: Duration::from_millis(2) };
        let ledger = Ledger::start(&source, options);
        ledger.wait_for(150);
        let _ = user.done(&["backup", "shop", "--json"]);
        for statement in side_work::STATEMENTS {
            ledger.wait_for(10);
            source.run(&[statement]);
        }
        ledger.wait_for(50);
        let acks = ledger.stop();
        let job = Self { user, source, seed, acks, dir };
        let deadline = Instant::now() + Duration::from_secs(120);
        let archived = || job.log().last().map_or(0, |last| transaction_number(last["id"].as_str().unwrap()));
        while archived() < job.source.last_transaction() {
            assert!(Instant::now() < deadline, "the archive does not come to the end of the log");
            std::thread::sleep(Duration::from_millis(200));
        }
        archive.kill().unwrap();
        archive.wait().unwrap();
        job
    }

    /// One restore, to `count` targets one after the other.
    fn rolled_forward(&self, random: &mut Random, log: &[Value], first: usize, count: u64) {
        let mut cuts: Vec<usize> =
            (0..count).map(|_| first + 1 + random.below((log.len() - first - 1) as u64) as usize).collect();
        cuts.sort_unstable();
        let Some(&last) = cuts.last() else { return };
        for (number, &kept) in cuts.iter().enumerate() {
            let id = |at: usize| log[at]["id"].as_str().unwrap();
            let mut arguments = match random.below(3) {
                0 => vec!["--to".to_owned(), id(kept - 1).to_owned()],
                1 => vec!["--before".to_owned(), id(kept).to_owned()],
                _ => vec!["--to".to_owned(), format!("pos:{}", log[kept]["position"].as_str().unwrap())],
            };
            if number > 0 {
                arguments.push("--continue".to_owned());
            }
            let what = format!("rolled forward to target {number} ({arguments:?})");
            let (held, into) = self.restored(&arguments);
            assert_eq!(held.transactions, ledger_rows(&log[..kept]), "{what}");
            if kept == last && number + 1 == cuts.len() {
                self.compare_with_replica(&into, &log[kept - 1], &what);
            }
        }
        // Not backwards, and what is there stays as it is.
        let back = self.arguments(&["--continue", "--to", log[first]["id"].as_str().unwrap()]);
        let refused = self.user.run(&back.iter().map(String::as_str).collect::<Vec<_>>()).expect_code(20);
        assert!(refused.stderr.contains("forward only"), "{}", refused.stderr);
        let held = check(&mut connect(&self.into()), self.seed).unwrap();
        assert_eq!(held.transactions, ledger_rows(&log[..last]), "a refused target changed something");
        self.discard(&self.into());
    }

    /// Every transaction of the archive, in order.
    fn log(&self) -> Vec<Value> {
        let found = self.user.done(&["find", "shop", "--limit", "1000000", "--json"]);
        found["found"].as_array().unwrap().clone()
    }

    /// The first entry that no backup may hold already.
    fn first_after_backup(&self, log: &[Value]) -> usize {
        let at = |entry: &Value| entry["tables"].as_array().unwrap().iter().any(|t| t["table"] == "side.t");
        log.iter().position(at).unwrap()
    }

    /// `--to TIME`: the outside record says what must and what must not be there.
    fn time_target(&self, log: &[Value], at: usize) {
        let time = log[at]["at"].as_str().unwrap();
        if micros(time) >= micros(log[log.len() - 1]["at"].as_str().unwrap()) {
            // Nothing later is archived, so nobody knows yet what else belongs to that moment.
            let outcome = self
                .user
                .run(&self.arguments(&["--to", time]).iter().map(String::as_str).collect::<Vec<_>>());
            let _ = outcome.expect_code(20);
            return;
        }
        let (held, into) = self.restored(&["--to".to_owned(), time.to_owned()]);
        let stamp =
            |a: SystemTime| i128::try_from(a.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap();
        let target = micros(time);
        // MariaDB logs whole seconds, and the time at which the statement began.
        let slack = if self.source.engine() == Engine::MariaDb { 1_100_000 } else { 2_000 };
        for ack in &self.acks {
            if stamp(ack.acked) < target - slack {
                assert!(held.holds(ack), "--to {time}: {ack:?} was acknowledged before and is missing");
            }
            if stamp(ack.sent) > target + slack {
                assert!(!held.holds(ack), "--to {time}: {ack:?} was committed after and is there");
            }
        }
        self.discard(&into);
    }

    fn arguments(&self, target: &[&str]) -> Vec<String> {
        let into = self.into();
        let engine_dir = self.source.engine().dir();
        let mut arguments = vec!["restore", "shop"];
        arguments.extend(target);
        arguments.extend(["--into", into.to_str().unwrap()]);
        arguments.extend(["--engine-dir", engine_dir.to_str().unwrap(), "--start"]);
        arguments.into_iter().map(str::to_owned).collect()
    }

    fn into(&self) -> PathBuf {
        self.dir.path().join("restored")
    }

    fn restored(&self, target: &[String]) -> (Held, PathBuf) {
        let into = self.into();
        let words: Vec<&str> = target.iter().map(String::as_str).collect();
        let arguments = self.arguments(&words);
        let _ = self.user.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).accepted();
        let held = check(&mut connect(&into), self.seed).unwrap_or_else(|why| panic!("{target:?}: {why}"));
        (held, into)
    }

    fn compare_with_replica(&self, into: &Path, last: &Value, what: &str) {
        let gtid = last["id"].as_str().unwrap().trim_start_matches("gtid:");
        let replica = replica_until(&self.source, gtid);
        let expected = ServerState::read(&mut replica.root()).unwrap().as_on_a_replica();
        let found = ServerState::read(&mut connect(into)).unwrap().as_on_a_replica();
        let wrong = differences(&expected, &found);
        assert!(wrong.is_empty(), "{what}: not as a replica stopped at {gtid}:\n{}", wrong.join("\n"));
    }

    fn discard(&self, into: &Path) {
        stop_server_on(into, Duration::from_secs(60)).unwrap();
        std::fs::remove_dir_all(into).unwrap();
    }

    /// `--to latest` fetches what was committed since the archive ended. Nobody writes any more, so the source itself is
    /// what the restored server must be: every row, definition, counter and account.
    fn latest_is_latest(&self) {
        let options = LedgerOptions { seed: self.seed, threads: 3, pause: Duration::from_millis(2) };
        let ledger = Ledger::start(&self.source, options);
        ledger.wait_for(20);
        let acks = ledger.stop();
        let (held, into) = self.restored(&["--to".to_owned(), "latest".to_owned()]);
        assert!(acks.iter().chain(&self.acks).all(|ack| held.holds(ack)), "latest lacks a transaction");
        let expected = ServerState::read(&mut self.source.root()).unwrap();
        let wrong = differences(&expected, &ServerState::read(&mut connect(&into)).unwrap());
        assert!(wrong.is_empty(), "latest is not as the source:\n{}", wrong.join("\n"));
        self.discard(&into);
    }

    /// `--to fastest` replays nothing; after `finish` the server takes writes.
    fn fastest_and_finish(&self) {
        let (_, into) = self.restored(&["--to".to_owned(), "fastest".to_owned()]);
        let text = into.to_str().unwrap();
        let refused = connect(&into).execute("INSERT INTO shop.visits VALUES (99, '/', 1)");
        let fenced = self.source.engine() == Engine::MariaDb || refused.is_err();
        assert!(fenced, "a restored server took a write before `restore finish`");
        let engine_dir = self.source.engine().dir();
        let finish = ["restore", "finish", text, "--engine-dir", engine_dir.to_str().unwrap()];
        let _ = self.user.run(&finish).ok();
        connect(&into).execute("INSERT INTO shop.visits VALUES (99, '/', 1)").unwrap();
        self.discard(&into);
    }
}

/// An RFC 3339 time in UTC with milliseconds, as microseconds since 1970.
fn micros(time: &str) -> i128 {
    let at: jiff::Timestamp = time.parse().unwrap();
    i128::from(at.as_microsecond())
}

fn connect(into: &Path) -> Conn {
    let options = ConnectOptions::new(Endpoint::Unix(into.join(SOCKET)), "root").tls_mode(TlsMode::Disabled);
    Conn::connect(&options).unwrap()
}
