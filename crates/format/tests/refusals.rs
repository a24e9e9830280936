//! What each decoder refuses: a value at its limit is read, one beyond it is not, in bytes that are whole otherwise.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

use holdfast_format::Error;
use holdfast_format::codec::{Reader, Writer};
use holdfast_format::ids::*;
use holdfast_format::keyring::*;
use holdfast_format::limits::*;
use holdfast_format::manifest::*;
use holdfast_format::pack::{self, Pack};
use holdfast_format::parity::{Geometry, ParityTable};
use holdfast_format::segment::*;

const REPO: RepoId = RepoId([1; 16]);
const SEGMENT: SegmentId = SegmentId([2; 16]);

/// These bytes with others at a place.
fn with(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out[at..at + new.len()].copy_from_slice(new);
    out
}

/// Another body before the BLAKE3 that stands last.
fn hashed(body: &[u8]) -> Vec<u8> {
    [body, blake3::hash(body).as_bytes()].concat()
}

/// The same structure with other bytes at a place, and the hash that belongs to them.
fn rehashed(bytes: &[u8], at: usize, new: &[u8]) -> Vec<u8> {
    hashed(&with(&bytes[..bytes.len() - 32], at, new))
}

fn number(value: u32) -> [u8; 4] {
    value.to_le_bytes()
}

// ---- the codec -----------------------------------------------------------------------------------

#[test]
fn a_number_has_64_bits_in_its_shortest_form() {
    let read = |bytes: &[u8]| Reader::new("a test", bytes).varint("a number").ok();
    assert_eq!(read(&[[0xff; 9].as_slice(), &[1]].concat()), Some(u64::MAX));
    assert_eq!(read(&[[0xff; 9].as_slice(), &[2]].concat()), None);
    assert_eq!(read(&[[0xff; 10].as_slice(), &[1]].concat()), None);
    assert_eq!((read(&[0]), read(&[0x80, 0]), read(&[0x80, 1]), read(&[])), (Some(0), None, Some(128), None));
}

#[test]
fn a_reader_knows_its_limits_and_its_end() {
    let reader = |bytes: &'static [u8]| Reader::new("a test", bytes);
    assert_eq!(reader(&[]).what(), "a test");
    assert_eq!(reader(&[2, 0, 0, 0, 8, 9]).count("things", 2, 1).unwrap(), 2);
    assert!(matches!(reader(&[2, 0, 0, 0, 8, 9]).count("things", 1, 1), Err(Error::TooLarge { .. })));
    assert!(matches!(
        reader(&[2, 0, 0, 0, 8, 9]).count("things", 2, 2),
        Err(Error::Truncated { needed: 4, got: 2, .. })
    ));
    let at = reader(&[]);
    assert!(at.within("a value", 5, 5).is_ok() && at.within("a value", 6, 5).is_err());
    assert!(reader(&[]).end().is_ok() && reader(&[0]).end().is_err());
    let mut writer = Writer::new();
    assert!(writer.is_empty());
    writer.raw(b"abc");
    writer.pad_to(2);
    assert_eq!((writer.len(), writer.is_empty(), writer.as_bytes()), (3, false, b"abc".as_slice()));
    writer.pad_to(5);
    assert_eq!(writer.as_bytes(), b"abc\0\0");
}

// ---- keyring, manifest, packs ---------------------------------------------------------------------

fn slot(memory_kib: u32, passes: u32, lanes: u32) -> KeySlot {
    KeySlot {
        id: KeySlotId([3; 8]),
        kind: SlotKind::Passphrase { salt: [4; 32], memory_kib, passes, lanes },
        label: "a".to_owned(),
        created_us: 5,
        nonce: [6; 12],
        wrapped: [7; 48],
    }
}

fn ring(slots: Vec<KeySlot>) -> Keyring {
    Keyring {
        repo: REPO,
        read_features: 0,
        write_features: 0,
        rekeying: false,
        generation: 1,
        slots,
        nonce: [8; 12],
        sealed: vec![9; 40],
    }
}

#[test]
fn a_keyring_has_known_features_and_bounded_work_in_its_slots() {
    let reads = |ring: &Keyring| Keyring::decode(&ring.encode()).is_ok();
    for (kib, passes, lanes, good) in [
        (1, 1, 1, true),
        (ARGON2_MEMORY_KIB_MAX, ARGON2_PASSES_MAX, ARGON2_LANES_MAX, true),
        (0, 1, 1, false),
        (1, 0, 1, false),
        (1, 1, 0, false),
        (ARGON2_MEMORY_KIB_MAX + 1, 1, 1, false),
        (1, ARGON2_PASSES_MAX + 1, 1, false),
        (1, 1, ARGON2_LANES_MAX + 1, false),
    ] {
        assert_eq!(reads(&ring(vec![slot(kib, passes, lanes)])), good, "{kib} {passes} {lanes}");
    }
    let good = ring(vec![slot(1, 1, 1)]);
    let bytes = good.encode();
    assert!(matches!(Keyring::decode(&rehashed(&bytes, 8, &number(2))), Err(Error::Version { got: 2, .. })));
    let strange = rehashed(&bytes, 12, &number(1 << 31));
    assert!(matches!(Keyring::decode(&strange), Err(Error::Features { unknown: 0x8000_0000 })));
    // A re-encryption at work needs its feature.
    assert!(!reads(&Keyring { rekeying: true, ..good.clone() }));
    assert!(reads(&Keyring { rekeying: true, read_features: RESEALED, ..good.clone() }));
    assert!(reads(&Keyring { read_features: RESEALED, ..good.clone() }));
    let body = &bytes[..bytes.len() - 32];
    assert!(Keyring::decode(&hashed(&[body, &[0]].concat())).is_err(), "a byte more");
    let long = Keyring { sealed: vec![0; KEYRING_BYTES_MAX as usize], ..good.clone() };
    assert!(matches!(Keyring::decode(&long.encode()), Err(Error::TooLarge { .. })));
    assert!(Keyring::decode(&[bytes.as_slice(), &[0]].concat()).is_err());

    let (repo2, head) = (RepoId([9; 16]), good.aad());
    assert!(bytes.starts_with(&head) && head.len() == 48, "{}", head.len());
    let aad = good.slots[0].aad(REPO);
    assert!(aad.starts_with(&REPO.0) && aad != good.slots[0].aad(repo2));
    assert!(bytes[head.len() + 4..].starts_with(&aad[16..]) && aad.len() > 40);
}

#[test]
fn the_keys_of_a_keyring_rise_and_are_one_at_least() {
    let secrets = |generations: &[u32]| Secrets {
        root: [1; 32],
        keks: generations.iter().map(|g| Kek { generation: *g, key: [2; 32] }).collect(),
    };
    for (generations, good) in
        [(&[1][..], true), (&[1, 2, 7], true), (&[], false), (&[1, 1], false), (&[2, 1], false)]
    {
        let bytes = secrets(generations).encode();
        assert_eq!(Secrets::decode(&bytes).is_ok(), good, "{generations:?}");
        assert!(Secrets::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "{generations:?} and a byte");
    }
    assert!(Secrets::decode(&with(&secrets(&[1]).encode(), 0, &number(9))).is_err());
}

fn envelope(sealed: usize) -> Vec<u8> {
    let prefix = Prefix {
        repo: REPO,
        number: 3,
        previous: RecordHash([4; 32]),
        kek_generation: 1,
        nonce: [5; 12],
        sealed_len: sealed as u32,
        first_hash: None,
    };
    Envelope::encode(&prefix, &vec![6; sealed])
}

#[test]
fn a_record_has_its_length_and_a_tag_at_least() {
    for (sealed, good) in [(15, false), (16, true), (17, true)] {
        let bytes = envelope(sealed);
        assert_eq!(Envelope::decode(&bytes).is_ok(), good, "{sealed}");
        let longer = hashed(&[&bytes[..bytes.len() - 32], &[0]].concat());
        assert!(Envelope::decode(&longer).is_err(), "{sealed} and a byte");
    }
    assert!(matches!(
        Envelope::decode(&rehashed(&envelope(20), 8, &number(7))),
        Err(Error::Version { got: 7, .. })
    ));
    let huge = RECORD_BODY_MAX as usize + 4096;
    assert!(matches!(Envelope::decode(&envelope(huge)), Err(Error::TooLarge { .. })));

    let (head, key) = (Head { repo: REPO, number: 9, hash: RecordHash([1; 32]) }, [2; 32]);
    let bytes = head.encode(&key);
    assert_eq!(Head::decode(&bytes, &key).unwrap(), head);
    let mac = |body: &[u8]| [body, blake3::keyed_hash(&key, body).as_bytes()].concat();
    let body = &bytes[..bytes.len() - 32];
    assert!(matches!(Head::decode(&mac(&with(body, 8, &number(7))), &key), Err(Error::Version { .. })));
    assert!(Head::decode(&mac(&[body, &[0]].concat()), &key).is_err(), "a byte more");
    assert!(Head::decode(&bytes, &[3; 32]).is_err());
}

#[test]
fn a_pack_has_its_records_and_nothing_else() {
    let prefix = |count, sealed_len| pack::Prefix {
        repo: REPO,
        first: 7,
        count,
        previous: RecordHash([1; 32]),
        last: RecordHash([2; 32]),
        kek_generation: 3,
        nonce: [4; 12],
        sealed_len,
    };
    for (count, sealed, good) in [
        (1, 16, true),
        (PACK_RECORDS_MAX, 16, true),
        (0, 16, false),
        (PACK_RECORDS_MAX + 1, 16, false),
        (1, 15, false),
        (1, 20, true),
    ] {
        let prefix = prefix(count, sealed);
        let bytes = Pack::encode(&prefix, &vec![5; sealed as usize]);
        let read = Pack::decode(&bytes);
        assert_eq!(read.is_ok(), good, "{count} {sealed}");
        if let Ok(read) = read {
            assert_eq!((&read.prefix, read.sealed.len()), (&prefix, sealed as usize));
        }
        let body = &bytes[..bytes.len() - 32];
        assert!(Pack::decode(&hashed(&[body, &[0]].concat())).is_err(), "{count} {sealed} and a byte");
        assert!(matches!(Pack::decode(&rehashed(&bytes, 8, &number(2))), Err(Error::Version { .. })));
        assert!(Pack::decode(&rehashed(&bytes, 0, b"X")).is_err());
    }
    assert_eq!(prefix(5, 16).end(), 12);
    let bodies = vec![b"one".to_vec(), Vec::new(), b"three".to_vec()];
    let plain = pack::encode_bodies(&bodies);
    assert_eq!(pack::decode_bodies(&plain, 3).unwrap(), bodies);
    assert!(pack::decode_bodies(&plain, 2).is_err() && pack::decode_bodies(&plain, 4).is_err());
}

// ---- segments -------------------------------------------------------------------------------------

fn birth(segment: SegmentId) -> Birth {
    Birth { segment, kek_generation: 1, wrapped_key: [1; 48], commitment: [2; 32] }
}

#[test]
fn the_header_of_a_segment_names_itself_first_and_32_births_at_most() {
    let header = |births: Vec<Birth>| SegmentHeader {
        repo: REPO,
        segment: SEGMENT,
        kind: SegmentKind::Data,
        session: SessionId([3; 16]),
        births,
    };
    let many = |n: u8| (0..n).map(|at| birth(SegmentId([2 + at; 16]))).collect::<Vec<_>>();
    for (births, good) in [
        (many(1), true),
        (many(32), true),
        (many(33), false),
        (many(0), false),
        (vec![birth(SegmentId([9; 16]))], false),
    ] {
        let count = births.len();
        assert_eq!(SegmentHeader::decode(&header(births).encode()).is_ok(), good, "{count} births");
    }
    let bytes = header(many(1)).encode();
    assert!(matches!(SegmentHeader::decode(&rehashed(&bytes, 8, &number(2))), Err(Error::Version { .. })));
    assert!(
        SegmentHeader::decode(&rehashed(&bytes, PAGE_BYTES - 33, &[1])).is_err(),
        "padding that is not zero"
    );
}

fn frame(kind: FrameKind) -> FrameHeader {
    FrameHeader {
        slot: 5,
        kind,
        codec: Codec::Raw,
        depth: 0,
        birth: 0,
        plain_len: 100,
        stored_len: 116,
        payload_crc: 7,
        durable_end: 0,
    }
}

#[test]
fn the_header_of_a_frame_keeps_within_its_limits() {
    let (block, events) = (frame(FrameKind::Block), frame(FrameKind::LogEvents));
    assert!(events.kind.is_log() && !block.kind.is_log());
    let most = SEGMENT_BYTES_MAX as u32;
    for (header, good) in [
        (FrameHeader { slot: SLOTS_MAX - 1, ..block }, true),
        (FrameHeader { slot: SLOTS_MAX, ..block }, false),
        (FrameHeader { birth: BIRTHS_MAX as u8 - 1, ..block }, true),
        (FrameHeader { birth: BIRTHS_MAX as u8, ..block }, false),
        (FrameHeader { plain_len: FRAME_PLAIN_MAX, ..block }, true),
        (FrameHeader { plain_len: FRAME_PLAIN_MAX + 1, ..block }, false),
        (FrameHeader { stored_len: 16, ..block }, true),
        (FrameHeader { stored_len: 15, ..block }, false),
        (FrameHeader { stored_len: u32::MAX, ..block }, false),
        (FrameHeader { depth: 1, ..block }, false),
        (FrameHeader { codec: Codec::Delta, depth: 1, ..block }, true),
        (FrameHeader { codec: Codec::Delta, depth: DEPTH_MAX, ..block }, true),
        (FrameHeader { codec: Codec::Delta, depth: DEPTH_MAX + 1, ..block }, false),
        (FrameHeader { codec: Codec::Delta, depth: 0, ..block }, false),
        (FrameHeader { durable_end: 1, ..block }, false),
        (FrameHeader { durable_end: most, ..events }, true),
        (FrameHeader { durable_end: most + 1, ..events }, false),
    ] {
        assert_eq!(FrameHeader::decode(&header.encode()).ok(), good.then_some(header), "{header:?}");
    }
    assert_eq!(block.frame_len(), 32 + 116);
}

#[test]
fn what_a_payload_is_bound_to_changes_with_all_of_it() {
    let block = frame(FrameKind::Block);
    let others = [
        block.aad(REPO, SEGMENT),
        block.aad(RepoId([9; 16]), SEGMENT),
        block.aad(REPO, SegmentId([9; 16])),
        FrameHeader { slot: 6, ..block }.aad(REPO, SEGMENT),
        FrameHeader { kind: FrameKind::LogEvents, ..block }.aad(REPO, SEGMENT),
        FrameHeader { codec: Codec::Zstd, ..block }.aad(REPO, SEGMENT),
        FrameHeader { depth: 2, ..block }.aad(REPO, SEGMENT),
        FrameHeader { plain_len: 101, ..block }.aad(REPO, SEGMENT),
        FrameHeader { stored_len: 117, ..block }.aad(REPO, SEGMENT),
    ];
    for (at, one) in others.iter().enumerate() {
        assert!(!others[at + 1..].contains(one), "number {at}");
    }
    let moved = FrameHeader { birth: 3, payload_crc: 1, durable_end: 9, ..block };
    assert_eq!(moved.aad(REPO, SEGMENT), others[0], "compaction copies payloads");
    let footers = [
        Footer::aad(REPO, SEGMENT, false, 8192, 3),
        Footer::aad(RepoId([9; 16]), SEGMENT, false, 8192, 3),
        Footer::aad(REPO, SegmentId([9; 16]), false, 8192, 3),
        Footer::aad(REPO, SEGMENT, true, 8192, 3),
        Footer::aad(REPO, SEGMENT, false, 8193, 3),
        Footer::aad(REPO, SEGMENT, false, 8192, 4),
    ];
    for (at, one) in footers.iter().enumerate() {
        assert!(!footers[at + 1..].contains(one) && one.len() == 8 + 16 + 16 + 4 + 8 + 4, "number {at}");
    }
}

fn entry(slot: u32, offset: u32) -> FooterEntry {
    FooterEntry {
        id: BlockId([4; 32]),
        offset,
        plain_len: 100,
        stored_len: 68,
        slot,
        base: None,
        birth: 0,
        kind: FrameKind::Block,
        codec: Codec::Raw,
        depth: 0,
    }
}

#[test]
fn the_entries_of_a_footer_lie_behind_each_other_and_within_their_limits() {
    let reads = |entries: &[FooterEntry]| {
        let footer = Footer { entries: entries.to_vec() };
        Footer::decode(&footer.encode()).is_ok_and(|read| read == footer)
    };
    let first = entry(0, PAGE_BYTES as u32);
    assert!(reads(&[]) && reads(&[first, entry(1, 4096 + 100)]));
    assert!(!reads(&[entry(0, 4095)]), "in the header");
    assert!(!reads(&[first, entry(1, 4096 + 99)]), "in the frame before");
    assert!(!reads(&[first, first]));
    let base = |slot| Some(Address { segment: SEGMENT, slot });
    let delta = FooterEntry { codec: Codec::Delta, depth: 1, base: base(1), ..first };
    for (entry, good) in [
        (FooterEntry { offset: SEGMENT_BYTES_MAX as u32, ..first }, true),
        (FooterEntry { offset: SEGMENT_BYTES_MAX as u32 + 1, ..first }, false),
        (FooterEntry { plain_len: FRAME_PLAIN_MAX, ..first }, true),
        (FooterEntry { plain_len: FRAME_PLAIN_MAX + 1, ..first }, false),
        (FooterEntry { stored_len: 15, ..first }, false),
        (FooterEntry { slot: SLOTS_MAX - 1, ..first }, true),
        (FooterEntry { slot: SLOTS_MAX, ..first }, false),
        (FooterEntry { birth: BIRTHS_MAX as u8 - 1, ..first }, true),
        (FooterEntry { birth: BIRTHS_MAX as u8, ..first }, false),
        (FooterEntry { depth: 1, ..first }, false),
        (delta, true),
        (FooterEntry { depth: 0, ..delta }, false),
        (FooterEntry { base: None, ..delta }, false),
        (FooterEntry { base: base(SLOTS_MAX - 1), ..delta }, true),
        (FooterEntry { base: base(SLOTS_MAX), ..delta }, false),
        (FooterEntry { base: base(1), ..first }, false),
    ] {
        assert_eq!(reads(&[entry]), good, "{entry:?}");
    }
    // One segment of two bases stands once.
    let two = Footer { entries: vec![delta, FooterEntry { offset: 8192, slot: 1, base: base(2), ..delta }] };
    let bytes = two.encode();
    assert_eq!(bytes[16..20], number(1), "bases");
    assert!(Footer::decode(&[bytes.as_slice(), &[0]].concat()).is_err(), "a byte more");
    assert!(Footer::decode(&bytes[..bytes.len() - 1]).is_err(), "a byte less");
    assert!(Footer::decode(&with(&bytes, 8, &number(9))).is_err(), "another version");
    assert!(Footer::decode(&with(&bytes, 16, &number(3))).is_err(), "more bases than frames");
    assert!(Footer::decode(&with(&bytes, 12, &number(SLOTS_MAX + 1))).is_err(), "more frames than slots");
}

fn trailer() -> Trailer {
    Trailer {
        repo: REPO,
        segment: SEGMENT,
        detached: false,
        frames_end: 8192,
        footer_offset: 8192,
        footer_len: 100,
        frames: 1,
        frames_root: [5; 32],
        parity: None,
    }
}

#[test]
fn a_trailer_names_places_in_their_order_and_shards_that_fit() {
    let good = trailer();
    let place = Geometry::of(40_000).place();
    let protected = Trailer { parity: Some(place), ..good };
    let shards = |change: &dyn Fn(&mut ParityPlace)| {
        let mut place = place;
        change(&mut place);
        Trailer { parity: Some(place), ..good }
    };
    for (trailer, fits) in [
        (good, true),
        (protected, true),
        (Trailer { frames_end: 4096, footer_offset: 4096, ..good }, true),
        (Trailer { frames_end: 4095, footer_offset: 4096, ..good }, false),
        (Trailer { footer_offset: 8191, ..good }, false),
        (Trailer { footer_offset: 8191, detached: true, ..good }, true),
        (Trailer { footer_len: 32, ..good }, true),
        (Trailer { footer_len: 31, ..good }, false),
        (Trailer { footer_len: 1 << 40, ..good }, false),
        (Trailer { frames_end: SEGMENT_BYTES_MAX, footer_offset: SEGMENT_BYTES_MAX, ..good }, true),
        (Trailer { frames_end: SEGMENT_BYTES_MAX + 1, detached: true, ..good }, false),
        (Trailer { footer_offset: SEGMENT_BYTES_MAX + 1, ..good }, false),
        (Trailer { frames: SLOTS_MAX, ..good }, true),
        (Trailer { frames: SLOTS_MAX + 1, ..good }, false),
        (shards(&|p| p.shard_bytes += 1), false),
        (shards(&|p| p.parity_shards = 0), false),
        (shards(&|p| p.parity_shards = 4096), true),
        (shards(&|p| p.parity_shards = 4097), false),
        (shards(&|p| p.data_shards += 1), false),
        (shards(&|p| p.data_shards -= 1), false),
        (shards(&|p| p.offset = SEGMENT_BYTES_MAX + 1), false),
        (shards(&|p| (p.offset, p.data_shards) = (8192, 2)), true),
        (shards(&|p| (p.offset, p.data_shards) = (8193, 2)), false),
        (shards(&|p| (p.offset, p.data_shards) = (4096, 2)), false),
        (shards(&|p| (p.offset, p.data_shards) = (4097, 2)), true),
        (shards(&|p| (p.offset, p.data_shards) = (65_536 * 4096, 65_536)), true),
        (shards(&|p| (p.shard_bytes, p.offset, p.data_shards) = (1 << 28, 1 << 28, 1)), true),
        (shards(&|p| (p.shard_bytes, p.offset, p.data_shards) = (1 << 29, 1 << 20, 1)), false),
        (shards(&|p| (p.shard_bytes, p.offset, p.data_shards) = (0, 1, 0)), false),
    ] {
        assert_eq!(Trailer::decode(&trailer.encode()).is_ok_and(|read| read == trailer), fits, "{trailer:?}");
    }
    // Without shards, nothing of them may be there.
    for (change, name) in [
        (ParityPlace { offset: 1, ..ParityPlace::default() }, "offset"),
        (ParityPlace { len: 1, ..ParityPlace::default() }, "length"),
        (ParityPlace { data_shards: 1, ..ParityPlace::default() }, "data"),
        (ParityPlace { parity_shards: 1, ..ParityPlace::default() }, "parity"),
    ] {
        assert!(Trailer::decode(&Trailer { parity: Some(change), ..good }.encode()).is_err(), "{name}");
    }
    let bytes = good.encode();
    assert!(matches!(Trailer::decode(&rehashed(&bytes, 8, &number(2))), Err(Error::Version { .. })));
    assert!(Trailer::decode(&rehashed(&bytes, PAGE_BYTES - 33, &[1])).is_err(), "padding that is not zero");
    assert_eq!((align_up(0), align_up(1), align_up(4096), align_up(4097)), (0, 4096, 4096, 8192));
}

#[test]
fn the_parity_of_a_length_has_one_geometry_and_its_parts_lie_behind_each_other() {
    for protected in [4096, 40_000, 1 << 20, SEGMENT_BYTES_MAX] {
        let geometry = Geometry::of(protected);
        let shards = geometry.data_shards as usize + geometry.parity_shards as usize;
        let table = ParityTable { repo: REPO, segment: SEGMENT, geometry, checksums: vec![[3; 16]; shards] };
        let bytes = table.encode();
        assert_eq!(bytes.len() as u64, geometry.table_bytes());
        assert_eq!(ParityTable::decode(&bytes).unwrap(), table);
        assert_eq!(Geometry::from_place(&geometry.place()), geometry);
        let shard = u64::from(geometry.shard_bytes);
        assert_eq!(geometry.first_table(), protected + 4096);
        assert_eq!(geometry.parity_shard(0), geometry.first_table() + geometry.table_bytes());
        assert_eq!(geometry.parity_shard(1), geometry.parity_shard(0) + shard);
        assert_eq!(geometry.second_table(), geometry.parity_shard(geometry.parity_shards));
        assert_eq!(geometry.parity_bytes(), geometry.second_table() + geometry.table_bytes() - protected);
        // Its hash is right; the geometry is not that of its length.
        let end = 96 - 32 + shards * 16;
        let other = hashed(&with(&bytes[..end], 48, &(protected + 4096 * 100).to_le_bytes()));
        assert!(ParityTable::decode(&other).is_err(), "{protected}");
    }
    let geometry = Geometry::of(SEGMENT_BYTES_MAX + 4096);
    let shards = geometry.data_shards as usize + geometry.parity_shards as usize;
    let table = ParityTable { repo: REPO, segment: SEGMENT, geometry, checksums: vec![[3; 16]; shards] };
    assert!(ParityTable::decode(&table.encode()).is_err(), "longer than a segment");
    let sum = holdfast_format::parity::checksum(b"shard");
    assert_eq!(sum[..], blake3::hash(b"shard").as_bytes()[..16]);
}
