//! The source's own binlog files, byte for byte, out of the archive.

use super::whole_file::WholeFile;
use crate::archive::archive_error;
use crate::catalogue::{Catalogue, sentence};
use crate::error::{Code, Error, Result};
use crate::progress::{Reading, Watcher};
use crate::status::gaps;
use crate::time::Micros;
use crate::views::{GapView, maybe_time};
use holdfast_archive::{ArchivedFile, ServerLog, between};
use holdfast_format::record::StreamKey;
use holdfast_io::{Disk, RealDisk};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// How every binlog file begins.
const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];

/// What came out of the archive.
#[derive(Clone, Debug, Serialize)]
pub struct BinlogsView {
    /// The protected server's name.
    pub server: String,
    /// The folder.
    pub into: String,
    /// The files in the order of the log.
    pub files: Vec<ExportedFile>,
    /// Where the log has holes, all of them.
    pub holes: Vec<GapView>,
}

/// One file.
#[derive(Clone, Debug, Serialize)]
pub struct ExportedFile {
    /// Its path below the folder: the source's name, below `life-N` where the log has several lives.
    pub file: String,
    /// Offset of the first byte that is archived: 4, or more where the archive began inside the file. Then the file has a
    /// hole between its format description and this offset, and mysqlbinlog reads it with `--start-position`.
    pub start: u64,
    /// Offset behind the last byte: the length.
    pub end: u64,
    /// Transactions in it.
    pub transactions: u64,
    /// Earliest commit in it.
    #[serde(serialize_with = "maybe_time")]
    pub from: Option<Micros>,
    /// Latest commit in it.
    #[serde(serialize_with = "maybe_time")]
    pub until: Option<Micros>,
}

impl ExportedFile {
    /// Its beginning is not archived.
    #[must_use]
    pub fn headless(&self) -> bool {
        self.start > MAGIC.len() as u64
    }
}

/// Writes the files of the server called `name` that hold transactions between `since` and `until` into the folder, which
/// is empty or absent. Each file is whole and durable when it has its name.
///
/// # Errors
/// `TargetUnreachable` when nothing is archived of that time, `Usage` when the folder holds something.
pub fn binlogs(
    catalogue: &Catalogue,
    name: &str,
    into: &Path,
    (since, until): (Option<Micros>, Option<Micros>),
    watcher: &dyn Watcher,
) -> Result<BinlogsView> {
    let server = catalogue.server(name)?;
    let told = |e| archive_error(catalogue, &server, e);
    let log = ServerLog::open(&catalogue.repository, server.id).map_err(told)?;
    let files = between(log.files().map_err(told)?, since, until);
    if files.is_empty() {
        let what = if since.is_some() || until.is_some() { " of that time" } else { "" };
        return Err(Error::new(
            Code::TargetUnreachable,
            format!("No binlog file of '{name}'{what} is in the archive."),
        )
        .with_next(format!("see `holdfast timeline {name}` for what is archived")));
    }
    let disk = RealDisk::shared();
    let disk = disk.as_ref();
    let cant = |e: holdfast_io::Error| Error::failed(sentence(&e.to_string()));
    take_empty(disk, into)?;
    let streams = log.streams();
    let total = files.iter().map(|file| file.end - file.start).sum();
    let (mut exported, mut done) = (Vec::new(), 0);
    for file in &files {
        let below = folder_of(&streams, &file.stream).join(&file.name);
        let path = into.join(&below);
        if let Some(folder) = path.parent().filter(|folder| *folder != into)
            && !disk.exists(folder).map_err(cant)?
        {
            disk.create_dir_all(folder).map_err(cant)?;
            disk.sync_dir(into).map_err(cant)?;
        }
        write(&log, file, WholeFile::create(disk, &path).map_err(cant)?, &mut |bytes| {
            done += bytes;
            watcher.reading(Reading {
                phase: "export",
                done,
                total: Some(total),
                bytes: true,
                ..Reading::default()
            });
            !watcher.cancelled()
        })
        .map_err(|stopped| match stopped {
            Stopped::Archive(error) => told(error),
            Stopped::Disk(error) => cant(error),
            Stopped::Cancelled => {
                Error::new(Code::Interrupted, format!("The export into {} was interrupted.", into.display()))
                    .with_next("empty the folder and run the same command again")
            }
            Stopped::Torn { at } => Error::new(
                Code::Corruption,
                format!("The archive of {} ends at {at}, before its end at {}.", file.name, file.end),
            )
            .with_next("run holdfast fsck --full"),
        })?;
        exported.push(ExportedFile {
            file: below.display().to_string(),
            start: file.start,
            end: file.end,
            transactions: file.transactions,
            from: file.committed_us.map(|(from, _)| from),
            until: file.committed_us.map(|(_, until)| until),
        });
    }
    Ok(BinlogsView {
        server: server.name.clone(),
        into: into.display().to_string(),
        files: exported,
        holes: gaps(&log),
    })
}

/// Why a file was not written.
enum Stopped {
    Archive(holdfast_archive::Error),
    Disk(holdfast_io::Error),
    Cancelled,
    Torn { at: u64 },
}

impl From<holdfast_archive::Error> for Stopped {
    fn from(error: holdfast_archive::Error) -> Self {
        Self::Archive(error)
    }
}

impl From<holdfast_io::Error> for Stopped {
    fn from(error: holdfast_io::Error) -> Self {
        Self::Disk(error)
    }
}

/// Writes one file; `more` is told of each event's bytes, and says whether to go on.
fn write(
    log: &ServerLog<'_>,
    file: &ArchivedFile,
    mut out: WholeFile<'_>,
    more: &mut dyn FnMut(u64) -> bool,
) -> std::result::Result<(), Stopped> {
    out.put(&MAGIC)?;
    let (mut cursor, mut event) = (log.read_file(file)?, Vec::new());
    while let Some(at) = cursor.next(&mut event)? {
        // Only behind a format description that stands for a beginning that is not there.
        if at.offset == file.start && out.end() < at.offset {
            out.skip_to(at.offset)?;
        }
        if at.offset != out.end() {
            return Err(Stopped::Torn { at: out.end() });
        }
        out.put(&event)?;
        if !more(event.len() as u64) {
            return Err(Stopped::Cancelled);
        }
    }
    if out.end() != file.end {
        return Err(Stopped::Torn { at: out.end() });
    }
    Ok(out.finish()?)
}

/// Where a stream's files lie below the folder: names come again in another life.
fn folder_of(streams: &[StreamKey], stream: &StreamKey) -> PathBuf {
    if streams.len() < 2 {
        return PathBuf::new();
    }
    let same = streams.iter().filter(|other| other.incarnation == stream.incarnation).count();
    match same {
        0 | 1 => format!("life-{}", stream.incarnation).into(),
        _ => format!("life-{}-{}", stream.incarnation, stream.source_uuid).into(),
    }
}

/// Makes the folder, or makes sure that it is empty.
fn take_empty(disk: &dyn Disk, into: &Path) -> Result<()> {
    let cant = |e: holdfast_io::Error| Error::usage(sentence(&e.to_string()));
    if !disk.exists(into).map_err(cant)? {
        return disk.create_dir_all(into).map_err(cant);
    }
    match disk.list(into).map_err(cant)?.first() {
        Some(found) => Err(Error::usage(format!(
            "{} is not empty: it holds {}.",
            into.display(),
            found.name.to_string_lossy()
        ))
        .with_next("name a folder that is empty or does not exist")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::gtid::Uuid;
    use holdfast_format::ids::ServerId;

    #[test]
    fn files_of_several_lives_lie_in_folders_of_their_own() {
        let key = |incarnation, uuid| StreamKey {
            server: ServerId([1; 16]),
            source_uuid: Uuid([uuid; 16]),
            incarnation,
        };
        let (a, b, c) = (key(0, 7), key(1, 7), key(1, 8));
        assert_eq!(folder_of(&[a], &a), PathBuf::new());
        assert_eq!(folder_of(&[a, b], &b), PathBuf::from("life-1"));
        let folders: std::collections::BTreeSet<PathBuf> =
            [a, b, c].iter().map(|stream| folder_of(&[a, b, c], stream)).collect();
        assert_eq!(folders.len(), 3);
    }
}
