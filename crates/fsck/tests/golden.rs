//! The golden repositories: the store and the second reader read what an earlier version wrote.
//!
//! `tools/test-read-holdfast` does the same with the reader that was written from the text.
#![expect(clippy::unwrap_used, clippy::panic, reason = "tests, where a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;

use holdfast_archive::log::LogReader;
use holdfast_archive::storage::LogStore as _;
use holdfast_fsck::{Options, Progress, Scope, Secret, check};
use holdfast_io::{Directory, Disk, Objects, RealDisk};
use holdfast_store::format::ids::hex;
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{Coordinates, Position, Record, StreamKey};
use holdfast_store::{BackupReader, LogState, Repository, RestoreOptions};
use serde_json::{Value, json};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden")
}

/// Those of the version that this program writes.
fn golden() -> Vec<PathBuf> {
    let folder = folder();
    let mut all: Vec<PathBuf> = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path()).collect();
    let ours = |path: &Path| path.file_name().unwrap().to_str().unwrap().starts_with("format-1");
    all.retain(|p| p.join("expected.json").is_file() && ours(p));
    all.sort();
    assert!(!all.is_empty(), "no golden repository in {}", folder.display());
    all
}

fn full() -> Options {
    Options { scope: Scope::Full, seed: 0 }
}

fn expected(golden: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(golden.join("expected.json")).unwrap()).unwrap()
}

fn passphrase(golden: &Path) -> String {
    std::fs::read_to_string(golden.join("passphrase")).unwrap().trim_end().to_owned()
}

/// A copy, because opening a repository makes sessions and locks in it.
fn copied(golden: &Path) -> (tempfile::TempDir, Arc<dyn Objects>) {
    fn copy(from: &Path, to: &Path) {
        std::fs::create_dir_all(to).unwrap();
        for entry in std::fs::read_dir(from).unwrap() {
            let entry = entry.unwrap();
            let target = to.join(entry.file_name());
            if entry.file_type().unwrap().is_dir() {
                copy(&entry.path(), &target);
            } else {
                std::fs::copy(entry.path(), target).unwrap();
            }
        }
    }
    let folder = tempfile::tempdir().unwrap();
    copy(&golden.join("repo"), &folder.path().join("repo"));
    let objects = Directory::open(RealDisk::shared(), folder.path().join("repo")).unwrap();
    (folder, Arc::new(objects))
}

#[test]
fn the_second_reader_finds_each_golden_repository_clean() {
    for golden in golden() {
        let (_folder, objects) = copied(&golden);
        let secret = Secret::Passphrase(passphrase(&golden).into_bytes());
        let report = check(objects.as_ref(), &secret, full(), &Progress::default()).unwrap();
        assert!(report.clean, "{}:\n{}", golden.display(), report.text());
        let expected = expected(&golden);
        assert_eq!(report.repository, expected["repository"]);
        assert_eq!(report.counts.records, expected["records"]);
        let backups = expected["backups"].as_array().unwrap();
        assert_eq!(report.backups.len(), backups.len());
        for (verdict, backup) in report.backups.iter().zip(backups) {
            assert_eq!(verdict.id, backup["id"]);
            assert_eq!(verdict.server, backup["server"]);
            let files = backup["files"].as_array().map(|files| files.len() as u64);
            assert_eq!(verdict.files, files.or(backup["listing"]["files"].as_u64()).unwrap());
        }
        let segments: Vec<u64> = report.streams.iter().map(|s| s.segments).collect();
        let logs = by_stream(&expected);
        assert_eq!(segments, logs.values().map(|logs| logs.len() as u64).collect::<Vec<_>>());
        for wanted in expected["goes_on"].as_array().unwrap_or(&Vec::new()) {
            let windows: Vec<_> = report.windows.iter().filter(|w| w.server == wanted["server"]).collect();
            let [window] = &windows[..] else { panic!("{}: {windows:?}", golden.display()) };
            assert_eq!(window.backups, wanted["backups"]);
            assert!(window.to.contains(wanted["to"].as_str().unwrap()), "{window:?}");
            assert!(report.holes.iter().all(|hole| hole.server != wanted["server"]), "{:?}", report.holes);
        }
    }
}

#[test]
fn the_store_restores_each_golden_repository_to_the_byte() {
    for golden in golden() {
        let (folder, objects) = copied(&golden);
        let secret = holdfast_store::Secret::passphrase(passphrase(&golden));
        let repo = Repository::open(objects, &secret, common::options()).unwrap();
        assert!(repo.damage().is_none());
        let expected = expected(&golden);
        assert_eq!(repo.id().to_string(), expected["repository"]);
        assert_eq!(repo.records().len() as u64, expected["records"]);
        for backup in expected["backups"].as_array().unwrap() {
            let id = backup["id"].as_str().unwrap();
            let target = folder.path().join(id);
            RealDisk.create_dir_all(&target).unwrap();
            let reader = repo.open_backup(id.parse().unwrap()).unwrap();
            let options = RestoreOptions { facts: true, ..RestoreOptions::default() };
            reader.restore_into(&RealDisk, &target, &|_| {}, &options).unwrap();
            for file in backup["files"].as_array().unwrap_or(&Vec::new()) {
                compare(&target, file);
            }
            if backup["listing"].is_object() {
                assert_eq!(listing(&reader, &target), backup["listing"]);
            }
            if let Some(facts) = backup["facts"].as_object() {
                let found = reader.record().facts.iter().map(|(key, value)| (key.clone(), json!(value)));
                assert_eq!(found.collect::<serde_json::Map<_, _>>(), *facts, "{id}");
            }
            if backup["coordinates"].is_array() {
                assert_eq!(coordinates(&reader.record().coordinates), backup["coordinates"], "{id}");
                let learned = repo.records().iter().find_map(|stamped| match &stamped.record {
                    Record::CoordinatesLearned { backup, position } if backup.to_string() == id => {
                        Some(place(position))
                    }
                    _ => None,
                });
                assert_eq!(learned.unwrap_or_default(), backup["learned"]);
                let deltas: u64 = (1..5).map(|depth| backup["depths"][depth].as_u64().unwrap()).sum();
                let depths: u64 = deltas + backup["depths"][0].as_u64().unwrap();
                assert_eq!(reader.record().stats.blocks, depths);
            }
        }
        logs(&repo, &expected);
    }
}

fn compare(target: &Path, file: &Value) {
    let path = target.join(file["path"].as_str().unwrap());
    let found = std::fs::symlink_metadata(&path).unwrap();
    let time_us = found.mtime() * 1_000_000 + found.mtime_nsec() / 1000;
    assert_eq!(time_us, file["mtime_us"].as_i64().unwrap(), "{}", path.display());
    let kind = match file["kind"].as_str().unwrap() {
        "file" => {
            let bytes = std::fs::read(&path).unwrap();
            assert_eq!(bytes.len() as u64, file["len"], "{}", path.display());
            assert_eq!(blake3::hash(&bytes).to_hex().to_string(), file["blake3"], "{}", path.display());
            found.is_file()
        }
        "folder" => found.is_dir(),
        "link" => {
            let leads = std::fs::read_link(&path).unwrap();
            assert_eq!(leads.to_str(), file["target"].as_str(), "{}", path.display());
            assert!(found.is_symlink());
            return;
        }
        other => panic!("{other}"),
    };
    assert!(kind, "{}", path.display());
    assert_eq!(u64::from(found.mode() & 0o7777), file["mode"], "{}", path.display());
}

/// The hash over a list of all files, as the generator makes it: kind, mode, length, time, content, path.
fn listing(reader: &BackupReader, target: &Path) -> Value {
    let mut files: Vec<_> = reader.files().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut lines = String::new();
    for file in &files {
        let path = String::from_utf8(file.path.clone()).unwrap();
        let (kind, content) = match file.kind {
            FileKind::Regular => {
                let bytes = std::fs::read(target.join(&path)).unwrap();
                assert_eq!(bytes.len() as u64, file.len);
                ("file", blake3::hash(&bytes).to_hex().to_string())
            }
            FileKind::Directory => ("folder", "-".to_owned()),
            FileKind::Symlink { .. } => ("link", "-".to_owned()),
        };
        lines += &format!("{kind} {:o} {} {} {content} {path}\n", file.mode, file.len, file.mtime_us);
    }
    json!({"files": files.len(), "blake3": blake3::hash(lines.as_bytes()).to_hex().to_string()})
}

fn coordinates(coordinates: &Coordinates) -> Value {
    let told: Vec<_> = match coordinates {
        Coordinates::None => Vec::new(),
        Coordinates::Exact(at) => vec![at],
        Coordinates::Between { lo, hi } => vec![lo, hi],
    };
    told.into_iter().map(place).collect()
}

fn place(at: &Position) -> Value {
    json!({"file": at.file, "offset": at.offset, "gtids": at.gtid.to_string()})
}

/// The log segments that are expected, by stream.
fn by_stream(expected: &Value) -> BTreeMap<&str, Vec<&Value>> {
    let mut streams: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
    for log in expected["logs"].as_array().unwrap() {
        streams.entry(log["stream"].as_str().unwrap()).or_default().push(log);
    }
    streams
}

fn logs(repo: &Repository, expected: &Value) {
    let logs = by_stream(expected);
    let streams = repo.streams().unwrap();
    assert_eq!(streams.len(), logs.len());
    for stream in streams {
        let segments = repo.logs(stream).unwrap();
        let logs = logs.get(hex(&stream.to_bytes()).as_str()).unwrap();
        assert_eq!(segments.len(), logs.len());
        for (segment, log) in segments.iter().zip(logs) {
            assert_eq!(segment.opening.number, log["number"]);
            assert_eq!(matches!(segment.state, LogState::Sealed(_)), log["sealed"]);
            let frames: Vec<Vec<u8>> = repo.read_log(segment, 0).unwrap().map(|f| f.unwrap().plain).collect();
            let hashes: Vec<Value> =
                frames.iter().map(|f| blake3::hash(f).to_hex().to_string().into()).collect();
            let wanted: Vec<Value> =
                log["frames"].as_array().unwrap().iter().map(|f| f["blake3"].clone()).collect();
            assert_eq!(hashes, wanted, "number {} of {}", log["number"], log["stream"]);
        }
    }
    for file in expected["files"].as_array().unwrap_or(&Vec::new()) {
        let streams = repo.streams().unwrap();
        let stream = streams.into_iter().find(|s| hex(&s.to_bytes()) == file["stream"]).unwrap();
        assert_eq!(archived(repo, &stream, file["file"].as_str().unwrap()), *file);
    }
}

/// A file of the source, as the archive gives it back.
fn archived(repo: &Repository, stream: &StreamKey, name: &str) -> Value {
    let stretches = repo.stretches(stream).unwrap();
    let mut bytes = b"\xfebin".to_vec();
    let mut reader = LogReader::over(repo, stream, &stretches, 0, stretches.len()).unwrap();
    while let Some(event) = reader.next_event().unwrap() {
        if event.file == name {
            bytes.extend_from_slice(event.event.raw);
        }
    }
    let hash = blake3::hash(&bytes).to_hex().to_string();
    json!({"stream": hex(&stream.to_bytes()), "file": name, "len": bytes.len(), "blake3": hash})
}

#[test]
fn a_kit_opens_each_golden_repository_that_has_one() {
    for golden in golden() {
        let kit = golden.join("kit");
        if !kit.exists() {
            continue;
        }
        let (folder, _objects) = copied(&golden);
        let repo = folder.path().join("repo");
        let opened = program(&[repo.to_str().unwrap(), "--kit", kit.to_str().unwrap()]);
        assert_eq!(opened.status.code(), Some(0), "{}", String::from_utf8_lossy(&opened.stderr));
    }
}

#[test]
fn a_key_file_opens_each_golden_repository_that_has_one() {
    for golden in golden() {
        let (folder, objects) = copied(&golden);
        let key = golden.join("key-file");
        let secret = holdfast_store::Secret::key_file(std::fs::read(&key).unwrap());
        let repo = Repository::open(objects, &secret, common::options()).unwrap();
        assert_eq!(repo.key_slots().unwrap().len(), 2);
        let repo = folder.path().join("repo");
        let opened = program(&[repo.to_str().unwrap(), "--key-file", key.to_str().unwrap()]);
        assert_eq!(opened.status.code(), Some(0), "{}", String::from_utf8_lossy(&opened.stderr));
    }
}

#[test]
fn a_golden_repository_of_another_version_is_refused_by_name_and_left_as_it_is() {
    let golden = folder().join("format-0");
    let (folder, objects) = copied(&golden);
    let secret = holdfast_store::Secret::passphrase(passphrase(&golden));
    let refused = Repository::open(objects, &secret, common::options()).unwrap_err().to_string();
    assert!(refused.contains("format version 0") && refused.contains("version 1"), "{refused}");
    let repo = folder.path().join("repo");
    let key = golden.join("passphrase");
    for more in [&["--full"][..], &["--repair"]] {
        let arguments = [repo.to_str().unwrap(), "--passphrase-file", key.to_str().unwrap()];
        let refused = program(&[&arguments[..], more].concat());
        assert_eq!(refused.status.code(), Some(1));
        let told = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(told.contains("format version 0"), "{told}");
    }
}

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_holdfast-fsck"))
        .env_remove("HOLDFAST_REPO")
        .env_remove("HOLDFAST_PASSPHRASE_FILE")
        .args(arguments)
        .output()
        .unwrap()
}

#[test]
fn the_program_says_what_it_found_in_text_in_json_and_by_its_exit_code() {
    let golden = &golden()[0];
    let (folder, objects) = copied(golden);
    let repo = folder.path().join("repo");
    let (repo, key) = (repo.to_str().unwrap(), golden.join("passphrase"));
    let way_in = ["--passphrase-file", key.to_str().unwrap()];
    let run = |more: &[&str]| program(&[&[repo, "--full"][..], &way_in, more].concat());

    let clean = run(&[]);
    assert_eq!(clean.status.code(), Some(0), "{}", String::from_utf8_lossy(&clean.stderr));
    assert!(String::from_utf8_lossy(&clean.stdout).contains("everything was read and is right"));
    let json: Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(json["clean"], true);
    assert_eq!(json["schema"], 1);

    let segment =
        objects.list("segments/").unwrap().into_iter().max_by_key(|n| objects.len(n).unwrap()).unwrap();
    let mut bytes = objects.read(&segment, 0, objects.len(&segment).unwrap()).unwrap();
    bytes[5000] ^= 1;
    objects.replace(&segment, &bytes).unwrap();
    let corrupted = run(&[]);
    assert_eq!(corrupted.status.code(), Some(21));
    let text = String::from_utf8_lossy(&corrupted.stdout).into_owned();
    assert!(text.contains("BAD") && text.contains(segment.as_str()) && text.contains("shop/"), "{text}");
    let json: Value = serde_json::from_slice(&run(&["--json"]).stdout).unwrap();
    assert_eq!(json["clean"], false);
    assert!(!json["flaws"].as_array().unwrap().is_empty());

    let wrong = folder.path().join("wrong");
    std::fs::write(&wrong, "wrong\n").unwrap();
    let wrong = wrong.to_str().unwrap();
    assert_eq!(program(&[repo, "--passphrase-file", wrong]).status.code(), Some(12));
    assert_eq!(program(&[repo, "--key-file", wrong]).status.code(), Some(12));
    assert_eq!(program(&[repo, "--kit", wrong]).status.code(), Some(2));
    assert_eq!(program(&[repo]).status.code(), Some(2));
    assert_eq!(program(&[repo, "--no-such-option"]).status.code(), Some(2));
    let nothing = folder.path().join("nothing");
    assert_eq!(program(&[&[nothing.to_str().unwrap()][..], &way_in].concat()).status.code(), Some(10));
    assert_eq!(program(&[&[folder.path().to_str().unwrap()][..], &way_in].concat()).status.code(), Some(10));
    assert_eq!(program(&["--help"]).status.code(), Some(0));
}

#[test]
fn a_kit_opens_a_repository_whose_keyring_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("repo");
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(RealDisk::shared(), &root).unwrap());
    let repo = common::create(&objects, 64);
    common::back_up(&repo, None, &common::first_backup(), "");
    let kit = folder.path().join("kit");
    std::fs::write(&kit, repo.recovery_kit().unwrap().to_text().as_str()).unwrap();
    let (root, kit) = (root.to_str().unwrap(), kit.to_str().unwrap());
    assert_eq!(program(&[root, "--kit", kit]).status.code(), Some(0));
    std::fs::remove_dir_all(Path::new(root).join("keyring")).unwrap();
    let lost = program(&[root, "--kit", kit]);
    let text = String::from_utf8_lossy(&lost.stdout).into_owned();
    assert_eq!(lost.status.code(), Some(21), "{text}");
    assert!(text.contains("keyring/0") && text.contains("1 of 1 backups are whole"), "{text}");
}
