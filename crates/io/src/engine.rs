//! Bulk I/O: many large reads and writes in flight at once, over several files.
//!
//! One trait, two engines: io_uring, and a pool of threads for hosts that forbid
//! io_uring (containers, hardened kernels) and for simulated disks. Memory is bounded by
//! the [`Slab`]: whoever wants to read or write takes a buffer first, and gives it back
//! by dropping it, on whatever thread.
//!
//! ```text
//! loop { while there is work and a free buffer: submit;  complete -> hand the buffer on }
//! ```
//!
//! An engine belongs to one thread (io_uring's single issuer); buffers may travel.
//! `slab.rs` has the memory, `pool.rs` and `uring.rs` the engines.

mod pool;
mod slab;
mod uring;

use std::fmt;
use std::os::fd::BorrowedFd;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

pub use pool::PoolEngine;
pub use slab::{BUFFER_ALIGNMENT, Buffer, Slab};
pub use uring::UringEngine;

use crate::disk::{DIRECT_ALIGNMENT, File};
use crate::error::{Error, Result};

/// Smallest buffer: one block of 64 KiB.
pub const BUFFER_BYTES_MIN: u32 = 64 * 1024;
/// Largest buffer: device queues take no larger requests anyway (`max_sectors_kb` is 1,280 or less almost everywhere).
pub const BUFFER_BYTES_MAX: u32 = 1024 * 1024;
/// Most requests in flight: past 128 no device we know gets faster, and memory is depth times buffer.
pub const DEPTH_MAX: u32 = 256;

/// How large an engine is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EngineOptions {
    /// Requests in flight.
    pub depth: u32,
    /// Buffers in the slab; more than `depth` if consumers hold some while others are in flight.
    pub buffers: u32,
    /// Bytes of each buffer, 64 KiB to 1 MiB.
    pub buffer_bytes: u32,
    /// Whether io_uring may register the buffers (pins their memory; falls back if the kernel refuses).
    pub register: bool,
    /// How long one completion may take.
    pub patience: Duration,
}

impl Default for EngineOptions {
    /// 32 requests in flight and 48 buffers of 512 KiB: 24 MiB of the 512 MiB the whole process may take.
    fn default() -> Self {
        Self {
            depth: 32,
            buffers: 48,
            buffer_bytes: 512 * 1024,
            register: true,
            // Linux gives a SCSI command 30 s and retries it five times.
            patience: Duration::from_secs(180),
        }
    }
}

impl EngineOptions {
    /// The options with every number inside its limits.
    fn clamped(self) -> Self {
        let depth = self.depth.clamp(1, DEPTH_MAX);
        let align = u32::try_from(BUFFER_ALIGNMENT).unwrap_or(BUFFER_BYTES_MIN);
        let bytes = self.buffer_bytes.clamp(BUFFER_BYTES_MIN, BUFFER_BYTES_MAX);
        Self {
            depth,
            buffers: self.buffers.clamp(depth, DEPTH_MAX * 4),
            buffer_bytes: bytes.next_multiple_of(align),
            ..self
        }
    }
}

/// What a request does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Fills the buffer's first `len` bytes from the file; fewer only at its end.
    Read {
        /// Bytes wanted.
        len: u32,
    },
    /// Writes the buffer's filled bytes.
    Write,
}

/// One read or write.
#[derive(Debug)]
pub struct Request {
    /// The file; kept open until the request completed.
    pub file: Arc<dyn File>,
    /// Where in the file, bytes.
    pub offset: u64,
    /// From where or to where.
    pub buffer: Buffer,
    /// Which way.
    pub direction: Direction,
    /// The caller's mark; comes back with the completion.
    pub token: u64,
}

/// A request that ended.
#[derive(Debug)]
pub struct Completion {
    /// The caller's mark.
    pub token: u64,
    /// The buffer; after a read, its filled bytes are what was read.
    pub buffer: Buffer,
    /// Bytes read or written. A write has written everything or failed.
    pub result: Result<u32>,
}

/// A queue of reads and writes. Belongs to the thread that made it.
pub trait Engine: fmt::Debug {
    /// What it is, for messages and figures: `"io_uring"`, `"io_uring, unregistered"`, `"pool"`.
    fn name(&self) -> &'static str;

    /// The memory it works on.
    fn slab(&self) -> &Arc<Slab>;

    /// Requests submitted whose completion was not taken yet.
    fn in_flight(&self) -> u32;

    /// How many requests can be submitted before completions should be taken: the depth less what is in flight.
    fn room(&self) -> u32;

    /// Queues a request. When there is no room, waits for a completion first and keeps it for [`Engine::complete`].
    /// An error here means that the engine is broken; what goes wrong with the request itself is in its completion.
    fn submit(&mut self, request: Request) -> Result<()>;

    /// Takes a completion, waiting for one; `None` if nothing is in flight. Order is any.
    fn complete(&mut self) -> Result<Option<Completion>>;

    /// Takes a completion, waiting for one at most that long; `None` if there is none by then. For a caller to whom
    /// others may hand work meanwhile.
    fn complete_within(&mut self, limit: Duration) -> Result<Option<Completion>>;

    /// Takes a completion if one is there already.
    fn try_complete(&mut self) -> Result<Option<Completion>> {
        self.complete_within(Duration::ZERO)
    }
}

/// Which engine is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum EngineChoice {
    /// io_uring where the kernel lets us, the pool elsewhere.
    #[default]
    Probe,
    /// io_uring or an error.
    Uring,
    /// The pool.
    Pool,
}

impl FromStr for EngineChoice {
    type Err = Error;

    /// `auto`, `uring` or `pool`.
    fn from_str(text: &str) -> Result<Self> {
        match text {
            "" | "auto" => Ok(Self::Probe),
            "uring" | "io_uring" => Ok(Self::Uring),
            "pool" => Ok(Self::Pool),
            other => Err(Error::Refused {
                op: "use",
                what: format!("{other:?} as the I/O engine"),
                why: "it must be auto, uring or pool",
            }),
        }
    }
}

impl EngineChoice {
    /// Makes the engine, on the thread that will use it.
    pub fn open(self, options: EngineOptions) -> Result<Box<dyn Engine>> {
        match self {
            Self::Pool => Ok(Box::new(PoolEngine::new(options)?)),
            Self::Uring => Ok(Box::new(UringEngine::new(options)?)),
            Self::Probe => match UringEngine::new(options) {
                Ok(engine) => Ok(Box::new(engine)),
                Err(_) => Ok(Box::new(PoolEngine::new(options)?)),
            },
        }
    }
}

/// Where a request stands and what is left of it; both engines carry short transfers on with it.
#[derive(Debug)]
struct Progress {
    request: Request,
    done: u32,
    want: u32,
}

impl Progress {
    /// Checks a request against its buffer.
    fn start(request: Request) -> std::result::Result<Self, Completion> {
        let capacity = request.buffer.capacity();
        let want = match request.direction {
            Direction::Read { len } => len,
            Direction::Write => request.buffer.filled_len(),
        };
        let why = if want > capacity {
            Some("the request is longer than its buffer")
        } else if request.offset.checked_add(u64::from(want)).is_none_or(|end| i64::try_from(end).is_err()) {
            Some("it ends beyond the longest file there can be")
        } else {
            None
        };
        if let Some(why) = why {
            let op = if request.direction == Direction::Write { "write" } else { "read" };
            let what = request.file.path().display().to_string();
            return Err(Self { request, done: 0, want: 0 }.end(Err(Error::Refused { op, what, why })));
        }
        if request.direction == Direction::Write && request.file.is_poisoned() {
            let what = request.file.path().display().to_string();
            return Err(Self { request, done: 0, want: 0 }.end(Err(Error::Poisoned { what })));
        }
        Ok(Self { request, done: 0, want })
    }

    fn op(&self) -> &'static str {
        if self.request.direction == Direction::Write { "write" } else { "read" }
    }

    fn offset(&self) -> u64 {
        self.request.offset.saturating_add(u64::from(self.done))
    }

    fn left(&self) -> u32 {
        self.want.saturating_sub(self.done)
    }

    /// The file's way past the page cache, and how much of what is left may take it; the rest follows as after a short
    /// transfer. Buffers are aligned, so the place in the buffer is as aligned as what was done.
    fn direct_part(&self) -> Option<(BorrowedFd<'_>, u32)> {
        let aligned = |n: u64| n.is_multiple_of(DIRECT_ALIGNMENT);
        let len = self.left() - self.left() % u32::try_from(DIRECT_ALIGNMENT).ok()?;
        if len == 0 || !aligned(self.offset()) || !aligned(u64::from(self.done)) {
            return None;
        }
        Some((self.request.file.direct_descriptor()?, len))
    }

    /// Notes that `n` bytes were moved; true when the request is over (0 read is the end of the file).
    fn moved(&mut self, n: u32) -> bool {
        self.done = self.done.saturating_add(n).min(self.want);
        n == 0 || self.left() == 0
    }

    /// Ends the request well, or badly if a write moved less than it should.
    fn finish(self) -> Completion {
        let result = if self.request.direction == Direction::Write && self.left() > 0 {
            Err(Error::Refused {
                op: "write",
                what: self.request.file.path().display().to_string(),
                why: "the system wrote nothing and gave no reason",
            })
        } else {
            Ok(self.done)
        };
        self.end(result)
    }

    fn end(self, result: Result<u32>) -> Completion {
        let Request { mut buffer, direction, token, .. } = self.request;
        if matches!(direction, Direction::Read { .. }) {
            buffer.set_filled(result.as_ref().map_or(0, |n| *n));
        }
        Completion { token, buffer, result }
    }

    /// Does the request here and now, by the file's own calls.
    fn run(mut self) -> Completion {
        while self.left() > 0 {
            let (from, to) = (self.done as usize, self.want as usize);
            let offset = self.offset();
            let moved = match self.request.direction {
                Direction::Read { .. } => {
                    let part = self.request.buffer.whole_mut().get_mut(from..to).unwrap_or_default();
                    self.request.file.read_at(offset, part)
                }
                Direction::Write => {
                    let part = self.request.buffer.filled().get(from..to).unwrap_or_default();
                    self.request.file.write_at(offset, part)
                }
            };
            match moved {
                Ok(n) => {
                    if self.moved(u32::try_from(n).unwrap_or(u32::MAX)) {
                        break;
                    }
                }
                Err(e) if e.is_interrupted() => {}
                Err(e) => return self.end(Err(e)),
            }
        }
        self.finish()
    }
}
