//! The maps of the backups: each file, each run, each block's address.

use std::collections::{HashMap, HashSet};

use holdfast_format::ids::{Address, SegmentId};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{
    FileEntry, FileKind, MapLeaf, MapPart, MapRoot, MapSegment, MapSegments, Place, Run, RunKind,
};
use holdfast_format::path_tree::PathTree;
use holdfast_format::record::BackupRecord;
use holdfast_format::segment::FrameKind;

use crate::findings::Findings;
use crate::reader::Reader;
use crate::report::{BackupVerdict, FILES_NAMED_MAX};

/// What a check of maps needs.
pub(crate) struct Maps<'a, 'r> {
    pub reader: &'a Reader<'r>,
    pub found: &'a Findings,
}

/// The walk through one map.
struct Walk<'a, 'r> {
    maps: &'a Maps<'a, 'r>,
    /// How the backup is named where it is affected by a flaw.
    label: String,
    table: Vec<MapSegment>,
    references: Vec<u64>,
    paths: PathTree,
    file: Option<(u32, FileEntry)>,
    next_block: u64,
    damaged: HashMap<u32, String>,
    verdict: BackupVerdict,
    counted: Counted,
}

#[derive(Debug, Default)]
struct Counted {
    files: u64,
    bytes: u64,
    data: u64,
    zero: u64,
    hole: u64,
}

impl Maps<'_, '_> {
    /// Follows a backup's map to every block.
    pub(crate) fn check(&self, backup: &BackupRecord, server: &str) -> BackupVerdict {
        let started = crate::text::time(backup.started_us);
        let verdict = BackupVerdict {
            id: backup.id.to_string(),
            server: server.to_owned(),
            started: started.clone(),
            files: backup.stats.files,
            bytes: backup.stats.logical_bytes,
            whole: true,
            damaged: Vec::new(),
            damaged_count: 0,
        };
        let mut walk = Walk {
            maps: self,
            label: format!("backup {} ({server}, {started})", backup.id),
            table: Vec::new(),
            references: Vec::new(),
            paths: PathTree::default(),
            file: None,
            next_block: 0,
            damaged: HashMap::new(),
            verdict,
            counted: Counted::default(),
        };
        let place = format!("the map of backup {}", backup.id);
        if let Some(root) = walk.frame(backup.map, FrameKind::MapRoot, &place, MapRoot::decode) {
            walk.root(&root, backup, &place);
        }
        walk.verdict
    }

    /// The segments that a map reaches, those of its own frames included. Damage is left to [`Maps::check`].
    pub(crate) fn reaches(&self, map: Address, into: &mut HashSet<SegmentId>) {
        into.insert(map.segment);
        let read = |at| self.reader.fetch(at).ok();
        let Some(root) = read(map).and_then(|plain| MapRoot::decode(&plain).ok()) else { return };
        into.extend(root.tables.iter().chain(&root.leaves).map(|at| at.segment));
        for table in root.tables.iter().filter_map(|at| read(*at)) {
            if let Ok(table) = MapSegments::decode(&table) {
                into.extend(table.segments.iter().filter(|s| s.references > 0).map(|s| s.segment));
            }
        }
    }
}

impl Walk<'_, '_> {
    /// Reads one frame of the map; a flaw here damages the whole backup.
    fn frame<T>(
        &mut self,
        at: Address,
        kind: FrameKind,
        place: &str,
        decode: impl FnOnce(&[u8]) -> holdfast_format::Result<T>,
    ) -> Option<T> {
        let there = self.maps.reader.index.frame(at);
        let read = match there {
            Some((found, _)) if found != kind => {
                Err(format!("{at} is a frame of kind {found:?}, not {kind:?}"))
            }
            _ => self.maps.reader.fetch(at).map_err(|w| format!("{at}: {}", w.what)),
        };
        match read.and_then(|plain| decode(&plain).map_err(|e| format!("{at}: {e}"))) {
            Ok(read) => {
                if let Some(no) = self.maps.found.of_frame(at) {
                    // It opens, but the segment around it is damaged: a restore that goes by the footer fails.
                    self.maps.found.affects(no, self.label.clone());
                    self.verdict.whole = false;
                }
                Some(read)
            }
            Err(what) => {
                let no = self.maps.found.of_frame(at);
                let no = no.unwrap_or_else(|| self.maps.found.flaw(place, None, what));
                self.maps
                    .found
                    .affects(no, format!("{}: its map, so all that this part of it names", self.label));
                self.verdict.whole = false;
                None
            }
        }
    }

    /// Something the map says is wrong.
    fn wrong(&mut self, place: &str, what: String) {
        let no = self.maps.found.flaw(place, None, what);
        self.maps.found.affects(no, self.label.clone());
        self.verdict.whole = false;
    }

    fn root(&mut self, root: &MapRoot, backup: &BackupRecord, place: &str) {
        let mut complete = true;
        for at in &root.tables {
            match self.frame(*at, FrameKind::MapSegments, place, MapSegments::decode) {
                Some(table) if table.first as usize == self.table.len() => self.table.extend(table.segments),
                Some(_) => {
                    self.wrong(
                        place,
                        format!("the table of segments in {at} does not follow the one before it"),
                    );
                    complete = false;
                }
                None => complete = false,
            }
        }
        if complete && self.table.len() != root.segments as usize {
            let (named, there) = (root.segments, self.table.len());
            self.wrong(place, format!("its root counts {named} segments, its tables hold {there}"));
        }
        self.references = vec![0; self.table.len()];
        for at in &root.leaves {
            match self.frame(*at, FrameKind::MapLeaf, place, MapLeaf::decode) {
                Some(leaf) => leaf.parts.iter().for_each(|part| self.part(part, place)),
                None => complete = false,
            }
        }
        self.end_file();
        if complete {
            self.totals(root, backup, place);
        }
        self.name_damaged();
    }

    fn part(&mut self, part: &MapPart, place: &str) {
        if let Some(entry) = &part.entry {
            self.end_file();
            let due = self.file.as_ref().map_or(0, |(n, _)| u64::from(*n) + 1);
            if u64::from(part.file) != due {
                // After a leaf that cannot be read, numbers go on behind it; then that leaf was reported.
                let after_hole = u64::from(part.file) > due && !self.verdict.whole;
                if !after_hole {
                    self.wrong(place, format!("file {} comes where file {due} should", part.file));
                }
            }
            if let Err(why) = self.paths.add(&entry.path, entry.kind == FileKind::Directory) {
                self.wrong(place, format!("the path {}: {why}", crate::text::path(&entry.path)));
            }
            self.counted.files = self.counted.files.saturating_add(1);
            self.counted.bytes = self.counted.bytes.saturating_add(entry.len);
            self.file = Some((part.file, entry.clone()));
            self.next_block = 0;
        }
        let Some((file, entry)) = self.file.clone().filter(|(n, _)| *n == part.file) else {
            if self.verdict.whole {
                self.wrong(place, format!("a part of file {} comes without that file", part.file));
            }
            return;
        };
        let first_block = u64::from(part.first_block);
        if first_block < self.next_block {
            let due = self.next_block;
            self.wrong(place, format!("blocks of file {file} go on at {first_block}, before {due}"));
            return;
        }
        // Blocks that no run covers are holes.
        self.counted.hole = self.counted.hole.saturating_add(first_block.saturating_sub(self.next_block));
        self.next_block = first_block;
        for run in &part.runs {
            self.run(file, &entry, run, place);
        }
    }

    fn run(&mut self, file: u32, entry: &FileEntry, run: &Run, place: &str) {
        let (first_block, count) = (self.next_block, u64::from(run.count));
        self.next_block = first_block.saturating_add(count);
        if self.next_block > entry.blocks() {
            let path = crate::text::path(&entry.path);
            self.wrong(
                place,
                format!("{path} has {} blocks, its runs go to {}", entry.blocks(), self.next_block),
            );
            return;
        }
        match run.kind {
            RunKind::Hole => self.counted.hole = self.counted.hole.saturating_add(count),
            RunKind::Zero => self.counted.zero = self.counted.zero.saturating_add(count),
            RunKind::Data { first, base, .. } => {
                self.counted.data = self.counted.data.saturating_add(count);
                for k in 0..run.count {
                    let block = first_block.saturating_add(u64::from(k));
                    self.block(file, entry, block, first, k, place);
                }
                for p in [Some(first), base].into_iter().flatten() {
                    if let Some(references) = self.references.get_mut(p.segment as usize) {
                        *references = references.saturating_add(count);
                    }
                }
            }
        }
    }

    /// One block: it must be there, and right.
    fn block(&mut self, file: u32, entry: &FileEntry, block: u64, first: Place, k: u32, place: &str) {
        let path = || crate::text::path(&entry.path);
        let Some(segment) = self.table.get(first.segment as usize).map(|s| s.segment) else {
            if self.verdict.whole {
                self.wrong(
                    place,
                    format!("{} names segment {} of a table that ends before", path(), first.segment),
                );
            }
            self.damaged.entry(file).or_insert_with(path);
            return;
        };
        let at = Address { segment, slot: first.slot.saturating_add(k) };
        // A block that is shorter than its place reads on as zeros, a longer one is cut: either is what was stored.
        let flaw = match (self.maps.found.of_frame(at), self.maps.reader.index.frame(at)) {
            (Some(no), _) => no,
            (None, Some((FrameKind::Block, len))) if (1..=BLOCK_BYTES).contains(&len) => return,
            (None, Some((kind, len))) => {
                let what = format!("block {block} of {} is a frame of {len} bytes of kind {kind:?}", path());
                self.maps.found.flaw(place, None, what)
            }
            (None, None) => {
                let what = format!("block {block} of {} should be the frame {at}, which is nowhere", path());
                self.maps.found.flaw(place, None, what)
            }
        };
        self.maps.found.affects_file(flaw, &self.label, &path());
        self.damaged.entry(file).or_insert_with(path);
        self.verdict.whole = false;
    }

    /// Blocks behind the last run are holes.
    fn end_file(&mut self) {
        if let Some((_, entry)) = &self.file {
            let rest = entry.blocks().saturating_sub(self.next_block);
            self.counted.hole = self.counted.hole.saturating_add(rest);
            self.next_block = entry.blocks();
        }
    }

    fn totals(&mut self, root: &MapRoot, backup: &BackupRecord, place: &str) {
        let c = &self.counted;
        let pairs = [
            ("files", u64::from(root.files), c.files),
            ("bytes", root.logical_bytes, c.bytes),
            ("blocks", root.data_blocks, c.data),
            ("blocks of zeros", root.zero_blocks, c.zero),
            ("blocks never written", root.hole_blocks, c.hole),
            ("files, by its record,", backup.stats.files, c.files),
            ("bytes, by its record,", backup.stats.logical_bytes, c.bytes),
        ];
        let mut wrong: Vec<String> = pairs
            .iter()
            .filter(|(_, said, counted)| said != counted)
            .map(|(noun, said, counted)| format!("it should have {said} {noun} and has {counted}"))
            .collect();
        for (segment, counted) in self.table.iter().zip(&self.references) {
            if u64::from(segment.references) != *counted {
                let (id, said) = (segment.segment, segment.references);
                wrong.push(format!(
                    "its table counts {said} references to segment {id}, its runs hold {counted}"
                ));
            }
        }
        for what in wrong {
            self.wrong(place, what);
        }
    }

    fn name_damaged(&mut self) {
        self.verdict.damaged_count = self.damaged.len() as u64;
        let mut files: Vec<_> = std::mem::take(&mut self.damaged).into_iter().collect();
        files.sort_unstable();
        self.verdict.damaged = files.into_iter().take(FILES_NAMED_MAX).map(|(_, path)| path).collect();
    }
}
