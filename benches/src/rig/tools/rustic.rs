//! rustic.

use std::path::PathBuf;
use std::process::Command;

use super::{PASSPHRASE, Place, Tool};

/// rustic, with its defaults.
#[derive(Debug)]
pub struct Rustic(pub PathBuf);

impl Rustic {
    fn call(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(&self.0);
        command.env("RUSTIC_REPOSITORY", &place.repo).env("RUSTIC_PASSWORD", PASSPHRASE);
        command.env("RUSTIC_CACHE_DIR", place.home.join("cache"));
        command.args(["--no-progress", "--log-level=warn"]).args(arguments);
        command
    }
}

impl Tool for Rustic {
    fn name(&self) -> &'static str {
        "rustic"
    }

    fn setting(&self) -> &'static str {
        "defaults (zstd, AES-256)"
    }

    fn version(&self, place: &Place) -> Command {
        let mut command = place.command(&self.0);
        command.arg("--version");
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
        let mut command = self.call(place, &["restore"]);
        command.arg(format!("latest:{}", place.source.display())).arg(&place.restored);
        command
    }

    fn open(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["snapshots"]))
    }

    fn check(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["check", "--read-data"]))
    }
}
