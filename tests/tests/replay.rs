//! Serial replay on real servers: the copy of a source's folder, brought forward by the
//! source's own binlog files, must be what the source is, table by table.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::ops::ControlFlow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_engine::PrivateServer;
use holdfast_replay::serial::{Options, Outcome, Progress, replay};
use holdfast_replay::{Error, finish::finish, scan::scan};
use holdfast_tests::mixed_work::{self, leave_prepared, mixed};
use holdfast_tests::replaying::{Bed, SCHEMA, go_on, rarities, workload};
use holdfast_tests::{Engine, Random};

fn replay_whole(bed: &Bed, server: &PrivateServer) -> Outcome {
    let mut conn = server.connect().unwrap();
    let outcome = replay(&mut conn, &bed.log, &bed.options(), &mut go_on).unwrap();
    finish(&mut conn, &outcome.gtids, &outcome.binlog_state).unwrap();
    outcome
}

fn replays_to_the_source(engine: Engine, options: &[&str], rounds: u64, session: &str) {
    let (mut random, seed) = Random::from_environment("replay");
    let bed = Bed::make(engine, options, SCHEMA, |source| {
        if !session.is_empty() {
            source.run(&[session]);
        }
        workload(source, &mut random, rounds);
    });
    let summary = scan(&bed.log).unwrap();
    summary.check().unwrap();
    let server = bed.start(&bed.copy("whole"));
    let outcome = replay_whole(&bed, &server);
    assert_eq!(outcome.applied, summary.transactions);
    assert_eq!(outcome.gtids.to_string(), bed.source.gtids(), "seed {seed}");
    bed.compare(&server, &format!("{engine:?}, seed {seed}"));
    let mut conn = server.connect().unwrap();
    let schemas =
        conn.query_text("SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name = '__holdfast'");
    assert_eq!(schemas.unwrap().as_deref(), Some("0"), "no trace of the replay is left");
    let position = match engine {
        Engine::MySql => "SELECT @@GLOBAL.gtid_executed",
        Engine::MariaDb => "SELECT @@GLOBAL.gtid_slave_pos",
    };
    let position = conn.query_text(position).unwrap().unwrap();
    assert_eq!(position.split_whitespace().collect::<String>(), bed.source.gtids());
}

#[test]
fn a_mysql_copy_becomes_the_source() {
    replays_to_the_source(Engine::MySql, &[], 400, "");
}

#[test]
fn a_mysql_copy_becomes_the_source_from_compressed_minimal_rows() {
    let options = ["--binlog-transaction-compression=ON", "--binlog-row-image=MINIMAL"];
    replays_to_the_source(Engine::MySql, &options, 200, "");
}

#[test]
fn a_mariadb_copy_becomes_the_source() {
    replays_to_the_source(Engine::MariaDb, &[], 400, "");
}

#[test]
fn a_mariadb_copy_becomes_the_source_from_compressed_events() {
    let options = ["--log-bin-compress=ON", "--log-bin-compress-min-len=20", "--binlog-alter-two-phase=ON"];
    replays_to_the_source(Engine::MariaDb, &options, 200, "");
}

#[test]
fn rare_statements_and_tables_are_replayed_exactly() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &["--log-bin-trust-function-creators=ON"], SCHEMA, rarities);
        scan(&bed.log).unwrap().check().unwrap();
        let server = bed.start(&bed.copy("rare"));
        let outcome = replay_whole(&bed, &server);
        assert_eq!(outcome.gtids.to_string(), bed.source.gtids());
        bed.compare(&server, &format!("{engine:?}"));
    }
}

#[test]
fn huge_statements_are_cut_between_rows_and_arrive_whole() {
    for engine in Engine::ALL {
        // Rows of one statement share events of up to 64 MiB, so that both ways to cut are taken:
        // inside an event, and between two events of a statement.
        let options = ["--binlog-row-event-max-size=67108864", "--max-allowed-packet=128M"];
        let bed = Bed::make(engine, &options, SCHEMA, |source| {
            source.run(&[
                "CREATE TABLE app.big (id INT AUTO_INCREMENT PRIMARY KEY, b LONGBLOB)",
                "INSERT INTO app.big (b) VALUES (REPEAT('1', 3000000)), (REPEAT('2', 3000000)), (REPEAT('3', 3000000)), \
                 (REPEAT('4', 9000000)), (REPEAT('5', 3000000)), (NULL)",
                "UPDATE app.big SET b = CONCAT(b, 'x')",
                "CREATE TABLE app.many (id INT AUTO_INCREMENT PRIMARY KEY, a INT, b VARCHAR(2600)) CHARACTER SET latin1",
                "INSERT INTO app.many (a, b) VALUES (1, 'a'), (2, 'b'), (3, 'c'), (4, 'd')",
                "INSERT INTO app.many (a, b) SELECT x.a, REPEAT(y.b, 2600) FROM app.many x, app.many y, app.many z, app.many u, \
                 app.many v, app.many w",
                "UPDATE app.many SET a = a + 1",
                "DELETE FROM app.many WHERE id % 2 = 0",
                "DELETE FROM app.big WHERE id < 3",
            ]);
        });
        scan(&bed.log).unwrap().check().unwrap();
        let server = bed.start(&bed.copy("huge"));
        replay_whole(&bed, &server);
        bed.compare(&server, &format!("{engine:?}"));
    }
}

/// Kills a replay again and again; `HOLDFAST_KILL_CASES` makes it a campaign.
fn survives_kills(engine: Engine) {
    let cases = std::env::var("HOLDFAST_KILL_CASES").map_or(1, |text| text.parse().unwrap());
    let (_, seed) = Random::from_environment("replay_goes_on_to_the_same_state");
    for case in 0..cases {
        // The case's own seed repeats it alone, as the first one.
        survives_kills_of(engine, seed.wrapping_add(case));
    }
}

/// Kills connection or server at random moments until the replay is through.
fn survives_kills_of(engine: Engine, seed: u64) {
    let mut random = Random::new(seed);
    let options = mixed_work::options(engine, &mut random);
    let bed = Bed::make(engine, &options, SCHEMA, |source| {
        mixed(source, &mut random, 300);
        leave_prepared(source);
    });
    let dir = bed.copy("killed");
    let whole = Instant::now();
    let (mut kills, mut done) = (0, 0u64);
    let mut server = Some(bed.start(&dir));
    loop {
        assert!(whole.elapsed() < Duration::from_secs(240), "seed {seed}: {kills} kills and no end");
        let running = server.take().unwrap();
        let mut conn = running.connect().unwrap();
        let interrupter = conn.interrupter();
        let until = done + random.below(40);
        let moment = Duration::from_micros(random.below(3000));
        let (at, acted) = (AtomicU64::new(0), AtomicBool::new(false));
        let hard = random.below(2) == 0;
        let ended = std::thread::scope(|scope| {
            let worker = scope.spawn(|| {
                replay(&mut conn, &bed.log, &bed.options(), &mut |p: &Progress| {
                    at.store(p.transactions, Ordering::Relaxed);
                    // It does not run away from a killer that gets no time.
                    while p.transactions >= until + 10 && !acted.load(Ordering::Relaxed) {
                        std::thread::sleep(Duration::from_micros(200));
                    }
                    ControlFlow::Continue(())
                })
            });
            // Transactions behind the checkpoint fly by; the count is of those since this start.
            while at.load(Ordering::Relaxed) < until && !worker.is_finished() {
                std::thread::sleep(Duration::from_micros(200));
            }
            done = done.max(at.load(Ordering::Relaxed));
            std::thread::sleep(moment);
            let late = worker.is_finished() || kills >= 12;
            if !late {
                kills += 1;
                if hard {
                    running.kill();
                } else {
                    interrupter.interrupt();
                    server = Some(running);
                }
            } else {
                server = Some(running);
            }
            acted.store(true, Ordering::Relaxed);
            worker.join().unwrap()
        });
        match ended {
            Ok(outcome) => {
                let running = server.take().unwrap();
                finish(&mut running.connect().unwrap(), &outcome.gtids, &outcome.binlog_state).unwrap();
                bed.compare(&running, &format!("{engine:?} after {kills} kills, seed {seed}"));
                break;
            }
            Err(Error::Server { .. }) => {}
            Err(other) => panic!("seed {seed}, kill {kills}: {other}"),
        }
        if server.is_none() {
            server = Some(bed.start(&dir));
        }
    }
    println!("{engine:?}, seed {seed}: {kills} kills");
    assert!(kills > 2, "only {kills} kills happened, the test shows nothing");
}

#[test]
fn a_killed_mysql_replay_goes_on_to_the_same_state() {
    survives_kills(Engine::MySql);
}

#[test]
fn a_killed_mariadb_replay_goes_on_to_the_same_state() {
    survives_kills(Engine::MariaDb);
}

/// The account of the replay may grant roles that the server has not heard of as ours yet: a call
/// that was cut off between writing that down and having it read leaves just this. And a database without its character set.
#[test]
fn roles_are_granted_and_databases_made_after_a_call_that_was_cut_off_in_the_middle() {
    let base: Vec<&str> =
        SCHEMA.iter().copied().chain(["CREATE ROLE kept", "CREATE USER 'clerk'@'%'"]).collect();
    let bed = Bed::make(Engine::MariaDb, &[], &base, |source| {
        source.run(&[
            "INSERT INTO app.parent VALUES (1, 'one')",
            "CREATE DATABASE half CHARACTER SET latin1",
            "GRANT kept TO 'clerk'@'%'",
        ]);
    });
    let server = bed.start(&bed.copy("roles"));
    let mut conn = server.connect().unwrap();
    let ours = "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', -1), SUBSTRING_INDEX(CURRENT_USER(), '@', 1), 'kept', 'Y'";
    conn.execute(format!("INSERT INTO mysql.roles_mapping (Host, User, Role, Admin_option) {ours}")).unwrap();
    let refused = conn.execute("GRANT kept TO 'clerk'@'%'").unwrap_err().to_string();
    assert!(refused.contains("1698"), "the server knows of it already, the test shows nothing: {refused}");
    let stop = &mut |p: &Progress| {
        if p.transactions == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(replay(&mut conn, &bed.log, &bed.options(), stop), Err(Error::Stopped(1))));
    // And a server that was killed in the middle of CREATE DATABASE leaves the folder without its character set.
    conn.execute("UPDATE __holdfast.replay SET intent = 1, intent_before = ''").unwrap();
    conn.execute("CREATE DATABASE half CHARACTER SET utf8mb4").unwrap();
    drop(conn);
    replay_whole(&bed, &server);
    bed.compare(&server, "roles");
}

/// An earlier call may also have failed, and then what it found in its way is not of its making.
#[test]
fn a_database_in_the_way_is_never_made_anew_with_what_is_in_it() {
    let bed = Bed::make(Engine::MariaDb, &[], SCHEMA, |source| {
        source.run(&["CREATE DATABASE kept", "DROP DATABASE kept"]);
    });
    let server = bed.start(&bed.copy("kept"));
    let mut conn = server.connect().unwrap();
    conn.execute("CREATE DATABASE kept").unwrap();
    let ways = [
        ("CREATE TABLE kept.t (id INT PRIMARY KEY)", "DROP TABLE kept.t"),
        ("CREATE SEQUENCE kept.s", "DROP SEQUENCE kept.s"),
        ("CREATE FUNCTION kept.f() RETURNS INT RETURN 1", "DROP FUNCTION kept.f"),
        ("CREATE EVENT kept.e ON SCHEDULE EVERY 1 DAY DO SELECT 1", "DROP EVENT kept.e"),
    ];
    for (make, there) in ways {
        conn.execute(make).unwrap();
        for call in 0..2 {
            let refused = replay(&mut conn, &bed.log, &bed.options(), &mut go_on).unwrap_err();
            assert!(matches!(refused, Error::Diverged { .. }), "{make}, call {call}: {refused:?}");
        }
        conn.execute(there).unwrap_or_else(|lost| panic!("{make}: {lost}"));
    }
    // An empty one may be an earlier call's.
    let outcome = replay(&mut conn, &bed.log, &bed.options(), &mut go_on).unwrap();
    assert_eq!(outcome.applied, 2);
}

#[test]
fn what_cannot_be_replayed_is_refused_before_the_first_write() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, |source| {
            source.run(&["CREATE TABLE app.plain (id INT PRIMARY KEY) ENGINE=MyISAM"]);
            let mut conn = source.root();
            conn.execute("SET SESSION binlog_format = STATEMENT").unwrap();
            // The first row stays, the second fails: the statement is logged with its error.
            conn.execute("INSERT INTO app.plain VALUES (7), (7)").unwrap_err();
        });
        let summary = scan(&bed.log).unwrap();
        let refused = summary.check().unwrap_err().to_string();
        assert!(
            refused.contains(
                "a statement that failed on the source after it took effect in part (QUERY event at binlog."
            ),
            "{refused}"
        );
        assert!(refused.contains("INSERT INTO app.plain VALUES (7), (7)"), "{refused}");
        assert_eq!(summary.refused_count, 1, "{refused}");
    }
}

#[test]
fn another_plan_on_a_half_replayed_copy_is_refused() {
    let bed = Bed::make(Engine::MariaDb, &[], SCHEMA, |source| {
        source.run(&["INSERT INTO app.parent VALUES (1, 'one')", "INSERT INTO app.parent VALUES (2, 'two')"]);
    });
    let server = bed.start(&bed.copy("plans"));
    let mut conn = server.connect().unwrap();
    let stop = &mut |p: &Progress| {
        if p.transactions == 1 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    assert!(matches!(replay(&mut conn, &bed.log, &bed.options(), stop), Err(Error::Stopped(1))));
    let other = Options { plan: "other".to_owned(), ..bed.options() };
    assert!(matches!(replay(&mut conn, &bed.log, &other, &mut go_on), Err(Error::OtherPlan { .. })));
    let rebooted = Options { boot_id: "another boot".to_owned(), ..bed.options() };
    assert!(matches!(replay(&mut conn, &bed.log, &rebooted, &mut go_on), Err(Error::HostRestarted)));
    let outcome = replay(&mut conn, &bed.log, &bed.options(), &mut go_on).unwrap();
    assert_eq!((outcome.resumed_after, outcome.applied), (1, 1));
}
