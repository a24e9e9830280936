//! When the next base of a server is due.

use super::{Policy, Span, blackout};
use crate::time::Micros;
use serde::Serialize;

/// A complete base.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// When it was begun.
    pub started: Micros,
    /// When it was acknowledged.
    pub finished: Micros,
}

/// How long restores are expected to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreTakes {
    /// One to the last moment, as things stand.
    pub now: Micros,
    /// The same right behind a new base: without any log.
    pub fresh: Micros,
}

/// What is known of a server.
#[derive(Clone, Debug, Default)]
pub struct ScheduleFacts {
    /// Any number that is the server's own: it spreads servers over time.
    pub seed: u64,
    /// When it was added.
    pub added: Micros,
    /// Its complete bases, oldest first.
    pub bases: Vec<Taken>,
    /// Ends of the failed tries since the last complete base, oldest first.
    pub failed: Vec<Micros>,
    /// Bytes of log since the last base.
    pub log_bytes: u64,
    /// How long a restore would take; `None`: none was measured.
    pub restore: Option<RestoreTakes>,
    /// When a hole was noticed that no base was begun after: the log goes on behind a new base only.
    pub hole: Option<Micros>,
    /// Nothing is to be begun.
    pub paused: bool,
}

/// Why a base is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Why {
    /// There is none yet.
    First,
    /// The last one grows old.
    Age,
    /// The time of day has come.
    Calendar,
    /// The log since the last one is long.
    Log,
    /// The log has a hole.
    Hole,
    /// A restore would take too long, and would not behind a new base.
    Rto,
}

/// The next base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Next {
    /// When it is to be begun; not after now: at once. `None`: never, as things are.
    #[serde(serialize_with = "crate::views::maybe_time")]
    pub at: Option<Micros>,
    /// Why.
    pub why: Why,
    /// It is the next try after one that failed.
    pub retry: bool,
    /// The log, or the time of a restore, asks for more bases than a day may have: replay grows.
    pub capped: bool,
    /// A blackout moved it.
    pub moved: bool,
}

/// Says when the next base is to be begun. The answer for a later `now` with the same facts is never later than what
/// was said before, but for the end of a blackout that has begun meanwhile.
#[must_use]
pub fn next_base(policy: &Policy, facts: &ScheduleFacts, now: Micros) -> Next {
    let (mut next, wanted) = match wanted(policy, facts, now) {
        Some((at, why)) => (Next { at: Some(at), why, retry: false, capped: false, moved: false }, at),
        None => return Next { at: None, why: Why::Age, retry: false, capped: false, moved: false },
    };
    let mut at = wanted;
    if matches!(next.why, Why::Log | Why::Rto)
        && let Some(free) = cap_ends(policy, &facts.bases, now)
    {
        // Age and calendar still hold.
        let (other, why) = unprompted(policy, facts);
        (at, next.why) = if other <= free { (other, why) } else { (free, next.why) };
        next.capped = true;
    }
    if let Some(retry) = next_try(policy, facts) {
        at = at.max(retry);
        next.retry = true;
    }
    if let Some((from, until)) = blackout::around(&policy.blackout, &policy.zone(), at.max(now)) {
        let before = from.saturating_sub(policy.lead().0);
        // Grown old in a blackout: rather before it than after, whatever asks for a base in it besides. Not even begun
        // yet: there is still time.
        let old = facts.bases.last().filter(|last| age(policy, facts, last) < until);
        at = until;
        if let Some(last) = old.filter(|_| !next.retry && now < from) {
            at = before.max(last.started + 1);
            next.why = Why::Age;
        }
        next.moved = true;
    }
    next.at = Some(at);
    next
}

/// The earliest moment that something asks for, and what that is.
fn wanted(policy: &Policy, facts: &ScheduleFacts, now: Micros) -> Option<(Micros, Why)> {
    if facts.paused {
        return None;
    }
    let Some(last) = facts.bases.last() else { return Some((facts.added, Why::First)) };
    let mut wanted = vec![unprompted(policy, facts)];
    if policy.trigger_binlog.0 > 0 && facts.log_bytes >= policy.trigger_binlog.0 {
        wanted.push((now, Why::Log));
    }
    if let Some(takes) = facts.restore
        && policy.trigger_rto
        && (takes.fresh..takes.now).contains(&policy.rto.0)
        && policy.rto.0 > 0
    {
        wanted.push((now.max(last.finished.saturating_add(policy.retry.interval.0)), Why::Rto));
    }
    if let Some(noticed) = facts.hole {
        // A server that tears its log again and again is not copied without end.
        wanted.push((noticed.max(last.finished.saturating_add(policy.retry.interval.0)), Why::Hole));
    }
    wanted.into_iter().min_by_key(|(at, _)| *at)
}

/// What age and calendar ask for.
fn unprompted(policy: &Policy, facts: &ScheduleFacts) -> (Micros, Why) {
    let Some(last) = facts.bases.last() else { return (facts.added, Why::First) };
    let age = age(policy, facts, last);
    match blackout::next_time_of_day(&policy.at, &policy.zone(), last.started) {
        Some(at) if at < age => (at, Why::Calendar),
        _ => (age, Why::Age),
    }
}

/// When the last base has grown old.
fn age(policy: &Policy, facts: &ScheduleFacts, last: &Taken) -> Micros {
    let lead = policy.lead().0;
    let early = fraction(facts.seed, last.started, lead / 2);
    last.started.saturating_add(policy.max_age.0 - lead - early)
}

/// When the log or `rto` may ask again, if a day has as many bases as it may have.
fn cap_ends(policy: &Policy, bases: &[Taken], now: Micros) -> Option<Micros> {
    let most = policy.max_per_day as usize;
    if most == 0 {
        return None;
    }
    let nth_newest = bases.len().checked_sub(most).and_then(|at| bases.get(at))?;
    let free = nth_newest.started.saturating_add(super::DAY.0);
    (free > now).then_some(free)
}

/// When a failed base is tried again.
fn next_try(policy: &Policy, facts: &ScheduleFacts) -> Option<Micros> {
    let last = *facts.failed.last()?;
    let given_up = policy.retry.max > 0 && facts.failed.len() > policy.retry.max as usize;
    if given_up {
        return Some(last.saturating_add(policy.max_age.0));
    }
    let interval = policy.retry.interval.0;
    let tenth = interval / 10;
    Some(last.saturating_add(interval - tenth + fraction(facts.seed, last, 2 * tenth)))
}

/// A number from 0 to `most` that is the server's own for this moment, and the same each time it is asked for.
fn fraction(seed: u64, moment: Micros, most: Micros) -> Micros {
    // splitmix64
    let mut x = seed ^ (moment as u64).wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    let most = Span(most.max(0));
    (x % (most.0 as u64 + 1)) as Micros
}
