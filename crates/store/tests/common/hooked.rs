//! Objects that call somebody before a chosen operation: for every place where another process could come between.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use holdfast_io::{File, FreeSpace, Lock, LockKind, ObjectName, ObjectWriter, Objects, Put, Result};

type Guest = dyn Fn() -> bool + Send + Sync;

/// Objects with a guest: before operation `at` (from 0), and if the guest can't come then, before a later one.
pub struct Hooked {
    inner: Arc<dyn Objects>,
    state: Arc<State>,
}

struct State {
    seen: AtomicU64,
    at: u64,
    came: AtomicBool,
    busy: AtomicBool,
    guest: Box<Guest>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Hooked")
    }
}

impl Hooked {
    /// `guest` says whether it could do its work; if not it is asked again at the next operation.
    pub fn new(
        inner: Arc<dyn Objects>,
        at: u64,
        guest: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Arc<Self> {
        let (seen, came, busy) = (AtomicU64::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let state = State { seen, at, came, busy, guest: Box::new(guest) };
        Arc::new(Self { inner, state: Arc::new(state) })
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.seen.load(Ordering::SeqCst)
    }

    /// Whether the guest did its work.
    pub fn came(&self) -> bool {
        self.state.came.load(Ordering::SeqCst)
    }
}

impl State {
    fn op(&self) {
        let n = self.seen.fetch_add(1, Ordering::SeqCst);
        if n < self.at || self.came.load(Ordering::SeqCst) || self.busy.swap(true, Ordering::SeqCst) {
            return;
        }
        if (self.guest)() {
            self.came.store(true, Ordering::SeqCst);
        }
        self.busy.store(false, Ordering::SeqCst);
    }
}

/// A writer whose operations count, too.
struct Writer(Box<dyn ObjectWriter>, Arc<State>);

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Writer")
    }
}

impl ObjectWriter for Writer {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.0.write(bytes)
    }
    fn written(&self) -> u64 {
        self.0.written()
    }
    fn sync(&mut self) -> Result<()> {
        self.1.op();
        self.0.sync()
    }
    fn finish(self: Box<Self>) -> Result<u64> {
        self.1.op();
        self.0.finish()
    }
}

impl Objects for Hooked {
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.state.op();
        Ok(Box::new(Writer(self.inner.create(name)?, Arc::clone(&self.state))))
    }
    fn prepare(&self, folders: &[&str]) -> Result<()> {
        self.inner.prepare(folders)
    }
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.state.op();
        self.inner.put_if_absent(name, bytes)
    }
    fn put_locked(&self, name: &ObjectName, bytes: &[u8], kind: LockKind) -> Result<Lock> {
        self.state.op();
        self.inner.put_locked(name, bytes, kind)
    }
    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.state.op();
        self.inner.replace(name, bytes)
    }
    fn read_into(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.state.op();
        self.inner.read_into(name, offset, buf)
    }
    fn renew(&self, name: &ObjectName) -> Result<()> {
        self.state.op();
        self.inner.renew(name)
    }
    fn len(&self, name: &ObjectName) -> Result<u64> {
        self.state.op();
        self.inner.len(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>> {
        self.state.op();
        self.inner.list(prefix)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.state.op();
        self.inner.delete(name)
    }
    fn lock(&self, name: &ObjectName, kind: LockKind, wait: Duration) -> Result<Lock> {
        self.state.op();
        self.inner.lock(name, kind, wait)
    }
    fn try_lock(&self, name: &ObjectName, kind: LockKind) -> Result<Option<Lock>> {
        self.state.op();
        self.inner.try_lock(name, kind)
    }
    fn free_space(&self) -> Result<Option<FreeSpace>> {
        self.inner.free_space()
    }
    fn file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        self.state.op();
        self.inner.file(name)
    }
}
