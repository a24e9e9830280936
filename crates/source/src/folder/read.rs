//! Reading the files, several at a time.
//!
//! One thread walks the list, opens files and cuts them into ranges; readers take ranges and hand blocks to the
//! sink. Page 0 of a tablespace is read by the opener, so that ranges may come in any order.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::{Advice, SeekFrom as Seeking, fadvise, seek};
use rustix::io::Errno;

use super::in_use::refuse_locked;
use super::walk::{Entry, Stamp, Tree};
use crate::error::Error;
use crate::page::{PAGE_BYTES_MIN, PageFormat};
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, Sink};
use crate::source::{Progress, Stage, Watch};
use crate::verify::{VerifyingSink, kind_of};

/// Bytes read at a time, by each reader.
const READ_BYTES: usize = 1 << 20;

/// A range that one reader takes: large enough to read on in sequence, small enough that one large table does
/// not leave the other readers idle. A multiple of a block.
const RANGE_BYTES: u64 = 256 << 20;

/// Ranges that wait for a reader; each may hold a file open.
const RANGES_WAITING: usize = 64;

/// A file on its way.
struct Opened {
    file: File,
    path: PathBuf,
    no: FileNo,
    stamp: Stamp,
    /// Ranges not read yet. The reader of the last one closes the file's account.
    ranges_left: AtomicU64,
}

struct Range {
    opened: Arc<Opened>,
    from: u64,
    to: u64,
}

/// What the threads share.
struct Shared<'a> {
    sink: &'a VerifyingSink<'a>,
    watch: &'a dyn Watch,
    bytes: AtomicU64,
    files: AtomicU64,
    expected: u64,
    stop: AtomicBool,
}

/// Copies every entry of `tree`. Returns the bytes read and the number of files.
pub(super) fn copy_tree(
    tree: &Tree,
    sink: &VerifyingSink<'_>,
    watch: &dyn Watch,
    readers: usize,
) -> Result<(u64, u64), Error> {
    let shared = Shared {
        sink,
        watch,
        bytes: AtomicU64::new(0),
        files: AtomicU64::new(0),
        expected: tree.bytes,
        stop: AtomicBool::new(false),
    };
    let (send, receive) = bounded::<Range>(RANGES_WAITING);
    let mut failures = thread::scope(|scope| {
        let readers: Vec<_> = (0..readers)
            .map(|_| {
                let (receive, shared) = (receive.clone(), &shared);
                scope.spawn(move || read_ranges(&receive, shared))
            })
            .collect();
        drop(receive);
        let mut failures = Vec::new();
        failures.extend(open_all(tree, &shared, &send).err());
        if !failures.is_empty() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        drop(send);
        for reader in readers {
            let result = reader.join().unwrap_or(Err(Error::Thread { doing: "read files" }));
            failures.extend(result.err());
        }
        failures
    });
    // `Cancelled` is what the others say when one of them met the real trouble.
    failures.sort_by_key(|error| matches!(error, Error::Cancelled));
    match failures.into_iter().next() {
        Some(error) => Err(error),
        None => Ok((shared.bytes.into_inner(), shared.files.into_inner())),
    }
}

fn open_all(tree: &Tree, shared: &Shared<'_>, send: &Sender<Range>) -> Result<(), Error> {
    for entry in &tree.entries {
        shared.check()?;
        if entry.is_dir {
            let (path, mode) = (entry.path.clone(), entry.mode);
            shared.sink.add_file(FileSpec { path, kind: FileKind::Directory, expected_len: 0, mode })?;
            continue;
        }
        let opened = Arc::new(open(entry, &tree.root, shared)?);
        let len = entry.stamp.len;
        let mut from = 0;
        while from < len {
            let to = (from + RANGE_BYTES).min(len);
            if send.send(Range { opened: Arc::clone(&opened), from, to }).is_err() {
                // The readers are gone, one of them with an error that says more.
                return Err(Error::Cancelled);
            }
            from = to;
        }
        if len == 0 {
            opened.close(shared)?;
        }
    }
    Ok(())
}

fn open(entry: &Entry, root: &Path, shared: &Shared<'_>) -> Result<Opened, Error> {
    let file = File::open(&entry.real).map_err(Error::io("open", &entry.real))?;
    refuse_locked(&file, &entry.real, root)?;
    // Advice only: a file system that takes none reads all the same.
    let _ = fadvise(&file, 0, None, Advice::Sequential);
    let kind = kind_of(&entry.path);
    let no = shared.sink.add_file(FileSpec {
        path: entry.path.clone(),
        kind,
        expected_len: entry.stamp.len,
        mode: entry.mode,
    })?;
    if kind == FileKind::Tablespace {
        let mut head = [0; PAGE_BYTES_MIN as usize];
        if file.read_exact_at(&mut head, 0).is_ok()
            && let Some(format) = PageFormat::from_first_page(&head)
        {
            shared.sink.declare(no, format);
        }
    }
    let ranges_left = AtomicU64::new(entry.stamp.len.div_ceil(RANGE_BYTES));
    Ok(Opened { file, path: entry.real.clone(), no, stamp: entry.stamp, ranges_left })
}

impl Opened {
    /// After the last range: nothing may have changed since the walk.
    fn close(&self, shared: &Shared<'_>) -> Result<(), Error> {
        let now = Stamp::of(&self.file.metadata().map_err(Error::io("look at", &self.path))?);
        let named = fs::metadata(&self.path).map_err(Error::io("look at", &self.path))?;
        for now in [now, Stamp::of(&named)] {
            if let Some(what) = self.stamp.difference(&now) {
                return Err(Error::Changed { path: self.path.clone(), what });
            }
        }
        shared.sink.set_len(self.no, self.stamp.len)?;
        shared.files.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Shared<'_> {
    fn check(&self) -> Result<(), Error> {
        if self.stop.load(Ordering::Relaxed) || self.watch.cancelled() {
            Err(Error::Cancelled)
        } else {
            Ok(())
        }
    }

    fn tell(&self) {
        self.watch.progress(Progress {
            stage: Stage::Files,
            bytes: self.bytes.load(Ordering::Relaxed),
            bytes_expected: Some(self.expected),
            files: self.files.load(Ordering::Relaxed),
        });
    }
}

fn read_ranges(receive: &Receiver<Range>, shared: &Shared<'_>) -> Result<(), Error> {
    let mut buffer = vec![0; READ_BYTES];
    for range in receive {
        let result = read_range(&range, shared, &mut buffer);
        if result.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
            return result;
        }
    }
    Ok(())
}

fn read_range(range: &Range, shared: &Shared<'_>, buffer: &mut [u8]) -> Result<(), Error> {
    let opened = &range.opened;
    // A descriptor of its own, because seeking for data moves the place of all that share one.
    let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&opened.file));
    let mut file = File::open(path).map_err(Error::io("open", &opened.path))?;
    let mut at = range.from;
    while let Some(data) = next_data(&file, at, range.to).map_err(Error::io("read", &opened.path))? {
        // Whole blocks: a hole may begin and end anywhere.
        at = data - data % BLOCK_BYTES_U64;
        let end = data_end(&file, data, range.to).map_err(Error::io("read", &opened.path))?;
        file.seek(SeekFrom::Start(at)).map_err(Error::io("read", &opened.path))?;
        while at < end {
            shared.check()?;
            let want = (range.to - at).min(buffer.len() as u64) as usize;
            let piece = buffer.get_mut(..want).unwrap_or_default();
            file.read_exact(piece).map_err(|error| opened.short_read(error))?;
            for (index, block) in piece.chunks(BLOCK_BYTES).enumerate() {
                shared.sink.block(opened.no, at / BLOCK_BYTES_U64 + index as u64, block)?;
            }
            at += want as u64;
            shared.bytes.fetch_add(want as u64, Ordering::Relaxed);
            shared.tell();
        }
    }
    if opened.ranges_left.fetch_sub(1, Ordering::AcqRel) == 1 {
        opened.close(shared)?;
    }
    Ok(())
}

impl Opened {
    fn short_read(&self, error: io::Error) -> Error {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            return Error::Changed { path: self.path.clone(), what: "it became shorter".to_owned() };
        }
        Error::Io { doing: "read", path: self.path.clone(), source: error }
    }
}

/// The first byte at or after `at` that is not in a hole; `None` from there to `to`.
fn next_data(file: &File, at: u64, to: u64) -> io::Result<Option<u64>> {
    if at >= to {
        return Ok(None);
    }
    match seek(file, Seeking::Data(at)) {
        Ok(data) if data < to => Ok(Some(data)),
        Ok(_) | Err(Errno::NXIO) => Ok(None),
        // No such thing on this file system: everything is data.
        Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(Some(at)),
        Err(error) => Err(error.into()),
    }
}

/// Where the data that begins at `data` ends, at most `to`.
fn data_end(file: &File, data: u64, to: u64) -> io::Result<u64> {
    match seek(file, Seeking::Hole(data)) {
        Ok(hole) => Ok(hole.min(to)),
        Err(Errno::INVAL | Errno::OPNOTSUPP | Errno::NXIO) => Ok(to),
        Err(error) => Err(error.into()),
    }
}
