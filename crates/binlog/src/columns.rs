//! Column types as far as the binlog tells, and how long their values are.

use crate::bytes::{Cursor, le};
use crate::error::Flaw;
use crate::table_map::TableMap;

/// A column type, the number as in the servers' protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the names are the servers' own")]
pub enum ColumnType {
    Tiny,
    Short,
    Int24,
    Long,
    LongLong,
    Float,
    Double,
    /// DECIMAL with (precision, scale).
    Decimal {
        precision: u8,
        scale: u8,
    },
    Year,
    Date,
    /// TIME of MySQL 5.5 and before.
    OldTime,
    /// DATETIME of MySQL 5.5 and before.
    OldDateTime,
    /// TIMESTAMP of MySQL 5.5 and before.
    OldTimestamp,
    Time {
        fraction: u8,
    },
    DateTime {
        fraction: u8,
    },
    Timestamp {
        fraction: u8,
    },
    Bit {
        bits: u16,
    },
    Enum {
        bytes: u8,
    },
    Set {
        bytes: u8,
    },
    /// CHAR and BINARY, also MariaDB's UUID, INET4 and INET6, with the length in bytes.
    Char {
        max: u16,
    },
    /// VARCHAR and VARBINARY.
    VarChar {
        max: u16,
    },
    /// MariaDB's VARCHAR COMPRESSED: one byte of method before the data.
    VarCharCompressed {
        max: u16,
    },
    /// All BLOB and TEXT types, with the bytes of their length.
    Blob {
        length_bytes: u8,
    },
    /// MariaDB's BLOB COMPRESSED.
    BlobCompressed {
        length_bytes: u8,
    },
    Json {
        length_bytes: u8,
    },
    Geometry {
        length_bytes: u8,
    },
    Vector {
        length_bytes: u8,
    },
    /// A column that is always NULL.
    Null,
}

/// How a value is found in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Width {
    /// Always as many bytes.
    Fixed(u16),
    /// Behind a little-endian length of 1 to 4 bytes.
    Prefixed(u8),
}

impl Width {
    /// Length of the value at the front of `bytes`, its length prefix included; `None` when cut.
    #[inline]
    #[must_use]
    pub fn measure(self, bytes: &[u8]) -> Option<usize> {
        let len = match self {
            Self::Fixed(len) => usize::from(len),
            Self::Prefixed(1) => 1 + usize::from(*bytes.first()?),
            Self::Prefixed(2) => 2 + usize::from(u16::from_le_bytes(*bytes.first_chunk()?)),
            Self::Prefixed(4) => {
                usize::try_from(u32::from_le_bytes(*bytes.first_chunk()?)).ok()?.checked_add(4)?
            }
            Self::Prefixed(n) => {
                let n = usize::from(n);
                usize::try_from(le(bytes.get(..n)?)).ok()?.checked_add(n)?
            }
        };
        (len <= bytes.len()).then_some(len)
    }

    /// The value without its length prefix.
    #[must_use]
    pub fn strip(self, cell: &[u8]) -> &[u8] {
        match self {
            Self::Fixed(_) => cell,
            Self::Prefixed(n) => cell.get(usize::from(n)..).unwrap_or_default(),
        }
    }
}

/// One column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// Its type.
    pub kind: ColumnType,
    /// How its values are found.
    pub width: Width,
    /// May it be NULL?
    pub nullable: bool,
    /// Without a sign (numeric types); `None` when the log does not say.
    pub unsigned: Option<bool>,
}

/// The columns of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    list: Vec<Column>,
}

impl Columns {
    pub(crate) fn new(map: &TableMap<'_>) -> Result<Self, Flaw> {
        let mut meta = Cursor::new(map.metadata);
        let mut list = Vec::with_capacity(map.types.len());
        for (i, &code) in map.types.iter().enumerate() {
            let (kind, width) = decode(code, &mut meta)?;
            let nullable = map.nullable.get(i / 8).is_some_and(|b| b >> (i % 8) & 1 == 1);
            list.push(Column { kind, width, nullable, unsigned: None });
        }
        meta.end("the end of the column metadata")?;
        let mut columns = Self { list };
        for field in map.optional_fields() {
            let field = field?;
            if field.kind == 1 {
                columns.apply_signedness(field.value);
            }
        }
        Ok(columns)
    }

    /// One bit for each numeric column, high bit first; set: unsigned.
    fn apply_signedness(&mut self, bits: &[u8]) {
        let numeric = |kind: ColumnType| {
            matches!(
                kind,
                ColumnType::Tiny
                    | ColumnType::Short
                    | ColumnType::Int24
                    | ColumnType::Long
                    | ColumnType::LongLong
                    | ColumnType::Float
                    | ColumnType::Double
                    | ColumnType::Decimal { .. }
                    | ColumnType::Year
            )
        };
        for (i, column) in self.list.iter_mut().filter(|c| numeric(c.kind)).enumerate() {
            column.unsigned = bits.get(i / 8).map(|b| b >> (7 - i % 8) & 1 == 1);
        }
    }

    /// The columns in the table's order.
    #[must_use]
    pub fn list(&self) -> &[Column] {
        &self.list
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// A table has at least one column.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }
}

/// Bytes of DECIMAL digits: nine in four bytes, the rest in as few as hold them.
pub(crate) fn decimal_part_len(digits: u8) -> u16 {
    const PARTIAL: [u16; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];
    u16::from(digits / 9) * 4 + PARTIAL.get(usize::from(digits % 9)).copied().unwrap_or(4)
}

/// A type code and its metadata; how long its values are.
fn decode(code: u8, meta: &mut Cursor<'_>) -> Result<(ColumnType, Width), Flaw> {
    use ColumnType as T;
    let fixed = |kind, len| Ok((kind, Width::Fixed(len)));
    match code {
        1 => fixed(T::Tiny, 1),
        2 => fixed(T::Short, 2),
        3 => fixed(T::Long, 4),
        4 | 5 => {
            let bytes = meta.u8("the length of a float")?;
            match (code, bytes) {
                (4, 4) => fixed(T::Float, 4),
                (5, 8) => fixed(T::Double, 8),
                _ => Err(meta.flaw("a float of 4 or a double of 8 bytes", bytes)),
            }
        }
        6 => fixed(T::Null, 0),
        7 => fixed(T::OldTimestamp, 4),
        8 => fixed(T::LongLong, 8),
        9 => fixed(T::Int24, 3),
        10 | 14 => fixed(T::Date, 3),
        11 => fixed(T::OldTime, 3),
        12 => fixed(T::OldDateTime, 8),
        13 => fixed(T::Year, 1),
        15 | 253 => {
            let max = meta.u16("the length of a VARCHAR")?;
            Ok((T::VarChar { max }, Width::Prefixed(if max > 255 { 2 } else { 1 })))
        }
        141 => {
            let max = meta.u16("the length of a VARCHAR")?;
            Ok((T::VarCharCompressed { max }, Width::Prefixed(if max > 255 { 2 } else { 1 })))
        }
        16 => {
            let (bits, bytes) = (meta.u8("the bits of a BIT")?, meta.u8("the bytes of a BIT")?);
            let bits = u16::from(bytes) * 8 + u16::from(bits);
            if bits == 0 || bits > 64 {
                return Err(meta.flaw("a BIT of 1 to 64 bits", bits));
            }
            fixed(T::Bit { bits }, bits.div_ceil(8))
        }
        17..=19 => {
            let fraction = meta.u8("the digits of a fraction")?;
            if fraction > 6 {
                return Err(meta.flaw("a fraction of at most 6 digits", fraction));
            }
            let extra = u16::from(fraction.div_ceil(2));
            match code {
                17 => fixed(T::Timestamp { fraction }, 4 + extra),
                18 => fixed(T::DateTime { fraction }, 5 + extra),
                _ => fixed(T::Time { fraction }, 3 + extra),
            }
        }
        246 => {
            let (precision, scale) =
                (meta.u8("the digits of a DECIMAL")?, meta.u8("the scale of a DECIMAL")?);
            if precision == 0 || precision > 65 || scale > precision {
                return Err(meta.flaw("a DECIMAL of at most 65 digits", format!("({precision},{scale})")));
            }
            let len = decimal_part_len(precision - scale) + decimal_part_len(scale);
            fixed(T::Decimal { precision, scale }, len)
        }
        247 | 248 | 254 => string(meta),
        140 | 242 | 245 | 249..=252 | 255 => {
            let length_bytes = meta.u8("the length bytes of a BLOB")?;
            if !(1..=4).contains(&length_bytes) {
                return Err(meta.flaw("a BLOB length of 1 to 4 bytes", length_bytes));
            }
            let kind = match code {
                140 => T::BlobCompressed { length_bytes },
                242 => T::Vector { length_bytes },
                245 => T::Json { length_bytes },
                255 => T::Geometry { length_bytes },
                _ => T::Blob { length_bytes },
            };
            Ok((kind, Width::Prefixed(length_bytes)))
        }
        other => Err(meta.flaw("a known column type", other)),
    }
}

/// STRING stands for CHAR, ENUM and SET: the first metadata byte is the real type, but for
/// long CHARs two of its bits are bits 8 and 9 of the length, inverted.
fn string(meta: &mut Cursor<'_>) -> Result<(ColumnType, Width), Flaw> {
    let (real, low) = (meta.u8("the real type of a STRING")?, meta.u8("the length of a STRING")?);
    let (real, max) = if real & 0x30 == 0x30 {
        (real, u16::from(low))
    } else {
        (real | 0x30, u16::from(low) | u16::from((real & 0x30) ^ 0x30) << 4)
    };
    match real {
        247 | 248 => {
            let bytes = low;
            if real == 247 && !(1..=2).contains(&bytes) || !(1..=8).contains(&bytes) {
                return Err(meta.flaw("an ENUM of 1 or 2 or a SET of 1 to 8 bytes", bytes));
            }
            let kind = if real == 247 { ColumnType::Enum { bytes } } else { ColumnType::Set { bytes } };
            Ok((kind, Width::Fixed(u16::from(bytes))))
        }
        254 | 253 => Ok((ColumnType::Char { max }, Width::Prefixed(if max > 255 { 2 } else { 1 }))),
        other => Err(meta.flaw("CHAR, ENUM or SET", other)),
    }
}
