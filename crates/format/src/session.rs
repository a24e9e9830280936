//! Sessions: who is at work on a repository. See `format-spec/session.md`.

use crate::codec::{Reader, Writer, append_hash, split_hash};
use crate::error::{Error, Result};
use crate::ids::{Address, RepoId, SessionId};
use crate::limits::SESSION_ROOTS_MAX;
use crate::map::{put_address, take_address};

/// Version of a session's object.
pub const VERSION: u32 = crate::VERSION;

const MAGIC: &[u8; 8] = b"HFSESS\0\0";
const WHAT: &str = "session";

/// What a session does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionKind {
    /// A backup.
    Backup,
    /// A log being written.
    Log,
    /// A restore or another reader.
    Read,
    /// Garbage collection.
    Prune,
}

/// A session; alive as long as its object is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Session {
    /// The repository.
    pub repo: RepoId,
    /// Its id.
    pub id: SessionId,
    /// What it does.
    pub kind: SessionKind,
    /// Number of the newest record when it began.
    pub epoch: u64,
    /// Roots of maps that it needs.
    pub roots: Vec<Address>,
}

impl Session {
    /// The bytes of the object.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC);
        w.u32(VERSION);
        w.u32(match self.kind {
            SessionKind::Backup => 1,
            SessionKind::Log => 2,
            SessionKind::Read => 3,
            SessionKind::Prune => 4,
        });
        w.raw(&self.repo.0);
        w.raw(&self.id.0);
        w.u64(self.epoch);
        w.count(self.roots.len());
        for root in &self.roots {
            put_address(&mut w, *root);
        }
        let mut bytes = w.into_bytes();
        append_hash(&mut bytes);
        bytes
    }

    /// Reads and checks an object.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let mut r = Reader::new(WHAT, bytes);
        r.magic(MAGIC)?;
        r.version(VERSION)?;
        let (body, _) = split_hash(WHAT, bytes)?;
        let mut r = Reader::new(WHAT, body.get(12..).unwrap_or(&[]));
        let kind = match r.u32()? {
            1 => SessionKind::Backup,
            2 => SessionKind::Log,
            3 => SessionKind::Read,
            4 => SessionKind::Prune,
            other => return Err(Error::bad(WHAT, "the kind", "1 to 4", other)),
        };
        let repo = RepoId(r.array()?);
        let id = SessionId(r.array()?);
        let epoch = r.u64()?;
        let count = r.count("the number of roots", SESSION_ROOTS_MAX, 20)?;
        let roots = (0..count).map(|_| take_address(&mut r)).collect::<Result<_>>()?;
        r.end()?;
        Ok(Self { repo, id, kind, epoch, roots })
    }
}
