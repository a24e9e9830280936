//! A repository on the disk that gets one backup after the other, and what a restore of one costs.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use holdfast_io::{Directory, Disk, RealDisk};
use holdfast_store::format::ids::{BackupId, ServerId};
use holdfast_store::format::limits::BLOCK_BYTES;
use holdfast_store::format::map::FileKind;
use holdfast_store::format::record::{
    BackupRecord, Coordinates, Record, ServerKind, ServerRecord, SourceKind,
};
use holdfast_store::{
    Argon2Cost, BackupDraft, CreateOptions, FileSpec, FixedClock, OpenOptions, PruneOptions, PruneReport,
    Repository, RestoreOptions, Secret,
};

use super::Failed;
use super::tables::Tables;
use crate::rig::folder::{files_below, remove};
use crate::rig::measure::own_seconds;

const SERVER: ServerId = ServerId([1; 16]);

/// A moment; no time passes in a bench.
const NOW_US: i64 = 1_700_000_000_000_000;

/// A repository in a folder, open.
pub struct Aged {
    home: PathBuf,
    disk: Arc<dyn Disk>,
    /// Itself.
    pub repository: Repository,
    /// The backups that are wanted, oldest first.
    pub kept: Vec<BackupId>,
}

/// What a restore cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    /// Wall time, the sync included.
    pub seconds: f64,
    /// Processor time.
    pub cpu_seconds: f64,
    /// Bytes read from the device.
    pub read_bytes: u64,
}

fn options(depth: u8) -> OpenOptions {
    let mut options = OpenOptions::new(Arc::new(FixedClock::new(NOW_US)));
    options.delta_depth_max = depth;
    options
}

/// Opens each repository. Nobody guesses it: the key's derivation is not what is measured.
pub const PASSPHRASE: &str = "generations";

fn secret() -> Secret {
    Secret::passphrase(PASSPHRASE)
}

impl Aged {
    /// An empty repository in `home`, which is emptied; chains of deltas of at most `depth`.
    ///
    /// # Errors
    /// Those of the store and the file system.
    pub fn new(home: &Path, depth: u8) -> Result<Self, Failed> {
        remove(home)?;
        std::fs::create_dir_all(home.join("repo"))?;
        let disk = RealDisk::shared();
        let objects = Arc::new(Directory::create(Arc::clone(&disk), home.join("repo"))?);
        let create = CreateOptions {
            open: options(depth),
            argon2: Argon2Cost { memory_kib: 64, passes: 1, lanes: 1 },
            program: "generations".to_owned(),
        };
        let (repository, _kit) = Repository::create(objects, create, &secret())?;
        Ok(Self { home: home.to_path_buf(), disk, repository, kept: Vec::new() })
    }

    /// The folder of the repository.
    pub fn folder(&self) -> PathBuf {
        self.home.join("repo")
    }

    /// Says which server the backups are of.
    ///
    /// # Errors
    /// Those of the store.
    pub fn protect(&self) -> Result<(), Failed> {
        self.repository.append(Record::ServerPut(ServerRecord {
            id: SERVER,
            name: "bench".to_owned(),
            flavor: None,
            kind: ServerKind::Folder { path: "/nowhere".to_owned() },
            source_uuid: None,
            version: String::new(),
            added_us: NOW_US,
        }))?;
        Ok(())
    }

    /// Opens it again, as another process would, and tells how many seconds that took.
    ///
    /// # Errors
    /// Those of the store.
    pub fn reopen(&self) -> Result<(Repository, f64), Failed> {
        let objects = Arc::new(Directory::open(Arc::clone(&self.disk), self.home.join("repo"))?);
        let begun = Instant::now();
        let repository = Repository::open(objects, &secret(), options(4))?;
        Ok((repository, begun.elapsed().as_secs_f64()))
    }

    /// Backs the tables up against the newest backup.
    ///
    /// # Errors
    /// Those of the store.
    pub fn back_up(&mut self, tables: &Tables) -> Result<BackupRecord, Failed> {
        let writer = self.repository.begin_backup(self.kept.last().copied())?;
        for (name, bytes) in tables.files() {
            let spec = FileSpec {
                path: name.into_bytes(),
                kind: FileKind::Regular,
                len: bytes.len() as u64,
                mode: 0o600,
                mtime_us: 0,
            };
            let file = writer.add_file(spec)?;
            for (block, data) in (0_u32..).zip(bytes.chunks(BLOCK_BYTES as usize)) {
                writer.put_block(file, block, data)?;
            }
        }
        let record = writer.commit(BackupDraft {
            server: SERVER,
            source: SourceKind::Folder,
            coordinates: Coordinates::None,
            facts: Vec::new(),
            note: String::new(),
            warnings: Vec::new(),
        })?;
        self.kept.push(record.id);
        Ok(record)
    }

    /// Forgets all but the newest seven, and of the older ones all but four that lie seven apart: daily and weekly
    /// ones. `generation` is the number of the newest one.
    ///
    /// # Errors
    /// Those of the store.
    pub fn expire(&mut self, generation: u64, weekly: &mut Vec<BackupId>) -> Result<(), Failed> {
        if let (0, Some(newest)) = (generation % 7, self.kept.last()) {
            weekly.push(*newest);
            while weekly.len() > 4 {
                weekly.remove(0);
            }
        }
        let daily = self.kept.len().saturating_sub(7);
        let goes = |(at, id): (usize, &BackupId)| (at < daily && !weekly.contains(id)).then_some(*id);
        let going: Vec<BackupId> = self.kept.iter().enumerate().filter_map(goes).collect();
        for id in &going {
            self.repository.forget(*id, "expired")?;
        }
        self.kept.retain(|id| !going.contains(id));
        Ok(())
    }

    /// Prunes with the defaults, as `holdfast prune` does.
    ///
    /// # Errors
    /// Those of the store.
    pub fn prune(&self) -> Result<PruneReport, Failed> {
        Ok(self.repository.prune(&PruneOptions::default(), &|_, _| ())?)
    }

    /// Bytes of all objects.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn stored_bytes(&self) -> Result<u64, Failed> {
        Ok(crate::rig::folder::bytes_below(&self.home.join("repo"))?)
    }

    /// Restores a backup from a cold cache into an empty folder through a repository that was just opened, and compares
    /// it with the tables, if any are given.
    ///
    /// # Errors
    /// Those of the store; what was restored is something else.
    pub fn restore(&self, id: BackupId, tables: Option<&Tables>) -> Result<Cost, Failed> {
        let into = self.home.join("restored");
        remove(&into)?;
        std::fs::create_dir(&into)?;
        self.evict()?;
        let (repository, _) = self.reopen()?;
        let (cpu, read) = (own_seconds()?, device_bytes_read()?);
        let begun = Instant::now();
        let reader = repository.open_backup(id)?;
        reader.restore_into(self.disk.as_ref(), &into, &|_| (), &RestoreOptions::default())?;
        let cost = Cost {
            seconds: begun.elapsed().as_secs_f64(),
            cpu_seconds: own_seconds()? - cpu,
            read_bytes: device_bytes_read()?.saturating_sub(read),
        };
        for (name, bytes) in tables.into_iter().flat_map(Tables::files) {
            if std::fs::read(into.join(&name))? != bytes {
                return Err(format!("{name} was restored with other bytes").into());
            }
        }
        remove(&into)?;
        Ok(cost)
    }

    /// Has the page cache forget this repository's files, and nobody else's.
    ///
    /// # Errors
    /// Those of the file system.
    pub fn evict(&self) -> Result<(), Failed> {
        let repo = self.home.join("repo");
        for name in files_below(&repo)? {
            let file = File::open(repo.join(name))?;
            file.sync_all()?;
            rustix::fs::fadvise(file.as_fd(), 0, None, rustix::fs::Advice::DontNeed)?;
        }
        Ok(())
    }
}

/// Bytes that this process had the devices read.
fn device_bytes_read() -> Result<u64, Failed> {
    let text = std::fs::read_to_string("/proc/self/io")?;
    let figure = text.lines().find_map(|line| line.strip_prefix("read_bytes: "));
    Ok(figure.ok_or("/proc/self/io has no read_bytes")?.trim().parse()?)
}
