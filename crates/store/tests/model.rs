//! The store against a map of files in memory: puts, patches, cuts, extensions, holes, zeros, renames, removals, over
//! several backups, each compared whole afterwards. `HOLDFAST_TEST_CASES=100000` draws so many cases.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::collections::BTreeMap;

use common::{BLOCK, content, create, draft, open, spec};
use holdfast_format::ids::BackupId;
use holdfast_io::SimDisk;
use holdfast_store::{FileNo, Repository};
use proptest::prelude::*;

#[derive(Debug, Clone)]
enum Step {
    Put { file: u8, block: u8, seed: u64, len: u32 },
    Zero { file: u8, block: u8 },
    Patch { file: u8, offset: u32, len: u16, seed: u64 },
    SetLen { file: u8, len: u32 },
    Rename { file: u8, to: u8 },
    Remove { file: u8 },
    Barrier,
    Read { file: u8, offset: u32, len: u16 },
}

const FILES: u8 = 3;
const LEN_MAX: u32 = 6 * BLOCK as u32;

fn step() -> impl Strategy<Value = Step> {
    let file = || 0..FILES;
    prop_oneof![
        6 => (file(), 0..6_u8, 0..6_u64, prop_oneof![4 => Just(BLOCK as u32), 1 => 1..BLOCK as u32])
            .prop_map(|(file, block, seed, len)| Step::Put { file, block, seed, len }),
        1 => (file(), 0..6_u8).prop_map(|(file, block)| Step::Zero { file, block }),
        3 => (file(), 0..LEN_MAX, any::<u16>(), any::<u64>())
            .prop_map(|(file, offset, len, seed)| Step::Patch { file, offset, len, seed }),
        2 => (file(), 0..LEN_MAX).prop_map(|(file, len)| Step::SetLen { file, len }),
        1 => (file(), 0..FILES * 2).prop_map(|(file, to)| Step::Rename { file, to }),
        1 => file().prop_map(|file| Step::Remove { file }),
        1 => Just(Step::Barrier),
        1 => (file(), 0..LEN_MAX, any::<u16>()).prop_map(|(file, offset, len)| Step::Read { file, offset, len }),
    ]
}

fn overlay(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if file.len() < offset + bytes.len() {
        file.resize(offset + bytes.len(), 0);
    }
    file[offset..offset + bytes.len()].copy_from_slice(bytes);
}

/// A put replaces its whole block: what it lacks of 64 KiB is zeros.
fn put(file: &mut Vec<u8>, block: usize, bytes: &[u8]) {
    overlay(file, block * BLOCK, bytes);
    let end = file.len().min((block + 1) * BLOCK);
    file[block * BLOCK + bytes.len()..end].fill(0);
}

fn run(repo: &Repository, parent: Option<BackupId>, steps: &[Step]) -> (BackupId, BTreeMap<String, Vec<u8>>) {
    let writer = repo.begin_backup(parent).unwrap();
    let mut open: Vec<Option<(FileNo, String, Vec<u8>)>> = Vec::new();
    for n in 0..FILES {
        let name = format!("f{n}");
        let len = usize::from(n) * (BLOCK + 77);
        open.push(Some((writer.add_file(spec(&name, len as u64)).unwrap(), name, vec![0; len])));
    }
    for step in steps {
        match step.clone() {
            Step::Put { file, block, seed, len } => {
                if let Some((no, _, model)) = &mut open[usize::from(file)] {
                    let bytes = content(seed, len as usize);
                    writer.put_block(*no, u32::from(block), &bytes).unwrap();
                    put(model, usize::from(block), &bytes);
                }
            }
            Step::Zero { file, block } => {
                if let Some((no, _, model)) = &mut open[usize::from(file)] {
                    writer.put_block(*no, u32::from(block), &[0; BLOCK]).unwrap();
                    put(model, usize::from(block), &[0; BLOCK]);
                }
            }
            Step::Patch { file, offset, len, seed } => {
                if let Some((no, _, model)) = &mut open[usize::from(file)] {
                    let bytes = content(seed, usize::from(len));
                    writer.patch(*no, u64::from(offset), &bytes).unwrap();
                    if !bytes.is_empty() || model.len() < offset as usize {
                        overlay(model, offset as usize, &bytes);
                    }
                }
            }
            Step::SetLen { file, len } => {
                if let Some((no, _, model)) = &mut open[usize::from(file)] {
                    writer.set_len(*no, u64::from(len)).unwrap();
                    model.resize(len as usize, 0);
                }
            }
            Step::Rename { file, to } => {
                let name = format!("f{to}");
                let taken = open.iter().flatten().any(|(_, other, _)| *other == name);
                if let Some((no, old, _)) = &mut open[usize::from(file)] {
                    let done = writer.rename(*no, name.as_bytes());
                    assert_eq!(done.is_ok(), !taken || *old == name);
                    if done.is_ok() {
                        *old = name;
                    }
                }
            }
            Step::Remove { file } => {
                if let Some((no, ..)) = open[usize::from(file)].take() {
                    writer.remove(no).unwrap();
                    assert!(writer.put_block(no, 0, b"x").is_err());
                }
            }
            Step::Barrier => writer.barrier().unwrap(),
            Step::Read { file, offset, len } => {
                if let Some((no, _, model)) = &open[usize::from(file)] {
                    let mut buf = vec![9; usize::from(len)];
                    let n = writer.read_at(*no, u64::from(offset), &mut buf).unwrap();
                    let from = model.get(offset as usize..).unwrap_or(&[]);
                    assert_eq!(buf[..n], from[..from.len().min(usize::from(len))]);
                }
            }
        }
    }
    let files = open.into_iter().flatten().map(|(_, name, bytes)| (name, bytes)).collect();
    (writer.commit(draft()).unwrap().id, files)
}

fn compare(repo: &Repository, id: BackupId, files: &BTreeMap<String, Vec<u8>>) {
    let reader = repo.open_backup(id).unwrap();
    assert_eq!(reader.files().len(), files.len());
    for (number, entry) in reader.files().enumerate() {
        let expected = &files[std::str::from_utf8(&entry.path).unwrap()];
        let mut bytes = vec![7; entry.len as usize];
        assert_eq!(reader.read_at(number as u32, 0, &mut bytes).unwrap(), bytes.len());
        assert!(bytes == *expected, "file {:?} differs", String::from_utf8_lossy(&entry.path));
    }
}

fn cases() -> u32 {
    std::env::var("HOLDFAST_TEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(120)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases()))]

    #[test]
    fn every_backup_equals_its_model(
        generations in proptest::collection::vec(proptest::collection::vec(step(), 0..14), 1..6)
    ) {
        let disk = SimDisk::new();
        let (repo, _) = create(&disk);
        let mut parent = None;
        let mut all = Vec::new();
        for steps in &generations {
            let (id, files) = run(&repo, parent, steps);
            parent = Some(id);
            all.push((id, files));
        }
        let repo = open(&disk).unwrap();
        for (id, files) in &all {
            compare(&repo, *id, files);
        }
    }
}
