//! restic.

use std::path::PathBuf;
use std::process::Command;

use super::{Place, Tool, below};

/// restic, with its defaults.
#[derive(Debug)]
pub struct Restic(pub PathBuf);

impl Restic {
    fn call(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(&self.0);
        command.env("RESTIC_REPOSITORY", &place.repo);
        command.env("RESTIC_PASSWORD_FILE", &place.passphrase_file);
        command.env("RESTIC_CACHE_DIR", place.home.join("cache"));
        command.arg("--quiet").args(arguments);
        command
    }
}

impl Tool for Restic {
    fn name(&self) -> &'static str {
        "restic"
    }

    fn setting(&self) -> &'static str {
        "defaults (zstd, AES-256)"
    }

    fn version(&self, place: &Place) -> Command {
        let mut command = place.command(&self.0);
        command.arg("version");
        command
    }

    fn init(&self, place: &Place) -> Vec<Command> {
        vec![self.call(place, &["init"])]
    }

    fn backup(&self, place: &Place, _number: u32) -> Command {
        let mut command = self.call(place, &["backup"]);
        command.arg(&place.source);
        command
    }

    fn restore(&self, place: &Place, _number: u32) -> Command {
        let mut command = self.call(place, &["restore", "latest", "--target"]);
        command.arg(&place.restored);
        command
    }

    fn restored(&self, place: &Place) -> PathBuf {
        below(&place.restored, &place.source)
    }

    fn open(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["snapshots"]))
    }

    fn check(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["check", "--read-data"]))
    }
}
