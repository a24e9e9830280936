//! One segment sealed anew: the same frames at the same offsets, under another key for each birth.

use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::keys::{self, TAG_BYTES};
use holdfast_format::parity::Geometry;
use holdfast_format::record::Healing;
use holdfast_format::segment::{
    Birth, Codec, FRAME_HEADER_BYTES, FooterEntry, FrameHeader, PAGE_BYTES, SegmentHeader, Trailer, align_up,
};
use holdfast_io::ObjectName;

use super::Run;
use crate::cipher::Cipher;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::parity::{self, Healed, Image, Workshop};
use crate::repository::Inner;
use crate::segment::{SegmentView, seal_footer};

/// What is said when what was made is not what it should be: nothing was replaced then.
const WRONG: Error = Error::SelfCheck { what: "a re-encrypted segment" };

impl Run<'_> {
    /// Seals a data or meta segment anew and replaces it; rot that its parity makes good is healed on the way.
    pub(super) fn segment(&mut self, id: SegmentId, name: &ObjectName) -> Result<bool> {
        let (bytes, refused) = self.read(name)?;
        let made = match self.resealed(id, name, bytes) {
            Err(e) if e.is_damage() => match parity::heal(self.inner.keys.repo, id, &self.read(name)?.0)? {
                Healed::Repaired { bytes, bad_pages } => {
                    let made = self.resealed(id, name, bytes)?;
                    self.healed.push(Healing { segment: id, pages: bad_pages });
                    made
                }
                _ => return Err(refused.map_or(e, |refused| not_given(name, &refused))),
            },
            other => other?,
        };
        self.inner.objects.replace(name, &made)?;
        Ok(true)
    }

    /// The new bytes of a segment whose bytes these are; they were read back and compared.
    pub(super) fn resealed(&self, id: SegmentId, name: &ObjectName, old: Vec<u8>) -> Result<Vec<u8>> {
        let inner = self.inner;
        let trailer = old.last_chunk::<PAGE_BYTES>();
        let trailer = trailer.ok_or_else(|| Error::damaged(name, "its length", old.len()))?;
        let trailer = Trailer::decode(trailer).map_err(Error::format(name))?;
        let old = SegmentView::load(&inner.objects, &inner.keys, id, Some(Arc::new(old)))?;
        let made = reseal(&inner.keys, &self.workshop, &old, &trailer)?;
        let made = compare(inner, id, &old, made)?;
        drop(old);
        if trailer.parity.is_some() && parity::heal(inner.keys.repo, id, &made)? != Healed::Intact {
            return Err(WRONG);
        }
        Ok(made)
    }
}

/// Bytes that the disk does not give are lost, as damaged ones are.
pub(super) fn not_given(name: &ObjectName, refused: &holdfast_io::Error) -> Error {
    Error::damaged(name, "its bytes", format!("the disk does not give them ({refused})"))
}

/// The bytes of the segment under new keys.
fn reseal(keys: &Keys, workshop: &Arc<Workshop>, old: &SegmentView, trailer: &Trailer) -> Result<Vec<u8>> {
    let id = trailer.segment;
    let (mut births, mut ciphers, mut footers): (Vec<Birth>, Vec<Cipher>, Option<Cipher>) =
        Default::default();
    for birth in &old.header().births {
        let (birth, data_key) = keys.rewrap(birth, old.name().as_str())?;
        footers = footers.or(Some(keys.cipher(&keys::footer_key(&data_key))?));
        births.push(birth);
        ciphers.push(keys.cipher(&keys::frame_key(&data_key))?);
    }
    let mut out = SegmentHeader { births, ..old.header().clone() }.encode();
    let mut root = blake3::Hasher::new();
    let (mut frame, mut payload) = (Vec::new(), Vec::new());
    for entry in &old.footer().entries {
        if out.len() as u64 != u64::from(entry.offset) {
            return Err(Error::damaged(old.name(), "its footer", "frames do not stand back to back"));
        }
        let header = open(old, entry, &mut frame, &mut payload)?;
        let birth = old.header().births.get(usize::from(entry.birth)).ok_or(WRONG)?;
        let cipher = ciphers.get(usize::from(entry.birth)).ok_or(WRONG)?;
        cipher.seal(keys::frame_nonce(entry.slot), &header.aad(keys.repo, birth.segment), &mut payload)?;
        let head = FrameHeader { payload_crc: crc32c::crc32c(&payload), ..header }.encode();
        root.update(&head).update(payload.last_chunk::<TAG_BYTES>().ok_or(WRONG)?);
        out.extend_from_slice(&head);
        out.extend_from_slice(&payload);
    }
    let frames_end = out.len() as u64;
    pad(&mut out);
    let footer_offset = out.len() as u64;
    let footers = footers.ok_or(WRONG)?;
    let sealed = seal_footer(keys, &footers, id, old.footer(), false, frames_end)?;
    out.extend_from_slice(&sealed);
    pad(&mut out);
    let place = trailer.parity.map(|_| Geometry::of(out.len() as u64).place());
    let footer_len = sealed.len() as u64;
    let frames_root = *root.finalize().as_bytes();
    let trailer = Trailer { frames_end, footer_offset, footer_len, frames_root, parity: place, ..*trailer };
    if place.is_some() {
        let mut image = Image::new(workshop);
        image.push(&out);
        out.extend_from_slice(&parity::make(&image, keys.repo, id, &trailer)?);
    }
    out.extend_from_slice(&trailer.encode());
    Ok(out)
}

/// Reads the new bytes as a reader would, under the new keys only where they were asked for, and compares what they
/// open to with the old ones. Frames that are no deltas are decoded and compared with their ids; a delta's payload, base
/// included, is the same to the byte.
fn compare(inner: &Inner, id: SegmentId, old: &SegmentView, made: Vec<u8>) -> Result<Vec<u8>> {
    let made = Arc::new(made);
    let new = SegmentView::load(&inner.objects, &inner.keys, id, Some(Arc::clone(&made)))?;
    let newest = inner.keys.generation();
    let same = new.footer() == old.footer() && new.header().births.iter().all(|b| b.kek_generation == newest);
    if !same {
        return Err(WRONG);
    }
    let mut coder = Coder::new()?;
    let (mut frame, mut before, mut after, mut plain) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for entry in &old.footer().entries {
        open(old, entry, &mut frame, &mut before)?;
        open(&new, entry, &mut frame, &mut after).map_err(|_| WRONG)?;
        if before != after {
            return Err(WRONG);
        }
        if entry.codec != Codec::Delta {
            plain.resize(entry.plain_len as usize, 0);
            new.decode(&mut coder, entry, &after, &mut plain)?;
        }
    }
    drop(new);
    Arc::into_inner(made).ok_or(WRONG)
}

/// Reads and opens a frame; `payload` is then what was sealed in it.
fn open(
    view: &SegmentView,
    entry: &FooterEntry,
    frame: &mut Vec<u8>,
    payload: &mut Vec<u8>,
) -> Result<FrameHeader> {
    frame.resize(FRAME_HEADER_BYTES.saturating_add(entry.stored_len as usize), 0);
    view.read_into(u64::from(entry.offset), frame)?;
    view.open(entry, frame, payload)?;
    let header = FrameHeader::decode(frame).map_err(Error::format(view.name()))?;
    let sealed = frame.get(FRAME_HEADER_BYTES..).unwrap_or(&[]);
    if crc32c::crc32c(sealed) != header.payload_crc {
        return Err(view.wrong(entry, "its checksum is wrong"));
    }
    Ok(header)
}

/// Zeros up to the next page.
pub(super) fn pad(bytes: &mut Vec<u8>) {
    let end = usize::try_from(align_up(bytes.len() as u64)).unwrap_or(bytes.len());
    bytes.resize(end, 0);
}
