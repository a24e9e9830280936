//! Restores on real servers, with our own sources and the server's own binlog files: to a point
//! in the middle of everything, proved, equal to a replica that stopped there; and proofs that fail.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_format::record::{Coordinates, SourceKind};
use holdfast_mysql::Conn;
use holdfast_replay::net::Mode;
use holdfast_restore::error::Foreign;
use holdfast_restore::progress::Progress;
use holdfast_restore::report::Verdict;
use holdfast_restore::{
    Base, Error, LaidOut, LayingOut, Plan, Prove, Request, Restored, Side, Step, Target, Watch, finish, plan,
    run,
};
use holdfast_tests::copied::Copied;
use holdfast_tests::files_log::{Entry, FilesLog};
use holdfast_tests::server::scratch;
use holdfast_tests::{
    Engine, Ledger, LedgerOptions, Random, ServerState, StopOnDrop, TestServer, differences, ledger, replica,
};

/// A source that wrote, was copied under load, wrote on, and lost its orders.
struct Bed {
    dir: tempfile::TempDir,
    source: TestServer,
    seed: u64,
    base: Copied,
    log: FilesLog,
    mode: Mode,
}

impl Bed {
    fn make(engine: Engine) -> Self {
        let (_, seed) = Random::from_environment("restore");
        let dir = tempfile::Builder::new().prefix("holdfast-restore-").tempdir_in(scratch()).unwrap();
        let source = TestServer::start(engine);
        Ledger::create_schema(&source);
        source.run(&[
            "CREATE TABLE shop.notes (a INT, b VARCHAR(20))",
            "INSERT INTO shop.notes VALUES (1, 'one')",
            "CREATE TABLE shop.planted (n INT PRIMARY KEY, v VARCHAR(20) NOT NULL)",
        ]);
        let writers = Ledger::start(&source, LedgerOptions { seed, ..LedgerOptions::default() });
        writers.wait_for(150);
        let base = Copied::take(&source, dir.path());
        writers.wait_for(150);
        source.run(&[
            "CREATE TABLE shop.season (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20), n FLOAT, d DATETIME(3), \
             t TIME(3), u TIME)",
            "INSERT INTO shop.season (name, n, d, t, u) VALUES ('spring', 0.1, NOW(3), '-12:34:56.789', '838:59:59'), \
             ('summer', 2.5, NULL, '-00:00:00.5', '-00:00:01'), ('f', 3, NULL, NULL, NULL)",
            "DELETE FROM shop.season WHERE name = 'f'",
            "UPDATE shop.season SET id = id + 10, n = n * 3 WHERE name = 'summer'",
            "CREATE TABLE shop.big AS SELECT id, amount FROM shop.orders",
            "TRUNCATE TABLE shop.notes",
            "INSERT INTO shop.notes VALUES (2, 'two'), (2, 'two')",
            "CREATE USER clerk@localhost IDENTIFIED BY 'Clerk-of-1-shop'",
            "GRANT SELECT ON shop.* TO clerk@localhost",
            "CREATE EVENT shop.tick ON SCHEDULE EVERY 1 DAY DO DELETE FROM shop.notes",
            "INSERT INTO shop.planted VALUES (1, 'in the middle')",
        ]);
        writers.wait_for(100);
        let acks = writers.stop();
        assert!(acks.len() >= 400);
        source.run(&["INSERT INTO shop.planted VALUES (2, 'at the end')"]);
        source.run(&["DROP TABLE shop.items", "DROP TABLE shop.orders", "FLUSH BINARY LOGS"]);
        let log = FilesLog::of(source.datadir());
        Self { dir, source, seed, base, log, mode: Mode::Net }
    }

    fn plan_before(&self, statement: &str) -> Plan {
        let id = self.log.entries[self.log.find(statement)].gtid.clone();
        let target = Target::Transaction { id, side: Side::Before };
        plan(&[&self.base], &self.log, &target).unwrap().1
    }

    fn restore(
        &self,
        plan: &Plan,
        folder: &Path,
        level: Prove,
        watch: &dyn Watch,
    ) -> Result<Restored, Error> {
        let programs = self.source.engine().programs();
        run(&Request {
            mode: self.mode,
            server: "shop",
            base: &self.base,
            log: Some(&self.log),
            plan,
            folder,
            programs: Some(&programs),
            level,
            start: None,
            going_on: false,
            over: None,
            tables: None,
            replica: None,
            config: None,
            queries: None,
            watch,
        })
    }

    fn open(&self, folder: &Path) -> PrivateServer {
        PrivateServer::start(StartOptions::new(self.source.engine().programs(), folder)).unwrap()
    }
}

struct Patient;

impl Watch for Patient {
    fn step(&self, _: Step) {}
    fn cancelled(&self) -> bool {
        false
    }
}

fn one(conn: &mut Conn, query: &str) -> String {
    conn.query_text(query).unwrap().unwrap_or_default()
}

fn a_restore_to_just_before_a_drop_is_proved_and_equals_a_replica_stopped_there(engine: Engine) {
    let bed = Bed::make(engine);
    let plan = bed.plan_before("`items`");
    let last = plan.last_kept.clone().unwrap().gtid.unwrap();
    let folder = bed.dir.path().join("restored");
    let restored = bed.restore(&plan, &folder, Prove::Full, &Patient).unwrap();
    let report = &restored.report;
    println!("{}", serde_json::to_string_pretty(report).unwrap());
    assert!(report.proved && report.transactions_replayed > 100);
    let verdict = |name: &str| report.checks.iter().find(|check| check.name == name).unwrap().verdict;
    for name in ["coordinates", "blocks", "tables-open", "definitions", "check-table"] {
        assert_eq!(verdict(name), Verdict::Ok, "{name}");
    }
    // On MariaDB the log lacks what cascades did, so some tables are not counted, and it says so.
    let counted = if engine == Engine::MySql { Verdict::Ok } else { Verdict::Partly };
    assert_eq!(verdict("row-counts"), counted);

    let uuid = one(&mut bed.source.root(), "SELECT @@server_id");
    let server = bed.open(&folder);
    let mut conn = server.connect().unwrap();
    let held = ledger::check(&mut conn, bed.seed).unwrap();
    assert!(held.transactions >= 400);
    assert_ne!(one(&mut conn, "SELECT @@server_id"), uuid);
    let twin = replica::replica_until(&bed.source, &last);
    let expected = ServerState::read(&mut twin.root()).unwrap().as_on_a_replica();
    let found = ServerState::read(&mut conn).unwrap();
    assert!(found.objects["EVENT `shop`.`tick`"].contains(" ENABLE "), "a restored server is no replica");
    assert_eq!(differences(&expected, &found.as_on_a_replica()), Vec::<String>::new());
    server.stop(Duration::from_secs(60)).unwrap();

    // Fenced until finish, and not to be overwritten.
    assert!(matches!(bed.restore(&plan, &folder, Prove::Quick, &Patient), Err(Error::NotEmpty { .. })));
    assert!(std::fs::read_to_string(folder.join("holdfast-fence.cnf")).unwrap().contains("read_only=ON"));
    if engine == Engine::MySql {
        // Whoever starts it, with whichever option file.
        let mut server = Started::by_hand(&bed, &folder);
        let mut conn = server.root();
        assert_eq!(one(&mut conn, "SELECT @@super_read_only"), "1");
        let refused = conn.execute("INSERT INTO shop.notes VALUES (3, 'three')").unwrap_err();
        assert_eq!(refused.code(), Some(1290));
        server.stop();
    }
    let finished = finish::finish(&folder, &engine.programs()).unwrap();
    assert_eq!(finished.marker.server, "shop");
    assert!(finish::finish(&folder, &engine.programs()).is_err(), "it is finished already");
    if engine == Engine::MySql {
        let mut server = Started::by_hand(&bed, &folder);
        assert_eq!(one(&mut server.root(), "SELECT @@super_read_only"), "0");
        server.stop();
    }
    let server = bed.open(&folder);
    let mut conn = server.connect().unwrap();
    conn.execute("INSERT INTO shop.notes VALUES (3, 'three')").unwrap();
    let accounts = "SELECT COUNT(*) FROM mysql.user WHERE user LIKE 'holdfast\\_private%'";
    assert_eq!(one(&mut conn, accounts), "1", "only the account of this start");
    let ours = "SELECT COUNT(*) FROM information_schema.schemata WHERE schema_name LIKE '\\_\\_holdfast%'";
    assert_eq!(one(&mut conn, ours), "0");
}

/// A server that a person starts, with an option file of his own (here an empty one).
struct Started {
    child: std::process::Child,
    socket: PathBuf,
}

impl Started {
    fn by_hand(bed: &Bed, folder: &Path) -> Self {
        let socket = bed.dir.path().join("by-hand.sock");
        let _ = std::fs::remove_file(&socket);
        let child = std::process::Command::new(bed.source.engine().programs().server)
            .args(["--defaults-file=/dev/null", "--user=root", "--skip-networking", "--mysqlx=OFF"])
            .args(["--secure-file-priv=NULL", "--skip-log-bin", "--innodb-buffer-pool-size=64M"])
            .arg(format!("--datadir={}", folder.display()))
            .arg(format!("--socket={}", socket.display()))
            .arg(format!("--tmpdir={}", bed.dir.path().display()))
            .arg(format!("--log-error={}", bed.dir.path().join("by-hand.log").display()))
            .spawn()
            .unwrap();
        Self { child, socket }
    }

    fn root(&mut self) -> Conn {
        let options =
            holdfast_mysql::ConnectOptions::new(holdfast_mysql::Endpoint::Unix(self.socket.clone()), "root");
        for _ in 0..1800 {
            if let Ok(conn) = Conn::connect(&options) {
                return conn;
            }
            assert!(self.child.try_wait().unwrap().is_none(), "the server ended");
            std::thread::sleep(Duration::from_millis(100));
        }
        unreachable!("the server did not start within three minutes")
    }

    fn stop(&mut self) {
        self.root().execute("SHUTDOWN").unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn on_mysql_a_restore_to_just_before_a_drop_is_proved_and_equals_a_replica_stopped_there() {
    a_restore_to_just_before_a_drop_is_proved_and_equals_a_replica_stopped_there(Engine::MySql);
}

#[test]
fn on_mariadb_a_restore_to_just_before_a_drop_is_proved_and_equals_a_replica_stopped_there() {
    a_restore_to_just_before_a_drop_is_proved_and_equals_a_replica_stopped_there(Engine::MariaDb);
}

/// Called off in the middle of replay.
struct Impatient(AtomicBool);

impl Watch for Impatient {
    fn step(&self, step: Step) {
        if matches!(step, Step::Replay { transactions: 120.., .. }) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    fn cancelled(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

fn a_restore_that_was_cut_off_goes_on_and_one_that_lost_a_transaction_is_not_proved(engine: Engine) {
    let mut bed = Bed::make(engine);
    let plan = bed.plan_before("`items`");
    // Small groups, so that little has to be done before a kill finds something on record.
    bed.mode = Mode::Serial;
    let folder = bed.dir.path().join("restored");
    let cut = bed.restore(&plan, &folder, Prove::Quick, &Impatient(AtomicBool::new(false)));
    assert!(matches!(cut, Err(Error::Cancelled { .. })), "{cut:?}");
    assert!(finish::finish(&folder, &engine.programs()).is_err(), "an unfinished restore is not handed over");
    std::fs::write(folder.join("holdfast-not-laid-out-anew"), "").unwrap();
    // Killed under us, by whoever: its replay is on record in it.
    let died = bed.restore(&plan, &folder, Prove::Quick, &Murderous(folder.clone(), AtomicBool::new(false)));
    assert!(died.is_err(), "the server was killed in the middle of replay");
    let went_on = bed.restore(&plan, &folder, Prove::Quick, &Impatient(AtomicBool::new(false)));
    assert!(matches!(went_on, Err(Error::Cancelled { .. })), "{went_on:?}");
    let restored = bed.restore(&plan, &folder, Prove::Standard, &Patient).unwrap();
    assert!(restored.report.proved && restored.report.went_on_after.is_some_and(|done| done >= 120));
    assert!(restored.report.transactions_replayed > 100, "those of earlier runs count, too");
    assert!(folder.join("holdfast-not-laid-out-anew").exists(), "it goes on and does not start over");
    rolled_forward(&bed, &plan, &folder);

    // A crash of the host takes back what replay did not sync: from the base again.
    let folder = bed.dir.path().join("crashed");
    let cut = bed.restore(&plan, &folder, Prove::Quick, &Impatient(AtomicBool::new(false)));
    assert!(matches!(cut, Err(Error::Cancelled { .. })), "{cut:?}");
    let mut progress = Progress::read(&folder).unwrap().unwrap();
    progress.boot_id = "another boot".to_owned();
    progress.write(&folder).unwrap();
    let restored = bed.restore(&plan, &folder, Prove::Quick, &Patient).unwrap();
    assert_eq!(restored.report.went_on_after, None);
    if engine == Engine::MariaDb {
        finishes_what_another_version_left(&mut bed, &plan);
    }
    bed.mode = Mode::Net;

    // The log is read four times at this level: scan, names of tables, replay, proof. Replay alone loses one
    // transaction, whose row no other one touches: replay can't notice, and the proof must.
    for index in planted(&bed) {
        bed.log.lose = Some((3, index));
        bed.log.count_reads_from_here();
        let folder = bed.dir.path().join(format!("lost-{index}"));
        let error = bed.restore(&plan, &folder, Prove::Standard, &Patient).unwrap_err();
        assert_eq!(error.exit_code(), Some(22), "{error}");
        let Error::NotProved { failures, report } = error else {
            unreachable!("not the proof's finding: {error}")
        };
        assert!(failures.iter().any(|found| found.contains("planted")), "{failures:?}");
        assert!(!report.proved);
        bed.log.lose = None;
    }
}

/// A part of a window is on record that this version cuts in another way: from the base again, by the same command.
fn finishes_what_another_version_left(bed: &mut Bed, plan: &Plan) {
    bed.mode = Mode::Serial;
    let folder = bed.dir.path().join("other-window");
    let cut = bed.restore(plan, &folder, Prove::Quick, &Impatient(AtomicBool::new(false)));
    assert!(matches!(cut, Err(Error::Cancelled { .. })), "{cut:?}");
    let server = bed.open(&folder);
    let mut conn = server.connect().unwrap();
    conn.execute(
        "UPDATE __holdfast.replay SET window_until = done + 20, window_inside = 0, window_print = 1, window_chunk = 500",
    )
    .unwrap();
    conn.execute("INSERT INTO __holdfast.chunk VALUES (0)").unwrap();
    server.stop(Duration::from_secs(60)).unwrap();
    bed.mode = Mode::Net;
    let restored = bed.restore(plan, &folder, Prove::Standard, &Patient).unwrap();
    let report = &restored.report;
    assert!(report.proved && report.went_on_after.is_none(), "{report:?}");
    assert!(report.remarks.iter().any(|line| line.contains("of another version")), "{report:?}");
}

#[test]
fn on_mysql_a_restore_that_was_cut_off_goes_on_and_one_that_lost_a_transaction_is_not_proved() {
    a_restore_that_was_cut_off_goes_on_and_one_that_lost_a_transaction_is_not_proved(Engine::MySql);
}

#[test]
fn on_mariadb_a_restore_that_was_cut_off_goes_on_and_one_that_lost_a_transaction_is_not_proved() {
    a_restore_that_was_cut_off_goes_on_and_one_that_lost_a_transaction_is_not_proved(Engine::MariaDb);
}

/// Kills the private server in the middle of replay.
struct Murderous(PathBuf, AtomicBool);

impl Watch for Murderous {
    fn step(&self, step: Step) {
        if matches!(step, Step::Replay { transactions: 200.., .. }) && !self.1.swap(true, Ordering::Relaxed) {
            assert!(holdfast_engine::kill_server_on(&self.0).unwrap());
        }
    }
    fn cancelled(&self) -> bool {
        false
    }
}

/// A finished restore to just before the first drop is rolled forward, and not after somebody wrote to it.
fn rolled_forward(bed: &Bed, earlier: &Plan, folder: &Path) {
    let later = bed.plan_before("`orders`");
    assert!(later.log.unwrap().until > earlier.log.unwrap().until);
    let programs = bed.source.engine().programs();
    let go_on = |plan: &Plan| {
        run(&Request {
            server: "shop",
            base: &bed.base,
            log: Some(&bed.log),
            plan,
            folder,
            programs: Some(&programs),
            level: Prove::Standard,
            start: None,
            going_on: true,
            over: None,
            tables: None,
            replica: None,
            config: None,
            mode: Mode::Net,
            queries: None,
            watch: &Patient,
        })
    };
    let restored = go_on(&later).unwrap();
    assert!(restored.report.went_on_after.is_some_and(|done| done > 150), "{:?}", restored.report);
    let server = bed.open(folder);
    let mut conn = server.connect().unwrap();
    assert_eq!(one(&mut conn, "SHOW TABLES FROM shop LIKE 'items'"), "", "the first drop is replayed");
    assert_ne!(one(&mut conn, "SHOW TABLES FROM shop LIKE 'orders'"), "", "and the second is not");
    server.stop(Duration::from_secs(60)).unwrap();
    let refused = go_on(earlier).unwrap_err();
    assert!(matches!(refused, Error::Backwards { .. }), "{refused}");
    let again = go_on(&later).unwrap();
    assert_eq!(again.report.went_on_after, restored.report.went_on_after.map(|done| done + 1));

    let mut options = StartOptions::new(programs.clone(), folder);
    options.binlog = true;
    options.extra_args.push("--server-id=77".to_owned());
    options.extra_args.push("--log-bin=binlog".to_owned());
    if bed.source.engine() == Engine::MySql {
        options.extra_args.extend(["--gtid-mode=ON", "--enforce-gtid-consistency=ON"].map(str::to_owned));
        let server = PrivateServer::start(options).unwrap();
        let mut conn = server.connect().unwrap();
        conn.execute("INSERT INTO shop.notes VALUES (9, 'by hand')").unwrap();
        server.stop(Duration::from_secs(60)).unwrap();
        let refused = go_on(&later).unwrap_err();
        assert!(matches!(refused, Error::Touched { .. }), "{refused}");
    }
}

/// Indexes of the two transactions whose rows nothing else touches: one in the middle, and the last before the drop.
fn planted(bed: &Bed) -> [usize; 2] {
    let entries = bed.log.entries.iter().enumerate();
    let found = entries.filter(|(_, entry)| entry.tables.iter().any(|table| table.contains("planted")));
    let found: Vec<usize> = found.map(|(at, _)| at).collect();
    assert_eq!(found[1] + 1, bed.log.find("`items`"), "the last one before the drop");
    found.try_into().unwrap()
}

/// Rows that writers have committed.
#[derive(Default)]
struct Committed(AtomicU64);

impl Committed {
    /// Waits for so many more of them, but not for ever: whoever ended them says why.
    fn wait_for(&self, more: u64) {
        let goal = self.0.load(Ordering::Relaxed) + more;
        let deadline = Instant::now() + Duration::from_secs(120);
        while self.0.load(Ordering::Relaxed) < goal && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Holds a copy up, so that a lot is committed in each of its stages.
struct Slow<'a>(std::sync::Mutex<Option<holdfast_source::Stage>>, &'a Committed);

impl holdfast_source::Watch for Slow<'_> {
    fn cancelled(&self) -> bool {
        false
    }
    fn progress(&self, now: holdfast_source::Progress) {
        if self.0.lock().unwrap().replace(now.stage) != Some(now.stage) {
            self.1.wait_for(100);
        }
    }
}

/// On a server whose `gtid_mode` is permissive, transactions with and without a GTID lie side by
/// side within the bounds of a clone. Only the first kind is told by the GTIDs of the recovered
/// copy: the other kind was replayed twice before its place decided.
#[test]
fn transactions_without_gtids_in_the_bounds_of_a_clone_are_replayed_once() {
    let dir = tempfile::Builder::new().prefix("holdfast-mixed-").tempdir_in(scratch()).unwrap();
    let source = TestServer::start(Engine::MySql);
    source.run(&[
        "SET GLOBAL gtid_mode = ON_PERMISSIVE",
        "CREATE DATABASE shop",
        "CREATE TABLE shop.mixed (n INT NOT NULL, kind VARCHAR(9) NOT NULL)",
    ]);
    let (stop, committed) = (AtomicBool::new(false), Committed::default());
    let base = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let (source, stop, committed) = (&source, &stop, &committed);
                scope.spawn(move || {
                    let mut conn = source.root();
                    let mut n = writer;
                    while !stop.load(Ordering::Relaxed) {
                        for kind in ["ANONYMOUS", "AUTOMATIC"] {
                            conn.execute(format!("SET SESSION gtid_next = '{kind}'")).unwrap();
                            conn.execute(format!("INSERT INTO shop.mixed VALUES ({n}, '{kind}')")).unwrap();
                            n += 4;
                            committed.0.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        committed.wait_for(100);
        let slow = Slow(std::sync::Mutex::default(), &committed);
        let base = Copied::take_watched(&source, dir.path(), &slow);
        committed.wait_for(100);
        stop.store(true, Ordering::Relaxed);
        writers.into_iter().for_each(|writer| writer.join().unwrap());
        base
    });
    source.run(&["FLUSH BINARY LOGS"]);
    let rows = source.value("SELECT COUNT(*) FROM shop.mixed").unwrap();
    let mut bed = Bed { dir, seed: 0, log: FilesLog::of(source.datadir()), source, base, mode: Mode::Net };
    let plan = plan(&[&bed.base], &bed.log, &Target::Latest).unwrap().1;
    let folder = bed.dir.path().join("restored");
    let restored = bed.restore(&plan, &folder, Prove::Full, &Patient).unwrap();

    // The test is worth something only if both kinds were committed before and after the point.
    let (from, exact) = (plan.log.unwrap().from, restored.exact.clone().unwrap());
    let exact = holdfast_restore::Log::place(&bed.log, &exact).unwrap().unwrap();
    let entries = |anonymous: bool, from, until| {
        let wanted =
            |entry: &&Entry| entry.gtid.is_empty() == anonymous && entry.start >= from && entry.end <= until;
        bed.log.entries.iter().filter(wanted).count()
    };
    let end = bed.log.entries.last().unwrap().end;
    let held = (entries(true, from, exact), entries(false, from, exact));
    let after = (entries(true, exact, end), entries(false, exact, end));
    assert!(held.0 > 0 && held.1 > 0 && after.0 > 0 && after.1 > 0, "{held:?} before, {after:?} behind");
    let report = &restored.report;
    assert_eq!(report.transactions_in_base, (held.0 + held.1) as u64);
    assert_eq!(report.transactions_replayed, (after.0 + after.1) as u64);
    let server = bed.open(&folder);
    let mut conn = server.connect().unwrap();
    assert_eq!(one(&mut conn, "SELECT COUNT(*) FROM shop.mixed"), rows);
    assert_eq!(one(&mut conn, "SELECT COUNT(DISTINCT n) FROM shop.mixed"), rows);
    server.stop(Duration::from_secs(60)).unwrap();

    // Where commits overtake each other in the engine no position tells, and the restore says so.
    bed.base.outcome.facts.retain(|(name, _)| name != "binlog_order_commits");
    bed.base.outcome.facts.push(("binlog_order_commits".to_owned(), "OFF".to_owned()));
    let refused = bed.restore(&plan, &bed.dir.path().join("refused"), Prove::Quick, &Patient).unwrap_err();
    assert!(matches!(refused, Error::Unplaced(_)), "{refused}");
    assert!(refused.to_string().contains("binlog_order_commits"), "{refused}");
}

/// A base that is laid out wrongly the first time.
struct WrongAtFirst {
    wrong: Copied,
    right: Copied,
    laid_out: AtomicBool,
}

impl Base for WrongAtFirst {
    fn id(&self) -> String {
        self.right.id()
    }
    fn finished_us(&self) -> i64 {
        self.right.finished_us()
    }
    fn kind(&self) -> SourceKind {
        self.right.kind()
    }
    fn coordinates(&self) -> &Coordinates {
        self.right.coordinates()
    }
    fn fact(&self, name: &str) -> Option<&str> {
        self.right.fact(name)
    }
    fn warnings(&self) -> Vec<String> {
        self.right.warnings()
    }
    fn bytes(&self) -> u64 {
        self.right.bytes()
    }
    fn files(&self) -> u64 {
        self.right.files()
    }
    fn restore_into(
        &self,
        dir: &Path,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        let first = !self.laid_out.swap(true, Ordering::Relaxed);
        if first { &self.wrong } else { &self.right }.restore_into(dir, progress)
    }
}

#[test]
fn a_surprise_behind_committed_rows_lays_the_base_out_again_and_lets_the_table_step_down() {
    let dir = tempfile::Builder::new().prefix("holdfast-restore-").tempdir_in(scratch()).unwrap();
    let source = TestServer::start(Engine::MySql);
    let copied = |name: &str| {
        let dir = dir.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        Copied::take(&source, &dir)
    };
    source.run(&[
        "CREATE DATABASE shop",
        "CREATE TABLE shop.large (id INT PRIMARY KEY, b VARCHAR(2000))",
        "INSERT INTO shop.large WITH RECURSIVE n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 600) \
         SELECT i, REPEAT('x', 1000) FROM n",
        "CREATE TABLE shop.odd (n INT PRIMARY KEY, v INT)",
        "INSERT INTO shop.odd VALUES (1, 1)",
    ]);
    let wrong = copied("wrong");
    // Nothing in the log tells the two copies apart.
    source.run(&["SET SESSION sql_log_bin = 0", "INSERT INTO shop.odd VALUES (2, 2)"]);
    let base = WrongAtFirst { wrong, right: copied("right"), laid_out: AtomicBool::new(false) };
    source.run(&["UPDATE shop.large SET b = REPEAT('y', 1500)", "DELETE FROM shop.odd WHERE n = 2"]);
    source.run(&["INSERT INTO shop.odd VALUES (3, 3)", "FLUSH BINARY LOGS"]);
    let log = FilesLog::of(source.datadir());
    let (_, plan) = plan(&[&base], &log, &Target::Latest).unwrap();
    let (folder, programs) = (dir.path().join("restored"), Engine::MySql.programs());
    let restored = run(&Request {
        server: "shop",
        base: &base,
        log: Some(&log),
        plan: &plan,
        folder: &folder,
        programs: Some(&programs),
        level: Prove::Full,
        mode: Mode::Net,
        start: None,
        going_on: false,
        over: None,
        tables: None,
        replica: None,
        config: None,
        queries: None,
        watch: &Patient,
    })
    .unwrap();
    let report = &restored.report;
    assert!(report.proved && report.transactions_replayed == 3, "{report:?}");
    assert!(
        report.remarks.iter().any(|line| line.contains("laid out again") && line.contains("shop.odd")),
        "{report:?}"
    );
    assert!(report.replayed_in_order.iter().any(|line| line.contains("shop.odd: in order")), "{report:?}");
    assert_eq!(report.replayed_in_order.len(), 1, "the other table is still replayed as net change");
    let server = PrivateServer::start(StartOptions::new(programs, &folder)).unwrap();
    let found = ServerState::read(&mut server.connect().unwrap()).unwrap();
    let expected = ServerState::read(&mut source.root()).unwrap().as_on_a_replica();
    assert_eq!(differences(&expected, &found.as_on_a_replica()), Vec::<String>::new());
}
