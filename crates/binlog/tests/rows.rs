//! Rows made by hand: what is cut must be what was put together, and keys must tell rows apart.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test that can't go on has failed"
)]

use holdfast_binlog::event::{Body, Event, Header};
use holdfast_binlog::rows::{FLAG_STMT_END, Rows};
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::{Checksum, EventType, FormatDescription, Walker, encode};
use proptest::prelude::*;

/// A column: type code, metadata, and how a value of it is written.
#[derive(Debug, Clone, Copy)]
struct Kind {
    code: u8,
    meta: &'static [u8],
    fixed: Option<usize>,
    prefix: usize,
}

const KINDS: [Kind; 10] = [
    Kind { code: 1, meta: &[], fixed: Some(1), prefix: 0 },
    Kind { code: 3, meta: &[], fixed: Some(4), prefix: 0 },
    Kind { code: 8, meta: &[], fixed: Some(8), prefix: 0 },
    Kind { code: 18, meta: &[6], fixed: Some(8), prefix: 0 },
    Kind { code: 246, meta: &[10, 3], fixed: Some(6), prefix: 0 },
    Kind { code: 15, meta: &[100, 0], fixed: None, prefix: 1 },
    Kind { code: 15, meta: &[0, 4], fixed: None, prefix: 2 },
    Kind { code: 252, meta: &[2], fixed: None, prefix: 2 },
    Kind { code: 245, meta: &[4], fixed: None, prefix: 4 },
    Kind { code: 254, meta: &[0xfe, 20], fixed: None, prefix: 1 },
];

fn format() -> FormatDescription {
    FormatDescription {
        server_version: "9.7.4".to_owned(),
        created: 0,
        post_header_lengths: Vec::new(),
        checksum: Checksum::Off,
    }
}

fn header() -> Header {
    Header { timestamp: 1, kind: EventType::TABLE_MAP, server_id: 1, length: 0, log_pos: 0, flags: 0 }
}

fn table_map(kinds: &[Kind]) -> Vec<u8> {
    let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, kinds.len() as u8];
    body.extend(kinds.iter().map(|k| k.code));
    let meta: Vec<u8> = kinds.iter().flat_map(|k| k.meta.iter().copied()).collect();
    body.push(meta.len() as u8);
    body.extend(meta);
    body.extend(vec![0xff; kinds.len().div_ceil(8)]);
    let mut out = Vec::new();
    encode::event(&header(), EventType::TABLE_MAP, &[&body], &mut out).unwrap();
    out
}

/// An image: NULL bits, then cells.
fn image(kinds: &[Kind], values: &[Option<Vec<u8>>]) -> Vec<u8> {
    let mut out = vec![0u8; kinds.len().div_ceil(8)];
    for (i, (kind, value)) in kinds.iter().zip(values).enumerate() {
        match value {
            None => out[i / 8] |= 1 << (i % 8),
            Some(value) => {
                match kind.fixed {
                    Some(len) => out.extend((0..len).map(|k| value.get(k).copied().unwrap_or(7))),
                    None => {
                        out.extend_from_slice(&(value.len() as u64).to_le_bytes()[..kind.prefix]);
                        out.extend_from_slice(value);
                    }
                };
            }
        }
    }
    out
}

type Row = Vec<Option<Vec<u8>>>;

fn tables() -> impl Strategy<Value = (Vec<Kind>, Vec<Row>)> {
    prop::collection::vec(prop::sample::select(KINDS.to_vec()), 1..20).prop_flat_map(|kinds| {
        let value = prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..40));
        let row = prop::collection::vec(value, kinds.len());
        (Just(kinds), prop::collection::vec(row, 1..20))
    })
}

fn with_rows(kinds: &[Kind], data: &[u8], check: impl FnOnce(&Event<'_>, &Rows<'_>, &mut TableCache)) {
    let mut bytes = table_map(kinds);
    let map_len = bytes.len();
    let width = kinds.len();
    let mut head = vec![9, 0, 0, 0, 0, 0, 1, 0, 2, 0, width as u8];
    head.extend(vec![0xff; width.div_ceil(8)]);
    encode::event(&header(), EventType::WRITE_ROWS, &[&head, data], &mut bytes).unwrap();
    let mut walker = Walker::resume(format(), 4);
    let map = walker.whole(&bytes).unwrap();
    let Body::TableMap(map) = map.parse(&format()).unwrap() else { panic!() };
    let mut cache = TableCache::default();
    cache.insert(&map).unwrap();
    let event = walker.whole(&bytes[map_len..]).unwrap();
    let Body::Rows(rows) = event.parse(&format()).unwrap() else { panic!() };
    check(&event, &rows, &mut cache);
}

proptest! {
    #[test]
    fn rows_are_cut_where_they_were_joined((kinds, rows) in tables()) {
        let images: Vec<Vec<u8>> = rows.iter().map(|row| image(&kinds, row)).collect();
        with_rows(&kinds, &images.concat(), |_, event, cache| {
            let (_, plan) = cache.plan(event).unwrap();
            let cut: Vec<Vec<u8>> = plan.rows(event.data).map(|row| row.unwrap().bytes.to_vec()).collect();
            assert_eq!(cut, images);
            for (row, bytes) in rows.iter().zip(&images) {
                let mut seen = Vec::new();
                plan.first.visit(bytes, |column, cell| {
                    seen.push((column, cell.is_some()));
                    true
                });
                let want: Vec<_> = row.iter().enumerate().map(|(i, v)| (i as u16, v.is_some())).collect();
                assert_eq!(seen, want);
            }
        });
    }

    #[test]
    fn a_cut_row_is_an_error((kinds, rows) in tables(), cut in 1usize..50) {
        let data = image(&kinds, &rows[0]);
        let cut = cut % data.len();
        prop_assume!(cut > 0);
        with_rows(&kinds, &data[..cut], |_, event, cache| {
            let (_, plan) = cache.plan(event).unwrap();
            // What is left may hold a shorter row by chance only if the cut bytes are no part of it.
            let whole: usize = plan.rows(event.data).map_while(Result::ok).map(|r| r.bytes.len()).sum();
            assert!(whole < data.len());
            assert!(plan.rows(event.data).any(|r| r.is_err()));
        });
    }

    #[test]
    fn parts_of_a_split_event_join_to_the_whole((kinds, rows) in tables(), target in 1usize..300) {
        let images: Vec<Vec<u8>> = rows.iter().map(|row| image(&kinds, row)).collect();
        with_rows(&kinds, &images.concat(), |event, rows, cache| {
            let (_, plan) = cache.plan(rows).unwrap();
            let parts: Vec<&[u8]> =
                encode::split(plan.rows(rows.data), rows.data, target).collect::<Result<_, _>>().unwrap();
            assert_eq!(parts.concat(), rows.data);
            for (i, part) in parts.iter().enumerate() {
                let cut: Vec<usize> = plan.rows(part).map(|row| row.unwrap().bytes.len()).collect();
                assert!(part.len() <= target || cut.len() == 1, "only a single row may be longer than the target");
                let mut framed = Vec::new();
                let flags = encode::part_flags(rows.flags, i + 1 == parts.len());
                encode::rows(&event.header, rows, flags, part, &mut framed).unwrap();
                let again = Walker::resume(format(), 4).whole(&framed).map(|e| e.body().to_vec()).unwrap();
                assert!(again.ends_with(part));
                assert_eq!(flags & FLAG_STMT_END != 0, i + 1 == parts.len());
            }
        });
    }

    #[test]
    fn equal_keys_give_equal_bytes_and_others_others((kinds, rows) in tables(), pick in prop::collection::vec(any::<usize>(), 1..4)) {
        let mut key: Vec<u16> = Vec::new();
        for p in pick {
            let column = (p % kinds.len()) as u16;
            if !key.contains(&column) {
                key.push(column);
            }
        }
        let images: Vec<Vec<u8>> = rows.iter().map(|row| image(&kinds, row)).collect();
        with_rows(&kinds, &images.concat(), |_, event, cache| {
            let (_, plan) = cache.plan(event).unwrap();
            let extract = plan.first.key(&key).unwrap();
            let mut seen: Vec<(Row, Vec<u8>)> = Vec::new();
            for bytes in &images {
                let mut cells = Vec::new();
                plan.first.visit(bytes, |_, cell| {
                    cells.push(cell.map(<[u8]>::to_vec));
                    true
                });
                let wanted: Row = key.iter().map(|c| cells[usize::from(*c)].clone()).collect();
                let mut out = Vec::new();
                let found = extract.extract(&plan.first, bytes, &mut out);
                assert_eq!(found, wanted.iter().all(Option::is_some), "a key has no NULL");
                assert!(found || out.is_empty());
                if found {
                    for (cells, bytes) in &seen {
                        assert_eq!(*cells == wanted, *bytes == out);
                    }
                    seen.push((wanted, out));
                }
            }
        });
    }

    #[test]
    fn a_row_takes_the_cells_of_another_image_that_carries_some_columns(
        (kinds, rows) in tables(), carried in prop::collection::vec(any::<bool>(), 20)
    ) {
        let (old, new) = (&rows[0], &rows[rows.len() - 1]);
        let some: Vec<usize> = (0..kinds.len()).filter(|at| carried[*at]).collect();
        let of = |row: &Row| -> (Vec<Kind>, Row) {
            some.iter().map(|at| (kinds[*at], row[*at].clone())).unzip()
        };
        let (some_kinds, some_values) = of(new);
        let merged: Row =
            (0..kinds.len()).map(|at| if carried[at] { new[at].clone() } else { old[at].clone() }).collect();
        with_rows(&kinds, &image(&kinds, old), |_, event, cache| {
            let (_, whole) = cache.plan(event).unwrap();
            let mut present = vec![0u8; kinds.len().div_ceil(8)];
            some.iter().for_each(|at| present[at / 8] |= 1 << (at % 8));
            let (_, part) = cache.plan(&Rows { present: &present, ..*event }).unwrap();
            let over = image(&some_kinds, &some_values);
            let found = whole.first.overlay(event.data, &part.first, &over);
            assert_eq!(found, Some(image(&kinds, &merged)));
            assert_eq!(whole.first.overlay(&event.data[..event.data.len() - 1], &part.first, &over), None);
        });
    }
}

#[test]
fn bits_behind_the_last_column_carry_nothing() {
    let kinds = [KINDS[1]; 10];
    with_rows(&kinds, &[], |_, event, _| {
        for (present, whole) in [
            (&[0xff, 0x03][..], true),
            (&[0xff, 0xff], true),
            (&[0xff, 0xfd], false),
            (&[0xfe, 0xff], false),
            (&[0xff], false),
        ] {
            assert_eq!(event.is_whole(present), whole, "{present:x?}");
        }
    });
    with_rows(&kinds[..8], &[], |_, event, _| {
        assert!(event.is_whole(&[0xff]));
        assert!(!event.is_whole(&[0x7f]));
    });
}
