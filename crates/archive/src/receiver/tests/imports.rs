//! Files that become part of a stream, alone and between what came from the source.

use std::cell::Cell;
use std::io::Read;
use std::sync::atomic::AtomicBool;

use super::*;
use crate::import::{BinlogFiles, Owner, Plan, check, import};

/// Files in memory.
struct Files {
    names: Vec<String>,
    bytes: Vec<Vec<u8>>,
}

impl Files {
    fn of(source: &Source) -> Self {
        let (names, bytes) = source.files.iter().cloned().unzip();
        Self { names, bytes }
    }

    fn last(&mut self) -> &mut Vec<u8> {
        self.bytes.last_mut().unwrap()
    }
}

impl BinlogFiles for Files {
    fn names(&self) -> &[String] {
        &self.names
    }

    fn open(&self, place: usize, offset: u64) -> std::io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(self.bytes[place].get(offset as usize..).unwrap_or_default()))
    }
}

fn owner(source: &Source) -> Owner {
    Owner { server: STREAM.server, source_uuid: STREAM.source_uuid, flavor: source.flavor, vouched: true }
}

fn checked(memory: &Memory, source: &Source, files: &Files) -> Result<Plan> {
    check(memory, &owner(source), files, &[], &AtomicBool::new(false), &mut |_| {})
}

/// Imports until so many events were read.
fn import_some(memory: &Memory, source: &Source, files: &Files, events: usize) -> Result<Option<u64>> {
    let plan = checked(memory, source, files)?;
    if plan.is_nothing() {
        return Ok(None);
    }
    let (stop, read) = (AtomicBool::new(false), Cell::new(0));
    let mut progress = |_| {
        read.set(read.get() + 1);
        stop.store(read.get() >= events, Ordering::Relaxed);
    };
    let done = import(memory, &plan, files, 300, &stop, &mut progress, &mut |_| {});
    match done {
        Ok(followed) => {
            assert_eq!(followed.transactions, plan.transactions);
            let end = followed.at.unwrap();
            assert_eq!(
                (&end.file, end.offset, &end.gtid),
                (&plan.until.file, plan.until.offset, &plan.until.gtid)
            );
            Ok(Some(followed.transactions))
        }
        Err(Error::Interrupted) => Ok(Some(0)),
        Err(error) => Err(error),
    }
}

#[track_caller]
fn refused(memory: &Memory, source: &Source, files: &Files, words: &str) {
    let segments = memory.0.lock().unwrap().segments.len();
    let error = checked(memory, source, files).unwrap_err().to_string();
    assert!(error.contains(words), "{error}");
    assert_eq!(memory.0.lock().unwrap().segments.len(), segments, "something was written");
}

#[test]
fn files_alone_are_the_log_that_their_server_would_have_sent() {
    for source in [Source::mysql(), Source::mariadb()] {
        let memory = Memory::default();
        let mut files = Files::of(&source);
        // As it lies there while it is being written.
        files.last()[4 + 17] |= 1;
        assert!(import_some(&memory, &source, &files, usize::MAX).unwrap().unwrap() > 0);
        check_whole(&memory, &source);
        assert_eq!(import_some(&memory, &source, &files, usize::MAX).unwrap(), None, "twice is once");
        check_whole(&memory, &source);
    }
}

#[test]
fn an_import_that_was_killed_goes_on_and_nothing_is_double() {
    for source in [Source::mysql(), Source::mariadb()] {
        let files = Files::of(&source);
        for events in 1..60 {
            let memory = Memory::default();
            for lucky in 0..3 {
                import_some(&memory, &source, &files, events).unwrap();
                memory.crash(lucky);
            }
            import_some(&memory, &source, &files, usize::MAX).unwrap();
            check_whole(&memory, &source);
        }
    }
}

#[test]
fn the_source_goes_on_behind_files_and_files_behind_the_source() {
    for source in [Source::mysql(), Source::mariadb()] {
        let all = Files::of(&source);
        let first = Files { names: all.names[..1].to_vec(), bytes: all.bytes[..1].to_vec() };
        let memory = Memory::default();
        import_some(&memory, &source, &first, usize::MAX).unwrap();
        follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
        check_whole(&memory, &source);
        for events in 4..14 {
            let memory = Memory::default();
            follow_some(&memory, &source, events, 2, events % 2 == 0).unwrap();
            import_some(&memory, &source, &all, usize::MAX).unwrap();
            check_whole(&memory, &source);
        }
    }
}

#[test]
fn files_of_another_log_are_refused() {
    for source in [Source::mysql(), Source::mariadb()] {
        let memory = Memory::default();
        follow_some(&memory, &source, 10, 1, true).unwrap();
        for other in [source.reset(), source.reset_at_once()] {
            let error = checked(&memory, &source, &Files::of(&other)).unwrap_err();
            assert!(matches!(error, Error::Import { .. }), "{error}");
        }
        let other = if source.flavor == Flavor::MySql { Source::mariadb() } else { Source::mysql() };
        refused(&Memory::default(), &source, &Files::of(&other), "and the server is not");
        let stranger = Owner { vouched: false, ..owner(&source) };
        let files = Files::of(&source);
        let told = check(&Memory::default(), &stranger, &files, &[], &AtomicBool::new(false), &mut |_| {});
        assert!(told.unwrap_err().to_string().contains("nothing tells that it is of this server"));
        let origin = |mark| Origin {
            at: Position { file: files.names[1].clone(), offset: 4, gtid: GtidSet::empty(source.flavor) },
            mark: Some(mark),
        };
        let by = |mark| {
            check(
                &Memory::default(),
                &stranger,
                &files,
                &[origin(mark)],
                &AtomicBool::new(false),
                &mut |_| {},
            )
        };
        assert!(by(source.mark()).is_ok());
        assert!(by(source.reset().mark()).is_err());
    }
}

#[test]
fn what_is_not_whole_is_refused_or_taken_up_to_its_last_transaction() {
    for source in [Source::mysql(), Source::mariadb()] {
        let empty = Memory::default();
        for (at, cut) in [(0, 3), (0, 40), (0, 200)] {
            let mut files = Files::of(&source);
            let len = files.bytes[at].len();
            files.bytes[at].truncate(len - cut);
            let error = checked(&empty, &source, &files).unwrap_err();
            assert!(matches!(error, Error::Import { .. }), "{error}");
        }
        let mut files = Files::of(&source);
        files.bytes[0][300] ^= 4;
        assert!(matches!(checked(&empty, &source, &files), Err(Error::Event { .. } | Error::Import { .. })));
        assert_eq!(empty.0.lock().unwrap().segments.len(), 0);

        // Cut off anywhere, and whole later.
        let whole = Files::of(&source);
        for cut in (1..whole.bytes[1].len() - 4).step_by(37) {
            let mut files = Files::of(&source);
            let len = files.last().len();
            files.last().truncate(len - cut);
            let memory = Memory::default();
            import_some(&memory, &source, &files, usize::MAX).unwrap();
            check_coverage(&memory);
            import_some(&memory, &source, &whole, usize::MAX).unwrap();
            check_whole(&memory, &source);
        }
    }
}

#[test]
fn files_that_do_not_meet_the_archive_are_refused() {
    for source in [Source::mysql(), Source::mariadb()] {
        let all = Files::of(&source);
        let last = Files { names: all.names[1..].to_vec(), bytes: all.bytes[1..].to_vec() };
        let memory = Memory::default();
        follow_some(&memory, &source, 8, 1, true).unwrap();
        assert!(exported(&memory).len() == 1, "of the first file only");
        refused(&memory, &source, &last, "there is a hole");
        let apart =
            Files { names: vec![all.names[0].clone(), "binlog.000099".into()], bytes: all.bytes.clone() };
        refused(&memory, &source, &apart, "a file between them is missing");

        // An archive that begins later.
        let memory = Memory::default();
        import_some(&memory, &source, &last, usize::MAX).unwrap();
        refused(&memory, &source, &all, "before what is archived");
        let first = Files { names: all.names[..1].to_vec(), bytes: all.bytes[..1].to_vec() };
        refused(&memory, &source, &first, "before the end of what is archived");

        // All of the first file, and its end says which one follows: the user may vouch for it.
        let memory = Memory::default();
        import_some(&memory, &source, &first, usize::MAX).unwrap();
        let strict = Owner { vouched: false, ..owner(&source) };
        let told = check(&memory, &strict, &last, &[], &AtomicBool::new(false), &mut |_| {});
        let told = told.unwrap_err().to_string();
        if told.contains("only that file can show") {
            import_some(&memory, &source, &last, usize::MAX).unwrap();
            check_whole(&memory, &source);
        } else {
            assert!(told.contains("there is a hole"), "{told}");
        }
    }
}

/// Changes events where they lie, and makes their checksums anew.
fn edit(bytes: &mut [u8], mut change: impl FnMut(&mut [u8])) {
    for (at, mut event) in split(bytes) {
        change(&mut event);
        let body = event.len() - 4;
        let crc = crc32fast::hash(&event[..body]).to_le_bytes();
        event[body..].copy_from_slice(&crc);
        bytes[at as usize..][..event.len()].copy_from_slice(&event);
    }
}

#[test]
fn a_replica_has_its_sources_transactions_and_is_not_taken_for_it() {
    let source = Source::mysql();
    let mut files = Files::of(&source);
    let events = split(&files.bytes[0]);
    let (_, gtid) = events.iter().find(|(_, event)| EventType(event[4]) == EventType::GTID).unwrap();
    let uuid = Uuid(*gtid[HEADER_LEN + 1..].first_chunk().unwrap());
    let stream = Owner { source_uuid: uuid, vouched: false, ..owner(&source) };
    let told = |files: &Files| {
        check(&Memory::default(), &stream, files, &[], &AtomicBool::new(false), &mut |_| {}).map(drop)
    };
    told(&files).unwrap();
    for bytes in &mut files.bytes {
        // What the replica itself writes has its own number.
        edit(bytes, |event| {
            let own = [EventType::FORMAT_DESCRIPTION, EventType::PREVIOUS_GTIDS, EventType::ROTATE];
            if own.contains(&EventType(event[4])) {
                event[5] ^= 0x10;
            }
        });
    }
    let error = told(&files).unwrap_err().to_string();
    assert!(error.contains("a replica's log has its source's"), "{error}");
}

#[test]
fn without_gtids_a_file_that_is_not_closed_may_hide_a_hole() {
    let source = Source::mysql();
    let mut files = Files::of(&source);
    let (at, last) = split(&files.bytes[0]).pop().unwrap();
    assert_eq!(EventType(last[4]), EventType::ROTATE);
    files.bytes[0].truncate(at as usize);
    // All have GTIDs: the list at the head of the next file shows that nothing is missing.
    checked(&Memory::default(), &source, &files).unwrap();
    edit(files.last(), |event| {
        if EventType(event[4]) == EventType::GTID {
            event[4] = EventType::ANONYMOUS_GTID.0;
        }
    });
    refused(&Memory::default(), &source, &files, "it does not say at its end that it is closed");
}
