//! One file: the last 30 days of one server, a record a minute, each in the place that its minute has.
//!
//! ```text
//! head     64 bytes: "HFHIST\0\x01", records u32, bytes of a record u32, zeros, CRC-32C of the 60 bytes before it
//! record   64 bytes: minute u32 (minutes since 1970), 14 values f32 (NaN: not known), CRC-32C of the 60 bytes before it
//! ```
//!
//! All little-endian. The record of a minute is number `minute % 43200`, so a newer one takes the place of that of 30
//! days before, and the file never grows. What a crash tore, and a place that was never written, has a wrong checksum: that
//! minute is not known, and no other one is touched. Nothing is synced: a power cut may cost the newest minutes, and
//! nothing but a chart depends on them.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;

/// Minutes that are kept: 30 days.
pub const MINUTES: u32 = 30 * 24 * 60;
/// Values of one minute.
pub const VALUES: usize = 14;
/// Bytes of the head and of a record.
const RECORD: usize = 64;
/// Those that the checksum covers.
const COVERED: usize = RECORD - 4;
/// Bytes of a file, whatever is in it.
pub const FILE_BYTES: u64 = RECORD as u64 * (MINUTES as u64 + 1);
const MAGIC: [u8; 8] = *b"HFHIST\0\x01";
/// Records that are read at once.
const PIECE: u32 = 4096;

/// The values of one minute; NaN: not known.
pub type Values = [f32; VALUES];

/// A file that is written.
#[derive(Debug)]
pub struct Ring {
    file: File,
}

impl Ring {
    /// Opens the file; one that is not there, or whose head is not that of a ring, is begun afresh.
    ///
    /// # Errors
    /// What the file system says.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if !has_head(&file)? {
            file.set_len(0)?;
            file.set_len(FILE_BYTES)?;
            // Last: without it there is no ring.
            file.write_all_at(&head(), 0)?;
        }
        Ok(Self { file })
    }

    /// Writes a minute's values, in the place of whatever was there.
    ///
    /// # Errors
    /// What the file system says.
    pub fn put(&self, minute: u32, values: &Values) -> io::Result<()> {
        self.file.write_all_at(&encoded(minute, values), place(minute))
    }
}

/// Gives each known minute of `from..=to`, oldest first. A file that is not there, or is no ring, knows none.
///
/// # Errors
/// What the file system says.
pub fn read(path: &Path, from: u32, to: u32, mut each: impl FnMut(u32, &Values)) -> io::Result<()> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    if !has_head(&file)? {
        return Ok(());
    }
    let from = from.max(to.saturating_sub(MINUTES - 1));
    let mut buffer = vec![0; PIECE as usize * RECORD];
    let mut next = from;
    while next <= to {
        // As far as the wanted minutes, the buffer and the end of the file let it.
        let records = (to - next + 1).min(PIECE).min(MINUTES - next % MINUTES);
        let piece = buffer.get_mut(..records as usize * RECORD).unwrap_or_default();
        match file.read_exact_at(piece, place(next)) {
            Ok(()) => {}
            // Cut short by somebody: the rest is not known.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(()),
            Err(error) => return Err(error),
        }
        let (records, _) = piece.as_chunks::<RECORD>();
        for (minute, record) in (next..=to).zip(records) {
            if let Some((written, values)) = decoded(record)
                && written == minute
            {
                each(minute, &values);
            }
        }
        let Some(after) = next.checked_add(records.len() as u32) else { return Ok(()) };
        next = after;
    }
    Ok(())
}

/// Where the record of a minute begins.
fn place(minute: u32) -> u64 {
    RECORD as u64 * (1 + u64::from(minute % MINUTES))
}

fn has_head(file: &File) -> io::Result<bool> {
    let mut there = [0; RECORD];
    match file.read_exact_at(&mut there, 0) {
        Ok(()) => Ok(there == head()),
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

fn head() -> [u8; RECORD] {
    let fields = [MINUTES.to_le_bytes(), (RECORD as u32).to_le_bytes()];
    sealed(MAGIC.into_iter().chain(fields.into_iter().flatten()))
}

fn encoded(minute: u32, values: &Values) -> [u8; RECORD] {
    sealed(minute.to_le_bytes().into_iter().chain(values.iter().flat_map(|value| value.to_le_bytes())))
}

/// The bytes, zeros behind them, and the checksum.
fn sealed(bytes: impl Iterator<Item = u8>) -> [u8; RECORD] {
    let mut record = [0; RECORD];
    for (to, byte) in record.iter_mut().take(COVERED).zip(bytes) {
        *to = byte;
    }
    let sum = checksum(&record).to_le_bytes();
    for (to, byte) in record.iter_mut().skip(COVERED).zip(sum) {
        *to = byte;
    }
    record
}

fn checksum(record: &[u8; RECORD]) -> u32 {
    record.first_chunk::<COVERED>().map_or(0, |covered| crc32c::crc32c(covered))
}

/// A record's minute and values, if it is whole.
fn decoded(record: &[u8; RECORD]) -> Option<(u32, Values)> {
    let (words, _) = record.as_chunks::<4>();
    let (sum, words) = words.split_last()?;
    if u32::from_le_bytes(*sum) != checksum(record) {
        return None;
    }
    let (minute, words) = words.split_first()?;
    let mut values = [f32::NAN; VALUES];
    for (value, word) in values.iter_mut().zip(words) {
        *value = f32::from_le_bytes(*word);
    }
    Some((u32::from_le_bytes(*minute), values))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Values that tell of which minute and which writing they are.
    fn values(minute: u32, turn: u32) -> Values {
        std::array::from_fn(|at| (minute % 1000) as f32 + turn as f32 * 1000.0 + at as f32 / 100.0)
    }

    fn all(path: &Path, from: u32, to: u32) -> BTreeMap<u32, Vec<u32>> {
        let mut seen = BTreeMap::new();
        let mut last = None;
        read(path, from, to, |minute, values| {
            assert!(last < Some(minute), "in order, each once");
            last = Some(minute);
            seen.insert(minute, values.iter().map(|v| v.to_bits()).collect());
        })
        .unwrap();
        seen
    }

    fn bits(values: Values) -> Vec<u32> {
        values.iter().map(|v| v.to_bits()).collect()
    }

    #[test]
    fn thirty_days_are_kept_over_a_restart_and_the_thirty_first_takes_the_place_of_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        let first = 28_000_123;
        let ring = Ring::open(&path).unwrap();
        for minute in first..first + MINUTES + 7 {
            ring.put(minute, &values(minute, 0)).unwrap();
        }
        drop(ring);
        Ring::open(&path).unwrap();
        let seen = all(&path, 0, u32::MAX - 1);
        assert!(seen.is_empty(), "of the last 30 days before the end only");
        let seen = all(&path, 0, first + MINUTES + 6);
        assert_eq!(seen.len(), MINUTES as usize);
        assert_eq!(seen.first_key_value().unwrap(), (&(first + 7), &bits(values(first + 7, 0))));
        assert_eq!(seen.last_key_value().unwrap().1, &bits(values(first + MINUTES + 6, 0)));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), FILE_BYTES, "it never grows");
    }

    #[test]
    fn what_is_no_ring_knows_nothing_and_is_begun_afresh() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ring");
        assert!(all(&path, 0, 10).is_empty(), "not there");
        for wrong in [b"".to_vec(), b"short".to_vec(), vec![7; 5000]] {
            std::fs::write(&path, wrong).unwrap();
            assert!(all(&path, 0, 10).is_empty());
            let ring = Ring::open(&path).unwrap();
            assert!(all(&path, 0, MINUTES).is_empty(), "a place that was never written is not known");
            ring.put(3, &values(3, 1)).unwrap();
            assert_eq!(all(&path, 0, 10), BTreeMap::from([(3, bits(values(3, 1)))]));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

        /// Whatever happens to the file's bytes, nothing is read that was not written, and what was not touched is.
        #[test]
        fn damage_costs_the_minutes_that_it_touches_and_gives_no_others(
            minutes in proptest::collection::btree_set(0..3 * MINUTES, 1..40),
            harm in proptest::collection::vec((0..FILE_BYTES, 1..=255_u8), 0..20),
            near in proptest::collection::vec((0..40_usize, 0..RECORD as u64, 1..=255_u8), 0..20),
            cut in proptest::option::of(0..FILE_BYTES),
        ) {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("ring");
            let ring = Ring::open(&path).unwrap();
            let mut written = BTreeMap::new();
            for (turn, minute) in minutes.iter().enumerate() {
                ring.put(*minute, &values(*minute, turn as u32)).unwrap();
                written.insert(place(*minute), (*minute, bits(values(*minute, turn as u32))));
            }
            drop(ring);
            let near = near.iter().filter_map(|(at, byte, mask)| {
                minutes.iter().nth(*at).map(|minute| (place(*minute) + byte, *mask))
            });
            let mut touched = std::collections::BTreeSet::new();
            let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
            let mut masks: BTreeMap<u64, u8> = BTreeMap::new();
            for (at, mask) in harm.into_iter().chain(near) {
                *masks.entry(at).or_default() ^= mask;
            }
            for (at, mask) in masks.into_iter().filter(|(_, mask)| *mask != 0) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, at).unwrap();
                file.write_all_at(&[byte[0] ^ mask], at).unwrap();
                touched.insert(at / RECORD as u64 * RECORD as u64);
            }
            if let Some(cut) = cut {
                file.set_len(cut).unwrap();
            }
            let gone = |at: u64| touched.contains(&at) || cut.is_some_and(|cut| at + RECORD as u64 > cut);
            for turn in 0..3 {
                let (from, to) = (turn * MINUTES, (turn + 1) * MINUTES - 1);
                let seen = all(&path, from, to);
                for (minute, bits) in &seen {
                    prop_assert_eq!(written.get(&place(*minute)), Some(&(*minute, bits.clone())));
                }
                if !gone(0) && cut.is_none() {
                    let whole = written.iter().filter(|(at, (m, _))| !gone(**at) && (from..=to).contains(m));
                    prop_assert_eq!(seen.len(), whole.count());
                }
            }
        }
    }
}
