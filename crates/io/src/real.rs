//! `RealDisk`: the file systems of this machine.

use std::ffi::OsString;
use std::fs;
use std::io::{self, Read as _};
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{FallocateFlags, RenameFlags, SeekFrom};
use rustix::io::Errno;

use crate::disk::{Disk, Entry, EntryKind, File, FreeSpace, Lock, LockKind, Metadata, Open, Wait};
use crate::error::{Error, Result};
use crate::file_lock::FileLock;

/// First pause between two tries for a lock; it doubles up to [`LOCK_PAUSE_MAX`].
const LOCK_PAUSE_MIN: Duration = Duration::from_millis(1);
/// Longest pause between two tries: a waiter learns of a free lock this late at worst.
const LOCK_PAUSE_MAX: Duration = Duration::from_millis(25);
/// A zero-filled buffer for file systems that cannot zero a range themselves.
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// The file systems of this machine.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl RealDisk {
    /// The disk, ready to be shared.
    #[must_use]
    pub fn shared() -> Arc<dyn Disk> {
        Arc::new(Self)
    }

    /// Reads a small file whole, front to back, so that a pipe or `/dev/stdin` will do: secrets and option files. More
    /// than `limit` bytes are refused.
    pub fn read_whole(path: &Path, limit: u64) -> Result<Vec<u8>> {
        let wrap = |e| Error::from_io("read", path, e);
        let file = open_file(path, Open::Read).map_err(wrap)?;
        let mut bytes = Vec::new();
        file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(wrap)?;
        if bytes.len() as u64 > limit {
            return Err(Error::Refused {
                op: "read",
                what: path.display().to_string(),
                why: "it is too long",
            });
        }
        Ok(bytes)
    }
}

fn open_file(path: &Path, how: Open) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).mode(0o600);
    match how {
        Open::Read => {}
        Open::Write => {
            options.write(true);
        }
        Open::CreateNew => {
            options.write(true).create_new(true);
        }
        Open::CreateOrOpen => {
            options.write(true).create(true).truncate(false);
        }
    }
    options.open(path)
}

impl Disk for RealDisk {
    fn open(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let op = if matches!(how, Open::CreateNew | Open::CreateOrOpen) { "create" } else { "open" };
        let file = open_file(path, how).map_err(|e| Error::from_io(op, path, e))?;
        Ok(Arc::new(RealFile::new(file, path, None)))
    }

    fn open_bulk(&self, path: &Path, how: Open) -> Result<Arc<dyn File>> {
        let op = if matches!(how, Open::CreateNew | Open::CreateOrOpen) { "create" } else { "open" };
        let file = open_file(path, how).map_err(|e| Error::from_io(op, path, e))?;
        // The same file, whatever stands at the path by now. A file system that can't (tmpfs, some FUSE) says so here.
        let same = format!("/proc/self/fd/{}", file.as_raw_fd());
        let mut options = fs::OpenOptions::new();
        options.read(true).write(how != Open::Read).custom_flags(libc::O_DIRECT);
        let direct = options.open(same).ok();
        Ok(Arc::new(RealFile::new(file, path, direct)))
    }

    fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        fs::rename(from, to).map_err(|e| Error::from_io("rename", from, e))
    }

    fn rename_noreplace(&self, from: &Path, to: &Path) -> Result<()> {
        let cwd = rustix::fs::CWD;
        match rustix::fs::renameat_with(cwd, from, cwd, to, RenameFlags::NOREPLACE) {
            Ok(()) => Ok(()),
            // NFS and some FUSE file systems know no RENAME_NOREPLACE; a hard link does not replace either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                fs::hard_link(from, to).map_err(|e| Error::from_io("create", to, e))?;
                fs::remove_file(from).map_err(|e| Error::from_io("remove", from, e))
            }
            Err(e) => Err(Error::from_io("create", to, e.into())),
        }
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        fs::remove_file(path).map_err(|e| Error::from_io("remove", path, e))
    }

    fn remove_dir(&self, path: &Path) -> Result<()> {
        fs::remove_dir(path).map_err(|e| Error::from_io("remove the folder", path, e))
    }

    fn create_dir(&self, path: &Path) -> Result<()> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new()
            .mode(0o700)
            .create(path)
            .map_err(|e| Error::from_io("create the folder", path, e))
    }

    fn list(&self, dir: &Path) -> Result<Vec<Entry>> {
        let wrap = |e| Error::from_io("list", dir, e);
        let mut entries = Vec::new();
        for entry in fs::read_dir(dir).map_err(wrap)? {
            let entry = entry.map_err(wrap)?;
            let name: OsString = entry.file_name();
            entries.push(Entry { name, kind: kind_of(entry.file_type().map_err(wrap)?) });
        }
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    fn sync_dir(&self, dir: &Path) -> Result<()> {
        let wrap = |e| Error::from_io("sync the folder", dir, e);
        fs::File::open(dir).map_err(wrap)?.sync_all().map_err(wrap)
    }

    fn finish_dir(&self, dir: &Path, mode: u32, modified_unix_us: i64) -> Result<()> {
        let wrap = |e| Error::from_io("give its mode and time to", dir, e);
        let file = fs::File::open(dir).map_err(wrap)?;
        set_mode_and_time(&file, mode, modified_unix_us).map_err(wrap)?;
        rustix::fs::fsync(&file).map_err(|e| Error::from_io("sync the folder", dir, e.into()))
    }

    fn symlink(&self, target: &[u8], path: &Path, modified_unix_us: i64) -> Result<bool> {
        use std::os::unix::ffi::OsStrExt;
        let wrap = |e| Error::from_io("make the link", path, e);
        std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), path).map_err(wrap)?;
        let times = times(modified_unix_us);
        let set = rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW);
        // A link's own time is worth no failure: some file systems keep none.
        match set {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(true),
            Err(e) => Err(wrap(e.into())),
        }
    }

    fn metadata(&self, path: &Path) -> Result<Metadata> {
        let m = fs::symlink_metadata(path).map_err(|e| Error::from_io("look at", path, e))?;
        Ok(Metadata {
            kind: kind_of(m.file_type()),
            len: m.len(),
            allocated: m.blocks().saturating_mul(512),
            modified_unix_ns: m.mtime().saturating_mul(1_000_000_000).saturating_add(m.mtime_nsec()),
        })
    }

    fn lock(&self, path: &Path, kind: LockKind, wait: Wait) -> Result<Option<Lock>> {
        let start = Instant::now();
        let mut pause = LOCK_PAUSE_MIN;
        loop {
            let file = open_for_lock(path, kind)?;
            if let Some(held) = FileLock::of(file, kind).map_err(|e| Error::from_io("lock", path, e))? {
                if held.is_at(path).map_err(|e| Error::from_io("look at", path, e))? {
                    return Ok(Some(Lock::new(Box::new(held))));
                }
                // Removed or replaced while we waited: this lock guards nothing.
                continue;
            }
            match wait {
                Wait::Try => return Ok(None),
                Wait::AtMost(limit) => {
                    let waited = start.elapsed();
                    if waited >= limit {
                        return Err(Error::LockBusy { what: path.display().to_string(), waited });
                    }
                    std::thread::sleep(pause.min(limit.saturating_sub(waited)));
                    pause = pause.saturating_mul(2).min(LOCK_PAUSE_MAX);
                }
            }
        }
    }

    fn free_space(&self, path: &Path) -> Result<FreeSpace> {
        let s =
            rustix::fs::statvfs(path).map_err(|e| Error::from_io("look at the space of", path, e.into()))?;
        Ok(FreeSpace {
            available: s.f_bavail.saturating_mul(s.f_frsize),
            total: s.f_blocks.saturating_mul(s.f_frsize),
        })
    }
}

/// The time of the last change; that of the last access stays.
fn times(modified_unix_us: i64) -> rustix::fs::Timestamps {
    let seconds = modified_unix_us.div_euclid(1_000_000);
    let rest = modified_unix_us.rem_euclid(1_000_000).saturating_mul(1000);
    rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT },
        last_modification: rustix::fs::Timespec { tv_sec: seconds, tv_nsec: rest },
    }
}

fn set_mode_and_time(file: &fs::File, mode: u32, modified_unix_us: i64) -> io::Result<()> {
    rustix::fs::fchmod(file, rustix::fs::Mode::from_raw_mode(mode & 0o7777))?;
    rustix::fs::futimens(file, &times(modified_unix_us))?;
    Ok(())
}

fn kind_of(t: fs::FileType) -> EntryKind {
    if t.is_file() {
        EntryKind::File
    } else if t.is_dir() {
        EntryKind::Dir
    } else {
        EntryKind::Other
    }
}

/// A shared lock needs no right to write, so that a reader can lock on a read-only mount.
fn open_for_lock(path: &Path, kind: LockKind) -> Result<fs::File> {
    let how = if kind == LockKind::Exclusive { Open::Write } else { Open::Read };
    open_file(path, how).map_err(|e| Error::from_io("open", path, e))
}

/// An open file of this machine.
#[derive(Debug)]
struct RealFile {
    file: fs::File,
    path: PathBuf,
    poisoned: AtomicBool,
    /// The same file past the page cache, and whether that was refused.
    direct: Option<fs::File>,
    direct_refused: AtomicBool,
}

impl RealFile {
    fn new(file: fs::File, path: &Path, direct: Option<fs::File>) -> Self {
        let (path, poisoned) = (path.to_path_buf(), AtomicBool::new(false));
        Self { file, path, poisoned, direct, direct_refused: AtomicBool::new(false) }
    }

    fn wrap(&self, op: &'static str) -> impl Fn(io::Error) -> Error + '_ {
        move |e| Error::from_io(op, &self.path, e)
    }

    fn writable(&self) -> Result<()> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(Error::Poisoned { what: self.path.display().to_string() });
        }
        Ok(())
    }

    /// Runs a sync; any failure, an interruption included, poisons the handle.
    fn synced(&self, result: io::Result<()>) -> Result<()> {
        result.map_err(|e| {
            self.poisoned.store(true, Ordering::Release);
            Error::from_io("sync", &self.path, e)
        })
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> std::result::Result<(), Errno> {
        if len == 0 {
            return Ok(());
        }
        loop {
            match rustix::fs::fallocate(&self.file, flags, offset, len) {
                Err(Errno::INTR) => {}
                other => return other,
            }
        }
    }

    fn write_zeros(&self, offset: u64, len: u64) -> Result<()> {
        let mut done = 0_u64;
        while done < len {
            let n = len.saturating_sub(done).min(ZEROS.len() as u64);
            let part = ZEROS.get(..usize::try_from(n).unwrap_or(ZEROS.len())).unwrap_or(&ZEROS);
            self.write_all_at(offset.saturating_add(done), part)?;
            done = done.saturating_add(n);
        }
        Ok(())
    }
}

impl File for RealFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<usize> {
        self.file.read_at(buf, offset).map_err(self.wrap("read"))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<usize> {
        self.writable()?;
        self.file.write_at(bytes, offset).map_err(self.wrap("write"))
    }

    fn len(&self) -> Result<u64> {
        self.file.metadata().map(|m| m.len()).map_err(self.wrap("look at"))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.writable()?;
        self.file.set_len(len).map_err(self.wrap("set the length of"))
    }

    fn sync_data(&self) -> Result<()> {
        self.writable()?;
        // std retries an interrupted fsync, which may report success for pages that the first one lost.
        self.synced(rustix::fs::fdatasync(&self.file).map_err(io::Error::from))
    }

    fn begin_writing(&self, offset: u64, len: u64) {
        let (Ok(offset), Ok(len)) = (i64::try_from(offset), i64::try_from(len)) else { return };
        // SAFETY: the call takes numbers only and touches no memory of ours; the descriptor is open because `self.file`
        // lives. It waits for nothing, so it takes no error away from the sync that follows.
        #[expect(unsafe_code, reason = "sync_file_range has no safe wrapper")]
        let _ =
            unsafe { libc::sync_file_range(self.file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    fn read_ahead(&self, offset: u64, len: u64) {
        let Some(len) = std::num::NonZeroU64::new(len) else { return };
        let _ = rustix::fs::fadvise(&self.file, offset, Some(len), rustix::fs::Advice::WillNeed);
    }

    fn sync_all(&self) -> Result<()> {
        self.writable()?;
        self.synced(rustix::fs::fsync(&self.file).map_err(io::Error::from))
    }

    fn set_mode_and_time(&self, mode: u32, modified_unix_us: i64) -> Result<()> {
        self.writable()?;
        set_mode_and_time(&self.file, mode, modified_unix_us).map_err(self.wrap("give its mode and time to"))
    }

    fn punch_hole(&self, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        match self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                let inside = self.len()?.saturating_sub(offset).min(len);
                self.write_zeros(offset, inside)
            }
            Err(e) => Err(Error::from_io("punch a hole into", &self.path, e.into())),
        }
    }

    fn zero_range(&self, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        match self.fallocate(FallocateFlags::ZERO_RANGE, offset, len) {
            Ok(()) => Ok(()),
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => self.write_zeros(offset, len),
            Err(e) => Err(Error::from_io("zero", &self.path, e.into())),
        }
    }

    fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        self.writable()?;
        match self.fallocate(FallocateFlags::KEEP_SIZE, offset, len) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(e) => Err(Error::from_io("reserve space for", &self.path, e.into())),
        }
    }

    fn is_poisoned(&self) -> bool {
        self.poisoned.load(Ordering::Acquire)
    }

    fn next_data(&self, offset: u64) -> Result<Option<Range<u64>>> {
        let len = self.len()?;
        if offset >= len {
            return Ok(None);
        }
        let wrap = |e: Errno| Error::from_io("look for holes in", &self.path, e.into());
        let start = match rustix::fs::seek(&self.file, SeekFrom::Data(offset)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => return Ok(Some(offset..len)),
            Err(e) => return Err(wrap(e)),
        };
        let end = match rustix::fs::seek(&self.file, SeekFrom::Hole(start)) {
            Ok(end) => end,
            Err(Errno::NXIO) => len,
            Err(e) => return Err(wrap(e)),
        };
        // Only a data fork that grew meanwhile ends past the length we read.
        Ok(Some(start..end.max(start)))
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        Some(self.file.as_fd())
    }

    fn direct_descriptor(&self) -> Option<BorrowedFd<'_>> {
        let direct = self.direct.as_ref().filter(|_| !self.direct_refused.load(Ordering::Relaxed));
        direct.map(AsFd::as_fd)
    }

    fn refuse_direct(&self) {
        self.direct_refused.store(true, Ordering::Relaxed);
    }
}
