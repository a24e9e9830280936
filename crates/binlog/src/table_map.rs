//! TABLE_MAP (19): the table that row events speak of.

use crate::bytes::Cursor;
use crate::columns::Columns;
use crate::error::Flaw;

/// Most columns of a table; MySQL and MariaDB stop at 4096.
pub const COLUMNS_MAX: u64 = 4096;

/// A table as row events see it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableMap<'a> {
    /// Number that row events name it by, valid up to the end of the statement.
    pub table_id: u64,
    /// Flags of the event.
    pub flags: u16,
    /// Database, in UTF-8.
    pub database: &'a [u8],
    /// Table, in UTF-8.
    pub table: &'a [u8],
    /// One type byte for each column.
    pub types: &'a [u8],
    /// Metadata of all columns, packed by type.
    pub metadata: &'a [u8],
    /// Bit set of the columns that may be NULL.
    pub nullable: &'a [u8],
    /// Optional metadata: (type, length, value) fields.
    pub optional: &'a [u8],
    /// Everything behind the table id: equal bytes mean an equal table definition as far
    /// as row events can tell.
    pub definition: &'a [u8],
}

/// A field of optional metadata.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Optional<'a> {
    /// 1 signedness, 2 default character set, 3 column character sets, 4 column names,
    /// 5 SET values, 6 ENUM values, 7 geometry types, 8 simple primary key, 9 primary key
    /// with prefixes, 10 and 11 character sets of ENUM and SET, 12 visibility, 13 vector dimensions.
    pub kind: u8,
    /// Its value.
    pub value: &'a [u8],
}

impl<'a> TableMap<'a> {
    pub(crate) fn parse(body: &'a [u8]) -> Result<Self, Flaw> {
        let mut c = Cursor::new(body);
        let table_id = c.uint(6, "a table id")?;
        let definition = c.clone().rest();
        let flags = c.u16("flags")?;
        let database = c.name("a database name")?;
        let table = c.name("a table name")?;
        let count = c.lenenc("a number of columns")?;
        if count == 0 || count > COLUMNS_MAX {
            return Err(c.flaw("from 1 to 4096 columns", count));
        }
        let types = c.take(count as usize, "the column types")?;
        let metadata_len = c.lenenc("the length of the column metadata")?;
        let metadata = c.take(usize::try_from(metadata_len).unwrap_or(usize::MAX), "the column metadata")?;
        let nullable = c.take(types.len().div_ceil(8), "the map of nullable columns")?;
        let optional = c.rest();
        Ok(Self { table_id, flags, database, table, types, metadata, nullable, optional, definition })
    }

    /// The columns with what is needed to cut rows. Not looked at before somebody asks: logs name the same few tables
    /// over and over.
    ///
    /// # Errors
    /// Fails on a column type that isn't known, and on metadata that does not fit the columns.
    pub fn columns(&self) -> Result<Columns, Flaw> {
        Columns::new(self)
    }

    /// The fields of optional metadata.
    pub fn optional_fields(&self) -> impl Iterator<Item = Result<Optional<'a>, Flaw>> {
        let mut c = Cursor::new(self.optional);
        std::iter::from_fn(move || {
            if c.is_empty() {
                return None;
            }
            let mut next = || {
                let kind = c.u8("a type of metadata")?;
                let len = c.lenenc("the length of metadata")?;
                let value = c.take(usize::try_from(len).unwrap_or(usize::MAX), "metadata")?;
                Ok(Optional { kind, value })
            };
            let field = next();
            if field.is_err() {
                c.rest();
            }
            Some(field)
        })
    }

    /// The columns of the primary key in its order, if the log says them (`binlog_row_metadata=FULL`).
    ///
    /// # Errors
    /// Fails on metadata that does not parse.
    pub fn primary_key(&self) -> Result<Option<Vec<u16>>, Flaw> {
        for field in self.optional_fields() {
            let field = field?;
            let with_prefix = field.kind == 9;
            if field.kind != 8 && !with_prefix {
                continue;
            }
            let mut c = Cursor::new(field.value);
            let mut key = Vec::new();
            while !c.is_empty() {
                let column = c.lenenc("a column")?;
                if column >= self.types.len() as u64 {
                    return Err(c.flaw("a column of the table", column));
                }
                key.push(column as u16);
                if with_prefix {
                    c.lenenc("the length of a prefix")?;
                }
            }
            return Ok(Some(key));
        }
        Ok(None)
    }

    /// The column names, if the log says them (`binlog_row_metadata=FULL`).
    ///
    /// # Errors
    /// Fails on metadata that does not parse.
    pub fn column_names(&self) -> Result<Option<Vec<&'a [u8]>>, Flaw> {
        for field in self.optional_fields() {
            let field = field?;
            if field.kind != 4 {
                continue;
            }
            let mut c = Cursor::new(field.value);
            let mut names = Vec::with_capacity(self.types.len());
            while !c.is_empty() {
                let len = c.lenenc("the length of a column name")?;
                names.push(c.take(usize::try_from(len).unwrap_or(usize::MAX), "a column name")?);
            }
            return Ok(Some(names));
        }
        Ok(None)
    }
}
