//! How fast backups may read, by hour: `50MiB/s`, `08:00-18:00 50MiB/s`, `mon..fri 08:00-18:00 50MiB/s`.

use super::blackout::{Blackout, around};
use super::units::{Bytes, as_text};
use crate::time::Micros;
use jiff::tz::TimeZone;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// Slowest that may be asked for: a server gives a reader up that is much slower.
const SLOWEST: u64 = 1 << 20;

/// A limit, at all times or in a stretch of the day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bandwidth {
    /// When it holds; at all times without it.
    when: Option<Blackout>,
    /// Bytes a second.
    rate: Bytes,
}

impl FromStr for Bandwidth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("'{text}' is no limit; write for example '50MiB/s' or 'mon..fri 08:00-18:00 50MiB/s'");
        let (when, rate) = match text.trim().rsplit_once(' ') {
            Some((when, rate)) => (Some(when.trim().parse().map_err(|_| wrong())?), rate),
            None => (None, text.trim()),
        };
        let rate: Bytes = rate.strip_suffix("/s").ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
        if rate.0 < SLOWEST {
            return Err(format!("'{text}' is too slow: a server gives such a reader up; use 1MiB/s or more"));
        }
        Ok(Self { when, rate })
    }
}

impl fmt::Display for Bandwidth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(when) = &self.when {
            write!(f, "{when} ")?;
        }
        write!(f, "{}/s", self.rate)
    }
}

as_text!(Bandwidth);

/// Bytes a second at this moment, by the smallest limit that holds; `None`: as fast as it goes. An unknown zone is UTC.
#[must_use]
pub fn bandwidth_at(limits: &[Bandwidth], timezone: &str, at: Micros) -> Option<u64> {
    let zone = TimeZone::get(timezone).unwrap_or(TimeZone::UTC);
    let holds = |limit: &&Bandwidth| limit.when.is_none_or(|when| around(&[when], &zone, at).is_some());
    limits.iter().filter(holds).map(|limit| limit.rate.0).min()
}

/// Whether the zone is known on this host.
#[must_use]
pub fn is_timezone(name: &str) -> bool {
    TimeZone::get(name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_time;

    #[test]
    fn the_smallest_limit_of_the_hour_holds_in_its_zone() {
        let limits: Vec<Bandwidth> = ["200MiB/s", "mon..fri 08:00-18:00 50MiB/s", "22:00-02:00 80MiB/s"]
            .iter()
            .map(|text| text.parse().unwrap())
            .collect();
        for (time, zone, mib) in [
            // A Monday.
            ("2026-11-23T07:59:59Z", "UTC", 200),
            ("2026-11-23T08:00:00Z", "UTC", 50),
            ("2026-11-23T17:59:59Z", "UTC", 50),
            ("2026-11-23T18:00:00Z", "UTC", 200),
            ("2026-11-23T07:30:00Z", "Europe/Berlin", 50),
            ("2026-11-22T09:00:00Z", "UTC", 200),
            ("2026-11-23T23:00:00Z", "UTC", 80),
            ("2026-11-24T01:59:00Z", "UTC", 80),
        ] {
            let at = parse_time(time).unwrap();
            assert_eq!(bandwidth_at(&limits, zone, at), Some(mib << 20), "{time} {zone}");
        }
        assert_eq!(bandwidth_at(&limits[1..2], "UTC", parse_time("2026-11-22T09:00:00Z").unwrap()), None);
        assert_eq!(limits[1].to_string(), "mon..fri 08:00-18:00 50MiB/s");
        for wrong in ["", "50MiB", "fast", "08:00-18:00", "xyz 08:00-18:00 50MiB/s", "1KiB/s", "0/s"] {
            assert!(wrong.parse::<Bandwidth>().is_err(), "{wrong}");
        }
    }
}
