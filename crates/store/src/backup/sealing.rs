//! The end of the pipeline: one thread seals frames into segments, another one ends segments, so that its syncs hold
//! nobody up.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crossbeam_channel::{Receiver, Sender};
use holdfast_format::limits::SEGMENT_BYTES;
use holdfast_format::map::Place;
use holdfast_format::segment::SegmentKind;

use super::files::Stored;
use super::pipeline::{SealerJob, Shared, WriterJob, lock};
use crate::error::Result;
use crate::repository::VerifyWrite;
use crate::segment::{NewFrame, SegmentWriter};

/// The writer's side: one segment at a time.
pub(super) struct Writing {
    pub(super) shared: Arc<Shared>,
    pub(super) current: Option<(u32, Box<SegmentWriter>)>,
    pub(super) sealer: Sender<SealerJob>,
}

impl Writing {
    pub(super) fn run(mut self, jobs: &Receiver<WriterJob>) {
        for job in jobs {
            match job {
                WriterJob::Store { file, block, frame, ticket } => {
                    if self.shared.check().is_ok() {
                        match self.store(frame) {
                            Ok(stored) => file.set(block, stored.packed(), stored.base),
                            Err(e) => self.shared.fail(e),
                        }
                    }
                    ticket.done();
                }
                WriterJob::Seal(reply) => {
                    self.hand_over();
                    let _ = self.sealer.send(SealerJob::Flush(reply));
                }
            }
        }
        if self.shared.check().is_ok() {
            self.hand_over();
        }
    }

    fn store(&mut self, frame: NewFrame) -> Result<Stored> {
        let known = lock(&self.shared.fresh).get(&frame.id).copied();
        if let Some(stored) = known {
            self.shared.counters.known_blocks.fetch_add(1, Ordering::Relaxed);
            self.shared.pool.give(frame.payload);
            return Ok(stored);
        }
        let (place, mut segment) = match self.current.take() {
            Some(current) => current,
            None => {
                let shared = &self.shared;
                let verify = shared.verify_write == VerifyWrite::Full;
                let (objects, keys) = (shared.inner.objects.as_ref(), &shared.inner.keys);
                let (memory, session) = (&shared.workshop, shared.session.id());
                let segment =
                    SegmentWriter::create_in(memory, objects, keys, SegmentKind::Data, session, verify)?;
                let mut table = shared.table();
                let place = table.place(segment.id(), true);
                table.unsealed.insert(place);
                (place, Box::new(segment))
            }
        };
        let (id, depth, base) = (frame.id, frame.depth, frame.base);
        let (slot, payload) = segment.append(frame)?;
        self.shared.pool.give(payload);
        let base = base.map(|b| Place { segment: self.shared.table().place(b.segment, false), slot: b.slot });
        let found = Stored { place: Place { segment: place, slot }, depth, base };
        lock(&self.shared.fresh).insert(id, found);
        self.shared.counters.delta_blocks.fetch_add(u64::from(depth > 0), Ordering::Relaxed);
        self.shared.counters.new_blocks.fetch_add(1, Ordering::Relaxed);
        let full = segment.len() >= SEGMENT_BYTES || !segment.has_slot();
        self.current = Some((place, segment));
        if full {
            self.hand_over();
        }
        Ok(found)
    }

    fn hand_over(&mut self) {
        if let Some((place, segment)) = self.current.take() {
            // The sealer is gone only after it failed, and said so.
            let _ = self.sealer.send(SealerJob::Seal { place, segment });
        }
    }
}

/// The sealer: footer, trailer, sync.
pub(super) fn seal(shared: &Shared, jobs: &Receiver<SealerJob>) {
    for job in jobs {
        match job {
            SealerJob::Seal { .. } if shared.check().is_err() => {}
            SealerJob::Seal { place, segment } => match segment.seal() {
                Ok(sealed) => {
                    lock(&shared.index).index.insert(sealed.id, sealed.footer.entries.iter().map(|e| &e.id));
                    shared.note_sealed(&sealed);
                    shared.table().unsealed.remove(&place);
                    let mut fresh = lock(&shared.fresh);
                    fresh.retain(|_, stored| stored.place.segment != place);
                }
                Err(e) => shared.fail(e),
            },
            SealerJob::Flush(reply) => {
                let _ = reply.send(());
            }
        }
    }
}
