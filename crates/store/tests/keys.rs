//! The ways in: added, removed, rotated; a kit that recovers; a change of the keyring that a crash or a fault breaks off.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::cell::Cell;

use aes_gcm::aead::{AeadInOut, KeyInit};
use common::failing::Failing;
use common::history::{backup, files, fsck, read};
use common::{create, objects, open, options, secret};
use holdfast_format::keyring::{Kek, Keyring, Secrets};
use holdfast_format::limits::KEKS_MAX;
use holdfast_format::names::KEYRINGS;
use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{ObjectName, SimDisk};
use holdfast_store::{Argon2Cost, Error, RecoveryKit, Repository, ScrubOptions, Secret};

const COST: Argon2Cost = Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn enter(disk: &SimDisk, secret: &Secret) -> Result<Repository, Error> {
    Repository::open(objects(disk), secret, options())
}

fn keyring(disk: &SimDisk, copy: usize) -> Keyring {
    let (objects, name) = (objects(disk), ObjectName::new(KEYRINGS[copy]).unwrap());
    Keyring::decode(&objects.read(&name, 0, objects.len(&name).unwrap()).unwrap()).unwrap()
}

fn file() -> Secret {
    Secret::key_file([7; 32])
}

#[test]
fn a_key_that_was_added_opens_and_one_that_was_removed_opens_no_more() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    assert!(matches!(repo.remove_key(repo.key_slots().unwrap()[0].id), Err(Error::Refused { .. })));
    let added = repo.add_key(&file(), "safe", COST).unwrap();
    let by_file = enter(&disk, &file()).unwrap();
    assert!(read(&by_file, id).unwrap() == made);
    let slots = by_file.key_slots().unwrap();
    assert_eq!(slots.iter().map(|s| s.current).collect::<Vec<_>>(), [false, true]);
    assert_eq!(slots[1].id, added.id);
    by_file.remove_key(slots[0].id).unwrap();
    assert!(matches!(open(&disk), Err(Error::WrongSecret)));
    // One damaged copy of the keyring is none too few.
    disk.flip_bit(std::path::Path::new("/repo/keyring/0"), 60, 1);
    disk.flip_bit(std::path::Path::new("/repo/keyring/2"), 60, 1);
    assert!(read(&enter(&disk, &file()).unwrap(), id).unwrap() == made);
}

#[test]
fn a_passphrase_whose_memory_is_filled_in_four_lanes_opens_here_and_in_fsck() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    let wide = Secret::passphrase("four lanes");
    repo.add_key(&wide, "wide", Argon2Cost { lanes: 4, ..COST }).unwrap();
    repo.remove_key(repo.key_slots().unwrap()[0].id).unwrap();
    assert!(read(&enter(&disk, &wide).unwrap(), id).unwrap() == made);
    assert!(matches!(open(&disk), Err(Error::WrongSecret)));
    let secret = holdfast_fsck::Secret::Passphrase(b"four lanes".to_vec());
    let options = holdfast_fsck::Options { scope: holdfast_fsck::Scope::Full, ..Default::default() };
    let report =
        holdfast_fsck::check(objects(&disk).as_ref(), &secret, options, &Default::default()).unwrap();
    assert!(report.clean, "{}", report.text());
}

#[test]
fn a_rotation_shuts_out_old_kits_and_old_copies_of_the_keyring() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let made = files(1, 2);
    let first = backup(&repo, None, &made).unwrap();
    repo.add_key(&file(), "safe", COST).unwrap();
    let gone = Secret::passphrase("given away");
    repo.add_key(&gone, "lost", COST).unwrap();
    let old: Vec<u8> = {
        let name = ObjectName::new("keyring/0").unwrap();
        let objects = objects(&disk);
        objects.read(&name, 0, objects.len(&name).unwrap()).unwrap()
    };
    let rotated = repo.rotate_keys(&[secret(), file()]).unwrap();
    assert_eq!((rotated.generation, rotated.kept.len(), rotated.removed.len()), (2, 2, 1));
    assert_eq!(rotated.removed[0].label, "lost");
    assert!(matches!(enter(&disk, &gone), Err(Error::WrongSecret)));
    for secret in [secret(), file()] {
        assert!(read(&enter(&disk, &secret).unwrap(), first).unwrap() == made);
    }
    // Whoever came in before is told so, and changes nothing.
    let new = enter(&disk, &file()).unwrap();
    let second = backup(&new, Some(first), &files(2, 2)).unwrap();
    assert!(matches!(repo.refresh(), Err(Error::KeysRotated)));
    assert!(matches!(repo.add_key(&gone, "again", COST), Err(Error::KeysRotated)));
    fsck(&objects(&disk), "after the rotation");

    // The kit of before has the keys of before: it reads nothing newer.
    let by_kit = enter(&disk, &Secret::Kit(kit)).unwrap();
    assert!(by_kit.damage().is_some());
    assert!(by_kit.open_backup(second).is_err());
    // And no further kit comes of it, nor of a process from before.
    for old in [&by_kit, &repo] {
        assert!(matches!(old.recovery_kit(), Err(Error::OldKeys)));
    }
    // So does the old keyring.
    let stolen = disk.crash(Crash::Everything);
    for copy in ["keyring/0", "keyring/1", "keyring/2"] {
        objects(&stolen).replace(&ObjectName::new(copy).unwrap(), &old).unwrap();
    }
    let thief = enter(&stolen, &gone).unwrap();
    assert!(thief.damage().is_some() && thief.open_backup(second).is_err());

    // A new kit recovers everything, without any keyring.
    let text = new.recovery_kit().unwrap().to_text();
    for copy in ["keyring/0", "keyring/1", "keyring/2"] {
        objects(&disk).delete(&ObjectName::new(copy).unwrap()).unwrap();
    }
    let kit = RecoveryKit::from_text(&text).unwrap();
    let recovered = enter(&disk, &Secret::Kit(kit)).unwrap();
    assert_eq!(recovered.damage(), None);
    assert!(read(&recovered, first).unwrap() == made);
    assert!(read(&recovered, second).unwrap() == files(2, 2));
}

#[test]
fn whatever_breaks_a_change_of_the_keyring_off_somebody_comes_in() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let before = disk.trace_len();
    repo.add_key(&file(), "safe", COST).unwrap();
    let added = disk.trace_len();
    repo.rotate_keys(&[secret(), file()]).unwrap();
    let end = disk.trace_len();
    let mut walk = disk.walk();
    while walk.step() {
        if walk.ops() < before {
            continue;
        }
        for how in walk.crashes(2) {
            let image = walk.image(how);
            let what = format!("after {} of {end} operations, {how:?}", walk.ops());
            let repo = open(&image).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(repo.damage(), None, "{what}");
            if walk.ops() >= added {
                enter(&image, &file()).unwrap_or_else(|e| panic!("{what}: {e}"));
            }
        }
    }
    let probe = SimDisk::new();
    let (repo, _) = create(&probe);
    let from = probe.operations();
    repo.rotate_keys(&[secret()]).unwrap();
    for nth in 0..probe.operations() - from {
        let disk = SimDisk::new();
        let (repo, _) = create(&disk);
        disk.inject(None, nth, Fault::Eio);
        let outcome = repo.rotate_keys(&[secret()]);
        disk.clear_faults();
        for image in [disk.crash(Crash::Nothing), disk] {
            let repo = open(&image).unwrap_or_else(|e| panic!("operation {nth}: {outcome:?}: {e}"));
            assert_eq!(repo.damage(), None, "operation {nth}: {outcome:?}");
        }
    }
}

#[test]
fn a_rotation_that_was_broken_off_seals_nothing_before_all_copies_have_its_key() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    let from = disk.trace_len();
    repo.rotate_keys(&[secret()]).unwrap();
    drop(repo);
    let (mut walk, mut seen) = (disk.walk(), Vec::new());
    while walk.step() {
        if walk.ops() < from {
            continue;
        }
        let image = walk.image(Crash::Everything);
        let newest = (0..3).map(|copy| keyring(&image, copy).generation).max();
        let have = (0..3).filter(|copy| Some(keyring(&image, *copy).generation) == newest).count();
        if have == 3 || seen.contains(&have) {
            continue;
        }
        seen.push(have);
        // Whatever is sealed now is under the new key; then the copies go bad that were the first to have it.
        let repo = open(&image).unwrap();
        let newer = files(2, 2);
        let second = backup(&repo, Some(id), &newer).unwrap();
        drop(repo);
        for copy in 0..have {
            assert!(image.flip_bit(std::path::Path::new(&format!("/repo/keyring/{copy}")), 60, 1));
        }
        let repo = open(&image).unwrap();
        assert_eq!(repo.damage(), None, "{have}");
        assert!(read(&repo, id).unwrap() == made && read(&repo, second).unwrap() == newer, "{have}");

        // Where the copies can't be made alike, everything can be read, and nothing is sealed.
        let image = walk.image(Crash::Everything);
        image.inject(Some(OpKind::Rename), 0, Fault::Eio);
        let repo = open(&image).unwrap();
        image.clear_faults();
        assert!(read(&repo, id).unwrap() == made, "{have}");
        let refused = backup(&repo, Some(id), &newer).unwrap_err().to_string();
        assert!(refused.contains("not all copies of the keyring have the newest key"), "{refused}");
        drop(repo);
        backup(&open(&image).unwrap(), Some(id), &newer).unwrap();
        fsck(&objects(&image), "in the end");
    }
    assert_eq!(seen, [1, 2]);
}

#[test]
fn a_re_encryption_that_began_in_some_copies_of_the_keyring_goes_on_with_all() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    drop(repo);
    let rekey = |disk: &SimDisk, watch: &dyn Fn() -> bool| {
        Repository::rekey(objects(disk), &[secret()], options(), &|_| watch()).unwrap()
    };
    let from = disk.trace_len();
    assert!(rekey(&disk, &|| true).finished);
    let (mut walk, mut seen) = (disk.walk(), Vec::new());
    while seen.len() < 3 {
        assert!(walk.step());
        if walk.ops() < from {
            continue;
        }
        let image = walk.image(Crash::Everything);
        let begun = (0..3).filter(|copy| keyring(&image, *copy).rekeying).count();
        if begun == 0 || seen.contains(&begun) {
            continue;
        }
        seen.push(begun);
        // The same command again, for an object; then the copy goes bad that was the first to have the new key.
        let asked = Cell::new(0);
        let report = rekey(&image, &|| {
            asked.set(asked.get() + 1);
            asked.get() < 2
        });
        assert!(report.resumed && report.done.segments == 1, "{begun}: {report:?}");
        assert!((0..3).all(|copy| keyring(&image, copy) == keyring(&image, 0)), "{begun}");
        assert!(image.flip_bit(std::path::Path::new("/repo/keyring/0"), 60, 1));
        let repo = open(&image).unwrap();
        assert_eq!(repo.damage(), None, "{begun}");
        assert!(read(&repo, id).unwrap() == made, "{begun}");
        drop(repo);
        assert!(rekey(&image, &|| true).finished);
        assert!(read(&open(&image).unwrap(), id).unwrap() == made, "{begun}");
        fsck(&objects(&image), "in the end");
    }
    assert_eq!(seen, [1, 2, 3]);
}

/// Unlock key and secrets, as a kit's text has them.
fn inside(kit: &RecoveryKit) -> ([u8; 32], Secrets) {
    let text = kit.to_text();
    let digits = text.split("-----").nth(2).unwrap().bytes().filter(u8::is_ascii_hexdigit);
    let digits: Vec<u8> = digits.map(|digit| (digit as char).to_digit(16).unwrap() as u8).collect();
    let bytes: Vec<u8> = digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    let secrets = Secrets::decode(&bytes[52..bytes.len() - 8]).unwrap();
    (bytes[20..52].try_into().unwrap(), secrets)
}

#[test]
fn a_re_encryption_has_a_place_in_a_keyring_that_rotations_have_filled() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    drop(repo);
    // As so many rotations leave it.
    let (unlock, mut secrets) = inside(&kit);
    for generation in 2..KEKS_MAX {
        secrets.keks.push(Kek { generation, key: [generation as u8; 32] });
    }
    let mut full = keyring(&disk, 0);
    (full.generation, full.nonce) = (9999, [9; 12]);
    let (aad, mut body) = (full.aad(), secrets.encode());
    let cipher = aes_gcm::Aes256Gcm::new(&unlock.into());
    let tag = cipher.encrypt_inout_detached(&full.nonce.into(), &aad, body.as_mut_slice().into()).unwrap();
    body.extend_from_slice(&tag);
    full.sealed = body;
    for name in KEYRINGS {
        objects(&disk).replace(&ObjectName::new(name).unwrap(), &full.encode()).unwrap();
    }
    let repo = open(&disk).unwrap();
    let refused = repo.rotate_keys(&[secret()]).unwrap_err().to_string();
    assert!(refused.contains("--rekey"), "{refused}");
    drop(repo);
    let report = Repository::rekey(objects(&disk), &[secret()], options(), &|_| true).unwrap();
    assert!(report.finished && report.rotated.generation == KEKS_MAX, "{report:?}");
    let repo = open(&disk).unwrap();
    assert!(read(&repo, id).unwrap() == made);
    assert_eq!(repo.rotate_keys(&[secret()]).unwrap().generation, KEKS_MAX + 1);
}

#[test]
fn a_kit_opens_what_the_disk_gives_no_copy_of_the_keyring_of() {
    let disk = SimDisk::new();
    let (repo, kit) = create(&disk);
    let made = files(1, 2);
    let id = backup(&repo, None, &made).unwrap();
    let place = Failing::new(objects(&disk));
    KEYRINGS.iter().for_each(|name| place.fail(name, 0..u64::MAX));
    assert!(matches!(Repository::open(place.clone(), &secret(), options()), Err(Error::Io(_))));
    let repo = Repository::open(place, &Secret::Kit(kit), options()).unwrap();
    assert_eq!((repo.damage(), repo.bad_copies().len()), (None, 3));
    assert!(read(&repo, id).unwrap() == made);
}

#[test]
fn keys_that_no_copy_of_the_keyring_has_any_more_seal_nothing() {
    let disk = SimDisk::new();
    let (repo, _) = create(&disk);
    let id = backup(&repo, None, &files(1, 1)).unwrap();
    let from = disk.trace_len();
    repo.rotate_keys(&[secret()]).unwrap();
    drop(repo);
    let mut walk = disk.walk();
    let image = loop {
        assert!(walk.step());
        let image = walk.image(Crash::Everything);
        if walk.ops() > from && (0..3).filter(|copy| keyring(&image, *copy) == keyring(&disk, 0)).count() == 1
        {
            break image;
        }
    };
    // The first lock says who has it open, the second one is the keyring's: nothing can be made alike.
    image.inject(Some(OpKind::Lock), 1, Fault::Eio);
    let repo = open(&image).unwrap();
    image.clear_faults();
    let sealed = |repo: &Repository| repo.lock_backup(id, 99);
    assert!(matches!(sealed(&repo), Err(Error::Refused { .. })));
    // The copy with the new keys is lost, and all are alike.
    objects(&image).replace(&ObjectName::new(KEYRINGS[0]).unwrap(), &keyring(&image, 1).encode()).unwrap();
    let _ = repo.scrub(ScrubOptions::default(), &|_| true);
    assert!(matches!(sealed(&repo), Err(Error::Refused { .. })));
    drop(repo);
    sealed(&open(&image).unwrap()).unwrap();
    fsck(&objects(&image), "in the end");
}
