//! A server's own binlog files as the log of a restore: what the archive would give, without it.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use holdfast_binlog::Walker;
use holdfast_binlog::transaction::{Assembler, Pushed};
use holdfast_binlog::walker::MAGIC;
use holdfast_format::record::Position;
use holdfast_replay::{EventPlace, LogReader};
use holdfast_restore::error::Foreign;
use holdfast_restore::{Border, Gap, Log, LogSize, Place, Side, Target, TransactionFacts};

/// Bits of a place below the number of the file.
const OFFSET_BITS: u32 = 40;

/// A transaction of the log.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its first byte.
    pub start: Place,
    /// The first byte behind it.
    pub end: Place,
    /// Its GTID as text.
    pub gtid: String,
    /// Texts of its statements.
    pub statements: Vec<String>,
    /// Tables whose rows it changes, as `schema.table`.
    pub tables: Vec<String>,
    /// Commit time, microseconds.
    pub micros: u64,
}

/// Binlog files in memory.
#[derive(Debug)]
pub struct FilesLog {
    files: Vec<(Arc<str>, Vec<u8>)>,
    /// All transactions in order.
    pub entries: Vec<Entry>,
    reads: AtomicU32,
    /// On this read of the log (from 1), the transaction of this index is left out: a fault.
    pub lose: Option<(u32, usize)>,
}

impl FilesLog {
    /// Reads the files of a server whose last file is not written to any more.
    #[must_use]
    pub fn of(datadir: &Path) -> Self {
        let index = std::fs::read_to_string(datadir.join("binlog.index")).unwrap();
        let mut log = Self { files: Vec::new(), entries: Vec::new(), reads: AtomicU32::new(0), lose: None };
        for name in index.lines().map(|line| line.trim_start_matches("./")) {
            log.files.push((name.into(), std::fs::read(datadir.join(name)).unwrap()));
        }
        log.index();
        log
    }

    fn index(&mut self) {
        let mut assembler = Assembler::new();
        for (number, (_, bytes)) in self.files.iter().enumerate() {
            let mut walker = Walker::new(0);
            let mut rest = walker.file(bytes).unwrap();
            while !rest.is_empty() {
                let event = walker.whole(rest).unwrap();
                if let Pushed::End(transaction) = assembler.push(&event, walker.format().unwrap()).unwrap() {
                    self.entries.push(Entry {
                        start: place(number, transaction.start),
                        end: place(number, transaction.end),
                        gtid: transaction.gtid.as_ref().map(ToString::to_string).unwrap_or_default(),
                        statements: transaction.statements.iter().map(|note| note.text.clone()).collect(),
                        tables: transaction.tables.keys().map(ToString::to_string).collect(),
                        micros: transaction.commit_micros,
                    });
                }
                rest = &rest[event.raw.len()..];
            }
        }
    }

    /// Index of the first transaction with a statement that contains `text`.
    #[must_use]
    pub fn find(&self, text: &str) -> usize {
        let found = self.entries.iter().position(|entry| entry.statements.iter().any(|s| s.contains(text)));
        found.unwrap_or_else(|| panic!("no statement with {text} in the log"))
    }

    /// Starts counting reads anew, for `lose`.
    pub fn count_reads_from_here(&self) {
        self.reads.store(0, Ordering::Relaxed);
    }

    fn facts(&self, entry: &Entry) -> TransactionFacts {
        let (name, _) = &self.files[(entry.start.0 >> OFFSET_BITS) as usize];
        TransactionFacts {
            gtid: Some(entry.gtid.clone()),
            position: format!("{name}:{}", entry.start.0 & ((1 << OFFSET_BITS) - 1)),
            committed_us: Some(entry.micros as i64),
            summary: entry.statements.join("; "),
        }
    }
}

fn place(file: usize, offset: u64) -> Place {
    Place((file as u64) << OFFSET_BITS | offset)
}

impl Log for FilesLog {
    fn place(&self, position: &Position) -> Result<Option<Place>, Foreign> {
        let file = self.files.iter().position(|(name, _)| **name == *position.file);
        Ok(file.map(|file| place(file, position.offset)))
    }

    fn resolve(&self, target: &Target) -> Result<Result<Border, Gap>, Foreign> {
        let kept = match target {
            Target::Latest => self.entries.len(),
            Target::Transaction { id, side } => {
                let at =
                    self.entries.iter().position(|entry| entry.gtid == *id).ok_or("no such transaction")?;
                if *side == Side::Before { at } else { at + 1 }
            }
            other => return Err(format!("this log does not resolve {other}").into()),
        };
        let last = kept.checked_sub(1).map(|at| &self.entries[at]);
        let left_out = self.entries.get(kept);
        Ok(Ok(Border {
            place: left_out.map_or_else(|| last.map_or(Place(0), |entry| entry.end), |entry| entry.start),
            last_kept: last.map(|entry| self.facts(entry)),
            first_left_out: left_out.map(|entry| self.facts(entry)),
        }))
    }

    fn gap(&self, _: Place, _: Place) -> Result<Option<Gap>, Foreign> {
        Ok(None)
    }

    fn size(&self, from: Place, until: Place) -> Result<LogSize, Foreign> {
        let within = self.entries.iter().filter(|entry| entry.start >= from && entry.end <= until).count();
        Ok(LogSize { transactions: within as u64, bytes: 1 << 20 })
    }

    fn read(&self, from: Place, until: Place) -> Result<Box<dyn LogReader + '_>, Foreign> {
        let read = self.reads.fetch_add(1, Ordering::Relaxed) + 1;
        let lose = self.lose.filter(|(number, _)| *number == read).map(|(_, index)| &self.entries[index]);
        let file = (from.0 >> OFFSET_BITS) as usize;
        Ok(Box::new(Reader { log: self, from, until, lose, file, offset: MAGIC.len() as u64 }))
    }
}

struct Reader<'a> {
    log: &'a FilesLog,
    from: Place,
    until: Place,
    lose: Option<&'a Entry>,
    file: usize,
    offset: u64,
}

impl LogReader for Reader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, Foreign> {
        loop {
            let Some((name, bytes)) = self.log.files.get(self.file) else { return Ok(None) };
            let (here, offset) = (place(self.file, self.offset), self.offset);
            if here >= self.until {
                return Ok(None);
            }
            let Some(rest) = bytes.get(offset as usize..).filter(|rest| !rest.is_empty()) else {
                (self.file, self.offset) = (self.file + 1, MAGIC.len() as u64);
                continue;
            };
            let length = u32::from_le_bytes(rest[9..13].try_into()?);
            self.offset += u64::from(length);
            // The format description stands first in each file; the rest of the first file is skipped.
            let format = offset == MAGIC.len() as u64;
            let lost = self.lose.is_some_and(|entry| here >= entry.start && here < entry.end);
            if (here >= self.from || format) && !lost {
                event.clear();
                event.extend_from_slice(&rest[..length as usize]);
                return Ok(Some(EventPlace { file: Arc::clone(name), position: offset }));
            }
        }
    }
}
