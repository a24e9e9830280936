//! Rows from one server to another, in statements of bounded length, and the proof that what arrived is what was read.
//!
//! The proof is a sum over all rows, in whatever order they come: the copy is read back as a whole, by the same query.

use super::then::Then;
use crate::error::Error;
use crate::export::sql::json::{end_of_number, end_of_string};
use crate::export::sql::values::{Column, Kind};
use crate::progress::{Reading, Watcher};
use holdfast_binlog::tables::TableKey;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::{quoted_name, quoted_table};

/// Bytes of a statement that rows are gathered into; one row alone may be longer.
const STATEMENT_BYTES: usize = 1 << 20;

/// Bytes of a packet that the statement itself does not have.
const PACKET_SPARE: usize = 1024;

/// Why a copy ended before its end.
pub(super) enum Trouble {
    /// The private server said no.
    Then(holdfast_mysql::Error),
    /// The running server said no.
    Now(holdfast_mysql::Error),
    /// It was called off.
    Cancelled,
    /// What to tell the user.
    Said(Error),
}

impl From<holdfast_mysql::Error> for Trouble {
    fn from(error: holdfast_mysql::Error) -> Self {
        Self::Then(error)
    }
}

/// How far it is, over all tables.
pub(super) struct Progress<'a> {
    /// Whoever watches.
    pub watcher: &'a dyn Watcher,
    /// Bytes in all, copied and read back.
    pub total: u64,
    /// Bytes of what is done.
    pub finished: u64,
}

impl Progress<'_> {
    fn show(&self, phase: &'static str, done: u64) -> Result<(), Trouble> {
        let (done, total) = (self.finished + done, Some(self.total));
        self.watcher.reading(Reading { phase, done, total, bytes: true, limit: None });
        if self.watcher.cancelled() { Err(Trouble::Cancelled) } else { Ok(()) }
    }
}

/// Rows, and a sum that tells them from others, whatever their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// How many.
    pub rows: u64,
    sum: u128,
}

impl Sum {
    fn add(&mut self, columns: &[Column], values: &[Option<&[u8]>]) {
        let mut hash = blake3::Hasher::new();
        let mut put = |value: Option<&[u8]>| {
            hash.update(&value.map_or(u64::MAX, |value| value.len() as u64).to_le_bytes());
            hash.update(value.unwrap_or_default());
        };
        for (column, value) in columns.iter().zip(values) {
            match value {
                Some(text) if column.kind == Kind::Json => put(Some(&same_numbers(text))),
                value => put(*value),
            }
        }
        let mut front = [0; 16];
        hash.finalize_xof().fill(&mut front);
        self.rows += 1;
        self.sum = self.sum.wrapping_add(u128::from_le_bytes(front));
    }
}

/// The text of a JSON value with each number that has a fraction as its double: a text can't say that a number is a
/// DECIMAL, so 1.50 comes back as 1.5.
fn same_numbers(text: &[u8]) -> Vec<u8> {
    let (mut out, mut at) = (Vec::with_capacity(text.len()), 0);
    while let Some(byte) = text.get(at) {
        let end = match byte {
            b'"' => end_of_string(text, at).unwrap_or(text.len()),
            b'-' | b'0'..=b'9' => end_of_number(text, at),
            _ => at + 1,
        };
        let part = text.get(at..end).unwrap_or_default();
        let number = std::str::from_utf8(part)
            .ok()
            .filter(|text| !text.starts_with('"') && text.contains(['.', 'e', 'E']));
        match number.and_then(|text| text.parse::<f64>().ok()) {
            Some(number) => out.extend_from_slice(&number.to_bits().to_le_bytes()),
            None => out.extend_from_slice(part),
        }
        at = end.max(at + 1);
    }
    out
}

fn query(columns: &[Column], from: &TableKey) -> String {
    let selected: Vec<String> = columns.iter().map(Column::selected).collect();
    format!("SELECT {} FROM {}", selected.join(", "), quoted_table(from))
}

/// Copies the rows of a table into `into`, which is there and empty. `packet_max`: bytes of the longest statement that the
/// running server takes.
pub(super) fn rows(
    from: &mut Conn,
    to: &mut Conn,
    table: &Then,
    into: &TableKey,
    packet_max: usize,
    progress: &mut Progress<'_>,
) -> Result<Sum, Trouble> {
    let names: Vec<String> = table.columns.iter().map(|column| quoted_name(&column.name)).collect();
    let list = if table.named { format!(" ({})", names.join(", ")) } else { String::new() };
    let head = format!("INSERT INTO {}{list} VALUES ", quoted_table(into)).into_bytes();
    let limit = packet_max.saturating_sub(PACKET_SPARE);
    let gather = STATEMENT_BYTES.min(limit);
    let (mut statement, mut row, mut bytes) = (Vec::new(), Vec::new(), 0_u64);
    let mut sum = Sum::default();
    if table.columns.is_empty() {
        return Ok(sum);
    }
    from.query_each::<Trouble>(query(&table.columns, &table.key), |found| {
        row.clear();
        row.push(b'(');
        for (at, (column, value)) in table.columns.iter().zip(found.values()).enumerate() {
            if at > 0 {
                row.push(b',');
            }
            column.write(*value, &mut row);
            bytes += value.map_or(1, <[u8]>::len) as u64;
        }
        row.push(b')');
        sum.add(&table.columns, found.values());
        if head.len() + row.len() > limit {
            return Err(Trouble::Said(
                Error::failed(format!(
                    "A row of {} has {} bytes as SQL, more than the running server takes (max_allowed_packet = \
                     {packet_max}).",
                    table.key,
                    row.len()
                ))
                .with_next(format!(
                    "SET GLOBAL max_allowed_packet = {} there, and give the same command again",
                    (head.len() + row.len() + PACKET_SPARE).next_power_of_two()
                )),
            ));
        }
        if !statement.is_empty() && statement.len() + row.len() + 1 > gather {
            to.execute(&statement).map_err(Trouble::Now)?;
            statement.clear();
            // A huge row does not stay in memory.
            statement.shrink_to(STATEMENT_BYTES);
        }
        let mark: &[u8] = if statement.is_empty() { &head } else { b"," };
        statement.extend_from_slice(mark);
        statement.extend_from_slice(&row);
        row.shrink_to(STATEMENT_BYTES);
        progress.show("copy", bytes.min(table.bytes))
    })?;
    if !statement.is_empty() {
        to.execute(&statement).map_err(Trouble::Now)?;
    }
    progress.finished += table.bytes;
    Ok(sum)
}

/// Reads the copy back.
pub(super) fn read_back(
    to: &mut Conn,
    table: &Then,
    into: &TableKey,
    progress: &mut Progress<'_>,
) -> Result<Sum, Trouble> {
    let (mut sum, mut bytes) = (Sum::default(), 0_u64);
    if table.columns.is_empty() {
        return Ok(sum);
    }
    let read = to.query_each::<Trouble>(query(&table.columns, into), |found| {
        sum.add(&table.columns, found.values());
        bytes += found.values().iter().map(|value| value.map_or(1, <[u8]>::len) as u64).sum::<u64>();
        progress.show("read back", bytes.min(table.bytes))
    });
    read.map_err(|trouble| match trouble {
        Trouble::Then(error) => Trouble::Now(error),
        other => other,
    })?;
    progress.finished += table.bytes;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(rows: &[&[Option<&str>]]) -> Sum {
        let column = |name| Column::new(name, "json", "json", None);
        let columns = [column("a"), column("b")];
        let mut sum = Sum::default();
        for row in rows {
            let values: Vec<Option<&[u8]>> = row.iter().map(|value| value.map(str::as_bytes)).collect();
            sum.add(&columns, &values);
        }
        sum
    }

    #[test]
    fn a_sum_knows_rows_in_any_order_and_no_others() {
        let (a, b): (&[_], &[_]) = (&[Some("1"), None], &[Some("2"), Some("x")]);
        assert_eq!(sum(&[a, b]), sum(&[b, a]));
        assert_ne!(sum(&[a, b]), sum(&[a, a]));
        assert_ne!(sum(&[a]), sum(&[&[Some("1"), Some("")]]));
        assert_ne!(sum(&[&[Some("ab"), Some("")]]), sum(&[&[Some("a"), Some("b")]]));
        assert_ne!(sum(&[a]), sum(&[a, a]));
    }

    #[test]
    fn a_decimal_in_json_is_the_double_of_its_text() {
        assert_eq!(
            same_numbers(br#"{"a": 1.50, "b": [2, -1e3]}"#),
            same_numbers(br#"{"a": 1.5, "b": [2, -1000.0]}"#)
        );
        assert_ne!(same_numbers(b"1.5"), same_numbers(b"1.25"));
        assert_ne!(same_numbers(br#""1.50""#), same_numbers(br#""1.5""#));
    }
}
