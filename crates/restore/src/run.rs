//! Carries a plan out: lay out, recover, replay, restart, prove, fence.
//!
//! Nothing of it is visible to anybody before the proof: the server has no network and an account
//! that only we know. A process that dies leaves the marker "under way" behind, and the same
//! command goes on where `progress.rs` says. Order of the steps, and why:
//!
//! 1. Lay out, every block verified against its id; `mariadb-backup --prepare` where that is due.
//! 2. First start: the server's own recovery. Where it stands is read before anything is written,
//!    and checked against what the backup says of itself.
//! 3. The range of log is looked through: what can't be replayed is refused before the first write.
//! 4. What the proof will need is counted, and kept in the folder beside the marker.
//! 5. Replay; then the GTID state, and a clean shutdown, by which everything is on the disk.
//! 6. Second start, as the server will be handed over; the proof looks at this one.
//! 7. The last start; it is asked once more for settings of the replay. The fence; the marker says so last.

mod begin;
mod prove;
mod replay;
mod settings;

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use begin::lacking;
use holdfast_engine::{Listen, PrivateServer, Programs, StartOptions};
use holdfast_format::gtid::Flavor as GtidFlavor;
use holdfast_format::record::{COPIED_FROM, Position};
use holdfast_mysql::{Conn, Flavor};
use holdfast_replay::checkpoint::{self, Applied};
use holdfast_replay::net::{self, SteppedDown};
use holdfast_replay::{scan, serial};
use settings::settings;
pub use settings::source_settings;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fence;
use crate::layout::{self, Found, Over, Space, Taking};
use crate::marker::{Marker, State};
use crate::plan::Plan;
use crate::progress::{Phase, Progress, boot_id};
use crate::queries::Queries;
use crate::range::RangeLog;
use crate::replica::{self, Reached, Replica};
use crate::report::{Check, Prove, Report, Seconds};
use crate::scope::{self, Scope, Wanted, files};
use crate::seam::{Base, LaidOut, LayingOut, Log};
use crate::tuning;

/// The restored server's log, in its folder.
pub const SERVER_LOG: &str = "holdfast-server.log";

/// The restored server's socket when it stays, in its folder.
pub const SOCKET: &str = "mysqld.sock";

/// Longest clean shutdown: it writes every changed page.
pub const SHUTDOWN_LIMIT: Duration = Duration::from_secs(30 * 60);

/// Longest recovery of a copy: it applies at most what the server wrote while the copy was taken.
const RECOVERY_LIMIT: Duration = Duration::from_secs(6 * 3600);

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Files are written.
    LayOut(LayingOut),
    /// The server recovers the copy.
    Recover,
    /// The log is looked through, rows are counted.
    Inspect,
    /// The log is replayed.
    Replay {
        /// Transactions behind us.
        transactions: u64,
        /// Bytes of log behind us.
        bytes: u64,
        /// The copy is as the source was at this time, microseconds since the Unix epoch.
        through_us: u64,
        /// What it waits for now.
        limit: serial::Limit,
    },
    /// The server is shut down and started again.
    Restart,
    /// The proof.
    Prove,
}

/// Whoever waits for a restore.
pub trait Watch: Sync {
    /// Called at each step, and many times a second while files are written or the log is replayed.
    fn step(&self, step: Step);
    /// A sentence worth showing at once: a table that is replayed in order, and why.
    fn note(&self, _text: &str) {}
    /// True when the restore is to be called off.
    fn cancelled(&self) -> bool;
}

/// What to restore, and how.
pub struct Request<'a> {
    /// Name of the protected server.
    pub server: &'a str,
    /// The base that the plan names.
    pub base: &'a dyn Base,
    /// The log that the plan was made with; none for a base that stands in no log.
    pub log: Option<&'a dyn Log>,
    /// The plan.
    pub plan: &'a Plan,
    /// The target folder.
    pub folder: &'a Path,
    /// The server's programs; none for a folder that is no server's: its files are laid out, and that is all.
    pub programs: Option<&'a Programs>,
    /// How much to check.
    pub level: Prove,
    /// How the log is replayed.
    pub mode: net::Mode,
    /// Leaves the server running on this port, fenced.
    pub start: Option<u16>,
    /// `--continue`: the folder holds a restore from this base, and is rolled forward.
    pub going_on: bool,
    /// `--delta`: what is in the folder may be rewritten.
    pub over: Option<Over>,
    /// Some tables alone; the plan was narrowed to them.
    pub tables: Option<&'a Wanted>,
    /// `--as-replica-of`: whom the restored server replicates from.
    pub replica: Option<&'a Replica>,
    /// `--with-config`, `--set`: what the server is started with at the end beside what it must be, and the option file
    /// that says so.
    pub config: Option<&'a Config>,
    /// The user's own queries, asked at the end of the proof.
    pub queries: Option<&'a Queries>,
    /// Whoever waits.
    pub watch: &'a dyn Watch,
}

impl std::fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Request")
            .field("plan", self.plan)
            .field("folder", &self.folder)
            .finish_non_exhaustive()
    }
}

/// A server that runs on after us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Running {
    /// Its process.
    pub pid: i32,
    /// Its socket.
    pub socket: PathBuf,
    /// Its port on the loopback address.
    pub port: Option<u16>,
}

/// A restored and proved server.
#[derive(Debug)]
pub struct Restored {
    /// The report.
    pub report: Report,
    /// Where the base stands exactly, learned at its first start; to be noted with the backup.
    pub exact: Option<Position>,
    /// The server, if it was asked to stay.
    pub running: Option<Running>,
    /// How to start it by hand; none for a plain folder.
    pub start_line: Option<String>,
}

/// Carries the plan out. When it returns, everything is synced and proved, and the folder is fenced.
pub fn run(request: &Request<'_>) -> Result<Restored> {
    let began = Instant::now();
    let marker = Marker {
        state: State::UnderWay,
        base: request.plan.base.clone(),
        target: request.plan.target.clone(),
        server: request.server.to_owned(),
        engine: request.programs.map(|programs| programs.version.to_string()).unwrap_or_default(),
        port: None,
        tables: request.tables.map(Wanted::words),
        settings: Vec::new(),
        // Until the end it says what an earlier run set up in the folder.
        replica_of: Marker::read(request.folder)?.and_then(|there| there.replica_of),
    };
    let how = Taking { going_on: request.going_on, over: request.over };
    let space = Space { base: request.base.bytes(), needed: request.plan.space_needed };
    let (target, found) = layout::Target::take(request.folder, &marker, space, how)?;
    let done = carry_out_stepping_down(request, &target, found, &marker, began);
    done.map_err(|error| ended(request, target.folder(), error))
}

/// What a failure means to whoever gave the command.
fn ended(request: &Request<'_>, folder: &Path, error: Error) -> Error {
    let stopped = matches!(
        error,
        Error::Cancelled { .. }
            | Error::Base(_)
            | Error::Replay(holdfast_replay::Error::Stopped(_))
            | Error::Engine(holdfast_engine::Error::Cancelled { .. })
    );
    if request.watch.cancelled() && stopped {
        let counted = Progress::read(folder).is_ok_and(|progress| progress.is_some());
        let next =
            if counted { "the same command goes on from here" } else { "the same command starts it again" };
        return Error::Cancelled { folder: folder.to_path_buf(), next };
    }
    layout::full(folder, error)
}

/// How often the base is laid out again so that tables that net change did not fit are replayed in order. Each time
/// others do; after that, the log is replayed one by one, where nothing can surprise.
const STEPS_MAX: usize = 3;

/// What is said where a part of a window is applied that this replay would cut in another way.
const OTHER_WINDOW: &str = "the base is laid out again: an earlier run, of another version, was killed while it applied a \
                            window of net change, and this version can't finish that one";

/// Carries the plan out. Where net change turns out not to fit a table after a part of it was applied, the
/// copy is of no use any more: the base is laid out again, and what is as it should be stays.
fn carry_out_stepping_down(
    request: &Request<'_>,
    target: &layout::Target,
    mut found: Found,
    marker: &Marker,
    began: Instant,
) -> Result<Restored> {
    let mut stepped: Vec<SteppedDown> = Vec::new();
    let mut other_window = false;
    loop {
        let mode = if stepped.len() > STEPS_MAX { net::Mode::Serial } else { request.mode };
        match carry_out(request, target, found, marker.clone(), began, (mode, &stepped)) {
            Err(Error::Replay(holdfast_replay::Error::Surprise { tables, why, together })) => {
                holdfast_engine::kill_server_on(target.folder())?;
                // From here on the same command, too, begins with the base.
                Progress::remove(target.folder())?;
                stepped.push(SteppedDown { tables, why, together });
                found = Found::Nothing;
            }
            // On the fresh copy there is no window that another version began, so this comes once.
            Err(Error::Replay(holdfast_replay::Error::OtherWindow)) if !other_window => {
                holdfast_engine::kill_server_on(target.folder())?;
                Progress::remove(target.folder())?;
                request.watch.note(OTHER_WINDOW);
                (other_window, found) = (true, Found::Nothing);
            }
            Ok(mut restored) if other_window => {
                restored.report.remarks.push(OTHER_WINDOW.to_owned());
                return Ok(restored);
            }
            done => return done,
        }
    }
}

fn carry_out(
    request: &Request<'_>,
    target: &layout::Target,
    found: Found,
    mut marker: Marker,
    began: Instant,
    (mode, stepped): (net::Mode, &[SteppedDown]),
) -> Result<Restored> {
    let mut report = Report {
        server: request.server.to_owned(),
        finished: String::new(),
        proved: false,
        level: request.level,
        plan: request.plan.clone(),
        folder: target.folder().display().to_string(),
        engine: marker.engine.clone(),
        server_uuid: None,
        laid_out: LaidOut::default(),
        recovered_at: String::new(),
        went_on_after: None,
        transactions_replayed: 0,
        transactions_in_base: 0,
        replayed_in_order: Vec::new(),
        remarks: Vec::new(),
        replay_settings: Vec::new(),
        lacking: request.base.lacking(),
        tables: 0,
        checks: Vec::new(),
        queries: Vec::new(),
        seconds: Seconds::default(),
    };
    let found = match found {
        Found::Restore(progress) => Some(*progress),
        Found::Nothing => None,
    };
    let scope = match (&found, request.tables) {
        (Some(progress), _) => progress.scope.clone(),
        (None, Some(wanted)) => Some(Scope::new(wanted, request.base)?),
        (None, None) => None,
    };
    let laid_out = match &found {
        Some(progress) => progress.laid_out,
        None => lay_out(request, target, scope.as_ref())?,
    };
    report.laid_out = laid_out;
    report.checks.push(blocks_check(laid_out));
    report.seconds.lay_out = began.elapsed().as_secs_f64();
    let Some(programs) = request.programs else {
        for name in ["coordinates", "tables-open", "row-counts", "sampled-rows", "definitions", "accounts"] {
            report.checks.push(Check::left_out(name, "the folder is no server's"));
        }
        conclude(&mut report, began);
        Marker::remove(target.folder())?;
        return Ok(Restored { report, exact: None, running: None, start_line: None });
    };
    if let Some(version) = request.plan.version.as_deref() {
        programs.check(&holdfast_mysql::ServerVersion::parse(version))?;
    }
    let folder = target.folder();
    let fresh = found.is_none();
    let scope = scope.map(Arc::new);
    let mut restore = Restore {
        request,
        programs,
        target,
        folder,
        mode,
        stepped,
        tuned: Vec::new(),
        reached: Reached::default(),
        scope,
        report: &mut report,
    };
    let done = restore.recover_replay_and_prove(found, &marker, began);
    if let (Err(Error::Tables(_)), true, None) = (&done, fresh, request.over) {
        target.give_up()?;
    }
    let exact = done?;
    let starting = Instant::now();
    let (server, conn) = restore.hand_over(began, marker.replica_of.is_some())?;
    drop(conn);
    report.seconds.restart += starting.elapsed().as_secs_f64();
    conclude(&mut report, began);
    let start_line = fence::start_line(&programs.server, target.folder());
    marker.state = State::Fenced;
    marker.port = request.start;
    marker.settings = settings_at_end(request, programs.flavor());
    marker.replica_of = request.replica.map(Replica::source);
    let running = match request.start {
        Some(_) => {
            marker.write(target.folder())?;
            Some(keep_running(server))
        }
        None => {
            server.stop(SHUTDOWN_LIMIT)?;
            if request.replica.is_some() {
                replica::untie(target.folder(), programs.flavor())?;
            }
            marker.write(target.folder())?;
            None
        }
    };
    Ok(Restored { report, exact, running, start_line: Some(start_line) })
}

/// Lays the base out, or what of it these tables need.
fn lay_out(request: &Request<'_>, target: &layout::Target, scope: Option<&Scope>) -> Result<LaidOut> {
    let progress = |progress| {
        request.watch.step(Step::LayOut(progress));
        if request.watch.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let Some(scope) = scope else { return target.fill(request.base, None, &progress) };
    let paths = request.base.paths().map_err(Error::Base)?;
    let (only, _) = files::selected(scope, &paths);
    let done = target.fill(request.base, Some(&only), &progress)?;
    target.make_folders(&paths)?;
    Ok(done)
}

/// What the restored server is started with at the end: what the copy needs, then what somebody asked for, which counts.
fn settings_at_end(request: &Request<'_>, flavor: Flavor) -> Vec<String> {
    let mut all = settings(request.base, flavor);
    if let Some(config) = request.config {
        all.extend(config.args.iter().cloned());
        // What comes last counts, however a setting was written.
        let still =
            ["event-scheduler=OFF", "general-log=OFF", "slow-query-log=OFF"].map(|word| format!("--{word}"));
        all.extend(still);
        all.extend(["--loose-skip-slave-start", "--loose-skip-replica-start"].map(str::to_owned));
    }
    all
}

/// Lets go of a server that runs on.
pub(crate) fn keep_running(server: PrivateServer) -> Running {
    let (socket, port) = (server.socket().to_path_buf(), server.port());
    Running { pid: server.detach(), socket, port }
}

fn conclude(report: &mut Report, began: Instant) {
    report.seconds.total = began.elapsed().as_secs_f64();
    report.finished = jiff::Timestamp::now().to_string();
    report.proved = report.failures().is_empty();
}

fn blocks_check(laid_out: LaidOut) -> Check {
    let mut detail = format!(
        "{} blocks of {} files were verified against their ids when they were written, {} bytes",
        laid_out.blocks, laid_out.files, laid_out.bytes
    );
    if laid_out.blocks_kept > 0 {
        detail.push_str(&format!(
            "; {} more blocks stood in the folder already, verified the same way",
            laid_out.blocks_kept
        ));
    }
    if laid_out.healed_segments > 0 {
        detail.push_str(&format!(
            "; {} segments of the repository are damaged and were read by their parity: run \
             `holdfast-fsck --full --repair`",
            laid_out.healed_segments
        ));
    }
    Check::new("blocks", detail, Vec::new(), Vec::new())
}

struct Restore<'a, 'r> {
    request: &'a Request<'a>,
    programs: &'a Programs,
    target: &'a layout::Target,
    folder: &'a Path,
    mode: net::Mode,
    /// Tables that net change did not fit, on an earlier copy of the base.
    stepped: &'a [SteppedDown],
    /// What the server of the replay was started with beside what every one is.
    tuned: Vec<String>,
    /// Where it led to.
    reached: Reached,
    /// Of a restore of some tables: which.
    scope: Option<Arc<Scope>>,
    report: &'r mut Report,
}

impl<'a> Restore<'a, '_> {
    fn recover_replay_and_prove(
        &mut self,
        found: Option<Progress>,
        marker: &Marker,
        began: Instant,
    ) -> Result<Option<Position>> {
        let base = self.request.base;
        let fresh = found.is_none();
        let (mut progress, server, mut conn, known) = match found {
            Some(progress) => {
                let (server, conn, summary) = self.go_on(&progress, marker)?;
                (progress, server, conn, Some(summary))
            }
            None => {
                let (progress, server, conn) = self.begin()?;
                (progress, server, conn, None)
            }
        };
        self.report.recovered_at = progress.held.words();
        self.report.checks.push(progress.held.check.clone());
        self.report.lacking.extend(lacking(base.kind(), &progress.before, &self.report.lacking));
        let log = self.range(&progress)?;
        self.request.watch.step(Step::Inspect);
        let mut summary = known.unwrap_or_default();
        if let Some(log) = &log {
            if fresh {
                summary = scan::scan(log).map_err(Error::of_scan)?;
                summary.check()?;
            }
            let none = Applied { done: progress.done, touched: progress.done };
            let applied = checkpoint::applied(&mut conn)?.unwrap_or(none);
            if summary.transactions < applied.touched {
                return Err(self.backwards()?);
            }
            self.count_changed(&mut conn, log, &mut progress, applied)?;
            if !fresh {
                self.report.went_on_after = Some(applied.done);
            }
        }
        (progress.phase, progress.boot_id) = (Phase::Replaying, boot_id());
        progress.write(self.folder)?;
        let started = Instant::now();
        if let Some(log) = &log {
            let replayed = self.replay(&server, &mut conn, log, &mut progress, &summary);
            // Asked while the server still holds what it wrote: it gives temporary files back when it goes.
            replayed.map_err(|error| layout::full(self.folder, error))?;
        }
        self.report.seconds.replay = started.elapsed().as_secs_f64();
        progress.gtids = self.gtids(&mut conn)?;
        self.reached = self.reached(&progress)?;
        drop(conn);
        self.request.watch.step(Step::Restart);
        let restarting = Instant::now();
        server.stop(SHUTDOWN_LIMIT)?;
        progress.phase = Phase::Settled;
        progress.write(self.folder)?;
        self.go_on_or_stop()?;
        self.prove(&progress, log.as_ref(), restarting, began)?;
        self.refuse_unproved(began)?;
        Ok(progress.held.exact.filter(|_| RangeLog::position_tells(base)))
    }

    /// An error once a check found something wrong.
    fn refuse_unproved(&mut self, began: Instant) -> Result<()> {
        let failures = self.report.failures();
        if failures.is_empty() {
            return Ok(());
        }
        conclude(self.report, began);
        Err(Error::NotProved { failures, report: Box::new(self.report.clone()) })
    }

    /// An error once the restore was called off.
    fn go_on_or_stop(&self) -> Result<()> {
        if self.request.watch.cancelled() {
            // What follows from here is worked out where the folder is known.
            return Err(Error::Cancelled { folder: self.folder.to_path_buf(), next: "" });
        }
        Ok(())
    }

    fn gtid_flavor(&self) -> GtidFlavor {
        match self.programs.flavor() {
            Flavor::MySql => GtidFlavor::MySql,
            Flavor::MariaDb => GtidFlavor::MariaDb,
        }
    }

    /// Where the server stands now, for whoever goes on from there: by the log where some was replayed, else by the base.
    fn reached(&self, progress: &Progress) -> Result<Reached> {
        let held = &progress.held;
        let (Some(range), Some(log)) = (self.request.plan.log, self.request.log) else {
            let gtids = match (&held.executed, &held.exact) {
                (Some(gtids), _) => gtids.to_string(),
                (None, Some(at)) => at.gtid.to_string(),
                (None, None) => String::new(),
            };
            let position = held.exact.as_ref().filter(|at| !at.file.is_empty());
            return Ok(Reached { position: position.map(|at| (at.file.clone(), at.offset)), gtids });
        };
        let position = log.position_at(range.until).map_err(Error::Log)?;
        Ok(Reached { position, gtids: progress.gtids.clone() })
    }

    /// The log from the base up to the target; none where nothing is replayed.
    fn range(&self, progress: &Progress) -> Result<Option<RangeLog<'a>>> {
        let (Some(range), Some(log)) = (self.request.plan.log, self.request.log) else { return Ok(None) };
        let base = self.request.base;
        let range = RangeLog::new(log, range.until, &progress.coordinates, &progress.held, base)?;
        Ok(Some(range.for_tables(self.scope.clone())))
    }

    /// Last start, fenced: as whoever asked for the server will find it. Its options are put together anew, so it is asked
    /// once more whether any setting of the replay is among them.
    fn hand_over(&mut self, began: Instant, was_replica: bool) -> Result<(PrivateServer, Conn)> {
        let mut options = StartOptions::new(self.programs.clone(), self.folder);
        options.purpose = "the restored server".to_owned();
        options.timeout = RECOVERY_LIMIT;
        options.log = Some(self.folder.join(SERVER_LOG));
        options.extra_args = settings_at_end(self.request, self.programs.flavor());
        if let Some(port) = self.request.start {
            options.listen = Listen::Loopback(port);
            options.socket = Some(self.folder.join(SOCKET));
        }
        let server = PrivateServer::start(options)?;
        self.remark_network(&server);
        let mut conn = server.connect()?;
        if let Some(wanted) = self.request.tables {
            scope::server::rename(&mut conn, wanted)?;
        }
        let settings = tuning::put_back(&mut conn, self.programs.flavor(), &self.tuned)?;
        self.report.checks.retain(|check| check.name != settings.name);
        self.report.checks.push(settings);
        if let Some(config) = self.request.config {
            let check = config.check(&mut conn)?;
            self.report.checks.retain(|known| known.name != check.name);
            self.report.checks.push(check);
        }
        let copied = self.request.base.fact(COPIED_FROM).is_some();
        if self.request.replica.is_none() && (was_replica || copied) {
            // It was set up behind another moment; or the copy is a replica's, with the account that it replicates by.
            replica::forget(&mut conn, self.programs.flavor())?;
        }
        if copied {
            self.report.remarks.extend(replica::events_that_sleep(&mut conn)?);
        }
        if let Some(replica) = self.request.replica {
            let check = replica::set_up(&mut conn, self.programs.flavor(), replica, &self.reached)?;
            self.report.checks.retain(|known| known.name != check.name);
            self.report.checks.push(check);
        }
        self.refuse_unproved(began)?;
        if let Some(config) = self.request.config {
            config.write(self.folder)?;
        }
        fence::put_up(&server, &mut conn, self.request.config.is_some())?;
        Ok((server, conn))
    }
}
