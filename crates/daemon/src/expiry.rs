//! Expiry with grace: what a longer policy kept stays until the grace of the change is over.

use crate::approvals::{self, CONFIGURATION, Decision, Deletion, Request};
use crate::daemon::Daemon;
use crate::state::{ServerState, State};
use holdfast_appliance::catalogue::Catalogue;
use holdfast_appliance::error::{Code, Result};
use holdfast_appliance::policy::{ExpiryView, Keep, Policy, Span, expire, expiry};
use holdfast_appliance::time::Micros;

/// Until a second person agrees.
const HELD: Micros = Micros::MAX;

/// Takes note of the policy that holds now. One that differs in what it keeps leaves the older one in force beside it
/// for its grace; one that keeps less, where a second person has to agree, until he has.
///
/// # Errors
/// `Failed` when the state can't be written.
pub fn note_policy(state: &State, server: &str, policy: &Policy, agree: bool, now: Micros) -> Result<()> {
    let known = state.read(|content| content.servers.get(server).cloned().unwrap_or_default());
    let noted = noted(known.clone(), policy, agree, now);
    if noted.policy != known.policy || noted.before != known.before {
        state.change(|content| {
            let server = content.servers.entry(server.to_owned()).or_default();
            (server.policy, server.before) = (noted.policy, noted.before);
            server.policy_since = noted.policy_since;
        })?;
    }
    Ok(())
}

fn noted(mut server: ServerState, policy: &Policy, agree: bool, now: Micros) -> ServerState {
    let graced = now.saturating_add(policy.grace.0);
    match server.policy.take() {
        // A second change while the grace of a first one runs: the oldest one counts, longest.
        Some(old) if !keeps_the_same(&old, policy) => {
            let older = server.before.take().filter(|(_, until)| *until > now).map(|(before, _)| before);
            // Lengthened and shortened again within a grace: the one between may keep what the oldest does not.
            let before = older.map_or_else(|| old.clone(), |older| both(&older, &old));
            server.policy_since = now;
            let held = agree && keeps_less(policy, &before);
            server.before = Some((before, if held { HELD } else { graced }));
        }
        _ => {}
    }
    // Nobody has to agree any more.
    if let Some((_, until)) = &mut server.before
        && *until == HELD
        && !agree
    {
        *until = graced;
    }
    server.before = server.before.filter(|(_, until)| *until > now);
    server.policy = Some(policy.clone());
    server
}

/// Whether both policies keep the same.
pub(crate) fn keeps_the_same(a: &Policy, b: &Policy) -> bool {
    (a.window, a.keep, &a.timezone) == (b.window, b.keep, &b.timezone)
}

/// Whether there may be something that only the old one keeps.
fn keeps_less(new: &Policy, old: &Policy) -> bool {
    let window = |p: &Policy| if p.window.0 == 0 { Micros::MAX } else { p.window.0 };
    let tiers = |p: &Policy| {
        let Keep { last, daily, weekly, monthly, yearly } = p.keep;
        // 0 is for ever, and absent is none.
        [last, daily, weekly, monthly, yearly].map(|n| match n {
            None => 0,
            Some(0) => u32::MAX,
            Some(n) => n,
        })
    };
    let fewer = tiers(new).iter().zip(&tiers(old)).any(|(new, old)| new < old);
    let other_days = new.timezone != old.timezone && old.keep != Keep::default();
    window(new) < window(old) || fewer || other_days
}

/// A policy that keeps what either keeps.
fn both(a: &Policy, b: &Policy) -> Policy {
    if !keeps_less(a, b) {
        return a.clone();
    }
    if !keeps_less(b, a) {
        return b.clone();
    }
    // Days that begin at other hours can't be had in one policy: everything is kept for the while.
    if a.timezone != b.timezone {
        return Policy { window: Span(0), ..a.clone() };
    }
    // 0 is for ever, and absent is none.
    let more = |a: Option<u32>, b: Option<u32>| match (a, b) {
        (Some(0), _) | (_, Some(0)) => Some(0),
        (a, b) => a.max(b),
    };
    let keep = Keep {
        last: more(a.keep.last, b.keep.last),
        daily: more(a.keep.daily, b.keep.daily),
        weekly: more(a.keep.weekly, b.keep.weekly),
        monthly: more(a.keep.monthly, b.keep.monthly),
        yearly: more(a.keep.yearly, b.keep.yearly),
    };
    let longer = if a.window.0 == 0 || b.window.0 == 0 { 0 } else { a.window.0.max(b.window.0) };
    Policy { window: Span(longer), keep, ..a.clone() }
}

/// Asks for a second person where the configuration keeps less than before; takes back what it asks for no more.
fn ask_for_less(daemon: &Daemon, name: &str, policy: &Policy, now: Micros) -> Result<()> {
    let held = daemon.state.read(|content| {
        content.servers.get(name).and_then(|s| s.before.as_ref()).is_some_and(|(_, until)| *until == HELD)
    });
    let about = |what: &Deletion| match what {
        Deletion::ShortenRetention { server, terms } if server == name => Some(keeps_the_same(terms, policy)),
        _ => None,
    };
    let stale =
        |r: &Request| r.decision == Decision::Waiting && about(&r.what).is_some_and(|same| !(same && held));
    if daemon.state.read(|content| content.approvals.iter().any(stale)) {
        daemon.state.change(|content| {
            for request in content.approvals.iter_mut().filter(|r| stale(r)) {
                // By nobody: it may be asked for again.
                request.decision = Decision::Withdrawn;
                (request.decided_by, request.decided) = (Some(CONFIGURATION.to_owned()), Some(now));
            }
        })?;
    }
    let newest = daemon.state.read(|content| {
        let since = content.servers.get(name).map_or(0, |s| s.policy_since);
        // What was taken back, or decided before the policy changed to this, says nothing of it now.
        let counts = |r: &&Request| {
            r.asked >= since && r.decided_by.as_deref() != Some(CONFIGURATION) && about(&r.what) == Some(true)
        };
        content.approvals.iter().rev().find(counts).map(|r| r.decision)
    });
    // What was rejected is not asked for again; the older policy goes on to count.
    if !held || matches!(newest, Some(Decision::Waiting | Decision::Rejected)) {
        return Ok(());
    }
    let what = Deletion::ShortenRetention { server: name.to_owned(), terms: Box::new(policy.clone()) };
    let words = approvals::words(&what);
    match approvals::put(daemon, what, CONFIGURATION, now) {
        Ok(_) => daemon.audit.note(CONFIGURATION, &words, "waits for a second person"),
        // It waits already. The older policy counts meanwhile, and the next turn asks again.
        Err(error) if error.code == Code::Locked => Ok(()),
        Err(error) => Err(error),
    }
}

/// The policies that retention goes by now: the one of the configuration, and an older one that still counts.
pub(crate) fn in_force(daemon: &Daemon, name: &str) -> Vec<Policy> {
    let (_, policy) = daemon.config().policy_of(name);
    std::iter::once(policy).chain(before(&daemon.state, name)).collect()
}

/// What would go now.
///
/// # Errors
/// As [`expiry`].
pub fn shown(
    catalogue: &Catalogue,
    state: &State,
    name: &str,
    policy: &Policy,
    now: Micros,
) -> Result<ExpiryView> {
    let before = before(state, name);
    let policies: Vec<&Policy> = std::iter::once(policy).chain(&before).collect();
    expiry(catalogue, name, &policies, now)
}

/// Forgets it.
///
/// # Errors
/// As [`expire`].
pub fn carried_out(daemon: &Daemon, name: &str, now: Micros) -> Result<ExpiryView> {
    let config = daemon.config();
    let (_, policy) = config.policy_of(name);
    note_policy(&daemon.state, name, &policy, config.approval.required, now)?;
    ask_for_less(daemon, name, &policy, now)?;
    let policies = in_force(daemon, name);
    expire(&daemon.catalogue, name, &policies.iter().collect::<Vec<_>>(), now)
}

fn before(state: &State, name: &str) -> Option<Policy> {
    state.read(|content| content.servers.get(name).and_then(|s| s.before.clone())).map(|(policy, _)| policy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: i64) -> Policy {
        Policy { window: Span::hours(24 * days), ..Policy::default() }
    }

    #[test]
    fn a_shorter_window_waits_out_its_grace_and_a_second_change_does_not_cut_it_short() {
        const DAY: Micros = 86_400_000_000;
        let first = noted(ServerState::default(), &window(35), false, 0);
        assert!(first.before.is_none());
        let second = noted(first, &window(14), false, DAY);
        assert_eq!(second.before, Some((window(35), 2 * DAY)));
        let third = noted(second, &window(7), false, DAY + DAY / 2);
        assert_eq!(third.before, Some((window(35), 2 * DAY + DAY / 2)));
        let same = noted(third, &window(7), false, 2 * DAY);
        assert!(same.before.is_some());
        let over = noted(same, &window(7), false, 3 * DAY);
        assert_eq!((over.before, over.policy), (None, Some(window(7))));
    }

    #[test]
    fn where_a_second_person_has_to_agree_a_shorter_window_waits_for_him_and_a_longer_one_does_not() {
        const DAY: Micros = 86_400_000_000;
        let first = noted(ServerState::default(), &window(35), true, 0);
        let second = noted(first, &window(14), true, DAY);
        assert_eq!(second.before, Some((window(35), HELD)));
        let much_later = noted(second, &window(14), true, 3000 * DAY);
        assert_eq!(much_later.before, Some((window(35), HELD)));
        let shorter = noted(much_later.clone(), &window(7), true, 3001 * DAY);
        assert_eq!(shorter.before, Some((window(35), HELD)));
        let back = noted(shorter, &window(35), true, 3002 * DAY);
        assert_eq!(back.before, Some((window(35), 3003 * DAY)));
        let nobody = noted(much_later, &window(14), false, 3001 * DAY);
        assert_eq!(nobody.before, Some((window(35), 3002 * DAY)));
        let longer = noted(noted(ServerState::default(), &window(7), true, 0), &window(14), true, DAY);
        assert_eq!(longer.before, Some((window(7), 2 * DAY)));
    }

    #[test]
    fn lengthened_and_shortened_again_the_longer_one_counts() {
        const DAY: Micros = 86_400_000_000;
        for agree in [false, true] {
            let longer = noted(noted(ServerState::default(), &window(7), agree, 0), &window(35), agree, DAY);
            let shorter = noted(longer, &window(7), agree, DAY + 1);
            let until = if agree { HELD } else { 2 * DAY + 1 };
            assert_eq!(shorter.before, Some((window(35), until)));
        }
        let daily = |n| Policy { keep: Keep { daily: n, ..Keep::default() }, ..window(7) };
        let of_both = both(&daily(Some(9)), &window(35));
        assert_eq!((of_both.window, of_both.keep), (window(35).window, daily(Some(9)).keep));
        let elsewhere = Policy { timezone: "Europe/Berlin".into(), ..daily(Some(9)) };
        assert_eq!(both(&daily(Some(9)), &elsewhere).window, Span(0));
    }

    #[test]
    fn less_is_kept_where_any_part_is_less() {
        let with = |keep: Keep| Policy { keep, ..window(7) };
        let daily = |n| with(Keep { daily: Some(n), ..Keep::default() });
        assert!(keeps_less(&window(6), &window(7)) && !keeps_less(&window(8), &window(7)));
        assert!(keeps_less(&window(7), &window(0)) && !keeps_less(&window(0), &window(7)));
        assert!(keeps_less(&daily(3), &daily(4)) && keeps_less(&daily(3), &daily(0)));
        assert!(!keeps_less(&daily(0), &daily(4)) && keeps_less(&window(7), &daily(1)));
        let elsewhere = Policy { timezone: "Europe/Berlin".into(), ..daily(3) };
        assert!(keeps_less(&elsewhere, &daily(3)) && !keeps_less(&elsewhere, &window(7)));
    }
}
