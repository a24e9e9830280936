//! `cp -a`: what the machine can do when nothing is compressed, encrypted or checked.

use std::path::Path;
use std::process::Command;

use super::{Place, Step, Tool};

/// A plain copy.
#[derive(Debug)]
pub struct Copy;

impl Copy {
    fn copy(place: &Place, to: &Path) -> Command {
        let mut command = place.command(Path::new("cp"));
        command.arg("-a").arg(place.source.join(".")).arg(to);
        command
    }
}

impl Tool for Copy {
    fn name(&self) -> &'static str {
        "cp -a"
    }

    fn setting(&self) -> &'static str {
        "plain copy of the folder"
    }

    fn version(&self, place: &Place) -> Command {
        let mut command = place.command(Path::new("cp"));
        command.arg("--version");
        command
    }

    fn init(&self, _place: &Place) -> Vec<Command> {
        Vec::new()
    }

    fn backup(&self, place: &Place, _number: u32) -> Command {
        Self::copy(place, &place.repo)
    }

    fn restore(&self, place: &Place, _number: u32) -> Command {
        Self::copy(place, &place.restored)
    }

    fn open(&self, _place: &Place) -> Option<Command> {
        None
    }

    fn steps(&self) -> &'static [Step] {
        &[Step::Full, Step::Restore]
    }
}
