//! A data directory as of any moment: a restore that is handed over at once, with nothing of ours left in it.

use super::whole_file::UNFINISHED;
use super::{Destination, tar};
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::progress::{Reading, Watcher};
use crate::restore::{self, Options, RestoredView};
use holdfast_io::RealDisk;
use holdfast_mysql::ServerVersion;
use holdfast_restore::marker::Marker;
use holdfast_restore::origin::ORIGIN;
use holdfast_restore::run::SERVER_LOG;
use holdfast_restore::source_settings;
use serde::Serialize;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// An exported data directory.
#[derive(Clone, Debug, Serialize)]
pub struct DatadirView {
    /// The folder, or the archive file; none for an archive that went to standard output.
    pub into: Option<String>,
    /// The source's settings that a server needs to open the folder as the source did.
    pub options: Vec<String>,
    /// The version that the server must have; none for a folder that is no server's.
    pub version: Option<String>,
    /// The restore that it is, with its proof.
    pub restored: RestoredView,
}

/// Restores into `options.into`, proves it, and takes away what is ours. With `tar`, the folder is only worked in, and is
/// gone at the end.
///
/// # Errors
/// As [`restore::restore`]; `Usage` when the archive file exists, or the folder holds something.
pub fn datadir(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    tar: Option<Destination<'_>>,
    watcher: &dyn Watcher,
) -> Result<DatadirView> {
    if let Some(Destination::File(file)) = &tar {
        // A restore takes its time: what would stop the archive is said before it.
        if let Some(taken) = [file.clone(), part_of(file)].iter().find(|path| path.exists()) {
            return Err(Error::usage(format!("{} is there already.", taken.display())).with_next(
                "name a file that does not exist yet; remove what an export that was killed left",
            ));
        }
    }
    let restored = restore::restore(catalogue, name, options, watcher)?;
    let folder = &options.into;
    let handed = |e: holdfast_restore::Error| Error::failed(sentence(&e.to_string()));
    // A folder that is no server's was handed over by the restore itself.
    if Marker::read(folder).map_err(handed)?.is_some() {
        restore::finish(folder, options.engine_dir.as_deref())?;
    }
    for ours in [SERVER_LOG, ORIGIN] {
        match fs::remove_file(folder.join(ours)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(cant("clear", folder, &error));
            }
            _ => {}
        }
    }
    File::open(folder).and_then(|dir| dir.sync_all()).map_err(|e| cant("sync", folder, &e))?;
    let mut view = DatadirView {
        into: Some(folder.display().to_string()),
        options: settings(catalogue, name, &restored)?,
        version: restored.report.plan.version.clone(),
        restored,
    };
    let Some(tar) = tar else { return Ok(view) };
    view.into = match tar {
        Destination::Stream(out) => {
            archive(folder, out, watcher)?;
            None
        }
        Destination::File(file) => {
            to_file(folder, &file, watcher)?;
            Some(file.display().to_string())
        }
    };
    fs::remove_dir_all(folder).map_err(|e| cant("remove", folder, &e))?;
    Ok(view)
}

/// The settings of the source that the backup knows, as options.
pub(crate) fn settings(catalogue: &Catalogue, name: &str, restored: &RestoredView) -> Result<Vec<String>> {
    let plan = &restored.report.plan;
    let Some(version) = plan.version.as_deref().map(ServerVersion::parse) else { return Ok(Vec::new()) };
    let backups = catalogue.backups_of(&catalogue.server(name)?);
    let base = backups.iter().find(|backup| backup.id.to_string() == plan.base);
    Ok(base.map_or_else(Vec::new, |base| source_settings(|key| base.fact(key), version.flavor)))
}

fn cant(doing: &str, path: &Path, error: &io::Error) -> Error {
    Error::failed(format!("Can't {doing} {}: {error}.", path.display()))
}

/// The name of an archive that is not whole yet.
fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(UNFINISHED);
    part.into()
}

fn to_file(folder: &Path, file: &Path, watcher: &dyn Watcher) -> Result<()> {
    let part = part_of(file);
    let made = File::options().write(true).create_new(true).mode(0o600).open(&part);
    let mut out = made.map_err(|e| cant("make", &part, &e))?;
    archive(folder, &mut out, watcher)?;
    out.sync_all().map_err(|e| cant("sync", &part, &e))?;
    let disk = RealDisk::shared();
    disk.rename_noreplace(&part, file)
        .and_then(|()| disk.sync_dir(&holdfast_io::durable::folder_of(file)))
        .map_err(|e| Error::failed(sentence(&e.to_string())))
}

fn archive(folder: &Path, out: &mut dyn Write, watcher: &dyn Watcher) -> Result<()> {
    let (mut out, mut done) = (BufWriter::with_capacity(1 << 20, out), 0);
    let written = tar::write(folder, &mut out, &mut |bytes| {
        done += bytes;
        watcher.reading(Reading { phase: "tar", done, bytes: true, ..Reading::default() });
        !watcher.cancelled()
    });
    match written.and_then(|_| out.flush()) {
        Err(error) if watcher.cancelled() && error.kind() == io::ErrorKind::Interrupted => Err(Error::new(
            Code::Interrupted,
            format!("The export was interrupted; {} holds the restored server.", folder.display()),
        )
        .with_next("remove the folder and what is there of the archive, and run the same command again")),
        Err(error) => Err(Error::failed(format!("The archive can't be written: {error}.")).with_next(
            format!("{} holds the restored server: remove it before you try again", folder.display()),
        )),
        Ok(()) => Ok(()),
    }
}
