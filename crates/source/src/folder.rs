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
//! | `ibtmp*`, `#innodb_temp/`, `*.pid` of a datadir | left out: a server makes them anew at every start |
//!
//! A datadir in use is refused. A running server is known by the write lock that InnoDB, Aria and MyISAM hold on
//! their files (`fcntl` locks, asked of the kernel with F_GETLK, so this works for servers of this host), or by a
//! pid file whose process lives and works in this folder. Every file is asked when it is opened. A file that
//! changes while it is read (size, time of change, inode), or a folder whose entries do, is an error.

mod facts;
mod in_use;
mod read;
mod walk;

use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::error::Error;
use crate::outcome::Outcome;
use crate::sink::Sink;
use crate::source::{Source, Watch};
use crate::verify::VerifyingSink;

/// Threads that read. More than the cores of a small host, because they wait for the disk in turn.
const READERS: usize = 4;

/// A folder as a source.
#[derive(Debug, Clone)]
pub struct FolderSource {
    dir: PathBuf,
    readers: usize,
}

impl FolderSource {
    /// For the folder `dir`. Nothing is read yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), readers: READERS }
    }

    /// With another number of reading threads; at least one.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
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
        let verifying = VerifyingSink::new(sink);
        let (bytes, files) = read::copy_tree(&tree, &verifying, watch, self.readers)?;
        // A server that was started meanwhile, or a file that came or went, spoils the copy as a whole.
        tree.confirm_unchanged()?;
        in_use::refuse_running(&dir)?;
        let mut outcome = Outcome { bytes, files, facts: facts::of_folder(&dir), ..Outcome::empty() };
        outcome.facts.push(("copy_seconds".to_owned(), started.elapsed().as_secs().to_string()));
        outcome.warnings = tree.warnings;
        let (pages, warnings) = verifying.finish();
        outcome.pages = pages;
        outcome.warnings.extend(warnings);
        Ok(outcome)
    }
}

#[cfg(test)]
mod tests;
