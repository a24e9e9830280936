//! Carries a script out on the private server: read, unpacked, split, statement by statement.

use super::position::{Told, is_for_a_replica};
use super::reach::outside;
use super::{STATEMENT_BYTES_MAX, interrupted};
use crate::error::{Error, Result};
use crate::progress::{Reading, Watcher};
use holdfast_mysql::Conn;
use holdfast_mysql::script::{Piece, Splitter};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Bytes that are read at once.
const CHUNK_BYTES: usize = 1 << 20;

/// Bytes at the beginning in which a dump program says who it is.
const HEAD_BYTES: usize = 4096;

/// Bytes of a refused statement that the error shows.
const SHOWN_BYTES: usize = 160;

/// Longest wait for one statement: an ALTER TABLE ... ENABLE KEYS builds all indexes of a table.
pub(super) const STATEMENT_TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// A script's file, unpacked where it is packed.
pub(super) struct Input {
    path: PathBuf,
    /// What it holds.
    pub(super) reader: Box<dyn BufRead>,
    /// Bytes of the file that were read, and all of them.
    read: Arc<AtomicU64>,
    len: u64,
}

struct Counted {
    file: File,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read(buf)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}

impl Input {
    /// Opens the file; how it is packed is told by how it begins.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let cant = |e: io::Error| Error::usage(format!("The dump {} can't be read: {e}.", path.display()));
        let file = File::open(path).map_err(cant)?;
        let len = file.metadata().map_err(cant)?.len();
        let read = Arc::new(AtomicU64::new(0));
        let mut raw = BufReader::with_capacity(CHUNK_BYTES, Counted { file, read: Arc::clone(&read) });
        let head = raw.fill_buf().map_err(cant)?;
        let reader: Box<dyn BufRead> = if head.starts_with(&[0x1f, 0x8b]) {
            Box::new(BufReader::with_capacity(CHUNK_BYTES, flate2::bufread::MultiGzDecoder::new(raw)))
        } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            let decoder = zstd::Decoder::with_buffer(raw).map_err(cant)?;
            Box::new(BufReader::with_capacity(CHUNK_BYTES, decoder))
        } else {
            Box::new(raw)
        };
        let mut input = Self { path: path.to_path_buf(), reader, read, len };
        input.reader.fill_buf().map_err(cant)?;
        Ok(input)
    }

    /// Does the head name MariaDB?
    pub(super) fn is_mariadb(&mut self) -> bool {
        let head = self.reader.fill_buf().unwrap_or_default();
        let head =
            String::from_utf8_lossy(head.get(..head.len().min(HEAD_BYTES)).unwrap_or_default()).into_owned();
        head.lines().take_while(|line| line.starts_with("--") || line.starts_with("/*M")).any(|line| {
            line.starts_with("-- MariaDB dump")
                || (line.contains("version") || line.contains("Distrib")) && line.contains("MariaDB")
        })
    }
}

/// What was loaded.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    /// Statements that were carried out.
    pub statements: u64,
    /// Bytes of the script.
    pub bytes: u64,
    /// What it says of its place in the log.
    pub told: Told,
    /// The first line, by which dump programs say who they are.
    pub head: Option<String>,
    /// Whether the last line said that it is whole.
    pub completed: bool,
    /// What else to know of it.
    pub notes: Vec<String>,
}

impl Loaded {
    pub(super) fn warnings(&self) -> Vec<String> {
        let mut warnings = self.notes.clone();
        if !self.completed {
            warnings.push(
                "the dump does not say at its end that it is whole, as mysqldump's do unless told otherwise"
                    .to_owned(),
            );
        }
        warnings
    }

    fn comment(&mut self, text: &[u8]) {
        let text = String::from_utf8_lossy(text);
        if self.head.is_none() && text.starts_with("--") {
            self.head = Some(text.trim_start_matches(['-', '#', '/', '*', ' ']).chars().take(200).collect());
        }
        self.completed = text.starts_with("-- Dump completed");
        self.told.comment(&text);
    }

    /// Was it written by a program that says at its end that it is there?
    fn names_itself(&self) -> bool {
        let head = self.head.as_deref().unwrap_or_default();
        head.starts_with("MySQL dump") || head.starts_with("MariaDB dump")
    }
}

/// Carries all statements out.
pub(super) fn load(conn: &mut Conn, mut input: Input, watcher: &dyn Watcher) -> Result<Loaded> {
    let (mut loaded, mut splitter) = (Loaded::default(), Splitter::new(STATEMENT_BYTES_MAX));
    let path = input.path.display().to_string();
    loop {
        let piece = splitter.next_piece().map_err(|flaw| {
            Error::failed(format!("{path}, line {}: {flaw}.", flaw.line())).with_next(
                "nothing is listed of it; check that the dump is whole, and run the same command again",
            )
        })?;
        match piece {
            Some(Piece::Comment { text, .. }) => {
                loaded.comment(&text);
            }
            Some(Piece::Statement { text, line, .. }) => {
                loaded.completed = false;
                // Dump programs end each statement, so this one was cut off.
                if splitter.is_ended() && loaded.names_itself() {
                    break;
                }
                carry_out(conn, &path, line, &text, &mut loaded)?;
                splitter.backslash_escapes(!conn.no_backslash_escapes());
            }
            None => {
                let done = input.read.load(Ordering::Relaxed);
                watcher.reading(Reading {
                    phase: "load",
                    done,
                    total: Some(input.len),
                    bytes: true,
                    limit: None,
                });
                let chunk = input.reader.fill_buf().map_err(|error| {
                    Error::failed(format!("{path} can't be read on: {error}."))
                        .with_next("nothing is listed of it; check that the dump is whole")
                })?;
                if chunk.is_empty() {
                    if splitter.is_ended() {
                        break;
                    }
                    splitter.end();
                    continue;
                }
                splitter.feed(chunk);
                loaded.bytes += chunk.len() as u64;
                let taken = chunk.len();
                input.reader.consume(taken);
            }
        }
        if watcher.cancelled() {
            return Err(interrupted());
        }
    }
    if loaded.names_itself() && !loaded.completed {
        return Err(Error::failed(format!(
            "{path} ends before its end: its last line is not \"-- Dump completed\"."
        ))
        .with_next("nothing is listed of it; make the dump again, or copy it whole"));
    }
    if loaded.statements == 0 {
        return Err(Error::usage(format!("{path} holds no statement.")).with_next("name a script of SQL"));
    }
    Ok(loaded)
}

/// Carries one statement out, unless it reaches outside of its databases; what is for a replica is only read.
pub(super) fn carry_out(
    conn: &mut Conn,
    path: &str,
    line: u64,
    text: &[u8],
    loaded: &mut Loaded,
) -> Result<()> {
    let escapes = !conn.no_backslash_escapes();
    if let Some(what) = outside(text, escapes) {
        return Err(Error::failed(format!(
            "{path}, line {line}: \"{}\" {what}, which an import does not do.",
            shown(text)
        ))
        .with_next(
            "nothing is listed of it; take the statement out of the dump, and run the same command again",
        ));
    }
    if is_for_a_replica(text, escapes) {
        loaded.told.statement(text, escapes);
    } else {
        conn.execute(text).map_err(|error| refused(path, line, text, &error))?;
        loaded.statements += 1;
    }
    Ok(())
}

/// The beginning of a statement, on one line.
fn shown(text: &[u8]) -> String {
    let shown = text.get(..text.len().min(SHOWN_BYTES)).unwrap_or_default();
    let shown = String::from_utf8_lossy(shown).split_whitespace().collect::<Vec<_>>().join(" ");
    let more = if text.len() > SHOWN_BYTES { " ..." } else { "" };
    format!("{shown}{more}")
}

fn refused(path: &str, line: u64, text: &[u8], error: &holdfast_mysql::Error) -> Error {
    Error::failed(format!("{path}, line {line}: the server refuses \"{}\": {error}.", shown(text)))
        .with_next("nothing is listed of it; mend the dump, and run the same command again")
}
