//! Whether the stream has the files of every table that it defines.
//!
//! `mariadb-backup` 10.11.19 leaves out the files of an Aria table that are links, which they are with DATA DIRECTORY
//! and INDEX DIRECTORY, and ends with "completed OK!" (observed). Definitions (`.frm`) are copied when no table can come
//! or go any more, so what they name has to be there.

use std::collections::BTreeSet;

use crate::error::Error;
use crate::path::FilePath;

/// What a definition begins with; those of views are text.
const MAGIC: [u8; 2] = [0xfe, 0x01];

/// Files of a table by the number of its engine, the fourth byte of its definition.
const ENGINES: [(u8, [&str; 2]); 2] = [(9, ["MYD", "MYI"]), (42, ["MAD", "MAI"])];

/// The tables of a stream, and their files.
#[derive(Debug, Default)]
pub(super) struct Tables {
    needed: BTreeSet<Vec<u8>>,
    files: BTreeSet<Vec<u8>>,
}

impl Tables {
    /// Takes note of bytes of a file.
    pub(super) fn saw(&mut self, path: &FilePath, offset: u64, bytes: &[u8]) {
        let name = path.as_bytes();
        let Some(dot) = name.iter().rposition(|&byte| byte == b'.') else { return };
        let (table, suffix) = name.split_at(dot + 1);
        if suffix == b"frm" {
            // Left by a statement that a crash ended: no table.
            let temporary = path.file_name().starts_with(b"#sql");
            if offset == 0 && bytes.starts_with(&MAGIC) && !temporary {
                let engine = ENGINES.iter().find(|(number, _)| bytes.get(3) == Some(number));
                let files = engine.map(|(_, files)| files).into_iter().flatten();
                self.needed.extend(files.map(|suffix| [table, suffix.as_bytes()].concat()));
            }
        } else if ENGINES.iter().any(|(_, files)| files.iter().any(|known| known.as_bytes() == suffix)) {
            self.files.insert(name.to_vec());
        }
    }

    /// An error that names the first file that is missing.
    pub(super) fn check(&self) -> Result<(), Error> {
        let missing: Vec<String> = self
            .needed
            .difference(&self.files)
            .map(|name| String::from_utf8_lossy(name).into_owned())
            .collect();
        let Some(first) = missing.first() else { return Ok(()) };
        let more = match missing.len() {
            1 => String::new(),
            count => format!(" and {} more files", count - 1),
        };
        Err(Error::LeftOut { file: first.clone(), more })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(name: &str) -> FilePath {
        FilePath::new(name.as_bytes()).unwrap()
    }

    #[test]
    fn a_table_without_its_files_is_named_and_views_and_left_overs_need_none() {
        let mut tables = Tables::default();
        tables.saw(&path("shop/isam.frm"), 0, &[0xfe, 1, 10, 9, 0]);
        tables.saw(&path("shop/view.frm"), 0, b"TYPE=VIEW\n");
        tables.saw(&path("shop/#sql-1.frm"), 0, &[0xfe, 1, 10, 42, 0]);
        tables.saw(&path("shop/inno.frm"), 0, &[0xfe, 1, 10, 12, 0]);
        tables.saw(&path("shop/isam.MYI"), 0, b"i");
        assert!(tables.check().unwrap_err().to_string().contains("shop/isam.MYD"));
        tables.saw(&path("shop/isam.MYD"), 0, b"");
        tables.check().unwrap();
        tables.saw(&path("shop/aria.frm"), 0, &[0xfe, 1, 10, 42, 0]);
        let error = tables.check().unwrap_err().to_string();
        assert!(error.contains("shop/aria.MAD and 1 more files"), "{error}");
    }
}
