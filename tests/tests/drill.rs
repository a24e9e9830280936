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
        "CREATE USER writer@localhost",
        "GRANT ALL ON shop.* TO writer@localhost",
        "CREATE DEFINER = writer@localhost PROCEDURE shop.leave() \
         BEGIN SET SESSION TRANSACTION READ WRITE; DELETE FROM shop.orders; END",
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
    assert_eq!(names, ["query 1", "all orders are here", "query 3", "nobody waits for long"]);
    assert!(queries.iter().all(|query| query["verdict"] == "ok"), "{view}");
    assert_eq!((&queries[1]["first_row"][0], &queries[2]["first_row"][0]), (&"3".into(), &"open".into()));
    // Nothing of ours stays in the copy's accounts, and the words for people have each query.
    let text = drill(&bed, &["--check-file", &file.replace("checks", "checks2")]);
    refused(text, 2, &["checks2.sql", "can't be read"]);

    // What keeps out a routine whose definer may do everything: MariaDB's read_only lets him in, the session does not.
    let shut = if matches!(engine, Engine::MySql) { "read-only" } else { "READ ONLY" };
    // Each of these fails the drill, and says which one and why. None of them changes anything or goes anywhere.
    for (query, words) in [
        ("SELECT COUNT(*) FROM shop.orders -- expect: >= 1000", ["gave '3'", ">= 1000"]),
        ("SELECT no_such FROM shop.orders", ["no_such", "1054"]),
        ("DELETE FROM shop.orders", ["'query 1' failed", "read-only"]),
        ("CREATE TABLE shop.mine (id INT)", ["'query 1' failed", "read-only"]),
        ("CALL shop.clean()", ["'query 1' failed", shut]),
        // It leaves the session's read-only transactions, with the rights of somebody who may.
        ("CALL shop.leave()", ["'query 1' failed", "read-only"]),
        ("SELECT 1 INTO OUTFILE '/tmp/holdfast-drill-test'", ["'query 1' failed", "denied"]),
        ("SELECT SLEEP(20)", ["'query 1'", "did not end within 1 s"]),
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
    the_figure_has_the_drills_in_it(&bed);
}

/// Two of the ten drills were proved, the last one of them.
fn the_figure_has_the_drills_in_it(bed: &Bed) {
    let trust = |code: i32| {
        let status = bed.user.run(&["status", "shop", "--json"]).expect_code(code).json();
        assert_eq!(status["servers"].as_array().unwrap().len(), 1, "{status}");
        status["servers"][0]["trust"].clone()
    };
    // Nobody follows the log: exit status 3.
    let view = trust(3);
    let part = |view: &serde_json::Value, name: &str| {
        view["parts"].as_array().unwrap().iter().find(|part| part["name"] == name).unwrap()["points"]
            .as_f64()
            .unwrap()
    };
    let (drill_age, passed, check) =
        (part(&view, "drill_age"), part(&view, "drills_passed"), part(&view, "check"));
    assert_eq!(
        (drill_age, passed, part(&view, "log"), part(&view, "base_age"), check),
        (25.0, 4.0, 0.0, 10.0, 0.0)
    );
    let _ = bed.user.run(&["scrub"]).ok();
    let scrubbed = trust(3);
    assert_eq!(part(&scrubbed, "check"), 15.0, "{scrubbed}");
    let sum: f64 =
        scrubbed["parts"].as_array().unwrap().iter().map(|part| part["points"].as_f64().unwrap()).sum();
    assert_eq!(scrubbed["figure"].as_u64().unwrap(), (sum + 1e-6) as u64, "{scrubbed}");
    let failed =
        drill(bed, &["--at", "latest", "--prove", "quick", "--check-query", "SELECT 1 -- expect: 2"]);
    let _ = refused(failed, 22, &["query 1"]);
    let doubted = trust(3);
    assert!(doubted["figure"].as_u64().unwrap() <= 40, "{doubted}");
    let text = bed.user.run(&["status", "shop"]).expect_code(3).stdout;
    let shown = format!("TRUST {} of 100", doubted["figure"]);
    assert!(text.contains(&shown) && text.contains("drills_passed"), "{text}");
    let _ = refused(bed.user.run(&["status", "shoe"]), 2, &["'shoe'"]);
}

#[test]
fn a_drill_asks_the_users_own_queries_on_mysql() {
    a_drill_asks_the_users_own_queries_and_one_that_fails_fails_it_by_name(Engine::MySql);
}

#[test]
fn a_drill_asks_the_users_own_queries_on_mariadb() {
    a_drill_asks_the_users_own_queries_and_one_that_fails_fails_it_by_name(Engine::MariaDb);
}

fn a_report_is_kept_and_signed_and_a_byte_that_is_changed_is_found(engine: Engine) {
    let bed = protected_shop(engine);
    let _ = drill(&bed, &["--at", "latest", "--prove", "quick"]).accepted();
    let failed =
        drill(&bed, &["--at", "latest", "--prove", "quick", "--check-query", "SELECT 1 -- expect: 2"]);
    let _ = refused(failed, 22, &["query 1", "holdfast report list shop"]);
    let list = bed.user.run(&["report", "list", "shop", "--json"]).ok().json();
    let of = |at: usize, key: &str| list["reports"][at][key].clone();
    assert_eq!(list["reports"].as_array().unwrap().len(), 2, "{list}");
    for (at, proved) in [(0, true), (1, false)] {
        assert_eq!((of(at, "kind"), of(at, "proved")), ("drill".into(), proved.into()), "{list}");
        assert_eq!(of(at, "signature"), "good", "{list}");
    }
    let (number, file, keys) = (of(0, "number").to_string(), bed.text("drill.json"), bed.text("keys.pem"));
    let _ = bed.user.run(&["report", "show", &number, "--out", &file]).ok();
    let _ = bed.user.run(&["report", "key", "--out", &keys]).ok();
    let again = bed.user.run(&["report", "show", &number, "--out", &file]);
    let _ = refused(again, 2, &["drill.json", "does not exist yet"]);

    // Elsewhere: somebody with the file and the public key, and nothing else.
    let other = holdfast_tests::Holdfast::new(&bed.path("auditor"));
    let verify = |file: &str| other.run(&["report", "verify", file, "--public-key", &keys, "--json"]);
    let view = verify(&file).ok().json();
    assert_eq!((&view["server"], &view["proved"]), (&"shop".into(), &true.into()), "{view}");
    let signed = std::fs::read(&file).unwrap();
    let changed = bed.text("changed.json");
    // Every 97th byte, and those of the verdict and of the signature.
    let text = String::from_utf8(signed.clone()).unwrap();
    let verdict = text.find("\"proved\":true").unwrap() + 9;
    let places = (0..signed.len()).step_by(97).chain([
        verdict,
        signed.len() - 5,
        signed.len() - 140,
        signed.len() - 1,
    ]);
    for at in places {
        let mut bytes = signed.clone();
        bytes[at] ^= 1;
        std::fs::write(&changed, &bytes).unwrap();
        let _ = refused(verify(&changed), 21, &["changed.json", "not to be believed"]);
    }
    std::fs::write(&changed, text.replace("\"proved\":true", "\"proved\":null")).unwrap();
    let _ = refused(verify(&changed), 21, &["is not what the key"]);

    // After a rotation the kept ones are still as they were signed, by a key that is still there; new ones have a new key.
    let _ = bed.user.run(&["key", "rotate"]).ok();
    let _ = drill(&bed, &["--at", "latest", "--prove", "quick"]).accepted();
    let all = bed.user.run(&["report", "verify", "--json"]).ok().json();
    assert_eq!((&all["good"], &all["bad"], &all["none"]), (&3.into(), &0.into(), &0.into()), "{all}");
    let keys = bed.user.run(&["report", "key", "--json"]).ok().json();
    let generations: Vec<u64> =
        keys["keys"].as_array().unwrap().iter().map(|key| key["generation"].as_u64().unwrap()).collect();
    assert!(generations.len() == 2 && generations[0] > generations[1], "the newest first: {keys}");
    let (number, file) = (all["reports"][2]["number"].to_string(), bed.text("newer.json"));
    let _ = bed.user.run(&["report", "show", &number, "--out", &file]).ok();
    let _ = bed.user.run(&["report", "verify", &file]).ok();
    let _ = refused(verify(&file), 21, &["another key", "--public-key"]);
    let _ = bed.user.fsck().ok();
}

#[test]
fn a_report_is_kept_and_signed_on_mysql() {
    a_report_is_kept_and_signed_and_a_byte_that_is_changed_is_found(Engine::MySql);
}

#[test]
fn a_report_is_kept_and_signed_on_mariadb() {
    a_report_is_kept_and_signed_and_a_byte_that_is_changed_is_found(Engine::MariaDb);
}
