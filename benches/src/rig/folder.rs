//! Folders as the rig needs them: their size, their equality, their times, and one path under
//! which a tool sees one generation after the other.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::error::{Error, Result, at};

/// Bytes read at a time while comparing.
const CHUNK: usize = 1 << 20;

/// The regular files below `root`, as sorted paths relative to it.
///
/// # Errors
/// Those of the file system.
pub fn files_below(root: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in at("list", &folder, fs::read_dir(&folder))? {
            let entry = at("list", &folder, entry)?;
            let kind = at("look at", &entry.path(), entry.file_type())?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file()
                && let Ok(relative) = entry.path().strip_prefix(root)
            {
                found.push(relative.to_path_buf());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// The sum of the lengths of all files below `root`; 0 if there is no such folder.
///
/// # Errors
/// Those of the file system.
pub fn bytes_below(root: &Path) -> Result<u64> {
    if !root.exists() {
        return Ok(0);
    }
    let mut sum = 0;
    for file in files_below(root)? {
        let path = root.join(file);
        sum += at("look at", &path, fs::metadata(&path))?.len();
    }
    Ok(sum)
}

/// Checks that each file of `source` is in `restored` with the same bytes. Returns the files
/// that only `restored` has.
///
/// # Errors
/// A file is missing or differs; those of the file system.
pub fn must_equal(tool: &str, source: &Path, restored: &Path) -> Result<Vec<PathBuf>> {
    let wanted = files_below(source)?;
    let mut extra = files_below(restored)?;
    for file in &wanted {
        let Ok(place) = extra.binary_search(file) else {
            return Err(differs(tool, &restored.join(file), "it is missing"));
        };
        extra.remove(place);
        compare(tool, &source.join(file), &restored.join(file))?;
    }
    Ok(extra)
}

fn compare(tool: &str, source: &Path, restored: &Path) -> Result<()> {
    let mut a = at("open", source, File::open(source))?;
    let mut b = at("open", restored, File::open(restored))?;
    let (mut left, mut right) = (Vec::with_capacity(CHUNK), Vec::with_capacity(CHUNK));
    let mut offset = 0u64;
    loop {
        left.clear();
        right.clear();
        at("read", source, a.by_ref().take(CHUNK as u64).read_to_end(&mut left))?;
        at("read", restored, b.by_ref().take(CHUNK as u64).read_to_end(&mut right))?;
        if left != right {
            let same = left.iter().zip(&right).take_while(|(l, r)| l == r).count() as u64;
            return Err(differs(tool, restored, &format!("from byte {} on", offset + same)));
        }
        if left.is_empty() {
            return Ok(());
        }
        offset += left.len() as u64;
    }
}

fn differs(tool: &str, path: &Path, got: &str) -> Error {
    Error::Differs { tool: tool.to_owned(), path: path.to_path_buf(), got: got.to_owned() }
}

/// Sets the modification time of every file below `root` to now; no byte changes.
///
/// # Errors
/// Those of the file system.
pub fn touch_all(root: &Path) -> Result<()> {
    let now = SystemTime::now();
    for file in files_below(root)? {
        let path = root.join(file);
        at("touch", &path, File::open(&path).and_then(|f| f.set_modified(now)))?;
    }
    Ok(())
}

/// Removes a folder and all in it, if it is there.
///
/// # Errors
/// Those of the file system.
pub fn remove(path: &Path) -> Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => at("remove", path, other),
    }
}

/// One generation, shown at the path that all backups read. Tools find what changed by path,
/// so both generations have to be seen at the same one; a rename keeps inodes and times.
#[derive(Debug)]
pub struct Shown {
    home: PathBuf,
    place: PathBuf,
}

impl Shown {
    /// Moves `home` to `place` until this value is dropped.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn at(home: &Path, place: &Path) -> Result<Self> {
        at("move", home, fs::rename(home, place))?;
        Ok(Self { home: home.to_path_buf(), place: place.to_path_buf() })
    }

    /// Where the tools see it.
    pub fn place(&self) -> &Path {
        &self.place
    }
}

impl Drop for Shown {
    fn drop(&mut self) {
        // If this fails the next run finds `place` and moves it home (see `bring_home`).
        drop(fs::rename(&self.place, &self.home));
    }
}

/// Undoes a move that a killed run left behind: `place` belongs to the one home that is missing.
///
/// # Errors
/// Those of the file system.
pub fn bring_home(place: &Path, homes: &[PathBuf]) -> Result<()> {
    if let (true, Some(home)) = (place.exists(), homes.iter().find(|home| !home.exists())) {
        at("move", place, fs::rename(place, home))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two() -> (tempfile::TempDir, PathBuf, PathBuf) {
        let top = tempfile::tempdir().unwrap();
        let (a, b) = (top.path().join("a"), top.path().join("b"));
        for folder in [&a, &b] {
            fs::create_dir_all(folder.join("inner")).unwrap();
            fs::write(folder.join("inner/one"), vec![7; 3 * CHUNK]).unwrap();
            fs::write(folder.join("two"), b"").unwrap();
        }
        (top, a, b)
    }

    #[test]
    fn equal_folders_are_equal_and_extra_files_are_named() {
        let (_top, a, b) = two();
        fs::write(b.join("more"), b"x").unwrap();
        assert_eq!(must_equal("t", &a, &b).unwrap(), [PathBuf::from("more")]);
        assert_eq!(bytes_below(&a).unwrap(), 3 * CHUNK as u64);
    }

    #[test]
    fn a_changed_byte_is_found_and_its_place_named() {
        let (_top, a, b) = two();
        let mut bytes = vec![7; 3 * CHUNK];
        bytes[CHUNK + 5] = 8;
        fs::write(b.join("inner/one"), bytes).unwrap();
        let error = must_equal("t", &a, &b).unwrap_err().to_string();
        assert!(error.contains(&format!("byte {}", CHUNK + 5)), "{error}");
    }

    #[test]
    fn a_missing_or_shorter_file_is_found() {
        let (_top, a, b) = two();
        fs::write(b.join("inner/one"), vec![7; 2 * CHUNK]).unwrap();
        assert!(must_equal("t", &a, &b).is_err());
        fs::remove_file(b.join("inner/one")).unwrap();
        assert!(must_equal("t", &a, &b).unwrap_err().to_string().contains("missing"));
    }

    #[test]
    fn a_generation_goes_home_even_after_a_kill() {
        let (_top, a, b) = two();
        fs::remove_dir_all(&b).unwrap();
        let place = a.with_file_name("source");
        std::mem::forget(Shown::at(&a, &place).unwrap());
        bring_home(&place, std::slice::from_ref(&a)).unwrap();
        assert!(a.join("two").exists() && !place.exists());
        drop(Shown::at(&a, &place).unwrap());
        assert!(a.join("two").exists());
    }
}
