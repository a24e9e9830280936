//! Cutting a window of blocks into stretches of segments, in the order they lie there.
//!
//! Of a delta, what is read in a stretch is the whole block at the end of its chain ([`Roots`]): that is where the bytes
//! are. The deltas above it are read one by one, and lie close to each other.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::DEPTH_MAX;
use holdfast_format::map::RunKind;
use holdfast_format::segment::{FRAME_HEADER_BYTES, FooterEntry};
use holdfast_io::{DIRECT_ALIGNMENT, File};

use super::Task;
use crate::error::{Error, Result};
use crate::reader::BackupReader;
use crate::segment::SegmentView;

/// A stretch of a segment that is read at once, and the blocks in it by where they lie.
#[derive(Debug)]
pub(super) struct Span {
    pub(super) view: Arc<SegmentView>,
    /// The segment, where its place has files; open for as long as spans of it are under way.
    pub(super) file: Option<Arc<dyn File>>,
    /// A multiple of [`DIRECT_ALIGNMENT`], as the length is: so it may be read past the page cache.
    pub(super) start: u64,
    pub(super) len: u32,
    pub(super) blocks: Vec<(FooterEntry, Task)>,
}

impl Span {
    /// The frame of a block within the bytes that were read; empty if it is not in there.
    pub(super) fn frame<'b>(&self, entry: &FooterEntry, bytes: &'b [u8]) -> &'b [u8] {
        let at = u64::from(entry.offset).checked_sub(self.start).and_then(|at| usize::try_from(at).ok());
        let len = FRAME_HEADER_BYTES + entry.stored_len as usize;
        at.and_then(|at| bytes.get(at..at.checked_add(len)?)).unwrap_or(&[])
    }
}

/// The segments that whole blocks lie in, numbered: those of the map first, in its order.
#[derive(Debug)]
pub(super) struct Roots {
    segments: Vec<SegmentId>,
    numbers: HashMap<SegmentId, u32>,
}

impl Roots {
    /// The segments of the map.
    pub(super) fn new(reader: &BackupReader) -> Self {
        Self { segments: reader.map.segments.iter().map(|s| s.segment).collect(), numbers: HashMap::new() }
    }

    /// Where a task's block lies whole: in its own frame, or at the end of its chain of deltas. A chain that can't be
    /// followed leaves the task as it is; whoever reads the block finds out why.
    pub(super) fn find(&mut self, reader: &BackupReader, task: Task) -> Task {
        let Some(file) = reader.map.files.get(task.file as usize) else { return task };
        match file.block(task.block) {
            RunKind::Data { depth: 1, base: Some(base), .. } => {
                Task { segment: base.segment, slot: base.slot, ..task }
            }
            RunKind::Data { depth: 2.., base: Some(base), .. } => {
                let root = reader.map.address(base).and_then(|base| end_of_chain(reader, base));
                let at = root.and_then(|root| Some((self.number(root.segment)?, root.slot)));
                at.map_or(task, |(segment, slot)| Task { segment, slot, ..task })
            }
            _ => task,
        }
    }

    fn number(&mut self, segment: SegmentId) -> Option<u32> {
        if let Some(number) = self.numbers.get(&segment) {
            return Some(*number);
        }
        let known = self.segments.iter().position(|s| *s == segment);
        let number = known.unwrap_or_else(|| {
            self.segments.push(segment);
            self.segments.len() - 1
        });
        let number = u32::try_from(number).ok()?;
        self.numbers.insert(segment, number);
        Some(number)
    }
}

/// The frame at the end of the chain that begins here.
fn end_of_chain(reader: &BackupReader, first: Address) -> Option<Address> {
    let mut address = first;
    for _ in 0..DEPTH_MAX {
        match reader.inner.cache.locate(address).ok()?.entry.base {
            Some(base) => address = base,
            None => return Some(address),
        }
    }
    None
}

/// Where the blocks of one segment lie, and which of them were handed out.
#[derive(Debug)]
struct Group {
    view: Arc<SegmentView>,
    file: Option<Arc<dyn File>>,
    wanted: std::iter::Peekable<std::vec::IntoIter<(FooterEntry, Task)>>,
}

/// Hands out the spans of a window one by one; a segment's footer is read when its first span is asked for.
pub(super) struct Spans<'w> {
    reader: &'w BackupReader,
    roots: &'w Roots,
    /// Sorted by segment.
    rest: &'w [Task],
    group: Option<Group>,
    span_bytes: u32,
}

impl<'w> Spans<'w> {
    /// The spans of these blocks, none longer than `span_bytes`.
    pub(super) fn new(
        reader: &'w BackupReader,
        roots: &'w Roots,
        sorted: &'w [Task],
        span_bytes: u32,
    ) -> Self {
        Self { reader, roots, rest: sorted, group: None, span_bytes }
    }

    /// The next span.
    pub(super) fn next(&mut self) -> Result<Option<Span>> {
        loop {
            if let Some(group) = &mut self.group
                && let Some(first) = group.wanted.next()
            {
                return self.span(first).map(Some);
            }
            let Some(first) = self.rest.first() else { return Ok(None) };
            let count = self.rest.iter().take_while(|t| t.segment == first.segment).count();
            let (tasks, after) = self.rest.split_at_checked(count).unwrap_or((self.rest, &[]));
            self.rest = after;
            self.group = Some(self.group(first, tasks)?);
        }
    }

    fn group(&self, first: &Task, tasks: &[Task]) -> Result<Group> {
        let blame = |task: &Task, e| self.reader.blame(task.file, task.block, e);
        let segment = self.roots.segments.get(first.segment as usize).copied();
        let segment =
            segment.ok_or_else(|| blame(first, Error::damaged("map", "a run", "it names no segment")))?;
        let view = self.reader.inner.cache.view(segment).map_err(|e| blame(first, e))?;
        let mut wanted: Vec<(FooterEntry, Task)> = Vec::with_capacity(tasks.len());
        for task in tasks {
            let entry = view.entry(Address { segment, slot: task.slot }).copied().ok_or_else(|| {
                let place = format!("slot {}", task.slot);
                blame(task, Error::damaged(view.name(), place, "its footer lists no such frame"))
            })?;
            wanted.push((entry, *task));
        }
        wanted.sort_unstable_by_key(|(entry, _)| entry.offset);
        let file = view.bulk_file().map_err(|e| blame(first, e))?;
        Ok(Group { view, file, wanted: wanted.into_iter().peekable() })
    }

    /// The span that begins with this block.
    fn span(&mut self, first: (FooterEntry, Task)) -> Result<Span> {
        let Some(group) = &mut self.group else {
            return Err(Error::SelfCheck { what: "the plan of a restore" });
        };
        let start = u64::from(first.0.offset) / DIRECT_ALIGNMENT * DIRECT_ALIGNMENT;
        let mut end = end_of(&first.0);
        let limit = start + u64::from(self.span_bytes);
        if end > limit {
            let place = format!("slot {}", first.0.slot);
            let why = "its frame is longer than that of any block";
            let e = Error::damaged(group.view.name(), place, why);
            return Err(self.reader.blame(first.1.file, first.1.block, e));
        }
        let mut blocks = vec![first];
        while let Some(next) = group.wanted.next_if(|(entry, _)| end_of(entry) <= limit) {
            end = end.max(end_of(&next.0));
            blocks.push(next);
        }
        // Not past the limit, which is a multiple as well; a segment ends with whole pages.
        let end = end.next_multiple_of(DIRECT_ALIGNMENT);
        let len = u32::try_from(end - start).unwrap_or(self.span_bytes);
        Ok(Span { view: Arc::clone(&group.view), file: group.file.clone(), start, len, blocks })
    }
}

fn end_of(entry: &FooterEntry) -> u64 {
    u64::from(entry.offset) + FRAME_HEADER_BYTES as u64 + u64::from(entry.stored_len)
}
