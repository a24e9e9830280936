//! A way to get a copy, and whoever watches it.

use crate::error::Error;
use crate::outcome::Outcome;
use crate::sink::Sink;

/// What a copy is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Asking the server what it is and may be copied.
    Preparing,
    /// Data files.
    Files,
    /// Pages that changed meanwhile (clone).
    Pages,
    /// The redo log.
    Redo,
    /// Lengths, names, coordinates.
    Finishing,
}

impl Stage {
    /// One word for a progress line.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Preparing => "preparing",
            Self::Files => "files",
            Self::Pages => "pages",
            Self::Redo => "redo",
            Self::Finishing => "finishing",
        }
    }
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// What it is doing.
    pub stage: Stage,
    /// Bytes received so far.
    pub bytes: u64,
    /// Bytes that there will be as far as is known.
    pub bytes_expected: Option<u64>,
    /// Files met so far.
    pub files: u64,
}

/// Whoever waits for a copy: hears how far it is, and may call it off.
pub trait Watch: Sync {
    /// True from the moment on at which the copy should stop. Asked at least once a second and after each
    /// 1 MiB; a source returns [`Error::Cancelled`] within 2 s of it and leaves nothing behind on the server.
    fn cancelled(&self) -> bool;

    /// Called at most about ten times a second, from any thread; returns quickly.
    fn progress(&self, now: Progress);
}

/// Nobody waits: never cancelled, tells no one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Unwatched;

impl Watch for Unwatched {
    fn cancelled(&self) -> bool {
        false
    }

    fn progress(&self, _now: Progress) {}
}

/// One way to get a physical copy of a server.
pub trait Source {
    /// Pushes one copy into `sink`. On an error the copy is worthless and the sink is to be thrown away;
    /// the server is left as it was found in either case.
    fn copy(&mut self, sink: &dyn Sink, watch: &dyn Watch) -> Result<Outcome, Error>;
}
