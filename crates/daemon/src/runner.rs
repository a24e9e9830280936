//! Does jobs: one thread a slot. Each job is one call into the appliance, the same that the command line makes.

use crate::daemon::Daemon;
use crate::jobs::{Job, Live, Moment, Standing, Work};
use crate::state::Checked;
use crate::{drills, expiry, http, prune};
use holdfast_appliance::backup;
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::own::Own;
use holdfast_appliance::progress::Watcher;
use holdfast_appliance::reports;
use holdfast_appliance::restore::{self, Delta, Options, ProveLevel, ReplicaOf, Settings, Tables, Target};
use holdfast_appliance::time::now;
use serde_json::Value;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

/// Takes jobs until the daemon ends.
pub(crate) fn run(daemon: &Arc<Daemon>) {
    loop {
        match daemon.queue.take() {
            Ok(Some((job, live))) => one(daemon, &job, &live),
            Ok(None) => return,
            Err(error) => {
                tracing::error!(code = %crate::jobs::code_word(error.code), "{}", error.message);
                if !daemon.sleep(Duration::from_secs(5)) {
                    return;
                }
            }
        }
    }
}

fn one(daemon: &Daemon, job: &Job, live: &Live) {
    let server = job.work.server().unwrap_or("-");
    tracing::info!(job = job.id, kind = job.work.kind(), server, by = %job.by, tries = job.tries, "begun");
    let outcome = done(daemon, job, live);
    let failure = outcome.as_ref().err().map(|e| (crate::jobs::code_word(e.code), e.message.clone()));
    let standing = match daemon.queue.end(job.id, outcome) {
        Ok(standing) => standing,
        Err(error) => {
            tracing::error!(job = job.id, "{}", error.message);
            return;
        }
    };
    daemon.look_soon();
    match (&failure, standing) {
        (Some((code, message)), Standing::Failed) => {
            daemon.counters.job_failed(code);
            tracing::error!(job = job.id, kind = job.work.kind(), server, code = %code, "failed: {message}");
        }
        _ => tracing::info!(job = job.id, kind = job.work.kind(), server, standing = ?standing, "ended"),
    }
    if let Work::Backup { server, .. } = &job.work
        && let Err(error) = after_backup(daemon, server, standing)
    {
        tracing::error!(job = job.id, server = %server, "{}", error.message);
    }
}

/// Notes a failed base for the schedule; after a good one, forgets what no promise needs any more.
fn after_backup(daemon: &Daemon, server: &str, standing: Standing) -> Result<()> {
    match standing {
        Standing::Failed => daemon.state.change(|content| {
            content.servers.entry(server.to_owned()).or_default().failed.push(now());
        }),
        Standing::Done => {
            daemon.streams.poke();
            daemon.wake();
            daemon.state.change(|content| {
                content.servers.entry(server.to_owned()).or_default().failed.clear();
            })?;
            let expired = expiry::carried_out(daemon, server, now())?;
            if !expired.forget.is_empty() {
                tracing::info!(server = %server, forgotten = expired.forget.len(), "no promise needs them");
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn done(daemon: &Daemon, job: &Job, live: &Live) -> Result<Value> {
    match &job.work {
        Work::Backup { server, note, own, .. } => take_backup(daemon, job, live, server, note, own),
        Work::Restore { server, .. } => {
            let options = asked_options(daemon, &job.work)?;
            restore_it(daemon, job, live, server, &options)
        }
        Work::Fsck {} => check(daemon, live, Reach::Whole),
        Work::Canary {} => check(daemon, live, Reach::OfTheDay),
        Work::Scrub {} => scrub(daemon, live),
        Work::Prune { now } => prune::run(daemon, live, *now),
        Work::Drill { server, at } => drills::run(daemon, job, live, server, at),
    }
}

pub(crate) fn answer<T: serde::Serialize>(view: &T) -> Result<Value> {
    serde_json::to_value(view).map_err(|error| Error::failed(format!("The answer can't be kept: {error}.")))
}

/// What a job is called in the repository: no other daemon has this name for one of its own.
pub(crate) fn name_of(daemon: &Daemon, job: &Job) -> String {
    format!("{}/{}", daemon.state.read(|content| content.id.clone()), job.id)
}

fn take_backup(
    daemon: &Daemon,
    job: &Job,
    live: &Live,
    server: &str,
    note: &str,
    own: &Own,
) -> Result<Value> {
    let name = name_of(daemon, job);
    if job.tries > 1
        && let Some(view) = backup::taken_by(&daemon.catalogue, &name)?
    {
        // The daemon died between the commit and this state: the backup is there, and not a second one.
        return answer(&view);
    }
    let options = backup::Options {
        note: note.to_owned(),
        jobs: daemon.config().connections,
        job: Some(name),
        rate: Some(Arc::clone(&daemon.rate)),
        own: own.clone(),
        copy_from: daemon.config().copy_from(server)?,
        ..backup::Options::default()
    };
    let view = backup::backup(&daemon.catalogue, server, &options, live)?;
    daemon.counters.backup_took(view.completed.saturating_sub(view.started));
    answer(&view)
}

/// A restore as the appliance takes it.
pub(crate) fn restore_options(
    daemon: &Daemon,
    server: &str,
    target: &Moment,
    into: &std::path::Path,
    start: bool,
    prove: &str,
) -> Result<Options> {
    let target = match (&target.to, &target.before, &target.after) {
        (Some(to), None, None) => Target::parse(to)?,
        (None, Some(id), None) => Target::before(id),
        (None, None, Some(id)) => Target::after(id),
        _ => {
            return Err(Error::usage("A restore needs one moment.")
                .with_next("give exactly one of 'to', 'before' and 'after'"));
        }
    };
    let prove = match prove {
        "quick" => ProveLevel::Quick,
        "standard" => ProveLevel::Standard,
        "full" => ProveLevel::Full,
        other => {
            return Err(Error::usage(format!("'{other}' is no level of proof."))
                .with_next("use quick, standard or full"));
        }
    };
    let engine = daemon.catalogue.server(server).map(|s| holdfast_appliance::server::is_mariadb(&s))?;
    let config = daemon.config();
    let engines = &config.engines;
    let engine_dir = if engine { engines.mariadb.clone() } else { engines.mysql.clone() };
    Ok(Options { engine_dir, start, prove, ..Options::new(target, into.to_path_buf()) })
}

/// The restore that a job is, as the appliance takes it.
pub(crate) fn asked_options(daemon: &Daemon, work: &Work) -> Result<Options> {
    let Work::Restore {
        server,
        target,
        into,
        start,
        prove,
        delta,
        confirm,
        tables,
        databases,
        as_replica_of,
        with_config,
    } = work
    else {
        return Err(Error::failed(format!("A job of the kind {} is no restore.", work.kind())));
    };
    let options = restore_options(daemon, server, target, into, *start, prove)?;
    let tables = Tables::parse(tables, databases)?;
    if let (Some(_), Some(host)) = (&tables, as_replica_of) {
        return Err(Error::usage(format!("Some tables alone can't replicate from {host}."))
            .with_next("leave 'as_replica_of' away, or restore the whole server"));
    }
    let replica = as_replica_of
        .as_ref()
        .map(|host| ReplicaOf::own_host(&daemon.catalogue, server, host))
        .transpose()?;
    Ok(Options {
        delta: over(*delta, confirm.as_deref())?,
        tables,
        replica,
        config: Settings::parse(*with_config, &[])?,
        ..options
    })
}

/// How a folder that holds something is restored over, if it is.
fn over(delta: bool, confirm: Option<&str>) -> Result<Option<Delta>> {
    if confirm.is_some() && !delta {
        return Err(Error::usage("'confirm' goes with 'delta' only.")
            .with_next("leave it out, or ask for a restore over what the folder holds: \"delta\": true"));
    }
    Ok(delta.then(|| Delta { confirm: confirm.map(str::to_owned), keep: Vec::new() }))
}

fn restore_it(daemon: &Daemon, job: &Job, live: &Live, server: &str, options: &Options) -> Result<Value> {
    // What was allowed when the job was accepted must be so still: a link may have come between.
    http::restore_place(&daemon.config(), &options.into)?;
    let name = name_of(daemon, job);
    if job.tries > 1
        && let Some(report) = reports::of_job(&daemon.catalogue, restore::KIND, &name)?
    {
        // The daemon died between the report and this state.
        return Ok(report);
    }
    let options = Options { job: Some(name), ..options.clone() };
    answer(&restore::restore(&daemon.catalogue, server, &options, live)?)
}

/// Reads on where the last scrub stopped, for as long as the configuration says.
fn scrub(daemon: &Daemon, live: &Live) -> Result<Value> {
    let config = daemon.config();
    let checks = &config.checks;
    let rate = (checks.scrub_rate.0 > 0).then_some(checks.scrub_rate.0);
    let time = Duration::from_micros(checks.scrub_time.0.max(0) as u64);
    let view = holdfast_appliance::scrub::scrub(&daemon.catalogue, rate, Some(time), live)?;
    if live.is_cancelled() {
        return Err(Error::new(Code::Interrupted, "The scrub was stopped; the next one goes on there."));
    }
    let mut wrong = Vec::new();
    if !view.lost.is_empty() {
        wrong.push(format!("{} segment(s) have more damage than their parity can heal", view.lost.len()));
    }
    wrong.extend(view.left.iter().cloned());
    if wrong.is_empty() {
        return answer(&view);
    }
    Err(Error::new(Code::Corruption, format!("{}.", wrong.join("; ")))
        .with_next(format!("run `holdfast-fsck --full {}`", daemon.config().repository.display())))
}

/// How much a check reads.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// Every byte.
    Whole,
    /// The structure, and the blocks whose turn it is: in 32 checks that come to a verdict every one.
    OfTheDay,
}

/// The second reader in a process of its own: it can be stopped at any moment, and its memory goes with it.
fn check(daemon: &Daemon, live: &Live, reach: Reach) -> Result<Value> {
    let failed = |error: std::io::Error| Error::failed(format!("The check can't be run: {error}."));
    let program = std::env::current_exe().map_err(failed)?;
    let (name, how) = match reach {
        Reach::Whole => ("fsck.json", vec!["--full".to_owned()]),
        Reach::OfTheDay => {
            let turn = daemon.state.read(|content| content.canaries);
            ("canary.json", vec!["--seed".to_owned(), turn.to_string()])
        }
    };
    let report = daemon.config().state.join(name);
    let out = std::fs::File::create(&report).map_err(failed)?;
    let mut child = Command::new(program)
        .arg("fsck")
        .arg(&daemon.config().repository)
        .arg("--passphrase-file")
        .arg(&daemon.config().passphrase_file)
        .args(how)
        .args(["--json", "--quiet"])
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(Stdio::null())
        .spawn()
        .map_err(failed)?;
    live.note(match reach {
        Reach::Whole => "reading the whole repository",
        Reach::OfTheDay => "reading the structure, and one block of 32",
    });
    let status = loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            break status;
        }
        if live.cancelled() {
            // It only reads.
            child.kill().and_then(|()| child.wait()).map_err(failed)?;
            return Err(Error::new(Code::Interrupted, "The check was stopped."));
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    let text = std::fs::read(&report).map_err(failed)?;
    let document: Value = serde_json::from_slice(&text).unwrap_or(Value::Null);
    let clean = status.code() == Some(0);
    let flaws = document.get("flaws").and_then(Value::as_array).map_or(0, Vec::len);
    let summary = match status.code() {
        Some(0) => "clean".to_owned(),
        Some(21) => format!("{flaws} flaw(s)"),
        Some(11) => {
            return Err(Error::new(Code::Locked, "Garbage is being collected; the check waits.")
                .with_next("it is tried again the next day, or begin one when that has ended"));
        }
        _ => return Err(Error::failed("The check ended without a verdict.").with_next("run holdfast fsck")),
    };
    let checked = Checked { at: now(), clean, summary: summary.clone() };
    daemon.state.change(|content| match reach {
        Reach::Whole => content.fsck = Some(checked),
        Reach::OfTheDay => {
            content.canary = Some(checked);
            content.canaries += 1;
        }
    })?;
    if !clean {
        return Err(Error::new(Code::Corruption, format!("The check found {summary} in the repository."))
            .with_next(format!("run `holdfast-fsck {}`", daemon.config().repository.display())));
    }
    Ok(serde_json::json!({ "clean": true }))
}
