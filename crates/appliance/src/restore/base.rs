//! A backup of the repository as the base of a restore.

use crate::backup::LACKING;
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::FileKind;
use holdfast_format::record::{BackupRecord, Coordinates, SourceKind};
use holdfast_io::RealDisk;
use holdfast_restore::error::Foreign;
use holdfast_restore::layout::CLONE_DIR;
use holdfast_restore::marker::{LOCK, MARKER};
use holdfast_restore::{Base, LaidOut, LayingOut};
use holdfast_store::{Difference, Existing, Repository, RestoreOptions};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A backup, with the coordinates as far as they are known.
#[derive(Debug)]
pub(super) struct StoredBase {
    pub(super) repository: Repository,
    pub(super) record: BackupRecord,
    pub(super) coordinates: Coordinates,
    /// Names of the target folder that are left alone, beside those that every restore leaves.
    pub(super) kept: Vec<OsString>,
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

    fn lacking(&self) -> Vec<String> {
        let lacking = self.record.warnings.iter().filter(|warning| warning.starts_with(LACKING));
        lacking.cloned().collect()
    }

    fn bytes(&self) -> u64 {
        // What is written: blocks with bytes in them. The last one of a file may be shorter, holes and zeros cost nothing.
        let stats = &self.record.stats;
        stats.blocks.saturating_mul(u64::from(BLOCK_BYTES)).min(stats.logical_bytes)
    }

    fn files(&self) -> u64 {
        self.record.stats.files
    }

    fn restore_into(
        &self,
        dir: &Path,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        self.lay_out(dir, None, progress)
    }

    fn paths(&self) -> Result<Vec<(Vec<u8>, u64)>, Foreign> {
        let reader = self.repository.open_backup(self.record.id)?;
        let regular = reader.files_with_bytes().filter(|(entry, _)| entry.kind == FileKind::Regular);
        Ok(regular.map(|(entry, bytes)| (entry.path.clone(), bytes)).collect())
    }

    fn restore_some_into(
        &self,
        dir: &Path,
        only: &BTreeSet<Vec<u8>>,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        self.lay_out(dir, Some(Arc::new(only.clone())), progress)
    }
}

impl StoredBase {
    fn lay_out(
        &self,
        dir: &Path,
        only: Option<Arc<BTreeSet<Vec<u8>>>>,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut, Foreign> {
        let reader = self.repository.open_backup(self.record.id)?;
        let cancel = Arc::new(AtomicBool::new(false));
        let report = |p: holdfast_store::RestoreProgress| {
            let at = LayingOut { bytes: p.bytes_done, bytes_total: p.bytes_total };
            if progress(at).is_break() {
                cancel.store(true, Ordering::Relaxed);
            }
        };
        let options = RestoreOptions { only, cancel: Some(Arc::clone(&cancel)), ..self.options() };
        let done = reader.restore_into(RealDisk::shared().as_ref(), dir, &report, &options)?;
        Ok(LaidOut {
            files: done.files,
            bytes: done.bytes_written,
            blocks: done.blocks,
            blocks_kept: done.blocks_kept,
            healed_segments: done.healed_segments,
        })
    }

    /// What laying it out over `dir` would do there.
    pub(super) fn difference(&self, dir: &Path) -> holdfast_store::Result<Difference> {
        let reader = self.repository.open_backup(self.record.id)?;
        reader.difference(RealDisk::shared().as_ref(), dir, &self.options())
    }

    fn options(&self) -> RestoreOptions {
        // The modes and times of a folder are its owner's choice; a copy that a server streamed has none.
        let facts = self.record.source == SourceKind::Folder;
        let mut keep = vec![MARKER.into(), format!("{MARKER}.new").into(), LOCK.into()];
        if self.record.source == SourceKind::Clone {
            keep.push(CLONE_DIR.into());
        }
        keep.extend(self.kept.iter().cloned());
        RestoreOptions { facts, existing: Existing::Rewritten { keep }, ..RestoreOptions::default() }
    }
}
