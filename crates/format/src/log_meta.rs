//! What a log segment needs besides its events. See `format-spec/log_meta.md`.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};

/// Version of the structure.
pub const VERSION: u32 = crate::VERSION;

/// Longest format description event: one byte for each of 255 types, and 84 fixed ones.
pub const FORMAT_EVENT_BYTES_MAX: u32 = 1024;

const WHAT: &str = "log note";

/// The plaintext of a frame of kind `LogMeta`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogMeta {
    /// The segment begins inside a file: this is the event that describes the format in force there.
    Format {
        /// The FORMAT_DESCRIPTION event, header and checksum included.
        event: Vec<u8>,
    },
    /// The segment begins inside a transaction, which begins at this offset of the same file.
    Inside {
        /// Offset of the transaction's first event.
        start: u64,
    },
    /// The source had nothing more than what stands before this note in the stream.
    Complete {
        /// When, microseconds since the Unix epoch by the source's clock: what it commits later has a later time.
        at_us: i64,
    },
    /// In this time every commit of the source waited until it was durable in this stream before anybody was told of it.
    ZeroLoss {
        /// From when, microseconds since the Unix epoch by the source's clock.
        from_us: i64,
        /// Until when; not before `from_us`.
        until_us: i64,
    },
}

impl LogMeta {
    /// The plaintext of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        match self {
            Self::Format { event } => {
                w.u8(1);
                w.blob(event);
            }
            Self::Inside { start } => {
                w.u8(2);
                w.u64(*start);
            }
            Self::Complete { at_us } => {
                w.u8(3);
                w.i64(*at_us);
            }
            Self::ZeroLoss { from_us, until_us } => {
                w.u8(4);
                w.i64(*from_us);
                w.i64(*until_us);
            }
        }
        w.into_bytes()
    }

    /// Reads the plaintext of a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.version(VERSION)?;
        let meta = match r.u8()? {
            1 => Self::Format { event: r.blob("a format description", FORMAT_EVENT_BYTES_MAX)?.to_vec() },
            2 => Self::Inside { start: r.u64()? },
            3 => Self::Complete { at_us: r.i64()? },
            4 => {
                let (from_us, until_us) = (r.i64()?, r.i64()?);
                if until_us < from_us {
                    return Err(Error::bad(WHAT, "the end of an interval", "its begin or later", until_us));
                }
                Self::ZeroLoss { from_us, until_us }
            }
            other => return Err(Error::bad(WHAT, "the kind of note", "1 to 4", other)),
        };
        r.end()?;
        Ok(meta)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn notes_come_back(event in proptest::collection::vec(any::<u8>(), 0..200), start: u64) {
            let complete = LogMeta::Complete { at_us: start as i64 };
            let (a, b) = (start as i64, event.len() as i64);
            let zero_loss = LogMeta::ZeroLoss { from_us: a.min(b), until_us: a.max(b) };
            for meta in
                [LogMeta::Format { event: event.clone() }, LogMeta::Inside { start }, complete, zero_loss]
            {
                prop_assert_eq!(LogMeta::decode(&meta.encode()).unwrap(), meta);
            }
            let _ = LogMeta::decode(&event);
        }
    }
}
