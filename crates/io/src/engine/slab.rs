//! The memory of bulk I/O: equal, aligned buffers cut from one mapping.

use std::fmt;
use std::ptr::NonNull;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::mm::{MapFlags, ProtFlags};

use crate::error::{Error, Result};

/// Buffers begin at multiples of this: a page, and the largest logical block that direct I/O asks for.
pub const BUFFER_ALIGNMENT: usize = 4096;

/// Equal, aligned buffers in one mapping. Its size is the bound on the memory of an engine.
pub struct Slab {
    base: NonNull<u8>,
    mapped: usize,
    buffer_bytes: u32,
    count: u32,
    free: Mutex<Vec<u32>>,
    returned: Condvar,
}

// SAFETY: `base` points at a private anonymous mapping that lives exactly as long as the `Slab` and is not bound to a
// thread. The slab itself never dereferences it; a `Buffer` does, for its own part only, and the free list (behind a
// mutex) hands each part out at most once at a time.
#[expect(unsafe_code, reason = "the mapping is shared between threads part by part")]
unsafe impl Send for Slab {}
// SAFETY: as above: `&Slab` gives out buffers through the mutex and nothing else.
#[expect(unsafe_code, reason = "the mapping is shared between threads part by part")]
unsafe impl Sync for Slab {}

impl fmt::Debug for Slab {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Slab({} x {} B, {} free)", self.count, self.buffer_bytes, self.free_count())
    }
}

impl Slab {
    /// Maps `count` buffers of `buffer_bytes` each, a multiple of [`BUFFER_ALIGNMENT`].
    pub(super) fn new(count: u32, buffer_bytes: u32) -> Result<Arc<Self>> {
        let refused = |why| Error::Refused { op: "make", what: "a slab of I/O buffers".into(), why };
        let mapped = (count as usize)
            .checked_mul(buffer_bytes as usize)
            .filter(|n| *n > 0 && (buffer_bytes as usize).is_multiple_of(BUFFER_ALIGNMENT))
            .ok_or_else(|| refused("its size is out of bounds"))?;
        let protection = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new private anonymous mapping at an address of the kernel's choice touches no memory that exists.
        #[expect(unsafe_code, reason = "aligned memory that the kernel may write into")]
        let base = unsafe {
            rustix::mm::mmap_anonymous(std::ptr::null_mut(), mapped, protection, MapFlags::PRIVATE)
        };
        let base = base.map_err(|e| Error::Io {
            op: "reserve",
            what: format!("{mapped} bytes of memory for I/O buffers"),
            source: e.into(),
        })?;
        let base =
            NonNull::new(base.cast::<u8>()).ok_or_else(|| refused("the kernel mapped it at address 0"))?;
        let free = Mutex::new((0..count).rev().collect());
        Ok(Arc::new(Self { base, mapped, buffer_bytes, count, free, returned: Condvar::new() }))
    }

    /// Bytes of each buffer.
    #[must_use]
    pub fn buffer_bytes(&self) -> u32 {
        self.buffer_bytes
    }

    /// Buffers in all.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.count
    }

    /// Buffers that nobody holds now.
    #[must_use]
    pub fn free_count(&self) -> u32 {
        u32::try_from(self.free.lock().unwrap_or_else(PoisonError::into_inner).len()).unwrap_or(u32::MAX)
    }

    /// A buffer, if one is free. What it holds is whatever was in it last.
    #[must_use]
    pub fn try_take(self: &Arc<Self>) -> Option<Buffer> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(Buffer { slab: Arc::clone(self), index, filled: 0 })
    }

    /// A buffer, waiting at most `patience` for one to come back.
    pub fn take(self: &Arc<Self>, patience: Duration) -> Result<Buffer> {
        let start = Instant::now();
        let mut free = self.free.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(index) = free.pop() {
                return Ok(Buffer { slab: Arc::clone(self), index, filled: 0 });
            }
            let waited = start.elapsed();
            if waited >= patience {
                return Err(Error::Stalled { what: "no I/O buffer came back".into(), waited });
            }
            let woken = self.returned.wait_timeout(free, patience.saturating_sub(waited));
            free = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Where a buffer begins.
    pub(super) fn start_of(&self, index: u32) -> NonNull<u8> {
        debug_assert!(index < self.count, "a buffer of another slab");
        // SAFETY: indices come from the free list only, which holds 0..count, so the offset stays inside of the
        // mapping of count * buffer_bytes bytes.
        #[expect(unsafe_code, reason = "cutting one mapping into buffers")]
        unsafe {
            self.base.add(index as usize * self.buffer_bytes as usize)
        }
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: `base` and `mapped` are what mmap gave, unmapped once, here. Each `Buffer` holds an `Arc` of the
        // slab, and an engine keeps the buffer of every request that the kernel may still write to, so nobody can
        // reach the memory any more.
        #[expect(unsafe_code, reason = "gives the mapping back")]
        let unmapped = unsafe { rustix::mm::munmap(self.base.as_ptr().cast(), self.mapped) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping failed");
    }
}

/// One buffer of a slab, held alone. Dropping it gives it back.
pub struct Buffer {
    slab: Arc<Slab>,
    index: u32,
    filled: u32,
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({}, {} of {} B)", self.index, self.filled, self.capacity())
    }
}

impl Buffer {
    /// Bytes it can hold.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.slab.buffer_bytes
    }

    /// Bytes it holds, counted from its start.
    #[must_use]
    pub fn filled_len(&self) -> u32 {
        self.filled
    }

    /// Says how many bytes it holds; more than fit count as all.
    pub fn set_filled(&mut self, len: u32) {
        self.filled = len.min(self.capacity());
    }

    /// The bytes it holds.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.whole().get(..self.filled as usize).unwrap_or_default()
    }

    /// Appends as much of `bytes` as fits, and says how much that was.
    pub fn fill(&mut self, bytes: &[u8]) -> usize {
        let from = self.filled as usize;
        let room = self.whole_mut().get_mut(from..).unwrap_or_default();
        let n = room.len().min(bytes.len());
        if let (Some(to), Some(part)) = (room.get_mut(..n), bytes.get(..n)) {
            to.copy_from_slice(part);
        }
        self.filled = self.filled.saturating_add(u32::try_from(n).unwrap_or(u32::MAX)).min(self.capacity());
        n
    }

    fn whole(&self) -> &[u8] {
        // SAFETY: the part [index * buffer_bytes, +buffer_bytes) of the mapping is initialised (anonymous memory is
        // zero), lives as long as the `Arc<Slab>` in `self`, and belongs to this `Buffer` alone. While the kernel may
        // write to it the engine owns the `Buffer` and calls neither this nor `whole_mut`.
        #[expect(unsafe_code, reason = "a view of our part of the mapping")]
        unsafe {
            std::slice::from_raw_parts(self.start().as_ptr(), self.capacity() as usize)
        }
    }

    /// All of its bytes, filled or not, to write into; then say [`Buffer::set_filled`].
    pub fn whole_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `whole`; `&mut self` makes this the only view.
        #[expect(unsafe_code, reason = "a view of our part of the mapping")]
        unsafe {
            std::slice::from_raw_parts_mut(self.start().as_ptr(), self.capacity() as usize)
        }
    }

    pub(super) fn start(&self) -> NonNull<u8> {
        self.slab.start_of(self.index)
    }

    pub(super) fn index(&self) -> u32 {
        self.index
    }

    /// Whether it was cut from this slab.
    pub(super) fn belongs_to(&self, slab: &Arc<Slab>) -> bool {
        Arc::ptr_eq(&self.slab, slab)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.slab.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
        self.slab.returned.notify_one();
    }
}
