//! A copy in memory.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::path::FilePath;
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, Sink, SinkError};

/// Bytes a file may have here. For tests, so that a wrong length fails instead of eating the machine.
const FILE_BYTES_MAX: u64 = 1 << 30;

/// Keeps everything in memory, and refuses calls that break the contract.
#[derive(Debug, Default)]
pub struct MemorySink {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: Vec<Option<File>>,
    past_barrier: bool,
}

#[derive(Debug)]
struct File {
    spec: FileSpec,
    bytes: Vec<u8>,
    blocks: BTreeSet<u64>,
    len: Option<u64>,
}

impl MemorySink {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The bytes of the file of this name.
    #[must_use]
    pub fn content(&self, path: &str) -> Option<Vec<u8>> {
        let state = self.lock();
        state
            .files
            .iter()
            .flatten()
            .find(|f| f.spec.path.as_bytes() == path.as_bytes())
            .map(|f| f.bytes.clone())
    }

    /// Every file and directory by name, with what was said about it.
    #[must_use]
    pub fn specs(&self) -> BTreeMap<String, FileSpec> {
        let state = self.lock();
        state.files.iter().flatten().map(|f| (f.spec.path.to_string(), f.spec.clone())).collect()
    }

    /// Blocks handed over for the file of this name.
    #[must_use]
    pub fn blocks(&self, path: &str) -> Option<u64> {
        let state = self.lock();
        let file = state.files.iter().flatten().find(|f| f.spec.path.as_bytes() == path.as_bytes())?;
        Some(file.blocks.len() as u64)
    }

    /// Names of files whose length was never set: a source must set each.
    #[must_use]
    pub fn without_length(&self) -> Vec<String> {
        let state = self.lock();
        let open = |f: &&File| f.len.is_none() && f.spec.kind != FileKind::Directory;
        state.files.iter().flatten().filter(open).map(|f| f.spec.path.to_string()).collect()
    }
}

impl State {
    fn file(&mut self, no: FileNo) -> Result<&mut File, SinkError> {
        self.files
            .get_mut(no.0 as usize)
            .and_then(Option::as_mut)
            .ok_or_else(|| SinkError::new(format!("no file {}", no.0)))
    }
}

impl File {
    fn put(&mut self, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let end = offset
            .checked_add(bytes.len() as u64)
            .filter(|&end| end <= FILE_BYTES_MAX)
            .ok_or_else(|| SinkError::new("a file too large for memory"))?;
        let (from, to) = (offset as usize, end as usize);
        if self.bytes.len() < to {
            self.bytes.resize(to, 0);
        }
        if let Some(target) = self.bytes.get_mut(from..to) {
            target.copy_from_slice(bytes);
        }
        Ok(())
    }
}

impl Sink for MemorySink {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        let mut state = self.lock();
        let no = u32::try_from(state.files.len()).map_err(SinkError::new)?;
        state.files.push(Some(File { spec, bytes: Vec::new(), blocks: BTreeSet::new(), len: None }));
        Ok(FileNo(no))
    }

    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if bytes.is_empty() || bytes.len() > BLOCK_BYTES {
            return Err(SinkError::new(format!("a block of {} bytes", bytes.len())));
        }
        let mut state = self.lock();
        let file = state.file(file)?;
        if !file.blocks.insert(block_no) {
            return Err(SinkError::new(format!("block {block_no} of {} came twice", file.spec.path)));
        }
        let offset = block_no
            .checked_mul(BLOCK_BYTES_U64)
            .ok_or_else(|| SinkError::new("a block number too large"))?;
        file.put(offset, bytes)
    }

    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        let mut state = self.lock();
        if !state.past_barrier {
            return Err(SinkError::new("a patch before the barrier"));
        }
        if bytes.len() > BLOCK_BYTES {
            return Err(SinkError::new(format!("a patch of {} bytes", bytes.len())));
        }
        state.file(file)?.put(offset, bytes)
    }

    fn barrier(&self) -> Result<(), SinkError> {
        self.lock().past_barrier = true;
        Ok(())
    }

    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        let mut state = self.lock();
        let file = state.file(file)?;
        if len > FILE_BYTES_MAX || len < file.bytes.len() as u64 {
            return Err(SinkError::new(format!("{}: length {len}", file.spec.path)));
        }
        file.bytes.resize(len as usize, 0);
        file.len = Some(len);
        Ok(())
    }

    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        self.lock().file(file)?.spec.path = path;
        Ok(())
    }

    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        let mut state = self.lock();
        state.file(file)?;
        if let Some(slot) = state.files.get_mut(file.0 as usize) {
            *slot = None;
        }
        Ok(())
    }
}
