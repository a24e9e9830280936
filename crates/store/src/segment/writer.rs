//! Writing one segment.

use std::sync::Arc;

use holdfast_format::ids::{Address, BlockId, SegmentId, SessionId};
use holdfast_format::keys;
use holdfast_format::limits::SLOTS_MAX;
use holdfast_format::names;
use holdfast_format::parity::Geometry;
use holdfast_format::segment::{
    Birth, Codec, Footer, FooterEntry, FrameHeader, FrameKind, SegmentHeader, SegmentKind, Trailer, align_up,
};
use holdfast_io::{ObjectName, ObjectWriter, Objects};

use crate::cipher::Cipher;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::parity::{self, Image, Workshop};
use crate::random;

/// A frame before it has a slot.
#[derive(Debug)]
pub(crate) struct NewFrame {
    pub(crate) kind: FrameKind,
    pub(crate) codec: Codec,
    pub(crate) depth: u8,
    pub(crate) base: Option<Address>,
    /// Keyed BLAKE3 of the plaintext.
    pub(crate) id: BlockId,
    pub(crate) plain_len: u32,
    /// The encoded plaintext, not sealed yet.
    pub(crate) payload: Vec<u8>,
}

/// What is known of a segment after it was sealed.
#[derive(Debug)]
pub(crate) struct SealedSegment {
    pub(crate) id: SegmentId,
    /// Bytes of the object.
    pub(crate) bytes: u64,
    /// The part of them that is parity.
    pub(crate) parity_bytes: u64,
    pub(crate) footer: Footer,
}

/// A segment that is being written.
#[derive(Debug)]
pub(crate) struct SegmentWriter {
    object: Box<dyn ObjectWriter>,
    keys: Arc<Keys>,
    id: SegmentId,
    frames: Cipher,
    footers: Cipher,
    footer: Footer,
    root: blake3::Hasher,
    offset: u64,
    /// What the last sync covered, bytes.
    durable_end: u64,
    /// Open each frame again after sealing it.
    verify: bool,
    /// A payload before it was sealed and after it was opened again.
    checks: (Vec<u8>, Vec<u8>),
    /// Everything written so far, for the parity; none where there will be no parity.
    image: Option<Image>,
}

impl SegmentWriter {
    /// Makes the object and writes its header, with the wrapped data key.
    pub(crate) fn create(
        objects: &dyn Objects,
        keys: &Arc<Keys>,
        kind: SegmentKind,
        session: SessionId,
        verify: bool,
    ) -> Result<Self> {
        Self::create_in(&Arc::default(), objects, keys, kind, session, verify)
    }

    /// As [`SegmentWriter::create`], with the memory of the segments before.
    pub(crate) fn create_in(
        workshop: &Arc<Workshop>,
        objects: &dyn Objects,
        keys: &Arc<Keys>,
        kind: SegmentKind,
        session: SessionId,
        verify: bool,
    ) -> Result<Self> {
        Self::create_with(workshop, objects, keys, (kind, session, verify), Vec::new())
    }

    /// As [`SegmentWriter::create_in`], for a segment that carries frames of these `births`, too.
    pub(super) fn create_with(
        workshop: &Arc<Workshop>,
        objects: &dyn Objects,
        keys: &Arc<Keys>,
        (kind, session, verify): (SegmentKind, SessionId, bool),
        births: Vec<Birth>,
    ) -> Result<Self> {
        let id = SegmentId(random::bytes()?);
        let data_key = zeroize::Zeroizing::new(random::bytes::<32>()?);
        let own = keys.wrap(id, &data_key)?;
        let births = std::iter::once(own).chain(births).collect();
        let header = SegmentHeader { repo: keys.repo, segment: id, kind, session, births };
        let name = if kind == SegmentKind::Log { names::log(id) } else { names::segment(id) };
        let object = objects.create(&ObjectName::new(name)?)?;
        // What is in a log was acknowledged long before its end, so parity there would promise what it can't keep.
        let image = (kind != SegmentKind::Log).then(|| Image::new(workshop));
        let mut segment = Self {
            object,
            keys: Arc::clone(keys),
            id,
            frames: keys.cipher(&keys::frame_key(&data_key))?,
            footers: keys.cipher(&keys::footer_key(&data_key))?,
            footer: Footer::default(),
            root: blake3::Hasher::new(),
            offset: 0,
            durable_end: 0,
            verify,
            checks: Default::default(),
            image,
        };
        segment.write(&header.encode())?;
        Ok(segment)
    }

    pub(crate) fn id(&self) -> SegmentId {
        self.id
    }

    /// Bytes of header and frames so far.
    pub(crate) fn len(&self) -> u64 {
        self.offset
    }

    /// Whether another frame may be appended.
    pub(crate) fn has_slot(&self) -> bool {
        self.footer.entries.len() < SLOTS_MAX as usize
    }

    /// Seals and appends a frame; gives its slot, and the payload's memory back.
    pub(crate) fn append(&mut self, frame: NewFrame) -> Result<(u32, Vec<u8>)> {
        let slot =
            u32::try_from(self.footer.entries.len()).ok().filter(|s| *s < SLOTS_MAX).ok_or(Error::LogFull)?;
        let mut payload = frame.payload;
        let stored_len = u32::try_from(payload.len().saturating_add(keys::TAG_BYTES)).unwrap_or(u32::MAX);
        let mut header = FrameHeader {
            slot,
            kind: frame.kind,
            codec: frame.codec,
            depth: frame.depth,
            birth: 0,
            plain_len: frame.plain_len,
            stored_len,
            payload_crc: 0,
            durable_end: if frame.kind.is_log() {
                u32::try_from(self.durable_end).map_err(|_| Error::LogFull)?
            } else {
                0
            },
        };
        let aad = header.aad(self.keys.repo, self.id);
        let (mut before, mut again) = std::mem::take(&mut self.checks);
        before.clear();
        if self.verify {
            before.extend_from_slice(&payload);
        }
        self.frames.seal(keys::frame_nonce(slot), &aad, &mut payload)?;
        if self.verify {
            let opened = self.frames.open_into(keys::frame_nonce(slot), &aad, &payload, &mut again);
            if opened.is_err() || again != before {
                return Err(Error::SelfCheck { what: "encryption" });
            }
        }
        self.checks = (before, again);
        header.payload_crc = crc32c::crc32c(&payload);
        let head = header.encode();
        let tag = payload.last_chunk::<{ keys::TAG_BYTES }>().ok_or(Error::SelfCheck { what: "a tag" })?;
        let entry = FooterEntry {
            id: frame.id,
            offset: 0,
            plain_len: frame.plain_len,
            stored_len,
            slot,
            base: frame.base,
            birth: 0,
            kind: frame.kind,
            codec: frame.codec,
            depth: frame.depth,
        };
        self.push_frame(&head, &payload, tag, entry)?;
        Ok((slot, payload))
    }

    /// Writes a sealed frame and lists it, at the offset where it comes to lie.
    pub(super) fn push_frame(
        &mut self,
        head: &[u8],
        payload: &[u8],
        tag: &[u8; keys::TAG_BYTES],
        entry: FooterEntry,
    ) -> Result<()> {
        let offset = u32::try_from(self.offset).map_err(|_| Error::LogFull)?;
        self.root.update(head).update(tag);
        self.write(head)?;
        self.write(payload)?;
        self.footer.entries.push(FooterEntry { offset, ..entry });
        Ok(())
    }

    /// Makes everything appended so far durable.
    pub(crate) fn sync(&mut self) -> Result<()> {
        self.object.sync()?;
        self.durable_end = self.offset;
        Ok(())
    }

    /// Writes footer and trailer and makes the segment durable.
    pub(crate) fn seal(mut self) -> Result<SealedSegment> {
        let frames_end = self.offset;
        self.pad()?;
        let footer_offset = self.offset;
        let sealed = seal_footer(&self.keys, &self.footers, self.id, &self.footer, false, frames_end)?;
        self.write(&sealed)?;
        self.pad()?;
        let trailer = Trailer {
            repo: self.keys.repo,
            segment: self.id,
            detached: false,
            frames_end,
            footer_offset,
            footer_len: sealed.len() as u64,
            frames: u32::try_from(self.footer.entries.len()).unwrap_or(u32::MAX),
            frames_root: *self.root.finalize().as_bytes(),
            parity: self.image.as_ref().map(|_| Geometry::of(self.offset).place()),
        };
        let mut parity_bytes = 0;
        if let Some(image) = self.image.take() {
            let parity = parity::make(&image, self.keys.repo, self.id, &trailer)?;
            drop(image);
            parity_bytes = parity.len() as u64;
            self.write(&parity)?;
        }
        self.write(&trailer.encode())?;
        let bytes = self.object.finish()?;
        Ok(SealedSegment { id: self.id, bytes, parity_bytes, footer: self.footer })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.object.write(bytes)?;
        if let Some(image) = &mut self.image {
            image.push(bytes);
        }
        self.offset += bytes.len() as u64;
        Ok(())
    }

    fn pad(&mut self) -> Result<()> {
        let gap = usize::try_from(align_up(self.offset) - self.offset).unwrap_or(0);
        self.write(&vec![0; gap])
    }
}

/// Nonce, four zeros, ciphertext, tag.
pub(crate) fn seal_footer(
    keys: &Keys,
    cipher: &Cipher,
    segment: SegmentId,
    footer: &Footer,
    detached: bool,
    frames_end: u64,
) -> Result<Vec<u8>> {
    let plain = footer.encode();
    if Footer::decode(&plain).ok().as_ref() != Some(footer) {
        return Err(Error::SelfCheck { what: "a segment's footer" });
    }
    let frames = u32::try_from(footer.entries.len()).unwrap_or(u32::MAX);
    let nonce = random::bytes()?;
    let mut body = plain;
    cipher.seal(nonce, &Footer::aad(keys.repo, segment, detached, frames_end, frames), &mut body)?;
    let mut out = nonce.to_vec();
    out.extend_from_slice(&[0; 4]);
    out.append(&mut body);
    Ok(out)
}

/// The object of a detached footer, for a log segment whose writer died.
pub(crate) fn detached_footer(
    keys: &Keys,
    data_key: &[u8; 32],
    segment: SegmentId,
    footer: &Footer,
    frames_root: [u8; 32],
    frames_end: u64,
) -> Result<Vec<u8>> {
    let cipher = keys.cipher(&keys::footer_key(data_key))?;
    let mut bytes = seal_footer(keys, &cipher, segment, footer, true, frames_end)?;
    let trailer = Trailer {
        repo: keys.repo,
        segment,
        detached: true,
        frames_end,
        footer_offset: 0,
        footer_len: bytes.len() as u64,
        frames: u32::try_from(footer.entries.len()).unwrap_or(u32::MAX),
        frames_root,
        parity: None,
    };
    let padded = usize::try_from(align_up(bytes.len() as u64)).unwrap_or(bytes.len());
    bytes.resize(padded, 0);
    bytes.extend_from_slice(&trailer.encode());
    Ok(bytes)
}
