//! What the workers of a check find, gathered from many threads.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use holdfast_format::ids::{Address, RecordHash, SegmentId};
use holdfast_format::names::{LOGS, SEGMENTS};
use holdfast_io::ObjectName;

use crate::report::{FILES_NAMED_MAX, FLAWS_KEPT_MAX, Flaw, Note, counted};

/// Notes kept one by one.
const NOTES_KEPT_MAX: usize = 200;
/// Backups or stretches of log named for one flaw.
const AFFECTED_NAMED_MAX: usize = 50;

/// Number of a flaw, so that what it affects can be added later. Beyond the kept ones: [`FLAWS_KEPT_MAX`].
pub(crate) type FlawNo = usize;

#[derive(Debug, Default)]
struct Draft {
    object: String,
    offset: Option<u64>,
    what: String,
    /// A backup -> how many of its files, and some of their names.
    files: BTreeMap<String, (u64, Vec<String>)>,
    others: Vec<String>,
}

/// Something that a repair can put right, noted where it was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mend {
    /// A copy of a small object (keyring, record) that is missing, damaged or old, and a good one.
    Copy { bad: ObjectName, good: ObjectName },
    /// What is left of the last record, which can't be read in either copy, nor can the head that would name it.
    LastRecord { name: ObjectName, number: u64, head: &'static str },
    /// A head that should name this record.
    Head { name: ObjectName, number: u64, hash: RecordHash },
    /// A segment with a flaw in it.
    Segment { name: String },
    /// A segment that nothing reaches, and the births it holds.
    Orphan { name: ObjectName, births: Vec<SegmentId>, bytes: u64 },
    /// A pack of records that does not hold what the records say.
    Pack { name: ObjectName },
    /// A dead session that cannot be read.
    Session { name: ObjectName },
}

#[derive(Debug, Default)]
struct Inner {
    drafts: Vec<Draft>,
    more: u64,
    notes: Vec<Note>,
    menders: Vec<Mend>,
    suspects: BTreeSet<String>,
    vanished: Vec<SegmentId>,
    /// The one flaw that stands for everything under keys that the keyring does not have, and how many objects of each
    /// generation there are.
    lacking: Option<FlawNo>,
    lacking_objects: BTreeMap<u32, u64>,
    bad_frames: HashMap<Address, FlawNo>,
    bad_segments: HashMap<SegmentId, FlawNo>,
    /// Frames that are flaws only if something needs them: object, offset, what.
    latent: HashMap<Address, (String, u64, String)>,
}

/// Flaws and notes.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    inner: Mutex<Inner>,
    /// Whether any frame or segment is bad: maps ask for each of a repository's blocks, and mostly none is.
    any_bad: AtomicBool,
}

impl Findings {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn flaw(&self, object: impl ToString, offset: Option<u64>, what: String) -> FlawNo {
        let mut inner = self.inner();
        let object = object.to_string();
        if object.starts_with(SEGMENTS) || object.starts_with(LOGS) {
            inner.suspects.insert(object.clone());
        }
        if inner.drafts.len() >= FLAWS_KEPT_MAX {
            inner.more = inner.more.saturating_add(1);
            return FLAWS_KEPT_MAX;
        }
        inner.drafts.push(Draft { object, offset, what, ..Draft::default() });
        inner.drafts.len().saturating_sub(1)
    }

    /// A frame that no restore can use. The first flaw of a frame stands for it.
    pub(crate) fn bad_frame(&self, at: Address, object: impl ToString, offset: u64, what: String) {
        let no = self.flaw(object, Some(offset), what);
        self.inner().bad_frames.entry(at).or_insert(no);
        self.any_bad.store(true, Ordering::Release);
    }

    /// A frame that is a flaw only if something needs it: a delta whose base a prune removed.
    pub(crate) fn latent_frame(&self, at: Address, object: impl ToString, offset: u64, what: String) {
        self.inner().latent.entry(at).or_insert((object.to_string(), offset, what));
        self.any_bad.store(true, Ordering::Release);
    }

    /// A segment whose frames cannot be found as a restore finds them. `births` are the segments that its frames come
    /// from, itself among them.
    pub(crate) fn bad_segment(
        &self,
        births: impl IntoIterator<Item = SegmentId>,
        object: impl ToString,
        offset: Option<u64>,
        what: String,
    ) {
        let no = self.flaw(object, offset, what);
        let mut inner = self.inner();
        for birth in births {
            inner.bad_segments.entry(birth).or_insert(no);
        }
        drop(inner);
        self.any_bad.store(true, Ordering::Release);
    }

    /// An object that is under a generation of the keys which the keyring does not have: all of them are one flaw, the
    /// keyring's. `births` are the segments whose frames lie in it.
    pub(crate) fn key_lacking(&self, generation: u32, births: impl IntoIterator<Item = SegmentId>) {
        let known = self.inner().lacking;
        let no = known.unwrap_or_else(|| self.flaw("keyring", None, String::new()));
        let mut inner = self.inner();
        inner.lacking = Some(no);
        let count = inner.lacking_objects.entry(generation).or_default();
        *count = count.saturating_add(1);
        for birth in births {
            inner.bad_segments.entry(birth).or_insert(no);
        }
        drop(inner);
        self.any_bad.store(true, Ordering::Release);
    }

    /// The flaw of a frame, its own or its segment's.
    pub(crate) fn of_frame(&self, at: Address) -> Option<FlawNo> {
        if !self.any_bad.load(Ordering::Acquire) {
            return None;
        }
        let latent = {
            let mut inner = self.inner();
            let known = inner.bad_frames.get(&at).or_else(|| inner.bad_segments.get(&at.segment)).copied();
            if known.is_some() {
                return known;
            }
            inner.latent.remove(&at)
        };
        let (object, offset, what) = latent?;
        self.bad_frame(at, object, offset, what);
        self.inner().bad_frames.get(&at).copied()
    }

    /// The flaws of a segment's frames, or of the segment.
    pub(crate) fn of_segment(&self, id: SegmentId) -> Vec<FlawNo> {
        let inner = self.inner();
        let frames = inner.bad_frames.iter().filter(|(at, _)| at.segment == id).map(|(_, no)| *no);
        let mut all: Vec<FlawNo> = frames.chain(inner.bad_segments.get(&id).copied()).collect();
        all.sort_unstable();
        all
    }

    pub(crate) fn note(&self, object: impl ToString, what: String) {
        let mut inner = self.inner();
        if inner.notes.len() < NOTES_KEPT_MAX {
            inner.notes.push(Note { object: object.to_string(), what });
        }
    }

    /// Something that a repair can put right.
    pub(crate) fn mend(&self, mend: Mend) {
        self.inner().menders.push(mend);
    }

    /// A segment went away while it was checked, as garbage collection makes it.
    pub(crate) fn vanished(&self, id: SegmentId) {
        self.inner().vanished.push(id);
    }

    /// The segments that went away.
    pub(crate) fn all_vanished(&self) -> Vec<SegmentId> {
        std::mem::take(&mut self.inner().vanished)
    }

    /// A file of a backup is damaged because of a flaw.
    pub(crate) fn affects_file(&self, no: FlawNo, backup: &str, file: &str) {
        if let Some(draft) = self.inner().drafts.get_mut(no) {
            if draft.files.len() >= AFFECTED_NAMED_MAX && !draft.files.contains_key(backup) {
                return;
            }
            let (count, names) = draft.files.entry(backup.to_owned()).or_default();
            if names.last().is_some_and(|n| n == file) {
                return;
            }
            *count = count.saturating_add(1);
            if names.len() < FILES_NAMED_MAX {
                names.push(file.to_owned());
            }
        }
    }

    /// Something else is damaged because of a flaw.
    pub(crate) fn affects(&self, no: FlawNo, what: String) {
        if let Some(draft) = self.inner().drafts.get_mut(no)
            && draft.others.len() < AFFECTED_NAMED_MAX
            && !draft.others.contains(&what)
        {
            draft.others.push(what);
        }
    }

    /// Takes over what was found apart, before any frame was looked at.
    pub(crate) fn absorb(&self, other: &Self) {
        let mut from = other.inner();
        let mut inner = self.inner();
        let before = inner.drafts.len();
        inner.lacking = inner.lacking.or(from.lacking.map(|no| no.saturating_add(before)));
        for (generation, count) in std::mem::take(&mut from.lacking_objects) {
            let sum = inner.lacking_objects.entry(generation).or_default();
            *sum = sum.saturating_add(count);
        }
        inner.drafts.append(&mut from.drafts);
        inner.notes.append(&mut from.notes);
        inner.menders.append(&mut from.menders);
        inner.more = inner.more.saturating_add(from.more);
    }

    /// Everything, for the report: flaws, how many more, notes; and what can be mended.
    pub(crate) fn finish(&self) -> (Vec<Flaw>, u64, Vec<Note>, Vec<Mend>) {
        let mut inner = self.inner();
        let told = lacking_text(&inner.lacking_objects);
        if let Some(draft) = inner.lacking.and_then(|no| inner.drafts.get_mut(no)) {
            draft.what = told;
        }
        let flaws = std::mem::take(&mut inner.drafts).into_iter().map(Draft::finish).collect();
        let mut menders = std::mem::take(&mut inner.menders);
        menders.extend(std::mem::take(&mut inner.suspects).into_iter().map(|name| Mend::Segment { name }));
        (flaws, inner.more, std::mem::take(&mut inner.notes), menders)
    }
}

fn lacking_text(objects: &BTreeMap<u32, u64>) -> String {
    let each =
        objects.iter().map(|(generation, count)| format!("{} of {generation}", counted(*count, "object")));
    let each: Vec<String> = each.collect();
    format!(
        "this keyring, or this kit, is from before the keys were rotated: it lacks generations that objects here are under ({}); \
         they are not looked into. Put back the newest copy of keyring/, or use a kit from after the last `holdfast key rotate`",
        each.join(", ")
    )
}

impl Draft {
    fn finish(self) -> Flaw {
        let mut affects = self.others;
        for (backup, (count, names)) in self.files {
            let more = count.saturating_sub(names.len() as u64);
            let tail = if more > 0 { format!(" and {more} more") } else { String::new() };
            affects.push(format!("{backup}: {}: {}{tail}", counted(count, "file"), names.join(", ")));
        }
        Flaw { object: self.object, offset: self.offset, what: self.what, affects }
    }
}
