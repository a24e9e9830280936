//! `restore --table`: some tables of a server, equal to what a restore of the whole server has of them; what can't be
//! told apart is refused and leaves nothing.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_mysql::Conn;
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, ServerState};

const STOPS_WITHIN: Duration = Duration::from_secs(120);

/// What a server on the folder holds, and its GTIDs.
fn state_of(engine: Engine, folder: &Path) -> (ServerState, String) {
    let server = PrivateServer::start(StartOptions::new(engine.programs(), folder)).unwrap();
    let mut conn = server.connect().unwrap();
    let variable = if engine == Engine::MySql { "gtid_executed" } else { "gtid_slave_pos" };
    let gtids = conn.query_text(format!("SELECT @@GLOBAL.{variable}")).unwrap().unwrap_or_default();
    let state = ServerState::read(&mut conn).unwrap();
    server.stop(STOPS_WITHIN).unwrap();
    (state, gtids)
}

/// A server with tables of every kind, and a backup that was taken while transactions were open on some that are not
/// going to be restored.
fn source(engine: Engine) -> Bed {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE DATABASE other",
        "CREATE TABLE shop.customers (id INT PRIMARY KEY, name VARCHAR(20))",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, customer INT, FOREIGN KEY (customer) REFERENCES shop.customers (id) \
         ON DELETE CASCADE ON UPDATE CASCADE)",
        "CREATE TABLE shop.items (id INT AUTO_INCREMENT PRIMARY KEY, ord INT, what VARCHAR(40), FOREIGN KEY (ord) \
         REFERENCES shop.orders (id) ON DELETE CASCADE)",
        "CREATE TABLE shop.refunds (id INT PRIMARY KEY, item INT, FOREIGN KEY (item) REFERENCES shop.items (id) ON DELETE CASCADE)",
        "CREATE TABLE shop.parts (id INT PRIMARY KEY, v VARCHAR(30)) PARTITION BY HASH (id) PARTITIONS 3",
        "CREATE TABLE shop.words (id INT AUTO_INCREMENT PRIMARY KEY, t TEXT, n INT, twice INT AS (n * 2) STORED, \
         thrice INT AS (n * 3) VIRTUAL, FULLTEXT (t))",
        "CREATE TABLE shop.season (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE shop.noise (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(100))",
        "CREATE TABLE shop.noise2 (id INT PRIMARY KEY)",
        "CREATE TABLE shop.pages (id INT PRIMARY KEY, t TEXT, FULLTEXT (t))",
        "CREATE TABLE other.noise (id INT PRIMARY KEY, v VARCHAR(100)) PARTITION BY HASH (id) PARTITIONS 2",
        "CREATE TABLE other.`odd-name` (id INT PRIMARY KEY)",
        "INSERT INTO shop.customers VALUES (1, 'a'), (2, 'b'), (3, 'c')",
        "INSERT INTO shop.orders VALUES (10, 1), (20, 2), (30, 3)",
        "INSERT INTO shop.items (ord, what) VALUES (10, 'x'), (20, 'y'), (30, 'z')",
        "INSERT INTO shop.refunds VALUES (1, 1)",
        "INSERT INTO shop.parts VALUES (1, 'one'), (2, 'two'), (3, 'three')",
        "INSERT INTO shop.words (t, n) VALUES ('hello there', 1), ('good morning', 2)",
        "INSERT INTO shop.season VALUES (1, 1)",
        "INSERT INTO shop.noise (v) VALUES (REPEAT('n', 90))",
        "INSERT INTO other.noise VALUES (1, 'a'), (2, 'b')",
        "CREATE VIEW shop.seen AS SELECT id FROM shop.items",
        "CREATE EVENT shop.tick ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.noise",
        "CREATE TRIGGER shop.before_items BEFORE INSERT ON shop.items FOR EACH ROW SET NEW.what = CONCAT(NEW.what, '!')",
        "CREATE TRIGGER shop.before_noise BEFORE INSERT ON shop.noise FOR EACH ROW SET NEW.v = CONCAT(NEW.v, '?')",
    ]);
    for _ in 0..10 {
        bed.server.run(&["INSERT INTO shop.noise (v) SELECT v FROM shop.noise"]);
    }
    // Open while the copy is taken: its recovery rolls them back, of tables whose files are not there too.
    let open = |statements: &[&str]| -> Conn {
        let mut conn = bed.server.root();
        conn.execute("BEGIN").unwrap();
        for statement in statements {
            conn.execute(*statement).unwrap();
        }
        conn
    };
    let mut held = [
        open(&["UPDATE shop.noise SET v = 'never'", "UPDATE shop.words SET n = 77"]),
        open(&["DELETE FROM other.noise"]),
    ];
    bed.backup();
    for conn in &mut held {
        conn.execute("ROLLBACK").unwrap();
    }
    bed
}

/// Changes of all kinds behind the backup, to tables that are restored and to others, also in one statement.
fn change(bed: &Bed) {
    let mut conn = bed.server.root();
    let mut run =
        |statement: &str| conn.execute(statement).map(drop).unwrap_or_else(|e| panic!("{statement}: {e}"));
    run("USE other");
    run(
        "UPDATE shop.season, shop.noise SET shop.season.n = 5, shop.noise.v = 'both' WHERE shop.noise.id = 1",
    );
    run(
        "UPDATE shop.noise, shop.season SET shop.season.n = shop.season.n + 1, shop.noise.v = 'too' WHERE shop.noise.id = 2",
    );
    run("BEGIN");
    run("INSERT INTO shop.items (ord, what) VALUES (20, 'later')");
    run("INSERT INTO shop.noise (v) VALUES ('between')");
    run("INSERT INTO shop.refunds VALUES (2, 2)");
    run("UPDATE shop.words SET n = n + 10");
    run("SAVEPOINT a");
    run("INSERT INTO other.noise VALUES (3, 'c')");
    run("ROLLBACK TO a");
    run("COMMIT");
    run("DELETE FROM shop.customers WHERE id = 1");
    run("ALTER TABLE shop.items ADD COLUMN added INT DEFAULT 7");
    run("CREATE TABLE other.made (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES shop.items (id))");
    run("CREATE USER clerk@localhost IDENTIFIED BY 'Clerk-of-1-shop'");
    run("GRANT SELECT ON other.made TO clerk@localhost");
    run("CREATE PROCEDURE shop.nothing() BEGIN END");
    run("DROP VIEW shop.seen");
    run("DROP TABLE shop.noise2, shop.season");
    run("CREATE TABLE shop.season (id INT AUTO_INCREMENT PRIMARY KEY, late INT)");
    run("INSERT INTO shop.season (late) VALUES (1), (2), (3)");
    run("DELETE FROM shop.season WHERE id = 3");
    run("ALTER TABLE shop.parts COALESCE PARTITION 1");
    run("INSERT INTO shop.parts VALUES (4, 'four'), (5, 'five')");
    run("INSERT INTO shop.words (t, n) VALUES ('good evening there', 9)");
    run("DROP TRIGGER shop.before_noise");
    run("CREATE TRIGGER shop.after_season AFTER INSERT ON shop.season FOR EACH ROW SET @seen = NEW.id");
    run("DROP DATABASE other");
    run("CREATE DATABASE other");
    run("CREATE TABLE other.again (id INT PRIMARY KEY)");
    if bed.server.engine() == Engine::MySql {
        run("SET SESSION binlog_transaction_compression = ON");
        run("BEGIN");
        run("INSERT INTO shop.noise (v) VALUES ('packed')");
        run("INSERT INTO shop.season (late) VALUES (44)");
        run("COMMIT");
        run("INSERT INTO shop.noise (v) VALUES ('packed too')");
        run("INSERT INTO shop.season (late) VALUES (45)");
        run("SET SESSION binlog_transaction_compression = OFF");
    }
    run("INSERT INTO shop.noise (v) SELECT v FROM shop.noise LIMIT 500");
}

fn words(command: &[String]) -> Vec<&str> {
    command.iter().map(String::as_str).collect()
}

/// What is asked for, and how it is called at the end.
const WANTED: [(&str, &str); 4] = [
    ("shop.items", "shop.items"),
    ("shop.parts", "then.parts"),
    ("shop.words", "shop.words"),
    ("shop.season", "shop.season_then"),
];
/// What the foreign keys of `shop.items` need.
const PARENTS: [&str; 2] = ["shop.orders", "shop.customers"];

fn a_table_restore_has_what_the_whole_restore_has_of_those_tables(engine: Engine) {
    let bed = source(engine);
    change(&bed);
    let programs = engine.dir();
    let command = |into: &str, more: &[&str]| -> Vec<String> {
        let common =
            ["restore", "shop", "--engine-dir", programs.to_str().unwrap(), "--to", "latest", "--into", into];
        [&common, more].concat().iter().map(|word| (*word).to_owned()).collect()
    };
    let whole = bed.text("whole");
    let full = bed.user.run(&words(&command(&whole, &["--prove", "quick", "--json"]))).accepted().json();
    let named: Vec<String> = WANTED
        .iter()
        .map(
            |(name, at_the_end)| {
                if name == at_the_end { (*name).to_owned() } else { format!("{name}:{at_the_end}") }
            },
        )
        .collect();
    let tables: Vec<&str> = named.iter().flat_map(|table| ["--table", table]).collect();

    let plan =
        bed.user.run(&words(&command(&bed.text("some"), &[&tables[..], &["--dry-run", "--json"]].concat())));
    let plan = plan.ok().json();
    let part = &plan["part"];
    assert!(plan["files"].as_u64().unwrap() < part["of_files"].as_u64().unwrap(), "{plan}");
    assert!(plan["bytes"].as_u64().unwrap() < part["of_bytes"].as_u64().unwrap(), "{plan}");
    assert!(
        part["transactions"].as_u64().unwrap() < plan["log"]["size"]["transactions"].as_u64().unwrap(),
        "{plan}"
    );
    assert!(plan["replay"]["rows"].as_u64().unwrap() < plan["replay"]["of_rows"].as_u64().unwrap(), "{plan}");

    // Killed once it replays, or a little later, and given again.
    let some = bed.text("some");
    let restore = command(&some, &[&tables[..], &["--json"]].concat());
    let mut child = bed.user.spawn(&words(&restore), &bed.path("killed.log"));
    while !bed.path("some/holdfast-restore-progress.json").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let marker = std::fs::read_to_string(bed.path("some/holdfast-restore.json")).unwrap();
    if marker.contains("fenced") {
        // It was done before we looked.
        std::fs::remove_dir_all(bed.path("some")).unwrap();
    } else {
        let other = bed.user.run(&words(&command(&some, &["--table", "shop.noise"])));
        refused(other, 2, &["holds an unfinished restore of table shop.items"]);
    }
    let done = bed.user.run(&words(&restore)).accepted().json();
    assert_eq!(done["proved"], true);
    let replayed = |view: &serde_json::Value| view["report"]["transactions_replayed"].as_u64().unwrap();
    assert!(replayed(&done) < replayed(&full), "{} of {}", replayed(&done), replayed(&full));

    let (expected, expected_gtids) = state_of(engine, &bed.path("whole"));
    let (found, found_gtids) = state_of(engine, &bed.path("some"));
    let names: BTreeSet<&str> = found.tables.keys().map(String::as_str).collect();
    let wanted: BTreeSet<&str> = WANTED.iter().map(|(_, name)| *name).chain(PARENTS).collect();
    assert_eq!(names, wanted, "these and no others");
    for (name, at_the_end) in WANTED.into_iter().chain(PARENTS.map(|name| (name, name))) {
        let (mut expected, found) = (expected.tables[name].clone(), &found.tables[at_the_end]);
        let quoted = |name: &str| format!("CREATE TABLE `{}`", name.split_once('.').unwrap().1);
        expected.definition = expected.definition.replace(&quoted(name), &quoted(at_the_end));
        assert_eq!(*found, expected, "{name}");
    }
    let objects: Vec<&str> = found.objects.keys().map(String::as_str).collect();
    assert_eq!(
        objects,
        [
            "DATABASE `shop`",
            "DATABASE `then`",
            "TRIGGER `shop`.`after_season`",
            "TRIGGER `shop`.`before_items`"
        ]
    );
    assert_eq!(found_gtids, expected_gtids, "both stand at the same point");

    // Rolled forward under the log's own names.
    bed.server.run(&["INSERT INTO shop.season (late) VALUES (99)"]);
    bed.user.run(&words(&command(&some, &[&tables[..], &["--continue"]].concat()))).accepted();
    let (later, _) = state_of(engine, &bed.path("some"));
    assert_eq!(later.tables.keys().collect::<Vec<_>>(), found.tables.keys().collect::<Vec<_>>());
    assert_eq!(later.tables["then.parts"], found.tables["then.parts"]);
    let rows = |state: &ServerState| state.tables["shop.season_then"].rows.len();
    assert_eq!(rows(&later), rows(&found) + 1);

    // What can't be done leaves nothing.
    let none = |tables: &[&str], more: &[&str]| {
        let outcome = bed.user.run(&words(&command(&bed.text("none"), tables)));
        assert!(!bed.path("none").exists(), "{}", outcome.stderr);
        refused(outcome, 2, more);
    };
    none(&["--table", "shop.noise2"], &["shop.noise2 does not exist", "dropped", "DROP TABLE"]);
    none(&["--table", "shop.season:then.season"], &["shop.season has triggers"]);
    bed.server.run(&["RENAME TABLE shop.pages TO shop.leaves"]);
    none(&["--table", "shop.pages"], &["RENAME TABLE", "Add --table shop.leaves"]);
    none(&["--table", "shop.leaves"], &["Add --table shop.pages"]);
    bed.server.run(&[
        "CREATE TABLE shop.copied LIKE shop.parts",
        "CREATE TABLE shop.kept AS SELECT id FROM shop.parts",
    ]);
    none(&["--table", "shop.copied"], &["needs shop.parts", "Add --table shop.parts"]);
}

fn what_can_not_be_told_is_refused_by_name_and_proves_nothing_of_the_backup(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.wanted (id INT PRIMARY KEY, n INT)",
        "CREATE TABLE shop.parent (id INT PRIMARY KEY)",
        "CREATE TABLE shop.child (id INT PRIMARY KEY, FOREIGN KEY (id) REFERENCES shop.parent (id))",
        "CREATE VIEW shop.front AS SELECT id, n FROM shop.wanted",
        "INSERT INTO shop.wanted VALUES (1, 1)",
    ]);
    if engine == Engine::MariaDb {
        bed.server.run(&[
            "CREATE SEQUENCE shop.counter",
            "CREATE TABLE shop.numbered (id INT DEFAULT NEXTVAL(shop.counter), v INT)",
            "INSERT INTO shop.numbered (v) VALUES (7)",
        ]);
    }
    bed.backup();
    let programs = engine.dir();
    let restore = |into: &str, more: &[&str]| {
        let into = bed.text(into);
        let common = [
            "restore",
            "shop",
            "--engine-dir",
            programs.to_str().unwrap(),
            "--to",
            "latest",
            "--into",
            &into,
        ];
        bed.user.run(&[&common, more].concat())
    };
    let none = |tables: &[&str], more: &[&str]| {
        let outcome = restore("none", tables);
        assert!(!bed.path("none").exists(), "{}", outcome.stderr);
        refused(outcome, 2, more);
    };
    none(&["--database", "shpo"], &["database shpo does not exist"]);
    none(&["--table", "shop.wanted:mysql.wanted"], &["mysql is the server's own"]);
    let mut tables = vec!["--table", "shop.wanted"];
    if engine == Engine::MariaDb {
        none(&["--table", "shop.child:shop.parent"], &["would both be called shop.parent"]);
        none(
            &["--database", "shop", "--table", "shop.wanted:child"],
            &["shop.wanted can't be called shop.child", "already"],
        );
        none(&["--table", "shop.numbered"], &["Add --table shop.counter"]);
        tables.extend(["--table", "shop.numbered", "--table", "shop.counter"]);
    }
    restore("some", &tables).accepted();
    let list = bed.user.run(&["list", "--json"]).accepted().json();
    assert!(!list.to_string().contains("\"proved\""), "a part proves no backup: {list}");

    // Whoever has neither the view nor its rows can't know that this changes them.
    let mut conn = bed.server.root();
    conn.execute("SET SESSION binlog_format = 'STATEMENT'").unwrap();
    conn.execute("UPDATE shop.front SET n = n + 1").unwrap();
    if engine == Engine::MariaDb {
        none(&tables, &["UPDATE shop.front", "can't be told", "Restore the whole server"]);
    }
    refused(
        restore("some", &[&tables[..], &["--continue"]].concat()),
        2,
        &["UPDATE shop.front", "can't be told"],
    );
}

#[test]
fn what_can_not_be_told_of_mysql_is_refused_by_name_and_proves_nothing_of_the_backup() {
    what_can_not_be_told_is_refused_by_name_and_proves_nothing_of_the_backup(Engine::MySql);
}

#[test]
fn what_can_not_be_told_of_mariadb_is_refused_by_name_and_proves_nothing_of_the_backup() {
    what_can_not_be_told_is_refused_by_name_and_proves_nothing_of_the_backup(Engine::MariaDb);
}

#[test]
fn a_table_restore_of_mysql_has_what_the_whole_restore_has_of_those_tables() {
    a_table_restore_has_what_the_whole_restore_has_of_those_tables(Engine::MySql);
}

#[test]
fn a_table_restore_of_mariadb_has_what_the_whole_restore_has_of_those_tables() {
    a_table_restore_has_what_the_whole_restore_has_of_those_tables(Engine::MariaDb);
}
