//! A semi-synchronous archive under faults: the source killed, its host lost at that very moment; the network cut, or
//! silent in one direction or both; the archive's host killed; its disk full; the clock of either host set, by seconds or by
//! hours. Whoever wrote keeps a record outside of when each commit was told.
//!
//! At each death of the source, what was told and is not in the archive counts as lost: none of it may have been told
//! within an interval that the archive claims as free of loss, and while nothing else was broken, none may be
//! older than a second. At the end nothing at all is missing.
//!
//! `HOLDFAST_TEST_FAULTS` sets the number of faults for each kind of server (unless set: one, the loss
//! of the source; the campaign is 100). The campaign needs root, for a small disk (tmpfs) that is filled.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a panic is how a test fails"
)]

use std::collections::VecDeque;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use holdfast_archive::ServerLog;
use holdfast_io::{Directory, RealDisk};
use holdfast_mysql::{Conn, ConnectOptions, Endpoint, TlsMode};
use holdfast_store::{FixedClock, OpenOptions, Repository, Secret};
use holdfast_tests::cable::{NOTHING, NOTHING_DOWN, NOTHING_UP, PASS, Wire};
use holdfast_tests::server::{BACKUP_PASSWORD, BACKUP_USER, scratch};
use holdfast_tests::stepped_clock::{SteppedClocks, Whose};
use holdfast_tests::{Engine, Holdfast, Random, Stalls, TestServer};

/// Writers, each of numbered rows into a table of its own.
const WRITERS: usize = 2;

/// Work before the first fault of the default run, and rounds at most, each with twice as much.
const CLAIM: Duration = Duration::from_secs(3);
const ROUNDS_MAX: u64 = 5;

const PAUSE: Duration = Duration::from_millis(10);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    SourceKilled,
    Cut,
    SilentDown,
    SilentUp,
    Silent,
    ArchiveKilled,
    DiskFull,
    ClockSet,
}

/// A commit that was told.
#[derive(Debug, Clone, Copy)]
struct Told {
    row: u64,
    at: SystemTime,
    /// The same by the source's clock, microseconds since the Unix epoch.
    source_us: i64,
}

impl Told {
    /// A lost commit was told outside of every interval that is claimed.
    fn is_not_claimed(&self, claimed: &[(i64, i64)], when: &str) {
        let (row, us) = (self.row, self.source_us);
        assert!(
            !claimed.iter().any(|(from, until)| (*from..*until).contains(&us)),
            "{when}: row {row} was told at {us} and is lost; claimed is {claimed:?}"
        );
    }
}

/// Writers of one life of the source, and what they were told.
struct Writers {
    stop: Arc<AtomicBool>,
    told: Vec<Arc<Mutex<Vec<Told>>>>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Writers {
    fn start(server: &TestServer, clocks: &Arc<SteppedClocks>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told: Vec<Arc<Mutex<Vec<Told>>>> = (0..WRITERS).map(|_| Arc::default()).collect();
        let threads = told.iter().enumerate().map(|(writer, told)| {
            let connect = ConnectOptions::new(Endpoint::Unix(server.socket().to_path_buf()), "root")
                .tls_mode(TlsMode::Disabled);
            let (stop, told, clocks) = (Arc::clone(&stop), Arc::clone(told), Arc::clone(clocks));
            std::thread::spawn(move || {
                let Ok(mut conn) = Conn::connect(&connect) else { return };
                let last = format!("SELECT COALESCE(MAX(id) + 1, 0) FROM d.t{writer}");
                let first: u64 = conn.query_text(&last).unwrap().unwrap().parse().unwrap();
                for row in first.. {
                    if stop.load(Ordering::Relaxed)
                        || conn.execute(format!("INSERT INTO d.t{writer} VALUES ({row})")).is_err()
                    {
                        return;
                    }
                    let at = SystemTime::now();
                    told.lock().unwrap().push(Told { row, at, source_us: micros(at) + clocks.source_us() });
                    std::thread::sleep(PAUSE);
                }
            })
        });
        let threads = threads.collect();
        Self { stop, told, threads }
    }

    fn count(&self) -> usize {
        self.told.iter().map(|told| told.lock().unwrap().len()).min().unwrap()
    }

    /// Ends them; what each was told.
    fn end(self) -> Vec<Vec<Told>> {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().unwrap();
        }
        self.told.iter().map(|told| told.lock().unwrap().clone()).collect()
    }
}

/// A small disk of its own, if it is wanted.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Self {
        std::fs::create_dir_all(at).unwrap();
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", "size=160m", "tmpfs"]).arg(at).status();
        assert!(
            mounted.is_ok_and(|status| status.success()),
            "the campaign needs root, to mount a small disk"
        );
        Self(at.to_path_buf())
    }

    fn fill(&self) {
        let mut filler = std::fs::File::create(self.0.join("filler")).unwrap();
        let block = vec![1; 1 << 20];
        while filler.write_all(&block).is_ok() {}
        while filler.write_all(&block[..4096]).is_ok() {}
    }

    fn empty(&self) {
        std::fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

struct Bed {
    user: Holdfast,
    server: TestServer,
    wire: Wire,
    archive: Option<Child>,
    repository: Repository,
    disk: Option<SmallDisk>,
    clocks: Arc<SteppedClocks>,
    /// How clocks are set first; then it is chance that sets them.
    steps: VecDeque<(Whose, i64)>,
    dir: tempfile::TempDir,
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Some(mut archive) = self.archive.take() {
            let _ = archive.kill();
            let _ = archive.wait();
        }
    }
}

impl Bed {
    fn new(engine: Engine, full: bool, clocks: SteppedClocks) -> Self {
        let server = TestServer::start_with(
            engine,
            match engine {
                Engine::MySql => &[
                    "--plugin-load-add=semisync_source.so",
                    "--loose-rpl-semi-sync-source-enabled=ON",
                    "--loose-rpl-semi-sync-source-timeout=1000",
                    "--loose-rpl-semi-sync-source-wait-no-replica=OFF",
                ],
                Engine::MariaDb => &[
                    "--rpl-semi-sync-master-enabled=ON",
                    "--rpl-semi-sync-master-wait-point=AFTER_SYNC",
                    "--rpl-semi-sync-master-timeout=1000",
                    "--rpl-semi-sync-master-wait-no-slave=OFF",
                ],
            },
        );
        server.run(&["CREATE DATABASE d"]);
        for writer in 0..WRITERS {
            server.run(&[format!("CREATE TABLE d.t{writer} (id INT PRIMARY KEY)").as_str()]);
        }
        let dir = tempfile::Builder::new().prefix("faults-").tempdir_in(scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        let disk = full.then(|| SmallDisk::mount(&user.repository()));
        let wire = Wire::new();
        wire.upstream.store(server.port(), Ordering::SeqCst);
        let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let _ = user.run(&["init", "--kit", &text("kit")]).ok();
        std::fs::write(dir.path().join("password"), BACKUP_PASSWORD).unwrap();
        let (port, password) = (wire.port.to_string(), text("password"));
        let mut add = vec!["server", "add", "shop", "--host", "127.0.0.1", "--port", &port];
        add.extend(["--user", BACKUP_USER, "--password-file", &password]);
        let _ = user.run(&add).ok();
        let objects = Arc::new(Directory::open(RealDisk::shared(), user.repository()).unwrap());
        let secret = Secret::passphrase("a passphrase for tests");
        let repository = Repository::open(
            objects,
            &secret,
            OpenOptions::new(Arc::new(FixedClock::new(1_700_000_000_000_000))),
        )
        .unwrap();
        Self {
            user,
            server,
            wire,
            archive: None,
            repository,
            disk,
            clocks: Arc::new(clocks),
            steps: VecDeque::new(),
            dir,
        }
    }

    /// The archive runs: one that ended is begun again, as a service would be.
    fn keep_archive(&mut self) {
        let runs = self.archive.as_mut().is_some_and(|archive| archive.try_wait().unwrap().is_none());
        if !runs {
            let log = self.dir.path().join("archive.log");
            self.archive = Some(self.user.spawn(&["archive", "shop", "--semi-sync"], &log));
        }
    }

    fn kill_archive(&mut self) {
        if let Some(mut archive) = self.archive.take() {
            archive.kill().unwrap();
            archive.wait().unwrap();
        }
    }

    /// Rows of each writer's table in the archive, and the intervals that are claimed, microseconds since the Unix epoch.
    fn archived(&self) -> ([u64; WRITERS], Vec<(i64, i64)>) {
        self.repository.refresh().unwrap();
        let id = self.repository.servers()[0].id;
        let log = ServerLog::open(&self.repository, id).unwrap();
        let mut rows = [0; WRITERS];
        log.each(&mut |seen| {
            for table in &seen.indexed().entry.tables {
                if table.database == b"d" && table.inserted > 0 {
                    let writer: usize = std::str::from_utf8(&table.table[1..]).unwrap().parse().unwrap();
                    rows[writer] += table.inserted;
                }
            }
            Ok(())
        })
        .unwrap();
        (rows, log.zero_loss().unwrap())
    }

    fn rows(&self) -> [u64; WRITERS] {
        std::array::from_fn(|writer| {
            self.server.value(&format!("SELECT COUNT(*) FROM d.t{writer}")).unwrap().parse().unwrap()
        })
    }

    /// Waits until the source waits for the archive again.
    fn wait_until_attached(&mut self) {
        let names = ["source", "master"].map(|side| format!("'Rpl_semi_sync_{side}_status'")).join(", ");
        let question = format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({names})");
        let deadline = Instant::now() + Duration::from_secs(150);
        loop {
            self.keep_archive();
            let on = self.server.root().query(&question).unwrap().text(0, 1).unwrap() == "ON";
            if on && self.clients() == 1 {
                return;
            }
            let said = std::fs::read_to_string(self.dir.path().join("archive.log")).unwrap();
            assert!(Instant::now() < deadline, "the source does not wait for the archive again\n{said}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    fn clients(&self) -> u64 {
        let names = ["source", "master"].map(|side| format!("'Rpl_semi_sync_{side}_clients'")).join(", ");
        let question = format!("SHOW GLOBAL STATUS WHERE Variable_name IN ({names})");
        self.server.root().query(&question).unwrap().text(0, 1).unwrap().parse().unwrap()
    }

    fn begin(&mut self, fault: Fault, random: &mut Random) {
        match fault {
            Fault::SourceKilled => {}
            Fault::Cut => self.wire.cut(),
            Fault::SilentDown => self.wire.mode.store(NOTHING_DOWN, Ordering::SeqCst),
            Fault::SilentUp => self.wire.mode.store(NOTHING_UP, Ordering::SeqCst),
            Fault::Silent => self.wire.mode.store(NOTHING, Ordering::SeqCst),
            Fault::ArchiveKilled => self.kill_archive(),
            Fault::DiskFull => self.disk.as_ref().unwrap().fill(),
            Fault::ClockSet => {
                let whose = *random.pick(&[Whose::Source, Whose::Source, Whose::Archive]);
                // A source's goes on by hours and back by seconds: until it is past what it said before, nothing is claimed.
                let (back, forth) = *random.pick(&[(3, 3), (3, 60), (0, 3 * 3600)]);
                let back = if whose == Whose::Archive { forth } else { back };
                let by = random.below(back + forth + 1) as i64 - back as i64;
                let now = if whose == Whose::Source { self.clocks.source_us() / 1_000_000 } else { 0 };
                let seconds = now + by;
                let step = self.steps.pop_front().unwrap_or((whose, seconds));
                self.set_clock(step);
            }
        }
    }

    fn set_clock(&self, (whose, seconds): (Whose, i64)) {
        println!("the clock of {whose:?} is set to {seconds} s beside the machine's");
        self.clocks.set(whose, seconds);
        let clock = "SELECT TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6))";
        let says: i64 = self.server.value(clock).unwrap().parse().unwrap();
        let off = says - micros(SystemTime::now()) - self.clocks.source_us();
        assert!(off.abs() < 20_000_000, "the server's clock is not set: it is {off} us off");
    }

    fn end(&mut self, fault: Fault) {
        match fault {
            Fault::SilentDown | Fault::SilentUp | Fault::Silent => {
                self.wire.mode.store(PASS, Ordering::SeqCst);
                // A wire that was dead for long has no connections left on it.
                self.wire.cut();
            }
            Fault::DiskFull => self.disk.as_ref().unwrap().empty(),
            Fault::SourceKilled | Fault::Cut | Fault::ArchiveKilled | Fault::ClockSet => {}
        }
    }
}

/// Microseconds of all intervals.
fn sum(intervals: &[(i64, i64)]) -> i64 {
    intervals.iter().map(|(from, until)| until - from).sum()
}

fn micros(at: SystemTime) -> i64 {
    i64::try_from(at.duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

/// What happens to one server.
struct Course {
    kinds: Vec<Fault>,
    /// So many faults; without a number until a claim was proved.
    number: Option<u64>,
    /// Work before the first fault, and how long a fault lasts at most.
    work: Duration,
    longest_ms: u64,
    steps: Vec<(Whose, i64)>,
}

fn under_faults(engine: Engine, course: Course, clocks: SteppedClocks) {
    let Course { kinds, number, mut work, longest_ms, steps } = course;
    let (mut random, _) = Random::from_environment("faults_lose_nothing_that_is_claimed");
    let campaign = number.is_some();
    let mut bed = Bed::new(engine, kinds.contains(&Fault::DiskFull), clocks);
    let always_dies = !steps.is_empty();
    bed.steps.extend(steps);
    bed.keep_archive();
    let (mut deaths, mut worst, mut told_in_all) = (0, Duration::ZERO, 0);
    let (mut lost_in_all, mut most_claimed) = (Vec::new(), 0);
    // A claim takes three answers of the source, a second apart. The default run ends with the first death that one comes
    // before; on a machine that is too slow for it the next round is longer.
    let (mut proved, mut round) = (false, 0);
    while number.map_or(!proved && round < ROUNDS_MAX, |number| round < number) {
        let fault = *random.pick(&kinds);
        bed.wait_until_attached();
        let attached = Instant::now();
        let stalls = Stalls::watch(bed.dir.path());
        let writers = Writers::start(&bed.server, &bed.clocks);
        let at_work = Instant::now();
        let begun = micros(SystemTime::now()) + bed.clocks.source_us();
        while writers.count() < 20 {
            assert!(at_work.elapsed() < Duration::from_secs(120), "{fault:?}: no commits");
            std::thread::sleep(Duration::from_millis(10));
        }
        std::thread::sleep(work + Duration::from_millis(random.below(longest_ms)));
        let broken = SystemTime::now();
        bed.begin(fault, &mut random);
        std::thread::sleep(Duration::from_millis(random.below(longest_ms)));
        // The host of the source is lost, in each round of the first kind and in every other one now and then.
        let dies = fault == Fault::SourceKilled || always_dies || random.below(3) == 0;
        if dies {
            deaths += 1;
            bed.server.kill();
        }
        let told = writers.end();
        told_in_all += told.iter().map(Vec::len).sum::<usize>();
        if dies {
            // What is on its way still comes, and is written down.
            std::thread::sleep(Duration::from_millis(1500));
            let (rows, claimed) = bed.archived();
            let mut lost: Vec<Told> = Vec::new();
            for (writer, told) in told.iter().enumerate() {
                lost.extend(told.iter().filter(|told| told.row >= rows[writer]));
            }
            most_claimed = most_claimed.max(sum(&claimed));
            proved |= claimed.iter().any(|(_, until)| campaign || *until > begun);
            for told in &lost {
                told.is_not_claimed(&claimed, &format!("round {round}, {fault:?}"));
            }
            lost_in_all.extend(lost.iter().copied());
            let end = told.iter().flatten().map(|told| told.at).max().unwrap_or(broken);
            if let Some(first) = lost.iter().map(|told| told.at).min() {
                // Behind a fault that goes on, everything since it began may be.
                let until = if matches!(fault, Fault::SourceKilled | Fault::ClockSet) {
                    end
                } else {
                    broken.min(end)
                };
                let age = until.duration_since(first).unwrap_or_default();
                worst = worst.max(age);
                let allowed = stalls.stretched(Duration::from_secs(1));
                // A busy machine may keep the archive from its second; nobody claims anything of that time.
                assert!(
                    !campaign || age <= allowed,
                    "round {round}, {fault:?}: {age:?} of commits are lost ({allowed:?} allowed)"
                );
            }
        }
        bed.end(fault);
        if dies {
            bed.server.start_again();
            bed.wire.upstream.store(bed.server.port(), Ordering::SeqCst);
            bed.wire.cut();
        }
        round += 1;
        if !campaign {
            work *= 2;
        }
        println!("round {round}: {fault:?}, source lost: {dies}, attached for {:?}", attached.elapsed());
    }
    bed.wait_until_attached();
    let deadline = Instant::now() + Duration::from_secs(120);
    while bed.archived().0 != bed.rows() {
        assert!(Instant::now() < deadline, "at the end {:?} of {:?}", bed.archived().0, bed.rows());
        std::thread::sleep(Duration::from_millis(200));
    }
    bed.kill_archive();
    let _ = bed.user.fsck().accepted();
    let claimed = bed.archived().1;
    // Nor is it claimed later.
    for told in &lost_in_all {
        told.is_not_claimed(&claimed, "at the end");
    }
    // A clock that was set back takes away some that there were.
    let claimed = sum(&claimed).max(most_claimed);
    assert!(proved && claimed > 0, "nothing is claimed in {round} rounds");
    println!(
        "{engine:?}: {deaths} deaths of the source, {told_in_all} commits told, {} lost, the oldest of them {worst:?} \
         before the end; {:.0} s claimed as zero loss, nothing lost in them",
        lost_in_all.len(),
        claimed as f64 / 1e6
    );
}

/// Without a campaign one kind of server shows that all this works, and another one that clocks may be set meanwhile;
/// `semi_sync.rs` loses both.
#[test]
fn faults_lose_nothing_that_is_claimed() {
    const NAME: &str = "faults_lose_nothing_that_is_claimed";
    let Some(clocks) = SteppedClocks::given() else {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        return SteppedClocks::run_again(dir.path(), NAME);
    };
    let number = std::env::var("HOLDFAST_TEST_FAULTS").ok().and_then(|n| n.parse().ok());
    let Some(number) = number else {
        let kinds = vec![Fault::SourceKilled];
        let course = Course { kinds, number: None, work: CLAIM, longest_ms: 300, steps: Vec::new() };
        return under_faults(Engine::MariaDb, course, clocks);
    };
    for engine in [Engine::MySql, Engine::MariaDb] {
        let kinds = vec![
            Fault::SourceKilled,
            Fault::Cut,
            Fault::SilentDown,
            Fault::SilentUp,
            Fault::Silent,
            Fault::ArchiveKilled,
            Fault::DiskFull,
            Fault::ClockSet,
        ];
        let course =
            Course { kinds, number: Some(number), work: Duration::ZERO, longest_ms: 3000, steps: Vec::new() };
        let clocks = SteppedClocks::given().unwrap();
        for whose in [Whose::Source, Whose::Archive] {
            clocks.set(whose, 0);
        }
        under_faults(engine, course, clocks);
    }
}

#[test]
fn a_clock_that_is_set_spoils_no_claim() {
    let Some(clocks) = SteppedClocks::given() else {
        let dir = tempfile::tempdir_in(scratch()).unwrap();
        return SteppedClocks::run_again(dir.path(), "a_clock_that_is_set_spoils_no_claim");
    };
    let steps = vec![(Whose::Source, 3600), (Whose::Archive, -7200), (Whose::Source, -30)];
    let number = Some(steps.len() as u64);
    let course = Course { kinds: vec![Fault::ClockSet], number, work: CLAIM, longest_ms: 300, steps };
    under_faults(Engine::MySql, course, clocks);
}
