//! `holdfast export` on real servers: the source's own binlog files, and data directories that need nothing of ours. What
//! `find` and `show` tell of the same log is looked at on the way.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, Outcome};
use serde_json::Value;

const MAGIC_LEN: u64 = 4;

fn export(bed: &Bed, more: &[&str]) -> Outcome {
    bed.user.run(&[["export", "shop"].as_slice(), more, &["--json"]].concat())
}

/// Every exported file is the source's own, from the offset on that is archived; the last one, too, once the archive is
/// up to date. Gives the files.
fn same_as_the_sources(bed: &Bed, dir: &Path, below: &str, view: &Value) -> Vec<Value> {
    let files = view["files"].as_array().unwrap().iter();
    let files: Vec<Value> =
        files.filter(|f| f["file"].as_str().unwrap().starts_with(below)).cloned().collect();
    for file in &files {
        let path = file["file"].as_str().unwrap();
        let name = path.strip_prefix(below).unwrap().trim_start_matches('/');
        let mut original = std::fs::read(bed.server.datadir().join(name)).unwrap();
        // The flag of a file that is open, which the source does not send.
        original[21] &= !1;
        let exported = std::fs::read(dir.join(path)).unwrap();
        let start = usize::try_from(file["start"].as_u64().unwrap()).unwrap();
        assert_eq!(exported.len(), original.len(), "{path}");
        assert!(exported[start..] == original[start..], "{path} is not what the source has");
        assert_eq!(exported[..4], original[..4]);
        assert_eq!(file["end"], original.len());
    }
    files
}

/// What the server's own reader makes of a file.
fn read_by_the_servers_reader(engine: Engine, file: &Path, start: u64) -> String {
    let program = match engine {
        Engine::MySql => "bin/mysqlbinlog",
        Engine::MariaDb => "bin/mariadb-binlog",
    };
    let output = Command::new(engine.dir().join(program))
        .args(["--no-defaults", "--verify-binlog-checksum", "-v", &format!("--start-position={start}")])
        .arg(file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn the_binlog_files_are_the_sources_own(engine: Engine) {
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v LONGTEXT)",
        "CREATE TABLE shop.kinds (id INT UNSIGNED PRIMARY KEY, n TINYINT, f FLOAT, d DECIMAL(10,2), s TIMESTAMP(3) NULL, \
         y DATE, c CHAR(5), b VARBINARY(5), e ENUM('x', 'y'))",
    ]);
    refused(export(&bed, &["--binlogs", "--into", &bed.text("early")]), 20, &["holdfast timeline shop"]);
    bed.backup();
    bed.server.run(&[
        "INSERT INTO shop.t VALUES (1, REPEAT('one', 100000)), (2, 'two')",
        "FLUSH BINARY LOGS",
        "UPDATE shop.t SET v = 'three'",
        "FLUSH BINARY LOGS",
        "DELETE FROM shop.t WHERE id = 2",
        "SET GLOBAL binlog_row_metadata = FULL",
        "SET time_zone = '+00:00'",
        "INSERT INTO shop.kinds VALUES (4000000000, -1, 0.1, -12.30, '2026-11-22 01:02:03.500', '2026-02-03', \
         'a b', x'ff00', 'y'), (1, NULL, NULL, NULL, NULL, NULL, '', '', NULL)",
        "UPDATE shop.kinds SET n = 5 WHERE id > 1",
    ]);
    bed.plan("latest").ok();
    let dir = bed.path("files");
    let into = bed.text("files");
    let args = ["--binlogs", "--into", &into];
    let outcome = export(&bed, &args);
    let view = outcome.json();
    let files = same_as_the_sources(&bed, &dir, "", &view);
    assert!(files.len() >= 3, "{view}");
    let _ = outcome.ok();
    let start = files[0]["start"].as_u64().unwrap();
    assert_eq!(start, MAGIC_LEN, "a file is archived from its head on: {view}");
    let name = files[0]["file"].as_str().unwrap();
    let original = read_by_the_servers_reader(engine, &bed.server.datadir().join(name), start);
    let ours = read_by_the_servers_reader(engine, &dir.join(name), start);
    let rows = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.starts_with("###")).map(str::to_owned).collect()
    };
    assert!(!rows(&original).is_empty());
    assert!(rows(&ours) == rows(&original), "mysqlbinlog reads something else from {name}");

    refused(export(&bed, &args), 2, &[&into, "is not empty"]);
    let later = bed.text("later");
    let since = files.last().unwrap()["until"].as_str().unwrap();
    let view = export(&bed, &["--binlogs", "--into", &later, "--since", since]).ok().json();
    let newer = same_as_the_sources(&bed, Path::new(&later), "", &view);
    assert_eq!(newer.last().unwrap()["file"], files.last().unwrap()["file"]);
    // MariaDB's times are whole seconds, so earlier files may belong to the same one.
    assert!(newer.iter().all(|file| file["until"].as_str().unwrap() >= since), "{view}");
    let old = ["--binlogs", "--into", &bed.text("old"), "--until", "2001-01-01T00:00:00Z"].map(str::to_owned);
    refused(export(&bed, &old.each_ref().map(String::as_str)), 20, &["of that time"]);

    what_a_transaction_did_is_shown(&bed);
    if engine == Engine::MySql {
        return;
    }
    // In another life the names come again, and the hole between is named.
    bed.server.run(&["RESET MASTER"]);
    bed.backup();
    bed.server.run(&["INSERT INTO shop.t VALUES (9, 'another life')"]);
    bed.plan("latest").ok();
    let lives = bed.text("lives");
    let view = export(&bed, &["--binlogs", "--into", &lives]).expect_code(3).json();
    assert_eq!(view["holes"].as_array().unwrap().len(), 1, "{view}");
    let first = view["files"][0]["file"].as_str().unwrap().split_once('/').unwrap().0.to_owned();
    let last = view["files"].as_array().unwrap().last().unwrap()["file"].as_str().unwrap();
    let last = last.split_once('/').unwrap().0;
    assert_ne!(first, last, "{view}");
    for file in &files {
        let name = file["file"].as_str().unwrap();
        let again = std::fs::read(Path::new(&lives).join(&first).join(name)).unwrap();
        assert!(again == std::fs::read(dir.join(name)).unwrap(), "{name} changed");
    }
    assert!(!same_as_the_sources(&bed, Path::new(&lives), last, &view).is_empty());
}

/// `find --rows-over` and `show` on the same log.
fn what_a_transaction_did_is_shown(bed: &Bed) {
    let found = bed.user.done(&["find", "shop", "--rows-over", "1", "--json"]);
    let found = found["found"].as_array().unwrap();
    let rows = |entry: &Value| -> u64 {
        let table = &entry["tables"][0];
        ["inserted", "updated", "deleted"].iter().map(|kind| table[kind].as_u64().unwrap()).sum()
    };
    assert_eq!(found.iter().map(rows).collect::<Vec<_>>(), [2, 2, 2], "{found:?}");
    let show = |id: &Value, more: &[&str]| {
        bed.user.done(&[["show", "shop", id.as_str().unwrap(), "--json"].as_slice(), more].concat())
    };
    let all = bed.user.done(&["find", "shop", "--json"]);
    let all = all["found"].as_array().unwrap();

    // Columns have names where the log has them.
    let kinds = show(&found[2]["id"], &[]);
    let cells = |row: &Value, image: &str| -> Vec<(String, Value)> {
        let cells = row["cells"].as_array().unwrap().iter();
        cells.map(|cell| (cell["column"].as_str().unwrap().to_owned(), cell[image].clone())).collect()
    };
    let text = |value: &str| Value::from(value);
    let expected = [
        ("id", text("4000000000")),
        ("n", text("-1")),
        ("f", text("0.1")),
        ("d", text("-12.30")),
        ("s", text("2026-11-22 01:02:03.500Z")),
        ("y", text("2026-02-03")),
        ("c", text("a b")),
        ("b", text("0xff00")),
        ("e", text("2")),
    ];
    let expected: Vec<(String, Value)> = expected.map(|(name, value)| (name.to_owned(), value)).into();
    assert_eq!(cells(&kinds["rows"][0], "after"), expected, "{kinds}");
    assert_eq!(kinds["rows"][0]["change"], "insert");
    assert_eq!(kinds["rows"][1]["cells"][1]["after"], Value::Null);
    let last = show(&all.last().unwrap()["id"], &[]);
    let n = &last["rows"][0]["cells"][1];
    assert_eq!(
        (&n["before"], &n["after"], last["more"].as_u64()),
        (&text("-1"), &text("5"), Some(0)),
        "{last}"
    );

    // Else they have numbers; what is not shown is counted, and long values are cut.
    let first = show(&found[0]["id"], &["--limit", "1"]);
    assert_eq!((first["rows"].as_array().unwrap().len(), first["more"].as_u64()), (1, Some(1)));
    let long = &first["rows"][0]["cells"][1];
    assert!(
        long["column"] == "@2" && long["after"].as_str().unwrap().ends_with("... (300000 bytes)"),
        "{long}"
    );
    let printed = bed.user.run(&["show", "shop", found[1]["id"].as_str().unwrap()]).ok().stdout;
    assert!(printed.contains("~ shop.t  @1=2  @2=\"two\" -> \"three\""), "{printed}");
    refused(bed.user.run(&["show", "shop", "pos:binlog.000001:1"]), 20, &["is not in the archive", "find"]);
}

#[test]
fn the_binlog_files_are_the_sources_own_on_mysql() {
    the_binlog_files_are_the_sources_own(Engine::MySql);
}

#[test]
fn the_binlog_files_are_the_sources_own_on_mariadb() {
    the_binlog_files_are_the_sources_own(Engine::MariaDb);
}

/// A server starts on the folder, has the rows of the moment, takes writes, and finds nothing of ours.
fn a_plain_datadir(engine: Engine, dir: &Path) {
    let names = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name());
    for name in names {
        assert!(!name.to_string_lossy().contains("holdfast"), "{name:?} is left in {}", dir.display());
    }
    let server = PrivateServer::start(StartOptions::new(engine.programs(), dir)).unwrap();
    let mut conn = server.connect_as("root", None).unwrap();
    let mut one = |query: &str| conn.query_text(query).unwrap().unwrap_or_default();
    assert_eq!(one("SELECT GROUP_CONCAT(id, v ORDER BY id) FROM shop.t"), "1three,2three");
    assert_eq!(one("SELECT @@GLOBAL.read_only"), "0");
    conn.execute("INSERT INTO shop.t VALUES (7, 'seven')").unwrap();
    drop(conn);
    server.stop(Duration::from_secs(120)).unwrap();
}

/// The restore itself is that of `restore` and `restore finish`, which other tests put both servers through.
#[test]
fn a_moment_comes_out_as_a_plain_datadir() {
    let engine = Engine::MariaDb;
    let bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.t (id INT PRIMARY KEY, v VARCHAR(20))",
        "INSERT INTO shop.t VALUES (1, 'one'), (2, 'two')",
    ]);
    bed.backup();
    bed.server.run(&["UPDATE shop.t SET v = 'three'", "DROP TABLE shop.t"]);
    bed.plan("latest").ok();
    let found = bed.user.done(&["find", "shop", "--like", "DROP%", "--json"]);
    let drop = found["found"][0]["id"].as_str().unwrap().to_owned();
    let engine_dir = engine.dir();
    let moment = ["--before", &drop, "--engine-dir", engine_dir.to_str().unwrap()];
    let (plain, scratch) = (bed.text("plain"), bed.text("scratch"));
    let to_stdout = ["export", "shop", "--tar", "-", "--scratch", &scratch, "--json"];
    let output = bed.user.command("holdfast", &[to_stdout.as_slice(), &moment].concat()).output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(matches!(output.status.code(), Some(0 | 3)), "{told}");
    let view = told.lines().find(|line| line.starts_with('{')).unwrap();
    let view: Value = serde_json::from_str(view).unwrap();
    assert_eq!(view["restored"]["proved"], true);
    assert!(view["options"].as_array().unwrap().contains(&"--innodb-page-size=16384".into()), "{view}");
    assert!(!Path::new(&scratch).exists(), "the scratch folder is left behind");
    std::fs::create_dir(&plain).unwrap();
    let tar = bed.path("it.tar");
    std::fs::write(&tar, output.stdout).unwrap();
    let status = Command::new("tar").arg("-xf").arg(&tar).args(["-C", &plain]).status().unwrap();
    assert!(status.success());
    a_plain_datadir(engine, Path::new(&plain));
}

#[test]
fn a_folder_comes_out_as_a_tar_archive_that_replaces_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let user = holdfast_tests::Holdfast::new(dir.path());
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    user.run(&["init", "--kit", &text("kit")]).ok();
    std::fs::create_dir_all(dir.path().join("things/deep")).unwrap();
    std::fs::write(dir.path().join("things/deep/file"), b"x".repeat(200_000)).unwrap();
    user.run(&["server", "add", "things", "--folder", &text("things")]).ok();
    user.run(&["backup", "things"]).ok();
    let tar = text("things.tar");
    let args = ["export", "things", "--tar", &tar, "--to", "fastest"];
    user.run(&args).ok();
    assert!(!dir.path().join("things.tar.d").exists() && !dir.path().join("things.tar.part").exists());
    std::fs::create_dir(dir.path().join("out")).unwrap();
    let status = Command::new("tar").args(["-xf", &tar, "-C", &text("out")]).status().unwrap();
    assert!(status.success());
    let same = Command::new("diff").args(["-r", &text("things"), &text("out")]).status().unwrap();
    assert!(same.success());
    refused(user.run(&args), 2, &["things.tar is there already"]);
    std::fs::rename(&tar, text("things.tar.part")).unwrap();
    refused(user.run(&args), 2, &["things.tar.part is there already"]);
    assert!(!dir.path().join("things.tar.d").exists(), "nothing was restored for nothing");
}
