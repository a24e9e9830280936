//! What a commit does beyond the usual: a map that no single segment holds, a fact that one wanted backup of a server may
//! have at most, a record as long as one may be.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use common::{create, draft, objects, open};
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::limits::{RECORD_BODY_MAX, SEGMENT_BYTES};
use holdfast_format::map::FileKind;
use holdfast_format::record::{Record, ReportRecord};
use holdfast_io::SimDisk;
use holdfast_store::{BackupDraft, BackupWriter, Error, FileSpec};

/// Links whose targets, together, are longer than a segment and can't be compressed.
const LINKS: u64 = 17_500;
const TARGET_BYTES: usize = 4000;

fn target(seed: u64) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(TARGET_BYTES);
    while bytes.len() < TARGET_BYTES {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        // A target has no zero byte.
        bytes.extend(state.to_le_bytes().map(|byte| byte.max(1)));
    }
    bytes
}

#[test]
fn a_map_that_no_segment_holds_lies_in_two_of_them() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let writer = repository.begin_backup(None).unwrap();
    for n in 0..LINKS {
        let kind = FileKind::Symlink { target: target(n) };
        let path = format!("link{n}").into_bytes();
        writer.add_file(FileSpec { path, kind, len: 0, mode: 0o777, mtime_us: 7 }).unwrap();
    }
    let id = writer.commit(draft()).unwrap().id;
    drop(repository);
    let objects = objects(&disk);
    let lens: Vec<u64> =
        objects.list("segments/").unwrap().iter().map(|name| objects.len(name).unwrap()).collect();
    assert_eq!(lens.len(), 2, "{lens:?}");
    // A segment ends with the frame that fills it; a leaf, a footer and the parity are far from half of it.
    assert!(lens.iter().all(|len| *len < SEGMENT_BYTES * 3 / 2), "{lens:?}");
    assert!(lens.iter().any(|len| *len >= SEGMENT_BYTES), "{lens:?}");

    let repository = open(&disk).unwrap();
    let reader = repository.open_backup(id).unwrap();
    assert_eq!(reader.files().len() as u64, LINKS);
    for (n, file) in reader.files().enumerate() {
        assert_eq!(file.path, format!("link{n}").as_bytes());
        assert!(file.kind == FileKind::Symlink { target: target(n as u64) }, "the target of link{n}");
    }
}

/// Commits a backup of a server with this value of the fact `name`, if any, which must be its own.
fn named(writer: BackupWriter, server: u8, name: Option<&str>) -> Result<BackupId, Error> {
    let mut facts = vec![("other".to_owned(), "x".to_owned())];
    facts.extend(name.map(|name| ("name".to_owned(), name.to_owned())));
    let draft = BackupDraft { server: ServerId([server; 16]), facts, ..draft() };
    common::put_file(&writer, "file", b"content");
    writer.commit_unique(draft, "name").map(|record| record.id)
}

#[test]
fn a_fact_that_must_be_a_backups_own_is_one_wanted_backups_of_each_server() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let begin = || repository.begin_backup(None).unwrap();
    // One that has begun, in another process, before there is any.
    let slow = open(&disk).unwrap().begin_backup(None).unwrap();
    let first = named(begin(), 7, Some("x")).unwrap();
    // Another server's, another value, and none at all.
    named(begin(), 8, Some("x")).unwrap();
    named(begin(), 7, Some("y")).unwrap();
    for _ in 0..2 {
        named(begin(), 7, None).unwrap();
    }
    let count = repository.backups().len();
    for writer in [begin(), slow] {
        match named(writer, 7, Some("x")).unwrap_err() {
            Error::FactTaken { value, by } => assert_eq!((value.as_str(), by), ("x", first)),
            error => panic!("{error}"),
        }
    }
    assert_eq!(repository.backups().len(), count, "what is refused is not listed");
    repository.forget(first, "the name is wanted").unwrap();
    named(begin(), 7, Some("x")).unwrap();
}

#[test]
fn a_record_is_as_long_as_the_limit_and_not_a_byte_longer() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let report = |len: usize| {
        let (backup, kind) = (BackupId([3; 16]), "drill".to_owned());
        Record::Report(ReportRecord { backup, kind, at_us: 1, json: vec![b' '; len] })
    };
    let longest = RECORD_BODY_MAX as usize - report(0).encode(1).len();
    let count = repository.records().len();
    let refused = repository.append(report(longest + 1)).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains(&RECORD_BODY_MAX.to_string()), "{refused}");
    repository.append(report(longest)).unwrap();
    drop(repository);
    let repository = open(&disk).unwrap();
    assert!(repository.damage().is_none());
    assert_eq!(repository.records().len(), count + 1);
    assert!(repository.records()[count].record == report(longest));
    // And something follows it.
    repository.append(report(1)).unwrap();
}
