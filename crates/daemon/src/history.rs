//! What the board said, minute by minute, for 30 days: what the page's charts are drawn from.
//!
//! Each server has a file of its own in the daemon's state, of a size that never changes (`history/ring.rs` has the
//! format), and the repository has one. A minute in which the daemon did not run, or could not look, is not known: it
//! is a hole in the chart, not a line across it.

pub mod ring;
pub mod series;

use crate::board::{Board, Level, ServerBoard};
use crate::daemon::Daemon;
use crate::files::private_folder;
use crate::jobs::Standing;
use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::policy::DAY;
use holdfast_appliance::time::{Micros, now};
use ring::{MINUTES, Ring, VALUES, Values};
use series::{Gathered, Grid, Series};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Microseconds of a minute.
const MINUTE: Micros = 60_000_000;
/// How often it is asked whether a minute has begun.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A board older than this says nothing of now.
const BOARD_AGE_MAX: Micros = 5 * MINUTE;
/// Most points of one answer.
pub const POINTS_MAX: u32 = 2000;

/// What is kept of a server. The order is that of the files: a new one goes behind the others.
pub const OF_SERVER: &[&str] = &[
    "lag_seconds",
    "rpo_seconds",
    "restorable_seconds",
    "level",
    "jobs_running",
    "failed_tries",
    "stored_bytes",
    "log_bytes",
    "transactions_per_second",
    "estimate_seconds",
    "holes",
    "backups",
];
/// What is kept of the repository.
pub const OF_REPOSITORY: &[&str] =
    &["stored_bytes", "data_bytes", "free_bytes", "backups", "jobs_running", "jobs_queued", "servers_red"];
const _: () = assert!(OF_SERVER.len() <= VALUES && OF_REPOSITORY.len() <= VALUES);

/// Whose history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of<'a> {
    /// A server's.
    Server(&'a str),
    /// The repository's.
    Repository,
}

impl Of<'_> {
    /// The metrics that are kept.
    #[must_use]
    pub fn metrics(&self) -> &'static [&'static str] {
        match self {
            Self::Server(_) => OF_SERVER,
            Self::Repository => OF_REPOSITORY,
        }
    }

    /// A server's name may hold anything: the file is called by its hash.
    fn file(&self, dir: &Path) -> PathBuf {
        match self {
            Self::Server(name) => {
                let hash = blake3::hash(name.as_bytes()).to_hex();
                dir.join(format!("server-{}.ring", hash.as_str().chars().take(32).collect::<String>()))
            }
            Self::Repository => dir.join("repository.ring"),
        }
    }
}

/// The files, for whoever writes them.
#[derive(Debug)]
pub struct Writer {
    dir: PathBuf,
    open: BTreeMap<PathBuf, Ring>,
}

impl Writer {
    /// Writes into the folder of this state.
    ///
    /// # Errors
    /// `Failed` when the folder can't be made.
    pub fn open(state: &Path) -> Result<Self> {
        let dir = folder(state);
        private_folder(&dir)?;
        Ok(Self { dir, open: BTreeMap::new() })
    }

    /// Keeps one minute's values, in the order of [`Of::metrics`]; `None` is not known.
    ///
    /// # Errors
    /// `Failed` with the file's name.
    pub fn put(&mut self, of: Of<'_>, at: Micros, values: &[Option<f64>]) -> Result<()> {
        let path = of.file(&self.dir);
        let mut kept: Values = [f32::NAN; VALUES];
        for (to, value) in kept.iter_mut().zip(values) {
            *to = value.map_or(f32::NAN, |value| value as f32);
        }
        let failed = |error: std::io::Error| {
            Error::failed(format!("The history {} can't be written: {error}.", path.display()))
        };
        // A removed file is no file of ours any more.
        let there = self.open.contains_key(&path) && path.exists();
        if !there {
            self.open.insert(path.clone(), Ring::open(&path).map_err(failed)?);
        }
        self.open.get(&path).map_or(Ok(()), |ring| ring.put(minute(at), &kept)).map_err(failed)
    }

    /// Removes the files that nobody has written for 30 days: of servers that are gone.
    fn sweep(&self) {
        let old = Duration::from_secs(60 * u64::from(MINUTES));
        for entry in std::fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            let written = entry.metadata().and_then(|meta| meta.modified()).ok();
            let age = written.and_then(|at| at.elapsed().ok());
            if age.is_some_and(|age| age > old) && entry.path().extension().is_some_and(|e| e == "ring") {
                let _ = std::fs::remove_file(entry.path());
            }
        }
    }
}

fn folder(state: &Path) -> PathBuf {
    state.join("history")
}

fn minute(at: Micros) -> u32 {
    u32::try_from(at.div_euclid(MINUTE)).unwrap_or(0)
}

/// What was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// Names of [`Of::metrics`].
    pub metrics: Vec<String>,
    /// The first moment.
    pub from: Micros,
    /// The last one.
    pub to: Micros,
    /// At most so many points.
    pub points: u32,
}

/// An answer: point `i` of each series covers `step_seconds` from `from + i * step_seconds` on.
#[derive(Clone, Debug, serde::Serialize)]
pub struct View {
    /// The first minute, which is no earlier than 30 days before the last.
    #[serde(serialize_with = "crate::jobs::time")]
    pub from: Micros,
    /// The last one.
    #[serde(serialize_with = "crate::jobs::time")]
    pub to: Micros,
    /// Seconds of one point: whole minutes.
    pub step_seconds: u32,
    /// In the order that was asked for.
    pub series: Vec<Series>,
}

/// Reads what is kept.
///
/// # Errors
/// `Usage` for a metric that is not kept, or a stretch that ends before it begins; `Failed` when the file can't be read.
pub fn look(state: &Path, of: Of<'_>, asked: &Asked) -> Result<View> {
    if asked.to < asked.from {
        return Err(Error::usage("'to' is before 'from'."));
    }
    if !(1..=POINTS_MAX).contains(&asked.points) {
        return Err(Error::usage(format!("'points' must be 1 to {POINTS_MAX}.")));
    }
    let names = of.metrics();
    let mut chosen = Vec::new();
    for name in &asked.metrics {
        let found = names.iter().enumerate().find(|(_, known)| *known == name);
        let (place, known) = found.ok_or_else(|| {
            Error::usage(format!("No history is kept of '{name}'."))
                .with_next(format!("use one of {}", names.join(", ")))
        })?;
        chosen.push((*known, place));
    }
    let to = minute(asked.to);
    let from = minute(asked.from).max(to.saturating_sub(MINUTES - 1));
    let grid = Grid::new(from, to, asked.points);
    let mut gathered = Gathered::new(grid, &chosen);
    let path = of.file(&folder(state));
    ring::read(&path, from, to, |minute, values| gathered.add(minute, values))
        .map_err(|error| Error::failed(format!("The history {} can't be read: {error}.", path.display())))?;
    Ok(View {
        from: Micros::from(from) * MINUTE,
        to: Micros::from(to) * MINUTE,
        step_seconds: grid.step * 60,
        series: gathered.series(),
    })
}

/// What was kept of one day.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Day {
    /// Minutes of it that are known.
    pub minutes: u32,
    /// Minutes of them in which the server was red.
    pub red: u32,
    /// The most that would have been missing.
    pub rpo_max: Option<f32>,
}

/// By the first moment of each day (UTC) of which anything is known.
///
/// # Errors
/// `Failed` when the file can't be read.
pub fn daily(state: &Path, of: Of<'_>, from: Micros, to: Micros) -> Result<BTreeMap<Micros, Day>> {
    let place = |name: &str| of.metrics().iter().position(|known| *known == name).unwrap_or(usize::MAX);
    let (level, rpo) = (place("level"), place("rpo_seconds"));
    let mut days: BTreeMap<Micros, Day> = BTreeMap::new();
    let path = of.file(&folder(state));
    let read = ring::read(&path, minute(from), minute(to), |minute, values| {
        let at = Micros::from(minute) * MINUTE;
        let day = days.entry(at.div_euclid(DAY.0) * DAY.0).or_default();
        day.minutes += 1;
        day.red += u32::from(values.get(level).is_some_and(|level| *level >= 2.0));
        if let Some(rpo) = values.get(rpo).filter(|rpo| rpo.is_finite()) {
            day.rpo_max = Some(day.rpo_max.map_or(*rpo, |most| most.max(*rpo)));
        }
    });
    read.map_err(|error| Error::failed(format!("The history {} can't be read: {error}.", path.display())))?;
    Ok(days)
}

/// Writes a record a minute until the daemon ends; the first one as soon as there is a board.
pub(crate) fn run(daemon: &Arc<Daemon>) {
    let mut said = String::new();
    let mut once = |error: Error| {
        if said != error.message {
            tracing::warn!("{}", error.message);
            said = error.message;
        }
    };
    let mut writer = None;
    let mut rates = Rates::default();
    let mut last = None;
    while daemon.sleep(LOOK_EVERY) {
        let (at, board) = (now(), daemon.look());
        let stale = board.at == 0 || at.saturating_sub(board.at) > BOARD_AGE_MAX;
        if last == Some(minute(at)) || stale {
            continue;
        }
        if writer.is_none() {
            // Its folder could not be made, on a full disk say; each minute may be another matter.
            writer = Writer::open(&daemon.config().state).map_err(&mut once).ok();
        }
        let Some(writer) = writer.as_mut() else { continue };
        if last.is_none_or(|last| last / MINUTES != minute(at) / MINUTES) {
            writer.sweep();
        }
        last = Some(minute(at));
        if let Err(error) = keep(daemon, writer, &board, &mut rates, at) {
            once(error);
        }
    }
}

fn keep(daemon: &Daemon, writer: &mut Writer, board: &Board, rates: &mut Rates, at: Micros) -> Result<()> {
    let jobs = daemon.state.read(|content| {
        let open = content.jobs.iter().filter(|job| !job.standing.ended());
        open.map(|job| (job.work.server().map(str::to_owned), job.standing)).collect::<Vec<_>>()
    });
    let count = |standing: Standing, server: Option<&str>| {
        let of =
            jobs.iter().filter(|(of, s)| *s == standing && (server.is_none() || of.as_deref() == server));
        Some(of.count() as f64)
    };
    let repository = &board.repository;
    let red = board.servers.iter().filter(|s| s.level == Level::Red).count();
    let values = [
        Some(repository.stored_bytes as f64),
        Some(repository.data_bytes as f64),
        Some(repository.free_bytes as f64),
        Some(repository.backups as f64),
        count(Standing::Running, None),
        count(Standing::Queued, None),
        Some(red as f64),
    ];
    // One file's trouble is not another's.
    let mut done = writer.put(Of::Repository, at, &values);
    for server in &board.servers {
        let name = server.status.server.as_str();
        let values = of_server(server, count(Standing::Running, Some(name)), rates, at);
        done = done.and(writer.put(Of::Server(name), at, &values));
    }
    rates.before.retain(|name, _| board.servers.iter().any(|s| s.status.server == *name));
    done
}

/// In the order of [`OF_SERVER`].
fn of_server(server: &ServerBoard, running: Option<f64>, rates: &mut Rates, at: Micros) -> [Option<f64>; 12] {
    let seconds = |us: Micros| us.max(0) as f64 / 1e6;
    let span = server.status.spans.last();
    let follows = server.stream.state == "following";
    let stored: u64 = server.timeline.backups.iter().map(|b| b.stored_bytes).sum();
    [
        server.stream.lag_seconds.filter(|_| follows),
        // While its log is followed the source has nothing that is older than the lag and not here.
        match server.stream.lag_seconds {
            Some(lag) if follows => Some(lag),
            _ => span.map(|span| seconds(at.saturating_sub(span.until))),
        },
        span.map(|span| seconds(span.until.saturating_sub(span.from))),
        Some(match server.level {
            Level::Green => 0.0,
            Level::Amber => 1.0,
            Level::Red => 2.0,
        }),
        running,
        Some(server.failed_tries as f64),
        Some(stored as f64),
        Some(server.log_bytes as f64),
        rates.of(&server.status.server, server.stream.transactions, at).filter(|_| follows),
        server.estimate.as_ref().map(|e| e.seconds),
        Some(server.status.gaps.len() as f64),
        Some(server.timeline.backups.len() as f64),
    ]
}

/// How much a counter of each server has grown since the minute before.
#[derive(Debug, Default)]
struct Rates {
    before: BTreeMap<String, (u64, Micros)>,
}

impl Rates {
    /// A second; `None` for the first look. A stream that was begun anew counts from nothing.
    fn of(&mut self, server: &str, count: u64, at: Micros) -> Option<f64> {
        let (before, when) = self.before.insert(server.to_owned(), (count, at))?;
        let time = at.saturating_sub(when);
        let grown = count.checked_sub(before).unwrap_or(count);
        (time > 0).then(|| grown as f64 * 1e6 / time as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_is_found_by_its_name_after_a_restart_and_no_other_server_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = 1_700_000_000_000_000;
        let asked = |metrics: &[&str], from: Micros, to: Micros, points: u32| Asked {
            metrics: metrics.iter().map(|m| (*m).to_owned()).collect(),
            from,
            to,
            points,
        };
        let mut writer = Writer::open(dir.path()).unwrap();
        for turn in 0..10 {
            let values = [Some(f64::from(turn)), None, Some(60.0 * f64::from(turn))];
            writer.put(Of::Server("a/b"), at + MINUTE * Micros::from(turn), &values).unwrap();
        }
        drop(writer);
        let mut writer = Writer::open(dir.path()).unwrap();
        // A folder that somebody cleared is written into again.
        writer.put(Of::Repository, at, &[Some(5e12)]).unwrap();
        std::fs::remove_file(dir.path().join("history/repository.ring")).unwrap();
        writer.put(Of::Repository, at, &[Some(5e12)]).unwrap();

        let all = asked(&["restorable_seconds", "lag_seconds", "rpo_seconds"], at, at + 9 * MINUTE, 5);
        let view = look(dir.path(), Of::Server("a/b"), &all).unwrap();
        assert_eq!(view.step_seconds, 120);
        assert_eq!(view.series[0].max, [60.0, 180.0, 300.0, 420.0, 540.0].map(Some));
        assert_eq!(view.series[1].min, [0.0, 2.0, 4.0, 6.0, 8.0].map(Some));
        assert_eq!(view.series[2].avg, [None; 5]);
        let view = look(dir.path(), Of::Server("a"), &all).unwrap();
        assert!(view.series.iter().all(|s| s.avg == [None; 5]));
        let view = look(dir.path(), Of::Repository, &asked(&["stored_bytes"], at, at, 1)).unwrap();
        assert!((view.series[0].avg[0].unwrap() - 5e12).abs() < 1e6, "{view:?}");
        let days = daily(dir.path(), Of::Server("a/b"), at, at + 9 * MINUTE).unwrap();
        let day = Day { minutes: 10, red: 0, rpo_max: None };
        assert_eq!(days, BTreeMap::from([(at.div_euclid(DAY.0) * DAY.0, day)]));
        // A year is asked for: 30 days are kept.
        let view = look(dir.path(), Of::Repository, &asked(&[], 0, at, 2000)).unwrap();
        assert_eq!(view.to - view.from, Micros::from(MINUTES - 1) * MINUTE);

        for (wrong, named) in [
            (asked(&["lag"], at, at, 1), "'lag'"),
            (asked(&[], at, at - 1, 1), "'from'"),
            (asked(&[], at, at, 0), "'points'"),
            (asked(&[], at, at, POINTS_MAX + 1), "'points'"),
        ] {
            let error = look(dir.path(), Of::Repository, &wrong).unwrap_err();
            assert!(error.message.contains(named), "{}", error.message);
        }
    }

    #[test]
    fn a_rate_needs_two_looks_and_a_counter_that_began_anew_counts_from_nothing() {
        let mut rates = Rates::default();
        assert_eq!(rates.of("shop", 600, 0), None);
        assert_eq!(rates.of("shop", 1200, MINUTE), Some(10.0));
        assert_eq!(rates.of("shop", 60, 2 * MINUTE), Some(1.0));
        assert_eq!(rates.of("shop", 61, 2 * MINUTE), None);
    }
}
