//! Makes a golden repository: `cargo run -p holdfast-fsck --example make_golden -- FOLDER`.
//!
//! Writes `repo/`, `passphrase`, `key-file`, `kit` and `expected.json` into a folder that does not exist. What is expected comes
//! from what went in, not from any reader. Run once for each version of the format; what is there is never made again.
//!
//! `backups.rs` makes backups with everything that a map and a data segment can hold, `logs.rs` streams of log in every
//! state that a crash can leave them in, `expected.rs` says what a reader must find. `taken_over.rs` makes another one, with
//! what came later: `make_golden FOLDER taken-over`.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for developers, where a panic is the report"
)]

mod backups;
#[path = "../../tests/common/mod.rs"]
mod common;
mod expected;
mod logs;
mod taken_over;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use common::{PASSPHRASE, create, options, secret};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_store::format::ids::{BackupId, SegmentId};
use holdfast_store::format::record::{HealedRecord, Healing, Record, ReportRecord, ScrubRecord};
use holdfast_store::{Argon2Cost, OpenOptions, Repository, Secret};
use serde_json::{Value, json};

const KEY_FILE: &[u8] = b"the key file of a golden repository\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (target, taken_over) = match &arguments[..] {
        [target] => (PathBuf::from(target), false),
        [target, what] if what == "taken-over" => (PathBuf::from(target), true),
        _ => {
            eprintln!("make_golden FOLDER [taken-over]");
            std::process::exit(2);
        }
    };
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    std::fs::write(target.join("key-file"), KEY_FILE).unwrap();
    let root = target.join("repo");
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(RealDisk::shared(), &root).unwrap());
    let repo = create(&objects, 1024);
    let expected = if taken_over {
        add_key(&repo, &Secret::key_file(KEY_FILE.to_vec()), "key file");
        write_kit(&repo, &target);
        taken_over::make(&repo, &root)
    } else {
        everything(repo, &objects, &target)
    };
    let text = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(target.join("expected.json"), text + "\n").unwrap();
    // Whatever is still open stays as a process that dies leaves it.
    std::process::exit(0);
}

fn add_key(repo: &Repository, secret: &Secret, label: &str) {
    repo.add_key(secret, label, Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 }).unwrap();
}

fn write_kit(repo: &Repository, target: &Path) {
    std::fs::write(target.join("kit"), repo.recovery_kit().unwrap().to_text().as_str()).unwrap();
}

/// All that the program wrote when version 1 was made.
fn everything(repo: Repository, objects: &Arc<dyn Objects>, target: &Path) -> Value {
    let root = target.join("repo");
    backups::add_servers(&repo);
    let mut backups = backups::back_up_all(&repo);
    // Two ways in that stay, one that goes; what comes from here on is under another key than what was.
    add_key(&repo, &Secret::key_file(KEY_FILE.to_vec()), "key file");
    add_key(&repo, &Secret::passphrase("of somebody who left"), "left");
    repo.rotate_keys(&[secret(), Secret::key_file(KEY_FILE.to_vec())]).unwrap();
    let packing = OpenOptions { pack_records: 8, ..options() };
    let repo = Repository::open(Arc::clone(objects), &secret(), packing).unwrap();
    write_kit(&repo, target);
    backups.push(backups::thinned(&repo));
    other_records(&repo, backups[0].id);
    backups::break_off(&repo, &root);
    let logs = logs::archive_all(&repo, &root);
    let expected = json!({
        "repository": repo.id().to_string(),
        "records": logs.records,
        "backups": backups.iter().filter(|b| !b.forgotten).map(expected::backup).collect::<Vec<_>>(),
        "logs": logs.segments,
        "files": logs.files,
    });
    // Its sessions stay, as those of a process that dies do.
    std::mem::forget(repo);
    expected
}

/// Records that no backup and no log needs, one of a kind that no reader of this version knows among them.
fn other_records(repo: &Repository, backup: BackupId) {
    repo.append(Record::Report(ReportRecord {
        backup,
        kind: "drill".to_owned(),
        at_us: 1_700_000_100_000_000,
        json: br#"{"verdict":"proved"}"#.to_vec(),
    }))
    .unwrap();
    let segment = SegmentId([0x5e; 16]);
    repo.append(Record::Healed(HealedRecord {
        by: "scrub".to_owned(),
        segments: vec![Healing { segment, pages: 2 }],
    }))
    .unwrap();
    repo.append(Record::Scrubbed(ScrubRecord {
        round_us: 1_700_000_050_000_000,
        after: Some(segment),
        segments: 3,
        bytes: 200_000,
        lost: Vec::new(),
    }))
    .unwrap();
    repo.append(Record::Unknown { kind: 900, version: 3, body: b"of a later version".to_vec() }).unwrap();
}
