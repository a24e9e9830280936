//! A daemon whose configuration names a replica: the backups that it takes of its own accord and those that it is asked for
//! come from there, and from the server itself, with the reason, where the replica can't be had.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::run::SOCKET;
use holdfast_tests::daemon_bed::DaemonBed;
use holdfast_tests::ledger::check;
use holdfast_tests::replica::Followed;
use holdfast_tests::server::scratch;
use holdfast_tests::{Engine, Holdfast, Ledger, LedgerOptions};
use serde_json::{Value, json};
use std::time::Duration;

const SEED: u64 = 12;

/// Asks for a backup; gives its job once it ended.
fn backup(bed: &mut DaemonBed, note: &str) -> Value {
    let (status, job) = bed.ask("POST", "/servers/shop/backups", Some(json!({ "note": note }))).unwrap();
    assert_eq!(status, 202, "{job}");
    bed.until_ended(&job["id"])
}

/// The backup of this note, among those that are listed.
fn noted(bed: &DaemonBed, note: &str) -> Value {
    let (_, listed) = bed.ask("GET", "/backups", None).unwrap();
    let all = listed["backups"].as_array().unwrap();
    all.iter().find(|backup| backup["note"] == note).cloned().unwrap_or_default()
}

#[test]
fn a_daemon_copies_the_replica_that_it_is_told_of_and_the_server_where_that_is_gone() {
    let dir = tempfile::Builder::new().prefix("daemon-copy-from-").tempdir_in(scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let mut pair = Followed::start(Engine::MySql);
    Ledger::create_schema(&pair.source);
    user.protect(&pair.source);
    let options = LedgerOptions { seed: SEED, threads: 2, pause: Duration::from_millis(5) };
    let work = Ledger::start(&pair.source, options);
    work.wait_for(40);
    let replica = format!("127.0.0.1:{}", pair.replica.port());
    let mut bed = DaemonBed::new(user, dir, 1);
    bed.configure(&format!(
        "[policy.default]\ndrill = 0\n[[server]]\nname = 'shop'\ncopy_from = ['{replica}']\nmax_replica_lag = '20s'\n"
    ));
    bed.start();

    // The first one comes by itself, before the stream; the next one is asked for, while the stream runs.
    bed.until("the first backup", |bed| {
        bed.ask("GET", "/backups", None).is_some_and(|(_, all)| all["backups"][0]["id"].is_string())
    });
    let (_, listed) = bed.ask("GET", "/backups", None).unwrap();
    assert_eq!(listed["backups"][0]["copied_from"], replica.as_str(), "{listed}");
    bed.until_following();
    work.wait_for(80);
    let job = backup(&mut bed, "from the replica");
    assert_eq!(job["standing"], "done", "{job}");
    let taken = noted(&bed, "from the replica");
    assert_eq!(taken["copied_from"], replica.as_str(), "{taken}");
    assert_eq!(taken["not_from_replica"], Value::Null, "{taken}");

    // Without it the server itself is copied, and the backup says why.
    pair.replica.stop();
    let job = backup(&mut bed, "without it");
    assert_eq!(job["standing"], "done", "{job}");
    let taken = noted(&bed, "without it");
    assert_eq!(taken["copied_from"], Value::Null, "{taken}");
    let why = taken["not_from_replica"].as_str().unwrap();
    assert!(why.contains(&replica) && why.contains("can't be used"), "{why}");

    // What the daemon took of the replica leads to the server's present.
    work.stop();
    let rows = pair.source.value("SELECT COUNT(*) FROM shop.ledger").unwrap().parse::<u64>().unwrap();
    bed.until_caught_up();
    bed.kill();
    let _ = bed.user.fsck().ok();
    let id = taken["id"].as_str().unwrap();
    let _ = bed.user.run(&["forget", id]).ok();
    let into = bed.dir.path().join("restored/shop");
    let engine_dir = Engine::MySql.dir();
    let arguments = ["restore", "shop", "--to", "latest", "--start", "--into", into.to_str().unwrap()];
    let _ =
        bed.user.run(&[&arguments[..], &["--engine-dir", engine_dir.to_str().unwrap()]].concat()).accepted();
    let endpoint = Endpoint::Unix(into.join(SOCKET));
    let options = ConnectOptions::new(endpoint, "root").tls_mode(TlsMode::Disabled);
    let held = check(&mut Conn::connect(&options).unwrap(), SEED).unwrap();
    assert_eq!(held.transactions, rows);
    stop_server_on(&into, Duration::from_secs(60)).unwrap();
}
