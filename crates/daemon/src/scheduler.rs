//! Begins what the policies ask for: bases, expiry, the check of the whole repository.
//!
//! Nothing is remembered here: at each tick the question is asked anew of the repository and the state, so that a
//! daemon that died goes on where it was.

use crate::daemon::Daemon;
use crate::jobs::{Work, code_word};
use crate::{approvals, drills, expiry, prune};
use holdfast_appliance::error::{Code, Result};
use holdfast_appliance::measured::EstimateView;
use holdfast_appliance::own::Own;
use holdfast_appliance::policy::{Next, RestoreTakes, ScheduleFacts, next_base, schedule_facts};
use holdfast_appliance::time::{Micros, now};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How often the question is asked.
const TICK: Duration = Duration::from_secs(1);
/// How often each server's backups are looked through for what no promise needs.
const EXPIRE_EVERY: Duration = Duration::from_secs(3600);
/// How often it is asked whether a drill of a server is due.
const DRILL_EVERY: Duration = Duration::from_secs(10);
/// Who begins what nobody asked for.
const BY: &str = "schedule";

/// When each server was last looked at for what is not asked at every tick.
#[derive(Default)]
struct Seen {
    expired: BTreeMap<String, Instant>,
    drilled: BTreeMap<String, Instant>,
}

/// Ticks until the daemon ends.
pub(crate) fn run(daemon: &Arc<Daemon>) {
    let mut seen = Seen::default();
    let mut said = String::new();
    while daemon.sleep(TICK) {
        daemon.scheduler_alive.store(now(), Ordering::Relaxed);
        daemon.queue.tell_progress();
        match tick(daemon, &mut seen) {
            Ok(()) => said.clear(),
            Err(error) if error.message != said => {
                tracing::error!(code = %code_word(error.code), "{}", error.message);
                said = error.message;
            }
            Err(_) => {}
        }
    }
}

fn tick(daemon: &Daemon, seen: &mut Seen) -> Result<()> {
    let catalogue = &daemon.catalogue;
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    // What can't be carried out holds up no backup, and one server's trouble is not another's.
    let mut trouble = approvals::carry_out_approved(daemon);
    for server in catalogue.servers() {
        let tended = tend(daemon, &server.name, seen);
        trouble = trouble.and(tended);
    }
    let canary = daemon.config().checks.canary;
    if canary.0 > 0 && last_ended(daemon, |w| *w == Work::Canary {}).saturating_add(canary.0) <= now() {
        submit(daemon, Work::Canary {})?;
    }
    let scrub = daemon.config().checks.scrub;
    if scrub.0 > 0 && last_ended(daemon, |w| *w == Work::Scrub {}).saturating_add(scrub.0) <= now() {
        submit(daemon, Work::Scrub {})?;
    }
    if fsck_due(daemon).is_some_and(|at| at <= now()) {
        submit(daemon, Work::Fsck {})?;
    }
    if prune::due(daemon, now()).is_some_and(|at| at <= now()) {
        submit(daemon, Work::Prune { now: false })?;
    }
    trouble
}

/// Begins what is due for one server.
fn tend(daemon: &Daemon, server: &str, seen: &mut Seen) -> Result<()> {
    let (_, next) = asked(daemon, server)?;
    if next.at.is_some_and(|at| at <= now()) {
        let word = serde_json::to_value(next.why).ok();
        let why = word.as_ref().and_then(|w| w.as_str()).unwrap_or("age").to_owned();
        let own = Own::default();
        submit(daemon, Work::Backup { server: server.to_owned(), note: String::new(), why, own })?;
    }
    if is_time(&mut seen.drilled, server, DRILL_EVERY)
        && let Some(work) = drills::wanted(daemon, server)?
    {
        submit(daemon, work)?;
    }
    if is_time(&mut seen.expired, server, EXPIRE_EVERY) {
        let done = expiry::carried_out(daemon, server, now())?;
        if !done.forget.is_empty() {
            tracing::info!(server = %server, forgotten = done.forget.len(), "no promise needs them");
        }
    }
    Ok(())
}

/// Whether it is time again to look at this server.
fn is_time(seen: &mut BTreeMap<String, Instant>, server: &str, every: Duration) -> bool {
    let is_time = seen.get(server).is_none_or(|at| at.elapsed() >= every);
    if is_time {
        seen.insert(server.to_owned(), Instant::now());
    }
    is_time
}

/// Asks for a job; one that waits or runs already is as good.
fn submit(daemon: &Daemon, work: Work) -> Result<()> {
    match daemon.queue.submit(work, BY, None) {
        Err(error) if error.code == Code::Locked => Ok(()),
        other => other.map(drop),
    }
}

/// What the schedule knows of a server, and when its next base is due.
pub(crate) fn asked(daemon: &Daemon, name: &str) -> Result<(ScheduleFacts, Next)> {
    let server = daemon.catalogue.server(name)?;
    let (failed, paused) = daemon.state.read(|content| {
        content.servers.get(name).map_or((Vec::new(), false), |s| (s.failed.clone(), s.paused))
    });
    let mut facts = schedule_facts(&daemon.catalogue, &server, &failed, paused);
    facts.restore = restore_takes(daemon, name, &facts);
    let next = next_base(&daemon.config().policy_of(name).1, &facts, now());
    Ok((facts, next))
}

/// How long a restore would take, as the board says. It may be a moment old; of another last base it says nothing: a base
/// that is done is not asked for again.
fn restore_takes(daemon: &Daemon, name: &str, facts: &ScheduleFacts) -> Option<RestoreTakes> {
    let board = daemon.look();
    let seen = board.servers.iter().find(|s| s.status.server == name)?;
    if seen.status.last_backup.as_ref()?.started != facts.bases.last()?.started {
        return None;
    }
    let micros = |view: &EstimateView| (view.seconds * 1e6) as Micros;
    Some(RestoreTakes { now: micros(seen.estimate.as_ref()?), fresh: micros(seen.estimate_fresh.as_ref()?) })
}

/// When a job of this work last ended; before the first one, when the daemon's state was begun.
pub(crate) fn last_ended(daemon: &Daemon, is: impl Fn(&Work) -> bool) -> Micros {
    daemon.state.read(|content| {
        let ended = content.jobs.iter().filter(|j| is(&j.work)).filter_map(|j| j.ended).max();
        ended.unwrap_or(content.begun).max(content.begun)
    })
}

/// When the next check of the whole repository is due; `None`: never.
pub(crate) fn fsck_due(daemon: &Daemon) -> Option<Micros> {
    let every = daemon.config().checks.fsck;
    let last = daemon.state.read(|content| content.fsck.as_ref().map_or(content.begun, |c| c.at));
    // One that ended without a verdict is tried again the next day.
    let day: Micros = 86_400_000_000;
    let again = last_ended(daemon, |w| *w == Work::Fsck {}).saturating_add(day.min(every.0));
    (every.0 > 0).then(|| last.saturating_add(every.0).max(again))
}
