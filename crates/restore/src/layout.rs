//! The target folder: taken, filled, made ready for the first start.
//!
//! A folder is taken if it is empty. One that holds an unfinished restore of the same base to the
//! same target is taken, too: the restore goes on where its progress (`progress.rs`) can be trusted;
//! otherwise the base is laid out again, and keeps the blocks that are as they should be. With
//! `--continue` the target may be another one, and the restore may be finished already, as long as it
//! was not handed over. With `--delta` the folder may hold any restore that was not handed over, and, confirmed, anything
//! that no server uses: it is laid out over, so that only what differs is written, and what the base does not have goes.
//! The marker says from the first change on what the folder is becoming, so the same command goes on after a crash.
//! Nothing is written before the space is known to suffice.
//!
//! A clone's files need a few more to be recovered as a clone (observed on MySQL 9.7.4): the
//! folder `mysql/`; `#clone/#status_fix`, by which the server makes schemas and tables that were
//! not cloned; `#clone/#replace_files`, by which it reports the recovered coordinates; and, while
//! files are missing, `#clone/#status_in_progress`, at whose sight a server refuses to start.
//! No `auto.cnf` is laid out, so that the restored server gives itself an identity of its own.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::ops::ControlFlow;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use holdfast_format::record::SourceKind;

use crate::error::{Error, Result};
use crate::marker::{FolderLock, LOCK, MARKER, Marker, State};
use crate::progress::{PROGRESS, Progress, boot_id};
use crate::run::SHUTDOWN_LIMIT;
use crate::seam::{Base, LaidOut, LayingOut};

/// The folder of the files by which clone recovery is steered.
pub const CLONE_DIR: &str = "#clone";
const IN_PROGRESS: &str = "#status_in_progress";
const FIX: &str = "#status_fix";
const REPLACE: &str = "#replace_files";

/// A target folder that this process works in.
#[derive(Debug)]
pub struct Target {
    folder: PathBuf,
    /// It was not there.
    made: bool,
    _lock: FolderLock,
}

/// What a restore needs of a folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Space {
    /// Bytes that the base's files take.
    pub base: u64,
    /// Bytes in all, the base's files included.
    pub needed: u64,
}

/// What may be rewritten by `--delta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// A restore that was not handed over.
    Restored,
    /// Whatever is there: somebody typed the folder's name for it.
    Anything,
}

/// How a folder is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Taking {
    /// `--continue`: it must hold a restore from the same base, which may have had another target.
    pub going_on: bool,
    /// `--delta`: what it holds may be rewritten.
    pub over: Option<Over>,
}

/// What the folder held when it was taken.
#[derive(Debug)]
pub enum Found {
    /// Nothing of use: the base has to be laid out.
    Nothing,
    /// A restore that goes on. It is not touched before [`Target::go_on`].
    Restore(Box<Progress>),
}

impl Target {
    /// Takes `folder` for the restore that `marker` describes.
    pub fn take(folder: &Path, marker: &Marker, space: Space, how: Taking) -> Result<(Self, Found)> {
        let existed = folder.exists();
        if existed || how.going_on {
            refuse_if_taken(folder, marker, how)?;
        } else {
            check_space(nearest_above(folder), space.needed)?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| Error::file("make the folder", folder, source))?;
        }
        let folder =
            folder.canonicalize().map_err(|source| Error::file("open the folder", folder, source))?;
        let lock = FolderLock::take(&folder)?;
        let target = Self { folder, made: !existed, _lock: lock };
        // Another restore may have come to its end, or a server may have been started, while we looked.
        if existed && let Err(error) = refuse_if_taken(&target.folder, marker, how) {
            if how.over.is_some() {
                target.leave()?;
            }
            return Err(error);
        }
        let folder = &target.folder;
        let there = Marker::read(folder)?;
        if existed && how.over.is_some() && !there.as_ref().is_some_and(|there| there.goes_on_to(marker)) {
            if there.as_ref().is_some_and(|there| there.state == State::UnderWay) {
                // Of another restore, killed.
                holdfast_engine::kill_server_on(folder)?;
                refuse_in_use(folder)?;
            }
            let kept = bytes_below(folder, true)?;
            check_space(folder, space.needed.saturating_sub(kept)).or_else(|e| target.leave().and(Err(e)))?;
            // How far another restore came says nothing of this one; gone before the marker says that this one began.
            Progress::remove(folder)?;
            return target.begin(marker);
        }
        let progress = if there.is_some() { Progress::read(folder)? } else { None };
        if let Some(progress) = progress
            && progress.base == marker.base
            && progress.is_trusted(&boot_id())
        {
            check_space(folder, space.needed.saturating_sub(space.base))?;
            return Ok((target, Found::Restore(Box::new(progress))));
        }
        if there.as_ref().is_some_and(|there| there.state == State::Fenced) {
            return Err(Error::NoRestore {
                folder: folder.clone(),
                why: format!("its {PROGRESS} is missing or not readable, so it can't go on"),
            });
        }
        if there.is_some() {
            // A killed restore leaves its server behind; it must be gone before its files are rewritten.
            holdfast_engine::kill_server_on(folder)?;
            if how.over.is_some() {
                // Somebody else's may have been started on what was left.
                refuse_in_use(folder)?;
            }
        }
        let kept = if existed { bytes_below(folder, false)? } else { 0 };
        if existed && let Err(error) = check_space(folder, space.needed.saturating_sub(kept)) {
            return target.leave().and(Err(error));
        }
        target.begin(marker)
    }

    /// Leaves the folder as it was found.
    fn leave(&self) -> Result<()> {
        if Marker::read(&self.folder)?.is_none() {
            let _ = fs::remove_file(self.folder.join(LOCK));
        }
        Ok(())
    }

    /// Removes everything that this restore wrote: it was refused, and leaves nothing. Only for a folder that was empty.
    pub(crate) fn give_up(&self) -> Result<()> {
        holdfast_engine::kill_server_on(&self.folder)?;
        let entries =
            fs::read_dir(&self.folder).map_err(|source| Error::file("list", &self.folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| Error::file("list", &self.folder, source))?;
            // The marker goes last: until then the folder is known as ours.
            if entry.file_name() == MARKER {
                continue;
            }
            let path = entry.path();
            let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
            let done = if is_dir { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            done.map_err(|source| Error::file("remove", path, source))?;
        }
        Marker::remove(&self.folder)?;
        if self.made {
            fs::remove_dir(&self.folder).map_err(|source| Error::file("remove", &self.folder, source))?;
        }
        Ok(())
    }

    /// Makes folders of the base that none of the files to lay out lies in: a server drops a database with its folder.
    pub(crate) fn make_folders(&self, paths: &[(Vec<u8>, u64)]) -> Result<()> {
        use std::os::unix::ffi::OsStrExt as _;
        for name in crate::scope::files::folders(paths) {
            make_dir(&self.folder.join(std::ffi::OsStr::from_bytes(name)))?;
        }
        Ok(())
    }

    /// Says in the folder what it is from here on.
    fn begin(self, marker: &Marker) -> Result<(Self, Found)> {
        let folder = &self.folder;
        // A datadir is nobody else's business.
        fs::set_permissions(folder, fs::Permissions::from_mode(0o700))
            .map_err(|source| Error::file("set the permissions of", folder, source))?;
        marker.write(folder)?;
        Ok((self, Found::Nothing))
    }

    /// Makes a found restore one that is under way again: ends the server that an earlier run left, and says
    /// where it leads now. A restored server that runs is shut down cleanly.
    pub fn go_on(&self, marker: &Marker) -> Result<()> {
        match Marker::read(&self.folder)?.map(|there| there.state) {
            Some(State::Fenced) => holdfast_engine::stop_server_on(&self.folder, SHUTDOWN_LIMIT)?,
            _ => holdfast_engine::kill_server_on(&self.folder)?,
        };
        marker.write(&self.folder)
    }

    /// The folder, as an absolute path without links.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the base's files, or those of `only`, and what its kind needs for the first start. Returns when all is
    /// synced.
    pub fn fill(
        &self,
        base: &dyn Base,
        only: Option<&BTreeSet<Vec<u8>>>,
        progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
    ) -> Result<LaidOut> {
        let clone = base.kind() == SourceKind::Clone;
        let steer = self.folder.join(CLONE_DIR);
        if clone {
            // Left by an unfinished restore, whose server may have begun its recovery.
            match fs::remove_dir_all(&steer) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", &steer, error));
                }
                _ => {}
            }
            make_dir(&steer)?;
            touch(&steer.join(IN_PROGRESS))?;
        }
        let done = match only {
            Some(only) => base.restore_some_into(&self.folder, only, progress),
            None => base.restore_into(&self.folder, progress),
        };
        let done = done.map_err(Error::Base)?;
        // The source's identity must not start twice. In a folder that is no server's, the name means nothing.
        if base.kind() != SourceKind::Folder || base.fact("version").is_some() {
            match fs::remove_file(self.folder.join("auto.cnf")) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::file("remove", self.folder.join("auto.cnf"), error));
                }
                _ => {}
            }
        }
        if clone {
            make_dir(&self.folder.join("mysql"))?;
            touch(&steer.join(FIX))?;
            touch(&steer.join(REPLACE))?;
            let in_progress = steer.join(IN_PROGRESS);
            fs::remove_file(&in_progress).map_err(|source| Error::file("remove", &in_progress, source))?;
            sync_dir(&steer)?;
        }
        sync_dir(&self.folder)?;
        Ok(done)
    }
}

/// Errors unless what is in the folder may be rewritten by `--delta`; nothing is changed.
pub fn refuse_over(folder: &Path, over: Over) -> Result<()> {
    match Marker::read(folder)?.map(|there| there.state) {
        // The server that a killed restore left is ended before its files are rewritten.
        Some(State::UnderWay) => {}
        Some(State::Fenced) => refuse_in_use(folder)?,
        None => {
            if over == Over::Restored
                && let Some(found) = first_of_others(folder)?
            {
                return Err(Error::NotOurs { folder: folder.to_path_buf(), found });
            }
            refuse_in_use(folder)?;
        }
    }
    bytes_below(folder, true).map(drop)
}

fn refuse_in_use(folder: &Path) -> Result<()> {
    let real = folder.canonicalize().map_err(|source| Error::file("open the folder", folder, source))?;
    let evidence = holdfast_engine::in_use::server_at(&real)
        .map_err(|source| Error::file("look for a server in", folder, source))?;
    match evidence {
        Some(evidence) => Err(Error::InUse { folder: folder.to_path_buf(), evidence }),
        None => Ok(()),
    }
}

fn refuse_if_taken(folder: &Path, marker: &Marker, Taking { going_on, over }: Taking) -> Result<()> {
    if let Some(over) = over {
        return refuse_over(folder, over);
    }
    if let Some(there) = Marker::read(folder)? {
        let same_base = there.base == marker.base && there.server == marker.server;
        let same_base = same_base && there.tables == marker.tables;
        let words = |m: &Marker| {
            let tables = m.tables.as_ref().map_or_else(String::new, |tables| format!("{tables} of "));
            format!("{tables}{} from backup {} to {}", m.server, m.base, m.target)
        };
        return match there.state {
            _ if same_base && going_on => Ok(()),
            State::UnderWay if same_base && there.target == marker.target => Ok(()),
            State::Fenced if !going_on => Err(Error::NotEmpty {
                folder: folder.to_path_buf(),
                found: format!("a restored server: {}", words(&there)),
            }),
            _ => Err(Error::OtherRestore {
                folder: folder.to_path_buf(),
                there: words(&there),
                wanted: words(marker),
            }),
        };
    }
    if going_on {
        return Err(Error::NoRestore {
            folder: folder.to_path_buf(),
            why: "it has no marker of a restore that could go on (handed over already?)".to_owned(),
        });
    }
    match first_of_others(folder)? {
        Some(found) => Err(Error::NotEmpty { folder: folder.to_path_buf(), found }),
        None => Ok(()),
    }
}

/// A name in the folder that a restore which died before its marker does not leave.
fn first_of_others(folder: &Path) -> Result<Option<String>> {
    let entries = fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("list", folder, source))?;
        let name = entry.file_name();
        if name != LOCK && name != format!("{MARKER}.new").as_str() {
            return Ok(Some(name.to_string_lossy().into_owned()));
        }
    }
    Ok(None)
}

/// Bytes that what is in the folder takes on the disk; `on_one` refuses what is mounted below it.
fn bytes_below(folder: &Path, on_one: bool) -> Result<u64> {
    let mut bytes = 0_u64;
    let device = fs::metadata(folder).map_err(|source| Error::file("look at", folder, source))?.dev();
    let entries = fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("list", folder, source))?;
        let path = entry.path();
        let facts = entry.metadata().map_err(|source| Error::file("look at", &path, source))?;
        if on_one && facts.dev() != device {
            return Err(Error::Mounted { path });
        }
        bytes = bytes.saturating_add(match facts.is_dir() {
            true => bytes_below(&path, on_one)?,
            false => facts.blocks().saturating_mul(512),
        });
    }
    Ok(bytes)
}

/// The nearest folder above that is there: what is missing in between will be made.
fn nearest_above(folder: &Path) -> &Path {
    folder.ancestors().find(|p| p.exists()).unwrap_or(Path::new("."))
}

fn check_space(folder: &Path, needed: u64) -> Result<()> {
    let stat = rustix::fs::statvfs(folder)
        .map_err(|source| Error::file("ask for the free space of", folder, source.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    if free < needed {
        return Err(Error::NoSpace { folder: folder.to_path_buf(), free, needed });
    }
    Ok(())
}

/// Says of an error that comes of a full disk that it does.
pub(crate) fn full(folder: &Path, error: Error) -> Error {
    // A server that can't write fails in many ways, and dies of some: with less than this free, that is why.
    const SERVER_FULL_BELOW: u64 = 16 << 20;
    // InnoDB extends files by some MiB at a time.
    const TABLE_FULL_BELOW: u64 = 256 << 20;
    // The system's word for ENOSPC, as our own I/O, the servers' messages and their logs quote it.
    const SAID: [&str; 8] = [
        "no space is left",
        "no space left on device",
        "os error 28",
        "errno: 28",
        "errno 28",
        "error: 28",
        "disk is full",
        "disk full",
    ];
    let free =
        rustix::fs::statvfs(folder).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    let text = error.to_string().to_lowercase();
    let of_server = match &error {
        Error::TargetFull { .. } => return error,
        Error::Replay(
            holdfast_replay::Error::Log(_)
            | holdfast_replay::Error::Refused(_)
            | holdfast_replay::Error::Stopped(_),
        ) => false,
        Error::Replay(_) | Error::Engine(_) | Error::Sql(_) => true,
        _ => false,
    };
    let table_full = text.contains("error 1114") && free < TABLE_FULL_BELOW;
    if SAID.iter().any(|word| text.contains(word)) || of_server && (table_full || free < SERVER_FULL_BELOW) {
        return Error::TargetFull { folder: folder.to_path_buf(), free, source: Box::new(error) };
    }
    error
}

fn make_dir(path: &Path) -> Result<()> {
    match fs::DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::file("make the folder", path, error))
        }
        _ => Ok(()),
    }
}

fn touch(path: &Path) -> Result<()> {
    File::create(path).and_then(|file| file.sync_all()).map_err(|source| Error::file("make", path, source))
}

fn sync_dir(path: &Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(|source| Error::file("sync", path, source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Foreign;
    use holdfast_format::record::Coordinates;

    fn marker(base: &str) -> Marker {
        Marker {
            state: State::UnderWay,
            base: base.to_owned(),
            target: "the latest point".to_owned(),
            server: "shop".to_owned(),
            engine: String::new(),
            port: None,
            tables: None,
            settings: Vec::new(),
            replica_of: None,
        }
    }

    fn take(folder: &Path, base: &str, needed: u64) -> Result<Target> {
        Target::take(folder, &marker(base), Space { base: 0, needed }, Taking::default())
            .map(|(target, _)| target)
    }

    struct Files(SourceKind);

    impl Base for Files {
        fn id(&self) -> String {
            "b".to_owned()
        }
        fn finished_us(&self) -> i64 {
            0
        }
        fn kind(&self) -> SourceKind {
            self.0
        }
        fn coordinates(&self) -> &Coordinates {
            &Coordinates::None
        }
        fn fact(&self, _: &str) -> Option<&str> {
            None
        }
        fn warnings(&self) -> Vec<String> {
            Vec::new()
        }
        fn bytes(&self) -> u64 {
            0
        }
        fn files(&self) -> u64 {
            0
        }
        fn restore_into(
            &self,
            dir: &Path,
            progress: &(dyn Fn(LayingOut) -> ControlFlow<()> + Sync),
        ) -> Result<LaidOut, Foreign> {
            // While files are missing, a server must refuse to start.
            assert_eq!(dir.join("#clone/#status_in_progress").exists(), self.0 == SourceKind::Clone);
            fs::write(dir.join("ibdata1"), "pages")?;
            fs::write(dir.join("auto.cnf"), "the source's identity")?;
            let _ = progress(LayingOut { bytes: 5, bytes_total: 5 });
            Ok(LaidOut { files: 2, bytes: 5, blocks: 1, ..LaidOut::default() })
        }
    }

    #[test]
    fn a_clone_is_laid_out_with_what_its_recovery_needs() {
        let dir = tempfile::tempdir().unwrap();
        let target = take(&dir.path().join("new"), "b", 0).unwrap();
        target.fill(&Files(SourceKind::Clone), None, &|_| ControlFlow::Continue(())).unwrap();
        for name in ["ibdata1", "mysql", "#clone/#status_fix", "#clone/#replace_files", MARKER] {
            assert!(target.folder().join(name).exists(), "{name}");
        }
        assert!(!target.folder().join("#clone/#status_in_progress").exists());
        assert!(!target.folder().join("auto.cnf").exists(), "the source's identity must not be restored");
    }

    #[test]
    fn another_kind_is_laid_out_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = take(dir.path(), "b", 0).unwrap();
        target.fill(&Files(SourceKind::Xbstream), None, &|_| ControlFlow::Continue(())).unwrap();
        assert!(!target.folder().join("#clone").exists());
        assert!(!target.folder().join("mysql").exists());
    }

    #[test]
    fn a_folder_is_laid_out_over_if_a_restore_made_it_or_somebody_typed_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("data");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("precious"), "x").unwrap();
        let over = |over, base: &str, needed| {
            let how = Taking { going_on: false, over: Some(over) };
            Target::take(&folder, &marker(base), Space { base: 0, needed }, how)
        };
        let names = || fs::read_dir(&folder).unwrap().count();
        let error = over(Over::Restored, "b", 0).unwrap_err();
        assert!(matches!(&error, Error::NotOurs { found, .. } if found == "precious"), "{error}");
        let error = over(Over::Anything, "b", u64::MAX).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(names(), 1, "it is left as it was found");

        let (target, found) = over(Over::Anything, "b", 0).unwrap();
        assert!(matches!(found, Found::Nothing));
        assert!(folder.join("precious").exists(), "what goes is the layout's affair");
        drop(target);
        // From here on it is ours: the same command goes on, another one takes it over.
        over(Over::Restored, "b", 0).unwrap();
        let mut fenced = marker("b");
        fenced.state = State::Fenced;
        fenced.write(&folder).unwrap();
        fs::write(folder.join(PROGRESS), "of the one before").unwrap();
        let (_target, found) = over(Over::Restored, "c", 0).unwrap();
        assert!(matches!(found, Found::Nothing));
        assert!(!folder.join(PROGRESS).exists(), "it says nothing of the new restore");
        assert!(Marker::read(&folder).unwrap().unwrap().goes_on_to(&marker("c")));
    }

    #[test]
    fn a_folder_with_anything_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = take(dir.path(), "b", 0).unwrap_err();
        assert!(error.to_string().contains("precious"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_restore_of_the_same_thing_goes_on_and_of_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = take(dir.path(), "b", 0).unwrap();
        target.fill(&Files(SourceKind::Clone), None, &|_| ControlFlow::Continue(())).unwrap();
        assert!(matches!(take(dir.path(), "b", 0), Err(Error::Busy { .. })));
        drop(target);
        let error = take(dir.path(), "c", 0).unwrap_err();
        assert!(matches!(error, Error::OtherRestore { .. }), "{error}");
        assert!(dir.path().join("ibdata1").exists());
        let again = take(dir.path(), "b", 0).unwrap();
        assert!(again.folder().join("ibdata1").exists(), "it goes on");
        fs::write(dir.path().join("#clone/left"), "x").unwrap();
        again.fill(&Files(SourceKind::Clone), None, &|_| ControlFlow::Continue(())).unwrap();
        assert!(!again.folder().join("#clone/left").exists(), "the recovery begins anew");
    }

    #[test]
    fn a_restored_server_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let done = Marker { state: State::Fenced, ..marker("b") };
        done.write(dir.path()).unwrap();
        let error = take(dir.path(), "b", 0).unwrap_err();
        assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    }

    #[test]
    fn too_little_space_is_an_error_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let error = take(&folder, "b", u64::MAX).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(!folder.exists());
        let error = take(dir.path(), "b", u64::MAX).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
