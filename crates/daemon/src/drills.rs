//! Drills: when the next one of a server is due, how it runs, and what the last one has shown.
//!
//! The moment is chosen when the job is accepted and kept with it, so that a drill that a crash cut short goes on in its
//! folder with the same moment.

use crate::daemon::Daemon;
use crate::jobs::{Job, Live, Moment, Standing, Work};
use crate::runner::{answer, name_of, restore_options};
use holdfast_appliance::ServerRecord;
use holdfast_appliance::drill::{self, clear, drill};
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::measured::{Measured, measured};
use holdfast_appliance::policy::{DAY, Policy, Span};
use holdfast_appliance::reports;
use holdfast_appliance::restore::Options;
use holdfast_appliance::time::{Micros, now};
use serde::Serialize;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// How long after the first base the first drill begins, at most.
const FIRST: Span = Span::hours(1);

/// How the drills of a server stand.
#[derive(Clone, Debug, Default, Serialize)]
pub struct DrillBoard {
    /// The last one that came to a verdict.
    pub last: Option<Measured>,
    /// When the next one is due; never: `null`.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub due: Option<Micros>,
    /// Why the last try came to no verdict, or to a bad one.
    pub trouble: Option<String>,
}

/// How the drills of a server stand, by its reports (newest first) and the jobs.
pub(crate) fn board(daemon: &Daemon, name: &str, policy: &Policy, reports: &[Measured]) -> DrillBoard {
    let last = reports.iter().find(|m| m.drill).cloned();
    let ended = last_job(daemon, name);
    let failed = ended.as_ref().filter(|job| job.standing == Standing::Failed);
    let trouble = failed.and_then(|job| job.failure.as_ref()).map(|failure| failure.message.clone());
    let due = due(daemon, name, policy, last.as_ref().map(|m| m.at), ended.and_then(|job| job.ended));
    DrillBoard { last, due, trouble }
}

/// The last drill of a server that ended.
fn last_job(daemon: &Daemon, name: &str) -> Option<Job> {
    daemon.state.read(|content| {
        let ended = content.jobs.iter().filter(|job| {
            job.standing.ended() && matches!(&job.work, Work::Drill { server, .. } if server == name)
        });
        ended.max_by_key(|job| job.ended).cloned()
    })
}

/// When drills of a server broke off, without a report.
pub(crate) fn broken_off(daemon: &Daemon, server: &ServerRecord, reports: &[Measured]) -> Vec<Micros> {
    daemon.state.read(|content| {
        let failed = content.jobs.iter().filter(|job| {
            job.standing == Standing::Failed
                // A server of the same name that was there before is another one.
                && job.created >= server.added_us
                && matches!(&job.work, Work::Drill { server: of, .. } if *of == server.name)
        });
        let spans = failed.filter_map(|job| Some((job.started?, job.ended?)));
        spans.filter(|span| !has_report(reports, *span)).map(|(_, ended)| ended).collect()
    })
}

/// Whether a drill was reported between these moments.
fn has_report(reports: &[Measured], (started, ended): (Micros, Micros)) -> bool {
    reports.iter().any(|report| report.drill && (started..=ended).contains(&report.at))
}

fn due(
    daemon: &Daemon,
    name: &str,
    policy: &Policy,
    verdict: Option<Micros>,
    ended: Option<Micros>,
) -> Option<Micros> {
    daemon.config().drills.into.as_ref()?;
    let server = daemon.catalogue.server(name).ok()?;
    let known = |id| daemon.catalogue.known(|known| known.of(id)?.bases.first().map(|base| base.finished));
    let first = known(server.id)?;
    let paused = daemon.state.read(|content| content.servers.get(name).is_some_and(|s| s.paused));
    next(policy.drill, first, verdict, ended).filter(|_| !paused)
}

/// When the next one is due: so long after the last verdict; one that came to none is tried again the next day.
fn next(every: Span, first: Micros, verdict: Option<Micros>, ended: Option<Micros>) -> Option<Micros> {
    let every = every.0;
    if every == 0 {
        return None;
    }
    let at = verdict.map_or(first.saturating_add(every.min(FIRST.0)), |at| at.saturating_add(every));
    Some(ended.map_or(at, |ended| at.max(ended.saturating_add(every.min(DAY.0)))))
}

/// Whether a drill of this server is to begin now, and of which moment.
///
/// # Errors
/// When the log can't be read.
pub(crate) fn wanted(daemon: &Daemon, name: &str) -> Result<Option<Work>> {
    let config = daemon.config();
    let (_, policy) = config.policy_of(name);
    if policy.drill.0 == 0
        || config.drills.into.is_none()
        || daemon.queue.is_open(|work| matches!(work, Work::Drill { .. }))
    {
        return Ok(None);
    }
    let server = daemon.catalogue.server(name)?;
    let reports = measured(&daemon.catalogue, &server);
    match board(daemon, name, &policy, &reports).due {
        Some(at) if at <= now() => Ok(Some(work(daemon, name)?)),
        _ => Ok(None),
    }
}

/// A drill of a random moment of the window.
///
/// # Errors
/// `Usage` when no folder for drills is named, or nothing can be restored.
pub(crate) fn work(daemon: &Daemon, name: &str) -> Result<Work> {
    let config = daemon.config();
    if config.drills.into.is_none() {
        return Err(Error::usage("There is no folder for drills.")
            .with_next("name one in the configuration: [drills] into = \"/srv/drills\""));
    }
    let window = config.policy_of(name).1.window.0;
    let from = if window == 0 { i64::MIN } else { now().saturating_sub(window) };
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::failed(format!("The system gave no random bytes: {error}.")))?;
    match drill::pick(&daemon.catalogue, name, from, u64::from_le_bytes(bytes))? {
        Some(at) => Ok(Work::Drill { server: name.to_owned(), at }),
        None => Err(Error::usage(format!("Nothing of '{name}' can be restored yet."))
            .with_next(format!("wait for its first backup: holdfast jobs, or holdfast backup {name}"))),
    }
}

/// The folder of a job's drill.
fn folder(daemon: &Daemon, into: &Path, job: u64) -> PathBuf {
    into.join(format!("{}{job}", prefix(daemon)))
}

/// What the folders of this daemon's drills begin with; another daemon may have the same place.
fn prefix(daemon: &Daemon) -> String {
    format!("drill-{}-", daemon.state.read(|content| content.id.clone()))
}

/// Runs one.
pub(crate) fn run(daemon: &Daemon, job: &Job, live: &Live, server: &str, at: &str) -> Result<Value> {
    let config = daemon.config();
    let Some(place) = &config.drills.into else {
        return Err(Error::usage("There is no folder for drills any more."));
    };
    std::fs::create_dir_all(place).map_err(|error| {
        Error::usage(format!("The folder for drills, {}, can't be made: {error}.", place.display()))
            .with_next("make it, and let the daemon's user write to it")
    })?;
    sweep(daemon, place);
    let into = folder(daemon, place, job.id);
    let name = name_of(daemon, job);
    if job.tries > 1 {
        // The daemon may have died between the report and this state.
        let told = reports::of_job(&daemon.catalogue, drill::KIND, &name);
        if !matches!(told, Ok(None)) {
            clear(&into)?;
        }
        if let Some(report) = told? {
            return Ok(report);
        }
    }
    let moment = Moment { to: Some(at.to_owned()), ..Moment::default() };
    let options = restore_options(daemon, server, &moment, &into, false, &config.drills.prove)?;
    let options = Options { queries: config.queries_of(server)?, job: Some(name), ..options };
    let done = drill(&daemon.catalogue, server, &options, config.drills.space.0, live);
    // One that the daemon's end cut short goes on in its folder.
    if done.is_err() && !daemon.is_stopping() {
        clear(&into)?;
    }
    answer(&done?)
}

/// Removes what drills left that nobody goes on with.
pub(crate) fn sweep(daemon: &Daemon, place: &Path) {
    let open: Vec<u64> = daemon.state.read(|content| {
        let open = content.jobs.iter().filter(|j| !j.standing.ended());
        open.filter(|j| matches!(j.work, Work::Drill { .. })).map(|j| j.id).collect()
    });
    let prefix = prefix(daemon);
    for entry in std::fs::read_dir(place).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let job = name.to_str().and_then(|n| n.strip_prefix(&prefix)).and_then(|id| id.parse::<u64>().ok());
        let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if job.is_some_and(|id| !open.contains(&id))
            && is_folder
            && let Err(error) = clear(&entry.path())
        {
            tracing::warn!("{}", error.message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drill_without_a_report_in_its_time_is_one_that_broke_off() {
        let report = |at, drill| Measured {
            at,
            drill,
            target: String::new(),
            base: String::new(),
            proved: false,
            failed_queries: Vec::new(),
            bytes: 0,
            log_bytes: 0,
            transactions: 0,
            lay_out_seconds: 0.0,
            replay_seconds: 0.0,
            look_seconds: 0.0,
            other_seconds: 0.0,
            total_seconds: 0.0,
            whole: true,
        };
        assert!(has_report(&[report(30, true), report(15, true)], (10, 20)));
        assert!(!has_report(&[report(30, true), report(15, false), report(9, true)], (10, 20)));
    }

    #[test]
    fn a_drill_is_due_after_its_span_and_one_without_a_verdict_is_tried_the_next_day() {
        const HOUR: Micros = 3_600_000_000;
        let week = Span::hours(7 * 24);
        assert_eq!(next(Span(0), 0, None, None), None);
        assert_eq!(next(week, 5, None, None), Some(HOUR + 5));
        assert_eq!(next(week, 5, Some(10), None), Some(week.0 + 10));
        // Failed without a verdict: not before the next day, and not a week later.
        assert_eq!(next(week, 5, None, Some(2 * HOUR)), Some(26 * HOUR));
        assert_eq!(next(week, 5, Some(10), Some(week.0 + 20)), Some(week.0 + 20 + DAY.0));
        assert_eq!(next(Span::seconds(1), 5, None, None), Some(1_000_005));
    }
}
