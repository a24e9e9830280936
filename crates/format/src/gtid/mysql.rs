//! MySQL's GTID sets: intervals of transaction numbers per source and tag.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::wire::{self, Reader};
use super::{GNO_MAX, GtidError, INTERVALS_MAX, TSIDS_MAX, Uuid};

/// A tag as MySQL 8.3 and later know it: `[a-z_][a-z0-9_]{0,31}`, or empty for none.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tag(String);

impl Tag {
    /// The tag's text; empty for none.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Is there no tag?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A tag that is already in the server's normal form, or empty.
    pub(super) fn exact(text: &str) -> Option<Self> {
        let first_ok = text.bytes().next().is_none_or(|b| b.is_ascii_lowercase() || b == b'_');
        let rest_ok = text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_');
        (first_ok && rest_ok && text.len() <= 32).then(|| Self(text.to_owned()))
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl FromStr for Tag {
    type Err = GtidError;

    /// Upper case is folded, as the server does.
    fn from_str(text: &str) -> Result<Self, GtidError> {
        Self::exact(&text.trim().to_ascii_lowercase()).ok_or_else(|| GtidError::text("a GTID tag", text))
    }
}

/// A source: a server's UUID and a tag.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Tsid {
    /// The server's UUID.
    pub sid: Uuid,
    /// The tag; empty for none.
    pub tag: Tag,
}

impl fmt::Display for Tsid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.sid)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag.as_str())?;
        }
        Ok(())
    }
}

/// Transaction numbers `first ..= last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Interval {
    /// First number, at least 1.
    pub first: u64,
    /// Last number, at least `first`, at most [`GNO_MAX`].
    pub last: u64,
}

pub(super) fn parse_gno(text: &str) -> Option<u64> {
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    text.parse().ok().filter(|gno| (1..=GNO_MAX).contains(gno))
}

/// A set of transactions: sorted, disjoint, non-adjacent intervals per source.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct MySqlGtidSet {
    sources: BTreeMap<Tsid, Vec<Interval>>,
}

impl MySqlGtidSet {
    /// Is nothing in it?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Each source with its intervals, in the order of UUID and tag.
    pub fn iter(&self) -> impl Iterator<Item = (&Tsid, &[Interval])> {
        self.sources.iter().map(|(tsid, runs)| (tsid, runs.as_slice()))
    }

    /// The intervals of one source.
    #[must_use]
    pub fn intervals(&self, tsid: &Tsid) -> &[Interval] {
        self.sources.get(tsid).map_or(&[], Vec::as_slice)
    }

    /// The number of transactions in the set, at most `u64::MAX`.
    #[must_use]
    pub fn count(&self) -> u64 {
        let lengths = self.sources.values().flatten().map(|run| run.last - run.first + 1);
        lengths.fold(0, u64::saturating_add)
    }

    /// Is the transaction in the set?
    #[must_use]
    pub fn contains(&self, tsid: &Tsid, gno: u64) -> bool {
        let runs = self.intervals(tsid);
        let after = runs.partition_point(|run| run.first <= gno);
        after.checked_sub(1).and_then(|i| runs.get(i)).is_some_and(|run| gno <= run.last)
    }

    /// Adds one transaction. Appending in commit order costs no search.
    pub fn add(&mut self, tsid: &Tsid, gno: u64) {
        if let Some(last) = self.sources.get_mut(tsid).and_then(|runs| runs.last_mut())
            && gno == last.last + 1
        {
            last.last = gno;
            return;
        }
        self.add_interval(tsid, Interval { first: gno, last: gno });
    }

    /// Adds an interval; one with `last < first` is empty and adds nothing.
    pub fn add_interval(&mut self, tsid: &Tsid, add: Interval) {
        if add.last < add.first || add.first == 0 {
            return;
        }
        let runs = match self.sources.get_mut(tsid) {
            Some(runs) => runs,
            None => self.sources.entry(tsid.clone()).or_default(),
        };
        // Everything from `from` to `to` overlaps or touches the new interval.
        let from = runs.partition_point(|run| run.last.saturating_add(1) < add.first);
        let to = runs.partition_point(|run| run.first <= add.last.saturating_add(1));
        let mut merged = add;
        for run in runs.get(from..to).unwrap_or_default() {
            merged.first = merged.first.min(run.first);
            merged.last = merged.last.max(run.last);
        }
        runs.splice(from..to.max(from), [merged]);
    }

    /// Adds everything that `other` has.
    pub fn union(&mut self, other: &Self) {
        for (tsid, runs) in &other.sources {
            for run in runs {
                self.add_interval(tsid, *run);
            }
        }
    }

    /// Takes away everything that `other` has.
    pub fn subtract(&mut self, other: &Self) {
        for (tsid, minus) in &other.sources {
            let Some(runs) = self.sources.get_mut(tsid) else { continue };
            let mut kept = Vec::with_capacity(runs.len());
            let mut next = minus.iter().peekable();
            for run in runs.iter() {
                let mut first = run.first;
                while next.peek().is_some_and(|cut| cut.last < first) {
                    next.next();
                }
                let mut consumed = false;
                for cut in next.clone() {
                    if cut.first > run.last {
                        break;
                    }
                    if cut.first > first {
                        kept.push(Interval { first, last: cut.first - 1 });
                    }
                    first = cut.last + 1;
                    if cut.last >= run.last {
                        consumed = true;
                        break;
                    }
                }
                if !consumed && first <= run.last {
                    kept.push(Interval { first, last: run.last });
                }
            }
            *runs = kept;
        }
        self.sources.retain(|_, runs| !runs.is_empty());
    }

    /// Do both have a transaction in common?
    #[must_use]
    pub fn intersects(&self, other: &Self) -> bool {
        self.sources.iter().any(|(tsid, runs)| {
            let theirs = other.intervals(tsid);
            runs.iter().any(|run| {
                let at = theirs.partition_point(|t| t.last < run.first);
                theirs.get(at).is_some_and(|t| t.first <= run.last)
            })
        })
    }

    /// Is all of this in `other`?
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.sources.iter().all(|(tsid, runs)| {
            let theirs = other.intervals(tsid);
            runs.iter().all(|run| {
                let at = theirs.partition_point(|t| t.last < run.first);
                theirs.get(at).is_some_and(|t| t.first <= run.first && run.last <= t.last)
            })
        })
    }

    /// The server's binary form, as in `PREVIOUS_GTIDS_LOG_EVENT` and
    /// `COM_BINLOG_DUMP_GTID`. Without any tag: u64 number of sources, then 16 bytes UUID,
    /// u64 number of intervals, u64 first and u64 last + 1 of each. With tags (MySQL 8.3
    /// and later): the number of sources stands in bytes 1..7 of the first u64 whose
    /// first and last byte are 1, and each UUID is followed by the tag, its length doubled
    /// in one byte (the serialization library's variable length). Observed on 9.7.4.
    #[must_use]
    pub fn to_server_bytes(&self) -> Vec<u8> {
        let tagged = self.sources.keys().any(|tsid| !tsid.tag.is_empty());
        let count = self.sources.len() as u64;
        let mut out = Vec::with_capacity(8 + self.sources.len() * 48);
        let head = if tagged { (1 << 56) | (count << 8) | 1 } else { count };
        out.extend_from_slice(&head.to_le_bytes());
        for (tsid, runs) in &self.sources {
            out.extend_from_slice(&tsid.sid.0);
            if tagged {
                out.push((tsid.tag.as_str().len() as u8) << 1);
                out.extend_from_slice(tsid.tag.as_str().as_bytes());
            }
            out.extend_from_slice(&(runs.len() as u64).to_le_bytes());
            for run in runs {
                out.extend_from_slice(&run.first.to_le_bytes());
                out.extend_from_slice(&(run.last + 1).to_le_bytes());
            }
        }
        out
    }

    /// Reads the server's binary form, see [`MySqlGtidSet::to_server_bytes`].
    ///
    /// # Errors
    /// Fails on cut bytes, bytes left over, unordered intervals, and beyond the limits.
    pub fn from_server_bytes(bytes: &[u8]) -> Result<Self, GtidError> {
        let mut r = Reader::new(bytes);
        let head = r.u64_le("the number of sources")?;
        let format = head >> 56;
        let (tagged, count) = match format {
            0 => (false, head),
            1 => (true, (head >> 8) & 0xffff_ffff_ffff),
            other => return Err(r.bad("GTID set format 0 or 1", other)),
        };
        let count = r.count(count, TSIDS_MAX, "sources", 24)?;
        let mut set = Self::default();
        let mut total = 0usize;
        for _ in 0..count {
            let sid = r.uuid()?;
            let tag = if tagged {
                let len = r.u8("the length of a tag")?;
                if len & 1 != 0 {
                    return Err(r.bad("a tag length of one byte", len));
                }
                r.tag(usize::from(len >> 1))?
            } else {
                Tag::default()
            };
            let tsid = Tsid { sid, tag };
            let runs = r.u64_le("the number of intervals")?;
            let runs = r.count(runs, INTERVALS_MAX.saturating_sub(total), "intervals", 16)?;
            total += runs;
            let mut before = 0;
            for _ in 0..runs {
                let first = r.u64_le("the first number of an interval")?;
                let end = r.u64_le("the end of an interval")?;
                if first <= before || end <= first || end > GNO_MAX + 1 {
                    return Err(r.bad("rising intervals of transaction numbers", format!("{first}..{end}")));
                }
                before = end;
                set.add_interval(&tsid, Interval { first, last: end - 1 });
            }
        }
        if r.left() > 0 {
            return Err(r.bad("the end of the set", format!("{} more bytes", r.left())));
        }
        Ok(set)
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        wire::put_leb(out, self.sources.len() as u64);
        for (tsid, runs) in &self.sources {
            wire::put_tsid(out, tsid);
            wire::put_leb(out, runs.len() as u64);
            let mut end = 0;
            for run in runs {
                wire::put_leb(out, run.first - end);
                wire::put_leb(out, run.last - run.first);
                end = run.last;
            }
        }
    }

    pub(super) fn take(r: &mut Reader<'_>) -> Result<Self, GtidError> {
        let count = r.leb("the number of sources")?;
        let count = r.count(count, TSIDS_MAX, "sources", 20)?;
        let mut set = Self::default();
        let mut total = 0usize;
        for _ in 0..count {
            let tsid = r.tsid()?;
            if set.sources.last_key_value().is_some_and(|(last, _)| *last >= tsid) {
                return Err(r.bad("sources in rising order", tsid));
            }
            let runs = r.leb("the number of intervals")?;
            let runs = r.count(runs, INTERVALS_MAX.saturating_sub(total), "intervals", 2)?;
            if runs == 0 {
                return Err(r.bad("at least one interval", 0));
            }
            total += runs;
            let mut out = Vec::with_capacity(runs);
            let mut end = 0u64;
            for i in 0..runs {
                let gap = r.leb("the distance to an interval")?;
                let length = r.leb("the length of an interval")?;
                let first = end.saturating_add(gap);
                let last = first.saturating_add(length);
                // Two intervals that touch are one; a set has one encoding.
                if gap < if i == 0 { 1 } else { 2 } || last > GNO_MAX {
                    return Err(r.bad("separate intervals below 2^63", format!("{first}-{last}")));
                }
                out.push(Interval { first, last });
                end = last;
            }
            set.sources.insert(tsid, out);
        }
        Ok(set)
    }
}

impl fmt::Display for MySqlGtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut current: Option<Uuid> = None;
        for (tsid, runs) in &self.sources {
            if current != Some(tsid.sid) {
                if current.is_some() {
                    f.write_str(",")?;
                }
                write!(f, "{}", tsid.sid)?;
                current = Some(tsid.sid);
            }
            if !tsid.tag.is_empty() {
                write!(f, ":{}", tsid.tag.as_str())?;
            }
            for run in runs {
                write!(f, ":{}", run.first)?;
                if run.last > run.first {
                    write!(f, "-{}", run.last)?;
                }
            }
        }
        Ok(())
    }
}

impl FromStr for MySqlGtidSet {
    type Err = GtidError;

    fn from_str(text: &str) -> Result<Self, GtidError> {
        const EXPECTED: &str = "a GTID set like uuid:1-5:7,uuid:tag:1-3";
        let mut set = Self::default();
        let mut total = 0usize;
        for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let mut pieces = part.split(':').map(str::trim);
            let sid: Uuid = pieces.next().unwrap_or_default().parse()?;
            let mut tsid = Tsid { sid, tag: Tag::default() };
            let mut named = false;
            for piece in pieces {
                if !piece.starts_with(|c: char| c.is_ascii_digit()) {
                    tsid.tag = piece.parse()?;
                    if tsid.tag.is_empty() {
                        return Err(GtidError::text(EXPECTED, part));
                    }
                    continue;
                }
                let (first, last) = piece.split_once('-').unwrap_or((piece, piece));
                let number = |s: &str| s.trim().parse::<u64>().ok().filter(|gno| *gno <= GNO_MAX);
                let bad = || GtidError::text(EXPECTED, part);
                let (first, last) = (number(first).ok_or_else(bad)?, number(last).ok_or_else(bad)?);
                if first == 0 {
                    return Err(bad());
                }
                total += 1;
                if total > INTERVALS_MAX {
                    let (got, limit) = (total as u64, INTERVALS_MAX as u64);
                    return Err(GtidError::TooLarge { what: "intervals", got, limit });
                }
                named = true;
                set.add_interval(&tsid, Interval { first, last });
            }
            if !named {
                return Err(GtidError::text(EXPECTED, part));
            }
        }
        Ok(set)
    }
}
