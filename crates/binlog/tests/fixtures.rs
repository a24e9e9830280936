//! Real logs of MySQL 9.7.4 and MariaDB 10.11.19 (tests/data, made by the .sql files there).

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that can't go on has failed"
)]

use std::collections::BTreeMap;

use holdfast_binlog::event::Body;
use holdfast_binlog::kind::RowChange;
use holdfast_binlog::table_map::TableMap;
use holdfast_binlog::transaction::{Assembler, Kind, Oddity, Pushed, Transaction};
use holdfast_binlog::{Error, Event, EventType, FormatDescription, Walker};

const ALL: [&str; 12] = [
    "mysql-rows",
    "mysql-ddl",
    "mysql-payload",
    "mysql-tagged",
    "mysql-xa",
    "mysql-statement",
    "mysql-json",
    "mariadb-rows",
    "mariadb-compressed",
    "mariadb-ddl",
    "mariadb-xa",
    "mariadb-statement",
];

fn read(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}.binlog", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// What a log holds, counted by our own reading.
#[derive(Debug, Default)]
struct Seen {
    events: BTreeMap<u8, u32>,
    gtids: Vec<String>,
    statements: Vec<String>,
    /// Table, (inserts, updates, deletes).
    rows: BTreeMap<String, [u32; 3]>,
}

impl Seen {
    fn event(&mut self, event: &Event<'_>, format: &FormatDescription, tables: &mut BTreeMap<u64, Vec<u8>>) {
        *self.events.entry(event.kind().0).or_default() += 1;
        let mut scratch = Vec::new();
        match event.parse(format).unwrap() {
            Body::Gtid(gtid) => self.gtids.push(gtid.gtid.unwrap().to_string()),
            Body::Query(query) => {
                self.statements.push(String::from_utf8_lossy(query.text(&mut scratch).unwrap()).into_owned());
            }
            Body::TableMap(map) => {
                tables.insert(map.table_id, event.raw.to_vec());
            }
            Body::Rows(rows) if !rows.is_dummy() => {
                let raw = tables[&rows.table_id].clone();
                let mut walker =
                    Walker::resume(FormatDescription { checksum: event.checksum, ..format.clone() }, 0);
                let map_event = walker.whole(&raw).unwrap();
                let Body::TableMap(map) = map_event.parse(format).unwrap() else { panic!() };
                self.rows(&map, &rows);
            }
            Body::Payload(payload) => {
                let mut inner_tables = BTreeMap::new();
                let mut events = payload.events(event, format).unwrap();
                while let Some(inner) = events.next_event().unwrap() {
                    self.event(&inner, format, &mut inner_tables);
                }
            }
            _ => {}
        }
    }

    fn rows(&mut self, map: &TableMap<'_>, rows: &holdfast_binlog::rows::Rows<'_>) {
        let mut scratch = Vec::new();
        let rows = rows.inflated(&mut scratch).unwrap();
        let plan = rows.plan(&map.columns().unwrap()).unwrap();
        let name = String::from_utf8_lossy(map.table).into_owned();
        let slot = match rows.kind.change {
            RowChange::Insert => 0,
            RowChange::Update => 1,
            RowChange::Delete => 2,
        };
        let mut total = 0;
        for row in plan.rows(rows.data) {
            total += row.unwrap().bytes.len();
            self.rows.entry(name.clone()).or_default()[slot] += 1;
        }
        assert_eq!(total, rows.data.len());
    }
}

fn see(name: &str) -> Seen {
    let bytes = read(name);
    let mut walker = Walker::new(0);
    let mut rest = walker.file(&bytes).unwrap();
    let (mut seen, mut tables) = (Seen::default(), BTreeMap::new());
    while !rest.is_empty() {
        let event = walker.whole(rest).unwrap();
        rest = &rest[event.raw.len()..];
        assert_eq!(u64::from(event.header.log_pos), walker.position(), "{name}: positions continue");
        let format = walker.format().unwrap().clone();
        seen.event(&event, &format, &mut tables);
    }
    seen
}

#[test]
fn every_event_of_real_logs_is_read() {
    for name in ALL {
        see(name);
    }
}

#[test]
fn rows_of_all_types_are_counted_as_they_were_written() {
    let mysql = see("mysql-rows");
    assert_eq!(mysql.rows["types"], [3, 1, 1]);
    assert_eq!(mysql.rows["parent"], [3, 1, 2]);
    assert_eq!(mysql.rows["child"], [5, 0, 3], "cascades of 9.7 are in the log");
    assert_eq!(mysql.rows["nopk"], [3, 0, 0]);
    assert_eq!(mysql.rows["ckey"], [3, 1, 0]);
    let maria = see("mariadb-rows");
    assert_eq!(maria.rows["types"], [3, 1, 1]);
    assert_eq!(maria.rows["parent"], [3, 1, 2]);
    assert_eq!(maria.rows["child"], [5, 0, 0], "cascades of MariaDB are not");
}

#[test]
fn payloads_and_compressed_events_are_unpacked() {
    let mysql = see("mysql-payload");
    assert_eq!(mysql.rows["parent"], [1, 1, 0]);
    assert_eq!(mysql.rows["nopk"], [50, 0, 0]);
    let maria = see("mariadb-compressed");
    assert_eq!(maria.rows["nopk"], [50, 20, 30]);
    assert!(maria.events.contains_key(&EventType::QUERY_COMPRESSED.0));
    assert!(maria.events.contains_key(&EventType::UPDATE_ROWS_COMPRESSED_V1.0));
    assert!(maria.statements.iter().any(|s| s.starts_with("CREATE TABLE comp (a INT COMMENT")));
}

#[test]
fn tagged_gtids_are_read() {
    let seen = see("mysql-tagged");
    let tails: Vec<&str> = seen.gtids.iter().map(|g| &g[37..]).collect();
    assert_eq!(tails, ["backup_tag:1", "backup_tag:2", "other:1000000", "7"]);
    assert!(seen.gtids[2].starts_with("11111111-2222-3333-4444-555555555555:"));
    let bytes = read("mysql-xa");
    let mut events = Walker::events(&bytes);
    let format = events.next().map(|e| e.unwrap()).unwrap();
    let Body::FormatDescription(format) = format
        .parse(&FormatDescription {
            server_version: String::new(),
            created: 0,
            post_header_lengths: vec![],
            checksum: holdfast_binlog::Checksum::Off,
        })
        .unwrap()
    else {
        panic!()
    };
    assert_eq!(format.server_version, "9.7.4-2");
    let previous = events.next().unwrap().unwrap();
    let Body::PreviousGtids(set) = previous.parse(&format).unwrap() else { panic!() };
    assert_eq!(set.to_server_bytes(), previous.body(), "our form of a tagged set is the server's");
    assert!(set.to_string().starts_with("11111111-2222-3333-4444-555555555555:7:other:1000000,"));
}

#[test]
fn a_flipped_bit_anywhere_is_found() {
    for name in ["mysql-tagged", "mariadb-xa"] {
        let bytes = read(name);
        for at in 0..bytes.len() {
            // The in-use flag of the format description is outside its checksum.
            if at == 21 {
                continue;
            }
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Walker::events(&bad).any(|e| e.is_err()), "{name}: byte {at}");
        }
    }
}

#[test]
fn a_cut_log_is_an_error_at_every_length_inside_an_event() {
    let bytes = read("mysql-tagged");
    let mut borders = vec![4];
    for event in Walker::events(&bytes) {
        borders.push(borders.last().unwrap() + event.unwrap().raw.len());
    }
    for len in 4..bytes.len() {
        let last = Walker::events(&bytes[..len]).last();
        if borders.contains(&len) {
            assert!(last.is_none_or(|e| e.is_ok()));
        } else {
            assert!(matches!(last, Some(Err(Error::Cut { .. }))), "{len}");
        }
    }
}

fn transactions(name: &str) -> Vec<Transaction> {
    let bytes = read(name);
    let mut walker = Walker::new(0);
    let mut rest = walker.file(&bytes).unwrap();
    let (mut assembler, mut out) = (Assembler::new(), Vec::new());
    while !rest.is_empty() {
        let event = walker.whole(rest).unwrap();
        rest = &rest[event.raw.len()..];
        let pushed = assembler.push(&event, walker.format().unwrap()).unwrap();
        if let Pushed::End(transaction) = pushed {
            out.push(*transaction);
        }
    }
    assert!(!assembler.is_open(), "{name} ends outside a transaction");
    out
}

#[test]
fn transactions_tile_the_log_and_each_gtid_has_one() {
    for name in ALL {
        let seen = see(name);
        let all = transactions(name);
        let gtids: Vec<String> = all.iter().map(|t| t.gtid.as_ref().unwrap().to_string()).collect();
        assert_eq!(gtids, seen.gtids, "{name}");
        for pair in all.windows(2) {
            assert!(pair[0].end <= pair[1].start, "{name}");
        }
        let mut rows = BTreeMap::new();
        for (key, counts) in all.iter().flat_map(|t| &t.tables) {
            let sum: &mut [u64; 3] = rows.entry(key.table.clone()).or_default();
            *sum = [sum[0] + counts.inserts, sum[1] + counts.updates, sum[2] + counts.deletes];
        }
        let want = seen.rows.iter().map(|(name, n)| (name.clone(), n.map(u64::from))).collect();
        assert_eq!(rows, want, "{name}");
        for transaction in &all {
            assert!(transaction.commit_micros > 1_690_000_000_000_000, "{name}: {transaction:?}");
        }
    }
}

#[test]
fn transactions_are_of_the_kind_that_was_run() {
    let kinds = |name: &str, kind: Kind| transactions(name).iter().filter(|t| t.kind == kind).count();
    assert_eq!(kinds("mysql-ddl", Kind::Ctas), 1);
    assert_eq!(kinds("mysql-ddl", Kind::Acl), 7);
    assert_eq!(kinds("mysql-ddl", Kind::Rows), 2, "the event ran once");
    assert_eq!(kinds("mysql-ddl", Kind::Maintenance), 2);
    assert_eq!(kinds("mysql-payload", Kind::Rows), 1);
    assert_eq!(kinds("mysql-xa", Kind::Xa), 5);
    assert_eq!(kinds("mariadb-xa", Kind::Xa), 4);
    assert_eq!(kinds("mariadb-ddl", Kind::Ctas), 2);
    assert_eq!(kinds("mariadb-ddl", Kind::Acl), 7);
    assert_eq!(kinds("mysql-statement", Kind::Statement), 3);
    assert_eq!(kinds("mariadb-statement", Kind::Statement), 3);
    let all = transactions("mariadb-ddl");
    let phases: Vec<_> = all.iter().filter_map(|t| t.alter).collect();
    assert_eq!(phases.len(), 4, "{phases:?}");
    let dropped = all.iter().flat_map(|t| &t.statements).find(|s| s.text.starts_with("DROP TABLE")).unwrap();
    let names: Vec<String> = dropped.tables.iter().map(ToString::to_string).collect();
    assert_eq!(names, ["fx.ab", "fx.ctas"]);
}

#[test]
fn what_needs_care_is_named() {
    let odd = |name: &str| -> Vec<Oddity> {
        let all = transactions(name);
        all.iter().flat_map(|t| &t.oddities).map(|o| o.oddity).collect()
    };
    assert!(odd("mysql-rows").is_empty(), "{:?}", odd("mysql-rows"));
    assert!(odd("mariadb-rows").is_empty());
    assert!(odd("mysql-ddl").is_empty(), "{:?}", odd("mysql-ddl"));
    assert!(odd("mariadb-ddl").is_empty(), "{:?}", odd("mariadb-ddl"));
    assert!(odd("mysql-statement").contains(&Oddity::StatementDml));
    assert!(odd("mysql-statement").contains(&Oddity::Load));
    assert!(odd("mariadb-statement").contains(&Oddity::Load));
    assert!(odd("mariadb-statement").contains(&Oddity::Variable));
    assert_eq!(odd("mysql-json"), [Oddity::PartialJson; 2]);
    let json = transactions("mysql-json");
    let at = json.iter().flat_map(|t| &t.oddities).next().unwrap();
    assert_eq!(at.subject.as_deref(), Some("fx.js"));
}
