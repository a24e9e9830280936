//! What `status` and `timeline` promise is what a restore takes: through holes, idle times and a server's new lives.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::time::{Duration, Instant};

use holdfast_tests::Engine;
use holdfast_tests::bed::{Bed, refused};

/// Longer than MariaDB's log takes to tell two moments apart.
const SECOND: Duration = Duration::from_millis(1100);

/// Every moment that is shown is taken, and so is what a refusal names instead.
fn promises_are_kept(bed: &Bed) {
    let timeline = bed.user.run(&["timeline", "shop", "--json"]).accepted().json();
    for span in timeline["spans"].as_array().unwrap() {
        for end in ["from", "until"] {
            bed.plan(span[end].as_str().unwrap()).ok();
        }
    }
}

/// The points that a refusal names, as arguments.
fn nearest(stderr: &str) -> Vec<Vec<String>> {
    let next = stderr.lines().find_map(|line| line.split_once("the nearest points are ")).unwrap().1;
    next.split(" and ")
        .map(|point| point.split_whitespace().map(|word| word.trim_end_matches('.').to_owned()).collect())
        .collect()
}

fn a_purge_while_the_archive_stood_still_is_a_hole_that_is_shown_and_a_backup_ends_it(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
    ]);
    bed.backup();
    std::thread::sleep(SECOND);
    bed.server.run(&["INSERT INTO d.t VALUES (2)", "FLUSH BINARY LOGS", "INSERT INTO d.t VALUES (3)"]);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    let files = bed.server.root().query("SHOW BINARY LOGS").unwrap();
    let newest = files.text(files.rows.len() - 1, 0).unwrap();
    bed.server.purge_before(&newest);
    std::thread::sleep(SECOND);
    let inside = bed.now();
    std::thread::sleep(SECOND);

    refused(bed.user.run(&["archive", "shop"]), 1, &["'shop'", "can't be continued", "holdfast backup shop"]);
    let status = bed.user.run(&["status", "--json"]).expect_code(3).json()["servers"][0].clone();
    assert_eq!(status["protected"], "gap", "{status}");
    assert_eq!(status["gaps"].as_array().unwrap().len(), 1, "{status}");
    assert!(status["sentence"].as_str().unwrap().contains("1 hole"), "{status}");
    assert!(status["log_until"].as_str().unwrap() < inside.as_str(), "{status}");
    promises_are_kept(&bed);
    refused(bed.plan(&inside), 20, &["can't be reached", "nearest"]);

    // The hole is told once, and the backup leads out of it.
    let taken = bed.user.run(&["backup", "shop"]);
    assert!(matches!(taken.code, Some(0 | 3)), "{}", taken.stderr);
    assert_eq!(taken.stderr.matches("can't be continued").count(), 1, "{}", taken.stderr);
    std::thread::sleep(SECOND);
    bed.server.run(&["INSERT INTO d.t VALUES (4)"]);
    bed.plan("latest").ok();
    let refusal = refused(bed.plan(&inside), 20, &["hole", "nearest"]);
    let points = nearest(&refusal.stderr);
    assert_eq!(points.len(), 2, "{}", refusal.stderr);
    for point in points {
        let words: Vec<&str> = point.iter().map(String::as_str).collect();
        bed.plan_of(&words).ok();
    }
    let timeline = bed.user.run(&["timeline", "shop", "--json"]).expect_code(3).json();
    let spans = timeline["spans"].as_array().unwrap();
    assert_eq!((spans.len(), timeline["gaps"].as_array().unwrap().len()), (2, 1), "{timeline}");
    assert!(spans[0]["until"].as_str().unwrap() < inside.as_str(), "{timeline}");
    assert!(inside.as_str() < spans[1]["from"].as_str().unwrap(), "{timeline}");
    promises_are_kept(&bed);
    let line = bed.user.run(&["status"]).expect_code(3).stdout;
    assert!(line.contains("(+1 earlier)"), "{line}");
}

#[test]
fn a_purge_while_the_archive_stood_still_is_a_hole_that_is_shown_and_a_backup_ends_it_mysql() {
    a_purge_while_the_archive_stood_still_is_a_hole_that_is_shown_and_a_backup_ends_it(Engine::MySql);
}

#[test]
fn a_purge_while_the_archive_stood_still_is_a_hole_that_is_shown_and_a_backup_ends_it_mariadb() {
    a_purge_while_the_archive_stood_still_is_a_hole_that_is_shown_and_a_backup_ends_it(Engine::MariaDb);
}

fn after_a_reset_what_find_prints_names_one_transaction(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    let make = ["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "DROP DATABASE d"];
    for life in 0..2 {
        if life > 0 {
            bed.server.run(&[match engine {
                Engine::MySql => "RESET BINARY LOGS AND GTIDS",
                Engine::MariaDb => "RESET MASTER",
            }]);
        }
        bed.backup();
        std::thread::sleep(SECOND);
        bed.server.run(&make);
        bed.plan("latest").ok();
    }
    let found = bed.user.run(&["find", "shop", "--like", "DROP%", "--json"]).ok().json();
    let found = found["found"].as_array().unwrap();
    assert_eq!(found.len(), 2, "{found:?}");
    for (life, drop) in found.iter().enumerate() {
        let id = drop["id"].as_str().unwrap();
        assert!(id.ends_with(&format!("@{life}")), "{id}");
        bed.plan_of(&["--before", id]).ok();
        bed.plan_of(&["--after", id]).ok();
        let position = format!("pos:{}@{life}", drop["position"].as_str().unwrap());
        bed.plan(&position).ok();
    }
    promises_are_kept(&bed);
    bed.user.fsck().ok();
}

#[test]
fn after_a_reset_what_find_prints_names_one_transaction_mysql() {
    after_a_reset_what_find_prints_names_one_transaction(Engine::MySql);
}

#[test]
fn after_a_reset_what_find_prints_names_one_transaction_mariadb() {
    after_a_reset_what_find_prints_names_one_transaction(Engine::MariaDb);
}

#[test]
fn a_log_that_was_reset_to_lower_numbers_spoils_no_restore_of_mariadb() {
    let bed = Bed::new(Engine::MariaDb, &[]);
    bed.server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)"]);
    // Recovery takes the highest place that any rollback segment names: all of them are to name one of the old log.
    for id in 0..300 {
        if id % 50 == 0 {
            bed.server.run(&["FLUSH BINARY LOGS"]);
        }
        bed.server.run(&[&format!("INSERT INTO d.t VALUES ({id})")]);
    }
    bed.server.run(&["RESET MASTER", "INSERT INTO d.t VALUES (1000)"]);
    bed.backup();
    bed.server.run(&["INSERT INTO d.t VALUES (1001)"]);
    let report = bed.restored("restored", &[]).ok().stdout;
    assert!(report.contains("from before RESET MASTER"), "{report}");
}

fn an_idle_server_can_be_restored_to_a_moment_after_its_last_transaction(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
    ]);
    bed.backup();
    std::thread::sleep(SECOND);
    let idle = bed.now();
    std::thread::sleep(SECOND);
    refused(bed.plan(&idle), 20, &["can't be reached", "othing is known of the time after", "nearest"]);
    // A look at the source says that nothing was written since.
    bed.plan("latest").ok();
    bed.plan(&idle).ok();
    promises_are_kept(&bed);
    refused(bed.plan("2093-01-01T00:00:00Z"), 20, &["can't be reached", "nearest"]);

    // A running archive looks by itself.
    let mut archive = bed.user.spawn(&["archive", "shop"], &bed.path("log"));
    std::thread::sleep(SECOND);
    let later = bed.now();
    let deadline = Instant::now() + Duration::from_secs(60);
    while bed.plan(&later).code != Some(0) {
        assert!(Instant::now() < deadline, "the archive does not say that it is complete");
        std::thread::sleep(Duration::from_millis(500));
    }
    let status = bed.user.run(&["status", "--json"]).ok().json()["servers"][0].clone();
    assert!(status["log_until"].as_str().unwrap() >= later.as_str(), "{status}");
    archive.kill().unwrap();
    archive.wait().unwrap();
    promises_are_kept(&bed);
    bed.user.fsck().ok();
}

#[test]
fn an_idle_server_can_be_restored_to_a_moment_after_its_last_transaction_mysql() {
    an_idle_server_can_be_restored_to_a_moment_after_its_last_transaction(Engine::MySql);
}

#[test]
fn an_idle_server_can_be_restored_to_a_moment_after_its_last_transaction_mariadb() {
    an_idle_server_can_be_restored_to_a_moment_after_its_last_transaction(Engine::MariaDb);
}
