//! Stretches of the week in which no base is begun: `08:00-10:00`, `mon..fri 08:00-10:00`, `sat 22:00-02:00`.

use super::units::{Span, as_text};
use crate::time::Micros;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

const MINUTES_A_DAY: i64 = 24 * 60;
const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];

/// A time of day, to the minute.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct TimeOfDay {
    /// Minutes since midnight, below 1440.
    pub minute: u16,
}

impl FromStr for TimeOfDay {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match minutes(text) {
            Some(minute) if i64::from(minute) < MINUTES_A_DAY => Ok(Self { minute }),
            _ => Err(format!("'{text}' is not a time of day; write for example 02:00")),
        }
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02}:{:02}", self.minute / 60, self.minute % 60)
    }
}

/// A stretch of the day on some days of the week.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blackout {
    /// First and last day on which it begins, 0 is Monday.
    days: (u8, u8),
    /// Minute of the day at which it begins.
    from: u16,
    /// Minute at which it ends, up to 1440; not after `from`: on the next day.
    until: u16,
}

impl FromStr for Blackout {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            format!("'{text}' is not a blackout; write for example '08:00-10:00' or 'mon..fri 08:00-10:00'")
        };
        let (days, times) = match text.trim().rsplit_once(' ') {
            Some((days, times)) => (days.trim(), times),
            None => ("mon..sun", text.trim()),
        };
        let day = |name: &str| DAYS.iter().position(|d| *d == name.to_ascii_lowercase());
        let (first, last) = days.split_once("..").unwrap_or((days, days));
        let (first, last) = (day(first).ok_or_else(wrong)?, day(last).ok_or_else(wrong)?);
        let (from, until) = times.split_once('-').ok_or_else(wrong)?;
        let (from, until) = (minutes(from).ok_or_else(wrong)?, minutes(until).ok_or_else(wrong)?);
        if i64::from(from) >= MINUTES_A_DAY || from == until {
            return Err(wrong());
        }
        Ok(Self { days: (first as u8, last as u8), from, until })
    }
}

impl fmt::Display for Blackout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let day = |at: u8| DAYS.get(usize::from(at)).copied().unwrap_or("mon");
        let time = |minute: u16| format!("{:02}:{:02}", minute / 60, minute % 60);
        let (first, last) = self.days;
        match (first, last) {
            (0, 6) => {}
            _ if first == last => write!(f, "{} ", day(first))?,
            _ => write!(f, "{}..{} ", day(first), day(last))?,
        }
        write!(f, "{}-{}", time(self.from), time(self.until))
    }
}

as_text!(TimeOfDay);
as_text!(Blackout);

impl Blackout {
    /// Whether it begins on this day of the week, 0 is Monday. `fri..mon` goes round the weekend.
    fn begins_on(&self, day: u8) -> bool {
        let (first, last) = self.days;
        if first <= last { (first..=last).contains(&day) } else { day >= first || day <= last }
    }

    fn minutes(&self) -> i64 {
        let length = i64::from(self.until) - i64::from(self.from);
        if length > 0 { length } else { length + MINUTES_A_DAY }
    }
}

/// Minutes since midnight, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let (hours, minutes): (u16, u16) = (hours.parse().ok()?, minutes.parse().ok()?);
    (minutes < 60 && (hours < 24 || (hours == 24 && minutes == 0))).then_some(hours * 60 + minutes)
}

/// The stretch without a pause that `at` lies in: from its first moment to the first one after it.
pub(super) fn around(blackouts: &[Blackout], zone: &TimeZone, at: Micros) -> Option<(Micros, Micros)> {
    if blackouts.is_empty() {
        return None;
    }
    let today = date(zone, at)?;
    let on_days = |days: std::ops::RangeInclusive<i64>| {
        days.filter_map(|days| today.checked_add(days.days()).ok()).flat_map(|day| {
            let weekday = day.weekday().to_monday_zero_offset() as u8;
            blackouts.iter().filter(move |b| b.begins_on(weekday)).filter_map(move |b| {
                let from = moment(zone, day, i64::from(b.from))?;
                Some((from, moment(zone, day, i64::from(b.from) + b.minutes())?))
            })
        })
    };
    // None is longer than a day.
    if !on_days(-1..=0).any(|(from, until)| (from..until).contains(&at)) {
        return None;
    }
    // One that began eight days ago can only reach today through others, and those are merged here.
    let mut stretches: Vec<(Micros, Micros)> = on_days(-8..=8).collect();
    stretches.sort_unstable();
    let mut merged: Option<(Micros, Micros)> = None;
    for (from, until) in stretches {
        merged = match merged {
            Some((begin, end)) if from <= end => Some((begin, end.max(until))),
            Some((begin, end)) if (begin..end).contains(&at) => return Some((begin, end)),
            _ => Some((from, until)),
        };
    }
    merged.filter(|(begin, end)| (*begin..*end).contains(&at))
}

/// The first of these times of day after `after`.
pub(super) fn next_time_of_day(times: &[TimeOfDay], zone: &TimeZone, after: Micros) -> Option<Micros> {
    let today = date(zone, after)?;
    (0..=2)
        .filter_map(|days: i64| today.checked_add(days.days()).ok())
        .flat_map(|day| times.iter().filter_map(move |t| moment(zone, day, i64::from(t.minute))))
        .filter(|at| *at > after)
        .min()
}

/// The longest stretch without a pause, clock changes aside.
pub(super) fn longest(blackouts: &[Blackout]) -> Option<Span> {
    // A Monday; two weeks, so that a stretch that goes round the week is seen whole.
    let monday = jiff::civil::date(2024, 1, 1);
    let stretch = |minute: i64| {
        let at = moment(&TimeZone::UTC, monday, minute)?;
        around(blackouts, &TimeZone::UTC, at).map(|(from, until)| Span(until - from))
    };
    blackouts
        .iter()
        .flat_map(|b| (0..7).map(move |day| day * MINUTES_A_DAY + i64::from(b.from)))
        .filter_map(stretch)
        .max()
}

/// The local date.
pub(super) fn date(zone: &TimeZone, at: Micros) -> Option<Date> {
    Some(Timestamp::from_microsecond(at).ok()?.to_zoned(zone.clone()).date())
}

/// The moment of a local time, given as minutes after a day's midnight. A time that a clock change leaves out is the
/// moment of the change; of one that comes twice, the first.
pub(super) fn moment(zone: &TimeZone, day: Date, minute: i64) -> Option<Micros> {
    let local = DateTime::from_parts(day, Time::midnight()).checked_add(minute.minutes()).ok()?;
    Some(zone.to_ambiguous_timestamp(local).compatible().ok()?.as_microsecond())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::parse_time;

    fn at(text: &str) -> Micros {
        parse_time(text).unwrap()
    }

    #[test]
    fn a_blackout_is_found_with_both_ends_over_midnight_and_weekend() {
        let blackouts = ["mon..fri 08:00-10:00", "sat 22:00-02:00", "sun 02:00-03:00"]
            .map(|text| text.parse::<Blackout>().unwrap());
        let around = |text: &str| around(&blackouts, &TimeZone::UTC, at(text));
        // 2026-11-20 is a Friday.
        let friday = Some((at("2026-11-20T08:00:00Z"), at("2026-11-20T10:00:00Z")));
        assert_eq!(around("2026-11-20T08:00:00Z"), friday);
        assert_eq!(around("2026-11-20T09:59:59Z"), friday);
        assert_eq!(around("2026-11-20T10:00:00Z"), None);
        assert_eq!(around("2026-11-21T09:00:00Z"), None, "Saturday");
        // Two that touch are one.
        let night = Some((at("2026-11-21T22:00:00Z"), at("2026-11-22T03:00:00Z")));
        assert_eq!(around("2026-11-22T01:00:00Z"), night);
        assert_eq!(around("2026-11-22T02:30:00Z"), night);
        assert_eq!(longest(&blackouts), Some(Span::hours(5)));
    }

    #[test]
    fn blackouts_are_written_as_they_are_read_and_nonsense_is_refused() {
        for text in ["08:00-10:00", "mon..fri 08:00-10:00", "sat 22:00-02:00", "fri..mon 00:00-24:00"] {
            assert_eq!(text.parse::<Blackout>().unwrap().to_string(), text);
        }
        for wrong in ["", "08:00", "8-10", "noday 08:00-10:00", "08:00-08:00", "24:00-01:00", "25:00-26:00"] {
            assert!(wrong.parse::<Blackout>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_blackout_without_a_pause_is_as_long_as_the_search_reaches() {
        let always = ["00:00-24:00".parse::<Blackout>().unwrap()];
        assert!(longest(&always).unwrap() > Span::hours(24 * 7));
    }

    #[test]
    fn a_time_of_day_comes_once_a_day_through_clock_changes() {
        let Ok(zone) = TimeZone::get("Europe/Berlin") else { return };
        // 02:30 is left out on 2026-03-29, and comes twice on 2026-10-25.
        let times = ["02:30".parse::<TimeOfDay>().unwrap()];
        for (from, days) in [("2026-03-27T12:00:00Z", 4), ("2026-10-23T12:00:00Z", 4)] {
            let mut now = at(from);
            let mut dates = Vec::new();
            for _ in 0..days {
                now = next_time_of_day(&times, &zone, now).unwrap();
                dates.push(date(&zone, now).unwrap());
            }
            dates.dedup();
            assert_eq!(dates.len(), days, "{dates:?}");
        }
    }
}
