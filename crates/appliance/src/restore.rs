//! `restore`: plan it, carry it out, keep its report.

mod base;
mod finish;
mod log;
mod replica;
mod settings;
mod tables;
mod target;

pub use finish::{FinishedView, finish};
pub use replica::ReplicaOf;
pub use settings::Settings;
pub use tables::Tables;
pub use target::Target;
pub(crate) use target::gtid_set;

use crate::archive::{archive_error, drain, wait_for_archive};
use crate::catalogue::{Catalogue, sentence};
use crate::check_queries::Queries;
use crate::error::{Code, Error, Result};
use crate::list::learned;
use crate::measured::{EstimateView, estimate, measured};
use crate::progress::{Reading, Watcher};
use crate::reports;
use crate::time::{Micros, show_time};
use base::StoredBase;
use holdfast_archive::ServerLog;
use holdfast_engine::Programs;
use holdfast_format::record::{BackupRecord, Record, ServerKind, ServerRecord};
use holdfast_mysql::{Flavor, ServerVersion};
use holdfast_restore::config::Config;
use holdfast_restore::marker::{Marker, State};
pub use holdfast_restore::outlook::Outlook;
pub use holdfast_restore::queries::Answer;
use holdfast_restore::report::Verdict;
use holdfast_restore::tuning::{Facts, memory_free};
use holdfast_restore::{Base, Over, Prove, Report, Request, Restored, Step};
pub use holdfast_restore::{Part, Plan};
use log::ArchivedLog;
use serde::Serialize;
use std::net::TcpListener;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// The kind of a restore's report in the repository.
pub const KIND: &str = "restore";

/// How much is proved at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProveLevel {
    /// Coordinates, every table opened, sampled rows.
    Quick,
    /// With counts of the tables that the log changed.
    Standard,
    /// Everything.
    Full,
}

/// What is to be restored, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The moment.
    pub target: Target,
    /// The folder.
    pub into: PathBuf,
    /// Where the server's programs are.
    pub engine_dir: Option<PathBuf>,
    /// Leave the server running.
    pub start: bool,
    /// On this port.
    pub port: Option<u16>,
    /// How much to prove.
    pub prove: ProveLevel,
    /// How the log is replayed.
    pub mode: ReplayMode,
    /// The folder holds a restore that is to be rolled forward.
    pub going_on: bool,
    /// What is in the folder is rewritten where it differs.
    pub delta: Option<Delta>,
    /// Some tables alone.
    pub tables: Option<Tables>,
    /// The restored server carries on replicating.
    pub replica: Option<ReplicaOf>,
    /// The source's settings come along, or others.
    pub config: Option<Settings>,
    /// The user's own queries, asked at the end of the proof.
    pub queries: Queries,
    /// What a daemon calls the job that this is: its report says so.
    pub job: Option<String>,
}

impl Options {
    /// A whole server at a moment, into a folder that is empty or absent, with the usual proof, and nothing else.
    #[must_use]
    pub fn new(target: Target, into: PathBuf) -> Self {
        Self {
            target,
            into,
            engine_dir: None,
            start: false,
            port: None,
            prove: ProveLevel::Standard,
            mode: ReplayMode::Auto,
            going_on: false,
            delta: None,
            tables: None,
            replica: None,
            config: None,
            queries: Queries::default(),
            job: None,
        }
    }
}

/// How a folder that holds something is restored over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// The folder's own name, typed again: for a folder that no restore made, or that was handed over since.
    pub confirm: Option<String>,
    /// Names in the folder that stay, though the backup does not have them.
    pub keep: Vec<std::ffi::OsString>,
}

pub use holdfast_replay::Mode as ReplayMode;

/// A plan for people.
#[derive(Clone, Debug, Serialize)]
pub struct PlanView {
    /// The plan itself.
    #[serde(flatten)]
    pub plan: Plan,
    /// The target folder.
    pub into: String,
    /// The server program that would be used, or why there is none.
    pub engine: String,
    /// With `--delta`, what laying the base out would do to the folder.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delta: Option<DeltaView>,
    /// How long it will take, by the restores that were measured; none was: `null`.
    pub estimate: Option<EstimateView>,
    /// Of a dry run: how the log would be replayed, and what can't be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub replay: Option<Outlook>,
}

/// What a restore over an existing folder would do to it. Paths are below the folder.
#[derive(Clone, Debug, Serialize)]
pub struct DeltaView {
    /// Files that stay as they are.
    pub files_kept: u64,
    /// Bytes of blocks that stay, those of rewritten files included.
    pub bytes_kept: u64,
    /// Bytes of blocks that would be written.
    pub bytes_written: u64,
    /// Files that are not there and would be made.
    pub files_made: u64,
    /// Files that would be rewritten in part, with the bytes of it.
    pub rewritten: Vec<(String, u64)>,
    /// What would be removed.
    pub removed: Vec<String>,
}

/// How long one part of a restore took.
#[derive(Clone, Debug, Serialize)]
pub struct PhaseView {
    /// Its name.
    pub name: &'static str,
    /// Microseconds.
    pub micros: Micros,
}

/// A finished restore for people.
#[derive(Clone, Debug, Serialize)]
pub struct RestoredView {
    /// The protected server's name.
    pub server: String,
    /// What was reached, in words.
    pub reached: String,
    /// The folder.
    pub into: String,
    /// True: a restore that is not proved is an error.
    pub proved: bool,
    /// What was checked and found right.
    pub evidence: Vec<String>,
    /// What was not looked at.
    pub not_checked: Vec<String>,
    /// What the restored server does not have, such as the rows of tables that a copy can't carry.
    pub missing: Vec<String>,
    /// How long it took.
    pub phases: Vec<PhaseView>,
    /// The running server's socket.
    pub socket: Option<String>,
    /// The running server's port on 127.0.0.1.
    pub port: Option<u16>,
    /// The running server's process.
    pub pid: Option<i32>,
    /// How to start it by hand.
    pub start_with: Option<String>,
    /// The whole report.
    pub report: Report,
}

/// Makes the plan; nothing is changed but that the log is brought up to date for `latest`.
///
/// # Errors
/// `TargetUnreachable` with the nearest points.
pub fn plan(catalogue: &Catalogue, name: &str, options: &Options, watcher: &dyn Watcher) -> Result<PlanView> {
    let server = catalogue.server(name)?;
    bring_up_to_date(catalogue, &server, options, watcher);
    let mut view = plan_of(catalogue, &server, options)?;
    if let Some(range) = view.plan.log {
        watcher.reading(Reading { phase: "inspect", ..Reading::default() });
        let log = open_log(catalogue, &server)?;
        let version = view.plan.version.as_deref().map(ServerVersion::parse);
        let version = version.unwrap_or_else(|| ServerVersion::parse(""));
        let facts = Facts::here(&view.plan, &options.into);
        let scope = tables::scope(catalogue, &server, &view.plan, options)?;
        let outlook =
            holdfast_restore::outlook::outlook(&log, range, scope.as_ref(), options.mode, &version, &facts);
        view.replay = Some(outlook.map_err(|error| restore_error(catalogue, error))?);
    }
    Ok(view)
}

/// Refuses what no restore over a folder can mean, before one is begun: a name that is not the folder's, or a folder that
/// lies in the repository.
///
/// # Errors
/// `Usage`, with the reason.
pub fn refuse_delta(catalogue: &Catalogue, options: &Options) -> Result<()> {
    over(catalogue, options).map(drop)
}

/// What may be rewritten; refuses a folder that nobody can have meant.
fn over(catalogue: &Catalogue, options: &Options) -> Result<Option<Over>> {
    let Some(delta) = &options.delta else { return Ok(None) };
    let folder = &options.into;
    let shown = folder.display();
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let (there, place) = (real(folder), real(&catalogue.place));
    if there.starts_with(&place) || place.starts_with(&there) {
        return Err(Error::usage(format!(
            "{shown} and the repository {} lie in each other.",
            place.display()
        ))
        .with_next("name another folder"));
    }
    match (&delta.confirm, there.file_name()) {
        (None, _) => Ok(Some(Over::Restored)),
        (Some(typed), Some(name)) if name.to_str() == Some(typed.as_str()) => Ok(Some(Over::Anything)),
        (Some(typed), _) => Err(Error::usage(format!("'{typed}' is not the name of {shown}."))
            .with_next("--confirm takes the last part of the folder's path, so that it is meant")),
    }
}

fn difference(
    catalogue: &Catalogue,
    base: Option<&StoredBase>,
    options: &Options,
) -> Result<Option<DeltaView>> {
    let (Some(_), Some(base)) = (over(catalogue, options)?, base) else { return Ok(None) };
    if !options.into.is_dir() {
        return Ok(None);
    }
    // Without the name typed, what would happen may be seen, and not be done.
    holdfast_restore::layout::refuse_over(&options.into, Over::Anything)
        .map_err(|error| restore_error(catalogue, error))?;
    let found = base.difference(&options.into).map_err(|e| catalogue.store_error(e))?;
    let text = |path: PathBuf| path.display().to_string();
    Ok(Some(DeltaView {
        files_kept: found.files_kept,
        bytes_kept: found.bytes_kept,
        bytes_written: found.bytes_written,
        files_made: found.files_made,
        rewritten: found.rewritten.into_iter().map(|(path, bytes)| (text(path), bytes)).collect(),
        removed: found.removed.into_iter().map(text).collect(),
    }))
}

fn plan_of(catalogue: &Catalogue, server: &ServerRecord, options: &Options) -> Result<PlanView> {
    let log = open_log(catalogue, server)?;
    let bases = bases_for(server, bases_into(catalogue, server, options), options)?;
    let (index, mut plan) = make_plan(server, &bases, &log, options)?;
    if let Some(base) = bases.get(index) {
        tables::narrow(catalogue, server, &mut plan, options, base, &log)?;
    }
    let engine = match bases.get(index).map(|base| programs(server, &base.record, options)) {
        Some(Ok(Some(programs))) => format!("{} ({})", programs.version, programs.server.display()),
        Some(Ok(None)) | None => "none is needed".to_owned(),
        Some(Err(error)) => format!("MISSING: {}", error.message),
    };
    let delta = difference(catalogue, bases.get(index), options)?;
    let whole = plan.log.map_or(0, |log| log.size.bytes);
    let log_bytes = plan.part.as_ref().map_or(whole, |part| part.log_bytes);
    let estimate = estimate(&measured(catalogue, server), plan.bytes, log_bytes);
    Ok(PlanView { plan, into: options.into.display().to_string(), engine, delta, estimate, replay: None })
}

/// The same for somebody who only looks: `latest` is the end of what is archived now, and nothing is fetched.
///
/// # Errors
/// As [`plan`].
pub fn look(catalogue: &Catalogue, name: &str, options: &Options) -> Result<PlanView> {
    plan_of(catalogue, &catalogue.server(name)?, options)
}

/// Restores, proves, and keeps the report with the backup.
///
/// # Errors
/// `TargetUnreachable`, `ProofFailed`, `Corruption`, or whatever stopped it.
pub fn restore(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    watcher: &dyn Watcher,
) -> Result<RestoredView> {
    restore_as(catalogue, name, options, watcher, KIND)
}

/// The same, the report kept under another kind.
pub(crate) fn restore_as(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    watcher: &dyn Watcher,
    kind: &str,
) -> Result<RestoredView> {
    let server = catalogue.server(name)?;
    bring_up_to_date(catalogue, &server, options, watcher);
    let log = open_log(catalogue, &server)?;
    let bases = bases_for(&server, bases_into(catalogue, &server, options), options)?;
    let (index, mut plan) = make_plan(&server, &bases, &log, options)?;
    let base = bases.get(index).ok_or_else(|| Error::failed("The plan names no backup."))?;
    tables::narrow(catalogue, &server, &mut plan, options, base, &log)?;
    let programs = programs(&server, &base.record, options)?;
    if options.into.exists() && !options.into.is_dir() {
        return Err(Error::usage(format!("{} is not a folder.", options.into.display()))
            .with_next("name a folder that is empty or does not exist"));
    }
    if programs.is_none() && (options.replica.is_some() || options.config.is_some()) {
        return Err(Error::usage(format!("'{}' is a folder that is no server's.", server.name))
            .with_next("leave --as-replica-of, --with-config and --set away"));
    }
    if programs.is_none() && !options.queries.all.is_empty() {
        return Err(Error::usage(format!(
            "'{}' is a folder that is no server's: no query can be asked.",
            server.name
        ))
        .with_next("leave the check queries away"));
    }
    // What does not let us in is said before anything is laid out.
    let of = |wanted| replica::look(catalogue, &server, wanted);
    let replica = options.replica.as_ref().map(of).transpose()?;
    let flavor = programs.as_ref().map_or(Flavor::MySql, Programs::flavor);
    let config = options.config.as_ref().map(|wanted| {
        let fact = |name: &str| base.fact(name);
        Config::new(&fact, flavor, wanted.of_source, &wanted.set, memory_free())
    });
    let request = Request {
        server: &server.name,
        base,
        log: (!matches!(server.kind, ServerKind::Folder { .. })).then_some(&log),
        plan: &plan,
        folder: &options.into,
        programs: programs.as_ref(),
        level: match options.prove {
            ProveLevel::Quick => Prove::Quick,
            ProveLevel::Standard => Prove::Standard,
            ProveLevel::Full => Prove::Full,
        },
        mode: options.mode,
        start: options.start.then(|| options.port.map_or_else(free_port, Ok)).transpose()?,
        going_on: options.going_on,
        over: over(catalogue, options)?,
        tables: options.tables.as_ref().map(|tables| &tables.0),
        replica: replica.as_ref(),
        config: config.as_ref(),
        queries: (!options.queries.all.is_empty()).then_some(&options.queries),
        watch: &Watch { watcher, transactions: tables::transactions(&plan) },
    };
    match holdfast_restore::run(&request) {
        Ok(mut restored) => {
            if let Err(error) = keep(catalogue, &base.record, &restored, options, kind) {
                // A drill is for its report; what was restored otherwise stays restored and proved.
                if kind != KIND {
                    return Err(error);
                }
                restored
                    .report
                    .remarks
                    .push(format!("This report could not be kept in the repository: {}", error.message));
            }
            Ok(view(&restored))
        }
        Err(holdfast_restore::Error::NotProved { failures, report }) => {
            // That the data is not proved matters more than that this can't be written down.
            let kept = reports::keep(catalogue, base.record.id, &*report, kind, options.job.as_deref());
            let error = restore_error(catalogue, holdfast_restore::Error::NotProved { failures, report });
            Err(match kept {
                Ok(()) => error,
                Err(why) => Error {
                    message: format!("{} The report is NOT kept: {}", error.message, why.message),
                    ..error
                }
                .with_next(
                    "see why the repository takes no report, and do it again; don't use the restored server",
                ),
            })
        }
        Err(error) => Err(restore_error(catalogue, error)),
    }
}

/// For `latest`, fetches what the source has logged since; says so when it can't.
pub(crate) fn bring_up_to_date(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
    watcher: &dyn Watcher,
) {
    if options.target != Target(holdfast_restore::Target::Latest)
        || matches!(server.kind, ServerKind::Folder { .. })
    {
        return;
    }
    let drained = match drain(catalogue, server, watcher) {
        Err(error) if error.code == Code::Locked => wait_for_archive(catalogue, server),
        other => other.map(|_| ()),
    };
    if let Err(error) = drained {
        watcher.note(&format!(
            "The archive could not be brought up to date, so `latest` is its end: {}",
            error.message
        ));
    }
}

fn open_log<'c>(catalogue: &'c Catalogue, server: &ServerRecord) -> Result<ArchivedLog<'c>> {
    let log = ServerLog::open(&catalogue.repository, server.id);
    log.map(ArchivedLog).map_err(|e| archive_error(catalogue, server, e))
}

fn bases(catalogue: &Catalogue, server: &ServerRecord) -> Vec<StoredBase> {
    let backups = catalogue.backups_of(server);
    backups.into_iter().map(|record| base(catalogue, record)).collect()
}

/// One backup as a base.
fn base(catalogue: &Catalogue, record: BackupRecord) -> StoredBase {
    StoredBase {
        repository: catalogue.repository.clone(),
        coordinates: learned(catalogue, &record),
        record,
        kept: Vec::new(),
    }
}

/// The same, to be laid out over what `options` say.
fn bases_into(catalogue: &Catalogue, server: &ServerRecord, options: &Options) -> Vec<StoredBase> {
    let mut bases = bases(catalogue, server);
    if let Some(delta) = &options.delta {
        bases.iter_mut().for_each(|base| base.kept.clone_from(&delta.keep));
    }
    bases
}

/// Lays a backup of a folder back over it; `kept` stays beside it.
///
/// # Errors
/// As [`restore`].
pub(crate) fn lay_back(
    catalogue: &Catalogue,
    record: BackupRecord,
    (folder, server): (&Path, &str),
    kept: Vec<std::ffi::OsString>,
    watcher: &dyn Watcher,
) -> Result<holdfast_restore::LaidOut> {
    let base = StoredBase { kept, ..base(catalogue, record) };
    let watch = Watch { watcher, transactions: None };
    let progress = |at| {
        holdfast_restore::Watch::step(&watch, Step::LayOut(at));
        if watcher.cancelled() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let done = holdfast_restore::in_place::lay_back(&base, folder, server, &progress);
    done.map_err(|error| match watcher.cancelled() {
        true => Error::new(Code::Interrupted, format!("Laying back {} was called off.", folder.display()))
            .with_next("the same command goes on"),
        false => restore_error(catalogue, error),
    })
}

/// The bases that a plan may choose from: all of them, but for a folder whose restore goes on the one that it was
/// begun with.
fn bases_for(
    server: &ServerRecord,
    mut bases: Vec<StoredBase>,
    options: &Options,
) -> Result<Vec<StoredBase>> {
    let told = |error: holdfast_restore::Error| Error::usage(sentence(&error.to_string()));
    let folder = &options.into;
    let there = if folder.is_dir() { Marker::read(folder).map_err(told)? } else { None };
    let Some(there) = there else {
        if options.going_on {
            return Err(Error::usage(format!(
                "{} holds no restore that could go on (handed over already?).",
                folder.display()
            ))
            .with_next("leave --continue away to restore into an empty folder"));
        }
        return Ok(bases);
    };
    if options.going_on && there.server != server.name {
        return Err(Error::usage(format!(
            "{} holds a restore of '{}', not of '{}'.",
            folder.display(),
            there.server,
            server.name
        )));
    }
    let same = there.state == State::UnderWay
        && there.server == server.name
        && there.target == options.target.0.to_string();
    if options.going_on || same {
        let begun_with = bases.iter().any(|base| base.id() == there.base);
        if options.going_on && !begun_with {
            return Err(Error::usage(format!(
                "The backup {} that {} was restored from is gone.",
                there.base,
                folder.display()
            ))
            .with_next("restore into another folder, without --continue"));
        }
        if begun_with {
            bases.retain(|base| base.id() == there.base);
        }
    }
    if options.going_on && matches!(server.kind, ServerKind::Folder { .. }) && there.state == State::Fenced {
        return Err(Error::usage(format!(
            "'{}' is a folder: it has no log to roll forward with.",
            server.name
        )));
    }
    Ok(bases)
}

fn make_plan(
    server: &ServerRecord,
    bases: &[StoredBase],
    log: &ArchivedLog<'_>,
    options: &Options,
) -> Result<(usize, Plan)> {
    let target = target::of_backup(server, bases, &options.target)?;
    let bases: Vec<&dyn Base> = bases.iter().map(|base| base as &dyn Base).collect();
    let planned = if matches!(server.kind, ServerKind::Folder { .. }) {
        plan_of_folder(server, &bases, log, &target)?
    } else {
        holdfast_restore::plan(&bases, log, &target.0)
    };
    planned.map_err(|error| match error {
        holdfast_restore::Error::Unreachable { target, why, nearest } => {
            let error = Error::new(
                Code::TargetUnreachable,
                format!("{} can't be reached: {}", sentence(&target).trim_end_matches('.'), sentence(&why)),
            );
            if nearest.is_empty() {
                error.with_next("see `holdfast status` for what can be restored")
            } else {
                error.with_next(format!("the nearest points are {}", nearest.join(" and ")))
            }
        }
        other => Error::failed(sentence(&other.to_string())),
    })
}

/// A folder has no log: a time leads to the newest backup that was finished by then.
fn plan_of_folder(
    server: &ServerRecord,
    bases: &[&dyn Base],
    log: &ArchivedLog<'_>,
    target: &Target,
) -> Result<holdfast_restore::Result<(usize, Plan)>> {
    use holdfast_restore::Target as To;
    // Users copy times from `holdfast list`, which shows milliseconds.
    let millis = |micros: Micros| micros.div_euclid(1000);
    let in_time = match &target.0 {
        To::Latest | To::Fastest | To::Backup(_) => bases.len(),
        To::Time(at) => bases.iter().filter(|base| millis(base.finished_us()) <= millis(*at)).count(),
        To::Transaction { .. } | To::Position { .. } | To::GtidSet { .. } => {
            return Err(Error::usage(format!(
                "'{}' is a folder: it has backups, and no log that {} could be found in.",
                server.name, target.0
            ))
            .with_next(
                "use --to fastest for its newest backup, or --to TIME for the newest one before TIME",
            ));
        }
    };
    // Oldest first, so that those in time are the first ones and keep their index.
    let usable = bases.get(..in_time).unwrap_or_default();
    if let (Some(oldest), true) = (bases.first(), usable.is_empty()) {
        return Ok(Err(holdfast_restore::Error::Unreachable {
            target: target.0.to_string(),
            why: "it lies before the first backup".to_owned(),
            nearest: vec![show_time(oldest.finished_us())],
        }));
    }
    let wanted = if matches!(target.0, To::Backup(_)) { &target.0 } else { &To::Fastest };
    let planned = holdfast_restore::plan(usable, log, wanted);
    Ok(planned.map(|(index, plan)| {
        // No server will start in a folder that is none's, so nothing but the files needs space.
        let space_needed = if plan.version.is_some() { plan.space_needed } else { plan.bytes };
        (index, Plan { target: target.0.to_string(), space_needed, ..plan })
    }))
}

/// The server programs that fit the backup; none for a folder that is no server's.
fn programs(server: &ServerRecord, backup: &BackupRecord, options: &Options) -> Result<Option<Programs>> {
    let Some(version) = backup.fact("version") else {
        if matches!(server.kind, ServerKind::Folder { .. }) {
            return Ok(None);
        }
        return Err(Error::failed(format!("The backup {} does not say of which version it is.", backup.id)));
    };
    let version = ServerVersion::parse(version);
    let flavor = if version.is_mariadb() { Flavor::MariaDb } else { Flavor::MySql };
    Programs::find(options.engine_dir.as_deref(), flavor, Some(&version))
        .map(Some)
        .map_err(|error| no_programs(&error.to_string()))
}

fn no_programs(why: &str) -> Error {
    Error::usage(sentence(why)).with_next(
        "name the folder of a server of that version with --engine-dir; tools/get-server unpacks one",
    )
}

fn free_port() -> Result<u16> {
    let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|listener| listener.local_addr());
    port.map(|address| address.port())
        .map_err(|error| Error::failed(format!("There is no free port on 127.0.0.1: {error}.")))
}

/// Keeps the report, and where the backup stands exactly if that was learned by recovering all of it.
fn keep(
    catalogue: &Catalogue,
    backup: &BackupRecord,
    restored: &Restored,
    options: &Options,
    kind: &str,
) -> Result<()> {
    reports::keep(catalogue, backup.id, &restored.report, kind, options.job.as_deref())?;
    if let (Some(position), None) = (&restored.exact, &restored.report.plan.part) {
        let learned = Record::CoordinatesLearned { backup: backup.id, position: position.clone() };
        catalogue.repository.append(learned).map_err(|e| catalogue.store_error(e))?;
    }
    Ok(())
}

fn view(restored: &Restored) -> RestoredView {
    let report = &restored.report;
    let mut evidence = Vec::new();
    let mut not_checked = Vec::new();
    for check in &report.checks {
        match check.verdict {
            Verdict::Ok | Verdict::Partly => evidence.push(format!("{}: {}", check.name, check.detail)),
            Verdict::Failed => {}
            Verdict::NotChecked => not_checked.push(format!("{}: {}", check.name, check.detail)),
        }
        not_checked.extend(check.not_checked.iter().map(|what| format!("{}: {what}", check.name)));
    }
    // A proof is about what is there: what a restored server lacks stands beside it.
    let missing = report.plan.not_restored.clone();
    let seconds = report.seconds;
    let phases = [
        ("lay out", seconds.lay_out),
        ("recover", seconds.recover),
        ("replay", seconds.replay),
        ("restart", seconds.restart),
        ("prove", seconds.prove),
        ("total", seconds.total),
    ];
    RestoredView {
        server: report.server.clone(),
        reached: match &report.plan.last_kept {
            Some(kept) => format!("{} (last transaction: {kept})", report.plan.target),
            None if report.recovered_at.is_empty() => report.plan.target.clone(),
            None => format!("{} ({})", report.plan.target, report.recovered_at),
        },
        into: report.folder.clone(),
        proved: report.proved,
        evidence,
        not_checked,
        missing,
        phases: phases.map(|(name, s)| PhaseView { name, micros: (s * 1e6) as Micros }).to_vec(),
        socket: restored.running.as_ref().map(|r| r.socket.display().to_string()),
        port: restored.running.as_ref().and_then(|r| r.port),
        pid: restored.running.as_ref().map(|r| r.pid),
        start_with: restored.start_line.clone(),
        report: report.clone(),
    }
}

/// The next step after a restore that was not proved, and whose report is kept.
pub(crate) const KEPT: &str = "the report is kept with the backup; don't use the restored server";

pub(crate) fn restore_error(catalogue: &Catalogue, error: holdfast_restore::Error) -> Error {
    use holdfast_restore::Error as Restore;
    let text = sentence(&error.to_string());
    let code = match error.exit_code() {
        Some(20) => Code::TargetUnreachable,
        Some(22) => Code::ProofFailed,
        _ => Code::Failed,
    };
    match error {
        Restore::TargetFull { .. } => Error::failed(text),
        Restore::Backwards { .. } => Error::new(code, text),
        Restore::Base(inner) => match inner.downcast::<holdfast_store::Error>() {
            Ok(store) => catalogue.store_error(*store),
            Err(other) => Error::failed(sentence(&other.to_string())),
        },
        Restore::Cancelled { .. } => Error::new(Code::Interrupted, text),
        Restore::NotEmpty { .. }
        | Restore::Tables(_)
        | Restore::NotOurs { .. }
        | Restore::OtherRestore { .. }
        | Restore::Mounted { .. }
        | Restore::Touched { .. } => Error::usage(text),
        Restore::Busy { .. } | Restore::InUse { .. } => Error::new(Code::Locked, text),
        Restore::NotProved { .. } => Error::new(code, text).with_next(KEPT),
        _ => Error::new(code, text),
    }
}

/// The restore's watcher, told in the job's words.
struct Watch<'a> {
    watcher: &'a dyn Watcher,
    /// Of the range that is replayed.
    transactions: Option<u64>,
}

impl holdfast_restore::Watch for Watch<'_> {
    fn step(&self, step: Step) {
        let reading = |phase, done, total, bytes| Reading { phase, done, total, bytes, limit: None };
        self.watcher.reading(match step {
            Step::LayOut(at) => reading("lay out", at.bytes, Some(at.bytes_total), true),
            Step::Recover => reading("recover", 0, None, false),
            Step::Inspect => reading("inspect", 0, None, false),
            Step::Replay { transactions, limit, .. } => Reading {
                limit: Some(limit.words()),
                ..reading("replay", transactions, self.transactions, false)
            },
            Step::Restart => reading("restart", 0, None, false),
            Step::Prove => reading("prove", 0, None, false),
        });
    }

    fn note(&self, text: &str) {
        self.watcher.note(text);
    }

    fn cancelled(&self) -> bool {
        self.watcher.cancelled()
    }
}
