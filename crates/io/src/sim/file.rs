//! Open files of the simulated disk.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::Shared;
use super::fault::OpKind;
use super::state::{Change, NodeId, PAGE_BYTES, State};
use crate::disk::File;
use crate::error::{Error, Result};

/// Longest file of the simulated disk: it lives in memory, and a wild length must not take the machine with it.
const SIM_FILE_LEN_MAX: u64 = 4 << 30;

#[derive(Debug)]
pub(super) struct SimFile {
    shared: Arc<Shared>,
    node: NodeId,
    path: PathBuf,
    writable: bool,
    poisoned: AtomicBool,
}

impl SimFile {
    pub(super) fn new(shared: Arc<Shared>, node: NodeId, path: PathBuf, writable: bool) -> Self {
        Self { shared, node, path, writable, poisoned: AtomicBool::new(false) }
    }

    fn what(&self) -> String {
        self.path.display().to_string()
    }

    fn check_writable(&self, op: &'static str) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { what: self.what() });
        }
        if !self.writable {
            return Err(Error::Refused { op, what: self.what(), why: "it was opened for reading" });
        }
        Ok(())
    }

    fn check_end(&self, op: &'static str, offset: u64, len: u64) -> Result<u64> {
        offset.checked_add(len).filter(|end| *end <= SIM_FILE_LEN_MAX).ok_or_else(|| Error::Refused {
            op,
            what: self.what(),
            why: "it would be longer than a file of the simulated disk can be",
        })
    }

    fn check_space(&self, state: &State, op: &'static str, range: &Range<u64>) -> Result<()> {
        match state.capacity {
            Some(all) if state.used().saturating_add(state.grows_by(self.node, range)) > all => {
                Err(Error::NoSpace { op, what: self.what() })
            }
            _ => Ok(()),
        }
    }

    fn shape(&self, op: &'static str, change: Change) -> Result<()> {
        self.check_writable(op)?;
        let mut state = self.shared.state();
        state.faults.check(OpKind::Shape, op, &self.path)?;
        state.change(self.node, change);
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        self.check_writable("sync")?;
        let mut state = self.shared.state();
        match state.faults.check(OpKind::Sync, "sync", &self.path) {
            Ok(()) => {
                state.sync(self.node);
                Ok(())
            }
            Err(e) => {
                state.sync_failed(self.node);
                self.poisoned.store(true, Ordering::Release);
                Err(e)
            }
        }
    }
}

impl File for SimFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let mut state = self.shared.state();
        let may = state.faults.check_len(OpKind::Read, "read", &self.path, buf.len())?;
        let bytes = state.node(self.node).map_or(&[][..], |n| n.bytes.as_slice());
        let there = usize::try_from(offset).ok().and_then(|o| bytes.get(o..)).unwrap_or(&[]);
        let n = may.min(there.len());
        if let (Some(to), Some(from)) = (buf.get_mut(..n), there.get(..n)) {
            to.copy_from_slice(from);
        }
        Ok(n)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.check_writable("write")?;
        let mut state = self.shared.state();
        let may = state.faults.check_len(OpKind::Write, "write", &self.path, bytes.len())?;
        let part = bytes.get(..may).unwrap_or(bytes);
        let end = self.check_end("write", offset, part.len() as u64)?;
        self.check_space(&state, "write", &(offset..end))?;
        state.change(self.node, Change::Write { offset, bytes: Arc::from(part) });
        Ok(part.len())
    }

    fn len(&self) -> Result<u64> {
        let mut state = self.shared.state();
        state.faults.check(OpKind::Metadata, "look at", &self.path)?;
        Ok(state.sizes(self.node).0)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.check_end("set the length of", 0, len)?;
        self.shape("set the length of", Change::SetLen { len })
    }

    fn sync_data(&self) -> Result<()> {
        self.sync()
    }

    fn sync_all(&self) -> Result<()> {
        self.sync()
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        let range = offset..self.check_end("punch a hole into", offset, len)?;
        self.shape("punch a hole into", Change::Zero { range, keep_len: true })
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        let range = offset..self.check_end("zero", offset, len)?;
        self.shape("zero", Change::Zero { range, keep_len: false })
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.check_writable("reserve space for")?;
        let range = offset..self.check_end("reserve space for", offset, len)?;
        let mut state = self.shared.state();
        state.faults.check(OpKind::Shape, "reserve space for", &self.path)?;
        self.check_space(&state, "reserve space for", &range)
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let mut state = self.shared.state();
        state.faults.check(OpKind::Metadata, "look for holes in", &self.path)?;
        let Some(node) = state.node(self.node) else { return Ok(None) };
        let len = node.bytes.len() as u64;
        let Some(first) = node.pages.range(offset / PAGE_BYTES..).next().copied() else { return Ok(None) };
        let mut end = first;
        while node.pages.contains(&end) {
            end = end.saturating_add(1);
        }
        let data = first.saturating_mul(PAGE_BYTES).max(offset)..end.saturating_mul(PAGE_BYTES).min(len);
        Ok(Some(data).filter(|d| d.start < d.end))
    }
}
