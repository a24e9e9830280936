//! MySQL 8.0.17 and later, over its own CLONE protocol.
//!
//! No program and no file access on the server's host: we speak to the clone plugin as another `mysqld` would. The
//! bytes of the protocol are `holdfast_mysql::clone`; what to do when is here.
//!
//! ```text
//! master connection ─┐                      ┌─ feeder ─┐
//! worker connections ┼─ messages ─> spool ──┼─ feeder ─┼─> page check -> sink
//!         ...       ─┘                      └─ feeder ─┘
//! auxiliary connection: acknowledgements, and the word to stop
//! SQL connection: may it be copied? facts, coordinates, KILL
//! ```
//!
//! # Stages and barriers
//!
//! The donor goes through INIT, FILE COPY (raw reads: pages may be torn or old), PAGE COPY (each page that changed since
//! the start, whole), REDO COPY and DONE. It moves on when the end of a stage is acknowledged. Three barriers keep old
//! bytes from winning over new ones, whichever connection they come by:
//!
//! * **B1** the end of a stage is acknowledged when every connection has received its end of that stage; that of FILE
//!   COPY moreover when all its blocks are in the sink and [`crate::Sink::barrier`] has returned.
//! * **B2** a connection that is in a stage before the master waits until the master is there and knows all its files.
//! * **B3** workers join when the master knows all files of FILE COPY, and the master goes on reading when they have.
//!
//! # What it does to the donor
//!
//! DML goes on all the time. DDL waits for the backup lock unless [`CloneSource::concurrent_ddl`] is set. The donor drops
//! a connection that takes no bytes for 60 s, and from PAGE COPY on its redo archive grows until we are done: so bytes
//! are always taken, and what a slow sink can't take at once waits in the spool. A slow sink slows the donor down in
//! FILE COPY only.
//!
//! Source of the protocol: as observed on MySQL 9.7.4.

mod donor;
mod door;
mod files;
mod flow;
mod stages;
mod stream;
#[cfg(test)]
mod trace;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use holdfast_mysql::ConnectOptions;

use crate::error::Error;
use crate::outcome::{Coordinates, NotCarried, Outcome, Warning};
use crate::sink::Sink;
use crate::source::{Source, Watch};
use crate::verify::VerifyingSink;
use donor::Donor;
use flow::Flow;

/// Connections that carry data beside the master.
pub const WORKERS: u32 = 4;

/// The donor's own limit is 128 tasks.
pub const WORKERS_MAX: u32 = 126;

/// How long the donor waits for its backup lock.
const LOCK_WAIT: Duration = Duration::from_secs(300);

/// How long a clone that nobody reads any more is waited for: the donor's keep-alive comes every 5 s.
const TURN_WAIT: Duration = Duration::from_secs(20);

/// A MySQL server as a source.
#[derive(Debug, Clone)]
pub struct CloneSource {
    connect: ConnectOptions,
    spool_dir: PathBuf,
    workers: u32,
    concurrent_ddl: bool,
    lock_wait: Duration,
    turn_wait: Duration,
}

impl CloneSource {
    /// For the server at `connect`, whose account needs BACKUP_ADMIN and REPLICATION CLIENT. `spool_dir` is a folder of
    /// this host with room for what may have to wait there.
    #[must_use]
    pub fn new(connect: ConnectOptions, spool_dir: impl Into<PathBuf>) -> Self {
        let spool_dir = spool_dir.into();
        Self {
            connect,
            spool_dir,
            workers: WORKERS,
            concurrent_ddl: false,
            lock_wait: LOCK_WAIT,
            turn_wait: TURN_WAIT,
        }
    }

    /// With this many connections beside the master; 0 for the master alone, at most [`WORKERS_MAX`].
    #[must_use]
    pub fn workers(mut self, workers: u32) -> Self {
        self.workers = workers.min(WORKERS_MAX);
        self
    }

    /// Lets DDL go on during the copy (MySQL 8.0.27 and later) instead of having it wait.
    #[must_use]
    pub fn concurrent_ddl(mut self, yes: bool) -> Self {
        self.concurrent_ddl = yes;
        self
    }

    /// How long to wait for another clone of the same account to end; that of a killed backup does in some seconds.
    #[must_use]
    pub fn turn_wait(mut self, limit: Duration) -> Self {
        self.turn_wait = limit;
        self
    }

    /// How long to wait for the backup lock when DDL is under way.
    #[must_use]
    pub fn lock_wait(mut self, limit: Duration) -> Self {
        self.lock_wait = limit;
        self
    }
}

impl Source for CloneSource {
    fn copy(&mut self, sink: &dyn Sink, watch: &dyn Watch) -> Result<Outcome, Error> {
        let started = Instant::now();
        let mut donor = Donor::connect(&self.connect)?;
        donor.refuse_unfit()?;
        donor.wait_for_turn(self.turn_wait, watch)?;
        let mut outcome = Outcome::empty();
        outcome.facts.push(("source".to_owned(), "clone".to_owned()));
        outcome.facts.extend(donor.facts()?);
        let (accounts, note) = donor.accounts()?;
        outcome.facts.extend(accounts);
        outcome.warnings.extend(note);
        let (tables, notes) = donor.tables_not_carried()?;
        outcome.not_carried = tables;
        outcome.warnings.extend(notes);

        let verifying = VerifyingSink::new(sink);
        let feeders = thread::available_parallelism().map_or(2, |n| n.get()).clamp(2, 8);
        let flow = Flow::new(self, donor, &verifying, watch, outcome.fact("innodb_page_size"))?;
        let copied = flow.run(feeders)?;

        outcome.coordinates = match (copied.lo, copied.hi) {
            (Some(lo), Some(hi)) => Coordinates::Between { lo, hi },
            _ => Coordinates::None,
        };
        outcome.bytes = copied.bytes;
        outcome.files = copied.files;
        outcome.warnings.extend(copied.warnings);
        let (pages, warnings) = verifying.finish();
        outcome.pages = pages;
        outcome.warnings.extend(warnings);
        let ddl = if self.concurrent_ddl { "went on" } else { "waited" };
        for (name, value) in [
            ("ddl_during_copy", ddl.to_owned()),
            ("clone_protocol", format!("{:#06x}", copied.protocol)),
            ("clone_connections", copied.connections.to_string()),
            ("copy_seconds", started.elapsed().as_secs().to_string()),
        ] {
            outcome.facts.push((name.to_owned(), value));
        }
        if copied.spilled > 0 {
            let text = format!(
                "{} MiB went by way of {}, because the repository was slower than the server",
                copied.spilled >> 20,
                self.spool_dir.display()
            );
            outcome.warnings.push(Warning::Note(text));
        }
        Ok(outcome)
    }
}

/// Why a clone lacks a table's rows.
fn not_carried_reason() -> &'static str {
    "the clone protocol carries InnoDB tables only; the table will be there, empty"
}

/// Tables that this source would not carry, without copying anything.
pub fn tables_not_carried(connect: &ConnectOptions) -> Result<Vec<NotCarried>, Error> {
    Donor::connect(connect)?.tables_not_carried().map(|(tables, _)| tables)
}
