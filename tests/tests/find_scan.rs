//! `holdfast find --scan` and `--user`: what only the log itself has.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use holdfast_tests::Engine;
use holdfast_tests::bed::Bed;

fn statements(bed: &Bed, more: &[&str]) -> Vec<String> {
    let found = bed.user.done(&[&["find", "shop", "--json"], more].concat());
    let found = found["found"].as_array().unwrap();
    found.iter().map(|txn| txn["statement"].as_str().unwrap_or_default().to_owned()).collect()
}

fn original_statements_are_found_in_the_log(engine: Engine, compressed: bool) {
    let mut options = match engine {
        Engine::MySql => vec!["--binlog-rows-query-log-events=ON"],
        Engine::MariaDb => vec!["--binlog-annotate-row-events=ON"],
    };
    if compressed {
        options.push("--binlog-transaction-compression=ON");
    }
    let bed = Bed::new(engine, &options);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT AUTO_INCREMENT PRIMARY KEY, v VARCHAR(60))",
        "CREATE TABLE shop.other (id INT PRIMARY KEY)",
        "INSERT INTO shop.t (v) VALUES ('a'), ('b'), ('c')",
        "INSERT INTO shop.other VALUES (1)",
        "DELETE FROM shop.t WHERE v = 'b'",
    ]);
    let mut conn = bed.server.root();
    for statement in [
        "BEGIN",
        "UPDATE shop.t SET v = 'first' WHERE id = 1",
        "UPDATE shop.t SET v = 'second' WHERE id = 3",
        "COMMIT",
    ] {
        conn.execute(statement).unwrap();
    }
    bed.server.run(&[
        "CREATE USER alice@localhost IDENTIFIED BY 'only-for-Tests-1'",
        "GRANT ALL ON *.* TO alice@localhost",
    ]);
    bed.backup();

    assert_eq!(statements(&bed, &["--like", "DELETE FROM%"]), Vec::<String>::new(), "the index has none");
    assert_eq!(statements(&bed, &["--like", "DELETE FROM%", "--scan"]), ["DELETE FROM shop.t WHERE v = 'b'"]);
    // The second statement of a transaction, too.
    assert_eq!(
        statements(&bed, &["--like", "%'second'%", "--scan"]),
        ["UPDATE shop.t SET v = 'second' WHERE id = 3"]
    );
    assert_eq!(
        statements(&bed, &["--like", "INSERT%", "--scan", "--table", "shop.other"]),
        ["INSERT INTO shop.other VALUES (1)"]
    );
    assert_eq!(statements(&bed, &["--like", "INSERT%", "--scan", "--rows-over", "2"]).len(), 1);
    assert_eq!(statements(&bed, &["--like", "INSERT%", "--scan", "--limit", "1"]).len(), 1);
    assert_eq!(statements(&bed, &["--like", "DROP%", "--scan"]), Vec::<String>::new());
    // What the index finds is found in the log as well, and no password is shown.
    let both = |more: &[&str]| statements(&bed, &[&["--like", "CREATE%"], more].concat());
    assert_eq!(both(&[]), both(&["--scan"]));
    assert!(!both(&["--scan"]).concat().contains("only-for-Tests-1"));

    let answer = bed.user.done(&["find", "shop", "--user", "nobody", "--json"]);
    assert!(answer["found"].as_array().unwrap().is_empty(), "{answer}");
    let scanned = &answer["scanned"];
    assert!(scanned["with_statement"].as_u64().unwrap() >= 4, "{scanned}");
    assert!(scanned["with_user"].as_u64() < scanned["transactions"].as_u64(), "{scanned}");
    let text = bed.user.run(&["find", "shop", "--user", "nobody"]).ok().stdout;
    assert!(text.contains("so 'nobody' may have"), "{text}");
}

#[test]
fn original_statements_are_found_in_the_log_mysql() {
    original_statements_are_found_in_the_log(Engine::MySql, false);
}

#[test]
fn original_statements_are_found_in_the_log_mysql_compressed() {
    original_statements_are_found_in_the_log(Engine::MySql, true);
}

#[test]
fn original_statements_are_found_in_the_log_mariadb() {
    original_statements_are_found_in_the_log(Engine::MariaDb, false);
}

#[test]
fn a_log_without_original_statements_says_what_to_set() {
    let bed = Bed::new(Engine::MySql, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY)",
        "INSERT INTO shop.t VALUES (1)",
        // Its definer is who runs it: of these the server writes down who that was.
        "CREATE PROCEDURE shop.p() SELECT 1",
    ]);
    bed.backup();
    let text = bed.user.run(&["find", "shop", "--like", "INSERT%", "--scan"]).ok().stdout;
    assert!(text.contains("binlog_rows_query_log_events=ON"), "{text}");
    assert!(text.contains("Nothing in the archive fits."), "{text}");
}
