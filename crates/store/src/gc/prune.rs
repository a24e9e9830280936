//! A prune from its first look to the last object that goes.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use holdfast_format::ids::{SegmentId, SessionId};
use holdfast_format::names::{self, PRUNE_LOCK, SEGMENTS};
use holdfast_format::record::{BackupRecord, Record};
use holdfast_format::session::SessionKind;
use holdfast_io::{Lock, LockKind, ObjectName};

use super::compact;
use super::mark::Live;
use super::plan::{self, Discard, DiscardReason, Object, PrunePlan, Space};
use super::snapshot::Snapshot;
use crate::error::{Error, Result};
use crate::repository::Inner;

/// Segments named in one record: its body stays below a megabyte.
const IDS_MAX: usize = 50_000;

/// How much is pruned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PruneOptions {
    /// Bytes of a hundred in what stays that may be dead: more is compacted. 100 compacts nothing, small segments
    /// neither.
    pub dead_percent_max: u8,
    /// Backups that were forgotten less than this ago keep their blocks, microseconds.
    pub grace_us: i64,
    /// Sealed stretches of log that no wanted backup leads into: the caller knows histories of servers, the store does
    /// not. Only while no backup runs.
    pub logs: Vec<SegmentId>,
}

impl Default for PruneOptions {
    /// A tenth may be dead, no grace, no log.
    fn default() -> Self {
        Self { dead_percent_max: 10, grace_us: 0, logs: Vec::new() }
    }
}

/// What a prune did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PruneReport {
    /// What it meant to do.
    pub plan: PrunePlan,
    /// Objects that are gone.
    pub deleted: Vec<Discard>,
    /// Segments that were compacted.
    pub carried: u64,
    /// Segments they became.
    pub carriers: u64,
    /// Bytes of those.
    pub carrier_bytes: u64,
    /// Segments that stay condemned because somebody at work may still need them, or because the prune was stopped; the next
    /// one goes on.
    pub waiting: u64,
    /// Whoever watched did not want it to go on.
    pub stopped: bool,
    /// Segments that were left alone because they are damaged, and what is wrong.
    pub damaged: Vec<String>,
    /// Afterwards.
    pub after: Space,
}

impl PruneReport {
    /// Bytes of the objects that are gone, less those that were written for it.
    #[must_use]
    pub fn bytes_freed(&self) -> u64 {
        let gone: u64 = self.deleted.iter().map(|d| d.bytes).sum();
        gone.saturating_sub(self.carrier_bytes)
    }
}

/// A prune at work. Only one at a time works on a repository.
#[derive(Debug)]
pub(crate) struct Prune<'a> {
    inner: &'a Arc<Inner>,
    options: &'a PruneOptions,
    _lock: Lock,
}

/// What a first look found.
struct Looked {
    snapshot: Snapshot,
    live: Live,
    objects: Vec<Object>,
    plan: PrunePlan,
}

/// Backups whose blocks stay whatever a prune does now: wanted ones, those that were forgotten less than the grace ago,
/// locked ones, and those that live sessions read.
pub(crate) fn retained(inner: &Inner, grace_us: i64) -> Result<Vec<BackupRecord>> {
    let snapshot = Snapshot::take(inner, None, inner.options.clock.now_us().saturating_sub(grace_us))?;
    let mut retained = snapshot.wanted.clone();
    for stamped in inner.manifest.records() {
        if let Record::BackupCommitted(backup) = &stamped.record
            && snapshot.live.iter().any(|s| s.roots.contains(&backup.map))
            && !retained.iter().any(|r| r.id == backup.id)
        {
            retained.push(backup.clone());
        }
    }
    Ok(retained)
}

impl<'a> Prune<'a> {
    pub(crate) fn begin(inner: &'a Arc<Inner>, options: &'a PruneOptions) -> Result<Self> {
        if let Some(why) = inner.manifest.damage() {
            return Err(Error::ReadOnly { why });
        }
        let lock =
            match inner.objects.lock(&ObjectName::new(PRUNE_LOCK)?, LockKind::Exclusive, Duration::ZERO) {
                Ok(lock) => lock,
                Err(holdfast_io::Error::LockBusy { .. }) => return Err(Error::PruneBusy),
                Err(e) => return Err(e.into()),
            };
        Ok(Self { inner, options, _lock: lock })
    }

    /// What would be done.
    pub(crate) fn plan(&self) -> Result<PrunePlan> {
        Ok(self.look(None)?.plan)
    }

    fn forgotten_after_us(&self) -> i64 {
        self.inner.options.clock.now_us().saturating_sub(self.options.grace_us)
    }

    fn look(&self, own: Option<SessionId>) -> Result<Looked> {
        // The list first: what a session wrote that ends before the snapshot is committed in it, or nobody's.
        let listed = self.inner.objects.list(SEGMENTS)?;
        let snapshot = Snapshot::take(self.inner, own, self.forgotten_after_us())?;
        let live = Live::mark(self.inner, &snapshot.roots())?;
        let objects = plan::census(self.inner, &listed, &snapshot, &live)?;
        let mut plan = plan::decide(&objects, &snapshot, self.options.dead_percent_max);
        plan.discard.extend(self.logs(&snapshot)?);
        Ok(Looked { snapshot, live, objects, plan })
    }

    /// The stretches of log that go.
    fn logs(&self, snapshot: &Snapshot) -> Result<Vec<Discard>> {
        let sealed = self.inner.manifest.records();
        let sealed = sealed.iter().filter_map(|s| match &s.record {
            Record::LogSealed(log) => Some(log.segment),
            _ => None,
        });
        let mut logs = Vec::new();
        for segment in sealed {
            let left = snapshot.table.deleted.contains(&segment);
            // A backup at work may come to stand earlier in the log than all others.
            if !left && (snapshot.backup_runs() || !self.options.logs.contains(&segment)) {
                continue;
            }
            match self.inner.objects.len(&ObjectName::new(names::log(segment))?) {
                Ok(bytes) => logs.push(Discard {
                    segment,
                    bytes,
                    reason: if left { DiscardReason::Left } else { DiscardReason::Log },
                }),
                Err(e) if e.is_not_found() => {}
                Err(e) => return Err(e.into()),
            }
        }
        Ok(logs)
    }

    fn append(&self, ids: &[SegmentId], record: impl Fn(Vec<SegmentId>) -> Record) -> Result<()> {
        for some in ids.chunks(IDS_MAX) {
            let at_us = self.inner.options.clock.now_us();
            self.inner.manifest.append(record(some.to_vec()), at_us)?;
        }
        Ok(())
    }

    /// Does it. Where `go_on` says false, what is left waits as after a kill.
    pub(crate) fn run(&self, go_on: &dyn Fn(u64, u64) -> bool) -> Result<PruneReport> {
        self.inner.refuse_unknown_features()?;
        let session = self.inner.begin_session(SessionKind::Prune, Vec::new())?;
        let Looked { mut snapshot, live, objects, plan } = self.look(Some(session.id()))?;
        self.inner.refuse_unknown_features()?;
        for (name, lock) in snapshot.dead.drain(..) {
            remove(self.inner, &name)?;
            drop(lock);
        }
        let objects: HashMap<SegmentId, Object> = objects.into_iter().map(|o| (o.id, o)).collect();
        let names = |id: SegmentId| {
            let births = objects.get(&id).and_then(|o| o.content.as_ref()).map(|c| c.births.clone());
            std::iter::once(id).chain(births.into_iter().flatten().filter(move |b| *b != id))
        };
        let leaving = plan.discard.iter().filter(|d| must_be_condemned(d)).map(|d| d.segment);
        let leaving: Vec<SegmentId> =
            leaving.chain(plan.carry.iter().flat_map(|c| c.sources.iter().copied())).collect();
        let mut condemn: Vec<SegmentId> = leaving.iter().flat_map(|id| names(*id)).collect();
        condemn.retain(|id| !snapshot.table.condemned.contains_key(id));
        self.append(&condemn, |segments| Record::SegmentsCondemned { segments })?;
        self.append(&plan.spare, |segments| Record::SegmentsSpared { segments })?;

        // Whoever committed before the record was written may need what was dead before.
        let again = Snapshot::take(self.inner, Some(session.id()), self.forgotten_after_us())?;
        let live =
            if again.roots() == snapshot.roots() { live } else { Live::mark(self.inner, &again.roots())? };
        let known = |id: &SegmentId| again.table.condemned.get(id).is_some_and(|at| again.backups_know(*at));
        let holders = live.holders(&again.table);
        let mut report = PruneReport { after: plan.before, plan, ..PruneReport::default() };
        let mut spare = Vec::new();
        let mut gone = Vec::new();
        for discard in report.plan.discard.clone() {
            let id = discard.segment;
            let object = objects.get(&id);
            let needed = holders.contains(&id);
            match discard.reason {
                DiscardReason::Left => gone.push(discard),
                DiscardReason::Log if !again.backup_runs() => gone.push(discard),
                DiscardReason::Log => report.waiting += 1,
                _ if needed => spare.extend(names(id)),
                DiscardReason::Carried => match object.and_then(|o| o.moved) {
                    Some(at) if again.all_know(at) => gone.push(discard),
                    _ => report.waiting += 1,
                },
                _ if known(&id) => gone.push(discard),
                _ => report.waiting += 1,
            }
        }
        self.append(&spare, |segments| Record::SegmentsSpared { segments })?;
        self.delete(&gone, &objects, &mut report)?;

        let total: u64 = report.plan.carry.iter().map(|c| c.live_bytes).sum();
        let mut done = 0;
        for group in report.plan.carry.clone() {
            if !go_on(done, total) {
                report.stopped = true;
            }
            if report.stopped {
                report.waiting += group.sources.len() as u64;
                continue;
            }
            done += group.live_bytes;
            let (now, later): (Vec<SegmentId>, Vec<SegmentId>) =
                group.sources.iter().partition(|id| known(id));
            report.waiting += later.len() as u64;
            let carried = compact::carry(
                self.inner,
                session.id(),
                group.kind,
                &now,
                &again.table,
                &live,
                &mut report.damaged,
            )?;
            let Some(carried) = carried else { continue };
            let at_us = self.inner.options.clock.now_us();
            let record = Record::SegmentsCarried { carrier: carried.carrier, births: carried.births.clone() };
            let number = self.inner.manifest.append(record, at_us)?.number;
            self.inner.learn_carriers();
            report.carriers += 1;
            report.carried += carried.sources.len() as u64;
            report.carrier_bytes += carried.bytes;
            report.after.segments += 1;
            report.after.bytes += carried.bytes;
            report.after.frame_bytes += carried.frame_bytes;
            // What was alive in the sources is dead there now.
            report.after.dead_bytes += carried.frame_bytes;
            let now = Snapshot::take(self.inner, Some(session.id()), self.forgotten_after_us())?;
            if now.all_know(number) {
                let gone: Vec<Discard> = carried
                    .sources
                    .iter()
                    .filter_map(|id| objects.get(id))
                    .map(|o| Discard { segment: o.id, bytes: o.bytes, reason: DiscardReason::Carried })
                    .collect();
                self.delete(&gone, &objects, &mut report)?;
            } else {
                report.waiting += carried.sources.len() as u64;
            }
        }
        if !report.stopped {
            go_on(total, total);
        }
        Ok(report)
    }

    /// The record first, so that nobody takes what is missing for damage; then the objects.
    fn delete(
        &self,
        gone: &[Discard],
        objects: &HashMap<SegmentId, Object>,
        report: &mut PruneReport,
    ) -> Result<()> {
        // A prune may take hours: another program may have come meanwhile.
        self.inner.refuse_unknown_features()?;
        let new: Vec<SegmentId> =
            gone.iter().filter(|d| d.reason != DiscardReason::Left).map(|d| d.segment).collect();
        self.append(&new, |segments| Record::SegmentsDeleted { segments })?;
        for discard in gone {
            match objects.get(&discard.segment) {
                Some(object) => {
                    remove(self.inner, &ObjectName::new(names::segment(discard.segment))?)?;
                    let frames = object.content.as_ref().map_or(0, |c| c.frame_bytes);
                    report.after.segments = report.after.segments.saturating_sub(1);
                    report.after.bytes = report.after.bytes.saturating_sub(object.bytes);
                    report.after.frame_bytes = report.after.frame_bytes.saturating_sub(frames);
                    report.after.dead_bytes = report.after.dead_bytes.saturating_sub(frames);
                }
                None => {
                    // The segment goes last: a footer without one would be damage.
                    remove(self.inner, &ObjectName::new(names::log_foot(discard.segment))?)?;
                    remove(self.inner, &ObjectName::new(names::log(discard.segment))?)?;
                }
            }
            report.deleted.push(*discard);
        }
        Ok(())
    }
}

/// Whether anybody may still refer to an object that goes. To one whose frames are elsewhere, nobody can: it shares its
/// name with a birth that lives on.
fn must_be_condemned(discard: &Discard) -> bool {
    matches!(discard.reason, DiscardReason::Dead | DiscardReason::Orphan)
}

fn remove(inner: &Inner, name: &ObjectName) -> Result<()> {
    match inner.objects.delete(name) {
        Err(e) if !e.is_not_found() => Err(e.into()),
        _ => Ok(()),
    }
}
