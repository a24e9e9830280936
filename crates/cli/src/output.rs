//! What a person or a script reads: tables, sizes, durations, JSON, errors.

use holdfast_appliance::error::Error;
use serde::Serialize;
use std::io::{self, Write};

/// Where answers go, and in which form.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// One JSON document in place of text.
    pub json: bool,
}

impl Output {
    /// Prints `answer` as JSON, or whatever `text` writes.
    ///
    /// # Errors
    /// When standard output is gone.
    pub fn answer<T: Serialize>(
        self,
        answer: &T,
        text: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, answer)?;
            writeln!(out)?;
        } else {
            text(&mut out)?;
        }
        out.flush()
    }

    /// Prints a warning with its next step on standard error; what was asked goes on.
    pub fn warning(self, message: &str, next: &str) {
        let mut err = io::stderr().lock();
        // Nothing can be done when standard error itself is gone.
        let _ = if self.json {
            let document = serde_json::json!({ "message_type": "warning", "message": message, "next": next });
            writeln!(err, "{document}")
        } else {
            writeln!(err, "warning: {message}\n  next: {next}")
        };
    }

    /// Prints an error with its next step on standard error.
    pub fn error(self, error: &Error) {
        let mut err = io::stderr().lock();
        // Nothing can be done when standard error itself is gone.
        let _ = if self.json {
            let document = serde_json::json!({
                "message_type": "error",
                "code": error.code,
                "exit_status": error.code.exit_status(),
                "message": error.message,
                "next": error.next,
            });
            writeln!(err, "{document}")
        } else {
            writeln!(err, "holdfast: {}", error.message).and_then(|()| match &error.next {
                Some(next) => writeln!(err, "  next: {next}"),
                None => Ok(()),
            })
        };
    }
}

/// A table with a header, columns as wide as their widest cell.
pub fn table(out: &mut dyn Write, header: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let widths: Vec<usize> = header
        .iter()
        .enumerate()
        .map(|(column, title)| {
            let widest = rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max();
            widest.unwrap_or(0).max(title.chars().count())
        })
        .collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| -> io::Result<()> {
        let mut text = String::new();
        for (cell, width) in cells.zip(&widths) {
            let pad = width.saturating_sub(cell.chars().count());
            text.push_str(cell);
            text.extend(std::iter::repeat_n(' ', pad + 2));
        }
        writeln!(out, "{}", text.trim_end())
    };
    line(&mut header.iter().copied())?;
    for row in rows {
        line(&mut row.iter().map(String::as_str))?;
    }
    Ok(())
}

/// Bytes in IEC units, three digits: `3.1 GiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let mut value = bytes as f64;
    let mut unit = "B";
    for next in UNITS {
        unit = next;
        if value < 1000.0 {
            break;
        }
        if next != "PiB" {
            value /= 1024.0;
        }
    }
    if unit == "B" {
        format!("{bytes} B")
    } else if value < 10.0 {
        format!("{value:.2} {unit}")
    } else if value < 100.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

/// A duration for a person: `0.4 s`, `12 s`, `3m05s`, `2h14m`, `3d04h`.
pub fn duration(micros: i64) -> String {
    let seconds = micros.max(0) / 1_000_000;
    match seconds {
        0..=9 => format!("{:.1} s", micros.max(0) as f64 / 1e6),
        10..=99 => format!("{seconds} s"),
        100..=5999 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        6000..=172_799 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits_and_a_unit() {
        assert_eq!(size(999), "999 B");
        assert_eq!(size(1024), "1.00 KiB");
        assert_eq!(size(65 << 20), "65.0 MiB");
        assert_eq!(size(999 << 30), "999 GiB");
        assert_eq!(size(1000 << 30), "0.98 TiB");
        assert_eq!(size(u64::MAX), "16384 PiB");
    }

    #[test]
    fn durations_grow_coarser() {
        assert_eq!(duration(400_000), "0.4 s");
        assert_eq!(duration(185_000_000), "3m05s");
        assert_eq!(duration(8_040_000_000), "2h14m");
    }

    #[test]
    fn a_table_lines_its_columns_up() {
        let mut out = Vec::new();
        table(&mut out, &["ID", "SIZE"], &[vec!["k3f9a2".into(), "1 B".into()]]).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID      SIZE\nk3f9a2  1 B\n");
    }
}
