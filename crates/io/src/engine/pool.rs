//! Bulk I/O by a pool of threads: works on every host, and on simulated disks.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use super::{Completion, Engine, EngineOptions, Progress, Request, Slab};
use crate::error::{Error, Result};

/// Most threads: each blocks in one call, and a device with a deeper queue is better served by io_uring.
const THREADS_MAX: u32 = 16;

/// An engine of threads that read and write with the file's own calls.
#[derive(Debug)]
pub struct PoolEngine {
    slab: Arc<Slab>,
    depth: u32,
    patience: Duration,
    /// Submitted and not yet taken, those in `ready` included.
    in_flight: u32,
    ready: VecDeque<Completion>,
    /// Dropped first in `Drop`, which ends the threads.
    work: Option<Sender<Progress>>,
    done: Receiver<Completion>,
    threads: Vec<JoinHandle<()>>,
}

impl PoolEngine {
    /// Starts the threads.
    pub fn new(options: EngineOptions) -> Result<Self> {
        let options = options.clamped();
        let slab = Slab::new(options.buffers, options.buffer_bytes)?;
        let depth = options.depth;
        let (work, todo) = bounded::<Progress>(depth as usize);
        // No thread can block on this one: never more than `depth` requests are under way.
        let (finished, done) = bounded::<Completion>(depth as usize);
        let mut threads = Vec::new();
        for _ in 0..depth.min(THREADS_MAX) {
            let (todo, finished) = (todo.clone(), finished.clone());
            let thread = std::thread::Builder::new().name("holdfast-io".into()).spawn(move || {
                while let Ok(progress) = todo.recv() {
                    if finished.send(progress.run()).is_err() {
                        return;
                    }
                }
            });
            threads.push(thread.map_err(|source| Error::Io {
                op: "start",
                what: "a thread for reading and writing".into(),
                source,
            })?);
        }
        let patience = options.patience;
        Ok(Self {
            slab,
            depth,
            patience,
            in_flight: 0,
            ready: VecDeque::new(),
            work: Some(work),
            done,
            threads,
        })
    }

    fn under_way(&self) -> u32 {
        self.in_flight.saturating_sub(u32::try_from(self.ready.len()).unwrap_or(u32::MAX))
    }

    fn broken() -> Error {
        Error::Refused { op: "use", what: "the pool of I/O threads".into(), why: "a thread of it died" }
    }

    fn wait(&self) -> Result<Completion> {
        self.done.recv_timeout(self.patience).map_err(|e| match e {
            RecvTimeoutError::Timeout => Error::Stalled {
                what: format!("{} reads or writes", self.under_way()),
                waited: self.patience,
            },
            RecvTimeoutError::Disconnected => Self::broken(),
        })
    }
}

impl Engine for PoolEngine {
    fn name(&self) -> &'static str {
        "pool"
    }

    fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    fn in_flight(&self) -> u32 {
        self.in_flight
    }

    fn room(&self) -> u32 {
        self.depth.saturating_sub(self.in_flight)
    }

    fn submit(&mut self, request: Request) -> Result<()> {
        match Progress::start(request) {
            Err(refused) => self.ready.push_back(refused),
            Ok(progress) => {
                if self.under_way() >= self.depth {
                    let completion = self.wait()?;
                    self.ready.push_back(completion);
                }
                let work = self.work.as_ref().ok_or_else(Self::broken)?;
                work.send(progress).map_err(|_| Self::broken())?;
            }
        }
        self.in_flight = self.in_flight.saturating_add(1);
        Ok(())
    }

    fn complete(&mut self) -> Result<Option<Completion>> {
        if self.in_flight == 0 {
            return Ok(None);
        }
        let completion = match self.ready.pop_front() {
            Some(ready) => ready,
            None => self.wait()?,
        };
        self.in_flight = self.in_flight.saturating_sub(1);
        Ok(Some(completion))
    }

    fn complete_within(&mut self, limit: Duration) -> Result<Option<Completion>> {
        let found = match self.ready.pop_front() {
            Some(ready) => Some(ready),
            None if self.in_flight == 0 => None,
            None => match self.done.recv_timeout(limit) {
                Ok(completion) => Some(completion),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return Err(Self::broken()),
            },
        };
        if found.is_some() {
            self.in_flight = self.in_flight.saturating_sub(1);
        }
        Ok(found)
    }
}

impl Drop for PoolEngine {
    fn drop(&mut self) {
        self.work = None;
        for thread in self.threads.drain(..) {
            // A thread that died has nothing more to say. Each ends after the call it is in.
            let _ = thread.join();
        }
    }
}
