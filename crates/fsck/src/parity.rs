//! The parity of a segment: whether geometry, tables and every shard are what the format says.
//!
//! Repair is not done here: the checksums alone say whether a byte has changed.

use holdfast_format::parity::{Geometry, ParityTable, checksum};
use holdfast_format::segment::{PAGE_BYTES, ParityPlace, Trailer};

use crate::segment::{Source, Window, Wrong};

/// Checks the parity of a sealed segment; gives everything that is wrong with it.
pub(crate) fn check(source: &Source<'_>, trailer: &Trailer, place: &ParityPlace) -> Vec<Wrong> {
    let (table, mut wrong) = check_tables(source, trailer, place);
    if let Some(table) = table {
        shards(source, &table, &mut wrong);
    }
    wrong
}

/// As [`check`], but for the shards; gives the table, too, if a copy of it is good.
pub(crate) fn check_tables(
    source: &Source<'_>,
    trailer: &Trailer,
    place: &ParityPlace,
) -> (Option<ParityTable>, Vec<Wrong>) {
    let geometry = Geometry::of(place.offset);
    let end = place.offset.saturating_add(place.len).saturating_add(PAGE_BYTES as u64);
    if geometry.place() != *place || end != source.len {
        return (
            None,
            vec![Wrong::at(place.offset, "its parity has another shape than its length asks for")],
        );
    }
    let mut wrong = Vec::new();
    match source.read(place.offset, PAGE_BYTES as u64) {
        Ok(copy) if copy == trailer.encode() => {}
        Ok(_) => wrong.push(Wrong::at(place.offset, "the copy of its trailer is not like the trailer")),
        Err(e) => wrong.push(e),
    }
    let mut table = None;
    for at in [geometry.first_table(), geometry.second_table()] {
        match read_table(source, trailer, &geometry, at) {
            Ok(read) => table = Some(read),
            Err(e) => wrong.push(e),
        }
    }
    (table, wrong)
}

fn read_table(
    source: &Source<'_>,
    trailer: &Trailer,
    geometry: &Geometry,
    at: u64,
) -> Result<ParityTable, Wrong> {
    let bytes = source.read(at, geometry.table_bytes())?;
    let table = ParityTable::decode(&bytes).map_err(|e| Wrong::at(at, e))?;
    // Encoded again, it shows whether the padding is zeros.
    if table.repo != trailer.repo
        || table.segment != trailer.segment
        || table.geometry != *geometry
        || table.encode() != bytes
    {
        return Err(Wrong::at(at, "its parity table is not the one that the format asks for"));
    }
    Ok(table)
}

/// Every shard against its checksum; the last data shard is filled up with zeros.
fn shards(source: &Source<'_>, table: &ParityTable, wrong: &mut Vec<Wrong>) {
    let geometry = &table.geometry;
    let shard_bytes = u64::from(geometry.shard_bytes);
    let data = (0..geometry.data_shards).map(|n| {
        let start = u64::from(n).saturating_mul(shard_bytes);
        (start, shard_bytes.min(geometry.protected.saturating_sub(start)), "a shard of its bytes")
    });
    let parity =
        (0..geometry.parity_shards).map(|n| (geometry.parity_shard(n), shard_bytes, "a shard of its parity"));
    let mut window = Window::new(source);
    let zeros = vec![0; geometry.shard_bytes as usize];
    for ((start, len, what), sum) in data.chain(parity).zip(&table.checksums) {
        match window.get(start, len) {
            Ok(bytes) => {
                let missing = zeros.get(bytes.len()..).unwrap_or_default();
                let right = if missing.is_empty() {
                    checksum(bytes) == *sum
                } else {
                    checksum(&[bytes, missing].concat()) == *sum
                };
                if !right {
                    let what = format!("{what} is not what the checksum in its parity says");
                    wrong.push(Wrong::at(start, what));
                }
            }
            Err(e) => wrong.push(e),
        }
    }
}
