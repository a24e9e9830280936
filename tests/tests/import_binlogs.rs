//! `holdfast import --binlogs`: files that a server left become part of its archive, alone and behind what is there.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome, ServerState, TestServer, differences};

/// A server whose transactions are compressed in its log, where it can: MySQL with GTIDs or without.
fn bed(engine: Engine, gtids: bool) -> Bed {
    let mut options = match engine {
        Engine::MySql => vec!["--binlog-transaction-compression=ON"],
        Engine::MariaDb => vec!["--log-bin-compress=ON", "--log-bin-compress-min-len=20"],
    };
    if engine == Engine::MySql && gtids {
        options.extend(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
    }
    Bed::new(engine, &options)
}

/// The names of the server's binlog files.
fn names(server: &TestServer) -> Vec<String> {
    let index = std::fs::read_to_string(server.datadir().join("binlog.index")).unwrap();
    index.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect()
}

/// Copies files of the server as they lie there, while it runs.
fn copied(bed: &Bed, folder: &str, names: &[String]) -> String {
    std::fs::create_dir_all(bed.path(folder)).unwrap();
    for name in names {
        std::fs::copy(bed.server.datadir().join(name), bed.path(folder).join(name)).unwrap();
    }
    bed.text(folder)
}

fn import(bed: &Bed, folder: &str, more: &[&str]) -> Outcome {
    bed.user.run(&[&["import", "shop", "--binlogs", folder, "--json"], more].concat())
}

/// Work of some transactions, each in a second of its own file.
fn work(bed: &Bed, round: u32) {
    let insert = |part: u32| {
        format!("INSERT INTO shop.t SELECT {round}, {part}, d, REPEAT('abc', 200) FROM shop.digits")
    };
    bed.server.run(&[
        &insert(1),
        &format!("UPDATE shop.t SET v = 'changed' WHERE round = {round} AND d % 3 = 0"),
        &format!("CREATE TABLE shop.of_{round} (id INT PRIMARY KEY)"),
        &insert(2),
    ]);
}

fn begin(bed: &Bed) {
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.digits (d INT PRIMARY KEY)",
        "INSERT INTO shop.digits VALUES (0),(1),(2),(3),(4),(5),(6),(7),(8),(9)",
        "CREATE TABLE shop.t (round INT, part INT, d INT, v TEXT, PRIMARY KEY (round, part, d))",
    ]);
}

fn state(server: &TestServer) -> ServerState {
    let mut state = ServerState::read(&mut server.root()).unwrap();
    state.accounts.clear();
    state
}

/// A moment between two transactions, and the server's state at it.
fn moment(bed: &Bed) -> (String, ServerState) {
    std::thread::sleep(Duration::from_millis(1200));
    let found = (bed.now(), state(&bed.server));
    std::thread::sleep(Duration::from_millis(1200));
    found
}

fn restored(bed: &Bed, to: &str, into: &str) -> ServerState {
    let engine = bed.server.engine();
    let dir = engine.dir();
    let args =
        ["restore", "shop", "--to", to, "--into", &bed.text(into), "--engine-dir", dir.to_str().unwrap()];
    let _ = bed.user.run(&args).accepted();
    let server = PrivateServer::start(StartOptions::new(engine.programs(), bed.path(into))).unwrap();
    let mut state = ServerState::read(&mut server.connect().unwrap()).unwrap();
    server.stop(Duration::from_secs(120)).unwrap();
    state.accounts.clear();
    std::fs::remove_dir_all(bed.path(into)).unwrap();
    state
}

#[track_caller]
fn restores_to(bed: &Bed, (to, truth): &(String, ServerState)) {
    assert_eq!(differences(truth, &restored(bed, to, "restored")), Vec::<String>::new(), "at {to}");
}

/// The ids of everything that `find` finds: none twice.
fn ids(bed: &Bed) -> BTreeSet<String> {
    let found = bed.user.done(&["find", "shop", "--limit", "1000000", "--json"]);
    let found = found["found"].as_array().unwrap();
    let ids: BTreeSet<String> = found.iter().map(|txn| txn["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), found.len(), "something is there twice");
    ids
}

/// What the archive gives out are the files as they were in this folder.
fn exports(bed: &Bed, folder: &Path, wanted: &[String]) {
    let _ = bed.user.run(&["export", "shop", "--binlogs", "--into", &bed.text("exported")]).accepted();
    for name in wanted {
        let read = |path: PathBuf| std::fs::read(path).unwrap();
        let mut own = read(folder.join(name));
        own[4 + 17] &= !1;
        assert!(read(bed.path("exported").join(name)) == own, "{name} is not what it was");
    }
    std::fs::remove_dir_all(bed.path("exported")).unwrap();
}

fn no_holes(bed: &Bed) {
    let timeline = bed.user.done(&["timeline", "shop", "--json"]);
    assert_eq!(timeline["gaps"].as_array().unwrap().len(), 0, "{timeline}");
    assert_eq!(timeline["spans"].as_array().unwrap().len(), 1, "{timeline}");
}

/// The archive had a stop, the source purged meanwhile: its files fill what would be a hole.
fn files_fill_the_time_in_which_nobody_archived(engine: Engine, gtids: bool) {
    let bed = bed(engine, gtids);
    begin(&bed);
    bed.backup();
    let archived = ids(&bed);
    work(&bed, 1);
    let first = moment(&bed);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    work(&bed, 2);
    let second = moment(&bed);
    work(&bed, 3);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    work(&bed, 4);
    let all = names(&bed.server);
    let folder = copied(&bed, "binlogs", &all);
    let last = all.last().unwrap();
    bed.server.purge_before(last);

    // Nobody can fetch it any more; it is known to be a hole.
    refused(bed.user.run(&["restore", "shop", "--to", &second.0, "--into", &bed.text("never")]), 20, &[]);
    let only_last = copied(&bed, "only-last", &all[all.len() - 1..]);
    refused(import(&bed, &only_last, &[]), 1, &["between the end of what is archived", "there is a hole"]);
    let mut damaged = std::fs::read(bed.path("binlogs").join(&all[0])).unwrap();
    let at = damaged.len() - 40;
    damaged[at] ^= 0x10;
    let bad = copied(&bed, "damaged", &[]);
    std::fs::write(bed.path("damaged").join(&all[0]), damaged).unwrap();
    refused(import(&bed, &bad, &[]), 1, &[&all[0]]);
    assert_eq!(ids(&bed), archived, "nothing was written");

    let told = import(&bed, &folder, &["--dry-run"]).ok().json();
    assert!(told["transactions"].as_u64().unwrap() >= 16 && told["unchanged"] == true, "{told}");
    assert_eq!(ids(&bed), archived);
    let view = import(&bed, &folder, &[]).ok().json();
    assert_eq!(view["transactions"], told["transactions"]);
    let imported = ids(&bed);
    assert_eq!((imported.len() - archived.len()) as u64, view["transactions"].as_u64().unwrap());
    let again = import(&bed, &folder, &[]).ok().json();
    assert!(again["unchanged"] == true && again["transactions"] == 0, "{again}");
    restores_to(&bed, &first);
    restores_to(&bed, &second);

    // The receiver goes on where the files end, and says nothing of a hole.
    work(&bed, 5);
    let third = moment(&bed);
    bed.backup();
    no_holes(&bed);
    assert!(ids(&bed).is_superset(&imported));
    restores_to(&bed, &third);
    // The last one that was copied has gone on since.
    exports(&bed, Path::new(&folder), &all[..all.len() - 1]);
    let found = bed.user.done(&["find", "shop", "--like", "%of_2%", "--json"]);
    assert_eq!(found["found"].as_array().unwrap().len(), 1, "{found}");
    let _ = bed.user.fsck().ok();
}

#[test]
fn files_fill_the_time_in_which_nobody_archived_mysql() {
    files_fill_the_time_in_which_nobody_archived(Engine::MySql, true);
}

#[test]
fn files_fill_the_time_in_which_nobody_archived_mysql_without_gtids() {
    files_fill_the_time_in_which_nobody_archived(Engine::MySql, false);
}

#[test]
fn files_fill_the_time_in_which_nobody_archived_mariadb() {
    files_fill_the_time_in_which_nobody_archived(Engine::MariaDb, true);
}

/// What the server's own dump program writes of everything, with its place in the log.
fn dump(server: &TestServer, to: &Path) {
    let (program, own): (_, &[&str]) = match server.engine() {
        Engine::MySql => ("bin/mysqldump", &["--source-data=2", "--set-gtid-purged=OFF"]),
        Engine::MariaDb => ("bin/mariadb-dump", &["--master-data=2"]),
    };
    let output = Command::new(server.engine().dir().join(program))
        .args(["--no-defaults", "--user=root", "--single-transaction", "--hex-blob"])
        .args(own)
        .arg(format!("--socket={}", server.socket().display()))
        .args(["--databases", "shop"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    std::fs::write(to, output.stdout).unwrap();
}

/// Nothing was ever archived: a dump is the base, and the files are the log.
fn a_dump_and_files_are_a_server_that_can_be_restored(engine: Engine) {
    let bed = bed(engine, true);
    begin(&bed);
    work(&bed, 1);
    dump(&bed.server, &bed.path("shop.sql"));
    work(&bed, 2);
    let first = moment(&bed);
    bed.server.run(&["FLUSH BINARY LOGS"]);
    work(&bed, 3);
    let second = moment(&bed);
    work(&bed, 4);
    let all = names(&bed.server);
    let folder = copied(&bed, "binlogs", &all);
    // As a copy that was taken while the last transaction was written.
    let last = bed.path("binlogs").join(all.last().unwrap());
    let bytes = std::fs::read(&last).unwrap();
    std::fs::write(&last, &bytes[..bytes.len() - 5]).unwrap();

    let (programs, scratch, script) = (engine.dir(), bed.text("scratch"), bed.text("shop.sql"));
    let args = ["import", "shop", &script, "--whole", "--scratch", &scratch, "--engine-dir"];
    let _ = bed.user.run(&[args.as_slice(), &[programs.to_str().unwrap()]].concat()).ok();
    let vouched: &[&str] = match engine {
        Engine::MySql => &[],
        Engine::MariaDb => {
            refused(import(&bed, &folder, &[]), 1, &["nothing tells that it is of this server"]);
            &["--vouch"]
        }
    };
    let view = import(&bed, &folder, vouched).expect_code(3).json();
    assert!(view["from"].is_null(), "{view}");
    let warning = view["warnings"][0].as_str().unwrap();
    assert!(warning.contains("ends inside") && warning.contains("taken up to"), "{warning}");
    restores_to(&bed, &first);
    restores_to(&bed, &second);
    // The file as it is now goes on where its copy was cut off.
    let _ = copied(&bed, "binlogs", &all);
    let view = import(&bed, &folder, &[]).ok().json();
    assert_eq!(view["transactions"], 1, "{view}");
    no_holes(&bed);
    exports(&bed, Path::new(&folder), &all);
    work(&bed, 5);
    let third = moment(&bed);
    bed.backup();
    no_holes(&bed);
    restores_to(&bed, &third);
}

#[test]
fn a_dump_and_files_are_a_server_that_can_be_restored_mysql() {
    a_dump_and_files_are_a_server_that_can_be_restored(Engine::MySql);
}

#[test]
fn a_dump_and_files_are_a_server_that_can_be_restored_mariadb() {
    a_dump_and_files_are_a_server_that_can_be_restored(Engine::MariaDb);
}

/// Killed at any moment, the same command goes on.
fn a_killed_import_goes_on(engine: Engine) {
    let bed = bed(engine, true);
    begin(&bed);
    for round in 1..4 {
        for part in 10..22 {
            bed.server.run(&[
                "USE shop",
                &format!(
                    "INSERT INTO t SELECT {round}, {part}, d, REPEAT(SHA2(RAND(), 256), 1000) FROM digits"
                ),
            ]);
        }
        work(&bed, round);
        bed.server.run(&["FLUSH BINARY LOGS"]);
    }
    let all = names(&bed.server);
    let folder = copied(&bed, "binlogs", &all);
    let mut killed = 0;
    for wait in [40_u64, 80, 120, 160, 200, 250, 300, 350, 400, 500, 600, 700, 800] {
        let args = ["import", "shop", "--binlogs", &folder, "--vouch"];
        let mut child = bed.user.spawn(&args, &bed.path("log"));
        std::thread::sleep(Duration::from_millis(wait));
        if child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            killed += 1;
        }
        child.wait().unwrap();
    }
    assert!(killed > 0, "no import was killed");
    let _ = import(&bed, &folder, &["--vouch"]).ok();
    exports(&bed, Path::new(&folder), &all);
    let _ = ids(&bed);
    let _ = bed.user.fsck().ok();
    let again = import(&bed, &folder, &[]).ok().json();
    assert_eq!(again["unchanged"], true, "{again}");
}

#[test]
fn a_killed_import_goes_on_mysql() {
    a_killed_import_goes_on(Engine::MySql);
}

#[test]
fn a_killed_import_goes_on_mariadb() {
    a_killed_import_goes_on(Engine::MariaDb);
}

/// Files of another server, of another family, and before what is archived.
#[test]
fn files_that_are_not_of_the_archived_log_are_refused() {
    let bed = bed(Engine::MySql, true);
    begin(&bed);
    bed.backup();
    let other = TestServer::start_with(Engine::MySql, &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]);
    other.run(&["CREATE DATABASE other", "FLUSH BINARY LOGS"]);
    let foreign = bed.path("foreign");
    std::fs::create_dir(&foreign).unwrap();
    for name in names(&other) {
        std::fs::copy(other.datadir().join(&name), foreign.join(&name)).unwrap();
    }
    refused(import(&bed, &bed.text("foreign"), &[]), 1, &["another file of this name is archived"]);
    let maria = TestServer::start(Engine::MariaDb);
    let folder = bed.path("maria");
    std::fs::create_dir(&folder).unwrap();
    let name = names(&maria).pop().unwrap();
    std::fs::copy(maria.datadir().join(&name), folder.join(&name)).unwrap();
    refused(import(&bed, &bed.text("maria"), &[]), 1, &[&name]);
    refused(import(&bed, &bed.text("nowhere"), &[]), 2, &["can't be read"]);

    // Of a server under this name of which nothing is archived, nothing tells whose they are.
    bed.add("second", &other).ok();
    let files = copied(&bed, "own", &names(&bed.server));
    let as_second =
        |more: &[&str]| bed.user.run(&[&["import", "second", "--binlogs", &files, "--json"], more].concat());
    refused(as_second(&[]), 1, &["nothing tells that it is of this server"]);

    // An archive that began later.
    let late = Bed::new(Engine::MySql, &[]);
    begin(&late);
    late.server.run(&["FLUSH BINARY LOGS"]);
    late.backup();
    let early = copied(&late, "early", &names(&late.server)[..1]);
    refused(import(&late, &early, &[]), 1, &["a log grows at its end only"]);
}
