//! The index of a stretch of log: one entry a transaction, in the order of the log. See `format-spec/txn_index.md`.
//!
//! A frame of kind [`crate::segment::FrameKind::LogIndex`] holds one [`IndexFrame`]. It is derived from the events
//! and can be made again from them.

mod walk;

use std::collections::HashMap;

pub use walk::{EntryView, FrameView, Touched};

use crate::codec::Writer;
use crate::error::{Error, Result};
use crate::gtid::Gtid;

/// Version of the structure.
pub const VERSION: u32 = crate::VERSION;

/// Most entries of a frame. At 15 bytes each they are 1 MiB, the size that other frames aim at.
pub const ENTRIES_MAX: u32 = 64 * 1024;

/// Most tables that an entry names. A transaction with more sets [`TxnEntry::tables_cut`]: whoever looks for a table
/// must read its events.
pub const TABLES_MAX: u32 = 4096;

/// Most tables and GTID sources that the entries of one frame share; a frame is closed before.
pub const DICTIONARY_MAX: u32 = 64 * 1024;

/// Longest name of a database or table: 64 characters of 4 bytes.
pub const NAME_BYTES_MAX: u32 = 256;

/// Longest text of a statement that is kept. Definitions are rarely longer; the events hold the rest.
pub const STATEMENT_BYTES_MAX: u32 = 4096;

/// Longest name of a binlog file; the servers' limit of a path is 512.
pub const FILE_BYTES_MAX: u32 = 512;

/// Bytes at which a builder closes a frame; the format's limit is 4 MiB.
pub const FRAME_BYTES: usize = 1024 * 1024;

const WHAT: &str = "transaction index";
const FLAG_COMPLETE: u32 = 1;

const HAS_GTID: u64 = 1 << 3;
const HAS_STATEMENT: u64 = 1 << 4;
const TABLES_CUT: u64 = 1 << 5;
const ROLLED_BACK: u64 = 1 << 6;
const STATEMENT_CUT: u64 = 1 << 7;
const FLAGS_MAX: u64 = (1 << 8) - 1;

/// What a transaction is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TxnKind {
    /// Nothing that changes anything.
    Other,
    /// Changes of rows.
    Rows,
    /// A definition: tables, routines, databases. `CREATE TABLE .. SELECT` has rows, too.
    Ddl,
    /// Accounts and privileges.
    Acl,
    /// A change of data that was logged as a statement.
    Statement,
    /// A part of a distributed transaction (XA).
    Xa,
}

impl TxnKind {
    fn code(self) -> u64 {
        match self {
            Self::Other => 0,
            Self::Rows => 1,
            Self::Ddl => 2,
            Self::Acl => 3,
            Self::Statement => 4,
            Self::Xa => 5,
        }
    }

    fn of(code: u64) -> Result<Self> {
        Ok(match code {
            0 => Self::Other,
            1 => Self::Rows,
            2 => Self::Ddl,
            3 => Self::Acl,
            4 => Self::Statement,
            5 => Self::Xa,
            _ => return Err(Error::bad(WHAT, "the kind of a transaction", "0 to 5", code)),
        })
    }
}

/// What a transaction did to one table, by its row events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableChange {
    /// Database, in the server's bytes (UTF-8).
    pub database: Vec<u8>,
    /// Table.
    pub table: Vec<u8>,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// The statement of a transaction that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatementText {
    /// Default database; empty: none.
    pub database: Vec<u8>,
    /// The text, at most [`STATEMENT_BYTES_MAX`] bytes of it.
    pub text: Vec<u8>,
    /// The text is longer in the log.
    pub cut: bool,
}

/// One transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TxnEntry {
    /// Its name; none where the source gives none.
    pub gtid: Option<Gtid>,
    /// Offset of its first event in the source's file.
    pub start: u64,
    /// Offset behind its last event.
    pub end: u64,
    /// When it was committed, microseconds since the Unix epoch; whole seconds where the log has no better.
    pub commit_us: i64,
    /// What it is.
    pub kind: TxnKind,
    /// The tables whose rows it changed, in the order of their first change. For a definition: the tables that its
    /// statement names, without counts.
    pub tables: Vec<TableChange>,
    /// More tables than fit were changed.
    pub tables_cut: bool,
    /// It ended with ROLLBACK: only what no rollback reaches stays.
    pub rolled_back: bool,
    /// The text of a definition, an account statement, or the first statement that changed data.
    pub statement: Option<StatementText>,
}

/// A stretch of the index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexFrame {
    /// Number of the log segment whose transactions these are: they end in it.
    pub number: u64,
    /// Name of the source's file that the offsets are of.
    pub file: String,
    /// No further frame follows for that segment.
    pub complete: bool,
    /// The transactions.
    pub entries: Vec<TxnEntry>,
}

impl IndexFrame {
    /// Splits entries into frames of bounded size; the last one is marked complete if `complete` is set.
    /// Gives at least one frame.
    #[must_use]
    pub fn split(number: u64, file: &str, entries: Vec<TxnEntry>, complete: bool) -> Vec<Self> {
        let new = || Self { number, file: file.to_owned(), complete: false, entries: Vec::new() };
        let mut frames = Vec::new();
        let (mut frame, mut bytes, mut names) = (new(), 0, 0);
        for entry in entries {
            let (entry_bytes, entry_names) = (entry.bytes_at_most(), entry.tables.len() + 1);
            let full = bytes + entry_bytes > FRAME_BYTES
                || names + entry_names > DICTIONARY_MAX as usize
                || frame.entries.len() >= ENTRIES_MAX as usize;
            if full && !frame.entries.is_empty() {
                frames.push(std::mem::replace(&mut frame, new()));
                (bytes, names) = (0, 0);
            }
            bytes += entry_bytes;
            names += entry_names;
            frame.entries.push(entry);
        }
        frame.complete = complete;
        frames.push(frame);
        frames
    }

    /// The plaintext of the frame.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut dictionary = Dictionary::default();
        let mut body = Writer::new();
        let mut state = Previous::default();
        for entry in &self.entries {
            put_entry(&mut body, entry, &mut dictionary, &mut state);
        }
        let mut w = Writer::new();
        w.u32(VERSION);
        w.u64(self.number);
        w.u32(if self.complete { FLAG_COMPLETE } else { 0 });
        w.blob(self.file.as_bytes());
        w.count(dictionary.sources.len());
        for source in &dictionary.sources {
            let mut bytes = Vec::new();
            source.encode(&mut bytes);
            w.raw(&bytes);
        }
        w.count(dictionary.tables.len());
        for (database, table) in &dictionary.tables {
            w.blob(database);
            w.blob(table);
        }
        w.count(self.entries.len());
        w.raw(body.as_bytes());
        w.into_bytes()
    }

    /// Reads the plaintext of a frame.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let view = FrameView::decode(bytes)?;
        let mut entries = Vec::new();
        view.each::<Error>(|entry| {
            entries.push(entry.to_entry());
            Ok(())
        })?;
        Ok(Self { number: view.number, file: view.file.to_owned(), complete: view.complete, entries })
    }
}

impl TxnEntry {
    /// More than this entry can take in a frame, its share of the dictionaries included.
    fn bytes_at_most(&self) -> usize {
        let tables: usize = self.tables.iter().map(|t| 45 + t.database.len() + t.table.len()).sum();
        let statement = self.statement.as_ref().map_or(0, |s| 12 + s.database.len() + s.text.len());
        160 + tables + statement
    }
}

/// Deltas are taken from the entry before.
#[derive(Default)]
struct Previous {
    end: u64,
    commit_us: i64,
    numbers: Vec<u64>,
}

#[derive(Default)]
struct Dictionary {
    sources: Vec<Gtid>,
    tables: Vec<(Vec<u8>, Vec<u8>)>,
    source_places: HashMap<Gtid, u64>,
    table_places: HashMap<(Vec<u8>, Vec<u8>), u64>,
}

impl Dictionary {
    fn source(&mut self, gtid: &Gtid) -> u64 {
        let source = with_number(gtid, 1);
        if let Some(&place) = self.source_places.get(&source) {
            return place;
        }
        let place = self.sources.len() as u64;
        self.sources.push(source.clone());
        self.source_places.insert(source, place);
        place
    }

    fn table(&mut self, change: &TableChange) -> u64 {
        let name = (change.database.clone(), change.table.clone());
        if let Some(&place) = self.table_places.get(&name) {
            return place;
        }
        let place = self.tables.len() as u64;
        self.tables.push(name.clone());
        self.table_places.insert(name, place);
        place
    }
}

fn number_of(gtid: &Gtid) -> u64 {
    match gtid {
        Gtid::MySql { gno, .. } => *gno,
        Gtid::MariaDb(gtid) => gtid.sequence,
    }
}

fn with_number(gtid: &Gtid, number: u64) -> Gtid {
    match gtid {
        Gtid::MySql { tsid, .. } => Gtid::MySql { tsid: tsid.clone(), gno: number },
        Gtid::MariaDb(gtid) => {
            let mut gtid = *gtid;
            gtid.sequence = number;
            Gtid::MariaDb(gtid)
        }
    }
}

/// Signed differences as unsigned numbers, small ones first: 0, -1, 1, -2, ...
fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)).cast_unsigned()
}

fn unzigzag(v: u64) -> i64 {
    (v >> 1).cast_signed() ^ -((v & 1).cast_signed())
}

fn put_entry(w: &mut Writer, entry: &TxnEntry, dictionary: &mut Dictionary, state: &mut Previous) {
    let mut head = entry.kind.code();
    for (set, flag) in [
        (entry.gtid.is_some(), HAS_GTID),
        (entry.statement.is_some(), HAS_STATEMENT),
        (entry.tables_cut, TABLES_CUT),
        (entry.rolled_back, ROLLED_BACK),
        (entry.statement.as_ref().is_some_and(|s| s.cut), STATEMENT_CUT),
    ] {
        if set {
            head |= flag;
        }
    }
    w.varint(head);
    w.varint(zigzag(entry.start.wrapping_sub(state.end).cast_signed()));
    w.varint(entry.end.wrapping_sub(entry.start));
    w.varint(zigzag(entry.commit_us.wrapping_sub(state.commit_us)));
    state.end = entry.end;
    state.commit_us = entry.commit_us;
    if let Some(gtid) = &entry.gtid {
        let place = dictionary.source(gtid);
        state.numbers.resize(dictionary.sources.len(), 0);
        w.varint(place);
        if let Some(previous) = state.numbers.get_mut(place as usize) {
            let number = number_of(gtid);
            w.varint(zigzag(number.wrapping_sub(*previous).cast_signed()));
            *previous = number;
        }
    }
    w.varint(entry.tables.len() as u64);
    for change in &entry.tables {
        w.varint(dictionary.table(change));
        for n in [change.inserted, change.updated, change.deleted] {
            w.varint(n);
        }
    }
    if let Some(statement) = &entry.statement {
        for bytes in [&statement.database, &statement.text] {
            w.varint(bytes.len() as u64);
            w.raw(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gtid::{MariaDbGtid, Tsid, Uuid};
    use proptest::prelude::*;

    fn gtids() -> impl Strategy<Value = Gtid> {
        prop_oneof![
            (0u8..3, 1u64..1000).prop_map(|(sid, gno)| Gtid::MySql {
                tsid: Tsid { sid: Uuid([sid; 16]), tag: "t".repeat(usize::from(sid)).parse().unwrap() },
                gno,
            }),
            (any::<u32>(), any::<u32>(), any::<u64>()).prop_map(|(domain, server, sequence)| {
                Gtid::MariaDb(MariaDbGtid { domain, server, sequence })
            }),
        ]
    }

    fn entries() -> impl Strategy<Value = TxnEntry> {
        let table = ("[a-c]{1,2}", "[a-c]{1,2}", any::<[u64; 3]>()).prop_map(|(database, table, n)| {
            let [inserted, updated, deleted] = n;
            TableChange { database: database.into(), table: table.into(), inserted, updated, deleted }
        });
        let statement = ("[a-z]{0,5}", "[ -~]{0,80}", any::<bool>()).prop_map(|(database, text, cut)| {
            StatementText { database: database.into(), text: text.into(), cut }
        });
        (
            proptest::option::of(gtids()),
            (any::<u32>(), any::<u32>(), any::<i64>()),
            0u64..6,
            proptest::collection::vec(table, 0..4),
            (any::<bool>(), any::<bool>()),
            proptest::option::of(statement),
        )
            .prop_map(
                |(gtid, (start, len, commit_us), kind, tables, (tables_cut, rolled_back), statement)| {
                    TxnEntry {
                        gtid,
                        start: u64::from(start),
                        end: u64::from(start) + u64::from(len),
                        commit_us,
                        kind: TxnKind::of(kind).unwrap(),
                        tables,
                        tables_cut,
                        rolled_back,
                        statement,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn frames_come_back(
            number: u64, complete: bool, entries in proptest::collection::vec(entries(), 0..20),
        ) {
            let frame = IndexFrame { number, file: "binlog.000001".into(), complete, entries };
            prop_assert_eq!(IndexFrame::decode(&frame.encode()).unwrap(), frame);
        }

        #[test]
        fn any_bytes_are_a_frame_or_an_error(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            entries in proptest::collection::vec(entries(), 1..4),
            at: prop::sample::Index, to: u8,
        ) {
            let _ = IndexFrame::decode(&bytes);
            let mut damaged =
                IndexFrame { number: 1, file: "b".into(), complete: true, entries }.encode();
            let at = at.index(damaged.len());
            damaged[at] = to;
            let _ = IndexFrame::decode(&damaged);
            let _ = IndexFrame::decode(&damaged[..at]);
        }

        #[test]
        fn differences_come_back(v: i64) {
            prop_assert_eq!(unzigzag(zigzag(v)), v);
        }
    }

    fn small(gno: u64) -> TxnEntry {
        TxnEntry {
            gtid: Some(Gtid::MySql { tsid: Tsid { sid: Uuid([7; 16]), tag: Default::default() }, gno }),
            start: 1000 * gno,
            end: 1000 * gno + 1000,
            commit_us: 1_700_000_000_000_000 + 1500 * gno as i64,
            kind: TxnKind::Rows,
            tables: vec![TableChange {
                database: b"shop".to_vec(),
                table: b"orders".to_vec(),
                inserted: 1,
                updated: 2,
                deleted: 0,
            }],
            tables_cut: false,
            rolled_back: false,
            statement: None,
        }
    }

    #[test]
    fn a_transaction_of_one_table_takes_15_bytes_at_most() {
        let frame = |n: u64| {
            let entries = (1..=n).map(small).collect();
            IndexFrame { number: 0, file: "binlog.000001".into(), complete: true, entries }.encode().len()
        };
        assert!((frame(1001) - frame(1)) / 1000 <= 15, "{} bytes", (frame(1001) - frame(1)) / 1000);
    }

    #[test]
    fn many_entries_are_split_into_bounded_frames_of_which_the_last_is_complete() {
        let entries: Vec<_> = (1..=100_000).map(small).collect();
        let frames = IndexFrame::split(3, "b", entries.clone(), true);
        assert!(frames.len() > 1);
        for (i, frame) in frames.iter().enumerate() {
            assert_eq!(frame.complete, i + 1 == frames.len());
            assert!(frame.encode().len() <= FRAME_BYTES);
        }
        let back: Vec<_> = frames.into_iter().flat_map(|f| f.entries).collect();
        assert_eq!(back, entries);
        assert_eq!(IndexFrame::split(3, "b", Vec::new(), true).len(), 1);
    }
}
