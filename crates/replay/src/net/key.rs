//! Primary keys as bytes, and an order of them that is near the server's.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use holdfast_binlog::columns::{Column, ColumnType, Width};

/// Bytes of a key that are kept without an allocation: two BIGINTs, or a short code.
const SHORT: usize = 22;

/// The cells of a row's primary key, in the order of the table's columns, each as it stands
/// in a row image. Images carry stored bytes, so chains of changes match byte by byte,
/// whatever the collation.
#[derive(Debug, Clone)]
pub(crate) enum Key {
    /// Inline.
    Short { len: u8, bytes: [u8; SHORT] },
    /// On the heap.
    Long(Box<[u8]>),
}

impl Key {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let mut short = [0; SHORT];
        match short.get_mut(..bytes.len()) {
            Some(front) => {
                front.copy_from_slice(bytes);
                Self::Short { len: bytes.len() as u8, bytes: short }
            }
            None => Self::Long(bytes.into()),
        }
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        match self {
            Self::Short { len, bytes } => bytes.get(..usize::from(*len)).unwrap_or_default(),
            Self::Long(bytes) => bytes,
        }
    }

    /// Bytes on the heap.
    pub(crate) fn heap(&self) -> usize {
        match self {
            Self::Short { .. } => 0,
            Self::Long(bytes) => bytes.len(),
        }
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.bytes() == other.bytes()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.bytes().hash(state);
    }
}

impl Borrow<[u8]> for Key {
    fn borrow(&self) -> &[u8] {
        self.bytes()
    }
}

/// How a cell's bytes compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Little-endian, two's complement.
    Signed,
    /// Little-endian.
    Unsigned,
    /// As they stand, behind the length.
    Bytes,
}

/// The order of a primary key. It decides where in the tree rows are written one after the
/// other, and nothing else: any order is right, one near the server's is fast.
#[derive(Debug, Clone)]
pub(crate) struct Order {
    /// All cells in the order of columns.
    cells: Vec<(Width, Kind)>,
    /// Numbers of cells in the order of the key.
    parts: Vec<usize>,
}

impl Order {
    /// `key` has the columns of the key in its own order, `sorted` in the table's.
    pub(crate) fn new(columns: &[(Column, bool)], key: &[u16], sorted: &[u16]) -> Self {
        let cell = |number: &u16| {
            columns
                .get(usize::from(*number))
                .map(|(column, unsigned)| (column.width, kind(column, *unsigned)))
        };
        Self {
            cells: sorted.iter().filter_map(cell).collect(),
            parts: key.iter().filter_map(|number| sorted.iter().position(|s| s == number)).collect(),
        }
    }

    /// The first 16 bytes by which keys compare.
    pub(crate) fn prefix(&self, key: &[u8]) -> u128 {
        let mut found = [(Kind::Bytes, &[][..]); 16];
        let mut rest = key;
        for (slot, (width, kind)) in found.iter_mut().zip(&self.cells) {
            let Some((cell, tail)) = width.measure(rest).and_then(|len| rest.split_at_checked(len)) else {
                break;
            };
            *slot = (*kind, width.strip(cell));
            rest = tail;
        }
        let mut out = [0u8; 16];
        let mut at = 0;
        for part in &self.parts {
            let Some((kind, cell)) = found.get(*part) else { break };
            let push = |at: &mut usize, byte: u8, out: &mut [u8; 16]| {
                if let Some(slot) = out.get_mut(*at) {
                    *slot = byte;
                }
                *at += 1;
            };
            match kind {
                Kind::Bytes => cell.iter().take(16).for_each(|byte| push(&mut at, *byte, &mut out)),
                Kind::Unsigned => cell.iter().rev().for_each(|byte| push(&mut at, *byte, &mut out)),
                Kind::Signed => cell.iter().rev().enumerate().for_each(|(i, byte)| {
                    push(&mut at, if i == 0 { byte ^ 0x80 } else { *byte }, &mut out);
                }),
            }
        }
        u128::from_be_bytes(out)
    }
}

fn kind(column: &Column, unsigned: bool) -> Kind {
    match column.kind {
        ColumnType::Tiny
        | ColumnType::Short
        | ColumnType::Int24
        | ColumnType::Long
        | ColumnType::LongLong
            if !unsigned =>
        {
            Kind::Signed
        }
        ColumnType::Tiny
        | ColumnType::Short
        | ColumnType::Int24
        | ColumnType::Long
        | ColumnType::LongLong
        | ColumnType::Year
        | ColumnType::Date
        | ColumnType::Enum { .. }
        | ColumnType::Set { .. } => Kind::Unsigned,
        _ => Kind::Bytes,
    }
}

/// An integer cell's value, if it is one that a counter may have given: not negative.
pub(crate) fn counted(column: &Column, unsigned: bool, cell: &[u8]) -> Option<u64> {
    let kind = kind(column, unsigned);
    if kind == Kind::Bytes || cell.len() > 8 {
        return None;
    }
    let negative = kind == Kind::Signed && cell.last().is_some_and(|byte| byte & 0x80 != 0);
    (!negative).then(|| cell.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(kind: ColumnType, width: Width) -> Column {
        Column { kind, width, nullable: false, unsigned: None }
    }

    #[test]
    fn a_key_is_its_bytes_however_long() {
        use std::collections::HashMap;
        let mut map = HashMap::new();
        for len in 0..64usize {
            let bytes: Vec<u8> = (0..len as u8).collect();
            assert_eq!(Key::new(&bytes).bytes(), bytes);
            map.insert(Key::new(&bytes), len);
        }
        for len in 0..64usize {
            let bytes: Vec<u8> = (0..len as u8).collect();
            assert_eq!(map.get(bytes.as_slice()), Some(&len));
        }
    }

    #[test]
    fn numbers_are_in_their_own_order_with_and_without_a_sign() {
        let long = column(ColumnType::Long, Width::Fixed(4));
        let signed = Order::new(&[(long, false)], &[0], &[0]);
        let unsigned = Order::new(&[(long, true)], &[0], &[0]);
        let mut numbers = [5i32, -3, 1 << 20, i32::MIN, 0, 255, 256];
        numbers.sort_by_key(|n| signed.prefix(&n.to_le_bytes()));
        assert_eq!(numbers, [i32::MIN, -3, 0, 5, 255, 256, 1 << 20]);
        let mut numbers = [5u32, u32::MAX, 256, 0];
        numbers.sort_by_key(|n| unsigned.prefix(&n.to_le_bytes()));
        assert_eq!(numbers, [0, 5, 256, u32::MAX]);
    }

    #[test]
    fn the_keys_own_order_counts_not_the_tables() {
        let text = column(ColumnType::VarChar { max: 10 }, Width::Prefixed(1));
        let number = column(ColumnType::LongLong, Width::Fixed(8));
        let columns = [(text, false), (number, false)];
        // PRIMARY KEY (number, text) of a table (text, number).
        let order = Order::new(&columns, &[1, 0], &[0, 1]);
        let key = |t: &str, n: i64| {
            let mut out = vec![t.len() as u8];
            out.extend_from_slice(t.as_bytes());
            out.extend_from_slice(&n.to_le_bytes());
            order.prefix(&out)
        };
        assert!(key("z", 1) < key("a", 2));
        assert!(key("a", 2) < key("b", 2));
        assert!(key("b", -1) < key("a", 0));
    }

    #[test]
    fn a_counters_values_are_not_negative() {
        let tiny = column(ColumnType::Tiny, Width::Fixed(1));
        assert_eq!(counted(&tiny, false, &[0xff]), None);
        assert_eq!(counted(&tiny, true, &[0xff]), Some(255));
        assert_eq!(counted(&column(ColumnType::Int24, Width::Fixed(3)), false, &[1, 2, 3]), Some(0x03_02_01));
    }
}
