//! What a reader must find, as JSON.

use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{Coordinates, Position};
use serde_json::{Value, json};

use crate::backups::Made;
use crate::common::Source;

/// More files than this are told by a hash over their list.
const FILES_TOLD_MAX: usize = 64;

pub fn hash(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex().to_string()
}

/// File, offset, and the GTID set as its server writes it.
fn position(at: &Position) -> Value {
    json!({"file": at.file, "offset": at.offset, "gtids": at.gtid.to_string()})
}

/// A backup that is not forgotten.
pub fn backup(made: &Made) -> Value {
    let mut sorted: Vec<&Source> = made.files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    let coordinates: Vec<Value> = match &made.coordinates {
        Coordinates::None => Vec::new(),
        Coordinates::Exact(at) => vec![position(at)],
        Coordinates::Between { lo, hi } => vec![position(lo), position(hi)],
    };
    let mut told = json!({
        "id": made.id.to_string(),
        "server": made.server,
        "note": made.note,
        "coordinates": coordinates,
        "learned": made.learned.as_ref().map(position),
        "depths": made.depths,
    });
    if sorted.len() > FILES_TOLD_MAX {
        let lines: String = sorted.iter().map(|s| line(s)).collect();
        told["listing"] = json!({"files": sorted.len(), "blake3": hash(lines.as_bytes())});
    } else {
        told["files"] = sorted.into_iter().map(file).collect();
    }
    told
}

fn kind(source: &Source) -> &'static str {
    match source.kind {
        FileKind::Regular => "file",
        FileKind::Directory => "folder",
        FileKind::Symlink { .. } => "link",
    }
}

/// A line of a listing: kind, permission bits (octal), length, time, BLAKE3 of the content (a hyphen for what is no
/// file), path.
fn line(source: &Source) -> String {
    let bytes = source.bytes();
    let content = if source.kind == FileKind::Regular { hash(&bytes) } else { "-".to_owned() };
    let path = String::from_utf8(source.path.clone()).unwrap();
    format!("{} {:o} {} {} {content} {path}\n", kind(source), source.mode, bytes.len(), source.mtime_us)
}

fn file(source: &Source) -> Value {
    let bytes = source.bytes();
    let path = String::from_utf8(source.path.clone()).unwrap();
    let mut entry = json!({
        "path": path,
        "kind": kind(source),
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
