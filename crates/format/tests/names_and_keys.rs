//! Names of objects, ids as text, and what each key is derived from.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

use holdfast_format::ids::*;
use holdfast_format::{keys, names};

const REPO: RepoId = RepoId([1; 16]);
const SEGMENT: SegmentId = SegmentId([2; 16]);

#[test]
fn hexadecimal_is_lower_case_and_of_the_right_length() {
    assert_eq!(hex(&[0, 0x1f, 0xa0]), "001fa0");
    assert_eq!(unhex::<3>("001fa0"), Some([0, 0x1f, 0xa0]));
    for text in ["001fa", "001fa00", "001FA0", "001fg0", ""] {
        assert_eq!(unhex::<3>(text), None, "{text}");
    }
    let address = Address { segment: SegmentId(std::array::from_fn(|at| at as u8)), slot: 0x0403_0201 };
    let mut want: Vec<u8> = (0..16).collect();
    want.extend([1, 2, 3, 4]);
    assert_eq!(address.to_bytes().as_slice(), want);
}

#[test]
fn the_id_of_a_backup_is_read_in_any_case_and_told_by_its_beginning() {
    let id = BackupId(std::array::from_fn(|at| (at * 37 + 9) as u8));
    let text = id.to_string();
    assert_eq!((text.len(), id.short()), (26, text[..8].to_owned()));
    assert_eq!(text.parse::<BackupId>().unwrap(), id);
    assert_eq!(text.to_uppercase().parse::<BackupId>().unwrap(), id);
    assert!(id.has_prefix(&text[..5].to_uppercase()) && id.has_prefix("") && !id.has_prefix("zzzzz"));
    // The last letter has two zero bits at its end.
    let letters = "0123456789abcdefghjkmnpqrstvwxyz";
    let good = letters.chars().filter(|last| format!("{}{last}", &text[..25]).parse::<BackupId>().is_ok());
    assert_eq!(good.count(), 8);
    for wrong in [&text[..25], &format!("{text}0"), &text.replace(&text[3..4], "u")] {
        assert!(wrong.parse::<BackupId>().is_err(), "{wrong}");
    }
}

#[test]
fn the_name_of_each_object_is_that_of_the_specification() {
    assert_eq!(names::manifest(0, 0xab), "manifest/00000000000000ab");
    assert_eq!(names::manifest(1, u64::MAX), "manifest2/ffffffffffffffff");
    assert_eq!(names::pack(16), "packs/0000000000000010");
    assert_eq!(names::segment(SEGMENT), format!("segments/{}", "02".repeat(16)));
    assert_eq!(names::log(SEGMENT), format!("logs/{}", "02".repeat(16)));
    assert_eq!(names::log_foot(SEGMENT), format!("logs/{}.foot", "02".repeat(16)));
    assert_eq!(names::session(SessionId([3; 16])), format!("sessions/{}", "03".repeat(16)));
    assert_eq!(names::stream_lock([4; 16]), format!("locks/log-{}", "04".repeat(16)));
    for (name, number) in [
        ("manifest/00000000000000ab", Some(0xab)),
        ("manifest2/ffffffffffffffff", Some(u64::MAX)),
        ("manifest/0ab", None),
        ("manifest/00000000000000aB", None),
        ("manifest/000000000000000ab", None),
        ("manifest/+0000000000000ab", None),
        ("packs/0000000000000010", None),
    ] {
        assert_eq!(names::manifest_number(name), number, "{name}");
    }
    assert_eq!(names::pack_number("packs/0000000000000010"), Some(16));
    assert_eq!(names::pack_number("manifest/0000000000000010"), None);
}

#[test]
fn every_key_comes_from_all_that_it_is_bound_to() {
    let (key, other) = ([7; 32], [8; 32]);
    let (repo2, segment2) = (RepoId([9; 16]), SegmentId([9; 16]));
    let all: Vec<[u8; 32]> = vec![
        keys::block_id_key(&key),
        keys::block_id_key(&other),
        keys::head_key(&key),
        keys::head_key(&other),
        keys::segment_wrap_key(&key, REPO, SEGMENT),
        keys::segment_wrap_key(&other, REPO, SEGMENT),
        keys::segment_wrap_key(&key, repo2, SEGMENT),
        keys::segment_wrap_key(&key, REPO, segment2),
        keys::rekeyed_data_key(&key, REPO, SEGMENT),
        keys::rekeyed_data_key(&other, REPO, SEGMENT),
        keys::rekeyed_data_key(&key, repo2, SEGMENT),
        keys::rekeyed_data_key(&key, REPO, segment2),
        keys::manifest_key(&key, REPO),
        keys::manifest_key(&other, REPO),
        keys::manifest_key(&key, repo2),
        keys::frame_key(&key),
        keys::frame_key(&other),
        keys::footer_key(&key),
        keys::footer_key(&other),
        keys::commitment(&key),
        keys::commitment(&other),
        keys::block_id(&key, b"x").0,
        keys::block_id(&key, b"y").0,
        keys::block_id(&other, b"x").0,
        [0; 32],
        [1; 32],
    ];
    for (at, one) in all.iter().enumerate() {
        assert!(!all[at + 1..].contains(one), "number {at}");
    }
    assert_eq!(keys::frame_nonce(0x0102_0304), [4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
    let tags = [keys::stream_tag(&key, b"a"), keys::stream_tag(&key, b"b"), keys::stream_tag(&other, b"a")];
    assert!(tags[0] != tags[1] && tags[0] != tags[2] && tags[1] != tags[2]);
    assert_ne!(keys::key_file_key(b"a"), keys::key_file_key(b"b"));
    let aad = [&REPO.0[..], &SEGMENT.0, &3_u32.to_le_bytes()].concat();
    assert_eq!(keys::wrap_aad(REPO, SEGMENT, 3), aad);
}
