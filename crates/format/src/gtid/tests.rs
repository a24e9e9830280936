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
