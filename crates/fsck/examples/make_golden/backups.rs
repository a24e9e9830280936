//! Backups: deltas of every depth, dictionaries of segments that grow, a map of several leaves, coordinates of each kind,
//! one that is forgotten, and one that was broken off.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use holdfast_store::format::gtid::{Flavor, GtidSet};
use holdfast_store::format::ids::{BackupId, ServerId};
use holdfast_store::format::map::SourceState;
use holdfast_store::format::record::{Coordinates, Position, Record, ServerKind, ServerRecord, SourceKind};
use holdfast_store::{BackupDraft, FileSpec, PruneOptions, Repository};

use crate::common::{BLOCK, SERVER, Source, first_backup, noise, page_like};

pub const MARIA: ServerId = ServerId([8; 16]);
const FOLDER: ServerId = ServerId([6; 16]);
const GONE: ServerId = ServerId([5; 16]);

/// Blocks of the file that changes from backup to backup.
const CHANGING: usize = 3;

/// A backup that was made, and what went into it.
pub struct Made {
    pub id: BackupId,
    pub server: &'static str,
    pub note: String,
    pub files: Vec<Source>,
    pub coordinates: Coordinates,
    /// What a copy of it told when it was started.
    pub learned: Option<Position>,
    /// Blocks with an address, by the depth of their chains of deltas.
    pub depths: [usize; 5],
    pub forgotten: bool,
}

pub fn add_servers(repo: &Repository) {
    let server = |id, name: &str, flavor, kind, version: &str| ServerRecord {
        id,
        name: name.to_owned(),
        flavor,
        kind,
        source_uuid: None,
        version: version.to_owned(),
        added_us: 1_700_000_000_000_001,
    };
    let socket = Some("/run/mysqld/mysqld.sock".to_owned());
    let maria = ServerKind::Network { host: String::new(), port: 0, socket };
    let folder = || ServerKind::Folder { path: "/srv/files".to_owned() };
    for server in [
        server(MARIA, "maria", Some(Flavor::MariaDb), maria, "10.11.19-MariaDB"),
        server(FOLDER, "files", None, folder(), ""),
        server(GONE, "gone", None, folder(), ""),
    ] {
        repo.append(Record::ServerPut(server)).unwrap();
    }
    repo.append(Record::ServerRemoved { server: GONE }).unwrap();
}

pub fn back_up_all(repo: &Repository) -> Vec<Made> {
    let mut all = history(repo);
    all.push(of_mariadb(repo));
    all.push(wide(repo));
    // What was exact only after a copy had been started.
    let learned = at("binlog.000004", 500, Flavor::MySql, &tagged(9));
    let backup = all[1].id;
    repo.append(Record::CoordinatesLearned { backup, position: learned.clone() }).unwrap();
    all[1].learned = Some(learned);
    repo.append(Record::BackupForgotten { backup: all[2].id, reason: "keep 2 daily".to_owned() }).unwrap();
    all[2].forgotten = true;
    all
}

fn at(file: &str, offset: u64, flavor: Flavor, gtid: &str) -> Position {
    Position { file: file.to_owned(), offset, gtid: GtidSet::parse(flavor, gtid).unwrap() }
}

/// A set with holes, with two tags, of two servers.
fn tagged(last: u64) -> String {
    format!(
        "09090909-0909-0909-0909-090909090909:1-3:5-{last}:backup:1:drill:2-4,1a1a1a1a-0909-0909-0909-090909090909:7"
    )
}

/// Six backups of one server: each changes a little of what the one before changed, so each is a delta of it, and the
/// last one, whose deltas would be too deep, is whole again.
fn history(repo: &Repository) -> Vec<Made> {
    let mut files = first_backup();
    let blocks = (0..CHANGING as u64).map(|n| Some(noise(40 + n, BLOCK)));
    files.push(Source::file("shop/changing.ibd", blocks.chain([Some(page_like(49, 100))]).collect()));
    let of_others = 7;
    let mut made: Vec<Made> = Vec::new();
    for depth in [0, 1, 2, 3, 4, 0] {
        let number = made.len() as u64;
        if number > 0 {
            let changing = files.last_mut().unwrap();
            for (place, block) in changing.blocks[..CHANGING].iter_mut().enumerate() {
                let start = 1000 * (number as usize + 1) + 300 * place;
                block.as_mut().unwrap()[start..start + 40].copy_from_slice(&noise(number, 40));
            }
            changing.mtime_us += 1;
        }
        let mut depths = [0; 5];
        depths[0] = of_others;
        depths[depth] += CHANGING;
        let coordinates = if number == 1 {
            Coordinates::Between {
                lo: at("binlog.000004", 4, Flavor::MySql, &tagged(6)),
                hi: at("binlog.000005", 4, Flavor::MySql, &tagged(20)),
            }
        } else {
            Coordinates::Exact(at("binlog.000004", 100 + number, Flavor::MySql, &tagged(6 + number)))
        };
        let parent = made.last().map(|m| m.id);
        let draft = draft(SERVER, SourceKind::Clone, coordinates.clone(), &format!("depth {depth}"));
        let id = commit(repo, parent, &files, draft, if number > 0 && depth > 0 { CHANGING } else { 0 });
        made.push(Made {
            id,
            server: "shop",
            note: format!("depth {depth}"),
            files: files.iter().map(copy).collect(),
            coordinates,
            learned: None,
            depths,
            forgotten: false,
        });
    }
    made
}

fn of_mariadb(repo: &Repository) -> Made {
    let files =
        vec![Source::folder("mysql"), Source::file("mysql/user.MAD", vec![Some(page_like(60, 8192))])];
    let coordinates = Coordinates::Exact(at("mariadb.000006", 4, Flavor::MariaDb, "0-1-5,1-1-70000,42-3-9"));
    let draft = draft(MARIA, SourceKind::Xbstream, coordinates.clone(), "of MariaDB");
    let id = commit(repo, None, &files, draft, 0);
    Made {
        id,
        server: "maria",
        note: "of MariaDB".to_owned(),
        files,
        coordinates,
        learned: None,
        depths: [1, 0, 0, 0, 0],
        forgotten: false,
    }
}

/// So many long paths that they need two leaves.
fn wide(repo: &Repository) -> Made {
    let mut files = Vec::new();
    let mut folder = String::new();
    for part in ["a", "b", "c"] {
        folder = format!("{folder}{}{}", if folder.is_empty() { "" } else { "/" }, part.repeat(240));
        files.push(Source::folder(&folder));
    }
    for number in 0..1100 {
        let path = format!("{folder}/{}{number:05}", "d".repeat(200));
        let content = if number % 100 == 0 { vec![Some(noise(number + 1, 10))] } else { Vec::new() };
        files.push(Source::file(&path, content));
    }
    let draft = draft(FOLDER, SourceKind::Snapshot, Coordinates::None, "wide");
    let id = commit(repo, None, &files, draft, 0);
    Made {
        id,
        server: "files",
        note: "wide".to_owned(),
        files,
        coordinates: Coordinates::None,
        learned: None,
        depths: [11, 0, 0, 0, 0],
        forgotten: false,
    }
}

/// A backup that needs some blocks of one before it which is forgotten: a prune carries them to another segment.
pub fn thinned(repo: &Repository) -> Made {
    let file = |numbers: &[u64]| {
        Source::file("thinned", numbers.iter().map(|n| Some(noise(80 + n, BLOCK))).collect())
    };
    let of = |note| draft(FOLDER, SourceKind::Folder, Coordinates::None, note);
    let first = commit(repo, None, &[file(&[0, 1, 2, 3])], of("to be thinned"), 0);
    let files = vec![file(&[1, 3])];
    // No delta: both blocks are there already.
    let id = commit(repo, None, &files, of("thinned"), 0);
    repo.append(Record::BackupForgotten { backup: first, reason: "thin".to_owned() }).unwrap();
    let options = PruneOptions { dead_percent_max: 0, ..PruneOptions::default() };
    let report = repo.prune(&options, &|_, _| {}).unwrap();
    assert!(!report.plan.carry.is_empty(), "nothing was carried");
    Made {
        id,
        server: "files",
        note: "thinned".to_owned(),
        files,
        coordinates: Coordinates::None,
        learned: None,
        depths: [2, 0, 0, 0, 0],
        forgotten: false,
    }
}

/// A backup whose process dies: its segment was never sealed, its session is nobody's.
pub fn break_off(repo: &Repository, root: &Path) {
    let segments = || -> BTreeSet<PathBuf> {
        std::fs::read_dir(root.join("segments")).unwrap().map(|e| e.unwrap().path()).collect()
    };
    let before = segments();
    let writer = repo.begin_backup(None).unwrap();
    put(&writer, &[Source::file("never", vec![Some(noise(70, 5000))])]);
    writer.barrier().unwrap();
    std::mem::forget(writer);
    // As much of it as had reached the disk.
    let segment = segments().difference(&before).next().unwrap().clone();
    std::fs::OpenOptions::new().write(true).open(segment).unwrap().set_len(4096 + 3000).unwrap();
}

fn copy(source: &Source) -> Source {
    Source {
        path: source.path.clone(),
        kind: source.kind.clone(),
        blocks: source.blocks.clone(),
        mode: source.mode,
        mtime_us: source.mtime_us,
    }
}

fn draft(server: ServerId, source: SourceKind, coordinates: Coordinates, note: &str) -> BackupDraft {
    BackupDraft {
        server,
        source,
        coordinates,
        facts: vec![("version".to_owned(), "9.7.4".to_owned()), ("ünicode".to_owned(), String::new())],
        note: note.to_owned(),
        warnings: vec!["a warning".to_owned()],
    }
}

fn put(writer: &holdfast_store::BackupWriter, files: &[Source]) {
    for source in files {
        let spec = FileSpec {
            path: source.path.clone(),
            kind: source.kind.clone(),
            len: source.bytes().len() as u64,
            mode: source.mode,
            mtime_us: source.mtime_us,
        };
        let file = writer.add_file(spec).unwrap();
        if source.path.ends_with(b".MAD") {
            let time_ns = source.mtime_us * 1000 + 7;
            let state = SourceState { inode: 77, modified_ns: time_ns, changed_ns: time_ns + 1 };
            writer.set_state(file, state).unwrap();
        }
        for (number, block) in source.blocks.iter().enumerate() {
            if let Some(block) = block {
                writer.put_block(file, number as u32, block).unwrap();
            }
        }
    }
}

pub fn commit(
    repo: &Repository,
    parent: Option<BackupId>,
    files: &[Source],
    draft: BackupDraft,
    deltas: usize,
) -> BackupId {
    let writer = repo.begin_backup(parent).unwrap();
    put(&writer, files);
    let record = writer.commit(draft).unwrap();
    assert_eq!(record.stats.delta_blocks, deltas as u64, "the store made other deltas than were meant");
    assert!(record.stats.parity_bytes > 0);
    record.id
}
