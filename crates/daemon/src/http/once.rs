//! Idempotency keys: the same request again gets the same answer, and nothing is done twice. That is looked for before
//! anything else is: what the request was about may be gone by then, and whoever missed the answer must not take that for it.
//!
//! An answer is kept once the deed is done. A daemon that dies in between knows no answer; asked again, it tries again,
//! and the deed's own refusal says that it is done. A refusal is not kept: what was refused may be asked for again.

use super::answer::{Answer, Outcome, Refusal, answer};
use super::api::Request;
use super::body::Reply;
use crate::daemon::Daemon;
use crate::queue::{JobView, Keyed, other_use};
use crate::state::Answered;
use holdfast_appliance::error::{Code, Error};
use holdfast_appliance::time::now;
use hyper::StatusCode;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Answers that are remembered.
const ANSWERS_MAX: usize = 200;

/// The keys of requests that are being answered.
pub(crate) type Answering = Mutex<HashSet<String>>;

/// A key while its request is being answered.
pub(super) struct Turn<'d> {
    all: &'d Answering,
    key: &'d str,
}

impl<'d> Turn<'d> {
    fn take(all: &'d Answering, key: &'d str) -> Option<Self> {
        let fresh = all.lock().unwrap_or_else(PoisonError::into_inner).insert(key.to_owned());
        fresh.then_some(Self { all, key })
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).remove(self.key);
    }
}

/// The turn of a request's key, if it has one: whoever asks with the same key meanwhile is told to wait.
pub(super) fn turn<'d>(
    daemon: &'d Daemon,
    asked: &'d Request,
) -> std::result::Result<Option<Turn<'d>>, Refusal> {
    let Some(key) = asked.key.as_deref() else { return Ok(None) };
    let refusal = || {
        Error::new(Code::Locked, "A request with this idempotency key is being answered.")
            .with_next("ask again in a moment, with the same key")
    };
    Ok(Some(Turn::take(&daemon.answering, key).ok_or_else(refusal)?))
}

/// Answers a request by `work`, or as the same request with the same key was answered before.
pub(super) fn once(daemon: &Daemon, asked: &Request, work: impl FnOnce() -> Outcome) -> Outcome {
    let Some(key) = asked.key.as_deref() else { return work() };
    let _turn = turn(daemon, asked)?;
    let body = digest(asked);
    let (earlier, job) = daemon.state.read(|content| {
        let earlier = content.answers.iter().find(|answered| answered.key == key).cloned();
        let job = content.jobs.iter().find(|job| job.key.as_deref() == Some(key));
        (earlier, job.map(|job| (job.id, job.by == asked.caller.name)))
    });
    if let Some((job, own)) = job {
        return Err(other_use(own.then(|| format!("the job {job}"))).into());
    }
    if let Some(earlier) = earlier {
        let same = (&earlier.by, &earlier.what, &earlier.body) == (&asked.caller.name, &asked.what, &body);
        let own = earlier.by == asked.caller.name;
        return if same { again(&earlier) } else { Err(other_use(own.then_some(earlier.what)).into()) };
    }
    let done = work()?;
    if done.status().is_success()
        && let Reply::Whole(bytes) = done.body()
    {
        let answered = Answered {
            key: key.to_owned(),
            by: asked.caller.name.clone(),
            what: asked.what.clone(),
            body,
            at: now(),
            status: done.status().as_u16(),
            answer: String::from_utf8_lossy(bytes).into_owned(),
        };
        let kept = daemon.state.change(|content| {
            content.answers.push(answered);
            let surplus = content.answers.len().saturating_sub(ANSWERS_MAX);
            content.answers.drain(..surplus);
        });
        if let Err(error) = kept {
            // It is done, and whoever asked must hear so.
            tracing::error!(request = %asked.what, "the answer can't be kept for its key: {}", error.message);
        }
    }
    Ok(done)
}

fn digest(asked: &Request) -> String {
    blake3::hash(&asked.body).to_hex().to_string()
}

/// The key of a request for a job, with what tells that request from others.
pub(super) fn keyed(asked: &Request) -> Option<Keyed> {
    let key = asked.key.clone()?;
    Some(Keyed { key, request: format!("{} {}", asked.what, digest(asked)) })
}

/// The job that the same request with the same key began before.
pub(super) fn begun(daemon: &Daemon, asked: &Request) -> Option<JobView> {
    daemon.queue.accepted(&keyed(asked)?, &asked.caller.name)
}

fn again(earlier: &Answered) -> Outcome {
    let status = StatusCode::from_u16(earlier.status).unwrap_or(StatusCode::OK);
    let made: Answer = answer(status, "application/json", earlier.answer.clone());
    Ok(made)
}
