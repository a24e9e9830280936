//! Holds on backups. What is asked and what is written of it are one step, under the manifest's lock.

use super::Repository;
use crate::error::{Error, Result};
use holdfast_format::ids::BackupId;
use holdfast_format::record::{HELD_FACT, HoldRecord, Record, Stamped};

impl Repository {
    /// Whether a backup is held, as of the last append, refresh or opening.
    #[must_use]
    pub fn is_held(&self, id: BackupId) -> bool {
        let records = self.inner.manifest.records();
        let newest = records.iter().rev().find_map(|stamped| match &stamped.record {
            Record::BackupHeld(hold) if hold.backup == id => Some(hold.held),
            // No hold is older than its backup.
            Record::BackupCommitted(backup) if backup.id == id => Some(backup.fact(HELD_FACT).is_some()),
            _ => None,
        });
        newest.unwrap_or(false)
    }

    /// Holds a backup, or releases it: nothing forgets it while it is held. `None` when it is so already.
    /// [`Error::ServerLocked`] for a release while its server is locked.
    pub fn hold_backup(&self, new: HoldRecord) -> Result<Option<Stamped>> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        let backup = self.inner.backup(new.backup)?;
        if self.is_held(backup.id) == new.held {
            return Ok(None);
        }
        if !new.held && self.server_locks().contains_key(&backup.server) {
            return Err(Error::ServerLocked { server: backup.server });
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::BackupHeld(new), now_us, &lock).map(Some)
    }
}
