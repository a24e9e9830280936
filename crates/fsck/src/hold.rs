//! The session that a check holds, so that garbage collection keeps what the check is about to read.

use holdfast_format::ids::{Address, SessionId};
use holdfast_format::limits::SESSION_ROOTS_MAX;
use holdfast_format::names;
use holdfast_format::session::{Session, SessionKind};
use holdfast_io::{Lock, LockKind, ObjectName, Objects};

use crate::error::{Error, Result};
use crate::unlock::Keys;

/// Sessions with the roots of all backups; alive as long as this value.
pub(crate) struct Hold<'a> {
    objects: &'a dyn Objects,
    sessions: Vec<(ObjectName, Lock)>,
}

impl<'a> Hold<'a> {
    /// Begins sessions that name these maps. `epoch` is the number of the next record.
    pub(crate) fn begin(
        objects: &'a dyn Objects,
        keys: &Keys,
        epoch: u64,
        roots: &[Address],
    ) -> Result<Self> {
        let mut hold = Self { objects, sessions: Vec::new() };
        // A repository without backups has a session, too: a backup that is committed meanwhile is read as well.
        let parts = roots.chunks(SESSION_ROOTS_MAX as usize).chain(roots.is_empty().then_some(roots));
        for roots in parts {
            let id = SessionId(random()?);
            let name = ObjectName::new(names::session(id))?;
            let session =
                Session { repo: keys.repo, id, kind: SessionKind::Read, epoch, roots: roots.to_vec() };
            let lock = objects.put_locked(&name, &session.encode(), LockKind::Exclusive)?;
            hold.sessions.push((name, lock));
        }
        Ok(hold)
    }

    /// Whether a session's object is one of these.
    pub(crate) fn owns(&self, name: &ObjectName) -> bool {
        self.sessions.iter().any(|(own, _)| own == name)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        for (name, _) in &self.sessions {
            // What stays behind is unlocked, so dead, and the next prune removes it.
            let _ = self.objects.delete(name);
        }
    }
}

/// Random bytes from the system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|e| Error::NoRandom { why: e.to_string() })?;
    Ok(bytes)
}
