//! What a window takes, on events made by hand.

use holdfast_binlog::event::Body;
use holdfast_binlog::{Checksum, EventType, FormatDescription, Walker, encode};

use super::catalogue::{ColumnFacts, TableFacts};
use super::image::SETS_MAX;
use super::*;

/// More columns than bits of a byte, the first of them the key.
const WIDTH: u8 = 12;

fn event(kind: EventType, body: &[u8]) -> Vec<u8> {
    let header = Header { timestamp: 1, kind, server_id: 1, length: 0, log_pos: 0, flags: 0 };
    let mut out = Vec::new();
    encode::event(&header, kind, &[body], &mut out).unwrap();
    out
}

/// A row goes of which the log holds the columns of `set`, one bit each.
fn delete(set: u16, id: u32) -> Vec<u8> {
    let mut body = vec![9, 0, 0, 0, 0, 0, 1, 0, 2, 0, WIDTH];
    body.extend_from_slice(&set.to_le_bytes());
    let cells = set.count_ones() as usize;
    body.extend(std::iter::repeat_n(0, cells.div_ceil(8)));
    body.extend((0..cells).flat_map(|cell| if cell == 0 { id.to_le_bytes() } else { [0; 4] }));
    event(EventType::DELETE_ROWS, &body)
}

#[test]
fn a_window_ends_when_its_rows_carry_too_many_sets_of_columns_whatever_becomes_of_them() {
    let format = FormatDescription {
        server_version: "9.7.4".to_owned(),
        created: 0,
        post_header_lengths: Vec::new(),
        checksum: Checksum::Off,
    };
    let mut map = vec![9, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, WIDTH];
    map.extend([3; WIDTH as usize]);
    map.extend([0, 0xff, 0xff]);
    let map = event(EventType::TABLE_MAP, &map);
    let map = Walker::resume(format.clone(), 4).whole(&map).unwrap();
    let header = map.header;
    let Body::TableMap(map) = map.parse(&format).unwrap() else { panic!() };
    let mut tables = TableCache::default();
    tables.insert(&map).unwrap();
    let columns = vec![ColumnFacts::default(); usize::from(WIDTH)];
    let facts = TableFacts { columns, primary: vec![0], ..TableFacts::default() };
    let mut merge: Option<Merge> = None;
    let mut taken = 0;
    for number in 0..2 * SETS_MAX as u16 {
        // The last event holds all columns: it is looked at as the others are.
        let set = if number > SETS_MAX as u16 { 0x0fff } else { number << 1 | 1 };
        let bytes = delete(set, u32::from(number));
        let found = Walker::resume(format.clone(), 4).whole(&bytes).unwrap();
        let Body::Rows(rows) = found.parse(&format).unwrap() else { panic!() };
        let merge = merge.get_or_insert_with(|| {
            Merge::new(tables.get(9).unwrap(), header, &rows, &facts, Vec::new()).unwrap()
        });
        if !fits(merge, &rows, &mut tables).unwrap() {
            break;
        }
        let (_, plan) = tables.plan(&rows).unwrap();
        merge.take(&rows, &plan).unwrap();
        taken += 1;
    }
    assert_eq!(taken, SETS_MAX + 1);
}
