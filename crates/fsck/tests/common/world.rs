//! A repository that lives through whatever a test does to it, beside a naive model of what it must hold.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use holdfast_fsck::{Options, Progress, RepairOptions, Repaired, Report, Scope, Secret, check, repair};
use holdfast_io::sim::{Crash, Fault, Op};
use holdfast_io::{Directory, ObjectName, Objects, SimDisk};
use holdfast_store::format::ids::BackupId;
use holdfast_store::format::keyring::Keyring;
use holdfast_store::format::manifest::Envelope;
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::Record;
use holdfast_store::{
    Error, FileSpec, FixedClock, LogFrame, LogKind, LogWriter, OpenOptions, PruneOptions, Repository,
    ScrubOptions, parity,
};

use crate::common::{
    self as common_crate, BLOCK, PASSPHRASE, draft, log_record, noise, page_like, position, secret, stream,
};

/// Files by path.
pub type Files = BTreeMap<String, Vec<u8>>;

/// A small generator (SplitMix64), so that a seed means the same run for ever.
pub struct Chance(pub u64);

impl Chance {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
}

/// A number from the environment, or a default.
pub fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Reads everything of a backup.
pub fn read_backup(repo: &Repository, id: BackupId) -> Result<Files, Error> {
    let reader = repo.open_backup(id)?;
    let mut files = Files::new();
    let entries: Vec<_> = reader.files().cloned().collect();
    for (number, entry) in entries.iter().enumerate() {
        let mut bytes = vec![0; entry.len as usize];
        assert_eq!(reader.read_at(number as u32, 0, &mut bytes)?, bytes.len());
        files.insert(String::from_utf8(entry.path.clone()).unwrap(), bytes);
    }
    Ok(files)
}

/// Writes a backup of these files and commits it.
pub fn back_up(
    repo: &Repository,
    parent: Option<BackupId>,
    files: &Files,
    commit: bool,
) -> Result<Option<BackupId>, Error> {
    let writer = repo.begin_backup(parent)?;
    for (path, bytes) in files {
        let spec = FileSpec {
            path: path.clone().into_bytes(),
            kind: FileKind::Regular,
            len: bytes.len() as u64,
            mode: 0o640,
            mtime_us: 7,
        };
        let file = writer.add_file(spec)?;
        for (block, data) in bytes.chunks(BLOCK).enumerate() {
            writer.put_block(file, block as u32, data)?;
        }
    }
    if !commit {
        writer.barrier()?;
        return Ok(None);
    }
    Ok(Some(writer.commit(draft("world"))?.id))
}

/// What a world must hold whatever becomes of the step that comes next.
pub struct Owed {
    backups: BTreeMap<BackupId, Files>,
    frames: Vec<Vec<u8>>,
    rotten: BTreeSet<String>,
    /// Operations of the disk until then.
    operations: usize,
}

/// The repository, two processes that have it open, and what it must hold.
pub struct World {
    pub disk: SimDisk,
    pub repos: Vec<Repository>,
    pub log: Option<LogWriter>,
    /// Acknowledged and not forgotten.
    pub backups: BTreeMap<BackupId, Files>,
    /// Frames whose sync was acknowledged, in order.
    pub frames: Vec<Vec<u8>>,
    /// Frames appended since.
    unsynced: Vec<Vec<u8>>,
    files: Files,
    /// Objects with rot in them; each is within what copies or parity bring back.
    pub rotten: BTreeSet<String>,
    offset: u64,
    /// Where the log ends as far as it was acknowledged, and where its open segment began.
    acknowledged: u64,
    began: u64,
    clock_us: i64,
    /// An operation was told to fail since everything was opened last.
    faulty: bool,
    pub chance: Chance,
}

impl World {
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new();
        let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
        drop(common_crate::create(&objects, 64));
        let mut files = Files::new();
        files.insert("shop/a.ibd".into(), page_like(seed | 1, 2 * BLOCK + 100));
        files.insert("shop/b.ibd".into(), noise(seed | 1, BLOCK / 2));
        let mut world = Self {
            disk,
            repos: Vec::new(),
            log: None,
            backups: BTreeMap::new(),
            frames: Vec::new(),
            unsynced: Vec::new(),
            files,
            rotten: BTreeSet::new(),
            offset: 4,
            acknowledged: 4,
            began: 4,
            clock_us: 1_700_000_000_000_000,
            faulty: false,
            chance: Chance(seed),
        };
        world.open();
        world
    }

    pub fn objects(&self) -> Arc<dyn Objects> {
        Arc::new(Directory::open(self.disk.shared(), "/repo").unwrap())
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { pack_records: 3, ..OpenOptions::new(Arc::new(FixedClock::new(self.clock_us))) }
    }

    /// Every process opens the repository anew.
    pub fn open(&mut self) {
        self.disk.clear_faults();
        self.faulty = false;
        self.log = None;
        self.unsynced.clear();
        self.repos.clear();
        let opened = (0..2).map(|_| Repository::open(self.objects(), &secret(), self.options()).unwrap());
        self.repos = opened.collect();
        for repo in &self.repos {
            assert!(repo.damage().is_none(), "{:?}", repo.damage());
        }
        // The next writer goes on behind what was acknowledged, or behind a seal that failed in its last step.
        for stamped in self.repos[0].records() {
            if let Record::LogSealed(log) = &stamped.record {
                self.acknowledged = self.acknowledged.max(log.last.offset);
            }
        }
        self.offset = self.acknowledged;
    }

    /// The repository, opened by one process more.
    pub fn fresh(&self) -> Repository {
        Repository::open(self.objects(), &secret(), self.options()).unwrap()
    }

    /// The clock is somewhere else from the next opening on.
    pub fn jump(&mut self) {
        let days = i64::try_from(self.chance.below(800)).unwrap() - 400;
        self.clock_us += days * 86_400_000_000;
    }

    fn process(&mut self) -> usize {
        self.chance.below(2) as usize
    }

    pub fn back_up(&mut self, commit: bool) -> Result<(), Error> {
        let changes = 1 + self.chance.below(3);
        for _ in 0..changes {
            let (at, seed) = (self.chance.below(3), self.chance.next());
            let file = self.files.get_mut("shop/a.ibd").unwrap();
            let block = (at as usize * BLOCK).min(file.len() - 1);
            let end = (block + 300).min(file.len());
            let with = noise(seed, end - block);
            file[block..end].copy_from_slice(&with);
        }
        if self.chance.below(4) == 0 {
            let len = 1 + self.chance.below(BLOCK as u64) as usize;
            self.files
                .insert(format!("shop/n{}", self.chance.below(3)), page_like(self.chance.next() | 1, len));
        }
        let process = self.process();
        let repo = self.repos[process].clone();
        repo.refresh()?;
        let parent = repo.backups().last().map(|b| b.id).filter(|_| self.chance.below(5) > 0);
        if let Some(id) = back_up(&repo, parent, &self.files, commit)? {
            self.backups.insert(id, self.files.clone());
        }
        Ok(())
    }

    pub fn append(&mut self) -> Result<(), Error> {
        if self.log.is_none() {
            let process = self.process();
            self.began = self.offset;
            self.log = Some(self.repos[process].begin_log(stream(), position(self.offset, ""))?);
        }
        let bytes = page_like(self.chance.next() | 1, 50 + self.chance.below(3000) as usize);
        self.offset += bytes.len() as u64;
        let log = self.log.as_mut().unwrap();
        log.append(LogKind::Events, &bytes)?;
        self.unsynced.push(bytes);
        if self.chance.below(3) > 0 {
            self.log.as_mut().unwrap().sync()?;
            self.frames.append(&mut self.unsynced);
            self.acknowledged = self.offset;
        }
        Ok(())
    }

    pub fn seal(&mut self) -> Result<(), Error> {
        let Some(log) = self.log.take() else { return Ok(()) };
        // Sealing syncs: what it acknowledges counts.
        let pending = std::mem::take(&mut self.unsynced);
        log.seal(log_record(self.began, self.offset, "", ""))?;
        self.acknowledged = self.offset;
        self.frames.extend(pending);
        Ok(())
    }

    pub fn scrub(&mut self) -> Result<(), Error> {
        let process = self.process();
        let repo = self.repos[process].clone();
        let done = repo.scrub(ScrubOptions::default(), &|_| true)?;
        // A disk that refuses something leaves that for the next one.
        assert!(done.lost.is_empty() && (done.left.is_empty() || self.faulty), "{done:?}");
        if done.round_over && done.left.is_empty() {
            self.rotten.clear();
        }
        Ok(())
    }

    /// Somebody says that a backup is not wanted any more. Whether it is listed from then on, nobody asks if that fails.
    pub fn forget(&mut self) -> Result<(), Error> {
        let nth = self.chance.below(self.backups.len().max(1) as u64) as usize;
        let Some(id) = self.backups.keys().nth(nth).copied() else { return Ok(()) };
        self.backups.remove(&id);
        let process = self.process();
        self.repos[process].forget(id, "not wanted").map(|_| ())
    }

    /// Garbage collection, with or without compaction.
    pub fn prune(&mut self) -> Result<(), Error> {
        let options = PruneOptions {
            dead_percent_max: [0, 10, 100][self.chance.below(3) as usize],
            ..PruneOptions::default()
        };
        let process = self.process();
        self.repos[process].prune(&options, &|_, _| {})?;
        // A failure that did not come yet is not for the look around.
        self.disk.clear_faults();
        self.forget_what_is_whole();
        Ok(())
    }

    /// New keys for all that is written from here on: whoever has the repository open begins anew.
    pub fn rotate(&mut self) -> Result<(), Error> {
        let process = self.process();
        self.repos[process].rotate_keys(&[secret()])?;
        self.open();
        self.forget_what_is_whole();
        Ok(())
    }

    /// One bit somewhere rots, where parity or a copy can still help.
    pub fn rot(&mut self) {
        self.disk.clear_faults();
        let objects = self.objects();
        let names: Vec<ObjectName> = objects.list("").unwrap();
        let sealed = |n: &ObjectName| {
            let len = objects.len(n).unwrap();
            len >= 8192 && objects.read(n, len - 4096, 8).is_ok_and(|m| m == b"HFTRAIL\0")
        };
        let fit: Vec<&ObjectName> = names
            .iter()
            .filter(|n| {
                let n_text = n.as_str();
                let copies = |folders: &[&str]| {
                    let number = n_text.rsplit('/').next().unwrap();
                    !folders.iter().any(|f| self.rotten.contains(&format!("{f}/{number}")))
                };
                match n_text.split('/').next().unwrap() {
                    "segments" => !self.rotten.contains(n_text) && sealed(n),
                    "manifest" | "manifest2" => copies(&["manifest", "manifest2"]),
                    "keyring" => !self.rotten.iter().any(|r| r.starts_with("keyring/")),
                    _ => false,
                }
            })
            .collect();
        let Some(name) = fit.get(self.chance.below(fit.len() as u64) as usize) else { return };
        let offset = self.chance.below(objects.len(name).unwrap());
        assert!(self.disk.flip_bit(format!("/repo/{name}").as_ref(), offset, self.chance.below(8) as u8));
        self.rotten.insert(name.to_string());
    }

    /// A re-encryption while nobody else is at work: to its end, stopped somewhere, or failing somewhere. What it reads
    /// it heals.
    pub fn rekey(&mut self, label: &str) {
        self.disk.clear_faults();
        self.log = None;
        self.unsynced.clear();
        self.repos.clear();
        let objects = self.objects();
        for name in objects.list("quarantine/").unwrap() {
            objects.delete(&name).unwrap();
        }
        let stops_after = Some(self.chance.below(20)).filter(|calls| *calls < 10);
        let calls = Cell::new(0);
        let watch = |_| {
            calls.set(calls.get() + 1);
            stops_after.is_none_or(|last| calls.get() <= last)
        };
        if self.chance.below(3) == 0 {
            let fault = [Fault::Eio, Fault::Enospc][self.chance.below(2) as usize];
            self.disk.inject(None, self.chance.below(400), fault);
        }
        match Repository::rekey(Arc::clone(&objects), &[secret()], self.options(), &watch) {
            Ok(done) => {
                let told = done.finished || stops_after.is_some() || !done.left.is_empty();
                assert!(told, "{label}: {done:?}");
            }
            Err(Error::Io(_) | Error::Stopped { .. }) => self.crash(),
            Err(e) => panic!("{label}: {e}"),
        }
        self.open();
        self.forget_what_is_whole();
    }

    /// What was written anew meanwhile is not rotten any more: a re-encryption heals what it reads, an append renews the
    /// copies of the last record.
    pub fn forget_what_is_whole(&mut self) {
        let (repo, objects) = (self.repos[0].id(), self.objects());
        self.rotten.retain(|name| {
            let object = ObjectName::new(name.as_str()).unwrap();
            let Ok(len) = objects.len(&object) else { return false };
            let bytes = objects.read(&object, 0, len).unwrap();
            match name.split_once('/').unwrap() {
                ("segments", id) => {
                    let healed = parity::heal(repo, id.parse().unwrap(), &bytes).unwrap();
                    healed != parity::Healed::Intact
                }
                ("keyring", _) => Keyring::decode(&bytes).is_err(),
                _ => Envelope::decode(&bytes).is_err(),
            }
        });
    }

    /// The machine dies with what was not synced lost, torn, shuffled; everything opens anew.
    pub fn crash(&mut self) {
        let how = match self.chance.below(4) {
            0 => Crash::Nothing,
            1 => Crash::Everything,
            _ => Crash::Random { seed: self.chance.next() },
        };
        self.log = None;
        self.repos.clear();
        self.disk = self.disk.crash(how);
        self.open();
    }

    /// What is acknowledged by now.
    pub fn owed(&self) -> Owed {
        let (backups, frames) = (self.backups.clone(), self.frames.clone());
        Owed { backups, frames, rotten: self.rotten.clone(), operations: self.disk.trace_len() }
    }

    /// The machine dies at syncs of the step since `owed`, each one that `chosen` says yes to: in front of it with all
    /// that was written there, and behind it with nothing that was not synced. So many images.
    pub fn crashes_since(&self, owed: &Owed, chosen: &mut dyn FnMut() -> bool, label: &str) -> u64 {
        let mut images = 0;
        let trace = self.disk.trace();
        for (at, op) in trace.iter().enumerate().skip(owed.operations) {
            if !matches!(op, Op::Sync { .. } | Op::SyncDir { .. }) || !chosen() {
                continue;
            }
            for (ops, how) in [(at, Crash::Everything), (at + 1, Crash::Nothing)] {
                let label = format!("{label}; a crash after {ops} of {} operations, {how:?}", trace.len());
                // What the step itself forgets may be gone.
                let wanted = |id: &BackupId| self.backups.contains_key(id);
                let mut found = Self {
                    disk: self.disk.crash_at(ops, how),
                    repos: Vec::new(),
                    log: None,
                    backups: owed.backups.clone().into_iter().filter(|(id, _)| wanted(id)).collect(),
                    frames: owed.frames.clone(),
                    unsynced: Vec::new(),
                    files: Files::new(),
                    rotten: owed.rotten.union(&self.rotten).cloned().collect(),
                    chance: Chance(self.chance.0),
                    ..*self
                };
                found.verify(&label);
                let report = found.check(Scope::Full);
                assert!(report.clean || !found.rotten.is_empty(), "{label}:\n{}", report.text());
                images += 1;
            }
        }
        images
    }

    /// One of the next operations of the disk fails.
    pub fn fault(&mut self) {
        let fault = [Fault::Eio, Fault::Enospc][self.chance.below(2) as usize];
        self.disk.inject(None, self.chance.below(60), fault);
        self.faulty = true;
    }

    pub fn check(&self, scope: Scope) -> Report {
        let options = Options { scope, seed: self.chance.0 };
        check(self.objects().as_ref(), &Secret::Passphrase(PASSPHRASE.into()), options, &Progress::default())
            .unwrap()
    }

    pub fn repair(&mut self) -> Repaired {
        self.disk.clear_faults();
        let options = RepairOptions { dry_run: false, index_only: false, now_us: self.clock_us };
        let secret = Secret::Passphrase(PASSPHRASE.into());
        let done = repair(self.objects().as_ref(), &secret, options, &Progress::default()).unwrap();
        self.rotten.clear();
        done
    }

    /// Everything acknowledged is there and right; nothing else is listed that is not whole.
    pub fn verify(&mut self, label: &str) {
        self.disk.clear_faults();
        let repo = Repository::open(self.objects(), &secret(), self.options())
            .unwrap_or_else(|e| panic!("{label}: does not open: {e}"));
        assert!(repo.damage().is_none(), "{label}: {:?}", repo.damage());
        let listed: BTreeSet<BackupId> = repo.backups().iter().map(|b| b.id).collect();
        for (id, files) in &self.backups {
            assert!(listed.contains(id), "{label}: backup {id} is lost");
            let read = read_backup(&repo, *id);
            match read {
                Ok(read) => assert!(read == *files, "{label}: backup {id} has other bytes"),
                // Until somebody heals it, rot may stop a reader; it may not give it other bytes.
                Err(e) => assert!(!self.rotten.is_empty() && e.is_damage(), "{label}: backup {id}: {e}"),
            }
        }
        for id in listed {
            if !self.backups.contains_key(&id) {
                // A commit that failed in its last step may have come through, until a crash takes it; then it is whole.
                let read = read_backup(&repo, id);
                assert!(
                    read.is_ok() || !self.rotten.is_empty(),
                    "{label}: backup {id} is listed and not whole"
                );
            }
        }
        let mut frames = Vec::new();
        for segment in repo.logs(stream()).unwrap() {
            let frame = |f: Result<LogFrame, Error>| f.unwrap_or_else(|e| panic!("{label}: {e}")).plain;
            frames.extend(repo.read_log(&segment, 0).unwrap().map(frame));
        }
        // What was appended and not acknowledged may be between.
        let mut at = frames.iter();
        for due in &self.frames {
            assert!(at.any(|f| f == due), "{label}: an acknowledged frame is lost");
        }
    }
}
