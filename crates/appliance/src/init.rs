//! `init`: a repository, its keys, its recovery kit.

use crate::catalogue::{Key, open_options, secret, sentence, store_error};
use crate::error::{Error, Result};
use crate::settings::Environment;
use holdfast_io::{FileLock, LockKind, RealDisk};
use holdfast_store::{Argon2Cost, CreateOptions, Error as Store, Repository, place_for_new};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use zeroize::Zeroizing;

/// What `init` made.
#[derive(Debug)]
pub struct Made {
    /// The repository's id.
    pub repository: String,
    /// The text that opens it without a passphrase.
    pub kit: Zeroizing<String>,
}

/// Makes a repository in `place`, which must be empty or absent, or hold only what an `init` left that was killed.
///
/// # Errors
/// `Usage` when the folder holds something or is a repository already.
pub fn init(environment: &Environment, place: &Path, key: &Key, program: &str) -> Result<Made> {
    let secret = secret(key)?;
    let unfit = |error: holdfast_io::Error| Error::failed(sentence(&error.to_string()));
    let directory = place_for_new(RealDisk::shared(), place).map_err(|error| match error {
        Store::Io(error) => Error::usage(format!("The folder {} can't be used: {error}.", place.display())),
        error => store_error(place, error),
    })?;
    restrict(place)
        .map_err(|error| Error::usage(format!("The folder {} can't be used: {error}.", place.display())))?;
    let options = CreateOptions {
        open: open_options(environment),
        argon2: Argon2Cost::default(),
        program: program.to_owned(),
    };
    directory.probe_locks().map_err(unfit)?;
    let (repository, kit) =
        Repository::create(Arc::new(directory), options, &secret).map_err(|e| store_error(place, e))?;
    Ok(Made { repository: repository.id().to_string(), kit: kit.to_text() })
}

/// Nobody else has any business in a repository's folder.
fn restrict(place: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(place, std::fs::Permissions::from_mode(0o700))
}

/// A new file for the kit, made before the repository so that a kit is never without a place; locked, so that no other
/// `init` takes it while it is empty.
#[derive(Debug)]
pub struct KitFile {
    path: PathBuf,
    file: std::fs::File,
    /// None where the file system grants no locks.
    _lock: Option<FileLock>,
}

impl KitFile {
    /// Makes the file, readable by its owner only, or takes the empty one that an `init` left that was killed.
    ///
    /// # Errors
    /// `Usage` when it holds something, is anybody else's, or can't be made.
    pub fn reserve(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => match left_empty(path) {
                Some(left) => locked(left, false),
                None => Err(error),
            },
            made => made.and_then(|made| locked(made, true)),
        };
        let (file, lock) = file.map_err(|error| {
            Error::usage(format!("The recovery kit can't be written to {}: {error}.", path.display()))
                .with_next("name a file that does not exist yet")
        })?;
        Ok(Self { path: path.to_path_buf(), file, _lock: lock })
    }

    /// Writes the kit.
    ///
    /// # Errors
    /// `Failed`; the repository exists by then, and its kit can be printed again.
    pub fn write(mut self, kit: &str) -> Result<()> {
        let written = self.file.write_all(kit.as_bytes()).and_then(|()| self.file.sync_all());
        // A name without a folder is one of the folder we are in.
        let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let written = written.and_then(|()| std::fs::File::open(folder)?.sync_all());
        written.map_err(|error| {
            Error::failed(format!("The recovery kit can't be written to {}: {error}.", self.path.display()))
        })
    }

    /// Removes the file: no repository was made.
    pub fn discard(self) {
        // Leaving an empty file behind would only be untidy; one that holds something is somebody's.
        if self.file.metadata().is_ok_and(|found| found.len() == 0) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// An empty file of our own, under no other name, that nobody else may read: what [`KitFile::reserve`] makes.
fn left_empty(path: &Path) -> Option<std::fs::File> {
    use rustix::fs::{Mode, OFlags};
    use std::os::unix::fs::MetadataExt;
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = std::fs::File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    let found = file.metadata().ok()?;
    let own = found.uid() == rustix::process::geteuid().as_raw();
    let ours = own && found.is_file() && found.nlink() == 1 && found.mode() & 0o077 == 0;
    (ours && found.len() == 0).then_some(file)
}

/// The file with its lock, and still empty. `made`: this call made it.
fn locked(file: std::fs::File, made: bool) -> std::io::Result<(std::fs::File, Option<FileLock>)> {
    use std::os::unix::fs::MetadataExt;
    let lock = match FileLock::of(file.try_clone()?, LockKind::Exclusive) {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => return Err(std::io::Error::other("another init is about to write its kit there")),
        // No locks here: then who made the file has it, and nobody takes what another one left.
        Err(error) if !made => return Err(error),
        Err(_) => None,
    };
    // Whoever had it until now may have written a kit, or removed the file.
    let found = file.metadata()?;
    if found.len() != 0 || found.nlink() != 1 {
        return Err(std::io::Error::other("another init had it a moment ago"));
    }
    Ok((file, lock))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::KitFile;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn two_at_once_do_not_share_a_kit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit");
        let first = KitFile::reserve(&path).unwrap();
        let refused = KitFile::reserve(&path).unwrap_err().to_string();
        assert!(refused.contains("another init") && refused.contains("kit"), "{refused}");
        assert!(path.exists());
        first.write("words").unwrap();
        assert!(KitFile::reserve(&path).is_err(), "it holds a kit");

        // What somebody wrote meanwhile is left alone.
        let other = dir.path().join("other");
        let reserved = KitFile::reserve(&other).unwrap();
        fs::write(&other, "words").unwrap();
        reserved.discard();
        assert_eq!(fs::read_to_string(&other).unwrap(), "words");

        // One that was opened before its holder removed it is no place for a kit.
        let gone = dir.path().join("gone");
        let holder = KitFile::reserve(&gone).unwrap();
        let opened = super::left_empty(&gone).unwrap();
        holder.discard();
        assert!(super::locked(opened, false).is_err());
    }

    #[test]
    fn an_empty_kit_that_a_killed_init_left_is_taken_and_nobody_elses_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("kit");
        drop(KitFile::reserve(&path).unwrap());
        KitFile::reserve(&path).unwrap().write("words").unwrap();
        assert!(KitFile::reserve(&path).is_err(), "it holds a kit");
        assert_eq!(fs::read_to_string(&path).unwrap(), "words");

        // Empty, and yet whoever made it may read it, or reach it by another name.
        for mode in [0o640, 0o604] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert!(KitFile::reserve(&path).is_err(), "{mode:o}");
        }
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        let other = dir.path().join("other");
        std::os::unix::fs::symlink(&path, &other).unwrap();
        assert!(KitFile::reserve(&other).is_err(), "a link");
        fs::remove_file(&other).unwrap();
        fs::hard_link(&path, &other).unwrap();
        assert!(KitFile::reserve(&path).is_err(), "two names");
        fs::remove_file(&other).unwrap();
        KitFile::reserve(&path).unwrap().discard();
        assert!(!path.exists());
    }
}
