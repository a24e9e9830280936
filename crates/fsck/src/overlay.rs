//! A repository as it would be with one object replaced: what a repair writes is read back through this first.

use std::sync::Arc;
use std::time::Duration;

use holdfast_io::{Error, File, FreeSpace, Lock, LockKind, ObjectName, ObjectWriter, Objects, Put, Result};

/// Other bytes for one object; everything else is as it is, and nothing can be written.
#[derive(Debug)]
pub(crate) struct Overlay<'a> {
    pub below: &'a dyn Objects,
    pub name: &'a ObjectName,
    pub bytes: &'a [u8],
}

impl Overlay<'_> {
    fn refused(name: &ObjectName) -> Error {
        Error::Refused { op: "write", what: name.to_string(), why: "a plan is only looked at" }
    }
}

impl Objects for Overlay<'_> {
    fn create(&self, name: &ObjectName) -> Result<Box<dyn ObjectWriter>> {
        Err(Self::refused(name))
    }

    fn prepare(&self, _folders: &[&str]) -> Result<()> {
        Err(Self::refused(self.name))
    }

    fn put_if_absent(&self, name: &ObjectName, _bytes: &[u8]) -> Result<Put> {
        Err(Self::refused(name))
    }

    fn put_locked(&self, name: &ObjectName, _bytes: &[u8], _kind: LockKind) -> Result<Lock> {
        Err(Self::refused(name))
    }

    fn replace(&self, name: &ObjectName, _bytes: &[u8]) -> Result<()> {
        Err(Self::refused(name))
    }

    fn read_into(&self, name: &ObjectName, offset: u64, buf: &mut [u8]) -> Result<()> {
        if name != self.name {
            return self.below.read_into(name, offset, buf);
        }
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let range = self.bytes.get(start..).and_then(|rest| rest.get(..buf.len()));
        let Some(range) = range else {
            return Err(Error::ShortRead {
                what: name.to_string(),
                offset,
                expected: buf.len() as u64,
                got: (self.bytes.len() as u64).saturating_sub(offset),
            });
        };
        buf.copy_from_slice(range);
        Ok(())
    }

    fn renew(&self, name: &ObjectName) -> Result<()> {
        Err(Self::refused(name))
    }

    fn len(&self, name: &ObjectName) -> Result<u64> {
        if name == self.name { Ok(self.bytes.len() as u64) } else { self.below.len(name) }
    }

    fn list(&self, prefix: &str) -> Result<Vec<ObjectName>> {
        let mut names = self.below.list(prefix)?;
        if self.name.as_str().starts_with(prefix) && !names.contains(self.name) {
            names.push(self.name.clone());
            names.sort();
        }
        Ok(names)
    }

    fn delete(&self, name: &ObjectName) -> Result<()> {
        Err(Self::refused(name))
    }

    fn lock(&self, name: &ObjectName, _kind: LockKind, _wait: Duration) -> Result<Lock> {
        Err(Self::refused(name))
    }

    fn try_lock(&self, name: &ObjectName, kind: LockKind) -> Result<Option<Lock>> {
        self.below.try_lock(name, kind)
    }

    fn free_space(&self) -> Result<Option<FreeSpace>> {
        self.below.free_space()
    }

    fn file(&self, name: &ObjectName) -> Result<Option<Arc<dyn File>>> {
        if name == self.name { Ok(None) } else { self.below.file(name) }
    }
}
