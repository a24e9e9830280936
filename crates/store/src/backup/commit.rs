//! The end of a backup, in the order that makes it safe: data segments durable, map durable, then the one record.

use std::sync::PoisonError;
use std::sync::atomic::Ordering;

use holdfast_format::ids::{Address, BackupId, ServerId};
use holdfast_format::keyring::KEPT;
use holdfast_format::keys::block_id;
use holdfast_format::limits::SEGMENT_BYTES;
use holdfast_format::map::MapRoot;
use holdfast_format::record::{BackupRecord, BackupStats, Coordinates, Record, SourceKind};
use holdfast_format::segment::{FrameKind, SegmentKind};

use super::writer::BackupWriter;
use crate::codec::Coder;
use crate::error::{Error, Result};
use crate::map::MapBuilder;
use crate::random;
use crate::segment::{NewFrame, SegmentWriter};

/// What the caller knows of a backup that is complete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupDraft {
    /// The server.
    pub server: ServerId,
    /// How the copy was taken.
    pub source: SourceKind,
    /// Where it stands.
    pub coordinates: Coordinates,
    /// What a restore will ask for; sorted here, the last of several with the same key holds.
    pub facts: Vec<(String, String)>,
    /// The user's note.
    pub note: String,
    /// What went wrong without spoiling it.
    pub warnings: Vec<String>,
}

/// Frames of a map on their way into meta segments.
struct MetaWriter<'a> {
    backup: &'a BackupWriter,
    coder: Coder,
    current: Option<SegmentWriter>,
}

impl MetaWriter<'_> {
    fn put(&mut self, kind: FrameKind, plain: &[u8]) -> Result<Address> {
        let shared = &self.backup.shared;
        let mut segment = match self.current.take() {
            Some(segment) => segment,
            None => {
                let inner = &shared.inner;
                let (objects, session) = (inner.objects.as_ref(), shared.session.id());
                SegmentWriter::create_in(
                    &shared.workshop,
                    objects,
                    &inner.keys,
                    SegmentKind::Meta,
                    session,
                    true,
                )?
            }
        };
        let (codec, payload) = self.coder.encode(plain, true)?;
        let id = block_id(&shared.inner.keys.block_id, plain);
        let plain_len = u32::try_from(plain.len()).unwrap_or(u32::MAX);
        let (slot, _) =
            segment.append(NewFrame { kind, codec, depth: 0, base: None, id, plain_len, payload })?;
        let address = Address { segment: segment.id(), slot };
        if segment.len() >= SEGMENT_BYTES {
            self.end(segment)?;
        } else {
            self.current = Some(segment);
        }
        Ok(address)
    }

    fn end(&self, segment: SegmentWriter) -> Result<()> {
        let sealed = segment.seal()?;
        self.backup.shared.note_sealed(&sealed);
        Ok(())
    }
}

impl BackupWriter {
    /// Makes the backup exist. When this returns, it is durable, and can be read by everybody; when it fails, it either
    /// doesn't exist, or (only if the failure came after the record was written) exists whole.
    pub fn commit(self, draft: BackupDraft) -> Result<BackupRecord> {
        self.commit_if(draft, None)
    }

    /// As [`BackupWriter::commit`], unless another backup of the server that is wanted has the same value of the fact `key`:
    /// [`Error::FactTaken`].
    pub fn commit_unique(self, draft: BackupDraft, key: &str) -> Result<BackupRecord> {
        self.commit_if(draft, Some(key))
    }

    fn commit_if(mut self, draft: BackupDraft, unique: Option<&str>) -> Result<BackupRecord> {
        self.flush()?;
        self.pipeline.seal()?;
        self.pipeline.stop();
        self.shared.check()?;
        let (root, map) = self.write_map()?;
        let record = self.record(draft, &root, map)?;
        if record.is_kept() {
            self.inner.need(KEPT)?;
        } else if self.inner.keeps_unsaid() {
            // Not what this backup waits for: who came in by a kit alone can't say it.
            let _ = self.inner.need(KEPT);
        }
        let lock = self.inner.manifest.lock()?;
        self.inner.refresh()?;
        if let Some((key, value)) = unique.and_then(|key| Some((key, record.fact(key)?))) {
            let others = self.inner.backups();
            let same = |b: &&BackupRecord| b.server == record.server && b.fact(key) == Some(value);
            if let Some(other) = others.iter().find(same) {
                return Err(Error::FactTaken { value: value.to_owned(), by: other.id });
            }
        }
        // From here on the segments may be referred to, whatever the append says.
        self.remove_on_drop = false;
        let now_us = record.finished_us;
        self.inner.manifest.append_locked(Record::BackupCommitted(record.clone()), now_us, &lock)?;
        Ok(record)
    }

    fn write_map(&self) -> Result<(MapRoot, Address)> {
        let mut meta = MetaWriter { backup: self, coder: Coder::new()?, current: None };
        let segments = self.shared.table().segments.clone();
        let mut put = |kind: FrameKind, plain: &[u8]| meta.put(kind, plain);
        let mut builder = MapBuilder::new(&mut put, segments.len());
        {
            let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
            for file in &files.list {
                let content = file.content();
                if !content.removed {
                    builder.file(content.entry.clone(), &content.runs())?;
                }
            }
        }
        let (root, map) = builder.finish(&segments)?;
        if let Some(segment) = meta.current.take() {
            meta.end(segment)?;
        }
        Ok((root, map))
    }

    fn record(&self, draft: BackupDraft, root: &MapRoot, map: Address) -> Result<BackupRecord> {
        let mut facts = draft.facts;
        facts.reverse();
        facts.sort_by(|a, b| a.0.cmp(&b.0));
        facts.dedup_by(|a, b| a.0 == b.0);
        let counters = &self.shared.counters;
        let stats = BackupStats {
            files: u64::from(root.files),
            logical_bytes: root.logical_bytes,
            blocks: root.data_blocks,
            new_blocks: counters.new_blocks.load(Ordering::Relaxed),
            delta_blocks: counters.delta_blocks.load(Ordering::Relaxed),
            zero_blocks: root.zero_blocks,
            hole_blocks: root.hole_blocks,
            parent_blocks: counters.parent_blocks.load(Ordering::Relaxed),
            known_blocks: counters.known_blocks.load(Ordering::Relaxed),
            superseded_blocks: counters.superseded_blocks.load(Ordering::Relaxed),
            stored_bytes: counters.stored_bytes.load(Ordering::Relaxed),
            parity_bytes: counters.parity_bytes.load(Ordering::Relaxed),
        };
        if self.shared.sealed().is_empty() {
            return Err(Error::SelfCheck { what: "a backup without a map" });
        }
        Ok(BackupRecord {
            id: BackupId(random::bytes()?),
            server: draft.server,
            source: draft.source,
            started_us: self.started_us,
            finished_us: self.inner.options.clock.now_us(),
            parent: self.parent_id,
            map,
            coordinates: draft.coordinates,
            facts,
            note: draft.note,
            stats,
            warnings: draft.warnings,
        })
    }
}
