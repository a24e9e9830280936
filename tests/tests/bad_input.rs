//! Bad input gets a clear error and loses nothing: the exit status, the object named, the next step.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic is how a test fails")]

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use holdfast_tests::command::finish;
use holdfast_tests::{Holdfast, Outcome, Random};

/// A user with a repository and a folder that it protects under the name `things`.
struct Bed {
    dir: tempfile::TempDir,
    user: Holdfast,
}

impl Bed {
    /// With the repository made.
    fn new() -> Self {
        let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
        let user = Holdfast::new(dir.path());
        user.run(&["init", "--kit", dir.path().join("kit").to_str().unwrap()]).ok();
        Self { dir, user }
    }

    /// And with the folder, which holds one file of random bytes.
    fn with_folder(bytes: usize) -> Self {
        let bed = Self::new();
        fs::create_dir(bed.path("things")).unwrap();
        fs::write(bed.path("things/file"), random(bytes)).unwrap();
        bed.user.run(&["server", "add", "things", "--folder", bed.text("things").as_str()]).ok();
        bed
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn restore(&self, into: &str) -> Outcome {
        self.user.run(&["restore", "things", "--to", "fastest", "--into", &self.text(into)])
    }

    fn backups(&self) -> usize {
        self.user.run(&["list", "--json"]).ok().json()["backups"].as_array().unwrap().len()
    }
}

fn random(bytes: usize) -> Vec<u8> {
    let mut random = Random::new(1);
    (0..bytes.div_ceil(8)).flat_map(|_| random.next_u64().to_le_bytes()).take(bytes).collect()
}

/// Fails the test unless the command ended with `code` and complained in all these words.
#[track_caller]
fn refused(outcome: Outcome, code: i32, words: &[&str]) -> Outcome {
    let outcome = outcome.expect_code(code);
    for word in words {
        assert!(outcome.stderr.contains(word), "{}: no {word:?} in\n{}", outcome.line, outcome.stderr);
    }
    outcome
}

#[test]
fn a_wrong_key_or_place_is_named_with_what_to_do() {
    let bed = Bed::new();
    let with = |file: &str, args: &[&str]| {
        bed.user.run(&[&["--passphrase-file", bed.text(file).as_str()], args].concat())
    };
    fs::write(bed.path("wrong"), "another passphrase\n").unwrap();
    let place = bed.text("repository");
    refused(with("wrong", &["list"]), 12, &["passphrase does not open", &place, "--recovery-kit"]);
    fs::write(bed.path("empty"), "\n").unwrap();
    refused(with("empty", &["list"]), 2, &[&bed.text("empty"), "is empty", "next:"]);
    refused(with("missing", &["list"]), 2, &[&bed.text("missing"), "can't be read"]);

    let elsewhere = bed.text("elsewhere");
    for args in [&["list"][..], &["status"], &["backup", "x"], &["archive", "x"]] {
        let outcome = bed.user.run(&[&["--repo", &elsewhere], args].concat());
        refused(outcome, 10, &["no repository", &elsewhere, "holdfast init"]);
    }
    fs::create_dir(bed.path("elsewhere")).unwrap();
    fs::write(bed.path("elsewhere/file"), "not a repository").unwrap();
    refused(bed.user.run(&["list", "--repo", &elsewhere]), 10, &["no repository", &elsewhere]);

    // The kit opens it although the environment names a passphrase file; a damaged kit does not.
    bed.user.run(&["list", "--recovery-kit", &bed.text("kit")]).ok();
    fs::write(bed.path("passphrase"), "forgotten\n").unwrap();
    bed.user.run(&["list", "--recovery-kit", &bed.text("kit")]).ok();
    refused(bed.user.run(&["list"]), 12, &["passphrase does not open"]);
    let kit = fs::read_to_string(bed.path("kit")).unwrap();
    let last = kit.rfind("-----END").unwrap() - 2;
    let other = if kit.as_bytes()[last] == b'0' { "1" } else { "0" };
    fs::write(bed.path("typo"), format!("{}{other}{}", &kit[..last], &kit[last + 1..])).unwrap();
    refused(bed.user.run(&["list", "--recovery-kit", &bed.text("typo")]), 12, &[&bed.text("typo"), "kit"]);
    fs::write(bed.path("typo"), "nothing like it").unwrap();
    refused(bed.user.run(&["list", "--recovery-kit", &bed.text("typo")]), 12, &[&bed.text("typo")]);
    let other = Bed::new();
    refused(
        bed.user.run(&["list", "--recovery-kit", &other.text("kit")]),
        12,
        &["recovery kit", "another repository", &place],
    );
}

#[test]
fn a_kit_from_before_a_rotation_opens_what_was_there_and_says_that_it_is_old() {
    let bed = Bed::with_folder(1000);
    bed.user.run(&["backup", "things"]).ok();
    let kit = bed.text("kit");
    let whole = bed.user.run(&["list", "--recovery-kit", &kit]).ok();
    assert!(!whole.stderr.contains("warning"), "{}", whole.stderr);
    bed.user.run(&["key", "rotate"]).ok();
    bed.user.run(&["backup", "things", "--force"]).ok();
    let old = bed.user.run(&["list", "--recovery-kit", &kit]).ok();
    for word in ["warning", "out of date", "key generation 2", "next:", "key rotate"] {
        assert!(old.stderr.contains(word), "no {word:?} in {}", old.stderr);
    }
    assert_eq!(old.stdout, whole.stdout);
    let fsck = |outcome| refused(outcome, 12, &["kit", "key rotate", "passphrase"]);
    fsck(bed.user.run(&["fsck", "--recovery-kit", &kit]));
    // It still restores what it opens; only the report can't be written down.
    let restored = bed.user.run(&[
        "restore",
        "things",
        "--to",
        "fastest",
        "--into",
        &bed.text("out"),
        "--recovery-kit",
        &kit,
    ]);
    assert!(restored.ok().stdout.contains("could not be kept"));
    bed.user.run(&["list"]).ok();
    bed.user.run(&["key", "rotate", "--rekey"]).ok();
    for args in [["list"].as_slice(), &["status"], &["fsck"]] {
        let outcome = bed.user.run(&[args, &["--recovery-kit", &kit]].concat());
        refused(outcome, 12, &["kit", "key rotate"]);
    }
    bed.user.run(&["fsck", "--full"]).ok();
}

#[test]
fn init_takes_nothing_that_is_not_its_own_and_shows_the_kit_to_nobody_else() {
    let dir = tempfile::tempdir().unwrap();
    let user = Holdfast::new(dir.path());
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    // Standard output of these tests is a pipe.
    refused(user.run(&["init"]), 2, &["pipe", "--kit"]);
    assert!(!user.repository().exists(), "nothing was made");

    fs::create_dir(user.repository()).unwrap();
    fs::write(user.repository().join("precious"), "x").unwrap();
    let place = text("repository");
    refused(user.run(&["init", "--kit", &text("kit")]), 2, &[&place, "not empty", "next:"]);
    assert_eq!(fs::read_dir(user.repository()).unwrap().count(), 1);
    assert!(!dir.path().join("kit").exists(), "no kit without a repository");
    fs::remove_file(user.repository().join("precious")).unwrap();

    fs::write(dir.path().join("kit"), "somebody's").unwrap();
    refused(user.run(&["init", "--kit", &text("kit")]), 2, &[&text("kit"), "does not exist yet"]);
    assert_eq!(fs::read_to_string(dir.path().join("kit")).unwrap(), "somebody's");
    user.run(&["init", "--kit", &text("kit-2")]).ok();
    refused(user.run(&["init", "--kit", &text("kit-3")]), 2, &[&place, "already", "next:"]);
    assert!(!dir.path().join("kit-3").exists());
    user.run(&["list", "--recovery-kit", &text("kit-2")]).ok();
}

#[test]
fn unknown_names_and_half_times_are_answered_with_what_there_is() {
    let bed = Bed::with_folder(1000);
    let unknown: [&[&str]; 8] = [
        &["backup", "thongs"],
        &["archive", "thongs"],
        &["list", "thongs"],
        &["timeline", "thongs"],
        &["find", "thongs"],
        &["doctor", "thongs"],
        &["server", "show", "thongs"],
        &["restore", "thongs", "--to", "latest", "--into", "never"],
    ];
    for args in unknown {
        refused(bed.user.run(args), 2, &["'thongs'", "the servers here are: things"]);
    }
    let to =
        |target: &str| bed.user.run(&["restore", "things", "--to", target, "--into", &bed.text("never")]);
    refused(to("2026-11-21 14:03:07"), 2, &["2026-11-21 14:03:07", "no zone", "2026-11-21T14:03:07Z"]);
    refused(to("yesterday"), 2, &["'yesterday'", "RFC 3339"]);
    refused(to("pos:binlog.000001"), 2, &["pos:binlog.000001", "pos:FILE:OFFSET"]);
    refused(bed.user.run(&["find", "things", "--since", "2026-11-21 14:03"]), 2, &["no zone", "Z"]);
    refused(bed.user.run(&["archive", "things"]), 2, &["'things'", "folder", "--host"]);
    refused(bed.user.run(&["restore", "things", "--into", "never"]), 2, &["--to"]);
    for undo_only in [&["--saved", "ID"][..], &["--no-save"]] {
        let args = [&["restore", "things", "--to", "latest", "--into", "never"], undo_only].concat();
        refused(bed.user.run(&args), 2, &["cannot be used with", undo_only[0]]);
    }
    refused(to("fastest"), 20, &["no backup yet"]);
    assert!(!bed.path("never").exists());

    refused(bed.user.run(&["server", "add", "a b", "--folder", "/"]), 2, &["'a b'", "letters"]);
    refused(bed.user.run(&["server", "add", "x", "--folder", &bed.text("no")]), 2, &[&bed.text("no")]);
    refused(bed.user.run(&["server", "add", "x"]), 2, &["--host"]);
    let whole = bed.text("");
    bed.user.run(&["server", "add", "around", "--folder", &whole]).ok();
    refused(bed.user.run(&["backup", "around"]), 2, &["lies inside", "next:"]);
    assert_eq!(bed.backups(), 0);
}

#[test]
fn with_json_an_error_is_one_document_on_standard_error() {
    let bed = Bed::with_folder(1000);
    let outcome = bed.user.run(&["backup", "thongs", "--json"]).expect_code(2);
    assert_eq!(outcome.stdout, "");
    let error: serde_json::Value = serde_json::from_str(&outcome.stderr).unwrap();
    assert_eq!(error["message_type"], "error");
    assert_eq!(error["code"], "usage");
    assert_eq!(error["exit_status"], 2);
    assert!(error["message"].as_str().unwrap().contains("'thongs'"), "{error}");
    assert!(error["next"].as_str().unwrap().contains("things"), "{error}");
}

#[test]
fn a_target_folder_with_anything_in_it_is_left_alone() {
    let bed = Bed::with_folder(1000);
    bed.user.run(&["backup", "things"]).ok();
    fs::create_dir(bed.path("full")).unwrap();
    fs::write(bed.path("full/precious"), "x").unwrap();
    refused(bed.restore("full"), 2, &[&bed.text("full"), "not empty", "precious"]);
    assert_eq!(fs::read_dir(bed.path("full")).unwrap().count(), 1);
    fs::write(bed.path("file"), "x").unwrap();
    refused(bed.restore("file"), 2, &[&bed.text("file"), "not a folder"]);
    bed.restore("good").ok();
    refused(bed.restore("good"), 2, &[&bed.text("good"), "not empty"]);
    assert_eq!(fs::read(bed.path("good/file")).unwrap(), fs::read(bed.path("things/file")).unwrap());
}

#[test]
fn a_corrupted_block_is_reported_with_its_backup_and_file_and_spoils_no_other() {
    let bed = Bed::with_folder(3 << 20);
    fs::write(bed.path("things/small"), "untouched").unwrap();
    let taken = bed.user.run(&["backup", "things", "--json"]).ok().json();
    let id = taken["id"].as_str().unwrap().to_owned();
    let segments = bed.path("repository/segments");
    let largest = fs::read_dir(segments)
        .unwrap()
        .map(|entry| entry.unwrap())
        .max_by_key(|entry| entry.metadata().unwrap().len())
        .unwrap();
    let name = largest.file_name().to_str().unwrap().to_owned();
    let (path, len) = (largest.path(), largest.metadata().unwrap().len());
    let whole = fs::read(&path).unwrap();
    let full = |bed: &Bed| bed.user.run(&["fsck", "--full"]);

    // What parity brings back is read all the same, and reported until it is repaired.
    flip(&path, len / 2);
    let healed = bed.restore("healed").ok();
    assert!(healed.stdout.contains("1 segments of the repository are damaged"), "{}", healed.stdout);
    assert_eq!(fs::read(bed.path("healed/file")).unwrap(), fs::read(bed.path("things/file")).unwrap());
    let checked = full(&bed).expect_code(21);
    assert!(checked.stdout.contains(&name), "no {name:?} in\n{}", checked.stdout);

    // More than parity brings back is named, and spoils nothing else.
    for offset in (len / 4..len / 4 * 3).step_by(512) {
        flip(&path, offset);
    }
    let outcome = bed.restore("restored");
    refused(outcome, 21, &[&id, "the file file", "holdfast-fsck", &bed.text("repository")]);
    let checked = full(&bed).expect_code(21);
    for word in [id.as_str(), name.as_str(), "file"] {
        assert!(checked.stdout.contains(word), "no {word:?} in\n{}", checked.stdout);
    }
    assert_eq!(bed.backups(), 1);
    fs::write(&path, whole).unwrap();
    full(&bed).ok();
    bed.user.fsck().ok();
    bed.restore("restored").ok();
    assert_eq!(fs::read(bed.path("restored/file")).unwrap(), fs::read(bed.path("things/file")).unwrap());
}

fn flip(path: &Path, offset: u64) {
    let file = fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).unwrap();
    file.write_all_at(&[byte[0] ^ 0x20], offset).unwrap();
    file.sync_all().unwrap();
}

/// A file system of a size of our choice, in memory; unmounted when dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: PathBuf, size: &str) -> Self {
        fs::create_dir_all(&at).unwrap();
        let size = format!("size={size},mode=700");
        mount(&["-t", "tmpfs", "-o", &size, "holdfast-test"], &at);
        Self(at)
    }

    fn grow(&self, size: &str) {
        mount(&["-o", &format!("remount,size={size}")], &self.0);
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Nothing can be done about a failure here; the test's folder shows it.
        let _ = std::process::Command::new("umount").arg(&self.0).status();
    }
}

fn mount(args: &[&str], at: &Path) {
    let mut command = std::process::Command::new("mount");
    command.args(args).arg(at);
    let outcome = finish(command);
    assert_eq!(
        outcome.code,
        Some(0),
        "this test fills a small file system, and mounting one needs root and CAP_SYS_ADMIN: {}",
        outcome.stderr
    );
}

#[test]
fn a_full_disk_below_the_repository_loses_nothing_that_was_acknowledged() {
    let dir = tempfile::tempdir_in(holdfast_tests::server::scratch()).unwrap();
    let user = Holdfast::new(dir.path());
    let disk = SmallDisk::mount(user.repository(), "12m");
    let text = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    user.run(&["init", "--kit", &text("kit")]).ok();
    fs::create_dir(dir.path().join("things")).unwrap();
    fs::write(dir.path().join("things/file"), random(2 << 20)).unwrap();
    user.run(&["server", "add", "things", "--folder", &text("things")]).ok();
    user.run(&["backup", "things"]).ok();
    fs::write(dir.path().join("things/more"), random(40 << 20)).unwrap();
    refused(user.run(&["backup", "things"]), 1, &["full", "free some space", "next:"]);
    let list = user.run(&["list", "--json"]).ok().json();
    assert_eq!(list["backups"].as_array().unwrap().len(), 1, "no half backup is listed");
    let restore = |into: &str| {
        user.run(&[
            "restore",
            "things",
            "--to",
            list["backups"][0]["completed"].as_str().unwrap(),
            "--into",
            into,
        ])
    };
    disk.grow("100m");
    restore(&text("first")).ok();
    user.run(&["backup", "things"]).ok();
    user.fsck().ok();
    drop(disk);
}

#[test]
fn a_full_disk_below_the_target_is_noticed_before_or_told_after() {
    let bed = Bed::with_folder(30 << 20);
    bed.user.run(&["backup", "things"]).ok();
    let disk = SmallDisk::mount(bed.path("small"), "8m");
    refused(bed.restore("small"), 1, &[&bed.text("small"), "bytes free", "needs"]);
    assert_eq!(fs::read_dir(bed.path("small")).unwrap().count(), 0, "nothing was written");
    disk.grow("40m");
    fs::create_dir(bed.path("small/new")).unwrap();
    bed.restore("small/new").ok();
    // Holes take no space, so none is asked for: a GiB of them fits.
    let sparse = fs::File::create(bed.path("things/sparse")).unwrap();
    sparse.write_all_at(b"at the end", (1 << 30) - 10).unwrap();
    bed.user.run(&["backup", "things"]).ok();
    fs::remove_dir_all(bed.path("small/new")).unwrap();
    fs::create_dir(bed.path("small/new")).unwrap();
    bed.restore("small/new").ok();
    let restored = fs::metadata(bed.path("small/new/sparse")).unwrap();
    assert!(restored.len() == 1 << 30 && restored.blocks() < 1024, "{restored:?}");
    drop(disk);
}
