//! A restored server works in its own folder and nowhere else.
//!
//! A server's dictionary may name files outside of its datadir: DATA DIRECTORY, general tablespaces. On the source's host
//! those are the source's own. A restored server that opens them reads another server's rows, and spoils them when it
//! writes. Backups refuse such servers by name; this holds whatever the backup was made of.

use std::path::{Component, Path};

use holdfast_mysql::{Conn, Flavor};

use crate::error::{Error, Result};

/// Files named in the error.
const NAMED: usize = 3;

/// An error if the server knows a tablespace whose file does not lie in `folder`. Opens none of them.
pub(crate) fn refuse(conn: &mut Conn, folder: &Path) -> Result<()> {
    let query = match conn.server().flavor {
        Flavor::MySql => "SELECT FILE_NAME FROM information_schema.FILES ORDER BY FILE_NAME",
        Flavor::MariaDb => "SELECT FILENAME FROM information_schema.INNODB_SYS_TABLESPACES ORDER BY FILENAME",
    };
    let known = conn.query(query)?;
    let names = (0..known.rows.len()).filter_map(|row| known.text(row, 0));
    let outside: Vec<String> = names.filter(|name| !lies_within(name, folder)).collect();
    if outside.is_empty() {
        return Ok(());
    }
    let more = match outside.len().saturating_sub(NAMED) {
        0 => String::new(),
        more => format!(" and {more} more"),
    };
    let first = outside.get(..NAMED.min(outside.len())).unwrap_or_default();
    Err(Error::Elsewhere { folder: folder.to_path_buf(), files: format!("{}{more}", first.join(", ")) })
}

fn lies_within(name: &str, folder: &Path) -> bool {
    let path = Path::new(name);
    let climbs = path.components().any(|part| part == Component::ParentDir);
    !climbs && (path.is_relative() || path.starts_with(folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_stay_in_the_folder_are_its_own() {
        let folder = Path::new("/srv/restored");
        for name in ["./shop/t.ibd", "undo_001", "/srv/restored/shop/t.ibd"] {
            assert!(lies_within(name, folder), "{name}");
        }
        for name in ["/data2/far.ibd", "../far.ibd", "/srv/restored/../far.ibd", "/srv/restored2/t.ibd"] {
            assert!(!lies_within(name, folder), "{name}");
        }
    }
}
