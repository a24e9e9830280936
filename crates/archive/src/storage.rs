//! What the archive needs of a repository: stretches of log, written front to back, and records.
//!
//! A seam so that everything above it is tested on a store in memory that loses its tail as a crash would.

use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::record::{LogRecord, Position, Record, Stamped, StreamKey};
use holdfast_format::segment::FrameKind;

use crate::error::Result;

/// One log segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// Its id.
    pub segment: SegmentId,
    /// Its stream.
    pub stream: StreamKey,
    /// Its number in the stream.
    pub number: u64,
    /// Where it begins.
    pub start: Position,
    /// When it was begun, microseconds since the Unix epoch.
    pub opened_us: i64,
    /// Its record once it is complete; without one it is being written, or was left behind by a crash.
    pub sealed: Option<LogRecord>,
}

/// A stretch's frames behind its opening: kind and plaintext, in order, up to the last valid one. Damage before it is an
/// error ([`crate::Error::is_damage`]).
pub type Frames<'a> = Box<dyn Iterator<Item = Result<(FrameKind, Vec<u8>)>> + 'a>;

/// The part of a repository that holds logs.
pub trait LogStore: Send + Sync {
    /// All streams that have a segment.
    fn streams(&self) -> Result<Vec<StreamKey>>;

    /// All segments of a stream in the order of their numbers.
    fn stretches(&self, stream: &StreamKey) -> Result<Vec<Stretch>>;

    /// Reads the frames of a segment.
    fn frames(&self, stretch: &Stretch) -> Result<Frames<'_>>;

    /// Reads the index frames of a segment, and as little else as it takes to find them.
    fn index_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>>;

    /// Reads the notes of a segment (`LogMeta`), and as little else as it takes to find them.
    fn note_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>>;

    /// Begins the next segment. Fails while another process writes the same stream.
    fn begin(&self, stream: &StreamKey, start: &Position) -> Result<Box<dyn StretchWriter>>;

    /// All records.
    fn records(&self) -> Result<Vec<Arc<Stamped>>>;

    /// Adds a record.
    fn append(&self, record: Record) -> Result<()>;
}

/// A segment that is being written.
pub trait StretchWriter: Send {
    /// Its id.
    fn segment(&self) -> SegmentId;

    /// Its number in the stream.
    fn number(&self) -> u64;

    /// Bytes that it takes in the repository so far.
    fn stored_bytes(&self) -> u64;

    /// Completes a segment that a crash left behind.
    fn adopt(&mut self, record: LogRecord) -> Result<()>;

    /// Adds a frame. Fails on a segment that is full.
    fn append(&mut self, kind: FrameKind, bytes: &[u8]) -> Result<()>;

    /// Returns when everything added is durable.
    fn sync(&mut self) -> Result<()>;

    /// Ends the segment and records it.
    fn seal(self: Box<Self>, record: LogRecord) -> Result<()>;
}
