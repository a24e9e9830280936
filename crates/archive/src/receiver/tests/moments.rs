//! Which times are taken, and which are promised, on logs made up of times alone.

use holdfast_format::log_meta::LogMeta;
use holdfast_format::txn_index::IndexFrame;

use super::*;

/// One life of a log that was begun in the second before `EPOCH_US`: a transaction at each of these times, then notes.
fn life(memory: &Memory, incarnation: u32, times: &[i64], notes: &[i64]) {
    life_behind(memory, StreamKey { incarnation, ..STREAM }, 0, times, notes);
}

/// One of a server of its own, before whose first transaction so many of the set's were executed; gives how many are then.
fn life_behind(memory: &Memory, stream: StreamKey, executed: u64, times: &[i64], notes: &[i64]) -> u64 {
    let incarnation = stream.incarnation;
    let file = format!("binlog.{:06}", incarnation + 1);
    let start = |n: usize| 1000 + 100 * n as u64;
    let entries = times.iter().enumerate().map(|(n, at)| holdfast_format::txn_index::TxnEntry {
        gtid: None,
        start: start(n),
        end: start(n + 1),
        commit_us: EPOCH_US + at,
        kind: holdfast_format::txn_index::TxnKind::Rows,
        tables: Vec::new(),
        tables_cut: false,
        rolled_back: false,
        statement: None,
    });
    let index = IndexFrame::split(0, &file, entries.collect(), true);
    let (_, mut format) = split(&Source::mysql().files[0].1).remove(0);
    format[..4].copy_from_slice(&((EPOCH_US / 1_000_000 - 1) as u32).to_le_bytes());
    let body = format.len() - 4;
    let crc = crc32fast::hash(&format[..body]).to_le_bytes();
    format[body..].copy_from_slice(&crc);
    let mut frames = vec![(FrameKind::LogEvents, format)];
    frames.extend(index.iter().map(|frame| (FrameKind::LogIndex, frame.encode())));
    for at in notes {
        frames.push((FrameKind::LogMeta, LogMeta::Complete { at_us: EPOCH_US + at }.encode()));
    }
    let set = |executed: u64| match executed {
        0 => GtidSet::empty(Flavor::MySql),
        n => GtidSet::parse(Flavor::MySql, &format!("{}:1-{n}", STREAM.source_uuid)).unwrap(),
    };
    let then = if executed == 0 { 0 } else { executed + times.len() as u64 };
    let at = |offset, executed| Position { file: file.clone(), offset, gtid: set(executed) };
    let counts = crate::stretch::Counts { transactions: times.len() as u64, ..Default::default() };
    let segment = SegmentId(u128::from(incarnation).to_be_bytes());
    let record = counts.record(&stream, 0, segment, &at(4, executed), &at(start(times.len()), then));
    let stretch =
        Stretch { segment, stream, number: 0, start: at(4, executed), opened_us: 0, sealed: Some(record) };
    let synced = frames.len();
    memory.0.lock().unwrap().segments.push(Segment { stretch, frames, synced, rotten: None });
    then
}

const EPOCH_US: i64 = 1_700_000_000_000_000;

fn time_of(log: &ServerLog<'_>, us: i64) -> std::result::Result<Place, String> {
    log.resolve(&Target::Time(EPOCH_US + us)).unwrap().map(|cut| cut.place).map_err(|hole| hole.reason)
}

#[test]
fn a_time_behind_the_last_transaction_is_taken_up_to_the_last_note_and_not_beyond() {
    let memory = Memory::default();
    life(&memory, 0, &[10, 20], &[15, 90]);
    life(&memory, 1, &[300], &[200, 250]);
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let begin = |file: u64, offset| Place((file << 40) + offset);
    assert!(time_of(&log, -1).is_err(), "before the log begins");
    assert_eq!(time_of(&log, 9), Ok(begin(0, 1000)));
    assert_eq!(time_of(&log, 10), Ok(begin(0, 1100)));
    assert_eq!(time_of(&log, 20), Ok(begin(0, 1200)));
    assert_eq!(time_of(&log, 90), Ok(begin(0, 1200)), "idle, and known to be so");
    assert!(time_of(&log, 91).unwrap_err().contains("hole"));
    assert!(time_of(&log, 199).unwrap_err().contains("hole"));
    assert_eq!(time_of(&log, 200), Ok(begin(1, 1000)), "the second life is complete from its first note on");
    assert!(time_of(&log, 300).is_err(), "others may have been committed at the same moment");
    let moments =
        |place| log.moments(place).unwrap().map(|(first, last)| (first - EPOCH_US, last - EPOCH_US));
    assert_eq!(moments(begin(0, 1100)), Some((10, 90)));
    assert_eq!(moments(begin(1, 1000)), Some((200, 299)));
    assert_eq!(moments(begin(1, 1100)), None, "behind everything, and not known to be complete since");
}

#[test]
fn there_is_no_hole_where_another_server_goes_on_behind_the_same_transactions() {
    let memory = Memory::default();
    let server =
        |number: u8| StreamKey { incarnation: u32::from(number), source_uuid: Uuid([number; 16]), ..STREAM };
    let executed = life_behind(&memory, server(0), 5, &[10, 20], &[90]);
    assert_eq!(executed, 7);
    let executed = life_behind(&memory, server(1), executed, &[300], &[350]);
    life_behind(&memory, server(2), executed + 1, &[500], &[]);
    let log = ServerLog::open(&memory, STREAM.server).unwrap();
    let begin = |file: u64, offset| Place((file << 40) + offset);
    assert_eq!(time_of(&log, 90), Ok(begin(1, 1000)), "before the first transaction that comes later");
    assert_eq!(time_of(&log, 200), Ok(begin(1, 1000)));
    assert_eq!(time_of(&log, 350), Ok(begin(1, 1100)));
    assert!(time_of(&log, 400).unwrap_err().contains("hole"), "the third one had executed more");
    assert_eq!(log.gap(begin(0, 1000), begin(1, 1100)).unwrap(), None);
    assert!(log.gap(begin(1, 1000), begin(2, 1100)).unwrap().is_some());
    assert_eq!(log.breaks().len(), 1);
    assert_eq!(log.coverage().unwrap().len(), 2);
    let joints = log.joints().unwrap();
    assert_eq!((joints.len(), joints[0].stream), (1, server(1)));
    let moments =
        |place| log.moments(place).unwrap().map(|(first, last)| (first - EPOCH_US, last - EPOCH_US));
    assert_eq!(moments(begin(0, 1100)), Some((10, 350)));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    /// Whatever the clocks did: what is promised is taken, and leads behind the copy without a hole.
    #[test]
    fn a_promised_moment_is_never_refused(
        lives in proptest::collection::vec(
            (proptest::collection::vec(-20i64..200, 0..6), proptest::collection::vec(-20i64..250, 0..3), any::<bool>()),
            1..4,
        ),
        which: proptest::sample::Index,
        behind: proptest::sample::Index,
        between in 0.0..1.0f64,
    ) {
        let memory = Memory::default();
        let mut executed = 1;
        for (number, (times, notes, joined)) in lives.iter().enumerate() {
            // Some go on behind the one before, in the log of another server; behind the others there is a hole.
            let stream = StreamKey { incarnation: number as u32, source_uuid: Uuid([number as u8; 16]), ..STREAM };
            executed = life_behind(&memory, stream, executed + u64::from(!joined), times, notes);
        }
        let log = ServerLog::open(&memory, STREAM.server).unwrap();
        let at = which.index(lives.len());
        let base = Place(((at as u64) << 40) + 1000 + 100 * behind.index(lives[at].0.len() + 1) as u64);
        if let Some((first, last)) = log.moments(base).unwrap() {
            let middle = first + ((last - first) as f64 * between) as i64;
            for us in [first, middle, last] {
                let cut = log.resolve(&Target::Time(us)).unwrap();
                prop_assert!(cut.is_ok(), "{} of {first}..{last} is refused: {cut:?}", us - EPOCH_US);
                let place = cut.unwrap().place;
                prop_assert!(place >= base, "{} leads before the copy", us - EPOCH_US);
                prop_assert_eq!(log.gap(base, place).unwrap(), None);
            }
        }
    }
}
