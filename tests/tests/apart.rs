//! A private server reaches nobody: a table that asks another server asks it on the server it was made on, and on a private
//! one of the same folder it does not.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::{Engine, TestServer};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

fn network_of(process: &str) -> PathBuf {
    std::fs::read_link(format!("/proc/{process}/ns/net")).unwrap()
}

#[test]
fn a_federated_table_reaches_the_other_server_but_not_from_a_private_one() {
    let far = TestServer::start(Engine::MySql);
    far.run(&[
        "CREATE DATABASE far",
        "CREATE TABLE far.t (a INT PRIMARY KEY)",
        "INSERT INTO far.t VALUES (7)",
        "CREATE USER 'far'@'%'",
        "GRANT SELECT ON far.* TO 'far'@'%'",
    ]);
    let mut near = TestServer::start_with(Engine::MySql, &["--federated"]);
    near.run(&[
        "CREATE DATABASE near",
        &format!(
            "CREATE TABLE near.t (a INT PRIMARY KEY) ENGINE = FEDERATED CONNECTION = 'mysql://far@127.0.0.1:{}/far/t'",
            far.port()
        ),
    ]);
    assert_eq!(near.value("SELECT a FROM near.t").as_deref(), Some("7"), "it is there, and can be reached");
    near.stop();

    let mut options = StartOptions::new(Engine::MySql.programs(), near.datadir());
    options.timeout = Duration::from_secs(120);
    options.extra_args = vec!["--federated".to_owned(), "--innodb-redo-log-capacity=32M".to_owned()];
    let private = PrivateServer::start(options).unwrap();
    let mut conn = private.connect_as("root", None).unwrap();
    let asked = conn.query_text("SELECT a FROM near.t");
    if let Some(why) = private.in_network() {
        // Then nobody here may: the kernel grants it to no program.
        let other = Command::new("unshare").args(["--net", "--map-current-user", "true"]).status();
        assert!(!other.is_ok_and(|status| status.success()), "{why}");
        return;
    }
    let error = asked.unwrap_err().to_string();
    assert!(error.contains("127.0.0.1"), "it tried, and came nowhere: {error}");
    assert_ne!(network_of(&private.pid().to_string()), network_of("self"));
    // The socket is of the file system, and serves.
    assert_eq!(conn.query_text("SELECT 1").unwrap().as_deref(), Some("1"));
    private.stop(Duration::from_secs(120)).unwrap();
}
