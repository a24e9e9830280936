//! What a crash leaves is never called damage, and what was acknowledged before it is whole.
//!
//! The store works on the simulated disk; the second reader looks at images of crashes at every
//! moment of that work.

mod common;

use std::sync::Arc;

use common::{back_up, create, first_backup, fsck, second_backup, write_logs};
use holdfast_io::{Directory, Objects, SimDisk};

#[test]
fn whatever_a_crash_leaves_is_clean_and_holds_every_acknowledged_backup() {
    let disk = SimDisk::new();
    let objects: Arc<dyn Objects> = Arc::new(Directory::create(disk.shared(), "/repo").unwrap());
    let repo = create(&objects, 64);
    let mut acknowledged = vec![disk.trace_len()];
    let first = back_up(&repo, None, &first_backup(), "first");
    acknowledged.push(disk.trace_len());
    back_up(&repo, Some(first), &second_backup(), "second");
    acknowledged.push(disk.trace_len());
    write_logs(&repo);
    drop(repo);

    let mut images = 0_usize;
    let mut walk = disk.walk();
    while walk.step() {
        let due = acknowledged.iter().filter(|at| **at <= walk.ops()).count();
        if due == 0 {
            continue;
        }
        for crash in walk.crashes(24) {
            images += 1;
            let image = walk.image(crash);
            let found = Directory::open(image.shared(), "/repo").unwrap();
            let report = fsck(&found).unwrap();
            let label =
                format!("operation {} of {}, {crash:?}:\n{}", walk.ops(), disk.trace_len(), report.text());
            assert!(report.clean, "{label}");
            assert!(report.backups.len() >= due - 1, "{label}");
            assert!(report.backups.iter().all(|b| b.whole), "{label}");
        }
    }
    eprintln!("{images} images");
    assert!(images > 300, "only {images} images");
}
