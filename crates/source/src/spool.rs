//! A queue between those who must keep reading and those who may be slow.
//!
//! A server that can't get rid of its bytes does harm: a clone's donor drops us after 60 s and meanwhile its redo
//! archive grows; mariadb-backup may be holding commits. So what does not fit into memory goes to an unlinked file.
//! How long a producer waits for room before it does so is its own choice, piece by piece: patience is how a copy is
//! throttled where that hurts nobody.

use std::collections::VecDeque;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::error::Error;

/// Bytes kept in memory: two hundred clone blocks of 256 KiB, or 64 of 1 MiB.
pub(crate) const MEMORY_BYTES: u64 = 64 << 20;

/// Bytes kept on disk, when the caller names no other limit.
pub(crate) const DISK_BYTES: u64 = 256 << 30;

/// First in, first out; pieces of bytes with a header `H` each. Any number of threads at both ends.
#[derive(Debug)]
pub(crate) struct Spool<H> {
    dir: PathBuf,
    limits: Limits,
    state: Mutex<State<H>>,
    room: Condvar,
    data: Condvar,
    idle: Condvar,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) memory_bytes: u64,
    pub(crate) disk_bytes: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory_bytes: MEMORY_BYTES, disk_bytes: DISK_BYTES }
    }
}

#[derive(Debug)]
struct State<H> {
    queue: VecDeque<(H, Place)>,
    memory: u64,
    file: Option<std::sync::Arc<File>>,
    disk_end: u64,
    disk_pieces: u64,
    /// Popped and not yet reported done.
    in_work: u64,
    closed: bool,
    abandoned: bool,
    spilled: u64,
}

#[derive(Debug)]
enum Place {
    Memory(Vec<u8>),
    Disk { offset: u64, len: usize },
}

/// What a consumer gets.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Popped<H> {
    Piece(H, Vec<u8>),
    /// Nothing came within the time.
    Nothing,
    /// Nothing will come any more.
    End,
}

impl<H> Spool<H> {
    pub(crate) fn new(dir: impl Into<PathBuf>, limits: Limits) -> Self {
        let state = State {
            queue: VecDeque::new(),
            memory: 0,
            file: None,
            disk_end: 0,
            disk_pieces: 0,
            in_work: 0,
            closed: false,
            abandoned: false,
            spilled: 0,
        };
        Self {
            dir: dir.into(),
            limits,
            state: Mutex::new(state),
            room: Condvar::new(),
            data: Condvar::new(),
            idle: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<H>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a piece; waits up to `patience` for room in memory, then puts it on disk.
    /// [`Error::Cancelled`] if the consumers gave up.
    pub(crate) fn push(&self, header: H, bytes: Vec<u8>, patience: Duration) -> Result<(), Error> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return Err(Error::Cancelled);
            }
            // Once something lies on disk, what follows stays behind it only by the queue's order, so memory is
            // free to be used again.
            if state.memory + bytes.len() as u64 <= self.limits.memory_bytes || state.memory == 0 {
                state.memory += bytes.len() as u64;
                state.queue.push_back((header, Place::Memory(bytes)));
                break;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state = self.spill(state, header, &bytes)?;
                break;
            }
            state = self.room.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.data.notify_one();
        Ok(())
    }

    /// Writes under the lock: consumers have memory to work on meanwhile, and pieces keep their order.
    fn spill<'a>(
        &'a self,
        mut state: MutexGuard<'a, State<H>>,
        header: H,
        bytes: &[u8],
    ) -> Result<MutexGuard<'a, State<H>>, Error> {
        let offset = state.disk_end;
        let end = offset + bytes.len() as u64;
        if end > self.limits.disk_bytes {
            return Err(Error::TooMany {
                what: "bytes waiting on disk because the repository is slower than the server",
                got: end,
                limit: self.limits.disk_bytes,
            });
        }
        let file = match &state.file {
            Some(file) => std::sync::Arc::clone(file),
            None => {
                let file =
                    tempfile::tempfile_in(&self.dir).map_err(Error::io("make a spool file in", &self.dir))?;
                std::sync::Arc::clone(state.file.insert(std::sync::Arc::new(file)))
            }
        };
        file.write_all_at(bytes, offset).map_err(Error::io("write a spool file in", &self.dir))?;
        state.disk_end = end;
        state.disk_pieces += 1;
        state.spilled += bytes.len() as u64;
        state.queue.push_back((header, Place::Disk { offset, len: bytes.len() }));
        Ok(state)
    }

    /// Takes the oldest piece; waits up to `patience` for one. Each piece is to be followed by [`Spool::done`].
    pub(crate) fn pop(&self, patience: Duration) -> Result<Popped<H>, Error> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        let (header, place) = loop {
            if state.abandoned {
                return Err(Error::Cancelled);
            }
            if let Some(next) = state.queue.pop_front() {
                break next;
            }
            if state.closed {
                return Ok(Popped::End);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Popped::Nothing);
            }
            state = self.data.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        };
        state.in_work += 1;
        match place {
            Place::Memory(bytes) => {
                state.memory -= bytes.len() as u64;
                drop(state);
                self.room.notify_all();
                Ok(Popped::Piece(header, bytes))
            }
            Place::Disk { offset, len } => {
                let file = state.file.clone();
                drop(state);
                let mut bytes = vec![0; len];
                if let Some(file) = file {
                    file.read_exact_at(&mut bytes, offset)
                        .map_err(Error::io("read a spool file in", &self.dir))?;
                }
                let mut state = self.lock();
                state.disk_pieces -= 1;
                if state.disk_pieces == 0 {
                    // All that was written is read: begin anew, so that the file does not grow for ever.
                    state.disk_end = 0;
                }
                Ok(Popped::Piece(header, bytes))
            }
        }
    }

    /// A popped piece is dealt with.
    pub(crate) fn done(&self) {
        let mut state = self.lock();
        state.in_work = state.in_work.saturating_sub(1);
        if state.in_work == 0 && state.queue.is_empty() {
            self.idle.notify_all();
        }
    }

    /// Waits up to `patience` until every piece is dealt with; true if so.
    pub(crate) fn wait_idle(&self, patience: Duration) -> Result<bool, Error> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        loop {
            if state.abandoned {
                return Err(Error::Cancelled);
            }
            if state.in_work == 0 && state.queue.is_empty() {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            state = self.idle.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// No more pieces will come.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.wake();
    }

    /// Everybody stops: all calls return [`Error::Cancelled`].
    pub(crate) fn abandon(&self) {
        self.lock().abandoned = true;
        self.wake();
    }

    /// Bytes that went by way of the disk.
    pub(crate) fn spilled(&self) -> u64 {
        self.lock().spilled
    }

    fn wake(&self) {
        self.room.notify_all();
        self.data.notify_all();
        self.idle.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOON: Duration = Duration::from_millis(20);
    const LONG: Duration = Duration::from_secs(20);

    fn spool(memory_bytes: u64, disk_bytes: u64) -> (tempfile::TempDir, Spool<u32>) {
        let dir = tempfile::tempdir().unwrap();
        let spool = Spool::new(dir.path(), Limits { memory_bytes, disk_bytes });
        (dir, spool)
    }

    #[test]
    fn pieces_come_out_in_order_whether_they_lay_in_memory_or_on_disk() {
        let (_dir, spool) = spool(1000, 1 << 20);
        for i in 0..100u32 {
            spool.push(i, vec![i as u8; 90], Duration::ZERO).unwrap();
        }
        assert!(spool.spilled() > 7000);
        for i in 0..100u32 {
            assert_eq!(spool.pop(SOON).unwrap(), Popped::Piece(i, vec![i as u8; 90]));
            spool.done();
        }
        assert_eq!(spool.pop(SOON).unwrap(), Popped::Nothing);
        spool.close();
        assert_eq!(spool.pop(SOON).unwrap(), Popped::End);
    }

    #[test]
    fn a_patient_producer_waits_for_room_and_leaves_the_disk_alone() {
        let (_dir, spool) = spool(1000, 1 << 20);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for i in 0..200u32 {
                    spool.push(i, vec![0; 400], LONG).unwrap();
                }
                spool.close();
            });
            let mut expected = 0;
            while let Popped::Piece(i, _) = spool.pop(LONG).unwrap() {
                assert_eq!(i, expected);
                expected += 1;
                spool.done();
            }
            assert_eq!(expected, 200);
        });
        assert_eq!(spool.spilled(), 0);
    }

    #[test]
    fn a_full_disk_limit_is_an_error_and_not_a_wait() {
        let (_dir, spool) = spool(100, 250);
        for i in 0..3 {
            spool.push(i, vec![0; 100], Duration::ZERO).unwrap();
        }
        assert!(matches!(spool.push(9, vec![0; 100], Duration::ZERO), Err(Error::TooMany { .. })));
    }

    #[test]
    fn idle_means_popped_and_dealt_with() {
        let (_dir, spool) = spool(100, 250);
        assert!(spool.wait_idle(SOON).unwrap());
        spool.push(1, vec![1], LONG).unwrap();
        assert!(!spool.wait_idle(SOON).unwrap());
        spool.pop(SOON).unwrap();
        assert!(!spool.wait_idle(SOON).unwrap());
        spool.done();
        assert!(spool.wait_idle(SOON).unwrap());
        spool.abandon();
        assert!(matches!(spool.pop(SOON), Err(Error::Cancelled)));
    }
}
