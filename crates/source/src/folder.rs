//! A folder at rest: the datadir of a stopped server, or anything else.
//!
//! What is taken and how:
//!
//! | in the folder | in the copy |
//! |---|---|
//! | file | its bytes, its permission bits; holes stay holes |
//! | folder, empty ones too | a folder with its permission bits |
//! | symbolic link | what it leads to, in its place, and a warning; a link that leads nowhere or back is left out with a warning |
//! | socket, pipe, device | left out |
//! | tables of a datadir outside of it (`.isl`, DATA DIRECTORY), encrypted tablespaces | the copy is refused, by name |
//! | `ibtmp*`, `#innodb_temp/`, `*.pid` of a datadir | left out: a server makes them anew at every start |
//! | `holdfast-in-place.*` of a datadir | left out: the mark of a restore over it |
//!
//! A datadir in use is refused. A running server is known by the write lock that InnoDB, Aria and MyISAM hold on
//! their files (`fcntl` locks, asked of the kernel with F_GETLK, so this works for servers of this host), or by a
//! pid file whose process lives and works in this folder. Every file is asked when it is opened. A file that
//! changes while it is read (size, time of change, inode), or a folder whose entries do, is an error.
//!
//! A file that the copy before has under the same name, with the same size, inode, time of last write and time of last
//! change, is not read: its content is taken from there. What this trusts: that the kernel gives every write a new time
//! (it does, unless the clock is set back and the old time is met again to the nanosecond), that nobody writes to the
//! device beneath the file system, and that bytes which were never written stay as they are (a disk that rots is not
//! noticed this way). Not trusted, so read again: a file changed within two seconds before the copy, and one in which a
//! copy found a damaged page. [`FolderSource::force`] reads everything.

mod elsewhere;
mod facts;
mod fit;
mod in_use;
mod read;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Instant;

use holdfast_io::EngineChoice;
use read::How;

use crate::error::Error;
use crate::outcome::Outcome;
use crate::sink::Sink;
use crate::source::{Source, Watch};
use crate::verify::VerifyingSink;

/// Threads that hand what was read to the sink: more than the cores of a small host, because a sink waits at times.
const READERS: usize = 4;

/// A folder as a source.
#[derive(Debug, Clone)]
pub struct FolderSource {
    dir: PathBuf,
    how: How,
}

impl FolderSource {
    /// For the folder `dir`. Nothing is read yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), how: How { readers: READERS, force: false, io: EngineChoice::Probe } }
    }

    /// With another number of threads that hand blocks to the sink; at least one.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.how.readers = readers.max(1);
        self
    }

    /// Whether files that are as the copy before has them are read all the same.
    #[must_use]
    pub fn force(mut self, force: bool) -> Self {
        self.how.force = force;
        self
    }

    /// With another engine than the one that a probe finds.
    #[must_use]
    pub fn io(mut self, io: EngineChoice) -> Self {
        self.how.io = io;
        self
    }

    /// Refuses a datadir that can't be copied, as far as its files tell while a server still runs on them: encrypted
    /// tablespaces, tables outside of it, tablespaces that can't be opened.
    ///
    /// # Errors
    /// As the copy itself.
    pub fn refuse_unfit(&self) -> Result<(), Error> {
        fit::refuse(&self.dir.canonicalize().map_err(Error::io("find", &self.dir))?)
    }

    /// The folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

impl Source for FolderSource {
    fn copy(&mut self, sink: &dyn Sink, watch: &dyn Watch) -> Result<Outcome, Error> {
        let started = Instant::now();
        let dir = self.dir.canonicalize().map_err(Error::io("find", &self.dir))?;
        in_use::refuse_running(&dir)?;
        let tree = walk::walk(&dir)?;
        if dir.join("ibdata1").exists() {
            elsewhere::refuse(&dir)?;
        }
        let verifying = VerifyingSink::new(sink);
        let done = read::copy_tree(&tree, &verifying, watch, self.how)?;
        // A server that was started meanwhile, or a file that came or went, spoils the copy as a whole.
        tree.confirm_unchanged()?;
        in_use::refuse_running(&dir)?;
        let mut outcome = Outcome {
            bytes: done.bytes,
            files: done.files,
            facts: facts::of_folder(&dir),
            ..Outcome::empty()
        };
        for (name, count) in [("unread_files", done.unread_files), ("unread_bytes", done.unread_bytes)] {
            outcome.facts.push((name.to_owned(), count.to_string()));
        }
        outcome.facts.push(("copy_seconds".to_owned(), started.elapsed().as_secs().to_string()));
        outcome.warnings = tree.warnings;
        verifying.refuse_encrypted()?;
        let (pages, warnings) = verifying.finish();
        outcome.pages = pages;
        outcome.warnings.extend(warnings);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
