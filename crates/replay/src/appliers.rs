//! Parallel appliers: connections that carry out the chunks of a plan.
//!
//! Each chunk is one transaction, with a row that says so: a kill loses whole chunks only,
//! and a call after it knows which are there. Within a table, all deletes are committed before
//! the first of the rest begins; different tables do not wait for each other. An applier that is free
//! takes a chunk of a table on which nobody works, if there is one: two at neighbouring keys of one
//! table wait for the same pages.

use std::collections::HashSet;
use std::ops::ControlFlow;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use holdfast_mysql::Conn;

use crate::batch;
use crate::checkpoint::{self, WindowNote};
use crate::error::Error;
use crate::net::plan::{Plan, Stream};
use crate::session::Session;

/// How often a chunk is tried when it meets a deadlock or a lock that another holds: appliers
/// of one table touch neighbouring pages, and each attempt waits a little longer.
const ATTEMPTS_MAX: u32 = 40;

/// How often whoever waits is told of progress.
const TICK: Duration = Duration::from_millis(100);

/// A deadlock, a lock that was not given in time.
const RETRIED: [u16; 2] = [1213, 1205];

/// One connection.
#[derive(Debug)]
pub(crate) struct Applier {
    pub(crate) conn: Conn,
    pub(crate) session: Session,
    /// The format that it was given last, by number.
    pub(crate) format: u64,
}

/// A chunk that the server did not take.
#[derive(Debug)]
pub(crate) struct Refused {
    /// Which one.
    pub(crate) chunk: usize,
    /// What the server said.
    pub(crate) source: holdfast_mysql::Error,
}

/// Why the appliers stopped.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// The server refused a chunk.
    Refused(Refused),
    /// Something else.
    Error(Error),
    /// Whoever waits asked for it.
    Asked,
}

/// A plan that is being applied, on threads of its own, while whoever began it goes on. Dropped, it stops behind the
/// chunks that are being applied: which of them are committed is on record.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) plan: Arc<Plan>,
    /// What is on record of the window.
    pub(crate) note: WindowNote,
    /// Rows that were left to be applied, those of lanes included.
    pub(crate) rows: u64,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Option<Applier>>>,
    /// Those for which the system gave no thread, and what it said.
    idle: Vec<Applier>,
    refused: Option<std::io::Error>,
    packet_max: u64,
}

impl Running {
    /// Begins to apply what is left of the plan.
    pub(crate) fn begin(
        appliers: Vec<Applier>,
        plan: Arc<Plan>,
        (note, rows): (WindowNote, u64),
        done: &HashSet<u32>,
        packet_max: u64,
    ) -> Self {
        let state = Mutex::new(State::new(&plan, done));
        let shared = Arc::new(Shared { plan: Arc::clone(&plan), state, wake: Condvar::new() });
        let working = Arc::clone(&shared);
        let job = move |applier: &mut Applier| work(applier, &working, packet_max, &mut || ());
        let Crew { threads, idle, refused } = crew(appliers, job, spawn);
        Self { plan, note, rows, shared, threads, idle, refused, packet_max }
    }

    /// Is all of it applied, or has it failed?
    pub(crate) fn is_over(&self) -> bool {
        self.shared.lock().is_over()
            || !self.threads.is_empty() && self.threads.iter().all(JoinHandle::is_finished)
    }

    /// The system gave fewer threads than there are appliers: how many there are, and what it said.
    pub(crate) fn short_of_threads(&mut self) -> Option<(usize, std::io::Error)> {
        self.refused.take().map(|error| (self.threads.len(), error))
    }

    /// Has it failed?
    pub(crate) fn has_failed(&self) -> bool {
        self.shared.lock().stopped.is_some()
    }

    /// Rows of net change that are applied.
    pub(crate) fn rows_done(&self) -> u64 {
        self.shared.lock().rows_done
    }

    /// Waits for its end, and gives the appliers back. `tick` is given the rows of net change that were applied, and
    /// whether nothing but lanes is left.
    pub(crate) fn end(
        mut self,
        tick: &mut dyn FnMut(u64, bool) -> ControlFlow<()>,
    ) -> (Vec<Applier>, Result<(), Stopped>) {
        if self.threads.is_empty()
            && let Some(applier) = self.idle.first_mut()
        {
            // Without any thread it is done on this one.
            let shared = &self.shared;
            let mut between = || {
                let (rows, in_order) = shared.so_far();
                if tick(rows, in_order).is_break() {
                    shared.stop();
                }
            };
            work(applier, shared, self.packet_max, &mut between);
        }
        while !self.is_over() {
            let state = self.shared.lock();
            let waited = self.shared.wake.wait_timeout(state, TICK);
            let state = waited.unwrap_or_else(PoisonError::into_inner).0;
            let (rows, in_order) = (state.rows_done, state.only_lanes());
            drop(state);
            if tick(rows, in_order).is_break() {
                self.shared.stop();
            }
        }
        let appliers = self.join();
        let stopped = self.shared.lock().stopped.take();
        (appliers, stopped.map_or(Ok(()), Err))
    }

    fn join(&mut self) -> Vec<Applier> {
        let (mut appliers, mut panicked) = (std::mem::take(&mut self.idle), None);
        for thread in self.threads.drain(..) {
            match thread.join() {
                Ok(applier) => appliers.extend(applier),
                Err(panic) => panicked = Some(panic),
            }
        }
        match panicked {
            Some(panic) if !std::thread::panicking() => std::panic::resume_unwind(panic),
            _ => appliers,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.shared.stop();
            self.join();
        }
    }
}

/// Members at work on threads of their own, and those for which there was none.
struct Crew<T> {
    threads: Vec<JoinHandle<Option<T>>>,
    idle: Vec<T>,
    refused: Option<std::io::Error>,
}

/// What a thread is to do; it gives back what it was given.
type Job<T> = Box<dyn FnOnce() -> Option<T> + Send>;

/// Begins a thread.
fn spawn<T: Send + 'static>(job: Job<T>) -> std::io::Result<JoinHandle<Option<T>>> {
    std::thread::Builder::new().spawn(job)
}

/// Gives each member a thread that does its `job` and gives the member back. After the first refusal nobody gets one: the
/// system has no more, and those that are there do all of the work.
fn crew<T: Send + 'static>(
    members: Vec<T>,
    job: impl Fn(&mut T) + Clone + Send + 'static,
    spawn: impl Fn(Job<T>) -> std::io::Result<JoinHandle<Option<T>>>,
) -> Crew<T> {
    let mut crew = Crew { threads: Vec::new(), idle: Vec::new(), refused: None };
    for member in members {
        if crew.refused.is_some() {
            crew.idle.push(member);
            continue;
        }
        // A thread that can't be started takes what it was given with it: it is given the way to the member.
        let (give, take) = std::sync::mpsc::sync_channel(1);
        let job = job.clone();
        let at_work = move || {
            let mut member = take.recv().ok()?;
            job(&mut member);
            Some(member)
        };
        match spawn(Box::new(at_work)) {
            Ok(thread) => {
                if let Err(back) = give.send(member) {
                    crew.idle.push(back.0);
                }
                crew.threads.push(thread);
            }
            Err(error) => {
                crew.refused = Some(error);
                crew.idle.push(member);
            }
        }
    }
    crew
}

/// Applies chunks while there are any, and calls `between` behind each.
fn work(applier: &mut Applier, shared: &Shared, packet_max: u64, between: &mut dyn FnMut()) {
    let mut events = Vec::new();
    let plan = &*shared.plan;
    let mut apply = |chunk: usize| {
        encode(plan, chunk, packet_max, &mut events)
            .and_then(|statement| commit(&mut applier.conn, chunk, &statement))
    };
    each(shared, &mut apply, between);
}

fn each(shared: &Shared, apply: &mut dyn FnMut(usize) -> Result<(), Stopped>, between: &mut dyn FnMut()) {
    let plan = &*shared.plan;
    while let Some((stream, chunk)) = shared.take() {
        let rows = plan.chunks.get(chunk).map_or(0, |chunk| chunk.rows);
        let mut taken = Taken { shared, stream, rows, applied: None };
        taken.applied = Some(apply(chunk));
        drop(taken);
        between();
    }
}

/// A chunk that is being applied. It is given back whatever happens to its thread: the others wait for that.
struct Taken<'s> {
    shared: &'s Shared,
    stream: usize,
    rows: usize,
    /// How it ended; `None`: its thread panicked, and whoever joins that goes on with the panic.
    applied: Option<Result<(), Stopped>>,
}

impl Drop for Taken<'_> {
    fn drop(&mut self) {
        let applied = self.applied.take().unwrap_or(Err(Stopped::Asked));
        self.shared.done(self.stream, self.rows, applied);
    }
}

/// The statement of a chunk.
pub(crate) fn encode(
    plan: &Plan,
    chunk: usize,
    packet_max: u64,
    events: &mut Vec<u8>,
) -> Result<String, Stopped> {
    plan.encode(chunk, events)
        .map_err(|flaw| Stopped::Error(Error::Encode { place: Default::default(), flaw }))?;
    let statement = batch::statement(events);
    let needed = statement.len() as u64 + 1;
    if needed > packet_max {
        let place = Default::default();
        return Err(Stopped::Error(Error::RowTooLong { place, needed, limit: packet_max }));
    }
    Ok(statement)
}

fn commit(conn: &mut Conn, chunk: usize, statement: &str) -> Result<(), Stopped> {
    let mark = checkpoint::mark_chunk(chunk as u32);
    let mut attempt = 0;
    loop {
        let tried = conn
            .execute("BEGIN")
            .and_then(|_| conn.execute(statement))
            .and_then(|_| conn.execute(&mark))
            .and_then(|_| conn.execute("COMMIT"));
        match tried {
            Ok(_) => return Ok(()),
            Err(holdfast_mysql::Error::Server(error)) => {
                conn.execute("ROLLBACK")
                    .map_err(|source| Stopped::Error(Error::server("rolling back")(source)))?;
                attempt += 1;
                if !RETRIED.contains(&error.code) || attempt >= ATTEMPTS_MAX {
                    let source = holdfast_mysql::Error::Server(error);
                    return Err(Stopped::Refused(Refused { chunk, source }));
                }
                std::thread::sleep(Duration::from_millis(u64::from(attempt)));
            }
            Err(source) => return Err(Stopped::Error(Error::server("applying rows")(source))),
        }
    }
}

#[derive(Debug)]
struct Shared {
    plan: Arc<Plan>,
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Debug)]
struct State {
    streams: Vec<StreamState>,
    rows_done: u64,
    active: usize,
    stopped: Option<Stopped>,
}

#[derive(Debug)]
struct StreamState {
    /// Chunks to do, the next one last.
    first: Vec<usize>,
    then: Vec<usize>,
    /// Chunks of the first kind, and of the second, that are being applied.
    at_first: usize,
    at_then: usize,
    in_order: bool,
    /// The source's events, not net change.
    lane: bool,
    /// Bytes that nobody has taken yet.
    bytes: usize,
}

impl StreamState {
    fn new(plan: &Plan, stream: &Stream, done: &HashSet<u32>) -> Self {
        let left = |chunks: &[usize]| -> Vec<usize> {
            chunks.iter().rev().copied().filter(|chunk| !done.contains(&(*chunk as u32))).collect()
        };
        let (first, then) = (left(&stream.first), left(&stream.then));
        let bytes = first.iter().chain(&then).map(|chunk| plan.bytes(*chunk)).sum();
        Self { first, then, at_first: 0, at_then: 0, in_order: stream.in_order, lane: stream.lane, bytes }
    }

    fn active(&self) -> usize {
        self.at_first + self.at_then
    }

    /// May a chunk be taken now?
    fn ready(&self) -> bool {
        if !self.first.is_empty() {
            return self.active() == 0 || !self.in_order;
        }
        // Of the second kind nothing starts before the last of the first is committed.
        !self.then.is_empty() && self.at_first == 0
    }

    fn take(&mut self) -> Option<usize> {
        if let Some(chunk) = self.first.pop() {
            self.at_first += 1;
            return Some(chunk);
        }
        self.at_then += 1;
        self.then.pop()
    }
}

impl State {
    fn new(plan: &Plan, done: &HashSet<u32>) -> Self {
        let streams = plan.streams.iter().map(|stream| StreamState::new(plan, stream, done)).collect();
        Self { streams, rows_done: 0, active: 0, stopped: None }
    }

    fn nothing_left(&self) -> bool {
        self.streams.iter().all(|stream| stream.first.is_empty() && stream.then.is_empty())
    }

    fn only_lanes(&self) -> bool {
        let at_work = |stream: &&StreamState| {
            stream.active() > 0 || !stream.first.is_empty() || !stream.then.is_empty()
        };
        self.streams.iter().filter(at_work).all(|stream| stream.lane)
    }

    fn is_over(&self) -> bool {
        self.active == 0 && (self.stopped.is_some() || self.nothing_left())
    }

    /// The stream to work on: one that nobody works on, then the one with most to do.
    fn choose(&self) -> Option<usize> {
        let ready = self.streams.iter().enumerate().filter(|(_, stream)| stream.ready());
        ready.min_by_key(|(at, stream)| (stream.active(), usize::MAX - stream.bytes, *at)).map(|(at, _)| at)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rows of net change that are applied, and whether nothing but lanes is left.
    fn so_far(&self) -> (u64, bool) {
        let state = self.lock();
        (state.rows_done, state.only_lanes())
    }

    /// Nobody takes another chunk.
    fn stop(&self) {
        self.lock().stopped.get_or_insert(Stopped::Asked);
        self.wake.notify_all();
    }

    /// The next chunk, with its stream; `None` when there is nothing more to do.
    fn take(&self) -> Option<(usize, usize)> {
        let mut state = self.lock();
        loop {
            if state.stopped.is_some() || state.nothing_left() {
                return None;
            }
            if let Some(at) = state.choose() {
                let stream = state.streams.get_mut(at)?;
                let chunk = stream.take()?;
                stream.bytes = stream.bytes.saturating_sub(self.plan.bytes(chunk));
                state.active += 1;
                return Some((at, chunk));
            }
            state = self.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, stream: usize, rows: usize, applied: Result<(), Stopped>) {
        let mut state = self.lock();
        state.active -= 1;
        if let Some(stream) = state.streams.get_mut(stream) {
            if stream.at_first > 0 {
                stream.at_first -= 1;
            } else {
                stream.at_then = stream.at_then.saturating_sub(1);
            }
        }
        match applied {
            Ok(()) => state.rows_done += rows as u64,
            Err(stopped) => {
                state.stopped.get_or_insert(stopped);
            }
        }
        drop(state);
        self.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::net::plan::ChunkSize;
    use crate::net::window::Window;

    #[test]
    fn a_refused_thread_leaves_its_work_to_those_that_are_there() {
        let (asked, done) = (std::cell::Cell::new(0), Arc::new(Mutex::new(Vec::new())));
        let noted = Arc::clone(&done);
        let job = move |member: &mut u32| {
            noted.lock().unwrap().push(*member);
            *member += 10;
        };
        let third_refused = |job: Job<u32>| {
            asked.set(asked.get() + 1);
            if asked.get() == 3 { Err(std::io::Error::from_raw_os_error(11)) } else { spawn(job) }
        };
        let crew = crew(vec![1, 2, 3, 4], job, third_refused);
        let mut back: Vec<u32> =
            crew.threads.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        back.sort_unstable();
        assert_eq!((back, crew.idle, asked.get()), (vec![11, 12], vec![3, 4], 3));
        assert_eq!(crew.refused.unwrap().raw_os_error(), Some(11));
    }

    #[test]
    fn whoever_applies_without_threads_tells_behind_each_chunk_and_can_be_stopped_there() {
        let plan = Arc::new(Plan::new(Window::default(), ChunkSize::Noted(1)));
        let stream = Stream { first: vec![0, 1, 2], then: Vec::new(), in_order: true, lane: true };
        let mut state = State::new(&plan, &HashSet::new());
        state.streams.push(StreamState::new(&plan, &stream, &HashSet::new()));
        let shared = Shared { plan, state: Mutex::new(state), wake: Condvar::new() };
        let (mut applied, mut told) = (Vec::new(), 0);
        let mut apply = |chunk| {
            applied.push(chunk);
            Ok(())
        };
        let mut between = || {
            told += 1;
            assert_eq!(shared.so_far(), (0, true));
            if told == 2 {
                shared.stop();
            }
        };
        each(&shared, &mut apply, &mut between);
        assert_eq!((applied, told), (vec![0, 1], 2));
        assert!(shared.lock().is_over());
    }

    #[test]
    fn who_waits_for_a_chunk_goes_home_when_the_thread_that_has_it_panics() {
        let plan = Arc::new(Plan::new(Window::default(), ChunkSize::Noted(1)));
        let stream = Stream { first: vec![0, 1], then: Vec::new(), in_order: true, lane: true };
        let mut state = State::new(&plan, &HashSet::new());
        state.streams.push(StreamState::new(&plan, &stream, &HashSet::new()));
        let shared = Arc::new(Shared { plan, state: Mutex::new(state), wake: Condvar::new() });
        let (stream, chunk) = shared.take().unwrap();
        assert_eq!((stream, chunk), (0, 0));
        let (tell, told) = channel();
        let waiting = Arc::clone(&shared);
        // The second chunk is ready only behind the first.
        std::thread::spawn(move || tell.send(waiting.take()));
        let broken = Arc::clone(&shared);
        let panicked = std::thread::spawn(move || {
            let _taken = Taken { shared: &broken, stream, rows: 7, applied: None };
            panic!("on purpose");
        });
        panicked.join().unwrap_err();
        assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap(), None);
        let state = shared.lock();
        assert!(state.is_over() && state.rows_done == 0);
        assert!(matches!(state.stopped, Some(Stopped::Asked)));
    }
}
