//! `holdfast undo` and `diff` on real servers: a table with columns of all types is again what it was, byte for byte;
//! rows that changed since stop it, and what can't be undone is refused by name. The diff tells the same story.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome};

/// Columns of all types that both families have, and those of one.
fn every_type(engine: Engine) -> String {
    let own = match engine {
        Engine::MySql => "g POINT SRID 4326, vec VECTOR(2)",
        Engine::MariaDb => "g POINT",
    };
    format!(
        "CREATE TABLE shop.kinds (id INT UNSIGNED, k VARCHAR(20) CHARACTER SET latin1, t TINYINT, s SMALLINT UNSIGNED, \
         m MEDIUMINT, b BIGINT UNSIGNED, f FLOAT, d DOUBLE, n DECIMAL(65,30), bits BIT(12), y YEAR, day DATE, ti TIME(3), \
         dt DATETIME(6), ts TIMESTAMP(2) NULL, c CHAR(10), bn BINARY(6), v VARCHAR(300) CHARACTER SET utf8mb4, \
         u16 VARCHAR(20) CHARACTER SET utf16, vb VARBINARY(20), tx TEXT, bl BLOB, e ENUM('x', 'y''s'), \
         st SET('a', 'b', 'c'), j JSON, gv INT AS (t + 1) VIRTUAL, gs INT AS (m * 2) STORED, hid INT INVISIBLE DEFAULT 5, \
         up TIMESTAMP DEFAULT CURRENT_TIMESTAMP ON UPDATE CURRENT_TIMESTAMP, {own}, PRIMARY KEY (k, id))"
    )
}

fn rows(engine: Engine) -> Vec<String> {
    let own = |x: u32| match engine {
        Engine::MySql => {
            format!("ST_SRID(POINT({x}.5, -7), 4326), STRING_TO_VECTOR('[{x}, 0.1]')")
        }
        Engine::MariaDb => format!("POINT({x}.5, -7)"),
    };
    let json = match engine {
        Engine::MySql => {
            "JSON_OBJECT('d', CAST(1.50 AS DECIMAL(5,2)), 'u', CAST(7 AS UNSIGNED), 'w', JSON_ARRAY(CAST('2026-11-22 \
             01:02:03.5' AS DATETIME(6)), 5000000000, TRUE, NULL, 0.1, 9088544342.689999e0, 'o''n\\\\'), 't', CAST('-12:00:01' AS TIME(6)))"
        }
        Engine::MariaDb => "'{\"d\": 1.50, \"o\": \"o''n\"}'",
    };
    let names = "(id, k, t, s, m, b, f, d, n, bits, y, day, ti, dt, ts, c, bn, v, u16, vb, tx, bl, e, st, j, hid, up, g";
    let names = format!("{names}{})", if engine == Engine::MySql { ", vec" } else { "" });
    let row = |id: u32, values: &str| {
        format!("INSERT INTO shop.kinds {names} VALUES ({id}, {values}, '2020-01-0{id}', {})", own(id))
    };
    vec![
        row(
            1,
            &format!(
                "'\u{fc}''k', -1, 65535, -8388608, 18446744073709551615, 0.1, -1e-300, -12345678901234567890.5, b'101010111100', \
                 2026, '2026-02-03', '-12:34:56.789', '2026-11-22 01:02:03.000004', '2026-11-22 01:02:03.5', 'a b ', \
                 x'01020000', 'it''s \u{1f980} \\\\ ', '\u{fc}a', x'00ff27', 'two\\nlines', x'5c27', 'y''s', 'a,c', {json}, 9"
            ),
        ),
        row(
            2,
            "'', 0, 0, 0, 0, 0, 0, 0, 0, '0000', '0000-00-00', 0, '0000-00-00 00:00:00', 0, '', '', '', '', '', '', '', 1, '', '[]', 0",
        ),
        row(
            3,
            "'NULLs', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, \
             NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL",
        ),
        row(
            4,
            "'four', 4, 4, 4, 4, 4.4, 4.4, 4.4, 4, 1999, '1999-04-04', '4:00', '1999-04-04', NULL, '4', '4', '4', '4', '4', '4', '4', 1, 4, '4', 4",
        ),
    ]
}

/// The rows' bytes, and the types in the JSON values, which a checksum does not see.
fn state(bed: &Bed) -> (String, String) {
    let mut conn = bed.server.root();
    let checksum = conn.query("CHECKSUM TABLE shop.kinds").unwrap().text(0, 1).unwrap();
    let types = "SELECT GROUP_CONCAT(COALESCE(JSON_TYPE(JSON_EXTRACT(j, p)), '-') ORDER BY id, p) FROM shop.kinds, \
                 (SELECT '$.d' p UNION SELECT '$.u' UNION SELECT '$.w[0]' UNION SELECT '$.w[1]' UNION SELECT '$.t') ps";
    (checksum, conn.query_text(types).unwrap().unwrap())
}

/// The ids of the last transactions, oldest first.
fn last(bed: &Bed, count: usize) -> Vec<String> {
    bed.plan("latest").ok();
    let found = bed.user.done(&["find", "shop", "--json"]);
    let found = found["found"].as_array().unwrap();
    found[found.len() - count..].iter().map(|each| each["id"].as_str().unwrap().to_owned()).collect()
}

fn undo(bed: &Bed, ids: &[String], more: &[&str]) -> Outcome {
    let socket = bed.server.socket().to_str().unwrap().to_owned();
    let mut args = vec!["undo", "shop", "--socket", &socket, "--user", "root", "--txn"];
    args.extend(ids.iter().map(String::as_str));
    args.extend(more);
    bed.user.run(&args)
}

/// The counts of a diff, and its rows as they are printed.
fn diff(bed: &Bed, table: &str, from: &str, to: &str) -> ([u64; 3], String) {
    let socket = bed.server.socket().to_str().unwrap().to_owned();
    let args =
        ["diff", "shop", "--table", table, "--from", from, "--to", to, "--socket", &socket, "--user", "root"];
    let view = bed.user.done(&[args.as_slice(), &["--json"]].concat());
    let counts = ["inserted", "updated", "deleted"].map(|kind| view[kind].as_u64().unwrap());
    (counts, bed.user.run(&args).ok().stdout)
}

fn what_transactions_did_is_undone(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    let kinds = every_type(engine);
    bed.server.run(&["CREATE DATABASE shop", &kinds]);
    bed.backup();
    let rows = rows(engine);
    let mut statements = vec!["SET NAMES utf8mb4, sql_mode = '', time_zone = '+02:00'"];
    statements.extend(rows.iter().map(String::as_str));
    bed.server.run(&statements);
    let before = state(&bed);
    bed.server.run(&[
        "UPDATE shop.kinds SET t = 3, s = 4, m = 5, b = 6, f = 7, d = 8, n = 9, bits = 10, y = 1970, day = '2001-01-01', \
         ti = '1:00', dt = '2001-01-01', ts = '2001-01-01', c = 'x', bn = 'x', v = 'x', u16 = 'x', vb = 'x', tx = 'x', \
         bl = 'x', e = 'x', st = 'b', j = '{\"n\": null}', hid = 1, up = '2001-01-01' WHERE id < 4",
        "DELETE FROM shop.kinds WHERE id IN (1, 2)",
        "BEGIN",
        "UPDATE shop.kinds SET id = 30, v = 'moved' WHERE id = 3",
        "UPDATE shop.kinds SET v = 'again' WHERE id = 30",
        "INSERT INTO shop.kinds (id, k, v) VALUES (3, 'NULLs', 'in the place of the one that moved'), (9, 'new', NULL)",
        "COMMIT",
        "UPDATE shop.kinds SET t = 44, up = up WHERE id = 4",
    ]);
    let changed = state(&bed);
    let all = last(&bed, 5);
    let (start, ids) = (all[0].as_str(), &all[1..]);
    let (counts, told) = diff(&bed, "shop.kinds", start, &ids[3]);
    assert_eq!(counts, [2, 2, 2], "{told}");
    assert!(told.contains("~ shop.kinds  id=4  k=\"four\"  t=4 -> 44  gv=5 -> 45\n"), "{told}");
    if engine == Engine::MySql {
        let json = r#"j={"d": 1.50, "t": "-12:00:01.000000", "u": 7, "w": ["2026-11-22 01:02:03.500000", 5000000000, "#;
        assert!(told.contains(json), "{told}");
    }
    assert!(told.contains("- shop.kinds  id=2  k=\"\"  t=0  "), "{told}");
    assert!(told.contains("+ shop.kinds  id=30  k=\"NULLs\"  "), "{told}");
    assert!(told.ends_with("shop.kinds  +2 ~2 -2\n"), "{told}");

    // A row that changed since stops everything, is named, and may be left alone.
    bed.server.run(&["UPDATE shop.kinds SET hid = 6, up = up WHERE id = 4"]);
    let stopped = undo(&bed, ids, &["--apply", "--json"]).expect_code(1).json();
    let conflicts = stopped["conflicts"].as_array().unwrap();
    assert_eq!((conflicts.len(), stopped["applied"].as_bool()), (1, Some(false)), "{stopped}");
    assert!(conflicts[0]["row"].as_str().unwrap().contains("id=4"), "{stopped}");
    assert!(conflicts[0]["why"].as_str().unwrap().contains("hid is not 4 any more"), "{stopped}");
    bed.server.run(&["UPDATE shop.kinds SET hid = 4, up = up WHERE id = 4"]);
    assert_eq!(state(&bed), changed);
    undo(&bed, ids, &["--apply", "--dry-run"]).ok();
    assert_eq!(state(&bed), changed, "a dry run changes nothing");

    let applied = undo(&bed, ids, &["--apply", "--json"]).ok().json();
    assert_eq!(state(&bed), before, "{applied}");
    let again = undo(&bed, ids, &["--apply", "--json"]).ok().json();
    assert_eq!((again["already_undone"].as_bool(), again["applied"].as_bool()), (Some(true), Some(false)));
    assert_eq!(state(&bed), before);

    // The undo is a transaction like others: its own inverse, as it is printed, brings everything back.
    let undone = last(&bed, 1);
    let (counts, told) = diff(&bed, "shop.kinds", start, "latest");
    assert_eq!(counts, [0; 3], "what changed back is no difference: {told}");
    let printed = undo(&bed, &undone, &["--json"]).ok().json();
    let statements: Vec<&str> =
        printed["statements"].as_array().unwrap().iter().map(|each| each.as_str().unwrap()).collect();
    bed.server.run(&statements);
    assert_eq!(state(&bed), changed, "{printed:#}");
    // What does not depend on the family is looked at on one of them.
    match engine {
        Engine::MariaDb => rows_in_conflict_are_left_alone(&bed),
        Engine::MySql => {
            what_can_not_be_undone_is_refused(&bed);
            a_diff_of_a_log_with_names_asks_nobody(&bed);
        }
    }
}

fn rows_in_conflict_are_left_alone(bed: &Bed) {
    bed.server.run(&[
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE shop.loose (v INT, w VARCHAR(9))",
        "INSERT INTO shop.t VALUES (1, 1), (2, 2), (3, 3)",
        "INSERT INTO shop.loose VALUES (1, 'a'), (1, 'a'), (NULL, 'B')",
        "BEGIN",
        "UPDATE shop.t SET v = v * 10",
        "DELETE FROM shop.t WHERE id = 3",
        "DELETE FROM shop.loose WHERE v = 1 LIMIT 1",
        "UPDATE shop.loose SET w = 'b' WHERE v IS NULL",
        "COMMIT",
    ]);
    let ids = last(bed, 1);
    bed.server.run(&["UPDATE shop.t SET v = 11 WHERE id = 1"]);
    let told = undo(bed, &ids, &["--apply", "--skip-conflicts"]).expect_code(3).stdout;
    assert!(told.contains("conflict: shop.t id=1: v is not 10 any more"), "{told}");
    let all = |table: &str, columns: &str| {
        let list = format!("SELECT GROUP_CONCAT({columns} ORDER BY 1 SEPARATOR ';') FROM shop.{table}");
        bed.server.value(&list).unwrap()
    };
    assert_eq!(all("t", "CONCAT(id, '=', v)"), "1=11;2=2;3=3");
    let mut loose: Vec<String> =
        all("loose", "CONCAT(COALESCE(v, '-'), w)").split(';').map(str::to_owned).collect();
    loose.sort();
    assert_eq!(loose, ["-B", "1a", "1a"]);
    // Keys that differ in case alone are one for the server, and none is taken for the other.
    bed.server.run(&[
        "CREATE TABLE shop.word (k VARCHAR(9) PRIMARY KEY)",
        "INSERT INTO shop.word VALUES ('a')",
        "UPDATE shop.word SET k = 'A'",
    ]);
    let case = last(bed, 1);
    for more in [&["--apply"][..], &["--apply", "--skip-conflicts"]] {
        refused(undo(bed, &case, more), 1, &["Keys of shop.word", "differ in case"]);
    }
    // What is prepared may yet be rolled back.
    bed.server.run(&[
        "XA START 'half'",
        "INSERT INTO shop.word VALUES ('b')",
        "XA END 'half'",
        "XA PREPARE 'half'",
        "XA ROLLBACK 'half'",
    ]);
    // What is there is archived.
    last(bed, 1);
    let args = ["diff", "shop", "--table", "shop.word", "--from", &case[0]];
    refused(bed.user.run(&args), 1, &["Rows of shop.word", "XA transaction"]);
    // One table of several.
    let only = undo(bed, &ids, &["--table", "shop.loose"]).ok().stdout;
    assert!(only.contains("INSERT INTO `shop`.`loose`") && !only.contains("`shop`.`t`"), "{only}");
}

fn what_can_not_be_undone_is_refused(bed: &Bed) {
    bed.server.run(&[
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v INT)",
        "CREATE TABLE shop.loose (v INT)",
        "INSERT INTO shop.t VALUES (2, 2)",
        "CREATE TABLE shop.parent (id INT PRIMARY KEY)",
        "CREATE TABLE shop.child (p INT, FOREIGN KEY (p) REFERENCES shop.parent (id) ON DELETE CASCADE)",
        "CREATE TRIGGER shop.counted BEFORE UPDATE ON shop.t FOR EACH ROW SET NEW.v = NEW.v + 1000",
        "INSERT INTO shop.parent VALUES (1)",
        "UPDATE shop.t SET v = 5 WHERE id = 2",
        "SET binlog_row_image = MINIMAL",
        "UPDATE shop.kinds SET t = 1 WHERE id = 4",
    ]);
    let ids = last(bed, 3);
    let one = |at: usize| &ids[at..=at];
    refused(undo(bed, one(0), &["--apply"]), 1, &["shop.child", "foreign key"]);
    let printed = undo(bed, one(0), &[]).ok().stdout;
    assert!(printed.contains("-- warning: The foreign key of shop.child"), "{printed}");
    refused(undo(bed, one(1), &["--apply"]), 1, &["shop.t has triggers (counted)", "--force"]);
    // What the trigger makes of it is seen, and nothing is committed.
    refused(undo(bed, one(1), &["--apply", "--force"]), 1, &["made something else of shop.t id=2"]);
    assert_eq!(bed.server.value("SELECT v FROM shop.t WHERE id = 2").unwrap(), "1005");
    refused(undo(bed, one(2), &[]), 1, &["column t of shop.kinds", "binlog_row_image"]);
    // The columns have other places, and the same types and number.
    bed.server.run(&["CREATE INDEX v ON shop.t (v)", "ALTER TABLE shop.t MODIFY v INT FIRST"]);
    let moved = &last(bed, 1);
    refused(undo(bed, moved, &[]), 1, &["ALTER TABLE shop.t", "holdfast restore shop --before"]);
    refused(undo(bed, one(1), &[]), 1, &["shop.t may have another definition since", "MODIFY v INT FIRST"]);
    refused(undo(bed, &["gtid:nothing".to_owned()], &[]), 20, &["find"]);
}

fn a_diff_of_a_log_with_names_asks_nobody(bed: &Bed) {
    bed.server.run(&[
        "SET GLOBAL binlog_row_metadata = FULL",
        "INSERT INTO shop.parent VALUES (2), (3)",
        "UPDATE shop.parent SET id = 20 WHERE id = 2",
        "DELETE FROM shop.parent WHERE id = 20",
        "TRUNCATE TABLE shop.loose",
    ]);
    let ids = last(bed, 5);
    let diff = |table: &str, from: &str| {
        let args =
            ["diff", "shop", "--table", table, "--from", from, "--socket", "/nowhere", "--user", "nobody"];
        bed.user.run(&args)
    };
    assert_eq!(diff("shop.parent", &ids[0]).ok().stdout, "+ shop.parent  id=3\nshop.parent  +1 ~0 -0\n");
    let stopped = diff("shop.loose", &ids[0]);
    refused(stopped, 1, &["was changed by a statement: TRUNCATE TABLE shop.loose", "--ddl"]);
    refused(diff("shop.parent", "2001-01-01T00:00:00Z"), 20, &["is not in the archive", "timeline"]);
}

#[test]
fn what_transactions_did_is_undone_on_mysql() {
    what_transactions_did_is_undone(Engine::MySql);
}

#[test]
fn what_transactions_did_is_undone_on_mariadb() {
    what_transactions_did_is_undone(Engine::MariaDb);
}
