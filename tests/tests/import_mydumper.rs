//! `holdfast import` of a folder that mydumper wrote.
//!
//! `tests/data/mydumper-0.10` holds two that mydumper 0.10.1 made of a MariaDB 10.11 with what `made-with.sql` makes. The
//! layout since 0.14 is written by hand here, by its documentation.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome, ServerState, TestServer, differences};

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mydumper-0.10").join(name)
}

fn import(bed: &Bed, dump: &Path, more: &[&str]) -> Outcome {
    let engine = bed.server.engine().dir();
    let (engine, scratch) = (engine.to_str().unwrap(), bed.text("scratch"));
    let args =
        ["import", "shop", dump.to_str().unwrap(), "--scratch", &scratch, "--engine-dir", engine, "--json"];
    bed.user.run(&[args.as_slice(), more].concat())
}

fn restored(bed: &Bed, to: &str) -> ServerState {
    let engine = bed.server.engine();
    let (dir, into) = (engine.dir(), bed.text("restored"));
    let args = ["restore", "shop", "--to", to, "--into", &into, "--engine-dir", dir.to_str().unwrap()];
    let _ = bed.user.run(&args).accepted();
    let server = PrivateServer::start(StartOptions::new(engine.programs(), Path::new(&into))).unwrap();
    let mut state = ServerState::read(&mut server.connect().unwrap()).unwrap();
    server.stop(Duration::from_secs(120)).unwrap();
    state.accounts.clear();
    std::fs::remove_dir_all(into).unwrap();
    state
}

fn state(server: &TestServer) -> ServerState {
    let mut state = ServerState::read(&mut server.root()).unwrap();
    state.accounts.clear();
    state
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

#[test]
fn what_mydumper_wrote_is_what_was_there_plain_and_packed() {
    let bed = Bed::new(Engine::MariaDb, &[]);
    let made = std::fs::read_to_string(data("made-with.sql")).unwrap();
    let statements: Vec<&str> =
        made.split("\n//\n").map(str::trim_end).filter(|sql| !sql.is_empty()).collect();
    bed.server.run(&statements);
    let truth = state(&bed.server);
    for folder in ["plain", "packed"] {
        let view = import(&bed, &data(folder), &[]).expect_code(3).json();
        let warnings = view["warnings"].to_string();
        assert!(warnings.contains("has no place in the log"), "{warnings}");
        assert!(warnings.contains("does not say how many rows"), "{warnings}");
        assert_eq!(differences(&truth, &restored(&bed, "fastest")), Vec::<String>::new(), "{folder}");
    }

    let backups = bed.backups();
    let broken = bed.path("broken");
    let without = |name: &str| {
        let _ = std::fs::remove_dir_all(&broken);
        copy(&data("plain"), &broken);
        std::fs::remove_file(broken.join(name)).unwrap();
    };
    without("metadata");
    refused(import(&bed, &broken, &[]), 2, &["it has no file `metadata`"]);
    std::fs::write(broken.join("metadata.partial"), "Started dump at: 2026-11-22 14:41:42\n").unwrap();
    refused(import(&bed, &broken, &[]), 2, &["mydumper did not finish it"]);
    without("shop-schema-create.sql");
    refused(import(&bed, &broken, &[]), 1, &["no file -schema-create"]);
    without("shop.t-schema.sql");
    refused(import(&bed, &broken, &[]), 1, &["shop.t.sql, line 4", "doesn't exist"]);
    without("shop.t-schema-triggers.sql");
    let rows = std::fs::read(broken.join("shop.t.sql")).unwrap();
    std::fs::write(broken.join("shop.t.sql"), &rows[..rows.len() - 4]).unwrap();
    refused(import(&bed, &broken, &[]), 1, &["shop.t.sql ends before its end"]);
    std::fs::write(broken.join("shop.t.00001.dat"), "1\t2\n").unwrap();
    refused(import(&bed, &broken, &[]), 1, &["shop.t.00001.dat"]);
    assert_eq!(bed.backups(), backups);
    assert!(!bed.path("scratch").exists());
}

/// A folder as mydumper writes it since 0.14, of one table with rows in two files, packed.
fn written_by_hand(bed: &Bed, place: (&str, u64), gtids: &str) -> PathBuf {
    let folder = bed.path("by-hand");
    std::fs::create_dir(&folder).unwrap();
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let head = "/*!40101 SET NAMES utf8mb4*/;\n/*!40014 SET FOREIGN_KEY_CHECKS=0*/;\n/*!40103 SET TIME_ZONE='+00:00' */;\n";
    write(
        "metadata",
        &format!(
            "# Started dump at: 2026-11-22 14:00:00\n[config]\nquote-character = BACKTICK\n\n[source]\n# Channel_Name = ''\n\
             File = {}\nPosition = {}\nExecuted_Gtid_Set = {gtids}\n\n[`shop`.`t`]\nreal_table_name=t\nRows = 3\n\n\
             # Finished dump at: 2026-11-22 14:00:01\n",
            place.0, place.1
        ),
    );
    write("shop-schema-create.sql", "CREATE DATABASE IF NOT EXISTS `shop`;\n");
    write(
        "shop.t-schema.sql",
        &format!(
            "{head}CREATE TABLE IF NOT EXISTS `t` (\n  `id` int NOT NULL,\n  `v` varchar(60),\n  PRIMARY KEY (`id`)\n) ENGINE=InnoDB;\n"
        ),
    );
    write("shop.t.00000.sql", &format!("{head}INSERT INTO `t` VALUES(1,\"one\")\n,(2,\"two;\\n\");\n"));
    write("shop.t.00001.sql", &format!("{head}INSERT INTO `t` VALUES(3,NULL);\n"));
    for name in ["shop-schema-create.sql", "shop.t-schema.sql", "shop.t.00000.sql", "shop.t.00001.sql"] {
        let packed = Command::new("gzip").arg(folder.join(name)).status().unwrap();
        assert!(packed.success());
    }
    folder
}

fn the_log_leads_on_from_a_folder_of_mydumpers(engine: Engine) {
    let options: &[&str] =
        if engine == Engine::MySql { &["--gtid-mode=ON", "--enforce-gtid-consistency=ON"] } else { &[] };
    let bed = Bed::new(engine, options);
    bed.backup();
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(60)) ENGINE=InnoDB",
        "INSERT INTO shop.t VALUES (1, 'one'), (2, 'two;\n'), (3, NULL)",
    ]);
    let status = if engine == Engine::MySql { "SHOW BINARY LOG STATUS" } else { "SHOW MASTER STATUS" };
    let status = bed.server.root().query(status).unwrap();
    let (file, offset) = (status.text(0, 0).unwrap(), status.text(0, 1).unwrap().parse().unwrap());
    let gtids = bed.server.gtids();
    bed.server.run(&[
        "USE shop",
        "UPDATE t SET v = 'changed' WHERE id = 1",
        "INSERT INTO t VALUES (4, 'four')",
    ]);
    bed.backup();
    let folder = written_by_hand(&bed, (&file, offset), &gtids);
    let view = import(&bed, &folder, &["--whole"]).ok().json();
    assert!(view["position"].as_str().unwrap().contains(&format!("{file}:{offset}")), "{view}");
    // A newer base would lead there, too.
    let backups = bed.user.done(&["list", "--json"]);
    for backup in backups["backups"].as_array().unwrap() {
        if backup["id"] != view["backup"]["id"] {
            let _ = bed.user.run(&["forget", backup["id"].as_str().unwrap()]).ok();
        }
    }
    assert_eq!(differences(&state(&bed.server), &restored(&bed, "latest")), Vec::<String>::new());

    // A file is missing, which the rows in the metadata tell.
    std::fs::remove_file(folder.join("shop.t.00001.sql.gz")).unwrap();
    refused(import(&bed, &folder, &["--whole"]), 1, &["shop.t", "it has 2 rows, and the metadata says 3"]);
}

#[test]
fn the_log_leads_on_from_a_folder_of_mydumpers_mysql() {
    the_log_leads_on_from_a_folder_of_mydumpers(Engine::MySql);
}

#[test]
fn the_log_leads_on_from_a_folder_of_mydumpers_mariadb() {
    the_log_leads_on_from_a_folder_of_mydumpers(Engine::MariaDb);
}
