//! For which time it is proved that nothing was lost: intervals in which every commit of the source waited until it was
//! durable here.
//!
//! The source is asked once a second ([`crate::probe`]). An interval between two answers counts only if both say that it
//! waits, before it commits, for a replica that can only be us; that it never gave up waiting meanwhile; and if we gave no
//! word too early. The times are the source's own, each read before the answer that it belongs to: the interval lies
//! within what was proved.

use std::time::{Duration, Instant};

use crate::probe::{Probe, Waits};

/// How often an interval that goes on is written down.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// From and until when, microseconds since the Unix epoch by the source's clock.
pub(super) type Interval = (i64, i64);

/// What is proved in one connection.
#[derive(Debug)]
pub(super) struct Guard {
    last: Option<Answer>,
    proved: Option<Interval>,
    noted_until: i64,
    noted_at: Instant,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    waits: Waits,
    early: u64,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self { last: None, proved: None, noted_until: i64::MIN, noted_at: Instant::now() }
    }

    /// Takes an answer; `early` words were given in this connection so far. Gives an interval that is to be written down.
    pub(super) fn hear(&mut self, probe: &Probe, early: u64) -> Option<Interval> {
        let answer = probe.waits.clone().filter(Waits::is_for_us).map(|waits| Answer { waits, early });
        if answer.is_none() || answer != self.last {
            let left = self.end();
            self.last = answer;
            return left;
        }
        let from = self.proved.map_or(probe.asked_us, |(from, _)| from);
        self.proved = Some((from, probe.asked_us));
        if self.noted_at.elapsed() >= NOTE_EVERY { self.note() } else { None }
    }

    /// What is proved now, if the last answer agreed with those before it.
    pub(super) fn proved(&self) -> Option<Interval> {
        self.proved.filter(|(from, until)| from < until)
    }

    /// What is proved ends here. Gives the interval that is to be written down.
    pub(super) fn end(&mut self) -> Option<Interval> {
        let left = self.note();
        (self.last, self.proved) = (None, None);
        left
    }

    fn note(&mut self) -> Option<Interval> {
        let (from, until) = self.proved().filter(|(_, until)| *until > self.noted_until)?;
        (self.noted_until, self.noted_at) = (until, Instant::now());
        Some((from, until))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(asked_us: i64, gave_up: u64) -> Probe {
        let waits = Waits { on: true, before_commit: true, replicas: 1, wanted: 1, gave_up };
        Probe { asked_us, complete_us: asked_us - 1, file: "b.000001".into(), offset: 4, waits: Some(waits) }
    }

    #[test]
    fn an_interval_lies_between_answers_that_agree() {
        let mut guard = Guard::new();
        assert_eq!(guard.hear(&answer(1, 0), 0), None);
        assert_eq!(guard.end(), None, "one answer proves nothing");
        for at in [10, 11, 12] {
            assert_eq!(guard.hear(&answer(at, 0), 0), None);
        }
        assert_eq!(guard.end(), Some((11, 12)));
        assert_eq!(guard.end(), None);
    }

    #[test]
    fn whatever_could_have_let_a_commit_through_ends_it() {
        let off = |probe: &mut Probe| probe.waits.as_mut().unwrap().on = false;
        let gave_up = |probe: &mut Probe| probe.waits.as_mut().unwrap().gave_up += 1;
        let another = |probe: &mut Probe| probe.waits.as_mut().unwrap().replicas = 2;
        let after = |probe: &mut Probe| probe.waits.as_mut().unwrap().before_commit = false;
        let silent = |probe: &mut Probe| probe.waits = None;
        let cases: [&dyn Fn(&mut Probe); 5] = [&off, &gave_up, &another, &after, &silent];
        for (case, change) in cases.iter().enumerate() {
            let mut guard = Guard::new();
            for at in [10, 11, 12] {
                assert_eq!(guard.hear(&answer(at, 0), 0), None);
            }
            let mut changed = answer(13, 0);
            change(&mut changed);
            assert_eq!(guard.hear(&changed, 0), Some((11, 12)), "case {case}");
            assert_eq!(guard.end(), None, "case {case}");
        }
        let mut guard = Guard::new();
        for at in [10, 11, 12] {
            assert_eq!(guard.hear(&answer(at, 0), 0), None);
        }
        assert_eq!(guard.hear(&answer(13, 0), 1), Some((11, 12)), "a word was given early");
    }

    #[test]
    fn two_replicas_are_safe_where_both_are_waited_for() {
        let mut waits = Waits { on: true, before_commit: true, replicas: 2, wanted: 2, gave_up: 0 };
        assert!(waits.is_for_us());
        waits.wanted = 1;
        assert!(!waits.is_for_us());
        (waits.replicas, waits.wanted) = (0, 1);
        assert!(!waits.is_for_us());
    }
}
