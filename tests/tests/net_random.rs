//! Random schemas and statements: the copy that a net replay makes must be the source, whatever
//! the size of windows and chunks and the number of connections.
//!
//! A few cases here; `HOLDFAST_NET_CASES=1000` makes it a campaign (totals: docs/campaigns.md). One pair of
//! servers for each family, one database a case. The seed that is printed repeats a case.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use holdfast_engine::PrivateServer;
use holdfast_format::gtid::GtidSet;
use holdfast_replay::log::MemoryLog;
use holdfast_replay::net::{Class, Mode, Options};
use holdfast_replay::{finish::finish, scan::scan, serial};
use holdfast_tests::random_work::Case;
use holdfast_tests::replaying::{binlogs, flavor, go_on};
use holdfast_tests::{Engine, Random, ServerState, TestServer, differences};

/// Options that leave nothing as it usually is.
fn options(random: &mut Random) -> Options {
    Options {
        mode: *random.pick(&[Mode::Net, Mode::Net, Mode::Net, Mode::Ordered]),
        connections: 1 + random.below(4) as usize,
        chunk_bytes: *random.pick(&[1, 300, 5_000, 4 << 20]),
        memory_bytes: *random.pick(&[1, 3_000, 50_000, 64 << 20]),
        early_bytes: *random.pick(&[1, 2_000, 4 << 20]),
    }
}

/// Counts of a campaign.
#[derive(Debug, Default)]
struct Totals {
    cases: u64,
    statements: u64,
    failed: u64,
    rows: u64,
    net: u64,
    ordered: u64,
    together: u64,
}

fn campaign(engine: Engine, cases: u64) {
    let (_, seed) = Random::from_environment("net_random");
    let extra: &[&str] = match engine {
        Engine::MySql => &["--binlog-transaction-compression=OFF"],
        Engine::MariaDb => &[],
    };
    let source = TestServer::start_with(engine, extra);
    let target =
        TestServer::start_with(engine, &["--transaction-isolation=READ-COMMITTED", "--skip-log-bin"]);
    let mut totals = Totals::default();
    for case in 0..cases {
        // The case's own seed repeats it alone, as the first one.
        one(engine, &source, target.server(), seed.wrapping_add(case), &mut totals);
    }
    println!("{engine:?}: {totals:?}");
    assert!(totals.failed * 2 < totals.statements, "most statements failed: {totals:?}");
}

fn one(engine: Engine, source: &TestServer, target: &PrivateServer, seed: u64, totals: &mut Totals) {
    let mut random = Random::new(seed ^ 0x5eed);
    source.run(&["FLUSH BINARY LOGS"]);
    let old = binlogs(source.datadir());
    let base = source.gtids();
    let mut case = Case::new(engine, seed);
    let mut conn = source.root();
    let mut sent = Vec::new();
    let mut all = case.schema();
    let count = 60 + random.below(120);
    while (sent.len() as u64) < count {
        for sql in all.drain(..) {
            totals.statements += 1;
            match conn.execute(&sql) {
                Ok(_) => {}
                Err(holdfast_mysql::Error::Server(_)) => totals.failed += 1,
                Err(error) => panic!("seed {seed}: {sql}: {error}"),
            }
            sent.push(sql);
        }
        all = case.statements();
    }
    source.run(&["FLUSH BINARY LOGS"]);
    let mut log = MemoryLog::default();
    let new = binlogs(source.datadir());
    let from = old.len() - 1;
    for name in new.iter().take(new.len() - 1).skip(from) {
        log.push(name, std::fs::read(source.datadir().join(name)).unwrap());
    }
    let options = options(&mut random);
    let fail = |why: String| -> ! {
        let dir = holdfast_tests::server::scratch().join(format!("net-random-{seed}.sql"));
        std::fs::write(&dir, sent.join(";\n")).unwrap();
        panic!(
            "seed {seed}, {options:?}: {why}\nthe statements are in {}; to repeat: HOLDFAST_NET_CASES=1 HOLDFAST_TEST_SEED={seed} \
             tools/test net_random",
            dir.display()
        );
    };
    let plan = serial::Options {
        plan: format!("case {seed}"),
        boot_id: "boot".to_owned(),
        base: GtidSet::parse(flavor(engine), &base).unwrap(),
        done: 0,
    };
    let summary = scan(&log).unwrap();
    // Partial JSON and the like are refused; a case has none of it.
    summary.check().unwrap_or_else(|error| fail(error.to_string()));
    let mut replaying = target.connect_as("root", None).unwrap();
    let connect = || target.connect_as("root", None).map_err(|e| Box::new(e) as _);
    let outcome = holdfast_replay::run(&mut replaying, &connect, &log, &plan, &options, &summary, &mut go_on)
        .unwrap_or_else(|error| fail(error.to_string()));
    finish(&mut replaying, &outcome.gtids, &outcome.binlog_state).unwrap();
    let mut expected = ServerState::read(&mut source.root()).unwrap();
    let mut found = ServerState::read(&mut target.connect_as("root", None).unwrap()).unwrap();
    // What a failed or rolled-back statement took from a counter is in no log.
    for table in expected.tables.values_mut().chain(found.tables.values_mut()) {
        table.counter = None;
    }
    let different = differences(&expected, &found);
    if !different.is_empty() {
        fail(different.join("\n"));
    }
    totals.cases += 1;
    totals.rows += summary.rows;
    for class in outcome.classes.values() {
        match class {
            Class::Net => totals.net += 1,
            Class::Ordered { .. } => totals.ordered += 1,
            Class::Together { .. } => totals.together += 1,
        }
    }
}

fn cases() -> u64 {
    std::env::var("HOLDFAST_NET_CASES").map_or(8, |text| text.parse().unwrap())
}

#[test]
fn random_work_on_a_mysql_is_replayed_to_the_same_state() {
    campaign(Engine::MySql, cases());
}

#[test]
fn random_work_on_a_mariadb_is_replayed_to_the_same_state() {
    campaign(Engine::MariaDb, cases());
}
