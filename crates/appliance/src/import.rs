//! `import`: a dump that another tool made becomes a backup; binlog files that a server left become part of its archive
//! (`binlogs.rs`).
//!
//! Loaded into a private server, which is shut down cleanly; its data directory is the backup, from which everything else
//! goes on as from any other. One record in the manifest makes it one: before it nothing is listed, and the same command
//! begins again.

mod binlogs;
mod load;
mod mydumper;
mod position;
mod reach;
mod words;

use crate::backup::Watch;
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::intake::Intake;
use crate::list;
use crate::progress::{Reading, Watcher};
use crate::scratch::Scratch;
use crate::views::BackupView;
pub use binlogs::{ImportedLogView, LogOptions, binlogs};
use holdfast_archive::mark::FACT as MARK;
use holdfast_archive::{FileMark, Indexed, ServerLog, Target};
use holdfast_engine::{PrivateServer, Programs, StartOptions};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{
    BackupRecord, Coordinates, IMPORTED_FACT, Position, ServerKind, ServerRecord, SourceKind,
};
use holdfast_mysql::{Conn, Flavor as Family, ServerVersion};
use holdfast_restore::run::SHUTDOWN_LIMIT;
use holdfast_source::{FolderSource, Source};
use holdfast_store::{BackupDraft, VerifyWrite};
use load::Loaded;
use position::Told;
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Was the backup imported? Then it is none of those that the schedule takes and retention counts.
#[must_use]
pub fn is_imported(backup: &BackupRecord) -> bool {
    backup.fact(IMPORTED_FACT).is_some()
}

/// The longest statement that is read: the servers' largest `max_allowed_packet`.
const STATEMENT_BYTES_MAX: usize = 1 << 30;

/// How a dump is imported.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Where the server's programs are.
    pub engine_dir: Option<PathBuf>,
    /// Folder to work in; one of our own in the spool without it.
    pub scratch: Option<PathBuf>,
    /// Kept with the backup.
    pub note: String,
    /// The user says that it is of the whole server, at the position that it names.
    pub whole: bool,
}

/// An imported dump.
#[derive(Clone, Debug, Serialize)]
pub struct ImportedView {
    /// The backup that it is now.
    pub backup: BackupView,
    /// Statements that were carried out.
    pub statements: u64,
    /// Bytes of the script, before it was compressed.
    pub bytes: u64,
    /// Where in the server's log it stands, if that is known.
    pub position: Option<String>,
    /// What to know of it.
    pub warnings: Vec<String>,
}

/// A dump as its program wrote it.
enum Given {
    /// One script of SQL.
    Script(load::Input),
    /// A folder of mydumper's.
    Folder(mydumper::Folder),
}

impl Given {
    fn open(path: &Path) -> Result<Self> {
        match path.is_dir() {
            true => Ok(Self::Folder(mydumper::Folder::open(path)?)),
            false => Ok(Self::Script(load::Input::open(path)?)),
        }
    }

    /// Does it say that it is of MariaDB?
    fn is_mariadb(&mut self) -> bool {
        match self {
            Self::Script(input) => input.is_mariadb(),
            Self::Folder(_) => false,
        }
    }
}

/// Imports the script in the file `dump`, or the folder of mydumper's, as a backup of the server called `name`; it is durable
/// when this returns.
///
/// # Errors
/// `Failed` with file, line and statement where the server refuses one; `Usage` where no server program fits.
pub fn dump(
    catalogue: &Catalogue,
    name: &str,
    dump: &Path,
    options: &Options,
    watcher: &dyn Watcher,
) -> Result<ImportedView> {
    let server = catalogue.server(name)?;
    let mut given = Given::open(dump)?;
    let programs = programs(&server, given.is_mariadb(), options)?;
    let place = match &options.scratch {
        Some(scratch) => scratch.clone(),
        None => {
            let id: String = server.id.0.iter().map(|byte| format!("{byte:02x}")).collect();
            catalogue.environment.spool.join(format!("holdfast-import-{id}"))
        }
    };
    let scratch = Scratch::take(&place)?;
    scratch.clear_data()?;
    let done = import(catalogue, &server, (dump, given), (&programs, &scratch), options, watcher);
    // Why it failed matters more than that its folder stays.
    let cleared = scratch.clear();
    let view = done?;
    cleared?;
    Ok(view)
}

fn told(error: &dyn std::error::Error) -> Error {
    Error::failed(sentence(&error.to_string()))
}

fn interrupted() -> Error {
    Error::new(Code::Interrupted, "The import was interrupted.")
        .with_next("nothing is listed of it; run the same command again")
}

fn interrupted_log() -> Error {
    Error::new(Code::Interrupted, "The import was interrupted.")
        .with_next("what came so far is archived; run the same command again, and it goes on there")
}

/// The programs of the server's own series, or of the family that the dump's head names.
fn programs(server: &ServerRecord, mariadb: bool, options: &Options) -> Result<Programs> {
    let wanted = Some(server.version.as_str()).filter(|text| !text.is_empty()).map(ServerVersion::parse);
    let family = match (server.flavor, mariadb) {
        (Some(Flavor::MariaDb), _) | (None, true) => Family::MariaDb,
        _ => Family::MySql,
    };
    let wanted = wanted.filter(|version| version.flavor == family);
    Programs::find(options.engine_dir.as_deref(), family, wanted.as_ref()).map_err(|error| {
        Error::usage(sentence(&error.to_string())).with_next(
            "name the folder of a server of that version with --engine-dir; tools/get-server unpacks one",
        )
    })
}

fn import(
    catalogue: &Catalogue,
    server: &ServerRecord,
    (dump, given): (&Path, Given),
    (programs, scratch): (&Programs, &Scratch),
    options: &Options,
    watcher: &dyn Watcher,
) -> Result<ImportedView> {
    let data = scratch.data();
    watcher.reading(Reading { phase: "prepare", ..Reading::default() });
    holdfast_engine::initialize(programs, &data, &scratch.path("initialize.log")).map_err(|e| told(&e))?;
    let mut start = StartOptions::new(programs.clone(), &data);
    start.purpose = "the server that the dump is loaded into".to_owned();
    start.log = Some(scratch.path("server.log"));
    start.extra_args = vec![
        format!("--max-allowed-packet={STATEMENT_BYTES_MAX}"),
        // Nothing counts before it was shut down cleanly, and is copied.
        "--innodb-flush-log-at-trx-commit=0".to_owned(),
        "--innodb-doublewrite=OFF".to_owned(),
        "--character-set-server=utf8mb4".to_owned(),
    ];
    let private =
        PrivateServer::start_while(start, &|| !watcher.cancelled()).map_err(|error| match error {
            holdfast_engine::Error::Cancelled { .. } => interrupted(),
            other => told(&other),
        })?;
    // Before any statement of the dump runs there, with all rights.
    private.network_remark().iter().for_each(|remark| watcher.note(remark));
    let mut conn = private.connect().map_err(|e| told(&e))?;
    conn.set_read_timeout(load::STATEMENT_TIME_MAX);
    let loaded = match given {
        Given::Script(input) => load::load(&mut conn, input, watcher)?,
        Given::Folder(folder) => folder.load(&mut conn, watcher)?,
    };
    let mut warnings = loaded.warnings();
    let at = position(catalogue, server, programs.flavor(), &loaded, options.whole, &mut warnings)?;
    let facts = settle(&mut conn, at.as_ref(), &loaded)?;
    private.drop_account(&mut conn).map_err(|e| told(&e))?;
    drop(conn);
    watcher.reading(Reading { phase: "shut down", ..Reading::default() });
    private.stop(SHUTDOWN_LIMIT).map_err(|e| told(&e))?;
    // A server that is restored from it gives itself an identity of its own.
    match std::fs::remove_file(data.join("auto.cnf")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(told(&error)),
        _ => {}
    }
    let words = at.as_ref().map(list::position_words);
    let mark = at.as_ref().and_then(|at| mark(catalogue, server, at));
    let file = dump.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut draft = BackupDraft {
        server: server.id,
        source: SourceKind::Folder,
        coordinates: at.map_or(Coordinates::None, Coordinates::Exact),
        facts,
        note: if options.note.is_empty() { format!("imported from {file}") } else { options.note.clone() },
        warnings: warnings.clone(),
    };
    draft.facts.push((IMPORTED_FACT.to_owned(), file));
    draft.facts.extend(mark.map(|mark| (MARK.to_owned(), mark)));
    let writer = catalogue.repository.begin_backup_verified(None, VerifyWrite::Full);
    let writer = writer.map_err(|e| catalogue.store_error(e))?;
    let copied = FolderSource::new(&data).copy(&Intake::new(&writer), &Watch(watcher));
    match copied {
        Ok(_) => {}
        Err(holdfast_source::Error::Cancelled) => return Err(interrupted()),
        Err(holdfast_source::Error::Sink(sink)) => {
            return Err(match sink.into_inner().downcast::<holdfast_store::Error>() {
                Ok(store) => catalogue.store_error(*store),
                Err(other) => Error::failed(sentence(&other.to_string())),
            });
        }
        Err(other) => return Err(told(&other)),
    }
    // The last moment at which a wish to stop is heeded: what is committed is listed.
    if watcher.cancelled() {
        return Err(interrupted());
    }
    let record = writer.commit(draft).map_err(|e| catalogue.store_error(e))?;
    Ok(ImportedView {
        backup: list::view(catalogue, &record),
        statements: loaded.statements,
        bytes: loaded.bytes,
        position: words,
        warnings,
    })
}

/// Sets the GTIDs that the dump names, and asks for what a server needs to start on the folder.
fn settle(conn: &mut Conn, at: Option<&Position>, loaded: &Loaded) -> Result<Vec<(String, String)>> {
    let mariadb = conn.server().is_mariadb();
    let gtid_mode = match mariadb {
        true => String::new(),
        false => conn.query_text("SELECT @@GLOBAL.gtid_mode").map_err(|e| told(&e))?.unwrap_or_default(),
    };
    let mut sql = |statement: &str| {
        conn.execute(statement)
            .map_err(|error| Error::failed(format!("The private server refuses \"{statement}\": {error}.")))
    };
    // The script may have left the session in any state.
    sql("UNLOCK TABLES")?;
    sql("SET SESSION sql_mode = ''")?;
    if let Some(gtids) = at.map(|at| at.gtid.to_string()).filter(|gtids| !gtids.is_empty()) {
        if mariadb {
            sql(&format!("SET GLOBAL gtid_slave_pos = '{gtids}'"))?;
        } else {
            sql("SET GLOBAL enforce_gtid_consistency = ON")?;
            // One step at a time, from where it stands.
            const STEPS: [&str; 4] = ["OFF", "OFF_PERMISSIVE", "ON_PERMISSIVE", "ON"];
            let at = STEPS.iter().position(|step| *step == gtid_mode).unwrap_or_default();
            for mode in STEPS.iter().skip(at + 1) {
                sql(&format!("SET GLOBAL gtid_mode = {mode}"))?;
            }
            sql(&format!("SET GLOBAL gtid_purged = '{gtids}'"))?;
        }
    }
    let mut names = vec![
        "version",
        "innodb_page_size",
        "innodb_data_file_path",
        "lower_case_table_names",
        "character_set_server",
        "collation_server",
    ];
    names.push(if mariadb { "innodb_undo_tablespaces" } else { "gtid_mode" });
    if !mariadb {
        names.push("enforce_gtid_consistency");
    }
    let mut facts = vec![("source".to_owned(), "import".to_owned())];
    for name in names {
        let value = conn.query_text(format!("SELECT @@GLOBAL.{name}")).map_err(|e| told(&e))?;
        facts.push((name.to_owned(), value.unwrap_or_default()));
    }
    facts.extend(loaded.head.iter().map(|head| ("holdfast.dump".to_owned(), head.clone())));
    Ok(facts)
}

/// Where the dump stands in the server's log, if the user says that it is of the whole server.
///
/// # Errors
/// When it is said to be whole, and names no place or one that the archived log contradicts.
fn position(
    catalogue: &Catalogue,
    server: &ServerRecord,
    family: Family,
    loaded: &Loaded,
    whole: bool,
    warnings: &mut Vec<String>,
) -> Result<Option<Position>> {
    let Told { file, gtids, another, differing, source } = &loaded.told;
    let flavor = match family {
        Family::MySql => Flavor::MySql,
        Family::MariaDb => Flavor::MariaDb,
    };
    if !whole {
        warnings.push(
            "the backup has no place in the log, so no log leads on from it: if the dump is of the whole server, at the \
             binlog position that it names, import it with --whole"
                .to_owned(),
        );
        return Ok(None);
    }
    let refused = |why: String| {
        Err(Error::failed(format!("The dump can't have a place in the log of '{}': {why}.", server.name))
            .with_next(
                "nothing is listed of it; without --whole it becomes a backup that no log leads on from",
            ))
    };
    if matches!(server.kind, ServerKind::Folder { .. }) {
        return refused("a folder has none".to_owned());
    }
    if *another {
        return refused("it is of a replica, and names the position in the log of its source".to_owned());
    }
    if *differing {
        return refused("it names two that differ".to_owned());
    }
    let Some((file, offset)) = file.clone() else {
        return refused(
            "it names no binlog file and position (GTIDs alone are older than its rows)".to_owned(),
        );
    };
    let gtid = match gtids {
        Some(text) => GtidSet::parse(flavor, text)
            .map_err(|error| Error::failed(format!("The dump's GTIDs '{text}' can't be read: {error}.")))?,
        None => GtidSet::empty(flavor),
    };
    let at = Position { file, offset, gtid };
    let archive = |e| crate::archive::archive_error(catalogue, server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(archive)?;
    if log.streams().len() > 1 {
        return refused(
            "that log was reset, and in which of its lives the dump was made is not known".to_owned(),
        );
    }
    let target = Target::Position { file: at.file.clone(), offset: at.offset, life: None };
    match log.resolve(&target).map_err(archive)? {
        Ok(cut) => match contradiction(&at, cut.kept.as_ref(), cut.left_out.as_ref()) {
            Some(why) => refused(why),
            // Offsets alone meet by chance in the logs of two servers.
            None if source.is_some() && at.gtid.is_empty() => refused(of_a_replica(source)),
            None => Ok(Some(at)),
        },
        // What is yet to be archived can't be compared.
        Err(hole) => match hole.before {
            Some(last) if !is_behind(&at, &last) => {
                refused(format!("{}:{} is not archived, and what is behind it is", at.file, at.offset))
            }
            _ if source.is_some() => refused(of_a_replica(source)),
            _ => Ok(Some(at)),
        },
    }
}

fn of_a_replica(source: &Option<String>) -> String {
    let host = source.as_deref().unwrap_or_default();
    format!(
        "it was made of a replica of {host}, and the archived log does not show by its GTIDs that the position is in \
         that of this server"
    )
}

/// What the transactions around a position say against it.
fn contradiction(at: &Position, kept: Option<&Indexed>, left_out: Option<&Indexed>) -> Option<String> {
    let kept_here = kept.filter(|txn| txn.file == at.file);
    let next_here = left_out.filter(|txn| txn.file == at.file);
    let inside = next_here.is_some_and(|next| next.entry.start < at.offset);
    let on_a_border = kept_here.is_none_or(|last| last.entry.end == at.offset)
        || next_here.is_some_and(|next| next.entry.start == at.offset);
    if inside || !on_a_border {
        return Some(format!("no transaction of the archived log ends at {}:{}", at.file, at.offset));
    }
    if at.gtid.is_empty() {
        return None;
    }
    let gtid = |txn: Option<&Indexed>| txn.and_then(|txn| txn.entry.gtid.clone());
    let holds = gtid(kept).is_none_or(|gtid| at.gtid.contains(&gtid));
    let ends = gtid(left_out).is_none_or(|gtid| !at.gtid.contains(&gtid));
    (!holds || !ends).then(|| "its GTIDs are not those of the archived log at its position".to_owned())
}

/// Does the position lie behind the transaction? Files of one log are numbered.
fn is_behind(at: &Position, last: &Indexed) -> bool {
    let number = |file: &str| file.rsplit_once('.').and_then(|(_, number)| number.parse::<u64>().ok());
    match (number(&at.file), number(&last.file)) {
        (Some(this), Some(that)) => (this, at.offset) >= (that, last.entry.end),
        _ => false,
    }
}

/// The mark of the file in which it stands, if that is archived in one life of the log only.
fn mark(catalogue: &Catalogue, server: &ServerRecord, at: &Position) -> Option<String> {
    let log = ServerLog::open(&catalogue.repository, server.id).ok()?;
    let marks = log
        .streams()
        .into_iter()
        .filter_map(|stream| FileMark::of_archive(&catalogue.repository, &stream, &at.file).ok().flatten());
    let marks: Vec<FileMark> = marks.collect();
    match marks.as_slice() {
        [mark] => Some(mark.to_string()),
        _ => None,
    }
}
