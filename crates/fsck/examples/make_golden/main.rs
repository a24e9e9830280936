//! Makes a golden repository: `cargo run -p holdfast-fsck --example make_golden -- FOLDER`.
//!
//! Writes `repo/`, `passphrase`, `key-file`, `kit` and `expected.json` into a folder that does not exist. What is expected comes
//! from what went in, not from any reader. Run once for each version of the format; what is there is never made again.
//!
//! `backups.rs` makes backups with everything that a map and a data segment can hold, `logs.rs` streams of log in every
//! state that a crash can leave them in, `expected.rs` says what a reader must find.
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

use std::path::PathBuf;
use std::sync::Arc;

use common::{PASSPHRASE, create, options, secret};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_store::format::ids::{BackupId, SegmentId};
use holdfast_store::format::record::{HealedRecord, Healing, Record, ReportRecord, ScrubRecord};
use holdfast_store::{Argon2Cost, OpenOptions, Repository, Secret};
use serde_json::json;

fn main() {
    let Some(target) = std::env::args().nth(1).map(PathBuf::from) else {
        eprintln!("make_golden: name the folder to make");
        std::process::exit(2);
    };
    std::fs::create_dir(&target).unwrap();
    std::fs::write(target.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let root = target.join("repo");
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(RealDisk::shared(), &root).unwrap());
    let repo = create(&objects, 1024);
    let key_file = b"the key file of a golden repository\n";
    std::fs::write(target.join("key-file"), key_file).unwrap();
    backups::add_servers(&repo);
    let mut backups = backups::back_up_all(&repo);
    // Two ways in that stay, one that goes; what comes from here on is under another key than what was.
    let cost = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };
    repo.add_key(&Secret::key_file(key_file.to_vec()), "key file", cost).unwrap();
    repo.add_key(&Secret::passphrase("of somebody who left"), "left", cost).unwrap();
    repo.rotate_keys(&[secret(), Secret::key_file(key_file.to_vec())]).unwrap();
    let packing = OpenOptions { pack_records: 8, ..options() };
    let repo = Repository::open(Arc::clone(&objects), &secret(), packing).unwrap();
    std::fs::write(target.join("kit"), repo.recovery_kit().unwrap().to_text().as_str()).unwrap();
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
    let text = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(target.join("expected.json"), text + "\n").unwrap();
    // Whatever is still open stays as a process that dies leaves it.
    std::process::exit(0);
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
