//! Which stream to write, and where it begins: at the end of what is archived, or at a backup behind a gap.

use std::cmp::Ordering;

use holdfast_format::gtid::Uuid;
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::{Coordinates, Position, Record, StreamKey};

use crate::error::Result;
use crate::intake::order;
use crate::storage::LogStore;
use crate::tail;

/// What to call `follow` with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// The stream.
    pub stream: StreamKey,
    /// Where it may begin if nothing of it is archived yet, oldest first.
    pub origins: Vec<Position>,
}

/// Chooses the stream of a server that shows the identity `source_uuid` now.
///
/// A stream has no holes. So behind a gap a new life (incarnation) begins, at the first backup that was taken after the
/// gap was noticed, or that lies behind the gap in the same log; while there is none, the old stream is tried again, which
/// ends in the same error if the gap is real. After an `Error::Gap` a caller may plan again: a stream other than the one
/// before means that a newer backup leads on.
pub fn plan(store: &dyn LogStore, server: ServerId, source_uuid: Uuid) -> Result<Start> {
    let records = store.records()?;
    let mut bases: Vec<(i64, BackupId, Position)> = Vec::new();
    for stamped in records {
        match stamped.record {
            Record::BackupForgotten { backup, .. } => bases.retain(|(_, id, _)| *id != backup),
            Record::BackupCommitted(backup) if backup.server == server => {
                // The files of two servers have the same names, and different contents.
                let of_another = |uuid: &str| uuid.parse::<Uuid>().is_ok_and(|uuid| uuid != source_uuid);
                if backup.fact("server_uuid").is_some_and(of_another) {
                    continue;
                }
                let lo = match backup.coordinates {
                    Coordinates::None => continue,
                    Coordinates::Exact(at) => at,
                    Coordinates::Between { lo, .. } => lo,
                };
                bases.push((backup.started_us, backup.id, lo));
            }
            _ => {}
        }
    }
    bases.sort_by_key(|(started, ..)| *started);
    let newest =
        store.streams()?.into_iter().filter(|key| key.server == server).max_by_key(|key| key.incarnation);
    let Some(newest) = newest else {
        let stream = StreamKey { server, source_uuid, incarnation: 0 };
        return Ok(Start { stream, origins: bases.into_iter().map(|(.., lo)| lo).collect() });
    };
    let next = StreamKey { server, source_uuid, incarnation: newest.incarnation + 1 };
    if newest.source_uuid != source_uuid {
        // Another server under the same name: only backups taken from it lead into its log.
        return Ok(Start { stream: next, origins: bases.into_iter().map(|(.., lo)| lo).collect() });
    }
    if let Some(gap) = tail::find(store, &newest)?.gap {
        let behind = |lo: &Position| order(lo, &gap.after).is_some_and(Ordering::is_gt);
        let later: Vec<_> = bases
            .into_iter()
            .filter(|(started, _, lo)| *started > gap.at_us || behind(lo))
            .map(|(.., lo)| lo)
            .collect();
        if !later.is_empty() {
            return Ok(Start { stream: next, origins: later });
        }
    }
    Ok(Start { stream: newest, origins: Vec::new() })
}
