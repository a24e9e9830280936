//! What becomes of one block: hashed, looked up at the parent and in the rest of the repository, encoded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;
use holdfast_format::ids::{Address, BlockId};
use holdfast_format::keys::block_id;
use holdfast_format::limits::DEPTH_MAX;
use holdfast_format::segment::{Codec, FrameKind};

use super::files::{FileState, Packed, Stored};
use super::pipeline::{Shared, Ticket, WriterJob};
use crate::codec::Coder;
use crate::error::Result;
use crate::reader::read_block_into;
use crate::segment::{Located, NewFrame};

/// A delta below an eighth of its block is taken without compressing the whole block too: pages of InnoDB compress to
/// a half or a third, so nothing else would win.
const GOOD_DELTA_DIVISOR: usize = 8;

/// Takes a block all the way to its place in the map, or to the writer.
pub(super) fn work_on(
    shared: &Shared,
    coder: &mut Coder,
    (file, block): (Arc<FileState>, u32),
    data: &[u8],
    ticket: Ticket,
    writer: &Sender<WriterJob>,
) -> Result<()> {
    if is_zero(data) {
        file.set(block, Packed::ZERO, None);
        ticket.done();
        return Ok(());
    }
    let id = block_id(&shared.inner.keys.block_id, data);
    let done = place_block(shared, coder, &file, block, data, id);
    match done {
        Ok(Placed::Known(stored)) => {
            file.set(block, stored.packed(), stored.base);
            ticket.done();
            Ok(())
        }
        Ok(Placed::New(frame)) => {
            // The writer is gone only after it failed, and said so.
            if let Err(lost) = writer.send(WriterJob::Store { file, block, frame, ticket })
                && let WriterJob::Store { ticket, .. } = lost.into_inner()
            {
                ticket.done();
            }
            Ok(())
        }
        Err(e) => {
            ticket.done();
            Err(e)
        }
    }
}

/// What becomes of a block.
enum Placed {
    Known(Stored),
    New(NewFrame),
}

/// Asks the parent, then the rest of the repository, then encodes.
fn place_block(
    shared: &Shared,
    coder: &mut Coder,
    file: &FileState,
    block: u32,
    data: &[u8],
    id: BlockId,
) -> Result<Placed> {
    let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::Relaxed);
    let before = shared.parent_address(file, block);
    let before = before.and_then(|address| Some((address, shared.inner.cache.try_locate(address)?)));
    if let Some((address, found)) = &before
        && found.entry.id == id
    {
        count(&shared.counters.parent_blocks);
        return Ok(Placed::Known(shared.stored(*address, &found.entry)));
    }
    if let Some(stored) = shared.known(&id)? {
        count(&shared.counters.known_blocks);
        return Ok(Placed::Known(stored));
    }
    let plain_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
    let verify = shared.verify();
    let delta = match &before {
        Some((address, found)) => shared.delta(coder, *address, found, data, verify)?,
        None => None,
    };
    let frame = match delta {
        Some(Delta { base, depth, payload, good: true }) => NewFrame {
            kind: FrameKind::Block,
            codec: Codec::Delta,
            depth,
            base: Some(base),
            id,
            plain_len,
            payload,
        },
        delta => {
            let out = shared.pool.take(data.len().saturating_add(16));
            let (codec, whole) = coder.encode_into(data, verify, out)?;
            match delta {
                // A poor delta still wins if it is shorter by a quarter: it costs a read of its base later.
                Some(Delta { base, depth, payload, .. }) if payload.len() < whole.len() / 4 * 3 => {
                    let codec = Codec::Delta;
                    shared.pool.give(whole);
                    NewFrame {
                        kind: FrameKind::Block,
                        codec,
                        depth,
                        base: Some(base),
                        id,
                        plain_len,
                        payload,
                    }
                }
                delta => {
                    if let Some(delta) = delta {
                        shared.pool.give(delta.payload);
                    }
                    let (depth, base, payload) = (0, None, whole);
                    NewFrame { kind: FrameKind::Block, codec, depth, base, id, plain_len, payload }
                }
            }
        }
    };
    Ok(Placed::New(frame))
}

/// A block as a delta against the one it replaces.
struct Delta {
    base: Address,
    depth: u8,
    payload: Vec<u8>,
    /// So short that the whole block need not be compressed to compare.
    good: bool,
}

impl Shared {
    /// What a changed block is stored against, and at which depth: the block it replaces; once that ends a full chain,
    /// the whole block at the chain's bottom. From that one it differs by a few rows more, as a rule, which costs a
    /// fraction of storing the block whole again (benches/NOTES.md has the figures).
    fn base_of(&self, replaced: Address, found: &Located) -> Option<(Address, u8)> {
        let depth_max = self.inner.options.delta_depth_max.min(DEPTH_MAX);
        let depth = found.entry.depth.saturating_add(1);
        if found.entry.kind != FrameKind::Block || depth_max == 0 {
            return None;
        }
        if depth <= depth_max {
            return Some((replaced, depth));
        }
        let mut bottom = found.entry.base?;
        for _ in 0..DEPTH_MAX {
            match self.inner.cache.try_locate(bottom)?.entry.base {
                Some(below) => bottom = below,
                None => return Some((bottom, 1)),
            }
        }
        None
    }

    /// Encodes a block against one that was there before, unless that is condemned or can't be read.
    fn delta(
        &self,
        coder: &mut Coder,
        replaced: Address,
        found: &Located,
        data: &[u8],
        verify: bool,
    ) -> Result<Option<Delta>> {
        let Some((base, depth)) = self.base_of(replaced, found) else { return Ok(None) };
        if self.condemned.contains(&base.segment) {
            return Ok(None);
        }
        let mut plain = std::mem::take(&mut coder.base);
        if let Ok(base) = self.inner.cache.locate(base) {
            base.view.reads_on(&base.entry);
        }
        // A base that can't be read costs a whole block, not the backup.
        let delta = match read_block_into(&self.inner, coder, base, &mut plain) {
            Ok(()) => coder.encode_delta(data, &plain, data.len() / 2, verify),
            Err(_) => Ok(None),
        };
        let delta = delta.map(|delta| {
            delta.map(|delta| {
                let mut payload = self.pool.take(data.len().saturating_add(16));
                payload.extend_from_slice(&base.to_bytes());
                payload.extend_from_slice(delta);
                let good = delta.len() < data.len() / GOOD_DELTA_DIVISOR;
                Delta { base, depth, payload, good }
            })
        });
        coder.base = plain;
        delta
    }
}

/// Whether a block is all zeros.
pub(super) fn is_zero(data: &[u8]) -> bool {
    let (head, words, tail) = (data.len() % 16, data.chunks_exact(16), data);
    let rest = tail.get(tail.len() - head..).unwrap_or(&[]);
    rest.iter().all(|b| *b == 0) && words.into_iter().all(|w| *w == [0; 16])
}
