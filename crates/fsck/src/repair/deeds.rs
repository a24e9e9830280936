//! The deeds of a plan, each of which leaves the repository readable if it is the last.

use holdfast_format::ids::SegmentId;
use holdfast_format::names::{SESSIONS, log_foot};
use holdfast_format::record::{HealedRecord, Healing as Healed, MendedRecord, Record};
use holdfast_format::session::{Session, SessionKind};
use holdfast_io::{LockKind, ObjectName, Objects};

use super::plan::{Deed, Plan, footed};
use super::quarantine::{Quarantine, read_what_can_be};
use crate::append::{append, lock, mend};
use crate::check::{Checked, index_of, proven};
use crate::error::{Error, Result};
use crate::findings::{Findings, Mend};
use crate::heal::{Healing, heal};
use crate::hold::Hold;
use crate::manifest;
use crate::overlay::Overlay;
use crate::progress::Progress;
use crate::reader::Reader;
use crate::report::counted;
use crate::segment::{Segment, id_of};
use crate::unlock::{Keys, Secret, unlock};

/// Deeds in one record: it stays far below its limit.
const DEEDS_A_RECORD: usize = 1000;

/// What is being done.
pub(super) struct Deeds<'a> {
    objects: &'a dyn Objects,
    keys: &'a Keys,
    quarantine: Quarantine<'a>,
    now_us: i64,
    done: Vec<String>,
    healed: Vec<Healed>,
    /// The last record was taken away: what it named looks like an orphan.
    dropped: bool,
}

impl<'a> Deeds<'a> {
    pub(super) fn new(objects: &'a dyn Objects, keys: &'a Keys, now_us: i64) -> Result<Self> {
        let quarantine = Quarantine::new(objects, now_us)?;
        Ok(Self { objects, keys, quarantine, now_us, done: Vec::new(), healed: Vec::new(), dropped: false })
    }

    /// What was done, and where the old is kept.
    pub(super) fn told(self) -> (Vec<String>, Option<String>) {
        let used = self.objects.list(self.quarantine.folder()).is_ok_and(|names| !names.is_empty());
        let folder = used.then(|| self.quarantine.folder().to_owned());
        (self.done, folder)
    }

    /// Copies of keyring and records, and heads: seen anew under the manifest's lock, since others append meanwhile.
    pub(super) fn small(&mut self, secret: &Secret, index_only: bool) -> Result<()> {
        if index_only {
            return Ok(());
        }
        let lock = lock(self.objects)?;
        let (mut what, mut again) = (Vec::new(), true);
        while again {
            let found = Findings::default();
            let _ = unlock(self.objects, secret, &found)?;
            let _ = manifest::read(self.objects, self.keys, &found)?;
            let (.., menders) = found.finish();
            let mended = mend(self.objects, self.keys, &menders, &self.quarantine, &lock)?;
            what.extend(mended.done);
            // Without the last record the heads are those of the one before it.
            again = mended.dropped && !self.dropped;
            self.dropped |= mended.dropped;
            if !again {
                self.done.extend(mended.left);
            }
        }
        drop(lock);
        if what.is_empty() {
            return Ok(());
        }
        let count = counted(what.len() as u64, "small object");
        self.done.push(format!("{count} were put in order: keyring, records, heads"));
        for what in what.chunks(DEEDS_A_RECORD) {
            let record = Record::Mended(MendedRecord { by: "fsck".to_owned(), what: what.to_vec() });
            match append(self.objects, self.keys, &record, self.now_us, &self.quarantine) {
                Ok(number) => self.done.push(format!("record {number} tells which")),
                Err(e) => self.done.push(format!("no record tells which: {e}")),
            }
        }
        Ok(())
    }

    /// Segments: from parity first, then new footers, which may need what was healed.
    pub(super) fn segments(&mut self, plan: &Plan, progress: &Progress) -> Result<()> {
        let wanted = |step: &&super::Step| matches!(step.deed, Deed::Heal { .. } | Deed::Refoot);
        if !plan.steps.iter().any(|step| wanted(&step)) {
            return Ok(());
        }
        progress.begin("repair", 0);
        let manifest = manifest::read(self.objects, self.keys, &Findings::default())?;
        let index = index_of(self.objects, self.keys, &manifest)?;
        for step in plan.steps.iter().filter(|s| matches!(s.deed, Deed::Heal { .. })) {
            let Deed::Heal { segment, .. } = step.deed else { continue };
            let name = ObjectName::new(step.object.as_str())?;
            let bytes = self.read(&name)?;
            match heal(self.keys.repo, segment, &bytes) {
                Healing::Healed { bytes: healed, pages } => {
                    let over = Overlay { below: self.objects, name: &name, bytes: &healed };
                    proven(&over, self.keys, &index, &name).map_err(Error::NotProven)?;
                    self.quarantine.keep(&name)?;
                    self.objects.replace(&name, &healed)?;
                    self.healed.push(Healed { segment, pages });
                    self.done.push(format!("{name} was healed from its parity: {pages} pages of 4 KiB"));
                }
                // Somebody else was quicker.
                Healing::Intact => {}
                Healing::Lost { why } => self.done.push(format!("{name} was not healed: {why}")),
            }
        }
        self.record_heals();
        let index = index_of(self.objects, self.keys, &manifest)?;
        for step in plan.steps.iter().filter(|s| s.deed == Deed::Refoot) {
            self.new_footer(
                &ObjectName::new(step.object.as_str())?,
                &Reader::new(self.objects, self.keys, &index),
            )?;
        }
        Ok(())
    }

    fn read(&self, name: &ObjectName) -> Result<Vec<u8>> {
        let len = self.objects.len(name)?;
        read_what_can_be(self.objects, name, len)
    }

    /// The heals become part of the audit trail, if the manifest can take a record.
    fn record_heals(&mut self) {
        if self.healed.is_empty() {
            return;
        }
        let record = Record::Healed(HealedRecord {
            by: "fsck".to_owned(),
            segments: std::mem::take(&mut self.healed),
        });
        match append(self.objects, self.keys, &record, self.now_us, &self.quarantine) {
            Ok(number) => self.done.push(format!("record {number} tells of what was healed")),
            Err(e) => self.done.push(format!("no record tells of what was healed: {e}")),
        }
    }

    fn new_footer(&mut self, name: &ObjectName, reader: &Reader<'_>) -> Result<()> {
        let bytes = self.read(name)?;
        let (frames, made) = match footed(reader, name, &bytes) {
            Ok(made) => made,
            Err(why) => {
                self.done.push(format!("{name} got no new footer: {why}"));
                return Ok(());
            }
        };
        let Some((id, log)) = id_of(name) else { return Ok(()) };
        let target = if log { ObjectName::new(log_foot(id))? } else { name.clone() };
        let over = Overlay { below: self.objects, name: &target, bytes: &made };
        let opened =
            Segment::open(&over, self.keys, name.clone(), true).map_err(|w| Error::NotProven(w.what))?;
        if opened.1.len() != frames {
            return Err(Error::NotProven("the new footer lists other frames".to_owned()));
        }
        self.quarantine.keep(&target)?;
        self.objects.replace(&target, &made)?;
        self.done.push(format!("{target} lists {frames} frames anew"));
        Ok(())
    }

    /// Orphans and dead sessions, only from a repository of which everything else is whole.
    pub(super) fn orphans(&mut self, checked: &Checked<'_>) -> Result<()> {
        let orphans: Vec<&ObjectName> = checked
            .menders
            .iter()
            .filter_map(|m| if let Mend::Orphan { name, .. } = m { Some(name) } else { None })
            .collect();
        let sessions = checked
            .menders
            .iter()
            .filter_map(|m| if let Mend::Session { name } = m { Some(name) } else { None });
        let packs = checked
            .menders
            .iter()
            .filter_map(|m| if let Mend::Pack { name } = m { Some(name) } else { None });
        // Of a chain that lost a record, a pack may be the last one that knows it.
        for name in packs.filter(|_| checked.manifest.last.is_some()) {
            self.away(name)?;
        }
        for name in sessions {
            if self.objects.try_lock(name, LockKind::Exclusive)?.is_some() {
                self.away(name)?;
            }
        }
        if orphans.is_empty() {
            return Ok(());
        }
        if self.dropped {
            let count = orphans.len();
            self.done.push(format!(
                "{count} orphans stay for now, since the record that was taken away may have named them: the next repair moves them"
            ));
            return Ok(());
        }
        let whole = checked.manifest.last.is_some() && checked.report.backups.iter().all(|b| b.whole);
        if !whole {
            let count = orphans.len();
            self.done.push(format!("{count} orphans stay, since what is damaged may have needed them"));
            return Ok(());
        }
        // From this record on nobody refers to them; who began before it may have, and may still commit.
        let segments: Vec<SegmentId> = orphans.iter().filter_map(|n| id_of(n).map(|(id, _)| id)).collect();
        let condemned = Record::SegmentsCondemned { segments: segments.clone() };
        append(self.objects, self.keys, &condemned, self.now_us, &self.quarantine)?;
        if let Some(busy) = self.somebody_works(checked.hold.as_ref())? {
            self.done.push(format!(
                "{} orphans stay for now, since the session {busy} began before they were condemned: repair again later",
                orphans.len()
            ));
            return Ok(());
        }
        append(
            self.objects,
            self.keys,
            &Record::SegmentsDeleted { segments },
            self.now_us,
            &self.quarantine,
        )?;
        for name in orphans {
            self.away(name)?;
        }
        Ok(())
    }

    /// A live session that is not this check's own.
    fn somebody_works(&self, own: Option<&Hold<'_>>) -> Result<Option<ObjectName>> {
        for name in self.objects.list(SESSIONS)? {
            if own.is_some_and(|own| own.owns(&name)) {
                continue;
            }
            let alive = match self.objects.try_lock(&name, LockKind::Shared) {
                Ok(lock) => lock.is_none(),
                Err(e) if e.is_not_found() => false,
                Err(e) => return Err(e.into()),
            };
            // A reader keeps what its roots name, and never makes an orphan anything else.
            let reads = || {
                let bytes =
                    self.objects.len(&name).and_then(|len| self.objects.read(&name, 0, len.min(64 << 10)));
                bytes
                    .ok()
                    .and_then(|bytes| Session::decode(&bytes).ok())
                    .is_some_and(|s| s.kind == SessionKind::Read)
            };
            if alive && !reads() {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }

    /// Keeps an object in the quarantine, and takes it away.
    fn away(&mut self, name: &ObjectName) -> Result<()> {
        self.quarantine.keep(name)?;
        self.objects.delete(name)?;
        self.done.push(format!("{name} was put into the quarantine"));
        Ok(())
    }
}
