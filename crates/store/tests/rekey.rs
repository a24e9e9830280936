//! Re-encryption: everything reads as before, and keys from before open nothing. Through crashes at each operation and
//! faults of each, with others that have the repository open, and over damage.
//!
//! `HOLDFAST_CRASH_IMAGES=all` tries every image instead of a sample.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a test program")]

mod common;

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;

use aes_gcm::aead::{AeadInOut, KeyInit};
use common::failing::Failing;
use common::history::{Files, backup, files, fsck, read, rewrite, thorough, touch};
use common::{
    BLOCK, content, create_options, draft, log_record, objects, options, position, put_file, secret, stream,
};
use holdfast_format::ids::{BackupId, RepoId, SegmentId};
use holdfast_format::keyring::{Keyring, Secrets};
use holdfast_format::keys;
use holdfast_format::manifest::Envelope;
use holdfast_format::pack::Pack;
use holdfast_format::record::Record;
use holdfast_format::segment::{FRAME_HEADER_BYTES, Footer, FrameHeader, PAGE_BYTES, SegmentHeader, Trailer};
use holdfast_io::sim::{Crash, Fault};
use holdfast_io::{Directory, ObjectName, Objects, Open, SimDisk};
use holdfast_store::{
    Argon2Cost, Error, LogKind, LogState, OpenOptions, RecoveryKit, RekeyReport, Repository, Secret,
};

/// Packs of few records, so that a short history has some.
fn small_packs() -> OpenOptions {
    OpenOptions { pack_records: 6, ..options() }
}

fn enter(disk: &SimDisk, secret: &Secret) -> Result<Repository, Error> {
    Repository::open(objects(disk), secret, small_packs())
}

fn rekey(disk: &SimDisk) -> Result<RekeyReport, Error> {
    rekey_in(objects(disk))
}

fn rekey_in(objects: Arc<dyn Objects>) -> Result<RekeyReport, Error> {
    Repository::rekey(objects, &[secret()], small_packs(), &|_| true)
}

/// A way in that somebody else knows.
fn stolen() -> Secret {
    Secret::passphrase("given away")
}

/// What a history holds: it has to be the same whatever becomes of the keys.
#[derive(Debug, PartialEq)]
struct Content {
    backups: Vec<(BackupId, Files)>,
    /// Of each log segment: its id, whether a record seals it, and its frames.
    logs: Vec<(SegmentId, bool, Vec<Vec<u8>>)>,
}

fn content_of(repo: &Repository) -> Result<Content, Error> {
    let backups =
        repo.backups().iter().map(|b| Ok((b.id, read(repo, b.id)?))).collect::<Result<_, Error>>()?;
    let logs = repo.logs(stream())?;
    let log = |segment: &holdfast_store::LogSegment| {
        let frames =
            repo.read_log(segment, 0)?.map(|frame| Ok(frame?.plain)).collect::<Result<_, Error>>()?;
        Ok((segment.segment, matches!(segment.state, LogState::Sealed(_)), frames))
    };
    Ok(Content { backups, logs: logs.iter().map(log).collect::<Result<_, Error>>()? })
}

/// Deltas, a carrier, a forgotten backup, packs; logs with a detached footer, sealed, and left open by a dead writer;
/// a log segment that holds nothing; a second slot. Gives the kit of before.
fn history(disk: &SimDisk) -> RecoveryKit {
    let place: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let create = holdfast_store::CreateOptions { open: small_packs(), ..create_options() };
    let (repo, kit) = Repository::create(place, create, &secret()).unwrap();
    repo.add_key(&stolen(), "lost", Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 }).unwrap();
    let mut now = files(1, 3);
    let first = backup(&repo, None, &now).unwrap();
    touch(&mut now, 1, 5);
    let second = backup(&repo, Some(first), &now).unwrap();
    rewrite(&mut now, 0, 7);
    repo.forget(first, "test").unwrap();
    repo.prune(&thorough(), &|_, _| {}).unwrap();
    touch(&mut now, 2, 8);
    backup(&repo, Some(second), &now).unwrap();

    let mut offset = 4;
    let mut stretch = |seal: bool, len: usize| {
        let mut log = repo.begin_log(stream(), position(offset)).unwrap();
        let begin = offset;
        for n in 0..2 {
            log.append(LogKind::Events, &content(offset + n, len)).unwrap();
            log.sync().unwrap();
            offset += len as u64;
        }
        if seal {
            let record = holdfast_store::format::record::LogRecord {
                first: position(begin),
                last: position(offset),
                ..log_record()
            };
            log.seal(record).unwrap();
        }
    };
    stretch(false, 700);
    stretch(true, 5000);
    stretch(false, 300);
    // A writer that died before its opening was whole.
    let name = ObjectName::new(format!("logs/{}", SegmentId([0xee; 16]))).unwrap();
    let mut torn = objects(disk).create(&name).unwrap();
    torn.write(&[0; 100]).unwrap();
    torn.finish().unwrap();
    kit
}

/// The KEKs in a kit, as its text has them.
fn keks(kit: &RecoveryKit) -> HashMap<u32, [u8; 32]> {
    let text = kit.to_text();
    let digits: String = text
        .lines()
        .skip_while(|l| !l.contains("BEGIN"))
        .skip(1)
        .take_while(|l| !l.contains("END"))
        .collect();
    let digits: Vec<u8> = digits.bytes().filter(u8::is_ascii_hexdigit).collect();
    let bytes: Vec<u8> = digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    let secrets = Secrets::decode(&bytes[4 + 16 + 32..bytes.len() - 8]).unwrap();
    secrets.keks.iter().map(|kek| (kek.generation, kek.key)).collect()
}

fn opens(key: &[u8; 32], nonce: [u8; 12], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (body, tag) = sealed.split_last_chunk::<16>()?;
    let mut body = body.to_vec();
    let cipher = aes_gcm::Aes256Gcm::new(&(*key).into());
    cipher.decrypt_inout_detached(&nonce.into(), aad, body.as_mut_slice().into(), &(*tag).into()).ok()?;
    Some(body)
}

/// What somebody has who kept old keys: KEKs, and the data keys that he unwrapped with them.
struct Thief {
    repo: RepoId,
    keks: HashMap<u32, [u8; 32]>,
    data: HashMap<SegmentId, [u8; 32]>,
}

impl Thief {
    /// Opens whatever he can: how many structures of each kind of object. Data keys that he finds he keeps.
    fn opens(&mut self, objects: &dyn Objects) -> BTreeMap<&'static str, usize> {
        let mut opened = BTreeMap::new();
        let mut count = |what| *opened.entry(what).or_insert(0) += 1;
        for name in objects.list("").unwrap() {
            let bytes = objects.read(&name, 0, objects.len(&name).unwrap()).unwrap();
            let (folder, _) = name.as_str().split_once('/').unwrap();
            match folder {
                "manifest" | "manifest2" => {
                    let envelope = Envelope::decode(&bytes).unwrap();
                    let aad = envelope.prefix.encode();
                    for kek in self.keks.values() {
                        let key = keys::manifest_key(kek, self.repo);
                        if opens(&key, envelope.prefix.nonce, &aad, &envelope.sealed).is_some() {
                            count("record");
                        }
                    }
                }
                "packs" => {
                    let pack = Pack::decode(&bytes).unwrap();
                    for kek in self.keks.values() {
                        let key = keys::manifest_key(kek, self.repo);
                        if opens(&key, pack.prefix.nonce, &pack.prefix.encode(), &pack.sealed).is_some() {
                            count("pack");
                        }
                    }
                }
                "segments" | "logs" if !name.as_str().ends_with(".foot") => {
                    let Ok(header) = SegmentHeader::decode(bytes.get(..PAGE_BYTES).unwrap_or(&[])) else {
                        continue;
                    };
                    for birth in &header.births {
                        for (generation, kek) in &self.keks {
                            let key = keys::segment_wrap_key(kek, self.repo, birth.segment);
                            let aad = keys::wrap_aad(self.repo, birth.segment, *generation);
                            if let Some(data) = opens(&key, keys::WRAP_NONCE, &aad, &birth.wrapped_key) {
                                self.data.insert(birth.segment, data.try_into().unwrap());
                                count("wrapped key");
                            }
                        }
                    }
                    let mut at = PAGE_BYTES;
                    while let Some(frame) = bytes.get(at..).and_then(|b| FrameHeader::decode(b).ok()) {
                        let end = at + FRAME_HEADER_BYTES + frame.stored_len as usize;
                        let birth = header.births[usize::from(frame.birth)].segment;
                        if let Some(data) = self.data.get(&birth) {
                            let aad = frame.aad(self.repo, birth);
                            let sealed = &bytes[at + FRAME_HEADER_BYTES..end];
                            if opens(&keys::frame_key(data), keys::frame_nonce(frame.slot), &aad, sealed)
                                .is_some()
                            {
                                count("frame");
                            }
                        }
                        at = end;
                    }
                    self.footer(header.segment, &bytes, &mut count);
                }
                "logs" => {
                    let id = name.as_str()["logs/".len()..].strip_suffix(".foot").unwrap().parse().unwrap();
                    self.footer(id, &bytes, &mut count);
                }
                _ => {}
            }
        }
        opened
    }

    fn footer(&self, id: SegmentId, bytes: &[u8], count: &mut impl FnMut(&'static str)) {
        let Some(trailer) = bytes.last_chunk::<PAGE_BYTES>().and_then(|page| Trailer::decode(page).ok())
        else {
            return;
        };
        let from = trailer.footer_offset as usize;
        let sealed = &bytes[from..from + trailer.footer_len as usize];
        let aad = Footer::aad(self.repo, id, trailer.detached, trailer.frames_end, trailer.frames);
        let nonce = *sealed.first_chunk::<12>().unwrap();
        if let Some(data) = self.data.get(&id)
            && opens(&keys::footer_key(data), nonce, &aad, &sealed[16..]).is_some()
        {
            count("footer");
        }
    }
}

/// All of `before` can be read, with nothing wrong, and nothing old opens anything.
fn settled(disk: &SimDisk, before: &Content, thief: &mut Thief, what: &str) {
    let repo = enter(disk, &secret()).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(repo.damage(), None, "{what}");
    assert_eq!(content_of(&repo).unwrap_or_else(|e| panic!("{what}: {e}")), *before, "{what}");
    fsck(&objects(disk), what);
    assert_eq!(thief.opens(objects(disk).as_ref()), BTreeMap::new(), "{what}");
}

fn thief_of(disk: &SimDisk, kit: &RecoveryKit) -> (Thief, BTreeMap<&'static str, usize>) {
    let mut thief = Thief { repo: kit.repo(), keks: keks(kit), data: HashMap::new() };
    let opened = thief.opens(objects(disk).as_ref());
    (thief, opened)
}

#[test]
fn everything_reads_as_before_and_nothing_opens_with_old_keys() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    assert_eq!((before.backups.len(), before.logs.len()), (2, 3));
    let old: Vec<Vec<u8>> = ["keyring/0", "keyring/1", "keyring/2"]
        .map(|name| {
            let name = ObjectName::new(name).unwrap();
            objects(&disk).read(&name, 0, objects(&disk).len(&name).unwrap()).unwrap()
        })
        .into();
    let sizes = |disk: &SimDisk| -> BTreeMap<String, u64> {
        let objects = objects(disk);
        let names = objects.list("segments/").unwrap();
        names.iter().map(|name| (name.to_string(), objects.len(name).unwrap())).collect()
    };
    let layout = sizes(&disk);
    // The thief's tools work: with the keys of before he opens everything that there is before.
    let (mut thief, opened) = thief_of(&disk, &kit);
    for what in ["record", "pack", "wrapped key", "frame", "footer"] {
        assert!(opened.contains_key(what), "{what}: {opened:?}");
    }
    let (plan, slots) = enter(&disk, &secret()).unwrap().plan_rekey(&[secret()]).unwrap();
    assert_eq!((plan.resumes, plan.logs), (false, 4), "{plan:?}");

    let report = rekey(&disk).unwrap();
    assert!(report.finished && !report.resumed && report.left.is_empty(), "{report:?}");
    assert_eq!(report.done.segments, plan.segments);
    // The plan told which ways in go and which stay.
    assert_eq!(slots, report.rotated);
    assert_eq!(report.rotated.removed.iter().map(|s| s.label.as_str()).collect::<Vec<_>>(), ["lost"]);
    assert_eq!(sizes(&disk), layout, "a segment keeps its layout");
    settled(&disk, &before, &mut thief, "after it");
    assert!(matches!(enter(&disk, &stolen()), Err(Error::WrongSecret)));

    // An old copy of the keyring with the passphrase that went with it, or an old kit: they open nothing.
    let taken = disk.crash(Crash::Everything);
    for (name, bytes) in ["keyring/0", "keyring/1", "keyring/2"].iter().zip(&old) {
        objects(&taken).replace(&ObjectName::new(*name).unwrap(), bytes).unwrap();
    }
    for (disk, secret) in [(&taken, stolen()), (&disk, Secret::Kit(kit))] {
        assert!(matches!(enter(disk, &secret), Err(Error::KeyLacking { .. })));
    }

    // It goes on as any repository: backups, logs, prunes, rotations, and the next re-encryption, over these records.
    let repo = enter(&disk, &secret()).unwrap();
    let kit = repo.recovery_kit().unwrap();
    let last = before.backups.last().unwrap();
    let mut now = last.1.clone();
    touch(&mut now, 1, 77);
    let id = backup(&repo, Some(last.0), &now).unwrap();
    repo.prune(&thorough(), &|_, _| {}).unwrap();
    let log = repo.begin_log(stream(), position(12_004)).unwrap();
    drop(log);
    drop(repo);
    fsck(&objects(&disk), "after another backup");
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    assert_eq!(before.backups.last().unwrap(), &(id, now));
    let (mut thief, opened) = thief_of(&disk, &kit);
    assert!(opened["frame"] > 0);
    assert!(rekey(&disk).unwrap().finished);
    settled(&disk, &before, &mut thief, "after the second one");
}

#[test]
fn whatever_breaks_a_re_encryption_off_it_opens_and_goes_on() {
    let all = std::env::var("HOLDFAST_CRASH_IMAGES").is_ok_and(|v| v == "all");
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    let from = disk.trace_len();
    assert!(rekey(&disk).unwrap().finished);
    let (mut images, mut completed, mut walk) = (0_u64, 0_u64, disk.walk());
    while walk.step() {
        let ops = walk.ops();
        if ops < from {
            continue;
        }
        for (at, how) in walk.crashes(if all { 16 } else { 2 }).into_iter().enumerate() {
            // Nothing and everything in turn; now and then another one.
            if !all && ((ops + at) % 2 != 0 || (at > 1 && (at + ops) % 19 != 0)) {
                continue;
            }
            let image = walk.image(how);
            let what = format!("after {ops} of {} operations, {how:?}", disk.trace_len());
            let repo = enter(&image, &secret()).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(repo.damage(), None, "{what}");
            let found = content_of(&repo).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(found, before, "{what}");
            drop(repo);
            fsck(&objects(&image), &what);
            images += 1;
            if all || images % 8 == 0 {
                let report = rekey(&image).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(report.finished, "{what}: {report:?}");
                settled(&image.crash(Crash::Nothing), &before, &mut thief, &what);
                completed += 1;
            }
        }
    }
    println!("{images} images of {} operations, {completed} completed", disk.trace_len() - from);
    assert!(images > 100 && completed > 10, "{images} images, {completed} completed");
}

#[test]
fn when_any_operation_of_a_re_encryption_fails_it_opens_and_goes_on() {
    let all = std::env::var("HOLDFAST_CRASH_IMAGES").is_ok_and(|v| v == "all");
    let probe = SimDisk::new();
    history(&probe);
    let place = objects(&probe);
    let from = probe.operations();
    rekey_in(place).unwrap();
    let operations = probe.operations() - from;
    for (kind, fault) in [Fault::Eio, Fault::Enospc].into_iter().enumerate() {
        for nth in (kind as u64..operations).step_by(if all { 1 } else { 67 }) {
            let disk = SimDisk::new();
            let kit = history(&disk);
            let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
            let (mut thief, _) = thief_of(&disk, &kit);
            let place = objects(&disk);
            disk.inject(None, nth, fault);
            let outcome = rekey_in(place).map(|report| (report.finished, report.left));
            disk.clear_faults();
            let what = format!("{fault:?} at operation {nth} of {operations}: {outcome:?}");
            for image in [disk.crash(Crash::Nothing), disk] {
                let found = enter(&image, &secret()).and_then(|repo| content_of(&repo));
                assert_eq!(found.unwrap_or_else(|e| panic!("{what}: {e}")), before, "{what}");
                fsck(&objects(&image), &what);
                let report = rekey(&image).unwrap_or_else(|e| panic!("{what}: {e}"));
                assert!(report.finished, "{what}: {report:?}");
                settled(&image, &before, &mut thief, &what);
            }
        }
    }
}

#[test]
fn nobody_has_the_repository_open_meanwhile_and_a_stop_is_gone_on_from() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let repo = enter(&disk, &secret()).unwrap();
    let before = content_of(&repo).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    let keyring = objects(&disk).read(&ObjectName::new("keyring/0").unwrap(), 0, 48).unwrap();
    let refused = rekey(&disk).unwrap_err();
    assert!(matches!(&refused, Error::InUse { by } if by.contains("another command")), "{refused}");
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "x", &content(9, 100));
    drop(repo);
    let refused = rekey(&disk).unwrap_err();
    assert!(matches!(&refused, Error::InUse { by } if by == "a backup"), "{refused}");
    writer.commit(draft()).unwrap();
    // A refusal changed nothing.
    assert_eq!(objects(&disk).read(&ObjectName::new("keyring/0").unwrap(), 0, 48).unwrap(), keyring);
    let before = Content { logs: before.logs, ..content_of(&enter(&disk, &secret()).unwrap()).unwrap() };

    let asked = Cell::new(0);
    let stopped = Repository::rekey(objects(&disk), &[secret()], small_packs(), &|_| {
        assert!(matches!(enter(&disk, &secret()), Err(Error::Rekeying)));
        let by_fsck = holdfast_fsck::Secret::Passphrase(b"correct horse".to_vec());
        let by_fsck = holdfast_fsck::check(
            objects(&disk).as_ref(),
            &by_fsck,
            holdfast_fsck::Options::default(),
            &holdfast_fsck::Progress::default(),
        );
        assert!(matches!(by_fsck, Err(holdfast_fsck::Error::Rekeying)));
        asked.set(asked.get() + 1);
        asked.get() < 4
    });
    let stopped = stopped.unwrap();
    assert!(!stopped.finished && stopped.left.is_empty() && stopped.done.segments == 3, "{stopped:?}");
    let gone = enter(&disk, &stolen());
    assert!(matches!(gone, Err(Error::WrongSecret)), "its slot went with the first run");
    // Between the two runs the repository is used as ever, and a rotation is one more.
    let repo = enter(&disk, &secret()).unwrap();
    assert_eq!(content_of(&repo).unwrap(), before);
    let (plan, slots) = repo.plan_rekey(&[secret()]).unwrap();
    assert!(plan.resumes && slots.removed.is_empty() && slots.generation == 2, "{plan:?} {slots:?}");
    assert!(matches!(repo.plan_rekey(&[stolen()]).map(|(plan, _)| plan.resumes), Ok(true)));
    repo.rotate_keys(&[secret()]).unwrap();
    drop(repo);
    let report = rekey(&disk).unwrap();
    assert!(report.finished && report.resumed, "{report:?}");
    settled(&disk, &before, &mut thief, "after both");
    let repo = enter(&disk, &secret()).unwrap();
    assert!(!repo.plan_rekey(&[secret()]).unwrap().0.resumes);
    assert!(matches!(repo.plan_rekey(&[stolen()]), Err(Error::WrongSecret)));
}

#[test]
fn rot_is_healed_on_the_way_and_what_is_past_healing_is_named_and_keeps_the_old_keys() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    let largest =
        objects(&disk).list("segments/").unwrap().into_iter().max_by_key(|n| objects(&disk).len(n).unwrap());
    let largest = largest.unwrap();
    let path = std::path::Path::new("/repo").join(largest.as_str());
    let len = objects(&disk).len(&largest).unwrap();
    // One copy of a record, one page of a segment: what parity and copies make good is good afterwards.
    disk.flip_bit(std::path::Path::new("/repo/manifest2/0000000000000002"), 120, 3);
    disk.flip_bit(&path, 5000, 1);
    let lost = disk.crash(Crash::Everything);
    assert!(rekey(&disk).unwrap().finished);
    settled(&disk, &before, &mut thief, "healed");

    for at in (0..len).step_by(4096) {
        lost.flip_bit(&path, at + 9, 1);
    }
    let report = rekey(&lost).unwrap();
    assert!(!report.finished && report.left.len() == 1, "{report:?}");
    assert!(report.left[0].contains(largest.as_str()), "{report:?}");
    let again = rekey(&lost).unwrap();
    assert!(
        !again.finished && again.resumed && again.done.segments == 0 && again.left == report.left,
        "{again:?}"
    );
    // What it advises helps: the backups that need it are forgotten, a prune removes it, the same command ends.
    assert!(!report.needed_by.is_empty() && report.needed_by == again.needed_by, "{report:?}");
    let repo = enter(&lost, &secret()).unwrap();
    for id in &report.needed_by {
        repo.forget(*id, "damaged").unwrap();
    }
    repo.prune(&thorough(), &|_, _| {}).unwrap();
    let kept = content_of(&repo).unwrap();
    assert_eq!(kept.backups.len(), before.backups.len() - report.needed_by.len());
    drop(repo);
    assert!(rekey(&lost).unwrap().finished);
    settled(&lost, &kept, &mut thief, "without what was damaged");

    // What a repair took away is sealed under old keys: that is said before anything is done.
    let aside = ObjectName::new("quarantine/1/segments/x").unwrap();
    objects(&disk).put_if_absent(&aside, b"old").unwrap();
    let refused = rekey(&disk).unwrap_err().to_string();
    assert!(refused.contains("quarantine/"), "{refused}");
}

#[test]
fn what_the_disk_does_not_give_is_healed_or_left_and_the_rest_goes_on() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    let names = |folder: &str| objects(&disk).list(folder).unwrap();
    let largest = names("segments/").into_iter().max_by_key(|n| objects(&disk).len(n).unwrap()).unwrap();
    let log = names("logs/").into_iter().max_by_key(|n| objects(&disk).len(n).unwrap()).unwrap();

    let image = disk.crash(Crash::Everything);
    let place = Failing::new(objects(&image));
    place.fail(largest.as_str(), 5000..5001);
    place.fail("manifest/0000000000000002", 0..9);
    let pack = names("packs/")[0].clone();
    place.fail(pack.as_str(), 0..9);
    let report = rekey_in(place).unwrap();
    assert!(report.finished, "{report:?}");
    settled(&image, &before, &mut thief, "healed");
    let records = enter(&image, &secret()).unwrap().records();
    let healed = records.iter().filter(|r| matches!(&r.record, Record::Healed(h) if h.by == "re-encryption"));
    assert_eq!(healed.count(), 1);

    let place = Failing::new(objects(&disk));
    place.fail(largest.as_str(), 0..u64::MAX);
    place.fail(log.as_str(), 4097..4098);
    let report = rekey_in(place.clone()).unwrap();
    assert!(!report.finished && report.left.len() == 2 && report.done.segments > 0, "{report:?}");
    for (left, name) in report.left.iter().zip([largest, log]) {
        assert!(left.contains(name.as_str()) && left.contains("os error 5"), "{left}");
    }
    // The disk is well again: the same command ends it.
    assert!(rekey(&disk).unwrap().finished);
    settled(&disk, &before, &mut thief, "in the end");
}

#[test]
fn what_died_writers_left_goes_first_and_takes_no_space() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    // A backup that was killed leaves a segment without an end.
    let image = disk.crash(Crash::Everything);
    let repo = enter(&image, &secret()).unwrap();
    let writer = repo.begin_backup(None).unwrap();
    put_file(&writer, "x", &content(99, 9 * BLOCK));
    writer.barrier().unwrap();
    let image = image.crash(Crash::Everything);
    drop(writer);
    let count = |disk: &SimDisk| objects(disk).list("segments/").unwrap().len();
    assert!(count(&image) > count(&disk), "the backup left a segment");
    // A re-encryption that was killed leaves a temporary file, and there is no space for another one.
    let largest = objects(&image).list("segments/").unwrap();
    let largest = largest.iter().map(|n| objects(&image).len(n).unwrap()).max().unwrap();
    let left = image.shared().open(Path::new("/repo/segments/.tmp-1-2-3"), Open::CreateNew).unwrap();
    left.write_all_at(0, &vec![7; 4 * largest as usize]).unwrap();
    drop(left);
    image.set_capacity(Some(image.used() + largest / 2));
    let report = rekey(&image).unwrap_or_else(|e| panic!("{e}"));
    assert!(report.finished, "{report:?}");
    assert!(!image.shared().exists(Path::new("/repo/segments/.tmp-1-2-3")).unwrap());
    assert_eq!(count(&image), count(&disk));
    settled(&image, &before, &mut thief, "after a killed backup");
}

#[test]
fn broken_off_in_its_last_step_it_ends_without_sealing_anything_again() {
    let disk = SimDisk::new();
    let kit = history(&disk);
    let before = content_of(&enter(&disk, &secret()).unwrap()).unwrap();
    let (mut thief, _) = thief_of(&disk, &kit);
    let from = disk.trace_len();
    assert!(rekey(&disk).unwrap().finished);
    let keyring = |disk: &SimDisk, copy: usize| {
        let name = ObjectName::new(format!("keyring/{copy}")).unwrap();
        Keyring::decode(&objects(disk).read(&name, 0, objects(disk).len(&name).unwrap()).unwrap()).unwrap()
    };
    // Each moment at which the first copy says that it has ended, but the last record does not.
    let (mut walk, mut seen) = (disk.walk(), Vec::new());
    while walk.step() {
        if walk.ops() < from {
            continue;
        }
        let image = walk.image(Crash::Everything);
        let newer = (0..3).filter(|copy| keyring(&image, *copy).generation == 4).count();
        let told = enter(&image, &secret()).unwrap().records().iter().any(|stamped| {
            matches!(&stamped.record, Record::KeysChanged { what } if what.starts_with("re-encrypted:"))
        });
        if newer == 0 || told || seen.contains(&newer) {
            continue;
        }
        seen.push(newer);
        let segments: Vec<_> = objects(&image).list("segments/").unwrap();
        let bytes = |image: &SimDisk| -> Vec<Vec<u8>> {
            let read = |name| objects(image).read(name, 0, objects(image).len(name).unwrap()).unwrap();
            segments.iter().map(read).collect()
        };
        let sealed = bytes(&image);
        let report = rekey(&image).unwrap();
        assert!(report.finished && report.resumed && report.done.bytes == 0, "{newer}: {report:?}");
        assert!(bytes(&image) == sealed, "nothing was sealed again");
        assert!((0..3).all(|copy| keyring(&image, copy) == keyring(&image, 0)));
        settled(&image, &before, &mut thief, "ended");
        // The next one is a new one.
        let report = rekey(&image).unwrap();
        assert!(report.finished && !report.resumed && report.done.segments > 0, "{report:?}");
    }
    assert_eq!(seen, [1, 2, 3]);
}
