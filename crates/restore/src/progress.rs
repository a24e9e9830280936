//! How far a restore came, and the evidence that it gathered: `holdfast-restore-progress.json` in
//! the target folder.
//!
//! The proof compares the end with what the server's own recovery reported and what was counted
//! before replay wrote anything. A restore that goes on, after a kill or to a later target, needs
//! that evidence from its first run, since it can't be gathered a second time. How many
//! transactions are applied is on record in the server itself while replay is at work
//! (`holdfast_replay::checkpoint`), and here before and after.
//!
//! Order of the writes, and what a restore that finds them does:
//!
//! | found | it means | what follows |
//! |---|---|---|
//! | no file | files, recovery or counts are not complete | start over |
//! | `Replaying` | `done` transactions are applied, or as many as the server's checkpoint says | go on from there |
//! | `Replayed` | `done` are applied; the checkpoint may be gone | go on from there |
//! | `Settled` | the same, and the server was shut down cleanly since: all is on the disk | go on from there, even behind a crash of the host |
//!
//! A replay does not sync, so before `Settled` only the boot of the host that it began in is trusted.

use std::fs;
use std::path::{Path, PathBuf};

use holdfast_binlog::tables::TableKey;
use holdfast_format::gtid::{Flavor, GtidSet};
use holdfast_format::record::{Coordinates, Position};
use serde::{Deserialize, Serialize};

use crate::catalog::{Cascade, Catalog, TableFacts};
use crate::error::{Error, Result};
use crate::marker::write_whole;
use crate::recovered::Held;
use crate::report::Check;
use crate::scope::Scope;
use crate::seam::LaidOut;

/// Its name in the target folder; removed with the marker by `finish`.
pub const PROGRESS: &str = "holdfast-restore-progress.json";

/// How far replay came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// It may write.
    Replaying,
    /// It wrote everything up to its target.
    Replayed,
    /// And the server was shut down cleanly.
    Settled,
}

/// What the file holds.
#[derive(Debug, Clone)]
pub struct Progress {
    /// The backup.
    pub base: String,
    /// The host's boot id when replay last began.
    pub boot_id: String,
    /// How far.
    pub phase: Phase,
    /// What was laid out and verified.
    pub laid_out: LaidOut,
    /// The base's coordinates as its record had them when it was laid out. Replay counts from their lower bound.
    pub coordinates: Coordinates,
    /// Where its recovery found it.
    pub held: Held,
    /// The server after recovery, before replay.
    pub before: Catalog,
    /// Transactions of the log behind the base's lower bound that are applied or were in the base.
    pub done: u64,
    /// The server's GTIDs when it was settled, so that a server that went on without us is noticed.
    pub gtids: String,
    /// Of a restore of some tables: which, parents included.
    pub scope: Option<Scope>,
}

impl Progress {
    /// Reads the file of a folder; none if there is none, or if it is of another version of ours.
    pub fn read(folder: &Path) -> Result<Option<Self>> {
        let path = folder.join(PROGRESS);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice::<Saved>(&bytes).ok().and_then(Saved::restore)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::file("read", path, source)),
        }
    }

    /// Writes the file durably, in place of an older one.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let path: PathBuf = folder.join(PROGRESS);
        let bytes = serde_json::to_vec(&Saved::of(self))
            .map_err(|error| Error::file("write", &path, std::io::Error::other(error)))?;
        write_whole(folder, PROGRESS, &bytes)
    }

    /// Removes the file durably.
    pub fn remove(folder: &Path) -> Result<()> {
        let path = folder.join(PROGRESS);
        match fs::remove_file(&path).and_then(|()| fs::File::open(folder)?.sync_all()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::file("remove", path, source))
            }
            _ => Ok(()),
        }
    }

    /// Whether what is in the folder can be built upon after this boot of the host.
    #[must_use]
    pub fn is_trusted(&self, boot_id: &str) -> bool {
        self.phase == Phase::Settled || (!boot_id.is_empty() && self.boot_id == boot_id)
    }
}

/// The host's boot id; empty where the system has none.
#[must_use]
pub fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// The file's layout. A file of another layout is no progress.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    version: u32,
    base: String,
    boot_id: String,
    phase: Phase,
    laid_out: LaidOut,
    flavor: String,
    coordinates: Option<(SavedPosition, SavedPosition)>,
    exact_coordinates: bool,
    executed: Option<String>,
    exact: Option<SavedPosition>,
    recovered: String,
    recovered_not_checked: Vec<String>,
    tables: Vec<(String, String, TableFacts)>,
    cascades: Vec<SavedCascade>,
    accounts: std::collections::BTreeMap<String, Vec<String>>,
    done: u64,
    gtids: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scope: Option<Scope>,
}

const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
struct SavedPosition {
    file: String,
    offset: u64,
    gtid: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedCascade {
    child: (String, String),
    parent: (String, String),
    parent_columns: Vec<String>,
    deletes: bool,
    clears_on_delete: bool,
    on_update: bool,
}

impl SavedPosition {
    fn of(at: &Position) -> Self {
        Self { file: at.file.clone(), offset: at.offset, gtid: at.gtid.to_string() }
    }

    fn restore(self, flavor: Flavor) -> Option<Position> {
        let gtid = set(flavor, &self.gtid)?;
        Some(Position { file: self.file, offset: self.offset, gtid })
    }
}

fn set(flavor: Flavor, text: &str) -> Option<GtidSet> {
    if text.is_empty() { Some(GtidSet::empty(flavor)) } else { GtidSet::parse(flavor, text).ok() }
}

fn key((database, table): (String, String)) -> TableKey {
    TableKey { database, table }
}

impl Saved {
    fn of(progress: &Progress) -> Self {
        let held = &progress.held;
        let bounds = match &progress.coordinates {
            Coordinates::None => None,
            Coordinates::Exact(at) => Some((at, at)),
            Coordinates::Between { lo, hi } => Some((lo, hi)),
        };
        let sets = [held.executed.as_ref(), bounds.map(|(lo, _)| &lo.gtid)];
        let mariadb = sets.iter().flatten().any(|set| matches!(set, GtidSet::MariaDb(_)));
        let pair = |key: &TableKey| (key.database.clone(), key.table.clone());
        let cascade = |c: &Cascade| SavedCascade {
            child: pair(&c.child),
            parent: pair(&c.parent),
            parent_columns: c.parent_columns.clone(),
            deletes: c.deletes,
            clears_on_delete: c.clears_on_delete,
            on_update: c.on_update,
        };
        let table =
            |(key, facts): (&TableKey, &TableFacts)| (key.database.clone(), key.table.clone(), facts.clone());
        Self {
            version: VERSION,
            base: progress.base.clone(),
            boot_id: progress.boot_id.clone(),
            phase: progress.phase,
            laid_out: progress.laid_out,
            flavor: if mariadb { "mariadb" } else { "mysql" }.to_owned(),
            coordinates: bounds.map(|(lo, hi)| (SavedPosition::of(lo), SavedPosition::of(hi))),
            exact_coordinates: matches!(progress.coordinates, Coordinates::Exact(_)),
            executed: held.executed.as_ref().map(ToString::to_string),
            exact: held.exact.as_ref().map(SavedPosition::of),
            recovered: held.check.detail.clone(),
            recovered_not_checked: held.check.not_checked.clone(),
            tables: progress.before.tables.iter().map(table).collect(),
            cascades: progress.before.cascades.iter().map(cascade).collect(),
            accounts: progress.before.accounts.clone(),
            done: progress.done,
            gtids: progress.gtids.clone(),
            scope: progress.scope.clone(),
        }
    }

    fn restore(self) -> Option<Progress> {
        if self.version != VERSION {
            return None;
        }
        let flavor = if self.flavor == "mariadb" { Flavor::MariaDb } else { Flavor::MySql };
        let coordinates = match self.coordinates {
            None => Coordinates::None,
            Some((at, _)) if self.exact_coordinates => Coordinates::Exact(at.restore(flavor)?),
            Some((lo, hi)) => Coordinates::Between { lo: lo.restore(flavor)?, hi: hi.restore(flavor)? },
        };
        let check = if coordinates == Coordinates::None {
            Check::left_out("coordinates", &self.recovered)
        } else {
            Check::new("coordinates", self.recovered, Vec::new(), self.recovered_not_checked)
        };
        let held = Held {
            executed: match self.executed {
                Some(text) => Some(set(flavor, &text)?),
                None => None,
            },
            exact: match self.exact {
                Some(at) => Some(at.restore(flavor)?),
                None => None,
            },
            check,
        };
        let cascade = |c: SavedCascade| Cascade {
            child: key(c.child),
            parent: key(c.parent),
            parent_columns: c.parent_columns,
            deletes: c.deletes,
            clears_on_delete: c.clears_on_delete,
            on_update: c.on_update,
        };
        let before = Catalog {
            tables: self.tables.into_iter().map(|(d, t, facts)| (key((d, t)), facts)).collect(),
            cascades: self.cascades.into_iter().map(cascade).collect(),
            accounts: self.accounts,
        };
        Some(Progress {
            base: self.base,
            boot_id: self.boot_id,
            phase: self.phase,
            laid_out: self.laid_out,
            coordinates,
            held,
            before,
            done: self.done,
            gtids: self.gtids,
            scope: self.scope,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn progress(flavor: Flavor, gtids: &str) -> Progress {
        let at = |offset| Position {
            file: "binlog.000002".to_owned(),
            offset,
            gtid: GtidSet::parse(flavor, gtids).unwrap(),
        };
        let orders = TableKey { database: "sh\"op".to_owned(), table: "orders".to_owned() };
        let items = TableKey { database: "sh\"op".to_owned(), table: "items".to_owned() };
        let mut before = Catalog::default();
        before.tables.insert(orders.clone(), TableFacts { rows: Some(7), ..TableFacts::default() });
        before.cascades.push(Cascade {
            child: items,
            parent: orders,
            parent_columns: vec!["id".to_owned()],
            deletes: true,
            clears_on_delete: false,
            on_update: true,
        });
        before.accounts.insert("'a'@'%'".to_owned(), vec!["GRANT USAGE".to_owned()]);
        Progress {
            base: "b".to_owned(),
            boot_id: "one".to_owned(),
            phase: Phase::Replaying,
            laid_out: LaidOut { files: 1, bytes: 2, blocks: 3, blocks_kept: 4, healed_segments: 0 },
            coordinates: Coordinates::Between { lo: at(4), hi: at(90) },
            held: Held {
                executed: Some(GtidSet::parse(flavor, gtids).unwrap()),
                exact: Some(at(40)),
                check: Check::new("coordinates", "it stands".to_owned(), Vec::new(), Vec::new()),
            },
            before,
            done: 12,
            gtids: gtids.to_owned(),
            scope: None,
        }
    }

    #[test]
    fn progress_is_read_as_it_was_written_on_both_servers() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Progress::read(dir.path()).unwrap().is_none());
        for (flavor, gtids) in
            [(Flavor::MySql, "3e11fa47-71ca-11e1-9e33-c80aa9429562:1-9"), (Flavor::MariaDb, "7-1-9,8-1-2")]
        {
            let written = progress(flavor, gtids);
            written.write(dir.path()).unwrap();
            let read = Progress::read(dir.path()).unwrap().unwrap();
            assert_eq!(format!("{written:?}"), format!("{read:?}"));
        }
    }

    #[test]
    fn a_file_of_another_version_or_cut_short_is_no_progress() {
        let dir = tempfile::tempdir().unwrap();
        progress(Flavor::MariaDb, "7-1-9").write(dir.path()).unwrap();
        let text = fs::read_to_string(dir.path().join(PROGRESS)).unwrap();
        for other in [text.replacen("\"version\":1", "\"version\":2", 1), text[..text.len() / 2].to_owned()] {
            fs::write(dir.path().join(PROGRESS), other).unwrap();
            assert!(Progress::read(dir.path()).unwrap().is_none());
        }
    }

    #[test]
    fn behind_a_crash_of_the_host_only_what_was_settled_is_trusted() {
        let mut progress = progress(Flavor::MariaDb, "7-1-9");
        for phase in [Phase::Replaying, Phase::Replayed] {
            progress.phase = phase;
            assert!(progress.is_trusted("one") && !progress.is_trusted("two") && !progress.is_trusted(""));
        }
        progress.phase = Phase::Settled;
        assert!(progress.is_trusted("two"));
    }
}
