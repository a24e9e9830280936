//! Tablespaces that a MySQL datadir's dictionary has outside of it.
//!
//! The dictionary (`mysql.ibd`, tables `tablespace_files` and its index) keeps the path of every file as text, with `./`
//! before those in the datadir. A path that begins at the root is one of DATA DIRECTORY, a general tablespace or an undo
//! tablespace. What the bytes do not tell is whether the row is still alive, so only files that are there count.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use crate::error::Error;

/// Bytes read at a time; a multiple of every page size, so that no path is cut.
const CHUNK: usize = 1 << 20;

/// Longest path that the dictionary keeps.
const PATH_BYTES_MAX: usize = 512;

/// Refuses a datadir whose tables lie elsewhere.
pub(super) fn refuse(dir: &Path) -> Result<(), Error> {
    let dictionary = dir.join("mysql.ibd");
    let mut file = match File::open(&dictionary) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io("open", dictionary)(error)),
    };
    let mut found = BTreeSet::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        let mut filled = 0;
        while filled < CHUNK {
            let rest = chunk.get_mut(filled..).unwrap_or_default();
            match file.read(rest).map_err(Error::io("read", &dictionary))? {
                0 => break,
                count => filled += count,
            }
        }
        found.extend(paths(chunk.get(..filled).unwrap_or_default()));
        if filled < CHUNK {
            break;
        }
    }
    found.retain(|path| Path::new(path).is_file() && !Path::new(path).starts_with(dir));
    let Some(file) = found.first().cloned() else { return Ok(()) };
    let more = match found.len() {
        1 => String::new(),
        count => format!(" (and {} more)", count - 1),
    };
    Err(Error::Outside { file, more })
}

/// Paths from the root that end as a tablespace's file does. What stands before a path may look like a part of it, so
/// of each run of text every beginning is given.
fn paths(bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for (at, end) in bytes.windows(4).enumerate() {
        if end != b".ibd" && end != b".ibu" {
            continue;
        }
        let to = at + 4;
        let run = bytes.get(to.saturating_sub(PATH_BYTES_MAX)..to).unwrap_or_default();
        let from = run.iter().rposition(|byte| byte.is_ascii_control()).map_or(0, |last| last + 1);
        let text = run.get(from..).unwrap_or_default();
        for start in (0..text.len()).filter(|start| text.get(*start) == Some(&b'/')) {
            let before = start.checked_sub(1).and_then(|before| text.get(before));
            let path = text.get(start..).and_then(|path| std::str::from_utf8(path).ok());
            // "./shop/t.ibd" is in the datadir.
            if let (false, Some(path)) = (before == Some(&b'.'), path) {
                found.push(path.to_owned());
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_elsewhere_is_named_if_it_is_there_and_those_of_the_datadir_are_not() {
        let (dir, far) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, far) = (dir.path().canonicalize().unwrap(), far.path().join("far.ibd"));
        refuse(&dir).unwrap();
        let page = format!("\0\x01./shop/t.ibd\0x{}\0", far.display());
        std::fs::write(dir.join("mysql.ibd"), page).unwrap();
        refuse(&dir).unwrap();
        std::fs::write(&far, "rows").unwrap();
        let error = refuse(&dir).unwrap_err().to_string();
        assert!(error.starts_with(&far.display().to_string()), "{error}");
    }
}
