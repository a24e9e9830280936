//! The threads behind a backup: workers hash, look up and compress (`place.rs`); one writer seals frames into segments;
//! one sealer ends segments (`sealing.rs`).
//!
//! Memory: [`BLOCKS`] blocks on their way in, [`PAYLOADS`] payloads on their way out (6 MiB in all); the images of two
//! segments, the one that is written and the one that is sealed, and the work space of its parity (64 MiB each).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_format::ids::{Address, BlockId, SegmentId};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{Place, Run, RunKind};
use holdfast_format::segment::{FooterEntry, FrameKind};

use super::files::{FileState, Stored, Table};
use super::place::work_on;
use super::sealing::{Writing, seal};
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::map::{MappedFile, Parent, load_segments};
use crate::parity::Workshop;
use crate::pool::Pool;
use crate::reader::CoderHolder;
use crate::repository::{Inner, VerifyWrite};
use crate::segment::{NewFrame, SealedSegment, SegmentWriter};
use crate::session::LiveSession;

/// Blocks on their way to the workers: enough that none of them waits for a single caller, few enough to stay in the
/// processor's cache.
const BLOCKS: usize = 16;

/// Payloads on their way to the writer: what comes while it encrypts and writes a quarter of a MiB.
const PAYLOADS: usize = 64;

/// Workers at most.
const WORKERS_MAX: usize = 64;

/// Vectors that are kept to be used again: what is on its way, and one for each worker and caller.
const POOL: usize = BLOCKS + PAYLOADS + 16;

/// With `VerifyWrite::Sample`, one frame of this many is read back.
const SAMPLE: u64 = 16;

/// How often a waiting thread looks whether another one failed.
const LOOK: Duration = Duration::from_millis(50);

/// Counts for the record.
#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) new_blocks: AtomicU64,
    pub(super) delta_blocks: AtomicU64,
    pub(super) parent_blocks: AtomicU64,
    pub(super) known_blocks: AtomicU64,
    pub(super) superseded_blocks: AtomicU64,
    pub(super) stored_bytes: AtomicU64,
    pub(super) parity_bytes: AtomicU64,
}

/// What all threads of a backup share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) inner: Arc<Inner>,
    pub(super) session: LiveSession,
    /// How much is read back.
    pub(super) verify_write: VerifyWrite,
    pub(super) parent: Option<Parent>,
    pub(super) table: Mutex<Table>,
    pub(super) counters: Counters,
    /// Segments that garbage collection means to remove: nothing new may need them.
    pub(super) condemned: HashSet<SegmentId>,
    /// Blocks of segments that are not sealed yet.
    pub(super) fresh: Mutex<HashMap<BlockId, Stored>>,
    /// Blocks of sealed segments, own ones and, once a block was not found at the parent, all of the repository.
    pub(super) index: Mutex<KnownBlocks>,
    outstanding: Mutex<usize>,
    settled: Condvar,
    error: Mutex<Option<Arc<Error>>>,
    sealed: Mutex<Vec<SegmentId>>,
    verified: AtomicU64,
    /// Memory for blocks and payloads.
    pub(super) pool: Pool,
    coders: Mutex<Vec<CoderHolder>>,
    /// Memory for segments and their parity.
    pub(super) workshop: Arc<Workshop>,
}

#[derive(Debug)]
pub(super) struct KnownBlocks {
    pub(super) index: Index,
    loaded: bool,
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(
        inner: &Arc<Inner>,
        session: LiveSession,
        parent: Option<Parent>,
        verify_write: VerifyWrite,
    ) -> Self {
        let index = KnownBlocks { index: Index::new(inner.options.index_bytes_max), loaded: false };
        Self {
            inner: Arc::clone(inner),
            session,
            verify_write,
            parent,
            table: Mutex::default(),
            counters: Counters::default(),
            condemned: inner.condemned(),
            fresh: Mutex::default(),
            index: Mutex::new(index),
            outstanding: Mutex::new(0),
            settled: Condvar::new(),
            error: Mutex::default(),
            sealed: Mutex::default(),
            verified: AtomicU64::new(0),
            pool: Pool::new(POOL),
            coders: Mutex::default(),
            workshop: Arc::default(),
        }
    }

    /// Lends a coder: of the thread's own last block, most of the time.
    fn with_coder<T>(&self, work: impl FnOnce(&mut Coder) -> Result<T>) -> Result<T> {
        let kept = lock(&self.coders).pop();
        let mut coder = match kept {
            Some(coder) => coder,
            None => CoderHolder(Coder::new()?),
        };
        let done = work(&mut coder.0);
        lock(&self.coders).push(coder);
        done
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table> {
        lock(&self.table)
    }

    /// Fails once any thread has failed.
    pub(super) fn check(&self) -> Result<()> {
        match &*lock(&self.error) {
            Some(source) => Err(Error::Stopped { source: Arc::clone(source) }),
            None => Ok(()),
        }
    }

    pub(super) fn fail(&self, e: Error) {
        lock(&self.error).get_or_insert_with(|| Arc::new(e));
        self.settled.notify_all();
    }

    /// Waits until every block put so far has its place.
    pub(super) fn drain(&self) -> Result<()> {
        let mut outstanding = lock(&self.outstanding);
        while *outstanding > 0 {
            drop(outstanding);
            self.check()?;
            outstanding = lock(&self.outstanding);
            if *outstanding > 0 {
                let waited = self.settled.wait_timeout(outstanding, LOOK);
                outstanding = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
        drop(outstanding);
        self.check()
    }

    pub(super) fn sealed(&self) -> Vec<SegmentId> {
        lock(&self.sealed).clone()
    }

    pub(super) fn note_sealed(&self, sealed: &SealedSegment) {
        self.counters.stored_bytes.fetch_add(sealed.bytes, Ordering::Relaxed);
        self.counters.parity_bytes.fetch_add(sealed.parity_bytes, Ordering::Relaxed);
        lock(&self.sealed).push(sealed.id);
    }

    /// Whether this frame is read back.
    pub(super) fn verify(&self) -> bool {
        match self.verify_write {
            VerifyWrite::Full => true,
            VerifyWrite::Sample => self.verified.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE),
        }
    }

    /// Where the parent has the block at the same place of the same file.
    pub(super) fn parent_address(&self, file: &FileState, block: u32) -> Option<Address> {
        let parent = self.parent.as_ref()?;
        let mapped = parent.map.files.get(file.parent? as usize)?;
        let RunKind::Data { first, .. } = mapped.block(block) else { return None };
        parent.map.address(first)
    }

    /// The runs of a file of the parent, by this backup's places; `None` if any block of it can't be found.
    pub(super) fn parent_runs(&self, file: &MappedFile) -> Option<Vec<(u32, Run)>> {
        let parent = self.parent.as_ref()?;
        let mut runs = Vec::with_capacity(file.runs().len());
        let mut blocks = 0;
        for (start, run) in file.runs() {
            let RunKind::Data { first, depth, base } = run.kind else {
                runs.push((*start, *run));
                continue;
            };
            let (first, base) = (parent.map.address(first)?, base.map(|b| parent.map.address(b)));
            let view = self.inner.cache.view(first.segment).ok()?;
            for k in 0..run.count {
                let further = |a: Address| Address { segment: a.segment, slot: a.slot.saturating_add(k) };
                let entry = view.entry(further(first))?;
                let is_it = entry.kind == FrameKind::Block
                    && entry.depth == depth
                    && entry.base == base.flatten().map(further)
                    && self.inner.cache.has_bases(entry);
                if !is_it {
                    return None;
                }
            }
            let mut table = self.table();
            let mut place = |a: Address| Place { segment: table.place(a.segment, false), slot: a.slot };
            let first = place(first);
            let kind = RunKind::Data { first, depth, base: base.flatten().map(&mut place) };
            runs.push((*start, Run { count: run.count, kind }));
            blocks += u64::from(run.count);
        }
        self.counters.parent_blocks.fetch_add(blocks, Ordering::Relaxed);
        Some(runs)
    }

    /// Puts the segments of a frame that is known into the backup's table.
    pub(super) fn stored(&self, address: Address, entry: &FooterEntry) -> Stored {
        let mut table = self.table();
        let mut place = |a: Address| Place { segment: table.place(a.segment, false), slot: a.slot };
        Stored { place: place(address), depth: entry.depth, base: entry.base.map(place) }
    }

    /// The block anywhere else in the repository.
    pub(super) fn known(&self, id: &BlockId) -> Result<Option<Stored>> {
        if let Some(stored) = lock(&self.fresh).get(id) {
            return Ok(Some(*stored));
        }
        let candidates = {
            let mut known = lock(&self.index);
            if !known.loaded {
                self.load_index(&mut known.index)?;
                known.loaded = true;
            }
            known.index.candidates(id)
        };
        for segment in candidates {
            // A segment that can't be read any more holds nothing that could be relied on.
            let Ok(view) = self.inner.cache.view(segment) else { continue };
            for entry in view.footer().entries.iter().filter(|e| e.id == *id && view.has_block(segment, e)) {
                if self.inner.cache.has_bases(entry) && self.is_whole(entry) {
                    return Ok(Some(self.stored(Address { segment, slot: entry.slot }, entry)));
                }
            }
        }
        Ok(None)
    }

    /// Whether every base below a frame is there and stays. A frame that no backup needs any more lies on in a segment
    /// that one needs, while its base may be gone.
    fn is_whole(&self, entry: &FooterEntry) -> bool {
        let mut base = entry.base;
        for _ in 0..holdfast_format::limits::DEPTH_MAX {
            let Some(address) = base else { return true };
            if self.condemned.contains(&address.segment) {
                return false;
            }
            let Some(found) = self.inner.cache.try_locate(address) else { return false };
            base = found.entry.base;
        }
        base.is_none()
    }

    /// Reads the footers of every segment that a backup which is wanted refers to, condemned ones apart.
    fn load_index(&self, index: &mut Index) -> Result<()> {
        let inner = &self.inner;
        let mut coder = Coder::new()?;
        let mut seen = HashSet::new();
        let backups = inner.backups();
        // What garbage collection removed was stored, too, and what was forgotten may still be there: a good guess.
        index.reserve(backups.iter().map(|backup| backup.stats.new_blocks).sum());
        for backup in backups.iter().rev() {
            // A backup whose map is damaged costs its deduplication, not this backup.
            let Ok((_, segments)) = load_segments(&inner.cache, &mut coder, backup.map) else { continue };
            for segment in segments.iter().map(|s| s.segment) {
                if self.condemned.contains(&segment) || !seen.insert(segment) {
                    continue;
                }
                let Ok(view) = inner.cache.view(segment) else { continue };
                let blocks = view.footer().entries.iter().filter(|entry| view.has_block(segment, entry));
                if !index.insert(segment, blocks.map(|entry| &entry.id)) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

/// Counts a block as outstanding until it is dropped.
pub(super) struct Ticket {
    shared: Arc<Shared>,
    done: bool,
}

impl Ticket {
    fn new(shared: &Arc<Shared>) -> Self {
        *lock(&shared.outstanding) += 1;
        Self { shared: Arc::clone(shared), done: false }
    }

    pub(super) fn done(mut self) {
        self.done = true;
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if !self.done {
            self.shared.fail(Error::SelfCheck { what: "a block got lost on its way" });
        }
        let mut outstanding = lock(&self.shared.outstanding);
        *outstanding = outstanding.saturating_sub(1);
        if *outstanding == 0 {
            self.shared.settled.notify_all();
        }
    }
}

/// A block on its way to a worker, in a vector of the pool.
struct BlockJob {
    file: Arc<FileState>,
    block: u32,
    data: Vec<u8>,
    ticket: Ticket,
}

pub(super) enum WriterJob {
    Store { file: Arc<FileState>, block: u32, frame: NewFrame, ticket: Ticket },
    Seal(Sender<()>),
}

pub(super) enum SealerJob {
    Seal { place: u32, segment: Box<SegmentWriter> },
    Flush(Sender<()>),
}

/// The running threads.
pub(super) struct Pipeline {
    shared: Arc<Shared>,
    blocks: Option<Sender<BlockJob>>,
    writer: Option<Sender<WriterJob>>,
    threads: Vec<JoinHandle<()>>,
}

impl std::fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Pipeline({} threads)", self.threads.len())
    }
}

impl Pipeline {
    pub(super) fn start(shared: &Arc<Shared>) -> Result<Self> {
        let (blocks, block_jobs) = bounded::<BlockJob>(BLOCKS);
        let (writer, writer_jobs) = bounded::<WriterJob>(PAYLOADS);
        let (sealer, sealer_jobs) = bounded::<SealerJob>(0);
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| -> Result<()> {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            let refused = |e: std::io::Error| Error::Refused {
                op: "start a thread",
                why: format!(
                    "{e}; raise this user's limit of threads (ulimit -u), and run the command again"
                ),
            };
            threads.push(thread.map_err(refused)?);
            Ok(())
        };
        for _ in 0..shared.inner.options.workers.clamp(1, WORKERS_MAX) {
            let (shared, jobs, writer) = (Arc::clone(shared), block_jobs.clone(), writer.clone());
            spawn("hf-block", Box::new(move || work(&shared, &jobs, &writer)))?;
        }
        let (s, w) = (Arc::clone(shared), sealer);
        spawn(
            "hf-segment",
            Box::new(move || Writing { shared: s, current: None, sealer: w }.run(&writer_jobs)),
        )?;
        let s = Arc::clone(shared);
        spawn("hf-seal", Box::new(move || seal(&s, &sealer_jobs)))?;
        Ok(Self { shared: Arc::clone(shared), blocks: Some(blocks), writer: Some(writer), threads })
    }

    /// Hands a block to the workers; while they are busy, the caller does the work itself, on a block that its own core
    /// has in its cache. So a single caller has all workers to help it, and many callers wait for nobody.
    pub(super) fn put(&self, file: Arc<FileState>, block: u32, data: &[u8]) -> Result<()> {
        self.shared.check()?;
        let (Some(blocks), Some(writer)) = (&self.blocks, &self.writer) else {
            return Err(Error::SelfCheck { what: "the threads of a backup" });
        };
        let ticket = Ticket::new(&self.shared);
        if blocks.is_full() {
            let worked = self
                .shared
                .with_coder(|coder| work_on(&self.shared, coder, (file, block), data, ticket, writer));
            return worked.or_else(|e| {
                self.shared.fail(e);
                self.shared.check()
            });
        }
        let mut copy = self.shared.pool.take(BLOCK_BYTES as usize + 16);
        copy.extend_from_slice(data);
        match blocks.send(BlockJob { file, block, data: copy, ticket }) {
            Ok(()) => Ok(()),
            Err(lost) => {
                lost.into_inner().ticket.done();
                self.shared.check().and(Err(Error::SelfCheck { what: "the threads of a backup" }))
            }
        }
    }

    /// Waits for all blocks, and seals and syncs what was written.
    pub(super) fn seal(&self) -> Result<()> {
        self.shared.drain()?;
        let (reply, answer) = bounded(1);
        if let Some(writer) = &self.writer {
            // A closed channel shows as an answer that never comes.
            let _ = writer.send(WriterJob::Seal(reply));
        }
        loop {
            match answer.recv_timeout(LOOK) {
                Ok(()) => return self.shared.check(),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => self.shared.check()?,
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => {
                    self.shared.check()?;
                    return Err(Error::SelfCheck { what: "the threads of a backup" });
                }
            }
        }
    }

    /// Ends the threads; what was put before is done first.
    pub(super) fn stop(&mut self) {
        self.blocks = None;
        self.writer = None;
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                self.shared.fail(Error::SelfCheck { what: "a thread of a backup panicked" });
            }
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A worker: hash, known?, compress.
fn work(shared: &Arc<Shared>, jobs: &Receiver<BlockJob>, writer: &Sender<WriterJob>) {
    for BlockJob { file, block, data, ticket } in jobs {
        if shared.check().is_err() {
            ticket.done();
            continue;
        }
        let worked = shared.with_coder(|coder| work_on(shared, coder, (file, block), &data, ticket, writer));
        if let Err(e) = worked {
            shared.fail(e);
        }
        shared.pool.give(data);
    }
}
