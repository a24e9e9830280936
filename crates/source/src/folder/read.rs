//! Reading the files: one thread keeps the disk busy, others look at what was read.
//!
//! ```text
//! tree -> [open | taken from the copy before?] -> pieces -> [engine reads] -> jobs -> [sink, on several threads]
//! ```
//!
//! The thread with the engine walks the list, opens files, finds their data between the holes and asks for it piece by
//! piece, several files at once where they are small. All bytes are in buffers of the engine's slab, so a sink that is
//! busy stops the reading. Page 0 of a tablespace is read when the file is opened: pieces may come in any order.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use crossbeam_channel::{Receiver, Sender, bounded};
use holdfast_io::engine::Direction;
use holdfast_io::{
    Buffer, Completion, Disk, Engine, EngineChoice, EngineOptions, File as BulkFile, Open, RealDisk, Request,
};
use rustix::fs::{SeekFrom as Seeking, seek};
use rustix::io::Errno;

use super::in_use::refuse_locked;
use super::walk::{Entry, Stamp, Tree};
use crate::error::Error;
use crate::page::{PAGE_BYTES_MIN, PageFormat};
use crate::sink::{BLOCK_BYTES, BLOCK_BYTES_U64, FileKind, FileNo, FileSpec, FileState, Sink};
use crate::source::{Progress, Stage, Watch};
use crate::threads;
use crate::verify::{VerifyingSink, kind_of};

/// Bytes of a piece: eight blocks, past which devices split requests anyway.
const PIECE_BYTES: u32 = 512 * 1024;

/// Pieces in memory, being read or looked at: 12 MiB.
const PIECES: u32 = 24;

/// Pieces being read: what keeps a fast disk busy.
const DEPTH: u32 = 16;

/// Shorter files are read through the page cache: a second descriptor would cost more than the copy it saves.
const DIRECT_BYTES_MIN: u64 = 1 << 20;

/// How long the disk may take for a piece, or the sink for a piece that it has.
const PATIENCE: Duration = Duration::from_secs(600);

/// How often a thread that waits looks whether it is still wanted.
const LOOK: Duration = Duration::from_millis(200);

/// A file on its way.
struct Opened {
    file: File,
    bulk: Arc<dyn BulkFile>,
    path: PathBuf,
    no: FileNo,
    stamp: Stamp,
    /// What vouches for the content until the next copy.
    state: Option<FileState>,
    /// Pieces not looked at yet, and one for the opener. Whoever is done last closes the file's account.
    left: AtomicU64,
}

/// A part of a file: read, or to be read.
struct Piece {
    opened: Arc<Opened>,
    from: u64,
    len: u32,
}

/// A piece that was read.
struct Job {
    piece: Piece,
    bytes: Buffer,
}

/// What the threads share.
struct Shared<'a> {
    sink: &'a VerifyingSink<'a>,
    watch: &'a dyn Watch,
    bytes: AtomicU64,
    files: AtomicU64,
    expected: u64,
    stop: AtomicBool,
    /// Read every file, whatever its state says.
    force: bool,
    /// Before the first file was looked at.
    begun: SystemTime,
    unread_files: AtomicU64,
    unread_bytes: AtomicU64,
}

/// What was read, and what was not because it is as the copy before has it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Done {
    pub(super) bytes: u64,
    pub(super) files: u64,
    pub(super) unread_bytes: u64,
    pub(super) unread_files: u64,
}

/// How a tree is copied.
#[derive(Debug, Clone, Copy)]
pub(super) struct How {
    /// Threads that hand blocks to the sink.
    pub(super) readers: usize,
    /// Files that the sink has from the copy before are read again.
    pub(super) force: bool,
    /// What reads.
    pub(super) io: EngineChoice,
}

/// Copies every entry of `tree`.
pub(super) fn copy_tree(
    tree: &Tree,
    sink: &VerifyingSink<'_>,
    watch: &dyn Watch,
    how: How,
) -> Result<Done, Error> {
    let shared = Shared {
        sink,
        watch,
        bytes: AtomicU64::new(0),
        files: AtomicU64::new(0),
        expected: tree.bytes,
        stop: AtomicBool::new(false),
        force: how.force,
        begun: tree.begun,
        unread_files: AtomicU64::new(0),
        unread_bytes: AtomicU64::new(0),
    };
    let options = EngineOptions {
        depth: DEPTH,
        buffers: PIECES,
        buffer_bytes: PIECE_BYTES,
        patience: PATIENCE,
        ..EngineOptions::default()
    };
    let mut engine = how.io.open(options).map_err(|e| engine_error(&tree.root, e))?;
    // Room for every buffer, so that handing one over never waits.
    let (jobs, todo) = bounded::<Job>(PIECES as usize);
    let mut failures = thread::scope(|scope| {
        let mut lookers = Vec::new();
        for _ in 0..how.readers {
            let (todo, shared) = (todo.clone(), &shared);
            match threads::begin(scope, "store blocks", move || look_at(&todo, shared)) {
                Ok(looker) => lookers.push(looker),
                Err(error) if lookers.is_empty() => return vec![error],
                // Those that are there do it all.
                Err(_) => break,
            }
        }
        drop(todo);
        let mut pump = Pump { engine: engine.as_mut(), shared: &shared, jobs, reading: Vec::new() };
        let mut failures = Vec::new();
        failures.extend(pump.run(tree).err());
        if !failures.is_empty() {
            shared.stop.store(true, Ordering::Relaxed);
        }
        // What is in flight belongs to the kernel until it is done, wanted or not; the engine waits for it when dropped.
        drop(pump);
        for looker in lookers {
            let result = looker.join().unwrap_or(Err(Error::Thread { doing: "read files" }));
            failures.extend(result.err());
        }
        failures
    });
    // `Cancelled` is what the others say when one of them met the real trouble.
    failures.sort_by_key(|error| matches!(error, Error::Cancelled));
    match failures.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(Done {
            bytes: shared.bytes.into_inner(),
            files: shared.files.into_inner(),
            unread_bytes: shared.unread_bytes.into_inner(),
            unread_files: shared.unread_files.into_inner(),
        }),
    }
}

/// The thread that owns the engine.
struct Pump<'a> {
    engine: &'a mut dyn Engine,
    shared: &'a Shared<'a>,
    jobs: Sender<Job>,
    /// Pieces being read; the place is the token.
    reading: Vec<Option<Piece>>,
}

impl Pump<'_> {
    fn run(&mut self, tree: &Tree) -> Result<(), Error> {
        for entry in &tree.entries {
            self.shared.check()?;
            if entry.is_dir {
                let (path, mode, mtime_us) = (entry.path.clone(), entry.mode, Some(entry.stamp.mtime_us()));
                let kind = FileKind::Directory;
                self.shared.sink.add_file(FileSpec { path, kind, expected_len: 0, mode, mtime_us })?;
                continue;
            }
            let opened = Arc::new(open(entry, &tree.root, self.shared)?);
            if !self.taken_from_before(&opened)? {
                self.file(&opened)?;
            }
            opened.done_with_one(self.shared)?;
        }
        while self.engine.in_flight() > 0 {
            self.shared.check()?;
            self.await_one()?;
        }
        Ok(())
    }

    fn taken_from_before(&self, opened: &Opened) -> Result<bool, Error> {
        let (shared, len) = (self.shared, opened.stamp.len);
        let state = opened.state.filter(|_| len > 0 && !shared.force);
        let Some(state) = state else { return Ok(false) };
        let taken = shared.sink.unchanged(opened.no, len, state)?;
        if taken {
            shared.unread_files.fetch_add(1, Ordering::Relaxed);
            shared.unread_bytes.fetch_add(len, Ordering::Relaxed);
        }
        Ok(taken)
    }

    /// Asks for all data of a file.
    fn file(&mut self, opened: &Arc<Opened>) -> Result<(), Error> {
        let len = opened.stamp.len;
        let mut at = 0;
        let failed = |error| Error::io("read", &opened.path)(error);
        while let Some(data) = next_data(&opened.file, at, len).map_err(failed)? {
            // Whole blocks: a hole may begin and end anywhere.
            at = (data - data % BLOCK_BYTES_U64).max(at);
            let end = data_end(&opened.file, data, len).map_err(failed)?;
            while at < end {
                let to = (end.next_multiple_of(BLOCK_BYTES_U64)).min(at + u64::from(PIECE_BYTES)).min(len);
                let len = u32::try_from(to - at).unwrap_or(PIECE_BYTES);
                self.ask(Piece { opened: Arc::clone(opened), from: at, len })?;
                at = to;
            }
        }
        Ok(())
    }

    fn ask(&mut self, piece: Piece) -> Result<(), Error> {
        let buffer = loop {
            self.shared.check()?;
            while let Some(completion) = self.engine.try_complete().map_err(|e| piece.opened.failed(e))? {
                self.completed(completion)?;
            }
            if self.engine.room() > 0
                && let Some(buffer) = self.engine.slab().try_take()
            {
                break buffer;
            }
            if self.engine.in_flight() > 0 {
                self.await_one()?;
                continue;
            }
            // Everything that was read is with the sink.
            match self.engine.slab().take(LOOK) {
                Ok(buffer) => break buffer,
                Err(holdfast_io::Error::Stalled { .. }) => {}
                Err(error) => return Err(piece.opened.failed(error)),
            }
        };
        piece.opened.left.fetch_add(1, Ordering::Relaxed);
        let request = Request {
            file: Arc::clone(&piece.opened.bulk),
            offset: piece.from,
            buffer,
            direction: Direction::Read { len: piece.len },
            token: self.token(),
        };
        let (token, opened) = (request.token, Arc::clone(&piece.opened));
        if let Some(place) = usize::try_from(token).ok().and_then(|t| self.reading.get_mut(t)) {
            *place = Some(piece);
        }
        self.engine.submit(request).map_err(|e| opened.failed(e))
    }

    /// A free place in `reading`.
    fn token(&mut self) -> u64 {
        let free = self.reading.iter().position(Option::is_none).unwrap_or_else(|| {
            self.reading.push(None);
            self.reading.len() - 1
        });
        free as u64
    }

    fn await_one(&mut self) -> Result<(), Error> {
        let waiting = self.reading.iter().flatten().next().map(|p| Arc::clone(&p.opened));
        match self.engine.complete() {
            Ok(Some(completion)) => self.completed(completion),
            Ok(None) => Ok(()),
            Err(error) => Err(match waiting {
                Some(opened) => opened.failed(error),
                None => engine_error(Path::new("the folder"), error),
            }),
        }
    }

    fn completed(&mut self, completion: Completion) -> Result<(), Error> {
        let Completion { token, buffer, result } = completion;
        let place = usize::try_from(token).ok().and_then(|t| self.reading.get_mut(t));
        let piece = place.and_then(Option::take).ok_or(Error::Thread { doing: "read files" })?;
        let got = result.map_err(|e| piece.opened.failed(e))?;
        if got < piece.len {
            let what = "it became shorter".to_owned();
            return Err(Error::Changed { path: piece.opened.path.clone(), what });
        }
        // Only once all of those who look are gone, one of them with an error that says more.
        self.jobs.send(Job { piece, bytes: buffer }).map_err(|_| Error::Cancelled)
    }
}

fn open(entry: &Entry, root: &Path, shared: &Shared<'_>) -> Result<Opened, Error> {
    let file = File::open(&entry.real).map_err(Error::io("open", &entry.real))?;
    refuse_locked(&file, &entry.real, root)?;
    let kind = kind_of(&entry.path);
    let no = shared.sink.add_file(FileSpec {
        path: entry.path.clone(),
        kind,
        expected_len: entry.stamp.len,
        mode: entry.mode,
        mtime_us: Some(entry.stamp.mtime_us()),
    })?;
    if kind == FileKind::Tablespace {
        let mut head = [0; PAGE_BYTES_MIN as usize];
        if file.read_exact_at(&mut head, 0).is_ok()
            && let Some(format) = PageFormat::from_first_page(&head)
        {
            shared.sink.declare(no, format);
        }
    }
    // The very file that was asked about, whatever has its name by now.
    let same = PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()));
    let bulk = if entry.stamp.len >= DIRECT_BYTES_MIN {
        RealDisk.open_bulk(&same, Open::Read)
    } else {
        RealDisk.open(&same, Open::Read)
    };
    let bulk = bulk.map_err(|e| engine_error(&entry.real, e))?;
    let (stamp, state) = (entry.stamp, entry.stamp.state(shared.begun));
    Ok(Opened { file, bulk, path: entry.real.clone(), no, stamp, state, left: AtomicU64::new(1) })
}

/// An error of the engine, told of the file and not of the descriptor that it knows it by.
fn engine_error(path: &Path, error: holdfast_io::Error) -> Error {
    let source = match error {
        holdfast_io::Error::Io { source, .. } => source,
        other => io::Error::other(other.to_string()),
    };
    Error::Io { doing: "read", path: path.to_path_buf(), source }
}

impl Opened {
    fn failed(&self, error: holdfast_io::Error) -> Error {
        engine_error(&self.path, error)
    }

    fn done_with_one(&self, shared: &Shared<'_>) -> Result<(), Error> {
        if self.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.close(shared) } else { Ok(()) }
    }

    /// After the last piece: nothing may have changed since the walk.
    fn close(&self, shared: &Shared<'_>) -> Result<(), Error> {
        let now = Stamp::of(&self.file.metadata().map_err(Error::io("look at", &self.path))?);
        let named = fs::metadata(&self.path).map_err(Error::io("look at", &self.path))?;
        for now in [now, Stamp::of(&named)] {
            if let Some(what) = self.stamp.difference(&now) {
                return Err(Error::Changed { path: self.path.clone(), what });
            }
        }
        if let Some(state) = self.state {
            shared.sink.state(self.no, state)?;
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
            bytes: self.bytes.load(Ordering::Relaxed) + self.unread_bytes.load(Ordering::Relaxed),
            bytes_expected: Some(self.expected),
            files: self.files.load(Ordering::Relaxed),
        });
    }
}

/// Hands what was read to the sink, block by block.
fn look_at(todo: &Receiver<Job>, shared: &Shared<'_>) -> Result<(), Error> {
    for Job { piece, bytes } in todo {
        let looked = (|| {
            shared.check()?;
            let first = piece.from / BLOCK_BYTES_U64;
            for (index, block) in bytes.filled().chunks(BLOCK_BYTES).enumerate() {
                shared.sink.block(piece.opened.no, first + index as u64, block)?;
            }
            drop(bytes);
            shared.bytes.fetch_add(u64::from(piece.len), Ordering::Relaxed);
            shared.tell();
            piece.opened.done_with_one(shared)
        })();
        if looked.is_err() {
            shared.stop.store(true, Ordering::Relaxed);
            return looked;
        }
    }
    Ok(())
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
