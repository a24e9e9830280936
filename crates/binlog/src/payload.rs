//! TRANSACTION_PAYLOAD (40): the events of a transaction, compressed together.

use crate::bytes::Cursor;
use crate::error::{Error, Flaw};
use crate::event::Event;
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

    /// Replaces `out` by the unpacked events: without checksums, whatever the log's.
    ///
    /// # Errors
    /// Fails when the data do not unpack to the size stated.
    pub fn unpack(&self, out: &mut Vec<u8>) -> Result<(), Flaw> {
        let c = Cursor::new(self.data);
        out.clear();
        match self.packing {
            Packing::None => out.extend_from_slice(self.data),
            Packing::Zstd => {
                let stream = zstd::stream::read::Decoder::with_buffer(self.data);
                let stream = stream.map_err(|e| c.flaw("zstd data", e))?;
                let mut stream = std::io::Read::take(stream, self.unpacked_len.saturating_add(1));
                std::io::Read::read_to_end(&mut stream, out).map_err(|e| c.flaw("zstd data", e))?;
            }
        }
        if out.len() as u64 != self.unpacked_len {
            return Err(c.flaw("the unpacked size of the header", out.len()));
        }
        Ok(())
    }
}

/// The events in an unpacked payload. Their positions count from `position`, that of the
/// payload event, plus the offset in the unpacked bytes: good for messages, not for seeking.
pub fn inner_events<'a>(
    unpacked: &'a [u8],
    format: &FormatDescription,
    position: u64,
) -> impl Iterator<Item = Result<Event<'a>, Error>> {
    let mut walker =
        Walker::resume(FormatDescription { checksum: Checksum::Off, ..format.clone() }, position);
    let mut rest = unpacked;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let step = walker.whole(rest);
        match &step {
            Ok(event) => rest = rest.get(event.raw.len()..).unwrap_or_default(),
            Err(_) => rest = &[],
        }
        Some(step)
    })
}
