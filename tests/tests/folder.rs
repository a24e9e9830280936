//! Folders: what comes back is what was there, names, holes and modes included; and a stopped
//! server's folder comes back as one that a stock server starts on.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_io::{Directory, LockKind, ObjectName, Objects, RealDisk};
use holdfast_tests::{Engine, Holdfast, Ledger, LedgerOptions, Random, TestServer, ledger};

/// What there is at a path: permission bits, and a file's bytes.
#[derive(Debug, PartialEq, Eq)]
enum Thing {
    Folder(u32),
    File(u32, Vec<u8>),
}

/// Everything below `dir`, by its path.
fn tree(dir: &Path) -> BTreeMap<OsString, Thing> {
    let mut all = BTreeMap::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let meta = fs::symlink_metadata(&path).unwrap();
            let mode = meta.mode() & 0o7777;
            let thing = if meta.is_dir() {
                waiting.push(path.clone());
                Thing::Folder(mode)
            } else {
                Thing::File(mode, fs::read(&path).unwrap())
            };
            all.insert(path.strip_prefix(dir).unwrap().as_os_str().to_owned(), thing);
        }
    }
    all
}

fn same(left: &Path, right: &Path) {
    let (left, right) = (tree(left), tree(right));
    let names = |t: &BTreeMap<OsString, Thing>| t.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(&left), names(&right));
    for (name, thing) in &left {
        assert!(thing == &right[name], "{} differs", name.display());
    }
}

/// When each thing below `dir` was changed last, to the microsecond that a map keeps.
fn times(dir: &Path) -> BTreeMap<OsString, (i64, i64)> {
    let time = |name: &OsString| {
        let meta = fs::symlink_metadata(dir.join(name)).unwrap();
        (meta.mtime(), meta.mtime_nsec() / 1000)
    };
    tree(dir).into_keys().map(|name| (name.clone(), time(&name))).collect()
}

fn new_user(dir: &Path) -> Holdfast {
    let user = Holdfast::new(dir);
    user.run(&["init", "--kit", dir.join("kit").to_str().unwrap()]).ok();
    user
}

fn restore_to(user: &Holdfast, to: &str, into: &Path) -> holdfast_tests::Outcome {
    user.run(&["restore", "things", "--to", to, "--into", into.to_str().unwrap(), "--json"])
}

fn take(user: &Holdfast) -> String {
    let taken = user.run(&["backup", "things", "--json"]).ok().json();
    taken["completed"].as_str().unwrap().to_owned()
}

#[test]
fn two_backups_of_a_folder_that_changed_in_between_come_back_exactly() {
    let (mut random, _) = Random::from_environment("two_backups_of_a_folder");
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let things = dir.path().join("things");
    fs::create_dir_all(things.join("deep/er/est")).unwrap();
    fs::create_dir(things.join("nothing in it")).unwrap();
    fs::set_permissions(things.join("nothing in it"), fs::Permissions::from_mode(0o711)).unwrap();
    let mut bytes = |length: usize| (0..length).map(|_| random.below(256) as u8).collect::<Vec<u8>>();
    let write = |name: &OsStr, bytes: &[u8], mode: u32| {
        let path = things.join(name);
        fs::write(&path, bytes).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let long = "n".repeat(255);
    let odd = OsString::from_vec(b"not \xff\xfe UTF-8\n".to_vec());
    write(OsStr::new("empty"), b"", 0o600);
    write(OsStr::new("one block"), &bytes(64 << 10), 0o644);
    write(OsStr::new("a block and a byte"), &bytes((64 << 10) + 1), 0o640);
    write(OsStr::new("zeros"), &vec![0; 300_000], 0o444);
    write(OsStr::new("auto.cnf"), b"no server's", 0o600);
    write(OsStr::new("script"), b"#!/bin/sh\n", 0o755);
    write(OsStr::new(&long), b"long", 0o604);
    write(&odd, b"odd", 0o600);
    write(OsStr::new("deep/er/est/file"), &bytes(1_000_000), 0o600);
    let holey = fs::File::create(things.join("holey")).unwrap();
    holey.set_len(64 << 20).unwrap();
    holey.write_all_at(b"alone", 40 << 20).unwrap();

    let user = new_user(dir.path());
    user.run(&["server", "add", "things", "--folder", things.to_str().unwrap()]).ok();
    let first = take(&user);
    let kept = dir.path().join("kept");
    holdfast_tests::server::copy(&things, &kept);

    // One file grows, one shrinks, one changes in its middle, names and modes change.
    fs::remove_file(things.join("zeros")).unwrap();
    fs::rename(things.join("script"), things.join("deep/script")).unwrap();
    fs::set_permissions(things.join("deep/script"), fs::Permissions::from_mode(0o700)).unwrap();
    write(OsStr::new("empty"), b"no more", 0o600);
    write(OsStr::new("a block and a byte"), b"a byte", 0o640);
    let file = fs::File::options().write(true).open(things.join("deep/er/est/file")).unwrap();
    file.write_all_at(b"changed", 500_000).unwrap();
    fs::remove_dir(things.join("nothing in it")).unwrap();
    let second = take(&user);

    let newest = dir.path().join("newest");
    restore_to(&user, "fastest", &newest).ok();
    same(&things, &newest);
    assert_eq!(times(&things), times(&newest));
    let meta = fs::metadata(newest.join("holey")).unwrap();
    assert!(meta.blocks() * 512 < 4 << 20, "the hole was filled: {} blocks", meta.blocks());
    // The older one by the time that `list` shows, or any up to the next one's.
    let by_time = dir.path().join("by-time");
    restore_to(&user, &first, &by_time).ok();
    same(&kept, &by_time);
    let later = dir.path().join("later");
    restore_to(&user, &second, &later).ok();
    same(&things, &later);

    // Nothing is read that did not change, and the one byte that did is found, whatever is unread beside it.
    std::thread::sleep(Duration::from_millis(2100));
    take(&user);
    file.write_all_at(b"!", 999_999).unwrap();
    let third = take(&user);
    let found = dir.path().join("found");
    restore_to(&user, &third, &found).ok();
    same(&things, &found);

    let early = restore_to(&user, "2001-01-01T00:00:00Z", &dir.path().join("never")).expect_code(20);
    assert!(
        early.stderr.contains("before the first backup") && early.stderr.contains(&first),
        "{}",
        early.stderr
    );
    let no_log = restore_to(&user, "pos:binlog.000001:4", &dir.path().join("never")).expect_code(2);
    assert!(no_log.stderr.contains("is a folder"), "{}", no_log.stderr);
    assert!(!dir.path().join("never").exists());
    user.fsck().ok();
}

#[test]
fn a_backup_that_is_named_comes_back_as_it_is_and_no_other_one() {
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let things = dir.path().join("things");
    fs::create_dir(&things).unwrap();
    let user = new_user(dir.path());
    user.run(&["server", "add", "things", "--folder", things.to_str().unwrap()]).ok();
    let mut ids = Vec::new();
    for (turn, name) in ["first", "second", "third"].into_iter().enumerate() {
        fs::write(things.join("file"), vec![turn as u8; 70_000 + turn]).unwrap();
        let taken = user.run(&["backup", "things", "--name", name, "--json"]).ok().json();
        ids.push(taken["id"].as_str().unwrap().to_owned());
    }
    let id = ids.get(1).unwrap();
    for (at, text) in ["second".to_owned(), id.clone(), id.get(..24).unwrap().to_owned()].iter().enumerate() {
        let into = dir.path().join(format!("restored-{at}"));
        let told = restore_to(&user, &format!("backup:{text}"), &into).ok().json();
        assert_eq!(told["report"]["plan"]["base"], id.as_str(), "{told}");
        assert_eq!(fs::read(into.join("file")).unwrap(), vec![1; 70_001], "{text}");
    }
    let into = dir.path().join("never");
    for (text, word) in [("backup:fourth", "has no backup 'fourth'"), ("backup:", "names no backup")] {
        let refused = restore_to(&user, text, &into).expect_code(2);
        assert!(refused.stderr.contains(word), "{}", refused.stderr);
    }
    // The name of one backup, and the beginning of another one's id.
    let both = id.get(..2).unwrap();
    user.run(&["backup", "things", "--name", both]).ok();
    let many = restore_to(&user, &format!("backup:{both}"), &into).expect_code(2);
    assert!(many.stderr.contains("more than one backup"), "{}", many.stderr);
    assert!(!into.exists());
}

#[test]
fn the_portable_cipher_and_the_thread_pool_read_and_write_the_same_repository() {
    let (mut random, _) = Random::from_environment("the_portable_cipher");
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let things = dir.path().join("things");
    fs::create_dir(&things).unwrap();
    let bytes: Vec<u8> = (0..700_000).map(|_| random.below(256) as u8).collect();
    fs::write(things.join("file"), &bytes).unwrap();
    let user = new_user(dir.path());
    user.run(&["server", "add", "things", "--folder", things.to_str().unwrap()]).ok();
    let ways: [&[(&str, &str)]; 3] =
        [&[], &[("HOLDFAST_AEAD", "portable")], &[("HOLDFAST_IO", "pool"), ("HOLDFAST_AEAD", "portable")]];
    for (number, writes) in ways.iter().enumerate() {
        fs::write(things.join(format!("new-{number}")), &bytes[number * 100_000..]).unwrap();
        let run = |environment: &[(&str, &str)], args: &[&str]| {
            let mut command = user.command("holdfast", args);
            command.envs(environment.iter().copied());
            holdfast_tests::command::finish(command).ok()
        };
        run(writes, &["backup", "things"]);
        for (other, reads) in ways.iter().enumerate() {
            let into = dir.path().join(format!("from-{number}-by-{other}"));
            run(reads, &["restore", "things", "--to", "fastest", "--into", into.to_str().unwrap()]);
            same(&things, &into);
        }
    }
    user.fsck().ok();
    let wrong = {
        let mut command = user.command("holdfast", &["list"]);
        command.env("HOLDFAST_IO", "floppy");
        holdfast_tests::command::finish(command).expect_code(2)
    };
    assert!(wrong.stderr.contains("HOLDFAST_IO"), "{}", wrong.stderr);
}

fn a_stopped_servers_folder_comes_back_and_a_stock_server_starts_on_it(engine: Engine) {
    let (_, seed) = Random::from_environment("a_stopped_servers_folder");
    let mut server = TestServer::start(engine);
    Ledger::create_schema(&server);
    let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
    writers.wait_for(100);
    let acks = writers.stop();
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let user = new_user(dir.path());
    let datadir = server.datadir().to_str().unwrap().to_owned();
    user.run(&["server", "add", "things", "--folder", &datadir]).ok();

    let refused = user.run(&["backup", "things"]).expect_code(1);
    assert!(refused.stderr.contains("in use by a running server"), "{}", refused.stderr);
    assert!(refused.stderr.contains(&datadir), "{}", refused.stderr);
    let none = user.run(&["list", "--json"]).ok().json();
    assert_eq!(none["backups"].as_array().unwrap().len(), 0, "no half backup is listed");

    server.stop();
    user.run(&["backup", "things"]).ok();
    let into = dir.path().join("restored");
    let programs = engine.programs();
    let args = ["restore", "things", "--to", "fastest", "--into", into.to_str().unwrap(), "--engine-dir"];
    user.run(&[args.as_slice(), &[engine.dir().to_str().unwrap()]].concat()).ok();
    let copy = PrivateServer::start(StartOptions::new(programs, &into)).unwrap();
    let held = ledger::check(&mut copy.connect().unwrap(), seed).unwrap();
    assert!(acks.iter().all(|ack| held.holds(ack)));
    copy.stop(Duration::from_secs(60)).unwrap();
    user.fsck().ok();
}

#[test]
fn a_stopped_servers_folder_comes_back_and_a_stock_server_starts_on_it_mysql() {
    a_stopped_servers_folder_comes_back_and_a_stock_server_starts_on_it(Engine::MySql);
}

#[test]
fn a_stopped_servers_folder_comes_back_and_a_stock_server_starts_on_it_mariadb() {
    a_stopped_servers_folder_comes_back_and_a_stock_server_starts_on_it(Engine::MariaDb);
}

#[test]
fn a_re_encryption_that_is_killed_goes_on_by_the_same_command() {
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // A key file, because it costs no time to come in by it.
    let (key, kit, things) = (text("key"), text("kit"), dir.path().join("things"));
    fs::write(&key, [7; 32]).unwrap();
    let run = |args: &[&str]| user.run(&[args, &["--key-file", &key]].concat());
    let mut random = Random::new(5);
    let mut bytes = vec![0; 3 << 20];
    bytes.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&random.next_u64().to_le_bytes()));
    fs::create_dir(&things).unwrap();
    fs::write(things.join("large"), &bytes).unwrap();
    run(&["init", "--kit", &kit]).ok();
    run(&["server", "add", "things", "--folder", &text("things")]).ok();
    run(&["backup", "things"]).ok();
    fs::write(things.join("small"), "small").unwrap();
    run(&["backup", "things"]).ok();
    let copies = ["0", "1", "2"].map(|copy| user.repository().join("keyring").join(copy));
    let old = copies.each_ref().map(|copy| fs::read(copy).unwrap());

    // Killed when the new keys are there and nothing else is: its first record waits for a lock that we hold.
    let objects = Directory::open(RealDisk::shared(), user.repository()).unwrap();
    let manifest = ObjectName::new("locks/manifest").unwrap();
    let lock = objects.lock(&manifest, LockKind::Exclusive, Duration::from_secs(60)).unwrap();
    let rekey = ["key", "rotate", "--rekey", "--key-file", &key];
    let mut child = user.spawn(&rekey, &dir.path().join("first"));
    let begun = Instant::now();
    while fs::read(&copies[2]).unwrap() == old[2] {
        assert!(begun.elapsed() < Duration::from_secs(60), "{}", fs::read_to_string(text("first")).unwrap());
        std::thread::sleep(Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    drop(lock);
    // Killed while it writes the largest segment: by the system, at a limit of the length of files.
    let inner = user.command("holdfast", &rekey);
    let mut limited = Command::new("/bin/sh");
    limited.args(["-c", "ulimit -c 0; ulimit -f 1000; exec \"$0\" \"$@\""]);
    limited.arg(inner.get_program()).args(inner.get_args());
    limited.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let killed = holdfast_tests::command::finish(limited);
    assert_eq!(killed.code, None, "{killed:?}");
    // What is there opens, whole; the same command ends it.
    run(&["fsck", "--full"]).ok();
    let done = run(&["key", "rotate", "--rekey"]).ok().stdout;
    assert!(done.contains("The older keys are gone"), "{done}");
    let segments = fs::read_dir(user.repository().join("segments")).unwrap();
    let names: Vec<OsString> = segments.map(|entry| entry.unwrap().file_name()).collect();
    assert!(names.iter().all(|name| !name.as_encoded_bytes().starts_with(b".")), "{names:?}");
    run(&["fsck", "--full"]).ok();
    let out = dir.path().join("out");
    run(&["restore", "things", "--to", "fastest", "--into", out.to_str().unwrap()]).ok();
    same(&things, &out);
    // Neither the kit of before opens anything, nor the keyring of before with the key that went with it.
    user.run(&["list", "--recovery-kit", &kit]).expect_code(12);
    copies.iter().zip(&old).for_each(|(copy, bytes)| fs::write(copy, bytes).unwrap());
    run(&["list"]).expect_code(12);
}
