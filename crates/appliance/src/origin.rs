//! Where a protected server came from, if it was restored from this repository: found when it is added, and kept.
//!
//! A restored MySQL has an identity of its own (`server_uuid`), which the report of the restore says. MariaDB and folders
//! have none: `restore finish` leaves a note in the data directory, which is read where it lies on this host.

use crate::catalogue::Catalogue;
use crate::time::{Micros, parse_time};
use crate::views::OriginView;
use holdfast_format::gtid::Flavor;
use holdfast_format::record::{OriginRecord, Record, ReportRecord, ServerKind, ServerRecord};
use holdfast_mysql::Conn;
use holdfast_restore::origin::Origin;
use serde_json::Value;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// Longest name of a server that a note of another repository says, letters.
const NAME_MAX: usize = 100;

/// The origin that a server's view shows: that of the server that it was when it was added.
pub(crate) fn view(catalogue: &Catalogue, server: &ServerRecord) -> Option<OriginView> {
    let origin = catalogue.known(|known| known.origin(server.id).cloned())?;
    (origin.source_uuid == server.source_uuid && !origin.name.is_empty()).then(|| OriginView {
        server: origin.name,
        backup: origin.backup.map(|id| id.to_string()),
        moment: origin.moment_us,
        restored: origin.restored_us,
    })
}

/// Says that nothing is known of where it came from, in place of what was known of another one under its name.
pub(crate) fn none(server: &ServerRecord) -> OriginRecord {
    OriginRecord {
        server: server.id,
        source_uuid: server.source_uuid,
        name: String::new(),
        backup: None,
        moment_us: None,
        restored_us: None,
    }
}

/// Looks where a server that is being added came from.
pub(crate) fn look(
    catalogue: &Catalogue,
    server: &ServerRecord,
    conn: Option<&mut Conn>,
) -> Option<OriginRecord> {
    if server.flavor == Some(Flavor::MySql) {
        let uuid = server.source_uuid?.to_string();
        return newest(catalogue, server, |json| text(json, "/server_uuid") == Some(&uuid));
    }
    let note = Origin::read(&datadir(server, conn)?)?;
    let same = |json: &Value| {
        text(json, "/server") == Some(&note.server)
            && text(json, "/plan/base") == Some(&note.backup)
            && text(json, "/plan/target") == Some(&note.target)
            && text(json, "/folder").is_none_or(|folder| note.is_of(folder))
    };
    // One of another repository is told by its name alone.
    let by_name = || OriginRecord {
        server: server.id,
        source_uuid: server.source_uuid,
        name: note.server.chars().take(NAME_MAX).collect(),
        backup: None,
        moment_us: None,
        restored_us: None,
    };
    Some(newest(catalogue, server, same).unwrap_or_else(by_name))
}

/// Keeps the origin of a server that was added, if it is not known yet; what came of it if that failed. The server is
/// protected without it.
pub(crate) fn keep(catalogue: &Catalogue, origin: OriginRecord) -> Option<String> {
    if catalogue.known(|known| known.origin(origin.server).cloned()).as_ref() == Some(&origin) {
        return None;
    }
    let name = catalogue.server_name(origin.server);
    let from = origin.name.clone();
    let kept = catalogue.repository.append(Record::ServerOrigin(origin));
    let why = kept.err().map(|error| catalogue.store_error(error))?;
    Some(format!(
        "That '{name}' was restored from '{from}' could not be written down: {} Add it again to do so.",
        why.message
    ))
}

/// The data directory, where it lies on this host.
fn datadir(server: &ServerRecord, conn: Option<&mut Conn>) -> Option<PathBuf> {
    let here = match &server.kind {
        ServerKind::Folder { path } => return Some(Path::new(path).to_path_buf()),
        ServerKind::Network { socket: Some(_), .. } => true,
        ServerKind::Network { host, .. } => {
            host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
        }
    };
    if !here {
        return None;
    }
    conn?.query_text("SELECT @@GLOBAL.datadir").ok().flatten().map(PathBuf::from)
}

/// What the newest report of a restore says that fits.
fn newest(
    catalogue: &Catalogue,
    server: &ServerRecord,
    fits: impl Fn(&Value) -> bool,
) -> Option<OriginRecord> {
    let records = catalogue.repository.records();
    records.iter().rev().find_map(|stamped| match &stamped.record {
        Record::Report(report) if report.kind == crate::restore::KIND => {
            let json: Value = serde_json::from_slice(&report.json).ok()?;
            fits(&json).then(|| of_report(server, report, &json))?
        }
        _ => None,
    })
}

fn of_report(server: &ServerRecord, report: &ReportRecord, json: &Value) -> Option<OriginRecord> {
    Some(OriginRecord {
        server: server.id,
        source_uuid: server.source_uuid,
        name: text(json, "/server")?.to_owned(),
        backup: Some(report.backup),
        moment_us: moment(json),
        restored_us: Some(report.at_us),
    })
}

/// When the source was as the restored server is: the last transaction's commit, or the end of the base.
fn moment(json: &Value) -> Option<Micros> {
    let kept = json.pointer("/plan/last_kept/committed_us").and_then(Value::as_i64);
    kept.or_else(|| parse_time(text(json, "/plan/base_finished")?).ok())
}

fn text<'v>(json: &'v Value, path: &str) -> Option<&'v str> {
    json.pointer(path).and_then(Value::as_str)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::Key;
    use crate::init::init;
    use crate::server::{Added, add};
    use crate::settings::{Environment, Login};

    #[test]
    fn an_origin_that_cannot_be_written_down_is_a_warning_and_the_server_is_protected() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("passphrase"), "only for tests\n").unwrap();
        let spool = Some(dir.path().join("spool"));
        let environment = Environment::of_daemon(dir.path().join("servers.toml"), spool).unwrap();
        let key = Key::PassphraseFile(dir.path().join("passphrase"));
        let place = dir.path().join("repository");
        init(&environment, &place, &key, "test").unwrap();
        let catalogue = Catalogue::open(environment, &place, &key).unwrap();
        let path = dir.path().to_str().unwrap().to_owned();
        let added = Added {
            name: "copy".to_owned(),
            kind: ServerKind::Folder { path },
            login: Login::default(),
            rebuilt: false,
        };
        assert!(add(&catalogue, added).unwrap().warnings.is_empty());
        let server = catalogue.server("copy").unwrap();
        let origin = |name: &str| OriginRecord {
            server: server.id,
            source_uuid: None,
            name: name.to_owned(),
            backup: None,
            moment_us: None,
            restored_us: None,
        };
        assert_eq!(keep(&catalogue, origin("shop")), None);
        assert_eq!(view(&catalogue, &server).unwrap().server, "shop");
        // What is known is not written again, so that it does not matter that it can't be.
        std::fs::rename(place.join("manifest"), place.join("elsewhere")).unwrap();
        assert_eq!(keep(&catalogue, origin("shop")), None);
        let warning = keep(&catalogue, origin("till")).unwrap();
        assert!(warning.contains("'copy' was restored from 'till'"), "{warning}");
    }
}
