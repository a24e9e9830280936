//! The script's text: its head and end, and statements of bounded length.

use std::io::{self, Write};

/// Bytes of a statement that rows are gathered into, as mysqldump does it; one row alone may be longer.
const STATEMENT_BYTES: usize = (1 << 20) - 1024;

/// The longest statement that any server takes: its largest `max_allowed_packet`.
pub(super) const STATEMENT_BYTES_MAX: usize = 1 << 30;

/// Where the script goes, and what is known of it.
pub(super) struct Script<'w> {
    out: &'w mut dyn Write,
    /// Bytes of the longest statement.
    pub longest: usize,
    /// The delimiter's candidates are looked for in every body.
    rows: Rows,
}

/// An INSERT that is being gathered.
#[derive(Default)]
struct Rows {
    head: Vec<u8>,
    gathered: Vec<u8>,
    count: usize,
}

impl<'w> Script<'w> {
    pub(super) fn new(out: &'w mut dyn Write) -> Self {
        Self { out, longest: 0, rows: Rows::default() }
    }

    /// Writes text as it is.
    pub(super) fn put(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.out.write_all(text.as_ref())
    }

    /// Writes a comment of one line between two empty ones.
    pub(super) fn remark(&mut self, text: &str) -> io::Result<()> {
        // A name may hold a line's end, behind which it would be no comment any more.
        let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
        self.put(format!("\n--\n-- {text}\n--\n\n"))
    }

    /// Writes a statement with its end.
    pub(super) fn statement(&mut self, text: impl AsRef<[u8]>) -> io::Result<()> {
        self.longest = self.longest.max(text.as_ref().len());
        self.put(text)?;
        self.put(";\n")
    }

    /// Writes a statement whose text may hold semicolons.
    pub(super) fn compound(&mut self, text: &[u8]) -> io::Result<()> {
        self.longest = self.longest.max(text.len());
        let delimiter = delimiter_for(text);
        self.put(format!("DELIMITER {delimiter}\n"))?;
        self.put(text)?;
        // On a line of its own: the text may end in a comment.
        self.put(format!("\n{delimiter}\nDELIMITER ;\n"))
    }

    /// Begins rows that are inserted by statements with this head.
    pub(super) fn begin_rows(&mut self, head: String) {
        self.rows = Rows { head: head.into_bytes(), ..Rows::default() };
    }

    /// Adds a row, `(...)`. False: it is too long for any server.
    pub(super) fn row(&mut self, row: &[u8]) -> io::Result<bool> {
        if self.rows.head.len() + row.len() > STATEMENT_BYTES_MAX {
            return Ok(false);
        }
        if self.rows.count > 0 && self.rows.gathered.len() + row.len() + 1 > STATEMENT_BYTES {
            self.end_rows()?;
        }
        if self.rows.count == 0 {
            self.rows.gathered.extend_from_slice(&self.rows.head);
        } else {
            self.rows.gathered.push(b',');
        }
        self.rows.gathered.extend_from_slice(row);
        self.rows.count += 1;
        Ok(true)
    }

    /// Writes what is gathered.
    pub(super) fn end_rows(&mut self) -> io::Result<()> {
        if self.rows.count == 0 {
            return Ok(());
        }
        let mut gathered = std::mem::take(&mut self.rows.gathered);
        self.rows.count = 0;
        self.statement(&gathered)?;
        gathered.clear();
        // A huge row does not stay in memory.
        gathered.shrink_to(STATEMENT_BYTES);
        self.rows.gathered = gathered;
        Ok(())
    }

    /// The session in which everything else is read as it was written.
    pub(super) fn head(&mut self) -> io::Result<()> {
        self.put(HEAD)
    }

    /// Sets the session back.
    pub(super) fn end(&mut self) -> io::Result<()> {
        self.put(END)
    }
}

/// mysqldump's own, but for dates that are in no calendar, which a server may hold and this session takes.
const HEAD: &str = "\
/*!40101 SET @OLD_CHARACTER_SET_CLIENT=@@CHARACTER_SET_CLIENT */;
/*!40101 SET @OLD_CHARACTER_SET_RESULTS=@@CHARACTER_SET_RESULTS */;
/*!40101 SET @OLD_COLLATION_CONNECTION=@@COLLATION_CONNECTION */;
/*!40101 SET NAMES utf8mb4 */;
/*!40103 SET @OLD_TIME_ZONE=@@TIME_ZONE */;
/*!40103 SET TIME_ZONE='+00:00' */;
/*!40014 SET @OLD_UNIQUE_CHECKS=@@UNIQUE_CHECKS, UNIQUE_CHECKS=0 */;
/*!40014 SET @OLD_FOREIGN_KEY_CHECKS=@@FOREIGN_KEY_CHECKS, FOREIGN_KEY_CHECKS=0 */;
/*!40101 SET @OLD_SQL_MODE=@@SQL_MODE, SQL_MODE='NO_AUTO_VALUE_ON_ZERO,ALLOW_INVALID_DATES' */;
/*!40111 SET @OLD_SQL_NOTES=@@SQL_NOTES, SQL_NOTES=0 */;
";

const END: &str = "
/*!40103 SET TIME_ZONE=@OLD_TIME_ZONE */;
/*!40101 SET SQL_MODE=@OLD_SQL_MODE */;
/*!40014 SET FOREIGN_KEY_CHECKS=@OLD_FOREIGN_KEY_CHECKS */;
/*!40014 SET UNIQUE_CHECKS=@OLD_UNIQUE_CHECKS */;
/*!40101 SET CHARACTER_SET_CLIENT=@OLD_CHARACTER_SET_CLIENT */;
/*!40101 SET CHARACTER_SET_RESULTS=@OLD_CHARACTER_SET_RESULTS */;
/*!40101 SET COLLATION_CONNECTION=@OLD_COLLATION_CONNECTION */;
/*!40111 SET SQL_NOTES=@OLD_SQL_NOTES */;

";

/// A delimiter that the text does not hold.
fn delimiter_for(text: &[u8]) -> String {
    let holds = |delimiter: &str| text.windows(delimiter.len()).any(|part| part == delimiter.as_bytes());
    let usual = [";;", "$$", "//"].map(str::to_owned).into_iter();
    let more = (0..).map(|number| format!("|end{number}|"));
    usual.chain(more).find(|delimiter| !holds(delimiter)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_gathered_up_to_a_length_and_a_long_one_goes_alone() {
        let mut out = Vec::new();
        let mut script = Script::new(&mut out);
        script.begin_rows("INSERT INTO `t` VALUES ".to_owned());
        let long = [b"('".as_slice(), &vec![b'x'; 2 << 20], b"')"].concat();
        for row in [b"(1)".as_slice(), b"(2)", &long, b"(3)"] {
            assert!(script.row(row).unwrap());
        }
        script.end_rows().unwrap();
        script.end_rows().unwrap();
        assert!(script.longest > 2 << 20);
        let text = String::from_utf8(out).unwrap();
        let statements: Vec<&str> = text.lines().collect();
        assert_eq!(statements.len(), 3);
        assert_eq!(statements[0], "INSERT INTO `t` VALUES (1),(2);");
        assert_eq!(statements[2], "INSERT INTO `t` VALUES (3);");
    }

    #[test]
    fn a_body_never_holds_its_delimiter() {
        assert_eq!(delimiter_for(b"BEGIN END"), ";;");
        assert_eq!(delimiter_for(b"a;; b"), "$$");
        assert_eq!(delimiter_for(b"a;; b $$ // |end0|"), "|end1|");
    }

    #[test]
    fn a_remark_stays_on_its_line() {
        let mut out = Vec::new();
        Script::new(&mut out).remark("a\nDROP DATABASE x").unwrap();
        assert_eq!(out, b"\n--\n-- a DROP DATABASE x\n--\n\n");
    }
}
