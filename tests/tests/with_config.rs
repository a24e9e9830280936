//! `restore --with-config --set`: the source's settings come back, and what must not come back is told.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint};
use holdfast_tests::Engine;
use holdfast_tests::bed::{Bed, refused};

const LIMIT: Duration = Duration::from_secs(120);

fn the_sources_settings_come_back(engine: Engine) {
    let own = [
        "--max-connections=77",
        "--default-time-zone=+03:00",
        "--long-query-time=3",
        "--table-open-cache=444",
    ];
    let bed = Bed::new(engine, &own);
    bed.server.run(&["CREATE DATABASE shop", "CREATE TABLE shop.orders (id INT PRIMARY KEY)"]);
    // Set while it ran, and lost with a restart: it is how the server was, all the same.
    bed.server.run(&["SET GLOBAL net_read_timeout = 61"]);
    bed.backup();
    let (into, programs) = (bed.text("data"), engine.dir());
    let args =
        ["restore", "shop", "--to", "latest", "--into", &into, "--engine-dir", programs.to_str().unwrap()];
    let restore = |more: &[&str]| bed.user.run(&[&args[..], more].concat());
    refused(restore(&["--set", "max_connections"]), 2, &["NAME=VALUE"]);
    refused(restore(&["--set", "datadir=/elsewhere"]), 2, &["given by the restore itself"]);
    let done =
        restore(&["--with-config", "--set", "table-open-cache=555", "--start", "--json"]).accepted().json();
    let lines = |name: &str| -> Vec<String> {
        done[name].as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned()).collect()
    };
    let told: Vec<String> = [lines("evidence"), lines("not_checked")].concat();
    assert!(told.iter().any(|line| line.starts_with("source-settings: ")), "{told:?}");
    assert!(!told.iter().any(|line| line.contains("max_connections is")), "{told:?}");

    let wanted = [
        ("max_connections", "77"),
        ("time_zone", "+03:00"),
        ("long_query_time", "3.000000"),
        ("net_read_timeout", "61"),
        ("table_open_cache", "555"),
    ];
    let says = |socket: &str| {
        let mut conn = Conn::connect(&ConnectOptions::new(Endpoint::Unix(socket.into()), "root")).unwrap();
        for (name, value) in wanted {
            let found = conn.query_text(format!("SELECT @@GLOBAL.{name}")).unwrap();
            assert_eq!(found.as_deref(), Some(value), "{name}");
        }
        conn
    };
    let socket = done["socket"].as_str().unwrap();
    says(socket);
    let folder = bed.path("data").canonicalize().unwrap();
    let text = fs::read_to_string(folder.join("holdfast-source.cnf")).unwrap();
    for line in ["loose_max_connections = 77", "default_time_zone = +03:00", "table_open_cache = 555"] {
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    for name in ["server_id", "port", "socket", "datadir", "log_error"] {
        assert!(
            !text.lines().any(|line| line.trim_start_matches("loose_").starts_with(name)),
            "{name} in\n{text}"
        );
    }
    assert!(text.contains("# server_id = "), "{text}");

    // The same after it is handed over: it runs on, and it is started by hand with the line that is printed.
    let finish = ["restore", "finish", &into, "--engine-dir", programs.to_str().unwrap(), "--json"];
    let finished = bed.user.run(&finish).ok().json();
    says(socket);
    assert!(stop_server_on(&folder, LIMIT).unwrap());
    let line = finished["start_with"].as_str().unwrap();
    assert!(line.contains("--defaults-file=") && line.contains("holdfast-source.cnf"), "{line}");
    let mut words = line.split(' ');
    let mut command = Command::new(words.next().unwrap());
    command.args(words).args(["--user=root", "--skip-networking", "--server-id=4711"]);
    command.arg(format!("--pid-file={into}/by-hand.pid")).arg(format!("--log-error={into}/by-hand.log"));
    command.args(match engine {
        Engine::MySql => ["--secure-file-priv=NULL", "--mysqlx=OFF"].as_slice(),
        Engine::MariaDb => &["--secure-file-priv="],
    });
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let deadline = Instant::now() + LIMIT;
    let socket = format!("{}/mysqld.sock", folder.display());
    while Conn::connect(&ConnectOptions::new(Endpoint::Unix(socket.clone().into()), "root")).is_err() {
        let log = || fs::read_to_string(format!("{into}/by-hand.log")).unwrap_or_default();
        assert!(child.try_wait().unwrap().is_none() && Instant::now() < deadline, "{}", log());
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut conn = says(&socket);
    assert_eq!(
        conn.query_text("SELECT @@GLOBAL.log_bin").unwrap().as_deref(),
        Some("1"),
        "as the source had it"
    );
    conn.execute("SHUTDOWN").unwrap();
    assert!(child.wait().unwrap().success());
}

#[test]
fn the_sources_settings_come_back_mysql() {
    the_sources_settings_come_back(Engine::MySql);
}

#[test]
fn the_sources_settings_come_back_mariadb() {
    the_sources_settings_come_back(Engine::MariaDb);
}
