//! The work of a restore: one thread keeps the disk busy, workers open, verify and decode.
//!
//! ```text
//! spans -> [engine reads] -> jobs -> [workers: open | verify | decode] -> out -> [engine writes]
//! ```
//!
//! All bytes are in buffers of the engine's slab. At most [`READ_BUFFERS`] of them hold what was
//! read, from the request until a worker is done with the span; so the others are there for what
//! is to be written, and come back when the disk has taken it. A worker waits for such a buffer
//! while it holds one that was read, never the other way round; the thread with the engine waits
//! for the disk only, or for a worker when the disk has nothing to do.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_format::limits::{BLOCK_BYTES, DEPTH_MAX};
use holdfast_format::map::RunKind;
use holdfast_format::segment::FooterEntry;
use holdfast_io::engine::Direction;
use holdfast_io::{Buffer, Completion, Engine, EngineChoice, EngineOptions, Request, Slab};

use super::spans::{Roots, Span, Spans};
use super::{RestoreProgress, Task, Work};
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::reader::{decode_block, read_located};
use crate::segment::Located;

/// Bytes of a buffer: a span of a segment, or neighbouring blocks of a file. Past this, devices split requests anyway.
const BUFFER_BYTES: u32 = 512 * 1024;

/// Buffers that hold what was read: 8 MiB.
const READ_BUFFERS: u32 = 16;

/// Buffers that hold what is to be written: 16 MiB, and one more for each worker, which fills it.
const WRITE_BUFFERS: u32 = 32;

/// Requests in flight.
const DEPTH: u32 = 32;

/// How long a worker may take for a span, or the disk for a buffer: longer than the engine's own patience for a request.
const PATIENCE: Duration = Duration::from_secs(240);

/// How long the thread with the engine waits for the disk before it looks whether a worker has something to write:
/// without, the disk would run dry of writes while a read is awaited. A fraction of what a buffer takes on a fast disk.
const HANDOVER: Duration = Duration::from_micros(300);

/// After this long without a completion the wait is left to the engine, which knows when a disk is to be called stalled.
const SLOW: Duration = Duration::from_secs(10);

/// Marks a request that writes; what reads carries a number of a span.
const WRITING: u64 = u64::MAX;

/// A span that was read.
struct Job {
    span: Span,
    bytes: Buffer,
    /// Why `bytes` holds nothing.
    failed: Option<Error>,
}

/// What a worker hands to the thread that owns the engine.
enum Out {
    /// Bytes for a file.
    Write { file: u32, offset: u64, buffer: Buffer, blocks: u32 },
    /// A span's buffer is free again.
    SpanDone,
    /// A worker stopped.
    Failed(Error),
}

/// An engine, for as long as the restore takes.
pub(super) struct Bulk {
    engine: Box<dyn Engine>,
    workers: usize,
}

impl Bulk {
    pub(super) fn open(choice: EngineChoice, workers: usize) -> Result<Self> {
        let workers = workers.clamp(1, 64);
        let filling = u32::try_from(workers).unwrap_or(1);
        let options = EngineOptions {
            depth: DEPTH,
            buffers: READ_BUFFERS + WRITE_BUFFERS + filling,
            buffer_bytes: BUFFER_BYTES,
            ..EngineOptions::default()
        };
        Ok(Self { engine: choice.open(options)?, workers })
    }

    /// Lays out a window of blocks, sorted by segment.
    pub(super) fn run(
        &mut self,
        work: &Work<'_>,
        roots: &Roots,
        window: &[Task],
        progress: &(dyn Fn(RestoreProgress) + Sync),
    ) -> Result<()> {
        let stop = AtomicBool::new(false);
        let slab = Arc::clone(self.engine.slab());
        let (jobs, todo) = bounded::<Job>(READ_BUFFERS as usize);
        let (out, done) = bounded::<Out>((READ_BUFFERS + WRITE_BUFFERS) as usize);
        std::thread::scope(|scope| {
            for number in 0..self.workers {
                let worker = Worker { work, slab: &slab, stop: &stop, out: out.clone() };
                let todo = todo.clone();
                match std::thread::Builder::new().spawn_scoped(scope, move || worker.run(&todo)) {
                    Ok(_runs) => {}
                    Err(refused) if number == 0 => {
                        let why = format!(
                            "the system refuses it a thread ({refused}); raise the limit of processes"
                        );
                        return Err(Error::Refused { op: "restore", why });
                    }
                    // The others do it.
                    Err(_refused) => break,
                }
            }
            // Only the workers keep their ends of these.
            drop((out, todo));
            let mut pump = Pump {
                engine: self.engine.as_mut(),
                work,
                jobs,
                done,
                reading: HashMap::new(),
                next_token: 0,
                spans_held: 0,
                progress,
            };
            let result = pump.run(Spans::new(work.reader, roots, window, BUFFER_BYTES));
            stop.store(true, Ordering::Release);
            let Pump { engine, jobs, done, .. } = pump;
            // Whoever waits for work, for a buffer or for room in a channel now gets an answer and ends.
            drop((jobs, done));
            let drained = drain(engine);
            result.and(drained)
        })
    }
}

/// Takes what is still in flight, so that its buffers are free for the workers that end.
fn drain(engine: &mut dyn Engine) -> Result<()> {
    while engine.complete()?.is_some() {}
    Ok(())
}

/// The thread that owns the engine.
struct Pump<'a> {
    engine: &'a mut dyn Engine,
    work: &'a Work<'a>,
    jobs: Sender<Job>,
    done: Receiver<Out>,
    /// Spans under way, by token.
    reading: HashMap<u64, Span>,
    next_token: u64,
    /// Buffers that hold or will hold what is read.
    spans_held: u32,
    progress: &'a (dyn Fn(RestoreProgress) + Sync),
}

impl Pump<'_> {
    fn run(&mut self, mut spans: Spans<'_>) -> Result<()> {
        let mut more = true;
        let mut last = Instant::now();
        loop {
            self.work.go_on()?;
            // Writes first: they free buffers.
            while self.engine.room() > 0
                && let Ok(out) = self.done.try_recv()
            {
                self.take(out)?;
            }
            while more && self.spans_held < READ_BUFFERS && self.engine.room() > 0 {
                // Never waited for here: it is this thread that makes buffers free.
                let Some(buffer) = self.engine.slab().try_take() else { break };
                match spans.next()? {
                    Some(span) => self.read(span, buffer)?,
                    None => more = false,
                }
            }
            if let Some(completion) = self.engine.try_complete()? {
                self.completed(completion)?;
                while let Some(completion) = self.engine.try_complete()? {
                    self.completed(completion)?;
                }
            } else if self.engine.room() > 0 && !self.done.is_empty() {
                // A worker was quicker.
            } else if self.engine.in_flight() > 0 {
                if let Some(completion) = self.wait(&mut last)? {
                    self.completed(completion)?;
                }
            } else if self.spans_held > 0 {
                let out = self.done.recv_timeout(PATIENCE);
                self.take(out.map_err(|_| Error::SelfCheck { what: "a worker of the restore" })?)?;
            } else if !more && self.done.is_empty() {
                return Ok(());
            }
        }
    }

    /// Waits for the disk, but not for long while workers may hand something over.
    fn wait(&mut self, last: &mut Instant) -> Result<Option<Completion>> {
        let found = if self.spans_held > 0 && last.elapsed() < SLOW {
            self.engine.complete_within(HANDOVER)?
        } else {
            self.engine.complete()?
        };
        if found.is_some() {
            *last = Instant::now();
        }
        Ok(found)
    }

    /// Asks for a span.
    fn read(&mut self, span: Span, mut buffer: Buffer) -> Result<()> {
        self.spans_held += 1;
        let Some(file) = &span.file else {
            // The place has no files, so the engine can't help.
            let bytes = buffer.whole_mut().get_mut(..span.len as usize).unwrap_or_default();
            let failed = span.view.read_into(span.start, bytes).err();
            buffer.set_filled(if failed.is_some() { 0 } else { span.len });
            return self.hand_over(span, buffer, failed);
        };
        let token = self.next_token;
        self.next_token += 1;
        let request = Request {
            file: Arc::clone(file),
            offset: span.start,
            buffer,
            direction: Direction::Read { len: span.len },
            token,
        };
        self.reading.insert(token, span);
        Ok(self.engine.submit(request)?)
    }

    fn completed(&mut self, completion: Completion) -> Result<()> {
        let Completion { token, buffer, result } = completion;
        if token == WRITING {
            let written = result?;
            let bytes_done =
                self.work.bytes.fetch_add(u64::from(written), Ordering::Relaxed) + u64::from(written);
            (self.progress)(RestoreProgress { bytes_done, bytes_total: self.work.bytes_total });
            return Ok(());
        }
        let span = self.reading.remove(&token).ok_or(Error::SelfCheck { what: "the plan of a restore" })?;
        // What a read could not give (a segment cut short, a bad sector) is found missing by the worker, who asks the
        // parity for it.
        let failed = result.err().map(Error::from);
        self.hand_over(span, buffer, failed)
    }

    fn hand_over(&self, span: Span, bytes: Buffer, failed: Option<Error>) -> Result<()> {
        // Never waits: there is room for every buffer that can hold a span.
        self.jobs.send(Job { span, bytes, failed }).map_err(|_| self.why_all_ended())
    }

    /// The error of a worker, when none of them is there any more: each says what stopped it before it lets go of its jobs.
    fn why_all_ended(&self) -> Error {
        let failed = |out| if let Out::Failed(e) = out { Some(e) } else { None };
        self.done.try_iter().find_map(failed).unwrap_or(Error::SelfCheck { what: "a worker of the restore" })
    }

    fn take(&mut self, out: Out) -> Result<()> {
        match out {
            Out::Failed(e) => return Err(e),
            Out::SpanDone => self.spans_held = self.spans_held.saturating_sub(1),
            Out::Write { file, offset, buffer, blocks } => {
                let file = self.work.file(file)?;
                self.work.blocks.fetch_add(u64::from(blocks), Ordering::Relaxed);
                let direction = Direction::Write;
                self.engine.submit(Request { file, offset, buffer, direction, token: WRITING })?;
            }
        }
        Ok(())
    }
}

/// Blocks of one file that follow each other, in one buffer.
struct Filling {
    file: u32,
    offset: u64,
    buffer: Buffer,
    blocks: u32,
}

impl Filling {
    /// Whether these bytes may be appended.
    fn takes(&self, file: u32, offset: u64, len: usize) -> bool {
        let filled = self.buffer.filled_len();
        self.file == file
            && self.offset + u64::from(filled) == offset
            && len <= (self.buffer.capacity() - filled) as usize
    }
}

/// A thread that opens, verifies and decodes.
struct Worker<'a> {
    work: &'a Work<'a>,
    slab: &'a Arc<Slab>,
    stop: &'a AtomicBool,
    out: Sender<Out>,
}

impl Worker<'_> {
    fn run(&self, todo: &Receiver<Job>) {
        let mut coder = match Coder::new() {
            Ok(coder) => coder,
            Err(e) => return self.say(Out::Failed(e)),
        };
        while let Ok(Job { span, bytes, failed }) = todo.recv() {
            if self.stop.load(Ordering::Acquire) {
                return;
            }
            if let Err(e) = self.span(&mut coder, &span, &bytes) {
                // That nothing was there is only a consequence.
                let first = span.blocks.first().map(|(_, task)| task).zip(failed);
                let e = first.map_or(e, |(t, failed)| self.work.reader.blame(t.file, t.block, failed));
                return self.say(Out::Failed(e));
            }
            drop(bytes);
            self.say(Out::SpanDone);
        }
    }

    /// Nobody listens any more only when the restore has ended for another reason.
    fn say(&self, out: Out) {
        let _ = self.out.send(out);
    }

    fn span(&self, coder: &mut Coder, span: &Span, bytes: &Buffer) -> Result<()> {
        let reader = self.work.reader;
        let mut filling: Option<Filling> = None;
        for (entry, task) in &span.blocks {
            let delta = self.delta(entry, task).map_err(|e| reader.blame(task.file, task.block, e))?;
            let plain_len = delta.as_ref().map_or(entry, |delta| &delta.entry).plain_len as usize;
            let len = reader.len_of(task).min(plain_len);
            let offset = u64::from(task.block) * u64::from(BLOCK_BYTES);
            if let Some(full) = filling.take_if(|f| !f.takes(task.file, offset, plain_len)) {
                self.write(full);
            }
            let to = match &mut filling {
                Some(to) => to,
                None => {
                    let buffer = self.slab.take(PATIENCE)?;
                    filling.insert(Filling { file: task.file, offset, buffer, blocks: 0 })
                }
            };
            let filled = to.buffer.filled_len();
            let room = to.buffer.whole_mut().get_mut(filled as usize..);
            let Some(room) = room.and_then(|room| room.get_mut(..plain_len)) else {
                let e = span.view.wrong(entry, "it is longer than any block");
                return Err(reader.blame(task.file, task.block, e));
            };
            let frame = span.frame(entry, bytes.filled());
            let decoded = match &delta {
                None => self.whole(coder, span, entry, frame, room),
                Some(delta) => self.climb(coder, span, entry, frame, delta, room),
            };
            decoded.map_err(|e| reader.blame(task.file, task.block, e))?;
            to.buffer.set_filled(filled + u32::try_from(len).unwrap_or(0));
            to.blocks += 1;
        }
        if let Some(last) = filling {
            self.write(last);
        }
        Ok(())
    }

    /// The frame of a task's block, if that is a delta and `entry` the whole block at the end of its chain.
    fn delta(&self, entry: &FooterEntry, task: &Task) -> Result<Option<Located>> {
        let reader = self.work.reader;
        let run = reader.map.files.get(task.file as usize).map(|file| file.block(task.block));
        let Some(RunKind::Data { first, depth: 1.., .. }) = run.filter(|_| entry.base.is_none()) else {
            return Ok(None);
        };
        let address = reader.map.address(first);
        let address = address.ok_or(Error::damaged("map", "a run", "its segment is not in the table"))?;
        reader.inner.cache.locate(address).map(Some)
    }

    /// Decodes a block from its own frame.
    fn whole(
        &self,
        coder: &mut Coder,
        span: &Span,
        entry: &FooterEntry,
        frame: &[u8],
        room: &mut [u8],
    ) -> Result<()> {
        let inner = &self.work.reader.inner;
        let mut payload = std::mem::take(&mut coder.payload);
        let decoded = span.view.open(entry, frame, &mut payload);
        let decoded = decoded.and_then(|()| decode_block(inner, coder, &span.view, entry, &payload, room));
        coder.payload = payload;
        match decoded {
            Err(e) if e.is_damage() => self.heal(coder, span, entry, room, e),
            other => other,
        }
    }

    /// Decodes a delta from the frame of the whole block at the end of its chain.
    fn climb(
        &self,
        coder: &mut Coder,
        span: &Span,
        entry: &FooterEntry,
        frame: &[u8],
        delta: &Located,
        room: &mut [u8],
    ) -> Result<()> {
        let (mut payload, mut base) = (std::mem::take(&mut coder.payload), std::mem::take(&mut coder.base));
        let decoded = self.links(span, entry, delta).and_then(|links| {
            span.view.open(entry, frame, &mut payload)?;
            base.resize(entry.plain_len as usize, 0);
            span.view.decode_base(coder, entry, &payload, &mut base)?;
            for link in links.iter().rev() {
                let mut above = vec![0; link.entry.plain_len as usize];
                link.view.read(&link.entry, coder, &mut payload)?;
                link.view.decode_delta_base(coder, &link.entry, &payload, &base, &mut above)?;
                base = above;
            }
            delta.view.reads_on(&delta.entry);
            delta.view.read(&delta.entry, coder, &mut payload)?;
            delta.view.decode_delta(coder, &delta.entry, &payload, &base, room)
        });
        (coder.payload, coder.base) = (payload, base);
        match decoded {
            // Once more, every base by itself: that finds the one that is wrong, and asks its parity.
            Err(e) if e.is_damage() || matches!(e, Error::Io(_)) => {
                let mut plain = Vec::new();
                read_located(&self.work.reader.inner, coder, delta, &mut plain)?;
                room.copy_from_slice(&plain);
                Ok(())
            }
            other => other,
        }
    }

    /// The deltas between one and the whole block at the end of its chain, from above.
    fn links(&self, span: &Span, entry: &FooterEntry, delta: &Located) -> Result<Vec<Located>> {
        let end = span.view.address(entry);
        let (mut links, mut base) = (Vec::new(), delta.entry.base);
        while let Some(address) = base.filter(|base| Some(*base) != end) {
            if links.len() >= usize::from(DEPTH_MAX) {
                break;
            }
            let found = self.work.reader.inner.cache.locate(address)?;
            base = found.entry.base;
            links.push(found);
        }
        if base.is_none() || base != end {
            return Err(delta.view.wrong(&delta.entry, "its chain of bases does not end where the map says"));
        }
        Ok(links)
    }

    /// Decodes a block again, from its segment as parity brings it back.
    fn heal(
        &self,
        coder: &mut Coder,
        span: &Span,
        entry: &FooterEntry,
        room: &mut [u8],
        e: Error,
    ) -> Result<()> {
        let inner = &self.work.reader.inner;
        let Some(view) = inner.cache.healed(&span.view)? else { return Err(e) };
        let mut payload = std::mem::take(&mut coder.payload);
        let read = view.read(entry, coder, &mut payload);
        let read = read.and_then(|()| decode_block(inner, coder, &view, entry, &payload, room));
        coder.payload = payload;
        read
    }

    fn write(&self, full: Filling) {
        let Filling { file, offset, buffer, blocks } = full;
        self.say(Out::Write { file, offset, buffer, blocks });
    }
}
