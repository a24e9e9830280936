//! A backup of the repository as the base of a restore.

use holdfast_format::map::FileEntry;
use holdfast_format::record::{BackupRecord, Coordinates, SourceKind};
use holdfast_io::RealDisk;
use holdfast_restore::error::Foreign;
use holdfast_restore::{Base, LaidOut, LayingOut};
use holdfast_store::{Repository, RestoreOptions};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// A backup, with the coordinates as far as they are known.
#[derive(Debug)]
pub(super) struct StoredBase {
    pub(super) repository: Repository,
    pub(super) record: BackupRecord,
    pub(super) coordinates: Coordinates,
}

impl Base for StoredBase {
    fn id(&self) -> String {
        self.record.id.to_string()
    }

    fn started_us(&self) -> i64 {
        self.record.started_us
    }

    fn finished_us(&self) -> i64 {
        self.record.finished_us
    }

    fn kind(&self) -> SourceKind {
        self.record.source
    }

    fn coordinates(&self) -> &Coordinates {
        &self.coordinates
    }

    fn fact(&self, name: &str) -> Option<&str> {
        self.record.fact(name)
    }

    fn warnings(&self) -> Vec<String> {
        self.record.warnings.clone()
    }

    fn bytes(&self) -> u64 {
        self.record.stats.logical_bytes
    }

    fn files(&self) -> u64 {
        self.record.stats.files
    }

    fn restore_into(&self, dir: &Path, progress: &(dyn Fn(LayingOut) + Sync)) -> Result<LaidOut, Foreign> {
        let reader = self.repository.open_backup(self.record.id)?;
        let report = |p: holdfast_store::RestoreProgress| {
            progress(LayingOut { bytes: p.bytes_done, bytes_total: p.bytes_total });
        };
        let disk = RealDisk::shared();
        let done = reader.restore_into(disk.as_ref(), dir, &report, &RestoreOptions::default())?;
        // The modes of a folder are its owner's choice; a copy that a server streamed has none.
        if self.record.source == SourceKind::Folder {
            give_modes(dir, reader.files())?;
        }
        Ok(LaidOut { files: done.files, bytes: done.bytes_written, blocks: done.blocks })
    }
}

/// Gives files and folders below `dir` the permission bits they had, durably.
fn give_modes<'e>(dir: &Path, entries: impl Iterator<Item = &'e FileEntry>) -> std::io::Result<()> {
    let mut entries: Vec<&FileEntry> = entries.collect();
    // What lies in a folder first: the folder's own bits may lock us out.
    entries.sort_by(|a, b| b.path.cmp(&a.path));
    for entry in entries {
        let path = dir.join(OsStr::from_bytes(&entry.path));
        let named = |e: std::io::Error| {
            std::io::Error::new(e.kind(), format!("the mode of {} can't be set: {e}", path.display()))
        };
        let file = File::open(&path).map_err(named)?;
        let now = file.metadata().map_err(named)?.permissions().mode() & 0o7777;
        if now != entry.mode & 0o7777 {
            file.set_permissions(Permissions::from_mode(entry.mode & 0o7777)).map_err(named)?;
            file.sync_all().map_err(named)?;
        }
    }
    Ok(())
}
