//! `prune`: what no wanted backup needs goes, logs included.

use crate::archive::archive_error;
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Error, Result};
use crate::policy::Span;
use crate::progress::{Reading, Watcher};
use holdfast_archive::{CopyFacts, ServerLog};
use holdfast_format::ids::SegmentId;
use holdfast_format::record::{BackupRecord, Coordinates, ServerRecord};
use holdfast_io::{Directory, RealDisk};
use holdfast_store::{DiscardReason, PruneOptions, PrunePlan, PruneReport, Space};
use serde::Serialize;

/// How much is pruned.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a hundred that may be dead in what stays.
    pub dead_percent_max: u8,
    /// How long a forgotten backup keeps its blocks.
    pub grace: Span,
}

/// A plan, or what came of it.
#[derive(Clone, Debug, Serialize)]
pub struct PruneView {
    /// Nothing was changed.
    pub dry_run: bool,
    /// Segments that nothing needs any more, and their bytes.
    pub dead: Count,
    /// Objects that dead processes left.
    pub orphans: Count,
    /// Segments whose frames were carried before, and whose objects are left.
    pub superseded: Count,
    /// Stretches of log that no wanted backup leads into.
    pub logs: Count,
    /// Segments that are compacted, and their bytes.
    pub compacted: Count,
    /// Segments they become, and bytes that are copied.
    pub carriers: Count,
    /// Segments that have to wait for somebody at work; a later prune goes on with them.
    pub waiting: u64,
    /// Bytes that become free, or were freed.
    pub freed_bytes: u64,
    /// Before.
    pub before: SpaceView,
    /// After.
    pub after: SpaceView,
    /// It was stopped before its end; the next one goes on.
    pub stopped: bool,
    /// Segments that were left alone because they are damaged.
    pub damaged: Vec<String>,
}

/// Objects and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many.
    pub objects: u64,
    /// Bytes of all.
    pub bytes: u64,
}

/// How full a repository is.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct SpaceView {
    /// Segments of blocks and maps.
    pub segments: u64,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Share of dead frames, percent.
    pub dead_percent: f64,
}

/// Prunes, or says what a prune would do.
///
/// # Errors
/// `Locked` while another prune works; `Corruption` when it can't be known what is needed.
pub fn prune(
    catalogue: &Catalogue,
    options: Options,
    dry_run: bool,
    watcher: &dyn Watcher,
) -> Result<PruneView> {
    let told = |e| catalogue.store_error(e);
    let options = PruneOptions {
        dead_percent_max: options.dead_percent_max,
        grace_us: options.grace.0,
        logs: spare_logs(catalogue, options.grace)?,
    };
    if dry_run {
        let plan = catalogue.repository.plan_prune(&options).map_err(told)?;
        let freed = plan.bytes_gone().saturating_sub(plan.carry.iter().map(|c| c.live_bytes).sum());
        return Ok(shown(&plan, None, freed));
    }
    let go_on = |done, total| {
        watcher.reading(Reading {
            phase: "compact",
            done,
            total: Some(total),
            bytes: true,
            ..Reading::default()
        });
        !watcher.cancelled()
    };
    watcher.reading(Reading { phase: "mark", ..Reading::default() });
    let report = catalogue.repository.prune_while(&options, &go_on).map_err(told)?;
    let unfit = |e: holdfast_io::Error| Error::failed(sentence(&e.to_string()));
    // Temporary files of processes that died; they are no objects.
    let directory = Directory::open(RealDisk::shared(), &catalogue.place).map_err(unfit)?;
    directory.sweep().map_err(unfit)?;
    Ok(shown(&report.plan, Some(&report), report.bytes_freed()))
}

fn shown(plan: &PrunePlan, report: Option<&PruneReport>, freed_bytes: u64) -> PruneView {
    let list = report.map_or(&plan.discard, |r| &r.deleted);
    let count = |reasons: &[DiscardReason]| {
        let some = list.iter().filter(|d| reasons.contains(&d.reason));
        some.fold(Count::default(), |c, d| Count { objects: c.objects + 1, bytes: c.bytes + d.bytes })
    };
    let carried = plan.carry.iter().fold(Count::default(), |c, group| Count {
        objects: c.objects + group.sources.len() as u64,
        bytes: c.bytes + group.bytes,
    });
    let planned =
        Count { objects: plan.carry.len() as u64, bytes: plan.carry.iter().map(|c| c.live_bytes).sum() };
    let superseded = count(&[DiscardReason::Carried, DiscardReason::Left]);
    PruneView {
        dry_run: report.is_none(),
        dead: count(&[DiscardReason::Dead]),
        orphans: count(&[DiscardReason::Orphan]),
        superseded,
        logs: count(&[DiscardReason::Log]),
        compacted: report.map_or(carried, |r| Count { objects: r.carried, bytes: carried.bytes }),
        carriers: report.map_or(planned, |r| Count { objects: r.carriers, bytes: r.carrier_bytes }),
        waiting: report.map_or(0, |r| r.waiting),
        freed_bytes,
        before: space(plan.before),
        after: space(report.map_or(plan.after, |r| r.after)),
        stopped: report.is_some_and(|r| r.stopped),
        damaged: report.map_or_else(Vec::new, |r| r.damaged.clone()),
    }
}

fn space(space: Space) -> SpaceView {
    let dead_percent = (space.dead_percent() * 10.0).round() / 10.0;
    SpaceView { segments: space.segments, bytes: space.bytes, dead_percent }
}

/// Stretches of log that lie before every wanted backup: no restore begins there. Log goes in whole files of the
/// source. Of a server without a backup, and of one that has a backup whose place in the log is not known, all stays.
fn spare_logs(catalogue: &Catalogue, grace: Span) -> Result<Vec<SegmentId>> {
    let retained = catalogue.repository.retained(grace.0).map_err(|e| catalogue.store_error(e))?;
    let mut logs = Vec::new();
    for server in catalogue.repository.servers() {
        let own: Vec<&BackupRecord> = retained.iter().filter(|b| b.server == server.id).collect();
        logs.extend(spare_logs_of(catalogue, &server, &own)?);
    }
    Ok(logs)
}

fn spare_logs_of(
    catalogue: &Catalogue,
    server: &ServerRecord,
    backups: &[&BackupRecord],
) -> Result<Vec<SegmentId>> {
    let told = |e| archive_error(catalogue, server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    if log.is_empty() || backups.is_empty() {
        return Ok(Vec::new());
    }
    let mut first = None;
    for backup in backups {
        let lo = match &backup.coordinates {
            // As it was, and nothing else: no log leads on from it.
            Coordinates::None => continue,
            Coordinates::Exact(at) => at,
            Coordinates::Between { lo, .. } => lo,
        };
        match log.place_of_copy(lo, &CopyFacts::of(backup)).map_err(told)? {
            Some(place) => first = Some(first.map_or(place, |f: holdfast_archive::Place| f.min(place))),
            None => return Ok(Vec::new()),
        }
    }
    first.map_or_else(|| Ok(Vec::new()), |first| log.stretches_before(first).map_err(told))
}
