//! A server that fails over to another one, whose log goes on behind the first one's; and what backups, records and notes
//! of a log say beyond what every repository has: dates, holds, locks and lineage, copies from a replica, saved folders,
//! imported dumps, signed reports, segments that were spared, log that retention took away.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};

use holdfast_archive::mark::{self, FileMark};
use holdfast_store::format::gtid::{Flavor, Uuid};
use holdfast_store::format::ids::{BackupId, ServerId, hex};
use holdfast_store::format::names;
use holdfast_store::format::record::{
    COPIED_FROM, Coordinates, HELD_FACT, HoldRecord, KEEP_FACT, OriginRecord, Position, Record, ReportRecord,
    ServerKind, ServerLockRecord, ServerRecord, SourceKind, StreamKey,
};
use holdfast_store::{BackupDraft, Repository};
use serde_json::{Value, json};

use crate::backups::{MARIA, Made, commit};
use crate::common::{BLOCK, SERVER, Source, noise, page_like};
use crate::expected;
use crate::logs::{Binlog, Following, Noted};

const FIRST: Uuid = Uuid([9; 16]);
const SECOND: Uuid = Uuid([0x0b; 16]);

/// Microseconds of the sources' clocks at which notes say something.
const NOTED_US: i64 = 1_700_000_300_000_000;

pub fn make(repo: &Repository, root: &Path) -> Value {
    let frames = Arc::new(Mutex::new(BTreeMap::new()));
    let store = Noted { repo, frames: Arc::clone(&frames) };
    let (base, replica) = archive(&store, root);
    let backups = back_up(repo, base, replica);
    let first = backups[0].0.id;
    spare_and_delete(repo, root);
    keep(repo, first);
    reports(repo, first);
    let frames = frames.lock().unwrap();
    // Number 0 of the first stream is deleted.
    let left = frames.iter().filter(|(of, _)| (of.0.source_uuid, of.1) != (FIRST, 0));
    let segments: Vec<Value> = left
        .map(|((stream, number), frames)| {
            let stream = hex(&stream.to_bytes());
            json!({"stream": stream, "number": number, "sealed": true, "frames": frames})
        })
        .collect();
    let told = backups.iter().map(|(made, facts)| {
        let mut told = expected::backup(made);
        told["facts"] = json!(facts.iter().cloned().collect::<BTreeMap<String, String>>());
        told
    });
    json!({
        "repository": repo.id().to_string(),
        "records": repo.records().len(),
        "backups": told.collect::<Vec<_>>(),
        "logs": segments,
        "goes_on": [{"server": "shop", "backups": 2, "to": "other-bin.000002"}],
    })
}

/// Where the backups stand: one that knows its file, with that file's mark, and one of a replica, which knows its
/// transactions only.
fn archive(store: &Noted<'_>, root: &Path) -> ((Position, FileMark), Coordinates) {
    let four = Binlog::read("archive/tests/data/mysql.000004", "binlog.000004");
    let five = Binlog::read("archive/tests/data/mysql.000005", "binlog.000005");
    let stream = StreamKey { server: SERVER, source_uuid: FIRST, incarnation: 0 };
    let mut following = Following { store, root, stream, executed: four.before.clone() };
    let recorder = following.begin(&four, 0, four.all(), None);
    recorder.seal(&following.at(&four, four.all())).unwrap();

    // What is noted of an idle moment, and of a time in which every commit waited for the archive, told twice.
    let ends = five.ends();
    let over = ends[ends.len() / 2];
    let begin = following.at(&five, 2);
    let mark = FileMark::of_events("binlog.000005", (0..2).map(|number| five.event(number).0));
    let mut recorder = following.begin(&five, 0, ends[0], None);
    recorder.complete(NOTED_US).unwrap();
    recorder.zero_loss(NOTED_US, NOTED_US + 1_000_000).unwrap();
    following.put(&mut recorder, &five, ends[0], over);
    recorder.zero_loss(NOTED_US, NOTED_US + 5_000_000).unwrap();
    recorder.seal(&following.at(&five, over)).unwrap();

    // The other server has the rest, in the middle of a file of its own.
    let executed = following.executed;
    let hi = Position { file: String::new(), offset: 0, gtid: executed.clone() };
    let lo = Position { file: String::new(), offset: 0, gtid: begin.gtid.clone() };
    let theirs = Binlog { name: "other-bin.000002".to_owned(), ..five };
    let next = StreamKey { source_uuid: SECOND, incarnation: 1, ..stream };
    let mut following = Following { store, root, stream: next, executed };
    let recorder = following.begin(&theirs, over, theirs.all(), None);
    recorder.seal(&following.at(&theirs, theirs.all())).unwrap();
    ((begin, mark), Coordinates::Between { lo, hi })
}

type Facts = Vec<(String, String)>;

fn back_up(repo: &Repository, base: (Position, FileMark), replica: Coordinates) -> Vec<(Made, Facts)> {
    let (position, mark) = base;
    let of_source = [("server_uuid", FIRST.to_string()), (mark::FACT, mark.to_string())];
    let kept = [
        ("holdfast.name", "before the release".to_owned()),
        (HELD_FACT, "until the audit is over".to_owned()),
        (KEEP_FACT, "1900000000000000".to_owned()),
    ];
    let copied = [(COPIED_FROM, "db-replica (port 3306)".to_owned())];
    let saved = [("holdfast.in_place", "/var/lib/mysql".to_owned())];
    let imported = [("holdfast.imported", "shop.sql.gz".to_owned())];
    let exact = Coordinates::Exact(position);
    [
        (SERVER, "shop", SourceKind::Clone, exact, [&of_source[..], &kept].concat(), "kept"),
        (SERVER, "shop", SourceKind::Clone, replica, [&of_source[..], &copied].concat(), "of a replica"),
        (SERVER, "shop", SourceKind::Folder, Coordinates::None, saved.to_vec(), "saved"),
        (MARIA, "maria again", SourceKind::Folder, Coordinates::None, imported.to_vec(), "imported"),
    ]
    .into_iter()
    .enumerate()
    .map(|(n, (id, server, source, coordinates, facts, note))| {
        let facts = facts.into_iter().map(|(key, value)| (key.to_owned(), value));
        let mut facts: Facts = facts.chain([("version".to_owned(), "9.7.4".to_owned())]).collect();
        facts.sort();
        let blocks = vec![Some(page_like(n as u64, BLOCK)), None, Some(noise(n as u64, 700))];
        let files = vec![Source::folder("shop"), Source::file("shop/orders.ibd", blocks)];
        let draft = BackupDraft {
            server: id,
            source,
            coordinates: coordinates.clone(),
            facts: facts.clone(),
            note: note.to_owned(),
            warnings: Vec::new(),
        };
        let id = commit(repo, None, &files, draft, 0);
        let (note, depths) = (note.to_owned(), [2, 0, 0, 0, 0]);
        (Made { id, server, note, files, coordinates, learned: None, depths, forgotten: false }, facts)
    })
    .collect()
}

/// The first backup's map was condemned and spared; the oldest log is gone, as retention takes it away.
fn spare_and_delete(repo: &Repository, root: &Path) {
    let records = repo.records();
    let map = records.iter().find_map(|stamped| match &stamped.record {
        Record::BackupCommitted(backup) => Some(backup.map.segment),
        _ => None,
    });
    let segments = vec![map.unwrap()];
    repo.append(Record::SegmentsCondemned { segments: segments.clone() }).unwrap();
    repo.append(Record::SegmentsSpared { segments }).unwrap();
    let oldest = records.iter().find_map(|stamped| match &stamped.record {
        Record::LogSealed(log) => Some(log.segment),
        _ => None,
    });
    let segments = vec![oldest.unwrap()];
    std::fs::remove_file(root.join(names::log(segments[0]))).unwrap();
    repo.append(Record::SegmentsDeleted { segments }).unwrap();
}

/// Holds, locks and lineage, begun, prolonged and over.
fn keep(repo: &Repository, backup: BackupId) {
    let maria = ServerRecord {
        id: MARIA,
        name: "maria".to_owned(),
        flavor: Some(Flavor::MariaDb),
        kind: ServerKind::Folder { path: "/srv/maria".to_owned() },
        source_uuid: None,
        version: "11.8.6-MariaDB".to_owned(),
        added_us: 1_700_000_000_000_001,
    };
    let terms = r#"[{"window":"14d","keep":"7 daily","timezone":"UTC"}]"#;
    let locked = |server: ServerId, terms: Option<&str>, reason: &str| {
        let (terms, reason) = (terms.map(str::to_owned), reason.to_owned());
        Record::ServerLocked(ServerLockRecord { server, terms, reason })
    };
    let held =
        |held, reason: &str| Record::BackupHeld(HoldRecord { backup, held, reason: reason.to_owned() });
    for record in [
        Record::ServerPut(maria.clone()),
        Record::ServerRemoved { server: MARIA },
        // It comes back.
        Record::ServerPut(ServerRecord { name: "maria again".to_owned(), ..maria }),
        held(false, "the audit is over"),
        held(true, "the next audit"),
        Record::BackupLocked { backup, until_us: 1_800_000_000_000_000 },
        Record::BackupLocked { backup, until_us: 1_700_000_000_000_000 },
        locked(SERVER, Some(terms), "the law"),
        locked(MARIA, Some(""), "nothing may go"),
        locked(MARIA, None, "it may"),
        Record::ServerOrigin(OriginRecord {
            server: SERVER,
            source_uuid: Some(FIRST),
            name: "shop of last year".to_owned(),
            backup: Some(backup),
            moment_us: Some(1_690_000_000_000_000),
            restored_us: Some(1_690_000_100_000_000),
        }),
    ] {
        repo.append(record).unwrap();
    }
}

/// A restore's report, signed as the text says.
fn reports(repo: &Repository, backup: BackupId) {
    let plain = br#"{"verdict":"proved","target":"latest"}"#;
    let by = repo.sign(plain).unwrap();
    let signed = json!({"key": hex(&by.key), "signature": hex(&by.signature)});
    let (key, signature) = (&signed["key"], &signed["signature"]);
    let mut json = plain[..plain.len() - 1].to_vec();
    json.extend(
        format!(r#","signed":{{"algorithm":"ed25519","key":{key},"signature":{signature}}}}}"#).into_bytes(),
    );
    let report = ReportRecord { backup, kind: "restore".to_owned(), at_us: 1_700_000_400_000_000, json };
    repo.append(Record::Report(report)).unwrap();
}
