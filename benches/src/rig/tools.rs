//! The tools that are compared, each called as its users call it, with its own defaults.

mod borg;
mod copy;
mod holdfast;
mod restic;
mod rustic;

pub use borg::Borg;
pub use copy::Copy;
pub use holdfast::{Holdfast, Verified};
pub use restic::Restic;
pub use rustic::Rustic;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::{Result, at};
use super::scenario::Step;

/// The passphrase of every repository that the rig makes.
const PASSPHRASE: &str = "side by side";

/// The folders of one tool's turn.
#[derive(Clone, Debug)]
pub struct Place {
    /// The repository.
    pub repo: PathBuf,
    /// What the tool would keep in a home: configuration, caches. Not counted as stored.
    pub home: PathBuf,
    /// Where restores go.
    pub restored: PathBuf,
    /// What is backed up.
    pub source: PathBuf,
    /// A file that holds the passphrase.
    pub passphrase_file: PathBuf,
}

impl Place {
    /// An empty place in `top`, which did not exist.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn new(top: &Path, source: &Path) -> Result<Self> {
        let home = top.join("home");
        at("make", &home, fs::create_dir_all(&home))?;
        let passphrase_file = home.join("passphrase");
        at("write", &passphrase_file, fs::write(&passphrase_file, PASSPHRASE))?;
        Ok(Self {
            repo: top.join("repo"),
            restored: top.join("restored"),
            source: source.to_path_buf(),
            passphrase_file,
            home,
        })
    }

    /// `program` with this place as its home.
    fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.env("HOME", &self.home).env("XDG_CONFIG_HOME", self.home.join("config"));
        command.env("XDG_CACHE_HOME", self.home.join("cache"));
        command
    }
}

/// One tool.
pub trait Tool {
    /// Its name, as the table shows it.
    fn name(&self) -> &'static str;

    /// How it is set for this comparison, in a few words.
    fn setting(&self) -> &'static str;

    /// Asks for its version; also run to have the program itself in memory.
    fn version(&self, place: &Place) -> Command;

    /// Makes an empty repository; not timed.
    fn init(&self, place: &Place) -> Vec<Command>;

    /// Backs the source up as backup `number`, counted from 1; the one before is the parent.
    fn backup(&self, place: &Place, number: u32) -> Command;

    /// Restores backup `number`, which is the newest, into an empty folder.
    fn restore(&self, place: &Place, number: u32) -> Command;

    /// Where the restored files are, once restored.
    fn restored(&self, place: &Place) -> PathBuf {
        place.restored.clone()
    }

    /// Lists the backups: the price of opening the repository.
    fn open(&self, place: &Place) -> Option<Command>;

    /// Reads every byte that the repository stores back and checks it against its ids, where the tool can.
    fn check(&self, _place: &Place) -> Option<Command> {
        None
    }

    /// What is measured of it, in the order of [`Step::ALL`].
    fn steps(&self) -> &'static [Step] {
        &Step::ALL
    }

    /// Bytes of parity among the stored ones, if the tool stores any.
    ///
    /// # Errors
    /// The repository cannot be read.
    fn parity_bytes(&self, _place: &Place) -> Result<u64> {
        Ok(0)
    }
}

/// `folder` with the absolute path `source` below it, as tools restore that keep whole paths.
fn below(folder: &Path, source: &Path) -> PathBuf {
    folder.join(source.strip_prefix("/").unwrap_or(source))
}
