//! From bytes at offsets to blocks.
//!
//! A stream hands a file over front to back in pieces of any size, a clone in extents of 1 MiB that begin
//! anywhere. Blocks that a piece covers whole go straight through; only the blocks at its two ends wait
//! here for the rest of their bytes. So the memory is one block per loose end, and loose ends are counted.

use std::collections::BTreeMap;

use crate::error::Error;
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileNo, Sink};

/// Unfinished blocks of one file held at a time: 256 x 64 KiB = 16 MiB. A stream needs one, a clone two for
/// each connection and one for the redo header that comes last.
pub const LOOSE_BLOCKS_MAX: usize = 256;

/// Stretches within one unfinished block. Two meet at a piece's border; more means a peer that plays tricks.
const STRETCHES_MAX: usize = 64;

/// One file's blocks in the making.
#[derive(Debug)]
pub struct BlockAssembler {
    file: FileNo,
    loose: BTreeMap<u64, Loose>,
    end: u64,
}

/// A block of which some bytes came.
#[derive(Debug)]
struct Loose {
    bytes: Box<[u8]>,
    /// Covered stretches as (from, to), sorted, never touching.
    have: Vec<(u32, u32)>,
}

impl Loose {
    fn new() -> Self {
        Self { bytes: vec![0; BLOCK_BYTES].into_boxed_slice(), have: Vec::new() }
    }

    /// Puts `piece` at `at`; false if the block is cut into too many stretches.
    fn put(&mut self, at: usize, piece: &[u8]) -> bool {
        if let Some(target) = self.bytes.get_mut(at..at + piece.len()) {
            target.copy_from_slice(piece);
        }
        // Both fit: at most BLOCK_BYTES.
        let (mut from, mut to) = (at as u32, (at + piece.len()) as u32);
        self.have.retain(|&(f, t)| {
            let apart = t < from || f > to;
            if !apart {
                from = from.min(f);
                to = to.max(t);
            }
            apart
        });
        let place = self.have.partition_point(|&(f, _)| f < from);
        self.have.insert(place, (from, to));
        self.have.len() <= STRETCHES_MAX
    }

    fn is_full(&self) -> bool {
        matches!(self.have.as_slice(), [(0, to)] if *to as usize == BLOCK_BYTES)
    }
}

impl BlockAssembler {
    /// For a file that the sink knows.
    #[must_use]
    pub fn new(file: FileNo) -> Self {
        Self { file, loose: BTreeMap::new(), end: 0 }
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> FileNo {
        self.file
    }

    /// One past the last byte that came.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.end
    }

    /// Takes `bytes` at `offset`. Blocks that become whole go to the sink at once.
    pub fn write(&mut self, sink: &dyn Sink, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let overflow = || Error::Malformed {
            place: "the end of a piece of a file".into(),
            expected: "an offset below 2^63".into(),
            got: format!("{offset} + {}", bytes.len()),
        };
        let end = offset.checked_add(bytes.len() as u64).filter(|&e| e < 1 << 63).ok_or_else(overflow)?;
        self.end = self.end.max(end);
        let (mut offset, mut rest) = (offset, bytes);
        while !rest.is_empty() {
            let block_no = offset / BLOCK_BYTES_U64;
            // Below BLOCK_BYTES, so it fits.
            let at = (offset % BLOCK_BYTES_U64) as usize;
            let (piece, more) = rest.split_at(rest.len().min(BLOCK_BYTES - at));
            if piece.len() == BLOCK_BYTES {
                self.loose.remove(&block_no);
                sink.block(self.file, block_no, piece)?;
            } else {
                self.put(sink, block_no, at, piece)?;
            }
            offset += piece.len() as u64;
            rest = more;
        }
        Ok(())
    }

    fn put(&mut self, sink: &dyn Sink, block_no: u64, at: usize, piece: &[u8]) -> Result<(), Error> {
        let loose = self.loose.entry(block_no).or_insert_with(Loose::new);
        if !loose.put(at, piece) {
            return Err(Error::TooMany {
                what: "pieces of one block",
                got: STRETCHES_MAX as u64 + 1,
                limit: STRETCHES_MAX as u64,
            });
        }
        if loose.is_full() {
            sink.block(self.file, block_no, &loose.bytes)?;
            self.loose.remove(&block_no);
        } else if self.loose.len() > LOOSE_BLOCKS_MAX {
            return Err(Error::TooMany {
                what: "unfinished blocks of one file",
                got: self.loose.len() as u64,
                limit: LOOSE_BLOCKS_MAX as u64,
            });
        }
        Ok(())
    }

    /// No more bytes come: hands over what is unfinished, with zeros where nothing came, and gives the file
    /// its length, `len` or the last byte that came, whichever is larger. Returns that length.
    pub fn finish(&mut self, sink: &dyn Sink, len: u64) -> Result<u64, Error> {
        let len = len.max(self.end);
        for (block_no, loose) in std::mem::take(&mut self.loose) {
            let left = len.saturating_sub(block_no * BLOCK_BYTES_U64).min(BLOCK_BYTES_U64);
            let bytes = loose.bytes.get(..left as usize).unwrap_or_default();
            if !bytes.is_empty() {
                sink.block(self.file, block_no, bytes)?;
            }
        }
        sink.set_len(self.file, len)?;
        Ok(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::path::FilePath;
    use crate::sink::{FileKind, FileSpec};
    use crate::sinks::MemorySink;
    use proptest::prelude::*;

    fn one_file(sink: &MemorySink) -> BlockAssembler {
        let path = FilePath::new("f").unwrap();
        let spec = FileSpec { path, kind: FileKind::Plain, expected_len: 0, mode: 0o600, mtime_us: None };
        BlockAssembler::new(sink.add_file(spec).unwrap())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn any_order_of_any_pieces_gives_the_same_file(
            cuts in proptest::collection::vec(1usize..200_000, 1..8),
            order in any::<u64>(),
            behind in 0u64..200_000,
        ) {
            let total: usize = cuts.iter().sum();
            let whole: Vec<u8> = (0..total).map(|i| (i * 31 % 251) as u8 + 1).collect();
            let mut pieces = Vec::new();
            let mut at = 0;
            for cut in cuts {
                pieces.push((at, at + cut));
                at += cut;
            }
            let turn = order as usize % pieces.len();
            pieces.rotate_left(turn);
            if order % 2 == 0 { pieces.reverse(); }
            let sink = MemorySink::new();
            let mut assembler = one_file(&sink);
            for (from, to) in pieces {
                assembler.write(&sink, from as u64, &whole[from..to]).unwrap();
            }
            let len = assembler.finish(&sink, total as u64 + behind).unwrap();
            let mut expected = whole;
            expected.resize(len as usize, 0);
            prop_assert_eq!(sink.content("f").unwrap(), expected);
        }
    }

    #[test]
    fn a_peer_that_scatters_bytes_is_stopped_before_memory_is_gone() {
        let sink = MemorySink::new();
        let mut assembler = one_file(&sink);
        let error = (0..10_000u64).find_map(|i| assembler.write(&sink, i << 16, b"x").err());
        assert!(matches!(error, Some(Error::TooMany { .. })));
        let mut assembler = one_file(&sink);
        let error = (0..10_000u64).find_map(|i| assembler.write(&sink, i * 2, b"x").err());
        assert!(matches!(error, Some(Error::TooMany { .. })));
    }

    #[test]
    fn an_offset_that_overflows_is_an_error() {
        let sink = MemorySink::new();
        let mut assembler = one_file(&sink);
        assert!(assembler.write(&sink, u64::MAX, b"xy").is_err());
        assert!(assembler.write(&sink, (1 << 63) - 1, b"xy").is_err());
    }
}
