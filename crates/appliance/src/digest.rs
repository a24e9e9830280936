//! What the records of a repository say, learned once a record: so that a question that is asked every second costs no
//! walk through ten thousand of them.
//!
//! Owns nothing that the records do not say. Whoever needs a whole record of a backup reads it from the repository.

use crate::import::is_imported;
use crate::list::proof_of_the_whole;
use crate::measured::{self, Measured};
use crate::time::Micros;
use holdfast_format::ids::{BackupId, ServerId};
use holdfast_format::record::{HELD_FACT, OriginRecord, Position, Record, ServerRecord, Stamped};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// A backup that was not forgotten, as far as schedules and sums ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Its id.
    pub id: BackupId,
    /// When it was begun.
    pub started: Micros,
    /// When it was acknowledged.
    pub finished: Micros,
    /// It is a dump that was imported.
    pub imported: bool,
    /// Bytes that it added.
    pub stored_bytes: u64,
    /// Bytes of the files it holds.
    pub data_bytes: u64,
}

/// What is known of one server.
#[derive(Clone, Debug, Default)]
pub struct OfServer {
    /// Its backups, oldest record first.
    pub bases: Vec<Base>,
    /// When its first backup ever was acknowledged, also one that was forgotten since.
    pub first: Option<Micros>,
    /// Commit time of the first transaction of each sealed segment of its log, and the bytes of its events.
    pub sealed: Vec<(Micros, u64)>,
    /// When holes of its log were noticed.
    pub gaps: Vec<Micros>,
    /// Rises with each record that concerns it.
    pub changes: u64,
}

/// What the records say.
#[derive(Debug, Default)]
pub struct Digest {
    seen: usize,
    servers: Vec<ServerRecord>,
    /// The last name of every server that there ever was: backups of one that was removed stay.
    names: HashMap<ServerId, String>,
    of_server: HashMap<ServerId, OfServer>,
    owners: HashMap<BackupId, ServerId>,
    learned: HashMap<BackupId, Position>,
    proofs: HashMap<BackupId, &'static str>,
    locks: HashMap<BackupId, Micros>,
    held: HashSet<BackupId>,
    origins: HashMap<ServerId, OriginRecord>,
    /// Servers whose newest lock has terms.
    locked: HashSet<ServerId>,
    /// By the server that had the report's name when it was kept: a later one of the same name has not done this. Oldest first.
    measured: HashMap<ServerId, Vec<Measured>>,
    /// Records that concern the repository as a whole.
    changes: u64,
    /// When a scrub came round last, or found damage past healing, and whether all was whole.
    scrubbed: Option<(Micros, bool)>,
}

impl Digest {
    /// How many records it knows.
    pub(crate) fn seen(&self) -> usize {
        self.seen
    }

    /// Takes in the records behind those that it knows.
    pub(crate) fn take(&mut self, news: &[Arc<Stamped>]) {
        for stamped in news {
            // The end of a round: everything was read.
            if let Record::Scrubbed(scrub) = &stamped.record
                && (scrub.after.is_none() || !scrub.lost.is_empty())
            {
                self.scrubbed = Some((stamped.at_us, scrub.lost.is_empty()));
            }
            self.learn(&stamped.record);
        }
        self.seen = self.seen.saturating_add(news.len());
    }

    fn learn(&mut self, record: &Record) {
        match record {
            Record::ServerPut(server) => {
                self.names.insert(server.id, server.name.clone());
                match self.servers.iter_mut().find(|s| s.id == server.id) {
                    Some(known) => *known = server.clone(),
                    None => self.servers.push(server.clone()),
                }
                self.touch(server.id);
            }
            Record::ServerRemoved { server } => {
                self.servers.retain(|s| s.id != *server);
                self.touch(*server);
            }
            Record::BackupCommitted(backup) => {
                self.owners.insert(backup.id, backup.server);
                if backup.fact(HELD_FACT).is_some() {
                    self.held.insert(backup.id);
                }
                let of = self.touch(backup.server);
                of.first = of.first.or(Some(backup.finished_us));
                of.bases.push(Base {
                    id: backup.id,
                    started: backup.started_us,
                    finished: backup.finished_us,
                    imported: is_imported(backup),
                    stored_bytes: backup.stats.stored_bytes,
                    data_bytes: backup.stats.logical_bytes,
                });
            }
            Record::BackupForgotten { backup, .. } => {
                if let Some(server) = self.owners.remove(backup) {
                    self.touch(server).bases.retain(|base| base.id != *backup);
                }
            }
            Record::CoordinatesLearned { backup, position } => {
                self.learned.insert(*backup, position.clone());
                self.touch_owner(*backup);
            }
            Record::LogSealed(log) => {
                self.touch(log.stream.server).sealed.push((log.first_us, log.bytes));
            }
            Record::LogGap(gap) => self.touch(gap.stream.server).gaps.push(gap.at_us),
            Record::Report(report) => {
                if let Ok(json) = serde_json::from_slice::<serde_json::Value>(&report.json) {
                    if let Some(proof) = proof_of_the_whole(&json) {
                        self.proofs.insert(report.backup, proof);
                    }
                    let name = json.get("server").and_then(serde_json::Value::as_str);
                    if let (Some(name), Some(read)) =
                        (name, measured::read(&json, report.at_us, &report.kind))
                    {
                        let named = self.servers.iter().find(|s| s.name == name).map(|s| s.id);
                        if let Some(id) = named {
                            self.measured.entry(id).or_default().push(read);
                            self.touch(id);
                        }
                    }
                }
                self.touch_owner(report.backup);
            }
            Record::BackupLocked { backup, until_us } => {
                let until = self.locks.entry(*backup).or_insert(*until_us);
                *until = (*until).max(*until_us);
                self.touch_owner(*backup);
            }
            Record::ServerOrigin(origin) => {
                self.origins.insert(origin.server, origin.clone());
                self.touch(origin.server);
            }
            Record::BackupHeld(hold) => {
                if hold.held {
                    self.held.insert(hold.backup);
                } else {
                    self.held.remove(&hold.backup);
                }
                self.touch_owner(hold.backup);
            }
            Record::ServerLocked(lock) => {
                if lock.terms.is_some() {
                    self.locked.insert(lock.server);
                } else {
                    self.locked.remove(&lock.server);
                }
                self.touch(lock.server);
            }
            // What takes log away, and whatever a later version says, may concern everybody.
            _ => self.changes += 1,
        }
    }

    fn touch(&mut self, server: ServerId) -> &mut OfServer {
        let of = self.of_server.entry(server).or_default();
        of.changes += 1;
        of
    }

    fn touch_owner(&mut self, backup: BackupId) {
        if let Some(server) = self.owners.get(&backup).copied() {
            self.touch(server);
        }
    }

    /// When the last round of scrubs ended, or found damage past healing, and whether everything was whole.
    #[must_use]
    pub fn scrubbed(&self) -> Option<(Micros, bool)> {
        self.scrubbed
    }

    /// The protected servers, in the order they were added.
    #[must_use]
    pub fn servers(&self) -> &[ServerRecord] {
        &self.servers
    }

    /// The last name of a server, also of one that was removed.
    #[must_use]
    pub fn name_of(&self, server: ServerId) -> Option<&str> {
        self.names.get(&server).map(String::as_str)
    }

    /// What is known of a server; `None`: nothing but its name, at most.
    #[must_use]
    pub fn of(&self, server: ServerId) -> Option<&OfServer> {
        self.of_server.get(&server)
    }

    /// A number that is another one after any record that may concern this server.
    #[must_use]
    pub fn changes(&self, server: ServerId) -> u64 {
        self.changes.saturating_add(self.of(server).map_or(0, |of| of.changes))
    }

    /// Every backup that was not forgotten.
    pub fn bases(&self) -> impl Iterator<Item = &Base> {
        self.of_server.values().flat_map(|of| &of.bases)
    }

    /// The exact position of a backup, if a restore has learned it.
    #[must_use]
    pub fn learned(&self, backup: BackupId) -> Option<&Position> {
        self.learned.get(&backup)
    }

    /// `proved` or `failed`: what the newest restore of the whole backup said of it.
    #[must_use]
    pub fn proof(&self, backup: BackupId) -> Option<&'static str> {
        self.proofs.get(&backup).copied()
    }

    /// Until when a backup is locked.
    #[must_use]
    pub fn locked_until(&self, backup: BackupId) -> Option<Micros> {
        self.locks.get(&backup).copied()
    }

    /// Where a server came from that was restored.
    #[must_use]
    pub fn origin(&self, server: ServerId) -> Option<&OriginRecord> {
        self.origins.get(&server)
    }

    /// Whether a backup is held.
    #[must_use]
    pub fn is_held(&self, backup: BackupId) -> bool {
        self.held.contains(&backup)
    }

    /// Whether a server is locked.
    #[must_use]
    pub fn is_locked(&self, server: ServerId) -> bool {
        self.locked.contains(&server)
    }

    /// The reports of a server's restores and drills, oldest first.
    #[must_use]
    pub fn measured(&self, server: ServerId) -> &[Measured] {
        self.measured.get(&server).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
    use holdfast_format::ids::{Address, SegmentId};
    use holdfast_format::record::{
        BackupRecord, BackupStats, Coordinates, LogGap, ReportRecord, ServerKind, SourceKind, StreamKey,
    };
    use proptest::prelude::*;

    fn server(id: u8) -> ServerRecord {
        ServerRecord {
            id: ServerId([id; 16]),
            name: format!("server-{id}"),
            kind: ServerKind::Folder { path: "/data".to_owned() },
            flavor: None,
            version: String::new(),
            source_uuid: None,
            added_us: i64::from(id),
        }
    }

    fn backup(id: u8) -> BackupRecord {
        BackupRecord {
            id: BackupId([id; 16]),
            server: ServerId([id % 3; 16]),
            source: SourceKind::Folder,
            started_us: i64::from(id) * 10,
            finished_us: i64::from(id) * 10 + 5,
            parent: None,
            map: Address { segment: SegmentId([7; 16]), slot: 0 },
            coordinates: Coordinates::None,
            facts: if id.is_multiple_of(5) {
                vec![(holdfast_format::record::IMPORTED_FACT.to_owned(), "a dump".to_owned())]
            } else {
                Vec::new()
            },
            note: String::new(),
            stats: BackupStats { stored_bytes: u64::from(id), ..BackupStats::default() },
            warnings: Vec::new(),
        }
    }

    fn position(offset: u8) -> Position {
        let offset = u64::from(offset);
        Position { file: "binlog.000001".to_owned(), offset, gtid: GtidSet::empty(Flavor::MySql) }
    }

    fn record(kind: u8, id: u8, value: u8) -> Record {
        let of = BackupId([id; 16]);
        match kind {
            0 => Record::ServerPut(server(id % 3)),
            1 => Record::ServerRemoved { server: ServerId([id % 3; 16]) },
            2 => Record::BackupForgotten { backup: of, reason: String::new() },
            3 => Record::CoordinatesLearned { backup: of, position: position(value) },
            4 => Record::BackupLocked { backup: of, until_us: i64::from(value) },
            5 => Record::LogGap(LogGap {
                stream: StreamKey {
                    server: ServerId([id % 3; 16]),
                    source_uuid: Uuid([1; 16]),
                    incarnation: 0,
                },
                after: position(value),
                at_us: i64::from(value),
                reason: "lost".to_owned(),
            }),
            6 => {
                let part = if value.is_multiple_of(3) { r#"{"part":{"wanted":"t"}}"# } else { "{}" };
                let json =
                    format!(r#"{{"server":"server-1","proved":{},"plan":{part}}}"#, value.is_multiple_of(2));
                let (kind, at_us) = ("restore".to_owned(), i64::from(value));
                Record::Report(ReportRecord { backup: of, kind, at_us, json: json.into_bytes() })
            }
            _ => Record::BackupCommitted(backup(id)),
        }
    }

    /// What walking all the records says of a backup: whether it is there, its position, its proof, its lock.
    type Facts = (bool, Option<Position>, Option<&'static str>, Option<i64>);

    fn walked(records: &[Arc<Stamped>], id: BackupId) -> Facts {
        let mut facts: Facts = (false, None, None, None);
        for stamped in records {
            match &stamped.record {
                Record::BackupCommitted(b) if b.id == id => facts.0 = true,
                Record::BackupForgotten { backup, .. } if *backup == id => facts.0 = false,
                Record::CoordinatesLearned { backup, position } if *backup == id => {
                    facts.1 = Some(position.clone())
                }
                Record::Report(report) if report.backup == id => {
                    let json = serde_json::from_slice(&report.json).unwrap();
                    facts.2 = proof_of_the_whole(&json).or(facts.2);
                }
                Record::BackupLocked { backup, until_us } if *backup == id => {
                    facts.3 = facts.3.max(Some(*until_us));
                }
                _ => {}
            }
        }
        facts
    }

    #[test]
    fn a_report_counts_for_the_server_that_had_the_name_then() {
        let json = serde_json::json!({
            "server": "server-1", "proved": false, "plan": {"target": "t", "base": "b", "bytes": 7},
            "seconds": {"lay_out": 1.0, "replay": 1.0, "recover": 1.0, "restart": 1.0, "prove": 1.0, "total": 5.0},
        });
        let report = Record::Report(ReportRecord {
            backup: BackupId([1; 16]),
            kind: crate::drill::KIND.to_owned(),
            at_us: 7,
            json: json.to_string().into_bytes(),
        });
        let (old, new) = (server(1), ServerRecord { id: ServerId([9; 16]), ..server(1) });
        let mut digest = Digest::default();
        let removed = Record::ServerRemoved { server: old.id };
        let kept = Record::BackupCommitted(backup(1));
        let forgotten = Record::BackupForgotten { backup: BackupId([1; 16]), reason: String::new() };
        for record in
            [Record::ServerPut(old.clone()), kept, report, forgotten, removed, Record::ServerPut(new.clone())]
        {
            digest.learn(&record);
        }
        assert_eq!((digest.measured(old.id).len(), digest.measured(new.id).len()), (1, 0));
        // When it was protected first stays known when that backup is gone.
        let of = digest.of(old.id).unwrap();
        assert_eq!((of.first, of.bases.len()), (Some(15), 0));
    }

    proptest! {
        /// Learned piece by piece, it is what walking all the records says; and no record that concerns a server leaves its
        /// number as it was.
        #[test]
        fn what_was_learned_piece_by_piece_is_what_all_the_records_say(
            steps in proptest::collection::vec((0..9_u8, 0..12_u8, any::<u8>()), 1..60),
            cuts in proptest::collection::vec(1..5_usize, 1..30),
        ) {
            let mut there = std::collections::BTreeSet::new();
            let mut records = Vec::new();
            for (at, (kind, id, value)) in steps.into_iter().enumerate() {
                let record = record(kind, id, value);
                // An id is given once.
                if matches!(&record, Record::BackupCommitted(_)) && !there.insert(id) {
                    continue;
                }
                records.push(Arc::new(Stamped { number: at as u64, at_us: 0, record }));
            }
            let mut digest = Digest::default();
            let mut cuts = cuts.into_iter().cycle();
            while digest.seen() < records.len() {
                let end = (digest.seen() + cuts.next().unwrap()).min(records.len());
                let news = &records[digest.seen()..end];
                let before: Vec<u64> = (0..3).map(|id| digest.changes(ServerId([id; 16]))).collect();
                digest.take(news);
                for id in 0..3_u8 {
                    let told = news.iter().any(|s| match &s.record {
                        Record::ServerPut(server) => server.id == ServerId([id; 16]),
                        Record::BackupCommitted(backup) => backup.server == ServerId([id; 16]),
                        Record::LogGap(gap) => gap.stream.server == ServerId([id; 16]),
                        _ => false,
                    });
                    let changed = digest.changes(ServerId([id; 16])) != before[usize::from(id)];
                    prop_assert!(changed || !told);
                }
            }
            for id in 0..12_u8 {
                let backup = BackupId([id; 16]);
                let (is_there, learned, proof, lock) = walked(&records, backup);
                prop_assert_eq!(digest.bases().any(|base| base.id == backup), is_there);
                prop_assert_eq!(digest.learned(backup), learned.as_ref());
                prop_assert_eq!(digest.proof(backup), proof);
                prop_assert_eq!(digest.locked_until(backup), lock);
            }
            prop_assert!(digest.bases().all(|base| base.imported == base.id.0[0].is_multiple_of(5)));
        }
    }
}
