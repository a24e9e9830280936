//! JSON values of MySQL as SQL that gives the same numbers again.
//!
//! The server reads a number with a fraction out of a JSON text in one multiplication or division, so those of more than
//! 15 digits or with a far exponent may come out as a neighbour of what they were (mysqldump's do). Values that hold such a
//! number are written as calls that make them; all others as their text.

use super::values::quote;

/// Values that lie in each other: the server allows 100.
const DEPTH_MAX: usize = 128;

/// Writes the value behind what is in `out`.
pub(super) fn write(text: &[u8], out: &mut Vec<u8>) {
    if reads_back(text) {
        return quote(text, out);
    }
    let mut made = Vec::new();
    let mut reader = Reader { text, at: 0 };
    match reader.value(&mut made, 0) {
        Some(()) if reader.at == text.len() => {
            // A number by itself is none in JSON yet.
            let number = matches!(text.first(), Some(b'-' | b'0'..=b'9'));
            if number {
                out.extend_from_slice(b"CAST(");
            }
            out.extend_from_slice(&made);
            if number {
                out.extend_from_slice(b" AS JSON)");
            }
        }
        // No JSON text that we know: the server has to say what it is.
        _ => quote(text, out),
    }
}

/// Is every number of the text one that the server reads exactly?
fn reads_back(text: &[u8]) -> bool {
    let mut at = 0;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => at = end_of_string(text, at).unwrap_or(text.len()),
            b'-' | b'0'..=b'9' => {
                let end = end_of_number(text, at);
                if !text.get(at..end).is_some_and(is_exact) {
                    return false;
                }
                at = end;
            }
            _ => at += 1,
        }
    }
    true
}

/// Behind the string that begins at `at`.
pub(crate) fn end_of_string(text: &[u8], at: usize) -> Option<usize> {
    let mut end = at + 1;
    loop {
        match text.get(end)? {
            b'\\' => end += 2,
            b'"' => return Some(end + 1),
            _ => end += 1,
        }
    }
}

pub(crate) fn end_of_number(text: &[u8], at: usize) -> usize {
    let part = |byte: &&u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
    at + text.get(at..).unwrap_or_default().iter().take_while(part).count()
}

/// Digits below 2^53 with a power of ten of at most 22, which is a double itself: one operation, rounded once.
fn is_exact(number: &[u8]) -> bool {
    let Ok(number) = std::str::from_utf8(number) else { return false };
    if !number.contains(['.', 'e', 'E']) {
        return true;
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let Ok(exponent) = exponent.parse::<i64>() else { return false };
    let fraction = mantissa.split_once('.').map_or(0, |(_, fraction)| fraction.len() as i64);
    let digits: String = mantissa.chars().filter(char::is_ascii_digit).collect();
    let significant = digits.trim_start_matches('0').len();
    significant <= 15 && (exponent - fraction).abs() <= 22
}

struct Reader<'t> {
    text: &'t [u8],
    at: usize,
}

impl<'t> Reader<'t> {
    fn blank(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    /// Takes this byte if it is next.
    fn take(&mut self, byte: u8) -> Option<()> {
        self.blank();
        (self.text.get(self.at) == Some(&byte)).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<&'t [u8]> {
        self.blank();
        let from = self.at;
        (self.text.get(from) == Some(&b'"')).then_some(())?;
        self.at = end_of_string(self.text, from)?;
        self.text.get(from..self.at)
    }

    /// Writes the next value as a call, or as its text made JSON.
    fn value(&mut self, out: &mut Vec<u8>, depth: usize) -> Option<()> {
        (depth < DEPTH_MAX).then_some(())?;
        self.blank();
        let from = self.at;
        match self.text.get(from)? {
            b'{' => self.members(out, depth, b'}', b"JSON_OBJECT("),
            b'[' => self.members(out, depth, b']', b"JSON_ARRAY("),
            b'-' | b'0'..=b'9' => {
                self.at = end_of_number(self.text, from);
                let number = self.text.get(from..self.at)?;
                // Integers keep their JSON type only through JSON; a fraction is exact as SQL's.
                if number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E')) {
                    out.extend_from_slice(number);
                    if !number.iter().any(|byte| matches!(byte, b'e' | b'E')) {
                        out.extend_from_slice(b"e0");
                    }
                } else {
                    as_json(number, out);
                }
                Some(())
            }
            b'"' => {
                as_json(self.string()?, out);
                Some(())
            }
            _ => {
                let word = |byte: &&u8| byte.is_ascii_alphabetic();
                let len = self.text.get(from..)?.iter().take_while(word).count();
                (len > 0).then_some(())?;
                self.at = from + len;
                as_json(self.text.get(from..self.at)?, out);
                Some(())
            }
        }
    }

    fn members(&mut self, out: &mut Vec<u8>, depth: usize, close: u8, call: &[u8]) -> Option<()> {
        let from = self.at;
        self.at += 1;
        let mut made = call.to_vec();
        let mut first = true;
        while self.take(close).is_none() {
            if !first {
                self.take(b',')?;
                made.extend_from_slice(b", ");
            }
            first = false;
            if close == b'}' {
                let name: String = serde_json::from_slice(self.string()?).ok()?;
                quote(name.as_bytes(), &mut made);
                made.extend_from_slice(b", ");
                self.take(b':')?;
            }
            self.value(&mut made, depth + 1)?;
        }
        made.push(b')');
        let text = self.text.get(from..self.at)?;
        if reads_back(text) {
            as_json(text, out)
        } else {
            out.extend_from_slice(&made)
        }
        Some(())
    }
}

fn as_json(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"CAST(");
    quote(text, out);
    out.extend_from_slice(b" AS JSON)");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> String {
        let mut out = Vec::new();
        write(text.as_bytes(), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn what_the_server_reads_exactly_stays_a_text() {
        assert_eq!(
            written(r#"{"a": [1.5, -2e3, 18446744073709551615], "1.23456789012345678": null}"#),
            r#"'{\"a\": [1.5, -2e3, 18446744073709551615], \"1.23456789012345678\": null}'"#
        );
    }

    #[test]
    fn a_number_with_many_digits_is_made_and_everything_beside_it_kept() {
        assert_eq!(written("9.088544342689999e9"), "CAST(9.088544342689999e9 AS JSON)");
        assert_eq!(
            written(r#"{"a'": [1, 0.1234567890123456], "b": {"c": true}, "d": "x\"1.2345678901234567"}"#),
            r#"JSON_OBJECT('a\'', JSON_ARRAY(CAST('1' AS JSON), 0.1234567890123456e0), 'b', CAST('{\"c\": true}' AS JSON), 'd', CAST('\"x\\\"1.2345678901234567\"' AS JSON))"#
        );
        assert_eq!(written("[1e300]"), "JSON_ARRAY(1e300)");
    }

    #[test]
    fn what_is_no_json_is_left_to_the_server() {
        for text in ["[1.2345678901234567", "{\"a\" 1.2345678901234567}", "[1.2345678901234567]x"] {
            assert!(written(text).starts_with('\''), "{text}");
        }
        let deep = format!("{}1.2345678901234567{}", "[".repeat(500), "]".repeat(500));
        assert!(written(&deep).starts_with('\''));
    }
}
