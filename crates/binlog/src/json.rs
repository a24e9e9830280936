//! MySQL's binary JSON, as it stands in a cell of a row: an offset-based tree.
//!
//! The layout is that of MySQL's `json_binary.h`, observed on logs of MySQL 9.7.4. MariaDB keeps JSON as text.

use std::fmt::Write as _;

use crate::bytes::{Cursor, le};
use crate::error::Flaw;

/// Deepest nesting: MySQL stops at 100.
const DEPTH_MAX: u32 = 101;

/// A JSON value with the types that the server keeps apart.
#[derive(Debug, Clone, PartialEq)]
pub enum Json {
    /// `null`.
    Null,
    /// `true`, `false`.
    Bool(bool),
    /// An integer with a sign.
    Int(i64),
    /// An integer without a sign.
    Uint(u64),
    /// A number with an exponent.
    Double(f64),
    /// A text.
    Text(String),
    /// A value of an SQL type that JSON has not.
    Opaque {
        /// The type's number in the servers' protocol: 246 DECIMAL, 10 DATE, 11 TIME, 12 DATETIME, ..
        kind: u8,
        /// Its bytes.
        data: Vec<u8>,
    },
    /// A list.
    Array(Vec<Json>),
    /// Names with values, in the order of the bytes.
    Object(Vec<(String, Json)>),
}

impl Json {
    /// Reads the value of a cell, without its length prefix. Offsets in errors are those in the value.
    ///
    /// # Errors
    /// Fails on bytes that no server writes.
    pub fn parse(bytes: &[u8]) -> Result<Self, Flaw> {
        let Some((kind, rest)) = bytes.split_first() else {
            // What NULL turns into in a NOT NULL column.
            return Ok(Self::Null);
        };
        // A value's parts lie side by side: together they are no longer than the whole.
        let mut reader = Reader { budget: bytes.len() };
        reader.value(*kind, rest, 0)
    }

    /// As the server prints it; opaque values as their text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Null => write!(out, "null"),
            Self::Bool(value) => write!(out, "{value}"),
            Self::Int(value) => write!(out, "{value}"),
            Self::Uint(value) => write!(out, "{value}"),
            Self::Double(value) => write!(out, "{value:?}"),
            Self::Text(text) => {
                quote(text, out);
                Ok(())
            }
            Self::Opaque { kind, data } => write!(out, "\"(type {kind}, {} bytes)\"", data.len()),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    item.write(out);
                }
                out.push(']');
                Ok(())
            }
            Self::Object(members) => {
                out.push('{');
                for (i, (name, item)) in members.iter().enumerate() {
                    if i > 0 {
                        out.push_str(", ");
                    }
                    quote(name, out);
                    out.push_str(": ");
                    item.write(out);
                }
                out.push('}');
                Ok(())
            }
        };
    }
}

fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if u32::from(c) < 0x20 => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

struct Reader {
    /// Bytes that parts may still claim.
    budget: usize,
}

impl Reader {
    fn claim(&mut self, bytes: usize, at: &Cursor<'_>) -> Result<(), Flaw> {
        match self.budget.checked_sub(bytes) {
            Some(left) => {
                self.budget = left;
                Ok(())
            }
            None => Err(at.flaw("parts of JSON that lie side by side", "some that overlap")),
        }
    }

    /// The value of this type that begins at the front of `bytes`.
    fn value(&mut self, kind: u8, bytes: &[u8], depth: u32) -> Result<Json, Flaw> {
        let mut c = Cursor::new(bytes);
        self.claim(1, &c)?;
        if depth > DEPTH_MAX {
            return Err(c.flaw("JSON of at most 100 levels", "more"));
        }
        match kind {
            0..=3 => self.container(kind, bytes, depth),
            4 => literal(c.u8("a literal of JSON")?, &c),
            5 => Ok(Json::Int(i64::from(c.u16("a number of JSON")? as i16))),
            6 => Ok(Json::Uint(u64::from(c.u16("a number of JSON")?))),
            7 => Ok(Json::Int(i64::from(c.u32("a number of JSON")? as i32))),
            8 => Ok(Json::Uint(u64::from(c.u32("a number of JSON")?))),
            9 => Ok(Json::Int(c.u64("a number of JSON")? as i64)),
            10 => Ok(Json::Uint(c.u64("a number of JSON")?)),
            11 => Ok(Json::Double(f64::from_bits(c.u64("a number of JSON")?))),
            12 => {
                let len = length(&mut c)?;
                let text = c.take(len, "a text of JSON")?;
                self.claim(len, &c)?;
                text_of(text, &c).map(Json::Text)
            }
            15 => {
                let kind = c.u8("the type of an opaque value of JSON")?;
                let len = length(&mut c)?;
                let data = c.take(len, "an opaque value of JSON")?;
                self.claim(len, &c)?;
                Ok(Json::Opaque { kind, data: data.to_vec() })
            }
            other => Err(c.flaw("a type of JSON", other)),
        }
    }

    /// Count and size, for each name offset and length, for each value type and offset (or the value
    /// itself if it is that short), then names and values. Offsets count from the count.
    fn container(&mut self, kind: u8, bytes: &[u8], depth: u32) -> Result<Json, Flaw> {
        let wide = if kind & 1 == 1 { 4 } else { 2 };
        let mut c = Cursor::new(bytes);
        let count = c.uint(wide, "the number of parts of JSON")? as usize;
        let size = c.uint(wide, "the size of JSON")? as usize;
        let Some(whole) = bytes.get(..size) else {
            return Err(c.flaw("JSON as long as it says", format!("{} of {size} bytes", bytes.len())));
        };
        let mut c = Cursor::new(whole);
        c.take(2 * wide, "the front of JSON")?;
        let is_object = kind < 2;
        let mut names = Vec::new();
        if is_object {
            for _ in 0..count {
                let at = c.uint(wide, "the place of a name in JSON")? as usize;
                let len = c.u16("the length of a name in JSON")?;
                self.claim(usize::from(len), &c)?;
                let name = at.checked_add(usize::from(len)).and_then(|end| whole.get(at..end));
                let name = name.ok_or_else(|| c.flaw("a name within its JSON", at))?;
                names.push(text_of(name, &c)?);
            }
        }
        let mut values = Vec::new();
        for _ in 0..count {
            let kind = c.u8("a type of JSON")?;
            let slot = c.take(wide, "the place of a value in JSON")?;
            let inline = matches!(kind, 4..=6) || (wide == 4 && matches!(kind, 7 | 8));
            let value = if inline {
                slot
            } else {
                let at = usize::try_from(le(slot)).unwrap_or(usize::MAX);
                whole.get(at..).ok_or_else(|| c.flaw("a value within its JSON", at))?
            };
            values.push(self.value(kind, value, depth + 1)?);
        }
        Ok(if is_object {
            Json::Object(names.into_iter().zip(values).collect())
        } else {
            Json::Array(values)
        })
    }
}

fn literal(code: u8, c: &Cursor<'_>) -> Result<Json, Flaw> {
    match code {
        0 => Ok(Json::Null),
        1 => Ok(Json::Bool(true)),
        2 => Ok(Json::Bool(false)),
        other => Err(c.flaw("a literal of JSON", other)),
    }
}

/// Seven bits a byte, the lowest first; the high bit says that more follow.
fn length(c: &mut Cursor<'_>) -> Result<usize, Flaw> {
    let mut value = 0u64;
    for shift in 0..5 {
        let byte = c.u8("a length in JSON")?;
        value |= u64::from(byte & 0x7f) << (7 * shift);
        if byte & 0x80 == 0 {
            return Ok(usize::try_from(value).unwrap_or(usize::MAX));
        }
    }
    Err(c.flaw("a length of at most five bytes in JSON", "more"))
}

fn text_of(bytes: &[u8], c: &Cursor<'_>) -> Result<String, Flaw> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|error| c.flaw("a text of JSON in UTF-8", error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_object_as_mysql_logs_it() {
        // {"a": 1, "bb": [true, "x"]} as MySQL 9.7.4 logs it.
        let bytes = [
            &[0, 2, 0, 33, 0][..],
            &[18, 0, 1, 0, 19, 0, 2, 0],
            &[5, 1, 0, 2, 21, 0],
            b"abb",
            &[2, 0, 12, 0, 4, 1, 0, 12, 10, 0, 1, b'x'],
        ]
        .concat();
        let json = Json::parse(&bytes).unwrap();
        assert_eq!(json.text(), r#"{"a": 1, "bb": [true, "x"]}"#);
        for cut in 1..bytes.len() {
            assert!(Json::parse(&bytes[..cut]).is_err(), "{cut}");
        }
    }

    #[test]
    fn texts_and_numbers_print_as_json_that_reads_the_same() {
        let values = Json::Array(vec![
            Json::Double(1.0),
            Json::Double(1e300),
            Json::Int(-5),
            Json::Uint(u64::MAX),
            Json::Text("a\"\\\n\u{1}\u{fc}".to_owned()),
        ]);
        assert_eq!(values.text(), "[1.0, 1e300, -5, 18446744073709551615, \"a\\\"\\\\\\n\\u0001\u{fc}\"]");
    }

    #[test]
    fn parts_that_overlap_are_refused_before_they_multiply() {
        // Arrays whose two values are both the same array behind it.
        let mut bytes = vec![2];
        for _ in 0..90 {
            bytes.extend([2, 0, 255, 255, 2, 10, 0, 2, 10, 0]);
        }
        bytes.resize(1 + 65535 + 1000, 0);
        assert!(Json::parse(&bytes).is_err());
    }
}
