//! `restore --delta`: over a server that went its own way, rewriting only what differs; and what it refuses to touch.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, SystemTime};

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Holdfast, ServerState, differences};

const STOPS_WITHIN: Duration = Duration::from_secs(120);

/// Every file below `dir` with its length and the time of its last change.
fn listing(dir: &Path) -> BTreeMap<String, (u64, SystemTime)> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let facts = fs::symlink_metadata(&path).unwrap();
            if facts.is_dir() {
                waiting.push(path);
            } else {
                let name = path.strip_prefix(dir).unwrap().display().to_string();
                all.insert(name, (facts.len(), facts.modified().unwrap()));
            }
        }
    }
    all
}

/// What a server on the folder holds.
fn state_of(engine: Engine, folder: &Path) -> ServerState {
    let server = PrivateServer::start(StartOptions::new(engine.programs(), folder)).unwrap();
    let state = ServerState::read(&mut server.connect().unwrap()).unwrap();
    server.stop(STOPS_WITHIN).unwrap();
    state
}

fn a_server_that_went_its_own_way_is_made_what_a_fresh_restore_makes(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200) NOT NULL)",
        "CREATE TABLE shop.still (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200) NOT NULL)",
        "INSERT INTO shop.still (text) VALUES (REPEAT('s', 200)), (REPEAT('t', 200))",
    ]);
    // Some MiB that nobody touches again.
    for _ in 0..14 {
        bed.server.run(&["INSERT INTO shop.still (text) SELECT text FROM shop.still"]);
    }
    bed.backup();
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('kept')"]);
    std::thread::sleep(Duration::from_millis(1100));
    let early = bed.now();
    std::thread::sleep(Duration::from_millis(1100));
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('later')"]);

    let (into, programs) = (bed.text("data"), engine.dir());
    let base = ["restore", "shop", "--prove", "quick", "--engine-dir", programs.to_str().unwrap(), "--into"];
    let restore = |more: &[&str]| bed.user.run(&[base.as_slice(), &[into.as_str()], more].concat());
    restore(&["--to", "latest"]).accepted();
    bed.user.run(&["restore", "finish", &into, "--engine-dir", programs.to_str().unwrap()]).ok();

    // Now it is somebody's server.
    let folder = bed.path("data");
    let server = PrivateServer::start(StartOptions::new(engine.programs(), &folder)).unwrap();
    let mut conn = server.connect().unwrap();
    for statement in [
        "INSERT INTO shop.orders (text) VALUES ('of its own')",
        "UPDATE shop.orders SET text = 'not what it was' WHERE id = 1",
        "CREATE TABLE shop.own (id INT PRIMARY KEY)",
        "CREATE DATABASE own",
        "CREATE TABLE own.own (id INT PRIMARY KEY)",
    ] {
        conn.execute(statement).unwrap();
    }
    let in_use = restore(&["--to", &early, "--delta", "--confirm", "data"]);
    refused(in_use, 11, &[&into, "in use by a running server"]);
    drop(conn);
    server.stop(STOPS_WITHIN).unwrap();

    let before = listing(&folder);
    refused(restore(&["--to", &early]), 2, &["is not empty"]);
    refused(restore(&["--to", &early, "--delta"]), 2, &["--confirm", &into]);
    refused(restore(&["--to", &early, "--delta", "--confirm", "date"]), 2, &["'date' is not the name of"]);
    let plan = restore(&["--to", &early, "--delta", "--dry-run", "--json"]).ok().json();
    assert_eq!(listing(&folder), before, "a plan changes nothing");
    let delta = &plan["delta"];
    let removed: Vec<&str> =
        delta["removed"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(removed.contains(&"shop/own.ibd") && removed.contains(&"own"), "{removed:?}");
    assert!(delta["files_kept"].as_u64().unwrap() > 0, "{delta}");
    assert!(!delta["rewritten"].as_array().unwrap().is_empty(), "{delta}");
    let tables = plan["replay"]["tables"].as_array().unwrap();
    let orders = tables.iter().find(|table| table["table"] == "shop.orders").unwrap();
    assert_eq!(orders["rows"], 1, "{orders}");
    // Whether it has children that follow it is not in the log of a MariaDB, and there is no delete or update.
    assert_eq!(orders["class"], "net", "{orders}");
    assert!(plan["replay"]["refused"].as_array().unwrap().is_empty(), "{plan}");
    let text = restore(&["--to", &early, "--delta", "--dry-run"]).ok().stdout;
    assert!(text.contains("net       shop.orders  1 rows; by its primary key"), "{text}");

    let done = restore(&["--to", &early, "--delta", "--confirm", "data", "--json"]).accepted().json();
    let laid_out = &done["report"]["laid_out"];
    assert_eq!(laid_out["bytes"], delta["bytes_written"], "as planned");
    let (kept, written) = (laid_out["blocks_kept"].as_u64().unwrap(), laid_out["blocks"].as_u64().unwrap());
    assert!(kept > 100 && written > 0, "{laid_out}");
    println!("{engine:?}: {} bytes rewritten, {kept} blocks kept of {}", laid_out["bytes"], kept + written);

    let fresh = bed.text("fresh");
    bed.user.run(&[base.as_slice(), &[fresh.as_str(), "--to", &early]].concat()).accepted();
    let (over, fresh) = (state_of(engine, &folder), state_of(engine, Path::new(&fresh)));
    let found = differences(&over, &fresh);
    assert!(found.is_empty(), "{found:?}");
    assert!(!folder.join("shop/own.ibd").exists());
}

#[test]
fn a_server_that_went_its_own_way_is_made_what_a_fresh_restore_makes_mysql() {
    a_server_that_went_its_own_way_is_made_what_a_fresh_restore_makes(Engine::MySql);
}

#[test]
fn a_server_that_went_its_own_way_is_made_what_a_fresh_restore_makes_mariadb() {
    a_server_that_went_its_own_way_is_made_what_a_fresh_restore_makes(Engine::MariaDb);
}

/// A folder that is no server's.
#[test]
fn a_folder_is_restored_over_and_neither_the_repository_nor_another_name_is() {
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    user.run(&["init", "--kit", &text("kit")]).ok();
    fs::create_dir_all(dir.path().join("things/deep")).unwrap();
    let bytes: Vec<u8> = (0..1_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    fs::write(dir.path().join("things/deep/file"), &bytes).unwrap();
    fs::write(dir.path().join("things/small"), "small").unwrap();
    user.run(&["server", "add", "things", "--folder", &text("things")]).ok();
    user.run(&["backup", "things"]).ok();
    let restore = |into: &str, more: &[&str]| {
        user.run(&[&["restore", "things", "--to", "fastest", "--into", into, "--delta"], more].concat())
    };

    // A folder that is not there is an ordinary restore.
    let into = text("into");
    restore(&into, &[]).ok();
    let file = dir.path().join("into/deep/file");
    let change = |at: usize| {
        let mut other = fs::read(&file).unwrap();
        other[at] ^= 1;
        fs::write(&file, other).unwrap();
    };
    change(70_000);
    fs::write(dir.path().join("into/new"), "new").unwrap();
    refused(restore(&into, &[]), 2, &["--confirm"]);
    let done = restore(&into, &["--confirm", "into", "--json"]).ok().json();
    assert_eq!(done["report"]["laid_out"]["bytes"], 65_536);
    assert_eq!(fs::read(&file).unwrap(), bytes);
    assert!(!dir.path().join("into/new").exists());

    let top = dir.path().file_name().unwrap().to_str().unwrap();
    for (into, name) in
        [(text(""), top), (text("repository"), "repository"), (text("repository/segments"), "segments")]
    {
        let outcome = restore(into.trim_end_matches('/'), &["--confirm", name]);
        refused(outcome, 2, &["the repository"]);
    }
    user.fsck().ok();
}
