use std::path::Path;

use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::SourceKind;

use super::*;
use crate::error::Foreign;
use crate::seam::{Gap, LaidOut, LayingOut, Side};
use holdfast_replay::LogReader;

struct Copy {
    id: &'static str,
    coordinates: Coordinates,
}

impl Base for Copy {
    fn id(&self) -> String {
        self.id.to_owned()
    }
    fn finished_us(&self) -> i64 {
        self.id.parse::<i64>().unwrap() * 1_000_000
    }
    fn kind(&self) -> SourceKind {
        SourceKind::Clone
    }
    fn coordinates(&self) -> &Coordinates {
        &self.coordinates
    }
    fn fact(&self, name: &str) -> Option<&str> {
        (name == "version").then_some("9.7.4")
    }
    fn warnings(&self) -> Vec<String> {
        vec!["shop.m is a MyISAM table: its rows are not in the backup.".to_owned()]
    }
    fn bytes(&self) -> u64 {
        1000
    }
    fn files(&self) -> u64 {
        3
    }
    fn restore_into(
        &self,
        _: &Path,
        _: &(dyn Fn(LayingOut) -> std::ops::ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        unreachable!("a plan touches nothing")
    }
}

fn at(offset: u64) -> Position {
    Position { file: "binlog.000001".to_owned(), offset, gtid: GtidSet::empty(Flavor::MySql) }
}

fn exact(id: &'static str, offset: u64) -> Copy {
    Copy { id, coordinates: Coordinates::Exact(at(offset)) }
}

fn between(id: &'static str, lo: u64, hi: u64) -> Copy {
    Copy { id, coordinates: Coordinates::Between { lo: at(lo), hi: at(hi) } }
}

/// A log from 100 to 1000, perhaps with a hole; a transaction every 10 bytes.
struct Line {
    hole: Option<u64>,
}

impl Log for Line {
    fn place(&self, position: &Position) -> Result<Option<Place>, Foreign> {
        Ok((100..=1000).contains(&position.offset).then_some(Place(position.offset)))
    }
    fn resolve(&self, target: &Target) -> Result<Result<Border, Gap>, Foreign> {
        let Target::Position { offset, .. } = target else { unreachable!("tests ask for positions") };
        if *offset > 1000 {
            return Ok(Err(Gap {
                reason: "it lies after the last event".to_owned(),
                before: Some(position(1000)),
                after: None,
            }));
        }
        Ok(Ok(Border { place: Place(*offset), last_kept: None, first_left_out: None }))
    }
    fn gap(&self, from: Place, until: Place) -> Result<Option<Gap>, Foreign> {
        let hole = self.hole.filter(|&hole| from.0 <= hole && hole < until.0);
        Ok(hole.map(|hole| Gap {
            reason: "purged before it was read".to_owned(),
            before: Some(position(hole)),
            after: Some(position(hole + 50)),
        }))
    }
    fn size(&self, from: Place, until: Place) -> Result<LogSize, Foreign> {
        Ok(LogSize { transactions: (until.0 - from.0) / 10, bytes: until.0 - from.0 })
    }
    fn read(&self, _: Place, _: Place) -> Result<Box<dyn LogReader + '_>, Foreign> {
        unreachable!("a plan reads no event")
    }
}

fn position(offset: u64) -> Target {
    Target::Position { file: "binlog.000001".to_owned(), offset, life: None }
}

fn choose(copies: &[Copy], hole: Option<u64>, offset: u64) -> Result<Plan> {
    let bases: Vec<&dyn Base> = copies.iter().map(|copy| copy as &dyn Base).collect();
    let (index, plan) = plan(&bases, &Line { hole }, &position(offset))?;
    assert_eq!(copies[index].id, plan.base);
    Ok(plan)
}

#[test]
fn the_newest_base_at_or_before_the_target_is_taken() {
    let copies = [exact("1", 200), exact("3", 600), exact("2", 400)];
    for (target, base) in [(999, "3"), (600, "3"), (599, "2"), (400, "2"), (200, "1")] {
        assert_eq!(choose(&copies, None, target).unwrap().base, base, "target {target}");
    }
}

#[test]
fn a_bracketed_base_is_taken_only_when_its_upper_bound_is_not_after_the_target() {
    let copies = [exact("1", 200), between("2", 400, 500)];
    assert_eq!(choose(&copies, None, 499).unwrap().base, "1");
    let plan = choose(&copies, None, 500).unwrap();
    assert_eq!(plan.base, "2");
    assert_eq!(plan.log.unwrap().from, Place(400), "its log is read from the lower bound");
}

#[test]
fn a_hole_in_the_log_is_never_replayed_over() {
    let copies = [exact("1", 200), exact("2", 400)];
    assert_eq!(choose(&copies, Some(300), 500).unwrap().base, "2");
    let error = choose(&copies, Some(450), 500).unwrap_err();
    assert_eq!(error.exit_code(), Some(20));
    let text = error.to_string();
    for part in ["hole", "--to pos:binlog.000001:450"] {
        assert!(text.contains(part), "{part} is not in: {text}");
    }
    assert!(!text.contains("pos:binlog.000001:500"), "no base leads behind the hole: {text}");
    let copies = [exact("1", 200), exact("2", 400), exact("9", 520)];
    let text = choose(&copies, Some(450), 510).unwrap_err().to_string();
    assert!(text.contains("1970-01-01T00:00:09Z"), "the first base behind it: {text}");
}

/// A hole before the first backup had its near edge named as a point that can be reached.
#[test]
fn a_point_that_no_base_leads_to_is_not_among_the_nearest() {
    let copies = [exact("5", 1000)];
    let bases: Vec<&dyn Base> = copies.iter().map(|copy| copy as &dyn Base).collect();
    let gap = Gap { reason: String::new(), before: Some(position(450)), after: Some(position(500)) };
    let found = nearest(&bases, &Line { hole: Some(450) }, &gap).unwrap();
    assert_eq!(found, [None, Some("1970-01-01T00:00:05Z".to_owned())]);
}

#[test]
fn a_target_before_the_first_backup_or_after_the_last_event_names_the_nearest_point() {
    let copies = [exact("5", 200)];
    let error = choose(&copies, None, 150).unwrap_err();
    assert!(error.to_string().contains("1970-01-01T00:00:05Z"), "{error}");
    let error = choose(&copies, None, 2000).unwrap_err();
    assert!(error.to_string().contains("pos:binlog.000001:1000"), "{error}");
    assert_eq!(choose(&[], None, 150).unwrap_err().exit_code(), Some(20));
}

#[test]
fn a_base_without_a_place_in_the_log_serves_only_the_fastest_restore() {
    let copies = [exact("1", 200), Copy { id: "2", coordinates: Coordinates::None }];
    assert_eq!(choose(&copies, None, 300).unwrap().base, "1");
    let bases: Vec<&dyn Base> = copies.iter().map(|copy| copy as &dyn Base).collect();
    let (_, fastest) = plan(&bases, &Line { hole: None }, &Target::Fastest).unwrap();
    assert_eq!((fastest.base.as_str(), fastest.log), ("2", None));
}

#[test]
fn the_plan_says_what_it_needs_and_what_will_be_missing() {
    let plan = choose(&[exact("1", 200)], None, 300).unwrap();
    assert_eq!(plan.space_needed, 1000 + 200 + SPARE_BYTES);
    assert!(plan.not_restored.iter().any(|line| line.contains("MyISAM")));
    assert_eq!(plan.version.as_deref(), Some("9.7.4"));
    let target = Target::Transaction { id: "gtid:1-2-3".to_owned(), side: Side::Before };
    assert_eq!(target.to_string(), "the point before gtid:1-2-3");
}
