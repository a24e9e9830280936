//! The simulated disk against two models: a real file system, and a plain account of what was synced.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, where a panic is the report"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use holdfast_io::sim::{Crash, Fault, OpKind};
use holdfast_io::{Disk, Error, Open, RealDisk, Result, SimDisk};
use proptest::prelude::*;

/// One step of a random run; names are drawn from a handful so that they collide.
#[derive(Debug, Clone)]
enum Step {
    Create(u8),
    Write { file: u8, offset: u64, len: usize, byte: u8 },
    SetLen { file: u8, len: u64 },
    Punch { file: u8, offset: u64, len: u64 },
    Zero { file: u8, offset: u64, len: u64 },
    Rename { from: u8, to: u8, replace: bool },
    Remove(u8),
    Sync(u8),
    SyncDir,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (file, at) = (0..5_u8, 0..20_000_u64);
    let step = prop_oneof![
        2 => file.clone().prop_map(Step::Create),
        6 => (file.clone(), at.clone(), 1..9000_usize, 1..255_u8)
            .prop_map(|(file, offset, len, byte)| Step::Write { file, offset, len, byte }),
        1 => (file.clone(), at.clone()).prop_map(|(file, len)| Step::SetLen { file, len }),
        1 => (file.clone(), at.clone(), 1..12_000_u64).prop_map(|(file, offset, len)| Step::Punch { file, offset, len }),
        1 => (file.clone(), at, 1..12_000_u64).prop_map(|(file, offset, len)| Step::Zero { file, offset, len }),
        2 => (file.clone(), file.clone(), any::<bool>())
            .prop_map(|(from, to, replace)| Step::Rename { from, to, replace }),
        1 => file.clone().prop_map(Step::Remove),
        3 => file.prop_map(Step::Sync),
        2 => Just(Step::SyncDir),
    ];
    proptest::collection::vec(step, 1..50)
}

fn at(root: &Path, n: u8) -> PathBuf {
    root.join(format!("f{n}"))
}

fn apply(disk: &dyn Disk, root: &Path, step: &Step) -> Result<()> {
    let open = |n: u8| disk.open(&at(root, n), Open::Write);
    match *step {
        Step::Create(n) => disk.open(&at(root, n), Open::CreateNew).map(drop),
        Step::Write { file, offset, len, byte } => open(file)?.write_all_at(offset, &vec![byte; len]),
        Step::SetLen { file, len } => open(file)?.set_len(len),
        Step::Punch { file, offset, len } => open(file)?.punch_hole(offset, len),
        Step::Zero { file, offset, len } => open(file)?.zero_range(offset, len),
        Step::Rename { from, to, .. } if from == to => Ok(()),
        Step::Rename { from, to, replace: true } => disk.rename(&at(root, from), &at(root, to)),
        Step::Rename { from, to, replace: false } => disk.rename_noreplace(&at(root, from), &at(root, to)),
        Step::Remove(n) => disk.remove_file(&at(root, n)),
        Step::Sync(n) => open(n)?.sync_data(),
        Step::SyncDir => disk.sync_dir(root),
    }
}

/// Every file with its content, read through the trait.
fn content(disk: &dyn Disk, root: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in disk.list(root).unwrap() {
        let name = entry.name.to_str().unwrap().to_owned();
        let file = disk.open(&root.join(&name), Open::Read).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_exact_at(0, &mut bytes).unwrap();
        all.insert(name, bytes);
    }
    all
}

fn kind(result: &Result<()>) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(Error::NotFound { .. }) => "not found",
        Err(Error::Exists { .. }) => "exists",
        Err(_) => "other",
    }
}

/// What must be there after a crash that lost everything unsynced: content by file, names by folder.
#[derive(Default)]
struct Account {
    /// Name -> which file, as processes see it and as it was at the last sync of the folder.
    names: BTreeMap<u8, usize>,
    synced_names: BTreeMap<u8, usize>,
    files: Vec<Vec<u8>>,
    synced_files: Vec<Vec<u8>>,
}

impl Account {
    fn note(&mut self, disk: &dyn Disk, root: &Path, step: &Step) {
        match *step {
            Step::Create(n) => {
                self.names.insert(n, self.files.len());
                self.files.push(Vec::new());
                self.synced_files.push(Vec::new());
            }
            Step::Rename { from, to, .. } => {
                if let Some(id) = self.names.remove(&from) {
                    self.names.insert(to, id);
                }
            }
            Step::Remove(n) => {
                self.names.remove(&n);
            }
            Step::Sync(n) => {
                let id = self.names[&n];
                self.synced_files[id] = content(disk, root)[&format!("f{n}")].clone();
            }
            Step::SyncDir => self.synced_names = self.names.clone(),
            _ => {}
        }
    }

    fn after_loss(&self) -> BTreeMap<String, Vec<u8>> {
        self.synced_names.iter().map(|(n, id)| (format!("f{n}"), self.synced_files[*id].clone())).collect()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn the_simulated_disk_behaves_as_a_real_file_system(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let (sim, root) = (SimDisk::new(), Path::new("/"));
        for step in &steps {
            let (real, simulated) = (apply(&RealDisk, folder.path(), step), apply(&sim, root, step));
            prop_assert_eq!(kind(&real), kind(&simulated), "{:?}: {:?} {:?}", step, real, simulated);
        }
        prop_assert_eq!(content(&RealDisk, folder.path()), content(&sim, root));
    }

    #[test]
    fn a_crash_that_loses_the_tail_leaves_exactly_what_was_synced(steps in steps()) {
        let (sim, root) = (SimDisk::new(), Path::new("/"));
        let mut account = Account::default();
        for step in &steps {
            if apply(&sim, root, step).is_ok() {
                account.note(&sim, root, step);
            }
        }
        prop_assert_eq!(content(&sim.crash(Crash::Nothing), root), account.after_loss());
        prop_assert_eq!(content(&sim.crash(Crash::Everything), root), content(&sim, root));
        let mut walk = sim.walk();
        while walk.step() {
            for crash in [Crash::Nothing, Crash::Everything, Crash::Random { seed: walk.ops() as u64 }] {
                prop_assert_eq!(content(&walk.image(crash), root), content(&sim.crash_at(walk.ops(), crash), root));
            }
        }
    }

    #[test]
    fn a_seed_makes_the_same_image_and_synced_files_are_in_every_one(steps in steps(), seed in any::<u64>()) {
        let (sim, root) = (SimDisk::new(), Path::new("/"));
        for step in &steps {
            let _ = apply(&sim, root, step);
        }
        let kept = sim.open("/kept".as_ref(), Open::CreateNew).unwrap();
        kept.write_all_at(0, &[7; 10_000]).unwrap();
        kept.sync_all().unwrap();
        sim.sync_dir(root).unwrap();
        kept.write_all_at(10_000, &[8; 10_000]).unwrap();
        let images = [0, 1].map(|_| content(&sim.crash(Crash::Random { seed }), root));
        prop_assert_eq!(&images[0], &images[1]);
        prop_assert_eq!(&images[0]["kept"][..10_000], &[7; 10_000]);
        prop_assert!(images[0]["kept"].iter().skip(10_000).all(|b| *b == 0 || *b == 8));
    }

    #[test]
    fn what_a_short_or_interrupted_call_left_out_is_carried_on(nth in 0..6_u64, fault in 0..2_u8, len in 1..30_000_usize) {
        let fault = if fault == 0 { Fault::Short } else { Fault::Eintr };
        let sim = SimDisk::new();
        let file = sim.open("/f".as_ref(), Open::CreateNew).unwrap();
        for kind in [OpKind::Write, OpKind::Read] {
            for again in 0..nth {
                sim.inject(Some(kind), again, fault);
            }
        }
        let bytes: Vec<u8> = (0..len).map(|n| n as u8).collect();
        file.write_all_at(5, &bytes).unwrap();
        let mut back = vec![0; len];
        file.read_exact_at(5, &mut back).unwrap();
        prop_assert_eq!(back, bytes);
    }
}

#[test]
fn a_torn_write_arrives_in_whole_sectors() {
    let sim = SimDisk::new();
    let file = sim.open("/f".as_ref(), Open::CreateNew).unwrap();
    file.write_all_at(0, &[1; 8192]).unwrap();
    file.sync_all().unwrap();
    sim.sync_dir("/".as_ref()).unwrap();
    file.write_all_at(100, &[2; 8000]).unwrap();
    let mut torn = 0;
    for seed in 0..20 {
        let image = content(&sim.crash(Crash::Torn { nth: 0, unit: 512, seed }), Path::new("/"))["f"].clone();
        for (n, sector) in image[512..7680].chunks(512).enumerate() {
            assert!(sector.iter().all(|b| *b == sector[0]), "sector {n} of seed {seed} is mixed");
        }
        assert!(image[..100].iter().all(|b| *b == 1));
        torn +=
            usize::from(image.contains(&1) && image[512..7680].contains(&2) && image[512..7680].contains(&1));
    }
    assert!(torn > 15, "only {torn} of 20 images were torn");
}

#[test]
fn holes_are_told_from_data_on_both_disks() {
    let folder = tempfile::tempdir().unwrap();
    let sim = SimDisk::new();
    for (disk, root) in [(&RealDisk as &dyn Disk, folder.path()), (&sim, Path::new("/"))] {
        let file = disk.open(&root.join("holes"), Open::CreateNew).unwrap();
        file.set_len(1 << 20).unwrap();
        file.write_all_at(256 * 1024, &[1; 64 * 1024]).unwrap();
        assert_eq!(file.next_data(0).unwrap(), Some(256 * 1024..320 * 1024), "{disk:?}");
        assert_eq!(file.next_data(320 * 1024).unwrap(), None);
        assert_eq!(file.next_data(2 << 20).unwrap(), None);
        file.punch_hole(256 * 1024, 64 * 1024).unwrap();
        assert_eq!(file.next_data(0).unwrap(), None);
        assert_eq!(file.len().unwrap(), 1 << 20);
        file.allocate(0, 4096).unwrap();
        assert!(disk.metadata(&root.join("holes")).unwrap().allocated <= 8192);
    }
}

#[test]
fn a_flipped_bit_reads_back_flipped_and_survives_a_crash() {
    let sim = SimDisk::new();
    let file = sim.open("/f".as_ref(), Open::CreateNew).unwrap();
    file.write_all_at(0, &[0; 10]).unwrap();
    file.sync_all().unwrap();
    sim.sync_dir("/".as_ref()).unwrap();
    assert!(sim.flip_bit("/f".as_ref(), 3, 4));
    assert!(!sim.flip_bit("/f".as_ref(), 10, 4));
    assert!(!sim.flip_bit("/none".as_ref(), 0, 0));
    let mut buf = [0; 10];
    file.read_exact_at(0, &mut buf).unwrap();
    assert_eq!(buf[3], 16);
    assert_eq!(content(&sim.crash(Crash::Nothing), Path::new("/"))["f"][3], 16);
}
