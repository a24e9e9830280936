//! Holds on backups. What is asked and what is written of it are one step, under the manifest's lock.

use super::Repository;
use crate::error::{Error, Result};
use holdfast_format::ids::BackupId;
use holdfast_format::keyring::KEPT;
use holdfast_format::record::{BackupRecord, HELD_FACT, HoldRecord, Record, Stamped};

impl Repository {
    /// Whether a backup is held, as of the last append, refresh or opening.
    #[must_use]
    pub fn is_held(&self, id: BackupId) -> bool {
        self.held_by(id).is_some()
    }

    /// Number of the record that holds a backup: that of its commit, or of the hold that a person put on it. `None` when
    /// it is not held.
    #[must_use]
    pub fn held_by(&self, id: BackupId) -> Option<u64> {
        let records = self.inner.manifest.records();
        let newest = records.iter().rev().find_map(|stamped| match &stamped.record {
            Record::BackupHeld(hold) if hold.backup == id => Some((stamped.number, hold.held)),
            // No hold is older than its backup.
            Record::BackupCommitted(backup) if backup.id == id => {
                Some((stamped.number, backup.fact(HELD_FACT).is_some()))
            }
            _ => None,
        });
        newest.and_then(|(number, held)| held.then_some(number))
    }

    /// The record of a backup that is held though it is forgotten: a program that knew of no holds forgot it. Its blocks
    /// are there until it is released.
    #[must_use]
    pub fn held_though_forgotten(&self, id: BackupId) -> Option<BackupRecord> {
        if self.inner.backup(id).is_ok() || !self.is_held(id) {
            return None;
        }
        self.inner.committed(id).ok()
    }

    /// Holds a backup, or releases it: nothing forgets it while it is held. `None` when it is so already.
    /// [`Error::ServerLocked`] for a release while its server is locked.
    pub fn hold_backup(&self, new: HoldRecord) -> Result<Option<Stamped>> {
        self.hold_if(new, |_| true)
    }

    /// Releases a backup from the hold of the record `by` ([`Repository::held_by`]). [`Error::HeldAnew`] where another
    /// one holds it.
    pub fn release_from(&self, id: BackupId, by: Option<u64>, reason: &str) -> Result<Option<Stamped>> {
        let new = HoldRecord { backup: id, held: false, reason: reason.to_owned() };
        self.hold_if(new, |held_by| by == Some(held_by))
    }

    /// `allowed` is asked about the record that holds a backup which is to be released.
    fn hold_if(&self, new: HoldRecord, allowed: impl FnOnce(u64) -> bool) -> Result<Option<Stamped>> {
        self.inner.need(KEPT)?;
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        // What a program forgot that knew of no holds is there still, and has to be let go.
        let backup =
            if new.held { self.inner.backup(new.backup)? } else { self.inner.committed(new.backup)? };
        let held_by = self.held_by(backup.id);
        if held_by.is_some() == new.held {
            return Ok(None);
        }
        if !new.held && self.server_locks().contains_key(&backup.server) {
            return Err(Error::ServerLocked { server: backup.server });
        }
        if held_by.is_some_and(|by| !allowed(by)) {
            return Err(Error::HeldAnew { id: backup.id });
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::BackupHeld(new), now_us, &lock).map(Some)
    }
}
