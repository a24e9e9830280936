//! Drills of a real server: the moment, the user's own queries, the report.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome};

/// Made before the base, and behind it.
fn protected_shop(engine: Engine) -> Bed {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY, state VARCHAR(10), at DATETIME)",
        "INSERT INTO shop.orders VALUES (1, 'open', NOW()), (2, 'shut', NOW())",
        "CREATE DEFINER = CURRENT_USER PROCEDURE shop.clean() DELETE FROM shop.orders",
    ]);
    bed.backup();
    bed.server.run(&["INSERT INTO shop.orders VALUES (3, 'open', NOW())"]);
    bed
}

fn drill(bed: &Bed, more: &[&str]) -> Outcome {
    let (engine, scratch) = (bed.server.engine().dir(), bed.text("scratch"));
    let mut args = vec!["drill", "shop", "--scratch", &scratch, "--engine-dir", engine.to_str().unwrap()];
    args.extend(more);
    let outcome = bed.user.run(&args);
    assert!(!bed.path("scratch").exists(), "{}: the folder stays\n{}", outcome.line, outcome.stderr);
    outcome
}

fn a_drill_asks_the_users_own_queries_and_one_that_fails_fails_it_by_name(engine: Engine) {
    let bed = protected_shop(engine);
    let file = bed.text("checks.sql");
    std::fs::write(
        &file,
        "-- name: all orders are here\nSELECT COUNT(*) FROM shop.orders; -- expect: = 3\n\
         SELECT state FROM shop.orders WHERE id = 3; -- expect: 'open'\n\
         -- name: nobody waits for long\n\
         SELECT * FROM shop.orders WHERE at < NOW() - INTERVAL 1 DAY; -- expect: rows = 0\n",
    )
    .unwrap();
    let done = drill(
        &bed,
        &["--at", "latest", "--check-file", &file, "--check-query", "SHOW TABLES IN shop", "--json"],
    );
    let view = done.accepted().json();
    assert_eq!(view["proved"], true, "{view}");
    let queries = view["report"]["queries"].as_array().unwrap();
    let names: Vec<&str> = queries.iter().map(|query| query["name"].as_str().unwrap()).collect();
    let third = "SELECT state FROM shop.orders WHERE id = 3";
    assert_eq!(names, ["SHOW TABLES IN shop", "all orders are here", third, "nobody waits for long"]);
    assert!(queries.iter().all(|query| query["verdict"] == "ok"), "{view}");
    assert_eq!((&queries[1]["first_row"][0], &queries[2]["first_row"][0]), (&"3".into(), &"open".into()));
    // Nothing of ours stays in the copy's accounts, and the words for people have each query.
    let text = drill(&bed, &["--check-file", &file.replace("checks", "checks2")]);
    refused(text, 2, &["checks2.sql", "can't be read"]);

    // Each of these fails the drill, and says which one and why. None of them changes anything or goes anywhere.
    for (query, words) in [
        ("SELECT COUNT(*) FROM shop.orders -- expect: >= 1000", ["gave '3'", ">= 1000"]),
        ("SELECT no_such FROM shop.orders", ["no_such", "1054"]),
        ("DELETE FROM shop.orders", ["DELETE FROM shop.orders", "denied"]),
        ("CREATE TABLE shop.mine (id INT)", ["shop.mine", "READ ONLY"]),
        ("CALL shop.clean()", ["CALL shop.clean()", "READ ONLY"]),
        ("SELECT 1 INTO OUTFILE '/tmp/holdfast-drill-test'", ["OUTFILE", "denied"]),
        ("SELECT SLEEP(20)", ["SELECT SLEEP(20)", "did not end within 1 s"]),
    ] {
        let checked = ["--at", "latest", "--query-time", "1s", "--prove", "quick", "--check-query", query];
        let failed = refused(drill(&bed, &checked), 22, &words);
        assert!(failed.stderr.contains("was proved, and the query '"), "{}", failed.stderr);
    }
    // What they found wrong is no flaw of the backup.
    let list = bed.user.run(&["list", "--json"]).ok().json();
    assert_eq!(list["backups"][0]["proof"], "proved", "{list}");

    // What is not understood is refused before anything is restored.
    let wrong = drill(&bed, &["--check-query", "SELECT 1 -- expects: 1"]);
    refused(wrong, 2, &["--check-query, line 1", "'expects:'"]);
    // Without more words, a random moment is drilled.
    let text = drill(&bed, &[]).accepted().stdout;
    assert!(text.contains("Drilled 'shop' to ") && text.contains("proved "), "{text}");
}

#[test]
fn a_drill_asks_the_users_own_queries_on_mysql() {
    a_drill_asks_the_users_own_queries_and_one_that_fails_fails_it_by_name(Engine::MySql);
}

#[test]
fn a_drill_asks_the_users_own_queries_on_mariadb() {
    a_drill_asks_the_users_own_queries_and_one_that_fails_fails_it_by_name(Engine::MariaDb);
}
