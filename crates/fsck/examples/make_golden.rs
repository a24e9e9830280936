//! Makes a golden repository: `cargo run -p holdfast-fsck --example make_golden -- FOLDER`.
//!
//! Writes `repo/`, `passphrase` and `expected.json` into a folder that does not exist. What is
//! expected comes from what went in, not from any reader. Run once for each version of the
//! format; what is there is never made again.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a tool for developers, where a panic is the report"
)]

#[path = "../tests/common/mod.rs"]
mod common;

use std::path::PathBuf;
use std::sync::Arc;

use common::{
    PASSPHRASE, Source, back_up, create, first_backup, log_frames, second_backup, stream, write_logs,
};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_store::LogKind;
use holdfast_store::format::ids::{BackupId, hex};
use holdfast_store::format::map::FileKind;
use serde_json::{Value, json};

fn main() {
    let target = PathBuf::from(std::env::args().nth(1).unwrap_or_else(|| "tests/golden/format-0".to_owned()));
    std::fs::create_dir_all(&target).unwrap();
    std::fs::write(target.join("passphrase"), format!("{PASSPHRASE}\n")).unwrap();
    let objects: Arc<dyn Objects> =
        Arc::new(Directory::create(RealDisk::shared(), target.join("repo")).unwrap());
    let repo = create(&objects, 1024);
    let first = back_up(&repo, None, &first_backup(), "first");
    let second = back_up(&repo, Some(first), &second_backup(), "second");
    write_logs(&repo);
    let logs: Vec<Value> = log_frames()
        .iter()
        .enumerate()
        .map(|(number, frames)| {
            let frames: Vec<Value> = frames
                .iter()
                .map(|(kind, bytes)| {
                    let kind = match kind {
                        LogKind::Events => "log events",
                        LogKind::Index => "log index",
                        LogKind::Meta => "log meta",
                    };
                    json!({"kind": kind, "len": bytes.len(), "blake3": hash(bytes)})
                })
                .collect();
            json!({"stream": hex(&stream().to_bytes()), "number": number, "sealed": number == 0, "frames": frames})
        })
        .collect();
    let expected = json!({
        "repository": repo.id().to_string(),
        "records": repo.records().len(),
        "backups": [backup(first, "first", &first_backup()), backup(second, "second", &second_backup())],
        "logs": logs,
    });
    let text = serde_json::to_string_pretty(&expected).unwrap();
    std::fs::write(target.join("expected.json"), text + "\n").unwrap();
}

fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

fn backup(id: BackupId, note: &str, files: &[Source]) -> Value {
    let mut sorted: Vec<&Source> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let files: Vec<Value> = sorted.into_iter().map(file).collect();
    json!({"id": id.to_string(), "server": "shop", "note": note, "files": files})
}

fn file(source: &Source) -> Value {
    let bytes = source.bytes();
    let path = String::from_utf8(source.path.clone()).unwrap();
    let mut entry = json!({
        "path": path,
        "kind": match source.kind {
            FileKind::Regular => "file",
            FileKind::Directory => "folder",
            FileKind::Symlink { .. } => "link",
        },
        "len": bytes.len(),
        "mode": source.mode,
        "mtime_us": source.mtime_us,
    });
    match &source.kind {
        FileKind::Regular => {
            let zero = |b: &Vec<u8>| b.iter().all(|byte| *byte == 0);
            let count =
                |pick: &dyn Fn(&Option<Vec<u8>>) -> bool| source.blocks.iter().filter(|b| pick(b)).count();
            entry["blake3"] = hash(&bytes).into();
            entry["blocks"] = json!({
                "data": count(&|b| b.as_ref().is_some_and(|b| !zero(b))),
                "zero": count(&|b| b.as_ref().is_some_and(zero)),
                "hole": count(&|b| b.is_none()),
            });
        }
        FileKind::Symlink { target } => entry["target"] = String::from_utf8(target.clone()).unwrap().into(),
        FileKind::Directory => {}
    }
    entry
}
