//! Whether files are those in which backups stand.

use super::BinlogFiles;
use super::files::{EventFile, Step};
use crate::error::Result;
use crate::intake::FIRST_OFFSET;
use crate::mark::{FileMark, Origin};

/// The mark of a file; `None` if it is shorter than its head.
pub(super) fn mark_of(files: &dyn BinlogFiles, at: usize) -> Result<Option<FileMark>> {
    let mut file = EventFile::open(files, at, FIRST_OFFSET)?;
    let mut head = Vec::new();
    while head.len() < 2 {
        match file.step()? {
            Step::Event => head.push(file.event().to_vec()),
            Step::End | Step::Cut(_) => return Ok(None),
        }
    }
    let name = files.names().get(at).map_or("", String::as_str);
    Ok(Some(FileMark::of_events(name, head.iter().map(Vec::as_slice))))
}

/// What the backups' marks say of files.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ByABackup {
    /// One of them is the one in which a backup stands.
    Same,
    /// The backups that stand in a file of this name all stand in another one.
    Another(String),
    /// No backup stands in a file of these names.
    Nothing,
}

/// Compares the files with those in which backups stand.
pub(super) fn by_a_backup(files: &dyn BinlogFiles, origins: &[Origin]) -> Result<ByABackup> {
    let mut told = ByABackup::Nothing;
    for (at, name) in files.names().iter().enumerate() {
        let mut marks = origins.iter().filter_map(|origin| origin.mark.as_ref()).filter(|m| m.file == *name);
        let Some(first) = marks.next() else { continue };
        let mark = mark_of(files, at)?;
        if mark.as_ref() == Some(first) || marks.any(|other| Some(other) == mark.as_ref()) {
            return Ok(ByABackup::Same);
        }
        if told == ByABackup::Nothing {
            told = ByABackup::Another(name.clone());
        }
    }
    Ok(told)
}
