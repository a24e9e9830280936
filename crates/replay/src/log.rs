//! Where the events come from, as far as replay must know.

use std::fmt;
use std::sync::Arc;

/// Where an event lies in the source's log, for messages.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPlace {
    /// The source's file.
    pub file: Arc<str>,
    /// Position of the event in that file.
    pub position: u64,
}

impl EventPlace {
    /// Makes it another place, most often one in the same file.
    pub(crate) fn go_to(&mut self, place: &Self) {
        if !Arc::ptr_eq(&self.file, &place.file) {
            self.file = Arc::clone(&place.file);
        }
        self.position = place.position;
    }
}

impl fmt::Display for EventPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.position)
    }
}

/// The range of log to replay: from the base's point to the cut, both at borders of
/// transactions. It can be read more than once and gives the same each time.
pub trait Log: Sync {
    /// A reader at the start of the range.
    ///
    /// # Errors
    /// Fails when the log can't be opened.
    fn read(&self) -> Result<Box<dyn LogReader + '_>, BoxError>;
}

/// What a log's reader fails with.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Reads events in order.
pub trait LogReader {
    /// Replaces `event` by the next event's bytes as the source sent them, checksum
    /// included, and tells its place; `None` at the cut. The first event is a
    /// FORMAT_DESCRIPTION, and another one comes wherever the format may change.
    ///
    /// # Errors
    /// Fails when the log can't be read or is damaged.
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, BoxError>;
}

/// A log in memory: whole files of a server, for tests and tools.
#[derive(Debug, Clone, Default)]
pub struct MemoryLog {
    files: Vec<(Arc<str>, Vec<u8>)>,
    /// Number of transactions to give; all when `None`.
    pub transactions_max: Option<u64>,
}

impl MemoryLog {
    /// Adds a file with its magic.
    pub fn push(&mut self, name: &str, bytes: Vec<u8>) {
        self.files.push((name.into(), bytes));
    }
}

impl Log for MemoryLog {
    fn read(&self) -> Result<Box<dyn LogReader + '_>, BoxError> {
        Ok(Box::new(MemoryReader {
            log: self,
            file: 0,
            at: 0,
            walker: holdfast_binlog::Walker::default(),
            assembler: holdfast_binlog::transaction::Assembler::new(),
            done: 0,
        }))
    }
}

struct MemoryReader<'a> {
    log: &'a MemoryLog,
    file: usize,
    at: usize,
    walker: holdfast_binlog::Walker,
    assembler: holdfast_binlog::transaction::Assembler,
    done: u64,
}

impl LogReader for MemoryReader<'_> {
    fn next(&mut self, event: &mut Vec<u8>) -> Result<Option<EventPlace>, BoxError> {
        if self.log.transactions_max.is_some_and(|max| self.done >= max) {
            return Ok(None);
        }
        loop {
            let Some((name, bytes)) = self.log.files.get(self.file) else { return Ok(None) };
            if self.at == 0 {
                self.walker = holdfast_binlog::Walker::new(0);
                self.walker.file(bytes)?;
                self.at = holdfast_binlog::walker::MAGIC.len();
            }
            let rest = bytes.get(self.at..).unwrap_or_default();
            if rest.is_empty() {
                self.file += 1;
                self.at = 0;
                continue;
            }
            let position = self.at as u64;
            let found = self.walker.whole(rest)?;
            if let Some(format) = self.walker.format()
                && let holdfast_binlog::transaction::Pushed::End(_) = self.assembler.push(&found, format)?
            {
                self.done += 1;
            }
            self.at += found.raw.len();
            event.clear();
            event.extend_from_slice(found.raw);
            return Ok(Some(EventPlace { file: Arc::clone(name), position }));
        }
    }
}
