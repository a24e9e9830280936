//! What a prune means to do: printed as it is by a dry run, carried out otherwise.

use std::collections::HashMap;

use holdfast_format::ids::{SegmentId, SessionId};
use holdfast_format::limits::{BIRTHS_MAX, SEGMENT_BYTES, SLOTS_MAX};
use holdfast_format::names;
use holdfast_format::segment::{FRAME_HEADER_BYTES, PAGE_BYTES, SegmentHeader, SegmentKind};

use super::mark::Live;
use super::snapshot::Snapshot;
use crate::error::Result;
use crate::repository::Inner;

/// A segment below this is small: eight of them make one of usual size.
const SMALL_BYTES: u64 = SEGMENT_BYTES / 8;

/// Small segments are put together only where so many become one: fewer would be copied again and again.
const SMALL_MIN: usize = 8;

/// How full a repository is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Segments of blocks and maps.
    pub segments: u64,
    /// Bytes of their objects, parity included.
    pub bytes: u64,
    /// Bytes of their frames.
    pub frame_bytes: u64,
    /// Those of them that nothing needs.
    pub dead_bytes: u64,
}

impl Space {
    /// Dead bytes of a hundred.
    #[must_use]
    pub fn dead_percent(&self) -> f64 {
        if self.frame_bytes == 0 { 0.0 } else { self.dead_bytes as f64 * 100.0 / self.frame_bytes as f64 }
    }
}

/// Why an object goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiscardReason {
    /// No wanted backup needs any frame of it.
    Dead,
    /// Its frames are in a carrier.
    Carried,
    /// A process died over it; nothing ever referred to it.
    Orphan,
    /// A prune before this one said so and did not come to it.
    Left,
    /// A stretch of log that no wanted backup leads into.
    Log,
}

/// An object that goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Discard {
    /// The segment.
    pub segment: SegmentId,
    /// Bytes of the object.
    pub bytes: u64,
    /// Why.
    pub reason: DiscardReason,
}

/// Segments whose live frames become one new segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carry {
    /// What they hold.
    pub kind: SegmentKind,
    /// The segments, in the order of their frames in the new one.
    pub sources: Vec<SegmentId>,
    /// Bytes of their objects.
    pub bytes: u64,
    /// Bytes of the frames that move.
    pub live_bytes: u64,
}

/// What a prune means to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PrunePlan {
    /// Objects that go.
    pub discard: Vec<Discard>,
    /// Segments that are compacted.
    pub carry: Vec<Carry>,
    /// Segments that were condemned and are needed after all.
    pub spare: Vec<SegmentId>,
    /// Objects of sessions whose processes died.
    pub dead_sessions: u64,
    /// Before.
    pub before: Space,
    /// After, as far as can be told: a carrier's parity is guessed from its frames.
    pub after: Space,
}

impl PrunePlan {
    /// Bytes that the objects which go take, those of compacted segments included.
    #[must_use]
    pub fn bytes_gone(&self) -> u64 {
        let discarded: u64 = self.discard.iter().map(|d| d.bytes).sum();
        discarded.saturating_add(self.carry.iter().map(|c| c.bytes).sum())
    }

    /// True when there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.discard.is_empty() && self.carry.is_empty() && self.spare.is_empty() && self.dead_sessions == 0
    }
}

/// One object of the folder of segments.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) id: SegmentId,
    pub(super) bytes: u64,
    /// None of a segment that was never sealed, or can't be read.
    pub(super) content: Option<Content>,
    /// None if its header can't be read.
    session: Option<SessionId>,
    /// Some birth that it holds is needed.
    reached: bool,
    /// Number of the last record that says that births of it are elsewhere now.
    pub(super) moved: Option<u64>,
}

/// What a sealed segment holds.
#[derive(Debug)]
pub(super) struct Content {
    kind: SegmentKind,
    pub(super) frame_bytes: u64,
    live_bytes: u64,
    /// Births that it holds and that are needed.
    live_births: Vec<SegmentId>,
    /// All births of its header that it holds.
    pub(super) births: Vec<SegmentId>,
    live_frames: u32,
    order: u32,
}

/// Looks at every object of the folder of segments. The list was made before the snapshot was taken.
pub(super) fn census(
    inner: &Inner,
    listed: &[holdfast_io::ObjectName],
    snapshot: &Snapshot,
    live: &Live,
) -> Result<Vec<Object>> {
    let mut objects = Vec::new();
    let holders = live.holders(&snapshot.table);
    for name in listed {
        let id = name.as_str().strip_prefix(names::SEGMENTS).and_then(|hex| hex.parse::<SegmentId>().ok());
        let Some(id) = id else { continue };
        let bytes = match inner.objects.len(name) {
            Ok(bytes) => bytes,
            Err(e) if e.is_not_found() => continue,
            Err(e) => return Err(e.into()),
        };
        let header = if bytes >= PAGE_BYTES as u64 {
            match inner.objects.read(name, 0, PAGE_BYTES as u64) {
                Ok(page) => SegmentHeader::decode(&page).ok().filter(|h| h.segment == id),
                // A backup that was given up took it away.
                Err(e) if e.is_not_found() => continue,
                Err(e) => return Err(e.into()),
            }
        } else {
            None
        };
        let reached = holders.contains(&id);
        let session = header.as_ref().map(|h| h.session);
        // What a live process writes is its own affair.
        if session.is_some_and(|s| snapshot.lives(s)) {
            continue;
        }
        // Only bytes that are wrong make a segment unreadable: a device that fails once is no reason to remove it.
        let view = match inner.cache.object(id) {
            Ok(view) => Some(view),
            Err(e) if !reached && e.is_damage() => None,
            Err(e) => return Err(e),
        };
        let Some(view) = view else {
            objects.push(Object { id, bytes, content: None, session, reached, moved: None });
            continue;
        };
        let held = |birth: &SegmentId| snapshot.table.holder(*birth) == id;
        let births: Vec<SegmentId> = view.header().births.iter().map(|b| b.segment).filter(held).collect();
        let mut content = Content {
            kind: view.header().kind,
            frame_bytes: 0,
            live_bytes: 0,
            live_births: births.iter().copied().filter(|b| live.count(*b) > 0).collect(),
            order: births.iter().map(|b| live.order(*b)).min().unwrap_or(u32::MAX),
            births,
            live_frames: 0,
        };
        for entry in &view.footer().entries {
            let len = FRAME_HEADER_BYTES as u64 + u64::from(entry.stored_len);
            content.frame_bytes += len;
            let address = view.address(entry);
            if address.is_some_and(|a| content.live_births.contains(&a.segment) && live.has(a)) {
                content.live_bytes += len;
                content.live_frames += 1;
            }
        }
        let elsewhere = |b: &SegmentId| snapshot.table.carriers.get(b).filter(|(carrier, _)| *carrier != id);
        let births = view.header().births.iter().map(|b| b.segment);
        let moved = births.filter_map(|b| elsewhere(&b).map(|(_, number)| *number)).max();
        objects.push(Object { id, bytes, content: Some(content), session, reached, moved });
    }
    Ok(objects)
}

/// Decides. `dead_percent_max` is how much of what stays may be dead; at 100 nothing is compacted.
pub(super) fn decide(objects: &[Object], snapshot: &Snapshot, dead_percent_max: u8) -> PrunePlan {
    let mut plan = PrunePlan { dead_sessions: snapshot.dead.len() as u64, ..PrunePlan::default() };
    let mut staying: Vec<(&Object, &Content)> = Vec::new();
    let mut gone = Space::default();
    for object in objects {
        let content = object.content.as_ref();
        plan.before.segments += 1;
        plan.before.bytes += object.bytes;
        plan.before.frame_bytes += content.map_or(0, |c| c.frame_bytes);
        plan.before.dead_bytes += content.map_or(0, |c| c.frame_bytes.saturating_sub(c.live_bytes));
        match content {
            _ if !object.reached => {
                if let Some(reason) = reason(object, snapshot) {
                    plan.discard.push(Discard { segment: object.id, bytes: object.bytes, reason });
                    gone.segments += 1;
                    gone.bytes += object.bytes;
                    gone.frame_bytes += content.map_or(0, |c| c.frame_bytes);
                }
            }
            Some(content) => staying.push((object, content)),
            None => {}
        }
    }
    // Small ones, too, stay where nothing is to be compacted.
    let chosen = if dead_percent_max >= 100 { Vec::new() } else { choose(&staying, dead_percent_max) };
    plan.carry = pack(chosen);
    plan.after = after(&plan, objects, gone);
    let wanted: Vec<SegmentId> = plan.carry.iter().flat_map(|c| c.sources.iter().copied()).collect();
    let leaving = |id: &SegmentId| wanted.contains(id) || plan.discard.iter().any(|d| d.segment == *id);
    // Whatever is condemned and neither goes nor moves may be referred to again.
    let stays = objects.iter().filter(|o| o.reached && !leaving(&o.id));
    plan.spare = stays
        .flat_map(|o| std::iter::once(o.id).chain(o.content.iter().flat_map(|c| c.births.iter().copied())))
        .filter(|id| snapshot.table.condemned.contains_key(id))
        .collect();
    plan.spare.sort_unstable();
    plan.spare.dedup();
    plan
}

/// Why an object that nothing reaches goes; none if it must stay.
fn reason(object: &Object, snapshot: &Snapshot) -> Option<DiscardReason> {
    if snapshot.table.deleted.contains(&object.id) {
        return Some(DiscardReason::Left);
    }
    match object.session {
        // A live process may not have written the header yet.
        None if snapshot.backup_runs() => None,
        None => Some(DiscardReason::Orphan),
        Some(_) if object.content.is_none() => Some(DiscardReason::Orphan),
        Some(_) if object.moved.is_some() => Some(DiscardReason::Carried),
        Some(_) => Some(DiscardReason::Dead),
    }
}

/// The segments to compact: the emptiest ones first until little dead space is left, and small ones where many are.
fn choose<'a>(staying: &[(&'a Object, &'a Content)], dead_percent_max: u8) -> Vec<(&'a Object, &'a Content)> {
    let mut total: u64 = staying.iter().map(|(_, c)| c.frame_bytes).sum();
    let mut dead: u64 = staying.iter().map(|(_, c)| c.frame_bytes - c.live_bytes).sum();
    let mut by_dead: Vec<_> = staying.iter().filter(|(_, c)| c.live_bytes < c.frame_bytes).copied().collect();
    by_dead.sort_by(|(_, a), (_, b)| {
        // Shares of the dead, compared without division.
        let share =
            |x: &Content, y: &Content| u128::from(x.frame_bytes - x.live_bytes) * u128::from(y.frame_bytes);
        share(b, a).cmp(&share(a, b))
    });
    let mut chosen: HashMap<SegmentId, (&Object, &Content)> = HashMap::new();
    for (object, content) in by_dead {
        if dead.saturating_mul(100) <= total.saturating_mul(u64::from(dead_percent_max)) {
            break;
        }
        let lost = content.frame_bytes - content.live_bytes;
        (dead, total) = (dead - lost, total - lost);
        chosen.insert(object.id, (object, content));
    }
    for kind in [SegmentKind::Data, SegmentKind::Meta] {
        let small = |(o, c): &&(&'a Object, &'a Content)| {
            c.kind == kind && o.bytes < SMALL_BYTES && c.live_births.len() * SMALL_MIN < BIRTHS_MAX
        };
        let small: Vec<_> = staying.iter().filter(small).collect();
        if small.len() >= 2 * SMALL_MIN {
            chosen.extend(small.into_iter().map(|(o, c)| (o.id, (*o, *c))));
        }
    }
    let mut chosen: Vec<_> = chosen.into_values().collect();
    chosen.sort_by_key(|(o, c)| (c.order, o.id));
    chosen
}

/// Puts the chosen segments together, in their order, into as few new ones as fit.
fn pack(chosen: Vec<(&Object, &Content)>) -> Vec<Carry> {
    let mut carries = Vec::new();
    for kind in [SegmentKind::Data, SegmentKind::Meta] {
        let mut open: Option<(Carry, usize, u32)> = None;
        for (object, content) in chosen.iter().filter(|(_, c)| c.kind == kind) {
            let fits = open.as_ref().is_some_and(|(carry, births, frames)| {
                births + content.live_births.len() < BIRTHS_MAX
                    && carry.live_bytes + content.live_bytes <= SEGMENT_BYTES
                    && frames.saturating_add(content.live_frames) <= SLOTS_MAX
            });
            if !fits {
                let empty = Carry { kind, sources: Vec::new(), bytes: 0, live_bytes: 0 };
                carries.extend(open.replace((empty, 0, 0)).map(|(carry, ..)| carry));
            }
            if let Some((carry, births, frames)) = &mut open {
                carry.sources.push(object.id);
                carry.bytes += object.bytes;
                carry.live_bytes += content.live_bytes;
                *births += content.live_births.len();
                *frames += content.live_frames;
            }
        }
        carries.extend(open.map(|(carry, ..)| carry));
    }
    carries
}

/// The space after the plan was carried out.
fn after(plan: &PrunePlan, objects: &[Object], gone: Space) -> Space {
    let mut after = Space {
        segments: plan.before.segments - gone.segments,
        bytes: plan.before.bytes - gone.bytes,
        frame_bytes: plan.before.frame_bytes - gone.frame_bytes,
        dead_bytes: plan.before.dead_bytes.saturating_sub(gone.frame_bytes),
    };
    for carry in &plan.carry {
        let sources = objects.iter().filter(|o| carry.sources.contains(&o.id));
        let frames: u64 = sources.filter_map(|o| o.content.as_ref()).map(|c| c.frame_bytes).sum();
        after.segments = after.segments.saturating_sub(carry.sources.len() as u64) + 1;
        // Header, footer, parity and trailer: a twenty-fifth, and some pages at least.
        let made = carry.live_bytes + carry.live_bytes / 25 + 12 * PAGE_BYTES as u64;
        after.bytes = after.bytes.saturating_sub(carry.bytes) + made;
        after.frame_bytes = after.frame_bytes.saturating_sub(frames) + carry.live_bytes;
        after.dead_bytes = after.dead_bytes.saturating_sub(frames - carry.live_bytes);
    }
    after
}
