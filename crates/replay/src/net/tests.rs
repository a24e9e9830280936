//! What a window takes, on events made by hand.

use holdfast_binlog::event::Body;
use holdfast_binlog::{Checksum, EventType, FormatDescription, Walker, encode};

use super::beside::Beside;
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

fn format() -> FormatDescription {
    FormatDescription {
        server_version: "9.7.4".to_owned(),
        created: 0,
        post_header_lengths: Vec::new(),
        checksum: Checksum::Off,
    }
}

/// The tables that a TABLE_MAP event names, and its header.
fn tables() -> (TableCache, Header) {
    let mut map = vec![9, 0, 0, 0, 0, 0, 1, 0, 1, b'd', 0, 1, b't', 0, WIDTH];
    map.extend([3; WIDTH as usize]);
    map.extend([0, 0xff, 0xff]);
    let map = event(EventType::TABLE_MAP, &map);
    let map = Walker::resume(format(), 4).whole(&map).unwrap();
    let header = map.header;
    let Body::TableMap(map) = map.parse(&format()).unwrap() else { panic!() };
    let mut tables = TableCache::default();
    tables.insert(&map).unwrap();
    (tables, header)
}

fn with_rows<T>(bytes: &[u8], then: impl FnOnce(&Rows<'_>) -> T) -> T {
    let found = Walker::resume(format(), 4).whole(bytes).unwrap();
    let Body::Rows(rows) = found.parse(&format()).unwrap() else { panic!() };
    then(&rows)
}

fn merge(tables: &TableCache, header: Header, rows: &Rows<'_>) -> Merge {
    let columns = vec![ColumnFacts::default(); usize::from(WIDTH)];
    let facts = TableFacts { columns, primary: vec![0], ..TableFacts::default() };
    Merge::new(tables.get(9).unwrap(), header, rows, &facts, Vec::new()).unwrap()
}

#[test]
fn a_window_ends_when_its_rows_carry_too_many_sets_of_columns_whatever_becomes_of_them() {
    let (mut tables, header) = tables();
    let mut made: Option<Merge> = None;
    let mut taken = 0;
    for number in 0..2 * SETS_MAX as u16 {
        // The last event holds all columns: it is looked at as the others are.
        let set = if number > SETS_MAX as u16 { 0x0fff } else { number << 1 | 1 };
        let fits = with_rows(&delete(set, u32::from(number)), |rows| {
            let merge = made.get_or_insert_with(|| merge(&tables, header, rows));
            if !fits(merge, rows, &mut tables).unwrap() {
                return false;
            }
            let (_, plan) = tables.plan(rows).unwrap();
            merge.take(rows, &plan).unwrap();
            true
        });
        if !fits {
            break;
        }
        taken += 1;
    }
    assert_eq!(taken, SETS_MAX + 1);
}

/// Deletes of these ids, taken beside. Gives the merge, or what halted it.
fn beside(ids: impl IntoIterator<Item = u32>) -> Result<Merge, Halt> {
    let (mut tables, header) = tables();
    let mut beside = Beside::default();
    let files: [Arc<str>; 2] = [Arc::from("a"), Arc::from("b")];
    for (number, id) in ids.into_iter().enumerate() {
        // A second file from the middle on: a place is one in its own file.
        let file = files.get(usize::from(number >= 3000)).unwrap();
        let place = EventPlace { file: Arc::clone(file), position: number as u64 };
        with_rows(&delete(0x0fff, id), |rows| {
            if beside.is_empty() {
                beside.add(merge(&tables, header, rows));
            }
            let (_, plan) = tables.plan(rows).unwrap();
            assert!(beside.fits(0, rows, |_| panic!("whole rows always fit"), &place)?);
            beside.take(0, rows, &plan, &place)
        })?;
    }
    let rows = beside.rows().0;
    let mut merges = beside.finish()?;
    assert!(beside.rows().0 >= rows && beside.bytes() > 0);
    assert_eq!(merges.len(), 1);
    Ok(merges.remove(0))
}

#[test]
fn rows_that_are_taken_beside_come_to_the_same_whatever_their_number() {
    for count in [1, 2, 100, 20_000] {
        let merge = beside(0..count).unwrap();
        assert_eq!((merge.net_rows(), merge.taken), (u64::from(count), u64::from(count)));
        for id in 0..count {
            assert!(
                merge.changes.get(id.to_le_bytes().as_slice()).is_some_and(|change| change.after.is_none())
            );
        }
    }
}

#[test]
fn a_row_that_does_not_fit_is_told_with_its_own_place_at_the_windows_end_at_the_latest() {
    for (count, again) in [(10, 9), (20_000, 19_999), (20_000, 4000), (20_000, 7)] {
        // This one goes a second time.
        let twice = (0..again).chain([again / 2]).chain(again..count);
        let halt = beside(twice).unwrap_err();
        assert!(matches!(&halt.stop, Stop::Surprise(why) if why == "a row changes that is gone"));
        assert_eq!(halt.place.position, u64::from(again));
        assert_eq!(&*halt.place.file, if again < 3000 { "a" } else { "b" });
        assert_eq!(halt.tables, [Arc::clone(&tables().0.get(9).unwrap().key)]);
    }
}
