//! A job: what is to be done, how far it is, how it ended.

use holdfast_appliance::error::{Code, Error};
use holdfast_appliance::own::Own;
use holdfast_appliance::progress::{Reading, Watcher};
use holdfast_appliance::time::{Micros, now, show_time};
use serde::{Deserialize, Serialize, Serializer};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Sentences that a job says are kept up to this number.
const NOTES_MAX: usize = 50;

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Work {
    /// A base backup.
    Backup {
        /// The server's name.
        server: String,
        /// Kept with the backup.
        #[serde(default)]
        note: String,
        /// Why: `on_demand`, or what the policy said.
        #[serde(default = "on_demand")]
        why: String,
        /// What it is to have of its own: `name`, `keep_for`, `hold`.
        #[serde(flatten)]
        own: Own,
    },
    /// A restore into a new folder, or over one that holds something.
    Restore {
        /// The server's name.
        server: String,
        /// The moment.
        #[serde(flatten)]
        target: Moment,
        /// The folder.
        into: PathBuf,
        /// Leave the restored server running, read-only.
        #[serde(default)]
        start: bool,
        /// `quick`, `standard`, `full`.
        #[serde(default = "standard")]
        prove: String,
        /// What is in the folder is rewritten where it differs, and the rest removed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        delta: bool,
        /// The folder's own name, typed again, for a `delta` over a folder that no restore made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        confirm: Option<String>,
        /// These tables alone, as `restore --table` takes them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tables: Vec<String>,
        /// The tables of these databases alone.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        databases: Vec<String>,
        /// The restored server carries on replicating from this host of the protected one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        as_replica_of: Option<String>,
        /// The source's settings come along.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        with_config: bool,
    },
    /// The whole repository is read by the second reader.
    Fsck {},
    /// Its structure and one block of 32 are: those of the day.
    Canary {},
    /// Some more of it is read again, and healed from parity.
    Scrub {},
    /// What nobody needs any more goes.
    Prune {
        /// Not only when it is much, or when it is time.
        #[serde(default)]
        now: bool,
    },
    /// A moment is restored into a scratch folder, proved and thrown away.
    Drill {
        /// The server's name.
        server: String,
        /// The moment, as a restore takes it.
        at: String,
    },
}

/// The moment of a restore: one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// `latest`, `fastest`, `backup:…`, a time, `gtid:…`, `gtid-set:…`, `pos:…`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
    /// Everything before this transaction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Everything up to and with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
}

fn on_demand() -> String {
    "on_demand".to_owned()
}

fn standard() -> String {
    "standard".to_owned()
}

impl Work {
    /// The server it is about.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        match self {
            Self::Backup { server, .. } | Self::Restore { server, .. } | Self::Drill { server, .. } => {
                Some(server)
            }
            Self::Fsck {} | Self::Canary {} | Self::Scrub {} | Self::Prune { .. } => None,
        }
    }

    /// Its kind, in one word.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Backup { .. } => "backup",
            Self::Restore { .. } => "restore",
            Self::Fsck {} => "fsck",
            Self::Canary {} => "canary",
            Self::Scrub {} => "scrub",
            Self::Prune { .. } => "prune",
            Self::Drill { .. } => "drill",
        }
    }

    /// Who waits for it: a person with a broken server comes before a person, and a person before the clock.
    #[must_use]
    pub fn urgency(&self) -> u8 {
        match self {
            Self::Restore { .. } => 0,
            Self::Backup { why, .. } if why == "on_demand" => 1,
            Self::Backup { .. } => 2,
            Self::Fsck {} | Self::Canary {} | Self::Scrub {} | Self::Prune { .. } | Self::Drill { .. } => 3,
        }
    }

    /// How long it may take before it is stopped, microseconds.
    #[must_use]
    pub fn limit(&self) -> Micros {
        const DAY: Micros = 86_400_000_000;
        match self {
            Self::Backup { .. } | Self::Canary {} | Self::Scrub {} | Self::Prune { .. } => DAY,
            Self::Restore { .. } | Self::Fsck {} | Self::Drill { .. } => 7 * DAY,
        }
    }
}

/// How a job stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// Waits for a slot.
    Queued,
    /// Runs.
    Running,
    /// Did what it was to do.
    Done,
    /// Did not.
    Failed,
    /// Was stopped by a person.
    Cancelled,
}

impl Standing {
    /// Whether nothing more will come.
    #[must_use]
    pub fn ended(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

/// What went wrong, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// The error's code, as exit statuses name it.
    pub code: String,
    /// The sentence.
    pub message: String,
    /// The next step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        Self { code: code_word(error.code), message: error.message.clone(), next: error.next.clone() }
    }
}

/// A code as JSON names it.
#[must_use]
pub fn code_word(code: Code) -> String {
    match serde_json::to_value(code) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "failed".to_owned(),
    }
}

/// A job as it is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Job {
    /// Its number.
    pub id: u64,
    /// What is to be done.
    pub work: Work,
    /// Who asked: `schedule`, `uid:0`, a token's name.
    pub by: String,
    /// How it stands.
    pub standing: Standing,
    /// When it was accepted.
    pub created: Micros,
    /// When it was begun the last time.
    pub started: Option<Micros>,
    /// When it ended.
    pub ended: Option<Micros>,
    /// How often it was begun; more than once after a crash or a restart of the daemon.
    pub tries: u32,
    /// What came of it.
    pub result: Option<serde_json::Value>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// The caller's own key: the same request again is the same job.
    pub key: Option<String>,
    /// What was asked with that key, and the digest of the request's body. Jobs of earlier versions have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
}

/// A running job's face to the appliance: takes its progress, and carries the wish to stop.
#[derive(Debug)]
pub struct Live {
    cancelled: AtomicBool,
    stopping: Arc<AtomicBool>,
    deadline: Micros,
    at: Mutex<At>,
}

/// How far a job is.
#[derive(Clone, Debug, Default, Serialize)]
pub struct At {
    /// What is being done.
    pub phase: String,
    /// Units done.
    pub done: u64,
    /// Units in all, when known.
    pub total: Option<u64>,
    /// Whether the units are bytes; transactions otherwise.
    pub bytes: bool,
    /// When the phase began.
    #[serde(serialize_with = "time")]
    pub since: Micros,
    /// Percent of this phase that are done, when it is known how much there is.
    pub percent: Option<f64>,
    /// Units a second since the phase began.
    pub rate: Option<f64>,
    /// Seconds to the end of this phase, if it goes on like this.
    pub eta_seconds: Option<f64>,
    /// The last sentences that it said.
    pub notes: Vec<String>,
}

impl At {
    /// The same with what follows from it at this moment.
    fn judged(mut self, now: Micros) -> Self {
        let seconds = now.saturating_sub(self.since) as f64 / 1e6;
        // After a moment: the first units say nothing of those that follow.
        self.rate = (self.done > 0 && seconds >= 1.0).then(|| self.done as f64 / seconds);
        let total = self.total.filter(|total| *total > 0);
        self.percent = total.map(|total| (100.0 * self.done as f64 / total as f64).min(100.0));
        let left = total.map(|total| total.saturating_sub(self.done) as f64);
        self.eta_seconds = left.zip(self.rate).map(|(left, rate)| left / rate);
        self
    }
}

/// Writes a time as RFC 3339.
///
/// # Errors
/// The serializer's.
pub fn time<S: Serializer>(at: &Micros, out: S) -> Result<S::Ok, S::Error> {
    out.serialize_str(&show_time(*at))
}

impl Live {
    /// A job that is begun now and may take `limit`.
    #[must_use]
    pub fn new(stopping: Arc<AtomicBool>, limit: Micros) -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            stopping,
            deadline: now().saturating_add(limit),
            at: Mutex::default(),
        }
    }

    /// Asks it to stop.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether a person asked it to stop.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Whether its time is over.
    #[must_use]
    pub fn is_late(&self) -> bool {
        now() > self.deadline
    }

    /// How far it is.
    #[must_use]
    pub fn at(&self) -> At {
        self.at.lock().map(|at| at.clone()).unwrap_or_default().judged(now())
    }
}

impl Watcher for Live {
    fn reading(&self, reading: Reading) {
        let Ok(mut at) = self.at.lock() else { return };
        if at.phase != reading.phase {
            at.phase = reading.phase.to_owned();
            at.since = now();
        }
        (at.done, at.total, at.bytes) = (reading.done, reading.total, reading.bytes);
    }

    fn note(&self, text: &str) {
        let Ok(mut at) = self.at.lock() else { return };
        if at.notes.len() == NOTES_MAX {
            at.notes.remove(0);
        }
        at.notes.push(text.to_owned());
    }

    fn cancelled(&self) -> bool {
        self.is_cancelled() || self.stopping.load(Ordering::Relaxed) || self.is_late()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_tells_percent_rate_and_the_time_that_is_left() {
        let of = |done, total| At { done, total, since: 0, ..At::default() };
        let at = of(30, Some(120)).judged(10_000_000);
        assert_eq!((at.percent, at.rate, at.eta_seconds), (Some(25.0), Some(3.0), Some(30.0)));
        let at = of(30, None).judged(10_000_000);
        assert_eq!((at.percent, at.rate, at.eta_seconds), (None, Some(3.0), None));
        let at = of(30, Some(120)).judged(500_000);
        assert_eq!((at.percent, at.rate, at.eta_seconds), (Some(25.0), None, None));
        let at = of(7, Some(5)).judged(7_000_000);
        assert_eq!((at.percent, at.eta_seconds), (Some(100.0), Some(0.0)));
    }
}
