//! What a scan refuses, on the log of a real LOAD DATA with single events put in or changed.

use holdfast_binlog::encode;
use holdfast_binlog::event::{Body, FLAG_THREAD_SPECIFIC, Header};
use holdfast_binlog::walker::MAGIC;

use super::*;
use crate::log::MemoryLog;

/// An event.
#[derive(Clone)]
struct Piece {
    header: Header,
    body: Vec<u8>,
}

/// The transaction of a LOAD DATA as a server wrote it, and the log's format.
struct Loaded {
    format: Vec<u8>,
    pieces: Vec<Piece>,
}

impl Loaded {
    fn of(name: &str) -> Self {
        let path = format!("{}/../binlog/tests/data/{name}.binlog", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let (mut walker, mut assembler) = (Walker::new(0), Assembler::new());
        let mut rest = walker.file(&bytes).unwrap();
        let (mut format, mut pieces) = (Vec::new(), Vec::new());
        loop {
            let event = walker.whole(rest).unwrap();
            rest = &rest[event.raw.len()..];
            if event.kind() == EventType::FORMAT_DESCRIPTION {
                encode::format_description_off(&event, &mut format).unwrap();
            }
            pieces.push(Piece { header: event.header, body: event.body().to_vec() });
            match assembler.push(&event, walker.format().unwrap()).unwrap() {
                Pushed::Outside => pieces.clear(),
                Pushed::Inside => {}
                Pushed::End(_)
                    if pieces.iter().any(|piece| piece.header.kind == EventType::EXECUTE_LOAD_QUERY) =>
                {
                    return Self { format, pieces };
                }
                Pushed::End(_) => pieces.clear(),
            }
        }
    }

    fn at(&self, kind: EventType) -> usize {
        self.pieces.iter().position(|piece| piece.header.kind == kind).unwrap()
    }

    /// A statement in the session of BEGIN.
    fn query(&self, text: &str) -> Piece {
        let mut piece = self.pieces[self.at(EventType::QUERY)].clone();
        assert!(piece.body.ends_with(b"BEGIN"));
        piece.body.truncate(piece.body.len() - 5);
        piece.body.extend_from_slice(text.as_bytes());
        piece
    }

    fn scan(&self) -> Summary {
        let mut bytes = [MAGIC.as_slice(), &self.format].concat();
        for piece in &self.pieces {
            encode::event(&piece.header, piece.header.kind, &[&piece.body], &mut bytes).unwrap();
        }
        let mut log = MemoryLog::default();
        log.push("binlog.000001", bytes);
        scan(&log).unwrap()
    }
}

#[test]
fn a_load_that_is_committed_is_replayed() {
    let summary = Loaded::of("mysql-statement").scan();
    assert_eq!((summary.transactions, &summary.refused), (1, &Vec::new()));
    assert_eq!((summary.one_by_one.len(), summary.unsafe_count), (1, 0));
}

#[test]
fn a_load_that_was_rolled_back_is_not() {
    for statement_before in ["", "CREATE TEMPORARY TABLE x(a INT)"] {
        let mut loaded = Loaded::of("mysql-statement");
        let (begin, rollback) = (loaded.at(EventType::QUERY), loaded.query("ROLLBACK"));
        *loaded.pieces.last_mut().unwrap() = rollback;
        for _ in 0..if statement_before.is_empty() { 0 } else { 70 } {
            // More than are noted of a transaction.
            let query = loaded.query(statement_before);
            loaded.pieces.insert(begin + 1, query);
        }
        let summary = loaded.scan();
        assert_eq!(summary.refused_count, 1, "{:?}", summary.refused);
        assert!(summary.refused[0].starts_with("a rolled-back transaction"), "{:?}", summary.refused);
    }
}

#[test]
fn a_load_into_a_temporary_table_needs_the_table() {
    let mut loaded = Loaded::of("mysql-statement");
    let at = loaded.at(EventType::EXECUTE_LOAD_QUERY);
    loaded.pieces[at].header.flags |= FLAG_THREAD_SPECIFIC;
    let summary = loaded.scan();
    assert_eq!(summary.refused_count, 1, "{:?}", summary.refused);
    assert!(summary.refused[0].starts_with("a statement on a temporary table made before the range"));
    // The same connection made it in the range.
    let begin = loaded.at(EventType::QUERY);
    let mut query = loaded.query("CREATE TEMPORARY TABLE x(a INT)");
    let thread = loaded.pieces[at].body[..4].to_vec();
    query.body[..4].copy_from_slice(&thread);
    loaded.pieces.insert(begin + 1, query);
    assert_eq!(loaded.scan().refused, Vec::<String>::new());
}

#[test]
fn a_load_that_computes_something_new_each_time_is_named() {
    let mut loaded = Loaded::of("mysql-statement");
    let at = loaded.at(EventType::EXECUTE_LOAD_QUERY);
    loaded.pieces[at].body.extend_from_slice(b" SET c = UUID()");
    let summary = loaded.scan();
    assert_eq!((summary.unsafe_count, summary.refused_count), (1, 0), "{:?}", summary.refused);
    assert!(summary.unsafe_statements[0].starts_with("`LOAD DATA"), "{:?}", summary.unsafe_statements);
}

#[test]
fn a_load_that_is_replayed_hides_none_that_is_not() {
    for kind in [EventType::LOAD, EventType::CREATE_FILE, EventType::NEW_LOAD] {
        let mut loaded = Loaded::of("mysql-statement");
        let end = loaded.pieces.len() - 1;
        let mut old = loaded.pieces[end].clone();
        (old.header.kind, old.body) = (kind, vec![0; 40]);
        loaded.pieces.insert(end, old);
        let summary = loaded.scan();
        assert_eq!(summary.refused_count, 1, "{:?}", summary.refused);
        assert!(summary.refused[0].starts_with("LOAD DATA as an old server logs it"));
    }
    let mut loaded = Loaded::of("mysql-statement");
    let (end, query) = (loaded.pieces.len() - 1, loaded.query("LOAD DATA INFILE 'x' INTO TABLE t"));
    loaded.pieces.insert(end, query);
    assert_eq!(loaded.scan().refused_count, 1);
}

/// Of each transaction with rows of a log that a server wrote: its GTID, and the bytes of the longest row.
fn longest_rows(bytes: &[u8]) -> Vec<(Option<Gtid>, u64)> {
    let (mut walker, mut assembler) = (Walker::new(0), Assembler::new());
    let mut tables = holdfast_binlog::tables::TableCache::default();
    let mut rest = walker.file(bytes).unwrap();
    let (mut found, mut longest) = (Vec::new(), None);
    while !rest.is_empty() {
        let event = walker.whole(rest).unwrap();
        rest = &rest[event.raw.len()..];
        let Some(format) = walker.format() else { continue };
        match event.parse(format).unwrap() {
            Body::TableMap(map) => tables.insert(&map).unwrap(),
            Body::Rows(rows) if !rows.is_dummy() => {
                let mut scratch = Vec::new();
                let rows = rows.inflated(&mut scratch).unwrap();
                let (_, plan) = tables.plan(&rows).unwrap();
                let lengths = plan.rows(rows.data).map(|row| row.unwrap().bytes.len() as u64);
                longest = longest.max(lengths.max());
            }
            _ => {}
        }
        if let Pushed::End(transaction) = assembler.push(&event, format).unwrap()
            && let Some(longest) = longest.take()
        {
            found.push((transaction.gtid, longest));
        }
    }
    found
}

#[test]
fn a_row_that_no_packet_carries_is_refused_by_its_transaction() {
    for name in ["mysql-rows", "mariadb-rows", "mariadb-compressed"] {
        let path = format!("{}/../binlog/tests/data/{name}.binlog", env!("CARGO_MANIFEST_DIR"));
        let bytes = std::fs::read(path).unwrap();
        let rows = longest_rows(&bytes);
        let mut log = MemoryLog::default();
        log.push("binlog.000001", bytes);
        let refused = |packet_max| {
            let scanned = ahead::read(&log, |events| look_through(events, packet_max)).unwrap();
            let long = scanned.refused.iter().filter(|line| line.starts_with("a row of ")).cloned();
            (long.collect::<Vec<_>>(), scanned.refused_count)
        };
        let (none, others) = refused(PACKET_MAX);
        assert_eq!(none, Vec::<String>::new(), "{name}");
        let (gtid, longest) = rows.iter().max_by_key(|(_, longest)| *longest).unwrap();
        // A command, `BINLOG ''`, and the row behind 19 bytes of header as base64.
        let needed = 1 + 9 + (19 + longest).div_ceil(3) * 4;
        assert_eq!(refused(needed), (Vec::new(), others), "{name}: it fits");
        let (lines, count) = refused(needed - 1);
        let as_long = rows.iter().filter(|(_, row)| (19 + row).div_ceil(3) == (19 + longest).div_ceil(3));
        assert_eq!((lines.len() as u64, count), (as_long.count() as u64, others + lines.len() as u64));
        let words = format!("a packet of {needed} bytes, of {} that a server takes", needed - 1);
        let before = gtid
            .as_ref()
            .map_or("--before pos:binlog.000001:".into(), |gtid| format!("--before gtid:{gtid})"));
        let named = lines.iter().any(|line| line.contains(&words) && line.contains(&before));
        assert!(named, "{name}, {gtid:?}: {lines:?}");
    }
}
