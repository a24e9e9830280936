//! A private server reaches nobody: a table that asks another server asks it on the server it was made on, and on a private
//! one of the same folder it does not.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::Bed;
use holdfast_tests::command::finish;
use holdfast_tests::{Engine, Outcome, TestServer};
use std::path::PathBuf;
use std::process::{Command, Stdio};
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

/// What runs a program where the system grants no network namespace to anybody.
const NONE: [&str; 6] = [
    "unshare",
    "--user",
    "--map-root-user",
    "sh",
    "-c",
    "echo 0 > /proc/sys/user/max_net_namespaces && exec \"$0\" \"$@\"",
];

/// What runs a program of root's without the right to administer the system, as in a container.
const UNRIGHTED: [&str; 2] = ["setpriv", "--bounding-set=-sys_admin"];

/// Whether this host lets such a program run, or grants a user namespace to it: what it does not grant can't be tried on it.
fn granted(wrapper: &[&str], program: &[&str]) -> bool {
    let all = [wrapper, program].concat();
    Command::new(all[0]).args(&all[1..]).output().is_ok_and(|output| output.status.success())
}

fn run_in(wrapper: &[&str], bed: &Bed, args: &[&str]) -> Outcome {
    let inner = bed.user.command("holdfast", args);
    let mut outer = Command::new(wrapper[0]);
    outer.args(&wrapper[1..]).arg(inner.get_program()).args(inner.get_args()).stdin(Stdio::null());
    outer.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    finish(outer)
}

const SAID: &str = "The private server ran in this host's network";

fn whatever_starts_a_server_in_the_hosts_network_says_so(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&["CREATE DATABASE shop", "CREATE TABLE shop.t (id INT PRIMARY KEY)"]);
    bed.backup();
    let (dump, programs, scratch) = (bed.text("dump.sql"), engine.dir(), bed.text("scratch"));
    let programs = programs.to_str().unwrap();
    std::fs::write(&dump, "CREATE DATABASE x;\nUSE x;\nCREATE TABLE t (id INT PRIMARY KEY);\n").unwrap();
    let import = ["import", "shop", &dump, "--scratch", &scratch, "--engine-dir", programs];
    if granted(&UNRIGHTED, &["unshare", "--user", "--net", "--map-current-user", "true"]) {
        let outcome = run_in(&UNRIGHTED, &bed, &import).accepted();
        assert!(!outcome.stderr.contains(SAID), "a user namespace is granted: {}", outcome.stderr);
    }
    if !granted(&NONE, &["true"]) {
        return;
    }
    let outcome = run_in(&NONE, &bed, &import).accepted();
    assert!(outcome.stderr.contains(SAID), "{}", outcome.stderr);
    let exported = bed.text("exported.sql");
    let export = [
        "export",
        "shop",
        "--sql",
        &exported,
        "--to",
        "latest",
        "--prove",
        "quick",
        "--engine-dir",
        programs,
    ];
    let outcome = run_in(&NONE, &bed, &export).accepted();
    assert!(outcome.stderr.contains(SAID), "{}", outcome.stderr);
    let into = bed.text("restored");
    let restore = ["restore", "shop", "--to", "latest", "--into", &into, "--engine-dir", programs];
    let outcome = run_in(&NONE, &bed, &restore).accepted();
    assert_eq!(outcome.stdout.matches(SAID).count(), 1, "of all its starts, once: {}", outcome.stdout);
    let outcome = run_in(&NONE, &bed, &["restore", "finish", &into, "--engine-dir", programs]).ok();
    assert!(outcome.stdout.contains(SAID), "{}", outcome.stdout);
}

#[test]
fn whatever_starts_a_server_in_the_hosts_network_says_so_mysql() {
    whatever_starts_a_server_in_the_hosts_network_says_so(Engine::MySql);
}

#[test]
fn whatever_starts_a_server_in_the_hosts_network_says_so_mariadb() {
    whatever_starts_a_server_in_the_hosts_network_says_so(Engine::MariaDb);
}
