//! Compaction: the live frames of some segments become one new segment, byte for byte.

use holdfast_format::ids::{SegmentId, SessionId};
use holdfast_format::limits::BIRTHS_MAX;
use holdfast_format::names;
use holdfast_format::segment::{Birth, FooterEntry, SegmentKind};
use holdfast_io::ObjectName;

use super::mark::Live;
use super::table::SegmentTable;
use crate::error::{Error, Result};
use crate::repository::Inner;
use crate::segment::{CarrierWriter, SealedSegment, SegmentView};

/// A carrier that is durable, and that no record names yet.
#[derive(Debug)]
pub(super) struct Carried {
    pub(super) carrier: SegmentId,
    /// What it took over.
    pub(super) births: Vec<SegmentId>,
    /// Segments whose frames are all in it now, or needed no more.
    pub(super) sources: Vec<SegmentId>,
    pub(super) bytes: u64,
    pub(super) frame_bytes: u64,
}

/// A source, opened.
struct Source {
    id: SegmentId,
    view: SegmentView,
    births: Vec<Birth>,
}

/// A failure, and the source that it came from if its bytes are bad.
struct Failed {
    bad: Option<SegmentId>,
    error: Box<Error>,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self { bad: None, error: Box::new(error) }
    }
}

/// Copies what is alive of these segments into a new one. `None` if nothing of them is. A source that turns out to be
/// damaged is left as it is, and named in `damaged`: repair it first.
pub(super) fn carry(
    inner: &Inner,
    session: SessionId,
    kind: SegmentKind,
    sources: &[SegmentId],
    table: &SegmentTable,
    live: &Live,
    damaged: &mut Vec<String>,
) -> Result<Option<Carried>> {
    let mut opened = Vec::new();
    let mut count = 1;
    for id in sources {
        let view = match inner.cache.object(*id) {
            Ok(view) => view,
            Err(e) if e.is_damage() => {
                damaged.push(e.to_string());
                continue;
            }
            Err(e) => return Err(e),
        };
        let held = |b: &&Birth| table.holder(b.segment) == *id && live.count(b.segment) > 0;
        let births: Vec<Birth> = view.header().births.iter().filter(held).copied().collect();
        // A backup that ended meanwhile may need more of them than the plan knew.
        if !births.is_empty() && count + births.len() <= BIRTHS_MAX {
            count += births.len();
            opened.push(Source { id: *id, view, births });
        }
    }
    while !opened.is_empty() {
        match copy(inner, session, kind, &opened, live) {
            Ok(carried) => return Ok(Some(carried)),
            Err(Failed { bad: Some(bad), error }) => {
                damaged.push(error.to_string());
                opened.retain(|source| source.id != bad);
            }
            Err(Failed { bad: None, error }) => return Err(*error),
        }
    }
    Ok(None)
}

fn copy(
    inner: &Inner,
    session: SessionId,
    kind: SegmentKind,
    sources: &[Source],
    live: &Live,
) -> std::result::Result<Carried, Failed> {
    let births: Vec<Birth> = sources.iter().flat_map(|s| s.births.iter().copied()).collect();
    let ids: Vec<SegmentId> = births.iter().map(|b| b.segment).collect();
    let mut writer = CarrierWriter::create(inner.objects.as_ref(), &inner.keys, kind, session, births)?;
    let carrier = writer.id();
    let copied = fill(&mut writer, sources, live).and_then(|()| Ok(writer.seal()?));
    let checked = copied.and_then(|sealed| Ok((check(inner, &sealed, sources, live)?, sealed)));
    match checked {
        Ok((frame_bytes, sealed)) => Ok(Carried {
            carrier,
            births: ids,
            sources: sources.iter().map(|s| s.id).collect(),
            bytes: sealed.bytes,
            frame_bytes,
        }),
        Err(failed) => {
            // What can't be removed now is an orphan, which the next run knows.
            if let Ok(name) = ObjectName::new(names::segment(carrier)) {
                let _ = inner.objects.delete(&name);
            }
            Err(failed)
        }
    }
}

/// The live frames of a source that it holds itself.
fn live_frames<'s>(source: &'s Source, live: &'s Live) -> impl Iterator<Item = &'s FooterEntry> {
    source.view.footer().entries.iter().filter(|entry| {
        let address = source.view.address(entry);
        address.is_some_and(|a| live.has(a) && source.births.iter().any(|b| b.segment == a.segment))
    })
}

fn fill(writer: &mut CarrierWriter, sources: &[Source], live: &Live) -> std::result::Result<(), Failed> {
    for source in sources {
        for entry in live_frames(source, live) {
            writer.carry(&source.view, entry).map_err(|error| Failed {
                bad: Some(source.id).filter(|_| error.is_damage()),
                error: Box::new(error),
            })?;
        }
    }
    Ok(())
}

/// Looks at the carrier as a reader would: every live frame is in it. Gives the bytes of its frames.
fn check(
    inner: &Inner,
    sealed: &SealedSegment,
    sources: &[Source],
    live: &Live,
) -> std::result::Result<u64, Failed> {
    let view = inner.cache.object(sealed.id)?;
    let wrong = || Failed::from(Error::SelfCheck { what: "a compacted segment" });
    let mut bytes = 0;
    let mut frames = 0_usize;
    for source in sources {
        for entry in live_frames(source, live) {
            let found = source.view.address(entry).and_then(|a| view.entry(a)).ok_or_else(wrong)?;
            let same = FooterEntry { offset: entry.offset, birth: entry.birth, ..*found };
            if same != *entry {
                return Err(wrong());
            }
            frames += 1;
            bytes += holdfast_format::segment::FRAME_HEADER_BYTES as u64 + u64::from(entry.stored_len);
        }
    }
    if frames != view.footer().entries.len() {
        return Err(wrong());
    }
    Ok(bytes)
}
