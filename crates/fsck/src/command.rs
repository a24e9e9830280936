//! The program: arguments, progress, output, exit code.

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use clap::{ArgGroup, Parser};
use holdfast_io::{Directory, RealDisk};
use serde::Serialize;

use crate::check::{Options, Scope, check};
use crate::error::{Error, Result};
use crate::hold::random;
use crate::progress::Progress;
use crate::repair::{RepairOptions, Repaired, repair};
use crate::report::Report;
use crate::unlock::Secret;
use crate::way_in::WayIn;

/// Exit code of a check that found something wrong.
const EXIT_CORRUPTED: u8 = 21;
/// How often a terminal shows progress.
const TERMINAL_INTERVAL: Duration = Duration::from_millis(250);
/// How often anything else does.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Checks a Holdfast repository, says what of it would come back, and mends what can be mended.
#[derive(Debug, Parser)]
#[command(
    name = "holdfast-fsck",
    version,
    group(ArgGroup::new("secret").args(["passphrase_file", "passphrase_command", "key_file", "kit"]).multiple(false)),
    after_help = "Exit codes: 0 clean, 1 the check failed, 2 wrong usage, 10 no repository, 11 garbage collection at work, 12 wrong passphrase or key, \
                  21 corruption found, or left after a repair."
)]
struct Arguments {
    /// The repository's folder
    #[arg(value_name = "REPO", env = "HOLDFAST_REPO")]
    repo: PathBuf,
    /// A file whose first line is the passphrase [env: HOLDFAST_PASSPHRASE_FILE]
    #[arg(long, value_name = "F")]
    passphrase_file: Option<PathBuf>,
    /// A shell command whose first line of output is the passphrase [env: HOLDFAST_PASSPHRASE_COMMAND]
    #[arg(long, value_name = "C")]
    passphrase_command: Option<OsString>,
    /// A key file [env: HOLDFAST_KEY_FILE]
    #[arg(long, value_name = "F")]
    key_file: Option<PathBuf>,
    /// A recovery kit
    #[arg(long, value_name = "F")]
    kit: Option<PathBuf>,
    /// Read every byte: each frame, its id, all parity. Without it, the structure and a sample are read
    #[arg(long)]
    full: bool,
    /// Chooses the sample: with the numbers of 32 days one after the other, every block is read once; else by chance
    #[arg(long, value_name = "N", conflicts_with = "full")]
    seed: Option<u64>,
    /// Mend what can be mended, after a full check: copies and heads, segments from their parity, lost footers, orphans
    #[arg(long, conflicts_with = "full")]
    repair: bool,
    /// Only make new footers (the index of a segment) for segments whose own is lost
    #[arg(long, conflicts_with_all = ["full", "repair"])]
    rebuild_index: bool,
    /// With --repair or --rebuild-index: print the plan, change nothing
    #[arg(long)]
    dry_run: bool,
    /// One JSON document instead of text
    #[arg(long)]
    json: bool,
    /// No progress
    #[arg(short, long)]
    quiet: bool,
}

/// Runs the command with these arguments, the program's name first; prints, and gives the exit code.
pub fn run<I, T>(arguments: I) -> ExitCode
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let arguments = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version go to stdout with 0, mistakes to stderr with 2.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(2));
        }
    };
    let checked = checked(&arguments);
    let (code, printed) = match &checked {
        Ok(Outcome::Checked(report)) => {
            (if report.clean { 0 } else { EXIT_CORRUPTED }, print(&report.text(), report, arguments.json))
        }
        Ok(Outcome::Repaired(done)) => {
            (if done.clean() { 0 } else { EXIT_CORRUPTED }, print(&done.text(), done, arguments.json))
        }
        Err(e) => (e.exit_code(), print_error(e, arguments.json)),
    };
    match printed {
        Ok(()) => ExitCode::from(code),
        // Who does not read our output must not take silence for a clean repository.
        Err(_) => ExitCode::from(code.max(1)),
    }
}

/// What the command did.
enum Outcome {
    Checked(Box<Report>),
    Repaired(Box<Repaired>),
}

fn checked(arguments: &Arguments) -> Result<Outcome> {
    let repairs = arguments.repair || arguments.rebuild_index;
    if arguments.dry_run && !repairs {
        return Err(Error::Usage(
            "--dry-run goes with --repair or --rebuild-index; a check changes nothing".into(),
        ));
    }
    let secret = secret(arguments)?;
    let disk = RealDisk::shared();
    let missing = || Error::NoRepository { place: arguments.repo.display().to_string() };
    let objects = match Directory::open(disk, &arguments.repo) {
        Ok(objects) => objects,
        Err(holdfast_io::Error::NotFound { .. } | holdfast_io::Error::Refused { .. }) => {
            return Err(missing());
        }
        Err(e) => return Err(e.into()),
    };
    let progress = Arc::new(Progress::default());
    let shown = show(&progress, arguments.quiet || arguments.json);
    let scope = if arguments.full { Scope::Full } else { Scope::Sample };
    let seed = match arguments.seed {
        Some(seed) => seed,
        None => u64::from_le_bytes(random()?),
    };
    let done = if repairs {
        let now_us = jiff::Timestamp::now().as_microsecond();
        let options =
            RepairOptions { dry_run: arguments.dry_run, index_only: arguments.rebuild_index, now_us };
        repair(&objects, &secret, options, &progress).map(|done| Outcome::Repaired(Box::new(done)))
    } else {
        let checked = check(&objects, &secret, Options { scope, seed }, &progress);
        checked.map(|report| Outcome::Checked(Box::new(report)))
    };
    shown.end();
    match done {
        Err(Error::NoRepository { .. }) => Err(missing()),
        other => other,
    }
}

/// The secret from the one option that was given, or from the environment.
fn secret(arguments: &Arguments) -> Result<Secret> {
    let given = [
        arguments.kit.clone().map(WayIn::Kit),
        arguments.key_file.clone().map(WayIn::KeyFile),
        arguments.passphrase_file.clone().map(WayIn::PassphraseFile),
        arguments.passphrase_command.clone().map(WayIn::PassphraseCommand),
    ];
    let way = given.into_iter().flatten().next();
    let way = way.or_else(|| WayIn::from_environment(|name| std::env::var_os(name)));
    let way = way.ok_or_else(|| {
        let what = "give the way in: --passphrase-file F, --passphrase-command C, --key-file F or --kit F, or set \
                    HOLDFAST_PASSPHRASE_FILE, HOLDFAST_PASSPHRASE_COMMAND or HOLDFAST_KEY_FILE";
        Error::Usage(what.to_owned())
    })?;
    way.read()
}

fn print(text: &str, document: &impl Serialize, json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if json {
        serde_json::to_writer(&mut out, document)?;
        writeln!(out)?;
    } else {
        out.write_all(text.as_bytes())?;
    }
    out.flush()
}

fn print_error(error: &Error, json: bool) -> std::io::Result<()> {
    let mut err = std::io::stderr().lock();
    if json {
        let document = serde_json::json!({"message_type": "error", "code": error.exit_code(), "message": error.to_string()});
        writeln!(err, "{document}")
    } else {
        writeln!(err, "holdfast-fsck: {error}")
    }
}

/// A thread that shows progress until it is told to end.
struct Shown {
    stop: Option<std::sync::mpsc::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Shown {
    fn end(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It holds nothing that matters; if it died, there is no progress, that is all.
            let _ = thread.join();
        }
    }
}

fn show(progress: &Arc<Progress>, quiet: bool) -> Shown {
    if quiet {
        return Shown { stop: None, thread: None };
    }
    let (stop, stopped) = channel();
    let progress = Arc::clone(progress);
    let thread =
        std::thread::Builder::new().name("progress".into()).spawn(move || display(&progress, &stopped)).ok();
    Shown { stop: Some(stop), thread }
}

fn display(progress: &Progress, stopped: &Receiver<()>) {
    let terminal = std::io::stderr().is_terminal();
    let interval = if terminal { TERMINAL_INTERVAL } else { LINE_INTERVAL };
    let mut drawn = false;
    while let Err(RecvTimeoutError::Timeout) = stopped.recv_timeout(interval) {
        let line = progress.reading().line();
        let mut err = std::io::stderr().lock();
        // Progress that cannot be written is no reason to stop a check.
        let _ = if terminal { write!(err, "\r\x1b[K{line}") } else { writeln!(err, "{line}") };
        let _ = err.flush();
        drawn = true;
    }
    if drawn && terminal {
        let mut err = std::io::stderr().lock();
        let _ = write!(err, "\r\x1b[K");
        let _ = err.flush();
    }
}
