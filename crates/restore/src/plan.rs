//! The plan of a restore: everything that can be said before anything is touched.
//!
//! The newest base is taken whose upper bound lies at or before the target: a copy of which only
//! the bracket `lo..hi` is known might hold everything up to `hi`, and replay goes forward only.

use holdfast_format::record::{Coordinates, Position};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::scope::Part;
use crate::seam::{Base, Border, Gap, Log, LogSize, Place, Side, Target, TransactionFacts, time};

/// Space for undo, redo and what replay adds, beside the files themselves: the log's bytes twice
/// (rows in pages and their undo), and this much for redo and temporary files.
const SPARE_BYTES: u64 = 512 << 20;

/// A plan. It can be printed, and it is what `run` carries out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// The target as the user gave it.
    pub target: String,
    /// The base's id.
    pub base: String,
    /// When it was finished, RFC 3339.
    pub base_finished: String,
    /// Its files.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Where the base stands, in words.
    pub base_stands_at: String,
    /// The version that the server must have.
    pub version: Option<String>,
    /// The range of log; none when nothing is replayed.
    pub log: Option<LogRange>,
    /// The last transaction that the restored server holds, if the plan can tell.
    pub last_kept: Option<TransactionFacts>,
    /// The first transaction that it does not hold, if there is one.
    pub first_left_out: Option<TransactionFacts>,
    /// Bytes that must be free in the target's file system.
    pub space_needed: u64,
    /// What the restored server will not have or do, a sentence each.
    pub not_restored: Vec<String>,
    /// Bases that were passed over, and why.
    pub passed_over: Vec<String>,
    /// Of a restore of some tables: which, and what that saves.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part: Option<Part>,
}

/// The stretch of log to be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct LogRange {
    /// Reading starts here: the lower bound of the base.
    pub from: Place,
    /// The first byte left out.
    pub until: Place,
    /// How much it is, the transactions that the base holds already included.
    pub size: LogSize,
}

/// Makes the plan. Returns the index of the base in `bases` with it.
pub fn plan(bases: &[&dyn Base], log: &dyn Log, target: &Target) -> Result<(usize, Plan)> {
    let mut newest_first: Vec<usize> = (0..bases.len()).collect();
    newest_first.sort_by_key(|&index| bases.get(index).map(|base| std::cmp::Reverse(base.finished_us())));
    let as_it_is = match target {
        Target::Fastest => Some(newest_first.first().copied()),
        Target::Backup(id) => Some(bases.iter().position(|base| base.id() == *id)),
        _ => None,
    };
    if let Some(index) = as_it_is {
        let Some(index) = index else { return Err(no_base(target)) };
        let Some(base) = bases.get(index) else { return Err(no_base(target)) };
        return Ok((index, describe(*base, target, None, None, Vec::new())));
    }
    if bases.is_empty() {
        return Err(no_base(target));
    }
    let border = match log.resolve(target).map_err(Error::Log)? {
        Ok(border) => border,
        Err(gap) => {
            let nearest = nearest(bases, log, &gap)?;
            return Err(unreachable(target, gap.reason, nearest));
        }
    };
    let mut passed_over = Vec::new();
    let mut hole = None;
    for index in newest_first {
        let Some(base) = bases.get(index).copied() else { continue };
        let (lo, hi) = match base.coordinates() {
            Coordinates::None => {
                passed_over.push(format!("{}: it has no place in the log", base.id()));
                continue;
            }
            Coordinates::Exact(at) => (at, at),
            Coordinates::Between { lo, hi } => (lo, hi),
        };
        let place = |at| log.place_of_base(at, base).map_err(Error::Log);
        let (Some(from), Some(to)) = (place(lo)?, place(hi)?) else {
            passed_over.push(format!("{}: the log does not reach back to {}", base.id(), words(lo)));
            continue;
        };
        if to > border.place {
            passed_over.push(format!("{}: it may hold transactions after the target", base.id()));
            continue;
        }
        if let Some(gap) = log.gap(from, border.place).map_err(Error::Log)? {
            passed_over.push(format!("{}: the log after it has a hole: {}", base.id(), gap.reason));
            hole.get_or_insert(gap);
            continue;
        }
        let size = log.size(from, border.place).map_err(Error::Log)?;
        let range = LogRange { from, until: border.place, size };
        return Ok((index, describe(base, target, Some(range), Some(border), passed_over)));
    }
    let (why, nearest) = match hole {
        Some(gap) => (format!("the log has a hole before it: {}", gap.reason), nearest(bases, log, &gap)?),
        None => {
            let oldest = bases.iter().copied().min_by_key(|base| base.finished_us());
            let first = oldest.map(|base| time(base.finished_us()));
            ("it lies before the first backup".to_owned(), [None, first])
        }
    };
    Err(unreachable(target, format!("{why} ({})", passed_over.join("; ")), nearest))
}

/// The points at the two edges of a gap, as far as a base leads there; behind it, else the first base.
fn nearest(bases: &[&dyn Base], log: &dyn Log, gap: &Gap) -> Result<[Option<String>; 2]> {
    let mut found = [None, None];
    if let Some(before) = &gap.before
        && leads_to(bases, log, before)?
    {
        found[0] = Some(option_words(before));
    }
    let Some(after) = &gap.after else { return Ok(found) };
    if leads_to(bases, log, after)? {
        found[1] = Some(option_words(after));
        return Ok(found);
    }
    let Ok(edge) = log.resolve(after).map_err(Error::Log)? else { return Ok(found) };
    let mut later = Vec::new();
    for base in bases {
        let (Coordinates::Exact(at) | Coordinates::Between { lo: at, .. }) = base.coordinates() else {
            continue;
        };
        if log.place_of_base(at, *base).map_err(Error::Log)?.is_some_and(|place| place >= edge.place) {
            later.push(base.finished_us());
        }
    }
    found[1] = later.into_iter().min().map(time);
    Ok(found)
}

/// Can some base be rolled forward to this point?
fn leads_to(bases: &[&dyn Base], log: &dyn Log, point: &Target) -> Result<bool> {
    let Ok(border) = log.resolve(point).map_err(Error::Log)? else { return Ok(false) };
    for base in bases {
        let (lo, hi) = match base.coordinates() {
            Coordinates::None => continue,
            Coordinates::Exact(at) => (at, at),
            Coordinates::Between { lo, hi } => (lo, hi),
        };
        let place = |at| log.place_of_base(at, *base).map_err(Error::Log);
        if let (Some(from), Some(to)) = (place(lo)?, place(hi)?)
            && to <= border.place
            && log.gap(from, border.place).map_err(Error::Log)?.is_none()
        {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A point as the options of `restore` take it.
fn option_words(point: &Target) -> String {
    match point {
        Target::Transaction { id, side: Side::Before } => format!("--before {id}"),
        Target::Transaction { id, side: Side::After } => format!("--after {id}"),
        Target::Position { file, offset, .. } => format!("--to pos:{file}:{offset}"),
        Target::GtidSet { set, life: None } => format!("--to gtid-set:{set}"),
        Target::GtidSet { set, life: Some(life) } => format!("--to gtid-set:{set}@{life}"),
        Target::Time(at) => time(*at),
        Target::Latest => "--to latest".to_owned(),
        Target::Fastest => "--to fastest".to_owned(),
        Target::Backup(id) => format!("--to backup:{id}"),
    }
}

fn no_base(target: &Target) -> Error {
    let why = match target {
        Target::Backup(_) => "the server has no such backup",
        _ => "there is no backup yet",
    };
    unreachable(target, why.to_owned(), [None, None])
}

fn unreachable(target: &Target, why: String, nearest: [Option<String>; 2]) -> Error {
    Error::Unreachable { target: target.to_string(), why, nearest: nearest.into_iter().flatten().collect() }
}

fn describe(
    base: &dyn Base,
    target: &Target,
    range: Option<LogRange>,
    border: Option<Border>,
    passed_over: Vec<String>,
) -> Plan {
    let replayed = range.map_or(0, |range| range.size.bytes);
    let mut not_restored = base.warnings();
    not_restored.push(
        "Scheduled events stay off and the server stays read-only until `holdfast restore finish`."
            .to_owned(),
    );
    not_restored.push(
        "The server's configuration file, TLS keys and plugins' files are not part of a backup.".to_owned(),
    );
    let (last_kept, first_left_out) = border.map_or((None, None), |b| (b.last_kept, b.first_left_out));
    Plan {
        target: target.to_string(),
        base: base.id(),
        base_finished: time(base.finished_us()),
        files: base.files(),
        bytes: base.bytes(),
        base_stands_at: coordinates_words(base.coordinates()),
        version: base.fact("version").map(str::to_owned),
        log: range,
        last_kept,
        first_left_out,
        space_needed: base.bytes().saturating_add(replayed.saturating_mul(2)).saturating_add(SPARE_BYTES),
        not_restored,
        passed_over,
        part: None,
    }
}

/// A place in a server's history for people.
#[must_use]
pub fn words(position: &Position) -> String {
    let gtid = position.gtid.to_string();
    match (position.file.is_empty(), gtid.is_empty()) {
        (true, _) => gtid,
        (false, true) => format!("{}:{}", position.file, position.offset),
        (false, false) => format!("{}:{} ({gtid})", position.file, position.offset),
    }
}

/// The same for a base's coordinates.
#[must_use]
pub fn coordinates_words(coordinates: &Coordinates) -> String {
    match coordinates {
        Coordinates::None => "no place in a log".to_owned(),
        Coordinates::Exact(at) => words(at),
        Coordinates::Between { lo, hi } if lo == hi => words(lo),
        Coordinates::Between { lo, hi } => {
            format!("between {} and {}; its first start tells where", words(lo), words(hi))
        }
    }
}

#[cfg(test)]
mod tests;
