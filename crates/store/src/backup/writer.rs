//! `BackupWriter`: what a source feeds.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use holdfast_format::ids::{Address, BackupId};
use holdfast_format::limits::{BLOCK_BYTES, FILE_BYTES_MAX, FILES_MAX};
use holdfast_format::map::{FileEntry, FileKind, SourceState};
use holdfast_format::names;
use holdfast_format::record::BackupStats;
use holdfast_format::session::SessionKind;
use holdfast_io::ObjectName;

use super::files::{FileNo, FileSpec, FileState, Packed};
use super::pipeline::{Pipeline, Shared};
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::map::{LoadedMap, Parent};
use crate::reader::{CoderHolder, block_len, read_block};
use crate::repository::{Inner, VerifyWrite};

/// Patched blocks kept in memory before they are stored again: 32 MiB.
const DIRTY_MAX: usize = 512;

/// A backup that is being taken. All calls may come from several threads at once; only one of them may work on the same
/// block at a time. Dropped without [`BackupWriter::commit`], it leaves nothing that counts.
#[derive(Debug)]
pub struct BackupWriter {
    pub(super) inner: Arc<Inner>,
    pub(super) shared: Arc<Shared>,
    pub(super) pipeline: Pipeline,
    pub(super) parent_id: Option<BackupId>,
    pub(super) started_us: i64,
    pub(super) files: RwLock<Files>,
    dirty: Mutex<BTreeMap<(u32, u32), Vec<u8>>>,
    coder: Mutex<CoderHolder>,
    /// Own segments are removed when this is dropped: nothing refers to them.
    pub(super) remove_on_drop: bool,
}

/// The files by number, and the numbers by path.
#[derive(Debug, Default)]
pub(super) struct Files {
    pub(super) list: Vec<Arc<FileState>>,
    by_path: HashMap<Vec<u8>, u32>,
}

impl BackupWriter {
    pub(crate) fn begin(inner: &Arc<Inner>, parent: Option<BackupId>, verify: VerifyWrite) -> Result<Self> {
        if let Some(why) = inner.manifest.damage() {
            return Err(Error::ReadOnly { why });
        }
        let root = |inner: &Inner| parent.map(|id| inner.backup(id)).transpose();
        inner.refresh()?;
        let roots = root(inner)?.map(|b| b.map).into_iter().collect();
        let session = inner.begin_session(SessionKind::Backup, roots)?;
        // It may have been forgotten before the session could be seen.
        let parent_map = match root(inner)? {
            Some(record) => Some(Parent::new(Arc::new(LoadedMap::load(&inner.cache, record.map)?))),
            None => None,
        };
        let shared = Arc::new(Shared::new(inner, session, parent_map, verify));
        Ok(Self {
            inner: Arc::clone(inner),
            pipeline: Pipeline::start(&shared)?,
            shared,
            parent_id: parent,
            started_us: inner.options.clock.now_us(),
            files: RwLock::default(),
            dirty: Mutex::default(),
            coder: Mutex::new(CoderHolder(Coder::new()?)),
            remove_on_drop: true,
        })
    }

    /// Adds a file; all of it is a hole until blocks are put.
    pub fn add_file(&self, spec: FileSpec) -> Result<FileNo> {
        let refused = |why: String| Error::Refused { op: "add the file", why };
        let shown = String::from_utf8_lossy(&spec.path).into_owned();
        if let Some(flaw) = FileEntry::path_flaw(&spec.path) {
            return Err(refused(format!("{shown:?} should be {flaw}")));
        }
        if spec.len > FILE_BYTES_MAX || (spec.kind != FileKind::Regular && spec.len != 0) {
            return Err(refused(format!(
                "{shown:?} can't have {} bytes; make it smaller at the source, and back up again",
                spec.len
            )));
        }
        let parent = self.shared.parent.as_ref().and_then(|p| p.file(&spec.path));
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if files.list.len() >= FILES_MAX as usize {
            return Err(refused(format!(
                "a backup has at most {FILES_MAX} files, {shown:?} is one more; remove what nobody needs at the source"
            )));
        }
        let number = u32::try_from(files.list.len()).unwrap_or(u32::MAX);
        if files.by_path.contains_key(&spec.path) {
            return Err(refused(format!(
                "{shown:?} was added before: the source sent it twice; take the backup again"
            )));
        }
        files.by_path.insert(spec.path.clone(), number);
        files.list.push(Arc::new(FileState::new(spec, parent)));
        Ok(FileNo(number))
    }

    /// Takes the content of a file from the parent instead of blocks, if the parent has it under the same path with the
    /// same length and state, and every block of it can still be found in its segment. False: it has to be put.
    ///
    /// Whoever calls vouches that an equal state means equal bytes.
    pub fn reuse_file(&self, file: FileNo, len: u64, state: SourceState) -> Result<bool> {
        let own = self.file(file)?;
        let Some(parent) = &self.shared.parent else { return Ok(false) };
        let Some(mapped) = own.parent.and_then(|f| parent.map.files.get(f as usize)) else {
            return Ok(false);
        };
        let there = &mapped.entry;
        if there.kind != FileKind::Regular || there.len != len || there.state != Some(state) {
            return Ok(false);
        }
        let Some(runs) = self.shared.parent_runs(mapped) else { return Ok(false) };
        let mut content = own.content();
        content.entry.len = len;
        for (start, run) in runs {
            content.take_run(start, run.count, &run.kind);
        }
        Ok(true)
    }

    /// Notes the state of a file whose whole content was put, for the next backup's [`BackupWriter::reuse_file`].
    pub fn set_state(&self, file: FileNo, state: SourceState) -> Result<()> {
        self.file(file)?.content().entry.state = Some(state);
        Ok(())
    }

    pub(super) fn file(&self, file: FileNo) -> Result<Arc<FileState>> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        match files.list.get(file.0 as usize) {
            Some(state) if !state.content().removed => Ok(Arc::clone(state)),
            _ => Err(Error::Refused { op: "write to the backup", why: format!("it has no file {}", file.0) }),
        }
    }

    /// Puts a block of 1 to 65,536 bytes; what it lacks of 64 KiB reads as zeros. The file grows if it lies behind
    /// its end. May be put again: the last one holds.
    pub fn put_block(&self, file: FileNo, block: u32, data: &[u8]) -> Result<()> {
        if data.is_empty() || data.len() > BLOCK_BYTES as usize {
            let why = format!("a block has 1 to {BLOCK_BYTES} bytes, not {}", data.len());
            return Err(Error::Refused { op: "put the block", why });
        }
        let state = self.file(file)?;
        self.dirty().remove(&(file.0, block));
        self.issue(&state, block, data, true)
    }

    /// Sends a block off; one that was sent before is waited for, so that the later content wins.
    fn issue(&self, state: &Arc<FileState>, block: u32, data: &[u8], grow: bool) -> Result<()> {
        let again = {
            let mut content = state.content();
            let end = u64::from(block) * u64::from(BLOCK_BYTES) + data.len() as u64;
            if grow && end > content.entry.len {
                if content.entry.kind != FileKind::Regular || end > FILE_BYTES_MAX {
                    let path = String::from_utf8_lossy(&content.entry.path).into_owned();
                    let why = format!(
                        "{path:?} is no regular file, or would be longer than {FILE_BYTES_MAX} bytes; make it smaller at the source, and back up again"
                    );
                    return Err(Error::Refused { op: "put the block", why });
                }
                content.entry.len = end;
            }
            content.issue(block)
        };
        if again {
            self.shared.drain()?;
            self.count_superseded(state, block);
        }
        self.pipeline.put(Arc::clone(state), block, data)
    }

    fn count_superseded(&self, state: &FileState, block: u32) {
        if let Some(place) = state.content().block(block).place() {
            let own = self.shared.table().segments.get(place.segment as usize).is_some_and(|(_, own)| *own);
            self.shared.counters.superseded_blocks.fetch_add(u64::from(own), Ordering::Relaxed);
        }
    }

    fn dirty(&self) -> MutexGuard<'_, BTreeMap<(u32, u32), Vec<u8>>> {
        self.dirty.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything put so far is in sealed, durable segments.
    pub fn barrier(&self) -> Result<()> {
        self.flush_dirty(&mut self.dirty())?;
        self.pipeline.seal()
    }

    /// Overwrites bytes of a file, block by block: read back, changed, stored again a little later. Grows the file.
    pub fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<()> {
        let state = self.file(file)?;
        let end = offset.checked_add(bytes.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let Some(end) = end else {
            let path = String::from_utf8_lossy(&state.content().entry.path).into_owned();
            let why = format!(
                "{path:?} would be longer than {FILE_BYTES_MAX} bytes; make it smaller at the source, and back up again"
            );
            return Err(Error::Refused { op: "patch the file", why });
        };
        let mut dirty = self.dirty();
        {
            let mut content = state.content();
            content.entry.len = content.entry.len.max(end);
        }
        let mut rest = bytes;
        let mut at = offset;
        while !rest.is_empty() {
            let block = u32::try_from(at / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
            let skip = usize::try_from(at % u64::from(BLOCK_BYTES)).unwrap_or(0);
            let room = (BLOCK_BYTES as usize).saturating_sub(skip).min(rest.len());
            let (part, after) = rest.split_at_checked(room).unwrap_or((rest, &[]));
            if !dirty.contains_key(&(file.0, block)) {
                let whole = if part.len() == BLOCK_BYTES as usize {
                    vec![0; BLOCK_BYTES as usize]
                } else {
                    self.stored_block(&state, block)?
                };
                if dirty.len() >= DIRTY_MAX {
                    self.flush_dirty(&mut dirty)?;
                }
                dirty.insert((file.0, block), whole);
            }
            let content = dirty.get_mut(&(file.0, block));
            if let Some(to) = content.and_then(|c| c.get_mut(skip..skip + part.len())) {
                to.copy_from_slice(part);
            }
            at += part.len() as u64;
            rest = after;
        }
        Ok(())
    }

    /// Sends the patched blocks off, in order of file and block.
    fn flush_dirty(&self, dirty: &mut BTreeMap<(u32, u32), Vec<u8>>) -> Result<()> {
        if dirty.is_empty() {
            return Ok(());
        }
        self.shared.drain()?;
        for ((file, block), mut data) in std::mem::take(dirty) {
            let Ok(state) = self.file(FileNo(file)) else { continue };
            let len = block_len(state.content().entry.len, block);
            data.truncate(len);
            if data.is_empty() {
                continue;
            }
            if state.content().issue(block) {
                self.count_superseded(&state, block);
            }
            self.pipeline.put(state, block, &data)?;
        }
        Ok(())
    }

    /// The 64 KiB of a block as stored, zeros behind its end. Patched content is not looked at.
    fn stored_block(&self, state: &FileState, block: u32) -> Result<Vec<u8>> {
        self.shared.drain()?;
        let packed: Packed = state.content().block(block);
        let Some(place) = packed.place() else { return Ok(vec![0; BLOCK_BYTES as usize]) };
        let unsealed = self.shared.table().unsealed.contains(&place.segment);
        if unsealed {
            self.pipeline.seal()?;
        }
        let segment = self.shared.table().segment(place.segment);
        let segment = segment.ok_or(Error::SelfCheck { what: "the table of segments" })?;
        let mut coder = self.coder.lock().unwrap_or_else(PoisonError::into_inner);
        let mut plain = read_block(&self.inner, &mut coder.0, Address { segment, slot: place.slot })?;
        plain.resize(BLOCK_BYTES as usize, 0);
        Ok(plain)
    }

    /// Reads back what was written; fewer bytes at the end of the file.
    pub fn read_at(&self, file: FileNo, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let state = self.file(file)?;
        let len = state.content().entry.len;
        let dirty = self.dirty();
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            let at = offset.saturating_add(done as u64);
            if at >= len {
                break;
            }
            let block = u32::try_from(at / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
            let skip = usize::try_from(at % u64::from(BLOCK_BYTES)).unwrap_or(0);
            let plain = match dirty.get(&(file.0, block)) {
                Some(patched) => patched.clone(),
                None => self.stored_block(&state, block)?,
            };
            let from = plain.get(skip..block_len(len, block)).unwrap_or(&[]);
            let n = from.len().min(rest.len());
            for (to, from) in rest.iter_mut().zip(from) {
                *to = *from;
            }
            if n == 0 {
                break;
            }
            done += n;
        }
        Ok(done)
    }

    /// Cuts a file, or extends it with a hole.
    pub fn set_len(&self, file: FileNo, len: u64) -> Result<()> {
        let state = self.file(file)?;
        if len > FILE_BYTES_MAX || state.content().entry.kind != FileKind::Regular {
            let path = String::from_utf8_lossy(&state.content().entry.path).into_owned();
            let why =
                format!("{path:?} can't have {len} bytes; make it smaller at the source, and back up again");
            return Err(Error::Refused { op: "set the length", why });
        }
        {
            let mut content = state.content();
            if len >= content.entry.len {
                // Nothing is cut off, so nothing that is on its way need be waited for.
                content.entry.len = len;
                return Ok(());
            }
        }
        let mut dirty = self.dirty();
        self.flush_dirty(&mut dirty)?;
        self.shared.drain()?;
        let old = state.content().entry.len;
        let last = u32::try_from(len / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
        let keep = usize::try_from(len % u64::from(BLOCK_BYTES)).unwrap_or(0);
        // What is cut off must not come back when the file grows again.
        let cut_block = if len < old && keep > 0 && state.content().block(last).place().is_some() {
            let mut plain = self.stored_block(&state, last)?;
            plain.truncate(keep);
            Some(plain)
        } else {
            None
        };
        state.content().set_len(len);
        match cut_block {
            Some(plain) => self.issue(&state, last, &plain, false),
            None => Ok(()),
        }
    }

    /// Gives a file another path.
    pub fn rename(&self, file: FileNo, path: &[u8]) -> Result<()> {
        let state = self.file(file)?;
        let refused = |why: String| Error::Refused { op: "rename the file", why };
        let shown = String::from_utf8_lossy(path);
        if let Some(flaw) = FileEntry::path_flaw(path) {
            return Err(refused(format!("{shown:?} should be {flaw}")));
        }
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        if files.by_path.get(path).is_some_and(|other| *other != file.0) {
            return Err(refused(format!("{shown:?} is another file")));
        }
        let mut content = state.content();
        files.by_path.remove(&content.entry.path);
        content.entry.path = path.to_vec();
        files.by_path.insert(path.to_vec(), file.0);
        Ok(())
    }

    /// Takes a file out of the backup.
    pub fn remove(&self, file: FileNo) -> Result<()> {
        let state = self.file(file)?;
        let mut dirty = self.dirty();
        dirty.retain(|(number, _), _| *number != file.0);
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        let mut content = state.content();
        files.by_path.remove(&content.entry.path);
        content.removed = true;
        Ok(())
    }

    /// What was stored so far.
    #[must_use]
    pub fn stats(&self) -> BackupStats {
        let counters = &self.shared.counters;
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let mut stats = BackupStats {
            new_blocks: counters.new_blocks.load(Ordering::Relaxed),
            delta_blocks: counters.delta_blocks.load(Ordering::Relaxed),
            parent_blocks: counters.parent_blocks.load(Ordering::Relaxed),
            known_blocks: counters.known_blocks.load(Ordering::Relaxed),
            superseded_blocks: counters.superseded_blocks.load(Ordering::Relaxed),
            parity_bytes: counters.parity_bytes.load(Ordering::Relaxed),
            stored_bytes: counters.stored_bytes.load(Ordering::Relaxed),
            ..BackupStats::default()
        };
        for file in &files.list {
            let content = file.content();
            if !content.removed {
                stats.files += 1;
                stats.logical_bytes += content.entry.len;
            }
        }
        stats
    }

    pub(super) fn flush(&self) -> Result<()> {
        self.flush_dirty(&mut self.dirty())?;
        self.shared.drain()
    }
}

impl Drop for BackupWriter {
    fn drop(&mut self) {
        if !self.remove_on_drop {
            return;
        }
        // What is still on its way need not be stored any more.
        let why = "the backup was given up".to_owned();
        self.shared.fail(Error::Refused { op: "go on", why });
        self.pipeline.stop();
        let own: Vec<_> =
            self.shared.table().segments.iter().filter(|(_, own)| *own).map(|(id, _)| *id).collect();
        for segment in own {
            // Whatever can't be removed now is an orphan, which garbage collection knows.
            if let Ok(name) = ObjectName::new(names::segment(segment)) {
                let _ = self.inner.objects.delete(&name);
            }
        }
    }
}
