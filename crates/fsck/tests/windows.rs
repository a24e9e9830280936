//! What can be restored to: windows of whole backups and log without a hole; and a planted hole of each kind is named.
#![expect(clippy::unwrap_used, reason = "tests, where a panic is the report")]

mod common;

use std::sync::Arc;

use common::{create, draft, fsck, log_record, noise, page_like, position, stream};
use holdfast_fsck::Report;
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::format::ids::{BackupId, SegmentId};
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{Coordinates, LogGap, Record};
use holdfast_store::{FileSpec, LogKind, Repository};

const UUID: &str = "09090909-0909-0909-0909-090909090909";

/// Three sealed segments of log, 1000 bytes each from 4 on, and an open one; a backup in the first, and one in the third.
struct World {
    disk: SimDisk,
    objects: Arc<dyn Objects>,
    repo: Repository,
    backups: [BackupId; 2],
    segments: Vec<SegmentId>,
}

/// What was executed at an offset.
fn gtid(offset: u64) -> String {
    format!("{UUID}:1-{offset}")
}

fn back_up(repo: &Repository, seed: u64, at: (u64, u64)) -> BackupId {
    let writer = repo.begin_backup(None).unwrap();
    let bytes = page_like(seed, 60_000);
    let path = format!("t{seed}.ibd").into_bytes();
    let len = bytes.len() as u64;
    let spec = FileSpec { path, kind: FileKind::Regular, len, mode: 0o600, mtime_us: 0 };
    let file = writer.add_file(spec).unwrap();
    writer.put_block(file, 0, &bytes).unwrap();
    let place = |offset| position(offset, &gtid(offset));
    let coordinates = Coordinates::Between { lo: place(at.0), hi: place(at.1) };
    writer.commit(holdfast_store::BackupDraft { coordinates, ..draft("") }).unwrap().id
}

fn world() -> World {
    let disk = SimDisk::new();
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let repo = create(&objects, 64);
    let first = back_up(&repo, 1, (104, 204));
    let mut segments = Vec::new();
    for number in 0..4_u64 {
        let (from, to) = (4 + 1000 * number, 1004 + 1000 * number);
        let mut log = repo.begin_log(stream(), position(from, &gtid(from))).unwrap();
        log.append(LogKind::Events, &noise(number, 3000)).unwrap();
        log.sync().unwrap();
        segments.push(log.segment());
        if number < 3 {
            log.seal(log_record(from, to, &gtid(from), &gtid(to))).unwrap();
        }
    }
    let second = back_up(&repo, 2, (2104, 2204));
    World { disk, objects, repo, backups: [first, second], segments }
}

impl World {
    fn check(&self) -> Report {
        fsck(self.objects.as_ref()).unwrap()
    }

    /// Damages the payload of a segment's first frame with events.
    fn rot(&self, segment: SegmentId) {
        let name = ObjectName::new(format!("logs/{segment}")).unwrap();
        let len = self.objects.len(&name).unwrap();
        assert!(len > 5000);
        assert!(self.disk.flip_bit(format!("/repo/{name}").as_ref(), 4096 + 1000, 3));
    }
}

/// From and until.
type Window = (String, String);

/// After what, before what, and why.
type Hole = (String, String, String);

/// `from`, `to` of windows and of holes, and why.
fn summary(report: &Report) -> (Vec<Window>, Vec<Hole>) {
    let windows = report.windows.iter().map(|w| (w.from.clone(), w.to.clone())).collect();
    let holes = report.holes.iter().map(|h| (h.from.clone(), h.to.clone(), h.why.clone())).collect();
    (windows, holes)
}

fn at(offset: u64) -> String {
    format!("binlog.000001:{offset}")
}

#[test]
fn a_log_without_a_hole_is_one_window_from_the_first_backup_on() {
    let world = world();
    let report = world.check();
    assert!(report.clean, "{}", report.text());
    assert_eq!(summary(&report), (vec![(at(204), "now".to_owned())], vec![]), "{}", report.text());
    assert_eq!((report.windows[0].backups, &report.windows[0].backup), (2, &world.backups[0].to_string()));
    let text = report.text();
    assert!(text.contains("window     shop: every transaction from binlog.000001:204"), "{text}");
    // A restore learned where the first one stands.
    let learned =
        Record::CoordinatesLearned { backup: world.backups[0], position: position(150, &gtid(150)) };
    world.repo.append(learned).unwrap();
    assert_eq!(world.check().windows[0].from, at(150));
    // Who is not wanted any more opens no window.
    world.repo.forget(world.backups[0], "test").unwrap();
    let report = world.check();
    assert_eq!(summary(&report), (vec![(at(2204), "now".to_owned())], vec![]), "{}", report.text());
}

#[test]
fn a_rotten_segment_of_log_is_a_hole_up_to_the_next_backup() {
    let world = world();
    world.rot(world.segments[1]);
    let report = world.check();
    let (windows, holes) = summary(&report);
    assert_eq!(windows, [(at(204), at(1004)), (at(2204), "now".to_owned())], "{}", report.text());
    assert_eq!(holes.len(), 1, "{}", report.text());
    assert_eq!((&holes[0].0, &holes[0].1), (&at(1004), &at(2204)));
    assert!(holes[0].2.contains("segment 1 is damaged"), "{holes:?}");
    assert!(report.text().contains("HOLE       shop: between binlog.000001:1004 and"), "{}", report.text());
}

#[test]
fn a_missing_segment_of_log_is_a_hole_up_to_the_next_backup() {
    let world = world();
    world.objects.delete(&ObjectName::new(format!("logs/{}", world.segments[1])).unwrap()).unwrap();
    let report = world.check();
    assert!(!report.clean);
    let (windows, holes) = summary(&report);
    assert_eq!(windows, [(at(204), at(1004)), (at(2204), "now".to_owned())], "{}", report.text());
    assert_eq!(holes.len(), 1, "{}", report.text());
}

#[test]
fn log_behind_a_hole_that_no_backup_leads_into_restores_to_nothing() {
    let world = world();
    world.rot(world.segments[2]);
    let report = world.check();
    let (windows, holes) = summary(&report);
    // The second backup stands in the damaged segment.
    assert_eq!(windows, [(at(204), at(2004))], "{}", report.text());
    let whys: Vec<&str> = holes.iter().map(|h| h.2.as_str()).collect();
    assert!(whys.iter().any(|w| w.contains("no whole backup leads into this log")), "{whys:?}");
    assert!(whys.iter().any(|w| w.contains("segment 2 is damaged")), "{whys:?}");
    assert!(whys.iter().any(|w| w.contains(&world.backups[1].to_string())), "{whys:?}");
}

#[test]
fn a_damaged_backup_opens_no_window_and_the_next_one_does() {
    let world = world();
    let mut bad = None;
    // The first data segment of the first backup: its first frame is its only block.
    for name in world.objects.list("segments/").unwrap() {
        let before = world.check();
        assert!(world.disk.flip_bit(format!("/repo/{name}").as_ref(), 4096 + 100, 1));
        let report = world.check();
        let whole = |r: &Report| r.backups.iter().map(|b| b.whole).collect::<Vec<_>>();
        if whole(&before) == [true, true] && whole(&report) == [false, true] {
            bad = Some(report);
            break;
        }
        assert!(world.disk.flip_bit(format!("/repo/{name}").as_ref(), 4096 + 100, 1));
    }
    let report = bad.unwrap();
    let (windows, holes) = summary(&report);
    assert_eq!(windows, [(at(2204), "now".to_owned())], "{}", report.text());
    assert_eq!(holes.len(), 1, "{}", report.text());
    assert_eq!((&holes[0].0, &holes[0].1), (&at(204), &at(2204)));
    assert!(holes[0].2.contains(&world.backups[0].to_string()), "{holes:?}");
}

#[test]
fn a_log_that_could_not_go_on_ends_its_window_with_the_reason() {
    let world = world();
    let reason = "the source has purged binlog.000002".to_owned();
    let gap =
        LogGap { stream: stream(), after: position(4004, &gtid(4004)), reason: reason.clone(), at_us: 1 };
    world.repo.append(Record::LogGap(gap)).unwrap();
    let report = world.check();
    let (windows, holes) = summary(&report);
    assert_eq!(windows.len(), 1, "{}", report.text());
    assert_eq!(holes, [("now".to_owned(), "the end of the log".to_owned(), reason)], "{}", report.text());
}
