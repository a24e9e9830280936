//! Writing one segment of a stream.

use std::sync::Arc;

use holdfast_format::gtid::Uuid;
use holdfast_format::ids::{SegmentId, ServerId};
use holdfast_format::limits::{FRAME_PLAIN_MAX, SEGMENT_BYTES};
use holdfast_format::log::LogOpening;
use holdfast_format::names;
use holdfast_format::record::{LogRecord, Position, Record, Stamped, StreamKey};
use holdfast_format::segment::{Footer, FrameKind, SegmentKind};
use holdfast_format::session::SessionKind;
use holdfast_io::{Lock, LockKind, ObjectName, Put};
use std::time::Duration;

use super::reader::LogFrames;
use super::{LogKind, LogSegment, LogState, frame_id, list, next_number};
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::repository::{Inner, VerifyWrite};
use crate::segment::{NewFrame, SegmentWriter, detached_footer};
use crate::session::LiveSession;

/// Memory for a frame that a writer may keep however short its frames are.
const KEPT_BYTES: usize = 16 << 10;

/// The writer of a stream's newest segment. What [`LogWriter::append`] took is durable after [`LogWriter::sync`].
#[derive(Debug)]
pub struct LogWriter {
    inner: Arc<Inner>,
    segment: SegmentWriter,
    opening: LogOpening,
    left_behind: Vec<LogSegment>,
    coder: CoderBox,
    /// The payload of the frame before: its memory is used again.
    payload: Vec<u8>,
    failed: bool,
    _session: LiveSession,
    _lock: Arc<Lock>,
}

/// A coder, with a Debug that says nothing.
struct CoderBox(Coder);

impl std::fmt::Debug for CoderBox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coder")
    }
}

impl LogWriter {
    pub(crate) fn begin(inner: &Arc<Inner>, stream: StreamKey, start: Position) -> Result<Self> {
        if let Some(why) = inner.manifest.damage() {
            return Err(Error::ReadOnly { why });
        }
        let lock = lock_stream(inner, stream)?;
        Self::begin_locked(inner, stream, start, Arc::new(lock))
    }

    fn begin_locked(inner: &Arc<Inner>, stream: StreamKey, start: Position, lock: Arc<Lock>) -> Result<Self> {
        let session = inner.begin_session(SessionKind::Log, Vec::new())?;
        let known = list(inner, Some(stream))?;
        let mut left_behind = Vec::new();
        for segment in known.iter().filter(|s| s.state == LogState::Open) {
            if finish_left_behind(inner, segment)? {
                left_behind.push(segment.clone());
            }
        }
        let number = next_number(inner, stream, &known);
        let verify = inner.options.verify_write == VerifyWrite::Full;
        let segment = SegmentWriter::create(
            inner.objects.as_ref(),
            &inner.keys,
            SegmentKind::Log,
            session.id(),
            verify,
        )?;
        let opening = LogOpening { stream, number, start, opened_us: inner.options.clock.now_us() };
        let mut writer = Self {
            inner: Arc::clone(inner),
            segment,
            opening,
            left_behind,
            coder: CoderBox(Coder::new()?),
            payload: Vec::new(),
            failed: false,
            _session: session,
            _lock: lock,
        };
        let plain = writer.opening.encode();
        writer.push(FrameKind::LogOpening, &plain)?;
        // The wrapped key is durable before the first frame that anybody counts on.
        writer.sync()?;
        Ok(writer)
    }

    /// The segment.
    #[must_use]
    pub fn segment(&self) -> SegmentId {
        self.segment.id()
    }

    /// Its number in the stream.
    #[must_use]
    pub fn number(&self) -> u64 {
        self.opening.number
    }

    /// The stream.
    #[must_use]
    pub fn stream(&self) -> StreamKey {
        self.opening.stream
    }

    /// Segments before this one that died writers left behind and that have no record yet: read them, then say with
    /// [`LogWriter::adopt`] what is in them. One with damage before its torn end is not among them: it gets no footer and
    /// no record, so that nobody takes the damage for its end.
    #[must_use]
    pub fn left_behind(&self) -> &[LogSegment] {
        &self.left_behind
    }

    /// Appends a frame of at most 4 MiB and gives its slot. [`Error::LogFull`]: seal this segment and begin another.
    pub fn append(&mut self, kind: LogKind, plain: &[u8]) -> Result<u32> {
        if self.segment.len() >= SEGMENT_BYTES || !self.segment.has_slot() {
            return Err(Error::LogFull);
        }
        self.push(kind.frame(), plain)
    }

    fn push(&mut self, kind: FrameKind, plain: &[u8]) -> Result<u32> {
        self.usable()?;
        let plain_len = u32::try_from(plain.len()).ok().filter(|n| *n <= FRAME_PLAIN_MAX);
        let Some(plain_len) = plain_len else {
            let why = format!("a frame of a log has at most {FRAME_PLAIN_MAX} bytes, not {}", plain.len());
            return Err(Error::Refused { op: "append to the log", why });
        };
        let verify = self.inner.options.verify_write == VerifyWrite::Full;
        let mut room = std::mem::take(&mut self.payload);
        room.clear();
        // With its tag.
        room.reserve(plain.len().saturating_add(16));
        let (codec, payload) = self.coder.0.encode_into(plain, verify, room)?;
        let id = frame_id(&self.inner, plain);
        let done =
            self.segment.append(NewFrame { kind, codec, depth: 0, base: None, id, plain_len, payload });
        let (slot, payload) = done.inspect_err(|_| self.failed = true)?;
        // A busy time's is not kept for the frames of a quiet one.
        self.payload =
            if payload.capacity() / 4 > payload.len().max(KEPT_BYTES) { Vec::new() } else { payload };
        Ok(slot)
    }

    fn usable(&self) -> Result<()> {
        if self.failed {
            let why = format!(
                "an earlier write or sync of {} failed, and what the disk holds of it is unknown; look at the disk, then archive on",
                names::log(self.segment.id())
            );
            return Err(Error::Refused { op: "go on with the log segment", why });
        }
        Ok(())
    }

    /// Makes everything appended so far durable: only now may it be acknowledged. A failure ends this writer.
    pub fn sync(&mut self) -> Result<()> {
        self.usable()?;
        self.segment.sync().inspect_err(|_| self.failed = true)
    }

    /// Bytes of the segment so far. Seal it when this nears 64 MiB.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.segment.len()
    }

    /// Writes footer and trailer, and appends the record. Segment, stream and number of the record are filled in here.
    pub fn seal(self, record: LogRecord) -> Result<Stamped> {
        self.seal_with(record).map(|(stamped, _)| stamped)
    }

    /// As [`LogWriter::seal`], and begins the next segment without letting the stream go.
    pub fn roll(self, record: LogRecord, start: Position) -> Result<(Stamped, Self)> {
        let inner = Arc::clone(&self.inner);
        let stream = self.opening.stream;
        let (stamped, lock) = self.seal_with(record)?;
        Ok((stamped, Self::begin_locked(&inner, stream, start, lock)?))
    }

    fn seal_with(self, record: LogRecord) -> Result<(Stamped, Arc<Lock>)> {
        self.usable()?;
        let record = LogRecord {
            stream: self.opening.stream,
            number: self.opening.number,
            segment: self.segment.id(),
            ..record
        };
        self.segment.seal()?;
        let stamped =
            self.inner.manifest.append(Record::LogSealed(record), self.inner.options.clock.now_us())?;
        Ok((stamped, self._lock))
    }

    /// Appends the record of a segment that was left behind. Segment, stream and number are filled in here.
    pub fn adopt(&mut self, segment: &LogSegment, record: LogRecord) -> Result<Stamped> {
        let Some(at) = self.left_behind.iter().position(|s| s.segment == segment.segment) else {
            let why = format!("segment {} was not left behind, or has its record", segment.segment);
            return Err(Error::Refused { op: "adopt the log segment", why });
        };
        let record = LogRecord {
            stream: segment.opening.stream,
            number: segment.opening.number,
            segment: segment.segment,
            ..record
        };
        let stamped =
            self.inner.manifest.append(Record::LogSealed(record), self.inner.options.clock.now_us())?;
        self.left_behind.remove(at);
        Ok(stamped)
    }
}

/// Takes the lock of whoever follows a server's log: held from before the first event, over all its streams. It lies
/// beside the locks of the streams, under the tag of a stream that no server has.
pub(crate) fn lock_follower(inner: &Inner, server: ServerId, wait: Duration) -> Result<Lock> {
    let nobody = Uuid([0xff; 16]);
    lock_within(inner, StreamKey { server, source_uuid: nobody, incarnation: u32::MAX }, wait)
}

fn lock_stream(inner: &Inner, stream: StreamKey) -> Result<Lock> {
    lock_within(inner, stream, Duration::ZERO)
}

fn lock_within(inner: &Inner, stream: StreamKey, wait: Duration) -> Result<Lock> {
    let name = ObjectName::new(names::stream_lock(inner.keys.stream_tag(&stream.to_bytes())))?;
    match inner.objects.lock(&name, LockKind::Exclusive, wait) {
        Ok(lock) => Ok(lock),
        Err(holdfast_io::Error::LockBusy { .. }) => Err(Error::StreamBusy),
        Err(e) => Err(e.into()),
    }
}

/// Puts the footer of a segment whose writer died. Its frames are written anew first: a footer may not list what a power
/// cut could still take, and of a writer that ended because its sync failed the system may hold frames that no later
/// sync writes. False if a frame that was durable once can't be read any more: then the segment stays as
/// it is.
fn finish_left_behind(inner: &Inner, segment: &LogSegment) -> Result<bool> {
    let name = ObjectName::new(names::log(segment.segment))?;
    let foot = ObjectName::new(names::log_foot(segment.segment))?;
    if inner.objects.exists(&foot)? {
        // Whoever put it may have died because the sync of its name failed.
        inner.objects.renew(&foot)?;
        return Ok(true);
    }
    inner.objects.renew(&name)?;
    let Some(mut frames) = LogFrames::scan(inner, segment.segment, name.clone())? else { return Ok(true) };
    loop {
        match frames.next_any() {
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(Error::Damaged { .. }) => return Ok(false),
            Err(e) => return Err(e),
        }
    }
    let scanned = frames.into_scanned();
    let bytes = detached_footer(
        &inner.keys,
        &scanned.data_key,
        segment.segment,
        &Footer { entries: scanned.entries },
        *scanned.root.finalize().as_bytes(),
        scanned.frames_end,
    )?;
    match inner.objects.put_if_absent(&foot, &bytes)? {
        Put::Created | Put::Exists => Ok(true),
    }
}
