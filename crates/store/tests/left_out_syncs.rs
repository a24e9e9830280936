//! Mutants of the commit path: each sync of backups, a log, forgets and prunes is left out once. The program sees no
//! difference; a crash must, or no test would ever tell that somebody took the sync away.
//!
//! For each mutant the disk that lost whatever was not synced is looked at right behind the sync and whenever something
//! was acknowledged later. A mutant that nobody notices survives; it must be of a kind that is known to be covered. A few seeded mutants here, `HOLDFAST_TEST_MUTANTS=1000` takes them all.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use common::history::{Files, backup, files, fsck, read, rewrite, thorough, touch};
use common::{create, log_record, objects, open, position, stream};
use holdfast_format::ids::BackupId;
use holdfast_io::SimDisk;
use holdfast_io::sim::{Crash, Op};
use holdfast_store::LogKind;

/// What was promised, and at which length of the trace.
#[derive(Default)]
struct Promised {
    created: usize,
    /// Since when a backup is there, and until when.
    backups: Vec<(usize, usize, BackupId, Files)>,
    frames: Vec<(usize, Vec<u8>)>,
}

fn workload(disk: &SimDisk) -> Promised {
    let mut promised = Promised::default();
    let (repo, _) = create(disk);
    promised.created = disk.trace_len();
    let mut now = files(1, 3);
    let mut parent = None;
    for round in 0..3 {
        let id = backup(&repo, parent, &now).unwrap();
        promised.backups.push((disk.trace_len(), usize::MAX, id, now.clone()));
        parent = Some(id);
        touch(&mut now, 1, 5 + round);
        rewrite(&mut now, 2, 9 + round);
    }
    let mut log = repo.begin_log(stream(), position(4)).unwrap();
    for n in 0..3_u8 {
        let bytes = vec![n; 100];
        log.append(LogKind::Events, &bytes).unwrap();
        log.sync().unwrap();
        promised.frames.push((disk.trace_len(), bytes));
    }
    log.seal(log_record()).unwrap();
    promised.backups[0].1 = disk.trace_len();
    repo.forget(promised.backups[0].2, "test").unwrap();
    repo.prune(&thorough(), &|_, _| {}).unwrap();
    let id = backup(&repo, parent, &now).unwrap();
    promised.backups.push((disk.trace_len(), usize::MAX, id, now));
    promised
}

/// What is wrong with the disk that was found, if anything is.
fn flaw(image: &SimDisk, promised: &Promised, ops: usize) -> Option<String> {
    if ops < promised.created {
        return None;
    }
    let repo = match open(image) {
        Ok(repo) => repo,
        Err(error) => return Some(format!("does not open: {error}")),
    };
    if let Some(damage) = repo.damage() {
        return Some(damage.to_owned());
    }
    let listed: Vec<BackupId> = repo.backups().iter().map(|b| b.id).collect();
    for (since, until, id, files) in &promised.backups {
        if *since <= ops && ops <= *until && !listed.contains(id) {
            return Some(format!("backup {id} is lost"));
        }
        if listed.contains(id) {
            match read(&repo, *id) {
                Ok(found) if found == *files => {}
                Ok(_) => return Some(format!("backup {id} differs")),
                Err(error) => return Some(error.to_string()),
            }
        }
    }
    let due = promised.frames.iter().filter(|(at, _)| *at <= ops).map(|(_, bytes)| bytes);
    let mut found = Vec::new();
    for segment in repo.logs(stream()).ok()? {
        match repo.read_log(&segment, 0) {
            Ok(frames) => found.extend(frames.map_while(Result::ok).map(|frame| frame.plain)),
            Err(error) => return Some(error.to_string()),
        }
    }
    if !due.zip(found.iter().map(Some).chain(std::iter::repeat(None))).all(|(due, found)| Some(due) == found)
    {
        return Some("a frame of the log is lost".to_owned());
    }
    catch_unwind(AssertUnwindSafe(|| fsck(&objects(image), "mutant"))).err().map(|_| "fsck".to_owned())
}

/// Leaves the sync at `nth` of the trace out, and looks at what crashes leave then.
fn noticed(disk: &SimDisk, promised: &Promised, nth: usize) -> Option<String> {
    let mut moments: Vec<usize> = promised.backups.iter().map(|(at, ..)| *at).collect();
    moments.extend(promised.frames.iter().map(|(at, _)| *at));
    moments.extend([promised.created, disk.trace_len()]);
    moments.extend(nth + 1..nth + 7);
    let mut walk = disk.walk();
    while walk.ops() < nth {
        assert!(walk.step());
    }
    assert!(matches!(walk.leave_out(), Some(Op::Sync { .. } | Op::SyncDir { .. })));
    loop {
        let ops = walk.ops();
        if moments.contains(&ops) {
            for crash in [Crash::Nothing, Crash::Random { seed: nth as u64 }] {
                if let Some(flaw) = flaw(&walk.image(crash), promised, ops) {
                    return Some(flaw);
                }
            }
        }
        if !walk.step() {
            return None;
        }
    }
}

/// Behind the name of a log whose header is synced.
const HEADER: &str = " (header)";

/// The syncs of the trace, and what they sync.
fn syncs(disk: &SimDisk) -> Vec<(usize, String)> {
    let mut paths = BTreeMap::new();
    let mut found = Vec::new();
    for (at, op) in disk.trace().into_iter().enumerate() {
        match op {
            Op::Create { path, node, .. } => drop(paths.insert(node, path)),
            Op::Rename { to, node, .. } => drop(paths.insert(node, to)),
            Op::Sync { node } => found.push((at, paths.get(&node).cloned().unwrap_or_default())),
            Op::SyncDir { path } => found.push((at, path.join(""))),
            _ => {}
        }
    }
    let mut begun = BTreeSet::new();
    let text = |(at, path): (usize, PathBuf)| {
        let name = path.strip_prefix("/repo").unwrap_or(&path).display().to_string();
        let header = name.starts_with("logs/") && begun.insert(name.clone());
        (at, if header { name + HEADER } else { name })
    };
    found.into_iter().map(text).collect()
}

#[test]
fn no_sync_of_the_commit_path_can_be_left_out_unnoticed() {
    let wanted: usize = std::env::var("HOLDFAST_TEST_MUTANTS").map_or(8, |text| text.parse().unwrap());
    let disk = SimDisk::new();
    let promised = workload(&disk);
    let all = syncs(&disk);
    let seed: usize = std::env::var("HOLDFAST_TEST_SEED").map_or_else(
        |_| {
            std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos()
                as usize
        },
        |text| text.parse().unwrap(),
    );
    println!("HOLDFAST_TEST_SEED={seed} cargo test -p holdfast-store --test left_out_syncs");
    let step = (all.len() / wanted).max(1);
    let chosen: Vec<_> = all.iter().skip(seed % step).step_by(step).collect();
    // A second reader that finds flaws says so by a panic: not in the test's output.
    let loud = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let found: Vec<_> = chosen.iter().map(|(at, path)| (path, noticed(&disk, &promised, *at))).collect();
    std::panic::set_hook(loud);
    for (path, flaw) in &found {
        println!("{path}: {}", flaw.as_deref().unwrap_or("SURVIVES"));
    }
    let survivors: Vec<_> = found.iter().filter(|(_, flaw)| flaw.is_none()).map(|(path, _)| path).collect();
    println!("{} of {} mutants are noticed", found.len() - survivors.len(), found.len());
    let unknown: Vec<_> = survivors.iter().filter(|path| !covered(path)).collect();
    assert!(unknown.is_empty(), "nobody notices that these are not synced: {unknown:?}");
}

/// What may survive, and why: names that a later sync of the same folder makes durable before anything is acknowledged
/// (the top folder, the keyring, segments; and a dead segment that comes back is dead still), a record whose second copy
/// stands (manifest), what is a hint only (head) or is nobody's after a crash (sessions), a log's header, which the sync
/// of its first frame covers. The syncs of all other files, and of the last folder of each commit, must be noticed.
fn covered(path: &str) -> bool {
    ["", "/", "keyring", "segments", "manifest", "head", "sessions"].contains(&path) || path.ends_with(HEADER)
}
