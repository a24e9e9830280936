//! `status` and `timeline`: what can be restored now, computed from what is in the repository.

use crate::archive::{archive_error, is_archived_now};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::list::{learned, position_words, view};
use crate::server::engine_words;
use crate::time::show_time;
use crate::views::{BackupView, GapView, SpanView, StatusView, TimelineView};
use holdfast_archive::{CopyFacts, Place, ServerLog};
use holdfast_format::record::{BackupRecord, Coordinates, Record, ServerKind, ServerRecord};

/// Every protected server.
///
/// # Errors
/// When the repository can't be read.
pub fn status(catalogue: &Catalogue) -> Result<Vec<StatusView>> {
    catalogue.repository.servers().iter().map(|server| of_server(catalogue, server)).collect()
}

/// One server.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn status_of(catalogue: &Catalogue, name: &str) -> Result<StatusView> {
    of_server(catalogue, &catalogue.server(name)?)
}

/// One server's history.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn timeline(catalogue: &Catalogue, name: &str) -> Result<TimelineView> {
    let server = catalogue.server(name)?;
    let backups = catalogue.backups_of(&server);
    Ok(TimelineView {
        server: server.name.clone(),
        spans: spans(catalogue, &server, &backups)?,
        gaps: gaps(catalogue, &server),
        backups: backups.iter().map(|b| view(catalogue, b)).collect(),
    })
}

fn of_server(catalogue: &Catalogue, server: &ServerRecord) -> Result<StatusView> {
    let backups = catalogue.backups_of(server);
    let last_backup = backups.last().map(|b| view(catalogue, b));
    let folder = matches!(server.kind, ServerKind::Folder { .. });
    let (spans, gaps) = if folder {
        (Vec::new(), Vec::new())
    } else {
        (spans(catalogue, server, &backups)?, gaps(catalogue, server))
    };
    let archive_running = !folder && is_archived_now(catalogue, server)?;
    let (protected, sentence) = verdict(server, folder, last_backup.as_ref(), &spans, &gaps, archive_running);
    Ok(StatusView {
        server: server.name.clone(),
        engine: engine_words(server),
        protected,
        sentence,
        log_until: spans.last().map(|s| s.until),
        spans,
        gaps,
        last_backup,
        archive_running,
    })
}

fn verdict(
    server: &ServerRecord,
    folder: bool,
    last_backup: Option<&BackupView>,
    spans: &[SpanView],
    gaps: &[GapView],
    archive_running: bool,
) -> (&'static str, String) {
    let name = &server.name;
    let Some(backup) = last_backup else {
        return ("no", format!("there is no backup yet: holdfast backup {name}"));
    };
    let backed_up = show_time(backup.completed);
    if folder {
        return ("yes", format!("restorable as it was at each backup, the last one of {backed_up}"));
    }
    let Some(span) = spans.last() else {
        return (
            "backups only",
            format!(
                "restorable to its backups only, the last one of {backed_up}; for every moment after it: holdfast archive {name}"
            ),
        );
    };
    let since = spans.first().map_or(span.from, |first| first.from);
    let until = show_time(span.until);
    if !archive_running {
        return (
            "backups only",
            format!(
                "no archive is running: restorable up to {until}, and no later moment is covered; holdfast archive {name}"
            ),
        );
    }
    match gaps.last() {
        Some(gap) => (
            "gap",
            format!(
                "restorable since {} with {} hole(s), the last one after {}: {}",
                show_time(since),
                gaps.len(),
                gap.after,
                gap.reason
            ),
        ),
        None => ("yes", format!("restorable to every transaction from {} to {until}", show_time(since))),
    }
}

/// The stretches in which every transaction can be restored to: a covered interval, from the
/// first backup in it on.
fn spans(catalogue: &Catalogue, server: &ServerRecord, backups: &[BackupRecord]) -> Result<Vec<SpanView>> {
    let told = |e| archive_error(catalogue, server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let mut bases = Vec::new();
    for backup in backups {
        let hi = match learned(catalogue, backup) {
            Coordinates::None => continue,
            Coordinates::Exact(at) => at,
            Coordinates::Between { hi, .. } => hi,
        };
        if let Some(place) = log.place_of_copy(&hi, &CopyFacts::of(backup)).map_err(told)? {
            bases.push((place, hi, backup.finished_us));
        }
    }
    let mut spans = Vec::new();
    for interval in log.coverage().map_err(told)? {
        let inside = |place: &Place| (interval.begin..=interval.end).contains(place);
        let Some((first, hi, finished_us)) = bases.iter().find(|(place, ..)| inside(place)) else { continue };
        let mut span = SpanView {
            from: *finished_us,
            until: *finished_us,
            from_position: position_words(hi),
            until_position: position_words(&interval.to),
            transactions: 0,
        };
        log.each(&mut |from, to, indexed| {
            if from >= *first && to <= interval.end {
                // The first one may have been committed while the backup was still being stored.
                span.from = span.from.min(indexed.entry.commit_us);
                span.until = if span.transactions == 0 {
                    indexed.entry.commit_us
                } else {
                    span.until.max(indexed.entry.commit_us)
                };
                span.transactions += 1;
            }
            Ok(())
        })
        .map_err(told)?;
        spans.push(span);
    }
    Ok(spans)
}

fn gaps(catalogue: &Catalogue, server: &ServerRecord) -> Vec<GapView> {
    let records = catalogue.repository.records();
    records
        .iter()
        .filter_map(|stamped| match &stamped.record {
            Record::LogGap(gap) if gap.stream.server == server.id => Some(GapView {
                after: position_words(&gap.after),
                noticed: gap.at_us,
                reason: gap.reason.clone(),
            }),
            _ => None,
        })
        .collect()
}
