//! Who asked for what, each line bound to the one before: a change or a loss in the middle shows.
//!
//! A line is `HASH BODY`: the hash is BLAKE3 of the hash before it (64 zeros at first) and the body, which is JSON.

use holdfast_appliance::error::{Error, Result};
use holdfast_appliance::time::{now, show_time};
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Entries that one answer holds.
const SHOWN_MAX: usize = 500;

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Rises from 1 without a hole.
    pub number: u64,
    /// When, RFC 3339.
    pub at: String,
    /// Who.
    pub who: String,
    /// What he asked for.
    pub what: String,
    /// How it was answered: `accepted`, `done`, or the error's code.
    pub outcome: String,
}

/// The log.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    tail: Mutex<Tail>,
}

#[derive(Debug)]
struct Tail {
    file: File,
    number: u64,
    hash: String,
    /// A write failed: what the file ends with is not known.
    broken: bool,
}

/// What a look at the log gives.
#[derive(Clone, Debug, Serialize)]
pub struct AuditView {
    /// Every line follows from the one before.
    pub intact: bool,
    /// The first line that does not.
    pub broken_at_line: Option<usize>,
    /// The hash that the last line begins with: a copy of it elsewhere tells whether the log was written anew.
    pub hash: String,
    /// Entries, the newest first.
    pub entries: Vec<Entry>,
}

/// What reading the file gives.
struct Chain {
    entries: Vec<Entry>,
    hash: String,
    broken_at_line: Option<usize>,
    /// Bytes of whole lines.
    whole: usize,
}

fn first_hash() -> String {
    "0".repeat(64)
}

fn bind(before: &str, body: &str) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(before.as_bytes()).update(body.as_bytes());
    hasher.finalize().to_hex().to_string()
}

fn read_chain(text: &[u8]) -> Chain {
    let whole = text.iter().rposition(|&b| b == b'\n').map_or(0, |at| at + 1);
    let mut chain = Chain { entries: Vec::new(), hash: first_hash(), broken_at_line: None, whole };
    let lines = String::from_utf8_lossy(text.get(..whole).unwrap_or_default()).into_owned();
    for (at, line) in lines.lines().enumerate() {
        let parsed = line
            .split_once(' ')
            .and_then(|(hash, body)| Some((hash, body, serde_json::from_str::<Entry>(body).ok()?)));
        let follows = parsed.as_ref().is_some_and(|(hash, body, _)| bind(&chain.hash, body) == *hash);
        if !follows {
            chain.broken_at_line.get_or_insert(at + 1);
        }
        if let Some((hash, _, entry)) = parsed {
            chain.hash = hash.to_owned();
            chain.entries.push(entry);
        }
    }
    chain
}

impl Audit {
    /// Opens the log in `dir`. A last line that a crash cut short was never acknowledged and goes.
    ///
    /// # Errors
    /// `Failed` when the file can't be used.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("audit.log");
        let failed = |error: std::io::Error| {
            Error::failed(format!("The audit log {} can't be used: {error}.", path.display()))
        };
        let open = || -> std::io::Result<Tail> {
            let mut file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o600)
                .open(&path)?;
            let mut text = Vec::new();
            file.read_to_end(&mut text)?;
            let chain = read_chain(&text);
            file.set_len(chain.whole as u64)?;
            file.seek(std::io::SeekFrom::End(0))?;
            if let Some(line) = chain.broken_at_line {
                tracing::error!(line, "the audit log does not follow from itself: it was changed");
            }
            let number = chain.entries.last().map_or(0, |e| e.number);
            Ok(Tail { file, number, hash: chain.hash, broken: false })
        };
        let tail = open().map_err(failed)?;
        Ok(Self { path, tail: Mutex::new(tail) })
    }

    /// Adds an entry; durable when it returns.
    ///
    /// # Errors
    /// `Failed`: nothing may be done that can't be noted.
    pub fn note(&self, who: &str, what: &str, outcome: &str) -> Result<()> {
        let mut tail = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = |why: &dyn std::fmt::Display| {
            Error::failed(format!("The audit log {} can't be written: {why}.", self.path.display()))
                .with_next("nothing is done that can't be noted: make room, then restart holdfastd")
        };
        if tail.broken {
            return Err(failed(&"an earlier write failed"));
        }
        let entry = Entry {
            number: tail.number + 1,
            at: show_time(now()),
            who: who.to_owned(),
            what: what.to_owned(),
            outcome: outcome.to_owned(),
        };
        let body = serde_json::to_string(&entry).map_err(|e| failed(&e))?;
        let hash = bind(&tail.hash, &body);
        let line = format!("{hash} {body}\n");
        let written = tail.file.write_all(line.as_bytes()).and_then(|()| tail.file.sync_data());
        if let Err(error) = written {
            tail.broken = true;
            return Err(failed(&error));
        }
        (tail.number, tail.hash) = (entry.number, hash);
        Ok(())
    }

    /// How many entries there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.tail.lock().unwrap_or_else(PoisonError::into_inner).number
    }

    /// Reads it anew and checks every line; gives the newest entries.
    ///
    /// # Errors
    /// `Failed` when the file can't be read.
    pub fn view(&self) -> Result<AuditView> {
        let mut view = self.whole()?;
        view.entries.truncate(SHOWN_MAX);
        Ok(view)
    }

    /// The same with all entries between two times, as `show_time` writes them.
    ///
    /// # Errors
    /// `Failed` when the file can't be read.
    pub fn between(&self, from: &str, to: &str) -> Result<AuditView> {
        let mut view = self.whole()?;
        view.entries.retain(|entry| (from..=to).contains(&entry.at.as_str()));
        Ok(view)
    }

    fn whole(&self) -> Result<AuditView> {
        let _quiet = self.tail.lock().unwrap_or_else(PoisonError::into_inner);
        let text = std::fs::read(&self.path).map_err(|error| {
            Error::failed(format!("The audit log {} can't be read: {error}.", self.path.display()))
        })?;
        let chain = read_chain(&text);
        Ok(AuditView {
            intact: chain.broken_at_line.is_none(),
            broken_at_line: chain.broken_at_line,
            hash: chain.hash,
            entries: chain.entries.into_iter().rev().collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_follow_from_each_other_over_restarts_and_a_torn_line_goes() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.note("ops", "POST backups", "accepted").unwrap();
        audit.note("ops", "DELETE job 1", "done").unwrap();
        drop(audit);
        let file = dir.path().join("audit.log");
        let whole = std::fs::read(&file).unwrap();
        std::fs::write(&file, [whole.as_slice(), b"0123 {\"num"].concat()).unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        audit.note("ops", "POST restores", "forbidden").unwrap();
        let view = audit.view().unwrap();
        assert!(view.intact);
        let numbers: Vec<u64> = view.entries.iter().map(|e| e.number).collect();
        assert_eq!(numbers, [3, 2, 1]);
        let at = view.entries[1].at.clone();
        let between = audit.between(&at, &at).unwrap();
        assert!(between.entries.iter().any(|e| e.number == 2) && between.hash == view.hash);
        assert!(audit.between("2000-01-01", "2000-01-02").unwrap().entries.is_empty());
    }

    #[test]
    fn every_changed_or_missing_line_shows() {
        let dir = tempfile::tempdir().unwrap();
        let audit = Audit::open(dir.path()).unwrap();
        for n in 0..4 {
            audit.note("ops", &format!("request {n}"), "done").unwrap();
        }
        let file = dir.path().join("audit.log");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(&file, text.replacen("request 1", "request 7", 1)).unwrap();
        assert_eq!(audit.view().unwrap().broken_at_line, Some(2));
        let without: Vec<&str> = text.lines().enumerate().filter(|(n, _)| *n != 2).map(|(_, l)| l).collect();
        std::fs::write(&file, without.join("\n") + "\n").unwrap();
        assert_eq!(audit.view().unwrap().broken_at_line, Some(3));
    }
}
