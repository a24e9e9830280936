//! LOAD DATA in the statement format: the log has the file in blocks, then the statement.
//!
//! The server asks for the file over our own connection (LOAD DATA LOCAL), as with `mysqlbinlog`, so that nothing of it lies
//! on a disk. `local_infile` is on for that moment only. LOCAL leaves out rows whose keys are there already where the
//! source would have failed: none may be left out then.

use std::collections::BTreeMap;
use std::ops::Range;

use holdfast_binlog::event::Event;
use holdfast_binlog::misc::{Block, Duplicates};
use holdfast_binlog::query::Query;

use super::lead::Lead;
use crate::error::Error;

/// Files of the transaction under way, by number. The scan refuses those that are too long for memory.
#[derive(Debug, Default)]
pub(super) struct Files(BTreeMap<u32, Vec<u8>>);

impl Files {
    pub(super) fn forget(&mut self, file: u32) {
        self.0.remove(&file);
    }
}

impl Lead<'_> {
    /// Takes a block of a file.
    pub(super) fn file_block(&mut self, block: &Block<'_>) -> Result<(), Error> {
        let current = self.current_ref();
        current.changes = true;
        if current.skip {
            return Ok(());
        }
        if current.files.0.is_empty() {
            // The statement would do it: memory is for the window or for files.
            self.drain()?;
        }
        self.current_ref().files.0.entry(block.file_id).or_default().extend_from_slice(block.data);
        Ok(())
    }

    /// Runs LOAD DATA of a file.
    pub(super) fn load(
        &mut self,
        event: &Event<'_>,
        query: &Query<'_>,
        file: u32,
        name: Range<u32>,
        duplicates: Duplicates,
    ) -> Result<(), Error> {
        let current = self.current_ref();
        current.changes = true;
        if current.skip {
            return Ok(());
        }
        let place = self.place.clone();
        let flaw = |flaw| Error::Encode { place: place.clone(), flaw };
        let mut scratch = Vec::new();
        let text = query.text(&mut scratch).map_err(flaw)?;
        let lost = |expected, got: String| flaw(holdfast_binlog::Flaw { offset: 0, expected, got });
        let Some(file) = self.current_ref().files.0.remove(&file) else {
            return Err(lost("the blocks of a file before its LOAD DATA", format!("none of file {file}")));
        };
        let Some(sql) = local(text, &name, duplicates) else {
            return Err(lost(
                "the place of a file name in a statement",
                format!("{name:?} of {}", text.len()),
            ));
        };
        self.prepare_change(event, query, text)?;
        self.group.1 += file.len() as u64;
        self.local_infile(true)?;
        let loaded = self.conn.load(&sql, &file);
        if let Err(holdfast_mysql::Error::Server(_)) | Ok(_) = &loaded {
            self.local_infile(false)?;
        }
        let (done, skipped) = loaded.map_err(|source| self.change_failed(text, source))?;
        self.current_ref().has_effect |= done.affected > 0;
        if duplicates == Duplicates::Error && skipped != Some(0) {
            let got = skipped
                .map_or("no word of that".to_owned(), |rows| format!("{rows} rows that were left out"));
            let source = holdfast_mysql::Error::Protocol {
                place: "LOAD DATA",
                expected: "no row that is left out".to_owned(),
                got,
            };
            return Err(Error::Diverged {
                what: format!("`{}`", String::from_utf8_lossy(text.get(..200).unwrap_or(text))),
                place: self.place.clone(),
                source: Box::new(source),
            });
        }
        Ok(())
    }

    /// Lets the server ask for files, or forbids it. A server that is killed in between forbids it by its arguments.
    pub(super) fn local_infile(&mut self, on: bool) -> Result<(), Error> {
        self.conn
            .execute(format!("SET GLOBAL local_infile = {}", u8::from(on)))
            .map_err(Error::server("allowing LOAD DATA"))?;
        Ok(())
    }
}

/// The statement with a file of ours. `name` goes from INFILE to INTO.
fn local(text: &[u8], name: &Range<u32>, duplicates: Duplicates) -> Option<Vec<u8>> {
    let (start, end) = (name.start as usize, name.end as usize);
    let (front, back) = (text.get(..start)?, text.get(end..)?);
    if end < start {
        return None;
    }
    let what = match duplicates {
        Duplicates::Error => "",
        Duplicates::Ignore => " IGNORE",
        Duplicates::Replace => " REPLACE",
    };
    Some([front, format!(" LOCAL INFILE 'archived'{what} INTO ").as_bytes(), back].concat())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_name_of_the_source_goes_with_what_stands_around_it() {
        let text = b"LOAD DATA INFILE '/x/SQL_LOAD' REPLACE INTO TABLE `t` FIELDS TERMINATED BY ','";
        let end = text.windows(4).position(|w| w == b"INTO").unwrap() as u32 + 4;
        let made = local(text, &(10..end), Duplicates::Replace).unwrap();
        let told = String::from_utf8(made).unwrap();
        assert_eq!(
            told,
            "LOAD DATA  LOCAL INFILE 'archived' REPLACE INTO  TABLE `t` FIELDS TERMINATED BY ','"
        );
        assert_eq!(local(text, &std::ops::Range { start: 10, end: 9 }, Duplicates::Error), None);
        assert_eq!(local(text, &(10..900), Duplicates::Error), None);
    }
}
