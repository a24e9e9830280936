//! `restore --in-place` and `--undo`: over the server's own, stopped data directory, after what is there is saved.
//!
//! What is saved is a backup of the folder like any other, but for a fact that keeps it out of every plan and policy
//! (`catalogue::SAVED_FACT`): it stays until somebody forgets it by its id. `holdfast_restore::in_place` has the mark,
//! and what each command does when it finds one.

mod folder;

use crate::backup::{self, Watch};
use crate::catalogue::{Catalogue, SAVED_FACT, sentence};
use crate::error::{Code, Error, Result};
use crate::intake::Intake;
use crate::keep;
use crate::list;
use crate::progress::{Reading, Watcher};
use crate::restore::{self, Delta, Options, PlanView, RestoredView, lay_back, restore_error};
use crate::server::is_mariadb;
use crate::time::now;
use crate::views::BackupView;
use folder::{facts_of, find, kept, refuse_links, refuse_outside, stop};
use holdfast_format::record::{BackupRecord, ServerRecord, SourceKind};
use holdfast_mysql::Flavor;
use holdfast_restore::in_place::{MARK, MARK_LOCK, Mark, MarkLock, Stage, give_back};
use holdfast_restore::marker::{Marker, State};
use holdfast_restore::run::SHUTDOWN_LIMIT;
use holdfast_source::{FolderSource, Source};
use holdfast_store::VerifyWrite;
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// For how long what was saved can't be forgotten: three days, microseconds.
const LOCKED_US: i64 = 3 * 24 * 3600 * 1_000_000;

/// The folder, and what stops its server.
#[derive(Clone, Debug, Default)]
pub struct Place {
    /// The data directory; the one that the newest backup tells of without it.
    pub folder: Option<PathBuf>,
    /// The folder's own name, typed again, where nothing says that it is this server's.
    pub confirm: Option<String>,
    /// Run by the shell where a server uses the folder.
    pub stop_command: Option<String>,
    /// Of an undo: the backup to lay back, in place of the one that the folder's mark names.
    pub saved: Option<String>,
    /// Of an undo: what is there is lost, in place of being saved first. `confirm` must be given.
    pub no_save: bool,
}

/// What was restored in place.
#[derive(Clone, Debug, Serialize)]
pub struct InPlaceView {
    /// The restore, with its proof.
    #[serde(flatten)]
    pub restored: RestoredView,
    /// The backup of what was there before.
    pub saved: BackupView,
}

/// What was undone.
#[derive(Clone, Debug, Serialize)]
pub struct UndoneView {
    /// The protected server's name.
    pub server: String,
    /// The folder.
    pub folder: String,
    /// What the restore that is undone was to lead to.
    pub target: String,
    /// The backup that was laid back; none: nothing had been changed.
    pub laid_back: Option<BackupView>,
    /// Blocks that were written, and that stood there already.
    pub blocks_written: u64,
    /// Blocks that were as they should be.
    pub blocks_kept: u64,
    /// The backup of what was there before the undo, where a server may have written since the restore.
    pub saved: Option<BackupView>,
}

fn told(error: &holdfast_restore::Error) -> Error {
    let text = sentence(&error.to_string());
    match error {
        holdfast_restore::Error::Busy { .. } | holdfast_restore::Error::InUse { .. } => {
            Error::new(Code::Locked, text)
        }
        _ => Error::failed(text),
    }
}

/// One folder that is worked in.
struct Work<'a> {
    catalogue: &'a Catalogue,
    server: ServerRecord,
    folder: PathBuf,
    place: &'a Place,
    mark: Option<Mark>,
    /// What a restore left in it.
    marker: Option<Marker>,
    watcher: &'a dyn Watcher,
}

/// The plan, with what laying the base out would do to the folder.
///
/// # Errors
/// As [`restore::plan`]; `Usage` where the folder is not to be found or not the server's.
pub fn plan(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    place: &Place,
    watcher: &dyn Watcher,
) -> Result<PlanView> {
    let server = catalogue.server(name)?;
    let folder = find(catalogue, &server, place)?;
    restore::plan(catalogue, name, &over(options, &folder), watcher)
}

/// Saves what is in the server's own data directory, and restores over it. A command that was killed is given again.
///
/// # Errors
/// `Locked` while a server runs on the folder; as [`restore::restore`].
pub fn restore(
    catalogue: &Catalogue,
    name: &str,
    options: &Options,
    place: &Place,
    watcher: &dyn Watcher,
) -> Result<InPlaceView> {
    let server = catalogue.server(name)?;
    let folder = find(catalogue, &server, place)?;
    backup::refuse_own_repository(&folder, &catalogue.place)?;
    refuse_outside(&facts_of(catalogue, &server), &folder)?;
    refuse_links(&folder)?;
    // What can't be saved, reached or replayed is said before a server is stopped, and the log is fetched while it still runs.
    let fit = FolderSource::new(&folder).refuse_unfit();
    fit.map_err(|error| {
        Error::usage(format!(
            "What is in {} can't be saved before it is restored over: {error}.",
            folder.display()
        ))
        .with_next("restore with --into; nothing was changed, and no server was stopped")
    })?;
    let wanted = Options { delta: None, into: folder.clone(), ..options.clone() };
    let plan = restore::plan(catalogue, name, &wanted, watcher)?;
    refuse_unreplayable(&plan)?;
    let lock = MarkLock::take(&folder).map_err(|e| told(&e))?;
    let mut work = Work::look(catalogue, server, folder, place, watcher)?;
    let done = work.restore(options);
    lock.let_go(&work.folder);
    done
}

/// Refuses what the replay would refuse once the server is stopped.
fn refuse_unreplayable(plan: &PlanView) -> Result<()> {
    let refused = plan.replay.as_ref().map_or(&[][..], |replay| replay.refused.as_slice());
    if refused.is_empty() {
        return Ok(());
    }
    Err(Error::failed(format!(
        "What leads to {} can't be replayed exactly; nothing was changed, and no server was stopped:\n  {}",
        plan.plan.target,
        refused.join("\n  ")
    ))
    .with_next("restore to a moment before it"))
}

/// Puts the state before the last restore in place back.
///
/// # Errors
/// `Usage` where there was none, or what is there would be lost and nobody confirmed it; `Locked` while a server runs on the
/// folder.
pub fn undo(catalogue: &Catalogue, name: &str, place: &Place, watcher: &dyn Watcher) -> Result<UndoneView> {
    let server = catalogue.server(name)?;
    let folder = find(catalogue, &server, place)?;
    if place.no_save && place.confirm.is_none() {
        let own = folder.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        return Err(Error::usage(format!("What is in {} now would be lost.", folder.display()))
            .with_next(format!("leave --no-save away, or add --confirm {own}, the folder's own name")));
    }
    let lock = MarkLock::take(&folder).map_err(|e| told(&e))?;
    let mut work = Work::look(catalogue, server, folder, place, watcher)?;
    let done = work.undo();
    lock.let_go(&work.folder);
    done
}

/// The options of the restore itself: whoever asked for it in place has said which folder it is.
fn over(options: &Options, folder: &Path) -> Options {
    let name = folder.file_name().and_then(|name| name.to_str()).map(str::to_owned);
    let delta = Some(Delta { confirm: name, keep: kept(folder) });
    Options { into: folder.to_path_buf(), delta, going_on: false, ..options.clone() }
}

impl<'a> Work<'a> {
    fn look(
        catalogue: &'a Catalogue,
        server: ServerRecord,
        folder: PathBuf,
        place: &'a Place,
        watcher: &'a dyn Watcher,
    ) -> Result<Self> {
        let mark = Mark::read(&folder).map_err(|e| told(&e))?;
        let marker = Marker::read(&folder).map_err(|e| told(&e))?;
        if let Some(other) = mark.as_ref().filter(|mark| mark.server != server.name) {
            return Err(Error::usage(format!(
                "{} was restored over as '{}', not as '{}'.",
                folder.display(),
                other.server,
                server.name
            )));
        }
        Ok(Self { catalogue, server, folder, place, mark, marker, watcher })
    }

    fn restore(&mut self, options: &Options) -> Result<InPlaceView> {
        let target = options.target.0.to_string();
        let state = self.marker.as_ref().map(|marker| marker.state);
        let stage = self.mark.as_ref().map(|mark| mark.stage);
        let saved = match (stage, state) {
            (Some(Stage::Undoing), _) => {
                return Err(Error::usage(format!("An undo in {} was broken off.", self.folder.display()))
                    .with_next(format!("finish it first: holdfast restore {} --undo", self.server.name)));
            }
            // The folder is neither one nor the other: what it was is saved already.
            (Some(Stage::Restoring), Some(State::UnderWay)) => {
                self.clear_ours()?;
                self.saved()?
            }
            (None, Some(_)) | (Some(Stage::Restored), Some(State::UnderWay)) => {
                return Err(Error::usage(format!(
                    "{} holds a restore that was not handed over.",
                    self.folder.display()
                ))
                .with_next(format!(
                    "hand it over first: holdfast restore finish {}",
                    self.folder.display()
                )));
            }
            // Also one behind its fence: a fence keeps nobody from writing who means to.
            _ => {
                self.clear_ours()?;
                let before = self.mark.as_ref().and_then(|mark| mark.saved.clone());
                self.put_ids(Stage::Saving, &target, before, None)?;
                self.save(&target)?
            }
        };
        self.put(Stage::Restoring, &target, Some(&saved), None)?;
        let restored =
            restore::restore(self.catalogue, &self.server.name, &over(options, &self.folder), self.watcher);
        let restored = restored.map_err(|error| self.with_way_back(error))?;
        self.give_back()?;
        self.put(Stage::Restored, &target, Some(&saved), None)?;
        Ok(InPlaceView { restored, saved })
    }

    fn undo(&mut self) -> Result<UndoneView> {
        let name = self.server.name.clone();
        let unmarked = || Mark {
            stage: Stage::Restored,
            server: name.clone(),
            target: "another moment".to_owned(),
            saved: None,
            saved_now: None,
            mode: 0o700,
        };
        let named = self.place.saved.as_ref().map(|_| unmarked());
        let Some(mark) = self.mark.clone().or(named) else {
            return Err(Error::usage(format!("No restore in place was done in {}.", self.folder.display()))
                .with_next("name the data directory that one was done in: --undo DIR"));
        };
        let nothing = UndoneView {
            server: name.clone(),
            folder: self.folder.display().to_string(),
            target: mark.target.clone(),
            laid_back: None,
            blocks_written: 0,
            blocks_kept: 0,
            saved: None,
        };
        let named = self.place.saved.is_some();
        let untouched = mark.stage == Stage::Saving && mark.saved.is_none()
            || mark.stage == Stage::Restoring && self.marker.is_none();
        if untouched && !named {
            Mark::remove(&self.folder).map_err(|e| told(&e))?;
            return Ok(nothing);
        }
        let back = match &self.place.saved {
            Some(id) => self.backup(&self.named(id)?.id.to_string())?,
            None => self.saved()?,
        };
        self.clear_ours()?;
        let state = self.marker.as_ref().map(|marker| marker.state);
        let saved = match (mark.stage, state) {
            (Stage::Undoing, _) => mark.saved_now.as_deref().map(|id| self.backup(id)).transpose()?,
            // Neither one nor the other, or nothing at all: not worth keeping.
            (_, Some(State::UnderWay)) => None,
            _ if self.place.no_save || self.is_empty()? => None,
            _ => Some(self.save(&format!("undo of {}", mark.target))?),
        };
        self.put(Stage::Undoing, &mark.target, Some(&back), saved.as_ref())?;
        let record = keep::find(self.catalogue, &back.id)?;
        let ours = [MARK, &format!("{MARK}.new"), MARK_LOCK].map(Into::into).to_vec();
        let done = lay_back(self.catalogue, record, (&self.folder, &name), ours, self.watcher)?;
        self.give_back()?;
        match &saved {
            Some(saved) => {
                self.put(Stage::Restored, &format!("undo of {}", mark.target), Some(saved), None)?
            }
            None => Mark::remove(&self.folder).map_err(|e| told(&e))?,
        }
        Ok(UndoneView {
            laid_back: Some(back),
            blocks_written: done.blocks,
            blocks_kept: done.blocks_kept,
            saved,
            ..nothing
        })
    }

    /// The backup that the mark names.
    fn saved(&self) -> Result<BackupView> {
        let named = self.mark.as_ref().and_then(|mark| mark.saved.clone());
        let id = named.ok_or_else(|| {
            Error::failed(format!("{}/{MARK} names no backup.", self.folder.display()))
                .with_next("see the backups of what was there: holdfast list")
        })?;
        self.backup(&id)
    }

    fn backup(&self, id: &str) -> Result<BackupView> {
        Ok(list::view(self.catalogue, &keep::find(self.catalogue, id)?))
    }

    /// The backup of what was in a folder of this server that somebody names by its id.
    fn named(&self, id: &str) -> Result<BackupRecord> {
        let found = keep::find(self.catalogue, id)?;
        if found.server != self.server.id || found.fact(SAVED_FACT).is_none() {
            return Err(Error::usage(format!(
                "The backup {} does not hold what was in a data directory of '{}' before a restore in place.",
                found.id, self.server.name
            ))
            .with_next(format!("see their notes: holdfast list {}", self.server.name)));
        }
        Ok(found)
    }

    fn is_empty(&self) -> Result<bool> {
        folder::is_empty(&self.folder)
    }

    /// Nothing of ours runs on the folder any more, nobody's server does, and no fence is left in it.
    fn clear_ours(&self) -> Result<()> {
        let failed = |error: holdfast_engine::Error| Error::failed(sentence(&error.to_string()));
        match self.marker.as_ref().map(|marker| marker.state) {
            Some(State::Fenced) => {
                holdfast_engine::stop_server_on(&self.folder, SHUTDOWN_LIMIT).map_err(failed)?;
            }
            Some(State::UnderWay) => {
                holdfast_engine::kill_server_on(&self.folder).map_err(failed)?;
            }
            None => {}
        }
        stop(&self.folder, self.place, self.watcher)?;
        if self.marker.is_some() {
            // The settings that the server keeps in its folder are its own again.
            let flavor = if is_mariadb(&self.server) { Flavor::MariaDb } else { Flavor::MySql };
            holdfast_restore::fence::take_away(&self.folder, flavor).map_err(|e| told(&e))?;
        }
        Ok(())
    }

    /// Takes the backup of what is in the folder.
    fn save(&self, target: &str) -> Result<BackupView> {
        let catalogue = self.catalogue;
        self.watcher.reading(Reading { phase: "save", ..Reading::default() });
        // The files of the newest copy have the same names, and mostly the same blocks.
        let parent = catalogue.backups_of(&self.server).last().map(|backup| backup.id);
        let writer = catalogue.repository.begin_backup_verified(parent, VerifyWrite::Full);
        let writer = writer.map_err(|e| catalogue.store_error(e))?;
        let intake = Intake::new(&writer);
        // Every byte is read: the parent is a copy that was made in another way.
        let mut source = FolderSource::new(&self.folder).force(true);
        let outcome = source.copy(&intake, &Watch(self.watcher));
        let outcome = outcome.map_err(|e| {
            let error = backup::copy_error(catalogue, &self.server, e);
            let next = error.next.clone().unwrap_or_else(|| "give the same command again".to_owned());
            error.with_next(format!("{next}; nothing was changed, and the server is stopped"))
        })?;
        let options = backup::Options {
            note: format!("{} before a restore in place: {target}", self.folder.display()),
            ..backup::Options::default()
        };
        let mut draft = backup::draft(&self.server, SourceKind::Folder, &options, &outcome)?;
        draft.facts.push((SAVED_FACT.to_owned(), target.to_owned()));
        if self.watcher.cancelled() {
            return Err(backup::copy_error(catalogue, &self.server, holdfast_source::Error::Cancelled));
        }
        let record = writer.commit(draft).map_err(|e| catalogue.store_error(e))?;
        // Nobody forgets it by mistake while it is needed most.
        let until = now().saturating_add(LOCKED_US);
        catalogue.repository.lock_backup(record.id, until).map_err(|e| catalogue.store_error(e))?;
        Ok(list::view(catalogue, &record))
    }

    fn put(
        &mut self,
        stage: Stage,
        target: &str,
        saved: Option<&BackupView>,
        saved_now: Option<&BackupView>,
    ) -> Result<()> {
        let id = |backup: &BackupView| backup.id.clone();
        self.put_ids(stage, target, saved.map(id), saved_now.map(id))
    }

    fn put_ids(
        &mut self,
        stage: Stage,
        target: &str,
        saved: Option<String>,
        saved_now: Option<String>,
    ) -> Result<()> {
        let mode = match &self.mark {
            Some(mark) => mark.mode,
            None => {
                let facts = std::fs::metadata(&self.folder).map_err(|error| {
                    Error::failed(format!("{} can't be looked at: {error}.", self.folder.display()))
                })?;
                facts.mode() & 0o7777
            }
        };
        let mark = Mark {
            stage,
            server: self.server.name.clone(),
            target: target.to_owned(),
            saved,
            saved_now,
            mode,
        };
        mark.write(&self.folder).map_err(|error| restore_error(self.catalogue, error))?;
        self.mark = Some(mark);
        Ok(())
    }

    fn give_back(&self) -> Result<()> {
        let mode = self.mark.as_ref().map_or(0o700, |mark| mark.mode);
        give_back(&self.folder, mode).map_err(|error| restore_error(self.catalogue, error))
    }

    /// The error, with how what was there comes back.
    fn with_way_back(&self, error: Error) -> Error {
        let back = format!(
            "what was in {} is saved: `holdfast restore {} --undo {}` puts it back",
            self.folder.display(),
            self.server.name,
            self.folder.display()
        );
        let next = match &error.next {
            Some(next) => format!("{next}; {back}"),
            None => format!("the same command goes on; {back}"),
        };
        error.with_next(next)
    }
}
