//! TRANSACTION_PAYLOAD (40): the events of a transaction, compressed together.

use std::io::Read as _;

use crate::bytes::Cursor;
use crate::error::{Error, Flaw};
use crate::event::{Event, HEADER_LEN, Header};
use crate::format::{Checksum, FormatDescription};
use crate::walker::Walker;

/// Largest unpacked payload. The server compresses what fits its transaction cache; a
/// transaction beyond this is logged uncompressed by any sane `max_binlog_cache_size`.
pub const UNPACKED_MAX: u64 = 4 << 30;

/// Most times that the unpacked form may be longer than the packed one: zstd reaches about
/// 2^15 on runs of one byte; a header that claims more is hostile.
pub const RATIO_MAX: u64 = 1 << 16;

/// How the payload is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Packing {
    /// One or more zstd frames.
    Zstd,
    /// Not at all.
    None,
}

/// A compressed transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Payload<'a> {
    /// How it is packed.
    pub packing: Packing,
    /// Unpacked size that the header states.
    pub unpacked_len: u64,
    /// The packed bytes.
    pub data: &'a [u8],
}

impl<'a> Payload<'a> {
    /// Header: fields of (type, length, value), all length-encoded numbers: 1 size of the
    /// data, 2 compression (0 zstd, 255 none), 3 unpacked size; type 0 ends it.
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Flaw> {
        let mut c = Cursor::new(body);
        let (mut size, mut packing, mut unpacked) = (None, None, None);
        loop {
            let field = c.lenenc("a field of the payload's header")?;
            if field == 0 {
                break;
            }
            let len = c.lenenc("the length of a field")?;
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            let mut value = Cursor::new(c.take(len, "a field of the payload's header")?);
            let value = value.lenenc("a number")?;
            match field {
                1 => size = Some(value),
                2 => {
                    packing = Some(match value {
                        0 => Packing::Zstd,
                        255 => Packing::None,
                        other => return Err(c.flaw("compression 0 (zstd) or 255 (none)", other)),
                    });
                }
                3 => unpacked = Some(value),
                other => return Err(c.flaw("a field from 1 to 3", other)),
            }
        }
        let data = c.rest();
        let (Some(size), Some(packing)) = (size, packing) else {
            return Err(c.flaw("size and compression in the payload's header", "one without the other"));
        };
        if size != data.len() as u64 {
            return Err(c.flaw("as many bytes as the header says", format!("{} of {size}", data.len())));
        }
        let unpacked_len = unpacked.unwrap_or(size);
        if unpacked_len > UNPACKED_MAX || unpacked_len / RATIO_MAX > size {
            return Err(c.flaw("at most 4 GiB of unpacked data, at most 65536 times as long", unpacked_len));
        }
        Ok(Self { packing, unpacked_len, data })
    }
}

/// The events of a payload, unpacked one at a time: a transaction of any size takes the memory of its largest event.
pub struct InnerEvents<'a> {
    stream: Stream<'a>,
    walker: Walker,
    /// The event that the payload is.
    outer: Event<'a>,
    /// Unpacked bytes that are still to come, as the header says.
    left: u64,
    event: Vec<u8>,
}

enum Stream<'a> {
    Plain(&'a [u8]),
    Zstd(Box<zstd::stream::read::Decoder<'static, &'a [u8]>>),
}

impl std::io::Read for Stream<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        match self {
            Self::Plain(rest) => rest.read(to),
            Self::Zstd(stream) => stream.read(to),
        }
    }
}

impl std::fmt::Debug for InnerEvents<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InnerEvents").field("outer", &self.outer.position).field("left", &self.left).finish()
    }
}

impl<'a> Payload<'a> {
    /// The events in it, where `outer` is the event that it is the body of. They have no checksums, whatever the log's.
    /// Their positions count from that of the outer event, plus the offset in the unpacked bytes: good for messages,
    /// not for seeking.
    ///
    /// # Errors
    /// Fails when the data are not what they are said to be packed by.
    pub fn events(&self, outer: &Event<'a>, format: &FormatDescription) -> Result<InnerEvents<'a>, Error> {
        let stream = match self.packing {
            Packing::None => Stream::Plain(self.data),
            Packing::Zstd => {
                let stream = zstd::stream::read::Decoder::with_buffer(self.data);
                Stream::Zstd(Box::new(stream.map_err(|e| outer.malformed(bad_data(&e)))?))
            }
        };
        let format = FormatDescription { checksum: Checksum::Off, ..format.clone() };
        let walker = Walker::resume(format, outer.position);
        Ok(InnerEvents { stream, walker, outer: *outer, left: self.unpacked_len, event: Vec::new() })
    }
}

impl InnerEvents<'_> {
    /// The next event; `None` behind the last one.
    ///
    /// # Errors
    /// Fails when the data do not unpack to the size stated, and on an event that is cut or has an impossible length.
    pub fn next_event(&mut self) -> Result<Option<Event<'_>>, Error> {
        self.event.clear();
        if self.left == 0 {
            self.fill(1)?;
            if self.event.is_empty() {
                return Ok(None);
            }
            return Err(self.other_size("more"));
        }
        self.fill(HEADER_LEN as u64)?;
        let wanted = self.event.first_chunk().map_or(0, |head| u64::from(Header::read(head).length));
        let rest = wanted.saturating_sub(HEADER_LEN as u64);
        let left = self.left.saturating_sub(self.event.len() as u64);
        // One that says that it is longer than all that comes is cut: the walker says so.
        if rest <= left {
            self.fill(rest)?;
            if (self.event.len() as u64) < wanted {
                return Err(self.other_size("less"));
            }
        }
        self.left = self.left.saturating_sub(self.event.len() as u64);
        self.walker.whole(&self.event).map(Some)
    }

    /// Takes up to so many bytes more.
    fn fill(&mut self, bytes: u64) -> Result<(), Error> {
        let read = std::io::Read::take(&mut self.stream, bytes).read_to_end(&mut self.event);
        read.map(|_| ()).map_err(|e| self.outer.malformed(bad_data(&e)))
    }

    fn other_size(&self, got: &str) -> Error {
        let expected = "the unpacked size of the header";
        self.outer.malformed(Flaw { offset: 0, expected, got: got.to_owned() })
    }
}

fn bad_data(error: &std::io::Error) -> Flaw {
    Flaw { offset: 0, expected: "zstd data", got: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::kind::EventType;

    fn format() -> FormatDescription {
        FormatDescription {
            server_version: "9.7.4".to_owned(),
            created: 0,
            post_header_lengths: Vec::new(),
            checksum: Checksum::Off,
        }
    }

    fn header(kind: EventType) -> Header {
        Header { timestamp: 1, kind, server_id: 1, length: 0, log_pos: 0, flags: 0 }
    }

    /// XID events, and a payload event that says that it holds so many bytes.
    fn packed(numbers: std::ops::Range<u64>, says: impl Fn(usize) -> usize, zstd: bool) -> Vec<u8> {
        let mut inner = Vec::new();
        for number in numbers {
            let like = header(EventType::XID);
            encode::event(&like, EventType::XID, &[&number.to_le_bytes()], &mut inner).unwrap();
        }
        let data = if zstd { zstd::encode_all(inner.as_slice(), 1).unwrap() } else { inner.clone() };
        let number = |value: usize| [&[0xfe], value.to_le_bytes().as_slice()].concat();
        let mut body = Vec::new();
        let packing = if zstd { vec![0] } else { vec![0xfc, 255, 0] };
        for (field, value) in [(1, number(data.len())), (2, packing), (3, number(says(inner.len())))] {
            body.extend([field, value.len() as u8]);
            body.extend(value);
        }
        body.push(0);
        body.extend(data);
        let mut out = Vec::new();
        let like = header(EventType::TRANSACTION_PAYLOAD);
        encode::event(&like, EventType::TRANSACTION_PAYLOAD, &[&body], &mut out).unwrap();
        out
    }

    /// The numbers of the events that come, the bytes held for the longest, and how it ended.
    fn read(raw: &[u8]) -> (Vec<u64>, usize, Result<(), Error>) {
        let mut walker = Walker::resume(format(), 4);
        let event = walker.whole(raw).unwrap();
        let crate::event::Body::Payload(payload) = event.parse(&format()).unwrap() else {
            panic!("a payload")
        };
        let mut events = payload.events(&event, &format()).unwrap();
        let (mut numbers, mut held) = (Vec::new(), 0);
        let ended = loop {
            match events.next_event() {
                Ok(Some(inner)) => match inner.parse(&format()).unwrap() {
                    crate::event::Body::Xid { xid } => numbers.push(xid),
                    other => panic!("{other:?}"),
                },
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
            held = held.max(events.event.capacity());
        };
        (numbers, held, ended)
    }

    #[test]
    fn a_payload_takes_the_memory_of_one_event_however_long_it_is() {
        for zstd in [true, false] {
            let (numbers, held, ended) = read(&packed(0..50_000, |len| len, zstd));
            ended.unwrap();
            assert!(numbers.into_iter().eq(0..50_000));
            assert!(held < 4096, "{held} bytes of 1.3 MB are held at once");
        }
    }

    #[test]
    fn a_payload_that_is_longer_or_shorter_than_it_says_is_an_error() {
        for zstd in [true, false] {
            for by in [-28_isize, -27, -1, 1, 27] {
                let (numbers, _, ended) = read(&packed(0..100, |len| len.saturating_add_signed(by), zstd));
                let error = ended.unwrap_err().to_string();
                assert!(numbers.len() <= 100 && numbers.len() >= 98, "{by}: {error}");
            }
        }
    }
}
