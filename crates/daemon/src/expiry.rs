//! Expiry with grace: what a longer policy kept stays until the grace of the change is over.

use crate::state::{ServerState, State};
use holdfast_appliance::catalogue::Catalogue;
use holdfast_appliance::error::Result;
use holdfast_appliance::policy::{ExpiryView, Policy, expire, expiry};
use holdfast_appliance::time::Micros;

/// Takes note of the policy that holds now. One that differs in what it keeps leaves the older one in force beside it
/// for its grace.
///
/// # Errors
/// `Failed` when the state can't be written.
pub fn note_policy(state: &State, server: &str, policy: &Policy, now: Micros) -> Result<()> {
    let known = state.read(|content| content.servers.get(server).cloned().unwrap_or_default());
    let noted = noted(known.clone(), policy, now);
    if noted.policy != known.policy || noted.before != known.before {
        state.change(|content| {
            let server = content.servers.entry(server.to_owned()).or_default();
            (server.policy, server.before) = (noted.policy, noted.before);
        })?;
    }
    Ok(())
}

fn noted(mut server: ServerState, policy: &Policy, now: Micros) -> ServerState {
    let same = |a: &Policy| (a.window, a.keep, &a.timezone) == (policy.window, policy.keep, &policy.timezone);
    match server.policy.take() {
        // A second change while the grace of a first one runs: the oldest one counts, longest.
        Some(old) if !same(&old) => {
            let until = now.saturating_add(policy.grace.0);
            let before = server.before.take().filter(|(_, until)| *until > now).map(|(before, _)| before);
            server.before = Some((before.unwrap_or(old), until));
        }
        _ => {}
    }
    server.before = server.before.filter(|(_, until)| *until > now);
    server.policy = Some(policy.clone());
    server
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
pub fn carried_out(
    catalogue: &Catalogue,
    state: &State,
    name: &str,
    policy: &Policy,
    now: Micros,
) -> Result<ExpiryView> {
    note_policy(state, name, policy, now)?;
    let before = before(state, name);
    let policies: Vec<&Policy> = std::iter::once(policy).chain(&before).collect();
    expire(catalogue, name, &policies, now)
}

fn before(state: &State, name: &str) -> Option<Policy> {
    state.read(|content| content.servers.get(name).and_then(|s| s.before.clone())).map(|(policy, _)| policy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_appliance::policy::Span;

    fn window(days: i64) -> Policy {
        Policy { window: Span::hours(24 * days), ..Policy::default() }
    }

    #[test]
    fn a_shorter_window_waits_out_its_grace_and_a_second_change_does_not_cut_it_short() {
        const DAY: Micros = 86_400_000_000;
        let first = noted(ServerState::default(), &window(35), 0);
        assert!(first.before.is_none());
        let second = noted(first, &window(14), DAY);
        assert_eq!(second.before, Some((window(35), 2 * DAY)));
        let third = noted(second, &window(7), DAY + DAY / 2);
        assert_eq!(third.before, Some((window(35), 2 * DAY + DAY / 2)));
        let same = noted(third, &window(7), 2 * DAY);
        assert!(same.before.is_some());
        let over = noted(same, &window(7), 3 * DAY);
        assert_eq!((over.before, over.policy), (None, Some(window(7))));
    }
}
