//! `import --binlogs`: the binlog files that a server left become part of its archive.

use crate::archive::archive_error;
use crate::catalogue::Catalogue;
use crate::error::{Error, Result};
use crate::list::position_words;
use crate::progress::{Reading, Watcher};
use holdfast_archive::import::{BinlogFiles, Owner, Plan, check, import};
use holdfast_archive::intake::{file_number, place};
use holdfast_archive::options::STRETCH_BYTES;
use holdfast_archive::{CopyFacts, Note, Origin};
use holdfast_format::gtid::Uuid;
use holdfast_format::record::{Coordinates, ServerKind, ServerRecord};
use serde::Serialize;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How often the watcher is asked whether to stop.
const STOP_TICK: Duration = Duration::from_millis(50);

/// How a binlog file begins, as it is or encrypted by MySQL.
const MAGICS: [[u8; 4]; 2] = [[0xfe, b'b', b'i', b'n'], [0xfd, b'b', b'i', b'n']];

/// Bytes between two readings of the progress.
const TOLD_BYTES: u64 = 1 << 20;

/// What became of binlog files.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedLogView {
    /// Files that were named.
    pub files: usize,
    /// Transactions that were added.
    pub transactions: u64,
    /// Bytes of events that were added.
    pub bytes: u64,
    /// Where the archive ended before; absent where nothing was archived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Where it ends now.
    pub until: String,
    /// Nothing was written: `--dry-run`, or all of it was archived already.
    pub unchanged: bool,
    /// What to know of it.
    pub warnings: Vec<String>,
}

/// How binlog files are imported.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogOptions {
    /// The user vouches for it that they are of this server, and of the life of its log that is archived.
    pub vouched: bool,
    /// Only say what would be done.
    pub dry_run: bool,
}

/// Makes binlog files part of the archive of the server called `name`: behind its end, or as its begin. `paths` are files,
/// or one folder that holds them. All of them are read and checked before anything is written.
///
/// # Errors
/// `Failed` with the file and the reason where they are no log without a hole that goes on where the archive ends;
/// `Locked` while it is being followed.
pub fn binlogs(
    catalogue: &Catalogue,
    name: &str,
    paths: &[PathBuf],
    options: LogOptions,
    watcher: &dyn Watcher,
) -> Result<ImportedLogView> {
    let server = catalogue.server(name)?;
    let owner = owner(&server, options)?;
    let files = Files::find(paths)?;
    let _only_follower = catalogue.repository.follow_log(server.id).map_err(|e| catalogue.store_error(e))?;
    let told = |error| told(catalogue, &server, error);
    let total = Some(files.len()?);
    let stop = AtomicBool::new(false);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = || {
            while !done.load(Ordering::Relaxed) {
                if watcher.cancelled() {
                    stop.store(true, Ordering::Relaxed);
                }
                std::thread::sleep(STOP_TICK);
            }
        };
        let ended = Ended(&done);
        let watched = std::thread::Builder::new().name("stop".to_owned()).spawn_scoped(scope, watch);
        watched.map_err(|error| Error::failed(format!("The system gives no thread: {error}.")))?;
        let read = |phase: &'static str| {
            let mut next = 0;
            move |done: u64| {
                if done >= next {
                    next = done + TOLD_BYTES;
                    watcher.reading(Reading { phase, done, total, bytes: true, limit: None });
                }
            }
        };
        let imported = || {
            let repository = &catalogue.repository;
            let origins = origins(catalogue, &server);
            let plan =
                check(repository, &owner, &files, &origins, &stop, &mut read("check")).map_err(told)?;
            let unchanged = options.dry_run || plan.is_nothing();
            if !unchanged {
                let mut note = |note: Note<'_>| {
                    if let Note::Warning(text) = note {
                        watcher.note(&format!("warning: {text}"));
                    }
                };
                let mut progress = read("import");
                import(repository, &plan, &files, STRETCH_BYTES, &stop, &mut progress, &mut note)
                    .map_err(told)?;
            }
            Ok(view(&files, &plan, unchanged))
        };
        let imported = imported();
        drop(ended);
        imported
    })
}

/// Ends the watcher, however the work ends: the scope waits for it.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn view(files: &Files, plan: &Plan, unchanged: bool) -> ImportedLogView {
    ImportedLogView {
        files: files.names.len(),
        transactions: plan.transactions,
        bytes: plan.bytes,
        from: plan.from.as_ref().map(place),
        until: position_words(&plan.until),
        unchanged,
        warnings: plan.warnings.clone(),
    }
}

fn told(catalogue: &Catalogue, server: &ServerRecord, error: holdfast_archive::Error) -> Error {
    use holdfast_archive::Error as Archive;
    match error {
        Archive::Interrupted => super::interrupted_log(),
        Archive::Import { .. } | Archive::Event { .. } | Archive::Read { .. } => {
            let error = match error {
                Archive::Event { file, source } => {
                    Error::failed(format!("The file {file} can't be imported: {source}."))
                }
                other => archive_error(catalogue, server, other),
            };
            error.with_next("nothing was written of what can't be; mend or name other files, and run the same command again")
        }
        other => archive_error(catalogue, server, other),
    }
}

fn owner(server: &ServerRecord, options: LogOptions) -> Result<Owner> {
    let name = &server.name;
    if matches!(server.kind, ServerKind::Folder { .. }) {
        return Err(Error::usage(format!("'{name}' is a folder, which has no log."))
            .with_next("add the server itself under a name of its own: holdfast server add"));
    }
    let known = server.source_uuid.zip(server.flavor);
    let Some((source_uuid, flavor)) = known else {
        return Err(Error::usage(format!("It is not known yet which server '{name}' is."))
            .with_next(format!("let it be asked once: holdfast doctor {name}")));
    };
    Ok(Owner { server: server.id, source_uuid, flavor, vouched: options.vouched })
}

/// Where backups of the server stand.
fn origins(catalogue: &Catalogue, server: &ServerRecord) -> Vec<Origin> {
    let backups = catalogue.backups_of(server);
    let origin = |backup: &holdfast_format::record::BackupRecord| {
        // The files of two servers have the same names.
        let of = backup.fact("server_uuid").and_then(|uuid| uuid.parse::<Uuid>().ok());
        if of.is_some_and(|uuid| Some(uuid) != server.source_uuid) {
            return None;
        }
        let at = match &backup.coordinates {
            Coordinates::None => return None,
            Coordinates::Exact(at) | Coordinates::Between { lo: at, .. } => at.clone(),
        };
        // The copy of a replica names no file of the source.
        if at.file.is_empty() {
            return None;
        }
        Some(Origin { at, mark: CopyFacts::of(backup).mark })
    };
    backups.iter().filter_map(origin).collect()
}

/// Files on this host.
struct Files {
    names: Vec<String>,
    paths: Vec<PathBuf>,
}

impl Files {
    /// Those that are named, or those of one log in the folder that is named, oldest first.
    fn find(paths: &[PathBuf]) -> Result<Self> {
        let mut found: Vec<PathBuf> = match paths {
            [folder] if folder.is_dir() => {
                let cant = |e: io::Error| Error::usage(format!("{} can't be read: {e}.", folder.display()));
                let mut inside = Vec::new();
                for entry in std::fs::read_dir(folder).map_err(cant)? {
                    let path = entry.map_err(cant)?.path();
                    if number_of(&path).is_some() && begins_as_one(&path) {
                        inside.push(path);
                    }
                }
                if inside.is_empty() {
                    return Err(Error::usage(format!("There is no binlog file in {}.", folder.display()))
                        .with_next("name files such as binlog.000001; packed ones must be unpacked first"));
                }
                inside
            }
            files => files.to_vec(),
        };
        found.sort_by_key(|path| number_of(path));
        let mut names = Vec::new();
        for path in &found {
            let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
                return Err(Error::usage(format!("{} has no name that can be read.", path.display())));
            };
            names.push(name.to_owned());
        }
        let base = |name: &String| name.rsplit_once('.').map(|(base, _)| base.to_owned());
        if let Some(pair) = names.windows(2).find(|pair| pair.first().map(base) != pair.last().map(base)) {
            return Err(Error::usage(format!("There are files of several logs: {}.", pair.join(", ")))
                .with_next("name those of one log"));
        }
        Ok(Self { names, paths: found })
    }

    /// Bytes of all.
    fn len(&self) -> Result<u64> {
        let len = |path: &PathBuf| {
            let facts = std::fs::metadata(path);
            facts
                .map(|facts| facts.len())
                .map_err(|e| Error::usage(format!("{} can't be read: {e}.", path.display())))
        };
        self.paths.iter().map(len).sum()
    }
}

fn number_of(path: &Path) -> Option<u64> {
    file_number(path.file_name()?.to_str()?)
}

fn begins_as_one(path: &Path) -> bool {
    let mut magic = [0; 4];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut magic));
    read.is_ok() && MAGICS.contains(&magic)
}

impl BinlogFiles for Files {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, place: usize, offset: u64) -> io::Result<Box<dyn Read + '_>> {
        let path = self.paths.get(place).ok_or(io::ErrorKind::NotFound)?;
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_gives_the_files_of_its_log_by_their_numbers() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
        for name in ["binlog.000010", "binlog.000009", "binlog.1000000"] {
            put(name, b"\xfebin....");
        }
        put("binlog.index", b"./binlog.000009\n");
        put("mysqld.123", b"123\n");
        let named = |paths: &[PathBuf]| Files::find(paths).map(|files| files.names);
        let folder = [dir.path().to_path_buf()];
        assert_eq!(named(&folder).unwrap(), ["binlog.000009", "binlog.000010", "binlog.1000000"]);
        put("relay.000001", b"\xfebin....");
        let error = named(&folder).unwrap_err();
        assert!(error.message.contains("several logs"), "{}", error.message);
        let both = ["binlog.000010", "binlog.000009"].map(|name| dir.path().join(name));
        assert_eq!(named(&both).unwrap(), ["binlog.000009", "binlog.000010"]);
        assert!(
            named(&[dir.path().join("no").join("binlog.000001")]).is_ok(),
            "whether it is there is seen later"
        );
        let empty = tempfile::tempdir().unwrap();
        assert!(named(&[empty.path().to_path_buf()]).unwrap_err().message.contains("no binlog file"));
    }
}
