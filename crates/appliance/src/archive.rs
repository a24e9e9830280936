//! `archive`: follows a server's binlog into the repository.

use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::fail_over::{Ended, Members, fail_over, is_gone};
use crate::list::position_words;
use crate::login::{connect, connect_options};
use crate::progress::{Reading, Watcher};
use crate::time::show_time;
use holdfast_archive::join::{self, Standing};
use holdfast_archive::{
    FollowOptions, Followed, Join, Note, ReceiverEngine, ServerLog, Start, Until, follow, plan, probe, tail,
};
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{Position, ServerRecord};
use holdfast_mysql::{Conn, ConnectOptions};
use serde::Serialize;
use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long `restore --to latest` and `backup` try to reach the source.
const REACH_MAX: Duration = Duration::from_secs(15);

/// Longest wait between two attempts to reach a server that has other hosts.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// How often it is asked whether an archive has come up to a place.
const STOP_TICK: Duration = Duration::from_millis(50);

/// How often the watcher of a stream is asked whether to stop. A daemon has many streams, which wait most of the time.
const ASK_TICK: Duration = Duration::from_millis(200);

/// What one run of the archive did.
#[derive(Clone, Debug, Serialize)]
pub struct ArchivedView {
    /// Transactions received.
    pub transactions: u64,
    /// Bytes of events received.
    pub bytes: u64,
    /// Everything before this position is durable.
    pub until: String,
}

/// Follows the binlog of the server called `name` until the watcher wants to stop. Resumes where
/// the archive ends, and goes over to another host of the server where its user named some. With `semi_sync` the server's commits wait until they are durable here, if the server is set to.
///
/// # Errors
/// A gap, another server behind the address, a second archive of the same server.
pub fn archive(
    catalogue: &Catalogue,
    name: &str,
    semi_sync: bool,
    watcher: &dyn Watcher,
) -> Result<ArchivedView> {
    // Where the log of a promoted host goes on, found while it was asked: its log is not walked a second time for that.
    let mut joint: Option<Box<Join>> = None;
    loop {
        let server = catalogue.server(name)?;
        let connect = connection(catalogue, &server)?;
        let mut options = FollowOptions::new(connect, server_id(catalogue, &server, Role::Archive));
        options.semi_sync = semi_sync;
        options.join = joint.take().map(|join| *join);
        let members = Members::of(catalogue.login(&server)?.as_ref());
        if let Some(members) = &members {
            options.give_up_after = Some(members.after);
            options.backoff.1 = BACKOFF_MAX;
        }
        let gone_since = Cell::new(None);
        let ended = run(catalogue, &server, &options, &Until::Stopped, watcher, &gone_since);
        let Some(members) = members.filter(|_| ended.is_err() && is_gone(&options.connect)) else {
            return ended;
        };
        let since = gone_since.get().unwrap_or_else(Instant::now);
        match fail_over(catalogue, &server, &members, since, watcher)? {
            Ended::Again(found) => {
                joint = found;
                catalogue.repository.refresh().map_err(|e| catalogue.store_error(e))?;
            }
            Ended::Cancelled => return ended,
        }
    }
}

/// Fetches what the source has logged so far, if no other process is doing so.
///
/// # Errors
/// As [`archive`]; and when the source can't be reached.
pub(crate) fn drain(
    catalogue: &Catalogue,
    server: &ServerRecord,
    watcher: &dyn Watcher,
) -> Result<ArchivedView> {
    if is_archived_now(catalogue, server)? {
        return Err(Error::new(Code::Locked, format!("An archive of '{}' is running already.", server.name)));
    }
    let connect = connection(catalogue, server)?;
    let mut options = FollowOptions::new(connect, server_id(catalogue, server, Role::Drain));
    options.give_up_after = Some(REACH_MAX);
    options.dump.until_end = true;
    run(catalogue, server, &options, &Until::EndOfLog, &Silent(watcher), &Cell::new(None))
}

/// Whether a process follows the log of this server.
pub(crate) fn is_archived_now(catalogue: &Catalogue, server: &ServerRecord) -> Result<bool> {
    catalogue.repository.log_is_followed(server.id).map_err(|e| catalogue.store_error(e))
}

/// Passes on the wish to stop, and nothing that the job says.
struct Silent<'a>(&'a dyn Watcher);

impl Watcher for Silent<'_> {
    fn reading(&self, _: Reading) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        self.0.cancelled()
    }
}

/// Waits until the archive that another process is writing holds what the source has logged by now.
///
/// # Errors
/// When the source can't be reached, or the archive does not come up to it in time.
pub(crate) fn wait_for_archive(catalogue: &Catalogue, server: &ServerRecord) -> Result<()> {
    let options = connection(catalogue, server)?;
    let mut conn = connect(&options, &server.name)?;
    let (file, offset) = end_of_log(&mut conn, server)?;
    let told = |e| archive_error(catalogue, server, e);
    let flavor = server.flavor.unwrap_or(Flavor::MySql);
    let wanted = Position { file, offset, gtid: GtidSet::empty(flavor) };
    let deadline = Instant::now() + REACH_MAX;
    loop {
        let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
        if log.place_of(&wanted).map_err(told)?.is_some() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(Error::failed(format!(
                "the running archive did not come up to {} within {} s",
                position_words(&wanted),
                REACH_MAX.as_secs()
            )));
        }
        std::thread::sleep(STOP_TICK);
    }
}

/// Where the source's log ends now.
pub(crate) fn end_of_log(conn: &mut Conn, server: &ServerRecord) -> Result<(String, u64)> {
    let told = |why: &str| {
        Error::failed(format!("The server '{}' does not say where its log ends: {why}", server.name))
    };
    let end = probe::end_of_log(conn).map_err(|e| told(&e.to_string()))?;
    end.ok_or_else(|| told("its binary log is off, or the account lacks the right"))
}

fn connection(catalogue: &Catalogue, server: &ServerRecord) -> Result<ConnectOptions> {
    let login = catalogue.login(server)?;
    connect_options(&catalogue.environment, server, login.as_ref())
}

/// Why a process dumps the log; each has a server id of its own, so that one does not end the other's stream.
#[derive(Clone, Copy)]
pub(crate) enum Role {
    Archive,
    Drain,
    Mark,
}

/// A replica's id that no one else is likely to have: from repository, server and role.
pub(crate) fn server_id(catalogue: &Catalogue, server: &ServerRecord, role: Role) -> u32 {
    let mut id = 0x811c_9dc5_u32;
    let repository = catalogue.repository.id().0;
    for byte in repository.iter().chain(&server.id.0).chain(&[role as u8]) {
        id = (id ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    // Users number their servers from 1 up; the upper half is ours.
    id | 0x8000_0000
}

/// Follows the log of one host. `gone_since`: when the connection was lost, while it is.
fn run(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &FollowOptions,
    until: &Until,
    watcher: &dyn Watcher,
    gone_since: &Cell<Option<Instant>>,
) -> Result<ArchivedView> {
    let _only_follower = catalogue.repository.follow_log(server.id).map_err(|e| catalogue.store_error(e))?;
    let uuid = source_uuid(catalogue, server, &options.connect)?;
    let start =
        plan(&catalogue.repository, server.id, uuid).map_err(|e| archive_error(catalogue, server, e))?;
    let mut options = options.clone();
    options.join = joint(catalogue, server, &start, &options)?;
    if catalogue.environment.force_pool {
        options.engine = ReceiverEngine::Plain;
    }
    if server.flavor == Some(Flavor::MySql) {
        options.expect_uuid = Some(uuid);
    }
    let stop = AtomicBool::new(false);
    let (done, ended) = mpsc::channel::<()>();
    let stop = &stop;
    let followed = std::thread::scope(|scope| {
        let watch = move || {
            // Until the other end is dropped.
            while matches!(ended.recv_timeout(ASK_TICK), Err(mpsc::RecvTimeoutError::Timeout)) {
                if watcher.cancelled() {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        };
        // Without it nobody could stop the archive.
        std::thread::Builder::new().spawn_scoped(scope, watch).map_err(|e| no_thread(server, &e))?;
        let mut note = |note: Note<'_>| {
            match note {
                Note::Retrying { .. } => gone_since.set(gone_since.get().or_else(|| Some(Instant::now()))),
                Note::Connected { .. } => gone_since.set(None),
                _ => {}
            }
            tell(watcher, &note);
        };
        let followed =
            follow(&catalogue.repository, &start.stream, &start.origins, &options, until, stop, &mut note);
        drop(done);
        followed.map_err(|e| archive_error(catalogue, server, e))
    });
    let Followed { at, transactions, bytes } = followed?;
    let until = at.as_ref().map_or_else(|| "the start of the log".to_owned(), position_words);
    Ok(ArchivedView { transactions, bytes, until })
}

fn no_thread(server: &ServerRecord, why: &std::io::Error) -> Error {
    Error::failed(format!(
        "The system grants no thread to the archive of the server '{}': {why}.",
        server.name
    ))
    .with_next(
        "raise the limit of threads (`ulimit -u`; `TasksMax` of a service), and run the same command again",
    )
}

/// Where a stream begins that goes on behind that of another server: after a fail-over, or where the server was replaced by
/// one that has all that is archived.
fn joint(
    catalogue: &Catalogue,
    server: &ServerRecord,
    start: &Start,
    options: &FollowOptions,
) -> Result<Option<Join>> {
    let told = |e| archive_error(catalogue, server, e);
    let store = &catalogue.repository;
    let Some((before, executed)) = join::executed_before(store, &start.stream).map_err(told)? else {
        return Ok(None);
    };
    let standing = match options.join.clone().filter(|found| found.at.gtid == executed) {
        Some(found) => Ok(Standing::GoesOn(Box::new(found))),
        None => join::look(&options.connect, options.dump.server_id, store, server.id, &executed),
    };
    match standing.map_err(told)? {
        Standing::GoesOn(join) => {
            tail::close(store, &before).map_err(told)?;
            Ok(Some(*join))
        }
        // It was set back, or loaded anew: what it lacks never comes. A backup of it leads into its log.
        Standing::Behind { .. } if !start.origins.is_empty() => Ok(None),
        Standing::Behind { lacks } => Err(Error::failed(format!(
            "The server '{}' at {} lacks {lacks}, which is archived.",
            server.name, options.connect.endpoint
        ))
        .with_next("wait until it has replicated it, and run the same command again")),
        // A new life, behind a backup of its own.
        Standing::Apart { .. } => Ok(None),
    }
}

/// The identity that the source shows, which is to be the known one.
fn source_uuid(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &ConnectOptions,
) -> Result<holdfast_format::gtid::Uuid> {
    let (mut conn, now) = same_server(catalogue, server, options)?;
    if conn.query_text("SELECT @@GLOBAL.log_bin").is_ok_and(|on| on.as_deref() == Some("0")) {
        return Err(Error::failed(format!("The binary log of '{}' is off.", server.name))
            .with_next(crate::doctor::BINLOG_FIX));
    }
    // The connection served its purpose; a failure to say goodbye changes nothing.
    let _ = conn.close();
    now.source_uuid.ok_or_else(|| Error::failed(format!("The server '{}' shows no identity.", server.name)))
}

/// Connects to the server that is known under this name, and to no other one. Keeps what has changed of it.
pub(crate) fn same_server(
    catalogue: &Catalogue,
    server: &ServerRecord,
    options: &ConnectOptions,
) -> Result<(Conn, ServerRecord)> {
    let mut now = server.clone();
    let mut conn = connect(options, &server.name)?;
    crate::server::identify(&mut conn, &mut now)?;
    if let Some((old, new)) = crate::server::other_identity(server, &now) {
        let name = &server.name;
        return Err(Error::failed(format!(
            "Another server than '{name}' answers at {}: its server_uuid is {new}, not {old}.",
            options.endpoint
        ))
        .with_next(format!(
            "if '{name}' was rebuilt or replaced: holdfast server add {name} --rebuilt with its other options, then \
             holdfast backup {name}"
        )));
    }
    if now != *server {
        catalogue.repository.put_known_server(now.clone()).map_err(|e| catalogue.store_error(e))?;
    }
    Ok((conn, now))
}

fn tell(watcher: &dyn Watcher, note: &Note<'_>) {
    match note {
        Note::Connected { version, at } => watcher.note(&format!("following {version} from {at}")),
        Note::Receiving { .. } | Note::ZeroLoss { .. } => {}
        Note::SemiSync { on: true } => {
            watcher.note("semi-synchronous: commits wait until they are durable here");
        }
        Note::SemiSync { on: false } => watcher.note(
            "warning: the server has no semi-synchronous replication, so up to a second of commits may be lost with it; \
             `holdfast doctor` says how to turn it on",
        ),
        Note::Retrying { error, after } => {
            watcher.note(&format!("connection lost ({error}); trying again in {:.1} s", after.as_secs_f64()));
        }
        Note::Synced { transactions, last_us, caught_up, .. } => {
            watcher.synced(*last_us, *caught_up);
            watcher.reading(Reading { phase: "archive", done: *transactions, total: None, bytes: false, limit: None });
        }
        // A stretch of notes only is no news.
        Note::Sealed(record) if record.transactions == 0 => {}
        Note::Sealed(record) => watcher.note(&format!(
            "sealed segment {} with {} transactions, up to {}",
            record.number,
            record.transactions,
            show_time(record.last_us)
        )),
        Note::Warning(text) => watcher.note(&format!("warning: {text}")),
    }
}

/// An error of the archive for a person.
pub(crate) fn archive_error(
    catalogue: &Catalogue,
    server: &ServerRecord,
    error: holdfast_archive::Error,
) -> Error {
    use holdfast_archive::Error as Archive;
    let text = sentence(&error.to_string());
    match error {
        Archive::Store(inner) => match inner.downcast::<holdfast_store::Error>() {
            Ok(store) => catalogue.store_error(*store),
            Err(other) => Error::failed(sentence(&other.to_string())),
        },
        Archive::Gap { reason, after, .. } => Error::failed(format!(
            "The log of '{}' can't be continued after {after}: {}",
            server.name,
            sentence(&reason)
        ))
        .with_next(format!(
            "take a new backup: holdfast backup {0}; then run holdfast archive {0} again",
            server.name
        )),
        Archive::NoOrigin { .. } | Archive::Identity { .. } => {
            Error::failed(text).with_next(format!("holdfast backup {}", server.name))
        }
        Archive::Mysql(ref mysql) if mysql.is_network() => {
            Error::failed(text).with_next("check that the server runs, and its address and port")
        }
        Archive::Unreachable { .. } => Error::new(Code::TargetUnreachable, text),
        Archive::Damaged { .. } => Error::new(Code::Corruption, text)
            .with_next(format!("run `holdfast-fsck {}` to see what it affects", catalogue.place.display())),
        _ => Error::failed(text),
    }
}
