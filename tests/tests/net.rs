//! Net replay on real servers: the copy of a source's folder, brought forward by the net change of
//! the source's own binlog files on several connections, must be what the source is, what a
//! serial replay makes, and what the server's own applier makes.

#![expect(clippy::panic, reason = "a test that can't go on has failed")]

use std::ops::ControlFlow;

use holdfast_engine::PrivateServer;
use holdfast_replay::net::{Mode, Options};
use holdfast_replay::serial::{Outcome, Progress};
use holdfast_replay::{Error, finish::finish, scan::scan};
use holdfast_tests::replaying::{Bed, SCHEMA, go_on, rarities, workload};
use holdfast_tests::{Engine, Random};

fn net(mode: Mode) -> Options {
    Options { mode, connections: 3, ..Options::default() }
}

fn attempt(
    bed: &Bed,
    server: &PrivateServer,
    options: &Options,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let mut conn = server.connect().map_err(|e| Error::Connect(Box::new(e)))?;
    let summary = scan(&bed.log)?;
    summary.check()?;
    let connect = || server.connect().map_err(|e| Box::new(e) as _);
    let outcome =
        holdfast_replay::run(&mut conn, &connect, &bed.log, &bed.options(), options, &summary, progress)?;
    finish(&mut conn, &outcome.gtids, &outcome.binlog_state)?;
    Ok(outcome)
}

/// Replays onto a fresh copy and compares with the source.
fn becomes_the_source(bed: &Bed, options: &Options, what: &str) -> Outcome {
    let server = bed.start(&bed.copy(&what.replace(|c: char| !c.is_ascii_alphanumeric(), "_")));
    let outcome =
        attempt(bed, &server, options, &mut go_on).unwrap_or_else(|error| panic!("{what}: {error}"));
    assert_eq!(outcome.gtids.to_string(), bed.source.gtids(), "{what}");
    bed.compare(&server, what);
    outcome
}

fn random_work(engine: Engine, options: &[&str], rounds: u64) {
    let (mut random, seed) = Random::from_environment("net");
    let bed = Bed::make(engine, options, SCHEMA, |source| workload(source, &mut random, rounds));
    for mode in [Mode::Net, Mode::Ordered] {
        let outcome = becomes_the_source(&bed, &net(mode), &format!("{engine:?} {mode:?}, seed {seed}"));
        println!("{mode:?}: {:?}", outcome.classes);
    }
}

#[test]
fn the_net_change_of_a_mysql_makes_the_source() {
    random_work(Engine::MySql, &[], 400);
}

#[test]
fn the_net_change_of_a_mariadb_makes_the_source() {
    random_work(Engine::MariaDb, &[], 400);
}

#[test]
fn the_net_change_of_compressed_minimal_rows_makes_the_source() {
    random_work(Engine::MySql, &["--binlog-transaction-compression=ON", "--binlog-row-image=MINIMAL"], 200);
}

#[test]
fn the_net_change_of_compressed_events_makes_the_source() {
    let options = ["--log-bin-compress=ON", "--log-bin-compress-min-len=20", "--binlog-alter-two-phase=ON"];
    random_work(Engine::MariaDb, &options, 200);
}

#[test]
fn rare_statements_and_tables_are_replayed_exactly() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &["--log-bin-trust-function-creators=ON"], SCHEMA, rarities);
        becomes_the_source(&bed, &net(Mode::Net), &format!("{engine:?} rarities"));
    }
}
