use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::outcome::Warning;
use crate::path::FilePath;
use crate::sink::{FileKind, FileNo, FileSpec, FileState, SinkError};
use crate::sinks::{FolderSink, MemorySink};
use crate::source::{Progress, Unwatched};
use crate::threads::tests::with_threads;

fn copy(dir: &Path) -> Result<(MemorySink, Outcome), Error> {
    let sink = MemorySink::new();
    let outcome = FolderSource::new(dir).copy(&sink, &Unwatched)?;
    Ok((sink, outcome))
}

fn noise(len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as u8).collect()
}

#[test]
fn every_file_comes_back_as_it_was_empty_folders_and_modes_included() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir_all(dir.path().join("a/empty")).unwrap();
    let lengths = [0usize, 1, 65535, 65536, 65537, 3 << 20, (1 << 20) + 17];
    for len in lengths {
        fs::write(dir.path().join(format!("a/{len}")), noise(len)).unwrap();
    }
    fs::set_permissions(dir.path().join("a/1"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(dir.path().join("a/empty"), fs::Permissions::from_mode(0o750)).unwrap();
    let (sink, outcome) = copy(dir.path()).unwrap();
    for len in lengths {
        assert_eq!(sink.content(&format!("a/{len}")).unwrap(), noise(len), "{len}");
    }
    let specs = sink.specs();
    assert_eq!(specs["a/1"].mode, 0o640);
    assert_eq!((specs["a/empty"].kind, specs["a/empty"].mode), (FileKind::Directory, 0o750));
    assert_eq!(outcome.files, lengths.len() as u64);
    assert_eq!(outcome.bytes, lengths.iter().sum::<usize>() as u64);
    assert!(sink.without_length().is_empty());
}

#[test]
fn a_hole_is_not_read_and_reads_as_zeros() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("sparse")).unwrap();
    file.set_len(64 << 20).unwrap();
    file.write_all_at(b"here", (32 << 20) + 70_000).unwrap();
    let (sink, outcome) = copy(dir.path()).unwrap();
    let content = sink.content("sparse").unwrap();
    assert_eq!(content.len(), 64 << 20);
    assert_eq!(&content[(32 << 20) + 70_000..][..4], b"here");
    assert_eq!(content.iter().filter(|&&b| b != 0).count(), 4);
    assert!(outcome.bytes <= 2 << 20, "read {} bytes of a hole", outcome.bytes);
}

#[test]
fn links_are_followed_and_told_of_and_those_that_lead_back_are_left_out() {
    let elsewhere = tempfile::tempdir().unwrap();
    fs::write(elsewhere.path().join("t.ibd"), noise(100)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    symlink(elsewhere.path(), dir.path().join("shop")).unwrap();
    symlink(dir.path(), dir.path().join("loop")).unwrap();
    symlink("/nowhere/at/all", dir.path().join("dangling")).unwrap();
    let (sink, outcome) = copy(dir.path()).unwrap();
    assert_eq!(sink.content("shop/t.ibd").unwrap(), noise(100));
    assert_eq!(outcome.warnings.len(), 3);
    let left_out = |name: &str| {
        outcome.warnings.iter().any(|w| matches!(w, Warning::LeftOut { file, .. } if file == name))
    };
    assert!(left_out("loop") && left_out("dangling"));
    assert!(!sink.specs().contains_key("loop"));
}

#[test]
fn what_a_server_makes_anew_is_left_out_of_a_datadir_only() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["ibtmp1", "server.pid", "t.frm"] {
        fs::write(dir.path().join(name), b"x").unwrap();
    }
    let _socket = UnixListener::bind(dir.path().join("mysql.sock")).unwrap();
    let (sink, outcome) = copy(dir.path()).unwrap();
    let names: Vec<_> = sink.specs().into_keys().collect();
    assert_eq!(names, ["ibtmp1", "server.pid", "t.frm"]);
    assert!(outcome.warnings.is_empty());
    fs::write(dir.path().join("ibdata1"), b"").unwrap();
    let (sink, _) = copy(dir.path()).unwrap();
    let names: Vec<_> = sink.specs().into_keys().collect();
    assert_eq!(names, ["ibdata1", "t.frm"]);
}

#[test]
fn a_folder_whose_server_runs_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = fs::File::create(dir.path().join("ibdata1")).unwrap();
    // A lock of our own process is none to us, so another one has to hold it, as a server would.
    let mut child = std::process::Command::new("python3")
        .arg("-c")
        .arg("import fcntl,sys;f=open(sys.argv[1],'r+');fcntl.lockf(f,fcntl.LOCK_EX);print('locked',flush=True);sys.stdin.read()")
        .arg(dir.path().join("ibdata1"))
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line)
        .unwrap();
    let error = copy(dir.path()).unwrap_err();
    assert!(
        matches!(&error, Error::InUse { evidence, .. } if evidence.contains(&child.id().to_string())),
        "{error}"
    );
    drop(child.stdin.take());
    child.wait().unwrap();
    copy(dir.path()).unwrap();
    drop(file);
}

/// Changes a file of the folder as soon as the copy is under way.
struct Meddler<'a> {
    dir: &'a Path,
    done: AtomicBool,
    act: fn(&Path),
}

impl Watch for Meddler<'_> {
    fn cancelled(&self) -> bool {
        false
    }

    fn progress(&self, _now: Progress) {
        if !self.done.swap(true, Ordering::SeqCst) {
            (self.act)(self.dir);
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_spoils_the_copy() {
    type Act = fn(&Path);
    let acts: [(&str, Act); 4] = [
        ("grow", |d| {
            fs::OpenOptions::new().append(true).open(d.join("f")).unwrap().write_all_at(b"x", 0).unwrap()
        }),
        ("shrink", |d| {
            fs::OpenOptions::new().write(true).open(d.join("f")).unwrap().set_len(70_000).unwrap()
        }),
        ("new file", |d| fs::write(d.join("g"), b"new").unwrap()),
        ("rename", |d| fs::rename(d.join("f"), d.join("h")).unwrap()),
    ];
    for (what, act) in acts {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("f"), noise(4 << 20)).unwrap();
        // Times of files move in steps of a few milliseconds.
        std::thread::sleep(std::time::Duration::from_millis(20));
        let watch = Meddler { dir: dir.path(), done: AtomicBool::new(false), act };
        let error = FolderSource::new(dir.path()).copy(&MemorySink::new(), &watch).unwrap_err();
        assert!(matches!(error, Error::Changed { .. } | Error::Io { .. }), "{what}: {error}");
    }
}

struct Impatient;

impl Watch for Impatient {
    fn cancelled(&self) -> bool {
        true
    }

    fn progress(&self, _now: Progress) {}
}

#[test]
fn a_copy_that_is_called_off_ends_with_that_word() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("f"), noise(4 << 20)).unwrap();
    let error = FolderSource::new(dir.path()).copy(&MemorySink::new(), &Impatient).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error}");
}

#[test]
fn a_folder_laid_out_again_equals_the_first() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("d")).unwrap();
    fs::write(dir.path().join("d/f"), noise(200_000)).unwrap();
    let target = tempfile::tempdir().unwrap();
    let sink = FolderSink::create(target.path().join("copy")).unwrap();
    FolderSource::new(dir.path()).copy(&sink, &Unwatched).unwrap();
    sink.finish().unwrap();
    assert_eq!(fs::read(target.path().join("copy/d/f")).unwrap(), noise(200_000));
    assert!(!target.path().join("copy/.parts").exists());
}

/// Keeps the states that it is told, and takes every file from the copy before that has one.
#[derive(Default)]
struct Keeper {
    memory: MemorySink,
    names: Mutex<HashMap<FileNo, String>>,
    before: HashMap<String, (u64, FileState)>,
    states: Mutex<HashMap<String, FileState>>,
    taken: Mutex<Vec<String>>,
}

impl Keeper {
    fn after(copy: &Keeper, len: u64) -> Self {
        let states = copy.states.lock().unwrap();
        let before = states.iter().map(|(name, state)| (name.clone(), (len, *state))).collect();
        Self { before, ..Self::default() }
    }

    fn taken(&self) -> Vec<String> {
        let mut taken = self.taken.lock().unwrap().clone();
        taken.sort_unstable();
        taken
    }
}

impl Sink for Keeper {
    fn add_file(&self, spec: FileSpec) -> Result<FileNo, SinkError> {
        let name = spec.path.to_string();
        let no = self.memory.add_file(spec)?;
        self.names.lock().unwrap().insert(no, name);
        Ok(no)
    }

    fn block(&self, file: FileNo, block_no: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.memory.block(file, block_no, bytes)
    }

    fn patch(&self, file: FileNo, offset: u64, bytes: &[u8]) -> Result<(), SinkError> {
        self.memory.patch(file, offset, bytes)
    }

    fn barrier(&self) -> Result<(), SinkError> {
        self.memory.barrier()
    }

    fn set_len(&self, file: FileNo, len: u64) -> Result<(), SinkError> {
        self.memory.set_len(file, len)
    }

    fn unchanged(&self, file: FileNo, len: u64, state: FileState) -> Result<bool, SinkError> {
        let name = self.names.lock().unwrap()[&file].clone();
        let same = self.before.get(&name) == Some(&(len, state));
        if same {
            self.taken.lock().unwrap().push(name);
        }
        Ok(same)
    }

    fn state(&self, file: FileNo, state: FileState) -> Result<(), SinkError> {
        let name = self.names.lock().unwrap()[&file].clone();
        self.states.lock().unwrap().insert(name, state);
        Ok(())
    }

    fn rename(&self, file: FileNo, path: FilePath) -> Result<(), SinkError> {
        self.memory.rename(file, path)
    }

    fn remove(&self, file: FileNo) -> Result<(), SinkError> {
        self.memory.remove(file)
    }
}

#[test]
fn only_files_whose_state_is_old_and_equal_are_taken_from_the_copy_before() {
    let dir = tempfile::tempdir().unwrap();
    let file = |name: &str| dir.path().join(name);
    // One page of a tablespace is damaged.
    let mut page = noise(16384 * 4);
    page[..16384].fill(0);
    for name in ["same", "written", "touched", "bad.ibd"] {
        fs::write(file(name), &page).unwrap();
    }
    let source = || FolderSource::new(dir.path());
    // However long this takes, the files are younger than the copy.
    let set_times = |at: std::time::SystemTime| {
        for name in ["same", "written", "touched", "bad.ibd"] {
            fs::OpenOptions::new().write(true).open(file(name)).unwrap().set_modified(at).unwrap();
        }
    };
    set_times(std::time::SystemTime::now() + std::time::Duration::from_secs(3600));
    let young = Keeper::default();
    source().copy(&young, &Unwatched).unwrap();
    assert!(young.states.lock().unwrap().is_empty(), "times of this very moment vouch for nothing");

    set_times(std::time::SystemTime::now() - std::time::Duration::from_secs(3600));
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let first = Keeper::default();
    let told = source().copy(&first, &Unwatched).unwrap();
    let bad = told.warnings.iter().any(|w| matches!(w, Warning::BadPage { .. }));
    assert_eq!(first.states.lock().unwrap().contains_key("bad.ibd"), !bad);
    fs::OpenOptions::new().write(true).open(file("written")).unwrap().write_all_at(b"x", 9).unwrap();
    fs::set_permissions(file("touched"), fs::Permissions::from_mode(0o604)).unwrap();
    let second = Keeper::after(&first, page.len() as u64);
    let outcome = source().copy(&second, &Unwatched).unwrap();
    assert!(second.taken().contains(&"same".to_owned()), "{:?}", second.taken());
    assert!(!second.taken().iter().any(|n| n == "written" || n == "touched"), "{:?}", second.taken());
    assert_eq!(outcome.fact("unread_files"), Some(second.taken().len().to_string().as_str()));
    assert_eq!(outcome.files, 4);
    assert_eq!(second.memory.blocks("same"), Some(0));
    assert_eq!(second.memory.blocks("written"), Some(1));
    let forced = Keeper::after(&first, page.len() as u64);
    source().force(true).copy(&forced, &Unwatched).unwrap();
    assert_eq!((forced.taken().len(), forced.memory.blocks("same")), (0, Some(1)));
}

#[test]
fn where_the_system_refuses_threads_one_copies_it_all_and_none_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["a", "b", "c"] {
        fs::write(dir.path().join(name), noise(3 << 20)).unwrap();
    }
    let alone = with_threads(1, || copy(dir.path())).unwrap().0;
    assert_eq!(alone.content("b").unwrap(), noise(3 << 20));
    let error = with_threads(0, || copy(dir.path())).err().unwrap();
    assert!(matches!(error, Error::NoThread { .. }), "{error}");
    assert!(error.to_string().contains("no thread to store blocks"), "{error}");
}
