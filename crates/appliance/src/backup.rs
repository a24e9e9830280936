//! `backup`: one copy of a server into the repository.

use crate::archive::{Role, archive_error, drain, end_of_log, same_server, server_id};
use crate::catalogue::{Catalogue, sentence};
use crate::copy_from::{self, CopyFrom, Joint, NoCopy, Origin, PASSED_FACT};
use crate::error::{Code, Error, Result};
use crate::intake::Intake;
use crate::list;
use crate::login::{self, connect_options};
use crate::own::{self, NAME_FACT, Own};
use crate::progress::{Reading, Watcher};
use crate::rate::Rate;
use crate::settings::Login;
use crate::time;
use crate::views::BackupView;
use holdfast_archive::mark::FACT;
use holdfast_archive::{CopyFacts, FileMark};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{self, BackupRecord, ServerKind, ServerRecord, SourceKind};
use holdfast_mysql::ConnectOptions;
use holdfast_source::{CloneSource, FolderSource, MariadbBackup, Outcome, Program, Source};
use holdfast_store::{BackupDraft, BackupWriter, VerifyWrite};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a warning begins that names a table whose rows a backup does not hold.
pub(crate) const LACKING: &str = "the rows of ";

/// How a backup is taken.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Kept with the backup.
    pub note: String,
    /// Connections or files that are copied in parallel.
    pub jobs: u8,
    /// Read every file of a folder, also those that are as the last backup has them.
    pub force: bool,
    /// Decode one frame of sixteen back before the backup is acknowledged, in place of all of them.
    pub verify_sample: bool,
    /// Kept with the backup, so that a daemon that died after the commit finds its job done: see [`taken_by`].
    pub job: Option<String>,
    /// The source is read no faster than this; shared with whoever else reads.
    pub rate: Option<Arc<Rate>>,
    /// Its name, its own date, its hold.
    pub own: Own,
    /// Replicas to copy from in place of the server itself.
    pub copy_from: Option<CopyFrom>,
}

/// Name of the fact that [`Options::job`] is kept under.
const JOB_FACT: &str = "holdfast.job";

/// The backup that was taken for this job, if its commit was reached.
///
/// # Errors
/// When the repository can't be read.
pub fn taken_by(catalogue: &Catalogue, job: &str) -> Result<Option<BackupView>> {
    catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
    let backups = catalogue.repository.backups();
    Ok(backups.iter().rev().find(|b| b.fact(JOB_FACT) == Some(job)).map(|b| list::view(catalogue, b)))
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
    options.own.check()?;
    let server = catalogue.server(name)?;
    own::refuse_taken(catalogue, server.id, &options.own)?;
    let network = !matches!(server.kind, ServerKind::Folder { .. });
    // A stream that stopped goes on first: if the source has purged what lies between, the gap is
    // noted before this backup, and the log begins anew at it.
    if network {
        let login = catalogue.login(&server)?;
        let connect = connect_options(&catalogue.environment, &server, login.as_ref())?;
        let (conn, _) = same_server(catalogue, &server, &connect)?;
        // The connection served its purpose; a failure to say goodbye changes nothing.
        let _ = conn.close();
    }
    let mut told = None;
    // A replica's copy stands in the log by its GTIDs alone, so the log has to begin before it.
    if network && (options.copy_from.is_some() || has_log(catalogue, &server)?) {
        told = fetch_log(catalogue, &server, None, 1, watcher);
    }
    let take = |passed| take(catalogue, &server, options, passed, told.as_deref(), watcher);
    let record = match &options.copy_from {
        Some(hosts) => hosts.first(catalogue, &server, watcher, &mut |origin| match origin {
            Origin::Server { passed } => Ok(take(passed)?),
            Origin::Replica(replica) => take_of_replica(catalogue, &server, options, &replica, watcher),
        })?,
        None => take(None)?,
    };
    Ok(list::view(catalogue, &record))
}

/// Copies the server itself.
fn take(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
    passed: Option<String>,
    told: Option<&str>,
    watcher: &dyn Watcher,
) -> Result<BackupRecord> {
    let network = !matches!(server.kind, ServerKind::Folder { .. });
    let life = if network { Life::now(catalogue, server, watcher) } else { None };
    let (mut source, kind) = source(catalogue, server, options)?;
    let (writer, outcome) =
        copied(catalogue, server, options, source.as_mut(), watcher).map_err(NoCopy::into_error)?;
    let mut draft = draft(server, kind, options, &outcome)?;
    if let Some(life) = life {
        let mark = life.still(&draft.coordinates, watcher)?;
        draft.facts.extend(mark.map(|mark| (FACT.to_owned(), mark.to_string())));
    }
    draft.facts.extend(passed.map(|why| (PASSED_FACT.to_owned(), why)));
    let record = commit(catalogue, server, writer, draft, watcher)?;
    if network && record.coordinates != record::Coordinates::None {
        fetch_log(catalogue, server, told, 2, watcher);
    }
    Ok(record)
}

/// Copies a replica of it. Nothing is committed before the copy is known to stand in the server's log.
fn take_of_replica(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
    replica: &copy_from::Replica,
    watcher: &dyn Watcher,
) -> std::result::Result<BackupRecord, NoCopy> {
    let life = Life::look(catalogue, server).map_err(NoCopy::of_this_one)?.ok_or_else(|| {
        NoCopy::OfThisOne(Error::failed(format!("The binary log of '{}' is off.", server.name)))
    })?;
    let facts = CopyFacts {
        taken_us: time::now(),
        source: server.source_uuid,
        mark: Some(life.mark.clone()),
        of_replica: true,
    };
    let joint = Joint { catalogue, server, facts, end: (life.mark.file.clone(), life.end) };
    joint.is_possible(&replica.began(), watcher)?;
    let mut source = CloneSource::new(replica.connect.clone(), catalogue.environment.spool.clone())
        .workers(u32::from(options.jobs));
    let (writer, mut outcome) = copied(catalogue, server, options, &mut source, watcher)?;
    replica.is_copied(&outcome.facts).map_err(NoCopy::of_this_one)?;
    let coordinates = replica.coordinates().map_err(NoCopy::of_this_one)?;
    let end = life.end_now(server).map_err(NoCopy::of_this_one)?;
    joint.holds(&coordinates, &end, watcher)?;
    life.unchanged(catalogue, server)?;
    outcome.facts = replica.facts(outcome.facts);
    outcome.facts.push((FACT.to_owned(), life.mark.to_string()));
    // Positions in the replica's own files are none in the server's log.
    outcome.coordinates = holdfast_source::Coordinates::None;
    let draft = BackupDraft { coordinates, ..draft(server, SourceKind::Clone, options, &outcome)? };
    Ok(commit(catalogue, server, writer, draft, watcher)?)
}

fn copied(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
    source: &mut dyn Source,
    watcher: &dyn Watcher,
) -> std::result::Result<(BackupWriter, Outcome), NoCopy> {
    let parent = catalogue.backups_of(server).last().map(|b| b.id);
    let verify = if options.verify_sample { VerifyWrite::Sample } else { VerifyWrite::Full };
    let writer = catalogue.repository.begin_backup_verified(parent, verify);
    let writer = writer.map_err(|e| catalogue.store_error(e))?;
    let intake = Intake::new(&writer).at_rate(options.rate.as_deref(), watcher);
    let outcome = source.copy(&intake, &Watch(watcher)).map_err(|error| {
        let of_ours = matches!(error, holdfast_source::Error::Sink(_) | holdfast_source::Error::Cancelled);
        let told = copy_error(catalogue, server, error);
        if of_ours { NoCopy::OfAny(told) } else { NoCopy::of_this_one(told) }
    })?;
    Ok((writer, outcome))
}

fn commit(
    catalogue: &Catalogue,
    server: &ServerRecord,
    writer: BackupWriter,
    draft: BackupDraft,
    watcher: &dyn Watcher,
) -> Result<BackupRecord> {
    // The last moment at which a wish to stop is heeded: what is committed is listed.
    if watcher.cancelled() {
        return Err(copy_error(catalogue, server, holdfast_source::Error::Cancelled));
    }
    writer.commit_unique(draft, NAME_FACT).map_err(|e| match e {
        holdfast_store::Error::FactTaken { value, by } => own::taken(&value, by),
        other => catalogue.store_error(other),
    })
}

/// In which life of the source's log a copy is taken: what is known before it begins, and holds at its end.
struct Life {
    connect: ConnectOptions,
    server_id: u32,
    mark: FileMark,
    /// The offset in that file at which it ended.
    end: u64,
}

impl Life {
    /// Nothing for a server without a log, or with one that can't be read: then times alone tell lives apart.
    fn now(catalogue: &Catalogue, server: &ServerRecord, watcher: &dyn Watcher) -> Option<Self> {
        match Self::look(catalogue, server) {
            Ok(life) => life,
            Err(error) => {
                watcher.note(&format!("warning: the log's identity could not be read: {}", error.message));
                None
            }
        }
    }

    fn look(catalogue: &Catalogue, server: &ServerRecord) -> Result<Option<Self>> {
        let login = catalogue.login(server)?;
        let connect = connect_options(&catalogue.environment, server, login.as_ref())?;
        let mut conn = login::connect(&connect, &server.name)?;
        if conn.query_text("SELECT @@GLOBAL.log_bin").is_ok_and(|on| on.as_deref() == Some("0")) {
            return Ok(None);
        }
        let (file, end) = end_of_log(&mut conn, server)?;
        // The connection served its purpose; a failure to say goodbye changes nothing.
        let _ = conn.close();
        let server_id = server_id(catalogue, server, Role::Mark);
        let mark = FileMark::of_source(&connect, server_id, &file)
            .map_err(|error| Error::failed(sentence(&error.to_string())))?;
        Ok(Some(Self { connect, server_id, mark, end }))
    }

    /// File and offset at which the log ends by now.
    fn end_now(&self, server: &ServerRecord) -> Result<(String, u64)> {
        let mut conn = login::connect(&self.connect, &server.name)?;
        let end = end_of_log(&mut conn, server)?;
        // The connection served its purpose; a failure to say goodbye changes nothing.
        let _ = conn.close();
        Ok(end)
    }

    /// Whether it is the same log still, in which a replica's copy stands. The file in which it ended then may be purged by
    /// now: the archive, which was brought up to date, holds it.
    fn unchanged(&self, catalogue: &Catalogue, server: &ServerRecord) -> std::result::Result<(), NoCopy> {
        let of_this_one = |why: String| NoCopy::OfThisOne(Error::failed(why));
        match FileMark::of_source(&self.connect, self.server_id, &self.mark.file) {
            Ok(now) if now == self.mark => return Ok(()),
            Ok(_) => {
                return Err(of_this_one(
                    "The server's log was reset while its replica was copied.".to_owned(),
                ));
            }
            Err(error) if self.is_there(server).map_err(NoCopy::of_this_one)? => {
                return Err(of_this_one(sentence(&error.to_string())));
            }
            Err(_) => {}
        }
        let told = |e| archive_error(catalogue, server, e);
        for stream in catalogue.repository.streams().map_err(|e| catalogue.store_error(e))? {
            let of_archive = || FileMark::of_archive(&catalogue.repository, &stream, &self.mark.file);
            if stream.server == server.id && of_archive().map_err(told)?.as_ref() == Some(&self.mark) {
                return Ok(());
            }
        }
        Err(of_this_one(format!(
            "The server purged {} while its replica was copied, and the archive does not hold where it begins.",
            self.mark.file
        )))
    }

    /// Whether the server has the file still in which its log ended then.
    fn is_there(&self, server: &ServerRecord) -> Result<bool> {
        let mut conn = login::connect(&self.connect, &server.name)?;
        let files = conn.query("SHOW BINARY LOGS").map_err(|e| Error::failed(sentence(&e.to_string())))?;
        // As above.
        let _ = conn.close();
        Ok((0..files.rows.len()).any(|row| files.text(row, 0).as_deref() == Some(self.mark.file.as_str())))
    }

    /// The mark of the file in which the copy stands. A log that was reset meanwhile has another one, and the copy
    /// could stand in either; such a copy is refused.
    fn still(&self, coordinates: &record::Coordinates, watcher: &dyn Watcher) -> Result<Option<FileMark>> {
        let file = match coordinates {
            record::Coordinates::None => return Ok(None),
            record::Coordinates::Exact(at) | record::Coordinates::Between { lo: at, .. } => &at.file,
        };
        let read = |file: &str| FileMark::of_source(&self.connect, self.server_id, file);
        let marks = read(file).and_then(|mark| {
            let first = if *file == self.mark.file { mark.clone() } else { read(&self.mark.file)? };
            Ok((mark, first))
        });
        match marks {
            Ok((mark, first)) if first == self.mark => Ok(Some(mark)),
            Ok(_) => Err(Error::failed("The source's log was reset while it was copied.")
                .with_next("nothing is listed of this backup; run it again")),
            Err(error) => {
                watcher.note(&format!("warning: the log's identity could not be read again: {error}"));
                Ok(None)
            }
        }
    }
}

fn has_log(catalogue: &Catalogue, server: &ServerRecord) -> Result<bool> {
    let streams = catalogue.repository.streams().map_err(|e| catalogue.store_error(e))?;
    Ok(streams.iter().any(|stream| stream.server == server.id))
}

/// Without a running `archive`, a backup takes its own stretch of log, so that it restores alone.
/// A log that can't be fetched spoils no backup. Gives what was told about it.
///
/// `known` was told before the copy. A gap that is noticed only now ends its stream, and a second try begins a new one
/// at this backup.
fn fetch_log(
    catalogue: &Catalogue,
    server: &ServerRecord,
    known: Option<&str>,
    tries: u32,
    watcher: &dyn Watcher,
) -> Option<String> {
    let mut told = known.map(str::to_owned);
    for _ in 0..tries {
        match drain(catalogue, server, watcher) {
            Ok(_) => return None,
            // An archive is running: it does the same.
            Err(error) if error.code == Code::Locked => return None,
            Err(error) => {
                if told.as_ref() != Some(&error.message) {
                    watcher.note(&format!("warning: {}", error.message));
                }
                told = Some(error.message);
            }
        }
    }
    told
}

fn source(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &Options,
) -> Result<(Box<dyn Source>, SourceKind)> {
    if let ServerKind::Folder { path } = &server.kind {
        refuse_own_repository(Path::new(path), &catalogue.place)?;
        return Ok((Box::new(FolderSource::new(path).force(options.force)), SourceKind::Folder));
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
pub(crate) fn refuse_own_repository(folder: &Path, place: &Path) -> Result<()> {
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

pub(crate) fn draft(
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
            .map(|t| format!("{LACKING}{} ({}) are not in the backup: {}", t.table, t.engine, t.reason)),
    );
    let mut facts = outcome.facts.clone();
    facts.extend(options.job.iter().map(|job| (JOB_FACT.to_owned(), job.clone())));
    facts.extend(options.own.facts(&options.note));
    Ok(BackupDraft {
        server: server.id,
        source: kind,
        coordinates: coordinates(server.flavor, &outcome.coordinates)?,
        facts,
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

pub(crate) fn copy_error(
    catalogue: &Catalogue,
    server: &ServerRecord,
    error: holdfast_source::Error,
) -> Error {
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
pub(crate) struct Watch<'a>(pub(crate) &'a dyn Watcher);

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
            limit: None,
        });
    }
}
