//! MariaDB, by way of `mariadb-backup --backup --stream=xbstream`.
//!
//! The program runs where the datadir is: on this host, or at the far end of a command such as
//! `ssh db1 mariadb-backup ..`. Its standard output is the copy, its standard error the only word on what it does to
//! the server. Four things run side by side:
//!
//! ```text
//! stdout -> spool -> parser -> by file -> assembler -> page check -> sink
//! stderr -> log: stage, last words, "completed OK!"
//! watchdog: called off? silent? commits held?
//! ```
//!
//! **What it holds.** From `BACKUP STAGE FLUSH` on, writes to tables without transactions wait, from `BLOCK_DDL` on
//! DDL, and from `BLOCK_COMMIT` to `END` commits: that is when it copies the end of the redo log and reads the
//! binlog position (milliseconds to about a second of its own making). As its output blocks it holds them longer, so
//! from `FLUSH` on we take every byte at once, by disk if need be. If commits are held for longer than
//! [`MariadbBackup::commit_stall_max`] in spite of that, the program is killed, and its session if that still waits for
//! the lock, which frees them.
//! Releases before 10.11.8 copy all tables without transactions under `BLOCK_COMMIT`.

mod command;
mod fit;
mod info;
mod log;
mod receive;
mod release;
mod whole;

use std::ffi::OsString;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use holdfast_mysql::{Conn, ConnectOptions};
use rustix::pipe::fcntl_setpipe_size;

use crate::error::Error;
use crate::outcome::{Coordinates, Outcome, Warning};
use crate::server_facts;
use crate::sink::Sink;
use crate::source::{Source, Watch};
use crate::spool::{Limits, Spool};
use crate::threads;
use crate::verify::VerifyingSink;
use log::Log;

/// Files that `mariadb-backup` reads at the same time.
const PARALLEL: u32 = 4;

/// Longest time without a byte on either of its outputs.
const SILENCE_MAX: Duration = Duration::from_secs(300);

/// Longest time for which commits may wait for us.
const COMMIT_STALL_MAX: Duration = Duration::from_secs(2);

/// How long its output may wait for a slow sink before it goes by disk, while it holds no locks. The program copies the
/// redo log through the same pipe and fails if the server laps it, so this must stay short.
const PATIENCE: Duration = Duration::from_secs(5);

/// Bytes read from the pipe at a time.
const PIPE_BYTES: usize = 256 * 1024;

/// How long a program whose stream broke off is given to say why.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How often the watchdog looks.
const WATCH_EVERY: Duration = Duration::from_millis(50);

/// What the account needs; BINLOG MONITOR for the position, the others for the copy.
const PRIVILEGES: &[&str] = &["RELOAD", "PROCESS", "LOCK TABLES", "BINLOG MONITOR"];

/// Engines whose rows it copies.
const ENGINES_CARRIED: &[&str] =
    &["InnoDB", "Aria", "MyISAM", "MRG_MyISAM", "CSV", "ARCHIVE", "SEQUENCE", "ROCKSDB", "BLACKHOLE"];

/// Where the program comes from.
#[derive(Debug, Clone)]
pub enum Program {
    /// `mariadb-backup` or `mariabackup` of this host: in this folder, or, without one, found by the system.
    Local(Option<PathBuf>),
    /// This command line, run as it is, without a shell. It must write an xbstream of a full backup to its standard output.
    Command(Vec<OsString>),
}

/// A MariaDB server as a source.
#[derive(Debug, Clone)]
pub struct MariadbBackup {
    connect: ConnectOptions,
    program: Program,
    spool_dir: PathBuf,
    parallel: u32,
    silence_max: Duration,
    commit_stall_max: Duration,
    workers: usize,
}

impl MariadbBackup {
    /// For the server at `connect`. `spool_dir` is a folder of this host with room for what may have to wait there.
    #[must_use]
    pub fn new(connect: ConnectOptions, program: Program, spool_dir: impl Into<PathBuf>) -> Self {
        Self {
            connect,
            program,
            spool_dir: spool_dir.into(),
            parallel: PARALLEL,
            silence_max: SILENCE_MAX,
            commit_stall_max: COMMIT_STALL_MAX,
            workers: thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8),
        }
    }

    /// Files read at the same time by a local program; at least 1.
    #[must_use]
    pub fn parallel(mut self, files: u32) -> Self {
        self.parallel = files.max(1);
        self
    }

    /// Longest time without a byte on either output.
    #[must_use]
    pub fn silence_max(mut self, limit: Duration) -> Self {
        self.silence_max = limit;
        self
    }

    /// Longest time for which commits may be held before the copy is given up.
    #[must_use]
    pub fn commit_stall_max(mut self, limit: Duration) -> Self {
        self.commit_stall_max = limit;
        self
    }

    /// What the server says of itself, its datadir, and the session that asked: the program's are younger.
    fn prepare(&self) -> Result<(Outcome, PathBuf, u32), Error> {
        let mut conn = Conn::connect(&self.connect)?;
        conn.set_read_timeout(SILENCE_MAX);
        let unfit = |problem: &str, remedy: String| Error::Unfit {
            server: self.connect.endpoint.to_string(),
            problem: problem.to_owned(),
            remedy,
        };
        if !conn.server().is_mariadb() {
            let remedy = "Copy MySQL by its clone protocol instead".to_owned();
            return Err(unfit("mariadb-backup copies MariaDB only, and this is MySQL", remedy));
        }
        let missing = server_facts::missing_privileges(&mut conn, PRIVILEGES)?;
        if !missing.is_empty() {
            let account = conn.query_text("SELECT CURRENT_USER()")?.unwrap_or_default();
            let account = account.split_once('@').map_or(account.clone(), |(u, h)| format!("'{u}'@'{h}'"));
            let missing = missing.join(", ");
            let problem = format!("the account {account} lacks {missing}");
            return Err(unfit(&problem, format!("Run: GRANT {missing} ON *.* TO {account};")));
        }
        if let Some((problem, remedy)) = fit::unfit(&mut conn)? {
            return Err(unfit(&problem, remedy));
        }
        let mut outcome = Outcome::empty();
        outcome.facts.push(("source".to_owned(), "mariadb-backup".to_owned()));
        outcome.facts.extend(server_facts::variables(&mut conn)?);
        let (accounts, note) = server_facts::accounts(&mut conn)?;
        outcome.facts.extend(accounts);
        outcome.warnings.extend(note);
        let reason = "mariadb-backup does not copy this engine's rows";
        let (tables, more) = server_facts::tables_not_in(&mut conn, ENGINES_CARRIED, reason)?;
        outcome.not_carried = tables;
        outcome.warnings.extend(more);
        let datadir = PathBuf::from(outcome.fact("datadir").unwrap_or_default());
        if matches!(self.program, Program::Local(_)) && !datadir.join("ibdata1").exists() {
            let problem = format!("its datadir {} is not on this host", datadir.display());
            let remedy = "Give a command that runs mariadb-backup where the server is, such as \
                          ssh HOST mariadb-backup --backup --stream=xbstream"
                .to_owned();
            return Err(unfit(&problem, remedy));
        }
        let session = conn.thread_id();
        // An error of the farewell changes nothing.
        let _ = conn.close();
        Ok((outcome, datadir, session))
    }
}

impl MariadbBackup {
    /// Where the log ends now, `FILE:OFFSET` (`holdfast_format::record::LOG_END`). A copy that was made is not lost for a question that fails.
    fn log_end(&self) -> Option<String> {
        let mut conn = Conn::connect(&self.connect).ok()?;
        conn.set_read_timeout(SILENCE_MAX);
        let end = conn.query("SHOW MASTER STATUS").ok()?;
        let place = end.text(0, 0).zip(end.text(0, 1)).map(|(file, offset)| format!("{file}:{offset}"));
        // An error of the farewell changes nothing.
        let _ = conn.close();
        place
    }
}

impl Source for MariadbBackup {
    fn copy(&mut self, sink: &dyn Sink, watch: &dyn Watch) -> Result<Outcome, Error> {
        let started = Instant::now();
        let (mut outcome, datadir, session) = self.prepare()?;
        let verifying = VerifyingSink::new(sink);
        let received = self.run(&datadir, Some(session), &verifying, watch)?;
        let meta = info::Metadata::from_files(&received.metadata)?;
        outcome.coordinates = match meta.position {
            Some(position) => Coordinates::Exact(position),
            None if outcome.fact("log_bin") == Some("ON") => {
                return Err(Error::Malformed {
                    place: "the backup stream".to_owned(),
                    expected: "a file mariadb_backup_binlog_info or xtrabackup_binlog_info".to_owned(),
                    got: "none, although the server writes a binary log".to_owned(),
                });
            }
            None => Coordinates::None,
        };
        outcome.facts.extend(meta.facts);
        outcome.facts.extend(self.log_end().map(|end| ("log_end".to_owned(), end)));
        outcome.facts.push(("copy_seconds".to_owned(), started.elapsed().as_secs().to_string()));
        outcome.facts.push(("commit_stall_ms".to_owned(), received.commit_stall.as_millis().to_string()));
        outcome.bytes = received.bytes;
        outcome.files = received.files;
        verifying.refuse_encrypted()?;
        let (pages, warnings) = verifying.finish();
        outcome.pages = pages;
        outcome.warnings.extend(warnings);
        if received.spilled > 0 {
            let text = format!(
                "{} MiB went by way of {}, because the repository was slower than the server",
                received.spilled >> 20,
                self.spool_dir.display()
            );
            outcome.warnings.push(Warning::Note(text));
        }
        Ok(outcome)
    }
}

/// What a run of the program gave.
struct Received {
    metadata: Vec<(String, Vec<u8>)>,
    bytes: u64,
    files: u64,
    spilled: u64,
    commit_stall: Duration,
}

impl MariadbBackup {
    /// Runs the program to its end. Its sessions are younger than `after`; without it none is killed.
    fn run(
        &self,
        datadir: &Path,
        after: Option<u32>,
        sink: &VerifyingSink<'_>,
        watch: &dyn Watch,
    ) -> Result<Received, Error> {
        let mut running =
            command::start(&self.program, &self.connect, datadir, self.parallel, &self.spool_dir)?;
        let (stdout, stderr) = running.take_outputs()?;
        let log = Log::new();
        let spool = Spool::new(&self.spool_dir, Limits::default());
        let trouble: Mutex<Option<Error>> = Mutex::new(None);
        let child = Mutex::new(running.child());
        let stop = |error: Error| {
            let mut slot = trouble.lock().unwrap_or_else(PoisonError::into_inner);
            // The first one tells why; the others follow from it.
            slot.get_or_insert(error);
            kill(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
            spool.abandon();
        };
        let done = std::sync::atomic::AtomicBool::new(false);
        let (result, ended) = thread::scope(|scope| {
            let pumping = || {
                match pump(stdout, &spool, &log) {
                    // The consumer gave up, and says why itself.
                    Ok(()) | Err(Error::Cancelled) => {}
                    Err(error) => stop(error),
                }
            };
            let watching = || {
                while !done.load(std::sync::atomic::Ordering::Acquire) {
                    if let Err(error) = self.look_after(&log, watch) {
                        stop(error);
                        break;
                    }
                    thread::sleep(WATCH_EVERY);
                }
            };
            // Where one is refused, the program is killed below, and those that are there end with what it says.
            let result = threads::begin(scope, "read what mariadb-backup says", || log.follow(stderr))
                .and_then(|_| threads::begin(scope, "read the copy", pumping))
                .and_then(|_| threads::begin(scope, "look after mariadb-backup", watching))
                .and_then(|_| receive::receive(&spool, sink, watch, self.workers));
            let ended = match &result {
                Ok(_) => self.wait_for_exit(&child, &log, watch),
                // A stream that breaks off: the program may be about to say why it did.
                Err(Error::Malformed { .. }) => Ok(ends_within(&child, LAST_WORDS)),
                Err(_) => Ok(false),
            };
            done.store(true, std::sync::atomic::Ordering::Release);
            kill(&mut child.lock().unwrap_or_else(PoisonError::into_inner));
            spool.abandon();
            (result, ended)
        });
        let program = running.name.clone();
        let trouble = trouble.into_inner().unwrap_or_else(PoisonError::into_inner);
        if (trouble.is_some() || result.is_err())
            && log.waits_for_locks()
            && let Some(after) = after
        {
            release::release(&self.connect, after);
        }
        if let Some(error) = trouble {
            return Err(error);
        }
        let (status, by_itself) = (running.wait()?, ended?);
        // A program that failed explains itself better than the end of its stream does.
        if by_itself && !status.success() {
            return Err(Error::Tool { program, reason: status.to_string(), tail: log.tail() });
        }
        let received = result?;
        if !log.completed() {
            let reason = "it ended without \"completed OK!\"".to_owned();
            return Err(Error::Tool { program, reason, tail: log.tail() });
        }
        Ok(Received {
            metadata: received.metadata,
            bytes: received.bytes,
            files: received.files,
            spilled: spool.spilled(),
            commit_stall: log.commit_stall(),
        })
    }

    fn look_after(&self, log: &Log, watch: &dyn Watch) -> Result<(), Error> {
        if watch.cancelled() {
            return Err(Error::Cancelled);
        }
        let held = log.commits_held_for();
        if held > self.commit_stall_max {
            return Err(Error::Stalled { held, limit: self.commit_stall_max });
        }
        if log.silent_for() > self.silence_max {
            return Err(Error::Silent {
                from: "mariadb-backup".to_owned(),
                what: "the next bytes of the copy",
                waited: self.silence_max,
            });
        }
        Ok(())
    }

    /// The stream has ended; the program should too.
    fn wait_for_exit(&self, child: &Mutex<&mut Child>, log: &Log, watch: &dyn Watch) -> Result<bool, Error> {
        loop {
            if ends_within(child, WATCH_EVERY) {
                return Ok(true);
            }
            self.look_after(log, watch)?;
        }
    }
}

/// True if the program ends by itself within `limit`.
fn ends_within(child: &Mutex<&mut Child>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    loop {
        let ended = child.lock().unwrap_or_else(PoisonError::into_inner).try_wait();
        match ended {
            Ok(None) if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            Ok(None) | Err(_) => return false,
            Ok(Some(_)) => return true,
        }
    }
}

/// Moves the pipe into the spool, whatever is there at a time.
fn pump(mut stdout: impl Read + AsFd, spool: &Spool<()>, log: &Log) -> Result<(), Error> {
    // A wish: a host may allow less, and then pieces are smaller.
    let _ = fcntl_setpipe_size(&stdout, PIPE_BYTES);
    loop {
        let mut buffer = vec![0; PIPE_BYTES];
        let count = match stdout.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io("read the output of", "mariadb-backup")(error)),
        };
        log.alive();
        buffer.truncate(count);
        if count < PIPE_BYTES / 2 {
            // What waits is counted by what it holds.
            buffer.shrink_to_fit();
        }
        let patience = if log.holds_locks() { Duration::ZERO } else { PATIENCE };
        spool.push((), buffer, patience)?;
        log.alive();
    }
    spool.close();
    Ok(())
}

fn kill(child: &mut Child) {
    command::kill_group(child);
}

#[cfg(test)]
mod tests;
