//! A new footer for a segment whose own cannot be read any more: the index of its frames, made again from the frames.
//!
//! Each frame's plain header says where it is and how long; its payload opens only if key, slot
//! and lengths are right. What opens is listed, with the id of its plaintext; what does not stays
//! lost, and the backups that need it are named by the next check.

use holdfast_format::ids::Address;
use holdfast_format::keys;
use holdfast_format::limits::ALIGN_BYTES;
use holdfast_format::parity::Geometry;
use holdfast_format::segment::{
    Codec, FRAME_HEADER_BYTES, Footer, FooterEntry, FrameHeader, PAGE_BYTES, SegmentKind, Trailer,
};

use crate::error::{Error, Result};
use crate::hold::random;
use crate::reader::{Reader, base_of, open};
use crate::segment::Segment;

/// What a walk over an object's bytes found.
pub(crate) struct Walked {
    /// The frames that open, by rising offset.
    pub entries: Vec<FooterEntry>,
    /// Where the last of them ends.
    pub end: u64,
    /// Whether every byte up to the end belongs to one of them.
    pub gapless: bool,
    /// Frames that open and are deltas of a base that cannot be read: they have no id, so they cannot be listed.
    pub without_base: usize,
    root: [u8; 32],
}

/// Walks over all frames of an object, going on behind what is damaged.
pub(crate) fn walk(reader: &Reader<'_>, segment: &Segment, object: &[u8]) -> Walked {
    let mut entries: Vec<FooterEntry> = Vec::new();
    let mut root = blake3::Hasher::new();
    let (mut at, mut end, mut gapless) = (PAGE_BYTES, PAGE_BYTES, true);
    let mut without_base = 0_usize;
    while let Some(rest) = object.get(at..).filter(|rest| rest.len() >= FRAME_HEADER_BYTES) {
        match frame(reader, segment, at, rest, &entries) {
            Some((None, len)) => {
                without_base = without_base.saturating_add(1);
                at = at.saturating_add(len);
            }
            Some((Some(entry), len)) => {
                gapless &= at == end;
                let bytes = rest.get(..len).unwrap_or(rest);
                root.update(bytes.get(..FRAME_HEADER_BYTES).unwrap_or_default());
                root.update(bytes.last_chunk::<16>().map_or(&[][..], |tag| &tag[..]));
                entries.push(entry);
                at = at.saturating_add(len);
                end = at;
            }
            None => {
                let next = rest.get(1..).unwrap_or_default().windows(4).position(|w| w == b"HFfr");
                match next {
                    Some(skip) => at = at.saturating_add(skip).saturating_add(1),
                    None => break,
                }
            }
        }
    }
    Walked { entries, end: end as u64, gapless, without_base, root: *root.finalize().as_bytes() }
}

/// The frame that begins here, if one does and it opens, and its length. No entry if its base cannot be read.
fn frame(
    reader: &Reader<'_>,
    segment: &Segment,
    at: usize,
    rest: &[u8],
    before: &[FooterEntry],
) -> Option<(Option<FooterEntry>, usize)> {
    let header = FrameHeader::decode(rest).ok()?;
    let len = usize::try_from(header.frame_len()).ok()?;
    let payload = rest.get(FRAME_HEADER_BYTES..len)?;
    let birth = segment.births.get(usize::from(header.birth))?;
    // Parity of a very small segment may hold a frame's bytes once more.
    if crc32c::crc32c(payload) != header.payload_crc
        || before.iter().any(|e| e.birth == header.birth && e.slot == header.slot)
    {
        return None;
    }
    let opened = open(reader.keys, birth, &header, payload.to_vec()).ok()?;
    let base: Option<Address> = if header.codec == Codec::Delta { Some(base_of(&opened)?) } else { None };
    let id = match reader.decode(birth, &header, payload.to_vec()) {
        Ok(plain) => keys::block_id(&reader.keys.block_id_key, &plain),
        Err(_) if base.is_some() => return Some((None, len)),
        Err(_) => return None,
    };
    let entry = FooterEntry {
        id,
        offset: u32::try_from(at).ok()?,
        plain_len: header.plain_len,
        stored_len: header.stored_len,
        slot: header.slot,
        base,
        birth: header.birth,
        kind: header.kind,
        codec: header.codec,
        depth: header.depth,
    };
    Some((Some(entry), len))
}

/// Footer and trailer for what was found: appended to the frames, or for a log in an object of their own.
pub(crate) fn refoot(
    reader: &Reader<'_>,
    segment: &Segment,
    object: &[u8],
    walked: &Walked,
) -> Result<Vec<u8>> {
    let detached = segment.header.kind == SegmentKind::Log;
    let mut bytes = if detached { Vec::new() } else { frames_only(object, walked) };
    let footer = Footer { entries: walked.entries.clone() }.encode();
    let count = u32::try_from(walked.entries.len()).unwrap_or(u32::MAX);
    let aad = Footer::aad(reader.keys.repo, segment.id, detached, walked.end, count);
    let nonce = random::<12>()?;
    let own = segment.births.first().ok_or_else(|| Error::Usage("a segment without keys".to_owned()))?;
    let sealed = own.footer.seal(nonce, &aad, &footer);
    let footer_offset = bytes.len() as u64;
    bytes.extend_from_slice(&nonce);
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&sealed);
    let footer_len = (bytes.len() as u64).saturating_sub(footer_offset);
    pad(&mut bytes);
    let mut trailer = Trailer {
        repo: reader.keys.repo,
        segment: segment.id,
        detached,
        frames_end: walked.end,
        footer_offset,
        footer_len,
        frames: count,
        frames_root: walked.root,
        parity: None,
    };
    if !detached {
        trailer.parity = Some(Geometry::of(bytes.len() as u64).place());
        let made = crate::heal::make_parity(reader.keys.repo, segment.id, &trailer, &bytes);
        bytes.extend_from_slice(&made.map_err(Error::Usage)?.0);
    }
    bytes.extend_from_slice(&trailer.encode());
    Ok(bytes)
}

/// Header and good frames at their places; what lies between is damage and becomes zeros.
fn frames_only(object: &[u8], walked: &Walked) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(walked.end).unwrap_or(0)];
    let header = [(0, PAGE_BYTES)];
    let frames = walked
        .entries
        .iter()
        .map(|e| (e.offset as usize, FRAME_HEADER_BYTES.saturating_add(e.stored_len as usize)));
    for (start, len) in header.into_iter().chain(frames) {
        let range = start..start.saturating_add(len);
        if let (Some(to), Some(from)) = (bytes.get_mut(range.clone()), object.get(range)) {
            to.copy_from_slice(from);
        }
    }
    pad(&mut bytes);
    bytes
}

fn pad(bytes: &mut Vec<u8>) {
    bytes.resize(bytes.len().next_multiple_of(usize::try_from(ALIGN_BYTES).unwrap_or(PAGE_BYTES)), 0);
}
