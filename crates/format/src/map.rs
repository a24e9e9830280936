//! Maps: which block lies where in each file of a backup. See `format-spec/map.md`.
//!
//! A map is a root frame, frames with the table of the segments it refers to, and leaf frames
//! with files and runs of addresses. Leaves name segments by their place in the table.

use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::ids::{Address, SegmentId};
use crate::limits::{
    BLOCK_BYTES, DEPTH_MAX, FILE_BYTES_MAX, FILES_MAX, MAP_FRAMES_MAX, MAP_SEGMENTS_MAX, PATH_BYTES_MAX,
    SLOTS_MAX,
};

/// Version of every structure of a map.
pub const VERSION: u32 = crate::VERSION;

const SEGMENT_BYTES: usize = 21;

/// What a file of a backup is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// Bytes.
    Regular,
    /// A folder; kept so that empty ones come back.
    Directory,
    /// A symbolic link, with what it points to.
    Symlink {
        /// The target as bytes.
        target: Vec<u8>,
    },
}

/// A file of a backup, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FileEntry {
    /// Path below the folder that was backed up, parts divided by `/`, any bytes but zero.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: FileKind,
    /// Length, bytes; 0 unless regular.
    pub len: u64,
    /// Permission bits as in `st_mode` (low 12 bits).
    pub mode: u32,
    /// Time of last change, microseconds since the Unix epoch.
    pub mtime_us: i64,
    /// What its source's file system said of it; regular files only. Absent where the source can't vouch that an equal
    /// state means equal bytes.
    pub state: Option<SourceState>,
}

/// What the file system of a source says of a file: as long as none of it changes, nor the length, the file has not
/// been written since.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SourceState {
    /// Number of the inode.
    pub inode: u64,
    /// Time of the last change of its content, nanoseconds since the Unix epoch.
    pub modified_ns: i64,
    /// Time of the last change of its content, name, owner or mode, nanoseconds since the Unix epoch.
    pub changed_ns: i64,
}

impl FileEntry {
    /// Number of blocks.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.len.div_ceil(u64::from(BLOCK_BYTES))
    }

    /// What is wrong with a path, if anything: an absolute one, an empty part, `.`, `..`, a zero byte.
    #[must_use]
    pub fn path_flaw(path: &[u8]) -> Option<&'static str> {
        if path.is_empty() || path.len() > PATH_BYTES_MAX as usize {
            return Some("a path of 1 to 4096 bytes");
        }
        if path.contains(&0) {
            return Some("a path without zero bytes");
        }
        let bad = |part: &[u8]| part.is_empty() || part == b"." || part == b"..";
        if path.split(|&b| b == b'/').any(bad) {
            return Some("a relative path without empty parts, . or ..");
        }
        None
    }
}

/// Where one frame lies, by the place of its segment in the map's table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Place of the segment in the table.
    pub segment: u32,
    /// Slot in that segment.
    pub slot: u32,
}

/// What a run of blocks is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// Never written: reads as zeros, is restored as a hole.
    Hole,
    /// Zeros that were written.
    Zero,
    /// Block `k` of the run lies at slot `first.slot + k`.
    Data {
        /// Where the first block lies.
        first: Place,
        /// Length of the chain of deltas below each block.
        depth: u8,
        /// Where the base of the first block lies, if they are deltas; that of block `k` is `k` slots further.
        base: Option<Place>,
    },
}

/// Neighbouring blocks of a file of one kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// How many blocks.
    pub count: u32,
    /// What they are.
    pub kind: RunKind,
}

impl Run {
    /// The run without its first `skip` blocks (fewer than its count).
    #[must_use]
    pub fn skip(&self, skip: u32) -> Self {
        let further = |p: Place| Place { segment: p.segment, slot: p.slot.saturating_add(skip) };
        let kind = match self.kind {
            RunKind::Data { first, depth, base } => {
                RunKind::Data { first: further(first), depth, base: base.map(further) }
            }
            other => other,
        };
        Self { count: self.count.saturating_sub(skip), kind }
    }

    /// Whether `next` continues this run, so that both are one.
    #[must_use]
    pub fn continues(&self, next: &RunKind) -> bool {
        self.skip(self.count).kind == *next
    }
}

/// Appends one block to a list of runs.
pub fn push_block(runs: &mut Vec<Run>, kind: RunKind) {
    match runs.last_mut() {
        Some(last) if last.count < u32::MAX && last.continues(&kind) => last.count += 1,
        _ => runs.push(Run { count: 1, kind }),
    }
}

/// The root of a map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapRoot {
    /// How many files.
    pub files: u32,
    /// Sum of their lengths, bytes.
    pub logical_bytes: u64,
    /// Blocks with an address.
    pub data_blocks: u64,
    /// Blocks of zeros.
    pub zero_blocks: u64,
    /// Blocks never written.
    pub hole_blocks: u64,
    /// How many segments the table has.
    pub segments: u32,
    /// Frames of the table of segments, in order.
    pub tables: Vec<Address>,
    /// Frames of the files, in order.
    pub leaves: Vec<Address>,
}

fn put_addresses(w: &mut Writer, list: &[Address]) {
    w.count(list.len());
    for address in list {
        put_address(w, *address);
    }
}

/// Appends an address: segment, slot.
pub(crate) fn put_address(w: &mut Writer, address: Address) {
    w.raw(&address.segment.0);
    w.u32(address.slot);
}

/// Takes an address.
pub(crate) fn take_address(r: &mut Reader<'_>) -> Result<Address> {
    let segment = SegmentId(r.array()?);
    let slot = r.u32()?;
    r.within("a slot", u64::from(slot), u64::from(SLOTS_MAX) - 1)?;
    Ok(Address { segment, slot })
}

fn take_addresses(r: &mut Reader<'_>, field: &'static str) -> Result<Vec<Address>> {
    let count = r.count(field, MAP_FRAMES_MAX, 20)?;
    (0..count).map(|_| take_address(r)).collect()
}

impl MapRoot {
    const WHAT: &'static str = "map root";

    /// The plaintext of the root frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        w.u32(BLOCK_BYTES);
        w.u32(self.files);
        w.u64(self.logical_bytes);
        w.u64(self.data_blocks);
        w.u64(self.zero_blocks);
        w.u64(self.hole_blocks);
        w.u32(self.segments);
        put_addresses(&mut w, &self.tables);
        put_addresses(&mut w, &self.leaves);
        w.into_bytes()
    }

    /// Reads the plaintext of a root frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(Self::WHAT, bytes);
        r.version(VERSION)?;
        let block = r.u32()?;
        if block != BLOCK_BYTES {
            return Err(Error::bad(Self::WHAT, "the block size", BLOCK_BYTES, block));
        }
        let files = r.u32()?;
        r.within("the number of files", u64::from(files), u64::from(FILES_MAX))?;
        let root = Self {
            files,
            logical_bytes: r.u64()?,
            data_blocks: r.u64()?,
            zero_blocks: r.u64()?,
            hole_blocks: r.u64()?,
            segments: r.u32()?,
            tables: take_addresses(&mut r, "the number of tables")?,
            leaves: take_addresses(&mut r, "the number of leaves")?,
        };
        r.within("the number of segments", u64::from(root.segments), u64::from(MAP_SEGMENTS_MAX))?;
        r.end()?;
        Ok(root)
    }
}

/// One segment that a map refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MapSegment {
    /// The segment (a birth: compaction may have moved its frames).
    pub segment: SegmentId,
    /// How many references the map's runs hold to it, bases included.
    pub references: u32,
    /// Whether this backup wrote it.
    pub own: bool,
}

/// A part of a map's table of segments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapSegments {
    /// Place of the first one.
    pub first: u32,
    /// The segments.
    pub segments: Vec<MapSegment>,
}

impl MapSegments {
    const WHAT: &'static str = "map's table of segments";

    /// The plaintext of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        w.u32(self.first);
        w.count(self.segments.len());
        for s in &self.segments {
            w.raw(&s.segment.0);
            w.u32(s.references);
            w.u8(u8::from(s.own));
        }
        w.into_bytes()
    }

    /// Reads the plaintext of the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(Self::WHAT, bytes);
        r.version(VERSION)?;
        let first = r.u32()?;
        let count = r.count("the number of segments", MAP_SEGMENTS_MAX, SEGMENT_BYTES)?;
        r.within("the last place", u64::from(first) + u64::from(count), u64::from(MAP_SEGMENTS_MAX))?;
        let mut segments = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let segment = SegmentId(r.array()?);
            let references = r.u32()?;
            let own = match r.u8()? {
                0 => false,
                1 => true,
                other => return Err(Error::bad(Self::WHAT, "a flag", "0 or 1", other)),
            };
            segments.push(MapSegment { segment, references, own });
        }
        r.end()?;
        Ok(Self { first, segments })
    }
}

/// A stretch of one file's runs; a long file has several, in neighbouring leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MapPart {
    /// Number of the file in the map, from 0.
    pub file: u32,
    /// The file itself, in its first part only.
    pub entry: Option<FileEntry>,
    /// The first block of the runs.
    pub first_block: u32,
    /// The runs, without gaps. Blocks behind the last run of the last part are holes.
    pub runs: Vec<Run>,
}

/// A part of a map's files.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct MapLeaf {
    /// The parts, in the order of file and block.
    pub parts: Vec<MapPart>,
}

impl MapLeaf {
    const WHAT: &'static str = "map leaf";

    /// The plaintext of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.u32(VERSION);
        w.count(self.parts.len());
        for part in &self.parts {
            put_part(&mut w, part);
        }
        w.into_bytes()
    }

    /// Reads the plaintext of the frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(Self::WHAT, bytes);
        r.version(VERSION)?;
        let count = r.count("the number of parts", FILES_MAX, 4)?;
        let mut parts = Vec::new();
        for _ in 0..count {
            parts.push(take_part(&mut r)?);
        }
        r.end()?;
        Ok(Self { parts })
    }
}

fn put_part(w: &mut Writer, part: &MapPart) {
    w.varint(u64::from(part.file));
    match &part.entry {
        None => w.u8(0),
        Some(entry) => {
            w.u8(match entry.kind {
                FileKind::Regular if entry.state.is_some() => 4,
                FileKind::Regular => 1,
                FileKind::Directory => 2,
                FileKind::Symlink { .. } => 3,
            });
            w.blob(&entry.path);
            if let FileKind::Symlink { target } = &entry.kind {
                w.blob(target);
            }
            w.varint(entry.len);
            w.u32(entry.mode);
            w.i64(entry.mtime_us);
            if let (FileKind::Regular, Some(state)) = (&entry.kind, &entry.state) {
                w.u64(state.inode);
                w.i64(state.modified_ns);
                w.i64(state.changed_ns);
            }
        }
    }
    w.varint(u64::from(part.first_block));
    w.varint(part.runs.len() as u64);
    for run in &part.runs {
        put_run(w, run);
    }
}

fn put_run(w: &mut Writer, run: &Run) {
    let place = |w: &mut Writer, p: Place| {
        w.varint(u64::from(p.segment));
        w.varint(u64::from(p.slot));
    };
    match run.kind {
        RunKind::Hole => w.u8(0),
        RunKind::Zero => w.u8(1),
        RunKind::Data { depth, .. } => w.u8(2 | (depth << 2)),
    }
    w.varint(u64::from(run.count));
    if let RunKind::Data { first, base, .. } = run.kind {
        place(w, first);
        if let Some(base) = base {
            place(w, base);
        }
    }
}

fn take_part(r: &mut Reader<'_>) -> Result<MapPart> {
    let what = MapLeaf::WHAT;
    let file = r.varint_u32("a file's number", FILES_MAX - 1)?;
    let entry = match r.u8()? {
        0 => None,
        code @ 1..=4 => {
            let path = r.blob("a path", PATH_BYTES_MAX)?.to_vec();
            if let Some(flaw) = FileEntry::path_flaw(&path) {
                return Err(Error::bad(what, "a path", flaw, "another"));
            }
            let kind = match code {
                1 | 4 => FileKind::Regular,
                2 => FileKind::Directory,
                _ => FileKind::Symlink { target: r.blob("a link's target", PATH_BYTES_MAX)?.to_vec() },
            };
            let len = r.varint_max("a file's length", FILE_BYTES_MAX)?;
            if kind != FileKind::Regular && len != 0 {
                return Err(Error::bad(what, "the length of what is no file", 0, len));
            }
            let (mode, mtime_us) = (r.u32()?, r.i64()?);
            let state = match code {
                4 => Some(SourceState { inode: r.u64()?, modified_ns: r.i64()?, changed_ns: r.i64()? }),
                _ => None,
            };
            Some(FileEntry { path, kind, len, mode, mtime_us, state })
        }
        other => return Err(Error::bad(what, "the kind of file", "0 to 4", other)),
    };
    let first_block = r.varint_u32("a block's number", u32::MAX)?;
    let count = r.varint("the number of runs")?;
    // A run takes two bytes at least.
    r.within("the number of runs", count, r.left() as u64 / 2)?;
    let mut runs = Vec::with_capacity(usize::try_from(count).unwrap_or(0));
    let mut end = u64::from(first_block);
    for _ in 0..count {
        let run = take_run(r)?;
        end += u64::from(run.count);
        r.within("a block's number", end, u64::from(u32::MAX))?;
        runs.push(run);
    }
    Ok(MapPart { file, entry, first_block, runs })
}

fn take_run(r: &mut Reader<'_>) -> Result<Run> {
    let what = MapLeaf::WHAT;
    let tag = r.u8()?;
    let count = r.varint_u32("a run's count", u32::MAX)?;
    if count == 0 {
        return Err(Error::bad(what, "a run's count", "1 or more", 0));
    }
    let place = |r: &mut Reader<'_>| -> Result<Place> {
        let segment = r.varint_u32("a segment's place", MAP_SEGMENTS_MAX - 1)?;
        let slot = r.varint_u32("a slot", SLOTS_MAX - 1)?;
        r.within("a run's last slot", u64::from(slot) + u64::from(count), u64::from(SLOTS_MAX))?;
        Ok(Place { segment, slot })
    };
    let kind = match (tag & 3, tag >> 2) {
        (0, 0) => RunKind::Hole,
        (1, 0) => RunKind::Zero,
        (2, depth) if depth <= DEPTH_MAX => {
            let first = place(r)?;
            let base = if depth > 0 { Some(place(r)?) } else { None };
            RunKind::Data { first, depth, base }
        }
        _ => return Err(Error::bad(what, "a run's tag", "hole, zero, or data of depth 0 to 4", tag)),
    };
    Ok(Run { count, kind })
}
