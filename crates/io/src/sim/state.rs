//! The files, names and pending operations of a simulated disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::fault::Faults;
use crate::disk::{Entry, EntryKind, LockKind};
use crate::error::{Error, Result};

/// A page of the simulated disk, the grain of holes.
pub(super) const PAGE_BYTES: u64 = 4096;

/// Which file or folder, whatever its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub(super) u64);

/// One recorded operation. Reads change nothing and are not recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Op {
    /// A file or folder was made at this path.
    Create {
        /// Where.
        path: PathBuf,
        /// The new file or folder.
        node: NodeId,
        /// Whether it is a folder.
        dir: bool,
    },
    /// A name was moved, replacing what had the new one.
    Rename {
        /// The old name.
        from: PathBuf,
        /// The new name.
        to: PathBuf,
        /// What was moved.
        node: NodeId,
    },
    /// A name was removed.
    Remove {
        /// The name.
        path: PathBuf,
    },
    /// The content of a file changed.
    Change {
        /// The file.
        node: NodeId,
        /// How.
        change: Change,
    },
    /// A sync of a file succeeded.
    Sync {
        /// The file.
        node: NodeId,
    },
    /// A sync of a file failed: what was pending will never reach the disk by a later one.
    SyncFailed {
        /// The file.
        node: NodeId,
    },
    /// A sync of a folder succeeded.
    SyncDir {
        /// The folder.
        path: PathBuf,
    },
    /// A sync of a folder failed.
    SyncDirFailed {
        /// The folder.
        path: PathBuf,
    },
    /// A bit rotted on the platter, and for readers.
    Flip {
        /// The file.
        node: NodeId,
        /// Which byte.
        offset: u64,
        /// Which bit of it, 0 the lowest.
        bit: u8,
    },
}

/// A change of a file's content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Bytes written at an offset.
    Write {
        /// Where.
        offset: u64,
        /// What.
        bytes: Arc<[u8]>,
    },
    /// A new length.
    SetLen {
        /// Bytes.
        len: u64,
    },
    /// A range that reads as zeros; `keep_len` for a punched hole.
    Zero {
        /// Which bytes.
        range: Range<u64>,
        /// Whether the file may not grow by it.
        keep_len: bool,
    },
}

/// A file or folder.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    pub(super) dir: bool,
    /// Shared between the images of a trace until one of them changes it.
    pub(super) bytes: Arc<Vec<u8>>,
    /// Pages that hold data; the others are holes.
    pub(super) pages: Arc<BTreeSet<u64>>,
}

impl Inode {
    pub(super) fn file() -> Self {
        Self::default()
    }

    pub(super) fn dir() -> Self {
        Self { dir: true, ..Self::default() }
    }

    /// Applies a change whole.
    pub(super) fn apply(&mut self, change: &Change) {
        match change {
            Change::Write { offset, bytes } => self.write(*offset, bytes),
            Change::SetLen { len } => self.set_len(*len),
            Change::Zero { range, keep_len } => {
                let end = if *keep_len { range.end.min(self.bytes.len() as u64) } else { range.end };
                if end > self.bytes.len() as u64 {
                    self.set_len(end);
                }
                if let Some(part) =
                    slice_mut(Arc::<Vec<u8>>::make_mut(&mut self.bytes).as_mut_slice(), range.start, end)
                {
                    part.fill(0);
                }
                let whole = range.start.div_ceil(PAGE_BYTES)..end / PAGE_BYTES;
                Arc::make_mut(&mut self.pages).retain(|p| !whole.contains(p));
            }
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset.saturating_add(bytes.len() as u64);
        if end > self.bytes.len() as u64 {
            self.set_len(end);
        }
        if let Some(part) = slice_mut(Arc::<Vec<u8>>::make_mut(&mut self.bytes).as_mut_slice(), offset, end) {
            part.copy_from_slice(bytes);
        }
        Arc::make_mut(&mut self.pages).extend(offset / PAGE_BYTES..end.div_ceil(PAGE_BYTES));
    }

    fn set_len(&mut self, len: u64) {
        Arc::make_mut(&mut self.bytes).resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        Arc::make_mut(&mut self.pages).retain(|p| *p < len.div_ceil(PAGE_BYTES));
    }
}

fn slice_mut(bytes: &mut [u8], start: u64, end: u64) -> Option<&mut [u8]> {
    bytes.get_mut(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
}

/// The files and names at one moment.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) names: BTreeMap<PathBuf, NodeId>,
    pub(super) nodes: HashMap<NodeId, Inode>,
    pub(super) next: u64,
}

impl Tree {
    /// Applies an operation to what processes see (the page cache, so to speak).
    pub(super) fn apply(&mut self, op: &Op) {
        match op {
            Op::Create { path, node, dir } => {
                self.names.insert(path.clone(), *node);
                self.nodes.insert(*node, if *dir { Inode::dir() } else { Inode::file() });
                self.next = self.next.max(node.0.saturating_add(1));
            }
            Op::Rename { from, to, node } => self.moved(from, to, *node),
            Op::Remove { path } => {
                self.names.remove(path);
            }
            Op::Change { node, change } => {
                if let Some(inode) = self.nodes.get_mut(node) {
                    inode.apply(change);
                }
            }
            Op::Flip { node, offset, bit } => self.flip(*node, *offset, *bit),
            Op::Sync { .. } | Op::SyncFailed { .. } | Op::SyncDir { .. } | Op::SyncDirFailed { .. } => {}
        }
    }

    /// Inverts a bit, if the file is that long.
    pub(super) fn flip(&mut self, node: NodeId, offset: u64, bit: u8) {
        let bytes = self.nodes.get_mut(&node).map(|n| Arc::make_mut(&mut n.bytes));
        let byte = bytes.and_then(|b| usize::try_from(offset).ok().and_then(|o| b.get_mut(o)));
        if let Some(byte) = byte {
            *byte ^= 1 << (bit % 8);
        }
    }

    /// Moves a name, and with a folder everything below it.
    pub(super) fn moved(&mut self, from: &Path, to: &Path, node: NodeId) {
        self.names.remove(from);
        let below: Vec<PathBuf> = self.names.keys().filter(|p| p.starts_with(from)).cloned().collect();
        for path in below {
            if let (Some(id), Ok(rest)) = (self.names.remove(&path), path.strip_prefix(from)) {
                self.names.insert(to.join(rest), id);
            }
        }
        self.names.insert(to.to_path_buf(), node);
    }
}

/// A held lock: how many share it, or `None` if one holds it alone.
type Holders = Option<u64>;

/// Everything a simulated disk knows.
#[derive(Debug, Default)]
pub(super) struct State {
    /// What processes see.
    pub(super) now: Tree,
    /// What the disk held before the first recorded operation.
    pub(super) start: Tree,
    pub(super) trace: Vec<Op>,
    pub(super) faults: Faults,
    pub(super) capacity: Option<u64>,
    /// Every lock is granted.
    pub(super) locks_lie: bool,
    locks: HashMap<NodeId, Holders>,
}

impl State {
    /// A disk found after a crash.
    pub(super) fn found(tree: Tree) -> Self {
        Self { now: tree.clone(), start: tree, ..Self::default() }
    }

    fn record(&mut self, op: Op) {
        self.now.apply(&op);
        self.trace.push(op);
    }

    pub(super) fn find(&self, path: &Path) -> Option<NodeId> {
        if path == Path::new("/") { Some(NodeId(u64::MAX)) } else { self.now.names.get(path).copied() }
    }

    pub(super) fn kind(&self, node: NodeId) -> EntryKind {
        let dir = node.0 == u64::MAX || self.now.nodes.get(&node).is_some_and(|n| n.dir);
        if dir { EntryKind::Dir } else { EntryKind::File }
    }

    /// Fails unless the folder of `path` is there.
    pub(super) fn parent_of(&self, path: &Path) -> Result<()> {
        let parent = path.parent().unwrap_or(Path::new("/"));
        match self.find(parent) {
            Some(node) if self.kind(node) == EntryKind::Dir => Ok(()),
            _ => Err(Error::NotFound { what: parent.display().to_string() }),
        }
    }

    pub(super) fn create(&mut self, path: PathBuf, inode: Inode) -> NodeId {
        let node = NodeId(self.now.next);
        self.record(Op::Create { path, node, dir: inode.dir });
        node
    }

    pub(super) fn rename(&mut self, from: PathBuf, to: PathBuf) {
        if let Some(node) = self.find(&from) {
            self.record(Op::Rename { from, to, node });
        }
    }

    pub(super) fn remove(&mut self, path: PathBuf) {
        self.record(Op::Remove { path });
    }

    pub(super) fn change(&mut self, node: NodeId, change: Change) {
        self.record(Op::Change { node, change });
    }

    pub(super) fn sync(&mut self, node: NodeId) {
        self.record(Op::Sync { node });
    }

    pub(super) fn sync_failed(&mut self, node: NodeId) {
        self.record(Op::SyncFailed { node });
    }

    pub(super) fn sync_dir(&mut self, path: PathBuf) {
        self.record(Op::SyncDir { path });
    }

    pub(super) fn sync_dir_failed(&mut self, path: PathBuf) {
        self.record(Op::SyncDirFailed { path });
    }

    pub(super) fn children(&self, dir: &Path) -> Vec<Entry> {
        let below = self.now.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        below
            .filter_map(|(path, node)| {
                path.file_name().map(|n| Entry { name: n.to_owned(), kind: self.kind(*node) })
            })
            .collect()
    }

    pub(super) fn node(&self, node: NodeId) -> Option<&Inode> {
        self.now.nodes.get(&node)
    }

    /// Length and allocated bytes.
    pub(super) fn sizes(&self, node: NodeId) -> (u64, u64) {
        self.node(node).map_or((0, 0), |n| (n.bytes.len() as u64, n.pages.len() as u64 * PAGE_BYTES))
    }

    /// Bytes allocated to files that still have a name.
    pub(super) fn used(&self) -> u64 {
        self.now.names.values().map(|node| self.sizes(*node).1).sum()
    }

    /// Bytes that a write of this range would newly take.
    pub(super) fn grows_by(&self, node: NodeId, range: &Range<u64>) -> u64 {
        let pages = range.start / PAGE_BYTES..range.end.div_ceil(PAGE_BYTES);
        let held = self.node(node).map_or(0, |n| n.pages.range(pages.clone()).count() as u64);
        (pages.end.saturating_sub(pages.start)).saturating_sub(held).saturating_mul(PAGE_BYTES)
    }

    pub(super) fn flip(&mut self, node: NodeId, offset: u64, bit: u8) -> bool {
        let hit = self.node(node).is_some_and(|n| offset < n.bytes.len() as u64);
        if hit {
            self.record(Op::Flip { node, offset, bit });
        }
        hit
    }

    pub(super) fn try_lock(&mut self, node: NodeId, kind: LockKind) -> bool {
        match (self.locks.get_mut(&node), kind) {
            _ if self.locks_lie => true,
            (None, LockKind::Exclusive) => {
                self.locks.insert(node, None);
                true
            }
            (None, LockKind::Shared) => {
                self.locks.insert(node, Some(1));
                true
            }
            (Some(Some(n)), LockKind::Shared) => {
                *n = n.saturating_add(1);
                true
            }
            _ => false,
        }
    }

    pub(super) fn unlock(&mut self, node: NodeId, kind: LockKind) {
        match (self.locks.get_mut(&node), kind) {
            (Some(Some(n)), LockKind::Shared) if *n > 1 => *n = n.saturating_sub(1),
            _ => {
                self.locks.remove(&node);
            }
        }
    }
}
