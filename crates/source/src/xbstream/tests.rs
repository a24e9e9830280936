use std::collections::BTreeMap;

use super::*;
use proptest::prelude::*;

fn head(kind: u8, flags: u8, path: &[u8]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    out.extend([flags, kind]);
    out.extend((path.len() as u32).to_le_bytes());
    out.extend(path);
    out
}

fn payload(path: &str, offset: u64, bytes: &[u8]) -> Vec<u8> {
    let mut out = head(b'P', 0, path.as_bytes());
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(offset.to_le_bytes());
    out.extend(crc32fast::hash(bytes).to_le_bytes());
    out.extend(bytes);
    out
}

fn sparse(path: &str, offset: u64, map: &[(u32, u32)], bytes: &[u8]) -> Vec<u8> {
    let mut out = head(b'S', 0, path.as_bytes());
    out.extend((map.len() as u32).to_le_bytes());
    out.extend((bytes.len() as u64).to_le_bytes());
    out.extend(offset.to_le_bytes());
    let map: Vec<u8> = map.iter().flat_map(|(s, r)| [s.to_le_bytes(), r.to_le_bytes()]).flatten().collect();
    out.extend(crc32fast::hash(&[map.as_slice(), bytes].concat()).to_le_bytes());
    out.extend(map);
    out.extend(bytes);
    out
}

fn end(path: &str) -> Vec<u8> {
    head(b'E', 0, path.as_bytes())
}

type Files = BTreeMap<String, (Vec<u8>, Option<u64>)>;

/// Parses in pieces of `step`; files as they came out, and the lengths told at their ends.
fn parse(stream: &[u8], step: usize) -> Result<Files, Error> {
    let mut files: Files = BTreeMap::new();
    let mut parser = Parser::new();
    for piece in stream.chunks(step) {
        parser.feed(piece, |event| {
            match event {
                Event::Data { path, offset, bytes } => {
                    let file = &mut files.entry(path.to_string()).or_default().0;
                    file.resize(file.len().max(offset as usize + bytes.len()), 0);
                    file[offset as usize..offset as usize + bytes.len()].copy_from_slice(bytes);
                }
                Event::End { path, len } => files.entry(path.to_string()).or_default().1 = Some(len),
            }
            Ok::<(), Error>(())
        })?;
    }
    assert_eq!(parser.finish()?, files.len() as u64);
    Ok(files)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]
    #[test]
    fn files_that_interleave_come_out_whole_however_the_stream_is_cut(
        files in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..3000), 1..5),
        order in proptest::collection::vec((0usize..5, 1usize..900), 0..40),
        step in 1usize..2000,
    ) {
        let mut stream = Vec::new();
        let mut at = vec![0; files.len()];
        for (file, len) in order {
            let Some(bytes) = files.get(file) else { continue };
            let to = (at[file] + len).min(bytes.len());
            stream.extend(payload(&format!("d/{file}"), at[file] as u64, &bytes[at[file]..to]));
            at[file] = to;
        }
        for (file, bytes) in files.iter().enumerate() {
            stream.extend(payload(&format!("d/{file}"), at[file] as u64, &bytes[at[file]..]));
            stream.extend(end(&format!("d/{file}")));
        }
        let parsed = parse(&stream, step).unwrap();
        for (file, bytes) in files.iter().enumerate() {
            prop_assert_eq!(&parsed[&format!("d/{file}")], &(bytes.clone(), Some(bytes.len() as u64)));
        }
    }

    #[test]
    fn a_stream_cut_short_or_with_a_flipped_bit_is_an_error(cut in 0usize..1200, bit in 0u8..8) {
        let bytes: Vec<u8> = (0..500u32).map(|i| i as u8).collect();
        let mut stream = [payload("a", 0, &bytes), payload("b", 0, &bytes), end("a"), end("b")].concat();
        let boundary = payload("a", 0, &bytes).len() + payload("b", 0, &bytes).len();
        prop_assume!(cut < stream.len());
        prop_assert!(parse(&stream[..cut.max(1)], 64).is_err());
        // Bit 0 of the flags means nothing on a known type, the others nothing at all.
        let flags = [8, boundary / 2 + 8, boundary + 8, boundary + end("a").len() + 8];
        prop_assume!(!flags.contains(&cut));
        stream[cut] ^= 1 << bit;
        prop_assert!(parse(&stream, 64).is_err(), "bit {} of byte {}", bit, cut);
    }

    #[test]
    fn no_bytes_make_it_panic(prefix in any::<bool>(), bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in prop_oneof![Just(b'P'), Just(b'S'), Just(b'E'), any::<u8>()]) {
        let mut stream = Vec::new();
        if prefix { stream.extend(head(kind, 1, b"x/y")); }
        stream.extend(bytes);
        let _ = parse(&stream, 7);
    }

    #[test]
    fn sparse_chunks_leave_holes(step in 1usize..50) {
        let stream = [
            sparse("s", 0, &[(4, 3), (10, 2)], b"abcde"),
            payload("s", 5, b"fg"),
            sparse("s", 7, &[(1, 1), (6, 0)], b"h"),
            end("s"),
        ].concat();
        let parsed = parse(&stream, step).unwrap();
        let (bytes, len) = &parsed["s"];
        prop_assert_eq!(bytes.as_slice(), b"\0\0\0\0abc\0\0\0\0\0\0\0\0\0\0defg\0h");
        prop_assert_eq!(*len, Some(29));
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    for name in ["/etc/passwd", "../x", "a/../../x", "./../x", "a//b"] {
        let error = parse(&payload(name, 0, b"x"), 100).unwrap_err();
        assert!(matches!(error, Error::Name { .. }), "{name}: {error}");
    }
    assert!(parse(&[payload("./a", 0, b"x"), end("./a")].concat(), 9).unwrap().contains_key("a"));
}

#[test]
fn offsets_must_follow_each_other_and_nothing_follows_an_end() {
    for stream in [
        payload("a", 1, b"x"),
        [payload("a", 0, b"x"), payload("a", 0, b"x")].concat(),
        [payload("a", 0, b"x"), end("a"), payload("a", 1, b"x")].concat(),
        [end("a"), end("a")].concat(),
    ] {
        assert!(matches!(parse(&stream, 1000), Err(Error::Malformed { .. })));
    }
}

#[test]
fn an_unknown_chunk_is_skipped_only_if_it_allows_it() {
    let mut skippable = payload("a", 77, b"what");
    (skippable[8], skippable[9]) = (1, b'Z');
    assert_eq!(parse(&[skippable.clone(), end("b")].concat(), 10).unwrap().len(), 1);
    skippable[8] = 0;
    assert!(matches!(parse(&skippable, 10), Err(Error::Malformed { .. })));
}

#[test]
fn lengths_from_outside_are_checked_before_anything_is_kept() {
    let mut long_path = MAGIC.to_vec();
    long_path.extend([0, b'P', 0xff, 0xff, 0xff, 0x7f]);
    assert!(parse(&long_path, 100).is_err());
    let mut long_map = head(b'S', 0, b"a");
    long_map.extend(u32::MAX.to_le_bytes());
    long_map.extend([0; 20]);
    assert!(matches!(parse(&long_map, 100), Err(Error::TooMany { .. })));
    let mut huge = head(b'P', 0, b"a");
    huge.extend(u64::MAX.to_le_bytes());
    huge.extend([0; 12]);
    assert!(parse(&huge, 100).is_err());
}
