//! The writer of a log at its limits: a segment that is full says so, in bytes and in frames, and is sealed as it is; what
//! can't be appended, adopted or gone on with is refused, each time it is asked for.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use common::{create, log_record, open, position, stream};
use holdfast_format::limits::{FRAME_PLAIN_MAX, SEGMENT_BYTES, SLOTS_MAX};
use holdfast_format::record::Record;
use holdfast_io::SimDisk;
use holdfast_io::sim::{Fault, OpKind};
use holdfast_store::{Error, LogKind, LogWriter};

/// Bytes that no codec makes shorter.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Seals it, writes a frame into the next one, and reads both: so many frames behind the opening.
fn goes_on(disk: &SimDisk, writer: LogWriter, frames: usize) {
    assert_eq!(writer.number(), 0);
    let (_, mut next) = writer.roll(log_record(), position(400)).unwrap();
    assert_eq!(next.number(), 1);
    next.append(LogKind::Events, b"the next").unwrap();
    next.sync().unwrap();
    drop(next);
    let repository = open(disk).unwrap();
    let logs = repository.logs(stream()).unwrap();
    let count = |log| repository.read_log(log, 0).unwrap().collect::<Result<Vec<_>, _>>().unwrap().len();
    let counts: Vec<usize> = logs.iter().map(count).collect();
    assert_eq!(counts, [frames, 1]);
}

#[test]
fn a_log_segment_takes_no_more_frames_when_its_bytes_are_reached() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let mut writer = repository.begin_log(stream(), position(4)).unwrap();
    let mut frames = 0;
    let refused = loop {
        match writer.append(LogKind::Events, &noise(frames, FRAME_PLAIN_MAX as usize)) {
            Ok(_) => frames += 1,
            Err(refused) => break refused,
        }
        assert!(writer.bytes() < SEGMENT_BYTES + 2 * u64::from(FRAME_PLAIN_MAX), "{frames} frames");
    };
    assert!(matches!(refused, Error::LogFull), "{refused}");
    assert!(writer.bytes() >= SEGMENT_BYTES, "{} bytes", writer.bytes());
    assert!(matches!(writer.append(LogKind::Meta, b"a note"), Err(Error::LogFull)), "the smallest one, too");
    goes_on(&disk, writer, frames as usize);
}

#[test]
fn a_log_segment_takes_no_more_frames_than_it_has_slots() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let mut writer = repository.begin_log(stream(), position(4)).unwrap();
    // The opening has the first slot.
    for slot in 1..SLOTS_MAX {
        assert_eq!(writer.append(LogKind::Meta, b"n").unwrap(), slot);
    }
    assert!(matches!(writer.append(LogKind::Meta, b"n"), Err(Error::LogFull)));
    assert!(writer.bytes() < SEGMENT_BYTES);
    goes_on(&disk, writer, SLOTS_MAX as usize - 1);
}

#[test]
fn a_frame_longer_than_the_limit_is_refused_and_the_log_goes_on() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let mut writer = repository.begin_log(stream(), position(4)).unwrap();
    let refused = writer.append(LogKind::Events, &vec![7; FRAME_PLAIN_MAX as usize + 1]).unwrap_err();
    assert!(matches!(refused, Error::Refused { .. }), "{refused}");
    assert!(refused.to_string().contains(&FRAME_PLAIN_MAX.to_string()), "{refused}");
    writer.append(LogKind::Events, &vec![7; FRAME_PLAIN_MAX as usize]).unwrap();
    goes_on(&disk, writer, 1);
}

#[test]
fn a_segment_is_adopted_once_and_no_stranger_is() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    for offset in [4, 400] {
        let mut dies = repository.begin_log(stream(), position(offset)).unwrap();
        dies.append(LogKind::Events, b"left behind").unwrap();
        dies.sync().unwrap();
    }
    let mut writer = repository.begin_log(stream(), position(800)).unwrap();
    let left = writer.left_behind().to_vec();
    assert_eq!(left.iter().map(|segment| segment.opening.number).collect::<Vec<_>>(), [0, 1]);
    let own = repository.logs(stream()).unwrap().pop().unwrap();
    assert_eq!(own.segment, writer.segment());
    writer.adopt(&left[1], log_record()).unwrap();
    for other in [&left[1], &own] {
        let refused = writer.adopt(other, log_record()).unwrap_err();
        assert!(refused.to_string().contains(&other.segment.to_string()), "{refused}");
    }
    assert_eq!(writer.left_behind(), &left[..1]);
    writer.adopt(&left[0], log_record()).unwrap();
    assert!(writer.left_behind().is_empty());
    let sealed: Vec<u64> = repository
        .records()
        .iter()
        .filter_map(|stamped| match &stamped.record {
            Record::LogSealed(log) => Some(log.number),
            _ => None,
        })
        .collect();
    assert_eq!(sealed, [1, 0]);
}

/// Whether the disk holds what was appended is unknown from there on, so the writer says the same of all that follows.
#[test]
fn after_a_sync_that_failed_a_writer_neither_appends_nor_syncs_nor_seals() {
    let disk = SimDisk::new();
    let (repository, _) = create(&disk);
    let mut writer = repository.begin_log(stream(), position(4)).unwrap();
    writer.append(LogKind::Events, b"never acknowledged").unwrap();
    disk.inject(Some(OpKind::Sync), 0, Fault::Eio);
    assert!(matches!(writer.sync().unwrap_err(), Error::Io(_)));
    let told = |refused: Error| {
        assert!(matches!(refused, Error::Refused { op: "go on with the log segment", .. }), "{refused}");
    };
    told(writer.append(LogKind::Events, b"more").unwrap_err());
    told(writer.sync().unwrap_err());
    told(writer.seal(log_record()).unwrap_err());
    assert!(repository.records().iter().all(|stamped| !matches!(stamped.record, Record::LogSealed(_))));
    // Another one goes on behind it.
    repository.begin_log(stream(), position(4)).unwrap().sync().unwrap();
}
