//! The threads behind a backup: workers hash, look up and compress; one writer seals frames into segments; one sealer
//! ends segments, so that its syncs hold nobody up.
//!
//! Memory: 64 blocks on their way in, 64 payloads on their way out (8 MiB in all); the images of two segments, the one
//! that is written and the one that is sealed, and the work space of its parity (64 MiB each).

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_format::ids::{Address, BlockId, SegmentId};
use holdfast_format::keys::block_id;
use holdfast_format::limits::{DEPTH_MAX, SEGMENT_BYTES};
use holdfast_format::map::{Place, RunKind};
use holdfast_format::segment::{Codec, FooterEntry, FrameKind, SegmentKind};

use super::files::{FileState, Packed, Stored, Table};
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::index::Index;
use crate::map::{Parent, load_segments};
use crate::reader::read_block;
use crate::repository::{Inner, VerifyWrite};
use crate::segment::{Located, NewFrame, SealedSegment, SegmentWriter};
use crate::session::LiveSession;

/// Blocks, and payloads, on their way.
const QUEUE: usize = 64;

/// With `VerifyWrite::Sample`, one frame of this many is read back.
const SAMPLE: u64 = 16;

/// How often a waiting thread looks whether another one failed.
const LOOK: Duration = Duration::from_millis(50);

/// A delta below an eighth of its block is taken without compressing the whole block too: pages of InnoDB compress to
/// a half or a third, so nothing else would win.
const GOOD_DELTA_DIVISOR: usize = 8;

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
    pub(super) parent: Option<Parent>,
    pub(super) table: Mutex<Table>,
    pub(super) counters: Counters,
    /// Segments that garbage collection means to remove: nothing new may need them.
    condemned: HashSet<SegmentId>,
    /// Blocks of segments that are not sealed yet.
    fresh: Mutex<HashMap<BlockId, Stored>>,
    /// Blocks of sealed segments, own ones and, once a block was not found at the parent, all of the repository.
    index: Mutex<KnownBlocks>,
    outstanding: Mutex<usize>,
    settled: Condvar,
    error: Mutex<Option<Arc<Error>>>,
    sealed: Mutex<Vec<SegmentId>>,
    verified: AtomicU64,
}

#[derive(Debug)]
struct KnownBlocks {
    index: Index,
    loaded: bool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub(super) fn new(inner: &Arc<Inner>, session: LiveSession, parent: Option<Parent>) -> Self {
        let index = KnownBlocks { index: Index::new(inner.options.index_bytes_max), loaded: false };
        Self {
            inner: Arc::clone(inner),
            session,
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
        }
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
        match self.inner.options.verify_write {
            VerifyWrite::Full => true,
            VerifyWrite::Sample => self.verified.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE),
        }
    }

    /// Where the parent has the block at the same place of the same file.
    fn parent_address(&self, file: &FileState, block: u32) -> Option<Address> {
        let parent = self.parent.as_ref()?;
        let mapped = parent.map.files.get(file.parent? as usize)?;
        let RunKind::Data { first, .. } = mapped.block(block) else { return None };
        parent.map.address(first)
    }

    /// Puts the segments of a frame that is known into the backup's table.
    fn stored(&self, address: Address, entry: &FooterEntry) -> Stored {
        let mut table = self.table();
        let mut place = |a: Address| Place { segment: table.place(a.segment, false), slot: a.slot };
        Stored { place: place(address), depth: entry.depth, base: entry.base.map(place) }
    }

    /// The block anywhere else in the repository.
    fn known(&self, id: &BlockId) -> Result<Option<Stored>> {
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
        for place in candidates {
            let Some(segment) = self.table().segment(place.segment) else { continue };
            let address = Address { segment, slot: place.slot };
            let Some(found) = self.inner.cache.try_locate(address).filter(|f| f.entry.id == *id) else {
                continue;
            };
            return Ok(Some(self.stored(address, &found.entry)));
        }
        Ok(None)
    }

    /// Reads the footers of every segment that a backup which is wanted refers to, condemned ones apart.
    fn load_index(&self, index: &mut Index) -> Result<()> {
        let inner = &self.inner;
        let mut coder = Coder::new()?;
        let mut seen = HashSet::new();
        for backup in inner.backups().iter().rev() {
            // A backup whose map is damaged costs its deduplication, not this backup.
            let Ok((_, segments)) = load_segments(&inner.cache, &mut coder, backup.map) else { continue };
            for segment in segments.iter().map(|s| s.segment) {
                if self.condemned.contains(&segment) || !seen.insert(segment) {
                    continue;
                }
                let Ok(view) = inner.cache.view(segment) else { continue };
                let place = self.table().place(segment, false);
                for entry in &view.footer().entries {
                    let here = entry.kind == FrameKind::Block
                        && view.entry(Address { segment, slot: entry.slot }) == Some(entry);
                    if here && !index.insert(&entry.id, Place { segment: place, slot: entry.slot }) {
                        return Ok(());
                    }
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

    fn done(mut self) {
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

struct BlockJob {
    file: Arc<FileState>,
    block: u32,
    data: Vec<u8>,
    ticket: Ticket,
}

enum WriterJob {
    Store { file: Arc<FileState>, block: u32, frame: NewFrame, ticket: Ticket },
    Seal(Sender<()>),
}

enum SealerJob {
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
        let (blocks, block_jobs) = bounded::<BlockJob>(QUEUE);
        let (writer, writer_jobs) = bounded::<WriterJob>(QUEUE);
        let (sealer, sealer_jobs) = bounded::<SealerJob>(0);
        let mut threads = Vec::new();
        let mut spawn = |name: &str, work: Box<dyn FnOnce() + Send>| -> Result<()> {
            let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work);
            let refused = |e: std::io::Error| Error::Refused { op: "start a thread", why: e.to_string() };
            threads.push(thread.map_err(refused)?);
            Ok(())
        };
        for _ in 0..shared.inner.options.workers.clamp(1, 64) {
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

    /// Hands a block to the workers; waits while they are busy.
    pub(super) fn put(&self, file: Arc<FileState>, block: u32, data: Vec<u8>) -> Result<()> {
        self.shared.check()?;
        let job = BlockJob { file, block, data, ticket: Ticket::new(&self.shared) };
        let sent = self.blocks.as_ref().map(|blocks| blocks.send(job));
        match sent {
            Some(Ok(())) => Ok(()),
            _ => self.shared.check().and(Err(Error::SelfCheck { what: "the threads of a backup" })),
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
    let mut coder = match Coder::new() {
        Ok(coder) => Some(coder),
        Err(e) => {
            shared.fail(e);
            None
        }
    };
    for job in jobs {
        let Some(coder) = coder.as_mut().filter(|_| shared.check().is_ok()) else {
            job.ticket.done();
            continue;
        };
        if let Err(e) = work_on(shared, coder, job, writer) {
            shared.fail(e);
        }
    }
}

fn work_on(shared: &Arc<Shared>, coder: &mut Coder, job: BlockJob, writer: &Sender<WriterJob>) -> Result<()> {
    let BlockJob { file, block, data, ticket } = job;
    if is_zero(&data) {
        file.set(block, Packed::ZERO, None);
        ticket.done();
        return Ok(());
    }
    let id = block_id(&shared.inner.keys.block_id, &data);
    let done = place_block(shared, coder, &file, block, &data, id);
    match done {
        Ok(Placed::Known(stored)) => {
            file.set(block, stored.packed(), stored.base);
            ticket.done();
            Ok(())
        }
        Ok(Placed::New(frame)) => {
            // The writer is gone only after it failed, and said so.
            if let Err(lost) = writer.send(WriterJob::Store { file, block, frame, ticket })
                && let WriterJob::Store { ticket, .. } = lost.into_inner()
            {
                ticket.done();
            }
            Ok(())
        }
        Err(e) => {
            ticket.done();
            Err(e)
        }
    }
}

/// What becomes of a block.
enum Placed {
    Known(Stored),
    New(NewFrame),
}

/// Asks the parent, then the rest of the repository, then encodes.
fn place_block(
    shared: &Shared,
    coder: &mut Coder,
    file: &FileState,
    block: u32,
    data: &[u8],
    id: BlockId,
) -> Result<Placed> {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let before = shared.parent_address(file, block);
    let before = before.and_then(|address| Some((address, shared.inner.cache.try_locate(address)?)));
    if let Some((address, found)) = &before
        && found.entry.id == id
    {
        count(&shared.counters.parent_blocks);
        return Ok(Placed::Known(shared.stored(*address, &found.entry)));
    }
    if let Some(stored) = shared.known(&id)? {
        count(&shared.counters.known_blocks);
        return Ok(Placed::Known(stored));
    }
    let plain_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let verify = shared.verify();
    let delta = match &before {
        Some((address, found)) => shared.delta(coder, *address, found, data, verify)?,
        None => None,
    };
    let frame = match delta {
        Some(Delta { base, depth, payload, good: true }) => NewFrame {
            kind: FrameKind::Block,
            codec: Codec::Delta,
            depth,
            base: Some(base),
            id,
            plain_len,
            payload,
        },
        delta => {
            let (codec, whole) = coder.encode(data, verify)?;
            match delta {
                // A poor delta still wins if it is shorter by a quarter: it costs a read of its base later.
                Some(Delta { base, depth, payload, .. }) if payload.len() < whole.len() / 4 * 3 => {
                    let codec = Codec::Delta;
                    NewFrame {
                        kind: FrameKind::Block,
                        codec,
                        depth,
                        base: Some(base),
                        id,
                        plain_len,
                        payload,
                    }
                }
                _ => NewFrame {
                    kind: FrameKind::Block,
                    codec,
                    depth: 0,
                    base: None,
                    id,
                    plain_len,
                    payload: whole,
                },
            }
        }
    };
    Ok(Placed::New(frame))
}

/// A block as a delta against the one it replaces.
struct Delta {
    base: Address,
    depth: u8,
    payload: Vec<u8>,
    /// So short that the whole block need not be compressed to compare.
    good: bool,
}

impl Shared {
    /// Encodes a block against the one it replaces, unless that one is too deep, condemned or can't be read.
    fn delta(
        &self,
        coder: &mut Coder,
        base: Address,
        found: &Located,
        data: &[u8],
        verify: bool,
    ) -> Result<Option<Delta>> {
        let depth = found.entry.depth.saturating_add(1);
        let depth_max = self.inner.options.delta_depth_max.min(DEPTH_MAX);
        if depth > depth_max || found.entry.kind != FrameKind::Block || self.condemned.contains(&base.segment)
        {
            return Ok(None);
        }
        // A base that can't be read costs a whole block, not the backup.
        let Ok(plain) = read_block(&self.inner, coder, base) else { return Ok(None) };
        let limit = data.len() / 2;
        let Some(mut delta) = coder.encode_delta(data, &plain, limit, verify)? else { return Ok(None) };
        let good = delta.len() < data.len() / GOOD_DELTA_DIVISOR;
        let mut payload = base.to_bytes().to_vec();
        payload.append(&mut delta);
        Ok(Some(Delta { base, depth, payload, good }))
    }
}

/// Whether a block is all zeros.
pub(super) fn is_zero(data: &[u8]) -> bool {
    let (head, words, tail) = (data.len() % 16, data.chunks_exact(16), data);
    let rest = tail.get(tail.len() - head..).unwrap_or(&[]);
    rest.iter().all(|b| *b == 0) && words.into_iter().all(|w| *w == [0; 16])
}

/// The writer's side: one segment at a time.
struct Writing {
    shared: Arc<Shared>,
    current: Option<(u32, Box<SegmentWriter>)>,
    sealer: Sender<SealerJob>,
}

impl Writing {
    fn run(mut self, jobs: &Receiver<WriterJob>) {
        for job in jobs {
            match job {
                WriterJob::Store { file, block, frame, ticket } => {
                    if self.shared.check().is_ok() {
                        match self.store(frame) {
                            Ok(stored) => file.set(block, stored.packed(), stored.base),
                            Err(e) => self.shared.fail(e),
                        }
                    }
                    ticket.done();
                }
                WriterJob::Seal(reply) => {
                    self.hand_over();
                    let _ = self.sealer.send(SealerJob::Flush(reply));
                }
            }
        }
        if self.shared.check().is_ok() {
            self.hand_over();
        }
    }

    fn store(&mut self, frame: NewFrame) -> Result<Stored> {
        if let Some(stored) = lock(&self.shared.fresh).get(&frame.id) {
            self.shared.counters.known_blocks.fetch_add(1, Ordering::Relaxed);
            return Ok(*stored);
        }
        let (place, mut segment) = match self.current.take() {
            Some(current) => current,
            None => {
                let shared = &self.shared;
                let verify = shared.inner.options.verify_write == VerifyWrite::Full;
                let (objects, keys) = (shared.inner.objects.as_ref(), &shared.inner.keys);
                let segment =
                    SegmentWriter::create(objects, keys, SegmentKind::Data, shared.session.id(), verify)?;
                let mut table = shared.table();
                let place = table.place(segment.id(), true);
                table.unsealed.insert(place);
                (place, Box::new(segment))
            }
        };
        let (id, depth, base) = (frame.id, frame.depth, frame.base);
        let slot = segment.append(frame)?;
        let base = base.map(|b| Place { segment: self.shared.table().place(b.segment, false), slot: b.slot });
        let found = Stored { place: Place { segment: place, slot }, depth, base };
        lock(&self.shared.fresh).insert(id, found);
        self.shared.counters.delta_blocks.fetch_add(u64::from(depth > 0), Ordering::Relaxed);
        self.shared.counters.new_blocks.fetch_add(1, Ordering::Relaxed);
        let full = segment.len() >= SEGMENT_BYTES || !segment.has_slot();
        self.current = Some((place, segment));
        if full {
            self.hand_over();
        }
        Ok(found)
    }

    fn hand_over(&mut self) {
        if let Some((place, segment)) = self.current.take() {
            // The sealer is gone only after it failed, and said so.
            let _ = self.sealer.send(SealerJob::Seal { place, segment });
        }
    }
}

/// The sealer: footer, trailer, sync.
fn seal(shared: &Arc<Shared>, jobs: &Receiver<SealerJob>) {
    for job in jobs {
        match job {
            SealerJob::Seal { .. } if shared.check().is_err() => {}
            SealerJob::Seal { place, segment } => match segment.seal() {
                Ok(sealed) => {
                    let mut known = lock(&shared.index);
                    for entry in &sealed.footer.entries {
                        known.index.insert(&entry.id, Place { segment: place, slot: entry.slot });
                    }
                    drop(known);
                    shared.note_sealed(&sealed);
                    shared.table().unsealed.remove(&place);
                    let mut fresh = lock(&shared.fresh);
                    fresh.retain(|_, stored| stored.place.segment != place);
                }
                Err(e) => shared.fail(e),
            },
            SealerJob::Flush(reply) => {
                let _ = reply.send(());
            }
        }
    }
}
