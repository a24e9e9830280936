//! BorgBackup 1.x.

use std::path::PathBuf;
use std::process::Command;

use super::{PASSPHRASE, Place, Tool, below};

/// borg, with its defaults and a key in the repository.
#[derive(Debug)]
pub struct Borg(pub PathBuf);

impl Borg {
    fn call(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(&self.0);
        command.env("BORG_REPO", &place.repo).env("BORG_PASSPHRASE", PASSPHRASE);
        command.env("BORG_BASE_DIR", &place.home).args(arguments);
        command
    }
}

impl Tool for Borg {
    fn name(&self) -> &'static str {
        "borg"
    }

    fn setting(&self) -> &'static str {
        "defaults (lz4), repokey"
    }

    fn version(&self, place: &Place) -> Command {
        self.call(place, &["--version"])
    }

    fn init(&self, place: &Place) -> Vec<Command> {
        vec![self.call(place, &["init", "--encryption=repokey"])]
    }

    fn backup(&self, place: &Place, number: u32) -> Command {
        let mut command = self.call(place, &["create"]);
        command.arg(format!("::backup-{number}")).arg(&place.source);
        command
    }

    fn restore(&self, place: &Place, number: u32) -> Command {
        // borg extracts into the folder it is started in.
        let mut command = self.call(place, &["extract"]);
        command.arg(format!("::backup-{number}")).current_dir(&place.restored);
        command
    }

    fn restored(&self, place: &Place) -> PathBuf {
        below(&place.restored, &place.source)
    }

    fn open(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["list", "--short"]))
    }

    fn check(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["check", "--verify-data"]))
    }
}
