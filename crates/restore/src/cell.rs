//! A value of a row image beside the same value as the server prints it.
//!
//! The proof reads rows back with expressions that make the comparison exact: numbers as numbers,
//! texts as their stored bytes (the session's character set is `binary`), times in UTC. Types for
//! which there is no such expression are not compared, and the report counts them.
//!
//! Image layouts are MySQL's row format (field `pack` functions), as observed on MySQL 9.7.4 and
//! MariaDB 10.11.

use std::fmt::Write as _;

use holdfast_binlog::columns::{Column, ColumnType};

/// A value taken out of a row image.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// NULL.
    Null,
    /// The text that the server prints.
    Text(Vec<u8>),
    /// A text of a fixed length, which is compared without its padding.
    Padded(Vec<u8>),
    /// A number with a fraction.
    Real(f64),
}

/// The expression that prints column `name` (quoted) so that it can be compared; none if it can't be.
#[must_use]
pub fn expression(kind: ColumnType, name: &str) -> Option<String> {
    use ColumnType as T;
    Some(match kind {
        T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong | T::Year => format!("{name} + 0"),
        T::Bit { .. } | T::Enum { .. } | T::Set { .. } => format!("{name} + 0"),
        // A FLOAT is printed with six digits, a DOUBLE with all.
        T::Float => format!("CAST({name} AS DOUBLE)"),
        T::Double | T::Decimal { .. } | T::Date | T::Time { .. } | T::DateTime { .. } => name.to_owned(),
        T::Timestamp { .. } => format!("UNIX_TIMESTAMP({name})"),
        T::Char { .. } | T::VarChar { .. } | T::Blob { .. } | T::Geometry { .. } => name.to_owned(),
        _ => return None,
    })
}

/// Reads one cell of an image, its length prefix included. `None` where `expression` gives none,
/// or where the bytes are no value of the type.
#[must_use]
pub fn decode(column: &Column, unsigned: bool, cell: Option<&[u8]>) -> Option<Cell> {
    use ColumnType as T;
    let Some(cell) = cell else { return Some(Cell::Null) };
    let bytes = column.width.strip(cell);
    let text = |text: String| Some(Cell::Text(text.into_bytes()));
    match column.kind {
        T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong => {
            let value = little(bytes)?;
            let bits = u32::try_from(bytes.len() * 8).ok()?;
            if unsigned { text(value.to_string()) } else { text(sign_extended(value, bits).to_string()) }
        }
        T::Year => {
            let year = u16::from(*bytes.first()?);
            text(if year == 0 { "0".to_owned() } else { (1900 + year).to_string() })
        }
        T::Bit { .. } => text(big(bytes)?.to_string()),
        T::Enum { .. } | T::Set { .. } => text(little(bytes)?.to_string()),
        T::Float => Some(Cell::Real(f64::from(f32::from_le_bytes(*bytes.first_chunk()?)))),
        T::Double => Some(Cell::Real(f64::from_le_bytes(*bytes.first_chunk()?))),
        T::Decimal { precision, scale } => text(decimal(bytes, precision, scale)?),
        T::Date => {
            let date = little(bytes)?;
            text(format!("{:04}-{:02}-{:02}", date >> 9, date >> 5 & 15, date & 31))
        }
        T::Time { fraction } => text(time(bytes, fraction)?),
        T::DateTime { fraction } => text(datetime(bytes, fraction)?),
        T::Timestamp { fraction } => {
            let (seconds, rest) = bytes.split_at_checked(4)?;
            text(format!("{}{}", big(seconds)?, fraction_text(rest, fraction)?))
        }
        T::Char { .. } => Some(Cell::Padded(bytes.to_vec())),
        T::VarChar { .. } | T::Blob { .. } | T::Geometry { .. } => Some(Cell::Text(bytes.to_vec())),
        _ => None,
    }
}

impl Cell {
    /// True if the server printed this value.
    #[must_use]
    pub fn is(&self, printed: Option<&[u8]>) -> bool {
        match (self, printed) {
            (Self::Null, None) => true,
            (Self::Text(expected), Some(found)) => expected == found,
            (Self::Padded(expected), Some(found)) => trimmed(expected) == trimmed(found),
            (Self::Real(expected), Some(found)) => {
                let found = std::str::from_utf8(found).ok().and_then(|text| text.trim().parse::<f64>().ok());
                found.is_some_and(|found| found == *expected)
            }
            _ => false,
        }
    }

    /// The value as a literal that the column can be compared with: a key in a WHERE clause.
    /// `charset` is the column's, for texts. None for a value that can't be written so.
    #[must_use]
    pub fn literal(&self, kind: ColumnType, charset: Option<&str>) -> Option<String> {
        use ColumnType as T;
        match self {
            Self::Null | Self::Real(_) => None,
            Self::Text(bytes) | Self::Padded(bytes) => match kind {
                T::Char { .. } | T::VarChar { .. } | T::Blob { .. } => {
                    let introducer = charset.map(|name| format!("_{name} ")).unwrap_or_default();
                    Some(format!("{introducer}x'{}'", hex(bytes)))
                }
                T::Date | T::Time { .. } | T::DateTime { .. } => {
                    Some(format!("'{}'", std::str::from_utf8(bytes).ok()?))
                }
                // The time that is none is no time after the epoch.
                T::Timestamp { .. } if bytes.iter().all(|byte| matches!(byte, b'0' | b'.')) => {
                    Some("'0000-00-00 00:00:00'".to_owned())
                }
                T::Timestamp { .. } => Some(format!("FROM_UNIXTIME({})", std::str::from_utf8(bytes).ok()?)),
                T::Geometry { .. } => None,
                _ => Some(std::str::from_utf8(bytes).ok()?.to_owned()),
            },
        }
    }
}

fn trimmed(bytes: &[u8]) -> &[u8] {
    let padding = |byte: &u8| matches!(byte, b' ' | 0);
    let kept = bytes.iter().rposition(|byte| !padding(byte)).map_or(0, |last| last + 1);
    bytes.get(..kept).unwrap_or_default()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

fn little(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn big(bytes: &[u8]) -> Option<u64> {
    (bytes.len() <= 8).then(|| bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

fn sign_extended(value: u64, bits: u32) -> i64 {
    let unused = 64_u32.saturating_sub(bits).min(63);
    ((value << unused) as i64) >> unused
}

/// `.` and the digits of a fraction, kept in hundredths by byte: two digits a byte, the last one
/// padded to an even number.
fn fraction_text(bytes: &[u8], digits: u8) -> Option<String> {
    fraction_of(big(bytes)?, digits)
}

fn fraction_of(value: u64, digits: u8) -> Option<String> {
    if digits == 0 {
        return Some(String::new());
    }
    let even = usize::from(digits.div_ceil(2)) * 2;
    let all = format!("{value:0even$}");
    Some(format!(".{}", all.get(..usize::from(digits))?))
}

/// Three bytes and the fraction's, one big-endian number, its middle value zero: 10 bits hours, 6 minutes, 6 seconds, and
/// the fraction as `fraction_text` has it.
fn time(bytes: &[u8], fraction: u8) -> Option<String> {
    let fraction_bits = u32::from(fraction.div_ceil(2)) * 8;
    let middle = 0x80_0000_i64 << fraction_bits;
    let value = i64::try_from(big(bytes)?).ok()? - middle;
    let (whole, rest) =
        (value.unsigned_abs() >> fraction_bits, value.unsigned_abs() & ((1 << fraction_bits) - 1));
    let sign = if value < 0 { "-" } else { "" };
    Some(format!(
        "{sign}{:02}:{:02}:{:02}{}",
        whole >> 12 & 1023,
        whole >> 6 & 63,
        whole & 63,
        fraction_of(rest, fraction)?
    ))
}

/// Five bytes, big endian, the sign bit set: 17 bits year * 13 + month, 5 day, 5 hour, 6 minute, 6 second.
fn datetime(bytes: &[u8], fraction: u8) -> Option<String> {
    let (whole, rest) = bytes.split_at_checked(5)?;
    let packed = big(whole)?.checked_sub(0x80_0000_0000)?;
    let (date, time) = (packed >> 17, packed & 0x1_ffff);
    let (months, day) = (date >> 5, date & 31);
    Some(format!(
        "{:04}-{:02}-{day:02} {:02}:{:02}:{:02}{}",
        months / 13,
        months % 13,
        time >> 12,
        time >> 6 & 63,
        time & 63,
        fraction_text(rest, fraction)?
    ))
}

/// Groups of nine digits in four bytes, the odd ones of the integer part first and those of the
/// fraction last, in as few bytes as hold them; the first bit is flipped, and all of a negative number.
fn decimal(bytes: &[u8], precision: u8, scale: u8) -> Option<String> {
    const BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    let negative = bytes.first()? & 0x80 == 0;
    let mut plain: Vec<u8> = bytes.iter().map(|byte| if negative { !byte } else { *byte }).collect();
    *plain.first_mut()? ^= 0x80;
    let whole = usize::from(precision.checked_sub(scale)?);
    let scale = usize::from(scale);
    let mut rest = plain.as_slice();
    let mut take = |digits: usize| -> Option<String> {
        let (group, after) = rest.split_at_checked(*BYTES.get(digits)?)?;
        rest = after;
        Some(format!("{:0digits$}", big(group)?))
    };
    let mut text = String::new();
    if whole % 9 > 0 {
        text.push_str(&take(whole % 9)?);
    }
    for _ in 0..whole / 9 {
        text.push_str(&take(9)?);
    }
    let kept = text.trim_start_matches('0');
    let mut text = if kept.is_empty() { "0".to_owned() } else { kept.to_owned() };
    if scale > 0 {
        text.push('.');
        for _ in 0..scale / 9 {
            text.push_str(&take(9)?);
        }
        if scale % 9 > 0 {
            text.push_str(&take(scale % 9)?);
        }
    }
    let zero = text.bytes().all(|byte| matches!(byte, b'0' | b'.'));
    Some(if negative && !zero { format!("-{text}") } else { text })
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_binlog::columns::Width;

    fn column(kind: ColumnType, width: Width) -> Column {
        Column { kind, width, nullable: true, unsigned: None }
    }

    fn text(kind: ColumnType, unsigned: bool, bytes: &[u8]) -> String {
        let width = Width::Fixed(bytes.len() as u16);
        match decode(&column(kind, width), unsigned, Some(bytes)).unwrap() {
            Cell::Text(text) => String::from_utf8(text).unwrap(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_keep_their_sign_or_have_none() {
        assert_eq!(text(ColumnType::Tiny, false, &[0xff]), "-1");
        assert_eq!(text(ColumnType::Tiny, true, &[0xff]), "255");
        assert_eq!(text(ColumnType::Int24, false, &[0, 0, 0x80]), "-8388608");
        assert_eq!(text(ColumnType::LongLong, false, &[0xff; 8]), "-1");
        assert_eq!(text(ColumnType::LongLong, true, &[0xff; 8]), "18446744073709551615");
        assert_eq!(text(ColumnType::Bit { bits: 12 }, false, &[0x0a, 0xbc]), "2748");
    }

    #[test]
    fn decimals_are_read_as_the_manual_packs_them() {
        // The manual's example: 1234567890.1234 as DECIMAL(14,4).
        let bytes = [0x81, 0x0d, 0xfb, 0x38, 0xd2, 0x04, 0xd2];
        let kind = ColumnType::Decimal { precision: 14, scale: 4 };
        assert_eq!(text(kind, false, &bytes), "1234567890.1234");
        let minus: Vec<u8> = bytes.iter().map(|byte| !byte).collect();
        assert_eq!(text(kind, false, &minus), "-1234567890.1234");
        assert_eq!(text(ColumnType::Decimal { precision: 3, scale: 0 }, false, &[0x80, 0]), "0");
    }

    #[test]
    fn times_are_read_with_their_fractions() {
        // 2026-11-21 14:03:07.412 as DATETIME(3).
        let packed: u64 = ((2026 * 13 + 11) << 5 | 21) << 17 | 14 << 12 | 3 << 6 | 7;
        let mut bytes = (packed + 0x80_0000_0000).to_be_bytes()[3..].to_vec();
        bytes.extend_from_slice(&4120_u16.to_be_bytes());
        assert_eq!(text(ColumnType::DateTime { fraction: 3 }, false, &bytes), "2026-11-21 14:03:07.412");
        let mut bytes = 1_763_733_787_u32.to_be_bytes().to_vec();
        bytes.extend_from_slice(&[0x06, 0x49, 0x60]);
        assert_eq!(text(ColumnType::Timestamp { fraction: 6 }, false, &bytes), "1763733787.412000");
        // As MySQL 9.7.4 logs '-12:34:56', '-00:00:00.5' as TIME(3), '838:59:59'.
        assert_eq!(text(ColumnType::Time { fraction: 0 }, false, &[0x7f, 0x37, 0x48]), "-12:34:56");
        let half = [0x7f, 0xff, 0xff, 0xec, 0x78];
        assert_eq!(text(ColumnType::Time { fraction: 3 }, false, &half), "-00:00:00.500");
        assert_eq!(text(ColumnType::Time { fraction: 0 }, false, &[0xb4, 0x6e, 0xfb]), "838:59:59");
        let date: u32 = 2026 << 9 | 11 << 5 | 21;
        assert_eq!(text(ColumnType::Date, false, &date.to_le_bytes()[..3]), "2026-11-21");
    }

    #[test]
    fn floats_are_compared_as_numbers_and_padding_does_not_count() {
        let float =
            decode(&column(ColumnType::Float, Width::Fixed(4)), false, Some(&0.1_f32.to_le_bytes())).unwrap();
        assert!(float.is(Some(b"0.10000000149011612")) && !float.is(Some(b"0.1")));
        let padded =
            decode(&column(ColumnType::Char { max: 5 }, Width::Prefixed(1)), false, Some(b"\x02ab")).unwrap();
        assert!(padded.is(Some(b"ab   ")) && padded.is(Some(b"ab\0")) && !padded.is(Some(b"abc")));
        assert!(Cell::Null.is(None) && !Cell::Null.is(Some(b"")) && !Cell::Text(Vec::new()).is(None));
    }

    #[test]
    fn keys_are_written_so_that_no_byte_of_theirs_is_sql() {
        let cell = Cell::Text(b"o'n".to_vec());
        let kind = ColumnType::VarChar { max: 40 };
        assert_eq!(cell.literal(kind, Some("utf8mb4")).unwrap(), "_utf8mb4 x'6f276e'");
        assert_eq!(cell.literal(kind, None).unwrap(), "x'6f276e'");
        assert_eq!(Cell::Text(b"12".to_vec()).literal(ColumnType::Long, None).unwrap(), "12");
    }

    #[test]
    fn cut_cells_are_no_values() {
        for kind in [ColumnType::Double, ColumnType::Year, ColumnType::DateTime { fraction: 0 }] {
            assert_eq!(decode(&column(kind, Width::Fixed(0)), false, Some(&[])), None);
        }
        assert_eq!(
            decode(&column(ColumnType::Json { length_bytes: 4 }, Width::Prefixed(4)), false, Some(&[0; 4])),
            None
        );
    }
}
