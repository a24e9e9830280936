//! The memory of a replay: whatever a range holds, and however large one of its transactions is, a full window is applied and
//! its memory given back.
//!
//! The only test of its program, since memory is that of a whole process. With small windows in each run of the tests;
//! The allocator's share goes by the processors of the machine, unless it is told otherwise where a process begins: the test runs
//! in a process of its own.
//! `HOLDFAST_TEST_MEMORY=1` takes those of the product and several hundred MiB of rows (totals: docs/campaigns.md).

#![expect(clippy::unwrap_used, reason = "a test that can't go on has failed")]

use holdfast_replay::net::{Mode, Options, run};
use holdfast_replay::{finish::finish, scan::scan};
use holdfast_tests::replaying::{Bed, SCHEMA, go_on};
use holdfast_tests::{Engine, TestServer};

/// A figure of this process in bytes.
fn own(name: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() << 10
}

/// One transaction of rows that are all different: wide ones, narrow ones, and of a table without a key.
fn rows(source: &TestServer, wide: u64, narrow: u64) {
    let mut conn = source.root();
    conn.set_read_timeout(std::time::Duration::from_secs(600));
    let numbers = |to: u64| match source.engine() {
        Engine::MySql => format!(
            "WITH RECURSIVE n AS (SELECT 1 AS seq UNION ALL SELECT seq + 1 FROM n WHERE seq < {to}) SELECT"
        ),
        Engine::MariaDb => "SELECT".to_owned(),
    };
    let from = |to: u64| match source.engine() {
        Engine::MySql => "FROM n".to_owned(),
        Engine::MariaDb => format!("FROM seq_1_to_{to}"),
    };
    if source.engine() == Engine::MySql {
        conn.execute("SET SESSION cte_max_recursion_depth = 100000000").unwrap();
    }
    for sql in [
        "CREATE TABLE app.wide (id INT PRIMARY KEY, b VARBINARY(4000))".to_owned(),
        "CREATE TABLE app.narrow (id INT PRIMARY KEY, v INT, UNIQUE KEY (v))".to_owned(),
        "USE app".to_owned(),
        "BEGIN".to_owned(),
        format!("INSERT INTO app.narrow {} seq * 3, seq {}", numbers(narrow), from(narrow)),
        format!("INSERT INTO app.wide {} seq, REPEAT(CHAR(seq % 200), 4000) {}", numbers(wide), from(wide)),
        format!("INSERT INTO app.nopk {} seq, seq {}", numbers(narrow / 4), from(narrow / 4)),
        format!("UPDATE app.narrow SET v = -v WHERE id > {narrow}"),
        "COMMIT".to_owned(),
    ] {
        conn.execute(&sql).unwrap();
    }
}

#[test]
fn a_replay_takes_no_more_memory_than_its_windows_however_large_a_transaction_is() {
    if std::env::var_os("MALLOC_ARENA_MAX").is_none() {
        let own = std::env::current_exe().unwrap();
        let name = "a_replay_takes_no_more_memory_than_its_windows_however_large_a_transaction_is";
        let status = std::process::Command::new(own)
            .args([name, "--exact", "--nocapture"])
            .env("MALLOC_ARENA_MAX", "2")
            .status()
            .unwrap();
        assert!(status.success(), "{status}: see above");
        return;
    }
    let long = std::env::var_os("HOLDFAST_TEST_MEMORY").is_some();
    let engines: &[Engine] = if long { &Engine::ALL } else { &[Engine::MariaDb] };
    for &engine in engines {
        let (wide, narrow) = if long { (150_000, 3_000_000) } else { (7_000, 12_000) };
        let cache = if long { "--max-binlog-cache-size=4G" } else { "--sync-binlog=0" };
        let bed =
            Bed::make(engine, &["--max-binlog-size=1G", cache], SCHEMA, |source| rows(source, wide, narrow));
        let server = bed.start(&bed.copy("memory"));
        let small = Options {
            mode: Mode::Net,
            connections: 2,
            chunk_bytes: 256 << 10,
            memory_bytes: 2 << 20,
            early_bytes: 512 << 10,
        };
        let options = if long { Options { mode: Mode::Net, ..Options::default() } } else { small };
        // Two windows, of which one is being applied, what a window takes while it becomes a plan, and the chunks on their way.
        let bound = if long { 512 << 20 } else { 24 << 20 };
        let mut conn = server.connect().unwrap();
        let connect = || server.connect().map_err(|e| Box::new(e) as _);
        // The log lies in this process, too: what counts is what is added to it. A container may forbid to set the peak back:
        // then it is that of the whole process, which is no less.
        let _ = std::fs::write("/proc/self/clear_refs", "5");
        let before = own("VmRSS");
        let summary = scan(&bed.log).unwrap();
        let outcome =
            run(&mut conn, &connect, &bed.log, &bed.options(), &options, &summary, &mut go_on).unwrap();
        let added = own("VmHWM").saturating_sub(before);
        let what = format!("{engine:?}: {} rows, {} MiB of log", summary.rows, summary.bytes >> 20);
        println!("{what}: {} MiB of memory at the peak, of {}", added >> 20, bound >> 20);
        assert!(summary.bytes > bound, "{what}: all of it would fit, the test shows nothing");
        assert!(added <= bound, "{what}: {} MiB of memory, of {}", added >> 20, bound >> 20);
        finish(&mut conn, &outcome.gtids, &outcome.binlog_state).unwrap();
        bed.compare(&server, &what);
    }
}
