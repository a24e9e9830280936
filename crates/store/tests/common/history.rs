//! Small histories of backups: files that change a little from one to the next, so that deltas come about.

use std::collections::BTreeMap;
use std::sync::Arc;

use holdfast_format::ids::BackupId;
use holdfast_io::Objects;
use holdfast_store::{Error, PruneOptions, Repository};

use super::{BLOCK, content, draft, spec};

pub type Files = BTreeMap<String, Vec<u8>>;

/// Two files of `blocks` and three blocks.
pub fn files(seed: u64, blocks: usize) -> Files {
    [("a", content(seed, blocks * BLOCK)), ("b/c", content(seed + 1, 2 * BLOCK + 777))]
        .map(|(name, bytes)| (name.to_owned(), bytes))
        .into()
}

/// Changes some bytes of a block of the file "a".
pub fn touch(files: &mut Files, block: usize, seed: u64) {
    let file = files.get_mut("a").unwrap();
    let at = block * BLOCK + (seed as usize * 37) % (BLOCK - 100);
    for (to, from) in file[at..at + 60].iter_mut().zip(content(seed, 60)) {
        *to = from ^ 0x5a;
    }
}

/// Writes a block of the file "a" anew.
pub fn rewrite(files: &mut Files, block: usize, seed: u64) {
    let file = files.get_mut("a").unwrap();
    file[block * BLOCK..(block + 1) * BLOCK].copy_from_slice(&content(seed, BLOCK));
}

pub fn backup(repo: &Repository, parent: Option<BackupId>, files: &Files) -> Result<BackupId, Error> {
    let writer = repo.begin_backup(parent)?;
    for (path, bytes) in files {
        let file = writer.add_file(spec(path, bytes.len() as u64))?;
        for (block, data) in bytes.chunks(BLOCK).enumerate() {
            writer.put_block(file, block as u32, data)?;
        }
    }
    Ok(writer.commit(draft())?.id)
}

pub fn read(repo: &Repository, id: BackupId) -> Result<Files, Error> {
    let reader = repo.open_backup(id)?;
    let mut files = Files::new();
    for (number, entry) in reader.files().enumerate() {
        let mut bytes = vec![0; entry.len as usize];
        assert_eq!(reader.read_at(number as u32, 0, &mut bytes)?, bytes.len());
        files.insert(String::from_utf8(entry.path.clone()).unwrap(), bytes);
    }
    Ok(files)
}

/// Compacts whatever has any dead frame.
pub fn thorough() -> PruneOptions {
    PruneOptions { dead_percent_max: 0, ..PruneOptions::default() }
}

/// The second reader finds nothing wrong.
pub fn fsck(objects: &Arc<dyn Objects>, what: &str) {
    let secret = holdfast_fsck::Secret::Passphrase(b"correct horse".to_vec());
    let options = holdfast_fsck::Options { scope: holdfast_fsck::Scope::Full, ..Default::default() };
    let report =
        holdfast_fsck::check(objects.as_ref(), &secret, options, &holdfast_fsck::Progress::default());
    let report = report.unwrap_or_else(|e| panic!("{what}: fsck: {e}"));
    assert!(report.clean, "{what}:\n{}", report.text());
    assert!(report.backups.iter().all(|b| b.whole), "{what}:\n{}", report.text());
}
