//! Rot in a log that nobody sealed: what was durable once is damage and named, never taken for a torn end.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::path::{Path, PathBuf};

use common::{content, create, log_record, objects, open, position, stream};
use holdfast_io::sim::Crash;
use holdfast_io::{ObjectName, SimDisk};
use holdfast_store::{Error, LogKind, LogState, Repository};

const HEADER: u64 = 4096;

/// A log of six synced frames of some sectors each, and the begin of one that was never synced unless `quiet`; the offset
/// of each; and the name of the object.
fn left_behind(quiet: bool) -> (SimDisk, Vec<u64>, ObjectName) {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    let mut places = Vec::new();
    for n in 0..6 {
        places.push(log.bytes());
        log.append(LogKind::Events, &content(n, 3000)).unwrap();
        log.sync().unwrap();
    }
    places.push(log.bytes());
    if !quiet {
        // More than a writer keeps in memory.
        log.append(LogKind::Events, &content(6, 4 << 20)).unwrap();
    }
    let name = ObjectName::new(format!("logs/{}", log.segment())).unwrap();
    drop(log);
    let written = objects(&disk).len(&name).unwrap();
    assert_eq!(written > places[6] + 32, !quiet, "{written} bytes of {places:?}");
    (disk.crash(Crash::Everything), places, name)
}

fn path(name: &ObjectName) -> PathBuf {
    Path::new("/repo").join(name.as_str())
}

/// The frames before the first error, and the error.
fn read(repo: &Repository) -> (usize, Option<Error>) {
    let segments = repo.logs(stream()).unwrap();
    let mut frames = 0;
    for frame in repo.read_log(&segments[0], 0).unwrap() {
        match frame {
            Ok(frame) => {
                assert_eq!(frame.plain, content(frames as u64, 3000));
                frames += 1;
            }
            Err(e) => return (frames, Some(e)),
        }
    }
    (frames, None)
}

/// `frames` are whole, then comes damage; a new writer of the stream takes nothing of it for an end.
fn assert_damage(disk: &SimDisk, name: &ObjectName, frames: usize, what: &str) {
    let before = objects(disk).read(name, 0, objects(disk).len(name).unwrap()).unwrap();
    let foot = ObjectName::new(format!("{name}.foot")).unwrap();
    for round in ["at first", "after it was taken over"] {
        let repo = open(disk).unwrap();
        let (read, error) = read(&repo);
        assert_eq!(read, frames, "{what}, {round}: {error:?}");
        let error = error.unwrap_or_else(|| panic!("{what}, {round}: it reads as a torn end"));
        assert!(matches!(error, Error::Damaged { .. }), "{what}, {round}: {error}");
        assert!(error.to_string().contains(name.as_str()), "{what}, {round}: {error}");
        let mut log = repo.begin_log(stream(), position(800)).unwrap();
        assert!(log.left_behind().iter().all(|s| !name.as_str().ends_with(&s.segment.to_string())), "{what}");
        log.append(LogKind::Events, b"after").unwrap();
        log.sync().unwrap();
        let segments = repo.logs(stream()).unwrap();
        assert_eq!(segments[0].state, LogState::Open, "{what}, {round}");
        let refused = log.adopt(&segments[0], log_record()).unwrap_err();
        assert!(matches!(refused, Error::Refused { .. }), "{what}, {round}: {refused}");
        assert!(!objects(disk).exists(&foot).unwrap(), "{what}, {round}: a footer cuts it off");
    }
    assert_eq!(objects(disk).read(name, 0, before.len() as u64).unwrap(), before, "{what}");
}

#[test]
fn a_flip_in_what_was_synced_is_damage_wherever_it_is() {
    let (disk, places, name) = left_behind(false);
    // Each byte of a frame's header, and some of its payload.
    for frame in [0, 3, 5] {
        let (begin, end) = (places[frame], places[frame + 1]);
        for at in (begin..begin + 32).chain((begin + 32..end).step_by(301)) {
            let image = disk.crash(Crash::Everything);
            assert!(image.flip_bit(&path(&name), at, (at % 8) as u8));
            if frame == 3 && at % 7 != 0 {
                let (read, error) = read(&open(&image).unwrap());
                assert!(read == frame && error.is_some(), "byte {at}: {read} frames, {error:?}");
            } else {
                assert_damage(&image, &name, frame, &format!("byte {at} of frame {frame}"));
            }
        }
    }
}

/// The limit of it: nothing that was written later speaks for the last frame.
#[test]
fn a_flip_in_the_last_frame_reads_as_a_torn_end() {
    let (disk, places, name) = left_behind(true);
    assert!(disk.flip_bit(&path(&name), places[5] + 40, 1));
    let (frames, error) = read(&open(&disk).unwrap());
    assert!(frames == 5 && error.is_none(), "{frames} frames, {error:?}");
}

#[test]
fn sectors_of_zeros_in_what_was_synced_are_damage_and_behind_it_a_torn_end() {
    let (disk, places, name) = left_behind(false);
    let len = objects(&disk).len(&name).unwrap();
    let file = objects(&disk).read(&name, 0, len).unwrap();
    let zeroed = |from: u64, to: u64| {
        let image = disk.crash(Crash::Everything);
        let mut bytes = file.clone();
        bytes[from as usize..to as usize].fill(0);
        objects(&image).replace(&name, &bytes).unwrap();
        image
    };
    let sector = places[2].next_multiple_of(512);
    assert_damage(&zeroed(sector, sector + 512), &name, 2, "a sector of frame 2");
    assert_damage(&zeroed(places[2], places[4]), &name, 2, "frames 2 and 3");
    // The first frame that nobody synced: frames behind it may have reached the disk before it.
    let torn = zeroed(places[6], len);
    let (frames, error) = read(&open(&torn).unwrap());
    assert!(frames == 6 && error.is_none(), "{frames} frames, {error:?}");
    let repo = open(&torn).unwrap();
    let log = repo.begin_log(stream(), position(800)).unwrap();
    assert_eq!(log.left_behind().len(), 1);
    assert!(objects(&torn).exists(&ObjectName::new(format!("{name}.foot")).unwrap()).unwrap());
}

#[test]
fn a_log_whose_begin_is_damaged_stops_nobody() {
    let (disk, _, name) = left_behind(false);
    for at in [0, 20, 100, 4090, HEADER, HEADER + 5, HEADER + 40] {
        let image = disk.crash(Crash::Everything);
        assert!(image.flip_bit(&path(&name), at, 1));
        let repo = open(&image).unwrap();
        assert_eq!(repo.logs(stream()).unwrap(), [], "byte {at}: nobody knows whose it is");
        let mut log = repo.begin_log(stream(), position(4)).unwrap();
        log.append(LogKind::Events, b"again").unwrap();
        log.sync().unwrap();
        assert!(!objects(&image).exists(&ObjectName::new(format!("{name}.foot")).unwrap()).unwrap());
        assert_eq!(repo.logs(stream()).unwrap().len(), 1, "byte {at}");
    }
}

#[test]
fn a_sealed_log_whose_begin_is_damaged_is_listed_and_named_when_it_is_read() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    log.append(LogKind::Events, b"one").unwrap();
    let name = ObjectName::new(format!("logs/{}", log.segment())).unwrap();
    log.seal(log_record()).unwrap();
    for at in [20, HEADER + 40] {
        let image = disk.crash(Crash::Everything);
        assert!(image.flip_bit(&path(&name), at, 1));
        let repo = open(&image).unwrap();
        let segments = repo.logs(stream()).unwrap();
        assert_eq!(segments.len(), 1, "byte {at}");
        let read = repo.read_log(&segments[0], 0).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let error = read.unwrap_err();
        assert!(error.is_damage() && error.to_string().contains(name.as_str()), "byte {at}: {error}");
    }
}
