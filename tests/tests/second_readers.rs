//! The same logs, read by us, by the server's own `mysqlbinlog -vv`, and by the crate `mysql_common`: each row of each
//! table must have the same kind of change, the same columns, and the same values in them.
//!
//! The logs hold all that a server can write (`mixed_work`), and a table of every type with the ends of its range. The seed
//! that is printed repeats a log. `mysql_common` knows neither MariaDB's packed events nor its types, so it reads MySQL's.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_binlog::columns::{Column, ColumnType};
use holdfast_binlog::json::Json;
use holdfast_binlog::rows::{ImagePlan, Rows};
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::{Body, Event, FormatDescription, Walker};
use holdfast_restore::cell::{self, Cell};
use holdfast_tests::mixed_work::{mixed, options};
use holdfast_tests::replaying::{SCHEMA, binlogs, rarities};
use holdfast_tests::{Engine, Random, TestServer};
use mysql_common::binlog::consts::BinlogVersion;
use mysql_common::binlog::events::{EventData, RowsEventData};
use mysql_common::binlog::row::BinlogRow;
use mysql_common::binlog::value::BinlogValue;
use mysql_common::binlog::{BinlogFile, EventStreamReader};
use mysql_common::value::Value;

/// A column of a row with what is in it, its length in front.
type OurCell = (u16, Column, Option<Vec<u8>>);

/// A row as we read it.
struct OurRow {
    change: &'static str,
    table: String,
    before: Option<Vec<OurCell>>,
    after: Option<Vec<OurCell>>,
    /// JSON cells of `after` hold differences.
    partial: bool,
}

#[derive(Default)]
struct Ours {
    rows: Vec<OurRow>,
    tables: TableCache,
    /// Kinds of events that have rows, and how many came inside of a payload.
    packed: u64,
    /// Compressed row events.
    compressed: u64,
}

impl Ours {
    fn read(files: &[PathBuf]) -> Self {
        let mut ours = Self::default();
        for file in files {
            let bytes = std::fs::read(file).unwrap();
            let mut walker = Walker::default();
            let mut rest = walker.file(&bytes).unwrap();
            ours.tables.clear();
            while !rest.is_empty() {
                let event = walker.whole(rest).unwrap();
                rest = &rest[event.raw.len()..];
                let format = walker.format().unwrap().clone();
                ours.event(&event, &format, false);
            }
        }
        ours
    }

    fn event(&mut self, event: &Event<'_>, format: &FormatDescription, inside: bool) {
        match event.parse(format).unwrap() {
            Body::TableMap(map) => self.tables.insert(&map).unwrap(),
            Body::Rows(rows) if !rows.is_dummy() => {
                self.packed += u64::from(inside);
                self.rows(&rows);
            }
            Body::Payload(payload) => {
                let mut events = payload.events(event, format).unwrap();
                while let Some(inner) = events.next_event().unwrap() {
                    self.event(&inner, format, true);
                }
            }
            _ => {}
        }
    }

    fn rows(&mut self, rows: &Rows<'_>) {
        let (key, plan) = self.tables.plan(rows).unwrap();
        let columns = self.tables.get(rows.table_id).unwrap().columns.list().to_vec();
        self.compressed += u64::from(rows.kind.compressed);
        let mut scratch = Vec::new();
        let plain = rows.inflated(&mut scratch).unwrap();
        for row in plan.rows(plain.data) {
            let row = row.unwrap();
            let after = row.after.map(|image| cells(plan.after_plan().unwrap(), &columns, image));
            self.rows.push(OurRow {
                change: match (row.before, row.after) {
                    (None, _) => "INSERT INTO",
                    (Some(_), Some(_)) => "UPDATE",
                    (Some(_), None) => "DELETE FROM",
                },
                table: format!("`{}`.`{}`", key.database, key.table),
                before: row.before.map(|image| cells(plan.first_plan(), &columns, image)),
                after,
                partial: row.partial,
            });
        }
    }
}

fn cells(plan: &ImagePlan, columns: &[Column], image: &[u8]) -> Vec<OurCell> {
    let mut all = Vec::new();
    plan.visit(image, |at, bytes| {
        all.push((at, columns[usize::from(at)], bytes.map(<[u8]>::to_vec)));
        true
    });
    all
}

fn text_of(column: &Column, unsigned: bool, bytes: &[u8]) -> Option<Vec<u8>> {
    match cell::decode(column, unsigned, Some(bytes))? {
        Cell::Text(text) | Cell::Padded(text) => Some(text),
        Cell::Null | Cell::Real(_) => None,
    }
}

/// Is it of a type that every reader prints?
fn is_printable(kind: ColumnType) -> bool {
    !matches!(kind, ColumnType::Geometry { .. } | ColumnType::Vector { .. })
}

/// Values by what they were compared as.
type Compared = BTreeMap<&'static str, u64>;

fn count(compared: &mut Compared, what: &'static str) {
    *compared.entry(what).or_default() += 1;
}

// ---- the server's reader ----------------------------------------------------------------------

/// A row as `mysqlbinlog -vv` prints it: the columns of WHERE, and those of SET.
#[derive(Default)]
struct PrintedRow {
    change: String,
    table: String,
    before: Option<Vec<(u16, Vec<u8>)>>,
    after: Option<Vec<(u16, Vec<u8>)>>,
}

fn printed_by_the_server(engine: Engine, files: &[PathBuf]) -> Vec<PrintedRow> {
    let program = match engine {
        Engine::MySql => "bin/mysqlbinlog",
        Engine::MariaDb => "bin/mariadb-binlog",
    };
    let output = Command::new(engine.dir().join(program))
        .args(["--no-defaults", "--verify-binlog-checksum", "-vv", "--base64-output=decode-rows"])
        .args(files)
        .output()
        .unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    let mut rows: Vec<PrintedRow> = Vec::new();
    let mut in_set = false;
    for line in output.stdout.split(|byte| *byte == b'\n') {
        let Some(line) = line.strip_prefix(b"### ") else { continue };
        let head = String::from_utf8_lossy(line).into_owned();
        if let Some(change) =
            ["INSERT INTO", "UPDATE", "DELETE FROM"].into_iter().find(|change| head.starts_with(change))
        {
            let table = head[change.len()..].trim().to_owned();
            rows.push(PrintedRow { change: change.to_owned(), table, ..PrintedRow::default() });
        } else if head == "WHERE" {
            in_set = false;
            rows.last_mut().unwrap().before = Some(Vec::new());
        } else if head == "SET" {
            in_set = true;
            rows.last_mut().unwrap().after = Some(Vec::new());
        } else if let Some(rest) = line.strip_prefix(b"  @") {
            let equals = rest.iter().position(|byte| *byte == b'=').expect("a column has a value");
            let at: u16 = std::str::from_utf8(&rest[..equals]).unwrap().parse().unwrap();
            let value = &rest[equals + 1..];
            // What follows the value says of which type it is.
            let end = value.windows(4).rposition(|found| found == b" /* ").unwrap_or(value.len());
            let row = rows.last_mut().unwrap();
            let cells = if in_set { &mut row.after } else { &mut row.before };
            cells.as_mut().unwrap().push((at - 1, value[..end].to_vec()));
        }
    }
    rows
}

/// The bytes of a quoted text, in which some characters are `\xNN`, and with `all` others stand behind a backslash.
fn unquoted(text: &[u8], all: bool) -> Option<Vec<u8>> {
    let mut rest = text.strip_prefix(b"'")?.strip_suffix(b"'")?;
    let mut bytes = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'\\' || !(all || after.starts_with(b"x")) {
            bytes.push(*first);
            continue;
        }
        let (escaped, after) = rest.split_first()?;
        rest = after;
        if *escaped == b'x' {
            let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &rest[2..];
        } else {
            bytes.push(match escaped {
                b'n' => b'\n',
                b'r' => b'\r',
                b't' => b'\t',
                b'b' => 8,
                other => *other,
            });
        }
    }
    Some(bytes)
}

/// Is this what the server printed of our cell?
fn is_printed(column: &Column, ours: &[u8], printed: &[u8], compared: &mut Compared) -> bool {
    use ColumnType as T;
    let text = String::from_utf8_lossy(printed).trim().to_owned();
    match column.kind {
        T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong => {
            count(compared, "integers");
            // A value that could have a sign is printed both ways.
            let (first, other) = text
                .split_once(" (")
                .map_or((&*text, None), |(first, other)| (first, Some(other.trim_end_matches(')'))));
            let signed = text_of(column, false, ours).unwrap();
            let unsigned = text_of(column, true, ours).unwrap();
            match (column.unsigned, other) {
                (Some(true), None) => first.as_bytes() == unsigned,
                (_, None) => first.as_bytes() == signed,
                (_, Some(other)) => first.as_bytes() == signed && other.as_bytes() == unsigned,
            }
        }
        T::Float | T::Double => {
            count(compared, "numbers with exponents");
            let Some(Cell::Real(value)) = cell::decode(column, false, Some(ours)) else { return false };
            let found: f64 = text.parse().unwrap();
            // Six digits are printed.
            (found - value).abs() <= value.abs() * 1e-5
        }
        T::Bit { .. } | T::Set { .. } => {
            count(compared, "bits");
            let bits = text.trim_start_matches("b'").trim_end_matches('\'');
            let found = u64::from_str_radix(bits, 2).unwrap().to_string();
            text_of(column, false, ours).unwrap() == found.as_bytes()
        }
        T::Date | T::DateTime { .. } | T::Time { .. } | T::Timestamp { .. } => {
            count(compared, "times");
            let found = text.trim_matches('\'');
            let found = match column.kind {
                T::Date => found.replace(':', "-"),
                _ => found.to_owned(),
            };
            text_of(column, false, ours).unwrap() == found.as_bytes()
        }
        T::Decimal { .. } | T::Year | T::Enum { .. } => {
            count(compared, "decimals, years and enumerations");
            let ours = String::from_utf8(text_of(column, false, ours).unwrap()).unwrap();
            ours == text || matches!(column.kind, T::Year) && format!("{ours:0>4}") == text
        }
        T::Char { .. } | T::VarChar { .. } | T::Blob { .. } => {
            count(compared, "texts");
            let ours = column.width.strip(ours);
            // MariaDB's leaves quotes and backslashes as they are.
            [true, false].into_iter().any(|all| unquoted(printed, all).as_deref() == Some(ours))
        }
        // Each server has its own way of printing these.
        _ => {
            count(compared, "only seen to be there");
            true
        }
    }
}

fn compare_with_the_server(ours: &Ours, theirs: &[PrintedRow]) -> Compared {
    let mut compared = Compared::new();
    for (number, (our, their)) in ours.rows.iter().zip(theirs).enumerate() {
        let place = format!("row {number} of {}: {} {}", ours.rows.len(), our.change, our.table);
        assert_eq!((our.change, &*our.table), (&*their.change, &*their.table), "{place}");
        for (ours, theirs, after) in [(&our.before, &their.before, false), (&our.after, &their.after, true)] {
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                assert_eq!(ours.is_some(), theirs.is_some(), "{place}");
                continue;
            };
            let columns = |found: Vec<u16>| found;
            assert_eq!(
                columns(ours.iter().map(|(at, ..)| *at).collect()),
                columns(theirs.iter().map(|(at, _)| *at).collect()),
                "{place}"
            );
            for ((at, column, bytes), (_, printed)) in ours.iter().zip(theirs) {
                let json = matches!(column.kind, ColumnType::Json { .. });
                let same = match bytes {
                    // No differences of a document are printed as an empty place, and some as calls of functions.
                    _ if json && our.partial && after => true,
                    // MySQL's has no way of printing these, and says so.
                    _ if printed.starts_with(b"!!") => !is_printable(column.kind),
                    None => printed == b"NULL",
                    Some(bytes) => printed != b"NULL" && is_printed(column, bytes, printed, &mut compared),
                };
                let printed = String::from_utf8_lossy(printed);
                assert!(same, "{place}: @{} is {column:?} {bytes:02x?}, printed {printed}", at + 1);
            }
        }
    }
    assert_eq!(ours.rows.len(), theirs.len(), "rows");
    compared
}

// ---- the crate ----------------------------------------------------------------------------------

type CrateRow = (&'static str, String, Option<BinlogRow>, Option<BinlogRow>);

fn read_by_the_crate(files: &[PathBuf]) -> Vec<CrateRow> {
    let mut rows = Vec::new();
    for path in files {
        let bytes = std::fs::read(path).unwrap();
        let mut file = BinlogFile::new(BinlogVersion::Version4, &bytes[..]).unwrap();
        while let Some(event) = file.next() {
            let event = event.unwrap();
            match event.read_data().unwrap() {
                Some(EventData::RowsEvent(data)) => take_rows(&data, file.reader(), &mut rows),
                Some(EventData::TransactionPayloadEvent(payload)) => {
                    let plain = payload.clone().danger_decompress();
                    let mut rest = &plain[..];
                    while let Some(inner) = file.reader_mut().read_decompressed(&mut rest).unwrap() {
                        if let Some(EventData::RowsEvent(data)) = inner.read_data().unwrap() {
                            take_rows(&data, file.reader(), &mut rows);
                        }
                    }
                }
                _ => {}
            }
        }
    }
    rows
}

fn take_rows(data: &RowsEventData<'_>, reader: &EventStreamReader, rows: &mut Vec<CrateRow>) {
    // One that only ends a statement.
    if data.rows_data().is_empty() {
        return;
    }
    let map = reader.get_tme(data.table_id()).unwrap();
    let table = format!("`{}`.`{}`", map.database_name(), map.table_name());
    for row in data.rows(map) {
        let (before, after) = row.unwrap();
        let change = match (&before, &after) {
            (None, _) => "INSERT INTO",
            (Some(_), Some(_)) => "UPDATE",
            (Some(_), None) => "DELETE FROM",
        };
        rows.push((change, table.clone(), before, after));
    }
}

/// Is our cell what the crate read? `None` is not compared.
fn is_value(column: &Column, ours: &[u8], theirs: &BinlogValue<'_>, compared: &mut Compared) -> bool {
    use ColumnType as T;
    let text = || String::from_utf8(text_of(column, false, ours).unwrap()).unwrap();
    match (column.kind, theirs) {
        (T::Tiny | T::Short | T::Int24 | T::Long | T::LongLong, BinlogValue::Value(value)) => {
            count(compared, "integers");
            match value {
                Value::Int(found) if *found < 0 => text() == found.to_string(),
                Value::Int(found) => {
                    text() == found.to_string()
                        || text_of(column, true, ours).unwrap() == found.to_string().as_bytes()
                }
                Value::UInt(found) => text_of(column, true, ours).unwrap() == found.to_string().as_bytes(),
                _ => false,
            }
        }
        (T::Enum { .. }, BinlogValue::Value(Value::Int(found))) => {
            count(compared, "enumerations");
            text() == found.to_string()
        }
        (T::Float | T::Double, BinlogValue::Value(value)) => {
            count(compared, "numbers with exponents");
            let Some(Cell::Real(our)) = cell::decode(column, false, Some(ours)) else { return false };
            match value {
                Value::Float(found) => f64::from(*found) == our,
                Value::Double(found) => *found == our,
                _ => false,
            }
        }
        (T::Decimal { .. } | T::Year, BinlogValue::Value(Value::Bytes(found))) => {
            count(compared, "decimals and years");
            let found = String::from_utf8_lossy(found);
            // The year that is none is 1900 there.
            text() == found || text() == "0" && matches!(column.kind, T::Year)
        }
        (T::Date | T::DateTime { .. }, BinlogValue::Value(Value::Date(y, m, d, h, min, s, us))) => {
            count(compared, "times");
            let fraction = format!("{us:06}");
            match column.kind {
                T::DateTime { fraction: digits } => {
                    let tail = &fraction[..usize::from(digits)];
                    let dot = if digits == 0 { "" } else { "." };
                    text() == format!("{y:04}-{m:02}-{d:02} {h:02}:{min:02}:{s:02}{dot}{tail}")
                }
                _ => text() == format!("{y:04}-{m:02}-{d:02}"),
            }
        }
        (T::Time { fraction }, BinlogValue::Value(Value::Time(negative, days, h, m, s, us))) => {
            count(compared, "times");
            let sign = if *negative { "-" } else { "" };
            let hours = days * 24 + u32::from(*h);
            let tail = &format!("{us:06}")[..usize::from(fraction)];
            let dot = if fraction == 0 { "" } else { "." };
            text() == format!("{sign}{hours:02}:{m:02}:{s:02}{dot}{tail}")
        }
        (T::Timestamp { .. }, BinlogValue::Value(Value::Bytes(found))) => {
            count(compared, "times");
            let found: f64 = String::from_utf8_lossy(found).parse().unwrap();
            found == text().parse::<f64>().unwrap()
        }
        (T::Bit { .. }, BinlogValue::Value(Value::Bytes(found))) => {
            count(compared, "bits");
            found == ours
        }
        (
            T::Set { .. }
            | T::Char { .. }
            | T::VarChar { .. }
            | T::Blob { .. }
            | T::Geometry { .. }
            | T::Vector { .. },
            BinlogValue::Value(Value::Bytes(found)),
        ) => {
            count(compared, "texts");
            found == column.width.strip(ours)
        }
        (T::Json { .. }, BinlogValue::Jsonb(found)) => {
            let our = column.width.strip(ours);
            if our.is_empty() {
                return true;
            }
            let our = Json::parse(our).unwrap();
            match serde_json::Value::try_from(found.clone()) {
                Ok(found) => {
                    count(compared, "documents");
                    same_json(&our, &found)
                }
                // One with values that JSON has no types for.
                Err(_) => has_others(&our),
            }
        }
        // Differences are compared as such by the tests of replay.
        (T::Json { .. }, BinlogValue::JsonDiff(_)) => true,
        _ => false,
    }
}

fn has_others(json: &Json) -> bool {
    match json {
        Json::Opaque { .. } => true,
        Json::Array(items) => items.iter().any(has_others),
        Json::Object(members) => members.iter().any(|(_, item)| has_others(item)),
        _ => false,
    }
}

fn same_json(ours: &Json, theirs: &serde_json::Value) -> bool {
    use serde_json::Value as V;
    match (ours, theirs) {
        (Json::Null, V::Null) => true,
        (Json::Bool(a), V::Bool(b)) => a == b,
        (Json::Int(a), V::Number(b)) => b.as_i64() == Some(*a),
        (Json::Uint(a), V::Number(b)) => b.as_u64() == Some(*a),
        (Json::Double(a), V::Number(b)) => b.as_f64() == Some(*a),
        (Json::Text(a), V::String(b)) => a == b,
        (Json::Array(a), V::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_json(a, b)),
        (Json::Object(a), V::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(name, a)| b.get(name).is_some_and(|b| same_json(a, b)))
        }
        _ => false,
    }
}

fn compare_with_the_crate(ours: &Ours, theirs: &[CrateRow]) -> Compared {
    let mut compared = Compared::new();
    for (number, (our, (change, table, before, after))) in ours.rows.iter().zip(theirs).enumerate() {
        let place = format!("row {number} of {}: {} {}", ours.rows.len(), our.change, our.table);
        assert_eq!((our.change, &our.table), (*change, table), "{place}");
        for (ours, theirs) in [(&our.before, before), (&our.after, after)] {
            let (Some(ours), Some(theirs)) = (ours, theirs) else {
                assert_eq!(ours.is_some(), theirs.is_some(), "{place}");
                continue;
            };
            assert_eq!(ours.len(), theirs.len(), "{place}: columns");
            for (index, (at, column, bytes)) in ours.iter().enumerate() {
                let their = theirs.as_ref(index).unwrap();
                let same = match bytes {
                    None => matches!(their, BinlogValue::Value(Value::NULL)),
                    Some(bytes) => is_value(column, bytes, their, &mut compared),
                };
                assert!(same, "{place}: @{} is {column:?} {bytes:02x?}, the crate has {their:?}", at + 1);
            }
        }
    }
    assert_eq!(ours.rows.len(), theirs.len(), "rows");
    compared
}

// ---- the logs -------------------------------------------------------------------------------------

/// Every type, its ends and what is between.
fn every_type(source: &TestServer) {
    let mysql = source.engine() == Engine::MySql;
    source.run(&[
        "CREATE TABLE app.every (id INT PRIMARY KEY, t1 TINYINT, t2 TINYINT UNSIGNED, s1 SMALLINT, s2 SMALLINT UNSIGNED, \
         m1 MEDIUMINT, m2 MEDIUMINT UNSIGNED, i2 INT UNSIGNED, b1 BIGINT, b2 BIGINT UNSIGNED, d1 DECIMAL(65,30), \
         d2 DECIMAL(3,0), d3 DECIMAL(9,9), f FLOAT, g DOUBLE, y YEAR, d DATE, t TIME, tf TIME(6), dt DATETIME, \
         df DATETIME(1), ts TIMESTAMP NULL, tm TIMESTAMP(6) NULL, b BIT(1), bb BIT(64), e ENUM('a','b','c'), \
         s SET('a','b','c','d','e','f','g','h','i'), c CHAR(10) CHARACTER SET latin1, cu CHAR(255) CHARACTER SET utf8mb4, \
         v VARCHAR(255) CHARACTER SET latin1, w VARCHAR(2000) CHARACTER SET utf8mb4, bi BINARY(4), vb VARBINARY(300), \
         x1 TINYBLOB, x2 BLOB, x3 MEDIUMBLOB, x4 LONGTEXT)",
        "SET time_zone = '+00:00'",
        "INSERT INTO app.every VALUES (1, -128, 255, -32768, 65535, -8388608, 16777215, 4294967295, -9223372036854775808, \
         18446744073709551615, -99999999999999999999999999999999999.999999999999999999999999999999, 999, -0.000000001, -1.5, \
         -2.5e-300, 1901, '1000-01-01', '-838:59:59', '-00:00:00.000001', '9999-12-31 23:59:59', '2026-11-22 01:02:03.4', \
         '2038-01-19 03:14:07', '1970-01-01 00:00:01.000001', b'1', x'8000000000000001', 'c', 'a,i', 'x  ', 'ü', '', \
         REPEAT('ß', 300), x'00ff', x'5c27', x'00010a5c27', REPEAT('y', 300), REPEAT('z', 70000), 'it''s \\\\ so')",
        "INSERT INTO app.every (id) VALUES (2)",
        "INSERT INTO app.every VALUES (3, 127, 0, 32767, 0, 8388607, 0, 0, 9223372036854775807, 0, 0, -999, 0.999999999, \
         3.25e38, 1.7e308, 2155, '9999-12-31', '838:59:59', '12:34:56.789012', '1000-01-01 00:00:00', NULL, \
         '1970-01-01 00:00:01', '2038-01-19 03:14:07.999999', b'0', b'0', 'a', '', REPEAT('c', 10), REPEAT('d', 255), \
         REPEAT('v', 255), 'w', '', '', '', '', '', '')",
        "UPDATE app.every SET d1 = d1 + 1.5, v = CONCAT('changed', id), dt = '2026-01-02 03:04:05'",
        "DELETE FROM app.every WHERE id = 2",
        // MySQL's reader prints nothing of an event behind such a value.
        "CREATE TABLE app.places (id INT PRIMARY KEY, p POINT)",
        "INSERT INTO app.places VALUES (1, POINT(1, 2))",
        "INSERT INTO app.places VALUES (2, NULL)",
        "SET time_zone = DEFAULT",
    ]);
    if mysql {
        source.run(&[
            "CREATE TABLE app.documents (id INT PRIMARY KEY, j JSON)",
            "INSERT INTO app.documents VALUES (1, '{\"a\": [1, -2, 3.5, 18446744073709551615, null, true, \"ü\"], \"b\": {}}'), \
             (2, '[]'), (3, NULL), (4, '\"text\"'), \
             (5, JSON_OBJECT('d', CAST('2026-11-22 01:02:03' AS DATETIME), 'n', CAST(1.25 AS DECIMAL(5,2)), 'l', REPEAT('x', 70000)))",
            "CREATE TABLE app.vectors (id INT PRIMARY KEY, v VECTOR(3))",
            "INSERT INTO app.vectors VALUES (1, STRING_TO_VECTOR('[1, 2, 3]'))",
            "UPDATE app.documents SET j = JSON_SET(j, '$.a[1]', 'changed') WHERE id = 1",
        ]);
    }
}

fn logs(engine: Engine, random: &mut Random, rounds: u64) -> (TestServer, Vec<PathBuf>) {
    let mut extra = options(engine, random);
    // With it the log tells which integers have no sign.
    if random.below(2) == 0 {
        extra.push("--binlog-row-metadata=FULL");
    }
    let source = TestServer::start_with(engine, &extra);
    let first = binlogs(source.datadir());
    source.run(SCHEMA);
    every_type(&source);
    mixed(&source, random, rounds);
    rarities(&source);
    source.run(&["FLUSH BINARY LOGS"]);
    let all = binlogs(source.datadir());
    let skipped = first.len().saturating_sub(1);
    let files =
        all[skipped..all.len() - 1].iter().map(|name| source.datadir().join(Path::new(name))).collect();
    (source, files)
}

fn rounds() -> u64 {
    std::env::var("HOLDFAST_TEST_ROUNDS").map_or(300, |text| text.parse().unwrap())
}

fn all_readers_agree(engine: Engine) {
    let (mut random, _) = Random::from_environment("second_readers");
    let (_source, files) = logs(engine, &mut random, rounds());
    let ours = Ours::read(&files);
    let compared = compare_with_the_server(&ours, &printed_by_the_server(engine, &files));
    println!(
        "{engine:?}: {} rows, {} row events in packed transactions, {} packed row events; beside the server's reader: {compared:?}",
        ours.rows.len(),
        ours.packed,
        ours.compressed
    );
    assert!(ours.rows.len() > 100 && compared.values().sum::<u64>() > 500, "there is little to compare");
    if engine == Engine::MySql {
        let compared = compare_with_the_crate(&ours, &read_by_the_crate(&files));
        println!("beside mysql_common: {compared:?}");
        assert!(compared.values().sum::<u64>() > 500, "there is little to compare");
    }
}

#[test]
fn a_mysql_log_reads_the_same_to_three_readers() {
    all_readers_agree(Engine::MySql);
}

#[test]
fn a_mariadb_log_reads_the_same_to_its_own_reader() {
    all_readers_agree(Engine::MariaDb);
}
