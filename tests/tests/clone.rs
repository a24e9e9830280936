//! The clone source on a real MySQL under load: what it copies, and what it leaves behind on the server.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use holdfast_engine::{PrivateServer, StartOptions};
use holdfast_mysql::Endpoint;
use holdfast_source::sinks::{FolderSink, MemorySink};
use holdfast_source::{
    CloneSource, Coordinates, Error, FileNo, FilePath, FileSpec, Outcome, Progress, Sink, SinkError, Source,
    Stage, Unwatched, Watch,
};
use holdfast_tests::balancer::Balancer;
use holdfast_tests::server::BACKUP_USER;
use holdfast_tests::{Engine, Ledger, LedgerOptions, Random, StopOnDrop, TestServer, ledger};

fn source_of(server: &TestServer, workers: u32) -> CloneSource {
    CloneSource::new(server.backup_options(), std::env::temp_dir()).workers(workers)
}

/// Copies `server` into `dir` and starts a server of the same version on the copy.
fn copy_and_start(source: &mut CloneSource, server: &TestServer, dir: &Path) -> (Outcome, PrivateServer) {
    let sink = FolderSink::create(dir).unwrap();
    let outcome = source.copy(&sink, &Unwatched).unwrap();
    sink.finish().unwrap();
    std::fs::create_dir(dir.join("#clone")).unwrap();
    for name in ["#status_fix", "#replace_files"] {
        std::fs::write(dir.join("#clone").join(name), b"").unwrap();
    }
    let copy = PrivateServer::start(StartOptions::new(server.server().programs().clone(), dir)).unwrap();
    (outcome, copy)
}

fn is_true(server: &TestServer, condition: &str) -> bool {
    server.value(&format!("SELECT {condition}")).as_deref() == Some("1")
}

#[test]
fn a_copy_under_load_is_one_moment_of_the_server_between_its_two_bounds() {
    let (_, seed) = Random::from_environment("a_copy_under_load");
    let server = TestServer::start(Engine::MySql);
    Ledger::create_schema(&server);
    server.run(&[
        "CREATE TABLE shop.zipped (id INT PRIMARY KEY, t TEXT) ROW_FORMAT=COMPRESSED KEY_BLOCK_SIZE=8",
        "CREATE TABLE shop.squeezed (id INT PRIMARY KEY, t TEXT) COMPRESSION='zlib'",
        "CREATE TABLE shop.`a b/c-ü` (id INT PRIMARY KEY)",
        "INSERT INTO shop.zipped WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < 900) \
         SELECT i, REPEAT(SHA2(i,256), 20) FROM n",
        "INSERT INTO shop.squeezed SELECT * FROM shop.zipped",
        "INSERT INTO shop.`a b/c-ü` SELECT id FROM shop.zipped",
        "CREATE TABLE shop.isam (id INT) ENGINE=MyISAM",
        "INSERT INTO shop.isam VALUES (1)",
        "GRANT SELECT ON shop.* TO 'backup'@'%'",
    ]);
    for workers in [0, 1, 4] {
        let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
        writers.wait_for(50);
        let began = SystemTime::now();
        let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
        let (outcome, copy) =
            copy_and_start(&mut source_of(&server, workers), &server, &dir.path().join("data"));
        let ended = SystemTime::now();
        writers.wait_for(50);
        let acks = writers.stop();

        let mut conn = copy.connect().unwrap();
        let held =
            ledger::check(&mut conn, seed).unwrap_or_else(|wrong| panic!("{workers} workers: {wrong}"));
        for ack in &acks {
            assert!(held.holds(ack) || ack.acked >= began, "{workers} workers: lost {ack:?}");
            assert!(!held.holds(ack) || ack.sent <= ended, "{workers} workers: from the future {ack:?}");
        }
        let Coordinates::Between { lo, hi } = &outcome.coordinates else {
            panic!("{:?}", outcome.coordinates)
        };
        let recovered = copy.recovered().unwrap();
        let gtids = recovered.gtids.unwrap();
        assert!(is_true(&server, &format!("GTID_SUBSET('{}', '{gtids}')", lo.gtid)), "{lo} {gtids}");
        assert!(is_true(&server, &format!("GTID_SUBSET('{gtids}', '{}')", hi.gtid)), "{hi} {gtids}");
        let at = (recovered.file.unwrap(), recovered.position.unwrap());
        assert!((lo.file.clone(), lo.offset) <= at && at <= (hi.file.clone(), hi.offset), "{lo} {at:?} {hi}");

        for table in ["shop.zipped", "shop.squeezed", "shop.`a b/c-ü`"] {
            let sum = conn.query(format!("CHECKSUM TABLE {table}")).unwrap().text(0, 1);
            assert_eq!(
                server.root().query(format!("CHECKSUM TABLE {table}")).unwrap().text(0, 1),
                sum,
                "{table}"
            );
            let check = conn.query(format!("CHECK TABLE {table} EXTENDED")).unwrap();
            assert_eq!(check.text(check.rows.len() - 1, 3).as_deref(), Some("OK"), "{table}");
        }
        let lost: Vec<&str> = outcome.not_carried.iter().map(|t| t.table.as_str()).collect();
        assert_eq!(lost, ["shop.isam"]);
        assert_eq!(outcome.pages.bad, 0, "{:?}", outcome.warnings);
        assert!(outcome.pages.verified > 1000);
        assert_eq!(outcome.fact("clone_connections"), Some((workers + 1).to_string().as_str()));
        assert!(outcome.fact("version").unwrap().starts_with(&copy.programs().version.text[..3]));
        assert!(outcome.fact("accounts").unwrap().contains("'backup'@'%'"));
    }
}

#[test]
fn ddl_that_is_let_go_on_is_in_the_copy_or_is_not_but_never_half() {
    let (_, seed) = Random::from_environment("ddl_that_is_let_go_on");
    let server = TestServer::start(Engine::MySql);
    Ledger::create_schema(&server);
    for table in ["a", "b"] {
        server.run(&[&format!("CREATE TABLE shop.swap_{table} (name VARCHAR(20)) SELECT '{table}' AS name")]);
    }
    let writers = Ledger::start(&server, LedgerOptions { seed, ..LedgerOptions::default() });
    let (stop, rounds) = (AtomicBool::new(false), AtomicU32::new(0));
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let ddl = scope.spawn(|| {
            let mut done = 0u32;
            while !stop.load(Ordering::Relaxed) {
                server.run(&[
                    &format!("CREATE TABLE shop.new_{done} AS SELECT {done} AS n"),
                    "RENAME TABLE shop.swap_a TO shop.swap_t, shop.swap_b TO shop.swap_a, shop.swap_t TO shop.swap_b",
                    "TRUNCATE TABLE shop.swap_a",
                    &format!("INSERT INTO shop.swap_a VALUES ('{done}')"),
                    &format!("ALTER TABLE shop.new_{done} ADD COLUMN m INT, ADD INDEX (n)"),
                ]);
                if done % 3 == 2 {
                    server.run(&[&format!("DROP TABLE shop.new_{}", done - 1)]);
                }
                done += 1;
                rounds.store(done, Ordering::SeqCst);
            }
        });
        writers.wait_for(50);
        let before = rounds.load(Ordering::SeqCst);
        let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
        let mut source = source_of(&server, 4).concurrent_ddl(true);
        let sink = FolderSink::create(dir.path().join("data")).unwrap();
        // Slow enough for a lot to happen in each stage.
        let slow = Tampering {
            pause: Duration::from_millis(1),
            until: Some((&rounds, before + 3)),
            ..Tampering::new(&sink)
        };
        let copied = source.copy(&slow, &Unwatched);
        let within = rounds.load(Ordering::SeqCst) - before;
        stop.store(true, Ordering::Relaxed);
        ddl.join().unwrap();
        copied.unwrap();
        assert!(within > 2, "only {within} rounds of DDL in the time of the copy");
        sink.finish().unwrap();
        let data = dir.path().join("data");
        std::fs::create_dir(data.join("#clone")).unwrap();
        for name in ["#status_fix", "#replace_files"] {
            std::fs::write(data.join("#clone").join(name), b"").unwrap();
        }
        let copy =
            PrivateServer::start(StartOptions::new(server.server().programs().clone(), &data)).unwrap();
        let mut conn = copy.connect().unwrap();
        ledger::check(&mut conn, seed).unwrap();
        let tables = conn.query("SHOW TABLES FROM shop").unwrap();
        for row in 0..tables.rows.len() {
            let table = tables.text(row, 0).unwrap();
            let check = conn.query(format!("CHECK TABLE shop.`{table}`")).unwrap();
            assert_eq!(check.text(check.rows.len() - 1, 3).as_deref(), Some("OK"), "{table}");
            if let Some(n) = table.strip_prefix("new_") {
                assert_eq!(
                    conn.query_text(format!("SELECT n FROM shop.{table}")).unwrap().as_deref(),
                    Some(n)
                );
            }
        }
    });
    writers.stop();
}

/// A sink that is slow, or fails after some blocks.
struct Tampering<'a> {
    inner: &'a dyn Sink,
    pause: Duration,
    blocks: AtomicU32,
    block_limit: u32,
    /// A count that others drive up while the copy is under way, and what it must come to.
    until: Option<(&'a AtomicU32, u32)>,
    /// A copy that was called off gets a second a block: who goes on with it all the same is not done soon.
    called_off: Option<&'a Impatient>,
}

impl<'a> Tampering<'a> {
    fn new(inner: &'a dyn Sink) -> Self {
        let blocks = AtomicU32::new(0);
        Self { inner, pause: Duration::ZERO, blocks, block_limit: u32::MAX, until: None, called_off: None }
    }

    /// Each hundredth block takes until the others are on, or five seconds where they may wait for the copy.
    fn hold_up(&self, block: u32) {
        let Some((count, goal)) = self.until.filter(|_| block % 100 == 50) else { return };
        let deadline = Instant::now() + Duration::from_secs(5);
        while count.load(Ordering::SeqCst) < goal && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Sink for Tampering<'_> {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        self.inner.add_file(spec)
    }
    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let off = self.called_off.is_some_and(Watch::cancelled);
        std::thread::sleep(if off { Duration::from_secs(1) } else { self.pause });
        let block = self.blocks.fetch_add(1, Ordering::SeqCst);
        self.hold_up(block);
        if block >= self.block_limit {
            return Err(SinkError::new("the disk is full"));
        }
        self.inner.block(file, block_no, bytes)
    }
    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.inner.patch(file, offset, bytes)
    }
    fn barrier(&self) -> Result<(), SinkError> {
        self.inner.barrier()
    }
    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        self.inner.set_len(file, len)
    }
    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        self.inner.rename(file, path)
    }
    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        self.inner.remove(file)
    }
}

/// Calls the copy off when it reaches a stage.
struct Impatient {
    stage: Stage,
    called_at: Mutex<Option<Instant>>,
}

impl Watch for Impatient {
    fn cancelled(&self) -> bool {
        self.called_at.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }
    fn progress(&self, now: Progress) {
        if now.stage == self.stage {
            self.called_at.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(Instant::now);
        }
    }
}

/// Right after a copy that failed: no session of ours, no backup lock, another copy can begin.
fn is_free(server: &TestServer) {
    server.run_once(&[
        "SET lock_wait_timeout = 30",
        "CREATE TABLE shop.free (i INT)",
        "DROP TABLE shop.free",
    ]);
    source_of(server, 2).copy(&MemorySink::new(), &Unwatched).unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while !server.sessions(BACKUP_USER, "").is_empty() {
        assert!(Instant::now() < deadline, "sessions of ours are left");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_copy_that_is_called_off_or_fails_frees_the_server_at_once() {
    let server = TestServer::start(Engine::MySql);
    Ledger::create_schema(&server);
    let writers = Ledger::start(&server, LedgerOptions::default());
    for stage in [Stage::Files, Stage::Pages, Stage::Redo] {
        let watch = Impatient { stage, called_at: Mutex::default() };
        let memory = MemorySink::new();
        let slow = Tampering {
            pause: Duration::from_millis(1),
            called_off: Some(&watch),
            ..Tampering::new(&memory)
        };
        writers.wait_for(50);
        let error = source_of(&server, 2).copy(&slow, &watch);
        // PAGE COPY and REDO COPY can be over before anybody looks.
        let Err(error) = error else {
            assert_ne!(stage, Stage::Files, "it ended before its last file");
            continue;
        };
        let waited = watch.called_at.lock().unwrap().unwrap().elapsed();
        assert!(matches!(error, Error::Cancelled), "{stage:?}: {error}");
        assert!(waited < Duration::from_secs(30), "{stage:?}: took {waited:?}");
        is_free(&server);
    }
    let memory = MemorySink::new();
    let full = Tampering { block_limit: 200, ..Tampering::new(&memory) };
    let error = source_of(&server, 2).copy(&full, &Unwatched).unwrap_err();
    assert!(matches!(&error, Error::Sink(e) if e.to_string() == "the disk is full"), "{error}");
    is_free(&server);
    writers.stop();
}

#[test]
fn a_server_that_dies_or_throws_us_out_ends_the_copy_with_an_error() {
    let mut server = TestServer::start(Engine::MySql);
    Ledger::create_schema(&server);
    let memory = MemorySink::new();
    let slow = Tampering { pause: Duration::from_millis(5), ..Tampering::new(&memory) };
    let mut source = source_of(&server, 2);
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| source.copy(&slow, &Unwatched).map(drop));
        while slow.blocks.load(Ordering::SeqCst) < 20 {
            assert!(!copy.is_finished(), "the copy ended before its 20th block");
            std::thread::sleep(Duration::from_millis(5));
        }
        let id = server.sessions(BACKUP_USER, "clone").into_iter().min().unwrap();
        server.run(&[&format!("KILL {id}")]);
        let error = copy.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Server(_)), "{error}");
    });
    is_free_later(&server);

    let started = Instant::now();
    let mut source = source_of(&server, 2);
    let memory = MemorySink::new();
    let slow = Tampering { pause: Duration::from_millis(5), ..Tampering::new(&memory) };
    std::thread::scope(|scope| {
        let copy = scope.spawn(|| source.copy(&slow, &Unwatched).map(drop));
        while slow.blocks.load(Ordering::SeqCst) < 20 {
            assert!(!copy.is_finished(), "the copy ended before its 20th block");
            std::thread::sleep(Duration::from_millis(5));
        }
        server.kill();
        let error = copy.join().unwrap().unwrap_err();
        assert!(matches!(error, Error::Server(_)), "{error}");
    });
    assert!(started.elapsed() < Duration::from_secs(120));
}

fn is_free_later(server: &TestServer) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while let Err(error) = source_of(server, 0).copy(&MemorySink::new(), &Unwatched) {
        assert!(Instant::now() < deadline, "{error}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn what_is_missing_is_named_with_the_line_that_helps() {
    let server = TestServer::start(Engine::MySql);
    let refusal = |why: &str| {
        let mut source = source_of(&server, 1).turn_wait(Duration::ZERO);
        let error = source.copy(&MemorySink::new(), &Unwatched).unwrap_err();
        assert!(matches!(error, Error::Unfit { .. } | Error::Encrypted { .. }), "{why}: {error}");
        error.to_string()
    };
    server.run(&["REVOKE BACKUP_ADMIN ON *.* FROM 'backup'@'%'"]);
    let text = refusal("no BACKUP_ADMIN");
    assert!(text.contains("GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%';"), "{text}");
    server.run(&[
        "GRANT BACKUP_ADMIN ON *.* TO 'backup'@'%'",
        "REVOKE REPLICATION CLIENT ON *.* FROM 'backup'@'%'",
    ]);
    let text = refusal("no REPLICATION CLIENT");
    assert!(text.contains("GRANT REPLICATION CLIENT ON *.* TO 'backup'@'%';"), "{text}");
    server
        .run(&["GRANT REPLICATION CLIENT ON *.* TO 'backup'@'%'", "ALTER INSTANCE DISABLE INNODB REDO_LOG"]);
    let text = refusal("redo log off");
    assert!(text.contains("ALTER INSTANCE ENABLE INNODB REDO_LOG;"), "{text}");
    server.run(&["ALTER INSTANCE ENABLE INNODB REDO_LOG", "UNINSTALL PLUGIN clone"]);
    let text = refusal("no plugin");
    assert!(text.contains("INSTALL PLUGIN clone SONAME 'mysql_clone.so';"), "{text}");
    server.run(&["INSTALL PLUGIN clone SONAME 'mysql_clone.so'"]);
    // A second clone while one is under way.
    let memory = MemorySink::new();
    let slow = Tampering { pause: Duration::from_millis(5), ..Tampering::new(&memory) };
    let mut first = source_of(&server, 0);
    std::thread::scope(|scope| {
        let first = scope.spawn(|| first.copy(&slow, &Unwatched).map(drop));
        while slow.blocks.load(Ordering::SeqCst) < 5 {
            assert!(!first.is_finished(), "the copy ended before its fifth block");
            std::thread::sleep(Duration::from_millis(2));
        }
        let text = refusal("another clone");
        assert!(text.contains("another clone"), "{text}");
        first.join().unwrap().unwrap();
    });
}

#[test]
fn a_copy_through_a_name_that_leads_to_two_servers_is_one_of_the_first_or_refused() {
    const WORKERS: u32 = 4;
    // In SQL, for acknowledgements, the master.
    const LEADING: usize = 3;
    let servers = [TestServer::start(Engine::MySql), TestServer::start(Engine::MySql)];
    for server in &servers {
        Ledger::create_schema(server);
    }
    let uuids = [0, 1].map(|at: usize| servers[at].value("SELECT @@server_uuid").unwrap());
    // Those that carry a share come behind them; the last turn is nobody's.
    let all = LEADING + WORKERS as usize;
    for turn in 2..=all + 1 {
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let _stop = StopOnDrop(&stop);
            let balancer = Balancer::start(scope, &stop, [0, 1].map(|at: usize| servers[at].port()), turn);
            let mut options = servers[0].backup_options();
            options.endpoint = Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: balancer.port };
            let mut source = CloneSource::new(options, std::env::temp_dir()).workers(WORKERS);
            let named = |text: &str| uuids.iter().all(|uuid| text.contains(uuid));
            match source.copy(&MemorySink::new(), &Unwatched) {
                Ok(outcome) => {
                    assert!(turn > LEADING, "connection {turn} reached another server, and the copy went on");
                    assert_eq!(outcome.fact("server_uuid"), Some(uuids[0].as_str()));
                    // Who reached the other server took no part.
                    let carried: usize = outcome.fact("clone_connections").unwrap().parse().unwrap();
                    assert!(carried <= turn - LEADING, "{carried} connections, {turn}");
                    let told = outcome.warnings.iter().filter(|w| named(&w.to_string())).count();
                    assert_eq!(told, all + 1 - turn, "{:?}", outcome.warnings);
                }
                Err(Error::Unfit { problem, .. }) => {
                    assert!(turn <= LEADING && named(&problem), "connection {turn}: {problem}");
                }
                Err(error) => panic!("connection {turn} reached another server: {error}"),
            }
        });
    }
    servers.iter().for_each(is_free);
}
