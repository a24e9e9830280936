//! A file that is written front to back and gets its name when it is whole and durable.

use holdfast_io::{Disk, File, Open};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Bytes that are gathered before they are written.
const GATHER_BYTES: usize = 1 << 20;

/// How the names of files end that are not whole yet.
pub(super) const UNFINISHED: &str = ".part";

/// A file under way.
pub(super) struct WholeFile<'d> {
    disk: &'d dyn Disk,
    file: Arc<dyn File>,
    path: PathBuf,
    part: PathBuf,
    /// Offset of the first gathered byte.
    offset: u64,
    gathered: Vec<u8>,
}

impl<'d> WholeFile<'d> {
    /// Begins the file that will be `path`; neither it nor an unfinished one may be there.
    pub(super) fn create(disk: &'d dyn Disk, path: &Path) -> holdfast_io::Result<Self> {
        let mut part = path.as_os_str().to_owned();
        part.push(UNFINISHED);
        let part = PathBuf::from(part);
        let file = disk.open(&part, Open::CreateNew)?;
        Ok(Self { disk, file, path: path.to_path_buf(), part, offset: 0, gathered: Vec::new() })
    }

    /// Offset behind what was written.
    pub(super) fn end(&self) -> u64 {
        self.offset + self.gathered.len() as u64
    }

    /// Adds bytes at the end.
    pub(super) fn put(&mut self, bytes: &[u8]) -> holdfast_io::Result<()> {
        self.gathered.extend_from_slice(bytes);
        if self.gathered.len() >= GATHER_BYTES { self.write() } else { Ok(()) }
    }

    /// Leaves a hole up to `offset`, which lies behind the end.
    pub(super) fn skip_to(&mut self, offset: u64) -> holdfast_io::Result<()> {
        self.write()?;
        self.offset = offset;
        Ok(())
    }

    fn write(&mut self) -> holdfast_io::Result<()> {
        self.file.write_all_at(self.offset, &self.gathered)?;
        self.offset = self.end();
        self.gathered.clear();
        Ok(())
    }

    /// Returns when the file is there, whole, and survives a crash.
    pub(super) fn finish(mut self) -> holdfast_io::Result<()> {
        self.write()?;
        self.file.sync_all()?;
        self.disk.rename_noreplace(&self.part, &self.path)?;
        self.disk.sync_dir(&holdfast_io::durable::folder_of(&self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_io::SimDisk;

    /// After a crash at any moment a file with its final name has every byte, and one whose `finish` returned is there.
    #[test]
    fn after_any_crash_a_file_is_whole_or_has_no_name() {
        let disk = SimDisk::new();
        let dir = Path::new("/out");
        disk.create_dir_all(dir).unwrap();
        disk.sync_dir(Path::new("/")).unwrap();
        let mut wanted: Vec<(&str, Vec<u8>, usize)> = Vec::new();
        for (name, pieces) in [("a", 3_usize), ("b", 40)] {
            let mut file = WholeFile::create(&disk, &dir.join(name)).unwrap();
            let mut bytes = b"head".to_vec();
            file.put(b"head").unwrap();
            file.skip_to(9000).unwrap();
            bytes.resize(9000, 0);
            for piece in 0..pieces {
                let piece = vec![piece as u8 + 1; 60_000];
                file.put(&piece).unwrap();
                bytes.extend(piece);
            }
            assert_eq!(file.end(), bytes.len() as u64);
            file.finish().unwrap();
            wanted.push((name, bytes, disk.trace_len()));
        }
        let mut walk = disk.walk();
        loop {
            for how in walk.crashes(2) {
                let after = walk.image(how);
                for (name, bytes, done) in &wanted {
                    let path = dir.join(name);
                    if !after.exists(&path).unwrap() {
                        assert!(walk.ops() < *done, "{name} was finished and is gone");
                        continue;
                    }
                    let file = after.open(&path, Open::Read).unwrap();
                    let mut found = vec![0; usize::try_from(file.len().unwrap()).unwrap()];
                    file.read_exact_at(0, &mut found).unwrap();
                    assert!(found == *bytes, "{name} is not whole after {} operations", walk.ops());
                }
            }
            if !walk.step() {
                break;
            }
        }
    }
}
