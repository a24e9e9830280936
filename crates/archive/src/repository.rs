//! A real repository as the archive's store.

use std::sync::Arc;

use holdfast_format::ids::SegmentId;
use holdfast_format::log::LogOpening;
use holdfast_format::record::{LogRecord, Position, Record, Stamped, StreamKey};
use holdfast_format::segment::FrameKind;
use holdfast_store::{LogKind, LogSegment, LogState, LogWriter, Repository};

use crate::error::{Error, Result};
use crate::storage::{Frames, LogStore, Stretch, StretchWriter};

impl From<holdfast_store::Error> for Error {
    fn from(error: holdfast_store::Error) -> Self {
        Self::Store(Box::new(error))
    }
}

impl LogStore for Repository {
    fn streams(&self) -> Result<Vec<StreamKey>> {
        Ok(Repository::streams(self)?)
    }

    fn stretches(&self, stream: &StreamKey) -> Result<Vec<Stretch>> {
        Ok(self.logs(*stream)?.into_iter().map(stretch_of).collect())
    }

    fn frames(&self, stretch: &Stretch) -> Result<Frames<'_>> {
        let frames = self.read_log(&segment_of(stretch), 0)?;
        Ok(Box::new(frames.map(|frame| {
            let frame = frame?;
            Ok((frame_kind(frame.kind), frame.plain))
        })))
    }

    fn index_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        derived_frames(self, stretch, LogKind::Index)
    }

    fn note_frames(&self, stretch: &Stretch) -> Result<Vec<Vec<u8>>> {
        derived_frames(self, stretch, LogKind::Meta)
    }

    fn begin(&self, stream: &StreamKey, start: &Position) -> Result<Box<dyn StretchWriter>> {
        Ok(Box::new(Writer(self.begin_log(*stream, start.clone())?)))
    }

    fn records(&self) -> Result<Vec<Arc<Stamped>>> {
        self.refresh()?;
        Ok(Repository::records(self))
    }

    fn append(&self, record: Record) -> Result<()> {
        Repository::append(self, record)?;
        Ok(())
    }
}

/// The frames of one kind. Damage in a stretch without a record ends them: whoever needs the events behind it is told when
/// they are read, and nobody else is stopped by it.
fn derived_frames(repo: &Repository, stretch: &Stretch, kind: LogKind) -> Result<Vec<Vec<u8>>> {
    let mut found = Vec::new();
    for frame in repo.read_log(&segment_of(stretch), 0)?.only(kind) {
        match frame.map_err(Error::from) {
            Ok(frame) => found.push(frame.plain),
            Err(error) if error.is_damage() && stretch.sealed.is_none() => break,
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn stretch_of(segment: LogSegment) -> Stretch {
    Stretch {
        segment: segment.segment,
        stream: segment.opening.stream,
        number: segment.opening.number,
        start: segment.opening.start,
        opened_us: segment.opening.opened_us,
        sealed: match segment.state {
            LogState::Sealed(record) => Some(*record),
            LogState::Open => None,
        },
    }
}

fn segment_of(stretch: &Stretch) -> LogSegment {
    LogSegment {
        segment: stretch.segment,
        opening: LogOpening {
            stream: stretch.stream,
            number: stretch.number,
            start: stretch.start.clone(),
            opened_us: stretch.opened_us,
        },
        state: match &stretch.sealed {
            Some(record) => LogState::Sealed(Box::new(record.clone())),
            None => LogState::Open,
        },
    }
}

fn frame_kind(kind: LogKind) -> FrameKind {
    match kind {
        LogKind::Events => FrameKind::LogEvents,
        LogKind::Index => FrameKind::LogIndex,
        LogKind::Meta => FrameKind::LogMeta,
    }
}

struct Writer(LogWriter);

impl StretchWriter for Writer {
    fn segment(&self) -> SegmentId {
        self.0.segment()
    }

    fn number(&self) -> u64 {
        self.0.number()
    }

    fn stored_bytes(&self) -> u64 {
        self.0.bytes()
    }

    fn adopt(&mut self, record: LogRecord) -> Result<()> {
        let left = self.0.left_behind().iter().find(|left| left.segment == record.segment).cloned();
        // Its own writer may have lived and completed it since we looked.
        if let Some(left) = left {
            self.0.adopt(&left, record)?;
        }
        Ok(())
    }

    fn append(&mut self, kind: FrameKind, bytes: &[u8]) -> Result<()> {
        let kind = match kind {
            FrameKind::LogIndex => LogKind::Index,
            FrameKind::LogMeta => LogKind::Meta,
            _ => LogKind::Events,
        };
        self.0.append(kind, bytes)?;
        Ok(())
    }

    fn sync(&mut self) -> Result<()> {
        Ok(self.0.sync()?)
    }

    fn seal(self: Box<Self>, record: LogRecord) -> Result<()> {
        self.0.seal(record)?;
        Ok(())
    }
}
