//! Streams of log: segments that grow frame by frame, are readable meanwhile, and outlive their writers.
//!
//! A segment whose writer died is never continued: its valid frames are kept, the next writer
//! puts a footer beside it (`.foot`), and writing goes on in a new segment with a new key.

mod reader;
mod tail;
mod writer;

use std::collections::{HashMap, HashSet};
use std::sync::PoisonError;

use holdfast_format::ids::{BlockId, SegmentId};
use holdfast_format::log::LogOpening;
use holdfast_format::names;
use holdfast_format::record::{LogRecord, Record, StreamKey};
use holdfast_format::segment::FrameKind;
use holdfast_io::ObjectName;

pub use reader::{LogFrame, LogFrames};
pub(crate) use reader::{Scanned, scan_whole};
pub use writer::LogWriter;
pub(crate) use writer::lock_follower;

use crate::error::{Error, Result};
use crate::repository::Inner;

/// What a frame of a log holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum LogKind {
    /// Raw events.
    Events,
    /// Index entries.
    Index,
    /// Whatever else the archive keeps with a log.
    Meta,
}

impl LogKind {
    fn frame(self) -> FrameKind {
        match self {
            Self::Events => FrameKind::LogEvents,
            Self::Index => FrameKind::LogIndex,
            Self::Meta => FrameKind::LogMeta,
        }
    }

    fn of(kind: FrameKind) -> Option<Self> {
        match kind {
            FrameKind::LogEvents => Some(Self::Events),
            FrameKind::LogIndex => Some(Self::Index),
            FrameKind::LogMeta => Some(Self::Meta),
            _ => None,
        }
    }
}

/// How far a log segment is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogState {
    /// Complete; the record says what is in it.
    Sealed(Box<LogRecord>),
    /// No record yet: being written, or left behind by a writer that died.
    Open,
}

/// A segment of a stream of log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSegment {
    /// Its id.
    pub segment: SegmentId,
    /// What its first frame says: the stream, its number, where it begins.
    pub opening: LogOpening,
    /// How far it is.
    pub state: LogState,
}

/// The segments of one stream or of all, by stream and number. A segment that has no whole first frame yet is not
/// among them: nothing in it was ever acknowledged. Nor is one whose first frame is damaged and that no record names: it
/// belongs to nobody any more (holdfast-fsck tells of it).
pub(crate) fn list(inner: &Inner, stream: Option<StreamKey>) -> Result<Vec<LogSegment>> {
    let mut sealed: HashMap<SegmentId, LogRecord> = HashMap::new();
    let mut deleted: HashSet<SegmentId> = HashSet::new();
    for stamped in inner.manifest.records() {
        match &stamped.record {
            Record::LogSealed(record) => {
                sealed.insert(record.segment, record.clone());
            }
            Record::SegmentsDeleted { segments } => deleted.extend(segments.iter().copied()),
            _ => {}
        }
    }
    let (mut segments, mut listed) = (Vec::new(), HashSet::new());
    for name in inner.objects.list(names::LOGS)? {
        let id = name.as_str().strip_prefix(names::LOGS).and_then(|hex| hex.parse::<SegmentId>().ok());
        let Some(id) = id.filter(|id| !deleted.contains(id)) else { continue };
        listed.insert(id);
        if let Some(record) = sealed.get(&id)
            && stream.is_some_and(|s| s != record.stream)
        {
            continue;
        }
        let opening = match (known_opening(inner, id, &name), sealed.get(&id)) {
            (Ok(Some(opening)), _) => opening,
            // Whoever reads it is told what is wrong with it.
            (Ok(None) | Err(Error::Damaged { .. } | Error::Format { .. }), Some(record)) => {
                opening_of(record)
            }
            (Ok(None) | Err(Error::Damaged { .. } | Error::Format { .. }), None) => continue,
            (Err(e), _) => return Err(e),
        };
        if stream.is_some_and(|s| s != opening.stream) {
            continue;
        }
        let state = sealed.remove(&id).map_or(LogState::Open, |record| LogState::Sealed(Box::new(record)));
        segments.push(LogSegment { segment: id, opening, state });
    }
    inner.openings.lock().unwrap_or_else(PoisonError::into_inner).retain(|id, _| listed.contains(id));
    segments.sort_by_key(|s| (s.opening.stream, s.opening.number));
    Ok(segments)
}

/// What the opening of a sealed segment said, but for the time: its record says the rest.
pub(crate) fn opening_of(record: &LogRecord) -> LogOpening {
    LogOpening {
        stream: record.stream,
        number: record.number,
        start: record.first.clone(),
        opened_us: record.first_us,
    }
}

/// The number of the next segment of a stream: numbers go on even where all before it were pruned.
fn next_number(inner: &Inner, stream: StreamKey, known: &[LogSegment]) -> u64 {
    let recorded = inner.manifest.records();
    let recorded = recorded.iter().filter_map(|s| match &s.record {
        Record::LogSealed(log) if log.stream == stream => Some(log.number),
        _ => None,
    });
    let newest = recorded.chain(known.iter().map(|s| s.opening.number)).max();
    newest.map_or(0, |n| n.saturating_add(1))
}

/// The first frame of a log segment, read once; `None` if it isn't whole.
fn known_opening(inner: &Inner, id: SegmentId, name: &ObjectName) -> Result<Option<LogOpening>> {
    let known = || inner.openings.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(opening) = known().get(&id) {
        return Ok(Some(opening.clone()));
    }
    let opening = read_opening(inner, id, name)?;
    if let Some(opening) = &opening {
        known().insert(id, opening.clone());
    }
    Ok(opening)
}

/// The first frame of a log segment, `None` if it isn't whole.
fn read_opening(inner: &Inner, id: SegmentId, name: &ObjectName) -> Result<Option<LogOpening>> {
    let mut frames = match LogFrames::scan(inner, id, name.clone())? {
        Some(frames) => frames,
        None => return Ok(None),
    };
    match frames.next_any()? {
        Some((FrameKind::LogOpening, _, plain)) => {
            let opening = LogOpening::decode(&plain).map_err(Error::format(name))?;
            Ok(Some(opening))
        }
        _ => Ok(None),
    }
}

/// Keyed BLAKE3 of a frame's plaintext.
fn frame_id(inner: &Inner, plain: &[u8]) -> BlockId {
    holdfast_format::keys::block_id(&inner.keys.block_id, plain)
}
