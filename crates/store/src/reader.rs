//! Reading a backup: its files, any block of them.

use std::sync::{Arc, Mutex, PoisonError};

use holdfast_format::ids::{Address, BackupId};
use holdfast_format::limits::BLOCK_BYTES;
use holdfast_format::map::{FileEntry, RunKind};
use holdfast_format::record::BackupRecord;
use holdfast_format::segment::FooterEntry;
use holdfast_format::session::SessionKind;

use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::map::LoadedMap;
use crate::repository::Inner;
use crate::segment::{Healing, Located, SegmentView};
use crate::session::LiveSession;

/// What a block of a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockKind {
    /// Never written; reads as zeros.
    Hole,
    /// Zeros that were written.
    Zero,
    /// Stored.
    Data,
}

/// An open backup. Everything read is checked: tag and id of every block.
#[derive(Debug)]
pub struct BackupReader {
    pub(crate) inner: Arc<Inner>,
    pub(crate) record: BackupRecord,
    pub(crate) map: LoadedMap,
    coders: Mutex<Vec<CoderHolder>>,
    /// Keeps garbage collection away from what is being read; none where the repository can't be written.
    _session: Option<LiveSession>,
}

pub(crate) struct CoderHolder(pub(crate) Coder);

impl std::fmt::Debug for CoderHolder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Coder")
    }
}

impl BackupReader {
    pub(crate) fn open(inner: &Arc<Inner>, id: BackupId) -> Result<Self> {
        inner.refresh()?;
        let record = inner.backup(id)?;
        // On a place that can't be written there is no garbage collection to hold off either.
        let session = inner.begin_session(SessionKind::Read, vec![record.map]).ok();
        let record = inner.backup(record.id)?;
        let map = LoadedMap::load(&inner.cache, record.map)?;
        Ok(Self { inner: Arc::clone(inner), record, map, coders: Mutex::default(), _session: session })
    }

    /// The backup's record.
    #[must_use]
    pub fn record(&self) -> &BackupRecord {
        &self.record
    }

    /// Its files; their places in this list are their numbers.
    pub fn files(&self) -> impl ExactSizeIterator<Item = &FileEntry> {
        self.map.files.iter().map(|f| &f.entry)
    }

    /// All entries with the bytes of blocks that they have: what laying one out writes, at most.
    pub fn files_with_bytes(&self) -> impl ExactSizeIterator<Item = (&FileEntry, u64)> {
        self.map.files.iter().map(|file| {
            let data = file.runs().iter().filter(|(_, run)| matches!(run.kind, RunKind::Data { .. }));
            let blocks: u64 = data.map(|(_, run)| u64::from(run.count)).sum();
            (&file.entry, blocks.saturating_mul(u64::from(BLOCK_BYTES)).min(file.entry.len))
        })
    }

    /// Segments that were found damaged while they were read through this repository, and were read all the same by
    /// their parity. They are as damaged as before: a scrub mends them.
    #[must_use]
    pub fn healings(&self) -> Vec<Healing> {
        self.inner.cache.healings()
    }

    /// The number of a file.
    #[must_use]
    pub fn find(&self, path: &[u8]) -> Option<u32> {
        let at = self.map.files.iter().position(|f| f.entry.path == path)?;
        u32::try_from(at).ok()
    }

    fn file(&self, file: u32) -> Result<&crate::map::MappedFile> {
        let missing = || Error::Refused { op: "read the backup", why: format!("it has no file {file}") };
        self.map.files.get(file as usize).ok_or_else(missing)
    }

    /// What a block is, without reading it.
    pub fn block_kind(&self, file: u32, block: u32) -> Result<BlockKind> {
        Ok(match self.file(file)?.block(block) {
            RunKind::Hole => BlockKind::Hole,
            RunKind::Zero => BlockKind::Zero,
            RunKind::Data { .. } => BlockKind::Data,
        })
    }

    /// Reads a block: 64 KiB, or less at the end of the file.
    pub fn read_block(&self, file: u32, block: u32) -> Result<Vec<u8>> {
        let mapped = self.file(file)?;
        let len = block_len(mapped.entry.len, block);
        match mapped.block(block) {
            RunKind::Hole | RunKind::Zero => Ok(vec![0; len]),
            RunKind::Data { first, .. } => {
                let address = self.map.address(first);
                let read = address.ok_or(Error::damaged("map", "a run", "its segment is not in the table"));
                let read =
                    read.and_then(|address| self.with_coder(|coder| read_block(&self.inner, coder, address)));
                let mut plain = read.map_err(|e| self.blame(file, block, e))?;
                plain.resize(len, 0);
                Ok(plain)
            }
        }
    }

    /// Reads bytes of a file; fewer at its end.
    pub fn read_at(&self, file: u32, offset: u64, buf: &mut [u8]) -> Result<usize> {
        let len = self.file(file)?.entry.len;
        let mut done = 0_usize;
        while let Some(rest) = buf.get_mut(done..).filter(|r| !r.is_empty()) {
            let at = offset.saturating_add(done as u64);
            if at >= len {
                break;
            }
            let block = u32::try_from(at / u64::from(BLOCK_BYTES)).unwrap_or(u32::MAX);
            let skip = usize::try_from(at % u64::from(BLOCK_BYTES)).unwrap_or(0);
            let plain = self.read_block(file, block)?;
            let from = plain.get(skip..).unwrap_or(&[]);
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

    /// Names file and block in an error.
    pub(crate) fn blame(&self, file: u32, block: u32, source: Error) -> Error {
        if matches!(source, Error::Block { .. }) {
            return source;
        }
        let path = self.map.files.get(file as usize).map(|f| f.entry.path.as_slice()).unwrap_or_default();
        Error::Block {
            backup: self.record.id,
            file: String::from_utf8_lossy(path).into_owned(),
            block: u64::from(block),
            source: Box::new(source),
        }
    }

    pub(crate) fn with_coder<T>(&self, work: impl FnOnce(&mut Coder) -> Result<T>) -> Result<T> {
        let kept = self.coders.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let mut coder = match kept {
            Some(coder) => coder,
            None => CoderHolder(Coder::new()?),
        };
        let done = work(&mut coder.0);
        self.coders.lock().unwrap_or_else(PoisonError::into_inner).push(coder);
        done
    }
}

/// Bytes of a block of a file of this length.
pub(crate) fn block_len(file_len: u64, block: u32) -> usize {
    let start = u64::from(block) * u64::from(BLOCK_BYTES);
    usize::try_from(file_len.saturating_sub(start).min(u64::from(BLOCK_BYTES))).unwrap_or(0)
}

/// Reads a block by its address, whatever it is encoded as.
pub(crate) fn read_block(inner: &Inner, coder: &mut Coder, address: Address) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    read_block_into(inner, coder, address, &mut plain)?;
    Ok(plain)
}

/// As [`read_block`], into memory that is there already.
pub(crate) fn read_block_into(
    inner: &Inner,
    coder: &mut Coder,
    address: Address,
    plain: &mut Vec<u8>,
) -> Result<()> {
    let found = inner.cache.locate(address)?;
    read_located(inner, coder, &found, plain)
}

/// Reads a block from where it was found; where that is damaged or can't be read, from what its parity brings back.
pub(crate) fn read_located(
    inner: &Inner,
    coder: &mut Coder,
    found: &Located,
    plain: &mut Vec<u8>,
) -> Result<()> {
    let Located { view, entry } = found;
    plain.resize(entry.plain_len as usize, 0);
    let mut read = |view: &SegmentView| {
        let mut payload = std::mem::take(&mut coder.payload);
        let read = view.read(entry, coder, &mut payload);
        let read = read.and_then(|()| decode_block(inner, coder, view, entry, &payload, plain));
        coder.payload = payload;
        read
    };
    match read(view) {
        Err(e) if e.is_damage() || matches!(e, Error::Io(_)) => match inner.cache.healed(view)? {
            Some(healed) => read(&healed),
            None => Err(e),
        },
        other => other,
    }
}

/// Decodes an opened payload into `plain`, of the length that its entry names; of a delta, its chain of bases is read
/// first, and decoded from its end.
pub(crate) fn decode_block(
    inner: &Inner,
    coder: &mut Coder,
    view: &SegmentView,
    entry: &FooterEntry,
    payload: &[u8],
    plain: &mut [u8],
) -> Result<()> {
    let Some(base) = entry.base else { return view.decode(coder, entry, payload, plain) };
    let plain_base = match inner.bases.get(base) {
        Some(plain) => plain,
        None => {
            let found = inner.cache.locate(base)?;
            if found.entry.depth.checked_add(1) != Some(entry.depth) {
                return Err(view.wrong(entry, "its base lies at another depth than it should"));
            }
            found.view.reads_on(&found.entry);
            // The depth falls with each call, so this ends.
            let mut plain = Vec::new();
            read_located(inner, coder, &found, &mut plain)?;
            let plain = Arc::new(plain);
            inner.bases.put(base, &plain);
            plain
        }
    };
    view.decode_delta(coder, entry, payload, &plain_base, plain)
}
