//! `status` and `timeline`: what can be restored now, computed from what is in the repository.

use crate::archive::{archive_error, is_archived_now};
use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::list::{learned, position_words, view};
use crate::server::engine_words;
use crate::time::{Micros, now, show_time};
use crate::views::{BackupView, FailOverView, GapView, SpanView, StatusView, TimelineView, ZeroLossView};
use holdfast_archive::{Break, CopyFacts, Joint, Place, ServerLog};
use holdfast_format::record::{BackupRecord, Coordinates, ServerKind, ServerRecord};

/// Age of the last proof of zero loss up to which it counts as going on, microseconds: it is written every half minute.
const STILL_TRUE: Micros = 60_000_000;

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

/// Whether some process follows this server's log now.
///
/// # Errors
/// When the repository can't be read.
pub fn is_followed(catalogue: &Catalogue, server: &ServerRecord) -> Result<bool> {
    is_archived_now(catalogue, server)
}

/// One server's history.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn timeline(catalogue: &Catalogue, name: &str) -> Result<TimelineView> {
    let server = catalogue.server(name)?;
    let backups = catalogue.backups_of(&server);
    let log = open_log(catalogue, &server)?;
    Ok(TimelineView {
        server: server.name.clone(),
        spans: spans(catalogue, &server, &log, &backups)?,
        gaps: gaps(&log),
        fail_overs: fail_overs(catalogue, &server, &log)?,
        zero_loss: zero_loss(catalogue, &server, &log)?,
        backups: backups.iter().map(|b| view(catalogue, b)).collect(),
    })
}

fn open_log<'c>(catalogue: &'c Catalogue, server: &ServerRecord) -> Result<ServerLog<'c>> {
    ServerLog::open(&catalogue.repository, server.id).map_err(|e| archive_error(catalogue, server, e))
}

fn of_server(catalogue: &Catalogue, server: &ServerRecord) -> Result<StatusView> {
    let backups = catalogue.backups_of(server);
    let last_backup = backups.last().map(|b| view(catalogue, b));
    let folder = matches!(server.kind, ServerKind::Folder { .. });
    let (spans, gaps, zero_loss, replay_bytes) = if folder {
        (Vec::new(), Vec::new(), None, 0)
    } else {
        let log = open_log(catalogue, server)?;
        let zero_loss = zero_loss(catalogue, server, &log)?.pop();
        let replayed = replay_bytes(catalogue, server, &log, backups.last())?;
        (spans(catalogue, server, &log, &backups)?, gaps(&log), zero_loss, replayed)
    };
    let archive_running = !folder && is_archived_now(catalogue, server)?;
    let (protected, mut sentence) =
        verdict(server, folder, last_backup.as_ref(), &spans, &gaps, archive_running);
    if let Some(zero_loss) = zero_loss.as_ref().filter(|z| archive_running && now() - z.until < STILL_TRUE) {
        sentence.push_str(&format!(
            "; since {} no commit was told to a client before it was durable here",
            show_time(zero_loss.from)
        ));
    }
    Ok(StatusView {
        server: server.name.clone(),
        engine: engine_words(server),
        protected,
        sentence,
        log_until: spans.last().map(|s| s.until),
        spans,
        gaps,
        zero_loss,
        last_backup,
        replay_bytes,
        archive_running,
        origin: crate::origin::view(catalogue, server),
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
    let holes = gaps.last().map(|gap| {
        format!("; the log has {} hole(s), the last one after {}: {}", gaps.len(), gap.after, gap.reason)
    });
    let (holes, sound) = (holes.unwrap_or_default(), gaps.is_empty());
    let Some(span) = spans.last() else {
        return (
            if sound { "backups only" } else { "gap" },
            format!(
                "restorable to its backups only, the last one of {backed_up}; for every moment after it: holdfast archive {name}{holes}"
            ),
        );
    };
    let reach = format!("from {} to {}", show_time(span.from), show_time(span.until));
    if !archive_running {
        return (
            if sound { "backups only" } else { "gap" },
            format!(
                "no archive is running: restorable {reach}, and no later moment is covered: holdfast archive {name}{holes}"
            ),
        );
    }
    (if sound { "yes" } else { "gap" }, format!("restorable to every transaction {reach}{holes}"))
}

/// The stretches in which every moment can be restored to: of a covered interval, from the first backup in it on. No
/// moment is named that a restore would refuse.
fn spans(
    catalogue: &Catalogue,
    server: &ServerRecord,
    log: &ServerLog<'_>,
    backups: &[BackupRecord],
) -> Result<Vec<SpanView>> {
    let told = |e| archive_error(catalogue, server, e);
    let mut bases = Vec::new();
    for backup in backups {
        let hi = match learned(catalogue, backup) {
            Coordinates::None => continue,
            Coordinates::Exact(at) => at,
            Coordinates::Between { hi, .. } => hi,
        };
        if let Some(place) = log.place_of_copy(&hi, &CopyFacts::of(backup)).map_err(told)? {
            bases.push((place, hi));
        }
    }
    let mut spans = Vec::new();
    for interval in log.coverage().map_err(told)? {
        let inside = |place: &Place| (interval.begin..=interval.end).contains(place);
        let Some((first, hi)) =
            bases.iter().filter(|(place, _)| inside(place)).min_by_key(|(place, _)| *place)
        else {
            continue;
        };
        let Some((from, until)) = log.moments(*first).map_err(told)? else { continue };
        let transactions = log.size(*first, interval.end).map_err(told)?.transactions;
        // Times are shown in milliseconds, and are to be taken as they are shown.
        let (from, until) = ((from + 999).div_euclid(1000) * 1000, until.div_euclid(1000) * 1000);
        if from > until {
            continue;
        }
        spans.push(SpanView {
            from,
            until,
            from_position: position_words(hi),
            until_position: position_words(&interval.to),
            transactions,
        });
    }
    Ok(spans)
}

/// Bytes of log that a restore with this backup to the last moment that it leads to would replay; none where the log does
/// not reach it.
fn replay_bytes(
    catalogue: &Catalogue,
    server: &ServerRecord,
    log: &ServerLog<'_>,
    backup: Option<&BackupRecord>,
) -> Result<u64> {
    let told = |e| archive_error(catalogue, server, e);
    let Some(backup) = backup else { return Ok(0) };
    let stands = match learned(catalogue, backup) {
        Coordinates::None => return Ok(0),
        Coordinates::Exact(at) => at,
        Coordinates::Between { lo, .. } => lo,
    };
    let Some(from) = log.place_of_copy(&stands, &CopyFacts::of(backup)).map_err(told)? else { return Ok(0) };
    let coverage = log.coverage().map_err(told)?;
    let Some(end) = coverage.iter().find(|i| (i.begin..=i.end).contains(&from)) else { return Ok(0) };
    Ok(log.size(from, end.end).map_err(told)?.bytes)
}

fn zero_loss(catalogue: &Catalogue, server: &ServerRecord, log: &ServerLog<'_>) -> Result<Vec<ZeroLossView>> {
    let intervals = log.zero_loss().map_err(|e| archive_error(catalogue, server, e))?;
    Ok(intervals.into_iter().map(|(from, until)| ZeroLossView { from, until }).collect())
}

fn fail_overs(
    catalogue: &Catalogue,
    server: &ServerRecord,
    log: &ServerLog<'_>,
) -> Result<Vec<FailOverView>> {
    let view = |joint: Joint| FailOverView {
        after: position_words(&joint.after),
        at: position_words(&joint.at),
        uuid: joint.stream.source_uuid.to_string(),
        life: joint.stream.incarnation,
        first: joint.us,
    };
    let joints = log.joints().map_err(|e| archive_error(catalogue, server, e))?;
    Ok(joints.into_iter().map(view).collect())
}

/// The holes in a server's log.
pub(crate) fn gaps(log: &ServerLog<'_>) -> Vec<GapView> {
    let view = |hole: Break| GapView {
        after: position_words(&hole.after),
        noticed: hole.noticed_us,
        reason: hole.reason,
    };
    log.breaks().into_iter().map(view).collect()
}
