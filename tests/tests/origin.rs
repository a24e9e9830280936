//! A backup with a name of its own, restored and handed over; the server that runs on it is protected itself, and says
//! where it came from.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::time::Duration;

use holdfast_engine::stop_server_on;
use holdfast_tests::Engine;
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::server::BACKUP_PASSWORD;

fn a_restored_server_says_where_it_came_from(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200) NOT NULL)",
        "INSERT INTO shop.orders (text) VALUES ('in the backup')",
    ]);
    let named = ["backup", "shop", "--name", "golden", "--keep-for", "30d", "--hold", "--json"];
    let backup = bed.user.run(&named).accepted().json();
    assert_eq!((&backup["name"], &backup["held"]), (&"golden".into(), &true.into()), "{backup}");
    refused(bed.user.run(&named), 2, &["golden"]);
    let listed = bed.user.run(&["list"]).ok().stdout;
    assert!(listed.contains("golden") && listed.contains("held"), "{listed}");
    // What stands longest is told: the hold, and not the date.
    refused(bed.user.run(&["forget", "golden"]), 23, &["is held", "holdfast unhold"]);
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('in the log')"]);

    let (into, programs) = (bed.text("data"), engine.dir());
    let programs = programs.to_str().unwrap();
    let restore = ["restore", "shop", "--to", "latest", "--into", &into, "--engine-dir", programs, "--start"];
    bed.user.run(&restore).accepted();
    let finish = ["restore", "finish", &into, "--engine-dir", programs, "--json"];
    let port = bed.user.run(&finish).ok().json()["port"].to_string();
    fs::write(bed.path("pw"), BACKUP_PASSWORD).unwrap();
    let password = bed.text("pw");
    let reach = ["--host", "127.0.0.1", "--port", &port, "--user", "backup", "--password-file", &password];
    let added = bed.user.run(&[&["server", "add", "copy"][..], &reach, &["--json"]].concat()).ok().json();
    let origin = added["origin"].clone();
    assert_eq!((&origin["server"], &origin["backup"]), (&"shop".into(), &backup["id"]), "{added}");
    let moment = origin["moment"].as_str().unwrap();
    let (taken, restored) = (backup["completed"].as_str().unwrap(), origin["restored"].as_str().unwrap());
    // MariaDB dates a transaction to the second.
    assert!(moment.get(..19) >= taken.get(..19) && moment < restored, "{taken} {added}");
    // It is kept in the repository, and the source has none.
    let shown = bed.user.run(&["server", "show", "copy", "--json"]).ok().json();
    assert_eq!(shown["origin"], origin);
    assert!(bed.user.run(&["server", "show", "copy"]).ok().stdout.contains("restored from 'shop'"));
    assert!(bed.user.run(&["server", "show", "shop", "--json"]).ok().json().get("origin").is_none());
    let status = bed.user.run(&["status", "--json"]).accepted().json();
    assert_eq!(
        (status["servers"][1]["origin"].clone(), status["servers"][0].get("origin")),
        (origin.clone(), None)
    );
    assert!(stop_server_on(&bed.path("data").canonicalize().unwrap(), Duration::from_secs(120)).unwrap());
    // Added as a folder, the note that was left in it says the same.
    let folder = ["server", "add", "stopped", "--folder", &into, "--json"];
    assert_eq!(bed.user.run(&folder).ok().json()["origin"], origin);
    bed.user.run(&["unhold", "golden", "--reason", "it is over"]).ok();
    bed.user.run(&["backup", "stopped", "--name", "other", "--hold"]).accepted();
    refused(bed.user.run(&["forget", "other"]), 23, &["held", "unhold"]);
    bed.user.run(&["unhold", "other", "--reason", "it is over"]).ok();
    bed.user.run(&["forget", "other"]).ok();
    // Another folder under the name came from nowhere that is known.
    fs::create_dir(bed.path("elsewhere")).unwrap();
    let other = ["server", "add", "stopped", "--folder", &bed.text("elsewhere"), "--json"];
    assert!(bed.user.run(&other).ok().json().get("origin").is_none());
    let _ = bed.user.fsck().ok();
}

#[test]
fn a_restored_server_says_where_it_came_from_mysql() {
    a_restored_server_says_where_it_came_from(Engine::MySql);
}

#[test]
fn a_restored_server_says_where_it_came_from_mariadb() {
    a_restored_server_says_where_it_came_from(Engine::MariaDb);
}
