//! `drill`: a moment of what is promised, restored into a scratch folder, proved, measured, and thrown away again.
//!
//! A drill is a restore like any other; its report is kept with the backup that it began with, under a kind of its own,
//! so that what drills have shown is in the repository and not in anybody's memory.

use crate::catalogue::{Catalogue, sentence};
use crate::check_queries::Queries;
use crate::error::{Code, Error, Result};
use crate::progress::Watcher;
use crate::restore::{self, Options, ProveLevel, RestoredView, Target};
use crate::scratch::Scratch;
use crate::server::has_log;
use crate::status::timeline;
use crate::time::{Micros, show_time};
use crate::views::SpanView;
use std::path::{Path, PathBuf};

/// The kind of a drill's report in the repository.
pub const KIND: &str = "drill";

/// The words of a moment that `random` picks out of what can be restored since `from`: every millisecond is as likely as
/// any other. A server without a log has its backups only. `None`: nothing can be restored.
///
/// # Errors
/// When the log can't be read.
pub fn pick(catalogue: &Catalogue, name: &str, from: Micros, random: u64) -> Result<Option<String>> {
    let server = catalogue.server(name)?;
    let history = timeline(catalogue, name)?;
    if has_log(&server)
        && let Some(at) = pick_of(&history.spans, from, random)
    {
        return Ok(Some(show_time(at)));
    }
    let count = history.backups.len() as u64;
    let Some(at) = random.checked_rem(count) else { return Ok(None) };
    let backup = history.backups.get(at as usize);
    Ok(backup.map(|b| if has_log(&server) { "fastest".to_owned() } else { show_time(b.completed) }))
}

/// A millisecond of these stretches, not before `from` where there is one.
fn pick_of(spans: &[SpanView], from: Micros, random: u64) -> Option<Micros> {
    let milliseconds = |at: Micros| at.div_euclid(1000);
    let clipped: Vec<(i64, i64)> = spans
        .iter()
        .filter(|s| s.until >= from)
        .map(|s| (milliseconds(s.from.max(from.saturating_add(999))), milliseconds(s.until)))
        .filter(|(from, until)| from <= until)
        .collect();
    let length = |(from, until): &(i64, i64)| (until - from + 1) as u64;
    let mut at = random.checked_rem(clipped.iter().map(length).sum())?;
    for span in &clipped {
        if at < length(span) {
            return Some((span.0 + at as i64) * 1000);
        }
        at -= length(span);
    }
    None
}

/// A drill that a person asks for.
#[derive(Clone, Debug)]
pub struct ByHand {
    /// The moment as a restore takes it; `None`: chance picks one of those that can be restored.
    pub at: Option<Target>,
    /// The folder to work in, which is gone afterwards; `None`: one below the folder for what has to wait on disk.
    pub scratch: Option<PathBuf>,
    /// Where the server's programs are.
    pub engine_dir: Option<PathBuf>,
    /// How much to prove.
    pub prove: ProveLevel,
    /// The user's own queries.
    pub queries: Queries,
}

/// Drills without a daemon: as [`drill`], of one moment, in a folder of its own that is gone afterwards, however it ended.
///
/// # Errors
/// `Usage` when nothing can be restored, or the folder holds something else; else as [`drill`].
pub fn by_hand(
    catalogue: &Catalogue,
    name: &str,
    wanted: &ByHand,
    watcher: &dyn Watcher,
) -> Result<RestoredView> {
    let target = match &wanted.at {
        Some(target) => target.clone(),
        None => {
            let mut bytes = [0; 8];
            getrandom::fill(&mut bytes)
                .map_err(|error| Error::failed(format!("The system gave no random bytes: {error}.")))?;
            let picked = pick(catalogue, name, i64::MIN, u64::from_le_bytes(bytes))?;
            let picked = picked.ok_or_else(|| {
                Error::usage(format!("Nothing of '{name}' can be restored yet."))
                    .with_next(format!("take a backup first: holdfast backup {name}"))
            })?;
            watcher.note(&format!("drill of {picked}"));
            Target::parse(&picked)?
        }
    };
    let own = || {
        let server = blake3::hash(name.as_bytes()).to_hex();
        let server: String = server.as_str().chars().take(8).collect();
        let repository: String = catalogue.repository.id().to_string().chars().take(8).collect();
        catalogue.environment.spool.join(format!("holdfast-drill-{repository}-{server}"))
    };
    let scratch = Scratch::take(&wanted.scratch.clone().unwrap_or_else(own))?;
    // What a drill that was killed has left is of another moment.
    scratch.clear_data()?;
    let options = Options {
        engine_dir: wanted.engine_dir.clone(),
        prove: wanted.prove,
        queries: wanted.queries.clone(),
        ..Options::new(target, scratch.data())
    };
    let done = drill(catalogue, name, &options, 0, watcher);
    let cleared = scratch.clear();
    let view = done?;
    cleared?;
    Ok(view)
}

/// Restores into `options.into`, proves it, keeps the report as a drill's, and clears the folder, however it ended. Only
/// an interrupted drill leaves the folder to whoever goes on with it; [`clear`] removes it else.
///
/// # Errors
/// `Usage` when the folder's file system has not the bytes that the plan needs, or `bytes_max` (0: no limit of its own)
/// is below them; else as [`restore::restore`].
pub fn drill(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    bytes_max: u64,
    watcher: &dyn Watcher,
) -> Result<RestoredView> {
    let plan = restore::look(catalogue, name, options)?.plan;
    let place = options.into.parent().unwrap_or(Path::new("/"));
    if !options.into.exists() {
        let space = rustix::fs::statvfs(place)
            .map_err(|error| Error::failed(format!("{} can't be looked at: {error}.", place.display())))?;
        let free = space.f_bavail.saturating_mul(space.f_frsize);
        let (most, whose) = match bytes_max {
            0 => (free, "are free there"),
            most if most < free => (most, "may be used there"),
            _ => (free, "are free there"),
        };
        if plan.space_needed > most {
            return Err(Error::usage(format!(
                "A drill of '{name}' needs {} bytes in {}, and {most} {whose}.",
                plan.space_needed,
                place.display()
            ))
            .with_next("give the drills a larger folder, or their server a policy with drill = 0"));
        }
    }
    let done = restore::restore_as(catalogue, name, options, watcher, KIND);
    if !matches!(&done, Err(error) if error.code == Code::Interrupted) {
        clear(&options.into)?;
    }
    done.map_err(|error| match error.next.as_deref() {
        Some(restore::KEPT) => error.with_next(format!("the report is kept: holdfast report list {name}")),
        _ => error,
    })
}

/// Removes a drill's folder with everything in it; a private server that still runs on it is ended first.
///
/// # Errors
/// `Failed` with what could not be removed.
pub fn clear(folder: &Path) -> Result<()> {
    if !folder.exists() {
        return Ok(());
    }
    holdfast_engine::kill_server_on(folder).map_err(|error| Error::failed(sentence(&error.to_string())))?;
    std::fs::remove_dir_all(folder).map_err(|error| {
        Error::failed(format!("The drill's folder {} can't be removed: {error}.", folder.display()))
            .with_next("remove it by hand")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(from: Micros, until: Micros) -> SpanView {
        SpanView {
            from: from * 1000,
            until: until * 1000,
            from_position: String::new(),
            until_position: String::new(),
            transactions: 0,
        }
    }

    #[test]
    fn every_millisecond_of_the_window_can_be_picked_and_none_outside_of_it() {
        let spans = [span(10, 19), span(30, 31), span(50, 50)];
        let picked: std::collections::BTreeSet<Micros> =
            (0..1000).map(|random| pick_of(&spans, 15_000, random).unwrap()).collect();
        let expected = [15, 16, 17, 18, 19, 30, 31, 50].map(|ms| ms * 1000);
        assert_eq!(picked.into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(pick_of(&spans, 60_000, 3), None);
        assert_eq!(pick_of(&[], 0, 3), None);
        assert!(pick_of(&spans, i64::MIN, u64::MAX).is_some());
    }
}
