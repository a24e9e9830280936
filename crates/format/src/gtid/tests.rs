use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const A: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
const B: &str = "00000000-0000-0000-0000-000000000001";

fn set(text: &str) -> MySqlGtidSet {
    text.parse().unwrap()
}

fn tsid(sid: &str, tag: &str) -> Tsid {
    Tsid { sid: sid.parse().unwrap(), tag: tag.parse().unwrap() }
}

#[test]
fn server_text_with_line_breaks_and_tags_is_read_and_printed_normalised() {
    let read = set(&format!("{A}:1-5:7:Tag_1:1-3:5,\n {B}:9,{A}:6"));
    assert_eq!(read.to_string(), format!("{B}:9,{A}:1-7:tag_1:1-3:5"));
    assert_eq!(set("").to_string(), "");
    assert_eq!(set(&format!("{A}:5-3")).to_string(), "", "an interval that ends before it starts is empty");
}

#[test]
fn broken_texts_are_refused() {
    for text in [
        "x",
        A,
        &format!("{A}:0"),
        &format!("{A}:1-"),
        &format!("{A}:1:9x"),
        &format!("{A}:tag"),
        &format!("{A}::1"),
    ] {
        assert!(text.parse::<MySqlGtidSet>().is_err(), "{text}");
    }
    for text in ["0-1", "0-1-2-3", "a-1-2", "0-1-2,0-2-3", "4294967296-1-1", "-1-1-1"] {
        assert!(text.parse::<MariaDbGtidPos>().is_err(), "{text}");
    }
    assert!(format!("{A}:9223372036854775807").parse::<Gtid>().is_err());
}

#[test]
fn single_gtids_keep_their_text() {
    for text in [format!("{A}:5"), format!("{A}:tag:5"), "0-1-100".to_owned()] {
        let gtid: Gtid = text.parse().unwrap();
        assert_eq!(gtid.to_string(), text);
        let mut bytes = Vec::new();
        gtid.encode(&mut bytes);
        assert_eq!(Gtid::decode(&bytes).unwrap(), (gtid, bytes.len()));
    }
}

#[test]
fn untagged_server_bytes_are_as_documented() {
    let bytes = set(&format!("{B}:1-5:9")).to_server_bytes();
    let mut want = vec![1, 0, 0, 0, 0, 0, 0, 0];
    want.extend([0; 15]);
    want.push(1);
    for v in [2u64, 1, 6, 9, 10] {
        want.extend(v.to_le_bytes());
    }
    assert_eq!(bytes, want);
}

#[test]
fn a_hostile_count_is_refused_before_anything_is_allocated() {
    let mut bytes = (u64::MAX >> 8).to_le_bytes().to_vec();
    bytes.extend([0; 64]);
    assert!(matches!(MySqlGtidSet::from_server_bytes(&bytes), Err(GtidError::TooLarge { .. })));
    let mut bytes = 3u64.to_le_bytes().to_vec();
    bytes.extend([0; 24]);
    assert!(matches!(MySqlGtidSet::from_server_bytes(&bytes), Err(GtidError::Bytes { .. })));
}

#[test]
fn mariadb_positions_and_states_follow_the_servers_rules() {
    let mut pos: MariaDbGtidPos = "1-10-5, 0-1-100".parse().unwrap();
    assert_eq!(pos.to_string(), "0-1-100,1-10-5");
    pos.advance("0-2-99".parse().unwrap());
    assert_eq!(pos.get(0).unwrap().sequence, 100, "a position never moves back");
    pos.advance("0-2-101".parse().unwrap());
    assert_eq!(pos.to_string(), "0-2-101,1-10-5");

    let mut state: MariaDbBinlogState = "0-1-100,0-2-101".parse().unwrap();
    assert_eq!(state.position().to_string(), "0-2-101");
    state.update("0-1-102".parse().unwrap());
    assert_eq!(state.to_string(), "0-2-101,0-1-102", "the latest of a domain stands last");
}

#[test]
fn families_do_not_mix() {
    let mut mysql = GtidSet::empty(Flavor::MySql);
    let maria = GtidSet::parse(Flavor::MariaDb, "0-1-1").unwrap();
    assert!(matches!(mysql.union(&maria), Err(GtidError::Mixed { .. })));
    assert!(mysql.add(&"0-1-1".parse().unwrap()).is_err());
    assert!(!maria.is_subset(&mysql));
}

type Model = BTreeSet<(u8, u64)>;

fn build(model: &Model) -> MySqlGtidSet {
    let mut out = MySqlGtidSet::default();
    for &(source, gno) in model {
        out.add(&source_tsid(source), gno);
    }
    out
}

fn source_tsid(source: u8) -> Tsid {
    tsid(if source.is_multiple_of(2) { A } else { B }, if source < 2 { "" } else { "tag" })
}

fn models() -> impl Strategy<Value = Model> {
    prop::collection::btree_set((0u8..4, 1u64..40), 0..60)
}

proptest! {
    #[test]
    fn sets_behave_like_sets_of_numbers(a in models(), b in models()) {
        let (x, y) = (build(&a), build(&b));
        let mut union = x.clone();
        union.union(&y);
        prop_assert_eq!(&union, &build(&a.union(&b).copied().collect()));
        let mut minus = x.clone();
        minus.subtract(&y);
        prop_assert_eq!(&minus, &build(&a.difference(&b).copied().collect()));
        prop_assert_eq!(x.intersects(&y), a.intersection(&b).next().is_some());
        prop_assert_eq!(x.is_subset(&y), a.is_subset(&b));
        prop_assert_eq!(x.count(), a.len() as u64);
        for source in 0..4 {
            for gno in 1..41 {
                prop_assert_eq!(x.contains(&source_tsid(source), gno), a.contains(&(source, gno)));
            }
        }
    }

    #[test]
    fn order_of_adding_does_not_matter(items in prop::collection::vec((0u8..4, 1u64..40), 0..60)) {
        let mut shuffled = MySqlGtidSet::default();
        for (source, gno) in &items {
            shuffled.add(&source_tsid(*source), *gno);
        }
        prop_assert_eq!(shuffled, build(&items.into_iter().collect()));
    }

    #[test]
    fn every_form_of_a_set_reads_back(a in models()) {
        let x = build(&a);
        prop_assert_eq!(&x.to_string().parse::<MySqlGtidSet>().unwrap(), &x);
        prop_assert_eq!(&MySqlGtidSet::from_server_bytes(&x.to_server_bytes()).unwrap(), &x);
        let (mut bytes, set) = (Vec::new(), GtidSet::MySql(x));
        set.encode(&mut bytes);
        prop_assert_eq!(GtidSet::decode(&bytes).unwrap(), (set, bytes.len()));
    }

    #[test]
    fn positions_read_back(list in prop::collection::btree_map(any::<u32>(), (any::<u32>(), any::<u64>()), 0..8)) {
        let mut pos = MariaDbGtidPos::default();
        for (domain, (server, sequence)) in list {
            pos.set(MariaDbGtid { domain, server, sequence });
        }
        prop_assert_eq!(&pos.to_string().parse::<MariaDbGtidPos>().unwrap(), &pos);
        let (mut bytes, set) = (Vec::new(), GtidSet::MariaDb(pos));
        set.encode(&mut bytes);
        prop_assert_eq!(GtidSet::decode(&bytes).unwrap(), (set, bytes.len()));
    }

    #[test]
    fn any_bytes_are_read_or_refused_and_what_is_read_is_canonical(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let _ = MySqlGtidSet::from_server_bytes(&bytes);
        let _ = Gtid::decode(&bytes);
        if let Ok((set, len)) = GtidSet::decode(&bytes) {
            let mut again = Vec::new();
            set.encode(&mut again);
            prop_assert_eq!(&again[..], &bytes[..len]);
        }
    }
}

// ---- what lies at the edge, and just beyond it ---------------------------------------------------

#[test]
fn a_uuid_has_its_dashes_where_they_belong_or_none() {
    let plain = A.replace('-', "");
    let want = A.parse::<Uuid>().unwrap();
    for text in [plain.clone(), format!("{{{A}}}"), format!("{{{plain}}}"), A.to_uppercase()] {
        assert_eq!(text.parse::<Uuid>().unwrap(), want, "{text}");
    }
    let moved = "3e11fa4-771ca-11e1-9e33-c80aa9429562";
    let strange = A.replace('-', "_");
    for text in [&plain[1..], &format!("{plain}0"), moved, &strange, &format!("{{{A}"), &A[..35], "", "{}"] {
        assert!(text.parse::<Uuid>().is_err(), "{text}");
    }
    assert!(A.replace("3e11", "3g11").parse::<Uuid>().is_err());
}

#[test]
fn tags_are_as_long_and_spelled_as_the_server_allows() {
    for (tag, good) in [
        ("a".repeat(32), true),
        ("a".repeat(33), false),
        ("_a9".to_owned(), true),
        ("9a".to_owned(), false),
        ("a-b".to_owned(), false),
        ("-".to_owned(), false),
        (String::new(), true),
        (" Ab ".to_owned(), true),
    ] {
        assert_eq!(tag.parse::<Tag>().is_ok(), good, "{tag}");
    }
    assert!(tsid(A, "").tag.is_empty() && !tsid(A, "x").tag.is_empty());
    assert!(format!("{A}:a-:1").parse::<MySqlGtidSet>().is_err());
}

#[test]
fn numbers_of_transactions_end_where_the_servers_do() {
    let last = GNO_MAX;
    for (text, good) in [
        (format!("{A}:1"), true),
        (format!("{A}:{last}"), true),
        (format!("{A}:{}", last + 1), false),
        (format!("{A}:0"), false),
        (format!("{A}:"), false),
        (format!("{A}:+1"), false),
        (format!("{A}:x"), false),
        (A.to_owned(), false),
    ] {
        assert_eq!(text.parse::<Gtid>().is_ok(), good, "{text}");
    }
    assert_eq!(set(&format!("{A}:1-{last}")).count(), last);
    assert!(format!("{A}:1-{}", last + 1).parse::<MySqlGtidSet>().is_err());
    for text in ["0-1-", "0--1", "0-+1-1", "0-1-1x", "", "--"] {
        assert!(text.parse::<MariaDbGtid>().is_err(), "{text}");
    }
    assert!(format!("0-1-{}", u64::MAX).parse::<MariaDbGtid>().is_ok());
}

#[test]
fn a_set_says_of_both_families_what_is_in_it() {
    let (mysql, maria) = (Flavor::MySql, Flavor::MariaDb);
    let cases = [
        (
            mysql,
            format!("{A}:1-5"),
            format!("{A}:3-9"),
            format!("{A}:5"),
            format!("{A}:6"),
            format!("{A}:1-9"),
            format!("{A}:1-2"),
        ),
        (
            maria,
            "0-1-5,1-1-7".into(),
            "0-1-5,1-1-9".into(),
            "0-2-5".into(),
            "0-1-6".into(),
            "0-1-5,1-1-9".into(),
            String::new(),
        ),
    ];
    for (flavor, left, right, inside, outside, both, minus) in cases {
        let parse = |text: &str| GtidSet::parse(flavor, text).unwrap();
        let gtid = |text: &str| text.parse::<Gtid>().unwrap();
        let (left, right) = (parse(&left), parse(&right));
        assert!(GtidSet::empty(flavor).is_empty() && !left.is_empty());
        assert!(left.contains(&gtid(&inside)) && !left.contains(&gtid(&outside)));
        let mut union = left.clone();
        union.union(&right).unwrap();
        assert_eq!(union, parse(&both));
        assert!(left.is_subset(&union) && right.is_subset(&union) && !union.is_subset(&left));
        assert!(left.intersects(&right) && !left.intersects(&GtidSet::empty(flavor)));
        let mut less = left.clone();
        less.subtract(&right).unwrap();
        assert_eq!(less, parse(&minus));
        let mut more = left.clone();
        more.add(&gtid(&outside)).unwrap();
        assert!(more.contains(&gtid(&outside)) && more != left);

        let other = if flavor == mysql { maria } else { mysql };
        let stranger = GtidSet::parse(other, if other == maria { "0-1-1" } else { A_ONE }).unwrap();
        assert!(!left.contains(&gtid(if other == maria { "0-1-1" } else { A_ONE })));
        assert!(!left.intersects(&stranger) && !left.is_subset(&stranger));
        assert!(GtidSet::empty(flavor).is_subset(&stranger));
        assert!(less.subtract(&stranger).is_err() && less.union(&stranger).is_err());
    }
    let mut ahead: MariaDbGtidPos = "0-1-5,1-1-7".parse().unwrap();
    ahead.subtract(&"0-1-4,1-1-8".parse().unwrap());
    assert_eq!(ahead.to_string(), "0-1-5", "what is ahead stays");
    assert!(!ahead.intersects(&"1-1-1".parse().unwrap()));
    assert!(MariaDbBinlogState::default().is_empty());
    assert!(!"0-1-1".parse::<MariaDbBinlogState>().unwrap().is_empty());
}

/// A transaction of the other family than MariaDB's.
const A_ONE: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562:1";

#[test]
fn an_interval_is_taken_off_at_either_end_and_in_the_middle() {
    for (from, what, left) in [
        ("1-9", "1-9", ""),
        ("1-9", "3-4", "1-2:5-9"),
        ("1-9", "1", "2-9"),
        ("1-9", "9", "1-8"),
        ("1-9", "5-20", "1-4"),
        ("5-9", "1-5", "6-9"),
        ("1-3:7-9", "2-8", "1:9"),
        ("1-3:7-9:20", "1-9", "20"),
        ("1-9", "2:4:6", "1:3:5:7-9"),
        ("1-9:11-20", "9-11", "1-8:12-20"),
    ] {
        let mut minus = set(&format!("{A}:{from}"));
        minus.subtract(&set(&format!("{A}:{what}")));
        let want = if left.is_empty() { String::new() } else { format!("{A}:{left}") };
        assert_eq!(minus.to_string(), want, "{from} without {what}");
    }
}

/// The server's form of one source: intervals with their ends behind the last number.
fn server_bytes(runs: &[(u64, u64)]) -> Vec<u8> {
    let mut bytes = 1u64.to_le_bytes().to_vec();
    bytes.extend([7; 16]);
    bytes.extend((runs.len() as u64).to_le_bytes());
    for (first, end) in runs {
        bytes.extend(first.to_le_bytes());
        bytes.extend(end.to_le_bytes());
    }
    bytes
}

#[test]
fn the_servers_form_has_rising_intervals_and_nothing_behind() {
    let read = |bytes: &[u8]| MySqlGtidSet::from_server_bytes(bytes);
    for (runs, good) in [
        (&[(1, 2)][..], true),
        (&[(1, GNO_MAX + 1)], true),
        (&[(1, GNO_MAX + 2)], false),
        (&[(0, 2)], false),
        (&[(2, 2)], false),
        (&[(3, 2)], false),
        (&[(1, 3), (4, 6)], true),
        (&[(1, 3), (3, 6)], false),
        (&[(1, 5), (2, 6)], false),
        (&[(5, 6), (1, 2)], false),
    ] {
        let bytes = server_bytes(runs);
        assert_eq!(read(&bytes).is_ok(), good, "{runs:?}");
        assert!(read(&[&bytes[..], &[0]].concat()).is_err(), "{runs:?} and a byte more");
        assert!(read(&bytes[..bytes.len() - 1]).is_err(), "{runs:?} and a byte less");
    }
    let mut tagged = set(&format!("{A}:tag:1-5")).to_server_bytes();
    assert!(read(&tagged).is_ok());
    tagged[24] |= 1;
    assert!(read(&tagged).is_err(), "a length of a tag in more than one byte");
    let mut strange = server_bytes(&[(1, 2)]);
    strange[7] = 2;
    assert!(read(&strange).is_err(), "a format that nobody knows");
}

/// Our own form of numbers below 128, of one family.
fn ours(family: u8, numbers: &[u8]) -> Vec<u8> {
    [&[family], numbers].concat()
}

/// One source of the MySQL family in our form: its UUID, no tag, and its intervals.
fn source(uuid: u8, runs: &[u8]) -> Vec<u8> {
    [&[uuid; 16][..], &[0, runs.len() as u8 / 2], runs].concat()
}

#[test]
fn our_form_of_a_set_is_the_only_one() {
    let read = |bytes: &[u8]| GtidSet::decode(bytes);
    let mysql = |sources: &[Vec<u8>]| ours(0, &[&[sources.len() as u8][..], &sources.concat()].concat());
    for (sources, good, why) in [
        (vec![source(1, &[1, 0])], true, "one number"),
        (vec![source(1, &[0, 0])], false, "from 0"),
        (vec![source(1, &[])], false, "no interval"),
        (vec![source(1, &[1, 0, 2, 0])], true, "apart by one"),
        (vec![source(1, &[1, 0, 1, 0])], false, "that touch"),
        (vec![source(1, &[1, 0]), source(2, &[1, 0])], true, "two sources"),
        (vec![source(2, &[1, 0]), source(1, &[1, 0])], false, "sources that fall"),
        (vec![source(1, &[1, 0]), source(1, &[3, 0])], false, "a source twice"),
    ] {
        assert_eq!(read(&mysql(&sources)).is_ok(), good, "{why}");
    }
    let (mut edge, mut beyond) = (mysql(&[source(1, &[1, 0])]), mysql(&[source(1, &[1, 0])]));
    edge.pop();
    beyond.pop();
    wire::put_leb(&mut edge, GNO_MAX - 1);
    wire::put_leb(&mut beyond, GNO_MAX);
    assert!(read(&edge).is_ok() && read(&beyond).is_err());
    for (domains, good, why) in [
        (&[1, 0, 1, 5][..], true, "one domain"),
        (&[2, 0, 1, 5, 1, 1, 7], true, "two domains"),
        (&[2, 1, 1, 5, 0, 1, 7], false, "domains that fall"),
        (&[2, 1, 1, 5, 1, 2, 7], false, "a domain twice"),
        (&[1, 0x80, 0, 1, 5], false, "a number with padding"),
    ] {
        assert_eq!(read(&ours(1, domains)).is_ok(), good, "{why}");
    }
    assert!(read(&ours(2, &[0])).is_err(), "a family that nobody knows");
    // Domain and server have 32 bits.
    for (number, good) in [(u64::from(u32::MAX), true), (u64::from(u32::MAX) + 1, false)] {
        for place in 0..2 {
            let mut bytes = vec![1, 1];
            for at in 0..2 {
                wire::put_leb(&mut bytes, if at == place { number } else { 1 });
            }
            bytes.push(9);
            assert_eq!(read(&bytes).is_ok(), good, "{number} in place {place}");
        }
    }
}

#[test]
fn numbers_of_our_form_have_64_bits_in_ten_bytes() {
    let read = |bytes: &[u8]| wire::Reader::new(bytes).leb("a number").ok();
    let most = [&[0xff; 9][..], &[1]].concat();
    assert_eq!(read(&most), Some(u64::MAX));
    assert_eq!(read(&[&[0xff; 9][..], &[2]].concat()), None);
    assert_eq!(read(&[&[0xff; 10][..], &[1]].concat()), None);
    assert_eq!(read(&[0]), Some(0));
    assert_eq!(read(&[0x80, 0]), None);
    assert_eq!(read(&[0x80, 1]), Some(128));
    assert_eq!(read(&[]), None);
    for value in [0, 1, 127, 128, 16_383, 16_384, u64::MAX - 1] {
        let mut bytes = Vec::new();
        wire::put_leb(&mut bytes, value);
        assert_eq!(read(&bytes), Some(value));
    }
    let gno = |value: u64| {
        let mut bytes = Vec::new();
        wire::put_leb(&mut bytes, value);
        wire::Reader::new(&bytes).gno().ok()
    };
    assert_eq!((gno(0), gno(1), gno(GNO_MAX), gno(GNO_MAX + 1)), (None, Some(1), Some(GNO_MAX), None));
}

#[test]
fn counts_are_held_against_their_limit_and_the_bytes_that_are_left() {
    let bytes = [0; 40];
    let count = |value, limit| wire::Reader::new(&bytes).count(value, limit, "things", 8).ok();
    assert_eq!((count(5, 5), count(5, 9), count(5, 4), count(6, 9)), (Some(5), Some(5), None, None));
    // More sources than there may be, with all their bytes.
    let many = |sources: usize| {
        let mut bytes = (sources as u64).to_le_bytes().to_vec();
        for nth in 0..sources as u128 {
            bytes.extend(nth.to_be_bytes());
            bytes.extend([1u64, 1, 2].map(u64::to_le_bytes).concat());
        }
        MySqlGtidSet::from_server_bytes(&bytes)
    };
    assert!(many(TSIDS_MAX).is_ok() && many(TSIDS_MAX + 1).is_err());
    let list = |domains: usize| {
        let text: Vec<String> = (0..domains).map(|domain| format!("{domain}-1-1")).collect();
        text.join(",").parse::<MariaDbGtidPos>()
    };
    assert!(list(TSIDS_MAX).is_ok());
    let refused = list(TSIDS_MAX + 1);
    assert!(
        matches!(refused, Err(GtidError::TooLarge { got, .. }) if got == TSIDS_MAX as u64 + 1),
        "{refused:?}"
    );
}
