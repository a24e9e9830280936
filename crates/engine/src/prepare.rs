//! `mariadb-backup --prepare`: MariaDB's own recovery of a copy that its backup tool made.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::command;
use crate::error::{Error, Result};
use crate::programs::Programs;
use crate::recovered::{self, RecoveredCoordinates};

/// Text of the log that is searched for the recovered position.
const LOG_MAX: u64 = 4 << 20;

/// What `--prepare` found out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prepared {
    /// The position that InnoDB's recovery reported. Statements that are no InnoDB transaction
    /// leave no trace there, so it may lie before the copy's own coordinates, never after them.
    pub recovered: Option<RecoveredCoordinates>,
}

/// Prepares the copy in `dir`, so that a server can be started on it. The tool's words go to
/// `log`; success is its own "completed OK!" beside exit status 0.
pub fn prepare_mariadb(programs: &Programs, dir: &Path, log: &Path, limit: Duration) -> Result<Prepared> {
    prepare_mariadb_while(programs, dir, log, limit, &|| true)
}

/// The same, for as long as `go_on` says so. A copy on which it was called off can't be prepared again.
pub fn prepare_mariadb_while(
    programs: &Programs,
    dir: &Path,
    log: &Path,
    limit: Duration,
    go_on: &dyn Fn() -> bool,
) -> Result<Prepared> {
    let from = std::fs::metadata(log).map_or(0, |metadata| metadata.len());
    let program = programs.backup_program()?;
    let mut command = Command::new(program);
    command.arg("--no-defaults").arg("--prepare").arg(format!("--target-dir={}", dir.display()));
    let what = format!("{} --prepare on {}", program.display(), dir.display());
    command::run_while(command, &what, log, limit, go_on)?;
    let said = command::read_from(log, from, LOG_MAX);
    if !said.lines().rev().take(20).any(|line| line.trim_end().ends_with("completed OK!")) {
        return Err(Error::Failed {
            program: what,
            status: "it ended without saying \"completed OK!\"".to_owned(),
            tail: command::quote_tail_from(log, from),
        });
    }
    Ok(Prepared { recovered: recovered::from_mariadb_log(&said) })
}
