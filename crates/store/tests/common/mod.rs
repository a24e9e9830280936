//! What the tests of the store share.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "helpers of tests; each program uses a part"
)]

pub mod failing;
pub mod history;
pub mod hooked;

use std::path::Path;
use std::sync::Arc;

use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::ids::ServerId;
use holdfast_format::map::FileKind;
use holdfast_format::record::{Coordinates, LogRecord, Position, SourceKind, StreamKey};
use holdfast_io::{Directory, Disk, Objects, SimDisk};
use holdfast_store::{
    Argon2Cost, BackupDraft, BackupWriter, CreateOptions, FileNo, FileSpec, FixedClock, OpenOptions,
    RecoveryKit, Repository, Secret,
};

pub const BLOCK: usize = 65_536;

pub fn options() -> OpenOptions {
    OpenOptions::new(Arc::new(FixedClock::new(1_700_000_000_000_000)))
}

pub fn secret() -> Secret {
    Secret::passphrase("correct horse")
}

pub fn create_options() -> CreateOptions {
    let argon2 = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };
    CreateOptions { open: options(), argon2, program: "test".to_owned() }
}

pub fn objects(disk: &SimDisk) -> Arc<dyn Objects> {
    Arc::new(Directory::create(disk.shared(), "/repo").unwrap())
}

pub fn create(disk: &SimDisk) -> (Repository, RecoveryKit) {
    Repository::create(objects(disk), create_options(), &secret()).unwrap()
}

pub fn open(disk: &SimDisk) -> Result<Repository, holdfast_store::Error> {
    let objects: Arc<dyn Objects> = Arc::new(Directory::open(disk.shared(), "/repo")?);
    Repository::open(objects, &secret(), options())
}

pub fn spec(path: &str, len: u64) -> FileSpec {
    FileSpec { path: path.as_bytes().to_vec(), kind: FileKind::Regular, len, mode: 0o640, mtime_us: 7 }
}

pub fn draft() -> BackupDraft {
    BackupDraft {
        server: ServerId([7; 16]),
        source: SourceKind::Folder,
        coordinates: Coordinates::None,
        facts: vec![("version".to_owned(), "9.7.4".to_owned()), ("a".to_owned(), "b".to_owned())],
        note: "a note".to_owned(),
        warnings: vec![],
    }
}

/// Bytes that compress about as pages do, different for each seed.
pub fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..len)
        .map(|at| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            if at % 3 == 0 { (state >> 32) as u8 } else { (at / 64) as u8 }
        })
        .collect()
}

pub fn put_file(writer: &BackupWriter, path: &str, bytes: &[u8]) -> FileNo {
    let file = writer.add_file(spec(path, bytes.len() as u64)).unwrap();
    for (block, data) in bytes.chunks(BLOCK).enumerate() {
        writer.put_block(file, block as u32, data).unwrap();
    }
    file
}

/// Reads a whole file of a restored folder.
pub fn read_file(disk: &dyn Disk, path: &Path) -> Vec<u8> {
    let file = disk.open(path, holdfast_io::Open::Read).unwrap();
    let mut bytes = vec![0; file.len().unwrap() as usize];
    file.read_exact_at(0, &mut bytes).unwrap();
    bytes
}

pub fn stream() -> StreamKey {
    StreamKey { server: ServerId([7; 16]), source_uuid: Uuid([9; 16]), incarnation: 1 }
}

pub fn position(offset: u64) -> Position {
    Position { file: "binlog.000001".to_owned(), offset, gtid: GtidSet::empty(Flavor::MySql) }
}

pub fn log_record() -> LogRecord {
    LogRecord {
        stream: stream(),
        number: 0,
        segment: holdfast_format::ids::SegmentId([0; 16]),
        first: position(4),
        last: position(400),
        gtid_before: GtidSet::empty(Flavor::MySql),
        gtid_after: GtidSet::empty(Flavor::MySql),
        first_us: 1,
        last_us: 2,
        transactions: 3,
        events: 4,
        bytes: 5,
    }
}
