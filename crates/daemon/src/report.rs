//! The report for auditors: what was promised, what could be restored on each day, what was proved, and who asked for what,
//! in one document.
//!
//! Two things are told of each day, and they differ: what of it can be restored *now* (expiry has taken older days away,
//! as the policy says), and what the board said *then*, of which 30 days are kept.

use crate::audit::AuditView;
use crate::board::Level;
use crate::daemon::Daemon;
use crate::history::{self, Of};
use crate::jobs::{Standing, time};
use crate::queue::JobView;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::measured::{Measured, measured};
use holdfast_appliance::policy::{DAY, Policy};
use holdfast_appliance::time::{Micros, now, show_time};
use holdfast_appliance::views::{BackupView, GapView, SpanView};
use serde::Serialize;
use std::collections::BTreeMap;

/// Longest stretch that one report is about.
pub const STRETCH_MAX: Micros = 400 * DAY.0;
/// Version of the document.
const SCHEMA: u32 = 1;

/// The report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Version of this document.
    pub schema: u32,
    /// When it was made.
    #[serde(serialize_with = "time")]
    pub made: Micros,
    /// For whom.
    pub by: String,
    /// The program.
    pub version: &'static str,
    /// The first moment that it is about.
    #[serde(serialize_with = "time")]
    pub from: Micros,
    /// The last one.
    #[serde(serialize_with = "time")]
    pub to: Micros,
    /// The repository as it is now.
    pub repository: crate::board::RepositoryBoard,
    /// Each server.
    pub servers: Vec<ServerReport>,
    /// Jobs that ended in this time, by kind and outcome; the last 1000 jobs are remembered.
    pub jobs: BTreeMap<&'static str, BTreeMap<String, u64>>,
    /// The audit log: whether it is whole, the hash that it ends with, and its entries of this time.
    pub audit: AuditView,
}

/// A server's part.
#[derive(Debug, Serialize)]
pub struct ServerReport {
    /// Its name.
    pub server: String,
    /// Family and version.
    pub engine: String,
    /// How it stands now.
    pub level: Level,
    /// The same in a sentence.
    pub headline: String,
    /// The name of its policy.
    pub policy: String,
    /// What that promises.
    pub terms: Policy,
    /// Stretches that can be restored now.
    pub spans: Vec<SpanView>,
    /// Holes that are known now.
    pub holes: Vec<GapView>,
    /// Days (UTC) of the report's time.
    pub days: Vec<DayReport>,
    /// Backups that were acknowledged in this time and are there still.
    pub backups: Vec<BackupView>,
    /// Restores and drills that came to a verdict in this time.
    pub proofs: Vec<Measured>,
    /// Jobs of it that failed in this time.
    pub failed: Vec<JobView>,
}

/// One day of one server.
#[derive(Debug, PartialEq, Serialize)]
pub struct DayReport {
    /// `2026-11-22`, UTC.
    pub day: String,
    /// How much of it can be restored now, percent.
    pub restorable_percent: f64,
    /// Minutes of it that the daemon watched; `null`: longer ago than is kept.
    pub watched_minutes: Option<u32>,
    /// Minutes of them in which it was red.
    pub red_minutes: Option<u32>,
    /// The most that would have been missing if it had died, seconds.
    pub rpo_seconds_max: Option<f32>,
}

/// Makes the report for `by`.
///
/// # Errors
/// `Usage` for a stretch that ends before it begins or is too long; what the repository and the files say.
pub fn report(daemon: &Daemon, by: &str, from: Micros, to: Micros) -> Result<Report> {
    if to < from || to.saturating_sub(from) > STRETCH_MAX {
        return Err(Error::usage("A report is about 400 days at most, and ends after it begins.")
            .with_next("give from and to, for example from=-92d"));
    }
    let board = daemon.look();
    let config = daemon.config();
    let within = |at: Micros| (from..=to).contains(&at);
    let jobs = daemon.queue.list(usize::MAX);
    let ended = || jobs.iter().filter(|job| job.ended.is_some_and(within));
    let mut counts: BTreeMap<&'static str, BTreeMap<String, u64>> = BTreeMap::new();
    for job in ended() {
        let outcome = match job.standing {
            Standing::Done => "done",
            Standing::Failed => "failed",
            _ => "cancelled",
        };
        *counts.entry(job.kind).or_default().entry(outcome.to_owned()).or_default() += 1;
    }
    let mut servers = Vec::new();
    for server in &board.servers {
        let name = server.status.server.as_str();
        let (policy, terms) = config.policy_of(name);
        let mut proofs = measured(&daemon.catalogue, &daemon.catalogue.server(name)?);
        proofs.retain(|proof| within(proof.at));
        let backups = server.timeline.backups.iter().filter(|b| within(b.completed)).cloned();
        let failed = ended().filter(|j| j.standing == Standing::Failed && j.server.as_deref() == Some(name));
        servers.push(ServerReport {
            server: name.to_owned(),
            engine: server.status.engine.clone(),
            level: server.level,
            headline: server.headline.clone(),
            policy: policy.to_owned(),
            terms,
            spans: server.status.spans.clone(),
            holes: server.status.gaps.clone(),
            days: days(&config.state, name, &server.status.spans, from, to)?,
            backups: backups.collect(),
            proofs,
            failed: failed.cloned().collect(),
        });
    }
    Ok(Report {
        schema: SCHEMA,
        made: now(),
        by: by.to_owned(),
        version: env!("CARGO_PKG_VERSION"),
        from,
        to,
        repository: board.repository.clone(),
        servers,
        jobs: counts,
        audit: daemon.audit.between(&show_time(from), &show_time(to))?,
    })
}

/// Each day that the stretch touches.
fn days(
    state: &std::path::Path,
    server: &str,
    spans: &[SpanView],
    from: Micros,
    to: Micros,
) -> Result<Vec<DayReport>> {
    let watched = history::daily(state, Of::Server(server), from, to)?;
    let mut days = Vec::new();
    let mut day = from.div_euclid(DAY.0) * DAY.0;
    while day < to || days.is_empty() {
        let (begin, end) = (day.max(from), (day + DAY.0).min(to));
        let seen = watched.get(&day);
        days.push(DayReport {
            day: show_time(day).chars().take(10).collect(),
            restorable_percent: restorable(spans, begin, end),
            watched_minutes: seen.map(|d| d.minutes),
            red_minutes: seen.map(|d| d.red),
            rpo_seconds_max: seen.and_then(|d| d.rpo_max),
        });
        day += DAY.0;
    }
    Ok(days)
}

/// How much of a stretch lies in the spans, percent.
fn restorable(spans: &[SpanView], begin: Micros, end: Micros) -> f64 {
    let covered: Micros = spans.iter().map(|span| (span.until.min(end) - span.from.max(begin)).max(0)).sum();
    let whole = end.saturating_sub(begin).max(1);
    (covered as f64 * 10_000.0 / whole as f64).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_restorable_as_far_as_the_spans_reach_into_it() {
        let span = |from: Micros, until: Micros| SpanView {
            from,
            until,
            from_position: String::new(),
            until_position: String::new(),
            transactions: 0,
        };
        let spans = [span(-50, 25), span(50, 60)];
        assert!((restorable(&spans, 0, 100) - 35.0).abs() < 1e-9);
        assert!((restorable(&spans, 100, 200)).abs() < 1e-9);
        assert!((restorable(&[span(0, 3)], 0, 3) - 100.0).abs() < 1e-9);
        let dir = tempfile::tempdir().unwrap();
        let days = days(dir.path(), "x", &[span(DAY.0 / 2, 2 * DAY.0)], DAY.0 / 4, DAY.0 + 1).unwrap();
        assert_eq!(days.len(), 2);
        assert_eq!((days[0].day.as_str(), days[1].day.as_str()), ("1970-01-01", "1970-01-02"));
        assert!((days[0].restorable_percent - 66.67).abs() < 1e-9, "{days:?}");
        assert_eq!(days[0].watched_minutes, None);
    }
}
