//! The streams of log: which stretches are there, and whether each begins where the one before it ends.

use std::collections::BTreeMap;

use holdfast_format::ids::SegmentId;
use holdfast_format::log::LogOpening;
use holdfast_format::record::{LogGap, LogRecord, Position, StreamKey};

use crate::findings::Findings;
use crate::index::Index;
use crate::report::StreamVerdict;
use crate::segment::{End, damaged_end};
use crate::windows::{Span, Stretch};

/// One segment of a stream.
struct Piece<'a> {
    sealed: Option<&'a LogRecord>,
    opening: Option<&'a LogOpening>,
    segment: SegmentId,
}

/// What the manifest and the segments say of logs.
pub(crate) struct Logs<'a> {
    pub sealed: Vec<&'a LogRecord>,
    pub gaps: Vec<&'a LogGap>,
    pub openings: &'a BTreeMap<SegmentId, LogOpening>,
    pub index: &'a Index,
    pub found: &'a Findings,
}

impl<'a> Logs<'a> {
    /// Checks each stream, and gives the stretches of it that are right; `name` gives the name of its server.
    pub(crate) fn check(
        &self,
        name: impl Fn(&StreamKey) -> String,
    ) -> (Vec<StreamVerdict>, Vec<Stretch<'a>>) {
        let mut streams: BTreeMap<StreamKey, BTreeMap<u64, Piece<'a>>> = BTreeMap::new();
        for record in &self.sealed {
            let piece = Piece {
                sealed: Some(record),
                opening: self.openings.get(&record.segment),
                segment: record.segment,
            };
            let pieces = streams.entry(record.stream).or_default();
            if let Some(other) = pieces.insert(record.number, piece) {
                let (number, segment) = (record.number, record.segment);
                let what =
                    format!("number {number} of {} is sealed twice, as {segment} too", name(&record.stream));
                self.found.flaw(format!("logs/{}", other.segment), None, what);
            }
        }
        for (segment, opening) in self.openings {
            let pieces = streams.entry(opening.stream).or_default();
            let piece = Piece { sealed: None, opening: Some(opening), segment: *segment };
            match pieces.get(&opening.number) {
                Some(there) if there.segment == *segment => {}
                Some(there) => {
                    let what =
                        format!("it has number {}, as the segment {} has", opening.number, there.segment);
                    self.found.note(format!("logs/{segment}"), what);
                }
                None => {
                    pieces.insert(opening.number, piece);
                }
            }
        }
        self.damaged_ends(&streams);
        let mut stretches = Vec::new();
        let verdict = |(key, pieces): (&StreamKey, &BTreeMap<u64, Piece<'a>>)| {
            self.stream(key, pieces, &name(key), &mut stretches)
        };
        let verdicts = streams.iter().map(verdict).collect();
        (verdicts, stretches)
    }

    /// Segments without a footer that have damage before their torn end. If the next writer of the stream got everything
    /// from there on once more, it is in a later segment, and nothing is lost.
    fn damaged_ends(&self, streams: &BTreeMap<StreamKey, BTreeMap<u64, Piece<'_>>>) {
        for (id, opening) in self.openings {
            let Some(segment) = self.index.carrier(*id) else { continue };
            let End::Open { later: Some(later), events, .. } = &segment.end else { continue };
            let reached = opening.start.offset.saturating_add(*events);
            let pieces = streams.get(&opening.stream).into_iter().flatten();
            let again = pieces.filter(|(number, _)| **number > opening.number).find(|(_, piece)| {
                start(piece).is_some_and(|at| at.file == opening.start.file && at.offset <= reached)
            });
            let what = damaged_end(*later);
            match again {
                Some((_, piece)) => {
                    let what =
                        format!("{what}; what is behind it came again in {}: nothing is lost", piece.segment);
                    self.found.note(&segment.name, what);
                }
                None => self.found.bad_segment([*id], &segment.name, Some(segment.frames_end), what),
            }
        }
    }

    fn stream(
        &self,
        key: &StreamKey,
        pieces: &BTreeMap<u64, Piece<'a>>,
        name: &str,
        stretches: &mut Vec<Stretch<'a>>,
    ) -> StreamVerdict {
        let mut breaks = Vec::new();
        let mut before: Option<(u64, &Piece<'_>)> = None;
        let mut right: Stretch<'a> = Stretch { stream: *key, spans: Vec::new(), ends: None };
        for (number, piece) in pieces {
            let stretch = format!("the log of {name}, segment {number} ({})", span(piece));
            let mut own = Vec::new();
            self.piece(key, *number, piece, &stretch, &mut own);
            let mut joint = Vec::new();
            if let Some((previous, earlier)) = before {
                self.joint(key, (previous, earlier), (*number, piece), name, &mut joint);
            }
            if let Some(why) = joint.first().or(own.first()) {
                let next = Stretch { stream: *key, spans: Vec::new(), ends: None };
                let done = std::mem::replace(&mut right, next);
                stretches.extend(
                    Some(Stretch { ends: Some(why.clone()), ..done }).filter(|s| !s.spans.is_empty()),
                );
            }
            if let Some(start) = start(piece).filter(|_| own.is_empty()) {
                right.spans.push(Span { start, sealed: piece.sealed });
            }
            breaks.extend(own.into_iter().chain(joint));
            before = Some((*number, piece));
        }
        for gap in self.gaps.iter().filter(|g| g.stream == *key) {
            breaks.push(format!("gap after {}: {}", place(&gap.after), gap.reason));
            right.ends = Some(gap.reason.clone());
        }
        stretches.extend(Some(right).filter(|s| !s.spans.is_empty()));
        StreamVerdict {
            stream: name.to_owned(),
            segments: pieces.len() as u64,
            covers: pieces.values().next().zip(pieces.values().next_back()).map_or(
                String::new(),
                |(first, last)| {
                    format!(
                        "{} to {}",
                        start(first).map_or("?".into(), place),
                        end(last).map_or("now".into(), place)
                    )
                },
            ),
            breaks,
        }
    }

    /// One segment: there, and what the manifest says it is.
    fn piece(
        &self,
        key: &StreamKey,
        number: u64,
        piece: &Piece<'_>,
        stretch: &str,
        breaks: &mut Vec<String>,
    ) {
        let object = format!("logs/{}", piece.segment);
        for no in self.found.of_segment(piece.segment) {
            self.found.affects(no, stretch.to_owned());
            breaks.push(format!("segment {number} is damaged ({})", span(piece)));
        }
        let Some(record) = piece.sealed else { return };
        let mut wrong = Vec::new();
        match self.index.carrier(piece.segment) {
            // A segment that could not be opened was reported as such.
            None if !self.found.of_segment(piece.segment).is_empty() => {}
            None => wrong.push("a record says it is sealed, and it is missing".to_owned()),
            Some(segment) if matches!(segment.end, End::Open { .. }) => {
                wrong.push("a record says it is sealed, and it has no trailer".to_owned());
            }
            Some(_) => {}
        }
        if let Some(opening) = piece.opening {
            if opening.stream != *key || opening.number != number {
                wrong.push(format!(
                    "it opens as segment {} of its stream, not as the record says",
                    opening.number
                ));
            }
            if !same_place(&opening.start, &record.first) {
                let (at, said) = (place(&opening.start), place(&record.first));
                wrong.push(format!("it opens at {at}, its record says {said}"));
            }
        }
        for what in wrong {
            let no = self.found.flaw(&object, None, what);
            self.found.affects(no, stretch.to_owned());
            breaks.push(format!("segment {number} is damaged ({})", span(piece)));
        }
    }

    /// Two neighbours: the later one begins where the earlier one ends, unless a record tells of the gap.
    fn joint(
        &self,
        key: &StreamKey,
        (previous, earlier): (u64, &Piece<'_>),
        (number, later): (u64, &Piece<'_>),
        name: &str,
        breaks: &mut Vec<String>,
    ) {
        let Some(record) = earlier.sealed else { return };
        let told = self.gaps.iter().any(|g| g.stream == *key && same_place(&g.after, &record.last));
        let what = if previous.saturating_add(1) != number {
            Some(format!(
                "segments {} to {} are missing",
                previous.saturating_add(1),
                number.saturating_sub(1)
            ))
        } else {
            let gtid = later.sealed.map(|l| &l.gtid_before).or(later.opening.map(|o| &o.start.gtid));
            let ends = place(&record.last);
            match gtid {
                Some(gtid) if *gtid != record.gtid_after => {
                    let (had, has) = (&record.gtid_after, gtid);
                    Some(format!(
                        "segment {previous} ends with {had} executed, segment {number} begins with {has}"
                    ))
                }
                _ => match start(later) {
                    Some(begins)
                        if begins.file == record.last.file && begins.offset != record.last.offset =>
                    {
                        Some(format!(
                            "segment {previous} ends at {ends}, segment {number} begins at {}",
                            place(begins)
                        ))
                    }
                    _ => None,
                },
            }
        };
        if let Some(what) = what.filter(|_| !told) {
            let no = self.found.flaw(format!("logs/{}", later.segment), None, format!("{name}: {what}"));
            self.found
                .affects(no, format!("every restore of {name} to a moment after {}", place(&record.last)));
            breaks.push(what);
        }
    }
}

fn start<'a>(piece: &Piece<'a>) -> Option<&'a Position> {
    piece.sealed.map(|r| &r.first).or(piece.opening.map(|o| &o.start))
}

fn end<'a>(piece: &Piece<'a>) -> Option<&'a Position> {
    piece.sealed.map(|r| &r.last)
}

fn span(piece: &Piece<'_>) -> String {
    let from = start(piece).map_or("an unknown place".to_owned(), place);
    let to = end(piece).map_or("its open end".to_owned(), place);
    format!("{from} to {to}")
}

/// Same file and offset; two places in files of unknown name are told apart by GTID only.
fn same_place(a: &Position, b: &Position) -> bool {
    a.file == b.file && a.offset == b.offset && (!a.file.is_empty() || a.gtid == b.gtid)
}

pub(crate) fn place(at: &Position) -> String {
    match (at.file.is_empty(), at.gtid.is_empty()) {
        (false, _) => format!("{}:{}", at.file, at.offset),
        (true, false) => at.gtid.to_string(),
        (true, true) => format!("offset {}", at.offset),
    }
}
