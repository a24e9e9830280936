//! `restore --into-server`: tables as of a moment beside those of the running server, equal to what they were; the script
//! that puts rows back; and whatever a command that was cut off left is right after the same command.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::process::Stdio;
use std::time::{Duration, Instant};

use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, ServerState};

/// Columns whose values a copy through SQL could bend.
fn kinds(engine: Engine) -> [String; 2] {
    let (own, values) = match engine {
        Engine::MySql => (
            "g POINT NOT NULL SRID 4326, vec VECTOR(2), hid INT INVISIBLE DEFAULT 5",
            "ST_SRID(POINT(3.5, -7), 4326), STRING_TO_VECTOR('[3, 0.1]')",
        ),
        Engine::MariaDb => {
            ("g POINT NOT NULL, vec UUID, hid INT INVISIBLE DEFAULT 5", "POINT(3.5, -7), UUID()")
        }
    };
    [
        format!(
            "CREATE TABLE shop.kinds (k VARCHAR(20) CHARACTER SET latin1, id INT UNSIGNED, f FLOAT, d DOUBLE, bits BIT(12), \
             dt DATETIME(6), ts TIMESTAMP(2) NULL, bn BINARY(6), u16 VARCHAR(20) CHARACTER SET utf16 COLLATE utf16_bin, \
             bl BLOB, e ENUM('x', '', 'y''s'), j JSON, gv BIGINT AS (id + 1) VIRTUAL, gs BIGINT AS (id * 2) STORED, {own}, \
             PRIMARY KEY (k, id), FULLTEXT (k), SPATIAL INDEX (g)) DEFAULT CHARSET utf8mb4 COMMENT 'a ''comment'''"
        ),
        format!(
            "INSERT INTO shop.kinds (k, id, f, d, bits, dt, ts, bn, u16, bl, e, j, g, vec) VALUES ('\u{fc}''k', 4000000000, 0.1, \
             -1e-300, b'101010111100', '2026-02-31 01:02:03.000004', '2026-11-22 01:02:03.5', x'01020000', '\u{1f980}', \
             x'5c2700ff', '', '{{\"a\": [1.5, 9088544342.689999, \"\\\\u00fc\"]}}', {values}), ('', 0, -0e0, 0, 0, '0000-00-00', \
             NULL, '', '', '', 0, NULL, {values})"
        ),
    ]
}

/// A server with a backup, more changes behind it, and the id of the last of them.
fn source(engine: Engine) -> (Bed, String) {
    let bed = Bed::new(engine, &[]);
    let [made, filled] = kinds(engine);
    bed.server.run(&[
        "CREATE DATABASE shop CHARACTER SET latin1",
        "CREATE TABLE shop.regions (id INT PRIMARY KEY)",
        "CREATE TABLE shop.customers (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(40), mail VARCHAR(40) UNIQUE, region INT, \
         CONSTRAINT in_region FOREIGN KEY (region) REFERENCES shop.regions (id))",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, customer INT, note TEXT, CONSTRAINT of_customer FOREIGN KEY (customer) \
         REFERENCES shop.customers (id) ON DELETE CASCADE)",
        "CREATE TABLE shop.parts (id INT PRIMARY KEY, v VARCHAR(30)) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE TABLE shop.log (line VARCHAR(30))",
        "INSERT INTO shop.regions VALUES (1)",
        "INSERT INTO shop.customers (name, mail, region) VALUES ('Ann', 'a@x', 1), ('Bob', 'b@x', 1), ('Cid', 'c@x', NULL)",
        "INSERT INTO shop.orders VALUES (10, 1, 'first'), (20, 2, 'second'), (30, 3, 'third')",
        "INSERT INTO shop.log VALUES ('one'), ('one')",
        "CREATE TRIGGER shop.on_parts BEFORE INSERT ON shop.parts FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '!')",
        "INSERT INTO shop.parts VALUES (1, 'one'), (2, 'two')",
    ]);
    bed.backup();
    // JSON has dates on one of them, which come back as strings; and a date that IS NULL takes for none.
    let date = match engine {
        Engine::MySql => "CAST('2026-01-01' AS DATE)",
        Engine::MariaDb => "'2026-01-01'",
    };
    bed.server.run(&[
        "SET NAMES utf8mb4, sql_mode = 'ALLOW_INVALID_DATES'",
        "CREATE TABLE shop.days (d DATE PRIMARY KEY, j JSON)",
        &format!("INSERT INTO shop.days VALUES ('0000-00-00', JSON_OBJECT('d', {date})), ('2026-01-01', '{{}}')"),
        &made,
        &filled,
        "INSERT INTO shop.parts VALUES (3, 'three')",
        "INSERT INTO shop.orders SELECT 100 + id, 1, REPEAT('n', 100) FROM (SELECT 1 id UNION SELECT 2 UNION SELECT 3) t",
    ]);
    bed.plan("latest").ok();
    let found = bed.user.done(&["find", "shop", "--json"]);
    let last = found["found"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
    (bed, last)
}

/// What the script is for: rows that are lost, changed and new; a table that is dropped, columns that come and go.
fn damage(bed: &Bed) {
    bed.server.run(&[
        "DELETE FROM shop.orders WHERE id IN (10, 101, 102)",
        "DELETE FROM shop.customers WHERE id = 2",
        "UPDATE shop.customers SET name = 'ANN' WHERE id = 1",
        "INSERT INTO shop.customers (name, mail) VALUES ('Eve', 'b@x')",
        "ALTER TABLE shop.customers MODIFY mail VARCHAR(40) CHARACTER SET latin1 COLLATE latin1_german1_ci",
        "ALTER TABLE shop.orders ADD COLUMN added TIMESTAMP DEFAULT '2020-01-01' ON UPDATE CURRENT_TIMESTAMP",
        "UPDATE shop.orders SET note = 'other', added = '2021-01-01' WHERE id = 30",
        "DELETE FROM shop.kinds WHERE id = 0",
        "UPDATE shop.kinds SET j = '[]', u16 = 'x', bl = NULL",
        "DROP TABLE shop.parts",
        "DELETE FROM shop.log LIMIT 1",
    ]);
}

fn state(bed: &Bed) -> ServerState {
    ServerState::read(&mut bed.server.root()).unwrap()
}

/// `restore --into-server` into the bed's own server, as root.
fn command(bed: &Bed, more: &[&str]) -> Vec<String> {
    let (socket, programs) = (bed.server.socket().to_str().unwrap(), bed.server.engine().dir());
    let common = [
        "restore",
        "shop",
        "--engine-dir",
        programs.to_str().unwrap(),
        "--into-server",
        socket,
        "--user",
        "root",
    ];
    [&common, more].concat().iter().map(|word| (*word).to_owned()).collect()
}

fn run(bed: &Bed, more: &[&str]) -> holdfast_tests::Outcome {
    let command = command(bed, more);
    bed.user.run(&command.iter().map(String::as_str).collect::<Vec<_>>())
}

/// The server's own client runs the script.
fn client(bed: &Bed, file: &str) -> Result<(), String> {
    let program = match bed.server.engine() {
        Engine::MySql => "bin/mysql",
        Engine::MariaDb => "bin/mariadb",
    };
    let done = std::process::Command::new(bed.server.engine().dir().join(program))
        .args(["--no-defaults", "--user=root", "--socket", bed.server.socket().to_str().unwrap()])
        .stdin(std::fs::File::open(bed.path(file)).unwrap())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    done.status.success().then_some(()).ok_or_else(|| String::from_utf8_lossy(&done.stderr).into_owned())
}

/// Counts of a table: gone, new, changed.
fn counts(view: &serde_json::Value, table: &str) -> [Option<u64>; 3] {
    let of = view["tables"].as_array().unwrap().iter().find(|of| of["table"] == table).unwrap();
    ["only_then", "only_now", "changed"].map(|name| of[name].as_u64())
}

/// Kills the command where it compares, because a table of the server is locked. All that is left is the mark.
fn killed_at_the_comparison(bed: &Bed, command: &[String]) {
    let mut conn = bed.server.root();
    conn.execute("LOCK TABLES shop.orders WRITE").unwrap();
    let words: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut child = bed.user.spawn(&words, &bed.path("killed.log"));
    let deadline = Instant::now() + Duration::from_secs(120);
    let waits = || {
        let all = bed.server.root().query("SHOW PROCESSLIST").unwrap();
        let text = |row, name: &str| all.text_by_name(row, name).unwrap_or_default();
        (0..all.rows.len()).any(|row| {
            text(row, "State").starts_with("Waiting for table") && text(row, "Info").contains("`orders`")
        })
    };
    while !waits() {
        let ended = child.try_wait().unwrap();
        let log = || std::fs::read_to_string(bed.path("killed.log")).unwrap();
        assert!(ended.is_none() && Instant::now() < deadline, "{ended:?}\n{}", log());
        std::thread::sleep(Duration::from_millis(20));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    conn.execute("UNLOCK TABLES").unwrap();
}

fn rows_come_back_out_of_a_side_schema(engine: Engine) {
    let (bed, last) = source(engine);
    let then = state(&bed);
    damage(&bed);
    let file = bed.text("back.sql");
    let tables =
        ["orders", "customers", "kinds", "days", "parts:pieces", "log"].map(|name| format!("shop.{name}"));
    let mut wanted: Vec<&str> = tables.iter().flat_map(|table| ["--table", table]).collect();
    wanted.extend(["--after", &last, "--copy-back", &file, "--json"]);
    let command = command(&bed, &wanted);
    killed_at_the_comparison(&bed, &command);
    let names = "SELECT GROUP_CONCAT(SCHEMA_NAME) FROM information_schema.SCHEMATA WHERE SCHEMA_NAME LIKE 'shop\\_\\_at\\_%'";
    let side = bed.server.value(names).unwrap();
    let mark = format!(
        "SELECT COUNT(*) FROM information_schema.TABLES WHERE TABLE_SCHEMA = '{side}' AND TABLE_NAME = 'holdfast_unfinished'"
    );
    assert_eq!(bed.server.value(&mark).unwrap(), "1");
    assert!(!bed.path("back.sql").exists());
    // As if it had been cut off between two statements further ahead: some tables are not there, one lacks rows.
    bed.server.run(&[
        &format!("DROP TABLE {side}.orders"),
        &format!("DELETE FROM {side}.pieces WHERE id = 2"),
        &format!("DELETE FROM {side}.holdfast_unfinished WHERE name = 'orders'"),
    ]);
    // Another command does not touch it.
    let other = run(&bed, &["--to", "latest", "--table", "shop.orders", "--schema", &side]);
    refused(other, 2, &[&side, "an unfinished copy of 'shop' at"]);

    let done = bed.user.run(&command.iter().map(String::as_str).collect::<Vec<_>>()).expect_code(3).json();
    assert_eq!(
        (done["schemas"][0].as_str(), bed.server.value(names)),
        (Some(side.as_str()), Some(side.clone()))
    );
    assert_eq!(bed.server.value(&mark).unwrap(), "0");
    let now = state(&bed);
    for (of, copy) in [
        ("orders", "orders"),
        ("customers", "customers"),
        ("kinds", "kinds"),
        ("days", "days"),
        ("parts", "pieces"),
        ("log", "log"),
    ] {
        let (was, copy) = (&then.tables[&format!("shop.{of}")], &now.tables[&format!("{side}.{copy}")]);
        assert_eq!(was.rows, copy.rows, "{of}");
        // But for the name, and for keys to tables that were not copied.
        let own = |text: &str| -> String {
            let lines = text
                .lines()
                .filter(|line| !line.contains("`in_region`"))
                .map(|line| line.trim_end_matches(','));
            lines.collect::<Vec<_>>().join("\n").replace("TABLE `pieces`", "TABLE `parts`")
        };
        let sorted = |text: &str| {
            let text = own(text);
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&was.definition), sorted(&copy.definition), "{of}");
    }
    assert_eq!(counts(&done, "shop.orders"), [Some(4), Some(0), Some(1)], "one went with its customer");
    assert_eq!(counts(&done, "shop.customers"), [Some(1), Some(1), Some(1)]);
    assert_eq!(counts(&done, "shop.kinds"), [Some(1), Some(0), Some(1)]);
    assert_eq!(counts(&done, "shop.days"), [Some(0), Some(0), Some(0)]);
    assert_eq!(counts(&done, "shop.parts"), [Some(3), Some(0), Some(0)]);
    assert_eq!(counts(&done, "shop.log"), [None; 3], "it has no key");
    let told = done.to_string();
    for words in
        ["the column added is new", "the table is gone", "no primary key", "had triggers", "in_region"]
    {
        assert!(told.contains(words), "no {words:?} in {told}");
    }
    let conflicts = done["conflicts"].as_array().unwrap();
    assert_eq!(conflicts.len(), 1, "{conflicts:?}");
    assert!(
        conflicts[0]
            .as_str()
            .unwrap()
            .contains("1 rows (id 2) would come back with a value of the unique key mail")
    );

    // A row that is changed again since the preview is not overwritten, though as many rows differ.
    bed.server.run(&["UPDATE shop.customers SET name = 'Anna' WHERE id = 1"]);
    let later = state(&bed);
    let failed = client(&bed, "back.sql").unwrap_err();
    assert!(failed.contains("ERROR 1242"), "{failed}");
    assert_eq!(state(&bed).tables, later.tables);
    bed.server.run(&["UPDATE shop.customers SET name = 'ANN' WHERE id = 1"]);

    // What was told happens, and nothing else does.
    let failed = client(&bed, "back.sql").unwrap_err();
    assert!(failed.contains("Duplicate entry 'b@x'"), "{failed}");
    let untouched = state(&bed);
    for name in ["shop.orders", "shop.customers", "shop.kinds"] {
        assert_eq!(untouched.tables[name], now.tables[name], "{name}");
    }
    // What is there already is not filled; what is new since is no reason to stop.
    bed.server.run(&[
        "DELETE FROM shop.customers WHERE name = 'Eve'",
        "INSERT INTO shop.orders (id, note) VALUES (999, 'new')",
    ]);
    let failed = client(&bed, "back.sql").unwrap_err();
    assert!(failed.contains("ERROR 1050"), "{failed}");
    bed.server.run(&["DROP TABLE shop.parts", "FLUSH BINARY LOGS", "SET GLOBAL binlog_format = 'MIXED'"]);
    client(&bed, "back.sql").unwrap();
    bed.server.run(&["SET GLOBAL binlog_format = 'ROW'"]);
    // A server without the copy can apply what was logged.
    let mut root = bed.server.root();
    let logs = root.query("SHOW BINARY LOGS").unwrap();
    let log = logs.text(logs.rows.len() - 1, 0).unwrap();
    let events = root.query(format!("SHOW BINLOG EVENTS IN '{log}'")).unwrap();
    let text = |row, name: &str| events.text_by_name(row, name).unwrap_or_default();
    let statements: Vec<String> = (0..events.rows.len())
        .filter(|row| text(*row, "Event_type") == "Query")
        .map(|row| text(row, "Info"))
        .collect();
    assert!(statements.iter().any(|text| text.contains("CREATE TABLE `shop`.`parts`")), "{statements:?}");
    assert!(statements.iter().all(|text| !text.contains(&side)), "{statements:?}");
    let back = state(&bed);
    for name in ["shop.customers", "shop.kinds", "shop.parts"] {
        assert_eq!(back.tables[name].rows, then.tables[name].rows, "{name}");
    }
    assert_eq!(back.tables["shop.parts"].definition, then.tables["shop.parts"].definition);
    let notes = "SELECT GROUP_CONCAT(id, note, YEAR(added) ORDER BY id) FROM shop.orders WHERE id < 100";
    assert_eq!(bed.server.value(notes).unwrap(), "10first2020,20second2020,30third2021");

    // It is there now, so nobody writes into it.
    let again = run(&bed, &["--after", &last, "--table", "shop.orders", "--schema", &side]);
    refused(again, 2, &[&side, "it is there already", "--schema"]);
    assert_eq!(state(&bed).tables, back.tables);
}

fn what_a_cut_left_is_told_from_what_is_somebodys(engine: Engine) {
    let (bed, _) = source(engine);
    bed.server.run(&[
        // As a cut behind the first statement leaves it, and two that are not ours.
        "CREATE DATABASE mine",
        "CREATE DATABASE theirs",
        "CREATE TABLE theirs.t (id INT PRIMARY KEY)",
        "CREATE DATABASE marked",
        "CREATE TABLE marked.holdfast_unfinished (name VARCHAR(64) NOT NULL PRIMARY KEY) COMMENT = 'an unfinished copy of x [y]'",
        "DELETE FROM shop.orders WHERE id = 10",
        "INSERT INTO shop.orders VALUES (9, 1, 'new')",
        // It does not see all that is there.
        "CREATE USER copier@localhost",
        "GRANT ALL ON mine.* TO copier@localhost",
        "GRANT SELECT ON shop.orders TO copier@localhost",
        match engine {
            Engine::MySql => "GRANT SYSTEM_VARIABLES_ADMIN ON *.* TO copier@localhost",
            Engine::MariaDb => "GRANT BINLOG ADMIN ON *.* TO copier@localhost",
        },
    ]);
    let as_user = |user: &str, schema: &str, more: &[&str]| {
        let words = command(
            &bed,
            &[
                &[
                    "--to",
                    "fastest",
                    "--table",
                    "shop.orders",
                    "--table",
                    "shop.customers",
                    "--schema",
                    schema,
                ],
                more,
            ]
            .concat(),
        );
        let words: Vec<&str> = words.iter().map(|word| if word == "root" { user } else { word }).collect();
        bed.user.run(&words)
    };
    let into = |schema: &str, more: &[&str]| as_user("root", schema, more);
    let before = state(&bed);
    refused(into("theirs", &[]), 2, &["theirs", "it is there already, with 1 tables"]);
    refused(into("marked", &[]), 2, &["marked", "an unfinished copy of x [y]"]);
    refused(into("shop", &[]), 2, &["shop", "it is there already"]);
    refused(into(&"x".repeat(65), &[]), 2, &["longer than a server takes"]);
    std::fs::write(bed.path("there"), "a letter").unwrap();
    refused(into("mine", &["--copy-back", &bed.text("there")]), 2, &["there already"]);
    std::fs::write(bed.path("new.part"), "a letter").unwrap();
    refused(into("mine", &["--copy-back", &bed.text("new")]), 2, &["new.part", "not ours"]);
    let account = bed.user.run(&[
        "restore",
        "shop",
        "--engine-dir",
        engine.dir().to_str().unwrap(),
        "--to",
        "fastest",
        "--table",
        "shop.orders",
        "--schema",
        "denied",
        "--into-server",
    ]);
    refused(account, 1, &["denied", "--user"]);
    assert_eq!(state(&bed).tables, before.tables);

    let done = as_user("copier", "mine", &["--sql", "--delete-new", "--no-binlog"]).expect_code(3);
    assert!(done.stderr.contains("shop.customers was not compared: it can't be read"), "{}", done.stderr);
    assert!(done.stderr.contains("SET SESSION sql_log_bin = 0 before you drop it"), "{}", done.stderr);
    assert!(!done.stdout.contains("CREATE TABLE"), "{}", done.stdout);
    std::fs::write(bed.path("back.sql"), &done.stdout).unwrap();
    assert!(done.stderr.contains("shop.orders     mine.orders"), "{}", done.stderr);
    // What is new since the preview was not previewed, so it does not go.
    bed.server.run(&["INSERT INTO shop.orders VALUES (8, 1, 'newer')"]);
    let failed = client(&bed, "back.sql").unwrap_err();
    assert!(failed.contains("ERROR 1242"), "{failed}");
    assert_eq!(bed.server.value("SELECT COUNT(*) FROM shop.orders WHERE id IN (8, 9)").unwrap(), "2");
    bed.server.run(&["DELETE FROM shop.orders WHERE id = 8"]);
    client(&bed, "back.sql").unwrap();
    assert_eq!(
        bed.server.value("SELECT GROUP_CONCAT(id, note ORDER BY id) FROM shop.orders").unwrap(),
        "10first,20second,30third"
    );
    assert_eq!(state(&bed).tables["mine.orders"].rows, state(&bed).tables["shop.orders"].rows);
    let logged = bed.user.run(&["find", "shop", "--table", "mine.orders", "--json"]).ok().json();
    assert_eq!(logged["found"].as_array().unwrap().len(), 0, "{logged}");
}

#[test]
fn rows_come_back_out_of_a_side_schema_of_mysql() {
    rows_come_back_out_of_a_side_schema(Engine::MySql);
}

#[test]
fn rows_come_back_out_of_a_side_schema_of_mariadb() {
    rows_come_back_out_of_a_side_schema(Engine::MariaDb);
}

#[test]
fn what_a_cut_left_is_told_from_what_is_somebodys_on_mysql() {
    what_a_cut_left_is_told_from_what_is_somebodys(Engine::MySql);
}

#[test]
fn what_a_cut_left_is_told_from_what_is_somebodys_on_mariadb() {
    what_a_cut_left_is_told_from_what_is_somebodys(Engine::MariaDb);
}
