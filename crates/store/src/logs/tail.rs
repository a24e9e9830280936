//! What an invalid frame in a log without a known end means: a tail that a crash tore off, or damage.
//!
//! Each frame says how much of its segment was durable when it was written. So an invalid frame before such a place was
//! once whole, and acknowledged: its bytes have changed. The rules are in `format-spec/log.md`.

use holdfast_format::ids::SegmentId;
use holdfast_format::segment::{FRAME_HEADER_BYTES, FrameHeader};
use holdfast_io::{ObjectName, Objects};

use crate::cipher::Cipher;
use crate::error::Result;
use crate::keys::Keys;
use crate::segment::open_frame;

/// Smallest unit that a device writes whole.
const SECTOR_BYTES: usize = 512;

/// Fewest bytes of zeros in front of a sector's end that tell that the frame due there was never written.
const ZEROS_MIN: usize = 8;

/// The bytes of a log segment from the first invalid frame on.
pub(super) struct Tail<'a> {
    pub(super) objects: &'a dyn Objects,
    pub(super) name: &'a ObjectName,
    pub(super) keys: &'a Keys,
    /// The segment and what opens its frames; `None` if its header, which holds the key, is itself what can't be read.
    pub(super) cipher: Option<(SegmentId, &'a Cipher)>,
    /// Offset of the invalid frame.
    pub(super) from: u64,
    /// The slot that is due there.
    pub(super) slot: u32,
    /// Where the bytes end that may be frames.
    pub(super) len: u64,
}

/// What the invalid frame is.
pub(super) enum Verdict {
    /// Perhaps never whole, and never acknowledged.
    Torn,
    /// Once whole.
    Damage {
        /// How that is known.
        because: String,
    },
}

impl Tail<'_> {
    pub(super) fn verdict(&self) -> Result<Verdict> {
        let len = self.len.saturating_sub(self.from);
        if len <= FRAME_HEADER_BYTES as u64 {
            return Ok(Verdict::Torn);
        }
        let bytes = self.objects.read(self.name, self.from, len)?;
        let mut first = None;
        let mut at = 1;
        while let Some(found) = bytes.get(at..).and_then(|rest| rest.windows(4).position(|w| w == b"HFfr")) {
            at = at.saturating_add(found);
            let rest = bytes.get(at..).unwrap_or(&[]);
            let place = self.from.saturating_add(at as u64);
            let Some(header) = self.header(rest) else {
                at = at.saturating_add(1);
                continue;
            };
            // It was written after that sync, whether the rest of its frame reached the disk or not.
            let durable = u64::from(header.durable_end);
            if durable > self.from && durable <= place {
                let because =
                    format!("everything before byte {durable} was synced, as the frame at {place} says");
                return Ok(Verdict::Damage { because });
            }
            let whole = first.is_none() && self.is_whole(&header, rest);
            first = first.or_else(|| whole.then_some(at));
            at = at.saturating_add(FRAME_HEADER_BYTES);
        }
        let whole = first.filter(|at| {
            let between = bytes.get(..*at).unwrap_or(&[]);
            !has_unwritten_sector(self.from, between)
        });
        Ok(whole.map_or(Verdict::Torn, |at| Verdict::Damage {
            because: format!("yet a whole frame follows at {}", self.from.saturating_add(at as u64)),
        }))
    }

    /// The header that begins here, of a frame that may stand behind the invalid one.
    fn header(&self, bytes: &[u8]) -> Option<FrameHeader> {
        let header = FrameHeader::decode(bytes).ok()?;
        (header.kind.is_log() && header.birth == 0 && header.slot >= self.slot).then_some(header)
    }

    /// Whether all of a frame is there, and of this segment.
    fn is_whole(&self, header: &FrameHeader, bytes: &[u8]) -> bool {
        let Some((segment, cipher)) = self.cipher else { return false };
        let end = FRAME_HEADER_BYTES.saturating_add(header.stored_len as usize);
        let Some(payload) = bytes.get(FRAME_HEADER_BYTES..end) else { return false };
        crc32c::crc32c(payload) == header.payload_crc
            && open_frame(self.keys, cipher, segment, header, payload, &mut Vec::new()).is_ok()
    }
}

/// Whether a crash kept a sector of these bytes, which begin at `from`, from being written: it is all zeros, which no
/// ciphertext is and rot does not make. Then the frames behind were written together with it, and not acknowledged.
fn has_unwritten_sector(from: u64, bytes: &[u8]) -> bool {
    let boundary = from.next_multiple_of(SECTOR_BYTES as u64).saturating_sub(from);
    let head = usize::try_from(boundary).unwrap_or(usize::MAX);
    let (partial, whole) = bytes.split_at_checked(head).unwrap_or((bytes, &[]));
    let zeros = |sector: &[u8]| sector.iter().all(|b| *b == 0);
    let cut = partial.len() == head && head >= ZEROS_MIN && zeros(partial);
    cut || whole.chunks_exact(SECTOR_BYTES).any(zeros)
}
