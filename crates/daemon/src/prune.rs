//! Prunes by itself: looked at once a day, gone through with when it is time or when it is much.

use crate::daemon::Daemon;
use crate::jobs::{Live, Work};
use crate::scheduler::last_ended;
use crate::state::Pruned;
use holdfast_appliance::error::{Code, Error, Result};
use holdfast_appliance::policy::DAY;
use holdfast_appliance::progress::Watcher;
use holdfast_appliance::prune::{Options, PruneView, prune};
use holdfast_appliance::time::{Micros, now};
use serde_json::Value;

/// When the next one is to be begun; `None`: never by itself. A person's blackouts are kept: it moves bytes.
pub(crate) fn due(daemon: &Daemon, now: Micros) -> Option<Micros> {
    let config = daemon.config();
    let every = config.prune.every.0;
    if every == 0 {
        return None;
    }
    let ended = last_ended(daemon, |work| matches!(work, Work::Prune { .. }));
    let at = ended.saturating_add(every.min(DAY.0));
    let servers = daemon.catalogue.servers();
    let dark = servers.iter().any(|s| config.policy_of(&s.name).1.is_blackout(now));
    Some(if dark { at.max(now.saturating_add(1)) } else { at })
}

/// Looks whether it is worth it, and prunes.
pub(crate) fn run(daemon: &Daemon, live: &Live, by_person: bool) -> Result<Value> {
    let config = daemon.config();
    let terms = &config.prune;
    let options = Options { dead_percent_max: terms.max_dead, grace: terms.grace };
    let last = daemon.state.read(|content| content.prune.as_ref().map_or(content.begun, |p| p.at));
    let in_time = last.saturating_add(terms.every.0) <= now();
    if !by_person && !in_time {
        live.note("looking how much is dead");
        let plan = prune(&daemon.catalogue, options, true, live)?;
        if !is_much(&plan, terms.share) {
            return answer(&plan);
        }
    }
    let view = prune(&daemon.catalogue, options, false, live)?;
    if view.stopped {
        return Err(Error::new(Code::Interrupted, "The prune was stopped; the next one goes on with it."));
    }
    let done = Pruned { at: now(), freed_bytes: view.freed_bytes };
    daemon.state.change(|content| content.prune = Some(done))?;
    if view.damaged.is_empty() {
        return answer(&view);
    }
    Err(Error::new(
        Code::Corruption,
        format!("The prune left {} segment(s) alone because they are damaged.", view.damaged.len()),
    )
    .with_next(format!("run `holdfast-fsck --full {}`", config.repository.display())))
}

/// Whether what would be freed is this share of what is stored, percent.
fn is_much(plan: &PruneView, share: u8) -> bool {
    let stored = plan.before.bytes.saturating_add(plan.logs.bytes);
    plan.freed_bytes > 0 && u128::from(plan.freed_bytes) * 100 >= u128::from(stored) * u128::from(share)
}

fn answer(view: &PruneView) -> Result<Value> {
    serde_json::to_value(view).map_err(|error| Error::failed(format!("The answer can't be kept: {error}.")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_appliance::prune::{Count, SpaceView};

    #[test]
    fn a_fifth_of_what_is_stored_is_much_and_nothing_never_is() {
        let space = SpaceView { segments: 1, bytes: 900, dead_percent: 0.0 };
        let of = |freed_bytes| PruneView {
            dry_run: true,
            dead: Count::default(),
            orphans: Count::default(),
            superseded: Count::default(),
            logs: Count { objects: 1, bytes: 100 },
            compacted: Count::default(),
            carriers: Count::default(),
            waiting: 0,
            freed_bytes,
            before: space,
            after: space,
            stopped: false,
            damaged: Vec::new(),
        };
        assert!(is_much(&of(200), 20) && !is_much(&of(199), 20));
        assert!(!is_much(&of(0), 0) && is_much(&of(1), 0));
    }
}
