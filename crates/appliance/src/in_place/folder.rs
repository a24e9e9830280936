//! The data directory itself: which it is, whether it is the server's, what of it a restore does not touch.

use super::Place;
use crate::catalogue::Catalogue;
use crate::error::{Code, Error, Result};
use crate::progress::{Reading, Watcher};
use holdfast_format::record::{BackupRecord, ServerKind, ServerRecord};
use holdfast_restore::in_place::{MARK, MARK_LOCK, Mark};
use std::collections::HashMap;
use std::ffi::OsString;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Longest time that a server may take to end after its command to stop.
const STOPPED_WITHIN: Duration = Duration::from_secs(30 * 60);

/// The variables that name places where a server keeps what belongs to its data.
const PLACES: [&str; 4] =
    ["innodb_data_home_dir", "innodb_log_group_home_dir", "innodb_undo_directory", "aria_log_dir_path"];

/// What the newest backups say of the server; the newest one that knows a fact tells it.
pub(super) fn facts_of(catalogue: &Catalogue, server: &ServerRecord) -> HashMap<String, String> {
    let mut facts = HashMap::new();
    for backup in catalogue.backups_of(server) {
        facts.extend(backup.facts.iter().cloned());
    }
    facts
}

/// The data directory, as a path without links.
pub(super) fn find(catalogue: &Catalogue, server: &ServerRecord, place: &Place) -> Result<PathBuf> {
    let known = match &server.kind {
        ServerKind::Folder { path } => Some(path.clone()),
        ServerKind::Network { .. } => facts_of(catalogue, server).remove("datadir"),
    };
    let named = place.folder.clone().or_else(|| known.as_ref().map(PathBuf::from));
    let Some(named) = named else {
        return Err(Error::usage(format!("No backup says where '{}' has its data directory.", server.name))
            .with_next("name it: --in-place DIR"));
    };
    if place.saved.is_some() && place.folder.is_some() && !named.exists() {
        // What was there is laid back into a folder that is lost.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&named)
            .map_err(|error| Error::failed(format!("{} can't be made: {error}.", named.display())))?;
    }
    let folder = named.canonicalize().map_err(|error| {
        Error::usage(format!("{} can't be used: {error}.", named.display())).with_next(
            "run this on the server's own host, or name its data directory: --in-place DIR; a new folder is filled with --into",
        )
    })?;
    let is_known = known.is_some_and(|known| Path::new(&known).canonicalize().is_ok_and(|at| at == folder));
    refuse_foreign(catalogue, server, place, &folder, is_known)?;
    Ok(folder)
}

/// Refuses a folder that nothing says is this server's: another identity, or none and another place.
fn refuse_foreign(
    catalogue: &Catalogue,
    server: &ServerRecord,
    place: &Place,
    folder: &Path,
    is_known: bool,
) -> Result<()> {
    let shown = folder.display();
    let confirmed = match (&place.confirm, folder.file_name().and_then(|name| name.to_str())) {
        (None, _) => false,
        (Some(typed), Some(name)) if typed == name => true,
        (Some(typed), _) => {
            return Err(Error::usage(format!("'{typed}' is not the name of {shown}."))
                .with_next("--confirm takes the last part of the folder's path, so that it is meant"));
        }
    };
    let empty = is_empty(folder)?;
    if empty && place.saved.is_some() {
        return Ok(());
    }
    if empty {
        return Err(Error::usage(format!("{shown} is empty: there is nothing to save and to restore over."))
            .with_next(format!("use --into {shown}")));
    }
    let ours = Mark::read(folder).ok().flatten().is_some_and(|mark| mark.server == server.name);
    if confirmed || ours || matches!(server.kind, ServerKind::Folder { .. }) && is_known {
        return Ok(());
    }
    let next = "if it is the right one, add --confirm with the folder's own name";
    if let Some(found) = server_uuid(folder) {
        let is = |backup: &BackupRecord| backup.fact("server_uuid") == Some(found.as_str());
        let known = server.source_uuid.is_some_and(|uuid| uuid.to_string() == found);
        if known || catalogue.backups_of(server).iter().any(is) {
            return Ok(());
        }
        return Err(Error::usage(format!(
            "{shown} belongs to the server_uuid {found}, which '{}' never had.",
            server.name
        ))
        .with_next(next));
    }
    // A path alone says little: every MariaDB has its data in the same one.
    let here = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let there = facts_of(catalogue, server).remove("hostname");
    if is_known && there.is_some_and(|there| there == here.trim()) {
        return Ok(());
    }
    Err(Error::usage(format!("Nothing says that {shown} is the data directory of '{}'.", server.name))
        .with_next(next))
}

/// True for a folder with nothing in it but our lock.
pub(super) fn is_empty(folder: &Path) -> Result<bool> {
    let entries = std::fs::read_dir(folder)
        .map_err(|error| Error::failed(format!("{} can't be listed: {error}.", folder.display())))?;
    let mut names = entries.flatten().map(|entry| entry.file_name());
    Ok(!names.any(|name| name != MARK && name != MARK_LOCK))
}

/// Refuses links in the folder: what they lead to is copied, and a restore would put files in their place.
pub(super) fn refuse_links(folder: &Path) -> Result<()> {
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(dir) = waiting.pop() {
        let entries = std::fs::read_dir(&dir)
            .map_err(|error| Error::failed(format!("{} can't be listed: {error}.", dir.display())))?;
        for entry in entries.flatten() {
            let kind = entry.file_type().map_err(|error| {
                Error::failed(format!("{} can't be looked at: {error}.", entry.path().display()))
            })?;
            if kind.is_symlink() {
                return Err(Error::usage(format!("{} is a link.", entry.path().display()))
                    .with_next("restore with --into: in place, a file or folder would take its place"));
            }
            if kind.is_dir() {
                waiting.push(entry.path());
            }
        }
    }
    Ok(())
}

fn server_uuid(folder: &Path) -> Option<String> {
    let auto = std::fs::read_to_string(folder.join("auto.cnf")).ok()?;
    auto.lines().find_map(|line| Some(line.trim().strip_prefix("server-uuid=")?.trim().to_owned()))
}

/// Refuses a server that keeps a part of its data elsewhere: what is restored lies in the one folder, and a binary log of
/// the time after the target would be taken for its own.
pub(super) fn refuse_outside(facts: &HashMap<String, String>, folder: &Path) -> Result<()> {
    let datadir = facts.get("datadir").map_or(folder, |datadir| Path::new(datadir.as_str()));
    let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let whole = |value: &str| real(&folder.join(value.trim_start_matches("./")));
    for name in PLACES {
        let Some(value) =
            facts.get(name).filter(|value| !value.is_empty() && *value != "." && *value != "./")
        else {
            continue;
        };
        let at = whole(value);
        if at != real(folder) && at != real(datadir) {
            return Err(Error::usage(format!(
                "The server keeps a part of its data outside of {}: {name} is {value}.",
                folder.display()
            ))
            .with_next("restore with --into, and start the server there"));
        }
    }
    if let Some(files) = facts.get("innodb_data_file_path").filter(|files| files.contains('/')) {
        return Err(Error::usage(format!(
            "The server's system tablespace may lie outside of {}: innodb_data_file_path is {files}.",
            folder.display()
        ))
        .with_next("restore with --into, and start the server there"));
    }
    let Some(base) = facts.get("log_bin_basename").filter(|base| !base.is_empty()) else { return Ok(()) };
    let base = Path::new(base);
    let inside = base.parent().is_none_or(|at| real(at) == real(folder) || real(at) == real(datadir));
    let mut index = base.as_os_str().to_owned();
    index.push(".index");
    if base.is_absolute() && !inside && Path::new(&index).exists() {
        return Err(Error::usage(format!(
            "The binary log {} lies outside of {}: a server that is set back must not find what it wrote later.",
            base.display(),
            folder.display()
        ))
        .with_next(format!(
            "stop the server, move {0}.index and {0}.* into another folder (the archive has them), and give the same command again",
            base.display()
        )));
    }
    Ok(())
}

/// What stays in the folder though no backup has it: certificates and keys of TLS, settings that were made to last, the
/// distribution's flags, and our mark.
pub(super) fn kept(folder: &Path) -> Vec<OsString> {
    let mut kept: Vec<OsString> = vec![MARK.into(), format!("{MARK}.new").into(), MARK_LOCK.into()];
    let names = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    kept.extend(names.filter(|name| {
        let text = name.to_string_lossy();
        text.ends_with(".pem")
            || text.starts_with("debian-")
            || text == "mysqld-auto.cnf"
            || text == "lost+found"
    }));
    kept
}

/// Makes sure that no server runs on the folder: by the command that stops it, where one is given.
pub(super) fn stop(folder: &Path, place: &Place, watcher: &dyn Watcher) -> Result<()> {
    let in_use = || {
        holdfast_engine::in_use::server_at(folder).map_err(|error| {
            Error::failed(format!("{} can't be looked through for a server: {error}.", folder.display()))
        })
    };
    let Some(evidence) = in_use()? else { return Ok(()) };
    let busy = |why: &str| {
        Error::new(
            Code::Locked,
            format!("{} is in use by a running server ({evidence}){why}.", folder.display()),
        )
        .with_next("stop the server, or name the command that does: --stop-command 'systemctl stop mysql'")
    };
    let Some(command) = &place.stop_command else { return Err(busy("")) };
    watcher.reading(Reading { phase: "stop", ..Reading::default() });
    let status = std::process::Command::new("/bin/sh")
        .args(["-c", command])
        .stdin(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .status()
        .map_err(|error| {
            Error::failed(format!("The command that stops the server did not start: {error}."))
        })?;
    if !status.success() {
        return Err(busy(&format!("; the command that stops it ended with {status}")));
    }
    let deadline = Instant::now() + STOPPED_WITHIN;
    while in_use()?.is_some() {
        if watcher.cancelled() {
            return Err(Error::new(Code::Interrupted, "Waiting for the server to stop was called off."));
        }
        if Instant::now() >= deadline {
            return Err(busy("; it was told to stop, and did not in half an hour"));
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_with_data_or_a_log_elsewhere_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (folder, logs) = (dir.path().join("data"), dir.path().join("logs"));
        std::fs::create_dir(&folder).unwrap();
        std::fs::create_dir(&logs).unwrap();
        let facts = |more: &[(&str, String)]| {
            let own = [("datadir".to_owned(), format!("{}/", folder.display()))];
            own.into_iter()
                .chain(more.iter().map(|(name, value)| ((*name).to_owned(), value.clone())))
                .collect()
        };
        let text = |path: &Path| path.display().to_string();
        for fine in [
            facts(&[("innodb_undo_directory", "./".to_owned()), ("innodb_data_home_dir", String::new())]),
            facts(&[("innodb_log_group_home_dir", text(&folder))]),
            facts(&[("log_bin_basename", text(&folder.join("binlog")))]),
            // Elsewhere, and gone.
            facts(&[("log_bin_basename", text(&logs.join("binlog")))]),
        ] {
            refuse_outside(&fine, &folder).unwrap();
        }
        let undo = facts(&[("innodb_undo_directory", text(&logs))]);
        assert!(refuse_outside(&undo, &folder).unwrap_err().message.contains("innodb_undo_directory"));
        std::fs::write(logs.join("binlog.index"), "").unwrap();
        let log = facts(&[("log_bin_basename", text(&logs.join("binlog")))]);
        assert!(refuse_outside(&log, &folder).unwrap_err().message.contains("binary log"));
    }

    #[test]
    fn certificates_and_lasting_settings_stay() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["ca.pem", "mysqld-auto.cnf", "debian-11.8.flag", "auto.cnf", "ibdata1", "binlog.000001"]
        {
            std::fs::write(dir.path().join(name), "").unwrap();
        }
        let mut found: Vec<String> =
            kept(dir.path()).iter().map(|name| name.to_string_lossy().into_owned()).collect();
        found.sort();
        let ours = ["holdfast-in-place.json", "holdfast-in-place.json.new", "holdfast-in-place.lock"];
        assert_eq!(found, [&["ca.pem", "debian-11.8.flag"], &ours[..], &["mysqld-auto.cnf"]].concat());
    }
}
