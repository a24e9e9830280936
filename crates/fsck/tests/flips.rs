//! One flipped bit anywhere is reported.
//!
//! Every byte of every object is flipped, one at a time, in a repository with two backups, a
//! sealed log and an open one; payload and padding are long, so of them a choice (all of the padding with
//! HOLDFAST_TEST_EVERY_BYTE=1, a minute or two; with HOLDFAST_TEST_EVERY_BIT=1 each of its eight bits in turn, and HOLDFAST_TEST_PART=3/17
//! the third of seventeen such runs). There is exactly one place where a flip is a note and not a flaw: the end of a log that nobody sealed, from its last
//! frame on. A write that a crash tore looks just like that, and was never acknowledged.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests, where a panic is the report"
)]

mod common;

use common::{fsck, part, repository};
use holdfast_io::sim::Crash;
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::format::segment::{FRAME_HEADER_BYTES, FrameHeader};
use std::collections::HashSet;

/// Of each frame's sealed payload this many bytes are flipped.
const PAYLOAD_PLACES: u64 = 6;
/// Of long stretches of zeros every so many bytes are flipped.
const PADDING_STEP: u64 = 61;

/// What is flipped in an object, and where a flip is a note only.
struct Places {
    object: ObjectName,
    offsets: Vec<u64>,
    note_from: u64,
}

fn places(objects: &dyn Objects, seed: &mut u64) -> Vec<Places> {
    let mut all = Vec::new();
    for object in objects.list("").unwrap() {
        let len = objects.len(&object).unwrap();
        let bytes = objects.read(&object, 0, len).unwrap();
        let mut offsets: Vec<u64> = (0..len).collect();
        let mut note_from = u64::MAX;
        if object.as_str().starts_with("segments/") || object.as_str().starts_with("logs/") {
            let mut skip = HashSet::new();
            let mut at = 4096;
            let mut last = 4096;
            while let Some(header) = bytes.get(at..).and_then(|b| FrameHeader::decode(b).ok()) {
                let payload = at as u64 + FRAME_HEADER_BYTES as u64..at as u64 + header.frame_len();
                let kept: HashSet<u64> = (0..PAYLOAD_PLACES)
                    .map(|_| {
                        *seed = seed
                            .wrapping_mul(6_364_136_223_846_793_005)
                            .wrapping_add(1_442_695_040_888_963_407);
                        payload.start + (*seed >> 33) % u64::from(header.stored_len)
                    })
                    // The tag's ends are where a reader could go wrong by one.
                    .chain([payload.start, payload.end - 16, payload.end - 1])
                    .collect();
                skip.extend(payload.clone().filter(|o| !kept.contains(o)));
                last = at as u64;
                at = usize::try_from(payload.end).unwrap();
            }
            offsets.retain(|o| !skip.contains(o));
            if std::env::var_os("HOLDFAST_TEST_EVERY_BYTE").is_none() {
                offsets.retain(|o| o % PADDING_STEP == 0 || !is_padding(&bytes, *o));
            }
            if at as u64 == len {
                // No footer follows: an open log.
                note_from = last;
            }
        }
        all.push(Places { object, offsets, note_from });
    }
    all
}

/// Whether a byte lies among zeros.
fn is_padding(bytes: &[u8], offset: u64) -> bool {
    let at = usize::try_from(offset).unwrap();
    let around = at.saturating_sub(16)..(at + 16).min(bytes.len());
    bytes[around].iter().all(|b| *b == 0)
}

#[test]
fn every_flipped_byte_is_reported() {
    let (disk, objects) = repository();
    assert!(fsck(objects.as_ref()).unwrap().clean);
    let seed =
        std::env::var("HOLDFAST_TEST_SEED").ok().and_then(|s| s.parse().ok()).unwrap_or(20_261_121_u64);
    eprintln!("repeat with HOLDFAST_TEST_SEED={seed} cargo test -p holdfast-fsck --test flips");
    let all = places(objects.as_ref(), &mut seed.clone());
    let (part, parts) = part();
    let jobs = all.iter().flat_map(|p| p.offsets.iter().map(move |o| (p, *o)));
    let jobs: Vec<(&Places, u64)> = jobs.skip(part).step_by(parts).collect();
    let every_bit = std::env::var_os("HOLDFAST_TEST_EVERY_BIT").is_some();
    eprintln!("{} places{}", jobs.len(), if every_bit { ", eight bits each" } else { "" });
    assert!(jobs.len() * parts > 5_000);
    let workers = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    std::thread::scope(|scope| {
        for worker in 0..workers {
            let (jobs, image) = (&jobs, disk.crash(Crash::Everything));
            scope.spawn(move || {
                let objects = Directory::open(image.shared(), "/repo").unwrap();
                for (places, offset) in jobs.iter().skip(worker).step_by(workers) {
                    let bits = if every_bit { 0..8 } else { (*offset % 8) as u8..(*offset % 8) as u8 + 1 };
                    for bit in bits {
                        one(&image, &objects, places, *offset, bit);
                    }
                }
            });
        }
    });
}

fn one(image: &SimDisk, objects: &Directory, places: &Places, offset: u64, bit: u8) {
    let path = format!("/repo/{}", places.object);
    assert!(image.flip_bit(path.as_ref(), offset, bit));
    match fsck(objects) {
        // All three keyrings would have to be flipped for this.
        Err(e) => panic!("byte {offset} of {}: not checked at all: {e}", places.object),
        Ok(report) if !report.clean => {
            let names_it = report.flaws.iter().any(|f| f.object.contains(last_part(&places.object)))
                || report.text().contains(last_part(&places.object));
            assert!(
                names_it,
                "byte {offset} of {}: reported without its name:\n{}",
                places.object,
                report.text()
            );
        }
        Ok(report) => {
            let noted = report.notes.iter().any(|n| n.object == places.object.to_string());
            assert!(
                offset >= places.note_from && noted,
                "byte {offset} of {} (bit {bit}) is flipped, and the report says:\n{}",
                places.object,
                report.text()
            );
        }
    }
    assert!(image.flip_bit(path.as_ref(), offset, bit));
}

fn last_part(object: &ObjectName) -> &str {
    let name = object.as_str();
    name.rsplit('/').next().map_or(name, |last| last.trim_end_matches(".foot"))
}

#[test]
fn every_byte_cut_off_the_end_of_an_object_is_reported() {
    let (disk, objects) = repository();
    for object in objects.list("").unwrap() {
        let len = objects.len(&object).unwrap();
        for cut in [1, 31, 4096, len] {
            let image = disk.crash(Crash::Everything);
            let copy = Directory::open(image.shared(), "/repo").unwrap();
            let bytes = copy.read(&object, 0, len.saturating_sub(cut)).unwrap();
            if len == 0 || cut > len {
                continue;
            }
            copy.replace(&object, &bytes).unwrap();
            let report = fsck(&copy).unwrap();
            let open_log = object.as_str().starts_with("logs/") && !report.notes.is_empty();
            assert!(!report.clean || open_log, "{cut} bytes cut off {object}:\n{}", report.text());
        }
    }
}

#[test]
fn random_bytes_in_place_of_any_object_never_panic_and_are_never_clean() {
    let (disk, objects) = repository();
    for (n, object) in objects.list("").unwrap().into_iter().enumerate() {
        let len = usize::try_from(objects.len(&object).unwrap()).unwrap();
        if len == 0 {
            continue;
        }
        let image = disk.crash(Crash::Everything);
        let copy = Directory::open(image.shared(), "/repo").unwrap();
        copy.replace(&object, &common::noise(n as u64 + 1, len)).unwrap();
        let report = fsck(&copy).unwrap();
        assert!(!report.clean, "{object} is noise:\n{}", report.text());
        assert!(report.text().contains(&object.as_str()[..6]));
    }
}
