//! Damage in the segment that a dead writer left behind.

use super::*;

/// An archive whose writer died in the middle, with its open segment and how many frames that has.
fn stopped(source: &Source) -> (Memory, usize, usize) {
    let memory = Memory::default();
    follow_some(&memory, source, 9, 1, false).unwrap();
    memory.crash(0);
    let state = memory.0.lock().unwrap();
    let place = state.segments.iter().position(|s| s.stretch.sealed.is_none()).unwrap();
    let frames = state.segments[place].frames.len();
    drop(state);
    (memory, place, frames)
}

fn rot(memory: &Memory, place: usize, frame: usize) {
    memory.0.lock().unwrap().segments[place].rotten = Some(frame);
}

#[test]
fn what_rotted_in_an_open_segment_is_named_and_comes_again_from_the_source() {
    for source in [Source::mysql(), Source::mariadb()] {
        let frames = stopped(&source).2;
        assert!(frames > 1, "{frames} frames");
        for frame in 0..frames {
            let (memory, place, _) = stopped(&source);
            rot(&memory, place, frame);
            // Whoever reads the events is told.
            let mut reader = LogReader::open(&memory, &STREAM).unwrap();
            let error = loop {
                match reader.next_event() {
                    Ok(Some(_)) => {}
                    Ok(None) => panic!("frame {frame}: it reads as the end of the log"),
                    Err(error) => break error,
                }
            };
            assert!(error.is_damage() && error.to_string().contains("logs/"), "{error}");
            // So is whoever goes on, and nothing is lost by it.
            let mut notes = Vec::new();
            let options = options();
            let mut note = |note: Note<'_>| notes.push(format!("{note:?}"));
            drop(Follower::start(&memory, &STREAM, &[], &options, &mut note).unwrap());
            let named = |note: &String| note.contains("Warning") && note.contains("it rotted");
            assert!(notes.iter().any(named), "frame {frame}: {notes:?}");
            follow_some(&memory, &source, usize::MAX, 3, true).unwrap();
            check_whole(&memory, &source);
            let state = memory.0.lock().unwrap();
            assert!(state.segments[place].stretch.sealed.is_none(), "frame {frame}: it got a record");
        }
    }
}

#[test]
fn what_rotted_and_does_not_come_again_is_a_gap_that_hides_nothing_before_it() {
    let source = Source::mysql();
    let (memory, place, frames) = stopped(&source);
    let whole = exported(&memory);
    rot(&memory, place, frames - 1);
    let after = tail::find(&memory, &STREAM).unwrap().at.unwrap();
    assert!(ServerLog::open(&memory, STREAM.server).is_err(), "nobody knows yet that it ends here");
    let gap = LogGap { stream: STREAM, after: after.clone(), reason: "purged".to_owned(), at_us: 1 };
    memory.append(Record::LogGap(gap)).unwrap();
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    assert_eq!(log.breaks().len(), 1);
    assert!(!entries(&memory).is_empty());
    let left = exported(&memory);
    assert!(left.iter().all(|(file, bytes)| whole[file].starts_with(bytes)), "other bytes");
    assert!(left[&after.file].len() as u64 >= after.offset, "less than the gap says");
}
