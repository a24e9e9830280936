//! `backup`: one copy of a server into the repository.

use crate::archive::{Identity, drain};
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::intake::Intake;
use crate::list;
use crate::login::connect_options;
use crate::progress::{Reading, Watcher};
use crate::settings::Login;
use crate::views::BackupView;
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{self, ServerKind, ServerRecord, SourceKind};
use holdfast_source::{CloneSource, FolderSource, MariadbBackup, Outcome, Program, Source};
use holdfast_store::BackupDraft;
use std::path::{Path, PathBuf};

/// How a backup is taken.
#[derive(Clone, Debug)]
pub struct Options {
    /// Kept with the backup.
    pub note: String,
    /// Connections or files that are copied in parallel.
    pub jobs: u8,
}

/// Takes a backup of the server called `name`; it is durable when this returns.
///
/// # Errors
/// Whatever stopped the copy; nothing is listed then.
pub fn backup(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    watcher: &dyn Watcher,
) -> Result<BackupView> {
    let server = catalogue.server(name)?;
    let network = !matches!(server.kind, ServerKind::Folder { .. });
    // A stream that stopped goes on first: if the source has purged what lies between, the gap is
    // noted before this backup, and the log begins anew at it.
    if network && has_log(catalogue, &server)? {
        fetch_log(catalogue, &server, watcher);
    }
    let parent = catalogue.backups_of(&server).last().map(|b| b.id);
    let (mut source, kind) = source(catalogue, &server, options)?;
    let writer = catalogue.repository.begin_backup(parent).map_err(|e| catalogue.store_error(e))?;
    let outcome =
        source.copy(&Intake::new(&writer), &Watch(watcher)).map_err(|e| copy_error(catalogue, &server, e))?;
    let draft = draft(&server, kind, options, &outcome)?;
    let record = writer.commit(draft).map_err(|e| catalogue.store_error(e))?;
    if network && record.coordinates != record::Coordinates::None {
        fetch_log(catalogue, &server, watcher);
    }
    Ok(list::view(catalogue, &record))
}

fn has_log(catalogue: &Catalogue, server: &ServerRecord) -> Result<bool> {
    let streams = catalogue.repository.streams().map_err(|e| catalogue.store_error(e))?;
    Ok(streams.iter().any(|stream| stream.server == server.id))
}

/// Without a running `archive`, a backup takes its own stretch of log, so that it restores alone.
/// A log that can't be fetched spoils no backup.
fn fetch_log(catalogue: &Catalogue, server: &ServerRecord, watcher: &dyn Watcher) {
    // A gap that is noticed ends its stream; the second try begins a new one at this backup.
    let drained = match drain(catalogue, server, Identity::AsItIs, watcher) {
        Err(error) if error.code == Code::Failed => {
            watcher.note(&format!("warning: {}", error.message));
            drain(catalogue, server, Identity::AsItIs, watcher)
        }
        other => other,
    };
    match drained {
        Ok(_) => {}
        // An archive is running: it does the same.
        Err(error) if error.code == Code::Locked => {}
        Err(error) => watcher.note(&format!("warning: the log was not fetched: {}", error.message)),
    }
}

fn source(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
) -> Result<(Box<dyn Source>, SourceKind)> {
    if let ServerKind::Folder { path } = &server.kind {
        refuse_own_repository(Path::new(path), &catalogue.place)?;
        return Ok((Box::new(FolderSource::new(path)), SourceKind::Folder));
    }
    let login = catalogue.login(server)?;
    let connect = connect_options(&catalogue.environment, server, login.as_ref())?;
    let spool = catalogue.environment.spool.clone();
    let jobs = u32::from(options.jobs);
    Ok(match server.flavor {
        Some(Flavor::MariaDb) => {
            let program = backup_program(login.as_ref());
            (Box::new(MariadbBackup::new(connect, program, spool).parallel(jobs)), SourceKind::Xbstream)
        }
        _ => (Box::new(CloneSource::new(connect, spool).workers(jobs)), SourceKind::Clone),
    })
}

/// One word is where the program lies; several are a command of the user's own.
fn backup_program(login: Option<&Login>) -> Program {
    match login.map(|l| l.backup_command.as_slice()) {
        None | Some([]) => Program::Local(None),
        Some([program]) => Program::Local(Path::new(program).parent().map(PathBuf::from)),
        Some(words) => Program::Command(words.iter().map(Into::into).collect()),
    }
}

/// A repository inside the folder that goes into it would never end.
fn refuse_own_repository(folder: &Path, place: &Path) -> Result<()> {
    let whole = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_path_buf());
    if whole(place).starts_with(whole(folder)) {
        return Err(Error::usage(format!(
            "The repository {} lies inside the folder {} that is to be backed up.",
            place.display(),
            folder.display()
        ))
        .with_next("move the repository elsewhere"));
    }
    Ok(())
}

fn draft(
    server: &ServerRecord,
    kind: SourceKind,
    options: &Options,
    outcome: &Outcome,
) -> Result<BackupDraft> {
    let mut warnings: Vec<String> = outcome.warnings.iter().map(ToString::to_string).collect();
    warnings.extend(
        outcome
            .not_carried
            .iter()
            .map(|t| format!("the rows of {} ({}) are not in the backup: {}", t.table, t.engine, t.reason)),
    );
    Ok(BackupDraft {
        server: server.id,
        source: kind,
        coordinates: coordinates(server.flavor, &outcome.coordinates)?,
        facts: outcome.facts.clone(),
        note: options.note.clone(),
        warnings,
    })
}

fn coordinates(flavor: Option<Flavor>, found: &holdfast_source::Coordinates) -> Result<record::Coordinates> {
    use holdfast_source::Coordinates as Found;
    let position = |at: &holdfast_source::Position| position(flavor, at);
    Ok(match found {
        Found::None => record::Coordinates::None,
        Found::Exact(at) => record::Coordinates::Exact(position(at)?),
        Found::Between { lo, hi } => record::Coordinates::Between { lo: position(lo)?, hi: position(hi)? },
    })
}

/// A source's words for a position as a record's.
pub(crate) fn position(flavor: Option<Flavor>, at: &holdfast_source::Position) -> Result<record::Position> {
    let gtid = GtidSet::parse(flavor.unwrap_or(Flavor::MySql), &at.gtid).map_err(|error| {
        Error::failed(format!("The server told the GTIDs '{}', which can't be read: {error}.", at.gtid))
    })?;
    Ok(record::Position { file: at.file.clone(), offset: at.offset, gtid })
}

fn copy_error(catalogue: &Catalogue, server: &ServerRecord, error: holdfast_source::Error) -> Error {
    use holdfast_source::Error as Copy;
    match error {
        Copy::Cancelled => {
            Error::new(Code::Interrupted, format!("The backup of '{}' was stopped.", server.name))
                .with_next("nothing is listed of it; run it again")
        }
        Copy::Sink(sink) => match sink.into_inner().downcast::<holdfast_store::Error>() {
            Ok(store) => catalogue.store_error(*store),
            Err(other) => Error::failed(sentence(&other.to_string())),
        },
        Copy::Unfit { problem, remedy, .. } => {
            Error::failed(format!("'{}' can't be copied: {problem}.", server.name)).with_next(remedy)
        }
        Copy::Server(ref broken) if broken.is_network() => {
            Error::failed(format!("The backup of '{}' failed: {}", server.name, sentence(&error.to_string())))
                .with_next("check that the server runs, and its address and port; then run it again: nothing is listed of this one")
        }
        other => {
            Error::failed(format!("The backup of '{}' failed: {}", server.name, sentence(&other.to_string())))
                .with_next("nothing is listed of it; run it again")
        }
    }
}

/// The copy's watcher, told in the job's words.
struct Watch<'a>(&'a dyn Watcher);

impl holdfast_source::Watch for Watch<'_> {
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }

    fn progress(&self, now: holdfast_source::Progress) {
        self.0.reading(Reading {
            phase: now.stage.word(),
            done: now.bytes,
            total: now.bytes_expected,
            bytes: true,
        });
    }
}
