//! Events out of a binlog file, one at a time.

use std::io::{BufReader, Read};

use holdfast_binlog::event::{FLAG_IN_USE, HEADER_LEN};
use holdfast_binlog::walker::{MAGIC, Walker};
use holdfast_binlog::{EventType, Header};

use super::BinlogFiles;
use crate::error::{Error, Result};
use crate::intake::FIRST_OFFSET;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// What was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// An event.
    Event,
    /// The end, behind an event.
    End,
    /// The end, inside the event that begins at this offset.
    Cut(u64),
}

/// A file that is being read. Memory: one event, as it comes.
pub(super) struct EventFile<'f> {
    name: String,
    reader: BufReader<Box<dyn Read + 'f>>,
    offset: u64,
    event: Vec<u8>,
}

impl<'f> EventFile<'f> {
    /// Begins at `offset`, which is that of an event.
    pub(super) fn open(files: &'f dyn BinlogFiles, at: usize, offset: u64) -> Result<Self> {
        let name = files.names().get(at).cloned().unwrap_or_default();
        let open = |offset| {
            let read = files.open(at, offset);
            read.map_err(|source| Error::Read { file: name.clone(), source })
        };
        let mut magic = Vec::new();
        let front = open(0)?.take(MAGIC.len() as u64).read_to_end(&mut magic);
        front.map_err(|source| Error::Read { file: name.clone(), source })?;
        let told = Walker::new(0).file(&magic).map(drop);
        told.map_err(|source| Error::Event { file: name.clone(), source })?;
        let reader = BufReader::with_capacity(CHUNK_BYTES, open(offset)?);
        Ok(Self { name, reader, offset, event: Vec::new() })
    }

    /// The event that was met last, as a source would send it.
    pub(super) fn event(&self) -> &[u8] {
        &self.event
    }

    /// Goes on.
    pub(super) fn step(&mut self) -> Result<Step> {
        let begin = self.offset + self.event.len() as u64;
        self.offset = begin;
        self.event.clear();
        if self.fill(HEADER_LEN as u64)? {
            let length = self.event.first_chunk().map(Header::read).map_or(0, |header| header.length);
            // A length that is too short for a header is for the walker to refuse.
            let more = u64::from(length).saturating_sub(HEADER_LEN as u64);
            if self.fill(more)? {
                self.leave_out_in_use();
                return Ok(Step::Event);
            }
        }
        Ok(if self.event.is_empty() { Step::End } else { Step::Cut(begin) })
    }

    /// Adds so many bytes, if they are there.
    fn fill(&mut self, bytes: u64) -> Result<bool> {
        // By as much as comes: a length that lies costs no memory.
        let read = self.reader.by_ref().take(bytes).read_to_end(&mut self.event);
        let read = read.map_err(|source| Error::Read { file: self.name.clone(), source })?;
        Ok(read as u64 == bytes)
    }

    /// A source sends the head of a file without the flag that it is being written, which its checksum leaves out.
    fn leave_out_in_use(&mut self) {
        let kind = self.event.get(4).copied();
        let format = kind == Some(EventType::FORMAT_DESCRIPTION.0) && self.offset == FIRST_OFFSET;
        if let (true, Some(flags)) = (format, self.event.get_mut(17)) {
            *flags &= !(FLAG_IN_USE as u8);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct One(Vec<String>, Vec<u8>);

    impl BinlogFiles for One {
        fn names(&self) -> &[String] {
            &self.0
        }

        fn open(&self, _: usize, offset: u64) -> std::io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.1.get(offset as usize..).unwrap_or_default()))
        }
    }

    #[test]
    fn a_file_gives_its_events_and_says_where_it_was_cut_off() {
        let whole = include_bytes!("../../tests/data/mysql.000004");
        let read = |bytes: &[u8]| {
            let files = One(vec!["binlog.000004".to_owned()], bytes.to_vec());
            let mut file = EventFile::open(&files, 0, FIRST_OFFSET).unwrap();
            let mut found = MAGIC.to_vec();
            loop {
                match file.step().unwrap() {
                    Step::Event => found.extend_from_slice(file.event()),
                    other => return (found, other),
                }
            }
        };
        let mut closed = whole.to_vec();
        closed[4 + 17] &= !1;
        assert_eq!(read(whole), (closed.clone(), Step::End));
        let cut = whole.len() - 3;
        let (found, step) = read(&whole[..cut]);
        assert_eq!(step, Step::Cut(found.len() as u64));
        assert_eq!(found, closed[..found.len()]);
        assert_eq!(read(&whole[..10]).1, Step::Cut(4));
        assert_eq!(read(&whole[..4]).1, Step::End);
        let none = One(vec!["binlog.000004".to_owned()], b"\xfebi".to_vec());
        assert!(matches!(EventFile::open(&none, 0, FIRST_OFFSET), Err(Error::Event { .. })));
    }
}
