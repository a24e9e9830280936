//! Records as bytes: kind, version, time, then the fields in the order of the types.

use super::{
    BackupRecord, BackupStats, Coordinates, HealedRecord, Healing, HoldRecord, LogGap, LogRecord,
    MendedRecord, OriginRecord, Position, Record, RepoCreated, ReportRecord, ScrubRecord, ServerKind,
    ServerLockRecord, ServerRecord, SourceKind, StreamKey,
};
use crate::codec::{Reader, Writer};
use crate::error::{Error, Result};
use crate::gtid::{Flavor, GtidSet, Uuid};
use crate::ids::{BackupId, RepoId, SegmentId, ServerId};
use crate::limits::{
    FACT_BYTES_MAX, GTID_BYTES_MAX, LIST_ITEMS_MAX, MAP_SEGMENTS_MAX, NAME_BYTES_MAX, RECORD_BODY_MAX,
    TEXT_BYTES_MAX,
};
use crate::map::{put_address, take_address};

const WHAT: &str = "manifest record";

/// The version of every kind of record that this code writes.
const VERSION: u16 = 1;

impl Record {
    /// The number of the kind on disk.
    #[must_use]
    pub fn kind(&self) -> u16 {
        match self {
            Self::RepoCreated(_) => 1,
            Self::ServerPut(_) => 2,
            Self::ServerRemoved { .. } => 3,
            Self::BackupCommitted(_) => 4,
            Self::BackupForgotten { .. } => 5,
            Self::CoordinatesLearned { .. } => 6,
            Self::LogSealed(_) => 7,
            Self::LogGap(_) => 8,
            Self::Report(_) => 9,
            Self::SegmentsCondemned { .. } => 10,
            Self::SegmentsSpared { .. } => 11,
            Self::SegmentsDeleted { .. } => 12,
            Self::SegmentsCarried { .. } => 13,
            Self::BackupLocked { .. } => 14,
            Self::KeysChanged { .. } => 15,
            Self::Healed(_) => 16,
            Self::Scrubbed(_) => 17,
            Self::Mended(_) => 18,
            Self::ServerLocked(_) => 19,
            Self::BackupHeld(_) => 20,
            Self::ServerOrigin(_) => 21,
            Self::Unknown { kind, .. } => *kind,
        }
    }

    /// The plaintext of a record and the time it was written.
    #[must_use]
    pub fn encode(&self, at_us: i64) -> Vec<u8> {
        let mut w = Writer::new();
        w.u16(self.kind());
        w.u16(if let Self::Unknown { version, .. } = self { *version } else { VERSION });
        w.i64(at_us);
        match self {
            Self::RepoCreated(v) => {
                w.raw(&v.repo.0);
                put_text(&mut w, &v.program);
            }
            Self::ServerPut(v) => put_server(&mut w, v),
            Self::ServerRemoved { server } => w.raw(&server.0),
            Self::BackupCommitted(v) => put_backup(&mut w, v),
            Self::BackupForgotten { backup, reason } => {
                w.raw(&backup.0);
                put_text(&mut w, reason);
            }
            Self::CoordinatesLearned { backup, position } => {
                w.raw(&backup.0);
                position.put(&mut w);
            }
            Self::LogSealed(v) => put_log(&mut w, v),
            Self::LogGap(v) => {
                v.stream.put(&mut w);
                v.after.put(&mut w);
                put_text(&mut w, &v.reason);
                w.i64(v.at_us);
            }
            Self::Report(v) => {
                w.raw(&v.backup.0);
                put_text(&mut w, &v.kind);
                w.i64(v.at_us);
                w.blob(&v.json);
            }
            Self::SegmentsCondemned { segments }
            | Self::SegmentsSpared { segments }
            | Self::SegmentsDeleted { segments } => put_segments(&mut w, segments),
            Self::SegmentsCarried { carrier, births } => {
                w.raw(&carrier.0);
                put_segments(&mut w, births);
            }
            Self::BackupLocked { backup, until_us } => {
                w.raw(&backup.0);
                w.i64(*until_us);
            }
            Self::KeysChanged { what } => put_text(&mut w, what),
            Self::Healed(v) => {
                put_text(&mut w, &v.by);
                w.count(v.segments.len());
                for healing in &v.segments {
                    w.raw(&healing.segment.0);
                    w.u32(healing.pages);
                }
            }
            Self::Scrubbed(v) => {
                w.i64(v.round_us);
                put_option(&mut w, v.after.as_ref(), |w, id| w.raw(&id.0));
                w.u64(v.segments);
                w.u64(v.bytes);
                put_segments(&mut w, &v.lost);
            }
            Self::Mended(v) => {
                put_text(&mut w, &v.by);
                w.count(v.what.len());
                v.what.iter().for_each(|what| put_text(&mut w, what));
            }
            Self::ServerLocked(v) => {
                w.raw(&v.server.0);
                put_option(&mut w, v.terms.as_ref(), |w, terms| put_text(w, terms));
                put_text(&mut w, &v.reason);
            }
            Self::BackupHeld(v) => {
                w.raw(&v.backup.0);
                w.u8(u8::from(v.held));
                put_text(&mut w, &v.reason);
            }
            Self::ServerOrigin(v) => put_origin(&mut w, v),
            Self::Unknown { body, .. } => w.raw(body),
        }
        w.into_bytes()
    }

    /// Reads a record's plaintext; gives the time it was written, too. A kind or version that is not known comes back
    /// as [`Record::Unknown`].
    pub fn decode(bytes: &[u8]) -> Result<(i64, Self)> {
        let mut r = Reader::new(WHAT, bytes);
        r.within("the length", bytes.len() as u64, u64::from(RECORD_BODY_MAX))?;
        let (kind, version, at_us) = (r.u16()?, r.u16()?, r.i64()?);
        if version != VERSION || !matches!(kind, 1..=21) {
            return Ok((at_us, Self::Unknown { kind, version, body: r.rest().to_vec() }));
        }
        let record = Self::take(kind, &mut r)?;
        r.end()?;
        Ok((at_us, record))
    }

    fn take(kind: u16, r: &mut Reader<'_>) -> Result<Self> {
        Ok(match kind {
            1 => {
                Self::RepoCreated(RepoCreated { repo: RepoId(r.array()?), program: text(r, "the program")? })
            }
            2 => Self::ServerPut(take_server(r)?),
            3 => Self::ServerRemoved { server: ServerId(r.array()?) },
            4 => Self::BackupCommitted(take_backup(r)?),
            5 => Self::BackupForgotten { backup: BackupId(r.array()?), reason: text(r, "the reason")? },
            6 => Self::CoordinatesLearned { backup: BackupId(r.array()?), position: Position::take(r)? },
            7 => Self::LogSealed(take_log(r)?),
            8 => Self::LogGap(LogGap {
                stream: StreamKey::take(r)?,
                after: Position::take(r)?,
                reason: text(r, "the reason")?,
                at_us: r.i64()?,
            }),
            9 => Self::Report(ReportRecord {
                backup: BackupId(r.array()?),
                kind: text(r, "the kind of report")?,
                at_us: r.i64()?,
                json: r.blob("the report", RECORD_BODY_MAX)?.to_vec(),
            }),
            10 => Self::SegmentsCondemned { segments: take_segments(r)? },
            11 => Self::SegmentsSpared { segments: take_segments(r)? },
            12 => Self::SegmentsDeleted { segments: take_segments(r)? },
            14 => Self::BackupLocked { backup: BackupId(r.array()?), until_us: r.i64()? },
            15 => Self::KeysChanged { what: text(r, "what changed")? },
            16 => Self::Healed(HealedRecord { by: text(r, "what noticed it")?, segments: take_healings(r)? }),
            17 => Self::Scrubbed(ScrubRecord {
                round_us: r.i64()?,
                after: option(r, |r| r.array().map(SegmentId))?,
                segments: r.u64()?,
                bytes: r.u64()?,
                lost: take_segments(r)?,
            }),
            18 => Self::Mended(MendedRecord { by: text(r, "what noticed it")?, what: take_deeds(r)? }),
            19 => Self::ServerLocked(ServerLockRecord {
                server: ServerId(r.array()?),
                terms: option(r, |r| text(r, "the terms"))?,
                reason: text(r, "the reason")?,
            }),
            20 => Self::BackupHeld(HoldRecord {
                backup: BackupId(r.array()?),
                held: match r.u8()? {
                    0 => false,
                    1 => true,
                    other => return Err(Error::bad(WHAT, "the hold", "0 or 1", other)),
                },
                reason: text(r, "the reason")?,
            }),
            21 => Self::ServerOrigin(take_origin(r)?),
            _ => Self::SegmentsCarried { carrier: SegmentId(r.array()?), births: take_segments(r)? },
        })
    }
}

fn put_origin(w: &mut Writer, v: &OriginRecord) {
    w.raw(&v.server.0);
    put_option(w, v.source_uuid.as_ref(), |w, uuid| w.raw(&uuid.0));
    put_text(w, &v.name);
    put_option(w, v.backup.as_ref(), |w, id| w.raw(&id.0));
    put_option(w, v.moment_us.as_ref(), |w, at| w.i64(*at));
    put_option(w, v.restored_us.as_ref(), |w, at| w.i64(*at));
}

fn take_origin(r: &mut Reader<'_>) -> Result<OriginRecord> {
    Ok(OriginRecord {
        server: ServerId(r.array()?),
        source_uuid: option(r, |r| r.array().map(Uuid))?,
        name: text(r, "the server's name")?,
        backup: option(r, |r| r.array().map(BackupId))?,
        moment_us: option(r, |r| r.i64())?,
        restored_us: option(r, |r| r.i64())?,
    })
}

fn put_segments(w: &mut Writer, segments: &[SegmentId]) {
    w.count(segments.len());
    for segment in segments {
        w.raw(&segment.0);
    }
}

fn take_segments(r: &mut Reader<'_>) -> Result<Vec<SegmentId>> {
    let count = r.count("the number of segments", MAP_SEGMENTS_MAX, 16)?;
    (0..count).map(|_| r.array().map(SegmentId)).collect()
}

fn take_healings(r: &mut Reader<'_>) -> Result<Vec<Healing>> {
    let count = r.count("the number of segments", MAP_SEGMENTS_MAX, 20)?;
    (0..count).map(|_| Ok(Healing { segment: SegmentId(r.array()?), pages: r.u32()? })).collect()
}

fn take_deeds(r: &mut Reader<'_>) -> Result<Vec<String>> {
    let count = r.count("the number of deeds", LIST_ITEMS_MAX, 4)?;
    (0..count).map(|_| text(r, "a deed")).collect()
}

fn put_text(w: &mut Writer, text: &str) {
    w.blob(text.as_bytes());
}

fn text(r: &mut Reader<'_>, field: &'static str) -> Result<String> {
    r.string(field, TEXT_BYTES_MAX)
}

fn put_option<T>(w: &mut Writer, value: Option<&T>, put: impl FnOnce(&mut Writer, &T)) {
    match value {
        None => w.u8(0),
        Some(value) => {
            w.u8(1);
            put(w, value);
        }
    }
}

fn option<T>(r: &mut Reader<'_>, take: impl FnOnce(&mut Reader<'_>) -> Result<T>) -> Result<Option<T>> {
    match r.u8()? {
        0 => Ok(None),
        1 => take(r).map(Some),
        other => Err(Error::bad(WHAT, "an option", "0 or 1", other)),
    }
}

fn put_gtid(w: &mut Writer, set: &GtidSet) {
    let mut bytes = Vec::new();
    set.encode(&mut bytes);
    w.blob(&bytes);
}

fn gtid(r: &mut Reader<'_>) -> Result<GtidSet> {
    let bytes = r.blob("a GTID set", GTID_BYTES_MAX)?;
    let (set, used) = GtidSet::decode(bytes).map_err(|source| Error::Gtid { what: WHAT, source })?;
    match bytes.len().saturating_sub(used) {
        0 => Ok(set),
        extra => Err(Error::Trailing { what: "GTID set", extra: extra as u64 }),
    }
}

fn put_server(w: &mut Writer, v: &ServerRecord) {
    w.raw(&v.id.0);
    put_text(w, &v.name);
    w.u8(match v.flavor {
        None => 0,
        Some(Flavor::MySql) => 1,
        Some(Flavor::MariaDb) => 2,
    });
    match &v.kind {
        ServerKind::Network { host, port, socket } => {
            w.u8(1);
            put_text(w, host);
            w.u16(*port);
            put_option(w, socket.as_ref(), |w, s| put_text(w, s));
        }
        ServerKind::Folder { path } => {
            w.u8(2);
            put_text(w, path);
        }
    }
    put_option(w, v.source_uuid.as_ref(), |w, u| w.raw(&u.0));
    put_text(w, &v.version);
    w.i64(v.added_us);
}

fn take_server(r: &mut Reader<'_>) -> Result<ServerRecord> {
    let id = ServerId(r.array()?);
    let name = r.string("the name of a server", NAME_BYTES_MAX)?;
    let flavor = match r.u8()? {
        0 => None,
        1 => Some(Flavor::MySql),
        2 => Some(Flavor::MariaDb),
        other => return Err(Error::bad(WHAT, "the family of a server", "0, 1 or 2", other)),
    };
    let kind = match r.u8()? {
        1 => ServerKind::Network {
            host: text(r, "a host")?,
            port: r.u16()?,
            socket: option(r, |r| text(r, "a socket"))?,
        },
        2 => ServerKind::Folder { path: text(r, "a folder")? },
        other => return Err(Error::bad(WHAT, "the kind of server", "1 or 2", other)),
    };
    let source_uuid = option(r, |r| r.array().map(Uuid))?;
    Ok(ServerRecord {
        id,
        name,
        flavor,
        kind,
        source_uuid,
        version: text(r, "a version")?,
        added_us: r.i64()?,
    })
}

fn put_backup(w: &mut Writer, v: &BackupRecord) {
    w.raw(&v.id.0);
    w.raw(&v.server.0);
    w.u8(match v.source {
        SourceKind::Clone => 1,
        SourceKind::Xbstream => 2,
        SourceKind::Folder => 3,
        SourceKind::Snapshot => 4,
    });
    w.i64(v.started_us);
    w.i64(v.finished_us);
    put_option(w, v.parent.as_ref(), |w, p| w.raw(&p.0));
    put_address(w, v.map);
    match &v.coordinates {
        Coordinates::None => w.u8(0),
        Coordinates::Exact(at) => {
            w.u8(1);
            at.put(w);
        }
        Coordinates::Between { lo, hi } => {
            w.u8(2);
            lo.put(w);
            hi.put(w);
        }
    }
    w.count(v.facts.len());
    for (key, value) in &v.facts {
        put_text(w, key);
        put_text(w, value);
    }
    put_text(w, &v.note);
    put_stats(w, &v.stats);
    w.count(v.warnings.len());
    for warning in &v.warnings {
        put_text(w, warning);
    }
}

fn take_backup(r: &mut Reader<'_>) -> Result<BackupRecord> {
    let id = BackupId(r.array()?);
    let server = ServerId(r.array()?);
    let source = match r.u8()? {
        1 => SourceKind::Clone,
        2 => SourceKind::Xbstream,
        3 => SourceKind::Folder,
        4 => SourceKind::Snapshot,
        other => return Err(Error::bad(WHAT, "the source of a backup", "1 to 4", other)),
    };
    let (started_us, finished_us) = (r.i64()?, r.i64()?);
    let parent = option(r, |r| r.array().map(BackupId))?;
    let map = take_address(r)?;
    let coordinates = match r.u8()? {
        0 => Coordinates::None,
        1 => Coordinates::Exact(Position::take(r)?),
        2 => Coordinates::Between { lo: Position::take(r)?, hi: Position::take(r)? },
        other => return Err(Error::bad(WHAT, "the coordinates", "0, 1 or 2", other)),
    };
    let count = r.count("the number of facts", LIST_ITEMS_MAX, 8)?;
    let mut facts: Vec<(String, String)> = Vec::new();
    for _ in 0..count {
        let fact = (r.string("a fact's key", NAME_BYTES_MAX)?, r.string("a fact", FACT_BYTES_MAX)?);
        if facts.last().is_some_and(|(key, _)| *key >= fact.0) {
            return Err(Error::bad(WHAT, "the facts", "sorted by key, each once", "another order"));
        }
        facts.push(fact);
    }
    let note = text(r, "the note")?;
    let stats = take_stats(r)?;
    let count = r.count("the number of warnings", LIST_ITEMS_MAX, 4)?;
    let warnings = (0..count).map(|_| text(r, "a warning")).collect::<Result<_>>()?;
    Ok(BackupRecord {
        id,
        server,
        source,
        started_us,
        finished_us,
        parent,
        map,
        coordinates,
        facts,
        note,
        stats,
        warnings,
    })
}

fn put_stats(w: &mut Writer, v: &BackupStats) {
    for n in [
        v.files,
        v.logical_bytes,
        v.blocks,
        v.new_blocks,
        v.delta_blocks,
        v.zero_blocks,
        v.hole_blocks,
        v.parent_blocks,
        v.known_blocks,
        v.superseded_blocks,
        v.stored_bytes,
        v.parity_bytes,
    ] {
        w.u64(n);
    }
}

fn take_stats(r: &mut Reader<'_>) -> Result<BackupStats> {
    Ok(BackupStats {
        files: r.u64()?,
        logical_bytes: r.u64()?,
        blocks: r.u64()?,
        new_blocks: r.u64()?,
        delta_blocks: r.u64()?,
        zero_blocks: r.u64()?,
        hole_blocks: r.u64()?,
        parent_blocks: r.u64()?,
        known_blocks: r.u64()?,
        superseded_blocks: r.u64()?,
        stored_bytes: r.u64()?,
        parity_bytes: r.u64()?,
    })
}

fn put_log(w: &mut Writer, v: &LogRecord) {
    v.stream.put(w);
    w.u64(v.number);
    w.raw(&v.segment.0);
    v.first.put(w);
    v.last.put(w);
    put_gtid(w, &v.gtid_before);
    put_gtid(w, &v.gtid_after);
    w.i64(v.first_us);
    w.i64(v.last_us);
    w.u64(v.transactions);
    w.u64(v.events);
    w.u64(v.bytes);
}

fn take_log(r: &mut Reader<'_>) -> Result<LogRecord> {
    Ok(LogRecord {
        stream: StreamKey::take(r)?,
        number: r.u64()?,
        segment: SegmentId(r.array()?),
        first: Position::take(r)?,
        last: Position::take(r)?,
        gtid_before: gtid(r)?,
        gtid_after: gtid(r)?,
        first_us: r.i64()?,
        last_us: r.i64()?,
        transactions: r.u64()?,
        events: r.u64()?,
        bytes: r.u64()?,
    })
}

impl Position {
    /// Appends file, offset, GTID set.
    pub(crate) fn put(&self, w: &mut Writer) {
        put_text(w, &self.file);
        w.u64(self.offset);
        put_gtid(w, &self.gtid);
    }

    /// Takes what [`Position::put`] wrote.
    pub(crate) fn take(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { file: text(r, "a binlog file")?, offset: r.u64()?, gtid: gtid(r)? })
    }
}

impl StreamKey {
    /// Appends server, identity, incarnation: 36 bytes.
    pub(crate) fn put(&self, w: &mut Writer) {
        w.raw(&self.server.0);
        w.raw(&self.source_uuid.0);
        w.u32(self.incarnation);
    }

    /// Takes what [`StreamKey::put`] wrote.
    pub(crate) fn take(r: &mut Reader<'_>) -> Result<Self> {
        Ok(Self { server: ServerId(r.array()?), source_uuid: Uuid(r.array()?), incarnation: r.u32()? })
    }

    /// The 36 bytes that identify the stream.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut w = Writer::new();
        self.put(&mut w);
        w.into_bytes()
    }
}
