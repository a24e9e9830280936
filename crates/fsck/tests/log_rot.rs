//! Rot in a log that nobody sealed: the second reader names it as the store does, and knows when nothing is lost by it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::sync::Arc;

use common::{create, fsck, noise, stream};
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::LogKind;

/// An open log of three synced frames and the begin of a fourth that was not: the repository's objects, the log's name,
/// and the offsets of the frames.
fn left_behind() -> (Arc<dyn Objects>, ObjectName, Vec<u64>) {
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(SimDisk::new().shared(), "/repo").unwrap());
    let repo = create(&objects, 64);
    let mut log = repo.begin_log(stream(), common::position(4, "")).unwrap();
    let mut places = Vec::new();
    for n in 0..3 {
        places.push(log.bytes());
        log.append(LogKind::Events, &noise(n, 3000)).unwrap();
        log.sync().unwrap();
    }
    places.push(log.bytes());
    log.append(LogKind::Events, &noise(9, 4 << 20)).unwrap();
    let name = ObjectName::new(format!("logs/{}", log.segment())).unwrap();
    drop(log);
    assert!(objects.len(&name).unwrap() > places[3] + 32);
    (objects, name, places)
}

/// What is done to the bytes of an object.
type Change<'a> = &'a dyn Fn(&mut [u8]);

fn edit(objects: &dyn Objects, name: &ObjectName, change: impl Fn(&mut [u8])) {
    let mut bytes = objects.read(name, 0, objects.len(name).unwrap()).unwrap();
    change(&mut bytes);
    objects.replace(name, &bytes).unwrap();
}

#[test]
fn a_torn_end_is_no_damage_and_rot_before_it_is() {
    let (objects, name, places) = left_behind();
    let report = fsck(objects.as_ref()).unwrap();
    assert!(report.flaws.is_empty(), "{:?}", report.flaws);
    let (begin, end) = (places[1] as usize, places[2] as usize);
    let changes: [(&str, Change<'_>); 4] = [
        ("a flip in a header", &|b| b[begin + 5] ^= 1),
        ("a flip in a payload", &|b| b[end - 1] ^= 1),
        // As if a crash had kept it from being written, but the frame behind says that it was synced.
        ("a sector of zeros", &|b| b[begin.next_multiple_of(512)..][..512].fill(0)),
        ("a flip in the segment's header", &|b| b[100] ^= 1),
    ];
    for (what, change) in changes {
        let (objects, name, _) = left_behind();
        edit(objects.as_ref(), &name, change);
        let report = fsck(objects.as_ref()).unwrap();
        let named = report.flaws.iter().any(|flaw| flaw.object == name.as_str());
        assert!(named, "{what}: {:?}", report.flaws);
    }
    // The last one, whose frame was never whole, is what a crash leaves.
    edit(objects.as_ref(), &name, |b| b[places[3] as usize..].fill(0));
    assert!(fsck(objects.as_ref()).unwrap().flaws.is_empty());
}

#[test]
fn what_came_again_in_the_next_segment_is_not_lost() {
    for (goes_on_at, lost) in [(3004, false), (4, false), (3005, true)] {
        let (objects, name, places) = left_behind();
        edit(objects.as_ref(), &name, |b| b[places[1] as usize + 40] ^= 1);
        let repo =
            holdfast_store::Repository::open(Arc::clone(&objects), &common::secret(), common::options())
                .unwrap();
        let mut log = repo.begin_log(stream(), common::position(goes_on_at, "")).unwrap();
        assert!(log.left_behind().is_empty());
        log.append(LogKind::Events, &noise(1, 3000)).unwrap();
        log.sync().unwrap();
        drop((log, repo));
        let report = fsck(objects.as_ref()).unwrap();
        assert_eq!(!report.flaws.is_empty(), lost, "from {goes_on_at} on: {:?}", report.flaws);
        let noted = report.notes.iter().any(|n| n.object == name.as_str() && n.what.contains("came again"));
        assert_eq!(noted, !lost, "from {goes_on_at} on: {:?}", report.notes);
    }
}
