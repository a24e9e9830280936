//! Restores that are interrupted in every way, and go on by the same command: a signal, another
//! restore in the same folder, a target whose file system fills up while the log is replayed.
//! And backups that are ended by a signal, which leave nothing behind: in the repository and on the server.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use holdfast_engine::stop_server_on;
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_restore::marker::MARKER;
use holdfast_restore::progress::PROGRESS;
use holdfast_restore::run::SOCKET;
use holdfast_tests::command::finish;
use holdfast_tests::server::scratch;
use holdfast_tests::{Engine, Holdfast, Ledger, LedgerOptions, Outcome, TestServer, ledger};

const SEED: u64 = 11;

/// A protected shop with some 20 MB of log behind its backup.
struct Bed {
    dir: tempfile::TempDir,
    user: Holdfast,
    source: TestServer,
    last: String,
}

impl Bed {
    /// The shop alone, with one backup.
    fn small(engine: Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("signalled-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let source = TestServer::start(engine);
        Ledger::create_schema(&source);
        user.protect(&source);
        let _ = user.done(&["backup", "shop", "--json"]);
        Self { dir, user, source, last: String::new() }
    }

    fn new(engine: Engine) -> Self {
        let dir = tempfile::Builder::new().prefix("interrupted-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let source = TestServer::start(engine);
        Ledger::create_schema(&source);
        source.run(&["CREATE TABLE shop.bulk (n INT AUTO_INCREMENT PRIMARY KEY, body MEDIUMBLOB NOT NULL)"]);
        source.run(&["CREATE TABLE shop.isam (n INT) ENGINE=MyISAM"]);
        user.protect(&source);
        let _ = user.done(&["backup", "shop", "--json"]);
        let writers = Ledger::start(&source, LedgerOptions { seed: SEED, ..LedgerOptions::default() });
        let insert = "INSERT INTO shop.bulk (body) SELECT REPEAT(RANDOM_BYTES(100), 80) FROM \
                      information_schema.COLLATIONS LIMIT 100";
        let insert = if engine == Engine::MySql {
            insert.to_owned()
        } else {
            insert.replace("RANDOM_BYTES(100)", "SHA2(RAND(), 512)")
        };
        for _ in 0..25 {
            source.run(&[&insert]);
        }
        writers.wait_for(150);
        writers.stop();
        let _ = user.done(&["backup", "shop", "--json"]);
        let found = user.done(&["find", "shop", "--limit", "1000000", "--json"]);
        let last = found["found"].as_array().unwrap().last().unwrap()["id"].as_str().unwrap().to_owned();
        // The second backup only fetched the log: what is restored goes through all of it.
        Self { dir, user, source, last }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A restore from the first backup through the whole log, but for its last transaction.
    fn arguments(&self, into: &Path) -> Vec<String> {
        let engine_dir = self.source.engine().dir();
        let words = ["restore", "shop", "--before", &self.last, "--into", into.to_str().unwrap()];
        let more = ["--engine-dir", engine_dir.to_str().unwrap(), "--start", "--prove", "quick"];
        words.iter().chain(&more).map(|&word| word.to_owned()).collect()
    }

    fn restore(&self, into: &Path) -> Outcome {
        let arguments = self.arguments(into);
        self.user.run(&arguments.iter().map(String::as_str).collect::<Vec<_>>())
    }

    fn spawn(&self, into: &Path, log: &Path) -> Child {
        let arguments = self.arguments(into);
        self.user.spawn(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), log)
    }

    /// How many backups are listed.
    fn backups(&self) -> usize {
        self.user.done(&["list", "--json"])["backups"].as_array().unwrap().len()
    }

    /// Names of the sessions in the repository, live ones and those of dead processes.
    fn repository_sessions(&self) -> Vec<std::ffi::OsString> {
        let found = std::fs::read_dir(self.user.repository().join("sessions"));
        found.into_iter().flatten().map(|entry| entry.unwrap().file_name()).collect()
    }

    fn is_whole(&self, into: &Path) {
        let options =
            ConnectOptions::new(Endpoint::Unix(into.join(SOCKET)), "root").tls_mode(TlsMode::Disabled);
        let mut conn = Conn::connect(&options).unwrap();
        ledger::check(&mut conn, SEED).unwrap_or_else(|why| panic!("{why}"));
        let bulk = "SELECT CONCAT(COUNT(*), ' ', BIT_XOR(CRC32(body))) FROM shop.bulk";
        assert_eq!(conn.query_text(bulk).unwrap(), self.source.value(bulk));
        drop(conn);
        stop_server_on(into, Duration::from_secs(60)).unwrap();
    }
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([&format!("-{name}"), &child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Waits for a file of the target folder, and holds the restore up at once.
fn hold_at(child: &mut Child, file: &Path) {
    hold_when(child, &file.display().to_string(), || file.exists());
}

/// Waits until something `holds`, and holds the command up at once.
fn hold_when(child: &mut Child, what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(child.try_wait().unwrap().is_none(), "the command ended before: {what}");
        assert!(Instant::now() < deadline, "did not come: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    signal(child, "STOP");
}

fn end_of(mut child: Child) -> Option<i32> {
    let deadline = Instant::now() + Duration::from_secs(200);
    loop {
        match child.try_wait().unwrap() {
            Some(status) => return status.code(),
            None if Instant::now() > deadline => {
                child.kill().unwrap();
                child.wait().unwrap();
                panic!("the restore did not end");
            }
            None => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

/// Processes of servers whose folder is `into`.
fn servers_on(into: &Path) -> usize {
    processes_with(&[&format!("--datadir={}", into.canonicalize().unwrap().display())])
}

/// Processes that were started with all these words.
fn processes_with(words: &[&str]) -> usize {
    let lines = std::fs::read_dir("/proc").unwrap().filter_map(|entry| {
        let line = std::fs::read(entry.ok()?.path().join("cmdline")).ok()?;
        let has = |wanted: &&str| line.split(|byte| *byte == 0).any(|word| word == wanted.as_bytes());
        Some(words.iter().all(has))
    });
    lines.filter(|found| *found).count()
}

/// Somebody else's statement that makes a backup wait in the middle of its copy. Ends with the server at the latest.
struct Holder {
    session: String,
    thread: JoinHandle<()>,
}

impl Holder {
    fn start(source: &TestServer) -> Self {
        let mut conn = source.root();
        conn.set_read_timeout(Duration::from_secs(600));
        let session = conn.query_text("SELECT CONNECTION_ID()").unwrap().unwrap();
        let statements: &[&str] = match source.engine() {
            // DDL under way: the lock for backups is to be waited for.
            Engine::MySql => &["CREATE TABLE shop.slow AS SELECT SLEEP(600) AS n"],
            Engine::MariaDb => &["BACKUP STAGE START", "SELECT SLEEP(600)"],
        };
        let thread = std::thread::spawn(move || {
            for statement in statements {
                // The last one ends by a KILL.
                let _ = conn.execute(statement);
            }
        });
        let sleeps = format!("WHERE id = {session} AND state = 'User sleep'");
        until("the holder sleeps", || sessions(source, &sleeps) == 1);
        Self { session, thread }
    }

    fn end(self, source: &TestServer) {
        source.run(&[&format!("KILL {}", self.session)]);
        self.thread.join().unwrap();
    }

    /// True once a backup waits for the holder.
    fn is_waited_for(source: &TestServer) -> bool {
        match source.engine() {
            Engine::MySql => {
                let pending = "SELECT COUNT(*) FROM performance_schema.metadata_locks \
                               WHERE object_type = 'BACKUP LOCK' AND lock_status = 'PENDING'";
                source.value(pending).as_deref() == Some("1")
            }
            Engine::MariaDb => {
                sessions(source, "WHERE user = 'backup' AND state LIKE 'Waiting for backup%'") == 1
            }
        }
    }
}

/// Sessions of the server that fit a condition.
fn sessions(source: &TestServer, condition: &str) -> u64 {
    let schema = match source.engine() {
        Engine::MySql => "performance_schema",
        Engine::MariaDb => "information_schema",
    };
    let query = format!("SELECT COUNT(*) FROM {schema}.processlist {condition}");
    source.value(&query).unwrap().parse().unwrap()
}

fn until(what: &str, holds: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !holds() {
        assert!(Instant::now() < deadline, "not within two minutes: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn nothing_goes_on(source: &TestServer) {
    let datadir = format!("--datadir={}", source.datadir().canonicalize().unwrap().display());
    until("no program of the backup runs", || processes_with(&["--stream=xbstream", &datadir]) == 0);
    until("no session of the backup is left", || sessions(source, "WHERE user = 'backup'") == 0);
}

/// Ctrl-C, or a service manager, in the middle of a backup: while it begins, while it waits for the server, and both at
/// once, which ends it without a word. Nothing is listed of it, nothing of it goes on, and the server is free.
fn a_signal_ends_a_backup_and_leaves_nothing_behind(bed: &Bed) {
    let listed = bed.backups();
    let holder = Holder::start(&bed.source);
    for (number, names) in [&["TERM"][..], &["INT"], &["TERM", "INT"]].into_iter().enumerate() {
        let log = bed.path("signalled-backup.log");
        let before = bed.repository_sessions();
        let mut child = bed.user.spawn(&["backup", "shop", "--json"], &log);
        if number == 0 {
            hold_when(&mut child, "a session in the repository", || {
                bed.repository_sessions().iter().any(|session| !before.contains(session))
            });
        } else {
            hold_when(&mut child, "the backup waits for the server", || Holder::is_waited_for(&bed.source));
        }
        for name in names {
            signal(&child, name);
        }
        signal(&child, "CONT");
        let code = end_of(child);
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(code, Some(130), "{names:?}: {said}");
        if names.len() == 1 {
            assert!(
                said.contains("backup of 'shop' was stopped") && said.contains("nothing is listed"),
                "{said}"
            );
        }
        assert_eq!(bed.backups(), listed, "{names:?}: half a backup is listed");
        let _ = bed.user.fsck().ok();
        if names.len() == 1 {
            nothing_goes_on(&bed.source);
        }
    }
    holder.end(&bed.source);
    // What ended without a word could not tell the server, which notices when its wait is over.
    nothing_goes_on(&bed.source);
    // None of its locks is left: definitions and commits go through.
    bed.source.run(&["SET GLOBAL lock_wait_timeout = 60"]);
    bed.source.run_once(&["DROP TABLE IF EXISTS shop.slow"]);
    bed.source
        .run_once(&["CREATE TABLE shop.free (n INT) ENGINE=InnoDB", "INSERT INTO shop.free VALUES (1)"]);
    bed.source.run(&["SET GLOBAL lock_wait_timeout = DEFAULT", "DROP TABLE shop.free"]);
    let _ = bed.user.done(&["backup", "shop", "--json"]);
    assert_eq!(bed.backups(), listed + 1);
}

/// Ctrl-C, or a service manager: in the middle of the layout, and in the middle of replay.
fn a_signal_ends_it_cleanly_and_it_goes_on(bed: &Bed) {
    let into = bed.path("signalled");
    for (name, file, words) in [("TERM", MARKER, "starts it again"), ("INT", PROGRESS, "goes on from here")] {
        let log = bed.path("signalled.log");
        let mut child = bed.spawn(&into, &log);
        hold_at(&mut child, &into.join(file));
        signal(&child, name);
        signal(&child, "CONT");
        assert_eq!(end_of(child), Some(130), "{}", std::fs::read_to_string(&log).unwrap());
        let said = std::fs::read_to_string(&log).unwrap();
        assert!(said.contains(words) && said.contains(into.to_str().unwrap()), "{name}: {said}");
        assert_eq!(servers_on(&into), 0, "{name}: its private server runs on");
    }
    let _ = bed.restore(&into).accepted();
    bed.is_whole(&into);
}

fn a_folder_in_use_is_refused_and_the_first_restore_is_not_disturbed(bed: &Bed) {
    let into = bed.path("in-use");
    let log = bed.path("in-use.log");
    let mut first = bed.spawn(&into, &log);
    hold_at(&mut first, &into.join(MARKER));
    let second = bed.restore(&into).expect_code(11);
    assert!(second.stderr.contains("nother restore") && second.stderr.contains(into.to_str().unwrap()));
    let engine_dir = bed.source.engine().dir();
    let finish = ["restore", "finish", into.to_str().unwrap(), "--engine-dir", engine_dir.to_str().unwrap()];
    assert_ne!(bed.user.run(&finish).code, Some(0), "a restore under way is not handed over");
    signal(&first, "CONT");
    assert!(matches!(end_of(first), Some(0 | 3)), "{}", std::fs::read_to_string(&log).unwrap());
    bed.is_whole(&into);
}

/// A file system in memory that shrinks and grows; unmounted when dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: PathBuf, size: &str) -> Self {
        std::fs::create_dir_all(&at).unwrap();
        run("mount", &["-t", "tmpfs", "-o", &format!("size={size}"), "holdfast-test", at.to_str().unwrap()]);
        Self(at)
    }

    fn resize(&self, size: &str) {
        run("mount", &["-o", &format!("remount,size={size}"), self.0.to_str().unwrap()]);
    }

    /// Leaves 1 MiB of space. The server beside the stopped restore may write meanwhile, and less than what is used the
    /// kernel refuses: then what is used is asked for again.
    fn fill(&self) {
        for _ in 0..100 {
            let size = format!("remount,size={}k", self.used_kib() + 1024);
            let mut command = Command::new("mount");
            command.args(["-o", &size]).arg(&self.0);
            if finish(command).code == Some(0) {
                return;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        panic!("{} cannot be made smaller", self.0.display());
    }

    fn used_kib(&self) -> u64 {
        let stat = rustix::fs::statvfs(&self.0).unwrap();
        (stat.f_blocks - stat.f_bfree) * stat.f_frsize / 1024
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A server that was killed a moment ago may still hold it, until its memory is given back.
        for _ in 0..300 {
            if Command::new("umount").arg(&self.0).output().is_ok_and(|out| out.status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        // Out of the way at once; it is gone when its last user is.
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).output();
    }
}

fn run(program: &str, args: &[&str]) {
    let mut command = Command::new(program);
    command.args(args);
    let outcome = finish(command);
    assert_eq!(outcome.code, Some(0), "mounting needs root and CAP_SYS_ADMIN: {}", outcome.stderr);
}

fn a_target_that_fills_up_is_told_and_goes_on_once_there_is_space(bed: &Bed) {
    let disk = Disk::mount(bed.path("small"), "3g");
    let into = disk.0.join("restored");
    for file in [MARKER, PROGRESS] {
        let log = bed.path("full.log");
        let mut child = bed.spawn(&into, &log);
        hold_at(&mut child, &into.join(file));
        disk.fill();
        signal(&child, "CONT");
        let code = end_of(child);
        let said = std::fs::read_to_string(&log).unwrap();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains("is full") && said.contains("the same command"), "{said}");
        assert!(said.contains(into.to_str().unwrap()), "{said}");
        assert_eq!(servers_on(&into), 0, "its private server runs on");
        disk.resize("3g");
    }
    let outcome = bed.restore(&into).accepted();
    assert!(outcome.stdout.contains("went on"), "{}", outcome.stdout);
    if bed.source.engine() == Engine::MySql {
        // A clone has no rows of other engines than InnoDB: it is proved as far as it goes, and not exit status 0.
        assert_eq!(outcome.code, Some(3));
        assert!(outcome.stdout.contains("LACKS        the rows of shop.isam"), "{}", outcome.stdout);
    }
    bed.is_whole(&into);
}

#[test]
fn a_signal_ends_a_backup_and_leaves_nothing_behind_on_mysql() {
    a_signal_ends_a_backup_and_leaves_nothing_behind(&Bed::small(Engine::MySql));
}

#[test]
fn a_signal_ends_a_backup_and_leaves_nothing_behind_on_mariadb() {
    a_signal_ends_a_backup_and_leaves_nothing_behind(&Bed::small(Engine::MariaDb));
}

fn all(engine: Engine) {
    let bed = Bed::new(engine);
    a_signal_ends_it_cleanly_and_it_goes_on(&bed);
    a_folder_in_use_is_refused_and_the_first_restore_is_not_disturbed(&bed);
    a_target_that_fills_up_is_told_and_goes_on_once_there_is_space(&bed);
}

#[test]
fn interrupted_restores_go_on_by_the_same_command_on_mysql() {
    all(Engine::MySql);
}

#[test]
fn interrupted_restores_go_on_by_the_same_command_on_mariadb() {
    all(Engine::MariaDb);
}
