//! The program is played by small shell scripts here; the real one is tried on a real server in the workspace's tests.

use std::path::Path;

use super::*;
use crate::sinks::MemorySink;
use crate::source::Unwatched;
use crate::threads::tests::with_threads;

fn chunk(kind: u8, path: &str, payload: Option<&[u8]>) -> Vec<u8> {
    let mut out = b"XBSTCK01".to_vec();
    out.extend([0, kind]);
    out.extend((path.len() as u32).to_le_bytes());
    out.extend(path.as_bytes());
    if let Some(bytes) = payload {
        out.extend((bytes.len() as u64).to_le_bytes());
        out.extend(0u64.to_le_bytes());
        out.extend(crc32fast::hash(bytes).to_le_bytes());
        out.extend(bytes);
    }
    out
}

fn stream() -> Vec<u8> {
    let mut out = Vec::new();
    let table = vec![7u8; 200_000];
    for (path, bytes) in [
        ("shop/t.MAD", table.as_slice()),
        ("xtrabackup_checkpoints", b"backup_type = full-backuped\nto_lsn = 9\n"),
        ("xtrabackup_binlog_info", b"binlog.000002\t339\t0-2-26\n"),
    ] {
        out.extend(chunk(b'P', path, Some(bytes)));
        out.extend(chunk(b'E', path, None));
    }
    out
}

/// Runs `script` in place of the program, in a folder where `stream` is the good stream.
fn run(script: &str, tune: impl Fn(MariadbBackup) -> MariadbBackup) -> (MemorySink, Result<Received, Error>) {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("stream"), stream()).unwrap();
    let line = ["sh", "-c", &format!("cd {}; {script}", dir.path().display())].map(OsString::from).to_vec();
    let connect = ConnectOptions::new(holdfast_mysql::Endpoint::Unix("/nowhere".into()), "bk");
    let backup = tune(MariadbBackup::new(connect, Program::Command(line), dir.path()));
    let memory = MemorySink::new();
    let sink = VerifyingSink::new(&memory);
    let result = backup.run(Path::new("/nowhere"), None, &sink, &Unwatched);
    (memory, result)
}

#[test]
fn a_good_run_gives_its_files_and_its_metadata() {
    let (sink, result) = run("cat stream; echo completed OK! >&2", |b| b);
    let received = result.unwrap();
    assert_eq!(sink.content("shop/t.MAD").unwrap(), vec![7u8; 200_000]);
    assert_eq!(received.files, 3);
    let metadata = info::Metadata::from_files(&received.metadata).unwrap();
    assert_eq!(metadata.position.unwrap().offset, 339);
    assert!(sink.without_length().is_empty());
}

#[test]
fn a_run_that_fails_at_its_very_end_is_a_failure_with_its_last_words() {
    let (_, result) = run("cat stream; echo no space left >&2; exit 1", |b| b);
    let error = result.err().unwrap();
    assert!(matches!(&error, Error::Tool { tail, .. } if tail.contains("no space left")), "{error}");
}

#[test]
fn a_run_that_dies_in_the_middle_says_why_instead_of_complaining_about_its_stream() {
    let (_, result) = run("head -c 150000 stream; sleep 0.2; echo lost the server >&2; exit 3", |b| b);
    let error = result.err().unwrap();
    assert!(matches!(&error, Error::Tool { tail, .. } if tail.contains("lost the server")), "{error}");
    let (_, result) = run("echo rubbish that is no stream at all; sleep 60", |b| b);
    assert!(matches!(result, Err(Error::Malformed { .. })), "{:?}", result.err());
}

#[test]
fn a_run_without_the_last_word_or_with_half_a_stream_is_a_failure() {
    let (_, result) = run("cat stream", |b| b);
    assert!(matches!(result, Err(Error::Tool { .. })));
    let (_, result) = run("head -c 150000 stream; echo completed OK! >&2", |b| b);
    assert!(matches!(result, Err(Error::Malformed { .. })));
}

#[test]
fn a_program_that_says_nothing_any_more_is_killed() {
    let started = Instant::now();
    let (_, result) = run("head -c 1000 stream; sleep 600", |b| b.silence_max(Duration::from_millis(300)));
    assert!(matches!(result, Err(Error::Silent { .. })));
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[test]
fn a_program_that_holds_commits_for_too_long_is_killed() {
    let started = Instant::now();
    let script = "echo Starting BACKUP STAGE BLOCK_COMMIT >&2; sleep 600; cat stream; echo completed OK! >&2";
    let (_, result) = run(script, |b| b.commit_stall_max(Duration::from_millis(300)));
    assert!(matches!(result, Err(Error::Stalled { .. })), "{:?}", result.err());
    assert!(started.elapsed() < Duration::from_secs(120));
}

#[test]
fn a_program_that_is_not_there_is_named_with_the_way_to_get_it() {
    let dir = tempfile::tempdir().unwrap();
    let connect = ConnectOptions::new(holdfast_mysql::Endpoint::Unix("/nowhere".into()), "bk");
    let program = Program::Local(Some(dir.path().to_path_buf()));
    let error = command::start(&program, &connect, Path::new("/"), 1, dir.path()).err().unwrap();
    assert!(error.to_string().contains("apt install mariadb-backup"), "{error}");
}

#[test]
fn where_the_system_refuses_a_thread_the_program_is_ended_and_the_error_says_what_for() {
    // It would go on for a minute.
    let script = "cat stream; echo completed OK! >&2; exec sleep 60";
    let wanted =
        ["read what mariadb-backup says", "read the copy", "look after mariadb-backup", "store blocks"];
    for (threads, doing) in wanted.iter().enumerate() {
        let began = Instant::now();
        let (_, result) = with_threads(threads, || run(script, |b| b));
        let error = result.err().unwrap();
        assert!(error.to_string().contains(&format!("no thread to {doing}: ")), "{threads}: {error}");
        assert!(began.elapsed() < Duration::from_secs(30), "{threads}: {:?}", began.elapsed());
    }
    let (sink, result) = with_threads(wanted.len(), || run("cat stream; echo completed OK! >&2", |b| b));
    assert_eq!(result.unwrap().files, 3);
    assert_eq!(sink.content("shop/t.MAD").unwrap(), vec![7u8; 200_000]);
}
