//! Times and paths as text.

/// Microseconds since the Unix epoch as RFC 3339 in UTC, to the second.
pub(crate) fn time(us: i64) -> String {
    let seconds = us.div_euclid(1_000_000);
    match jiff::Timestamp::from_second(seconds) {
        Ok(time) => time.to_string(),
        Err(_) => format!("{seconds} s after 1970"),
    }
}

/// A path of any bytes, printable: what is not is shown as `\xNN`.
pub(crate) fn path(bytes: &[u8]) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() { out.extend(c.escape_default()) } else { out.push(c) }
        }
        for byte in chunk.invalid() {
            out += &format!("\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_utc_and_paths_printable() {
        assert_eq!(time(1_795_243_500_123_456), "2026-11-21T06:45:00Z");
        assert_eq!(time(i64::MIN), "-9223372036855 s after 1970");
        assert_eq!(path(b"shop/a\xffb\n"), "shop/a\\xffb\\n");
    }
}
