//! Reading a frame of the index in place: nothing is allocated for an entry, so that weeks of log are looked through in
//! the time that it takes to decompress their index.

use super::{
    DICTIONARY_MAX, ENTRIES_MAX, FILE_BYTES_MAX, FLAG_COMPLETE, FLAGS_MAX, HAS_GTID, HAS_STATEMENT,
    NAME_BYTES_MAX, Previous, ROLLED_BACK, STATEMENT_BYTES_MAX, STATEMENT_CUT, StatementText, TABLES_CUT,
    TABLES_MAX, TableChange, TxnEntry, TxnKind, VERSION, WHAT, unzigzag, with_number,
};
use crate::codec::Reader;
use crate::error::{Error, Result};
use crate::gtid::Gtid;

/// A frame of the index whose entries are still bytes.
#[derive(Debug, Clone)]
pub struct FrameView<'a> {
    /// Number of the log segment whose transactions these are.
    pub number: u64,
    /// Name of the source's file that the offsets are of.
    pub file: &'a str,
    /// No further frame follows for that segment.
    pub complete: bool,
    sources: Vec<Gtid>,
    tables: Vec<(&'a [u8], &'a [u8])>,
    count: u32,
    entries: Reader<'a>,
}

/// What a transaction did to one table of its frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Touched {
    /// Which: its place in [`FrameView::tables`].
    pub table: usize,
    /// Rows inserted.
    pub inserted: u64,
    /// Rows updated.
    pub updated: u64,
    /// Rows deleted.
    pub deleted: u64,
}

/// An entry, as long as it is looked at. The fields are those of [`TxnEntry`].
#[derive(Debug, Clone, Copy)]
pub struct EntryView<'v> {
    /// Offset of its first event in the source's file.
    pub start: u64,
    /// Offset behind its last event.
    pub end: u64,
    /// When it was committed, microseconds since the Unix epoch.
    pub commit_us: i64,
    /// What it is.
    pub kind: TxnKind,
    /// The tables that it touched.
    pub tables: &'v [Touched],
    /// More tables than fit were changed.
    pub tables_cut: bool,
    /// It ended with ROLLBACK.
    pub rolled_back: bool,
    /// Default database and text of its statement, if it has one.
    pub statement: Option<(&'v [u8], &'v [u8])>,
    statement_cut: bool,
    /// Source and number.
    gtid: Option<(&'v Gtid, u64)>,
    names: &'v [(&'v [u8], &'v [u8])],
}

impl EntryView<'_> {
    /// Its GTID, if it has one.
    #[must_use]
    pub fn gtid(&self) -> Option<Gtid> {
        self.gtid.map(|(source, number)| with_number(source, number))
    }

    /// Whether this is its GTID.
    #[must_use]
    pub fn gtid_is(&self, wanted: &Gtid) -> bool {
        self.gtid.is_some_and(|(source, number)| match (source, wanted) {
            (Gtid::MySql { tsid, .. }, Gtid::MySql { tsid: of, gno }) => number == *gno && tsid == of,
            (Gtid::MariaDb(source), Gtid::MariaDb(wanted)) => {
                number == wanted.sequence && (source.domain, source.server) == (wanted.domain, wanted.server)
            }
            _ => false,
        })
    }

    /// The entry with memory of its own.
    #[must_use]
    pub fn to_entry(&self) -> TxnEntry {
        let change = |touched: &Touched| {
            let (database, table) = self.names.get(touched.table).copied().unwrap_or_default();
            TableChange {
                database: database.to_vec(),
                table: table.to_vec(),
                inserted: touched.inserted,
                updated: touched.updated,
                deleted: touched.deleted,
            }
        };
        TxnEntry {
            gtid: self.gtid(),
            start: self.start,
            end: self.end,
            commit_us: self.commit_us,
            kind: self.kind,
            tables: self.tables.iter().map(change).collect(),
            tables_cut: self.tables_cut,
            rolled_back: self.rolled_back,
            statement: self.statement.map(|(database, text)| StatementText {
                database: database.to_vec(),
                text: text.to_vec(),
                cut: self.statement_cut,
            }),
        }
    }
}

impl<'a> FrameView<'a> {
    /// Reads what stands before the entries of a frame's plaintext.
    pub fn decode(bytes: &'a [u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.version(VERSION)?;
        let number = r.u64()?;
        let flags = r.u32()?;
        if flags & !FLAG_COMPLETE != 0 {
            return Err(Error::bad(WHAT, "the flags", "0 or 1", flags));
        }
        let file = r.text("a binlog file", FILE_BYTES_MAX)?;
        let mut sources = Vec::new();
        for _ in 0..r.count("the number of sources", DICTIONARY_MAX, 4)? {
            let (gtid, used) = Gtid::decode(r.rest()).map_err(|source| Error::Gtid { what: WHAT, source })?;
            r.raw(used)?;
            sources.push(gtid);
        }
        let mut tables = Vec::new();
        for _ in 0..r.count("the number of tables", DICTIONARY_MAX, 8)? {
            let database = r.blob("a database's name", NAME_BYTES_MAX)?;
            tables.push((database, r.blob("a table's name", NAME_BYTES_MAX)?));
        }
        let count = r.count("the number of transactions", ENTRIES_MAX, 4)?;
        Ok(Self { number, file, complete: flags & FLAG_COMPLETE != 0, sources, tables, count, entries: r })
    }

    /// Database and name of the tables that its entries touch.
    #[must_use]
    pub fn tables(&self) -> &[(&'a [u8], &'a [u8])] {
        &self.tables
    }

    /// How many entries it has.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.count
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Hands every entry to `each`, in the order of the log.
    ///
    /// # Errors
    /// What `each` says, and an entry that does not fit the format.
    pub fn each<E: From<Error>>(
        &self,
        mut each: impl FnMut(&EntryView<'_>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut r = self.entries.clone();
        let mut state = Previous { end: 0, commit_us: 0, numbers: vec![0; self.sources.len()] };
        let mut touched = Vec::new();
        for _ in 0..self.count {
            let entry = self.next(&mut r, &mut state, &mut touched)?;
            each(&entry)?;
        }
        Ok(r.end()?)
    }

    fn next<'v>(
        &'v self,
        r: &mut Reader<'a>,
        state: &mut Previous,
        touched: &'v mut Vec<Touched>,
    ) -> Result<EntryView<'v>> {
        let head = r.varint_max("the head of a transaction", FLAGS_MAX)?;
        let kind = TxnKind::of(head & 7)?;
        let start = state.end.wrapping_add(unzigzag(r.varint("a start")?).cast_unsigned());
        let len = r.varint("a length")?;
        let Some(end) = start.checked_add(len) else {
            return Err(Error::bad(WHAT, "the length of a transaction", "one within 64 bits", len));
        };
        let commit_us = state.commit_us.wrapping_add(unzigzag(r.varint("a commit's time")?));
        state.end = end;
        state.commit_us = commit_us;
        let gtid = if head & HAS_GTID != 0 { Some(self.take_gtid(r, state)?) } else { None };
        touched.clear();
        for _ in 0..r.varint_u32("the number of tables of a transaction", TABLES_MAX)? {
            let place = r.varint("the place of a table")?;
            let table = usize::try_from(place).ok().filter(|place| *place < self.tables.len());
            let Some(table) = table else {
                return Err(Error::bad(WHAT, "the place of a table", "one in the dictionary", place));
            };
            touched.push(Touched {
                table,
                inserted: r.varint("rows inserted")?,
                updated: r.varint("rows updated")?,
                deleted: r.varint("rows deleted")?,
            });
        }
        let statement_cut = head & STATEMENT_CUT != 0;
        let statement = if head & HAS_STATEMENT != 0 {
            let len = r.varint_u32("the length of a database's name", NAME_BYTES_MAX)?;
            let database = r.raw(len as usize)?;
            let len = r.varint_u32("the length of a statement", STATEMENT_BYTES_MAX)?;
            Some((database, r.raw(len as usize)?))
        } else if statement_cut {
            return Err(Error::bad(WHAT, "the head of a transaction", "a statement that is cut", "none"));
        } else {
            None
        };
        Ok(EntryView {
            start,
            end,
            commit_us,
            kind,
            tables: touched,
            tables_cut: head & TABLES_CUT != 0,
            rolled_back: head & ROLLED_BACK != 0,
            statement,
            statement_cut,
            gtid,
            names: &self.tables,
        })
    }

    fn take_gtid(&self, r: &mut Reader<'a>, state: &mut Previous) -> Result<(&Gtid, u64)> {
        let place = r.varint("the place of a source")?;
        let slot = usize::try_from(place).ok();
        let source = slot.and_then(|slot| self.sources.get(slot));
        let previous = slot.and_then(|slot| state.numbers.get_mut(slot));
        let (Some(source), Some(previous)) = (source, previous) else {
            return Err(Error::bad(WHAT, "the place of a source", "one in the dictionary", place));
        };
        let number = previous.wrapping_add(unzigzag(r.varint("a transaction's number")?).cast_unsigned());
        if matches!(source, Gtid::MySql { .. }) && !(1..=crate::gtid::GNO_MAX).contains(&number) {
            return Err(Error::bad(WHAT, "a transaction's number", "1 to 2^63 - 2", number));
        }
        *previous = number;
        Ok((source, number))
    }
}
