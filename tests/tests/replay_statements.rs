//! What a source logs as something else than whole rows, on real servers: partial updates of JSON, XA
//! transactions, statements with all that they need, temporary tables. The copy must become the source,
//! replayed one by one and as net change, and cut off behind any transaction.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that can't go on has failed")]

use std::ops::ControlFlow;

use holdfast_engine::PrivateServer;
use holdfast_mysql::Conn;
use holdfast_replay::net::{Mode, Options, run};
use holdfast_replay::scan::{Summary, scan};
use holdfast_replay::serial::{Outcome, Progress};
use holdfast_replay::{Error, finish::finish};
use holdfast_tests::replaying::{Bed, SCHEMA, go_on, prepared};
use holdfast_tests::{Engine, TestServer};

fn run_on(
    bed: &Bed,
    server: &PrivateServer,
    mode: Mode,
    progress: &mut dyn FnMut(&Progress) -> ControlFlow<()>,
) -> Result<Outcome, Error> {
    let mut conn = server.connect().unwrap();
    let summary = scan(&bed.log)?;
    summary.check()?;
    let connect = || server.connect().map_err(|e| Box::new(e) as _);
    let options = Options { mode, connections: 2, ..Options::default() };
    let interrupter = conn.interrupter();
    let mut watch = |p: &Progress| {
        if progress(p).is_break() {
            interrupter.interrupt();
        }
        ControlFlow::Continue(())
    };
    run(&mut conn, &connect, &bed.log, &bed.options(), &options, &summary, &mut watch)
}

fn same(bed: &Bed, server: &PrivateServer, outcome: &Outcome, what: &str) {
    let mut conn = server.connect().unwrap();
    finish(&mut conn, &outcome.gtids, &outcome.binlog_state).unwrap();
    assert_eq!(outcome.gtids.to_string(), bed.source.gtids(), "{what}");
    assert_eq!(outcome.prepared.len(), prepared(&mut conn).len(), "{what}");
    bed.compare(server, what);
}

/// Replays the net change without a break, and one by one with the connection cut behind every
/// `step`th transaction.
fn becomes_the_source(bed: &Bed, what: &str, step: u64) -> Summary {
    net_becomes_the_source(bed, what);
    let server = bed.start(&bed.copy("cut"));
    let mut next = 0;
    let outcome = loop {
        let ended = run_on(bed, &server, Mode::Serial, &mut |p| {
            if p.transactions < next {
                return ControlFlow::Continue(());
            }
            next += step;
            ControlFlow::Break(())
        });
        match ended {
            Ok(outcome) => break outcome,
            Err(Error::Server { .. }) => {}
            Err(other) => panic!("{what}, cut before {next}: {other}"),
        }
    };
    same(bed, &server, &outcome, &format!("{what}, cut"));
    scan(&bed.log).unwrap()
}

fn net_becomes_the_source(bed: &Bed, what: &str) -> Summary {
    let server = bed.start(&bed.copy("net"));
    let outcome = run_on(bed, &server, Mode::Net, &mut go_on).unwrap_or_else(|e| panic!("{what}, net: {e}"));
    same(bed, &server, &outcome, &format!("{what}, net"));
    outcome.summary
}

fn all(conn: &mut Conn, statements: &[&str]) {
    for sql in statements {
        conn.execute(sql).unwrap_or_else(|e| panic!("{sql}: {e}"));
    }
}

#[test]
fn partial_updates_of_json_are_replayed_exactly() {
    for more in [&[][..], &["--binlog-row-image=MINIMAL", "--binlog-transaction-compression=ON"]] {
        let options = [&["--binlog-row-value-options=PARTIAL_JSON"][..], more].concat();
        let bed = Bed::make(Engine::MySql, &options, SCHEMA, |source| {
            all(
                &mut source.root(),
                &[
                    "CREATE TABLE app.docs (id INT PRIMARY KEY, a JSON, n INT, b JSON)",
                    "CREATE TABLE app.loose (id INT, a JSON)",
                    "INSERT INTO app.docs VALUES (1, JSON_OBJECT('k', REPEAT('x', 3000), 'l', JSON_ARRAY(1, 2, 3)), 1, '[]'), \
                     (2, JSON_OBJECT('k', REPEAT('y', 3000), 'd', NOW(6)), 2, '{\"z\": [1, {\"w\": 2}]}'), (3, NULL, 3, NULL)",
                    "INSERT INTO app.loose SELECT id, a FROM app.docs",
                    "UPDATE app.docs SET a = JSON_SET(a, '$.new', id, '$.l[1]', 'two')",
                    "UPDATE app.docs SET a = JSON_REMOVE(a, '$.l[0]'), b = JSON_REPLACE(b, '$.z[1].w', 1.50), n = n + 1",
                    "UPDATE app.docs SET a = JSON_SET(a, '$.new', CAST('2020-01-01' AS DATE)), id = id + 10",
                    "UPDATE app.docs SET b = '{}' WHERE id = 13",
                    "UPDATE app.loose SET a = JSON_SET(a, '$.k2', 'loose') WHERE id < 3",
                    "UPDATE app.loose SET a = JSON_SET(a, '$.k2', 'tight') WHERE id = 1",
                    "DELETE FROM app.docs WHERE id = 12",
                ],
            );
        });
        let summary = becomes_the_source(&bed, "partial JSON", 3);
        assert!(summary.shapes.values().any(|shape| shape.partial_json), "the source logged whole documents");
        bed.compare_with_a_replica("partial JSON");
    }
}

/// XA transactions that end in each way, beside each other.
fn xa_work(source: &TestServer) {
    let mut other = source.root();
    for (number, end) in ["XA COMMIT", "XA ROLLBACK", "XA COMMIT", ""].into_iter().enumerate() {
        let id = format!("X'{:02x}ff27','b{number}',{}", number + 1, number + 1);
        let mut conn = source.root();
        all(
            &mut conn,
            &[
                &format!("XA START {id}"),
                &format!("INSERT INTO app.parent VALUES ({}, 'xa {number}')", 10 + number),
                &format!("INSERT INTO app.types (n) VALUES ({number}), ({number})"),
                "SAVEPOINT s",
                "INSERT INTO app.grandchild (child) VALUES (NULL)",
                "ROLLBACK TO s",
                &format!("XA END {id}"),
                &format!("XA PREPARE {id}"),
            ],
        );
        drop(conn);
        all(
            &mut other,
            &[
                &format!("INSERT INTO app.parent VALUES ({}, 'between {number}')", 100 + number),
                &format!("UPDATE app.parent SET name = 'changed {number}' WHERE id = {}", 100 + number),
            ],
        );
        if !end.is_empty() {
            decide(&mut other, &format!("{end} {id}"));
        }
        all(&mut other, &[&format!("INSERT INTO app.pair VALUES ('after', {number}, 1)")]);
    }
    all(
        &mut other,
        &[
            "XA START 'one'",
            "INSERT INTO app.parent VALUES (500, 'one phase')",
            "XA END 'one'",
            "XA COMMIT 'one' ONE PHASE",
            "XA START 'empty'",
            "SELECT COUNT(*) FROM app.nopk",
            "XA END 'empty'",
            "XA PREPARE 'empty'",
            "XA COMMIT 'empty'",
            "INSERT INTO app.parent VALUES (501, 'last')",
            // Statements that change nothing: to the source, whose log has them, a transaction like any other.
            "SET SESSION binlog_format = STATEMENT",
            "XA START 'in','vain',1",
            "DELETE FROM app.nopk WHERE a = -1",
            "XA END 'in','vain',1",
            "XA PREPARE 'in','vain',1",
            "XA COMMIT 'in','vain',1",
            "XA START 'in','vain',2",
            "UPDATE app.nopk SET a = 1 WHERE a = -1",
            "XA END 'in','vain',2",
            "XA PREPARE 'in','vain',2",
            "XA ROLLBACK 'in','vain',2",
            "XA START 'all','of it',1",
            "INSERT INTO app.parent VALUES (502, 'in a statement')",
            "XA END 'all','of it',1",
            "XA PREPARE 'all','of it',1",
            "XA COMMIT 'all','of it',1",
        ],
    );
}

/// The session that prepared may still be going.
fn decide(conn: &mut Conn, sql: &str) {
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while let Err(error) = conn.execute(sql) {
        assert!(std::time::Instant::now() < until, "{sql}: {error}");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
}

#[test]
fn xa_transactions_of_mysql_are_prepared_and_decided_as_on_the_source() {
    let bed = Bed::make(Engine::MySql, &[], SCHEMA, xa_work);
    becomes_the_source(&bed, "XA", 1);
    let bed = Bed::make(Engine::MySql, &["--binlog-transaction-compression=ON"], SCHEMA, xa_work);
    net_becomes_the_source(&bed, "compressed XA");
}

#[test]
fn xa_transactions_of_mariadb_are_prepared_and_decided_as_on_the_source() {
    let bed = Bed::make(Engine::MariaDb, &[], SCHEMA, xa_work);
    becomes_the_source(&bed, "XA", 1);
}

/// Statements with everything that the log gives them.
fn statements(source: &TestServer, format: &str) {
    let mut conn = source.root();
    all(
        &mut conn,
        &[
            "USE app",
            "CREATE FUNCTION app.noted(x INT) RETURNS INT MODIFIES SQL DATA BEGIN INSERT INTO app.audit (what) VALUES (x); \
             RETURN x + 1; END",
            "CREATE PROCEDURE app.twice(x INT) BEGIN INSERT INTO app.nopk VALUES (x, 'once'); UPDATE app.nopk SET a = a + x; END",
            "CREATE TABLE app.values_of (id INT AUTO_INCREMENT PRIMARY KEY, t VARCHAR(200) CHARACTER SET utf8mb4, d DOUBLE, \
             m DECIMAL(40,10), u BIGINT UNSIGNED, at DATETIME(6), ts TIMESTAMP(6) NULL, b VARBINARY(40))",
        ],
    );
    let format = format!("SET SESSION binlog_format = {format}");
    all(
        &mut conn,
        &[
            &format,
            "INSERT INTO parent VALUES (1, 'one'), (2, 'two'), (3, 'three')",
            "INSERT INTO child (parent, note) VALUES (1, 'a'), (2, 'b'), (3, 'c')",
            "INSERT INTO grandchild (child) VALUES (LAST_INSERT_ID())",
            "UPDATE parent SET name = CONCAT(name, '!') ORDER BY id",
            "UPDATE parent SET id = id + 50 WHERE id = 2",
            "DELETE FROM parent WHERE id = 1",
            "INSERT INTO values_of (d, at, ts) VALUES (RAND(), NOW(6), CURRENT_TIMESTAMP(6)), (RAND(), UTC_TIMESTAMP(6), NULL)",
            "SET @t = 'ü\\'x', @d = 1.1e-7, @m = -12345678901234567890.0123456789, @u = 18446744073709551615, @i = -5, @n = NULL",
            "SET @b = X'00ff27', @`od``d ü` = _latin1 X'fc' COLLATE latin1_german1_ci, @z = 0.5, @w = 7.0",
            "INSERT INTO values_of (t, d, m, u, b) VALUES (@t, @d, @m, @u, @b)",
            "INSERT INTO values_of (t, d, m, u, b) VALUES (@`od``d ü`, @i, @z, 1, @n), (CONCAT(@w, @i), @w, @w, 2, @b)",
            "SET SESSION time_zone = '+05:30', sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES', lc_time_names = 'de_DE'",
            "INSERT INTO \"values_of\" (t, ts) VALUES (DATE_FORMAT('2020-05-06', '%M \\'), '2021-01-01 00:00:00')",
            "SET SESSION time_zone = DEFAULT, sql_mode = DEFAULT, lc_time_names = DEFAULT",
            "SET SESSION auto_increment_increment = 7, auto_increment_offset = 3",
            "INSERT INTO audit (what) VALUES ('x'), ('y'), ('z')",
            "SET SESSION auto_increment_increment = 1, auto_increment_offset = 1",
            "CALL twice(4)",
            "DO noted(9)",
            "UPDATE nopk SET b = noted(1)",
            "UPDATE parent p JOIN child c ON c.parent = p.id SET p.name = CONCAT('joined', p.id), c.note = 'joined'",
            "INSERT INTO values_of (u) SELECT id FROM parent ORDER BY id",
            "BEGIN",
            "INSERT INTO audit (what) VALUES ('kept')",
            "SAVEPOINT s",
            "INSERT INTO audit (what) VALUES ('dropped')",
            "ROLLBACK TO s",
            "UPDATE audit SET what = CONCAT(what, '.')",
            "COMMIT",
            "SET NAMES latin1",
        ],
    );
    conn.execute(b"INSERT INTO values_of (t) VALUES ('\xfc\xe4')").unwrap();
    all(
        &mut conn,
        &["SET NAMES utf8mb4", "SET TIMESTAMP = 1000000000.25", "INSERT INTO values_of (at) VALUES (NOW(6))"],
    );
}

fn statements_become_the_source(engine: Engine) {
    let options = ["--log-bin-trust-function-creators=ON"];
    let bed = Bed::make(engine, &options, SCHEMA, |source| statements(source, "STATEMENT"));
    let summary = becomes_the_source(&bed, "statements", 4);
    assert!(!summary.one_by_one.is_empty(), "the source logged rows only");
    assert_eq!(summary.unsafe_count, 0, "{:?}", summary.unsafe_statements);
    let bed = Bed::make(engine, &options, SCHEMA, |source| statements(source, "MIXED"));
    net_becomes_the_source(&bed, "statements and rows");
}

#[test]
fn statements_of_mysql_are_replayed_with_all_that_the_source_gave_them() {
    statements_become_the_source(Engine::MySql);
}

#[test]
fn statements_of_mariadb_are_replayed_with_all_that_the_source_gave_them() {
    statements_become_the_source(Engine::MariaDb);
}

/// LOAD DATA in each of its ways, of files in one block and in several.
fn loads(source: &TestServer) {
    let file = |name: &str, bytes: &[u8]| {
        let path = source.datadir().join(name);
        std::fs::write(&path, bytes).unwrap();
        path.display().to_string()
    };
    let small = file("small.csv", b"1,10,'one'\n2,20,\\N\n3,30,'it\\'s'\n");
    let more = file("more.csv", b"2;200;'two'\n4;400;'four'\n");
    let latin = file("latin.csv", b"55\t50\t\xfc\xe4\n");
    let long: String =
        (100..20_100).map(|id| format!("{id},{},'row {id} of a long file'\n", id * 3)).collect();
    let long = file("long.csv", long.as_bytes());
    let mut conn = source.root();
    all(
        &mut conn,
        &[
            "USE app",
            "CREATE TABLE loaded (id INT AUTO_INCREMENT PRIMARY KEY, n INT, t VARCHAR(60), at DATETIME DEFAULT NULL, UNIQUE KEY (n))",
            "SET SESSION binlog_format = STATEMENT, sql_mode = 'STRICT_ALL_TABLES'",
            &format!(
                "LOAD DATA INFILE '{small}' INTO TABLE loaded FIELDS TERMINATED BY ',' ENCLOSED BY '\\'' (id, n, t)"
            ),
            &format!(
                "LOAD DATA INFILE '{more}' REPLACE INTO TABLE app.loaded FIELDS TERMINATED BY ';' ENCLOSED BY '\\'' (id, @n, t) \
                 SET n = @n + 1, at = NOW()"
            ),
            &format!(
                "LOAD DATA INFILE '{more}' IGNORE INTO TABLE loaded FIELDS TERMINATED BY ';' ENCLOSED BY '\\'' IGNORE 1 LINES (@id, n, t)"
            ),
            &format!("LOAD DATA INFILE '{latin}' INTO TABLE loaded CHARACTER SET latin1 (id, n, t)"),
            // In the character set of the default database, which the session says to be another one.
            "CREATE DATABASE apart CHARACTER SET utf8mb4",
            "CREATE TABLE apart.loaded LIKE loaded",
            "USE apart",
            "SET SESSION collation_database = latin1_swedish_ci",
            &format!("LOAD DATA INFILE '{latin}' INTO TABLE loaded (id, n, t)"),
            "USE app",
            "BEGIN",
            "INSERT INTO loaded (n, t) VALUES (7000001, 'before')",
            &format!(
                "LOAD DATA INFILE '{long}' INTO TABLE loaded FIELDS TERMINATED BY ',' ENCLOSED BY '\\'' (id, n, t)"
            ),
            &format!(
                "LOAD DATA INFILE '{small}' IGNORE INTO TABLE loaded FIELDS TERMINATED BY ',' (@a, @b, t)"
            ),
            "UPDATE loaded SET t = CONCAT(t, '!') WHERE id % 1000 = 0",
            "COMMIT",
            "INSERT INTO loaded (t) VALUES ('a number behind them')",
        ],
    );
    // It fails on the source, whose log has nothing to do.
    let again = format!("LOAD DATA INFILE '{latin}' INTO TABLE loaded (id, n, t)");
    assert!(conn.execute(again).is_err());
    all(&mut conn, &["INSERT INTO loaded (t) VALUES ('end')"]);
    for name in ["small.csv", "more.csv", "latin.csv", "long.csv"] {
        std::fs::remove_file(source.datadir().join(name)).unwrap();
    }
}

#[test]
fn load_data_is_replayed_from_the_blocks_in_the_log() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &["--secure-file-priv="], SCHEMA, loads);
        let summary = becomes_the_source(&bed, &format!("{engine:?} LOAD DATA"), 1);
        let latin = bed.source.value("SELECT HEX(CONVERT(t USING utf8mb4)) FROM apart.loaded");
        assert_eq!(latin.as_deref(), Some("C3BCC3A4"));
        assert_eq!(bed.source.value("SELECT COUNT(*) > 20000 FROM app.loaded").as_deref(), Some("1"));
        assert!(summary.one_by_one.len() >= 5, "the source logged rows only: {summary:?}");
    }
}

/// Temporary tables of the same name on two connections, and rows between them.
fn temporaries(source: &TestServer) {
    let (mut one, mut two) = (source.root(), source.root());
    for conn in [&mut one, &mut two] {
        all(conn, &["USE app", "SET SESSION binlog_format = STATEMENT"]);
    }
    all(
        &mut one,
        &[
            "CREATE TEMPORARY TABLE scratch (a INT, b VARCHAR(20))",
            "INSERT INTO scratch VALUES (1, 'one'), (2, 'one')",
        ],
    );
    all(
        &mut two,
        &[
            "CREATE TEMPORARY TABLE scratch (a INT, b VARCHAR(20)) SELECT 7 AS a, 'two' AS b",
            "ALTER TABLE scratch ADD COLUMN c INT DEFAULT 5",
            "CREATE TEMPORARY TABLE parent (id INT)",
            "INSERT INTO parent VALUES (77)",
        ],
    );
    all(
        &mut one,
        &[
            "INSERT INTO nopk SELECT a, b FROM scratch ORDER BY a",
            "INSERT INTO parent VALUES (1, 'the real one')",
            "ALTER TABLE parent COMMENT = 'the real one'",
            "DROP TEMPORARY TABLE scratch",
        ],
    );
    all(
        &mut two,
        &[
            "INSERT INTO nopk SELECT a + c, b FROM scratch",
            "INSERT INTO nopk SELECT id, 'shadow' FROM parent",
            // Not left to the end of the session, which the log may come before.
            "DROP TEMPORARY TABLE scratch",
            "DROP TEMPORARY TABLE parent",
        ],
    );
    source.run(&["INSERT INTO app.nopk VALUES (0, 'end')"]);
}

#[test]
fn temporary_tables_are_those_of_their_connections() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, temporaries);
        for mode in [Mode::Serial, Mode::Net] {
            let server = bed.start(&bed.copy(&format!("{mode:?}")));
            let outcome = run_on(&bed, &server, mode, &mut go_on);
            let what = format!("{engine:?} {mode:?}");
            same(&bed, &server, &outcome.unwrap_or_else(|e| panic!("{what}: {e}")), &what);
        }
    }
}

#[test]
fn updates_that_pass_unique_values_on_in_a_table_without_primary_key_are_replayed() {
    for engine in Engine::ALL {
        let bed = Bed::make(engine, &[], SCHEMA, |source| {
            source.run(&[
                "CREATE TABLE app.slots (u INT, v INT, UNIQUE KEY (u))",
                "INSERT INTO app.slots VALUES (1, 1), (2, 2), (3, 3), (4, 4), (5, 5), (6, 6), (7, 7), (NULL, 8)",
                "UPDATE app.slots SET u = u + 1 ORDER BY u DESC",
                "UPDATE app.slots SET u = u - 1 ORDER BY u",
            ]);
        });
        becomes_the_source(&bed, &format!("{engine:?}"), 2);
    }
}
