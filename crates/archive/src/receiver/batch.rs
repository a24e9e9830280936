//! A batch of events: short ones one behind the other in one piece of memory, long ones as they came.
//!
//! A log has millions of events of a hundred bytes: memory for each, asked for by the task and given back by the thread that
//! writes, costs more than reading them.

use std::ops::Deref;

use holdfast_mysql::EventBytes;

/// An event that came in memory of its own stays there from this length on: a copy would cost more.
const WHOLE_BYTES_MIN: usize = 4096;

/// Memory that a batch may keep however little of it was used.
const KEPT_BYTES: usize = 64 << 10;

/// Events in the order in which they came.
#[derive(Debug)]
pub(super) struct Events<E = EventBytes> {
    /// The short ones.
    short: Vec<u8>,
    events: Vec<Entry<E>>,
    bytes: usize,
}

#[derive(Debug)]
enum Entry<E> {
    /// The next bytes of `short`, so many.
    Short(usize),
    Whole(E),
}

impl<E> Default for Events<E> {
    fn default() -> Self {
        Self { short: Vec::new(), events: Vec::new(), bytes: 0 }
    }
}

impl<E: Deref<Target = [u8]>> Events<E> {
    /// Adds a copy of an event.
    pub(super) fn push(&mut self, event: &[u8]) {
        self.short.extend_from_slice(event);
        self.events.push(Entry::Short(event.len()));
        self.bytes += event.len();
    }

    /// Adds an event; gives it back if it was copied.
    pub(super) fn push_whole(&mut self, event: E) -> Option<E> {
        if event.len() < WHOLE_BYTES_MIN {
            self.push(&event);
            return Some(event);
        }
        self.bytes += event.len();
        self.events.push(Entry::Whole(event));
        None
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// All, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let mut rest = self.short.as_slice();
        self.events.iter().map(move |entry| match entry {
            Entry::Short(len) => {
                let (event, behind) = rest.split_at_checked(*len).unwrap_or_default();
                rest = behind;
                event
            }
            Entry::Whole(event) => event,
        })
    }

    /// Forgets them, and keeps the memory that they needed. That of a busier time goes: a stream with an event now and then
    /// would hold it for ever.
    pub(super) fn clear(&mut self) {
        reuse(&mut self.short);
        reuse(&mut self.events);
        self.bytes = 0;
    }
}

/// Empties it, and gives its memory back if it was large and hardly used.
fn reuse<T>(all: &mut Vec<T>) {
    let large = all.capacity().saturating_mul(size_of::<T>()) > KEPT_BYTES;
    if large && all.len() < all.capacity() / 4 {
        *all = Vec::new();
    }
    all.clear();
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_stream_that_was_busy_keeps_no_memory_for_an_event_now_and_then() {
        let mut events = Events::<Vec<u8>>::default();
        let kept = |events: &Events<Vec<u8>>| (events.short.capacity(), events.events.capacity());
        (0..20_000).for_each(|_| events.push(&[7; 100]));
        let busy = kept(&events);
        events.clear();
        assert_eq!(kept(&events), busy, "the next one is as large");
        events.push(&[7; 100]);
        events.clear();
        assert_eq!(kept(&events), (0, 0));
    }

    proptest! {
        #[test]
        fn events_come_out_as_they_went_in_wherever_they_lie_and_in_memory_that_was_used_before(
            batches in proptest::collection::vec(
                proptest::collection::vec((0..3 * WHOLE_BYTES_MIN, any::<u8>(), any::<bool>()), 0..30),
                1..4,
            ),
        ) {
            let mut events = Events::<Vec<u8>>::default();
            for batch in &batches {
                let wanted: Vec<Vec<u8>> = batch.iter().map(|(len, byte, _)| vec![*byte; *len]).collect();
                for (event, (_, _, own)) in wanted.iter().zip(batch) {
                    if *own {
                        let given_back = events.push_whole(event.clone());
                        prop_assert_eq!(given_back.is_some(), event.len() < WHOLE_BYTES_MIN);
                    } else {
                        events.push(event);
                    }
                }
                prop_assert_eq!(events.bytes(), wanted.iter().map(Vec::len).sum::<usize>());
                prop_assert_eq!(events.is_empty(), wanted.is_empty());
                prop_assert_eq!(events.iter().collect::<Vec<_>>(), wanted);
                events.clear();
                prop_assert!(events.is_empty() && events.bytes() == 0 && events.iter().next().is_none());
            }
        }
    }
}
