//! `show`: one transaction row by row, as far as the log tells.
//!
//! Columns have names where the source logs them (`binlog_row_metadata=FULL`), and numbers else: `@1` is the first one.

use crate::archive::archive_error;
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::find::view;
use crate::undo::literal::{JSON_DECIMAL, opaque_text};
use crate::views::{CellView, FoundView, RowView, Shown};
use holdfast_archive::{Hole, ServerLog, Target};
use holdfast_binlog::columns::{Column, ColumnType};
use holdfast_binlog::json::Json;
use holdfast_binlog::rows::{ImagePlan, Rows};
use holdfast_binlog::table_map::TableMap;
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::{Body, Event, Flaw, FormatDescription, Walker};
use holdfast_restore::cell::{self, Cell};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

/// Bytes of a value that are shown: this is for reading.
const VALUE_BYTES_MAX: usize = 2048;

/// A transaction.
#[derive(Clone, Debug, Serialize)]
pub struct TransactionView {
    /// What the index knows of it.
    #[serde(flatten)]
    pub found: FoundView,
    /// The original statements behind its rows, where the source logs them.
    pub queries: Vec<String>,
    /// Its rows in order, at most as many as were asked for.
    pub rows: Vec<RowView>,
    /// Rows that are not among them.
    pub more: u64,
}

/// Reads the transaction `id`, as `find` prints it, of the server called `name`.
///
/// # Errors
/// `TargetUnreachable` when it is not in the archive, `Corruption` when its events don't parse.
pub fn show(catalogue: &Catalogue, name: &str, id: &str, limit: usize) -> Result<TransactionView> {
    let server = catalogue.server(name)?;
    let told = |e| archive_error(catalogue, &server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let cut = |target| match log.resolve(&target).map_err(told)? {
        Ok(cut) => Ok(cut),
        Err(hole) => Err(not_there(name, id, &hole)),
    };
    let (before, after) = (cut(Target::Before(id.to_owned()))?, cut(Target::After(id.to_owned()))?);
    let Some(found) = after.kept else {
        return Err(Error::failed(format!("The index of '{name}' does not tell where {id} is.")));
    };
    let mut reading = Reading { limit, ..Reading::default() };
    let mut cursor = log.read(before.place, after.place).map_err(told)?;
    let mut bytes = Vec::new();
    while let Some(at) = cursor.next(&mut bytes).map_err(told)? {
        let taken = reading.take(&bytes, at.offset);
        taken.map_err(|e| Error::new(Code::Corruption, sentence(&format!("{}: {e}", at.file))))?;
    }
    Ok(TransactionView {
        found: view(&found),
        queries: reading.queries,
        rows: reading.rows,
        more: reading.more,
    })
}

fn not_there(name: &str, id: &str, hole: &Hole) -> Error {
    let message = format!("{id} is not in the archive of '{name}': {}", hole.reason);
    Error::new(Code::TargetUnreachable, sentence(&message))
        .with_next(format!("`holdfast find {name}` prints the ids of transactions"))
}

/// What was read so far.
#[derive(Default)]
struct Reading {
    limit: usize,
    walker: Walker,
    cache: TableCache,
    /// Column names by table id.
    names: HashMap<u64, Vec<String>>,
    scratch: Vec<u8>,
    queries: Vec<String>,
    rows: Vec<RowView>,
    more: u64,
}

impl Reading {
    fn take(&mut self, bytes: &[u8], offset: u64) -> std::result::Result<(), holdfast_binlog::Error> {
        self.walker.set_position(offset);
        let event = self.walker.whole(bytes)?;
        let Some(format) = self.walker.format().cloned() else { return Ok(()) };
        self.event(&event, &format)
    }

    fn event(
        &mut self,
        event: &Event<'_>,
        format: &FormatDescription,
    ) -> std::result::Result<(), holdfast_binlog::Error> {
        let malformed = |flaw| event.malformed(flaw);
        match event.parse(format)? {
            Body::FormatDescription(_) => self.cache.clear(),
            Body::TableMap(map) => self.table(&map).map_err(malformed)?,
            Body::Rows(rows) if !rows.is_dummy() => self.rows(&rows).map_err(malformed)?,
            Body::RowsQuery(text) if self.queries.len() < self.limit => {
                let line = String::from_utf8_lossy(text);
                self.queries.push(cut(&line.split_whitespace().collect::<Vec<_>>().join(" "), text.len()));
            }
            Body::Payload(payload) => {
                let mut events = payload.events(event, format)?;
                while let Some(inner) = events.next_event()? {
                    self.event(&inner, format)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn table(&mut self, map: &TableMap<'_>) -> std::result::Result<(), Flaw> {
        self.cache.insert(map)?;
        let names = map.column_names()?.unwrap_or_default();
        let names = names.into_iter().map(|name| String::from_utf8_lossy(name).into_owned());
        self.names.insert(map.table_id, names.collect());
        Ok(())
    }

    fn rows(&mut self, rows: &Rows<'_>) -> std::result::Result<(), Flaw> {
        let (key, plan) = self.cache.plan(rows)?;
        let Some(table) = self.cache.get(rows.table_id) else { return Ok(()) };
        let (columns, names) = (table.columns.list(), self.names.get(&rows.table_id));
        let mut scratch = std::mem::take(&mut self.scratch);
        let plain = rows.inflated(&mut scratch)?;
        for row in plan.rows(plain.data) {
            let row = row?;
            if self.rows.len() >= self.limit {
                self.more += 1;
                continue;
            }
            let mut cells: BTreeMap<u16, (Option<Shown>, Option<Shown>)> = BTreeMap::new();
            // A delete has its only image before, which the plan of the event cuts.
            if let Some(image) = row.before {
                each_cell(plan.first_plan(), columns, image, false, |at, shown| {
                    cells.entry(at).or_default().0 = Some(shown);
                });
            }
            if let (Some(image), Some(after)) = (row.after, plan.after_plan()) {
                each_cell(after, columns, image, row.partial, |at, shown| {
                    cells.entry(at).or_default().1 = Some(shown);
                });
            }
            let cell = |(at, (before, after)): (u16, (Option<Shown>, Option<Shown>))| {
                let name = names.and_then(|names| names.get(usize::from(at)));
                CellView {
                    column: name.cloned().unwrap_or_else(|| format!("@{}", u32::from(at) + 1)),
                    before,
                    after,
                }
            };
            self.rows.push(RowView {
                table: key.to_string(),
                change: match (row.before, row.after) {
                    (None, _) => "insert",
                    (Some(_), Some(_)) => "update",
                    (Some(_), None) => "delete",
                },
                cells: cells.into_iter().map(cell).collect(),
            });
        }
        self.scratch = scratch;
        Ok(())
    }
}

/// Hands each cell of an image to `each`; `partial` says that JSON cells hold differences.
fn each_cell(
    plan: &ImagePlan,
    columns: &[Column],
    image: &[u8],
    partial: bool,
    mut each: impl FnMut(u16, Shown),
) {
    plan.visit(image, |at, bytes| {
        let Some(column) = columns.get(usize::from(at)) else { return true };
        each(at, shown(column, bytes, partial));
        true
    });
}

/// A value for people.
pub(crate) fn shown(column: &Column, bytes: Option<&[u8]>, partial: bool) -> Shown {
    use ColumnType as T;
    let Some(bytes) = bytes else { return Shown::Null };
    let stripped = column.width.strip(bytes);
    match (column.kind, cell::decode(column, column.unsigned == Some(true), Some(bytes))) {
        (T::Json { .. }, _) => match Json::parse(stripped).map(|json| json_text(&json)) {
            Ok(text) if !partial => Shown::Other(cut(&text, text.len())),
            _ => {
                let what = if partial { "differences of JSON" } else { "JSON" };
                Shown::Other(format!("({what}, {} bytes)", stripped.len()))
            }
        },
        (T::Timestamp { .. }, Some(Cell::Text(text))) => Shown::Other(timestamp(&text)),
        (
            T::Char { .. } | T::VarChar { .. } | T::Blob { .. },
            Some(Cell::Text(text) | Cell::Padded(text)),
        ) => words(&text),
        (T::Geometry { .. }, _) | (_, None) => Shown::Other(hex(stripped)),
        (_, Some(Cell::Null)) => Shown::Null,
        (T::Float, Some(Cell::Real(value))) => Shown::Other(format!("{:?}", value as f32)),
        (_, Some(Cell::Real(value))) => Shown::Other(format!("{value:?}")),
        (_, Some(Cell::Text(text) | Cell::Padded(text))) => {
            let mut text = String::from_utf8_lossy(&text).into_owned();
            // Where the log does not say whether there is a sign, both readings are shown.
            if column.unsigned.is_none()
                && text.starts_with('-')
                && let T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong = column.kind
                && let Some(Cell::Text(other)) = cell::decode(column, true, Some(bytes))
            {
                text.push_str(&format!(" ({} if unsigned)", String::from_utf8_lossy(&other)));
            }
            Shown::Other(text)
        }
    }
}

/// A JSON value as the server prints it, with what is of an SQL type inside of it.
fn json_text(value: &Json) -> String {
    let joined = |parts: Vec<String>| parts.join(", ");
    match value {
        Json::Array(items) => format!("[{}]", joined(items.iter().map(json_text).collect())),
        Json::Object(members) => {
            let member = |(name, item): &(String, Json)| {
                format!("{}: {}", Json::Text(name.clone()).text(), json_text(item))
            };
            format!("{{{}}}", joined(members.iter().map(member).collect()))
        }
        Json::Opaque { kind, data } => match opaque_text(*kind, data) {
            Some(number) if *kind == JSON_DECIMAL => number,
            Some(text) => format!("\"{text}\""),
            None => value.text(),
        },
        _ => value.text(),
    }
}

/// A text if it reads as one, else its bytes.
fn words(bytes: &[u8]) -> Shown {
    let plain = |c: char| !c.is_control() || matches!(c, '\n' | '\r' | '\t');
    match std::str::from_utf8(bytes) {
        Ok(text) if text.chars().all(plain) => Shown::Text(cut(text, bytes.len())),
        _ => Shown::Other(hex(bytes)),
    }
}

/// The beginning of a text that has this many bytes, said so where it is not all.
fn cut(text: &str, bytes: usize) -> String {
    if text.len() <= VALUE_BYTES_MAX {
        return text.to_owned();
    }
    let end = (0..=VALUE_BYTES_MAX).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    format!("{}... ({bytes} bytes)", text.get(..end).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    let shown = bytes.get(..VALUE_BYTES_MAX / 2).unwrap_or(bytes);
    let mut text = String::from("0x");
    text.extend(shown.iter().map(|byte| format!("{byte:02x}")));
    if shown.len() < bytes.len() {
        text.push_str(&format!("... ({} bytes)", bytes.len()));
    }
    text
}

/// Seconds of the epoch and their fraction as a time in UTC; the time that is none as the servers write it.
fn timestamp(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let (seconds, fraction) = text.split_once('.').map_or((&*text, ""), |(s, f)| (s, f));
    let fraction = if fraction.is_empty() { String::new() } else { format!(".{fraction}") };
    match seconds.parse::<i64>() {
        Ok(0) => format!("0000-00-00 00:00:00{fraction}"),
        Ok(seconds) => match jiff::Timestamp::from_second(seconds) {
            Ok(at) => format!("{}{fraction}Z", at.strftime("%Y-%m-%d %H:%M:%S")),
            Err(_) => text.into_owned(),
        },
        Err(_) => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_binlog::columns::Width;

    fn column(kind: ColumnType, width: Width, unsigned: Option<bool>) -> Column {
        Column { kind, width, nullable: true, unsigned }
    }

    fn other(text: &str) -> Shown {
        Shown::Other(text.to_owned())
    }

    #[test]
    fn values_are_readable_and_doubts_are_shown() {
        let tiny = |unsigned| column(ColumnType::Tiny, Width::Fixed(1), unsigned);
        assert_eq!(shown(&tiny(Some(true)), Some(&[255]), false), other("255"));
        assert_eq!(shown(&tiny(Some(false)), Some(&[255]), false), other("-1"));
        assert_eq!(shown(&tiny(None), Some(&[255]), false), other("-1 (255 if unsigned)"));
        assert_eq!(shown(&tiny(None), Some(&[7]), false), other("7"));
        assert_eq!(shown(&tiny(None), None, false), Shown::Null);
        let text = column(ColumnType::VarChar { max: 40 }, Width::Prefixed(1), None);
        assert_eq!(shown(&text, Some(b"\x03one"), false), Shown::Text("one".into()));
        assert_eq!(shown(&text, Some(b"\x02\xff\x00"), false), other("0xff00"));
        let float = column(ColumnType::Float, Width::Fixed(4), None);
        assert_eq!(shown(&float, Some(&0.1_f32.to_le_bytes()), false), other("0.1"));
        let time = column(ColumnType::Timestamp { fraction: 2 }, Width::Fixed(5), None);
        assert_eq!(shown(&time, Some(&[0, 0, 0, 1, 25]), false), other("1970-01-01 00:00:01.25Z"));
        assert_eq!(shown(&time, Some(&[0; 5]), false), other("0000-00-00 00:00:00.00"));
        let json = column(ColumnType::Json { length_bytes: 4 }, Width::Prefixed(4), None);
        assert_eq!(shown(&json, Some(&[1, 0, 0, 0, 9]), true), other("(differences of JSON, 1 bytes)"));
        assert_eq!(shown(&json, Some(&[1, 0, 0, 0, 9]), false), other("(JSON, 1 bytes)"));
        assert_eq!(shown(&json, Some(&[3, 0, 0, 0, 12, 1, b'x']), false), other("\"x\""));
    }

    #[test]
    fn a_long_value_says_how_long_it_is() {
        let long = "\u{fc}".repeat(VALUE_BYTES_MAX);
        let Shown::Text(text) = words(long.as_bytes()) else { unreachable!("it is a text") };
        assert!(text.ends_with(&format!("... ({} bytes)", long.len())) && text.len() < long.len());
        assert!(hex(&[0; 2 * VALUE_BYTES_MAX]).ends_with("... (4096 bytes)"));
    }
}
