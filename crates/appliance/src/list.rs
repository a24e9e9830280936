//! `list`: the backups there are.

use crate::catalogue::Catalogue;
use crate::error::Result;
use crate::views::BackupView;
use holdfast_format::record::{BackupRecord, Coordinates, Position, Record, SourceKind};

/// The backups of one server or of all, oldest first.
///
/// # Errors
/// `Usage` when there is no server of that name.
pub fn list(catalogue: &Catalogue, name: Option<&str>) -> Result<Vec<BackupView>> {
    let wanted = name.map(|name| catalogue.server(name)).transpose()?;
    let backups = catalogue.repository.backups();
    let of_server = |b: &&BackupRecord| wanted.as_ref().is_none_or(|s| s.id == b.server);
    Ok(backups.iter().filter(of_server).map(|b| view(catalogue, b)).collect())
}

/// One backup as people read it.
pub(crate) fn view(catalogue: &Catalogue, backup: &BackupRecord) -> BackupView {
    let coordinates = learned(catalogue, backup);
    BackupView {
        id: backup.id.to_string(),
        server: catalogue.server_name(backup.server),
        source: source_words(backup.source).to_owned(),
        started: backup.started_us,
        completed: backup.finished_us,
        data_bytes: backup.stats.logical_bytes,
        stored_bytes: backup.stats.stored_bytes,
        exact: matches!(coordinates, Coordinates::Exact(_)),
        position: match &coordinates {
            Coordinates::None => None,
            Coordinates::Exact(at) => Some(position_words(at)),
            Coordinates::Between { lo, hi } if lo == hi => Some(position_words(lo)),
            Coordinates::Between { lo, hi } => {
                Some(format!("between {} and {}", position_words(lo), position_words(hi)))
            }
        },
        note: backup.note.clone(),
        warnings: backup.warnings.clone(),
        proof: newest_proof(catalogue, backup),
    }
}

/// A backup's coordinates, the exact ones if a restore has learned them since.
pub(crate) fn learned(catalogue: &Catalogue, backup: &BackupRecord) -> Coordinates {
    let records = catalogue.repository.records();
    let exact = records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::CoordinatesLearned { backup: id, position } if *id == backup.id => Some(position.clone()),
        _ => None,
    });
    exact.map_or_else(|| backup.coordinates.clone(), Coordinates::Exact)
}

pub(crate) fn newest_proof(catalogue: &Catalogue, backup: &BackupRecord) -> Option<String> {
    let records = catalogue.repository.records();
    records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::Report(report) if report.backup == backup.id => {
            let json: serde_json::Value = serde_json::from_slice(&report.json).ok()?;
            Some(if json.get("proved")?.as_bool()? { "proved" } else { "failed" }.to_owned())
        }
        _ => None,
    })
}

fn source_words(source: SourceKind) -> &'static str {
    match source {
        SourceKind::Clone => "clone",
        SourceKind::Xbstream => "mariadb-backup",
        SourceKind::Folder => "folder",
        SourceKind::Snapshot => "snapshot",
    }
}

/// `file:offset`, with the GTIDs when there are few.
pub(crate) fn position_words(at: &Position) -> String {
    const GTID_TEXT_MAX: usize = 60;
    let gtid = at.gtid.to_string();
    match (at.file.is_empty(), gtid.is_empty() || gtid.len() > GTID_TEXT_MAX) {
        (true, _) => gtid,
        (false, true) => format!("{}:{}", at.file, at.offset),
        (false, false) => format!("{}:{} ({gtid})", at.file, at.offset),
    }
}
