//! Values of a query as SQL that gives the same values again, in the session that the script's head sets.

use super::json;
use holdfast_mysql::Conn;
use holdfast_restore::catalog::quoted_name;

/// How the values of a column are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// As it is: integers, decimals.
    Number,
    /// A floating-point number, with all of its digits.
    Real,
    /// Between quotes: times, and types that are written as plain text.
    Quoted,
    /// In hexadecimal digits: bytes, bits, shapes, vectors.
    Bytes,
    /// A text with a character set.
    Text,
    /// MySQL's JSON.
    Json,
}

/// A column whose values are written.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    /// Its name.
    pub name: String,
    /// How its values are written.
    pub kind: Kind,
    /// The character set of a text.
    pub charset: Option<String>,
    /// Whether the values are asked for as numbers: an ENUM or SET with an empty word, whose text would not tell it
    /// from the value of no word.
    pub by_number: bool,
}

impl Column {
    /// The columns of a table whose values are written, and whether an INSERT has to name them: computed ones are left
    /// out, invisible ones are not in a list of all.
    pub(crate) fn of(
        conn: &mut Conn,
        database: &str,
        table: &str,
    ) -> holdfast_mysql::Result<(Vec<Self>, bool)> {
        let literal = |text: &str| {
            let mut out = Vec::new();
            quote(text.as_bytes(), &mut out);
            String::from_utf8_lossy(&out).into_owned()
        };
        let found = conn.query(format!(
            "SELECT COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, CHARACTER_SET_NAME, EXTRA FROM information_schema.COLUMNS \
             WHERE TABLE_SCHEMA = {} AND TABLE_NAME = {} ORDER BY ORDINAL_POSITION",
            literal(database),
            literal(table)
        ))?;
        let (mut columns, mut named) = (Vec::new(), false);
        for row in 0..found.rows.len() {
            let text = |column| found.text(row, column).unwrap_or_default();
            let extra = text(4).to_ascii_uppercase();
            let generated = ["VIRTUAL GENERATED", "STORED GENERATED", "PERSISTENT GENERATED"];
            let generated = generated.iter().any(|word| extra.contains(word));
            named |= generated || extra.contains("INVISIBLE");
            if !generated {
                let kind = text(1).to_ascii_lowercase();
                columns.push(Self::new(&text(0), &kind, &text(2), found.text(row, 3)));
            }
        }
        Ok((columns, named))
    }

    /// By the server's words for its type.
    pub(crate) fn new(name: &str, data_type: &str, column_type: &str, charset: Option<String>) -> Self {
        let words = matches!(data_type, "enum" | "set");
        let by_number = words && (column_type.contains("(''") || column_type.contains(",''"));
        let kind = match data_type {
            _ if by_number => Kind::Number,
            "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" => Kind::Number,
            "float" | "double" => Kind::Real,
            "json" => Kind::Json,
            "bit" | "binary" | "varbinary" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "geometry"
            | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
            | "geometrycollection" | "geomcollection" | "vector" => Kind::Bytes,
            // Without a character set, what is no bytes comes as plain text: times, YEAR, UUID, INET6.
            _ => match charset.as_deref() {
                None => Kind::Quoted,
                Some("binary") => Kind::Bytes,
                Some(_) => Kind::Text,
            },
        };
        Self { name: name.to_owned(), kind, charset, by_number }
    }

    /// What is asked of the server.
    pub(crate) fn selected(&self) -> String {
        let name = quoted_name(&self.name);
        match self.kind {
            // A FLOAT's own text is rounded, and so is one of a fixed number of decimals. A product keeps the sign of 0.
            Kind::Real => format!("{name} * 1e0"),
            Kind::Number if self.by_number => format!("{name} + 0"),
            _ => name,
        }
    }

    /// Writes the value behind what is in `out`.
    pub(crate) fn write(&self, value: Option<&[u8]>, out: &mut Vec<u8>) {
        let Some(value) = value else { return out.extend_from_slice(b"NULL") };
        match self.kind {
            Kind::Number => out.extend_from_slice(value),
            Kind::Real => {
                out.extend_from_slice(value);
                // Without it the number would be read as a DECIMAL, where -0 is 0.
                if !value.contains(&b'e') {
                    out.extend_from_slice(b"e0");
                }
            }
            Kind::Quoted => quote(value, out),
            Kind::Bytes => bytes(value, out),
            Kind::Text => text(value, self.charset.as_deref().unwrap_or_default(), out),
            Kind::Json => json::write(value, out),
        }
    }
}

/// Character sets of the head's session, or parts of it.
const UNICODE: [&str; 4] = ["utf8mb4", "utf8mb3", "utf8", "ascii"];

/// Character sets in which bytes below 128 are what they are in ASCII, wherever they stand by themselves.
const ASCII_BELOW: [&str; 19] = [
    "latin1", "latin2", "latin5", "latin7", "cp1250", "cp1251", "cp1256", "cp1257", "cp850", "cp852",
    "cp866", "koi8r", "koi8u", "greek", "hebrew", "gbk", "gb2312", "big5", "euckr",
];

fn text(value: &[u8], charset: &str, out: &mut Vec<u8>) {
    let plain = if UNICODE.contains(&charset) {
        std::str::from_utf8(value).is_ok()
    } else {
        value.is_empty() || (ASCII_BELOW.contains(&charset) && value.is_ascii())
    };
    if plain {
        return quote(value, out);
    }
    out.push(b'_');
    out.extend_from_slice(charset.as_bytes());
    out.extend_from_slice(b" x'");
    hex(value, out);
    out.push(b'\'');
}

/// Between quotes, escaped as mysqldump does it.
pub(crate) fn quote(value: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for byte in value {
        match byte {
            0 => out.extend_from_slice(b"\\0"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            0x1a => out.extend_from_slice(b"\\Z"),
            b'\'' | b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            byte => out.push(*byte),
        }
    }
    out.push(b'\'');
}

fn bytes(value: &[u8], out: &mut Vec<u8>) {
    if value.is_empty() {
        return out.extend_from_slice(b"''");
    }
    out.extend_from_slice(b"0x");
    hex(value, out);
}

fn hex(value: &[u8], out: &mut Vec<u8>) {
    const DIGITS: &[u8; 16] = b"0123456789ABCDEF";
    out.reserve(2 * value.len());
    for byte in value {
        for nibble in [byte >> 4, byte & 15] {
            out.extend(DIGITS.get(usize::from(nibble)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(data_type: &str, charset: Option<&str>, value: &[u8]) -> String {
        let column = Column::new("c", data_type, data_type, charset.map(str::to_owned));
        let mut out = Vec::new();
        column.write(Some(value), &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn texts_that_every_session_reads_the_same_stay_texts() {
        assert_eq!(
            written("varchar", Some("utf8mb4"), "o'n\\\n\u{1f600}".as_bytes()),
            "'o\\'n\\\\\\n\u{1f600}'"
        );
        assert_eq!(written("varchar", Some("latin1"), b"abc"), "'abc'");
        assert_eq!(written("varchar", Some("latin1"), b"\xfc"), "_latin1 x'FC'");
        assert_eq!(written("text", Some("utf16"), b"\0a"), "_utf16 x'0061'");
        assert_eq!(written("text", Some("sjis"), b"a"), "_sjis x'61'");
        assert_eq!(written("text", Some("utf16"), b""), "''");
        assert_eq!(written("text", Some("utf8mb4"), b"\xff"), "_utf8mb4 x'FF'");
    }

    #[test]
    fn numbers_bytes_and_times_are_written_by_their_kind() {
        assert_eq!(written("bigint", None, b"-5"), "-5");
        assert_eq!(written("float", None, b"-0"), "-0e0");
        assert_eq!(written("double", None, b"1e100"), "1e100");
        assert_eq!(written("bit", None, b"\x05"), "0x05");
        assert_eq!(written("varbinary", None, b""), "''");
        assert_eq!(written("year", None, b"0000"), "'0000'");
        assert_eq!(written("uuid", None, b"12-ab"), "'12-ab'");
        assert_eq!(written("longtext", Some("binary"), b"a"), "0x61");
    }

    #[test]
    fn an_enum_with_an_empty_word_is_asked_for_by_number() {
        let column = |kind: &str| Column::new("e", "enum", kind, Some("utf8mb4".to_owned()));
        assert_eq!(column("enum('a','')").selected(), "`e` + 0");
        assert_eq!(column("enum('','a')").selected(), "`e` + 0");
        assert_eq!(column("enum('a''b','c')").selected(), "`e`");
    }
}
