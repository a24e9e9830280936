//! `SimDisk`: a disk in memory that remembers every operation.
//!
//! What it is for: to show what any crash could have left, and to fail when told to.
//! The model is harsher than real file systems, as POSIX allows:
//!
//! * A write, cut or punched hole is durable after a sync of that file, not before;
//!   before, any subset of them may be on the disk, torn at sectors, in any order.
//! * A name (created, renamed, removed) is durable after a sync of its folder, not
//!   before; syncing the file does not make its name durable.
//! * After a sync that failed, the writes it should have covered are readable but will
//!   never reach the disk by a later sync, whatever that one returns.
//!
//! `state.rs` holds the files, `crash.rs` makes images of crashes from the trace, and
//! `fault.rs` decides which operation fails.

mod crash;
mod fault;
mod file;
mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crash::Split;
pub use crash::{Crash, SECTOR_BYTES};
pub use fault::{Fault, OpKind};
pub use state::Op;

use crate::disk::{Disk, Entry, EntryKind, File, FreeSpace, Lock, LockKind, Metadata, Open, Wait};
use crate::error::{Error, Result};
use file::SimFile;
use state::{Inode, NodeId, State};

/// Where a simulated disk keeps everything; handles and locks share it.
#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Signalled when a lock is let go.
    unlocked: Condvar,
}

impl Shared {
    /// The state; a panic in another test thread does not make it unreadable.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A disk in memory that records every operation. Clones share the same disk.
#[derive(Debug, Clone, Default)]
pub struct SimDisk {
    shared: Arc<Shared>,
}

impl SimDisk {
    /// An empty disk: the folders `/` and `.` exist.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The disk, ready to be shared as a [`Disk`].
    #[must_use]
    pub fn shared(&self) -> Arc<dyn Disk> {
        Arc::new(self.clone())
    }

    /// A disk whose files take no more than `bytes` in all; more fails as a full file system does.
    #[must_use]
    pub fn with_capacity(bytes: u64) -> Self {
        let disk = Self::new();
        disk.shared.state().capacity = Some(bytes);
        disk
    }

    /// Changes how much fits on the disk; `None` is no limit.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.shared.state().capacity = bytes;
    }

    /// Bytes that files take now.
    #[must_use]
    pub fn used(&self) -> u64 {
        self.shared.state().used()
    }

    /// From now on every lock is granted to everybody, as on a network file system without locking.
    pub fn break_locks(&self) {
        self.shared.state().locks_lie = true;
    }

    /// How many operations the trace has. An image can be made at each: see [`SimDisk::crash_at`].
    #[must_use]
    pub fn trace_len(&self) -> usize {
        self.shared.state().trace.len()
    }

    /// A copy of the trace.
    #[must_use]
    pub fn trace(&self) -> Vec<Op> {
        self.shared.state().trace.clone()
    }

    /// The disk as it would be found after a crash now.
    #[must_use]
    pub fn crash(&self, how: Crash) -> Self {
        self.crash_at(usize::MAX, how)
    }

    /// The disk as it would be found after a crash when only the first `ops` operations had been issued.
    #[must_use]
    pub fn crash_at(&self, ops: usize, how: Crash) -> Self {
        let state = self.shared.state();
        let trace = state.trace.get(..ops.min(state.trace.len())).unwrap_or(&state.trace);
        Self::found(&Split::of(&state.start, trace), how, state.capacity)
    }

    fn found(split: &Split, how: Crash, capacity: Option<u64>) -> Self {
        let mut image = crash::image(split, how);
        image.capacity = capacity;
        Self { shared: Arc::new(Shared { state: Mutex::new(image), unlocked: Condvar::new() }) }
    }

    /// Walks the trace from its first operation, for all images of all its moments: cheaper than [`SimDisk::crash_at`]
    /// for each, which begins at the first operation every time.
    #[must_use]
    pub fn walk(&self) -> CrashWalk {
        let state = self.shared.state();
        CrashWalk {
            split: Split::at(state.start.clone()),
            rest: state.trace.clone().into_iter(),
            ops: 0,
            capacity: state.capacity,
        }
    }

    /// The crashes that matter after the first `ops` operations: nothing, everything, each unsynced operation
    /// missing alone, each torn alone at 512 bytes and at 4 KiB, and `random` seeded mixtures.
    #[must_use]
    pub fn crashes_at(&self, ops: usize, random: u64) -> Vec<Crash> {
        let state = self.shared.state();
        let trace = state.trace.get(..ops.min(state.trace.len())).unwrap_or(&state.trace);
        crash::choices(&Split::of(&state.start, trace), random)
    }

    /// Arms a fault: the `nth` operation (0 is the next one) of this kind, or of any kind, fails.
    pub fn inject(&self, kind: Option<OpKind>, nth: u64, fault: Fault) {
        self.shared.state().faults.arm(kind, nth, fault);
    }

    /// Disarms every fault that has not fired.
    pub fn clear_faults(&self) {
        self.shared.state().faults.clear();
    }

    /// How many operations could have failed so far: the range of `nth` for [`SimDisk::inject`].
    #[must_use]
    pub fn operations(&self) -> u64 {
        self.shared.state().faults.seen()
    }

    /// Inverts one bit of a file, as rot does: on the platter at once, no sync needed. False if the file has no such byte.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> bool {
        let mut state = self.shared.state();
        let Some(node) = state.find(&normal(path)) else { return false };
        state.flip(node, offset, bit)
    }
}

/// A walk along the trace of a simulated disk: see [`SimDisk::walk`].
#[derive(Debug)]
pub struct CrashWalk {
    split: Split,
    rest: std::vec::IntoIter<Op>,
    ops: usize,
    capacity: Option<u64>,
}

impl CrashWalk {
    /// Goes on to the moment after the next operation; false at the end of the trace.
    pub fn step(&mut self) -> bool {
        match self.rest.next() {
            Some(op) => {
                self.split.step(&op);
                self.ops = self.ops.saturating_add(1);
                true
            }
            None => false,
        }
    }

    /// Goes on behind the next operation, as if the program had left it out; `None` at the end of the trace. For syncs:
    /// the program sees no difference, only a crash does.
    pub fn leave_out(&mut self) -> Option<Op> {
        let op = self.rest.next()?;
        self.ops = self.ops.saturating_add(1);
        Some(op)
    }

    /// How many operations had been issued at this moment.
    #[must_use]
    pub fn ops(&self) -> usize {
        self.ops
    }

    /// The crashes that matter at this moment, as [`SimDisk::crashes_at`].
    #[must_use]
    pub fn crashes(&self, random: u64) -> Vec<Crash> {
        crash::choices(&self.split, random)
    }

    /// The disk as it would be found after a crash at this moment.
    #[must_use]
    pub fn image(&self, how: Crash) -> SimDisk {
        SimDisk::found(&self.split, how, self.capacity)
    }
}

/// Paths without `.` and doubled slashes; relative ones begin at `/` too.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for part in path.components() {
        if let std::path::Component::Normal(p) = part {
            out.push(p);
        }
    }
    out
}

fn gone(path: &Path) -> Error {
    Error::NotFound { what: path.display().to_string() }
}

impl Disk for SimDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let at = normal(path);
        let mut state = self.shared.state();
        let kind =
            if matches!(how, Open::CreateNew | Open::CreateOrOpen) { OpKind::Create } else { OpKind::Open };
        state.faults.check(kind, "open", path)?;
        let node = match (state.find(&at), how) {
            (Some(_), Open::CreateNew) => return Err(Error::Exists { what: path.display().to_string() }),
            (Some(node), _) => node,
            (None, Open::Read | Open::Write) => return Err(gone(path)),
            (None, Open::CreateNew | Open::CreateOrOpen) => {
                state.parent_of(&at)?;
                state.create(at, Inode::file())
            }
        };
        if state.kind(node) == EntryKind::Dir {
            return Err(Error::Refused {
                op: "open",
                what: path.display().to_string(),
                why: "it is a folder",
            });
        }
        Ok(Arc::new(SimFile::new(Arc::clone(&self.shared), node, path.to_path_buf(), how != Open::Read)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let (from_at, to_at) = (normal(from), normal(to));
        let mut state = self.shared.state();
        state.faults.check(OpKind::Rename, "rename", from)?;
        state.find(&from_at).ok_or_else(|| gone(from))?;
        state.parent_of(&to_at)?;
        state.rename(from_at, to_at);
        Ok(())
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<()> {
        let (from_at, to_at) = (normal(from), normal(to));
        let mut state = self.shared.state();
        state.faults.check(OpKind::Rename, "rename", from)?;
        state.find(&from_at).ok_or_else(|| gone(from))?;
        state.parent_of(&to_at)?;
        if state.find(&to_at).is_some() {
            return Err(Error::Exists { what: to.display().to_string() });
        }
        state.rename(from_at, to_at);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        let at = normal(path);
        let mut state = self.shared.state();
        state.faults.check(OpKind::Remove, "remove", path)?;
        let node = state.find(&at).ok_or_else(|| gone(path))?;
        if state.kind(node) == EntryKind::Dir {
            return Err(Error::Refused {
                op: "remove",
                what: path.display().to_string(),
                why: "it is a folder",
            });
        }
        state.remove(at);
        Ok(())
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        let at = normal(path);
        let mut state = self.shared.state();
        state.faults.check(OpKind::Remove, "remove", path)?;
        let node = state.find(&at).ok_or_else(|| gone(path))?;
        if state.kind(node) != EntryKind::Dir || !state.children(&at).is_empty() {
            let why = "it is no folder, or not empty";
            return Err(Error::Refused { op: "remove", what: path.display().to_string(), why });
        }
        state.remove(at);
        Ok(())
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        let at = normal(path);
        let mut state = self.shared.state();
        state.faults.check(OpKind::Create, "create the folder", path)?;
        if state.find(&at).is_some() {
            return Err(Error::Exists { what: path.display().to_string() });
        }
        state.parent_of(&at)?;
        state.create(at, Inode::dir());
        Ok(())
    }

    fn list(&self, dir: &Path) -> Result<Vec<Entry>> {
        let at = normal(dir);
        let mut state = self.shared.state();
        state.faults.check(OpKind::List, "list", dir)?;
        match state.find(&at) {
            Some(node) if state.kind(node) == EntryKind::Dir => Ok(state.children(&at)),
            Some(_) => {
                Err(Error::Refused { op: "list", what: dir.display().to_string(), why: "it is not a folder" })
            }
            None => Err(gone(dir)),
        }
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let at = normal(dir);
        let mut state = self.shared.state();
        state.find(&at).ok_or_else(|| gone(dir))?;
        match state.faults.check(OpKind::SyncDir, "sync the folder", dir) {
            Ok(()) => {
                state.sync_dir(at);
                Ok(())
            }
            Err(e) => {
                state.sync_dir_failed(at);
                Err(e)
            }
        }
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let mut state = self.shared.state();
        state.faults.check(OpKind::Metadata, "look at", path)?;
        let node = state.find(&normal(path)).ok_or_else(|| gone(path))?;
        let (len, allocated) = state.sizes(node);
        Ok(Metadata { kind: state.kind(node), len, allocated, modified_unix_ns: 0 })
    }

    fn lock(&self, path: &Path, kind: LockKind, wait: Wait) -> Result<Option<Lock>> {
        let start = Instant::now();
        let at = normal(path);
        let mut state = self.shared.state();
        state.faults.check(OpKind::Lock, "lock", path)?;
        loop {
            let node = state.find(&at).ok_or_else(|| gone(path))?;
            if state.try_lock(node, kind) {
                return Ok(Some(Lock::new(Box::new(SimLock {
                    shared: Arc::clone(&self.shared),
                    node,
                    kind,
                }))));
            }
            let limit = match wait {
                Wait::Try => return Ok(None),
                Wait::AtMost(limit) => limit,
            };
            let waited = start.elapsed();
            if waited >= limit {
                return Err(Error::LockBusy { what: path.display().to_string(), waited });
            }
            let pause = limit.saturating_sub(waited).min(Duration::from_millis(100));
            let waited = self.shared.unlocked.wait_timeout(state, pause);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    fn free_space(&self, _path: &Path) -> Result<FreeSpace> {
        let state = self.shared.state();
        let total = state.capacity.unwrap_or(1 << 40);
        Ok(FreeSpace { available: total.saturating_sub(state.used()), total })
    }
}

/// A held lock of the simulated disk.
struct SimLock {
    shared: Arc<Shared>,
    node: NodeId,
    kind: LockKind,
}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.shared.state().unlock(self.node, self.kind);
        self.shared.unlocked.notify_all();
    }
}
