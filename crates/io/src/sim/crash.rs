//! Images of crashes: what the disk may hold after the first operations of a trace.

use std::path::{Path, PathBuf};

use super::state::{Change, Inode, NodeId, Op, State, Tree};

/// Smallest unit that a device writes whole.
pub const SECTOR_BYTES: u64 = 512;

/// Which of the unsynced operations reached the disk. `nth` counts them from 0 in the order they were issued, changes
/// of content first, names after them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// None of them.
    Nothing,
    /// All of them.
    Everything,
    /// All but one.
    Without {
        /// The one that is missing.
        nth: usize,
    },
    /// All, but of one write only some units.
    Torn {
        /// The torn one; anything else than a write is missing instead.
        nth: usize,
        /// Bytes of a unit: 512 or 4096.
        unit: u64,
        /// Which units arrived.
        seed: u64,
    },
    /// Each present, torn or missing by chance, and changes of content in an order by chance.
    Random {
        /// Repeats the same image.
        seed: u64,
    },
}

/// A small generator (SplitMix64, Steele and others 2014), so that a seed means the same image for ever.
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n` (0 if `n` is 0).
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next().checked_rem(n).unwrap_or(0)
    }
}

/// What the disk surely holds, and what it may hold.
#[derive(Debug, Clone, Default)]
pub(super) struct Split {
    sure: Tree,
    changes: Vec<(NodeId, Change, bool)>,
    names: Vec<(Op, bool)>,
}

impl Split {
    pub(super) fn of(start: &Tree, trace: &[Op]) -> Self {
        let mut split = Self::at(start.clone());
        for op in trace {
            split.step(op);
        }
        split
    }

    /// Nothing is pending on a disk that was just found.
    pub(super) fn at(start: Tree) -> Self {
        Self { sure: start, ..Self::default() }
    }

    /// One more operation was issued.
    pub(super) fn step(&mut self, op: &Op) {
        match op {
            Op::Create { node, dir, .. } => {
                // The node itself is only reachable by its name, so it may exist at once.
                self.sure.nodes.insert(*node, if *dir { Inode::dir() } else { Inode::file() });
                self.sure.next = self.sure.next.max(node.0.saturating_add(1));
                self.names.push((op.clone(), true));
            }
            Op::Rename { .. } | Op::Remove { .. } => self.names.push((op.clone(), true)),
            Op::Change { node, change } => self.changes.push((*node, change.clone(), true)),
            Op::Sync { node } => {
                let all = std::mem::take(&mut self.changes);
                for (id, change, syncable) in all {
                    if id == *node && syncable {
                        if let Some(inode) = self.sure.nodes.get_mut(&id) {
                            inode.apply(&change);
                        }
                    } else {
                        self.changes.push((id, change, syncable));
                    }
                }
            }
            Op::SyncFailed { node } => {
                self.changes.iter_mut().filter(|(id, ..)| id == node).for_each(|(_, _, s)| *s = false);
            }
            Op::SyncDir { path } => self.sync_names(path),
            Op::Flip { node, offset, bit } => self.sure.flip(*node, *offset, *bit),
            Op::SyncDirFailed { path } => {
                self.names.iter_mut().filter(|(op, _)| touches(op, path)).for_each(|(_, s)| *s = false);
            }
        }
    }

    /// Makes the pending names of a folder durable. A rename between two folders is one operation: syncing either
    /// makes it durable, as journals do.
    fn sync_names(&mut self, dir: &Path) {
        let all = std::mem::take(&mut self.names);
        for (op, syncable) in all {
            if syncable && touches(&op, dir) {
                apply_name(&mut self.sure, &op);
            } else {
                self.names.push((op, syncable));
            }
        }
    }
}

fn touches(op: &Op, dir: &Path) -> bool {
    let inside = |path: &PathBuf| path.parent() == Some(dir);
    match op {
        Op::Create { path, .. } | Op::Remove { path } => inside(path),
        Op::Rename { from, to, .. } => inside(from) || inside(to),
        _ => false,
    }
}

fn apply_name(tree: &mut Tree, op: &Op) {
    match op {
        Op::Create { path, node, .. } => {
            tree.names.insert(path.clone(), *node);
        }
        Op::Rename { from, to, node } => tree.moved(from, to, *node),
        Op::Remove { path } => {
            tree.names.remove(path);
        }
        _ => {}
    }
}

/// Applies a change of which only some units arrived; anything but a write is missing then.
fn apply_torn(inode: &mut Inode, change: &Change, unit: u64, chance: &mut Chance) {
    let Change::Write { offset, bytes } = change else { return };
    let unit = unit.max(1);
    let mut at = 0_u64;
    let len = bytes.len() as u64;
    while at < len {
        let absolute = offset.saturating_add(at);
        let end = len.min(at.saturating_add(unit.saturating_sub(absolute % unit)));
        let part = usize::try_from(at).ok().zip(usize::try_from(end).ok()).and_then(|(a, e)| bytes.get(a..e));
        if let Some(part) = part.filter(|_| chance.next().is_multiple_of(2)) {
            inode.write(absolute, part);
        }
        at = end;
    }
}

/// The disk that is found after the crash.
pub(super) fn image(split: &Split, how: Crash) -> State {
    let Split { sure, changes, names } = split;
    let mut sure = sure.clone();
    let count = changes.len();
    match how {
        Crash::Nothing => {}
        Crash::Everything | Crash::Without { .. } | Crash::Torn { .. } => {
            for (at, (node, change, _)) in changes.iter().enumerate() {
                let Some(inode) = sure.nodes.get_mut(node) else { continue };
                match how {
                    Crash::Without { nth } if nth == at => {}
                    Crash::Torn { nth, unit, seed } if nth == at => {
                        apply_torn(inode, change, unit, &mut Chance::new(seed));
                    }
                    _ => inode.apply(change),
                }
            }
            for (at, (op, _)) in names.iter().enumerate() {
                let missing = match how {
                    Crash::Without { nth } | Crash::Torn { nth, .. } => nth == count.saturating_add(at),
                    _ => false,
                };
                if !missing {
                    apply_name(&mut sure, op);
                }
            }
        }
        Crash::Random { seed } => {
            let mut chance = Chance::new(seed);
            // Half of the images keep the order: a shuffled tail alone would hide what a plain loss shows.
            let mut order: Vec<_> = changes.iter().collect();
            if chance.next().is_multiple_of(2) {
                for at in (1..order.len()).rev() {
                    order.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap_or(0));
                }
            }
            for (node, change, _) in order {
                let Some(inode) = sure.nodes.get_mut(node) else { continue };
                match chance.below(4) {
                    0 => {}
                    1 => {
                        let unit = if chance.next().is_multiple_of(2) { SECTOR_BYTES } else { 4096 };
                        apply_torn(inode, change, unit, &mut chance);
                    }
                    _ => inode.apply(change),
                }
            }
            for (op, _) in names {
                if chance.below(3) > 0 {
                    apply_name(&mut sure, op);
                }
            }
        }
    }
    drop_unreachable(&mut sure);
    State::found(sure)
}

/// Names whose folder did not survive are gone, and so is what has no name.
fn drop_unreachable(tree: &mut Tree) {
    let all: Vec<PathBuf> = tree.names.keys().cloned().collect();
    // Sorted, so a folder comes before what lies in it.
    for path in all {
        let parent = path.parent().unwrap_or(Path::new("/"));
        let held = parent == Path::new("/")
            || tree.names.get(parent).is_some_and(|id| tree.nodes.get(id).is_some_and(|n| n.dir));
        if !held {
            tree.names.remove(&path);
        }
    }
    let named: std::collections::HashSet<NodeId> = tree.names.values().copied().collect();
    tree.nodes.retain(|id, _| named.contains(id));
}

/// The crashes that matter at the end of a trace.
pub(super) fn choices(split: &Split, random: u64) -> Vec<Crash> {
    let mut all = vec![Crash::Nothing];
    let pending = split.changes.len().saturating_add(split.names.len());
    if pending == 0 {
        return all;
    }
    all.push(Crash::Everything);
    all.extend((0..pending).map(|nth| Crash::Without { nth }));
    for (nth, (_, change, _)) in split.changes.iter().enumerate() {
        if matches!(change, Change::Write { .. }) {
            all.extend([SECTOR_BYTES, 4096].map(|unit| Crash::Torn { nth, unit, seed: nth as u64 }));
        }
    }
    all.extend((0..random).map(|seed| Crash::Random { seed }));
    all
}
