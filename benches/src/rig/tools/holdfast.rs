//! Holdfast.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use holdfast_format::names::SEGMENTS;
use holdfast_format::segment::{PAGE_BYTES, Trailer};

use super::{Place, Result, Step, Tool, at};
use crate::rig::folder::files_below;

/// The name that the folder is protected under.
const NAME: &str = "bench";

/// How much of what it writes Holdfast decodes again before a backup counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verified {
    /// All, its default.
    Full,
    /// One block of 16; only the first backup is measured, since no other step differs.
    Sample,
}

/// Holdfast, with its defaults but for what it decodes again.
#[derive(Debug)]
pub struct Holdfast(pub PathBuf, pub Verified);

impl Holdfast {
    fn call(&self, place: &Place, arguments: &[&str]) -> Command {
        let mut command = place.command(&self.0);
        command.env("HOLDFAST_REPO", &place.repo);
        command.env("HOLDFAST_PASSPHRASE_FILE", &place.passphrase_file);
        command.arg("--quiet").args(arguments);
        command
    }
}

impl Tool for Holdfast {
    fn name(&self) -> &'static str {
        match self.1 {
            Verified::Full => "holdfast",
            Verified::Sample => "holdfast, sampled",
        }
    }

    fn setting(&self) -> &'static str {
        match self.1 {
            Verified::Full => "defaults (zstd 1, AES-256-GCM)",
            Verified::Sample => "--verify-write=sample",
        }
    }

    fn version(&self, place: &Place) -> Command {
        let mut command = place.command(&self.0);
        command.arg("--version");
        command
    }

    fn init(&self, place: &Place) -> Vec<Command> {
        let mut init = self.call(place, &["init"]);
        init.arg("--kit").arg(place.home.join("kit"));
        let mut add = self.call(place, &["server", "add", NAME, "--folder"]);
        add.arg(&place.source);
        vec![init, add]
    }

    fn backup(&self, place: &Place, _number: u32) -> Command {
        let mut command = self.call(place, &["backup", NAME]);
        if self.1 == Verified::Sample {
            command.arg("--verify-write=sample");
        }
        command
    }

    fn restore(&self, place: &Place, _number: u32) -> Command {
        let mut command = self.call(place, &["restore", NAME, "--to", "fastest", "--into"]);
        command.arg(&place.restored);
        command
    }

    fn open(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["list"]))
    }

    fn check(&self, place: &Place) -> Option<Command> {
        Some(self.call(place, &["fsck", "--full"]))
    }

    fn steps(&self) -> &'static [Step] {
        match self.1 {
            Verified::Full => &Step::ALL,
            Verified::Sample => &[Step::Full],
        }
    }

    fn parity_bytes(&self, place: &Place) -> Result<u64> {
        let segments = place.repo.join(SEGMENTS);
        if !segments.exists() {
            return Ok(0);
        }
        let mut sum = 0;
        for file in files_below(&segments)? {
            sum += parity_of(&segments.join(file))?;
        }
        Ok(sum)
    }
}

/// Bytes of parity in a sealed segment, as its trailer says; 0 for one that has no trailer.
fn parity_of(path: &Path) -> Result<u64> {
    let file = at("open", path, File::open(path))?;
    let len = at("look at", path, file.metadata())?.len();
    let Some(offset) = len.checked_sub(PAGE_BYTES as u64) else { return Ok(0) };
    let mut page = vec![0; PAGE_BYTES];
    at("read", path, file.read_exact_at(&mut page, offset))?;
    let parity = Trailer::decode(&page).ok().and_then(|trailer| trailer.parity);
    Ok(parity.map_or(0, |parity| parity.len))
}
