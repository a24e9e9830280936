//! For which time it is proved that nothing was lost: intervals in which every commit of the source waited until it was
//! durable here.
//!
//! The source is asked once a second ([`crate::probe`]). An interval between two answers counts only if both say that it
//! waits, before it commits, for a replica that can only be us; that it never gave up waiting meanwhile; and if we gave no
//! word too early. The times are the source's own, each read before the answer that it belongs to: the interval lies
//! within what was proved.
//!
//! A clock may be set. Whether it went on as time did is seen from here, by a clock that nobody sets; an interval that it
//! was set in is not claimed. Where it went back, the times that come twice are claimed of neither turn: of the earlier
//! one an empty interval, at the least time that it can have said, takes them away for whoever reads (`zero_loss` in
//! `server_log/coverage.rs`), of the later one nothing is written until the clock is past them.

use std::time::{Duration, Instant};

use crate::probe::{Clock, Probe, Waits};

/// How often an interval that goes on is written down.
const NOTE_EVERY: Duration = Duration::from_secs(30);

/// From and until when, microseconds since the Unix epoch by the source's clock.
pub(super) type Interval = (i64, i64);

/// What is proved of one stream.
#[derive(Debug)]
pub(super) struct Guard {
    last: Option<Answer>,
    proved: Option<Interval>,
    noted_until: i64,
    noted_at: Instant,
    /// The newest answer of the source's clock, whatever it said besides.
    clock: Option<Clock>,
    /// The clock was set back from here: nothing before it is claimed any more.
    not_before: i64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Answer {
    waits: Waits,
    early: u64,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            last: None,
            proved: None,
            noted_until: i64::MIN,
            noted_at: Instant::now(),
            clock: None,
            not_before: i64::MIN,
        }
    }

    /// Takes an answer; `early` words were given in this connection so far. Gives what is to be written down: intervals,
    /// and an empty one where the clock went back to.
    pub(super) fn hear(&mut self, probe: &Probe, early: u64) -> Vec<Interval> {
        let set = self.clock.filter(|earlier| !probe.asked.follows(earlier));
        self.clock = Some(probe.asked);
        let answer = probe.waits.clone().filter(Waits::is_for_us).map(|waits| Answer { waits, early });
        if answer.is_none() || answer != self.last || set.is_some() {
            let left = self.end();
            self.last = answer;
            let back = set.and_then(|earlier| {
                // It may have been set at any time since that answer.
                self.not_before = self.not_before.max(probe.asked.most_before(&earlier));
                let least = probe.asked.least_since(&earlier);
                (least < earlier.us).then(|| {
                    self.noted_until = least;
                    (least, least)
                })
            });
            return left.into_iter().chain(back).collect();
        }
        let now = probe.asked.us;
        if now >= self.not_before {
            let from = self.proved.map_or(now, |(from, _)| from);
            self.proved = Some((from, now));
        }
        if self.noted_at.elapsed() >= NOTE_EVERY { self.note().into_iter().collect() } else { Vec::new() }
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

    const SECOND: i64 = 1_000_000;

    /// An answer `at` seconds after the first, by a clock that was set by `set` seconds.
    fn answer_of(clock: &Instant, at: i64, set: i64, gave_up: u64) -> Probe {
        let waits = Waits { on: true, before_commit: true, replicas: 1, wanted: 1, gave_up };
        let before = *clock + Duration::from_secs(at as u64);
        let asked = Clock { us: (at + set) * SECOND, before, after: before + Duration::from_millis(1) };
        let complete_us = asked.us - 1;
        Probe { asked, complete_us, file: "b.000001".into(), offset: 4, waits: Some(waits) }
    }

    thread_local!(static BEGUN: Instant = Instant::now());

    fn answer(at: i64, gave_up: u64) -> Probe {
        BEGUN.with(|begun| answer_of(begun, at, 0, gave_up))
    }

    fn seconds(from: i64, until: i64) -> Vec<Interval> {
        vec![(from * SECOND, until * SECOND)]
    }

    #[test]
    fn an_interval_lies_between_answers_that_agree() {
        let mut guard = Guard::new();
        assert!(guard.hear(&answer(1, 0), 0).is_empty());
        assert_eq!(guard.end(), None, "one answer proves nothing");
        for at in [10, 11, 12] {
            assert!(guard.hear(&answer(at, 0), 0).is_empty());
        }
        assert_eq!(guard.end(), Some((11 * SECOND, 12 * SECOND)));
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
                assert!(guard.hear(&answer(at, 0), 0).is_empty());
            }
            let mut changed = answer(13, 0);
            change(&mut changed);
            assert_eq!(guard.hear(&changed, 0), seconds(11, 12), "case {case}");
            assert_eq!(guard.end(), None, "case {case}");
        }
        let mut guard = Guard::new();
        for at in [10, 11, 12] {
            assert!(guard.hear(&answer(at, 0), 0).is_empty());
        }
        assert_eq!(guard.hear(&answer(13, 0), 1), seconds(11, 12), "a word was given early");
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

    #[test]
    fn no_interval_holds_a_moment_at_which_the_clock_was_set() {
        for set in [3600, 1, -1, -5, -3600] {
            let (begun, mut guard) = (Instant::now(), Guard::new());
            for at in 10_000..10_010 {
                assert!(guard.hear(&answer_of(&begun, at, 0, 0), 0).is_empty());
            }
            let told = guard.hear(&answer_of(&begun, 10_010, set, 0), 0);
            assert_eq!(told[..1], seconds(10_001, 10_009), "{set}");
            if set > 0 {
                assert_eq!(told.len(), 1, "{set}");
            } else {
                // Set at some time of the second before the answer: then it said as much less, and something over.
                let (from, until) = told[1];
                let least = (10_009 + set) * SECOND;
                assert!(from == until && (least - SECOND / 4..=least).contains(&from), "{set}: {from}");
            }
            let mut claimed = Vec::new();
            for at in 10_011..20_000 {
                claimed.extend(guard.hear(&answer_of(&begun, at, set, 0), 0));
            }
            claimed.extend(guard.end());
            // The first answer behind it proves nothing yet; what the clock had said before is not claimed again.
            let first = if set > 0 { 10_011 + set } else { 10_009 };
            assert!(claimed.iter().all(|(from, _)| *from >= first * SECOND), "{set}: {claimed:?}");
            assert_eq!(claimed.last().unwrap().1, (19_999 + set) * SECOND, "{set}");
        }
    }

    #[test]
    fn a_clock_that_is_brought_in_line_was_not_set() {
        let (begun, mut guard) = (Instant::now(), Guard::new());
        for at in 0..100 {
            // Fifty milliseconds a second too fast.
            let mut probe = answer_of(&begun, 1000 + at, 0, 0);
            probe.asked.us += at * 50_000;
            assert!(guard.hear(&probe, 0).is_empty());
        }
        assert_eq!(guard.end().map(|(from, _)| from), Some(1001 * SECOND + 50_000));
    }

    #[test]
    fn of_answers_that_are_hours_apart_nobody_knows_whether_the_clock_was_set() {
        for (set, least) in [(0, 999), (-30, 969)] {
            let (begun, mut guard) = (Instant::now(), Guard::new());
            for at in [999, 1000, 1001] {
                assert!(guard.hear(&answer_of(&begun, at, 0, 0), 0).is_empty());
            }
            let hours = 10 * 3600;
            let told = guard.hear(&answer_of(&begun, 1001 + hours, set, 0), 0);
            assert_eq!(told[..1], seconds(1000, 1001));
            // It was off by half a second in a thousand at most, and six seconds.
            let (from, until) = told[1];
            let range = (least - 26) * SECOND..=(least + 2) * SECOND;
            assert!(from == until && range.contains(&from), "{set}: {from}");
            let mut claimed = Vec::new();
            for at in 1002 + hours..1100 + hours {
                claimed.extend(guard.hear(&answer_of(&begun, at, set, 0), 0));
            }
            claimed.extend(guard.end());
            assert!(claimed.iter().all(|(from, _)| *from >= (1001 + hours) * SECOND), "{set}: {claimed:?}");
        }
    }
}
