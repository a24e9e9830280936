//! The queue: jobs are accepted durably, wait for a slot, and never overlap where they may not.

use crate::events::Events;
use crate::jobs::{At, Failure, Job, Live, Standing, Work};
use crate::state::State;
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::time::now;
use serde::Serialize;
use serde_json::Value;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Jobs that may wait; more is a caller gone wild.
const WAITING_MAX: usize = 1000;

/// The queue.
#[derive(Debug)]
pub struct Queue {
    state: Arc<State>,
    events: Arc<Events>,
    stopping: Arc<AtomicBool>,
    live: Mutex<HashMap<u64, Arc<Live>>>,
    wake: Condvar,
}

/// A job with what is known of it while it runs.
#[derive(Clone, Debug, Serialize)]
pub struct JobView {
    /// Its number.
    pub id: u64,
    /// `backup`, `restore`, `fsck`, `canary`, `scrub`, `prune`, `drill`.
    pub kind: &'static str,
    /// The server it is about.
    pub server: Option<String>,
    /// What is to be done, in full.
    pub work: Work,
    /// Who asked.
    pub by: String,
    /// How it stands.
    pub standing: Standing,
    /// When it was accepted.
    #[serde(serialize_with = "crate::jobs::time")]
    pub created: i64,
    /// When it was begun the last time.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub started: Option<i64>,
    /// When it ended.
    #[serde(serialize_with = "holdfast_appliance::views::maybe_time")]
    pub ended: Option<i64>,
    /// How often it was begun.
    pub tries: u32,
    /// How far it is, while it runs.
    pub progress: Option<At>,
    /// What came of it.
    pub result: Option<Value>,
    /// What went wrong.
    pub failure: Option<Failure>,
}

/// An idempotency key, and the request that it came with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keyed {
    /// The key.
    pub key: String,
    /// What was asked, and the digest of its body.
    pub request: String,
}

impl Queue {
    /// The queue of this state. Jobs that were running when the daemon ended wait again.
    ///
    /// # Errors
    /// `Failed` when the state can't be written.
    pub fn new(state: Arc<State>, events: Arc<Events>, stopping: Arc<AtomicBool>) -> Result<Self> {
        state.change(|content| {
            for job in &mut content.jobs {
                if job.standing == Standing::Running {
                    job.standing = Standing::Queued;
                }
            }
        })?;
        Ok(Self { state, events, stopping, live: Mutex::default(), wake: Condvar::new() })
    }

    /// Accepts a job; it will be done even if the daemon dies now. The same `key` again is the same job.
    ///
    /// # Errors
    /// `Locked` when the same is being done or waiting, or the queue is full; `Usage` when `key` was used for
    /// something else.
    pub fn submit(&self, work: Work, by: &str, keyed: Option<Keyed>) -> Result<JobView> {
        let (key, request) = keyed.map(|keyed| (keyed.key, keyed.request)).unzip();
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let earlier = self.state.read(|content| {
            key.as_ref().and_then(|key| content.jobs.iter().find(|j| j.key.as_ref() == Some(key)).cloned())
        });
        if let Some(job) = earlier {
            if !is_same(&job.work, &work) || job.by != by {
                return Err(other_use((job.by == by).then(|| format!("the job {}", job.id))));
            }
            return Ok(view(&job, live.get(&job.id)));
        }
        let used = self.state.read(|content| {
            let same = content.answers.iter().find(|answered| Some(&answered.key) == key.as_ref());
            same.map(|answered| (answered.by == by).then(|| answered.what.clone()))
        });
        if let Some(what) = used {
            return Err(other_use(what));
        }
        let refusal = self.state.read(|content| {
            let mut open = content.jobs.iter().filter(|j| !j.standing.ended());
            if let Some(other) = open.clone().find(|j| overlap(&j.work, &work)) {
                return Some(
                    Error::new(
                        Code::Locked,
                        format!("The job {} is doing that already, or waits to.", other.id),
                    )
                    .with_next(format!("wait for it: holdfast jobs {}", other.id)),
                );
            }
            (open.by_ref().count() >= WAITING_MAX).then(|| {
                Error::new(Code::Locked, format!("{WAITING_MAX} jobs wait already."))
                    .with_next("wait for some of them, or cancel some")
            })
        });
        if let Some(error) = refusal {
            return Err(error);
        }
        let job = self.state.change(|content| {
            let job = Job {
                id: content.next_job,
                work,
                by: by.to_owned(),
                standing: Standing::Queued,
                created: now(),
                started: None,
                ended: None,
                tries: 0,
                result: None,
                failure: None,
                key,
                request,
            };
            content.next_job += 1;
            content.jobs.push(job.clone());
            job
        })?;
        drop(live);
        self.wake.notify_all();
        self.tell(&job);
        Ok(view(&job, None))
    }

    /// The job that was accepted for this very request of `by` before, if one was.
    #[must_use]
    pub fn accepted(&self, keyed: &Keyed, by: &str) -> Option<JobView> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |job: &&Job| {
            job.by == by
                && job.key.as_ref() == Some(&keyed.key)
                && job.request.as_ref() == Some(&keyed.request)
        };
        let job = self.state.read(|content| content.jobs.iter().find(same).cloned())?;
        Some(view(&job, live.get(&job.id)))
    }

    /// Whether a job was accepted for this key and work before.
    #[must_use]
    pub fn knows(&self, key: Option<&str>, work: &Work) -> bool {
        let same = |job: &Job| job.key.as_deref() == key && is_same(&job.work, work);
        key.is_some() && self.state.read(|content| content.jobs.iter().any(same))
    }

    /// Waits for a job that may run now and marks it as running; `None` when the daemon ends.
    ///
    /// # Errors
    /// `Failed` when the state can't be written.
    pub fn take(&self) -> Result<Option<(Job, Arc<Live>)>> {
        let mut live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if self.stopping.load(Ordering::Relaxed) {
                return Ok(None);
            }
            if let Some(id) = self.state.read(|content| next(&content.jobs)) {
                let job = self.state.change(|content| {
                    let job = content.jobs.iter_mut().find(|j| j.id == id)?;
                    job.standing = Standing::Running;
                    job.started = Some(now());
                    job.tries += 1;
                    Some(job.clone())
                })?;
                if let Some(job) = job {
                    let face = Arc::new(Live::new(Arc::clone(&self.stopping), job.work.limit()));
                    live.insert(job.id, Arc::clone(&face));
                    self.tell(&job);
                    return Ok(Some((job, face)));
                }
            }
            // A job that waits for another one is looked at again when that ends.
            const LOOK: Duration = Duration::from_millis(500);
            live = self.wake.wait_timeout(live, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Notes how a job ended. One that was stopped because the daemon ends waits for the next start.
    ///
    /// # Errors
    /// `Failed` when the state can't be written.
    pub fn end(&self, id: u64, outcome: Result<Value>) -> Result<Standing> {
        let face = self.live.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
        let stopped = self.stopping.load(Ordering::Relaxed);
        let cancelled = face.as_ref().is_some_and(|f| f.is_cancelled());
        let late = face.as_ref().is_some_and(|f| f.is_late());
        let (standing, result, failure) = match outcome {
            Ok(result) => (Standing::Done, Some(result), None),
            Err(error) if error.code == Code::Interrupted && cancelled => {
                (Standing::Cancelled, None, Some(Failure::from(&error)))
            }
            Err(error) if error.code == Code::Interrupted && stopped => (Standing::Queued, None, None),
            Err(error) if error.code == Code::Interrupted && late => {
                let message = format!("The job's time was over. {}", error.message);
                (Standing::Failed, None, Some(Failure { message, ..Failure::from(&error) }))
            }
            Err(error) => (Standing::Failed, None, Some(Failure::from(&error))),
        };
        let job = self.state.change(|content| {
            let job = content.jobs.iter_mut().find(|j| j.id == id)?;
            job.standing = standing;
            job.ended = standing.ended().then(now);
            (job.result, job.failure) = (result, failure);
            Some(job.clone())
        })?;
        self.wake.notify_all();
        if let Some(job) = job {
            self.tell(&job);
        }
        Ok(standing)
    }

    /// Stops a job, or takes it out of the queue.
    ///
    /// # Errors
    /// `Usage` when there is no such job, or it has ended.
    pub fn cancel(&self, id: u64) -> Result<JobView> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let job = self.get_job(id)?;
        match job.standing {
            Standing::Running => {
                let face = live.get(&id);
                face.iter().for_each(|face| face.cancel());
                Ok(view(&job, face))
            }
            Standing::Queued => {
                let job = self.state.change(|content| {
                    let job = content.jobs.iter_mut().find(|j| j.id == id)?;
                    (job.standing, job.ended) = (Standing::Cancelled, Some(now()));
                    Some(job.clone())
                })?;
                let job = job.ok_or_else(|| no_job(id))?;
                self.tell(&job);
                Ok(view(&job, None))
            }
            _ => Err(Error::usage(format!("The job {id} has ended already."))),
        }
    }

    /// One job.
    ///
    /// # Errors
    /// `Usage` when there is none of that number.
    pub fn get(&self, id: u64) -> Result<JobView> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(view(&self.get_job(id)?, live.get(&id)))
    }

    /// The newest jobs first, those that have not ended before all others.
    #[must_use]
    pub fn list(&self, most: usize) -> Vec<JobView> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let mut jobs = self.state.read(|content| content.jobs.clone());
        jobs.sort_by_key(|job| (job.standing.ended(), std::cmp::Reverse(job.id)));
        jobs.iter().take(most).map(|job| view(job, live.get(&job.id))).collect()
    }

    /// The jobs that have not ended, the newest first.
    #[must_use]
    pub fn open(&self) -> Vec<JobView> {
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        self.state.read(|content| {
            let open = content.jobs.iter().rev().filter(|job| !job.standing.ended());
            open.map(|job| view(job, live.get(&job.id))).collect()
        })
    }

    /// Whether a job that fits waits or runs.
    #[must_use]
    pub fn is_open(&self, fits: impl Fn(&Work) -> bool) -> bool {
        self.state.read(|content| content.jobs.iter().any(|j| !j.standing.ended() && fits(&j.work)))
    }

    /// Tells whoever listens how far the running jobs are.
    pub fn tell_progress(&self) {
        if !self.events.is_heard() {
            return;
        }
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, face) in live.iter() {
            self.events.send("progress", &serde_json::json!({ "id": id, "progress": face.at() }));
        }
    }

    /// Wakes everybody who waits for a job: the daemon ends.
    pub fn stop(&self) {
        self.wake.notify_all();
    }

    fn get_job(&self, id: u64) -> Result<Job> {
        self.state.read(|content| content.jobs.iter().find(|j| j.id == id).cloned()).ok_or_else(|| no_job(id))
    }

    fn tell(&self, job: &Job) {
        self.events.send("job", &view(job, None));
    }
}

fn no_job(id: u64) -> Error {
    Error::usage(format!("There is no job {id}.")).with_next("see holdfast jobs")
}

/// Whether both were asked for by the same request: of a drill, the moment is not asked for.
fn is_same(one: &Work, other: &Work) -> bool {
    match (one, other) {
        (Work::Drill { server: a, .. }, Work::Drill { server: b, .. }) => a == b,
        _ => one == other,
    }
}

/// Whether two jobs would do the same work, or into the same place.
fn overlap(one: &Work, other: &Work) -> bool {
    match (one, other) {
        (Work::Backup { server: a, .. }, Work::Backup { server: b, .. }) => a == b,
        (Work::Restore { into: a, .. }, Work::Restore { into: b, .. }) => a == b,
        // Two drills would count the same free space.
        (Work::Fsck {}, Work::Fsck {})
        | (Work::Canary {}, Work::Canary {})
        | (Work::Scrub {}, Work::Scrub {})
        | (Work::Prune { .. }, Work::Prune { .. })
        | (Work::Drill { .. }, Work::Drill { .. }) => true,
        _ => false,
    }
}

/// Whether one of them has to wait while the other runs: a check names all that a prune would take away.
fn excludes(one: &Work, other: &Work) -> bool {
    let pair = |a: &Work, b: &Work| matches!((a, b), (Work::Fsck {} | Work::Canary {}, Work::Prune { .. }));
    pair(one, other) || pair(other, one)
}

/// The job to begin next: the most urgent one, of the server with the fewest that run, the oldest.
fn next(jobs: &[Job]) -> Option<u64> {
    let running = |server: Option<&str>| {
        jobs.iter().filter(|j| j.standing == Standing::Running && j.work.server() == server).count()
    };
    jobs.iter()
        .filter(|job| job.standing == Standing::Queued)
        .filter(|job| !jobs.iter().any(|j| j.standing == Standing::Running && excludes(&j.work, &job.work)))
        .min_by_key(|job| (job.work.urgency(), running(job.work.server()), job.id))
        .map(|job| job.id)
}

fn view(job: &Job, live: Option<&Arc<Live>>) -> JobView {
    JobView {
        id: job.id,
        kind: job.work.kind(),
        server: job.work.server().map(str::to_owned),
        work: job.work.clone(),
        by: job.by.clone(),
        standing: job.standing,
        created: job.created,
        started: job.started,
        ended: job.ended,
        tries: job.tries,
        progress: live.map(|l| l.at()),
        result: job.result.clone().map(without_rows),
        failure: job.failure.clone(),
    }
}

/// What came of a job without what its check queries are and gave: jobs are seen by whoever may not see rows of tables.
/// The report that the repository keeps has both.
fn without_rows(mut result: Value) -> Value {
    for pointer in ["/report/queries", "/queries"] {
        let queries = result.pointer_mut(pointer).and_then(Value::as_array_mut);
        for query in queries.into_iter().flatten().filter_map(Value::as_object_mut) {
            query.retain(|member, _| !["sql", "first_row", "failure"].contains(&member.as_str()));
        }
    }
    result
}

/// A key that was used before. `what` for, is for whoever used it.
pub(crate) fn other_use(what: Option<String>) -> Error {
    let what = what.map_or_else(String::new, |what| format!(", {what}"));
    Error::usage(format!("The idempotency key was used for another request{what}."))
        .with_next("use a key of its own for each request")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_drill_is_shown_without_the_rows_of_its_queries() {
        let query = serde_json::json!({"name": "query 1", "sql": "SELECT secret", "rows": 1, "first_row": ["secret"]});
        for result in
            [serde_json::json!({"report": {"queries": [query]}}), serde_json::json!({"queries": [query]})]
        {
            let shown = without_rows(result).to_string();
            assert!(shown.contains("query 1") && !shown.contains("secret"), "{shown}");
        }
    }

    fn backup(server: &str, why: &str) -> Work {
        Work::Backup { server: server.into(), note: String::new(), why: why.into(), own: Default::default() }
    }

    fn restore(into: &str) -> Work {
        Work::Restore {
            server: "shop".into(),
            target: crate::jobs::Moment { to: Some("latest".into()), ..Default::default() },
            into: into.into(),
            start: false,
            prove: "quick".into(),
            delta: false,
            confirm: None,
            tables: Vec::new(),
            databases: Vec::new(),
            as_replica_of: None,
            with_config: false,
        }
    }

    fn queue(dir: &std::path::Path) -> (Queue, Arc<AtomicBool>) {
        let stopping = Arc::new(AtomicBool::new(false));
        let state = Arc::new(State::open(dir, 0).unwrap());
        (Queue::new(state, Arc::new(Events::default()), Arc::clone(&stopping)).unwrap(), stopping)
    }

    #[test]
    fn a_restore_overtakes_a_backup_and_a_person_the_clock() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, _) = queue(dir.path());
        queue.submit(Work::Fsck {}, "schedule", None).unwrap();
        queue.submit(backup("a", "age"), "schedule", None).unwrap();
        queue.submit(backup("b", "on_demand"), "me", None).unwrap();
        queue.submit(restore("/r/1"), "me", None).unwrap();
        let order: Vec<_> = (0..4).map(|_| queue.take().unwrap().unwrap().0.id).collect();
        assert_eq!(order, [4, 3, 2, 1]);
    }

    #[test]
    fn the_same_backup_twice_is_refused_and_the_same_key_twice_is_the_same_job() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, _) = queue(dir.path());
        let keyed = |request: &str| Keyed { key: "k".into(), request: request.into() };
        let first = queue.submit(backup("a", "on_demand"), "me", Some(keyed("a"))).unwrap();
        assert_eq!(queue.submit(backup("a", "on_demand"), "me", None).unwrap_err().code, Code::Locked);
        // The same in other words, too.
        let again = queue.submit(backup("a", "on_demand"), "me", Some(keyed(" a"))).unwrap();
        assert_eq!(again.id, first.id);
        assert_eq!(queue.accepted(&keyed("a"), "me").unwrap().id, first.id);
        for (request, by) in [("b", "me"), ("a", "somebody")] {
            assert!(queue.accepted(&keyed(request), by).is_none());
        }
        let other = queue.submit(backup("b", "on_demand"), "me", Some(keyed("b")));
        assert_eq!(other.unwrap_err().code, Code::Usage);
        assert_eq!(queue.submit(backup("a", "age"), "schedule", None).unwrap_err().code, Code::Locked);
    }

    #[test]
    fn a_prune_waits_for_a_check_and_lets_others_pass() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, _) = queue(dir.path());
        let check = queue.submit(Work::Fsck {}, "schedule", None).unwrap().id;
        let prune = queue.submit(Work::Prune { now: false }, "schedule", None).unwrap().id;
        let scrub = queue.submit(Work::Scrub {}, "schedule", None).unwrap().id;
        assert_eq!(queue.submit(Work::Prune { now: true }, "me", None).unwrap_err().code, Code::Locked);
        assert_eq!(queue.take().unwrap().unwrap().0.id, check);
        assert_eq!(queue.take().unwrap().unwrap().0.id, scrub);
        queue.end(check, Ok(Value::Null)).unwrap();
        assert_eq!(queue.take().unwrap().unwrap().0.id, prune);
    }

    #[test]
    fn a_job_that_ran_when_the_daemon_died_waits_again_and_counts_its_tries() {
        let dir = tempfile::tempdir().unwrap();
        let (first, _) = queue(dir.path());
        let id = first.submit(backup("a", "on_demand"), "me", None).unwrap().id;
        let _running = first.take().unwrap().unwrap();
        let (second, _) = queue(dir.path());
        assert_eq!(second.get(id).unwrap().standing, Standing::Queued);
        assert_eq!(second.take().unwrap().unwrap().0.tries, 2);
    }

    #[test]
    fn a_cancelled_job_is_cancelled_and_one_that_the_stop_ended_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (queue, stopping) = queue(dir.path());
        let waiting = queue.submit(restore("/r/1"), "me", None).unwrap().id;
        assert_eq!(queue.cancel(waiting).unwrap().standing, Standing::Cancelled);
        assert!(queue.cancel(waiting).is_err());
        let interrupted = || Err(Error::new(Code::Interrupted, "Stopped."));
        let running = queue.submit(restore("/r/2"), "me", None).unwrap().id;
        let (_, live) = queue.take().unwrap().unwrap();
        queue.cancel(running).unwrap();
        assert!(live.cancelled());
        assert_eq!(queue.end(running, interrupted()).unwrap(), Standing::Cancelled);
        let id = queue.submit(restore("/r/3"), "me", None).unwrap().id;
        let _live = queue.take().unwrap().unwrap();
        stopping.store(true, Ordering::Relaxed);
        assert_eq!(queue.end(id, interrupted()).unwrap(), Standing::Queued);
        assert!(queue.take().unwrap().is_none());
    }

    use holdfast_appliance::progress::Watcher;
}
