//! Making a repository, cut off anywhere: the same command again makes one, or finds the one that is there.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test program")]

mod common;

use std::path::Path;
use std::sync::Arc;

use common::{content, draft, open, put_file};
use holdfast_io::durable::durable_create;
use holdfast_io::sim::{Crash, Fault};
use holdfast_io::{Disk, SimDisk};
use holdfast_store::{Error, Repository, place_for_new};

const ROOT: &str = "/repo";

/// What `holdfast init` does.
fn init(disk: &SimDisk) -> Result<Repository, Error> {
    let place = place_for_new(disk.shared(), Path::new(ROOT))?;
    place.probe_locks()?;
    Ok(Repository::create(Arc::new(place), common::create_options(), &common::secret())?.0)
}

/// After an `init` that did not come to its end, the next one does, or says that there is a repository; that one keeps
/// what it acknowledges over a power cut.
fn goes_on(disk: &SimDisk, what: &str) {
    let made = match init(disk) {
        Ok(repo) => repo,
        Err(Error::AlreadyARepository) => open(disk).unwrap_or_else(|e| panic!("{what}: does not open: {e}")),
        Err(e) => panic!("{what}: can't be made again: {e}"),
    };
    let writer = made.begin_backup(None).unwrap();
    put_file(&writer, "a", &content(1, 700));
    let id = writer.commit(draft()).unwrap().id;
    let image = disk.crash(Crash::Nothing);
    let found = open(&image).unwrap_or_else(|e| panic!("{what}: does not open after a power cut: {e}"));
    assert_eq!(found.damage(), None, "{what}");
    let (mut bytes, reader) = (vec![0; 700], found.open_backup(id).unwrap());
    assert_eq!(reader.read_at(0, 0, &mut bytes).unwrap(), 700, "{what}");
    assert!(bytes == content(1, 700), "{what}");
}

#[test]
fn an_init_cut_at_any_operation_is_no_hindrance_to_the_next() {
    let disk = SimDisk::new();
    init(&disk).unwrap();
    let (mut walk, mut images) = (disk.walk(), 0);
    loop {
        for how in walk.crashes(1) {
            goes_on(&walk.image(how), &format!("after {} operations, {how:?}", walk.ops()));
            images += 1;
        }
        if !walk.step() {
            break;
        }
    }
    assert!(images > 100, "only {images} images");
}

#[test]
fn an_init_whose_operation_fails_is_no_hindrance_to_the_next() {
    let probe = SimDisk::new();
    init(&probe).unwrap();
    for fault in [Fault::Eio, Fault::Enospc] {
        for nth in 0..probe.operations() {
            let disk = SimDisk::new();
            disk.inject(None, nth, fault);
            let first = init(&disk).map(drop);
            disk.clear_faults();
            let what = format!("{fault:?} at operation {nth}: {first:?}");
            // The power cut comes at once, or later.
            goes_on(&disk.crash(Crash::Nothing), &what);
            goes_on(&disk, &what);
        }
    }
}

#[test]
fn a_folder_that_holds_anything_else_is_left_alone() {
    let refused = |path: &str, bytes: &[u8]| {
        let disk = SimDisk::new();
        let path = Path::new(ROOT).join(path);
        disk.create_dir_all(path.parent().unwrap()).unwrap();
        durable_create(&disk, &path, bytes).unwrap();
        match init(&disk) {
            Err(Error::NotEmpty { folder, holds }) => {
                assert_eq!(folder, ROOT);
                assert!(path.starts_with(Path::new(ROOT).join(holds)));
            }
            other => panic!("{path:?}: {other:?}"),
        }
        assert_eq!(disk.list(Path::new(ROOT)).unwrap().len(), 1, "nothing is made beside it");
    };
    for path in
        ["precious", ".hidden", ".tmp-", ".tmp-mine", ".tmp-1-2-", ".tmp-1-2-3-4", ".tmp-1-2-x", "a/b"]
    {
        refused(path, b"");
    }
    // Names of ours, and not what a `create` leaves that made no key.
    for path in ["locks/a", "keyring/3", "segments/0", "manifest/0000000000000000", "locks/prune", "head/0"] {
        refused(path, b"");
    }
    refused("locks/manifest", b"x");
    refused("locks/rekey", b"x");
}
