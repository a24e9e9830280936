//! Reading a log segment front to back, whether it is sealed, open or left behind.

use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::keys;
use holdfast_format::names;
use holdfast_format::segment::{
    FRAME_HEADER_BYTES, FooterEntry, FrameHeader, FrameKind, PAGE_BYTES, SegmentHeader, Trailer,
};
use holdfast_io::{File, ObjectName, Objects};
use zeroize::Zeroizing;

use super::tail::{Tail, Verdict};
use super::{LogKind, LogSegment, LogState};
use crate::cipher::Cipher;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::keys::Keys;
use crate::repository::Inner;
use crate::segment::open_frame;

/// Bytes read at once: a frame is rarely longer, and never much.
const READ_BYTES: u64 = 1024 * 1024;

/// A frame of a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogFrame {
    /// Its slot.
    pub slot: u32,
    /// What it holds.
    pub kind: LogKind,
    /// The bytes that were appended.
    pub plain: Vec<u8>,
}

/// What a scan learnt of a segment.
pub(crate) struct Scanned {
    pub(crate) entries: Vec<FooterEntry>,
    pub(crate) root: blake3::Hasher,
    pub(crate) frames_end: u64,
    pub(crate) data_key: Zeroizing<[u8; 32]>,
}

/// Reads all frames of a log segment to its end; `recorded` says that a record of the manifest seals it. `None` if it
/// has no whole header; an error if it is damaged before its end.
pub(crate) fn scan_whole(
    inner: &Inner,
    segment: SegmentId,
    name: &ObjectName,
    recorded: bool,
) -> Result<Option<Scanned>> {
    let Some(mut frames) = LogFrames::scan(inner, segment, name.clone())? else { return Ok(None) };
    if recorded {
        frames.ends_as_recorded()?;
    }
    while frames.next_any()?.is_some() {}
    Ok(Some(frames.into_scanned()))
}

/// Where the frames must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A detached footer says so, or a trailer and a record: anything else before it is damage.
    At { offset: u64 },
    /// A trailer says so, but no record: it may have reached the disk before the frames did, so they end there or where
    /// the first invalid one begins.
    AtMost { offset: u64 },
    /// Nobody says: the frames end where the first invalid one begins.
    Torn,
}

/// The frames of a log segment, in order. An iterator; after an error it ends.
pub struct LogFrames {
    name: ObjectName,
    objects: Arc<dyn Objects>,
    file: Option<Arc<dyn File>>,
    keys: Arc<Keys>,
    segment: SegmentId,
    cipher: Cipher,
    data_key: Zeroizing<[u8; 32]>,
    coder: Coder,
    entries: Vec<FooterEntry>,
    /// Keep entries and root for a footer.
    keep: bool,
    root: blake3::Hasher,
    offset: u64,
    slot: u32,
    from_slot: u32,
    only: Option<FrameKind>,
    len: u64,
    end: End,
    done: bool,
    window: Vec<u8>,
    window_at: u64,
}

impl std::fmt::Debug for LogFrames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "LogFrames({}, slot {})", self.name, self.slot)
    }
}

impl LogFrames {
    pub(crate) fn open(inner: &Inner, segment: &LogSegment, from_slot: u32) -> Result<Self> {
        let name = ObjectName::new(names::log(segment.segment))?;
        let frames = Self::scan(inner, segment.segment, name.clone())?;
        let mut frames = frames.ok_or(Error::damaged(&name, "its header", "it is not whole"))?;
        if matches!(segment.state, LogState::Sealed(_)) {
            frames.ends_as_recorded()?;
        }
        frames.keep = false;
        frames.from_slot = from_slot;
        Ok(frames)
    }

    /// A record says that it was sealed, so its trailer holds.
    fn ends_as_recorded(&mut self) -> Result<()> {
        match self.end {
            End::At { .. } => {}
            End::AtMost { offset } => self.end = End::At { offset },
            End::Torn => {
                let why = "the manifest says that it is sealed, but it has none";
                return Err(Error::damaged(&self.name, "its trailer", why));
            }
        }
        Ok(())
    }

    /// Gives the frames of one kind only. Of a segment that is complete, the others are not even read: their headers are.
    #[must_use]
    pub fn only(mut self, kind: LogKind) -> Self {
        self.only = Some(kind.frame());
        self
    }

    /// Begins at slot 0 of any log segment; `None` if its header isn't whole yet.
    pub(super) fn scan(inner: &Inner, segment: SegmentId, name: ObjectName) -> Result<Option<Self>> {
        let objects = &inner.objects;
        let len = objects.len(&name)?;
        if len < PAGE_BYTES as u64 {
            return Ok(None);
        }
        let header = objects.read(&name, 0, PAGE_BYTES as u64)?;
        let end = find_end(inner, &name, segment, len)?;
        let header = match SegmentHeader::decode(&header) {
            Ok(header) => header,
            Err(e) if matches!(end, End::At { .. }) => return Err(Error::format(&name)(e)),
            // A header that was never synced may be torn; nothing behind it was acknowledged then.
            Err(e) => {
                let (objects, keys, from) = (objects.as_ref(), inner.keys.as_ref(), 0);
                let tail = Tail { objects, name: &name, keys, cipher: None, from, slot: 0, len };
                return match tail.verdict()? {
                    Verdict::Torn => Ok(None),
                    Verdict::Damage { because } => {
                        Err(Error::damaged(&name, "its header", format!("{e}; {because}")))
                    }
                };
            }
        };
        if header.repo != inner.keys.repo || header.segment != segment {
            return Err(Error::damaged(&name, "its header", "it belongs to another place"));
        }
        let birth = header.births.first().ok_or(Error::damaged(&name, "its header", "it names no key"))?;
        let data_key = inner.keys.unwrap(birth, name.as_str())?;
        Ok(Some(Self {
            file: objects.file(&name)?,
            name,
            objects: Arc::clone(objects),
            keys: Arc::clone(&inner.keys),
            segment,
            cipher: inner.keys.cipher(&keys::frame_key(&data_key))?,
            data_key,
            coder: Coder::new()?,
            entries: Vec::new(),
            keep: true,
            root: blake3::Hasher::new(),
            offset: PAGE_BYTES as u64,
            slot: 0,
            from_slot: 0,
            only: None,
            len,
            end,
            done: false,
            window: Vec::new(),
            window_at: 0,
        }))
    }

    /// What was learnt, after the last frame.
    pub(super) fn into_scanned(self) -> Scanned {
        Scanned { entries: self.entries, root: self.root, frames_end: self.offset, data_key: self.data_key }
    }

    /// The next frame of any kind: kind, slot, plaintext (empty before the slot that was asked for).
    pub(super) fn next_any(&mut self) -> Result<Option<(FrameKind, u32, Vec<u8>)>> {
        if self.done {
            return Ok(None);
        }
        let found = self.step();
        if !matches!(found, Ok(Some(_))) {
            self.done = true;
        }
        found
    }

    fn step(&mut self) -> Result<Option<(FrameKind, u32, Vec<u8>)>> {
        if let End::At { offset } | End::AtMost { offset } = self.end
            && self.offset == offset
        {
            return Ok(None);
        }
        let taken = match self.take()? {
            Ok(taken) => taken,
            Err(why) => {
                if !matches!(self.end, End::At { .. }) {
                    match self.tail().verdict()? {
                        Verdict::Torn => return Ok(None),
                        Verdict::Damage { because } => {
                            let place = format!("slot {} (offset {})", self.slot, self.offset);
                            return Err(Error::damaged(&self.name, place, format!("{why}; {because}")));
                        }
                    }
                }
                let place = format!("slot {} (offset {})", self.slot, self.offset);
                return Err(Error::damaged(&self.name, place, why));
            }
        };
        self.slot = self.slot.saturating_add(1);
        Ok(Some(taken))
    }

    /// What lies from the offset on, where no valid frame begins.
    fn tail(&self) -> Tail<'_> {
        let len = if let End::AtMost { offset } = self.end { offset.min(self.len) } else { self.len };
        Tail {
            objects: self.objects.as_ref(),
            name: &self.name,
            keys: &self.keys,
            cipher: Some((self.segment, &self.cipher)),
            from: self.offset,
            slot: self.slot,
            len,
        }
    }

    /// Takes the frame at the offset; the inner error says why there is no valid one.
    #[expect(clippy::type_complexity, reason = "two kinds of failure: of the place, and of the bytes")]
    fn take(&mut self) -> Result<std::result::Result<(FrameKind, u32, Vec<u8>), String>> {
        let limit =
            if let End::At { offset } | End::AtMost { offset } = self.end { offset } else { self.len };
        let left = limit.min(self.len).saturating_sub(self.offset);
        if left < FRAME_HEADER_BYTES as u64 {
            return Ok(Err("it is cut short".to_owned()));
        }
        let header = match FrameHeader::decode(self.bytes(FRAME_HEADER_BYTES)?) {
            Ok(header) => header,
            Err(e) => return Ok(Err(e.to_string())),
        };
        if header.slot != self.slot || header.birth != 0 {
            return Ok(Err(format!("it holds slot {}", header.slot)));
        }
        if left < header.frame_len() {
            return Ok(Err("it is cut short".to_owned()));
        }
        let frame_len = FRAME_HEADER_BYTES.saturating_add(header.stored_len as usize);
        let wanted = self.slot >= self.from_slot && self.only.is_none_or(|kind| kind == header.kind);
        let whole = wanted || !matches!(self.end, End::At { .. });
        let mut plain = Vec::new();
        if whole {
            let payload = self.bytes(frame_len)?.get(FRAME_HEADER_BYTES..).unwrap_or(&[]).to_vec();
            if crc32c::crc32c(&payload) != header.payload_crc {
                return Ok(Err("its checksum is wrong".to_owned()));
            }
            let mut opened = Vec::new();
            let (keys, cipher) = (&self.keys, &self.cipher);
            if let Err(why) = open_frame(keys, cipher, self.segment, &header, &payload, &mut opened) {
                return Ok(Err(why.to_owned()));
            }
            plain = vec![0; header.plain_len as usize];
            if !self.coder.decode(header.codec, &opened, &mut plain) {
                return Ok(Err("it does not decompress to the length that it names".to_owned()));
            }
            if self.keep {
                self.keep_entry(&header, &plain, &payload);
            }
        }
        self.offset = self.offset.saturating_add(header.frame_len());
        Ok(Ok((header.kind, header.slot, plain)))
    }

    fn keep_entry(&mut self, header: &FrameHeader, plain: &[u8], payload: &[u8]) {
        self.root.update(&header.encode());
        self.root.update(payload.last_chunk::<{ keys::TAG_BYTES }>().map_or(&[][..], |t| &t[..]));
        self.entries.push(FooterEntry {
            id: keys::block_id(&self.keys.block_id, plain),
            offset: u32::try_from(self.offset).unwrap_or(u32::MAX),
            plain_len: header.plain_len,
            stored_len: header.stored_len,
            slot: header.slot,
            base: None,
            birth: 0,
            kind: header.kind,
            codec: header.codec,
            depth: header.depth,
        });
    }

    /// The next `len` bytes at the offset, through a window.
    fn bytes(&mut self, len: usize) -> Result<&[u8]> {
        let inside = |at: u64, window: &[u8]| {
            let skip = usize::try_from(self.offset.checked_sub(at)?).ok()?;
            (skip.checked_add(len)? <= window.len()).then_some(skip)
        };
        let skip = match inside(self.window_at, &self.window) {
            Some(skip) => skip,
            None => {
                // Who looks for one kind of frame reads headers, mostly.
                let ahead = if self.only.is_some() { 0 } else { READ_BYTES };
                let wanted = ahead.max(len as u64).min(self.len.saturating_sub(self.offset));
                self.window.resize(usize::try_from(wanted).unwrap_or(len), 0);
                self.window_at = self.offset;
                match &self.file {
                    Some(file) => file.read_exact_at(self.offset, &mut self.window)?,
                    None => self.objects.read_into(&self.name, self.offset, &mut self.window)?,
                }
                0
            }
        };
        let end = skip.saturating_add(len);
        self.window.get(skip..end).ok_or(Error::damaged(
            &self.name,
            "its length",
            "it shrank while it was read",
        ))
    }
}

/// Looks for a detached footer, then for a trailer. The detached one holds if both are there: it was made by somebody
/// who had read the frames.
fn find_end(inner: &Inner, name: &ObjectName, segment: SegmentId, len: u64) -> Result<End> {
    let ours = |t: &Trailer| t.repo == inner.keys.repo && t.segment == segment;
    let foot = ObjectName::new(names::log_foot(segment))?;
    match inner.objects.len(&foot) {
        Ok(foot_len) => {
            let at = foot_len.checked_sub(PAGE_BYTES as u64);
            let at = at.ok_or(Error::damaged(&foot, "its length", foot_len))?;
            let page = inner.objects.read(&foot, at, PAGE_BYTES as u64)?;
            let trailer = Trailer::decode(&page).map_err(Error::format(&foot))?;
            if !ours(&trailer) || !trailer.detached {
                return Err(Error::damaged(&foot, "its trailer", "it belongs to another place"));
            }
            return Ok(End::At { offset: trailer.frames_end });
        }
        Err(e) if e.is_not_found() => {}
        Err(e) => return Err(e.into()),
    }
    let Some(at) = len.checked_sub(PAGE_BYTES as u64).filter(|at| *at >= PAGE_BYTES as u64) else {
        return Ok(End::Torn);
    };
    let page = inner.objects.read(name, at, PAGE_BYTES as u64)?;
    Ok(match Trailer::decode(&page) {
        Ok(trailer) if ours(&trailer) && !trailer.detached => End::AtMost { offset: trailer.frames_end },
        _ => End::Torn,
    })
}

impl Iterator for LogFrames {
    type Item = Result<LogFrame>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.next_any() {
                Ok(None) => return None,
                Err(e) => return Some(Err(e)),
                Ok(Some((kind, slot, plain))) => {
                    let given = slot >= self.from_slot && self.only.is_none_or(|only| only == kind);
                    if let Some(kind) = LogKind::of(kind).filter(|_| given) {
                        return Some(Ok(LogFrame { slot, kind, plain }));
                    }
                }
            }
        }
    }
}
