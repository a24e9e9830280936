//! Events framed anew for `BINLOG '..'`: without checksums, uncompressed, cut to size.
//!
//! A server reads such events by the format description that its session was given
//! before: [`format_description_off`] makes that one from the log's own.

use crate::error::Flaw;
use crate::event::{Event, HEADER_LEN, Header};
use crate::format::Checksum;
use crate::kind::EventType;
use crate::rows::{FLAG_STMT_END, Row, Rows};

/// Appends the log's FORMAT_DESCRIPTION event with its checksum algorithm set to off. The
/// event keeps its own checksum, as servers write it. Accepted by MySQL 9.7 and MariaDB 10.11.
///
/// # Errors
/// Fails on an event too short to be one.
pub fn format_description_off(event: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    let Some((before, _)) = event.raw.split_last_chunk::<5>().filter(|(b, _)| b.len() >= HEADER_LEN) else {
        return Err(Flaw { offset: 0, expected: "a format description", got: "fewer bytes".to_owned() });
    };
    let start = out.len();
    Header { flags: event.header.flags & !crate::event::FLAG_IN_USE, ..event.header }.write(out);
    out.extend_from_slice(before.get(HEADER_LEN..).unwrap_or_default());
    out.push(0);
    let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&crc.to_le_bytes());
    Ok(())
}

/// Appends an event of `kind` with the given body and no checksum; time, server and flags
/// are those of `like`.
///
/// # Errors
/// Fails when the event would be longer than 4 GiB.
pub fn event(like: &Header, kind: EventType, body: &[&[u8]], out: &mut Vec<u8>) -> Result<(), Flaw> {
    let len = body.iter().map(|part| part.len()).sum::<usize>() + HEADER_LEN;
    let Ok(length) = u32::try_from(len) else {
        return Err(Flaw { offset: 0, expected: "an event below 4 GiB", got: len.to_string() });
    };
    Header { kind, length, log_pos: 0, ..*like }.write(out);
    for part in body {
        out.extend_from_slice(part);
    }
    Ok(())
}

/// Appends an event as it is, its checksum stripped.
///
/// # Errors
/// Fails when the event would be longer than 4 GiB.
pub fn stripped(from: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    event(&from.header, from.kind(), &[from.body()], out)
}

/// Appends an event of `kind` with the given body and a checksum as the log has them; header otherwise that of `like`.
///
/// # Errors
/// Fails when the event would be longer than 4 GiB.
pub fn event_with_checksum(
    like: &Event<'_>,
    kind: EventType,
    body: &[&[u8]],
    out: &mut Vec<u8>,
) -> Result<(), Flaw> {
    let start = out.len();
    let len = body.iter().map(|part| part.len()).sum::<usize>() + HEADER_LEN + like.checksum.len();
    let Ok(length) = u32::try_from(len) else {
        return Err(Flaw { offset: 0, expected: "an event below 4 GiB", got: len.to_string() });
    };
    Header { kind, length, ..like.header }.write(out);
    for part in body {
        out.extend_from_slice(part);
    }
    if like.checksum == Checksum::Crc32 {
        let crc = crc32fast::hash(out.get(start..).unwrap_or_default());
        out.extend_from_slice(&crc.to_le_bytes());
    }
    Ok(())
}

/// Appends a QUERY event with another text and, where `keep_database` is false, no default database; the session stays.
/// A compressed one becomes a plain one.
///
/// # Errors
/// Fails on an event that is no QUERY.
pub fn query(from: &Event<'_>, text: &[u8], keep_database: bool, out: &mut Vec<u8>) -> Result<(), Flaw> {
    const FIXED: usize = 13;
    let short = || Flaw { offset: 0, expected: "a statement", got: "fewer bytes".to_owned() };
    let body = from.body();
    let Some((fixed, rest)) = body.split_first_chunk::<FIXED>() else { return Err(short()) };
    let [t0, t1, t2, t3, e0, e1, e2, e3, database_len, c0, c1, v0, v1] = *fixed;
    let vars_len = usize::from(u16::from_le_bytes([v0, v1]));
    let (vars, rest) = rest.split_at_checked(vars_len).ok_or_else(short)?;
    let database = rest.get(..usize::from(database_len)).ok_or_else(short)?;
    let database = if keep_database { database } else { &[] };
    let database_len = database.len() as u8;
    let fixed = [t0, t1, t2, t3, e0, e1, e2, e3, database_len, c0, c1, v0, v1];
    event_with_checksum(from, EventType::QUERY, &[&fixed, vars, database, &[0], text], out)
}

/// Appends a row event that ends its statement, whether it did or not.
///
/// # Errors
/// Fails on an event that is no row event.
pub fn rows_ending_the_statement(from: &Event<'_>, out: &mut Vec<u8>) -> Result<(), Flaw> {
    const FLAGS: usize = 6;
    let body = from.body();
    let Some((id, [low, high, rest @ ..])) = body.split_at_checked(FLAGS) else {
        return Err(Flaw { offset: 0, expected: "a row event", got: "fewer bytes".to_owned() });
    };
    let flags = (u16::from_le_bytes([*low, *high]) | FLAG_STMT_END).to_le_bytes();
    event_with_checksum(from, from.kind(), &[id, &flags, rest], out)
}

/// Appends a transaction's payload that holds these events, not compressed.
///
/// # Errors
/// Fails when the event would be longer than 4 GiB.
pub fn payload(from: &Event<'_>, events: &[u8], out: &mut Vec<u8>) -> Result<(), Flaw> {
    // Fields of (type, length, value): the number's own length is 9 with its mark.
    let number = |field: u8| {
        let mut bytes = vec![field, 9, 0xfe];
        bytes.extend_from_slice(&(events.len() as u64).to_le_bytes());
        bytes
    };
    let (size, unpacked) = (number(1), number(3));
    // 255, length-encoded: not compressed.
    let packing = [2, 3, 0xfc, 255, 0];
    event_with_checksum(
        from,
        EventType::TRANSACTION_PAYLOAD,
        &[&size, &packing, &unpacked, &[0], events],
        out,
    )
}

/// The parts of a row event before its rows, flags apart: they stay as the source wrote them.
fn rows_head(rows: &Rows<'_>, flags: u16, out: &mut Vec<u8>) {
    out.extend_from_slice(rows.table_id.to_le_bytes().get(..6).unwrap_or_default());
    out.extend_from_slice(&flags.to_le_bytes());
    if rows.kind.version == 2 {
        // The parser took a 16-bit length that counts itself.
        out.extend_from_slice(&((rows.extra.len() + 2) as u16).to_le_bytes());
        out.extend_from_slice(rows.extra);
    }
    match rows.width {
        width @ 0..=250 => out.push(width as u8),
        width => {
            out.push(0xfc);
            out.extend_from_slice(&width.to_le_bytes());
        }
    }
    out.extend_from_slice(rows.present);
    out.extend_from_slice(rows.present_after.unwrap_or_default());
}

/// The type of a row event that is uncompressed.
fn rows_kind(rows: &Rows<'_>) -> EventType {
    use crate::kind::RowChange::{Delete, Insert, Update};
    match (rows.kind.version, rows.kind.change, rows.kind.partial) {
        (_, _, true) => EventType::PARTIAL_UPDATE_ROWS,
        (1, Insert, _) => EventType::WRITE_ROWS_V1,
        (1, Update, _) => EventType::UPDATE_ROWS_V1,
        (1, Delete, _) => EventType::DELETE_ROWS_V1,
        (_, Insert, _) => EventType::WRITE_ROWS,
        (_, Update, _) => EventType::UPDATE_ROWS,
        (_, Delete, _) => EventType::DELETE_ROWS,
    }
}

/// Appends a row event with the given rows (already uncompressed) and flags.
///
/// # Errors
/// Fails when the event would be longer than 4 GiB.
pub fn rows(
    like: &Header,
    event_of: &Rows<'_>,
    flags: u16,
    data: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), Flaw> {
    let mut head = Vec::with_capacity(64);
    rows_head(event_of, flags, &mut head);
    event(like, rows_kind(event_of), &[&head, data], out)
}

/// Cuts the rows of an event into runs of at most `target` bytes (a longer row makes a run
/// of its own), for events of that size.
pub fn split<'a>(
    cut: impl Iterator<Item = Result<Row<'a>, Flaw>>,
    data: &'a [u8],
    target: usize,
) -> impl Iterator<Item = Result<&'a [u8], Flaw>> {
    let mut cut = cut;
    let (mut start, mut end) = (0usize, 0usize);
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        loop {
            match cut.next() {
                Some(Err(e)) => {
                    done = true;
                    return Some(Err(e));
                }
                Some(Ok(row)) => {
                    let before = end;
                    end += row.bytes.len();
                    if before > start && end - start > target {
                        let run = data.get(start..before).unwrap_or_default();
                        start = before;
                        return Some(Ok(run));
                    }
                }
                None => {
                    done = true;
                    let run = data.get(start..end).unwrap_or_default();
                    return (!run.is_empty()).then_some(Ok(run));
                }
            }
        }
    })
}

/// The flags of a part of a row event: only the last part may end the statement.
#[must_use]
pub fn part_flags(flags: u16, last: bool) -> u16 {
    if last { flags } else { flags & !FLAG_STMT_END }
}
