//! `init`: a repository, its keys, its recovery kit.

use crate::catalogue::{Key, open_options, secret, sentence, store_error};
use crate::error::{Error, Result};
use crate::settings::Environment;
use holdfast_io::{Directory, RealDisk};
use holdfast_store::{Argon2Cost, CreateOptions, Repository};
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

/// Makes a repository in `place`, which must be empty or absent.
///
/// # Errors
/// `Usage` when the folder holds something or is a repository already.
pub fn init(environment: &Environment, place: &Path, key: &Key, program: &str) -> Result<Made> {
    let secret = secret(key)?;
    let failed = |error: std::io::Error| {
        Error::usage(format!("The folder {} can't be used: {error}.", place.display()))
    };
    match std::fs::read_dir(place) {
        Ok(mut entries) => {
            if entries.next().is_some() && !looks_like_a_repository(place) {
                return Err(Error::usage(format!("The folder {} is not empty.", place.display()))
                    .with_next("name an empty folder, or one that does not exist"));
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            std::fs::create_dir_all(place).map_err(failed)?;
        }
        Err(error) => return Err(failed(error)),
    }
    restrict(place).map_err(failed)?;
    let options = CreateOptions {
        open: open_options(environment),
        argon2: Argon2Cost::default(),
        program: program.to_owned(),
    };
    let unfit = |error: holdfast_io::Error| Error::failed(sentence(&error.to_string()));
    let directory = Directory::create(RealDisk::shared(), place).map_err(unfit)?;
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

/// A folder in which `init` died half-way, or a whole repository: the store tells which.
fn looks_like_a_repository(place: &Path) -> bool {
    holdfast_format::names::KEYRINGS.iter().any(|name| place.join(name).exists())
}

/// A new file for the kit, made before the repository so that a kit is never without a place.
#[derive(Debug)]
pub struct KitFile {
    path: PathBuf,
    file: std::fs::File,
}

impl KitFile {
    /// Makes the file, readable by its owner only.
    ///
    /// # Errors
    /// `Usage` when it exists or can't be made.
    pub fn reserve(path: &Path) -> Result<Self> {
        use std::os::unix::fs::OpenOptionsExt;
        let file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| {
            Error::usage(format!("The recovery kit can't be written to {}: {error}.", path.display()))
                .with_next("name a file that does not exist yet")
        })?;
        Ok(Self { path: path.to_path_buf(), file })
    }

    /// Writes the kit.
    ///
    /// # Errors
    /// `Failed`; the repository exists by then, and its kit can be printed again.
    pub fn write(mut self, kit: &str) -> Result<()> {
        let written = self.file.write_all(kit.as_bytes()).and_then(|()| self.file.sync_all());
        written.map_err(|error| {
            Error::failed(format!("The recovery kit can't be written to {}: {error}.", self.path.display()))
        })
    }

    /// Removes the file: no repository was made.
    pub fn discard(self) {
        // The file is empty; leaving it behind would only be untidy.
        let _ = std::fs::remove_file(&self.path);
    }
}
