//! Which sets of GTIDs are moments of a log, on logs made up of GTIDs alone.

use std::collections::BTreeSet;

use holdfast_format::gtid::Gtid;
use holdfast_format::txn_index::{IndexFrame, TxnEntry, TxnKind};

use super::*;
use crate::server_log::{Cut, Hole};

/// Entries of a frame of the index: few, so that a log has many.
const ENTRIES_A_FRAME: usize = 3;

/// A life of a log in which these come, behind what was executed before it; `None` has no GTID.
fn life(memory: &Memory, incarnation: u32, executed: &GtidSet, gtids: &[Option<Gtid>]) {
    let stream = StreamKey { incarnation, ..STREAM };
    let files: Vec<&[Option<Gtid>]> = gtids.chunks(gtids.len() / 2 + 1).collect();
    let mut before = executed.clone();
    for (number, gtids) in files.iter().enumerate() {
        let file = format!("binlog.{:06}", number + 1);
        let entries = gtids.iter().enumerate().map(|(n, gtid)| TxnEntry {
            gtid: gtid.clone(),
            start: start(n),
            end: start(n + 1),
            commit_us: 1_700_000_000_000_000,
            kind: TxnKind::Rows,
            tables: Vec::new(),
            tables_cut: false,
            rolled_back: false,
            statement: None,
        });
        let entries: Vec<TxnEntry> = entries.collect();
        let count = entries.len().div_ceil(ENTRIES_A_FRAME).max(1);
        let frames = (0..count).map(|n| IndexFrame {
            number: number as u64,
            file: file.clone(),
            complete: n + 1 == count,
            entries: entries.iter().skip(n * ENTRIES_A_FRAME).take(ENTRIES_A_FRAME).cloned().collect(),
        });
        let frames: Vec<_> = frames.map(|frame| (FrameKind::LogIndex, frame.encode())).collect();
        let at = |offset, gtid: &GtidSet| Position { file: file.clone(), offset, gtid: gtid.clone() };
        let first = at(FIRST_OFFSET, &before);
        gtids.iter().flatten().for_each(|gtid| before.add(gtid).unwrap());
        let counts = crate::stretch::Counts { transactions: gtids.len() as u64, ..Default::default() };
        let mut state = memory.0.lock().unwrap();
        let segment = SegmentId((state.segments.len() as u128).to_be_bytes());
        let record = counts.record(&stream, number as u64, segment, &first, &at(start(gtids.len()), &before));
        let stretch = Stretch {
            segment,
            stream,
            number: number as u64,
            start: first,
            opened_us: 0,
            sealed: Some(record),
        };
        let synced = frames.len();
        state.segments.push(Segment { stretch, frames, synced, rotten: None });
    }
}

fn start(n: usize) -> u64 {
    1000 + 100 * n as u64
}

fn set(text: &str) -> GtidSet {
    let flavor = if text.contains(':') { Flavor::MySql } else { Flavor::MariaDb };
    GtidSet::parse(flavor, text).unwrap()
}

fn gtids(list: &[&str]) -> Vec<Option<Gtid>> {
    list.iter().map(|text| text.parse().ok()).collect()
}

fn resolve(memory: &Memory, wanted: &GtidSet, life: Option<u32>) -> std::result::Result<Cut, Box<Hole>> {
    let log = ServerLog::open(memory, STREAM.server).unwrap();
    log.resolve(&Target::Set { set: wanted.clone(), life }).unwrap().map_err(Box::new)
}

fn id(indexed: &Option<Indexed>) -> Option<String> {
    indexed.as_ref().map(Indexed::id)
}

fn u(n: u8) -> Uuid {
    Uuid([n; 16])
}

#[test]
fn a_set_of_tagged_gtids_leads_behind_exactly_its_transactions_or_is_refused_by_name() {
    let memory = Memory::default();
    let (a, b) = (u(0xaa), u(0xbb));
    let names = [
        format!("{a}:6"),
        format!("{a}:x:1"),
        format!("{b}:1"),
        "none".to_owned(),
        format!("{a}:8"),
        format!("{a}:7"),
    ];
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    life(&memory, 0, &set(&format!("{a}:1-5")), &gtids(&names));

    let at = |text: String| resolve(&memory, &set(&text), None);
    let cut = at(format!("{a}:1-6:x:1")).unwrap();
    assert_eq!(id(&cut.kept).unwrap(), format!("gtid:{a}:x:1"));
    assert_eq!(id(&cut.left_out).unwrap(), format!("gtid:{b}:1"));
    // What was executed before the log begins is a moment, too: its begin.
    let begin = at(format!("{a}:1-5")).unwrap();
    assert_eq!((begin.place, &begin.kept), (Place(FIRST_OFFSET), &None));
    let end = at(format!("{a}:1-8:x:1,{b}:1")).unwrap();
    assert_eq!((id(&end.kept).unwrap(), &end.left_out), (format!("gtid:{a}:7"), &None));

    // Seven came behind eight.
    let hole = at(format!("{a}:1-7:x:1,{b}:1")).unwrap_err();
    assert!(hole.reason.contains("no beginning of the log"), "{}", hole.reason);
    assert!(hole.reason.contains(&format!("{a}:8 is, too")), "{}", hole.reason);
    assert_eq!((id(&hole.after).unwrap(), hole.behind), (format!("gtid:{a}:7"), true));
    assert_eq!(id(&hole.before).unwrap(), "pos:binlog.000001:1300");
    let hole = at(format!("{a}:2-6")).unwrap_err();
    let words = format!("it lacks {a}:1, which was executed before");
    assert!(hole.reason.contains(&words), "{}", hole.reason);
    let hole = at(format!("{a}:1-6:10-12:x:1,{b}:1-2")).unwrap_err();
    assert!(hole.reason.contains(&format!("{a}:10-12,{b}:2 of it is not in the archive")), "{}", hole.reason);
    assert_eq!(id(&hole.before).unwrap(), "pos:binlog.000001:1300", "what the log has of it and no more");
    let hole = at("0-1-5".to_owned()).unwrap_err();
    assert!(hole.reason.contains("a set of MariaDB, and the log is one of MySQL"), "{}", hole.reason);
}

#[test]
fn a_position_of_several_domains_leads_behind_the_last_of_each_or_is_refused_by_name() {
    let memory = Memory::default();
    life(&memory, 0, &set("0-1-4"), &gtids(&["0-1-5", "1-2-1", "0-1-6", "0-3-8", "1-2-2"]));
    let at = |text: &str| resolve(&memory, &set(text), None);
    let cut = at("1-2-1,0-1-5").unwrap();
    assert_eq!(
        (id(&cut.kept).unwrap(), id(&cut.left_out).unwrap()),
        ("gtid:1-2-1".into(), "gtid:0-1-6".into())
    );
    assert_eq!(at("0-1-4").unwrap().place, Place(FIRST_OFFSET));
    assert_eq!(id(&at("0-3-8,1-2-2").unwrap().left_out), None);
    for (text, words) in [
        ("0-1-6", "1-2-1 is, too"),
        ("0-1-5,1-2-2", "0-3-8 is, too"),
        ("0-1-7,1-2-1", "0-1-7 of it is not in the archive"),
        ("0-1-8,1-2-1", "0-1-8 of it is not in the archive"),
        ("0-1-5,1-2-1,2-9-1", "2-9-1 of it is not in the archive"),
        ("0-1-3", "it lacks 0-1-4, which was executed before"),
        ("1-2-1", "it lacks 0-1-4, which was executed before"),
    ] {
        let hole = at(text).unwrap_err();
        assert!(hole.reason.contains(words), "{text}: {}", hole.reason);
    }
    // Where numbers go back, the position that a server would tell is another one.
    let memory = Memory::default();
    life(&memory, 0, &set("0-1-4"), &gtids(&["0-1-9", "0-2-7", "1-1-1"]));
    let hole = resolve(&memory, &set("0-1-9,1-1-1"), None).unwrap_err();
    assert!(hole.reason.contains("go back in domain 0: 0-2-7"), "{}", hole.reason);
    // Before that the source itself showed the higher number: what it wrote later is left out, and is no part of that moment.
    let memory = Memory::default();
    life(&memory, 0, &set("0-1-4"), &gtids(&["0-1-9", "0-2-7"]));
    let cut = resolve(&memory, &set("0-1-9"), None).unwrap();
    assert_eq!(
        (id(&cut.kept).unwrap(), id(&cut.left_out).unwrap()),
        ("gtid:0-1-9".into(), "gtid:0-2-7".into())
    );
    let hole = resolve(&memory, &set("0-2-7"), None).unwrap_err();
    assert!(hole.reason.contains("0-1-9 is, too"), "{}", hole.reason);
}

#[test]
fn of_several_lives_with_the_same_set_one_must_be_named() {
    let memory = Memory::default();
    let a = u(0xaa);
    let (one, two) = (format!("{a}:1"), format!("{a}:2"));
    for incarnation in [0, 1] {
        life(&memory, incarnation, &GtidSet::empty(Flavor::MySql), &gtids(&[&one, &two]));
    }
    let wanted = set(&format!("{a}:1"));
    let hole = resolve(&memory, &wanted, None).unwrap_err();
    assert!(hole.reason.contains(&format!("gtid-set:{a}:1@0 or gtid-set:{a}:1@1")), "{}", hole.reason);
    for life in [0, 1] {
        let cut = resolve(&memory, &wanted, Some(life)).unwrap();
        assert_eq!((cut.kept.unwrap().life, cut.left_out.unwrap().life), (Some(life), Some(life)));
    }
    assert!(resolve(&memory, &wanted, Some(7)).is_err());
    // A log without GTIDs says so.
    let memory = Memory::default();
    life(&memory, 0, &GtidSet::empty(Flavor::MySql), &[None, None]);
    assert!(resolve(&memory, &wanted, None).unwrap_err().reason.contains("have no GTIDs"));
}

/// Every beginning of a log is found by its set, and a set that is none is taken as one by nobody.
#[test]
fn a_set_is_taken_if_and_only_if_the_log_had_just_these() {
    for seed in 0..300_u64 {
        let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut below = |n: u64| {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random % n
        };
        // Numbers of each source rise, but for some that come late; sources take turns.
        let sources = [format!("{}", u(1)), format!("{}", u(2)), format!("{}:tag", u(1))];
        let mut next = [1_u64; 3];
        let mut executed = GtidSet::empty(Flavor::MySql);
        for _ in 0..below(4) {
            let at = below(3) as usize;
            executed.add(&format!("{}:{}", sources[at], next[at]).parse().unwrap()).unwrap();
            next[at] += 1;
        }
        let mut log = Vec::new();
        for _ in 0..1 + below(20) {
            let at = below(3) as usize;
            log.push(format!("{}:{}", sources[at], next[at]));
            next[at] += 1;
        }
        for _ in 0..below(3) {
            let (one, other) = (below(log.len() as u64) as usize, below(log.len() as u64) as usize);
            log.swap(one, other);
        }
        let memory = Memory::default();
        let parsed: Vec<Option<Gtid>> = log.iter().map(|text| text.parse().ok()).collect();
        life(&memory, 0, &executed, &parsed);
        let mut then = executed.clone();
        let mut beginnings = BTreeSet::from([then.to_string()]);
        for (n, gtid) in parsed.iter().flatten().enumerate() {
            then.add(gtid).unwrap();
            beginnings.insert(then.to_string());
            let cut = resolve(&memory, &then, None).unwrap_or_else(|hole| panic!("seed {seed}: {hole:?}"));
            assert_eq!(cut.kept.unwrap().entry.gtid.as_ref(), Some(gtid), "seed {seed}");
            let behind = cut.left_out.and_then(|left| left.entry.gtid);
            assert_eq!(behind.as_ref(), parsed.get(n + 1).and_then(Option::as_ref), "seed {seed}");
        }
        for _ in 0..20 {
            let mut wanted = executed.clone();
            for gtid in parsed.iter().flatten() {
                if below(3) > 0 {
                    wanted.add(gtid).unwrap();
                }
            }
            if wanted.is_empty() {
                continue;
            }
            let told = resolve(&memory, &wanted, None);
            let is = beginnings.contains(&wanted.to_string());
            assert_eq!(told.is_ok(), is, "seed {seed}: {wanted} in {log:?} behind {executed}");
            let Err(hole) = told else { continue };
            // The point that is named behind it has all of it; the one before it nothing else.
            assert!(hole.behind, "seed {seed}: {}", hole.reason);
            let had = |upto: &Option<Indexed>| {
                let last = upto.as_ref().map(|indexed| indexed.entry.gtid.clone());
                let count = last.map_or(0, |last| parsed.iter().position(|gtid| *gtid == last).unwrap() + 1);
                let mut set = executed.clone();
                parsed.iter().take(count).flatten().for_each(|gtid| set.add(gtid).unwrap());
                set
            };
            assert!(wanted.is_subset(&had(&hole.after)), "seed {seed}: {wanted}");
            assert!(had(&hole.before).is_subset(&wanted), "seed {seed}: {wanted}");
        }
    }
}
