//! What a log segment says about itself in its first frame. See `format-spec/log.md`.

use crate::codec::{Reader, Writer};
use crate::error::Result;
use crate::record::{Position, StreamKey};

/// Version of the structure.
pub const VERSION: u32 = crate::VERSION;

/// The first frame of a log segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogOpening {
    /// The stream.
    pub stream: StreamKey,
    /// Number of the segment in its stream, from 0, without gaps among sealed and left-behind ones.
    pub number: u64,
    /// Where the stream stood when the segment was begun.
    pub start: Position,
    /// When that was, microseconds since the Unix epoch.
    pub opened_us: i64,
}

impl LogOpening {
    /// The plaintext of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        self.stream.put(&mut w);
        w.u64(self.number);
        self.start.put(&mut w);
        w.i64(self.opened_us);
        w.into_bytes()
    }

    /// Reads the plaintext of the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new("log opening", bytes);
        r.version(VERSION)?;
        let opening = Self {
            stream: StreamKey::take(&mut r)?,
            number: r.u64()?,
            start: Position::take(&mut r)?,
            opened_us: r.i64()?,
        };
        r.end()?;
        Ok(opening)
    }
}
