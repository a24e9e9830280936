//! Spans of time and sizes as configuration files write them: `24h`, `20m`, `7d`, `50GiB`.

use crate::time::Micros;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use std::fmt;
use std::str::FromStr;

/// A span of time, microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub Micros);

impl Span {
    /// So many seconds.
    #[must_use]
    pub const fn seconds(n: i64) -> Self {
        Self(n * 1_000_000)
    }

    /// So many minutes.
    #[must_use]
    pub const fn minutes(n: i64) -> Self {
        Self::seconds(n * 60)
    }

    /// So many hours.
    #[must_use]
    pub const fn hours(n: i64) -> Self {
        Self::minutes(n * 60)
    }

    /// As the standard library has it; a span before now is none.
    #[must_use]
    pub fn duration(self) -> std::time::Duration {
        std::time::Duration::from_micros(u64::try_from(self.0).unwrap_or(0))
    }
}

/// Units from the coarsest to the finest, with their seconds.
const UNITS: [(&str, i64); 6] =
    [("y", 365 * 86_400), ("w", 7 * 86_400), ("d", 86_400), ("h", 3600), ("m", 60), ("s", 1)];

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a span of time; write for example 20m, 24h, 7d, or 0");
        let (number, unit) = split(text);
        let number: i64 = number.parse().map_err(|_| wrong())?;
        if number == 0 && unit.is_empty() {
            return Ok(Self(0));
        }
        let seconds = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, s)| *s).ok_or_else(wrong)?;
        number
            .checked_mul(seconds)
            .and_then(|s| s.checked_mul(1_000_000))
            // A century is as good as for ever, and sums of a few don't overflow.
            .filter(|&us| us <= 100 * 365 * 86_400 * 1_000_000)
            .map(Self)
            .ok_or_else(wrong)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0 / 1_000_000;
        // Weeks and years are read, and written in days.
        let days_and_finer = UNITS.iter().skip(2);
        match days_and_finer.into_iter().find(|(_, unit)| seconds != 0 && seconds % unit == 0) {
            Some((name, unit)) => write!(f, "{}{name}", seconds / unit),
            None => f.write_str("0"),
        }
    }
}

/// A size, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Bytes(pub u64);

const SIZES: [(&str, u32); 5] = [("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10), ("B", 0)];

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("'{text}' is not a size; write for example 64MiB, 50GiB, or 0");
        let (number, unit) = split(text);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        if number == 0 && unit.is_empty() {
            return Ok(Self(0));
        }
        let shift = SIZES.iter().find(|(name, _)| *name == unit).map(|(_, s)| *s).ok_or_else(wrong)?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(wrong)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIZES.iter().find(|(_, shift)| self.0 != 0 && self.0.is_multiple_of(1 << shift)) {
            Some((name, shift)) => write!(f, "{}{name}", self.0 >> shift),
            None => f.write_str("0"),
        }
    }
}

/// The digits in front, and the unit behind them.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let at = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(at);
    (number, unit.trim_start())
}

macro_rules! as_text {
    ($type:ty) => {
        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, out: S) -> Result<S::Ok, S::Error> {
                out.collect_str(self)
            }
        }
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                /// `0` may be written as a number.
                #[derive(Deserialize)]
                #[serde(untagged)]
                enum Written {
                    Number(u64),
                    Text(String),
                }
                let text = match Written::deserialize(from)? {
                    Written::Number(number) => number.to_string(),
                    Written::Text(text) => text,
                };
                text.parse().map_err(de::Error::custom)
            }
        }
    };
}
pub(super) use as_text;

as_text!(Span);
as_text!(Bytes);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_and_sizes_are_written_as_they_are_read() {
        for text in ["0", "20m", "24h", "90s", "7d", "3650d"] {
            let span: Span = text.parse().unwrap();
            assert_eq!(span.to_string().parse::<Span>().unwrap(), span, "{text}");
        }
        assert_eq!("24h".parse::<Span>().unwrap(), "1d".parse().unwrap());
        assert_eq!("10y".parse::<Span>().unwrap().to_string(), "3650d");
        assert_eq!("50GiB".parse::<Bytes>().unwrap(), Bytes(50 << 30));
        assert_eq!(Bytes(64 << 20).to_string(), "64MiB");
        for wrong in ["", "h", "7", "-1d", "7 days", "99999999999y"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
        assert!("50GB".parse::<Bytes>().is_err());
        assert!("99999999999999TiB".parse::<Bytes>().is_err());
    }
}
