//! What an earlier version wrote lives on under this one: each golden repository is opened, backed up to, forgotten from,
//! pruned, and every backup that is left restores to the byte; the second reader finds nothing wrong. A version that can't
//! be opened any more is refused by name.
#![expect(clippy::unwrap_used, reason = "tests, where a panic is the report")]

mod common;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use holdfast_fsck::{Options, Progress, Scope, Secret, check};
use holdfast_io::{Directory, Objects, RealDisk};
use holdfast_store::format::ids::BackupId;
use holdfast_store::format::map::FileKind;
use holdfast_store::{Error, FileSpec, PruneOptions, Repository};

type Files = BTreeMap<Vec<u8>, Vec<u8>>;

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/golden");
    let all = std::fs::read_dir(&folder).unwrap().map(|e| e.unwrap().path());
    let all: Vec<PathBuf> = all.filter(|p| p.join("expected.json").is_file()).collect();
    assert!(!all.is_empty(), "no golden repository in {}", folder.display());
    all
}

/// A copy, since this one is written to.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(std::fs::copy(entry.path(), target).unwrap()),
        }
    }
}

/// The regular files of a backup.
fn read(repo: &Repository, id: BackupId) -> Files {
    let reader = repo.open_backup(id).unwrap();
    let mut files = Files::new();
    for (number, entry) in reader.files().enumerate().filter(|(_, e)| e.kind == FileKind::Regular) {
        let mut bytes = vec![0; usize::try_from(entry.len).unwrap()];
        assert_eq!(reader.read_at(number as u32, 0, &mut bytes).unwrap(), bytes.len());
        files.insert(entry.path.clone(), bytes);
    }
    files
}

fn back_up(repo: &Repository, parent: BackupId, files: &Files) -> BackupId {
    let writer = repo.begin_backup(Some(parent)).unwrap();
    for (path, bytes) in files {
        let (path, len) = (path.clone(), bytes.len() as u64);
        let spec = FileSpec { path, kind: FileKind::Regular, len, mode: 0o600, mtime_us: 0 };
        let file = writer.add_file(spec).unwrap();
        for (block, data) in (0..).zip(bytes.chunks(common::BLOCK)) {
            writer.put_block(file, block, data).unwrap();
        }
    }
    writer.commit(common::draft("a later version's")).unwrap().id
}

#[test]
fn an_earlier_versions_repository_is_backed_up_to_pruned_and_restored() {
    for golden in golden() {
        let (name, folder) = (golden.display(), tempfile::tempdir().unwrap());
        copy(&golden.join("repo"), &folder.path().join("repo"));
        let passphrase = std::fs::read_to_string(golden.join("passphrase")).unwrap().trim_end().to_owned();
        let objects: Arc<dyn Objects> =
            Arc::new(Directory::open(RealDisk::shared(), folder.path().join("repo")).unwrap());
        let open = || {
            let secret = holdfast_store::Secret::passphrase(&passphrase);
            Repository::open(Arc::clone(&objects), &secret, common::options())
        };
        let repo = match open() {
            Ok(repo) => repo,
            Err(e) => {
                assert!(e.to_string().contains("version"), "{name}: {e}");
                continue;
            }
        };
        let mut kept: Vec<(BackupId, Files)> =
            repo.backups().iter().map(|b| (b.id, read(&repo, b.id))).collect();
        assert!(kept.iter().any(|(_, files)| !files.is_empty()), "{name}");

        // Two more generations: a changed byte in each file, then a file more.
        for generation in 0..2_u8 {
            let (parent, mut files) = kept.last().cloned().unwrap();
            for bytes in files.values_mut().filter(|b| !b.is_empty()) {
                let at = bytes.len() / 2;
                bytes[at] ^= 0x5a;
            }
            files.insert(format!("later-{generation}").into_bytes(), common::noise(7, 70_000));
            kept.push((back_up(&repo, parent, &files), files));
        }
        // The oldest goes that may: what an earlier program kept stays.
        let goes = |id: BackupId| match repo.forget(id, "test") {
            Ok(_) => true,
            Err(e) => {
                let locked = matches!(e, Error::ServerLocked { .. }) || repo.locked_until(id).is_some();
                assert!(locked || repo.is_held(id), "{name}: {e}");
                false
            }
        };
        let gone = kept.iter().position(|(id, _)| goes(*id)).unwrap();
        kept.remove(gone);
        for dead_percent_max in [10, 0] {
            repo.prune(&PruneOptions { dead_percent_max, ..PruneOptions::default() }, &|_, _| {}).unwrap();
            let repo = open().unwrap();
            for (id, files) in &kept {
                assert!(read(&repo, *id) == *files, "{name}: {id}");
            }
        }
        let secret = Secret::Passphrase(passphrase.clone().into_bytes());
        let options = Options { scope: Scope::Full, seed: 0 };
        let report = check(objects.as_ref(), &secret, options, &Progress::default()).unwrap();
        assert!(report.clean, "{name}:\n{}", report.text());
        assert!(report.backups.iter().all(|b| b.whole), "{name}:\n{}", report.text());
    }
}
