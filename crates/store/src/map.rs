//! Maps at work: reading one whole, and writing one for a commit.

use std::collections::HashMap;
use std::sync::Arc;

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::{FILES_MAX, MAP_FRAME_BYTES};
use holdfast_format::map::{
    FileEntry, FileKind, MapLeaf, MapPart, MapRoot, MapSegment, MapSegments, Place, Run, RunKind,
};
use holdfast_format::path_tree::PathTree;
use holdfast_format::segment::FrameKind;

use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::segment::FooterCache;

/// Runs of a part at most: ten bytes each stay well below the aimed size of a leaf.
const PART_RUNS_MAX: usize = 32 * 1024;

/// One file of a loaded map.
#[derive(Debug)]
pub(crate) struct MappedFile {
    pub(crate) entry: FileEntry,
    /// First block and run, in order; what no run covers is a hole.
    runs: Vec<(u32, Run)>,
}

impl MappedFile {
    /// What a block is.
    pub(crate) fn block(&self, block: u32) -> RunKind {
        let at = self.runs.partition_point(|(first, _)| *first <= block);
        let Some((first, run)) = at.checked_sub(1).and_then(|at| self.runs.get(at)) else {
            return RunKind::Hole;
        };
        let skip = block - first;
        if skip < run.count { run.skip(skip).kind } else { RunKind::Hole }
    }

    /// First block and run, in order.
    pub(crate) fn runs(&self) -> &[(u32, Run)] {
        &self.runs
    }
}

/// A map in memory.
#[derive(Debug)]
pub(crate) struct LoadedMap {
    pub(crate) files: Vec<MappedFile>,
    pub(crate) segments: Vec<MapSegment>,
}

impl LoadedMap {
    /// Reads a map.
    pub(crate) fn load(cache: &FooterCache, root_address: Address) -> Result<Self> {
        let mut coder = Coder::new()?;
        let (root, segments) = load_segments(cache, &mut coder, root_address)?;
        let mut files: Vec<MappedFile> = Vec::new();
        for leaf in &root.leaves {
            let plain = read_frame(cache, &mut coder, *leaf, FrameKind::MapLeaf)?;
            let leaf_name = || format!("the map leaf {leaf}");
            for part in MapLeaf::decode(&plain).map_err(Error::format(leaf_name()))?.parts {
                take_part(&mut files, part, &segments)
                    .map_err(|why| Error::damaged(leaf_name(), "a part", why))?;
            }
        }
        let mut tree = PathTree::default();
        for MappedFile { entry, .. } in &files {
            let folder = entry.kind == FileKind::Directory;
            tree.add(&entry.path, folder).map_err(|why| {
                let path = String::from_utf8_lossy(&entry.path).into_owned();
                Error::damaged(format!("the map {root_address}"), format!("the path {path:?}"), why)
            })?;
        }
        if files.len() != root.files as usize {
            let why = format!("the root names {} files, the leaves {}", root.files, files.len());
            return Err(Error::damaged(format!("the map {root_address}"), "its root", why));
        }
        Ok(Self { files, segments })
    }

    /// The address that a place stands for.
    pub(crate) fn address(&self, place: Place) -> Option<Address> {
        self.segments.get(place.segment as usize).map(|s| Address { segment: s.segment, slot: place.slot })
    }
}

fn read_frame(cache: &FooterCache, coder: &mut Coder, address: Address, kind: FrameKind) -> Result<Vec<u8>> {
    let found = cache.locate(address)?;
    if found.entry.kind != kind {
        let why = format!("a frame of kind {} was expected", kind.code());
        return Err(Error::damaged(found.view.name(), format!("slot {}", address.slot), why));
    }
    cache.read(coder, address)
}

/// Reads root and table of a map only.
pub(crate) fn load_segments(
    cache: &FooterCache,
    coder: &mut Coder,
    root_address: Address,
) -> Result<(MapRoot, Vec<MapSegment>)> {
    let plain = read_frame(cache, coder, root_address, FrameKind::MapRoot)?;
    let name = || format!("the map {root_address}");
    let root = MapRoot::decode(&plain).map_err(Error::format(name()))?;
    let mut segments = Vec::new();
    for table in &root.tables {
        let plain = read_frame(cache, coder, *table, FrameKind::MapSegments)?;
        let table = MapSegments::decode(&plain).map_err(Error::format(name()))?;
        if table.first as usize != segments.len() {
            return Err(Error::damaged(name(), "its table of segments", "the parts are not in order"));
        }
        segments.extend(table.segments);
    }
    if segments.len() != root.segments as usize {
        return Err(Error::damaged(name(), "its table of segments", "it is not complete"));
    }
    Ok((root, segments))
}

/// Hands every address that a map needs to `each`, as first one and count: its own frames, blocks, and their bases.
pub(crate) fn each_address(
    cache: &FooterCache,
    coder: &mut Coder,
    root_address: Address,
    each: &mut dyn FnMut(Address, u32),
) -> Result<()> {
    let (root, segments) = load_segments(cache, coder, root_address)?;
    each(root_address, 1);
    for frame in root.tables.iter().chain(&root.leaves) {
        each(*frame, 1);
    }
    for leaf in &root.leaves {
        let plain = read_frame(cache, coder, *leaf, FrameKind::MapLeaf)?;
        let leaf_name = || format!("the map leaf {leaf}");
        for part in MapLeaf::decode(&plain).map_err(Error::format(leaf_name()))?.parts {
            for run in part.runs {
                let RunKind::Data { first, base, .. } = run.kind else { continue };
                for place in std::iter::once(first).chain(base) {
                    let Some(segment) = segments.get(place.segment as usize) else {
                        let why = "it names a segment that the table lacks";
                        return Err(Error::damaged(leaf_name(), "a run", why));
                    };
                    each(Address { segment: segment.segment, slot: place.slot }, run.count);
                }
            }
        }
    }
    Ok(())
}

fn take_part(
    files: &mut Vec<MappedFile>,
    part: MapPart,
    segments: &[MapSegment],
) -> std::result::Result<(), &'static str> {
    if let Some(entry) = part.entry {
        if part.file as usize != files.len() || files.len() >= FILES_MAX as usize {
            return Err("files are not in order");
        }
        files.push(MappedFile { entry, runs: Vec::new() });
    }
    let count = files.len();
    let file =
        files.last_mut().filter(|_| part.file as usize + 1 == count).ok_or("a file has no first part")?;
    let mut at = part.first_block;
    if file.runs.last().is_some_and(|(first, run)| first.saturating_add(run.count) > at) {
        return Err("blocks are not in order");
    }
    for run in part.runs {
        let end = at.checked_add(run.count).ok_or("a block's number is too large")?;
        if u64::from(end) > file.entry.blocks() {
            return Err("a file has more blocks than its length allows");
        }
        if let RunKind::Data { first, base, .. } = run.kind {
            let known = |p: Place| (p.segment as usize) < segments.len();
            if !known(first) || base.is_some_and(|b| !known(b)) {
                return Err("a run names a segment that the table lacks");
            }
        }
        file.runs.push((at, run));
        at = end;
    }
    Ok(())
}

/// The frames of a map, made in order; `put` stores one and gives its address.
pub(crate) struct MapBuilder<'a> {
    put: &'a mut dyn FnMut(FrameKind, &[u8]) -> Result<Address>,
    leaf: MapLeaf,
    leaf_bytes: usize,
    root: MapRoot,
    references: Vec<u32>,
    tree: PathTree,
}

impl<'a> MapBuilder<'a> {
    pub(crate) fn new(put: &'a mut dyn FnMut(FrameKind, &[u8]) -> Result<Address>, segments: usize) -> Self {
        let root = MapRoot {
            files: 0,
            logical_bytes: 0,
            data_blocks: 0,
            zero_blocks: 0,
            hole_blocks: 0,
            segments: u32::try_from(segments).unwrap_or(u32::MAX),
            tables: Vec::new(),
            leaves: Vec::new(),
        };
        let (leaf, references) = (MapLeaf::default(), vec![0; segments]);
        Self { put, leaf, leaf_bytes: 0, root, references, tree: PathTree::default() }
    }

    /// Adds the next file.
    pub(crate) fn file(&mut self, entry: FileEntry, runs: &[Run]) -> Result<()> {
        self.tree.add(&entry.path, entry.kind == FileKind::Directory).map_err(|why| {
            let path = String::from_utf8_lossy(&entry.path).into_owned();
            Error::Refused {
                op: "commit the backup",
                why: format!("{path:?} can't be restored: {why}; rename it at the source, and back up again"),
            }
        })?;
        let file = self.root.files;
        self.root.files += 1;
        self.root.logical_bytes += entry.len;
        let mut covered = 0_u64;
        for run in runs {
            covered += u64::from(run.count);
            self.count(run);
        }
        self.root.hole_blocks += entry.blocks().saturating_sub(covered);
        let mut head = Some(entry);
        let mut first_block = 0_u32;
        let mut chunks = runs.chunks(PART_RUNS_MAX);
        loop {
            let chunk = chunks.next().unwrap_or(&[]);
            if chunk.is_empty() && head.is_none() {
                return Ok(());
            }
            let bytes = head.as_ref().map_or(0, head_bytes) + chunk.len() * 12 + 16;
            if self.leaf_bytes + bytes > MAP_FRAME_BYTES as usize && !self.leaf.parts.is_empty() {
                self.flush()?;
            }
            self.leaf_bytes += bytes;
            self.leaf.parts.push(MapPart { file, entry: head.take(), first_block, runs: chunk.to_vec() });
            first_block = chunk.iter().fold(first_block, |at, run| at.saturating_add(run.count));
        }
    }

    fn count(&mut self, run: &Run) {
        match run.kind {
            RunKind::Hole => self.root.hole_blocks += u64::from(run.count),
            RunKind::Zero => self.root.zero_blocks += u64::from(run.count),
            RunKind::Data { first, base, .. } => {
                self.root.data_blocks += u64::from(run.count);
                for place in std::iter::once(first).chain(base) {
                    if let Some(n) = self.references.get_mut(place.segment as usize) {
                        *n = n.saturating_add(run.count);
                    }
                }
            }
        }
    }

    fn flush(&mut self) -> Result<()> {
        let leaf = std::mem::take(&mut self.leaf);
        self.leaf_bytes = 0;
        let bytes = leaf.encode();
        if MapLeaf::decode(&bytes).ok().as_ref() != Some(&leaf) {
            return Err(Error::SelfCheck { what: "a map leaf" });
        }
        let address = (self.put)(FrameKind::MapLeaf, &bytes)?;
        self.root.leaves.push(address);
        Ok(())
    }

    /// Ends the map; gives its root and the root's address.
    pub(crate) fn finish(mut self, segments: &[(SegmentId, bool)]) -> Result<(MapRoot, Address)> {
        if !self.leaf.parts.is_empty() {
            self.flush()?;
        }
        let per_table = (MAP_FRAME_BYTES / 21) as usize;
        let mut first = 0_u32;
        for (at, chunk) in segments.chunks(per_table).enumerate() {
            let references = self.references.iter().skip(at * per_table);
            let list = chunk.iter().zip(references);
            let segments = list
                .map(|((segment, own), references)| MapSegment {
                    segment: *segment,
                    references: *references,
                    own: *own,
                })
                .collect();
            let table = MapSegments { first, segments };
            first = first.saturating_add(u32::try_from(chunk.len()).unwrap_or(u32::MAX));
            let address = (self.put)(FrameKind::MapSegments, &table.encode())?;
            self.root.tables.push(address);
        }
        let bytes = self.root.encode();
        if MapRoot::decode(&bytes).ok().as_ref() != Some(&self.root) {
            return Err(Error::SelfCheck { what: "a map's root" });
        }
        let address = (self.put)(FrameKind::MapRoot, &bytes)?;
        Ok((self.root, address))
    }
}

/// About how many bytes a file's first part takes in a leaf, its runs not counted.
fn head_bytes(entry: &FileEntry) -> usize {
    let target = match &entry.kind {
        FileKind::Symlink { target } => target.len(),
        _ => 0,
    };
    entry.path.len() + target + 40
}

/// The parent of a backup, by path.
#[derive(Debug)]
pub(crate) struct Parent {
    pub(crate) map: Arc<LoadedMap>,
    by_path: HashMap<Vec<u8>, u32>,
}

impl Parent {
    pub(crate) fn new(map: Arc<LoadedMap>) -> Self {
        let paths = map.files.iter().enumerate();
        let by_path =
            paths.filter_map(|(at, f)| Some((f.entry.path.clone(), u32::try_from(at).ok()?))).collect();
        Self { map, by_path }
    }

    pub(crate) fn file(&self, path: &[u8]) -> Option<u32> {
        self.by_path.get(path).copied()
    }
}
