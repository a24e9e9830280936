//! `restore --in-place` over a server's own data directory, killed on the way, and `--undo`.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::time::{Duration, Instant};

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_tests::bed::{Bed, refused};
use holdfast_tests::{Engine, ServerState, differences};

/// What the test's own server holds, started for the question alone.
fn state_of(bed: &mut Bed) -> ServerState {
    bed.server.start_again();
    let state = ServerState::read(&mut bed.server.root()).unwrap();
    bed.server.stop();
    state
}

fn a_servers_own_folder_is_restored_over_and_back(engine: Engine) {
    let mut bed = Bed::new(engine, &[]);
    bed.server.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.orders (id INT PRIMARY KEY AUTO_INCREMENT, text VARCHAR(200) NOT NULL)",
        "INSERT INTO shop.orders (text) VALUES ('kept')",
    ]);
    bed.backup();
    std::thread::sleep(Duration::from_millis(1100));
    let early = bed.now();
    std::thread::sleep(Duration::from_millis(1100));
    bed.server.run(&[
        "INSERT INTO shop.orders (text) VALUES ('later')",
        "CREATE TABLE shop.later (id INT PRIMARY KEY)",
    ]);
    bed.backup();
    let backups = bed.backups();

    let folder = bed.server.datadir().to_path_buf();
    let (shown, programs) = (folder.to_str().unwrap().to_owned(), engine.dir());
    let name = folder.file_name().unwrap().to_str().unwrap().to_owned();
    let base = ["restore", "shop", "--engine-dir", programs.to_str().unwrap(), "--prove", "quick"];
    let early_to: &str = &early;
    let restore = |bed: &Bed, more: &[&str]| {
        bed.user.run(&[base.as_slice(), &["--to", early_to, "--in-place"], more].concat())
    };
    let undo = |bed: &Bed| bed.user.run(&["restore", "shop", "--undo", "--json"]);
    let mark = folder.join("holdfast-in-place.json");

    what_would_stop_it_later_is_said_while_the_server_runs(&mut bed, &base);
    // Nothing is touched while it runs, in a folder of another server, or where nothing was restored.
    refused(restore(&bed, &[]), 11, &["in use", "--stop-command"]);
    refused(undo(&bed), 2, &["No restore in place"]);
    let other = bed.text("other");
    fs::create_dir(&other).unwrap();
    fs::write(bed.path("other/auto.cnf"), "[auto]\nserver-uuid=not-ours\n").unwrap();
    refused(restore(&bed, &[&other]), 2, &["never had", "--confirm"]);
    assert!(!mark.exists() && !folder.join("holdfast-in-place.lock").exists());
    assert_eq!(bed.backups(), backups, "nothing was saved");

    bed.server.stop();
    // Nobody archives these: they are in the folder alone.
    bed.server.start_again();
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('never archived')"]);
    bed.server.stop();
    let before = state_of(&mut bed);
    let uuid = fs::read(folder.join("auto.cnf")).ok();
    let plan = restore(&bed, &["--dry-run", "--json"]).ok().json();
    assert!(plan["delta"]["bytes_kept"].as_u64().unwrap() > 0, "{plan}");
    assert!(!mark.exists(), "a plan changes nothing");

    // Killed when what is there was saved, and the folder is about to be written to.
    let args = [base.as_slice(), &["--to", &early, "--in-place"]].concat();
    let mut child = bed.user.spawn(&args, &bed.path("killed"));
    let deadline = Instant::now() + Duration::from_secs(120);
    while !folder.join("holdfast-restore.json").exists() {
        assert!(child.try_wait().unwrap().is_none(), "{}", fs::read_to_string(bed.path("killed")).unwrap());
        assert!(Instant::now() < deadline);
        std::thread::sleep(Duration::from_millis(1));
    }
    assert!(fs::read_to_string(&mark).unwrap().contains("restoring"));
    std::thread::sleep(Duration::from_millis(300));
    child.kill().unwrap();
    child.wait().unwrap();
    let saved = bed.backups();
    assert_eq!(saved, backups + 1);

    let done = restore(&bed, &["--json"]).accepted().json();
    assert_eq!(done["proved"], true, "{done}");
    assert_eq!(bed.backups(), saved, "what was there is not saved a second time");
    assert!(done["report"]["laid_out"]["blocks_kept"].as_u64().unwrap() > 0, "{done}");
    let save = done["saved"]["id"].as_str().unwrap().to_owned();
    bed.user.run(&["restore", "finish", &shown, "--engine-dir", programs.to_str().unwrap()]).ok();
    bed.server.start_again();
    assert_eq!(bed.server.value("SELECT GROUP_CONCAT(text) FROM shop.orders").as_deref(), Some("kept"));
    bed.server.run(&["INSERT INTO shop.orders (text) VALUES ('after the restore')"]);
    // It runs: an undo stops it by the command that is given.
    refused(undo(&bed), 11, &["in use"]);
    let pid = bed.server.server().pid().to_string();
    let stop = format!("kill {pid}");
    let undone = bed.user.run(&["restore", "shop", "--undo", "--stop-command", &stop, "--json"]).ok().json();
    bed.server.kill();
    assert_eq!(undone["laid_back"]["id"], save.as_str());
    assert!(undone["blocks_kept"].as_u64().unwrap() > 0, "{undone}");
    assert_eq!(fs::read(folder.join("auto.cnf")).ok(), uuid, "with its identity");
    let found = differences(&state_of(&mut bed), &before);
    assert!(found.is_empty(), "{found:?}");

    // What the undo wrote over comes back with another one, and that is the end of it.
    let again = undo(&bed).ok().json();
    assert_eq!(again["laid_back"]["id"], undone["saved"]["id"]);
    bed.server.start_again();
    let texts = bed.server.value("SELECT GROUP_CONCAT(text ORDER BY id) FROM shop.orders");
    assert_eq!(texts.as_deref(), Some("kept,after the restore"));
    bed.server.stop();

    // What is behind a fence is saved as well: whoever wrote there all the same gets it back.
    let backups = bed.backups();
    let done = restore(&bed, &[&shown, "--confirm", &name, "--json"]).accepted().json();
    assert_eq!(bed.backups(), backups + 1);
    let first = done["saved"]["id"].as_str().unwrap().to_owned();
    let server = PrivateServer::start(StartOptions::new(engine.programs(), &folder)).unwrap();
    let mut conn = server.connect().unwrap();
    if engine == Engine::MySql {
        conn.execute("SET GLOBAL super_read_only = OFF").unwrap();
    }
    conn.execute("INSERT INTO shop.orders (text) VALUES ('over the fence')").unwrap();
    drop(conn);
    server.stop(Duration::from_secs(120)).unwrap();
    let done = restore(&bed, &[&shown, "--json"]).accepted().json();
    assert_eq!(bed.backups(), backups + 2);
    assert_ne!(done["saved"]["id"], first.as_str());
    let undone = undo(&bed).ok().json();
    assert_eq!(undone["laid_back"]["id"], done["saved"]["id"]);
    assert!(!folder.join("holdfast-restore.json").exists());
    bed.server.start_again();
    let texts = bed.server.value("SELECT GROUP_CONCAT(text ORDER BY id) FROM shop.orders");
    assert_eq!(texts.as_deref(), Some("kept,over the fence"));
    let fence = ["mysqld-auto.cnf", "mysqld-auto.cnf.source", "holdfast-fence.cnf"];
    assert!(!fence.iter().any(|name| folder.join(name).exists()), "no fence comes back");
    bed.server.stop();

    // Without room for what is there: only with the folder's name, and then it is lost.
    let done = restore(&bed, &[&shown, "--json"]).accepted().json();
    let kept = bed.backups();
    let unsaved = |more: &[&str]| {
        bed.user.run(&[&["restore", "shop", "--undo", &shown, "--no-save", "--json"], more].concat())
    };
    refused(unsaved(&[]), 2, &["would be lost", &format!("--confirm {name}")]);
    refused(unsaved(&["--confirm", "other"]), 2, &["'other' is not the name"]);
    let undone = unsaved(&["--confirm", &name]).ok().json();
    assert_eq!(
        (&undone["laid_back"]["id"], &undone["saved"]),
        (&done["saved"]["id"], &serde_json::Value::Null)
    );
    assert_eq!(bed.backups(), kept, "something was saved");
    assert!(!mark.exists(), "there is nothing to be undone");
    bed.server.start_again();
    let texts = bed.server.value("SELECT GROUP_CONCAT(text ORDER BY id) FROM shop.orders");
    assert_eq!(texts.as_deref(), Some("kept,over the fence"));
    bed.server.stop();

    // Into a folder that is lost, by its id; and no other backup.
    let lost = bed.text("lost");
    let saved = ["restore", "shop", "--undo", &lost, "--saved"];
    let ids = bed.user.run(&["list", "shop", "--json"]).ok().json();
    let plain = ids["backups"][0]["id"].as_str().unwrap();
    refused(
        bed.user.run(&[&saved[..], &[plain]].concat()),
        2,
        &["does not hold what was in a data directory"],
    );
    bed.user.run(&[&saved[..], &[&save]].concat()).ok();
    let server = PrivateServer::start(StartOptions::new(engine.programs(), &lost)).unwrap();
    let found = differences(&ServerState::read(&mut server.connect().unwrap()).unwrap(), &before);
    assert!(found.is_empty(), "{found:?}");
    server.stop(Duration::from_secs(120)).unwrap();
    refused(bed.user.run(&["forget", &save]), 23, &["locked"]);
    bed.user.fsck().ok();
    let status = bed.user.run(&["list", "shop", "--json"]).ok().json();
    let notes = status["backups"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|b| b["note"].as_str().is_some_and(|note| note.contains("before a restore in place")));
    assert!(notes.count() >= 4, "{status}");
    // What was saved begins no restore.
    let fastest = bed.plan("fastest").ok().stdout;
    assert!(fastest.contains("it stands"), "{fastest}");
    assert!(!fastest.contains("no place in a log"), "{fastest}");
}

/// Encrypted tables, and what can't be replayed: the server goes on, and is not even told to stop.
fn what_would_stop_it_later_is_said_while_the_server_runs(bed: &mut Bed, base: &[&str]) {
    let touched = bed.text("stopped");
    let stop = format!("touch {touched}");
    let latest = [base, &["--to", "latest", "--in-place", "--stop-command", &stop]].concat();
    // The first page of a tablespace, encrypted by its flags.
    let mut page = vec![0_u8; 16 << 10];
    page[24..26].copy_from_slice(&8_u16.to_be_bytes());
    page[54..58].copy_from_slice(&0x6021_u32.to_be_bytes());
    let secret = bed.server.datadir().join("shop/secret.ibd");
    fs::write(&secret, page).unwrap();
    refused(bed.user.run(&latest), 2, &["shop/secret.ibd", "encrypted", "no server was stopped"]);
    fs::remove_file(&secret).unwrap();
    if bed.server.engine() == Engine::MariaDb {
        // Whom it is about is known to the session alone.
        bed.server.run(&["GRANT SELECT ON shop.* TO CURRENT_USER"]);
        let said = ["can't be replayed exactly", "the account that ran it", "no server was stopped"];
        refused(bed.user.run(&latest), 1, &said);
    }
    assert!(!bed.path("stopped").exists(), "the server was told to stop");
    assert_eq!(bed.server.value("SELECT COUNT(*) FROM shop.orders").as_deref(), Some("2"));
}

#[test]
fn a_servers_own_folder_is_restored_over_and_back_mysql() {
    a_servers_own_folder_is_restored_over_and_back(Engine::MySql);
}

#[test]
fn a_servers_own_folder_is_restored_over_and_back_mariadb() {
    a_servers_own_folder_is_restored_over_and_back(Engine::MariaDb);
}
