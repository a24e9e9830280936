//! What can be mended, and what cannot: worked out to the last byte before anything is written.

use holdfast_format::ids::SegmentId;
use holdfast_format::names::SEGMENTS;
use holdfast_format::segment::SegmentKind;
use holdfast_io::{ObjectName, Objects};
use serde::Serialize;

use super::quarantine::{in_the_way, read_what_can_be};
use crate::check::{Checked, index_of, proven};
use crate::error::Result;
use crate::findings::Mend;
use crate::heal::{Healing, heal};
use crate::index::Index;
use crate::overlay::Overlay;
use crate::progress::size;
use crate::reader::Reader;
use crate::refoot::{refoot, walk};
use crate::report::grouped;
use crate::segment::{End, Segment, id_of};
use crate::unlock::Keys;

/// One thing that a repair would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Step {
    /// The object.
    pub object: String,
    /// What happens to it.
    pub what: String,
    #[serde(skip)]
    pub(crate) deed: Deed,
}

/// What a step of a plan does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    /// Done anew under the manifest's lock, from what is there then.
    Small,
    /// A segment is healed from its parity; so many pages differ.
    Heal { segment: SegmentId, pages: u32 },
    /// A segment gets a new footer.
    Refoot,
    /// An orphan goes to the quarantine.
    Away,
}

/// What a repair would do, in this order, and what it cannot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// What would be done.
    pub steps: Vec<Step>,
    /// What stays damaged, and why; one sentence each.
    pub stays: Vec<String>,
}

impl Plan {
    /// The plan for people.
    #[must_use]
    pub fn text(&self) -> String {
        let mut out = String::new();
        for step in &self.steps {
            out += &format!("plan       {}: {}\n", step.object, step.what);
        }
        for line in &self.stays {
            out += &format!("stays      {line}\n");
        }
        if self.steps.is_empty() && self.stays.is_empty() {
            out += "plan       nothing is to be done\n";
        }
        out
    }

    fn step(&mut self, object: impl ToString, what: impl ToString, deed: Deed) {
        self.steps.push(Step { object: object.to_string(), what: what.to_string(), deed });
    }
}

/// Makes the plan from what a full check found.
pub(super) fn make(objects: &dyn Objects, checked: &Checked<'_>, index_only: bool) -> Result<Plan> {
    let mut plan = Plan::default();
    let all = checked.menders.iter();
    let segments: Vec<&String> =
        all.clone().filter_map(|m| if let Mend::Segment { name } = m { Some(name) } else { None }).collect();
    if !index_only {
        for mend in all.clone() {
            if let Mend::Copy { bad: name, .. } | Mend::Head { name, .. } | Mend::LastRecord { name, .. } =
                mend
                && let Some(why) = in_the_way(objects, name)
            {
                plan.stays.push(why);
                continue;
            }
            match mend {
                Mend::Copy { bad, good } => {
                    plan.step(bad, format!("written anew from {good}"), Deed::Small);
                }
                Mend::Head { name, number, .. } => {
                    plan.step(name, format!("written anew, to name record {number}"), Deed::Small);
                }
                Mend::LastRecord { name, number, head } => {
                    let what = format!(
                        "neither record {number} nor {head}, which would name it, can be read: to the quarantine, and heads are \
                         written anew, so that records can follow; if it was ever acknowledged, what it told is lost"
                    );
                    plan.step(name, what, Deed::Small);
                }
                _ => {}
            }
        }
        if checked.manifest.key_lacking {
            plan.stays.push(
                "the keyring is older than records here: put back its newest copy, and repair then; nothing is written meanwhile"
                    .to_owned(),
            );
        } else if checked.manifest.last.is_none()
            && !all.clone().any(|m| matches!(m, Mend::LastRecord { .. }))
        {
            plan.stays.push(
                "the manifest has lost a record in both copies: no new record can follow, and nothing is taken for an \
                 orphan; restore what is whole, then begin a new repository"
                    .to_owned(),
            );
        }
    }
    if !segments.is_empty() {
        let index = index_of(objects, &checked.keys, &checked.manifest)?;
        for name in segments {
            segment(objects, &checked.keys, &index, name, index_only, &mut plan)?;
        }
    }
    if !index_only && checked.manifest.last.is_some() {
        for mend in all {
            match mend {
                Mend::Orphan { name, bytes, .. } => {
                    let what = format!("nothing needs its {}: to the quarantine", size(*bytes));
                    plan.step(name, what, Deed::Away);
                }
                Mend::Pack { name } => {
                    plan.step(
                        name,
                        "it does not hold what the records say, and is written anew in time: to the quarantine",
                        Deed::Away,
                    );
                }
                Mend::Session { name } => {
                    plan.step(
                        name,
                        "its process is dead and it cannot be read: to the quarantine",
                        Deed::Away,
                    );
                }
                _ => {}
            }
        }
    }
    Ok(plan)
}

/// What can be done for one segment.
fn segment(
    objects: &dyn Objects,
    keys: &Keys,
    index: &Index,
    name: &str,
    index_only: bool,
    plan: &mut Plan,
) -> Result<()> {
    let Ok(name) = ObjectName::new(name) else { return Ok(()) };
    let Some((id, _)) = id_of(&name) else {
        plan.stays.push(format!("{name}: the segment it belongs to is missing"));
        return Ok(());
    };
    let bytes = match objects.len(&name).and_then(|len| {
        read_what_can_be(objects, &name, len).map_err(|e| holdfast_io::Error::Io {
            op: "read",
            what: name.to_string(),
            source: std::io::Error::other(e.to_string()),
        })
    }) {
        Ok(bytes) => bytes,
        Err(e) => {
            plan.stays.push(format!("{name}: {e}"));
            return Ok(());
        }
    };
    if !index_only && name.as_str().starts_with(SEGMENTS) {
        match heal(keys.repo, id, &bytes) {
            Healing::Healed { bytes: healed, pages } => {
                let over = Overlay { below: objects, name: &name, bytes: &healed };
                match proven(&over, keys, index, &name) {
                    Ok(()) => {
                        let pages_text = grouped(u64::from(pages));
                        let what = format!("healed from its parity: {pages_text} pages of 4 KiB come back");
                        plan.step(&name, what, Deed::Heal { segment: id, pages });
                        return Ok(());
                    }
                    Err(why) => {
                        plan.stays.push(format!("{name}: parity gives bytes that are not right: {why}"))
                    }
                }
            }
            Healing::Intact => {
                plan.stays.push(format!("{name}: it is as it was written, so what is wrong lies elsewhere"));
                return Ok(());
            }
            Healing::Lost { why } => plan.stays.push(format!("{name}: {why}")),
        }
    }
    new_footer(objects, keys, index, &name, &bytes, plan);
    Ok(())
}

/// A new footer, where that makes more readable than there is.
fn new_footer(
    objects: &dyn Objects,
    keys: &Keys,
    index: &Index,
    name: &ObjectName,
    bytes: &[u8],
    plan: &mut Plan,
) {
    // With a footer that opens, what is wrong is in frames, and another footer would not change it.
    let footless = |segment: &Segment| {
        matches!(segment.end, End::Open { .. }) && segment.header.kind != SegmentKind::Log
    };
    if Segment::open(objects, keys, name.clone(), true).is_ok_and(|(segment, _)| !footless(&segment)) {
        return;
    }
    let reader = Reader::new(objects, keys, index);
    match footed(&reader, name, bytes) {
        Ok((frames, _)) => {
            let frames = grouped(frames as u64);
            plan.step(name, format!("a new footer is made from the {frames} frames that open"), Deed::Refoot);
        }
        Err(why) => plan.stays.push(format!("{name}: no new footer: {why}")),
    }
}

/// How many frames open, and the object that lists them: the segment itself, or for a log its detached footer.
pub(super) fn footed(
    reader: &Reader<'_>,
    name: &ObjectName,
    bytes: &[u8],
) -> std::result::Result<(usize, Vec<u8>), String> {
    let over = Overlay { below: reader.objects, name, bytes };
    let segment = Segment::open_header(&over, reader.keys, name.clone()).map_err(|w| w.what)?;
    let walked = walk(reader, &segment, bytes);
    let count = walked.entries.len();
    if count == 0 {
        return Err("no frame of it opens".to_owned());
    }
    if walked.without_base > 0 {
        return Err(format!("{} of its frames are deltas whose base is damaged", walked.without_base));
    }
    // A log with a hole must not look whole: whoever replays it would never know.
    let counted = walked.entries.iter().enumerate().all(|(n, e)| e.slot as usize == n);
    if segment.header.kind == SegmentKind::Log && !(walked.gapless && counted) {
        return Err("frames in the middle of this log are damaged".to_owned());
    }
    let made = refoot(reader, &segment, bytes, &walked).map_err(|e| e.to_string())?;
    Ok((count, made))
}
