//! A small repository with everything in it, made by the store.
#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is the report"
)]

use std::sync::Arc;

use holdfast_fsck::{Options, Progress, Report, Scope, Secret, check};
use holdfast_io::{Directory, Objects, SimDisk};
use holdfast_store::format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_store::format::ids::{BackupId, SegmentId, ServerId};
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{
    Coordinates, LogRecord, Position, Record, ServerKind, ServerRecord, SourceKind, StreamKey,
};
use holdfast_store::{
    Argon2Cost, BackupDraft, CreateOptions, FileSpec, FixedClock, LogKind, OpenOptions, Repository,
};

pub const PASSPHRASE: &str = "correct horse battery staple";
pub const BLOCK: usize = 65_536;
pub const SERVER: ServerId = ServerId([7; 16]);

/// A file to back up: a block of `None` is never written.
pub struct Source {
    pub path: Vec<u8>,
    pub kind: FileKind,
    pub blocks: Vec<Option<Vec<u8>>>,
    pub mode: u32,
    pub mtime_us: i64,
}

impl Source {
    pub fn file(path: &str, blocks: Vec<Option<Vec<u8>>>) -> Self {
        let mtime_us = 1_700_000_000_000_000 + path.len() as i64;
        Self { path: path.into(), kind: FileKind::Regular, blocks, mode: 0o640, mtime_us }
    }

    pub fn folder(path: &str) -> Self {
        Self { kind: FileKind::Directory, mode: 0o750, ..Self::file(path, Vec::new()) }
    }

    pub fn link(path: &str, target: &str) -> Self {
        Self {
            kind: FileKind::Symlink { target: target.into() },
            mode: 0o777,
            ..Self::file(path, Vec::new())
        }
    }

    /// What a restore gives: all blocks but the last one are full.
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for block in &self.blocks {
            bytes.extend_from_slice(block.as_deref().unwrap_or(&[0; BLOCK]));
        }
        bytes
    }
}

/// Bytes that compress about as database pages do, different for each seed.
pub fn page_like(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|at| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if at % 16 == 0 { (state >> 32) as u8 } else { (at / 512) as u8 }
        })
        .collect()
}

/// Bytes that no codec makes shorter.
pub fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95) | 1;
    (0..len)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 24) as u8
        })
        .collect()
}

pub fn first_backup() -> Vec<Source> {
    vec![
        Source::folder("empty"),
        Source::folder("shop"),
        Source::file(
            "shop/orders.ibd",
            vec![
                Some(page_like(1, BLOCK)),
                Some(vec![0; BLOCK]),
                None,
                Some(page_like(2, BLOCK)),
                Some(page_like(3, 1234)),
            ],
        ),
        Source::file("shop/noise.bin", vec![Some(noise(4, 9000))]),
        Source::file("shop/nothing", vec![]),
        Source::file("shop/sparse.ibd", vec![None, None, Some(page_like(5, 1))]),
        Source::file("ib_buffer_pöol", vec![Some(b"short".to_vec())]),
        Source::link("link", "shop/orders.ibd"),
    ]
}

pub fn second_backup() -> Vec<Source> {
    let mut files = first_backup();
    files.retain(|f| f.path != b"shop/nothing");
    for file in &mut files {
        if file.path == b"shop/orders.ibd" {
            file.blocks[3] = Some(page_like(22, BLOCK));
            file.blocks[4] = Some(page_like(23, 4321));
        }
    }
    files.push(Source::file("shop/new.ibd", vec![Some(page_like(24, 777))]));
    files
}

pub fn draft(note: &str) -> BackupDraft {
    BackupDraft {
        server: SERVER,
        source: SourceKind::Folder,
        coordinates: Coordinates::Exact(position(4, "")),
        facts: vec![("version".to_owned(), "9.7.4".to_owned())],
        note: note.to_owned(),
        warnings: vec!["a warning".to_owned()],
    }
}

pub fn position(offset: u64, gtid: &str) -> Position {
    let gtid = if gtid.is_empty() {
        GtidSet::empty(Flavor::MySql)
    } else {
        GtidSet::parse(Flavor::MySql, gtid).unwrap()
    };
    Position { file: "binlog.000001".to_owned(), offset, gtid }
}

pub fn stream() -> StreamKey {
    StreamKey { server: SERVER, source_uuid: Uuid([9; 16]), incarnation: 0 }
}

pub fn log_record(from: u64, to: u64, before: &str, after: &str) -> LogRecord {
    let (first, last) = (position(from, before), position(to, after));
    LogRecord {
        stream: stream(),
        number: 0,
        segment: SegmentId([0; 16]),
        gtid_before: first.gtid.clone(),
        gtid_after: last.gtid.clone(),
        first,
        last,
        first_us: 1_700_000_001_000_000,
        last_us: 1_700_000_002_000_000,
        transactions: 2,
        events: 9,
        bytes: to - from,
    }
}

pub fn options() -> OpenOptions {
    // Few records, so that what is flipped, swapped and cut holds packs of them.
    OpenOptions { pack_records: 3, ..OpenOptions::new(Arc::new(FixedClock::new(1_700_000_000_000_000))) }
}

pub fn secret() -> holdfast_store::Secret {
    holdfast_store::Secret::passphrase(PASSPHRASE)
}

pub fn create(objects: &Arc<dyn Objects>, memory_kib: u32) -> Repository {
    let argon2 = Argon2Cost { memory_kib, passes: 1, lanes: 1 };
    let options = CreateOptions { open: options(), argon2, program: "holdfast 0.1.0".to_owned() };
    let (repo, _kit) = Repository::create(Arc::clone(objects), options, &secret()).unwrap();
    repo.append(Record::ServerPut(ServerRecord {
        id: SERVER,
        name: "shop".to_owned(),
        flavor: Some(Flavor::MySql),
        kind: ServerKind::Network { host: "db.example.org".to_owned(), port: 3306, socket: None },
        source_uuid: Some(Uuid([9; 16])),
        version: "9.7.4".to_owned(),
        added_us: 1_700_000_000_000_000,
    }))
    .unwrap();
    repo
}

pub fn back_up(repo: &Repository, parent: Option<BackupId>, files: &[Source], note: &str) -> BackupId {
    let writer = repo.begin_backup(parent).unwrap();
    for source in files {
        let spec = FileSpec {
            path: source.path.clone(),
            kind: source.kind.clone(),
            len: source.bytes().len() as u64,
            mode: source.mode,
            mtime_us: source.mtime_us,
        };
        let file = writer.add_file(spec).unwrap();
        for (number, block) in source.blocks.iter().enumerate() {
            if let Some(block) = block {
                writer.put_block(file, number as u32, block).unwrap();
            }
        }
    }
    writer.commit(draft(note)).unwrap().id
}

/// The frames of the golden logs: (kind, content), of the sealed segment and of the one that nobody sealed.
pub fn log_frames() -> [Vec<(LogKind, Vec<u8>)>; 2] {
    [
        vec![
            (LogKind::Events, page_like(31, 3000)),
            (LogKind::Index, b"index entries".to_vec()),
            (LogKind::Events, noise(32, 500)),
        ],
        vec![(LogKind::Events, page_like(33, 2000)), (LogKind::Meta, b"meta".to_vec())],
    ]
}

const UUID: &str = "09090909-0909-0909-0909-090909090909";

/// One sealed log segment, and one whose writer died.
pub fn write_logs(repo: &Repository) {
    let [sealed, open] = log_frames();
    let (before, after) = (format!("{UUID}:1-3"), format!("{UUID}:1-5"));
    let mut writer = repo.begin_log(stream(), position(4, &before)).unwrap();
    for (kind, bytes) in &sealed {
        writer.append(*kind, bytes).unwrap();
    }
    writer.sync().unwrap();
    writer.seal(log_record(4, 3504, &before, &after)).unwrap();
    let mut writer = repo.begin_log(stream(), position(3504, &after)).unwrap();
    for (kind, bytes) in &open {
        writer.append(*kind, bytes).unwrap();
    }
    writer.sync().unwrap();
    drop(writer);
}

/// A repository with two backups, a sealed log and an open one, on a disk in memory.
pub fn repository() -> (SimDisk, Arc<dyn Objects>) {
    let disk = SimDisk::new();
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let repo = create(&objects, 64);
    let first = back_up(&repo, None, &first_backup(), "first");
    back_up(&repo, Some(first), &second_backup(), "second");
    write_logs(&repo);
    drop(repo);
    (disk, objects)
}

pub fn fsck(objects: &dyn Objects) -> Result<Report, holdfast_fsck::Error> {
    let options = Options { scope: Scope::Full, seed: 0 };
    check(objects, &Secret::Passphrase(PASSPHRASE.into()), options, &Progress::default())
}

/// The part of a long run that this one does, of how many: `HOLDFAST_TEST_PART=3/16` is the third of sixteen, and takes
/// each sixteenth of what is tried. Everything without it.
pub fn part() -> (usize, usize) {
    let Ok(text) = std::env::var("HOLDFAST_TEST_PART") else { return (0, 1) };
    let (part, parts) = text.split_once('/').unwrap();
    let (part, parts): (usize, usize) = (part.parse().unwrap(), parts.parse().unwrap());
    assert!((1..=parts).contains(&part), "HOLDFAST_TEST_PART={text}: there is no such part");
    (part - 1, parts)
}
