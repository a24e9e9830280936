//! Row events: their fixed part, and rows cut out of them as bytes.
//!
//! Nothing here decodes a value. A [`RowPlan`] is made once for a table and the columns
//! that an event carries; with it rows are measured, cells found and keys extracted
//! without an allocation per row.

use crate::bytes::Cursor;
use crate::columns::{Columns, Width};
use crate::compressed;
use crate::error::Flaw;
use crate::kind::{EventType, RowChange, RowsKind};
use crate::table_map::COLUMNS_MAX;

/// Rows flag: last row event of its statement.
pub const FLAG_STMT_END: u16 = 0x0001;
/// Rows flag: the source ran with `foreign_key_checks=0`, or checked keys in its SQL layer.
pub const FLAG_NO_FOREIGN_KEY_CHECKS: u16 = 0x0002;
/// Rows flag: the source ran with `unique_checks=0`.
pub const FLAG_RELAXED_UNIQUE_CHECKS: u16 = 0x0004;
/// Rows flag: every row carries all columns.
pub const FLAG_COMPLETE_ROWS: u16 = 0x0008;
/// Rows flag, MySQL 9.6 and later: foreign keys were the SQL layer's work, cascades are in the log.
pub const FLAG_USE_SQL_FOREIGN_KEY: u16 = 0x0010;

/// The table id of a row event that only ends a statement.
pub const DUMMY_TABLE_ID: u64 = 0x00ff_ffff;

/// A row event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows<'a> {
    /// What it does.
    pub kind: RowsKind,
    /// The table, as named by the TABLE_MAP before.
    pub table_id: u64,
    /// `FLAG_*`; bits that aren't known here are kept.
    pub flags: u16,
    /// Extra data of version 2 (partition, NDB), without its length.
    pub extra: &'a [u8],
    /// Number of columns.
    pub width: u16,
    /// Columns of the only image, or of the before image of an update: one bit each.
    pub present: &'a [u8],
    /// Columns of the after image of an update.
    pub present_after: Option<&'a [u8]>,
    /// The rows; compressed if `kind.compressed`.
    pub data: &'a [u8],
}

impl<'a> Rows<'a> {
    /// Does an image with the columns `present`, one bit each, carry all columns? Bits behind the last one mean nothing.
    #[must_use]
    pub fn is_whole(&self, present: &[u8]) -> bool {
        let width = usize::from(self.width);
        (0..width.div_ceil(8)).all(|at| {
            let all = match width - at * 8 {
                rest @ 0..8 => (1u8 << rest) - 1,
                _ => u8::MAX,
            };
            present.get(at).is_some_and(|byte| byte & all == all)
        })
    }

    pub(crate) fn parse(event: EventType, body: &'a [u8]) -> Result<Self, Flaw> {
        let mut c = Cursor::new(body);
        let Some(kind) = event.rows() else {
            return Err(c.flaw("a row event", event));
        };
        let table_id = c.uint(6, "a table id")?;
        let flags = c.u16("flags")?;
        let extra = if kind.version == 2 {
            let len = c.u16("the length of extra data")?;
            match usize::from(len).checked_sub(2) {
                Some(len) => c.take(len, "extra data")?,
                None => return Err(c.flaw("a length of extra data of at least 2", len)),
            }
        } else {
            &[]
        };
        let width = c.lenenc("a number of columns")?;
        if width > COLUMNS_MAX {
            return Err(c.flaw("at most 4096 columns", width));
        }
        let bitmap = (width as usize).div_ceil(8);
        let present = c.take(bitmap, "the map of columns")?;
        let present_after = match kind.change {
            RowChange::Update => Some(c.take(bitmap, "the map of columns after the change")?),
            _ => None,
        };
        let data = c.rest();
        Ok(Self { kind, table_id, flags, extra, width: width as u16, present, present_after, data })
    }

    /// The same rows uncompressed; inflates into `scratch` if they were compressed.
    ///
    /// # Errors
    /// Fails when the data don't inflate.
    pub fn inflated<'b>(&self, scratch: &'b mut Vec<u8>) -> Result<Rows<'b>, Flaw>
    where
        'a: 'b,
    {
        if !self.kind.compressed {
            return Ok(*self);
        }
        compressed::inflate(self.data, scratch)?;
        Ok(Rows { kind: RowsKind { compressed: false, ..self.kind }, data: scratch, ..*self })
    }

    /// Bytes of the rows when they are inflated, as they announce it.
    ///
    /// # Errors
    /// Fails when compressed data do not say.
    pub fn inflated_len(&self) -> Result<usize, Flaw> {
        if !self.kind.compressed {
            return Ok(self.data.len());
        }
        Ok(usize::try_from(compressed::inflated_len(&mut Cursor::new(self.data))?).unwrap_or(usize::MAX))
    }

    /// Does it end its statement without a row?
    #[must_use]
    pub fn is_dummy(&self) -> bool {
        self.table_id == DUMMY_TABLE_ID && self.data.is_empty()
    }

    /// The way to cut the rows.
    ///
    /// # Errors
    /// Fails when the event speaks of other columns than the table has.
    pub fn plan(&self, columns: &Columns) -> Result<RowPlan, Flaw> {
        if usize::from(self.width) != columns.len() {
            let got = format!("{} for {}", self.width, columns.len());
            return Err(Flaw { offset: 8, expected: "as many columns as the table has", got });
        }
        let partial =
            self.kind.partial.then(|| json_columns(columns, self.present_after.unwrap_or_default()));
        Ok(RowPlan {
            change: self.kind.change,
            first: ImagePlan::new(columns, self.present),
            after: self.present_after.map(|present| ImagePlan::new(columns, present)),
            partial_json: partial,
        })
    }
}

fn json_columns(columns: &Columns, present: &[u8]) -> usize {
    let is_json = |kind| matches!(kind, crate::columns::ColumnType::Json { .. });
    columns.list().iter().enumerate().filter(|(i, c)| bit(present, *i) && is_json(c.kind)).count()
}

fn bit(map: &[u8], i: usize) -> bool {
    map.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1)
}

/// How to cut one image of a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImagePlan {
    cells: Vec<Width>,
    /// For each cell the column that it belongs to.
    columns: Vec<u16>,
    null_bytes: usize,
}

impl ImagePlan {
    /// The way to cut images that carry the columns in `present`: one bit each.
    #[must_use]
    pub fn new(columns: &Columns, present: &[u8]) -> Self {
        let (mut cells, mut numbers) = (Vec::new(), Vec::new());
        for (i, column) in columns.list().iter().enumerate() {
            if bit(present, i) {
                cells.push(column.width);
                numbers.push(i as u16);
            }
        }
        let null_bytes = cells.len().div_ceil(8);
        Self { cells, columns: numbers, null_bytes }
    }

    /// The columns that the image carries, in the order of its cells.
    #[must_use]
    pub fn columns(&self) -> &[u16] {
        &self.columns
    }

    /// Length of the image at the front of `bytes`; `None` when it is cut.
    #[inline]
    #[must_use]
    pub fn measure(&self, bytes: &[u8]) -> Option<usize> {
        let (nulls, mut rest) = bytes.split_at_checked(self.null_bytes)?;
        for (cells, mut null) in self.cells.chunks(8).zip(nulls.iter().copied()) {
            for cell in cells {
                if null & 1 == 0 {
                    rest = rest.get(cell.measure(rest)?..)?;
                }
                null >>= 1;
            }
        }
        Some(bytes.len() - rest.len())
    }

    /// Gives each cell in order: its column, and its bytes with their length prefix, or
    /// `None` for NULL. Stops early when `visit` returns false.
    pub fn visit<'a>(&self, image: &'a [u8], mut visit: impl FnMut(u16, Option<&'a [u8]>) -> bool) {
        let Some((nulls, mut rest)) = image.split_at_checked(self.null_bytes) else { return };
        for (i, (width, column)) in self.cells.iter().zip(&self.columns).enumerate() {
            let cell = if bit(nulls, i) {
                None
            } else {
                let Some((cell, tail)) = width.measure(rest).and_then(|len| rest.split_at_checked(len))
                else {
                    return;
                };
                rest = tail;
                Some(cell)
            };
            if !visit(*column, cell) {
                return;
            }
        }
    }

    /// The cell of a column: `None` if the image does not carry it, `Some(None)` for NULL.
    #[must_use]
    pub fn cell<'a>(&self, image: &'a [u8], wanted: u16) -> Option<Option<&'a [u8]>> {
        let mut found = None;
        self.visit(image, |column, cell| {
            if column == wanted {
                found = Some(cell);
            }
            column != wanted
        });
        found
    }

    /// The image with the cells that another one carries, too, taken from there: what a row is after a
    /// change whose after image may carry some columns only. `None` when one of them is cut.
    #[must_use]
    pub fn overlay(&self, image: &[u8], other: &Self, over: &[u8]) -> Option<Vec<u8>> {
        let (image, over) = (image.get(..self.measure(image)?)?, over.get(..other.measure(over)?)?);
        let mut newer = Vec::with_capacity(other.columns.len());
        other.visit(over, |column, cell| {
            newer.push((column, cell));
            true
        });
        let mut newer = newer.into_iter().peekable();
        let mut out = vec![0; self.null_bytes];
        let mut at = 0;
        // Both have their cells in the order of columns.
        self.visit(image, |column, cell| {
            while newer.next_if(|(other, _)| *other < column).is_some() {}
            match newer.next_if(|(other, _)| *other == column).map_or(cell, |(_, newer)| newer) {
                Some(cell) => out.extend_from_slice(cell),
                None => {
                    if let Some(byte) = out.get_mut(at / 8) {
                        *byte |= 1 << (at % 8);
                    }
                }
            }
            at += 1;
            true
        });
        Some(out)
    }

    /// The way to extract the key of the `key` columns (in the key's order) from images of
    /// this plan; `None` when the image does not carry them all.
    #[must_use]
    pub fn key(&self, key: &[u16]) -> Option<KeyPlan> {
        let mut cells = Vec::with_capacity(key.len());
        for column in key {
            cells.push(self.columns.iter().position(|c| c == column)?);
        }
        if cells.is_empty() {
            return None;
        }
        // The usual key: the leading columns, in order, of fixed length.
        let mut leading = Some(0usize);
        for (i, cell) in cells.iter().enumerate() {
            leading = match (leading, self.cells.get(*cell)) {
                (Some(sum), Some(Width::Fixed(len))) if *cell == i => Some(sum + usize::from(*len)),
                _ => None,
            };
        }
        let last = cells.iter().copied().max().unwrap_or(0);
        Some(KeyPlan { cells, last, leading })
    }
}

/// How to extract a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlan {
    /// Cells in the key's order.
    cells: Vec<usize>,
    /// The last cell that must be walked over.
    last: usize,
    /// Length of the key when it is the front of the row.
    leading: Option<usize>,
}

/// Most columns of a key in both families.
pub const KEY_COLUMNS_MAX: usize = 32;

impl KeyPlan {
    /// Appends the key of an image to `out`: the cells in the key's order, each with its
    /// length prefix, so that different keys of one table give different bytes. Gives
    /// false (and appends nothing) for a NULL in the key or a cut image.
    #[inline]
    pub fn extract(&self, plan: &ImagePlan, image: &[u8], out: &mut Vec<u8>) -> bool {
        let Some((nulls, mut rest)) = image.split_at_checked(plan.null_bytes) else { return false };
        if let Some(len) = self.leading {
            let no_null = (0..self.cells.len()).all(|i| !bit(nulls, i));
            return match rest.get(..len) {
                Some(key) if no_null => {
                    out.extend_from_slice(key);
                    true
                }
                _ => false,
            };
        }
        let mut found = [&[][..]; KEY_COLUMNS_MAX];
        if self.cells.len() > found.len() {
            return false;
        }
        for (i, width) in plan.cells.iter().enumerate().take(self.last + 1) {
            let wanted = self.cells.iter().position(|cell| *cell == i);
            if bit(nulls, i) {
                if wanted.is_some() {
                    return false;
                }
                continue;
            }
            let Some((cell, tail)) = width.measure(rest).and_then(|len| rest.split_at_checked(len)) else {
                return false;
            };
            rest = tail;
            if let Some(slot) = wanted.and_then(|n| found.get_mut(n)) {
                *slot = cell;
            }
        }
        for part in found.iter().take(self.cells.len()) {
            out.extend_from_slice(part);
        }
        true
    }
}

/// How to cut the rows of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RowPlan {
    change: RowChange,
    /// The only image, or the one before the change.
    pub first: ImagePlan,
    /// The image after an update.
    pub after: Option<ImagePlan>,
    /// Number of JSON columns in the after image, if they may hold differences.
    partial_json: Option<usize>,
}

/// One row of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row<'a> {
    /// Everything that belongs to it.
    pub bytes: &'a [u8],
    /// The image before (update, delete), plan: `first`.
    pub before: Option<&'a [u8]>,
    /// The image after (insert: plan `first`; update: plan `after`).
    pub after: Option<&'a [u8]>,
    /// The after image holds JSON differences.
    pub partial: bool,
}

impl RowPlan {
    /// What happens to the rows.
    #[must_use]
    pub fn change(&self) -> RowChange {
        self.change
    }

    /// The rows in `data`. Ends behind the first error.
    pub fn rows<'p, 'a>(&'p self, data: &'a [u8]) -> RowIter<'p, 'a> {
        RowIter { plan: self, data, at: 0 }
    }

    /// The plan of the only image, or of the before image of an update.
    #[must_use]
    pub fn first_plan(&self) -> &ImagePlan {
        &self.first
    }

    /// The plan of the after image: of an insert the only one.
    #[must_use]
    pub fn after_plan(&self) -> Option<&ImagePlan> {
        match self.change {
            RowChange::Insert => Some(&self.first),
            RowChange::Update => self.after.as_ref(),
            RowChange::Delete => None,
        }
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> Option<Row<'a>> {
        let first = self.first.measure(bytes)?;
        let (image, rest) = bytes.split_at_checked(first)?;
        match (&self.after, self.change) {
            (Some(after), _) => {
                let (skip, partial) = self.partial_head(rest)?;
                let rest = rest.get(skip..)?;
                let second = after.measure(rest)?;
                Some(Row {
                    bytes: bytes.get(..first + skip + second)?,
                    before: Some(image),
                    after: rest.get(..second),
                    partial,
                })
            }
            (None, RowChange::Delete) => {
                Some(Row { bytes: image, before: Some(image), after: None, partial: false })
            }
            (None, _) => Some(Row { bytes: image, before: None, after: Some(image), partial: false }),
        }
    }

    /// Value options stand before the after image of PARTIAL_UPDATE_ROWS: bit 0 says that
    /// a bit for each JSON column follows.
    fn partial_head(&self, bytes: &[u8]) -> Option<(usize, bool)> {
        let Some(json) = self.partial_json else { return Some((0, false)) };
        let mut c = Cursor::new(bytes);
        let options = c.lenenc("value options").ok()?;
        let partial = options & 1 == 1;
        if partial {
            c.take(json.div_ceil(8), "the map of partial columns").ok()?;
        }
        Some((c.position(), partial))
    }
}

/// Iterator over the rows of an event.
#[derive(Debug, Clone)]
pub struct RowIter<'p, 'a> {
    plan: &'p RowPlan,
    data: &'a [u8],
    at: usize,
}

impl<'a> Iterator for RowIter<'_, 'a> {
    type Item = Result<Row<'a>, Flaw>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.data.get(self.at..).filter(|rest| !rest.is_empty())?;
        match self.plan.cut(rest).filter(|row| !row.bytes.is_empty()) {
            Some(row) => {
                self.at += row.bytes.len();
                Some(Ok(row))
            }
            None => {
                let offset = u32::try_from(self.at).unwrap_or(u32::MAX);
                self.at = self.data.len();
                let got = format!("{} bytes that don't hold one", rest.len());
                Some(Err(Flaw { offset, expected: "a whole row (offset in the row data)", got }))
            }
        }
    }
}
