//! Semi-synchronous archives of real servers: what a client was told is committed is durable here, whatever becomes of the
//! server; and a disk that is too slow holds no commit up for long.
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a panic is how a test fails"
)]

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_archive::storage::{Frames, LogStore, Stretch, StretchWriter};
use holdfast_archive::{Error, FollowOptions, Followed, Note, ServerLog, Until, follow, plan};
use holdfast_format::gtid::Uuid;
use holdfast_format::ids::{SegmentId, ServerId};
use holdfast_format::record::{LogRecord, Position, Record, Stamped, StreamKey};
use holdfast_format::segment::FrameKind;
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_mysql::Conn;
use holdfast_store::{Argon2Cost, Clock, CreateOptions, FixedClock, OpenOptions, Repository, Secret};
use holdfast_tests::{Engine, Stalls, StopOnDrop, TestServer};

const SERVER: ServerId = ServerId([3; 16]);
const IDENTITY: Uuid = Uuid([4; 16]);

/// Writers that insert numbered rows, each into a table of its own.
const WRITERS: usize = 3;

fn source(engine: Engine) -> TestServer {
    // Without us it would wait a minute: whoever gets through earlier got our word.
    let server = TestServer::start_with(
        engine,
        match engine {
            Engine::MySql => &[
                "--plugin-load-add=semisync_source.so",
                "--loose-rpl-semi-sync-source-enabled=ON",
                "--loose-rpl-semi-sync-source-timeout=60000",
                "--loose-rpl-semi-sync-source-wait-no-replica=OFF",
            ],
            Engine::MariaDb => &[
                "--rpl-semi-sync-master-enabled=ON",
                "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
                "--rpl-semi-sync-master-timeout=60000",
                "--rpl-semi-sync-master-wait-no-slave=OFF",
            ],
        },
    );
    server.run(&["CREATE DATABASE d"]);
    for writer in 0..WRITERS {
        server.run(&[format!("CREATE TABLE d.t{writer} (id INT PRIMARY KEY)").as_str()]);
    }
    server
}

fn status(conn: &mut Conn, what: &str) -> String {
    let names = ["source", "master"].map(|side| format!("'Rpl_semi_sync_{side}_{what}'")).join(", ");
    let rows = conn.query(format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({names})")).unwrap();
    rows.text(0, 1).unwrap()
}

/// Waits until the source waits for exactly one replica.
fn wait_until_attached(server: &TestServer) {
    let mut conn = server.root();
    wait_for("the source to wait for the archive", || {
        status(&mut conn, "clients") == "1" && status(&mut conn, "status") == "ON"
    });
}

/// What the archive said.
#[derive(Default)]
struct Told {
    zero_loss: AtomicBool,
    too_slow: AtomicBool,
}

fn wait_for(what: &str, mut is_there: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !is_there() {
        assert!(Instant::now() < deadline, "waited two minutes for {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A repository whose syncs can be made slow.
struct SlowStore {
    repository: Repository,
    delay_ms: Arc<AtomicU64>,
}

impl SlowStore {
    fn new(dir: &Path) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(FixedClock::new(1_700_000_000_000_000));
        let objects: Arc<dyn Objects> = Arc::new(Directory::create(RealDisk::shared(), dir).unwrap());
        let options = CreateOptions {
            open: OpenOptions::new(clock),
            argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
            program: "test".to_owned(),
        };
        let secret = Secret::passphrase("only for tests");
        let repository = Repository::create(objects, options, &secret).unwrap().0;
        Self { repository, delay_ms: Arc::default() }
    }

    fn follow(
        &self,
        server: &TestServer,
        stop: &AtomicBool,
        told: &Told,
    ) -> holdfast_archive::Result<Followed> {
        let mut options = FollowOptions::new(server.backup_options(), 4_000_000_000);
        options.semi_sync = true;
        options.backoff = (Duration::from_millis(50), Duration::from_millis(500));
        options.rest = Duration::from_millis(500);
        let start = plan(&self.repository, SERVER, IDENTITY).unwrap();
        let mut note = |note: Note<'_>| match note {
            Note::ZeroLoss { .. } => told.zero_loss.store(true, Ordering::SeqCst),
            Note::Retrying { error: Error::TooSlow, .. } => told.too_slow.store(true, Ordering::SeqCst),
            _ => {}
        };
        follow(self, &start.stream, &start.origins, &options, &Until::Stopped, stop, &mut note)
    }

    fn log(&self) -> ServerLog<'_> {
        ServerLog::open(&self.repository, SERVER).unwrap()
    }
}

impl LogStore for SlowStore {
    fn streams(&self) -> holdfast_archive::Result<Vec<StreamKey>> {
        LogStore::streams(&self.repository)
    }

    fn stretches(&self, stream: &StreamKey) -> holdfast_archive::Result<Vec<Stretch>> {
        self.repository.stretches(stream)
    }

    fn frames(&self, stretch: &Stretch) -> holdfast_archive::Result<Frames<'_>> {
        self.repository.frames(stretch)
    }

    fn index_frames(&self, stretch: &Stretch) -> holdfast_archive::Result<Vec<Vec<u8>>> {
        self.repository.index_frames(stretch)
    }

    fn note_frames(&self, stretch: &Stretch) -> holdfast_archive::Result<Vec<Vec<u8>>> {
        self.repository.note_frames(stretch)
    }

    fn begin(
        &self,
        stream: &StreamKey,
        start: &Position,
    ) -> holdfast_archive::Result<Box<dyn StretchWriter>> {
        let writer = LogStore::begin(&self.repository, stream, start)?;
        Ok(Box::new(SlowWriter { writer, delay_ms: Arc::clone(&self.delay_ms) }))
    }

    fn records(&self) -> holdfast_archive::Result<Vec<Arc<Stamped>>> {
        LogStore::records(&self.repository)
    }

    fn append(&self, record: Record) -> holdfast_archive::Result<()> {
        LogStore::append(&self.repository, record)
    }
}

struct SlowWriter {
    writer: Box<dyn StretchWriter>,
    delay_ms: Arc<AtomicU64>,
}

impl StretchWriter for SlowWriter {
    fn segment(&self) -> SegmentId {
        self.writer.segment()
    }

    fn number(&self) -> u64 {
        self.writer.number()
    }

    fn stored_bytes(&self) -> u64 {
        self.writer.stored_bytes()
    }

    fn adopt(&mut self, record: LogRecord) -> holdfast_archive::Result<()> {
        self.writer.adopt(record)
    }

    fn append(&mut self, kind: FrameKind, bytes: &[u8]) -> holdfast_archive::Result<()> {
        self.writer.append(kind, bytes)
    }

    fn sync(&mut self) -> holdfast_archive::Result<()> {
        std::thread::sleep(Duration::from_millis(self.delay_ms.load(Ordering::SeqCst)));
        self.writer.sync()
    }

    fn seal(self: Box<Self>, record: LogRecord) -> holdfast_archive::Result<()> {
        self.writer.seal(record)
    }
}

/// Inserts until `stop` or until the server is gone, and counts what it was told is committed.
fn write(server: &TestServer, writer: usize, stop: &AtomicBool, acked: &AtomicU64) {
    let mut conn = server.root();
    for id in 0.. {
        if stop.load(Ordering::Relaxed)
            || conn.execute(format!("INSERT INTO d.t{writer} VALUES ({id})")).is_err()
        {
            return;
        }
        acked.fetch_add(1, Ordering::SeqCst);
    }
}

/// Rows that the archive has of each writer's table.
fn archived(store: &SlowStore) -> [u64; WRITERS] {
    let mut rows = [0; WRITERS];
    store
        .log()
        .each(&mut |seen| {
            for table in &seen.indexed().entry.tables {
                let writer: usize = std::str::from_utf8(&table.table[1..]).unwrap().parse().unwrap();
                rows[writer] += table.inserted;
            }
            Ok(())
        })
        .unwrap();
    rows
}

/// An event that is not durable within 700 ms gets its word early, and nothing is claimed of that time. Where the machine
/// itself stood still for so long, the test shows nothing, and is done again.
fn no_commit_that_a_client_was_told_of_is_lost_with_the_server(engine: Engine) {
    for attempt in 1.. {
        let dir = tempfile::tempdir().unwrap();
        let stalls = Stalls::watch(dir.path());
        let Err(why) = no_commit_is_lost(engine, dir.path()) else { return };
        let stood_still = stalls.longest();
        assert!(
            attempt < 4 && stalls.stretched(Duration::from_millis(100)) > Duration::from_millis(300),
            "{why}; this machine stood still for {stood_still:?} at most"
        );
        println!("attempt {attempt}: {why}; this machine stood still for {stood_still:?}");
    }
}

/// What is wrong if a word was given early.
fn no_commit_is_lost(engine: Engine, dir: &Path) -> Result<(), String> {
    let mut server = source(engine);
    let store = SlowStore::new(dir);
    let (stop, stop_writers) = (AtomicBool::new(false), AtomicBool::new(false));
    let acked: [AtomicU64; WRITERS] = Default::default();
    let told = Told::default();
    let alone = std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let follower = scope.spawn(|| store.follow(&server, &stop, &told));
        wait_until_attached(&server);
        let mut conn = server.root();
        let alone_before = status(&mut conn, "no_tx");
        let alone = std::thread::scope(|writers| {
            let _stop = StopOnDrop(&stop_writers);
            for (writer, acked) in acked.iter().enumerate() {
                let (server, stop) = (&server, &stop_writers);
                writers.spawn(move || write(server, writer, stop, acked));
            }
            wait_for("commits, and the proof that they waited", || {
                acked.iter().all(|a| a.load(Ordering::SeqCst) >= 10) && told.zero_loss.load(Ordering::SeqCst)
            });
            let alone = (alone_before, status(&mut conn, "no_tx"));
            assert_ne!(status(&mut conn, "yes_tx"), "0");
            let pid = rustix::process::Pid::from_raw(server.server().pid()).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
            alone
        });
        stop.store(true, Ordering::Relaxed);
        follower.join().unwrap().unwrap();
        alone
    });
    server.kill();
    if alone.0 != alone.1 {
        return Err(format!("commits did not wait for the archive: {} before, then {}", alone.0, alone.1));
    }
    let rows = archived(&store);
    for (writer, acked) in acked.iter().enumerate() {
        let acked = acked.load(Ordering::SeqCst);
        if rows[writer] < acked {
            return Err(format!("writer {writer} was told of {acked} commits, {} are here", rows[writer]));
        }
    }
    let proved = store.log().zero_loss().unwrap();
    if proved.len() != 1 || proved[0].0 >= proved[0].1 {
        return Err(format!("what is proved has a break: {proved:?}"));
    }
    Ok(())
}

#[test]
fn no_commit_that_a_client_was_told_of_is_lost_with_the_server_mysql() {
    no_commit_that_a_client_was_told_of_is_lost_with_the_server(Engine::MySql);
}

#[test]
fn no_commit_that_a_client_was_told_of_is_lost_with_the_server_mariadb() {
    no_commit_that_a_client_was_told_of_is_lost_with_the_server(Engine::MariaDb);
}

fn a_disk_that_is_too_slow_holds_no_commit_up_for_long_and_proves_nothing(engine: Engine) {
    let server = source(engine);
    let dir = tempfile::tempdir().unwrap();
    let store = SlowStore::new(dir.path());
    let (stop, told) = (AtomicBool::new(false), Told::default());
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        let follower = scope.spawn(|| store.follow(&server, &stop, &told));
        wait_until_attached(&server);
        let mut conn = server.root();
        let mut insert = |id: u64| {
            let began = Instant::now();
            conn.execute(format!("INSERT INTO d.t0 VALUES ({id})")).unwrap();
            began.elapsed()
        };
        // It does wait for the sync.
        store.delay_ms.store(300, Ordering::SeqCst);
        insert(1);
        let took = insert(2);
        assert!(took >= Duration::from_millis(250), "the commit did not wait: {took:?}");
        // The limit is 700 ms; the source alone would wait a minute. A busy machine gets some room.
        store.delay_ms.store(12_000, Ordering::SeqCst);
        for id in 3..6 {
            let took = insert(id);
            assert!(took < Duration::from_secs(11), "commit {id} was held up for {took:?}");
        }
        // The archive leaves the source alone, and comes back when the disk is well again.
        store.delay_ms.store(0, Ordering::SeqCst);
        wait_for("the archive to leave", || told.too_slow.load(Ordering::SeqCst));
        wait_until_attached(&server);
        let took = insert(7);
        assert!(took < Duration::from_secs(30), "commit 7 was held up for {took:?}");
        stop.store(true, Ordering::Relaxed);
        follower.join().unwrap().unwrap();
    });
    assert_eq!(archived(&store)[0], 6);
    // Nothing is claimed of the time in which words were given early: there is a break in what is proved, if anything is.
    let proved = store.log().zero_loss().unwrap();
    let mut commits = Vec::new();
    store
        .log()
        .each(&mut |seen| {
            commits.extend(seen.entry.tables.iter().any(|t| t.inserted > 0).then_some(seen.entry.commit_us));
            Ok(())
        })
        .unwrap();
    for early in &commits[2..5] {
        assert!(!proved.iter().any(|(from, until)| from <= early && early < until), "{early} of {proved:?}");
    }
}

#[test]
fn a_disk_that_is_too_slow_holds_no_commit_up_for_long_and_proves_nothing_mysql() {
    a_disk_that_is_too_slow_holds_no_commit_up_for_long_and_proves_nothing(Engine::MySql);
}

#[test]
fn a_disk_that_is_too_slow_holds_no_commit_up_for_long_and_proves_nothing_mariadb() {
    a_disk_that_is_too_slow_holds_no_commit_up_for_long_and_proves_nothing(Engine::MariaDb);
}
