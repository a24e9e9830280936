//! An allocator that ends the run where one allocation is larger than anything that a small input can need: a length in an
//! input is to be compared with what is there before room is made for it.

use std::alloc::{GlobalAlloc, Layout, System};

/// Bytes of one allocation. Inputs have 20,000 at most; the largest single thing that a format allows, a frame's
/// plaintext of 4 MiB or a packet of 16 MiB, grown by doubling, stays below.
const ALLOCATION_MAX: usize = 64 << 20;

struct Bounded;

#[global_allocator]
static ALLOCATOR: Bounded = Bounded;

impl Bounded {
    fn allow(size: usize) {
        if size > ALLOCATION_MAX {
            // No formatting here: it might allocate.
            let _ = std::io::Write::write_all(
                &mut std::io::stderr(),
                b"one allocation is larger than ALLOCATION_MAX of fuzz/src/bounded.rs\n",
            );
            std::process::abort();
        }
    }
}

// SAFETY: everything is passed on to the system's allocator as it came; `allow` returns or ends the process.
#[expect(unsafe_code, reason = "an allocator is unsafe by its trait")]
unsafe impl GlobalAlloc for Bounded {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        Self::allow(layout.size());
        // SAFETY: the caller's promises are those that the system's allocator asks for.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: `at` came from the system's allocator with this layout.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        Self::allow(layout.size());
        // SAFETY: as for `alloc`.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        Self::allow(size);
        // SAFETY: `at` came from the system's allocator with this layout.
        unsafe { System.realloc(at, layout, size) }
    }
}
