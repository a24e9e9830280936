//! What keeps a copy of a datadir from being taken, as far as its files tell while a server still runs on them: whoever
//! stops the server for the copy asks this first.
//!
//! What the copy itself finds is more (every page, what is changed meanwhile); what is refused here, it refuses as well.

use std::fs::{self, File};
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::page::{self, PageFormat, Verdict};

/// Bytes of each tablespace that are looked at: its first pages, which have the root of its first index.
const LOOK_BYTES: u64 = 256 << 10;

/// Refuses a datadir with encrypted tablespaces or tables outside of it, and one with a tablespace that can't be opened.
pub(super) fn refuse(dir: &Path) -> Result<(), Error> {
    // Of a folder that is no server's, such files are nobody's tables.
    let datadir = dir.join("ibdata1").exists();
    let mut encrypted = Vec::new();
    let mut waiting = vec![dir.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        let Some(entries) = there(fs::read_dir(&folder), &folder)? else { continue };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", &folder))?;
            let path = entry.path();
            let Some(kind) = there(entry.file_type(), &path)? else { continue };
            if kind.is_dir() {
                waiting.push(path);
            } else if kind.is_file() {
                if datadir {
                    refuse_link(dir, &path)?;
                }
                if is_tablespace(&path) && is_encrypted(&path)? {
                    encrypted.push(path);
                }
            }
        }
    }
    encrypted.sort_unstable();
    if let Some(first) = encrypted.first() {
        let more = match encrypted.len() {
            1 => String::new(),
            count => format!(" (and {} more)", count - 1),
        };
        let file = first.strip_prefix(dir).unwrap_or(first).display().to_string();
        return Err(Error::Encrypted { file, more });
    }
    if datadir { super::elsewhere::refuse(dir) } else { Ok(()) }
}

/// None where it is gone: a server makes and removes files as it goes.
fn there<T>(done: std::io::Result<T>, path: &Path) -> Result<Option<T>, Error> {
    match done {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io("look at", path)(error)),
    }
}

fn is_tablespace(path: &Path) -> bool {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    name.ends_with(".ibd") || name.ends_with(".ibu") || name.starts_with("ibdata") || name.starts_with("undo")
}

/// An `.isl` file names the place of a tablespace outside of the datadir.
fn refuse_link(dir: &Path, path: &Path) -> Result<(), Error> {
    if path.extension().is_none_or(|extension| extension != "isl") {
        return Ok(());
    }
    let Some(place) = there(fs::read_to_string(path), path)? else { return Ok(()) };
    let place = place.trim();
    if Path::new(place).starts_with(dir) {
        return Ok(());
    }
    let by = path.strip_prefix(dir).unwrap_or(path).display();
    Err(Error::Outside { file: place.to_owned(), more: format!(" (named by {by})") })
}

/// Whether a tablespace, or one of its first pages that are whole, can't be read without a key.
fn is_encrypted(path: &PathBuf) -> Result<bool, Error> {
    let Some(file) = there(File::open(path), path)? else { return Ok(false) };
    let mut bytes = Vec::new();
    file.take(LOOK_BYTES).read_to_end(&mut bytes).map_err(Error::io("read", path))?;
    let Some(format) = PageFormat::from_first_page(&bytes) else { return Ok(false) };
    let mut pages = bytes.chunks_exact(format.page_bytes as usize).zip(0..);
    Ok(format.encrypted
        || pages.any(|(page, number)| {
            // One that is being written says nothing.
            !matches!(page::check(format, number, false, page), Verdict::Bad(_))
                && page::is_encrypted(format, page)
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The first page of a tablespace with these flags.
    fn first_page(flags: u32) -> Vec<u8> {
        let mut page = vec![0; 16 << 10];
        page[24..26].copy_from_slice(&8_u16.to_be_bytes());
        page[54..58].copy_from_slice(&flags.to_be_bytes());
        page
    }

    #[test]
    fn encrypted_tablespaces_and_tables_elsewhere_are_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().canonicalize().unwrap();
        fs::create_dir(dir.join("shop")).unwrap();
        fs::write(dir.join("shop/plain.ibd"), first_page(0x4021)).unwrap();
        fs::write(dir.join("ibdata1"), first_page(0)).unwrap();
        fs::write(dir.join("shop/notes.txt"), first_page(0x6021)).unwrap();
        refuse(&dir).unwrap();
        fs::write(dir.join("shop/secret.ibd"), first_page(0x6021)).unwrap();
        let error = refuse(&dir).unwrap_err();
        assert!(
            matches!(&error, Error::Encrypted { file, more } if file == "shop/secret.ibd" && more.is_empty())
        );
        fs::remove_file(dir.join("shop/secret.ibd")).unwrap();
        fs::write(dir.join("shop/near.isl"), format!("{}/shop/near.ibd\n", dir.display())).unwrap();
        refuse(&dir).unwrap();
        fs::write(dir.join("shop/far.isl"), "/elsewhere/far.ibd\n").unwrap();
        let error = refuse(&dir).unwrap_err().to_string();
        assert!(error.contains("/elsewhere/far.ibd (named by shop/far.isl)"), "{error}");
    }
}
