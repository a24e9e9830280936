//! Progress of a job, as facts; how it is drawn is the caller's business.

/// One reading of a running job.
#[derive(Clone, Copy, Debug, Default)]
pub struct Reading {
    /// What is being done, for example `copy` or `replay`.
    pub phase: &'static str,
    /// Units done in this phase.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// Whether the units are bytes; transactions otherwise.
    pub bytes: bool,
    /// What it waits for, where that is known: `the server applies net change`.
    pub limit: Option<&'static str>,
}

/// Whoever wants to see progress, and may ask a job to stop.
pub trait Watcher: Send + Sync {
    /// A new reading; called often, so it must be cheap.
    fn reading(&self, reading: Reading);
    /// A sentence worth showing at once.
    fn note(&self, text: &str);
    /// The archive: everything up to a commit time (microseconds since the Unix epoch; 0 before the first transaction)
    /// is durable, and whether the source had nothing more then.
    fn synced(&self, _last_us: i64, _caught_up: bool) {}
    /// Whether the job should stop at its next safe point.
    fn cancelled(&self) -> bool;
}

/// Nobody watches.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unwatched;

impl Watcher for Unwatched {
    fn reading(&self, _: Reading) {}
    fn note(&self, _: &str) {}
    fn cancelled(&self) -> bool {
        false
    }
}
