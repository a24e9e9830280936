//! `holdfast import`: a dump of the server's own program becomes a backup from which the archived log leads on.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome, ServerState, TestServer, differences};

/// What the server's own dump program writes of everything, with its place in the log.
fn dump(server: &TestServer) -> Vec<u8> {
    let (program, own): (_, &[&str]) = match server.engine() {
        Engine::MySql => ("bin/mysqldump", &["--source-data=2", "--set-gtid-purged=ON"]),
        Engine::MariaDb => ("bin/mariadb-dump", &["--master-data=2", "--gtid"]),
    };
    let output = Command::new(server.engine().dir().join(program))
        .args([
            "--no-defaults",
            "--user=root",
            "--single-transaction",
            "--routines",
            "--events",
            "--hex-blob",
        ])
        .args(own)
        .arg(format!("--socket={}", server.socket().display()))
        .args(["--databases", "shop"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn import(bed: &Bed, dump: &str) -> Outcome {
    import_as(bed, dump, &["--whole"])
}

fn import_as(bed: &Bed, dump: &str, more: &[&str]) -> Outcome {
    let engine = bed.server.engine().dir();
    let engine = engine.to_str().unwrap();
    let args = ["import", "shop", dump, "--scratch", &bed.text("scratch"), "--engine-dir", engine, "--json"];
    bed.user.run(&[args.as_slice(), more].concat())
}

fn restore(bed: &Bed, to: &str, into: &str) {
    let engine = bed.server.engine().dir();
    let args =
        ["restore", "shop", "--to", to, "--into", &bed.text(into), "--engine-dir", engine.to_str().unwrap()];
    let _ = bed.user.run(&args).accepted();
}

/// The state of the restored folder, without accounts: a dump has none.
fn state_of(engine: Engine, dir: &Path) -> ServerState {
    let server = PrivateServer::start(StartOptions::new(engine.programs(), dir)).unwrap();
    let mut state = ServerState::read(&mut server.connect().unwrap()).unwrap();
    server.stop(Duration::from_secs(120)).unwrap();
    state.accounts.clear();
    state
}

fn state(server: &TestServer) -> ServerState {
    let mut state = ServerState::read(&mut server.root()).unwrap();
    state.accounts.clear();
    state
}

/// With its place, and nothing is listed.
fn what_is_no_whole_dump_is_refused(bed: &Bed, script: &[u8]) {
    let path = bed.text("shop.sql");
    std::fs::write(&path, &script[..script.len() - 200]).unwrap();
    refused(import(bed, &path), 1, &["shop.sql", "ends before its end"]);
    let broken =
        [b"-- a dump\nCREATE DATABASE x;\n\n".as_slice(), b"INSERT INTO nowhere.t\nVALUES (1);"].concat();
    std::fs::write(&path, broken).unwrap();
    refused(import(bed, &path), 1, &["shop.sql, line 4", "INSERT INTO nowhere.t VALUES (1)"]);
    refused(import(bed, &bed.text("none.sql")), 2, &["none.sql can't be read"]);
    std::fs::write(&path, "CREATE DATABASE x;\nSET GLOBAL general_log_file = '/tmp/x';\n").unwrap();
    refused(import(bed, &path), 1, &["shop.sql, line 2", "sets a global variable"]);
    std::fs::write(&path, "CREATE DATABASE x;\n").unwrap();
    refused(import(bed, &path), 1, &["names no binlog file and position", "without --whole"]);
}

fn a_dump_becomes_a_base_from_which_the_log_leads_on(engine: Engine) {
    let options: &[&str] =
        if engine == Engine::MySql { &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"] } else { &[] };
    let bed = Bed::new(engine, options);
    bed.server.run(&["CREATE DATABASE shop", "CREATE TABLE shop.before_all (id INT PRIMARY KEY)"]);
    // From here on the log is archived.
    bed.backup();
    bed.server.run(&[
        "SET GLOBAL log_bin_trust_function_creators = 1",
        "USE shop",
        "CREATE TABLE t (id INT PRIMARY KEY AUTO_INCREMENT, v VARCHAR(60), j JSON, b BLOB)",
        "INSERT INTO t (v, j, b) VALUES ('it''s; \\\\ \"x\"', '{\"a\": 1.5}', x'00275c'), (NULL, NULL, NULL)",
        "CREATE TRIGGER tr BEFORE INSERT ON t FOR EACH ROW BEGIN SET NEW.v = CONCAT(NEW.v, ';'); END",
        "CREATE FUNCTION f(n INT) RETURNS INT DETERMINISTIC BEGIN RETURN n; END",
        "CREATE VIEW a_view AS SELECT f(id) AS n FROM t",
    ]);
    let at_dump = state(&bed.server);
    let script = dump(&bed.server);
    bed.server.run(&[
        "USE shop",
        "INSERT INTO t (v) VALUES ('after')",
        "UPDATE t SET v = 'changed' WHERE id = 1",
        "CREATE TABLE later (id INT PRIMARY KEY)",
        "INSERT INTO later VALUES (1), (2)",
    ]);
    let path = bed.text("shop.sql");

    if engine == Engine::MariaDb {
        what_is_no_whole_dump_is_refused(&bed, &script);
    }
    assert_eq!(bed.backups(), 1);
    assert!(!bed.path("scratch").exists());

    // Killed on its way, nothing is listed, and the same command does it.
    std::fs::write(&path, &script).unwrap();
    let gzip = Command::new("gzip").args(["-k", &path]).status().unwrap();
    assert!(gzip.success());
    let packed = bed.text("shop.sql.gz");
    let (programs, scratch) = (engine.dir(), bed.text("scratch"));
    let args = ["import", "shop", &packed, "--whole", "--scratch", &scratch, "--engine-dir"];
    let args = [args.as_slice(), &[programs.to_str().unwrap()]].concat();
    let mut child = bed.user.spawn(&args, &bed.path("log"));
    while !bed.path("scratch/server.log").exists() && child.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(1));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    if bed.backups() == 1 {
        let view = import(&bed, &packed).ok().json();
        assert!(view["position"].as_str().unwrap().contains("binlog.0000"), "{view}");
        assert_eq!(view["bytes"], script.len());
        assert!(!bed.path("scratch").exists());
    }
    assert_eq!(bed.backups(), 2);

    restore(&bed, "fastest", "as-dumped");
    assert_eq!(differences(&at_dump, &state_of(engine, &bed.path("as-dumped"))), Vec::<String>::new());
    restore(&bed, "latest", "latest");
    assert_eq!(
        differences(&state(&bed.server), &state_of(engine, &bed.path("latest"))),
        Vec::<String>::new()
    );
    let plan = bed.plan_of(&["--to", "latest", "--json"]).ok().json();
    let backups = bed.user.done(&["list", "--json"]);
    let imported = backups["backups"]
        .as_array()
        .unwrap()
        .iter()
        .find(|b| b["note"].as_str().unwrap().contains("imported"));
    assert_eq!(plan["base"], imported.unwrap()["id"], "{plan}");
    // It is kept for itself, and stands in for no backup that was taken.
    let kept = bed.user.done(&["expire", "shop", "--keep-last", "1", "--dry-run", "--json"]).to_string();
    assert!(kept.contains("held") && kept.contains("last"), "{kept}");
    let _ = bed.user.fsck().ok();
}

#[test]
fn a_dump_becomes_a_base_from_which_the_log_leads_on_mysql() {
    a_dump_becomes_a_base_from_which_the_log_leads_on(Engine::MySql);
}

#[test]
fn a_dump_becomes_a_base_from_which_the_log_leads_on_mariadb() {
    a_dump_becomes_a_base_from_which_the_log_leads_on(Engine::MariaDb);
}
