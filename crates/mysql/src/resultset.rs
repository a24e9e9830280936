//! Columns and rows of the text protocol.

use crate::error::{Error, Result};
use crate::wire::Reader;

/// Columns of one result that we take: the servers' own limit is 4096.
pub const COLUMNS_MAX: u64 = 4096;

/// A column as the server describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The name, or the alias that the statement gave.
    pub name: String,
    /// The protocol's type code.
    pub type_code: u8,
    /// The collation's number; 63 is binary.
    pub collation: u16,
    /// Column flags.
    pub flags: u16,
}

impl Column {
    /// Reads `Protocol::ColumnDefinition41`.
    pub fn parse(payload: &[u8]) -> Result<Self> {
        let mut reader = Reader::new("a column definition", payload);
        for _ in 0..4 {
            // catalog, schema, table and its alias's original: nobody here asks.
            reader.lenenc_bytes()?;
        }
        let name = String::from_utf8_lossy(reader.lenenc_bytes()?).into_owned();
        reader.lenenc_bytes()?;
        reader.lenenc()?;
        let collation = reader.u16()?;
        reader.u32()?;
        let type_code = reader.u8()?;
        let flags = reader.u16()?;
        Ok(Self { name, type_code, collation, flags })
    }
}

/// One row while it lies in the connection's buffer.
#[derive(Debug)]
pub struct RowRef<'a> {
    columns: &'a [Column],
    values: Vec<Option<&'a [u8]>>,
}

impl<'a> RowRef<'a> {
    /// Reads a row of the text protocol.
    pub fn parse(columns: &'a [Column], payload: &'a [u8]) -> Result<Self> {
        let mut reader = Reader::new("a row", payload);
        let mut values = Vec::with_capacity(columns.len());
        for _ in columns {
            values.push(reader.lenenc_or_null()?);
        }
        if !reader.is_empty() {
            return Err(Error::protocol(
                "a row",
                format!("{} columns", columns.len()),
                format!("{} bytes more", reader.remaining()),
            ));
        }
        Ok(Self { columns, values })
    }

    /// The value at `index` as the text protocol gives it; `None` for NULL or no such column.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        self.values.get(index).copied().flatten()
    }

    /// The value of the column `name`, compared without case.
    #[must_use]
    pub fn by_name(&self, name: &str) -> Option<&'a [u8]> {
        self.get(self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))?)
    }

    /// All values in order.
    #[must_use]
    pub fn values(&self) -> &[Option<&'a [u8]>] {
        &self.values
    }

    /// The columns.
    #[must_use]
    pub fn columns(&self) -> &'a [Column] {
        self.columns
    }

    /// The value at `index` as text, invalid UTF-8 replaced; `None` for NULL.
    #[must_use]
    pub fn text(&self, index: usize) -> Option<String> {
        self.get(index).map(|value| String::from_utf8_lossy(value).into_owned())
    }
}

/// A whole result.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ResultSet {
    /// The columns; none for a statement without a result.
    pub columns: Vec<Column>,
    /// The rows; `None` is NULL.
    pub rows: Vec<Vec<Option<Vec<u8>>>>,
}

impl ResultSet {
    /// Position of the column `name`, compared without case.
    #[must_use]
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|c| c.name.eq_ignore_ascii_case(name))
    }

    /// One value as bytes; `None` for NULL or out of range.
    #[must_use]
    pub fn value(&self, row: usize, column: usize) -> Option<&[u8]> {
        self.rows.get(row)?.get(column)?.as_deref()
    }

    /// One value as text, invalid UTF-8 replaced; `None` for NULL or out of range.
    #[must_use]
    pub fn text(&self, row: usize, column: usize) -> Option<String> {
        self.value(row, column).map(|value| String::from_utf8_lossy(value).into_owned())
    }

    /// The value of the column `name` in `row` as text.
    #[must_use]
    pub fn text_by_name(&self, row: usize, name: &str) -> Option<String> {
        self.text(row, self.column(name)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{put_lenenc, put_lenenc_bytes};
    use proptest::prelude::*;

    fn column(name: &str) -> Column {
        let mut out = Vec::new();
        for text in ["def", "s", "t", "t", name, name] {
            put_lenenc_bytes(&mut out, text.as_bytes());
        }
        put_lenenc(&mut out, 12);
        out.extend_from_slice(&[45, 0, 0, 1, 0, 0, 253, 0, 0, 0, 0, 0]);
        Column::parse(&out).unwrap()
    }

    #[test]
    fn rows_keep_null_apart_from_empty() {
        let columns = [column("a"), column("B"), column("c")];
        let mut payload = vec![0xfb];
        put_lenenc_bytes(&mut payload, b"");
        put_lenenc_bytes(&mut payload, b"x");
        let row = RowRef::parse(&columns, &payload).unwrap();
        assert_eq!(row.values(), [None, Some(b"".as_slice()), Some(b"x".as_slice())]);
        assert_eq!(row.by_name("b"), Some(b"".as_slice()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_columns_and_rows_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = Column::parse(&bytes);
            let columns = [column("a"), column("b")];
            let _ = RowRef::parse(&columns, &bytes);
        }
    }
}
