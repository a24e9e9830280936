//! Every structure of the format reads back what it wrote, and takes no harm from bytes that are cut or changed.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

use holdfast_format::gtid::{Flavor, GtidSet, Uuid};
use holdfast_format::ids::*;
use holdfast_format::keyring::*;
use holdfast_format::log::LogOpening;
use holdfast_format::manifest::*;
use holdfast_format::map::*;
use holdfast_format::record::*;
use holdfast_format::segment::*;
use holdfast_format::session::*;
use proptest::prelude::*;

fn bytes<const N: usize>() -> impl Strategy<Value = [u8; N]> {
    proptest::collection::vec(any::<u8>(), N).prop_map(|v| v.try_into().unwrap())
}

fn address() -> impl Strategy<Value = Address> {
    (bytes::<16>(), 0..1_u32 << 18).prop_map(|(s, slot)| Address { segment: SegmentId(s), slot })
}

fn gtid() -> impl Strategy<Value = GtidSet> {
    prop_oneof![
        Just(GtidSet::empty(Flavor::MySql)),
        (1..1000_u64, 0..50_u64).prop_map(|(a, n)| {
            let text = format!("3e11fa47-71ca-11e1-9e33-c80aa9429562:{a}-{}", a + n);
            GtidSet::parse(Flavor::MySql, &text).unwrap()
        }),
        (0..9_u32, 1..9_u32, 1..1000_u64).prop_map(|(d, s, n)| GtidSet::parse(
            Flavor::MariaDb,
            &format!("{d}-{s}-{n}")
        )
        .unwrap()),
    ]
}

fn position() -> impl Strategy<Value = Position> {
    (".{0,20}", any::<u64>(), gtid()).prop_map(|(file, offset, gtid)| Position { file, offset, gtid })
}

fn stream() -> impl Strategy<Value = StreamKey> {
    (bytes(), bytes(), any::<u32>()).prop_map(|(s, u, incarnation)| StreamKey {
        server: ServerId(s),
        source_uuid: Uuid(u),
        incarnation,
    })
}

fn coordinates() -> impl Strategy<Value = Coordinates> {
    prop_oneof![
        Just(Coordinates::None),
        position().prop_map(Coordinates::Exact),
        (position(), position()).prop_map(|(lo, hi)| Coordinates::Between { lo, hi }),
    ]
}

fn server() -> impl Strategy<Value = Record> {
    let kind = prop_oneof![
        (".{0,9}", any::<u16>(), proptest::option::of(".{0,9}"))
            .prop_map(|(host, port, socket)| ServerKind::Network { host, port, socket }),
        ".{0,20}".prop_map(|path| ServerKind::Folder { path }),
    ];
    let flavor = prop_oneof![Just(None), Just(Some(Flavor::MySql)), Just(Some(Flavor::MariaDb))];
    (bytes(), ".{0,20}", flavor, kind, proptest::option::of(bytes()), ".{0,9}", any::<i64>()).prop_map(
        |(id, name, flavor, kind, uuid, version, added_us)| {
            let (id, source_uuid) = (ServerId(id), uuid.map(Uuid));
            Record::ServerPut(ServerRecord { id, name, flavor, kind, source_uuid, version, added_us })
        },
    )
}

fn stats() -> impl Strategy<Value = BackupStats> {
    (any::<[u64; 12]>()).prop_map(|n| BackupStats {
        files: n[0],
        logical_bytes: n[1],
        blocks: n[2],
        new_blocks: n[3],
        delta_blocks: n[4],
        zero_blocks: n[5],
        hole_blocks: n[6],
        parent_blocks: n[7],
        known_blocks: n[8],
        superseded_blocks: n[9],
        stored_bytes: n[10],
        parity_bytes: n[11],
    })
}

fn backup() -> impl Strategy<Value = Record> {
    let source = prop_oneof![
        Just(SourceKind::Clone),
        Just(SourceKind::Xbstream),
        Just(SourceKind::Folder),
        Just(SourceKind::Snapshot)
    ];
    let facts = proptest::collection::btree_map(".{0,9}", ".{0,30}", 0..4);
    let ids = (bytes(), bytes(), proptest::option::of(bytes()));
    let texts = (facts, ".{0,20}", proptest::collection::vec(".{0,9}", 0..3));
    (ids, source, any::<(i64, i64)>(), address(), coordinates(), texts, stats()).prop_map(
        |(
            (id, server, parent),
            source,
            (started_us, finished_us),
            map,
            coordinates,
            (facts, note, warnings),
            stats,
        )| {
            Record::BackupCommitted(BackupRecord {
                id: BackupId(id),
                server: ServerId(server),
                source,
                started_us,
                finished_us,
                parent: parent.map(BackupId),
                map,
                coordinates,
                facts: facts.into_iter().collect(),
                note,
                stats,
                warnings,
            })
        },
    )
}

fn log() -> impl Strategy<Value = Record> {
    (stream(), bytes(), position(), position(), gtid(), gtid(), any::<[u64; 4]>(), any::<(i64, i64)>())
        .prop_map(|(stream, segment, first, last, gtid_before, gtid_after, n, (first_us, last_us))| {
            Record::LogSealed(LogRecord {
                stream,
                number: n[0],
                segment: SegmentId(segment),
                first,
                last,
                gtid_before,
                gtid_after,
                first_us,
                last_us,
                transactions: n[1],
                events: n[2],
                bytes: n[3],
            })
        })
}

fn record() -> impl Strategy<Value = Record> {
    let segments = || proptest::collection::vec(bytes().prop_map(SegmentId), 0..5);
    let id = || bytes().prop_map(BackupId);
    prop_oneof![
        (bytes(), ".{0,9}")
            .prop_map(|(r, program)| Record::RepoCreated(RepoCreated { repo: RepoId(r), program })),
        server(),
        bytes().prop_map(|s| Record::ServerRemoved { server: ServerId(s) }),
        backup(),
        (id(), ".{0,9}").prop_map(|(backup, reason)| Record::BackupForgotten { backup, reason }),
        (id(), position()).prop_map(|(backup, position)| Record::CoordinatesLearned { backup, position }),
        log(),
        (stream(), position(), ".{0,9}", any::<i64>()).prop_map(|(stream, after, reason, at_us)| {
            Record::LogGap(LogGap { stream, after, reason, at_us })
        }),
        (id(), ".{0,9}", any::<i64>(), any::<Vec<u8>>()).prop_map(|(backup, kind, at_us, json)| {
            Record::Report(ReportRecord { backup, kind, at_us, json })
        }),
        segments().prop_map(|segments| Record::SegmentsCondemned { segments }),
        segments().prop_map(|segments| Record::SegmentsSpared { segments }),
        segments().prop_map(|segments| Record::SegmentsDeleted { segments }),
        (bytes(), segments())
            .prop_map(|(c, births)| Record::SegmentsCarried { carrier: SegmentId(c), births }),
        ("[a-z]{0,9}", prop::collection::vec((bytes(), any::<u32>()), 0..5)).prop_map(|(by, all)| {
            let segments =
                all.into_iter().map(|(id, pages)| Healing { segment: SegmentId(id), pages }).collect();
            Record::Healed(HealedRecord { by, segments })
        }),
        (any::<i64>(), prop::option::of(bytes()), any::<u64>(), any::<u64>(), segments()).prop_map(
            |(round_us, after, segments, bytes, lost)| {
                let after = after.map(SegmentId);
                Record::Scrubbed(ScrubRecord { round_us, after, segments, bytes, lost })
            }
        ),
        ("[a-z]{0,9}", prop::collection::vec(".{0,9}", 0..5))
            .prop_map(|(by, what)| Record::Mended(MendedRecord { by, what })),
        (bytes(), prop::option::of(".{0,9}"), ".{0,9}").prop_map(|(server, terms, reason)| {
            Record::ServerLocked(ServerLockRecord { server: ServerId(server), terms, reason })
        }),
        (id(), any::<bool>(), ".{0,9}")
            .prop_map(|(backup, held, reason)| { Record::BackupHeld(HoldRecord { backup, held, reason }) }),
        (id(), any::<bool>(), ".{0,9}")
            .prop_map(|(backup, held, reason)| { Record::BackupHeld(HoldRecord { backup, held, reason }) }),
        (
            bytes(),
            prop::option::of(bytes()),
            ".{0,9}",
            prop::option::of(id()),
            prop::option::of(any::<i64>()),
            prop::option::of(any::<i64>())
        )
            .prop_map(|(server, uuid, name, backup, moment_us, restored_us)| {
                let (server, source_uuid) = (ServerId(server), uuid.map(Uuid));
                Record::ServerOrigin(OriginRecord {
                    server,
                    source_uuid,
                    name,
                    backup,
                    moment_us,
                    restored_us,
                })
            }),
        (100..200_u16, any::<u16>(), any::<Vec<u8>>()).prop_map(|(kind, version, body)| Record::Unknown {
            kind,
            version,
            body
        }),
    ]
}

fn header() -> impl Strategy<Value = SegmentHeader> {
    let birth =
        (bytes(), any::<u32>(), bytes(), bytes()).prop_map(|(s, kek_generation, wrapped_key, commitment)| {
            Birth { segment: SegmentId(s), kek_generation, wrapped_key, commitment }
        });
    let kind = prop_oneof![Just(SegmentKind::Data), Just(SegmentKind::Meta), Just(SegmentKind::Log)];
    (bytes(), bytes(), kind, proptest::collection::vec(birth, 1..33)).prop_map(|(r, s, kind, births)| {
        let segment = births[0].segment;
        SegmentHeader { repo: RepoId(r), segment, kind, session: SessionId(s), births }
    })
}

fn codec() -> impl Strategy<Value = (Codec, u8)> {
    prop_oneof![Just((Codec::Raw, 0)), Just((Codec::Zstd, 0)), (1..5_u8).prop_map(|d| (Codec::Delta, d))]
}

fn kind() -> impl Strategy<Value = FrameKind> {
    prop_oneof![
        Just(FrameKind::Block),
        Just(FrameKind::MapRoot),
        Just(FrameKind::MapLeaf),
        Just(FrameKind::LogOpening),
        Just(FrameKind::LogEvents),
        Just(FrameKind::LogMeta)
    ]
}

fn frame() -> impl Strategy<Value = FrameHeader> {
    let sizes = (0..=4_194_304_u32, 16..=4_194_340_u32);
    (0..1_u32 << 18, kind(), codec(), 0..32_u8, sizes, any::<u32>(), 0..=268_435_456_u32).prop_map(
        |(slot, kind, (codec, depth), birth, (plain_len, stored_len), payload_crc, durable)| FrameHeader {
            slot,
            kind,
            codec,
            depth,
            birth,
            plain_len,
            stored_len,
            payload_crc,
            durable_end: if kind.is_log() { durable } else { 0 },
        },
    )
}

fn footer() -> impl Strategy<Value = Footer> {
    let entry =
        (bytes(), 0..1_u32 << 18, kind(), codec(), 0..32_u8, 0..=65_536_u32, 16..=65_000_u32, address());
    proptest::collection::vec(entry, 0..20).prop_map(|list| {
        let mut offset = 4096_u32;
        let entries =
            list.into_iter().map(|(id, slot, kind, (codec, depth), birth, plain_len, stored_len, base)| {
                let at = offset;
                offset += 32 + stored_len;
                FooterEntry {
                    id: BlockId(id),
                    offset: at,
                    plain_len,
                    stored_len,
                    slot,
                    base: (codec == Codec::Delta).then_some(base),
                    birth,
                    kind,
                    codec,
                    depth,
                }
            });
        Footer { entries: entries.collect() }
    })
}

fn leaf() -> impl Strategy<Value = MapLeaf> {
    let place = || (0..2_097_152_u32, 0..1_u32 << 17).prop_map(|(segment, slot)| Place { segment, slot });
    let run = prop_oneof![
        Just(RunKind::Hole),
        Just(RunKind::Zero),
        (place(), place(), 0..5_u8).prop_map(|(first, base, depth)| RunKind::Data {
            first,
            depth,
            base: (depth > 0).then_some(base)
        }),
    ];
    let runs = proptest::collection::vec((1..1_u32 << 17, run), 0..8);
    let file = prop_oneof![
        Just(FileKind::Regular),
        Just(FileKind::Directory),
        any::<Vec<u8>>().prop_map(|target| FileKind::Symlink { target })
    ];
    let state = any::<(u64, i64, i64)>().prop_map(|(inode, modified_ns, changed_ns)| SourceState {
        inode,
        modified_ns,
        changed_ns,
    });
    let state = proptest::option::of(state);
    let entry = ("[a-z]{1,9}(/[a-z.]{3,9}x)?", file, 0..1_u64 << 40, any::<u32>(), any::<i64>(), state)
        .prop_map(|(path, kind, len, mode, mtime_us, state)| {
            let regular = kind == FileKind::Regular;
            let (len, state) = if regular { (len, state) } else { (0, None) };
            FileEntry { path: path.into_bytes(), kind, len, mode, mtime_us, state }
        });
    let part = (0..4_194_304_u32, proptest::option::of(entry), 0..1_u32 << 20, runs).prop_map(
        |(file, entry, first_block, runs)| {
            let runs = runs.into_iter().map(|(count, kind)| Run { count, kind }).collect();
            MapPart { file, entry, first_block, runs }
        },
    );
    proptest::collection::vec(part, 0..6).prop_map(|parts| MapLeaf { parts })
}

fn keyring() -> impl Strategy<Value = Keyring> {
    let kind = prop_oneof![
        (bytes(), 1..1000_u32, 1..9_u32, 1..5_u32).prop_map(|(salt, memory_kib, passes, lanes)| {
            SlotKind::Passphrase { salt, memory_kib, passes, lanes }
        }),
        Just(SlotKind::KeyFile),
    ];
    let slot = (bytes(), kind, ".{0,9}", any::<i64>(), bytes(), bytes()).prop_map(
        |(id, kind, label, created_us, nonce, wrapped)| KeySlot {
            id: KeySlotId(id),
            kind,
            label,
            created_us,
            nonce,
            wrapped,
        },
    );
    let form = prop_oneof![Just((0, false)), Just((RESEALED, false)), Just((RESEALED, true))];
    (bytes(), any::<u64>(), proptest::collection::vec(slot, 0..5), bytes(), any::<Vec<u8>>(), form).prop_map(
        |(repo, generation, slots, nonce, sealed, (read_features, rekeying))| Keyring {
            read_features,
            write_features: 0,
            rekeying,
            repo: RepoId(repo),
            generation,
            slots,
            nonce,
            sealed,
        },
    )
}

/// Truncations and flips are errors or other values, never a panic; `checked` structures must notice every one.
fn harm<T: PartialEq + std::fmt::Debug, E>(
    bytes: &[u8],
    at: prop::sample::Index,
    bit: u8,
    whole: &T,
    checked: bool,
    decode: impl Fn(&[u8]) -> Result<T, E>,
) -> Result<(), TestCaseError> {
    if bytes.is_empty() {
        return Ok(());
    }
    let at = at.index(bytes.len());
    let cut = decode(&bytes[..at]);
    prop_assert!(cut.is_err() || !checked, "a cut at {} was not noticed", at);
    let mut flipped = bytes.to_vec();
    flipped[at] ^= 1 << (bit % 8);
    if let Ok(other) = decode(&flipped) {
        prop_assert!(!checked && other != *whole, "a flip at {} was not noticed", at);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn records(record in record(), at_us: i64, at: prop::sample::Index, bit: u8) {
        let bytes = record.encode(at_us);
        let read = Record::decode(&bytes).unwrap();
        prop_assert_eq!(&read, &(at_us, record));
        let longer = Record::decode(&[&bytes[..], &[0]].concat());
        let unknown = matches!(read.1, Record::Unknown { .. });
        prop_assert_eq!(longer.is_ok(), unknown, "a byte more");
        harm(&bytes, at, bit, &read, false, Record::decode)?;
    }

    #[test]
    fn envelopes_and_heads(
        repo in bytes(), number: u64, previous in bytes(), kek_generation: u32, nonce in bytes(),
        sealed in proptest::collection::vec(any::<u8>(), 16..99), key in bytes::<32>(), at: prop::sample::Index, bit: u8,
        first_hash in proptest::option::of(bytes())
    ) {
        let first_hash = first_hash.map(RecordHash);
        let prefix = Prefix {
            repo: RepoId(repo), number, previous: RecordHash(previous), kek_generation, nonce,
            sealed_len: sealed.len() as u32, first_hash,
        };
        let bytes = Envelope::encode(&prefix, &sealed);
        let read = Envelope::decode(&bytes).unwrap();
        let whole = RecordHash(*blake3::hash(&bytes[..bytes.len() - 32]).as_bytes());
        prop_assert_eq!(read.hash, first_hash.unwrap_or(whole));
        prop_assert_eq!((&read.prefix, &read.sealed), (&prefix, &sealed));
        harm(&bytes, at, bit, &read, true, Envelope::decode)?;
        let head = Head { repo: RepoId(repo), number, hash: read.hash };
        let bytes = head.encode(&key);
        prop_assert_eq!(bytes.len() as u64, HEAD_BYTES);
        prop_assert_eq!(Head::decode(&bytes, &key).unwrap(), head);
        harm(&bytes, at, bit, &head, true, |b| Head::decode(b, &key))?;
    }

    #[test]
    fn segment_headers(header in header(), at: prop::sample::Index, bit: u8) {
        let bytes = header.encode();
        prop_assert_eq!(bytes.len(), PAGE_BYTES);
        prop_assert_eq!(&SegmentHeader::decode(&bytes).unwrap(), &header);
        harm(&bytes, at, bit, &header, true, SegmentHeader::decode)?;
    }

    #[test]
    fn frame_headers(frame in frame(), at: prop::sample::Index, bit: u8) {
        let bytes = frame.encode();
        prop_assert_eq!(FrameHeader::decode(&bytes).unwrap(), frame);
        harm(&bytes, at, bit, &frame, true, FrameHeader::decode)?;
    }

    #[test]
    fn footers(footer in footer(), at: prop::sample::Index, bit: u8) {
        let bytes = footer.encode();
        prop_assert_eq!(&Footer::decode(&bytes).unwrap(), &footer);
        harm(&bytes, at, bit, &footer, false, Footer::decode)?;
    }

    #[test]
    fn trailers(
        repo in bytes(), segment in bytes(), detached: bool, frames_end in 4096..1_u64 << 26, gap in 0..1_u64 << 20,
        footer_len in 32..1_u64 << 16, frames in 0..1_u32 << 18, frames_root in bytes(), parity: bool,
        at: prop::sample::Index, bit: u8
    ) {
        let footer_offset = if detached { 0 } else { frames_end + gap };
        let parity = (parity && !detached).then(|| {
            let offset = align_up(footer_offset + footer_len);
            ParityPlace {
                offset, len: 77, shard_bytes: 8192, parity_shards: 3, data_shards: offset.div_ceil(8192) as u32,
            }
        });
        let trailer = Trailer {
            repo: RepoId(repo), segment: SegmentId(segment), detached, frames_end, footer_offset, footer_len, frames,
            frames_root, parity,
        };
        let bytes = trailer.encode();
        prop_assert_eq!(bytes.len(), PAGE_BYTES);
        prop_assert_eq!(Trailer::decode(&bytes).unwrap(), trailer);
        harm(&bytes, at, bit, &trailer, true, Trailer::decode)?;
    }

    #[test]
    fn maps(
        leaf in leaf(), addresses in proptest::collection::vec(address(), 0..9), n: [u64; 4], files in 0..4_194_304_u32,
        own: bool, references: u32, at: prop::sample::Index, bit: u8
    ) {
        let bytes = leaf.encode();
        prop_assert_eq!(&MapLeaf::decode(&bytes).unwrap(), &leaf);
        harm(&bytes, at, bit, &leaf, false, MapLeaf::decode)?;
        let root = MapRoot {
            files, logical_bytes: n[0], data_blocks: n[1], zero_blocks: n[2], hole_blocks: n[3], segments: 5,
            tables: addresses.clone(), leaves: addresses.clone(),
        };
        let bytes = root.encode();
        prop_assert_eq!(&MapRoot::decode(&bytes).unwrap(), &root);
        harm(&bytes, at, bit, &root, false, MapRoot::decode)?;
        let segments = addresses.iter().map(|a| MapSegment { segment: a.segment, references, own }).collect();
        let table = MapSegments { first: 3, segments };
        let bytes = table.encode();
        prop_assert_eq!(&MapSegments::decode(&bytes).unwrap(), &table);
        harm(&bytes, at, bit, &table, false, MapSegments::decode)?;
    }

    #[test]
    fn keyrings(keyring in keyring(), root in bytes(), keys in proptest::collection::btree_map(any::<u32>(), bytes(), 1..5), at: prop::sample::Index, bit: u8) {
        let bytes = keyring.encode();
        prop_assert_eq!(&Keyring::decode(&bytes).unwrap(), &keyring);
        harm(&bytes, at, bit, &keyring, true, Keyring::decode)?;
        let keks = keys.into_iter().map(|(generation, key)| Kek { generation, key }).collect();
        let secrets = Secrets { root, keks };
        let bytes = secrets.encode();
        prop_assert_eq!(&Secrets::decode(&bytes).unwrap(), &secrets);
        harm(&bytes, at, bit, &secrets, false, Secrets::decode)?;
    }

    #[test]
    fn sessions_and_log_openings(
        repo in bytes(), id in bytes(), epoch: u64, roots in proptest::collection::vec(address(), 0..5),
        stream in stream(), number: u64, start in position(), opened_us: i64, at: prop::sample::Index, bit: u8
    ) {
        let hashed = |body: &[u8]| [body, blake3::hash(body).as_bytes()].concat();
        for kind in [SessionKind::Backup, SessionKind::Log, SessionKind::Read, SessionKind::Prune] {
            let session = Session { repo: RepoId(repo), id: SessionId(id), kind, epoch, roots: roots.clone() };
            let bytes = session.encode();
            prop_assert_eq!(&Session::decode(&bytes).unwrap(), &session);
            harm(&bytes, at, bit, &session, true, Session::decode)?;
            let mut body = bytes[..bytes.len() - 32].to_vec();
            prop_assert!(Session::decode(&hashed(&[&body[..], &[0]].concat())).is_err(), "a byte more");
            body[8] += 1;
            prop_assert!(Session::decode(&hashed(&body)).is_err(), "another version");
        }
        let opening = LogOpening { stream, number, start, opened_us };
        let bytes = opening.encode();
        prop_assert_eq!(&LogOpening::decode(&bytes).unwrap(), &opening);
        prop_assert!(LogOpening::decode(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
        harm(&bytes, at, bit, &opening, false, LogOpening::decode)?;
    }

    #[test]
    fn any_bytes_are_a_structure_or_an_error(bytes: Vec<u8>) {
        let _ = Record::decode(&bytes);
        let _ = Footer::decode(&bytes);
        let _ = MapLeaf::decode(&bytes);
        let _ = MapRoot::decode(&bytes);
        let _ = MapSegments::decode(&bytes);
        let _ = Secrets::decode(&bytes);
        let _ = LogOpening::decode(&bytes);
        let _ = FrameHeader::decode(&bytes);
    }
}

#[test]
fn a_huge_count_is_refused_before_anything_is_allocated() {
    let mut leaf = MapLeaf::default().encode();
    leaf[4..8].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(MapLeaf::decode(&leaf).is_err());
    let mut footer = Footer::default().encode();
    footer[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(Footer::decode(&footer).is_err());
    let table = MapSegments { first: 0, segments: Vec::new() };
    let mut table = table.encode();
    table[8..12].copy_from_slice(&2_000_000_u32.to_le_bytes());
    assert!(MapSegments::decode(&table).is_err());
}
