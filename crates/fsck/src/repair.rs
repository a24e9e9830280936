//! The repair: a plan that can be printed, then its deeds.
//!
//! ```text
//! full check -> plan -> copies and heads -> segments from parity -> footers from frames -> check -> orphans away
//! ```
//!
//! Nothing is overwritten that is not kept in the quarantine first, and nothing is put in place that
//! was not read back through the checker before. Garbage collection is locked out meanwhile; backups, logs
//! and restores go on. Orphans move last, and only when every record and every backup is whole: what a lost
//! record would have named looks like an orphan, too.

mod deeds;
mod plan;
pub(crate) mod quarantine;

use std::time::Duration;

use holdfast_format::names::PRUNE_LOCK;
use holdfast_io::{LockKind, ObjectName, Objects};
use serde::Serialize;

use crate::check::{Options, Scope, checked};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::report::Report;
use crate::unlock::Secret;

pub use plan::{Plan, Step};

/// What a repair is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RepairOptions {
    /// Only make the plan.
    pub dry_run: bool,
    /// Only make new footers, the index of a segment, where the frames are there and the footer is not.
    pub index_only: bool,
    /// The time, microseconds since the Unix epoch: for the quarantine's folder and the records.
    pub now_us: i64,
}

/// What a repair found and did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// What the check before it found.
    pub before: Report,
    /// What was planned.
    pub plan: Plan,
    /// What was done, one sentence each; empty after a dry run.
    pub done: Vec<String>,
    /// Where everything that was replaced or taken away is kept, if anything was.
    pub quarantine: Option<String>,
    /// What the check after it found; none after a dry run.
    pub after: Option<Report>,
}

/// Checks everything, plans, and unless it is a dry run repairs and checks again.
pub fn repair(
    objects: &dyn Objects,
    secret: &Secret,
    options: RepairOptions,
    progress: &Progress,
) -> Result<Repaired> {
    let full = Options { scope: Scope::Full, seed: 0 };
    let _no_prune = if options.dry_run { None } else { Some(lock_out_prune(objects)?) };
    let first = checked(objects, secret, full, progress)?;
    if first.keys.unknown_features != 0 && !options.dry_run {
        return Err(Error::OtherFormat(holdfast_format::Error::Features {
            unknown: first.keys.unknown_features,
        }));
    }
    progress.begin("plan", 0);
    let plan = plan::make(objects, &first, options.index_only)?;
    let mut repaired =
        Repaired { before: first.report.clone(), plan, done: Vec::new(), quarantine: None, after: None };
    if options.dry_run {
        return Ok(repaired);
    }
    let keys = first.keys;
    // Its session ends: the next check begins one of its own.
    drop(first.hold);
    let mut deeds = deeds::Deeds::new(objects, &keys, options.now_us)?;
    deeds.small(secret, options.index_only)?;
    deeds.segments(&repaired.plan, progress)?;
    let second = checked(objects, secret, full, progress)?;
    if !options.index_only {
        deeds.orphans(&second)?;
    }
    (repaired.done, repaired.quarantine) = deeds.told();
    repaired.after = Some(second.report);
    Ok(repaired)
}

fn lock_out_prune(objects: &dyn Objects) -> Result<holdfast_io::Lock> {
    match objects.lock(&ObjectName::new(PRUNE_LOCK)?, LockKind::Exclusive, Duration::ZERO) {
        Ok(lock) => Ok(lock),
        Err(holdfast_io::Error::LockBusy { .. }) => Err(Error::PruneAtWork),
        Err(e) => Err(e.into()),
    }
}

impl Repaired {
    /// True if nothing is wrong now, or after a dry run was wrong.
    #[must_use]
    pub fn clean(&self) -> bool {
        self.after.as_ref().unwrap_or(&self.before).clean
    }

    /// All of it for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = self.before.text();
        out += &self.plan.text();
        for line in &self.done {
            out += &format!("done       {line}\n");
        }
        if let Some(folder) = &self.quarantine {
            out += &format!("kept       what was replaced or taken away is in {folder}\n");
        }
        if let Some(after) = &self.after {
            out += "\nafter the repair\n";
            out += &after.text();
        }
        out
    }
}
