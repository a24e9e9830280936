//! What a repository can't know, kept over restarts: jobs that were accepted, tries that failed, who is paused.
//!
//! One JSON file, replaced whole and durably at each change. Everything else is read from the repository, so that a
//! lost state costs a few answers and never a backup.

use crate::alerts::{Message, OpenAlert};
use crate::approvals::Request;
use crate::files;
use crate::jobs::Job;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::policy::Policy;
use holdfast_appliance::time::Micros;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard};

/// Jobs that have ended and are remembered.
const ENDED_MAX: usize = 1000;
/// Failed tries that are remembered of a server; the schedule asks for the last one and their number.
const FAILED_MAX: usize = 1000;

/// What is kept.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Content {
    /// Tells this state's jobs from those of a state that was lost.
    pub id: String,
    /// The number of the next job.
    pub next_job: u64,
    /// Jobs, oldest first.
    pub jobs: Vec<Job>,
    /// By server.
    pub servers: BTreeMap<String, ServerState>,
    /// The last whole check.
    pub fsck: Option<Checked>,
    /// The last check of one block of 32.
    pub canary: Option<Checked>,
    /// How many of those came to a verdict: the next one's turn.
    pub canaries: u64,
    /// The last prune that went through.
    pub prune: Option<Pruned>,
    /// Alerts that were told and are not over.
    pub alerts: BTreeMap<String, OpenAlert>,
    /// Alerts told since this state was begun, ends included.
    pub alerts_told: u64,
    /// Messages about them that were not taken yet, oldest first.
    pub outbox: Vec<Message>,
    /// What waits for a second person, and what was decided lately, oldest first.
    pub approvals: Vec<Request>,
    /// Requests since this state was begun.
    pub approvals_asked: u64,
    /// Answers to requests with an idempotency key that began no job, oldest first.
    pub answers: Vec<Answered>,
    /// When this state was begun.
    pub begun: Micros,
}

/// What was answered to a request with an idempotency key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answered {
    /// The key.
    pub key: String,
    /// Who asked.
    pub by: String,
    /// Method and path.
    pub what: String,
    /// BLAKE3 of the request's body.
    pub body: String,
    /// When.
    pub at: Micros,
    /// The HTTP status.
    pub status: u16,
    /// The answer, JSON.
    pub answer: String,
}

/// What is kept of a server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ServerState {
    /// Nothing is begun, and its log is not followed.
    pub paused: bool,
    /// Ends of the tries that failed since the last good base.
    pub failed: Vec<Micros>,
    /// The policy that expiry went by last.
    pub policy: Option<Policy>,
    /// One that kept more, and until when it still counts; the end of time: until a second person agrees.
    pub before: Option<(Policy, Micros)>,
    /// When the policy last changed in what it keeps; 0: never since the server is known.
    pub policy_since: Micros,
}

/// A whole check.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Checked {
    /// When it ended.
    pub at: Micros,
    /// Nothing was wrong.
    pub clean: bool,
    /// What was, in a few words.
    pub summary: String,
}

/// A prune.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pruned {
    /// When it ended.
    pub at: Micros,
    /// Bytes that it gave back.
    pub freed_bytes: u64,
}

/// The state and its file.
#[derive(Debug)]
pub struct State {
    file: PathBuf,
    content: Mutex<Content>,
}

impl State {
    /// Reads the file in `dir`; none is a fresh state.
    ///
    /// # Errors
    /// `Failed` when it can't be read. It is never thrown away unseen.
    pub fn open(dir: &Path, now: Micros) -> Result<Self> {
        let file = dir.join("state.json");
        let content = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| {
                Error::failed(format!("The daemon's state {} can't be read: {error}.", file.display()))
                    .with_next("move it away: jobs that were waiting are forgotten with it, and no backup is")
            })?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Content { id: fresh_id()?, next_job: 1, begun: now, ..Content::default() }
            }
            Err(error) => {
                return Err(Error::failed(format!(
                    "The daemon's state {} can't be read: {error}.",
                    file.display()
                )));
            }
        };
        let state = Self { file, content: Mutex::new(content) };
        state.change(|_| ())?;
        Ok(state)
    }

    /// Looks at it.
    pub fn read<T>(&self, look: impl FnOnce(&Content) -> T) -> T {
        look(&self.lock())
    }

    /// Changes it; durable when it returns. A change that could not be written is not made.
    ///
    /// # Errors
    /// `Failed` with the file's name.
    pub fn change<T>(&self, change: impl FnOnce(&mut Content) -> T) -> Result<T> {
        let mut content = self.lock();
        let mut next = content.clone();
        let answer = change(&mut next);
        let ended = next.jobs.iter().filter(|j| j.standing.ended()).count();
        let mut surplus = ended.saturating_sub(ENDED_MAX);
        next.jobs.retain(|job| {
            let goes = surplus > 0 && job.standing.ended();
            surplus -= usize::from(goes);
            !goes
        });
        for server in next.servers.values_mut() {
            let surplus = server.failed.len().saturating_sub(FAILED_MAX);
            server.failed.drain(..surplus);
        }
        let bytes = serde_json::to_vec(&next)
            .map_err(|error| Error::failed(format!("The daemon's state can't be written: {error}.")))?;
        files::replace(&self.file, &bytes)?;
        *content = next;
        Ok(answer)
    }

    fn lock(&self) -> MutexGuard<'_, Content> {
        // A change is made on a copy: whoever panicked left the content whole.
        self.content.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn fresh_id() -> Result<String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes)
        .map_err(|error| Error::failed(format!("The system gave no random bytes: {error}.")))?;
    Ok(format!("{:016x}", u64::from_le_bytes(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::jobs::{Standing, Work};

    fn job(id: u64, standing: Standing) -> Job {
        Job {
            id,
            work: Work::Fsck {},
            by: "test".into(),
            standing,
            created: 1,
            started: None,
            ended: None,
            tries: 0,
            result: None,
            failure: None,
            key: None,
            request: None,
        }
    }

    #[test]
    fn a_change_is_there_after_a_restart_and_a_torn_neighbour_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 7).unwrap();
        state.change(|c| c.jobs.push(job(1, Standing::Queued))).unwrap();
        std::fs::write(dir.path().join(".state.json.new"), "{\"jo").unwrap();
        let id = state.read(|c| c.id.clone());
        drop(state);
        let again = State::open(dir.path(), 9).unwrap();
        again.read(|c| {
            assert_eq!((c.jobs.len(), c.begun, &c.id), (1, 7, &id));
        });
    }

    #[test]
    fn ended_jobs_are_forgotten_in_the_end_and_waiting_ones_never() {
        let dir = tempfile::tempdir().unwrap();
        let state = State::open(dir.path(), 0).unwrap();
        state
            .change(|c| {
                c.jobs.push(job(0, Standing::Queued));
                c.jobs.extend((1..=1500).map(|id| job(id, Standing::Done)));
            })
            .unwrap();
        state.read(|c| {
            assert_eq!(c.jobs.len(), ENDED_MAX + 1);
            assert_eq!(c.jobs.first().map(|j| j.id), Some(0));
            assert_eq!(c.jobs.last().map(|j| j.id), Some(1500));
        });
    }

    #[test]
    fn a_state_that_cant_be_read_is_an_error_and_not_a_fresh_one() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("state.json"), "{").unwrap();
        assert!(State::open(dir.path(), 0).unwrap_err().next.is_some());
    }
}
