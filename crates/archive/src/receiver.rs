//! Follows a source's binlog into the archive: a task reads the socket, the calling thread checks and writes.
//!
//! ```text
//! socket -> task.rs on uring.rs or plain.rs (engine.rs chooses) -> channel.rs -> here: when to sync -> keeper.rs: intake, stretch
//! ```
//!
//! Durable means synced: nothing counts as received before. What is not yet synced when the process dies comes again.
//! A source whose commits wait for us hears of it by words.rs, and guard.rs keeps for which time that is proved.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use holdfast_format::record::{Position, StreamKey};
use holdfast_mysql::{Conn, DumpFrom};

use crate::error::{Error, Result};
use crate::intake::{Flaw, Intake, is_other_gtid_mode, is_purged, is_senseless, order};
use crate::keeper::Keeper;
use crate::log::stream_name;
use crate::mark::{FileMark, Origin};
use crate::options::{FollowOptions, Followed, Note, Until};
use crate::probe::{Probe, ask_again};
use crate::storage::LogStore;
use crate::tail;
use channel::{Batch, Inbox, channel};
pub use engine::ReceiverEngine;
use guard::Guard;
pub(crate) use source::binlog_files;
use source::check_identity;
use words::{Durable, words};

/// Batches on their way, of 1 MiB each: 4 MiB, or one event that is larger than that.
const BATCHES: u32 = 4;

/// A connection that lasted this long was one, even if the source had nothing to say.
const LASTING: Duration = Duration::from_secs(1);

/// How often the stop flag is looked at: seldom enough that fifty idle streams cost nothing to speak of.
const TICK: Duration = Duration::from_millis(250);

/// Heartbeat of a source whose commits wait for us: by it the source notices that we left, and lets them go.
const HEARTBEAT_SEMI_SYNC: Duration = Duration::from_millis(500);

/// How long events that the source waits for may gather before they are synced, while more keep coming.
const GROUP: Duration = Duration::from_millis(10);

/// Follows `stream` until `until` or until `stop` is set. Resumes where the archive ends; if it is empty, begins with the
/// file of the first of `origins` that the source still has.
///
/// A life after the first one (`incarnation` above 0) begins where the options say that it joins the one before, or at
/// one of its origins, or not at all, if there are any.
///
/// A gap is recorded before it is returned as an error.
pub fn follow(
    store: &dyn LogStore,
    stream: &StreamKey,
    origins: &[Origin],
    options: &FollowOptions,
    until: &Until,
    stop: &AtomicBool,
    note: &mut dyn FnMut(Note<'_>),
) -> Result<Followed> {
    let mut follower = Follower::start(store, stream, origins, options, note)?;
    let result = follower.run(until, stop);
    match result {
        Ok(()) => follower.keeper.finish(),
        Err(Error::Gap { stream: name, after, reason, next }) => {
            follower.keeper.record_gap(&reason)?;
            Err(Error::Gap { stream: name, after, reason, next })
        }
        // What came before the failure is good; the failure is what the caller must hear.
        Err(error) => {
            let _ = follower.keeper.finish();
            Err(error)
        }
    }
}

struct Follower<'a> {
    keeper: Keeper<'a>,
    options: &'a FollowOptions,
    origins: Vec<Origin>,
    /// What the source told last, until that much is archived.
    probe: Option<Probe>,
    /// Nothing was archived of this stream before: its first note says since when it is complete.
    first_note: bool,
    /// Events of this connection that were taken.
    taken: u64,
    /// To tell the task what is durable, where the source's commits wait for it.
    durable: Option<Durable>,
    guard: Guard,
    /// Down to where claims are to be taken back as soon as there is a place to write it.
    taken_back: Option<i64>,
    /// Until when the source's commits are not made to wait.
    rest_until: Option<Instant>,
    /// Since when this connection's stream is read.
    followed_since: Option<Instant>,
}

/// Why a session ended without an error.
enum Ended {
    Reached,
    Stopped,
    /// The disk had its rest: the source's commits may wait again, which a new connection must agree upon.
    Rested,
}

impl<'a> Follower<'a> {
    fn start(
        store: &'a dyn LogStore,
        stream: &StreamKey,
        origins: &[Origin],
        options: &'a FollowOptions,
        note: &'a mut dyn FnMut(Note<'_>),
    ) -> Result<Self> {
        let first_note = store.stretches(stream)?.is_empty();
        let keeper = Keeper::start(store, stream, options.join.as_ref(), options.stretch_bytes, note)?;
        Ok(Self {
            keeper,
            options,
            origins: origins.to_vec(),
            probe: None,
            first_note,
            taken: 0,
            durable: None,
            guard: Guard::new(),
            taken_back: None,
            rest_until: None,
            followed_since: None,
        })
    }

    /// Connects again and again.
    fn run(&mut self, until: &Until, stop: &AtomicBool) -> Result<()> {
        let (first, longest) = self.options.backoff;
        let (mut wait, mut alone_since) = (first, Instant::now());
        loop {
            if stop.load(Ordering::Relaxed) || self.reached(until) {
                return Ok(());
            }
            let before = self.keeper.bytes;
            let error = match self.session(until, stop) {
                Ok(Ended::Reached | Ended::Stopped) => return Ok(()),
                Ok(Ended::Rested) => continue,
                Err(error) if error.is_network() => error,
                Err(error) => return Err(error),
            };
            // What has come is kept, and made durable before the wait.
            self.keeper.sync()?;
            if matches!(error, Error::TooSlow) {
                self.rest_until = Some(Instant::now() + self.options.rest);
            }
            let followed = self.followed_since.take().is_some_and(|since| since.elapsed() >= LASTING);
            if self.keeper.bytes > before || followed {
                (wait, alone_since) = (first, Instant::now());
            }
            if self.options.give_up_after.is_some_and(|limit| alone_since.elapsed() >= limit) {
                return Err(error);
            }
            (self.keeper.note)(Note::Retrying { error: &error, after: wait });
            let wake = Instant::now() + wait;
            while Instant::now() < wake && !stop.load(Ordering::Relaxed) {
                std::thread::sleep(TICK.min(wake.saturating_duration_since(Instant::now())));
            }
            wait = (wait * 2).min(longest);
        }
    }

    /// One connection.
    fn session(&mut self, until: &Until, stop: &AtomicBool) -> Result<Ended> {
        let mut conn = Conn::connect(&self.options.connect)?;
        self.keeper.flavor = check_identity(&mut conn, self.options.expect_uuid)?;
        self.step_back()?;
        self.choose_start(&mut conn)?;
        let Some(intake) = self.keeper.intake.as_mut() else {
            return Err(Error::Empty { stream: stream_name(&self.keeper.stream) });
        };
        let offset = intake.reconnect();
        let from = DumpFrom::Position { file: intake.file().to_owned(), offset };
        let version = conn.server().to_string();
        self.probe = Probe::ask(&mut conn, false)?;
        conn.register_replica(self.options.dump.server_id, "holdfast")?;
        let mut dump = self.options.dump.clone();
        dump.until_end = *until == Until::EndOfLog;
        let resting = self.rest_until.is_some_and(|until| Instant::now() < until);
        let semi_sync = self.options.semi_sync && *until == Until::Stopped && !resting;
        dump.semi_sync = semi_sync;
        if semi_sync {
            dump.heartbeat = HEARTBEAT_SEMI_SYNC;
        }
        let stream = conn.dump(&from, &dump)?;
        self.followed_since = Some(Instant::now());
        (self.keeper.note)(Note::Connected { version, at: format!("{}:{offset}", intake.file()) });
        let interrupter = stream.interrupter();
        let halted = Arc::new(AtomicBool::new(false));
        let (ask, probes) = bounded(1);
        if *until == Until::Stopped {
            // Not waited for: it ends by itself when it sees that it is not needed.
            let (connect, halted) = (self.options.connect.clone(), Arc::clone(&halted));
            std::thread::Builder::new()
                .spawn(move || ask_again(connect, semi_sync, ask, halted))
                .map_err(|source| Error::NoThread { doing: "asks the source how it stands", source })?;
        }
        let (durable, words) = semi_sync.then(words).unzip();
        (self.taken, self.durable) = (0, durable);
        let halt = &*halted;
        std::thread::scope(|scope| {
            let (outbox, inbox) = channel(BATCHES);
            let engine = self.options.engine;
            let read = move || engine::run(engine, stream, &outbox, words, halt);
            let reader = match std::thread::Builder::new().spawn_scoped(scope, read) {
                Ok(reader) => reader,
                Err(source) => {
                    halt.store(true, Ordering::Relaxed);
                    return Err(Error::NoThread { doing: "reads the binlog from the socket", source });
                }
            };
            let ended = self.consume(&inbox, &probes, until, stop);
            // The reader may wait for the socket or for room in the channel: end both waits.
            halt.store(true, Ordering::Relaxed);
            interrupter.interrupt();
            drop(inbox);
            if reader.join().is_err() {
                return Err(Error::Thread { doing: "reads the binlog from the socket" });
            }
            if let Some(interval) = self.guard.end() {
                self.note_zero_loss(interval)?;
            }
            ended
        })
    }

    /// Without an event of the present file that the source could show again, this connection begins in the file before:
    /// meanwhile another log may have begun, whose files have the same names.
    fn step_back(&mut self) -> Result<()> {
        if self.keeper.intake.as_ref().is_none_or(Intake::can_be_proved) {
            return Ok(());
        }
        self.keeper.intake = None;
        self.keeper.head.clear();
        self.keeper.file_end = None;
        let mut tail = tail::find(self.keeper.store, &self.keeper.stream)?;
        tail.begin_at(self.options.join.as_ref());
        self.keeper.orphans = std::mem::take(&mut tail.orphans);
        self.keeper.tail = Some(tail);
        Ok(())
    }

    /// Decides where to begin, once.
    fn choose_start(&mut self, conn: &mut Conn) -> Result<()> {
        if self.keeper.intake.is_some() {
            return Ok(());
        }
        if let Some(tail) = self.keeper.tail.as_mut()
            && let Some(at) = tail.at.clone()
        {
            self.keeper.intake = Some(Intake::resume(self.keeper.flavor, &at, tail));
            return Ok(());
        }
        let present = binlog_files(conn)?;
        let origin = self.origin_at_source(&present)?;
        if origin.is_none() && !self.origins.is_empty() && self.keeper.stream.incarnation > 0 {
            return Err(Error::NoOrigin { stream: stream_name(&self.keeper.stream) });
        }
        let file = match origin.clone().or_else(|| present.last().cloned()) {
            Some(file) => file,
            None => {
                return Err(Error::Unreachable {
                    target: conn.endpoint().to_owned(),
                    reason: "the server writes no binlog; set log_bin and restart it.".to_owned(),
                    before: None,
                    after: None,
                });
            }
        };
        if origin.is_none() && !self.origins.is_empty() {
            (self.keeper.note)(Note::Warning(format!(
                "the source has purged the logs of all backups; the archive begins with {file}, take a new backup"
            )));
        }
        self.keeper.intake = Some(Intake::new(self.keeper.flavor, &file, None));
        Ok(())
    }

    /// The file of the first origin that the source still has, and not just another one of that name.
    fn origin_at_source(&self, present: &[String]) -> Result<Option<String>> {
        let mut marks: HashMap<&str, FileMark> = HashMap::new();
        for origin in self.origins.iter().filter(|origin| present.contains(&origin.at.file)) {
            let file = origin.at.file.as_str();
            let Some(mark) = &origin.mark else { return Ok(Some(file.to_owned())) };
            if !marks.contains_key(file) {
                let (connect, server_id) = (&self.options.connect, self.options.dump.server_id);
                marks.insert(file, FileMark::of_source(connect, server_id, file)?);
            }
            if marks.get(file) == Some(mark) {
                return Ok(Some(file.to_owned()));
            }
        }
        Ok(None)
    }

    /// Takes what the socket's task sends, and keeps the promise of a sync within a second.
    fn consume(
        &mut self,
        inbox: &Inbox,
        probes: &Receiver<Probe>,
        until: &Until,
        stop: &AtomicBool,
    ) -> Result<Ended> {
        loop {
            if let Ok(probe) = probes.try_recv() {
                self.hear(&probe)?;
                self.probe = Some(probe);
            }
            self.note_complete()?;
            match inbox.take(self.patience()) {
                Ok(Batch::Begun(engine)) => (self.keeper.note)(Note::Receiving { engine }),
                Ok(Batch::SemiSync(on)) => {
                    if !on {
                        self.durable = None;
                    }
                    (self.keeper.note)(Note::SemiSync { on });
                }
                Ok(Batch::Events(events)) => {
                    for event in events.iter() {
                        self.taken += 1;
                        self.keeper.take(event)?;
                        if self.reached(until) {
                            return Ok(Ended::Reached);
                        }
                    }
                    inbox.give_back(events);
                }
                Ok(Batch::End) if *until == Until::EndOfLog => {
                    self.note_complete()?;
                    return Ok(Ended::Reached);
                }
                Ok(Batch::End) => {
                    return Err(Error::Mysql(holdfast_mysql::Error::Closed {
                        endpoint: self.options.connect.endpoint.to_string(),
                        doing: "following the binlog",
                    }));
                }
                Ok(Batch::Failed(error)) => return self.source_failed(error),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(Error::Thread { doing: "reads the binlog from the socket" });
                }
            }
            self.sync_if_due(inbox.is_empty())?;
            if self.rest_until.is_some_and(|until| Instant::now() >= until) && inbox.is_empty() {
                self.rest_until = None;
                return Ok(Ended::Rested);
            }
            if stop.load(Ordering::Relaxed) {
                return Ok(Ended::Stopped);
            }
        }
    }

    /// The source's own errors: most are for the caller, but those that no further attempt can cure are gaps. A purged
    /// file is one even if all of it is archived: nothing would prove that the file after it is of the same log.
    fn source_failed(&mut self, error: Error) -> Result<Ended> {
        let Error::Mysql(source) = &error else { return Err(error) };
        let shows_nothing = self.keeper.intake.as_ref().is_some_and(Intake::shows_nothing);
        let why = if shows_nothing && is_senseless(source) {
            format!("the source has another log there than the one that is archived: {source}")
        } else if is_other_gtid_mode(source) {
            format!("its gtid_mode was changed, and set back to ON_PERMISSIVE it would go on: {source}")
        } else if !shows_nothing && is_too_large(source) {
            format!(
                "the next event is larger than the 1 GiB that a server sends to any replica, so no replica has it either; \
                 the source's own file has it, and `holdfast import NAME --binlogs FOLDER` takes copies of its files until the \
                 next backup, behind which the log begins anew: {source}"
            )
        } else if is_purged(source) {
            source.to_string()
        } else {
            return Err(error);
        };
        Err(self.keeper.flaw(Flaw::Gap(why)))
    }

    /// Notes up to when the archive is complete, once it holds what the source had when it was asked. Newer
    /// transactions say as much.
    fn note_complete(&mut self) -> Result<()> {
        let (Some(probe), Some(intake)) = (&self.probe, &self.keeper.intake) else { return Ok(()) };
        let between = intake.goes_on()
            && !intake.is_open()
            && self.keeper.file_end.is_none()
            && self.keeper.head.is_empty();
        if !between || !probe.is_reached(intake.file(), intake.offset()) {
            return Ok(());
        }
        let complete_us = probe.complete_us;
        self.probe = None;
        if complete_us <= self.keeper.last_us && !self.first_note {
            return Ok(());
        }
        if self.keeper.recorder.is_none() {
            let at = self.keeper.end();
            self.keeper.begin_stretch(at, None)?;
        }
        let Some(recorder) = self.keeper.recorder.as_mut() else { return Ok(()) };
        recorder.complete(complete_us)?;
        let full = recorder.is_full();
        self.first_note = false;
        self.keeper.oldest_unsynced.get_or_insert_with(Instant::now);
        if full {
            let at = self.keeper.end();
            self.keeper.seal_at(&at)?;
        }
        Ok(())
    }

    /// Takes what the source says of its waiting for us.
    fn hear(&mut self, probe: &Probe) -> Result<()> {
        let Some(durable) = &self.durable else { return Ok(()) };
        for interval in self.guard.hear(probe, durable.early()) {
            self.note_zero_loss(interval)?;
        }
        self.take_back()?;
        if let Some((from_us, until_us)) = self.guard.proved() {
            (self.keeper.note)(Note::ZeroLoss { from_us, until_us });
        }
        Ok(())
    }

    /// Writes down that nothing was lost in this time; without a place for it it is not claimed. What is taken back (an empty
    /// interval) waits for its place, and stands before what is claimed behind it.
    fn note_zero_loss(&mut self, (from_us, until_us): guard::Interval) -> Result<()> {
        if from_us == until_us {
            self.taken_back = Some(self.taken_back.map_or(from_us, |least| least.min(from_us)));
            return Ok(());
        }
        self.take_back()?;
        let Some(recorder) = self.keeper.recorder.as_mut() else { return Ok(()) };
        recorder.zero_loss(from_us, until_us)?;
        self.keeper.oldest_unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn take_back(&mut self) -> Result<()> {
        let (Some(recorder), Some(least)) = (self.keeper.recorder.as_mut(), self.taken_back) else {
            return Ok(());
        };
        recorder.zero_loss(least, least)?;
        self.taken_back = None;
        self.keeper.oldest_unsynced.get_or_insert_with(Instant::now);
        Ok(())
    }

    fn patience(&self) -> Duration {
        match self.keeper.oldest_unsynced {
            Some(since) => (since + self.options.sync_after)
                .saturating_duration_since(Instant::now())
                .clamp(Duration::from_millis(1), self.options.sync_idle),
            None => TICK,
        }
    }

    fn sync_if_due(&mut self, quiet: bool) -> Result<()> {
        let due = self.keeper.oldest_unsynced.is_none_or(|since| quiet || since.elapsed() >= GROUP);
        if due && self.durable.as_ref().is_some_and(|durable| durable.published() < self.taken) {
            self.keeper.sync()?;
            if let Some(durable) = &self.durable {
                durable.publish(self.taken);
            }
        }
        let Some(since) = self.keeper.oldest_unsynced else { return Ok(()) };
        let between = self.keeper.intake.as_ref().is_some_and(|intake| !intake.is_open());
        let idle = quiet && between && self.keeper.last_sync.elapsed() >= self.options.sync_idle;
        if idle || since.elapsed() >= self.options.sync_after {
            self.keeper.sync()?;
        }
        Ok(())
    }

    fn reached(&self, until: &Until) -> bool {
        let (Until::Position(target), Some(intake)) = (until, self.keeper.intake.as_ref()) else {
            return false;
        };
        let here =
            Position { file: intake.file().to_owned(), offset: intake.offset(), gtid: target.gtid.clone() };
        !intake.is_open() && order(&here, target).is_some_and(std::cmp::Ordering::is_ge)
    }
}

/// Is this what a server says of an event that it can't send? Both families log rows of up to 4 GiB (several columns of
/// `max_allowed_packet` each) and send no event of more than 1 GiB, whatever their `max_allowed_packet` and that of replicas
/// are set to (seen with MySQL 9.7.4 and MariaDB 10.11.19). One that is asked to read from the middle of an event says it, too.
fn is_too_large(error: &holdfast_mysql::Error) -> bool {
    let holdfast_mysql::Error::Server(error) = error else { return false };
    holdfast_mysql::dump::is_not_there(error)
        && error.message.to_ascii_lowercase().contains("exceeded max_allowed_packet")
}

mod batch;
mod channel;
mod engine;
mod guard;
mod plain;
mod source;
mod task;
#[cfg(test)]
mod tests;
mod uring;
mod words;
