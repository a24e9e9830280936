//! The target folder: taken, filled, made ready for the first start.
//!
//! A folder is taken only if it is empty, or holds an unfinished restore of the same base to the
//! same target: then it goes on, and the base keeps the blocks that are as they should be. Nothing is
//! written before the space is known to suffice.
//!
//! A clone's files need a few more to be recovered as a clone (observed on MySQL 9.7.4): the
//! folder `mysql/`; `#clone/#status_fix`, by which the server makes schemas and tables that were
//! not cloned; `#clone/#replace_files`, by which it reports the recovered coordinates; and, while
//! files are missing, `#clone/#status_in_progress`, at whose sight a server refuses to start.
//! No `auto.cnf` is laid out, so that the restored server gives itself an identity of its own.

use std::fs::{self, File};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use holdfast_format::record::SourceKind;

use crate::error::{Error, Result};
use crate::marker::{FolderLock, LOCK, MARKER, Marker, State};
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
    _lock: FolderLock,
}

impl Target {
    /// Takes `folder` for the restore that `marker` describes. `space_needed` are bytes.
    pub fn take(folder: &Path, marker: &Marker, space_needed: u64) -> Result<Self> {
        let existed = folder.exists();
        if existed {
            refuse_if_taken(folder, marker)?;
        } else {
            check_space(nearest_above(folder), space_needed)?;
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(folder)
                .map_err(|source| Error::file("make the folder", folder, source))?;
        }
        let folder =
            folder.canonicalize().map_err(|source| Error::file("open the folder", folder, source))?;
        let lock = FolderLock::take(&folder)?;
        if Marker::read(&folder)?.is_some() {
            // A killed restore leaves its server behind; it must be gone before its files are rewritten.
            holdfast_engine::kill_server_on(&folder)?;
        }
        let there = if existed { bytes_below(&folder)? } else { 0 };
        if existed && let Err(error) = check_space(&folder, space_needed.saturating_sub(there)) {
            // Left as it was found.
            let _ = fs::remove_file(folder.join(LOCK));
            return Err(error);
        }
        // A datadir is nobody else's business.
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700))
            .map_err(|source| Error::file("set the permissions of", &folder, source))?;
        marker.write(&folder)?;
        Ok(Self { folder, _lock: lock })
    }

    /// The folder, as an absolute path without links.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Writes the base's files and what its kind needs for the first start. Returns when all is synced.
    pub fn fill(&self, base: &dyn Base, progress: &(dyn Fn(LayingOut) + Sync)) -> Result<LaidOut> {
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
        let done = base.restore_into(&self.folder, progress).map_err(Error::Base)?;
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

/// Says whether the target would be taken, without touching it: for `--dry-run`.
pub fn check(folder: &Path, marker: &Marker, space_needed: u64) -> Result<()> {
    if !folder.exists() {
        return check_space(nearest_above(folder), space_needed);
    }
    refuse_if_taken(folder, marker)?;
    check_space(folder, space_needed.saturating_sub(bytes_below(folder)?))
}

fn refuse_if_taken(folder: &Path, marker: &Marker) -> Result<()> {
    if let Some(there) = Marker::read(folder)? {
        if there.state == State::UnderWay && there.base == marker.base && there.target == marker.target {
            return Ok(());
        }
        let words = |m: &Marker| format!("{} from backup {} to {}", m.server, m.base, m.target);
        return match there.state {
            State::UnderWay => Err(Error::OtherRestore {
                folder: folder.to_path_buf(),
                there: words(&there),
                wanted: words(marker),
            }),
            State::Fenced => Err(Error::NotEmpty {
                folder: folder.to_path_buf(),
                found: format!("a restored server: {}", words(&there)),
            }),
        };
    }
    let entries = fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("list", folder, source))?;
        let name = entry.file_name();
        // A restore that died before its marker leaves nothing but these.
        if name != LOCK && name != format!("{MARKER}.new").as_str() {
            return Err(Error::NotEmpty {
                folder: folder.to_path_buf(),
                found: name.to_string_lossy().into_owned(),
            });
        }
    }
    Ok(())
}

/// Bytes that an unfinished restore takes already.
fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0_u64;
    let entries = fs::read_dir(folder).map_err(|source| Error::file("list", folder, source))?;
    for entry in entries {
        let entry = entry.map_err(|source| Error::file("list", folder, source))?;
        let path = entry.path();
        let facts = entry.metadata().map_err(|source| Error::file("look at", &path, source))?;
        bytes = bytes.saturating_add(match facts.is_dir() {
            true => bytes_below(&path)?,
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
        }
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
            progress: &(dyn Fn(LayingOut) + Sync),
        ) -> Result<LaidOut, Foreign> {
            // While files are missing, a server must refuse to start.
            assert_eq!(dir.join("#clone/#status_in_progress").exists(), self.0 == SourceKind::Clone);
            fs::write(dir.join("ibdata1"), "pages")?;
            fs::write(dir.join("auto.cnf"), "the source's identity")?;
            progress(LayingOut { bytes: 5, bytes_total: 5 });
            Ok(LaidOut { files: 2, bytes: 5, blocks: 1, healed_segments: 0 })
        }
    }

    #[test]
    fn a_clone_is_laid_out_with_what_its_recovery_needs() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::take(&dir.path().join("new"), &marker("b"), 0).unwrap();
        target.fill(&Files(SourceKind::Clone), &|_| ()).unwrap();
        for name in ["ibdata1", "mysql", "#clone/#status_fix", "#clone/#replace_files", MARKER] {
            assert!(target.folder().join(name).exists(), "{name}");
        }
        assert!(!target.folder().join("#clone/#status_in_progress").exists());
        assert!(!target.folder().join("auto.cnf").exists(), "the source's identity must not be restored");
    }

    #[test]
    fn another_kind_is_laid_out_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::take(dir.path(), &marker("b"), 0).unwrap();
        target.fill(&Files(SourceKind::Xbstream), &|_| ()).unwrap();
        assert!(!target.folder().join("#clone").exists());
        assert!(!target.folder().join("mysql").exists());
    }

    #[test]
    fn a_folder_with_anything_in_it_is_refused_and_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "x").unwrap();
        let error = Target::take(dir.path(), &marker("b"), 0).unwrap_err();
        assert!(error.to_string().contains("precious"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_unfinished_restore_of_the_same_thing_goes_on_and_of_another_one_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let target = Target::take(dir.path(), &marker("b"), 0).unwrap();
        target.fill(&Files(SourceKind::Clone), &|_| ()).unwrap();
        assert!(matches!(Target::take(dir.path(), &marker("b"), 0), Err(Error::Busy { .. })));
        drop(target);
        let error = Target::take(dir.path(), &marker("c"), 0).unwrap_err();
        assert!(matches!(error, Error::OtherRestore { .. }), "{error}");
        assert!(dir.path().join("ibdata1").exists());
        let again = Target::take(dir.path(), &marker("b"), 0).unwrap();
        assert!(again.folder().join("ibdata1").exists(), "it goes on");
        fs::write(dir.path().join("#clone/left"), "x").unwrap();
        again.fill(&Files(SourceKind::Clone), &|_| ()).unwrap();
        assert!(!again.folder().join("#clone/left").exists(), "the recovery begins anew");
    }

    #[test]
    fn a_restored_server_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let done = Marker { state: State::Fenced, ..marker("b") };
        done.write(dir.path()).unwrap();
        let error = Target::take(dir.path(), &marker("b"), 0).unwrap_err();
        assert!(matches!(error, Error::NotEmpty { .. }), "{error}");
    }

    #[test]
    fn too_little_space_is_an_error_before_anything_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("new");
        let error = Target::take(&folder, &marker("b"), u64::MAX).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert!(!folder.exists());
        let error = Target::take(dir.path(), &marker("b"), u64::MAX).unwrap_err();
        assert!(matches!(error, Error::NoSpace { .. }), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(
            check(dir.path(), &marker("b"), u64::MAX).is_err() && check(dir.path(), &marker("b"), 0).is_ok()
        );
    }
}
