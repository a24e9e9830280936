//! Where a life of a log begins, and which copies stand in it.

use super::*;

fn base(started_us: i64, file: &str, offset: u64) -> Record {
    marked_base(started_us, file, offset, None)
}

fn marked_base(started_us: i64, file: &str, offset: u64, mark: Option<&FileMark>) -> Record {
    Record::BackupCommitted(holdfast_format::record::BackupRecord {
        id: holdfast_format::ids::BackupId([started_us as u8; 16]),
        server: STREAM.server,
        source: holdfast_format::record::SourceKind::Xbstream,
        started_us,
        finished_us: started_us + 1,
        parent: None,
        map: holdfast_format::ids::Address { segment: SegmentId([0; 16]), slot: 0 },
        coordinates: holdfast_format::record::Coordinates::Exact(Position {
            file: file.to_owned(),
            offset,
            gtid: holdfast_format::gtid::GtidSet::empty(Flavor::MySql),
        }),
        facts: mark.map(|mark| (crate::mark::FACT.to_owned(), mark.to_string())).into_iter().collect(),
        note: String::new(),
        stats: holdfast_format::record::BackupStats::default(),
        warnings: Vec::new(),
    })
}

#[test]
fn behind_a_gap_a_new_life_begins_at_a_backup_that_lies_behind_it() {
    let source = Source::mysql();
    let memory = Memory::default();
    let now = |memory: &Memory| crate::start::plan(memory, STREAM.server, STREAM.source_uuid).unwrap();
    memory.append(base(1, "binlog.000004", 200)).unwrap();
    assert_eq!(now(&memory).stream, STREAM);
    assert_eq!(now(&memory).origins.len(), 1);
    follow_some(&memory, &source, 12, 1, true).unwrap();
    assert_eq!(now(&memory), crate::start::Start { stream: STREAM, origins: Vec::new() });

    // The source has purged what follows: told as a gap, at the end of what is archived.
    let after = tail::find(&memory, &STREAM).unwrap().at.unwrap();
    let gap = LogGap { stream: STREAM, after: after.clone(), reason: "purged".to_owned(), at_us: 100 };
    memory.append(Record::LogGap(gap)).unwrap();
    assert_eq!(now(&memory).stream, STREAM, "without a newer backup the old stream is tried again");
    memory.append(base(50, "binlog.000009", 4)).unwrap();
    assert_eq!(
        now(&memory).stream,
        STREAM,
        "a higher number proves nothing: it may be of the log after a reset"
    );
    let other = FileMark::of_events("binlog.000009", [b"head".as_slice()].into_iter());
    memory.append(marked_base(50, "binlog.000009", 4, Some(&other))).unwrap();
    let start = now(&memory);
    assert_eq!((start.stream.incarnation, start.origins[0].at.file.as_str()), (1, "binlog.000009"));
    assert_eq!(start.origins[0].mark, Some(other), "and the source is asked whether it is its file");
    memory
        .append(Record::BackupForgotten {
            backup: holdfast_format::ids::BackupId([50; 16]),
            reason: String::new(),
        })
        .unwrap();
    assert_eq!(now(&memory).stream, STREAM);
    memory.append(base(101, "binlog.000001", 4)).unwrap();
    assert_eq!(now(&memory).stream.incarnation, 1, "after a reset the numbers begin anew");
}

#[test]
fn a_copy_stands_in_the_life_whose_file_has_its_mark_whatever_numbers_and_times_say() {
    let source = Source::mysql();
    let (memory, other) = (Memory::default(), source.reset());
    follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
    let after = tail::find(&memory, &STREAM).unwrap().at.unwrap();
    let gap = LogGap { stream: STREAM, after: after.clone(), reason: "it was reset".to_owned(), at_us: 100 };
    memory.append(Record::LogGap(gap)).unwrap();
    let second = StreamKey { incarnation: 1, ..STREAM };
    let (options, mut note) = (options(), |_: Note<'_>| {});
    let mut keeper = Keeper::start(&memory, &second, None, options.stretch_bytes, &mut note).unwrap();
    keeper.intake = Some(Intake::new(Flavor::MySql, &other.files[0].0, None));
    keeper.intake.as_mut().unwrap().reconnect();
    for event in other.serve(&other.files[0].0, FIRST_OFFSET) {
        keeper.take(&event).unwrap();
    }
    keeper.finish().unwrap();
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let place = |taken_us, mark| {
        let facts = CopyFacts { taken_us, source: None, mark: Some(mark), of_replica: false };
        log.place_of_copy(&after, &facts).unwrap()
    };
    let (first, later) = (place(200, source.mark()).unwrap(), place(1, other.mark()).unwrap());
    assert!(log.gap(first, later).unwrap().is_some(), "the two lie in two lives");
    assert_eq!(place(200, FileMark::of_events(&after.file, [b"head".as_slice()].into_iter())), None);
}

/// Its file comes again in the log of the server that was promoted, in the middle of which that begins here.
#[test]
fn a_copy_at_the_end_of_a_log_stands_there_and_not_in_the_one_that_goes_on_behind_it() {
    let (source, memory) = (Source::mysql(), Memory::default());
    follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
    let end = tail::find(&memory, &STREAM).unwrap().at.unwrap();
    let first = ServerLog::open(&memory, STREAM.server).unwrap().place_of(&end).unwrap();
    let stream = StreamKey { incarnation: 1, source_uuid: Uuid([9; 16]), ..STREAM };
    let at = |offset| Position { offset, ..end.clone() };
    let (start, last, segment) = (at(FIRST_OFFSET + 1), at(end.offset + 1000), SegmentId([9; 16]));
    let record = crate::stretch::Counts::default().record(&stream, 0, segment, &start, &last);
    let stretch = Stretch { segment, stream, number: 0, start, opened_us: 0, sealed: Some(record) };
    let segment = Segment { stretch, frames: Vec::new(), synced: 0, rotten: None };
    memory.0.lock().unwrap().segments.push(segment);
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let place = |mark| {
        log.place_of_copy(&end, &CopyFacts { taken_us: 1, source: None, mark: Some(mark), of_replica: false })
            .unwrap()
    };
    assert_eq!(place(source.mark()), first);
    let unknown = place(FileMark::of_events(&end.file, [b"head".as_slice()].into_iter()));
    assert!(unknown > first, "of which the head is not archived: it had executed what was at the joint");
}

#[test]
fn of_a_file_of_which_only_the_head_came_nothing_is_archived_and_the_proof_is_asked_in_the_file_before() {
    let source = Source::mysql();
    let events = source.serve(&source.files[0].0, FIRST_OFFSET);
    let rotations = events.iter().enumerate().filter(|(_, event)| crate::keeper::is_rotation(event));
    // The second artificial rotation, behind the real one.
    let second = rotations.map(|(at, _)| at).nth(2).unwrap();
    for came in [second, second + 1, second + 2] {
        let memory = Memory::default();
        follow_some(&memory, &source, came, 1, true).unwrap();
        let tail = tail::find(&memory, &STREAM).unwrap();
        assert_eq!(tail.at.unwrap().file, source.files[0].0);
        assert!(tail.anchor.is_some() && tail.rotated_to.is_some());
        follow_some(&memory, &source, usize::MAX, 1, true).unwrap();
        check_whole(&memory, &source);
    }
}

#[test]
fn a_purged_file_and_another_gtid_mode_are_gaps_even_if_all_of_the_file_is_archived() {
    let source = Source::mysql();
    let events = source.serve(&source.files[0].0, FIRST_OFFSET);
    let rotated =
        events.iter().position(|event| event[4] == EventType::ROTATE.0 && event[17] & 0x20 == 0).unwrap();
    for words in [
        "Could not find first log file name in binary log index file",
        "Cannot replicate GTID-transaction when @@GLOBAL.GTID_MODE = OFF, at file ./binlog.000004, position 197.",
    ] {
        let memory = Memory::default();
        follow_some(&memory, &source, rotated + 1, 1, true).unwrap();
        let (options, mut note) = (options(), |_: Note<'_>| {});
        let mut follower = Follower::start(&memory, &STREAM, &[], &options, &mut note).unwrap();
        let mut tail = tail::find(&memory, &STREAM).unwrap();
        follower.keeper.intake = Some(Intake::resume(Flavor::MySql, &tail.at.clone().unwrap(), &mut tail));
        let refused = Error::Mysql(holdfast_mysql::Error::Server(holdfast_mysql::ServerError {
            code: 1236,
            sqlstate: "HY000".to_owned(),
            message: words.to_owned(),
        }));
        let error = follower.source_failed(refused).err().unwrap();
        assert!(matches!(error, Error::Gap { .. }), "{error}");
    }
}
