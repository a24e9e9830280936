//! Sessions: an object that is locked as long as its process works, and says what it needs.

use std::sync::Arc;

use holdfast_format::ids::{Address, SessionId};
use holdfast_format::names;
use holdfast_format::session::{Session, SessionKind};
use holdfast_io::{Lock, LockKind, ObjectName, Objects};

use crate::error::Result;
use crate::keys::Keys;
use crate::random;

/// A live session of this process; its object goes when it is dropped.
#[derive(Debug)]
pub(crate) struct LiveSession {
    objects: Arc<dyn Objects>,
    name: ObjectName,
    id: SessionId,
    _lock: Lock,
}

impl LiveSession {
    /// Begins a session. The caller reads the manifest's tail again afterwards: what was condemned before the session
    /// could be seen is known to it then.
    pub(crate) fn begin(
        objects: &Arc<dyn Objects>,
        keys: &Keys,
        kind: SessionKind,
        epoch: u64,
        roots: Vec<Address>,
    ) -> Result<Self> {
        let id = SessionId(random::bytes()?);
        let name = ObjectName::new(names::session(id))?;
        let bytes = Session { repo: keys.repo, id, kind, epoch, roots }.encode();
        let lock = objects.put_locked(&name, &bytes, LockKind::Exclusive)?;
        Ok(Self { objects: Arc::clone(objects), name, id, _lock: lock })
    }

    pub(crate) fn id(&self) -> SessionId {
        self.id
    }
}

impl Drop for LiveSession {
    fn drop(&mut self) {
        // A session that stays behind unlocked is dead, and the next prune removes it.
        let _ = self.objects.delete(&self.name);
    }
}
