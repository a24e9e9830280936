//! Which stream to write, and where it begins: at the end of what is archived, or at a backup behind a gap.

use holdfast_format::gtid::Uuid;
use holdfast_format::ids::ServerId;
use holdfast_format::record::{BackupRecord, Coordinates, Position, Record, StreamKey};

use crate::error::Result;
use crate::mark::Origin;
use crate::server_log::{CopyFacts, ServerLog};
use crate::storage::LogStore;
use crate::tail;

/// What to call `follow` with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The stream.
    pub stream: StreamKey,
    /// Where it may begin if nothing of it is archived yet, oldest first.
    pub origins: Vec<Origin>,
}

/// Chooses the stream of a server that shows the identity `source_uuid` now.
///
/// A stream has no holes. So behind a gap a new life (incarnation) begins, at the first backup that no life holds which is
/// archived already; `follow` asks the source whether its log is the one in which that backup stands. While there is no
/// such backup, the old stream is tried again, which ends in the same error if the gap is real. After an `Error::Gap` a
/// caller may plan again: a stream other than the one before means that a newer backup leads on.
pub fn plan(store: &dyn LogStore, server: ServerId, source_uuid: Uuid) -> Result<Start> {
    let mut bases: Vec<(BackupRecord, Position)> = Vec::new();
    for stamped in store.records()? {
        match &stamped.record {
            Record::BackupForgotten { backup, .. } => bases.retain(|(base, _)| base.id != *backup),
            Record::BackupCommitted(backup) if backup.server == server => {
                // The files of two servers have the same names, and different contents.
                let of_another = |uuid: &str| uuid.parse::<Uuid>().is_ok_and(|uuid| uuid != source_uuid);
                if backup.fact("server_uuid").is_some_and(of_another) {
                    continue;
                }
                let lo = match &backup.coordinates {
                    Coordinates::None => continue,
                    Coordinates::Exact(at) => at.clone(),
                    Coordinates::Between { lo, .. } => lo.clone(),
                };
                // The copy of a replica names no file of the source at which a stream could begin.
                if lo.file.is_empty() {
                    continue;
                }
                bases.push((backup.clone(), lo));
            }
            _ => {}
        }
    }
    bases.sort_by_key(|(base, _)| base.started_us);
    let origin =
        |(base, at): &(BackupRecord, Position)| Origin { at: at.clone(), mark: CopyFacts::of(base).mark };
    let newest =
        store.streams()?.into_iter().filter(|key| key.server == server).max_by_key(|key| key.incarnation);
    let Some(newest) = newest else {
        let stream = StreamKey { server, source_uuid, incarnation: 0 };
        return Ok(Start { stream, origins: bases.iter().map(origin).collect() });
    };
    let next = StreamKey { server, source_uuid, incarnation: newest.incarnation + 1 };
    if newest.source_uuid != source_uuid {
        // Another server under the same name: only backups taken from it lead into its log.
        return Ok(Start { stream: next, origins: bases.iter().map(origin).collect() });
    }
    if let Some(gap) = tail::find(store, &newest)?.gap {
        let log = ServerLog::open(store, server)?;
        let mut later = Vec::new();
        for base in &bases {
            let facts = CopyFacts::of(&base.0);
            let behind = match &facts.mark {
                Some(_) => log.place_of_copy(&base.1, &facts)?.is_none(),
                // A number that is higher proves nothing: after a reset the numbers come again.
                None => facts.taken_us > gap.at_us,
            };
            later.extend(behind.then(|| origin(base)));
        }
        if !later.is_empty() {
            return Ok(Start { stream: next, origins: later });
        }
    }
    Ok(Start { stream: newest, origins: Vec::new() })
}
