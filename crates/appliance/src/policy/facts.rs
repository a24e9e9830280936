//! Reads what the policies ask of a repository.

use super::{Interval, Point, ScheduleFacts, Taken};
use crate::archive::archive_error;
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::import::is_imported;
use crate::list::{learned, newest_proof};
use crate::own::keep_until;
use crate::time::Micros;
use holdfast_archive::{CopyFacts, ServerLog};
use holdfast_format::ids::BackupId;
use holdfast_format::record::{BackupRecord, Coordinates, ServerKind, ServerRecord};

/// A server's bases and unbroken stretches of log.
///
/// # Errors
/// When the log can't be read.
pub fn points_of(
    catalogue: &Catalogue,
    server: &ServerRecord,
) -> Result<(Vec<Point<BackupId>>, Vec<Interval>)> {
    let mut backups = catalogue.backups_of(server);
    backups.sort_by_key(|b| b.finished_us);
    let mut intervals = Vec::new();
    let mut placed: Vec<Option<usize>> = vec![None; backups.len()];
    if !matches!(server.kind, ServerKind::Folder { .. }) {
        let told = |e| archive_error(catalogue, server, e);
        let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
        let coverage = log.coverage().map_err(told)?;
        intervals.extend(coverage.iter().map(|i| Interval { until: i.to_us.unwrap_or(i64::MIN) }));
        for (backup, placed) in backups.iter().zip(&mut placed) {
            let hi = match learned(catalogue, backup) {
                Coordinates::None => continue,
                Coordinates::Exact(at) => at,
                Coordinates::Between { hi, .. } => hi,
            };
            let place = log.place_of_copy(&hi, &CopyFacts::of(backup)).map_err(told)?;
            *placed = place.and_then(|p| coverage.iter().position(|i| (i.begin..=i.end).contains(&p)));
            // A server that nobody writes to has no transaction to date the stretch by.
            if let Some(interval) = placed.and_then(|at: usize| intervals.get_mut(at)) {
                interval.until = interval.until.max(backup.finished_us);
            }
        }
    }
    let point = |(backup, interval): (&BackupRecord, Option<usize>)| {
        let proof = newest_proof(catalogue, backup);
        Point {
            id: backup.id,
            finished: backup.finished_us,
            interval,
            proved: proof.as_deref() == Some("proved"),
            bad: proof.as_deref() == Some("failed"),
            held: is_imported(backup) || catalogue.known(|known| known.is_held(backup.id)),
            imported: is_imported(backup),
            keep_until: keep_until(backup).max(catalogue.known(|known| known.locked_until(backup.id))),
        }
    };
    Ok((backups.iter().zip(placed).map(point).collect(), intervals))
}

/// What the schedule asks of a server. `failed` and `paused` are the caller's to know: they are in no repository.
#[must_use]
pub fn schedule_facts(
    catalogue: &Catalogue,
    server: &ServerRecord,
    failed: &[Micros],
    paused: bool,
) -> ScheduleFacts {
    // A dump of last year is no backup of today.
    let mut bases: Vec<Taken> = catalogue.known(|known| {
        let bases = known.of(server.id).into_iter().flat_map(|of| &of.bases).filter(|base| !base.imported);
        bases.map(|base| Taken { started: base.started, finished: base.finished }).collect()
    });
    bases.sort_by_key(|b| b.started);
    let last = bases.last().copied();
    let since = last.map_or(i64::MIN, |b| b.started);
    let mut facts = ScheduleFacts {
        seed: server.id.0.iter().fold(0, |seed, byte| (seed << 8) ^ (seed >> 56) ^ u64::from(*byte)),
        added: server.added_us,
        failed: failed.iter().copied().filter(|at| *at > last.map_or(i64::MIN, |b| b.finished)).collect(),
        paused,
        ..ScheduleFacts::default()
    };
    catalogue.known(|known| {
        let Some(of) = known.of(server.id) else { return };
        // Whole segments, the one that the base was begun in left out: what a threshold needs to know.
        facts.log_bytes = of.sealed.iter().filter(|(first, _)| *first >= since).map(|(_, bytes)| bytes).sum();
        facts.hole = of.gaps.iter().copied().filter(|at| *at > since).max();
    });
    facts.bases = bases;
    facts
}
