//! Years of policies on a simulated clock, with faults.
//!
//! `HOLDFAST_TEST_SEED=N` repeats one life; `HOLDFAST_TEST_LIVES=N` lives so many.

use super::*;
use crate::time::{Micros, parse_time, show_time};
use std::collections::HashMap;

const MINUTE: Micros = 60_000_000;
const HOUR: Micros = 60 * MINUTE;
const A_DAY: Micros = 24 * HOUR;

struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % n.max(1)
    }

    fn span(&mut self, from: Micros, until: Micros) -> Micros {
        from + self.below((until - from) as u64) as Micros
    }
}

#[derive(Clone, Debug)]
struct Base {
    taken: Taken,
    point: Point<u32>,
    /// The latest date that it was ever promised to be there until; `None`: for ever.
    promised: Option<Micros>,
}

/// A server, its repository, and what would be there if nothing was ever forgotten.
struct Life {
    seed: u64,
    random: Random,
    policy: Policy,
    /// What a lock on the server promises besides.
    lock: Option<Policy>,
    faults: bool,
    now: Micros,
    facts: ScheduleFacts,
    all: Vec<Base>,
    intervals: Vec<Interval>,
    /// Log of each interval that is gone: before this moment.
    log_from: Vec<Micros>,
    dropped: HashMap<u32, Micros>,
    /// The server is away until then; with it, its log is torn.
    away: Option<(Micros, bool)>,
    torn: bool,
    last_try: Option<Micros>,
    began: Micros,
    /// What the replay of a MiB of log takes.
    replay: Micros,
    /// Bases that were taken because a restore would have been too long.
    hurried: u32,
}

impl Life {
    fn new(seed: u64, policy: Policy, faults: bool) -> Self {
        policy.check("test").unwrap();
        let now = parse_time("2024-02-27T11:59:00Z").unwrap();
        Self {
            seed,
            random: Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1),
            policy,
            lock: None,
            faults,
            now,
            facts: ScheduleFacts { seed, added: now, ..ScheduleFacts::default() },
            all: Vec::new(),
            intervals: Vec::new(),
            log_from: Vec::new(),
            dropped: HashMap::new(),
            away: None,
            torn: true,
            last_try: None,
            began: now,
            replay: [20_000, 150_000, 1_000_000][(seed % 3) as usize],
            hurried: 0,
        }
    }

    fn claim(&self, holds: bool, what: &str) {
        assert!(
            holds,
            "{what}, at {} of the life {}\nrepeat: HOLDFAST_TEST_SEED={} cargo test -p holdfast-appliance policy",
            show_time(self.now),
            self.seed,
            self.seed
        );
    }

    fn live(&mut self, days: i64) {
        let end = self.now + days * A_DAY;
        let mut expire_at = self.now;
        while self.now < end {
            self.weather();
            self.restore_takes();
            let next = next_base(&self.policy, &self.facts, self.now);
            self.no_restore_is_too_long(next);
            let at = next.at.unwrap_or(end);
            if at <= self.now {
                self.take_base(next);
            } else {
                self.now = at.min(self.now + self.random.span(5 * MINUTE, 90 * MINUTE));
            }
            self.log_grows();
            if self.now >= expire_at {
                self.expire();
                expire_at = self.now + self.random.span(HOUR, 2 * A_DAY);
            }
        }
    }

    /// The server goes away and comes back, now and then with a torn log.
    fn weather(&mut self) {
        match self.away {
            Some((until, torn)) if self.now >= until => {
                self.away = None;
                if torn && !self.torn {
                    self.torn = true;
                    self.facts.hole = Some(self.now);
                }
            }
            None if self.faults && self.random.below(200) == 0 => {
                let longest = if self.random.below(10) == 0 { 40 * A_DAY } else { 9 * HOUR };
                self.away = Some((self.now + self.random.span(MINUTE, longest), self.random.below(4) == 0));
            }
            _ => {}
        }
    }

    fn log_grows(&mut self) {
        if self.away.is_none() && !self.torn {
            let now = self.now;
            if let Some(interval) = self.intervals.last_mut() {
                interval.until = now;
            }
            self.facts.log_bytes += self.random.below(700 << 20);
        }
    }

    /// Data grows: 8 minutes of restore at first, and in the end so many that no base helps.
    fn restore_takes(&mut self) {
        let fresh = 8 * MINUTE + (self.now - self.began) / A_DAY * 5_000_000;
        let log = (self.facts.log_bytes >> 20) as Micros * self.replay;
        self.facts.restore = self.facts.bases.last().map(|_| RestoreTakes { now: fresh + log, fresh });
    }

    /// Where a base would bring a restore back under its time, one is begun, or what keeps it from that is named.
    fn no_restore_is_too_long(&self, next: Next) {
        let (Some(takes), Some(last)) = (self.facts.restore, self.facts.bases.last()) else { return };
        let rto = self.policy.rto.0;
        let helps = rto > 0 && takes.now > rto && takes.fresh <= rto;
        let begun = next.at.is_some_and(|at| at <= self.now);
        let rests = self.now < last.finished + self.policy.retry.interval.0;
        self.claim(
            !helps || begun || next.capped || next.retry || next.moved || rests,
            &format!("a restore takes {takes:?} and no base is begun: {next:?}"),
        );
        self.claim(helps || next.why != Why::Rto, "a base is asked for that does not help");
    }

    fn take_base(&mut self, next: Next) {
        let started = self.now;
        if matches!(next.why, Why::Log | Why::Rto) {
            let day = self.facts.bases.iter().rev().take_while(|b| b.started > started - A_DAY).count();
            self.claim(day < self.policy.max_per_day as usize, "a day has more bases than it may have");
        }
        self.hurried += u32::from(next.why == Why::Rto);
        self.claim(
            blackout::around(&self.policy.blackout, &self.policy.zone(), started).is_none(),
            "a base is begun in a blackout",
        );
        self.never_too_old(started);
        self.claim(!next.retry || !self.facts.failed.is_empty(), "a retry of nothing");
        let failed = self.away.is_some() || (self.faults && self.random.below(8) == 0);
        self.now +=
            if failed { self.random.span(1, 20 * MINUTE) } else { self.random.span(MINUTE, 2 * HOUR) };
        self.last_try = Some(self.now);
        if failed {
            self.facts.failed.push(self.now);
            return;
        }
        if self.torn {
            // The log begins anew at the base.
            self.torn = false;
            self.intervals.push(Interval { until: self.now });
            self.log_from.push(i64::MIN);
        }
        self.log_grows();
        let taken = Taken { started, finished: self.now };
        let point = Point {
            id: self.all.len() as u32,
            finished: taken.finished,
            // Now and then a copy has no place in the log, and serves for itself only.
            interval: Some(self.intervals.len() - 1).filter(|_| !self.faults || self.random.below(10) > 0),
            proved: self.random.below(9) == 0,
            bad: self.faults && self.random.below(40) == 0,
            held: self.random.below(200) == 0,
            imported: false,
            keep_until: (self.random.below(100) == 0)
                .then(|| self.now + self.random.span(A_DAY, 400 * A_DAY)),
        };
        self.all.push(Base { taken, point, promised: Some(i64::MIN) });
        self.facts.bases.push(taken);
        self.facts.failed.clear();
        self.facts.log_bytes = 0;
        self.facts.hole = None;
    }

    /// Never more than `max_age` between the starts of two bases; where one failed, the next try is soon.
    fn never_too_old(&self, started: Micros) {
        let longest = blackout::longest(&self.policy.blackout).map_or(0, |s| s.0);
        let Some(last) = self.facts.bases.last() else { return };
        if self.facts.failed.is_empty() {
            self.claim(
                // It was the job itself that lasted: nothing is begun while one runs.
                started - last.started <= self.policy.max_age.0,
                &format!("{} h between two bases", (started - last.started) / HOUR),
            );
        } else if let Some(tried) = self.last_try {
            let soon = self.policy.retry.interval.0 * 11 / 10 + longest + 91 * MINUTE;
            self.claim(started - tried <= soon, "a failed base is not tried again soon");
        }
    }

    /// What expiry may not do: make a second of the window unrestorable, or forget what was promised.
    fn expire(&mut self) {
        let mut rest: Vec<&Base> =
            self.all.iter().filter(|b| !self.dropped.contains_key(&b.point.id)).collect();
        rest.sort_by_key(|b| b.point.finished);
        let points: Vec<Point<u32>> = rest.iter().map(|b| b.point.clone()).collect();
        let promising: Vec<Policy> = std::iter::once(&self.policy).chain(&self.lock).cloned().collect();
        let policies: Vec<&Policy> = promising.iter().collect();
        let retained = retain_all(&policies, &points, &self.intervals, self.now);
        self.claim(retained.kept.len() + retained.forget.len() == points.len(), "a base is in neither list");
        for id in &retained.forget {
            let base = &self.all[*id as usize];
            self.claim(
                base.promised.is_some_and(|until| until <= self.now),
                &format!(
                    "the base {id} of {} was promised until {:?} and is forgotten",
                    show_time(base.taken.finished),
                    base.promised.map(show_time)
                ),
            );
            self.dropped.insert(*id, self.now);
        }
        for (at, need) in retained.logs.iter().enumerate() {
            let from = match need {
                LogNeed::All => continue,
                LogNeed::From(id) => self.all[*id as usize].taken.started,
                LogNeed::Nothing => i64::MAX,
            };
            self.log_from[at] = self.log_from[at].max(from);
        }
        for (kept, policy) in retained.kept.iter().flat_map(|k| policies.iter().map(move |p| (k, *p))) {
            let until = kept_until(policy, &points, &kept.id);
            let promised = &mut self.all[kept.id as usize].promised;
            *promised = match (*promised, until) {
                (Some(before), Some(until)) => Some(before.max(until)),
                _ => None,
            };
        }
        policies.iter().for_each(|policy| self.every_second_has_its_plan(policy.window));
        if let Some(best) = self.all.iter().rev().find(|b| !b.point.bad) {
            self.claim(!self.dropped.contains_key(&best.point.id), "the last good base is gone");
        }
        if let Some(proved) = self.all.iter().rev().find(|b| b.point.proved && !b.point.bad) {
            self.claim(!self.dropped.contains_key(&proved.point.id), "the last proved base is gone");
        }
    }

    /// Every second of the window that a repository of which nothing was ever forgotten could restore, this one can.
    /// In one stretch of log, all moments from its first usable base to its end are restorable: comparing where that
    /// begins is comparing every second.
    fn every_second_has_its_plan(&self, window: Span) {
        let end =
            self.all.iter().map(|b| b.taken.finished).chain(self.intervals.iter().map(|i| i.until)).max();
        let Some(end) = end else { return };
        let window = match window.0 {
            0 => i64::MIN,
            length => end - length - A_DAY,
        };
        for (at, interval) in self.intervals.iter().enumerate() {
            let inside = |b: &&Base| b.point.interval == Some(at) && !b.point.bad;
            let first = |usable: &dyn Fn(&Base) -> bool| {
                self.all.iter().filter(inside).filter(|b| usable(b)).map(|b| b.taken.finished).min()
            };
            let Some(ever) = first(&|_| true) else { continue };
            let promised = ever.max(window);
            if promised > interval.until {
                continue;
            }
            let now =
                first(&|b| !self.dropped.contains_key(&b.point.id) && b.taken.started >= self.log_from[at]);
            self.claim(
                now.is_some_and(|now| now <= promised),
                &format!(
                    "{} was restorable and is not: the stretch {at} begins at {:?}",
                    show_time(promised),
                    now.map(show_time)
                ),
            );
        }
    }
}

fn policies(seed: u64) -> Policy {
    let mut policy = Policy::default();
    let mut random = Random(seed | 1);
    if seed % 2 == 1 {
        policy.keep =
            Keep { last: Some(3), daily: Some(14), weekly: Some(8), monthly: Some(12), yearly: Some(10) };
    }
    if seed % 3 == 1 {
        policy.blackout = ["mon..fri 07:30-19:00", "sat 22:00-03:00"].map(|b| b.parse().unwrap()).into();
        policy.timezone = "Europe/Berlin".into();
    }
    if seed % 4 == 2 {
        policy.at = vec!["02:00".parse().unwrap()];
    }
    if seed % 5 != 3 {
        policy.rto = Span::minutes(random.span(15, 35));
    }
    policy.window = Span::hours(24 * random.span(1, 36));
    if seed % 7 == 6 {
        policy.window = Span(0);
    }
    policy
}

fn seeds() -> Vec<u64> {
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<u64>().ok());
    match number("HOLDFAST_TEST_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("HOLDFAST_TEST_LIVES").unwrap_or(6)).collect(),
    }
}

#[test]
fn years_without_faults_have_a_base_every_day_and_lose_no_second() {
    for seed in seeds() {
        let mut life = Life::new(seed, policies(seed), false);
        life.live(400);
        assert!(life.all.len() >= 400);
        // The data grows past every such limit, so each of them was in sight at some time.
        assert_eq!(life.policy.rto.0 > 0, life.hurried > 0, "life {seed}: bases for the sake of a restore");
        let unlimited = life.policy.window.0 == 0;
        assert_eq!(life.dropped.is_empty(), unlimited, "life {seed}: something goes, unless all is to stay");
    }
}

#[test]
fn years_with_faults_lose_no_second_that_was_promised() {
    for seed in seeds() {
        let mut life = Life::new(seed, policies(seed), true);
        life.live(500);
        assert!(life.intervals.len() > 2, "life {seed}: the log was never torn");
        assert!(life.all.len() - life.dropped.len() > 1);
    }
}

#[test]
fn a_locked_server_loses_nothing_to_a_shorter_policy_until_the_lock_ends() {
    for seed in seeds() {
        let mut life = Life::new(seed, policies(seed), true);
        life.live(60);
        let before = life.dropped.len();
        // A person locks the server by its policy, and somebody makes that as short as it can be.
        life.lock = Some(life.policy.clone());
        life.policy = Policy { window: DAY, keep: Keep::default(), ..life.policy.clone() };
        life.live(200);
        let locked = life.dropped.len();
        let all = life.lock.take().is_some_and(|lock| lock.window.0 == 0);
        assert_eq!(all, locked == before, "life {seed}: retention goes on by the terms of the lock");
        // Nothing is promised any more but what the short policy says.
        life.all.iter_mut().for_each(|base| base.promised = Some(i64::MIN));
        life.live(30);
        assert!(life.dropped.len() > locked + 1, "life {seed}: the lock is over");
    }
}

#[test]
fn a_ten_year_promise_is_kept_for_ten_years() {
    let policy = Policy { keep: Keep { yearly: Some(10), ..Keep::default() }, ..Policy::default() };
    let start = parse_time("2024-01-01T03:00:00Z").unwrap();
    let point = |n: i64| Point {
        id: n,
        finished: start + n * A_DAY,
        interval: None,
        proved: false,
        bad: false,
        held: false,
        imported: false,
        keep_until: None,
    };
    let mut points: Vec<Point<i64>> = Vec::new();
    for day in 0..11 * 366 {
        points.push(point(day));
        let retained = retain(&policy, &points, &[], start + day * A_DAY + HOUR);
        points.retain(|p| retained.kept.iter().any(|k| k.id == p.id));
        assert_eq!(points.iter().any(|p| p.id == 0), day < 3653, "day {day}");
    }
    // The window and the day before it, one anchor, ten years.
    assert!(points.len() <= 9 + 10, "{}", points.len());
}

#[test]
fn a_new_server_is_backed_up_at_once_and_a_paused_one_never() {
    let policy = Policy::default();
    let facts = ScheduleFacts { added: 5, ..ScheduleFacts::default() };
    assert_eq!(next_base(&policy, &facts, 10).at, Some(5));
    assert_eq!(next_base(&policy, &facts, 10).why, Why::First);
    let paused = ScheduleFacts { paused: true, ..facts };
    assert_eq!(next_base(&policy, &paused, 10).at, None);
}

fn with_bases(starts: &[Micros]) -> ScheduleFacts {
    let bases = starts.iter().map(|&started| Taken { started, finished: started + MINUTE }).collect();
    ScheduleFacts { bases, ..ScheduleFacts::default() }
}

#[test]
fn the_log_asks_for_a_base_past_its_threshold_and_at_most_six_times_a_day() {
    let policy = Policy { trigger_binlog: Bytes(64 << 20), ..Policy::default() };
    let mut facts = with_bases(&[0]);
    facts.log_bytes = 60 << 20;
    let quiet = next_base(&policy, &facts, HOUR);
    assert!(quiet.at.unwrap() > 20 * HOUR && quiet.why == Why::Age);
    facts.log_bytes = 65 << 20;
    let next = next_base(&policy, &facts, HOUR);
    assert_eq!((next.at, next.why, next.capped), (Some(HOUR), Why::Log, false));
    // Ten triggers a day are six bases.
    let mut facts = with_bases(&[0]);
    let mut begun = 0;
    for tick in 1..144 {
        let now = tick * 10 * MINUTE;
        facts.log_bytes = if tick % 14 == 0 { 65 << 20 } else { facts.log_bytes };
        let next = next_base(&policy, &facts, now);
        if next.at.unwrap() <= now {
            assert!(next.why == Why::Log || now > 22 * HOUR);
            facts.bases.push(Taken { started: now, finished: now + MINUTE });
            facts.log_bytes = 0;
            begun += 1;
        } else {
            assert!(!next.capped || begun >= 5, "{next:?}");
        }
    }
    assert_eq!(begun, 5, "and the one at the start");
}

#[test]
fn a_restore_that_would_take_too_long_asks_for_a_base_where_that_helps_and_at_most_six_times_a_day() {
    let policy = Policy { rto: Span::minutes(30), ..Policy::default() };
    let mut facts = with_bases(&[0]);
    let takes = |now: i64, fresh: i64| Some(RestoreTakes { now: now * MINUTE, fresh: fresh * MINUTE });
    let why = |policy: &Policy, facts: &ScheduleFacts| {
        let next = next_base(policy, facts, HOUR);
        (next.at.unwrap() <= HOUR).then_some(next.why)
    };
    for (restore, due) in [
        (None, None),
        (takes(30, 10), None),
        (takes(31, 10), Some(Why::Rto)),
        (takes(31, 30), Some(Why::Rto)),
        (takes(60, 31), None),
    ] {
        facts.restore = restore;
        assert_eq!(why(&policy, &facts), due, "{restore:?}");
    }
    facts.restore = takes(31, 10);
    assert_eq!(why(&Policy { trigger_rto: false, ..policy.clone() }, &facts), None);
    assert_eq!(why(&Policy { rto: Span(0), ..policy.clone() }, &facts), None);
    // Not again and again behind one another.
    let soon = next_base(&policy, &facts, 2 * MINUTE);
    assert_eq!((soon.at, soon.why), (Some(21 * MINUTE), Why::Rto));
    let six: Vec<Micros> = (0..6).map(|n| n * HOUR).collect();
    let mut full = with_bases(&six);
    full.restore = takes(31, 10);
    let next = next_base(&policy, &full, 6 * HOUR);
    assert_eq!((next.at, next.why, next.capped), (Some(A_DAY), Why::Rto, true));
}

#[test]
fn a_failed_base_is_tried_again_every_20_minutes_until_one_succeeds_or_so_often_as_was_said() {
    let mut policy = Policy::default();
    let mut facts = with_bases(&[0]);
    let mut now = 25 * HOUR;
    for _ in 0..100 {
        facts.failed.push(now);
        let next = next_base(&policy, &facts, now + 1);
        let wait = next.at.unwrap() - now;
        assert!(next.retry && (18 * MINUTE..=22 * MINUTE).contains(&wait), "{wait}");
        now = next.at.unwrap();
    }
    policy.retry.max = 3;
    facts.failed.truncate(3);
    assert!(next_base(&policy, &facts, 0).at.unwrap() < facts.failed[2] + HOUR);
    facts.failed.push(facts.failed[2] + 20 * MINUTE);
    assert_eq!(next_base(&policy, &facts, 0).at, Some(facts.failed[3] + A_DAY));
}

#[test]
fn a_hole_asks_for_a_base_at_once_but_not_again_and_again() {
    let policy = Policy::default();
    let mut facts = with_bases(&[0]);
    facts.hole = Some(5 * HOUR);
    assert_eq!(next_base(&policy, &facts, 6 * HOUR).at, Some(5 * HOUR));
    facts.hole = Some(2 * MINUTE);
    assert_eq!(next_base(&policy, &facts, 3 * MINUTE).at, Some(21 * MINUTE));
}

#[test]
fn a_base_that_would_fall_into_a_blackout_is_begun_before_it() {
    let start = parse_time("2026-11-19T09:30:00Z").unwrap();
    let policy = Policy { blackout: vec!["08:00-18:00".parse().unwrap()], ..Policy::default() };
    // The last one was begun before the blackout was configured.
    let next = next_base(&policy, &with_bases(&[start]), start + HOUR);
    assert_eq!(next.at, Some(parse_time("2026-11-20T07:00:00Z").unwrap()));
    assert!(next.moved);
    // A first one waits.
    let facts = ScheduleFacts { added: start, ..ScheduleFacts::default() };
    assert_eq!(next_base(&policy, &facts, start).at, Some(parse_time("2026-11-19T18:00:00Z").unwrap()));
}

/// The log asked for a seventh base, was put off to a moment in the blackout, and so to the end of it: the last base had
/// grown older than a day by then.
#[test]
fn a_base_that_grows_old_in_a_blackout_is_begun_before_it_whatever_else_asks_for_one_in_it() {
    let day = parse_time("2026-11-19T00:00:00Z").unwrap();
    let at = |hour: i64| day + hour * HOUR;
    let blackout = vec!["20:00-04:00".parse().unwrap()];
    let policy = Policy { blackout, at: vec!["21:00".parse().unwrap()], ..Policy::default() };
    // Six bases; the log may ask again at 21:00, and so may the calendar; at 24 h the last one is old.
    let mut facts = with_bases(&[-3, -2, -1, 0, 1, 2].map(at));
    facts.log_bytes = 60 << 30;
    let next = next_base(&policy, &facts, at(3));
    assert_eq!((next.at, next.why, next.moved), (Some(at(19)), Why::Age, true), "{next:?}");
}

#[test]
fn a_server_that_is_gone_keeps_its_last_chain() {
    let policy = Policy::default();
    let point = |id: u32, day: i64| Point {
        id,
        finished: day * A_DAY,
        interval: Some(0),
        proved: false,
        bad: false,
        held: false,
        imported: false,
        keep_until: None,
    };
    let points: Vec<_> = (0..30).map(|n| point(n, i64::from(n))).collect();
    let intervals = [Interval { until: 29 * A_DAY + HOUR }];
    let then = retain(&policy, &points, &intervals, 30 * A_DAY);
    let much_later = retain(&policy, &points, &intervals, 3000 * A_DAY);
    assert_eq!(then, much_later);
    assert_eq!(much_later.logs, [LogNeed::From(21)]);
}

#[test]
fn what_a_longer_policy_keeps_stays_while_its_grace_runs() {
    let long = Policy { window: Span::hours(35 * 24), ..Policy::default() };
    let short = Policy::default();
    let points: Vec<_> = (0..40)
        .map(|n: u32| Point {
            id: n,
            finished: i64::from(n) * A_DAY,
            interval: Some(0),
            proved: false,
            bad: false,
            held: false,
            imported: false,
            keep_until: None,
        })
        .collect();
    let intervals = [Interval { until: 40 * A_DAY }];
    let ids = |r: &Retained<u32>| r.forget.clone();
    let (both, one) = (
        retain_all(&[&long, &short], &points, &intervals, 40 * A_DAY),
        retain(&long, &points, &intervals, 40 * A_DAY),
    );
    assert_eq!(ids(&both), ids(&one));
    assert!(ids(&retain(&short, &points, &intervals, 40 * A_DAY)).len() > ids(&both).len());
}

#[test]
fn a_policy_that_cant_be_kept_is_refused() {
    let refused = |change: &dyn Fn(&mut Policy)| {
        let mut policy = Policy::default();
        change(&mut policy);
        assert!(policy.check("p").is_err(), "{policy:?}");
    };
    Policy::default().check("default").unwrap();
    refused(&|p| p.max_age = Span::seconds(1));
    refused(&|p| p.window = Span::hours(3));
    refused(&|p| p.rto = Span::seconds(1));
    refused(&|p| p.timezone = "Mars/Olympus".into());
    refused(&|p| p.retry.interval = Span(0));
    refused(&|p| p.blackout = vec!["07:00-20:00".parse().unwrap()]);
    refused(&|p| p.blackout = ["00:00-10:00", "10:00-20:00"].map(|b| b.parse().unwrap()).into());
}

#[test]
fn a_policy_is_read_with_defaults_and_an_unknown_key_is_refused() {
    let text = "max_age = '12h'\nblackout = ['mon..fri 08:00-10:00']\nwindow = 0\nkeep = { daily = 14 }\n\
                retry = { max = 10 }\n";
    let policy: Policy = toml::from_str(text).unwrap();
    assert_eq!(policy.max_age, Span::hours(12));
    assert_eq!(policy.window, Span(0));
    assert_eq!(policy.keep.daily, Some(14));
    assert_eq!(policy.retry, Retry { max: 10, ..Retry::default() });
    let again: Policy = toml::from_str(&toml::to_string(&policy).unwrap()).unwrap();
    assert_eq!(again, policy);
    assert!(toml::from_str::<Policy>("windov = '7d'").unwrap_err().to_string().contains("windov"));
}
