//! `holdfast export --sql`: a script that the server's own client loads into a fresh server, which then has what the source
//! has: by the comparison of this test bed, and by the text of the server's own dump program of both.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome, ServerState, TestServer, differences};
use serde_json::Value;

/// What both servers have: every type at its limits, names and bodies that want to end early.
const BOTH: &[&str] = &[
    "SET NAMES utf8mb4",
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES', time_zone = '+03:00'",
    "CREATE DATABASE zoo CHARACTER SET latin1",
    "CREATE DATABASE `o``dd; db -- \u{fc}` CHARACTER SET utf8mb4",
    "USE zoo",
    "CREATE TABLE numbers (id INT AUTO_INCREMENT PRIMARY KEY, t TINYINT UNSIGNED, s SMALLINT ZEROFILL, b BIGINT UNSIGNED, \
     d DECIMAL(65,30), f FLOAT, g DOUBLE, h FLOAT(7,3), i DOUBLE(20,2), bits BIT(11)) AUTO_INCREMENT = 1000",
    "INSERT INTO numbers VALUES (0, 255, 7, 18446744073709551615, -12345678901234567890123456789012345.000000000000000000000000000001, \
     0.1, 0.1, 1.005, 123456789012345.67, b'10000000001'), \
     (-1, 0, 0, 0, 0, -0e0, -0e0, 0, 0, 0), (3, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL), \
     (4, 1, 1, 1, 1, 3.4028234e38, 1.7976931348623157e308, 9999.999, -0.01, b'1'), \
     (5, 1, 1, 1, 1, 1.17549435e-38, 2.2250738585072014e-308, 1, 1, b'11111111111'), \
     (6, 1, 1, 1, 1, 16777217, 9007199254740993, 1, 1, 1), (7, 1, 1, 1, 1, 1.0000001, 0.30000000000000004, 1, 1, 1)",
    "CREATE TABLE times (id INT PRIMARY KEY, d DATE, dt DATETIME(6), ts TIMESTAMP(3) NULL DEFAULT NULL, t TIME(6), y YEAR)",
    "INSERT INTO times VALUES (1, '0000-00-00', '0000-00-00 00:00:00', '1970-01-01 03:00:01', '-838:59:59', 0), \
     (2, '2020-02-31', '2020-02-31 23:59:59.999999', '2025-03-30 02:30:00.125', '838:59:58.999999', 1901), \
     (3, '9999-12-31', '9999-12-31 23:59:59.999999', '2038-01-19 05:14:07.999', '00:00:00.000001', 2155), \
     (4, NULL, NULL, NULL, NULL, NULL)",
    "CREATE TABLE bytes (id INT PRIMARY KEY, b BINARY(4), v VARBINARY(20), l LONGBLOB, g GEOMETRY)",
    "INSERT INTO bytes VALUES (1, x'00ff5c27', x'', x'000a0d1a22275c2d2d20', ST_GeomFromText('POINT(1.5 -2)')), \
     (2, 'ab', x'80', REPEAT(x'ff00', 700000), ST_GeomFromText('POLYGON((0 0, 1 0, 1 1, 0 0))')), \
     (3, NULL, NULL, NULL, NULL)",
    "CREATE TABLE texts (id INT PRIMARY KEY, u VARCHAR(60) CHARACTER SET utf8mb4, u3 TEXT CHARACTER SET utf8mb3, \
     l VARCHAR(20) CHARACTER SET latin1, sj VARCHAR(20) CHARACTER SET sjis, gb TEXT CHARACTER SET gbk, \
     c9 CHAR(9) CHARACTER SET cp932, u16 TEXT CHARACTER SET utf16, u32 VARCHAR(9) CHARACTER SET utf32, \
     uc VARCHAR(9) CHARACTER SET ucs2, bi VARCHAR(9) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin)",
    "INSERT INTO texts VALUES (1, '\u{1f600}o\\'n\\\\\"\\0\\n\\r\\Z\\t;', '\u{fc}\u{20ac}', x'80fce4', x'835c8392', x'b0a1d5', \
     x'8790fa54', x'd83dde000041', x'0001f600', x'20ac', 'x'), (2, '', '', '', '', '', '', '', '', '', ''), \
     (3, 'NULL', '--', '/*', '#', ';;', 'a', 'b', 'c', 'd', 'e'), \
     (4, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)",
    "CREATE TABLE words (id INT PRIMARY KEY, e ENUM('', 'a', 'b''c', '\u{fc}') CHARACTER SET latin1, e2 ENUM('1', '0', 'x,y'), \
     s SET('p', 'q', '\u{fc}'))",
    "INSERT INTO words VALUES (1, '', '0', 'p,q'), (2, 'b''c', '1', ''), (3, '\u{fc}', 'x,y', '\u{fc}'), (4, NULL, NULL, NULL)",
    "SET sql_mode = ''",
    "INSERT INTO words VALUES (5, 0, 0, 0)",
    "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'",
    "CREATE TABLE made (id INT PRIMARY KEY, v INT AS (id * 2) VIRTUAL, s INT AS (id * 3) STORED, x INT INVISIBLE, KEY (v))",
    "INSERT INTO made (id, x) VALUES (1, 5), (2, NULL)",
    "CREATE TABLE `o``dd; db -- \u{fc}`.`t``; -- 'x\"` (`c``1` INT, `;` VARCHAR(9) DEFAULT ';\\'\\\\' COMMENT 'it''s; -- \\\\') COMMENT 'a;''b'",
    "INSERT INTO `o``dd; db -- \u{fc}`.`t``; -- 'x\"` VALUES (2, 'b'), (1, DEFAULT), (2, 'b')",
    "CREATE TABLE a_child (id INT PRIMARY KEY, p INT, UNIQUE KEY (p), FOREIGN KEY (p) REFERENCES z_parent (id) ON DELETE CASCADE)",
    "CREATE TABLE parts (id INT, at DATE, PRIMARY KEY (id, at)) PARTITION BY RANGE (YEAR(at)) \
     (PARTITION p0 VALUES LESS THAN (2020), PARTITION p1 VALUES LESS THAN MAXVALUE)",
    "INSERT INTO parts VALUES (1, '2019-01-01'), (2, '2024-01-01')",
    "CREATE TABLE many (id INT PRIMARY KEY, t TEXT)",
    "INSERT INTO many SELECT n, REPEAT(CHAR(65 + n % 26), n) FROM (WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c \
     WHERE n < 999) SELECT n FROM c) x",
    "CREATE VIEW z_base AS SELECT id, u AS `the ``text; --x` FROM texts WHERE u <> '\u{fc};'",
    "CREATE VIEW a_above AS SELECT b.id, twice(b.id) AS t FROM z_base b WITH CASCADED CHECK OPTION",
];

/// Written in another session: what they were made under is a part of them.
const STORED: &[&str] = &[
    "USE zoo",
    "SET NAMES utf8mb4",
    "SET sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'",
    "CREATE TRIGGER t_second BEFORE INSERT ON many FOR EACH ROW BEGIN IF NEW.t IS NULL THEN SET NEW.t = 'a' || ';;'; END IF; END",
    "CREATE TRIGGER a_third BEFORE INSERT ON many FOR EACH ROW SET NEW.t = NEW.t || '$$ // \u{20ac}'",
    "CREATE PROCEDURE p(IN \"a;\" INT, OUT b INT) COMMENT 'it''s' BEGIN -- a comment; with ;; in it\n SET b = \"a;\"; /* DELIMITER $$ */ END",
    "SET NAMES latin1",
    "CREATE EVENT soon ON SCHEDULE EVERY 1 DAY STARTS '2031-01-01 00:00:00' ON COMPLETION PRESERVE DISABLE COMMENT 'x' DO \
     INSERT INTO many VALUES (5000, '\u{fc}')",
    "ALTER DATABASE zoo CHARACTER SET utf8mb4",
];

const MYSQL: &[&str] = &[
    "CREATE TABLE z_parent (id INT PRIMARY KEY CHECK (id > 0), e INT DEFAULT (1 + 2))",
    "CREATE TABLE j (id INT PRIMARY KEY, j JSON, s POINT SRID 4326)",
    // Doubles of 17 digits, of which the server reads some out of a JSON text as their neighbours.
    "INSERT INTO j SELECT n, JSON_OBJECT('a''\"\\\\', n / 3e0, 'b', JSON_ARRAY(SQRT(n) * 1e10, EXP(n / 3e0), EXP(0 - n), 'x;\u{1f600}', n, NULL, TRUE), \
     'c', CAST(18446744073709551615 AS UNSIGNED)), NULL FROM (WITH RECURSIVE c (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300) \
     SELECT n FROM c) x",
    "INSERT INTO j VALUES (1000, CAST(1.0 / 3e0 AS JSON), ST_GeomFromText('POINT(48.5 9.25)', 4326)), (1001, 'null', NULL), (1002, NULL, NULL), \
     (1003, '[1.5, 2e3, -0.0, {}, [], \"1.23456789012345678\"]', NULL)",
    "CREATE ROLE reader",
    "CREATE ROLE `wri``ter`@`10.%`",
    "GRANT SELECT ON zoo.* TO reader",
    "GRANT INSERT (id, t), SELECT (id) ON zoo.many TO `wri``ter`@`10.%`",
    "CREATE USER 'o''neil'@'%' IDENTIFIED BY 'pw-1;' DEFAULT ROLE reader REQUIRE SSL PASSWORD EXPIRE INTERVAL 90 DAY ATTRIBUTE '{\"a\": \"b;''c\"}'",
    "CREATE USER plain@localhost ACCOUNT LOCK",
    "GRANT reader, `wri``ter`@`10.%` TO plain@localhost WITH ADMIN OPTION",
    "GRANT EXECUTE ON PROCEDURE zoo.p TO 'o''neil'@'%'",
    "GRANT BACKUP_ADMIN, PROCESS ON *.* TO plain@localhost WITH GRANT OPTION",
    "GRANT PROXY ON plain@localhost TO 'o''neil'@'%'",
];

const MARIADB: &[&str] = &[
    "CREATE TABLE z_parent (id INT PRIMARY KEY CHECK (id > 0), e INT DEFAULT (1 + 2))",
    "CREATE TABLE own (id INT PRIMARY KEY, u UUID, i INET6, c TEXT COMPRESSED, j JSON) ENGINE=InnoDB",
    "INSERT INTO own VALUES (1, '123e4567-e89b-12d3-a456-426655440000', '2001:db8::ff00:42:8329', REPEAT('x', 1000), '{\"a\":   1.10}'), \
     (2, NULL, NULL, NULL, NULL)",
    "CREATE TABLE aria (id INT PRIMARY KEY, t TEXT) ENGINE=Aria",
    "INSERT INTO aria VALUES (1, 'a'), (2, NULL)",
    "CREATE SEQUENCE s1 START WITH 5 INCREMENT BY 3 MINVALUE 2 MAXVALUE 1000 CACHE 10 CYCLE",
    "CREATE SEQUENCE s2 START WITH -1 INCREMENT BY -1",
    "SELECT NEXTVAL(s1), NEXTVAL(s1)",
    "CREATE TABLE a_numbered (id BIGINT PRIMARY KEY DEFAULT NEXTVAL(s1), v INT)",
    "INSERT INTO a_numbered (v) VALUES (1), (2)",
    "CREATE TABLE past (id INT PRIMARY KEY, v INT) WITH SYSTEM VERSIONING",
    "INSERT INTO past VALUES (1, 1), (2, 2), (3, 3)",
    "UPDATE past SET v = 20 WHERE id = 2",
    "DELETE FROM past WHERE id = 3",
    "CREATE TABLE past2 (id INT, since TIMESTAMP(6) GENERATED ALWAYS AS ROW START, till TIMESTAMP(6) GENERATED ALWAYS AS ROW END, \
     PERIOD FOR SYSTEM_TIME (since, till)) WITH SYSTEM VERSIONING",
    "INSERT INTO past2 (id) VALUES (1), (2)",
    "DELETE FROM past2 WHERE id = 1",
    "SET sql_mode = 'ORACLE'",
    "CREATE PACKAGE pack AS FUNCTION f RETURN INT; PROCEDURE g; END",
    "CREATE PACKAGE BODY pack AS FUNCTION f RETURN INT AS BEGIN RETURN 1; END; PROCEDURE g AS BEGIN SELECT f(); END; END",
    "SET sql_mode = ''",
    "CREATE ROLE reader",
    "CREATE ROLE `wri``ter`",
    "GRANT SELECT ON zoo.* TO reader",
    "GRANT INSERT (id, t), SELECT (id) ON zoo.many TO `wri``ter`",
    "GRANT reader TO `wri``ter`",
    "CREATE USER 'o''neil'@'%' IDENTIFIED BY 'pw-1;' REQUIRE SSL PASSWORD EXPIRE INTERVAL 90 DAY",
    "CREATE USER plain@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('x') ACCOUNT LOCK",
    "GRANT reader TO 'o''neil'@'%'",
    "SET DEFAULT ROLE reader FOR 'o''neil'@'%'",
    "GRANT EXECUTE ON PROCEDURE zoo.p TO 'o''neil'@'%'",
    "GRANT PROCESS ON *.* TO plain@localhost WITH GRANT OPTION",
];

fn fill(server: &TestServer) {
    let first = ["USE zoo", "SET NAMES utf8mb4", "SET sql_mode = 'NO_AUTO_VALUE_ON_ZERO'"];
    let function = "CREATE FUNCTION zoo.twice(n INT) RETURNS INT DETERMINISTIC RETURN n * 2";
    let own = if server.engine() == Engine::MySql { MYSQL } else { MARIADB };
    let mut all = vec!["SET foreign_key_checks = 0", "SET GLOBAL log_bin_trust_function_creators = 1"];
    // The view needs the function, which needs the database.
    let (before, after) = BOTH.split_at(BOTH.len() - 1);
    all.extend(before);
    all.push(function);
    all.extend(after);
    all.extend(STORED);
    all.extend(first);
    all.extend(own);
    all.extend(["INSERT INTO zoo.z_parent VALUES (1, 1)", "INSERT INTO zoo.a_child VALUES (7, 1)"]);
    server.run(&all);
}

fn export(bed: &Bed, more: &[&str]) -> Outcome {
    let engine = bed.server.engine().dir();
    let engine = ["--engine-dir", engine.to_str().unwrap(), "--prove", "quick", "--json"];
    bed.user.run(&[["export", "shop"].as_slice(), more, &engine].concat())
}

/// The server's own client reads the script.
fn load(server: &TestServer, script: &Path) {
    let program = match server.engine() {
        Engine::MySql => "bin/mysql",
        Engine::MariaDb => "bin/mariadb",
    };
    let socket = format!("--socket={}", server.socket().display());
    let output = Command::new(server.engine().dir().join(program))
        // Without it the clients leave out comments inside of bodies.
        .args(["--no-defaults", "--user=root", "--comments", &socket])
        .stdin(File::open(script).unwrap())
        .output()
        .unwrap();
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{complaint}");
    assert!(!complaint.contains("ERROR"), "{complaint}");
}

/// What the server's own dump program makes of it.
fn dumped_by_its_own(server: &TestServer) -> String {
    let (program, own): (_, &[&str]) = match server.engine() {
        Engine::MySql => ("bin/mysqldump", &["--set-gtid-purged=OFF"]),
        Engine::MariaDb => ("bin/mariadb-dump", &["--dump-history"]),
    };
    let output = Command::new(server.engine().dir().join(program))
        .args([
            "--no-defaults",
            "--user=root",
            "--routines",
            "--events",
            "--triggers",
            "--hex-blob",
            "--skip-dump-date",
        ])
        .args(own)
        .arg(format!("--socket={}", server.socket().display()))
        .args(["--databases", "zoo", "o`dd; db -- \u{fc}"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn same_text(expected: &str, found: &str) {
    for (at, (expected, found)) in expected.lines().zip(found.lines()).enumerate() {
        let short = |line: &str| line.chars().take(2000).collect::<String>();
        assert!(expected == found, "line {}: expected {}\nfound {}", at + 1, short(expected), short(found));
    }
    assert_eq!(expected.lines().count(), found.lines().count());
}

fn a_script_brings_everything_back(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    fill(&bed.server);
    bed.backup();
    let script = bed.text("all.sql");
    let view = export(&bed, &["--sql", &script, "--to", "fastest", "--users"]).ok().json();
    assert_eq!(view["warnings"], Value::Array(Vec::new()), "{view}");
    assert!(view["longest_statement"].as_u64().unwrap() > 2_800_000, "{view}");
    assert!(!Path::new(&format!("{script}.d")).exists() && !Path::new(&format!("{script}.part")).exists());
    let bytes = std::fs::read(&script).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    assert!(text.lines().last().unwrap().starts_with("-- Dump completed on "));
    assert_eq!(view["bytes"], bytes.len());

    let fresh = TestServer::start(engine);
    fresh.run(&["SET GLOBAL log_bin_trust_function_creators = 1"]);
    load(&fresh, Path::new(&script));
    let state = |server: &TestServer| ServerState::read(&mut server.root()).unwrap();
    let (expected, found) = (state(&bed.server), state(&fresh));
    assert!(expected.tables.len() >= 12 && expected.objects.len() >= 9, "the source lacks what was made");
    assert_eq!(differences(&expected, &found), Vec::<String>::new());
    for (name, table) in &expected.tables {
        assert_eq!(table.counter, found.tables[name].counter, "{name}");
    }
    same_text(&dumped_by_its_own(&bed.server), &dumped_by_its_own(&fresh));

    refused(export(&bed, &["--sql", &script, "--to", "fastest"]), 2, &["all.sql is there already"]);
    if engine == Engine::MariaDb {
        parts_of_it(&bed);
    }
}

/// Single databases and tables, definitions and rows apart, compressed, on standard output.
fn parts_of_it(bed: &Bed) {
    let script = |name: &str, more: &[&str]| {
        let path = bed.text(name);
        export(bed, &[["--sql", &path, "--to", "fastest"].as_slice(), more].concat()).ok();
        String::from_utf8_lossy(&std::fs::read(path).unwrap()).into_owned()
    };
    let schema = script("schema.sql", &["--database", "zoo", "--schema-only"]);
    assert!(schema.contains("CREATE TABLE `many`") && schema.contains("DROP PROCEDURE IF EXISTS `p`"));
    assert!(
        !schema.contains("INSERT INTO `") && !schema.contains("dd; db") && !schema.contains("CREATE USER")
    );
    let data = script(
        "data.sql",
        &["--table", "zoo.many", "--table", "`o``dd; db -- \u{fc}`.`t``; -- 'x\"`", "--data-only"],
    );
    assert!(
        data.contains("INSERT INTO `many` VALUES")
            && data.contains("INSERT INTO `t``; -- 'x\"` VALUES (2,'b'),")
    );
    assert!(!data.contains("CREATE ") && !data.contains("INSERT INTO `texts`"));
    refused(
        export(bed, &["--sql", &bed.text("no.sql"), "--to", "fastest", "--table", "zoo.nothing"]),
        2,
        &["zoo.nothing"],
    );
    assert!(
        !bed.path("no.sql").exists() && !bed.path("no.sql.part").exists() && !bed.path("no.sql.d").exists()
    );

    let packed = bed.text("packed.zst");
    export(bed, &["--sql", &packed, "--to", "fastest", "--table", "zoo.many", "--zstd"]).ok();
    assert_eq!(std::fs::read(&packed).unwrap()[..4], [0x28, 0xb5, 0x2f, 0xfd]);
    let engine = bed.server.engine().dir();
    let args =
        ["export", "shop", "--to", "fastest", "--table", "zoo.many", "--prove", "quick", "--engine-dir"];
    let scratch = bed.text("scratch");
    let args = [args.as_slice(), &[engine.to_str().unwrap(), "--scratch", &scratch, "--sql"]].concat();
    let output = bed.user.command("holdfast", &args).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.lines().last().unwrap().starts_with("-- Dump completed on "), "{text}");
    assert!(text.contains("a_third") && !bed.path("scratch").exists());
}

#[test]
fn a_script_brings_everything_back_on_mysql() {
    a_script_brings_everything_back(Engine::MySql);
}

#[test]
fn a_script_brings_everything_back_on_mariadb() {
    a_script_brings_everything_back(Engine::MariaDb);
}

/// Wherever it is killed, there is no script or a whole one, and the same command makes it.
#[test]
fn a_killed_export_leaves_no_script_and_the_same_command_makes_it() {
    let bed = Bed::new(Engine::MariaDb, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGTEXT)",
        "INSERT INTO shop.t SELECT seq, REPEAT(MD5(seq), 10000) FROM shop.seq_1_to_60",
        "CREATE VIEW shop.broken AS SELECT id FROM shop.t",
        "CREATE VIEW shop.whole AS SELECT id FROM shop.t",
        "ALTER VIEW shop.broken AS SELECT v FROM shop.whole JOIN shop.t USING (id)",
        "DROP VIEW shop.whole",
    ]);
    bed.backup();
    let engine = bed.server.engine().dir();
    let (script, part) = (bed.text("it.sql"), bed.text("it.sql.part"));
    let args = ["export", "shop", "--sql", &script, "--to", "fastest", "--prove", "quick", "--engine-dir"];
    let args = [args.as_slice(), &[engine.to_str().unwrap()]].concat();
    let mut child = bed.user.spawn(&args, &bed.path("log"));
    let begun = || std::fs::metadata(&part).is_ok_and(|found| found.len() > 0);
    while !begun() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if !Path::new(&script).exists() {
        let outcome = bed.user.run(&args).expect_code(3);
        assert!(outcome.stdout.contains("shop.broken is broken on the source"), "{}", outcome.stdout);
        assert!(!Path::new(&part).exists() && !bed.path("it.sql.d").exists());
    }
    let text = String::from_utf8(std::fs::read(&script).unwrap()).unwrap();
    assert!(text.lines().last().unwrap().starts_with("-- Dump completed on "));
    assert_eq!(text.matches("INSERT INTO `t` VALUES").count(), 60 / 3);
}
