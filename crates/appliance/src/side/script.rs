//! The script as a file: who wrote it, what is in its way, and its statements.

use super::SideView;
use super::back::Line;
use super::schema::Purpose;
use crate::error::{Error, Result};
use holdfast_io::RealDisk;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

/// The script as text, line by line.
pub(super) fn text(lines: &[Line], view: &SideView, purpose: &Purpose) -> Vec<String> {
    let head = format!("{SCRIPT_HEAD}{}", purpose.id());
    if lines.is_empty() {
        return vec![head, "-- Nothing is to be put back.".to_owned()];
    }
    let (reached, schemas) = (plain(&view.restored.reached), plain(&view.schemas.join(", ")));
    let mut out = vec![head, format!("-- Puts rows back as they were at {reached}, out of {schemas}.")];
    out.extend(WARNING.map(str::to_owned));
    let said = view.conflicts.iter().map(|line| ("CONFLICT", line));
    for (what, line) in said.chain(view.warnings.iter().map(|line| ("warning", line))) {
        out.push(format!("-- {what}: {}", plain(line)));
    }
    out.extend(lines.iter().map(|line| match line {
        Line::Remark(text) => format!("-- {}", plain(text)),
        Line::Statement(text) => format!("{text};"),
    }));
    out
}

/// What everybody should know who runs it.
const WARNING: [&str; 6] = [
    "-- Judge it before you run it: a row that was rightly changed since is set back as well. Run it with a client that",
    "-- stops at the first error (mysql without --force): no row is changed then, but for tables of engines without",
    "-- transactions; a table that was made again stays, empty, and must be dropped before the script is run again.",
    "-- It fits the rows that differed when it was made: where other rows are gone or changed now (or new ones, if it",
    "-- deletes them), it stops with error 1242 before it changes any. It locks what it reads until it is done.",
    "-- The binary log gets rows: where its format is not ROW, the account must be allowed to set that.",
];

/// How the first line of a script begins; what the command is follows.
const SCRIPT_HEAD: &str = "-- holdfast copy-back ";

/// Text on one line, whatever was in it.
pub fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Where the script is written until it is whole.
fn part_of(file: &Path) -> PathBuf {
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    PathBuf::from(part)
}

/// Refuses a file that is there: it may be somebody's work by now. Also one in the place of our unfinished one, but for
/// what the same command left when it was cut off.
pub(super) fn refuse_file(file: &Path, purpose: &Purpose) -> Result<()> {
    match file.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        _ => {
            return Err(Error::usage(format!("{} is there already.", file.display()))
                .with_next("name a file that does not exist yet, or move this one away"));
        }
    }
    let part = part_of(file);
    let there = match part.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Ok(what) if what.is_file() => File::open(&part),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    let mut line = String::new();
    let read = there.and_then(|there| BufReader::new(there.take(1000)).read_line(&mut line));
    match read {
        // Nothing of it may have reached the disk.
        Ok(_) if line.is_empty() || line.trim_end() == format!("{SCRIPT_HEAD}{}", purpose.id()) => Ok(()),
        _ => Err(Error::usage(format!("{} is there already, and is not ours.", part.display()))
            .with_next("move it away, or name another file for the script")),
    }
}

/// Writes a file that is whole and on the disk when it has its name; never over another one.
pub(super) fn write_whole(file: &Path, lines: &[String], purpose: &Purpose) -> Result<()> {
    let cant =
        |e: &dyn std::error::Error| Error::failed(format!("{} can't be written: {e}.", file.display()));
    let part = part_of(file);
    // Again, since a restore takes its time.
    refuse_file(file, purpose)?;
    match std::fs::remove_file(&part) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(cant(&error)),
        _ => {}
    }
    let mut out = BufWriter::new(File::create_new(&part).map_err(|e| cant(&e))?);
    for line in lines {
        writeln!(out, "{line}").map_err(|e| cant(&e))?;
    }
    let out = out.into_inner().map_err(|e| cant(e.error()))?;
    out.sync_all().map_err(|e| cant(&e))?;
    refuse_file(file, purpose)?;
    std::fs::rename(&part, file).map_err(|e| cant(&e))?;
    RealDisk::shared().sync_dir(&holdfast_io::durable::folder_of(file)).map_err(|e| cant(&e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_there_stays_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let (file, part) = (folder.path().join("back.sql"), folder.path().join("back.sql.part"));
        let (ours, other) = (Purpose::new("a", "1"), Purpose::new("b", "1"));
        let head = |purpose: &Purpose| format!("{SCRIPT_HEAD}{}", purpose.id());
        let write = || write_whole(&file, &[head(&ours), "DO 1;".to_owned()], &ours);
        // What somebody has there, and what another command left.
        for text in ["a letter".to_owned(), head(&other)] {
            std::fs::write(&part, &text).unwrap();
            assert!(refuse_file(&file, &ours).is_err() && write().is_err(), "{text}");
            assert_eq!(std::fs::read_to_string(&part).unwrap(), text);
        }
        // What a cut left of our own.
        for text in [String::new(), head(&ours), format!("{}\nDO", head(&ours))] {
            std::fs::write(&part, text).unwrap();
            refuse_file(&file, &ours).unwrap();
            write().unwrap();
            assert!(!part.exists());
            assert_eq!(std::fs::read_to_string(&file).unwrap(), format!("{}\nDO 1;\n", head(&ours)));
            // A whole one may have been edited by now.
            assert!(refuse_file(&file, &ours).is_err() && write().is_err());
            std::fs::remove_file(&file).unwrap();
        }
    }

    #[test]
    fn nothing_leaves_its_line() {
        assert_eq!(plain("a\nDROP\u{1b}[2J\u{9b}\u{fc}"), "a DROP [2J \u{fc}");
    }
}
