//! Features for writers: what an older program would take away is written only where it can't write.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use aes_gcm::aead::{AeadInOut, KeyInit};
use common::history::{backup, files, fsck, read};
use common::{create, draft, objects, open, put_file};
use holdfast_format::ids::ServerId;
use holdfast_format::keyring::{KEPT, Keyring, Secrets};
use holdfast_format::names::KEYRINGS;
use holdfast_format::record::{HELD_FACT, HoldRecord, IMPORTED_FACT, KEEP_FACT, ServerLockRecord};
use holdfast_io::{ObjectName, SimDisk};
use holdfast_store::{Argon2Cost, Error, PruneOptions, RecoveryKit, Repository, Secret};

const COST: Argon2Cost = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn keyring(disk: &SimDisk, copy: usize) -> Keyring {
    let (objects, name) = (objects(disk), ObjectName::new(KEYRINGS[copy]).unwrap());
    Keyring::decode(&objects.read(&name, 0, objects.len(&name).unwrap()).unwrap()).unwrap()
}

/// Gives the keyring these features, as another version of the program would have written it.
fn set_features(disk: &SimDisk, kit: &RecoveryKit, features: u32) {
    let text = kit.to_text();
    let digits = text.split("-----").nth(2).unwrap().bytes().filter(u8::is_ascii_hexdigit);
    let digits: Vec<u8> = digits.map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let unlock: [u8; 32] = bytes[20..52].try_into().unwrap();
    let secrets = Secrets::decode(&bytes[52..bytes.len() - 8]).unwrap();
    let mut ring = keyring(disk, 0);
    (ring.generation, ring.nonce, ring.write_features) = (ring.generation + 1, [9; 12], features);
    let (aad, mut body) = (ring.aad(), secrets.encode());
    let cipher = aes_gcm::Aes256Gcm::new(&unlock.into());
    let tag = cipher.encrypt_inout_detached(&ring.nonce.into(), &aad, body.as_mut_slice().into()).unwrap();
    body.extend_from_slice(&tag);
    ring.sealed = body;
    for name in KEYRINGS {
        objects(disk).replace(&ObjectName::new(name).unwrap(), &ring.encode()).unwrap();
    }
}

/// A repository of a program that knew no feature for writers.
fn from_before() -> (SimDisk, RecoveryKit) {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    assert_eq!(keyring(&disk, 0).write_features, KEPT, "a new repository has it from the beginning");
    drop(repo);
    set_features(&disk, &kit, 0);
    (disk, kit)
}

fn kept(repo: &Repository) -> bool {
    repo.records().iter().any(|stamped| stamped.record.keeps())
}

fn commit_with(repo: &Repository, fact: &str) {
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "a", b"some bytes");
    let mut draft = draft();
    draft.facts.push((fact.to_owned(), "1".to_owned()));
    writer.commit(draft).unwrap();
}

#[test]
fn wherever_it_breaks_off_nothing_is_kept_before_every_copy_of_the_keyring_says_so() {
    type Way<'w> = (&'w str, &'w dyn Fn(&Repository));
    let ways: [Way<'_>; 5] = [
        ("a hold", &|repo| {
            let hold = HoldRecord { backup: repo.backups()[0].id, held: true, reason: "court".to_owned() };
            repo.hold_backup(hold).unwrap().unwrap();
        }),
        ("a server's lock", &|repo| {
            let lock = ServerLockRecord {
                server: ServerId([7; 16]),
                terms: Some(String::new()),
                reason: String::new(),
            };
            repo.lock_server(lock).unwrap().unwrap();
        }),
        ("a backup that is held", &|repo| commit_with(repo, HELD_FACT)),
        ("a backup with a date", &|repo| commit_with(repo, KEEP_FACT)),
        ("a backup that was imported", &|repo| commit_with(repo, IMPORTED_FACT)),
    ];
    for (what, keep) in ways {
        let (disk, _kit) = from_before();
        let repo = open(&disk).unwrap();
        let made = files(1, 2);
        let id = backup(&repo, None, &made).unwrap();
        assert_eq!(keyring(&disk, 0).write_features, 0, "nothing is kept yet");
        let from = disk.trace_len();
        keep(&repo);
        drop(repo);
        let (mut walk, mut both) = (disk.walk(), [false; 2]);
        while walk.step() {
            if walk.ops() < from {
                continue;
            }
            for how in walk.crashes(2) {
                let image = walk.image(how);
                let copies: Vec<bool> =
                    (0..3).map(|copy| keyring(&image, copy).write_features & KEPT != 0).collect();
                let repo = open(&image).unwrap();
                assert_eq!(repo.damage(), None, "{what}, after {} operations, {how:?}", walk.ops());
                assert!(read(&repo, id).unwrap() == made);
                let kept = kept(&repo);
                assert!(!kept || copies == [true; 3], "{what}, after {}, {how:?}: {copies:?}", walk.ops());
                both[usize::from(kept)] = true;
            }
        }
        assert_eq!(both, [true; 2], "{what}");
        fsck(&objects(&disk), what);
    }
}

#[test]
fn a_program_that_does_not_know_a_feature_takes_nothing_away_though_it_was_running_before() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    set_features(&disk, &kit, KEPT | 1 << 9);
    let unknown = |error: Error| {
        assert!(matches!(error, Error::OtherFormat { .. }), "{error}");
        assert!(error.to_string().contains("0x200"), "{error}");
    };
    unknown(repo.forget(id, "no more").unwrap_err());
    unknown(repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap_err());
    assert!(read(&repo, id).unwrap() == made);
    drop(repo);
    // One that comes later reads, and writes nothing at all.
    let repo = open(&disk).unwrap();
    assert!(repo.damage().unwrap().contains("0x200"));
    assert!(read(&repo, id).unwrap() == made);
    assert!(backup(&repo, None, &made).is_err());
}

#[test]
fn where_the_keyring_says_what_cant_be_read_nothing_is_taken_away_nor_written_over() {
    let disk = SimDisk::new();
    let (repo, _kit) = create(&disk);
    let id = backup(&repo, None, &files(1, 2)).unwrap();
    // A newer program's, all three; then one of them alone, in front of older ones.
    let newer = Keyring { read_features: 1 << 7, ..keyring(&disk, 0) }.encode();
    let old = keyring(&disk, 0).encode();
    let put = |copy: usize, bytes: &[u8]| {
        objects(&disk).replace(&ObjectName::new(KEYRINGS[copy]).unwrap(), bytes).unwrap();
    };
    (0..3).for_each(|copy| put(copy, &newer));
    let refused = repo.forget(id, "no more").unwrap_err();
    assert!(matches!(refused, Error::OtherFormat { .. }), "{refused}");
    assert!(matches!(
        repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap_err(),
        Error::OtherFormat { .. }
    ));
    put(0, &old);
    put(2, &old);
    // The older two can be read, and say nothing of what the newer program keeps; nor can what came in meanwhile.
    let running = repo;
    let repo = open(&disk).unwrap();
    for repo in [&running, &repo] {
        let refused = repo.forget(id, "no more").unwrap_err();
        assert!(refused.to_string().contains(KEYRINGS[1]), "{refused}");
        let refused = repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap_err();
        assert!(refused.to_string().contains(KEYRINGS[1]), "{refused}");
    }
    let hold = HoldRecord { backup: id, held: true, reason: "court".to_owned() };
    let refused = repo.hold_backup(hold).unwrap_err();
    assert!(refused.to_string().contains(KEYRINGS[1]), "{refused}");
    let name = ObjectName::new(KEYRINGS[1]).unwrap();
    assert_eq!(objects(&disk).read(&name, 0, newer.len() as u64).unwrap(), newer);
}

#[test]
fn fsck_says_where_something_is_kept_that_older_programs_would_forget() {
    let (disk, kit) = from_before();
    let repo = open(&disk).unwrap();
    commit_with(&repo, HELD_FACT);
    drop(repo);
    let report = || {
        let secret = holdfast_fsck::Secret::Passphrase(b"correct horse".to_vec());
        let options = holdfast_fsck::Options::default();
        holdfast_fsck::check(objects(&disk).as_ref(), &secret, options, &Default::default()).unwrap()
    };
    assert!(report().clean && !report().text().contains("would forget them"), "{}", report().text());
    set_features(&disk, &kit, 0);
    let told = report();
    assert!(told.clean && told.text().contains("would forget them"), "{}", told.text());
}

#[test]
fn one_copy_with_a_feature_that_is_not_known_is_enough_to_take_nothing_away_and_to_change_no_keys() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let id = backup(&repo, None, &files(1, 2)).unwrap();
    let old = keyring(&disk, 0).encode();
    set_features(&disk, &kit, KEPT | 1 << 9);
    // As a change that was broken off behind its first copy leaves it, and one that comes last.
    for newer in 0..3 {
        let bytes = keyring(&disk, newer).encode();
        for copy in (0..3).filter(|copy| *copy != newer) {
            objects(&disk).replace(&ObjectName::new(KEYRINGS[copy]).unwrap(), &old).unwrap();
        }
        let unknown = |error: Error| assert!(error.to_string().contains("0x200"), "{newer}: {error}");
        unknown(repo.forget(id, "no more").unwrap_err());
        unknown(repo.prune(&PruneOptions::default(), &|_, _| {}).unwrap_err());
        unknown(repo.add_key(&Secret::Passphrase("another".to_owned().into()), "", COST).unwrap_err());
        unknown(repo.rotate_keys(&[Secret::Passphrase("correct horse".to_owned().into())]).unwrap_err());
        for name in KEYRINGS {
            objects(&disk).replace(&ObjectName::new(name).unwrap(), &bytes).unwrap();
        }
    }
}

#[test]
fn the_next_backup_tells_older_programs_of_what_was_kept_before_there_was_a_word_for_it() {
    let (disk, kit) = from_before();
    let repo = open(&disk).unwrap();
    commit_with(&repo, HELD_FACT);
    drop(repo);
    set_features(&disk, &kit, 0);
    let repo = open(&disk).unwrap();
    let _ = backup(&repo, None, &files(3, 1)).unwrap();
    assert_eq!((0..3).map(|copy| keyring(&disk, copy).write_features).collect::<Vec<_>>(), [KEPT; 3]);
    // Where nothing is kept, nothing is said.
    let (disk, _kit) = from_before();
    let _ = backup(&open(&disk).unwrap(), None, &files(3, 1)).unwrap();
    assert_eq!(keyring(&disk, 0).write_features, 0);
}
