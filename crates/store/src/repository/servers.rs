//! The servers of a repository, and their locks. What is asked and what is written of it are one step, under the manifest's
//! lock.

use super::Repository;
use crate::error::{Error, Result};
use holdfast_format::ids::ServerId;
use holdfast_format::keyring::KEPT;
use holdfast_format::record::{Record, ServerLockRecord, ServerRecord, Stamped};
use std::collections::HashMap;

impl Repository {
    /// The protected servers, in the order they were added.
    #[must_use]
    pub fn servers(&self) -> Vec<ServerRecord> {
        let mut servers: Vec<ServerRecord> = Vec::new();
        for stamped in self.inner.manifest.records() {
            match &stamped.record {
                Record::ServerPut(server) => match servers.iter_mut().find(|s| s.id == server.id) {
                    Some(known) => *known = server.clone(),
                    None => servers.push(server.clone()),
                },
                Record::ServerRemoved { server } => servers.retain(|s| s.id != *server),
                _ => {}
            }
        }
        servers
    }

    /// The servers that are locked, with their locks, as of the last append, refresh or opening.
    #[must_use]
    pub fn server_locks(&self) -> HashMap<ServerId, ServerLockRecord> {
        let mut locks = HashMap::new();
        for stamped in self.inner.manifest.records() {
            if let Record::ServerLocked(lock) = &stamped.record {
                locks.insert(lock.server, lock.clone());
            }
        }
        locks.retain(|_, lock| lock.terms.is_some());
        locks
    }

    /// Says that a server is protected no more. Its backups and its log stay. [`Error::ServerLocked`] while it is locked.
    pub fn remove_server(&self, server: ServerId) -> Result<Stamped> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        if self.server_locks().contains_key(&server) {
            return Err(Error::ServerLocked { server });
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::ServerRemoved { server }, now_us, &lock)
    }

    /// Servers that were removed, as they were known last, in the order they were added.
    #[must_use]
    pub fn removed_servers(&self) -> Vec<ServerRecord> {
        let mut all: Vec<(ServerRecord, bool)> = Vec::new();
        for stamped in self.inner.manifest.records() {
            match &stamped.record {
                Record::ServerPut(put) => match all.iter_mut().find(|(s, _)| s.id == put.id) {
                    Some(known) => *known = (put.clone(), false),
                    None => all.push((put.clone(), false)),
                },
                Record::ServerRemoved { server } => {
                    all.iter_mut().filter(|(s, _)| s.id == *server).for_each(|(_, gone)| *gone = true);
                }
                _ => {}
            }
        }
        all.into_iter().filter(|(_, gone)| *gone).map(|(server, _)| server).collect()
    }

    /// Keeps what is known of a server. [`Error::ServerGone`] when it was removed, or never added: a process that had it
    /// in hand must not bring it back.
    pub fn put_known_server(&self, server: ServerRecord) -> Result<Stamped> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        if !self.servers().iter().any(|s| s.id == server.id) {
            return Err(Error::ServerGone { server: server.id });
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::ServerPut(server), now_us, &lock)
    }

    /// Begins or ends a server's lock; `None` when it is begun already, or ended already.
    pub fn lock_server(&self, new: ServerLockRecord) -> Result<Option<Stamped>> {
        self.inner.need(KEPT)?;
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        if self.server_locks().contains_key(&new.server) == new.terms.is_some() {
            return Ok(None);
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::ServerLocked(new), now_us, &lock).map(Some)
    }

    /// Brings a removed server back, as it was known last; `None` when another one has its name, or it is not removed.
    pub fn undelete_server(&self, server: ServerId) -> Result<Option<Stamped>> {
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        let Some(gone) = self.removed_servers().into_iter().find(|s| s.id == server) else { return Ok(None) };
        if self.servers().iter().any(|s| s.name == gone.name) {
            return Ok(None);
        }
        let now_us = self.inner.options.clock.now_us();
        self.inner.manifest.append_locked(Record::ServerPut(gone), now_us, &lock).map(Some)
    }
}
