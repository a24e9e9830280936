//! Tells one life of a source's log from another.
//!
//! After a reset, names of files, offsets and GTIDs come again, so the words of a position name another place in each
//! life. What does not come again is how a file begins: its format description and its list of GTIDs, with the times at
//! which they were written and their checksums. A backup remembers the mark of the file in which it stands; it belongs
//! to those lives only that have a file with this mark.

use std::fmt;
use std::str::FromStr;
use std::time::{Duration, Instant};

use holdfast_binlog::Header;
use holdfast_binlog::event::{FLAG_ARTIFICIAL, HEADER_LEN};
use holdfast_binlog::kind::EventType;
use holdfast_format::record::{Position, StreamKey};
use holdfast_mysql::{Conn, ConnectOptions, DumpFrom, DumpOptions, Next};

use crate::error::{Error, Result};
use crate::intake::FIRST_OFFSET;
use crate::log::LogReader;
use crate::storage::LogStore;

/// The key of the fact under which a backup keeps the mark of its file.
pub const FACT: &str = "binlog.mark";

/// Events at the head of a file that make its mark: the format description, and the list of what was before the file.
const HEAD_EVENTS: usize = 2;

/// Longest wait for the head of a file.
const HEAD_WAIT_MAX: Duration = Duration::from_secs(15);

/// A file of a source's log, and which of all files of that name it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMark {
    /// The file's name.
    pub file: String,
    digest: [u8; 16],
}

impl FileMark {
    /// The mark of a file whose first events are these, as a source sends them.
    #[must_use]
    pub fn of_events<'e>(file: &str, events: impl Iterator<Item = &'e [u8]>) -> Self {
        let mut hasher = blake3::Hasher::new();
        for event in events {
            hasher.update(event);
        }
        let mut digest = [0; 16];
        hasher.finalize_xof().fill(&mut digest);
        Self { file: file.to_owned(), digest }
    }

    /// The mark of a file as a source has it now. Takes a connection of its own.
    pub fn of_source(connect: &ConnectOptions, server_id: u32, file: &str) -> Result<Self> {
        let conn = Conn::connect(connect)?;
        let mut options = DumpOptions::new(server_id);
        options.until_end = true;
        let from = DumpFrom::Position { file: file.to_owned(), offset: FIRST_OFFSET };
        let mut stream = conn.dump(&from, &options)?;
        let deadline = Instant::now() + HEAD_WAIT_MAX;
        let mut head = Vec::new();
        while head.len() < HEAD_EVENTS {
            match stream.next_event(deadline)? {
                Next::Event(event) if is_of_the_file(&event) => head.push(event),
                Next::Event(_) => {}
                Next::Quiet | Next::End => return Err(Error::NoHead { file: file.to_owned() }),
            }
        }
        Ok(Self::of_events(file, head.iter().map(|event| &**event)))
    }

    /// The mark of a file as it is archived; `None` if the stream does not hold its head.
    pub fn of_archive(store: &dyn LogStore, stream: &StreamKey, file: &str) -> Result<Option<Self>> {
        let stretches = store.stretches(stream)?;
        let head = stretches.iter().position(|s| s.start.file == file && s.start.offset == FIRST_OFFSET);
        let Some(first) = head else { return Ok(None) };
        let mut reader = LogReader::over(store, stream, &stretches, first, stretches.len())?;
        let mut events: Vec<Vec<u8>> = Vec::new();
        while events.len() < HEAD_EVENTS {
            match reader.next_event()? {
                Some(event) if event.file == file => events.push(event.event.raw.to_vec()),
                _ => return Ok(None),
            }
        }
        Ok(Some(Self::of_events(file, events.iter().map(Vec::as_slice))))
    }
}

/// An event that lies in the file, and none that the source makes up for a replica.
fn is_of_the_file(raw: &[u8]) -> bool {
    let Some(header) = raw.first_chunk::<HEADER_LEN>().map(Header::read) else { return false };
    let made_up = header.flags & FLAG_ARTIFICIAL != 0 || (header.log_pos == 0 && header.timestamp == 0);
    match header.kind {
        EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => false,
        EventType::FORMAT_DESCRIPTION => true,
        _ => !made_up,
    }
}

impl fmt::Display for FileMark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ", self.file)?;
        self.digest.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for FileMark {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let bad = || format!("'{text}' is no mark of a file");
        let (file, hex) = text.rsplit_once(' ').ok_or_else(bad)?;
        let mut digest = [0; 16];
        if file.is_empty() || hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(bad());
        }
        for (byte, at) in digest.iter_mut().zip((0..32).step_by(2)) {
            let pair = hex.get(at..at + 2).ok_or_else(bad)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
        }
        Ok(Self { file: file.to_owned(), digest })
    }
}

/// A place where a life of a log may begin: a backup stands there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The place.
    pub at: Position,
    /// The mark of its file; unknown if it could not be read when the backup was taken.
    pub mark: Option<FileMark>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_mark_is_read_back_and_tells_heads_apart() {
        let head: [&[u8]; 2] = [b"format", b"gtids"];
        let mark = FileMark::of_events("my binlog.000001", head.into_iter());
        assert_eq!(mark.to_string().parse::<FileMark>().unwrap(), mark);
        assert_ne!(FileMark::of_events("my binlog.000001", [b"other".as_slice()].into_iter()), mark);
    }

    proptest! {
        #[test]
        fn any_text_is_a_mark_or_an_error(text in "\\PC{0,60}") {
            if let Ok(mark) = text.parse::<FileMark>() {
                prop_assert_eq!(mark.to_string().parse::<FileMark>().unwrap(), mark);
            }
        }
    }
}
