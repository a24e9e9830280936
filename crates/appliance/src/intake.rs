//! Joins a source's sink to a backup's writer: the one place where both are known.

use crate::progress::Watcher;
use crate::rate::Rate;
use crate::time::now;
use holdfast_format::map;
use holdfast_source::{FileKind, FileNo, FilePath, FileSpec, FileState, Sink, SinkError};
use holdfast_store::BackupWriter;

/// A backup's writer as the sink of a copy.
pub(crate) struct Intake<'a> {
    writer: &'a BackupWriter,
    mtime_us: i64,
    /// How fast, and who may end the wait for one's turn.
    rate: Option<(&'a Rate, &'a dyn Watcher)>,
}

impl std::fmt::Debug for Intake<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Intake").field("writer", &self.writer).finish_non_exhaustive()
    }
}

impl<'a> Intake<'a> {
    pub(crate) fn new(writer: &'a BackupWriter) -> Self {
        Self { writer, mtime_us: now(), rate: None }
    }

    /// Takes blocks no faster than this, until the watcher wants to stop.
    pub(crate) fn at_rate(self, rate: Option<&'a Rate>, watcher: &'a dyn Watcher) -> Self {
        Self { rate: rate.map(|rate| (rate, watcher)), ..self }
    }
}

fn number(file: FileNo) -> holdfast_store::FileNo {
    holdfast_store::FileNo(file.0)
}

fn stored(state: FileState) -> map::SourceState {
    let FileState { inode, modified_ns, changed_ns } = state;
    map::SourceState { inode, modified_ns, changed_ns }
}

impl Sink for Intake<'_> {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        let kind = match spec.kind {
            FileKind::Directory => map::FileKind::Directory,
            FileKind::Tablespace | FileKind::Redo | FileKind::Plain => map::FileKind::Regular,
        };
        let spec = holdfast_store::FileSpec {
            path: spec.path.as_bytes().to_vec(),
            kind,
            len: 0,
            mode: spec.mode,
            mtime_us: spec.mtime_us.unwrap_or(self.mtime_us),
        };
        self.writer.add_file(spec).map(|file| FileNo(file.0)).map_err(SinkError::new)
    }

    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        if let Some((rate, watcher)) = self.rate {
            rate.pass(bytes.len(), &|| watcher.cancelled());
        }
        let block = u32::try_from(block_no)
            .map_err(|_| SinkError::new("a file of more than 256 TiB can't be stored"))?;
        self.writer.put_block(number(file), block, bytes).map_err(SinkError::new)
    }

    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.writer.patch(number(file), offset, bytes).map_err(SinkError::new)
    }

    fn barrier(&self) -> Result<(), SinkError> {
        self.writer.barrier().map_err(SinkError::new)
    }

    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        self.writer.set_len(number(file), len).map_err(SinkError::new)
    }

    fn unchanged(&self, file: FileNo, len: u64, state: FileState) -> Result<bool, SinkError> {
        self.writer.reuse_file(number(file), len, stored(state)).map_err(SinkError::new)
    }

    fn state(&self, file: FileNo, state: FileState) -> Result<(), SinkError> {
        self.writer.set_state(number(file), stored(state)).map_err(SinkError::new)
    }

    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        self.writer.rename(number(file), path.as_bytes()).map_err(SinkError::new)
    }

    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        self.writer.remove(number(file)).map_err(SinkError::new)
    }
}
