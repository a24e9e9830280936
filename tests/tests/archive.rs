//! The archive on real servers under load: byte for byte what the server has, through its restarts and ours.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_archive::{
    CopyFacts, Error, FileMark, FollowOptions, Followed, Note, Place, ReceiverEngine, ServerLog, Target,
    Until, find, follow, mark, plan,
};
use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::ids::{Address, BackupId, SegmentId, ServerId};
use holdfast_format::record::{BackupRecord, BackupStats, Coordinates, Position, Record, SourceKind};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_mysql::TlsMode;
use holdfast_store::{Argon2Cost, Clock, CreateOptions, FixedClock, OpenOptions, Repository, Secret};
use holdfast_tests::server::BACKUP_USER;
use holdfast_tests::{Engine, Ledger, LedgerOptions, Random, StopOnDrop, TestServer};

const SERVER: ServerId = ServerId([3; 16]);
const IDENTITY: Uuid = Uuid([4; 16]);

fn repository(dir: &Path) -> Repository {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(1_700_000_000_000_000));
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(RealDisk::shared(), dir).unwrap());
    let secret = Secret::passphrase("only for tests");
    let open = OpenOptions::new(clock);
    if dir.join("keyring").exists() || std::fs::read_dir(dir).unwrap().next().is_some() {
        return Repository::open(objects, &secret, open).unwrap();
    }
    let options = CreateOptions {
        open,
        argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
        program: "test".to_owned(),
    };
    Repository::create(objects, options, &secret).unwrap().0
}

fn options(server: &TestServer) -> FollowOptions {
    let mut options = FollowOptions::new(server.backup_options(), 4_000_000_000);
    options.stretch_bytes = 256 << 10;
    options.backoff = (Duration::from_millis(50), Duration::from_millis(500));
    options.give_up_after = Some(Duration::from_secs(60));
    // As the commands understand it.
    if std::env::var("HOLDFAST_IO").is_ok_and(|io| io == "pool") {
        options.engine = ReceiverEngine::Plain;
    }
    options
}

/// Follows until told to stop, which `until_received` transactions and `meanwhile` come before.
fn follow_for(repo: &Repository, server: &TestServer, until_received: u64, meanwhile: impl FnOnce()) {
    let (stop, received) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let follower = scope.spawn(|| fetch(repo, server, &Until::Stopped, &stop, &received));
        meanwhile();
        let deadline = Instant::now() + Duration::from_secs(60);
        while received.load(Ordering::Relaxed) < until_received && !follower.is_finished() {
            assert!(Instant::now() < deadline, "nothing is received");
            std::thread::sleep(Duration::from_millis(5));
        }
        stop.store(true, Ordering::Relaxed);
        follower.join().unwrap().unwrap();
    });
}

fn fetch_all(repo: &Repository, server: &TestServer) -> Result<Followed, Error> {
    fetch(repo, server, &Until::EndOfLog, &AtomicBool::new(false), &AtomicU64::new(0))
}

fn fetch(
    repo: &Repository,
    server: &TestServer,
    until: &Until,
    stop: &AtomicBool,
    received: &AtomicU64,
) -> Result<Followed, Error> {
    let start = plan(repo, SERVER, IDENTITY).unwrap();
    follow(repo, &start.stream, &start.origins, &options(server), until, stop, &mut |note: Note<'_>| {
        if let Note::Synced { transactions, .. } = note {
            received.store(transactions, Ordering::Relaxed);
        }
    })
}

/// The archived files.
fn exported(repo: &Repository) -> BTreeMap<String, Vec<u8>> {
    let log = ServerLog::open(repo, SERVER).unwrap();
    let mut cursor = log.read(Place(0), log.end().unwrap()).unwrap();
    let (mut files, mut bytes) = (BTreeMap::new(), Vec::new());
    while let Some(event) = cursor.next(&mut bytes).unwrap() {
        let file: &mut Vec<u8> = files.entry(event.file).or_insert_with(|| vec![0xfe, b'b', b'i', b'n']);
        assert_eq!(file.len() as u64, event.offset);
        file.extend_from_slice(&bytes);
    }
    files
}

/// Every archived file is the beginning of the server's, but for the flag of a file that is open.
fn check_bytes(repo: &Repository, server: &TestServer) {
    for (name, bytes) in exported(repo) {
        let mut original = std::fs::read(server.datadir().join(&name)).unwrap();
        original[21] &= !1;
        assert!(original.starts_with(&bytes), "{name} is not what the server has");
    }
}

fn archived_gtids(repo: &Repository) -> BTreeSet<String> {
    let log = ServerLog::open(repo, SERVER).unwrap();
    let mut gtids = BTreeSet::new();
    log.each(&mut |seen| {
        let gtid = seen.entry.gtid().unwrap().to_string();
        assert!(gtids.insert(gtid.clone()), "{gtid} is there twice");
        Ok(())
    })
    .unwrap();
    gtids
}

fn an_archive_under_load_is_the_servers_own_log_through_restarts(engine: Engine) {
    let (_, seed) = Random::from_environment("an_archive_under_load");
    let mut server = TestServer::start(engine);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    Ledger::create_schema(&server);

    // With the archive running: rotations, a stop of ours, a kill of the server.
    let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
    follow_for(&repo, &server, 50, || {
        writers.wait_for(100);
        server.run(&["FLUSH BINARY LOGS"]);
        writers.wait_for(100);
    });
    check_bytes(&repo, &server);
    // We were away for a while; then the server dies under us and comes back.
    writers.wait_for(50);
    follow_for(&repo, &server, 50, || writers.wait_for(100));
    let acks = writers.stop();
    server.kill();
    server.start_again();
    server.run(&["CREATE TABLE shop.after_crash (id INT PRIMARY KEY)", "DROP TABLE shop.after_crash"]);
    let end = fetch_all(&repo, &server).unwrap().at.unwrap();
    check_bytes(&repo, &server);

    let archived = archived_gtids(&repo);
    let missing: Vec<_> =
        acks.iter().filter_map(|ack| ack.gtid.clone()).filter(|gtid| !archived.contains(gtid)).collect();
    assert!(missing.is_empty(), "acknowledged, but not archived: {missing:?}");
    if engine == Engine::MySql {
        assert_eq!(server.gtids().replace('\n', ""), end.gtid.to_string());
    }

    // What users do: find the statement, and name the point before it.
    let log = ServerLog::open(&repo, SERVER).unwrap();
    let query =
        find::Query { ddl: true, like: Some("drop table%after_crash%".into()), ..find::Query::default() };
    let mut found = Vec::new();
    find::find(&log, &query, 10, &mut |indexed| {
        found.push(indexed);
        Ok(())
    })
    .unwrap();
    assert_eq!(found.len(), 1);
    let cut = log.resolve(&Target::Before(found[0].id())).unwrap().unwrap();
    let kept = cut.kept.unwrap().entry.statement.unwrap();
    assert!(kept.text.to_ascii_lowercase().starts_with(b"create table"));
    assert_eq!(log.coverage().unwrap().len(), 1);
}

#[test]
fn an_archive_under_load_is_the_servers_own_log_through_restarts_mysql() {
    an_archive_under_load_is_the_servers_own_log_through_restarts(Engine::MySql);
}

#[test]
fn an_archive_under_load_is_the_servers_own_log_through_restarts_mariadb() {
    an_archive_under_load_is_the_servers_own_log_through_restarts(Engine::MariaDb);
}

fn a_stream_that_is_cut_again_and_again_loses_nothing(engine: Engine) {
    let (_, seed) = Random::from_environment("a_stream_that_is_cut");
    let server = TestServer::start(engine);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    Ledger::create_schema(&server);
    let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
    follow_for(&repo, &server, 200, || {
        for _ in 0..8 {
            writers.wait_for(40);
            for dump in server.sessions(BACKUP_USER, "Binlog Dump") {
                // It may be gone already.
                let _ = server.root().execute(format!("KILL {dump}"));
            }
        }
    });
    let acks = writers.stop();
    fetch_all(&repo, &server).unwrap();
    check_bytes(&repo, &server);
    let archived = archived_gtids(&repo);
    assert!(acks.iter().filter_map(|ack| ack.gtid.as_ref()).all(|gtid| archived.contains(gtid)));
}

#[test]
fn a_stream_that_is_cut_again_and_again_loses_nothing_mysql() {
    a_stream_that_is_cut_again_and_again_loses_nothing(Engine::MySql);
}

#[test]
fn a_stream_that_is_cut_again_and_again_loses_nothing_mariadb() {
    a_stream_that_is_cut_again_and_again_loses_nothing(Engine::MariaDb);
}

fn a_reset_of_the_source_is_a_gap_and_loses_nothing(engine: Engine) {
    let server = TestServer::start(engine);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]);
    fetch_all(&repo, &server).unwrap();
    let before = exported(&repo);
    server.run(&[match engine {
        Engine::MySql => "RESET BINARY LOGS AND GTIDS",
        Engine::MariaDb => "RESET MASTER",
    }]);
    server.run(&["INSERT INTO d.t VALUES (2)"]);
    let error = fetch_all(&repo, &server).unwrap_err();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert_eq!(exported(&repo), before);
    let log = ServerLog::open(&repo, SERVER).unwrap();
    assert!(log.coverage().unwrap()[0].broken.is_some());
    // Once more: the same answer, and the gap is recorded once.
    assert!(matches!(fetch_all(&repo, &server).unwrap_err(), Error::Gap { .. }));
    let gaps = repo
        .records()
        .iter()
        .filter(|s| matches!(s.record, holdfast_format::record::Record::LogGap(_)))
        .count();
    assert_eq!(gaps, 1);
}

#[test]
fn a_reset_of_the_source_is_a_gap_and_loses_nothing_mysql() {
    a_reset_of_the_source_is_a_gap_and_loses_nothing(Engine::MySql);
}

#[test]
fn a_reset_of_the_source_is_a_gap_and_loses_nothing_mariadb() {
    a_reset_of_the_source_is_a_gap_and_loses_nothing(Engine::MariaDb);
}

/// Small events and one of two packets, with TLS (where the server has a certificate) and without, by either engine.
fn either_engine_receives_the_servers_own_bytes(engine: Engine) {
    let server = TestServer::start_with(engine, &["--max-allowed-packet=64M"]);
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)"]);
    server.run(&["INSERT INTO d.t (b) VALUES (REPEAT('0123456789', 1700000))"]);
    server.run(&["INSERT INTO d.t (b) VALUES (REPEAT('abc', 700))"; 100]);
    let whole = std::fs::metadata(server.datadir().join(end_of_log(&server).file)).unwrap().len();
    assert!(whole > 17_000_000, "the large event is in the log");
    for receiver in [ReceiverEngine::Probe, ReceiverEngine::Plain] {
        for tls in [TlsMode::Preferred, TlsMode::Disabled] {
            let dir = tempfile::tempdir().unwrap();
            let repo = repository(dir.path());
            let mut options = options(&server);
            options.engine = receiver;
            options.connect.tls.mode = tls;
            // Over TLS the password goes as it is; without, under the server's key.
            options.connect.public_key = holdfast_mysql::PublicKey::AsSent;
            let start = plan(&repo, SERVER, IDENTITY).unwrap();
            let mut engines = Vec::new();
            let stop = AtomicBool::new(false);
            follow(&repo, &start.stream, &start.origins, &options, &Until::EndOfLog, &stop, &mut |note| {
                if let Note::Receiving { engine } = note {
                    engines.push(engine);
                }
            })
            .unwrap();
            check_bytes(&repo, &server);
            let end = ServerLog::open(&repo, SERVER).unwrap().place_of(&end_of_log(&server)).unwrap();
            assert!(end.is_some(), "{receiver:?} {tls:?}: everything came");
            // A host may refuse io_uring; then both are the same.
            let expected =
                if receiver == ReceiverEngine::Plain { &["tokio"][..] } else { &["tokio-uring", "tokio"] };
            assert!(
                engines.iter().all(|engine| expected.contains(engine)) && engines.len() == 1,
                "{engines:?}"
            );
        }
    }
}

#[test]
fn either_engine_receives_the_servers_own_bytes_mysql() {
    either_engine_receives_the_servers_own_bytes(Engine::MySql);
}

#[test]
fn either_engine_receives_the_servers_own_bytes_mariadb() {
    either_engine_receives_the_servers_own_bytes(Engine::MariaDb);
}

#[test]
fn a_source_that_falls_silent_is_given_up_and_connected_to_again_by_either_engine() {
    let server = TestServer::start(Engine::MariaDb);
    for receiver in [ReceiverEngine::Probe, ReceiverEngine::Plain] {
        let dir = tempfile::tempdir().unwrap();
        let repo = repository(dir.path());
        let mut options = options(&server);
        options.engine = receiver;
        options.dump.heartbeat = Duration::from_secs(3600);
        options.dump.silence_max = Duration::from_millis(300);
        let start = plan(&repo, SERVER, IDENTITY).unwrap();
        let stop = AtomicBool::new(false);
        let (mut connected, mut silences) = (0, 0);
        follow(
            &repo,
            &start.stream,
            &start.origins,
            &options,
            &Until::Stopped,
            &stop,
            &mut |note| match note {
                Note::Connected { .. } => {
                    connected += 1;
                    // The source is alive and sends nothing, so this is reached however slow the machine is.
                    stop.store(connected == 3, Ordering::Relaxed);
                }
                Note::Retrying { error: Error::Mysql(error), .. } => {
                    assert!(error.is_timeout(), "{error}");
                    silences += 1;
                }
                _ => {}
            },
        )
        .unwrap();
        assert_eq!((connected, silences), (3, 2));
    }
}

/// The end of the server's log.
fn end_of_log(server: &TestServer) -> Position {
    let statement = match server.engine() {
        Engine::MySql => "SHOW BINARY LOG STATUS",
        Engine::MariaDb => "SHOW MASTER STATUS",
    };
    let row = server.root().query(statement).unwrap();
    let gtid = GtidSet::empty(if server.engine() == Engine::MySql { Flavor::MySql } else { Flavor::MariaDb });
    Position { file: row.text(0, 0).unwrap(), offset: row.text(0, 1).unwrap().parse().unwrap(), gtid }
}

fn reset(server: &TestServer) {
    server.run(&[match server.engine() {
        Engine::MySql => "RESET BINARY LOGS AND GTIDS",
        Engine::MariaDb => "RESET MASTER",
    }]);
}

/// Begins new files until the one of this name is written.
fn write_up_to(server: &TestServer, file: &str) {
    while end_of_log(server).file != file {
        server.run(&["FLUSH BINARY LOGS"]);
    }
}

/// A record as a backup that is taken now would leave it.
fn base_now(server: &TestServer, number: u8) -> BackupRecord {
    let at = end_of_log(server);
    let mark = FileMark::of_source(&server.backup_options(), 4_000_000_001, &at.file).unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    BackupRecord {
        id: BackupId([number; 16]),
        server: SERVER,
        source: SourceKind::Clone,
        started_us: now.as_micros() as i64,
        finished_us: now.as_micros() as i64,
        parent: None,
        map: Address { segment: SegmentId([0; 16]), slot: 0 },
        coordinates: Coordinates::Exact(at),
        facts: vec![(mark::FACT.to_owned(), mark.to_string())],
        note: String::new(),
        stats: BackupStats::default(),
        warnings: Vec::new(),
    }
}

fn place_of(repo: &Repository, base: &BackupRecord) -> Option<Place> {
    let Coordinates::Exact(at) = &base.coordinates else { panic!("not exact") };
    ServerLog::open(repo, SERVER).unwrap().place_of_copy(at, &CopyFacts::of(base)).unwrap()
}

/// The archive was stopped. Meanwhile the log is purged, a backup is taken, and the log is reset and grows again beyond
/// the backup's file and offset. Its words name a place in the new log, where it does not stand.
fn a_backup_of_a_life_that_was_never_archived_stands_in_no_other_one(engine: Engine) {
    let server = TestServer::start(engine);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]);
    fetch_all(&repo, &server).unwrap();
    server.run(&["FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (2)", "FLUSH BINARY LOGS"]);
    let here = end_of_log(&server);
    server.purge_before(&here.file);
    server.run(&["INSERT INTO d.t VALUES (3)"]);
    let lost = base_now(&server, 1);
    repo.append(Record::BackupCommitted(lost.clone())).unwrap();
    reset(&server);
    write_up_to(&server, &here.file);
    server.run(&["INSERT INTO d.t VALUES (4)", "INSERT INTO d.t VALUES (5)", "INSERT INTO d.t VALUES (6)"]);

    assert!(matches!(fetch_all(&repo, &server).unwrap_err(), Error::Gap { .. }));
    // The backup is no way on: its log is gone.
    let error = fetch_all(&repo, &server).unwrap_err();
    assert!(matches!(error, Error::NoOrigin { .. }), "{error}");
    let good = base_now(&server, 2);
    repo.append(Record::BackupCommitted(good.clone())).unwrap();
    fetch_all(&repo, &server).unwrap();
    let log = ServerLog::open(&repo, SERVER).unwrap();
    assert_eq!(log.coverage().unwrap().len(), 2);
    let Coordinates::Exact(at) = &lost.coordinates else { panic!("not exact") };
    assert!(log.place_of(at).unwrap().is_some(), "its words name a place of the new log");
    assert_eq!(place_of(&repo, &lost), None);
    assert!(place_of(&repo, &good).is_some());
}

#[test]
fn a_backup_of_a_life_that_was_never_archived_stands_in_no_other_one_mysql() {
    a_backup_of_a_life_that_was_never_archived_stands_in_no_other_one(Engine::MySql);
}

#[test]
fn a_backup_of_a_life_that_was_never_archived_stands_in_no_other_one_mariadb() {
    a_backup_of_a_life_that_was_never_archived_stands_in_no_other_one(Engine::MariaDb);
}

/// The archive holds a file whole when it stops, and nothing of the next one. Then the source is reset, and purges the
/// new file of that name: the file after it follows ours by name only.
fn a_reset_source_is_not_joined_where_it_has_purged_our_file(engine: Engine, options: &[&str]) {
    let server = TestServer::start_with(engine, options);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    let first = end_of_log(&server).file;
    fetch_all(&repo, &server).unwrap();
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "INSERT INTO d.t VALUES (1)"]);
    server.run(&["FLUSH BINARY LOGS"]);
    let next = end_of_log(&server);
    let until = Until::Position(Position { offset: 4, ..next.clone() });
    let at = fetch(&repo, &server, &until, &AtomicBool::new(false), &AtomicU64::new(0)).unwrap().at.unwrap();
    assert_eq!(at.file, first, "the archive ends with the whole file");
    let before = exported(&repo);
    reset(&server);
    // The same number of transactions, so that the next file has the same list of GTIDs, too.
    write_up_to(&server, &first);
    server.run(&["CREATE DATABASE e", "CREATE TABLE e.t (id INT PRIMARY KEY)", "INSERT INTO e.t VALUES (2)"]);
    write_up_to(&server, &next.file);
    server.purge_before(&next.file);
    server.run(&["INSERT INTO e.t VALUES (3)"]);
    let error = fetch_all(&repo, &server).unwrap_err();
    assert!(matches!(error, Error::Gap { .. }), "{error}");
    assert_eq!(exported(&repo), before);
}

#[test]
fn a_reset_source_is_not_joined_where_it_has_purged_our_file_mysql() {
    a_reset_source_is_not_joined_where_it_has_purged_our_file(Engine::MySql, &[]);
}

#[test]
fn a_reset_source_is_not_joined_where_it_has_purged_our_file_mysql_without_gtids() {
    let options = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];
    a_reset_source_is_not_joined_where_it_has_purged_our_file(Engine::MySql, &options);
}

#[test]
fn a_reset_source_is_not_joined_where_it_has_purged_our_file_mariadb() {
    a_reset_source_is_not_joined_where_it_has_purged_our_file(Engine::MariaDb, &[]);
}

#[test]
fn a_source_that_gave_up_gtids_before_they_were_fetched_has_a_gap_and_a_new_backup_ends_it() {
    let server = TestServer::start(Engine::MySql);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]);
    fetch_all(&repo, &server).unwrap();
    server.run(&["INSERT INTO d.t VALUES (1)"]);
    for mode in ["ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"] {
        server.run(&[&format!("SET GLOBAL gtid_mode = {mode}")]);
    }
    let error = fetch_all(&repo, &server).unwrap_err();
    assert!(matches!(&error, Error::Gap { reason, .. } if reason.contains("gtid_mode")), "{error}");
    // Set back far enough, the stream goes on as if nothing had been.
    server.run(&["SET GLOBAL gtid_mode = OFF_PERMISSIVE"]);
    assert_eq!(fetch_all(&repo, &server).unwrap().transactions, 1);
    server.run(&[
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
        "SET GLOBAL gtid_mode = ON",
        "INSERT INTO d.t VALUES (2)",
    ]);
    for mode in ["ON_PERMISSIVE", "OFF_PERMISSIVE", "OFF"] {
        server.run(&[&format!("SET GLOBAL gtid_mode = {mode}")]);
    }
    assert!(matches!(fetch_all(&repo, &server).unwrap_err(), Error::Gap { .. }));
    // Else a backup does.
    repo.append(Record::BackupCommitted(base_now(&server, 1))).unwrap();
    server.run(&["INSERT INTO d.t VALUES (3)"]);
    assert_eq!(fetch_all(&repo, &server).unwrap().transactions, 1);
    assert_eq!(ServerLog::open(&repo, SERVER).unwrap().coverage().unwrap().len(), 2);
}

#[test]
fn an_event_larger_than_a_segment_spans_two_and_comes_back_whole() {
    let server = TestServer::start_with(Engine::MariaDb, &["--max-allowed-packet=256M"]);
    let dir = tempfile::tempdir().unwrap();
    let repo = repository(dir.path());
    server.run(&["CREATE DATABASE d", "CREATE TABLE d.b (id INT PRIMARY KEY AUTO_INCREMENT, v LONGBLOB)"]);
    // 73 MiB that don't compress.
    let mut conn = server.root();
    conn.set_read_timeout(Duration::from_secs(120));
    conn.execute("USE d").unwrap();
    conn.execute("SET SESSION group_concat_max_len = 200000000").unwrap();
    conn.execute(
        "INSERT INTO d.b (v) SELECT GROUP_CONCAT(UNHEX(SHA2(seq, 512)) SEPARATOR '') FROM seq_1_to_1200000",
    )
    .unwrap();
    conn.execute("INSERT INTO d.b (v) VALUES ('end')").unwrap();
    fetch_all(&repo, &server).unwrap();
    check_bytes(&repo, &server);
    let (_, last) = exported(&repo).into_iter().next_back().unwrap();
    assert!(last.len() > 70 << 20, "{} bytes", last.len());
    // And once more: it resumes behind it.
    server.run(&["INSERT INTO d.b (v) VALUES ('more')"]);
    assert_eq!(fetch_all(&repo, &server).unwrap().transactions, 1);
    check_bytes(&repo, &server);
}
