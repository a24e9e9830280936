//! Tables that a copy of the datadir can't stand for: those whose files lie outside of it, and encrypted ones. A server
//! that was restored beside its source opened the source's own file, and called it proved.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::path::Path;

use holdfast_source::sinks::MemorySink;
use holdfast_source::{FolderSource, Source, Unwatched};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, TestServer};

/// A folder that is no server's.
fn outside() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("outside-").tempdir_in(holdfast_tests::server::scratch()).unwrap()
}

fn folder_error(server: &TestServer) -> String {
    FolderSource::new(server.datadir()).copy(&MemorySink::new(), &Unwatched).unwrap_err().to_string()
}

/// The files in a folder and below it, with their bytes.
fn content(dir: &Path) -> Vec<(std::path::PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    found.sort();
    found
}

/// Replays definitions that name a folder of the source's host.
fn a_restore_makes_no_file_there(bed: &Bed, far: &Path) {
    let place = far.display();
    bed.server.run(&[
        &format!("CREATE TABLE shop.later (id INT PRIMARY KEY) DATA DIRECTORY='{place}'"),
        "INSERT INTO shop.later VALUES (1), (2)",
    ]);
    let before = content(far);
    bed.restored("restored", &[]).accepted();
    assert!(bed.path("restored/shop/later.ibd").exists(), "it lies in the restored folder");
    assert_eq!(content(far).len(), before.len());
    bed.server.run(&["DROP TABLE shop.later"]);
}

#[test]
fn mysql_tables_outside_of_the_datadir_are_refused_by_name() {
    let far = outside();
    let place = far.path().to_str().unwrap();
    let mut bed = Bed::new(Engine::MySql, &[&format!("--innodb-directories={place}")]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        &format!("CREATE TABLE shop.far (id INT PRIMARY KEY) DATA DIRECTORY='{place}'"),
    ]);
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", &format!("{place}/shop/far.ibd"), "outside"]);
    bed.server.run(&["DROP TABLE shop.far"]);
    bed.backup();
    bed.server.run(&[
        &format!("CREATE TABLESPACE far ADD DATAFILE '{place}/far.ibd'"),
        "CREATE TABLE shop.rows_of_far (id INT PRIMARY KEY) TABLESPACE far",
    ]);
    refused(bed.user.run(&["backup", "shop"]), 1, &["'shop'", &format!("{place}/far.ibd"), "outside"]);
    assert_eq!(bed.backups(), 1);
    // The log holds the statement too: refused before anything is replayed.
    refused(bed.restored("later", &[]), 1, &["outside of the server's folder", "CREATE TABLESPACE far"]);

    bed.server.stop();
    let error = folder_error(&bed.server);
    assert!(error.contains(&format!("{place}/far.ibd")) && error.contains("outside"), "{error}");
    // What a backup does not see, the restore does: the file comes back when the copy was taken.
    let (file, away) = (far.path().join("far.ibd"), far.path().join("away"));
    std::fs::rename(&file, &away).unwrap();
    bed.user.run(&["server", "add", "copy", "--folder", bed.server.datadir().to_str().unwrap()]).ok();
    bed.user.run(&["backup", "copy"]).accepted();
    std::fs::rename(&away, &file).unwrap();
    let before = content(far.path());
    let engine_dir = bed.server.engine().dir();
    let into = bed.text("copied");
    let args =
        ["restore", "copy", "--to", "fastest", "--into", &into, "--engine-dir", engine_dir.to_str().unwrap()];
    refused(bed.user.run(&args), 22, &[&format!("{place}/far.ibd"), "Don't start it"]);
    assert_eq!(content(far.path()), before, "the source's file is as it was");
}

#[test]
fn mariadb_tables_outside_of_the_datadir_and_encrypted_ones_are_refused_by_name() {
    let far = outside();
    let place = far.path().to_str().unwrap();
    let keys = far.path().join("keys");
    std::fs::write(&keys, format!("1;{}\n", "0a".repeat(16))).unwrap();
    let mut bed = Bed::new(
        Engine::MariaDb,
        &[
            "--plugin-load-add=file_key_management",
            &format!("--file-key-management-filename={}", keys.display()),
        ],
    );
    bed.server.run(&["CREATE DATABASE shop"]);
    let inno = format!("CREATE TABLE shop.far (id INT PRIMARY KEY) DATA DIRECTORY='{place}'");
    let aria = format!(
        "CREATE TABLE shop.aria (id INT PRIMARY KEY) ENGINE=Aria DATA DIRECTORY='{place}' INDEX DIRECTORY='{place}'"
    );
    for (make, words) in [
        (inno.as_str(), ["'shop'", "far.ibd", "outside of the datadir"]),
        (&aria, ["'shop'", "shop/aria.MA", "outside of the datadir"]),
        (
            "CREATE TABLE shop.secret (id INT PRIMARY KEY) ENCRYPTED=YES",
            ["'shop'", "shop/secret", "encrypted"],
        ),
    ] {
        bed.server.run(&[make]);
        refused(bed.user.run(&["backup", "shop"]), 1, &words);
        let table = words[1].trim_end_matches(".ibd").trim_end_matches(".MA").trim_start_matches("shop/");
        if table != "secret" {
            bed.server.run(&[&format!("DROP TABLE shop.{table}")]);
        }
    }
    assert_eq!(bed.backups(), 0);
    bed.server.stop();
    let error = folder_error(&bed.server);
    assert!(error.contains("shop/secret.ibd") && error.contains("encrypted"), "{error}");
    bed.server.start_again();
    bed.server.run(&["DROP TABLE shop.secret"]);
    // Another port since it was started again.
    bed.add_with("shop", &bed.server, &[]).ok();
    bed.backup();
    a_restore_makes_no_file_there(&bed, far.path());
    bed.server.run(&[&inno]);
    bed.server.stop();
    let error = folder_error(&bed.server);
    assert!(error.contains("far.ibd") && error.contains("shop/far.isl"), "{error}");
}
