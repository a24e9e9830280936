//! Segments: header, frames, footer, trailer. See `format-spec/segment.md` for the byte tables.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{Address, BlockId, RepoId, SegmentId, SessionId};
use crate::keys::TAG_BYTES;
use crate::limits::{ALIGN_BYTES, BIRTHS_MAX, DEPTH_MAX, FRAME_PLAIN_MAX, SEGMENT_BYTES_MAX, SLOTS_MAX};

/// Version of every structure of a segment.
pub const VERSION: u32 = crate::VERSION;

/// Bytes of header and trailer.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of a frame's plain header.
pub const FRAME_HEADER_BYTES: usize = 32;

/// Bytes that a delta's plaintext holds before the delta: the address of its base.
pub const DELTA_PREFIX_BYTES: usize = 20;

/// Longest sealed payload of a frame: a payload is stored raw when compression doesn't make it shorter.
pub const FRAME_STORED_MAX: u32 = FRAME_PLAIN_MAX + 16 + 20;

const HEADER_MAGIC: &[u8; 8] = b"HFSEG\0\0\0";
const FOOTER_MAGIC: &[u8; 8] = b"HFFOOT\0\0";
const TRAILER_MAGIC: &[u8; 8] = b"HFTRAIL\0";
const FRAME_MAGIC: &[u8; 4] = b"HFfr";
const WRAPPED_BYTES: usize = 48;
const FOOTER_ENTRY_BYTES: usize = 64;
const NO_BASE: u32 = u32::MAX;
const DETACHED: u32 = 1;

/// What a segment holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SegmentKind {
    /// Blocks.
    Data,
    /// Maps.
    Meta,
    /// A stretch of log.
    Log,
}

impl SegmentKind {
    fn code(self) -> u8 {
        match self {
            Self::Data => 1,
            Self::Meta => 2,
            Self::Log => 3,
        }
    }

    fn of(what: &'static str, code: u8) -> Result<Self> {
        match code {
            1 => Ok(Self::Data),
            2 => Ok(Self::Meta),
            3 => Ok(Self::Log),
            _ => Err(Error::bad(what, "the kind", "1, 2 or 3", code)),
        }
    }
}

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FrameKind {
    /// A block.
    Block,
    /// The root of a map.
    MapRoot,
    /// A part of a map's table of segments.
    MapSegments,
    /// A part of a map's files.
    MapLeaf,
    /// The first frame of a log segment: [`crate::log::LogOpening`].
    LogOpening,
    /// Raw events of a log.
    LogEvents,
    /// Index entries of a log.
    LogIndex,
    /// Whatever else the archive keeps with a log.
    LogMeta,
}

impl FrameKind {
    /// The number on disk.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Block => 1,
            Self::MapRoot => 2,
            Self::MapSegments => 3,
            Self::MapLeaf => 4,
            Self::LogOpening => 5,
            Self::LogEvents => 6,
            Self::LogIndex => 7,
            Self::LogMeta => 8,
        }
    }

    fn of(what: &'static str, code: u8) -> Result<Self> {
        Ok(match code {
            1 => Self::Block,
            2 => Self::MapRoot,
            3 => Self::MapSegments,
            4 => Self::MapLeaf,
            5 => Self::LogOpening,
            6 => Self::LogEvents,
            7 => Self::LogIndex,
            8 => Self::LogMeta,
            _ => return Err(Error::bad(what, "the kind of frame", "1 to 8", code)),
        })
    }

    /// Whether it belongs into a log segment.
    #[must_use]
    pub fn is_log(self) -> bool {
        matches!(self, Self::LogOpening | Self::LogEvents | Self::LogIndex | Self::LogMeta)
    }
}

/// How a frame's payload is encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// As it is.
    Raw,
    /// One zstd frame.
    Zstd,
    /// The address of the base (16 bytes segment, `u32` slot), then one zstd frame made with the base's plaintext as
    /// prefix.
    Delta,
}

impl Codec {
    /// The number on disk.
    #[must_use]
    pub fn code(self) -> u8 {
        match self {
            Self::Raw => 0,
            Self::Zstd => 1,
            Self::Delta => 2,
        }
    }

    fn of(what: &'static str, code: u8) -> Result<Self> {
        match code {
            0 => Ok(Self::Raw),
            1 => Ok(Self::Zstd),
            2 => Ok(Self::Delta),
            _ => Err(Error::bad(what, "the codec", "0, 1 or 2", code)),
        }
    }
}

/// A segment whose frames lie in this one, with the key that opens them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Birth {
    /// The segment the frames were first written to.
    pub segment: SegmentId,
    /// Generation of the key-encrypting key that wraps the data key.
    pub kek_generation: u32,
    /// The data key, sealed: 32 bytes and the tag.
    pub wrapped_key: [u8; WRAPPED_BYTES],
    /// Commitment to the data key.
    pub commitment: [u8; 32],
}

/// The first 4 KiB of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The repository.
    pub repo: RepoId,
    /// This segment.
    pub segment: SegmentId,
    /// What it holds.
    pub kind: SegmentKind,
    /// The session that wrote it.
    pub session: SessionId,
    /// The segments whose frames it carries; the first one is itself, and usually the only one.
    pub births: Vec<Birth>,
}

impl SegmentHeader {
    const WHAT: &'static str = "segment header";
    /// More births than fit are refused by the reader.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(HEADER_MAGIC);
        w.u32(VERSION);
        w.u8(self.kind.code());
        w.u8(0);
        w.u16(u16::try_from(self.births.len()).unwrap_or(u16::MAX));
        w.raw(&self.repo.0);
        w.raw(&self.segment.0);
        w.raw(&self.session.0);
        for birth in self.births.iter().take(BIRTHS_MAX) {
            w.raw(&birth.segment.0);
            w.u32(birth.kek_generation);
            w.u32(0);
            w.raw(&birth.wrapped_key);
            w.raw(&birth.commitment);
        }
        w.pad_to(PAGE_BYTES - 32);
        let mut bytes = w.into_bytes();
        append_hash(&mut bytes);
        bytes
    }

    /// Reads the first 4 KiB of a segment.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let page = page_of(Self::WHAT, bytes)?;
        let mut r = Reader::new(Self::WHAT, page);
        r.magic(HEADER_MAGIC)?;
        r.version(VERSION)?;
        let (body, _) = split_hash(Self::WHAT, page)?;
        let mut r = Reader::new(Self::WHAT, body.get(12..).unwrap_or(&[]));
        let kind = SegmentKind::of(Self::WHAT, r.u8()?)?;
        r.zeros("the flags", 1)?;
        let count = r.u16()?;
        if count == 0 || usize::from(count) > BIRTHS_MAX {
            return Err(Error::bad(Self::WHAT, "the number of births", "1 to 32", count));
        }
        let repo = RepoId(r.array()?);
        let segment = SegmentId(r.array()?);
        let session = SessionId(r.array()?);
        let mut births = Vec::with_capacity(usize::from(count));
        for _ in 0..count {
            let segment = SegmentId(r.array()?);
            let kek_generation = r.u32()?;
            r.zeros("a reserved field", 4)?;
            births.push(Birth { segment, kek_generation, wrapped_key: r.array()?, commitment: r.array()? });
        }
        if births.first().is_none_or(|b| b.segment != segment) {
            return Err(Error::bad(Self::WHAT, "the first birth", "the segment itself", "another one"));
        }
        r.zeros("the padding", r.left())?;
        Ok(Self { repo, segment, kind, session, births })
    }
}

fn page_of<'a>(what: &'static str, bytes: &'a [u8]) -> Result<&'a [u8]> {
    bytes.get(..PAGE_BYTES).ok_or(Error::Truncated {
        what,
        at: 0,
        needed: PAGE_BYTES as u64,
        got: bytes.len() as u64,
    })
}

/// The 32 plain bytes before each frame's sealed payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Number in the segment where the frame was born.
    pub slot: u32,
    /// What it holds.
    pub kind: FrameKind,
    /// How.
    pub codec: Codec,
    /// Length of the chain of deltas below it; 0 unless the codec is [`Codec::Delta`].
    pub depth: u8,
    /// Place of the birth segment in the header's table.
    pub birth: u8,
    /// Length of the plaintext after decoding, bytes.
    pub plain_len: u32,
    /// Length of the sealed payload that follows, tag included, bytes.
    pub stored_len: u32,
    /// CRC-32C of the sealed payload.
    pub payload_crc: u32,
    /// In a log, where the last sync before this frame was written ended: everything before this offset in the segment,
    /// bytes, was durable then. 0 if nothing was, and in every frame that is not of a log.
    pub durable_end: u32,
}

impl FrameHeader {
    const WHAT: &'static str = "frame header";

    /// The 32 bytes.
    #[must_use]
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut w = Writer::new();
        w.raw(FRAME_MAGIC);
        w.u32(self.slot);
        w.u8(self.kind.code());
        w.u8(self.codec.code());
        w.u8(self.depth);
        w.u8(self.birth);
        w.u32(self.plain_len);
        w.u32(self.stored_len);
        w.u32(self.payload_crc);
        w.u32(self.durable_end);
        let crc = crc32c::crc32c(w.as_bytes());
        w.u32(crc);
        let mut out = [0; FRAME_HEADER_BYTES];
        for (to, from) in out.iter_mut().zip(w.as_bytes()) {
            *to = *from;
        }
        out
    }

    /// Reads and checks the first 32 bytes of a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(Self::WHAT, bytes);
        let head = r.raw(FRAME_HEADER_BYTES)?;
        let mut r = Reader::new(Self::WHAT, head);
        r.magic(FRAME_MAGIC)?;
        let (body, crc) = head.split_at_checked(28).unwrap_or((head, &[]));
        if crc32c::crc32c(body).to_le_bytes() != *crc {
            return Err(Error::Checksum { what: Self::WHAT });
        }
        let slot = r.u32()?;
        r.within("the slot", u64::from(slot), u64::from(SLOTS_MAX) - 1)?;
        let kind = FrameKind::of(Self::WHAT, r.u8()?)?;
        let codec = Codec::of(Self::WHAT, r.u8()?)?;
        let depth = r.u8()?;
        check_depth(Self::WHAT, codec, depth)?;
        let birth = r.u8()?;
        r.within("the birth", u64::from(birth), BIRTHS_MAX as u64 - 1)?;
        let plain_len = r.u32()?;
        r.within("the plain length", u64::from(plain_len), u64::from(FRAME_PLAIN_MAX))?;
        let stored_len = r.u32()?;
        check_stored(Self::WHAT, stored_len)?;
        let payload_crc = r.u32()?;
        let durable_end = r.u32()?;
        let most = if kind.is_log() { SEGMENT_BYTES_MAX } else { 0 };
        r.within("the durable end", u64::from(durable_end), most)?;
        Ok(Self { slot, kind, codec, depth, birth, plain_len, stored_len, payload_crc, durable_end })
    }

    /// Bytes of header and payload.
    #[must_use]
    pub fn frame_len(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + u64::from(self.stored_len)
    }

    /// Associated data of the payload: it binds repository, birth segment, slot, kind, codec, depth and both lengths.
    /// The place in the carrier's table and the checksum are not bound, so that compaction copies payloads.
    #[must_use]
    pub fn aad(&self, repo: RepoId, birth: SegmentId) -> [u8; 48] {
        let mut w = Writer::new();
        w.raw(&repo.0);
        w.raw(&birth.0);
        w.u32(self.slot);
        w.u8(self.kind.code());
        w.u8(self.codec.code());
        w.u8(self.depth);
        w.u8(0);
        w.u32(self.plain_len);
        w.u32(self.stored_len);
        let mut out = [0; 48];
        for (to, from) in out.iter_mut().zip(w.as_bytes()) {
            *to = *from;
        }
        out
    }
}

fn check_depth(what: &'static str, codec: Codec, depth: u8) -> Result<()> {
    let good = if codec == Codec::Delta { (1..=DEPTH_MAX).contains(&depth) } else { depth == 0 };
    if good { Ok(()) } else { Err(Error::bad(what, "the depth", "1 to 4 for a delta, else 0", depth)) }
}

fn check_stored(what: &'static str, stored_len: u32) -> Result<()> {
    if !(TAG_BYTES as u32..=FRAME_STORED_MAX).contains(&stored_len) {
        return Err(Error::TooLarge {
            what,
            field: "the stored length",
            got: u64::from(stored_len),
            limit: u64::from(FRAME_STORED_MAX),
        });
    }
    Ok(())
}

/// What a footer says of one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FooterEntry {
    /// Keyed BLAKE3 of the plaintext, whatever the kind.
    pub id: BlockId,
    /// Offset of the frame's header in the segment, bytes.
    pub offset: u32,
    /// As in the frame's header.
    pub plain_len: u32,
    /// As in the frame's header.
    pub stored_len: u32,
    /// As in the frame's header.
    pub slot: u32,
    /// Address of the base of a delta.
    pub base: Option<Address>,
    /// As in the frame's header.
    pub birth: u8,
    /// As in the frame's header.
    pub kind: FrameKind,
    /// As in the frame's header.
    pub codec: Codec,
    /// As in the frame's header.
    pub depth: u8,
}

/// The table of a segment's frames, in the order of their offsets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Footer {
    /// One entry a frame.
    pub entries: Vec<FooterEntry>,
}

impl Footer {
    const WHAT: &'static str = "segment footer";

    /// The plaintext of a footer.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bases: Vec<SegmentId> =
            self.entries.iter().filter_map(|e| e.base.map(|b| b.segment)).collect();
        bases.sort_unstable();
        bases.dedup();
        let mut w = Writer::new();
        w.raw(FOOTER_MAGIC);
        w.u32(VERSION);
        w.count(self.entries.len());
        w.count(bases.len());
        w.u32(0);
        for base in &bases {
            w.raw(&base.0);
        }
        for entry in &self.entries {
            let place = |base: Address| {
                bases
                    .binary_search(&base.segment)
                    .ok()
                    .and_then(|at| u32::try_from(at).ok())
                    .unwrap_or(NO_BASE)
            };
            w.raw(&entry.id.0);
            w.u32(entry.offset);
            w.u32(entry.plain_len);
            w.u32(entry.stored_len);
            w.u32(entry.slot);
            w.u32(entry.base.map_or(NO_BASE, place));
            w.u32(entry.base.map_or(0, |base| base.slot));
            w.u8(entry.birth);
            w.u8(entry.kind.code());
            w.u8(entry.codec.code());
            w.u8(entry.depth);
            w.u32(0);
        }
        w.into_bytes()
    }

    /// Reads a footer's plaintext.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(Self::WHAT, bytes);
        r.magic(FOOTER_MAGIC)?;
        r.version(VERSION)?;
        let count = r.u32()?;
        r.within("the number of frames", u64::from(count), u64::from(SLOTS_MAX))?;
        let base_count = r.u32()?;
        r.within("the number of bases", u64::from(base_count), u64::from(count))?;
        r.zeros("a reserved field", 4)?;
        let needed = u64::from(count) * FOOTER_ENTRY_BYTES as u64 + u64::from(base_count) * 16;
        if needed != r.left() as u64 {
            return Err(Error::bad(Self::WHAT, "the length", needed, r.left()));
        }
        let mut bases = Vec::with_capacity(base_count as usize);
        for _ in 0..base_count {
            bases.push(SegmentId(r.array()?));
        }
        let mut entries = Vec::with_capacity(count as usize);
        let mut end = PAGE_BYTES as u64;
        for _ in 0..count {
            let entry = Self::entry(&mut r, &bases)?;
            if u64::from(entry.offset) < end {
                return Err(Error::bad(Self::WHAT, "an offset", format!("{end} or more"), entry.offset));
            }
            end = u64::from(entry.offset) + FRAME_HEADER_BYTES as u64 + u64::from(entry.stored_len);
            entries.push(entry);
        }
        r.end()?;
        Ok(Self { entries })
    }

    fn entry(r: &mut Reader<'_>, bases: &[SegmentId]) -> Result<FooterEntry> {
        let id = BlockId(r.array()?);
        let offset = r.u32()?;
        r.within("an offset", u64::from(offset), SEGMENT_BYTES_MAX)?;
        let plain_len = r.u32()?;
        r.within("a plain length", u64::from(plain_len), u64::from(FRAME_PLAIN_MAX))?;
        let stored_len = r.u32()?;
        check_stored(Self::WHAT, stored_len)?;
        let slot = r.u32()?;
        r.within("a slot", u64::from(slot), u64::from(SLOTS_MAX) - 1)?;
        let (base_at, base_slot) = (r.u32()?, r.u32()?);
        let birth = r.u8()?;
        r.within("a birth", u64::from(birth), BIRTHS_MAX as u64 - 1)?;
        let kind = FrameKind::of(Self::WHAT, r.u8()?)?;
        let codec = Codec::of(Self::WHAT, r.u8()?)?;
        let depth = r.u8()?;
        check_depth(Self::WHAT, codec, depth)?;
        r.zeros("a reserved field", 4)?;
        let base = match (codec, bases.get(base_at as usize)) {
            (Codec::Delta, Some(segment)) if base_slot < SLOTS_MAX => {
                Some(Address { segment: *segment, slot: base_slot })
            }
            (Codec::Raw | Codec::Zstd, None) if base_at == NO_BASE && base_slot == 0 => None,
            _ => return Err(Error::bad(Self::WHAT, "a base", "one for each delta, none else", base_at)),
        };
        Ok(FooterEntry { id, offset, plain_len, stored_len, slot, base, birth, kind, codec, depth })
    }

    /// Associated data of the sealed footer.
    #[must_use]
    pub fn aad(repo: RepoId, segment: SegmentId, detached: bool, frames_end: u64, frames: u32) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(FOOTER_MAGIC);
        w.raw(&repo.0);
        w.raw(&segment.0);
        w.u32(if detached { DETACHED } else { 0 });
        w.u64(frames_end);
        w.u32(frames);
        w.into_bytes()
    }
}

/// Where the parity of a segment lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ParityPlace {
    /// Offset in the object, bytes.
    pub offset: u64,
    /// Bytes: table of checksums and parity shards.
    pub len: u64,
    /// Bytes of a shard, a multiple of 4,096.
    pub shard_bytes: u32,
    /// Shards that protect.
    pub parity_shards: u32,
    /// Shards that are protected: the object from its start to the parity, the last one filled with zeros.
    pub data_shards: u32,
}

/// The last 4 KiB of a sealed segment, or of a detached footer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Trailer {
    /// The repository.
    pub repo: RepoId,
    /// The segment.
    pub segment: SegmentId,
    /// True in the object of a detached footer.
    pub detached: bool,
    /// Where the frames end in the segment, bytes.
    pub frames_end: u64,
    /// Where the sealed footer begins in this object, bytes.
    pub footer_offset: u64,
    /// Bytes of the sealed footer: nonce, four zeros, ciphertext, tag.
    pub footer_len: u64,
    /// How many frames there are.
    pub frames: u32,
    /// BLAKE3 over header and tag of each frame, in order.
    pub frames_root: [u8; 32],
    /// The parity, if any.
    pub parity: Option<ParityPlace>,
}

/// Longest sealed footer.
const FOOTER_BYTES_MAX: u64 =
    16 + 24 + (FOOTER_ENTRY_BYTES as u64 + 16) * SLOTS_MAX as u64 + TAG_BYTES as u64;

impl Trailer {
    const WHAT: &'static str = "segment trailer";

    /// The 4 KiB.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let parity = self.parity.unwrap_or_default();
        let mut w = Writer::new();
        w.raw(TRAILER_MAGIC);
        w.u32(VERSION);
        w.u32(if self.detached { DETACHED } else { 0 });
        w.raw(&self.repo.0);
        w.raw(&self.segment.0);
        w.u64(self.frames_end);
        w.u64(self.footer_offset);
        w.u64(self.footer_len);
        w.u32(self.frames);
        w.u32(parity.shard_bytes);
        w.u64(parity.offset);
        w.u64(parity.len);
        w.u32(parity.data_shards);
        w.u32(parity.parity_shards);
        w.raw(&self.frames_root);
        w.pad_to(PAGE_BYTES - 32);
        let mut bytes = w.into_bytes();
        append_hash(&mut bytes);
        bytes
    }

    /// Reads the last 4 KiB of an object.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let page = page_of(Self::WHAT, bytes)?;
        let mut r = Reader::new(Self::WHAT, page);
        r.magic(TRAILER_MAGIC)?;
        r.version(VERSION)?;
        let (body, _) = split_hash(Self::WHAT, page)?;
        let mut r = Reader::new(Self::WHAT, body.get(12..).unwrap_or(&[]));
        let detached = match r.u32()? {
            0 => false,
            DETACHED => true,
            other => return Err(Error::bad(Self::WHAT, "the flags", "0 or 1", other)),
        };
        let repo = RepoId(r.array()?);
        let segment = SegmentId(r.array()?);
        let frames_end = r.u64()?;
        r.within("the end of the frames", frames_end, SEGMENT_BYTES_MAX)?;
        let footer_offset = r.u64()?;
        r.within("the offset of the footer", footer_offset, SEGMENT_BYTES_MAX)?;
        let footer_len = r.u64()?;
        r.within("the length of the footer", footer_len, FOOTER_BYTES_MAX)?;
        let frames = r.u32()?;
        r.within("the number of frames", u64::from(frames), u64::from(SLOTS_MAX))?;
        let shard_bytes = r.u32()?;
        let (offset, len) = (r.u64()?, r.u64()?);
        let (data_shards, parity_shards) = (r.u32()?, r.u32()?);
        let frames_root = r.array()?;
        r.zeros("the padding", r.left())?;
        let parity = if shard_bytes == 0 {
            if offset != 0 || len != 0 || data_shards != 0 || parity_shards != 0 {
                return Err(Error::bad(
                    Self::WHAT,
                    "the parity",
                    "all zero without shards",
                    "something else",
                ));
            }
            None
        } else {
            let place = ParityPlace { offset, len, shard_bytes, parity_shards, data_shards };
            Self::check_parity(&place)?;
            Some(place)
        };
        let trailer = Self {
            repo,
            segment,
            detached,
            frames_end,
            footer_offset,
            footer_len,
            frames,
            frames_root,
            parity,
        };
        let attached_after = detached || footer_offset >= frames_end;
        if frames_end < ALIGN_BYTES || footer_len < 32 || !attached_after {
            return Err(Error::bad(
                Self::WHAT,
                "the places",
                "header, frames, footer in order",
                "another order",
            ));
        }
        Ok(trailer)
    }

    fn check_parity(place: &ParityPlace) -> Result<()> {
        let shard = u64::from(place.shard_bytes);
        let data = u64::from(place.data_shards);
        let good = shard.is_multiple_of(ALIGN_BYTES)
            && shard <= SEGMENT_BYTES_MAX
            && place.parity_shards > 0
            && place.parity_shards <= 4096
            && place.data_shards <= 65_536
            && place.offset <= SEGMENT_BYTES_MAX
            && place.offset <= data.saturating_mul(shard)
            && data.saturating_mul(shard) < place.offset.saturating_add(shard);
        if good { Ok(()) } else { Err(Error::bad(Self::WHAT, "the parity", "shards that fit", "others")) }
    }
}

/// The next multiple of 4 KiB.
#[must_use]
pub fn align_up(offset: u64) -> u64 {
    offset.div_ceil(ALIGN_BYTES).saturating_mul(ALIGN_BYTES)
}
