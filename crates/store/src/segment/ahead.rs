//! Reading ahead of whoever reads a segment's frames one by one.
//!
//! A backup reads the block before for every one that changed, mostly in the order of the segment, but from several
//! threads that overtake each other. The kernel takes that for reading at random and lets each of them wait for the disk.

use std::sync::atomic::{AtomicU64, Ordering};

/// How far ahead is read, bytes: what a fast disk gives in some milliseconds.
const AHEAD_BYTES: u64 = 8 * 1024 * 1024;

/// Threads that read together are no further apart; whoever is, begins anew.
const TOGETHER_BYTES: u64 = 4 * 1024 * 1024;

/// Bytes that are read ahead for one that was wanted, at most: where few blocks changed, little is read in vain.
const WASTE: u64 = 4;

/// What is read ahead before anything was wanted.
const FIRST_BYTES: u64 = 1024 * 1024;

/// How far a segment was read ahead. Numbers that threads change beside each other: at worst a part is asked for twice.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    last: AtomicU64,
    asked_to: AtomicU64,
    asked: AtomicU64,
    wanted: AtomicU64,
}

impl Ahead {
    /// A frame of `len` bytes at `offset` is read: what should be read ahead now, offset and length.
    pub(super) fn next(&self, offset: u64, len: u64) -> Option<(u64, u64)> {
        let wanted = self.wanted.fetch_add(len, Ordering::Relaxed).saturating_add(len);
        let last = self.last.swap(offset, Ordering::Relaxed);
        if offset.abs_diff(last) > TOGETHER_BYTES {
            self.asked_to.store(offset, Ordering::Relaxed);
        }
        let asked_to = self.asked_to.load(Ordering::Relaxed);
        let asked = self.asked.load(Ordering::Relaxed);
        if asked_to > offset + AHEAD_BYTES / 2 {
            return None;
        }
        let from = asked_to.max(offset);
        let may = wanted.saturating_mul(WASTE).saturating_add(FIRST_BYTES).saturating_sub(asked);
        let part = (offset + AHEAD_BYTES).saturating_sub(from).min(may);
        if part < FIRST_BYTES {
            return None;
        }
        let to = from + part;
        self.asked_to.compare_exchange(asked_to, to, Ordering::Relaxed, Ordering::Relaxed).ok()?;
        self.asked.fetch_add(part, Ordering::Relaxed);
        Some((from, part))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAME: u64 = 26_000;

    #[test]
    fn frames_that_follow_each_other_are_read_ahead_once_and_without_a_gap() {
        let ahead = Ahead::default();
        let mut to = 0;
        for at in (0..64 * 1024 * 1024).step_by(FRAME as usize) {
            if let Some((from, len)) = ahead.next(at, FRAME) {
                assert_eq!(from, to.max(at));
                to = from + len;
            }
            assert!(to >= at + FRAME, "the frame at {at} was not asked for");
        }
        assert!(ahead.next(to - AHEAD_BYTES + FRAME, FRAME).is_none());
    }

    #[test]
    fn few_frames_here_and_there_have_little_read_in_vain() {
        let ahead = Ahead::default();
        let (mut wanted, mut read) = (0, 0);
        for at in (0..64 * 1024 * 1024).step_by(100 * FRAME as usize) {
            wanted += FRAME;
            read += ahead.next(at, FRAME).map_or(0, |(_, len)| len);
        }
        assert!(read <= WASTE * wanted + FIRST_BYTES, "{read} for {wanted}");
    }
}
