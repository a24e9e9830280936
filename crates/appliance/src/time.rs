//! Times as users write them and as they are shown.

use crate::error::{Error, Result};
use jiff::{Timestamp, tz::TimeZone};

/// Microseconds since 1970-01-01 00:00:00 UTC.
pub type Micros = i64;

/// Reads a TIME argument: RFC 3339 with a zone, for example `2026-11-21T14:03:07Z` or
/// `2026-11-21 15:03:07.250+01:00`.
///
/// A time without a zone is refused with both readings shown: a slip of one zone has
/// cost people a whole replay.
///
/// # Errors
/// `Usage` when the text is no time, or has no zone.
pub fn parse_time(text: &str) -> Result<Micros> {
    let text = text.trim();
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(at.as_microsecond());
    }
    if let Ok(civil) = text.parse::<jiff::civil::DateTime>() {
        let utc = civil.to_zoned(TimeZone::UTC).map(|z| z.timestamp().to_string());
        let local =
            civil.to_zoned(TimeZone::system()).map(|z| z.strftime("%Y-%m-%dT%H:%M:%S%:z").to_string());
        let mut next = "write the zone behind the time".to_string();
        if let (Ok(utc), Ok(local)) = (utc, local) {
            next = if local.ends_with("+00:00") {
                format!("write {utc} if you mean UTC")
            } else {
                format!("write {utc} if you mean UTC, or {local} for this host's zone")
            };
        }
        return Err(Error::usage(format!("The time '{text}' has no zone.")).with_next(next));
    }
    Err(Error::usage(format!("'{text}' is not a time."))
        .with_next("use RFC 3339 with a zone, for example 2026-11-21T14:03:07Z"))
}

/// Reads `--since` and `--until`: an RFC 3339 time, or an age such as `-10m`, `-2h`, `-7d`.
///
/// # Errors
/// `Usage` when it is neither.
pub fn parse_time_or_age(text: &str, now: Micros) -> Result<Micros> {
    if let Some(age) = text.trim().strip_prefix('-') {
        let split = age.find(|c: char| !c.is_ascii_digit()).unwrap_or(age.len());
        let (number, unit) = age.split_at(split);
        let unit_s: i64 = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => 86_400,
            "w" => 604_800,
            _ => 0,
        };
        let us = number.parse::<i64>().ok().and_then(|n| n.checked_mul(unit_s)?.checked_mul(1_000_000));
        if let Some(us) = us.filter(|_| unit_s > 0) {
            return Ok(now.saturating_sub(us));
        }
        return Err(Error::usage(format!("'{text}' is not an age."))
            .with_next("use a number with s, m, h, d or w, for example -10m"));
    }
    parse_time(text)
}

/// The time now.
pub fn now() -> Micros {
    Timestamp::now().as_microsecond()
}

/// A time as RFC 3339 in UTC with milliseconds, for example `2026-11-21T14:03:07.412Z`.
pub fn show_time(at: Micros) -> String {
    match Timestamp::from_microsecond(at) {
        Ok(at) => at.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string(),
        Err(_) => format!("{at} us"),
    }
}

/// A time for a person: UTC, and this host's zone behind it when that differs.
pub fn show_time_both(at: Micros) -> String {
    let utc = show_time(at);
    let Ok(stamp) = Timestamp::from_microsecond(at) else { return utc };
    let zoned = stamp.to_zoned(TimeZone::system());
    if zoned.offset().seconds() == 0 {
        return utc;
    }
    format!("{utc} ({})", zoned.strftime("%Y-%m-%d %H:%M:%S %Z"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_with_a_zone_is_read_exactly() {
        assert_eq!(parse_time("1970-01-01T00:00:01.5Z").unwrap(), 1_500_000);
        assert_eq!(parse_time("1970-01-01 01:00:00+01:00").unwrap(), 0);
    }

    #[test]
    fn a_time_without_a_zone_is_refused_and_the_answer_shows_both_readings() {
        let error = parse_time("2026-11-21 14:03:07").unwrap_err();
        assert_eq!(error.code, crate::error::Code::Usage);
        assert!(error.next.unwrap().contains("2026-11-21T14:03:07Z"));
    }

    #[test]
    fn an_age_counts_back_from_now() {
        assert_eq!(parse_time_or_age("-10m", 600_000_001).unwrap(), 1);
        assert!(parse_time_or_age("-10y", 0).is_err());
        assert!(parse_time_or_age("-99999999999999999w", 0).is_err());
    }

    #[test]
    fn shown_times_are_read_back() {
        assert_eq!(parse_time(&show_time(1_763_733_787_412_000)).unwrap(), 1_763_733_787_412_000);
    }
}
