//! Who is in which stage: the barriers B1 and B2, apart from any connection.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use holdfast_mysql::clone::descriptor::State;

use crate::error::Error;

/// How often a wait looks whether the copy was given up.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The stage of a clone and how many connections are through with it.
#[derive(Debug)]
pub(super) struct Stages {
    state: Mutex<Inner>,
    changed: Condvar,
}

#[derive(Debug)]
struct Inner {
    /// The stage whose bytes may come: the master has begun it and knows its files.
    open: State,
    /// Connections that take part, the master among them.
    members: u32,
    /// Of those, the ones that have received the end of the open stage.
    ended: u32,
    /// Workers that asked to join or to be refused.
    asked: u32,
    failed: bool,
}

impl Stages {
    pub(super) fn new() -> Self {
        let inner = Inner { open: State::Init, members: 1, ended: 0, asked: 0, failed: false };
        Self { state: Mutex::new(inner), changed: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<T>(
        &self,
        limit: Option<Duration>,
        mut ready: impl FnMut(&Inner) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let started = Instant::now();
        let mut inner = self.lock();
        loop {
            if inner.failed {
                return Err(Error::Cancelled);
            }
            if let Some(value) = ready(&inner) {
                return Ok(Some(value));
            }
            if limit.is_some_and(|limit| started.elapsed() >= limit) {
                return Ok(None);
            }
            inner = self.changed.wait_timeout(inner, LOOK_EVERY).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// The master has begun `state` and knows its files.
    pub(super) fn open(&self, state: State) -> Result<(), Error> {
        let mut inner = self.lock();
        if state.number() != inner.open.number() + 1 {
            return Err(out_of_order("the next stage", inner.open, state));
        }
        inner.open = state;
        inner.ended = 0;
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// The stage whose bytes may come.
    pub(super) fn now(&self) -> State {
        self.lock().open
    }

    /// B2: a worker waits until the master is in `state`. A stage that is over is an error.
    pub(super) fn wait_open(&self, state: State) -> Result<(), Error> {
        self.wait(None, |inner| (inner.open >= state).then_some(inner.open)).and_then(|open| match open {
            Some(open) if open == state => Ok(()),
            open => Err(out_of_order("bytes of the stage under way", open.unwrap_or(State::None), state)),
        })
    }

    /// B3: a worker asks to join when the master is in FILE COPY and knows all its files.
    pub(super) fn wait_files_known(&self) -> Result<(), Error> {
        self.wait(None, |inner| (inner.open >= State::FileCopy).then_some(())).map(drop)
    }

    /// A worker takes part from now on.
    pub(super) fn join(&self) {
        let mut inner = self.lock();
        inner.members += 1;
        inner.asked += 1;
        drop(inner);
        self.changed.notify_all();
    }

    /// A worker will not take part.
    pub(super) fn stay_out(&self) {
        self.lock().asked += 1;
        self.changed.notify_all();
    }

    /// B3: waits until `workers` have joined or will not, at most `limit`: the donor may keep some waiting until its next stage.
    pub(super) fn wait_asked(&self, workers: u32, limit: Duration) -> Result<(), Error> {
        self.wait(Some(limit), |inner| (inner.asked >= workers).then_some(())).map(drop)
    }

    /// A member has received the end of `state`.
    pub(super) fn end(&self, state: State) -> Result<(), Error> {
        let mut inner = self.lock();
        if inner.open != state {
            return Err(out_of_order("the end of the stage under way", inner.open, state));
        }
        inner.ended += 1;
        drop(inner);
        self.changed.notify_all();
        Ok(())
    }

    /// B1: the master waits until all members have received the end of the open stage.
    pub(super) fn wait_ended(&self) -> Result<(), Error> {
        self.wait(None, |inner| (inner.ended >= inner.members).then_some(())).map(drop)
    }

    /// Connections that took part.
    pub(super) fn members(&self) -> u32 {
        self.lock().members
    }

    /// Every wait ends with [`Error::Cancelled`].
    pub(super) fn fail(&self) {
        self.lock().failed = true;
        self.changed.notify_all();
    }
}

fn out_of_order(expected: &str, open: State, got: State) -> Error {
    Error::Malformed {
        place: "the clone's stream".to_owned(),
        expected: format!("{expected} ({open:?})"),
        got: format!("{got:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn the_end_of_a_stage_waits_for_every_member() {
        let stages = Stages::new();
        stages.open(State::FileCopy).unwrap();
        stages.join();
        stages.join();
        stages.stay_out();
        stages.wait_asked(3, LONG).unwrap();
        stages.end(State::FileCopy).unwrap();
        stages.end(State::FileCopy).unwrap();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stages.wait_ended());
            std::thread::sleep(Duration::from_millis(30));
            assert!(!waiting.is_finished());
            stages.end(State::FileCopy).unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert_eq!(stages.members(), 3);
    }

    #[test]
    fn a_worker_ahead_of_the_master_waits_and_one_behind_is_an_error() {
        let stages = Stages::new();
        std::thread::scope(|scope| {
            let ahead = scope.spawn(|| stages.wait_open(State::FileCopy));
            std::thread::sleep(Duration::from_millis(30));
            assert!(!ahead.is_finished());
            stages.open(State::FileCopy).unwrap();
            ahead.join().unwrap().unwrap();
        });
        stages.open(State::PageCopy).unwrap();
        assert!(matches!(stages.wait_open(State::FileCopy), Err(Error::Malformed { .. })));
        assert!(matches!(stages.end(State::FileCopy), Err(Error::Malformed { .. })));
        assert!(matches!(stages.open(State::Done), Err(Error::Malformed { .. })));
    }

    #[test]
    fn nobody_waits_for_a_copy_that_failed() {
        let stages = Stages::new();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| stages.wait_open(State::FileCopy));
            stages.fail();
            assert!(matches!(waiting.join().unwrap(), Err(Error::Cancelled)));
        });
    }
}
