//! The xbstream container, as `mariadb-backup` and `xtrabackup` write it: many files in one stream.
//!
//! A push parser: bytes go in as they come, in pieces of any size, and pieces of files come out at once. Memory is
//! one header and what is known of each file. The format, integers little-endian, chunks back to back:
//!
//! | bytes | field |
//! |---|---|
//! | 8 | `XBSTCK01` |
//! | 1 | flags; bit 0: may be skipped if the type is unknown |
//! | 1 | type: `P` payload, `S` sparse payload, `E` end of the file |
//! | 4 + n | length and bytes of the path |
//! | 4 | `S` only: entries of the map |
//! | 8, 8, 4 | `P`, `S`: length of the payload, its offset, CRC-32 (ISO 3309) of map and payload |
//! | 8 each | `S` only: u32 bytes to skip in the file, u32 bytes of payload that follow there |
//! | .. | the payload |
//!
//! Source: MariaDB 10.11's and 11.8's streams as observed; `S` from Percona's description (XtraBackup 8.x), not tried
//! on a stream of its own.

use std::collections::HashMap;

use crate::error::Error;
use crate::path::FilePath;

const MAGIC: &[u8; 8] = b"XBSTCK01";
/// Bytes up to the path.
const HEAD_BYTES: usize = 14;
const FLAG_IGNORABLE: u8 = 1;

/// Longest path: the writers' own limit.
pub const STREAM_PATH_BYTES_MAX: u32 = 512;

/// Entries of a sparse map: xtrabackup writes chunks of 10 MiB, so one entry a 512-byte sector is 20 Ki. 512 KiB.
pub const SPARSE_ENTRIES_MAX: u32 = 64 * 1024;

/// Files in a stream. About 200 bytes each are kept, to refuse a file that comes again after its end.
pub const STREAM_FILES_MAX: u64 = 10_000_000;

/// What comes out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event<'a> {
    /// Bytes of a file.
    Data {
        /// The file.
        path: &'a FilePath,
        /// Where they belong in it.
        offset: u64,
        /// The bytes; never empty.
        bytes: &'a [u8],
    },
    /// A file is complete. Also the only event of an empty one.
    End {
        /// The file.
        path: &'a FilePath,
        /// Its length.
        len: u64,
    },
}

/// The parser.
#[derive(Debug)]
pub struct Parser {
    head: Vec<u8>,
    need: usize,
    chunk: Option<Chunk>,
    files: HashMap<FilePath, FileState>,
    open: u64,
    /// Offset of the next byte in the stream, for error texts.
    at: u64,
}

/// What is known of a file.
#[derive(Debug, Clone, Copy, Default)]
struct FileState {
    /// Payload bytes so far: what the next chunk's offset must be.
    payload: u64,
    /// Where the next payload byte belongs; more than `payload` only in a sparse file.
    place: u64,
    ended: bool,
}

/// A chunk whose payload is coming.
#[derive(Debug)]
struct Chunk {
    path: FilePath,
    state: FileState,
    left: u64,
    crc_stored: u32,
    /// Over map and payload, and over the payload alone: descriptions of `S` differ.
    crc: crc32fast::Hasher,
    crc_payload: crc32fast::Hasher,
    /// Sparse only: entries still to come, and what is left of the current one.
    map: std::collections::VecDeque<(u32, u32)>,
    run_left: Option<u64>,
    skipped: bool,
}

impl Default for Parser {
    fn default() -> Self {
        Self::new()
    }
}

impl Parser {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self { head: Vec::new(), need: HEAD_BYTES, chunk: None, files: HashMap::new(), open: 0, at: 0 }
    }

    /// Takes the next bytes of the stream. After an error the parser is of no more use.
    pub fn feed<E: From<Error>>(
        &mut self,
        mut input: &[u8],
        mut each: impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        while !input.is_empty() {
            let taken = match self.chunk.as_mut() {
                Some(chunk) => {
                    let taken = chunk.take(input, &mut each)?;
                    if chunk.left == 0 {
                        self.end_of_payload()?;
                    }
                    taken
                }
                None => {
                    let taken = input.len().min(self.need - self.head.len());
                    self.head.extend_from_slice(input.get(..taken).unwrap_or_default());
                    if self.head.len() == self.need {
                        self.advance(&mut each)?;
                    }
                    taken
                }
            };
            self.at += taken as u64;
            input = input.get(taken..).unwrap_or_default();
        }
        Ok(())
    }

    /// The stream is over: it must end between chunks, and every file must have ended. Returns the number of files.
    pub fn finish(&self) -> Result<u64, Error> {
        if self.chunk.is_some() || !self.head.is_empty() {
            return Err(self.malformed("the end of a chunk", "the end of the stream".to_owned()));
        }
        if self.open > 0 {
            let name = self.files.iter().find(|(_, state)| !state.ended).map(|(path, _)| path.to_string());
            let got = format!("the end of the stream ({} files were not)", self.open);
            return Err(self
                .malformed("the end of each file", got + &name.map_or(String::new(), |n| format!(": {n}"))));
        }
        Ok(self.files.len() as u64)
    }

    fn malformed(&self, expected: impl Into<String>, got: impl Into<String>) -> Error {
        Error::Malformed {
            place: format!("the backup stream near byte {}", self.at),
            expected: expected.into(),
            got: got.into(),
        }
    }

    /// The bytes asked for are in `head`: reads them, and asks for more or begins the payload.
    fn advance<E: From<Error>>(
        &mut self,
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let (flags, kind, path_len) = self.fixed()?;
        let path_end = HEAD_BYTES + path_len as usize;
        if self.head.len() < path_end {
            self.need = path_end;
            return Ok(());
        }
        let fields_end = path_end
            + match kind {
                b'E' => 0,
                b'S' => 24,
                // `P`, or unknown and marked as one to skip, which then has the shape of a payload.
                _ => 20,
            };
        if self.head.len() < fields_end {
            self.need = fields_end;
            return Ok(());
        }
        let path = self.path(path_end)?;
        if kind == b'E' {
            return self.end_of_file(&path, each);
        }
        let entries = if kind == b'S' { self.map_entries(path_end)? } else { 0 };
        let map_end = fields_end + entries as usize * 8;
        if self.head.len() < map_end {
            self.need = map_end;
            return Ok(());
        }
        let skipped = flags & FLAG_IGNORABLE != 0 && !matches!(kind, b'P' | b'S');
        self.begin_payload(path, fields_end, skipped)?;
        Ok(())
    }

    fn fixed(&self) -> Result<(u8, u8, u32), Error> {
        let head = &self.head;
        if head.get(..8) != Some(MAGIC.as_slice()) {
            let got = head.get(..8).unwrap_or_default().escape_ascii().to_string();
            return Err(self.malformed("a chunk beginning with XBSTCK01", format!("\"{got}\"")));
        }
        let (flags, kind) = (head.get(8).copied().unwrap_or(0), head.get(9).copied().unwrap_or(0));
        if !matches!(kind, b'P' | b'S' | b'E') && flags & FLAG_IGNORABLE == 0 {
            let got = format!("type {:?} ({kind:#04x})", char::from(kind));
            return Err(self.malformed("a chunk of type P, S or E", got));
        }
        let path_len = le32(head, 10).unwrap_or(0);
        if path_len == 0 || path_len >= STREAM_PATH_BYTES_MAX {
            let expected = format!("a path of 1 to {} bytes", STREAM_PATH_BYTES_MAX - 1);
            return Err(self.malformed(expected, format!("{path_len}")));
        }
        Ok((flags, kind, path_len))
    }

    fn path(&self, path_end: usize) -> Result<FilePath, Error> {
        let bytes = self.head.get(HEAD_BYTES..path_end).unwrap_or_default();
        // mariadb-backup writes some names with a leading "./".
        let bytes = bytes.strip_prefix(b"./").unwrap_or(bytes);
        FilePath::new(bytes).map_err(|source| Error::Name {
            place: "the backup stream",
            name: bytes.escape_ascii().to_string(),
            source,
        })
    }

    fn map_entries(&self, path_end: usize) -> Result<u32, Error> {
        let entries = le32(&self.head, path_end).unwrap_or(0);
        if entries > SPARSE_ENTRIES_MAX {
            let (got, limit) = (u64::from(entries), u64::from(SPARSE_ENTRIES_MAX));
            return Err(Error::TooMany { what: "entries of a sparse map in the backup stream", got, limit });
        }
        Ok(entries)
    }

    fn file(&mut self, path: &FilePath) -> Result<&mut FileState, Error> {
        if !self.files.contains_key(path) {
            let got = self.files.len() as u64 + 1;
            if got > STREAM_FILES_MAX {
                return Err(Error::TooMany {
                    what: "files in the backup stream",
                    got,
                    limit: STREAM_FILES_MAX,
                });
            }
            self.open += 1;
        }
        if self.files.get(path).is_some_and(|state| state.ended) {
            return Err(self.malformed(format!("nothing of {path} after its end"), "another chunk"));
        }
        Ok(self.files.entry(path.clone()).or_default())
    }

    fn end_of_file<E: From<Error>>(
        &mut self,
        path: &FilePath,
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let state = self.file(path)?;
        state.ended = true;
        let len = state.place;
        self.open -= 1;
        self.reset();
        each(Event::End { path, len })
    }

    fn reset(&mut self) {
        self.head.clear();
        self.need = HEAD_BYTES;
    }

    fn begin_payload(&mut self, path: FilePath, fields_end: usize, skipped: bool) -> Result<(), Error> {
        let field = |at| le64(&self.head, at).unwrap_or(0);
        let (len, offset) = (field(fields_end - 20), field(fields_end - 12));
        let crc_stored = le32(&self.head, fields_end - 4).unwrap_or(0);
        let map_bytes = self.head.get(fields_end..).unwrap_or_default();
        let mut crc = crc32fast::Hasher::new();
        crc.update(map_bytes);
        let map: std::collections::VecDeque<(u32, u32)> =
            map_bytes.chunks_exact(8).filter_map(|e| Some((le32(e, 0)?, le32(e, 4)?))).collect();
        let sparse = self.head.get(9) == Some(&b'S');
        let state = if skipped { FileState::default() } else { *self.file(&path)? };
        if !skipped && offset != state.payload {
            return Err(
                self.malformed(format!("{path} to go on at offset {}", state.payload), format!("{offset}"))
            );
        }
        let mapped: u64 = map.iter().map(|(_, run)| u64::from(*run)).sum();
        if sparse && mapped != len {
            return Err(self.malformed(format!("a sparse map of {len} bytes"), format!("{mapped}")));
        }
        let skip: u64 = map.iter().map(|(skip, _)| u64::from(*skip)).sum();
        let end = state.place.checked_add(len).and_then(|end| end.checked_add(skip));
        if end.is_none_or(|end| end >= 1 << 63) {
            return Err(self.malformed("a file shorter than 2^63 bytes", format!("{offset} + {len}")));
        }
        let crc_payload = crc32fast::Hasher::new();
        let run_left = (!sparse).then_some(len);
        self.chunk =
            Some(Chunk { path, state, left: len, crc_stored, crc, crc_payload, map, run_left, skipped });
        self.reset();
        if len == 0 {
            self.end_of_payload()?;
        }
        Ok(())
    }

    fn end_of_payload(&mut self) -> Result<(), Error> {
        let Some(mut chunk) = self.chunk.take() else { return Ok(()) };
        // What a sparse map skips after its last byte.
        for (skip, _) in std::mem::take(&mut chunk.map) {
            chunk.state.place += u64::from(skip);
        }
        let (whole, payload) = (chunk.crc.finalize(), chunk.crc_payload.finalize());
        if whole != chunk.crc_stored && payload != chunk.crc_stored {
            let got = format!("{whole:#010x}");
            return Err(
                self.malformed(format!("the checksum {:#010x} of {}", chunk.crc_stored, chunk.path), got)
            );
        }
        if !chunk.skipped
            && let Some(state) = self.files.get_mut(&chunk.path)
        {
            *state = chunk.state;
        }
        Ok(())
    }
}

impl Chunk {
    /// Hands on as much of `input` as belongs together. Returns how much that was; at least 1.
    fn take<E: From<Error>>(
        &mut self,
        input: &[u8],
        each: &mut impl FnMut(Event<'_>) -> Result<(), E>,
    ) -> Result<usize, E> {
        let run = loop {
            match self.run_left {
                Some(run) if run > 0 => break run,
                _ => {
                    // The map covers the payload, which was checked when it came.
                    let (skip, run) = self.map.pop_front().unwrap_or((0, u32::MAX));
                    self.state.place += u64::from(skip);
                    self.run_left = Some(u64::from(run));
                }
            }
        };
        let taken = run.min(self.left).min(input.len() as u64);
        let bytes = input.get(..taken as usize).unwrap_or_default();
        self.crc.update(bytes);
        self.crc_payload.update(bytes);
        if !self.skipped {
            each(Event::Data { path: &self.path, offset: self.state.place, bytes })?;
        }
        self.state.place += taken;
        self.state.payload += taken;
        self.left -= taken;
        self.run_left = Some(run - taken);
        Ok(taken as usize)
    }
}

fn le32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_le_bytes)
}

fn le64(bytes: &[u8], at: usize) -> Option<u64> {
    bytes.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes)
}

#[cfg(test)]
mod tests;
