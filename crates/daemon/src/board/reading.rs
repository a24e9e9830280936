//! What a look at a server costs most: its log and its backups, read again only when something may have changed.
//!
//! What can change it is told by numbers that rise: records that concern the server, and what its stream has made
//! durable. What nobody tells of (another process follows the log, a proof of zero loss goes on) has a longest age.

use crate::daemon::Daemon;
use holdfast_appliance::ServerRecord;
use holdfast_appliance::error::Result;
use holdfast_appliance::find::{Wanted, find};
use holdfast_appliance::measured::{Measured, measured};
use holdfast_appliance::progress::Unwatched;
use holdfast_appliance::status::{is_followed, status_of, timeline};
use holdfast_appliance::views::{FoundView, StatusView, TimelineView};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Statements on a timeline.
const FLAGS_MAX: u32 = 500;
/// A reading is taken anew after so long at the latest, whatever nobody told of: the end of a log that is followed here
/// moves without a transaction, too.
const AGE_MAX: Duration = Duration::from_secs(60);
/// All that is read anew for its age alone takes one part in this many of the time…
const SHARE_OF_AGED: u32 = 300;
/// …but nothing grows older than this.
const PACE_MAX: Duration = Duration::from_secs(300);
/// One of a log that another process may write to, or whose commits wait for the archive.
const AGE_MAX_UNTOLD: Duration = Duration::from_secs(5);

/// What was read of a server.
#[derive(Debug)]
pub(super) struct Reading {
    of: Told,
    /// Nobody would tell of what changes.
    untold: bool,
    at: Instant,
    took: Duration,
    /// What can be restored.
    pub(super) status: StatusView,
    /// Its history.
    pub(super) timeline: Arc<TimelineView>,
    /// Definitions and accounts that were changed.
    pub(super) flags: Arc<Vec<FoundView>>,
    /// Its restores and drills, newest first.
    pub(super) reports: Vec<Measured>,
}

impl Reading {
    /// For how long it is good while nothing is told, as one of so many servers.
    fn age_max(&self, servers: u32) -> Duration {
        if self.untold {
            return AGE_MAX_UNTOLD;
        }
        AGE_MAX.max(self.took.saturating_mul(SHARE_OF_AGED).saturating_mul(servers)).min(PACE_MAX)
    }
}

/// Of what it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Told {
    records: u64,
    log: u64,
    followed: bool,
}

/// The readings of all servers.
#[derive(Debug, Default)]
pub(super) struct Readings {
    by_name: BTreeMap<String, Reading>,
}

impl Readings {
    /// The reading of this server, taken anew if it has to be.
    ///
    /// # Errors
    /// When the repository can't be read.
    pub(super) fn of(&mut self, daemon: &Daemon, server: &ServerRecord, has_log: bool) -> Result<&Reading> {
        let servers = u32::try_from(self.by_name.len()).unwrap_or(u32::MAX).max(1);
        let of = Told {
            records: daemon.catalogue.known(|known| known.changes(server.id)),
            log: daemon.streams.changes(&server.name),
            followed: has_log && is_followed(&daemon.catalogue, server)?,
        };
        let is_good = |reading: &Reading| reading.of == of && reading.at.elapsed() < reading.age_max(servers);
        Ok(match self.by_name.entry(server.name.clone()) {
            Entry::Occupied(known) if is_good(known.get()) => known.into_mut(),
            Entry::Occupied(mut known) => {
                known.insert(read(daemon, server, has_log, of)?);
                known.into_mut()
            }
            Entry::Vacant(place) => place.insert(read(daemon, server, has_log, of)?),
        })
    }

    /// Forgets servers that are there no more.
    pub(super) fn keep(&mut self, servers: &[ServerRecord]) {
        self.by_name.retain(|name, _| servers.iter().any(|server| server.name == *name));
    }
}

fn read(daemon: &Daemon, server: &ServerRecord, has_log: bool, of: Told) -> Result<Reading> {
    let (catalogue, name) = (&daemon.catalogue, server.name.as_str());
    let at = Instant::now();
    let status = status_of(catalogue, name)?;
    let timeline = timeline(catalogue, name)?;
    let wanted = Wanted { ddl: true, limit: FLAGS_MAX, ..Wanted::default() };
    // Nothing archived yet is no flag.
    let flags = if has_log && status.log_until.is_some() {
        find(catalogue, name, &wanted, &Unwatched).map(|f| f.found).unwrap_or_default()
    } else {
        Vec::new()
    };
    let reports = measured(catalogue, server);
    let ours = daemon.streams.is_following(name);
    let untold = of.followed && (!ours || status.zero_loss.is_some());
    Ok(Reading {
        of,
        untold,
        at,
        took: at.elapsed(),
        status,
        timeline: Arc::new(timeline),
        flags: Arc::new(flags),
        reports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reading_grows_older_where_it_is_costly_and_never_very_old() {
        let told = Told { records: 0, log: 0, followed: true };
        let reading = |untold: bool, took_ms: u64| Reading {
            of: told,
            untold,
            at: Instant::now(),
            took: Duration::from_millis(took_ms),
            status: StatusView::unknown("shop", "a test"),
            timeline: Arc::new(TimelineView {
                server: "shop".to_owned(),
                backups: Vec::new(),
                spans: Vec::new(),
                gaps: Vec::new(),
                fail_overs: Vec::new(),
                zero_loss: Vec::new(),
            }),
            flags: Arc::default(),
            reports: Vec::new(),
        };
        assert_eq!(reading(false, 1).age_max(50), AGE_MAX);
        assert_eq!(reading(false, 10).age_max(50), Duration::from_secs(150));
        assert_eq!(reading(false, 60_000).age_max(50), PACE_MAX);
        assert_eq!(
            reading(true, 60_000).age_max(50),
            AGE_MAX_UNTOLD,
            "a log that others write to is looked at"
        );
    }
}
