//! The memory of an archive whose source has rows of hundreds of MiB: two such events at most, however many come.
//!
//! `HOLDFAST_TEST_MEMORY=1` takes rows of 300 MiB, unless set 48 (totals: docs/campaigns.md).
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::process::Child;
use std::time::{Duration, Instant};

use holdfast_tests::Engine;
use holdfast_tests::bed::Bed;

const ROWS: u64 = 6;

/// The most memory that a process had so far, in bytes.
fn most(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

fn archived(bed: &Bed, table: &str) -> usize {
    let found = bed.user.done(&["find", "shop", "--table", table, "--json"]);
    found["found"].as_array().unwrap().iter().filter(|txn| txn["kind"] == "rows").count()
}

/// Runs an archive until it holds so many transactions of the table; gives the most memory that it had.
fn archive_until(bed: &Bed, table: &str, rows: usize) -> u64 {
    let mut child = bed.user.spawn(&["archive", "shop"], &bed.path("log"));
    let deadline = Instant::now() + Duration::from_secs(280);
    while archived(bed, table) < rows {
        let log = || std::fs::read_to_string(bed.path("log")).unwrap();
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", log());
        std::thread::sleep(Duration::from_millis(300));
    }
    let most = most(&child);
    child.kill().unwrap();
    child.wait().unwrap();
    most
}

#[test]
fn an_archive_holds_two_huge_events_at_most() {
    let mib: u64 = if std::env::var_os("HOLDFAST_TEST_MEMORY").is_some() { 300 } else { 48 };
    for engine in Engine::ALL {
        let bed = Bed::new(engine, &["--max-allowed-packet=1G"]);
        bed.server.run(&[
            "CREATE DATABASE shop",
            "CREATE TABLE shop.small (id INT PRIMARY KEY)",
            "CREATE TABLE shop.huge (id INT PRIMARY KEY, b LONGBLOB)",
        ]);
        bed.backup();
        bed.server.run(&["INSERT INTO shop.small VALUES (1)"]);
        let before = archive_until(&bed, "shop.small", 1);
        let mut conn = bed.server.root();
        conn.set_read_timeout(Duration::from_secs(280));
        for id in 0..ROWS {
            conn.execute(format!("INSERT INTO shop.huge VALUES ({id}, REPEAT('{id}x', {} << 19))", mib))
                .unwrap();
        }
        let most = archive_until(&bed, "shop.huge", ROWS as usize);
        let events = most.saturating_sub(before) as f64 / (mib << 20) as f64;
        println!(
            "{engine:?}: {} MiB before, {} MiB with {ROWS} rows of {mib} MiB: {events:.2} rows",
            before >> 20,
            most >> 20
        );
        assert!(events < 2.6, "{events:.2} rows of {mib} MiB were in memory");
    }
}
