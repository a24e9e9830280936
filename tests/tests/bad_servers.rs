//! Servers that are not fit, not there, or not the right one: a clear error, and nothing lost.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::process::Child;
use std::time::{Duration, Instant};

use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::server::{BACKUP_PASSWORD, BACKUP_USER};
use holdfast_tests::{Engine, TestServer};
use rustix::process::{Pid, Signal};

/// What doctor finds wrong, as the lines that mend it.
fn remedies(bed: &Bed) -> String {
    bed.user.run(&["doctor", "shop"]).expect_code(1).stdout
}

#[test]
fn an_unfit_mysql_is_refused_with_the_line_that_doctor_prints() {
    let bed = Bed::new(Engine::MySql, &["--skip-log-bin"]);
    bed.server.run(&["UNINSTALL PLUGIN clone", "REVOKE BACKUP_ADMIN ON *.* FROM 'backup'@'%'"]);
    let grant = "GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%'";
    let install = "INSTALL PLUGIN clone SONAME 'mysql_clone.so'";
    let doctor = remedies(&bed);
    for line in [grant, install, "log_bin = binlog"] {
        assert!(doctor.contains(line), "no {line:?} in\n{doctor}");
    }
    refused(
        bed.user.run(&["archive", "shop"]),
        1,
        &["'shop'", "binary log of 'shop' is off", "log_bin = binlog"],
    );
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", "clone plugin", install]);
    bed.server.run(&[install]);
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", "BACKUP_ADMIN", grant]);
    bed.server.run(&[grant]);
    assert_eq!(bed.backups(), 0, "no half backup is listed");
    bed.backup();
    assert_eq!(bed.backups(), 1);
}

#[test]
fn an_unfit_mariadb_is_refused_with_the_line_that_doctor_prints() {
    let bed = Bed::new(Engine::MariaDb, &["--skip-log-bin"]);
    assert!(remedies(&bed).contains("log_bin = binlog"));
    refused(
        bed.user.run(&["archive", "shop"]),
        1,
        &["'shop'", "binary log of 'shop' is off", "log_bin = binlog"],
    );
}

#[test]
fn a_table_of_an_engine_that_only_an_option_loads_is_named_by_doctor() {
    let bed = Bed::new(Engine::MariaDb, &["--plugin-load-add=ha_archive"]);
    bed.server.run(&[
        "GRANT SELECT ON *.* TO 'backup'@'localhost'",
        "CREATE DATABASE d",
        "CREATE TABLE d.log (id INT) ENGINE = ARCHIVE",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
    ]);
    let doctor = || bed.user.run(&["doctor", "shop"]).stdout;
    let said = doctor();
    assert!(said.contains("plugin_load_add): d.log (ARCHIVE of ha_archive.so);"), "{said}");
    // What INSTALL keeps comes with the backup.
    bed.server.run(&["INSERT INTO mysql.plugin VALUES ('ARCHIVE', 'ha_archive.so')"]);
    let said = doctor();
    assert!(!said.contains("ha_archive"), "{said}");
}

fn targets_outside_of_the_log_and_in_a_gap_are_answered_with_the_nearest(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    // A log is known from the second after its first file began, and MariaDB's has whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    let before = bed.now();
    std::thread::sleep(Duration::from_millis(1100));
    bed.server.run(&[
        "CREATE DATABASE d",
        "CREATE TABLE d.t (id INT PRIMARY KEY)",
        "INSERT INTO d.t VALUES (1)",
    ]);
    bed.backup();
    refused(bed.plan(&before), 20, &["can't be reached", "before the first backup", "nearest"]);
    let after = "2093-01-01T00:00:00Z";
    refused(bed.plan(after), 20, &["can't be reached", "2093-01-01T00:00:00", "nearest"]);
    refused(bed.plan("gtid:9-9-999999"), 20, &["9-9-999999"]);
    refused(bed.plan("pos:binlog.009999:4"), 20, &["binlog.009999"]);

    // What is written now is in no archive: the server forgets it.
    std::thread::sleep(Duration::from_millis(1100));
    bed.server.run(&["INSERT INTO d.t VALUES (2)"]);
    std::thread::sleep(Duration::from_millis(1100));
    let inside = bed.now();
    std::thread::sleep(Duration::from_millis(1100));
    bed.server.run(&["INSERT INTO d.t VALUES (3)"]);
    bed.server.run(&[match engine {
        Engine::MySql => "RESET BINARY LOGS AND GTIDS",
        Engine::MariaDb => "RESET MASTER",
    }]);
    bed.server.run(&["INSERT INTO d.t VALUES (4)"]);
    refused(bed.user.run(&["archive", "shop"]), 1, &["'shop'", "can't be continued", "holdfast backup shop"]);
    bed.backup();
    bed.server.run(&["INSERT INTO d.t VALUES (5)"]);
    let gap = refused(bed.plan(&inside), 20, &["can't be reached", "nearest"]);
    let next = gap.stderr.lines().find(|line| line.contains("next:")).unwrap();
    assert!(next.contains(" and "), "two points are named: {next}");
    bed.plan("latest").ok();
    let timeline = bed.user.run(&["timeline", "shop", "--json"]).expect_code(3).json();
    assert_eq!(timeline["gaps"].as_array().unwrap().len(), 1);
    assert!(!bed.path("never").exists());
    bed.user.fsck().ok();
}

#[test]
fn targets_outside_of_the_log_and_in_a_gap_are_answered_with_the_nearest_mysql() {
    targets_outside_of_the_log_and_in_a_gap_are_answered_with_the_nearest(Engine::MySql);
}

#[test]
fn targets_outside_of_the_log_and_in_a_gap_are_answered_with_the_nearest_mariadb() {
    targets_outside_of_the_log_and_in_a_gap_are_answered_with_the_nearest(Engine::MariaDb);
}

fn signal(child: &Child, signal: Signal) {
    rustix::process::kill_process(Pid::from_child(child), signal).unwrap();
}

/// Waits until the account for backups is at work on the server, and holds the copier up at once: it is not through
/// before the server is killed.
fn hold_at_copy(bed: &Bed, copier: &mut Child) {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let command = match bed.server.engine() {
            Engine::MySql => "clone",
            Engine::MariaDb => "",
        };
        if !bed.server.sessions(BACKUP_USER, command).is_empty() {
            signal(copier, Signal::STOP);
            return;
        }
        assert!(copier.try_wait().unwrap().is_none(), "the copy ended before we saw it");
        assert!(Instant::now() < deadline, "no copy begins");
    }
}

fn a_server_that_is_killed_in_the_middle_of_a_backup_leaves_no_half_backup(engine: Engine) {
    let mut bed = Bed::new(engine, &[]);
    let log = bed.path("log");
    let mut copier = bed.user.spawn(&["backup", "shop"], &log);
    hold_at_copy(&bed, &mut copier);
    bed.server.kill();
    signal(&copier, Signal::CONT);
    let code = copier.wait().unwrap().code();
    let said = std::fs::read_to_string(&log).unwrap();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("'shop'") && said.contains("next:"), "{said}");
    assert_eq!(bed.backups(), 0, "no half backup is listed");
    bed.user.fsck().ok();
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", "check that the server runs"]);

    // We are killed, and the server goes on: nothing of ours stays on it.
    bed.server.start_again();
    bed.add("shop", &bed.server).ok();
    let mut copier = bed.user.spawn(&["backup", "shop"], &log);
    hold_at_copy(&bed, &mut copier);
    copier.kill().unwrap();
    copier.wait().unwrap();
    let deadline = Instant::now() + Duration::from_secs(120);
    while !bed.server.sessions(BACKUP_USER, "").is_empty() {
        assert!(Instant::now() < deadline, "a session of the killed backup stays");
        std::thread::sleep(Duration::from_millis(100));
    }
    bed.server.run(&["CREATE DATABASE d", "CREATE TABLE d.t (id INT PRIMARY KEY)", "DROP DATABASE d"]);
    assert_eq!(bed.backups(), 0, "no half backup is listed");
    bed.backup();
    bed.user.fsck().ok();
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_backup_leaves_no_half_backup_mysql() {
    a_server_that_is_killed_in_the_middle_of_a_backup_leaves_no_half_backup(Engine::MySql);
}

#[test]
fn a_server_that_is_killed_in_the_middle_of_a_backup_leaves_no_half_backup_mariadb() {
    a_server_that_is_killed_in_the_middle_of_a_backup_leaves_no_half_backup(Engine::MariaDb);
}

#[test]
fn another_server_takes_a_name_over_only_when_that_is_said() {
    let bed = Bed::new(Engine::MySql, &[]);
    let other = TestServer::start(Engine::MySql);
    bed.backup();
    let uuid = |server: &TestServer| server.value("SELECT @@GLOBAL.server_uuid").unwrap();
    let (old, new) = (uuid(&bed.server), uuid(&other));
    refused(bed.add("shop", &other), 2, &["'shop'", &old, &new, "another name", "--rebuilt"]);
    bed.add_with("shop", &other, &["--rebuilt"]).ok();
    let port = other.port().to_string();
    let shown = bed.user.run(&["server", "show", "shop"]).ok().stdout;
    assert!(shown.contains(&new) && shown.contains(&port), "{shown}");
    bed.backup();
    let spans = bed.user.run(&["timeline", "shop", "--json"]).expect_code(3).json();
    assert_eq!(spans["gaps"].as_array().unwrap().len(), 1, "{spans}");
    bed.user.fsck().ok();
}

#[test]
fn the_wrong_server_the_wrong_engine_and_a_wrong_password_are_refused() {
    let bed = Bed::new(Engine::MySql, &[]);
    let other = TestServer::start(Engine::MariaDb);
    refused(bed.add("shop", &other), 2, &["'shop' is MySQL", "MariaDB", "another name"]);
    let place = bed.text("");
    let folder = bed.user.run(&["server", "add", "shop", "--folder", &place]);
    refused(folder, 2, &["'shop'", "the other one another name"]);
    std::fs::write(bed.path("password"), "wrong").unwrap();
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", "password", "next:"]);
    std::fs::write(bed.path("password"), BACKUP_PASSWORD).unwrap();

    bed.backup();
    let (into, engine) = (bed.text("never"), Engine::MariaDb.dir());
    let args =
        ["restore", "shop", "--to", "latest", "--into", &into, "--engine-dir", engine.to_str().unwrap()];
    let version = bed.server.value("SELECT VERSION()").unwrap();
    let numbers = version.split('-').next().unwrap().to_owned();
    refused(bed.user.run(&args), 2, &["MySQL", &numbers, "--engine-dir"]);
    assert!(!bed.path("never").exists());
    bed.user.fsck().ok();
}
