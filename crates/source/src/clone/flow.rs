//! One clone from its first command to its last: who reads, who writes, and who stops them.

mod workers;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use holdfast_mysql::clone::descriptor::{
    DataDescriptor, FileDescriptor, InnoDbLocator, State, StateDescriptor,
};
use holdfast_mysql::clone::rpc::{Command, Ddl, ENGINE_INNODB, Locator, PROTOCOL_VERSION, Response};
use holdfast_mysql::clone::{CloneConn, Message};
use holdfast_mysql::{Conn, Interrupter};

use super::CloneSource;
use super::donor::Donor;
use super::door::Door;
use super::files::Files;
use super::stages::Stages;
use super::stream::{Said, Stream};
use crate::error::Error;
use crate::outcome::{Position, Warning};
use crate::sink::Sink;
use crate::source::{Progress, Stage, Watch};
use crate::spool::{Limits, Popped, Spool};
use crate::threads;
use crate::verify::VerifyingSink;

/// Longest silence of the master connection: the donor gives a sign of life about every 5 s, but a busy one may be late.
const MASTER_SILENCE_MAX: Duration = Duration::from_secs(300);

/// After the lock is had, the donor opens all its tablespaces before it answers.
const OPENING_MAX: Duration = Duration::from_secs(300);

/// How long the bytes of FILE COPY may wait for a slow sink before they go by disk. The donor gives up after 60 s.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the master waits for workers to join. One that the donor lets wait longer joins in a later stage.
const JOIN_MAX: Duration = Duration::from_secs(1);

/// How often the supervisor looks.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Longest time given to the donor's answer when a clone is given up.
const FAREWELL_MAX: Duration = Duration::from_millis(700);

/// Told to the donor when we give up: query execution was interrupted.
const ERROR_INTERRUPTED: i32 = 1317;

/// Progress is told so often at most.
const TELL_EVERY_MS: u64 = 100;

/// What a clone gave.
pub(super) struct Copied {
    pub(super) lo: Option<Position>,
    pub(super) hi: Option<Position>,
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) warnings: Vec<Warning>,
    pub(super) protocol: u32,
    pub(super) connections: u32,
    pub(super) spilled: u64,
}

/// What a piece in the spool is.
#[derive(Debug, Clone, Copy)]
struct Header {
    state: State,
    file: u32,
    offset: u64,
    file_size: u64,
}

/// The connection for acknowledgements, and the name of the clone.
struct Aux {
    conn: CloneConn,
    locator: Locator,
}

/// What was agreed with the donor.
#[derive(Clone)]
struct Agreed {
    version: u32,
    ddl: u32,
    locators: Vec<Locator>,
}

/// All that the threads of one clone share.
pub(super) struct Flow<'a> {
    door: Door,
    workers: u32,
    ddl: Ddl,
    init_silence_max: Duration,
    donor: Mutex<Donor>,
    sink: &'a VerifyingSink<'a>,
    watch: &'a dyn Watch,
    files: Files<'a>,
    stages: Stages,
    spool: Spool<Header>,
    aux: Mutex<Option<Aux>>,
    sessions: Mutex<Vec<(u32, Interrupter)>>,
    trouble: Mutex<Option<Error>>,
    stopped: AtomicBool,
    /// Connections that are being read.
    readers: AtomicU32,
    notes: Mutex<Vec<Warning>>,
    bytes: AtomicU64,
    expected: AtomicU64,
    told_at_ms: AtomicU64,
    started: Instant,
}

/// One thread more for as long as it lives, however it ends.
struct Counted<'a>(&'a AtomicU32);

impl<'a> Counted<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<'a> Flow<'a> {
    pub(super) fn new(
        source: &CloneSource,
        donor: Donor,
        sink: &'a VerifyingSink<'a>,
        watch: &'a dyn Watch,
        page_bytes: Option<&str>,
    ) -> Result<Self, Error> {
        let page_bytes = page_bytes.and_then(|text| text.parse().ok()).unwrap_or(16 * 1024);
        let lock_wait = source.lock_wait;
        let ddl =
            if source.concurrent_ddl { Ddl::Concurrent { lock_wait } } else { Ddl::Block { lock_wait } };
        Ok(Self {
            door: donor.door().clone(),
            workers: source.workers,
            ddl,
            init_silence_max: lock_wait + OPENING_MAX,
            files: Files::new(sink, donor.version().numbers(), page_bytes),
            donor: Mutex::new(donor),
            sink,
            watch,
            stages: Stages::new(),
            spool: Spool::new(&source.spool_dir, Limits::default()),
            aux: Mutex::new(None),
            sessions: Mutex::default(),
            trouble: Mutex::default(),
            stopped: AtomicBool::new(false),
            readers: AtomicU32::new(0),
            notes: Mutex::default(),
            bytes: AtomicU64::new(0),
            expected: AtomicU64::new(0),
            told_at_ms: AtomicU64::new(0),
            started: Instant::now(),
        })
    }

    /// Runs the clone to its end.
    pub(super) fn run(self, feeders: usize) -> Result<Copied, Error> {
        let ends = thread::scope(|scope| {
            let mut threads = Vec::new();
            for _ in 0..feeders {
                match threads::begin(scope, "store blocks", || self.guard(|| self.feed())) {
                    Ok(thread) => threads.push(thread),
                    Err(error) if threads.is_empty() => {
                        self.fail(error);
                        return None;
                    }
                    // Those that are there do it all.
                    Err(_) => break,
                }
            }
            let mut ends = None;
            thread::scope(|readers| {
                let counted = Counted::new(&self.readers);
                let read = || {
                    let _counted = counted;
                    let mut ends = None;
                    self.guard(|| {
                        ends = Some(self.master(readers)?);
                        Ok(())
                    });
                    ends
                };
                let master = match threads::begin(readers, "read the clone", read) {
                    Ok(master) => master,
                    Err(error) => return self.fail(error),
                };
                self.supervise(|| {
                    if threads.iter().any(ScopedJoinHandle::is_finished) {
                        // Before the end only trouble ends a feeder; if it has not said which, it broke down.
                        self.fail(Error::Thread { doing: "store blocks" });
                    }
                    self.readers.load(Ordering::SeqCst) == 0
                });
                ends = master.join().unwrap_or(None);
            });
            // Every reader has ended, so what is in the spool is all.
            self.spool.close();
            self.supervise(|| threads.iter().all(ScopedJoinHandle::is_finished));
            for thread in threads.drain(..) {
                if thread.join().is_err() {
                    self.fail(Error::Thread { doing: "store blocks" });
                }
            }
            ends
        });
        if let Some(error) = lock(&self.trouble).take() {
            return Err(error);
        }
        let (lo, hi, protocol) = ends.ok_or(Error::Thread { doing: "read the clone" })?;
        let files = self.files.finish()?;
        let warnings = std::mem::take(&mut *lock(&self.notes));
        Ok(Copied {
            lo,
            hi,
            bytes: self.bytes.load(Ordering::Relaxed),
            files,
            warnings,
            protocol,
            connections: self.stages.members(),
            spilled: self.spool.spilled(),
        })
    }

    /// Runs a thread's work; what goes wrong there stops all.
    fn guard(&self, work: impl FnOnce() -> Result<(), Error>) {
        match work() {
            // Whoever stopped has said why.
            Ok(()) | Err(Error::Cancelled) => {}
            Err(error) => self.fail(error),
        }
    }

    fn fail(&self, error: Error) {
        lock(&self.trouble).get_or_insert(error);
    }

    /// Waits until all of a side's threads have ended; stops everybody when something went wrong or the copy is called off.
    fn supervise(&self, ended: impl Fn() -> bool) {
        loop {
            // Looked at first: a thread that ended because of trouble has told it before.
            let last = ended();
            if !last && self.watch.cancelled() {
                self.fail(Error::Cancelled);
            }
            if lock(&self.trouble).is_some() {
                self.stop();
            }
            if last {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Frees the donor and ends every wait of ours. Says so on the auxiliary connection, which makes the donor give up
    /// all tasks at once; KILLs in case it did not hear; then shuts the sockets.
    fn stop(&self) {
        if self.stopped.swap(true, Ordering::SeqCst) {
            return;
        }
        self.stages.fail();
        self.spool.abandon();
        let deadline = Instant::now() + FAREWELL_MAX;
        loop {
            if let Ok(mut aux) = self.aux.try_lock() {
                if let Some(aux) = aux.as_mut() {
                    aux.conn.set_read_timeout(FAREWELL_MAX);
                    let command =
                        Command::Ack { error: ERROR_INTERRUPTED, locator: &aux.locator, descriptor: &[] };
                    // What it answers changes nothing.
                    let _ = aux.conn.call(&command);
                }
                break;
            }
            if Instant::now() >= deadline {
                break;
            }
            thread::sleep(Duration::from_millis(5));
        }
        let sessions = lock(&self.sessions);
        let ids: Vec<u32> = sessions.iter().map(|(id, _)| *id).collect();
        if let Ok(mut donor) = self.donor.try_lock() {
            donor.kill(&ids);
        }
        for (_, interrupter) in sessions.iter() {
            interrupter.interrupt();
        }
    }

    /// Another connection in clone mode, known to the supervisor.
    fn enter(&self) -> Result<CloneConn, Error> {
        let conn = self.door.again()?;
        {
            let mut sessions = lock(&self.sessions);
            if self.stopped.load(Ordering::SeqCst) {
                return Err(Error::Cancelled);
            }
            sessions.push((conn.thread_id(), conn.interrupter()));
        }
        CloneConn::enter(conn).map_err(|error| self.explain(error))
    }

    fn explain(&self, error: holdfast_mysql::Error) -> Error {
        lock(&self.donor).explain(error)
    }

    // ---- the sink's side

    fn feed(&self) -> Result<(), Error> {
        loop {
            match self.spool.pop(Duration::from_secs(1))? {
                Popped::Piece(Header { state: State::PageCopy, file, offset, file_size }, bytes) => {
                    self.files.page(file, offset, file_size, &bytes)?;
                    self.spool.done();
                }
                Popped::Piece(Header { state, file, offset, .. }, bytes) => {
                    self.files.bytes(state, file, offset, &bytes)?;
                    self.spool.done();
                }
                Popped::Nothing => {}
                Popped::End => return Ok(()),
            }
        }
    }

    fn keep(&self, data: &DataDescriptor, bytes: &[u8]) -> Result<(), Error> {
        let header = Header {
            state: data.state,
            file: data.file_index,
            offset: data.offset,
            file_size: data.file_size,
        };
        let patience = if data.state == State::FileCopy { PATIENCE } else { Duration::ZERO };
        self.spool.push(header, bytes.to_vec(), patience)?;
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.tell();
        Ok(())
    }

    fn tell(&self) {
        let now = self.started.elapsed().as_millis() as u64;
        let before = self.told_at_ms.load(Ordering::Relaxed);
        let due = now >= before + TELL_EVERY_MS;
        if !due
            || self.told_at_ms.compare_exchange(before, now, Ordering::Relaxed, Ordering::Relaxed).is_err()
        {
            return;
        }
        let expected = self.expected.load(Ordering::Relaxed);
        self.watch.progress(Progress {
            stage: match self.stages.now() {
                State::None | State::Init => Stage::Preparing,
                State::FileCopy => Stage::Files,
                State::PageCopy => Stage::Pages,
                State::RedoCopy => Stage::Redo,
                State::Done => Stage::Finishing,
            },
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_expected: (expected > 0).then_some(expected),
            files: self.files.known(State::FileCopy) + self.files.known(State::RedoCopy),
        });
    }

    // ---- the master

    /// The whole clone as the master connection sees it. Returns the two coordinates and the protocol's version.
    fn master<'scope>(
        &'scope self,
        scope: &'scope Scope<'scope, '_>,
    ) -> Result<(Option<Position>, Option<Position>, u32), Error> {
        let aux = self.enter()?;
        let mut conn = self.enter()?;
        let agreed = self.begin(&mut conn)?;
        let locator = agreed.locators.first().cloned().ok_or(Error::Thread { doing: "began the clone" })?;
        *lock(&self.aux) = Some(Aux { conn: aux, locator });
        conn.set_read_timeout(MASTER_SILENCE_MAX);
        conn.send(&Command::Execute)?;
        for _ in 0..self.workers {
            let agreed = agreed.clone();
            let counted = Counted::new(&self.readers);
            let read = move || {
                let _counted = counted;
                self.guard(|| self.worker(&agreed));
            };
            if let Err(error) = threads::begin(scope, "read a share of the clone", read) {
                self.one_less(&error);
            }
        }
        let mut reading = Master { flow: self, begun: State::Init, files_due: 0, lo: None };
        let mut stream = Stream::default();
        loop {
            let message = self.receive(&mut conn)?;
            let over = reading.take(stream.take(message.response()?)?)?;
            conn.recycle(message);
            if over {
                break;
            }
        }
        if self.stages.now() != State::Done {
            return Err(Error::Malformed {
                place: "the clone's stream".to_owned(),
                expected: "its end after all stages".to_owned(),
                got: format!("its end in {:?}", self.stages.now()),
            });
        }
        let hi = lock(&self.donor).position()?;
        // The copy is whole; a connection that breaks now takes nothing away from it.
        let aux = lock(&self.aux).take();
        for conn in aux.map(|aux| aux.conn).into_iter().chain([conn]) {
            let _ = conn.exit().and_then(Conn::close);
        }
        Ok((reading.lo, hi, agreed.version))
    }

    fn receive(&self, conn: &mut CloneConn) -> Result<Message, Error> {
        conn.receive().map_err(|error| self.explain(error))
    }

    fn begin(&self, conn: &mut CloneConn) -> Result<Agreed, Error> {
        conn.set_read_timeout(self.init_silence_max);
        let ddl = self.ddl.field(conn.server(), conn.endpoint())?;
        let ours = InnoDbLocator::version_only().encode(None);
        let ours = [Locator { engine: ENGINE_INNODB, bytes: ours }];
        conn.send(&Command::Init { version: PROTOCOL_VERSION, ddl, locators: &ours })?;
        let mut agreed = None;
        loop {
            let message = self.receive(conn)?;
            match message.response()? {
                Response::Locators { version, locators } => agreed = Some(Agreed { version, ddl, locators }),
                Response::Complete => break,
                // Parameters of the donor; they were read in SQL. Older donors send them after the locators.
                Response::Plugin { .. } | Response::Config { .. } | Response::Collation(_) => {}
                other => return Err(unexpected("the donor's parameters", &other)),
            }
            conn.recycle(message);
        }
        let agreed = agreed.ok_or_else(|| Error::Malformed {
            place: "the beginning of the clone".to_owned(),
            expected: "the clone's locators".to_owned(),
            got: "none".to_owned(),
        })?;
        match agreed.locators.as_slice() {
            [only] if only.engine == ENGINE_INNODB => Ok(agreed),
            other => Err(Error::Malformed {
                place: "the beginning of the clone".to_owned(),
                expected: "InnoDB as the only engine (12)".to_owned(),
                got: format!("engines {:?}", other.iter().map(|l| l.engine).collect::<Vec<_>>()),
            }),
        }
    }

    /// B1 and the acknowledgement of a stage's end. Returns the log's position if this was the last moment before the
    /// copy's own.
    fn end_stage(&self, ended: &StateDescriptor) -> Result<Option<Position>, Error> {
        self.stages.end(ended.state)?;
        self.stages.wait_ended()?;
        let mut position = None;
        match ended.state {
            State::FileCopy => {
                while !self.spool.wait_idle(Duration::from_secs(1))? {}
                self.files.end_of_file_copy()?;
                self.sink.barrier()?;
            }
            // The copy's moment comes after this acknowledgement, so whatever is in the log now is in the copy.
            State::PageCopy => position = lock(&self.donor).position()?,
            _ => {}
        }
        let descriptor = ended.acknowledged().encode();
        match lock(&self.aux).as_mut() {
            Some(aux) => aux
                .conn
                .call(&Command::Ack { error: 0, locator: &aux.locator, descriptor: &descriptor })
                .map_err(Error::from)?,
            None => return Err(Error::Cancelled),
        }
        Ok(position)
    }
}

/// The master's place in the stream.
struct Master<'f, 'a> {
    flow: &'f Flow<'a>,
    /// The stage that the donor has begun with us. Open for bytes only when its files are known.
    begun: State,
    files_due: u64,
    lo: Option<Position>,
}

impl Master<'_, '_> {
    fn take(&mut self, said: Said<'_>) -> Result<bool, Error> {
        let flow = self.flow;
        match said {
            Said::Over => return Ok(true),
            Said::Nothing => {}
            Said::Begins(state) => self.begins(&state)?,
            Said::File(file) => self.file(&file)?,
            Said::Ends(state) => {
                if let Some(position) = flow.end_stage(&state)? {
                    self.lo = Some(position);
                }
            }
            Said::Bytes(data, bytes) => {
                if data.state != flow.stages.now() {
                    return Err(Error::Malformed {
                        place: "the clone's stream".to_owned(),
                        expected: format!("bytes of {:?}", flow.stages.now()),
                        got: format!("bytes of {:?}", data.state),
                    });
                }
                flow.keep(&data, bytes)?;
            }
        }
        Ok(false)
    }

    fn begins(&mut self, state: &StateDescriptor) -> Result<(), Error> {
        self.begun = state.state;
        match state.state {
            State::FileCopy | State::RedoCopy => {
                self.files_due = u64::from(state.files);
                if state.estimate > 0 {
                    let before = if state.state == State::FileCopy {
                        0
                    } else {
                        self.flow.bytes.load(Ordering::Relaxed)
                    };
                    self.flow.expected.store(before + state.estimate, Ordering::Relaxed);
                }
                self.open_if_known()
            }
            _ => self.flow.stages.open(state.state),
        }
    }

    fn file(&mut self, file: &FileDescriptor) -> Result<(), Error> {
        let news = file.flags.deleted() || file.flags.renamed() || file.state != self.begun;
        if news {
            return self.flow.files.changed_by_ddl(file);
        }
        self.flow.files.announce(file)?;
        self.open_if_known()
    }

    /// Opens the stage when its last file is known; in FILE COPY the workers join now (B3).
    fn open_if_known(&self) -> Result<(), Error> {
        let flow = self.flow;
        if flow.stages.now() == self.begun || flow.files.known(self.begun) < self.files_due {
            return Ok(());
        }
        flow.stages.open(self.begun)?;
        if self.begun == State::FileCopy { flow.stages.wait_asked(flow.workers, JOIN_MAX) } else { Ok(()) }
    }
}

fn unexpected(place: &str, response: &Response<'_>) -> Error {
    let mut got = format!("{response:?}");
    got.truncate(got.floor_char_boundary(100));
    Error::Malformed { place: place.to_owned(), expected: "a response that belongs there".to_owned(), got }
}
