//! Bulk I/O by io_uring: a ring of its own, one issuer, completions reaped on its thread.
//!
//! `SINGLE_ISSUER | DEFER_TASKRUN` where the kernel has them (6.1), plain otherwise. Buffers
//! are registered when RLIMIT_MEMLOCK allows (8 MiB for users by default), which saves
//! pinning their pages for each request; refused, they are used unregistered.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::{Completion, Direction, Engine, EngineOptions, Progress, Request, Slab};
use crate::error::{Error, Result};

/// Requests gathered before the kernel is told without being asked to wait: a system call for each would cost what
/// io_uring saves.
const BATCH: u32 = 8;
/// How long dropping an engine waits for the kernel to let go of the buffers.
const DRAIN_PATIENCE: Duration = Duration::from_secs(30);

/// An engine on a ring of its own. Stays on the thread that made it.
pub struct UringEngine {
    ring: IoUring,
    slab: Arc<Slab>,
    registered: bool,
    patience: Duration,
    /// What the kernel works on, by the index it knows it by.
    slots: Vec<Option<Progress>>,
    free_slots: Vec<u32>,
    /// Pushed to the queue, the kernel not told yet.
    unsent: u32,
    ready: VecDeque<Completion>,
    /// The kernel refuses other threads (single issuer), so the type does too.
    _one_thread: PhantomData<*const ()>,
}

impl fmt::Debug for UringEngine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UringEngine({}, {} under way, {:?})", self.name(), self.under_way(), self.slab)
    }
}

fn failed(op: &'static str, source: io::Error) -> Error {
    Error::Io { op, what: "io_uring".into(), source }
}

impl UringEngine {
    /// Makes the ring and tries it; an error if this host forbids it.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let options = options.clamped();
        let ring = Self::ring(options.depth).map_err(|e| failed("set up", e))?;
        let slab = Slab::new(options.buffers, options.buffer_bytes)?;
        let registered = options.register && Self::register(&ring, &slab);
        let mut engine = Self {
            ring,
            slab,
            registered,
            patience: options.patience,
            slots: (0..options.depth).map(|_| None).collect(),
            free_slots: (0..options.depth).rev().collect(),
            unsent: 0,
            ready: VecDeque::new(),
            _one_thread: PhantomData,
        };
        engine.probe()?;
        Ok(engine)
    }

    fn ring(depth: u32) -> io::Result<IoUring> {
        let tuned = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(depth);
        match tuned {
            Err(e) if e.raw_os_error() == Some(libc::EINVAL) => IoUring::builder().build(depth),
            other => other,
        }
    }

    /// Registers every buffer of the slab; false if the kernel does not want to.
    fn register(ring: &IoUring, slab: &Arc<Slab>) -> bool {
        let vectors: Vec<libc::iovec> = (0..slab.count())
            .map(|index| libc::iovec {
                iov_base: slab.start_of(index).as_ptr().cast(),
                iov_len: slab.buffer_bytes() as usize,
            })
            .collect();
        // SAFETY: each vector is a whole buffer of the slab's mapping. The engine holds the slab, and its `Drop` waits
        // for everything under way; the registration ends with the ring, a field declared before the slab and so
        // dropped before it. (The kernel also pins the pages, so they cannot be reused under its hands.)
        #[expect(unsafe_code, reason = "the kernel is told about memory that must outlive the ring")]
        let registered = unsafe { ring.submitter().register_buffers(&vectors) };
        registered.is_ok()
    }

    /// Asks the kernel whether it knows what we need, and sends one empty request around.
    fn probe(&mut self) -> Result<()> {
        let mut probe = Probe::new();
        self.ring.submitter().register_probe(&mut probe).map_err(|e| failed("probe", e))?;
        let needed =
            [opcode::Read::CODE, opcode::Write::CODE, opcode::ReadFixed::CODE, opcode::WriteFixed::CODE];
        if !needed.iter().all(|code| probe.is_supported(*code)) || !self.ring.params().is_feature_ext_arg() {
            let why = "the kernel is too old for it (5.11 or newer is needed)";
            return Err(Error::Refused { op: "use", what: "io_uring".into(), why });
        }
        self.push(&opcode::Nop::new().build().user_data(u64::MAX))?;
        self.enter(1)?;
        let answer = self.ring.completion().next();
        match answer {
            Some(entry) if entry.result() == 0 => Ok(()),
            _ => Err(failed("probe", io::Error::from(io::ErrorKind::Unsupported))),
        }
    }

    fn under_way(&self) -> u32 {
        let depth = self.slots.len().saturating_sub(self.free_slots.len());
        u32::try_from(depth).unwrap_or(u32::MAX)
    }

    fn push(&mut self, entry: &squeue::Entry) -> Result<()> {
        // SAFETY: an entry points at a part of a buffer and names a descriptor. Both belong to the `Progress` that
        // sits in `slots` until the completion of this entry was reaped (the empty request of `probe` has neither),
        // and `Drop` leaks them rather than freeing them early.
        #[expect(unsafe_code, reason = "the kernel reads and writes what the entry points at")]
        let pushed = unsafe { self.ring.submission().push(entry) };
        if pushed.is_err() {
            // As many entries as slots exist, so this is only reached with unsent ones: hand them over first.
            self.enter(0)?;
            // SAFETY: as above.
            #[expect(unsafe_code, reason = "the kernel reads and writes what the entry points at")]
            let again = unsafe { self.ring.submission().push(entry) };
            again.map_err(|_| failed("queue a request with", io::Error::from(io::ErrorKind::WouldBlock)))?;
        }
        self.unsent = self.unsent.saturating_add(1);
        Ok(())
    }

    /// Tells the kernel what is queued, and waits for `want` completions, at most `patience`.
    fn enter(&mut self, want: usize) -> Result<()> {
        let start = Instant::now();
        loop {
            let waited = start.elapsed();
            let left = self.patience.saturating_sub(waited);
            let limit = types::Timespec::from(left);
            let arguments = types::SubmitArgs::new().timespec(&limit);
            let entered = if want == 0 {
                self.ring.submitter().submit()
            } else {
                self.ring.submitter().submit_with_args(want, &arguments)
            };
            match entered {
                Ok(_) => {
                    self.unsent = 0;
                    return Ok(());
                }
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR | libc::EAGAIN) if waited < self.patience => {}
                    // The completion queue is full: there is something to reap.
                    Some(libc::EBUSY) => return Ok(()),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN) => {
                        let what = format!("{} reads or writes", self.under_way());
                        return Err(Error::Stalled { what, waited });
                    }
                    _ => return Err(failed("wait for", e)),
                },
            }
        }
    }

    /// Queues what is left of a request, which sits in its slot.
    fn send(&mut self, slot: u32) -> Result<()> {
        let Some(progress) = self.slots.get(slot as usize).and_then(Option::as_ref) else { return Ok(()) };
        let (descriptor, len) = match progress.direct_part() {
            Some((descriptor, len)) => (descriptor, len),
            None => match progress.request.file.descriptor() {
                Some(descriptor) => (descriptor, progress.left()),
                None => return Ok(()),
            },
        };
        let fd = types::Fd(descriptor.as_raw_fd());
        let buffer = &progress.request.buffer;
        let address = buffer.start().as_ptr().wrapping_add(progress.done as usize);
        let offset = progress.offset();
        let fixed =
            u16::try_from(buffer.index()).ok().filter(|_| self.registered && buffer.belongs_to(&self.slab));
        let entry = match (progress.request.direction, fixed) {
            (Direction::Read { .. }, Some(index)) => {
                opcode::ReadFixed::new(fd, address, len, index).offset(offset).build()
            }
            (Direction::Read { .. }, None) => opcode::Read::new(fd, address, len).offset(offset).build(),
            (Direction::Write, Some(index)) => {
                opcode::WriteFixed::new(fd, address.cast_const(), len, index).offset(offset).build()
            }
            (Direction::Write, None) => {
                opcode::Write::new(fd, address.cast_const(), len).offset(offset).build()
            }
        };
        self.push(&entry.user_data(u64::from(slot)))
    }

    /// Takes what the kernel has finished; short transfers go back into the queue.
    fn reap(&mut self) -> Result<()> {
        loop {
            let Some(entry) = self.ring.completion().next() else { return Ok(()) };
            let Ok(slot) = u32::try_from(entry.user_data()) else { continue };
            let Some(place) = self.slots.get_mut(slot as usize) else { continue };
            let Some(mut progress) = place.take() else { continue };
            let result = entry.result();
            if let Ok(moved) = u32::try_from(result) {
                if progress.moved(moved) {
                    self.free_slots.push(slot);
                    self.ready.push_back(progress.finish());
                } else {
                    *place = Some(progress);
                    self.send(slot)?;
                }
            } else if matches!(result.saturating_neg(), libc::EINTR | libc::EAGAIN) {
                *place = Some(progress);
                self.send(slot)?;
            } else if result.saturating_neg() == libc::EINVAL && progress.direct_part().is_some() {
                // The file system takes the flag, but not this request: go on through the page cache.
                progress.request.file.refuse_direct();
                *place = Some(progress);
                self.send(slot)?;
            } else {
                let error = io::Error::from_raw_os_error(result.saturating_neg());
                let error = Error::from_io(progress.op(), progress.request.file.path(), error);
                self.free_slots.push(slot);
                self.ready.push_back(progress.end(Err(error)));
            }
        }
    }

    /// Waits until at least one more completion is ready.
    fn wait(&mut self) -> Result<()> {
        let before = self.ready.len();
        while self.ready.len() == before && self.under_way() > 0 {
            self.enter(1)?;
            self.reap()?;
        }
        Ok(())
    }
}

impl Engine for UringEngine {
    fn name(&self) -> &'static str {
        if self.registered { "io_uring" } else { "io_uring, unregistered" }
    }

    fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    fn in_flight(&self) -> u32 {
        self.under_way().saturating_add(u32::try_from(self.ready.len()).unwrap_or(u32::MAX))
    }

    fn room(&self) -> u32 {
        u32::try_from(self.slots.len()).unwrap_or(u32::MAX).saturating_sub(self.in_flight())
    }

    fn submit(&mut self, request: Request) -> Result<()> {
        let progress = match Progress::start(request) {
            Ok(progress) => progress,
            Err(refused) => {
                self.ready.push_back(refused);
                return Ok(());
            }
        };
        if progress.request.file.descriptor().is_none() || progress.left() == 0 {
            // A simulated file, or nothing to do: the kernel has no part in it.
            self.ready.push_back(progress.run());
            return Ok(());
        }
        if self.free_slots.is_empty() {
            self.wait()?;
        }
        let Some(slot) = self.free_slots.pop() else {
            return Err(failed("queue a request with", io::Error::from(io::ErrorKind::WouldBlock)));
        };
        if let Some(place) = self.slots.get_mut(slot as usize) {
            *place = Some(progress);
        }
        self.send(slot)?;
        if self.unsent >= BATCH {
            self.enter(0)?;
        }
        Ok(())
    }

    fn complete(&mut self) -> Result<Option<Completion>> {
        if self.ready.is_empty() {
            self.wait()?;
        } else if self.unsent > 0 {
            self.enter(0)?;
        }
        Ok(self.ready.pop_front())
    }

    fn complete_within(&mut self, limit: Duration) -> Result<Option<Completion>> {
        if self.ready.is_empty() && self.under_way() > 0 {
            // With deferred task work completions are posted in the call only, so it is made even with nothing to send.
            self.poke(limit)?;
            self.reap()?;
        } else if self.unsent > 0 {
            self.enter(0)?;
        }
        Ok(self.ready.pop_front())
    }
}

impl UringEngine {
    /// Enters the kernel to send what is queued and to run deferred work, and waits that long for a completion.
    fn poke(&mut self, limit: Duration) -> Result<()> {
        let limit = types::Timespec::from(limit);
        let arguments = types::SubmitArgs::new().timespec(&limit);
        match self.ring.submitter().submit_with_args(1, &arguments) {
            Ok(_) => {
                self.unsent = 0;
                Ok(())
            }
            Err(e)
                if matches!(
                    e.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)
                ) =>
            {
                Ok(())
            }
            Err(e) => Err(failed("wait for", e)),
        }
    }
}

impl Drop for UringEngine {
    fn drop(&mut self) {
        self.patience = DRAIN_PATIENCE.min(self.patience);
        while self.under_way() > 0 {
            if self.wait().is_err() {
                // The kernel may still write into these buffers. Memory and descriptors are lost rather than reused.
                std::mem::forget(Arc::clone(&self.slab));
                for slot in self.slots.drain(..) {
                    std::mem::forget(slot);
                }
                return;
            }
        }
    }
}
