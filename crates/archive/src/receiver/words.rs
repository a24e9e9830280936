//! The words that a semi-synchronous source waits for: that an event is durable here.
//!
//! A commit of the source waits until we have said so, so the word must not be late: when an event has waited for
//! [`PATIENCE`], the word is given for it although it is not durable. Each such early word is counted, and no interval that
//! holds one is called free of loss. If that does not help, the task leaves, and the source goes on alone.
//!
//! ```text
//! task.rs: see(event) -> channel.rs -> thread: append, sync -> Durable::publish -> task.rs: due() -> socket
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use holdfast_binlog::Header;
use holdfast_binlog::event::FLAG_ARTIFICIAL;
use holdfast_binlog::kind::EventType;
use tokio::sync::watch;

use crate::intake::{FIRST_OFFSET, rotation_target};

/// After how long an event that the source waits for gets its word without being durable. Less than the second that
/// `doctor` asks to be the source's own limit, so that the source stays with us.
pub(super) const PATIENCE: Duration = Duration::from_millis(700);

/// How long the disk may stay behind after an early word before the task leaves.
const LAG_MAX: Duration = Duration::from_secs(3);

/// How many events are durable, told by the thread that writes.
#[derive(Debug)]
pub(super) struct Durable {
    events: watch::Sender<u64>,
    early: Arc<AtomicU64>,
}

/// The task's side.
#[derive(Debug)]
pub(super) struct Words {
    durable: watch::Receiver<u64>,
    early: Arc<AtomicU64>,
    seen: u64,
    place: Place,
    waiting: VecDeque<Waiting>,
    /// Since when the disk is too slow: the first early word behind which it has not caught up.
    late_since: Option<Instant>,
}

#[derive(Debug)]
struct Waiting {
    /// The event's number in this connection, from 1.
    event: u64,
    since: Instant,
    place: Place,
}

/// The source's file and the offset behind an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: Arc<str>,
    pub(super) offset: u64,
}

/// Both sides, for one connection.
pub(super) fn words() -> (Durable, Words) {
    let (events, durable) = watch::channel(0);
    let early = Arc::new(AtomicU64::new(0));
    let words = Words {
        durable,
        early: Arc::clone(&early),
        seen: 0,
        place: Place { file: "".into(), offset: 0 },
        waiting: VecDeque::new(),
        late_since: None,
    };
    (Durable { events, early }, words)
}

impl Durable {
    /// The first `events` events of the connection are durable, or need not be.
    pub(super) fn publish(&self, events: u64) {
        self.events.send_replace(events);
    }

    /// How many of them are known to be.
    pub(super) fn published(&self) -> u64 {
        *self.events.borrow()
    }

    /// Words that were given too early so far.
    pub(super) fn early(&self) -> u64 {
        self.early.load(Ordering::SeqCst)
    }
}

impl Words {
    /// Counts an event that came, and remembers it if the source waits for it.
    pub(super) fn see(&mut self, event: &[u8], awaits_word: bool, now: Instant) {
        self.seen += 1;
        self.place.step(event);
        if awaits_word {
            self.waiting.push_back(Waiting { event: self.seen, since: now, place: self.place.clone() });
        }
    }

    /// The word that is due now: it covers every place before it.
    pub(super) fn due(&mut self, now: Instant) -> Option<Place> {
        let durable = *self.durable.borrow_and_update();
        let mut word = None;
        while let Some(first) = self.waiting.pop_front() {
            if first.event > durable {
                self.waiting.push_front(first);
                break;
            }
            word = Some(first.place);
        }
        if self.waiting.is_empty() && durable >= self.seen {
            self.late_since = None;
        }
        let Some(oldest) = self.waiting.front() else { return word };
        // Once late, every new event gets its word at once: the disk is not made faster by our waiting.
        if self.late_since.is_none() && now < oldest.since + PATIENCE {
            return word;
        }
        self.late_since.get_or_insert(now);
        // Counted before it is sent: whoever asks afterwards must hear of it.
        self.early.fetch_add(1, Ordering::SeqCst);
        let last = self.waiting.drain(..).next_back();
        last.map(|last| last.place).or(word)
    }

    /// The disk has not caught up in spite of early words.
    pub(super) fn is_hopeless(&self, now: Instant) -> bool {
        self.late_since.is_some_and(|since| now >= since + LAG_MAX)
    }

    /// Early words are being given now.
    pub(super) fn is_late(&self) -> bool {
        self.late_since.is_some()
    }

    /// Returns when `due` may have something new to say. May be dropped at any time.
    pub(super) async fn changed(&mut self) {
        let wake = match (&self.late_since, self.waiting.front()) {
            (Some(since), _) => Some(*since + LAG_MAX),
            (None, Some(oldest)) => Some(oldest.since + PATIENCE),
            (None, None) => None,
        };
        let durable = async {
            // The thread has gone: nothing will be durable any more, and the task is ended from there.
            if self.durable.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        match wake {
            Some(wake) => {
                // Passed or not, it is time to look.
                let _ = tokio::time::timeout_at(wake.into(), durable).await;
            }
            None => durable.await,
        }
    }
}

impl Place {
    /// Steps over an event: its header has the low half of the offset behind it; a rotation names file and offset.
    fn step(&mut self, event: &[u8]) {
        let Some(header) = event.first_chunk().map(Header::read) else { return };
        let low = u64::from(header.log_pos);
        match header.kind {
            // One that can't be read ends the stream at the other side.
            EventType::ROTATE => {
                if let Ok((file, offset)) = rotation_target(event) {
                    *self = Self { file: file.into(), offset };
                }
            }
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => {}
            // Repeated for whoever begins inside of a file.
            EventType::FORMAT_DESCRIPTION if self.offset > FIRST_OFFSET => {}
            _ if low == 0 || header.flags & FLAG_ARTIFICIAL != 0 => {}
            _ => {
                let high = self.offset & !u64::from(u32::MAX);
                let same_half = high | low;
                self.offset = if same_half < self.offset { same_half + (1 << 32) } else { same_half };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: EventType, log_pos: u64, body: &[u8]) -> Vec<u8> {
        let header = Header {
            timestamp: 1,
            kind,
            server_id: 1,
            length: (19 + body.len()) as u32,
            log_pos: log_pos as u32,
            flags: 0,
        };
        let mut raw = Vec::new();
        header.write(&mut raw);
        raw.extend_from_slice(body);
        raw
    }

    fn rotation(file: &str, offset: u64) -> Vec<u8> {
        let mut body = offset.to_le_bytes().to_vec();
        body.extend_from_slice(file.as_bytes());
        event(EventType::ROTATE, 0, &body)
    }

    fn at(file: &str, offset: u64) -> Option<Place> {
        Some(Place { file: file.into(), offset })
    }

    #[test]
    fn a_word_is_due_once_its_event_is_durable_and_covers_those_before_it() {
        let (durable, mut words) = words();
        let now = Instant::now();
        words.see(&rotation("b.000007", 4), false, now);
        for (end, awaited) in [(100, true), (200, false), (300, true), (400, true)] {
            words.see(&event(EventType::XID, end, &[0; 12]), awaited, now);
        }
        assert_eq!(words.due(now), None);
        durable.publish(2);
        assert_eq!(words.due(now), at("b.000007", 100));
        durable.publish(4);
        assert_eq!(words.due(now), at("b.000007", 300));
        assert_eq!(words.due(now), None);
        durable.publish(5);
        assert_eq!(words.due(now), at("b.000007", 400));
        assert_eq!(durable.early(), 0);
    }

    #[test]
    fn a_word_that_would_come_too_late_is_given_early_and_counted_until_the_disk_has_caught_up() {
        let (durable, mut words) = words();
        let begun = Instant::now();
        words.see(&rotation("b.000001", 4), false, begun);
        words.see(&event(EventType::XID, 50, &[0; 12]), true, begun);
        let late = begun + PATIENCE;
        assert_eq!(words.due(late - Duration::from_millis(1)), None);
        assert_eq!(words.due(late), at("b.000001", 50));
        assert_eq!((durable.early(), words.is_late(), words.is_hopeless(late)), (1, true, false));
        // From now on nobody waits.
        words.see(&event(EventType::XID, 90, &[0; 12]), true, late);
        assert_eq!(words.due(late), at("b.000001", 90));
        assert!(words.is_hopeless(late + LAG_MAX));
        durable.publish(3);
        assert_eq!(words.due(late), None);
        assert_eq!((durable.early(), words.is_late()), (2, false));
        words.see(&event(EventType::XID, 120, &[0; 12]), true, late);
        assert_eq!(words.due(late), None);
    }

    #[test]
    fn offsets_above_4_gib_are_told_whole() {
        let (durable, mut words) = words();
        let now = Instant::now();
        words.see(&rotation("b.000001", (1 << 32) - 100), false, now);
        words.see(&event(EventType::WRITE_ROWS_V1, (1 << 32) + 60, &[0; 12]), false, now);
        words.see(&event(EventType::HEARTBEAT, (1 << 32) + 60, b"b.000001"), false, now);
        words.see(&event(EventType::XID, (1 << 32) + 91, &[0; 12]), true, now);
        durable.publish(4);
        assert_eq!(words.due(now), at("b.000001", (1 << 32) + 91));
    }

    #[test]
    fn a_format_that_is_repeated_does_not_move_the_place() {
        let (durable, mut words) = words();
        let now = Instant::now();
        words.see(&rotation("b.000001", 5000), false, now);
        words.see(&event(EventType::FORMAT_DESCRIPTION, 126, &[0; 12]), false, now);
        words.see(&event(EventType::XID, 5100, &[0; 12]), true, now);
        durable.publish(3);
        assert_eq!(words.due(now), at("b.000001", 5100));
    }
}
