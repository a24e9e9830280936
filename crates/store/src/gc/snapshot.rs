//! One moment of a repository: what the manifest says, and who is at work.
//!
//! Both are read under the manifest's lock, so nothing is committed or forgotten between them. A session that is not
//! seen either ended before (then its commit is in this manifest) or begins later (then it reads at least this
//! manifest once others can see it, and refuses a parent that is forgotten in it).

use std::collections::{BTreeSet, HashMap, HashSet};

use holdfast_format::ids::{Address, BackupId, ServerId, SessionId};
use holdfast_format::names::SESSIONS;
use holdfast_format::record::{BackupRecord, HELD_FACT, Record};
use holdfast_format::session::{Session, SessionKind};
use holdfast_io::{Lock, LockKind, ObjectName};

use super::table::SegmentTable;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::map::load_segments;
use crate::repository::{EXPIRED, Inner};

/// Longest object of a session: 1,024 roots of 20 bytes and a little.
const SESSION_BYTES_MAX: u64 = 64 * 1024;

/// The moment.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// Backups whose blocks stay.
    pub(super) wanted: Vec<BackupRecord>,
    /// Sessions of live processes.
    pub(super) live: Vec<Session>,
    /// Sessions of dead ones, locked by us so that they stay dead.
    pub(super) dead: Vec<(ObjectName, Lock)>,
    /// What was condemned, carried, deleted.
    pub(super) table: SegmentTable,
}

impl Snapshot {
    /// Looks. Backups that were forgotten after `forgotten_after_us` still count as wanted.
    pub(super) fn take(inner: &Inner, own: Option<SessionId>, forgotten_after_us: i64) -> Result<Self> {
        let _nobody_appends = inner.manifest.lock()?;
        inner.refresh()?;
        if let Some(why) = inner.manifest.damage() {
            return Err(Error::ReadOnly { why });
        }
        let table = SegmentTable::of(&inner.manifest.records());
        let wanted = wanted(inner, &table, forgotten_after_us)?;
        let (live, dead) = sessions(inner, own)?;
        Ok(Self { wanted, live, dead, table })
    }

    /// The maps that must stay readable.
    pub(super) fn roots(&self) -> BTreeSet<Address> {
        let pinned = self.live.iter().flat_map(|s| s.roots.iter().copied());
        self.wanted.iter().map(|b| b.map).chain(pinned).collect()
    }

    /// Whether every backup at work began after record `number`, so knows what it says.
    pub(super) fn backups_know(&self, number: u64) -> bool {
        self.live.iter().filter(|s| s.kind == SessionKind::Backup).all(|s| s.epoch > number)
    }

    /// Whether every backup and every reader at work began after record `number`.
    pub(super) fn all_know(&self, number: u64) -> bool {
        let counts = |s: &&Session| matches!(s.kind, SessionKind::Backup | SessionKind::Read);
        self.live.iter().filter(counts).all(|s| s.epoch > number)
    }

    /// Whether a backup is at work.
    pub(super) fn backup_runs(&self) -> bool {
        self.live.iter().any(|s| s.kind == SessionKind::Backup)
    }

    /// Whether a process that writes segments of this session lives.
    pub(super) fn lives(&self, session: SessionId) -> bool {
        self.live.iter().any(|s| s.id == session)
    }
}

/// Backups that are not forgotten, were forgotten lately, or are locked, alone or with their server. One that was forgotten and of which an earlier
/// prune (with a shorter grace, or by another clock) has removed something is wanted no more: it can't be had back.
fn wanted(inner: &Inner, table: &SegmentTable, forgotten_after_us: i64) -> Result<Vec<BackupRecord>> {
    let now_us = inner.options.clock.now_us();
    let records = inner.manifest.records();
    let mut gone: HashSet<BackupId> = HashSet::new();
    let mut forgotten: HashSet<BackupId> = HashSet::new();
    let mut expired: HashSet<BackupId> = HashSet::new();
    let mut locked: HashMap<BackupId, i64> = HashMap::new();
    let mut on_hold: HashSet<BackupId> = HashSet::new();
    // Locked servers, and whether not even retention may go on.
    let mut held: HashMap<ServerId, bool> = HashMap::new();
    for stamped in &records {
        match &stamped.record {
            Record::BackupForgotten { backup, reason } => {
                forgotten.insert(*backup);
                if reason.starts_with(EXPIRED) {
                    expired.insert(*backup);
                }
                if stamped.at_us <= forgotten_after_us {
                    gone.insert(*backup);
                }
            }
            Record::BackupLocked { backup, until_us } => {
                let until = locked.entry(*backup).or_insert(*until_us);
                *until = (*until).max(*until_us);
            }
            Record::BackupCommitted(backup) if backup.fact(HELD_FACT).is_some() => {
                on_hold.insert(backup.id);
            }
            Record::BackupHeld(hold) if hold.held => drop(on_hold.insert(hold.backup)),
            Record::BackupHeld(hold) => drop(on_hold.remove(&hold.backup)),
            Record::ServerLocked(lock) => match &lock.terms {
                Some(terms) => drop(held.insert(lock.server, terms.is_empty())),
                None => drop(held.remove(&lock.server)),
            },
            _ => {}
        }
    }
    // Whatever program forgot a locked backup, its blocks stay until the lock is over. The same of a held one.
    gone.retain(|id| locked.get(id).is_none_or(|until| *until <= now_us) && !on_hold.contains(id));
    let committed = records
        .iter()
        .filter_map(|s| if let Record::BackupCommitted(b) = &s.record { Some(b) } else { None });
    // The same of a locked server: only what retention forgot may go, where the lock lets retention go on.
    let stays = |b: &BackupRecord| held.get(&b.server).is_some_and(|all| *all || !expired.contains(&b.id));
    let mut wanted = Vec::new();
    for backup in committed.filter(|b| !gone.contains(&b.id) || stays(b)) {
        if !forgotten.contains(&backup.id) || is_there(inner, table, backup.map)? {
            wanted.push(backup.clone());
        }
    }
    Ok(wanted)
}

/// Whether no prune has removed anything that this map reaches. Its root and tables say which segments those are: nobody
/// can append meanwhile, so its leaves are left to the mark.
fn is_there(inner: &Inner, table: &SegmentTable, map: Address) -> Result<bool> {
    if table.is_gone(map.segment) {
        return Ok(false);
    }
    let (root, segments) = load_segments(&inner.cache, &mut Coder::new()?, map)?;
    let frames = root.tables.iter().chain(&root.leaves).map(|at| at.segment);
    let needed = segments.iter().filter(|s| s.references > 0).map(|s| s.segment);
    Ok(frames.chain(needed).all(|birth| !table.is_gone(birth)))
}

type Sessions = (Vec<Session>, Vec<(ObjectName, Lock)>);

fn sessions(inner: &Inner, own: Option<SessionId>) -> Result<Sessions> {
    let (mut live, mut dead) = (Vec::new(), Vec::new());
    for name in inner.objects.list(SESSIONS)? {
        if own.is_some_and(|own| name.as_str().ends_with(&own.to_string())) {
            continue;
        }
        match inner.objects.try_lock(&name, LockKind::Exclusive) {
            Ok(Some(lock)) => dead.push((name, lock)),
            Ok(None) => match read(inner, &name) {
                Ok(session) => live.push(session),
                // It ended while we looked.
                Err(Error::Io(e)) if e.is_not_found() => {}
                Err(e) => return Err(e),
            },
            Err(e) if e.is_not_found() => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok((live, dead))
}

fn read(inner: &Inner, name: &ObjectName) -> Result<Session> {
    let len = inner.objects.len(name)?.min(SESSION_BYTES_MAX);
    let session = Session::decode(&inner.objects.read(name, 0, len)?).map_err(Error::format(name))?;
    if session.repo != inner.keys.repo {
        return Err(Error::damaged(name, "its content", "it belongs to another place"));
    }
    Ok(session)
}
