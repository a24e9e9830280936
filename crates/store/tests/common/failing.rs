//! Objects of which the disk does not give some bytes: each read of them ends with EIO, until they are written anew.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use holdfast_io::{Error, File, FreeSpace, Lock, LockKind, ObjectName, ObjectWriter, Objects, Put, Result};

#[derive(Debug)]
pub struct Failing {
    inner: Arc<dyn Objects>,
    bad: Mutex<HashMap<String, Range<u64>>>,
}

impl Failing {
    pub fn new(inner: Arc<dyn Objects>) -> Arc<Self> {
        Arc::new(Self { inner, bad: Mutex::default() })
    }

    /// Reads of these bytes of an object fail from here on.
    pub fn fail(&self, name: &str, bytes: Range<u64>) {
        self.bad.lock().unwrap().insert(name.to_owned(), bytes);
    }

    fn mend(&self, name: &ObjectName) {
        self.bad.lock().unwrap().remove(name.as_str());
    }
}

impl Objects for Failing {
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        self.inner.create(name)
    }
    fn prepare(&self, folders: &[&str]) -> Result<()> {
        self.inner.prepare(folders)
    }
    fn put_if_absent(&self, name: &ObjectName, bytes: &[u8]) -> Result<Put> {
        self.inner.put_if_absent(name, bytes)
    }
    fn put_locked(&self, name: &ObjectName, bytes: &[u8], kind: LockKind) -> Result<Lock> {
        self.inner.put_locked(name, bytes, kind)
    }
    fn replace(&self, name: &ObjectName, bytes: &[u8]) -> Result<()> {
        self.inner.replace(name, bytes)?;
        self.mend(name);
        Ok(())
    }
    fn read_into(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<()> {
        let bad = self.bad.lock().unwrap().get(name.as_str()).cloned();
        if bad.is_some_and(|bad| offset < bad.end && bad.start < offset + buf.len() as u64) {
            let source = std::io::Error::from_raw_os_error(5);
            return Err(Error::Io { op: "read", what: name.to_string(), source });
        }
        self.inner.read_into(name, offset, buf)
    }
    fn renew(&self, name: &ObjectName) -> Result<()> {
        self.inner.renew(name)
    }
    fn len(&self, name: &ObjectName) -> Result<u64> {
        self.inner.len(name)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>> {
        self.inner.list(prefix)
    }
    fn delete(&self, name: &ObjectName) -> Result<()> {
        self.inner.delete(name)?;
        self.mend(name);
        Ok(())
    }
    fn lock(&self, name: &ObjectName, kind: LockKind, wait: Duration) -> Result<Lock> {
        self.inner.lock(name, kind, wait)
    }
    fn try_lock(&self, name: &ObjectName, kind: LockKind) -> Result<Option<Lock>> {
        self.inner.try_lock(name, kind)
    }
    fn free_space(&self) -> Result<Option<FreeSpace>> {
        self.inner.free_space()
    }
    fn file(&self, _: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        Ok(None)
    }
}
