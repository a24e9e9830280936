//! What the decoders of maps and of notes refuse: a value at its limit is read, one beyond it is not.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

use holdfast_format::Error;
use holdfast_format::ids::*;
use holdfast_format::limits::*;
use holdfast_format::log_meta::LogMeta;
use holdfast_format::map::*;

const SEGMENT: SegmentId = SegmentId([2; 16]);

/// These bytes with others at a place.
fn with(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at..at + new.len()].copy_from_slice(new);
    out
}

fn file(kind: FileKind, len: u64) -> FileEntry {
    FileEntry { path: b"a".to_vec(), kind, len, mode: 0o640, mtime_us: 1, state: None }
}

fn leaf(file_number: u32, entry: Option<FileEntry>, first_block: u32, runs: Vec<Run>) -> MapLeaf {
    MapLeaf { parts: vec![MapPart { file: file_number, entry, first_block, runs }] }
}

#[test]
fn a_leaf_holds_files_blocks_and_slots_within_their_limits() {
    let reads = |leaf: MapLeaf| MapLeaf::decode(&leaf.encode()).is_ok_and(|read| read == leaf);
    let run = |count, kind| Run { count, kind };
    let data = |segment, slot, depth: u8| RunKind::Data {
        first: Place { segment, slot },
        depth,
        base: (depth > 0).then_some(Place { segment, slot }),
    };
    for (leaf, good, why) in [
        (leaf(FILES_MAX - 1, None, 0, vec![]), true, "the last file"),
        (leaf(FILES_MAX, None, 0, vec![]), false, "one file more"),
        (leaf(0, Some(file(FileKind::Regular, FILE_BYTES_MAX)), 0, vec![]), true, "the longest file"),
        (leaf(0, Some(file(FileKind::Regular, FILE_BYTES_MAX + 1)), 0, vec![]), false, "a longer one"),
        (leaf(0, Some(file(FileKind::Directory, 0)), 0, vec![]), true, "a folder"),
        (leaf(0, Some(file(FileKind::Directory, 1)), 0, vec![]), false, "a folder with a length"),
        (leaf(0, None, u32::MAX - 1, vec![run(1, RunKind::Hole)]), true, "the last block"),
        (leaf(0, None, u32::MAX - 1, vec![run(2, RunKind::Hole)]), false, "a block more"),
        (
            leaf(0, None, 0, vec![run(u32::MAX, RunKind::Zero), run(1, RunKind::Hole)]),
            false,
            "two runs too long",
        ),
        (leaf(0, None, 0, vec![run(0, RunKind::Zero)]), false, "an empty run"),
        (leaf(0, None, 0, vec![run(1, data(MAP_SEGMENTS_MAX - 1, 0, 0))]), true, "the last segment"),
        (leaf(0, None, 0, vec![run(1, data(MAP_SEGMENTS_MAX, 0, 0))]), false, "a segment more"),
        (leaf(0, None, 0, vec![run(1, data(0, SLOTS_MAX - 1, 0))]), true, "the last slot"),
        (leaf(0, None, 0, vec![run(1, data(0, SLOTS_MAX, 0))]), false, "a slot more"),
        (leaf(0, None, 0, vec![run(2, data(0, SLOTS_MAX - 1, 0))]), false, "a run beyond the last slot"),
        (leaf(0, None, 0, vec![run(1, data(0, 0, DEPTH_MAX))]), true, "the deepest delta"),
        (leaf(0, None, 0, vec![run(1, data(0, 0, DEPTH_MAX + 1))]), false, "a deeper one"),
    ] {
        assert_eq!(reads(leaf), good, "{why}");
    }
    let bytes = leaf(0, None, 0, vec![run(1, RunKind::Hole)]).encode();
    assert!(MapLeaf::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "a byte more");
    let runs = bytes.len() - 3;
    assert_eq!(bytes[runs], 1, "the number of runs");
    assert!(
        matches!(MapLeaf::decode(&with(&bytes, runs, &[2])), Err(Error::TooLarge { .. })),
        "more runs than bytes"
    );
}

#[test]
fn paths_stay_below_the_folder_that_is_restored_to() {
    let long = vec![b'a'; PATH_BYTES_MAX as usize];
    for good in [&b"a"[..], b"a/b.c", b"..a/.b", b"a..", &long] {
        assert_eq!(FileEntry::path_flaw(good), None, "{}", String::from_utf8_lossy(good));
        let entry = FileEntry { path: good.to_vec(), ..file(FileKind::Regular, 0) };
        assert!(MapLeaf::decode(&leaf(0, Some(entry), 0, vec![]).encode()).is_ok());
    }
    let longer = vec![b'a'; PATH_BYTES_MAX as usize + 1];
    for bad in [&b""[..], b"/a", b"a/", b"a//b", b".", b"..", b"a/../b", b"a/./b", b"a\0b", &longer] {
        assert!(FileEntry::path_flaw(bad).is_some(), "{}", String::from_utf8_lossy(bad));
        let entry = FileEntry { path: bad.to_vec(), ..file(FileKind::Regular, 0) };
        assert!(MapLeaf::decode(&leaf(0, Some(entry), 0, vec![]).encode()).is_err());
    }
    let block = u64::from(BLOCK_BYTES);
    let blocks = |len| file(FileKind::Regular, len).blocks();
    assert_eq!((blocks(0), blocks(1), blocks(block), blocks(block + 1), blocks(5 * block)), (0, 1, 1, 2, 5));
}

#[test]
fn blocks_that_follow_each_other_are_one_run() {
    let place = |slot| Place { segment: 1, slot };
    let data = |slot, base: Option<u32>| RunKind::Data {
        first: place(slot),
        depth: u8::from(base.is_some()),
        base: base.map(place),
    };
    let mut runs = Vec::new();
    let blocks =
        [data(4, None), data(5, None), data(7, None), data(8, Some(2)), data(9, Some(3)), data(10, Some(3))];
    for kind in blocks.into_iter().chain([RunKind::Hole, RunKind::Hole, RunKind::Zero]) {
        push_block(&mut runs, kind);
    }
    let counts: Vec<u32> = runs.iter().map(|run| run.count).collect();
    assert_eq!(counts, [2, 1, 2, 1, 2, 1]);
    assert_eq!(runs[2].skip(1), Run { count: 1, kind: data(9, Some(3)) });
    assert!(runs[0].continues(&data(6, None)) && !runs[0].continues(&data(5, None)));
    let mut full = vec![Run { count: u32::MAX - 1, kind: RunKind::Hole }];
    push_block(&mut full, RunKind::Hole);
    push_block(&mut full, RunKind::Hole);
    assert_eq!(full.iter().map(|run| run.count).collect::<Vec<_>>(), [u32::MAX, 1]);
}

#[test]
fn the_root_of_a_map_and_its_tables_keep_within_their_limits() {
    let address = |slot| Address { segment: SEGMENT, slot };
    let root = MapRoot {
        files: 1,
        logical_bytes: 2,
        data_blocks: 3,
        zero_blocks: 4,
        hole_blocks: 5,
        segments: 6,
        tables: vec![address(0)],
        leaves: vec![address(1)],
    };
    let reads = |root: &MapRoot| MapRoot::decode(&root.encode()).is_ok_and(|read| read == *root);
    for (root, good, why) in [
        (MapRoot { files: FILES_MAX, ..root.clone() }, true, "all files"),
        (MapRoot { files: FILES_MAX + 1, ..root.clone() }, false, "a file more"),
        (MapRoot { segments: MAP_SEGMENTS_MAX, ..root.clone() }, true, "all segments"),
        (MapRoot { segments: MAP_SEGMENTS_MAX + 1, ..root.clone() }, false, "a segment more"),
        (MapRoot { leaves: vec![address(SLOTS_MAX - 1)], ..root.clone() }, true, "the last slot"),
        (MapRoot { leaves: vec![address(SLOTS_MAX)], ..root.clone() }, false, "a slot more"),
    ] {
        assert_eq!(reads(&root), good, "{why}");
    }
    assert!(MapRoot::decode(&[root.encode().as_slice(), &[0]].concat()).is_err(), "a byte more");
    assert!(
        MapRoot::decode(&with(&root.encode(), 4, &4096_u32.to_le_bytes())).is_err(),
        "another size of blocks"
    );

    let table = |first| MapSegments {
        first,
        segments: vec![MapSegment { segment: SEGMENT, references: 1, own: true }],
    };
    let reads = |first| MapSegments::decode(&table(first).encode()).is_ok_and(|read| read == table(first));
    assert!(reads(0) && reads(MAP_SEGMENTS_MAX - 1) && !reads(MAP_SEGMENTS_MAX));
    let bytes = table(0).encode();
    assert!(MapSegments::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "a byte more");
    assert!(MapSegments::decode(&with(&bytes, bytes.len() - 1, &[2])).is_err(), "a flag of 2");
}

#[test]
fn an_interval_of_no_loss_does_not_end_before_it_begins() {
    let reads =
        |from_us, until_us| LogMeta::decode(&LogMeta::ZeroLoss { from_us, until_us }.encode()).is_ok();
    assert!(reads(5, 5) && reads(5, 6) && !reads(5, 4));
    assert!(LogMeta::decode(&[LogMeta::Complete { at_us: 1 }.encode().as_slice(), &[0]].concat()).is_err());
}
