//! Policies: when the next base backup of a server is due, and what may be forgotten.
//!
//! Pure functions of (policy, what is known of the server, now): no clock, no repository, no I/O, so that years pass
//! in a test. `facts.rs` reads what they need from a repository; the daemon and `expire` call the same ones.

mod bandwidth;
mod blackout;
mod expiry;
mod facts;
mod retention;
mod schedule;
#[cfg(test)]
mod tests;
mod units;

pub use bandwidth::{Bandwidth, bandwidth_at, is_timezone};
pub use blackout::{Blackout, TimeOfDay};
pub use expiry::{ExpiryView, KeptView, expire, expiry};
pub use facts::{points_of, schedule_facts};
pub use retention::{Interval, Kept, LogNeed, Point, Reason, Retained, kept_until, retain, retain_all};
pub use schedule::{Next, RestoreTakes, ScheduleFacts, Taken, Why, next_base};
pub use units::{Bytes, Span};

use crate::error::{Error, Result};
use crate::time::Micros;
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};

/// One day.
pub const DAY: Span = Span::hours(24);

/// How a server is protected. Every value has a default; `Policy::default()` protects.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Policy {
    /// Longest time between the starts of two bases.
    pub max_age: Span,
    /// Times of day at which a base is due besides.
    pub at: Vec<TimeOfDay>,
    /// Zone of `at`, of `blackout`, and of the days, weeks, months and years of `keep`: an IANA name.
    pub timezone: String,
    /// A base is due when the log since the last one has reached this; 0: never for this reason.
    pub trigger_binlog: Bytes,
    /// A restore to the last moment is to take no longer than this; 0: nothing is said of that.
    pub rto: Span,
    /// A base is due when a restore would take longer than `rto`, and would not behind a new base.
    pub trigger_rto: bool,
    /// Most bases in 24 hours that the log or `rto` may ask for; 0: as many as they ask for.
    pub max_per_day: u32,
    /// What follows a base that failed.
    pub retry: Retry,
    /// No base is begun in these stretches. The stream never pauses.
    pub blackout: Vec<Blackout>,
    /// Any second of it is restorable, and so is the day before it; 0: everything is kept for ever.
    pub window: Span,
    /// Bases kept beyond the window.
    pub keep: Keep,
    /// How long a shorter window or a smaller `keep` waits before anything goes because of it.
    pub grace: Span,
    /// A random moment of the window is restored and proved so often; 0: never.
    pub drill: Span,
    /// A trust figure below this is an alert; 0: nothing is said of it.
    pub trust_min: u8,
}

/// What follows a base that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retry {
    /// Time to the next try, give or take a tenth.
    pub interval: Span,
    /// Tries before it is given up until the next day; 0: until one succeeds.
    pub max: u32,
}

/// Bases kept beyond the window: the first one of each of the last so many days, weeks, months, years that have one.
/// Absent: none for this reason; 0: of every one, for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Keep {
    /// The newest ones, whatever their age.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u32>,
    /// Days.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub daily: Option<u32>,
    /// Weeks, from Monday.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weekly: Option<u32>,
    /// Months.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub monthly: Option<u32>,
    /// Years.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub yearly: Option<u32>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_age: DAY,
            at: Vec::new(),
            timezone: "UTC".to_owned(),
            trigger_binlog: Bytes(50 << 30),
            rto: Span(0),
            trigger_rto: true,
            max_per_day: 6,
            retry: Retry::default(),
            blackout: Vec::new(),
            window: Span::hours(7 * 24),
            keep: Keep::default(),
            grace: DAY,
            drill: Span::hours(7 * 24),
            trust_min: 0,
        }
    }
}

impl Default for Retry {
    fn default() -> Self {
        Self { interval: Span::minutes(20), max: 0 }
    }
}

impl Policy {
    /// How long before `max_age` is over a base is begun: room for retries, at most an hour.
    #[must_use]
    pub fn lead(&self) -> Span {
        Span(Span::hours(1).0.min(self.max_age.0 / 8))
    }

    /// Whether `now` lies in one of its blackouts.
    #[must_use]
    pub fn is_blackout(&self, now: Micros) -> bool {
        blackout::around(&self.blackout, &self.zone(), now).is_some()
    }

    /// The zone; UTC when the name is unknown, which [`Policy::check`] refuses.
    pub(crate) fn zone(&self) -> TimeZone {
        TimeZone::get(&self.timezone).unwrap_or(TimeZone::UTC)
    }

    /// Refuses what can't be kept.
    ///
    /// # Errors
    /// `Usage` with the value and what to write instead. `name` is the policy's, for the message.
    pub fn check(&self, name: &str) -> Result<()> {
        let wrong = |what: String, next: &str| {
            Err(Error::usage(format!("The policy '{name}' can't be kept: {what}."))
                .with_next(next.to_owned()))
        };
        if self.max_age < Span::minutes(10) {
            return wrong(format!("max_age is {}", self.max_age), "use at least 10m");
        }
        if self.retry.interval < Span::seconds(1) || self.retry.interval > self.max_age {
            return wrong(
                format!("retry.interval is {}", self.retry.interval),
                "use at least 1s and at most max_age",
            );
        }
        if self.trust_min > 100 {
            return wrong(format!("trust_min is {}", self.trust_min), "use at most 100, or 0 for none");
        }
        if self.rto.0 != 0 && self.rto < Span::minutes(1) {
            return wrong(format!("rto is {}", self.rto), "use at least 1m, or 0 for none");
        }
        if self.window.0 != 0 && self.window < DAY {
            return wrong(format!("window is {}", self.window), "use at least 1d, or 0 to keep everything");
        }
        if TimeZone::get(&self.timezone).is_err() {
            return wrong(
                format!("the time zone '{}' is not known on this host", self.timezone),
                "use an IANA name such as Europe/Berlin, or UTC",
            );
        }
        if let Some(longest) = blackout::longest(&self.blackout)
            && longest.0 > self.max_age.0 / 2
        {
            return wrong(
                format!(
                    "a blackout lasts {longest}, and there is to be a base every {} at least",
                    self.max_age
                ),
                "shorten the blackout to at most half of max_age, or lengthen max_age",
            );
        }
        Ok(())
    }
}
