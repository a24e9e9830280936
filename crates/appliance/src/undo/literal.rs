//! Values of the log as SQL that gives back the same bytes, in sessions as [`SESSION`] sets them.

use super::definition::ColumnDefinition;
use holdfast_binlog::columns::{Column, ColumnType};
use holdfast_binlog::json::Json;
use holdfast_restore::catalog::quoted_name;
use holdfast_restore::cell::{self, Cell};

/// What the statements need of their session: times in UTC, a value that does not fit is an error, zeroes in dates and
/// in `AUTO_INCREMENT` columns are what they are, backslashes too.
pub(crate) const SESSION: [&str; 2] = [
    "SET NAMES utf8mb4",
    "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES,NO_BACKSLASH_ESCAPES', \
     time_zone = '+00:00'",
];

/// A column of a table, as the log and the server know it.
#[derive(Clone, Copy)]
pub(crate) struct Typed<'a> {
    /// What the log knows, with the server's sign.
    pub column: Column,
    /// What the server knows.
    pub is: &'a ColumnDefinition,
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |nibble: u8| DIGITS.get(usize::from(nibble)).copied().unwrap_or('0');
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

impl Typed<'_> {
    /// The column's name between backticks.
    pub fn name(&self) -> String {
        quoted_name(&self.is.name)
    }

    /// The value as it is assigned. The error says what it is that has no SQL.
    pub fn literal(&self, bytes: Option<&[u8]>) -> std::result::Result<String, String> {
        use ColumnType as T;
        let Some(bytes) = bytes else { return Ok("NULL".to_owned()) };
        let stripped = self.column.width.strip(bytes);
        match self.column.kind {
            T::Char { .. } | T::VarChar { .. } | T::Blob { .. } => match &self.is.charset {
                Some(charset) => Ok(text(stripped, charset)),
                None => Ok(format!("x'{}'", hex(&self.padded(stripped)))),
            },
            // The bytes are the server's own form of a shape: its SRID and its WKB.
            T::Geometry { .. } | T::Vector { .. } => Ok(format!("x'{}'", hex(stripped))),
            T::Json { .. } => json(stripped),
            kind => self.plain(kind, bytes),
        }
    }

    /// A text with a character set; the values of ENUM and SET are numbers here.
    pub fn is_text(&self) -> bool {
        use ColumnType as T;
        self.is.charset.is_some()
            && matches!(self.column.kind, T::Char { .. } | T::VarChar { .. } | T::Blob { .. })
    }

    /// The value as it is written into a row. The error says what it is that can't be written.
    pub fn written(&self, bytes: Option<&[u8]>) -> std::result::Result<String, String> {
        let value = self.literal(bytes)?;
        match self.column.kind {
            ColumnType::Enum { .. } if value == "0" => {
                Err("the value 0, that of a word which the ENUM does not have".to_owned())
            }
            _ => Ok(value),
        }
    }

    fn plain(&self, kind: ColumnType, bytes: &[u8]) -> std::result::Result<String, String> {
        use ColumnType as T;
        let unreadable = || format!("a value of type {} that can't be read", self.is.data_type);
        match cell::decode(&self.column, self.is.unsigned, Some(bytes)).ok_or_else(unreadable)? {
            Cell::Null => Ok("NULL".to_owned()),
            // With all its digits, a FLOAT's too: so it is the same number again.
            Cell::Real(value) => Ok(format!("{value:e}")),
            Cell::Text(text) | Cell::Padded(text) => {
                let text = String::from_utf8(text).map_err(|_| unreadable())?;
                Ok(match kind {
                    T::Date | T::Time { .. } | T::DateTime { .. } => format!("'{text}'"),
                    T::Timestamp { .. } => format!("'{}'", utc(&text).ok_or_else(unreadable)?),
                    // As a number, 0 would be the year 2000.
                    T::Year => format!("'{text:0>4}'"),
                    _ => text,
                })
            }
        }
    }

    /// A BINARY value comes from the log without its trailing zeroes.
    fn padded(&self, bytes: &[u8]) -> Vec<u8> {
        let mut bytes = bytes.to_vec();
        if let ColumnType::Char { max } = self.column.kind {
            bytes.resize(bytes.len().max(usize::from(max)), 0);
        }
        bytes
    }

    /// A condition that is true for this very value, byte for byte.
    pub fn is_exactly(&self, bytes: Option<&[u8]>) -> std::result::Result<String, String> {
        use ColumnType as T;
        let name = self.name();
        let Some(bytes) = bytes else { return Ok(format!("{name} IS NULL")) };
        let stripped = self.column.width.strip(bytes);
        Ok(match self.column.kind {
            T::Char { .. } | T::VarChar { .. } | T::Blob { .. } if self.is.charset.is_some() => {
                format!("CAST({name} AS BINARY) <=> x'{}'", hex(stripped))
            }
            T::Geometry { .. } | T::Vector { .. } => {
                format!("HEX({name}) <=> '{}'", hex(stripped).to_uppercase())
            }
            // 1 and 1.0 are equal in JSON, and not the same.
            T::Json { .. } => {
                let value = self.literal(Some(bytes))?;
                format!("({name} <=> {value} AND CAST({name} AS CHAR) <=> CAST({value} AS CHAR))")
            }
            _ => format!("{name} <=> {}", self.literal(Some(bytes))?),
        })
    }

    /// A condition of a key's column: what its index finds.
    pub fn equals(&self, bytes: Option<&[u8]>) -> std::result::Result<String, String> {
        Ok(format!("{} = {}", self.name(), self.literal(bytes)?))
    }

    /// The value for a person.
    pub fn shown(&self, bytes: Option<&[u8]>) -> String {
        const CHARS_MAX: usize = 60;
        let text = self.literal(bytes).unwrap_or_else(|what| format!("({what})"));
        match text.char_indices().nth(CHARS_MAX) {
            Some((end, _)) => format!("{}...", text.get(..end).unwrap_or_default()),
            None => text,
        }
    }
}

/// A text in its character set: as it is where every reader reads it so, in hexadecimal digits else.
fn text(bytes: &[u8], charset: &str) -> String {
    let plain = |c: char| !c.is_control() && c != '\\';
    let unicode = matches!(charset, "utf8mb4" | "utf8mb3" | "utf8");
    match std::str::from_utf8(bytes) {
        Ok(text)
            if text.chars().all(plain)
                && (unicode || (text.is_ascii() && matches!(charset, "latin1" | "ascii"))) =>
        {
            format!("'{}'", text.replace('\'', "''"))
        }
        _ => format!("_{charset} x'{}'", hex(bytes)),
    }
}

/// Seconds of the epoch and their fraction as a time in UTC; the time that is none as it is.
fn utc(text: &str) -> Option<String> {
    let (seconds, fraction) = match text.split_once('.') {
        Some((seconds, fraction)) => (seconds, format!(".{fraction}")),
        None => (text, String::new()),
    };
    let seconds: i64 = seconds.parse().ok()?;
    if seconds == 0 {
        return Some(format!("0000-00-00 00:00:00{fraction}"));
    }
    let at = jiff::Timestamp::from_second(seconds).ok()?;
    Some(format!("{}{fraction}", at.strftime("%Y-%m-%d %H:%M:%S")))
}

/// A JSON value: its text where that reads as the same types, calls that make them else.
fn json(bytes: &[u8]) -> std::result::Result<String, String> {
    let value = Json::parse(bytes).map_err(|flaw| format!("a JSON value that can't be read {flaw}"))?;
    if reads_back(&value) {
        return Ok(format!("CAST({} AS JSON)", text(value.text().as_bytes(), "utf8mb4")));
    }
    let inner = made(&value)?;
    Ok(match value {
        Json::Array(_) | Json::Object(_) => inner,
        _ => format!("CAST({inner} AS JSON)"),
    })
}

/// Does the text of the value give the same types again? The server reads integers of up to 32 bits, and those below
/// zero, as signed, larger ones as unsigned.
fn reads_back(value: &Json) -> bool {
    match value {
        // The server reads a number with a fraction out of JSON less exactly than out of SQL.
        Json::Opaque { .. } | Json::Double(_) => false,
        Json::Int(value) => *value <= i64::from(u32::MAX),
        Json::Uint(value) => *value > u64::from(u32::MAX),
        Json::Array(items) => items.iter().all(reads_back),
        Json::Object(members) => members.iter().all(|(_, item)| reads_back(item)),
        _ => true,
    }
}

fn made(value: &Json) -> std::result::Result<String, String> {
    if reads_back(value) {
        return Ok(format!("CAST({} AS JSON)", text(value.text().as_bytes(), "utf8mb4")));
    }
    let all = |items: Vec<std::result::Result<String, String>>| -> std::result::Result<String, String> {
        Ok(items.into_iter().collect::<std::result::Result<Vec<_>, _>>()?.join(", "))
    };
    match value {
        Json::Int(value) => Ok(format!("CAST({value} AS SIGNED)")),
        Json::Uint(value) => Ok(format!("CAST({value} AS UNSIGNED)")),
        Json::Double(value) => Ok(format!("{value:e}")),
        Json::Array(items) => Ok(format!("JSON_ARRAY({})", all(items.iter().map(made).collect())?)),
        Json::Object(members) => {
            let member = |(name, item): &(String, Json)| {
                Ok(format!("{}, {}", text(name.as_bytes(), "utf8mb4"), made(item)?))
            };
            Ok(format!("JSON_OBJECT({})", all(members.iter().map(member).collect())?))
        }
        Json::Opaque { kind, data } => opaque(*kind, data)
            .ok_or_else(|| format!("a JSON value that holds one of the SQL type number {kind}")),
        _ => Err("a JSON value of no known type".to_owned()),
    }
}

/// A DECIMAL, DATE, TIME or DATETIME inside of JSON, as SQL that gives it.
fn opaque(kind: u8, data: &[u8]) -> Option<String> {
    let text = opaque_text(kind, data)?;
    match (kind, data) {
        (JSON_DECIMAL, [precision, scale, ..]) => {
            // A number as it is written has the digits that are written, one of a cast whole words of nine.
            let written = text.bytes().filter(u8::is_ascii_digit).count() == usize::from(*precision);
            Some(if written { text } else { format!("CAST({text} AS DECIMAL({precision}, {scale}))") })
        }
        (JSON_DATE, _) => Some(format!("CAST('{text}' AS DATE)")),
        (JSON_TIME, _) => Some(format!("CAST('{text}' AS TIME(6))")),
        _ => Some(format!("CAST('{text}' AS DATETIME(6))")),
    }
}

/// SQL types inside of JSON, by their numbers in the servers' protocol.
pub(crate) const JSON_DECIMAL: u8 = 246;
const JSON_DATE: u8 = 10;
const JSON_TIME: u8 = 11;
const JSON_DATETIME: u8 = 12;

/// The text of a DECIMAL, DATE, TIME or DATETIME inside of JSON.
pub(crate) fn opaque_text(kind: u8, data: &[u8]) -> Option<String> {
    if kind == JSON_DECIMAL {
        let (&[precision, scale], digits) = data.split_first_chunk::<2>()?;
        let column = Column {
            kind: ColumnType::Decimal { precision, scale },
            width: holdfast_binlog::columns::Width::Fixed(u16::try_from(digits.len()).ok()?),
            nullable: false,
            unsigned: None,
        };
        let Some(Cell::Text(text)) = cell::decode(&column, false, Some(digits)) else { return None };
        return String::from_utf8(text).ok();
    }
    let packed = i64::from_le_bytes(data.try_into().ok()?);
    let (whole, micros) = (packed.unsigned_abs() >> 24, packed.unsigned_abs() & 0xff_ffff);
    let clock = format!("{:02}:{:02}", whole >> 6 & 63, whole & 63);
    let (months, day) = (whole >> 22, whole >> 17 & 31);
    let date = format!("{:04}-{:02}-{day:02}", months / 13, months % 13);
    match kind {
        JSON_DATE => Some(date),
        JSON_TIME => {
            let sign = if packed < 0 { "-" } else { "" };
            Some(format!("{sign}{:02}:{clock}.{micros:06}", whole >> 12 & 1023))
        }
        JSON_DATETIME => Some(format!("{date} {:02}:{clock}.{micros:06}", whole >> 12 & 31)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_that_every_reader_reads_the_same_stay_texts() {
        assert_eq!(text(b"o'n", "utf8mb4"), "'o''n'");
        assert_eq!(text("\u{fc}".as_bytes(), "utf8mb4"), "'\u{fc}'");
        assert_eq!(text(b"\xfc", "latin1"), "_latin1 x'fc'");
        assert_eq!(text(b"a\\b", "utf8mb4"), "_utf8mb4 x'615c62'");
        assert_eq!(text(b"\0a", "utf16"), "_utf16 x'0061'");
    }

    #[test]
    fn json_keeps_the_types_that_its_text_would_lose() {
        let list = Json::Array(vec![Json::Uint(7), Json::Text("x".to_owned())]);
        assert!(!reads_back(&list));
        assert_eq!(made(&list).unwrap(), "JSON_ARRAY(CAST(7 AS UNSIGNED), CAST('\"x\"' AS JSON))");
        let decimal = |data: &[u8]| made(&Json::Opaque { kind: 246, data: data.to_vec() }).unwrap();
        assert_eq!(decimal(&[3, 2, 0x81, 25]), "1.25");
        assert_eq!(decimal(&[11, 2, 0x80, 0, 0, 1, 25]), "CAST(1.25 AS DECIMAL(11, 2))");
        assert!(made(&Json::Opaque { kind: 252, data: Vec::new() }).unwrap_err().contains("252"));
        let double = Json::Array(vec![Json::Double(9_088_544_342.689_999), Json::Double(1.0)]);
        assert_eq!(made(&double).unwrap(), "JSON_ARRAY(9.088544342689999e9, 1e0)");
        assert!(reads_back(&Json::Int(-1)) && !reads_back(&Json::Int(1 << 40)));
    }

    #[test]
    fn the_value_of_no_word_of_an_enum_is_compared_and_never_written() {
        let is = ColumnDefinition {
            name: "e".into(),
            data_type: "enum".into(),
            unsigned: false,
            charset: Some("utf8mb4".into()),
            collation: Some("utf8mb4_bin".into()),
            generated: false,
            on_update: false,
        };
        let column = Column {
            kind: ColumnType::Enum { bytes: 1 },
            width: holdfast_binlog::columns::Width::Fixed(1),
            nullable: true,
            unsigned: None,
        };
        let typed = Typed { column, is: &is };
        assert_eq!(typed.is_exactly(Some(&[0])).unwrap(), "`e` <=> 0");
        assert!(typed.written(Some(&[0])).unwrap_err().contains("the ENUM does not have"));
        assert_eq!(
            (typed.written(Some(&[1])).unwrap(), typed.written(None).unwrap()),
            ("1".into(), "NULL".into())
        );
    }

    #[test]
    fn times_are_written_in_utc() {
        assert_eq!(utc("1763733787.412").unwrap(), "2025-11-21 14:03:07.412");
        assert_eq!(utc("0.00").unwrap(), "0000-00-00 00:00:00.00");
    }
}
