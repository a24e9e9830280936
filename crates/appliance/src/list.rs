//! `list`: the backups there are.

use crate::catalogue::Catalogue;
use crate::copy_from::PASSED_FACT;
use crate::error::Result;
use crate::own;
use crate::views::BackupView;
use holdfast_format::record::{BackupRecord, COPIED_FROM, Coordinates, Position, SourceKind};

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
        name: own::name_of(backup).map(str::to_owned),
        keep_until: own::keep_until(backup).max(catalogue.known(|known| known.locked_until(backup.id))),
        held: catalogue.known(|known| known.is_held(backup.id)),
        note: backup.note.clone(),
        warnings: backup.warnings.clone(),
        proof: newest_proof(catalogue, backup),
        copied_from: backup.fact(COPIED_FROM).map(str::to_owned),
        not_from_replica: backup.fact(PASSED_FACT).map(str::to_owned),
    }
}

/// A backup's coordinates, the exact ones if a restore has learned them since.
pub(crate) fn learned(catalogue: &Catalogue, backup: &BackupRecord) -> Coordinates {
    let exact = catalogue.known(|known| known.learned(backup.id).cloned());
    exact.map_or_else(|| backup.coordinates.clone(), Coordinates::Exact)
}

/// What the newest restore of the whole backup said of it.
pub(crate) fn newest_proof(catalogue: &Catalogue, backup: &BackupRecord) -> Option<String> {
    catalogue.known(|known| known.proof(backup.id)).map(str::to_owned)
}

/// What a restore's report says of the backup as a whole: nothing if it restored some tables alone.
pub(crate) fn proof_of_the_whole(report: &serde_json::Value) -> Option<&'static str> {
    if is_of_a_part(report) {
        return None;
    }
    // A query of the user's own that fails says something of the data, and nothing of the backup.
    let ours = |check: &&serde_json::Value| {
        check.get("name").is_some_and(|name| name != holdfast_restore::queries::CHECK)
    };
    let failed = |check: &serde_json::Value| check.get("verdict").is_some_and(|verdict| verdict == "failed");
    let checks = report.get("checks").and_then(serde_json::Value::as_array);
    let queries_alone =
        checks.is_some_and(|checks| checks.iter().any(failed) && !checks.iter().filter(ours).any(failed));
    Some(if report.get("proved")?.as_bool()? || queries_alone { "proved" } else { "failed" })
}

/// Is this the report of a restore of some tables?
pub(crate) fn is_of_a_part(report: &serde_json::Value) -> bool {
    report.pointer("/plan/part").is_some_and(|part| !part.is_null())
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_backup_is_proved_though_a_query_of_the_users_own_failed() {
        let says = |failed: &[&str]| {
            let check = |name: &&str| json!({"name": name, "verdict": if failed.contains(name) { "failed" } else { "ok" }});
            let checks: Vec<_> = ["blocks", "check-queries"].iter().map(check).collect();
            proof_of_the_whole(&json!({"proved": failed.is_empty(), "checks": checks, "plan": {}}))
        };
        assert_eq!(says(&[]), Some("proved"));
        assert_eq!(says(&["check-queries"]), Some("proved"));
        assert_eq!(says(&["blocks"]), Some("failed"));
        assert_eq!(says(&["blocks", "check-queries"]), Some("failed"));
    }

    #[test]
    fn a_restore_of_some_tables_proves_and_condemns_no_backup() {
        let says = |proved: bool, plan: serde_json::Value| {
            proof_of_the_whole(&json!({"proved": proved, "plan": plan}))
        };
        for proved in [true, false] {
            assert_eq!(says(proved, json!({"part": {"wanted": "table shop.t"}})), None);
        }
        for whole in [json!({}), json!({"part": null})] {
            assert_eq!(says(true, whole.clone()), Some("proved"));
            assert_eq!(says(false, whole), Some("failed"));
        }
    }
}
