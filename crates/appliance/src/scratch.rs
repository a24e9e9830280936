//! A folder to work in, which is gone at the end: with a mark that says whose it is, and a lock for as long as it is used.
//!
//! What a command that was killed left in it, the same command clears or goes on with; a folder of anybody else's is
//! refused.

use crate::catalogue::sentence;
use crate::error::{Code, Error, Result};
use holdfast_io::FileLock;
use std::fs;
use std::path::{Path, PathBuf};

/// The mark and lock in the folder.
const MARK: &str = "holdfast-scratch";

/// A folder to work in.
#[derive(Debug)]
pub(crate) struct Scratch {
    dir: PathBuf,
    _lock: FileLock,
}

impl Scratch {
    /// Takes the folder, which is absent, empty, or one that we marked before.
    ///
    /// # Errors
    /// `Usage` when it holds something else, `Locked` when another command works in it.
    pub(crate) fn take(dir: &Path) -> Result<Self> {
        let cant = |doing: &str, e: std::io::Error| {
            Error::failed(format!("Can't {doing} the folder {}: {e}.", dir.display()))
        };
        fs::create_dir_all(dir).map_err(|e| cant("make", e))?;
        refuse_another_owner(dir).map_err(|e| cant("look at", e))??;
        let mark = dir.join(MARK);
        if !mark.exists() {
            let mut entries = fs::read_dir(dir).map_err(|e| cant("read", e))?;
            if let Some(found) = entries.next() {
                let name = found.map_err(|e| cant("read", e))?.file_name();
                return Err(Error::usage(format!(
                    "{} is not empty: it holds {}.",
                    dir.display(),
                    name.to_string_lossy()
                ))
                .with_next("name a folder to work in that is empty or does not exist"));
            }
        }
        match FileLock::take(&mark) {
            Ok(Some(lock)) => Ok(Self { dir: dir.to_path_buf(), _lock: lock }),
            Ok(None) => Err(Error::new(Code::Locked, format!("Another command works in {}.", dir.display()))
                .with_next("wait until it is done, or name another folder with --scratch")),
            Err(e) => Err(cant("mark", e)),
        }
    }

    /// Where a server's data directory is made.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// A path beside it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Ends a server that still runs on the data directory, and removes that.
    pub(crate) fn clear_data(&self) -> Result<()> {
        let data = self.data();
        if !data.exists() {
            return Ok(());
        }
        holdfast_engine::kill_server_on(&data)
            .map_err(|error| Error::failed(sentence(&error.to_string())))?;
        fs::remove_dir_all(&data)
            .map_err(|e| Error::failed(format!("The folder {} can't be removed: {e}.", data.display())))
    }

    /// Removes everything.
    pub(crate) fn clear(self) -> Result<()> {
        self.clear_data()?;
        fs::remove_dir_all(&self.dir).map_err(|e| {
            Error::failed(format!("The folder {} can't be removed: {e}.", self.dir.display()))
                .with_next("remove it by hand")
        })
    }
}

/// In a folder that belongs to another user, he can rename what we work on below us, or keep its lock.
fn refuse_another_owner(dir: &Path) -> std::io::Result<Result<()>> {
    use std::os::unix::fs::MetadataExt as _;
    let owner = fs::metadata(dir)?.uid();
    if owner == rustix::process::geteuid().as_raw() || owner == 0 {
        return Ok(Ok(()));
    }
    Ok(Err(Error::usage(format!("{} belongs to another user, {owner}.", dir.display()))
        .with_next("name another folder to work in with --scratch")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_somebody_else_is_refused_and_our_own_is_taken_again() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("letter"), b"x").unwrap();
        let refused = Scratch::take(dir.path()).unwrap_err();
        assert!(refused.message.contains("letter") && refused.code == Code::Usage, "{refused}");
        let own = dir.path().join("own");
        let first = Scratch::take(&own).unwrap();
        assert_eq!(Scratch::take(&own).unwrap_err().code, Code::Locked);
        fs::create_dir(first.data()).unwrap();
        drop(first);
        let again = Scratch::take(&own).unwrap();
        assert!(again.data().exists());
        again.clear().unwrap();
        assert!(!own.exists());
    }

    #[test]
    fn a_folder_that_was_let_go_is_free_at_once_while_children_are_started() {
        let dir = tempfile::tempdir().unwrap();
        let own = dir.path().join("own");
        assert_eq!(crate::forks::busy_beside_children(10_000, || Scratch::take(&own).is_ok()), 0);
    }
}
