//! Hostile bytes: whatever a log holds, reading it ends with a result or an error.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that can't go on has failed")]

mod common;

use holdfast_binlog::encode;
use holdfast_binlog::event::HEADER_LEN;
use holdfast_binlog::query::StatusVars;
use holdfast_binlog::{Checksum, EventType, FormatDescription, Walker};
use proptest::prelude::*;

const NAMES: [&str; 8] = [
    "mysql-rows",
    "mysql-ddl",
    "mysql-payload",
    "mysql-tagged",
    "mysql-json",
    "mariadb-rows",
    "mariadb-compressed",
    "mariadb-ddl",
];

/// The events of a real log without checksums, and their format: changes get past the CRC.
fn stripped(name: &str) -> (Vec<u8>, FormatDescription) {
    let bytes = std::fs::read(format!("{}/tests/data/{name}.binlog", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let mut walker = Walker::new(0);
    let mut rest = walker.file(&bytes).unwrap();
    let mut out = Vec::new();
    while !rest.is_empty() {
        let event = walker.whole(rest).unwrap();
        rest = &rest[event.raw.len()..];
        if event.kind() != EventType::FORMAT_DESCRIPTION {
            encode::stripped(&event, &mut out).unwrap();
        }
    }
    let format = walker.format().unwrap().clone();
    (out, FormatDescription { checksum: Checksum::Off, ..format })
}

/// Positions and values of bytes to change, and where to cut.
fn damage() -> impl Strategy<Value = (usize, Vec<(usize, u8)>, usize)> {
    (0..NAMES.len(), prop::collection::vec((any::<usize>(), any::<u8>()), 1..6), any::<usize>())
}

#[test]
fn undamaged_logs_parse_whole_without_checksums() {
    for name in NAMES {
        let (bytes, format) = stripped(name);
        let mut events = 0;
        let mut walker = Walker::resume(format.clone(), 4);
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            rest = &rest[walker.whole(rest).unwrap().raw.len()..];
            events += 1;
        }
        assert_eq!(common::read_everything(&bytes, &format), events, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn changed_bytes_anywhere_are_read_or_refused((name, changes, cut) in damage()) {
        let (mut bytes, format) = stripped(NAMES[name]);
        for (at, value) in changes {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        if cut % 4 == 0 {
            bytes.truncate(cut % bytes.len());
        }
        common::read_everything(&bytes, &format);
    }

    #[test]
    fn changed_bodies_are_read_or_refused((name, changes, _) in damage()) {
        // Headers stay as they are, so that every change reaches a parser of bodies.
        let (mut bytes, format) = stripped(NAMES[name]);
        let mut bodies = Vec::new();
        let (mut walker, mut at) = (Walker::resume(format.clone(), 4), 0);
        while at < bytes.len() {
            let len = walker.whole(&bytes[at..]).unwrap().raw.len();
            bodies.extend(at + HEADER_LEN..at + len);
            at += len;
        }
        for (pick, value) in changes {
            bytes[bodies[pick % bodies.len()]] = value;
        }
        common::read_everything(&bytes, &format);
    }

    #[test]
    fn any_status_variables_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..64), mariadb: bool) {
        let _ = StatusVars::parse(&bytes, mariadb);
    }

    #[test]
    fn any_bytes_after_a_format_are_read_or_refused(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..200)) {
        let (real, format) = stripped("mariadb-ddl");
        let like = holdfast_binlog::Header::read(real[..HEADER_LEN].try_into().unwrap());
        let mut bytes = Vec::new();
        encode::event(&like, EventType(kind), &[&body], &mut bytes).unwrap();
        common::read_everything(&bytes, &format);
    }
}
