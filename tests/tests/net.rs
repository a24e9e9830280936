//! Net replay on real servers: the copy of a source's folder, brought forward by the net change of
//! the source's own binlog files on several connections, must be what the source is, what a
//! serial replay makes, and what the server's own applier makes.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::ops::ControlFlow;

use holdfast_binlog::tables::TableKey;
use holdfast_engine::PrivateServer;
use holdfast_replay::net::{Class, Mode, Options};
use holdfast_replay::serial::{Outcome, Progress};
use holdfast_replay::{Error, finish::finish, scan::scan};
use holdfast_restore::catalog::Catalog;
use holdfast_restore::tally::Tally;
use holdfast_tests::mixed_work::{self, leave_prepared, mixed};
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
    attempt_with(bed, server, options, usize::MAX, progress)
}

/// With so many further connections at the most.
fn attempt_with(
    bed: &Bed,
    server: &PrivateServer,
    options: &Options,
    connections_max: usize,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let mut conn = server.connect().map_err(|e| Error::Connect(Box::new(e)))?;
    let summary = scan(&bed.log)?;
    summary.check()?;
    let given = std::cell::Cell::new(0);
    let connect = || {
        given.set(given.get() + 1);
        if given.get() > connections_max {
            return Err("no more of them".into());
        }
        server.connect().map_err(|e| Box::new(e) as _)
    };
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

#[test]
fn what_rows_were_is_kept_while_net_change_alone_is_applied() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, |source| {
            source.run(&[
                "INSERT INTO app.pair VALUES ('a', 1, 1)",
                "UPDATE app.pair SET v = 2 WHERE b = 1",
                "CREATE TABLE app.border (id INT PRIMARY KEY)",
                "INSERT INTO app.border VALUES (1)",
            ]);
            let mut conn = source.root();
            conn.execute("SET SESSION binlog_format = STATEMENT").unwrap();
            conn.execute("UPDATE app.pair SET v = v + 1").unwrap();
            source.run(&["DELETE FROM app.border"]);
        });
        // Each row is a window, which is applied before the end of its transaction is told.
        let held = |mode: Mode| {
            let server = bed.start(&bed.copy(&format!("{engine:?}_{mode:?}_history")));
            let (mut asking, mut held) = (server.connect().unwrap(), Vec::new());
            let mut progress = |told: &Progress| {
                if told.transactions as usize > held.len() {
                    // The server shows anew what it knows of transactions when nobody asked for a tenth of a second.
                    std::thread::sleep(std::time::Duration::from_millis(150));
                    let views = "SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_is_read_only = 1 \
                                 AND trx_isolation_level = 'REPEATABLE READ'";
                    held.push(asking.query_text(views).unwrap().as_deref() == Some("1"));
                }
                ControlFlow::Continue(())
            };
            let options = Options { memory_bytes: 1, early_bytes: 1, ..net(mode) };
            attempt(&bed, &server, &options, &mut progress).unwrap();
            bed.compare(&server, &format!("{engine:?} {mode:?}"));
            held
        };
        // Neither behind the definition nor behind the statement.
        assert_eq!(held(Mode::Net), [true, true, false, true, false, true], "{engine:?}");
        // What is left is the same on both families.
        if engine == Engine::MySql {
            continue;
        }
        assert!(!held(Mode::Ordered).contains(&true));
        // The view takes the second of all connections, behind the one that asks.
        let server = bed.start(&bed.copy("no_view"));
        let mut told = Vec::new();
        let mut watch = |p: &Progress| {
            told.extend_from_slice(&p.notes);
            ControlFlow::Continue(())
        };
        let options = Options { memory_bytes: 1, ..net(Mode::Net) };
        attempt_with(&bed, &server, &options, 1, &mut watch).unwrap();
        bed.compare(&server, "no view");
        assert_eq!(told.iter().filter(|note| note.contains("without a view")).count(), 1, "{told:?}");
    }
}

/// Unique values go round, parents give their unique values away while children follow them by
/// a foreign key, keys change their case, rows go and come back, counters are passed.
fn conflicts(source: &holdfast_tests::TestServer) {
    source.run(&[
        "CREATE TABLE app.swap (id INT AUTO_INCREMENT PRIMARY KEY, u VARCHAR(10), v INT, UNIQUE KEY (u), UNIQUE KEY (v, u))",
        "INSERT INTO app.swap (u, v) VALUES ('a', 1), ('b', 2), ('c', 3), ('d', 4), ('ss', 5)",
        "CREATE TABLE app.words (w VARCHAR(10) COLLATE utf8mb4_general_ci PRIMARY KEY, n INT)",
        "INSERT INTO app.words VALUES ('a', 1), ('b', 2), ('gone', 3)",
        "CREATE TABLE app.code (id INT PRIMARY KEY, code INT NOT NULL, UNIQUE KEY (code))",
        "CREATE TABLE app.use_code (id INT PRIMARY KEY, code INT, FOREIGN KEY (code) REFERENCES app.code (code) ON DELETE CASCADE)",
        "CREATE TABLE app.leaf (id INT PRIMARY KEY, u INT, FOREIGN KEY (u) REFERENCES app.use_code (id) ON DELETE CASCADE)",
        "INSERT INTO app.code VALUES (1, 10), (2, 20), (3, 30)",
        "INSERT INTO app.use_code VALUES (1, 10), (2, 20), (3, 30)",
        "INSERT INTO app.leaf VALUES (1, 1), (2, 2), (3, 3)",
        "CREATE TABLE app.counted (id INT AUTO_INCREMENT PRIMARY KEY, v INT)",
        "INSERT INTO app.counted (v) VALUES (1), (2), (3)",
        // Everything above is in a window of its own.
        "CREATE TABLE app.border (id INT PRIMARY KEY)",
        "UPDATE app.swap SET u = 'x' WHERE u = 'a'",
        "UPDATE app.swap SET u = 'a' WHERE u = 'b'",
        "UPDATE app.swap SET u = 'b' WHERE u = 'c'",
        "UPDATE app.swap SET u = 'c' WHERE u = 'x'",
        "UPDATE app.swap SET u = NULL WHERE u = 'd'",
        "DELETE FROM app.swap WHERE id = 5",
        "INSERT INTO app.swap (id, u, v) VALUES (50, 'ss', 5)",
        "UPDATE app.swap SET id = id + 100 ORDER BY id DESC",
        "UPDATE app.words SET w = 'A' WHERE w = 'a'",
        "DELETE FROM app.words WHERE w = 'b'",
        "INSERT INTO app.words VALUES ('B', 22)",
        "DELETE FROM app.words WHERE w = 'gone'",
        "INSERT INTO app.words VALUES ('gone', 33)",
        "BEGIN",
        "UPDATE app.use_code SET code = NULL WHERE id IN (1, 2)",
        "UPDATE app.code SET code = 99 WHERE id = 1",
        "UPDATE app.code SET code = 10 WHERE id = 2",
        "UPDATE app.code SET code = 20 WHERE id = 1",
        "UPDATE app.use_code SET code = 20 WHERE id = 1",
        "UPDATE app.use_code SET code = 10 WHERE id = 2",
        "COMMIT",
        "INSERT INTO app.counted (v) VALUES (4), (5)",
        "DELETE FROM app.counted WHERE v >= 4",
    ]);
}

#[test]
fn unique_values_that_go_round_and_parents_that_give_theirs_away_end_as_on_the_source() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, conflicts);
        for (chunk_bytes, memory_bytes, connections) in
            [(4 << 20, 64 << 20, 2), (1, 64 << 20, 4), (200, 700, 3), (1, 1, 1)]
        {
            let options = Options {
                mode: Mode::Net,
                connections,
                chunk_bytes,
                memory_bytes,
                early_bytes: memory_bytes / 4,
            };
            let what = format!("{engine:?} {chunk_bytes} {memory_bytes} {connections}");
            let server = bed.start(&bed.copy(&what.replace(' ', "_")));
            // Of four appliers, two get no connection (one more asks for definitions, one holds a view).
            let mut told = Vec::new();
            let mut watch = |p: &Progress| {
                told.extend_from_slice(&p.notes);
                ControlFlow::Continue(())
            };
            let given = if connections == 4 { 4 } else { usize::MAX };
            let outcome = attempt_with(&bed, &server, &options, given, &mut watch).unwrap();
            bed.compare(&server, &what);
            let short: Vec<&String> = told.iter().filter(|note| note.contains("2 connection(s)")).collect();
            assert_eq!(short.len(), usize::from(connections == 4), "{what}: {told:?}");
            let net = |table: &str| {
                outcome.classes.iter().any(|(key, class)| key.table == table && *class == Class::Net)
            };
            for table in ["swap", "words", "code", "use_code", "leaf", "counted"] {
                assert!(net(table), "{what}: {table} is {:?}", outcome.classes);
            }
            // Rows 4 and 5 came and went inside the window: their numbers must not be given again.
            let mut conn = server.connect().unwrap();
            conn.execute("INSERT INTO app.counted (v) VALUES (6)").unwrap();
            let next = conn.query_text("SELECT MAX(id) FROM app.counted").unwrap();
            assert_eq!(next.as_deref(), Some("6"), "{what}");
        }
    }
}

/// Kills a replay again and again. `HOLDFAST_KILL_CASES` and `HOLDFAST_NET_KILLS` (in each) make it a campaign, which
/// looks at the server's own applier as well.
fn survives_kills(engine: Engine) {
    let number = |name: &str, usual: u64| std::env::var(name).map_or(usual, |text| text.parse().unwrap());
    let (cases, kills) = (number("HOLDFAST_KILL_CASES", 1), number("HOLDFAST_NET_KILLS", 8));
    let (_, seed) = Random::from_environment("a_killed_net_replay");
    for case in 0..cases {
        // The case's own seed repeats it alone, as the first one.
        let mode = if case % 4 == 3 { Mode::Ordered } else { Mode::Net };
        survives_kills_of(engine, mode, seed.wrapping_add(case), kills, cases > 1);
    }
}

/// Cuts connections or kills the server at random moments until the replay is through.
fn survives_kills_of(engine: Engine, mode: Mode, seed: u64, kills_max: u64, referee: bool) {
    let mut random = Random::new(seed);
    let options = mixed_work::options(engine, &mut random);
    let bed = Bed::make(engine, &options, SCHEMA, |source| {
        mixed(source, &mut random, 250);
        let deep = match engine {
            Engine::MySql => "SET SESSION cte_max_recursion_depth = 10000",
            Engine::MariaDb => "SET SESSION max_recursive_iterations = 10000",
        };
        source.run(&[
            "CREATE TABLE app.wide (id INT AUTO_INCREMENT PRIMARY KEY, u INT UNIQUE, b VARCHAR(200))",
            deep,
            "INSERT INTO app.wide (u, b) WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
             SELECT i * 7, REPEAT('x', 100) FROM n",
            "UPDATE app.wide SET u = -u",
            "DELETE FROM app.wide WHERE id % 3 = 0",
        ]);
        leave_prepared(source);
    });
    let dir = bed.copy("killed");
    let whole = std::time::Instant::now();
    let (mut kills, mut resumed_in_a_window) = (0, 0);
    let mut server = Some(bed.start(&dir));
    loop {
        assert!(whole.elapsed().as_secs() < 240 + kills_max * 10, "seed {seed}: {kills} kills and no end");
        let running = server.take().unwrap();
        // Another call may have other options: a window under way is cut as the call that began it did. Up to what this
        // test is for, windows are long, and of many chunks: short ones can be over before any kill comes.
        let long = resumed_in_a_window == 0 || kills < 2;
        let options = Options {
            mode,
            connections: 1 + random.below(4) as usize,
            chunk_bytes: if long { 500 } else { *random.pick(&[500, 700, 1500]) },
            memory_bytes: if long { 4 << 20 } else { *random.pick(&[100_000, 4 << 20]) },
            early_bytes: if long { 20_000 } else { *random.pick(&[5_000, 20_000]) },
        };
        let cuts = std::sync::Mutex::new(Vec::new());
        let mut conn = running.connect().unwrap();
        cuts.lock().unwrap().push(conn.interrupter());
        let chunks = conn.query_text("SELECT COUNT(*) FROM __holdfast.chunk");
        resumed_in_a_window += u64::from(matches!(chunks, Ok(Some(text)) if text != "0"));
        let connect = || {
            let conn = running.connect().map_err(|e| Box::new(e) as holdfast_replay::log::BoxError)?;
            cuts.lock().unwrap().push(conn.interrupter());
            Ok(conn)
        };
        let summary = scan(&bed.log).unwrap();
        let moment =
            std::time::Duration::from_micros(random.below(if mode == Mode::Net { 900_000 } else { 150_000 }));
        let how = random.below(3);
        // The first kills and every other one wait until some chunks of a window are committed; where none of them was in
        // time, for so many as only the longest window has.
        let missed = mode == Mode::Net && resumed_in_a_window == 0 && kills >= 4;
        let in_a_window = mode == Mode::Net && (kills < 2 || missed || random.below(2) == 0);
        let chunks_wanted = if in_a_window { 1 + random.below(20) + if missed { 60 } else { 0 } } else { 0 };
        let may_kill = kills < kills_max || missed && kills < 4 * kills_max;
        let asked = std::sync::atomic::AtomicBool::new(false);
        let finished = std::sync::atomic::AtomicBool::new(false);
        let ended = std::thread::scope(|scope| {
            let killer = scope.spawn(|| {
                if chunks_wanted == 0 {
                    std::thread::sleep(moment);
                }
                let mut watch = running.connect().unwrap();
                let mut committed = || match watch.query_text("SELECT COUNT(*) FROM __holdfast.chunk") {
                    Ok(Some(text)) => text.parse::<u64>().unwrap(),
                    _ => 0,
                };
                while committed() < chunks_wanted && !finished.load(std::sync::atomic::Ordering::Relaxed) {
                    std::thread::sleep(std::time::Duration::from_millis(1));
                }
                if !may_kill {
                    return;
                }
                match how {
                    // As when this process is killed: all connections go at once.
                    0 => cuts.lock().unwrap().iter().for_each(holdfast_mysql::Interrupter::interrupt),
                    1 => rustix::process::kill_process(
                        rustix::process::Pid::from_raw(running.pid()).unwrap(),
                        rustix::process::Signal::KILL,
                    )
                    .unwrap(),
                    _ => asked.store(true, std::sync::atomic::Ordering::Relaxed),
                }
            });
            let ended = holdfast_replay::run(
                &mut conn,
                &connect,
                &bed.log,
                &bed.options(),
                &options,
                &summary,
                &mut |_| match asked.load(std::sync::atomic::Ordering::Relaxed) {
                    true => ControlFlow::Break(()),
                    false => ControlFlow::Continue(()),
                },
            );
            finished.store(true, std::sync::atomic::Ordering::Relaxed);
            killer.join().unwrap();
            ended
        });
        let dead = how == 1 && may_kill;
        kills += u64::from(may_kill);
        match ended {
            Ok(outcome) if !dead => {
                finish(&mut running.connect().unwrap(), &outcome.gtids, &outcome.binlog_state).unwrap();
                bed.compare(&running, &format!("{engine:?} after {kills} kills, seed {seed}"));
                break;
            }
            Ok(_) | Err(Error::Server { .. } | Error::Stopped(_) | Error::Connect(_)) => {}
            Err(other) => panic!("seed {seed}, kill {kills}: {other}"),
        }
        if dead {
            running.kill();
            server = Some(bed.start(&dir));
        } else {
            server = Some(running);
        }
    }
    println!(
        "{engine:?} {mode:?}, seed {seed}: {kills} kills, {resumed_in_a_window} times in the middle of a window"
    );
    // In the other mode no kill waits for anything.
    let shown = kills > 1 && resumed_in_a_window > 0 || mode == Mode::Ordered;
    assert!(shown, "seed {seed}: {kills} kills, and none fell into a window: the test shows nothing");
    if referee {
        bed.compare_with_a_replica(&format!("{engine:?}, seed {seed}"));
    }
}

#[test]
fn a_killed_net_replay_of_a_mysql_goes_on_to_the_same_state() {
    survives_kills(Engine::MySql);
}

#[test]
fn a_killed_net_replay_of_a_mariadb_goes_on_to_the_same_state() {
    survives_kills(Engine::MariaDb);
}

#[test]
fn a_statement_on_several_tables_of_one_lane_changes_all_of_them() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, |source| {
            source.run(&[
                "INSERT INTO app.parent VALUES (1, 'one'), (2, 'two'), (3, 'three')",
                "INSERT INTO app.child (parent, note) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
                // A cascade that is not in the log (MariaDB) joins both in a lane.
                "DELETE FROM app.parent WHERE id = 1",
                "CREATE TABLE app.border (a INT)",
                "UPDATE app.parent p JOIN app.child c ON c.parent = p.id SET p.name = CONCAT(p.name, '!'), c.note = 'joined'",
            ]);
        });
        for mode in [Mode::Net, Mode::Ordered] {
            becomes_the_source(&bed, &net(mode), &format!("{engine:?} {mode:?} joined"));
        }
    }
}

/// Rows that refer to themselves and to each other in a circle. MySQL logs the delete of one as it was before its own
/// cascade, or two times; its own applier ends with 1032 at both.
fn circles(source: &holdfast_tests::TestServer) {
    source.run(&[
        "CREATE TABLE app.cleared (note VARCHAR(300), n INT UNIQUE, p INT, q INT AS (p * 2) VIRTUAL, \
         FOREIGN KEY (p) REFERENCES cleared (n) ON DELETE SET NULL)",
        "CREATE TABLE app.gone (note VARCHAR(300), n INT UNIQUE, p INT, FOREIGN KEY (p) REFERENCES gone (n) ON DELETE CASCADE)",
        "CREATE TABLE app.keyed (n INT PRIMARY KEY, note VARCHAR(300), p INT, FOREIGN KEY (p) REFERENCES keyed (n) ON DELETE CASCADE)",
        "CREATE TABLE app.loose (n INT PRIMARY KEY, p INT, v INT, UNIQUE KEY (p, v), \
         FOREIGN KEY (p) REFERENCES loose (n) ON DELETE SET NULL)",
        "INSERT INTO app.cleared (note, n, p) VALUES ('a', 1, 1), ('b', 2, 1), ('c', 3, NULL), ('d', 4, 3), ('e', 5, 5), \
         ('e', NULL, 5), ('e', NULL, 5), ('f', 6, 6), ('g', 7, NULL)",
        "INSERT INTO app.gone VALUES (REPEAT('a', 300), 1, NULL), (REPEAT('b', 300), 2, 1), (REPEAT('c', 300), 3, 2), \
         ('d', 4, 4), ('e', NULL, 4), ('e', NULL, 4), ('e', NULL, NULL), ('f', 5, 5), ('g', 6, NULL)",
        "INSERT INTO app.keyed VALUES (1, 'a', NULL), (2, 'b', 1), (3, REPEAT('c', 300), 2), (4, 'd', 4), (5, 'e', NULL), (6, 'f', 6)",
        "INSERT INTO app.loose VALUES (1, 1, 1), (2, 1, 2), (3, 3, 3), (4, NULL, 4)",
        "CREATE TABLE app.border (a INT)",
        "UPDATE app.cleared SET p = 4 WHERE n = 3",
        "UPDATE app.gone SET p = 3 WHERE n = 1",
        "UPDATE app.keyed SET p = 3 WHERE n = 1",
        "DELETE FROM app.cleared WHERE n = 1",
        "DELETE FROM app.cleared WHERE n IN (3, 5) OR note = 'g'",
        // The second delete of row 1 is in an event of its own.
        "DELETE FROM app.gone WHERE n = 1",
        "DELETE FROM app.gone WHERE n = 4 OR note = 'g'",
        "DELETE FROM app.keyed WHERE n IN (1, 4)",
        "DELETE FROM app.loose WHERE n = 1",
        "REPLACE INTO app.cleared (note, n, p) VALUES ('r', 6, 6), ('r', 6, 6)",
        "REPLACE INTO app.keyed VALUES (6, 'r', 6), (6, 'r', 6)",
        "SET SESSION binlog_row_image = 'MINIMAL'",
        "DELETE FROM app.cleared WHERE n = 6",
        "DELETE FROM app.gone WHERE n = 5",
        "DELETE FROM app.keyed WHERE n = 6",
        "DELETE FROM app.loose WHERE n = 3",
    ]);
}

#[test]
fn rows_that_refer_to_themselves_or_in_a_circle_go_as_on_the_source() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &["--binlog-row-event-max-size=256"], SCHEMA, circles);
        let modes: &[Mode] = match engine {
            Engine::MySql => &[Mode::Serial, Mode::Ordered, Mode::Net],
            Engine::MariaDb => &[Mode::Net],
        };
        for &mode in modes {
            becomes_the_source(&bed, &net(mode), &format!("{engine:?} {mode:?} circles"));
        }
        // The proof counts rows by the log alone.
        let end = Catalog::read(&mut bed.source.root(), false).unwrap();
        let nothing = Catalog::default();
        let mut tally = Tally::new(&nothing, &end, None);
        tally.read(&bed.log).unwrap();
        for (table, counted) in [("cleared", true), ("loose", true), ("gone", false), ("keyed", false)] {
            let key = TableKey { database: "app".to_owned(), table: table.to_owned() };
            match tally.expected_rows(&key) {
                Ok(rows) if counted => {
                    let there = bed.source.value(&format!("SELECT COUNT(*) FROM app.{table}"));
                    assert_eq!(there, Some(rows.to_string()), "{engine:?} {table}");
                }
                Err(why) if !counted => assert!(why.contains("foreign key"), "{engine:?} {table}: {why}"),
                other => panic!("{engine:?} {table}: {other:?}"),
            }
        }
    }
}

/// Rows of which the log holds some columns only: what is left out has its default, or stays.
fn in_parts(source: &holdfast_tests::TestServer, image: &str) {
    let mut conn = source.root();
    for sql in [
        "CREATE TABLE app.plain (id INT AUTO_INCREMENT PRIMARY KEY, a INT DEFAULT 5, b VARCHAR(20) NOT NULL DEFAULT 'it''s', c BLOB, d INT)",
        "INSERT INTO app.plain (a, b, c, d) VALUES (1, 'one', 'blob', 1), (2, 'two', REPEAT('b', 900), 2), (3, NULLIF('x', 'x') IS NULL, NULL, 3), \
         (4, 'four', 'blob', 4), (5, 'five', 'blob', 5)",
        "CREATE TABLE app.mail (k INT, id INT, mail VARCHAR(30), n INT, t TEXT, PRIMARY KEY (id, k), UNIQUE KEY (mail))",
        "INSERT INTO app.mail VALUES (1, 1, 'a', 1, 't'), (1, 2, 'b', 2, NULL), (1, 3, 'c', 3, 'u'), (1, 4, NULL, 4, 'v')",
        "CREATE TABLE app.moved (id INT PRIMARY KEY, a INT, b TEXT)",
        "INSERT INTO app.moved VALUES (1, 1, 'x'), (2, 2, 'y'), (3, 3, 'z')",
        "CREATE TABLE app.computed (id INT PRIMARY KEY, a INT, b INT DEFAULT (a + 1), t TEXT, g INT AS (a * 2) STORED, v INT AS (a * 3) VIRTUAL)",
        "INSERT INTO app.computed (id, a, t) VALUES (1, 1, 't'), (2, 2, 'u')",
        // Everything above is in a window of its own.
        "CREATE TABLE app.border (id INT PRIMARY KEY)",
        "SET SESSION binlog_row_image = IMAGE",
        "UPDATE app.plain SET a = a + 10 WHERE id < 4",
        "UPDATE app.plain SET c = 'changed', d = NULL WHERE id = 1",
        "UPDATE app.plain SET b = 'again' WHERE id = 1",
        "UPDATE app.plain SET c = NULL WHERE id = 2",
        // Gone and back: the defaults are back, too.
        "DELETE FROM app.plain WHERE id IN (4, 5)",
        "INSERT INTO app.plain (id, d) VALUES (4, 44)",
        "UPDATE app.plain SET d = d + 1 WHERE id = 4",
        // All of a row that came in the window is known, whatever happens to it.
        "INSERT INTO app.plain (c) VALUES ('new')",
        "UPDATE app.plain SET d = 9 WHERE c = 'new'",
        "UPDATE app.plain SET id = 100 WHERE c = 'new'",
        "UPDATE app.plain SET a = NULL WHERE id = 100",
        "INSERT INTO app.mail (id, k, mail) VALUES (9, 1, 'z')",
        "UPDATE app.mail SET mail = 'y', n = 7 WHERE id = 9",
        "UPDATE app.mail SET k = 2 WHERE id = 9",
        "INSERT INTO app.mail (id, k, mail) VALUES (8, 1, 'z')",
        "UPDATE app.mail SET t = 'set' WHERE id = 1",
        "UPDATE app.moved SET a = a + 1",
        "UPDATE app.moved SET id = 20 WHERE id = 2",
        "UPDATE app.moved SET b = 'yy' WHERE id = 20",
        "INSERT INTO app.moved (id) VALUES (2)",
        "INSERT INTO app.computed (id, a) VALUES (3, 3)",
        "UPDATE app.computed SET a = a + 100",
        "UPDATE app.computed SET t = 'w' WHERE id = 1",
    ] {
        let sql = sql.replace("IMAGE", image).replace("app.", &format!("app.{image}_"));
        conn.execute(&sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[test]
fn rows_of_which_the_log_holds_some_columns_are_merged() {
    for engine in Engine::ALL {
        let images = ["MINIMAL", "NOBLOB"];
        let bed =
            Bed::make(engine, &[], SCHEMA, |source| images.iter().for_each(|image| in_parts(source, image)));
        let outcome = becomes_the_source(
            &bed,
            &Options {
                mode: Mode::Net,
                connections: 2,
                chunk_bytes: 1,
                memory_bytes: 64 << 20,
                early_bytes: 64 << 20,
            },
            &format!("{engine:?} in parts"),
        );
        for image in images {
            let named = |table: &str| format!("{image}_{table}");
            let class = |table| outcome.classes.iter().find(|(key, _)| key.table == named(table)).unwrap().1;
            assert_eq!(*class("plain"), Class::Net, "{engine:?} {image}");
            assert_eq!(*class("mail"), Class::Net, "{engine:?} {image}");
            let Class::Ordered { why } = class("moved") else { panic!("{engine:?}: {}", class("moved")) };
            assert!(why.contains("binlog_row_image") && why.contains("for a stretch"), "{engine:?}: {why}");
        }
        bed.compare_with_a_replica(&format!("{engine:?} in parts"));
        if engine == Engine::MariaDb {
            continue;
        }
        // Small windows, and stopped again and again, in the middle of one too.
        let server = bed.start(&bed.copy("stopped"));
        let options =
            Options { mode: Mode::Net, connections: 2, chunk_bytes: 90, memory_bytes: 700, early_bytes: 100 };
        let mut next = 12;
        loop {
            let mut stop = |p: &Progress| {
                if p.written < next {
                    return ControlFlow::Continue(());
                }
                next += 12;
                ControlFlow::Break(())
            };
            match attempt(&bed, &server, &options, &mut stop) {
                Ok(_) => break,
                Err(Error::Stopped(_)) => {}
                Err(error) => panic!("{engine:?}: {error}"),
            }
        }
        bed.compare(&server, "stopped");
    }
}

/// Changes of tables without a primary key: equal rows, rows that come and go, values that go round a unique key.
fn keyless(source: &holdfast_tests::TestServer) {
    source.run(&[
        "CREATE TABLE app.log (at DATETIME(3), who INT, f FLOAT, b BLOB, d DECIMAL(9,3), bits BIT(9), e ENUM('x','y'), KEY (who))",
        "INSERT INTO app.log VALUES ('2020-01-01 00:00:00.125', 1, -0.0, 'a', 1.5, b'1', 'x'), (NULL, 1, 0.1, NULL, NULL, NULL, NULL), \
         (NULL, 1, 0.1, NULL, NULL, NULL, NULL), (NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
        "INSERT INTO app.log SELECT * FROM app.log",
        "CREATE TABLE app.ring (u INT, v VARCHAR(9), UNIQUE KEY (u))",
        "INSERT INTO app.ring VALUES (1, 'a'), (2, 'b'), (3, 'c'), (NULL, 'd'), (NULL, 'd')",
        "CREATE TABLE app.ticket (n INT AUTO_INCREMENT, v INT, KEY (n))",
        "INSERT INTO app.ticket (v) VALUES (1), (2)",
        "CREATE TABLE app.computed (a INT, b INT AS (a + 1) VIRTUAL)",
        "INSERT INTO app.computed (a) VALUES (1), (1), (2)",
        // Everything above is in a window of its own.
        "CREATE TABLE app.border (id INT PRIMARY KEY)",
        "UPDATE app.log SET who = who + 1 WHERE b IS NULL LIMIT 1",
        "UPDATE app.log SET who = who + 1",
        "DELETE FROM app.log WHERE who IS NULL LIMIT 1",
        "INSERT INTO app.log (who, b) VALUES (7, REPEAT('long', 9000)), (7, REPEAT('long', 9000)), (8, 'once')",
        "UPDATE app.log SET bits = b'101' WHERE who = 7 LIMIT 1",
        "DELETE FROM app.log WHERE who = 8",
        "INSERT INTO app.log (who) VALUES (9)",
        "UPDATE app.log SET who = 10 WHERE who = 9",
        "UPDATE app.log SET who = 9 WHERE who = 10",
        "UPDATE app.ring SET u = 9 WHERE u = 1",
        "UPDATE app.ring SET u = 1 WHERE u = 2",
        "UPDATE app.ring SET u = 2 WHERE u = 3",
        "UPDATE app.ring SET u = 3 WHERE u = 9",
        "DELETE FROM app.ring WHERE v = 'd' LIMIT 1",
        "UPDATE app.ring SET v = 'D' WHERE v = 'd'",
        "INSERT INTO app.ticket (v) VALUES (3), (4)",
        "DELETE FROM app.ticket WHERE v >= 3",
        "UPDATE app.computed SET a = a + 1",
    ]);
}

#[test]
fn rows_without_a_primary_key_are_told_by_their_images() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, keyless);
        let sizes: &[(usize, usize, usize)] = match engine {
            Engine::MySql => &[(4 << 20, 64 << 20, 2), (1, 64 << 20, 4), (200, 700, 3)],
            Engine::MariaDb => &[(4 << 20, 64 << 20, 2)],
        };
        for &(chunk_bytes, memory_bytes, connections) in sizes {
            let options = Options {
                mode: Mode::Net,
                connections,
                chunk_bytes,
                memory_bytes,
                early_bytes: memory_bytes / 4,
            };
            let what = format!("{engine:?} keyless {chunk_bytes} {memory_bytes} {connections}");
            let server = bed.start(&bed.copy(&what.replace(' ', "_")));
            let outcome = attempt(&bed, &server, &options, &mut go_on).unwrap();
            bed.compare(&server, &what);
            for (table, by_image) in [("log", true), ("ring", true), ("ticket", true), ("computed", false)] {
                let class = outcome.classes.iter().find(|(key, _)| key.table == table).unwrap().1;
                // MariaDB reads the table once for each row whatever is done.
                let net = by_image && engine == Engine::MySql;
                assert_eq!(*class == Class::Net, net, "{what}: {table} is {class}");
            }
            let mut conn = server.connect().unwrap();
            conn.execute("INSERT INTO app.ticket (v) VALUES (5)").unwrap();
            let next = conn.query_text("SELECT MAX(n) FROM app.ticket").unwrap();
            assert_eq!(next.as_deref(), Some("5"), "{what}: numbers 3 and 4 were given");
        }
    }
}

#[test]
fn a_row_without_a_key_that_is_not_as_the_log_says_is_found_out() {
    let bed = Bed::make(
        Engine::MySql,
        &[],
        &[
            "CREATE DATABASE app",
            "CREATE TABLE app.log (who INT, what VARCHAR(9))",
            "INSERT INTO app.log VALUES (1, 'a'), (2, 'b')",
        ],
        |source| {
            source.run(&["DELETE FROM app.log WHERE who = 2", "INSERT INTO app.log VALUES (3, 'c')"]);
        },
    );
    let server = bed.start(&bed.copy("other"));
    server.connect().unwrap().execute("UPDATE app.log SET what = 'B' WHERE who = 2").unwrap();
    let error = attempt(&bed, &server, &net(Mode::Net), &mut go_on).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(error.to_string().contains("app.log"), "{error}");
}
