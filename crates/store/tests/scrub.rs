//! The scrub: it finds what rots, heals it to the byte, says so in the manifest, and goes on where it stopped.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test program")]

mod common;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use common::{BLOCK, content, create, draft, log_record, objects, open, position, put_file, stream};
use holdfast_format::record::Record;
use holdfast_io::{ObjectName, Objects, SimDisk};
use holdfast_store::{LogKind, Repository, ScrubOptions, ScrubSummary};

/// A repository with some segments and a sealed log.
fn made() -> (SimDisk, Repository) {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    for n in 0..4 {
        let writer = repo.begin_backup(None).unwrap();
        put_file(&writer, "a", &content(n + 1, 3 * BLOCK));
        writer.commit(draft()).unwrap();
    }
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    log.append(LogKind::Events, &content(9, 5000)).unwrap();
    log.sync().unwrap();
    log.seal(log_record()).unwrap();
    (disk, repo)
}

fn segments(objects: &dyn Objects) -> BTreeMap<ObjectName, Vec<u8>> {
    let read = |n: ObjectName| {
        let bytes = objects.read(&n, 0, objects.len(&n).unwrap()).unwrap();
        (n, bytes)
    };
    objects.list("segments/").unwrap().into_iter().chain(objects.list("logs/").unwrap()).map(read).collect()
}

fn all(repo: &Repository) -> ScrubSummary {
    repo.scrub(ScrubOptions::default(), &|_| true).unwrap()
}

#[test]
fn what_rots_is_healed_to_the_byte_and_told_in_the_manifest() {
    let (disk, repo) = made();
    let kept = objects(&disk);
    let whole = segments(kept.as_ref());
    let clean = all(&repo);
    assert!(clean.round_over && clean.healed.is_empty() && clean.lost.is_empty(), "{clean:?}");
    assert_eq!(clean.segments, whole.len() as u64);
    for (nth, (name, bytes)) in whole.iter().filter(|(n, _)| n.as_str().starts_with("segments/")).enumerate()
    {
        for at in [nth, 4096 + 100, bytes.len() / 2, bytes.len() - 1, bytes.len() - 5000] {
            assert!(disk.flip_bit(format!("/repo/{name}").as_ref(), at as u64, 3));
            let done = all(&open(&disk).unwrap());
            assert_eq!((done.healed.len(), done.lost.len()), (1, 0), "{name} at {at}");
            assert!(segments(kept.as_ref()) == whole, "{name} at {at}");
        }
    }
    let records = open(&disk).unwrap().records();
    let healed = records.iter().filter(|s| matches!(&s.record, Record::Healed(h) if h.by == "scrub")).count();
    assert_eq!(healed, 5 * whole.keys().filter(|n| n.as_str().starts_with("segments/")).count());
}

#[test]
fn what_is_past_healing_is_named_and_left_alone() {
    let (disk, repo) = made();
    let kept = objects(&disk);
    let log = kept.list("logs/").unwrap().remove(0);
    let data = kept.list("segments/").unwrap().into_iter().max_by_key(|n| kept.len(n).unwrap()).unwrap();
    assert!(disk.flip_bit(format!("/repo/{log}").as_ref(), 4096 + 50, 1));
    for page in 0..kept.len(&data).unwrap() / 4096 {
        assert!(disk.flip_bit(format!("/repo/{data}").as_ref(), page * 4096 + 50, 1));
    }
    let before = segments(kept.as_ref());
    let done = all(&repo);
    assert_eq!(done.lost.len(), 2, "{done:?}");
    for lost in [&log, &data] {
        assert!(done.lost.iter().any(|id| lost.as_str().ends_with(&id.to_string())));
    }
    assert!(segments(kept.as_ref()) == before);
}

#[test]
fn a_run_goes_on_where_the_one_before_it_stopped() {
    let (disk, repo) = made();
    let count = segments(objects(&disk).as_ref()).len() as u64;
    let (mut seen, mut runs) = (0, 0);
    loop {
        let asked = Cell::new(0);
        let repo = open(&disk).unwrap();
        // Each segment is asked for once before it is read, and once a piece: the third time is in the second one.
        let done = repo
            .scrub(ScrubOptions::default(), &|_| {
                asked.set(asked.get() + 1);
                asked.get() < 3
            })
            .unwrap();
        assert!(done.segments <= 1);
        seen += done.segments;
        runs += 1;
        if done.round_over {
            break;
        }
        assert!(runs < 100);
    }
    assert_eq!(seen, count);
    // The next one begins anew.
    repo.refresh().unwrap();
    assert_eq!(all(&repo).segments, count);
}

#[test]
fn the_rate_and_the_time_are_kept() {
    let (_disk, repo) = made();
    let bytes = all(&repo).bytes;
    let start = Instant::now();
    let options = ScrubOptions { bytes_per_second: Some(bytes * 4), time_max: None };
    assert!(repo.scrub(options, &|_| true).unwrap().round_over);
    assert!(start.elapsed() >= Duration::from_millis(200), "{:?}", start.elapsed());
    let options = ScrubOptions { bytes_per_second: Some(1), time_max: Some(Duration::from_millis(50)) };
    let start = Instant::now();
    assert!(!repo.scrub(options, &|_| true).unwrap().round_over);
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
}
