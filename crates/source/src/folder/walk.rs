//! What is in the folder.

use std::fs::{self, Metadata};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::Error;
use crate::outcome::Warning;
use crate::path::FilePath;
use crate::sink::FileState;

/// Entries of a folder that we take: each costs about 200 bytes until the copy ends, so 2 GiB at the very most.
const ENTRIES_MAX: u64 = 10_000_000;

/// A file whose last change is younger than this has no state to trust: the times of file systems advance in steps, of
/// two seconds at most (FAT), of some milliseconds on those that a server is kept on.
const SETTLED: Duration = Duration::from_secs(2);

/// Folders inside folders. A datadir has two levels.
const DEPTH_MAX: usize = 64;

/// Everything to copy, in order of names.
#[derive(Debug)]
pub(super) struct Tree {
    /// Folders first of what lies in them.
    pub(super) entries: Vec<Entry>,
    /// What the owner should know of what is not taken as it is.
    pub(super) warnings: Vec<Warning>,
    /// Bytes of all files.
    pub(super) bytes: u64,
    /// Before anything was looked at.
    pub(super) begun: SystemTime,
    /// The folder itself.
    pub(super) root: PathBuf,
    root_stamp: Stamp,
}

/// A file or folder to copy.
#[derive(Debug)]
pub(super) struct Entry {
    /// Name in the copy.
    pub(super) path: FilePath,
    /// Where it is read; not below the root if a link led there.
    pub(super) real: PathBuf,
    /// A folder.
    pub(super) is_dir: bool,
    /// Permission bits.
    pub(super) mode: u32,
    /// State when it was found.
    pub(super) stamp: Stamp,
}

/// What must not change during the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    /// Length in bytes.
    pub(super) len: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            len: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// What vouches for the content from now on; `None` if it was changed so shortly before `now` that a later change
    /// may leave the same times behind, or, says a clock, after it.
    pub(super) fn state(&self, now: SystemTime) -> Option<FileState> {
        let settled = now.checked_sub(SETTLED)?.duration_since(UNIX_EPOCH).ok()?;
        let settled = i64::try_from(settled.as_nanos()).ok()?;
        let ns = |(seconds, rest): (i64, i64)| seconds.checked_mul(1_000_000_000)?.checked_add(rest);
        let (modified_ns, changed_ns) = (ns(self.modified)?, ns(self.changed)?);
        let old = modified_ns < settled && changed_ns < settled;
        old.then_some(FileState { inode: self.inode, modified_ns, changed_ns })
    }

    /// Time of the last change of the content, microseconds since the Unix epoch.
    pub(super) fn mtime_us(&self) -> i64 {
        self.modified.0.saturating_mul(1_000_000).saturating_add(self.modified.1 / 1000)
    }

    /// In words, what is different; `None` if nothing is.
    pub(super) fn difference(&self, now: &Self) -> Option<String> {
        if (self.device, self.inode) != (now.device, now.inode) {
            Some("another file took its place".to_owned())
        } else if self.len != now.len {
            Some(format!("its size went from {} to {} bytes", self.len, now.len))
        } else if self.modified != now.modified {
            Some("it was written".to_owned())
        } else if self.changed != now.changed {
            Some("its name, owner or mode was changed".to_owned())
        } else {
            None
        }
    }
}

/// Walks `root`, which is canonical.
pub(super) fn walk(root: &Path) -> Result<Tree, Error> {
    let metadata = fs::metadata(root).map_err(Error::io("look at", root))?;
    if !metadata.is_dir() {
        let source = std::io::Error::from(std::io::ErrorKind::NotADirectory);
        return Err(Error::Io { doing: "copy the folder", path: root.to_path_buf(), source });
    }
    let mut walker = Walker {
        tree: Tree {
            entries: Vec::new(),
            warnings: Vec::new(),
            bytes: 0,
            begun: SystemTime::now(),
            root: root.to_path_buf(),
            root_stamp: Stamp::of(&metadata),
        },
        above: vec![(metadata.dev(), metadata.ino())],
        datadir: root.join("ibdata1").exists(),
    };
    walker.folder(root, &[])?;
    Ok(walker.tree)
}

struct Walker {
    tree: Tree,
    /// Device and inode of the folders we are in: a link back to one of them would never end.
    above: Vec<(u64, u64)>,
    datadir: bool,
}

impl Walker {
    fn folder(&mut self, real: &Path, name: &[u8]) -> Result<(), Error> {
        let mut names = Vec::new();
        for entry in fs::read_dir(real).map_err(Error::io("list", real))? {
            names.push(entry.map_err(Error::io("list", real))?.file_name());
        }
        names.sort_unstable();
        for entry in names {
            let mut path = name.to_vec();
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(entry.as_bytes());
            self.entry(real.join(&entry), path)?;
        }
        Ok(())
    }

    fn entry(&mut self, real: PathBuf, name: Vec<u8>) -> Result<(), Error> {
        let path = FilePath::new(name).map_err(|source| Error::Name {
            place: "the folder",
            name: real.display().to_string(),
            source,
        })?;
        if self.datadir && is_made_anew(&path) || MARKS.contains(&path.as_bytes()) {
            return Ok(());
        }
        let Some((real, metadata)) = self.follow(real, &path)? else { return Ok(()) };
        let kind = metadata.file_type();
        if !(kind.is_dir() || kind.is_file()) {
            // A socket is what every server leaves; anything else is worth a word.
            if !kind.is_socket() {
                let reason = "it is neither a file nor a folder".to_owned();
                self.tree.warnings.push(Warning::LeftOut { file: path.to_string(), reason });
            }
            return Ok(());
        }
        if self.tree.entries.len() as u64 >= ENTRIES_MAX {
            return Err(Error::TooMany {
                what: "files of a folder",
                got: ENTRIES_MAX + 1,
                limit: ENTRIES_MAX,
            });
        }
        if kind.is_file() {
            self.refuse_tables_elsewhere(&real, &path)?;
            self.tree.bytes += metadata.len();
        }
        let (is_dir, mode, name) = (kind.is_dir(), metadata.mode() & 0o7777, path.as_bytes().to_vec());
        let stamp = Stamp::of(&metadata);
        self.tree.entries.push(Entry { path, real: real.clone(), is_dir, mode, stamp });
        if is_dir {
            self.above.push((metadata.dev(), metadata.ino()));
            if self.above.len() > DEPTH_MAX {
                let limit = DEPTH_MAX as u64;
                return Err(Error::TooMany { what: "folders inside folders", got: limit + 1, limit });
            }
            self.folder(&real, &name)?;
            self.above.pop();
        }
        Ok(())
    }

    /// Where `real` leads and what is there; `None` if there is nothing to copy.
    fn follow(&mut self, real: PathBuf, path: &FilePath) -> Result<Option<(PathBuf, Metadata)>, Error> {
        let metadata = fs::symlink_metadata(&real).map_err(Error::io("look at", &real))?;
        if !metadata.is_symlink() {
            return Ok(Some((real, metadata)));
        }
        let target = fs::read_link(&real).map_err(Error::io("follow", &real))?.display().to_string();
        let left_out = |reason: String| Warning::LeftOut { file: path.to_string(), reason };
        let there = match real.canonicalize() {
            Ok(there) => there,
            Err(error) => {
                let reason = format!("it is a link to {target}, which can't be followed ({error})");
                self.tree.warnings.push(left_out(reason));
                return Ok(None);
            }
        };
        let metadata = fs::metadata(&there).map_err(Error::io("look at", &there))?;
        if metadata.is_dir() && self.above.contains(&(metadata.dev(), metadata.ino())) {
            let reason = format!("it is a link to {target}, a folder that it lies in itself");
            self.tree.warnings.push(left_out(reason));
            return Ok(None);
        }
        self.tree.warnings.push(Warning::Symlink { file: path.to_string(), target });
        Ok(Some((there, metadata)))
    }

    /// An `.isl` file names the place of a tablespace outside of the datadir.
    fn refuse_tables_elsewhere(&self, real: &Path, path: &FilePath) -> Result<(), Error> {
        if !self.datadir || !path.file_name().ends_with(b".isl") {
            return Ok(());
        }
        let place = fs::read_to_string(real).map_err(Error::io("read", real))?;
        let place = place.trim();
        if Path::new(place).starts_with(&self.tree.root) {
            return Ok(());
        }
        Err(Error::Outside { file: place.to_owned(), more: format!(" (named by {path})") })
    }
}

/// How far a restore of this folder is, and one over it: a state of the folder, and none of what it holds.
const MARKS: [&[u8]; 10] = [
    b"holdfast-in-place.json",
    b"holdfast-in-place.json.new",
    b"holdfast-in-place.lock",
    b"holdfast-restore.json",
    b"holdfast-restore.json.new",
    b"holdfast-restore.lock",
    b"holdfast-restore-progress.json",
    b"holdfast-restore-progress.json.new",
    b"holdfast-restored.json",
    b"holdfast-restored.json.new",
];

/// Files of a datadir that a server makes anew at every start.
fn is_made_anew(path: &FilePath) -> bool {
    let name = path.as_bytes();
    if name.contains(&b'/') {
        return false;
    }
    name == b"#innodb_temp"
        || name.starts_with(b"ibtmp")
        || name.ends_with(b".pid")
        || name.ends_with(b".sock.lock")
}

impl Tree {
    /// Errors if a folder gained, lost or renamed an entry since it was walked.
    pub(super) fn confirm_unchanged(&self) -> Result<(), Error> {
        let folders = self.entries.iter().filter(|e| e.is_dir).map(|e| (&e.real, &e.stamp));
        for (path, stamp) in folders.chain([(&self.root, &self.root_stamp)]) {
            let now = Stamp::of(&fs::metadata(path).map_err(Error::io("look at", path))?);
            if stamp.difference(&now).is_some() {
                let what = "a file in it came, went or was renamed".to_owned();
                return Err(Error::Changed { path: path.clone(), what });
            }
        }
        Ok(())
    }
}
