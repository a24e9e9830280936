//! One segment as it lies there: header, keys, trailer, footer, and where each frame is.
//!
//! A segment with a trailer is sealed. A log segment whose writer died may have its footer
//! in an object of its own (`.foot`), and then that one holds. Anything else is open: it is
//! read frame by frame from its front, and ends where no frame begins any more. So is a log
//! whose trailer no record confirms: a crash may have kept the trailer and lost frames.

use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::keys::{self, WRAP_NONCE, wrap_aad};
use holdfast_format::limits::SEGMENT_BYTES_MAX;
use holdfast_format::names;
use holdfast_format::segment::{
    Birth, FRAME_HEADER_BYTES, Footer, FooterEntry, FrameHeader, FrameKind, PAGE_BYTES, SegmentHeader,
    SegmentKind, Trailer,
};
use holdfast_io::{File, ObjectName, Objects};

use crate::crypt::Opener;
use crate::unlock::Keys;

/// Smallest unit that a device writes whole.
pub(crate) const SECTOR_BYTES: u64 = 512;

/// Stretches between the one that a [`Window`] holds and the one that the disk is asked for.
const STRETCHES_BETWEEN: u64 = 3;

/// Why something is not right, and where in the object.
#[derive(Debug)]
pub(crate) struct Wrong {
    pub offset: Option<u64>,
    pub what: String,
    /// It is under this generation of the keys, which the keyring does not have.
    pub key_lacking: Option<u32>,
}

impl Wrong {
    pub(crate) fn at(offset: u64, what: impl ToString) -> Self {
        Self { offset: Some(offset), what: what.to_string(), key_lacking: None }
    }

    pub(crate) fn whole(what: impl ToString) -> Self {
        Self { offset: None, what: what.to_string(), key_lacking: None }
    }
}

/// An object open for reading many times.
pub(crate) struct Source<'a> {
    objects: &'a dyn Objects,
    pub name: ObjectName,
    file: Option<Arc<dyn File>>,
    pub len: u64,
}

impl<'a> Source<'a> {
    pub(crate) fn open(objects: &'a dyn Objects, name: ObjectName) -> holdfast_io::Result<Self> {
        let len = objects.len(&name)?;
        let file = objects.file(&name)?;
        Ok(Self { objects, name, file, len })
    }

    pub(crate) fn read_into(&self, offset: u64, buf: &mut [u8]) -> holdfast_io::Result<()> {
        match &self.file {
            Some(file) => file.read_exact_at(offset, buf),
            None => self.objects.read_into(&self.name, offset, buf),
        }
    }

    /// Reads a range, checked against the object's length before anything is allocated.
    pub(crate) fn read(&self, offset: u64, len: u64) -> Result<Vec<u8>, Wrong> {
        let mut bytes = Vec::new();
        self.read_again(offset, len, &mut bytes)?;
        Ok(bytes)
    }

    /// As [`Source::read`], in the place of what `bytes` held.
    fn read_again(&self, offset: u64, len: u64, bytes: &mut Vec<u8>) -> Result<(), Wrong> {
        let end = offset.checked_add(len).filter(|end| *end <= self.len);
        let Some(size) = end.and_then(|_| usize::try_from(len).ok()) else {
            return Err(Wrong::at(offset, format!("it ends too early: {len} bytes are needed here")));
        };
        bytes.resize(size, 0);
        self.read_into(offset, bytes).map_err(|e| Wrong::at(offset, e))
    }
}

/// A stretch of an object in memory, read ahead of whoever goes through it from front to back.
pub(crate) struct Window<'a> {
    source: &'a Source<'a>,
    ahead: u64,
    start: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// Reads a MiB at a time.
    pub(crate) fn new(source: &'a Source<'a>) -> Self {
        Self { source, ahead: 1 << 20, start: 0, bytes: Vec::new() }
    }

    /// Reads what is asked for, no more.
    pub(crate) fn small(source: &'a Source<'a>) -> Self {
        Self { ahead: 0, ..Self::new(source) }
    }

    /// Takes a stretch into the memory of the one before: fresh memory costs a page fault for every 4 KiB.
    fn fill(&mut self, offset: u64, len: u64) -> Result<(), Wrong> {
        self.start = offset;
        let read = self.source.read_again(offset, len, &mut self.bytes);
        if self.ahead > 0
            && let Some(file) = &self.source.file
        {
            // The disk works on what comes later while this is checked.
            let between = self.ahead.saturating_mul(STRETCHES_BETWEEN);
            file.read_ahead(offset.saturating_add(len).saturating_add(between), self.ahead);
        }
        read.inspect_err(|_| self.bytes.clear())
    }

    /// A range of the object.
    pub(crate) fn get(&mut self, offset: u64, len: u64) -> Result<&[u8], Wrong> {
        let inside = |start: u64, have: usize| {
            offset >= start
                && offset.checked_add(len).is_some_and(|end| end <= start.saturating_add(have as u64))
        };
        if !inside(self.start, self.bytes.len()) {
            let left = self.source.len.saturating_sub(offset);
            // A place that cannot be read must not take what lies before it with it.
            let ahead = self.fill(offset, self.ahead.max(len).min(left));
            ahead.or_else(|_| self.fill(offset, len))?;
        }
        let from = usize::try_from(offset.saturating_sub(self.start)).unwrap_or(usize::MAX);
        let size = usize::try_from(len).unwrap_or(usize::MAX);
        let range = self.bytes.get(from..).and_then(|bytes| bytes.get(..size));
        range.ok_or_else(|| Wrong::at(offset, format!("it ends too early: {len} bytes are needed here")))
    }
}

/// The keys of one birth segment.
pub(crate) struct BirthKeys {
    pub segment: SegmentId,
    pub frames: Opener,
    pub footer: Opener,
}

/// How a segment ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// By its own trailer.
    Sealed(Trailer),
    /// By a footer in another object.
    Detached(Trailer),
    /// Not at all: behind the last whole frame `left` bytes remain. `later` is the offset of a right frame among them
    /// that shows that they are damage, if there is one; `events` counts the bytes of a log in front of them.
    Open { left: u64, later: Option<u64>, events: u64 },
}

/// What is known of a segment before its frames are opened.
pub(crate) struct Segment {
    pub id: SegmentId,
    pub name: ObjectName,
    pub len: u64,
    pub header: SegmentHeader,
    pub births: Vec<BirthKeys>,
    pub end: End,
    /// Where the frames end, bytes.
    pub frames_end: u64,
}

/// The name a segment's object has in the folder where it was found, and its id.
pub(crate) fn id_of(name: &ObjectName) -> Option<(SegmentId, bool)> {
    let (log, id) = match name.as_str().strip_prefix(names::LOGS) {
        Some(id) => (true, id),
        None => (false, name.as_str().strip_prefix(names::SEGMENTS)?),
    };
    Some((id.parse().ok()?, log))
}

impl Segment {
    /// Reads header and end of a segment, and its frames' places. `recorded` says of a log whether a record confirms
    /// that it was sealed.
    pub(crate) fn open(
        objects: &dyn Objects,
        keys: &Keys,
        name: ObjectName,
        recorded: bool,
    ) -> Result<(Self, Vec<FooterEntry>), Wrong> {
        let source = Source::open(objects, name).map_err(Wrong::whole)?;
        let mut segment = Self::header(&source, keys)?;
        let log = segment.header.kind == SegmentKind::Log;
        let entries = segment.find_end(objects, &source, log, recorded)?;
        Ok((segment, entries))
    }

    /// Reads the header only: a segment whose end is lost.
    pub(crate) fn open_header(objects: &dyn Objects, keys: &Keys, name: ObjectName) -> Result<Self, Wrong> {
        Self::header(&Source::open(objects, name).map_err(Wrong::whole)?, keys)
    }

    fn header(source: &Source<'_>, keys: &Keys) -> Result<Self, Wrong> {
        let Some((id, log)) = id_of(&source.name) else {
            return Err(Wrong::whole("no segment has such a name"));
        };
        if source.len > SEGMENT_BYTES_MAX {
            return Err(Wrong::whole(format!(
                "it has {} bytes, the limit is {SEGMENT_BYTES_MAX}",
                source.len
            )));
        }
        let page = source.read(0, PAGE_BYTES as u64)?;
        let header = SegmentHeader::decode(&page).map_err(|e| Wrong::at(0, e))?;
        if header.segment != id || header.repo != keys.repo {
            return Err(Wrong::at(
                0,
                format!("it is the segment {} of repository {}", header.segment, header.repo),
            ));
        }
        if (header.kind == SegmentKind::Log) != log {
            return Err(Wrong::at(
                0,
                format!("a segment of kind {:?} does not belong in this folder", header.kind),
            ));
        }
        let births =
            header.births.iter().map(|birth| birth_keys(keys, birth)).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            id,
            len: source.len,
            header,
            births,
            end: End::Open { left: 0, later: None, events: 0 },
            frames_end: PAGE_BYTES as u64,
            name: source.name.clone(),
        })
    }

    /// The segments that its frames were born in, itself first.
    pub(crate) fn ids(&self) -> impl Iterator<Item = SegmentId> {
        self.births.iter().map(|b| b.segment)
    }

    fn find_end(
        &mut self,
        objects: &dyn Objects,
        source: &Source<'_>,
        log: bool,
        recorded: bool,
    ) -> Result<Vec<FooterEntry>, Wrong> {
        if log && let Some(entries) = self.detached(objects)? {
            return Ok(entries);
        }
        if log && !recorded {
            let entries = self.scan(source)?;
            // A writer that seals while we look has its trailer in place before its record.
            let sealed =
                self.trailer(source, false).ok().flatten().filter(|t| t.frames_end == self.frames_end);
            if let Some((trailer, footer)) = sealed.and_then(|t| self.footer(source, &t).ok().map(|f| (t, f)))
            {
                self.end = End::Sealed(trailer);
                return Ok(footer.entries);
            }
            return Ok(entries);
        }
        if let Some(trailer) = self.trailer(source, false)? {
            let footer = self.footer(source, &trailer)?;
            self.frames_end = trailer.frames_end;
            self.end = End::Sealed(trailer);
            return Ok(footer.entries);
        }
        self.scan(source)
    }

    /// The footer that lies in an object of its own, if there is one.
    fn detached(&mut self, objects: &dyn Objects) -> Result<Option<Vec<FooterEntry>>, Wrong> {
        let name = ObjectName::new(names::log_foot(self.id)).map_err(Wrong::whole)?;
        let foot = match Source::open(objects, name) {
            Ok(foot) => foot,
            Err(e) if e.is_not_found() => return Ok(None),
            Err(e) => return Err(Wrong::whole(e)),
        };
        let wrap = |w: Wrong| Wrong::whole(format!("its detached footer {}: {}", foot.name, w.what));
        let trailer = self.trailer(&foot, true).map_err(wrap)?;
        let trailer = trailer.ok_or_else(|| Wrong::whole(format!("{} has no trailer", foot.name)))?;
        let footer = self.footer(&foot, &trailer).map_err(wrap)?;
        self.frames_end = trailer.frames_end;
        self.end = End::Detached(trailer);
        Ok(Some(footer.entries))
    }

    /// The trailer at the end of an object. `None` if nothing there looks like one; what looks like one and is damaged
    /// is an error.
    fn trailer(&self, source: &Source<'_>, detached: bool) -> Result<Option<Trailer>, Wrong> {
        let page = PAGE_BYTES as u64;
        let Some(offset) = source.len.checked_sub(page).filter(|o| detached || *o >= page) else {
            return Ok(None);
        };
        let bytes = source.read(offset, page)?;
        let trailer = match Trailer::decode(&bytes) {
            Ok(trailer) => trailer,
            Err(_) if !detached && !looks_like_trailer(&bytes) => return Ok(None),
            Err(e) => return Err(Wrong::at(offset, e)),
        };
        let body_end = trailer.parity.map_or(trailer.footer_offset.saturating_add(trailer.footer_len), |p| {
            p.offset.saturating_add(p.len)
        });
        if trailer.repo != self.header.repo || trailer.segment != self.id || trailer.detached != detached {
            return Err(Wrong::at(offset, "its trailer belongs to another segment"));
        }
        if body_end > offset || trailer.frames_end > self.len {
            return Err(Wrong::at(offset, "its trailer names places beyond its end"));
        }
        Ok(Some(trailer))
    }

    fn footer(&self, source: &Source<'_>, trailer: &Trailer) -> Result<Footer, Wrong> {
        let at = trailer.footer_offset;
        let sealed = source.read(at, trailer.footer_len)?;
        let Some((head, text)) = sealed.split_first_chunk::<16>() else {
            return Err(Wrong::at(at, "its footer is too short"));
        };
        let (nonce, reserved) = head.split_first_chunk::<12>().map_or(([0; 12], &[][..]), |(n, r)| (*n, r));
        if reserved.iter().any(|b| *b != 0) {
            return Err(Wrong::at(at.saturating_add(12), "four bytes of its footer are not zero"));
        }
        let aad =
            Footer::aad(self.header.repo, self.id, trailer.detached, trailer.frames_end, trailer.frames);
        let own = self.births.first().ok_or_else(|| Wrong::at(0, "its header names no key"))?;
        let plain = own.footer.open(nonce, &aad, text);
        let plain = plain
            .ok_or_else(|| Wrong::at(at, "its footer does not open: its bytes are not what was sealed"))?;
        let footer = Footer::decode(&plain).map_err(|e| Wrong::at(at, e))?;
        if footer.entries.len() != trailer.frames as usize {
            return Err(Wrong::at(at, "its footer and its trailer count different numbers of frames"));
        }
        let last = footer.entries.last().map_or(PAGE_BYTES as u64, frame_end);
        if last > trailer.frames_end {
            return Err(Wrong::at(at, "its footer names frames behind the end of the frames"));
        }
        Ok(footer)
    }

    /// Walks over the frames of an open segment by their plain headers.
    fn scan(&mut self, source: &Source<'_>) -> Result<Vec<FooterEntry>, Wrong> {
        let mut entries = Vec::new();
        let mut at = PAGE_BYTES as u64;
        while at < source.len {
            let due = u32::try_from(entries.len()).unwrap_or(u32::MAX);
            let Some(header) = self.frame_header_at(source, at).filter(|h| h.slot == due) else { break };
            let end = at.saturating_add(header.frame_len());
            if end > source.len || !self.payload_is_right(source, at, &header) {
                break;
            }
            entries.push(entry_of(&header, at));
            at = end;
        }
        self.frames_end = at;
        let left = source.len.saturating_sub(at);
        let due = u32::try_from(entries.len()).unwrap_or(u32::MAX);
        let later = self.later_frame(source, at, due);
        let events = entries.iter().filter(|e: &&FooterEntry| e.kind == FrameKind::LogEvents);
        let events = events.map(|e| u64::from(e.plain_len)).sum();
        self.end = End::Open { left, later, events };
        Ok(entries)
    }

    /// A right frame behind `from`, where none is, that shows that what lies at `from` is damage and not a torn end: it
    /// says that everything up to a place behind `from` was synced, or no sector between the two was left unwritten.
    fn later_frame(&self, source: &Source<'_>, from: u64, due: u32) -> Option<u64> {
        let mut first = None;
        let mut at = from;
        while let Some((place, header)) = next_header(source, at) {
            at = place;
            if header.slot < due {
                continue;
            }
            // It was written after that sync, whether the rest of its frame reached the disk or not.
            if says_durable(&header, from, place) {
                return Some(place);
            }
            if first.is_none() && self.opens(source, place, &header) {
                first = Some(place);
            }
        }
        first.filter(|later| !has_unwritten_sector(source, from, *later))
    }

    fn opens(&self, source: &Source<'_>, at: u64, header: &FrameHeader) -> bool {
        let Some(birth) = self.births.get(usize::from(header.birth)) else { return false };
        let from = at.saturating_add(FRAME_HEADER_BYTES as u64);
        let Ok(payload) = source.read(from, u64::from(header.stored_len)) else { return false };
        let aad = header.aad(self.header.repo, birth.segment);
        crc32c::crc32c(&payload) == header.payload_crc
            && birth.frames.open(keys::frame_nonce(header.slot), &aad, &payload).is_some()
    }

    fn frame_header_at(&self, source: &Source<'_>, at: u64) -> Option<FrameHeader> {
        let bytes = source.read(at, FRAME_HEADER_BYTES as u64).ok()?;
        FrameHeader::decode(&bytes).ok().filter(|h| usize::from(h.birth) < self.births.len())
    }

    fn payload_is_right(&self, source: &Source<'_>, at: u64, header: &FrameHeader) -> bool {
        let from = at.saturating_add(FRAME_HEADER_BYTES as u64);
        let payload = source.read(from, u64::from(header.stored_len));
        payload.is_ok_and(|payload| crc32c::crc32c(&payload) == header.payload_crc)
    }
}

/// Where a frame ends, bytes.
pub(crate) fn frame_end(entry: &FooterEntry) -> u64 {
    (u64::from(entry.offset) + FRAME_HEADER_BYTES as u64).saturating_add(u64::from(entry.stored_len))
}

/// What an open segment's footer would say of a frame, but for its id, which is all zeros.
fn entry_of(header: &FrameHeader, at: u64) -> FooterEntry {
    FooterEntry {
        id: Default::default(),
        offset: u32::try_from(at).unwrap_or(u32::MAX),
        plain_len: header.plain_len,
        stored_len: header.stored_len,
        slot: header.slot,
        base: None,
        birth: header.birth,
        kind: header.kind,
        codec: header.codec,
        depth: header.depth,
    }
}

/// Whether the frame at `place` says that what lies at `from` was synced before it was written.
fn says_durable(header: &FrameHeader, from: u64, place: u64) -> bool {
    (from.saturating_add(1)..=place).contains(&u64::from(header.durable_end))
}

/// Whether a frame says that the header of its segment was synced before it was written.
pub(crate) fn header_was_durable(source: &Source<'_>) -> bool {
    let mut at = 0;
    while let Some((place, header)) = next_header(source, at) {
        if says_durable(&header, 0, place) {
            return true;
        }
        at = place;
    }
    false
}

/// What is said of a log in which no frame begins at a place before byte `later`, where a right one shows that one did.
pub(crate) fn damaged_end(later: u64) -> String {
    format!("a frame of acknowledged log is damaged here: right frames follow it from byte {later} on")
}

/// The first right frame header behind `from`, but not at it.
fn next_header(source: &Source<'_>, from: u64) -> Option<(u64, FrameHeader)> {
    const STEP: u64 = 1 << 20;
    let mut at = from.saturating_add(1);
    while at < source.len {
        let len = STEP.saturating_add(FRAME_HEADER_BYTES as u64).min(source.len.saturating_sub(at));
        let bytes = source.read(at, len).ok()?;
        let mut windows = bytes.windows(FRAME_HEADER_BYTES).enumerate();
        let found = windows.find_map(|(place, window)| {
            let header = window.starts_with(b"HFfr").then(|| FrameHeader::decode(window).ok()).flatten()?;
            Some((at.saturating_add(place as u64), header))
        });
        if found.is_some() {
            return found;
        }
        at = at.saturating_add(STEP);
    }
    None
}

/// Whether a crash kept a sector from being written: it is all zeros, which no ciphertext is and rot does not make.
/// Then the frames after it were written together with it, and never acknowledged either.
fn has_unwritten_sector(source: &Source<'_>, from: u64, to: u64) -> bool {
    const STEP: u64 = 1 << 20;
    let mut at = from;
    while at < to {
        let first_boundary = at.next_multiple_of(SECTOR_BYTES);
        let end = at.saturating_add(STEP).next_multiple_of(SECTOR_BYTES).min(to);
        let Ok(bytes) = source.read(at, end.saturating_sub(at)) else { return false };
        let head = usize::try_from(first_boundary.saturating_sub(at)).unwrap_or(0).min(bytes.len());
        let (partial, whole) = bytes.split_at_checked(head).unwrap_or((&bytes, &[]));
        // A frame begins with four letters, so even a few zeros where one is due were never written.
        let zeros = |sector: &[u8], least: usize| sector.len() >= least && sector.iter().all(|b| *b == 0);
        if (at == from && zeros(partial, 8)) || whole.chunks(SECTOR_BYTES as usize).any(|s| zeros(s, 64)) {
            return true;
        }
        at = end;
    }
    false
}

/// Whether a page was meant as a trailer: half of its magic, or a right checksum, or mostly zeros behind a little data
/// as no ciphertext has.
fn looks_like_trailer(page: &[u8]) -> bool {
    let magic = page.iter().zip(b"HFTRAIL\0").filter(|(a, b)| a == b).count();
    let zeros = page.iter().filter(|b| **b == 0).count();
    magic >= 4 || zeros > PAGE_BYTES / 2
}

fn birth_keys(keys: &Keys, birth: &Birth) -> Result<BirthKeys, Wrong> {
    let generation = birth.kek_generation;
    let kek = keys.keks.get(&generation);
    let kek = kek.ok_or_else(|| Wrong {
        key_lacking: Some(generation),
        ..Wrong::at(0, format!("the keyring has no key of its generation {generation}"))
    })?;
    let wrap = Opener::new(&keys::segment_wrap_key(kek, keys.repo, birth.segment));
    let aad = wrap_aad(keys.repo, birth.segment, generation);
    let plain = wrap.open(WRAP_NONCE, &aad, &birth.wrapped_key);
    let data_key = plain.and_then(|plain| <[u8; 32]>::try_from(plain).ok());
    let data_key = data_key.ok_or_else(|| Wrong::at(0, "its data key does not open"))?;
    if keys::commitment(&data_key) != birth.commitment {
        return Err(Wrong::at(0, "its data key is not the one that its header commits to"));
    }
    Ok(BirthKeys {
        segment: birth.segment,
        frames: Opener::new(&keys::frame_key(&data_key)),
        footer: Opener::new(&keys::footer_key(&data_key)),
    })
}
