//! Every structure of the on-disk format.
//!
//! Where a structure carries a checksum of itself, no mutation would ever get past it: those are
//! read as they come, and once more with the checksum made right.

use std::fmt::Debug;

use holdfast_format::keyring::{Keyring, Secrets};
use holdfast_format::log::LogOpening;
use holdfast_format::log_meta::LogMeta;
use holdfast_format::manifest::{Envelope, Head};
use holdfast_format::map::{MapLeaf, MapRoot, MapSegments};
use holdfast_format::pack::{Pack, decode_bodies, encode_bodies};
use holdfast_format::parity::{Geometry, ParityTable};
use holdfast_format::record::Record;
use holdfast_format::segment::{FRAME_HEADER_BYTES, Footer, FrameHeader, PAGE_BYTES, SegmentHeader, Trailer};
use holdfast_format::session::Session;
use holdfast_format::txn_index::{FrameView, IndexFrame};
use holdfast_format::{Result, codec};

/// The key of the heads that [`manifest`] reads.
const HEAD_KEY: [u8; 32] = [7; 32];

/// What decoded must come back after it was encoded.
fn comes_back<T: PartialEq + Debug, B: AsRef<[u8]>>(
    bytes: &[u8],
    decode: impl Fn(&[u8]) -> Result<T>,
    encode: impl Fn(&T) -> B,
) {
    if let Ok(value) = decode(bytes) {
        let again = encode(&value);
        assert_eq!(decode(again.as_ref()), Ok(value));
    }
}

/// `bytes` with BLAKE3 of all before the last 32 in their place.
fn hashed(bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    if let Some((body, hash)) = bytes.split_last_chunk_mut::<32>() {
        *hash = *blake3::hash(body).as_bytes();
    }
    bytes
}

/// As [`hashed`], in a page of 4 KiB.
fn hashed_page(bytes: &[u8]) -> Vec<u8> {
    let mut page = bytes.to_vec();
    page.resize(PAGE_BYTES, 0);
    hashed(&page)
}

/// Header, frame header, footer, trailer; the first byte chooses.
pub fn segment(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 4 {
        0 => {
            comes_back(rest, SegmentHeader::decode, SegmentHeader::encode);
            comes_back(&hashed_page(rest), SegmentHeader::decode, SegmentHeader::encode);
        }
        1 => {
            comes_back(rest, FrameHeader::decode, FrameHeader::encode);
            let mut head = rest.to_vec();
            head.resize(FRAME_HEADER_BYTES, 0);
            let crc = crc32c::crc32c(&head[..28]);
            head[28..].copy_from_slice(&crc.to_le_bytes());
            comes_back(&head, FrameHeader::decode, FrameHeader::encode);
            if let Ok(header) = FrameHeader::decode(&head) {
                assert_eq!(header.encode().as_slice(), head, "each frame header has one form");
            }
        }
        2 => comes_back(rest, Footer::decode, Footer::encode),
        _ => {
            comes_back(rest, Trailer::decode, Trailer::encode);
            let page = hashed_page(rest);
            comes_back(&page, Trailer::decode, Trailer::encode);
            // A reader that believes a trailer computes places from its parity.
            if let Some(place) = Trailer::decode(&page).ok().and_then(|trailer| trailer.parity) {
                let geometry = Geometry::from_place(&place);
                let _ = (geometry.table_bytes(), geometry.parity_bytes(), geometry.second_table());
            }
        }
    }
}

/// Root, table of segments, leaf; the first byte chooses.
pub fn map(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    match choice % 3 {
        0 => comes_back(rest, MapRoot::decode, MapRoot::encode),
        1 => comes_back(rest, MapSegments::decode, MapSegments::encode),
        _ => {
            comes_back(rest, MapLeaf::decode, MapLeaf::encode);
            for part in MapLeaf::decode(rest).map(|leaf| leaf.parts).unwrap_or_default() {
                for run in part.runs {
                    let left = run.skip(run.count / 2);
                    assert_eq!(left.count, run.count - run.count / 2);
                }
            }
        }
    }
}

/// The envelope of a record, the heads and the packs; the first byte chooses.
pub fn manifest(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    if choice % 3 == 0 {
        for bytes in [rest, &hashed(rest)] {
            comes_back(bytes, Envelope::decode, |e| Envelope::encode(&e.prefix, &e.sealed));
        }
        return;
    }
    if choice % 3 == 2 {
        for bytes in [rest, &hashed(rest)] {
            comes_back(bytes, Pack::decode, |p| Pack::encode(&p.prefix, &p.sealed));
        }
        // The plaintext: how many records there are is its first byte.
        let Some((count, plain)) = rest.split_first() else { return };
        if let Ok(bodies) = decode_bodies(plain, u32::from(*count)) {
            let bodies: Vec<Vec<u8>> = bodies.into_iter().map(<[u8]>::to_vec).collect();
            assert_eq!(encode_bodies(&bodies), plain);
        }
        return;
    }
    let mut bytes = rest.to_vec();
    let decode = |bytes: &[u8]| Head::decode(bytes, &HEAD_KEY);
    comes_back(&bytes, decode, |head| head.encode(&HEAD_KEY));
    if let Some((body, mac)) = bytes.split_last_chunk_mut::<32>() {
        *mac = *blake3::keyed_hash(&HEAD_KEY, body).as_bytes();
    }
    comes_back(&bytes, decode, |head| head.encode(&HEAD_KEY));
}

/// The plaintext of a record, of every kind; the kind is the first number in it.
pub fn record(data: &[u8]) {
    comes_back(data, Record::decode, |(at_us, record)| record.encode(*at_us));
}

/// The keyring and the secrets in it; the first byte chooses.
pub fn keyring(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    if choice % 2 == 0 {
        comes_back(rest, Keyring::decode, Keyring::encode);
        comes_back(&hashed(rest), Keyring::decode, Keyring::encode);
    } else {
        comes_back(rest, Secrets::decode, Secrets::encode);
    }
}

/// A session.
pub fn session(data: &[u8]) {
    comes_back(data, Session::decode, Session::encode);
    comes_back(&hashed(data), Session::decode, Session::encode);
}

/// The opening of a log segment and its notes; the first byte chooses.
pub fn log(data: &[u8]) {
    let Some((choice, rest)) = data.split_first() else { return };
    if choice % 2 == 0 {
        comes_back(rest, LogOpening::decode, LogOpening::encode);
    } else {
        comes_back(rest, LogMeta::decode, LogMeta::encode);
    }
}

/// A frame of a log's index.
pub fn txn_index(data: &[u8]) {
    comes_back(data, IndexFrame::decode, IndexFrame::encode);
    if let (Ok(whole), Ok(view)) = (IndexFrame::decode(data), FrameView::decode(data)) {
        let mut entries = whole.entries.iter();
        let walked = view.each(|entry| {
            let expected = entries.next().unwrap();
            assert_eq!(entry.gtid(), expected.gtid);
            assert!(expected.gtid.as_ref().is_none_or(|gtid| entry.gtid_is(gtid)));
            Ok::<_, holdfast_format::Error>(())
        });
        assert!(walked.is_ok() && entries.next().is_none());
    }
    let mut reader = codec::Reader::new("a number", data);
    if let Ok(number) = reader.varint("the number") {
        let mut writer = codec::Writer::new();
        writer.varint(number);
        assert_eq!(data.get(..writer.len()), Some(writer.as_bytes()), "each number has one form");
    }
}

/// The table of checksums of a segment's parity. As the table says how long it is, it is made whole for the length
/// that it claims.
pub fn parity(data: &[u8]) {
    comes_back(data, ParityTable::decode, ParityTable::encode);
    let Some(protected) = data.get(48..56).and_then(|b| b.try_into().ok()).map(u64::from_le_bytes) else {
        return;
    };
    let protected = protected % (1 << 22);
    let geometry = Geometry::of(protected);
    let mut bytes = data.to_vec();
    let sums = (geometry.data_shards + geometry.parity_shards) as usize * 16;
    bytes.resize(64 + sums + 32, 0);
    bytes[12..16].copy_from_slice(&geometry.shard_bytes.to_le_bytes());
    bytes[48..56].copy_from_slice(&protected.to_le_bytes());
    bytes[56..60].copy_from_slice(&geometry.data_shards.to_le_bytes());
    bytes[60..64].copy_from_slice(&geometry.parity_shards.to_le_bytes());
    comes_back(&hashed(&bytes), ParityTable::decode, ParityTable::encode);
}
