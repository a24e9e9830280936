//! The test bed itself, on real servers: they start, the ledger runs, a planted difference is seen.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::time::Duration;

use holdfast_engine::{Error, PrivateServer, StartOptions, kill_server_on};
use holdfast_tests::side_work;
use holdfast_tests::{
    Engine, Ledger, LedgerOptions, Random, ServerState, TestServer, differences, ledger, replica,
};

fn state(server: &TestServer) -> ServerState {
    ServerState::read(&mut server.root()).unwrap()
}

fn the_ledger_agrees_with_the_model_and_a_planted_difference_is_seen(engine: Engine) {
    let (_, seed) = Random::from_environment("the_ledger_agrees");
    let source = TestServer::start(engine);
    Ledger::create_schema(&source);
    let writers = Ledger::start(&source, LedgerOptions { seed, ..LedgerOptions::default() });
    writers.wait_for(300);
    let acks = writers.stop();

    let held = ledger::check(&mut source.root(), seed).unwrap();
    assert_eq!(held.transactions, acks.len() as u64);
    assert!(acks.iter().all(|ack| held.holds(ack)));
    if engine == Engine::MariaDb {
        assert!(acks.iter().all(|ack| ack.gtid.as_deref().is_some_and(|gtid| gtid.starts_with("7-"))));
    }

    source.run(&side_work::STATEMENTS);
    let twin = replica::replica_until(&source, &source.gtids());
    assert_eq!(
        differences(&state(&source).as_on_a_replica(), &state(&twin).as_on_a_replica()),
        Vec::<String>::new()
    );
    let whole = state(&source);
    assert!(whole.tables["shop.orders"].rows.len() > 10 && whole.accounts.len() >= 3);
    assert_eq!(whole.tables["side.numbers"].counter, Some(106), "above every row");

    let shop = [
        ("UPDATE shop.customers SET balance = balance + 0.01 LIMIT 1", "shop.customers"),
        (
            "UPDATE shop.customers SET profile = JSON_SET(profile, '$.tags[1]', 'other') LIMIT 1",
            "shop.customers",
        ),
        ("INSERT INTO shop.visits SELECT * FROM shop.visits LIMIT 1", "shop.visits"),
        ("UPDATE shop.pictures SET body = CONCAT(body, 'x') LIMIT 1", "shop.pictures"),
        ("DELETE FROM shop.audit LIMIT 1", "shop.audit"),
    ];
    let mut conn = twin.root();
    for (plant, told) in shop {
        conn.execute("BEGIN").unwrap();
        conn.execute(plant).unwrap();
        let seen = ledger::check(&mut conn, seed).unwrap_err();
        assert!(seen.contains(told), "not seen by the model: {plant}: {seen}");
        conn.execute("ROLLBACK").unwrap();
    }
    for (plant, told) in shop.into_iter().chain(side_work::PLANTS) {
        let before = state(&twin);
        twin.run(&[plant]);
        let seen = differences(&before, &state(&twin));
        assert!(seen.iter().any(|line| line.contains(told)), "not seen: {plant}: {seen:?}");
    }
}

#[test]
fn on_mysql_the_ledger_agrees_with_the_model_and_a_planted_difference_is_seen() {
    the_ledger_agrees_with_the_model_and_a_planted_difference_is_seen(Engine::MySql);
}

#[test]
fn on_mariadb_the_ledger_agrees_with_the_model_and_a_planted_difference_is_seen() {
    the_ledger_agrees_with_the_model_and_a_planted_difference_is_seen(Engine::MariaDb);
}

#[test]
fn what_was_acknowledged_survives_a_kill_of_the_server_and_the_ledger_goes_on() {
    for engine in Engine::ALL {
        let seed = 11;
        let mut source = TestServer::start(engine);
        Ledger::create_schema(&source);
        let writers = Ledger::start(&source, LedgerOptions { seed, ..LedgerOptions::default() });
        writers.wait_for(60);
        source.kill();
        let (acks, _) = writers.stop_anyhow();
        source.start_again();
        let held = ledger::check(&mut source.root(), seed).unwrap();
        assert!(acks.iter().all(|ack| held.holds(ack)), "{engine:?} lost an acknowledged transaction");
        let writers = Ledger::start(&source, LedgerOptions { seed, ..LedgerOptions::default() });
        writers.wait_for(30);
        writers.stop();
        ledger::check(&mut source.root(), seed).unwrap();
        source.stop();
    }
}

#[test]
fn a_private_server_is_shut_off_from_the_world_and_leaves_no_account_behind() {
    for engine in Engine::ALL {
        let mut source = TestServer::start(engine);
        source.stop();
        let options = StartOptions::new(engine.programs(), source.datadir());
        let server = PrivateServer::start(options.clone()).unwrap();
        let mut conn = server.connect().unwrap();
        let mut value = |query: &str| conn.query_text(query).unwrap().unwrap_or_default();
        assert_eq!(value("SELECT @@skip_networking"), "1");
        assert_eq!(value("SELECT @@log_bin"), "0");
        assert_eq!(value("SELECT @@event_scheduler"), "OFF");
        let ours = "SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'holdfast\\_private\\_%'";
        assert_eq!(value(ours), "1");
        assert!(value("SELECT LOAD_FILE('/etc/hostname')").is_empty());
        // A second server on the folder is refused, and a killed one leaves an account that the next start drops.
        assert!(matches!(PrivateServer::start(options.clone()).unwrap_err(), Error::InUse { .. }));
        let first = server.account().to_owned();
        server.kill();
        let server = PrivateServer::start(options).unwrap();
        let mut conn = server.connect().unwrap();
        assert_eq!(conn.query_text(ours).unwrap().as_deref(), Some("1"));
        assert_ne!(server.account(), first);
        server.drop_account(&mut conn).unwrap();
        assert_eq!(conn.query_text(ours).unwrap().as_deref(), Some("0"));
        server.stop(Duration::from_secs(60)).unwrap();
    }
}

#[test]
fn a_starting_server_deletes_nothing_of_others_and_its_temporary_folder_is_no_schema() {
    for engine in Engine::ALL {
        let mut source = TestServer::start(engine);
        source.stop();
        // What another server on this host may have open: MariaDB deletes such files when it starts.
        let other = tempfile::Builder::new().prefix("#sql-temptable-").suffix(".MAD").tempfile().unwrap();
        let server = PrivateServer::start(StartOptions::new(engine.programs(), source.datadir())).unwrap();
        assert!(other.path().exists(), "{engine:?}: a file of another server was deleted");
        let mut conn = server.connect().unwrap();
        let schemas = conn.query_text("SELECT GROUP_CONCAT(schema_name) FROM information_schema.schemata");
        let schemas = schemas.unwrap().unwrap();
        assert!(!schemas.contains("tmp"), "{engine:?}: {schemas}");
        assert!(server.datadir().join(".holdfast-tmp").exists());
        server.stop(Duration::from_secs(60)).unwrap();
        assert!(!source.datadir().join(".holdfast-tmp").exists());
    }
}

#[test]
fn a_server_that_outlived_its_process_is_found_and_killed() {
    let mut source = TestServer::start(Engine::MariaDb);
    source.stop();
    assert!(!kill_server_on(source.datadir()).unwrap());
    let options = StartOptions::new(Engine::MariaDb.programs(), source.datadir());
    let server = PrivateServer::start(options.clone()).unwrap();
    // As after kill -9 of us: the process lives, nobody holds it.
    std::mem::forget(server);
    assert!(matches!(PrivateServer::start(options.clone()).unwrap_err(), Error::InUse { .. }));
    assert!(kill_server_on(source.datadir()).unwrap());
    PrivateServer::start(options).unwrap().stop(Duration::from_secs(60)).unwrap();
}

#[test]
fn a_server_that_cannot_start_is_an_error_that_quotes_its_log() {
    for engine in Engine::ALL {
        let dir = tempfile::tempdir().unwrap();
        let mut options = StartOptions::new(engine.programs(), dir.path());
        options.timeout = Duration::from_secs(60);
        let error = PrivateServer::start(options).unwrap_err().to_string();
        assert!(error.contains("Its log ends") && error.contains("ERROR"), "{error}");
    }
}
