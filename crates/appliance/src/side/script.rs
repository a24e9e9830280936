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
    let plain = |text: &str| text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>();
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
const WARNING: [&str; 2] = [
    "-- Judge it before you run it: a row that was rightly changed since is set back as well. At the first error,",
    "-- nothing is changed: run it with a client that stops there (mysql without --force).",
];

/// How the first line of a script begins; what the command is follows.
const SCRIPT_HEAD: &str = "-- holdfast copy-back ";

/// Refuses a file that is there, but for one that the same command wrote before it was cut off.
pub(super) fn refuse_file(file: &Path, purpose: &Purpose) -> Result<()> {
    let there = match File::open(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        there => there,
    };
    let mut line = String::new();
    let read = there.and_then(|there| BufReader::new(there.take(1000)).read_line(&mut line));
    match read {
        Ok(_) if line.trim_end() == format!("{SCRIPT_HEAD}{}", purpose.id()) => Ok(()),
        _ => Err(Error::usage(format!("{} is there already.", file.display()))
            .with_next("name a file that does not exist yet")),
    }
}

/// Writes a file that is whole and on the disk when it has its name.
pub(super) fn write_whole(file: &Path, lines: &[String]) -> Result<()> {
    let cant =
        |e: &dyn std::error::Error| Error::failed(format!("{} can't be written: {e}.", file.display()));
    let mut part = file.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let mut out = BufWriter::new(File::create(&part).map_err(|e| cant(&e))?);
    for line in lines {
        writeln!(out, "{line}").map_err(|e| cant(&e))?;
    }
    let out = out.into_inner().map_err(|e| cant(e.error()))?;
    out.sync_all().map_err(|e| cant(&e))?;
    std::fs::rename(&part, file).map_err(|e| cant(&e))?;
    RealDisk::shared().sync_dir(&holdfast_io::durable::folder_of(file)).map_err(|e| cant(&e))
}
