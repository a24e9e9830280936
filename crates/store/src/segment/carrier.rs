//! Writing a carrier: a segment that takes over frames which were born elsewhere, byte for byte.
//!
//! Ciphertext, nonce and associated data are bound to the birth address, so a frame moves as it is; only its plain
//! header changes, because it names the birth by its place in the carrier's table.

use std::sync::Arc;

use holdfast_format::ids::{SegmentId, SessionId};
use holdfast_format::keys::TAG_BYTES;
use holdfast_format::limits::BIRTHS_MAX;
use holdfast_format::segment::{Birth, FRAME_HEADER_BYTES, FooterEntry, FrameHeader, SegmentKind};
use holdfast_io::Objects;

use super::view::SegmentView;
use super::writer::{SealedSegment, SegmentWriter};
use crate::error::{Error, Result};
use crate::keys::Keys;

/// A carrier that is being written.
#[derive(Debug)]
pub(crate) struct CarrierWriter {
    segment: SegmentWriter,
    births: Vec<SegmentId>,
    /// What a frame opens to; kept for its memory.
    opened: Vec<u8>,
}

impl CarrierWriter {
    /// Makes the object. `births` are the segments whose frames it will take, with the keys that open them.
    pub(crate) fn create(
        objects: &dyn Objects,
        keys: &Arc<Keys>,
        kind: SegmentKind,
        session: SessionId,
        births: Vec<Birth>,
    ) -> Result<Self> {
        if births.is_empty() || births.len() >= BIRTHS_MAX {
            return Err(Error::SelfCheck { what: "the births of a carrier" });
        }
        let ids = births.iter().map(|b| b.segment).collect();
        let segment =
            SegmentWriter::create_with(&Arc::default(), objects, keys, (kind, session, true), births)?;
        Ok(Self { segment, births: ids, opened: Vec::new() })
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.segment.id()
    }

    /// Copies one frame; its checksum, tag and header are checked on the way.
    pub(crate) fn carry(&mut self, from: &SegmentView, entry: &FooterEntry) -> Result<()> {
        let mut frame = vec![0; FRAME_HEADER_BYTES.saturating_add(entry.stored_len as usize)];
        from.read_into(u64::from(entry.offset), &mut frame)?;
        // Opens: what is copied is what was written.
        from.open(entry, &frame, &mut self.opened)?;
        let mut header = FrameHeader::decode(&frame).map_err(Error::format(from.name()))?;
        let payload = frame.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
        if crc32c::crc32c(payload) != header.payload_crc {
            return Err(Error::damaged(from.name(), format!("slot {}", entry.slot), "its checksum is wrong"));
        }
        let birth = from.address(entry).map(|a| a.segment);
        let place =
            self.births.iter().position(|b| Some(*b) == birth).and_then(|at| u8::try_from(at + 1).ok());
        header.birth = place.ok_or(Error::SelfCheck { what: "the births of a carrier" })?;
        let tag = payload.last_chunk::<TAG_BYTES>().ok_or(Error::SelfCheck { what: "a tag" })?;
        self.segment.push_frame(&header.encode(), payload, tag, FooterEntry { birth: header.birth, ..*entry })
    }

    /// Seals the carrier and makes it durable.
    pub(crate) fn seal(self) -> Result<SealedSegment> {
        self.segment.seal()
    }
}
