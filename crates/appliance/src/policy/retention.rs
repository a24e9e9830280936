//! What may be forgotten: everything that no promised point needs.
//!
//! The window is counted back from the last moment that can be restored, not from now: a server that is paused,
//! stopped or gone keeps its last good chain. Any second of the window, and of the day before it, is restorable when
//! it was so with nothing forgotten: all bases since then are kept, and for each unbroken stretch of log that reaches
//! into it the newest base before. Further back, single bases are kept by calendar, by their own dates, and by hold.

use super::blackout::{date, moment};
use super::{DAY, Keep, Policy};
use crate::time::Micros;
use jiff::ToSpan;
use jiff::civil::Date;
use jiff::tz::TimeZone;
use serde::Serialize;
use std::collections::BTreeSet;

/// A base, as far as retention cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point<Id> {
    /// Which one.
    pub id: Id,
    /// When it was acknowledged: a restore to this moment or later may use it.
    pub finished: Micros,
    /// The unbroken stretch of log that it lies in, an index into the stretches; `None`: it stands alone.
    pub interval: Option<usize>,
    /// A restore of it was proved.
    pub proved: bool,
    /// It is known not to be restorable: it never stands in for another one.
    pub bad: bool,
    /// Not to be forgotten until it is released.
    pub held: bool,
    /// Taken by no schedule, but imported: it stands in for no other one, and no window is counted from it.
    pub imported: bool,
    /// Not to be forgotten before this moment, whatever the policy says.
    pub keep_until: Option<Micros>,
}

impl<Id> Point<Id> {
    /// May it be the one that is kept in the place of others?
    fn stands_in(&self) -> bool {
        !self.bad && !self.imported
    }
}

/// An unbroken stretch of log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    /// Its last moment.
    pub until: Micros,
}

/// Why a base is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The window, or the day before it.
    Window,
    /// The window begins behind it.
    Anchor,
    /// It is held.
    Held,
    /// Its own date.
    OwnDate,
    /// One of the newest.
    Last,
    /// First of its day.
    Daily,
    /// First of its week.
    Weekly,
    /// First of its month.
    Monthly,
    /// First of its year.
    Yearly,
    /// The newest one that is proved.
    NewestProved,
}

/// A base that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept<Id> {
    /// Which one.
    pub id: Id,
    /// Why, at least one.
    pub reasons: BTreeSet<Reason>,
}

/// How much of a stretch of log is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogNeed<Id> {
    /// All of it.
    All,
    /// From where this base begins.
    From(Id),
    /// None of it.
    Nothing,
}

/// What is kept and what may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retained<Id> {
    /// Oldest first.
    pub kept: Vec<Kept<Id>>,
    /// Oldest first.
    pub forget: Vec<Id>,
    /// For each stretch of log, in order.
    pub logs: Vec<LogNeed<Id>>,
}

/// Says what of a server's `points` (oldest first) and `intervals` (in order) is kept.
#[must_use]
pub fn retain<Id: Clone>(
    policy: &Policy,
    points: &[Point<Id>],
    intervals: &[Interval],
    now: Micros,
) -> Retained<Id> {
    retain_all(&[policy], points, intervals, now)
}

/// The same under several policies at once: what one of them keeps is kept. The older one still counts while the grace
/// of a shorter window runs.
#[must_use]
pub fn retain_all<Id: Clone>(
    policies: &[&Policy],
    points: &[Point<Id>],
    intervals: &[Interval],
    now: Micros,
) -> Retained<Id> {
    let mut reasons: Vec<BTreeSet<Reason>> = vec![BTreeSet::new(); points.len()];
    for policy in policies {
        mark(policy, points, intervals, now, &mut reasons);
    }
    let mut retained =
        Retained { kept: Vec::new(), forget: Vec::new(), logs: vec![LogNeed::Nothing; intervals.len()] };
    for (point, reasons) in points.iter().zip(&reasons) {
        if reasons.is_empty() {
            retained.forget.push(point.id.clone());
        } else {
            retained.kept.push(Kept { id: point.id.clone(), reasons: reasons.clone() });
        }
    }
    for (at, need) in retained.logs.iter_mut().enumerate() {
        *need = log_need(policies, at, points, intervals, &reasons, now);
    }
    retained
}

/// Log is needed behind the bases that the window keeps, not behind those that stand for a day or a year.
fn log_need<Id: Clone>(
    policies: &[&Policy],
    interval: usize,
    points: &[Point<Id>],
    intervals: &[Interval],
    reasons: &[BTreeSet<Reason>],
    now: Micros,
) -> LogNeed<Id> {
    let of_window =
        |reasons: &BTreeSet<Reason>| reasons.contains(&Reason::Window) || reasons.contains(&Reason::Anchor);
    let mut inside = points.iter().zip(reasons).filter(|(p, _)| p.interval == Some(interval));
    if let Some((first, _)) = inside.find(|(_, reasons)| of_window(reasons)) {
        return LogNeed::From(first.id.clone());
    }
    let until = intervals.get(interval).map_or(now, |i| i.until);
    // A stretch that no base lies in yet waits for its first one.
    let recent = policies.iter().any(|p| window_begin(p, points, intervals, now).is_none_or(|w| until >= w));
    let newest = interval + 1 == intervals.len();
    if recent || newest { LogNeed::All } else { LogNeed::Nothing }
}

/// The first moment that is promised, the day before included; `None`: all of them.
fn window_begin<Id>(
    policy: &Policy,
    points: &[Point<Id>],
    intervals: &[Interval],
    now: Micros,
) -> Option<Micros> {
    if policy.window.0 == 0 {
        return None;
    }
    let ends =
        points.iter().filter(|p| !p.imported).map(|p| p.finished).chain(intervals.iter().map(|i| i.until));
    let end = ends.max().unwrap_or(now).min(now);
    Some(end.saturating_sub(policy.window.0).saturating_sub(DAY.0))
}

fn mark<Id>(
    policy: &Policy,
    points: &[Point<Id>],
    intervals: &[Interval],
    now: Micros,
    reasons: &mut [BTreeSet<Reason>],
) {
    let mut add = |at: usize, reason: Reason| {
        if let Some(reasons) = reasons.get_mut(at) {
            reasons.insert(reason);
        }
    };
    let begin = window_begin(policy, points, intervals, now);
    for (at, point) in points.iter().enumerate() {
        if !point.imported && begin.is_none_or(|begin| point.finished > begin) {
            add(at, Reason::Window);
        }
        if point.held {
            add(at, Reason::Held);
        }
        if point.keep_until.is_some_and(|until| now < until) {
            add(at, Reason::OwnDate);
        }
    }
    let newest = |fits: &dyn Fn(&Point<Id>) -> bool| points.iter().rposition(fits);
    if let Some(begin) = begin {
        let before = |p: &Point<Id>| p.finished <= begin;
        // Folders, and whoever has no log: as it was at the last base.
        newest(&|p| before(p) && p.stands_in())
            .or_else(|| newest(&before))
            .iter()
            .for_each(|&at| add(at, Reason::Anchor));
        for (index, interval) in intervals.iter().enumerate() {
            if interval.until >= begin {
                let inside = |p: &Point<Id>| before(p) && p.interval == Some(index);
                // A bad one is no base: with it goes the one that a restore would take in its place.
                newest(&|p| inside(p) && p.stands_in()).iter().for_each(|&at| add(at, Reason::Anchor));
            }
        }
    }
    // A proof is not given up for a base that nobody has tried.
    newest(&|p| p.proved && p.stands_in()).iter().for_each(|&at| add(at, Reason::NewestProved));
    // Something is always left.
    newest(&|p| p.stands_in()).iter().for_each(|&at| add(at, Reason::Last));

    let Keep { last, daily, weekly, monthly, yearly } = policy.keep;
    let good = || points.iter().enumerate().rev().filter(|(_, p)| p.stands_in());
    if let Some(last) = last {
        good().take(count(last)).for_each(|(at, _)| add(at, Reason::Last));
    }
    let zone = policy.zone();
    let tiers = [
        (daily, Reason::Daily, Period::Day),
        (weekly, Reason::Weekly, Period::Week),
        (monthly, Reason::Monthly, Period::Month),
        (yearly, Reason::Yearly, Period::Year),
    ];
    for (wanted, reason, period) in tiers {
        let Some(wanted) = wanted else { continue };
        firsts(points, &zone, period).iter().rev().take(count(wanted)).for_each(|&at| add(at, reason));
    }
}

/// 0 means all of them.
fn count(wanted: u32) -> usize {
    if wanted == 0 { usize::MAX } else { wanted as usize }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Period {
    Day,
    Week,
    Month,
    Year,
}

impl Period {
    /// The day that the period of `date` begins on.
    fn begin(self, date: Date) -> Date {
        match self {
            Self::Day => date,
            Self::Week => {
                let back = i64::from(date.weekday().to_monday_zero_offset());
                date.checked_sub(back.days()).unwrap_or(date)
            }
            Self::Month => date.first_of_month(),
            Self::Year => date.first_of_year(),
        }
    }

    /// The day on which the period that is `count` after the one of `date` begins.
    fn later(self, date: Date, count: u32) -> Option<Date> {
        let count = i64::from(count);
        let span = match self {
            Self::Day => count.days(),
            Self::Week => count.weeks(),
            Self::Month => count.months(),
            Self::Year => count.years(),
        };
        self.begin(date).checked_add(span).ok()
    }
}

/// The first good base of each period that has one. The first and not the last: what stands for a period does so from
/// the day it is taken, so a promise once made is never moved to another base.
fn firsts<Id>(points: &[Point<Id>], zone: &TimeZone, period: Period) -> Vec<usize> {
    let mut firsts: Vec<(Date, usize)> = Vec::new();
    for (at, point) in points.iter().enumerate().filter(|(_, p)| p.stands_in()) {
        let Some(begin) = date(zone, point.finished).map(|d| period.begin(d)) else { continue };
        if firsts.last().is_none_or(|(last, _)| *last != begin) {
            firsts.push((begin, at));
        }
    }
    firsts.into_iter().map(|(_, at)| at).collect()
}

/// Until when a base is promised to be there, as things stand; it may be kept longer. `None`: for ever, or until it is
/// released.
#[must_use]
pub fn kept_until<Id: PartialEq>(policy: &Policy, points: &[Point<Id>], id: &Id) -> Option<Micros> {
    let at = points.iter().position(|p| p.id == *id)?;
    let point = points.get(at)?;
    if point.held || policy.window.0 == 0 {
        return None;
    }
    let mut until = point.finished.saturating_add(policy.window.0).saturating_add(DAY.0);
    until = until.max(point.keep_until.unwrap_or(i64::MIN));
    let zone = policy.zone();
    let Keep { daily, weekly, monthly, yearly, .. } = policy.keep;
    let tiers =
        [(daily, Period::Day), (weekly, Period::Week), (monthly, Period::Month), (yearly, Period::Year)];
    for (wanted, period) in tiers {
        let Some(wanted) = wanted else { continue };
        if !firsts(points, &zone, period).contains(&at) {
            continue;
        }
        if wanted == 0 {
            return None;
        }
        let end = date(&zone, point.finished).and_then(|d| period.later(d, wanted));
        until = until.max(end.and_then(|d| moment(&zone, d, 0)).unwrap_or(i64::MIN));
    }
    Some(until)
}
