//! Row events gathered into `BINLOG '..'` statements.
//!
//! [`Batch`] gives the events of each statement, [`statement`] makes its text.
//!
//! A BINLOG statement holds whole events: the table maps that its rows need come first.
//! It should end with the end of a source statement (STMT_END_F); where a statement is too
//! long for a packet it is cut between rows, each part with its table maps and an end.

use base64::Engine as _;
use holdfast_binlog::event::{Event, HEADER_LEN, Header};
use holdfast_binlog::rows::{FLAG_STMT_END, Rows};
use holdfast_binlog::tables::TableCache;
use holdfast_binlog::{Flaw, encode};

/// Raw bytes after which a BINLOG statement is sent at the end of a source statement.
const FLUSH_BYTES: usize = 1 << 20;

/// Raw bytes in one BINLOG statement, where rows are cut: base64 makes a third more of it,
/// and the server holds packet and decoded events at once.
const CUT_BYTES: usize = 8 << 20;

/// Gathers row events.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// Events that are not sent yet.
    events: Vec<u8>,
    /// Table maps of the source statement that is under way.
    maps: Vec<u8>,
    /// Where the last row event in `events` starts, for its flags.
    last_rows: Option<usize>,
    /// Are there rows whose statement has not ended?
    open: bool,
    scratch: Vec<u8>,
}

impl Batch {
    /// Is nothing waiting to be sent?
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// Bytes that wait to be sent.
    pub(crate) fn len(&self) -> usize {
        self.events.len()
    }

    /// Are the tables of the statement under way known?
    pub(crate) fn has_maps(&self) -> bool {
        !self.maps.is_empty()
    }

    /// Takes a TABLE_MAP event whose checksum is stripped already.
    pub(crate) fn raw_map(&mut self, event: &[u8]) {
        self.maps.extend_from_slice(event);
        self.events.extend_from_slice(event);
    }

    /// The source's statement ended, with rows of a table that is not in this batch.
    pub(crate) fn end_statement(&mut self) {
        if self.open {
            self.end_last();
            self.open = false;
        }
        self.maps.clear();
    }

    /// Takes a TABLE_MAP event.
    pub(crate) fn table_map(&mut self, event: &Event<'_>) -> Result<(), Flaw> {
        let before = self.maps.len();
        encode::stripped(event, &mut self.maps)?;
        self.events.extend_from_slice(self.maps.get(before..).unwrap_or_default());
        Ok(())
    }

    /// Takes a row event. `send` is called with each BINLOG statement that fills up.
    pub(crate) fn rows<E: From<Flaw>>(
        &mut self,
        header: &Header,
        rows: &Rows<'_>,
        tables: &mut TableCache,
        send: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.rows_inflated(header, rows, &mut scratch, tables, None, send);
        self.scratch = scratch;
        done
    }

    /// The same, an event for each row: a server that looks for rows without a primary key changes
    /// those of one event in an order of its own, and two of them may pass a unique value on.
    pub(crate) fn rows_apart<E: From<Flaw>>(
        &mut self,
        header: &Header,
        rows: &Rows<'_>,
        tables: &mut TableCache,
        send: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let done = self.rows_inflated(header, rows, &mut scratch, tables, Some(0), send);
        self.scratch = scratch;
        done
    }

    fn rows_inflated<E: From<Flaw>>(
        &mut self,
        header: &Header,
        rows: &Rows<'_>,
        scratch: &mut Vec<u8>,
        tables: &mut TableCache,
        apart: Option<usize>,
        send: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let rows = rows.inflated(scratch)?;
        let fits = rows.data.len() + self.events.len() <= CUT_BYTES;
        if let (true, Some(bytes)) = (fits, apart) {
            let (_, plan) = tables.plan(&rows)?;
            let mut parts = encode::split(plan.rows(rows.data), rows.data, bytes).peekable();
            while let Some(part) = parts.next() {
                self.append(header, &rows, encode::part_flags(rows.flags, parts.peek().is_none()), part?)?;
            }
        } else if fits || rows.is_dummy() {
            self.append(header, &rows, rows.flags, rows.data)?;
        } else {
            let (_, plan) = tables.plan(&rows)?;
            if self.last_rows.is_some() {
                self.cut(send)?;
            }
            let mut parts = encode::split(plan.rows(rows.data), rows.data, CUT_BYTES).peekable();
            while let Some(part) = parts.next() {
                let last = parts.peek().is_none();
                self.append(header, &rows, encode::part_flags(rows.flags, last), part?)?;
                if !last {
                    self.cut(send)?;
                }
            }
        }
        self.open = rows.flags & FLAG_STMT_END == 0;
        if !self.open {
            self.maps.clear();
            if self.events.len() >= FLUSH_BYTES {
                self.flush(send)?;
            }
        }
        Ok(())
    }

    fn append(&mut self, header: &Header, rows: &Rows<'_>, flags: u16, data: &[u8]) -> Result<(), Flaw> {
        self.last_rows = Some(self.events.len());
        encode::rows(header, rows, flags, data, &mut self.events)
    }

    /// Sends what is there although its source statement goes on.
    fn cut<E: From<Flaw>>(&mut self, send: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        self.end_last();
        self.send(send)?;
        self.events.extend_from_slice(&self.maps);
        Ok(())
    }

    /// Sends what is there.
    pub(crate) fn flush<E: From<Flaw>>(
        &mut self,
        send: &mut impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        if self.open {
            self.end_last();
        }
        self.maps.clear();
        self.open = false;
        self.send(send)
    }

    fn send<E>(&mut self, send: &mut impl FnMut(&[u8]) -> Result<(), E>) -> Result<(), E> {
        if self.last_rows.take().is_some() {
            let sent = send(&self.events);
            self.events.clear();
            return sent;
        }
        self.events.clear();
        Ok(())
    }

    /// Marks the last row event as the end of a statement: the server then closes its tables.
    fn end_last(&mut self) {
        // Behind the header stand six bytes of table id, then the flags.
        let at = self.last_rows.map(|start| start + HEADER_LEN + 6);
        if let Some(flags) = at.and_then(|at| self.events.get_mut(at)) {
            *flags |= FLAG_STMT_END as u8;
        }
    }
}

/// `BINLOG '..'` with the given events.
pub(crate) fn statement(events: &[u8]) -> String {
    let mut out = String::with_capacity(events.len() / 3 * 4 + 32);
    out.push_str("BINLOG '");
    base64::engine::general_purpose::STANDARD.encode_string(events, &mut out);
    out.push('\'');
    out
}
