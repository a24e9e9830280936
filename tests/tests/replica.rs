//! `restore --as-replica-of`: a restored server that carries on replicating from a real source.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::time::{Duration, Instant};

use holdfast_engine::{Listen, PrivateServer, StartOptions, stop_server_on};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint};
use holdfast_tests::Engine;
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::server::BACKUP_PASSWORD;

const LIMIT: Duration = Duration::from_secs(120);
const TEXTS: &str = "SELECT GROUP_CONCAT(text ORDER BY id) FROM shop.orders";

/// Waits until the replica has what the source has.
fn follows(conn: &mut Conn, bed: &Bed) {
    let wanted = bed.server.value(TEXTS);
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = conn.query_text(TEXTS).unwrap();
        if found == wanted {
            return;
        }
        let status = if conn.server().is_mariadb() { "SHOW SLAVE STATUS" } else { "SHOW REPLICA STATUS" };
        let status = conn.query(status).unwrap();
        let said = |name: &str| status.text_by_name(0, name).unwrap_or_default();
        assert!(
            Instant::now() < deadline,
            "{found:?}, not {wanted:?}: {} {}",
            said("Last_IO_Error"),
            said("Last_SQL_Error")
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

fn bed_with_a_log(engine: Engine, options: &[&str]) -> Bed {
    let bed = Bed::new(engine, options);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200) NOT NULL)",
        "INSERT INTO shop.orders (text) VALUES ('in the backup')",
    ]);
    bed.backup();
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('in the log')"]);
    fs::write(bed.path("pw"), BACKUP_PASSWORD).unwrap();
    fs::write(bed.path("wrong"), "not the password").unwrap();
    bed
}

/// No file of ours, and no log, holds the password; the server keeps it where it always does.
fn keeps_the_secret(folder: &Path) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if name.starts_with("holdfast") {
            let text = fs::read(&path).unwrap();
            let found = text.windows(BACKUP_PASSWORD.len()).any(|part| part == BACKUP_PASSWORD.as_bytes());
            assert!(!found, "{}", path.display());
        }
    }
}

fn a_restored_server_that_runs_on_follows_its_source(engine: Engine, options: &[&str]) {
    let bed = bed_with_a_log(engine, options);
    let (into, programs) = (bed.text("data"), engine.dir());
    let source = format!("127.0.0.1:{}", bed.server.port());
    let (password, wrong) = (bed.text("pw"), bed.text("wrong"));
    let restore = |password: &str| {
        let replica =
            ["--as-replica-of", &source, "--replica-user", "backup", "--replica-password-file", password];
        bed.restored("data", &[&replica[..], &["--start", "--json"]].concat())
    };
    refused(restore(&wrong), 1, &[&source, "can't be used"]);
    assert!(!bed.path("data").exists(), "it is said before anything is laid out");
    let done = restore(&password).accepted().json();
    let evidence = done["evidence"].as_array().unwrap();
    let told = evidence.iter().filter_map(|line| line.as_str()).find(|line| line.starts_with("replica: "));
    assert!(told.is_some_and(|line| line.contains(&source)), "{done}");

    let socket = done["socket"].as_str().unwrap();
    let mut conn = Conn::connect(&ConnectOptions::new(Endpoint::Unix(socket.into()), "root")).unwrap();
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('after the restore')"]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        conn.query_text(TEXTS).unwrap().as_deref(),
        Some("in the backup,in the log"),
        "behind the fence"
    );
    drop(conn);
    let finish = ["restore", "finish", &into, "--engine-dir", programs.to_str().unwrap(), "--json"];
    let finished = bed.user.run(&finish).ok().json();
    assert_eq!(finished["replica_of"], source.as_str());
    let mut conn = Conn::connect(&ConnectOptions::new(Endpoint::Unix(socket.into()), "root")).unwrap();
    follows(&mut conn, &bed);
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('much later')"]);
    follows(&mut conn, &bed);
    keeps_the_secret(&bed.path("data"));
    drop(conn);
    assert!(stop_server_on(&bed.path("data").canonicalize().unwrap(), LIMIT).unwrap());
}

#[test]
fn a_restored_server_that_runs_on_follows_its_source_by_gtids_mysql() {
    let gtids = ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"];
    a_restored_server_that_runs_on_follows_its_source(Engine::MySql, &gtids);
}

#[test]
fn a_restored_server_that_runs_on_follows_its_source_by_gtids_mariadb() {
    a_restored_server_that_runs_on_follows_its_source(Engine::MariaDb, &[]);
}

/// Handed over stopped, and started under another pid file than the private server had, which names MariaDB's relay log.
fn a_stopped_one_follows_with_its_first_start(engine: Engine) {
    let bed = bed_with_a_log(engine, &[]);
    let (into, programs) = (bed.text("data"), engine.dir());
    let source = format!("127.0.0.1:{}", bed.server.port());
    for (target, more) in [("latest", &[][..]), ("fastest", &["--delta", "--confirm", "data"])] {
        let args =
            ["restore", "shop", "--to", target, "--into", &into, "--engine-dir", programs.to_str().unwrap()];
        // Without an account of its own it is the one that the server is protected with.
        bed.user
            .run(&[&args[..], &["--as-replica-of", &source, "--prove", "quick"], more].concat())
            .accepted();
        bed.user.run(&["restore", "finish", &into, "--engine-dir", programs.to_str().unwrap()]).ok();
        bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('behind the restore')"]);
        let mut options = StartOptions::new(engine.programs(), bed.path("data"));
        options.binlog = true;
        // Private ones have no network, and could follow nobody.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).unwrap();
        options.listen = Listen::Loopback(free.port());
        options.extra_args = vec!["--server-id=4711".to_owned(), "--log-bin=own".to_owned()];
        if engine == Engine::MariaDb {
            options.extra_args.push("--relay-log=its-own".to_owned());
        }
        let server = PrivateServer::start(options).unwrap();
        let mut conn = server.connect().unwrap();
        // A server of ours is started with --skip-replica-start; others begin by themselves.
        conn.execute(if engine == Engine::MySql { "START REPLICA" } else { "START SLAVE" }).unwrap();
        follows(&mut conn, &bed);
        drop(conn);
        server.stop(LIMIT).unwrap();
    }
}

#[test]
fn a_stopped_one_follows_with_its_first_start_by_file_and_position_mysql() {
    a_stopped_one_follows_with_its_first_start(Engine::MySql);
}

#[test]
fn a_stopped_one_follows_with_its_first_start_mariadb() {
    a_stopped_one_follows_with_its_first_start(Engine::MariaDb);
}
