//! Every frame of a segment, read in order, opened, decoded and compared with the footer; and every byte between. Or a
//! sample of the frames.

use holdfast_format::ids::Address;
use holdfast_format::keys;
use holdfast_format::limits::ALIGN_BYTES;
use holdfast_format::log::LogOpening;
use holdfast_format::segment::{
    FRAME_HEADER_BYTES, FooterEntry, FrameHeader, FrameKind, PAGE_BYTES, SegmentKind, Trailer,
};
use holdfast_io::{ObjectName, Objects};

use crate::check::Scope;
use crate::findings::Findings;
use crate::index::NOWHERE;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::segment::{End, Segment, Source, Window, Wrong, frame_end};

/// Of so many blocks a sample has one.
const SAMPLE_ONE_IN: u64 = 32;

/// What a worker needs to check segments.
pub(crate) struct Checker<'a, 'r> {
    pub objects: &'a dyn Objects,
    pub reader: &'a Reader<'r>,
    pub found: &'a Findings,
    pub progress: &'a Progress,
    pub scope: Scope,
    /// Chooses the sample.
    pub seed: u64,
}

/// What came out of one segment.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    pub frames: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Bytes of plaintext that came out.
    pub plain: u64,
    pub opening: Option<LogOpening>,
}

impl Checker<'_, '_> {
    /// Checks all of a segment. `needed` says whether a record or a live session reaches it: damage in a leftover of a
    /// crash is a note.
    pub(crate) fn check(&self, segment: &Segment, entries: &[FooterEntry], needed: bool) -> Outcome {
        let mut outcome = Outcome::default();
        let source =
            match ObjectName::new(segment.name.as_str()).and_then(|name| Source::open(self.objects, name)) {
                Ok(source) => source,
                Err(e) => {
                    self.bad_segment(segment, needed, &Wrong::whole(e));
                    return outcome;
                }
            };
        if self.scope == Scope::Sample {
            self.sample(segment, &source, entries, needed, &mut outcome);
            return outcome;
        }
        let mut window = Window::new(&source);
        let mut root = blake3::Hasher::new();
        let mut end = PAGE_BYTES as u64;
        for entry in entries {
            self.zeros(&source, end, u64::from(entry.offset), needed);
            self.one(segment, &mut window, entry, needed, &mut root, &mut outcome);
            end = frame_end(entry);
            self.progress.add(end.saturating_sub(u64::from(entry.offset)));
        }
        outcome.bytes = source.len;
        self.end(segment, &source, end, *root.finalize().as_bytes(), needed);
        outcome
    }

    /// The first frame of a log and some of the blocks and events, and the tables of the parity. Maps are read by
    /// whoever follows them.
    fn sample(
        &self,
        segment: &Segment,
        source: &Source<'_>,
        entries: &[FooterEntry],
        needed: bool,
        outcome: &mut Outcome,
    ) {
        let mut window = Window::small(source);
        let mut unused = blake3::Hasher::new();
        let turn =
            self.seed.wrapping_add(segment.id.0.first_chunk::<8>().map_or(0, |b| u64::from_le_bytes(*b)));
        for entry in entries {
            let chosen = match entry.kind {
                FrameKind::LogOpening => true,
                FrameKind::MapRoot | FrameKind::MapSegments | FrameKind::MapLeaf => false,
                _ => u64::from(entry.slot).wrapping_add(turn).is_multiple_of(SAMPLE_ONE_IN),
            };
            if chosen {
                self.one(segment, &mut window, entry, needed, &mut unused, outcome);
                outcome.bytes = outcome.bytes.saturating_add(u64::from(entry.stored_len));
            }
        }
        if let End::Sealed(trailer) = &segment.end
            && let Some(parity) = &trailer.parity
        {
            for wrong in crate::parity::check_tables(source, trailer, parity).1 {
                self.bad_parity(segment, needed, wrong);
            }
        }
        self.progress.add(segment.len);
    }

    /// One frame.
    fn one(
        &self,
        segment: &Segment,
        window: &mut Window<'_>,
        entry: &FooterEntry,
        needed: bool,
        root: &mut blake3::Hasher,
        outcome: &mut Outcome,
    ) {
        let at = Address {
            segment: segment.births.get(usize::from(entry.birth)).map_or(segment.id, |b| b.segment),
            slot: entry.slot,
        };
        match self.frame(segment, window, entry, root) {
            Ok(plain) => {
                self.content(segment, entry, &plain, at, needed, &mut outcome.opening);
                outcome.plain = outcome.plain.saturating_add(plain.len() as u64);
            }
            Err(wrong) if needed && wrong.ends_with(NOWHERE) => {
                self.found.latent_frame(at, &segment.name, u64::from(entry.offset), wrong);
            }
            Err(wrong) => self.bad_frame(segment, at, needed, u64::from(entry.offset), &wrong),
        }
        outcome.frames = outcome.frames.saturating_add(1);
    }

    /// Reads and opens one frame and compares it with what the footer says.
    fn frame(
        &self,
        segment: &Segment,
        window: &mut Window<'_>,
        entry: &FooterEntry,
        root: &mut blake3::Hasher,
    ) -> Result<Vec<u8>, String> {
        let length = (FRAME_HEADER_BYTES as u64).saturating_add(u64::from(entry.stored_len));
        let bytes = window.get(u64::from(entry.offset), length).map_err(|w| w.what)?;
        let (head, payload) = bytes.split_at_checked(FRAME_HEADER_BYTES).unwrap_or((bytes, &[]));
        root.update(head);
        root.update(payload.last_chunk::<16>().map_or(&[][..], |tag| &tag[..]));
        let header = FrameHeader::decode(head).map_err(|e| e.to_string())?;
        let same = header.slot == entry.slot
            && header.kind == entry.kind
            && header.codec == entry.codec
            && header.depth == entry.depth
            && header.birth == entry.birth
            && header.plain_len == entry.plain_len
            && header.stored_len == entry.stored_len;
        if !same {
            return Err(format!("the header of frame {} is not what the footer says", entry.slot));
        }
        if crc32c::crc32c(payload) != header.payload_crc {
            return Err(format!("frame {} is damaged: its checksum does not match its bytes", entry.slot));
        }
        let birth = segment.births.get(usize::from(header.birth));
        let birth = birth.ok_or_else(|| format!("frame {} names a key that the header lacks", entry.slot))?;
        self.reader.decode(birth, &header, payload.to_vec())
    }

    /// Compares a frame's plaintext with its id, and its kind with its segment's.
    fn content(
        &self,
        segment: &Segment,
        entry: &FooterEntry,
        plain: &[u8],
        at: Address,
        needed: bool,
        opening: &mut Option<LogOpening>,
    ) {
        let offset = u64::from(entry.offset);
        if !matches!(segment.end, End::Open { .. })
            && keys::block_id(&self.reader.keys.block_id_key, plain) != entry.id
        {
            let what = format!("frame {} holds other bytes than its id says", entry.slot);
            self.bad_frame(segment, at, needed, offset, &what);
        }
        let belongs = match (segment.header.kind, entry.kind) {
            (SegmentKind::Data, FrameKind::Block) => true,
            (SegmentKind::Meta, kind) => {
                matches!(kind, FrameKind::MapRoot | FrameKind::MapSegments | FrameKind::MapLeaf)
            }
            (SegmentKind::Log, FrameKind::LogOpening) => entry.slot == 0,
            (SegmentKind::Log, kind) => {
                entry.slot > 0
                    && matches!(kind, FrameKind::LogEvents | FrameKind::LogIndex | FrameKind::LogMeta)
            }
            _ => false,
        };
        if !belongs {
            let what = format!("a frame of kind {:?} does not belong here", entry.kind);
            self.bad_frame(segment, at, needed, offset, &what);
        }
        if entry.kind == FrameKind::LogOpening {
            match LogOpening::decode(plain) {
                Ok(read) => *opening = Some(read),
                Err(e) => self.bad_frame(segment, at, needed, offset, &e.to_string()),
            }
        }
    }

    /// What lies behind the frames: footer and trailer were read before, so only what is between them is left.
    fn end(&self, segment: &Segment, source: &Source<'_>, end: u64, root: [u8; 32], needed: bool) {
        let trailer = match &segment.end {
            End::Sealed(trailer) => {
                let footer_end = trailer.footer_offset.saturating_add(trailer.footer_len);
                self.zeros(source, trailer.frames_end, trailer.footer_offset, needed);
                let last = source.len.saturating_sub(PAGE_BYTES as u64);
                match &trailer.parity {
                    None => self.zeros(source, footer_end, last, needed),
                    Some(parity) => {
                        self.zeros(source, footer_end, parity.offset, needed);
                        for wrong in crate::parity::check(source, trailer, parity) {
                            self.bad_parity(segment, needed, wrong);
                        }
                    }
                }
                if !source.len.is_multiple_of(ALIGN_BYTES) {
                    self.bad_segment(segment, needed, &Wrong::whole("its length is no multiple of 4 KiB"));
                }
                trailer
            }
            End::Detached(trailer) => {
                self.foot_gaps(segment, trailer, needed);
                trailer
            }
            End::Open { .. } => return,
        };
        self.zeros(source, end, trailer.frames_end, needed);
        if trailer.frames_root != root {
            let what = "the hash over all frames in its trailer is not that of its frames";
            self.bad_segment(segment, needed, &Wrong::at(source.len.saturating_sub(PAGE_BYTES as u64), what));
        }
    }

    /// A detached footer's object holds nothing but footer and trailer.
    fn foot_gaps(&self, segment: &Segment, trailer: &Trailer, needed: bool) {
        let name = ObjectName::new(holdfast_format::names::log_foot(segment.id));
        let Ok(foot) = name.and_then(|name| Source::open(self.objects, name)) else { return };
        self.zeros(&foot, 0, trailer.footer_offset, needed);
        let footer_end = trailer.footer_offset.saturating_add(trailer.footer_len);
        self.zeros(&foot, footer_end, foot.len.saturating_sub(PAGE_BYTES as u64), needed);
    }

    /// Bytes that mean nothing are zero, so that rot shows even there.
    fn zeros(&self, source: &Source<'_>, from: u64, to: u64, needed: bool) {
        const STEP: u64 = 1 << 20;
        let mut at = from;
        while at < to {
            let len = STEP.min(to.saturating_sub(at));
            match source.read(at, len) {
                Ok(bytes) => {
                    if let Some(found) = bytes.iter().position(|b| *b != 0) {
                        let what = "this byte should be zero; no restore reads it";
                        self.report(&source.name, Some(at.saturating_add(found as u64)), what, needed);
                        return;
                    }
                }
                Err(wrong) => {
                    self.report(&source.name, wrong.offset, &wrong.what, needed);
                    return;
                }
            }
            at = at.saturating_add(len);
        }
    }

    fn report(&self, object: &ObjectName, offset: Option<u64>, what: &str, needed: bool) {
        if needed {
            self.progress.flaw();
            self.found.flaw(object, offset, what.to_owned());
        } else {
            self.found.note(object, format!("{what} (nothing needs this segment)"));
        }
    }

    fn bad_frame(&self, segment: &Segment, at: Address, needed: bool, offset: u64, what: &str) {
        if needed {
            self.progress.flaw();
            self.found.bad_frame(at, &segment.name, offset, what.to_owned());
        } else {
            self.found.note(&segment.name, format!("{what} (nothing needs this segment)"));
        }
    }

    /// A flaw that takes no frame with it: those that are bad say so themselves.
    fn bad_parity(&self, segment: &Segment, needed: bool, wrong: Wrong) {
        if needed {
            self.progress.flaw();
            self.found.flaw(&segment.name, wrong.offset, wrong.what);
        } else {
            self.found.note(&segment.name, format!("{} (nothing needs this segment)", wrong.what));
        }
    }

    fn bad_segment(&self, segment: &Segment, needed: bool, wrong: &Wrong) {
        if needed {
            self.progress.flaw();
            self.found.bad_segment(segment.ids(), &segment.name, wrong.offset, wrong.what.clone());
        } else {
            self.found.note(&segment.name, format!("{} (nothing needs this segment)", wrong.what));
        }
    }
}
